"""Scores the samples of a pool, whole or step by step, into a new pool: what replays, laws and `prm train` then read.

Source: none of its own; the scorers are those of `rewards`. Differs: nothing is sampled but what a scorer itself needs;
a sample that was cut off is no answer and gets no score of answers, but its steps are scored like others.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outthink import jsonl
from outthink.answers.asking import ask
from outthink.answers.reader import Reader
from outthink.bench.run import in_flight
from outthink.driver import solve_async
from outthink.errors import EngineError, OutthinkError, Unaffordable, UsageError
from outthink.model import Model
from outthink.models.engine import Engine
from outthink.models.samples import text_of, was_cut
from outthink.records.pools import read_rows
from outthink.rewards.making import Opened
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.tasks.example import Example
from outthink.together import close_all
from outthink.types import AnswerKind, Budget, Problem, Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringStanding:
    """How far it is.

    Args:
        done, total: problems in the new pool, and in the old one.
        cost: what was charged since this call began, by unit, failures included.
        failed: why a problem is not in the new pool, by id; scoring again tries it again.
    """

    done: int
    total: int
    cost: Mapping[str, float]
    failed: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Shows texts that are there already to a verifier, or their steps to a PRM.

    Args:
        texts: of whole samples.
        kept: gets what they said.
    """

    texts: tuple[str, ...]
    delimiter: str
    kept: list[Any] = field(default_factory=list)

    async def run(
        self,
        problem: Problem,
        report: Report,
        *,
        model: Model,
        verifier: Scores | None = None,
        prm: Scores | None = None,
    ) -> None:
        """One score, or a tuple of them, for each text."""
        samples = [await model.made(problem, text) for text in self.texts]
        report(samples, chosen=samples[0])
        if prm is not None:
            self.kept.extend(await prm.score_steps(problem, samples, self.delimiter))
        elif verifier is not None:
            self.kept.extend(await verifier.score(problem, samples))


def open_scorers(out: Path, *, verifiers: Sequence[str], prms: Sequence[str], delimiter: str) -> dict[str, Opened]:
    """The scorers by name; raises UsageError where nothing can be scored so, whatever the model and the pool."""
    named = (*verifiers, *prms)
    if not named:
        raise UsageError("Give a scorer: --verifier NAME for answers, --prm NAME for steps.")
    if len({*named}) < len(named):
        raise UsageError("A scorer was given twice: name each once.")
    if out.suffix != ".jsonl":
        raise UsageError(f"A pool is written into a .jsonl file, not {out.name}; compress it when it is complete.")
    if not delimiter:
        raise UsageError("The delimiter is empty; give what ends a step.")
    return {name: Opened(name, process=name in prms) for name in named}


