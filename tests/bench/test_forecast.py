"""What a run will cost, and how long is left: what is known goes before what is guessed, and a guess is called one."""

from __future__ import annotations

from pathlib import Path

import pytest

from outthink.bench.forecast import Forecast, Pace, forecast
from outthink.cost.calibration import Calibration
from outthink.planner.make import make_plan
from outthink.planner.plan import Plan
from outthink.planner.quote import quote
from outthink.planner.recordings import read
from outthink.strategies.making import make_strategy
from outthink.types import Budget
from tests.planner.test_plan import calibrated
from tests.tools import simulated

NONE = Budget()


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    folder = tmp_path_factory.mktemp("plan")
    made, _ = make_plan(read([simulated.pool(folder / "pool.jsonl", 24, 8)], orders=4), folds=2, budgets=[80.0, 160.0])
    (folder / "plan.json").write_text(made.to_json())
    return folder / "plan.json", Plan.open(folder / "plan.json")


def test_what_was_measured_goes_first(plan: tuple[Path, Plan]) -> None:
    strategy = make_strategy("self_consistency?n=4")
    known = forecast(strategy, model="toy", budget=NONE, measured={"tokens": 123.0}, plan=plan[1])
    assert known == Forecast(cost=123.0, unit="tokens", source="measured")


def test_a_plan_tells_what_it_measured_and_by_its_rates_what_it_did_not(plan: tuple[Path, Plan]) -> None:
    _, opened = plan
    fixed = next(one for one in opened.fixed if one.setting == "self_consistency?n=4")
    measured = forecast(make_strategy("self_consistency?n=4"), model="toy", budget=NONE, plan=opened)
    assert measured == Forecast(cost=fixed.cost, unit="tokens", source="plan")
    rate = opened.policy.rates[0]
    other = forecast(make_strategy("self_consistency?n=5"), model="recorded:toy", budget=NONE, plan=opened)
    assert other is not None
    assert other.cost == pytest.approx(rate.prompt_tokens + 5 * rate.tokens)
    assert fixed.cost < other.cost
    limited = forecast(make_strategy("self_consistency?n=5"), model="toy", budget=Budget({"tokens": 50.0}), plan=opened)
    assert limited is not None
    assert limited.cost == 50.0


def test_auto_is_asked_for_its_own_plan(plan: tuple[Path, Plan]) -> None:
    path, opened = plan
    strategy = make_strategy("auto", {"plan": str(path), "mean_cost": 90.0})
    known = forecast(strategy, model="toy", budget=NONE)
    assert known == Forecast(cost=quote(opened, opened.price(90.0)).cost, unit="tokens", source="plan")


def test_a_calibration_tells_seconds(plan: tuple[Path, Plan], tmp_path: Path) -> None:
    calibration = Calibration.open(calibrated(tmp_path / "c.json"))
    strategy = make_strategy("self_consistency?n=4")
    known = forecast(strategy, model="toy", budget=NONE, plan=plan[1], calibration=calibration)
    rate = plan[1].policy.rates[0]
    assert known is not None
    assert known.seconds == calibration.seconds(round(rate.prompt_tokens), round(rate.tokens), 4).estimate
    other = forecast(strategy, model="other", budget=NONE, plan=plan[1], calibration=calibration)
    assert other is None, "neither is of that model"


def test_without_anything_the_budget_is_the_most_it_can_be() -> None:
    strategy = make_strategy("rebase")
    assert forecast(strategy, model="m", budget=NONE) is None
    known = forecast(strategy, model="m", budget=Budget({"tokens": 700.0}))
    assert known == Forecast(cost=700.0, unit="tokens", source="at most")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_method_that_was_timed_is_known_and_others_are_guessed() -> None:
    clock = Clock()
    pace = Pace([("a", 10), ("a", 10), ("b", 10)], {"a": 100.0, "b": 400.0}, clock=clock)
    assert pace.left() == (None, 3), "nothing was timed"
    pace.begin(0)
    clock.now += 5
    assert pace.left()[0] is None, "and still nothing"
    pace.tell(8)  # two problems in five seconds
    assert pace.left() == pytest.approx((8 * 2.5 + 10 * 2.5 + 10 * 10.0, 1))
    clock.now += 15
    pace.tell(0)
    pace.end()
    assert pace.left() == pytest.approx((10 * 2.0 + 10 * 8.0, 1))
    pace.begin(2)
    clock.now += 10
    pace.tell(0)
    pace.end()
    assert pace.left() == pytest.approx((20.0, 0))


def test_without_costs_a_guess_is_the_mean_of_what_was_timed() -> None:
    clock = Clock()
    pace = Pace([("a", 2), ("b", 3)], {}, clock=clock)
    pace.begin(0)
    clock.now += 4
    pace.tell(0)
    assert pace.left() == pytest.approx((6.0, 1))


def test_what_a_failed_run_has_left_is_not_waited_for() -> None:
    clock = Clock()
    pace = Pace([("a", 5), ("b", 5)], {}, clock=clock)
    for run in (0, 1):
        pace.begin(run)
        pace.end()
    assert pace.left() == (0.0, 0)
