"""X-MBR: minimum Bayes risk with answers in another language as further evidence, which cannot be chosen themselves.

Source: When Life Gives You Samples: The Benefits of Scaling up Inference Compute for Multilingual LLMs; abstract and a
summary of each section were read, its prompts were not. Differs: the utility is how far a judge says two answers agree,
asked once for each pair; the model is asked to answer in the other language; both prompts are ours; nothing is asked
where all answers are equal.

Pays: for open-ended answers of a model that is better in another language, with a judge that reads both. On sums it
was 27 points below a vote that cost less (docs/results/selection.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from outthink.maths.selection import best_of, codes, numbers
from outthink.model import Model, Models
from outthink.rewards.judge import written
from outthink.strategies import Report
from outthink.strategies.choosing import pick
from outthink.strategies.parallel.hedged_sampling import greedy_first, hedged_pool, need_pool
from outthink.strategies.parallel.mbr import expected_utility
from outthink.types import Candidate, Message, Problem

_PROMPT = (
    "Task:\n{question}\n\nResponse A:\n{a}\n\nResponse B:\n{b}\n\n"
    "The responses may be in different languages. How far do they agree in what they say? Reply with a short reason, "
    "then end with one line: Score: S, where S is a whole number from 0 (they disagree) to 10 (they say the same)."
)
_SCORE = re.compile(r"^\W*score\W*(\d+(?:\.\d+)?)(?:\s*/\s*10)?\W*$", re.IGNORECASE | re.MULTILINE)


def evidence_prompt(problem: Problem, language: str) -> tuple[Message, ...]:
    """The problem's messages, asking for the answer in a language."""
    *before, last = problem.messages
    return (*before, replace(last, content=f"{last.text}\n\nWrite your whole answer in {language}."))


def agreement(text: str) -> float | None:
    """The score of the last line of the form "Score: 7", in [0, 1]; None without one or out of range."""
    found = _SCORE.findall(text)
    score = float(found[-1]) / 10 if found else -1.0
    return score if 0 <= score <= 1 else None


@dataclass(frozen=True, kw_only=True)
class XMBR:
    """A hedged pool, chosen from by agreement with itself and with evidence in another language.

    Args:
        n: samples drawn, one of them greedy; the paper uses 5.
        m: samples of evidence (M); 0 is MBR.
        language: of the evidence; the paper takes English for other languages, and Chinese for English.
        temperature: of all but the greedy sample.
    """

    own_temperature: ClassVar[bool] = True  # it says itself at which temperature it samples

    n: int = 5
    m: int = 3
    language: str = "Chinese"
    temperature: float = 0.7

    def __post_init__(self) -> None:
        need_pool(self.n, self.temperature)
        if self.m < 0:
            raise ValueError(f"m must be at least 0, not {self.m}")
        if not self.language.strip():
            raise ValueError("language must be the name of a language")

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models) -> None:
        """The greedy sample is reported first, and stands where agreement cannot be paid for, and in a tie."""
        greedy, samples = await hedged_pool(model, problem, self.n, self.temperature)
        chosen, share = greedy_first(greedy, samples)
        report(samples, chosen=chosen, confidence=share)
        valid = [sample for sample in samples if sample.key is not None]
        if len({sample.key for sample in valid}) < 2:
            return
        evidence: list[Candidate] = []
        if self.m:
            messages = evidence_prompt(problem, self.language)
            evidence = await model.lane("evidence").sample(
                problem, self.m, messages=messages, temperature=self.temperature
            )
        columns = [*valid, *(sample for sample in evidence if sample.key is not None)]
        utilities = await _agreements(models.role("judge"), problem, valid, columns)
        found = dict(zip((sample.id for sample in valid), expected_utility(utilities).tolist(), strict=True))
        scores = [None if np.isnan(score) else score for score in (found.get(s.id, np.nan) for s in samples)]
        if any(score is not None for score in scores):
            # without lengths, so that ties go to the first one, which is the greedy one
            chosen, share = pick(samples, best_of(codes([sample.key for sample in samples]), numbers(scores)))
            report([*samples, *evidence], chosen=chosen, scores=[*scores, *[None] * len(evidence)], confidence=share)


async def _agreements(
    judge: Model, problem: Problem, rows: Sequence[Candidate], columns: Sequence[Candidate]
) -> NDArray[np.float64]:
    """How far each of `rows` agrees with each of `columns`, which begin with `rows`; NaN where it is missing."""
    pairs = [(a, b) for a in range(len(rows)) for b in range(a + 1, len(columns))]
    found = np.full((len(columns), len(columns)), np.nan)
    asked = []
    for a, b in pairs:
        if columns[a].text == columns[b].text:
            found[a, b] = found[b, a] = 1.0
        else:
            asked.append((a, b))
    if asked:
        prompts = [_PROMPT.format(question=problem.question, a=columns[a].text, b=columns[b].text) for a, b in asked]
        said = await written(judge, problem, prompts, [(columns[a], columns[b]) for a, b in asked])
        for (a, b), texts in zip(asked, said, strict=True):
            score = agreement(texts[0].text) if texts and texts[0].finish == "eos" else None
            if score is not None:
                found[a, b] = found[b, a] = score
    return found[: len(rows)]
