"""Answers as models write them, and wrong ones that look like right ones: what is read, and whether it is right."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from outthink.answers.reader import Reader
from outthink.answers.reading import read
from tests.answers.shared import lines, shared_file

DATA = sorted((Path(__file__).parent / "data").glob("*.jsonl"))


def wrong(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str | None]]:
    """The rows with another outcome than they should have, and what was read."""

    async def work() -> list[tuple[dict[str, Any], str | None]]:
        reader = Reader()
        bad = []
        for row in rows:
            kind, options = row["answer_kind"], tuple(row.get("options", ()))
            answer = read(kind, row["text"], options)
            if await reader.equal(kind, row["gold"], answer) is not row["should_be_right"]:
                bad.append((row, answer))
        await reader.close()
        return bad

    return asyncio.run(work())


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_own_cases(path: Path) -> None:
    assert wrong(lines(path)) == []


def test_own_cases_are_of_every_kind() -> None:
    counts = Counter((path.stem, row["kind"]) for path in DATA for row in lines(path))
    assert sum(counts.values()) > 300
    kinds = Counter[str]()
    for (_, kind), count in counts.items():
        kinds[kind] += count
    assert min(kinds.values()) >= 5, kinds


def test_cases_from_the_field() -> None:
    rows = lines(shared_file("field/answers.jsonl"))
    assert len(rows) > 100
    assert wrong(rows) == []
