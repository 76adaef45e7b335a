"""Runs one strategy on one problem: binds metered resources, enforces the deadline, always keeps what was paid for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from outthink.answers.asking import ask
from outthink.answers.reader import Reader
from outthink.cost import charge
from outthink.cost.caps import Cap, cap_within, whole_samples
from outthink.cost.price import Prices, asking, price_of, prices_by_name, read_prices, with_prices
from outthink.errors import (
    BudgetExhausted,
    BudgetTooSmall,
    EngineError,
    MissingResource,
    OutthinkError,
    Uncounted,
    UsageError,
)
from outthink.meter import Meter
from outthink.model import READ, Attempt, Listen, Model, Models, with_answer
from outthink.models import open_engine, with_model
from outthink.models.engine import Engine, EngineSpec, Price
from outthink.models.roles import by_role
from outthink.resources.embedding import Embedder, Hashing, TextEmbedder, make_embedder
from outthink.resources.metered_sandbox import MeteredSandbox
from outthink.resources.table import RESOURCES, bind, replaced, supplied, taken, versions
from outthink.rewards import Scorer
from outthink.rewards.making import ScoreFunction, close_scorer, describe, make_scorer
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.sandbox.host import Sandbox
from outthink.strategies import Strategy, traits
from outthink.strategies.choosing import by_majority
from outthink.strategies.comparing import comparing
from outthink.strategies.making import make_strategy, strategy_data, strategy_name
from outthink.together import away, close_all, in_line, together, turn
from outthink.types import (
    Address,
    AnswerKind,
    Budget,
    Call,
    Candidate,
    Problem,
    Round,
    Sampling,
    Stopped,
    Trace,
    by_address,
    fullest,
    path,
    writable,
)

_UNITS = ("tokens", "usd", "seconds", "flops")
_SETTLING = 10.0  # seconds for calls that were cancelled to say what they have used
_SORTING = 30  # microseconds for one call or candidate when a trace is put together
_GRACE = 1.0  # seconds that may pass after the end: for reading answers, and for a strategy to let go


def solve(
    problem: str | Problem,
    strategy: str | Strategy = "auto",
    *,
    model: str | Engine | None = None,
    models: Mapping[str, str | Engine] | None = None,
    verifier: str | ScoreFunction | Scorer | None = None,
    prm: str | ScoreFunction | Scorer | None = None,
    embedder: str | TextEmbedder | None = None,
    budget: str | Budget | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    answer: AnswerKind | None = None,
    price: Prices = None,
    reader: Reader | None = None,
    sandbox: Sandbox | None = None,
    resources: Mapping[str, Any] | None = None,
    stop: asyncio.Event | None = None,
    on_call: Callable[[Call], None] | None = None,
    watch: Callable[[Meter], None] | None = None,
    listen: Listen | None = None,
    on_fixed: Callable[[Sequence[Candidate]], None] | None = None,
) -> Trace:
    """Spend at most `budget` on one problem and return everything that happened.

    The same as `solve_async`, for callers without an event loop.

    Args:
        problem: a Problem, or a question, which `ask` turns into one.
        strategy: a name from `outthink strategies`, with hyperparameters as in "self_consistency?n=8", "module:Name",
            or a strategy. One that votes and is given by its name votes on a chat only where two of the first replies
            are equal (see `strategies.comparing`); an object runs as it is.
        model: what writes answers: a name that `open_engine` takes, which is opened and closed here, or an engine.
        models: the same by role ("judge", "fusor" ...); "generator" is the model itself, where it is not given so.
        verifier, prm: scorer of answers and of steps: a name, a callable (question, solution) -> score, or a scorer.
        embedder: "hashing" (None is the same), "sentence-transformers:MODEL", "module:name", or a text embedder.
        budget: such as "20k-tokens,8s" or a Budget; None is no limit.
        sampling: temperature, top_p and the most tokens of a sample; None is Sampling().
        seed: of all randomness.
        answer: how the answer of a question is read: "math", "choice", "text", "code", "json" or "chat". None is
            "chat": the question's own words are the prompt, and there is always a text. A Problem says it itself.
        price: US dollars per million tokens: "PROMPT,COMPLETION" such as "0.15,0.60", "auto" (published prices), a
            path of a .json file, or a Price, for the model; a mapping of role to such for several. None: as the
            engine says.
        reader: reads answers; None opens one for this call.
        sandbox: runs code; None opens one for this call where the strategy or a scorer needs it.
        resources: further resources by the names in RESOURCES.
        stop: set it to end early and still get the best answer so far.
        on_call: told of every settled call; `watch` is given the meter at the start, to look at while it runs.
        listen: told of the pieces of samples as they are written: address, and piece as in `Progress.listen`.
        on_fixed: told of the segments of the answer, once, where it is known for good while other work goes on.

    Raises UsageError before anything is spent where the request cannot be carried out, and where an event loop is
    running already; EngineError where nothing at all came back: its attribute `trace` then holds what was paid.
    """
    with contextlib.suppress(RuntimeError):  # of asyncio, where no loop runs, which is as it should be
        asyncio.get_running_loop()
        raise UsageError(
            "An event loop is running here: await outthink.solve_async(...) instead of outthink.solve(...)."
        )
    options: dict[str, Any] = {
        "verifier": verifier,
        "prm": prm,
        "embedder": embedder,
        "budget": budget,
        "sampling": sampling,
        "seed": seed,
        "answer": answer,
        "reader": reader,
        "sandbox": sandbox,
        "resources": resources,
        "stop": stop,
        "on_call": on_call,
        "watch": watch,
        "listen": listen,
        "on_fixed": on_fixed,
    }
    every = by_role(model, models)
    return asyncio.run(_solve_and_close(problem, strategy, every, read_prices(price), options))


async def _solve_and_close(
    problem: str | Problem,
    strategy: str | Strategy,
    models: Mapping[str, str | Engine],
    prices: Mapping[str, Price | str],
    options: Mapping[str, Any],
) -> Trace:
    opened: dict[str, Engine] = {}
    try:
        wanted = prices_by_name({role: given for role, given in models.items() if isinstance(given, str)}, prices)
        for name in dict.fromkeys(given for given in models.values() if isinstance(given, str)):
            price = wanted.get(name)
            price = price_of(price, await with_model(name))[0] if isinstance(price, str) else price
            opened[name] = open_engine(name) if price is None else open_engine(name, price=price)
        engines = {role: opened[given] if isinstance(given, str) else given for role, given in models.items()}
        rest = {role: price for role, price in prices.items() if not isinstance(models.get(role), str)}
        return await solve_async(
            problem, strategy, model=engines["model"], models=engines, price=rest or None, **options
        )
    finally:
        await close_all(opened.values())


async def solve_async(
    problem: str | Problem,
    strategy: str | Strategy = "auto",
    *,
    model: Engine | None = None,
    models: Mapping[str, Engine] | None = None,
    verifier: str | ScoreFunction | Scorer | None = None,
    prm: str | ScoreFunction | Scorer | None = None,
    embedder: str | TextEmbedder | None = None,
    budget: str | Budget | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    answer: AnswerKind | None = None,
    price: Prices = None,
    reader: Reader | None = None,
    sandbox: Sandbox | None = None,
    resources: Mapping[str, Any] | None = None,
    stop: asyncio.Event | None = None,
    on_call: Callable[[Call], None] | None = None,
    watch: Callable[[Meter], None] | None = None,
    listen: Listen | None = None,
    on_fixed: Callable[[Sequence[Candidate]], None] | None = None,
) -> Trace:
    """Spend at most `budget` on one problem and return everything that happened.

    Args:
        problem: a Problem, or a question, which `ask` turns into one.
        model: the engine that writes answers; `models` are engines by role ("judge", "fusor" ...), in which it may be
            the "generator" instead.
        verifier, prm: scorer of answers and of steps: a name, a callable (question, solution) -> score, or a scorer.
        embedder: "hashing" (None is the same), "sentence-transformers:MODEL", "module:name", or a text embedder.
        budget: such as "20k-tokens,8s" or a Budget; None is no limit.
        answer: how the answer of a question is read; None is "chat". A Problem says it itself.
        price: of the model, or by role, as for `solve`; None: as the engines say.
        reader: reads answers; None opens one for this call.
        sandbox: runs code; None opens one for this call where the strategy or a scorer needs it.
        resources: further ones by the names in RESOURCES; what they may have is said in `resources.table`.
        stop: set it to end early and still get the best answer so far.
        on_call: told of every settled call; `watch` is given the meter at the start, to look at while it runs.
        listen: told of the pieces of samples as they are written: address, and piece as in `Progress.listen`.
        on_fixed: told of the segments of the answer, once, where it is known for good while other work goes on.

    Raises UsageError before anything is spent where the request cannot be carried out, and EngineError where
    nothing at all came back; its attribute `trace` then holds what was paid.
    """
    if isinstance(problem, Problem) and answer not in (None, problem.answer):
        raise UsageError(f"The problem says itself that its answer is {problem.answer}; leave answer={answer!r} out.")
    problem = problem if isinstance(problem, Problem) else ask(problem, answer=answer)
    made = make_strategy(strategy)
    if isinstance(strategy, str):
        made = comparing(made, problem.answer, verifier=verifier is not None, fields=problem.fields)
    strategy = made
    sampling = sampling or Sampling()
    engines = by_role(model, models)
    for role, engine in engines.items():
        if isinstance(engine, str):
            raise UsageError(f"The model of role {role!r} is a name; open it first: outthink.open_engine({engine!r}).")
        if not hasattr(engine, "spec"):
            raise UsageError(f"The model of role {role!r} is neither a name nor an engine, but {engine!r}.")
        if "/" in role:
            raise UsageError(f"The role {role!r} must not contain '/'.")
    engines = with_prices(engines, read_prices(price))
    model = engines["model"]
    budget = as_budget(budget, counted_by(engines, resources))
    async with contextlib.AsyncExitStack() as own:
        scorers: dict[str, Scorer] = {}
        described: dict[str, str | None] = {}
        for role, scoring in (("verifier", verifier), ("prm", prm)):
            if scoring is not None:
                scorers[role] = make_scorer(scoring, process=role == "prm")
                described[role] = describe(scoring)
                if isinstance(scoring, str):
                    own.push_async_callback(close_scorer, scorers[role])
        if reader is None:
            reader = Reader()
            own.push_async_callback(reader.close)
        encoder = Hashing() if embedder is None else make_embedder(embedder)
        meter = Meter(budget, on_call=on_call)
        heard = _Heard(listen)
        run = Attempt(
            problem=problem,
            meter=meter,
            seed=seed,
            sampling=sampling.settled(),
            read_answer=reader.read,
            logprobs=any("logprobs" in getattr(scorer, "reads", ()) for scorer in scorers.values()),
            listen=heard if problem.answer == "chat" else listen,
            main=model,
        )
        cap = None
        if sampling.max_tokens is None:
            run, cap = await _capped(run, strategy)
        available: dict[str, Any] = {
            "model": Model(model, run),
            "models": Models(engines, run),
            "meter": meter,
            "rng": Rng(seed, problem.id),
            "embedder": Embedder(encoder, meter),
        }
        for name in (resources or {}).keys() & {*available, "verifier", "prm", "resources"}:  # round the meter
            raise UsageError(f"The resource {name} has a way of its own: {RESOURCES[name].supply}.")
        available |= {name: supplied(given, meter, problem) for name, given in (resources or {}).items()}
        if not getattr(encoder, "free", False) and _needs("embedder", strategy, scorers.values()):
            for unit in {"usd", "flops"} & budget.limits.keys():
                raise UsageError(f"A budget in {unit} cannot be kept: what the embedder costs is not known.")
        if "sandbox" not in available and _needs("sandbox", strategy, scorers.values()):
            if sandbox is None:
                sandbox = Sandbox()
                own.push_async_callback(sandbox.close)
            available["sandbox"] = MeteredSandbox(sandbox, meter)
        counted = {unit for resource in available.values() for unit in getattr(resource, "units", ())}
        await _check_engines(engines, run, traits.powers(strategy), counted, list(scorers.values()))
        for role, scorer in scorers.items():
            available[role] = Scores(scorer, bind(scorer.score, available, f"The {role}"), meter, described[role])
        available = dict(replaced(available))
        as_data = strategy_data(traits.known_as(strategy))
        bound = bind(strategy.run, available, f"The strategy {strategy_name(strategy)}")
        for part in traits.parts(strategy):
            bind(part.run, available, f"The strategy {strategy_name(part)}, which {strategy_name(strategy)} may run,")

        final: tuple[Round, tuple[Candidate, ...]] | None = None
        """What cannot change any more, with the candidates it was chosen from."""

        def report(
            candidates: Sequence[Candidate],
            *,
            chosen: Candidate | None,
            scores: Sequence[float | None] | None = None,
            confidence: float | None = None,
            fixed: bool = False,
            early: bool = False,
            generation: int | None = None,
        ) -> None:
            nonlocal final
            answered = Round(
                candidates=tuple(candidate.id for candidate in candidates),
                scores=None if scores is None else tuple(scores),
                chosen=None if chosen is None else chosen.id,
                answer=None if chosen is None else chosen.answer,
                key=None if chosen is None else chosen.key,
                confidence=confidence,
                generation=generation,
            )
            if final is not None and answered.chosen != final[0].chosen:
                raise ValueError(f"{final[0].chosen} was reported as fixed, and now {answered.chosen} is chosen")
            every = (*candidates, *([] if chosen is None else [chosen]))
            if (fixed or early) and final is None and chosen is not None and chosen.key is not None:
                final = (answered, every)
                if on_fixed is not None:
                    on_fixed(path(chosen, {**meter.candidates, chosen.id: chosen}))
            if early:
                return
            for candidate in every:
                meter.candidates.setdefault(candidate.id, candidate)  # one that the strategy made itself
            meter.add_round(answered)

        if watch is not None:
            watch(meter)
        stopped, failure = await _drive(strategy.run(problem, report, **bound), budget.limits.get("seconds"), stop)
        with contextlib.suppress(TimeoutError):  # what a strategy has left behind while it ends is charged as well
            async with asyncio.timeout(_SETTLING):
                await meter.settled()
        if stopped == "finished" and meter.refused:
            stopped = "budget"
        if meter.overrun:
            stopped = "overrun"
        if stopped == "deadline" and not meter.candidates and not sum(call.charged.tokens for call in meter.calls):
            failure = meter.refusal  # the time was spent waiting for a server that would not begin
        failure = await _read_rest(meter, run) or failure
        if final is not None and (not meter.rounds or meter.rounds[-1].chosen != final[0].chosen):
            for candidate in final[1]:
                meter.candidates.setdefault(candidate.id, candidate)
            meter.add_round(final[0])
        if not traits.abstains(strategy) and (not meter.rounds or meter.rounds[-1].key is None):
            _report_majority(meter, report)
            if problem.answer == "chat" and (not meter.rounds or meter.rounds[-1].chosen is None):
                _report_text(meter, report, [] if failure else heard.samples())
        if cap is not None and (told := cap.cut_off(whole_samples(meter.candidates.values()))) is not None:
            meter.notes.append(told)
        calls, prompts = await away(_SORTING * len(meter.calls), meter.sent)
        candidates = await away(_SORTING * len(meter.candidates), by_address, [*meter.candidates.values()])
        trace = Trace(
            problem=problem.id,
            strategy=as_data,
            seed=seed,
            sampling=run.sampling,
            budget=budget,
            resources={
                **{role: engine.spec.name for role, engine in engines.items()},
                **traits.versions(strategy),
                **versions(resources or {}),
            },
            candidates=tuple(candidates),
            rounds=tuple(meter.rounds),
            calls=calls,
            stopped=stopped,
            error=None if failure is None else _sentence(failure),
            notes=tuple(meter.notes),
            seconds=meter.now(),
            prompts=prompts,
            scores={name: dict(sorted(given.items())) for name, given in sorted(meter.scores.items())},
        )
        if failure is not None and not trace.rounds:
            error = failure if isinstance(failure, OutthinkError) else EngineError(_sentence(failure))
            error.trace = trace
            raise error from (failure.__cause__ if error is failure else failure)
        return trace


async def _capped(run: Attempt, strategy: Strategy) -> tuple[Attempt, Cap | None]:
    """The run with a cap on samples that nobody has said, and how the budget has decided it: None, it has not."""
    recorded = traits.recorded_cap(strategy)
    run = replace(run, sampling=replace(run.sampling, max_tokens=recorded or run.sampling.max_tokens))
    limits = {unit: limit for unit, limit in run.meter.budget.limits.items() if unit != "seconds"}
    if recorded or not limits or run.main is None:
        return run, None
    request = Model(run.main, run).request(run.problem)
    cap = await cap_within(run.main, request, limits, wanted=traits.at_once(strategy))
    if (told := cap.sentence()) is not None:
        run.meter.notes.append(told)
    return replace(run, sampling=replace(run.sampling, max_tokens=cap.tokens)), cap


async def _read_rest(meter: Meter, run: Attempt) -> Exception | None:
    """Read the answers of samples that were paid for but not read yet, in a bounded time; never loses the trace."""

    async def one(candidate: Candidate) -> None:
        await turn(READ)
        meter.candidates[candidate.id] = await with_answer(candidate, run)

    unread = [held for held in meter.candidates.values() if held.complete and held.key is None]
    if not unread:
        return None
    try:
        async with asyncio.timeout(_GRACE):
            await together(*(one(held) for held in unread))
    except TimeoutError:
        return None
    except Exception as failure:
        return failure
    return None


async def _drive(running: Any, seconds: float | None, stop: asyncio.Event | None) -> tuple[Stopped, Exception | None]:
    """Run the strategy to its end, the deadline, the budget's end or `stop`; an outside cancellation passes."""
    if stop is not None and stop.is_set():
        running.close()
        return "cancelled", None
    with in_line():
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
        if watcher is not None:
            watcher.cancel()
        while not task.done():  # again and again, for one that swallows a cancellation
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE)
    if task.cancelled():
        return ("cancelled" if stopped == "finished" else stopped), None
    failure = task.exception()
    if failure is None:
        return stopped, None
    leaves = _leaves(failure)  # task groups inside strategies wrap what went wrong
    failure = next((leaf for leaf in leaves if not isinstance(leaf, BudgetExhausted)), leaves[0])
    if isinstance(failure, BudgetExhausted):
        return "budget", None
    if not isinstance(failure, Exception):
        raise failure
    return "error", failure


