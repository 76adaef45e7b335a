"""Random scores as a control, and the rules that change winners."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.driver import solve_async
from outthink.maths.selection import best_of, numbers, weighted_vote
from outthink.maths.selection import majority as most_frequent
from outthink.records.pools import PoolData, read_pool
from outthink.reports.curves import majority, replayed_curve
from outthink.rewards.analysis import pooled
from outthink.rewards.critique import passes_that_count
from outthink.rewards.making import make_scorer
from outthink.rewards.random import Random
from outthink.rng import Rng
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.best_of_n import BestOfN
from outthink.strategies.parallel.weighted_best_of_n import WeightedBestOfN
from outthink.types import Candidate, Trace
from tests.tools.toys import coin, problem
from tests.tools.virtual import run

A, B = 0, 1
untimed = settings(deadline=None)  # a busy machine is no failure

# ---- rules that change the winner -----------------------------------------------------------------------------------


def test_min_max_weights_change_the_winner() -> None:
    keys, scores = [A, A, A, B], np.array([0.50, 0.55, 0.60, 0.90])
    raw = weighted_vote(keys, scores)
    assert raw.index < 3
    assert float(raw.share) == pytest.approx(1.65 / (1.65 + 0.90))
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    assert scaled.tolist() == pytest.approx([0, 0.125, 0.25, 1])
    best = weighted_vote(keys, scaled)
    assert best.index == 3
    assert float(best.share) == pytest.approx(1 / 1.375)
    # with two samples it is the best of both
    assert weighted_vote([A, B], [0.0, 1.0]).index == best_of([A, B], [0.6, 0.61]).index


@pytest.mark.parametrize(("n", "kept", "intended"), [(5, 4, 3), (10, 7, 6), (32, 20, 19)])
def test_keeping_a_fraction_keeps_no_more(n: int, kept: int, intended: int) -> None:
    """In reference code a loop that ends at `index > keep` keeps one more than was meant."""
    keep = 0.6 * n
    assert next(index for index in range(n) if index > keep) == kept
    ours = passes_that_count(np.ones((n, 2)), np.arange(n, dtype=float), int(keep))
    assert ours.sum() == intended


def test_words_as_verdicts() -> None:
    impossible, likely, sure = 0.0, 0.5, 1.0
    assert pooled([sure, likely, impossible], "mean") == 0.5
    assert pooled([sure, likely, impossible], "majority") == pytest.approx(2 / 3)
    # where none could be read the score is missing, and ranks below one that is 0
    assert best_of([A, B], [math.nan, impossible]).index == 1


# ---- controls -------------------------------------------------------------------------------------------------------


def pool(path: Path, problems: int, n: int, *, readable: float = 1.0, reward: float | None = None) -> PoolData:
    """Questions of their own difficulty with three wrong answers each; rewards are random unless given."""
    rng = np.random.default_rng(problems)
    rows = []
    for number in range(problems):
        right = rng.random(n) < rng.random()
        keys = np.where(right, 0, rng.integers(1, 4, n))
        keys = np.where(rng.random(n) < readable, keys, -1)
        rewards = rng.random(n) if reward is None else np.full(n, reward)
        samples = [
            {"key": str(key) if key >= 0 else None, "correct": bool(key == 0), "reward": float(score)}
            for key, score in zip(keys, rewards, strict=True)
        ]
        rows.append({"id": f"q{number}", "samples": samples})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_pool(path)


def test_the_best_of_n_by_random_scores_is_one_sample() -> None:
    """For every order of the scores at once: exactly the share of right samples."""
    keys = np.array([A, A, B, 2, B])
    orders = np.array(list(itertools.permutations(range(5))), dtype=float)
    chosen = best_of(np.broadcast_to(keys, orders.shape), orders).index
    assert np.bincount(chosen).tolist() == [24] * 5
    with_unreadable = np.array([A, A, B, -1, -1])
    chosen = best_of(np.broadcast_to(with_unreadable, orders.shape), orders).index
    assert np.bincount(chosen).tolist() == [40] * 3  # unreadable ones never win, so it is one readable sample


def test_by_replay_random_scores_gain_nothing_at_any_n(tmp_path: Path) -> None:
    """The difference from pass@1 has a standard deviation below 0.5 a question, so 0.0125 over 1,600.

    Five of them are 0.0625, so one false alarm in 1.7 million for each n. With n = 1 there is no chance in it.
    """
    recorded = pool(tmp_path / "pool.jsonl", 1600, 8)
    curves = replayed_curve(BestOfN(), recorded, [1, 2, 8], subsamples=10, seed=0, scorer="reward")
    right = np.array([problem.correct.mean() for problem in recorded.problems])
    for n in (2, 8):
        assert np.mean(curves[n].accuracy - right) == pytest.approx(0, abs=0.0625)
    vote = majority(recorded, [8], subsamples=10, seed=0)[8].accuracy
    assert np.mean(vote - right) > 0.0625  # what knows something shows


@pytest.mark.parametrize("scores", [1.0, 0.3])
def test_by_replay_the_vote_weighted_by_constant_scores_is_the_majority(scores: float, tmp_path: Path) -> None:
    """Ties are credited in expectation by one and by chance by the other.

    Over 4,000 draws the latter has a standard deviation of at most 0.008; six of them are 0.048.
    """
    recorded = pool(tmp_path / "pool.jsonl", 30, 9, readable=0.8, reward=scores)
    weighted = replayed_curve(WeightedBestOfN(), recorded, [1, 4, 9], subsamples=4000, seed=0, scorer="reward")
    plain = majority(recorded, [1, 4, 9], subsamples=4000, seed=0)
    for n in (1, 4, 9):
        assert weighted[n].accuracy == pytest.approx(plain[n].accuracy, abs=0.05)
        assert weighted[n].abstained == pytest.approx(plain[n].abstained)


@untimed
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=10), st.floats(0.01, 100))
def test_constant_scores_are_the_majority(keys: list[int], constant: float) -> None:
    same = weighted_vote(keys, np.full(len(keys), constant))
    assert int(same.index) == int(most_frequent(keys).index)
    assert float(same.share) == pytest.approx(float(most_frequent(keys).share))


def solve(name: str, verifier: str, *, seed: int = 0) -> Trace:
    strategy = make_strategy(name, {"n": 4})
    return run(solve_async(problem(), strategy, model=coin(0.5, wrong=3), verifier=verifier, seed=seed))


def test_random_as_a_verifier_is_seeded_and_free() -> None:
    first, again, other = (
        solve("best_of_n", "random"),
        solve("best_of_n", "random"),
        solve("best_of_n", "random", seed=1),
    )
    assert first.rounds[-1].scores == again.rounds[-1].scores != other.rounds[-1].scores
    assert {call.kind for call in first.calls} == {"sample"}
    scores = first.rounds[-1].scores
    assert scores is not None
    assert len({*scores}) == 4  # also of equal texts, of which there must be some
    assert len({candidate.text for candidate in first.candidates}) < 4
    assert first.rounds[-1].chosen == first.candidates[int(np.argmax(scores))].id  # type: ignore[arg-type]  # none is None


def test_random_chooses_every_sample_as_often() -> None:
    """Of 4,000 seeds a quarter each: standard deviation 0.0069, six of them: one false alarm in 10^8."""
    paths = [(Candidate(address=("model", 0, child), text="same"),) for child in range(4)]

    async def best() -> list[int]:
        scores = [await Random().score(problem(), paths, rng=Rng(seed, "p")) for seed in range(4000)]
        return [int(np.argmax(numbers(drawn))) for drawn in scores]

    assert np.bincount(run(best())) / 4000 == pytest.approx([0.25] * 4, abs=0.041)


def test_random_scores_of_paths() -> None:
    steps = [Candidate(address=("model", 0, child), text="same") for child in range(3)]
    paths = [(steps[0],), (steps[0], steps[1]), (steps[0], steps[2]), (steps[1],)]
    rng = Rng(0, "p")
    scores = run(Random(process=True).score(problem(), paths, rng=rng))
    assert len({*scores}) == 4
    assert run(Random(process=True).score(problem(), paths[::-1], rng=rng)) == scores[::-1]
    assert not {*scores} & {*run(Random().score(problem(), paths, rng=rng))}
    assert all(score is not None and 0 <= score < 1 for score in scores)
    assert make_scorer("random", process=True) == Random(process=True)


def test_random_scores_of_the_steps_of_whole_answers() -> None:
    strategy = make_strategy("best_of_n", {"n": 2, "aggregate": "mean"})
    trace = run(solve_async(problem(), strategy, model=coin(0.5), prm="random"))
    assert trace.rounds[-1].scores is not None
