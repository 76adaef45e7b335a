"""Auto: take the next piece of work that is predicted to gain more than it costs, look again, and stop when none is.

Source: none of its own; it generalises compute-optimal scaling (Snell et al. 2024), adaptive-consistency (Aggarwal et
al. 2023) and optimal stopping. Differs from them: one price of compute decides between more samples, a dearer model,
another strategy and stopping; what has been drawn is gone on from and never drawn again.

Pays: with a plan from recordings of your own questions: on sums it was 1 to 4 points above the best fixed strategy at
equal cost, on GSM8K 2 up to 500 tokens. Without one it was nowhere worse than the vote (docs/results/planner.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from outthink.answers.thoughts import spoken
from outthink.cost import worth
from outthink.cost.calibration import Calibration
from outthink.cost.price import asking
from outthink.errors import BudgetExhausted, EngineError, UsageError
from outthink.maths.selection import codes, numbers
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.planner.agreement import next_portion
from outthink.planner.cases import SAMPLES
from outthink.planner.evidence import Seen, evidence
from outthink.planner.plan import Plan
from outthink.planner.policy import Rate, State
from outthink.resources.table import bind
from outthink.rewards.scores import Scores
from outthink.strategies import Report, Strategy, traits
from outthink.strategies.choosing import Majority, by_majority, pick
from outthink.strategies.flight import flight
from outthink.strategies.free_form import cost_of_sample, prompt_tokens
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.adaptive_consistency import top_counts
from outthink.strategies.parallel.race_vote import RaceVote
from outthink.types import Candidate, Problem, Usage

GENERAL = (
    "General plan: auto goes by agreement alone, so nobody knows what it will gain; "
    "make your own with `outthink plan fit`."
)
"""What a quote says where there is no plan."""

OUTSIDE = "outside of what the plan was fitted on"
"""In the note of a problem that looks like none of the plan's."""


