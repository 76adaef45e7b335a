"""Spends more than one sample on a chat only where there is something to compare.

Whether replies can be compared (an answer that is marked, a short one, JSON, calls of tools) is seen from the first
of them; what else is written about freely gets another strategy, such as a judge's choice, or stays as it is. The
first sample is paid for once: whatever runs goes on from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outthink.answers.reading import comparable
from outthink.errors import NothingCameBack
from outthink.meter import Meter
from outthink.model import Model, Models
from outthink.planner.auto import Auto
from outthink.resources.table import bind, replaced
from outthink.rewards.scores import Scores
from outthink.strategies import Report, Strategy, traits
from outthink.strategies.making import strategy_name
from outthink.types import Problem

FREE = "nothing in the reply can be compared with others, so"


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """A strategy that goes by equal answers, for problems of which it is not known whether they have such answers.

    Args:
        strategy: what runs where the first reply can be compared with others.
        otherwise: what runs where it cannot; None: nothing, the reply stands.
        choices: replies that are wanted; that many are drawn where they stand as they are.
    """

    strategy: Strategy
    otherwise: Strategy | None = None
    choices: int = 1

    @property
    def _own(self) -> tuple[Strategy, ...]:
        return (self.strategy, *([] if self.otherwise is None else [self.otherwise]))

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """What it may run, with what that may run."""
        return tuple(part for one in self._own for part in (one, *traits.parts(one)))

    @property
    def powers(self) -> frozenset[str]:
        """What its parts need of the model."""
        return frozenset(power for part in self.parts for power in traits.powers(part))

    @property
    def versions(self) -> dict[str, str]:
        """What the decisions of its parts depend on."""
        return {name: version for part in self.parts for name, version in traits.versions(part).items()}

    @property
    def most_samples(self) -> int | None:
        """The most that any of them draws; None where that is not known of one."""
        most = [traits.most_samples(one) for one in self._own]
        known = [n for n in most if n is not None]
        return max(*known, self.choices) if len(known) == len(most) else None

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
        """One sample, a look at it, and on from there."""
        for part in self.parts:
            if isinstance(part, Auto):
                part.check(model, models, verifier, prm)  # before anything is spent
        try:
            # with what the strategy reads, so that it can go on from here
            first = await model.sample(problem, logprobs="logprobs" in traits.powers(self.strategy))
        except NothingCameBack:  # one dead sample says nothing about the others
            first = []
        strategy = self.strategy
        # one that was cut off, or is no answer at all, says nothing about the others either
        if first and first[0].key is not None and not comparable(first[0].text):
            if self.otherwise is None:
                report(first, chosen=first[0])
                several = self.choices > 1
                meter.notes.append(f"{FREE} {'they are as they came' if several else 'it is one sample'}")
                if several:
                    report(await model.starting_with(first).sample(problem, self.choices), chosen=first[0])
                return
            strategy = self.otherwise
            meter.notes.append(f"{FREE} {strategy_name(strategy)} chose it")
        given = replaced(resources, model=model.starting_with(first))
        await strategy.run(problem, report, **bind(strategy.run, given, f"The strategy {strategy_name(strategy)}"))