def _leaves(failure: BaseException) -> list[BaseException]:
    if isinstance(failure, BaseExceptionGroup):
        return [leaf for inner in failure.exceptions for leaf in _leaves(inner)]
    return [failure]


def _needs(name: str, strategy: Strategy, scorers: Iterable[Scorer]) -> bool:
    """Whether some of them cannot do without it; what a strategy may run instead of itself counts as well."""
    users = [*(one.run for one in (strategy, *traits.parts(strategy))), *(scorer.score for scorer in scorers)]
    return any(taken(user).get(name, False) for user in users)


async def _check_engines(
    engines: Mapping[str, Engine], run: Attempt, powers: frozenset[str], units: Iterable[str], scorers: Sequence[Scorer]
) -> None:
    """Refuse, before anything is spent, what the model cannot do and a budget that is unenforceable or too small."""
    _check_powers(engines["model"], powers)
    asked = {name for name, value in run.problem.fields.items() if value is not None}
    for taking in (engines[role].spec for role in ("model", "target") if role in engines):
        if taking.fields is not None and asked - taking.fields:
            raise UsageError(f"{taking.name} cannot honour {', '.join(sorted(asked - taking.fields))}; leave that out.")
    for unit in ("usd", "flops"):
        for spec in (getattr(scorer, "spec", None) for scorer in scorers):
            if unit in run.meter.budget.limits and spec is not None and unit not in charge(spec, []):
                raise UsageError(f"A budget in {unit} cannot be kept: what {spec.name} costs is not known.")
    model = engines["model"]
    worst = await Model(model, run, ("model",)).bound(run.problem)
    if run.logprobs and "logprobs" not in model.spec.powers:
        raise MissingResource(f"{model.spec.name} gives no token logprobs; choose a verifier that reads none.")
    # other roles get other prompts, so only the units of their costs matter here
    check_units(run.meter.budget, {role: engine.spec for role, engine in engines.items()}, units)
    check_one_fits(run.meter.budget, worst, run.sampling.cap)


