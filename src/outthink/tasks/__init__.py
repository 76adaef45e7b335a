"""Tasks: problems with their gold answers. Only the problem of an example is ever shown to a strategy.

Source: GSM8K (Cobbe et al. 2021), MATH-500 (Lightman et al. 2023), HumanEval (Chen et al. 2021), MBPP (Austin et al.
2021), reasoning-gym, and files of your own. How this differs: the published sets are read from a file, or fetched once
where the extra `datasets` is installed; 24 GSM8K questions ship along.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from outthink.errors import UnknownName, UsageError
from outthink.tasks import gym, own, published
from outthink.tasks.example import Example
from outthink.tasks.grading import grade, opened
from outthink.tasks.published import PUBLISHED
from outthink.tasks.rows import SUFFIXES
from outthink.types import AnswerKind

KNOWN = (*PUBLISHED, "gym:<name>", "<file>.jsonl", "<file>.json", "<file>.csv")
"""What `load` accepts."""

__all__ = ["KNOWN", "PUBLISHED", "Example", "grade", "load", "opened"]


def load(
    task: str,
    *,
    path: Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    template: str | None = None,
    answer: AnswerKind | None = None,
    seed: int = 0,
) -> list[Example]:
    r"""The examples of a task.

    Args:
        task: a name of PUBLISHED, "gym:chain_sum?size=300&min_terms=3", or the path of your own .jsonl file with
            `question`, `answer` (a string or a list of accepted ones) and optionally `id`, `options` and `tests`; a
            .json file with a list of them, or a table (.csv, .tsv).
        path: file of a published set. Without it: the folder in the environment variable OUTTHINK_DATA (holding
            gsm8k/test.jsonl and so on); without that, the published set is fetched where the extra `datasets` is
            installed; without that, gsm8k gives the sample that ships with Outthink, with a warning in the log, and
            the others raise UsageError.
        split: file name within that folder; for gym tasks, questions of different splits are unrelated. None is
            "test", of ineqmath "dev".
        limit: at most so many, at least 1. Published sets come in the order of sha256("order:" + id), so the
            first k questions are a fixed random choice; gym tasks and your own data come in their own order.
        template: the prompt, with {question} where the question goes; None is the task's own.
        answer: how answers are read; None is the task's own ("choice" for rows with options, "code" for rows with
            tests, "text" for those whose answer is true or false, else "math").
        seed: of generated tasks.

    Raises UnknownName for a task there is not, and UsageError with one sentence about what is wrong with a file,
    a template, an option or a missing package.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}")
    if template is not None and "{question}" not in template:
        raise UsageError("the template needs the placeholder {question}")
    if task in PUBLISHED:
        examples = published.load(task, path, split, template, answer)
        examples.sort(key=lambda example: hashlib.sha256(f"order:{example.problem.id}".encode()).digest())
        return examples[:limit]
    if path is not None:
        raise UsageError(
            f"path goes with {', '.join(PUBLISHED)}; for your own data give the file as the task, not {task!r}"
        )
    if task.startswith("gym:"):
        return gym.load(task, split or "test", limit, template, answer, seed)
    if Path(task).suffix.lower() in SUFFIXES:
        return own.load(Path(task), template, answer)[:limit]
    raise UnknownName("task", task, KNOWN)
