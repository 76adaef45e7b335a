"""Reads pools of recorded samples as arrays: what was answered, what it cost, how it was scored; right or wrong apart.

Read are the pools of `outthink pool`, and files with one JSON object a line: `id`, `samples` (each with `correct`, or
the line with the right `answer`, and where known `answer`, `key`, `tokens`, `logprobs`, `finish`, `text` or `steps`,
`reward`, `model`, `method`), and scores beside them: `scores` {scorer: [one per sample]}, `step_scores` {scorer: [[one
per step] per sample]} and `verifications` [[one per verdict] per sample], null where there is none. Samples with a
thought may have `probes`, the answers that were forced after every `probe_every` tokens of it (a field of the line);
there, "ERR" is an answer that could not be read. Samples may have `confidences` of their tokens, each from the
`likeliest` (a field of the line) likeliest tokens in its place.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from outthink import jsonl
from outthink.answers.reader import Reader
from outthink.errors import UsageError
from outthink.maths.selection import Confidences, Probes, codes
from outthink.models.samples import (
    numbers_of,
    pool_id,
    text_of,
    token_confidences,
    token_count,
    token_logprobs,
    was_cut,
)
from outthink.records.kinds import FOREIGN, what_is
from outthink.rng import generator
from outthink.types import AnswerKind

_log = logging.getLogger(__name__)

_UNREAD = "ERR"
_COPIED = 40  # letters from which on equal texts are no chance
_MANY = 0.05  # share of problems whose samples are copies, from which on that is told

FORCED_TOKENS = 20.0
"""What forcing an answer is taken to cost where a pool does not tell: a sentence, the mark of an answer, a number."""

Kind = Literal["iid", "models", "sequence", "until"]


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
        question: None where the pool does not have it.
        probes: answers that were forced on the way; None without any. Their numbers are those of `keys`.
        confidences: of the tokens of all samples; None where some have none.
        right: (answers,) whether each answer is right; for measuring only.
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
    question: str | None = None
    probes: Probes | None = None
    confidences: Confidences | None = None
    right: NDArray[np.bool_] | None = None

    def shuffled(self) -> NDArray[np.bool_]:
        """Whether each sample is right, in a random order of its own: that of a file may be by length."""
        return generator(*self.id.encode()).permutation(self.correct)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolData:
    """All problems of a pool.

    Args:
        kind: "iid": independent samples of one model; "models": one sample of each of several models; "sequence":
            later samples build on earlier ones; "until": those of each problem end with the last of so many that are
            right, so that how many there are depends on them.
        scorers: names of the scores that every problem has.
        meta: how it was recorded, as far as all its lines say the same.
        varied: names in their meta of which they say different things.
    """

    path: Path
    kind: Kind
    problems: tuple[PoolProblem, ...]
    scorers: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    varied: frozenset[str] = frozenset()

    @property
    def samples(self) -> int:
        """Samples that every problem has."""
        return min(len(problem.correct) for problem in self.problems)


def read_pool(path: Path, *, answer: AnswerKind = "text") -> PoolData:
    """The pool at `path` (.jsonl or .jsonl.gz).

    Args:
        answer: how answers without a key are compared.

    Raises UsageError that names the line of what cannot be read; an unfinished last line, as a recording leaves it
    that was cut off, is left out with a warning in the log.
    """
    return pool_of(path, read_rows(path), answer=answer)


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line, object) of every line of a pool, for what needs more of it than `pool_of` keeps."""

    def unfinished(number: int) -> None:
        _log.warning("Line %d of %s is unfinished and was left out.", number, path)

    try:
        rows = list(jsonl.read(path, unfinished))
    except UsageError:
        _refuse_foreign(path)
        raise
    if not rows:
        raise UsageError(f"{path} holds no samples.")
    if not {"id", "samples"} & rows[0][1].keys():
        _refuse_foreign(path)
    return rows


