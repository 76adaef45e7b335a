"""Records pools: many samples per problem with token ids and logprobs, from which strategies are replayed.

One JSON object a line for each problem: id, question, answer (gold), prompt_tokens, samples (text, tokens, token_ids,
logprobs, ends, finish, answer, key, correct) and meta (how it was recorded). `models.recorded` plays it back. `ends`
says where in the text each token ends, for what cuts recorded samples into steps. With probe_every, the line has that
and each sample `probes`, `probe_keys` and `probe_tokens`: what was answered when its thought was cut (see `probed`).
With top_logprobs each sample has `confidences`: for each token, minus the mean logprob of the likeliest in its place;
`likeliest` in the line says of how many.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from outthink import jsonl
from outthink.answers.reader import Reader
from outthink.bench.probed import Probed, thoughts
from outthink.bench.run import ids, in_flight
from outthink.driver import solve_async
from outthink.errors import EngineError, OutthinkError, Unaffordable, UsageError
from outthink.model import Draw, Model
from outthink.models.engine import Engine, Tokenizing, confidences_of
from outthink.models.recorded import SCHEMA, prompt_digest
from outthink.records.ends import TokenEnds
from outthink.records.runs import differences
from outthink.resources.table import versions
from outthink.sandbox.host import Sandbox
from outthink.strategies import Report
from outthink.strategies.choosing import by_majority
from outthink.strategies.probing import FORCED
from outthink.tasks.example import Example
from outthink.tasks.grading import grade, opened
from outthink.together import together
from outthink.types import Candidate, Problem, Sampling, Trace

_DECIMALS = 4  # of a logprob; finer digits are noise between runs of the same model


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStanding:
    """How far a recording is.

    Args:
        done, total: problems in the file, earlier ones included, and problems asked for.
        tokens: what was charged since this call began.
        failed: why a problem is not in the file, by id; recording again tries it again.
    """

    done: int
    total: int
    tokens: float
    failed: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Until:
    """Samples until `passes` of them are right, at most n; drawn in batches, of which what comes after is left out."""

    n: int
    passes: int
    draw: Draw
    right: Callable[[Candidate], Awaitable[bool]]

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        drawn: list[Candidate] = []
        passed = 0
        while len(drawn) < self.n:
            batch = min(max(self.passes - passed, len(drawn)), self.n - len(drawn))
            (samples,) = await model.sample_each(problem, [replace(self.draw, n=batch)])
            for sample in sorted(samples, key=_address):  # not as they came back: a short one must not count first
                drawn.append(sample)
                passed += await self.right(sample)
                if passed == self.passes:
                    break
            report(drawn, chosen=None, confidence=0.0)
            if passed == self.passes or len(samples) < batch:
                return


@dataclass(frozen=True, kw_only=True)
class _Draw:
    """Self-consistency that asks for more: one request for all samples, at the address a live run gives it."""

    n: int
    draw: Draw

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        (samples,) = await model.sample_each(problem, [replace(self.draw, n=self.n)])
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)


def need_recordable(
    path: Path,
    *,
    n: int,
    until: int | None = None,
    probe_every: int | None = None,
    top_logprobs: int | None = None,
) -> None:
    """Raise UsageError where no pool can be recorded so, whatever the model: as for `record_pool`."""
    if path.suffix != ".jsonl":
        raise UsageError(f"A pool is recorded into a .jsonl file, not {path.name}; compress it when it is complete.")
    if n < 1:
        raise UsageError(f"n must be at least 1, not {n}.")
    if until is not None and not 2 <= until <= n:
        raise UsageError(f"--until must be from 2 to --n ({n}), not {until}.")
    if probe_every is not None and probe_every < 1:
        raise UsageError(f"--probe-every must be at least 1, not {probe_every}.")
    if top_logprobs is not None and top_logprobs < 2:
        raise UsageError(f"--top-logprobs must be at least 2, not {top_logprobs}.")
    if probe_every is not None and until is not None:
        raise UsageError("Give --until or --probe-every, not both.")


async def record_pool(
    examples: Sequence[Example],
    *,
    n: int,
    until: int | None = None,
    probe_every: int | None = None,
    forced: str = FORCED,
    top_logprobs: int | None = None,
    model: Engine,
    path: str | Path,
    sampling: Sampling | None = None,
    seed: int = 0,
    concurrency: int = 16,
    reader: Reader | None = None,
    sandbox: Sandbox | None = None,
    resources: Mapping[str, Any] | None = None,
    on_progress: Callable[[PoolStanding], None] | None = None,
    stop: asyncio.Event | None = None,
) -> PoolStanding:
    """Add to the pool at `path` every example that it does not hold yet.

    A problem is written when it has all its samples, so a pool that was cut short is a smaller pool, and is gone on
    with by the same call. A problem with a failed sample is not written.

    Args:
        n: samples per problem, at least 1; with `until` at most so many.
        until: draw samples of a problem until so many are right, at least 2. They tell its rate, however small, and
            are no independent samples: when they end depends on them.
        top_logprobs: keep the confidence of each token, from so many of the likeliest in its place, at least 2.
        path: a .jsonl file.
        resources: as for `solve_async`.
        stop: set it to end early; what is being sampled is given up.

    Raises UsageError where the file holds other samples or is being written by another process, and OutthinkError
    where it cannot be written, as on a full disk.
    """
    path, sampling = Path(path), (sampling or Sampling()).settled()
    need_recordable(path, n=n, until=until, probe_every=probe_every, top_logprobs=top_logprobs)
    if probe_every is not None and "prefix" not in model.spec.powers:
        raise UsageError(f"{model.spec.name} cannot continue a text, which --probe-every needs; use another model.")
    if top_logprobs is not None and "top_logprobs" not in model.spec.powers:
        raise UsageError(f"{model.spec.name} does not tell the likeliest tokens, which --top-logprobs needs.")
    asked = set(ids(examples))
    spec = model.spec
    meta: dict[str, Any] = {
        "model": spec.name,
        "sampling": dataclasses.asdict(sampling),
        "seed": seed,
        "schema": SCHEMA,
        "shape": None if spec.shape is None else dataclasses.asdict(spec.shape),
        "price": None if spec.price is None else dataclasses.asdict(spec.price),
        **({} if until is None else {"until": until, "most": n}),
        **({} if probe_every is None else {"probe_every": probe_every, "forced": forced}),
        **({} if top_logprobs is None else {"top_logprobs": top_logprobs}),
        **({"versions": depends} if (depends := versions(resources or {})) else {}),
    }
    token_ends = TokenEnds(cast("Tokenizing", model)) if "tokens" in spec.powers else None
    tokens = 0.0
    failed: dict[str, str] = {}
    async with opened(examples, reader, sandbox) as (read, box):
        with jsonl.Appender(path) as file:
            problems = [example.problem for example in examples]
            prompts = {problem.id: prompt_digest(problem.id, problem.messages) for problem in problems}
            held = _held(path, None if until else n, meta, prompts)
            done = len(held & asked)

            def tell() -> PoolStanding:
                standing = PoolStanding(done=done, total=len(asked), tokens=tokens, failed=dict(failed))
                if on_progress is not None:
                    on_progress(standing)
                return standing

            near = {} if top_logprobs is None else {"top_logprobs": top_logprobs}
            draw = Draw(logprobs="logprobs" in spec.powers, controls=near)

            async def attempt(example: Example) -> Trace | OutthinkError:

                async def right(sample: Candidate) -> bool:
                    return await grade(example, sample.answer, read, box) == 1.0

                try:
                    return await solve_async(
                        example.problem,
                        _Until(n=n, passes=until, draw=draw, right=right)
                        if until is not None
                        else _Draw(n=n, draw=draw)
                        if probe_every is None
                        else Probed(n=n, every=probe_every, forced=forced, draw=draw),
                        model=model,
                        sampling=sampling,
                        seed=seed,
                        reader=read,
                        resources=resources,
                    )
                except (EngineError, Unaffordable) as failure:
                    return failure

            async def finish(example: Example, outcome: Trace | OutthinkError) -> None:
                nonlocal done, tokens
                problem = example.problem
                trace = outcome if isinstance(outcome, Trace) else outcome.trace
                tokens += trace.cost.get("tokens", 0.0) if trace is not None else 0.0
                row = None
                drawn, probes = ((), ()) if trace is None else _drawn(trace, forced if probe_every else None)
                if trace is not None and (len(drawn) == n or (until is not None and drawn)):
                    row = await _row(example, trace, drawn, read, box, token_ends)
                    if probe_every is not None:
                        row["probe_every"] = probe_every
                        for sample, asked in zip(row["samples"], probes, strict=True):
                            sample["probes"] = [None if one is None else one.answer for one in asked]
                            sample["probe_keys"] = [None if one is None else one.key for one in asked]
                            sample["probe_tokens"] = [None if one is None else one.tokens for one in asked]
                if row is not None and until is not None:
                    row["samples"] = _until(row["samples"], until)
                    if len(row["samples"]) < n and sum(sample["correct"] for sample in row["samples"]) < until:
                        row = None  # a request failed before enough were right
                if row is None:
                    errors = [call.error for call in trace.calls if call.error] if trace is not None else []
                    short = "a sample did not come to its end; is the context too small?"
                    failed[problem.id] = errors[0] if errors else str(outcome) if trace is None else short
                else:
                    row["meta"] = {**meta, "prompt": prompts[problem.id]}
                    file.append(json.dumps(row, separators=(",", ":")))
                    done += 1
                tell()

            tell()
            todo = [example for example in examples if example.problem.id not in held]
            await in_flight(todo, attempt, finish, concurrency=concurrency, stop=stop)
            return tell()


def _until(samples: list[dict[str, Any]], until: int) -> list[dict[str, Any]]:
    """The samples up to the one with which so many are right; all where they never are."""
    right = 0
    for place, sample in enumerate(samples, start=1):
        right += sample["correct"]
        if right == until:
            return samples[:place]
    return samples


def _address(candidate: Candidate) -> tuple[int, ...]:
    """Of requests of one lane, whose parts after the name are numbers."""
    return tuple(part for part in candidate.address if isinstance(part, int))


def _held(path: Path, n: int | None, meta: dict[str, Any], prompts: dict[str, str]) -> set[str]:
    """Ids of the problems in the file; raises UsageError where they were recorded in another way."""
    held: set[str] = set()
    for number, row in jsonl.read(path):
        name, there = row.get("id"), row.get("meta")
        if not isinstance(name, str) or not isinstance(there, dict) or not isinstance(row.get("samples"), list):
            raise UsageError(f"Line {number} of {path} is not of a pool: give another file.")
        if name in held:
            raise UsageError(f"Line {number} of {path} repeats the problem {name!r}: remove it.")
        prompt = there.get("prompt")
        now = {"n": len(row["samples"]) if n is None else n, **meta, "prompt": prompts.get(name, prompt)}
        if isinstance(there.get("shape"), dict) and now["shape"] is not None:  # an older pool knows less of it
            now["shape"] = {field: value for field, value in now["shape"].items() if field in there["shape"]}
        different = differences({"n": len(row["samples"]), **there}, json.loads(json.dumps(now)))
        if different:
            raise UsageError(
                f"Line {number} of {path} was recorded with other settings ({'; '.join(different)}): "
                "ask for the same again, or give another file."
            )
        held.add(name)
    return held


def _drawn(trace: Trace, forced: str | None) -> tuple[Sequence[Candidate], Sequence[Sequence[Candidate | None]]]:
    """The samples in order, and the answers that were forced within each."""
    if forced is None:
        return sorted(trace.candidates, key=_address), [()] * len(trace.candidates)
    pairs = thoughts(trace, forced)
    return [whole for whole, _ in pairs], [probes for _, probes in pairs]


async def _row(
    example: Example,
    trace: Trace,
    drawn: Sequence[Candidate],
    reader: Reader,
    sandbox: Sandbox | None,
    token_ends: TokenEnds | None,
) -> dict[str, Any]:
    answers = list(dict.fromkeys(candidate.answer for candidate in drawn))
    credits = await together(*(grade(example, answer, reader, sandbox) for answer in answers))
    right = {answer: credit == 1.0 for answer, credit in zip(answers, credits, strict=True)}
    exact = all(call.exact for call in trace.calls)
    plain = [call for call in trace.calls if call.after is None]
    near = [confidences_of(candidate.observed) for candidate in drawn]
    told = min((k for values, k in near if values), default=0)
    samples = [
        {
            "text": candidate.text,
            "tokens": candidate.tokens if exact else None,  # else it is the most that it can be
            "token_ids": candidate.token_ids,
            "logprobs": candidate.logprobs and [round(value, _DECIMALS) for value in candidate.logprobs],
            **({"confidences": [round(value, _DECIMALS) for value in values]} if told else {}),
            "ends": await _ends(candidate, token_ends),
            "finish": candidate.finish,
            "answer": candidate.answer,
            "key": candidate.key,
            "correct": right[candidate.answer],
        }
        for candidate, (values, _) in zip(drawn, near, strict=True)
    ]
    return {
        "id": example.problem.id,
        "question": example.problem.question,
        "answer": example.gold[0] if len(example.gold) == 1 else list(example.gold),
        "prompt_tokens": sum(call.charged.prompt for call in plain) // sum(call.reads for call in plain),
        **({"likeliest": told} if told else {}),
        "samples": samples,
    }


async def _ends(candidate: Candidate, token_ends: TokenEnds | None) -> list[int] | None:
    if token_ends is None or candidate.token_ids is None:
        return None
    try:
        return await token_ends.locate(candidate.token_ids, candidate.text)
    except EngineError:  # the sample is paid for, and most of what reads pools needs no ends
        return None
