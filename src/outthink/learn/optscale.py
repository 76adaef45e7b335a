"""Fits the prior of `optscale` to the scores of a pool, and says which scores are reached at all.

Source: the predictor of OptScale (see `strategies.parallel.optscale`). Differs: one prior for all questions, which
takes no training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from outthink.errors import UsageError
from outthink.learn.scores import scores_of
from outthink.records.pools import read_pool
from outthink.strategies.parallel.optscale import Prior, fit_prior


def fit(path: Path, *, verifier: str | None = None) -> tuple[Prior, tuple[float, float, float]]:
    """The prior, and the scores that a quarter, half and three quarters of the problems reach with all their samples.

    Args:
        verifier: whose scores in the pool to take; None: the only ones there are.

    Raises UsageError where the pool has no scores of it, or these are no probabilities.
    """
    pool, scorer = scores_of(read_pool(path), verifier)
    scores = [np.nanmean(problem.scores[scorer], axis=-1) for problem in pool.problems]
    try:
        prior = fit_prior(scores)
    except ValueError as cause:
        raise UsageError(f"{path}: {cause}.") from None
    best = np.quantile([np.nanmax(one) for one in scores], [0.75, 0.5, 0.25])
    return prior, (float(best[0]), float(best[1]), float(best[2]))
