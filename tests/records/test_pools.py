"""Pools of others: what is right where only the line says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outthink.errors import UsageError
from outthink.records.pools import read_pool


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_samples_with_the_answer_of_their_line_are_right(tmp_path: Path) -> None:
    samples = [{"answer": answer} for answer in ("1/2", r"\frac{1}{2}", "2", None, "")]
    row = {"id": "a", "answer": "0.5", "samples": samples}
    (problem,) = read_pool(written(tmp_path, row), answer="math").problems
    assert problem.correct.tolist() == [True, True, False, False, False]


def test_one_that_says_it_of_some_samples_only_is_refused(tmp_path: Path) -> None:
    row = {"id": "a", "answer": "1", "samples": [{"answer": "1"}, {"answer": "1", "correct": True}]}
    with pytest.raises(UsageError, match=r"Line 1 of .* or the line the right 'answer'"):
        read_pool(written(tmp_path, row))
