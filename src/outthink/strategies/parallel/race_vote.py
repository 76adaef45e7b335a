"""Race vote: thoughts side by side, a vote weighted by length at each end; once it is clear, the others are cut.

Source: our own, of two known parts: the weight of `length_vote` and the stop of adaptive-consistency on weighted votes.
Differs from `length_vote`: it looks at every end and not only when a portion is whole, so the long thoughts of a
portion are not paid for to their ends. What is cut is charged and does not vote. Which thought ends first is a matter
of the back end's speed where they are not written at one pace.

Pays: with models that think: on recordings of four, 8 thoughts were 1.6 to 5.5 points above the vote at equal tokens
(docs/results/thinking.md). Where a short answer skipped the working it loses.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from outthink.errors import BudgetExhausted, EngineError
from outthink.maths.selection import Drawn, Replayed, Selected, codes, weighted_vote
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import pick
from outthink.strategies.flight import flight
from outthink.strategies.parallel.length_vote import length_weights, weighted_lead
from outthink.types import Candidate, Problem

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RaceVote:
    """Portions of thoughts that race; the end that makes an answer's lead clear ends all.

    Args:
        n: most thoughts; at least 1.
        exponent: how much a thought that is long for its question loses; 0 counts votes.
        threshold: stop where the probability of the lead reaches it; above 1 all n are drawn.
        portion: thoughts side by side; at least 1.
        value_in_tokens: what a right answer is worth; above 0 it prices depth and width alike: stop, too, where the
            chance that the leader is not ahead, times this, is below the tokens of one more thought. 0: the threshold
            alone decides.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    votes: ClassVar[bool] = True  # equal answers are what it goes by

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "tokens"})

    n: int = 8
    exponent: float = 0.5
    threshold: float = 0.85
    portion: int = 4
    value_in_tokens: float = 0.0

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "portion"))
        if not math.isfinite(self.exponent):
            raise ValueError(f"exponent must be a finite number, not {self.exponent}")
        if not self.threshold > 0:
            raise ValueError(f"threshold must be above 0, not {self.threshold}")
        if not 0 <= self.value_in_tokens < math.inf:
            raise ValueError(f"value_in_tokens must be at least 0 and finite, not {self.value_in_tokens}")

    @property
    def at_once(self) -> int:
        """Thoughts of a portion."""
        return min(self.portion, self.n)

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """A vote at every end; what is still being written at the stop is cancelled."""
        draws = model.draws(problem)
        ended: list[Candidate] = []
        failure: Exception | None = None
        for start in range(0, self.n, self.portion):
            size = min(self.portion, self.n - start)
            try:
                async with flight(draws, size, size) as flying:
                    while (sample := await flying.first()) is not None:
                        bisect.insort(ended, sample, key=lambda one: one.address)
                        keys, tokens = codes([one.key for one in ended]), np.array([one.tokens for one in ended])
                        weights, choice, sure = self.look(keys, tokens)
                        chosen, share = pick(ended, choice)
                        report(ended, chosen=chosen, scores=weights.tolist(), confidence=share)
                        if sure:
                            return
            except BudgetExhausted:
                if not ended:
                    raise
                return
            except EngineError as cause:  # all of this portion; the next one may come back
                failure = cause
        if failure is not None and not ended:
            raise failure

    def look(self, keys: NDArray[np.intp], tokens: Floats) -> tuple[Floats, Selected, NDArray[np.bool_]]:
        """The weights (..., n) of those that have ended, what they choose, and whether that is enough."""
        weights = length_weights(keys, tokens, self.exponent)
        lead = weighted_lead(keys, weights)
        enough = lead >= self.threshold
        if self.value_in_tokens:
            valid = keys >= 0
            mean = np.where(valid, tokens, 0.0).sum(-1) / np.maximum(valid.sum(-1), 1)
            enough |= (lead > 0) & ((1 - lead) * self.value_in_tokens < mean)
        return weights, weighted_vote(keys, weights, lengths=tokens), enough

    def replay(self, drawn: Drawn) -> Replayed:
        """The same on recorded answers and lengths, where thoughts side by side are written at one pace."""
        batch, n = drawn.keys.shape
        index, used, spent = np.full(batch, -1), np.full(batch, n), np.zeros(batch)
        going = np.arange(batch)
        for start in range(0, n, self.portion):
            end = min(start + self.portion, n)
            lengths = drawn.tokens[:, start:end]
            for moment in np.sort(lengths, axis=-1).T:  # the ends of this portion (batch,), one after the other
                running = drawn.tokens[going, :end] > moment[going, None]
                running[:, :start] = False
                keys = np.where(running, -1, drawn.keys[going, :end])
                _, choice, sure = self.look(keys, drawn.tokens[going, :end])
                index[going] = choice.index
                stopped = going[sure]
                used[stopped] = end
                spent[stopped] += np.minimum(lengths[stopped], moment[stopped, None]).sum(-1)
                going = going[~sure]
                if not len(going):
                    return Replayed(index=index, used=used, tokens=spent)
            spent[going] += lengths[going].sum(-1)
        return Replayed(index=index, used=used, tokens=spent)
