"""A graph of calls as plain data: which nodes read the answers of which, the rules they keep, and what they cost.

Source: "Generalizing Test-time Compute-optimal Scaling as an Optimizable Graph" (2511.00086), by notes on the authors'
code. Differs: what no node reads is voted on, so that a vote needs no node of its own; several equal nodes are written
as one with several samples; a node reads what is above it, so that no graph has a circle.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from outthink.cost.flops import flops_of_node
from outthink.errors import UsageError
from outthink.models.engine import Shape
from outthink.models.roles import GENERATOR, MAIN
from outthink.strategies.collective.form import read_form, read_prompts, read_table, written_table, written_value
from outthink.strategies.prompting import MOST_SHOWN

NodeType = Literal["assistant", "fuser"]

PROMPTS = {
    "assistant": (
        "Here are answers of others; they may be wrong.\n\n{answers}\n\n"
        "Check them against the question, step by step. Then write a complete answer of your own, with their errors "
        "corrected, which ends in the form asked for above."
    ),
    "fuser": (
        "Here are candidate answers; some of them may be wrong.\n\n{answers}\n\n"
        "Merge them into one answer. Keep what is correct, and where they disagree decide which is right. End in the "
        "form asked for above."
    ),
}
"""What is added to the question for a node that reads, by its type; what stands in braces is filled in."""

MOST_NODES = 1024
MOST_READ = 64
"""Answers in one prompt, at most."""
_GROUPS = 256
_FORM = "write [NUMBERS>]TYPE[:SAMPLES][@ROLE], such as assistant:3@small or 1+2>fuser@large"


@dataclass(frozen=True, kw_only=True)
class CallNode:
    """A call of a model, or several alike.

    Args:
        type: "assistant" answers the question, after reading the answers that reach it; "fuser" merges them.
        model: the role whose model it asks; "": the main model, of a fuser the role "fusor".
        reads: numbers, from 1, of the nodes above it whose answers it reads; all answers of each.
        samples: how many such calls; at least 1.
        temperature: None: as the run says, of a fuser 0.3.
    """

    type: NodeType
    model: str = ""
    reads: tuple[int, ...] = ()
    samples: int = 1
    temperature: float | None = None

    @property
    def role(self) -> str:
        """The role whose model it asks."""
        plain = "fusor" if self.type == "fuser" else MAIN
        return {"": plain, GENERATOR: MAIN}.get(self.model, self.model)


Nodes = tuple[CallNode, ...]


@dataclass(frozen=True, kw_only=True)
class AnswerGraphFile:
    """What a file says.

    Args:
        nodes: keep the rules of `checked_nodes`.
        prompts: by name, in place of those in `PROMPTS`.
    """

    nodes: Nodes
    prompts: Mapping[str, str] = field(default_factory=dict)


def read_nodes(text: str) -> Nodes:
    """The nodes of the short form, checked.

    They are parted by "," and numbered from 1: TYPE, with the numbers of the nodes that it reads and ">" before it, as
    in 1-3+5>fuser, its samples behind ":" and the role of its model behind "@". Raises UsageError in one sentence.
    """
    return checked_nodes([_node(part) for part in text.split(",")])


def _node(text: str) -> CallNode:
    reads, arrow, rest = text.rpartition(">")
    rest, at, role = rest.partition("@")
    kind, colon, samples = (part.strip() for part in rest.partition(":"))
    if kind not in get_args(NodeType):
        raise UsageError(f"There is no node {kind!r}; there are {', '.join(get_args(NodeType))}: {_FORM}.")
    if at and not role.strip():
        raise UsageError(f"{text.strip()!r} names no role behind '@'; {_FORM}.")
    return CallNode(
        type=kind,  # type: ignore[arg-type]  # one of them
        model=role.strip(),
        reads=tuple(number for part in reads.split("+") for number in _numbers(part)) if arrow else (),
        samples=_whole(samples) if colon else 1,
    )


def _numbers(text: str) -> range:
    """From "3" or "3-5"."""
    first, dash, last = text.partition("-")
    numbers = range(_whole(first), _whole(last if dash else first) + 1)
    if len(numbers) > _GROUPS:
        raise UsageError(f"{text.strip()!r} are more than {_GROUPS} nodes.")
    return numbers


def _whole(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"{text!r} is no whole number; {_FORM}.")
    return int(text)


def open_nodes(path: str | Path) -> AnswerGraphFile:
    """What a TOML file says, checked.

    It holds `nodes`, a list of tables with the fields of `CallNode`, and may hold a `name` and a table `prompts` with
    other ones than `PROMPTS`. Raises UsageError in one sentence where it cannot be read or breaks a rule.
    """
    nodes, prompts = read_form(path, "graph", "nodes", "[...], a list of nodes")
    try:
        read = checked_nodes([read_table(entry, CallNode, "node", '{type = "assistant"}') for entry in nodes])
        return AnswerGraphFile(nodes=read, prompts=read_prompts(prompts, PROMPTS))
    except UsageError as cause:
        raise UsageError(f"{path}: {cause}") from None


def written_nodes(nodes: Nodes) -> str:
    """The short form that `read_nodes` reads; temperatures have none there."""

    def one(node: CallNode) -> str:
        reads = "+".join(map(str, node.reads))
        samples = f":{node.samples}" if node.samples > 1 else ""
        return f"{reads}>" * bool(reads) + f"{node.type}{samples}" + f"@{node.model}" * bool(node.model)

    return ",".join(map(one, nodes))


def written_nodes_file(nodes: Nodes, *, name: str) -> str:
    """The TOML file that `open_nodes` reads: a line for each node."""
    plain = CallNode(type="assistant")
    lines = [f"  {written_table(one, plain)},  # {number}" for number, one in enumerate(nodes, start=1)]
    return "\n".join([f"name = {written_value(name)}", "nodes = [", *lines, "]", ""])


def checked_nodes(given: Sequence[CallNode]) -> Nodes:
    """The nodes, where they keep the rules; else UsageError, in one sentence that says which is broken and where.

    A node reads nodes above it, each once; a fuser reads at least one assistant.
    """
    nodes = tuple(given)
    if not nodes:
        raise UsageError("A graph needs at least one node.")
    if len(nodes) > _GROUPS:
        raise UsageError(f"A graph has at most {_GROUPS} nodes of its own kind, not {len(nodes)}: leave some out.")
    for number, one in enumerate(nodes, start=1):
        if one.samples < 1:
            raise UsageError(f"Node {number}: samples must be at least 1, not {one.samples}.")
        if one.temperature is not None and not (math.isfinite(one.temperature) and one.temperature >= 0):
            raise UsageError(f"Node {number}: temperature must be a number of at least 0, not {one.temperature}.")
        if re.search(r"[/,@>]", one.model):
            raise UsageError(f"Node {number}: {one.model!r} is no role: name one, and give its model by --role.")
        if wrong := [read for read in one.reads if not 1 <= read < number]:
            raise UsageError(f"Node {number} cannot read node {wrong[0]}: it reads nodes above it only.")
        if len({*one.reads}) < len(one.reads):
            raise UsageError(f"Node {number} reads a node twice: name each once.")
        if one.type == "fuser" and not any(nodes[read - 1].type == "assistant" for read in one.reads):
            raise UsageError(f"Node {number} is a fuser: it must read at least one assistant.")
        if (much := in_degree(nodes, one)) > MOST_READ:
            raise UsageError(f"Node {number} reads {much} answers in one prompt, more than {MOST_READ}: read fewer.")
    if (most := sum(one.samples for one in nodes)) > MOST_NODES:
        raise UsageError(f"The graph makes {most:,} calls, more than {MOST_NODES:,}: lower samples.")
    if (again := sum(one.samples * in_degree(nodes, one) for one in nodes)) > MOST_SHOWN:
        raise UsageError(
            f"The graph shows models {again:,} answers again, more than {MOST_SHOWN:,}: let nodes read fewer."
        )
    return nodes


def in_degree(nodes: Nodes, node: CallNode) -> int:
    """How many answers a node reads."""
    return sum(nodes[read - 1].samples for read in node.reads)


def levels(nodes: Nodes) -> list[list[int]]:
    """The places of the nodes, from 0, by the longest path that leads to them; as many levels as the graph is deep."""
    depth: list[int] = []
    for one in nodes:
        depth.append(1 + max((depth[read - 1] for read in one.reads), default=-1))
    return [[place for place, own in enumerate(depth) if own == level] for level in range(max(depth) + 1)]


def ends(nodes: Nodes) -> list[int]:
    """The places of the nodes that no other node reads."""
    read = {number for one in nodes for number in one.reads}
    return [place for place in range(len(nodes)) if place + 1 not in read]


def flops_of_nodes(nodes: Nodes, shape_of: Callable[[str], Shape], task: int, answer: int) -> int:
    """Operations of all calls.

    Args:
        shape_of: the shape of the model of a role.
        task, answer: tokens of the task and of one answer; measure them, for models that think write much.
    """
    return sum(one.samples * flops_of_node(shape_of(one.role), task, answer, in_degree(nodes, one)) for one in nodes)
