"""Turns a bare question into a problem: the default prompts, one for each kind of answer."""

from __future__ import annotations

from outthink.errors import UnknownName, UsageError
from outthink.types import AnswerKind, Message, Problem

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
    answer: AnswerKind = "math",
    template: str | None = None,
    options: tuple[str, ...] = (),
    id: str | None = None,
) -> Problem:
    """A question as a problem.

    Args:
        answer: how answers are read and compared.
        template: the prompt, with {question} where the question goes; None takes the default of the kind.
        options: labels of a multiple-choice question.
        id: None takes the question itself.

    Raises UsageError on an empty question or a template without {question}, UnknownName on a kind that there is not.
    """
    if not isinstance(question, str):
        raise UsageError(f"A question is a text or a Problem, not {type(question).__name__}.")
    if not question.strip():
        raise UsageError("The question is empty; write one.")
    if answer not in TEMPLATES:
        raise UnknownName("kind of answer", answer, TEMPLATES)
    template = TEMPLATES[answer] if template is None else template
    if "{question}" not in template:
        raise UsageError("The prompt template must contain {question}, where the question goes.")
    return Problem(
        id=question if id is None else id,
        messages=(Message(content=template.replace("{question}", question)),),
        answer=answer,
        options=options,
        question=question,
    )
