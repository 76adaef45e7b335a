"""Adaptive-consistency: sample until the leading answer is probably the model's most frequent one, then return it.

Source: Aggarwal et al., Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning and Coding with LLMs
(2023); the authors' code and the abstract read, not the paper. Differs: several samples may be in flight; the Dirichlet
criterion is integrated numerically and not by chance; entropy is 0 where all agree (the code adds a vote for another
answer) and counted as 1 minus it; ties go to the answer of the shorter samples. `window` and `hopeless` are the second
half of Wang et al., Make Every Penny Count: Difficulty-Adaptive Self-Consistency (2024; code read); its first half
ranks all questions by difficulty before the first is answered, which no single question can do.

Pays: where many questions are easy: four agreeing samples end it. It kept the vote's accuracy with 24% fewer tokens
on sums, 9% on GSM8K (docs/results/selection.md). Giving up ties cost a point at equal tokens on GSM8K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.selection import Drawn, Replayed, Tally, majority
from outthink.model import Model
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import Majority
from outthink.strategies.flight import flight
from outthink.types import Candidate, Problem

Criterion = Literal["beta", "dirichlet", "majority", "entropy", "random"]
Floats = NDArray[np.float64]
_TOP = 5  # answers that the Dirichlet criterion looks at


def leader_probability(first: ArrayLike, second: ArrayLike) -> Floats:
    """P(Beta(v1 + 1, v2 + 1) > 1/2): that the leader with v1 votes is really ahead of the runner-up with v2.

    It is sum_{j=0}^{v1} C(v1 + v2 + 1, j) / 2^(v1 + v2 + 1), a regularised incomplete beta function; the uniform prior
    adds one vote to each.
    """
    from scipy.special import betainc  # here, because scipy is slow to import

    v1, v2 = np.broadcast_arrays(np.asarray(first, float), np.asarray(second, float))
    behind = betainc(v1 + 1.0, v2 + 1.0, 0.5)  # the smaller part where the leader leads, so it is the exact one
    return np.where(v1 == v2, 0.5, 1.0 - behind)


def mode_probability(counts: ArrayLike) -> Floats:
    """P(p_1 > p_j for all j > 1) where p has the distribution Dirichlet(counts + 1); counts (..., k), leader first.

    Shares of independent Gamma(v + 1) variables have that distribution, so this is the mean over the leader's quantiles
    of the chance that all others stay below. Answers without a vote do not take part.
    """
    from scipy.special import gammainc, gammaincinv  # here, because scipy is slow to import

    counts = np.asarray(counts, float)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    angle = (nodes + 1) * np.pi / 2  # quantiles as (1 - cos) / 2, so that they are dense at both ends
    leader = gammaincinv(counts[..., :1] + 1, np.sin(angle / 2) ** 2)
    others = counts[..., 1:, None]
    below = np.where(others > 0, gammainc(others + 1, leader[..., None, :]), 1.0)
    return np.asarray((below.prod(-2) * np.sin(angle) * weights * np.pi / 4).sum(-1))


def top_counts(keys: ArrayLike, top: int = 2) -> NDArray[np.intp]:
    """Votes (..., top) of the most frequent answers, the largest first, 0 where there are fewer; -1 does not vote."""
    keys = np.asarray(keys, np.intp)
    rows = np.sort(_rows(keys), axis=-1)  # equal answers side by side
    starts = np.ones(rows.shape, dtype=bool)
    starts[:, 1:] = rows[:, 1:] != rows[:, :-1]
    row, column = np.divmod(np.flatnonzero(starts & (rows >= 0)), rows.shape[-1])
    # an answer ends where the next one begins, or with the row
    ends = np.where(np.append(row[1:], -1) == row, np.append(column[1:], 0), rows.shape[-1])
    counts = np.zeros((len(rows), max(rows.shape[-1], top)), dtype=np.intp)
    counts[row, column] = ends - column
    most: NDArray[np.intp] = -np.sort(-counts, axis=-1)[:, :top]
    return most.reshape(*keys.shape[:-1], top)


def posterior_of_votes(votes: ArrayLike, criterion: Criterion = "beta") -> Floats:
    """The same from the votes (..., k) of the answers, the largest first, of which it looks at the first five.

    Two criteria are no probabilities and look at all of them, from two votes on: "majority" is the leader's share, and
    "entropy" 1 - H / log2(answers), H being the entropy of the shares in bits.
    """
    if criterion in ("majority", "entropy"):
        return _concentration(np.asarray(votes, float), criterion)
    votes = np.asarray(votes, np.intp)[..., :_TOP]
    votes = np.pad(votes, [(0, 0)] * (votes.ndim - 1) + [(0, _TOP - votes.shape[-1])])
    ahead = leader_probability(votes[..., 0], votes[..., 1])
    many = votes[..., 2] > 0
    if criterion == "dirichlet" and many.any():  # with two answers it is the Beta criterion
        ahead = np.where(many, mode_probability(np.where(many[..., None], votes, 1)), ahead)
    return np.where(votes[..., 0] > 0, ahead, 0.0)


def _concentration(votes: Floats, criterion: Criterion) -> Floats:
    total, answers = votes.sum(-1), (votes > 0).sum(-1)
    shares = votes / np.maximum(total, 1)[..., None]
    if criterion == "majority":
        value = shares.max(-1)
    else:
        bits = -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(-1)
        value = 1 - bits / np.log2(np.maximum(answers, 2))
    return np.asarray(np.where(total >= 2, value, 0.0))


def stops_at(
    keys: ArrayLike, threshold: float = 0.95, criterion: Criterion = "beta", *, window: int = 1, hopeless: float = 0.0
) -> NDArray[np.intp]:
    """How many of the samples (..., n) are drawn before a look at the criterion ends it; n if none does.

    It is looked at after every `window` samples, and `hopeless` is as for the strategy. "random" draws its numbers anew
    for every row, always the same ones.
    """
    keys = np.asarray(keys, np.intp)
    n = keys.shape[-1]
    if criterion == "random":
        ends = np.random.default_rng(0).random(keys.shape) >= threshold
        ends &= np.arange(1, n + 1) % window == 0
        ends[..., -1:] = True
        return np.asarray(ends.argmax(-1) + 1, dtype=np.intp)
    if window > 1 or hopeless or criterion in ("majority", "entropy"):
        stops = np.full(keys.shape[:-1], n, dtype=np.intp)
        for m in reversed(range(window, n, window)):
            votes = top_counts(keys[..., :m], _TOP if criterion in ("beta", "dirichlet") else m)
            ends = _ends(posterior_of_votes(votes, criterion), m, n, threshold, hopeless)
            stops = np.where(ends, m, stops)
        return stops
    rows = _rows(keys)
    drawn = np.full(len(rows), n, dtype=np.intp)
    going = np.arange(len(rows))
    counts = np.zeros((len(rows), max(int(rows.max(initial=-1)), 0) + 1), dtype=np.intp)
    ahead_of = _sure_ahead(n, threshold)  # votes are few whole numbers, so each pair of them is looked at once
    leader, most, second = (np.zeros(len(rows), dtype=np.intp) for _ in range(3))
    for m in range(1, n):
        if not len(going):
            break
        answer = rows[going, m - 1]
        voted, answer = going[answer >= 0], answer[answer >= 0]
        counts[voted, answer] += 1
        votes = counts[voted, answer]
        other, ahead = (leader[voted] != answer) & (most[voted] > 0), votes > most[voted]
        # votes only ever grow, so the runner-up is whoever led before, or the one that has just gained a vote
        second[voted] = np.where(other, np.maximum(second[voted], np.minimum(votes, most[voted])), second[voted])
        leader[voted] = np.where(ahead, answer, leader[voted])
        most[voted] = np.maximum(most[voted], votes)
        sure = ahead_of[most[going], second[going]]
        if criterion == "dirichlet" and sure.any():
            # to be ahead of all others is never likelier than to be ahead of the runner-up
            likely = np.flatnonzero(sure)
            votes = counts[going[likely]]
            if votes.shape[-1] > _TOP:
                votes = np.partition(votes, -_TOP, axis=-1)[:, -_TOP:]
            kinds, which = np.unique(-np.sort(-votes, axis=-1), axis=0, return_inverse=True)
            sure[likely] = (posterior_of_votes(kinds, criterion) >= threshold)[which.reshape(-1)]
        drawn[going[sure]] = m
        going = going[~sure]
    return drawn.reshape(keys.shape[:-1])


def _ends(value: Floats | float, seen: int, n: int, threshold: float, hopeless: float) -> NDArray[np.bool_]:
    """Whether a look that finds this value of the criterion after so many of n samples ends it."""
    surrender = hopeless > 0 and 2 * seen > n
    return np.asarray((np.asarray(value) >= threshold) | (surrender & (np.asarray(value) <= hopeless)))


@lru_cache(maxsize=8)
def _sure_ahead(n: int, threshold: float) -> NDArray[np.bool_]:
    """Whether a leader (row) with a vote at least is surely ahead of a runner-up (column), for up to n votes each."""
    votes = np.arange(n + 1)
    sure = leader_probability(votes[:, None], votes) >= threshold
    sure[0] = False
    return np.asarray(sure)


def _rows(keys: NDArray[np.intp]) -> NDArray[np.intp]:
    """The same with one leading dimension."""
    return keys.reshape(math.prod(keys.shape[:-1]), keys.shape[-1])


@dataclass(frozen=True, kw_only=True)
class AdaptiveConsistency:
    """The majority of as many samples as it takes to be sure of the mode, which need not be right.

    Args:
        n: most samples; at least 1.
        threshold: stop where the criterion reaches it (C); above 1 it is self-consistency. One sample has 0.75, so at
            0.75 and below it is a single sample. Looked at after every sample, it is no guarantee of the same size.
        criterion: "beta" compares the leader with the runner-up, "dirichlet" with the four next ones; "majority" is the
            leader's share (the authors stop at 0.8), and "entropy" how far the votes are from evenly spread (at 0.25).
            "random" is the control that looks at no answer: it stops after a sample with the chance 1 - threshold (the
            authors' 0.1 is a threshold of 0.9).
        window: samples between two looks at the criterion; at least 1.
        hopeless: stop after more than half of n also where the criterion is at most this; 0: never. With "beta", 0.5 is
            a tie of the leaders, or no answer at all. Not for "random".
        ahead: samples in flight; 1 is the paper. The decision does not depend on it: samples are counted in the order
            of their addresses. What is in flight at the stop is cancelled, and charged as far as it was written.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    votes: ClassVar[bool] = True  # equal answers are what it goes by

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys"})

    n: int = 40
    threshold: float = 0.95
    criterion: Criterion = "beta"
    window: int = 1
    hopeless: float = 0.0
    ahead: int = 8

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "window", "ahead"), shares=("hopeless",))
        if not self.threshold > 0:
            raise ValueError(f"threshold must be above 0, not {self.threshold}")
        if self.hopeless and self.criterion == "random":
            raise ValueError("the criterion random looks at no answer: leave hopeless out")

    async def run(self, problem: Problem, report: Report, *, model: Model, rng: Rng) -> None:
        """A vote after every sample, of which some are looked at."""
        seen: list[Candidate] = []
        majority = Majority()
        async with flight(model.draws(problem), self.n, self.ahead) as flying:
            while (sample := await flying.next()) is not None:
                seen.append(sample)
                chosen, share = majority.add(sample)
                if len(seen) % self.window:
                    ended = False
                elif self.criterion == "random":
                    ended = float(rng.at("stop", len(seen)).random()) >= self.threshold
                else:
                    ended = bool(_ends(self._value(majority.tally), len(seen), self.n, self.threshold, self.hopeless))
                fixed = ended or majority.fixed(self.n - len(seen))
                report(seen, chosen=chosen, confidence=share, fixed=fixed)
                if ended:
                    return

    def _value(self, tally: Tally) -> float:
        if self.criterion == "beta":
            votes = [tally.votes, tally.runner_up]
        else:
            votes = tally.top(_TOP if self.criterion == "dirichlet" else tally.valid)
        return float(posterior_of_votes(votes, self.criterion))

    def replay(self, drawn: Drawn) -> Replayed:
        """The same stop and vote on recorded answers."""
        used = stops_at(drawn.keys, self.threshold, self.criterion, window=self.window, hopeless=self.hopeless)
        return Replayed.of_prefix(majority(drawn.prefix(used), lengths=drawn.lengths), used)
