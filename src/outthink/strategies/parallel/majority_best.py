"""Majority, then best: the most frequent answer wins, and a score chooses only which of its texts is shown.

Source: choosing by soundness inside the majority's group, our reading of Solving Inequality Proofs with Large Language
Models (IneqMath, 2025), of which the abstract and the repository were read. Differs: any score chooses, and only the
texts of that group are scored, so a rare answer whose text looks sound can neither win nor cost anything. Among answers
that are equally frequent the best text wins.

Pays: where the text is read, as a proof or an explanation is: the answer is that of the vote, and what leads to it is
the soundest that was written. The answer differs from the vote in ties only (docs/results/search.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from outthink.maths.selection import Aggregation, Drawn, Replayed, answer_totals, best_of, codes
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_best, by_majority, need_scorer, sample_scores
from outthink.types import Problem


def leading(keys: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which samples (..., n) have the most frequent answer, or one of those that are equally frequent."""
    counts = np.where(keys >= 0, answer_totals(keys, np.ones(keys.shape)), 0.0)
    return np.asarray((counts == counts.max(-1, keepdims=True)) & (keys >= 0))


@dataclass(frozen=True, kw_only=True)
class MajorityBest:
    """The most frequent of n answers, in the words of its sample with the highest score.

    Args:
        n: samples drawn; at least 1.
        aggregate: how a PRM's step scores become one score (last, min, prod, mean); a verifier needs none.
        delimiter: where steps end, for a PRM.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    needs_one_of: ClassVar[frozenset[str]] = frozenset({"verifier", "prm"})
    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "scores"})

    n: int = 16
    aggregate: Aggregation = "last"
    delimiter: str = "\n\n"

    def __post_init__(self) -> None:
        check(self, at_least_one=("n",))

    async def run(
        self,
        problem: Problem,
        report: Report,
        *,
        model: Model,
        verifier: Scores | None = None,
        prm: Scores | None = None,
    ) -> None:
        """The majority is reported first, so that it stands if the scores cannot be paid for."""
        need_scorer(verifier, prm)
        samples = await model.sample(problem, self.n)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        front = leading(codes([sample.key for sample in samples]))
        group = [sample for sample, leads in zip(samples, front.tolist(), strict=True) if leads]
        if len(group) < 2:
            return
        scores = await sample_scores(problem, group, verifier, prm, self.aggregate, self.delimiter)
        known = dict(zip((sample.id for sample in group), scores, strict=True))
        chosen, _ = by_best(group, scores)
        report(samples, chosen=chosen, scores=[known.get(sample.id) for sample in samples], confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same choice from recorded scores."""
        assert drawn.scores is not None
        front = np.where(leading(drawn.keys), drawn.keys, -1)
        return Replayed.of_all(best_of(front, drawn.scores, lengths=drawn.lengths), drawn)
