"""Parallel-Probe: thoughts are probed after every piece; those off the consensus go, and a stable one ends all.

Source: Parallel-Probe as in the authors' code of AutoTTS (2026); of its paper an abstract read. Differs: the first look
is after one piece and not two; sixteen thoughts and not 64 by default; thoughts are only dropped, not added.

Pays: not on recordings of four thinking models, where it was 1 to 11 points below the vote at equal tokens
(docs/results/thinking.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outthink.maths.selection import Drawn, Replayed, Selected, majority
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.probing import Board, ProbedThoughts, Whole, leaders, replay_probed
from outthink.types import Problem


class _Consensus:
    """What the thoughts of each question agree on, and for how long."""

    def __init__(self, how: ParallelProbe, batch: int, n: int) -> None:
        self._how = how
        self._off = np.zeros((batch, n), dtype=np.intp)
        self._dropped = np.zeros((batch, n), dtype=bool)
        self._leader, self._stable = np.full(batch, -2), np.zeros(batch, dtype=np.intp)
        self._look = 0

    def moves(self, board: Board) -> Whole:
        if not board.pieces.any():
            return np.ones(board.pieces.shape, dtype=np.intp)
        if self._look >= self._how.warm_up:
            running = ~(board.ended | self._dropped)
            off = board.answers[..., 0] != leaders(board, self.choice(board))[:, None]
            self._off = np.where(running, np.where(off, self._off + 1, 0), self._off)
            several = (~self._dropped).sum(-1, keepdims=True) > 1
            self._dropped |= several & running & (self._off >= self._how.patience)
        leader = leaders(board, self.choice(board))
        self._stable = np.where(leader == self._leader, self._stable + 1, 0)
        self._leader = leader
        self._look += 1
        over = (self._stable >= self._how.stable)[:, None]
        return np.where(over | self._dropped, 0, 1)

    def choice(self, board: Board) -> Selected:
        return majority(np.where(self._dropped, -1, board.answers[..., 0]))


@dataclass(frozen=True, kw_only=True)
class ParallelProbe(ProbedThoughts):
    """The consensus of n thoughts once it has lasted.

    Args:
        n: thoughts side by side; at least 1.
        stable: looks in a row with the same consensus that end it (T); at least 1.
        warm_up: looks before a thought may be dropped.
        patience: looks in a row off the consensus after which a thought is dropped; at least 1.
    """

    n: int = 16
    stable: int = 14
    warm_up: int = 10
    patience: int = 8

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "every", "stable", "patience", "answer_tokens"))
        if self.warm_up < 0:
            raise ValueError(f"warm_up must be at least 0, not {self.warm_up}")

    @property
    def at_once(self) -> int:
        """All thoughts."""
        return self.n

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch of pieces, then one of answers."""
        await self.probing().run(_Consensus(self, 1, self.n), self.n, problem, report, model)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same on recorded probes; raises UsageError where they are after other pieces."""
        return replay_probed(_Consensus(self, *drawn.keys.shape), drawn, self.every)
