"""Intervals of anything that is computed from problems: the cluster bootstrap, a problem with all its samples at once.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap" (percentile interval); Gaffke 2005 and Clopper and
Pearson 1934 where nearly all problems are alike; from memory. Differs: resamples for which the quantity does not exist
are counted and not hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.rng import generator

Numbers = NDArray[np.float64]

Estimate = tuple[float, float, float]
"""A value and its 95% interval; NaN where it cannot be told."""

TAIL = 0.025  # on each side of a 95% interval
_SAME = 1e-12  # relative; what differs by less is equal
RESAMPLES = 10_000  # of a mean, which are cheap
_MEASURES = 1000  # resamples of anything else that is computed from examples
_DISTINCT = 16  # values, up to which counting them is faster than drawing problems
_DRAWN = 10_000_000  # problems for the resamples of one mean
_AT_ONCE = 1_000_000  # of them
_FEW = 10  # problems that are not as most are, from which on resamples are as good as new problems
_PROBLEMS = 20  # the same for problems in all
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
    bounds: tuple[ArrayLike, ArrayLike] | None = None,
) -> Interval:
    """The percentile interval of `quantity`, each of whose values may be an array of any one shape.

    Means have `means`, which is better where few problems differ.

    Args:
        quantity: of the problems at the given positions, each position as often as it was drawn; None, or
            Unidentified raised, where these problems do not determine it.
        problems: how many there are; at least 2.
        level: in (0, 1).
        bounds: least and largest value that it can have. On a side on which all problems are alike, so that resamples
            show nothing, the interval then reaches as far as the largest share of problems that may be unlike them all
            (`unseen`) can move it.

    Raises Unidentified where it does not exist for more than a fifth of the resamples.
    """
    if problems < 2:
        raise Unidentified("An interval needs at least two problems.")
    rng = generator(seed)
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
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    if bounds is not None:
        low, high = _beyond(quantity(np.arange(problems)), low, high, bounds, unseen(problems, tail))
    return Interval(low=np.asarray(low), high=np.asarray(high), missing=missing)


def _beyond(
    value: ArrayLike | None, low: Numbers, high: Numbers, bounds: tuple[ArrayLike, ArrayLike], share: float
) -> tuple[Numbers, Numbers]:
    """The interval, as far as `share` reaches from the value to a bound on the sides where it does not reach at all."""
    if value is None:
        return low, high
    middle, (least, most) = np.asarray(value, dtype=float), (np.asarray(bound, dtype=float) for bound in bounds)
    same = _SAME * np.maximum(1.0, np.abs(middle))
    low = np.where(middle - low <= same, middle - (middle - least) * share, low)
    return low, np.where(high - middle <= same, middle + (most - middle) * share, high)


def farther(
    interval: Interval, missed: Interval, times: ArrayLike, *, least: float = 0.0, most: float = 1.0
) -> Interval:
    """The interval (...) of what a law says at so many times (...) the largest that it was fitted to, kept in a range.

    What half of the range has missed at the whole of it (told less measured, as its own interval says), the law may
    miss again at each further doubling; up to the largest nothing is added.
    """
    doublings = np.log2(np.maximum(np.asarray(times, float), 1.0))
    low = np.clip(interval.low - np.maximum(missed.high, 0.0) * doublings, least, most)
    high = np.clip(interval.high + np.maximum(-missed.low, 0.0) * doublings, least, most)
    return Interval(low=low, high=high, missing=interval.missing)


def mean_and_interval(
    values: ArrayLike, *, least: float = 0.0, most: float = 1.0, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """The mean of values (n,) in [least, most] with its interval; see `means`. NaN where there are none."""
    row = np.asarray(values, dtype=float)
    if len(row) == 0:
        return math.nan, math.nan, math.nan
    mean, interval = means(row, least=least, most=most, level=level, seed=seed)
    return float(mean), float(interval.low), float(interval.high)


def means(
    table: ArrayLike, *, least: ArrayLike = 0.0, most: ArrayLike = 1.0, level: float = 0.95, seed: int = 0
) -> tuple[Numbers, Interval]:
    """Means (...) over problems of a table (problems, ...) of values in [least, most], and their interval.

    It is the percentile interval of the bootstrap where at least ten problems are not as most of them are. Where there
    are fewer, or fewer than twenty problems, resamples cannot show what a few more would do, and would say that what
    never happened cannot happen. There it is Gaffke's interval (2005): random weights on the problems and on one more
    at the bound. Of what happens or not it is that of Clopper and Pearson, exact from 0 to all.

    Args:
        least, most: bounds that broadcast with a row; infinite where there is none, and then resamples must do.
        level: in (0, 1).

    Raises ValueError where there is no problem.
    """
    values = np.asarray(table, dtype=float)
    if len(values) == 0:
        raise ValueError("there are no problems")
    rows, tail = values.reshape(len(values), -1), (1 - level) / 2
    ends = [np.broadcast_to(np.asarray(bound, dtype=float), values.shape[1:]).ravel() for bound in (least, most)]
    if rows.shape[1] == 1:
        interval = np.array([_of_mean(rows[:, 0], float(ends[0][0]), float(ends[1][0]), tail, seed)]).T
    else:  # a curve: the same resamples for all of it
        uniform = np.full(len(rows), 1 / len(rows))
        drawn = generator(seed).multinomial(len(rows), uniform, size=_MEASURES) @ rows / len(rows)
        interval = np.quantile(drawn, [tail, 1 - tail], axis=0)
        for place, (low, high) in enumerate(zip(*ends, strict=True)):
            if _alike(np.unique(rows[:, place], return_counts=True)[1], low, high):
                interval[:, place] = _of_mean(rows[:, place], float(low), float(high), tail, seed)
    low, high = interval.reshape(2, *values.shape[1:])
    return np.asarray(values.mean(0)), Interval(low=np.asarray(low), high=np.asarray(high), missing=0.0)


def _alike(counts: NDArray[np.intp], least: float, most: float) -> bool:
    """Whether so few problems are not as most are that resamples say too little, and bounds say more."""
    n = counts.sum()
    return bool((n < _PROBLEMS or n - counts.max() < _FEW) and math.isfinite(most - least))


def _of_mean(values: Numbers, least: float, most: float, tail: float, seed: int) -> tuple[float, float]:
    """Bounds of the mean of one row (n,)."""
    n, mean = len(values), float(values.mean())
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1 and math.isfinite(most - least):
        share = unseen(n, tail)
        return mean - (mean - least) * share, mean + (most - mean) * share
    rng = generator(seed)
    if _alike(
        counts, least, most
    ):  # the weight of a value is that of all problems with it; only sums of weights matter
        weights = rng.standard_gamma(np.append(counts, 1).astype(float), size=(RESAMPLES, len(counts) + 1))
        weights /= weights.sum(1, keepdims=True)
        below = weights[:, :-1] @ distinct
        low, high = (
            np.quantile(below + weights[:, -1] * least, tail),
            np.quantile(below + weights[:, -1] * most, 1 - tail),
        )
        return min(float(low), mean), max(float(high), mean)
    low, high = np.quantile(_resampled_means(values, distinct, counts, rng), [tail, 1 - tail])
    return float(low), float(high)


def _resampled_means(values: Numbers, distinct: Numbers, counts: NDArray[np.intp], rng: np.random.Generator) -> Numbers:
    """Bootstrap means of values (n,), of which there are some distinct ones with their counts."""
    n = len(values)
    if len(distinct) <= _DISTINCT:  # how often each value is drawn is all that counts
        return np.asarray(rng.multinomial(n, counts / n, size=RESAMPLES) @ distinct / n)
    resamples = int(np.clip(_DRAWN // n, _MEASURES, RESAMPLES))
    sizes = np.diff(np.append(np.arange(0, resamples, max(1, _AT_ONCE // n)), resamples))
    return np.concatenate([values[rng.integers(0, n, (size, n))].mean(1) for size in sizes])


def unseen(problems: int, tail: float = TAIL) -> float:
    """The share of problems of a kind of which none was among so many, as large as it may be but for chance `tail`.

    Where 3 / n is the rule of three, for a tail of 5%. 1 without problems.
    """
    return float(1 - tail ** (1 / problems)) if problems else 1.0


class Bootstrap:
    """The same resamples of problems for every measure, so that differences are paired."""

    def __init__(self, problems: int, *, level: float = 0.95) -> None:
        rng = np.random.default_rng(0)
        self._tail = (1 - level) / 2
        self._counts = rng.multinomial(problems, np.full(problems, 1 / problems), size=_MEASURES).astype(float)

    def values(self, measure: Callable[[Numbers], Numbers], problems: NDArray[np.intp]) -> Numbers:
        """The measure of each resample (of weights (..., n)), for examples of these problems (n,)."""
        chunks = np.array_split(self._counts, max(1, _MEASURES * len(problems) // 2_000_000))
        return np.concatenate([measure(counts[:, problems]) for counts in chunks])

    def estimate(
        self,
        measure: Callable[[Numbers], Numbers],
        problems: NDArray[np.intp],
        kinds: Sequence[NDArray[np.bool_]] = (),
    ) -> Estimate:
        """A measure in [0, 1] and its interval; resamples in which it cannot be told do not count.

        Where all problems are alike, resamples show nothing; then it reaches as far as `unseen` problems can move it.

        Args:
            problems: (n,) of each example.
            kinds: masks (n,) of examples that are compared with each other, such as right and wrong ones: a problem
                unlike the others may be among either. None: each example counts by itself.
        """
        value = float(measure(np.ones(len(problems)))) if len(problems) else math.nan
        drawn = self.values(measure, problems) if len(problems) else np.empty(0)
        drawn = drawn[~np.isnan(drawn)]
        if not len(drawn) or math.isnan(value):
            return value, math.nan, math.nan
        parts = [problems[kind] for kind in kinds] or [problems]
        alike = math.prod(1 - unseen(len(np.unique(part)), self._tail) for part in parts)
        ends = np.quantile(drawn, [self._tail, 1 - self._tail])
        low, high = _beyond(value, ends[0], ends[1], (0.0, 1.0), 1 - alike)
        return value, float(low), float(high)


def ratio(part: Numbers, whole: Numbers) -> Numbers:
    """`part` over `whole`, NaN where `whole` is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0))
