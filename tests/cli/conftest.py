"""An empty folder with a pool and a task of one question, and the program's own entry point."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import QUESTION, main, write_pool


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTTHINK_DATA", raising=False)
    monkeypatch.delenv("OUTTHINK_DEBUG", raising=False)
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "datasets", None)  # nothing is fetched
    monkeypatch.setenv("COLUMNS", "120")
    write_pool(Path("pool.jsonl"))
    row = {"id": QUESTION, "question": QUESTION, "answer": "4"}
    Path("own.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def outthink(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *words: main(words, capsys, monkeypatch)
