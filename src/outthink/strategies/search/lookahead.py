"""Lookahead search: beam search in which a step is scored at the end of k further greedy steps, then thrown away.

Source: Snell et al., Scaling LLM Test-Time Compute Optimally (arXiv 2408.03314), from memory; read in the released
code of search-and-learn. Differs from that code: the further steps are scored (its beam search samples them and then
scores the path without them); what differs in `beam` differs here, too.

Pays: only where the reward judges a step better a few steps later. The further steps are charged, and the paper (from
memory) has it behind beam at equal tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outthink.maths.selection import Aggregation
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.search.beam import beam
from outthink.strategies.search.loop import Level, Rounds, search
from outthink.strategies.search.step_search import StepSearch
from outthink.types import Problem


@dataclass(frozen=True, kw_only=True)
class Lookahead(StepSearch):
    """Beam search that looks k steps ahead before it scores; score-weighted vote over the finished paths.

    Args:
        k: greedy steps sampled after each new step, for its score alone; they are charged. 0 is beam search.
        width: steps sampled at every level (N), each with up to k further ones, and solutions sought; at least 1.
        children: next steps of each path that goes on (M): the best width // children paths do, at least one.
        aggregate: how the scores of a path's steps become its score, for going on and for its weight in the vote
            (last, min, prod, mean); a step's score is the one at the end of its own further steps.
        max_depth: most rounds; in the last one paths are sampled to their end, and nothing is looked at ahead.
    """

    k: int = 1
    width: int = 16
    children: int = 4
    aggregate: Aggregation = "last"
    max_depth: int = 40

    def __post_init__(self) -> None:
        check(self, at_least_one=("width", "children", "max_step_tokens", "max_depth"), at_least_zero=("k",))

    def allot(self, level: Level) -> NDArray[np.int64]:
        """Children (k,) of the k open paths."""
        return beam(level, self.children, self.aggregate)

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        """One level at a time, each k + 1 steps long."""
        await search(
            Rounds(self.allot, self.width, max_rounds=self.max_depth, finishing="refill"),
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=self.max_step_tokens,
            delimiter=self.delimiter,
            aggregate=self.aggregate,
            lookahead=self.k,
            choose=self.choose,
        )