def check_one_fits(budget: Budget, worst: Mapping[str, float], cap: int) -> None:
    """Raise BudgetTooSmall where one sample with this cap, which costs at most `worst` by unit, is not within it."""
    for unit, limit in budget.limits.items():
        if unit != "seconds" and worst.get(unit, 0.0) > limit * (1 + 1e-9):
            raise BudgetTooSmall(
                f"One sample can cost {worst[unit]:.12g} {unit}, more than the budget of {limit:.12g}: "
                f"allow at least {worst[unit]:.12g} {unit}, or lower max_tokens ({cap})."
            )


def counted_by(engines: Mapping[str, Engine], resources: Mapping[str, Any] | None) -> set[str]:
    """The units that these count beside tokens, dollars, seconds and FLOPs."""
    counting = [*(engine.spec for engine in engines.values()), *(resources or {}).values()]
    return {unit for one in counting for unit in getattr(one, "units", ())}


def check_units(budget: Budget, specs: Mapping[str, EngineSpec], counted: Iterable[str] = ()) -> None:
    """Raise Uncounted where a limit is in a unit that cannot be counted.

    Args:
        specs: of the engines by role.
        counted: units that something else counts.
    """
    units = {*_UNITS, *counted, *(unit for spec in specs.values() for unit in spec.units)}
    for unit in budget.limits:
        if unit not in units:
            raise Uncounted(
                f"Nothing here counts {unit}, so a budget of it cannot be kept; use {', '.join(sorted(units))}."
            )
        for role, spec in specs.items():
            if unit == "usd" and spec.price is None:
                raise Uncounted(f"A budget in usd needs the price of {spec.name}: give {asking(role)}")
            if unit == "flops" and spec.shape is None:
                raise Uncounted(
                    f"A budget in flops needs the shape (parameters, layers) of {spec.name}, which is not known; use "
                    "tokens or seconds."
                )


