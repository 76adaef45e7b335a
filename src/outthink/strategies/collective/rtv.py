"""Recursive tournament voting: samples are summarised, and small groups knock each other out by votes on summaries.

Source: 2604.16529, the card of its abstract was read. Differs: answers are whole samples, not rollouts of agents, so
nothing is rolled out again; the prompts are ours; half of the votes of a match see its summaries in reverse; a match
between equal answers is not asked, the first of them goes on; a tie goes to the first. A short answer stands in a
summary as it was read.

Pays: with samples too long to be compared side by side, and a judge better than the model. Every sample is read once,
and each match reads summaries only. On sums with a 0.5B judge it was 14 points below `best_of_n` with the same judge
(docs/results/selection.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outthink.errors import BudgetExhausted, NothingCameBack, PromptTooLong
from outthink.maths.tournament import groups
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority, last_line
from outthink.strategies.parallel.hedged_sampling import share_of
from outthink.strategies.prompting import between, need_shown, said_by
from outthink.together import each
from outthink.types import Candidate, Message, Problem

_SUMMARY = (
    "Summarise a proposed solution, so that it can be compared with others. Do not judge it.\n\n"
    "Question:\n{question}\n\n<solution>\n{solution}\n</solution>\n\n"
    "Write three lines and nothing else:\nApproach: the idea in one sentence\nSteps: the results it depends on\n"
    "Answer: its final answer"
)
_MATCH = (
    "Decide which of several summarised solutions is most likely right.\n\n"
    "Question:\n{question}\n\n{solutions}\n\n"
    "Check the results they depend on, in a few sentences. Then end with one line that names the best one by its "
    "number: Best: NUMBER"
)
_BEST = re.compile(
    r"[^\w\n]*(?:the[ \t]+)?best(?:[ \t]+(?:one|solution))?(?:[ \t]+is)?[^\w\n]*(?:solution[^\w\n]*)?(\d+)[^\w\n]*",
    re.IGNORECASE,
)
_ANSWER = re.compile(r"^[^\w\n]*answer[^\w\n]*:.*$", re.IGNORECASE | re.MULTILINE)
_TEMPERATURE = 0.6  # at 0 all votes would be one vote


def summary_prompt(problem: Problem, text: str) -> tuple[Message, ...]:
    """One message with the question and the solution."""
    return (Message(content=_SUMMARY.format(question=problem.question, solution=text)),)


def match_prompt(problem: Problem, summaries: Sequence[str]) -> tuple[Message, ...]:
    """One message with the question and the summaries, numbered from 1."""
    return (
        Message(
            content=_MATCH.format(
                question=problem.question, solutions=between("solution", dict(enumerate(summaries, 1)))
            )
        ),
    )


def with_answer(problem: Problem, summary: str, sample: Candidate) -> str:
    """The summary with the sample's short answer as it was read, since who sums up may write another one."""
    if problem.answer not in ("math", "choice"):
        return summary
    rest = _ANSWER.sub("", summary).strip()
    return f"{rest}\nAnswer: {sample.answer}".strip()


def voted(text: str, n: int) -> int | None:
    """The solution, from 0, that the last line of the form "Best: 2" names; None without one or out of range."""
    named = last_line(_BEST, text)
    place = int(named[1][:9]) - 1 if named else -1
    return place if 0 <= place < n else None


