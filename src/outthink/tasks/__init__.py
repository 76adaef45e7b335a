"""Tasks: problems with their gold answers. Only the problem of an example is ever shown to a strategy.

Source: GSM8K (Cobbe et al. 2021), MATH-500 (Lightman et al. 2023), reasoning-gym, and files of your own.
How this differs: GSM8K and MATH-500 are read from a file, or fetched once where the extra `datasets` is installed;
24 GSM8K questions ship along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outthink.answers import Reader
from outthink.errors import UnknownName, UsageError
from outthink.types import AnswerKind, Problem

KNOWN = ("gsm8k", "math500", "gym:<name>", "<file>.jsonl")
"""What `load` accepts."""


@dataclass(frozen=True)
class Example:
    """A problem and what it is graded by.

    Args:
        problem: all that a strategy sees.
        gold: accepted answers; empty only where the task scores answers by a function of its own.
        meta: facts for reports; "source" says where the question came from. For gym tasks "gym" is its name and
            "entry" what its scoring function needs.
    """

    problem: Problem
    gold: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)


async def grade(example: Example, answer: str | None, reader: Reader) -> float:
    """1.0 where the answer is right, else 0.0; None (INVALID) is wrong.

    Right is: equal to any gold answer (see `answers`). For gym tasks, right is what their own scoring function gives
    the full score of 1; a number of a gym task may also be equal to the gold one.
    """
    if answer is None:
        return 0.0
    if "gym" not in example.meta or example.problem.answer == "math":
        for gold in example.gold:
            if await reader.equal(example.problem.answer, gold, answer):
                return 1.0
    if "gym" in example.meta:
        from outthink.tasks import gym  # here, because a strategy's problem needs no gym

        return gym.score(example, answer)
    return 0.0


def load(
    task: str,
    *,
    path: Path | None = None,
    split: str = "test",
    limit: int | None = None,
    template: str | None = None,
    answer: AnswerKind | None = None,
    seed: int = 0,
) -> list[Example]:
    r"""The examples of a task.

    Args:
        task: "gsm8k", "math500", "gym:chain_sum?size=300&min_terms=3", or the path of your own .jsonl file with
            `question`, `answer` (a string or a list of accepted ones) and optionally `id` and `options`.
        path: file of gsm8k or math500. Without it: the folder in the environment variable OUTTHINK_DATA (holding
            gsm8k/test.jsonl and so on); without that, gsm8k gives the sample that ships with Outthink, with a
            warning in the log, and math500 raises UsageError.
        split: file name within that folder; for gym tasks, questions of different splits are unrelated.
        limit: at most so many, at least 1. gsm8k and math500 come in the order of sha256("order:" + id), so the
            first k questions are a fixed random choice; gym tasks and your own data come in their own order.
        template: the prompt, with {question} where the question goes; None is the task's own.
        answer: how answers are read; None is the task's own ("choice" for rows with options, else "math").
        seed: of generated tasks.

    Raises UnknownName for a task there is not, and UsageError with one sentence about what is wrong with a file,
    a template, an option or a missing package.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}")
    if template is not None and "{question}" not in template:
        raise UsageError("the template needs the placeholder {question}")
    # Here, because these modules need Example.
    if task in ("gsm8k", "math500"):
        from outthink.tasks import gsm8k, math500

        examples: list[Example] = (gsm8k if task == "gsm8k" else math500).load(path, split, template, answer)
        examples.sort(key=lambda example: hashlib.sha256(f"order:{example.problem.id}".encode()).digest())
        return examples[:limit]
    if path is not None:
        raise UsageError(f"path goes with gsm8k or math500; for your own data give the file as the task, not {task!r}")
    if task.startswith("gym:"):
        from outthink.tasks import gym

        return gym.load(task, split, limit, template, answer, seed)
    if task.endswith(".jsonl"):
        from outthink.tasks import own

        return own.load(Path(task), template, answer)[:limit]
    raise UnknownName("task", task, KNOWN)
