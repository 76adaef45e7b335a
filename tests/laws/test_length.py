"""Length against accuracy: bins, tails, tiers, the controlled effect, two models, and the price of effort."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from outthink.errors import Unidentified
from outthink.laws.length import (
    PairedOutcomes,
    bin_lengths,
    compare_lengths,
    cut_at,
    equal_bins,
    length_effect,
    length_within,
    price_of_effort,
    tiers,
)
from outthink.maths.intervals import bootstrap

untimed = settings(deadline=None)  # a busy machine is no failure


def repeated(*cells: tuple[int, Any]) -> np.ndarray:
    """Each value as often as it says."""
    return np.repeat([value for _, value in cells], [count for count, _ in cells])


# --------------------------------------------------------------------------------------------------- bins and tails


def test_accuracy_and_tail_error_of_bins() -> None:
    right, wrong = [40, 30, 15, 5], [5, 10, 15, 10]
    tokens = np.repeat([50, 150, 250, 350], np.add(right, wrong))
    credit = np.concatenate([np.repeat([1, 0], [a, b]) for a, b in zip(right, wrong, strict=True)])
    bins = bin_lengths(tokens, credit, [0, 100, 200, 300])
    assert bins.accuracy == pytest.approx([0.8889, 0.75, 0.5, 0.3333], abs=5e-5)
    assert bins.tail_error == pytest.approx([0.3077, 0.4118, 0.5556, 0.6667], abs=5e-5)
    assert bins.questions.tolist() == [45, 40, 30, 15]
    assert bins.beyond.tolist() == [130, 85, 45, 15]
    assert bins.tail_error[0] == pytest.approx(1 - credit.mean())
    for value, interval in [(bins.accuracy, bins.interval), (bins.tail_error, bins.tail_interval)]:
        assert (interval.low < value).all()
        assert (value < interval.high).all()


def test_bins_with_few_questions_are_not_shown() -> None:
    tokens, credit = repeated((20, 50), (10, 150)), repeated((25, 1), (5, 0))
    bins = bin_lengths(tokens, credit, [0, 100, 200])
    assert bins.shown.tolist() == [True, False, False]
    assert bins.accuracy == pytest.approx([1.0, np.nan, np.nan], nan_ok=True)
    assert bins.tail_error == pytest.approx([1 / 6, np.nan, np.nan], nan_ok=True)
    assert np.isnan(bins.interval.low[1:]).all()
    assert bin_lengths(tokens, credit, [0, 100], least=5).accuracy == pytest.approx([1.0, 0.5])
    with pytest.raises(Unidentified, match="more than 10 questions"):
        bin_lengths(tokens[:5], credit[:5], [0, 100])


def test_resamples_without_a_bin_are_counted() -> None:
    """Two of 14 questions are in the second bin; (12/14)^14 = 12% of resamples have none of them."""
    bins = bin_lengths(repeated((12, 50), (2, 150)), repeated((6, 1), (7, 0), (1, 1)), [0, 100], least=1)
    assert 0.05 < bins.interval.missing < 0.2
    assert np.isfinite(bins.interval.low).all()


def test_each_question_weighs_the_same() -> None:
    tokens = [[50] * 10, [50], [150, 50]] * 20
    right = [[1] * 10, [0], [1, 0]] * 20
    bins = bin_lengths(tokens, right, [0, 100], resamples=20)
    assert bins.accuracy == pytest.approx([1 / 2.5, 1.0])
    assert bins.questions.tolist() == [60, 20]
    assert bins.tail_error[0] == pytest.approx(1 - 1.5 / 3)


def test_bins() -> None:
    assert equal_bins([[10, 100], [50]], 4).tolist() == [0, 25, 50, 75]
    with pytest.raises(ValueError, match="rising"):
        bin_lengths([1, 2], [1, 0], [5, 5])


def test_what_was_cut_off_is_wrong_at_the_cap() -> None:
    tokens = repeated((90, 4000.0), (10, 25_000.0))
    complete = repeated((90, True), (10, False))
    right = repeated((70, 1), (20, 0), (10, 1))
    assert right[complete].mean() == pytest.approx(0.778, abs=5e-4)
    assert tokens[complete].mean() == 4000
    counted, credit = cut_at(np.where(complete, tokens, 0), right, complete, 25_000)
    assert credit.mean() == 0.7
    assert counted.mean() == 6100
    assert cut_at([30_000.0], [1], [False], 25_000)[0].tolist() == [30_000.0]


def test_tiers() -> None:
    assert tiers(np.arange(8)[::-1]).tolist() == [3, 3, 2, 2, 1, 1, 0, 0]
    assert tiers([1, 1, 1, 1, 1, 1, 2, 9]).tolist() == [0, 0, 0, 0, 0, 0, 1, 1]  # equal ratings stay together
    assert tiers([4, 4, 4]).tolist() == [0, 0, 0]
    many = tiers(np.random.default_rng(0).random(1000))
    assert np.bincount(many).tolist() == [250] * 4


# --------------------------------------------------------------------------------------------- the controlled effect


def test_length_without_effect_inside_tiers() -> None:
    """Pooled, longer answers are wrong more often; inside tiers they are not."""
    cells = [("easy", 500, 76, 4), ("easy", 2500, 19, 1), ("hard", 500, 8, 12), ("hard", 2500, 32, 48)]
    tier = [name for name, _, right, wrong in cells for _ in range(right + wrong)]
    tokens = repeated(*((right + wrong, length) for _, length, right, wrong in cells))
    credit = np.concatenate([np.repeat([1, 0], [right, wrong]) for *_, right, wrong in cells])
    pooled = bin_lengths(tokens, credit, [0, 1000])
    assert pooled.accuracy == pytest.approx([0.84, 0.51])
    for name, share in [("easy", 0.95), ("hard", 0.4)]:
        inside = np.array(tier) == name
        assert bin_lengths(tokens[inside], credit[inside], [0, 1000]).accuracy == pytest.approx([share, share])
    alone, controlled = length_effect(tokens, credit), length_effect(tokens, credit, tier=tier)
    assert alone.high < 0
    assert controlled.effect == pytest.approx(0, abs=1e-9)
    assert controlled.coefficient == pytest.approx(0, abs=1e-9)
    assert controlled.low < 0 < controlled.high


def clustered(rng: np.random.Generator, questions: int, slope: float) -> tuple[Any, Any, Any, Any, float]:
    """Samples of questions of three tiers and two domains, whose answers share luck; and the true mean effect."""
    tier, domain = rng.integers(0, 3, questions), rng.integers(0, 2, questions)
    counts = rng.integers(1, 7, questions)
    tokens = [rng.lognormal(6.5 + 0.3 * t, 0.6, n) for t, n in zip(tier, counts, strict=True)]
    base = 1.0 - 0.9 * tier + 0.4 * domain
    right, effects = [], []
    for t, height in zip(tokens, base, strict=True):
        chance = 1 / (1 + np.exp(-(height + slope * t / 1000)))
        luck = rng.random()  # half of the samples hang on the question's luck
        right.append((np.where(rng.random(t.size) < 0.5, luck, rng.random(t.size)) < chance).astype(float))
        effects.append(np.mean(slope * chance * (1 - chance)))
    return tokens, right, tier, domain, float(np.mean(effects))


def test_a_known_effect_is_found_again() -> None:
    """20,000 questions: the standard error is near .003, and .012 is four of them: 1 false alarm in 16,000."""
    tokens, right, tier, domain, truth = clustered(np.random.default_rng(0), 20_000, -0.5)
    effect = length_effect(tokens, right, tier=tier, domain=domain)
    assert effect.effect == pytest.approx(truth, abs=0.012)
    assert effect.standard_error < 0.004
    assert effect.coefficient == pytest.approx(-0.5, abs=0.08)
    assert effect.settled == 0
    assert (effect.questions, effect.samples) == (20_000, sum(map(len, tokens)))


def test_the_interval_of_the_effect() -> None:
    """Of 100 intervals of 95%, 88 or more hold the truth: a false alarm in 15 of 10,000 (binomial), with a fixed seed.

    As if samples of a question were independent, fewer would.
    """
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        tokens, right, tier, domain, truth = clustered(rng, 150, -0.5)
        effect = length_effect(tokens, right, tier=tier, domain=domain)
        hits += effect.low <= truth <= effect.high
    assert hits >= 88


def test_it_is_what_a_general_optimiser_and_numeric_derivatives_give() -> None:
    tokens, right, tier, _, _ = clustered(np.random.default_rng(7), 30, -0.5)
    effect = length_effect(tokens, right, tier=tier)
    x = np.concatenate(tokens) / 1000
    columns = np.stack([x, *(np.repeat(tier == one, [t.size for t in tokens]) for one in range(3))], axis=-1)
    y, who = np.concatenate(right), np.repeat(np.arange(30), [t.size for t in tokens])
    weight = 1 / np.bincount(who)[who]

    def losses(beta: Any) -> Any:
        return weight * (np.logaddexp(0, columns @ beta) - y * (columns @ beta))

    def slope(beta: Any) -> float:
        up, down = (1 / (1 + np.exp(-(columns @ beta + sign * 1e-4 * beta[0]))) for sign in (1, -1))
        return float((weight * (up - down)).sum() / 2e-4 / weight.sum())

    beta = minimize(lambda point: losses(point).sum(), np.zeros(4), tol=1e-12).x
    unit = np.eye(4) * 1e-4
    scores = np.stack([(losses(beta + e) - losses(beta - e)) / 2e-4 for e in unit], axis=-1)
    pulls = np.stack([scores[who == one].sum(0) for one in range(30)])
    bend = [[losses(beta + a + b).sum() - losses(beta + a - b).sum() for b in unit] for a in unit]
    back = [[losses(beta - a + b).sum() - losses(beta - a - b).sum() for b in unit] for a in unit]
    inverse = np.linalg.inv((np.array(bend) - np.array(back)) / 4e-8)
    covariance = inverse @ pulls.T @ pulls @ inverse * 30 / 29
    changes = np.array([(slope(beta + e) - slope(beta - e)) / 2e-4 for e in unit])
    error = float(np.sqrt(changes @ covariance @ changes))
    assert effect.coefficient == pytest.approx(beta[0], abs=1e-3)
    assert effect.effect == pytest.approx(slope(beta), abs=1e-4)
    assert effect.standard_error == pytest.approx(error, rel=2e-3)
    reach = 2.0452 * error  # the 97.5% point of the t distribution with 29 degrees of freedom
    assert (effect.low, effect.high) == pytest.approx((effect.effect - reach, effect.effect + reach), abs=1e-3)


def test_it_agrees_with_the_bootstrap() -> None:
    tokens, right, tier, domain, _ = clustered(np.random.default_rng(2), 300, -0.5)
    effect = length_effect(tokens, right, tier=tier, domain=domain)

    def again(positions: Any) -> float:
        chosen = [[values[i] for i in positions] for values in (tokens, right, tier, domain)]
        return length_effect(chosen[0], chosen[1], tier=chosen[2], domain=chosen[3]).effect

    interval = bootstrap(again, 300, resamples=150)
    # the width of an interval from 150 resamples has a standard error near 7%
    assert interval.high - interval.low == pytest.approx(effect.high - effect.low, rel=0.3)


def test_samples_of_a_question_are_not_independent() -> None:
    tokens, right, *_ = clustered(np.random.default_rng(3), 300, -0.5)
    once = length_effect(tokens, right)
    copied = length_effect([np.tile(t, 4) for t in tokens], [np.tile(a, 4) for a in right])
    assert (copied.effect, copied.standard_error) == pytest.approx((once.effect, once.standard_error))


def test_factors_that_say_the_same_thing_twice() -> None:
    tokens, right, tier, *_ = clustered(np.random.default_rng(4), 200, -0.5)
    once, twice = length_effect(tokens, right, tier=tier), length_effect(tokens, right, tier=tier, domain=tier)
    assert (twice.effect, twice.low, twice.high) == pytest.approx((once.effect, once.low, once.high), abs=1e-9)


def test_a_tier_where_all_is_right_counts_as_no_effect() -> None:
    tokens, right, *_ = clustered(np.random.default_rng(5), 200, -0.5)
    alone = length_effect(tokens, right, tier=["a"] * 200)
    more = length_effect(
        [*tokens, *([[500.0, 900.0]] * 200)], [*right, *([[1.0, 1.0]] * 200)], tier=["a"] * 200 + ["b"] * 200
    )
    assert more.settled == pytest.approx(0.5)
    assert more.coefficient == pytest.approx(alone.coefficient)
    assert more.effect == pytest.approx(alone.effect / 2)


def test_lengths_of_the_same_question() -> None:
    """Hard questions have longer answers, and of each question's the longer ones are right more often."""
    rng = np.random.default_rng(8)
    hard = rng.random(4000)
    tokens = [rng.uniform(1000 * h, 1000 * h + 500, 4) for h in hard]
    right = [
        (rng.random(4) < 0.7 - 0.6 * h + 0.4 * (t / 1000 - h)).astype(float) for h, t in zip(hard, tokens, strict=True)
    ]
    assert length_effect(tokens, right).effect < -0.2
    within = length_within(tokens, right, resamples=100)
    # 16,000 samples whose lengths have a standard deviation of 144: a standard error near .03, and 4 of these
    assert within.effect == pytest.approx(0.4, abs=0.12)
    assert within.interval.low < within.effect < within.interval.high
    assert within.questions == sum(row.var() > 0 for row in right)
    twice = length_within([np.tile(t, 2) for t in tokens], [np.tile(a, 2) for a in right], resamples=2)
    assert twice.effect == pytest.approx(within.effect)
    assert length_within([[10, 20], [5, 5]] * 9, [[1, 0], [1, 0]] * 9).effect == pytest.approx(-100)


