"""Borda voting: samples vote for their answers with their ranks by confidence, raised to a power.

Source: the voting of Self-Certainty (Scalable Best-of-N Selection via Self-Certainty); the authors' code was read, not
the paper. Differs: ranks are by mean logprob, or by a verifier where there is one, since self-certainty needs the
probabilities of the whole vocabulary; equal scores share their ranks; only valid, scored samples are ranked.

Pays: where confidence helps but the most confident sample alone is too risky. 6 points above the vote of 32 on sums,
11 with p = 2 (docs/results/selection.md); tune p on other questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import MissingResource, UsageError
from outthink.maths.selection import Drawn, Replayed, codes, mean_ranks, numbers, weighted_vote
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.choosing import by_majority, by_weighted_vote
from outthink.strategies.parallel.likelihood import mean_logprob
from outthink.together import each
from outthink.types import Problem


def borda_votes(keys: ArrayLike, scores: ArrayLike, p: float) -> NDArray[np.float64]:
    """The votes (..., n) of samples, in units of those of the first place: ((N - rank + 1) / N)^p.

    N is the number of samples that are valid and have a score; the others are NaN. Equal scores have their mean rank.
    Where none of a row has a score, every valid sample has one vote.

    Args:
        keys: (..., n) integers, -1 is INVALID.
        scores: (..., n) any real numbers, higher is better; NaN is missing, and so is plus infinity.
        p: 0 is one vote each; with a large one only the first place counts.
    """
    valid = np.asarray(keys) >= 0
    scores = np.asarray(scores, float)
    ranked = np.where(valid & (scores < np.inf), scores, np.nan)
    ranked = np.where(valid & np.isnan(ranked).all(-1, keepdims=True), 0.0, ranked)
    if ranked.size == 0:
        return ranked
    places = mean_ranks(ranked)  # from the lowest score, which has 1
    most = np.maximum((~np.isnan(ranked)).sum(-1, keepdims=True), 1)
    votes: NDArray[np.float64] = (places / most) ** p
    return np.where(np.isnan(ranked), np.nan, votes)


@dataclass(frozen=True, kw_only=True)
class Borda:
    """The answer with the most Borda votes.

    Args:
        n: samples drawn; at least 1.
        p: power of a rank; 0 is the majority, a large one the most confident sample. More samples want a larger one.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    needs_one_of: ClassVar[frozenset[str]] = frozenset({"verifier", "logprobs"})
    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys"})

    n: int = 16
    p: float = 0.5

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")
        if not (math.isfinite(self.p) and self.p >= 0):
            raise ValueError(f"p must be a number of at least 0, not {self.p}")

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores | None = None) -> None:
        """The majority is reported first, so that it stands if a verifier's scores cannot be paid for."""
        if verifier is None and "logprobs" not in model.powers:
            raise MissingResource(
                f"This strategy ranks by logprobs, which {model.name} does not give: pass verifier=..., or --verifier."
            )
        samples = await model.sample(problem, self.n, logprobs=verifier is None)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        if verifier is None:
            scores = await each(mean_logprob, samples)
        else:
            scores = list(await verifier.score(problem, samples))
        votes = borda_votes(codes([sample.key for sample in samples]), numbers(scores), self.p)
        chosen, share = by_weighted_vote(samples, [None if math.isnan(vote) else float(vote) for vote in votes])
        report(samples, chosen=chosen, scores=scores, confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same vote on recorded scores, or logprobs where there are none."""
        scores = drawn.logprobs if drawn.scores is None else drawn.scores
        if scores is None:
            raise UsageError("borda needs scores or logprobs, and the pool has neither.")
        votes = borda_votes(drawn.keys, scores, self.p)
        return Replayed.of_all(weighted_vote(drawn.keys, votes, lengths=drawn.lengths), drawn)
