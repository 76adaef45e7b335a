"""Self-consistency: sample n answers and return the most frequent one.

Source: Wang et al., Self-Consistency Improves Chain of Thought Reasoning (2022), from memory; selection rules as read
in the code of search-and-learn and compute-optimal-tts. Differs: unfinished and unreadable samples do not vote.

Pays: where the right answer is more frequent than any single wrong one. It needs no scorer; 18 points above greedy on
sums (docs/results/selection.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outthink.maths.selection import Drawn, Replayed, majority
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.choosing import EarlyVote, by_majority
from outthink.types import Problem


@dataclass(frozen=True, kw_only=True)
class SelfConsistency:
    """Majority vote over n samples.

    Args:
        n: samples drawn; at least 1.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    votes: ClassVar[bool] = True  # equal answers are what it goes by
    majority: ClassVar[bool] = True  # of all samples alike

    n: int = 16

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")

    @property
    def one_sample(self) -> bool:
        """Whether there is nothing to vote on."""
        return self.n == 1

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch, one vote."""
        samples = await model.sample(problem, self.n, seen=EarlyVote(report, self.n))
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same vote on recorded answers."""
        return Replayed.of_all(majority(drawn.keys, lengths=drawn.lengths), drawn)
