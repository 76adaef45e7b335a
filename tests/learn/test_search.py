"""Searches for settings: each keeps the budget, evaluates nothing twice, repeats itself, and beats chance or not."""

from __future__ import annotations

import asyncio
import itertools
from typing import get_args

import numpy as np
import pytest

from outthink.errors import MissingResource, UsageError
from outthink.learn.architectures import SAMPLES, archon_space, stage_budget, stage_space
from outthink.learn.proposing import By, by_chance, policy_gradient, proposer, softmax
from outthink.learn.search import Archive, Point, SearchSpace, SearchTrial, best_trial, scored_again, searched
from outthink.strategies.collective.architecture import calls, checked, written

SIZES = (4, 8, 4, 8)
PRICE = (1, 2, 4, 8)


def cost(point: Point) -> float:
    return float(sum(PRICE[model] * (amount + 1) for model, amount in zip(point[::2], point[1::2], strict=True)))


SPACE = SearchSpace(sizes=SIZES, allowed=lambda point: cost(point) <= 20, cost=cost, stages=((0, 1), (2, 3)))


def value(point: Point) -> float:
    """The first stage wants a large model, the second one many samples of a small one, but not all of them."""
    first, n, second, m = point
    return 0.2 * first - 0.01 * n + 0.1 * (m - 0.12 * m * m) - 0.05 * second


def ran(space: SearchSpace, by: By, evaluations: int, seed: int = 0) -> list[SearchTrial]:
    asked: list[Point] = []

    async def evaluate(point: Point) -> float:
        asked.append(point)
        return value(point)

    trials = asyncio.run(searched(space, evaluate, proposer(by, seed), evaluations=evaluations))
    assert [trial.point for trial in trials] == asked
    assert len({*asked}) == len(asked)
    return trials


@pytest.fixture(params=get_args(By))
def by(request: pytest.FixtureRequest) -> By:
    if request.param == "tpe":
        pytest.importorskip("optuna")
    way: By = request.param
    return way


def test_no_setting_is_over_the_budget_and_the_same_seed_gives_the_same_trials(by: By) -> None:
    trials = ran(SPACE, by, 14)
    assert len(trials) == 14
    assert all(cost(trial.point) <= 20 for trial in trials)
    assert ran(SPACE, by, 14) == trials


def test_all_settings_are_evaluated_where_there_are_no_more_than_that() -> None:
    space = SearchSpace(sizes=(3, 3), allowed=lambda point: sum(point) < 4, cost=sum, stages=((0, 1),))
    for way in ("random", "insights"):

        async def evaluate(point: Point) -> float:
            return float(point[0])

        trials = asyncio.run(searched(space, evaluate, proposer(way), evaluations=50))
        assert {trial.point for trial in trials} == {p for p in itertools.product(range(3), repeat=2) if sum(p) < 4}


def test_insights_reach_the_best_setting_of_a_pipeline_sooner_than_chance() -> None:
    """30 of 378 settings at random have the best one with 7.9%: 8 times in 20 with less than 0.03%."""
    allowed = [point for point in itertools.product(*map(range, SIZES)) if SPACE.allowed(point)]
    most = max(map(value, allowed))
    found_by = {way: sum(best(SPACE, way, seed) >= most - 1e-9 for seed in range(20)) for way in ("insights", "random")}
    assert found_by["insights"] == 20
    assert found_by["random"] < 8


def best(space: SearchSpace, way: str, seed: int) -> float:
    score = best_trial(space, ran(space, way, 30, seed)).score  # type: ignore[arg-type]  # a name
    assert score is not None
    return score


def test_tpe_learns_where_scores_are_good() -> None:
    pytest.importorskip("optuna")
    assert all(best(SPACE, "tpe", seed) > best(SPACE, "random", seed) for seed in range(3))


