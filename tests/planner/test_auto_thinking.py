"""Auto and models that think: votes are weighed by length where the first sample has a thought, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.planner.auto import Auto
from outthink.strategies.parallel.length_vote import LengthVote
from outthink.types import Sampling, Trace
from tests.tools.toys import problem
from tests.tools.virtual import run

SAMPLES = [(7, 90), (8, 10), (7, 95), (8, 12), (9, 50), (8, 14), (8, 11), (8, 13)]


def solved(strategy: object, *, thinks: bool) -> Trace:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        answer, length = SAMPLES[child % len(SAMPLES)]
        return ("<think>" if thinks else "") + "x" * length + ("</think>" if thinks else "") + f"\n#### {answer}"

    engine = ScriptedEngine(reply)
    return run(solve_async(problem(), strategy, model=engine, sampling=Sampling(max_tokens=300)))  # type: ignore[arg-type]


def test_a_model_that_thinks_is_decided_as_a_length_vote_sample_by_sample() -> None:
    trace = solved(Auto(ahead=1), thinks=True)
    same = solved(LengthVote(n=40, portion=1, exponent=0.5, threshold=0.85), thinks=True)
    assert trace.answer == same.answer == "8"
    assert len(trace.candidates) == len(same.candidates) < len(SAMPLES)
    assert trace.rounds[-1].confidence == pytest.approx(same.rounds[-1].confidence)


def test_the_decision_does_not_depend_on_what_is_in_flight() -> None:
    one, four = solved(Auto(ahead=1), thinks=True), solved(Auto(ahead=4), thinks=True)
    assert [(each.chosen, each.confidence) for each in four.rounds] == [
        (each.chosen, each.confidence) for each in one.rounds
    ]


def test_without_thoughts_length_has_no_say() -> None:
    trace = solved(Auto(ahead=1, n=3), thinks=False)
    assert trace.answer == "7"
    assert solved(Auto(ahead=1, n=3), thinks=True).answer == "8"
