"""ARISE: the score, the runs it asks for, and what chance alone gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.errors import Unidentified
from outthink.laws.arise import arise, measure_arise, slope, steps

untimed = settings(deadline=None)  # a busy machine is no failure
accuracies = st.lists(st.floats(0, 1), min_size=3, max_size=3)
lengths = st.lists(st.floats(1, 1e5), min_size=3, max_size=3)


@pytest.mark.parametrize(
    ("accuracy", "tokens", "score"),
    [
        ([0, 1], [1000, 2000], 0.5),
        ([1, 0], [1000, 2000], -2.0),
        ([0, 1, 0], [1000, 2000, 4000], -1.5),
        ([0, 0, 1], [1000, 2000, 4000], 0.5),
        ([0.25, 0.75], [1000, 1500], 1 / 3),
        ([0, 1], [2000, 1000], 2.0),  # fewer tokens at a higher level
        ([1, 0], [2000, 1000], -0.5),
        ([0, 1], [0, 1000], 0.0),  # a token count that cannot be
        ([0, 1, 1], [0, 1000, 2000], 0.0),
        ([1, 0], [1000, 10_000], -10.0),
        ([0.7], [1000], 0.0),
    ],
)
def test_the_score(accuracy: list[float], tokens: list[float], score: float) -> None:
    assert float(arise(accuracy, tokens)) == pytest.approx(score)


def test_many_questions_at_once() -> None:
    accuracy, tokens = [[0, 1, 0], [0, 0, 1]], [1000, 2000, 4000]
    assert steps(accuracy, tokens).tolist() == [[0.5, -2.0], [0.0, 0.5]]
    assert arise(accuracy, tokens).tolist() == [-1.5, 0.5]


@untimed
@given(accuracy=accuracies, tokens=lengths, scale=st.floats(0.1, 10))
def test_what_the_score_does_not_depend_on(accuracy: list[float], tokens: list[float], scale: float) -> None:
    score = float(arise(accuracy, tokens))
    assert float(arise(accuracy, np.array(tokens) * scale)) == pytest.approx(score, rel=1e-6, abs=1e-9)
    assert float(arise(accuracy, [tokens[0]] * 3)) == pytest.approx(accuracy[2] - accuracy[0], abs=1e-12)
    assert float(arise([accuracy[0]] * 3, tokens)) == 0
    assert float(arise(accuracy, sorted(tokens))) <= 1


def test_the_baseline() -> None:
    assert slope([0.2, 0.4, 0.3, 0.5], [1000, 2000, 3000, 2500]) == pytest.approx([2e-4, -1e-4, 0.0])


def test_the_metric_on_questions() -> None:
    accuracy = np.array([[0, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0], [0.5, 1, 0.5]])
    result = measure_arise(accuracy, [[1000, 2000, 4000]] * 5)
    scores = [0.5, -2.0, 0.0, 0.0, 0.25 - 1.0]
    assert result.score == pytest.approx(np.mean(scores))
    assert result.std == pytest.approx(np.std(scores))
    assert (result.least, result.most) == (-2.0, 0.5)
    counts = (result.improved, result.degraded, result.always_right, result.always_wrong, result.mixed)
    assert counts == (1, 1, 1, 1, 1)
    assert result.questions == sum(counts)
    assert result.medians.tolist() == [0.0, 0.0]
    assert result.tokens.tolist() == [1000, 2000, 4000]
    assert result.slope == pytest.approx([0.3 / 1000, -0.3 / 2000])
    assert result.interval.low <= result.score <= result.interval.high


def test_runs_are_averaged_before_the_score() -> None:
    one = measure_arise([[[0, 1], [1, 1, 0]]] * 2, [[[900, 1100], [2000, 1900, 2100]]] * 2)
    assert one.score == pytest.approx((2 / 3 - 1 / 2) / 2)
    always = measure_arise([[[1], [1, 1, 1]]] * 2, [[[10], [20, 20, 20]]] * 2)
    assert (always.score, always.chance, always.always_right) == (0, 0, 2)


def test_what_chance_gives() -> None:
    """Where the level makes no difference the score is negative, and `chance` says by how much.

    2,000 questions of 3 runs at 3 levels: the score of one question has a standard deviation near 1.2, so the mean of
    the score minus chance one of .03; 4 of these are .12, a false alarm in 1 of 16,000, with a fixed seed.
    """
    rng = np.random.default_rng(0)
    right = (rng.random((2000, 3, 3)) < rng.random((2000, 1, 1))).astype(float)
    tokens = np.broadcast_to(np.array([1000.0, 2000.0, 4000.0])[:, None], right.shape)
    result = measure_arise(right, tokens, deals=50)
    assert result.score < -0.25
    assert result.score == pytest.approx(result.chance, abs=0.12)
    better = right.copy()
    better[:, 2] = 1
    gained = measure_arise(better, tokens, deals=50)
    assert gained.score - gained.chance > 0.3


def test_chance_keeps_the_length_of_right_and_wrong_runs() -> None:
    """Where wrong runs are the longer ones at every level, and the level makes no difference, chance knows it.

    2,000 questions: 4 standard errors of the mean score, near .05; a false alarm in 1 of 16,000, with a fixed seed.
    """
    rng = np.random.default_rng(2)
    right = (rng.random((2000, 3, 2)) < rng.random((2000, 1, 1))).astype(float)
    tokens = np.array([100.0, 200.0, 400.0])[:, None] * (8 - 7 * right) * rng.uniform(0.5, 1.5, right.shape)
    result = measure_arise(right, tokens, deals=50)
    assert result.score == pytest.approx(result.chance, abs=0.2)
    apart = measure_arise(right, np.broadcast_to(np.array([100.0, 200.0, 400.0])[:, None], right.shape), deals=50)
    assert abs(result.score - apart.chance) > 1


def test_the_interval_of_the_score() -> None:
    """Of 100 intervals of 95%, 88 or more hold the truth: a false alarm in 15 of 10,000 (binomial), fixed seed."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        accuracy = (rng.random((80, 2)) < [0.4, 0.6]).astype(float)
        result = measure_arise(accuracy, np.broadcast_to([1000.0, 2000.0], (80, 2)), resamples=100, deals=1)
        hits += bool(result.interval.low <= 0.36 * 0.5 - 0.16 * 2 <= result.interval.high)
    assert hits >= 88


def test_what_cannot_be_scored() -> None:
    with pytest.raises(Unidentified, match="two at least"):
        measure_arise([[1], [0]], [[10], [10]])
    with pytest.raises(Unidentified, match="two problems"):
        measure_arise([[1, 0]], [[10, 20]])
    cases: list[tuple[Any, Any]] = [
        ([[1, 0], [1]], [[1, 2], [1]]),
        ([[1, 0]], [[1, 2], [1, 2]]),
        ([[[1, 0], 1]], [[1, 2]]),
        ([], []),
    ]
    for right, tokens in cases:
        with pytest.raises(ValueError, match="question"):
            measure_arise(right, tokens)
