"""Coverage: how often some sample of k is right, and the law by which that grows.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (the unbiased estimator, read in its code);
Brown et al. 2024, "Large Language Monkeys" (coverage over k). Differs: several problems at once; parameters,
predictions and the number of samples that a coverage needs have intervals, from a bootstrap over problems.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.maths.intervals import Interval, bootstrap

_POINTS = 40  # at most so many k are fitted, as in the paper
_DECADE = 10  # a law says nothing beyond so many times the largest k that was fitted


def pass_at_k(samples: ArrayLike, correct: ArrayLike, k: int) -> NDArray[np.float64]:
    """Unbiased estimate, for each problem, of the probability that some of k new samples is right.

    It is the share of all subsets of k samples that hold a right one: 1 - C(n - c, k) / C(n, k). Average the values
    over problems; never put an average of c into the formula.

    Args:
        samples, correct: independent samples n of each problem, and how many of them, c, are right; same shape.
        k: at least 1 and at most the smallest n; close to n the estimate varies much.
    """
    n, c = np.broadcast_arrays(np.asarray(samples), np.asarray(correct))
    if not 1 <= k <= n.min(initial=np.iinfo(np.int64).max):
        raise ValueError(f"k must be from 1 to the number of samples, not {k}")
    if np.any(c < 0) or np.any(c > n):
        raise ValueError("each problem has from 0 to n right samples")
    coverage = np.empty(n.shape)
    for drawn, right in {*zip(n.flat, c.flat, strict=True)}:
        left = np.arange(drawn - right + 1, drawn + 1)
        same = (n == drawn) & (c == right)
        coverage[same] = 1.0 if drawn - right < k else -np.expm1(np.log1p(-k / left).sum())
    return coverage


def all_right_at_k(samples: ArrayLike, correct: ArrayLike, k: int) -> NDArray[np.float64]:
    """Unbiased estimate of the probability that all of k new samples are right (worst-of-k); arguments as above."""
    n, c = np.broadcast_arrays(np.asarray(samples), np.asarray(correct))
    return np.asarray(1.0 - pass_at_k(n, n - c, k))


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerLaw:
    """coverage(k) = exp(a * k**b), with a < 0 and b < 0 where coverage grows.

    Args:
        error: largest absolute difference from the points that were fitted.
        least, most: the k that were fitted; beyond ten times `most` nothing is known.
    """

    a: float
    b: float
    error: float
    least: int
    most: int

    def at(self, k: ArrayLike) -> NDArray[np.float64]:
        """Coverage at k."""
        return np.asarray(np.exp(self.a * np.asarray(k, dtype=float) ** self.b))

    def samples(self, coverage: float) -> float:
        """How many samples reach `coverage`, in (0, 1); infinite where it does not grow."""
        if not 0 < coverage < 1:
            raise ValueError(f"a coverage is above 0 and below 1, not {coverage}")
        return float(_needed(coverage, np.asarray(self.a), np.asarray(self.b)))

    def far(self, k: ArrayLike) -> NDArray[np.bool_]:
        """Whether k is more than ten times the largest that was fitted: say so beside what the law predicts there."""
        return np.asarray(np.asarray(k, dtype=float) > _DECADE * self.most)


def _needed(coverage: float, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", divide="ignore"):  # where coverage hardly grows, the number is too large to write
        return np.where(b < 0, np.exp(np.log(np.log(coverage) / a) / b), np.inf)


def fit_power_law(ks: ArrayLike, coverage: ArrayLike) -> PowerLaw | None:
    """The exponentiated power law of Large Language Monkeys, by least squares on coverage itself.

    Begun from the line through log(-log coverage) over log k. None where fewer than two points lie strictly between
    0 and 1: then the law has nothing to hold on to.
    """
    k, c = np.asarray(ks, dtype=float), np.asarray(coverage, dtype=float)
    inside = (c > 0) & (c < 1)
    if len(np.unique(k[inside])) < 2:
        return None
    from scipy.optimize import least_squares  # here, because importing it is slow

    slope, height = np.polyfit(np.log(k[inside]), np.log(-np.log(c[inside])), 1)
    fitted = least_squares(lambda ab: np.exp(ab[0] * k ** ab[1]) - c, (-math.exp(height), slope))
    a, b = (float(value) for value in fitted.x)
    law = PowerLaw(a=a, b=b, error=0.0, least=int(k.min()), most=int(k.max()))
    return replace(law, error=float(np.abs(law.at(k) - c).max()))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CoverageLaw:
    """The power law of a pool, and what is known of it when other problems had been drawn.

    The intervals hold what the choice of problems leaves open, if the law is right. A handful of problems that are
    nearly never solved decide the exponent, and no interval can see those that were never solved at all.

    Args:
        law: fitted to the mean of pass@k over problems.
        parameters: interval of (a, b), bounds of shape (2,).
        draws: (resamples, 2), a and b of each resample; what the other intervals are read from.
        level: of all intervals.
    """

    law: PowerLaw
    parameters: Interval
    draws: NDArray[np.float64] = field(repr=False)
    level: float

    def at(self, k: ArrayLike) -> NDArray[np.float64]:
        """Coverage (...) at k (...)."""
        return self.law.at(k)

    def at_interval(self, k: ArrayLike) -> Interval:
        """Interval (...) of the coverage at k (...)."""
        a, b = self.draws.T.reshape(2, -1, *(1,) * np.ndim(k))
        return self._interval(np.exp(a * np.asarray(k, dtype=float) ** b))

    def samples(self, coverage: float) -> float:
        """How many samples reach `coverage`, in (0, 1); infinite where it does not grow. See `law.far`."""
        return self.law.samples(coverage)

    def samples_interval(self, coverage: float) -> Interval:
        """Interval of that number, for a coverage in (0, 1); its bounds may be infinite."""
        if not 0 < coverage < 1:
            raise ValueError(f"a coverage is above 0 and below 1, not {coverage}")
        return self._interval(_needed(coverage, *self.draws.T))

    def _interval(self, values: NDArray[np.float64]) -> Interval:
        # no interpolation, because values may be infinite
        tails = [(1 - self.level) / 2, (1 + self.level) / 2]
        low, high = np.quantile(values, tails, axis=0, method="inverted_cdf")
        return Interval(low=np.asarray(low), high=np.asarray(high), missing=self.parameters.missing)


def coverage_law(
    samples: ArrayLike,
    correct: ArrayLike,
    *,
    most: int | None = None,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> CoverageLaw:
    """The power law of problems, each with its own number of samples.

    Args:
        samples, correct: (problems,) independent samples of each problem, and how many of them are right.
        most: largest k that is fitted, at most the smallest number of samples (the default). A smaller one leaves the
            rest to test the law on; pass@k close to the number of samples varies much.

    Raises Unidentified where fewer than three different k can be fitted, where coverage is 0 or 1 at all of them but
    one, or where this is so for more than a fifth of the resamples.
    """
    n, c = np.broadcast_arrays(np.atleast_1d(samples), np.atleast_1d(correct))
    if n.ndim != 1 or n.size == 0:
        raise ValueError("coverage_law needs one number of samples and of right ones for each problem")
    largest = int(n.min()) if most is None else most
    if largest > n.min():
        raise ValueError(f"most must be at most the number of samples, not {most}")
    if largest < 3:
        raise Unidentified(
            "A power law needs coverage at three k at least: draw three samples or more of each problem."
        )
    ks = np.unique(np.rint(np.logspace(0, math.log10(largest), _POINTS)).astype(int))
    curves = np.stack([pass_at_k(n, c, int(k)) for k in ks], axis=-1)
    law = fit_power_law(ks, curves.mean(0))
    if law is None:
        raise Unidentified(
            "A power law needs coverage strictly between 0 and 1 at two k at least; these problems are too hard or too "
            "easy."
        )
    draws: list[tuple[float, float]] = []

    def refit(problems: NDArray[np.intp]) -> tuple[float, float] | None:
        drawn = fit_power_law(ks, curves[problems].mean(0))
        if drawn is None:
            return None
        draws.append((drawn.a, drawn.b))
        return draws[-1]

    parameters = bootstrap(refit, len(n), level=level, resamples=resamples, seed=seed)
    return CoverageLaw(law=law, parameters=parameters, draws=np.array(draws), level=level)
