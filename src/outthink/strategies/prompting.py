"""What prompts that show answers again have in common: the question comes first, and there is a limit to the answers.

The question first, then what is shown, then what is to be done with it: so an engine with a prefix cache reads what
prompts have in common once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from outthink.answers.thoughts import spoken
from outthink.together import each, turn
from outthink.types import Candidate, Message, Problem

LETTERS = 10
"""As many are read in a microsecond, with some room for those that are hard to read."""

MOST_SHOWN = 8192
"""Answers that one method shows a model again on one problem, at most: it and the trace hold all these prompts."""

_MARK = re.compile(r"<(/?[a-z]+ (?:[0-9]+|[A-Z]))>")
"""What stands between texts, such as </agent 1>."""


def added(problem: Problem, text: str) -> tuple[Message, ...]:
    """The problem's messages with a text added to the last one."""
    *before, last = problem.messages
    return (*before, replace(last, content=f"{last.text}\n\n{text}"))


def numbered(name: str, texts: Sequence[str]) -> str:
    """The texts one after the other, each with a name and its number from 1 above it."""
    return "\n\n".join(f"{name} {number}:\n{text.strip()}" for number, text in enumerate(texts, start=1))


def between(name: str, texts: Mapping[int, str]) -> str:
    """The texts by their numbers, each between marks with its name and number.

    After a list under headings a small model goes on with it, and writes the next agent's answer.
    """
    return "\n\n".join(f"<{name} {number}>\n{text}\n</{name} {number}>" for number, text in texts.items())


async def said_by(candidates: Sequence[Candidate]) -> dict[str, str]:
    """What each says by its id, without its thoughts, which none reads but who had them.

    Marks as they stand between texts are no marks any more, so that none ends its own text and speaks for another one.
    """
    await turn(sum(len(one.text) for one in candidates) // LETTERS)  # many may ask for one text at a time
    said = await each(lambda one: _MARK.sub(r"(\1)", spoken(one.text).strip() or one.text.strip()), candidates)
    return {one.id: text for one, text in zip(candidates, said, strict=True)}


def need_shown(shown: int, settings: str) -> None:
    """Raise ValueError where so many answers would be shown again."""
    if shown > MOST_SHOWN:
        raise ValueError(
            f"{settings} show a model {shown:,} answers again, more than {MOST_SHOWN:,}: make them smaller"
        )


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first of each text among those that have an answer, in order."""
    return list({one.text: one for one in reversed(candidates) if one.key is not None}.values())[::-1]