def test_the_interval_within_questions() -> None:
    """Of 60 intervals of 95%, 51 or more hold the truth: a false alarm in 7 of 10,000 (binomial), with a fixed seed."""
    rng, hits = np.random.default_rng(9), 0
    for _ in range(60):
        tokens = rng.uniform(0, 1000, (60, 4))
        right = rng.random((60, 4)) < 0.3 + 0.3 * tokens / 1000
        within = length_within(tokens, right, resamples=100)
        hits += bool(within.interval.low <= 0.3 <= within.interval.high)
    assert hits >= 51


def test_questions_that_say_nothing_about_length() -> None:
    cases: list[tuple[Any, Any]] = [
        ([[1, 2], [3, 4]], [[1, 1], [0, 0]]),
        ([[5, 5], [6, 6]], [[1, 0], [0, 1]]),
        ([1, 2], [0, 1]),
    ]
    for tokens, right in cases:
        with pytest.raises(Unidentified, match="different lengths"):
            length_within(tokens, right)
    with pytest.raises(Unidentified, match="of resamples"):
        length_within([[1, 2]] + [[1, 1]] * 9, [[1, 0]] * 10)


@pytest.mark.parametrize(
    ("tokens", "right", "tier", "said"),
    [
        ([10.0, 20, 30, 40], [1, 1, 1, 1], None, "length can explain nothing"),
        ([10.0, 20, 30, 40], [1, 1, 0, 0], ["a", "a", "b", "b"], "length can explain nothing"),
        ([10.0, 10, 10, 10], [1, 0, 1, 0], None, "equally long"),
        ([10.0, 10, 20, 20, 10], [1, 0, 1, 0, 1], ["a", "a", "b", "b", "a"], "equally long"),
        ([10.0, 20, 30, 40], [1, 1, 0, 0], None, "separates"),
        ([10.0, 20], [1, 0], None, "too few"),
    ],
)
def test_effects_that_cannot_be_known(tokens: list[float], right: list[int], tier: Any, said: str) -> None:
    with pytest.raises(Unidentified, match=said):
        length_effect(tokens, right, tier=tier)


