"""Conformal take-over: where a draft's score is rare among stored scores, a dearer model takes over.

Scores say how badly a draft conforms: larger is worse. What is controlled is how often the dear model is called, not
how often the answer is wrong: a draft with a good score can be wrong. And the control holds only where new scores are
exchangeable with the stored ones (same draft model, number of samples, sampling, prompt, and kind of questions).

Source: ATTS: Asynchronous Test-Time Scaling via Conformal Prediction (2025); the authors' released code, a note on the
paper and the abstract were read, not the paper. The p-value that breaks ties at random: Vovk, Gammerman and Shafer,
Algorithmic Learning in a Random World (2005), from memory. Differs: a missing score takes over, everywhere (the code
lets it pass in one place and ranks it last in another).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def p_value(scores: ArrayLike, calibration: ArrayLike, u: ArrayLike | None = None) -> Floats:
    """Conformal p-values (...): how rare it is among exchangeable calibration scores (..., n) to be as bad as these.

    Args:
        u: uniform random numbers in (0, 1], one per score, that break ties: then P(p <= alpha) is exactly alpha. None:
            ties count against the take-over, so P(p <= alpha) <= alpha, by much where scores have few values.

    (1 + #{calibration >= score}) / (n + 1), or with u (#{calibration > score} + u (1 + #{calibration = score})) over
    n + 1. NaN (missing) is the worst of all. Without calibration scores it is 1, or u.
    """
    scores, stored = _worst_where_missing(scores), _worst_where_missing(calibration)
    worse = (stored > scores[..., None]).sum(-1)
    equal = 1 + (stored == scores[..., None]).sum(-1)
    return np.asarray((worse + equal * (1.0 if u is None else np.asarray(u, float))) / (stored.shape[-1] + 1))


def takes_over(
    scores: ArrayLike, calibration: ArrayLike, alpha: float, u: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """Whether the dear model takes over (...): where p <= alpha, and wherever the score is missing (NaN).

    The rate is at most alpha, or about the share of missing scores where that is larger. At alpha 0 only missing scores
    are taken over, at alpha 1 everything is.

    Args:
        alpha: in [0, 1].
        u: as for `p_value`.
    """
    _need_share(alpha, "alpha")
    return np.asarray((p_value(scores, calibration, u) <= alpha) | np.isnan(np.asarray(scores, float)))


def threshold(calibration: ArrayLike, rate: float) -> Floats:
    """The score (...) above which the dear model takes over, so that it is called at a rate of at most `rate`.

    It is the decision of `takes_over` without u as one number, minus infinity where everything is taken over and
    infinity where nothing is.

    Args:
        calibration: (..., n).
        rate: in [0, 1].
    """
    _need_share(rate, "rate")
    stored = _worst_where_missing(calibration)
    n = stored.shape[-1]
    allowed = int((np.arange(1, n + 2) / (n + 1) <= rate).sum())  # scores no better than a score that is taken over
    end = np.full((*stored.shape[:-1], 1), np.inf)
    return np.asarray(np.concatenate([end, -np.sort(-stored), -end], axis=-1)[..., allowed])


def _worst_where_missing(scores: ArrayLike) -> Floats:
    scores = np.asarray(scores, float)
    return np.where(np.isnan(scores), math.inf, scores)


def _need_share(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value}")
