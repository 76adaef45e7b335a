"""Allocation and resampling: worked numbers of the papers, exact sums, and a batch that equals its rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.maths.resampling import (
    effective_sample_size,
    largest_remainder,
    multinomial,
    sequential_ceil,
    softmax,
    systematic,
)

SCORES = [0.9, 0.7, 0.5, 0.5]
ODDS = [0.675, 0.175, 0.075, 0.075]

untimed = settings(deadline=None)  # a busy machine is no failure
score_rows = st.lists(st.floats(0, 1), min_size=1, max_size=12)
weight_rows = st.lists(st.floats(0, 1e6), min_size=1, max_size=12).filter(any)


def released(scores: list[float], width: int, temperature: float) -> list[int]:
    """The loop of the released REBASE, with subtraction; only the maximum is taken out of the exponent."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    powers = [math.exp((score - max(scores)) / temperature) for score in scores]
    counts, mass = [0] * len(scores), sum(powers)
    for i in order:
        if width <= 0:
            break
        counts[i] = min(width, math.ceil(width * powers[i] / mass))
        width, mass = width - counts[i], mass - powers[i]
    return counts


@pytest.mark.parametrize(
    ("scores", "temperature", "width", "counts"),
    [
        (SCORES, 0.2, 8, [5, 2, 1, 0]),
        (SCORES, 0.2, 6, [4, 2, 0, 0]),
        (SCORES, 0.1, 8, [7, 1, 0, 0]),
        ([0.5] * 5, 0.2, 8, [2, 2, 2, 1, 1]),
        ([0.3] * 7, 0.2, 7, [1] * 7),
        ([0.1, 0.9, 0.4], 1e12, 3, [1, 1, 1]),
        ([0.1, 0.9, 0.4], math.inf, 3, [1, 1, 1]),
        ([0.1, 0.9, 0.4, 0.9], 1e-6, 8, [0, 4, 0, 4]),
        ([0.1, 0.9, 0.4], 1e-320, 8, [0, 8, 0]),
        ([0.4, -math.inf, 0.4], 0.2, 3, [2, 0, 1]),
        (SCORES, 0.2, 0, [0, 0, 0, 0]),
    ],
)
def test_sequential_ceil(scores: list[float], temperature: float, width: int, counts: list[int]) -> None:
    assert sequential_ceil(scores, width, temperature).tolist() == counts


def test_rounding_shares_instead_does_not_keep_the_width() -> None:
    shares = 8 * softmax(SCORES, 0.2)
    np.testing.assert_allclose(shares, [4.882, 1.796, 0.661, 0.661], atol=5e-4)
    assert np.round(shares).tolist() == [5, 2, 1, 1]
    assert np.round(8 * softmax([0.5] * 5)).sum() == 10


@untimed
@given(score_rows, st.integers(0, 40), st.sampled_from([0.01, 0.1, 0.2, 1.0, 100.0]))
def test_sequential_ceil_sums_to_the_width_and_favours_the_better(
    scores: list[float], width: int, temperature: float
) -> None:
    counts = sequential_ceil(scores, width, temperature)
    assert counts.sum() == width
    assert counts.min() >= 0
    ranked = counts[np.argsort(-np.array(scores), kind="stable")]
    assert np.all(np.diff(ranked) <= 0)


def test_sequential_ceil_is_the_released_loop() -> None:
    rng = np.random.default_rng(0)
    for temperature in (0.05, 0.2, 1.0):
        scores = rng.random((300, 7))
        counts = sequential_ceil(scores, 16, temperature)
        assert counts.tolist() == [released(row.tolist(), 16, temperature) for row in scores]


def test_every_width_of_a_batch_is_its_own() -> None:
    assert sequential_ceil([SCORES, SCORES], [8, 6], 0.2).tolist() == [[5, 2, 1, 0], [4, 2, 0, 0]]
    assert largest_remainder([ODDS, ODDS], [4, 0]).tolist() == [[3, 1, 0, 0], [0, 0, 0, 0]]


