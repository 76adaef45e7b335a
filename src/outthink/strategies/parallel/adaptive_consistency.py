"""Adaptive-consistency: sample until the leading answer is probably the model's most frequent one, then return it.

Source: Aggarwal et al., Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning and Coding with LLMs
(2023); the authors' code and the abstract read, not the paper. Differs: several samples may be in flight; the Dirichlet
criterion is integrated numerically and not by chance; ties go to the answer of the shorter samples.

Pays: where many questions are easy: four agreeing samples end it. It kept the vote's accuracy with 24% fewer tokens
on sums, 9% on GSM8K (docs/results/selection.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.selection import Drawn, Replayed, codes, majority
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.choosing import by_majority
from outthink.strategies.flight import flight
from outthink.types import Candidate, Problem

Criterion = Literal["beta", "dirichlet"]
Floats = NDArray[np.float64]
_TOP = 5  # answers that the Dirichlet criterion looks at


def leader_probability(first: ArrayLike, second: ArrayLike) -> Floats:
    """P(Beta(v1 + 1, v2 + 1) > 1/2): that the leader with v1 votes is really ahead of the runner-up with v2.

    In closed form, sum_{j=0}^{v1} C(v1 + v2 + 1, j) / 2^(v1 + v2 + 1); the uniform prior adds one vote to each.
    """
    v1, v2 = np.broadcast_arrays(np.asarray(first, int), np.asarray(second, int))
    pairs, place = np.unique(np.stack([v1.ravel(), v2.ravel()]), axis=1, return_inverse=True)
    values = np.array([_ahead(int(one), int(two)) for one, two in pairs.T], dtype=float)
    return np.asarray(values[place.ravel()].reshape(v1.shape))


@cache
def _ahead(first: int, second: int) -> float:
    flips = first + second + 1
    found: float = sum(math.comb(flips, heads) for heads in range(first + 1)) / 2**flips
    return found


def mode_probability(counts: ArrayLike) -> Floats:
    """P(p_1 > p_j for all j > 1) where p has the distribution Dirichlet(counts + 1); counts (..., k), leader first.

    Shares of independent Gamma(v + 1) variables have that distribution, so this is the mean over the leader's quantiles
    of the chance that all others stay below. Answers without a vote do not take part.
    """
    from scipy.special import gammainc, gammaincinv  # here, because scipy is slow to import

    counts = np.asarray(counts, float)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    angle = (nodes + 1) * np.pi / 2  # quantiles as (1 - cos) / 2, so that they are dense at both ends
    leader = gammaincinv(counts[..., :1] + 1, np.sin(angle / 2) ** 2)
    others = counts[..., 1:, None]
    below = np.where(others > 0, gammainc(others + 1, leader[..., None, :]), 1.0)
    return np.asarray((below.prod(-2) * np.sin(angle) * weights * np.pi / 4).sum(-1))


def top_counts(keys: ArrayLike, top: int = 2) -> NDArray[np.intp]:
    """Votes (..., top) of the most frequent answers, the largest first, 0 where there are fewer; -1 does not vote."""
    keys = np.asarray(keys, np.intp)
    same = (keys[..., :, None] == keys[..., None, :]) & (keys >= 0)[..., None, :]
    earlier = np.tril(same, -1).any(-1)
    counts = -np.sort(-np.where(earlier, 0, same.sum(-1)), axis=-1)[..., :top]
    missing = [(0, 0)] * (counts.ndim - 1) + [(0, top - counts.shape[-1])]
    return np.asarray(np.pad(counts, missing), dtype=np.intp)


def posterior(keys: ArrayLike, criterion: Criterion = "beta") -> Floats:
    """Probability (...) that the leading answer of keys (..., n) is the model's most frequent one; 0 without any."""
    votes = top_counts(keys, _TOP)
    found = leader_probability(votes[..., 0], votes[..., 1])
    many = votes[..., 2] > 0
    if criterion == "dirichlet" and many.any():  # with two answers it is the Beta criterion
        found = np.where(many, mode_probability(np.where(many[..., None], votes, 1)), found)
    return np.where(votes[..., 0] > 0, found, 0.0)


def stops_at(keys: ArrayLike, threshold: float = 0.95, criterion: Criterion = "beta") -> NDArray[np.intp]:
    """How many of the samples (..., n) are drawn one by one before the criterion reaches the threshold; n if never."""
    keys = np.asarray(keys, np.intp)
    drawn = np.full(keys.shape[:-1], keys.shape[-1], dtype=np.intp)
    going = np.ones(keys.shape[:-1], dtype=bool)
    for m in range(1, keys.shape[-1]):
        sure = going & (posterior(keys[..., :m], criterion) >= threshold)
        drawn = np.where(sure, m, drawn)
        going &= ~sure
    return drawn


@dataclass(frozen=True, kw_only=True)
class AdaptiveConsistency:
    """The majority of as many samples as it takes to be sure of the mode, which need not be right.

    Args:
        n: most samples; at least 1.
        threshold: stop where the criterion reaches it (C); above 1 it is self-consistency. One sample has 0.75, so at
            0.75 and below it is a single sample. Looked at after every sample, it is no guarantee of the same size.
        criterion: "beta" compares the leader with the runner-up, "dirichlet" with the four next ones.
        ahead: samples in flight; 1 is the paper. The decision does not depend on it: samples are counted in the order
            of their addresses. What is in flight at the stop is cancelled, and charged as far as it was written.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    votes: ClassVar[bool] = True  # equal answers are what it goes by

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys"})

    n: int = 40
    threshold: float = 0.95
    criterion: Criterion = "beta"
    ahead: int = 8

    def __post_init__(self) -> None:
        for name in ("n", "ahead"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.threshold > 0:
            raise ValueError(f"threshold must be above 0, not {self.threshold}")

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """A vote after every sample."""
        seen: list[Candidate] = []
        async with flight(model.draws(problem), self.n, self.ahead) as flying:
            while (sample := await flying.next()) is not None:
                seen.append(sample)
                chosen, share = by_majority(seen)
                report(seen, chosen=chosen, confidence=share)
                if posterior(codes([one.key for one in seen]), self.criterion) >= self.threshold:
                    return

    def replay(self, drawn: Drawn) -> Replayed:
        """The same stop and vote on recorded answers."""
        used = stops_at(drawn.keys, self.threshold, self.criterion)
        return Replayed.of_prefix(majority(drawn.prefix(used), lengths=drawn.lengths), used)
