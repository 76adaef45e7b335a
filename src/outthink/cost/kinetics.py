"""eFLOPs: what a sample costs when reading keys and values from memory is charged beside the operations.

Source: Sadhukhan et al. 2025, "Kinetics: Rethinking Test-Time Scaling Laws"; the authors' released cost model read, not
the paper itself. Differs: keys and values read under top-k attention are the integral itself, which also holds for
short generations. (The released function adds half the square of what the budget has left; it must be subtracted.)
Parameters that are read for one request alone can be charged. Samples of different lengths, and calls that really
happened, are charged for what they were.

Formulas count a generation of g tokens after a prompt of c as an integral, c g + g^2 / 2 pairs. One eFLOP is one
operation, or 1 / I bytes moved, where I is what a device computes for each byte that it reads. Reading the prompt
(prefill) is part of `recorded`, `of_call` and `of_trace` and, as in the paper, not of `dense` and `top_k`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.models.engine import Shape
from outthink.types import Address, Call, Trace

Floats = NDArray[np.float64]

INTENSITIES = (562.5, 295.0)
"""Operations per byte of devices, from memory and not measured: the value of the released cost model (4.5 PFLOP/s over
8 TB/s, as a B200), and an H100 (989 TFLOP/s over 3.35 TB/s). Conclusions should hold at both."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Load:
    """Operations and bytes moved, arrays (...) of the same shape."""

    flops: Floats
    bytes: Floats

    def eflops(self, intensity: ArrayLike = INTENSITIES[0]) -> Floats:
        """flops + I x bytes; `intensity` is at least 0, and 0 charges operations only."""
        return np.asarray(self.flops + np.asarray(intensity, dtype=float) * self.bytes)

    def __add__(self, other: Load) -> Load:
        return Load(flops=self.flops + other.flops, bytes=self.bytes + other.bytes)


def kv_bytes(shape: Shape, value_bytes: float = 2.0) -> float:
    """Bytes of keys and values of one token; `value_bytes` of each number, 2 for 16 bits.

    Raises ValueError where the shape does not say how many there are.
    """
    if not (shape.layers and shape.kv_heads and shape.head):
        raise ValueError("memory traffic needs the layers, kv_heads and head of the shape")
    return 2.0 * value_bytes * shape.layers * shape.kv_heads * shape.head


def dense(
    shape: Shape,
    prompt: ArrayLike,
    completion: ArrayLike,
    samples: ArrayLike = 1,
    *,
    shared: bool = True,
    value_bytes: float = 2.0,
    weight_bytes: float = 0.0,
) -> Load:
    """N samples of g tokens after a prompt of c, with full attention; all (...), broadcast.

    Args:
        prompt, completion, samples: c, g and N, at least 0.
        shared: a step reads the prompt's keys and values once for all N, which takes attention kernels made for
            common prefixes; else once for each.
        value_bytes: of a number in the cache; 1 for 8 bits.
        weight_bytes: read in each step for these samples alone: parameters x bytes where nobody else is in the batch
            of N. 0, as in the paper, where a large batch of others shares the reading.
    """
    c, g, n = _arrays(prompt, completion, samples)
    pairs = c * g + g**2 / 2
    read = (c * g + n * g**2 / 2) if shared else n * pairs
    return _load(shape, n * g, n * pairs, read, g, value_bytes, weight_bytes)


def kept_tokens(prompt: ArrayLike, completion: ArrayLike, kept: ArrayLike) -> Floats:
    """Keys read over a generation whose steps read at most `kept` of the c + t there are: the integral of the minimum.

    For g >= kept - c > 0 it is kept g - (kept - c)^2 / 2; where kept >= c + g it is that of full attention.
    """
    c, g, most = _arrays(prompt, completion, kept)
    growing = np.clip(most - c, 0.0, g)
    return np.asarray(c * growing + growing**2 / 2 + most * (g - growing))


def top_k(
    shape: Shape,
    prompt: ArrayLike,
    completion: ArrayLike,
    samples: ArrayLike = 1,
    *,
    kept: ArrayLike,
    value_bytes: float = 2.0,
    weight_bytes: float = 0.0,
) -> Load:
    """As `dense`, where a step attends to at most `kept` tokens (local and selected ones together).

    Samples select for themselves, so no reading is shared. What it takes to find the tokens is not counted.
    """
    c, g, n, most = _arrays(prompt, completion, samples, kept)
    read = n * kept_tokens(c, g, most)
    return _load(shape, n * g, read, read, g, value_bytes, weight_bytes)


