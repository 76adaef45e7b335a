"""Fusion: a second model reads n answers and writes one new answer from them.

Source: Making, not Taking, the Best of N (FusioN), abstract and a summary read; the paper's prompt was not seen, ours
is inferred. Differs: exact duplicates are shown once; candidates that do not fit the context together are fused in
groups, and then the results; what `objection` objects to does not stand, and neither does a program that fails the
public tests.

Pays: for open answers, with a fusor at least as strong as the model. On sums it was 10 points below the vote at equal
tokens (docs/results/selection.md).
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from outthink.answers.thoughts import spoken
from outthink.errors import EngineError, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.resources.metered_sandbox import MeteredSandbox
from outthink.rng import Rng
from outthink.sandbox.host import Sandbox
from outthink.strategies import Report
from outthink.strategies.choosing import by_majority
from outthink.strategies.prompting import added, numbered, said_by
from outthink.together import away
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
    return added(
        problem,
        f"Here are {len(answers)} candidate answers; some of them may be wrong.\n\n{numbered('Candidate', answers)}\n\n"
        "Write the single best answer, in the language of the question. Keep what is correct and useful in the "
        "candidates, discard what is wrong, and use the form asked for above.",
    )


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
    return _REFUSAL.match(spoken(text)) is not None


def script(text: str) -> str | None:
    """The script of most letters, such as LATIN or CJK (Chinese and Japanese); None where there are few letters.

    A change between two languages of one script is not seen.
    """
    letters = Counter(letter for letter in spoken(text) if letter.isalpha())
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
            answers fusion can lose to selection, so it is off. Answers of kind "text" always may be new. So may
            programs: a merged one stands where it passes all public tests, and where there are none to pass nothing is
            fused, unless this is on.
    """

    n: int = 5
    temperature: float = 0.3
    new_answers: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")

    async def run(
        self,
        problem: Problem,
        report: Report,
        *,
        model: Model,
        models: Models,
        rng: Rng,
        meter: Meter,
        sandbox: MeteredSandbox | None = None,
    ) -> None:
        """The majority of the candidates is reported first and stands where the fusor's answer cannot."""
        async with contextlib.AsyncExitStack() as own:
            if sandbox is None and self._tested(problem) and problem.code.tests:
                runner = Sandbox()  # before anything is spent, since there may be none
                own.push_async_callback(runner.close)
                sandbox = MeteredSandbox(runner, meter)
            await self._run(problem, report, model, models.role("fusor"), rng, meter, sandbox)

    async def _run(
        self,
        problem: Problem,
        report: Report,
        model: Model,
        fusor: Model,
        rng: Rng,
        meter: Meter,
        sandbox: MeteredSandbox | None,
    ) -> None:
        samples = await model.sample(problem, self.n)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        first = {sample.text: sample for sample in reversed(samples) if sample.complete}
        shown = [first[text] for text in sorted(first)]
        if len(shown) < 2:
            return  # nothing to fuse
        if self._tested(problem) and not problem.code.tests:
            meter.notes.append("Nothing was fused: without public tests no merged program could stand.")
            return
        rng.at("fusion").shuffle(shown)
        fused = await self._fused(problem, fusor, shown, sandbox)
        candidates = [*samples, *([] if fused in samples else [fused])]
        if await self._stands(problem, fused, samples, sandbox):
            agree = sum(sample.key == fused.key for sample in samples)
            report(candidates, chosen=fused, confidence=agree / len(samples))
        else:
            report(candidates, chosen=chosen, confidence=share)

    def _tested(self, problem: Problem) -> bool:
        """Whether a fused answer must pass the public tests."""
        return problem.answer == "code" and not self.new_answers

    async def _stands(
        self, problem: Problem, fused: Candidate, candidates: Sequence[Candidate], sandbox: MeteredSandbox | None
    ) -> bool:
        """Whether nothing speaks against a fused answer."""
        new = self.new_answers or problem.answer in ("text", "chat", "code")
        size = sum(len(candidate.text) for candidate in (fused, *candidates))
        if await away(size, partial(objection, new_answers=new), fused, candidates):
            return False
        if not self._tested(problem):
            return True
        if sandbox is None:
            return False
        try:
            ran = await sandbox.test(problem.code, fused.answer or "", problem.code.tests, lane=fused.address)
        except EngineError:  # of the sandbox itself
            return False
        return ran is not None and ran.outcome == "ok"

    async def _fused(
        self, problem: Problem, fusor: Model, shown: list[Candidate], sandbox: MeteredSandbox | None
    ) -> Candidate:
        """One answer from those shown; where they do not fit the fusor's context, level by level in groups."""
        size = len(shown)
        while len(shown) > 1:
            groups = [shown[start : start + size] for start in range(0, len(shown), size)]
            fusing = [group for group in groups if len(group) > 1]  # one that is left over goes on as it is
            said = await said_by(shown)
            draws = [
                Draw(
                    messages=fusion_prompt(problem, [said[candidate.id] for candidate in group]),
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
            kept = [
                group[0] if len(group) == 1 else await self._kept(problem, group, next(drawn), sandbox)
                for group in groups
            ]
            shown = list({candidate.text: candidate for candidate in kept}.values())
        return shown[0]

    async def _kept(
        self,
        problem: Problem,
        group: Sequence[Candidate],
        fused: Sequence[Candidate],
        sandbox: MeteredSandbox | None,
    ) -> Candidate:
        """What stands for a group: the fused answer, else the majority of the group."""
        if fused and await self._stands(problem, fused[0], group, sandbox):
            return fused[0]
        return by_majority(group)[0] or group[0]
