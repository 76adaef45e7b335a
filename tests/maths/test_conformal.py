"""Conformal take-over: p-values, decisions, thresholds; the rate holds on exchangeable scores and breaks elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outthink.maths.conformal import p_value, takes_over, threshold

STORED = [2.1, 2.5, 3.0, 3.2, 4.0, 4.4, 5.0, 5.5, 6.1, 7.0]
ALPHA = 0.4  # theta = 0.6 in the authors' code

scores = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=12)  # few values, so that there are ties
untimed = settings(deadline=None)  # a busy machine is no failure
shares = st.one_of(st.floats(0, 1), st.integers(0, 13).map(lambda thirteenths: thirteenths / 13), st.just(0.3))


def uniform(rng: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    return 1 - rng.random(shape)


@pytest.mark.parametrize(("score", "p", "taken"), [(3.1, 8, False), (5.2, 4, True), (8.0, 1, True)])
def test_the_numbers_of_the_literature(score: float, p: int, taken: bool) -> None:
    assert float(p_value(score, STORED)) == pytest.approx(p / 11)
    assert bool(takes_over(score, STORED, ALPHA)) is taken


def test_the_ends_of_alpha() -> None:
    drafts = [0.0, 5.0, 100.0, math.inf, -math.inf]
    for u in (None, 1e-9, 1.0):
        assert takes_over(drafts, STORED, 1.0, u).all()
        assert not takes_over(drafts, STORED, 0.0, u).any()


def test_what_is_missing_takes_over_and_is_the_worst_of_the_stored_scores() -> None:
    assert takes_over([math.nan, 1.0], STORED, 0.0).tolist() == [True, False]
    assert float(p_value(math.nan, STORED)) == pytest.approx(1 / 11)
    assert float(p_value(8.0, [*STORED, math.nan])) == pytest.approx(2 / 12)


def test_without_stored_scores_it_is_chance() -> None:
    assert float(p_value(3.0, [])) == 1.0
    assert float(p_value(3.0, [], 0.25)) == 0.25


def test_a_score_that_is_stored() -> None:
    assert float(p_value(3.0, STORED)) == pytest.approx(9 / 11)
    assert float(p_value(3.0, STORED, 0.5)) == pytest.approx(8 / 11)


def test_small_calibrations_are_coarse() -> None:
    assert set(np.round(p_value(np.linspace(0, 9, 99), np.arange(1.0, 9)) * 9)) == set(range(1, 10))


@untimed
@given(scores, scores, st.floats(0.01, 1))
def test_ties_are_between_both_extremes(drafts: list[float], stored: list[float], u: float) -> None:
    strict = [(np.array(stored) > draft).sum() / (len(stored) + 1) for draft in drafts]
    random = p_value(drafts, stored, u)
    assert np.all(random > strict)
    assert np.all(random <= p_value(drafts, stored) + 1e-15)
    assert p_value(drafts, stored, 1.0) == pytest.approx(p_value(drafts, stored))


@untimed
@given(scores, scores, shares)
def test_the_threshold_is_the_decision(drafts: list[float], stored: list[float], rate: float) -> None:
    assert (np.array(drafts) > threshold(stored, rate)).tolist() == takes_over(drafts, stored, rate).tolist()


def test_thresholds_in_numbers() -> None:
    assert float(threshold(STORED, 0.0)) == math.inf
    assert float(threshold(STORED, 1.0)) == -math.inf
    assert float(threshold(STORED, 4 / 11)) == 5.0  # three stored scores are worse
    assert float(threshold(STORED, 0.4)) == 5.0
    assert threshold([STORED, [2 * one for one in STORED]], 0.4).tolist() == [5.0, 10.0]


@untimed
@given(scores, scores, shares)
def test_the_order_changes_nothing(drafts: list[float], stored: list[float], alpha: float) -> None:
    """Neither of the chains nor of the stored scores: each chain is decided by itself."""
    order = np.random.default_rng(0).permutation(len(drafts))
    taken = takes_over(drafts, stored, alpha)
    assert takes_over(np.array(drafts)[order], stored[::-1], alpha).tolist() == taken[order].tolist()
    assert [bool(takes_over(draft, stored, alpha)) for draft in drafts] == taken.tolist()


def test_each_question_may_have_a_calibration_of_its_own() -> None:
    stored = np.array([STORED, [0.0] * 10])
    assert p_value([5.2, 5.2], stored) == pytest.approx([4 / 11, 1 / 11])


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_shares_are_shares(wrong: float) -> None:
    with pytest.raises(ValueError, match="alpha must be from 0 to 1"):
        takes_over(1.0, STORED, wrong)
    with pytest.raises(ValueError, match="rate must be from 0 to 1"):
        threshold(STORED, wrong)


# Rates over TRIALS new calibrations and questions, so that a rate of p has standard error sqrt(p (1 - p) / TRIALS), at
# most 0.0016. Six of them are 0.0095: a right rate is missed once in 5 * 10^8.
TRIALS = 100_000
SIX = 0.0095


@pytest.mark.parametrize(("n", "alpha"), [(9, 0.4), (24, 0.4), (24, 0.2), (10, 0.37)])
def test_the_rate_is_alpha_on_exchangeable_scores(n: int, alpha: float) -> None:
    rng = np.random.default_rng(n)
    stored, new = rng.normal(size=(TRIALS, n)), rng.normal(size=TRIALS)
    plain, random = takes_over(new, stored, alpha).mean(), takes_over(new, stored, alpha, uniform(rng, TRIALS)).mean()
    assert plain == pytest.approx(math.floor(alpha * (n + 1)) / (n + 1), abs=SIX)  # the largest p-value allowed
    assert plain <= alpha + SIX
    assert random == pytest.approx(alpha, abs=SIX)


def test_with_ties_only_chance_reaches_alpha() -> None:
    """The agreement of four samples has four values."""
    rng = np.random.default_rng(1)
    values, odds = [0.0, 0.25, 0.5, 0.75], [0.4, 0.3, 0.2, 0.1]
    stored, new = rng.choice(values, (TRIALS, 49), p=odds), rng.choice(values, TRIALS, p=odds)
    assert takes_over(new, stored, 0.2).mean() < 0.12  # of the next value there would be too many
    assert takes_over(new, stored, 0.2, uniform(rng, TRIALS)).mean() == pytest.approx(0.2, abs=SIX)


def test_what_is_missing_is_a_floor_of_the_rate() -> None:
    rng = np.random.default_rng(2)

    def some_missing(*shape: int) -> NDArray[np.float64]:
        return np.where(rng.random(shape) < 0.3, np.nan, rng.normal(size=shape))

    stored, new = some_missing(TRIALS, 99), some_missing(TRIALS)
    # at 0.1 nearly always only what is missing, at 0.5 that and the worst of the others
    assert takes_over(new, stored, 0.1, uniform(rng, TRIALS)).mean() == pytest.approx(0.3, abs=SIX)
    assert takes_over(new, stored, 0.5, uniform(rng, TRIALS)).mean() == pytest.approx(0.5, abs=SIX)


def test_the_rate_breaks_where_questions_are_harder() -> None:
    """By one standard deviation, and the rate is 1 - Phi(0.84 - 1) = 0.56 in place of 1 - Phi(0.84) = 0.2."""
    rng = np.random.default_rng(3)
    stored, new = rng.normal(size=(TRIALS, 99)), rng.normal(loc=1.0, size=TRIALS)
    assert takes_over(new, stored, 0.2).mean() == pytest.approx(0.563, abs=0.02)
    easier = rng.normal(loc=-1.0, size=TRIALS)
    assert takes_over(easier, stored, 0.2).mean() < 0.05


def test_the_rate_says_nothing_about_errors() -> None:
    """A score that has nothing to do with the answer keeps its rate, and what stands is wrong as often as before."""
    rng = np.random.default_rng(4)
    stored, new, wrong = rng.normal(size=(TRIALS, 99)), rng.normal(size=TRIALS), rng.random(TRIALS) < 0.5
    taken = takes_over(new, stored, 0.2)
    assert taken.mean() == pytest.approx(0.2, abs=SIX)
    assert wrong[~taken].mean() == pytest.approx(0.5, abs=SIX)  # standard error 0.0018, so five of them: 1 in 10^6
