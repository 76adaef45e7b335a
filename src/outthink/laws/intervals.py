"""Intervals of anything that is computed from problems: the cluster bootstrap, a problem with all its samples at once.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap" (percentile interval), from memory. Differs:
resamples for which the quantity does not exist are counted and not hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified

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
    found: list[NDArray[np.float64]] = []
    for _ in range(resamples):
        try:
            value = quantity(rng.integers(0, problems, problems))
        except Unidentified:
            continue
        if value is not None:
            found.append(np.asarray(value, dtype=float))
    missing = 1 - len(found) / resamples
    if missing > _TOO_MANY:
        raise Unidentified(
            f"In {100 * missing:.0f}% of resamples of the {problems} problems the parameters do not exist; "
            "more problems, or more different budgets, are needed."
        )
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(low=np.asarray(low), high=np.asarray(high), missing=missing)
