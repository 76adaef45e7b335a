"""HumanEval: Python functions to be written from a signature and a docstring, graded by hidden tests.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code"; github.com/openai/human-eval (MIT).
How this differs: the prompt asks a chat model for the whole function; the examples of the docstring are public tests.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
from typing import Any

from outthink.tasks.example import Example
from outthink.tasks.own import name_of, text_of
from outthink.types import AnswerKind, Code, Message, Problem

TEMPLATE = "Complete this function. Reply with the whole function in one ```python block.\n```python\n{question}\n```"


def example(
    row: dict[str, Any], facts: dict[str, Any], name: str, where: str, template: str | None, answer: AnswerKind | None
) -> Example:
    """One row; the prompt itself is the prelude, so an answer may use its imports and helpers, or be a mere body."""
    prompt, entry_point = text_of(facts, "prompt", where), text_of(facts, "entry_point", where)
    problem = Problem(
        id=row["id"] or name_of(row, "task_id", where) or name,
        messages=(Message(content=(template or TEMPLATE).replace("{question}", prompt.rstrip())),),
        answer=answer or "code",
        question=prompt.rstrip(),
        code=Code(prelude=prompt, entry_point=entry_point, tests=docstring_tests(prompt, entry_point)),
    )
    tests = f"{text_of(facts, 'test', where)}\ncheck({entry_point})"
    return Example(problem, (prompt + text_of(facts, "canonical_solution", where),), tests)


def docstring_tests(source: str, function: str) -> tuple[str, ...]:
    """The `>>>` examples of a function, each as an assertion; those whose result is not an expression are left out."""
    tests = []
    # SyntaxError where the source is not Python, ValueError where examples are not laid out as doctest wants them
    with contextlib.suppress(SyntaxError, ValueError):
        defined = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        docstring = "".join(ast.get_docstring(node) or "" for node in defined if node.name == function)
        for shown in doctest.DocTestParser().get_examples(docstring):
            with contextlib.suppress(SyntaxError):
                ast.parse(shown.want.strip(), mode="eval")
                ast.parse(shown.source.strip(), mode="eval")
                # in brackets, because either may hold a comment or a comparison
                tests.append(f"assert (\n{shown.source.strip()}\n) == (\n{shown.want.strip()}\n)")
    return tuple(tests)
