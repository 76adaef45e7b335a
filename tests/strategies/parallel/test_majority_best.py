"""The vote decides the answer, the score its text: reductions, ties and what is scored at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import MissingResource
from outthink.maths.selection import Drawn
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.majority_best import MajorityBest, leading
from outthink.types import Trace
from tests.tools.toys import problem
from tests.tools.virtual import run

ANSWERS = (5, 1, 1, 7, 1)
SOUND = {"5": 0.99, "1": 0.2, "7": 0.9}


def writes(request: Request, child: int, rng: np.random.Generator) -> str:
    return f"text {child} #### {ANSWERS[child % len(ANSWERS)]}"


def solved(name: str = "majority_best", n: int = 5, **options: Any) -> Trace:
    return run(solve_async(problem(), make_strategy(name, {"n": n}), model=ScriptedEngine(writes), **options))


def test_the_soundest_text_of_the_majority_and_no_rare_answer() -> None:
    scored: list[str] = []

    def verifier(question: str, solution: str) -> float:
        scored.append(solution)
        return SOUND[solution.rpartition(" ")[2]] + 0.1 * (solution.startswith("text 2"))

    trace = solved(verifier=verifier)
    assert trace.answer == "1"
    assert trace.text == "text 2 #### 1"
    assert sorted(scored) == ["text 1 #### 1", "text 2 #### 1", "text 4 #### 1"], "only the majority is judged"
    assert trace.rounds[-1].confidence == pytest.approx(3 / 5)
    assert solved("best_of_n", verifier=verifier).answer == "5"


def test_of_equally_frequent_answers_the_best_text_wins() -> None:
    trace = solved(n=2, verifier=lambda question, solution: SOUND[solution.rpartition(" ")[2]])
    assert trace.answer == "5"
    trace = solved(n=2, verifier=lambda question, solution: 1 - SOUND[solution.rpartition(" ")[2]])
    assert trace.answer == "1"


@pytest.mark.parametrize("score", [None, 0.5])
def test_without_scores_or_with_equal_ones_it_is_the_majority(score: float | None) -> None:
    assert solved(verifier=lambda question, solution: score).answer == solved("self_consistency").answer


def test_needs_a_scorer() -> None:
    with pytest.raises(MissingResource):
        solved()


def test_leading() -> None:
    keys = np.array([[0, 1, 1, 2], [0, 0, 1, 1], [-1, -1, -1, 3], [-1, -1, -1, -1]])
    assert leading(keys).tolist() == [
        [False, True, True, False],
        [True] * 4,
        [False, False, False, True],
        [False] * 4,
    ]


def test_a_replay_makes_the_same_choice() -> None:
    keys = np.array([[0, 1, 1, 2, 1], [-1, -1, -1, -1, -1]])
    zeros = np.zeros(keys.shape)
    drawn = Drawn(
        keys=keys,
        tokens=zeros,
        lengths=zeros,
        complete=np.ones(keys.shape, bool),
        logprobs=None,
        scores=np.array([[0.99, 0.2, 0.4, 0.9, np.nan], [0.5] * 5]),
        verdicts=None,
        paths=np.arange(keys.size).reshape(keys.shape),
        texts=None,
        order=np.tile(np.arange(5), (2, 1)),
    )
    assert MajorityBest(n=5).replay(drawn).index.tolist() == [2, -1]
