"""Resampling with an imperfect verifier: what it reaches, how many attempts are worth it, and stored samples."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from outthink.laws.coverage import pass_at_k
from outthink.laws.imperfect import (
    acceptance,
    accepted_accuracy,
    accepted_now,
    accepted_share,
    best_attempts,
    calibrate,
    ceiling,
    drawn,
    next_gain,
    outcomes,
    resampled,
    utility,
)

RATES, SHARES = (0.87, 0.13), (0.58, 0.42)
CHECK: dict[str, Any] = {"completeness": 1.0, "soundness": 0.75, "shares": SHARES}


def test_how_right_an_accepted_sample_is() -> None:
    assert float(accepted_accuracy(0.3, 1, 0.9)) == pytest.approx(0.810811, abs=5e-7)
    assert float(accepted_accuracy(0.3, 1, 1)) == 1
    assert float(accepted_accuracy(0.3, 0, 0.9)) == 0  # nothing right passes
    assert float(accepted_accuracy(0.0, 1, 1)) == 0  # nothing passes
    right, wrong = acceptance(RATES, 1, 0.75)
    assert right[1] / wrong[1] == pytest.approx(0.5977, abs=5e-5)  # of the hard type, so worth it below C = 0.598


def test_the_ceiling_is_a_mean_over_problems_and_not_over_accepted_samples() -> None:
    assert float(ceiling(RATES, **CHECK)) == pytest.approx(0.716236, abs=5e-7)
    right, wrong = acceptance(RATES, 1, 0.75)
    pooled = (np.array(SHARES) * right).sum() / (np.array(SHARES) * (right + wrong)).sum()
    assert pooled == pytest.approx(0.835375, abs=5e-7)
    assert float(ceiling([0.5, 0.0])) == 0.5  # what is never accepted counts 0
    assert ceiling([[0.5, 0.0], [1.0, 1.0]]).tolist() == [0.5, 1.0]
    many = outcomes(RATES, 1, 0.75, 10_000)
    assert (np.array(SHARES) * many.right).sum() == pytest.approx(float(ceiling(RATES, **CHECK)))


@pytest.mark.parametrize(
    ("cost", "attempts", "value"), [(0.7, 3, 0.5246), (1, 2, 0.4724), (2, 1, 0.3388), (4, 1, 0.1184)]
)
def test_the_best_number_of_attempts(cost: float, attempts: int, value: float) -> None:
    assert best_attempts(50, RATES, **CHECK, cost=cost) == attempts
    assert float(utility(attempts, RATES, **CHECK, cost=cost)) == pytest.approx(value, abs=5e-5)


def test_a_cheap_error_is_worth_every_attempt_and_a_dear_one_none() -> None:
    for most in (1, 7, 50):
        assert best_attempts(most, RATES, **CHECK, cost=0.5) == most
    assert best_attempts(50, RATES, **CHECK, cost=100) == 0
    assert best_attempts(0, RATES, **CHECK) == 0
    assert float(utility(0, RATES, **CHECK)) == 0.0


def test_a_sound_check_is_coverage() -> None:
    k = np.arange(30)
    assert utility(k, [0.3], cost=9) == pytest.approx(1 - 0.7**k)
    assert best_attempts(30, [0.3], cost=9) == 30
    assert utility(k, [0.3], 0.5, 1) == pytest.approx(1 - 0.85**k)


def test_without_a_cost_more_is_never_worse_and_an_incomplete_check_is_never_right() -> None:
    values = utility(np.arange(40), RATES, **CHECK, cost=0)
    assert np.all(np.diff(values) >= 0)
    assert np.all(outcomes(RATES, 0, 0.75, 9).right == 0)
    assert best_attempts(20, RATES, 0, 0.75, cost=0.1) == 0


@pytest.mark.parametrize("soundness", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_alike_problems_are_worth_all_or_nothing(rate: float, soundness: float) -> None:
    q = float(accepted_accuracy(rate, 0.9, soundness))
    for cost in (0.1, 0.45, 1.1, 3, 9.5):
        best = best_attempts(9, [rate], 0.9, soundness, cost=cost)
        assert best == (0 if q < cost / (1 + cost) else 9)
    even = q / (1 - q)
    assert best_attempts(9, [rate], 0.9, soundness, cost=even) == 0  # of equals the smaller


def test_one_attempt_has_the_plain_expectation() -> None:
    r, p = np.array(RATES), np.array(SHARES)
    for c, s, cost, kappa in [(1, 0.75, 1, 0), (0.8, 0.4, 3, 0.1)]:
        one = utility(1, RATES, c, s, shares=SHARES, cost=cost, kappa=kappa)
        assert float(one) == pytest.approx((p * (c * r - cost * (1 - s) * (1 - r) - kappa)).sum())


def test_the_formula_is_what_happens() -> None:
    """4 standard errors of 40,000 problems; a false alarm in 1 of 16,000, with a fixed seed."""
    rng = np.random.default_rng(0)
    k, cost, kappa, n = 4, 1.5, 0.05, 40_000
    rate = np.where(rng.random(n) < SHARES[0], *RATES)[:, None]
    right = rng.random((n, k)) < rate
    passed = np.where(right, rng.random((n, k)) < 0.9, rng.random((n, k)) >= 0.7)
    any_pass, first = passed.any(-1), passed.argmax(-1)
    used = np.where(any_pass, first + 1, k)
    earned = np.where(any_pass, np.where(right[np.arange(n), first], 1.0, -cost), 0.0) - kappa * used
    expected = float(utility(k, RATES, 0.9, 0.7, shares=SHARES, cost=cost, kappa=kappa))
    assert earned.mean() == pytest.approx(expected, abs=4 * earned.std() / math.sqrt(n))
    right_rate, wrong_rate = acceptance(RATES, 0.9, 0.7)
    samples = (np.array(SHARES) * drawn(right_rate + wrong_rate, k)).sum()
    assert used.mean() == pytest.approx(float(samples), abs=4 * used.std() / math.sqrt(n))


def test_outcomes_add_up() -> None:
    k = np.arange(6)[:, None]
    right, wrong, none = outcomes(RATES, 0.9, 0.7, k)
    assert right + wrong + none == pytest.approx(np.ones((6, 2)))
    accept = np.array(acceptance(RATES, 0.9, 0.7)).sum(0)
    assert none == pytest.approx((1 - accept) ** k)
    assert drawn([0.0, 1.0, 0.5], 3).tolist() == [3.0, 1.0, 1.75]
    assert drawn([0.0, 1.0, 0.5], 0).tolist() == [0.0, 0.0, 0.0]
    assert float(drawn(1e-18, 7)) == pytest.approx(7)
    assert utility([1, 2, 3], [[0.2, 0.3], [0.4, 0.5]], 1, 0.75).shape == (2, 3)
    assert utility(3, [[0.2, 0.3], [0.4, 0.5]], 1, 0.75).shape == (2,)


@pytest.mark.parametrize("kappa", [0.0, 0.02, 0.3])
def test_the_online_rule_stops_at_the_best_number(kappa: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        rates, shares = rng.random(4), rng.random(4)
        c = float(rng.uniform(0.5, 1))
        check: dict[str, Any] = {"completeness": c, "soundness": float(rng.uniform(1 - c, 1)), "shares": shares}
        cost = float(rng.uniform(0, 4))
        gains = [float(next_gain(rejected, rates, **check, cost=cost)) for rejected in range(15)]
        assert np.all(np.diff(gains) <= 1e-12)
        online = next((k for k, gain in enumerate(gains) if gain <= kappa), 15)
        assert best_attempts(15, rates, **check, cost=cost, kappa=kappa) == online


def test_belief_after_rejections() -> None:
    right, wrong = acceptance(RATES, 1, 0.75)
    left = np.array(SHARES) * (1 - right - wrong) ** 2
    assert float(accepted_now(2, RATES, **CHECK)) == pytest.approx(
        (left * right).sum() / (left * (right + wrong)).sum()
    )
    assert float(accepted_now(10_000, RATES, **CHECK)) == pytest.approx(float(accepted_accuracy(0.13, 1, 0.75)))
    assert float(accepted_now(3, [1.0], 1, 1)) == 1.0  # impossible, so nothing is learnt
    assert float(accepted_now(0, [0.0], 1, 1)) == 0.0
    assert math.isfinite(float(next_gain(10**6, [0.2, 0.0], 1, 1, cost=1)))


# ---- stored samples -------------------------------------------------------------------------------------------------


def test_the_exact_curve_is_the_mean_over_all_orders() -> None:
    samples = ["right", "right", "wrong", "none", "none"]
    for k in range(6):
        found = [next((one for one in order[:k] if one != "none"), "none") for order in permutations(samples)]
        exact = resampled(2, 1, 5, k)
        for name, value in zip(("right", "wrong", "none"), exact, strict=True):
            assert found.count(name) / len(found) == pytest.approx(float(value))


def test_a_sound_check_of_stored_samples_is_pass_at_k() -> None:
    for k in (1, 3, 8):
        assert resampled([0, 2, 8], 0, 8, k).right == pytest.approx(pass_at_k(8, [0, 2, 8], k))
    table = resampled([[1, 0], [3, 2]], [[1, 4], [0, 2]], 4, 2)
    assert table.right.shape == (2, 2)
    assert table.right + table.wrong + table.none == pytest.approx(np.ones((2, 2)))


@pytest.mark.parametrize("counts", [(-1, 0, 4, 1), (3, 2, 4, 1), (1, 1, 4, 5), (1, 1, 4, -1)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="samples"):
        resampled(*counts)


def test_a_calibration_keeps_what_one_attempt_earns() -> None:
    rng = np.random.default_rng(2)
    right = rng.random((30, 8)) < rng.random((30, 1))
    passed = np.where(right, rng.random((30, 8)) < 0.9, rng.random((30, 8)) < rng.random((30, 1)))
    found = calibrate(right, passed)
    assert len(found.rates) <= 9
    assert sum(found.shares) == pytest.approx(1)
    for cost in (0.5, 3):
        one = utility(1, found.rates, found.completeness, found.soundness, shares=found.shares, cost=cost)
        stored = resampled((right & passed).sum(-1), (~right & passed).sum(-1), 8, 1)
        assert float(one) == pytest.approx((stored.right - cost * stored.wrong).mean())
    assert calibrate([[True, False]], [[True, True]]) == ((0.5,), (1.0,), 1.0, 0.0)
    assert calibrate([[True]], [[False]]) == ((1.0,), (1.0,), 0.0, 1.0)
    assert calibrate([[False]], [[True]])[2:] == (1.0, 0.0)
    nothing: Any
    for nothing in ([], [[]], [True]):
        with pytest.raises(ValueError, match="table"):
            calibrate(nothing, nothing)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rates": [1.2]}, "rates must be from 0 to 1"),
        ({"rates": [math.nan]}, "rates must be"),
        ({"rates": []}, "at least one type"),
        ({"completeness": -0.1}, "completeness must be"),
        ({"soundness": 2}, "soundness must be"),
        ({"shares": [0.0]}, "shares must be"),
        ({"shares": [-1.0]}, "shares must be"),
        ({"shares": [math.nan]}, "shares must be"),
    ],
)
def test_what_is_no_probability_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        utility(1, **({"rates": [0.5]} | wrong))


def test_the_share_of_right_samples_among_the_accepted() -> None:
    right = [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    passed = [[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    assert accepted_share(right, passed).tolist() == [0.5, 0.0, 0.0]
    assert accepted_share(right, right).tolist() == [1.0, 1.0, 0.0]  # a perfect verifier reaches coverage
