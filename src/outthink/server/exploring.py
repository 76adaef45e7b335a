"""Answers a share of the requests by an action drawn at random, so that it can be learned later what each is worth.

Source: epsilon-greedy exploration with logged chances, as in contextual bandits. Differs: a request takes part only if
its caller leaves the strategy to the server and every action could honour it, which is decided before anything is
drawn; so a chance depends on nothing but the share. Actions are numbers of samples, and what the plan may run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from outthink.errors import UsageError
from outthink.planner.auto import Auto
from outthink.planner.plan import Plan
from outthink.records.runs import OWN, Trial
from outthink.server.asked import Asked
from outthink.server.errors import BadRequest
from outthink.server.routing import Choice, ServerRules, choose
from outthink.strategies import Strategy, traits
from outthink.strategies.making import make_strategy, strategy_name

_MOST = 32  # samples of an action, where no plan says how many there may be


def actions(policy: ServerRules) -> list[str]:
    """What may be drawn, as on the command line; raises UsageError where there is nothing to choose among."""
    strategy = policy.strategy
    runs: list[str] = []
    if isinstance(strategy, Auto):
        name, most = "self_consistency", min(strategy.n, _MOST)
        if strategy.plan:
            there = Plan.open(strategy.plan).policy.actions
            most = max((action.n for action in there if action.kind == "sample"), default=1)
            runs = [action.run for action in there if action.kind == "run"]
    elif strategy is not None and (field := traits.size(strategy)) is not None:
        name, most = strategy_name(strategy), getattr(strategy, field)
    else:
        raise UsageError("--learn needs a --strategy with a number of samples, or auto.")
    sizes = sorted({1 << power for power in range(most.bit_length()) if 1 << power <= most} | {most})
    if len(sizes) + len(runs) < 2:
        raise UsageError("--learn has nothing to choose among: --strategy draws one sample.")
    return [*(f"{name}?n={size}" for size in sizes), *runs]


class Explorer:
    """Draws actions.

    Args:
        share: of the requests that take part which get a random action, in (0, 1).
        drawn: uniform numbers in [0, 1).

    Raises UsageError where there is nothing to choose among.
    """

    def __init__(self, share: float, policy: ServerRules, drawn: Callable[[], float] = random.random) -> None:
        self._share = share
        self._drawn = drawn
        self._rules = [(name, replace(policy, strategy=self._made(name, policy))) for name in actions(policy)]
        # whether a request can be honoured depends on the strategy, and not on how much of it there is
        self._kinds = {strategy_name(rules.strategy): rules for _, rules in self._rules if rules.strategy}

    def choose(self, asked: Asked, named: str | None, own: Choice, load: float) -> tuple[Choice, Trial | None]:
        """How a request is answered, and which action it is with which chance; None where it takes no part.

        Args:
            named: the strategy in the model's name.
            own: what the server does anyway.
            load: as for `routing.choose`; nothing is drawn while the server wants to spend less.
        """
        wish = asked.wish
        told = (named, wish.strategy, wish.n, wish.plan, asked.effort)
        if any(one is not None for one in told) or asked.choices > 1 or load < 1:
            return own, None
        chosen = strategy_name(own.strategy) if own.strategy is not None else ""  # which honours it
        if not all(name == chosen or _honours(asked, rules) for name, rules in self._kinds.items()):
            return own, None
        place = self._drawn() / self._share * len(self._rules)
        if place >= len(self._rules):
            return own, Trial(action=OWN, chance=1 - self._share)
        name, rules = self._rules[int(place)]
        # the sampling of a plan holds for its actions, too
        return replace(choose(asked, None, rules), plan=own.plan), Trial(
            action=name, chance=self._share / len(self._rules)
        )

    @staticmethod
    def _made(name: str, policy: ServerRules) -> Strategy:
        base = policy.strategy
        if base is not None and name.startswith(f"{strategy_name(base)}?n=") and (field := traits.size(base)):
            sized: Strategy = replace(base, **{field: int(name.rpartition("=")[2])})  # with the operator's settings
            return sized
        return make_strategy(name)


def _honours(asked: Asked, rules: ServerRules) -> bool:
    try:
        choose(asked, None, rules)
    except BadRequest:
        return False
    return True
