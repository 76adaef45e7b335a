"""Tasks: problems with their gold answers. Only the problem of an example is ever shown to a strategy.

Source: GSM8K (Cobbe et al. 2021), MATH-500 (Lightman et al. 2023), HumanEval (Chen et al. 2021), MBPP (Austin et al.
2021), reasoning-gym, and files of your own. How this differs: the published sets are read from a file, or fetched once
where the extra `datasets` is installed; 24 GSM8K questions ship along.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink.answers import Reader
from outthink.errors import UnknownName, UsageError
from outthink.types import AnswerKind, Problem

if TYPE_CHECKING:
    from outthink.sandbox import Sandbox

PUBLISHED: Mapping[str, tuple[str, str | None]] = {
    "gsm8k": ("openai/gsm8k", "main"),
    "math500": ("HuggingFaceH4/MATH-500", None),
    "humaneval": ("openai/openai_humaneval", None),
    "mbpp": ("google-research-datasets/mbpp", "full"),
}
"""Published sets, each with a module of its name here: data set and configuration at the hub."""

KNOWN = (*PUBLISHED, "gym:<name>", "<file>.jsonl")
"""What `load` accepts."""


@dataclass(frozen=True)
class Example:
    """A problem and what it is graded by.

    Args:
        problem: all that a strategy sees.
        gold: accepted answers; empty where the task has none, and answers are graded in another way.
        tests: for answers of kind code, source that raises where the answer is wrong; run in the sandbox.
        meta: facts for reports; "source" says where the question came from. For gym tasks "gym" is its name and
            "entry" what its scoring function needs.
    """

    problem: Problem
    gold: tuple[str, ...]
    tests: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


async def grade(example: Example, answer: str | None, reader: Reader, sandbox: Sandbox | None = None) -> float:
    """1.0 where the answer is right, else 0.0; None (INVALID) is wrong.

    Right is: code that passes the example's tests; else equal to any gold answer (see `answers`). For gym tasks,
    right is what their own scoring function gives the full score of 1; a number of a gym task may also be equal to
    the gold one.

    Args:
        sandbox: where tests run; needed for examples that have tests (see `opened`).
    """
    if answer is None:
        return 0.0
    if example.tests:
        if sandbox is None:
            raise UsageError(f"Grading {example.problem.id} runs code: give a sandbox.")
        ran = await sandbox.run(example.problem.code.program(answer, example.tests))
        return float(ran.outcome == "ok")
    if "gym" not in example.meta or example.problem.answer == "math":
        for gold in example.gold:
            if await reader.equal(example.problem.answer, gold, answer):
                return 1.0
    if "gym" in example.meta:
        from outthink.tasks import gym  # here, because a strategy's problem needs no gym

        return gym.score(example, answer)
    return 0.0


@contextlib.asynccontextmanager
async def opened(
    examples: Iterable[Example], reader: Reader | None, sandbox: Sandbox | None
) -> AsyncIterator[tuple[Reader, Sandbox | None]]:
    """A reader, and a sandbox where grading runs code; those that were not given are closed at the end."""
    async with contextlib.AsyncExitStack() as own:
        if reader is None:
            reader = Reader()
            own.push_async_callback(reader.close)
        if sandbox is None and any(example.tests for example in examples):
            from outthink.sandbox import Sandbox  # here, because most tasks run no code

            sandbox = Sandbox()
            own.push_async_callback(sandbox.close)
        yield reader, sandbox


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
        task: a name of PUBLISHED, "gym:chain_sum?size=300&min_terms=3", or the path of your own .jsonl file with
            `question`, `answer` (a string or a list of accepted ones) and optionally `id`, `options` and `tests`.
        path: file of a published set. Without it: the folder in the environment variable OUTTHINK_DATA (holding
            gsm8k/test.jsonl and so on); without that, the published set is fetched where the extra `datasets` is
            installed; without that, gsm8k gives the sample that ships with Outthink, with a warning in the log, and
            the others raise UsageError.
        split: file name within that folder; for gym tasks, questions of different splits are unrelated.
        limit: at most so many, at least 1. Published sets come in the order of sha256("order:" + id), so the
            first k questions are a fixed random choice; gym tasks and your own data come in their own order.
        template: the prompt, with {question} where the question goes; None is the task's own.
        answer: how answers are read; None is the task's own ("choice" for rows with options, "code" for rows with
            tests, else "math").
        seed: of generated tasks.

    Raises UnknownName for a task there is not, and UsageError with one sentence about what is wrong with a file,
    a template, an option or a missing package.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}")
    if template is not None and "{question}" not in template:
        raise UsageError("the template needs the placeholder {question}")
    # Here, because these modules need Example.
    if task in PUBLISHED:
        from outthink.tasks import published

        examples = published.load(task, path, split, template, answer)
        examples.sort(key=lambda example: hashlib.sha256(f"order:{example.problem.id}".encode()).digest())
        return examples[:limit]
    if path is not None:
        raise UsageError(
            f"path goes with {', '.join(PUBLISHED)}; for your own data give the file as the task, not {task!r}"
        )
    if task.startswith("gym:"):
        from outthink.tasks import gym

        return gym.load(task, split, limit, template, answer, seed)
    if task.endswith(".jsonl"):
        from outthink.tasks import own

        return own.load(Path(task), template, answer)[:limit]
    raise UnknownName("task", task, KNOWN)
