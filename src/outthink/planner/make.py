"""Makes a plan from recorded pools and runs, and checks one on new recordings.

Source: none of its own. A pool has many samples of each problem by the model, another one those of the dearer target; a
run is another strategy on the same problems; a verifier's scores are in the pool, or in a run of best_of_n over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from outthink.errors import UsageError
from outthink.maths.intervals import Bootstrap, mean_and_interval, ratio
from outthink.planner.bins import Difficulty, ease, fill
from outthink.planner.cases import SAMPLES, Material
from outthink.planner.evidence import Floats
from outthink.planner.fit import fit_policy
from outthink.planner.plan import Bin, Expected, Fixed, Gain, Limited, Plan, versions
from outthink.planner.policy import Rate
from outthink.planner.recordings import Recordings
from outthink.planner.simulate import Simulator, price_grid
from outthink.planner.trust import LEVEL
from outthink.planner.validate import Validation, table_of, validate

_POINTS = 9  # budgets, where none are given
_PRICES = 3  # at which the policy's word is measured
_SAME = 0.002  # of a mean cost: what differs by less is the same
_HALVINGS = 16  # of a range of prices
_APART = 1.01  # times the mean cost of the last point; nearer ones are the same


def make_plan(
    recordings: Recordings,
    *,
    budgets: Sequence[float] | None = None,
    folds: int = 5,
    bins: int | None = 5,
    difficulty: Difficulty | None = None,
    probe: int = 4,
    seed: int = 0,
    tell: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> tuple[Plan, Validation]:
    """A plan fitted on all problems, and what it is worth by cross-validation.

    Args:
        budgets: mean costs of a problem; None: from little more than one sample to almost all.
        folds: at least 2, and at most the number of problems.
        bins, difficulty, probe: of the table by difficulty; `bins` None: absolute ones; `difficulty` None: the
            verifier's mean, else the mean logprob, else agreement.
        tell: told what is being done, and how many of how many fits are over.
    """
    whole = recordings.material
    if not 2 <= folds <= len(whole.ids):
        raise UsageError(f"{folds} folds of {len(whole.ids)} problems make no sense; take 5.")
    if not 1 <= probe <= whole.model.samples:
        raise UsageError(
            f"The pool has {whole.model.samples} samples, so the probe has from 1 to as many, not {probe}."
        )
    budgets = sorted(budgets) if budgets else default_budgets(whole)
    if difficulty is None:
        shares = bins is None or "logprob" not in whole.signals
        difficulty = "verifier" if recordings.verifier else "agreement" if shares else "logprob"
    tell("Fitting on all problems", 0, folds + 1)
    policy, fitted = fit_policy(whole, seed=seed)
    simulator, grid = Simulator(policy, fitted, whole), price_grid(policy.rates)
    prices = _prices(simulator, budgets, grid)
    outcomes = [simulator.at(price) for price in prices]
    budgets = [float(outcome.cost.mean()) for outcome in outcomes]  # what the policy in the file spends
    validation = validate(
        whole,
        budgets,
        prices=_spread(prices, _PRICES),
        folds=folds,
        bins=bins,
        difficulty=difficulty,
        probe=probe,
        seed=seed,
        tell=lambda fold: tell(f"Measuring on {folds} folds of {len(whole.ids)} problems", fold + 1, folds + 1),
    )
    of_ease = ease(whole, difficulty, probe)
    empty = table_of(of_ease, whole.model.correct.mean(1), budgets, bins, difficulty, probe)
    table, _ = fill(validation.families, of_ease, whole.cost((probe, 0)), empty, probe)
    where, resampled = table.bin(of_ease), Bootstrap(len(whole.ids), level=LEVEL)
    expected = []
    for price, outcome, point in zip(prices, outcomes, validation.points, strict=True):
        within = simulator.at(price, limit=point.wanted)
        expected.append(
            _expected(
                price,
                point.credit_by_order,
                outcome.cost,
                [where == number for number in range(len(table.edges) + 1)],
                resampled,
                limited=_limited(point.wanted, point.limited_credit, within.cost),
                table=(float(point.bins.mean()), float(point.bins_cost.mean())),
            )
        )
    fixed = [
        _fixed(setting, family.credit[..., place].mean(1), float(family.cost[..., place].mean()))
        for family in validation.families
        for place, setting in enumerate(family.labels())
    ]
    gains = [
        Gain(
            against=difference.against,
            cost=float(point.cost.mean()),
            accuracy=float(point.credit.mean()),
            baseline=difference.accuracy,
            low=difference.low,
            high=difference.high,
            ratio=difference.ratio,
        )
        for point in validation.points
        for difference in point.differences
    ]
    chosen = [cell.setting for row in table.cells for cell in row]
    runs = [action.run for action in policy.actions if action.kind == "run"]
    plan = Plan(
        model=recordings.model,
        target=recordings.target,
        verifier=recordings.verifier,
        sampling=recordings.sampling,
        unit=whole.unit,
        least=(least := _least(recordings, policy.rates[0])),
        ceiling=float(outcomes[-1].cost.max()) + least,
        problems=len(whole.ids),
        samples=whole.model.samples,
        policy=policy,
        expected=tuple(expected),
        table=table,
        fixed=tuple(fixed),
        gains=tuple(gains),
        brier=validation.brier,
        base=validation.base,
        reliability=validation.reliability,
        utilities=validation.utilities,
        versions=versions([*chosen, *runs]),
        runs={run.name: run.scorers for run in whole.runs},
    )
    return plan, validation


def _prices(simulator: Simulator, budgets: Sequence[float], grid: Sequence[float]) -> list[float]:
    """The price of each budget, from the highest; a budget that is more than the policy spends at any price is none."""
    prices: list[float] = []
    spent = 0.0
    for budget in budgets:
        price = simulator.price_for(budget, grid)
        cost = float(simulator.at(price).cost.mean())
        if cost > _APART * spent:
            prices.append(_inside(simulator, price, cost, max(grid)))
            spent = cost
    return prices


def _inside(simulator: Simulator, price: float, cost: float, most: float) -> float:
    """The middle of the prices at which the policy spends as much, away from where it begins to spend more."""
    low, high = price, most
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        if simulator.at(middle).cost.mean() > cost * (1 - _SAME):
            low = middle
        else:
            high = middle
    return float(np.sqrt(price * low))


def _least(recordings: Recordings, rate: Rate) -> float:
    """What a first sample may cost: as long as sampling allows, or as the longest that was recorded."""
    longest = (recordings.sampling or {}).get("max_tokens")
    if longest is None or recordings.material.unit == SAMPLES:
        return float(recordings.material.model.first.max())
    return rate.prompt * rate.prompt_tokens + rate.completion * longest


def _spread(prices: Sequence[float], count: int) -> list[float]:
    """Some of the prices, evenly among them and not at the ends."""
    return [prices[place] for place in dict.fromkeys(len(prices) * (2 * at + 1) // (2 * count) for at in range(count))]


def default_budgets(material: Material) -> list[float]:
    """Mean costs from little more than one sample of the model to nearly all that was recorded."""
    first = float(material.model.first.mean())
    most = float(material.cost((material.model.samples, 0)).mean())
    if material.target is not None:
        most = max(most, float(material.cost((0, material.target.samples)).mean()))
    return [float(budget) for budget in np.geomspace(1.2 * first, max(0.7 * most, 2 * first), _POINTS)]


def _most_of(values: Floats) -> tuple[float, float]:
    """The range that holds nine tenths of the values."""
    low, high = np.quantile(values, [0.05, 0.95])
    return float(low), float(high)


def _limited(limit: float, credit: Floats, cost: Floats) -> Limited:
    accuracy, low, high = mean_and_interval(credit.mean(1), level=LEVEL)
    least, most = _most_of(cost)
    return Limited(
        limit=limit,
        accuracy=accuracy,
        low=low,
        high=high,
        cost=float(cost.mean()),
        least=least,
        most=most,
    )


def _expected(
    price: float,
    credit: Floats,
    cost: Floats,
    bins: Sequence[np.ndarray[Any, Any]],
    resampled: Bootstrap,
    *,
    limited: Limited,
    table: tuple[float, float],
) -> Expected:
    accuracy, low, high = mean_and_interval(credit.mean(1), level=LEVEL)
    mean, cost_low, cost_high = mean_and_interval(cost.mean(1), most=np.inf, level=LEVEL)
    least, most = _most_of(cost)
    return Expected(
        price=price,
        accuracy=accuracy,
        low=low,
        high=high,
        cost=mean,
        cost_low=cost_low,
        cost_high=cost_high,
        least=least,
        most=most,
        limited=limited,
        table=table[0],
        table_cost=table[1],
        bins=tuple(_bin(credit, cost, inside, resampled) for inside in bins),
    )


def _bin(credit: Floats, cost: Floats, inside: np.ndarray[Any, Any], resampled: Bootstrap) -> Bin:
    """A problem belongs to a bin with some of its orders, and weighs so much in the interval over problems."""
    if not inside.any():  # nothing is known of it but what holds for all
        return replace(_bin(credit, cost, np.ones_like(inside), resampled), share=0.0)
    there = np.flatnonzero(inside.any(1))
    size, right = inside.sum(1)[there].astype(float), np.where(inside, credit, 0.0).sum(1)[there]
    accuracy, low, high = resampled.estimate(lambda weights: ratio(weights @ right, weights @ size), there)
    least, most = _most_of(cost[inside])
    return Bin(
        share=float(inside.mean()),
        accuracy=accuracy,
        low=low,
        high=high,
        cost=float(cost[inside].mean()),
        cost_low=least,
        cost_high=most,
    )


def _fixed(setting: str, credit: Floats, cost: float) -> Fixed:
    accuracy, low, high = mean_and_interval(credit, level=LEVEL)
    return Fixed(setting=setting, accuracy=accuracy, low=low, high=high, cost=cost)
