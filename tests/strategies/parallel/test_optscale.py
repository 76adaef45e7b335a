"""OptScale: the truncated normal model of scores, how many samples it asks for, and best-of-n as its limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from outthink import Budget, Sampling, Trace
from outthink.driver import solve_async
from outthink.errors import EngineError, MissingResource, NothingCameBack, UsageError
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.best_of_n import BestOfN
from outthink.strategies.parallel.optscale import (
    MU,
    SIGMA,
    OptScale,
    Prior,
    estimate,
    fit_prior,
    log_cdf,
    samples_needed,
    stops_at,
)
from tests.tools.toys import problem
from tests.tools.virtual import run


def scored(*scores: float | None, latency: Callable[[Request, int], float] | None = None) -> ScriptedEngine:
    """Sample k answers k and says its score; without one its answer cannot be read."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        score = scores[child % len(scores)]
        return "unreadable" if score is None else f"{score} #### {child}"

    return ScriptedEngine(reply, latency=latency)


async def says(question: str, text: str) -> float | None:
    """The score that a sample begins with; "x" is missing."""
    return None if text[0] == "x" else float(text.split(" ")[0])


def solved(strategy: Any, engine: ScriptedEngine, **options: Any) -> Trace:
    options.setdefault("sampling", Sampling(max_tokens=40))
    return run(solve_async(problem(), strategy, model=engine, verifier=says, **options))


# ---- the model of scores --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mu", "sigma", "alpha", "f", "n"),
    [
        (0.6, 0.2, 0.95, 0.954855, 65),
        (0.6, 0.2, 0.98, 0.954855, 85),
        (0.8, 0.2, 0.95, 0.821847, 16),
        (0.95, 0.05, 0.95, 0.188573, 2),
    ],
)
def test_how_many_samples_are_needed(mu: float, sigma: float, alpha: float, f: float, n: int) -> None:
    assert math.exp(log_cdf(0.9, mu, sigma)) == pytest.approx(f, abs=5e-7)
    assert float(samples_needed(mu, sigma, 0.9, alpha)) == n
    assert 1 - f**n >= alpha > 1 - f ** (n - 1)


def test_a_hopeless_question_asks_for_billions_and_an_easy_one_for_one() -> None:
    assert float(samples_needed(0.3, 0.1, 0.9, 0.95)) == pytest.approx(3.0e9, rel=0.02)
    assert float(samples_needed(-1.0, 0.01, 0.9, 0.95)) == math.inf
    assert float(samples_needed(2.0, 0.01, 0.9, 0.95)) == 1
    assert float(samples_needed(0.6, 0.2, 0.9, 1.0)) == math.inf  # certainty
    assert float(samples_needed(0.6, 0.2, 1.0, 0.95)) == math.inf
    for nothing in (0.0, -0.5):
        assert float(samples_needed(0.6, 0.2, nothing, 0.95)) == 1
        assert float(samples_needed(0.6, 0.2, nothing, 1.0)) == 1
    assert float(samples_needed(0.6, 0.2, 0.9, 0.0)) == 1
    assert float(samples_needed(0.6, 0.2, 1.0, 0.0)) == 1


def test_the_number_grows_with_the_target_and_the_confidence_and_falls_with_mu() -> None:
    mus = np.linspace(-0.5, 1.5, 41)
    assert np.all(np.diff(samples_needed(mus, 0.2, 0.9, 0.95)) <= 0)
    assert np.all(np.diff([samples_needed(0.6, 0.2, s, 0.95) for s in np.linspace(0, 0.99, 40)]) >= 0)
    assert np.all(np.diff([samples_needed(0.6, 0.2, 0.9, a) for a in np.linspace(0, 0.999, 40)]) >= 0)


