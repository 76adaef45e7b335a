"""A mixed model of scores in groups: what a further score of each group, or of a new one, may be.

y_ij = a_j + e_ij, a_j ~ N(mu, s_a), e_ij ~ N(0, s_y), with the priors mu ~ N(0.5, 0.2), s_a ~ HalfNormal(0.2) and
s_y ~ HalfNormal(0.3).

Source: variant M of AB-MCTS, Wider or Deeper? (arXiv 2503.04412), read in its released code, treequest. Differs: drawn
from the exact posterior over a grid of 24 x 24 quantiles of (s_a, s_y), and not by MCMC: given both, all is normal.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_MEAN, _SPREAD, _BETWEEN, _WITHIN = 0.5, 0.2, 0.2, 0.3
_QUANTILES = 24


def grid_posterior(groups: ArrayLike) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Weights (g,) of the points of the grid, s_a and s_y (g,) there, and mean and variance (g,) of mu there.

    Args:
        groups: (k, n) scores, NaN where there is none; each row has at least one. k may be 0.
    """
    between, within = _grid()
    scores = np.asarray(groups, float)
    n, mean, spread = _summary(scores)
    variance = between[:, None] ** 2 + within[:, None] ** 2 / n  # (g, k) of a group's mean around mu
    precision = 1 / _SPREAD**2 + (1 / variance).sum(-1)
    centre = (_MEAN / _SPREAD**2 + (mean / variance).sum(-1)) / precision
    likelihood = (
        -((n - 1).sum() * np.log(within) + spread.sum() / (2 * within**2))
        - 0.5 * (np.log(variance) + mean**2 / variance).sum(-1)
        - 0.5 * np.log(precision)
        + 0.5 * precision * centre**2
    )
    weights = np.exp(likelihood - likelihood.max())
    return weights / weights.sum(), between, within, centre, 1 / precision


def predicted(groups: ArrayLike, random: np.random.Generator) -> Floats:
    """A draw (k + 1,) of a further score of each of the groups (k, n), and in the end of one of a new group.

    Args:
        groups: as for `grid_posterior`.
    """
    scores = np.asarray(groups, float)
    weights, betweens, withins, centres, variances = grid_posterior(scores)
    point = int(random.choice(len(weights), p=weights))
    between, within = betweens[point], withins[point]
    mu = random.normal(centres[point], np.sqrt(variances[point]))
    n, mean, _ = _summary(scores)
    precision = 1 / between**2 + n / within**2
    levels = random.normal((mu / between**2 + n * mean / within**2) / precision, np.sqrt(1 / precision))
    return np.asarray(random.normal(np.append(levels, random.normal(mu, between)), within))


def _summary(scores: Floats) -> tuple[Floats, Floats, Floats]:
    """How many scores each group has, their mean, and the sum of their squares around it."""
    scores = np.sort(scores, axis=-1)  # sums in one order are equal in the last digit, too
    n = (~np.isnan(scores)).sum(-1).astype(float)
    mean = np.nansum(scores, -1) / n
    return n, mean, np.nansum((scores - mean[:, None]) ** 2, -1)


@cache
def _grid() -> tuple[Floats, Floats]:
    """s_a and s_y at the midpoints of equal parts of their priors, each with each."""
    from scipy.special import ndtri  # here, because scipy is slow to import

    unit = ndtri(0.5 + (np.arange(_QUANTILES) + 0.5) / (2 * _QUANTILES))
    between, within = np.meshgrid(_BETWEEN * unit, _WITHIN * unit, indexing="ij")
    return between.ravel(), within.ravel()
