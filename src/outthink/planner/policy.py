"""What to do next: the action with the largest predicted value of being right less its predicted price, or to stop.

Source: none of its own; it generalises difficulty bins (Snell et al. 2024), adaptive-consistency's stop, and optimal
stopping with a value of information. Differs from them: one price of compute stands behind every decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from outthink.planner.estimate import Estimate, Prospect, Scale
from outthink.planner.evidence import Floats, Vote

LEVELS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of samples at which a policy looks and decides."""

State = tuple[int, int]
"""(samples of the model, samples of the target): once the target has been asked, only it is asked further."""

_PRIOR = 2.0  # samples that the pool's mean length counts for, against the lengths seen on the problem itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """Something to do next.

    Args:
        kind: "sample": go on to n samples of the model; "target": to n samples of the dearer one; "run": run the
            strategy named `run` instead, and end.
        cost: of a run, mean in the plan's unit; of samples it is computed.
    """

    kind: Literal["sample", "target", "run"]
    n: int = 0
    run: str = ""
    cost: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What is predicted where so many samples are there.

    Args:
        drawn: samples of the model; -1: any number of them, once the target has been asked.
        dear: samples of the target.
        now: whether the leading answer is right; None where there is no sample.
        prospects: what going on gains, one for each kind of action that is open.
    """

    drawn: int
    dear: int
    now: Estimate | None
    prospects: tuple[Prospect, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What a policy reaches that begins with one kind of action, and decides freely afterwards.

    Args:
        action: position of the action.
        prices: rising; right, cost: mean at each of them.
    """

    action: int
    prices: tuple[float, ...]
    right: tuple[float, ...]
    cost: tuple[float, ...]

    def worth(self, price: float) -> float:
        """Mean P(right) less price times mean cost; between measured prices in proportion."""
        at = np.log(np.clip(price, self.prices[0], self.prices[-1]))
        right, cost = (float(np.interp(at, np.log(self.prices), values)) for values in (self.right, self.cost))
        return right - price * cost if np.isfinite(price) else -cost


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What a model costs, in the plan's unit.

    Args:
        prompt: of one token of the prompt, read once for all samples.
        completion: of one token written, scoring included.
        tokens: completion tokens of a sample, mean over the pool.
        prompt_tokens: mean over the pool.
    """

    prompt: float
    completion: float
    tokens: float
    prompt_tokens: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Everything that a decision needs; learned by `fit`, kept in a plan.

    Args:
        signals: names of the signals it looks at.
        actions: what may be done.
        stages: one for each number of samples.
        starts: what may be done first, where there is nothing yet to decide by.
        rates: of the model, and of the target where there is one.
    """

    signals: tuple[str, ...]
    vote: Vote
    scale: Scale
    actions: tuple[Action, ...]
    stages: tuple[Stage, ...]
    starts: tuple[Start, ...]
    rates: tuple[Rate, ...]

    @property
    def has_target(self) -> bool:
        """Whether it can go over to a dearer model."""
        return len(self.rates) > 1

    def stage(self, state: State) -> Stage:
        """Where a state belongs; that of the most samples that it has at least, where it lies between two."""
        drawn, dear = state
        there = [stage for stage in self.stages if (stage.dear > 0) == (dear > 0)]
        within = [stage for stage in there if (stage.dear <= dear if dear else stage.drawn <= drawn)]
        return max(within, key=lambda stage: (stage.dear, stage.drawn))

    def now(self, features: Floats, state: State) -> Floats:
        """(...,) P(right) if one stops now."""
        estimate = self.stage(state).now
        return np.zeros(features.shape[:-1]) if estimate is None else estimate.at(self.scale.standard(features))

    def gains(self, features: Floats, state: State) -> Floats:
        """(..., 1 + actions) what each action adds to P(right): 0 for stopping, NaN where it is not open."""
        units = self.scale.standard(features)
        gains = np.full((*features.shape[:-1], 1 + len(self.actions)), np.nan)
        gains[..., 0] = 0.0
        for prospect in self.stage(state).prospects:
            gains[..., 1 + np.array(prospect.actions)] = prospect.at(units)
        return gains

    def cost(
        self, state: State, tokens: tuple[Floats, Floats], prompt: Floats, rates: Sequence[Rate] | None = None
    ) -> Floats:
        """(..., 1 + actions) predicted cost of each action; 0 of stopping, NaN where it is not open.

        Args:
            tokens: (...,) per sample so far, of the model and of the target; NaN without any.
            prompt: (...,) its tokens; NaN where unknown.
            rates: in another unit than the plan's.
        """
        rates = rates or self.rates
        drawn, dear = state
        mean = _shrunk(tokens[0], drawn, rates[0].tokens)
        costs = np.full((*np.shape(prompt), 1 + len(self.actions)), np.nan)
        costs[..., 0] = 0.0
        for place in (place for prospect in self.stage(state).prospects for place in prospect.actions):
            action = self.actions[place]
            if action.kind == "run":
                costs[..., 1 + place] = action.cost * rates[0].completion / self.rates[0].completion
                continue
            if action.kind == "sample":
                rate, had, each = rates[0], drawn, mean
            else:
                rate, had = rates[1], dear
                prior = rate.tokens * mean / rates[0].tokens
                each = prior if dear == 0 else (np.nan_to_num(tokens[1]) * dear + _PRIOR * prior) / (dear + _PRIOR)
            reading = 0.0 if had else rate.prompt * np.where(np.isnan(prompt), rate.prompt_tokens, prompt)
            costs[..., 1 + place] = reading + rate.completion * each * (action.n - had)
        return costs

    def choice(self, gains: Floats, cost: Floats, price: float, state: State) -> NDArray[np.intp]:
        """(...,) 0 to stop, else 1 + the position of the best action; with no sample at all the best start.

        Ties go to what costs less.
        """
        if not sum(state):
            first = max(self.starts, key=lambda start: start.worth(price)).action
            return np.full(np.shape(gains)[:-1], 1 + first, dtype=np.intp)
        worth = gains - (price * cost if np.isfinite(price) else np.where(cost > 0, cost, 0.0) * 1e30)
        worth = np.where(np.isnan(worth), -np.inf, worth)
        best = worth.max(-1, keepdims=True)
        tied = worth >= best - 1e-12
        return np.asarray(np.where(tied, np.nan_to_num(cost, nan=np.inf), np.inf).argmin(-1))

    def following(self, state: State, choice: int) -> State | None:
        """The state after the first part of a chosen action; None where it ends: a stop, or a run."""
        if choice == 0 or self.actions[choice - 1].kind == "run":
            return None
        level, upto = (state[0], 0) if self.actions[choice - 1].kind == "sample" else (state[1], 1)
        more = next(at for at in LEVELS if at > level)
        return (state[0], more) if upto else (more, 0)


def _shrunk(mean: Floats, count: int, prior: float) -> Floats:
    return np.asarray((np.nan_to_num(mean) * count + _PRIOR * prior) / (count + _PRIOR))
