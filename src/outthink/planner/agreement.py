"""The general plan: whether more votes pay where nothing but agreement is known, for models and tasks without a plan.

Source: the Beta posterior of adaptive-consistency (Aggarwal et al. 2023), the value of sample information (Raiffa and
Schlaifer 1961, from memory). Differs: the most frequent answer is taken for the right one, so the gain is an upper
bound; of the samples to come, as many vote for one of the two leading answers as did so far, so that little is spent
where no two agree. Nothing in it is fitted.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.strategies.parallel.adaptive_consistency import leader_probability

_LOOKS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32])  # votes ahead; one more alone can never change a clear leader
Whole = NDArray[np.intp]


@functools.lru_cache(maxsize=4096)
def gain_of_votes(first: int, second: int, more: int) -> float:
    """By how much `more` votes for one of two answers raise the chance that the leader is the model's favourite.

    Args:
        first, second: votes so far, the larger first, at least 0; without any vote the chance is 0.
        more: at least 1.
    """
    from scipy.special import betaln, gammaln  # here, because scipy is slow to import

    won = np.arange(more + 1)
    chance = np.exp(
        gammaln(more + 1)
        - gammaln(won + 1)
        - gammaln(more - won + 1)
        + betaln(first + won + 1, second + more - won + 1)
        - betaln(first + 1, second + 1)
    )
    ahead, behind = np.maximum(first + won, second + more - won), np.minimum(first + won, second + more - won)
    now = float(leader_probability(first, second)) if first else 0.0
    return float((chance * leader_probability(ahead, behind)).sum()) - now


def next_portion(votes: ArrayLike, drawn: ArrayLike, cost: float) -> Whole:
    """(...) the fewest further votes that are expected to gain more than they cost; 0 where none are.

    Args:
        votes: (..., 2) of the two leading answers, the larger first.
        drawn: (...) samples so far, those without an answer included.
        cost: of a sample, where a right answer is worth 1.
    """
    votes, drawn = np.asarray(votes, np.intp), np.asarray(drawn, np.intp)
    pairs, which = np.unique(votes.reshape(-1, 2), axis=0, return_inverse=True)
    gains = np.array([[gain_of_votes(int(one), int(other), int(more)) for more in _LOOKS] for one, other in pairs])
    share = (votes.sum(-1) + 1) / (drawn + 2)
    pays = gains[which.ravel()].reshape(*votes.shape[:-1], -1) > _LOOKS / share[..., None] * cost
    return np.where(pays.any(-1), _LOOKS[pays.argmax(-1)], 0).astype(np.intp)