@dataclass(frozen=True, kw_only=True)
class RTV:
    """n samples; summaries and votes by the model in the role "judge", else by the main model.

    Args:
        n: samples; the paper uses 16.
        group: samples of a match; at least 2.
        m: votes of each match.
        summary: most tokens that the writer of a summary may use; 0 compares the samples as they are.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    n: int = 8
    group: int = 2
    m: int = 2
    summary: int = 200

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "m"), at_least_zero=("summary",))
        if self.group < 2:
            raise ValueError(f"group must be at least 2, not {self.group}")
        need_shown(3 * self.n, f"{self.n} samples")  # each once for its summary, and less than twice in matches

    async def run(
        self, problem: Problem, report: Report, *, model: Model, models: Models, rng: Rng, meter: Meter
    ) -> None:
        """The majority of those that are left stands until one is left."""
        samples = await model.sample(problem, self.n)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        left = [place for place, sample in enumerate(samples) if sample.key is not None]
        if len({samples[place].key for place in left}) < 2:
            return
        judge = models.role("judge")
        rng.at("rtv").shuffle(left)
        matches = 0
        try:
            told = await self._summaries(problem, judge, samples, sorted(left))
            number = 0
            while len(left) > 1:
                number += 1
                met = [*groups(left, self.group)]
                asked = [group for group in met if len({samples[place].key for place in group}) > 1]
                won = await self._won(problem, judge.lane("round", number), samples, told, asked)
                matches += len(asked)
                winners = {tuple(group): place for group, place in zip(asked, won, strict=True)}
                left = [winners.get(tuple(group), group[0]) for group in met]
                chosen, _ = by_majority([samples[place] for place in left])
                report(samples, chosen=chosen, confidence=None if chosen is None else share_of(chosen, samples))
        except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
            meter.notes.append(f"the tournament ends with {len(left)} left: {failure}")
            return
        meter.notes.append(f"matches asked: {matches}; samples: {len(samples)}")

    async def _summaries(
        self, problem: Problem, judge: Model, samples: Sequence[Candidate], places: Sequence[int]
    ) -> dict[int, str]:
        """By place; a sample whose summary is missing is shown as it is."""
        said = await said_by([samples[place] for place in places])
        told = {place: said[samples[place].id] for place in places}
        if not self.summary:
            return told
        most = min(self.summary, judge.sampling.cap)
        draws = await each(
            lambda place: Draw(
                messages=summary_prompt(problem, told[place]),
                parents=(samples[place],),
                temperature=0.0,
                max_tokens=most,
                aside=True,
                lane=("summary", place),
            ),
            places,
        )
        drawn = await judge.sample_fitting(problem, draws)
        summaries = {place: one[0] for place, one in zip(places, drawn, strict=True) if one}
        said = await said_by([*summaries.values()])
        full = await each(lambda place: with_answer(problem, said[summaries[place].id], samples[place]), summaries)
        return told | dict(zip(summaries, full, strict=True))

    async def _won(
        self,
        problem: Problem,
        lane: Model,
        samples: Sequence[Candidate],
        told: dict[int, str],
        asked: Sequence[Sequence[int]],
    ) -> list[int]:
        """The place that wins in each group; the first where nobody voted."""
        if not asked:
            return []
        orders = [(number, [*group][::step]) for number, group in enumerate(asked) for step in (1, -1)]
        counts = [(self.m + 1) // 2, self.m // 2]
        turned = [(number, order, counts[at % 2]) for at, (number, order) in enumerate(orders) if counts[at % 2]]
        draws = await each(
            lambda shown: Draw(
                n=shown[2],
                messages=match_prompt(problem, [told[place] for place in shown[1]]),
                parents=tuple(samples[place] for place in shown[1]),
                temperature=_TEMPERATURE if self.m > 1 else 0.0,
                aside=True,
                lane=("match", shown[0]),
            ),
            turned,
        )
        drawn = await lane.sample_fitting(problem, draws)
        ballots: list[Counter[int]] = [Counter() for _ in asked]
        said = [
            (number, order, text.text)
            for (number, order, _), texts in zip(turned, drawn, strict=True)
            for text in texts
            if text.finish == "eos"
        ]
        votes = await each(lambda one: voted(one[2], len(one[1])), said)
        for (number, order, _), best in zip(said, votes, strict=True):
            if best is not None:
                ballots[number][order[best]] += 1
        return [max(group, key=lambda place: ballots[number][place]) for number, group in enumerate(asked)]
