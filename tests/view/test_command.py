"""The commands view and report -o: what they refuse, before anything is read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import main
from tests.tools.recorded import write_lines, write_run


@pytest.fixture
def outthink(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[Any, str, str]:
        told = main(words, capsys, monkeypatch)
        return told.code, told.out, told.err

    return call


def test_others_are_let_in_with_a_key_only(outthink: Any, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    code, _, told = outthink("view", "--host", "0.0.0.0")
    assert code == 2
    assert told.startswith("outthink: On 0.0.0.0 others could read what was recorded: give --api-key-file")


def test_what_is_not_there_is_told(outthink: Any) -> None:
    for words in (("view",), ("view", "runs"), ("report", "runs", "-o", "a.html")):
        code, _, told = outthink(*words)
        assert (code, told) == (2, "outthink: There is no runs: name run directories, pools, or a folder with them.\n")


def test_a_report_is_one_html_file(outthink: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "one", "greedy", count=2)
    code, _, told = outthink("report", "one", "-o", "report.txt")
    assert (code, told) == (2, "outthink: Cannot write report.txt: name an .html file in a folder that exists.\n")
    write_lines(tmp_path / "foreign.jsonl", ["{}"])
    code, _, told = outthink("report", "foreign.jsonl", "-o", "report.html")
    assert (code, told) == (
        2, "outthink: foreign.jsonl holds neither results, nor traces, nor a pool of samples.\n"
    )  # fmt: skip
    assert not (tmp_path / "report.html").exists()
    code, shown, told = outthink("report", "one", "-o", "report.html")
    assert (code, told) == (0, "")
    assert shown.startswith("report.html (")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Content-Security-Policy" in text
    assert "http-equiv" in text.split("<style>")[0]
    for more in (("--csv", "x.csv"), ("--json",), ("--markdown",)):
        code, _, told = outthink("report", "one", "-o", "report.html", *more)
        assert (code, told) == (
            2, "outthink: -o writes the page and nothing else: leave it out, or the other outputs.\n"
        )  # fmt: skip


def test_a_page_of_a_server_needs_something_to_show(outthink: Any) -> None:
    code, _, told = outthink("serve", "--model", "m", "--view")
    assert (code, told) == (2, "outthink: --view shows what is recorded: give --record FOLDER, too.\n")