def test_the_closed_form_is_the_smallest_quantile_of_the_grid_that_reaches_the_target() -> None:
    """The quantile 1 - alpha of F^N reaches the target where P(max < target) <= 1 - alpha; up to a step of the grid."""
    grid = np.linspace(0, 1, 1001)
    for mu, sigma in [(0.6, 0.2), (0.8, 0.2), (0.95, 0.05), (1.2, 0.5), (-0.3, 0.6)]:
        f = np.exp(log_cdf(grid, mu, sigma))
        for target in (0.85, 0.9, 0.95):
            n = next(n for n in range(1, 2000) if grid[np.searchsorted(f**n, 0.05)] >= target)
            steps = [float(samples_needed(mu, sigma, target + step, 0.95)) for step in (-0.001, 0.001)]
            assert steps[0] <= n <= steps[1]


def test_the_distribution_is_that_of_scipy() -> None:
    from scipy.stats import truncnorm

    for mu, sigma in [(0.6, 0.2), (0.95, 0.05), (1.7, 0.3), (-0.9, 0.4)]:
        s = np.linspace(0.01, 0.99, 30)
        expected = truncnorm.logcdf(s, -mu / sigma, (1 - mu) / sigma, mu, sigma)
        assert log_cdf(s, mu, sigma) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert log_cdf([0.0, 1.0, 2.0], 0.6, 0.2).tolist() == [-math.inf, 0.0, 0.0]


# ---- mu and sigma ---------------------------------------------------------------------------------------------------


def objective(x: Any, mu: float, sigma: float, prior: Prior | None) -> float:
    from scipy.stats import norm

    z = norm.cdf((1 - mu) / sigma) - norm.cdf(-mu / sigma)
    found = float(norm.logpdf(x, mu, sigma).sum() - len(x) * math.log(max(z, 1e-300)))
    if prior is not None:
        found += float(norm.logpdf(mu, prior.mu, prior.mu_spread) + norm.logpdf(sigma, prior.sigma, prior.sigma_spread))
    return found


@pytest.mark.parametrize("prior", [None, Prior(0.7, 0.2), Prior(0.9, 0.05, 0.3, 0.02)])
def test_the_estimate_is_where_the_likelihood_or_the_posterior_is_largest(prior: Prior | None) -> None:
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    for n in (3, 5, 20):
        x = np.clip(rng.normal(0.6, 0.15, n), 0, 1)
        mu, sigma = (float(one) for one in estimate(x, prior))
        start = (x.mean(), x.std())

        def negative(at: Any, x: Any = x) -> float:
            return -objective(x, float(at[0]), float(at[1]), prior)

        best = minimize(negative, start, method="L-BFGS-B", bounds=[MU, SIGMA])
        assert objective(x, mu, sigma, prior) >= -best.fun - 1e-6
        assert (mu, sigma) == pytest.approx(tuple(best.x), abs=2e-3)


def test_many_scores_give_back_their_parameters() -> None:
    """20,000 scores determine mu and sigma to about 0.005; the bound is 4 times that, and the seed is fixed."""
    rng = np.random.default_rng(3)
    x = rng.normal(0.8, 0.2, 60_000)
    mu, sigma = estimate(x[(x >= 0) & (x <= 1)][:20_000])
    assert float(mu) == pytest.approx(0.8, abs=0.02)
    assert float(sigma) == pytest.approx(0.2, abs=0.02)


def test_estimates_stay_in_bounds() -> None:
    for x in ([0.5] * 5, [1.0] * 3, [0.0] * 4, [0.7], [0.0, 1.0], [0.99, 1.0, 1.0], [0.0, 0.1, 0.9, 1.0]):
        mu, sigma = estimate(x)
        assert MU[0] <= float(mu) <= MU[1]
        assert SIGMA[0] <= float(sigma) <= SIGMA[1]
        assert float(samples_needed(mu, sigma, 0.95, 0.95)) >= 1
    assert float(samples_needed(*estimate([0.5] * 5), 0.95, 0.95)) > 1e9  # no spread, so no hope
    assert float(samples_needed(*estimate([1.0] * 5), 0.95, 0.95)) == 1


def test_missing_scores_are_left_out_and_rows_are_independent() -> None:
    table = [[0.2, np.nan, 0.5, 0.9], [0.2, 0.5, 0.9, np.nan], [np.nan] * 4]
    mu, sigma = estimate(table)
    alone = estimate([0.2, 0.5, 0.9])
    assert mu[:2] == pytest.approx([float(alone[0])] * 2)
    assert sigma[:2] == pytest.approx([float(alone[1])] * 2)
    assert np.isnan([mu[2], sigma[2]]).all()
    believed = estimate([np.nan] * 3, Prior(0.7, 0.2))
    assert (float(believed[0]), float(believed[1])) == pytest.approx((0.7, 0.2), abs=1e-3)


