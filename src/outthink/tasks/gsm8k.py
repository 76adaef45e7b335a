"""GSM8K: grade-school word problems with a whole number as the answer.

Source: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems"; github.com/openai/grade-school-math (MIT).
"""

from __future__ import annotations

from typing import Any

from outthink.errors import UsageError
from outthink.tasks.example import Example
from outthink.tasks.fields import golds
from outthink.tasks.own import text_of
from outthink.types import AnswerKind, Message, Problem

TEMPLATE = "{question}\nThink step by step briefly. End with a line: #### <number>"


def example(
    row: dict[str, Any],
    facts: dict[str, Any],
    name: str,
    where: str,
    template: str | None,
    answer: AnswerKind | None,
) -> Example:
    """One row; its answer is the number, or the published solution that ends with it."""
    question = text_of(row, "question", where)
    gold = golds(row.get("answer"), where)[0].rpartition("####")[2].strip()
    if not gold:
        raise UsageError(f"{where}: nothing stands after the #### of the answer")
    problem = Problem(
        id=name,
        messages=(Message(content=(template or TEMPLATE).replace("{question}", question)),),
        answer=answer or "math",
        question=question,
    )
    return Example(problem, (gold,))
