"""What callers have said of a server's answers, as credits of the recorded runs.

A caller's score is of the answer that was served. It says nothing of another one, so an answer of another run has a
credit only where the caller also told what is right.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from outthink.answers.reader import Reader
from outthink.records.runs import Result, read_results, read_settings
from outthink.records.traffic import SERVED, Feedback, read_feedback
from outthink.tasks.example import Example
from outthink.tasks.grading import grade
from outthink.types import AnswerKind, Problem


def feedback_credits(run: Path, answer: AnswerKind = "chat") -> dict[str, float]:
    """The credit of each problem of a recorded run by what callers have said; a caller's word on his own alone."""
    if read_settings(run).get("kind") != "traffic" or not (said := read_feedback(run.parent)):
        return {}

    async def credits() -> dict[str, float]:
        reader = Reader()
        try:
            known: dict[str, float] = {}
            for result in read_results(run):
                word = said.get(result.problem)
                if word is None or word.owner != result.owner or result.credit is not None:
                    continue
                if (credit := await _credit(result, word, run.name == SERVED, answer, reader)) is not None:
                    known[result.problem] = credit
            return known
        finally:
            await reader.close()

    return asyncio.run(credits())


async def _credit(result: Result, word: Feedback, is_served: bool, answer: AnswerKind, reader: Reader) -> float | None:
    if is_served:
        return word.score
    if word.answer is None:
        return None
    example = Example(Problem(id=result.problem, messages=(), answer=answer), (word.answer,))
    return await grade(example, None if result.trace is None else result.trace.answer, reader)
