"""Your own questions from a file: one JSON object a line, a JSON list of them, or a table (CSV, TSV).

Source: none; the layout is `question`, `answer` (a text, a number or a list of accepted ones), and optionally `id`,
`options` and `meta`; other names that data sets use are understood where they are clear (see `fields`). Options are
labels ("A", "B"), or texts, which are then listed below the question (see `choices`). For code, `tests` (source, or a
list of it) grades in place of `answer`; `public_tests` may be seen by verifiers, and `prelude` goes before the answer
when it is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outthink.answers import asking as problems
from outthink.answers.reading import read
from outthink.errors import UsageError
from outthink.tasks.choices import As, ChoiceOptions, answer_of, options_of, settled
from outthink.tasks.example import Example
from outthink.tasks.fields import ANSWERS, Fields, golds
from outthink.tasks.rows import plain, rows
from outthink.types import AnswerKind, Code, Message, Problem

TEMPLATES: dict[AnswerKind, str] = problems.TEMPLATES | {
    "math": "{question}\nThink step by step briefly. End with a line: #### <answer>",
    "choice": "{question}\nThink step by step briefly. End with a line: Answer: <letter>",
    "text": "{question}\nEnd with a line: #### <answer>",
    "code": "{question}\nReply with one ```python block.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draft:
    """A row, before what its answer means has been settled by the whole file."""

    name: str
    row: Fields
    question: str
    tests: str
    options: ChoiceOptions | None


def load(path: Path, template: str | None, answer: AnswerKind | None) -> list[Example]:
    """Examples in file order; raises UsageError that names the line of what is wrong.

    The `meta` of an example has "answer_as" (see `choices.As`) where it has options, and "not_read", the fields that
    could have been meant to be read.
    """
    drafts = []
    seen: dict[str, str] = {}
    for number, spot, fields in rows(path):
        row = Fields(fields, f"{path.name}, {spot}")
        name = row.id() or f"{path.stem}-{number}"
        if name in seen:
            raise row.error(f"the id {name!r} was already used in {seen[name]}")
        seen[name] = spot
        question = row.question()
        drafts.append(
            _Draft(
                name=name,
                row=row,
                question=question,
                tests="\n".join(row.sources("tests")),
                options=options_of(row, name, question),
            )
        )
    several = [
        (draft.row.where, draft.options, answer_of(draft.row, draft.options)) for draft in drafts if draft.options
    ]
    right = iter(settled(several))
    return [_example(draft, next(right) if draft.options else [], str(path), template, answer) for draft in drafts]


def final(gold: str) -> str:
    r"""The answer of a solution that ends with it, behind #### or in a \boxed{...}; another text as it is."""
    if "####" in gold:
        return gold.rpartition("####")[2].strip() or gold
    return (r"\boxed" in gold and read("math", gold)) or gold


def text_of(row: dict[str, Any], name: str, where: str) -> str:
    """A field that must be a text and not blank."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where}: the field {name!r} is missing or is not a text")
    return value


def name_of(row: dict[str, Any], name: str, where: str) -> str | None:
    """A field that names a row, a text or a whole number; None where it has no value."""
    value = row.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageError(f"{where}: the field {name!r} is neither a text nor a whole number")
    return str(value)


def texts_of(row: dict[str, Any], name: str, where: str) -> list[str]:
    """A field that is a list of texts; empty where it has no value."""
    value = row.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UsageError(f"{where}: the field {name!r} is not a list of texts")
    return value


def _example(
    draft: _Draft, right: list[tuple[int, As]], source: str, template: str | None, answer: AnswerKind | None
) -> Example:
    row, options, question = draft.row, draft.options, draft.question
    accepted: tuple[str, ...] = ()
    default: AnswerKind = "code" if draft.tests else "math"
    meta = row.get("meta")
    facts: dict[str, Any] = {"source": source, **(plain(meta) if isinstance(meta, dict) else {})}
    if options is not None:
        default = "choice"
        accepted = _accepted(options, [place for place, _ in right], answer or default)
        question += options.listed()
        facts["answer_as"] = right[0][1]
    else:
        name, value = row.named(*ANSWERS)
        if value is not None or not draft.tests:
            if isinstance(value, bool) and not draft.tests:
                default = "text"
            accepted = golds(value, row.where, answer, name or "answer")
            if (answer or default) == "math":
                accepted = tuple(final(gold) for gold in accepted)
    kind = answer or default
    if kind == "choice" and options is None:
        raise row.error("a choice needs the field 'options'")
    if not_read := row.listed():
        facts["not_read"] = not_read
    problem = Problem(
        id=draft.name,
        messages=(Message(content=(template or TEMPLATES[kind]).replace("{question}", question)),),
        answer=kind,
        options=options.labels if options is not None and kind == "choice" else (),
        question=question,
        code=Code(prelude="\n".join(row.sources("prelude")), tests=row.sources("public_tests")),
    )
    return Example(problem, accepted, draft.tests, facts)


def _accepted(options: ChoiceOptions, right: list[int], kind: AnswerKind) -> tuple[str, ...]:
    """The labels of the right options; where answers are not read as labels, also their texts."""
    labels = [options.labels[place] for place in right]
    if kind == "choice" or not options.texts:
        return tuple(labels)
    texts = [options.texts[place] for place in right]
    others = {text.casefold() for place, text in enumerate(options.texts) if place not in right}
    return (*texts, *(label for label in labels if label.casefold() not in others))
