"""Finds the file of a published set and reads its rows, each by the module of the set's name.

Source: the files as published, and files with `id`, `question`, `answer` and the original fields under `meta`.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from outthink.errors import UsageError
from outthink.tasks import hub
from outthink.tasks.example import Example
from outthink.tasks.fields import Fields
from outthink.tasks.rows import SUFFIXES, plain, rows
from outthink.types import AnswerKind

PUBLISHED: Mapping[str, tuple[str, str | None, str]] = {
    "gsm8k": ("openai/gsm8k", "main", "test"),
    "math500": ("HuggingFaceH4/MATH-500", None, "test"),
    "humaneval": ("openai/openai_humaneval", None, "test"),
    "mbpp": ("google-research-datasets/mbpp", "full", "test"),
    "ineqmath": ("AI4Math/IneqMath", None, "dev"),  # the answers of its test split are not public
}
"""Published sets, each with a module of its name here: data set and configuration at the hub, and the split to measure
on."""


SAMPLE = "the 24 GSM8K questions that ship with Outthink"


def load(
    task: str, path: Path | None, split: str | None, template: str | None, answer: AnswerKind | None
) -> list[Example]:
    """All examples of the file, else of OUTTHINK_DATA, else of the hub; of gsm8k also the sample that ships along."""
    folder = os.environ.get("OUTTHINK_DATA")
    repository, configuration, usual = PUBLISHED[task]
    split = split or usual
    if path is None and folder:
        path = _in_folder(Path(folder) / task, split)
    path = path or hub.cached(repository, configuration, split)
    if path is not None:
        return _examples(task, path, str(path), split, template, answer)
    if task != "gsm8k":
        raise UsageError(
            f"{task} needs its file: pip install 'outthink[datasets]' and go online, or download the data set "
            f"{repository} as {split}.jsonl or {split}.json and give it as a file, or put it into {task}/ of the "
            "folder that OUTTHINK_DATA names"
        )
    logging.getLogger(__name__).warning(
        "No GSM8K file was given, so this is %s; for the whole set give a file, set OUTTHINK_DATA to a folder with "
        "gsm8k/%s.jsonl (download: github.com/openai/grade-school-math), or pip install 'outthink[datasets]'.",
        SAMPLE,
        split,
    )
    with resources.as_file(resources.files("outthink") / "data" / "gsm8k_sample.jsonl") as sample:
        return _examples(task, sample, SAMPLE, "train", template, answer)


def _in_folder(folder: Path, split: str) -> Path:
    """The file of a split, in the first of the forms that are read."""
    for suffix in SUFFIXES:
        if (path := folder / f"{split}{suffix}").exists():
            return path
    *others, last = SUFFIXES[1:]
    raise UsageError(
        f"There is no {split}{SUFFIXES[0]} in {folder}, nor one ending in {', '.join(others)} or {last}: put it there, "
        "or unset OUTTHINK_DATA."
    )


def _examples(
    task: str, path: Path, source: str, split: str, template: str | None, answer: AnswerKind | None
) -> list[Example]:
    module = importlib.import_module(f"outthink.tasks.{task}")
    examples = []
    seen: dict[str, str] = {}
    for number, spot, read in rows(path):
        where = f"{path.name}, {spot}"
        given = Fields(read, where).id()
        row: dict[str, Any] = {**plain(read), "id": given, "answer": read.get("answer")}
        facts: dict[str, Any] = row["meta"] if isinstance(row.get("meta"), dict) else row
        example: Example = module.example(row, facts, given or f"{task}-{split}-{number - 1}", where, template, answer)
        if (name := example.problem.id) in seen:
            raise UsageError(f"{where}: the id {name!r} was already used in {seen[name]}")
        seen[name] = spot
        examples.append(
            Example(
                problem=example.problem,
                gold=example.gold,
                tests=example.tests,
                exact=example.exact,
                meta={"source": source, **example.meta},
            )
        )
    return examples
