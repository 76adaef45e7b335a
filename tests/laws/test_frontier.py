"""The frontier: against its definition, what is best at each budget, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.errors import Unidentified
from outthink.laws.frontier import best, best_at, frontier
from outthink.maths.intervals import bootstrap

COSTS = [1.0, 2.0, 2.0, 4.0, 8.0, 8.0]
QUALITIES = [0.3, 0.2, 0.5, 0.5, 0.6, 0.7]


def test_by_hand() -> None:
    assert frontier(COSTS, QUALITIES).tolist() == [0, 2, 5]
    assert best_at(COSTS, QUALITIES, [0.5, 1, 1.9, 2, 7.9, 8, 100]).tolist() == [-1, 0, 0, 2, 2, 5, 5]


points = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12)


@settings(deadline=None)
@given(points)
def test_the_frontier_is_what_nothing_beats(options: list[tuple[int, int]]) -> None:
    cost, quality = np.array(options, float).T
    along = frontier(cost, quality)
    assert (np.diff(cost[along]) > 0).all()
    assert (np.diff(quality[along]) > 0).all()
    for place in range(len(options)):
        beaten = (
            (cost <= cost[place]) & (quality >= quality[place]) & ((cost < cost[place]) | (quality > quality[place]))
        )
        same = (cost == cost[place]) & (quality == quality[place])
        first = np.flatnonzero(same)[0] == place
        assert (place in along) == (not beaten.any() and first)


@settings(deadline=None)
@given(points, st.integers(0, 7))
def test_best_at_a_budget_is_the_largest_that_is_affordable(options: list[tuple[int, int]], budget: int) -> None:
    cost, quality = np.array(options, float).T
    (chosen,) = best_at(cost, quality, [budget])
    affordable = cost <= budget
    if not affordable.any():
        assert chosen == -1
        return
    assert affordable[chosen]
    assert quality[chosen] == quality[affordable].max()
    assert cost[chosen] == cost[affordable & (quality == quality[chosen])].min()


@pytest.mark.parametrize("options", [1, 3])
def test_scale_and_order_change_nothing(options: int) -> None:
    rng = np.random.default_rng(0)
    cost, quality = rng.random((options, 2)).T
    order = rng.permutation(options)
    assert frontier(1e15 * cost, quality / 100).tolist() == frontier(cost, quality).tolist()
    assert sorted(order[frontier(cost[order], quality[order])]) == sorted(frontier(cost, quality))


def problems(rates: list[float], n: int, rng: np.random.Generator) -> np.ndarray:
    return (rng.random((n, len(rates))) < rates).astype(float)


def test_a_clear_winner_has_all_resamples() -> None:
    """Two models, .2 at cost 1 and .8 at cost 4, on 200 problems: 60 points apart, with a standard error of 4."""
    credit = problems([0.2, 0.8], 200, np.random.default_rng(0))
    choice = best(np.tile([1.0, 4.0], (200, 1)), credit, [0.5, 1, 4], groups=[0, 1])
    assert choice.option.tolist() == [-1, 0, 1]
    assert choice.shares.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert choice.quality.tolist() == [0, *credit.mean(0)]
    assert choice.low[0] == choice.high[0] == choice.fresh[0] == 0
    assert (choice.low[1:] < choice.quality[1:]).all()
    assert (choice.high[1:] > choice.quality[1:]).all()


def test_groups_share_the_resamples_where_nothing_is_clear() -> None:
    """Ten equal options of five models: no group may have nearly all resamples, and the largest mean is too large."""
    rng = np.random.default_rng(1)
    credit = problems([0.5] * 10, 100, rng)
    choice = best(np.ones((100, 10)), credit, [1.0], groups=np.arange(10) // 2)
    assert choice.shares.shape == (1, 5)
    assert choice.shares.sum() == pytest.approx(1)
    assert choice.shares.max() < 0.9
    assert choice.quality[0] > choice.fresh[0]


def test_fresh_problems_see_no_choice() -> None:
    """The largest of 20 equal means is too large by .09; fresh problems see less of that.

    The largest of 20 standard normals has mean 1.87, times .05 for a mean of 100 problems. A resample chooses what was
    good in the pool, of which the problems that it leaves out are part, so some of the gain stays. Over 8 pools its
    mean has a standard error of .009, so .06 is missed once in 3,000 seeds, of which this is one.
    """
    rng = np.random.default_rng(2)
    gains, left = [], []
    for _ in range(8):
        credit = problems([0.5] * 20, 100, rng)
        choice = best(np.ones((100, 20)), credit, [1.0])
        gains.append(choice.quality[0] - 0.5)
        left.append(choice.fresh[0] - 0.5)
    assert np.mean(gains) > 0.06
    assert np.mean(left) < np.mean(gains) - 0.02


def test_with_one_option_the_interval_is_that_of_its_mean() -> None:
    credit = problems([0.3], 60, np.random.default_rng(3))
    choice = best(np.ones((60, 1)), credit, [1.0], seed=7)
    interval = bootstrap(lambda rows: credit[rows].mean(), 60, seed=7)
    assert (choice.low[0], choice.high[0]) == (interval.low, interval.high)
    assert choice.fresh[0] == choice.quality[0] == credit.mean(), "there was nothing to choose"


def test_the_same_seed_gives_the_same() -> None:
    credit = problems([0.4, 0.5], 30, np.random.default_rng(4))
    one, other = (best(np.tile([1.0, 2.0], (30, 1)), credit, [1, 2], seed=5) for _ in range(2))
    assert one.shares.tolist() == other.shares.tolist()
    assert one.low.tolist() == other.low.tolist()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="as many costs as qualities"):
        frontier([1, 2], [1])
    with pytest.raises(ValueError, match="as many costs as qualities"):
        best_at([], [], [1])
    with pytest.raises(ValueError, match="finite"):
        frontier([np.nan], [1])
    with pytest.raises(ValueError, match="one shape"):
        best([1.0], [1.0], [1])
    with pytest.raises(ValueError, match="one group for each"):
        best([[1.0, 2.0]] * 3, [[1.0, 0.0]] * 3, [1], groups=[0])
    with pytest.raises(Unidentified, match="two problems"):
        best([[1.0]], [[1.0]], [1])
