"""What a strategy or a scorer may ask for by name: a row a resource, and how somebody supplies it.

A new resource is a row here and a module beside it. What a caller supplies may have these, and needs none of them:

- `metered(meter, problem)`: what strategies get in its place, for one problem; its calls are then in the ledger.
- `units`: what it counts beside tokens, which a budget may then limit.
- `ordered`: how many problems of a run are solved side by side before what was learned from them counts. `bench` then
  goes through the problems in order, in batches of so many, and after each calls `learn(traces)` with the traces of
  the batch, in order of its problems; of a run that is gone on with, also those of finished batches. A server does not
  take it, because its callers come in no order.
- `version`: what a result depends on besides what was learned in the run, for traces and run directories.
- `close()`: frees what it holds.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from outthink.errors import MissingResource, UnknownName, UsageError
from outthink.names import load, make, make_own
from outthink.together import close_all

if TYPE_CHECKING:
    from outthink.meter import Meter
    from outthink.types import Problem

_DOTTED = re.compile(r"\w+(?:\.\w+)*:[A-Za-z_]\w*(?:\.\w+)*")  # module:Name


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """One row.

    Args:
        annotation: its type where a strategy's `run` or a scorer's `score` names it.
        supply: how somebody supplies it, for the sentence that says that it is missing.
        opener: "module:Class" that is made of what a user writes behind `--resource NAME=` where that is no
            "module:Name" itself: of its first field, with others as options behind a "?"; empty: there is none.
        scope: what its work belongs to: one problem, a context that problems share, or a whole run. Calls of such a
            resource say so (`Call.scope`).
        given: it has an option or argument of its own, so `--resource` does not take it.
    """

    annotation: str
    supply: str
    opener: str = ""
    scope: Literal["problem", "context", "run"] = "problem"
    given: bool = False


RESOURCES: Mapping[str, Resource] = {
    "model": Resource(annotation="Model", supply="pass model=..., or --model NAME", given=True),
    "models": Resource(annotation="Models", supply="pass models={role: ...}, or --role ROLE=NAME", given=True),
    "verifier": Resource(
        annotation="Scores",
        supply="pass verifier=..., or --verifier with confidence, judge, tests, an address ...",
        given=True,
    ),
    "prm": Resource(
        annotation="Scores",
        supply="pass prm=..., or --prm with confidence, judge, PROBE.json, an address ...",
        given=True,
    ),
    "meter": Resource(annotation="Meter", supply="it is always there", given=True),
    "rng": Resource(annotation="Rng", supply="it is always there", given=True),
    "embedder": Resource(
        annotation="Embedder",
        supply="it is always there; embedder=..., or --embedder, chooses another than hashing",
        given=True,
    ),
    "sandbox": Resource(
        annotation="MeteredSandbox",
        supply="it is there where bubblewrap is installed; sandbox=... passes another one",
        given=True,
    ),
    "resources": Resource(
        annotation="Mapping[str, Any]",
        supply="it is always there: all that can be had, for a strategy that runs others",
        given=True,
    ),
    "retriever": Resource(
        annotation="Retriever", supply="pass resources={'retriever': ...}, or --resource retriever=...", scope="context"
    ),
    "memory": Resource(
        annotation="Memory", supply="pass resources={'memory': ...}, or --resource memory=...", scope="run"
    ),
    "environment": Resource(
        annotation="Environment", supply="pass resources={'environment': ...}, or --resource environment=..."
    ),
}
"""What a strategy's `run` or a scorer's `score` may name."""


def open_resources(given: Sequence[str]) -> dict[str, Any]:
    """What `--resource NAME=GIVEN` options stand for, by name; `close_resources` frees it. No event loop may run here.

    Raises UnknownName, or UsageError with a sentence that says what is wrong; then nothing stays open.
    """
    written = _written(given)
    opened: dict[str, Any] = {}
    try:
        for name, text in written.items():
            opened[name] = _made(name, RESOURCES[name], text)
    except BaseException:
        asyncio.run(close_resources(opened))
        raise
    return opened


def check_resources(given: Sequence[str]) -> None:
    """Raise, as `open_resources` does, where it shows without opening anything that one cannot be opened."""
    for text in _written(given).values():
        target, _, _ = text.partition("?")
        if _DOTTED.fullmatch(target):
            load(target)


def _written(given: Sequence[str]) -> dict[str, str]:
    """What is written for each resource, by name."""
    texts: dict[str, str] = {}
    for text in given:
        name, equals, written = text.partition("=")
        free = [known for known, row in RESOURCES.items() if not row.given]
        if not equals or not written:
            raise UsageError(f"Cannot read the resource {text!r}; write NAME=GIVEN, such as memory=module:Name.")
        if name in texts:
            raise UsageError(f"The resource {name} is given twice; give it once.")
        if name not in RESOURCES:
            raise UnknownName("resource", name, free)
        row = RESOURCES[name]
        if row.given:
            raise UsageError(f"The resource {name} has a way of its own: {row.supply}.")
        texts[name] = written
    return texts


def _made(name: str, row: Resource, written: str) -> Any:
    from urllib.parse import parse_qsl

    target, _, text = written.partition("?")
    options = dict(parse_qsl(text, keep_blank_values=True))
    if row.opener and not _DOTTED.fullmatch(target):
        opener = load(row.opener)
        return make(opener, {fields(opener)[0].name: target, **options}, name=name, what="option")
    if not _DOTTED.fullmatch(target):
        raise UsageError(
            f"Cannot open the resource {name} from {written!r}; write module:Name, or module:Name?OPTION=VALUE."
        )
    return make_own(target, options)


async def close_resources(opened: Mapping[str, Any]) -> None:
    """Free what `open_resources` opened."""
    await close_all(opened.values())


def supplied(resource: Any, meter: Meter, problem: Problem) -> Any:
    """What strategies get where a caller supplies this."""
    return resource.metered(meter, problem) if hasattr(resource, "metered") else resource


def replaced(resources: Mapping[str, Any], **others: Any) -> Mapping[str, Any]:
    """The resources of a strategy for one that it runs: the same, but for these."""
    given: dict[str, Any] = {**resources, **others}
    given["resources"] = MappingProxyType(given)
    return given


def versions(resources: Mapping[str, Any]) -> dict[str, str]:
    """What results depend on, of resources that say so."""
    return {name: str(given.version) for name, given in resources.items() if hasattr(given, "version")}


def taken(function: Callable[..., Any]) -> Mapping[str, bool]:
    """The resources that a strategy's `run` or a scorer's `score` names, and whether it cannot do without each."""
    return _taken(getattr(function, "__func__", function))


@lru_cache(maxsize=1024)  # looking at a signature takes longer than most of what is done with it
def _taken(function: Callable[..., Any]) -> Mapping[str, bool]:
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default is one.empty for one in parameters if one.kind is one.KEYWORD_ONLY}


def bind(function: Callable[..., Any], available: Mapping[str, Any], who: str) -> dict[str, Any]:
    """The keyword-only arguments of `function`, by name; raises MissingResource with how to supply one."""
    bound = {}
    for name, needed in taken(function).items():
        if name in available:
            bound[name] = available[name]
        elif needed:
            how = RESOURCES[name].supply if name in RESOURCES else "there is no such resource"
            raise MissingResource(f"{who} needs {name!r}: {how}.")
    return bound
