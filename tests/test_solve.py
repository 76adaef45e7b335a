"""The driver under random budgets, costs, failures, delays, lies and cancellations, and at its edges."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outthink
from outthink.driver import solve_async
from outthink.errors import (
    BudgetExhausted,
    BudgetTooSmall,
    EngineError,
    MissingResource,
    OutthinkError,
    UnknownName,
    UsageError,
)
from outthink.model import Draw, Model, Models
from outthink.models.engine import Completion, EngineSpec, Price, Progress, Request, Shape
from outthink.models.scripted import ScriptedEngine
from outthink.rng import Rng
from outthink.strategies.making import make_strategy, strategy_name
from outthink.types import Call, Candidate, Message, Problem, Sampling, Trace
from tests.tools.toys import coin, problem
from tests.tools.virtual import run

MAX_TOKENS = 60


@dataclass
class Chaos(ScriptedEngine):
    """Writes token by token, shows only every `window`-th, and fails, stalls or lies at random."""

    failing: float = 0.0
    lying: float = 0.0
    window: int = 1
    true: int = 0
    lied: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(
            lambda request, child, rng: "", price=Price(prompt=1, completion=2, cached=0.5), shape=Shape(parameters=10)
        )

    async def generate(self, request: Request, progress: Progress) -> None:
        progress.slack = self.window - 1
        progress.prompt = request.n * (await self.bound(request)).prompt
        async with asyncio.TaskGroup() as tasks:
            for position in range(request.n):
                tasks.create_task(self._write(request, position, progress))

    async def _write(self, request: Request, position: int, progress: Progress) -> None:
        rng = Rng(request.seed, request.problem, *request.address).at(request.child + position)
        text = ("think" * int(rng.integers(0, 9)) + f"\n\n#### {rng.integers(3)}")[: request.max_tokens]
        speed, luck = float(rng.exponential(0.1)), float(rng.random())
        for number in range(1, len(text) + 1):
            await asyncio.sleep(speed)
            self.true += 1
            if number % self.window == 0:
                progress.tokens[position] = number
            if luck < self.failing and number > len(text) // 2:
                progress.results[position] = EngineError("it broke")
                return
        tokens = len(text)
        if 1 - luck < self.lying:
            tokens = 10 * MAX_TOKENS
            self.true += tokens - len(text)
            self.lied.append(asyncio.get_running_loop().time())
        finish: Any = "length" if len(text) == request.max_tokens else "eos"
        progress.finish(position, Completion(text=text, tokens=tokens, finish=finish, logprobs=(-0.5,) * len(text)))


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["self_consistency", "weighted_best_of_n", "revision", "fusion", "rebase", "a_star"]),
    limits=st.fixed_dictionaries(
        {},
        optional={
            "tokens": st.integers(80, 1500),
            "usd": st.floats(2e-4, 3e-3),
            "flops": st.floats(2e3, 3e4),
            "seconds": st.floats(0.5, 30),
        },
    ),
    failing=st.sampled_from([0.0, 0.3]),
    lying=st.sampled_from([0.0, 0.05]),
    window=st.integers(1, 7),
    seed=st.integers(0, 10**6),
    stop_after=st.none() | st.floats(0, 20),
)
def test_never_over_never_uncounted_answer_kept(
    name: str,
    limits: dict[str, float],
    failing: float,
    lying: float,
    window: int,
    seed: int,
    stop_after: float | None,
) -> None:
    engine = Chaos(failing=failing, lying=lying, window=window)
    told: list[Call] = []

    async def go() -> Trace:
        stop = asyncio.Event()
        if stop_after is not None:
            asyncio.get_running_loop().call_later(stop_after, stop.set)
        try:
            return await solve_async(
                problem(),
                name,
                model=engine,
                verifier="confidence",
                prm="confidence",
                budget=outthink.Budget(limits),
                sampling=Sampling(max_tokens=MAX_TOKENS),
                seed=seed,
                stop=stop,
                on_call=told.append,
            )
        except EngineError as error:
            if error.trace is None:
                raise
            return error.trace
        finally:
            assert len(asyncio.all_tasks()) == 1

    trace = run(go())
    assert len(told) == len(trace.calls)
    assert trace.usage.completion >= engine.true  # true <= charged
    assert sum(call.seen.completion for call in trace.calls) <= engine.true
    for call in trace.calls:
        assert call.seen.completion <= call.charged.completion
    if trace.stopped == "overrun":
        assert engine.lied
        assert not [call for call in trace.calls if call.started > max(engine.lied)]
    else:  # a lie that what was reserved for the whole group covers does no harm
        for unit, limit in limits.items():
            assert trace.cost[unit] <= limit * (1 + 1e-6)
    readable = [candidate for candidate in trace.candidates if candidate.key is not None]
    if trace.stopped != "cancelled" and not trace.rounds:
        assert not readable
    if trace.stopped == "deadline":
        assert trace.seconds <= limits["seconds"] + 1e-6
    assert Trace.from_json(trace.to_json()) == trace


def test_each_unit_names_the_smallest_budget_that_would_do() -> None:
    engine = coin(0.5, price=Price(prompt=1e6, completion=1e6), shape=Shape(parameters=1))
    for budget, smallest in (("20-tokens", "524 tokens"), ("20usd", "524 usd"), ("20-flops", "1048 flops")):
        with pytest.raises(BudgetTooSmall, match=f"at least {smallest}"):
            run(solve_async(problem(), model=engine, budget=budget))


def test_a_budget_in_a_unit_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match="needs the price of scripted"):
        run(solve_async(problem(), model=coin(0.5), budget="1usd"))
    with pytest.raises(UsageError, match="needs the shape"):
        run(solve_async(problem(), model=coin(0.5), budget="1T-flops"))


def test_dollars_count_cached_tokens_at_their_price() -> None:
    engine = coin(0.5, price=Price(prompt=1e6, cached=1e5, completion=2e6))
    trace = run(solve_async(problem(), make_strategy("self_consistency", {"n": 3}), model=engine))
    prompt, completion = 12, sum(candidate.tokens for candidate in trace.candidates)
    assert trace.cost["usd"] == pytest.approx(prompt + 2 * prompt * 0.1 + 2 * completion)


def test_flops_are_two_per_parameter_and_token_and_attention() -> None:
    engine = ScriptedEngine(lambda request, child, rng: "#### 42", shape=Shape(parameters=1000, layers=2, hidden=8))
    trace = run(solve_async(problem(), "greedy", model=engine))
    assert trace.cost["flops"] == 2 * 1000 * 19 + 4 * 2 * 8 * 19**2 / 2


def test_the_synchronous_form_and_its_refusal_inside_a_loop() -> None:
    assert outthink.solve("What is 1+1?", "greedy", model=coin(1.0)).answer == "42"

    async def inside() -> None:
        with pytest.raises(UsageError, match=r"await outthink\.solve_async"):
            outthink.solve("What is 1+1?", model=coin(1.0))

    asyncio.run(inside())


def test_any_object_can_be_a_strategy() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Twice:
        async def run(self, problem: object, report: Any, *, model: Any, sandbox: Any = None) -> None:
            first = await model.sample(problem)
            second = await model.sample(problem)
            report([*first, *second], chosen=second[0])

    trace = run(solve_async(problem(), Twice(), model=coin(1.0)))
    assert [candidate.id for candidate in trace.candidates] == ["model/0/0", "model/1/0"]
    assert strategy_name(Twice()).endswith("Twice")


def test_a_strategy_with_a_bug_keeps_the_paid_answer_and_says_so() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Buggy:
        async def run(self, problem: object, report: Any, *, model: Any) -> None:
            await model.sample(problem, 3)
            raise KeyError("oops")

    trace = run(solve_async(problem(), Buggy(), model=coin(1.0)))
    assert (trace.answer, trace.stopped, trace.error) == ("42", "error", "KeyError: 'oops'")


def test_missing_and_unknown_names() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        async def run(self, problem: object, report: Any, *, retriever: Any) -> None: ...

    with pytest.raises(MissingResource, match=r"needs .retriever.: pass resources="):
        run(solve_async(problem(), Needy(), model=coin(1.0)))
    with pytest.raises(UnknownName, match="did you mean 'best_of_n'"):
        make_strategy("best_of_m")
    with pytest.raises(UsageError, match="question is empty"):
        run(solve_async("  ", model=coin(1.0)))


def test_roles_have_their_own_randomness_and_names_in_the_trace() -> None:
    trace = run(
        solve_async(problem(), "fusion", model=coin(0.5, wrong=5), models={"fusor": coin(1.0, name="big")}, seed=1)
    )
    assert trace.resources == {"model": "scripted", "fusor": "big"}
    assert {candidate.address[0] for candidate in trace.candidates} == {"model", "fusor"}


def test_a_lone_surrogate_in_a_model_s_text_does_not_break_the_trace() -> None:
    engine = ScriptedEngine(lambda request, child, rng: "bad \ud800 #### 42")
    trace = run(solve_async(problem(), "greedy", model=engine))
    assert Trace.from_json(trace.to_json()) == trace


def test_an_engine_that_raises_anything_is_a_failed_call() -> None:
    class Broken(ScriptedEngine):
        async def generate(self, request: Request, progress: Progress) -> None:
            raise ZeroDivisionError("by zero")

    with pytest.raises(OutthinkError, match="ZeroDivisionError: by zero") as caught:
        run(solve_async(problem(), "greedy", model=Broken(lambda request, child, rng: "")))
    trace = caught.value.trace
    assert trace is not None
    assert trace.calls[0].outcome == "failed"
    assert trace.usage.completion == 512  # nobody knows what it did, so all of it is charged


def test_groups_of_children_cost_the_same_as_one_group() -> None:
    costs = set()
    for limit in (10_000, 1100, 700):  # all at once; two and two; one by one
        trace = run(solve_async(problem(), make_strategy("self_consistency", {"n": 4}), model=coin(0.5),
                                budget=f"{limit}-tokens"))  # fmt: skip
        costs.add((trace.cost["tokens"], trace.answer, tuple(c.text for c in trace.candidates)))
    assert len(costs) == 1
    assert np.isfinite(trace.seconds)


# ------------------------------------------------------------------------------- warm starts, and what else is asked


class Asked(ScriptedEngine):
    """Says which child of which request it is, gives logprobs where they are asked for, and keeps the requests."""

    def __init__(self, dies_after: int = 99, powers: Sequence[str] = ()) -> None:
        super().__init__(self._said)
        self._own = frozenset(powers)
        self.requests: list[Request] = []
        self._dies_after = dies_after

    @property
    def spec(self) -> EngineSpec:
        return replace(super().spec, fields=None, powers=super().spec.powers | self._own)

    def _said(self, request: Request, child: int, rng: Any) -> Completion | EngineError:
        if len(self.requests) > self._dies_after:
            return EngineError("it is gone")
        text = f"{request.address[-1]}.{child}"
        return Completion(text=text, tokens=len(text), logprobs=(-1.0,) * len(text) if request.logprobs else None)

    async def generate(self, request: Request, progress: Progress) -> None:
        self.requests.append(request)
        await super().generate(request, progress)


def done(what: Callable[[Model, Problem], Awaitable[Any]], engine: Asked, **options: Any) -> Trace:
    """Runs it as a strategy, to its end."""
    ended = False

    @dataclass(frozen=True, kw_only=True)
    class Doing:
        async def run(self, problem: Problem, report: Any, *, model: Model) -> None:
            nonlocal ended
            await what(model, problem)
            ended = True

    options = {"sampling": Sampling(max_tokens=20), **options}
    given = options.pop("given", problem())
    trace = run(solve_async(given, Doing(), model=engine, **options))
    assert ended, trace.error
    return trace


def texts(samples: list[Candidate]) -> list[str]:
    return [sample.text for sample in samples]


def test_a_warm_start_gives_what_was_drawn_first_and_each_of_it_once() -> None:
    async def what(model: Model, problem: Problem) -> None:
        drawn = await model.sample(problem, 3)
        assert texts(drawn) == ["0.0", "0.1", "0.2"]
        warm = model.starting_with(drawn)
        assert texts(await warm.sample(problem, 2)) == ["0.0", "0.1"]
        assert len(engine.requests) == 1, "all of that was there"
        assert texts(await warm.sample(problem, 3)) == ["0.2", "0.3", "0.4"]
        assert texts(await warm.sample(problem, 1)) == ["3.0"]
        assert texts(await model.sample(problem, 1)) == ["4.0"], "the model itself begins cold"

    engine = Asked()
    trace = done(what, engine)
    assert len(trace.candidates) == 7
    assert trace.usage.completion == 7 * 3


def test_a_warm_start_is_drawn_a_few_at_a_time_like_anything_else() -> None:
    async def what(model: Model, problem: Problem) -> None:
        draws = model.starting_with(await model.sample(problem, 3)).draws(problem)
        portions = await asyncio.gather(draws.draw(2), draws.draw(2), draws.draw(1))
        assert [texts(portion) for portion in portions] == [["0.0", "0.1"], ["0.2", "0.3"], ["0.4"]]

    engine = Asked()
    assert len(done(what, engine).candidates) == 5
    assert [request.n for request in engine.requests] == [3, 1, 1]


def test_what_goes_on_from_a_warm_start_is_never_what_was_there() -> None:
    async def what(model: Model, problem: Problem) -> None:
        first, _, third = await model.sample(problem, 3)  # as if the second one had failed
        warm = model.starting_with([first, third])
        draws, others = warm.draws(problem), warm.draws(problem)
        drawn = [*await draws.draw(2), *await draws.draw(2), *await others.draw(2), *await warm.sample(problem, 1)]
        assert texts(drawn) == ["0.0", "0.2", "0.3", "0.4", "1.0", "1.1", "2.0"]

    async def in_turn(model: Model, problem: Problem) -> None:
        warm = model.starting_with(await model.sample(problem, 2))
        assert texts(await warm.sample(problem, 1)) == ["0.0"]
        assert texts(await warm.draws(problem).draw(3)) == ["0.1", "0.2", "0.3"]

    done(what, Asked())
    done(in_turn, Asked())


@pytest.mark.parametrize(
    "draw",
    [
        Draw(temperature=0.8),
        Draw(max_tokens=10),
        Draw(messages=(Message(content="Something else?"),)),
        Draw(stop=("x",)),
        Draw(step=True),
        Draw(aside=True),
        Draw(logprobs=True),
    ],
    ids=str,
)
def test_what_is_asked_for_in_another_way_is_drawn_anew(draw: Draw) -> None:
    async def what(model: Model, problem: Problem) -> None:
        warm = model.starting_with(await model.sample(problem, 1))
        (other,) = (await warm.sample_each(problem, [draw]))[0]
        (kept,) = await warm.sample(problem)
        assert other.id != kept.id == "model/0/0"
        assert len(engine.requests) == 2

    engine = Asked()
    done(what, engine)


def test_lanes_share_what_was_drawn_before_and_go_on_as_their_own() -> None:
    async def what(model: Model, problem: Problem) -> None:
        warm = model.starting_with(await model.sample(problem, 3))
        first, second = warm.lane("a"), warm.lane("b")
        assert [one.id for one in await first.sample(problem, 2)] == ["model/0/0", "model/0/1"]
        assert [one.id for one in await second.sample(problem, 2)] == ["model/0/2", "model/b/0/0"]
        assert [one.id for one in await first.sample(problem)] == ["model/a/1/0"]
        ((last,),) = await warm.sample_each(problem, [Draw(lane=("c",))])
        assert last.id == "model/c/0/0"

    done(what, Asked())


def test_what_was_drawn_in_another_way_stands_for_what_is_drawn_in_that_way() -> None:
    cold, hot = Draw(temperature=0.0), Draw(n=3, temperature=0.9)

    async def what(model: Model, problem: Problem) -> None:
        greedy, others = await model.sample_each(problem, [cold, hot])
        warm = model.starting_with(greedy, cold).starting_with(others, hot)
        again, more = await warm.sample_each(problem, [cold, Draw(n=5, temperature=0.9)])
        assert (again, more[:3]) == (greedy, others)
        assert [one.id for one in more[3:]] == ["model/1/3", "model/1/4"]
        assert [request.n for request in engine.requests] == [1, 3, 2]

    engine = Asked()
    done(what, engine)


def test_what_was_drawn_with_controls_stands_for_what_wants_the_same_ones() -> None:
    seeing, other = Draw(n=2, controls={"sight": [3]}), Draw(controls={"sight": [4]})

    async def what(model: Model, problem: Problem) -> None:
        (drawn,) = await model.sample_each(problem, [seeing])
        warm = model.starting_with(drawn, seeing)
        assert (await warm.sample_each(problem, [other, Draw()]))[0][0] not in drawn
        assert await warm.draws(problem, seeing).draw(2) == drawn

    engine = Asked(powers=["sight"])
    done(what, engine)
    assert [request.n for request in engine.requests] == [2, 1, 1]


def test_samples_with_logprobs_serve_whoever_wants_them_and_whoever_does_not() -> None:
    async def what(model: Model, problem: Problem) -> None:
        drawn = await model.sample(problem, 2, logprobs=True)
        assert await model.starting_with(drawn).sample(problem, 2, logprobs=True) == drawn
        assert await model.starting_with(drawn).sample(problem, 2) == drawn

    engine = Asked()
    done(what, engine)
    assert len(engine.requests) == 1


@pytest.mark.parametrize("left", ["nothing of the budget", "a dead model"])
def test_what_was_drawn_before_is_there_where_nothing_more_can_be_had(left: str) -> None:
    async def what(model: Model, problem: Problem) -> None:
        drawn = await model.sample(problem, 2)
        warm = model.starting_with(drawn)
        assert await warm.sample(problem, 4) == drawn
        with pytest.raises((BudgetExhausted, EngineError)):
            await warm.sample(problem, 1)

    engine = Asked(dies_after=1 if left == "a dead model" else 99)
    done(what, engine, budget=None if left == "a dead model" else "40-tokens")


def test_further_fields_go_with_what_may_be_an_answer_and_with_nothing_else() -> None:
    fields = {"tools": [1], "temperature": None, "max_tokens": None, "top_p": None}

    async def what(model: Model, problem: Problem) -> None:
        await model.sample(problem)
        await model.sample(problem, temperature=0.5)
        await model.sample(problem, max_tokens=5)
        await model.sample(problem, logprobs=True)
        begun = (await model.sample(problem, messages=problem.messages))[0]
        for draw in (Draw(after=begun), Draw(stop=("x",)), Draw(step=True), Draw(aside=True)):
            await model.sample_each(problem, [draw])

    engine = Asked()
    done(what, engine, given=replace(problem(), fields=fields))
    plain, hot, short, logprobs, *others = [dict(request.fields) for request in engine.requests]
    assert plain == logprobs == fields
    assert hot == {"tools": [1], "max_tokens": None, "top_p": None}, "its own temperature is sent"
    assert short == {"tools": [1], "temperature": None, "top_p": None}, "its own cap is sent"
    assert others == [{}] * 5


def test_a_judge_gets_no_fields_whatever_it_is_asked() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Asking:
        async def run(self, problem: Problem, report: Any, *, models: Models) -> None:
            for role in ("judge", "fusor"):
                await models.role(role).sample(problem)

    engine = Asked()
    run(solve_async(replace(problem(), fields={"tools": [1]}), Asking(), model=engine))
    assert [request.fields for request in engine.requests] == [{}, {"tools": [1]}]


def test_an_engine_that_cannot_honour_a_field_is_not_asked() -> None:
    asked = replace(problem(), fields={"tools": [1], "temperature": None})
    told: list[Call] = []
    with pytest.raises(UsageError, match="scripted cannot honour tools; leave that out"):
        run(solve_async(asked, "greedy", model=coin(1.0), on_call=told.append))
    with pytest.raises(UsageError, match="big cannot honour tools"):
        run(solve_async(asked, "greedy", model=Asked(), models={"target": coin(1.0, name="big")}))
    assert not told
    assert run(solve_async(replace(asked, fields={"temperature": None}), "greedy", model=coin(1.0))).answer == "42"
