"""Scores the samples of a pool, whole or step by step, into a new pool: what replays, laws and `prm train` then read.

Source: none of its own; the scorers are those of `rewards`. Differs: nothing is sampled but what a scorer itself needs;
a sample that was cut off is no answer and gets no score of answers, but its steps are scored like others. What is known
of a sample beside its text (tokens, logprobs, how it ended) is known to the scorers. `scored` in a line of the new pool
says with which settings.
"""

from __future__ import annotations

import asyncio
import itertools
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
from outthink.errors import BudgetTooSmall, EngineError, OutthinkError, PromptTooLong, Unaffordable, UsageError
from outthink.model import Model
from outthink.models.engine import Engine
from outthink.models.samples import pool_id, text_of, token_count, token_logprobs, was_cut
from outthink.records.pools import read_rows
from outthink.records.runs import differences
from outthink.rewards.making import Opened
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.tasks.example import Example
from outthink.together import close_all
from outthink.types import AnswerKind, Budget, Problem, Trace

_ADDED = ("scores", "step_scores", "scored")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringStanding:
    """How far it is.

    Args:
        done, total: problems in the new pool, and in the old one.
        cost: what was charged since this call began, by unit, failures included.
        failed: why a problem is not in the new pool, by id; scoring again tries it again.
        unpaid: whether some are not there because of the budget.
        missing: samples or steps that were shown to a scorer since this call began and got no score, by its name.
    """

    done: int
    total: int
    cost: Mapping[str, float]
    failed: Mapping[str, str]
    unpaid: bool = False
    missing: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Shows recorded samples to a verifier, or their steps to a PRM.

    Args:
        samples: fields of a candidate by name.
        kept: gets what they said.
    """

    samples: tuple[Mapping[str, Any], ...]
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
        """One score, or a tuple of them, for each sample."""
        samples = [await model.made(problem, **known) for known in self.samples]
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

    Raises UsageError where a file cannot be used, holds something else, or a scorer cannot score these problems.
    """
    named = (*verifiers, *prms)
    opened = open_scorers(out, verifiers=verifiers, prms=prms, delimiter=delimiter)
    told = {
        "models": {role: engine.spec.name for role, engine in models.items()},
        "seed": seed,
        "answer": answer,
        "template": template,
    }
    settings = {name: {**told, "delimiter": delimiter} if name in prms else told for name in named}
    rows: dict[str, dict[str, Any]] = {}
    examples = []
    for number, row in read_rows(pool):
        where = f"Line {number} of {pool}"
        problem = _read(row, where, answer, template)
        if problem.id in rows:
            raise UsageError(f"{where} repeats the problem {problem.id!r}: remove it.")
        if known := [name for name in named if name in _scorers(row)]:
            raise UsageError(f"{where} has scores by {known[0]!r} already: leave that scorer out.")
        rows[problem.id] = row
        examples.append(Example(problem, ()))
    held = _held(out, rows, settings)
    done, cost, failed = len(held), Counter[str](), dict[str, str]()
    unpaid, missing = False, Counter[str]()
    reader = Reader()

    def tell() -> ScoringStanding:
        standing = ScoringStanding(
            done=done, total=len(rows), cost=dict(cost), failed=dict(failed), unpaid=unpaid, missing=dict(missing)
        )
        if on_progress is not None:
            on_progress(standing)
        return standing

    async def judged(problem: Problem, name: str, samples: tuple[dict[str, Any], ...]) -> list[Any]:
        strategy = _Judged(samples=samples, delimiter=delimiter)
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
        except BudgetTooSmall:
            raise Unaffordable(f"{name} can cost more than the budget in a single call.") from None
        except OutthinkError as failure:
            trace = getattr(failure, "trace", None)
            raise
        finally:
            if trace is not None:
                cost.update(trace.cost)
        if trace.stopped in ("budget", "deadline"):
            raise Unaffordable(f"{name} could not be paid for within the budget.")
        if len(strategy.kept) < len(samples):
            raise EngineError(trace.error or f"{name} ended before its scores were there.")
        return strategy.kept

    async def attempt(example: Example) -> dict[str, Any] | OutthinkError:
        problem = example.problem
        row = rows[problem.id]
        samples = tuple(map(_known, row["samples"]))
        new = {what: dict(row.get(what) or {}) for what in ("scores", "step_scores")}
        try:
            for name in named:
                steps = name in prms
                places = [at for at, one in enumerate(samples) if one["text"] and (steps or one["complete"])]
                scores: list[Any] = [None] * len(samples)
                if places:
                    said = await judged(problem, name, tuple(samples[at] for at in places))
                    for at, score in zip(places, said, strict=True):
                        scores[at] = score
                    flat = itertools.chain.from_iterable(said) if steps else said
                    missing[name] += sum(score is None for score in flat)
                new["step_scores" if steps else "scores"][name] = scores
        except (EngineError, Unaffordable) as failure:
            return failure
        scored = {**(row.get("scored") or {}), **settings}
        return {**row, **{what: there for what, there in new.items() if there}, "scored": scored}

    async def finish(example: Example, outcome: dict[str, Any] | OutthinkError) -> None:
        nonlocal done, unpaid
        if isinstance(outcome, OutthinkError):
            failed[example.problem.id] = str(outcome)
            unpaid = unpaid or (isinstance(outcome, Unaffordable) and not isinstance(outcome, PromptTooLong))
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


