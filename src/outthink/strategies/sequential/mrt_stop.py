"""MRT's online stop: answers are forced after every piece of a thought, and it ends once they agree and progress has.

Source: Optimizing Test-Time Compute via Meta Reinforcement Fine-Tuning (MRT, 2025), which forces answers after prefixes
to measure regret; its abstract and code read. Differs: that it stops a thought is our inference, there is no training,
and agreement stands in for accuracy, which needs gold. With k = 1, window = 12, tau = 1 and eps = 1 it is the stop of
answers that repeat, as in TrimR, without TrimR's verifier; with tau above 1 only `cap` ends a thought.

Pays: not on recordings of four thinking models: thoughts cut at twelve equal answers were up to 7 points below the vote
at equal tokens (docs/results/thinking.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from outthink.errors import UsageError
from outthink.laws.regret import agreement, stops
from outthink.maths.selection import Drawn, Replayed, Selected, majority
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.probing import Board, ProbedThoughts, Whole, replay_probed
from outthink.types import Problem

_ALL = 1 << 20  # pieces, more than any thought has


class _Stop:
    """Each thought by itself."""

    def __init__(self, how: MRTStop, batch: int, n: int) -> None:
        self._how = how
        self._recent = np.full((batch, n, how.window * how.k), -1, dtype=np.intp)
        self._agreed: list[np.ndarray] = []
        self._settled = np.zeros((batch, n), dtype=bool)

    def moves(self, board: Board) -> Whole:
        if not board.pieces.any():  # where nothing can stop a thought on its way, it is not asked on its way
            return np.full(board.pieces.shape, 1 if self._how.tau <= 1 else _ALL, dtype=np.intp)
        self._recent = np.concatenate([self._recent, board.answers], axis=-1)[..., board.answers.shape[-1] :]
        self._agreed = [*self._agreed[-2:], agreement(self._recent)]  # a stop looks at three checkpoints
        stopped = stops(np.stack(self._agreed, axis=-1), eps=self._how.eps, tau=self._how.tau)
        self._settled |= stopped[..., -1]
        return np.where(self._settled, 0, 1)

    def choice(self, board: Board) -> Selected:
        return majority(board.answers[..., 0], lengths=board.pieces)


@dataclass(frozen=True, kw_only=True)
class MRTStop(ProbedThoughts):
    """The majority of n thoughts, each cut where forced answers agree and agree no more than two pieces before.

    Args:
        n: thoughts side by side; at least 1.
        k: answers forced at once; at least 1.
        window: checkpoints whose answers are taken together; at least 1.
        tau: share of equal answers that is needed; above 1 nothing is cut.
        eps: growth of that share which does not count as progress; from 0 to 1.
        cap: most tokens of a thought, after which its answer is forced; 0: as many as a sample may have.
    """

    n: int = 4
    k: int = 4
    window: int = 1
    tau: float = 0.75
    eps: float = 0.05
    cap: int = 0

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "every", "k", "window", "answer_tokens"))
        if not 0 < self.tau < math.inf:
            raise ValueError(f"tau must be above 0 and finite, not {self.tau}")
        if not 0 <= self.eps <= 1:
            raise ValueError(f"eps must be from 0 to 1, not {self.eps}")
        if self.cap < 0:
            raise ValueError(f"cap must be at least 0, not {self.cap}")

    @property
    def at_once(self) -> int:
        """All thoughts."""
        return self.n

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch of pieces, then one of answers."""
        await self.probing(k=self.k, cap=self.cap).run(_Stop(self, 1, self.n), self.n, problem, report, model)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same on recorded probes; raises UsageError where they are others: one at a time, after other pieces."""
        if self.k != 1:
            raise UsageError("A pool has one forced answer after each piece: set k=1, and a window of several pieces")
        return replay_probed(_Stop(self, *drawn.keys.shape), drawn, self.every, self.cap or math.inf)
