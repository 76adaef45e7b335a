"""Recorded samples as examples to learn from."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.errors import UsageError
from outthink.maths.intervals import Numbers
from outthink.maths.selection import numbers
from outthink.models.engine import Tokenizing
from outthink.models.samples import numbers_of, text_of, token_logprobs
from outthink.records.ends import TokenEnds
from outthink.records.pools import PoolData, pool_of, read_rows
from outthink.rewards.advantage import relative_progress
from outthink.rewards.trained import HEADS, Piece, features, prefixes
from outthink.rng import digest

_FEW_SHARE = 0.05  # of samples that may lack what the others have


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Examples:
    """Beginnings of recorded samples, one a row.

    Args:
        problem, sample: number of the problem, and of the sample in its problem.
        depth: steps so far, from 1.
        last: the sample is finished.
        right: it ended right.
        values: features (n, d) by classifier, NaN where they are not known.
        confidence: exp(mean logprob) (n,) of the "step" and of "all" so far, NaN where not known.
    """

    problem: NDArray[np.intp]
    sample: NDArray[np.intp]
    depth: NDArray[np.intp]
    last: NDArray[np.bool_]
    right: NDArray[np.bool_]
    values: Mapping[str, Numbers]
    confidence: Mapping[str, Numbers]

    def known(self, head: str) -> NDArray[np.bool_]:
        """The rows that this classifier can score."""
        return np.asarray(~np.isnan(self.values[head]).any(-1))


Solution = tuple[tuple[Piece, ...], bool]
"""A recorded sample in pieces, and whether it is right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A pool as solutions in pieces. The same is known of all of them; a solution of which less is known is empty.

    Args:
        questions, samples: of each problem.
        meta: how it was recorded, as far as all lines say the same.
        clear: the logprobs of their steps are known.
        unclear: samples with logprobs of which it is not known where their tokens end.
        values: the value after every step of every sample, empty where they are not known; None: not asked for.
    """

    pool: PoolData
    questions: tuple[str, ...]
    samples: tuple[tuple[Solution, ...], ...]
    meta: Mapping[str, Any]
    clear: bool
    unclear: int
    values: tuple[tuple[Sequence[float | None], ...], ...] | None = None


def read_recording(path: Path, tokenizer: Tokenizing | None = None, values: str | None = None) -> Recording:
    """Read a pool; `tokenizer` tells where tokens end in pools that do not say so.

    Args:
        values: the scorer whose `step_scores` are values of steps.

    Raises UsageError that names the line of what cannot be read.
    """
    rows = read_rows(path)
    pool = pool_of(path, rows)
    if pool.kind == "sequence":
        raise UsageError(f"{path} holds attempts that build on each other; a probe learns from independent samples.")
    for (number, _), problem in zip(rows, pool.problems, strict=True):
        if problem.question is None:
            raise UsageError(f"Line {number} of {path} has no question.")

    async def read() -> list[tuple[Solution, ...]]:
        tokens = None if tokenizer is None else TokenEnds(tokenizer)
        read = []
        for number, row in rows:
            try:
                read.append(tuple([(await _pieces(one, tokens), bool(one["correct"])) for one in row["samples"]]))
            except (TypeError, ValueError, KeyError, AttributeError) as cause:
                raise UsageError(f"Line {number} of {path} cannot be read ({cause}).") from None
        return read

    samples = asyncio.run(read())
    with_text = [pieces for each in samples for pieces, _ in each if pieces]
    if not with_text:
        raise UsageError(f"{path} holds no texts.")
    # Often it is one kind of sample that lacks its logprobs, such as those that were cut off. A classifier would then
    # learn to tell that kind. So if more than a few samples lack them, none keeps them; else those few are left out.
    few = _FEW_SHARE * len(with_text)
    mute, unclear = (sum(lacks(pieces) for pieces in with_text) for lacks in (_mute, _unclear))

    def alike(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        if mute > few:
            return (("".join(text for text, _ in pieces), None),)
        if _mute(pieces):
            return ()
        if unclear > few:
            logprobs = [value for _, values in pieces for value in values or ()]
            return (("".join(text for text, _ in pieces), logprobs),)
        return () if _unclear(pieces) else pieces

    return Recording(
        pool=pool,
        questions=tuple(problem.question or "" for problem in pool.problems),
        samples=tuple(tuple((alike(pieces) if pieces else (), right) for pieces, right in each) for each in samples),
        meta=pool.meta,
        clear=mute <= few and unclear <= few,
        unclear=unclear,
        values=None if values is None else tuple(_values(row, values, f"Line {at} of {path}") for at, row in rows),
    )


def _values(row: Mapping[str, Any], scorer: str, where: str) -> tuple[Sequence[float | None], ...]:
    given = (row.get("step_scores") or {}).get(scorer)
    if not isinstance(given, list) or len(given) != len(row["samples"]):
        raise UsageError(f"{where} has no step_scores by {scorer!r}; `outthink score --prm` adds them.")
    return tuple(numbers_of(one or [], scorer) for one in given)


def _mute(pieces: tuple[Piece, ...]) -> bool:
    """Without logprobs."""
    return not any(values for _, values in pieces)


def _unclear(pieces: tuple[Piece, ...]) -> bool:
    """With logprobs of which it is not known to which part of the text they belong."""
    return any(values is not None and len(values) > 1 for _, values in pieces)


async def _pieces(sample: Mapping[str, Any], tokens: TokenEnds | None) -> tuple[Piece, ...]:
    """Its tokens where it is known where they end, else all of it as one piece."""
    text, logprobs = text_of(sample), token_logprobs(sample.get("logprobs"))
    if not text.strip():
        return ()
    if logprobs is None:
        return ((text, None),)
    ends, ids = sample.get("ends"), sample.get("token_ids")
    if ends is None and ids is not None and tokens is not None:
        ends = await tokens.locate(ids, text)
    if not ends or len(ends) != len(logprobs):
        return ((text, logprobs),)
    starts = [0, *ends[:-1]]
    if sorted(starts) != starts or ends[-1] != len(text):
        raise ValueError("the ends of tokens are not those of the text")
    written = ends.index(len(text)) + 1  # end marks may follow
    return tuple((text[a:b], [value]) for a, b, value in zip(starts, ends, logprobs[:written], strict=False))


def examples(
    recording: Recording, delimiter: str, *, skip: frozenset[str] = frozenset(), bound: float = 0.8
) -> Examples:
    """Every beginning of every sample, without the problems whose `question_mark` is to be skipped.

    Where the recording has values of steps, "right" is `relative_progress` by them: whether the last step has kept at
    least `bound` of the chance before it. Before the first step that is the share of the problem's samples that are
    right. A step whose value, or the one before, is missing is left out.

    Raises UsageError where a sample has another number of values than of steps.
    """
    rows: list[tuple[int, int, int, bool, bool]] = []
    values: dict[str, list[list[float]]] = {head: [] for head in HEADS}
    confidence: dict[str, list[float]] = {"step": [], "all": []}
    for problem, (question, samples) in enumerate(zip(recording.questions, recording.samples, strict=True)):
        if question_mark(question) in skip:
            continue
        rate = float(np.mean([right for _, right in samples]))
        for number, (pieces, right) in enumerate(samples):
            beginnings = prefixes(pieces, delimiter)
            kept: list[float] = [float(right)] * len(beginnings)
            if recording.values is not None:
                kept = _progress(recording.values[problem][number], rate, len(beginnings), bound)
            if not recording.clear:
                beginnings = [replace(steps, logprobs=None) for steps in beginnings]
            for depth, (steps, label) in enumerate(zip(beginnings, kept, strict=True), start=1):
                if math.isnan(label):
                    continue
                rows.append((problem, number, depth, depth == len(beginnings), bool(label)))
                known = features(question, steps)
                for head, names in HEADS.items():
                    values[head].append([known.get(name, math.nan) for name in names])
                for what, logprobs in (("step", steps.logprobs and steps.logprobs[-1]), ("all", steps.whole)):
                    confidence[what].append(math.nan if logprobs is None else float(np.exp(np.mean(logprobs))))
    columns = np.array(rows, dtype=np.intp).reshape(-1, 5).T
    return Examples(
        problem=columns[0],
        sample=columns[1],
        depth=columns[2],
        last=columns[3].astype(bool),
        right=columns[4].astype(bool),
        values={head: np.array(column).reshape(len(rows), len(HEADS[head])) for head, column in values.items()},
        confidence={what: np.array(column) for what, column in confidence.items()},
    )


def _progress(values: Sequence[float | None], rate: float, steps: int, bound: float) -> list[float]:
    """The label of each step, NaN where it is not known."""
    if not values:
        return [math.nan] * steps
    if len(values) != steps:
        raise UsageError(
            f"A sample has {steps} steps and {len(values)} values: was it scored with another --delimiter?"
        )
    after = numbers(values)
    before = np.array([rate, *after[:-1]])
    labels = np.where(np.isnan(after) | np.isnan(before), np.nan, relative_progress(after, before, bound))
    return [float(label) for label in labels]


def question_mark(question: str) -> str:
    """8 hexadecimal digits by which a question is known again; two different ones hardly ever share them."""
    return f"{digest(0, ' '.join(question.split())):016x}"[:8]