def _refuse_foreign(path: Path) -> None:
    """Raise UsageError where a whole file is something else, so that it is no matter of one line."""
    what = what_is(path) if os.path.exists(path) else ""
    if what in FOREIGN:
        raise UsageError(f"{path} {what}, and no pool of samples; `outthink pool` records one.") from None


def pool_of(path: Path, rows: Sequence[tuple[int, dict[str, Any]]], *, answer: AnswerKind = "text") -> PoolData:
    """The pool with these lines; as `read_pool`."""

    def where(number: int) -> str:
        return f"Line {number} of {path}"

    drawn = [_samples(row, where(number)) for number, row in rows]

    forced: list[list[list[str | None]]] = []
    golds: list[set[str | None]] = []

    async def keyed() -> list[list[str | None]]:
        reader = Reader()
        try:
            keys = []
            for place, ((number, row), samples) in enumerate(zip(rows, drawn, strict=True)):
                keys.append([await _key(sample, answer, reader, where(number)) for sample in samples])
                forced.append(await _forced(row, samples, answer, reader, where(number)))
                gold: set[str | None] = set()
                if "correct" not in samples[0] or forced[-1]:
                    given = row.get("answer")
                    golden = given if isinstance(given, list) and answer != "json" else [given]
                    gold = {await _key({"answer": one}, answer, reader, where(number)) for one in golden} - {None}
                golds.append(gold)
                if "correct" not in samples[0]:
                    drawn[place] = [
                        {**sample, "correct": key in gold} for sample, key in zip(samples, keys[-1], strict=True)
                    ]
            return keys
        finally:
            await reader.close()

    every = asyncio.run(keyed())
    seen: set[str] = set()
    problems, kinds = [], set()
    for (number, row), samples, keys, probes, gold in zip(rows, drawn, every, forced, golds, strict=True):
        name = pool_id(row.get("id"))
        if name is None or name in seen:
            raise UsageError(f"{where(number)} has no id of its own.")
        seen.add(name)
        kinds.add("sequence" if row.get("steps") is not None else _kind(samples))
        try:
            problems.append(_recorded(name, row, samples, keys, probes, gold))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as cause:
            what = "" if type(cause) is ValueError else f"{type(cause).__name__}: "
            raise UsageError(f"{where(number)} cannot be read ({what}{cause}).") from cause
    answered = any(problem.keys is not None and (problem.keys >= 0).any() for problem in problems)
    if not answered:
        problems = [replace(problem, keys=None) for problem in problems]
    shared = set.intersection(*(set(problem.scores) for problem in problems))
    kind: Kind = "sequence" if "sequence" in kinds else "models" if "models" in kinds else "iid"
    metas = [row["meta"] if isinstance(row.get("meta"), dict) else {} for _, row in rows]
    common = {
        name: value for name, value in metas[0].items() if all(name in meta and meta[name] == value for meta in metas)
    }
    if any(meta.get("until") is not None for meta in metas):
        kind = "until"
    return PoolData(
        path=path,
        kind=kind,
        problems=tuple(problems),
        scorers=tuple(sorted(shared)),
        meta=common,
        varied=frozenset(name for meta in metas for name in meta) - common.keys(),
    )


def need_fixed(pool: PoolData) -> None:
    """Raise UsageError where subsamples of a pool mean nothing."""
    if pool.kind == "sequence":
        raise UsageError(f"{pool.path} holds attempts that build on each other; subsamples of them mean nothing.")
    if pool.kind == "until":
        raise UsageError(
            f"{pool.path} was recorded until some samples were right, so subsamples of them mean nothing; "
            "`outthink law passuntil` reads it."
        )


