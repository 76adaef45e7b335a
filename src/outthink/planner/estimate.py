"""Chances and gains, predicted from features; both calibrated by isotonic regression on problems not fitted.

Source: textbook logistic and ridge regression; isotonic calibration on predictions for problems that were not fitted
(Zadrozny and Elkan 2002, from memory). Differs: the strength of the penalty is chosen by those predictions, too; what
going on gains is regressed itself, and not as the difference of two chances, whose largest is always too large; the
calibration is kept as a few knots, so that a plan can be read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STRENGTHS = (1.0, 4.0, 16.0, 64.0, 256.0)  # of the ridge penalty on standardised coefficients; one of them is chosen
_WEIGHT = 8.0  # of all rows of a problem together, because many rows of one problem do not say more than a few
_FOLDS = 5
_STEPS = 12  # of Newton's method
_PARTS = (4, 24)  # fewest and most parts between the knots of a calibration
_PER_PART = 12  # problems
_PER_GAIN = 20  # the same for gains, of which the largest decide: what few problems gained at an end is mostly luck
_EVEN = 1e-4  # added to a variance, so that what hardly differs is not blown up


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Features to standard units, the same for all estimates of a plan; what is missing becomes the average, 0."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def from_features(cls, features: Floats) -> Scale:
        """From features (rows, f)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a feature that no row has
            mean, deviation = np.nanmean(features, 0), np.nanstd(features, 0)
            low, high = np.nanmin(features, 0), np.nanmax(features, 0)
        missing = np.isnan(mean)
        return cls(
            mean=_plain(np.where(missing, 0.0, mean)),
            deviation=_plain(np.where(missing | (deviation < 1e-9), 1.0, deviation)),
            low=_plain(np.where(missing, 0.0, low)),
            high=_plain(np.where(missing, 0.0, high)),
        )

    def standard(self, features: Floats) -> Floats:
        """(..., f) in standard units."""
        units = (features - np.array(self.mean)) / np.array(self.deviation)
        return np.where(np.isnan(units), 0.0, np.clip(units, -8.0, 8.0))

    def outside(self, features: Floats) -> NDArray[np.bool_]:
        """(...,) whether some feature lies outside of the fitted range by more than a quarter of its width and spread.

        The spread of a feature that was the same everywhere is 1.
        """
        low, high = np.array(self.low), np.array(self.high)
        room = 0.25 * (high - low + np.array(self.deviation))
        return np.asarray(((features < low - room) | (features > high + room)).any(-1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """P(right) = calibration(sigmoid(intercept + coefficients . standard features)).

    Args:
        raw, calibrated: knots of the calibration, both rising; between them it is linear, beyond them level.
    """

    intercept: float
    coefficients: tuple[float, ...]
    raw: tuple[float, ...] = (0.0, 1.0)
    calibrated: tuple[float, ...] = (0.0, 1.0)

    def at(self, units: Floats) -> Floats:
        """(...,) from standard features (..., f)."""
        raw = _sigmoid(units @ np.array(self.coefficients) + self.intercept)
        return np.asarray(np.interp(raw, self.raw, self.calibrated))


@dataclass(frozen=True, kw_only=True, slots=True)
class Prospect:
    """What each of some actions of one kind adds to P(right): offset + slope * one calibrated number.

    All of them go by the same number, so the best of many is no accident of many predictions.

    Args:
        raw, calibrated: knots, from intercept + coefficients . standard features to the mean gain of the actions.
        actions: their positions in the policy.
        offsets, slopes: of each.
    """

    intercept: float
    coefficients: tuple[float, ...]
    raw: tuple[float, ...]
    calibrated: tuple[float, ...]
    actions: tuple[int, ...]
    offsets: tuple[float, ...]
    slopes: tuple[float, ...]

    def at(self, units: Floats) -> Floats:
        """(..., actions) from standard features (..., f)."""
        raw = units @ np.array(self.coefficients) + self.intercept
        number = np.asarray(np.interp(raw, self.raw, self.calibrated))
        return np.asarray(np.array(self.offsets) + np.array(self.slopes) * number[..., None])


def fit_estimate(units: Floats, credit: Floats, problems: NDArray[np.intp]) -> Estimate:
    """An estimate from rows.

    Args:
        units: (rows, f) standard features.
        credit: (rows,) in [0, 1]: right or wrong, or the chance of it.
        problems: (rows,) which problem a row belongs to; the penalty and the calibration are chosen on predictions by
            fits without it.
    """
    fold, weight = _folds(problems), _weight(problems)

    last = [np.zeros(1 + units.shape[1])] * _FOLDS  # with the strength before, which is near

    def held_out(strength: float) -> Floats:
        raw = np.empty(len(credit))
        for number in range(_FOLDS):
            there = fold == number
            last[number] = _logistic(units[~there], credit[~there], weight, strength, last[number])
            raw[there] = _sigmoid(last[number][0] + units[there] @ last[number][1:])
        return raw

    def loss(raw: Floats) -> float:
        sure = np.clip(raw, 1e-4, 1 - 1e-4)
        return float(-(credit * np.log(sure) + (1 - credit) * np.log(1 - sure)).mean())

    strength, raw = _chosen(held_out, loss)
    fitted = _logistic(units, credit, weight, strength, last[0])
    knots, values = _isotonic(raw, credit, len(np.unique(problems)))
    return Estimate(intercept=_short(fitted[0]), coefficients=_plain(fitted[1:]), raw=knots, calibrated=values)


def fit_prospect(units: Floats, gains: Floats, problems: NDArray[np.intp], actions: Sequence[int]) -> Prospect:
    """A prospect from rows.

    Args:
        units: (rows, f) standard features.
        gains: (rows, actions) credit after each action less that of stopping, in [-1, 1].
        problems: (rows,) as for `fit_estimate`.
    """
    fold, weight, mean = _folds(problems), _weight(problems), gains.mean(-1)
    sums = [_sums(units[fold == number], mean[fold == number], weight) for number in range(_FOLDS)]
    products, moments = (np.sum([part[which] for part in sums], 0) for which in (0, 1))

    def held_out(strength: float) -> Floats:
        raw = np.empty(len(mean))
        for number, part in enumerate(sums):
            fitted = _ridge(products - part[0], moments - part[1], strength)
            raw[fold == number] = fitted[0] + units[fold == number] @ fitted[1:]
        return raw

    strength, raw = _chosen(held_out, lambda raw: float(((raw - mean) ** 2).mean()))
    fitted = _ridge(products, moments, strength)
    knots, values = _rising(raw, mean, len(np.unique(problems)))
    number = np.interp(raw, knots, values)
    off = number - number.mean()
    slopes = (gains * off[:, None]).mean(0) / ((off**2).mean() + _EVEN)
    return Prospect(
        intercept=_short(fitted[0]),
        coefficients=_plain(fitted[1:]),
        raw=knots,
        calibrated=values,
        actions=tuple(actions),
        offsets=_plain(gains.mean(0) - slopes * number.mean()),
        slopes=_plain(slopes),
    )


def _chosen(held_out: Callable[[float], Floats], loss: Callable[[Floats], float]) -> tuple[float, Floats]:
    """The strength with the least loss, the strongest of equals, and its predictions."""
    tried = [(strength, held_out(strength)) for strength in reversed(_STRENGTHS)]
    return min(tried, key=lambda pair: loss(pair[1]))


def _folds(problems: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of each row, by problem, whatever the order of the problems says about them."""
    names, place = np.unique(problems, return_inverse=True)
    return np.asarray(np.random.default_rng(94).permutation(len(names)) % _FOLDS)[place]


def _weight(problems: NDArray[np.intp]) -> float:
    return _WEIGHT * len(np.unique(problems)) / max(len(problems), 1)


def _sigmoid(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30.0, 30.0))))


def _logistic(units: Floats, credit: Floats, weight: float, strength: float, start: Floats) -> Floats:
    """Intercept and coefficients by Newton's method from `start`; one doubtful row keeps the intercept finite."""
    rows = np.concatenate([np.ones((len(units), 1)), units], 1)
    penalty = np.concatenate([[0.0], np.full(units.shape[1], strength)])
    fitted = start
    for _ in range(_STEPS):
        chance = _sigmoid(rows @ fitted)
        doubt = _sigmoid(fitted[:1])[0]
        slope = weight * (rows.T @ (chance - credit)) + penalty * fitted
        slope[0] += doubt - 0.5
        curve = weight * ((rows.T * (chance * (1 - chance))) @ rows) + np.diag(penalty)
        curve[0, 0] += doubt * (1 - doubt) + 1e-9
        step = np.linalg.solve(curve, slope)
        fitted = fitted - step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-9))
        if np.abs(step).max() < 1e-3:
            break
    return fitted


def _sums(units: Floats, values: Floats, weight: float) -> tuple[Floats, Floats]:
    rows = np.concatenate([np.ones((len(units), 1)), units], 1)
    return weight * (rows.T @ rows), weight * (rows.T @ values)


def _ridge(products: Floats, moments: Floats, strength: float) -> Floats:
    penalty = np.full(len(moments), strength)
    penalty[0] = 1e-6
    return np.asarray(np.linalg.solve(products + np.diag(penalty), moments))


def _isotonic(raw: Floats, outcome: Floats, problems: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots of the calibration: the mean of each part of what was predicted; parts are smaller at both ends."""
    from scipy.optimize import isotonic_regression  # here, because it is slow to import

    order = np.argsort(raw, kind="stable")
    raw, outcome = raw[order], outcome[order]
    if np.ptp(raw) < 1e-6:
        return (float(raw[0]), float(raw[0]) + 1e-6), (_short(outcome.mean()),) * 2  # it says the same of all
    fitted = isotonic_regression(outcome).x
    parts = int(np.clip(problems // _PER_PART, *_PARTS))
    edges = np.round(len(raw) * (1 - np.cos(np.linspace(0, np.pi, parts + 1))) / 2).astype(int)
    there = [slice(start, end) for start, end in pairwise(edges) if end > start]
    knots, first = np.unique([raw[part].mean() for part in there], return_index=True)
    values = np.maximum.accumulate(np.array([fitted[part].mean() for part in there])[first])
    return _plain(knots), _plain(values)


def _rising(raw: Floats, gain: Floats, problems: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots of the calibration of gains: means of equally large parts of what was predicted, made to rise."""
    from scipy.optimize import isotonic_regression  # here, because it is slow to import

    order = np.argsort(raw, kind="stable")
    if np.ptp(raw) < 1e-6:
        return (float(raw[0]), float(raw[0]) + 1e-6), (_short(gain.mean()),) * 2
    parts = np.array_split(order, int(np.clip(problems // _PER_GAIN, *_PARTS)))
    knots, first = np.unique([raw[part].mean() for part in parts], return_index=True)
    means = isotonic_regression([gain[part].mean() for part in parts], weights=[len(part) for part in parts]).x
    return _plain(knots), _plain(np.maximum.accumulate(means[first]))


def _short(value: float) -> float:
    return float(f"{float(value):.6g}")


def _plain(values: NDArray[np.generic] | Sequence[float]) -> tuple[float, ...]:
    return tuple(_short(float(value)) for value in values)
