"""Grading afterwards: real runs, answers that people wrote down, and what the report then says."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from outthink.bench.grading import Graded, grade_run
from outthink.errors import UsageError
from outthink.records.runs import RESULTS, RUN, Result, Store, read_results, read_settings
from outthink.server.record import Recorder
from tests.cli.test_cli import main
from tests.reports.test_report import told

LIVE: dict[str, Any] = {"strategy": {"name": "self_consistency"}, "shard": None, "problems": None}


def live(folder: Path, results: Sequence[Result]) -> Path:
    with Store(folder, LIVE) as store:
        for result in results:
            store.record(result)
    return folder


def gold(folder: Path, **answers: Any) -> Path:
    path = folder / "gold.jsonl"
    lines = [json.dumps({"problem": problem, "answer": answer}) for problem, answer in answers.items()]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path


def credits(folder: Path) -> dict[str, float | None]:
    return {result.problem: result.credit for result in read_results(folder)}


def test_credits_go_into_a_new_run_and_nothing_else_changes(tmp_path: Path) -> None:
    results = [
        told("a", "0.5"),
        told("b", "2", sure=1 / 3),
        told("c", None),
        told("d", "4"),
        told("e", "seven"),
        Result(problem="f", credit=None, error="The server is down."),
    ]
    run = live(tmp_path / "run", results)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    right = gold(tmp_path, a=r"\frac{1}{2}", b=["3", 2], c="1", d="5", f="1", unknown="9")
    graded = grade_run(run, right, tmp_path / "new" / "graded")
    assert graded == Graded(problems=5, right=2.0, unknown=1)
    out = tmp_path / "new" / "graded"
    assert credits(out) == {"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0, "e": None, "f": 0.0}
    assert [(one.problem, one.trace, one.error) for one in read_results(out)] == [
        (one.problem, one.trace, one.error) for one in results
    ]
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert read_settings(out) == {"schema": 1, **LIVE, "graded": [{"gold": "gold.jsonl", "answer": "chat"}]}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"graded"}
    if sys.platform != "win32":
        assert stat.S_IMODE(out.stat().st_mode) & 0o077 == 0
        assert stat.S_IMODE((out / RESULTS).stat().st_mode) & 0o077 == 0


def test_answers_are_compared_as_asked_and_in_several_goes(tmp_path: Path) -> None:
    run = live(tmp_path / "run", [told("a", "0.50"), told("b", "PARIS."), told("c", "1")])
    grade_run(run, gold(tmp_path, a="1/2"), tmp_path / "numbers", answer="math")
    grade_run(tmp_path / "numbers", gold(tmp_path, b="Paris"), tmp_path / "both", answer="text")
    assert credits(tmp_path / "both") == {"a": 1.0, "b": 1.0, "c": None}
    assert [one["answer"] for one in read_settings(tmp_path / "both")["graded"]] == ["math", "text"]
    grade_run(run, gold(tmp_path, a="1/2"), tmp_path / "as text", answer="text")
    assert credits(tmp_path / "as text")["a"] == 0.0


def test_what_a_server_is_writing_can_be_graded(tmp_path: Path) -> None:
    with Store(tmp_path / "run", LIVE) as store:
        store.record(told("a", "1"))
        with (tmp_path / "run" / RESULTS).open("ab") as half:
            half.write(b'{"problem":"b","cre')
        assert grade_run(tmp_path / "run", gold(tmp_path, a="1", b="2"), tmp_path / "out").problems == 1
    assert credits(tmp_path / "out") == {"a": 1.0}


def test_what_cannot_be_graded_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    run = live(tmp_path / "run", [told("a", "1")])
    right = tmp_path / "gold.jsonl"
    for lines, message in (
        ('{"problem": "b", "answer": "1"}', "has none of the problems of"),
        ('{"problem": "a", "answer": "1"}\n{"problem": "a", "answer": "2"}', "line 2: the problem 'a' has an answer"),
        ('{"problem": "a"}', "line 1: the field 'answer' is missing"),
        ('{"id": "a", "answer": "1"}', "line 1: the field 'problem' is missing"),
        ('{"problem": "a", "answer": "1"', "line 1: this is not JSON"),
    ):
        right.write_text(lines, encoding="utf-8")
        with pytest.raises(UsageError, match=message):
            grade_run(run, right, tmp_path / "out")
    gold(tmp_path, a="1")
    for folder, file, out, message in (
        (run, right, run, "is there already: give a folder that does not exist"),
        (tmp_path / "nothing", right, tmp_path / "out", "There is no run in"),
        (run, tmp_path / "nothing", tmp_path / "out", "Cannot read"),
    ):
        with pytest.raises(UsageError, match=message):
            grade_run(folder, file, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gold.jsonl", "run"]


def test_a_run_that_was_cut_off_while_it_was_made_is_made_anew(tmp_path: Path) -> None:
    run = live(tmp_path / "run", [told("a", "1")])
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / (RESULTS + ".part")).write_text("half of a li")
    (tmp_path / "out.part" / RUN).write_text("{}")
    grade_run(run, gold(tmp_path, a="1"), tmp_path / "out")
    assert credits(tmp_path / "out") == {"a": 1.0}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [RESULTS, RUN]


def test_from_traffic_to_a_graded_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def outthink(*words: str) -> str:
        result = main(words, capsys, monkeypatch)
        assert (result.code, result.err) == (0, "")
        return result.out

    settings = {"strategy": {"name": "self_consistency"}}
    with Recorder(Path("live"), settings, {"strategy": {"name": "greedy"}}) as recorder:
        for number in range(8):
            trace = told(str(number), "1", 400, sure=0.9 if number else 0.3).trace
            assert trace is not None
            recorder.served(trace, [{"role": "user", "content": "?"}])
        for number in range(4):
            trace = told(str(number), "1" if number else "2", 100).trace
            assert trace is not None
            recorder.shadowed(trace)

    words = ("report", "live/served", "live/shadow")
    said = outthink(*words, "--markdown")
    assert "| live/served | 8 | - | 0.0% |" in said
    assert "| live/shadow | 4 | - | 0.0% |" in said
    assert (
        "- live/shadow beside live/served: the same answer on 75.0% (19.9% to 99.4%, 95%) of 4 problems, different "
        "ones on 1, none from one or both on 0; 0.25 (0.25 to 0.25) times the tokens, 2 seconds on average against 2; "
        "confidence of live/served 0.90 where both agree, 0.30 where they differ.\n"
    ) in said
    assert "in common" not in said
    assert "live/shadow beside live/served" in outthink(*words)
    plain = json.loads(outthink(*words, "--json"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert plain["runs"]["live/served"]["accuracy"] is None
    assert plain["differences"]["live/shadow"]["problems"] == 0
    assert plain["agreements"]["live/shadow"]["cost"] == {"tokens": [0.25, 0.25, 0.25]}

    right = str(gold(tmp_path, **{"0": "2", "1": "1", "7": "1"}))
    assert outthink("grade", "live/served", "--gold", right, "--out", "a") == "a: 3 problems graded, 2 of them right.\n"
    shadow = main(("grade", "live/shadow", "--gold", right, "-o", "b", "--answer", "math"), capsys, monkeypatch)
    assert shadow.out == "b: 2 problems graded, 2 of them right.\n"
    assert shadow.err == "Answers to problems that live/shadow does not have: 1.\n"
    said = outthink("report", "a", "b", "--markdown")
    assert "| a | 8 | 66.7% (9.6% to 99.2%) of 3 |" in said
    assert "- b beside a: the same answer on 75.0%" in said
    assert "- b minus a: +50.0 points (-78.4 to +98.8, 95%) over 2 problems, 1 of them discordant" in said
    right = str(gold(tmp_path, **dict.fromkeys("0123", "1")))
    for out in "cd":
        outthink("grade", "live/shadow", "--gold", right, "--out", out)
    said = outthink("report", "c", "d")
    assert "d minus c: +0.0 points" in said
    assert "beside" not in said, "all is graded"
    refused = main(("grade", "live/served", "--gold", right, "--out", "a"), capsys, monkeypatch)
    assert (refused.code, refused.err) == (2, "outthink: a is there already: give a folder that does not exist.\n")
