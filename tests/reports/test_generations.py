"""Generations of answers: graded by the run, counted by the report, told with what they read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from outthink.bench.grading import grade_run
from outthink.bench.run import bench
from outthink.cli import app
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.generations import answers_of
from outthink.records.runs import RESULTS, read_results
from outthink.reports.report import generations_sentences, summary
from outthink.strategies.making import make_strategy
from outthink.tasks.example import Example
from outthink.types import Sampling
from tests.tools.toys import problem
from tests.tools.virtual import run

TABLES: dict[str, list[list[int | None]]] = {
    "p": [[1, 2, 3], [1, 1, None]],
    "q": [[1, 1, 1], [0, 0, 0]],
    "r": [[1, 2, 1], [2, 2, 1]],
}
"""The answers of three agents in two rounds, by problem; 1 is right."""


def reply(request: Request, child: int, rng: np.random.Generator) -> str:
    said = TABLES[request.problem][int("round" in request.address)][child]
    return "no idea" if said is None else f"#### {said}"


def recorded(folder: Path, strategy: str = "debate?n=3") -> None:
    examples = [Example(problem=problem(name), gold=("1",)) for name in TABLES]
    engine = ScriptedEngine(reply)
    run(bench(examples, make_strategy(strategy), store=folder, model=engine, sampling=Sampling(max_tokens=50)))


def test_flips_distinct_answers_and_tokens_of_each_generation_are_counted(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    results = list(read_results(tmp_path / "run"))
    assert {result.problem: dict(result.credits) for result in results} == {
        "p": {"1": 1.0, "2": 0.0, "3": 0.0},
        "q": {"1": 1.0},
        "r": {"1": 1.0, "2": 0.0},
    }
    first, second = summary(results).generations
    assert (first.problems, first.answers, first.distinct) == (3, 3.0, 2.0)
    assert first.right == pytest.approx((1 / 3 + 1 + 2 / 3) / 3)
    # q agrees at once and is not debated
    assert (second.problems, second.distinct) == (2, 1.5)
    assert second.right == pytest.approx((2 / 3 + 1 / 3) / 2)
    # p: 1 to 1, 2 to 1, 3 to nothing; r: 1 to 2, 2 to 2, 1 to 1
    assert (second.revised, second.to_right, second.to_wrong) == (6, 1, 1)
    asked = len(problem().question)
    assert (first.read, first.cached) == (asked, 2 * asked)
    assert (first.written, second.written) == (18.0, (6 + 6 + 7 + 18) / 2)
    assert second.cached == 2 * second.read > 2 * asked
    said = generations_sentences("run", (first, second))
    assert said[-1] == "run: of 6 revised answers 1 went from wrong to right, 1 from right to wrong."
    assert said[0] == (
        "run: generation 1 (of 3 problems): 3 answers, 2 different ones; 12 tokens read, 24 more from the cache, 18 "
        "written; 66.7% of the answers are right."
    )


def test_the_report_tells_them_and_other_runs_carry_nothing_of_it(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    recorded(tmp_path / "vote", "self_consistency?n=3")
    said = CliRunner().invoke(app, ["report", str(tmp_path / "run")]).stdout
    assert "1 went from wrong to right, 1 from right to wrong" in said
    told = json.loads(CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--json"]).stdout)
    (of_run,) = told["runs"].values()
    assert [one["distinct"] for one in of_run["generations"]] == [2.0, 1.5]
    for line in (tmp_path / "vote" / RESULTS).read_text().splitlines():
        assert not {"credits", "generation"} & {*json.loads(line), *json.loads(line)["trace"]["rounds"][0]}


def test_where_places_do_not_match_nothing_is_called_revised(tmp_path: Path) -> None:
    recorded(tmp_path / "run", "pacore_prompted?widths=3")
    first, second = summary(read_results(tmp_path / "run")).generations
    assert (first.answers, second.answers, second.problems, second.revised) == (3.0, 1.0, 3, 0)


def test_grading_afterwards_grades_them_too(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"problem": "p", "answer": "3"}\n')
    grade_run(tmp_path / "run", gold, tmp_path / "graded", answer="math")
    graded = {result.problem: result for result in read_results(tmp_path / "graded")}
    first = graded["p"]
    assert (first.credit, dict(first.credits)) == (0.0, {"1": 0.0, "2": 0.0, "3": 1.0})
    assert graded["q"].credits == {"1": 1.0}
    assert first.trace is not None
    assert answers_of(first.trace) == {"1": "1", "2": "2", "3": "3"}
