"""Runs beside each other: as numbers, as a table for a paper, and as a figure of accuracy against cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from outthink.errors import UsageError
from outthink.records.frames import Frame, Value
from outthink.records.runs import read_settings, strategy_named
from outthink.reports.analysis import short_names
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.report import ALL_FINISHED, COLUMNS, Difference, Summary, cells

_ONE_CURVE = ("task", "models", "verifier", "prm", "embedder")
"""Settings that are alike on a curve: along it only the strategy's hyperparameters and the budget change."""

_WIDE = 10.0  # a cost so many times another one: the axis is logarithmic


def run_frame(
    summaries: Mapping[str, Summary],
    differences: Mapping[str, Difference],
    baselines: Mapping[str, str],
    folders: Mapping[str, Sequence[Path]],
) -> Frame:
    """One row for each run, shares in [0, 1] and costs per problem; differences are from its baseline."""
    units = list(dict.fromkeys(unit for summary in summaries.values() for unit in summary.cost))
    rows = []
    for name, summary in summaries.items():
        settings = read_settings(folders[name][0])
        row: dict[str, Value] = {
            "run": name,
            "task": settings.get("task"),
            "strategy": strategy_named(settings),
            "model": settings.get("models", {}).get("model"),
            "seeds": len(folders[name]),
            "problems": summary.problems,
            "attempts": summary.attempts,
            "planned": summary.planned,
            "graded": summary.graded,
            "accuracy": summary.accuracy,
            "accuracy_low": summary.low,
            "accuracy_high": summary.high,
            "invalid": summary.invalid,
            "truncated": summary.truncated,
            "errors": summary.errors,
            **{unit: summary.cost.get(unit) for unit in units},
        }
        if (difference := differences.get(name)) is not None:
            row |= {
                "baseline": baselines[name],
                "difference": difference.difference,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "difference_problems": difference.problems,
                "discordant": difference.discordant,
                "detectable": difference.detectable,
            }
        rows.append(row)
    return Frame.of_rows(rows)


def paper_table(
    summaries: Mapping[str, Summary], differences: Mapping[str, Difference]
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows as in the report, runs by their shortest names, with the paired difference from their baseline.

    How runs ended is told only where not all have finished.
    """
    shown = [cells(name, summary) for name, summary in summaries.items()]
    ended = any(row[-1] not in (ALL_FINISHED, "-") for row in shown)
    last = len(COLUMNS) if ended else len(COLUMNS) - 1
    columns = [*COLUMNS[:3], "difference (95%)", *COLUMNS[3:last]]
    short = {str(path): name for name, path in short_names([Path(name) for name in summaries])}
    rows = [[short.get(row[0], row[0]), *row[1:3], _points(differences.get(row[0])), *row[3:last]] for row in shown]
    return columns, rows


def _points(difference: Difference | None) -> str:
    if difference is None or math.isnan(difference.difference):
        return "-"
    return f"{100 * difference.difference:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def run_figure(summaries: Mapping[str, Summary], folders: Mapping[str, Sequence[Path]]) -> Figure:
    """Accuracy against tokens: runs of one method are a curve with its band, others points with bars.

    Runs without graded problems or without tokens are left out. Raises UsageError where none is left.
    """
    settings = {name: read_settings(folders[name][0]) for name in summaries}
    curves: dict[str, list[str]] = {}
    for name, summary in summaries.items():
        if summary.graded and "tokens" in summary.cost:
            asked = settings[name]
            same = [strategy_named(asked), *(asked.get(part) for part in _ONE_CURVE)]
            curves.setdefault(json.dumps(same), []).append(name)
    if not curves:
        raise UsageError("There is nothing to draw: no run is graded and counts tokens.")
    series: list[Series] = []
    labels = _labels([settings[names[0]] for names in curves.values()])
    for names, label in zip(curves.values(), labels, strict=True):
        names = sorted(names, key=lambda name: summaries[name].cost["tokens"])
        shown = [summaries[name] for name in names]
        series.append(
            Series(
                name=label,
                x=[summary.cost["tokens"] for summary in shown],
                y=[summary.accuracy for summary in shown],
                low=[summary.low for summary in shown],
                high=[summary.high for summary in shown],
                mark="line" if len(names) > 1 else "points",
            )
        )
    return Figure(
        title="Accuracy against cost",
        x=Axis(title="tokens per problem", log=spread_widely([x for one in series for x in one.x])),
        y=Axis(title="accuracy (95% interval)", percent=True),
        series=tuple(series),
    )


def spread_widely(values: Sequence[float]) -> bool:
    """Whether an axis of these costs is better logarithmic."""
    return min(values, default=0.0) > 0 and max(values) >= _WIDE * min(values)


def _labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The strategies, with what else tells the curves apart."""
    parts = [
        {
            "strategy": strategy_named(asked),
            **{role: str(asked.get(role) or "") for role in ("verifier", "prm", "embedder")},
            **{f"models.{role}": str(name) for role, name in asked.get("models", {}).items()},
            "task": str(asked.get("task") or ""),
        }
        for asked in settings
    ]
    names = list(dict.fromkeys(name for part in parts for name in part))
    varied = [name for name in names if name == "strategy" or len({part.get(name) for part in parts}) > 1]
    return [", ".join(part[name] for name in varied if part.get(name)) for part in parts]