def _check_powers(engine: Engine, powers: Iterable[str]) -> None:
    lacking = sorted(set(powers) - engine.spec.powers)
    if lacking:
        raise MissingResource(f"This needs a model that can do {', '.join(lacking)}; {engine.spec.name} cannot.")


def _report_majority(meter: Meter, report: Callable[..., None]) -> None:
    """A strategy that was stopped before its first report still answers with the majority of what it paid for."""
    answers = (one for one in meter.candidates.values() if one.complete and one.problem is None)
    samples = by_address(answers)
    if any(sample.key is not None for sample in samples) or (samples and not meter.rounds):
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)


class _Heard:
    """What was written of each sample so far; tells whoever listens besides."""

    def __init__(self, listen: Listen | None) -> None:
        self._listen = listen
        self._pieces: dict[Address, list[str]] = {}

    def __call__(self, address: Address, piece: Mapping[str, Any]) -> None:
        said = (piece.get("delta") or piece.get("message") or {}).get("content")
        if isinstance(said, str) and said:
            self._pieces.setdefault(address, []).append(said)
        if self._listen is not None:
            self._listen(address, piece)

    def samples(self) -> list[Candidate]:
        """As samples that were cut off; a piece is a token or more."""
        return [
            Candidate(
                address=address, text=writable("".join(pieces)), tokens=len(pieces), finish="cancelled", complete=False
            )
            for address, pieces in self._pieces.items()
        ]


def _report_text(meter: Meter, report: Callable[..., None], heard: Sequence[Candidate]) -> None:
    """A chat has a text wherever there is any: where nothing has come to an end, the longest that was written."""
    held = [one for one in meter.candidates.values() if one.problem is None]
    chosen = fullest(held, meter.candidates) or fullest(heard, {one.id: one for one in heard})
    if chosen is not None:
        report([chosen], chosen=chosen)


def as_budget(given: str | Budget | None, units: Collection[str] | None = ()) -> Budget:
    """A Budget from its text, with `units` as in `Budget.parse`; raises UsageError with the accepted form."""
    if given is None or isinstance(given, Budget):
        return given or Budget()
    if not isinstance(given, str):
        raise UsageError(f"A budget is a text such as 20k-tokens,8s, or a Budget, not {given!r}.")
    try:
        return Budget.parse(given, units)
    except ValueError as cause:
        raise UsageError(f"{cause}.") from None


def _sentence(failure: BaseException) -> str:
    return writable(str(failure) if isinstance(failure, OutthinkError) else f"{type(failure).__name__}: {failure}")
