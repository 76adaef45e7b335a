"""What a verifier accepts, by how hard questions are; and false positives."""

from __future__ import annotations

import gzip
import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outthink.errors import Unidentified
from outthink.laws.coverage import pass_at_k
from outthink.laws.verification import (
    by_difficulty,
    corrected,
    count,
    difficulty,
    fit,
    gain,
    joint_rate,
    precision,
    sound_coverage,
)

DATA = Path(os.environ.get("OUTTHINK_DATA", "no data"))
SCORES = DATA / "pool_rewardmath_scores" / "samples.jsonl.gz"
STEPS = DATA / "processbench"
RATE = st.floats(0, 1)


def verdicts(
    rates: list[float] | NDArray[Any], tpr: float, tnr: float, *, n: int = 40, seed: int = 0
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Questions with these pass rates, and one verdict on each sample."""
    rng = np.random.default_rng(seed)
    correct = [rng.random(n) < rate for rate in rates]
    return correct, [np.where(right, rng.random(n) < tpr, rng.random(n) >= tnr).astype(float) for right in correct]


# ---- formulas -------------------------------------------------------------------------------------------------------


def test_precision_by_hand() -> None:
    assert float(precision(0.3, 0.8, 0.9)) == pytest.approx(0.774194, abs=5e-7)
    assert float(gain(0.3, 0.8, 0.9)) == pytest.approx(0.474194, abs=5e-7)
    assert float(precision(0.3, 0.8, 1)) == 1
    assert float(gain(1, 0.8, 0.9)) == 0
    assert float(precision(0.3, 0, 1)) == 0.3  # nothing is accepted
    assert precision([0.1, 0.5], [[1.0], [0.5]], 0.5).shape == (2, 2)


@given(RATE, RATE, RATE)
@settings(deadline=None)
def test_what_holds_of_every_verifier(pi: float, tpr: float, tnr: float) -> None:
    if tpr > 1e-6:  # verdicts that do not depend on the truth
        assert float(gain(pi, tpr, 1 - tpr)) == pytest.approx(0, abs=1e-9)
    assert 0 <= float(precision(pi, tpr, tnr)) <= 1 + 1e-12


@pytest.mark.parametrize("wrong", [(1.1, 0.5, 0.5), (0.5, -0.1, 0.5), (0.5, 0.5, float("nan"))])
def test_what_is_no_rate_is_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        precision(*wrong)


# ---- one verifier ---------------------------------------------------------------------------------------------------


def test_counts() -> None:
    counts = count([[True, False], [False]], [[[0.5, np.nan], [0.4, 0.9]], [np.nan]])
    assert (counts.right.tolist(), counts.wrong.tolist()) == ([2, 0], [2, 1])
    assert (counts.accepted_right.tolist(), counts.accepted_wrong.tolist(), counts.unread.tolist()) == (
        [1, 0],
        [1, 0],
        [1, 1],
    )
    strict = count([[True, False]], [[0.5, 0.9]], threshold=0.6)
    assert (strict.accepted_right.tolist(), strict.accepted_wrong.tolist()) == ([0], [1])
    assert count([[True]], [[True]]).accepted_right.tolist() == [1]
    for truth, said in (([], []), ([[]], [[]]), ([[True]], [[1, 0]]), ([[True]], [[[[1]]]])):
        with pytest.raises(ValueError, match="question"):
            count(truth, said)


def test_rates_are_means_over_questions_that_have_both() -> None:
    correct = [[True, True, False, False], [True, False], [True], [False]]
    said = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0], [0.0], [1.0]]
    verifier = fit(count(correct, said))
    assert (verifier.questions, verifier.all_questions, verifier.unread) == (2, 4, 0)
    assert verifier.value.tpr == pytest.approx((1 / 2 + 1) / 2)
    assert verifier.value.tnr == pytest.approx((1 + 0) / 2)
    assert verifier.value.balanced == pytest.approx(0.625)
    assert verifier.value.pooled_tpr == pytest.approx(2 / 4)
    assert verifier.value.pooled_tnr == pytest.approx(2 / 4)
    assert verifier.value.pass_rate == pytest.approx(0.5)
    assert verifier.value.gain == pytest.approx(
        (0.5 + 0 + 0 + 0) / 4
    )  # the third accepts nothing and keeps its answers
    assert verifier.value.even == pytest.approx(0.75 / (0.75 + 0.5))


def test_pooling_hides_how_easy_questions_are() -> None:
    """Easy questions with a lax verifier and hard ones with a strict one: within each the verdicts are random."""
    correct = [[True] * 9 + [False]] * 4 + [[True] + [False] * 9] * 4
    said: list[list[float]] = [[1.0] * 10] * 4 + [[0.0] * 10] * 4
    verifier = fit(count(correct, said))
    assert verifier.value.balanced == pytest.approx(0.5)
    assert verifier.value.pooled_tpr == verifier.value.pooled_tnr == pytest.approx(0.9)
    assert verifier.value.gain == 0


def test_the_rates_of_a_verifier_are_recovered() -> None:
    """TPR .8 and TNR .9; of 30 intervals of 95%, fewer than 23 hold the truth once in 1,200 cases (binomial, 0.93)."""
    held = np.zeros(3)
    for seed in range(30):
        correct, said = verdicts(np.full(40, 0.3), 0.8, 0.9, seed=seed)
        verifier = fit(count(correct, said), seed=seed)
        interval = verifier.at_interval([0.3, 0.6])
        assert (interval.low < verifier.at([0.3, 0.6])).all()
        held += [
            verifier.low.tpr <= 0.8 <= verifier.high.tpr,
            verifier.low.tnr <= 0.9 <= verifier.high.tnr,
            bool(interval.low[1] <= precision(0.6, 0.8, 0.9) <= interval.high[1]),
        ]
    assert (held >= 23).all()


def test_controls() -> None:
    """Accepting everything gains exactly nothing; chance gains within its interval (fixed seed; missed in 5%)."""
    correct, _ = verdicts(np.linspace(0.1, 0.9, 50), 1, 1)
    everything = fit(count(correct, [np.ones(40)] * 50))
    assert everything.value[:3] == (1, 0, 0.5)
    assert (everything.value.gain, everything.pays) == (0, False)
    assert everything.at([0.2, 0.7]) == pytest.approx([0.2, 0.7])
    nothing = fit(count(correct, [np.zeros(40)] * 50))
    assert (nothing.value.tpr, nothing.value.tnr, nothing.value.gain, nothing.value.even) == (0, 1, 0, 0.5)
    rng = np.random.default_rng(100)
    chance = fit(count(correct, [rng.random(40) for _ in range(50)]))
    assert chance.low.gain < 0 < chance.high.gain
    assert not chance.pays
    perfect = fit(count(correct, [right.astype(float) for right in correct]))
    assert perfect.value[:3] == (1, 1, 1)
    assert perfect.pays
    assert perfect.value.gain == pytest.approx(1 - perfect.value.pass_rate)


def test_a_verifier_cannot_be_told_from_how_easy_questions_are() -> None:
    for correct in ([[True, True], [False, False]], [[True, False], [True, True]]):
        with pytest.raises(Unidentified, match="two are needed"):
            fit(count(correct, [[1.0, 0.0], [1.0, 0.0]]))


# ---- by difficulty --------------------------------------------------------------------------------------------------


def test_difficulty_is_that_of_several_generators() -> None:
    assert difficulty([[[True, True], [False]], [[False, True], [True, True, False]]]) == pytest.approx([0.75, 1 / 3])
    for wrong in ([], [[[True]], [[True], [False]]]):
        with pytest.raises(ValueError, match="same questions"):
            difficulty(wrong)


def test_easy_questions_are_accepted_more_often() -> None:
    """TPR from .5 to .9, TNR .7 everywhere, in 60 questions: fixed seed, intervals of 95%."""
    rng = np.random.default_rng(0)
    rates = np.linspace(0.15, 0.9, 60)
    parts = [verdicts([rate], 0.4 + 0.55 * rate, 0.7, seed=seed) for seed, rate in enumerate(rates)]
    counts = count([part[0][0] for part in parts], [part[1][0] for part in parts])
    order = rng.permutation(60)
    quarters = by_difficulty(counts.select(order), rates[order])
    assert [np.sum(quarters.members == one) for one in range(4)] == [15, 15, 15, 15]
    assert quarters.easiness == pytest.approx([rates[15 * one : 15 * one + 15].mean() for one in range(4)])
    hard, *_, easy = quarters.bins
    assert hard is not None
    assert easy is not None
    assert quarters.trend == pytest.approx([easy.value.tpr - hard.value.tpr, easy.value.tnr - hard.value.tnr])
    assert quarters.trend_interval.low[0] > 0
    assert quarters.trend_interval.low[1] < 0 < quarters.trend_interval.high[1]


def test_bins_without_both_kinds_of_samples() -> None:
    correct, said = verdicts([0.0] * 6 + [0.4] * 6 + [0.6] * 6 + [1.0] * 6, 0.8, 0.8)
    quarters = by_difficulty(count(correct, said), [0.0] * 6 + [0.4] * 6 + [0.6] * 6 + [1.0] * 6)
    assert [one is None for one in quarters.bins] == [True, False, False, True]
    assert len(quarters.trend) == 2
    equal = by_difficulty(count(*verdicts([0.5] * 12, 0.8, 0.8)), [0.2] * 8 + [0.9] * 4)
    assert equal.members.tolist() == [0] * 8 + [1] * 4  # equally difficult ones stay together
    counts = count(*verdicts([0.5] * 4, 0.8, 0.8))
    for easiness, bins, said_so in (([0.1], 4, "one difficulty"), ([0.1, 0.2, 0.3, np.nan], 4, "one difficulty")):
        with pytest.raises(ValueError, match=said_so):
            by_difficulty(counts, easiness, bins=bins)
    with pytest.raises(ValueError, match="at least 2"):
        by_difficulty(counts, [0.1, 0.2, 0.3, 0.4], bins=1)
    with pytest.raises(Unidentified, match="1 of 1 bins"):
        by_difficulty(counts, [0.5] * 4)


# ---- right answers with wrong reasons -------------------------------------------------------------------------------


def test_right_answers_that_are_not_sound() -> None:
    right, sound = [[True, True, False, True]] * 2, [[False, False, False, True]] * 2
    coverage = sound_coverage(right, sound, [1, 2, 4])
    assert coverage.answer == pytest.approx([0.75, 1, 1])
    assert coverage.sound == pytest.approx([0.25, 0.5, 1])
    assert coverage.false_positives == pytest.approx(2 / 3)
    wrong_but_sound = sound_coverage([[False, True]] * 2, [[True, True]] * 2, [1])
    assert wrong_but_sound.answer == wrong_but_sound.sound == pytest.approx([0.5])


def test_fewer_answers_are_sound_than_right() -> None:
    """Accuracy .8, of which 15% have no sound reasons, is .68; coverage grows and stays below."""
    correct = [np.arange(20) < 16] * 5
    sound = [np.arange(20) >= unsound for unsound in (0, 1, 2, 4, 5)]  # on average 2.4 of 16 are not
    coverage = sound_coverage(correct, sound, [1, 2, 5, 20])
    assert coverage.answer[0] == pytest.approx(0.8)
    assert coverage.false_positives == pytest.approx(0.15)
    assert coverage.sound[0] == pytest.approx(0.68)
    assert (np.diff(coverage.sound) >= 0).all()
    assert (coverage.sound <= coverage.answer).all()
    assert coverage.sound == pytest.approx(
        [np.mean(pass_at_k(20, [(a & b).sum() for a, b in zip(correct, sound, strict=True)], k)) for k in (1, 2, 5, 20)]
    )
    assert coverage.false_positives_interval.low <= coverage.false_positives <= coverage.false_positives_interval.high
    with pytest.raises(Unidentified, match="No answer is right"):
        sound_coverage([[False], [False]], [[True], [True]], [1])
    for bad in ([[True]], []):
        with pytest.raises(ValueError, match="sample"):
            sound_coverage(bad, [[True, False]] * len(bad), [1])


# ---- recorded -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SCORES.exists(), reason="the recorded scores are not here")
def test_recorded_judges() -> None:
    """237 problems, one right and nine wrong solutions of each; what general judges make of them."""
    with gzip.open(SCORES, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    correct = [[one["correct"] for one in row["samples"]] for row in rows]

    def scores(judge: str) -> list[NDArray[Any]]:
        return [np.array(row["scores"][judge], dtype=float) for row in rows]

    good, lax = (fit(count(correct, scores(judge), threshold=at)) for judge, at in (("gpt4", 6), ("prometheus_7B", 4)))
    assert (good.pays, lax.pays) == (True, False)
    assert good.value.tpr < lax.value.tpr  # which says nothing by itself
    assert good.low.balanced > lax.high.balanced


@pytest.mark.skipif(not STEPS.exists(), reason="the labelled solutions are not here")
def test_right_answers_with_wrong_steps_by_people() -> None:
    """Harder problems have more right answers with a wrong step."""
    shares = []
    for name in ("gsm8k", "math", "omnimath_part"):
        rows = [json.loads(line) for line in (STEPS / f"{name}.jsonl").read_text().splitlines()]
        coverage = sound_coverage(
            [[row["final_answer_correct"]] for row in rows], [[row["label"] == -1] for row in rows], [1]
        )
        shares.append((coverage.false_positives_interval.low, coverage.false_positives_interval.high))
    assert all(easier[1] < harder[0] for easier, harder in combinations(shares, 2))


def test_six_questions_that_were_judged_well_prove_little() -> None:
    """All wrong samples of six questions were rejected: TNR is 100%, and may well be 60%."""
    verifier = fit(count([[True, False, False]] * 6, [[1.0, 0.0, 0.0]] * 6))
    assert (verifier.value.tnr, verifier.high.tnr) == (1.0, 1.0)
    assert verifier.low.tnr == pytest.approx(0.025 ** (1 / 6))
    assert verifier.low.balanced == pytest.approx(verifier.low.tpr)
    assert verifier.low.pooled_tnr < 0.6
    assert float(verifier.at_interval(0.5).low) < 0.65 < float(verifier.at(0.5)) == 1.0


@pytest.mark.parametrize(
    ("rates", "product", "reported"),
    [
        ([0.68, 0.875, 0.63, 0.91, 0.98], 0.3343, 0.435),  # of the source's table
        ([0.625, 0.345, 0.175, 0.865, 0.995], 0.0325, 0.08),
        ([0.90] * 4, 0.6561, None),
        ([0.95] * 4, 0.8145, None),
        ([0.99] * 4, 0.9606, None),
        ([0.7, 1.0], 0.7, None),  # one that always passes changes nothing
    ],
)
def test_the_product_of_rates_is_below_the_joint_rate_of_verdicts_that_go_together(
    rates: list[float], product: float, reported: float | None
) -> None:
    assert joint_rate(rates) == pytest.approx(product, abs=5e-5)
    if reported is not None:
        assert joint_rate(rates) < reported <= min(rates)


def test_joint_rate_of_several() -> None:
    assert joint_rate([[0.5, 0.5], [1.0, 0.25]]).tolist() == [0.25, 0.25]
    with pytest.raises(ValueError, match="from 0 to 1"):
        joint_rate([1.5])


def test_an_observed_rate_is_corrected_by_the_errors_of_the_judge() -> None:
    assert corrected([0.47, 0.08], 0.90, 0.95) == pytest.approx([0.494, 0.035], abs=5e-4)
    assert corrected(0.3, 1.0, 1.0) == pytest.approx(0.3)
    assert corrected([0.01, 0.98], 0.9, 0.95).tolist() == [0.0, 1.0]
    truth = np.linspace(0, 1, 11)
    observed = truth * 0.9 + (1 - truth) * (1 - 0.8)
    np.testing.assert_allclose(corrected(observed, 0.9, 0.8), truth, atol=1e-12)
    with pytest.raises(Unidentified):
        corrected(0.5, 0.5, 0.5)
