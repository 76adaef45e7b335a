"""Fields of a row by what they are for, whatever a data set calls them: upper case, spaces and `_` do not count.

Source: the names in the published files of ARC, BIG-bench hard, CommonsenseQA, GPQA, GSM8K, HellaSwag, MATH, MedMCQA,
MedQA, MMLU, MMLU-Pro, OpenBookQA, PIQA, SciQ, SIQA, TruthfulQA and WinoGrande, from memory.
"""

from __future__ import annotations

import re
from typing import Any

from outthink.errors import UsageError
from outthink.tasks.rows import Number, json_text, missing, written
from outthink.types import AnswerKind

QUESTIONS = (
    "problem", "prompt", "input", "query", "questionstem", "stem", "ctx", "goal", "sentence", "instruction",
)  # fmt: skip
ANSWERS = (
    "answer", "answers", "answerkey", "gold", "golds", "finalanswer", "target", "targets", "label", "groundtruth",
    "expectedanswer", "expected", "expectedoutput", "referenceanswer", "reference", "correctanswer", "bestanswer",
    "output", "solution",
)  # fmt: skip
PLACES = ("answerindex", "answeridx", "correctindex", "correctidx", "goldindex", "labelindex")
CHOSEN = ("correct", "correctoption", "correctchoice", "correctlabel", "cop", "key")
TEXTS_BESIDE = ("context", "passage", "article", "premise", "story", "background", "hypothesis")
"""Texts that some questions cannot be answered without; not shown, so that whoever has them is told."""


class Fields:
    """The fields of one row that have a value.

    Args:
        row: as it was read.
        where: file and line, for messages.
    """

    def __init__(self, row: dict[str, Any], where: str) -> None:
        self.where = where
        self._values: dict[str, tuple[str, Any]] = {}
        for name, value in sorted(row.items(), key=lambda field: field[0] != field[0].lower()):
            if not missing(value):
                self._values.setdefault(_plain_name(name), (name, value))
        self.left = {name for _, (name, _) in self._values.items()}
        """Names of the fields that nothing has asked for so far."""

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def names(self) -> list[str]:
        """Plain names, lower case and without spaces and `_`."""
        return list(self._values)

    def spelled(self, name: str) -> str:
        """The name that the file has for a plain one that is there."""
        return self._values[name][0]

    def get(self, *names: str) -> Any:
        """The value of the first of these plain names that is there; None where none is."""
        return self.named(*names)[1]

    def named(self, *names: str) -> tuple[str, Any]:
        """As `get`, with the name that the file has for it."""
        for name in names:
            if name in self._values:
                self.left.discard(self._values[name][0])
                return self._values[name]
        return "", None

    def error(self, what: str) -> UsageError:
        """What is wrong with this row."""
        return UsageError(f"{self.where}: {what}")

    def question(self) -> str:
        """The question; raises UsageError where it is missing, blank or could be several fields."""
        if "question" in self:
            name, value = self.named("question")
            if isinstance(value, dict):  # of ARC and CommonsenseQA as first published
                value = next((value[part] for part in ("stem", "text") if isinstance(value.get(part), str)), None)
        else:
            there = [name for name in QUESTIONS if name in self]
            if len(there) > 1:
                named = " and ".join(repr(self._values[name][0]) for name in there[:2])
                raise self.error(f"{named} could both be the question: call it 'question'")
            name, value = self.named(*there)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"the field {name or 'question'!r} is missing or is not a text")
        return value

    def sources(self, name: str) -> tuple[str, ...]:
        """A field that is source, or a list of it; () where it is missing."""
        value = self.get(name.replace("_", ""))
        sources = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
            raise self.error(f"the field {name!r} is neither a text nor a list of texts")
        return tuple(sources)

    def id(self) -> str | None:
        """The id, a text or a number; None where there is none."""
        value = self.get("id")
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | Number):
            raise self.error("the field 'id' is neither a text nor a number")
        return value if isinstance(value, str) else written(value)

    def listed(self) -> list[str]:
        """Fields with lists and objects, and texts beside the question, that nothing has asked for."""
        return [
            name
            for plain, (name, value) in self._values.items()
            if name in self.left
            and (
                (isinstance(value, list | dict) and len(value) > 1 and plain != "meta")
                or (isinstance(value, str) and plain in TEXTS_BESIDE)
            )
        ]


def golds(value: Any, where: str, kind: AnswerKind | None = None, name: str = "answer") -> tuple[str, ...]:
    """The accepted answers as texts; at least one, none blank.

    Args:
        value: a text, number, truth value, or a list of accepted ones; with the kind json the one right value, as it
            is or as a text that is JSON, or a list of texts that are JSON objects or lists, each of them accepted.
        kind: what answers are read as.

    Raises UsageError that names the line and says what to give.
    """
    if missing(value):
        raise UsageError(f"{where}: the field {name!r} is missing, null or NaN: give the right answer")
    try:
        if kind == "json":
            several = isinstance(value, list) and value and all(_json_object(one) for one in value)
            return tuple(_as_json(one) for one in (value if several else [value]))
        if isinstance(value, dict) and isinstance(value.get("text"), list):  # of SQuAD
            value = value["text"]
        texts = [written(one) for one in (value if isinstance(value, list) else [value])]
    except ValueError as error:
        raise UsageError(f"{where}: the field {name!r} cannot be used: {error}") from error
    accepted = [text for text in texts if text]
    if accepted and len(accepted) == len(texts):
        return tuple(accepted)
    if any(isinstance(one, dict | list) for one in [value, *(value if isinstance(value, list) else [])]) and value:
        raise UsageError(
            f"{where}: the field {name!r} is neither a text nor a list of texts; for JSON as the answer give "
            "--answer json"
        )
    raise UsageError(f"{where}: the field {name!r} is missing or is neither a text nor a list of texts")


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()) or name


def _json_object(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith(("{", "[")) and _is_json(value)


def _as_json(value: Any) -> str:
    """A text that is JSON as it is; another text as a JSON string; all else as JSON."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("it is blank")
    return value.strip() if isinstance(value, str) and _is_json(value) else json_text(value)


def _is_json(text: str) -> bool:
    from outthink.answers.literals import json_value

    return json_value(text) is not None
