"""A problem with what it is graded by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from outthink.types import Problem


@dataclass(frozen=True)
class Example:
    """A problem and what it is graded by.

    Args:
        problem: all that a strategy sees.
        gold: accepted answers; empty where the task has none, and answers are graded in another way.
        exact: only what equals a gold answer exactly is right, and no rounded number, other name or unit is.
        tests: for answers of kind code, source that raises where the answer is wrong; run in the sandbox, where the
            answer cannot see it (see `Sandbox.test`).
        meta: facts for reports; "source" says where the question came from. For gym tasks "gym" is its name and
            "entry" what its scoring function needs.
    """

    problem: Problem
    gold: tuple[str, ...]
    tests: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = False
