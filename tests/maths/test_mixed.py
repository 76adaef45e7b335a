"""The mixed model of AB-MCTS's variant M: its posterior against integration by brute force, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from outthink.maths.mixed import grid_posterior, predicted

GROUPS = np.array([[0.2, 0.3, np.nan], [0.9, np.nan, np.nan], [0.5, 0.7, 0.6]])


def test_without_scores_it_is_the_prior() -> None:
    weights, between, within, centre, variance = grid_posterior(np.empty((0, 0)))
    assert weights == pytest.approx(1 / 576)
    assert centre == pytest.approx(0.5)
    assert variance == pytest.approx(0.04)
    # means of half-normals are sigma sqrt(2 / pi); 24 quantiles leave out some of the tail
    assert [between.mean(), within.mean()] == pytest.approx(
        [0.2 * np.sqrt(2 / np.pi), 0.3 * np.sqrt(2 / np.pi)], rel=0.01
    )


def test_weights_are_the_likelihood_with_mu_and_levels_integrated_out() -> None:
    weights, between, within, centre, variance = grid_posterior(GROUPS)
    rows = [row[~np.isnan(row)] for row in GROUPS]
    likelihood = []
    for a, y in zip(between, within, strict=True):
        # all scores together are normal around 0.5, with what they share as covariance
        owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        covariance = 0.04 + a**2 * (owner[:, None] == owner) + y**2 * np.eye(len(owner))
        flat = np.concatenate(rows)
        likelihood.append(stats.multivariate_normal(np.full(len(flat), 0.5), covariance).logpdf(flat))
    exact = np.exp(np.array(likelihood) - max(likelihood))
    assert weights == pytest.approx(exact / exact.sum(), rel=1e-6, abs=1e-12)
    # the mean of mu at one point, by conditioning the joint normal
    point = int(weights.argmax())
    a, y = between[point], within[point]
    n = np.array([len(row) for row in rows])
    means = np.array([row.mean() for row in rows])
    noise = np.diag(a**2 + y**2 / n)
    gain = 0.04 * np.linalg.solve(0.04 + noise, np.ones(3))
    assert centre[point] == pytest.approx(0.5 + gain @ (means - 0.5))
    assert variance[point] == pytest.approx(0.04 - 0.04 * gain.sum())


def test_draws_have_the_means_of_the_posterior() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([predicted(GROUPS, rng) for _ in range(4000)])
    weights, between, within, centre, _ = grid_posterior(GROUPS)
    new = (weights * centre).sum()
    n, means = np.array([2, 1, 3]), np.array([0.25, 0.9, 0.6])
    share = 1 / between[:, None] ** 2 / (1 / between[:, None] ** 2 + n / within[:, None] ** 2)
    levels = (weights[:, None] * (share * centre[:, None] + (1 - share) * means)).sum(0)
    error = drawn.std(0) / np.sqrt(len(drawn))
    # five standard errors of four means: 2e-6 of runs
    assert (np.abs(drawn.mean(0) - [*levels, new]) / error).max() < 5
    assert levels[0] < levels[2] < levels[1]


def test_neither_order_nor_gaps_matter() -> None:
    shuffled = GROUPS[:, [2, 0, 1]]
    for one, other in zip(grid_posterior(GROUPS), grid_posterior(shuffled), strict=True):
        assert one.tobytes() == other.tobytes()
    wide = np.pad(GROUPS, ((0, 0), (0, 4)), constant_values=np.nan)
    assert grid_posterior(wide)[0] == pytest.approx(grid_posterior(GROUPS)[0])


def test_equal_scores_and_very_many_have_a_finite_posterior() -> None:
    for groups in (np.zeros((3, 5)), np.ones((1, 1)), np.full((200, 50), 0.3)):
        weights, *_ = grid_posterior(groups)
        assert np.isfinite(weights).all()
        assert np.isfinite(predicted(groups, np.random.default_rng(1))).all()
