"""Tournaments: worked numbers, invariants, and what pairings promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.maths.tournament import (
    Match,
    bradley_terry,
    drawn_pairs,
    elo,
    groups,
    pair_weights,
    priorities,
    swiss_pairs,
    top_third,
    win_rates,
    winner,
)


@pytest.mark.parametrize(
    ("before", "score", "after"),
    [
        ((1200, 1200), 1.0, (1216.0, 1184.0)),
        ((1400, 1200), 0.0, (1375.69, 1224.31)),
        ((1200, 1200), 0.5, (1200.0, 1200.0)),
    ],
)
def test_elo_as_worked_by_hand(before: tuple[float, float], score: float, after: tuple[float, float]) -> None:
    assert elo(before, [Match(0, 1, score)]) == pytest.approx(after, abs=0.005)


PLAYED = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0])).filter(
        lambda one: one[0] != one[1]
    )
)


@given(PLAYED)
def test_elo_conserves_the_sum_and_does_not_see_who_was_shown_first(played: list[tuple[int, int, float]]) -> None:
    matches = [Match(a, b, score) for a, b, score in played]
    turned = [Match(b, a, 1.0 - score) for a, b, score in played]
    after = elo([1200.0] * 5, matches)
    assert sum(after) == pytest.approx(6000.0)
    assert elo([1200.0] * 5, turned) == pytest.approx(after)


def test_pairs_meet_in_proportion_to_similarity_and_priority() -> None:
    similarity = np.zeros((4, 4))
    for pair, value in {(0, 1): 0.9, (0, 2): 0.2, (0, 3): 0.4, (1, 2): 0.3, (1, 3): 0.1, (2, 3): 0.8}.items():
        similarity[pair] = similarity[pair[::-1]] = value
    weights = pair_weights(similarity, [2, 1, 1, 2])
    upper = weights[np.triu_indices(4, 1)]
    assert upper == pytest.approx([2.7, 0.6, 1.6, 0.6, 0.3, 2.4])
    expected = upper / upper.sum()
    assert expected == pytest.approx([0.3293, 0.0732, 0.1951, 0.0732, 0.0366, 0.2927], abs=5e-5)
    first = [tuple(sorted(drawn_pairs(weights, np.random.default_rng(seed))[0])) for seed in range(4000)]
    for share, pair in zip(expected, itertools.combinations(range(4), 2), strict=True):
        # 5 standard errors: a false alarm in 1 of 3 million, and the seeds are fixed
        assert first.count(pair) / 4000 == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 4000))


def test_a_wave_is_disjoint_and_pairs_of_weight_zero_never_meet() -> None:
    weights = pair_weights(np.ones((7, 7)), np.ones(7))
    weights[0, :] = weights[:, 0] = 0.0
    for seed in range(50):
        drawn = drawn_pairs(weights, np.random.default_rng(seed))
        players = [player for pair in drawn for player in pair]
        assert sorted(players) == [1, 2, 3, 4, 5, 6]


def test_priority_is_for_newcomers_and_for_the_top_third() -> None:
    assert priorities([1300, 1200, 1200, 1100, 1200, 1250], [3, 3, 0, 3, 3, 3], 3).tolist() == [2, 1, 2, 1, 1, 2]
    assert not top_third([1200.0] * 6).any(), "nobody is on top where all are equal"


def test_bradley_terry_is_the_log_odds_of_one_pair_and_does_not_see_the_order() -> None:
    matches = [Match(0, 1, 1.0)] * 3 + [Match(1, 0, 1.0)]
    strengths = bradley_terry(2, matches, prior=1e-9)
    assert strengths[0] - strengths[1] == pytest.approx(math.log(3), abs=1e-4)
    assert bradley_terry(2, matches[::-1]) == pytest.approx(bradley_terry(2, matches))
    cycle = [Match(0, 1, 1.0), Match(1, 2, 1.0), Match(2, 0, 1.0)]
    assert bradley_terry(3, cycle) == pytest.approx([0.0] * 3), "a cycle says nothing"
    assert elo([1200.0] * 3, cycle) != pytest.approx([1200.0] * 3), "where Elo says that the last one to win is best"
    assert np.isfinite(bradley_terry(3, [Match(0, 1, 1.0)] * 50)).all()


def test_bradley_terry_finds_the_strengths_that_games_were_drawn_from() -> None:
    """Each estimate within 0.35, four standard errors of about 0.08 and the pull of the prior."""
    rng = np.random.default_rng(7)
    true = np.array([1.0, 0.3, -0.2, -1.1])
    matches = [
        Match(a, b, float(rng.random() < 1 / (1 + math.exp(true[b] - true[a]))))
        for a, b in itertools.combinations(range(4), 2)
        for _ in range(400)
    ]
    fitted = bradley_terry(4, matches)
    assert fitted - fitted.mean() == pytest.approx(true - true.mean(), abs=0.35)


def test_win_rates_are_weighted_by_margins() -> None:
    matches = [Match(0, 1, 1.0, margin=0.9), Match(0, 2, 0.0, margin=0.3), Match(1, 2, 1.0, margin=0.0)]
    rates = win_rates(4, matches)
    assert rates[:3] == pytest.approx([0.9 / 1.2, 0.1 / 1.0, 0.3 / 0.4])
    assert np.isnan(rates[3])


@pytest.mark.parametrize("n", [2, 3, 7, 16])
@pytest.mark.parametrize("window", [1, 2, 8])
def test_swiss_rounds_come_to_the_full_round_robin_and_repeat_nothing(n: int, window: int) -> None:
    met: list[tuple[int, int]] = []
    ratings = [float(player) for player in range(n)]
    while new := swiss_pairs(ratings, met, window):
        players = [player for pair in new for player in pair]
        assert len(players) == len({*players})
        near = [pair for pair in itertools.combinations(range(n), 2) if abs(pair[0] - pair[1]) <= window]
        left = {frozenset(pair) for pair in near} - {frozenset(pair) for pair in met}
        if left:
            assert {frozenset(pair) for pair in new} <= left, "those of the window come first"
        met += new
    assert len(met) == len({frozenset(pair) for pair in met}) == n * (n - 1) // 2


def test_a_bracket_of_pairs_has_one_match_less_than_players() -> None:
    left, matches = [*range(16)], 0
    while len(left) > 1:
        met = [*groups(left, 2)]
        matches += sum(len(group) > 1 for group in met)
        left = [group[0] for group in met]
    assert matches == 15


def test_the_winner_has_played_enough_and_ties_go_to_who_beat_the_others() -> None:
    matches = [Match(1, 0, 1.0), Match(0, 2, 1.0), Match(1, 2, 0.0)]
    assert winner([5.0, 5.0, 1.0, 9.0], matches, 1) == 1
    assert winner([5.0, 5.0, 1.0, 9.0], matches, 3) == 3, "nobody has played three"
    assert winner([math.nan, 0.0], [], 0) == 1
