"""Runs one strategy on one problem: binds metered resources, enforces the deadline, always keeps what was paid for."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from outthink.answers import Reader
from outthink.errors import (
    BudgetExhausted,
    BudgetTooSmall,
    EngineError,
    MissingResource,
    OutthinkError,
    UnknownName,
    UsageError,
)
from outthink.meter import Meter
from outthink.model import Model, Models, Run, with_answer
from outthink.models import open_engine
from outthink.models.engine import Engine
from outthink.names import load
from outthink.problems import ask
from outthink.rewards import ScoreFunction, Scorer, Scores, make_scorer
from outthink.rng import Rng
from outthink.strategies import STRATEGIES, Strategy
from outthink.strategies.choosing import by_majority
from outthink.types import Budget, Call, Candidate, Problem, Round, Sampling, Stopped, Trace

RESOURCES: Mapping[str, tuple[str, str]] = {
    "model": ("Model", "pass model=..., or --model NAME"),
    "models": ("Models", "pass models={role: ...}, or --role ROLE=NAME"),
    "verifier": ("Scores", "pass verifier=..., or --verifier confidence, judge or module:function"),
    "prm": ("Scores", "pass prm=..., or --prm confidence, judge or module:function"),
    "meter": ("Meter", "it is always there"),
    "rng": ("Rng", "it is always there"),
    "embedder": ("Embedder", "pass resources={'embedder': ...}"),
    "sandbox": ("Sandbox", "pass resources={'sandbox': ...}"),
    "retriever": ("Retriever", "pass resources={'retriever': ...}"),
    "memory": ("Memory", "pass resources={'memory': ...}"),
    "environment": ("Environment", "pass resources={'environment': ...}"),
}
"""What a strategy's `run` or a scorer's `score` may name: annotation, and how to supply it."""


def make_strategy(given: str | Strategy, parameters: Mapping[str, Any] | None = None) -> Strategy:
    """A strategy from its name or "module:Name" and hyperparameters, or the object itself.

    Hyperparameters may be given as text. Raises UnknownName, or UsageError where one is out of range.
    """
    if not isinstance(given, str):
        return given
    if given not in STRATEGIES and ":" not in given:
        raise UnknownName("strategy", given, STRATEGIES)
    made = load(STRATEGIES.get(given, given))
    known = [field.name for field in dataclasses.fields(made)]
    for name in parameters or {}:
        if name not in known:
            raise UnknownName(f"hyperparameter of {given}", name, known or ["none"])
    from pydantic import TypeAdapter, ValidationError  # here, because importing pydantic is slow

    try:
        strategy: Strategy = TypeAdapter(made).validate_python(dict(parameters or {}))  # also reads "16" as 16
    except ValidationError as cause:
        first = cause.errors()[0]
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        raise UsageError(f"{given}: {where}{first['msg'].removeprefix('Value error, ')}.") from None
    return strategy


def strategy_name(strategy: Strategy) -> str:
    """Its name in the table, or "module:Name"."""
    target = f"{type(strategy).__module__}:{type(strategy).__qualname__}"
    return next((name for name, known in STRATEGIES.items() if known == target), target)


def solve(
    problem: str | Problem, strategy: str | Strategy = "self_consistency", *, model: str | Engine, **options: Any
) -> Trace:
    """Like `solve_async`, for callers without an event loop; `model` may also be a name, which is opened and closed."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_solve_and_close(problem, strategy, model, options))
    raise UsageError("An event loop is running here: await outthink.solve_async(...) instead of outthink.solve(...).")


async def _solve_and_close(
    problem: str | Problem, strategy: str | Strategy, model: str | Engine, options: dict[str, Any]
) -> Trace:
    if not isinstance(model, str):
        return await solve_async(problem, strategy, model=model, **options)
    opened = open_engine(model)
    try:
        return await solve_async(problem, strategy, model=opened, **options)
    finally:
        await opened.close()


