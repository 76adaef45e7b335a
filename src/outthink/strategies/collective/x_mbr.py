"""X-MBR: minimum Bayes risk with answers in another language as further evidence, which cannot be chosen themselves.

Source: When Life Gives You Samples: The Benefits of Scaling up Inference Compute for Multilingual LLMs; abstract and a
summary of each section were read, its prompts were not. Differs: the utility is how far a judge says two answers agree,
asked once for each pair of different texts, which come first and second equally often; the model is asked to answer in
the other language; both prompts are ours; nothing is asked where all answers are equal.

Pays: for open-ended answers of a model that is better in another language, with a judge that reads both. On sums it
was 27 points below a vote that cost less (docs/results/selection.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from outthink.errors import BudgetExhausted, NothingCameBack, PromptTooLong
from outthink.maths.selection import best_of, codes, numbers
from outthink.model import Model, Models
from outthink.rewards.judge import written
from outthink.strategies import Report
from outthink.strategies.choosing import last_line, pick
from outthink.strategies.parallel.hedged_sampling import greedy_first, hedged_pool, need_pool
from outthink.strategies.parallel.mbr import expected_utility
from outthink.strategies.prompting import added, said_by
from outthink.together import each
from outthink.types import Candidate, Message, Problem

_PROMPT = (
    "Task:\n{question}\n\nResponse A:\n{a}\n\nResponse B:\n{b}\n\n"
    "The responses may be in different languages. How far do they agree in what they say? Reply with a short reason, "
    "then end with one line: Score: S, where S is a whole number from 0 (they disagree) to 10 (they say the same)."
)
_SCORE = re.compile(r"[^\w\n]*score[^\w\n]*?(\d{1,9}(?:\.\d+)?)(?:[ \t]*/[ \t]*10)?[^\w\n]*", re.IGNORECASE)
_MOST_PAIRS = 4096  # that a judge is asked about
_AT_ONCE = 128  # pairs of one batch, so that not all prompts are held at once


def evidence_prompt(problem: Problem, language: str) -> tuple[Message, ...]:
    """The problem's messages, asking for the answer in a language."""
    return added(problem, f"Write your whole answer in {language}.")


def agreement(text: str) -> float | None:
    """The score of the last line of the form "Score: 7", in [0, 1]; None without one or out of range."""
    line = last_line(_SCORE, text)
    score = float(line[1]) / 10 if line else -1.0
    return score if 0 <= score <= 1 else None


@dataclass(frozen=True, kw_only=True)
class XMBR:
    """A hedged pool, chosen from by agreement with itself and with evidence in another language.

    Args:
        n: samples drawn, one of them greedy; the paper uses 5. A judge is asked about n (n - 1) / 2 + n m pairs, which
            must not be more than 4,096.
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
        pairs = self.n * (self.n - 1) // 2 + self.n * self.m
        if pairs > _MOST_PAIRS:
            raise ValueError(
                f"n = {self.n} and m = {self.m} make {pairs:,} pairs for the judge, more than {_MOST_PAIRS:,}: "
                "choose a smaller n or m"
            )
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
        means = dict(zip((sample.id for sample in valid), expected_utility(utilities).tolist(), strict=True))
        scores = [None if np.isnan(score) else score for score in (means.get(s.id, np.nan) for s in samples)]
        if any(score is not None for score in scores):
            # without lengths, so that ties go to the first one, which is the greedy one
            chosen, share = pick(samples, best_of(codes([sample.key for sample in samples]), numbers(scores)))
            report([*samples, *evidence], chosen=chosen, scores=[*scores, *[None] * len(evidence)], confidence=share)


async def _agreements(
    judge: Model, problem: Problem, rows: Sequence[Candidate], columns: Sequence[Candidate]
) -> NDArray[np.float64]:
    """How far each of `rows` agrees with each of `columns`, which begin with `rows`; NaN where it is missing."""
    place: dict[str, int] = {}
    first = [place.setdefault(column.text, len(place)) for column in columns]
    shown: dict[int, Candidate] = {}
    for text, column in zip(first, columns, strict=True):
        shown.setdefault(text, column)
    words = await said_by([*shown.values()])
    candidates = len({*first[: len(rows)]})  # texts that come later are evidence only
    agree = np.full((len(place), len(place)), np.nan)
    np.fill_diagonal(agree, 1.0)
    pairs = judged_pairs(candidates, len(place))
    for start in range(0, len(pairs), _AT_ONCE):
        asked = pairs[start : start + _AT_ONCE]
        prompts = [
            _PROMPT.format(question=problem.question, a=words[shown[a].id], b=words[shown[b].id]) for a, b in asked
        ]
        try:
            said = await written(judge, problem, prompts, [(shown[a], shown[b]) for a, b in asked])
        except (BudgetExhausted, NothingCameBack, PromptTooLong):
            if np.isnan(agree[~np.eye(len(agree), dtype=bool)]).all():
                raise
            break  # what was said before stands
        texts = [drawn[0].text if drawn and drawn[0].finish == "eos" else "" for drawn in said]
        for (a, b), score in zip(asked, await each(agreement, texts), strict=True):
            if score is not None:
                agree[a, b] = agree[b, a] = score
    return agree[np.ix_(first[: len(rows)], first)]


def judged_pairs(candidates: int, texts: int) -> list[tuple[int, int]]:
    """Each pair of a candidate and another text once, in the order in which the two are shown.

    Every text comes first as often as second, or once more or less.

    Args:
        candidates: how many of the texts can be chosen: the first ones. Two others are not compared.
        texts: how many there are.
    """
    pairs = [(a, b) for a in range(candidates) for b in range(a + 1, texts)]
    return [(a, b) if (b - a) % 2 else (b, a) for a, b in pairs]
