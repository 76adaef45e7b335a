"""`outthink law coverage`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from outthink.errors import Unidentified
from outthink.laws.coverage import coverage_law, pass_at_k
from outthink.reports.analysis import (
    Analysis,
    Cell,
    bars,
    by_quantity,
    curve,
    estimated,
    estimates,
    grid,
    mean_of,
    misfit,
    misled,
    powers_of_two,
    predicted,
    short_names,
    too_far,
)
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.laws.data import independent, naming, remarks, right_counts


def coverage(files: Sequence[Path], *, at: Sequence[float] = (), seed: int = 0) -> Analysis:
    """P(some sample of k is right) grows as exp(a k^b).

    Pools of independent samples, at least three of each problem; they may be those of several models.
    """
    columns: dict[str, dict[str, str | Cell | None]] = {}
    sentences: list[str] = []
    series: list[Series] = []
    for name, path in short_names(files):
        pool = independent(path, models=True)
        n, c = right_counts(pool)
        with naming(name):
            law = coverage_law(n, c, seed=seed)
        ks = powers_of_two(pool.samples)
        measured = [mean_of(pass_at_k(n, c, k)) for k in ks]
        a, b = estimates((law.law.a, law.law.b), law.parameters)
        columns[name] = {
            "problems": Cell(len(n)),
            "samples": Cell(pool.samples),
            "pass@1": measured[0],
            "pass@all": measured[-1],
            "a": a,
            "b": b,
            **{predicted(k, pool.samples): estimated(law.at(k), law.at_interval(k), "share") for k in at},
        }
        sentences += remarks(pool, name)
        if law.misses:
            sentences.append(misled(name, pool.samples, law.drift))
        with contextlib.suppress(Unidentified):  # there may be too few samples to leave half of them out
            half = coverage_law(n, c, most=pool.samples // 2, seed=seed)
            told = estimated(half.at(pool.samples), half.at_interval(pool.samples), "share")
            sentences.append(
                f"{name}: the law of k up to {pool.samples // 2} alone says {told} at {pool.samples}; measured is "
                f"{measured[-1]}."
            )
        sentences += misfit(name, ks, measured, law.at(ks))
        sentences += [too_far(name, k, pool.samples) for k in at if law.law.far(k)]
        dense = grid(1, max(pool.samples, *at, 1))
        series += [curve(name, dense, estimates(law.at(dense), law.at_interval(dense))), bars(name, ks, measured)]
    return Analysis(
        title="Coverage: P(some sample of k is right) = exp(a k^b)",
        **by_quantity(columns),
        sentences=tuple(sentences),
        figure=Figure(
            title="Coverage",
            x=Axis(title="samples per problem (k)", log=True),
            y=Axis(title="P(some sample is right), mean over problems", percent=True),
            series=tuple(series),
        ),
    )
