"""What quantisation, batching, experts, streamed weights and slow links do to the price of a sample.

Source: MARLIN and KIVI (2024; their read-mes and code read), abstracts of Flover, TPI-LLM, DeepSpeed Inference and of a
survey on mixtures of experts; the formulas follow from how each works and are our arithmetic, not quoted. Differs: all
of it is bounds and first estimates to think with, and none of it replaces a measurement (`outthink calibrate`): engines
have most of these ideas built in, and what they are worth depends on everything else.

Tokens and dollars do not change with any of this; seconds, memory and energy do. Another number format is another
policy: its samples and logprobs are not those of the original.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def weight_speedup(bits: ArrayLike, samples: ArrayLike, intensity: ArrayLike) -> Floats:
    """How many times faster than with 16-bit weights a step of a dense model is: max(2, 2 B / I) / max(b, 2 B / I).

    Args:
        bits: of a weight as stored; it is computed with as before (b = bits / 8).
        samples: running side by side (B), above 0.
        intensity: operations per byte of the device (I), above 0.
    """
    compute = 2.0 * np.asarray(samples, dtype=float) / np.asarray(intensity, dtype=float)
    return np.asarray(np.maximum(2.0, compute) / np.maximum(np.asarray(bits, dtype=float) / 8.0, compute))


def grouped_bits(bits: ArrayLike, group: ArrayLike) -> Floats:
    """Bits per number of groups of `group` that store a 16-bit scale and a 16-bit minimum each, as KIVI's cache."""
    return np.asarray(np.asarray(bits, dtype=float) + 32.0 / np.asarray(group, dtype=float))


def block_float_bits(mantissa: ArrayLike, exponent: ArrayLike, block: ArrayLike) -> Floats:
    """Bits per number of blocks of `block` numbers that share an exponent."""
    return np.asarray(np.asarray(mantissa, dtype=float) + np.asarray(exponent, float) / np.asarray(block, float))


def grouped_cache_bytes(tokens: ArrayLike, kv_bytes: float, *, bits: float, group: int, recent: int) -> Floats:
    """Bytes (...) of a cache whose latest `recent` tokens stay in 16 bits and whose others are stored in groups.

    Args:
        kv_bytes: of a token in 16 bits (see `kinetics.kv_bytes`).
        group, recent: numbers in a group; tokens in 16 bits, a multiple of it.
    """
    if group < 1 or recent < 0 or recent % group:
        raise ValueError(f"recent must be a multiple of the group, not {recent} of {group}")
    there = np.asarray(tokens, dtype=float)
    whole = np.minimum(there, recent)
    return np.asarray((there - whole) * kv_bytes * grouped_bits(bits, group) / 16.0 + whole * kv_bytes)


def batching_waste(lengths: ArrayLike) -> Floats:
    """How many times the slots a batch (..., n) takes that is held until its longest sample ends: n max(L) / sum(L).

    Continuous batching gives the slot of a sample that has ended to another one; only there does stopping early save
    anything.
    """
    steps = np.asarray(lengths, dtype=float)
    return np.asarray(steps.shape[-1] * steps.max(-1) / steps.sum(-1))


def static_steps(lengths: Sequence[int], slots: int) -> int:
    """Steps of batches of `slots` samples, in order, each held until its longest ends."""
    return sum(max(lengths[first : first + slots]) for first in range(0, len(lengths), slots))


def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    """Steps where each sample, in order, takes the slot that is free first."""
    ends = [0] * slots
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def distinct_experts(experts: ArrayLike, used: ArrayLike, tokens: ArrayLike) -> Floats:
    """Experts of a layer (...) that a step of so many tokens loads, each using `used` of them: E (1 - (1 - k / E)^B).

    Under uniform routing, which is optimistic for speed: real routers prefer some. Over the tokens it is how many
    loads a sample pays for; parallel samples are not free until nearly all are loaded.
    """
    all_of = np.asarray(experts, dtype=float)
    missed = (1.0 - np.asarray(used, dtype=float) / all_of) ** np.asarray(tokens, dtype=float)
    return np.asarray(all_of * (1.0 - missed))


def streamed_step(weight_bytes: ArrayLike, bytes_per_second: ArrayLike) -> Floats:
    """Seconds of a step whose weights come over a link, however many samples it has, until computing binds."""
    return np.asarray(np.asarray(weight_bytes, dtype=float) / np.asarray(bytes_per_second, dtype=float))


def link_floor(
    layers: ArrayLike, latency: ArrayLike, devices: ArrayLike, topology: Literal["star", "ring"] = "star"
) -> Floats:
    """Seconds of a token that only wait for links, with the model split over devices: 2 layers x hops x latency.

    Two all-reduces a layer; each takes 2 hops over a star, and 2 (n - 1) one after the other around a ring.
    """
    hops = 2.0 * (np.asarray(devices, dtype=float) - 1) if topology == "ring" else 2.0 * np.ones(np.shape(devices))
    return np.asarray(2.0 * np.asarray(layers, dtype=float) * hops * np.asarray(latency, dtype=float))
