"""Fifty questions as a new user asks them, through `solve` and `serve`: asked, chosen, shown and spent."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from outthink.models.engine import Request
from outthink.server.models import Served
from outthink.strategies.comparing import FIRST
from tests.tools.questions import QUESTIONS, Question, Shown, by_question, commanded, through_serve, through_solve
from tests.tools.server import run
from tests.tools.serving import serving


def test_there_are_fifty() -> None:
    assert Counter(one.group for one in QUESTIONS) == {"free": 20, "checkable": 20, "structured": 10}
    assert len({one.text for one in QUESTIONS}) == len(QUESTIONS)


def right(question: Question, shown: Shown) -> None:
    """What holds by any door."""
    assert shown.text is not None
    if question.group == "free":
        mbr = question.text.startswith(("Summarise", "Translate"))
        assert shown.chosen == ("mbr" if mbr else "first")
        assert shown.text in question.replies if mbr else shown.text == question.replies[0]
        assert shown.samples == FIRST, "nothing more is drawn"
        return
    assert (shown.chosen, shown.answer, list(shown.notes)) == ("vote", question.right, [])
    assert shown.samples < 16
    assert question.right is not None
    assert shown.text in question.replies


def spent(question: Question, shown: Shown, prompt: int) -> None:
    """A token of the scripted model is a character; the prompt is read once, and nothing is asked besides.

    What is in flight beyond two that agree is cancelled, and may have been written or not.
    """
    written = [len(question.replies[child % len(question.replies)]) for child in range(shown.samples)]
    least = written[:2] if question.group == "structured" else written
    assert prompt + sum(least) <= shown.tokens <= prompt + sum(written)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda one: one.text.split("\n")[0][:40])
def test_by_the_command_line(question: Question, tmp_path: Path) -> None:
    requests: list[Request] = []
    with commanded(by_question(requests)):
        shown = through_solve(question, tmp_path)
    assert shown.code == 0
    right(question, shown)
    (messages,) = {request.messages for request in requests}
    (message,) = messages
    assert message.role == "user"
    if question.group == "structured":
        assert message.text.startswith(question.text + "\n")
        assert ("JSON Schema" in message.text) == ("schema" in question.given)
    else:
        assert message.text == question.text, "the user's own words and nothing else"
    spent(question, shown, len(message.text))


def test_by_the_server() -> None:
    requests: list[Request] = []
    engine = by_question(requests)

    async def go() -> list[tuple[Question, Shown, list[Request]]]:
        seen = []
        async with serving("", served=Served({"m": engine})) as (url, _):
            for question in QUESTIONS:
                requests.clear()
                seen.append((question, await through_serve(question, url, "m"), list(requests)))
        return seen

    for question, shown, asked in run(go()):
        assert shown.code == 200, shown
        right(question, shown)
        (messages,) = {request.messages for request in asked}
        (message,) = messages
        assert message.text.startswith(question.text)
        assert (message.text == question.text) == ("schema" not in question.given)
        spent(question, shown, len(message.text))
