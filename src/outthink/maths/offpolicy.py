"""What another choice of actions would have brought, from actions that were drawn with known chances.

Source: Horvitz and Thompson 1952 (inverse propensity), Dudik, Langford and Li 2011 (doubly robust), Kish 1965
(effective sample size), from memory. Differs: nothing; a clipped weight is min(weight, clip), whose bias is towards
the prediction where there is one and towards 0 where there is none.

All functions take arrays (requests,) and return arrays (requests,) whose mean is the estimate, so that intervals are
those of a mean over requests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def propensity_weights(wanted: ArrayLike, logged: ArrayLike, clip: float = np.inf) -> Floats:
    """How often each request counts: the chance of its action under the wanted policy over that under the logged one.

    Args:
        wanted: in [0, 1]. logged: in (0, 1].
        clip: the largest weight; at least 1.

    Raises ValueError where a logged chance is not above 0, or the clip is below 1.
    """
    chances = np.asarray(logged, dtype=float)
    if not (chances > 0).all() or not (chances <= 1).all():
        raise ValueError("an action that was taken has a chance in (0, 1]")
    if not clip >= 1:
        raise ValueError(f"clip must be at least 1, not {clip}")
    return np.asarray(np.minimum(np.asarray(wanted, dtype=float) / chances, clip))


def inverse_propensity(rewards: ArrayLike, weights: ArrayLike) -> Floats:
    """Weighted rewards; without clipping their mean is unbiased, whatever rewards depend on."""
    return np.asarray(np.asarray(weights, dtype=float) * np.asarray(rewards, dtype=float))


def doubly_robust(rewards: ArrayLike, weights: ArrayLike, taken: ArrayLike, wanted: ArrayLike) -> Floats:
    """Predicted values, corrected by what was seen: unbiased where either the chances or the predictions are right.

    Args:
        rewards: seen under the action that was taken.
        taken: predicted reward of that action, by what does not depend on this request's reward.
        wanted: predicted mean reward under the wanted policy.
    """
    predicted = np.asarray(taken, dtype=float)
    return np.asarray(wanted, dtype=float) + inverse_propensity(np.asarray(rewards, dtype=float) - predicted, weights)


def effective_size(weights: ArrayLike) -> float:
    """As many equally weighted requests tell as much: (sum of weights)^2 / sum of squares; 0 without any weight."""
    given = np.asarray(weights, dtype=float)
    squares = float(np.sum(given**2))
    return float(np.sum(given)) ** 2 / squares if squares > 0 else 0.0
