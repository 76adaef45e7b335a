"""Multi-temperature voting: agreement, early exit, the vote of the temperatures, and coverage of a union of pools."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from outthink import Budget, Sampling, Trace
from outthink.driver import solve_async
from outthink.errors import EngineError, NothingCameBack, UsageError
from outthink.maths.selection import majority
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.multi_temperature import (
    MultiTemperature,
    agreement,
    vote_of_temperatures,
)
from outthink.strategies.parallel.self_consistency import SelfConsistency
from tests.tools.toys import coin, problem
from tests.tools.virtual import run


def solved(strategy: Any, engine: ScriptedEngine, **options: Any) -> Trace:
    options.setdefault("sampling", Sampling(max_tokens=20))
    return run(solve_async(problem(), strategy, model=engine, **options))


def table(**pools: str) -> ScriptedEngine:
    """Sample k at temperature T answers what is at place k of the pool called tT, without its point; "-" is unreadable.

    After the end of a pool its last answer is repeated.
    """

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        pool = pools["t" + str(request.temperature).replace(".", "")]
        answer = pool[min(child, len(pool) - 1)]
        return "unreadable" if answer == "-" else f"#### {answer}"

    return ScriptedEngine(reply)


# ---- formulas -------------------------------------------------------------------------------------------------------


def test_the_exit_needs_every_temperature_and_all_of_one_mind() -> None:
    agreed, doubtful = [0, 0, 0, 0, -1], [0, 0, 0, 1, -1]
    assert not agreement([agreed, agreed, doubtful], 4)  # 3 of 4 is 0.75
    assert agreement([agreed, agreed, [0, 0, 0, 1, 0]], 4)  # 4 of 5 is 0.8
    assert not agreement([agreed, agreed, [1, 1, 1, 1, -1]], 4)  # A, A, B
    assert agreement([agreed, agreed, [1, 1, 1, 1, -1]], 4, tau_cross=0.6)
    assert not agreement([agreed, [0, 0, 0, -1, -1]], 4)  # too few
    assert agreement([[0, -1, -1], [0, 0, 0]], [1, 3])  # temperature 0 has one sample
    assert not agreement([[0, 0], [-1, -1]], 1)
    assert not agreement([[0, 0], [-1, -1]], 0)


@pytest.mark.parametrize(
    ("n_min", "m", "p", "expected"),
    [(1, 13, 0.9, 0.2542), (1, 13, 0.95, 0.5133), (1, 13, 0.99, 0.8775), (1, 10, 0.9, 0.3487), (1, 10, 0.95, 0.5987),
     (1, 10, 0.99, 0.9044), (4, 13, 0.9, 0.0042), (4, 13, 0.95, 0.0694), (4, 13, 0.99, 0.5930), (4, 10, 0.9, 0.0148),
     (4, 10, 0.95, 0.1285), (4, 10, 0.99, 0.6690)],
)  # fmt: skip
def test_how_often_it_ends_in_the_first_round_that_can(n_min: int, m: int, p: float, expected: float) -> None:
    """Wrong answers never agree; 4 standard errors of 5,000 questions, a false alarm in 1 of 16,000, fixed seed."""
    assert p ** (m * n_min) == pytest.approx(expected, abs=5e-5)
    wrong = np.random.default_rng(1).random((5_000, m, n_min + 1)) >= p
    keys = np.where(wrong, 1 + np.arange(m * (n_min + 1)).reshape(m, -1), 0)
    first = agreement(keys[..., :n_min], n_min).mean()
    assert first == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 5_000) + 5e-5)


def test_the_vote_of_the_temperatures() -> None:
    choice = vote_of_temperatures([[0, 0, 1], [1, 1, 1], [1, 0, 1]])  # 2/3 for A; 1 + 2/3 for B
    assert choice.index == 3
    assert float(choice.share) == pytest.approx(5 / 9)
    choice = vote_of_temperatures([[0, -1], [1, 1]])  # alike, and more samples in all
    assert (int(choice.index), float(choice.share)) == (2, 0.5)
    assert vote_of_temperatures([[0, 0], [1, 1]]).index == 0  # alike in that too: the lower temperature
    assert vote_of_temperatures([[-1, -1], [-1, 1]]).index == 3
    nothing = vote_of_temperatures([[-1, -1], [-1, -1]])
    assert (int(nothing.index), float(nothing.share)) == (-1, 0.0)
    rng = np.random.default_rng(2)
    keys, lengths = rng.integers(-1, 3, (50, 1, 6)), rng.integers(1, 9, (50, 1, 6))
    single = majority(keys[:, 0], lengths=lengths[:, 0])
    assert np.array_equal(vote_of_temperatures(keys, lengths=lengths).index, single.index)
    keys = rng.integers(-1, 3, (50, 4, 3))
    assert vote_of_temperatures(keys).index.tolist() == [int(vote_of_temperatures(row).index) for row in keys]


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_one_temperature_is_self_consistency() -> None:
    for seed in range(8):
        strategy = MultiTemperature(temperatures=(0.8,), n=7, n_min=7)
        trace, plain = (
            solved(one, coin(0.5, wrong=3), seed=seed, sampling=Sampling(temperature=0.8, max_tokens=20))
            for one in (strategy, SelfConsistency(n=7))
        )
        assert trace.candidates == plain.candidates
        ours, theirs = trace.rounds[-1], plain.rounds[-1]
        assert (ours.chosen, ours.confidence, trace.usage) == (theirs.chosen, theirs.confidence, plain.usage)


@pytest.mark.parametrize("ahead", [1, 4, 8])
def test_it_goes_on_until_the_last_temperature_is_sure(ahead: int) -> None:
    strategy = MultiTemperature(temperatures=(0.5, 0.8, 1.0), ahead=ahead)
    trace = solved(strategy, table(t05="1", t08="1", t10="11121"))
    last = trace.rounds[-1]
    assert (trace.answer, len(trace.rounds), len(last.candidates)) == ("1", 5, 15)
    assert last.chosen == "model/0/0"
    if ahead == 1:
        assert len(trace.candidates) == 15


def test_the_decision_does_not_depend_on_what_arrives_first() -> None:
    def late(request: Request, child: int) -> float:
        return 10.0 - child - request.temperature

    strategy = MultiTemperature(temperatures=(0.0, 0.5, 1.0), n=6)
    for seed in range(5):
        plain = solved(strategy, coin(0.8), seed=seed)
        trace = solved(strategy, coin(0.8, latency=late), seed=seed)
        assert [one.chosen for one in trace.rounds] == [one.chosen for one in plain.rounds]
        assert trace.rounds[-1].candidates == plain.rounds[-1].candidates


def test_temperature_0_is_sampled_once() -> None:
    engine = table(t00="1", t05="1", t10="1")
    trace = solved(MultiTemperature(temperatures=(0.0, 0.5, 1.0), ahead=1), engine)
    assert len(trace.candidates) == 1 + 4 + 4
    assert len(solved(MultiTemperature(temperatures=(0.0,), n=5), engine).candidates) == 1
    literal = solved(MultiTemperature(temperatures=(0.0, 0.5, 1.0), n_min=1, ahead=1), engine)
    assert len(literal.candidates) == 3


def test_unreadable_answers_lead_nothing() -> None:
    strategy = MultiTemperature(temperatures=(0.5, 1.0), n=6, ahead=1)
    trace = solved(strategy, table(t05="-1111", t10="1"))
    assert (trace.answer, len(trace.rounds)) == ("1", 5)
    trace = solved(strategy, table(t05="-", t10="1"))
    assert (trace.answer, len(trace.rounds)) == ("1", 6)
    trace = solved(strategy, table(t05="-", t10="-"))
    assert (trace.answer, trace.stopped, len(trace.candidates)) == (None, "finished", 12)


def test_a_hard_question_goes_to_the_verifier_and_an_easy_one_does_not() -> None:
    async def likes_3(question: str, text: str) -> float:
        return float("3" in text)

    strategy = MultiTemperature(temperatures=(0.5, 1.0), n=4, ahead=1)
    hard = table(t05="1112", t10="1123")
    assert solved(strategy, hard).answer == "1"
    trace = solved(strategy, hard, verifier=likes_3)
    assert (trace.answer, len(trace.rounds)) == ("3", 5)
    assert trace.rounds[-1].scores == (0.0,) * 7 + (1.0,)
    easy = solved(strategy, table(t05="1", t10="1"), verifier=likes_3)
    assert easy.answer == "1"
    assert not [call for call in easy.calls if call.kind == "verify"]

    async def silent(question: str, text: str) -> None:
        return None

    assert solved(strategy, hard, verifier=silent).answer == "1"


def test_failures_and_the_budget() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("down") if request.temperature == 0.5 else "#### 1"

    trace = solved(MultiTemperature(temperatures=(0.5, 1.0), n=5), ScriptedEngine(reply))
    assert (trace.answer, len(trace.rounds), len(trace.candidates)) == ("1", 5, 5)
    with pytest.raises(NothingCameBack, match="down"):
        solved(MultiTemperature(temperatures=(0.5, 1.0)), ScriptedEngine(lambda *_: EngineError("down")))
    trace = solved(MultiTemperature(temperatures=(0.5, 1.0)), coin(0.5), budget=Budget({"tokens": 80}))
    assert trace.stopped == "budget"
    assert trace.cost["tokens"] <= 80
    assert trace.answer is not None


def test_what_is_in_flight_at_the_exit_is_cancelled_and_charged() -> None:
    engine = ScriptedEngine(lambda *_: "#### 1", latency=lambda request, child: 1.0 if child < 4 else 3.0)
    trace = solved(MultiTemperature(temperatures=(0.5, 1.0), ahead=6), engine)
    assert trace.seconds == pytest.approx(1.0)
    assert {call.outcome for call in trace.calls if int(call.address[-1]) >= 4} == {"cancelled"}
    assert trace.usage.completion == 8 * 6 + 4 * 2  # a third of the two fifth and the two sixth ones


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperatures": ()}, "temperatures must be"),
        ({"temperatures": "0.8,0.4"}, "from the lowest"),
        ({"temperatures": "0.1,x"}, "temperatures.*number"),
        ({"temperatures": (-0.1, 0.4)}, "at least 0"),
        ({"temperatures": (0.4, math.inf)}, "temperatures must be"),
        ({"temperatures": (0.0, 0.0, 1.0)}, "once only"),
        ({"n": 0}, "n must be at least 1"),
        ({"n_min": 0}, "n_min must be at least 1"),
        ({"ahead": 0}, "ahead must be at least 1"),
        ({"tau_intra": 0}, "tau_intra must be above 0"),
        ({"tau_cross": 1.1}, "tau_cross must be above 0"),
    ],
)
def test_bad_hyperparameters_are_one_sentence(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_strategy("multi_temperature", parameters)


def test_temperatures_may_be_given_as_text() -> None:
    assert make_strategy("multi_temperature", {"temperatures": "0, 0.5,1"}) == MultiTemperature(
        temperatures=(0.0, 0.5, 1.0)
    )


# ---- what a few samples weigh ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sure", [2, 6, 8])
def test_one_greedy_sample_does_not_outvote_many(sure: int) -> None:
    others = "2" * sure + "3456789"[: 8 - sure]
    trace = solved(MultiTemperature(temperatures=(0.0, 0.8), n_min=9, ahead=1), table(t00="1", t08=others))
    assert trace.answer == "2"
    assert trace.confidence == pytest.approx(sure / 9)
    agreed = solved(MultiTemperature(temperatures=(0.0, 0.8), n_min=9, ahead=1), table(t00="2", t08=others))
    assert agreed.answer == "2"
    assert agreed.confidence == pytest.approx((sure + 1) / 9)


def test_one_readable_sample_does_not_outvote_many() -> None:
    keys = [[1, -1, -1, -1, -1, -1, -1, -1], [0, 0, 0, 0, 0, 0, 2, 3]]
    choice = vote_of_temperatures(keys)
    assert choice.index == 8
    assert float(choice.share) == pytest.approx(6 / 16)
