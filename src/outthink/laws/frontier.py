"""The frontier of quality against cost: which option, and so which model, is best at each budget.

Source: the Pareto frontiers over model size and number or length of samples of Sadhukhan et al. 2025, "Kinetics:
Rethinking Test-Time Scaling Laws", read in the authors' released code and the abstract. Differs: budgets are means per
problem, and how sure the choice is, is measured by resampling problems.

An option is a way to answer every problem, such as a model and a number of samples. Its cost and its quality are means
over the same problems.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.intervals import bootstrap

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Best:
    """The best affordable option at each budget.

    Args:
        budgets: (b,), per problem.
        option: (b,) position of the option; -1 where not even the cheapest one is affordable.
        quality: (b,) its mean over problems; 0 where nothing is affordable. As the largest of several means it is a
            little above what new problems would give.
        low, high: (b,) 95% interval of the largest mean.
        fresh: (b,) the same as far as problems can say that had no part in the choice: `quality` less what choosing on
            resamples loses on the problems that these leave out.
        shares: (b, groups) share of resamples in which the best option is of this group.
    """

    budgets: Floats
    option: NDArray[np.intp]
    quality: Floats
    low: Floats
    high: Floats
    fresh: Floats
    shares: Floats


def frontier(cost: ArrayLike, quality: ArrayLike) -> NDArray[np.intp]:
    """Positions of the options (n,) than which none is both as cheap and as good, by rising cost; of equals the first.

    Along them cost and quality rise strictly.
    """
    cost, quality = _finite(cost, quality)
    kept: list[int] = []
    for place in np.lexsort((-quality, cost)):
        if not kept or quality[place] > quality[kept[-1]]:
            kept.append(int(place))
    return np.array(kept, dtype=np.intp)


def best_at(cost: ArrayLike, quality: ArrayLike, budgets: ArrayLike) -> NDArray[np.intp]:
    """For each budget the position of the best option (n,) that costs no more, the cheapest of equals; -1: none."""
    cost, quality = _finite(cost, quality)
    along = frontier(cost, quality)
    place = np.searchsorted(cost[along], np.asarray(budgets, float), side="right") - 1
    return np.where(place >= 0, along[np.maximum(place, 0)], -1)


def best(
    cost: ArrayLike, quality: ArrayLike, budgets: ArrayLike, groups: ArrayLike | None = None, *, seed: int = 0
) -> Best:
    """The best option at each budget (b,), with its interval and how often each group is best; by bootstrap.

    Args:
        cost, quality: (problems, n) of each problem under each option. Costs are held at their means, so that a
            budget affords the same options in every resample.
        budgets: (b,) means per problem.
        groups: (n,) the group of each option, counted from 0, such as its model; None: each its own.

    Raises Unidentified where there are fewer than two problems, ValueError where the shapes do not fit.
    """
    costs, credits = np.asarray(cost, float), np.asarray(quality, float)
    if costs.ndim != 2 or costs.shape != credits.shape:
        raise ValueError(f"cost and quality must be tables of one shape, not {costs.shape} and {credits.shape}")
    problems, options = costs.shape
    group = np.arange(options) if groups is None else np.asarray(groups)
    if group.shape != (options,):
        raise ValueError(f"there must be one group for each of the {options} options")
    limits = np.atleast_1d(np.asarray(budgets, float))
    prices = costs.mean(0)
    chosen = best_at(prices, credits.mean(0), limits)
    counts = np.zeros((len(limits), int(group.max()) + 1))
    lost: list[Floats] = []

    def largest(rows: NDArray[np.intp]) -> Floats:
        means = credits[rows].mean(0)
        picked = best_at(prices, means, limits)
        some = picked >= 0
        counts[np.flatnonzero(some), group[picked[some]]] += 1
        unseen = np.ones(problems, dtype=bool)
        unseen[rows] = False
        if unseen.any():
            fresh = credits[unseen].mean(0)
            lost.append(_means_of(fresh, chosen) - _means_of(fresh, picked))
        return _means_of(means, picked)

    # where nothing is affordable it is 0 by definition
    interval = bootstrap(largest, problems, seed=seed, bounds=(0.0, (chosen >= 0).astype(float)))
    resamples = counts.sum(-1, keepdims=True)
    quality = _means_of(credits.mean(0), chosen)
    return Best(
        budgets=limits,
        option=chosen,
        quality=quality,
        low=interval.low,
        high=interval.high,
        fresh=quality - np.mean(lost, axis=0),
        shares=np.divide(counts, resamples, out=np.zeros_like(counts), where=resamples > 0),
    )


def _means_of(means: Floats, options: NDArray[np.intp]) -> Floats:
    return np.where(options >= 0, means[np.maximum(options, 0)], 0.0)


def _finite(cost: ArrayLike, quality: ArrayLike) -> tuple[Floats, Floats]:
    costs, qualities = np.asarray(cost, float), np.asarray(quality, float)
    if costs.ndim != 1 or costs.shape != qualities.shape or not costs.size:
        raise ValueError(f"there must be as many costs as qualities, not {costs.shape} and {qualities.shape}")
    if not (np.isfinite(costs).all() and np.isfinite(qualities).all()):
        raise ValueError("costs and qualities must be finite")
    return costs, qualities
