"""A policy on recorded samples: what it reaches and what it costs at any price.

Source: replay, as in `reports.replay`. Differs: what does not depend on the price is computed once for all prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outthink.planner.cases import Cases, Material
from outthink.planner.evidence import Floats
from outthink.planner.policy import Policy, Rate, State


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Outcome:
    """What a policy reached on recorded problems at one price.

    Args:
        credit, cost: (problems, orders).
        ended: (problems, orders) position of the state in which it stopped, in `Cases.states`.
        ran: (problems, orders) position of the run it ended with, among the actions; -1 where it stopped.
    """

    credit: Floats
    cost: Floats
    ended: NDArray[np.intp]
    ran: NDArray[np.intp]


class Simulator:
    """A policy on cases, at any price; what does not depend on the price is computed once."""

    def __init__(self, policy: Policy, cases: Cases, material: Material) -> None:
        self._policy = policy
        self._cases = cases
        self._runs = {run.name: run for run in material.runs}
        self._place = {state: place for place, state in enumerate(cases.states)}
        prompt = np.broadcast_to(material.prompt[:, None], cases.cost[(0, 0)].shape)
        self._gains = {state: policy.gains(cases.features[state], state) for state in cases.states}
        self._now = {state: policy.now(cases.features[state], state) for state in cases.states}
        self._cost = {state: policy.cost(state, cases.tokens[state], prompt) for state in cases.states}
        self._worst_sample = [float(side.first.max()) for side in (material.model, material.target) if side is not None]
        self._credit = np.stack([cases.credit[state] for state in cases.states], -1)
        self._spent = np.stack([cases.cost[state] for state in cases.states], -1)

    def right_when(self, outcome: Outcome) -> Floats:
        """(problems, orders) the predicted chance of being right where an outcome stopped."""
        chances = np.empty(outcome.credit.shape)
        for place, state in enumerate(self._cases.states):
            here = outcome.ended == place
            if here.any():
                gained = np.take_along_axis(self._gains[state][here], 1 + outcome.ran[here][:, None], -1)[:, 0]
                chances[here] = np.clip(self._now[state][here] + gained, 0.0, 1.0)
        return chances

    def promised(self, outcome: Outcome, price: float) -> tuple[Floats, Floats, Floats]:
        """(problems,) the gains predicted wherever the policy went on, those that the actions brought, and how many.

        Only decisions with a sample at hand count; the outcome has to be of the same price, without a limit.
        """
        states, problems = self._cases.states, len(outcome.ended)
        said, true, times = (np.zeros(problems) for _ in range(3))
        for state in states[1:]:
            passed = np.array([_passes(state, end) for end in states])[outcome.ended]
            here = passed & ((outcome.ended != self._place[state]) | (outcome.ran >= 0))
            if not here.any():
                continue
            gains = self._gains[state][here]
            chosen = self._policy.choice(gains, self._cost[state][here], price, state)
            before, problem = self._cases.credit[state][here], np.nonzero(here)[0]
            for choice in np.unique(chosen[chosen > 0]).tolist():
                taken, action = chosen == choice, self._policy.actions[choice - 1]
                if action.kind == "run":
                    after = np.broadcast_to(self._runs[action.run].credit[:, None], here.shape)[here]
                else:
                    ended = (action.n, 0) if action.kind == "sample" else (state[0], action.n)
                    after = self._cases.credit[ended][here]
                whose = problem[taken]
                said += np.bincount(whose, gains[taken, choice], minlength=problems)
                true += np.bincount(whose, (after - before)[taken], minlength=problems)
                times += np.bincount(whose, minlength=problems)
        return said, true, times

    def _worst(self, state: State, following: State) -> float:
        """What going on can cost at most, by the dearest sample that was recorded; the meter counts its prompt anew."""
        dear = following[1] > state[1]
        return (following[dear] - state[dear]) * self._worst_sample[dear]

    def at(self, price: float, limit: float = np.inf) -> Outcome:
        """The outcome at a price, where a problem also may not cost more than `limit`.

        As of the meter's limit: what could exceed it is not begun, so a portion that does not fit whole ends it.
        """
        policy, states = self._policy, self._cases.states
        shape = self._credit.shape[:2]
        place, ran = np.zeros(shape, dtype=np.intp), np.full(shape, -1, dtype=np.intp)
        for state in states:  # each is later than those it is reached from
            here = (place == self._place[state]) & (ran < 0)
            if not here.any():
                continue
            chosen = policy.choice(self._gains[state][here], self._cost[state][here], price, state)
            next_place, next_run = place[here], ran[here]
            for choice in np.unique(chosen).tolist():
                going = chosen == choice
                following = policy.following(state, choice)
                if following is not None and np.isfinite(limit) and state != (0, 0):
                    room = limit - self._spent[here][:, self._place[state]][going]
                    fits = room >= self._worst(state, following)
                    going = np.flatnonzero(going)[fits]
                if following is not None:
                    next_place[going] = self._place[following]
                elif choice:
                    next_run[going] = choice - 1
            place[here], ran[here] = next_place, next_run
        credit = np.take_along_axis(self._credit, place[..., None], -1)[..., 0]
        cost = np.take_along_axis(self._spent, place[..., None], -1)[..., 0]
        for number in np.unique(ran[ran >= 0]).tolist():
            run, by_run = self._runs[policy.actions[number].run], ran == number
            credit = np.where(by_run, np.broadcast_to(run.credit[:, None], shape), credit)
            cost = np.where(by_run, cost + np.broadcast_to(run.cost[:, None], shape), cost)
        return Outcome(credit=credit, cost=cost, ended=place, ran=ran)

    def price_for(self, mean_cost: float, prices: Sequence[float]) -> float:
        """The price at which the mean cost is nearest to `mean_cost`, by bisection between those of a rising grid."""
        low, high = min(prices), max(prices)
        for _ in range(24):
            middle = float(np.sqrt(low * high))
            if self.at(middle).cost.mean() > mean_cost:
                low = middle
            else:
                high = middle
        return high


def _passes(state: State, end: State) -> bool:
    """Whether the way to a state leads through another, or ends in it."""
    return state[1] <= end[1] and (state[0] == end[0] if state[1] else state[0] <= end[0])


def price_grid(rates: Sequence[Rate], *, points: int = 33) -> list[float]:
    """Prices from where nothing is spared to where nothing but the first sample is bought."""
    first = rates[0]
    sample = first.completion * first.tokens
    return [float(price) for price in np.geomspace(1e-5, 3.0, points) / max(sample, 1e-300)]
