"""How well scores tell right from wrong: pure array functions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.intervals import Numbers, ratio

_BINS = 10


def auroc(scores: ArrayLike, right: ArrayLike, weights: ArrayLike = 1.0) -> Numbers:
    """The chance (...,) that a right example has a higher score than a wrong one, ties half; NaN without either."""
    ties, right, weights = _ascending(scores, right, weights)
    of_right = np.add.reduceat(weights * right, ties, axis=-1)
    of_wrong = np.add.reduceat(weights * ~right, ties, axis=-1)
    below = np.cumsum(of_wrong, axis=-1) - of_wrong / 2
    return ratio((of_right * below).sum(-1), of_right.sum(-1) * of_wrong.sum(-1))


def average_precision(scores: ArrayLike, right: ArrayLike, weights: ArrayLike = 1.0) -> Numbers:
    """The area (...,) under precision over recall, by steps; NaN without right examples."""
    ties, right, weights = _ascending(scores, right, weights)
    of_right = np.add.reduceat(weights * right, ties, axis=-1)[..., ::-1]
    of_all = np.add.reduceat(weights, ties, axis=-1)[..., ::-1]
    precision = ratio(np.cumsum(of_right, axis=-1), np.cumsum(of_all, axis=-1))
    return ratio((np.nan_to_num(precision) * of_right).sum(-1), of_right.sum(-1))


def brier(scores: ArrayLike, right: ArrayLike, weights: ArrayLike = 1.0) -> Numbers:
    """Mean squared difference (...,) of score and outcome."""
    scores, right = np.asarray(scores, float), np.asarray(right, bool)
    weights = np.broadcast_to(np.asarray(weights, float), (*np.shape(weights)[:-1], len(scores)))
    return ratio((weights * (scores - right) ** 2).sum(-1), weights.sum(-1))


def reliability(scores: ArrayLike, right: ArrayLike) -> list[tuple[int, float, float]]:
    """(examples, mean score, share that is right) of each tenth of [0, 1] that has any."""
    scores, right = np.asarray(scores, float), np.asarray(right, bool)
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    inside = [bins == number for number in range(_BINS)]
    return [
        (int(members.sum()), float(scores[members].mean()), float(right[members].mean()))
        for members in inside
        if members.any()
    ]


def calibration_error(scores: ArrayLike, right: ArrayLike) -> float:
    """Mean distance of score and share that is right over those bins (expected calibration error)."""
    bins = reliability(scores, right)
    return sum(n * abs(score - share) for n, score, share in bins) / sum(n for n, _, _ in bins) if bins else math.nan


def wins(scores: ArrayLike, right: ArrayLike, groups: ArrayLike) -> tuple[Numbers, Numbers, NDArray[np.intp]]:
    """Of pairs of a right and a wrong example in one group: those won by the right one (ties half), and all.

    Returns both (g,) for each group that has such pairs, and the place (g,) of an example of it.
    """
    scores, right = np.asarray(scores, float), np.asarray(right, bool)
    order = np.argsort(np.asarray(groups), kind="stable")
    _, starts = np.unique(np.asarray(groups)[order], return_index=True)
    won, all_, places = [], [], []
    for members in np.split(order, starts[1:]):
        difference = scores[members[right[members]]][:, None] - scores[members[~right[members]]]
        if difference.size:
            won.append((difference > 0).sum() + (difference == 0).sum() / 2)
            all_.append(difference.size)
            places.append(members[0])
    return np.array(won, float), np.array(all_, float), np.array(places, dtype=np.intp)


def first_error(scores: ArrayLike, threshold: ArrayLike) -> NDArray[np.intp]:
    """The first step (...,) whose score is below the threshold, else -1; scores (..., T), NaN where one is missing."""
    below = np.asarray(scores, float) < np.asarray(threshold, float)
    return np.where(below.any(-1), below.argmax(-1), -1)


def step_f1(predicted: ArrayLike, label: ArrayLike, weights: ArrayLike = 1.0) -> tuple[Numbers, Numbers, Numbers]:
    """(F1, accuracy on solutions with an error, accuracy on those without): F1 is the harmonic mean of both.

    Args:
        predicted, label: (..., n) index of the first wrong step, -1 for none.
        weights: (..., n) of the solutions.
    """
    predicted, label = np.asarray(predicted), np.asarray(label)
    weights = np.broadcast_to(np.asarray(weights, float), np.broadcast_shapes(np.shape(weights), predicted.shape))
    hit = (predicted == label) * weights
    wrong = label >= 0
    on_wrong = ratio((hit * wrong).sum(-1), (weights * wrong).sum(-1))
    on_right = ratio((hit * ~wrong).sum(-1), (weights * ~wrong).sum(-1))
    both = on_wrong + on_right
    f1 = np.divide(2 * on_wrong * on_right, both, out=np.where(np.isnan(both), np.nan, 0.0), where=both > 0)
    return f1, on_wrong, on_right


def _ascending(
    scores: ArrayLike, right: ArrayLike, weights: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[np.bool_], Numbers]:
    """Where equal scores begin, and outcomes and weights, in the order of the scores."""
    scores = np.asarray(scores, float)
    order = np.argsort(scores, kind="stable")
    ties = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) != 0)
    weights = np.broadcast_to(np.asarray(weights, float), (*np.shape(weights)[:-1], len(scores)))
    return ties, np.asarray(right, bool)[order], weights[..., order]
