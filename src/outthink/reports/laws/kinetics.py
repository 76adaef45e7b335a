"""`outthink law kinetics`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from outthink.cost import kinetics as _kinetics
from outthink.errors import UsageError
from outthink.laws import frontier as _frontier
from outthink.laws.coverage import pass_at_k
from outthink.models.engine import Shape
from outthink.records.pools import PoolData
from outthink.reports.analysis import Analysis, Cell, Row, bars, mean_of, powers_of_two
from outthink.reports.curves import majority
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.laws.data import (
    SUBSAMPLES,
    Floats,
    distinct_parts,
    independent,
    models_named,
    right_counts,
    same_problems,
)
from outthink.rng import generator
from outthink.types import AnswerKind

_ORDERS = 4  # of samples, each begun at every place, over which the cost of the first so many is averaged


class _Option(NamedTuple):
    """One model with a number of samples, or with one sample of at most so many tokens; arrays (problems,)."""

    model: int
    label: str
    credit: Floats
    load: _kinetics.Load


def kinetics(
    files: Sequence[Path],
    *,
    at: Sequence[float] = (),
    shape: Sequence[Path] = (),
    answer: AnswerKind = "text",
    seed: int = 0,
) -> Analysis:
    """Which model and how many samples are best at each budget of FLOPs, and of eFLOPs, which charge memory traffic.

    Pools with token counts of the same problems, each by another model, and the shapes of these models.
    """
    pools = same_problems([independent(path, answer=answer) for path in files])
    names, shapes = models_named(pools, shape, memory=True)
    voted = all(problem.keys is not None for pool in pools for problem in pool.problems)
    options = [
        option
        for model, (pool, shape) in enumerate(zip(pools, shapes, strict=True))
        for option in _options(model, pool, shape, voted, seed)
    ]
    credit = np.stack([option.credit for option in options], axis=-1)
    quality = credit.mean(0)
    model = np.array([option.model for option in options])
    other = f"eFLOPs at {_kinetics.INTENSITIES[1]:g}"
    costs = {
        "FLOPs": np.stack([option.load.flops for option in options], axis=-1),
        **{
            f"eFLOPs at {intensity:g}": np.stack([option.load.eflops(intensity) for option in options], axis=-1)
            for intensity in _kinetics.INTENSITIES
        },
    }
    short = distinct_parts(names)
    rows: list[Row] = []
    sentences: list[str] = []
    series: list[Series] = []
    for way, cost in costs.items():
        price = cost.mean(0)
        along = _frontier.frontier(price, quality)
        turns = [place for place in range(len(along)) if place == 0 or model[along[place]] != model[along[place - 1]]]
        told = ", then ".join(f"{names[model[along[turn]]]} from {price[along[turn]]:.3g}" for turn in turns)
        sentences.append(f"By {way} the best model is {told}.")
        if way == other:  # whether the conclusion depends on the device is all that this is for
            continue
        choice = _frontier.best(cost, credit, sorted({*price[along].tolist(), *at}), model, seed=seed)
        for place, option in enumerate(choice.option):
            if option < 0:
                raise UsageError(f"{choice.budgets[place]:.3g} {way} per problem do not pay for a single sample.")
            rows.append(
                (
                    way,
                    f"{choice.budgets[place]:.3g}",
                    f"{short[model[option]]}, {options[option].label}",
                    Cell(choice.quality[place], "share", choice.low[place], choice.high[place]),
                    Cell(choice.fresh[place], "share"),
                    Cell(choice.shares[place, model[option]], "share"),
                )
            )
        for one, name in enumerate(short):
            mine = [place for place, option in enumerate(options) if option.model == one and "," not in option.label]
            series.append(bars(f"{name}, {way}", price[mine], [mean_of(credit[:, place]) for place in mine]))
        best = (price[along].tolist(), quality[along].tolist())
        series.append(Series(name=f"frontier, {way}", x=best[0], y=best[1], mark="steps"))
    effort = costs[f"eFLOPs at {_kinetics.INTENSITIES[0]:g}"].mean(0)
    by_flops = _frontier.frontier(costs["FLOPs"].mean(0), quality)
    waste = max(float(effort[place] / effort[quality >= quality[place]].min()) for place in by_flops)
    what = "of a majority vote" if voted else "that some sample is right, as a perfect check would find it"
    return Analysis(
        title="Kinetics: eFLOPs = FLOPs + I x bytes moved; the frontier of accuracy against both",
        columns=("cost", "per problem", "best option", "accuracy", "if chosen blind", "sure of the model"),
        rows=tuple(rows),
        sentences=(
            *sentences,
            f"Who chooses by FLOPs spends up to {waste:.2f} times the eFLOPs that the same accuracy takes.",
            f"Accuracy is {what}; reading weights is shared with a large batch of others and not charged.",
        ),
        figure=Figure(
            title="Accuracy against FLOPs and eFLOPs",
            x=Axis(title="cost per problem (FLOPs, eFLOPs)", log=True),
            y=Axis(title="accuracy, mean over problems", percent=True),
            series=tuple(series),
        ),
    )


def _options(model: int, pool: PoolData, shape: Shape, voted: bool, seed: int) -> list[_Option]:
    """Every number of samples with its vote or coverage, and one sample with every cap on its length."""
    if any(problem.tokens is None or problem.prompt is None for problem in pool.problems):
        raise UsageError(f"{pool.path} does not say how many tokens prompts and samples have, which this needs.")
    n, c = right_counts(pool)
    ks = powers_of_two(pool.samples)
    vote = majority(pool, ks, subsamples=SUBSAMPLES, seed=seed) if voted else None
    longest = max(int(np.max(problem.tokens)) for problem in pool.problems if problem.tokens is not None)
    caps = [2**power for power in range(4, longest.bit_length())]
    rng = generator(seed)
    several: list[list[_kinetics.Load]] = []
    capped: list[list[_kinetics.Load]] = []
    cut: list[list[float]] = []
    for problem in pool.problems:
        assert problem.tokens is not None
        assert problem.prompt is not None
        # every sample is equally often at every place, so that only the longest of a few is not exact
        places = np.arange(len(problem.tokens))
        turned = (places[:, None] + places) % len(places)
        lengths = np.concatenate([rng.permutation(problem.tokens)[turned] for _ in range(_ORDERS)])
        several.append([_average(_kinetics.recorded(shape, problem.prompt, lengths[:, :k])) for k in ks])
        capped.append(
            [
                _average(_kinetics.recorded(shape, problem.prompt, np.minimum(problem.tokens, cap)[:, None]))
                for cap in caps
            ]
        )
        cut.append([float((problem.correct & (problem.tokens <= cap)).mean()) for cap in caps])
    credits = [*(pass_at_k(n, c, k) if vote is None else vote[k].accuracy for k in ks), *np.array(cut).T]
    labels = [*(f"n = {k}" for k in ks), *(f"n = 1, <= {cap} tokens" for cap in caps)]
    loads = [_stacked(column) for column in [*zip(*several, strict=True), *zip(*capped, strict=True)]]
    return [_Option(model, *told) for told in zip(labels, credits, loads, strict=True)]


def _average(load: _kinetics.Load) -> _kinetics.Load:
    return _kinetics.Load(flops=np.asarray(load.flops.mean()), bytes=np.asarray(load.bytes.mean()))


def _stacked(loads: Sequence[_kinetics.Load]) -> _kinetics.Load:
    return _kinetics.Load(flops=np.array([one.flops for one in loads]), bytes=np.array([one.bytes for one in loads]))
