"""First finish search: who wins, what the losers cost, and when short means right."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from outthink.strategies.parallel.first_finish import (
    FirstFinish,
    first_finished,
    shortest,
    tokens_written,
)
from outthink.strategies.parallel.self_consistency import SelfConsistency
from tests.tools.toys import problem
from tests.tools.virtual import run

LENGTHS = [812, 640, 1204, 977]


def writer(lengths: Sequence[int], answers: Sequence[str]) -> ScriptedEngine:
    """Sample k has lengths[k] tokens, takes as many seconds, and answers answers[k] ("": cannot be read)."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        end = f" #### {answers[child]}" if answers[child] else ""
        return "x" * (lengths[child] - len(end)) + end

    return ScriptedEngine(reply, latency=lambda request, child: float(min(lengths[child], request.max_tokens)))


def solved(strategy: Any, engine: ScriptedEngine, tokens: int = 5000, **options: Any) -> Trace:
    return run(solve_async(problem(), strategy, model=engine, sampling=Sampling(max_tokens=tokens), **options))


# ---- stored samples -------------------------------------------------------------------------------------------------


def test_the_shortest_of_four() -> None:
    keys = [0, 1, 2, 3]
    assert first_finished(keys, LENGTHS).index == 1
    assert [float(x) for x in tokens_written(keys, LENGTHS)] == [640, 2560]
    assert [float(x) for x in tokens_written(keys, LENGTHS, 4)] == [1204, 3633]
    assert first_finished(keys, LENGTHS, longest=True).index == 2
    assert first_finished(keys, [5, 5, 5, 5]).index == 0


def test_what_is_unfinished_is_never_first() -> None:
    assert first_finished([-1, 0, 1], [10, 90, 80]).index == 2
    assert [float(x) for x in tokens_written([-1, 0, 1], [10, 90, 80])] == [80, 170]
    assert first_finished([-1, -1], [10, 20]).index == -1
    assert [float(x) for x in tokens_written([-1, -1], [10, 20])] == [20, 30]
    assert [float(x) for x in tokens_written([-1, 0], [10, 20], 2)] == [20, 30]
    assert shortest([3, 1, 2], [True, False, True], 2).tolist() == [True, False, True]
    assert shortest([3, 1, 2], [True, True, True], 2, longest=True).tolist() == [True, False, True]


def test_k_is_a_vote_of_the_shortest_and_n_is_the_majority() -> None:
    rng = np.random.default_rng(0)
    keys, tokens = rng.integers(-1, 3, (200, 7)), rng.integers(1, 50, (200, 7))
    assert np.array_equal(first_finished(keys, tokens, 7).index, majority(keys, lengths=tokens).index)
    assert np.array_equal(first_finished(keys, tokens, 7).share, majority(keys, lengths=tokens).share)
    assert first_finished([0, 1, 1, 0, 0], [9, 1, 2, 3, 8], 3).index == 1
    assert first_finished([0, 1, 1, 0, 0], [9, 1, 2, 3, 8], 3, longest=True).index == 0
    rows = [int(first_finished(row, length, 2).index) for row, length in zip(keys, tokens, strict=True)]
    assert first_finished(keys, tokens, 2).index.tolist() == rows


def test_where_length_says_nothing_it_is_one_sample() -> None:
    """4 standard errors of 20,000 problems; a false alarm in 1 of 16,000, with a fixed seed."""
    rng = np.random.default_rng(4)
    right, tokens = rng.random((20_000, 4)) < 0.3, rng.integers(1, 10**9, (20_000, 4))
    index = first_finished(np.where(right, 0, 1), tokens).index
    accuracy = np.take_along_axis(right, index[:, None], -1).mean()
    assert accuracy == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 20_000))


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_the_first_wins_and_the_losers_are_cancelled_and_charged() -> None:
    trace = solved(FirstFinish(n=4), writer(LENGTHS, "ABCD"))
    assert trace.rounds[-1].chosen == "model/0/1"
    assert [candidate.id for candidate in trace.candidates] == ["model/0/1"]
    assert trace.seconds == pytest.approx(640)
    assert trace.usage.completion == 2560
    assert [call.outcome for call in trace.calls] == ["cancelled", "ok", "cancelled", "cancelled"]
    assert trace.usage.prompt - trace.usage.cached == 12


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 2, 3, 1), (3, 2, 0, 1)])
def test_it_is_the_length_and_not_the_place(order: tuple[int, ...]) -> None:
    trace = solved(FirstFinish(n=4), writer([LENGTHS[place] for place in order], ["12345"[place] for place in order]))
    assert trace.answer == "2"


def test_all_alike_is_the_first_one() -> None:
    assert solved(FirstFinish(n=4), writer([50] * 4, "1234")).rounds[-1].chosen == "model/0/0"


def test_what_is_cut_off_or_cannot_be_read_is_waited_past() -> None:
    trace = solved(FirstFinish(n=4), writer([200, 90, 70, 50], ["1", "2", "", ""]), tokens=100)
    assert trace.answer == "2"
    assert trace.seconds == pytest.approx(90)
    cut = solved(FirstFinish(n=2), writer([300, 400], "12"), tokens=100)
    assert (cut.answer, cut.stopped) == (None, "finished")
    assert [candidate.finish for candidate in cut.candidates] == ["length"] * 2


def test_the_vote_of_the_first_k() -> None:
    engine = writer([30, 20, 40, 90, 100], ["8", "7", "8", "7", "7"])
    trace = solved(FirstFinish(n=5, k=3), engine)
    assert trace.answer == "8"
    assert trace.seconds == pytest.approx(40)
    assert trace.usage.completion == 30 + 20 + 40 + 40 + 40
    assert [one.answer for one in trace.rounds] == ["7", "7", "8"]


def test_waiting_for_all_is_self_consistency() -> None:
    for seed in range(8):

        def reply(request: Request, child: int, rng: np.random.Generator) -> str:
            return "x" * int(rng.integers(20)) + f" #### {int(rng.integers(3))}"

        late = ScriptedEngine(reply, latency=lambda request, child: float(child * 7 % 5))
        trace, plain = (solved(strategy, late, seed=seed) for strategy in (FirstFinish(n=6, k=6), SelfConsistency(n=6)))
        assert trace.candidates == plain.candidates
        assert trace.usage == plain.usage
        ours, theirs = trace.rounds[-1], plain.rounds[-1]
        assert (ours.candidates, ours.chosen, ours.confidence) == (theirs.candidates, theirs.chosen, theirs.confidence)


def test_one_sample_is_plain_sampling() -> None:
    trace, plain = (
        solved(strategy, writer([30], "5"), seed=3) for strategy in (FirstFinish(n=1), SelfConsistency(n=1))
    )
    assert trace.candidates == plain.candidates
    assert trace.usage == plain.usage


def test_failures_and_the_budget() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("down") if child < 3 else "#### 4"

    assert solved(FirstFinish(n=4), ScriptedEngine(reply)).answer == "4"
    with pytest.raises(NothingCameBack, match="down"):
        solved(FirstFinish(n=4), ScriptedEngine(lambda *_: EngineError("down")))
    trace = solved(FirstFinish(n=4), writer([30, 20, 10, 10], "1234"), tokens=40, budget=Budget({"tokens": 120}))
    assert trace.cost["tokens"] <= 120
    assert trace.answer == "2"  # the others did not fit beside the first two


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"k": 0}, "k must be from 1"),
        ({"n": 2, "k": 3}, r"k must be from 1 to n \(2\)"),
    ],
)
def test_bad_hyperparameters_are_one_sentence(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_strategy("first_finish", parameters)
