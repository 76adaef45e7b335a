"""CHOPS: a judge writes a checklist for the task, holds all candidates against it at once, and names the best.

Source: When Life Gives You Samples: The Benefits of Scaling up Inference Compute for Multilingual LLMs (Checklisted
One-Pass Selection); abstract and a summary of each section were read, its prompts were not. Differs: the prompt is
ours; unfinished, unreadable and duplicate candidates are not shown; nothing is asked where all answers are equal.

Pays: for open-ended answers, up to about 10 of them, with a judge of another family. With the model as its own judge
it was 26 points below the vote at equal tokens on sums (docs/results/selection.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outthink.model import Draw, Model, Models
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.choosing import last_line
from outthink.strategies.parallel.hedged_sampling import greedy_first, hedged_pool, need_pool, share_of
from outthink.strategies.prompting import numbered, said_by
from outthink.types import Message, Problem

_PROMPT = (
    "Task:\n{question}\n\nHere are {n} candidate responses.\n\n{candidates}\n\n"
    "First write a short checklist of what a good response to this task must have. Then compare all candidates with "
    "it, point by point. End with one line that names the best candidate by its number: Best: NUMBER"
)
_BEST = re.compile(r"[^\w\n]*best[^\w\n]*(?:candidate[^\w\n]*)?(\d+)[^\w\n]*", re.IGNORECASE)


def chops_prompt(problem: Problem, texts: Sequence[str]) -> tuple[Message, ...]:
    """One message with the question and the candidates, numbered from 1."""
    listed = numbered("Candidate", texts)
    return (Message(content=_PROMPT.format(question=problem.question, n=len(texts), candidates=listed)),)


def best_named(text: str, n: int) -> int | None:
    """The candidate, from 0, that the last line of the form "Best: 3" names; None without one or out of range."""
    named = last_line(_BEST, text)
    place = int(named[1][:9]) - 1 if named else -1
    return place if 0 <= place < n else None


@dataclass(frozen=True, kw_only=True)
class CHOPS:
    """A hedged pool, and one call of the model in the role "judge", else of the main model.

    Args:
        n: samples drawn, one of them greedy; the paper uses 5. A judge does worse with more than about 10.
        temperature: of the others.
    """

    own_temperature: ClassVar[bool] = True  # it says itself at which temperature it samples
    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    n: int = 5
    temperature: float = 0.7

    def __post_init__(self) -> None:
        need_pool(self.n, self.temperature)

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models, rng: Rng) -> None:
        """The greedy sample is reported first, and stands where the judge twice names none."""
        greedy, samples = await hedged_pool(model, problem, self.n, self.temperature)
        chosen, share = greedy_first(greedy, samples)
        report(samples, chosen=chosen, confidence=share)
        valid = {sample.text: sample for sample in reversed(samples) if sample.key is not None}  # the first of equals
        if len({sample.key for sample in valid.values()}) < 2:
            return
        shown = sorted(valid.values(), key=lambda sample: sample.text)
        rng.at("chops").shuffle(shown)
        messages = chops_prompt(problem, [*(await said_by(shown)).values()])
        judge = models.role("judge")
        for temperature in (0.0, None):  # a second time at the temperature of the run, since 0 would say the same
            draw = Draw(messages=messages, parents=tuple(shown), temperature=temperature, aside=True)
            ((said,),) = await judge.sample_each(problem, [draw])
            place = best_named(said.text, len(shown)) if said.finish == "eos" else None
            if place is not None:
                report(samples, chosen=shown[place], confidence=share_of(shown[place], samples))
                return
