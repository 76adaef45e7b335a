"""What a question will gain and cost under a plan, told before anything is spent.

Source: none of its own; it is the plan's own cross-validated measurement at one price, for all problems or for those
that look alike after a probe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from outthink.cost import worth
from outthink.driver import solve_async
from outthink.errors import UsageError
from outthink.maths.selection import codes
from outthink.models.engine import Engine
from outthink.models.roles import MAIN, by_role
from outthink.planner.plan import Expected, Plan
from outthink.rewards.making import describe
from outthink.strategies.parallel.best_of_n import BestOfN
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.types import Budget, Problem, Sampling


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """A prediction for one question.

    Args:
        price: at which `auto` will decide; unit: of all costs.
        accuracy, low, high: chance of a right answer with its 90% interval.
        cost: expected; cost_low, cost_high: the range that holds 90% of problems.
        single, single_cost: accuracy and cost of one sample, to compare with.
        bin: which of how many bins of difficulty the probe has put it in, 1 the hardest; None without a probe.
    """

    price: float
    unit: str
    accuracy: float
    low: float
    high: float
    cost: float
    cost_low: float
    cost_high: float
    single: float
    single_cost: float
    bin: tuple[int, int] | None = None

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """For people."""
        where = (
            "" if self.bin is None else f" (a question of difficulty bin {self.bin[0]} of {self.bin[1]}, 1 the hardest)"
        )
        return [
            f"A right answer with {100 * self.accuracy:.0f}% ({100 * self.low:.0f}% to {100 * self.high:.0f}%){where}; "
            f"a single sample gives {100 * self.single:.0f}% over all questions.",
            f"Cost: {amount(self.cost)} {self.unit} on average, between {amount(self.cost_low)} and "
            f"{amount(self.cost_high)} for nine questions in ten; a single sample costs {amount(self.single_cost)}.",
        ]


def quote(plan: Plan, price: float, *, limit: float | None = None, bin_number: int | None = None) -> Quote:
    """What the plan expects at a price.

    Args:
        limit: the most that the question may cost. Where it binds, it is what was measured with such limits, in
            proportion between two of them, and bins, which were measured without one, are shifted by what the limit
            costs on average.
        bin_number: of the plan's table, from 0; None: the question has not been probed.

    Raises UsageError where the limit is less than a sample may cost.
    """
    expected = plan.at(price)
    free = _unlimited(plan, expected, bin_number)
    if limit is None:
        return free
    if limit < plan.least:
        raise UsageError(
            f"A sample may cost {amount(plan.least)} {plan.unit}, and nothing is begun that may cost more than the "
            f"budget of {amount(limit)}: allow at least that."
        )
    within = plan.within(limit)
    if within.cost >= expected.cost * (1 - 1e-6):  # at this price it seldom gets there
        return replace(free, cost_high=min(free.cost_high, limit))
    if bin_number is None:
        return replace(
            free,
            accuracy=within.accuracy,
            low=within.low,
            high=within.high,
            cost=within.cost,
            cost_low=within.least,
            cost_high=min(within.most, limit),
        )
    lost, saved = within.accuracy - expected.accuracy, within.cost / expected.cost
    accuracy, low, high = (min(max(value + lost, 0.0), 1.0) for value in (free.accuracy, free.low, free.high))
    return replace(
        free,
        accuracy=accuracy,
        low=low,
        high=high,
        cost=min(free.cost * saved, limit),
        cost_low=min(free.cost_low, limit),
        cost_high=min(free.cost_high, limit),
    )


def _unlimited(plan: Plan, expected: Expected, bin_number: int | None) -> Quote:
    one = min((fixed for fixed in plan.fixed if not fixed.setting.startswith("target:")), key=lambda fixed: fixed.cost)
    whole = {"price": expected.price, "unit": plan.unit, "single": one.accuracy, "single_cost": one.cost}
    if bin_number is None or not expected.bins[bin_number].share:
        return Quote(
            accuracy=expected.accuracy,
            low=expected.low,
            high=expected.high,
            cost=expected.cost,
            cost_low=expected.least,
            cost_high=expected.most,
            **whole,  # type: ignore[arg-type]  # each by its own name
        )
    inside = expected.bins[bin_number]
    return Quote(
        accuracy=inside.accuracy,
        low=inside.low,
        high=inside.high,
        cost=inside.cost,
        cost_low=inside.cost_low,
        cost_high=inside.cost_high,
        bin=(bin_number + 1, len(expected.bins)),
        **whole,  # type: ignore[arg-type]  # each by its own name
    )


def price_at(plan: Plan, budget: Budget, value_of_correct: str) -> float:
    """The price at which `auto` would decide with this budget of a problem, or this worth of a right answer.

    Raises UsageError where either is in another unit than the plan.
    """
    if value_of_correct:
        try:
            value, unit = worth(value_of_correct)
        except ValueError as cause:
            raise UsageError(f"{cause}.") from None
        if unit != plan.unit:
            raise UsageError(
                f"The plan counts {plan.unit}; say in {plan.unit} what a right answer is worth, or plan in {unit}."
            )
        return 1 / value
    limit = budget.limits.get(plan.unit)
    if limit is None and budget.limits:
        raise UsageError(f"The plan counts {plan.unit}, so the budget has to be in {plan.unit}.")
    return min(point.price for point in plan.expected) if limit is None else plan.price(limit)


async def ease_of(
    plan: Plan,
    problem: Problem,
    model: Engine | None = None,
    *,
    models: Mapping[str, Engine] | None = None,
    verifier: str | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> tuple[float, dict[str, float]]:
    """How easy the problem looks after the plan's probe, and what that cost; `model` and `models` as for `solve_async`.

    Raises UsageError where the plan is for another model, or its difficulty needs the right answers.
    """
    table = plan.table
    if plan.oracle:
        raise UsageError("The plan's bins know the right answers, so no probe can find them; fit it by agreement.")
    engines = by_role(model, models)
    sampling = (sampling or Sampling()).settled()
    needs = describe(verifier) if table.difficulty == "verifier" else plan.verifier
    replace(plan, runs={}).check(  # none of them is run
        model=engines[MAIN].spec.name, target=plan.target, verifier=needs, sampling=asdict(sampling)
    )
    scoring = {"logprob": "confidence", "verifier": verifier}.get(table.difficulty)
    if table.difficulty == "verifier" and verifier is None:
        raise UsageError(f"The plan's bins are cut by scores of {plan.verifier}: add --verifier.")
    trace = await solve_async(
        problem,
        BestOfN(n=table.probe) if scoring else SelfConsistency(n=table.probe),
        models=engines,
        verifier=scoring,
        sampling=sampling,
        seed=seed,
    )
    samples = [candidate for candidate in trace.candidates if candidate.address[0] == "model"]
    keys = codes([sample.key for sample in samples])
    if table.difficulty == "length":
        ease = -float(np.mean([sample.tokens for sample in samples]))
    elif table.difficulty == "logprob":
        ease = float(np.mean([np.mean(sample.logprobs) for sample in samples if sample.logprobs]))
    elif table.difficulty == "verifier":
        scores = [score for score in trace.rounds[-1].scores or () if score is not None]
        ease = float(np.mean(scores)) if scores else 0.0
    else:
        counts = np.bincount(keys[keys >= 0])
        shares = counts / max(counts.sum(), 1)
        entropy = -float((shares[shares > 0] * np.log(shares[shares > 0])).sum()) / math.log(len(samples) + 1)
        ease = float(shares.max(initial=0.0)) if table.difficulty == "agreement" else -entropy
    return ease, trace.cost


def amount(value: float) -> str:
    """A cost for people."""
    return f"{value:,.0f}" if 100 <= value < 1e7 else f"{value:.3g}"
