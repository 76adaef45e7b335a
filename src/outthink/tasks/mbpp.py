"""MBPP, also sanitized and MBPP+: short Python functions described in one sentence, graded by a few assertions.

Source: Austin et al. 2021, "Program Synthesis with Large Language Models"; google-research (CC-BY-4.0). How this
differs: the prompt shows the first assertion only, for the function's name and arguments (the paper shows all three
that it grades by), and that one is the public test; of MBPP+ the listed assertions are run, since its further tests
need numpy.
"""

from __future__ import annotations

import ast
import builtins
from typing import Any

from outthink.errors import UsageError
from outthink.tasks.example import Example
from outthink.tasks.own import name_of, text_of, texts_of
from outthink.types import AnswerKind, Code, Message, Problem

TEMPLATE = "{question}\nReply with the whole code in one ```python block."


def example(
    row: dict[str, Any], facts: dict[str, Any], name: str, where: str, template: str | None, answer: AnswerKind | None
) -> Example:
    """One row, graded by all its assertions after its setup code, which may use the answer."""
    listed = texts_of(facts, "test_list", where)
    if not listed:
        raise UsageError(f"{where}: the field 'test_list' is missing or empty")
    asked = text_of(facts, "prompt" if facts.get("text") is None and "prompt" in facts else "text", where)
    question = f"{asked}\nYour code must pass this test: {listed[0]}"
    imports = texts_of(facts, "test_imports", where)  # of the sanitized rows, in place of the setup code
    given = facts.get("test_setup_code")
    before = "" if given in (None, "") else text_of(facts, "test_setup_code", where)
    setup = "\n".join([*imports, before]).replace("\r", "").strip("\n")
    problem = Problem(
        id=str(row.get("id") or f"mbpp-{name_of(facts, 'task_id', where) or name}"),
        messages=(Message(content=(template or TEMPLATE).replace("{question}", question)),),
        answer=answer or "code",
        question=question,
        code=Code(entry_point=_called(listed[0]), tests=(f"{setup}\n{listed[0]}".strip(),)),
    )
    tests = "\n".join([setup, *listed, *texts_of(facts, "challenge_test_list", where)])
    return Example(problem, (text_of(facts, "code", where).replace("\r", ""),), tests)


def _called(test: str) -> str:
    """Name of the first function called in an assertion that is not a built-in one; if all are, of the first of all.

    Empty where none is called.
    """
    try:
        calls = [node.func.id for node in ast.walk(ast.parse(test)) if _by_name(node)]  # type: ignore[attr-defined]
    except SyntaxError:
        return ""
    return next((name for name in calls if not hasattr(builtins, name)), next(iter(calls), ""))


def _by_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
