"""Choosing among finished samples: vote, weighted vote, best-of, aggregation of step scores; pure array functions.

Source: Wang et al., Self-Consistency (2022); Li et al. and Cobbe et al. for score-weighted votes and best-of-N, read in
the reference code of search-and-learn and compute-optimal-tts. Differs from them: INVALID (key -1) neither votes nor
wins, and ties have a stated order: larger total, larger best score of the answer, shorter mean length, first seen.
A score that is missing or not finite is NaN, and says nothing for its sample.

All functions take a leading batch shape (..., n), so the same code answers one request and replays a million.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Aggregation = Literal["last", "min", "prod", "mean"]
_DIGITS = 12  # totals that differ by less are ties: sums of the same floats in another order differ in the last place


@dataclass(frozen=True, slots=True)
class Selected:
    """What a rule chose.

    Args:
        index: (...,) position of the chosen sample; -1 where no sample is valid.
        share: (...,) the chosen answer's share of all valid weight, in [0, 1].
    """

    index: NDArray[np.intp]
    share: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Probes:
    """What the samples of a problem would have answered, had their thoughts been cut.

    Args:
        answers: (samples, m) the answer that was forced after 1, 2 ... m pieces, -1 is INVALID; what stands behind the
            end of a thought means nothing.
        every: tokens of a piece.
        tokens: that forcing one answer takes, without the thought before it.
    """

    answers: NDArray[np.intp]
    every: int
    tokens: float

    def after(self, order: NDArray[np.intp], pieces: NDArray[np.intp]) -> NDArray[np.intp]:
        """The answers (...) of these samples after so many pieces, at least 1."""
        return np.asarray(self.answers[order, np.clip(pieces, 1, self.answers.shape[1]) - 1])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Confidences:
    """How confident each token of the samples of a problem was.

    Args:
        values: of each sample (tokens,): minus the mean logprob of the likeliest tokens in the place of each.
        k: of how many of those, at least.
    """

    values: Sequence[NDArray[np.float64]]
    k: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Drawn:
    """Samples in the order in which they were drawn, for many orders at once; what a strategy sees of them.

    Args:
        keys: (batch, n) answers, -1 is INVALID; where a pool has no answers, each sample is one of its own.
        tokens: (batch, n) completion tokens, 0 where unknown.
        lengths: (batch, n) what ties are broken by, towards the smaller; all 0 gives ties their expected credit, since
            the earliest of a random order wins them then.
        complete: (batch, n) False where a sample was cut off.
        logprobs: (batch, n) mean logprob of the tokens, NaN where missing; None where unknown.
        scores: (batch, n) of the verifier, finite, NaN where missing; None without one.
        verdicts: (batch, n, m) those that `scores` are the means of; None without any.
        paths: (batch, n) equal numbers are equal texts; each is its own where texts are unknown.
        texts: all whole texts of the problem; `order` (batch, n) says which of them was drawn when.
        probes: of all samples of the problem, by the same `order`; None where there are none.
        confidences: the same of them.
    """

    keys: NDArray[np.intp]
    tokens: NDArray[np.float64]
    lengths: NDArray[np.float64]
    complete: NDArray[np.bool_]
    logprobs: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None
    verdicts: NDArray[np.float64] | None
    paths: NDArray[np.intp]
    texts: tuple[str, ...] | None
    order: NDArray[np.intp]
    probes: Probes | None = None
    confidences: Confidences | None = None

    def prefix(self, used: NDArray[np.intp]) -> NDArray[np.intp]:
        """The answers with those after the first `used` (batch,) as INVALID."""
        return np.where(np.arange(self.keys.shape[-1]) < used[..., None], self.keys, -1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Replayed:
    """What a strategy would have done.

    Args:
        index: (batch,) position of the chosen sample among those drawn; -1 is INVALID.
        used: (batch,) how many samples it drew: the first so many.
        tokens: (batch,) that were written; None: all of those that were used.
        probing: (batch,) those of them that forced answers took; None: none.
        keys: (batch,) the answer, where it may be one that was forced; None: that of the chosen sample.
    """

    index: NDArray[np.intp]
    used: NDArray[np.intp]
    tokens: NDArray[np.float64] | None = None
    probing: NDArray[np.float64] | None = None
    keys: NDArray[np.intp] | None = None

    @classmethod
    def of_all(cls, choice: Selected, drawn: Drawn, tokens: NDArray[np.float64] | None = None) -> Replayed:
        """A choice among all samples."""
        return cls(index=choice.index, used=np.full(choice.index.shape, drawn.keys.shape[-1]), tokens=tokens)

    @classmethod
    def of_prefix(cls, choice: Selected, used: NDArray[np.intp]) -> Replayed:
        """A choice among the first `used` samples."""
        return cls(index=choice.index, used=used)


class Tally:
    """The votes of samples that come one after the other; its leader is that of `majority` of those that came.

    A sample costs the same however many came before it.
    """

    def __init__(self) -> None:
        self.leader: int | None = None
        """The place of the first sample of the leading answer; None while no answer is valid."""
        self.votes = 0
        """Of the leading answer."""
        self.runner_up = 0
        """Votes of the answer after it, 0 without one."""
        self.valid = 0
        """Votes of all answers."""
        self._leading: str | None = None
        self._answers: dict[str, tuple[int, float, int]] = {}

    def add(self, key: str | None, length: float, place: int) -> None:
        """Count a sample.

        Args:
            key: its answer; None is INVALID and does not vote.
            length: in tokens; ties go to the answer that is shorter on average.
            place: its own; then they go to the answer with the lowest one.
        """
        if key is None:
            return
        self.valid += 1
        votes, total, first = self._answers.get(key, (0, 0.0, place))
        mine = self._answers[key] = (votes + 1, total + length, min(first, place))
        if key == self._leading or self._leading is None:
            self._leading = key
        elif _before(mine, self._answers[self._leading]):
            self.runner_up = self.votes  # no other answer had more
            self._leading = key
        else:
            self.runner_up = max(self.runner_up, mine[0])
        self.votes, _, self.leader = self._answers[self._leading]

    @property
    def share(self) -> float:
        """The leader's share of all votes, in [0, 1]; 0 without any."""
        return self.votes / self.valid if self.valid else 0.0

    def top(self, most: int) -> list[int]:
        """Votes of the `most` answers that have most, the largest first."""
        return heapq.nlargest(most, (votes for votes, _, _ in self._answers.values()))


