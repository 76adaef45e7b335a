"""Thoughts that are written piece by piece, with an answer forced after each piece: live, or from recorded probes.

A rule decides by numbers alone, for many questions at once, so a live run and a replay decide the same. What it has
looked at is a `Board`; it says how many further pieces each thought gets, and none at all is the end. A piece that
ends its thought gives its own answer; after any other one the thought is closed by force, and what it answers then is
a probe: a continuation like any other, metered and charged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from outthink.errors import EngineError, OutthinkError, PromptTooLong, UsageError
from outthink.maths.selection import Drawn, Replayed, Selected
from outthink.model import Draw, Draws, Model
from outthink.strategies import Report
from outthink.strategies.choosing import pick
from outthink.together import together
from outthink.types import Candidate, Problem

Whole = NDArray[np.intp]

FORCED = "\n\nTime is up. The answer, and nothing else:\n</think>\n\n#### "
"""What closes a thought and begins its answer, in the form in which answers are asked for."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Board:
    """What is known of the thoughts of a batch of questions.

    Args:
        answers: (batch, n, k) the latest answers of each thought, -1 is INVALID; equal ones where it has ended.
        pieces: (batch, n) that are written of each; 0: it is not begun.
        ended: (batch, n) whether its last piece ended it.
    """

    answers: Whole
    pieces: Whole
    ended: NDArray[np.bool_]


class Rule(Protocol):
    """Decides for a batch of questions; it may keep what it has seen."""

    def moves(self, board: Board) -> Whole:
        """How many further pieces each thought (batch, n) gets; they are begun in order, all with as many."""

    def choice(self, board: Board) -> Selected:
        """The thought (batch,) whose latest first answer is the answer."""


def leaders(board: Board, choice: Selected) -> Whole:
    """The answer (batch,) that a choice stands for; -1 is none."""
    picked = np.take_along_axis(board.answers[..., 0], np.maximum(choice.index, 0)[:, None], 1)[:, 0]
    return np.where(choice.index < 0, -1, picked)


def empty(batch: int, n: int, k: int = 1) -> Board:
    """Nothing is begun."""
    return Board(
        answers=np.full((batch, n, k), -1, dtype=np.intp),
        pieces=np.zeros((batch, n), dtype=np.intp),
        ended=np.zeros((batch, n), dtype=bool),
    )


