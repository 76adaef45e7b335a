"""Rules that turn scores or weights into whole numbers of children, as pure functions over arrays.

Every function takes a leading batch shape: `(..., n)` holds the n candidates of each of many problems, and all
problems are answered at once. Nothing here draws random numbers: uniforms in [0, 1) are passed in. A candidate that
is absent (padding of a ragged batch) has score -inf or weight 0 and never gets a child.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# Quotients that are whole numbers on paper miss them by a few units in the last place; rounding must not notice.
_SLACK = 1e-9


def softmax(x: ArrayLike, temperature: float = 1.0) -> Floats:
    """exp(x / temperature), normalised over the last axis.

    Args:
        x: (..., n) scores, finite or -inf (share 0); at least one finite per row.
        temperature: above 0; towards 0 the largest takes everything, inf gives equal shares.

    Returns:
        (..., n) shares that sum to 1.

    Raises:
        ValueError: on NaN, +inf, a row without a finite score, or a temperature that is not positive.
    """
    powers = _powers(_scores(x), temperature)
    shares: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def sequential_ceil(scores: ArrayLike, width: ArrayLike, temperature: float = 1.0) -> Counts:
    """Children in proportion to softmax(scores / temperature), rounded up from the best score down.

    The released allocation of REBASE (Wu et al., arXiv 2408.00724): with the candidates sorted by score, best first
    and the earlier first among equals, each takes ceil(what is left of the width x its share of what is left of the
    mass). The sum is exactly the width; the tail gets nothing. (The paper's formula, round(width x share), does not
    sum to the width.)

    Args:
        scores: (..., n), finite or -inf.
        width: (...) whole numbers of at least 0; broadcast against the batch shape.
        temperature: above 0, on the scale of the scores.

    Returns:
        (..., n) counts that sum to `width`.

    Raises:
        ValueError: as `softmax`, and on a negative or fractional width.
    """
    scores = _scores(scores)
    left = np.broadcast_to(_whole(width, "width"), scores.shape[:-1]).copy()
    order = np.argsort(-scores, axis=-1, kind="stable")
    powers = np.take_along_axis(_powers(scores, temperature), order, axis=-1)
    # Sums of the tail rather than repeated subtraction: the last power is exactly its own tail, so it takes the rest.
    tails = np.cumsum(powers[..., ::-1], axis=-1)[..., ::-1]
    shares = np.divide(powers, tails, out=np.zeros_like(powers), where=tails > 0)
    counts = np.zeros(scores.shape, dtype=np.int64)
    for rank in range(scores.shape[-1]):
        wanted = np.ceil(left * shares[..., rank] * (1 - _SLACK)).astype(np.int64)
        counts[..., rank] = wanted
        left -= wanted
    return _unsort(counts, order)


def largest_remainder(shares: ArrayLike, width: ArrayLike) -> Counts:
    """`width` children in proportion to `shares`: rounded down, the rest to the largest fractions (Hamilton's rule).

    Args:
        shares: (..., n), at least 0, with a positive sum per row; they are normalised.
        width: (...) whole numbers of at least 0; broadcast against the batch shape.

    Returns:
        (..., n) counts that sum to `width`; equal fractions are served earliest first.

    Raises:
        ValueError: on shares or widths outside these ranges.
    """
    cumulative, shares = _cumulative(shares)
    width = np.broadcast_to(_whole(width, "width"), shares.shape[:-1])[..., None]
    exact = shares / cumulative[..., -1:] * width
    counts = np.floor(exact + _SLACK).astype(np.int64)
    order = np.argsort(-np.round(exact - counts, 9), axis=-1, kind="stable")
    extra = np.arange(shares.shape[-1]) < width - counts.sum(axis=-1, keepdims=True)
    return counts + _unsort(extra.astype(np.int64), order)


def systematic(weights: ArrayLike, n: int, u: ArrayLike) -> Counts:
    """Offspring counts of systematic resampling: one uniform places n evenly spaced points on the weights.

    Equal weights of n candidates give one child each, whatever `u` is. (Kitagawa 1996; Douc and Cappe 2005, from
    memory.)

    Args:
        weights: (..., k), at least 0, with a positive sum per row; they are normalised.
        n: children of each row, at least 0.
        u: (...) uniforms in [0, 1), one per row.

    Returns:
        (..., k) counts that sum to n; each is n x weight rounded down or up.

    Raises:
        ValueError: on weights or uniforms outside these ranges, or of another shape.
    """
    cumulative, weights = _cumulative(weights)
    points = _uniforms(u, weights.shape[:-1])[..., None]
    _whole(n, "n")
    cumulative /= cumulative[..., -1:]
    below = np.ceil(n * cumulative - points - _SLACK)
    below[np.broadcast_to(cumulative >= 1, below.shape)] = n
    return np.diff(np.maximum(below, 0), axis=-1, prepend=0).astype(np.int64)


def multinomial(weights: ArrayLike, n: int, u: ArrayLike) -> Counts:
    """Offspring counts of n independent draws in proportion to the weights.

    Args:
        weights: (..., k), at least 0, with a positive sum per row; they are normalised.
        n: children of each row, at least 0.
        u: (..., n) uniforms in [0, 1), one per draw.

    Returns:
        (..., k) counts that sum to n.

    Raises:
        ValueError: on weights or uniforms outside these ranges, or of another shape.
    """
    cumulative, weights = _cumulative(weights)
    draws = _uniforms(u, (*weights.shape[:-1], int(_whole(n, "n"))))
    cumulative /= cumulative[..., -1:]
    below = np.zeros(weights.shape, dtype=np.int64)
    for draw in range(draws.shape[-1]):
        below += draws[..., draw, None] < cumulative
    return np.diff(below, axis=-1, prepend=0)


def effective_sample_size(weights: ArrayLike) -> Floats:
    """(sum of weights)^2 / sum of squared weights: how many equal weights would vary as little (Kong 1992).

    Args:
        weights: (..., n), at least 0, with a positive sum per row; any scale.

    Returns:
        (...) numbers in [1, n].

    Raises:
        ValueError: on weights outside this range.
    """
    _, checked = _cumulative(weights)
    scaled = checked / checked.max(axis=-1, keepdims=True)  # so that the squares of tiny weights do not vanish
    size: Floats = scaled.sum(axis=-1) ** 2 / (scaled**2).sum(axis=-1)
    return size


def _scores(x: ArrayLike) -> Floats:
    scores = np.asarray(x, dtype=np.float64)
    if scores.ndim == 0 or not np.all(scores < np.inf) or not np.all(np.isfinite(scores).any(axis=-1)):
        raise ValueError("scores must be finite (or -inf where absent), with at least one finite score per row")
    return scores


def _powers(scores: Floats, temperature: float) -> Floats:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    gaps = scores - scores.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore", invalid="ignore"):
        powers: Floats = np.exp(gaps / temperature)
    powers[np.isneginf(gaps)] = 0.0  # -inf / inf is not a number, yet absent stays absent
    return powers


def _cumulative(weights: ArrayLike) -> tuple[Floats, Floats]:
    """Running sums of the weights over the last axis, and the weights."""
    checked = np.asarray(weights, dtype=np.float64)
    if checked.ndim == 0 or not np.all((checked >= 0) & (checked < np.inf)) or not np.all(checked.any(axis=-1)):
        raise ValueError("weights must be finite and at least 0, with a positive sum per row")
    return np.cumsum(checked, axis=-1), checked


def _uniforms(u: ArrayLike, shape: tuple[int, ...]) -> Floats:
    uniforms = np.asarray(u, dtype=np.float64)
    if uniforms.shape != shape:
        raise ValueError(f"uniforms must have the shape {shape}, not {uniforms.shape}")
    if not np.all((uniforms >= 0) & (uniforms < 1)):
        raise ValueError("uniforms must be at least 0 and below 1")
    return uniforms


def _whole(number: ArrayLike, name: str) -> Counts:
    numbers = np.asarray(number)
    if not np.all((numbers >= 0) & (numbers == np.floor(numbers))):
        raise ValueError(f"{name} must be a whole number of at least 0, not {numbers}")
    return numbers.astype(np.int64)


def _unsort(values: Counts, order: NDArray[np.intp]) -> Counts:
    """`values` in sorted order, put back where `order` took them from."""
    restored = np.empty_like(values)
    np.put_along_axis(restored, order, values, axis=-1)
    return restored