async def score_pool(
    pool: Path,
    out: Path,
    *,
    verifiers: Sequence[str] = (),
    prms: Sequence[str] = (),
    models: Mapping[str, Engine],
    answer: AnswerKind | None = None,
    template: str | None = None,
    delimiter: str = "\n\n",
    budget: str | Budget | None = None,
    seed: int = 0,
    concurrency: int = 16,
    resources: Mapping[str, Any] | None = None,
    on_progress: Callable[[ScoringStanding], None] | None = None,
    stop: asyncio.Event | None = None,
) -> ScoringStanding:
    """Add to the pool at `out` every problem of `pool` that it does not hold yet, with its scores.

    A problem is written when all its scores are there, so that what was cut short is gone on with by the same call.

    Args:
        verifiers, prms: scorers by name, as for `make_scorer`; at least one. Each has its entry in the `scores` and
            `step_scores` of a line, beside those that are there already.
        models: engines by role.
        answer, template: how the samples were asked for, for scorers that go on from their steps.
        delimiter: ends a step.
        budget: the most that one scorer may cost on one problem.

    Raises UsageError where a file cannot be used or a scorer cannot score these problems.
    """
    named = (*verifiers, *prms)
    opened = open_scorers(out, verifiers=verifiers, prms=prms, delimiter=delimiter)
    rows: dict[str, dict[str, Any]] = {}
    examples = []
    for number, row in read_rows(pool):
        problem = _problem(row, f"Line {number} of {pool}", answer, template)
        if problem.id in rows:
            raise UsageError(f"Line {number} of {pool} repeats the problem {problem.id!r}: remove it.")
        rows[problem.id] = row
        examples.append(Example(problem, ()))
    held = _held(out, named)
    done, cost, failed = len(held & rows.keys()), Counter[str](), dict[str, str]()
    reader = Reader()

    def tell() -> ScoringStanding:
        standing = ScoringStanding(done=done, total=len(rows), cost=dict(cost), failed=dict(failed))
        if on_progress is not None:
            on_progress(standing)
        return standing

    async def judged(problem: Problem, name: str, texts: tuple[str, ...]) -> list[Any]:
        strategy = _Judged(texts=texts, delimiter=delimiter)
        trace: Trace | None = None
        try:
            trace = await solve_async(
                problem,
                strategy,
                models=models,
                budget=budget,
                seed=seed,
                reader=reader,
                resources=resources,
                verifier=None if name in prms else opened[name],
                prm=opened[name] if name in prms else None,
            )
        except OutthinkError as failure:
            trace = getattr(failure, "trace", None)
            raise
        finally:
            if trace is not None:
                cost.update(trace.cost)
        if len(strategy.kept) < len(texts):
            raise Unaffordable(f"{name} could not be paid for within the budget.")
        return strategy.kept

    async def attempt(example: Example) -> dict[str, Any] | OutthinkError:
        problem = example.problem
        row = rows[problem.id]
        samples = row["samples"]
        new = {what: dict(row.get(what) or {}) for what in ("scores", "step_scores")}
        try:
            for name in named:
                steps = name in prms
                places = [place for place, one in enumerate(samples) if _shown(one, steps)]
                scores: list[Any] = [None] * len(samples)
                if places:
                    said = await judged(problem, name, tuple(text_of(samples[at]) for at in places))
                    for at, score in zip(places, said, strict=True):
                        scores[at] = score
                new["step_scores" if steps else "scores"][name] = scores
        except (EngineError, Unaffordable) as failure:
            return failure
        return {**row, **{what: scored for what, scored in new.items() if scored}}

    async def finish(example: Example, outcome: dict[str, Any] | OutthinkError) -> None:
        nonlocal done
        if isinstance(outcome, OutthinkError):
            failed[example.problem.id] = str(outcome)
        else:
            file.append(json.dumps(outcome, separators=(",", ":")))
            done += 1
        tell()

    try:
        with jsonl.Appender(out) as file:
            tell()
            todo = [example for example in examples if example.problem.id not in held]
            await in_flight(todo, attempt, finish, concurrency=concurrency, stop=stop)
    finally:
        await close_all([reader, *opened.values()])
    return tell()


def _shown(sample: Mapping[str, Any], steps: bool) -> bool:
    return bool(text_of(sample)) and (steps or not was_cut(sample.get("finish")))


def _problem(row: Mapping[str, Any], where: str, answer: AnswerKind | None, template: str | None) -> Problem:
    name, question, samples = row.get("id"), row.get("question"), row.get("samples")
    if name is None or not isinstance(question, str) or not isinstance(samples, list):
        raise UsageError(f"{where} lacks its id, its question or its samples, so nothing can be judged.")
    if not all(isinstance(one, dict) for one in samples):
        raise UsageError(f"{where} has samples that are no objects, so nothing can be judged.")
    if not any(map(text_of, samples)):
        raise UsageError(f"{where} has no texts of its samples, so nothing can be judged.")
    return ask(question, answer=answer, template=template, id=str(name))


def _held(out: Path, named: Sequence[str]) -> set[str]:
    """Ids of the problems in the file; raises UsageError where it was scored by others."""
    held = set()
    for number, row in jsonl.read(out) if out.exists() else ():
        known = {*(row.get("scores") or {}), *(row.get("step_scores") or {})}
        if missing := [name for name in named if name not in known]:
            raise UsageError(f"Line {number} of {out} has no scores by {missing[0]!r}: give another file.")
        held.add(str(row.get("id")))
    return held
