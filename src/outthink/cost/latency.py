"""Seconds, memory and energy of requests: a fitted model of latency, a roofline where nothing was measured.

Source: "EdgeReasoning" (2025; the form of the fitted latency and its coefficients), "Challenges in Deploying
Long-Context Transformers" (2024; cache per token, concurrency, context switch), "The Cost of Dynamic Reasoning" (2025;
what an agent's time and energy consist of): all through public notes and tables, not the papers themselves. The
roofline is common practice. Differs: the context of a step grows while it is written; samples of one prompt decode as
one batch, whose step costs the same up to some size and more for each sample beyond; all of it is fitted at once.

A fit says something about the machine, engine and lengths it was measured with and nothing about others. A device's
nameplate power is not what it draws, and cooling and the rest of the computer come on top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.cost.kinetics import kv_bytes
from outthink.errors import Unidentified
from outthink.models.engine import Shape

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


# ---- where nothing was measured -------------------------------------------------------------------------------------


def roofline_prefill(shape: Shape, prompt: ArrayLike, *, flops_per_second: float) -> Floats:
    """Seconds (...) to read prompts: their operations at the rate that the device really reaches."""
    read = np.asarray(prompt, dtype=float)
    operations = 2.0 * (shape.active or shape.parameters) * read + 2.0 * shape.layers * shape.hidden * read**2
    return np.asarray(operations / flops_per_second)


def roofline_step(
    shape: Shape,
    samples: ArrayLike,
    context: ArrayLike,
    *,
    flops_per_second: float,
    bytes_per_second: float,
    weight_bytes: float,
    value_bytes: float = 2.0,
) -> Floats:
    """Seconds (...) of a step of so many samples with `context` tokens each: of reading or of computing, the longer.

    Args:
        weight_bytes: of all weights, which every step reads.
    """
    n = np.asarray(samples, dtype=float)
    read = weight_bytes + n * np.asarray(context, dtype=float) * kv_bytes(shape, value_bytes)
    computed = 2.0 * (shape.active or shape.parameters) * n
    return np.asarray(np.maximum(read / bytes_per_second, computed / flops_per_second))


def concurrency(
    shape: Shape,
    context: ArrayLike,
    *,
    memory: float,
    weight_bytes: float,
    reserve: float = 0.0,
    value_bytes: float = 2.0,
) -> NDArray[np.int64]:
    """How many samples (...) of `context` tokens, at least 1, fit into `memory` bytes beside the weights and `reserve`.

    0 where not even one does.
    """
    room = memory - weight_bytes - reserve
    each = np.asarray(context, dtype=float) * kv_bytes(shape, value_bytes)
    return np.asarray(np.maximum(0, np.floor(room / each)), dtype=np.int64)


def context_switch(cache_bytes: ArrayLike, *, bytes_per_second: float) -> Floats:
    """Seconds (...) to move a cache out of the device and back over a link of that speed."""
    return np.asarray(2.0 * np.asarray(cache_bytes, dtype=float) / bytes_per_second)


# ---- agents and energy ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentTurn:
    """One turn of an agent: new tokens in its context, tokens that it writes, and seconds that its tool takes."""

    new: int
    written: int
    tool: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Phases:
    """Seconds of an agent by what they are spent on."""

    prefill: float
    decode: float
    tools: float

    @property
    def seconds(self) -> float:
        """All of them; one after the other, so it is too much where independent tools run side by side."""
        return self.prefill + self.decode + self.tools

    @property
    def idle(self) -> float:
        """Share of the time in which the device waits for tools; 0 where nothing happened."""
        return self.tools / self.seconds if self.seconds else 0.0


def agent(latency: Latency, turns: Sequence[AgentTurn], *, cached: bool = True) -> Phases:
    """Seconds of turns after each other, whose context is all that was read and written before.

    Args:
        cached: a turn finds what the one before it had read and written in the cache.
    """
    prefill = decode = tools = 0.0
    context = 0
    for turn in turns:
        prompt = context + turn.new
        prefill += float(latency.prefill(prompt, context if cached else 0))
        decode += float(latency.decode(prompt, turn.written))
        tools += turn.tool
        context = prompt + turn.written
    return Phases(prefill=prefill, decode=decode, tools=tools)


def watt_hours(watts: ArrayLike, seconds: ArrayLike) -> Floats:
    """Energy (...) of phases (..., phases): power times time, summed; 3,600 joules are one Wh."""
    return np.asarray((np.asarray(watts, dtype=float) * np.asarray(seconds, dtype=float)).sum(-1) / 3600.0)


def fleet_watts(queries_per_second: ArrayLike, watt_hours_each: ArrayLike) -> Floats:
    """Mean power (...) of what answers so many queries a second."""
    return np.asarray(np.asarray(queries_per_second, dtype=float) * np.asarray(watt_hours_each, dtype=float) * 3600.0)
