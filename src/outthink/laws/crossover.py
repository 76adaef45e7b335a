"""Crossover: up to which budget many samples of a small model beat few of a large one.

Source: Scaling Laws of Motion Forecasting and Planning, a technical report (2025), which says that there is such a
crossover; the abstract and an overview were read, not the section on inference, so the law of the loss and how the
crossing is found are our design. Differs: a law whose floor the data do not show is refused, because the floors decide
where two laws cross.

The mean loss over problems after S samples is L + a S^-b: it is a law of that mean and of no single problem. Loss is
the error of the best of K representatives at a fixed K, 1 - coverage, or any mean that falls towards a floor of at
least 0. Re-fit it for every task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.maths.intervals import Interval, bootstrap

Floats = NDArray[np.float64]

_LEFT = 0.5  # most that the loss may still have to fall at the largest S, as a share of what it was seen to fall
_EXPONENTS = (0.01, 10.0)
_GRID = 200
_ZOOMS = 3  # each between the neighbours of the best, and ten times finer, so to a relative 2e-5
_HALVINGS = 40  # of a 200th of the range, so to the last digit or nearly
_TESTS = 100  # resamples in which half of the samples are fitted
_MISSED = 0.005  # what the law of half of them must miss by more, so that it is no trifle
_FAR = 10.0  # a crossing beyond so many times the largest budget that was measured for both is not looked for


@dataclass(frozen=True, kw_only=True, slots=True)
class LossLaw:
    """loss(S) = L + a S^-b.

    Args:
        floor: L, at least 0.
        a: at least 0.
        b: above 0.
        least, most: smallest and largest S that were fitted.
        error: largest absolute difference from what was fitted.
    """

    floor: float
    a: float
    b: float
    least: float = 1.0
    most: float = 1.0
    error: float = 0.0

    def at(self, samples: ArrayLike) -> Floats:
        """The mean loss (...) after S (...) samples, which may be fractions; infinite below one sample."""
        s = np.asarray(samples, float)
        return np.where(s >= 1, self.floor + self.a * np.maximum(s, 1.0) ** -self.b, np.inf)


def fit_loss(samples: ArrayLike, losses: ArrayLike) -> LossLaw:
    """The law of mean losses (m,) at samples (m,), by least squares; for each b the best L and a are known exactly.

    Raises Unidentified with fewer than three different S, where the loss does not fall, and where at the largest S it
    still has more than half of what it fell to fall: then the floor is a guess.
    """
    s, loss = np.asarray(samples, float), np.asarray(losses, float)
    if s.ndim != 1 or s.shape != loss.shape or not (s >= 1).all() or not (loss >= 0).all():
        raise ValueError("samples and losses must be two rows of the same length, of at least 1 and at least 0")
    if len(np.unique(s)) < 3:
        raise Unidentified("A loss with a floor needs three different numbers of samples.")
    least, most = float(s.min()), float(s.max())
    if np.ptp(loss) <= 1e-12 * loss.max():  # already at its floor
        return LossLaw(floor=float(loss.mean()), a=0.0, b=1.0, least=least, most=most)
    low, high = np.log(_EXPONENTS)
    grid = np.linspace(low, high, _GRID)
    for _ in range(_ZOOMS + 1):
        floors, slopes, errors = _best_lines(s ** -np.exp(grid)[:, None], loss)
        best = int(errors.argmin())
        b, floor, a = float(np.exp(grid[best])), float(floors[best]), float(slopes[best])
        grid = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 21)
    if a == 0:
        raise Unidentified("The loss does not fall with more samples, so that no law of its fall can be fitted.")
    left = a * most**-b
    seen = a * least**-b - left
    if left > _LEFT * seen:
        raise Unidentified(
            f"At {most:g} samples the loss has fallen by {seen:.3g} and may still fall by {left:.3g}, so that its "
            "floor, which decides where models cross, is a guess; more samples are needed."
        )
    error = float(np.abs(floor + a * s**-b - loss).max())
    return LossLaw(floor=floor, a=a, b=b, least=least, most=most, error=error)


def loss_drift(samples: ArrayLike, losses: ArrayLike, *, seed: int = 0) -> Interval | None:
    """Interval of what the law of half of the samples misses at all of them: told less measured; None without a law.

    Args:
        samples: (m,) numbers S, at least 1.
        losses: (problems, m).
    """
    s, table = np.asarray(samples, float), np.asarray(losses, float)
    half, last = s <= s.max() / 2, int(s.argmax())
    if len(np.unique(s[half])) < 3:
        return None

    def missed(problems: NDArray[np.intp]) -> float:
        mean = table[problems].mean(0)
        return float(fit_loss(s[half], mean[half]).at(s[last]) - mean[last])

    try:
        return bootstrap(missed, len(table), resamples=_TESTS, seed=seed)
    except Unidentified:
        return None


def _best_lines(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Intercepts and slopes (n,), both at least 0, of the best lines through y (m,) over x (n, m); squared errors."""
    middle = x.mean(-1)
    spread = ((x - middle[:, None]) ** 2).sum(-1)
    slope = ((x - middle[:, None]) * y).sum(-1) / spread
    floor = y.mean() - slope * middle
    through_0 = (x * y).sum(-1) / (x**2).sum(-1)
    slope, floor = np.where(floor < 0, through_0, slope), np.maximum(floor, 0.0)
    flat = slope <= 0
    slope, floor = np.where(flat, 0.0, slope), np.where(flat, y.mean(), floor)
    return floor, slope, ((floor[:, None] + slope[:, None] * x - y) ** 2).sum(-1)


