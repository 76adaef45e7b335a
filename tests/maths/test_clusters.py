"""Clusters of continuous answers, and the vote with a tolerance."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outthink import Sampling, Trace
from outthink.driver import solve_async
from outthink.maths.clusters import gap_clusters, medoids, radius_clusters
from outthink.maths.selection import codes
from outthink.maths.selection import majority as most_frequent
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.parallel.sample_and_cluster import SampleAndCluster, grouped
from outthink.strategies.parallel.self_consistency import SelfConsistency
from tests.tools.toys import problem
from tests.tools.virtual import run

VALUES = np.array([9.9, 10.1, 10.3, 20.0, 20.4, 35.0])

untimed = settings(deadline=None)  # a busy machine is no failure
numbers = st.lists(st.integers(-40, 40).map(lambda quarters: quarters / 4), min_size=1, max_size=12)
scales = st.integers(-20, 20).map(lambda power: 2.0**power)  # exact, so that nothing is rounded


def apart(values: Any) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    return np.asarray(np.abs(values[:, None] - values))


def partition(labels: Any) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(np.asarray(labels) == label).tolist()) for label in {*labels} - {-1}}


def weights(labels: Any) -> Any:
    """The share of all samples in each cluster."""
    labels = np.asarray(labels, np.intp)
    return np.unique(labels[labels >= 0], return_counts=True)[1] / max(len(labels), 1)


# ---- functions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [gap_clusters(VALUES, 1), radius_clusters(apart(VALUES), 1)])
def test_the_numbers_of_the_example(labels: Any) -> None:
    assert labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert weights(labels).tolist() == pytest.approx([0.5, 1 / 3, 1 / 6])
    middle = VALUES[medoids(apart(VALUES), labels)]
    assert middle.tolist() == [10.1, 20.0, 35.0]  # 20.0 and 20.4 are equally near: the first
    assert abs(VALUES.mean() - 20.2) == pytest.approx(2.58, abs=0.005)  # no answer says 17.6


@untimed
@given(numbers)
def test_without_a_tolerance_clusters_are_groups_of_equal_answers(values: list[float]) -> None:
    equal = partition(codes([str(value) for value in values]))
    assert partition(gap_clusters(values, 0)) == equal
    assert partition(radius_clusters(apart(values), 0)) == equal


@untimed
@given(numbers, st.integers(0, 12).map(lambda quarters: quarters / 4))
def test_what_clusters_are(values: list[float], delta: float) -> None:
    gap, radius = gap_clusters(values, delta), radius_clusters(apart(values), delta)
    assert weights(gap).sum() == pytest.approx(1)
    assert weights(radius).sum() == pytest.approx(1)
    clusters = sorted(sorted(values[index] for index in cluster) for cluster in partition(gap))
    for cluster in clusters:
        assert all(b - a <= delta for a, b in itertools.pairwise(cluster))
    for one, following in itertools.pairwise(clusters):
        assert following[0] - one[-1] > delta
    for members in partition(radius):  # some member is within the radius of all
        inside = apart(values)[np.ix_([*members], [*members])]
        assert inside.max(-1).min() <= delta
    assert np.all(np.diff(weights(radius)) <= 0)  # the largest first
    assert all(any(members <= chain for chain in partition(gap)) for members in partition(radius))


@untimed
@given(numbers, st.integers(0, 12).map(lambda quarters: quarters / 4), scales)
def test_scaling_values_and_tolerance_alike_changes_nothing(values: list[float], delta: float, scale: float) -> None:
    scaled = np.array(values) * scale
    assert gap_clusters(scaled, delta * scale).tolist() == gap_clusters(values, delta).tolist()
    radius = radius_clusters(apart(values), delta)
    assert radius_clusters(apart(scaled), delta * scale).tolist() == radius.tolist()
    assert medoids(apart(scaled), radius).tolist() == medoids(apart(values), radius).tolist()


@untimed
@given(numbers, st.integers(0, 12).map(lambda quarters: quarters / 4), st.randoms(use_true_random=False))
def test_order_changes_nothing_but_ties(values: list[float], delta: float, random: Any) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    shuffled = np.array(values)[order]
    labels = gap_clusters(values, delta)
    assert gap_clusters(shuffled, delta).tolist() == labels[order].tolist()
    again = medoids(apart(shuffled), labels[order])
    for before, after in zip(medoids(apart(values), labels), again, strict=True):
        members = np.array(values)[labels == labels[before]]
        sums = [float(np.abs(members - one).sum()) for one in (values[before], shuffled[after])]
        assert sums[0] == pytest.approx(sums[1])


def test_many_rows_at_once() -> None:
    rows = [[1.0, 5.0, 1.5], [3.0, math.nan, 9.0], [math.inf, 2.0, 2.0], [math.nan] * 3]
    assert gap_clusters(rows, 1).tolist() == [[0, 1, 0], [0, -1, 1], [-1, 0, 0], [-1, -1, -1]]
    assert gap_clusters([], 1).tolist() == []


def test_a_chain_is_one_cluster_by_gaps_and_several_by_radius() -> None:
    chain = np.arange(11.0)
    assert weights(gap_clusters(chain, 1)).tolist() == [1.0]
    labels = radius_clusters(apart(chain), 1)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    many = np.linspace(0, 10, 1000)  # with more samples gaps vanish
    assert len(weights(gap_clusters(many, 0.02))) == 1
    assert len(weights(radius_clusters(apart(many), 1.0))) >= 5


def test_a_tolerance_includes_what_is_just_so_near() -> None:
    assert 20.1 - 20.0 > 0.1  # in binary
    assert gap_clusters([20.0, 20.1], 0.1).tolist() == [0, 0]
    assert radius_clusters(apart([20.0, 20.1]), 0.1).tolist() == [0, 0]
    assert gap_clusters([20.0, 20.1, 1e20], 0.09).tolist() == [0, 1, 2]  # whatever else is there
    assert radius_clusters(apart([20.0, 20.1, 1e20]), 0.09).tolist() == [0, 1, 2]
    assert gap_clusters([2.0**30, 2.0**30 + 1], 0).tolist() == [0, 1]


def test_at_most_k_clusters_and_all_of_them() -> None:
    distances = apart([0.0, 0.1, 5.0, 9.0])
    assert radius_clusters(distances, 1, k=2).tolist() == [0, 0, 1, -1]
    assert weights(radius_clusters(distances, 1, k=2)).tolist() == [0.5, 0.25]
    assert radius_clusters(distances, 0.05, k=4).tolist() == [0, 1, 2, 3]  # every sample is returned
    assert radius_clusters([[0.0]], 1, k=1).tolist() == [0]
    assert radius_clusters([[math.nan]], 1).tolist() == [-1]
    assert radius_clusters(np.zeros((0, 0)), 1).tolist() == []
    assert medoids(np.zeros((0, 0)), []).tolist() == []
    assert weights([]).tolist() == []


def test_vectors_have_clusters_too() -> None:
    lanes = np.array([[0.0, 3.0], [0.1, 3.0], [0.0, -3.0], [0.1, -3.1], [0.0, -3.2]])
    distances = np.linalg.norm(lanes[:, None] - lanes, axis=-1)
    labels = radius_clusters(distances, 0.5)
    assert labels.tolist() == [1, 1, 0, 0, 0]
    assert lanes[medoids(distances, labels)].tolist() == [[0.1, -3.1], [0.0, 3.0]]
    assert np.linalg.norm(lanes - lanes.mean(0), axis=-1).min() > 1  # the mean is between two lanes


def test_tolerances_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="delta must be at least 0"):
        gap_clusters([1.0], -1)
    with pytest.raises(ValueError, match="radius must be at least 0"):
        radius_clusters([[0.0]], math.nan)
    with pytest.raises(ValueError, match="k must be at least 1"):
        radius_clusters([[0.0]], 1, k=0)


# ---- the strategy ---------------------------------------------------------------------------------------------------


def solve(strategy: Any, answers: list[str], *, kind: Any = "math", options: tuple[str, ...] = ()) -> Trace:
    engine = ScriptedEngine(lambda request, child, rng: f"#### {answers[child]}" if answers[child] else "none")
    asked = replace(problem(), answer=kind, options=options)
    trace = run(solve_async(asked, strategy, model=engine, sampling=Sampling(max_tokens=40)))
    assert trace.stopped == "finished"
    return trace


ANSWERS = ["9.9", "10.1", "10.3", "20.0", "20.4", "35"]


@pytest.mark.parametrize("rule", ["gap", "radius"])
def test_the_middle_of_the_largest_group_answers(rule: Any) -> None:
    trace = solve(SampleAndCluster(n=6, tolerance=1.0, rule=rule), ANSWERS)
    assert (trace.answer, trace.confidence) == ("10.1", 0.5)
    assert trace.rounds[-1].candidates == ("model/0/1",)
    three = solve(SampleAndCluster(n=6, tolerance=1.0, k=3, rule=rule), ANSWERS).rounds[-1]
    assert three.candidates == ("model/0/1", "model/0/3", "model/0/5")
    assert three.scores == pytest.approx((1 / 2, 1 / 3, 1 / 6))
    assert three.answer == "10.1"
    every = solve(SampleAndCluster(n=6, tolerance=0.05, k=6, rule=rule), ANSWERS).rounds[-1]
    assert len(every.candidates) == 6


answers = st.lists(st.sampled_from(["1", "1.0", "2", "3/2", "1.5", "x", "no idea at all", ""]), min_size=1, max_size=7)


@untimed
@given(answers)
def test_without_a_tolerance_groups_are_the_keys(given: list[str]) -> None:
    keys = [key or None for key in given]
    assert grouped(keys, np.arange(len(keys), dtype=np.float64), 0.0).tolist() == codes(keys).tolist()
    assert (
        grouped(keys, np.full(len(keys), math.nan), 1.0).tolist() == codes(keys).tolist()
    )  # no numbers: nothing is near


@pytest.mark.parametrize("seed", range(6))
def test_without_a_tolerance_it_is_self_consistency(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = [str(rng.choice(["1", "1.0", "2", "3/2", "1.500", "", "77"])) for _ in range(7)]
    mine, vote = solve(SampleAndCluster(n=7), given), solve(SelfConsistency(n=7), given)
    assert mine.rounds[-1].chosen == vote.rounds[-1].chosen
    assert mine.confidence == vote.confidence
    assert mine.answer == vote.answer


def test_answers_that_are_no_numbers_are_grouped_by_equality() -> None:
    strategy = SampleAndCluster(n=5, tolerance=1.0)
    assert solve(strategy, ["x", "x", "x", "1.1", "1.2"]).answer == "x"
    assert solve(strategy, ["x", "y", "1.1", "1.2", "1.3"]).answer == "1.2"
    assert solve(strategy, ["1", "2", "2", "3", "3"], kind="choice", options=("1", "2", "3")).confidence == 0.4
    assert solve(strategy, ["10^999", "10^999", "5", "", ""]).answer == "10^999"  # too large for a float
    assert solve(strategy, ["1", "", "", "", ""]).confidence == 1.0  # what cannot be read does not vote
    assert solve(strategy, ["", "", "", "", ""]).answer is None
    assert solve(SampleAndCluster(n=1, tolerance=1.0), ["5"]).answer == "5"


def test_mixed_groups_keep_apart() -> None:
    labels = grouped(["x", "1", "2", None, "y", "9"], np.array([math.nan, 1, 2, 5, math.nan, 9]), 1.0)
    assert partition(labels) == {frozenset({0}), frozenset({1, 2}), frozenset({4}), frozenset({5})}
    assert labels[3] == -1
    assert int(most_frequent(labels).index) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"n": 0}, "n must"), ({"k": 0}, "k must"), ({"tolerance": -1.0}, "tol"), ({"tolerance": math.inf}, "finite")],
)
def test_hyperparameters_out_of_range(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SampleAndCluster(**wrong)
