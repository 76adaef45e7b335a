"""Four narrow judges, each of which looks for one kind of flaw: the chance that a solution passes them all.

Source: Solving Inequality Proofs with Large Language Models (IneqMath, 2025); the abstract and the
repository were read, not the paper, and the judges' prompts are not in it: ours are from their definitions. Differs:
used as a scorer and not for grading, without the judge of the final answer, which needs the gold answer; a product of
probabilities instead of four verdicts; what is hardly sound any more is not shown to the other judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outthink.errors import BudgetExhausted, NothingCameBack
from outthink.model import Model, Models
from outthink.rewards import Path
from outthink.rewards.judge import verdicts, yes_probability
from outthink.types import Message, Problem

FLAWS = (
    "a logical gap: a claim that does not follow from what is before it",
    "a general claim that is concluded from special cases or examples only",
    "an approximation that is used as if it were exact",
    "an error in a calculation",
)
"""In the order in which they are looked for; the first one is the most frequent."""

_PROMPT = (
    "Question:\n{question}\n\nProposed solution:\n{solution}\n\n"
    "Look for one kind of flaw only: {flaw}. Does the solution have this flaw? {reply}"
)
_LABEL = "Reply with Yes or No only."
_WRITE = "If so, quote the place. Then end with one line: Verdict: Yes or Verdict: No"


@dataclass(frozen=True, kw_only=True)
class Soundness:
    """The product of P(no such flaw) over four judges, all by the model in the role "judge", else the main model.

    Args:
        floor: a solution whose product is below it is not shown to the remaining judges, which could only lower it; in
            [0, 1], where 0 shows everything to all. As it is, it is the product of four that are undecided.
    """

    floor: float = 0.0625

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must be from 0 to 1, not {self.floor}")

    async def score(self, problem: Problem, paths: Sequence[Path], *, models: Models) -> list[float | None]:
        """One score per path; one batch for each judge. A verdict that is missing leaves a score missing."""
        judge = models.role("judge")
        sound: list[float | None] = [1.0] * len(paths)
        for flaw in FLAWS:
            left = [place for place, product in enumerate(sound) if product is not None and product >= self.floor]
            if not left:
                break
            try:
                passed = await _passed(judge, problem, [paths[place] for place in left], flaw)
            except (BudgetExhausted, NothingCameBack):
                if len(left) == len(paths):
                    raise  # there is no score of any other
                passed = [None] * len(left)
            for place, chance in zip(left, passed, strict=True):
                product = sound[place]
                sound[place] = None if chance is None or product is None else product * chance
        return sound


async def _passed(judge: Model, problem: Problem, paths: Sequence[Path], flaw: str) -> list[float | None]:
    """P(the flaw is not there) for each path."""
    labels = "labels" in judge.powers
    prompts = [
        _PROMPT.format(
            question=problem.question,
            solution="".join(step.text for step in path),
            flaw=flaw,
            reply=_LABEL if labels else _WRITE,
        )
        for path in paths
    ]
    if labels:
        messages = [(Message(content=prompt),) for prompt in prompts]
        pairs = await judge.labels(problem, messages, ("No", "Yes"), [path[-1].address for path in paths])
        return [None if logprobs is None else yes_probability(*logprobs) for logprobs in pairs]  # here, of No
    said = await verdicts(judge, problem, prompts, [path[-1:] for path in paths], ("No", "Yes"), 1)
    return [float(votes[0] == "No") if votes else None for votes in said]
