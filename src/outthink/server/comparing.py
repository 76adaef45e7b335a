"""Spends more than a few samples on a chat only where there is something to vote on.

That is decided by the first replies: where two of them are equal, others can be; where all of them differ, a vote would
choose blindly, so another strategy chooses, such as a judge, or the first reply stays as it is. How a reply looks says
nothing: a line of prose may be one of thousands, and a page of it may end in a number. The first samples are paid for
once: whatever runs goes on from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from outthink.errors import NothingCameBack
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.planner.auto import Auto
from outthink.resources.table import bind, replaced
from outthink.rewards.scores import Scores
from outthink.strategies import Report, Strategy, traits
from outthink.strategies.making import strategy_name
from outthink.types import Problem

FREE = "no two of the first replies are equal, so"
FIRST = 4
"""Samples that decide; three can differ by chance where half of all replies are equal, four seldom do."""
_FEW = 3  # replies that can be read, of which no two are equal: fewer say nothing


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """A strategy that goes by equal answers, for problems of which it is not known whether they have such answers.

    Args:
        strategy: what runs where two of the first replies are equal.
        otherwise: what runs where all of them differ; None: nothing, the first one stands.
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
        """The first samples, a look at how many are equal, and on from there."""
        for part in self.parts:
            if isinstance(part, Auto):
                part.check(model, models, verifier, prm)  # before anything is spent
        most = min(FIRST, *(traits.samples(one) or FIRST for one in self._own))
        draws = shared_out(traits.first(self.strategy), most)
        try:
            drawn = await model.sample_each(problem, draws)
        except NothingCameBack:  # dead samples say nothing about the others
            drawn = []
        first = [one for samples in drawn for one in samples]
        for samples, draw in zip(drawn, draws, strict=False):
            model = model.starting_with(samples, draw)
        strategy = self.strategy
        # those that were cut off, or are no answers at all, say nothing either
        keys = [one.key for one in first if one.key is not None]
        if len(keys) >= min(_FEW, most) and len(set(keys)) == len(keys):
            if self.otherwise is None:
                stands = next(one for one in first if one.key is not None)
                report(first, chosen=stands, fixed=True)
                several = self.choices > 1
                meter.notes.append(f"{FREE} {'they are as they came' if several else 'the first one stands'}")
                if self.choices > len(first):
                    more = await model.sample_each(problem, shared_out(draws, self.choices))
                    report([one for samples in more for one in samples], chosen=stands)
                return
            strategy = self.otherwise
            meter.notes.append(f"{FREE} {strategy_name(strategy)} chose it")
        given = replaced(resources, model=model)
        await strategy.run(problem, report, **bind(strategy.run, given, f"The strategy {strategy_name(strategy)}"))


def shared_out(draws: Sequence[Draw], most: int) -> list[Draw]:
    """So many samples of these kinds: one of each, and the rest of the last kind."""
    *kinds, last = (replace(draw, n=1) for draw in draws[:most])
    return [*kinds, replace(last, n=most - len(kinds))]
