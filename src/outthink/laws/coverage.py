"""Coverage: how often some sample of k is right, and the law by which that grows.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (the unbiased estimator, read in its code);
Brown et al. 2024, "Large Language Monkeys" (coverage over k). Differs: several problems at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray


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
    found = np.empty(n.shape)
    for of, right in {*zip(n.flat, c.flat, strict=True)}:
        left = np.arange(of - right + 1, of + 1)
        found[(n == of) & (c == right)] = 1.0 if of - right < k else -np.expm1(np.log1p(-k / left).sum())
    return found


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
        return math.inf if self.b >= 0 else (math.log(coverage) / self.a) ** (1 / self.b)


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
    fitted = least_squares(lambda of: np.exp(of[0] * k ** of[1]) - c, (-math.exp(height), slope))
    a, b = (float(value) for value in fitted.x)
    law = PowerLaw(a=a, b=b, error=0.0, least=int(k.min()), most=int(k.max()))
    return replace(law, error=float(np.abs(law.at(k) - c).max()))
