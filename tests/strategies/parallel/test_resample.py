"""Resampling until an imperfect verifier accepts: the first that passes, K attempts, and abstention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from outthink import Budget, Sampling, Trace
from outthink.cli.shown import print_trace
from outthink.driver import solve_async
from outthink.errors import EngineError, MissingResource, NothingCameBack, UsageError
from outthink.laws.imperfect import accepted_now, calibrate, outcomes
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.resample import Resample
from tests.tools.toys import problem
from tests.tools.virtual import run

HARD: dict[str, Any] = {"rates": (0.87, 0.13), "shares": (0.58, 0.42), "soundness": 0.75}


async def says(question: str, text: str) -> float | None:
    """The score that a sample begins with; "x" is missing."""
    return None if text[0] == "x" else float(text.split(" ")[0])


def scored(*scores: str) -> ScriptedEngine:
    """Sample k answers k and has scores[k]; "-" cannot be read."""
    return ScriptedEngine(
        lambda request, child, rng: "unreadable" if scores[child] == "-" else f"{scores[child]} #### {child}"
    )


def solved(strategy: Any, engine: ScriptedEngine, **options: Any) -> Trace:
    options.setdefault("sampling", Sampling(max_tokens=20))
    options.setdefault("verifier", says)
    return run(solve_async(problem(), strategy, model=engine, **options))


def test_the_first_that_passes_is_returned_and_nothing_more_is_drawn() -> None:
    trace = solved(Resample(), scored("0.1", "-", "x", "0.5", "0.9"))
    assert (trace.answer, len(trace.candidates), trace.abstained) == ("3", 4, False)
    assert trace.rounds[-1].scores == (0.1, None, None, 0.5)
    assert [one.answer for one in trace.rounds] == [None, None, None, "3"]
    assert trace.confidence is None
    assert sum(call.kind == "verify" for call in trace.calls) == 3  # what cannot be read is not judged


def test_where_nothing_passes_it_abstains(capsys: pytest.CaptureFixture[str]) -> None:
    trace = solved(Resample(n=3), scored("0.1", "0.4", "0.2"))
    assert (trace.answer, trace.key, trace.stopped, trace.abstained) == (None, None, "finished", True)
    last = trace.rounds[-1]
    assert (len(last.candidates), last.chosen, last.scores) == (3, None, (0.1, 0.4, 0.2))
    assert Trace.from_json(trace.to_json()).abstained
    print_trace(trace)
    assert "none: the method abstained" in capsys.readouterr().out


def test_without_a_readable_answer_it_is_no_choice() -> None:
    trace = solved(Resample(n=3), scored("-", "-", "-"))
    assert (trace.answer, trace.abstained) == (None, False)


@pytest.mark.parametrize(("cost", "attempts"), [(0.5, 10), (0.7, 3), (1, 2), (2, 1), (4, 1), (100, 0)])
def test_the_cost_of_an_error_says_how_often_it_tries(cost: float, attempts: int) -> None:
    strategy = Resample(cost=cost, **HARD)
    assert strategy.attempts == attempts
    trace = solved(strategy, scored(*["0"] * 10))
    assert len(trace.candidates) == attempts
    assert trace.abstained


def test_no_attempt_is_no_call_and_an_abstention() -> None:
    trace = solved(Resample(cost=100, **HARD), scored())
    assert (trace.calls, trace.candidates, trace.stopped) == ((), (), "finished")
    assert len(trace.rounds) == 1


def test_an_accepted_sample_is_as_sure_as_the_calibration_says() -> None:
    trace = solved(Resample(cost=0.5, **HARD), scored("0", "0", "1"))
    expected = float(accepted_now(2, HARD["rates"], 1, 0.75, shares=HARD["shares"]))
    assert trace.confidence == pytest.approx(expected)
    alike = Resample(rates=(0.3,), soundness=0.9)
    assert solved(alike, scored("0", "1")).confidence == pytest.approx(0.810811, abs=5e-7)


def test_more_in_flight_decides_the_same() -> None:
    def late(request: Request, child: int) -> float:
        return 9.0 - child

    engine = ScriptedEngine(lambda request, child, rng: f"{int(child >= 3)} #### {child}", latency=late)
    for ahead in (1, 3, 8):
        trace = solved(Resample(ahead=ahead), engine)
        assert (trace.answer, len(trace.rounds)) == ("3", 4)
    short = solved(Resample(n=3, ahead=8), engine)
    assert (len(short.candidates), short.abstained) == (3, True)


def test_runs_have_the_outcomes_of_the_law() -> None:
    """4 standard errors of 600 problems; a false alarm in 1 of 16,000, with a fixed seed."""
    n, k, rate, c, s = 600, 3, 0.3, 0.9, 0.7

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        right = rng.random() < rate
        passed = rng.random() < (c if right else 1 - s)
        return f"{int(passed)} #### {42 if right else 7}"

    async def go() -> list[str | None]:
        traces = [
            await solve_async(problem(f"p{number}"), Resample(n=k), model=ScriptedEngine(reply), verifier=says)
            for number in range(n)
        ]
        return [trace.answer for trace in traces]

    found = run(go())
    for answer, expected in zip(("42", "7", None), outcomes(rate, c, s, k), strict=True):
        p = float(expected)
        assert found.count(answer) / n == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))


def test_a_deadline_and_a_budget_end_it_without_an_answer() -> None:
    slow = ScriptedEngine(lambda request, child, rng: f"0 #### {child}", latency=lambda request, child: 1.0)
    for budget in (Budget({"seconds": 2.5}), Budget({"tokens": 60})):
        trace = solved(Resample(), slow, budget=budget)
        assert trace.stopped in ("deadline", "budget")
        assert trace.answer is None
        assert trace.abstained


def test_failures() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("down") if child == 0 else "1 #### 4"

    assert solved(Resample(), ScriptedEngine(reply)).answer == "4"
    with pytest.raises(NothingCameBack, match="down"):
        solved(Resample(), ScriptedEngine(lambda *_: EngineError("down")))
    with pytest.raises(MissingResource, match="verifier"):
        solved(Resample(), scored("1"), verifier=None)


def test_a_calibration_can_be_given_as_it_is() -> None:
    found = calibrate([[True, False], [False, False]], [[True, True], [False, False]])
    assert Resample(cost=0.5, **found._asdict()).attempts == 2
    assert make_strategy("resample", {"rates": "0.87,0.13", "shares": "0.58,0.42", "soundness": "0.75"}) == Resample(
        **HARD
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"ahead": 0}, "ahead must be at least 1"),
        ({"threshold": "nan"}, "threshold must be a finite number"),
        ({"cost": -1}, "cost must be a number of at least 0"),
        ({"kappa": "inf"}, "kappa must be a number of at least 0"),
        ({"completeness": 1.1}, "completeness must be from 0 to 1"),
        ({"soundness": -0.1}, "soundness must be from 0 to 1"),
        ({"rates": "0.5,2"}, "rates must be from 0 to 1"),
        ({"rates": "0.5", "shares": "0.5,0.5"}, "shares must be as many as rates"),
        ({"rates": "0.5", "shares": "0"}, "shares must be numbers of at least 0"),
    ],
)
def test_bad_hyperparameters_are_one_sentence(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_strategy("resample", parameters)
