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

from outthink.planner.estimate import Estimate, Scale
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
        right: predicts whether the answer will be right afterwards.
        cost: of a run, mean in the plan's unit; of samples it is computed.
    """

    kind: Literal["sample", "target", "run"]
    n: int = 0
    run: str = ""
    right: Estimate
    cost: float = 0.0


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
        now: predicts whether the leading answer is right.
        actions: what may be done.
        rates: of the model, and of the target where there is one.
    """

    signals: tuple[str, ...]
    vote: Vote
    scale: Scale
    now: Estimate
    actions: tuple[Action, ...]
    rates: tuple[Rate, ...]

    @property
    def has_target(self) -> bool:
        """Whether it can go over to a dearer model."""
        return len(self.rates) > 1

    def open(self, state: State) -> list[int]:
        """Positions of the actions that are there in a state."""
        drawn, dear = state
        return [
            place
            for place, action in enumerate(self.actions)
            if (action.kind == "sample" and dear == 0 and action.n > drawn)
            or (action.kind == "target" and action.n > dear)
            or (action.kind == "run" and dear == 0)
        ]

    def right(self, features: Floats, state: State) -> Floats:
        """(..., 1 + actions) probability of being right if one stops now, and after each action; NaN where not open."""
        units = self.scale.standard(features)
        chances = np.full((*features.shape[:-1], 1 + len(self.actions)), np.nan)
        chances[..., 0] = self.now.at(units) if sum(state) else 0.0
        for place in self.open(state):
            chances[..., 1 + place] = self.actions[place].right.at(units)
        return chances

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
        for place in self.open(state):
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

    def choice(self, right: Floats, cost: Floats, price: float, state: State) -> NDArray[np.intp]:
        """(...,) 0 to stop, else 1 + the position of the best action; with no sample at all there is no stopping.

        Ties go to what costs less.
        """
        worth = right - (price * cost if np.isfinite(price) else np.where(cost > 0, cost, 0.0) * 1e30)
        worth = np.where(np.isnan(worth), -np.inf, worth)
        if not sum(state):
            worth[..., 0] = -np.inf
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
