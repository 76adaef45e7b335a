"""Your own questions from a file with one JSON object a line.

Source: none; the layout is `question`, `answer` (a string, a number or a list of accepted ones), and optionally
`id`, `options` and `meta`. Options are labels ("A", "B"), or texts, which are then listed below the question. For
code, `tests` (source, or a list of it) grades in place of `answer`; `public_tests` may be seen by verifiers, and
`prelude` goes before the answer when it is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outthink.answers import asking as problems
from outthink.errors import UsageError
from outthink.tasks.example import Example
from outthink.types import AnswerKind, Code, Message, Problem

TEMPLATES: dict[AnswerKind, str] = problems.TEMPLATES | {
    "math": "{question}\nThink step by step briefly. End with a line: #### <answer>",
    "choice": "{question}\nThink step by step briefly. End with a line: Answer: <letter>",
    "text": "{question}\nEnd with a line: #### <answer>",
    "code": "{question}\nReply with one ```python block.",
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def load(path: Path, template: str | None, answer: AnswerKind | None) -> list[Example]:
    """Examples in file order; raises UsageError that names the line of what is wrong."""
    examples = []
    seen: dict[str, int] = {}
    for number, row in rows(path):
        where = f"{path.name}, line {number}"
        question, tests = text_of(row, "question", where), "\n".join(_sources(row, "tests", where))
        gold = accepted(row, where) if row.get("answer") is not None or not tests else ()
        labels, listed = _options(row, where)
        if labels:
            gold = tuple(_label(one, labels, listed, where) for one in gold)
        if listed:
            question += "\n" + "\n".join(f"({label}) {text}" for label, text in zip(labels, listed, strict=True))
        name = str(row.get("id", f"{path.stem}-{number}"))
        if name in seen:
            raise UsageError(f"{where}: the id {name!r} was already used in line {seen[name]}")
        seen[name] = number
        kind: AnswerKind = answer or ("choice" if labels else "code" if tests else "math")
        if kind == "choice" and not labels:
            raise UsageError(f"{where}: a choice needs the field 'options'")
        problem = Problem(
            id=name,
            messages=(Message(content=(template or TEMPLATES[kind]).replace("{question}", question)),),
            answer=kind,
            options=labels if kind == "choice" else (),
            question=question,
            code=Code(prelude="\n".join(_sources(row, "prelude", where)), tests=_sources(row, "public_tests", where)),
        )
        examples.append(Example(problem, gold, tests, {"source": str(path), **_meta(row)}))
    return examples


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not blank; raises UsageError where there is nothing to read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not any(line.strip() for line in lines):
        raise UsageError(f"{path.name} holds no questions")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path.name}, line {number}: this is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UsageError(f"{path.name}, line {number}: expected an object with 'question' and 'answer'")
        yield number, row


def text_of(row: dict[str, Any], name: str, where: str) -> str:
    """A field that must be a text and not blank."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where}: the field {name!r} is missing or is not a text")
    return value


def accepted(row: dict[str, Any], where: str) -> tuple[str, ...]:
    """The accepted answers; at least one, none blank."""
    value = row.get("answer")
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, str | int | float) and str(one).strip() for one in values):
        raise UsageError(f"{where}: the field 'answer' is missing or is neither a text nor a list of texts")
    return tuple(str(one).strip() for one in values)


def _sources(row: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = row.get(name, [])
    sources = [value] if isinstance(value, str) else value
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise UsageError(f"{where}: the field {name!r} is neither a text nor a list of texts")
    return tuple(sources)


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    meta = row.get("meta")
    return meta if isinstance(meta, dict) else {}


def _options(row: dict[str, Any], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(labels, texts to list), both empty where the row has no options."""
    options = row.get("options", [])
    if not isinstance(options, list) or not all(isinstance(option, str) and option.strip() for option in options):
        raise UsageError(f"{where}: the field 'options' is not a list of texts")
    if len(options) > len(LETTERS):
        raise UsageError(f"{where}: more than {len(LETTERS)} options")
    if all(len(option) == 1 for option in options):
        return tuple(option.upper() for option in options), ()
    return tuple(LETTERS[: len(options)]), tuple(options)


def _label(gold: str, labels: tuple[str, ...], texts: tuple[str, ...], where: str) -> str:
    if gold in texts:
        return labels[texts.index(gold)]
    if gold.upper() in labels:
        return gold.upper()
    raise UsageError(f"{where}: the answer {gold!r} is not among the options")
