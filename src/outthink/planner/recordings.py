"""Pools and runs as the recordings that a plan is learned from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from outthink.errors import UnknownName, UsageError
from outthink.models.engine import EngineSpec
from outthink.models.recorded import recorded_price, recorded_shape
from outthink.planner.cases import SAMPLES, Material, RecordedRun, material
from outthink.planner.evidence import Floats
from outthink.records.pools import PoolData, read_pool
from outthink.records.runs import read_results, read_settings
from outthink.strategies import STRATEGIES
from outthink.strategies.making import make_strategy
from outthink.types import AnswerKind, Trace


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recordings:
    """What a plan is made from.

    Args:
        model, target: names of the engines that wrote the samples; an empty model: the pool does not say.
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
    verifier: str | None = None,
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
        verifier: which scores of the pool; None: the first by name.
        unit: "tokens", "flops", "usd" or "samples"; samples, too, where tokens are wanted and the pool has none.
        specs: what "model" and "target" cost, where the pools do not say.
        cache_block: as for `material`; 32 for the embedded engine.

    Raises UsageError with what is missing.
    """
    folders = [path for path in files if os.path.isdir(path)]
    pools = [path for path in files if path not in folders]
    if len(pools) != 1:
        raise UsageError(f"A plan is made from one pool of samples, not {len(pools)}; the dearer model's is --target.")
    pool = _iid(read_pool(pools[0], answer=answer))
    dear = None if target is None else _iid(read_pool(target, answer=answer))
    if unit == "tokens" and all(problem.tokens is None for problem in pool.problems):
        unit = SAMPLES
    specs = specs or {}
    spec = specs.get("model") or _spec(pool)
    target_spec = None if dear is None else specs.get("target") or _spec(dear)
    signals: dict[str, dict[str, Floats]] = {}
    scoring: dict[str, float] = {}
    if verifier is not None and verifier not in pool.scorers:
        raise UnknownName(f"verifier in {pool.path}", verifier, pool.scorers or ["none"])
    if verifier is not None and scores is not None:
        raise UsageError("--verifier chooses among the scores of the pool, and --scores brings others: give one.")
    verifier = verifier or next((name for name in pool.scorers if name != "logprob"), None)
    writer = spec.name.removeprefix("recorded:")
    if scores is not None:
        verifier, by_problem, each = _scores(scores, unit, pool, writer)
        signals[verifier], scoring[verifier] = by_problem, each
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
        model=writer if specs.get("model") or pool.meta.get("model") else "",
        target=None if target_spec is None else target_spec.name.removeprefix("recorded:"),
        verifier=verifier,
        sampling=pool.meta.get("sampling"),
    )


def _spec(pool: PoolData) -> EngineSpec:
    """What is known of the model that wrote a pool."""
    if several := sorted({"model", "sampling", "shape", "price"} & pool.varied):
        raise UsageError(f"The lines of {pool.path} differ in {' and '.join(several)}: give those of one recording.")
    try:
        return EngineSpec(
            name=f"recorded:{pool.meta.get('model') or pool.path.name}",
            shape=recorded_shape(pool.meta),
            price=recorded_price(pool.meta),
        )
    except TypeError:
        raise UsageError(f"{pool.path} says something else than the shape and price of its model.") from None


def _iid(pool: PoolData) -> PoolData:
    if pool.kind != "iid":
        raise UsageError(
            f"{pool.path} does not hold independent samples of one model, so nothing can be planned on it."
        )
    return pool


def _run(folder: Path, pool: PoolData, unit: str, writer: str) -> RecordedRun:
    """A finished strategy, named as on the command line; problems that it lacks are missing."""
    settings = read_settings(folder)
    _same_model(folder, settings, writer, pool.path.name)
    options = dict(settings["strategy"])
    name = options.pop("name")
    if name not in STRATEGIES:
        raise UsageError(f"The run {folder} is of {name}; a plan can only run strategies of the table.")
    own = {field.name: field.default for field in fields(make_strategy(name))}
    given = {key: value for key, value in options.items() if own.get(key) != value}
    text = urlencode(
        {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in given.items()}
    )
    named = f"{name}?{text}" if text else name
    make_strategy(named)  # raises where its name does not say everything
    credit, cost = {}, {}
    for result in read_results(folder):
        if result.credit is None or result.trace is None:
            continue
        spent = cost_of(result.trace, unit)
        if spent is None:
            raise UsageError(f"The run {folder} does not say what it cost in {unit}.")
        credit[result.problem], cost[result.problem] = result.credit, spent
    if not any(problem.id in credit for problem in pool.problems):
        raise UsageError(f"The run {folder} has none of the pool's problems.")
    return RecordedRun(
        name=named,
        credit=np.array([credit.get(problem.id, np.nan) for problem in pool.problems], dtype=float),
        cost=np.array([cost.get(problem.id, np.nan) for problem in pool.problems], dtype=float),
        scorers={role: settings[role] for role in ("verifier", "prm") if settings.get(role)},
    )


def cost_of(trace: Trace, unit: str) -> float | None:
    """What a request has cost; None where it does not say."""
    return float(len(trace.candidates)) if unit == SAMPLES else trace.cost.get(unit)


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
    by_problem, spent, scored = {}, 0.0, 0
    for result in read_results(folder):
        trace, recorded = result.trace, samples.get(result.problem)
        last = (
            None
            if trace is None
            else next((entry for entry in reversed(trace.rounds) if entry.scores is not None), None)
        )
        if trace is None or recorded is None or last is None or last.scores is None:
            continue
        written = {candidate.id: candidate.tokens for candidate in trace.candidates}
        if recorded.tokens is None or [written.get(name) for name in last.candidates] != recorded.tokens.tolist():
            raise UsageError(
                f"The run {folder} did not score all samples of {result.problem!r}: run it with their number."
            )
        by_problem[result.problem] = np.array(
            [np.nan if score is None else score for score in last.scores], dtype=float
        )
        scored += len(last.scores)
        for call in trace.calls:
            if call.kind != "sample":
                if call.charged.tokens and unit not in call.cost:
                    raise UsageError(f"The run {folder} does not say what its verifier cost in {unit}.")
                spent += call.cost.get(unit, 0.0)
    if not by_problem:
        raise UsageError(f"The run {folder} has no scores of the pool's samples.")
    return str(verifier), by_problem, spent / scored


def _same_model(folder: Path, settings: Mapping[str, Any], *names: str) -> None:
    model = str(settings["models"]["model"]).removeprefix("recorded:")
    if model not in names:
        raise UsageError(f"The run {folder} is of {model}, and the samples are of {names[0]}.")