def copies(pool: PoolData) -> str | None:
    """A sentence where many problems have several samples but one text, which then are copies of one; else None."""
    several = [problem.texts for problem in pool.problems if problem.texts is not None and len(problem.texts) > 1]
    one = sum(len(set(texts)) == 1 and len(texts[0]) >= _COPIED for texts in several)
    if one <= _MANY * len(pool.problems):
        return None
    return (
        f"in {one} of {len(pool.problems)} problems all samples have one and the same text: they are copies and not "
        "independent samples (were they drawn at temperature 0?), and more of them say nothing new."
    )


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
                probes=None
                if problem.probes is None
                else replace(problem.probes, answers=problem.probes.answers[kept]),
            )
        )
    return replace(pool, problems=tuple(problems))


def _samples(row: dict[str, Any], where: str) -> list[dict[str, Any]]:
    samples = row.get("samples")
    if not isinstance(samples, list) or not samples or not all(isinstance(one, dict) for one in samples):
        raise UsageError(f"{where} has no samples.")
    if row.get("probe_every") is not None:
        samples = [{**one, "answer": None} if one.get("answer") == _UNREAD else one for one in samples]
    if row.get("answer") is not None and not any("correct" in one for one in samples):
        return samples  # those with this answer are right
    if not all(isinstance(one.get("correct"), bool) for one in samples):
        raise UsageError(
            f"{where} does not say of every sample whether it is correct: give each one 'correct', true or false, or "
            "the line the right 'answer'."
        )
    return samples


async def _key(sample: dict[str, Any], kind: AnswerKind, reader: Reader, where: str) -> str | None:
    """The key of a sample's answer; an answer or a key that is a number counts as its text."""
    name = "key" if "key" in sample else "answer"
    value = sample.get(name)
    if isinstance(value, dict | list) and name == "answer" and kind == "json":
        value = json.dumps(value)
    wrong = isinstance(value, dict | list) or (isinstance(value, float) and not math.isfinite(value))
    if wrong:
        raise UsageError(f"{where} cannot be read: the {name} of a sample is neither a text nor a number.")
    if value is None or was_cut(sample.get("finish")):
        return None
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # tables write 42.0 for 42
    return str(value) if name == "key" else await reader.key(kind, str(value))


def _kind(samples: Sequence[dict[str, Any]]) -> Kind:
    if any("method" in sample for sample in samples):
        return "sequence"
    return "models" if len({sample.get("model") for sample in samples}) > 1 else "iid"


def _recorded(
    name: str,
    row: dict[str, Any],
    samples: list[dict[str, Any]],
    keys: list[str | None],
    forced: list[list[str | None]],
    gold: set[str | None],
) -> PoolProblem:
    n = len(samples)
    correct = np.array([sample["correct"] and not was_cut(sample.get("finish")) for sample in samples])
    answers = tuple(dict.fromkeys(key for key in (*keys, *(key for one in forced for key in one)) if key is not None))
    numbers = {key: number for number, key in enumerate(answers)}
    right = {*gold, *(key for key, good in zip(keys, correct, strict=True) if good)}
    logprobs = [token_logprobs(sample.get("logprobs")) for sample in samples]
    texts = [text_of(sample) for sample in samples]
    scores: dict[str, NDArray[np.float64]] = {}
    if any(sample.get("reward") is not None for sample in samples):
        scores["reward"] = _matrix([[sample.get("reward")] for sample in samples], n, "reward")
    for scorer, values in _by_scorer(row, "scores", n):
        scores[scorer] = _matrix([[value] for value in values], n, scorer)
    for scorer, values in _by_scorer(row, "step_scores", n):
        steps = [numbers_of(one or [], scorer) for one in values]
        scores[scorer] = _matrix([[one[-1] if one else None] for one in steps], n, scorer)
    verdicts = row.get("verifications")
    if verdicts:
        if not isinstance(verdicts, list) or len(verdicts) > n:
            many = f"{len(verdicts)}" if isinstance(verdicts, list) else "no list"
            raise ValueError(f"verifications has {many} for {n} samples; write null where one has none")
        # published recordings have verdicts on the first samples only, and those alone take part
        listed = [*verdicts, *[None] * (n - len(verdicts))]
        scores["verifications"] = _matrix([one or [] for one in listed], n, "verifications")
    tokens = [token_count(sample.get("tokens"), "tokens") for sample in samples]
    question = row.get("question")
    return PoolProblem(
        id=name,
        question=question if isinstance(question, str) else None,
        keys=codes(keys),
        answers=answers,
        correct=correct,
        tokens=None if None in tokens else np.array(tokens, dtype=np.int64),
        prompt=token_count(row.get("prompt_tokens"), "prompt_tokens"),
        logprobs=None
        if not any(logprobs)
        else np.array([np.mean(values) if values else np.nan for values in logprobs]),
        texts=tuple(texts) if any(texts) else None,
        complete=np.array([not was_cut(sample.get("finish")) for sample in samples]),
        scores=scores,
        probes=None if not forced else _probes(row, samples, forced, numbers),
        confidences=_confidences(row, samples),
        right=np.array([key in right for key in answers], dtype=bool),
    )