def test_impossible_samples_are_refused() -> None:
    cases: list[tuple[Any, Any, str]] = [
        ([], [], "one sample"),
        ([[1.0]], [[1, 0]], "a length and whether"),
        ([[-1.0]], [[1]], "at least 0"),
        ([[1.0]], [[0.5]], "right or wrong"),
    ]
    for tokens, right, said in cases:
        with pytest.raises(ValueError, match=said):
            length_effect(tokens, right)
    with pytest.raises(ValueError, match="one label"):
        length_effect([1.0, 2.0], [1, 0], tier=["a"])


# ------------------------------------------------------------------------------------------ two models, two efforts


def test_outcomes_of_two_models() -> None:
    classes = [(1578, 200, 1, 100, 1), (916, 100, 1, 200, 1), (636, 100, 0, 100, 1), (180, 100, 1, 100, 0)]
    rows = np.concatenate([np.tile(row, (count, 1)) for count, *row in [*classes, (1090, 100, 0, 100, 0)]])
    comparison = compare_lengths(*rows.T, resamples=50)
    assert comparison.outcomes == pytest.approx(np.array([1578, 916, 636, 180, 1090]) / 4400)
    assert comparison.outcomes.shorter + comparison.outcomes.longer + comparison.outcomes.only_b == pytest.approx(
        0.711, abs=5e-4
    )
    assert comparison.outcomes.shorter + comparison.outcomes.longer + comparison.outcomes.only_a == pytest.approx(
        0.608, abs=5e-4
    )
    assert comparison.ratios.questions == 1578 + 916
    assert (comparison.ratios.low, comparison.ratios.median, comparison.ratios.high) == pytest.approx((0.5, 2, 2))
    assert (comparison.outcomes_interval.low <= np.array(comparison.outcomes)).all()
    assert (np.array(comparison.outcomes) <= comparison.outcomes_interval.high).all()


