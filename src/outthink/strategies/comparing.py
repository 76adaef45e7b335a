"""Spends more than a few samples on a chat only where there is something to vote on.

That is decided by the first replies: where two of them are equal, others can be; where all of them differ, a vote would
choose blindly, so what pays for free text chooses (`free_form.py`), or the first reply stays as it is. How a reply
looks says nothing: a line of prose may be one of thousands, and a page of it may end in a number. The first samples are
paid for once: whatever runs goes on from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from outthink.cost import worth
from outthink.errors import NothingCameBack
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.resources.table import bind, replaced
from outthink.rewards.scores import Scores
from outthink.strategies import Report, Strategy, traits
from outthink.strategies.collective.fusion import Fusion
from outthink.strategies.free_form import Way, cost_of_sample, paying
from outthink.strategies.making import strategy_name
from outthink.strategies.parallel.best_of_n import BestOfN
from outthink.strategies.parallel.mbr import MBR
from outthink.types import AnswerKind, Candidate, Problem

FREE = "no two of the first replies are equal, so"
FIRST = 4
"""Samples that decide; three can differ by chance where half of all replies are equal, four seldom do."""
_FEW = 3  # replies that can be read, of which no two are equal: fewer say nothing


def comparing(
    strategy: Strategy,
    answer: AnswerKind,
    *,
    verifier: bool,
    fields: Mapping[str, Any],
    otherwise: Strategy | None = None,
    choices: int = 1,
) -> Strategy:
    """The strategy for a problem of this kind: `Comparing` where it would vote on what may not be equal, else itself.

    Args:
        verifier: one is there.
        fields: of the request, as in `Problem`.
        otherwise, choices: as for `Comparing`.
    """
    judged = verifier and traits.follows_verifier(strategy)
    looks = sum(draw.n for draw in traits.first(strategy))
    # what does more with its samples than counting them is not ended by a look at two
    enough = looks > 1 if traits.as_asked(strategy) else looks >= _FEW
    votes = traits.votes(strategy) and not judged and not traits.one_sample(strategy)
    if answer != "chat" or not votes or not enough or _calls(fields):
        return strategy
    return Comparing(strategy=strategy, otherwise=otherwise, choices=choices)


def _calls(fields: Mapping[str, Any]) -> bool:
    """Whether every reply has to be a call of a tool, which can always be compared."""
    wanted = fields.get("tool_choice")
    return bool(fields.get("tools")) and (wanted == "required" or isinstance(wanted, dict))


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """A strategy that goes by equal answers, for problems of which it is not known whether they have such answers.

    Args:
        strategy: what runs where two of the first replies are equal.
        otherwise: what runs where all of them differ; None: the way that pays, if one does, else the first one stands.
        choices: replies that are wanted; that many are drawn where they stand as they are.
    """

    strategy: Strategy
    otherwise: Strategy | None = None
    choices: int = 1

    @property
    def named(self) -> tuple[Strategy, ...]:
        """What it was told to run."""
        return (self.strategy, *([] if self.otherwise is None else [self.otherwise]))

    @property
    def free(self) -> tuple[Strategy, ...]:
        """What it may choose by where it was not told how."""
        return (Fusion(n=FIRST), BestOfN(n=FIRST), MBR(n=FIRST)) if self.otherwise is None else ()

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """What it may run, with what that may run."""
        return (*(part for one in self.named for part in (one, *traits.parts(one))), *self.free)

    @property
    def known_as(self) -> Strategy:
        """What was asked for."""
        return self.strategy

    @property
    def abstains(self) -> bool:
        """Whether the strategy can mean no answer."""
        return traits.abstains(self.strategy)

    @property
    def recorded_cap(self) -> int | None:
        """The cap that the strategy was made for."""
        return traits.recorded_cap(self.strategy)

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
        most = [traits.most_samples(one) for one in self.named]
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
            traits.check(part, model, models, verifier, prm)  # before anything is spent
        # as the strategy itself begins, so that it can go on from here
        kinds = self._kinds()
        room = sum(draw.n for draw in kinds)
        most = min(FIRST, room, *(traits.samples(one) or FIRST for one in self.named[1:]))
        begun, first = await self._looked(problem, model, kinds, most, meter)
        keys = _keys(first)
        few = 0 < len(keys) < min(_FEW, most) and len(set(keys)) == len(keys)
        if few and not meter.refused and not self._value:
            # those that were cut off say nothing, so as many again
            begun, first = await _begun(problem, begun, shared_out(kinds, min(2 * most, room)))
            keys = _keys(first)
        if first and len(set(keys)) == len(keys):
            if self.choices > len(first) and self.otherwise is None and keys:
                begun, first = await _begun(problem, begun, shared_out(kinds, self.choices))
            # whatever chooses has all of them, however they were drawn
            drawn = model.starting_with(first)
            await self._free(problem, report, first, drawn, models, meter, resources, verifier)
            return
        given = replaced(resources, model=begun)
        run = self.strategy.run
        await run(problem, report, **bind(run, given, f"The strategy {strategy_name(self.strategy)}"))

    @property
    def _value(self) -> str:
        """What a right answer is worth; empty: nobody has said."""
        return str(getattr(self.strategy, "value_of_correct", ""))

    def _kinds(self) -> tuple[Draw, ...]:
        """How the first samples are drawn, with all that the strategies read of them."""
        logprobs = any("logprobs" in traits.powers(one) for one in self.named)
        return tuple(replace(draw, logprobs=draw.logprobs or logprobs) for draw in traits.first(self.strategy))

    async def _looked(
        self, problem: Problem, model: Model, kinds: Sequence[Draw], most: int, meter: Meter
    ) -> tuple[Model, list[Candidate]]:
        """So many first samples; where an answer has a value, one by one and no more than it is worth."""
        if not self._value:
            return await _begun(problem, model, shared_out(kinds, most))
        value, unit = worth(self._value)
        begun, first = model, list[Candidate]()
        for number in range(1, most + 1):
            longest = max((one.tokens for one in first), default=0)
            if meter.cost().get(unit, 0.0) + cost_of_sample(model, meter, longest, unit) > value:
                break
            begun, first = await _begun(problem, begun, shared_out(kinds, number))
        return begun, first

    async def _free(
        self,
        problem: Problem,
        report: Report,
        first: list[Candidate],
        model: Model,
        models: Models,
        meter: Meter,
        resources: Mapping[str, Any],
        verifier: Scores | None,
    ) -> None:
        """Choose among replies that are all different."""
        keys = _keys(first)
        stands = next((one for one in first if one.key is not None), None)
        several = self.choices > 1
        share = 1 / len(keys) if keys else None  # of the votes, as if there were some
        report(first, chosen=stands, confidence=share)
        way: Way | None = None
        why = ""
        if self.otherwise is not None and keys:
            way = Way(name=strategy_name(self.otherwise), strategy=self.otherwise)
        elif keys:
            way, why = await paying(
                problem,
                first,
                model=model,
                models=models,
                meter=meter,
                verifier=verifier,
                value=self._value,
                one=not several,
            )
        if not keys:
            meter.notes.append("the first replies were all cut off or empty, so there is nothing to vote on")
        elif len(first) == 1:
            meter.notes.append("there is one reply only, so there is nothing to vote on")
        elif way is None:
            meter.notes.append(f"{FREE} {'they are as they came' if several else 'the first one stands'}: {why}")
        else:
            meter.notes.append(f"{FREE} {way.name} chose it")
        if way is None:
            report(first, chosen=stands, confidence=share, fixed=True)
        else:
            given = replaced(way.resources(resources, meter), model=model)
            run = way.strategy.run
            await run(problem, report, **bind(run, given, f"The strategy {strategy_name(way.strategy)}"))


def _keys(samples: list[Candidate]) -> list[str]:
    """Of those that came to an end and say something."""
    return [one.key for one in samples if one.key is not None]


def shared_out(kinds: Sequence[Draw], most: int) -> list[Draw]:
    """So many samples of these kinds: one of each in turn while there are any of it; what is over is of the last."""
    counts = [0] * len(kinds)
    while sum(counts) < most and any(count < kind.n for count, kind in zip(counts, kinds, strict=True)):
        for place, kind in enumerate(kinds):
            counts[place] += counts[place] < kind.n and sum(counts) < most
    counts[-1] += most - sum(counts)
    return [replace(kind, n=count) for kind, count in zip(kinds, counts, strict=True) if count]


async def _begun(problem: Problem, model: Model, draws: Sequence[Draw]) -> tuple[Model, list[Candidate]]:
    """The model that has these samples to begin with, and the samples; none where all have failed."""
    try:
        drawn = await model.sample_each(problem, draws)
    except NothingCameBack:
        return model, []
    for samples, draw in zip(drawn, draws, strict=True):
        model = model.starting_with(samples, draw)
    return model, [one for samples in drawn for one in samples]
