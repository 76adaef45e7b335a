"""Runs one strategy over the problems of a task: many at once, each recorded as soon as it is graded."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from outthink.answers import Reader
from outthink.bench.report import Summary, summary
from outthink.bench.store import Before, Result, Store, read_results
from outthink.driver import as_budget, make_strategy, solve_async, strategy_name
from outthink.embedding import TextEmbedder, make_embedder
from outthink.errors import EngineError, OutthinkError, Unaffordable, UsageError
from outthink.models.engine import Engine
from outthink.names import name_of
from outthink.rewards import ScoreFunction, Scorer, close_scorer, make_scorer
from outthink.sandbox import Sandbox
from outthink.strategies import Strategy
from outthink.tasks import Example, grade, opened
from outthink.together import together
from outthink.types import Budget, Problem, Sampling, Trace

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How far a run is.

    Args:
        done, total: problems finished, those of earlier attempts included, and problems asked for.
        before: what earlier attempts have left.
        result: the problem that was finished just now; None at the start, and where one was left.
        left: why a problem was left for the next time: nothing was charged for it, as where a server is down.
    """

    done: int
    total: int
    before: Before
    result: Result | None = None
    left: str | None = None


async def bench(
    examples: Sequence[Example],
    strategy: str | Strategy,
    *,
    store: str | Path,
    model: Engine,
    models: Mapping[str, Engine] | None = None,
    verifier: str | ScoreFunction | Scorer | None = None,
    prm: str | ScoreFunction | Scorer | None = None,
    embedder: str | TextEmbedder | None = None,
    budget: str | Budget | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    task: str = "",
    shard: tuple[int, int] | None = None,
    concurrency: int = 16,
    reader: Reader | None = None,
    sandbox: Sandbox | None = None,
    on_progress: Callable[[Standing], None] | None = None,
    stop: asyncio.Event | None = None,
) -> Summary:
    """Solve, grade and record every example that is not in the run directory yet; a summary of all that are.

    A problem that does not fit, or on which nothing came back although something was charged, is recorded with its
    error and without credit; running again does not redo it. One for which nothing was charged is left for the next
    time.

    Args:
        store: the run directory; one that holds a part of the same run is gone on with.
        model, models, verifier, prm, embedder, sampling, seed: as for `solve_async`.
        budget: for each problem.
        task: its name, for reports.
        shard: (i, k) takes the examples i, i + k, i + 2k ...; 0 <= i < k.
        concurrency: most problems at once, at least 1; changes no result where the engine is reproducible.
        reader, sandbox: read answers and run code; opened here where they are needed and not given.
        on_progress: told at the start and after each problem.
        stop: set it to end early: what is being solved is given up (and paid again), what is solved is recorded, and
            the summary says how many problems are left.

    Raises UsageError where it cannot be carried out (what was finished before is kept), and OutthinkError where
    results cannot be written, as on a full disk; calling again goes on from there.
    """
    strategy = make_strategy(strategy)
    budget = as_budget(budget)
    sampling = sampling or Sampling()
    place, of = shard or (0, 1)
    if not 0 <= place < of:
        raise UsageError(f"There is no shard {place}/{of}: count from 0/{of} to {of - 1}/{of}.")
    settings = {
        "task": task,
        "strategy": {"name": strategy_name(strategy), **dataclasses.asdict(strategy)},
        "models": {role: engine.spec.name for role, engine in {"model": model, **(models or {})}.items()},
        "verifier": _describe(verifier),
        "prm": _describe(prm),
        "embedder": _describe(embedder),
        "sampling": dataclasses.asdict(sampling),
        "budget": dict(budget.limits),
        "seed": seed,
        "shard": None if shard is None else [place, of],
        "problems": ids(examples),
        "prompts": _digest(example.problem for example in examples),
    }
    mine = examples[place::of]
    scorers = {
        role: make_scorer(given, process=role == "prm")
        for role, given in (("verifier", verifier), ("prm", prm))
        if given is not None
    }
    encoder = None if embedder is None else make_embedder(embedder)
    async with opened(examples, reader, sandbox) as (read, box):
        with Store(Path(store), settings) as kept:
            done = sum(example.problem.id in kept.before.done for example in mine)
            if on_progress is not None:
                on_progress(Standing(done=done, total=len(mine), before=kept.before))

            async def attempt(example: Example) -> Trace | OutthinkError:
                problem = example.problem
                try:
                    return await solve_async(
                        problem,
                        strategy,
                        model=model,
                        models=models,
                        verifier=scorers.get("verifier"),
                        prm=scorers.get("prm"),
                        embedder=encoder,
                        budget=budget,
                        sampling=sampling,
                        seed=seed,
                        reader=read,
                        sandbox=box,
                        on_call=lambda call: kept.journal(problem.id, call),
                    )
                except (EngineError, Unaffordable) as failure:
                    return failure

            async def finish(example: Example, outcome: Trace | OutthinkError) -> None:
                nonlocal done
                if isinstance(outcome, EngineError) and not (outcome.trace and outcome.trace.usage.tokens):
                    if on_progress is not None:
                        on_progress(Standing(done=done, total=len(mine), before=kept.before, left=str(outcome)))
                    return
                if isinstance(outcome, Trace):
                    credit = await grade(example, outcome.answer, read, box)
                    result = Result(problem=example.problem.id, credit=credit, trace=outcome)
                else:
                    result = Result(problem=example.problem.id, credit=0.0, error=str(outcome), trace=outcome.trace)
                kept.record(result)
                done += 1
                if on_progress is not None:
                    on_progress(Standing(done=done, total=len(mine), before=kept.before, result=result))

            todo = [example for example in mine if example.problem.id not in kept.before.done]
            try:
                await in_flight(todo, attempt, finish, concurrency=concurrency, stop=stop)
            finally:
                for role, given in (("verifier", verifier), ("prm", prm)):
                    if isinstance(given, str):
                        await close_scorer(scorers[role])
            return summary(read_results(Path(store)), planned=len(mine))