def test_softmax_and_effective_sample_size_of_odds_and_of_raw_rewards() -> None:
    rewards = np.array([0.9, 0.5, 0.1, 0.5])
    logits = np.log(rewards / (1 - rewards))
    np.testing.assert_allclose(logits, [2.1972, 0, -2.1972, 0], atol=5e-5)
    np.testing.assert_allclose(softmax(logits), [0.81, 0.09, 0.01, 0.09], atol=1e-12)
    np.testing.assert_allclose(effective_sample_size(softmax(logits)), 1.487, atol=5e-4)
    np.testing.assert_allclose(softmax(rewards), [0.358, 0.240, 0.161, 0.240], atol=5e-4)
    np.testing.assert_allclose(effective_sample_size(softmax(rewards)), 3.706, atol=5e-4)


@untimed
@given(score_rows, st.floats(-1e3, 1e3))
def test_softmax_ignores_a_common_shift(scores: list[float], shift: float) -> None:
    np.testing.assert_allclose(softmax(np.array(scores) + shift), softmax(scores), atol=1e-12)


@untimed
@given(weight_rows, st.floats(1e-200, 1e200))
def test_effective_sample_size_has_no_scale(weights: list[float], scale: float) -> None:
    size = effective_sample_size(np.array(weights) / max(weights) * scale)
    assert 1 - 1e-9 <= size <= len(weights) + 1e-9
    np.testing.assert_allclose(size, effective_sample_size(np.array(weights) / max(weights)))


@pytest.mark.parametrize(
    ("weights", "n", "u", "counts"),
    [
        ([0.81, 0.09, 0.01, 0.09], 4, 0.0, [4, 0, 0, 0]),
        ([0.81, 0.09, 0.01, 0.09], 4, 0.5, [3, 1, 0, 0]),
        ([0.81, 0.09, 0.01, 0.09], 4, 0.99, [3, 0, 0, 1]),
        (ODDS, 8, 0.0, [6, 1, 1, 0]),
        (ODDS, 8, 0.25, [6, 1, 1, 0]),
        (ODDS, 8, 0.5, [5, 2, 0, 1]),
        (ODDS, 8, 0.75, [5, 2, 0, 1]),
        (ODDS, 8, 0.99, [5, 1, 1, 1]),
        ([1, 1, 1, 1], 8, 0.7, [2, 2, 2, 2]),
        ([0, 3, 0], 5, 0.9999999999, [0, 5, 0]),
        ([1, 2], 0, 0.3, [0, 0]),
    ],
)
def test_systematic(weights: list[float], n: int, u: float, counts: list[int]) -> None:
    assert systematic(weights, n, u).tolist() == counts


@pytest.mark.parametrize("n", [1, 3, 7, 10, 64, 1000])
def test_systematic_leaves_equal_weights_alone(n: int) -> None:
    us = np.array([0.0, 1e-6, 0.3, 0.999, 1 - 1e-6])
    assert np.all(systematic(np.full((5, n), 0.1), n, us) == 1)


@untimed
@given(weight_rows, st.integers(1, 40), st.floats(0, 1, exclude_max=True))
def test_systematic_rounds_down_or_up(weights: list[float], n: int, u: float) -> None:
    counts = systematic(weights, n, u)
    exact = n * np.array(weights) / math.fsum(weights)
    assert counts.sum() == n
    assert np.all(counts >= np.floor(exact - 1e-6))
    assert np.all(counts <= np.ceil(exact + 1e-6))
    assert np.all(counts[np.array(weights) == 0] == 0)


@untimed
@given(weight_rows, st.lists(st.floats(0, 1, exclude_max=True), max_size=20))
def test_multinomial_counts_where_the_uniforms_fall(weights: list[float], us: list[float]) -> None:
    counts = multinomial(weights, len(us), us)
    cumulative = np.cumsum(weights)
    cumulative = cumulative / cumulative[-1]
    fell = np.searchsorted(cumulative, us, side="right")
    assert counts.tolist() == np.bincount(fell, minlength=len(weights)).tolist()


