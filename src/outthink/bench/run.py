"""Runs one strategy over the problems of a task: many at once, each recorded as soon as it is graded."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from outthink.answers.reader import Reader
from outthink.cost import charge
from outthink.driver import as_budget, solve_async
from outthink.errors import EngineError, OutthinkError, Unaffordable, UsageError
from outthink.models.engine import Engine, Request
from outthink.planner.plan import Plan
from outthink.planner.portfolio import Portfolio
from outthink.records.runs import Before, Result, Store, read_results
from outthink.reports.report import Summary, summary
from outthink.resources.embedding import TextEmbedder, make_embedder
from outthink.rewards import Scorer
from outthink.rewards.making import ScoreFunction, close_scorer, describe, make_scorer
from outthink.sandbox.host import Sandbox
from outthink.strategies import Strategy, traits
from outthink.strategies.making import make_strategy, strategy_name
from outthink.tasks.example import Example
from outthink.tasks.grading import grade, opened
from outthink.together import together
from outthink.types import Budget, Call, Problem, Sampling, Trace

T = TypeVar("T")
_BOUNDS = 16  # servers are asked for the length of so many prompts at once


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
    total_budget: str | Budget | None = None,
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
        total_budget: for all of them together, in the unit of the plan of `auto`, which spreads it.
        task: its name, for reports.
        shard: (i, k) takes the examples i, i + k, i + 2k ...; 0 <= i < k.
        concurrency: most problems at once, at least 1; changes no result where the engine is reproducible and
            there is no total budget.
        reader, sandbox: read answers and run code; opened here where they are needed and not given.
        on_progress: told at the start and after each problem.
        stop: set it to end early: what is being solved is given up (and paid again), what is solved is recorded, and
            the summary says how many problems are left.

    Raises UsageError where it cannot be carried out (what was finished before is kept), and OutthinkError where
    results cannot be written, as on a full disk; calling again goes on from there.
    """
    strategy = make_strategy(strategy)
    budget = as_budget(budget)
    total = None if total_budget is None else _total(as_budget(total_budget), strategy)
    sampling = sampling or Sampling()
    place, of = shard or (0, 1)
    if not 0 <= place < of:
        raise UsageError(f"There is no shard {place}/{of}: count from 0/{of} to {of - 1}/{of}.")
    settings = {
        "task": task,
        "strategy": {"name": strategy_name(strategy), **dataclasses.asdict(strategy)},
        **({"versions": versions} if (versions := dict(traits.versions(strategy))) else {}),
        "models": {role: engine.spec.name for role, engine in {"model": model, **(models or {})}.items()},
        "verifier": describe(verifier),
        "prm": describe(prm),
        "embedder": describe(embedder),
        "sampling": dataclasses.asdict(sampling),
        "budget": dict(budget.limits),
        **({} if total is None else {"total_budget": dict([total])}),
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

            todo = [example for example in mine if example.problem.id not in kept.before.done]
            portfolio = (
                None if total is None else await _portfolio(total, todo, kept, Path(store), strategy, model, sampling)
            )

            async def attempt(example: Example) -> Trace | OutthinkError:
                if portfolio is None or total is None:
                    return await solved(example.problem, strategy, budget)
                unit = total[0]
                mean, most = await portfolio.begin()
                unspent = most

                def spend(call: Call) -> None:
                    nonlocal unspent
                    unspent -= call.cost.get(unit, 0.0)
                    portfolio.spend(call.cost.get(unit, 0.0))

                try:
                    limits = Budget({**budget.limits, unit: max(min(most, budget.limits.get(unit, most)), 1e-9)})
                    spread = dataclasses.replace(strategy, mean_cost=max(mean, 1e-9))
                    return await solved(example.problem, spread, limits, spend)
                finally:
                    portfolio.end(unspent)

            async def solved(
                problem: Problem, strategy: Strategy, budget: Budget, spend: Callable[[Call], None] | None = None
            ) -> Trace | OutthinkError:
                def on_call(call: Call) -> None:
                    kept.journal(problem.id, call)
                    if spend is not None:
                        spend(call)

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
                        on_call=on_call,
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

            try:
                await in_flight(todo, attempt, finish, concurrency=concurrency, stop=stop)
            finally:
                for role, given in (("verifier", verifier), ("prm", prm)):
                    if isinstance(given, str):
                        await close_scorer(scorers[role])
            return summary(read_results(Path(store)), planned=len(mine))


def _total(budget: Budget, strategy: Strategy) -> tuple[str, float]:
    """Unit and amount of a budget for all problems; raises UsageError where nothing can spread it."""
    if len(budget.limits) != 1:
        raise UsageError("A total budget is one amount of one unit, such as 1M-tokens.")
    ((unit, amount),) = budget.limits.items()
    plan = getattr(strategy, "plan", "")
    if getattr(strategy, "value_of_correct", "") or getattr(strategy, "mean_cost", 0.0):
        raise UsageError("A total budget decides what problems may cost; leave value_of_correct and mean_cost out.")
    if strategy_name(strategy) != "auto" or not plan:
        raise UsageError("A total budget is spread by auto with a plan: --strategy auto --plan PLAN.json.")
    if (counted := Plan.open(plan).unit) != unit:
        raise UsageError(f"The plan counts {counted}, so the total budget has to be in {counted}, not {unit}.")
    return unit, amount


async def _portfolio(
    total: tuple[str, float],
    todo: Sequence[Example],
    kept: Store,
    folder: Path,
    strategy: Strategy,
    model: Engine,
    sampling: Sampling,
) -> Portfolio:
    """What is left after earlier attempts, for what is left to do."""
    unit, amount = total
    spent = sum(result.trace.cost.get(unit, 0.0) for result in read_results(folder) if result.trace is not None)

    at_once = asyncio.Semaphore(_BOUNDS)

    async def bound(problem: Problem) -> float:
        request = Request(messages=problem.messages, max_tokens=sampling.max_tokens, problem=problem.id)
        try:
            async with at_once:
                return charge(model.spec, [await model.bound(request)]).get(unit, 0.0)
        except (Unaffordable, EngineError):  # the problem itself says so when it is begun
            return 0.0

    bounds = await together(*(bound(example.problem) for example in todo))
    rate = Plan.open(strategy.plan).policy.rates[0]  # type: ignore[attr-defined]  # it is auto
    return Portfolio(
        amount,
        len(todo),
        spent=spent + kept.before.lost.get(unit, 0.0),
        first=rate.prompt * rate.prompt_tokens + rate.completion * rate.tokens,
        worst=max(bounds, default=0.0),
    )


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


def _digest(problems: Iterable[Problem]) -> str:
    """Tells whether prompts, or how answers are read, have changed since."""
    hasher = hashlib.blake2b(digest_size=8)
    for problem in problems:
        hasher.update(repr((problem.id, problem.messages, problem.answer, problem.options)).encode())
    return hasher.hexdigest()
