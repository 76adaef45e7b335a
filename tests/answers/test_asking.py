"""What kind a question is of, from what is given with it."""

from __future__ import annotations

from typing import Any

import pytest

from outthink.answers.asking import ask
from outthink.errors import UsageError
from outthink.types import Code

SCHEMA = {"type": "object"}
CODE = Code(tests=("assert f() == 1",))


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, "chat"),
        ({"answer": "math"}, "math"),
        ({"options": ("A", "B")}, "choice"),
        ({"options": ("A", "B"), "answer": "choice"}, "choice"),
        ({"schema": SCHEMA}, "json"),
        ({"code": CODE}, "code"),
    ],
)
def test_what_is_given_says_the_kind(given: dict[str, Any], kind: str) -> None:
    assert ask("What?", **given).answer == kind


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"options": ("A", "B"), "answer": "math"}, "says that the answer is choice, not math"),
        ({"schema": SCHEMA, "answer": "math"}, "is json, not math"),
        ({"code": CODE, "answer": "chat"}, "is code, not chat"),
        ({"options": ("A", "B"), "schema": SCHEMA}, "give one of them"),
        ({"options": ("A",)}, "at least two options"),
    ],
)
def test_kinds_that_contradict_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ask("What?", **given)
