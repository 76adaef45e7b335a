"""Reads pools of recorded samples as arrays: what was answered, what it cost, how it was scored; right or wrong apart.

Read are the pools of `outthink pool`, and files with one JSON object a line: `id`, `samples` (each with `correct`, and
where known `answer`, `key`, `tokens`, `logprobs`, `finish`, `text` or `steps`, `reward`, `model`, `method`), and
scores beside them: `scores` {scorer: [one per sample]}, `step_scores` {scorer: [[one per step] per sample]} and
`verifications` [[one per verdict] per sample], null where there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from outthink import jsonl
from outthink.answers.reader import Reader
from outthink.errors import UsageError
from outthink.maths.selection import codes
from outthink.types import AnswerKind

Kind = Literal["iid", "models", "sequence"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PoolProblem:
    """The samples of one problem; arrays of one entry per sample.

    Args:
        keys: equal numbers are equal answers; -1 is INVALID. None where the pool has no answers.
        answers: the canonical key that each number stands for.
        correct: whether each is right; for measuring only.
        tokens: completion tokens of each, and `prompt` those of the prompt; None where not recorded.
        logprobs: mean logprob of each; NaN where missing, None where the pool has none.
        texts: whole texts; None where not recorded.
        complete: False where a sample was cut off.
        scores: by scorer, (n, m): m verdicts of each sample, NaN where missing.
    """

    id: str
    keys: NDArray[np.intp] | None
    answers: tuple[str, ...]
    correct: NDArray[np.bool_]
    tokens: NDArray[np.int64] | None
    prompt: int | None
    logprobs: NDArray[np.float64] | None
    texts: tuple[str, ...] | None
    complete: NDArray[np.bool_]
    scores: Mapping[str, NDArray[np.float64]]

    def shuffled(self) -> NDArray[np.bool_]:
        """Whether each sample is right, in a random order of its own: that of a file may be by length."""
        return np.random.default_rng([*self.id.encode()]).permutation(self.correct)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolData:
    """All problems of a pool.

    Args:
        kind: "iid": independent samples of one model; "models": one sample of each of several models; "sequence":
            later samples build on earlier ones.
        scorers: names of the scores that every problem has.
    """

    path: Path
    kind: Kind
    problems: tuple[PoolProblem, ...]
    scorers: tuple[str, ...]

    @property
    def samples(self) -> int:
        """Samples that every problem has."""
        return min(len(problem.correct) for problem in self.problems)


def read_pool(path: Path, *, answer: AnswerKind = "text") -> PoolData:
    """The pool at `path` (.jsonl or .jsonl.gz).

    Args:
        answer: how answers without a key are compared.

    Raises UsageError that names the line of what cannot be read.
    """
    rows: list[tuple[int, dict[str, Any]]] = list(jsonl.read(path))
    if not rows:
        raise UsageError(f"{path} holds no samples.")

    def where(number: int) -> str:
        return f"Line {number} of {path}"

    drawn = [_samples(row, where(number)) for number, row in rows]

    async def keyed() -> list[list[str | None]]:
        reader = Reader()
        try:
            return [[await _key(sample, answer, reader) for sample in samples] for samples in drawn]
        finally:
            await reader.close()

    keys = asyncio.run(keyed())
    seen: set[str] = set()
    problems, kinds = [], set()
    for (number, row), samples, of in zip(rows, drawn, keys, strict=True):
        name = row.get("id")
        if not isinstance(name, str) or name in seen:
            raise UsageError(f"{where(number)} has no id of its own.")
        seen.add(name)
        kinds.add("sequence" if "steps" in row else _kind(samples))
        try:
            problems.append(_recorded(name, row, samples, of))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as cause:
            raise UsageError(f"{where(number)} cannot be read ({type(cause).__name__}: {cause}).") from cause
    answered = any(problem.keys is not None and (problem.keys >= 0).any() for problem in problems)
    if not answered:
        problems = [replace(problem, keys=None) for problem in problems]
    shared = set.intersection(*(set(problem.scores) for problem in problems))
    kind: Kind = "sequence" if "sequence" in kinds else "models" if "models" in kinds else "iid"
    return PoolData(path=path, kind=kind, problems=tuple(problems), scorers=tuple(sorted(shared)))


def scored(pool: PoolData, scorer: str) -> PoolData:
    """Only the samples that `scorer` has scored, for pools where only some were given to it.

    Raises UsageError where a problem has none.
    """
    problems = []
    for problem in pool.problems:
        kept = ~np.isnan(problem.scores[scorer]).all(-1)
        if not kept.any():
            raise UsageError(f"{scorer} has scored no sample of {problem.id!r} in {pool.path}.")
        problems.append(
            replace(
                problem,
                keys=None if problem.keys is None else problem.keys[kept],
                correct=problem.correct[kept],
                tokens=None if problem.tokens is None else problem.tokens[kept],
                logprobs=None if problem.logprobs is None else problem.logprobs[kept],
                texts=None if problem.texts is None else tuple(np.array(problem.texts, dtype=object)[kept]),
                complete=problem.complete[kept],
                scores={name: values[kept] for name, values in problem.scores.items()},
            )
        )
    return replace(pool, problems=tuple(problems))


def _samples(row: Any, where: str) -> list[dict[str, Any]]:
    samples = row.get("samples") if isinstance(row, dict) else None
    if not isinstance(samples, list) or not samples or not all(isinstance(one, dict) for one in samples):
        raise UsageError(f"{where} has no samples.")
    if not all(isinstance(one.get("correct"), bool) for one in samples):
        raise UsageError(f"{where} does not say of every sample whether it is correct.")
    return samples


async def _key(sample: dict[str, Any], kind: AnswerKind, reader: Reader) -> str | None:
    if sample.get("finish") == "length":
        return None
    if "key" in sample:
        key = sample["key"]
        return key if isinstance(key, str) else None
    answer = sample.get("answer")
    return await reader.key(kind, answer) if isinstance(answer, str) else None


def _kind(samples: Sequence[dict[str, Any]]) -> Kind:
    if any("method" in sample for sample in samples):
        return "sequence"
    return "models" if len({sample.get("model") for sample in samples}) > 1 else "iid"


def _recorded(name: str, row: dict[str, Any], samples: list[dict[str, Any]], keys: list[str | None]) -> PoolProblem:
    n = len(samples)
    logprobs = [sample.get("logprobs") for sample in samples]
    texts = [sample["text"] if "text" in sample else "\n\n".join(sample.get("steps") or ()) for sample in samples]
    scores: dict[str, NDArray[np.float64]] = {}
    if any("reward" in sample for sample in samples):
        scores["reward"] = _matrix([[sample.get("reward")] for sample in samples], n)
    for scorer, values in (row.get("scores") or {}).items():
        scores[scorer] = _matrix([[value] for value in values], n)
    for scorer, steps in (row.get("step_scores") or {}).items():
        scores[scorer] = _matrix([[of[-1] if of else None] for of in steps], n)
    if row.get("verifications"):
        scores["verifications"] = _matrix(row["verifications"], n)
    tokens = [sample.get("tokens") for sample in samples]
    return PoolProblem(
        id=name,
        keys=codes(keys),
        answers=tuple(dict.fromkeys(key for key in keys if key is not None)),
        correct=np.array([sample["correct"] and sample.get("finish") != "length" for sample in samples]),
        tokens=None if None in tokens else np.array(tokens, dtype=np.int64),
        prompt=int(row["prompt_tokens"]) if "prompt_tokens" in row else None,
        logprobs=None
        if all(of is None for of in logprobs)
        else np.array([np.mean(of) if of else np.nan for of in logprobs]),
        texts=tuple(texts) if any(texts) else None,
        complete=np.array([sample.get("finish") != "length" for sample in samples]),
        scores=scores,
    )


def _matrix(values: Sequence[Sequence[float | None]], n: int) -> NDArray[np.float64]:
    """(n, m) numbers; NaN where one is missing, also for samples that were not scored at all."""
    widest = max((len(row) for row in values), default=0)
    found = np.full((n, widest), np.nan)
    for index, row in enumerate(values):
        found[index, : len(row)] = [np.nan if value is None else float(value) for value in row]
    return found
