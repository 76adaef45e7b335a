"""CMC, the confidence momentum controller: depth and width of thoughts by the trend of the ended ones' agreement.

Source: AutoTTS (arXiv 2605.08083), the controller that its search ended with, in the authors' code; of the paper the
abstract read. Differs: answers are forced once after the pieces that a thought gets in a round, not after each; a new
thought has one piece before the next look and not two. The schedule was found by a search on recordings of Qwen3.

Pays: on recordings of four thinking models it was 6 points above the vote at equal tokens with one, but not on the
questions kept apart; with the others no difference was seen (docs/results/thinking.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outthink.maths.selection import Drawn, Replayed, Selected, majority
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.parallel.adaptive_consistency import posterior_of_votes, top_counts
from outthink.strategies.probing import Board, ProbedThoughts, Whole, leaders, replay_probed
from outthink.types import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What follows from the one knob, beta in [0, 1].

    Args:
        begin, most: thoughts begun at once, and in all.
        warm_up: rounds before anything is stopped or dropped.
        patience: rounds off the leader after which a thought is dropped.
        window: rounds over which the trend is taken.
        blend: weight of the newest confidence in its moving average.
        confident: average at which it stops, and `slack`, by how much it may be falling then.
        burst: pieces of a thought that agrees with the leader.
        widen: thoughts begun where the trend is at most `trend`.
        ended: thoughts that must have ended before it stops.
    """

    begin: int
    most: int
    warm_up: int
    patience: int
    window: int
    blend: float
    confident: float
    slack: float
    burst: int
    widen: int
    trend: float
    ended: int

    @classmethod
    def of_beta(cls, beta: float) -> Schedule:
        """The authors' schedule."""
        return cls(
            begin=round(2 + 6 * beta),
            most=round(4 + 60 * beta),
            warm_up=round(2 + 8 * beta),
            patience=round(3 + 9 * beta),
            window=round(2 + 6 * beta),
            blend=0.7 - 0.4 * beta,
            confident=0.85 + 0.12 * beta,
            slack=0.04 - 0.03 * beta,
            burst=round(1 + 2 * beta),
            widen=round(1 + 3 * beta),
            trend=0.04 - 0.03 * beta,
            ended=round(2 + 3 * beta),
        )


class _Momentum:
    """The state of the controller on each question."""

    def __init__(self, how: CMC, batch: int, n: int) -> None:
        self._schedule = Schedule.of_beta(how.beta)
        self._most = min(self._schedule.most, n)
        self._average = np.zeros(batch)
        self._history: list[np.ndarray] = []
        self._off = np.zeros((batch, n), dtype=np.intp)
        self._dropped = np.zeros((batch, n), dtype=bool)
        self._round = -1

    def moves(self, board: Board) -> Whole:
        plan, begun = self._schedule, board.pieces > 0
        places = np.arange(begun.shape[-1])
        if not begun.any():
            return np.broadcast_to((places < min(plan.begin, self._most)).astype(np.intp), begun.shape)
        pool = np.where(board.ended, board.answers[..., 0], -1)
        confidence = posterior_of_votes(top_counts(pool))
        leader = leaders(board, majority(pool))
        stopped, widened = np.zeros(len(begun), dtype=bool), np.zeros(len(begun), dtype=bool)
        if self._round >= 0:  # what the pieces of this round have brought
            self._blend(confidence)
            self._history[-1] = self._average
            trend = self._average - self._history[0]
            warm = self._round >= plan.warm_up
            stopped = warm & (board.ended.sum(-1) >= plan.ended) & (self._average >= plan.confident)
            stopped &= trend >= -plan.slack
            stopped |= (~begun | board.ended | self._dropped).all(-1)
            if self._round >= max(1, plan.warm_up // 2):
                widened = (trend <= plan.trend) & (self._average < plan.confident)
        self._round += 1
        self._blend(confidence)
        self._history = [*self._history, self._average][-plan.window :]
        active = begun & ~board.ended & ~self._dropped
        aligned = np.zeros(begun.shape, dtype=bool)
        if self._round >= plan.warm_up:
            known = (leader >= 0)[:, None]
            aligned = active & known & (board.answers[..., 0] == leader[:, None])
            self._off = np.where(active & known & ~aligned, self._off + 1, np.where(active & known, 0, self._off))
            late = np.where(active & known & (self._off >= plan.patience), self._off, -1)
            rank = np.argsort(np.argsort(-late, axis=-1, kind="stable"), axis=-1, kind="stable")
            drop = (late >= 0) & (rank < active.sum(-1, keepdims=True) - 2)
            self._dropped |= drop
            active &= ~drop
        moves = np.where(active, np.where(aligned, plan.burst, 1), 0)
        spawned = begun.sum(-1, keepdims=True)
        fresh = (places >= spawned) & (places < np.minimum(spawned + plan.widen, self._most))
        moves = np.where(fresh & widened[:, None], 1, moves)
        return np.where(stopped[:, None], 0, moves)

    def _blend(self, confidence: np.ndarray) -> None:
        self._average = (1 - self._schedule.blend) * self._average + self._schedule.blend * confidence

    def choice(self, board: Board) -> Selected:
        ended = majority(np.where(board.ended, board.answers[..., 0], -1))
        latest = majority(np.where(self._dropped, -1, board.answers[..., 0]))
        known = ended.index >= 0
        return Selected(np.where(known, ended.index, latest.index), np.where(known, ended.share, latest.share))


@dataclass(frozen=True, kw_only=True)
class CMC(ProbedThoughts):
    """The majority of the thoughts that have ended, once confidence in it is high on average and not falling.

    Args:
        n: most thoughts, where the schedule of `beta` has more; at least 1.
        beta: what may be spent, from 0 to 1; all else follows from it.
    """

    n: int = 64
    beta: float = 0.5

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "every", "answer_tokens"))
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be from 0 to 1, not {self.beta}")

    @property
    def at_once(self) -> int:
        """All thoughts."""
        return min(self.n, Schedule.of_beta(self.beta).most)

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch of pieces a round, then one of answers."""
        await self.probing().run(_Momentum(self, 1, self.n), self.n, problem, report, model)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same on recorded probes; raises UsageError where they are after other pieces."""
        return replay_probed(_Momentum(self, *drawn.keys.shape), drawn, self.every)
