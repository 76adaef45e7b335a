"""Weighted best-of-N: sum the scores of equal answers and return the heaviest answer.

Source: Li et al., Making Language Models Better Reasoners with Step-Aware Verifier (2022), from memory; rules as
read in the code of search-and-learn and compute-optimal-tts. Differs: scores must be at least 0, missing ones weigh 0.

Pays: where scores help but err: one wrong high score does less harm than in best_of_n. 12 points above the vote on
sums, by confidence (docs/results/selection.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outthink.maths.selection import Aggregation, Drawn, Replayed, weighted_vote
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority, by_weighted_vote, need_scorer, need_weights, sample_scores
from outthink.types import Problem


@dataclass(frozen=True, kw_only=True)
class WeightedBestOfN:
    """Majority vote with the scores as weights.

    Args:
        n: samples drawn (N); at least 1.
        aggregate: how a PRM's step scores become one score (last, min, prod, mean); a verifier needs none.
        delimiter: where steps end, for a PRM.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    needs_one_of: ClassVar[frozenset[str]] = frozenset({"verifier", "prm"})
    reads_recorded: ClassVar[frozenset[str]] = frozenset({"scores"})

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
        scores = await sample_scores(problem, samples, verifier, prm, self.aggregate, self.delimiter)
        chosen, share = by_weighted_vote(samples, scores)
        report(samples, chosen=chosen, scores=scores, confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same choice from recorded scores."""
        assert drawn.scores is not None
        need_weights(np.where(drawn.keys >= 0, drawn.scores, np.nan))
        return Replayed.of_all(weighted_vote(drawn.keys, drawn.scores, lengths=drawn.lengths), drawn)
