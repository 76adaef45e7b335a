"""Runs beside each other: each with the right baseline, a curve for each method, every number where it belongs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from outthink.errors import UsageError
from outthink.records.runs import Result, Store
from outthink.reports.compared import paper_table, run_figure, run_frame
from outthink.reports.report import baselines, paired, read_runs
from outthink.types import Budget
from tests.records.test_store import SETTINGS, call, result


def write(folder: Path, credits: str, *, tokens: float = 10.0, task: str = "t", **changes: Any) -> Path:
    """A run with one problem for each digit."""
    problems = [f"{task}:{place}" for place in range(len(credits))]
    settings = {**SETTINGS, "task": task, "models": {"model": "m"}, "problems": problems, **changes}
    with Store(folder, settings) as store:
        for name, credit in zip(problems, credits, strict=True):
            store.record(result(name, call(tokens), credit=float(credit)), sync=False)
    return folder


def vote(n: int) -> dict[str, Any]:
    return {"strategy": {"name": "self_consistency", "n": n}}


def compared(*runs: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, str], dict[str, list[Path]]]:
    both = {run.name: read_runs([run]) for run in runs}
    bases = baselines({name: light for name, (_, light) in both.items()})
    differences = {name: paired(both[name][1], both[base][1]) for name, base in bases.items()}
    return {name: one for name, (one, _) in both.items()}, differences, bases, {run.name: [run] for run in runs}


def test_each_run_is_compared_with_the_first_that_has_its_problems() -> None:
    def of(*problems: str) -> list[Result]:
        return [Result(problem=problem, credit=1.0) for problem in problems]

    runs = {"a": of("1", "2"), "b": of("x"), "c": of("2", "3"), "d": of("x", "3"), "e": of()}
    assert baselines(runs) == {"c": "a", "d": "b"}
    assert baselines({"a": of("1"), "b": of("2"), "c": of("3")}) == {"b": "a", "c": "a"}
    assert baselines({"a": of("1")}) == {}


def test_a_row_has_the_numbers_of_its_run(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", "1100", **vote(1)), write(tmp_path / "two", "1110", tokens=30.0, **vote(3))
    summaries, differences, bases, folders = compared(one, two)
    columns = run_frame(summaries, differences, bases, folders).columns
    assert list(columns["run"]) == ["one", "two"]
    assert list(columns["accuracy"]) == [0.5, 0.75]
    assert list(columns["tokens"]) == [10.0, 30.0]
    assert list(columns["difference"]) == [None, 0.25]
    assert (list(columns["baseline"]), list(columns["discordant"])) == ([None, "one"], [None, 1])
    assert list(columns["task"]) == ["t", "t"]


def test_a_table_for_a_paper_tells_how_runs_ended_only_where_that_matters(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", "1100"), write(tmp_path / "two", "1110")
    summaries, differences, *_ = compared(one, two)
    names, rows = paper_table({f"deep/{name}": one for name, one in summaries.items()}, {})
    assert [row[0] for row in rows] == ["one", "two"], "the shortest names that tell them apart"
    assert "ended" not in names
    _, rows = paper_table(summaries, differences)
    assert [row[3] for row in rows] == ["-", "+25.0 (-52.0 to +80.1)"]
    with Store(tmp_path / "failed", {**SETTINGS, "models": {"model": "m"}, "problems": ["p"]}) as store:
        store.record(Result(problem="p", credit=0.0, error="gone"))
    assert "ended" in paper_table(compared(tmp_path / "failed")[0], {})[0]


def test_runs_of_one_method_are_a_curve_by_their_cost(tmp_path: Path) -> None:
    runs = [
        write(tmp_path / "n8", "1110", tokens=80.0, **vote(8)),
        write(tmp_path / "n1", "1000", **vote(1)),
        write(tmp_path / "other", "1100", tokens=20.0, strategy={"name": "greedy"}),
        write(tmp_path / "far", "1100", tokens=20.0, task="u", strategy={"name": "greedy"}),
    ]
    summaries, _, _, folders = compared(*runs)
    figure = run_figure(summaries, folders)
    curve, point, far = figure.series
    assert (curve.name, curve.mark) == ("self_consistency, t", "line")
    assert (curve.x, curve.y) == ([10.0, 80.0], [0.25, 0.75])
    assert curve.low is not None
    assert curve.low[0] < 0.25
    assert (point.name, point.mark, far.name) == ("greedy, t", "points", "greedy, u")
    assert not figure.x.log


def test_what_was_not_graded_or_not_counted_is_in_no_figure(tmp_path: Path) -> None:
    with Store(tmp_path / "a", {**SETTINGS, "models": {"model": "m"}, "budget": dict(Budget().limits)}) as store:
        store.record(Result(problem="a", credit=None))
    summaries, _, _, folders = compared(tmp_path / "a")
    assert math.isnan(summaries["a"].accuracy)
    with pytest.raises(UsageError, match="nothing to draw"):
        run_figure(summaries, folders)
