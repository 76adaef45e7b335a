"""PassUntil: a success rate measured by sampling until r passes, so that small rates are measured as well as large.

Source: Hu et al. 2023, "Unlock Predictable Scaling from Emergent Abilities", summaries read, not the theorem; the
unbiased estimate is that of the negative binomial distribution. Differs: recorded samples take the place of new ones,
so a problem whose samples end before r passes is censored, and estimated from all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True, slots=True)
class PassRate:
    """The success rate of one problem.

    Args:
        rate: unbiased where r >= 2 passes were reached, else passes over samples.
        samples: how many were looked at; the last one passed unless `censored`.
        high: 95% upper bound where nothing passed (the rule of three); None elsewhere.
    """

    rate: float
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
        return PassRate(rate=(r - 1) / (k - 1), samples=k, passes=r, censored=False)
    c, n = int(passed.sum()), len(passed)
    return PassRate(rate=c / n, samples=n, passes=c, censored=True, high=min(1.0, 3 / n) if c == 0 else None)
