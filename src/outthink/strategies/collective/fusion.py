"""Fusion: a second model reads n answers and writes one new answer from them.

Source: Making, not Taking, the Best of N (FusioN), abstract and a summary read; the paper's prompt was not seen, ours
is inferred. Differs: exact duplicates are shown once; candidates that do not fit the context together are fused in
groups, and then the results; what `objection` objects to does not stand.

Pays: for open answers, with a fusor at least as strong as the model. On sums it was 10 points below the vote at equal
tokens (docs/results/selection.md).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from outthink.errors import PromptTooLong
from outthink.model import Draw, Model, Models
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.choosing import by_majority
from outthink.types import Candidate, Message, Problem

_GROUP = 5  # candidates in a group, at most, where not all of them fit
_LETTERS = 20  # a text with fewer letters does not show its script
_REFUSAL = re.compile(
    r"\W*(?:(?:i['’]?m|i am|we are)\s+(?:very\s+)?(?:sorry|afraid|unable|not able)|sorry\b|i\s+(?:can\s?not|can['’]t"
    r"|could\s+not|couldn['’]t|will\s+not|won['’]t|must\s+decline)|as\s+an\s+ai\b|unfortunately,?\s+i\b)",
    re.IGNORECASE,
)
_SCRIPTS = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK", "HALFWIDTH": "CJK", "FULLWIDTH": "LATIN"}


def fusion_prompt(problem: Problem, answers: Sequence[str]) -> tuple[Message, ...]:
    """The problem's messages with the candidate answers added to the last one."""
    listed = "\n\n".join(f"Candidate {number}:\n{text.strip()}" for number, text in enumerate(answers, start=1))
    *before, last = problem.messages
    asked = (
        f"{last.text}\n\nHere are {len(answers)} candidate answers; some of them may be wrong.\n\n{listed}\n\n"
        "Write the single best answer, in the language of the question. Keep what is correct and useful in the "
        "candidates, discard what is wrong, and use the form asked for above."
    )
    return (*before, replace(last, content=asked))


def objection(
    fused: Candidate, candidates: Sequence[Candidate], *, new_answers: bool
) -> Literal["", "empty", "refusal", "language", "new answer"]:
    """Why a fused answer does not stand in place of its candidates; "" where it does.

    Where the last round of a trace has a fused candidate that was not chosen, this says why.

    Args:
        new_answers: an answer that no candidate has may stand; where no candidate has any, it always may.
    """
    if fused.key is None:
        return "empty"
    texts = [candidate.text for candidate in candidates if candidate.key is not None]
    if refuses(fused.text) and not any(refuses(text) for text in texts):
        return "refusal"
    scripts = {script(text) for text in texts} - {None}
    if scripts and script(fused.text) not in {*scripts, None}:
        return "language"
    known = {candidate.key for candidate in candidates} - {None}
    return "new answer" if known and not new_answers and fused.key not in known else ""


def refuses(text: str) -> bool:
    """Whether a text begins as refusals in English do; what stands before a last `</think>` does not count."""
    return _REFUSAL.match(text.rpartition("</think>")[2]) is not None


def script(text: str) -> str | None:
    """The script of most letters, such as LATIN or CJK (Chinese and Japanese); None where there are few letters.

    A change between two languages of one script is not seen.
    """
    letters = Counter(letter for letter in text.rpartition("</think>")[2] if letter.isalpha())
    if letters.total() < _LETTERS:
        return None
    names: Counter[str] = Counter()
    for letter, count in letters.items():
        name = unicodedata.name(letter, "?").split()[0]
        names[_SCRIPTS.get(name, name)] += count
    return names.most_common(1)[0][0]


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
        first = {sample.text: sample for sample in reversed(samples) if sample.complete}
        shown = [first[text] for text in sorted(first)]
        if len(shown) < 2:
            return  # nothing to fuse
        rng.at("fusion").shuffle(shown)
        fused = await self._fused(problem, models.role("fusor"), shown)
        new = self.new_answers or problem.answer in ("text", "chat")
        candidates = [*samples, *([] if fused in samples else [fused])]
        if objection(fused, samples, new_answers=new):
            report(candidates, chosen=chosen, confidence=share)
        else:
            agree = sum(sample.key == fused.key for sample in samples)
            report(candidates, chosen=fused, confidence=agree / len(samples))

    async def _fused(self, problem: Problem, fusor: Model, shown: list[Candidate]) -> Candidate:
        """One answer from those shown; where they do not fit the fusor's context, level by level in groups."""
        size = len(shown)
        while len(shown) > 1:
            groups = [shown[start : start + size] for start in range(0, len(shown), size)]
            fusing = [group for group in groups if len(group) > 1]  # one that is left over goes on as it is
            draws = [
                Draw(
                    messages=fusion_prompt(problem, [candidate.text for candidate in group]),
                    parents=tuple(group),
                    temperature=self.temperature,
                )
                for group in fusing
            ]
            try:
                drawn = iter(await fusor.sample_each(problem, draws))
            except PromptTooLong:
                if size == 2:
                    raise
                size = min(size - 1, _GROUP)
                continue
            if len(groups) == 1:
                return next(drawn)[0]
            kept = [group[0] if len(group) == 1 else self._kept(problem, group, next(drawn)) for group in groups]
            shown = list({candidate.text: candidate for candidate in kept}.values())
        return shown[0]

    def _kept(self, problem: Problem, group: Sequence[Candidate], fused: Sequence[Candidate]) -> Candidate:
        """What stands for a group: the fused answer, else the majority of the group."""
        new = self.new_answers or problem.answer in ("text", "chat")
        if fused and not objection(fused[0], group, new_answers=new):
            return fused[0]
        return by_majority(group)[0] or group[0]