async def solve_async(
    problem: str | Problem,
    strategy: str | Strategy = "self_consistency",
    *,
    model: Engine,
    models: Mapping[str, Engine] | None = None,
    verifier: str | ScoreFunction | Scorer | None = None,
    prm: str | ScoreFunction | Scorer | None = None,
    budget: str | Budget | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    reader: Reader | None = None,
    resources: Mapping[str, Any] | None = None,
    stop: asyncio.Event | None = None,
    on_call: Callable[[Call], None] | None = None,
    watch: Callable[[Meter], None] | None = None,
) -> Trace:
    """Spend at most `budget` on one problem and return everything that happened.

    Args:
        problem: a Problem, or a question, which `ask` turns into one.
        model: the engine that writes answers; `models` are engines of further roles ("judge", "fusor" ...).
        verifier, prm: scorer of answers and of steps: a name, a callable (question, solution) -> score, or a scorer.
        budget: such as "20k-tokens,8s" or a Budget; None is no limit.
        reader: reads answers; None opens one for this call.
        resources: further resources by the names in RESOURCES.
        stop: set it to end early and still get the best answer so far.
        on_call: told of every settled call; `watch` is given the meter at the start, to look at while it runs.

    Raises UsageError before anything is spent where the request cannot be carried out, and EngineError where
    nothing at all came back; its attribute `trace` then holds what was paid.
    """
    problem = problem if isinstance(problem, Problem) else ask(problem)
    strategy = make_strategy(strategy)
    budget = Budget.parse(budget) if isinstance(budget, str) else budget or Budget()
    sampling = sampling or Sampling()
    engines = {"model": model, **(models or {})}
    scorers = {
        role: make_scorer(given, process=role == "prm")
        for role, given in (("verifier", verifier), ("prm", prm))
        if given is not None
    }
    own_reader = Reader() if reader is None else None
    meter = Meter(budget, on_call=on_call)
    run = Run(
        problem=problem,
        meter=meter,
        seed=seed,
        sampling=sampling,
        read_answer=(reader or own_reader).read,  # type: ignore[union-attr]  # one of the two is there
        logprobs=any("logprobs" in getattr(scorer, "reads", ()) for scorer in scorers.values()),
    )
    _check_engines(engines, run, getattr(strategy, "powers", frozenset()))
    available: dict[str, Any] = {
        "model": Model(model, run),
        "models": Models(engines, run),
        "meter": meter,
        "rng": Rng(seed, problem.id),
        **(resources or {}),
    }
    for role, scorer in scorers.items():
        available[role] = Scores(scorer, bind(scorer.score, available, f"The {role}"), meter)
    bound = bind(strategy.run, available, f"The strategy {strategy_name(strategy)}")

    def report(
        candidates: Sequence[Candidate],
        *,
        chosen: Candidate | None,
        scores: Sequence[float | None] | None = None,
        confidence: float | None = None,
    ) -> None:
        meter.add_round(
            Round(
                candidates=tuple(candidate.id for candidate in candidates),
                scores=None if scores is None else tuple(scores),
                chosen=None if chosen is None else chosen.id,
                answer=None if chosen is None else chosen.answer,
                key=None if chosen is None else chosen.key,
                confidence=confidence,
            )
        )

    if watch is not None:
        watch(meter)
    try:
        stopped, failure = await _drive(strategy.run(problem, report, **bound), budget.limits.get("seconds"), stop)
        if failure is None and meter.refused:
            stopped = "budget"
        if meter.overrun:
            stopped = "overrun"
        for candidate in [held for held in meter.candidates.values() if held.complete and held.key is None]:
            meter.candidates[candidate.id] = await with_answer(candidate, run)
    finally:
        if own_reader is not None:
            await own_reader.close()
    if not meter.rounds:
        _report_majority(meter, report)
    trace = Trace(
        problem=problem.id,
        strategy={"name": strategy_name(strategy), **_hyperparameters(strategy)},
        seed=seed,
        sampling=sampling,
        budget=budget,
        resources={role: engine.spec.name for role, engine in engines.items()},
        candidates=tuple(sorted(meter.candidates.values(), key=lambda candidate: _order(candidate.address))),
        rounds=tuple(meter.rounds),
        calls=tuple(sorted(meter.calls, key=lambda call: _order(call.address))),
        stopped=stopped,
        error=None if failure is None else _sentence(failure),
        seconds=meter.now(),
    )
    if failure is not None and not trace.rounds:
        error = failure if isinstance(failure, OutthinkError) else EngineError(_sentence(failure))
        error.trace = trace
        raise error from failure
    return trace


