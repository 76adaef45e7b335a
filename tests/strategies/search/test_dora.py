"""DORA: the paper's numbers, what it reduces to, and that directions and not candidates share the children."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from outthink.errors import EngineError
from outthink.maths.resampling import largest_remainder, sequential_ceil, softmax
from outthink.models.engine import Request
from outthink.resources.embedding import Vectors
from outthink.strategies.search.dora import DORA, direction_weights, own_shares, whole_children
from outthink.strategies.search.loop import Level, Rounds
from outthink.strategies.search.rebase import Rebase
from tests.strategies.search.test_search import VIEW, Counts, Driven, Prm, flaky, node, noise, solved, steps

REWARDS = [0.9, 0.8, 0.8, 0.6]
COSINES = np.array([[1, 0.995, 0.93, 0.70], [0.995, 1, 0.93, 0.70], [0.93, 0.93, 1, 0.72], [0.70, 0.70, 0.72, 1]])


def level(rewards: Sequence[float | None], vectors: Sequence[NDArray[np.float64] | None], width: int) -> Level:
    nodes = [replace(node(reward), vector=vector) for reward, vector in zip(rewards, vectors, strict=True)]
    return Level(nodes, width, 1, VIEW)


# ---- numbers --------------------------------------------------------------------------------------------------------


def test_the_papers_figure() -> None:
    """Four candidates of equal reward, three in one direction: six children for each direction, and not 9 and 3."""
    vectors = [np.array([1.0, 0.0])] * 3 + [np.array([0.0, 1.0])]
    similarities = np.array(vectors) @ np.array(vectors).T
    np.testing.assert_allclose(own_shares(similarities, 0.01), [1 / 3, 1 / 3, 1 / 3, 1])
    weights = direction_weights([0.7] * 4, similarities, 0.1, 0.01)
    np.testing.assert_allclose(weights, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert whole_children(weights, 12).tolist() == [2, 2, 2, 6]
    figure = level([0.7] * 4, vectors, 12)
    assert DORA().allot(figure).tolist() == [2, 2, 2, 6]
    assert Rebase(balance=0.1).allot(figure).tolist() == [3, 3, 3, 3]


def test_a_worked_level() -> None:
    np.testing.assert_allclose(own_shares(COSINES, 0.01), [0.6221, 0.6221, 0.9982, 1.0], atol=5e-5)
    np.testing.assert_allclose(softmax(REWARDS, 0.1), [0.5601, 0.2060, 0.2060, 0.0279], atol=5e-5)
    weights = direction_weights(REWARDS, COSINES, 0.1, 0.01)
    np.testing.assert_allclose(weights, [0.4906, 0.1805, 0.2896, 0.0393], atol=5e-5)
    assert np.round(8 * weights).tolist() == [4, 1, 2, 0]  # the paper's rounding loses a child
    assert whole_children(weights, 8).tolist() == [4, 2, 2, 0]
    vectors = np.linalg.cholesky(COSINES)  # rows with these cosines
    assert DORA().allot(level(REWARDS, list(vectors), 8)).tolist() == [4, 2, 2, 0]


def test_ties_go_to_the_larger_weight_then_the_earlier() -> None:
    assert whole_children([0.25, 0.75], 2).tolist() == [0, 2]
    assert whole_children([0.25, 0.25, 0.5], 2).tolist() == [1, 0, 1]
    assert whole_children([[0.25, 0.75], [0.75, 0.25]], 2).tolist() == [[0, 2], [2, 0]]


def test_many_levels_at_once_and_absent_candidates() -> None:
    rng = np.random.default_rng(0)
    rewards = rng.random((50, 7))
    vectors = rng.standard_normal((50, 7, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    similarities = vectors @ vectors.swapaxes(-1, -2)
    shares = own_shares(similarities, 0.3)
    assert np.all((shares >= 1 / 7 - 1e-12) & (shares <= 1))
    weights = direction_weights(rewards, similarities, 0.1, 0.3)
    np.testing.assert_allclose(weights.sum(-1), 1.0)
    for row in range(50):
        np.testing.assert_allclose(weights[row], direction_weights(rewards[row], similarities[row], 0.1, 0.3))
    rewards[:, 5:] = -np.inf
    similarities[:, :, 5:] = -np.inf
    similarities[:, range(7), range(7)] = 1.0
    padded = direction_weights(rewards, similarities, 0.1, 0.3)
    np.testing.assert_allclose(padded[:, :5], direction_weights(rewards[:, :5], similarities[:, :5, :5], 0.1, 0.3))
    assert not padded[:, 5:].any()
    counts = whole_children(padded, 9)
    assert np.all(counts.sum(-1) == 9)
    assert not counts[:, 5:].any()


# ---- what it reduces to ---------------------------------------------------------------------------------------------


def by_rewards(level: Level) -> Counts:
    return largest_remainder(softmax(level.scores, 0.1), level.width)


@pytest.mark.parametrize("similarities", [np.ones((5, 5)), np.eye(5), 0.4 + 0.6 * np.eye(5)])
def test_where_no_direction_differs_only_rewards_count(similarities: NDArray[np.float64]) -> None:
    rewards = np.random.default_rng(1).random((200, 5))
    weights = direction_weights(rewards, np.broadcast_to(similarities, (200, 5, 5)), 0.1, 0.01)
    np.testing.assert_allclose(weights, softmax(rewards, 0.1), atol=1e-12)
    np.testing.assert_array_equal(whole_children(weights, 16), largest_remainder(softmax(rewards, 0.1), 16))


def test_a_large_similarity_temperature_leaves_the_rewards_and_a_large_balance_the_directions() -> None:
    np.testing.assert_allclose(direction_weights(REWARDS, COSINES, 0.1, 1e12), softmax(REWARDS, 0.1))
    shares = own_shares(COSINES, 0.01)
    np.testing.assert_allclose(direction_weights(REWARDS, COSINES, 1e12, 0.01), shares / shares.sum())


@pytest.mark.parametrize("seed", range(3))
def test_with_a_large_similarity_temperature_the_search_is_the_same_to_the_bit(seed: int) -> None:
    searched = solved(DORA(width=8, similarity_temperature=1e12, max_step_tokens=64), seed=seed)
    plain = solved(Driven(policy=lambda: Rounds(by_rewards, 8, max_rounds=40, finishing="refill")), seed=seed)
    assert searched.candidates == plain.candidates
    assert searched.rounds[-1].chosen == plain.rounds[-1].chosen
    assert [call for call in searched.calls if call.kind != "embed"] == list(plain.calls)
    directed = solved(DORA(width=8, max_step_tokens=64), seed=seed)
    assert directed.candidates != plain.candidates  # so that the above says something


class Broken:
    async def embed(self, texts: Sequence[str]) -> Vectors:
        raise OSError("out of memory")


@pytest.mark.parametrize("options", [{"embedder": Broken()}, {"embedder": Broken(), "budget": "9k-tokens"}])
def test_without_vectors_it_is_a_search_by_rewards(options: dict[str, Any]) -> None:
    searched = solved(DORA(width=8, max_step_tokens=64), seed=1, **options)
    plain = solved(Driven(policy=lambda: Rounds(by_rewards, 8, max_rounds=40, finishing="refill")), seed=1)
    assert searched.stopped == "finished"
    assert searched.candidates == plain.candidates
    assert searched.key == plain.key


def test_a_path_without_a_vector_is_a_direction_of_its_own() -> None:
    one = np.array([1.0, 0.0])
    assert DORA().allot(level([0.5] * 4, [one, None, one, None], 12)).tolist() == [2, 4, 2, 4]
    blank = np.zeros(2)  # texts of white space are alike
    assert DORA().allot(level([0.5] * 4, [blank, one, blank, blank], 12)).tolist() == [2, 6, 2, 2]


def test_a_missing_reward_counts_as_0() -> None:
    one, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert DORA().allot(level([None, 0.9], [one, other], 8)).tolist() == [0, 8]
    assert DORA().allot(level([None, None], [one, other], 8)).tolist() == [4, 4]


# ---- invariants -----------------------------------------------------------------------------------------------------


def test_a_copy_takes_nothing_from_other_directions() -> None:
    """The copies of a candidate share what it would have got alone, where other directions are far off."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        k = int(rng.integers(2, 9))
        rewards = rng.random(k)
        similarities = np.where(np.eye(k, dtype=bool), 1.0, 0.5 * rng.random((k, k)))
        before = direction_weights(rewards, similarities, 0.1, 0.01)
        place, copies = int(rng.integers(k)), int(rng.integers(1, 30))
        repeated = [*range(k), *[place] * copies]
        after = direction_weights(rewards[repeated], similarities[np.ix_(repeated, repeated)], 0.1, 0.01)
        others = [j for j in range(k) if j != place]
        np.testing.assert_allclose(after[others], before[others], rtol=1e-9)
        np.testing.assert_allclose(after[place] + after[k:].sum(), before[place], rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_width_is_kept_until_as_many_have_finished(seed: int) -> None:
    prm = Prm()
    trace = solved(DORA(width=8), prm=prm, seed=seed)
    assert trace.stopped == "finished"
    assert len(trace.rounds[-1].candidates) >= 8
    assert prm.batches[:3] == [8, 8, 8]  # no path is shorter
    assert set(prm.batches) == {8}
    read = [call for call in trace.calls if call.kind == "embed"]
    assert 2 <= len(read) <= len(prm.batches)
    assert all(not call.charged.tokens for call in read)  # hashing reads none


def test_what_was_written_so_far_is_compared_and_not_the_last_step() -> None:
    asked: list[str] = []

    class Seen:
        async def embed(self, texts: Sequence[str]) -> Vectors:
            asked.extend(texts)
            return Vectors(np.array([[len(text), 1.0] for text in texts]), len(texts))

    trace = solved(DORA(width=4), embedder=Seen(), seed=1)
    wholes = {trace.whole_text(candidate.id) for candidate in trace.candidates if not candidate.complete}
    assert set(asked) <= wholes
    assert max(text.count("\n\n") for text in asked) >= 3
    assert sum(call.charged.prompt for call in trace.calls if call.kind == "embed") == len(asked) == len(set(asked))


def test_a_fifth_of_the_children_may_fail() -> None:
    """That all 8 first children fail has probability 3e-6; the seeds are fixed."""
    for seed in range(3):
        trace = solved(DORA(width=8), flaky(steps, 0.2), seed=seed)
        assert trace.stopped == "finished"
        assert trace.answer is not None
        assert sum(call.failed for call in trace.calls) > 0
    with pytest.raises(EngineError, match="lost"):
        solved(DORA(width=8), flaky(steps, 1.0))


# ---- theory ---------------------------------------------------------------------------------------------------------


def joint_failure(weights: Sequence[float], counts: Sequence[int], kappa: float) -> float:
    """Expected probability that every rollout fails, where candidates succeed with p ~ Beta(kappa w, kappa (1 - w))."""
    return math.prod(
        (kappa * (1 - weight) + tried) / (kappa + tried)
        for weight, count in zip(weights, counts, strict=True)
        for tried in range(count)
    )


def test_the_paper_s_theory_of_allocation() -> None:
    weights = [0.5, 0.3, 0.2]
    splits = [split for split in itertools.product(range(5), repeat=3) if sum(split) == 4]

    def best(kappa: float) -> tuple[int, ...]:
        return min(splits, key=lambda split: joint_failure(weights, split, kappa))

    assert best(1.0) == (2, 1, 1)
    np.testing.assert_allclose([(4 + 3 * 1.0) * weight - 1.0 for weight in weights], [2.5, 1.1, 0.4])
    assert best(10.0) == best(100.0) == (4, 0, 0)
    for split in ((2, 1, 1), (1, 2, 1), (1, 1, 2)):  # one rollout each is all that counts
        assert joint_failure(weights, split, 1e-6) == pytest.approx(0.28, abs=1e-6)
        assert joint_failure(weights, split, 1e-6) < joint_failure(weights, (2, 2, 0), 1e-6)


def test_directions_of_equal_candidates_share_by_softmax_which_no_other_split_beats() -> None:
    """With Q the softmax over directions, sum Q ln(share) is largest at Q; REBASE is below it by KL(Q || its own)."""
    rng = np.random.default_rng(3)
    for _ in range(100):
        sizes, rewards = rng.integers(1, 20, size=4), rng.random(4)
        direction = np.repeat(np.arange(4), sizes)
        similarities = np.equal.outer(direction, direction).astype(float)
        weights = direction_weights(rewards[direction], similarities, 0.1, 0.01)
        totals = np.bincount(direction, weights=weights)
        best = softmax(rewards, 0.1)
        np.testing.assert_allclose(totals, best, rtol=1e-9)
        rebase = np.bincount(direction, weights=softmax(rewards[direction], 0.1))
        powers = sizes * np.exp(rewards / 0.1)
        np.testing.assert_allclose(rebase, powers / powers.sum())
        gap = best @ np.log(best) - best @ np.log(rebase)
        assert gap == pytest.approx(best @ np.log(best / rebase))
        assert gap >= -1e-12


FEW, SOLVES = 0.1, 0.15  # how often a first step takes the right direction, and a path of it is right


def test_children_reach_the_direction_that_few_candidates_have() -> None:
    """16 candidates of about equal reward, one in ten of them in the right direction.

    REBASE gives that direction 1.6 of 16 children, and DORA half of them, where there is any (0.81): the probability
    of at least one right answer is about 0.21 and 0.58. Over 4,000 levels the standard error of the difference is
    below sqrt((0.25 + 0.17) / 4000) = 0.0102, and 0.3 is 6 of them below the 0.37 expected: odds of 1e-9.
    """
    rng = np.random.default_rng(4)
    right = rng.random((4000, 16)) < FEW
    rewards = np.clip(0.5 + 0.05 * rng.standard_normal(right.shape), 0, 1)
    similarities = np.where(right[:, :, None] == right[:, None, :], 0.995 + 0.005 * np.eye(16), 0.6)
    dora = whole_children(direction_weights(rewards, similarities, 0.1, 0.01), 16)
    rebase = sequential_ceil(rewards, 16, 0.1)

    def solving(counts: Counts) -> float:
        return float(np.mean(1 - (1 - SOLVES) ** (counts * right).sum(-1)))

    assert solving(dora) - solving(rebase) > 0.3


class Compass:
    """Knows the direction of a text; within one, cosines are about 0.995, and across about 0.5."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows = []
        for text in texts:
            place = 0 if text.startswith("rare") else 1
            row = np.full(10, 0.0)
            row[place], row[1 - place] = 1.0, 0.27
            row[2:] = [0.05 * (noise(text, axis) - 0.5) for axis in range(8)]
            rows.append(row)
        return Vectors(np.array(rows))


def explorer(request: Request, child: int, rng: np.random.Generator) -> str:
    """Two steps in a direction that the first one chooses, then an answer: in the rare one sometimes right."""
    before = request.prefix_text
    if not before:
        return f"{'rare' if rng.random() < FEW else 'usual'} way {rng.integers(10**6)}\n\n"
    if before.count("\n\n") == 1:
        return f"goes on {rng.integers(10**6)}\n\n"
    right = before.startswith("rare") and rng.random() < SOLVES
    return f"#### {42 if right else 100 + int(rng.integers(10**6))}"


def uncertain(text: str) -> float:
    """A reward that says nothing about steps, and what an answer is worth."""
    if "####" in text:
        return 0.9 if text.endswith("#### 42") else 0.01
    return 0.5 + 0.1 * (noise(text) - 0.5)


def test_it_finds_what_rebase_does_not() -> None:
    """The same world, searched by both with the same reward, width and number of steps.

    Right are about 0.58 of 80 searches by DORA and 0.21 by REBASE, and the difference has a standard error of
    sqrt((0.24 + 0.17) / 80) = 0.072; that it is at most 0.1, 3.7 of them below what is expected, has a probability of
    1e-4. The seeds are fixed.
    """
    hits = {"dora": 0, "rebase": 0}
    for seed in range(80):
        prm = Prm(reward=uncertain)
        dora = solved(DORA(width=16), explorer, prm=prm, embedder=Compass(), seed=seed)
        rebase = solved(Rebase(width=16, balance=0.1), explorer, prm=prm, seed=seed)
        assert len(dora.candidates) == len(rebase.candidates) == 48
        hits["dora"] += dora.key == "42"
        hits["rebase"] += rebase.key == "42"
    assert hits["dora"] - hits["rebase"] > 0.1 * 80, hits


# ---- hyperparameters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 0}, "width must be at least 1, not 0"),
        ({"max_depth": 0}, "max_depth must be at least 1"),
        ({"max_step_tokens": 0}, "max_step_tokens must be at least 1"),
        ({"balance": 0.0}, "balance must be a number above 0"),
        ({"similarity_temperature": 0.0}, "similarity_temperature must be a number above 0, not 0.0"),
        ({"similarity_temperature": math.inf}, "similarity_temperature must be a number above 0"),
        ({"delimiter": ""}, "delimiter must not be empty"),
        ({"aggregate": "median"}, "aggregate must be last, min, prod or mean, not median"),
    ],
)
def test_hyperparameters_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DORA(**given)
