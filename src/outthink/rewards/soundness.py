"""Four narrow judges, each of which looks for one kind of flaw: the chance that a solution passes them all.

Source: Solving Inequality Proofs with Large Language Models (IneqMath, 2025); the abstract and the
repository were read, not the paper, and the judges' prompts are not in it: ours are from their definitions. Differs:
used as a scorer, without the judge of the final answer, which needs the gold answer; the product of probabilities, or
the share of judges that are passed, instead of four verdicts; what is hardly sound any more is not shown to the other
judges. All four read the same solution and cost the same, so the one that fails most often comes first.

A short or evasive solution passes such judges easily: choose by them among equal answers only (`majority_best`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from outthink.errors import BudgetExhausted, NothingCameBack, UnknownName
from outthink.model import Model, Models
from outthink.rewards import Path
from outthink.rewards.judge import verdicts, yes_probability
from outthink.together import each
from outthink.types import Message, Problem

FLAWS: Mapping[str, str] = {
    "gap": "a logical gap: a claim that does not follow from what is before it",
    "cases": "a general claim that is concluded from special cases or examples only",
    "approximation": "an approximation that is used as if it were exact",
    "calculation": "an error in a calculation",
}
"""What each judge looks for, in the order in which they are asked; the first one is the most frequent."""

PASSES = 0.5
"""From this chance on that the flaw is not there, a judge is passed."""

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
        flaw: ask this judge alone (gap, cases, approximation or calculation); None: all.
        pool: "product" of the chances, or the share of the judges that are "passed" before the first that is not.
        floor: a solution whose product is below it is not shown to the remaining judges, which could only lower it; in
            [0, 1], where 0 shows everything to all. As it is, it is the product of four that are undecided.
    """

    flaw: str | None = None
    pool: Literal["product", "passed"] = "product"
    floor: float = 0.0625

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must be from 0 to 1, not {self.floor}")
        if self.flaw is not None and self.flaw not in FLAWS:
            raise UnknownName("flaw", self.flaw, FLAWS)

    async def score(self, problem: Problem, paths: Sequence[Path], *, models: Models) -> list[float | None]:
        """One score per path; one batch for each judge. A verdict that is missing leaves a score missing."""
        judge = models.role("judge")
        asked = [*FLAWS] if self.flaw is None else [self.flaw]
        products: list[float | None] = [1.0] * len(paths)
        shares = [0.0] * len(paths)
        going = [*range(len(paths))]
        for flaw in asked:
            if not going:
                break
            try:
                chances = await _passed(judge, problem, [paths[place] for place in going], FLAWS[flaw])
            except (BudgetExhausted, NothingCameBack):
                if len(going) == len(paths):
                    raise  # there is no score of any other
                chances = [None] * len(going)
            for place, chance in zip(going, chances, strict=True):
                product = products[place]
                products[place] = None if chance is None or product is None else product * chance
                shares[place] += chance is not None and chance >= PASSES
            known = [
                (place, chance, product)
                for place, chance in zip(going, chances, strict=True)
                if chance is not None and (product := products[place]) is not None
            ]
            going = [place for place, chance, product in known if self._goes_on(chance, product)]
        if self.pool == "product":
            return products
        return [None if products[place] is None else share / len(asked) for place, share in enumerate(shares)]

    def _goes_on(self, chance: float, product: float) -> bool:
        """Whether a solution is worth a further judge."""
        return product >= self.floor if self.pool == "product" else chance >= PASSES


async def _passed(judge: Model, problem: Problem, paths: Sequence[Path], flaw: str) -> list[float | None]:
    """P(the flaw is not there) for each path."""
    labels = "labels" in judge.powers
    reply = _LABEL if labels else _WRITE
    prompts = await each(
        lambda path: _PROMPT.format(
            question=problem.question, solution="".join(step.text for step in path), flaw=flaw, reply=reply
        ),
        paths,
    )
    if labels:
        messages = [(Message(content=prompt),) for prompt in prompts]
        pairs = await judge.labels(problem, messages, ("No", "Yes"), [path[-1].address for path in paths])
        return [None if logprobs is None else yes_probability(*logprobs) for logprobs in pairs]  # here, of No
    said = await verdicts(judge, problem, prompts, [path[-1:] for path in paths], ("No", "Yes"), 1)
    return [float(votes[0] == "No") if votes else None for votes in said]