def envelope(laws: Sequence[LossLaw], costs: Sequence[float], budgets: ArrayLike) -> tuple[NDArray[np.intp], Floats]:
    """The best model (...) at each budget (...), the first of equals, and its loss; -1 and infinite where none fits.

    Args:
        costs: of one sample of each model, in the unit of the budgets, above 0: compare FLOPs or seconds, not samples.
    """
    _need_costs(costs)
    budgets = np.asarray(budgets, float)
    losses = np.stack([law.at(budgets / cost) for law, cost in zip(laws, costs, strict=True)])
    lowest = losses.min(0)
    return np.where(np.isfinite(lowest), losses.argmin(0), -1), lowest


def crossings(
    laws: tuple[LossLaw, LossLaw], costs: tuple[float, float], low: float, high: float
) -> list[tuple[float, int]]:
    """Budgets from low to high at which the two laws are equal, and which of them is better above, by bisection.

    Two laws cross at most a few times; crossings that are closer to each other than a 200th of the range are not seen.
    """
    _need_costs(costs)
    if not max(costs) <= low < high:
        raise ValueError("low must be at least one sample of either model, and high above it")

    (one, other), (price, other_price) = laws, costs

    def behind(budget: Any) -> Any:
        """How much more the first model loses."""
        mine, its = one.a * (budget / price) ** -one.b, other.a * (budget / other_price) ** -other.b
        return one.floor - other.floor + mine - its

    grid = np.geomspace(low, high, 201)
    signs = np.sign(behind(grid))
    places = []
    for left, right in pairwise(np.flatnonzero(signs)):
        if signs[left] == signs[right]:
            continue
        below, above = float(grid[left]), float(grid[right])
        for _ in range(_HALVINGS):
            middle = math.sqrt(below * above)
            below, above = (middle, above) if behind(middle) * signs[left] > 0 else (below, middle)
        places.append((above, int(signs[right] > 0)))
    return places


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModelLosses:
    """A model's losses on problems.

    Args:
        samples: (m,) numbers of samples S, at least 1.
        losses: (problems, m) of each problem at each S, at least 0.
        cost: of one sample, above 0.
    """

    samples: ArrayLike
    losses: ArrayLike
    cost: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossover:
    """Where the second model becomes the better one.

    Args:
        budget: per problem; None where it does not happen exactly once in the range (`envelope` says which is better).
        low, high: interval over problems; None without a budget.
        missing: share of resamples in which it does not exist.
        range: budgets in which it was looked for: from one sample of either model to ten times the largest budget that
            was measured for both.
        laws: of the two models.
    """

    budget: float | None
    low: float | None
    high: float | None
    missing: float
    range: tuple[float, float]
    laws: tuple[LossLaw, LossLaw]


def crossover(
    first: ModelLosses, second: ModelLosses, *, level: float = 0.95, resamples: int = 500, seed: int = 0
) -> Crossover:
    """The budget from which on the second, dearer model is better, with an interval over problems.

    Both are measured on the same problems in the same order. Raises Unidentified as `fit_loss`, where the range is
    empty, where they cross beyond what was measured and half of the samples would have misled, and where the crossing
    or a law does not exist for more than a fifth of the resamples.
    """
    tables = tuple(np.asarray(one.losses, float) for one in (first, second))
    if any(table.ndim != 2 for table in tables) or len(tables[0]) != len(tables[1]):
        raise ValueError("crossover needs losses of both models on the same problems")
    costs = (first.cost, second.cost)
    _need_costs(costs)

    def fitted(problems: NDArray[np.intp]) -> tuple[LossLaw, LossLaw]:
        one, other = (table[problems].mean(0) for table in tables)
        return fit_loss(first.samples, one), fit_loss(second.samples, other)

    def crossing(laws: tuple[LossLaw, LossLaw]) -> float | None:
        places = crossings(laws, costs, low, high)
        return places[0][0] if len(places) == 1 and places[0][1] == 1 else None

    everything = np.arange(len(tables[0]))
    laws = fitted(everything)
    low = max(costs)
    high = _FAR * min(law.most * cost for law, cost in zip(laws, costs, strict=True))
    if high <= low:
        raise Unidentified("No budget that was measured, or nearly, buys a sample of both models.")
    budget = crossing(laws)
    if budget is None:
        return Crossover(budget=None, low=None, high=None, missing=0.0, range=(low, high), laws=laws)
    if budget > high / _FAR:
        for one, table, which in zip((first, second), tables, ("first", "second"), strict=True):
            missed = loss_drift(one.samples, table, seed=seed)
            if missed is not None and (missed.low > _MISSED or missed.high < -_MISSED):
                raise Unidentified(
                    f"The laws cross beyond what was measured, and of the {which} model half of the samples would have "
                    f"misled by {100 * abs(float(missed.low + missed.high)) / 2:.1f} points at all of them, so that "
                    "nothing is known of it; more samples are needed."
                )
    interval = bootstrap(
        lambda problems: crossing(fitted(problems)), len(everything), level=level, resamples=resamples, seed=seed
    )
    return Crossover(
        budget=budget,
        low=float(interval.low),
        high=float(interval.high),
        missing=interval.missing,
        range=(low, high),
        laws=laws,
    )


def _need_costs(costs: Sequence[float]) -> None:
    if not all(0 < cost < np.inf for cost in costs):
        raise ValueError("costs must be above 0")
