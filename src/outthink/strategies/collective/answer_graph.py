"""A graph of calls to one or several models: assistants answer, fusers merge, and edges carry answers between them.

Source: "Generalizing Test-time Compute-optimal Scaling as an Optimizable Graph" (2511.00086), by notes on the authors'
code; the paper was not read. Prompts are ours. Differs: what nobody reads is voted on, where the source has one last
node of a fixed model, which here is a fuser that reads what it is to merge; answers are drawn at the run's temperature
and not nearly greedily, so that equal nodes differ; an answer that cannot be read goes no further, and its readers go
on without it; answers are shown in a random order.

Pays: where mixed models or a chain beat the vote of one model at equal FLOPs, which is a matter of the task (`outthink
search graph`). A call that reads d answers costs more than d times what reading one adds. On sums three answers that a
0.5B model merged were 23 points below the vote at equal tokens (docs/results/selection.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from outthink.errors import BudgetExhausted, MissingResource, NothingCameBack, PromptTooLong, UsageError
from outthink.maths.selection import Drawn, Replayed, majority
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.models.roles import MAIN
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check_config
from outthink.strategies.choosing import by_majority
from outthink.strategies.collective.answer_nodes import (
    PROMPTS,
    AnswerGraphFile,
    Nodes,
    ends,
    levels,
    open_nodes,
    read_nodes,
    written_nodes_file,
)
from outthink.strategies.prompting import added, between, said_by
from outthink.together import together
from outthink.types import Candidate, Problem

_MERGED_AT = 0.3  # temperature, as in `fusion`


@dataclass(frozen=True, kw_only=True)
class AnswerGraph:
    """A graph, from a file or in its short form.

    Args:
        nodes: such as "assistant:3@small,assistant@large,1+2>fuser@large": nodes are parted by "," and numbered from 1;
            before ">" stand the numbers of the nodes above it that a node reads, as in 1-3+5; behind ":" how many
            such calls there are, and behind "@" the role whose model is asked. Without a role assistants ask the main
            model, and fusers "fusor". An assistant that reads corrects, a fuser merges. The answers that no node reads
            are voted on.
        config: a TOML file in place of `nodes`, which can hold temperatures and other prompts, too.
    """

    nodes: str = "assistant:4,1>fuser"
    config: str = ""

    def __post_init__(self) -> None:
        check_config(self, "nodes", "A graph")
        self.given  # noqa: B018 - refused here, before anything runs

    @cached_property
    def given(self) -> AnswerGraphFile:
        """What was given, checked."""
        return open_nodes(self.config) if self.config else AnswerGraphFile(nodes=read_nodes(self.nodes))

    @property
    def built(self) -> Nodes:
        """Its nodes."""
        return self.given.nodes

    @property
    def calls(self) -> int:
        """The calls of models on one problem."""
        return sum(one.samples for one in self.built)

    @property
    def versions(self) -> dict[str, str]:
        """What a file held."""
        if not self.config:
            return {}
        held = written_nodes_file(self.built, name="") + json.dumps(self.given.prompts, sort_keys=True)
        return {"graph": hashlib.sha256(held.encode()).hexdigest()[:16]}

    @property
    def votes(self) -> bool:
        """It does where several answers are read by none."""
        return sum(self.built[place].samples for place in ends(self.built)) > 1

    @property
    def first(self) -> tuple[Draw, ...]:
        """The samples of the main model that read nothing."""
        own = [one for one in self.built if one.role == MAIN and not one.reads]
        return tuple(Draw(n=one.samples, temperature=one.temperature) for one in own)

    @property
    def own_temperature(self) -> bool:
        """Whether a node that reads nothing has its own."""
        return any(one.temperature is not None for one in self.built if not one.reads)

    @property
    def one_sample(self) -> bool:
        """Whether it is a plain call."""
        return self.calls == 1 and self.built[0].role == MAIN

    @property
    def at_once(self) -> int:
        """Answers of the widest level."""
        return max(sum(self.built[place].samples for place in level) for level in levels(self.built))

    async def run(
        self, problem: Problem, report: Report, *, model: Model, models: Models, rng: Rng, meter: Meter
    ) -> None:
        """Reports after each level of nodes."""
        for one in self.built:
            if one.model and one.role != MAIN and not models.has(one.role):
                raise MissingResource(
                    f"answer_graph names the role {one.role!r} and no model has it: pass "
                    f"models={{{one.role!r}: ...}}, or --role {one.role}=MODEL."
                )
        written: dict[int, list[Candidate]] = {}
        used: set[int] = set()  # nodes from whose answers others were made
        for number, level in enumerate(levels(self.built)):
            prompts = {place: await self._draw(place, problem, written, rng) for place in level}
            draws = {place: draw for place, draw in prompts.items() if draw is not None}
            try:
                new = await self._drawn(problem, draws, model, models)
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
                if not written:
                    raise
                meter.notes.append(f"level {number + 1} of the graph was left out: {failure}")
                break
            written |= new
            if missing := [place + 1 for place in level if not _readable(new.get(place, ()))]:
                meter.notes.append(f"nodes without an answer that can be read: {', '.join(map(str, missing))}")
            used |= {read - 1 for place in level if _readable(new.get(place, ())) for read in self.built[place].reads}
            standing = [one for place in sorted(written) if place not in used for one in written[place]]
            chosen, share = by_majority(standing)
            report(standing, chosen=chosen, confidence=share)

    async def _draw(self, place: int, problem: Problem, written: dict[int, list[Candidate]], rng: Rng) -> Draw | None:
        """What a node is asked; None where nothing of what it reads can be read."""
        node = self.built[place]
        temperature = _MERGED_AT if node.temperature is None and node.type == "fuser" else node.temperature
        if not node.reads:
            return Draw(n=node.samples, temperature=temperature)
        read = [one for number in node.reads for one in _readable(written.get(number - 1, ()))]
        if not read:
            return None
        order = rng.at("answer_graph", place).permutation(len(read))
        shown = [read[number] for number in order]
        said = await said_by(shown)
        answers = between("answer", dict(enumerate((said[one.id] for one in shown), start=1)))
        messages = added(problem, self.given.prompts.get(node.type, PROMPTS[node.type]).format(answers=answers))
        return Draw(
            n=node.samples,
            messages=messages,
            parents=tuple(shown),
            temperature=temperature,
            lane=("node", place + 1),
        )

    async def _drawn(
        self, problem: Problem, draws: dict[int, Draw], model: Model, models: Models
    ) -> dict[int, list[Candidate]]:
        """The answers of each node; those of one model are one batch. Fails where no model can do anything."""
        by_role: dict[str, list[int]] = {}
        for place in draws:
            by_role.setdefault(self.built[place].role, []).append(place)
        failures: list[BudgetExhausted | NothingCameBack | PromptTooLong] = []

        async def batch(role: str) -> dict[int, list[Candidate]]:
            asked = model if role == MAIN else models.role(role)
            places = by_role[role]
            try:
                drawn = await asked.sample_fitting(problem, [draws[place] for place in places])
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
                failures.append(failure)
                return {}
            return dict(zip(places, drawn, strict=True))

        came = {place: drawn for part in await together(*map(batch, by_role)) for place, drawn in part.items()}
        if failures and not came:
            raise failures[0]
        return came

    def replay(self, drawn: Drawn) -> Replayed:
        """The vote on recorded answers, where no node reads and all ask the model that wrote them."""
        if any(one.reads or one.role != MAIN for one in self.built):
            raise UsageError("answer_graph is replayed only where no node reads answers, and all ask one model.")
        if self.calls > drawn.keys.shape[-1]:
            raise UsageError(f"the graph makes {self.calls} calls.")
        lengths = None if drawn.lengths is None else drawn.lengths[..., : self.calls]
        choice = majority(drawn.keys[..., : self.calls], lengths=lengths)

        return Replayed.of_prefix(choice, np.full(choice.index.shape, self.calls))


def _readable(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.key is not None]
