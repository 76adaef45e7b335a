"""Makes a plan from recorded pools and runs, and checks one on new recordings.

Source: none of its own. A pool has many samples of each problem by the model, another one those of the dearer target; a
run is another strategy on the same problems; a verifier's scores are in the pool, or in a run of best_of_n over it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from outthink.bench.pooldata import PoolData, read_pool
from outthink.bench.store import Result, read_results, read_settings
from outthink.driver import make_strategy
from outthink.errors import UsageError
from outthink.models.engine import EngineSpec
from outthink.models.recorded import RecordedEngine
from outthink.planner.bins import Difficulty, ease, fill
from outthink.planner.cases import Material, Run, cases, material
from outthink.planner.evidence import Floats
from outthink.planner.fit import fit_policy
from outthink.planner.plan import Bin, Expected, Fixed, Gain, Limited, Plan, versions
from outthink.planner.simulate import Simulator, price_grid
from outthink.planner.validate import Validation, interval, table_of, validate
from outthink.strategies import STRATEGIES
from outthink.types import AnswerKind

_POINTS = 9  # budgets, where none are given


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recordings:
    """What a plan is made from.

    Args:
        model, target: names of the engines that wrote the samples.
        verifier: the name of the scores among the signals; None: there are none.
        sampling: how the model's samples were drawn; None where the pool does not say.
    """

    material: Material
    model: str
    target: str | None
    verifier: str | None
    sampling: Mapping[str, float] | None


def read(
    files: Sequence[Path],
    *,
    target: Path | None = None,
    scores: Path | None = None,
    unit: str = "tokens",
    answer: AnswerKind = "text",
    specs: Mapping[str, EngineSpec] | None = None,
    cache_block: int = 0,
    orders: int | None = None,
    seed: int = 0,
) -> Recordings:
    """The recordings in files: one pool (a file), and runs (directories) of other strategies on the same problems.

    Args:
        target: a pool of the dearer model on the same problems.
        scores: a run of best_of_n with a verifier over all samples of the pool; its scores, and what they cost.
        unit: "tokens", "flops" or "usd".
        specs: what "model" and "target" cost, where the pools do not say.
        cache_block: as for `material`; 32 for the embedded engine.

    Raises UsageError with what is missing.
    """
    pools, folders = [path for path in files if not path.is_dir()], [path for path in files if path.is_dir()]
    if len(pools) != 1:
        raise UsageError(f"A plan is made from one pool of samples, not {len(pools)}; the dearer model's is --target.")
    pool = _iid(read_pool(pools[0], answer=answer))
    dear = None if target is None else _iid(read_pool(target, answer=answer))
    specs = specs or {}
    opened = RecordedEngine.open(pools[0])
    spec = specs.get("model", opened.spec)
    target_spec = None if target is None else specs.get("target", RecordedEngine.open(target).spec)
    signals: dict[str, dict[str, Floats]] = {}
    scoring: dict[str, float] = {}
    verifier = next((name for name in pool.scorers if name != "logprob"), None)
    writer = spec.name.removeprefix("recorded:")
    if scores is not None:
        verifier, found, each = _scores(scores, unit, pool, writer)
        signals[verifier], scoring[verifier] = found, each
    made = material(
        pool,
        spec=spec,
        target=dear,
        target_spec=target_spec,
        runs=[_run(folder, pool, unit, writer) for folder in folders],
        verifier=verifier,
        scores=signals,
        scoring=scoring,
        unit=unit,
        cache_block=cache_block,
        orders=orders,
        seed=seed,
    )
    return Recordings(
        material=made,
        model=writer,
        target=None if target_spec is None else target_spec.name.removeprefix("recorded:"),
        verifier=verifier,
        sampling=opened.sampling,
    )


def make_plan(
    of: Recordings,
    *,
    budgets: Sequence[float] | None = None,
    folds: int = 5,
    bins: int | None = 5,
    difficulty: Difficulty | None = None,
    probe: int = 4,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Plan, Validation]:
    """A plan fitted on all problems, and what it is worth by cross-validation.

    Args:
        budgets: mean costs of a problem; None: from little more than one sample to almost all.
        folds: at least 2, and at most the number of problems.
        bins, difficulty, probe: of the table by difficulty; `bins` None: absolute ones; `difficulty` None: the
            verifier's mean, else the mean logprob, else agreement.
        tell: told what is being done.
    """
    whole = of.material
    if not 2 <= folds <= len(whole.ids):
        raise UsageError(f"{folds} folds of {len(whole.ids)} problems make no sense; take 5.")
    if not 1 <= probe <= whole.model.samples:
        raise UsageError(
            f"The pool has {whole.model.samples} samples, so the probe has from 1 to as many, not {probe}."
        )
    budgets = sorted(budgets) if budgets else default_budgets(whole)
    if difficulty is None:
        shares = bins is None or "logprob" not in whole.signals
        difficulty = "verifier" if of.verifier else "agreement" if shares else "logprob"
    if bins is None and difficulty in ("logprob", "length", "entropy"):
        raise UsageError(f"Absolute bins are cut at rates of success, and {difficulty} is none; choose agreement.")
    tell(f"Measuring on {folds} folds of {len(whole.ids)} problems")
    found = validate(whole, budgets, folds=folds, bins=bins, difficulty=difficulty, probe=probe, seed=seed)
    tell("Fitting on all problems")
    policy, fitted = fit_policy(whole, seed=seed)
    simulator, grid = Simulator(policy, fitted, whole), price_grid(policy.rates)
    of_ease = ease(whole, difficulty, probe)
    empty = table_of(of_ease, budgets, bins, difficulty, probe)
    table, _ = fill(found.families, of_ease, whole.cost((probe, 0)), empty, probe)
    where = table.bin(of_ease)
    expected = []
    for point in found.points:
        expected.append(
            _expected(
                simulator.price_for(point.wanted, grid),
                point.credit_by_order,
                point.cost_by_order,
                [where == number for number in range(len(table.edges) + 1)],
                limited=_limited(point.wanted, point.limited_credit, point.limited_cost),
                table=(float(point.bins.mean()), float(point.bins_cost.mean())),
            )
        )
    fixed = [
        _fixed(setting, family.credit[..., place].mean(1), float(family.cost[..., place].mean()))
        for family in found.families
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
        for point in found.points
        for difference in point.differences
    ]
    chosen = [cell.setting for row in table.cells for cell in row]
    runs = [action.run for action in policy.actions if action.kind == "run"]
    plan = Plan(
        model=of.model,
        target=of.target,
        verifier=of.verifier,
        sampling=of.sampling,
        unit=whole.unit,
        problems=len(whole.ids),
        samples=whole.model.samples,
        policy=policy,
        expected=tuple(expected),
        table=table,
        fixed=tuple(fixed),
        gains=tuple(gains),
        brier=found.brier,
        base=found.base,
        reliability=found.reliability,
        versions=versions([*chosen, *runs]),
        runs={run.name: run.scorers for run in whole.runs},
    )
    return plan, found


def default_budgets(of: Material) -> list[float]:
    """Mean costs from little more than one sample of the model to nearly all that was recorded."""
    first = float(of.model.first.mean())
    most = float(of.cost((of.model.samples, 0)).mean())
    if of.target is not None:
        most = max(most, float(of.cost((0, of.target.samples)).mean()))
    return [float(budget) for budget in np.geomspace(1.2 * first, max(0.7 * most, 2 * first), _POINTS)]


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


def check_plan(plan: Plan, of: Recordings) -> list[Checked]:
    """The plan's policy on new problems, at each of its prices, and where that differs from what it expects.

    Each sentence of drift is a difference beyond a 99% interval, so one in a hundred is a false alarm.
    """
    prm = next((run.scorers["prm"] for run in of.material.runs if "prm" in run.scorers), None)
    plan.check(model=of.model, target=of.target, verifier=of.verifier, sampling=of.sampling, prm=prm)
    whole = of.material
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
    found = []
    for expected in plan.expected:
        outcome = simulator.at(expected.price)
        found.append(_checked(expected, outcome.credit.mean(1), outcome.cost.mean(1), float(outside)))
    return found


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
    cost = np.array([result.trace.cost.get(plan.unit, math.nan) for result in graded if result.trace], dtype=float)
    return _checked(plan.at(float(np.median(prices))), credit, cost, 0.0)


def _price_of(result: Result, unit: str) -> float | None:
    notes = () if result.trace is None else result.trace.notes
    said = next((note for note in notes if note.startswith("price ") and f" of 1 {unit}," in note), None)
    return None if said is None else float(said.split()[1])


def _checked(expected: Expected, credit: Floats, cost: Floats, outside: float) -> Checked:
    accuracy, low, high = interval(credit)
    mean, cost_low, cost_high = interval(cost)
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


def _limited(limit: float, credit: Floats, cost: Floats) -> Limited:
    accuracy, low, high = interval(credit.mean(1))
    least, most = np.quantile(cost, [0.05, 0.95])
    return Limited(
        limit=limit,
        accuracy=accuracy,
        low=low,
        high=high,
        cost=float(cost.mean()),
        least=float(least),
        most=float(most),
    )


def _expected(
    price: float,
    credit: Floats,
    cost: Floats,
    bins: Sequence[np.ndarray[Any, Any]],
    *,
    limited: Limited,
    table: tuple[float, float],
) -> Expected:
    accuracy, low, high = interval(credit.mean(1))
    mean, cost_low, cost_high = interval(cost.mean(1))
    least, most = np.quantile(cost, [0.05, 0.95])
    return Expected(
        price=price,
        accuracy=accuracy,
        low=low,
        high=high,
        cost=mean,
        cost_low=cost_low,
        cost_high=cost_high,
        least=float(least),
        most=float(most),
        limited=limited,
        table=table[0],
        table_cost=table[1],
        bins=tuple(_bin(credit, cost, of) for of in bins),
    )


def _bin(credit: Floats, cost: Floats, of: np.ndarray[Any, Any]) -> Bin:
    """A problem belongs to a bin with some of its orders, and weighs so much in the interval over problems."""
    if not of.any():  # nothing is known of it but what holds for all
        return replace(_bin(credit, cost, np.ones_like(of)), share=0.0)
    weight = of.sum(1).astype(float)
    sums = np.where(of, credit, 0.0).sum(1)
    drawn = np.random.default_rng(0).integers(0, len(weight), (2_000, len(weight)))
    total = weight[drawn].sum(1)
    means = sums[drawn].sum(1)[total > 0] / total[total > 0]
    low, high = np.quantile(means, [0.05, 0.95])
    least, most = np.quantile(cost[of], [0.05, 0.95])
    return Bin(
        share=float(of.mean()),
        accuracy=float(sums.sum() / weight.sum()),
        low=float(low),
        high=float(high),
        cost=float(cost[of].mean()),
        cost_low=float(least),
        cost_high=float(most),
    )


def _fixed(setting: str, credit: Floats, cost: float) -> Fixed:
    accuracy, low, high = interval(credit)
    return Fixed(setting=setting, accuracy=accuracy, low=low, high=high, cost=cost)


def _iid(pool: PoolData) -> PoolData:
    if pool.kind != "iid":
        raise UsageError(
            f"{pool.path} does not hold independent samples of one model, so nothing can be planned on it."
        )
    return pool


def _run(folder: Path, pool: PoolData, unit: str, writer: str) -> Run:
    """A finished strategy, named as on the command line; problems that it lacks are missing."""
    settings = read_settings(folder)
    _same_model(folder, settings, writer)
    options = dict(settings["strategy"])
    name = options.pop("name")
    if name not in STRATEGIES:
        raise UsageError(f"The run {folder} is of {name}; a plan can only run strategies of the table.")
    own = {field.name: field.default for field in fields(make_strategy(name))}
    given = {key: value for key, value in options.items() if own.get(key) != value}
    text = urlencode({key: ",".join(map(str, of)) if isinstance(of, list) else of for key, of in given.items()})
    named = f"{name}?{text}" if text else name
    make_strategy(named)  # raises where its name does not say everything
    credit, cost = {}, {}
    for result in read_results(folder):
        if result.credit is None or result.trace is None:
            continue
        if unit not in result.trace.cost:
            raise UsageError(f"The run {folder} does not say what it cost in {unit}.")
        credit[result.problem], cost[result.problem] = result.credit, result.trace.cost[unit]
    if not any(problem.id in credit for problem in pool.problems):
        raise UsageError(f"The run {folder} has none of the pool's problems.")
    return Run(
        name=named,
        credit=np.array([credit.get(problem.id, np.nan) for problem in pool.problems], dtype=float),
        cost=np.array([cost.get(problem.id, np.nan) for problem in pool.problems], dtype=float),
        scorers={role: settings[role] for role in ("verifier", "prm") if settings.get(role)},
    )


def _scores(folder: Path, unit: str, pool: PoolData, writer: str) -> tuple[str, dict[str, Floats], float]:
    """The verifier's name, its scores of every sample by problem, and what one cost on average."""
    settings = read_settings(folder)
    verifier = settings["verifier"]
    if verifier is None:
        raise UsageError(f"The run {folder} has no verifier; run best_of_n with --verifier over the pool.")
    if not settings["models"]["model"].startswith("recorded:"):
        raise UsageError(f"The run {folder} drew samples of its own; run best_of_n with --model {pool.path}.")
    _same_model(folder, settings, writer, pool.path.name)
    samples = {problem.id: problem for problem in pool.problems}
    found, spent, scored = {}, 0.0, 0
    for result in read_results(folder):
        trace, recorded = result.trace, samples.get(result.problem)
        last = None if trace is None else next((of for of in reversed(trace.rounds) if of.scores is not None), None)
        if trace is None or recorded is None or last is None or last.scores is None:
            continue
        written = {candidate.id: candidate.tokens for candidate in trace.candidates}
        if recorded.tokens is None or [written.get(name) for name in last.candidates] != recorded.tokens.tolist():
            raise UsageError(
                f"The run {folder} did not score all samples of {result.problem!r}: run it with their number."
            )
        found[result.problem] = np.array([np.nan if score is None else score for score in last.scores], dtype=float)
        scored += len(last.scores)
        for call in trace.calls:
            if call.kind != "sample":
                if call.charged.tokens and unit not in call.cost:
                    raise UsageError(f"The run {folder} does not say what its verifier cost in {unit}.")
                spent += call.cost.get(unit, 0.0)
    if not found:
        raise UsageError(f"The run {folder} has no scores of the pool's samples.")
    return str(verifier), found, spent / scored


def _same_model(folder: Path, settings: Mapping[str, Any], *names: str) -> None:
    of = str(settings["models"]["model"]).removeprefix("recorded:")
    if of not in names:
        raise UsageError(f"The run {folder} is of {of}, and the samples are of {names[0]}.")
