r"""MATH-500: 500 competition problems with answers in LaTeX; no problem text ships with Outthink.

Source: Lightman et al. 2023, "Let's Verify Step by Step", a subset of MATH (Hendrycks et al. 2021).
Both the published file (`problem`, `answer`, `subject`, `level`, `unique_id`) and files with `id`, `question`,
`answer`, `meta` are read.
"""

from __future__ import annotations

import os
from pathlib import Path

from outthink.errors import UsageError
from outthink.tasks import Example, hub
from outthink.tasks.own import accepted, rows, text_of
from outthink.types import AnswerKind, Message, Problem

TEMPLATE = "{question}\nThink step by step. Put the final answer in \\boxed{}."


def load(path: Path | None, split: str, template: str | None, answer: AnswerKind | None) -> list[Example]:
    """All examples of the file, with subject and level (1 to 5) in `meta` where the file has them."""
    folder = os.environ.get("OUTTHINK_DATA")
    if path is None and folder:
        path = Path(folder) / "math500" / f"{split}.jsonl"
    path = path or hub.cached("HuggingFaceH4/MATH-500", None, split)
    if path is None:
        raise UsageError(
            "math500 needs its file: pip install 'outthink[datasets]' and go online, or download test.jsonl of the "
            "data set HuggingFaceH4/MATH-500 and give it as a file, or put it into math500/ of the folder that "
            "OUTTHINK_DATA names"
        )
    examples = []
    for number, row in rows(path):
        where = f"{path.name}, line {number}"
        question = text_of(row, "problem" if "problem" in row else "question", where)
        facts = row["meta"] if isinstance(row.get("meta"), dict) else row
        level = str(facts.get("level", "")).removeprefix("Level ")
        problem = Problem(
            id=str(row.get("id") or row.get("unique_id") or f"math500-{number - 1}"),
            messages=(Message(content=(template or TEMPLATE).replace("{question}", question)),),
            answer=answer or "math",
            question=question,
        )
        meta = {"source": str(path), "subject": facts.get("subject"), "level": int(level) if level.isdigit() else None}
        examples.append(Example(problem, accepted(row, where), meta))
    return examples
