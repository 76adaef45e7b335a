"""Iterative deepening sampling: an answer in ever longer pieces, with a sentence between them that doubts what it has.

Source: Chen, Koenig & Dilkina, Iterative Deepening Sampling (arXiv 2502.05449); abstracts and summaries read, not the
paper itself, so what a budget counts and the defaults are provisional. The sentence is Marco-o1's. Differs: the answer
is chosen by vote or by score-weighted vote.

Pays: for models that react to being told to rethink. Others derail, and right answers can turn wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from outthink.errors import PromptTooLong
from outthink.maths.selection import codes, numbers, weighted_vote
from outthink.model import Draw, Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.choosing import need_weights, pick
from outthink.together import together
from outthink.types import Candidate, Problem

TRIGGER = "\nWait! Maybe I made some mistakes! I need to rethink from scratch.\n"

Convention = Literal["segment", "cumulative"]


def schedule(b0: int, gamma: float, total: int, convention: Convention = "segment") -> list[int]:
    """Tokens of the pieces of an answer that does not end by itself; their sum is `total`.

    Args:
        b0: of the first piece; at least 1.
        gamma: growth from piece to piece, at least 1; above 1 for "cumulative".
        convention: "segment": piece k has b0 gamma^k tokens. "cumulative": b0 gamma^k is where piece k ends; then for
            gamma below 2 the second piece is shorter than the first.
    """
    pieces: list[int] = []
    budget, done = float(b0), 0
    while done < total:
        piece = round(budget) - (done if convention == "cumulative" else 0)
        pieces.append(min(max(piece, 1), total - done))
        done += pieces[-1]
        budget = min(budget * gamma, float(total))
    return pieces


class Chain:
    """An answer in pieces.

    Args:
        end: its first piece.
    """

    def __init__(self, end: Candidate) -> None:
        self.end = end
        self.number = int(end.address[-1])
        self.tokens = end.tokens
        self.over = end.finish != "length"
        """Nothing is added any more: it has ended by itself, or a piece of it failed."""
        self.score: float | None = None

    def add(self, pieces: Sequence[Candidate]) -> None:
        """What was written after the trigger; nothing, if that failed."""
        self.end = pieces[0] if pieces else self.end
        self.tokens += sum(piece.tokens for piece in pieces)
        self.over = not pieces or self.end.finish != "length"


@dataclass(frozen=True, kw_only=True)
class IterativeDeepening:
    """n answers in pieces; the trigger is put after every piece that did not end its answer. All have `max_tokens`.

    What is put in is read and not written: it counts as prompt, and not against `max_tokens`. An answer that ends in
    its first piece is that of plain sampling.

    Args:
        n: answers, written side by side; at least 1.
        b0: most tokens of the first piece; at least 1. With `max_tokens` or more it is plain sampling. None is an
            eighth of `max_tokens`, 512 of 4,096, but not less than 64 or a half of it.
        gamma: growth of the pieces, at least 1 (equal pieces); above 1 for "cumulative".
        trigger: what is put between two pieces, with its line breaks.
        convention: whether b0 gamma^k is the length of a "segment" or that of all pieces so far, "cumulative"; the
            summaries do not settle which is meant.
    """

    powers: ClassVar[frozenset[str]] = frozenset({"prefix"})  # what the model must be able to do
    votes: ClassVar[bool] = True  # equal answers are what it goes by, where there is no verifier
    first: ClassVar[tuple[Draw, ...]] = ()  # its first samples are pieces

    n: int = 4
    b0: int | None = None
    gamma: float = 2.0
    trigger: str = TRIGGER
    convention: Convention = "segment"

    def __post_init__(self) -> None:
        for name in ("n", "b0"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.convention not in get_args(Convention):
            raise ValueError(f"convention must be one of {', '.join(get_args(Convention))}, not {self.convention}")
        if not 1 <= self.gamma < math.inf:
            raise ValueError(f"gamma must be a number of at least 1, not {self.gamma}")
        if self.convention == "cumulative" and self.gamma == 1:
            raise ValueError("gamma must be above 1 where budgets are cumulative, or they would never grow")

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores | None = None) -> None:
        """One batch a piece, of all answers that have not ended; the vote is reported after each."""
        most = model.sampling.cap
        b0 = max(most // 8, min(64, most // 2), 1) if self.b0 is None else self.b0
        first, *later = schedule(b0, self.gamma, most, self.convention)
        ends = await model.sample(problem, self.n, max_tokens=first)
        chains = [Chain(end) for end in ends]
        await self._vote(problem, report, chains, verifier)
        for piece in later:
            going = [chain for chain in chains if not chain.over]
            if not going:
                return
            starts = await together(*(self._start(model, chain.end) for chain in going))
            draws = [
                Draw(after=start, max_tokens=piece, lane=("chain", chain.number))
                for start, chain in zip(starts, going, strict=True)
            ]
            try:
                pieces = await model.sample_fitting(problem, draws)
            except PromptTooLong:  # triggers have filled the context: what has ended answers
                return
            for chain, children in zip(going, pieces, strict=True):
                chain.add(children)
            await self._vote(problem, report, chains, verifier)

    async def _start(self, model: Model, end: Candidate) -> Candidate:
        return await model.inject(end, self.trigger) if self.trigger else end

    async def _vote(self, problem: Problem, report: Report, chains: Sequence[Chain], verifier: Scores | None) -> None:
        """Report before new answers are scored, and after."""
        self._report(report, chains)
        new = [chain for chain in chains if chain.end.key is not None and chain.score is None]
        if verifier is not None and new:
            scores = await verifier.attempt(problem, [chain.end for chain in new])
            for chain, score in zip(new, scores, strict=True):
                chain.score = score
            self._report(report, chains)

    def _report(self, report: Report, chains: Sequence[Chain]) -> None:
        ends, scores = [chain.end for chain in chains], [chain.score for chain in chains]
        weights = numbers(scores)
        scored = not np.isnan(weights).all()
        need_weights(weights)
        keys, weights = codes([end.key for end in ends]), weights if scored else np.ones(len(ends))
        choice = weighted_vote(keys, weights, lengths=[chain.tokens for chain in chains])
        chosen, share = pick(ends, choice)
        report(ends, chosen=chosen, scores=scores if scored else None, confidence=share)
