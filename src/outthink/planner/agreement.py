"""What more votes are expected to gain where nothing but agreement is known.

Source: the Beta posterior of adaptive-consistency (Aggarwal et al. 2023), the value of sample information (Raiffa and
Schlaifer 1961, from memory). Differs: the most frequent answer is taken for the right one, so it is an upper bound; of
the samples to come, as many vote for one of the two leading answers as did so far.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from outthink.strategies.parallel.adaptive_consistency import leader_probability

_LOOKS = (1, 2, 4, 8, 16, 32)  # votes ahead; one more alone can never change the leader


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


def worthwhile(votes: NDArray[np.intp], drawn: int, cost: float) -> int:
    """How many more samples pay best, 0 where none do.

    Args:
        votes: of the two leading answers, the larger first.
        drawn: samples so far, those without an answer included.
        cost: of a sample, where a right answer is worth 1.
    """
    share = (int(votes.sum()) + 1) / (drawn + 2)
    net = [gain_of_votes(int(votes[0]), int(votes[1]), more) - more / share * cost for more in _LOOKS]
    best = int(np.argmax(net))
    return math.ceil(_LOOKS[best] / share) if net[best] > 0 else 0