@pytest.mark.parametrize("scores", [[0.5, 1.2], [-0.1], [math.inf, 0.5]])
def test_other_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match=r"scores in \[0, 1\]"):
        estimate(scores)
    with pytest.raises(ValueError, match=r"scores in \[0, 1\]"):
        fit_prior([scores * 2])


def test_a_prior_is_fitted_to_the_moments_of_each_problem() -> None:
    prior = fit_prior([[0.2, 0.4], [0.7, np.nan, 0.9], [0.5]])  # the last one says nothing of a spread
    assert prior == pytest.approx((0.55, 0.1, 0.25, 0.01))
    strategy = OptScale(**prior._asdict())
    assert strategy.prior == prior
    assert fit_prior([[0.5, 0.5]]) == pytest.approx((0.5, 0.01, 0.01, 0.01))
    for nothing in ([], [[0.5]], [[np.nan, np.nan, 0.1]]):
        with pytest.raises(ValueError, match="two scores"):
            fit_prior(nothing)


def test_where_it_stops() -> None:
    rules: dict[str, Any] = {"peek": 3, "target": 0.9, "alpha": 0.95}
    easy, hard = [0.95, 0.93, 0.96, 0.94] * 4, [0.1, 0.12, 0.08, 0.11] * 4
    assert stops_at([easy, hard], **rules).tolist() == [3, 16]
    assert stops_at([[np.nan] * 8], **rules).tolist() == [8]
    assert stops_at([np.nan, *easy], **rules) == 4  # three scores are there after four samples
    assert stops_at(easy[:3], **rules) == 3
    for sure in ({"alpha": 1.0}, {"target": 1.0}):
        assert stops_at(easy, **(rules | sure)) == 16
    assert stops_at(hard, **(rules | {"alpha": 0.0})) == 3
    # what is believed beforehand weighs as much as a few scores
    doubtful = [0.95, 0.5, 0.9, 0.6, 0.8, 0.7] * 3
    assert stops_at(doubtful, **rules, prior=Prior(0.95, 0.05, 0.02, 0.02)) < stops_at(
        doubtful, **rules, prior=Prior(0.3, 0.05, 0.02, 0.02)
    )


# ---- runs -----------------------------------------------------------------------------------------------------------

RANDOM = [round(float(x), 3) for x in np.random.default_rng(2).beta(5, 1.2, 16)]


@pytest.mark.parametrize("ahead", [1, 4, 16])
@pytest.mark.parametrize("prior", [{}, {"mu": 0.8, "sigma": 0.15}])
def test_a_run_stops_where_the_replay_does_and_returns_the_best(prior: dict[str, float], ahead: int) -> None:
    for target in (0.9, 0.97, 0.99):
        strategy = OptScale(peek=3, target=target, ahead=ahead, **prior)  # type: ignore[arg-type]  # floats
        drawn = int(stops_at(RANDOM, peek=3, target=target, alpha=0.95, prior=strategy.prior))
        trace = solved(strategy, scored(*RANDOM))
        last = trace.rounds[-1]
        assert last.candidates == tuple(f"model/0/{child}" for child in range(drawn))
        assert last.chosen == f"model/0/{int(np.argmax(RANDOM[:drawn]))}"
        assert last.scores == tuple(RANDOM[:drawn])
        if ahead == 1:
            assert len(trace.candidates) == drawn


@pytest.mark.parametrize("sure", [{"alpha": 1.0}, {"target": 1.0}, {"peek": 16}])
def test_without_a_reason_to_stop_it_is_best_of_n(sure: dict[str, Any]) -> None:
    for order in (RANDOM, sorted(RANDOM), sorted(RANDOM, reverse=True)):
        trace, plain = (solved(strategy, scored(*order)) for strategy in (OptScale(**sure), BestOfN(n=16)))
        assert trace.candidates == plain.candidates
        ours, theirs = trace.rounds[-1], plain.rounds[-1]
        assert (ours.chosen, ours.scores, ours.confidence) == (theirs.chosen, theirs.scores, theirs.confidence)
        assert trace.usage == plain.usage


