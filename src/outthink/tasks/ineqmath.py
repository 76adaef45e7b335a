r"""IneqMath: olympiad inequalities with one answer, the best constant (bound) or the relation of two sides (relation).

Source: Solving Inequality Proofs with Large Language Models (2025): README, data form, prompts and scoring code of its
repository read, the paper not. Differs: an answer that cannot be read is INVALID and not a random option, the last
mark of an answer counts and not the first dollar sign, and a bound is right where it equals the right one exactly, by
its key and not by a model's word. The wording of the prompts is ours; the form of their last line is theirs.
"""

from __future__ import annotations

import re
from typing import Any

from outthink.errors import UsageError
from outthink.tasks.example import Example
from outthink.tasks.fields import golds
from outthink.tasks.own import name_of, text_of
from outthink.types import AnswerKind, Message, Problem

_RIGOUR = "{question}\n\nSolve it in clear steps, each of which follows rigorously from those before it. "
TEMPLATES = {
    "bound": _RIGOUR + "End with one line of exactly this form, X being the exact value:\nThe answer is $C=X$",
    "relation": _RIGOUR
    + "End with one line of exactly this form, with one of the options:\nThe answer is (Letter) Symbol",
}
"""By the type of a problem."""

_OPTIONS = ("A", "B", "C", "D", "E", "F")  # <=, >=, =, <, >, none of them
_LETTER = re.compile(r"\s*\(?([A-Z])\)?(?![A-Za-z])")


def example(
    row: dict[str, Any],
    facts: dict[str, Any],
    name: str,
    where: str,
    template: str | None,
    answer: AnswerKind | None,
) -> Example:
    """One row, with its type ("bound" or "relation") and split in `meta`; the options stand in its question."""
    question = text_of(row, "problem", where)
    kind = facts.get("type")
    if not isinstance(kind, str) or kind not in TEMPLATES:
        raise UsageError(f"{where}: the type is {kind!r}, and a problem of IneqMath is a 'bound' or a 'relation'")
    if row.get("answer") in (None, ""):
        raise UsageError(f"{where}: there is no answer; those of the split test are not public, so take the split dev")
    accepted = golds(row.get("answer"), where)
    options: tuple[str, ...] = ()
    if kind == "relation":
        options = _options(facts.get("choices"), where)
        accepted = tuple(_letter(gold, where) for gold in accepted)
        if beside := [gold for gold in accepted if gold not in options]:
            raise UsageError(
                f"{where}: the answer {beside[0]!r} is none of the choices {', '.join(options)}: correct one of them, "
                "or remove the row"
            )
    split = name_of(facts, "data_split", where)
    number = name_of(facts, "data_id", where)
    known = name if number is None else f"{split}-{number}" if split else number
    problem = Problem(
        id=row["id"] or known,
        messages=(Message(content=(template or TEMPLATES[kind]).replace("{question}", question)),),
        answer=answer or ("choice" if kind == "relation" else "math"),
        options=options,
        question=question,
        marked=True,
    )
    return Example(problem, accepted, meta={"type": kind, "split": split}, exact=True)


def _options(choices: Any, where: str) -> tuple[str, ...]:
    """The letters of the choices of a row, those of all released rows where it lists none."""
    if choices is None or choices == []:
        return _OPTIONS
    if not isinstance(choices, list):
        raise UsageError(f"{where}: the field 'choices' is not a list of options, such as '(B) $\\geq$'")
    letters = tuple(_letter(choice, where) for choice in choices)
    if len({*letters}) < len(letters):
        twice = next(letter for letter in letters if letters.count(letter) > 1)
        raise UsageError(f"{where}: two choices have the letter {twice!r}: give each its own, or remove the row")
    return letters


def _letter(option: Any, where: str) -> str:
    """The letter of an option such as "(B) $\\geq$"."""
    named = _LETTER.match(option) if isinstance(option, str) else None
    if named is None:
        raise UsageError(f"{where}: {option!r} is no option with a letter, such as '(B) $\\geq$'")
    return named[1]
