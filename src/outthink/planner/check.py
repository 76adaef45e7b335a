"""A plan against recordings that it was not learned from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from outthink.errors import UsageError
from outthink.maths.intervals import Estimate, mean_and_interval
from outthink.planner.auto import OUTSIDE
from outthink.planner.cases import cases
from outthink.planner.evidence import Floats
from outthink.planner.plan import Expected, Plan
from outthink.planner.recordings import Recordings, cost_of
from outthink.planner.simulate import Simulator
from outthink.planner.trust import LEVEL
from outthink.records.runs import OWN, Result, read_results
from outthink.reports.feedback import feedback_credits
from outthink.types import Trace

_OUTSIDE = 0.05  # share of what is seen that may be unlike what a plan was fitted on


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
    prices = [price for price in (_price_of(result.trace, plan.unit) for result in graded) if price is not None]
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


@dataclass(frozen=True, slots=True)
class Decided:
    """What a plan has decided for one request.

    Args:
        price: of one unit of cost. chance: that the answer is right, as the plan told it; None: it told none.
        cost: in the plan's unit. outside: whether it looked unlike what the plan was fitted on.
    """

    price: float
    chance: float | None
    cost: float
    outside: bool


def decided(unit: str, trace: Trace) -> Decided | None:
    """What the plan of such a unit has decided; None where the trace does not say."""
    price, cost = _price_of(trace, unit), cost_of(trace, unit)
    if price is None or cost is None:
        return None
    return Decided(price, trace.confidence, cost, any(OUTSIDE in note for note in trace.notes))


def traffic_strays(plan: Plan, requests: Sequence[Decided]) -> dict[str, float]:
    """How far requests whose right answers nobody knows lie from what the plan expects, as `check_plan` measures it.

    "confidence" stands in for the accuracy, "cost" is the mean, "outside" the share of what looked unlike what it was
    fitted on. 1 is where `check_plan` speaks of drift.
    """
    chances = [one.chance for one in requests if one.chance is not None]
    costs = [one.cost for one in requests]
    told = {"outside": float(np.mean([one.outside for one in requests])) / _OUTSIDE}
    # callers with budgets of their own have prices of their own
    at = [(plan.at(price), times) for price, times in Counter(one.price for one in requests).items()]
    expected = np.array([[*_accuracy(one), *_cost(one)] for one, _ in at])
    mean = np.average(expected, axis=0, weights=[times for _, times in at]).tolist()
    told["cost"] = _stray(mean_and_interval(costs, most=math.inf, level=LEVEL), (mean[3], mean[4], mean[5]))
    if chances:
        told["confidence"] = _stray(mean_and_interval(chances, level=LEVEL), (mean[0], mean[1], mean[2]))
    return told


def _accuracy(expected: Expected) -> Estimate:
    return expected.accuracy, expected.low, expected.high


def _cost(expected: Expected) -> Estimate:
    return expected.cost, expected.cost_low, expected.cost_high


def _stray(seen: Estimate, expected: Estimate) -> float:
    """How far two means with 90% intervals lie apart, as a part of the half width of a 99% interval."""
    wide = 2.576 / 1.645 * math.hypot(seen[2] - seen[1], expected[2] - expected[1]) / 2
    apart = abs(seen[0] - expected[0])
    return 0.0 if apart == 0 else apart / wide if wide else math.inf


def _price_of(trace: Trace | None, unit: str) -> float | None:
    notes = () if trace is None else trace.notes
    said = next((note for note in notes if note.startswith("price ") and f" of 1 {unit}," in note), None)
    return None if said is None else float(said.split()[1])


def _checked(expected: Expected, credit: Floats, cost: Floats, outside: float) -> Checked:
    accuracy, low, high = mean_and_interval(credit, level=LEVEL)
    mean, cost_low, cost_high = mean_and_interval(cost, most=math.inf, level=LEVEL)
    drift = []
    if _stray((accuracy, low, high), _accuracy(expected)) > 1:
        drift.append(f"accuracy is {100 * accuracy:.1f}%, expected were {100 * expected.accuracy:.1f}%")
    if _stray((mean, cost_low, cost_high), _cost(expected)) > 1:
        drift.append(f"a problem costs {mean:,.4g}, expected were {expected.cost:,.4g}")
    if outside / _OUTSIDE > 1:
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
