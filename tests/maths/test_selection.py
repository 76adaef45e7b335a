from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outthink.maths.selection import (
    Aggregation,
    Tally,
    aggregate,
    best_of,
    codes,
    first_of_equals,
    majority,
    mean_ranks,
    numbers,
    weighted_vote,
)

KEYS = codes(["A", "B", "A", "C", "B"])
STEPS = [[0.9, 0.8], [0.95, 0.9], [0.6, 0.9], [0.99], [0.7, 0.99]]


def scores(rule: Aggregation) -> np.ndarray:
    return np.array([float(aggregate(steps, rule)) for steps in STEPS])


def test_codes_follow_first_appearance_and_none_is_invalid() -> None:
    assert codes(["x", None, "y", "x"]).tolist() == [0, -1, 1, 0]
    assert np.isnan(numbers([1.0, None])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("rule", "expected", "best", "winner"),
    [
        ("last", [0.8, 0.9, 0.9, 0.99, 0.99], 3, {1, 4}),
        ("min", [0.8, 0.9, 0.6, 0.99, 0.7], 3, {1, 4}),
        ("prod", [0.72, 0.855, 0.54, 0.99, 0.693], 3, {1, 4}),
        ("mean", [0.85, 0.925, 0.75, 0.99, 0.845], 3, {1, 4}),
    ],
)
def test_aggregation_rules(rule: Aggregation, expected: list[float], best: int, winner: set[int]) -> None:
    assert scores(rule) == pytest.approx(expected)
    assert best_of(KEYS, scores(rule)).index == best
    assert int(weighted_vote(KEYS, scores(rule)).index) in winner


def test_sums_of_scores_by_answer() -> None:
    last = scores("last")
    assert [last[key == KEYS].sum() for key in range(3)] == pytest.approx([1.70, 1.89, 0.99])
    assert [scores("min")[key == KEYS].sum() for key in (0, 1)] == pytest.approx([1.4, 1.6])
    assert [scores("prod")[key == KEYS].sum() for key in (0, 1)] == pytest.approx([1.26, 1.548])
    assert [scores("mean")[key == KEYS].sum() for key in (0, 1)] == pytest.approx([1.60, 1.77])
    assert weighted_vote(KEYS, last).share == pytest.approx(1.89 / 4.58)


def test_a_tie_goes_to_the_first_seen_and_then_to_the_shorter() -> None:
    assert majority(KEYS).index == 0
    assert majority(KEYS, lengths=[9, 5, 9, 1, 5]).index == 1
    assert weighted_vote(codes(["A", "B", "B"]), [0.8, 0.4, 0.4]).index == 0  # equal sums: the larger best score
    assert weighted_vote(codes(["A", "A", "B"]), [0.1, 0.2, 0.3]).index == 2  # 0.1 + 0.2 is a tie with 0.3
    assert best_of(codes(["A", "B"]), [0.5, 0.5], lengths=[7, 3]).index == 1


def test_invalid_and_missing() -> None:
    assert majority(codes([None, None])).index == -1
    assert majority(codes([None, None, None, "A"])).index == 3
    assert best_of(codes([None, "A", "B"]), [9.0, 0.1, np.nan]).index == 1
    assert best_of(codes(["A", "B"]), [np.nan, np.nan]).index == 0
    assert weighted_vote(codes(["A", "B"]), [np.nan, 0.1]).index == 1
    assert weighted_vote(codes(["A", "B"]), [0.0, 0.0]).share == 0.0
    assert majority(np.zeros((3, 0), dtype=int)).index.tolist() == [-1, -1, -1]
    for weights in ([-0.1, 0.5], [np.inf, 0.5]):
        with pytest.raises(ValueError, match="at least 0"):
            weighted_vote(codes(["A", "B"]), weights)
    with pytest.raises(ValueError, match="no step scores"):
        aggregate([])
    with pytest.raises(ValueError, match="no aggregation"):
        aggregate([1.0], "median")  # type: ignore[arg-type]  # what is tested


