"""What is printed: names stay whole at any width, nothing moves the cursor, pipes and encodings do no harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outthink.cli.shown import in_options, one_line, print_table, printable
from outthink.reports.tables import text_table
from tests.cli.test_cli import QUESTION, bench, finish, solve, start

NAMES = ("runs/a-rather-long-name-of-a-run-directory-of-mine", "runs/b", "https://host.example/v1#org/model")


@pytest.mark.parametrize("columns", ["20", "40", "60", "80", "120", "400"])
def test_names_stay_whole_at_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    rows = [(name, "1,234", "66.7% (10.0% to 99.0%)", "some words that can be wrapped anywhere") for name in NAMES]
    print_table(text_table(("run", "tokens", "accuracy (95%)", "ended"), rows))
    lines = capsys.readouterr().out.splitlines()
    for name in NAMES:
        assert sum(name in line for line in lines) == 1
    assert sum("1,234" in line for line in lines) == 3
    assert not [line for line in lines if "\u2026" in line]


def test_what_fits_is_a_table_no_wider_than_it_may_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (70, 80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(text_table(("run", "ended"), [("runs/one", "a sentence of some words " * 5)]))
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= columns
        assert len(lines) > 4


@pytest.mark.parametrize("columns", ["40", "120"])
def test_commands_keep_names_whole(outthink: Any, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    names = [entry["name"] for entry in json.loads(outthink("strategies", "--json").out)]
    words = outthink("strategies").out.split()
    assert set(names) <= set(words)
    folder = "runs/a-rather-long-name-of-a-run-directory"
    assert folder in outthink(*bench("--n", "2", "--out", folder)).out
    assert folder in outthink("report", folder).out
    assert "sample (model)" in outthink(*solve("--n", "2")).out


def test_control_characters_are_escaped() -> None:
    assert printable("a\x1b]0;title\x07\tb\nc\x9b1m") == "a\\x1b]0;title\\x07\tb\nc\\x9b1m"
    assert one_line("a\n\x1b[2J  b\r\n") == "a \\x1b[2J b"


def test_replies_do_not_move_the_cursor(outthink: Any) -> None:
    row = json.loads(Path("pool.jsonl").read_text(encoding="utf-8"))
    for sample in row["samples"]:
        sample["text"] = "\x1b[2J\x07[red]#### 4[/red]"
    Path("pool.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    for words in (solve("--n", "2"), solve("--n", "2", "--answer", "text"), ("answers", "pool.jsonl")):
        result = outthink(*words)
        assert result.code == 0
        assert "\x1b" not in result.out
        assert "[red]" in result.out


def test_work_that_failed_is_told(outthink: Any) -> None:
    Path("down.py").write_text(
        "def check(question, solution):\n    raise RuntimeError('no [power]')\n", encoding="utf-8"
    )
    result = outthink(*solve("--strategy", "best_of_n", "--n", "2", "--verifier", "down:check"))
    assert result.code == 0
    assert "2 of 2 failed: verify (verifier); the first one: RuntimeError: no [power]\n" in result.out
    assert "failed" not in outthink(*solve("--n", "2")).out


# ---------------------------------------------------------------- in a process of its own


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_other_terminals(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    row = json.loads(Path("pool.jsonl").read_text(encoding="utf-8"))
    for sample in row["samples"]:
        sample["text"] = "caf\u00e9 \u2713 #### 4"
    Path("pool.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    for name, value in {"COLUMNS": "40", **variables}.items():
        monkeypatch.setenv(name, value)
    others = (("report", "pool.jsonl"), ("answers", "pool.jsonl")) if "PYTHONIOENCODING" in variables else ()
    for words in (solve("--n", "2"), *others):
        result = finish(start(*words))
        assert (result.code, result.err) == (0, "")
    if others:
        assert json.loads(finish(start(*solve("--n", "2", "--json"))).out)["text"] == "caf\u00e9 \u2713 #### 4"


@pytest.mark.parametrize("words", [("strategies",), ("strategies", "--json"), ("solve", "-h"), ("models", "list")])
def test_a_closed_pipe_is_quiet(words: tuple[str, ...]) -> None:
    with start(*words) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=40) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full, start("strategies", out=full) as process:
        assert process.stderr is not None
        assert process.stderr.read() == "outthink: Cannot write or read: No space left on device.\n"
        assert process.wait(timeout=40) == 1


def test_the_current_folder_is_importable(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def check(question, solution):\n    return float(solution.endswith('4'))\n")
    (tmp_path / "json.py").write_text("raise RuntimeError('not this one')\n")
    words = solve("--strategy", "best_of_n", "--verifier", "mine:check", "--n", "4", "--json")
    result = finish(start(*words))
    assert json.loads(result.out)["answer"] == "4", result.err


def test_a_stranger_pipes_a_question_in() -> None:
    result = finish(start("solve", "--model", "pool.jsonl", "--n", "4", given=QUESTION + "\n"), QUESTION + "\n")
    assert result.code == 0
    assert "Answer: 4" in result.out


def test_what_the_library_says_of_a_cap_names_the_option(outthink: Any) -> None:
    told = outthink("solve", "What is 2+2?", "-m", "pool.jsonl", "--budget", "1-tokens", "--n", "1")
    assert "or lower --max-tokens (" in told.err
    assert in_options('"max_tokens": 3, lower max_tokens.') == '"max_tokens": 3, lower --max-tokens.'