def test_a_step_of_reinforce_goes_where_scores_are_better_and_nowhere_where_they_are_equal() -> None:
    odds = [softmax(np.array([0.0, -2.0])), softmax(np.zeros(3))]
    assert odds[0][1] == pytest.approx(0.1192, abs=5e-5)
    slopes = policy_gradient(odds, [(1, 0), (0, 0), (0, 0)], [1.0, 0.0, 0.0])
    assert slopes[0][1] > 0 > slopes[0][0]
    assert all(abs(slope).max() < 1e-12 for slope in policy_gradient(odds, [(1, 0), (0, 2)], [0.5, 0.5]))


def test_the_gradient_of_a_batch_is_half_the_true_one_on_average_for_two_points() -> None:
    """All batches of two points by their probability; (n - 1) / n of the slope of the expected score, exactly."""
    logits = [np.array([0.3, -0.4]), np.array([0.1, 0.0, -1.0])]
    worth = {
        point: 0.3 * point[0] - 0.2 * point[1] + 0.5 * (point == (1, 2))
        for point in itertools.product((0, 1), (0, 1, 2))
    }

    def chance(point: Point, odds: list[np.ndarray]) -> float:
        return float(np.prod([one[value] for one, value in zip(odds, point, strict=True)]))

    def expected(logits: list[np.ndarray]) -> float:
        odds = [softmax(axis) for axis in logits]
        return sum(chance(point, odds) * score for point, score in worth.items())

    odds = [softmax(axis) for axis in logits]
    mean = [np.zeros(2), np.zeros(3)]
    for one, other in itertools.product(worth, repeat=2):
        for axis, slope in enumerate(policy_gradient(odds, [one, other], [worth[one], worth[other]])):
            mean[axis] += chance(one, odds) * chance(other, odds) * slope
    for axis, size in enumerate((2, 3)):
        for value in range(size):
            up, down = ([one.copy() for one in logits] for _ in range(2))
            up[axis][value] += 1e-5
            down[axis][value] -= 1e-5
            true = (expected(up) - expected(down)) / 2e-5
            assert mean[axis][value] == pytest.approx(true / 2, abs=1e-8)


def test_reinforce_learns_what_all_good_points_have_in_common() -> None:
    """A score for each 1 on 12 axes: by chance the mean of 40 points grows by 2 with less than 1e-6."""
    space = SearchSpace(sizes=(2,) * 12, allowed=lambda point: True, cost=sum)

    async def evaluate(point: Point) -> float:
        return sum(point) / 12

    trials = asyncio.run(searched(space, evaluate, proposer("reinforce", 1), evaluations=120))
    first, last = (np.mean([sum(t.point) for t in part]) for part in (trials[:40], trials[-40:]))
    assert last > first + 2


def test_chance_goes_by_the_logits_of_the_space_and_a_proposal_is_repaired() -> None:
    """An axis that is 1 with .1192: of 400 draws more than 100 are with less than 1e-9."""
    space = SearchSpace(
        sizes=(2, 2), allowed=lambda point: point[0] == 0, repaired=lambda point: (0, point[1]) if point[1] else None,
        cost=sum, logits=((0.0, 0.0), (0.0, -2.0)),
    )  # fmt: skip
    drawn = [*itertools.islice(by_chance(Archive(space=space), 0), 400)]
    assert 8 < sum(point[1] for point in drawn) < 100
    assert space.within((1, 1)) == (0, 1)
    assert space.within((1, 0)) is None
    archive = Archive(space=space, known={(0, 1): 0.5})
    assert archive.score((1, 1)) == 0.5
    assert archive.score((1, 0)) is None


def test_the_best_few_are_scored_again_and_luck_is_gone() -> None:
    trials = [SearchTrial(point=(place, 0, 0, 0), score=1.0 if place else 0.9) for place in range(4)]
    fresh: dict[Point, float] = {(0, 0, 0, 0): 0.8, (1, 0, 0, 0): 0.4, (2, 0, 0, 0): 0.8, (3, 0, 0, 0): 0.1}

    async def evaluate(point: Point) -> float:
        return fresh[point]

    again = asyncio.run(scored_again(SPACE, trials, evaluate))
    assert [trial.point[0] for trial in again] == [1, 2, 3, 0], "best first, of equal ones the cheaper"
    assert best_trial(SPACE, again).point == (0, 0, 0, 0), "of equal ones the cheaper"


