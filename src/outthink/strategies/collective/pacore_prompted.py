"""Prompted PaCoRe: rounds of parallel answers, each cut down to its final message, which the next round reads.

Source: PaCoRe (stepfun-ai/PaCoRe), its inference code was read. Differs: there the model was trained for it, here any
model is prompted, so the name; the prompt is ours; answers without a readable end are not shown.

Pays: with thinking models, whose messages are short beside their thoughts, so that reading many costs little. With a
0.5B model that does not think it was far below the vote at equal tokens (docs/results/selection.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outthink.errors import BudgetExhausted, NothingCameBack, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.choosing import by_majority
from outthink.strategies.prompting import added, between, distinct, need_shown, said_by
from outthink.types import Candidate, Message, Problem

_PROMPT = (
    "Here are reference answers to this from others; they may be wrong.\n\n{references}\n\n"
    "Analyse these references. Then give one complete answer of your own, which ends in the form asked for above."
)


def synthesis_prompt(problem: Problem, messages: Sequence[str]) -> tuple[Message, ...]:
    """The question, the messages numbered from 1, and what to make of them."""
    return added(problem, _PROMPT.format(references=between("reference", dict(enumerate(messages, 1)))))


@dataclass(frozen=True, kw_only=True)
class PaCoRePrompted:
    """The first round is the main model's, all others that of the role "fusor", else the main model's.

    Args:
        widths: answers of each round; a single one that reads the last round comes after them. None at all is one
            sample. The paper's settings are 4; 16; and 32,4.
    """

    widths: tuple[int, ...] = (8,)

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.widths):
            raise ValueError(f"widths must be at least 1, not {', '.join(map(str, self.widths))}")
        shown = sum(one * other for one, other in zip(self.widths, (*self.widths[1:], 1), strict=False))
        need_shown(shown, f"widths {', '.join(map(str, self.widths))}")

    @property
    def first(self) -> tuple[Draw, ...]:
        """How its first samples are drawn."""
        return (Draw(n=self.widths[0] if self.widths else 1),)

    @property
    def at_once(self) -> int:
        """The widest round."""
        return max(self.widths, default=1)

    async def run(
        self, problem: Problem, report: Report, *, model: Model, models: Models, rng: Rng, meter: Meter
    ) -> None:
        """The majority of a round stands until a later round has an answer."""
        answers = await model.sample(problem, self.first[0].n)
        best, share = by_majority(answers)
        report(answers, chosen=best, confidence=share, generation=1)
        fusor = models.role("fusor")
        for number, width in enumerate((*self.widths[1:], *([1] if self.widths else [])), start=2):
            shown = await self._messages(answers, rng, number)
            if not shown:
                meter.notes.append(f"round {number}: no answer can be read, so there is nothing to synthesize")
                return
            draw = Draw(n=width, messages=synthesis_prompt(problem, [*shown]), parents=tuple(shown.values()))
            try:
                (answers,) = await fusor.lane("round", number).sample_each(problem, [draw])
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
                meter.notes.append(f"round {number}: nothing was synthesized: {failure}")
                return
            chosen, share = by_majority(answers)
            best = chosen or best
            report(answers, chosen=best, confidence=share, generation=number)

    async def _messages(self, answers: Sequence[Candidate], rng: Rng, number: int) -> dict[str, Candidate]:
        """What was said at last in each answer, without thoughts, in a random order; equal ones once."""
        valid = distinct(answers)
        said = await said_by(valid)
        messages = [(said[one.id], one) for one in valid]
        rng.at("pacore", number).shuffle(messages)
        return dict(reversed(messages))
