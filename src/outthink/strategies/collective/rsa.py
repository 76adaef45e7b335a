"""Recursive self-aggregation: a population of answers, each round made anew from small random subsets of the last one.

Source: RSA (HyperPotatoNeo/RSA), the card of its code and its read-me were read; its prompts are remembered, ours say
the same in other words. Differs: answers that cannot be read are not shown, equal texts of a subset are shown once, and
a slot whose answer failed keeps the one it had; the answer is the majority of the last round, the paper's is a random
one of it (`final`).

Pays: where parts of wrong answers are right. Each answer of a round reads k others, so at equal tokens a vote has
many more samples. On sums with a 0.5B model it was 15 points below a vote, on HumanEval it could not be told from it
(docs/results/selection.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from outthink.errors import BudgetExhausted, NothingCameBack, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority
from outthink.strategies.parallel.hedged_sampling import share_of
from outthink.strategies.prompting import added, between, distinct, need_shown, said_by
from outthink.together import each
from outthink.types import Candidate, Message, Problem

_ONE = (
    "Here is a candidate solution; it may contain errors.\n\n{candidates}\n\n"
    "Check it, keep what is right, and correct what is wrong; if its approach cannot work, try another one. Then write "
    "one complete improved solution of your own, which ends in the form asked for above."
)
_SEVERAL = (
    "Here are several candidate solutions; some may contain errors.\n\n{candidates}\n\n"
    "Combine what is useful in them. Where they disagree, reason carefully which is right; if all are wrong, try "
    "another approach. Then write one complete better solution of your own, which ends in the form asked for above."
)


def aggregation_prompt(problem: Problem, texts: Sequence[str]) -> tuple[Message, ...]:
    """The question, the candidates numbered from 1, and what to make of them."""
    form = _ONE if len(texts) == 1 else _SEVERAL
    return added(problem, form.format(candidates=between("candidate", dict(enumerate(texts, 1)))))


@dataclass(frozen=True, kw_only=True)
class RSA:
    """n answers by the main model, then rounds of n new ones by the model in the role "fusor", else the main model.

    Args:
        n: answers of a round (N); the paper uses 16.
        k: answers that each new one is made from (K), drawn without replacement; 1 refines single answers.
        rounds: after the first one (T); 0 is self-consistency. The paper uses 10. There are n (rounds + 1) answers.
        final: the answer: "majority" of the last round, or a "random" one of it, as in the paper.
    """

    n: int = 8
    k: int = 4
    rounds: int = 2
    final: Literal["majority", "random"] = "majority"

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "k"), at_least_zero=("rounds",))
        need_shown(self.n * min(self.k, self.n) * self.rounds, f"n {self.n}, k {self.k} and {self.rounds} rounds")

    async def run(
        self, problem: Problem, report: Report, *, model: Model, models: Models, rng: Rng, meter: Meter
    ) -> None:
        """Reports every round, with its slots in their order."""
        population = await model.sample(problem, self.n)
        best = self._report(report, population, 1, rng, None)
        fusor = models.role("fusor")
        for number in range(1, self.rounds + 1):
            valid = [one for one in population if one.key is not None]
            if not valid:
                meter.notes.append(f"round {number}: no answer can be read, so there is nothing to aggregate")
                return
            subsets = await each(partial(self._subset, valid, rng, number), range(len(population)))
            said = await said_by(valid)
            prompts = await each(partial(self._prompt, problem, said), subsets)
            draws = [
                Draw(messages=messages, parents=tuple(shown), lane=("round", number, slot))
                for slot, (messages, shown) in enumerate(zip(prompts, subsets, strict=True))
            ]
            try:
                drawn = await fusor.sample_fitting(problem, draws)
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
                meter.notes.append(f"round {number}: nothing was aggregated: {failure}")
                return
            population = [new[0] if new else old for new, old in zip(drawn, population, strict=True)]
            best = self._report(report, population, number + 1, rng, best)

    def _prompt(self, problem: Problem, said: Mapping[str, str], shown: Sequence[Candidate]) -> tuple[Message, ...]:
        return aggregation_prompt(problem, [said[one.id] for one in shown])

    def _subset(self, valid: Sequence[Candidate], rng: Rng, number: int, slot: int) -> list[Candidate]:
        size = min(self.k, len(valid))
        places = rng.at("rsa", number, slot).choice(len(valid), size=size, replace=False)
        return distinct([valid[place] for place in places])

    def _report(
        self, report: Report, population: Sequence[Candidate], number: int, rng: Rng, before: Candidate | None
    ) -> Candidate | None:
        """Where no answer of a round can be read, that of the round before stands."""
        chosen, share = by_majority(population)
        valid = [one for one in population if one.key is not None]
        if self.final == "random" and valid:
            chosen = valid[int(rng.at("rsa", "final", number).integers(len(valid)))]
            share = share_of(chosen, valid)
        chosen = chosen or before
        report(population, chosen=chosen, confidence=share, generation=number)
        return chosen
