"""PassUntil: a success rate measured by sampling until r passes, so that small rates are measured as well as large.

Source: Hu et al. 2023, "Unlock Predictable Scaling from Emergent Abilities", summaries read, not the theorem; the
unbiased estimate is that of the negative binomial distribution. Differs: there is a largest number of samples, and a
problem that reaches it before r passes is censored, and estimated from all of them. `outthink pool --until` draws so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True, slots=True)
class PassRate:
    """The success rate of one problem.

    Args:
        rate: (r - 1) / (K - 1) where the r-th pass was sample K, else passes over samples. It is the chance, given the
            outcome, that the first sample has passed; so it is unbiased over all outcomes together, and neither half of
            it is alone.
        likeliest: r / K, else passes over samples: the maximum of the likelihood, too high on average.
        samples: how many were looked at; the last one passed unless `censored`.
        high: 95% upper bound where nothing passed (the rule of three); None elsewhere.
    """

    rate: float
    likeliest: float
    samples: int
    passes: int
    censored: bool
    high: float | None = None


def pass_until(correct: ArrayLike, r: int = 3) -> PassRate:
    """The rate from samples (n,) in the order in which they were drawn, looked at until r of them have passed.

    Raises ValueError where r is below 2 (one pass has no stable unbiased estimate) or there are no samples.
    """
    passed = np.asarray(correct, dtype=bool)
    if r < 2:
        raise ValueError(f"r must be at least 2, not {r}")
    if passed.size == 0:
        raise ValueError("there are no samples")
    ends = np.flatnonzero(np.cumsum(passed) == r)
    if len(ends):
        k = int(ends[0]) + 1
        return PassRate(rate=(r - 1) / (k - 1), likeliest=r / k, samples=k, passes=r, censored=False)
    c, n = int(passed.sum()), len(passed)
    high = min(1.0, 3 / n) if c == 0 else None
    return PassRate(rate=c / n, likeliest=c / n, samples=n, passes=c, censored=True, high=high)
