"""Right answers that people wrote down for recorded problems: lines {"problem": id, "answer": one, or a list}."""

from __future__ import annotations

from pathlib import Path

from outthink.errors import UsageError
from outthink.tasks.fields import golds
from outthink.tasks.own import text_of
from outthink.tasks.rows import rows
from outthink.types import AnswerKind


def read_golds(gold: Path, answer: AnswerKind) -> dict[str, tuple[str, ...]]:
    """What is right by problem; raises UsageError that names the line of what cannot be read."""
    accepted: dict[str, tuple[str, ...]] = {}
    for _, spot, row in rows(gold):
        where = f"{gold.name}, {spot}"
        problem = text_of(row, "problem", where)
        if problem in accepted:
            raise UsageError(f"{where}: the problem {problem!r} has an answer already; list all right ones in one line")
        accepted[problem] = golds(row.get("answer"), where, answer)
    return accepted
