"""GSM8K: grade-school word problems with a whole number as the answer.

Source: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems"; github.com/openai/grade-school-math (MIT).
Both its own files and files with `id`, `question`, `answer` (the number), `meta` are read.
"""

from __future__ import annotations

import logging
import os
from importlib import resources
from pathlib import Path

from outthink.errors import UsageError
from outthink.tasks import Example, hub
from outthink.tasks.own import accepted, rows, text_of
from outthink.types import AnswerKind, Message, Problem

TEMPLATE = "{question}\nThink step by step briefly. End with a line: #### <number>"
SAMPLE = "the 24 GSM8K questions that ship with Outthink"


def load(path: Path | None, split: str, template: str | None, answer: AnswerKind | None) -> list[Example]:
    """All examples of the file, or of the published set; without either, the sample that ships with Outthink."""
    folder = os.environ.get("OUTTHINK_DATA")
    if path is None and folder:
        path = Path(folder) / "gsm8k" / f"{split}.jsonl"
    path = path or hub.cached("openai/gsm8k", "main", split)
    if path is not None:
        return _examples(path, str(path), split, template, answer)
    logging.getLogger(__name__).warning(
        "No GSM8K file was given, so this is %s; for the whole set give a file, set OUTTHINK_DATA to a folder with "
        "gsm8k/%s.jsonl (download: github.com/openai/grade-school-math), or pip install 'outthink[datasets]'.",
        SAMPLE,
        split,
    )
    with resources.as_file(resources.files("outthink") / "data" / "gsm8k_sample.jsonl") as sample:
        return _examples(sample, SAMPLE, "train", template, answer)


def _examples(path: Path, source: str, split: str, template: str | None, answer: AnswerKind | None) -> list[Example]:
    examples = []
    for number, row in rows(path):
        where = f"{path.name}, line {number}"
        question = text_of(row, "question", where)
        gold = accepted(row, where)[0].rpartition("####")[2].strip()
        if not gold:
            raise UsageError(f"{where}: nothing stands after the #### of the answer")
        problem = Problem(
            id=str(row.get("id", f"gsm8k-{split}-{number - 1}")),
            messages=(Message(content=(template or TEMPLATE).replace("{question}", question)),),
            answer=answer or "math",
            question=question,
        )
        examples.append(Example(problem, (gold,), {"source": source}))
    return examples
