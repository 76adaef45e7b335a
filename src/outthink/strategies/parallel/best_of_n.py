"""Best-of-N: sample n answers and return the one that the verifier scores highest.

Source: Cobbe et al., Training Verifiers to Solve Math Word Problems (2021), from memory; aggregation of step scores as
read in the code of search-and-learn. Differs: unfinished and unreadable samples cannot win; ties go to the shorter.

Pays: where the score ranks right above wrong: 19 points above the vote on sums, by confidence
(docs/results/selection.md). It follows one score, so a large n finds out a scorer that errs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outthink.maths.selection import Aggregation, Drawn, Replayed, best_of
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_best, by_majority, need_scorer, sample_scores
from outthink.types import Problem


@dataclass(frozen=True, kw_only=True)
class BestOfN:
    """The sample with the highest score.

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
        chosen, share = by_best(samples, scores)
        report(samples, chosen=chosen, scores=scores, confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same choice from recorded scores."""
        assert drawn.scores is not None
        return Replayed.of_all(best_of(drawn.keys, drawn.scores, lengths=drawn.lengths), drawn)