def replay_probed(rule: Rule, drawn: Drawn, every: int, cap: float = np.inf) -> Replayed:
    """What the rule does on recorded thoughts, probes charged; they are there once after every piece.

    Args:
        every: tokens of a piece.
        cap: most tokens of a thought; one that has come so far is as one that has ended, with its forced answer.

    Raises UsageError where the pool has probes elsewhere.
    """
    probes = drawn.probes
    assert probes is not None
    if probes.every != every or cap < every:
        raise UsageError(
            f"The pool has forced answers after every {probes.every} tokens: set every={probes.every}, and no lower cap"
        )
    batch, n = drawn.keys.shape
    board = empty(batch, n)
    forced, going = np.zeros(batch), np.ones(batch, dtype=bool)
    while True:
        moves = np.where(board.ended | ~going[:, None], 0, rule.moves(board))
        going &= moves.any(-1)
        if not going.any():
            break
        pieces = board.pieces + moves
        written = np.minimum(pieces * probes.every, cap)
        over = (pieces > 0) & (written >= drawn.tokens)
        asked = probes.after(drawn.order, (written // probes.every).astype(np.intp))
        answers = np.where(over, drawn.keys, np.where(pieces > 0, asked, -1))
        forced += ((moves > 0) & ~over).sum(-1)
        board = Board(answers=answers[..., None], pieces=pieces, ended=over | ((pieces > 0) & (written >= cap)))
    choice = rule.choice(board)
    cost = forced * probes.tokens
    return Replayed(
        index=choice.index,
        used=(board.pieces > 0).sum(-1),
        tokens=np.minimum(drawn.tokens, np.minimum(board.pieces * probes.every, cap)).sum(-1) + cost,
        probing=cost,
        keys=leaders(board, choice),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Probing:
    """How thoughts are written live.

    Args:
        every: tokens of a piece; at least 1.
        forced: what is put behind a thought to get its answer; it is read and not written.
        answer_tokens: most tokens of such an answer; they are beyond `max_tokens`, so that there is room for it.
        k: answers forced at once.
        cap: most tokens of a thought; 0: as many as a sample may have.
        draw: what else is asked of the pieces, such as logprobs.
    """

    every: int
    forced: str
    answer_tokens: int
    k: int = 1
    cap: int = 0
    draw: Draw = field(default_factory=Draw)

    async def run(self, rule: Rule, n: int, problem: Problem, report: Report, model: Model) -> None:
        """Reports after every look. Where the budget ends or a call fails, what was there answers."""
        thoughts = Thoughts(self, n, problem, model)
        failed = False
        while True:
            board = thoughts.board()
            if thoughts.begun:
                choice = rule.choice(board)
                chosen, share = pick(thoughts.answers(0), Selected(choice.index[0], choice.share[0]))
                seen = [one for answers in thoughts.latest for one in answers]
                report(seen, chosen=chosen, confidence=share)
            moves = np.where(board.ended, 0, rule.moves(board))[0]
            if failed or not moves.any():
                return
            try:
                await thoughts.write(moves)
            except OutthinkError:
                if not thoughts.begun:
                    raise
                failed = True


@dataclass(frozen=True, kw_only=True)
class ProbedThoughts:
    """Fields that every strategy has that forces answers from unfinished thoughts.

    Args:
        every: tokens of a piece, after which each thought is made to answer; at least 1.
        forced: what closes a thought; it belongs to the model.
        answer_tokens: most tokens of a forced answer, beyond those of the thought; at least 1.
    """

    powers: ClassVar[frozenset[str]] = frozenset({"prefix"})  # what the model must be able to do
    votes: ClassVar[bool] = True  # equal answers are what it goes by
    first: ClassVar[tuple[Draw, ...]] = ()  # its first samples are pieces
    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "tokens", "probes"})

    every: int = 500
    forced: str = FORCED
    answer_tokens: int = 32

    def probing(self, *, k: int = 1, cap: int = 0) -> Probing:
        """How its thoughts are written live."""
        return Probing(every=self.every, forced=self.forced, answer_tokens=self.answer_tokens, k=k, cap=cap)


class Thoughts:
    """The thoughts on one question.

    Args:
        latest: what each answers now, as candidates.
    """

    def __init__(self, how: Probing, n: int, problem: Problem, model: Model) -> None:
        self._how, self._problem, self._model = how, problem, model
        self._cap = min(how.cap or model.sampling.cap, model.sampling.cap)
        self._first: Draws | None = None
        self._ends: list[Candidate | None] = [None] * n
        self._written = [0] * n
        self._over = [False] * n
        self._pieces = [0] * n
        self._numbers: dict[str, int] = {}
        self.latest: list[list[Candidate]] = [[] for _ in range(n)]

    @property
    def begun(self) -> bool:
        """Whether anything has been written."""
        return any(end is not None for end in self._ends)

    def answers(self, place: int) -> list[Candidate]:
        """One answer of each thought; where it has none, an empty one stands in."""
        return [answers[min(place, len(answers) - 1)] if answers else _NOTHING for answers in self.latest]

    def board(self) -> Board:
        """As numbers."""
        k = self._how.k
        keys = np.array([[self._number(one.key) for one in self.answers(place)] for place in range(k)], dtype=np.intp)
        return Board(
            answers=keys.T[None],
            pieces=np.array([self._pieces]),
            ended=np.array([self._over]),
        )

    def _number(self, key: str | None) -> int:
        """Of an answer, the same at every look."""
        return -1 if key is None else self._numbers.setdefault(key, len(self._numbers))

    async def write(self, moves: Whole) -> None:
        """The further pieces of each thought, as one batch, then the answers that they force, as another."""
        new = [number for number, more in enumerate(moves) if more and self._pieces[number] == 0]
        wrote = [number for number, more in enumerate(moves) if more and self._pieces[number] > 0]
        if new:
            for number in new:
                self._pieces[number] = int(moves[number])
                self._over[number] = True  # until something has come of it
            drawn = await self._begin(int(moves[new[0]]), len(new))
            for number, piece in zip(new, drawn, strict=False):
                self._add(number, piece)
        for number in wrote:
            self._pieces[number] += int(moves[number])
        further = await self._drawn([(number, self._further(number, int(moves[number]))) for number in wrote])
        for number in wrote:
            pieces = further.get(number)
            if pieces:
                self._add(number, pieces[0])
            else:
                self._over[number] = True
        touched = [number for number in (*new, *further) if self._forces(number)]
        starts = await together(*(self._model.inject(self._end(number), self._how.forced) for number in touched))
        asked = [(number, self._probe(number, start)) for number, start in zip(touched, starts, strict=True)]
        for number, answers in (await self._drawn(asked)).items():
            self.latest[number] = answers

    def _opened(self, pieces: int) -> Draws:
        """The first pieces of all thoughts, which are equally long."""
        if self._first is None:
            most = min(pieces * self._how.every, self._cap)
            self._first = self._model.draws(self._problem, replace(self._how.draw, max_tokens=most))
        return self._first

    async def _begin(self, pieces: int, n: int) -> list[Candidate]:
        """The first pieces of n thoughts; where all failed, others may go on."""
        begun = self.begun
        try:
            return await self._opened(pieces).draw(n)
        except EngineError:
            if not begun:
                raise
            return []

    def _end(self, number: int) -> Candidate:
        end = self._ends[number]
        assert end is not None
        return end

    def _forces(self, number: int) -> bool:
        end = self._ends[number]
        return end is not None and end.finish == "length"

    def _add(self, number: int, piece: Candidate) -> None:
        self._ends[number] = piece
        self._written[number] += piece.tokens
        ended = piece.finish != "length"
        self._over[number] = ended or self._written[number] >= self._cap
        if ended:
            self.latest[number] = [piece]

    def _further(self, number: int, more: int) -> Draw:
        left = self._cap - self._written[number]
        return replace(
            self._how.draw,
            after=self._end(number),
            max_tokens=min(more * self._how.every, left),
            lane=("thought", number),
        )

    def _probe(self, number: int, start: Candidate) -> Draw:
        most = self._how.answer_tokens
        return Draw(n=self._how.k, after=start, stop=("\n",), max_tokens=most, lane=("probe", number))

    async def _drawn(self, asked: Sequence[tuple[int, Draw]]) -> dict[int, list[Candidate]]:
        """What came of each; nothing where it failed, or a thought has filled the context."""
        if not asked:
            return {}
        try:
            drawn = await self._model.sample_fitting(self._problem, [draw for _, draw in asked])
        except (PromptTooLong, EngineError):
            return {}
        return {number: got for (number, _), got in zip(asked, drawn, strict=True) if got}


_NOTHING = Candidate(address=("nothing", 0), text="", complete=False)