def _before(one: tuple[int, float, int], other: tuple[int, float, int]) -> bool:
    """Whether an answer of (votes, their tokens, first place) goes before another one."""
    return (one[0], -one[1] / one[0], -one[2]) > (other[0], -other[1] / other[0], -other[2])


def codes(keys: Sequence[str | None]) -> NDArray[np.intp]:
    """Canonical keys (n,) as integers in order of first appearance; None (INVALID) is -1."""
    seen: dict[str, int] = {}
    return np.array([-1 if key is None else seen.setdefault(key, len(seen)) for key in keys], dtype=np.intp)


def numbers(scores: Sequence[float | None]) -> NDArray[np.float64]:
    """Scores (n,) as floats; one that is missing or not finite is NaN."""
    return finite([np.nan if score is None else score for score in scores])


def finite(scores: ArrayLike) -> NDArray[np.float64]:
    """The scores (...) with NaN, which is missing, in place of what is not finite."""
    scores = np.asarray(scores, dtype=float)
    return np.where(np.isfinite(scores), scores, np.nan)


def mean_ranks(scores: ArrayLike) -> NDArray[np.float64]:
    """The rank (..., n) of each score in its row, from 1 for the lowest; equal ones have their mean; NaN has none."""
    scores = np.asarray(scores, dtype=float)
    if scores.size == 0:
        return np.zeros(scores.shape)
    order = np.argsort(scores, axis=-1, kind="stable")  # NaN comes last
    ordered = np.take_along_axis(scores, order, -1)
    place = np.broadcast_to(np.arange(scores.shape[-1]), scores.shape)
    new = np.ones(scores.shape, dtype=bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    ends = np.ones(scores.shape, dtype=bool)
    ends[..., :-1] = new[..., 1:]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=-1)
    last = np.flip(np.minimum.accumulate(np.flip(np.where(ends, place, scores.shape[-1]), -1), axis=-1), -1)
    ranks = np.empty(scores.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, -1)
    return np.where(np.isnan(scores), np.nan, ranks)


