"""Turns a bare question into a problem, of the kind that is known of its answer.

What is known is what the caller gives: the kind itself, options, a schema or tests. Where nothing is, the question is a
chat: its own words are the whole prompt, and a reply is its answer as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from outthink.errors import UnknownName, UsageError
from outthink.types import AnswerKind, Code, Message, Problem

TEMPLATES: dict[AnswerKind, str] = {
    "math": "{question}\nThink step by step briefly. End with a line: #### <number>",
    "choice": "{question}\nThink step by step briefly. End with a line: #### <letter of the option>",
    "text": "{question}\nThink step by step briefly. End with a line: #### <answer>",
    "code": "{question}\nReply with the whole code in one ```python block, nothing else.",
    "json": "{question}\nReply with one JSON value, nothing else.",
    "chat": "{question}",
}


def ask(
    question: str,
    *,
    answer: AnswerKind | None = None,
    template: str | None = None,
    options: tuple[str, ...] = (),
    schema: Mapping[str, Any] | bool | None = None,
    code: Code | None = None,
    id: str | None = None,
) -> Problem:
    """A question as a problem.

    Args:
        answer: how answers are read and compared; None: "choice" with options, "json" with a schema, "code" with code,
            else "chat", which is the question's own words.
        template: the prompt, with {question} where the question goes; None takes the default of the kind.
        options: labels of a multiple-choice question.
        schema: JSON Schema of the answer; it is told to the model behind the prompt.
        code: how an answer that is code is run, with its public tests.
        id: None takes the question itself.

    Raises UsageError on an empty question, on kinds that contradict and on a template without {question}, UnknownName
    on a kind that there is not.
    """
    if not isinstance(question, str):
        raise UsageError(f"A question is a text or a Problem, not {type(question).__name__}.")
    if not question.strip():
        raise UsageError("The question is empty; write one.")
    told: tuple[tuple[AnswerKind, bool], ...] = (
        ("choice", bool(options)),
        ("json", schema is not None),
        ("code", code is not None),
    )
    kinds = [kind for kind, there in told if there]
    if len(kinds) > 1:
        raise UsageError("Options, a schema and tests each say another kind of answer; give one of them.")
    if len(options) == 1:
        raise UsageError("A choice has at least two options; give the labels of all, as in A,B,C.")
    if kinds and answer not in (None, kinds[0]):
        raise UsageError(f"What is given says that the answer is {kinds[0]}, not {answer}; leave one of both out.")
    answer = answer or (kinds[0] if kinds else "chat")
    if answer not in TEMPLATES:
        raise UnknownName("kind of answer", answer, TEMPLATES)
    template = TEMPLATES[answer] if template is None else template
    if "{question}" not in template:
        raise UsageError("The prompt template must contain {question}, where the question goes.")
    prompt = template.replace("{question}", question)
    if schema is not None:
        prompt += f"\nIt must fit this JSON Schema: {json.dumps(schema, ensure_ascii=False)}"
    return Problem(
        id=question if id is None else id,
        messages=(Message(content=prompt),),
        answer=answer,
        options=options,
        question=question,
        code=Code() if code is None else code,
    )
