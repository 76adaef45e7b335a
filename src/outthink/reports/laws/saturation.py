"""`outthink law saturation`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from outthink.errors import Unidentified
from outthink.laws.coverage import pass_at_k
from outthink.laws.saturation import ManyRates, OneRate, fit_many_rates, fit_one_rate
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
from outthink.reports.curves import majority
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.laws.data import SUBSAMPLES, Floats, independent, right_counts
from outthink.types import AnswerKind

_POINT = 0.01  # what one more unit must add, so that it is worth it: one problem in a hundred


def saturation(
    files: Sequence[Path], *, at: Sequence[float] = (), answer: AnswerKind = "text", seed: int = 0
) -> Analysis:
    """Accuracy nears a ceiling, and after so many samples one more adds less than a point.

    Pools of independent samples, at least three of each problem; with answers, the majority vote is fitted, too.
    """
    columns: dict[str, dict[str, str | Cell | None]] = {}
    sentences: list[str] = []
    series: list[Series] = []
    for file, path in short_names(files):
        pool = independent(path, answer=answer)
        n, c = right_counts(pool)
        ks = powers_of_two(pool.samples)
        some = np.stack([pass_at_k(n, c, k) for k in ks], axis=-1)
        curves: list[tuple[str, Floats, bool]] = [
            ("some sample is right, many rates", some, True),
            ("some sample is right, one rate", some, False),
        ]
        if all(problem.keys is not None for problem in pool.problems):
            vote = majority(pool, ks, subsamples=SUBSAMPLES, seed=seed)
            curves.append(("majority vote, one rate", np.stack([vote[k].accuracy for k in ks], axis=-1), False))
        refusals: dict[str, Unidentified] = {}
        for what, measured, many in curves:
            name = f"{file}: {what}" if len(files) > 1 else what
            law: ManyRates | OneRate
            if measured is some and refusals:
                continue  # one rate for all would promise a ceiling that these data do not show
            try:
                law = fit_many_rates(n, c, seed=seed) if many else fit_one_rate(ks, measured, seed=seed)
            except Unidentified as refusal:
                refusals[name] = refusal
                continue
            if isinstance(law, ManyRates):
                ceiling, rate, spread = estimates((law.ceiling, law.rate, law.spread), law.parameters, "share")
            else:
                ceiling, rate, spread = *estimates((law.ceiling, law.p), law.parameters, "share"), None
            gain, gap = (
                estimated(law.point(_POINT, rule=rule), law.point_interval(_POINT, rule=rule))
                for rule in ("gain", "gap")
            )
            columns[name] = {
                "problems": Cell(len(n)),
                "samples": Cell(pool.samples),
                "ceiling, if the law is right": ceiling,
                "rate": rate,
                "spread of rates": None if spread is None else spread._replace(unit="number"),
                "one more adds < 1 point after": gain,
                "all more add < 1 point after": gap,
                **{predicted(k, pool.samples): estimated(law.at(k), law.at_interval(k), "share") for k in at},
            }
            cells = [mean_of(column) for column in measured.T]
            sentences += misfit(name, ks, cells, law.at(ks))
            if law.misses:
                sentences.append(misled(name, pool.samples, law.drift))
            sentences += [too_far(name, k, pool.samples) for k in at if law.far(k)]
            dense = grid(1, max(pool.samples, *at, 1))
            series.append(curve(name, dense, estimates(law.at(dense), law.at_interval(dense))))
            if many or measured is not some:
                series.append(bars(name, ks, cells))
        if not any(name.startswith(file) or len(files) == 1 for name in columns):
            raise Unidentified(f"{file}: {next(iter(refusals.values()))}")
        sentences += [f"{name}: {refusal}" for name, refusal in refusals.items()]
    return Analysis(
        title="Saturation: F(k) = ceiling (1 - mean of (1 - rate)^k)",
        **by_quantity(columns),
        sentences=tuple(sentences),
        figure=Figure(
            title="Saturation",
            x=Axis(title="samples per problem (k)", log=True),
            y=Axis(title="accuracy, mean over problems", percent=True),
            series=tuple(series),
        ),
    )
