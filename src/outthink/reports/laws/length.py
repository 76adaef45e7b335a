"""`outthink law length`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outthink.errors import Unidentified, UsageError
from outthink.laws import length as _length
from outthink.records.pools import PoolData
from outthink.reports.analysis import Analysis, Cell, Row, bars, estimated, estimates, mean_of, short_names
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.laws.data import Floats, independent, same_problems


def length(files: Sequence[Path], *, at: Sequence[float] = (), seed: int = 0) -> Analysis:
    """Whether longer samples are less often right at equal difficulty, and what more length buys.

    A pool with token counts; a second one of the same problems by another model or effort rates their difficulty, and
    is compared with.
    """
    if len(files) > 2:
        raise UsageError(f"The law length takes one pool, or two to compare, not {len(files)}.")
    (name, *others) = [name for name, _ in short_names(files)]
    pool, *second = same_problems([independent(path) for path in files])
    tokens, right, whole = _lengths(pool)
    tier = None
    if second:
        easiness = np.array([problem.correct.mean() for problem in second[0].problems])
        tier = _length.tiers(-easiness)  # the lowest tier is the easiest
    kept = [row for row, complete in enumerate(whole) if complete.any()]
    if not kept:
        raise Unidentified(f"{name}: All samples were cut off, so their lengths say nothing.")
    cut = 1 - float(np.mean([complete.mean() for complete in whole]))
    lengths = np.concatenate(tokens)
    # by as many tokens as lengths really differ by: beyond that the effect is not one of these samples
    step = 10.0 ** math.floor(math.log10(max(np.quantile(lengths, 0.9) - np.quantile(lengths, 0.1), 1.0)))
    rows: list[Row] = [
        ("problems", Cell(len(tokens))),
        ("accuracy", mean_of([question.mean() for question in right])),
        ("tokens", mean_of([question.mean() for question in tokens], "number")),
        ("cut off", Cell(cut, "share")),
    ]
    sentences: list[str] = []
    effects: list[tuple[str, Callable[[], _length.LengthEffect]]] = [
        (f"{step:,.0f} tokens more", lambda: _length.length_effect(tokens, right))
    ]
    if tier is not None:
        effects.append(
            ("the same at equal difficulty", lambda: _length.length_effect(tokens, right, tier=tier.tolist()))
        )
    if cut:
        effects.append(
            (
                "the same without what was cut off",
                lambda: _length.length_effect(
                    [tokens[row][whole[row]] for row in kept],
                    [right[row][whole[row]] for row in kept],
                    tier=None if tier is None else tier[kept].tolist(),
                ),
            )
        )
    refusals = []
    for what, fit in effects:
        try:
            effect = fit()
        except Unidentified as refusal:
            refusals.append(f"{what}: {refusal}")
            continue
        value, low, high = (step / 1000 * number for number in (effect.effect, effect.low, effect.high))
        rows.append((what, Cell(value, "points", low, high)))
    try:
        within = _length.length_within(tokens, right, seed=seed)
    except Unidentified as refusal:
        sentences.append(f"the same within a question: {refusal}")
    else:
        value, low, high = (
            step / 1000 * float(number) for number in (within.effect, within.interval.low, within.interval.high)
        )
        rows.append(("the same within a question", Cell(value, "points", low, high)))
    if len(refusals) == len(effects):
        raise Unidentified(f"{name}: {refusals[0]}")
    sentences += refusals
    if tier is None:
        sentences.append(
            "Without a second pool that rates the problems, longer may only mean harder: length and difficulty are "
            "apart only within a question."
        )
    series: list[Series] = []
    groups: list[tuple[str, NDArray[np.bool_]]] = [("all", np.ones(len(tokens), dtype=bool))]
    if tier is not None:
        parts = int(tier.max()) + 1
        groups = [(f"tier {one + 1} of {parts}{' (easiest)' * (one == 0)}", tier == one) for one in range(parts)]
    for group, members in groups:
        inside = np.flatnonzero(members)
        try:
            edges, bins = _bins([tokens[one] for one in inside], [right[one] for one in inside], tier is None, seed)
        except Unidentified as refusal:
            if tier is None:
                raise
            sentences.append(f"{group} ({len(inside)} problems): {refusal}")
            continue
        series.append(bars(group, edges, estimates(bins.accuracy, bins.interval, "share")))
        series.append(Series(name=group, x=edges.tolist(), y=bins.accuracy.tolist()))
    if not series:
        edges, bins = _bins(tokens, right, True, seed)
        series.append(bars("all", edges, estimates(bins.accuracy, bins.interval, "share")))
    if at:
        tail = _length.bin_lengths(tokens, right, sorted(at), seed=seed)
        for edge, wrong in zip(tail.edges, estimates(tail.tail_error, tail.tail_interval, "share"), strict=True):
            sentences.append(
                f"Of the samples of {edge:g} tokens and more, {wrong} are wrong."
                if math.isfinite(wrong.value)
                else f"Too few samples have {edge:g} tokens or more."
            )
    if second:
        other_tokens, other_right, _ = _lengths(second[0])
        rows += _against(other_tokens, other_right, tokens, right, f"{others[0]} over {name}", sentences, seed)
    return Analysis(
        title="Length against accuracy",
        columns=("quantity", name),
        rows=tuple(rows),
        sentences=(
            *sentences,
            "A falling curve does not say that a long sample, stopped earlier, would have been right.",
        ),
        figure=Figure(
            title=f"Accuracy by length, {name}",
            x=Axis(title="tokens of a sample"),
            y=Axis(title="accuracy of samples", percent=True),
            series=tuple(series),
        ),
    )


def _bins(tokens: list[Floats], right: list[Floats], all_tiers: bool, seed: int) -> tuple[Floats, _length.Lengths]:
    """Middles of the narrowest bins of which some have enough questions; inside a tier they begin twice as wide."""
    number = 24 if all_tiers else 12
    while True:
        edges = _length.equal_bins(tokens, number)
        try:
            bins = _length.bin_lengths(tokens, right, edges, seed=seed)
        except Unidentified:
            if number == 1:
                raise
            number //= 2
        else:
            return edges + (max(float(lengths.max()) for lengths in tokens) / number) / 2, bins


def _against(
    tokens_a: list[Floats],
    right_a: list[Floats],
    tokens_b: list[Floats],
    right_b: list[Floats],
    name: str,
    sentences: list[str],
    seed: int,
) -> list[Row]:
    """Two models on the same problems: tokens where both are right, and what one more problem costs."""
    rows: list[Row] = []
    try:
        comparison = _length.compare_lengths(tokens_a, right_a, tokens_b, right_b, seed=seed)
    except Unidentified as refusal:
        sentences.append(str(refusal))
    else:
        rows.append((f"tokens, {name}, both right", estimated(comparison.ratios.median, comparison.interval)))
    try:
        price = _length.price_of_effort(tokens_b, right_b, tokens_a, right_a, seed=seed)
    except Unidentified as refusal:
        sentences.append(f"{name}: {refusal}")
    else:
        rows.append(("tokens for one more problem solved", estimated(price.per_solved, price.interval)))
    return rows


def _lengths(pool: PoolData) -> tuple[list[Floats], list[Floats], list[NDArray[np.bool_]]]:
    """Tokens, correctness and completeness of the samples of each problem; what was cut off is wrong."""
    tokens, right = [], []
    for problem in pool.problems:
        if problem.tokens is None:
            raise UsageError(f"{pool.path} has no token counts, which this needs.")
        # a sample that was cut off has as many tokens as the cap
        t, a = _length.cut_at(problem.tokens, problem.correct, problem.complete, 0.0)
        tokens.append(t)
        right.append(a)
    return tokens, right, [problem.complete for problem in pool.problems]
