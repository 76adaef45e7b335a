"""What a plan is worth on problems that it was not fitted on: cross-validation by problem, at equal mean cost.

Source: k-fold cross-validation; paired bootstrap over problems. Differs: everything that is chosen (the vote, the
policy, its price, the bins' settings and the fixed strategy to be beaten) is chosen on the other folds, and every fold
has as many hard problems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outthink.maths.intervals import mean_and_interval
from outthink.maths.quantiles import quantile_edges
from outthink.planner.bins import Difficulty, Table, absolute_edges, ease, fill, flat
from outthink.planner.cases import Material, cases
from outthink.planner.evidence import Floats
from outthink.planner.fit import fit_policy
from outthink.planner.fixed import ITS_VOTE, Family, families, families_of_vote, joined
from outthink.planner.simulate import Simulator, price_grid
from outthink.planner.trust import LEVEL, Acted, Tenth, Utility, acted, tenths, utility
from outthink.rng import generator


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyDifference:
    """`auto` less a baseline at equal mean cost, over problems.

    Args:
        low, high: of the 90% interval, so that `low` > 0 is one-sided 95%.
        against: the baseline, or the baselines chosen by fold.
        ratio: mean cost of the baseline at the accuracy of `auto` over that of `auto`; None where it never gets there.
    """

    against: str
    difference: float
    low: float
    high: float
    accuracy: float
    ratio: float | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PolicyPoint:
    """The policy at one wanted mean cost, on held-out problems.

    Args:
        wanted: what its price was chosen for, on the other folds.
        credit, cost: (problems,) means over orders; `credit_by_order` and `cost_by_order` (problems, orders).
        differences: from the best fixed strategy, the simple stop rules, and bins.
        bins: (problems,) credit of the bins' choice where the probe can be afforded, and `bins_cost`.
        limited_credit, limited_cost: (problems, orders) where the wanted mean cost is the limit of each problem, too.
    """

    wanted: float
    credit: Floats
    cost: Floats
    credit_by_order: Floats
    cost_by_order: Floats
    differences: tuple[PolicyDifference, ...]
    bins: Floats
    bins_cost: Floats
    limited_credit: Floats
    limited_cost: Floats


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Validation:
    """The curve of a plan against every fixed strategy.

    Args:
        brier, base: mean squared error of the predicted chance of being right, and of the mean accuracy as prediction.
        reliability: predicted and true chances where it stopped, over all points.
        utilities: at each of the prices.
    """

    points: tuple[PolicyPoint, ...]
    families: tuple[Family, ...]
    brier: float
    base: float
    reliability: tuple[Tenth, ...]
    utilities: tuple[Utility, ...]


def validate(
    material: Material,
    budgets: Sequence[float],
    *,
    prices: Sequence[float] = (),
    folds: int = 5,
    bins: int | None = 5,
    difficulty: Difficulty = "agreement",
    probe: int = 4,
    seed: int = 0,
    tell: Callable[[int], None] = lambda _: None,
) -> Validation:
    """Fit on all folds but one, measure on that one, for every fold.

    Args:
        budgets: mean costs of a problem, in the material's unit.
        prices: at which the policy's word is measured.
        bins: quantile bins of difficulty; None: the absolute ones.
        probe: samples on which the bins' difficulty is measured.
        tell: told before each fold its number, from 0.
    """
    problems = len(material.ids)
    fold = folds_alike(material.model.correct.mean(1), folds, seed=seed)
    every = families(material)
    orders = material.orders.shape[1]
    credit, cost, predicted, limited, limited_cost = (np.empty((len(budgets), problems, orders)) for _ in range(5))
    bin_credit, bin_cost = (np.empty((len(budgets), problems)) for _ in range(2))
    ease_of, probing = ease(material, difficulty, probe), material.cost((probe, 0))
    _, flat_credit, flat_cost = flat(every, probing, probe)
    on_vote: list[tuple[NDArray[np.intp], list[Family]]] = []
    kept: list[list[Acted]] = [[] for _ in prices]
    for number in range(folds):
        tell(number)
        train, test = fold != number, fold == number
        policy, fitted = fit_policy(material.select(train), seed=seed)
        training = Simulator(policy, fitted, material.select(train))
        held = material.select(test)
        testing = Simulator(policy, cases(held, policy.vote), held)
        on_vote.append((np.flatnonzero(test), families_of_vote(held, policy.vote)))
        for at, price in enumerate(prices):
            kept[at].append(acted(testing, price))
        grid = price_grid(policy.rates)
        empty = table_of(ease_of[train], material.model.correct[train].mean(1), budgets, bins, difficulty, probe)
        table, chosen = fill([_only(family, train) for family in every], ease_of[train], probing[train], empty, probe)
        where = table.bin(ease_of[test])
        for row, budget in enumerate(budgets):
            price = training.price_for(budget, grid)
            outcome = testing.at(price)
            credit[row, test], cost[row, test] = outcome.credit, outcome.cost
            predicted[row, test] = testing.right_when(outcome)
            within = testing.at(price, limit=budget)
            limited[row, test], limited_cost[row, test] = within.credit, within.cost
            setting = chosen[where, row][..., None]
            bin_credit[row, test] = np.take_along_axis(flat_credit[test], setting, -1)[..., 0].mean(1)
            bin_cost[row, test] = np.take_along_axis(flat_cost[test], setting, -1)[..., 0].mean(1)
    points, rows = [], [row for row, _ in on_vote]
    compared = [*every, *joined(on_vote)]
    for row, budget in enumerate(budgets):
        mean = credit[row].mean(1)
        points.append(
            PolicyPoint(
                wanted=budget,
                credit=mean,
                cost=cost[row].mean(1),
                credit_by_order=credit[row],
                cost_by_order=cost[row],
                differences=tuple(_differences(mean, float(cost[row].mean()), compared, fold, folds)),
                bins=bin_credit[row],
                bins_cost=bin_cost[row],
                limited_credit=limited[row],
                limited_cost=limited_cost[row],
            )
        )
    return Validation(
        points=tuple(points),
        families=tuple(every),
        brier=float(((predicted - credit) ** 2).mean()),
        base=float(((credit.mean() - credit) ** 2).mean()),
        reliability=tenths(predicted.swapaxes(0, 1).reshape(problems, -1), credit.swapaxes(0, 1).reshape(problems, -1)),
        utilities=tuple(utility(price, parts, rows, every) for price, parts in zip(prices, kept, strict=True)),
    )


def folds_alike(rates: Floats, folds: int, *, seed: int = 0) -> NDArray[np.intp]:
    """The fold (problems,) of each problem, by chance among those that are about equally hard.

    A fold that is easier by chance is harder for all others: what is learned there would be off the other way, and look
    as if it were wrong.

    Args:
        rates: (problems,) how often samples are right.
    """
    rng = generator(seed, 92)
    order = np.lexsort([rng.random(len(rates)), rates])
    fold = np.empty(len(rates), dtype=np.intp)
    fold[order] = np.concatenate([rng.permutation(folds) for _ in range(-(-len(rates) // folds))])[: len(rates)]
    return fold


def table_of(
    easiness: Floats, rates: Floats, budgets: Sequence[float], bins: int | None, difficulty: Difficulty, probe: int
) -> Table:
    """An empty table, cut by the ease of these problems, or absolutely by their pass rates (problems,)."""
    edges = absolute_edges(easiness, rates) if bins is None else quantile_edges(easiness, bins)
    return Table(difficulty=difficulty, probe=probe, edges=tuple(edges), budgets=tuple(budgets), cells=())


def _differences(
    credit: Floats, cost: float, every: Sequence[Family], fold: NDArray[np.intp], folds: int
) -> list[PolicyDifference]:
    fixed = [family for family in every if not family.adaptive and family.name != ITS_VOTE]
    baselines = {
        "the best fixed strategy": _best_at(cost, fixed, fold, folds),
        "the best mixture of two fixed strategies": _best_mixture(cost, fixed, fold, folds),
        "self_consistency": _best_at(
            cost, [family for family in fixed if family.name == "self_consistency"], fold, folds
        ),
    }
    for name in ("best_of_n", "adaptive_consistency", "esc"):
        group = [family for family in every if family.name.removeprefix("target:").startswith(name)]
        for label, on_its_vote in ((name, False), (f"{name} on {ITS_VOTE}", True)):
            part = [family for family in group if family.name.endswith(ITS_VOTE) == on_its_vote]
            baselines[label] = _best_at(cost, part, fold, folds)
    its = [family for family in every if family.name == ITS_VOTE]
    baselines[f"{ITS_VOTE}, a fixed number"] = _best_at(cost, its, fold, folds)
    differences = []
    for label, baseline in baselines.items():
        if baseline is None:
            continue
        mean, low, high = mean_and_interval(credit - baseline.credit, least=-1.0, level=LEVEL)
        accuracy = float(credit.mean())
        reached = [equal_cost for family in baseline.group if (equal_cost := family.cost_of(accuracy)) is not None]
        if "mixture" in label and (equal_cost := _mixture_cost(accuracy, fixed)) is not None:
            reached.append(equal_cost)
        differences.append(
            PolicyDifference(
                against=label if set(baseline.names) == {label} else f"{label} ({', '.join(baseline.names)})",
                difference=mean,
                low=low,
                high=high,
                accuracy=float(baseline.credit.mean()),
                ratio=min(reached) / cost if reached else None,
            )
        )
    return differences


def _mixture_cost(accuracy: float, group: Sequence[Family]) -> float | None:
    """The least mean cost at which a mixture of two settings is that accurate; None where nothing is."""
    reached = np.concatenate([family.credit.mean((0, 1)) for family in group])
    costs = np.concatenate([family.cost.mean((0, 1)) for family in group])
    above, below = reached >= accuracy, reached < accuracy
    if not above.any():
        return None
    least = float(costs[above].min())
    for cost, lower in zip(costs[below], reached[below], strict=True):
        part = (accuracy - lower) / (reached[above] - lower)
        least = min(least, float((cost + part * (costs[above] - cost)).min()))
    return least


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Baseline:
    """Credit (problems,) of what was chosen on the other folds, its names, and what it was chosen among."""

    credit: Floats
    names: list[str]
    group: Sequence[Family]


def _best_mixture(cost: float, group: Sequence[Family], fold: NDArray[np.intp], folds: int) -> _Baseline | None:
    """Two settings, one of which is used for a random share of problems so that the mean cost is right.

    That is the upper concave hull of all settings, which is what a choice without a look at the problem can reach.
    """
    names = [name for family in group for name in family.labels()]
    credits = np.concatenate([family.credit.mean(1) for family in group], -1)
    costs = np.concatenate([family.cost.mean(1) for family in group], -1)
    mean = costs.mean(0)
    if mean.min() > cost:
        return None
    held_out, used = np.empty(len(fold)), []
    for number in range(folds):
        train = fold != number
        accuracy = credits[train].mean(0)
        low, high = (np.flatnonzero(side) for side in (mean <= cost, mean > cost))
        best = max(((accuracy[one], one, one, 0.0) for one in low), key=lambda option: option[0])
        for one in low:
            for other in high:
                part = (cost - mean[one]) / (mean[other] - mean[one])
                best = max(best, ((1 - part) * accuracy[one] + part * accuracy[other], one, other, part))
        _, one, other, part = best
        held_out[~train] = (1 - part) * credits[~train, one] + part * credits[~train, other]
        used += [names[one], names[other]] if part else [names[one]]
    return _Baseline(credit=held_out, names=list(dict.fromkeys(used)), group=())


def _best_at(cost: float, group: Sequence[Family], fold: NDArray[np.intp], folds: int) -> _Baseline | None:
    """Credit (problems,) of the family that is most accurate on the other folds, for each fold, at this mean cost."""
    able = [(family, credit) for family in group if (credit := family.at(cost)) is not None]
    if not able:
        return None
    held_out, names = np.empty(len(fold)), []
    for number in range(folds):
        train = fold != number
        family, credit = max(able, key=lambda pair: float(pair[1][train].mean()))
        held_out[~train] = credit[~train]
        names.append(family.name)
    return _Baseline(credit=held_out, names=list(dict.fromkeys(names)), group=group)


def _only(family: Family, which: NDArray[np.bool_]) -> Family:
    return replace(family, credit=family.credit[which], cost=family.cost[which])