def test_the_answer_does_not_depend_on_the_order_except_in_ties() -> None:
    for order in permutations(range(5)):
        keys = KEYS[list(order)]
        assert keys[weighted_vote(keys, scores("last")[list(order)]).index] == 1
        assert keys[best_of(keys, scores("prod")[list(order)]).index] == 2


arrays = hnp.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=st.integers(-1, 3))


@given(arrays, st.data())
def test_a_batch_is_its_rows_and_reductions_hold(keys: np.ndarray, data: st.DataObject) -> None:
    weights = data.draw(hnp.arrays(float, keys.shape, elements=st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 1.0])))
    for rule in (weighted_vote, best_of):
        together = rule(keys, weights)
        alone = [rule(row, weight) for row, weight in zip(keys, weights, strict=True)]
        assert together.index.tolist() == [int(choice.index) for choice in alone]
        assert together.share == pytest.approx([float(choice.share) for choice in alone])
    constant = np.full(keys.shape, 0.5)
    assert np.array_equal(weighted_vote(keys, constant).index, majority(keys).index)  # constant scores: majority
    first = np.where((keys >= 0).any(-1), (keys >= 0).argmax(-1), -1)
    assert np.array_equal(best_of(keys, constant).index, first)  # constant scores: the first valid one
    for row, choice in zip(keys, majority(keys).index, strict=True):
        counts = np.bincount(row[row >= 0], minlength=1)
        assert choice == -1 if (row < 0).all() else counts[row[choice]] == counts.max()


@given(arrays, st.sampled_from([0.0, np.nan, 1e-300, 1e-14, 1.0, 1e300]), st.data())
def test_equal_weights_are_the_majority_however_small(keys: np.ndarray, weight: float, data: st.DataObject) -> None:
    lengths = data.draw(hnp.arrays(float, keys.shape, elements=st.integers(1, 5)))
    weights = np.where(keys >= 0, weight, data.draw(st.sampled_from([0.0, 7.0, np.inf, -1.0])))  # of INVALID: nothing
    voted = weighted_vote(keys, weights, lengths=lengths)
    assert voted.index.tolist() == majority(keys, lengths=lengths).index.tolist()
    assert voted.share == pytest.approx(0.0 if not weight > 0 else majority(keys).share)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_missing(odd: float) -> None:
    assert best_of(codes(["A", "B", "C"]), [0.1, odd, 0.2]).index == 2
    assert best_of(codes(["A", "B"]), [odd, odd], lengths=[2, 1]).index == 1
    assert np.isnan(numbers([odd, None])).all()
    assert numbers([True, False, 3]).tolist() == [1.0, 0.0, 3.0]


@given(arrays)
def test_the_tally_is_the_majority_of_every_beginning(keys: np.ndarray) -> None:
    lengths = (keys + 2) * (1 + np.arange(keys.shape[-1]) % 3)
    for row, length in zip(keys, lengths, strict=True):
        tally = Tally()
        for place, key in enumerate(row.tolist()):
            tally.add(None if key < 0 else str(key), float(length[place]), place)
            choice = majority(row[: place + 1], lengths=length[: place + 1])
            assert (-1 if tally.leader is None else tally.leader) == choice.index
            assert tally.share == pytest.approx(float(choice.share))
            counts = sorted(np.unique(row[: place + 1][row[: place + 1] >= 0], return_counts=True)[1], reverse=True)
            assert [tally.votes, tally.runner_up] == [*counts, 0, 0][:2]
            assert tally.top(5) == counts[:5]


@settings(deadline=None)
@given(arrays, st.data())
def test_firsts_and_ranks(keys: np.ndarray, data: st.DataObject) -> None:
    from scipy.stats import rankdata

    counted = data.draw(hnp.arrays(bool, keys.shape))
    first = first_of_equals(keys, counted)
    for row in range(len(keys)):
        seen: set[int] = set()
        for column, key in enumerate(keys[row].tolist()):
            assert first[row, column] == (bool(counted[row, column]) and key not in seen)
            seen |= {key} if counted[row, column] else set()
    scores = np.where(counted, keys.astype(float), np.nan)
    assert np.array_equal(mean_ranks(scores), rankdata(scores, axis=-1, nan_policy="omit"), equal_nan=True)
