"""Fusion: a second model reads n answers and writes one new answer from them.

Source: Making, not Taking, the Best of N (FusioN), abstract and a summary read; the paper's prompt was not seen, ours
is inferred. Differs: exact duplicates are shown once, and an answer that no candidate had falls back to the majority.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from outthink.model import Model, Models
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.choosing import by_majority
from outthink.types import Message, Problem


def fusion_prompt(problem: Problem, answers: Sequence[str]) -> tuple[Message, ...]:
    """The problem's messages with the candidate answers added to the last one."""
    listed = "\n\n".join(f"Candidate {number}:\n{text.strip()}" for number, text in enumerate(answers, start=1))
    *before, last = problem.messages
    asked = (
        f"{last.text}\n\nHere are {len(answers)} candidate answers; some of them may be wrong.\n\n{listed}\n\n"
        "Write the single best answer. Keep what is correct and useful in the candidates, discard what is wrong, "
        "and use the form asked for above."
    )
    return (*before, replace(last, content=asked))


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """n candidates by the main model, one answer by the model in the role "fusor" (else the main model).

    Args:
        n: candidates; the paper uses 5.
        temperature: of the fusor.
        new_answers: let the fusor's answer stand where no candidate has it. The paper finds that on short exact
            answers fusion can lose to selection, so it is off; answers of kind "text" always may be new.
    """

    n: int = 5
    temperature: float = 0.3
    new_answers: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models, rng: Rng) -> None:
        """The majority of the candidates is reported first and stands where the fusor's answer cannot."""
        samples = await model.sample(problem, self.n)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        texts = sorted({sample.text for sample in samples if sample.complete})
        if len(texts) < 2:
            return  # nothing to fuse
        rng.at("fusion").shuffle(texts)
        fused = (
            await models.role("fusor").sample(
                problem,
                messages=fusion_prompt(problem, texts),
                parents=tuple(samples),
                temperature=self.temperature,
            )
        )[0]
        known = {sample.key for sample in samples}
        new = chosen is None or self.new_answers or problem.answer == "text"
        if fused.key is not None and (new or fused.key in known):
            agree = sum(sample.key == fused.key for sample in samples)
            report([*samples, fused], chosen=fused, confidence=agree / len(samples))
