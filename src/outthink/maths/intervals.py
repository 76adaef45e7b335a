"""Intervals of anything that is computed from problems: the cluster bootstrap, a problem with all its samples at once.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap" (percentile interval), from memory. Differs:
resamples for which the quantity does not exist are counted and not hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified

Numbers = NDArray[np.float64]

Estimate = tuple[float, float, float]
"""A value and its 95% interval; NaN where it cannot be told."""

TAIL = 0.025  # on each side of a 95% interval
RESAMPLES = 10_000  # of a mean, which are cheap
_MEASURES = 1000  # resamples of anything else that is computed from examples
_TOO_MANY = 0.2  # share of resamples without a value, above which an interval of the others would say too much


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Interval:
    """Bounds (...) of the quantity, and the share of resamples for which it did not exist."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    missing: float


def bootstrap(
    quantity: Callable[[NDArray[np.intp]], ArrayLike | None],
    problems: int,
    *,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> Interval:
    """The percentile interval of `quantity`, each of whose values may be an array of any one shape.

    Args:
        quantity: of the problems at the given positions, each position as often as it was drawn; None, or
            Unidentified raised, where these problems do not determine it.
        problems: how many there are; at least 2.
        level: in (0, 1).

    Raises Unidentified where it does not exist for more than a fifth of the resamples.
    """
    if problems < 2:
        raise Unidentified("An interval needs at least two problems.")
    rng = np.random.default_rng(seed)
    resampled: list[NDArray[np.float64]] = []
    for _ in range(resamples):
        try:
            value = quantity(rng.integers(0, problems, problems))
        except Unidentified:
            continue
        if value is not None:
            resampled.append(np.asarray(value, dtype=float))
    missing = 1 - len(resampled) / resamples
    if missing > _TOO_MANY:
        raise Unidentified(
            f"In {100 * missing:.0f}% of resamples of the {problems} problems the parameters do not exist; "
            "more problems, or more different budgets, are needed."
        )
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(low=np.asarray(low), high=np.asarray(high), missing=missing)


def mean_and_interval(values: Sequence[float], *, least: float = 0.0) -> tuple[float, float, float]:
    """The mean of values in [least, 1] with its 95% interval; NaN where there are none.

    Bootstrap means depend only on how often each value is drawn, so those counts are drawn, from a multinomial; this
    has exactly the distribution of drawing problems one by one.
    """
    n = len(values)
    if n == 0:
        return math.nan, math.nan, math.nan
    distinct, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    mean = float(np.mean(values))
    if len(distinct) == 1:
        unseen = 1 - TAIL ** (1 / n)
        return mean, max(mean - unseen, least), min(mean + unseen, 1.0)
    drawn = np.random.default_rng(0).multinomial(n, counts / n, size=RESAMPLES)
    low, high = np.quantile(drawn @ distinct / n, [TAIL, 1 - TAIL])
    return mean, float(low), float(high)


class Bootstrap:
    """The same resamples of problems for every measure, so that differences are paired."""

    def __init__(self, problems: int) -> None:
        rng = np.random.default_rng(0)
        self._counts = rng.multinomial(problems, np.full(problems, 1 / problems), size=_MEASURES).astype(float)

    def values(self, measure: Callable[[Numbers], Numbers], problems: NDArray[np.intp]) -> Numbers:
        """The measure of each resample (of weights (..., n)), for examples of these problems (n,)."""
        chunks = np.array_split(self._counts, max(1, _MEASURES * len(problems) // 2_000_000))
        return np.concatenate([measure(counts[:, problems]) for counts in chunks])

    def estimate(self, measure: Callable[[Numbers], Numbers], problems: NDArray[np.intp]) -> Estimate:
        """The measure and its interval; resamples in which it cannot be told do not count."""
        if not len(problems):
            return math.nan, math.nan, math.nan
        drawn = self.values(measure, problems)
        drawn = drawn[~np.isnan(drawn)]
        low, high = np.quantile(drawn, [TAIL, 1 - TAIL]) if len(drawn) else (math.nan, math.nan)
        return float(measure(np.ones(len(problems)))), float(low), float(high)