async def _forced(
    row: dict[str, Any], samples: list[dict[str, Any]], kind: AnswerKind, reader: Reader, where: str
) -> list[list[str | None]]:
    """Keys of the answers that were forced within each thought; empty where the line has none."""
    if row.get("probe_every") is None:
        return []
    forced = []
    for sample in samples:
        known = "probe_keys" if "probe_keys" in sample else "probes"
        given = sample.get(known)
        if not isinstance(given, list):
            raise UsageError(f"{where} has probe_every, but a sample of it has no list of probes.")
        name = "key" if known == "probe_keys" else "answer"
        values = [None if value == _UNREAD else value for value in given]
        forced.append([await _key({name: value}, kind, reader, where) for value in values])
    return forced


def _confidences(row: dict[str, Any], samples: list[dict[str, Any]]) -> Confidences | None:
    values = [token_confidences(sample.get("confidences")) for sample in samples]
    if None in values:
        return None
    return Confidences(
        values=[np.array(each, dtype=float) for each in values], k=token_count(row.get("likeliest"), "likeliest") or 0
    )


def _probes(
    row: dict[str, Any], samples: list[dict[str, Any]], forced: list[list[str | None]], numbers: Mapping[str, int]
) -> Probes:
    every = token_count(row["probe_every"], "probe_every")
    if not every:
        raise ValueError("probe_every is no number of tokens above 0")
    answers = np.full((len(forced), max(1, *map(len, forced))), -1, dtype=np.intp)
    for place, keys in enumerate(forced):
        answers[place, : len(keys)] = [-1 if key is None else numbers[key] for key in keys]
    told = []
    for sample in samples:
        given = sample.get("probe_tokens")
        if given is not None and not isinstance(given, list):
            raise ValueError("probe_tokens is no list")
        told += [token_count(tokens, "probe_tokens") for tokens in given or ()]
    known = [tokens for tokens in told if tokens is not None]
    return Probes(answers=answers, every=every, tokens=float(np.mean(known)) if known else FORCED_TOKENS)


def _by_scorer(row: dict[str, Any], name: str, n: int) -> Sequence[tuple[str, list[Any]]]:
    """Scores by the name of who gave them, one for each of the n samples."""
    given = row.get(name)
    if given is None:
        return []
    if not isinstance(given, dict):
        raise ValueError(f"{name} is no object with a list for each scorer")
    for scorer, values in given.items():
        if not isinstance(values, list) or len(values) != n:
            many = f"{len(values)}" if isinstance(values, list) else "no list"
            raise ValueError(f"{name} of {scorer!r} has {many} for {n} samples; write null where one has none")
    return list(given.items())


def _matrix(values: Sequence[Sequence[Any]], n: int, name: str) -> NDArray[np.float64]:
    """(n, m) numbers; NaN where one is missing."""
    scores = np.full((n, max((len(row) for row in values), default=0)), np.nan)
    for index, row in enumerate(values):
        scores[index, : len(row)] = [np.nan if value is None else value for value in numbers_of(row, name)]
    return scores
