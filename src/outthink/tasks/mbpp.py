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
from outthink.tasks.own import text_of
from outthink.types import AnswerKind, Code, Message, Problem

TEMPLATE = "{question}\nReply with the whole code in one ```python block."


def example(
    row: dict[str, Any], facts: dict[str, Any], name: str, where: str, template: str | None, answer: AnswerKind | None
) -> Example:
    """One row, graded by all its assertions after its setup code, which may use the answer."""
    listed = facts.get("test_list")
    if not isinstance(listed, list) or not listed or not all(isinstance(test, str) for test in listed):
        raise UsageError(f"{where}: the field 'test_list' is missing or is not a list of texts")
    asked = text_of(facts, "prompt" if facts.get("text") is None and "prompt" in facts else "text", where)
    question = f"{asked}\nYour code must pass this test: {listed[0]}"
    imports = facts.get("test_imports") or []  # of the sanitized rows, where it takes the place of the setup code
    if not isinstance(imports, list) or not all(isinstance(line, str) for line in imports):
        raise UsageError(f"{where}: the field 'test_imports' is not a list of texts")
    setup = "\n".join([*imports, str(facts.get("test_setup_code") or "")]).replace("\r", "").strip("\n")
    problem = Problem(
        id=str(row.get("id") or f"mbpp-{facts.get('task_id', name)}"),
        messages=(Message(content=(template or TEMPLATE).replace("{question}", question)),),
        answer=answer or "code",
        question=question,
        code=Code(entry_point=_called(listed[0]), tests=(f"{setup}\n{listed[0]}".strip(),)),
    )
    tests = "\n".join([setup, *listed, *(facts.get("challenge_test_list") or [])])
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
