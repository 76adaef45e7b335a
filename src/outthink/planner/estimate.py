"""The probability of being right, predicted from features: a logistic regression, calibrated by isotonic regression.

Source: textbook logistic regression; isotonic calibration on predictions for problems that were not fitted (Zadrozny
and Elkan 2002, from memory). Differs: the calibration is kept as a few knots, so that a plan can be read.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outthink.errors import UsageError

Floats = NDArray[np.float64]

_PARTS = (0.0, 0.02, 0.06, 0.15, 0.3, 0.45, 0.6, 0.75, 0.88, 0.95, 0.985, 1.0)
"""Quantiles of what is predicted between the knots of the calibration; closer at the ends, where decisions are made."""
_STRENGTH = 1.0  # of the ridge penalty on standardised coefficients
_WEIGHT = 8.0  # of all rows of a problem together, because many rows of one problem do not say more than a few


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
        raw, calibrated: knots of the calibration, both rising; between them it is linear.
    """

    intercept: float
    coefficients: tuple[float, ...]
    raw: tuple[float, ...] = (0.0, 1.0)
    calibrated: tuple[float, ...] = (0.0, 1.0)

    def at(self, units: Floats) -> Floats:
        """(...,) from standard features (..., f)."""
        return np.asarray(np.interp(self._logistic(units), self.raw, self.calibrated))

    def _logistic(self, units: Floats) -> Floats:
        return np.asarray(1 / (1 + np.exp(-(units @ np.array(self.coefficients) + self.intercept))))


def fit_estimate(units: Floats, credit: Floats, problems: NDArray[np.intp], *, folds: int = 3) -> Estimate:
    """An estimate from rows.

    Args:
        units: (rows, f) standard features.
        credit: (rows,) in [0, 1]: right or wrong, or the chance of it.
        problems: (rows,) which problem a row belongs to; calibration is fitted on predictions by the other folds.
    """
    raw = np.empty(len(credit))
    fold = problems % folds
    for held in range(folds):
        there = fold == held
        if there.any():
            others = len(np.unique(problems[~there]))
            raw[there] = _regression(units[~there], credit[~there], others)._logistic(units[there])
    fitted = _regression(units, credit, len(np.unique(problems)))
    knots, values = _isotonic(raw, credit)
    return Estimate(intercept=fitted.intercept, coefficients=fitted.coefficients, raw=knots, calibrated=values)


def _regression(units: Floats, credit: Floats, problems: int) -> Estimate:
    """Newton's method would do as well; the library's is tested. Credit between 0 and 1 is a weighted pair of rows."""
    if len(credit) == 0:
        return Estimate(intercept=0.0, coefficients=(0.0,) * units.shape[1])
    if credit.max() <= 0 or credit.min() >= 1:  # one class only: its rate with one pseudo-observation of each
        rate = (credit.sum() + 1) / (len(credit) + 2)
        return Estimate(intercept=float(np.log(rate / (1 - rate))), coefficients=(0.0,) * units.shape[1])
    try:
        from sklearn.linear_model import LogisticRegression  # here, because it is slow to import
    except ImportError:
        raise UsageError("Fitting a plan needs scikit-learn: pip install 'outthink[learn]'.") from None

    between = (credit > 0) & (credit < 1)
    rows = np.concatenate([units, units[between]])
    right = np.concatenate([credit > 0, np.zeros(between.sum(), dtype=bool)])
    weight = np.concatenate([np.where(credit > 0, credit, 1.0), 1 - credit[between]])
    weight *= _WEIGHT * problems / len(credit)
    model = LogisticRegression(C=1 / _STRENGTH, solver="newton-cholesky", max_iter=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that has not quite converged is calibrated all the same
        model.fit(rows, right, sample_weight=weight)
    return Estimate(intercept=float(model.intercept_[0]), coefficients=_plain(model.coef_[0]))


def _isotonic(raw: Floats, credit: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots of the calibration: isotonic regression, taken at quantiles of what was predicted."""
    from sklearn.isotonic import IsotonicRegression

    if np.ptp(raw) < 1e-6:
        return (0.0, 1.0), (float(credit.mean()),) * 2  # it says the same of all
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(raw, credit)
    edges = np.quantile(raw, _PARTS)
    # the mean of each part stands at the part's mean, so that steps of the regression do not decide the knots
    part = np.clip(np.searchsorted(edges, raw, side="right") - 1, 0, len(_PARTS) - 2)
    there = [part == index for index in range(len(_PARTS) - 1) if (part == index).any()]
    knots = np.array([raw[inside].mean() for inside in there])
    values = np.array([fitted.predict(raw[inside]).mean() for inside in there])
    knots, first = np.unique(knots, return_index=True)
    # beyond what was predicted it goes on to where 0 is 0 and 1 is 1
    values = np.maximum.accumulate(values[first])
    return _plain([0.0, *knots, 1.0]), _plain([0.0, *values, 1.0])


def _plain(values: NDArray[np.generic] | Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{float(value):.6g}") for value in values)