def recorded(
    shape: Shape,
    prompt: ArrayLike,
    lengths: ArrayLike,
    *,
    shared: bool = True,
    value_bytes: float = 2.0,
    weight_bytes: float = 0.0,
) -> Load:
    """Samples of the lengths (..., n) that they had, after prompts of (...) tokens that are read once.

    As `dense` with equal lengths, and the operations of reading the prompt; its memory traffic is small and left out.
    A shared prompt is read in every step until the longest sample ends.
    """
    c = np.asarray(prompt, dtype=float)
    g = np.asarray(lengths, dtype=float)
    _check(c, g)
    longest = g.max(-1, initial=0.0)
    own = (g**2).sum(-1) / 2
    written = g.sum(-1)
    read = c * (longest if shared else written) + own
    return _load(shape, written + c, c * written + own + c**2 / 2, read, longest, value_bytes, weight_bytes)


def of_call(
    shape: Shape,
    call: Call,
    lengths: Sequence[float] | None = None,
    *,
    shared: bool = True,
    value_bytes: float = 2.0,
    weight_bytes: float = 0.0,
) -> Load:
    """A call that was made, by its charged prompt, cached and completion tokens.

    Args:
        lengths: completion tokens of each of its children. None: all as long as their mean, which charges attention
            too little where lengths differ.

    The first reading of the prompt is taken to be as fresh as it can be, and the others to find the rest in the cache.
    """
    usage = call.charged
    fresh = usage.prompt - usage.cached
    each = usage.prompt / max(call.reads, 1)
    first = min(fresh, each)
    others = (fresh - first) / max(call.reads - 1, 1)
    pairs = _tail(each, first) + max(call.reads - 1, 0) * _tail(each, others)
    children = np.full(call.n, usage.completion / max(call.n, 1)) if lengths is None else np.asarray(lengths, float)
    decode = recorded(
        shape, each, children, shared=shared, value_bytes=value_bytes, weight_bytes=weight_bytes
    )  # whose prompt is read once, where this one was read as the call says
    flops = 2.0 * _passed(shape) * (fresh - each) + 4.0 * shape.hidden * shape.layers * (pairs - each**2 / 2)
    return Load(flops=decode.flops + flops, bytes=decode.bytes)


def of_trace(trace: Trace, shapes: Mapping[str, Shape], *, shared: bool = True, value_bytes: float = 2.0) -> Load:
    """All calls of a trace, judges included, so that runs can be compared at equal eFLOPs.

    Args:
        shapes: of the model of each role, such as {"model": ..., "judge": ...}.

    Raises ValueError where a role that used tokens has no shape: the sum of the others would look complete.
    """
    written = {candidate.address: candidate.tokens for candidate in trace.candidates}
    total = Load(flops=np.zeros(()), bytes=np.zeros(()))
    for call in trace.calls:
        if not call.charged.tokens:
            continue
        if call.role not in shapes:
            raise ValueError(f"the trace has calls of the role {call.role!r}, whose shape is not given")
        total = total + of_call(
            shapes[call.role], call, _lengths(call, written), shared=shared, value_bytes=value_bytes
        )
    return total


def _lengths(call: Call, written: Mapping[Address, int]) -> Sequence[float] | None:
    """What each child is charged: as was recorded, and of those that left no candidate an equal part of the rest."""
    *request, first = call.address
    if not isinstance(first, int):
        return None
    known = [written.get((*request, first + child)) for child in range(call.n)]
    missing = known.count(None)
    rest = call.charged.completion - sum(length or 0 for length in known)
    if rest < 0 or (rest and not missing):
        return None  # what was charged is not what these candidates say
    return [rest / missing if length is None else length for length in known]


def _tail(prompt: float, fresh: float) -> float:
    """Pairs of the last `fresh` tokens of a prompt with what precedes them."""
    return (prompt**2 - (prompt - fresh) ** 2) / 2


def _passed(shape: Shape) -> int:
    return shape.active or shape.parameters


def _load(
    shape: Shape, tokens: Floats, pairs: Floats, read: Floats, steps: Floats, value_bytes: float, weight_bytes: float
) -> Load:
    """From tokens passed through the model, pairs in attention, tokens read from the cache, and steps."""
    each = kv_bytes(shape, value_bytes)
    return Load(
        flops=np.asarray(2.0 * _passed(shape) * tokens + 4.0 * shape.hidden * shape.layers * pairs),
        bytes=np.asarray(each * read + weight_bytes * steps),
    )


def _arrays(*values: ArrayLike) -> list[Floats]:
    arrays = [np.asarray(value, dtype=float) for value in values]
    _check(*arrays)
    return [np.asarray(value) for value in np.broadcast_arrays(*arrays)]


def _check(*values: Floats) -> None:
    if not all((value >= 0).all() for value in values):
        raise ValueError("lengths and numbers of samples must be at least 0")
