"""The folder of a server's recorded traffic, and what callers have said of its answers.

- served, shadow: runs of what was answered, and of what another strategy would have answered.
- problems.jsonl: the messages of every request.
- feedback.jsonl: lines {"problem": id, "score": in [0, 1], "answer": right answer or null, "owner": key or null, "at":
  seconds since the epoch}; the last line on a problem counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outthink import jsonl
from outthink.errors import UsageError

SERVED, SHADOW, PROBLEMS, FEEDBACK = "served", "shadow", "problems.jsonl", "feedback.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Feedback:
    """What a caller has said of the answer to a request.

    Args:
        score: of the answer that was served, from 0 (bad) to 1 (good).
        answer: what would have been right; None: not told.
        owner: the name of the key that said it; None: there are no keys.
        at: when, in seconds since the epoch.
    """

    score: float
    answer: str | None
    owner: str | None
    at: float


def read_feedback(folder: Path) -> dict[str, Feedback]:
    """The last word on each problem of a folder of traffic; empty where there is none. Raises UsageError for damage."""
    path = folder / FEEDBACK
    if not path.exists():
        return {}
    said: dict[str, Feedback] = {}
    for number, line in jsonl.read(path):
        if not _is_feedback(line):
            raise UsageError(f"Line {number} of {path} is no feedback: repair it, or remove that line.")
        said[line["problem"]] = Feedback(
            score=float(line["score"]), answer=line.get("answer"), owner=line.get("owner"), at=float(line["at"])
        )
    return said


def _is_feedback(line: Mapping[str, Any]) -> bool:
    numbers = [line.get(name) for name in ("score", "at")]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in numbers):
        return False
    texts = all(line.get(name) is None or isinstance(line[name], str) for name in ("answer", "owner"))
    return isinstance(line.get("problem"), str) and 0 <= line["score"] <= 1 and texts
