"""Off-policy estimates: unbiased by enumeration, and the reductions that must hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from outthink.maths.offpolicy import doubly_robust, effective_size, inverse_propensity, propensity_weights

CHANCES = np.array([[0.9, 0.05, 0.05], [0.2, 0.5, 0.3]])  # of three actions, on requests of two kinds
REWARDS = np.array([[0.3, 0.8, 0.1], [0.6, 0.2, 0.9]])
WANTED = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
KINDS = np.array([0.7, 0.3])
TRUE = float((KINDS[:, None] * WANTED * REWARDS).sum())


def expected(predicted: np.ndarray, chances: np.ndarray = CHANCES, clip: float = np.inf, robust: bool = True) -> float:
    """The expectation of an estimate, by all kinds and actions; `chances` are what is written down."""
    total = 0.0
    for kind, action in itertools.product(range(2), range(3)):
        weight = propensity_weights([WANTED[kind, action]], [chances[kind, action]], clip)
        reward = REWARDS[[kind], [action]]
        (value,) = (
            doubly_robust(reward, weight, predicted[[kind], [action]], [WANTED[kind] @ predicted[kind]])
            if robust
            else inverse_propensity(reward, weight)
        )
        total += KINDS[kind] * CHANCES[kind, action] * value
    return total


def test_inverse_propensity_is_unbiased_where_chances_are_right_and_only_there() -> None:
    assert expected(REWARDS, robust=False) == pytest.approx(TRUE)
    assert abs(expected(REWARDS, np.full((2, 3), 1 / 3), robust=False) - TRUE) > 0.05


def test_doubly_robust_needs_one_of_both_to_be_right() -> None:
    wrong = np.array([[0.9, 0.1, 0.4], [0.1, 0.7, 0.2]])
    assert expected(wrong) == pytest.approx(TRUE), "chances are right"
    assert expected(REWARDS, np.full((2, 3), 1 / 3)) == pytest.approx(TRUE), "predictions are right"
    assert expected(REWARDS, clip=1.0) == pytest.approx(TRUE), "clipping falls back on the prediction"
    assert abs(expected(wrong, np.full((2, 3), 1 / 3)) - TRUE) > 0.05, "none is"


def test_clipping_of_rewards_takes_away_and_never_adds() -> None:
    values = [expected(REWARDS, clip=clip, robust=False) for clip in (1, 2, 5, 20, 100)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(TRUE)
    assert values[0] < TRUE


def test_without_predictions_it_is_inverse_propensity_and_on_its_own_policy_the_mean() -> None:
    rng = np.random.default_rng(0)
    rewards, weights = rng.random(50), rng.random(50) * 3
    zero = np.zeros(50)
    assert doubly_robust(rewards, weights, zero, zero) == pytest.approx(inverse_propensity(rewards, weights))
    own = propensity_weights(np.full(50, 0.3), np.full(50, 0.3))
    assert doubly_robust(rewards, own, zero + 7, zero + 7).mean() == pytest.approx(rewards.mean())


def test_a_good_prediction_makes_it_narrower() -> None:
    rng = np.random.default_rng(1)
    mean = rng.random(4000)
    taken = rng.random(4000) < 0.1
    rewards = (rng.random(4000) < mean).astype(float)
    weights = propensity_weights(taken.astype(float), np.where(taken, 0.1, 0.9))
    plain, robust = inverse_propensity(rewards, weights), doubly_robust(rewards, weights, mean, mean)
    assert robust.std() < 0.8 * plain.std()


def test_effective_size() -> None:
    assert effective_size(np.ones(7)) == 7
    assert effective_size([5, 0, 0]) == 1
    assert effective_size([3.0, 1.0]) == pytest.approx(16 / 10)
    assert effective_size([]) == effective_size(np.zeros(3)) == 0


@pytest.mark.parametrize("logged", [[0.0], [-0.1], [1.1], [np.nan]])
def test_impossible_chances_are_refused(logged: list[float]) -> None:
    with pytest.raises(ValueError, match="chance in"):
        propensity_weights([1.0], logged)


def test_a_clip_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="clip must be at least 1"):
        propensity_weights([1.0], [0.5], 0.5)
