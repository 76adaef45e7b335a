"""Saturating curves: formulas, saturation points, both fits, and what cannot be fitted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from outthink.errors import Unidentified
from outthink.laws.coverage import pass_at_k
from outthink.laws.imperfect import drawn
from outthink.laws.saturation import (
    ManyRates,
    OneRate,
    fit_curve,
    fit_many_rates,
    fit_one_rate,
    reached,
    saturation_point,
)

untimed = settings(deadline=None)  # a busy machine is no failure
shares = st.floats(0.01, 0.99)


def gain(n: Any, ceiling: float, p: float) -> Any:
    """What one more unit adds after N."""
    return ceiling * p * (1 - p) ** np.asarray(n, float)


@pytest.mark.parametrize(
    ("eps", "ceiling", "p", "by_gain", "by_gap"),
    [
        (0.01, 0.8, 0.3, 9, 13),
        (0.01, 1.0, 0.5, 6, 7),
        (0.01, 1.0, 0.05, 32, 90),
        (0.01, 0.9, 0.02, 30, 223),
        (0.01, 0.9, 0.005, 0, 898),
        (0.05, 1.0, 0.2, 7, 14),
        (0.01, 1.0, 0.2, 14, 21),
        (0.01, 1.0, 1.0, 1, 1),
        (0.125, 1.0, 0.5, 2, 3),  # exactly reached: no rounding up
        (0.9, 0.8, 0.3, 0, 0),
    ],
)
def test_saturation_points(eps: float, ceiling: float, p: float, by_gain: int, by_gap: int) -> None:
    assert saturation_point(eps, ceiling, p) == by_gain
    assert saturation_point(eps, ceiling, p, rule="gap") == by_gap


def test_the_numbers_around_a_saturation_point() -> None:
    assert gain([8, 9], 0.8, 0.3) == pytest.approx([0.01384, 0.00968], abs=5e-6)
    assert 0.8 - reached([12, 13], 0.8, 0.3) == pytest.approx([0.01107, 0.00775], abs=5e-6)
    ns = [1, 2, 4, 8, 16]
    assert reached(ns, 1, 0.2) == pytest.approx([0.2, 0.36, 0.5904, 0.8322, 0.9719], abs=5e-5)
    assert gain(ns, 1, 0.2) == pytest.approx([0.16, 0.128, 0.0819, 0.0336, 0.0056], abs=5e-5)
    # a success seen at once ends a run: what it used, expected
    assert drawn(0.2, ns) == pytest.approx([1, 1.8, 2.952, 4.1611, 4.8593], abs=5e-5)


def test_what_is_hopeless_and_what_is_solved_at_once_both_stop_early() -> None:
    points = saturation_point(0.01, 1.0, [0.005, 0.02, 0.05, 0.2, 0.9, 1.0])
    assert points.tolist() == [0, 35, 32, 14, 2, 1]
    assert saturation_point(0.01, 1.0, [0.005, 0.2], least=4).tolist() == [4, 14]
    assert saturation_point(0.01, 0.8, 0.0) == 0
    assert saturation_point(0.01, 0.8, 0.0, rule="gap") == math.inf
    with pytest.raises(ValueError, match="above 0"):
        saturation_point(0.0, 1.0, 0.5)


@untimed
@given(ceiling=shares, p=shares, eps=st.floats(1e-4, 0.5))
def test_it_is_the_first_budget_after_which_stopping_costs_no_more(ceiling: float, p: float, eps: float) -> None:
    for rule in ("gain", "gap"):
        n = float(saturation_point(eps, ceiling, p, rule=rule))
        left = [float(gain(at, ceiling, p)) if rule == "gain" else ceiling * (1 - p) ** at for at in (n, n - 1)]
        assert left[0] <= eps * (1 + 1e-6)
        assert n == 0 or left[1] > eps * (1 - 1e-6)
    assert saturation_point(eps, ceiling, p) <= saturation_point(eps, ceiling, p, rule="gap")
    assert saturation_point(eps * p, ceiling, p) == saturation_point(eps, ceiling, p, rule="gap")


def test_a_budget_that_is_met_exactly_is_not_rounded_up() -> None:
    for n in range(1, 200):
        assert saturation_point(gain(n, 1.0, 0.2), 1.0, 0.2) == n
        assert saturation_point(1 - reached(n, 1.0, 0.05), 1.0, 0.05, rule="gap") == n


@untimed
@given(ceiling=shares, p=shares)
def test_the_curve(ceiling: float, p: float) -> None:
    values = reached(np.arange(60), ceiling, p)
    assert values[0] == 0
    assert values[1] == pytest.approx(ceiling * p)
    assert reached(1e9, ceiling, p) == pytest.approx(ceiling)
    gains = np.diff(values)
    assert gains == pytest.approx(gain(np.arange(59), ceiling, p), abs=1e-12)
    assert gains[1:] == pytest.approx(gains[:-1] * (1 - p), abs=1e-12)
    assert reached([0, 1, 2], ceiling, 1.0).tolist() == [0, ceiling, ceiling]


# --------------------------------------------------------------------------------------------------------- one rate


@pytest.mark.parametrize(("ceiling", "p"), [(0.8, 0.3), (0.3, 0.05), (1.0, 0.1), (0.6, 0.999)])
def test_a_known_curve_is_found_again(ceiling: float, p: float) -> None:
    ns = [1, 2, 4, 8, 16, 32]
    assert fit_curve(ns, reached(ns, ceiling, p)) == pytest.approx((ceiling, p), abs=2e-4)


def test_a_ceiling_is_never_above_one() -> None:
    ns = np.array([1, 2, 4, 8])
    seen = np.minimum(1.1 * (1 - 0.75**ns), 1)
    ceiling, p = fit_curve(ns, seen)
    assert ceiling == 1
    rates = np.linspace(0.01, 0.99, 981)
    losses = ((1 - (1 - rates[:, None]) ** ns - seen) ** 2).sum(-1)
    assert p == pytest.approx(rates[losses.argmin()], abs=0.001)


def test_questions_weigh_on_a_curve() -> None:
    ns, there = [1, 2, 4, 8, 16], reached([1, 2, 4, 8, 16], 0.7, 0.3)
    bent = there + np.array([0, 0, 0.2, 0, 0])
    assert fit_curve(ns, bent, [1, 1, 0, 1, 1]) == pytest.approx((0.7, 0.3), abs=1e-4)
    assert fit_curve(ns, bent, [9, 9, 1, 9, 9])[0] < fit_curve(ns, bent)[0]


@pytest.mark.parametrize(
    ("ns", "accuracy", "said"),
    [
        ([1, 2, 2], [0.1, 0.2, 0.2], "three budgets"),
        ([1, 2, 4], [0.0, 0.0, 0.0], "0 at every budget"),
        ([1, 2, 4, 8], [0.02, 0.04, 0.08, 0.16], "too straight.* larger budgets"),
        ([1, 2, 4, 8], [0.1, 0.2, 0.4, 0.8], "too straight"),  # at most 1, but that alone is no estimate
        ([64, 128, 256], [0.5, 0.5, 0.5], "flat.* smaller budgets"),
    ],
)
def test_what_no_curve_can_be_fitted_to(ns: list[int], accuracy: list[float], said: str) -> None:
    with pytest.raises(Unidentified, match=said):
        fit_curve(ns, accuracy)


def test_impossible_curves_are_refused() -> None:
    for ns, accuracy in [([0, 1, 2], [0.1, 0.2, 0.3]), ([1, 2, 4], [0.1, 0.2, 1.3]), ([1, 2], [0.1, 0.2, 0.3])]:
        with pytest.raises(ValueError, match=r"must be"):
            fit_curve(ns, accuracy)
    with pytest.raises(ValueError, match="table"):
        fit_one_rate([1, 2, 4], [0.1, 0.2, 0.3])


def simulated(rng: np.random.Generator, rates: np.ndarray, samples: int) -> np.ndarray:
    return rng.binomial(samples, rates)


def test_one_rate_and_its_intervals() -> None:
    """Of 20 intervals of 95%, 15 or more hold the truth: a false alarm in 3 of 10,000 (binomial), with a fixed seed."""
    rng = np.random.default_rng(0)
    ns = [1, 2, 4, 8, 16]
    hits = np.zeros(3)
    for _ in range(20):
        right = simulated(rng, 0.25 * (rng.random(80) < 0.7), 16)
        table = np.stack([pass_at_k(16, right, n) for n in ns], axis=-1)
        law = fit_one_rate(ns, table, resamples=60)
        at = law.at_interval([16])
        low, high = np.append(law.parameters.low, at.low), np.append(law.parameters.high, at.high)
        truth = np.array([0.7, 0.25, float(reached(16, 0.7, 0.25))])
        hits += (low <= truth) & (truth <= high)
    assert hits.min() >= 15


def test_what_one_rate_says() -> None:
    ns = [1, 2, 4, 8]
    table = np.array([reached(ns, 1.0, 0.4), reached(ns, 0.5, 0.4), [math.nan] * 4, reached(ns, 0.6, 0.4)])
    law = fit_one_rate(ns, table, resamples=100)
    assert (law.ceiling, law.p) == pytest.approx((0.7, 0.4), abs=1e-4)
    assert law.error < 1e-4
    assert (law.least, law.most) == (1, 8)
    assert law.far([8, 80, 81]).tolist() == [False, False, True]
    assert law.point(0.01) == saturation_point(0.01, 0.7, 0.4)
    assert law.point(0.01, rule="gap") == saturation_point(0.01, 0.7, 0.4, rule="gap")
    for rule in ("gain", "gap"):
        around = law.point_interval(0.01, rule=rule)
        assert around.low <= law.point(0.01, rule=rule) <= around.high
    at = law.at_interval([[1, 2], [4, 8]])
    assert at.low.shape == (2, 2)
    assert ((at.low <= law.at([[1, 2], [4, 8]]) + 1e-9) & (law.at([[1, 2], [4, 8]]) <= at.high + 1e-9)).all()
    with pytest.raises(Unidentified, match="two problems"):
        fit_one_rate(ns, table[:1])


def test_a_curve_that_bends_by_noise_alone_is_refused_by_its_resamples() -> None:
    """Ten questions, one of which is solved early: without it nothing bends."""
    ns = [1, 2, 4, 8]
    table = np.array([[1.0, 1.0, 1.0, 1.0]] + [[0.01 * n for n in ns]] * 9)
    fit_curve(ns, table.mean(0))
    with pytest.raises(Unidentified, match="of resamples"):
        fit_one_rate(ns, table, resamples=100)


# ------------------------------------------------------------------------------------------------------- many rates


def beta_rates(rng: np.random.Generator, questions: int, ceiling: float, rate: float, spread: float) -> np.ndarray:
    size = (1 - spread) / spread
    return rng.beta(size * rate, size * (1 - rate), questions) * (rng.random(questions) < ceiling)


def both_laws(rates: np.ndarray, samples: int, rng: np.random.Generator) -> tuple[OneRate, ManyRates]:
    """The literature's law, from budgets up to a quarter of the samples, and the law of many rates."""
    right = simulated(rng, rates, samples)
    ns = [1, 2, 4, 8, samples // 4]
    table = np.stack([pass_at_k(samples, right, n) for n in ns], axis=-1)
    return fit_one_rate(ns, table, resamples=50), fit_many_rates(np.full(len(rates), samples), right, resamples=5)


def first_not_worth(rates: np.ndarray, eps: float) -> int:
    """The true saturation point of the mean curve."""
    return next(n for n in range(10_000) if (rates * (1 - rates) ** n).mean() <= eps)


def test_the_mean_curve_stops_too_soon() -> None:
    """Where rates differ, what one rate says of the tail is wrong; a beta distribution of rates says it right."""
    rng = np.random.default_rng(0)
    rates = beta_rates(rng, 400, 0.8, 0.3, 0.3)
    one, many = both_laws(rates, 64, rng)
    truth = first_not_worth(rates, 0.002)
    assert one.point(0.002) < 0.7 * truth
    assert one.point_interval(0.002).high < truth
    assert many.point(0.002) == pytest.approx(truth, rel=0.1)
    there = (1 - (1 - rates) ** 64).mean()
    assert one.at(64) < 0.9 * there
    assert one.misses  # half of the range shows that it does, and then its interval beyond the range is as wide
    assert one.at_interval(64).low < there < one.at_interval(64).high
    assert float(many.at(64)) == pytest.approx(there, abs=0.02)


def test_where_neither_law_holds_the_error_says_so() -> None:
    """Half the questions are easy and half are hard, which is no beta distribution: better, and still too soon."""
    rates = np.repeat([0.9, 0.02], 200)
    one, many = both_laws(rates, 64, np.random.default_rng(0))
    truth = first_not_worth(rates, 0.005)
    assert truth == 35
    assert one.point(0.005) < 6 < 10 < many.point(0.005) < 25
    assert min(one.error, many.error) > 0.05


def test_many_rates_are_found_again() -> None:
    """20,000 questions: estimates within .01 of the truth, more than five of their standard errors."""
    rng = np.random.default_rng(1)
    right = simulated(rng, beta_rates(rng, 20_000, 0.7, 0.3, 0.2), 32)
    law = fit_many_rates(np.full(20_000, 32), right, resamples=5)
    assert (law.ceiling, law.rate, law.spread) == pytest.approx((0.7, 0.3, 0.2), abs=0.01)
    assert law.error < 0.005
    assert law.most == 32


def test_no_other_parameters_are_likelier() -> None:
    """By scipy's own beta-binomial."""
    n, right = np.array([12] * 40 + [5] * 8), np.array([0] * 8 + [1, 2, 3, 4, 5, 6, 8, 10] * 4 + [0, 1, 2, 3] * 2)
    law = fit_many_rates(n, right, resamples=2)

    def likelihood(ceiling: float, rate: float, spread: float) -> float:
        size = (1 - spread) / spread
        chance = ceiling * betabinom.pmf(right, n, size * rate, size * (1 - rate)) + (1 - ceiling) * (right == 0)
        return float(np.log(chance).sum())

    best = likelihood(law.ceiling, law.rate, law.spread)
    for direction in np.random.default_rng(0).normal(size=(40, 3)) * 0.02:
        assert likelihood(*(np.array([law.ceiling, law.rate, law.spread]) + direction)) < best


def test_a_ceiling_of_one_is_not_certain() -> None:
    """Where many small rates fit best, unsolvable questions are possible all the same."""
    rng = np.random.default_rng(1)
    right = simulated(rng, beta_rates(rng, 100, 1.0, 0.15, 0.2), 24)
    law = fit_many_rates(np.full(100, 24), right, resamples=40)
    assert law.ceiling > 0.999
    assert law.parameters.low[0] < 0.9
    assert law.parameters.high[0] > 0.999


def test_intervals_of_many_rates() -> None:
    """Of 12 intervals of 95%, 9 or more hold the truth: a false alarm in 2 of 1,000 (binomial), with a fixed seed."""
    rng = np.random.default_rng(2)
    truth = np.array([0.7, 0.3, 0.2])
    beyond = 0.7 * (1 - float(np.prod([(0.8 * 0.7 + 0.2 * i) / (0.8 + 0.2 * i) for i in range(96)])))
    hits = np.zeros(4)
    for _ in range(12):
        n = rng.integers(16, 40, 150)
        right = rng.binomial(n, beta_rates(rng, 150, 0.7, 0.3, 0.2))
        law = fit_many_rates(n, right, resamples=40)
        at = law.at_interval(96)
        hits[:3] += (law.parameters.low <= truth) & (truth <= law.parameters.high)
        hits[3] += bool(at.low <= beyond <= at.high)
    assert hits.min() >= 9


def test_equal_rates_are_one_rate() -> None:
    rng = np.random.default_rng(3)
    right = simulated(rng, np.full(3000, 0.3), 20)
    law = fit_many_rates(np.full(3000, 20), right, resamples=5)
    assert law.spread < 0.002
    assert law.ceiling > 0.99
    ns = np.arange(30)
    assert law.at(ns) == pytest.approx(reached(ns, 1.0, 0.3), abs=0.01)


def test_what_many_rates_say() -> None:
    n, right = np.full(40, 12), np.array([0] * 8 + [1, 2, 3, 4, 5, 6, 8, 10] * 4)
    law = fit_many_rates(n, right, resamples=100)
    assert law.at(0) == 0
    curve = law.at(np.arange(400))
    assert (np.diff(curve) > 0).all()
    assert float(law.at(1)) == pytest.approx(law.ceiling * law.rate)
    assert (curve < law.ceiling).all()
    for eps in np.geomspace(0.05, 0.0005, 30).tolist():
        at = int(law.point(eps))
        assert curve[at + 1] - curve[at] <= eps < curve[at] - curve[at - 1]
        rest = law.point(eps, rule="gap")
        assert law.ceiling - float(law.at(rest)) <= eps < law.ceiling - float(law.at(rest - 1))
    for rule in ("gain", "gap"):
        interval = law.point_interval(0.02, rule=rule)
        assert interval.low <= law.point(0.02, rule=rule) <= interval.high
    assert law.point(0.9) == 0
    around = law.at_interval([[1, 12]])
    assert around.low.shape == (1, 2)
    assert (around.low <= law.at([[1, 12]])).all()
    assert law.far([120, 121]).tolist() == [False, True]
    # the order of questions and how they are written down do not matter
    again = fit_many_rates(n[::-1], right[::-1], resamples=5)
    assert (again.ceiling, again.rate, again.spread) == pytest.approx((law.ceiling, law.rate, law.spread), abs=1e-6)
    with pytest.raises(ValueError, match="above 0"):
        law.point(0.0)


@pytest.mark.parametrize(
    ("n", "right", "said"),
    [
        ([2] * 20, [0, 1] * 10, "three samples"),
        ([8] * 20, [0, 8] * 10, "both right and wrong"),
        ([8] * 20, [0] * 20, "both right and wrong"),
        ([8] * 200, [1] * 4 + [0] * 196, "reached"),
        ([8] * 20, [3] + [0] * 10 + [8] * 9, "of resamples"),
    ],
)
def test_what_many_rates_cannot_be_fitted_to(n: list[int], right: list[int], said: str) -> None:
    with pytest.raises(Unidentified, match=said):
        fit_many_rates(n, right, resamples=100)


def test_impossible_counts_are_refused() -> None:
    for n, right in [([3], [4]), ([0], [0]), ([], []), ([3, 3], [1, -1])]:
        with pytest.raises(ValueError, match="right ones"):
            fit_many_rates(n, right)


@pytest.mark.parametrize("violated", ["", "some cannot be solved, others hardly", "small rates"])
def test_ceilings_and_curves_hold_the_truth(violated: str) -> None:
    """With a ceiling of 1 under the law, and where the rates have no beta distribution.

    Of 6 intervals 5 or more hold it: if 93% did, fewer would in 6 of 100 cases; the seed is fixed.
    """
    rng = np.random.default_rng(3)

    def rates(problems: int) -> np.ndarray:
        if not violated:
            return rng.beta(0.5, 2, problems)
        low, share = (-2.5, 0.8) if violated.startswith("some") else (-3, 1.0)
        return 10 ** rng.uniform(low, 0, problems) * (rng.random(problems) < share)

    everything = rates(400_000)
    truth, solved = float((1 - (1 - everything) ** 640).mean()), float((everything > 0).mean())
    ceilings = curves = 0
    for seed in range(6):
        try:
            law = fit_many_rates(np.full(100, 64), rng.binomial(64, rates(100)), resamples=20, seed=seed)
        except Unidentified:  # nothing is said, and so nothing wrong
            ceilings, curves = ceilings + 1, curves + 1
            continue
        ceilings += bool(law.parameters.low[0] - 1e-6 <= solved <= law.parameters.high[0] + 1e-6)
        at = law.at_interval(640)
        curves += bool(at.low <= truth <= at.high)
    assert min(ceilings, curves) >= 5
