"""What the server offers: each model, alone and with every strategy for which all is there that it needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from outthink.models.engine import Engine
from outthink.resources.table import RESOURCES
from outthink.rewards import Scorer
from outthink.server.models import Served
from outthink.server.routing import ONE, ServerRules, servable

_WITH_STRATEGIES = 1000  # models; of more each is listed alone, and can be asked with a strategy all the same
_AT_ONCE = 50  # models, with some 40 strategies each, that are written down before others have their turn


class Offers:
    """Names of models, and of models with strategies.

    Args:
        scorers: that are there, by role.
        resources: further ones that are there.
    """

    def __init__(
        self, policy: ServerRules, served: Served, scorers: Mapping[str, Scorer], resources: Iterable[str]
    ) -> None:
        always = {name for name, row in RESOURCES.items() if row.given} - {"verifier", "prm", "sandbox"}
        self._available = {*always, *scorers, *resources}
        self._policy = policy
        self._served = served
        self._reads = {role: frozenset(getattr(scorer, "reads", ())) for role, scorer in scorers.items()}
        self._by_powers: dict[Collection[str], tuple[str, ...]] = {}
        self._list: tuple[int, bytes] | None = None

    def strategies(self, engine: Engine | None) -> tuple[str, ...]:
        """Names of strategies that a model can be asked with; None: one of which nothing is known yet."""
        powers: frozenset[str] = frozenset() if engine is None else frozenset(engine.spec.powers)
        if powers not in self._by_powers:
            lacking = {"logprobs"} - powers
            blind = {role for role, reads in self._reads.items() if lacking & reads}
            self._by_powers[powers] = (ONE, *servable(self._policy, self._available - blind, powers))
        return self._by_powers[powers]

    async def listed(self) -> bytes:
        """All of it as OpenAI's API lists models, as JSON."""
        names = await self._served.names()
        version = self._served.version
        if self._list is None or self._list[0] != version:
            entries: list[str] = []
            for place, name in enumerate(names):
                few = len(names) <= _WITH_STRATEGIES
                strategies = self.strategies(self._served.opened(name)) if few else ()
                entries += (json.dumps(entry(each)) for each in (name, *(f"{name}+{one}" for one in strategies)))
                if place % _AT_ONCE == _AT_ONCE - 1:
                    await asyncio.sleep(0)
            self._list = version, f'{{"object": "list", "data": [{", ".join(entries)}]}}'.encode()
        return self._list[1]

    async def has(self, name: str) -> bool:
        """Whether this is one of them."""
        names = await self._served.names()
        model, plus, strategy = name.rpartition("+")
        return name in names or (
            bool(plus) and model in names and strategy in self.strategies(self._served.opened(model))
        )


def entry(name: str) -> dict[str, Any]:
    """A model as OpenAI's API describes one."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "outthink"}