def _read(row: Mapping[str, Any], where: str, answer: AnswerKind | None, template: str | None) -> Problem:
    """The problem of a line, all of whose samples can be read."""
    name, question, samples = pool_id(row.get("id")), row.get("question"), row.get("samples")
    if name is None or not isinstance(question, str) or not isinstance(samples, list):
        raise UsageError(f"{where} lacks its id, its question or its samples, so nothing can be judged.")
    if not all(isinstance(one, dict) for one in samples):
        raise UsageError(f"{where} has samples that are no objects, so nothing can be judged.")
    try:
        json.dumps(row)
        texts = [_known(one)["text"] for one in samples]
        problem = ask(question, answer=answer, template=template, id=name)
    except (TypeError, ValueError, UsageError) as cause:
        what = "a number has more than 4,000 digits" if isinstance(cause, TypeError) else cause
        raise UsageError(f"{where} cannot be read: {what}") from None
    if not all(isinstance(row.get(what), dict | None) for what in ("scores", "step_scores", "scored")):
        raise UsageError(f"{where} has scores that do not say by whom: give them as an object, name by name.")
    if not any(texts):
        raise UsageError(f"{where} has no texts of its samples, so nothing can be judged.")
    return problem


def _known(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a sample by field of a candidate."""
    cut, logprobs = was_cut(sample.get("finish")), token_logprobs(sample.get("logprobs"))
    return {
        "text": text_of(sample),
        "tokens": token_count(sample.get("tokens"), "tokens") or 0,
        "logprobs": None if logprobs is None else tuple(logprobs),
        "finish": "length" if cut else "eos",
        "complete": not cut,
    }


def _without_scores(row: Mapping[str, Any]) -> dict[str, Any]:
    return {what: there for what, there in row.items() if what not in _ADDED}


def _scorers(row: Mapping[str, Any]) -> set[str]:
    return {*(row.get("scores") or {}), *(row.get("step_scores") or {})}


def _held(out: Path, rows: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> set[str]:
    """Ids of the problems in the file; raises UsageError where these are others, or were scored in another way."""
    held = set()
    now = json.loads(json.dumps(settings))  # as a line holds them
    for number, row in jsonl.read(out) if out.exists() else ():
        where = f"Line {number} of {out}"
        pooled = rows.get(pool_id(row.get("id")) or "")
        if pooled is None or json.dumps(_without_scores(row)) != json.dumps(_without_scores(pooled)):
            raise UsageError(f"{where} is not of this pool: give another file.")
        known = _scorers(row)
        if missing := [name for name in settings if name not in known]:
            raise UsageError(f"{where} has no scores by {missing[0]!r}: give another file.")
        there = row.get("scored") or {}
        if different := differences({name: there.get(name) for name in now}, now):
            raise UsageError(
                f"{where} was scored with other settings ({'; '.join(different)}): "
                "score with the same again, or give another file."
            )
        held.add(str(pool_id(row["id"])))
    return held
