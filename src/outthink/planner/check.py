"""A plan against recordings that it was not learned from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from outthink.errors import UsageError
from outthink.maths.intervals import mean_and_interval
from outthink.planner.cases import cases
from outthink.planner.evidence import Floats
from outthink.planner.plan import Expected, Plan
from outthink.planner.recordings import Recordings, cost_of
from outthink.planner.simulate import Simulator
from outthink.planner.trust import LEVEL
from outthink.records.runs import OWN, Result, read_results
from outthink.reports.feedback import feedback_credits


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """A plan at one price on new recordings.

    Args:
        drift: what is wrong, in words; empty where it is as expected.
    """

    price: float
    expected: Expected
    accuracy: float
    low: float
    high: float
    cost: float
    cost_low: float
    cost_high: float
    drift: tuple[str, ...]


def check_plan(plan: Plan, recordings: Recordings) -> list[Checked]:
    """The plan's policy on new problems, at each of its prices, and where that differs from what it expects.

    Each sentence of drift is a difference beyond a 99% interval, so one in a hundred is a false alarm.
    """
    prm = next((run.scorers["prm"] for run in recordings.material.runs if "prm" in run.scorers), None)
    plan.check(
        model=recordings.model,
        target=recordings.target,
        verifier=recordings.verifier,
        sampling=recordings.sampling,
        prm=prm,
    )
    whole = recordings.material
    missing = {action.run for action in plan.policy.actions if action.kind == "run"} - {run.name for run in whole.runs}
    if missing:
        raise UsageError(f"The plan may run {min(missing)}: give a run of it on these problems, too.")
    if whole.unit != plan.unit:
        raise UsageError(f"The plan counts {plan.unit}, not {whole.unit}; add --unit {plan.unit}.")
    if set(plan.policy.signals) - set(whole.signals):
        raise UsageError(f"The plan reads {', '.join(plan.policy.signals)}; the pool has {', '.join(whole.signals)}.")
    whole = replace(
        whole,
        signals=plan.policy.signals,
        target=whole.target if plan.target else None,
        target_orders=whole.target_orders if plan.target else None,
    )
    for kind, side in (("sample", whole.model), ("target", whole.target)):
        most = max((action.n for action in plan.policy.actions if action.kind == kind), default=0)
        if side is not None and side.samples < most:
            raise UsageError(f"The plan draws up to {most} samples, and the pool has {side.samples}: record as many.")
    of_plan = cases(whole, plan.policy.vote)
    simulator = Simulator(plan.policy, of_plan, whole)
    outside = np.mean([plan.policy.scale.outside(of_plan.features[state]).mean() for state in of_plan.states[1:]])
    checked = []
    for expected in plan.expected:
        outcome = simulator.at(expected.price)
        checked.append(_checked(expected, outcome.credit.mean(1), outcome.cost.mean(1), float(outside)))
    return checked


def check_run(plan: Plan, results: Sequence[Result]) -> Checked:
    """A run of `auto` with this plan, at its price, against what the plan expects."""
    graded = [result for result in results if result.credit is not None and result.trace is not None]
    if not graded:
        raise UsageError("The run has no graded problem.")
    strategy = graded[0].trace.strategy if graded[0].trace else {}
    if strategy.get("name") != "auto":
        raise UsageError("The run is not one of auto, so the plan says nothing about it.")
    prices = [price for price in (_price_of(result, plan.unit) for result in graded) if price is not None]
    if not prices:
        raise UsageError(f"The run does not say at which price of {plan.unit} it was; run auto with this plan.")
    plans = {result.trace.resources.get("plan") for result in graded if result.trace}
    if plans != {plan.digest}:
        raise UsageError("The run was made with another plan.")
    credit = np.array([result.credit for result in graded], dtype=float)
    spent = [cost_of(result.trace, plan.unit) for result in graded if result.trace]
    cost = np.array([math.nan if one is None else one for one in spent])
    return _checked(plan.at(float(np.median(prices))), credit, cost, 0.0)


def served(plan: Plan, run: Path) -> list[Result]:
    """What a recorded run has of this plan's own decisions, with what callers have said where nothing else is known.

    Requests that got a random action, and those that their callers decided, are left out.
    """
    credits = feedback_credits(run)
    return [
        result if result.credit is not None else replace(result, credit=credits.get(result.problem))
        for result in read_results(run)
        if result.trace is not None
        and result.trace.resources.get("plan") == plan.digest
        and (result.trial is None or result.trial.action == OWN)
    ]


def _price_of(result: Result, unit: str) -> float | None:
    notes = () if result.trace is None else result.trace.notes
    said = next((note for note in notes if note.startswith("price ") and f" of 1 {unit}," in note), None)
    return None if said is None else float(said.split()[1])


def _checked(expected: Expected, credit: Floats, cost: Floats, outside: float) -> Checked:
    accuracy, low, high = mean_and_interval(credit, level=LEVEL)
    mean, cost_low, cost_high = mean_and_interval(cost, most=math.inf, level=LEVEL)
    drift = []
    # half widths of 90% intervals of both, to 99%
    wide = 2.576 / 1.645
    if abs(accuracy - expected.accuracy) > wide * math.hypot(high - low, expected.high - expected.low) / 2:
        drift.append(f"accuracy is {100 * accuracy:.1f}%, expected were {100 * expected.accuracy:.1f}%")
    spread = math.hypot(cost_high - cost_low, expected.cost_high - expected.cost_low) / 2
    if abs(mean - expected.cost) > wide * spread:
        drift.append(f"a problem costs {mean:,.4g}, expected were {expected.cost:,.4g}")
    if outside > 0.05:
        drift.append(f"{100 * outside:.0f}% of what is seen lies outside of what the plan was fitted on")
    return Checked(
        price=expected.price,
        expected=expected,
        accuracy=accuracy,
        low=low,
        high=high,
        cost=mean,
        cost_low=cost_low,
        cost_high=cost_high,
        drift=tuple(drift),
    )