def test_of_equal_scores_the_cheaper_setting_is_the_better_one_and_missing_scores_never_win() -> None:
    trials = [SearchTrial(point=point, score=score) for point, score in (((3, 0, 0, 0), 0.5), ((0, 0, 0, 0), 0.5),
                                                                        ((1, 0, 0, 0), None))]  # fmt: skip
    assert best_trial(SPACE, trials).point == (0, 0, 0, 0)
    with pytest.raises(UsageError, match="No setting could be evaluated"):
        best_trial(SPACE, trials[2:])


def test_what_cannot_be_searched_is_told() -> None:
    nothing = SearchSpace(sizes=(2, 2), allowed=lambda point: False, cost=sum, stages=((0, 1),))
    with pytest.raises(UsageError, match="No setting is within the budget: allow more"):
        ran(nothing, "random", 3)
    with pytest.raises(UsageError, match="evaluations must be at least 1, not 0"):
        ran(SPACE, "random", 0)
    with pytest.raises(UsageError, match="This search needs a pipeline"):
        ran(SearchSpace(sizes=(2,), allowed=lambda point: True, cost=sum), "insights", 1)


def test_without_optuna_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingResource, match=r"pip install 'outthink\[search\]'"):
        ran(SPACE, "tpe", 1)


# ---------------------------------------------------------------------------------------------- spaces


def test_every_architecture_of_the_space_keeps_the_rules_and_the_calls_and_is_there_once() -> None:
    made = archon_space(("strong", "weak"), most_calls=13)
    for layers in made.layers.values():
        assert checked(layers) == layers
        assert calls(layers) <= 13
        assert layers[0][0].model == "strong"
    texts = [*map(written, made.layers.values())]
    assert len({*texts}) == len(texts)
    assert "generator:5@strong,generator:5@weak|critic@strong|ranker:5@strong|fuser:1@strong" in texts
    assert f"generator:{max(SAMPLES)}@strong" in texts
    with pytest.raises(UsageError, match="No architecture is within 0: the least one needs 1"):
        archon_space(("a",), most_calls=0)


def test_the_budget_of_a_stage_has_the_numbers_of_the_card() -> None:
    assert stage_budget(1, 2, prompt_to_answer=4) == 1.0
    assert stage_budget(1, 10, prompt_to_answer=4) == 5.0
    large = stage_budget(70 / 3, 1, prompt_to_answer=4)
    assert large == pytest.approx(56.33, abs=0.005)
    assert stage_budget(1, 112, prompt_to_answer=4) <= large < stage_budget(1, 113, prompt_to_answer=4)
    with pytest.raises(ValueError, match="at least one sample"):
        stage_budget(1, 0, prompt_to_answer=4)


def test_a_pipeline_of_one_stage_chooses_between_size_and_samples() -> None:
    made = stage_space({"small": 1.0, "large": 8.0}, stages=1)
    texts = [*map(written, made.layers.values())]
    assert "generator:1@large" in texts
    assert "generator:2@large" not in texts
    assert "generator:12@small" in texts, "2 * 12 is no more than 2 * 8 + 2 * 7"
    assert "generator:16@small" not in texts


def test_no_pipeline_is_over_the_budget_and_every_amount_is_a_whole_number_of_samples() -> None:
    sizes = {"small": 1.0, "large": 8.0}
    made = stage_space(sizes, stages=2, passes=2)
    most = 2 * (stage_budget(8, 1, prompt_to_answer=1) + 2 * 8)
    for layers in made.layers.values():
        total = sum(stage_budget(sizes[one.model], one.samples, prompt_to_answer=1) for (one,) in layers)
        assert total <= most + 1e-9
        assert all(one.samples >= 1 for (one,) in layers)
        assert [one.type for (one,) in layers] == ["generator", "fuser"]
    with pytest.raises(UsageError, match="more than 100,000 settings: take fewer stages"):
        stage_space(sizes, stages=9)
    with pytest.raises(UsageError, match="a size above 0"):
        stage_space({"small": 0.0}, stages=1)
