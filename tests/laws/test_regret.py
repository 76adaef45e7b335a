"""Regret, progress and anytime accuracy of curves of accuracy against tokens."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers.reader import Reader
from outthink.errors import Unidentified
from outthink.laws.regret import (
    accuracy_at,
    agreement,
    anytime,
    budget_weights,
    measure_regret,
    normalised_regret,
    prefix_curve,
    progress,
    stops,
)
from outthink.maths.intervals import unseen
from outthink.reports.report import answer_points
from outthink.tasks.example import Example
from outthink.types import Budget, Message, Problem, Round, Sampling, Trace

untimed = settings(deadline=None)  # a busy machine is no failure
POINTS = ([2000, 4000], [0.2, 0.6])
points = st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1)), max_size=6)


def test_the_numbers_of_the_source() -> None:
    assert normalised_regret(*POINTS, [3000, 4000, 8000]) == pytest.approx([1 - 1 / 6, 0.75, 0.575])
    assert normalised_regret(*POINTS, 4000) == pytest.approx(0.75)
    assert progress([0.0, *POINTS[1]]) == pytest.approx([0.2, 0.4])
    assert anytime([0.2, 0.5, 0.6, 0.65], [2, 4, 6, 8]) == pytest.approx(0.4875)
    assert anytime([0.2, 0.5, 0.6, 0.65], [2, 4, 6, 8], "linear") == pytest.approx(0.56)
    assert anytime([0.2, 0.5, 0.6, 0.65], [2, 4, 6, 8], "base") == pytest.approx(0.65)


def test_answers_that_were_really_given_hold_until_the_next() -> None:
    assert normalised_regret(*POINTS, [2000, 4000, 8000], shape="step") == pytest.approx([1.0, 0.9, 0.65])
    assert accuracy_at(*POINTS, [0, 1999, 2000, 3000, 4000, 9000], shape="step").tolist() == [0, 0, 0.2, 0.2, 0.6, 0.6]
    assert accuracy_at(*POINTS, [0, 1000, 2000, 3000, 4000, 9000]) == pytest.approx([0, 0.1, 0.2, 0.4, 0.6, 0.6])


def test_the_best_and_the_worst_trace() -> None:
    assert normalised_regret([0], [1.0], [10, 1000]).tolist() == [0, 0]
    assert normalised_regret([1e-9], [1.0], 1000) == pytest.approx(0)
    assert normalised_regret([5, 10], [0, 0], [10, 1000]).tolist() == [1, 1]
    assert normalised_regret([], [], [10, 1000]).tolist() == [1, 1]  # never an answer


@untimed
@given(curve=points, budget=st.floats(1, 2e4), shape=st.sampled_from(["line", "step"]))
def test_what_holds_of_every_curve(curve: list[tuple[float, float]], budget: float, shape: str) -> None:
    x, y = [one for one, _ in curve], [one for _, one in curve]
    regret = float(normalised_regret(x, y, budget, shape=shape))  # type: ignore[arg-type]
    assert -1e-9 <= regret <= 1 + 1e-9
    # the area by brute force
    edges = np.linspace(0, budget, 20_001)
    middle = (edges[1:] + edges[:-1]) / 2
    assert regret == pytest.approx(1 - accuracy_at(x, y, middle, shape=shape).mean(), abs=2e-3)  # type: ignore[arg-type]
    if len(set(x)) == len(x):  # the order of points does not matter
        assert normalised_regret(x[::-1], y[::-1], budget, shape=shape) == pytest.approx(regret)  # type: ignore[arg-type]


def test_points_at_the_same_moment() -> None:
    assert accuracy_at([5, 5], [0.2, 0.8], [4, 5, 6], shape="step").tolist() == [0, 0.8, 0.8]
    assert accuracy_at([5, 5], [0.2, 0.8], [5, 6]).tolist() == [0.8, 0.8]
    many = np.linspace(0, 1, 200)  # the last of them is what was answered
    assert accuracy_at([7, *[5] * 200], [1.0, *many[::-1]], [5], shape="step").tolist() == [0]


def test_impossible_curves_are_refused() -> None:
    cases: list[tuple[Any, Any]] = [([1, 2], [0.5]), ([-1], [0.5]), ([1], [1.5]), ([[1]], [[0.5]])]
    for x, y in cases:
        with pytest.raises(ValueError, match="two rows"):
            normalised_regret(x, y, 10)
    with pytest.raises(ValueError, match="above 0"):
        normalised_regret([1], [0.5], 0)
    with pytest.raises(ValueError, match="at least 0"):
        accuracy_at([1], [0.5], -1)
    with pytest.raises(ValueError, match="above 0"):
        budget_weights([0, 1])
    with pytest.raises(ValueError, match="one trace"):
        measure_regret([[]], [1])


def test_forced_answers_cost_what_was_drawn() -> None:
    x, y = prefix_curve([0, 100], [[10, 20, 30, 40], [8, 8, 8, 8]], [[0, 0, 1, 0], [1, 1, 1, 0]])
    assert x.tolist() == [25, 108]
    assert y.tolist() == [0.25, 0.75]


@untimed
@given(accuracy=st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_progress_adds_up(accuracy: list[float]) -> None:
    assert progress(accuracy).sum() == pytest.approx(accuracy[-1] - accuracy[0])


def test_anytime() -> None:
    assert anytime([[0.4], [0.7]], [9]).tolist() == [0.4, 0.7]
    rising = np.sort(np.random.default_rng(0).random((50, 5)), axis=-1)
    budgets = [1, 2, 5, 9, 10]
    uniform, linear, base = (anytime(rising, budgets, prior) for prior in ("uniform", "linear", "base"))
    assert (uniform <= linear).all()
    assert (linear <= base).all()
    assert budget_weights([4, 2], "base").tolist() == [1, 0]  # the largest, wherever it stands


def test_agreement() -> None:
    assert agreement([[1, 1, 2, -1], [-1, -1, -1, -1], [3, 3, 3, 3], [0, 1, 2, 3]]).tolist() == [0.5, 0, 1, 0.25]


def test_when_to_stop() -> None:
    rising = [0.25, 0.5, 0.875, 0.875, 0.875, 0.875]
    assert stops(rising).tolist() == [False, False, False, False, True, True]
    assert not stops([0.25, 0.5, 0.5, 0.5]).any()  # not agreed enough
    assert stops([0.9, 0.8, 0.8]).tolist() == [False, False, True]  # to fall is no progress
    assert stops([0.8, 0.85, 0.9], eps=0.1).tolist() == [False, False, True]
    assert stops([1.0]).tolist() == [False]
    assert stops([[0.8] * 3, [0.2] * 3]).tolist() == [[False, False, True], [False] * 3]


@untimed
@given(agreement=st.lists(st.floats(0, 1), min_size=1, max_size=9), cut=st.integers(1, 9))
def test_what_comes_later_does_not_matter(agreement: list[float], cut: int) -> None:
    assert stops(agreement)[:cut].tolist() == stops(agreement[:cut]).tolist()


def test_regret_of_questions() -> None:
    right, never = ([2000, 4000], [0.2, 0.6]), ([2000, 9000], [0.0, 0.0])
    measured = measure_regret([[right, never], [right], [never]], [4000, 8000], prior="linear")
    assert measured.regret == pytest.approx([(0.875 + 0.75 + 1) / 3, (0.7875 + 0.575 + 1) / 3])
    assert measured.solvable == 2
    assert measured.solvable_regret == pytest.approx([(0.875 + 0.75) / 2, (0.7875 + 0.575) / 2])
    assert measured.solvable_interval is not None
    assert measured.accuracy == pytest.approx([0.3, 0.3])
    assert measured.score == pytest.approx(0.3)
    assert measured.ended == pytest.approx([0, (0.5 + 1 + 0) / 3])
    for value, interval in [
        (measured.regret, measured.regret_interval),
        (measured.accuracy, measured.accuracy_interval),
        (np.array(measured.score), measured.score_interval),
    ]:
        assert (interval.low <= value + 1e-12).all()
        assert (value <= interval.high + 1e-12).all()
    same = measure_regret([[right], [right]], [2000, 4000], prior="base")
    assert same.score == pytest.approx(0.6)
    # two questions that are alike say little of others
    assert (same.score_interval.low, same.score_interval.high) == pytest.approx(
        (0.6 - 0.6 * unseen(2), 0.6 + 0.4 * unseen(2))
    )
    alone = measure_regret([[right], [never]], [4000])
    assert (alone.solvable, alone.solvable_regret, alone.solvable_interval) == (1, None, None)
    with pytest.raises(Unidentified, match="two problems"):
        measure_regret([[right]], [4000])


def test_the_interval_of_regret() -> None:
    """Of 100 intervals of 95%, 88 or more hold the truth: a false alarm in 15 of 10,000 (binomial), with a fixed seed.

    An answer comes at once and is right with probability .3, so that regret is .7.
    """
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        traces = [[([0], [float(right)])] for right in rng.random(80) < 0.3]
        measured = measure_regret(traces, [100])
        hits += bool(measured.regret_interval.low[0] <= 0.7 <= measured.regret_interval.high[0])
    assert hits >= 88


def test_the_rounds_of_a_trace_are_a_curve() -> None:
    problem = Problem(id="p", messages=(Message(content="2 + 2?"),), answer="math")
    rounds = tuple(
        Round(answer=answer, key=answer, cost={"tokens": tokens}) for answer, tokens in [("5", 100.0), ("4", 300.0)]
    )
    trace = Trace(
        problem="p",
        strategy={"name": "x"},
        seed=0,
        sampling=Sampling(),
        budget=Budget(),
        resources={},
        candidates=(),
        rounds=rounds,
        calls=(),
        stopped="finished",
    )

    async def graded() -> list[tuple[float, float]]:
        reader = Reader()
        try:
            points = await answer_points(trace, Example(problem=problem, gold=("4",)), reader)
        finally:
            await reader.close()
        return [(point.cost["tokens"], point.credit) for point in points]

    tokens, credit = zip(*asyncio.run(graded()), strict=True)
    assert normalised_regret(tokens, credit, 400, shape="step") == pytest.approx(0.75)