def first_of_equals(codes: ArrayLike, counted: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Which of the integers (..., n) have no equal before them in their row.

    Args:
        counted: (..., n) those that take part; the others are in nobody's way, and are not the first. None: all.
    """
    codes = np.asarray(codes, dtype=np.intp)
    part = np.ones(codes.shape, dtype=bool) if counted is None else np.broadcast_to(np.asarray(counted), codes.shape)
    # those that take part come first among their equals, so that the first of them is the first of a run
    order = np.lexsort((~part, codes), axis=-1)
    ordered = np.take_along_axis(codes, order, -1)
    starts = np.ones(codes.shape, dtype=bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = np.empty(codes.shape, dtype=bool)
    np.put_along_axis(first, order, starts, -1)
    return np.asarray(first & part)


def aggregate(step_scores: ArrayLike, rule: Aggregation = "last") -> NDArray[np.float64]:
    """One score (...,) per path from the scores (..., T) of its steps.

    "last" suits scores that estimate the final outcome; "prod" and "min" fall with the number of steps, so they must
    not be compared between different depths. Raises ValueError for an unknown rule or no steps.
    """
    scores = np.asarray(step_scores, dtype=float)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise ValueError("there are no step scores to aggregate")
    match rule:
        case "last":
            return np.asarray(scores[..., -1])
        case "min":
            return np.asarray(scores.min(-1))
        case "prod":
            return np.asarray(scores.prod(-1))
        case "mean":
            return np.asarray(scores.mean(-1))
    raise ValueError(f"there is no aggregation {rule!r}; use last, min, prod or mean")


def majority(keys: ArrayLike, *, lengths: ArrayLike | None = None) -> Selected:
    """The most frequent answer; keys (..., n), lengths (..., n) in tokens for ties."""
    return weighted_vote(keys, np.ones(np.shape(keys)), lengths=lengths)


def weighted_vote(keys: ArrayLike, weights: ArrayLike, *, lengths: ArrayLike | None = None) -> Selected:
    """The answer with the largest sum of weights, represented by its heaviest, then earliest member.

    Where no valid sample of a row weighs anything it is the majority, with a share of 0.

    Args:
        keys: (..., n) integers; equal means equal answers, -1 is INVALID and its weight does not matter.
        weights: (..., n) non-negative; NaN (missing) counts 0.
        lengths: (..., n) tokens; breaks ties towards the shorter mean.

    Raises ValueError on a negative or infinite weight: map such scores to [0, 1] first.
    """
    keys, weights = _alike(np.asarray(keys, dtype=np.intp), np.asarray(weights, float))
    weights = np.where(np.isnan(weights) | (keys < 0), 0.0, weights)
    if weights.size and (weights.min() < 0 or not np.isfinite(weights).all()):
        raise ValueError(
            "a weighted vote needs finite scores of at least 0; map others by a sigmoid or a fixed range first"
        )
    shape, n = keys.shape[:-1], keys.shape[-1]
    if n == 0 or keys.size == 0:
        return Selected(np.full(shape, -1, dtype=np.intp), np.zeros(shape))
    flat, mass = keys.reshape(-1, n), weights.reshape(-1, n)
    size = (
        np.zeros(flat.shape)
        if lengths is None
        else np.broadcast_to(np.asarray(lengths, float), keys.shape).reshape(-1, n)
    )
    answers = max(int(flat.max()), 0) + 1
    count = _per_answer(flat, np.ones(flat.shape), answers)
    largest = mass.max(-1, keepdims=True)
    weighed = largest > 0
    # only ratios matter: in units of the largest one no weight is rounded away, however small all of them are
    mass = np.where(weighed, mass / np.where(weighed, largest, 1.0), 1.0)
    total = np.round(_per_answer(flat, mass, answers), _DIGITS)
    mean_length = _per_answer(flat, size, answers) / np.maximum(count, 1)
    best, first = _extremes(flat, mass, answers)
    winner = _first_by(count > 0, total, best, -mean_length, -first)
    mine = (flat == winner[:, None]) & (winner >= 0)[:, None]
    index = _first_by(mine, mass)
    everything = np.where(weighed[:, 0], total.sum(-1), 0.0)
    won = np.where(winner >= 0, total[np.arange(len(flat)), np.maximum(winner, 0)], 0.0)
    share = np.divide(won, everything, out=np.zeros_like(won), where=everything > 0)
    return Selected(index.reshape(shape), share.reshape(shape))


def best_of(keys: ArrayLike, scores: ArrayLike, *, lengths: ArrayLike | None = None) -> Selected:
    """The valid sample with the highest score; ties go to the shorter, then the earlier.

    Args:
        keys: (..., n) integers, -1 is INVALID.
        scores: (..., n) any real numbers; what is not finite is missing and ranks below all others.
        lengths: (..., n) tokens.

    `share` is the share of the valid samples that have the chosen answer.
    """
    keys, scores = np.broadcast_arrays(np.asarray(keys, dtype=np.intp), np.asarray(scores, float))
    shape, n = keys.shape[:-1], keys.shape[-1]
    if n == 0 or keys.size == 0:
        return Selected(np.full(shape, -1, dtype=np.intp), np.zeros(shape))
    flat = keys.reshape(-1, n)
    ranked = np.where(np.isfinite(scores), scores, -np.inf).reshape(-1, n)
    size = np.zeros(flat.shape) if lengths is None else np.broadcast_to(np.asarray(lengths, float), keys.shape)
    valid = flat >= 0
    index = _first_by(valid, ranked, -size.reshape(-1, n))
    chosen = np.take_along_axis(flat, np.maximum(index, 0)[:, None], -1)
    alike = ((flat == chosen) & valid).sum(-1)
    share = np.where(index >= 0, alike / np.maximum(valid.sum(-1), 1), 0.0)
    return Selected(index.reshape(shape), share.reshape(shape))


def answer_totals(keys: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """For each sample (..., n) the sum of the values of all samples with its answer; 0 where it is INVALID.

    Args:
        keys: (..., n) integers, -1 is INVALID.
        values: (..., n) finite numbers.
    """
    keys, values = np.broadcast_arrays(np.asarray(keys, dtype=np.intp), np.asarray(values, float))
    if keys.size == 0:
        return np.zeros(keys.shape)
    flat = keys.reshape(-1, keys.shape[-1])
    sums = _per_answer(flat, values.reshape(flat.shape), max(int(flat.max()), 0) + 1)
    return np.where(flat >= 0, np.take_along_axis(sums, np.maximum(flat, 0), -1), 0.0).reshape(keys.shape)


def first_by(allowed: ArrayLike, *criteria: ArrayLike) -> NDArray[np.intp]:
    """The first allowed sample that is largest by the criteria in order; all are (..., n), the result is (...,).

    -1 where none is allowed. NaN (missing) ranks with minus infinity, below all others. Numbers that differ in the
    last place only are ties.
    """
    allowed, *columns = np.broadcast_arrays(np.asarray(allowed, dtype=bool), *(np.asarray(c, float) for c in criteria))
    shape, n = allowed.shape[:-1], allowed.shape[-1]
    if allowed.size == 0:
        return np.full(shape, -1, dtype=np.intp)
    rows = [_rounded(column).reshape(-1, n) for column in columns]
    return _first_by(allowed.reshape(-1, n), *rows).reshape(shape)


def _alike(keys: NDArray[np.intp], values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Both in one shape."""
    if keys.shape == values.shape:  # as nearly always; broadcasting one request's few numbers costs as much as the vote
        return keys, values
    keys, values = np.broadcast_arrays(keys, values)
    return keys, values


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal where they differ in the last place only; NaN as minus infinity."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large to be rounded stays
        rounded = np.round(values, _DIGITS)
    return np.where(np.isnan(values), -np.inf, np.where(np.isfinite(rounded), rounded, values))


def _per_answer(keys: NDArray[np.intp], values: NDArray[np.float64], answers: int) -> NDArray[np.float64]:
    """Sums (batch, answers) of the values of each answer."""
    rows = np.arange(len(keys))[:, None] * answers
    valid = keys >= 0
    sums = np.bincount((rows + keys)[valid], weights=values[valid], minlength=len(keys) * answers)
    return np.asarray(sums, dtype=float).reshape(len(keys), answers)


def _extremes(
    keys: NDArray[np.intp], values: NDArray[np.float64], answers: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest value and first position (batch, answers) of each answer."""
    best = np.full((len(keys), answers), -np.inf)
    first = np.full((len(keys), answers), float(keys.shape[1]))
    rows, columns = np.nonzero(keys >= 0)
    np.maximum.at(best, (rows, keys[rows, columns]), values[rows, columns])
    np.minimum.at(first, (rows, keys[rows, columns]), columns)
    return best, first


def _first_by(allowed: NDArray[np.bool_], *criteria: NDArray[np.float64]) -> NDArray[np.intp]:
    """Per row, the first allowed column that is largest by the criteria in order; -1 where none is allowed."""
    left = allowed.copy()
    for values in criteria:
        largest = np.where(left, values, -np.inf).max(-1, keepdims=True)
        left &= (values == largest) | np.isneginf(largest)
    return np.where(left.any(-1), left.argmax(-1), -1)
