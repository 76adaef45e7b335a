"""Chooses how to choose among replies of which no two are equal: by a fusor, a scorer, a judge, likeness or not at all.

Source: none of its own. That a fusor, a judge and MBR pay for free text is as read in the papers that `fusion`,
`pairwise` and `mbr` name; the order is that of the gains they report. Differs: each has to fit into what is left of the
budget; where an answer has a value it has to cost less than even a perfect choice could gain. Of n replies that all
differ a blind choice takes the best one in 1 of n cases, so that is the value times 1 - 1 / n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from outthink.answers.thoughts import spoken
from outthink.cost import worth
from outthink.meter import Meter
from outthink.model import FOR_ALL, Model, Models
from outthink.resources.table import bind, replaced
from outthink.rewards import Scorer
from outthink.rewards.judge import Judge
from outthink.rewards.pairwise import Pairwise
from outthink.rewards.scores import Scores
from outthink.strategies import Strategy
from outthink.strategies.collective.fusion import Fusion
from outthink.strategies.parallel.best_of_n import BestOfN
from outthink.strategies.parallel.mbr import MBR, text_utilities
from outthink.together import away
from outthink.types import Candidate, Problem, Usage

ALIKE = 0.4
"""Mean chrF of replies to each other from which they say much the same; ours. Of replies of a small model to different
questions 99 in 100 have less than 0.25 (benchmarks/doors.py)."""

_PAIRED = 8  # replies, at most, of which every two are compared
_FRAME = 64  # tokens of what a judge is told around a question and an answer
_PLAIN = FOR_ALL | {"seed", "temperature", "top_p", "max_tokens", "max_completion_tokens"}


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of choosing among replies that are there.

    Args:
        name: for notes.
        strategy: what runs, on replies that are paid for.
        scorer: what stands in for the verifier; None: what the caller has given.
        least, usual: the most that a single call of it can cost, by unit, and what all of them are expected to, where
            the model writes as much about an answer as there is in one.
    """

    name: str
    strategy: Strategy
    scorer: Scorer | None = None
    least: Mapping[str, float] = field(default_factory=dict)
    usual: Mapping[str, float] = field(default_factory=dict)

    def resources(self, given: Mapping[str, Any], meter: Meter) -> Mapping[str, Any]:
        """What its strategy may use."""
        if self.scorer is None:
            return given
        bound = bind(self.scorer.score, given, f"The {self.name}")
        return replaced(given, verifier=Scores(self.scorer, bound, meter, self.name))


async def paying(
    problem: Problem,
    samples: Sequence[Candidate],
    *,
    model: Model,
    models: Models,
    meter: Meter,
    verifier: Scores | None,
    value: str = "",
    one: bool = True,
) -> tuple[Way | None, str]:
    """The first way that pays, or None and why.

    Args:
        samples: replies that are paid for; those with a key are chosen among.
        value: what a right answer is worth, such as "0.05usd"; empty: not said, so only the budget decides.
        one: one reply is wanted; of several none is the most like the others.
    """
    among = [sample for sample in samples if sample.key is not None]
    if len(among) < 2:
        return None, "the others were cut off"
    reason = "nothing is given that could choose, such as a verifier or a model in the role judge"
    for way in _ways(problem, among, len(samples), model, models, meter, verifier):
        short = _short(way, meter, value, len(among))
        if short is None:
            return way, ""
        reason = short
    if one and len(among) > 2:  # of two, each is as like the other
        texts = [spoken(model.text(sample)) for sample in among]
        alike = await away(sum(map(len, texts)), text_utilities, texts, len(texts))
        if float(np.mean(alike)) >= ALIKE:
            return Way(name="mbr", strategy=MBR(n=len(samples))), ""
    return None, reason


def _ways(
    problem: Problem,
    among: Sequence[Candidate],
    n: int,
    model: Model,
    models: Models,
    meter: Meter,
    verifier: Scores | None,
) -> Iterator[Way]:
    """What was given that can choose among texts, in the order of what it is said to gain."""
    parts = (part for message in problem.messages if not isinstance(message.content, str) for part in message.content)
    if any(part.kind != "text" for part in parts):
        return  # none of them sees images
    asked, lengths = prompt_tokens(meter), [sample.tokens for sample in among]
    asked = 0.0 if math.isnan(asked) else asked
    usual = round(float(np.mean(lengths)))

    def way(
        name: str,
        strategy: Strategy,
        reader: Model,
        read: int,
        most: int,
        scorer: Scorer | None = None,
    ) -> Way:
        """With the cost of reading each of them, or each pair of them in both orders."""
        count = math.perm(len(lengths), read)
        frame = asked + _FRAME
        total = count * (frame + sum(lengths) * read / len(lengths))
        longest = frame + sum(sorted(lengths)[-read:])
        return Way(
            name=name,
            strategy=strategy,
            scorer=scorer,
            least=reader.cost(Usage(prompt=round(longest), completion=most)),
            usual=reader.cost(Usage(prompt=round(total), completion=count * min(most, usual))),
        )

    plain = {name for name, given in problem.fields.items() if given is not None} <= _PLAIN
    if models.has("fusor") and plain:
        fusor, whole = models.role("fusor"), asked + sum(lengths) + _FRAME
        yield Way(
            name="fusion",
            strategy=Fusion(n=n),
            least=fusor.cost(Usage(prompt=round(whole), completion=fusor.sampling.cap)),
            usual=fusor.cost(Usage(prompt=round(whole), completion=usual)),
        )
    judge = models.role("judge")
    most = 1 if "labels" in judge.powers else judge.sampling.cap
    best = BestOfN(n=n)
    if verifier is not None and verifier.asks_models:
        yield way("best_of_n", best, judge, 2 if verifier.relative else 1, most)
    elif verifier is not None:
        yield Way(name="best_of_n", strategy=best)
    if models.has("judge"):
        if len(among) <= _PAIRED:
            yield way("pairwise", best, judge, 2, most, Pairwise())
        yield way("judge", best, judge, 1, most, Judge())


def _short(way: Way, meter: Meter, value: str, n: int) -> str | None:
    """Why a way does not pay; None: it does."""
    for unit, left in meter.left().items():
        if unit != "seconds" and max(way.least.get(unit, 0.0), way.usual.get(unit, 0.0)) > left:
            return f"the budget leaves no room for {way.name}"
    if value:
        gain, unit = worth(value)
        if way.usual.get(unit, 0.0) > gain * (1 - 1 / n):
            return f"{way.name} costs more than choosing can gain"
    return None


def cost_of_sample(model: Model, meter: Meter, tokens: float, unit: str) -> float:
    """What one more sample of so many tokens costs with its prompt, as far as that is known yet."""
    asked = prompt_tokens(meter)
    usage = Usage(prompt=0 if math.isnan(asked) else round(asked), completion=math.ceil(tokens))
    return model.cost(usage).get(unit, 0.0)


def prompt_tokens(meter: Meter) -> float:
    """Tokens of the prompt, from the first call; engines that cache it tell it once for every child; NaN: no call."""
    call = next((call for call in meter.calls if call.charged.prompt), None)
    if call is None:
        return math.nan
    return call.charged.prompt / (call.n if call.charged.cached else 1)
