"""V1-Infer: answers are compared in pairs, each a few times, then those that are about equally good; best rate wins.

Source: V1 (Singh et al., 2603.04304), abstract, the read-me of its code and summaries were read. Differs: the prompt is
ours; one sample stands for each different answer; all pairs of a round are asked at once; which of two is shown first
is drawn, and an answer that cannot be read is asked for once more, then it is no match.

Pays: with a judge that compares better than it scores; 3 comparisons an answer, each of which reads two samples. On
sums with a 0.5B judge it was 12 points below `best_of_n` with the same judge, which costs half
(docs/results/selection.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outthink.errors import BudgetExhausted, NothingCameBack, PromptTooLong
from outthink.maths.tournament import Match, Pair, pairs, swiss_pairs, win_rates, winner
from outthink.meter import Meter
from outthink.model import Model, Models
from outthink.rewards.judge import read_once
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority, last_line
from outthink.strategies.parallel.hedged_sampling import share_of
from outthink.strategies.prompting import need_shown, said_by
from outthink.together import away, each
from outthink.types import Candidate, Problem

_PROMPT = (
    "Compare two solutions: how likely is each to be right?\n\n"
    "Question:\n{question}\n\n<solution A>\n{a}\n</solution A>\n\n<solution B>\n{b}\n</solution B>\n\n"
    "First check both step by step, in a few sentences. Then rate them, each from 1 (certainly wrong) to 10 (certainly "
    "right), in one last line: Ratings: A=?/10, B=?/10"
)
_RATING = r"[ \t]*[=:][ \t*_]*(\d{1,2})(?:[ \t]*/[ \t]*10)?"
_RATINGS = re.compile(rf"[^\w\n]*ratings?[^\w\n]*a{_RATING}[ \t*_,;]+b{_RATING}[^\w\n]*", re.IGNORECASE)
_LOWEST, _HIGHEST = 1, 10


def ratings_of(text: str) -> tuple[int, int] | None:
    """The ratings of A and B in the last line of the form "Ratings: A=7/10, B=3/10"; None without or out of range."""
    line = last_line(_RATINGS, text)
    rated = (int(line[1]), int(line[2])) if line else (0, 0)
    return rated if all(_LOWEST <= one <= _HIGHEST for one in rated) else None


def match_of(a: int, b: int, rated: tuple[int, int]) -> Match:
    """The match that two ratings say."""
    margin = (rated[0] - rated[1]) / (_HIGHEST - _LOWEST)
    return Match(a, b, score=0.5 + 0.5 * (margin > 0) - 0.5 * (margin < 0), margin=abs(margin))


@dataclass(frozen=True, kw_only=True)
class V1Infer:
    """n samples; comparisons by the model in the role "judge", else by the main model.

    Args:
        n: samples (N); the paper uses 16.
        m: others that each different answer is compared with first, or one more where that does not come out even.
        window: places in the ranking by which two are apart at most that are compared then, while such pairs are left.
        comparisons: for each different answer; the paper uses 3. None is repeated.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    n: int = 8
    m: int = 2
    window: int = 8
    comparisons: float = 3.0

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "m", "window"))
        if not (math.isfinite(self.comparisons) and self.comparisons >= 1):
            raise ValueError(f"comparisons must be a number of at least 1, not {self.comparisons}")
        compared = min(self.comparisons * self.n, self.n * (self.n - 1) / 2)
        need_shown(math.ceil(2 * compared), f"{self.n} samples with {self.comparisons:g} comparisons each")

    async def run(
        self, problem: Problem, report: Report, *, model: Model, models: Models, rng: Rng, meter: Meter
    ) -> None:
        """The majority is reported first; from then on the best rate, round by round."""
        samples = await model.sample(problem, self.n)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        known = {one.key: one for one in reversed(samples) if one.key is not None}
        # ties of rates go to the first one, and so to the most frequent answer
        shown = sorted(known.values(), key=lambda one: -share_of(one, samples))
        if len(shown) < 2:
            return
        judge = models.role("judge")
        most = math.floor(self.comparisons * len(shown))
        matches: list[Match] = []
        met: list[Pair] = []
        places = rng.at("v1_infer", "ring").permutation(len(shown)).tolist()
        new = [(places[a], places[b]) for a, b in pairs(len(shown), self.m)][:most]
        number = 0
        while new:
            try:
                matches += await self._matches(problem, judge, shown, new, rng, number)
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
                meter.notes.append(f"the comparisons end after {len(matches)}: {failure}")
                return
            met += new
            rates = win_rates(len(shown), matches).tolist()
            best = shown[winner(rates, matches, 1)]
            scores = {one.id: None if math.isnan(rate) else rate for one, rate in zip(shown, rates, strict=True)}
            rated = [scores.get(one.id) for one in samples]
            report(samples, chosen=best, scores=rated, confidence=share_of(best, samples))
            ranked = [0.5 if math.isnan(rate) else rate for rate in rates]
            new = (await away(len(shown) * self.window, swiss_pairs, ranked, met, self.window))[: most - len(met)]
            number += 1
        meter.notes.append(f"comparisons: {len(met)}, readable: {len(matches)}; different answers: {len(shown)}")

    async def _matches(
        self,
        problem: Problem,
        judge: Model,
        shown: Sequence[Candidate],
        new: Sequence[Pair],
        rng: Rng,
        number: int,
    ) -> list[Match]:
        turned = rng.at("v1_infer", "order", number).random(len(new)) < 0.5
        orders = [(b, a) if swapped else (a, b) for (a, b), swapped in zip(new, turned, strict=True)]
        said = [*(await said_by(shown)).values()]
        prompts = await each(
            lambda pair: _PROMPT.format(question=problem.question, a=said[pair[0]], b=said[pair[1]]), orders
        )
        judged = [(shown[a], shown[b]) for a, b in orders]
        ratings = await read_once(judge, problem, prompts, judged, ratings_of)
        return [match_of(a, b, rated) for (a, b), rated in zip(orders, ratings, strict=True) if rated is not None]
