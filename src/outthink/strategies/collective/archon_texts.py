"""What Archon's components are asked, and how what they write is read.

Source: the forms of the source's components (numbered candidates, "[2] > [1] > [3]", Correct or Incorrect, Passed or
Failed), by notes on its code. Differs: the words are ours, and a verdict or an order stands on the last line, behind
what leads to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from outthink.strategies.choosing import last_line

PROMPTS = {
    "critic": (
        "Question:\n{question}\n\nCandidate answers:\n\n{answers}\n\n"
        "For each candidate write its strengths and its weaknesses in one or two sentences. Begin each with a line of "
        "its own that holds its number in brackets, such as [1], and leave no candidate out."
    ),
    "ranker": (
        "Question:\n{question}\n\nCandidate answers:\n\n{answers}\n\n"
        "Compare the candidates: which is the most correct and complete? Then end with one line that orders all of "
        "them from best to worst by their numbers in brackets, such as [2] > [1] > [3]"
    ),
    "fuser": (
        "Here are candidate answers; some of them may be wrong.\n\n{answers}\n\n"
        "Write one better answer of your own. Keep what is correct and useful in the candidates, discard what is "
        "wrong, and end in the form asked for above."
    ),
    "reasons": (
        "Question:\n{question}\n\nProposed answer:\n{answer}\n\n"
        "Give in a few sentences the reasons why this answer could be correct."
    ),
    "verdict": (
        "Question:\n{question}\n\nProposed answer:\n{answer}\n\nReasons given for it:\n{reasons}\n\n"
        "Check the answer and the reasons. Then end with one line: Verdict: Correct or Verdict: Incorrect"
    ),
    "tests": (
        "Question:\n{question}\n\nDo not answer it. Write {tests} short statements that are true of a correct answer "
        "and by which an answer can be tested, each on a line of its own: 1. statement"
    ),
    "evaluation": (
        "Question:\n{question}\n\nProposed answer:\n{answer}\n\nTests:\n{tests}\n\n"
        "Decide for each test whether the answer passes it. Reply with one line for each: its number, then Passed or "
        "Failed, such as 1. Passed"
    ),
}
"""By name; what stands in braces is filled in."""

_LONGEST_TEST = 400  # letters
_SECTION = re.compile(r"^[^\w\n\[]{0,8}\[(\d{1,4})\]", re.MULTILINE)
_ORDER = re.compile(
    r"[^\w\n\[]*(?:ranking[^\w\n\[]*)?\[\d{1,4}\](?:[ \t]*>[ \t]*\[\d{1,4}\])*[^\w\n\[]*", re.IGNORECASE
)
_NUMBER = re.compile(r"\[(\d{1,4})\]")
_TEST = re.compile(r"[^\w\n]{0,8}\d{1,3}[.):][ \t]+(\S[^\n]*)")
_RESULT = re.compile(r"[^\w\n]{0,8}(?:test[^\w\n]{1,3})?(\d{1,3})[^\w\n]{1,8}(passed|failed)\b[^\n]*", re.IGNORECASE)


def critiques(text: str, n: int) -> list[str] | None:
    """What is said of each of n candidates; None unless every number from 1 to n has a section."""
    marks = [*_SECTION.finditer(text)]
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    said = {int(mark[1]): text[mark.end() : end].strip(" :.*\n") for mark, end in zip(marks, ends, strict=True)}
    return [said[number] for number in range(1, n + 1)] if said.keys() == {*range(1, n + 1)} else None


def ranking(text: str, n: int) -> list[int] | None:
    """The order of n candidates, best first, from 0, by the last line of the form "[2] > [1] > [3]"; None without one.

    A number that comes again or names no candidate is dropped, and missing ones follow in their own order.
    """
    line = last_line(_ORDER, text)
    named = [int(number) - 1 for number in _NUMBER.findall(line[0])] if line else []
    known = [place for place in dict.fromkeys(named) if 0 <= place < n]
    return [*known, *(place for place in range(n) if place not in {*known})] if known else None


def statements(text: str, most: int) -> list[str]:
    """Up to so many numbered statements, each once, in order."""
    lines = (_TEST.fullmatch(line) for line in text.split("\n"))
    return list(dict.fromkeys(line[1].strip()[:_LONGEST_TEST] for line in lines if line))[:most]


def passes(text: str, tests: int) -> int | None:
    """How many of the tests are said to be passed; None where no line says it of any."""
    lines = (_RESULT.fullmatch(line) for line in text.split("\n"))
    said = {int(line[1]): line[2].lower() == "passed" for line in lines if line and 1 <= int(line[1]) <= tests}
    return sum(said.values()) if said else None


def numbered_list(tests: Sequence[str]) -> str:
    """The statements on lines of their own, numbered from 1."""
    return "\n".join(f"{number}. {test}" for number, test in enumerate(tests, start=1))
