"""Seconds of requests: a fitted model of latency.

Source: "EdgeReasoning" (2025; the form of the fitted latency and its coefficients), through public notes and tables,
not the paper itself. Differs: the context of a step grows while it is written; samples of one prompt decode as one
batch, whose step costs the same up to some size and more for each sample beyond; all of it is fitted at once.

A fit says something about the machine, engine and lengths it was measured with and nothing about others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified

Floats = NDArray[np.float64]

_SIZES = 32  # batch sizes at which the step's bend is looked for, before the best is refined


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Seconds of a request for n samples of one prompt; every coefficient is at least 0 and finite.

    Reading a prompt of I tokens, rounded up to a multiple of `multiple`, takes fixed + linear I + quadratic I^2.
    Each sample beyond the first, which finds most of the prompt in the cache, adds each + again I to that.
    A step of n samples with L tokens before it takes step + sample max(0, n - free) + context n L.

    Args:
        fixed, linear, quadratic: of reading the prompt once.
        multiple: the engine pads prompts to it, at least 1.
        each, again: of each further sample, and that per prompt token, where samples share not all of the prompt.
        step: of one sample, without what depends on its context.
        sample: of each sample beyond the first `free`, which is at least 1.
        context: per token that a sample has before it.
    """

    fixed: float = 0.0
    linear: float = 0.0
    quadratic: float = 0.0
    multiple: int = 1
    each: float = 0.0
    again: float = 0.0
    step: float = 0.0
    sample: float = 0.0
    free: float = 1.0
    context: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= value < math.inf for value in astuple(self)) or self.free < 1 or self.multiple < 1:
            raise ValueError("coefficients of a latency are at least 0 and finite; free and multiple are at least 1")

    def prefill(self, prompt: ArrayLike, cached: ArrayLike = 0) -> Floats:
        """Seconds (...) until a prompt is read of which the first `cached` tokens are in the cache; 0 if all are."""
        read, kept = np.broadcast_arrays(np.asarray(prompt, dtype=float), np.asarray(cached, dtype=float))
        padded = np.ceil(read / self.multiple) * self.multiple
        seconds = self.fixed + self.linear * (padded - kept) + self.quadratic * (padded**2 - kept**2)
        return np.where(read > kept, seconds, 0.0)

    def step_seconds(self, samples: ArrayLike, context: ArrayLike = 0) -> Floats:
        """Seconds (...) of one step of `samples` running samples with `context` tokens before each."""
        n = np.asarray(samples, dtype=float)
        return np.asarray(
            self.step + self.sample * np.maximum(0.0, n - self.free) + self.context * n * np.asarray(context)
        )

    def decode(self, prompt: ArrayLike, completion: ArrayLike, samples: ArrayLike = 1) -> Floats:
        """Seconds (...) to write `completion` tokens of each of `samples` samples side by side."""
        written = np.asarray(completion, dtype=float)
        return np.asarray(written * self.step_seconds(samples, np.asarray(prompt, dtype=float) + written / 2))

    def seconds(
        self, prompt: ArrayLike, completion: ArrayLike, samples: ArrayLike = 1, cached: ArrayLike = 0
    ) -> Floats:
        """Seconds (...) of a whole request; non-decreasing in prompt, completion and samples.

        Where samples differ in length, `completion` is that of the longest, which is a bound.
        """
        return np.asarray(
            self.prefill(prompt, cached) + self.further(prompt, samples) + self.decode(prompt, completion, samples)
        )

    def further(self, prompt: ArrayLike, samples: ArrayLike) -> Floats:
        """Seconds (...) that the samples beyond the first need to read of the prompt what they do not share."""
        beyond = np.maximum(0.0, np.asarray(samples, dtype=float) - 1)
        return np.asarray(beyond * (self.each + self.again * np.asarray(prompt, dtype=float)))

    def seconds_of(self, prompt: int, lengths: ArrayLike) -> float:
        """Seconds of samples of the given lengths, those that have ended not slowing the others down."""
        exactly, read = _decoding(prompt, lengths)
        steps = self.step * exactly.sum() + self.sample * _beyond(exactly, self.free) + self.context * read
        return float(self.prefill(prompt) + self.further(prompt, np.size(lengths)) + steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedRequest:
    """One request that was timed.

    Args:
        prompt, lengths: tokens of the prompt, and of each sample.
        seconds: until all had ended.
        reread: prompt tokens that samples beyond the first read anew, all of these together.
    """

    prompt: int
    lengths: tuple[int, ...]
    seconds: float
    reread: int = 0

    @property
    def samples(self) -> int:
        """How many there were."""
        return len(self.lengths)


def fit(rows: Sequence[TimedRequest], multiple: int = 1) -> Latency:
    """The latency with the least sum of squared relative errors over `rows`, no coefficient below 0.

    What reading again costs is fitted per token, and how many tokens that is, from those that were read again.

    Raises Unidentified where the rows cannot tell its parts from each other: they need at least three lengths of
    prompts, two of completions, two numbers of samples, and as many rows as there are coefficients (8).
    """
    from scipy.optimize import minimize_scalar, nnls  # here, because importing it is slow

    kinds = (
        (len(rows), 8, "measurements"),
        (len({row.prompt for row in rows}), 3, "lengths of prompts"),
        (len({max(row.lengths) for row in rows}), 2, "lengths of completions"),
        (len({row.samples for row in rows}), 2, "numbers of samples"),
    )
    for there, needed, what in kinds:
        if there < needed:
            raise Unidentified(f"A latency needs at least {needed} {what}; there are {there}.")
    if not all(0 < row.seconds < math.inf for row in rows):
        raise Unidentified("Every measurement must have taken some time.")
    weights = 1 / np.array([row.seconds for row in rows])

    padded = np.ceil(np.array([row.prompt for row in rows]) / multiple) * multiple
    running, read = zip(*(_decoding(row.prompt, row.lengths) for row in rows), strict=True)
    reread = [row.reread for row in rows]
    steps = [exactly.sum() for exactly in running]
    known = np.column_stack([np.ones(len(rows)), padded, padded**2, reread, steps, read])

    def solved(free: float) -> tuple[Floats, float]:
        beyond = [_beyond(exactly, free) for exactly in running]
        table = np.column_stack([known, beyond]) * weights[:, None]
        scale = np.linalg.norm(table, axis=0)  # columns of one size, for their units differ by many orders
        scale[scale == 0] = 1.0
        coefficients, error = nnls(table / scale, np.ones(len(rows)), maxiter=1000)
        return coefficients / scale, float(error)

    largest = max(row.samples for row in rows)
    sizes = np.geomspace(1.0, largest, _SIZES)[:-1]  # a bend at the largest size would never be seen
    best = int(np.argmin([round(solved(float(size))[1], 9) for size in sizes]))
    low, high = sizes[max(best - 1, 0)], sizes[min(best + 1, len(sizes) - 1)]
    refined = minimize_scalar(lambda size: solved(size)[1], bounds=(low, high), method="bounded")
    free = min((float(sizes[best]), float(refined.x)), key=lambda size: round(solved(size)[1], 9))
    coefficients, _ = solved(free)
    fixed, linear, quadratic, token, step, context, sample = (float(value) for value in coefficients)
    several = [row for row in rows if row.samples > 1]
    lines = np.array([(1.0, row.prompt) for row in several])
    (tail, unshared), _ = nnls(lines, np.array([row.reread / (row.samples - 1) for row in several]))
    return Latency(
        fixed=fixed,
        linear=linear,
        quadratic=quadratic,
        multiple=multiple,
        each=token * float(tail),
        again=token * float(unshared),
        step=step,
        sample=sample,
        free=free if sample else 1.0,
        context=context,
    )


def _decoding(prompt: int, lengths: ArrayLike) -> tuple[Floats, float]:
    """Steps in which exactly 1, 2, ... samples run, and the tokens that all steps have before them together."""
    ends = np.sort(np.asarray(lengths, dtype=float))[::-1]
    return ends - np.append(ends[1:], 0.0), float((prompt * ends + ends**2 / 2).sum())


def _beyond(exactly: Floats, free: float) -> float:
    """Samples beyond the first `free`, summed over steps."""
    return float(exactly @ np.maximum(0.0, np.arange(1, len(exactly) + 1) - free))