def test_the_decision_does_not_depend_on_what_arrives_first() -> None:
    plain = solved(OptScale(peek=3, target=0.97, ahead=1), scored(*RANDOM))
    for ahead in (2, 8):
        late = scored(*RANDOM, latency=lambda request, child: 20.0 - child)
        trace = solved(OptScale(peek=3, target=0.97, ahead=ahead), late)
        assert trace.rounds[-1].candidates == plain.rounds[-1].candidates
        assert trace.rounds[-1].chosen == plain.rounds[-1].chosen


def test_unreadable_and_missing_ones_do_not_count_and_do_not_win() -> None:
    engine = ScriptedEngine(
        lambda request, child, rng: ("unreadable", "x #### 1", "0.97 #### 2", "0.96 #### 3", "0.98 #### 4")[child % 5]
    )
    trace = solved(OptScale(n=10, peek=3, target=0.9, ahead=1), engine)
    assert (trace.answer, len(trace.candidates)) == ("4", 5)
    assert trace.rounds[-1].scores == (None, None, 0.97, 0.96, 0.98)
    unscored = solved(OptScale(n=6, peek=2), ScriptedEngine(lambda request, child, rng: f"x #### {child // 4}"))
    assert (unscored.answer, len(unscored.candidates)) == ("0", 6)  # the majority
    nothing = solved(OptScale(n=4, peek=2), ScriptedEngine(lambda *_: "nothing"))
    assert (nothing.answer, nothing.stopped) == (None, "finished")


def test_a_score_outside_of_the_range_ends_it_with_the_best_so_far() -> None:
    trace = solved(OptScale(n=6, peek=2, ahead=1), scored(0.5, 0.6, 3.0))
    assert trace.stopped == "error"
    assert "scores in [0, 1]" in str(trace.error)
    assert trace.answer is not None


def test_the_budget_and_failures() -> None:
    trace = solved(OptScale(n=9, peek=9, target=1.0), scored(0.5), budget=Budget({"tokens": 2 * 52}))
    assert trace.stopped == "budget"
    assert trace.answer is not None
    assert trace.rounds[-1].scores is not None
    assert all(score == 0.5 for score in trace.rounds[-1].scores)  # scored, although the peek was never reached
    with pytest.raises(NothingCameBack, match="down"):
        solved(OptScale(), ScriptedEngine(lambda *_: EngineError("down")))
    with pytest.raises(MissingResource, match="verifier"):
        run(solve_async(problem(), OptScale(), model=scored(0.5)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"peek": 17}, r"peek must be from 1 to n \(16\)"),
        ({"peek": 0}, "peek must be"),
        ({"target": 1.5}, "target must be from 0 to 1"),
        ({"alpha": "nan"}, "alpha must be from 0 to 1"),
        ({"mu": 0.5}, "both or neither"),
        ({"mu": 3, "sigma": 0.1}, "mu must be from -1 to 2"),
        ({"mu": 0.5, "sigma": 0}, "sigma must be from 0.01 to 2"),
        ({"mu_spread": 0}, "mu_spread must be above 0"),
        ({"ahead": 0}, "ahead must be at least 1"),
    ],
)
def test_bad_hyperparameters_are_one_sentence(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_strategy("optscale", parameters)


def test_the_first_look_grows_with_n_as_in_the_paper_s_code() -> None:
    looks = {n: OptScale(n=n).first_look for n in (1, 2, 4, 8, 16, 32, 64, 1024)}
    assert looks == {1: 1, 2: 1, 4: 2, 8: 3, 16: 5, 32: 10, 64: 20, 1024: 20}
    assert OptScale(n=64, peek=7).first_look == 7
    trace = solved(OptScale(n=64, target=0.0, ahead=1), scored(*[0.5] * 64))
    assert len(trace.candidates) == 20