async def in_flight(
    examples: Iterable[Example],
    attempt: Callable[[Example], Awaitable[T]],
    finish: Callable[[Example, T], Awaitable[None]],
    *,
    concurrency: int,
    stop: asyncio.Event | None,
) -> None:
    """Attempt and finish examples, begun in order, up to `concurrency` at once.

    `stop` cancels attempts and lets what is being finished come to its end. The first exception ends everything and
    is raised.
    """
    if concurrency < 1:
        raise UsageError(f"concurrency must be at least 1, not {concurrency}.")
    waiting = iter(examples)
    stop = stop or asyncio.Event()
    stopping = asyncio.ensure_future(stop.wait())

    async def work() -> None:
        for example in waiting:
            if stop.is_set():
                return
            attempting = asyncio.ensure_future(attempt(example))
            try:
                await asyncio.wait({attempting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not attempting.done():
                    attempting.cancel()
                    await asyncio.wait({attempting})
            if attempting.cancelled():
                return
            await finish(example, attempting.result())

    try:
        await together(*(work() for _ in range(concurrency)))
    finally:
        stopping.cancel()


def ids(examples: Iterable[Example]) -> list[str]:
    """Their ids in order; raises UsageError where one comes twice."""
    found: dict[str, None] = {}
    for example in examples:
        if example.problem.id in found:
            raise UsageError(f"Two examples have the id {example.problem.id!r}: results could not be told apart.")
        found[example.problem.id] = None
    return list(found)


_PROBE = re.compile(r"[^?=&]+\.json(?=&|$)")


def _describe(given: str | ScoreFunction | Scorer | TextEmbedder | None) -> str | None:
    """A name that is the same in the next process."""
    if given is None:
        return None
    if isinstance(given, str):  # a probe that was trained again is another one, also inside another scorer
        probes = [_contents(file) for file in _PROBE.findall(unquote(given))]
        return given if not probes else f"{given} {hashlib.blake2b(b''.join(probes), digest_size=4).hexdigest()}"
    if dataclasses.is_dataclass(given):
        return repr(given)
    return name_of(given)


def _contents(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""  # whoever opens it says why it cannot


def _digest(problems: Iterable[Problem]) -> str:
    """Tells whether prompts, or how answers are read, have changed since."""
    hasher = hashlib.blake2b(digest_size=8)
    for problem in problems:
        hasher.update(repr((problem.id, problem.messages, problem.answer, problem.options)).encode())
    return hasher.hexdigest()
