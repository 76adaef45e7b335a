"""Resampling with an imperfect verifier: what it reaches, how many attempts are worth it, and stored samples."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from outthink.errors import Unidentified
from outthink.laws.coverage import pass_at_k
from outthink.laws.imperfect import (
    acceptance,
    accepted_accuracy,
    accepted_now,
    accepted_share,
    best_attempts,
    calibrate,
    ceiling,
    curve_of_types,
    drawn,
    drift_of_types,
    outcomes,
    resampled,
    resampling,
    utility,
)
from outthink.maths.intervals import bootstrap, farther

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


def test_the_types_are_weighed_by_their_priors() -> None:
    """Weighing by what is believed after k - 1 rejections, and by the chance of those once more, is too hopeful."""
    prior, (right, wrong) = np.array(SHARES), acceptance(RATES, 1, 0.75)
    reject, gain = 1 - right - wrong, right - 0.7 * wrong
    exact, hopeful = 0.0, 0.0
    for attempt in range(3):
        here = prior * reject**attempt
        believed = here / here.sum()
        exact += (here * gain).sum()
        hopeful += (believed * gain).sum() * (believed * reject**attempt).sum()
    assert float(utility(3, RATES, **CHECK, cost=0.7)) == pytest.approx(exact)
    assert (exact, hopeful) == pytest.approx((0.5246, 0.5541), abs=5e-5)


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


def test_belief_after_rejections() -> None:
    right, wrong = acceptance(RATES, 1, 0.75)
    left = np.array(SHARES) * (1 - right - wrong) ** 2
    assert float(accepted_now(2, RATES, **CHECK)) == pytest.approx(
        (left * right).sum() / (left * (right + wrong)).sum()
    )
    assert float(accepted_now(10_000, RATES, **CHECK)) == pytest.approx(float(accepted_accuracy(0.13, 1, 0.75)))
    assert float(accepted_now(3, [1.0], 1, 1)) == 1.0  # impossible, so nothing is learnt
    assert float(accepted_now(0, [0.0], 1, 1)) == 0.0


def checked(kind: str, seed: int, problems: int, n: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """Samples (problems, n), whether they pass, and rates, completeness and soundness of each problem."""
    rng = np.random.default_rng([seed, problems])
    rates = rng.beta(0.25, 1, problems) if kind == "small rates" else rng.choice([0.1, 0.4, 0.8], problems)
    complete, sound = np.full(problems, 0.9), np.full(problems, 0.98 if kind == "small rates" else 0.8)
    if kind == "a few are checked badly":
        sound = np.where(rng.random(problems) < 0.3, 0.2, 0.99)
    right = rng.random((problems, n)) < rates[:, None]
    passed = np.where(right, rng.random((problems, n)) < complete[:, None], rng.random((problems, n)) >= sound[:, None])
    return right, passed, (rates, complete, sound)


@pytest.mark.parametrize("kind", ["the law", "small rates", "a few are checked badly"])
def test_far_beyond_its_samples_the_interval_holds_the_truth(kind: str) -> None:
    """At ten times the samples, under the law and where it is violated in two ways.

    Of 6 intervals of 95%, fewer than 4 hold it once in 450 times. Without what half of the samples miss, 1 in 20 do
    where a few problems are checked badly.
    """
    k, n = 160, 16
    rates, complete, sound = checked(kind, 99, 100_000, 1)[2]
    true = np.array([part.mean() for part in outcomes(rates, complete, sound, k)[:2]])
    held = np.zeros(2)
    for seed in range(6):
        right, passed, _ = checked(kind, seed, 60, n)
        told = bootstrap(
            lambda drawn, a=right, b=passed: curve_of_types(a[drawn], b[drawn], [k])[:, 0],  # type: ignore[misc]
            60,
            resamples=50,
            bounds=(0.0, 1.0),
        )
        interval = farther(told, drift_of_types(list(right), list(passed)), k / n)
        held += (interval.low <= true) & (true <= interval.high)
    assert (held >= 4).all()


# ---- stored samples -------------------------------------------------------------------------------------------------


def test_the_exact_curve_is_the_mean_over_all_orders() -> None:
    samples = ["right", "right", "wrong", "none", "none"]
    for k in range(6):
        outcomes = [next((one for one in order[:k] if one != "none"), "none") for order in permutations(samples)]
        exact = resampled(2, 1, 5, k)
        for name, value in zip(("right", "wrong", "none"), exact, strict=True):
            assert outcomes.count(name) / len(outcomes) == pytest.approx(float(value))


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
    calibration = calibrate(right, passed)
    assert len(calibration.rates) <= 9
    assert sum(calibration.shares) == pytest.approx(1)
    for cost in (0.5, 3):
        one = utility(
            1, calibration.rates, calibration.completeness, calibration.soundness, shares=calibration.shares, cost=cost
        )
        stored = resampled((right & passed).sum(-1), (~right & passed).sum(-1), 8, 1)
        assert float(one) == pytest.approx((stored.right - cost * stored.wrong).mean())
    assert calibrate([[True, False]], [[True, True]]) == ((0.5,), (1.0,), 1.0, 0.0)
    assert calibrate([[True]], [[False]]) == ((1.0,), (1.0,), 0.0, 1.0)
    assert calibrate([[False]], [[True]])[2:] == (1.0, 0.0)
    nothing: Any
    for nothing in ([], [[]], [True]):
        with pytest.raises(ValueError, match="needs samples"):
            calibrate(nothing, nothing)


def test_problems_may_have_different_numbers_of_samples() -> None:
    right = [[True, False, False, False], [True, True], [False]]
    passed = [[True, True, False, False], [False, True], [True]]
    calibration = calibrate(right, passed)
    assert calibration.rates == (0.0, 0.25, 1.0)
    assert calibration.shares == pytest.approx((1 / 3,) * 3)
    assert calibration[2:] == pytest.approx((0.75 / 1.25, 0.5 / 1.75))
    one = utility(
        1, calibration.rates, calibration.completeness, calibration.soundness, shares=calibration.shares, cost=2
    )
    assert float(one) == pytest.approx(np.mean([0.25 - 2 * 0.25, 0.5, -2]))


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


# ---- the law of stored samples --------------------------------------------------------------------------------------


def test_the_curve_is_the_mean_over_all_orders() -> None:
    """Two problems of five and four samples, every order of each, with a cost of errors and of samples."""
    kinds = (["right", "right", "wrong", "none", "none"], ["wrong", "none", "none", "right"])
    right = [[kind == "right" for kind in samples] for samples in kinds] * 2
    passed = [[kind != "none" for kind in samples] for samples in kinds] * 2
    stored = resampling(right, passed, cost=1.5, kappa=0.1)
    assert stored.most == 4
    for k in range(5):
        worth = []
        for samples in kinds:
            earned = 0.0
            for order in permutations(samples):
                used = next((place for place, kind in enumerate(order[:k], 1) if kind != "none"), k)
                last = order[used - 1] if used else "none"
                earned += {"right": 1.0, "wrong": -1.5, "none": 0.0}[last] - 0.1 * used
            worth.append(earned / math.factorial(len(samples)))
        assert float(stored.at(k)) == pytest.approx(np.mean(worth))
    assert stored.ceiling == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert stored.gap == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert stored.single == pytest.approx((2 / 5 + 1 / 4) / 2)
    assert stored.at([0, 2]).tolist() == stored.utility[[0, 2]].tolist()
    assert stored.at_interval([0, 2]).low.shape == (2,)
    for attempts in (5, -1, 1.0):
        with pytest.raises(ValueError, match="from 0 to 4"):
            stored.at(attempts)


def two_types(problems: int, n: int, seed: int) -> tuple[list[Any], list[Any]]:
    rng = np.random.default_rng(seed)
    right = rng.random((problems, n)) < np.where(rng.random((problems, 1)) < SHARES[0], *RATES)
    return list(right), list(right | (rng.random((problems, n)) < 0.25))


@pytest.mark.parametrize(
    ("cost", "attempts", "value"), [(0.5, 20, None), (0.7, 3, 0.5246), (1, 2, 0.4724), (2, 1, 0.3388), (4, 1, 0.1184)]
)
def test_stored_samples_of_two_types_follow_the_law(cost: float, attempts: int, value: float | None) -> None:
    """29 easy and 21 hard problems with exactly the expected samples; 400 of each are nearly without end."""
    place = np.arange(400)
    right = [place < 348] * 29 + [place < 52] * 21
    passed = [place < 348 + 13] * 29 + [place < 52 + 87] * 21
    stored = resampling(right, passed, cost=cost, most=20)
    assert stored.utility == pytest.approx(utility(np.arange(21), RATES, **CHECK, cost=cost), abs=0.003)
    assert stored.best == attempts
    assert value is None or float(stored.at(attempts)) == pytest.approx(value, abs=0.001)
    assert stored.best_interval.low <= attempts <= stored.best_interval.high
    assert stored.ceiling == pytest.approx(0.716236, abs=5e-7)
    assert stored.gap == pytest.approx(1 - 0.716236, abs=5e-7)
    assert stored.single == pytest.approx(0.58 * 0.87 + 0.42 * 0.13)
    assert stored.concentration == pytest.approx(5 * 87 / (29 * 13 + 21 * 87))


def test_the_interval_of_the_ceiling_holds_the_truth() -> None:
    """Of 20 intervals of 95%, fewer than 15 hold it once in 500 cases (binomial with 0.93)."""
    held = 0
    for seed in range(20):
        stored = resampling(*two_types(50, 40, seed), most=4, seed=seed)
        held += bool(stored.ceiling_interval.low <= 0.716236 <= stored.ceiling_interval.high)
    assert held >= 15


def test_a_sound_check_of_stored_samples_needs_no_limit() -> None:
    right, _ = two_types(30, 12, 0)
    stored = resampling(right, right, cost=9)
    expected = [np.mean(pass_at_k(12, [truth.sum() for truth in right], k)) for k in range(1, 13)]
    assert stored.utility == pytest.approx([0, *expected])
    assert (stored.gap, math.isnan(stored.concentration)) == (0, True)
    assert stored.best == next(k for k, value in enumerate(stored.utility) if value > stored.utility[-1] - 1e-12)
    free = resampling(*two_types(30, 12, 0), cost=0)
    assert (np.diff(free.utility) >= -1e-12).all()


def test_a_dear_error_is_not_risked_and_one_bad_check_is_seen() -> None:
    stored = resampling(*two_types(60, 20, 1), cost=50)
    assert (stored.best, float(stored.at(stored.best)), float(stored.best_interval.high)) == (0, 0, 0)
    right = [[True, False]] * 10
    passed = [[True, False]] * 9 + [[True, True]]
    assert resampling(right, passed).concentration == 1


def test_what_was_chosen_on_the_same_problems_looks_better_than_it_is() -> None:
    """Eight problems, each of which is one kind only: what seems best is worth less on the others (fixed seed)."""
    seen, held_out = [], []
    for seed in range(12):
        stored = resampling(*two_types(8, 20, seed), cost=0.6)
        seen.append(float(stored.at(stored.best)))
        held_out.append(stored.held_out)
    assert np.mean(held_out) < np.mean(seen)


def test_what_stored_samples_cannot_say() -> None:
    right, passed = [[True, False]] * 4, [[True, True]] * 4
    with pytest.raises(Unidentified, match="No sample passes"):
        resampling(right, [[False, False]] * 4)
    with pytest.raises(Unidentified, match="four problems"):
        resampling(right[:3], passed[:3])
    for options, said in (
        ({"cost": -1}, "cost and kappa"),
        ({"kappa": math.inf}, "cost and kappa"),
        ({"most": 3}, "number of samples, 2"),
        ({"most": 0}, "number of samples, 2"),
    ):
        with pytest.raises(ValueError, match=said):
            resampling(right, passed, **options)
    with pytest.raises(ValueError, match="needs samples"):
        resampling(right, [[True]] * 4)


def test_a_check_that_never_failed_may_fail() -> None:
    """Forty wrong samples, none accepted: up to 7% of them may be, and where an error is dear no attempt is safe."""
    right = [[True, False, False]] * 20
    stored = resampling(right, right, cost=20)
    assert (stored.best, float(stored.best_interval.low), float(stored.best_interval.high)) == (3, 0, 3)
    assert float(stored.ceiling_interval.low) == pytest.approx(0.025 ** (1 / 20))
    assert float(stored.gap_interval.high) == pytest.approx(1 - 0.025 ** (1 / 20))
    assert float(stored.at_interval(3).low) < 0 < float(stored.at_interval(1).high)
    cheap = resampling(right, right, cost=1)
    assert float(cheap.best_interval.low) == 3  # three attempts are best whatever is accepted of the wrong ones
    assert float(stored.held_out_interval.low) < stored.held_out


@pytest.mark.parametrize("problems", [20, 100])
def test_the_interval_of_the_gap_holds_the_truth(problems: int) -> None:
    """One problem in twenty is checked badly. Of 20 intervals of 95%, fewer than 15 hold it once in 500 (0.93)."""
    rng, held = np.random.default_rng(problems), 0
    for _ in range(20):
        bad = np.where(rng.random(problems) < 0.05, rng.random(problems), 0.0)  # share of what passes that is wrong
        passing = [np.arange(200) < round(200 * (1 - share)) for share in bad]
        stored = resampling(passing, [np.ones(200, bool)] * problems, most=1)
        held += bool(stored.gap_interval.low <= 0.025 <= stored.gap_interval.high)
    assert held >= 15


def test_what_a_choice_is_worth_hardly_depends_on_the_seed() -> None:
    data = two_types(60, 20, 3)
    worth = [resampling(*data, cost=0.8, most=10, seed=seed).held_out for seed in range(4)]
    assert np.ptp(worth) < 0.01
