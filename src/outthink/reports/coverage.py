"""pass@k of pools, as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from outthink.laws.coverage import PowerLaw, fit_power_law, pass_at_k
from outthink.laws.passuntil import pass_until
from outthink.maths.intervals import mean_and_interval
from outthink.records.frames import Frame
from outthink.records.pools import copies, need_fixed, read_pool
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.report import interval_cell
from outthink.reports.tables import markdown_table, text_table

if TYPE_CHECKING:
    from rich.table import Table


_PASSES = 3  # of PassUntil


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """What some sample of k is worth in a pool, for each k.

    Args:
        problems, samples: problems, and samples that each of them has at least.
        at: k to the mean of pass@k over problems, and its 95% interval.
        law: fitted to coverage at k spaced evenly in log k; None where it cannot be.
        until: mean over problems of the rate by PassUntil.
        remark: what to be careful about with its samples; None: nothing.
    """

    problems: int
    samples: int
    at: Mapping[int, tuple[float, float, float]]
    law: PowerLaw | None
    until: float
    remark: str | None = None

    def sentence(self, name: str) -> str:
        """What the fits say, in words."""
        law = (
            "no power law can be fitted"
            if self.law is None
            else f"coverage(k) = exp({self.law.a:.3f} k^{self.law.b:.3f}) for k from 1 to {self.law.most}, "
            f"off by at most {100 * self.law.error:.1f} points"
        )
        told = f"{name}: {law}; mean rate of sampling until {_PASSES} passes {100 * self.until:.1f}%."
        return told if self.remark is None else f"{told} Note that {self.remark}"


def pool_coverage(path: Path) -> Coverage:
    """Unbiased pass@k of a pool at k = 1, 2, 4 ... and at as many samples as every problem has.

    Raises UsageError that names the line of what is not of a graded pool, and where its samples are not independent.
    """
    pool = read_pool(path)
    need_fixed(pool)
    samples = pool.samples
    totals = [len(problem.correct) for problem in pool.problems]
    counts = [int(problem.correct.sum()) for problem in pool.problems]
    rates = [pass_until(problem.shuffled(), _PASSES).rate for problem in pool.problems]
    steps = sorted({samples, *(2**power for power in range(samples.bit_length()))})
    points = np.unique(np.rint(np.logspace(0, math.log10(samples), 40)).astype(int))
    return Coverage(
        problems=len(counts),
        samples=samples,
        at={k: mean_and_interval(pass_at_k(totals, counts, k).tolist()) for k in steps},
        law=fit_power_law(points, [pass_at_k(totals, counts, int(k)).mean() for k in points]),
        until=float(np.mean(rates)),
        remark=copies(pool),
    )


def coverage_table(pools: Mapping[str, Coverage]) -> Table:
    """Pools by name, for a terminal."""
    return text_table(_coverage_columns(pools), _coverage_rows(pools))


def coverage_markdown(pools: Mapping[str, Coverage]) -> str:
    """The same as a Markdown table."""
    return markdown_table(_coverage_columns(pools), _coverage_rows(pools))


def coverage_cells(pools: Mapping[str, Coverage]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the same table."""
    return _coverage_columns(pools), _coverage_rows(pools)


def coverage_frame(pools: Mapping[str, Coverage]) -> Frame:
    """One row for each pool and k, shares in [0, 1]."""
    return Frame.of_rows(
        [
            {
                "pool": name,
                "problems": measured.problems,
                "samples": measured.samples,
                "k": k,
                "coverage": value,
                "coverage_low": low,
                "coverage_high": high,
                "law": None if measured.law is None else float(measured.law.at(k)),
            }
            for name, measured in pools.items()
            for k, (value, low, high) in measured.at.items()
        ]
    )


def coverage_figure(pools: Mapping[str, Coverage]) -> Figure:
    """Coverage against k with its band, a curve for each pool."""
    series = []
    for name, measured in pools.items():
        y, low, high = zip(*measured.at.values(), strict=True)
        mark: Literal["line", "points"] = "line" if len(measured.at) > 1 else "points"
        series.append(Series(name=name, x=list(measured.at), y=y, low=low, high=high, mark=mark))
    return Figure(
        title="Coverage",
        x=Axis(title="samples per problem", log=True),
        y=Axis(title="some sample is right (95% interval)", percent=True),
        series=tuple(series),
    )


def _coverage_columns(pools: Mapping[str, Coverage]) -> list[str]:
    return ["pool", "problems", "samples", *(f"pass@{k} (95%)" for k in _steps(pools))]


def _coverage_rows(pools: Mapping[str, Coverage]) -> list[list[str]]:
    return [
        [
            name,
            str(measured.problems),
            str(measured.samples),
            *(interval_cell(measured.at.get(k)) for k in _steps(pools)),
        ]
        for name, measured in pools.items()
    ]


def _steps(pools: Mapping[str, Coverage]) -> list[int]:
    return sorted({k for measured in pools.values() for k in measured.at})
