"""Length vote: votes weighted by how short a thought is among those on the same question, until one answer is ahead.

Source: the weight is our own; that shorter thoughts of one question are more often right is reported by Hassid et al.,
Don't Overthink it (2025), and others. The stop is that of adaptive-consistency on the weighted votes.

Pays: with models that think: 16 samples came within a point of 64 votes or above, at a fifth to an eighth of their
tokens (docs/results/thinking.md). Where a short answer is one that skipped the working it loses up to 20 points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.selection import Drawn, Replayed, Selected, answer_totals, codes, weighted_vote
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import pick
from outthink.strategies.flight import Portions
from outthink.strategies.parallel.adaptive_consistency import leader_probability
from outthink.strategies.parallel.feature_vote import feature_weights
from outthink.types import Candidate, Problem


def length_weights(keys: ArrayLike, tokens: ArrayLike, exponent: float = 1.0) -> NDArray[np.float64]:
    """Weights (..., n) of samples, exp(-exponent z) up to a factor; z is the length standardised within its row.

    Args:
        keys: (..., n) integers, -1 is INVALID; it weighs 0, and its length does not count.
        tokens: (..., n) lengths; any unit does.
        exponent: 0 is one vote each; below 0 long ones weigh more.
    """
    return feature_weights(keys, np.asarray(tokens, float)[..., None], (exponent,))


def weighted_lead(keys: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """P(Beta(v1 + 1, v2 + 1) > 1/2) (...) of the two largest totals, in units that make all weights one on average.

    Keys and weights are (..., n); 0 where no sample is valid.
    """
    keys, weights = np.broadcast_arrays(np.asarray(keys, np.intp), np.asarray(weights, float))
    valid = keys >= 0
    weights = np.where(valid, weights, 0.0)
    mass, count = weights.sum(-1, keepdims=True), valid.sum(-1, keepdims=True)
    totals = answer_totals(keys, np.divide(weights * count, mass, out=np.zeros(weights.shape), where=mass > 0))
    largest = totals.max(-1, keepdims=True, initial=0.0)
    leader = np.take_along_axis(keys, totals.argmax(-1)[..., None], -1)
    second = np.where(keys == leader, 0.0, totals).max(-1, initial=0.0)
    return np.where(largest[..., 0] > 0, leader_probability(largest[..., 0], second), 0.0)


@dataclass(frozen=True, kw_only=True)
class LengthVote:
    """Portions of samples until the answer with the largest weight is probably the model's heaviest one.

    Args:
        n: most samples; at least 1.
        exponent: how much a thought that is long for its question loses; 0 counts votes.
        threshold: stop where the probability of the lead reaches it; above 1 all n are drawn.
        portion: samples drawn at once, and looked at together; at least 1. One sample has no length to compare.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    votes: ClassVar[bool] = True  # equal answers are what it goes by

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "tokens"})

    n: int = 16
    exponent: float = 1.0
    threshold: float = 0.9
    portion: int = 4

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "portion"))
        if not math.isfinite(self.exponent):
            raise ValueError(f"exponent must be a finite number, not {self.exponent}")
        if not self.threshold > 0:
            raise ValueError(f"threshold must be above 0, not {self.threshold}")

    @property
    def at_once(self) -> int:
        """Samples of a portion."""
        return min(self.portion, self.n)

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch a portion, one vote of all so far after each."""
        portions = Portions(model.draws(problem), self.n, self.portion)
        seen: list[Candidate] = []
        while (new := await portions.next()) is not None:
            seen += new
            keys, tokens = codes([one.key for one in seen]), np.array([one.tokens for one in seen])
            weights, choice, sure = self._choice(keys, tokens)
            chosen, share = pick(seen, choice)
            report(seen, chosen=chosen, scores=weights.tolist(), confidence=share)
            if sure:
                return

    def _choice(
        self, keys: NDArray[np.intp], tokens: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], Selected, NDArray[np.bool_]]:
        """The weights (..., n), what they choose, and whether that is enough."""
        weights = length_weights(keys, tokens, self.exponent)
        choice = weighted_vote(keys, weights, lengths=tokens)
        return weights, choice, weighted_lead(keys, weights) >= self.threshold

    def replay(self, drawn: Drawn) -> Replayed:
        """The same portions and votes on recorded answers and lengths."""
        batch, n = drawn.keys.shape
        index, used = np.full(batch, -1), np.full(batch, n)
        going = np.arange(batch)
        for end in [*range(self.portion, n, self.portion), n]:
            _, choice, sure = self._choice(drawn.keys[going, :end], drawn.tokens[going, :end])
            index[going], used[going] = choice.index, end
            going = going[~sure]
            if not len(going):
                break
        return Replayed(index=index, used=used)