async def _drive(running: Any, seconds: float | None, stop: asyncio.Event | None) -> tuple[Stopped, Exception | None]:
    """Run the strategy to its end, the deadline, the budget's end or `stop`; an outside cancellation passes."""
    task = asyncio.ensure_future(running)
    watcher = asyncio.ensure_future(stop.wait()) if stop is not None else None
    try:
        await asyncio.wait(
            {task, *([watcher] if watcher else [])}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        stopped: Stopped = "finished"
        if not task.done():
            stopped = "cancelled" if watcher is not None and watcher.done() else "deadline"
    finally:
        for pending in (task, watcher):
            if pending is not None and not pending.done():
                pending.cancel()
        await asyncio.wait({task})
    if task.cancelled():
        return ("cancelled" if stopped == "finished" else stopped), None
    failure = task.exception()
    if failure is None:
        return stopped, None
    while isinstance(failure, BaseExceptionGroup):  # task groups inside strategies wrap what went wrong
        failure = failure.exceptions[0]
    if isinstance(failure, BudgetExhausted):
        return "budget", None
    if not isinstance(failure, Exception):
        raise failure
    return "error", failure


def bind(function: Callable[..., Any], available: Mapping[str, Any], who: str) -> dict[str, Any]:
    """The keyword-only arguments of `function`, by name; raises MissingResource with how to supply one."""
    bound = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if name in available:
            bound[name] = available[name]
        elif parameter.default is inspect.Parameter.empty:
            how = RESOURCES[name][1] if name in RESOURCES else "there is no such resource"
            raise MissingResource(f"{who} needs {name!r}: {how}.")
    return bound


def _check_engines(engines: Mapping[str, Engine], run: Run, powers: frozenset[str]) -> None:
    """Refuse, before anything is spent, what the model cannot do and a budget that is unenforceable or too small."""
    lacking = sorted(powers - engines["model"].spec.powers)
    if lacking:
        raise MissingResource(
            f"This strategy needs a model that can do {', '.join(lacking)}; {engines['model'].spec.name} cannot."
        )
    for role, engine in engines.items():
        worst = Model(engine, run, (role,)).bound(run.problem)
        if run.logprobs and role == "model" and "logprobs" not in engine.spec.powers:
            raise MissingResource(
                f"{engine.spec.name} gives no token logprobs; choose another verifier than confidence."
            )
        for unit, limit in run.meter.budget.limits.items():
            if unit in ("usd", "flops") and unit not in worst:
                lacks = "price" if unit == "usd" else "shape (parameters, layers)"
                raise UsageError(f"A budget in {unit} needs the {lacks} of {engine.spec.name}, which is not known.")
            if role == "model" and unit != "seconds" and worst.get(unit, 0.0) > limit * (1 + 1e-9):
                raise BudgetTooSmall(
                    f"One sample can cost {worst[unit]:,.6g} {unit}, more than the budget of {limit:,.6g}: "
                    f"allow at least {worst[unit]:,.6g} {unit}, or lower max_tokens ({run.sampling.max_tokens})."
                )


def _report_majority(meter: Meter, report: Callable[..., None]) -> None:
    """A strategy that was stopped before its first report still answers with the majority of what it paid for."""
    samples = sorted((c for c in meter.candidates.values() if c.complete), key=lambda c: _order(c.address))
    if samples:
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)


def _hyperparameters(strategy: Strategy) -> dict[str, Any]:
    return {field.name: getattr(strategy, field.name) for field in dataclasses.fields(strategy)}


def _order(address: Iterable[str | int]) -> list[tuple[int, int, str]]:
    """Sorts addresses part by part, numbers as numbers."""
    return [(0, part, "") if isinstance(part, int) else (1, 0, part) for part in address]


def _sentence(failure: BaseException) -> str:
    return str(failure) if isinstance(failure, OutthinkError) else f"{type(failure).__name__}: {failure}"
