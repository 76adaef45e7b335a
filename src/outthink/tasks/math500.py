r"""MATH-500: 500 competition problems with answers in LaTeX; no problem text ships with Outthink.

Source: Lightman et al. 2023, "Let's Verify Step by Step", a subset of MATH (Hendrycks et al. 2021).
"""

from __future__ import annotations

from typing import Any

from outthink.tasks.example import Example
from outthink.tasks.fields import golds
from outthink.tasks.own import final, name_of, text_of
from outthink.types import AnswerKind, Message, Problem

TEMPLATE = "{question}\nThink step by step. Put the final answer in \\boxed{}."


def example(
    row: dict[str, Any], facts: dict[str, Any], name: str, where: str, template: str | None, answer: AnswerKind | None
) -> Example:
    """One row, with subject and level (1 to 5) in `meta` where the file has them."""
    question = text_of(row, "problem" if "problem" in row else "question", where)
    level = str(facts.get("level", "")).removeprefix("Level ")
    name_of_gold = "answer" if row.get("answer") is not None else "solution"
    accepted = golds(row.get(name_of_gold), where, name=name_of_gold)
    problem = Problem(
        id=row["id"] or name_of(row, "unique_id", where) or name,
        messages=(Message(content=(template or TEMPLATE).replace("{question}", question)),),
        answer=answer or "math",
        question=question,
    )
    meta = {"subject": facts.get("subject"), "level": int(level) if level.isdigit() else None}
    return Example(problem, tuple(final(gold) for gold in accepted), meta=meta)
