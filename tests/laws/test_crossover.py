"""The law of a loss with a floor, the lower envelope of models, and where they cross."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outthink.errors import Unidentified
from outthink.laws.crossover import LossLaw, ModelLosses, crossings, crossover, envelope, fit_loss, loss_drift
from outthink.maths.intervals import bootstrap, farther

SMALL, LARGE = LossLaw(floor=0.60, a=0.40, b=0.5), LossLaw(floor=0.55, a=0.30, b=0.5)
# behind at first, then ahead for a while, but with the higher floor
FLAT, STEEP = LossLaw(floor=0.2, a=0.7, b=0.3), LossLaw(floor=0.3, a=2.0, b=1.5)
COSTS = (1.0, 8.0)
BUDGETS = [8, 32, 64, 128]
SAMPLES = np.array([1.0, 2, 4, 8, 16, 32, 64, 128])
FEW = SAMPLES[:6]


# ---- laws and crossings ---------------------------------------------------------------------------------------------


def test_the_numbers_of_the_example() -> None:
    budgets = np.array(BUDGETS)
    assert SMALL.at(budgets).tolist() == pytest.approx([0.741, 0.671, 0.650, 0.635], abs=5e-4)
    assert LARGE.at(budgets / 8).tolist() == pytest.approx([0.850, 0.700, 0.656, 0.625], abs=6e-4)
    best, loss = envelope([SMALL, LARGE], COSTS, BUDGETS)
    assert best.tolist() == [0, 0, 0, 1]
    assert loss.tolist() == pytest.approx([0.741, 0.671, 0.650, 0.625], abs=5e-4)
    ((budget, better),) = crossings((SMALL, LARGE), COSTS, 8, 1000)
    assert budget == pytest.approx(80.5, abs=0.05)
    assert budget == pytest.approx(((0.3 * 8**0.5 - 0.4) / 0.05) ** 2, rel=1e-9)
    assert better == 1
    ((same, first),) = crossings((LARGE, SMALL), (8.0, 1.0), 8, 1000)
    assert same == pytest.approx(budget)
    assert first == 0


def test_a_budget_below_one_sample_buys_nothing() -> None:
    best, loss = envelope([SMALL, LARGE], COSTS, [0.5, 1, 7.9])
    assert best.tolist() == [-1, 0, 0]
    assert loss[0] == np.inf
    assert loss[1] == 1.0


def test_the_order_of_models_is_theirs_only() -> None:
    best, loss = envelope([LARGE, SMALL], (8.0, 1.0), BUDGETS)
    assert best.tolist() == [1, 1, 1, 0]
    assert loss.tolist() == envelope([SMALL, LARGE], COSTS, BUDGETS)[1].tolist()
    assert envelope([SMALL, SMALL], (1.0, 1.0), BUDGETS)[0].tolist() == [0] * 4


def test_laws_that_do_not_cross_and_laws_that_cross_twice() -> None:
    assert crossings((SMALL, LossLaw(floor=0.7, a=0.4, b=0.5)), COSTS, 8, 1e6) == []
    assert crossings((SMALL, SMALL), (1.0, 1.0), 1, 100) == []
    places = crossings((FLAT, STEEP), (1.0, 1.0), 1, 1e4)
    assert [better for _, better in places] == [1, 0]
    for budget, _ in places:
        assert float(FLAT.at(budget)) == pytest.approx(float(STEEP.at(budget)), abs=1e-9)


positive = st.floats(0.05, 1)
untimed = settings(deadline=None)  # a busy machine is no failure


@untimed
@given(positive, positive, st.floats(0.2, 2), positive, positive, st.floats(0.2, 2), st.floats(1, 20))
def test_crossings_are_where_the_envelope_changes(
    l1: float, a1: float, b1: float, l2: float, a2: float, b2: float, cost: float
) -> None:
    laws = LossLaw(floor=l1, a=a1, b=b1), LossLaw(floor=l2, a=a2, b=b2)
    for budget, better in crossings(laws, (1.0, cost), cost, 1e4):
        one, other = laws[0].at(budget), laws[1].at(budget / cost)
        assert float(one) == pytest.approx(float(other), abs=1e-7)
        best, _ = envelope(laws, (1.0, cost), [budget * (1 + 1e-3)])
        slopes = [law.a * law.b * samples**-law.b for law, samples in zip(laws, (budget, budget / cost), strict=True)]
        if abs(slopes[0] - slopes[1]) > 1e-2:  # else they touch rather than cross
            assert best.tolist() == [better]


def test_scaling_costs_and_budgets_alike_changes_nothing() -> None:
    (place,) = crossings((SMALL, LARGE), (4.0, 32.0), 32, 4000)
    assert place[0] == pytest.approx(4 * crossings((SMALL, LARGE), COSTS, 8, 1000)[0][0])


# ---- fitting --------------------------------------------------------------------------------------------------------


@untimed
@given(st.floats(0, 1), st.floats(0.05, 2), st.floats(0.4, 3))
def test_a_known_law_is_found_again(floor: float, a: float, b: float) -> None:
    law = LossLaw(floor=floor, a=a, b=b)
    fitted = fit_loss(SAMPLES, law.at(SAMPLES))
    assert (fitted.floor, fitted.a, fitted.b) == pytest.approx((floor, a, b), rel=1e-3, abs=1e-4)
    assert fitted.error < 1e-4
    assert (fitted.least, fitted.most) == (1, 128)


def test_a_floor_is_not_below_0() -> None:
    fitted = fit_loss([1, 2, 4, 8, 16, 32], [1.0, 0.35, 0.12, 0.03, 0.0, 0.0])
    assert fitted.floor == 0.0
    assert fitted.b == pytest.approx(1.6, abs=0.2)


def test_a_loss_that_is_at_its_floor() -> None:
    assert fit_loss([1, 2, 4], [0.5, 0.5, 0.5]) == LossLaw(floor=0.5, a=0.0, b=1.0, least=1, most=4)
    assert fit_loss([1, 2, 4], [0.0, 0.0, 0.0]).floor == 0.0


@pytest.mark.parametrize(
    ("samples", "losses", "said"),
    [
        ([1, 2, 2], [0.9, 0.8, 0.8], "three different numbers of samples"),
        ([1, 2, 4, 8], [0.5, 0.6, 0.7, 0.8], "does not fall"),
        (SAMPLES, LossLaw(floor=0.3, a=0.5, b=0.1).at(SAMPLES), "is a guess; more samples are needed"),
        (FEW[:3], SMALL.at(FEW[:3]), "At 4 samples the loss has fallen by 0.2 and may still fall by 0.2"),
        (SAMPLES, 1 - 0.1 * np.log2(SAMPLES), "is a guess"),
    ],
)
def test_what_does_not_show_its_floor_is_refused(samples: list[float], losses: list[float], said: str) -> None:
    with pytest.raises(Unidentified, match=said):
        fit_loss(samples, losses)


def test_half_of_what_was_seen_may_be_left() -> None:
    """With b = 1/2 from 1 sample on, what is left after S is 1 / (sqrt(S) - 1) of what was seen: half at S = 9."""
    assert fit_loss([1, 3, 9.2], SMALL.at([1, 3, 9.2])).floor == pytest.approx(0.6, abs=1e-4)
    with pytest.raises(Unidentified):
        fit_loss([1, 3, 8.8], SMALL.at([1, 3, 8.8]))


def test_bad_input() -> None:
    for samples, losses in (([0.5, 1, 2], [1, 1, 1]), ([1, 2, 3], [1, 1, -1]), ([1, 2, 3], [1, 1])):
        with pytest.raises(ValueError, match="two rows of the same length"):
            fit_loss(samples, losses)
    with pytest.raises(ValueError, match="costs must be above 0"):
        envelope([SMALL], [0.0], [1.0])
    with pytest.raises(ValueError, match="at least one sample of either model"):
        crossings((SMALL, LARGE), COSTS, 4, 100)
    with pytest.raises(ValueError, match="on the same problems"):
        crossover(
            ModelLosses(samples=FEW, losses=np.ones((3, 6)), cost=1),
            ModelLosses(samples=FEW, losses=np.ones((4, 6)), cost=8),
        )


# ---- from problems --------------------------------------------------------------------------------------------------


def losses(rng: np.random.Generator, law: LossLaw, samples: NDArray[np.float64], problems: int) -> NDArray[np.float64]:
    """Problems of different floors and slopes, whose mean has the law; with noise."""
    floors = law.floor + rng.normal(0, 0.1, (problems, 1))
    slopes = law.a * rng.uniform(0.5, 1.5, (problems, 1))
    return np.maximum(floors + slopes * samples**-law.b + rng.normal(0, 0.03, (problems, len(samples))), 0.0)


def measured(rng: np.random.Generator, problems: int = 200) -> tuple[ModelLosses, ModelLosses]:
    return (
        ModelLosses(samples=SAMPLES, losses=losses(rng, SMALL, SAMPLES, problems), cost=1.0),
        ModelLosses(samples=FEW, losses=losses(rng, LARGE, FEW, problems), cost=8.0),
    )


def test_the_crossing_is_found_again_and_its_interval_holds_it() -> None:
    """12 sets of problems: intervals that hold it in 90% of sets hold it in fewer than 7 once in 1,800 times."""
    inside = []
    for seed in range(12):
        crossing = crossover(*measured(np.random.default_rng(seed)), resamples=40)
        assert crossing.budget is not None
        assert crossing.low is not None
        assert crossing.high is not None
        assert crossing.low <= crossing.high
        assert crossing.range == (8, 1280)
        inside.append(crossing.low <= 80.5 <= crossing.high)
    assert sum(inside) >= 7


def test_without_noise_it_is_the_crossing_of_the_laws() -> None:
    small, large = SMALL.at(SAMPLES)[None].repeat(4, 0), LARGE.at(FEW)[None].repeat(4, 0)
    first, second = ModelLosses(samples=SAMPLES, losses=small, cost=1), ModelLosses(samples=FEW, losses=large, cost=8)
    crossing = crossover(first, second, resamples=10)
    assert crossing.budget == pytest.approx(80.5, abs=0.05)
    assert crossing.low == pytest.approx(crossing.budget)
    assert crossing.high == pytest.approx(crossing.budget)
    assert crossing.missing == 0
    assert crossing.laws[1].floor == pytest.approx(0.55, abs=1e-4)
    # the other way round there is no budget from which on the small one is better
    other = crossover(second, first, resamples=10)
    assert (other.budget, other.low, other.high) == (None, None, None)
    # nor where they cross twice
    flat, steep = FLAT.at(SAMPLES)[None].repeat(4, 0), STEEP.at(SAMPLES)[None].repeat(4, 0)
    twice = crossover(
        ModelLosses(samples=SAMPLES, losses=flat, cost=1),
        ModelLosses(samples=SAMPLES, losses=steep, cost=1),
        resamples=10,
    )
    assert len(crossings(twice.laws, (1.0, 1.0), *twice.range)) == 2
    assert twice.budget is None


def test_the_seed_is_all_its_chance() -> None:
    given = measured(np.random.default_rng(0))
    one, again, other = (crossover(*given, resamples=20, seed=seed) for seed in (0, 0, 1))
    assert (one.low, one.high) == (again.low, again.high)
    assert (one.low, one.high) != (other.low, other.high)


def test_too_few_samples_are_refused() -> None:
    rng = np.random.default_rng(0)
    first, _ = measured(rng)
    early = FEW[:3]
    with pytest.raises(Unidentified, match="is a guess"):
        crossover(first, ModelLosses(samples=early, losses=losses(rng, LARGE, early, 200), cost=8.0), resamples=20)


def test_floors_that_few_problems_do_not_show_are_refused() -> None:
    """The law of all of them is identified, that of many resamples is not."""
    rng = np.random.default_rng(3)
    samples = np.array([1.0, 4.0, 12.0])
    first = ModelLosses(samples=SAMPLES, losses=losses(rng, SMALL, SAMPLES, 20), cost=1.0)
    second = ModelLosses(samples=samples, losses=losses(rng, LARGE, samples, 20), cost=8.0)
    assert fit_loss(samples, np.asarray(second.losses, float).mean(0)).floor == pytest.approx(0.55, abs=0.05)
    with pytest.raises(Unidentified, match="of resamples of the 20 problems"):
        crossover(first, second, resamples=50)


def test_models_that_no_common_budget_was_measured_for() -> None:
    law = LossLaw(floor=0.1, a=0.5, b=2.0)
    samples = np.array([1.0, 2.0, 4.0])
    table = law.at(samples)[None].repeat(3, 0)
    with pytest.raises(Unidentified, match="No budget that was measured"):
        crossover(
            ModelLosses(samples=samples, losses=table, cost=1), ModelLosses(samples=samples, losses=table, cost=1000)
        )


@pytest.mark.parametrize("violated", ["", "a floor that appears late", "a fall that ends slowly"])
def test_far_beyond_its_samples_the_interval_of_a_loss_holds_the_truth(violated: str) -> None:
    """At eight times the samples, under the law and where it is violated in two ways.

    Of 6 intervals of 95%, fewer than 4 hold it once in 450 times.
    """
    samples, far = np.exp2(np.arange(8)), 1024.0

    def loss(s: Any) -> Any:
        law = 0.1 + 0.8 * np.asarray(s, float) ** -0.8
        if violated.startswith("a floor"):
            return np.maximum(law, 0.17)
        return law if not violated else 0.08 + 0.9 / (1 + np.log2(np.asarray(s, float))) ** 1.5

    held = 0
    for seed in range(6):
        level = np.random.default_rng(seed).lognormal(0, 0.3, (60, 1))
        table = level * loss(samples) + np.random.default_rng(seed).normal(0, 0.005, (60, len(samples)))
        told = bootstrap(
            lambda problems, t=table: fit_loss(samples, t[problems].mean(0)).at(far),  # type: ignore[misc]
            60,
            resamples=100,
        )
        missed = loss_drift(samples, table)
        assert missed is not None
        interval = farther(told, missed, far / samples[-1], most=np.inf)
        held += bool(interval.low <= loss(far) * np.exp(0.3**2 / 2) <= interval.high)
    assert held >= 4


def test_what_half_of_the_samples_would_have_misled_by() -> None:
    """A floor that appears late is missed by half of the samples; a law that holds is not."""
    samples = [1, 2, 4, 8, 16, 32, 64, 128]
    rng = np.random.default_rng(0)
    level = rng.lognormal(0, 0.1, (80, 1))
    law = level * (0.1 + 0.8 * np.array(samples, float) ** -0.8)
    held = loss_drift(samples, law)
    assert held is not None
    assert max(abs(float(held.low)), abs(float(held.high))) < 1e-4
    late = loss_drift(samples, np.maximum(law, 0.17 * level))
    assert late is not None
    assert late.high < -0.01  # half of them say that it goes on falling
    assert loss_drift([1, 2, 4], law[:, :3]) is None
