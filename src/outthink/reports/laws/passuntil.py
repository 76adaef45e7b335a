"""`outthink law passuntil`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from outthink.laws.coverage import all_right_at_k, pass_at_k
from outthink.laws.passuntil import pass_until
from outthink.reports.analysis import (
    Analysis,
    Cell,
    by_quantity,
    curve,
    grid,
    mean_of,
    powers_of_two,
    short_names,
    worded,
)
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.laws.data import independent, right_counts

_ORACLE = "The best of k is what a perfect choice among the samples would reach, and no method."
_PASSES = 3  # that end the sampling of a problem, where its samples were not drawn so


def passuntil(files: Sequence[Path]) -> Analysis:
    """Average, best and worst of k samples, and success rates by sampling until some have passed.

    Pools of independent samples, or those of `outthink pool --until`, whose own number of passes counts.
    """
    columns: dict[str, dict[str, str | Cell | None]] = {}
    sentences: list[str] = []
    series: list[Series] = []
    for name, path in short_names(files):
        pool = independent(path, until=True)
        n, c = right_counts(pool)
        # how many samples there are may depend on them, and then they are not shuffled, nor all of them is a number
        stopped = pool.kind == "until"
        passes = int(pool.meta.get("until", _PASSES)) if stopped else _PASSES
        rates = [pass_until(one.correct if stopped else one.shuffled(), passes) for one in pool.problems]
        never = [rate.high for rate in rates if rate.high is not None]
        ks = sorted({*powers_of_two(pool.samples), *np.rint(grid(1, pool.samples)).astype(int).tolist()})
        columns[name] = {
            "problems": Cell(len(n)),
            "passes that end it": Cell(passes),
            "rate until they pass": mean_of([rate.rate for rate in rates]),
            "likeliest, too high": mean_of([rate.likeliest for rate in rates]),
            "samples that took": mean_of([rate.samples for rate in rates], "number"),
            "fewer passed": Cell(float(np.mean([rate.censored for rate in rates])), "share"),
        }
        if never:
            sentences.append(
                f"{name}: {len(never)} problems were never solved. Each of them can still have a rate of up to "
                f"{worded(float(np.median(never)), 'share')} (95%)."
            )
        if stopped:
            continue
        best, worst = ([mean_of(share(n, c, k)) for k in ks] for share in (pass_at_k, all_right_at_k))
        columns[name] |= {
            "samples": Cell(pool.samples),
            "average": best[0],
            "best of all": best[-1],
            "worst of all": worst[-1],
        }
        label = f"{name}: " if len(files) > 1 else ""
        series += [
            curve(f"{label}best of k", ks, best),
            curve(f"{label}average", ks, [best[0]] * len(ks)),
            curve(f"{label}worst of k", ks, worst),
        ]
    return Analysis(
        title="PassUntil, and average, best and worst of k",
        **by_quantity(columns),
        sentences=(*sentences, *([_ORACLE] if series else [])),
        figure=Figure(
            title="Average, best and worst of k samples",
            x=Axis(title="samples per problem (k)", log=True),
            y=Axis(title="P(right), mean over problems", percent=True),
            series=tuple(series),
        ),
    )
