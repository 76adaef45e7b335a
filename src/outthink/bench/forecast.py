"""What a run will probably cost before it is begun, and how long is left of several runs while they go on.

Source: none of its own. What was measured on the same method goes first, then a plan's measurements, then bounds; a
time is told as a guess wherever a method has not been timed yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from outthink.cost.calibration import Calibration
from outthink.errors import UsageError
from outthink.planner.plan import Plan
from outthink.planner.quote import price_at, quote
from outthink.strategies import Strategy, traits
from outthink.strategies.making import strategy_name
from outthink.types import Budget

Source = Literal["measured", "plan", "at most"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What one problem will cost.

    Args:
        cost: mean in `unit`, or a bound where `source` is "at most".
        seconds: of a problem by itself, by a calibration; None where there is none that fits. Problems that run side by
            side share the machine, so that a run takes at most this many times its problems.
    """

    cost: float
    unit: str
    source: Source
    seconds: float | None = None


def forecast(
    strategy: Strategy,
    *,
    model: str,
    budget: Budget,
    measured: Mapping[str, float] | None = None,
    plan: Plan | None = None,
    calibration: Calibration | None = None,
) -> Forecast | None:
    """What a problem will cost; None where nothing tells.

    Args:
        measured: mean cost by unit of problems that this method has solved; None: it has solved none.
        plan: of the same model; another one is not looked at. A strategy `auto` is asked for its own.
    """
    plan = plan if plan is not None and plan.model == model.removeprefix("recorded:") else None
    if calibration is not None and calibration.engine != model:
        calibration = None
    if measured is not None and "tokens" in measured:
        return Forecast(
            cost=measured["tokens"], unit="tokens", source="measured", seconds=_seconds(strategy, plan, calibration)
        )
    expected = _planned(strategy, plan, budget)
    limit = budget.limits.get("tokens")
    if expected is not None:
        cost, unit = expected
        if unit == "tokens" and limit is not None:
            cost = min(cost, limit)
        return Forecast(cost=cost, unit=unit, source="plan", seconds=_seconds(strategy, plan, calibration))
    if limit is not None:
        return Forecast(cost=limit, unit="tokens", source="at most", seconds=_seconds(strategy, plan, calibration))
    return None


def _planned(strategy: Strategy, plan: Plan | None, budget: Budget) -> tuple[float, str] | None:
    """Mean cost and its unit: of `auto` what its plan quotes, of others what the plan measured or its rates say."""
    if strategy_name(strategy) == "auto":
        path = getattr(strategy, "plan", "")
        if not path:
            return None
        own = Plan.open(path)
        mean = getattr(strategy, "mean_cost", 0.0)
        try:
            price = own.price(mean) if mean else price_at(own, budget, getattr(strategy, "value_of_correct", ""))
        except UsageError:  # it says so itself when it is begun
            return None
        return quote(own, price, limit=budget.limits.get(own.unit)).cost, own.unit
    samples = traits.most_samples(strategy)
    if plan is None:
        return None
    label = f"{strategy_name(strategy)}?n={samples}"
    for fixed in plan.fixed:
        if fixed.setting.partition(" by ")[0] == label:
            return fixed.cost, plan.unit
    if samples is None:
        return None
    rate = plan.policy.rates[0]
    return rate.prompt * rate.prompt_tokens + samples * rate.completion * rate.tokens, plan.unit


def _seconds(strategy: Strategy, plan: Plan | None, calibration: Calibration | None) -> float | None:
    samples = traits.most_samples(strategy)
    if plan is None or calibration is None or samples is None:
        return None
    rate = plan.policy.rates[0]
    return calibration.seconds(round(rate.prompt_tokens), round(rate.tokens), samples).estimate


@dataclass(kw_only=True, slots=True)
class _Timed:
    """What this program has seen of one method: seconds of the clock, and problems that were finished in them."""

    seconds: float = 0.0
    problems: int = 0

    @property
    def pace(self) -> float | None:
        return self.seconds / self.problems if self.problems else None


class Pace:
    """How long is left of runs that are carried out one after the other.

    A run whose method was timed takes what that took. Of one that was not, the costs that are known are compared with
    those of the methods that were timed; where there are none, it takes what the others take on average. Both are
    guesses, and counted.

    Args:
        runs: of each the method, and how many problems are left.
        costs: mean cost of a problem by method, in one unit, where it is known.
        clock: seconds.
    """

    def __init__(
        self, runs: Sequence[tuple[str, int]], costs: Mapping[str, float], *, clock: Callable[[], float]
    ) -> None:
        self._methods = [method for method, _ in runs]
        self._left = [left for _, left in runs]
        self._costs = costs
        self._clock = clock
        self._timed: dict[str, _Timed] = {}
        self._now: int | None = None
        self._begun = (0.0, 0)

    def begin(self, run: int) -> None:
        """This run is carried out from now on."""
        self._now = run
        self._begun = self._clock(), self._left[run]

    def tell(self, left: int) -> None:
        """So many problems are left of the run that is being carried out."""
        if self._now is not None:
            self._left[self._now] = left

    def end(self) -> None:
        """The run that was being carried out is over; what is left of it is not waited for."""
        if self._now is None:
            return
        seen = self._current()
        timed = self._timed.setdefault(self._methods[self._now], _Timed())
        timed.seconds += seen.seconds
        timed.problems += seen.problems
        self._left[self._now] = 0
        self._now = None

    def _current(self) -> _Timed:
        assert self._now is not None
        began, before = self._begun
        return _Timed(seconds=self._clock() - began, problems=before - self._left[self._now])

    def left(self) -> tuple[float | None, int]:
        """Seconds that are left, and of how many runs they are guessed; None before anything was timed."""
        paces = {method: timed.pace for method, timed in self._timed.items() if timed.pace is not None}
        if self._now is not None and (pace := self._current().pace) is not None:
            paces.setdefault(self._methods[self._now], pace)
        total: float | None = 0.0
        guessed = 0
        for run, left in enumerate(self._left):
            if not left:
                continue
            method = self._methods[run]
            pace = paces.get(method)
            if pace is None:
                guessed += 1
                pace = self._guess(method, paces)
            total = None if total is None or pace is None else total + left * pace
        return total, guessed

    def _guess(self, method: str, paces: Mapping[str, float]) -> float | None:
        if not paces:
            return None
        mine = self._costs.get(method)
        comparable = [pace / self._costs[other] for other, pace in paces.items() if self._costs.get(other)]
        if mine is not None and comparable:
            return mine * sum(comparable) / len(comparable)
        return sum(paces.values()) / len(paces)