@pytest.mark.parametrize("scheme", ["systematic", "multinomial"])
def test_both_schemes_are_unbiased(scheme: str) -> None:
    """Bounds of five standard errors on four means (a false alarm: 2.3e-6); a multinomial count has the larger one."""
    rng, rows = np.random.default_rng(1), 20_000
    weights = np.broadcast_to(ODDS, (rows, 4))
    counts = (
        systematic(weights, 8, rng.random(rows))
        if scheme == "systematic"
        else multinomial(weights, 8, rng.random((rows, 8)))
    )
    share = np.array(ODDS)
    error = np.sqrt(8 * share * (1 - share) / rows)
    assert np.all(np.abs(counts.mean(0) - 8 * share) < 5 * error)


@pytest.mark.parametrize(
    ("shares", "width", "counts"),
    [
        ([4.882, 1.796, 0.661, 0.661], 8, [5, 2, 1, 0]),
        ([1, 1, 1], 8, [3, 3, 2]),
        ([0.1, 0.2, 0.7], 10, [1, 2, 7]),
        ([0, 1, 0], 3, [0, 3, 0]),
    ],
)
def test_largest_remainder(shares: list[float], width: int, counts: list[int]) -> None:
    assert largest_remainder(shares, width).tolist() == counts


@untimed
@given(weight_rows, st.integers(0, 60))
def test_largest_remainder_rounds_down_or_up(shares: list[float], width: int) -> None:
    counts = largest_remainder(shares, width)
    exact = width * np.array(shares) / math.fsum(shares)
    assert counts.sum() == width
    assert np.all(np.abs(counts - exact) < 1 + 1e-6)


def test_a_batch_is_its_rows() -> None:
    rng = np.random.default_rng(2)
    scores, weights = rng.random((2, 50, 9)), rng.random((2, 50, 9))
    one, many = rng.random((2, 50)), rng.random((2, 50, 6))
    for batch, row in (
        (softmax(scores, 0.3), lambda i: softmax(scores[i], 0.3)),
        (sequential_ceil(scores, 11, 0.3), lambda i: sequential_ceil(scores[i], 11, 0.3)),
        (largest_remainder(weights, 11), lambda i: largest_remainder(weights[i], 11)),
        (systematic(weights, 6, one), lambda i: systematic(weights[i], 6, one[i])),
        (multinomial(weights, 6, many), lambda i: multinomial(weights[i], 6, many[i])),
        (effective_sample_size(weights), lambda i: effective_sample_size(weights[i])),
    ):
        rows = np.reshape([row(i) for i in np.ndindex(2, 50)], batch.shape)
        if batch.dtype == np.int64:
            assert np.array_equal(batch, rows)
        else:
            np.testing.assert_allclose(batch, rows, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: softmax([0.1], 0.0), "temperature must be above 0"),
        (lambda: softmax([0.1], math.nan), "temperature must be above 0"),
        (lambda: softmax([0.1, math.nan]), "scores must be finite"),
        (lambda: softmax([-math.inf]), "scores must be finite"),
        (lambda: sequential_ceil([], 3), "scores must be finite"),
        (lambda: sequential_ceil([0.1], -1), "width must be a whole number"),
        (lambda: sequential_ceil([0.1], 1.5), "width must be a whole number"),
        (lambda: largest_remainder([0.0, 0.0], 1), "weights must be finite"),
        (lambda: systematic([-0.1, 1.0], 1, 0.5), "weights must be finite"),
        (lambda: systematic([1.0], 1, 1.0), "uniforms must be at least 0"),
        (lambda: systematic([1.0], 1, [0.5]), "uniforms must have the shape"),
        (lambda: multinomial([1.0], 2, [0.5]), "uniforms must have the shape"),
        (lambda: effective_sample_size([math.inf]), "weights must be finite"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], Any], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            call()
