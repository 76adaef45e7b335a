"""Grades a recorded run afterwards, from right answers that people wrote down, into a new run directory."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink import jsonl
from outthink.answers.reader import Reader
from outthink.bench.judging import judge_run
from outthink.errors import OutthinkError, UsageError
from outthink.models.engine import Engine
from outthink.records.generations import answers_of
from outthink.records.runs import RESULTS, RUN, read_results, read_settings
from outthink.reports.feedback import feedback_credits
from outthink.tasks.example import Example
from outthink.tasks.golds import read_golds
from outthink.tasks.grading import grade
from outthink.types import AnswerKind, Budget, Problem, Trace

if TYPE_CHECKING:
    from outthink.sandbox.host import Sandbox


@dataclass(frozen=True, kw_only=True, slots=True)
class Graded:
    """What came of it.

    Args:
        problems: of the run that were graded now.
        right: sum of their credits.
        unknown: right answers whose problem the run does not have.
        cost: what the judge was charged, by unit.
    """

    problems: int
    right: float
    unknown: int
    cost: Mapping[str, float] = field(default_factory=dict)


def grade_run(
    folder: Path,
    gold: Path | None,
    out: Path,
    *,
    answer: AnswerKind = "chat",
    judge: Engine | None = None,
    budget: str | Budget | None = None,
) -> Graded:
    """Write the run in `folder` to `out`, with the credit of every problem in `gold`; all others keep what they have.

    What has no credit then gets the one that callers gave it, and what has none of them either is judged.

    Args:
        folder: a run directory, which is only read; a server may be writing it.
        gold: lines {"problem": id, "answer": what is right, or a list of it}; None: nobody has written any.
        judge: a model that is asked whether each reply is right; None: nobody is asked.
        budget: the most that judging one reply may cost.
        out: made for its owner alone (mode 700); it must not exist.
        answer: how answers are compared; "chat" takes each for what it looks like, as a server does.

    Raises UsageError, and makes nothing, where `out` is there already, a line is wrong, or the run has none of the
    problems; OutthinkError where nothing can be written.
    """
    if os.path.exists(out):
        raise UsageError(f"{out} is there already: give a folder that does not exist.")
    settings = read_settings(folder)
    right = {} if gold is None else read_golds(gold, answer)
    credits = asyncio.run(_credits(folder, right, answer))
    if gold is not None and not credits:
        raise UsageError(f"The run in {folder} has none of the problems of {gold}.")
    unknown = len(right.keys() - credits.keys())
    how: list[dict[str, Any]] = [] if gold is None else [{"gold": gold.name, "answer": answer}]
    told = {problem: credit for problem, credit in feedback_credits(folder, answer).items() if problem not in credits}
    if told:
        how.append({"feedback": len(told)})
        credits |= {problem: (credit, {}) for problem, credit in told.items()}
    cost: dict[str, float] = {}
    if judge is not None:
        judged = asyncio.run(judge_run(folder, judge, credits.keys(), budget=budget))
        credits |= {problem: (credit, {}) for problem, credit in judged.credits.items()}
        cost = dict(judged.cost)
        how.append({"judge": judge.spec.name, "replies": len(judged.credits), "failed": judged.failed, "cost": cost})
    if not credits:
        raise UsageError(f"Nobody has said what is right in {folder}: give --gold FILE or --judge MODEL.")

    def lines() -> Iterator[str]:
        for _, line in jsonl.read(folder / RESULTS):
            if line["problem"] in credits:
                credit, known = credits[line["problem"]]
                line = {**line, "credit": credit, **({"credits": known} if known else {})}
            yield json.dumps(line, separators=(",", ":")) + "\n"

    settings["graded"] = [*settings.get("graded", []), *how]
    part = out.with_name(out.name + ".part")
    try:
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
        jsonl.write_whole(part / RESULTS, lines(), mode=0o600)
        jsonl.write_whole(part / RUN, json.dumps(settings, indent=1) + "\n", mode=0o600)
        part.rename(out)
        jsonl.sync_folder(out.parent)
    except OSError as cause:
        raise OutthinkError(f"Cannot write {out}: {cause.strerror}.") from cause
    return Graded(
        problems=len(credits),
        right=sum(credit for credit, _ in credits.values()),
        unknown=unknown,
        cost=cost,
    )


async def credits_of(
    example: Example, trace: Trace, reader: Reader, sandbox: Sandbox | None = None
) -> dict[str, float]:
    """The credit of each different answer in the generations of a trace, by its key; none where it has none."""
    answers = answers_of(trace)
    return {key: await grade(example, answer, reader, sandbox) for key, answer in answers.items()}


async def _credits(
    folder: Path, right: Mapping[str, tuple[str, ...]], answer: AnswerKind
) -> dict[str, tuple[float, dict[str, float]]]:
    """By problem: of its answer, and of all answers in its generations."""
    reader = Reader()
    credits = {}
    try:
        for result in read_results(folder):
            if result.problem in right:
                example = Example(Problem(id=result.problem, messages=(), answer=answer), right[result.problem])
                given = None if result.trace is None else result.trace.answer
                known = {} if result.trace is None else await credits_of(example, result.trace, reader)
                credits[result.problem] = await grade(example, given, reader), known
    finally:
        await reader.close()
    return credits
