"""The driver under random budgets, costs, failures, delays, lies and cancellations, and at its edges."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outthink
from outthink.driver import make_strategy, solve_async, strategy_name
from outthink.errors import BudgetTooSmall, EngineError, MissingResource, OutthinkError, UnknownName, UsageError
from outthink.models.engine import Completion, Price, Progress, Request, Shape
from outthink.models.scripted import ScriptedEngine
from outthink.rng import Rng
from outthink.types import Call, Sampling, Trace
from tests.toys import coin, problem
from tests.virtual import run

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
