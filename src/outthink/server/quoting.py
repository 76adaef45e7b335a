"""What a request may cost, and with a plan what it is expected to cost and gain; nothing is spent."""

from __future__ import annotations

import math
from typing import Any

from outthink.driver import check_one_fits
from outthink.planner.auto import GENERAL, Auto
from outthink.planner.plan import Plan
from outthink.planner.quote import price_at, quote
from outthink.server.job import Job, worst_sample
from outthink.server.routing import most_samples
from outthink.strategies.comparing import Comparing
from outthink.types import Budget


async def quoted(job: Job, *, judges: bool) -> dict[str, Any]:
    """The quote of a job, as the API has it; `judges`: whether there are further roles. Raises BudgetTooSmall."""
    worst = await worst_sample(job.engine, job.problem, job.sampling)
    check_one_fits(job.budget, worst, job.sampling.cap)
    strategy = job.choice.strategy
    strategy = getattr(strategy, "strategy", strategy)
    n = most_samples(job.choice)
    limits = {unit: limit for unit, limit in job.budget.limits.items() if unit != "seconds"}
    most = {unit: amount * n for unit, amount in worst.items()} if n else {}
    notes = []
    if not set(most) | set(limits):
        notes.append(f"how much {job.choice.named['name']} uses is not known before; a budget would limit it")
    if job.cap is not None and (told := job.cap.sentence()) is not None:
        notes.append(told)
    chooses = isinstance(job.choice.strategy, Comparing) and judges  # among replies that all differ
    if n and (job.choice.scorers or chooses):
        notes.append("what verifiers use is limited by the budget only")
    expected = None
    if isinstance(strategy, Auto) and not strategy.plan:
        notes.append(GENERAL)
    if isinstance(strategy, Auto) and strategy.plan:
        plan = Plan.open(strategy.plan)
        limit = limits.get(plan.unit)
        budget = Budget({} if limit is None else {plan.unit: limit})
        price = price_at(plan, budget, strategy.value_of_correct)
        price = plan.price(strategy.mean_cost) if strategy.mean_cost else price
        expected = quote(plan, price, limit=limit).plain()
    return {
        "object": "outthink.quote",
        "model": job.name,
        "strategy": dict(job.choice.named),
        "sample": worst,
        "most": {unit: min(most.get(unit, math.inf), limits.get(unit, math.inf)) for unit in {**most, **limits}},
        "expected": expected,
        "notes": notes,
    }
