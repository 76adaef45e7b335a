"""Intervals: where they end, and how often they hold the truth, near the boundary above all."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import beta

from outthink.errors import Unidentified
from outthink.learn.measures import auroc
from outthink.maths.intervals import Bootstrap, bootstrap, mean_and_interval, means, ratio, unseen

Generator = np.random.Generator


@pytest.mark.parametrize(("n", "right"), [(6, 6), (6, 0), (30, 1), (40, 35), (300, 297), (12, 6)])
def test_of_what_happens_or_not_it_is_that_of_clopper_and_pearson(n: int, right: int) -> None:
    """Its ends are quantiles of 10,000 draws, whose standard error is below 3% of the distance to the bound."""
    mean, low, high = mean_and_interval([1.0] * right + [0.0] * (n - right))
    assert mean == right / n
    exact = [
        0.0 if right == 0 else beta.ppf(0.025, right, n - right + 1),
        1.0 if right == n else beta.ppf(0.975, right + 1, n - right),
    ]
    assert (low, high) == pytest.approx(exact, rel=0.15 if right else 1e-9, abs=0.01)


def test_what_never_happened_may_happen() -> None:
    """Six questions whose wrong samples were all rejected do not make a rate of 100% to 100%."""
    _, low, high = mean_and_interval([1.0] * 6)
    assert (low, high) == pytest.approx((0.025 ** (1 / 6), 1.0))
    assert unseen(100, 0.05) == pytest.approx(3 / 100, rel=0.02)  # the rule of three
    assert unseen(0) == 1.0
    _, low, high = mean_and_interval([0.0] * 50, least=-1.0)
    assert (low, high) == pytest.approx((-unseen(50), unseen(50)))


def gap(rng: Generator, n: int) -> np.ndarray:
    """Most problems have no false positive, and some have many."""
    return (rng.random(n) < 0.05) * rng.random(n)


def rare(rng: Generator, n: int) -> np.ndarray:
    return (rng.random(n) < 0.03).astype(float)


def usual(rng: Generator, n: int) -> np.ndarray:
    return rng.beta(0.6, 1.2, n)


@pytest.mark.parametrize(
    ("draw", "truth", "n"),
    [*((gap, 0.025, n) for n in (20, 40, 100)), (rare, 0.03, 40), (usual, 1 / 3, 20), (usual, 1 / 3, 40)],
)
def test_they_hold_the_truth(draw: Callable[[Generator, int], np.ndarray], truth: float, n: int) -> None:
    """Of 60 intervals of 95%, 50 or more hold it: if 93% did, fewer would in 4 of 1,000 cases; fixed seed.

    Resamples alone hold the first one in 53, 65 and 82 of 100.
    """
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(60):
        _, low, high = mean_and_interval(draw(rng, n).tolist())
        held += low <= truth <= high
    assert held >= 50


def test_a_curve_has_the_interval_of_each_point() -> None:
    rng = np.random.default_rng(0)
    table = np.stack([np.zeros(40), rng.random(40), np.ones(40), rng.random(40) < 0.05], axis=-1)
    mean, interval = means(table)
    assert mean == pytest.approx(table.mean(0))
    for column in range(4):
        _, low, high = mean_and_interval(table[:, column].tolist())
        assert (interval.low[column], interval.high[column]) == pytest.approx((low, high), abs=0.02)
    wider = means(table, level=0.99)[1]
    assert (wider.low <= interval.low).all()
    assert (wider.high >= interval.high).all()
    assert wider.low[1] < interval.low[1]


def test_without_bounds_resamples_must_do() -> None:
    assert mean_and_interval([3.0] * 5, least=0.0, most=math.inf) == (3.0, 3.0, 3.0)
    assert all(math.isnan(number) for number in mean_and_interval([]))
    with pytest.raises(ValueError, match="no problems"):
        means([])


def test_a_side_on_which_all_are_alike_reaches_as_far_as_the_unseen() -> None:
    values = np.array([0.5] * 30)
    alike = bootstrap(lambda drawn: values[drawn].mean(), 30, bounds=(0.0, 1.0))
    assert (alike.low, alike.high) == pytest.approx((0.5 - 0.5 * unseen(30), 0.5 + 0.5 * unseen(30)))
    spread = np.linspace(0, 1, 30)
    assert bootstrap(lambda drawn: spread[drawn].mean(), 30, bounds=(0.0, 1.0)).low == pytest.approx(
        bootstrap(lambda drawn: spread[drawn].mean(), 30).low
    )
    with pytest.raises(Unidentified, match="two problems"):
        bootstrap(lambda drawn: 0.0, 1)


@pytest.mark.parametrize("problems", [6, 40])
def test_a_measure_that_is_perfect_on_a_few_problems_need_not_be(problems: int) -> None:
    """AUROC 1 with so many problems: as many of them as may be unlike the others could turn their pairs around."""
    whose = np.repeat(np.arange(problems), 2)
    right = np.tile([True, False], problems)
    scores = right + 0.01 * np.arange(2 * problems) / problems
    share = unseen(problems)
    estimated = Bootstrap(problems).estimate(lambda weights: auroc(scores, right, weights), whose, (right, ~right))
    assert list(estimated) == pytest.approx([1.0, (1 - share) ** 2, 1.0])
    # the worst that such a share can do: its right ones are below, its wrong ones above all others
    weights = np.array([share, share, 1 - share, 1 - share])
    assert auroc([0.0, 3.0, 2.0, 1.0], [True, False, True, False], weights) == pytest.approx((1 - share) ** 2)
    inside = Bootstrap(problems).estimate(lambda weights: ratio(weights @ right, weights.sum(-1)), whose)
    assert list(inside) == pytest.approx([0.5, 0.5 * (1 - share), 0.5 * (1 + share)])  # all have a half
    assert all(math.isnan(number) for number in Bootstrap(problems).estimate(np.sum, whose[:0]))


def test_means_of_many_different_values_are_those_of_drawing_problems() -> None:
    """Against the normal interval of 4,000 problems: 1,000 or more resamples have quantiles within a tenth of it."""
    values = np.random.default_rng(9).random(4_000)
    mean, low, high = mean_and_interval(values)
    reach = 1.96 * values.std() / math.sqrt(len(values))
    assert (mean - low, high - mean) == pytest.approx((reach, reach), rel=0.1)
