"""Coverage: how often some sample of k is right, and the law by which that grows.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (the unbiased estimator, read in its code);
Brown et al. 2024, "Large Language Monkeys" (coverage over k). Differs: several problems at once; parameters,
predictions and the number of samples that a coverage needs have intervals, from a bootstrap over problems. Beyond what
was recorded they also hold what the law missed when it was fitted to half of the range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.maths.intervals import Interval, bootstrap

_POINTS = 40  # at most so many k are fitted, as in the paper
_STEPS = 200  # of a fit, at most; ten are usual
_STILL = 1e-10  # a step that is shorter changes nothing
_FARTHEST = 1e6  # times the largest k: where no interval of coverage has reached, none is looked for
_TESTED = 3  # different k that half of the range must have, so that a law can be fitted to it
_LOST = 0.2  # share of resamples whose half has no law, above which none is known
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


def union_coverage(samples: ArrayLike, correct: ArrayLike, draws: ArrayLike) -> NDArray[np.float64]:
    """P(some of all draws is right) (...): 1 - prod_T C(n_T - c_T, k_T) / C(n_T, k_T), unbiased.

    The estimate of one pool must not be used on a mixed one: samples of several models or temperatures are not alike.

    Args:
        samples, correct: (..., m) samples recorded at each setting, and how many of them are right.
        draws: (m,) samples drawn at each; at temperature 0 at most 1.
    """
    n, c = np.broadcast_arrays(np.asarray(samples), np.asarray(correct))
    missed = np.ones(n.shape[:-1])
    for place, k in enumerate(np.broadcast_to(np.asarray(draws), n.shape[-1:]).tolist()):
        if k:
            missed = missed * (1 - pass_at_k(n[..., place], c[..., place], k))
    return 1 - missed


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
    a, b = _fitted(k, c[None])[0].tolist()
    if math.isnan(a):
        return None
    law = PowerLaw(a=a, b=b, error=0.0, least=int(k.min()), most=int(k.max()))
    return replace(law, error=float(np.abs(law.at(k) - c).max()))


def _fitted(k: NDArray[np.float64], curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """a and b (r, 2) of curves (r, m) at k (m,), all at once, by Levenberg and Marquardt; NaN where there is no law."""
    inside = (curves > 0) & (curves < 1)
    x = np.log(k)
    some = inside.sum(-1) > 1
    y = np.log(-np.log(np.where(inside, curves, 0.5)))
    weight = inside / np.maximum(inside.sum(-1, keepdims=True), 1)
    middle, height = (weight * x).sum(-1), (weight * y).sum(-1)
    spread = (weight * (x - middle[:, None]) ** 2).sum(-1)
    some &= spread > 0
    b = ((weight * (x - middle[:, None])) * (y - height[:, None])).sum(-1) / np.where(some, spread, 1.0)
    log_a = height - b * middle
    damp, best = np.full(len(curves), 1e-3), np.full(len(curves), np.inf)

    def law(log_a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        power = np.exp(np.clip(log_a[:, None] + b[:, None] * x, -700, 700))
        told = np.exp(-power)
        return told, -told * power  # and its slope by log a

    for _ in range(_STEPS):
        told, slope = law(log_a, b)
        rest = curves - told
        best = (rest**2).sum(-1)
        by_b = slope * x
        aa, ab, bb = (slope**2).sum(-1), (slope * by_b).sum(-1), (by_b**2).sum(-1)
        ga, gb = (slope * rest).sum(-1), (by_b * rest).sum(-1)
        aa, bb = aa * (1 + damp), bb * (1 + damp)
        scale = aa * bb - ab**2
        usable = scale > 0
        scale = np.where(usable, scale, 1.0)
        da, db = (
            np.where(usable, (bb * ga - ab * gb) / scale, 0.0),
            np.where(usable, (aa * gb - ab * ga) / scale, 0.0),
        )
        better = ((curves - law(log_a + da, b + db)[0]) ** 2).sum(-1) <= best
        log_a, b = np.where(better, log_a + da, log_a), np.where(better, b + db, b)
        damp = np.where(better, damp / 10, damp * 10)
        if np.all(np.where(some & better, np.hypot(da, db), 0.0) < _STILL) and better[some].all():
            break
    return np.where(some[:, None], np.stack([-np.exp(log_a), b], axis=-1), np.nan)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CoverageLaw:
    """The power law of a pool, and what is known of it when other problems had been drawn.

    The intervals hold what the choice of problems leaves open, if the law is right. Beyond `law.most` they also hold
    what it leaves open whether it is: what the law of half the range missed at the whole of it, it may miss again at
    each further doubling. Where there are too few samples to see that, nothing is said there but that coverage does
    not fall.

    Args:
        law: fitted to the mean of pass@k over problems.
        parameters: interval of (a, b), bounds of shape (2,).
        drift: coverage at `law.most` as told by the law of k up to half of it, less what was measured; NaN where half
            of the range has fewer than three k.
        drift_interval: of it.
        draws: (resamples, 3), a, b and the drift of each resample; what the other intervals are read from.
        level: of all intervals.
    """

    law: PowerLaw
    parameters: Interval
    drift: float
    drift_interval: Interval
    draws: NDArray[np.float64] = field(repr=False)
    level: float

    @property
    def misses(self) -> bool:
        """Whether half of the range would have misled by more than chance."""
        return bool(self.drift_interval.low > 0 or self.drift_interval.high < 0)

    def at(self, k: ArrayLike) -> NDArray[np.float64]:
        """Coverage (...) at k (...)."""
        return self.law.at(k)

    def at_interval(self, k: ArrayLike) -> Interval:
        """Interval (...) of the coverage at k (...)."""
        ks = np.asarray(k, dtype=float)
        a, b, drift = self.draws.T.reshape(3, -1, *(1,) * np.ndim(k))
        told = self._interval(np.exp(a * ks**b))
        beyond = np.log2(np.maximum(ks / self.law.most, 1.0))
        if math.isnan(self.drift):
            least = self._interval(np.exp(a * np.minimum(ks, self.law.most) ** b)).low
            return replace(told, low=least, high=np.where(beyond > 0, 1.0, told.high))
        moved = self._interval(np.clip(np.exp(a * ks**b) - drift * beyond, 0.0, 1.0))
        return replace(told, low=np.minimum(told.low, moved.low), high=np.maximum(told.high, moved.high))

    def samples(self, coverage: float) -> float:
        """How many samples reach `coverage`, in (0, 1); infinite where it does not grow. See `law.far`."""
        return self.law.samples(coverage)

    def samples_interval(self, coverage: float) -> Interval:
        """Interval of that number, for a coverage in (0, 1); its bounds may be infinite."""
        if not 0 < coverage < 1:
            raise ValueError(f"a coverage is above 0 and below 1, not {coverage}")
        told = self._interval(_needed(coverage, *self.draws.T[:2]))
        ks = self.law.most * np.geomspace(1.0, _FARTHEST, 400)
        ends = self.at_interval(ks)
        beyond = [
            float(ks[reached.argmax()]) if (reached := end >= coverage).any() else np.inf
            for end in (ends.high, ends.low)
        ]
        return replace(
            told,
            low=np.asarray(min(float(told.low), beyond[0])),
            high=np.asarray(max(float(told.high), beyond[1]) if told.high > self.law.most else told.high),
        )

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
    half = ks <= largest // 2
    tested = half.sum() >= _TESTED

    def refitted(means: NDArray[np.float64]) -> NDArray[np.float64]:
        """a, b and the drift (r, 3) of mean curves (r, m)."""
        missed = np.full(len(means), np.nan)
        if tested:
            a, b = _fitted(ks[half].astype(float), means[:, half]).T
            missed = np.exp(a * float(largest) ** b) - means[:, -1]
        return np.concatenate([_fitted(ks.astype(float), means), missed[:, None]], axis=1)

    resampled: list[NDArray[np.float64]] = []

    def drawn(problems: NDArray[np.intp]) -> NDArray[np.float64] | None:
        mean: NDArray[np.float64] = curves[problems].mean(0)
        if ((mean > 0) & (mean < 1)).sum() < 2:
            return None
        resampled.append(mean)
        return mean

    missing = bootstrap(drawn, len(n), level=level, resamples=resamples, seed=seed).missing
    draws = refitted(np.array(resampled))
    drift = float(refitted(curves.mean(0)[None])[0, 2])
    known = draws[:, 2][~np.isnan(draws[:, 2])]
    if len(known) < (1 - _LOST) * len(draws):
        drift, known = math.nan, np.array([np.nan])
    draws[:, 2] = np.where(np.isnan(draws[:, 2]), np.median(known), draws[:, 2])
    tails = [(1 - level) / 2, (1 + level) / 2]
    ends, moved = np.quantile(draws[:, :2], tails, axis=0), np.quantile(known, tails)
    return CoverageLaw(
        law=law,
        parameters=Interval(low=ends[0], high=ends[1], missing=missing),
        drift=drift,
        drift_interval=Interval(low=moved[0], high=moved[1], missing=1 - len(known) / len(draws)),
        draws=draws,
        level=level,
    )