def test_a_model_against_itself() -> None:
    tokens, right, *_ = clustered(np.random.default_rng(0), 50, -0.5)
    comparison = compare_lengths(tokens, right, tokens, right, resamples=50)
    assert comparison.ratios.median == pytest.approx(1)
    assert comparison.outcomes.only_a == pytest.approx(comparison.outcomes.only_b)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_other_way_round(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = ([rng.integers(1, 100, n) for n in rng.integers(1, 5, 12)] for _ in range(2))
    ra, rb = ([rng.integers(0, 2, row.size) for row in rows] for rows in (a, b))
    ra[0][:], rb[0][:] = 1, 1
    there = compare_lengths(a, ra, b, rb, resamples=1)
    back = compare_lengths(b, rb, a, ra, resamples=1)
    assert 1 / back.ratios.median == pytest.approx(there.ratios.median)
    assert 1 / back.ratios.low == pytest.approx(there.ratios.high)
    assert back.outcomes.only_a == pytest.approx(there.outcomes.only_b)
    assert sum(there.outcomes) == pytest.approx(1)
    wanted = np.mean([row.mean() for row in rb])
    assert there.outcomes.shorter + there.outcomes.longer + there.outcomes.only_b == pytest.approx(wanted)


def test_ratios_in_tiers_and_of_several_samples() -> None:
    comparison = compare_lengths(
        [[100, 400], [30], [50], [70]],
        [[1, 1], [1], [1], [0]],
        [[100], [10], [50], [70]],
        [[1], [1], [1], [1]],
        tier=["x", "x", "y", "z"],
        resamples=50,
    )
    assert comparison.by_tier["x"].median == pytest.approx(np.sqrt(2 * 3))
    assert comparison.by_tier["y"] == pytest.approx((1, 1, 1, 1))
    assert "z" not in comparison.by_tier
    assert comparison.outcomes == pytest.approx(PairedOutcomes(1.5 / 4, 1.5 / 4, 1 / 4, 0, 0))
    assert comparison.interval.low <= comparison.ratios.median <= comparison.interval.high


def test_what_cannot_be_compared() -> None:
    with pytest.raises(Unidentified, match="both have right"):
        compare_lengths([1, 1], [1, 0], [1, 1], [0, 1])
    with pytest.raises(ValueError, match="same questions"):
        compare_lengths([1, 1], [1, 0], [1], [0])
    with pytest.raises(ValueError, match="above 0"):
        compare_lengths([0, 1], [1, 1], [1, 1], [1, 1])
    with pytest.raises(ValueError, match="a tier"):
        compare_lengths([1, 1], [1, 1], [1, 1], [1, 1], tier=["a"])


def test_the_price_of_effort() -> None:
    """The source's numbers: 42 more of 1,000 questions right, for 5,392 more tokens each."""
    low, high = repeated((739, 1), (261, 0)), repeated((781, 1), (219, 0))
    price = price_of_effort([3826] * 1000, low, [9218] * 1000, high)
    assert price.per_solved / 100 == pytest.approx(1283.8, abs=0.05)
    assert price.per_solved == pytest.approx(128_381, abs=0.5)
    assert (price.tokens, price.accuracy) == pytest.approx((5392, 0.042))
    assert price.on_solved == pytest.approx(5392 * 0.739)
    assert price.interval.low < price.per_solved < price.interval.high
    assert price.accuracy_interval.low < 0.042 < price.accuracy_interval.high


def test_a_price_that_does_not_exist() -> None:
    with pytest.raises(Unidentified, match="no price"):
        price_of_effort([1, 1], [1, 0], [2, 2], [1, 0])
    # 26 questions are better and 25 worse, so that in nearly half of the resamples nothing is gained
    with pytest.raises(Unidentified, match="of resamples"):
        price_of_effort([1] * 101, repeated((25, 1), (76, 0)), [2] * 101, repeated((75, 0), (26, 1)))
    with pytest.raises(ValueError, match="same questions"):
        price_of_effort([1, 1], [1, 0], [2], [1])
