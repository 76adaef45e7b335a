"""Whether a policy keeps its word where it acts: on problems that it was not fitted on, at prices that it decides by.

Source: reliability diagrams (from memory), taken where the policy stopped and not over all that it saw. Differs: the
gain that made it go on is compared with what going on brought, and a price with 1.5 times that price: a policy that is
better off with the higher one thinks too well of going on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outthink.maths.intervals import Bootstrap, mean_and_interval, ratio
from outthink.planner.evidence import Floats
from outthink.planner.fixed import Family
from outthink.planner.simulate import Outcome, Simulator

LEVEL = 0.9
"""Of the intervals of a plan."""

HARSHER = 1.5
"""How many times the price the same policy decides by, to be compared with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Utility:
    """Accuracy less price times mean cost, at one price, on problems that nothing was chosen on.

    Args:
        auto: of the policy; harsher: of the same policy deciding at 1.5 times the price.
        fixed: of the best fixed strategy, chosen on the other folds.
        low, high: 90% interval of `auto` less `fixed`, over problems.
        said, true: the mean gain that was predicted wherever it went on, and what going on brought, with its 90%
            interval; 0 where it never did.
    """

    price: float
    auto: float
    harsher: float
    fixed: float
    low: float
    high: float
    said: float
    true: float
    true_low: float
    true_high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenth:
    """Cases whose predicted chance at the stop lies in one tenth; a case is a problem in one order of its samples."""

    said: float
    true: float
    cases: int
    problems: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Acted:
    """What a policy did at one price on some problems: arrays (problems, orders); of going on sums (problems,)."""

    outcome: Outcome
    chance: Floats
    harsher: Outcome
    said: Floats
    true: Floats
    times: Floats


def acted(simulator: Simulator, price: float) -> Acted:
    """The policy at a price, and at the harsher one."""
    outcome = simulator.at(price)
    said, true, times = simulator.promised(outcome, price)
    return Acted(
        outcome=outcome,
        chance=simulator.right_when(outcome),
        harsher=simulator.at(HARSHER * price),
        said=said,
        true=true,
        times=times,
    )


def tenths(chance: Floats, right: Floats) -> tuple[Tenth, ...]:
    """Predictions (problems, orders) against what came, by tenths of the predictions; empty ones are left out."""
    part = np.minimum((chance * 10).astype(int), 9)
    return tuple(
        Tenth(
            said=float(chance[inside].mean()),
            true=float(right[inside].mean()),
            cases=int(inside.sum()),
            problems=int(inside.any(1).sum()),
        )
        for inside in (part == tenth for tenth in range(10))
        if inside.any()
    )


def utility(price: float, parts: Sequence[Acted], rows: Sequence[NDArray[np.intp]], every: Sequence[Family]) -> Utility:
    """At a price, from what the policies of the folds did.

    Args:
        parts: of each fold; rows: its problems, as positions in the families.
        every: fixed strategies among others.
    """
    problems = sum(len(row) for row in rows)
    auto, harsher, fixed = (np.empty(problems) for _ in range(3))
    fixed_settings = [family for family in every if not family.adaptive]
    worth = np.concatenate([(family.credit - price * family.cost).mean(1) for family in fixed_settings], -1)
    for part, row in zip(parts, rows, strict=True):
        auto[row] = (part.outcome.credit - price * part.outcome.cost).mean(1)
        harsher[row] = (part.harsher.credit - price * part.harsher.cost).mean(1)
        others = np.setdiff1d(np.arange(problems), row)
        fixed[row] = worth[row, worth[others if len(others) else row].mean(0).argmax()]
    most = 1 + price * max(float(part.outcome.cost.max()) for part in parts)
    _, low, high = mean_and_interval(auto - fixed, least=-most, most=most, level=LEVEL)
    said, true, times = (np.concatenate([getattr(part, name) for part in parts]) for name in ("said", "true", "times"))
    went = np.flatnonzero(times)
    # of a number in [0, 1], as the bounds of the interval are
    gain, gain_low, gain_high = Bootstrap(problems, level=LEVEL).estimate(
        lambda weights: ratio(weights @ (true + times)[went], weights @ (2 * times)[went]), went
    )
    return Utility(
        price=price,
        auto=float(auto.mean()),
        harsher=float(harsher.mean()),
        fixed=float(fixed.mean()),
        low=low,
        high=high,
        said=float(said.sum() / times.sum()) if len(went) else 0.0,
        true=2 * gain - 1 if len(went) else 0.0,
        true_low=2 * gain_low - 1 if len(went) else 0.0,
        true_high=2 * gain_high - 1 if len(went) else 0.0,
    )
