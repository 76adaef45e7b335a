"""Runs one strategy over the problems of a task: many at once, each recorded as soon as it is graded."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from outthink import __version__
from outthink.answers.reader import Reader
from outthink.bench.grading import credits_of
from outthink.cost import charge
from outthink.driver import as_budget, counted_by, solve_async
from outthink.errors import EngineError, OutthinkError, Unaffordable, UsageError
from outthink.meter import Meter
from outthink.models.engine import Engine, Request
from outthink.models.roles import MAIN, by_role
from outthink.names import name_of
from outthink.planner.plan import Plan
from outthink.planner.portfolio import Portfolio
from outthink.records.runs import DOUBTS, PROGRAM, SHAPES, Before, Result, Store, read_results
from outthink.reports.report import Summary, summary
from outthink.resources.embedding import TextEmbedder, make_embedder
from outthink.resources.table import versions
from outthink.rewards import Scorer
from outthink.rewards.making import ScoreFunction, close_scorer, describe, make_scorer
from outthink.sandbox.host import Sandbox
from outthink.strategies import Strategy, traits
from outthink.strategies.making import make_strategy, strategy_name
from outthink.tasks.checks import doubts
from outthink.tasks.example import Example
from outthink.tasks.grading import grade, opened
from outthink.together import together
from outthink.types import Budget, Call, Problem, Sampling, Trace

T = TypeVar("T")
Watching = Callable[[Problem], contextlib.AbstractContextManager[Callable[[Meter], None]]]
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """One problem to be solved: plain data, which can be pickled and sent to another process."""

    problem: Problem
    strategy: Strategy
    budget: Budget
    sampling: Sampling
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """What assignments are carried out with, opened once where that is done; as for `solve_async`."""

    model: Engine
    models: Mapping[str, Engine] | None = None
    verifier: Scorer | None = None
    prm: Scorer | None = None
    embedder: TextEmbedder | None = None
    reader: Reader | None = None
    sandbox: Sandbox | None = None
    resources: Mapping[str, Any] | None = None


async def attempt(
    assigned: Assignment,
    means: Means,
    on_call: Callable[[Call], None] | None = None,
    watching: Watching | None = None,
) -> Trace | OutthinkError:
    """Solve one problem; a failure that belongs to it is returned with what was paid, any other is raised."""
    try:
        with contextlib.nullcontext() if watching is None else watching(assigned.problem) as watch:
            return await solve_async(
                assigned.problem,
                assigned.strategy,
                budget=assigned.budget,
                sampling=assigned.sampling,
                seed=assigned.seed,
                on_call=on_call,
                watch=watch,
                **{field.name: getattr(means, field.name) for field in dataclasses.fields(means)},
            )
    except (EngineError, Unaffordable) as failure:
        return failure


async def bench(
    examples: Sequence[Example],
    strategy: str | Strategy,
    *,
    store: str | Path,
    model: Engine | None = None,
    models: Mapping[str, Engine] | None = None,
    verifier: str | ScoreFunction | Scorer | None = None,
    prm: str | ScoreFunction | Scorer | None = None,
    embedder: str | TextEmbedder | None = None,
    resources: Mapping[str, Any] | None = None,
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
    watching: Watching | None = None,
    stop: asyncio.Event | None = None,
) -> Summary:
    """Solve, grade and record every example that is not in the run directory yet; a summary of all that are.

    A problem that does not fit, or on which nothing came back although something was charged, is recorded with its
    error and without credit; running again does not redo it. One for which nothing was charged is left for the next
    time.

    Args:
        store: the run directory; one that holds a part of the same run is gone on with.
        model, models, verifier, prm, embedder, resources, sampling, seed: as for `solve_async`. A resource that is
            `ordered` has the problems solved in order, in batches of that many; such a run is not cut into shards.
        budget: for each problem.
        total_budget: for all of them together, in the unit of the plan of `auto`, which spreads it.
        task: its name, for reports.
        shard: (i, k) takes the examples i, i + k, i + 2k ...; 0 <= i < k.
        concurrency: most problems at once, at least 1; changes no result where the engine is reproducible and
            there is no total budget.
        reader, sandbox: read answers and run code; opened here where they are needed and not given.
        on_progress: told at the start and after each problem.
        watching: entered around each problem; what it gives is called with the problem's meter, to look at.
        stop: set it to end early: what is being solved is given up (and paid again), what is solved is recorded, and
            the summary says how many problems are left.

    Raises UsageError where it cannot be carried out (what was finished before is kept), and OutthinkError where
    results cannot be written, as on a full disk; calling again goes on from there.
    """
    strategy = make_strategy(strategy)
    models = by_role(model, models)
    model = models[MAIN]
    budget = as_budget(budget, counted_by(models, resources))
    total = None if total_budget is None else _total(as_budget(total_budget), strategy)
    sampling = sampling or Sampling()
    place, shards = shard or (0, 1)
    if not 0 <= place < shards:
        raise UsageError(f"There is no shard {place}/{shards}: count from 0/{shards} to {shards - 1}/{shards}.")
    learning = [resource for resource in (resources or {}).values() if getattr(resource, "ordered", 0)]
    size = _size(learning)
    if learning and shards > 1:
        raise UsageError("What is learned from problem to problem needs all of them in order; leave the shard out.")
    depends = {**traits.versions(strategy), **versions(resources or {})}
    shapes = {role: dataclasses.asdict(shape) for role, one in models.items() if (shape := one.spec.shape) is not None}
    settings = {
        "task": task,
        "strategy": {"name": strategy_name(strategy), **dataclasses.asdict(strategy)},
        **({"versions": depends} if depends else {}),
        **({"ordered": size} if learning else {}),
        "models": {role: engine.spec.name for role, engine in models.items()},
        **({SHAPES: shapes} if shapes else {}),
        PROGRAM: __version__,
        "verifier": describe(verifier),
        "prm": describe(prm),
        "embedder": describe(embedder),
        # a cap that depends on the budget is none that was said
        "sampling": dataclasses.asdict(sampling if budget.limits.keys() - {"seconds"} else sampling.settled()),
        "budget": dict(budget.limits),
        **({} if total is None else {"total_budget": dict([total])}),
        "seed": seed,
        "shard": None if shard is None else [place, shards],
        "problems": ids(examples),
        "prompts": prompts_digest(example.problem for example in examples),
        **({DOUBTS: told} if (told := doubts(examples)) else {}),
    }
    mine = examples[place::shards]
    async with contextlib.AsyncExitStack() as own:
        read, box = await own.enter_async_context(opened(examples, reader, sandbox))
        scorers: dict[str, Scorer] = {}
        for role, given in (("verifier", verifier), ("prm", prm)):
            if given is not None:
                scorers[role] = make_scorer(given, process=role == "prm")
                if isinstance(given, str):
                    own.push_async_callback(close_scorer, scorers[role])
        means = Means(
            model=model,
            models=models,
            **scorers,
            embedder=None if embedder is None else make_embedder(embedder),
            reader=read,
            sandbox=box,
            resources=resources,
        )
        kept = own.enter_context(Store(Path(store), settings))
        recording = _Recording(kept, mine, on_progress)
        todo = [example for example in mine if example.problem.id not in kept.before.done]
        portfolio = None
        if total is not None:
            portfolio = await _portfolio(total, todo, kept, Path(store), strategy, model, sampling)

        async def one(example: Example) -> Trace | OutthinkError:
            assigned = Assignment(
                problem=example.problem, strategy=strategy, budget=budget, sampling=sampling, seed=seed
            )
            if portfolio is not None and total is not None:
                return await _within_total(assigned, means, kept, portfolio, total[0], watching)
            return await attempt(assigned, means, functools.partial(kept.journal, assigned.problem.id), watching)

        async def finish(example: Example, outcome: Trace | OutthinkError) -> None:
            credit, credits = 0.0, dict[str, float]()
            if isinstance(outcome, Trace):
                credit = await grade(example, outcome.answer, read, box)
                credits = await credits_of(example, outcome, read, box)
            result = recording.add(example, outcome, credit, credits)
            if learning and result is not None and result.trace is not None:
                # as a run that goes on reads it
                traces[example.problem.id] = Trace.from_json(result.trace.to_json())

        if not learning:
            await in_flight(todo, one, finish, concurrency=concurrency, stop=stop)
        # read once: what is learned from must not be read again with every batch
        traces = {result.problem: result.trace for result in read_results(Path(store))} if learning else {}
        for batch in _batches(mine, size) if learning else ():
            left = [example for example in batch if example.problem.id not in kept.before.done]
            await in_flight(left, one, finish, concurrency=min(concurrency, len(batch)), stop=stop)
            if stop is not None and stop.is_set():
                break
            known = [traces.pop(example.problem.id, None) for example in batch]
            for resource in learning:  # in the order of its problems, whenever each was solved
                resource.learn([trace for trace in known if trace is not None])
    return summary(read_results(Path(store)), planned=len(mine))


def _size(learning: Sequence[Any]) -> int:
    """Problems of a batch, by the resources that are `ordered`; 0 where there is none."""
    for resource in learning:
        if not isinstance(resource.ordered, int) or resource.ordered < 0:
            raise UsageError(
                f"`ordered` of {name_of(resource)} must be a number of problems, not {resource.ordered!r}."
            )
    return min((resource.ordered for resource in learning), default=0)


def _batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    """Of so many examples each."""
    for start in range(0, len(examples), size):
        yield examples[start : start + size]


class _Recording:
    """Keeps outcomes and tells how far the run is."""

    def __init__(self, kept: Store, mine: Sequence[Example], on_progress: Callable[[Standing], None] | None) -> None:
        self._kept, self._tell, self._total = kept, on_progress, len(mine)
        self._done = sum(example.problem.id in kept.before.done for example in mine)
        self._told()

    def _told(self, result: Result | None = None, left: str | None = None) -> None:
        if self._tell is not None:
            before = self._kept.before
            self._tell(Standing(done=self._done, total=self._total, before=before, result=result, left=left))

    def add(
        self, example: Example, outcome: Trace | OutthinkError, credit: float, credits: Mapping[str, float]
    ) -> Result | None:
        """Record an outcome; one for which nothing was charged is left for the next time: None."""
        if isinstance(outcome, EngineError) and not (outcome.trace and outcome.trace.usage.tokens):
            self._told(left=str(outcome))
            return None
        if isinstance(outcome, Trace):
            result = Result(problem=example.problem.id, credit=credit, trace=outcome, credits=credits)
        else:
            result = Result(problem=example.problem.id, credit=0.0, error=str(outcome), trace=outcome.trace)
        self._kept.record(result)
        self._done += 1
        self._told(result)
        return result


async def _within_total(
    assigned: Assignment,
    means: Means,
    kept: Store,
    portfolio: Portfolio,
    unit: str,
    watching: Watching | None,
) -> Trace | OutthinkError:
    """An attempt with what the portfolio allows it of the total budget."""
    mean, most = await portfolio.begin()
    unspent = most

    def on_call(call: Call) -> None:
        nonlocal unspent
        kept.journal(assigned.problem.id, call)
        unspent -= call.cost.get(unit, 0.0)
        portfolio.spend(call.cost.get(unit, 0.0))

    try:
        limits = assigned.budget.limits
        budget = Budget({**limits, unit: max(min(most, limits.get(unit, most)), 1e-9)})
        strategy: Any = dataclasses.replace(assigned.strategy, mean_cost=max(mean, 1e-9))
        return await attempt(dataclasses.replace(assigned, strategy=strategy, budget=budget), means, on_call, watching)
    finally:
        portfolio.end(unspent)


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
        request = Request(messages=problem.messages, max_tokens=sampling.cap, problem=problem.id)
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
    seen: dict[str, None] = {}
    for example in examples:
        if example.problem.id in seen:
            raise UsageError(f"Two examples have the id {example.problem.id!r}: results could not be told apart.")
        seen[example.problem.id] = None
    return list(seen)


def prompts_digest(problems: Iterable[Problem]) -> str:
    """Tells whether prompts, or how answers are read, have changed since."""
    hasher = hashlib.blake2b(digest_size=8)
    for problem in problems:
        hasher.update(repr((problem.id, problem.messages, problem.answer, problem.options)).encode())
    return hasher.hexdigest()
