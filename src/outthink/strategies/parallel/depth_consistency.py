"""Depth consistency: adaptive-consistency on the answers forced from unfinished thoughts, looked at after every piece.

Source: none of its own; the stop is that of adaptive-consistency (Aggarwal et al. 2023), applied in depth where that
is in width. Differs: the votes are the latest answers of all thoughts, which are written side by side.

Pays: not on recordings of four thinking models: forced early, thoughts agree on wrong answers, and it was 7 to 57
points below the vote at equal tokens (docs/results/thinking.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outthink.maths.selection import Drawn, Replayed, Selected, majority
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.parallel.adaptive_consistency import posterior_of_votes, top_counts
from outthink.strategies.probing import Board, ProbedThoughts, Whole, replay_probed
from outthink.types import Problem


class _Lead:
    """How sure the lead is among the latest answers on each question."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def moves(self, board: Board) -> Whole:
        unsure = posterior_of_votes(top_counts(board.answers[..., 0])) < self._threshold
        return np.broadcast_to(np.where(unsure, 1, 0)[:, None], board.pieces.shape)

    def choice(self, board: Board) -> Selected:
        return majority(board.answers[..., 0])


@dataclass(frozen=True, kw_only=True)
class DepthConsistency(ProbedThoughts):
    """The majority of n thoughts, cut as soon as their latest answers agree enough.

    Args:
        n: thoughts side by side; at least 1.
        threshold: stop where the posterior of the lead reaches it; above 1 all are written to their ends.
    """

    n: int = 16
    threshold: float = 0.95

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "every", "answer_tokens"))
        if not self.threshold > 0:
            raise ValueError(f"threshold must be above 0, not {self.threshold}")

    @property
    def at_once(self) -> int:
        """All thoughts."""
        return self.n

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch of pieces, then one of answers."""
        await self.probing().run(_Lead(self.threshold), self.n, problem, report, model)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same on recorded probes; raises UsageError where they are after other pieces."""
        return replay_probed(_Lead(self.threshold), drawn, self.every)
