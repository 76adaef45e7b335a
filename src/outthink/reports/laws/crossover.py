"""`outthink law crossover`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from outthink.cost import flops
from outthink.errors import Unidentified, UsageError
from outthink.laws import crossover as _crossover
from outthink.laws.coverage import pass_at_k
from outthink.maths.intervals import bootstrap, farther
from outthink.models.engine import Shape
from outthink.records.pools import PoolData
from outthink.reports.analysis import Analysis, Cell, Row, bars, curve, estimates, grid, mean_of, misfit, powers_of_two
from outthink.reports.curves import majority
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.laws.data import (
    SUBSAMPLES,
    Counts,
    Floats,
    distinct_parts,
    independent,
    models_named,
    right_counts,
    same_problems,
)
from outthink.types import AnswerKind, Usage


def crossover(
    files: Sequence[Path],
    *,
    at: Sequence[float] = (),
    shape: Sequence[Path] = (),
    answer: AnswerKind = "text",
    seed: int = 0,
) -> Analysis:
    """Up to which budget many samples of a small model beat few of a large one, by loss(S) = L + a S^-b.

    Two pools with token counts of the same problems, one by each model, and the shapes of the models.
    """
    if len(files) != 2:
        raise UsageError(f"The law crossover compares two pools, not {len(files)}.")
    pools = same_problems([independent(path, answer=answer) for path in files])
    names, shapes = models_named(pools, shape, memory=False)
    costs = [_sample_flops(pool, shape) for pool, shape in zip(pools, shapes, strict=True)]
    if costs[0] > costs[1]:
        pools, names, costs = pools[::-1], names[::-1], costs[::-1]
    small, large = distinct_parts(names)
    numbers = [powers_of_two(pool.samples) for pool in pools]
    losses = {"no sample is right": [_misses(pool, counts) for pool, counts in zip(pools, numbers, strict=True)]}
    if all(problem.keys is not None for pool in pools for problem in pool.problems):
        losses["the vote is wrong"] = [
            _lost_votes(pool, counts, seed) for pool, counts in zip(pools, numbers, strict=True)
        ]
    rows: list[Row] = []
    sentences: list[str] = []
    series: list[Series] = []
    refusals: list[str] = []
    for what, tables in losses.items():
        first, second = (
            _crossover.ModelLosses(samples=counts, losses=table, cost=cost)
            for counts, table, cost in zip(numbers, tables, costs, strict=True)
        )
        try:
            crossing = _crossover.crossover(first, second, seed=seed)
        except Unidentified as refusal:
            refusals.append(f"{what}: {refusal}")
            continue
        low, high = crossing.range
        if crossing.budget is None:
            winners, _ = _crossover.envelope(crossing.laws, costs, grid(low, high))
            told = " and ".join(names[one] for one in sorted(set(winners.tolist())))
            turns = "is better throughout" if len(set(winners.tolist())) == 1 else "take turns"
            sentences.append(f"{what}: from {low:.3g} to {high:.3g} FLOPs per problem, {told} {turns}.")
            turn = None
        else:
            turn = f"{crossing.budget:.3g} ({crossing.low:.3g} to {crossing.high:.3g})"
            sentences.append(f"{what}: above {turn} FLOPs per problem {names[1]} is better, below {names[0]}.")
            series.append(Series(name=f"crossing: {what}", x=[crossing.budget], mark="vertical"))
        rows.append(
            (
                what,
                turn,
                None if crossing.budget is None else Cell(crossing.budget / costs[0]),
                *(Cell(law.floor, "share") for law in crossing.laws),
                *(Cell(law.b) for law in crossing.laws),
            )
        )
        if at and min(at) < low:
            raise UsageError(f"{min(at):.3g} FLOPs per problem do not pay for one sample of {names[1]}.")
        predicted: list[list[Cell]] = []
        for name, one, law in zip((small, large), (first, second), crossing.laws, strict=True):
            label = f"{name}: {what}"
            measured = [mean_of(losses_at) for losses_at in np.asarray(one.losses).T]
            dense = grid(one.cost, high)
            series += [
                curve(label, dense, _loss_line(one, dense, seed)),
                bars(label, one.cost * np.asarray(one.samples), measured),
            ]
            sentences += misfit(label, np.asarray(one.samples).tolist(), measured, law.at(one.samples))
            predicted.append(_loss_line(one, np.asarray(at), seed) if at else [])
        for budget, *cells in zip(at, *predicted, strict=True):
            sentences.append(
                f"{what}, at {budget:.3g} FLOPs, if the laws are right: {small} {cells[0]}, {large} {cells[1]}."
            )
            if budget > high:
                sentences.append(f"{budget:.3g} is more than ten times beyond what was measured; nothing supports it.")
    if not rows:
        raise Unidentified(refusals[0])
    return Analysis(
        title="Crossover: loss(S) = L + a S^-b, S samples of a model for a budget",
        columns=(
            "loss",
            "crossing, FLOPs",
            f"samples of {small}",
            *(f"{what} of {name}" for what in ("floor L", "b") for name in (small, large)),
        ),
        rows=tuple(rows),
        sentences=(*sentences, *refusals, "Reading the prompt is not counted: all samples of a problem share it."),
        figure=Figure(
            title=f"{small} against {large}",
            x=Axis(title="FLOPs per problem", log=True),
            y=Axis(title="loss, mean over problems", percent=True),
            series=tuple(series),
        ),
    )


def _misses(pool: PoolData, ks: Sequence[int]) -> Floats:
    return np.stack([1 - pass_at_k(*right_counts(pool), k) for k in ks], axis=-1)


def _lost_votes(pool: PoolData, ks: Sequence[int], seed: int) -> Floats:
    vote = majority(pool, ks, subsamples=SUBSAMPLES, seed=seed)
    return np.stack([1 - vote[k].accuracy for k in ks], axis=-1)


def _loss_line(measured: _crossover.ModelLosses, budgets: Floats, seed: int) -> list[Cell]:
    """The loss of a model at each budget, as its law says."""
    table = np.asarray(measured.losses)

    def line(problems: Counts) -> Floats:
        return _crossover.fit_loss(measured.samples, table[problems].mean(0)).at(budgets / measured.cost)

    told, interval = line(np.arange(len(table))), bootstrap(line, len(table), seed=seed)
    missed = _crossover.loss_drift(measured.samples, table, seed=seed)
    if missed is not None:  # what half of the samples miss at all of them, each doubling beyond may miss again
        times = budgets / measured.cost / float(np.max(measured.samples))
        interval = farther(interval, missed, times, most=np.inf)
    return estimates(told, interval, "share")


def _sample_flops(pool: PoolData, shape: Shape) -> float:
    """Operations of writing one sample, mean over problems."""
    means = []
    for problem in pool.problems:
        if problem.tokens is None:
            raise UsageError(f"{pool.path} has no token counts, which this needs.")
        prompt = problem.prompt or 0
        usages = (Usage(prompt=prompt, cached=prompt, completion=int(tokens)) for tokens in problem.tokens)
        means.append(np.mean([flops(shape, usage) for usage in usages]))
    return float(np.mean(means))