@dataclass(frozen=True, kw_only=True)
class Auto:
    """With a plan what it has learned; without one the general plan, which goes by agreement and needs nothing.

    The general plan draws one sample after the other while more votes are expected to gain more than they cost.

    Args:
        plan: file of `outthink plan fit`; empty: none.
        value_of_correct: what a right answer is worth, such as "0.05usd" or "5k-tokens"; work that is expected to gain
            less than it costs is not done, and without a plan no more is spent than the answer is worth. Empty: decided
            by `mean_cost`, or without a plan by `value_in_samples`.
        mean_cost: what problems may cost on average, in the plan's unit; 0: as much as the budget of this problem, or
            without one as much as still brings anything.
        calibration: file of `outthink calibrate` for the model; empty: none. With it a budget in seconds is planned: no
            portion is begun that is expected to end too late. Where there is no other budget, the mean cost is that of
            as many samples as fit into the seconds.
        value_in_samples: without a plan and a value, what a right answer is worth; above 0.
        n: without a plan, most samples; at least 1.
        ahead: without a plan and a value, samples in flight; what is left of them at the stop is cancelled, and charged
            as far as it was written. The decision does not depend on it.
    """

    votes: ClassVar[bool] = True  # equal answers are what it goes by
    follows_verifier: ClassVar[bool] = False  # of which scores are one signal in a plan

    plan: str = ""
    value_of_correct: str = ""
    mean_cost: float = 0.0
    calibration: str = ""
    value_in_samples: float = 200.0
    n: int = 40
    ahead: int = 4

    def __post_init__(self) -> None:
        for name in ("n", "ahead"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.value_in_samples > 0:
            raise ValueError(f"value_in_samples must be above 0, not {self.value_in_samples}")
        if not (math.isfinite(self.mean_cost) and self.mean_cost >= 0):
            raise ValueError(f"mean_cost must be at least 0 and finite, not {self.mean_cost}")
        if self.value_of_correct:
            worth(self.value_of_correct)
            if self.mean_cost:
                raise ValueError("give value_of_correct or mean_cost, not both: each decides when to stop")
        if self.mean_cost and not self.plan:
            raise ValueError("mean_cost needs a plan, which knows what costs how much; else use value_of_correct")
        if self.calibration and not self.plan:
            raise ValueError("calibration needs a plan, by which seconds are spent")
        if self.plan:
            self._opened()
        if self.calibration:
            Calibration.open(self.calibration)

    @property
    def as_asked(self) -> bool:
        """Whether every answer is a sample of the problem's own messages."""
        return not self.parts

    @property
    def powers(self) -> frozenset[str]:
        """What the plan's signals, and the strategies it may run, need of the model."""
        needed = {power for part in self.parts for power in traits.powers(part)}
        return frozenset(needed | ({"logprobs"} if self.plan and "logprob" in self._opened().policy.signals else set()))

    @property
    def versions(self) -> dict[str, str]:
        """What its decisions depend on beside its settings: the content of the plan."""
        return {"plan": self._opened().digest} if self.plan else {}

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """The strategies that the plan may run in its place."""
        if not self.plan:
            return ()
        runs = [action.run for action in self._opened().policy.actions if action.kind == "run"]
        return tuple(make_strategy(run) for run in runs)

    @property
    def recorded_cap(self) -> int | None:
        """The cap of the samples that the plan was made from, where the pool has told it."""
        told = (self._opened().sampling or {}).get("max_tokens") if self.plan else None
        return None if told is None else int(told)

    @property
    def most_samples(self) -> int | None:
        """The most that it draws, where no plan says otherwise."""
        return None if self.plan else self.n

    def _opened(self) -> Plan:
        return Plan.open(self.plan)

    async def run(
        self,
        problem: Problem,
        report: Report,
        *,
        model: Model,
        models: Models,
        meter: Meter,
        resources: Mapping[str, Any],
        verifier: Scores | None = None,
        prm: Scores | None = None,
    ) -> None:
        """Decide, do the first part of it, look again."""
        self.check(model, models, verifier, prm)
        if not self.plan:
            await self._unplanned(problem, report, model, meter)
            return
        target = models.role("target")
        await _Planned(self, self._opened(), problem, report, model, target, meter, verifier).run(resources)

    def check(self, model: Model, models: Models, verifier: Scores | None, prm: Scores | None) -> None:
        """Raise UsageError where the plan is for something else, or nobody knows what the value is worth here."""
        if self.value_of_correct and (unit := worth(self.value_of_correct)[1]) not in model.cost(Usage()):
            raise UsageError(f"What {model.name} costs in {unit} is not known; use tokens, or give {asking()}")
        if self.plan:
            self._opened().check(
                model=model.name,
                target=models.role("target").name,
                verifier=None if verifier is None else verifier.name,
                prm=None if prm is None else prm.name,
                sampling={
                    "temperature": model.sampling.temperature,
                    "top_p": model.sampling.top_p,
                    "max_tokens": model.sampling.cap,
                },
            )

    async def _unplanned(self, problem: Problem, report: Report, model: Model, meter: Meter) -> None:
        """One sample after the other while more votes are worth it, in the order of their addresses.

        Where the answer has a value in a unit, nothing is begun that would, being as long as the longest so far, cost
        more in all. Of a model that thinks, votes are weighed by length, and it stops by the rule of race_vote.
        """
        value, unit = worth(self.value_of_correct) if self.value_of_correct else (0.0, "")
        race = RaceVote(value_in_tokens=value / meter.dearness() if unit == "tokens" else 0.0)
        seen: list[Candidate] = []
        majority = Majority()
        async with flight(model.draws(problem), self.n, 1 if value else self.ahead) as flying:
            while (sample := await flying.next()) is not None:
                seen.append(sample)
                chosen, share = majority.add(sample)
                thinks = spoken(seen[0].text) != seen[0].text
                if thinks:
                    keys, tokens = codes([one.key for one in seen]), np.array([one.tokens for one in seen], dtype=float)
                    _, choice, enough = race.look(keys, tokens)
                    chosen, share = pick(seen, choice)
                report(seen, chosen=chosen, confidence=share)
                cost = 1 / self.value_in_samples
                if value:
                    each, longest = (
                        cost_of_sample(model, meter, tokens, unit)
                        for tokens in (float(np.mean([one.tokens for one in seen])), max(one.tokens for one in seen))
                    )
                    if meter.cost().get(unit, 0.0) + longest > value:
                        return
                    cost = each / value
                votes = [majority.tally.votes, majority.tally.runner_up]
                if enough if thinks else not next_portion(votes, len(seen), cost * meter.dearness()):
                    return


class _Planned:
    """One problem under a plan."""

    def __init__(
        self,
        auto: Auto,
        plan: Plan,
        problem: Problem,
        report: Report,
        model: Model,
        target: Model,
        meter: Meter,
        verifier: Scores | None,
    ) -> None:
        self._plan, self._problem, self._report, self._meter = plan, problem, report, meter
        self._model, self._target, self._verifier = model, target, verifier
        self._samples: list[Candidate] = []
        self._of_target: list[Candidate] = []
        self._scores: dict[str, float | None] = {}
        self._prompt = math.nan  # known from the first call
        self._failure: EngineError | None = None
        self._closed = False  # the target has failed
        logprobs = "logprob" in plan.policy.signals
        self._draws = (model.draws(problem, Draw(logprobs=logprobs)), target.draws(problem, Draw(logprobs=logprobs)))
        self._calibration = Calibration.open(auto.calibration) if auto.calibration else None
        if self._calibration is not None and self._calibration.engine != plan.model:
            raise UsageError(f"The calibration is of {self._calibration.engine}, not of {plan.model}; calibrate that.")
        if plan.unit == SAMPLES and (auto.value_of_correct or auto.calibration):
            raise UsageError(
                "The plan counts samples, because its pool has no tokens: give mean_cost in samples, or fit a plan "
                "from a pool with tokens."
            )
        self._price, self._unit = self._priced(auto)

    def _priced(self, auto: Auto) -> tuple[float, str]:
        """The price of one unit of cost where a right answer is worth 1, and that unit."""
        plan = self._plan
        if auto.value_of_correct:
            value, unit = worth(auto.value_of_correct)
            if unit not in self._model.cost(Usage()):
                raise UsageError(
                    f"What {self._model.name} costs in {unit} is not known; use tokens, or give {asking()}"
                )
            return 1 / value, unit
        limits = self._meter.budget.limits
        wanted = auto.mean_cost or limits.get(plan.unit, math.inf)
        if not auto.mean_cost and self._calibration is not None and "seconds" in limits:
            rate = plan.policy.rates[0]
            prompt, written = round(rate.prompt_tokens), round(rate.tokens)
            fitting = max(1, self._calibration.samples(limits["seconds"], prompt, written))
            wanted = min(wanted, rate.prompt * prompt + rate.completion * rate.tokens * fitting)
        least = min(point.price for point in plan.expected)
        return (plan.price(wanted) if math.isfinite(wanted) else least), plan.unit

    async def run(self, resources: Mapping[str, Any]) -> None:
        policy = self._plan.policy
        state: State = (0, 0)
        self._meter.notes.append(f"price {self._price:.6g} of 1 {self._unit}, where a right answer is worth 1")
        while True:
            features = self._look(state)
            if self._samples and bool(policy.scale.outside(features)):
                self._meter.notes.append(f"after {state[0] + state[1]} samples {OUTSIDE}: went on by agreement")
                await self._by_agreement()
                return
            choice = self._choice(features, state)
            if choice == 0:
                break
            following = policy.following(state, choice)
            if following is None:
                run = policy.actions[choice - 1].run
                self._meter.notes.append(f"after {state[0]} samples: {run}")
                await self._other(run, resources)
                return
            if not await self._draw(state, following):
                self._look(self._there())  # what came of a portion that the budget has cut votes, too
                break
            if self._samples or self._of_target or not following[1]:
                state = following  # a target that failed at once leaves the other ways to begin
        if self._failure is not None and not (self._samples or self._of_target):
            raise self._failure

    def _there(self) -> State:
        return len(self._samples), len(self._of_target)

    def _look(self, state: State) -> Any:
        """The features of what is there; reports the answer that leads."""
        features, leader = self._evidence()
        samples = [*self._samples, *self._of_target]
        if samples:
            policy = self._plan.policy
            self._report(samples, chosen=leader, confidence=float(policy.now(features, state)))
        return features

    def _choice(self, features: Any, state: State) -> int:
        plan, policy = self._plan, self._plan.policy
        tokens = (self._mean_tokens(self._samples), self._mean_tokens(self._of_target))
        gains = policy.gains(features, state)
        cost = policy.cost(state, tokens, np.array(self._prompt), self._rates(self._unit))
        # of a plan in samples nobody knows what they cost; then the limit is the meter's alone
        for unit, left in self._meter.left().items() if plan.unit != SAMPLES else ():
            if unit == "seconds" and self._calibration is not None and state != (0, 0):
                gains = np.where(self._late(state, tokens[0], left), np.nan, gains)
            elif unit != "seconds" and state != (0, 0):
                # what is predicted not to fit is not begun; the limit itself is the meter's
                needed = (
                    cost
                    if unit == self._unit
                    else policy.cost(state, tokens, np.array(self._prompt), self._rates(unit))
                )
                gains = np.where(needed > left, np.nan, gains)
        if not (self._samples or self._of_target):
            gains[..., 0] = -policy.now(features, state)  # everything has failed so far
        if self._closed:
            gains = np.where([False, *(action.kind == "target" for action in policy.actions)], np.nan, gains)
            others = [start for start in policy.starts if policy.actions[start.action].kind != "target"]
            policy = replace(policy, starts=tuple(others))
        rates = self._rates(self._unit)
        inner = 1.0 if rates is None else rates[0].completion / policy.rates[0].completion  # of the plan's own unit
        price = self._price * self._meter.dearness()
        return int(policy.choice(gains, cost, price * (1.0 if sum(state) else inner), state))

    def _late(self, state: State, tokens: Any, left: float) -> list[bool]:
        """Whether the next portion of each action would end too late; of a target and a run nothing is known."""
        assert self._calibration is not None
        policy, late = self._plan.policy, [False]
        prompt = round(policy.rates[0].prompt_tokens if math.isnan(self._prompt) else self._prompt)
        written = round(policy.rates[0].tokens if np.isnan(tokens) else float(tokens))
        for place, action in enumerate(policy.actions, 1):
            following = policy.following(state, place) if action.kind == "sample" and action.n > state[0] else None
            portion = 0 if following is None else following[0] - state[0]
            late.append(portion > 0 and self._calibration.seconds(prompt, written, portion).estimate > left)
        return late

    def _rates(self, unit: str) -> Sequence[Rate] | None:
        """The plan's rates, in its own or another unit."""
        plan = self._plan
        if unit == plan.unit:
            return None
        priced = []
        for rate, model in zip(plan.policy.rates, (self._model, self._target), strict=False):
            prompt, written = round(rate.prompt_tokens), max(1, round(rate.tokens))
            cost = model.cost(Usage(prompt=prompt))
            whole = model.cost(Usage(prompt=prompt, cached=prompt, completion=written))
            if unit not in cost:
                raise UsageError(f"What {model.name} costs in {unit} is not known; use tokens, or give {asking()}")
            priced.append(replace(rate, prompt=cost[unit] / max(prompt, 1), completion=whole[unit] / written))
        return priced

    async def _draw(self, state: State, following: State) -> bool:
        """Draw up to the following state; False where nothing more can be had and what is there has to do."""
        dear = following[1] > state[1]
        try:
            drawn = await self._draws[dear].draw(following[dear] - state[dear])
        except BudgetExhausted:
            if not (self._samples or self._of_target):
                raise
            return False
        except EngineError as failure:  # these failed; others may come back
            self._failure = failure
            self._closed = self._closed or dear
            self._meter.notes.append(f"{'the target' if dear else 'the model'} failed after {sum(state)} samples")
            return True
        (self._of_target if dear else self._samples).extend(drawn)
        if math.isnan(self._prompt) and not dear and self._plan.unit != SAMPLES:
            self._prompt = prompt_tokens(self._meter)
        if self._verifier is not None and self._plan.verifier is not None and not dear:
            self._look(self._there())  # so that the vote stands if scoring takes too long
            scores = await self._verifier.attempt(self._problem, drawn)
            self._scores.update((sample.id, score) for sample, score in zip(drawn, scores, strict=True))
        return not self._meter.refused

    def _evidence(self) -> tuple[Any, Candidate | None]:
        plan, samples = self._plan, [*self._samples, *self._of_target]
        signals = {}
        for signal in plan.policy.signals:
            if signal == "logprob":
                values = [None if not one.logprobs else float(np.mean(one.logprobs)) for one in samples]
            else:
                values = [self._scores.get(one.id) for one in samples]
            signals[signal] = numbers(values)
        seen = Seen(
            keys=codes([one.key for one in samples]),
            tokens=np.array([self._length(one) for one in samples], dtype=float),
            paths=codes([one.text for one in samples]),
            target=np.arange(len(samples)) >= len(self._samples),
            signals=signals,
            prompt=np.array(self._prompt),
        )
        summary = evidence(seen, plan.policy.vote, plan.policy.signals, target=plan.policy.has_target)
        leader = int(summary.leader)
        return summary.features, None if leader < 0 else samples[leader]

    def _length(self, sample: Candidate) -> float:
        """As the plan's pool says it: all are equal where it has no tokens."""
        return 1.0 if self._plan.unit == SAMPLES else float(sample.tokens)

    def _mean_tokens(self, samples: Sequence[Candidate]) -> Any:
        return np.array(np.mean([self._length(one) for one in samples]) if samples else np.nan)

    async def _by_agreement(self) -> None:
        """Go on by the general plan, at the plan's price, with the samples at hand."""
        rates = self._rates(self._unit) or self._plan.policy.rates
        while True:
            samples = [*self._samples, *self._of_target]
            chosen, share = by_majority(samples)
            self._report(samples, chosen=chosen, confidence=share)
            price = self._price * self._meter.dearness()
            cost = price * rates[0].completion * float(self._mean_tokens(self._samples))
            votes = top_counts(codes([one.key for one in samples]))
            if len(self._samples) >= self._plan.samples or not next_portion(votes, len(samples), cost):
                return
            try:
                self._samples += await self._draws[0].draw(1)
            except (BudgetExhausted, EngineError):
                return

    async def _other(self, run: str, resources: Mapping[str, Any]) -> None:
        strategy = make_strategy(run)
        await strategy.run(self._problem, self._report, **bind(strategy.run, resources, f"The plan's {run}"))
