"""Subpool selection: beam search that keeps what it did not choose, and chooses the best of a random part of all that.

Source: Tran et al., Beyond the Frontier: Stochastic Backtracking for Efficient Test-Time Scaling (arXiv 2605.25143);
only the abstract was read, so everything but the choice of the best within random subpools of all earlier prefixes is
provisional. The paper's other mechanism, powered particles, is `pool_particles`. Ours: a prefix that was continued
leaves the pool, and the share that a subpool is.

Pays: where an over-confident reward makes `beam` drop beginnings that it needs later. On sums with a small probe it
could not be told from a vote of less than two thirds of its tokens (docs/results/search.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outthink.maths import selection
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.search.beam import children_of_the_best, first_of_each_text
from outthink.strategies.search.loop import Level, Rounds, search
from outthink.strategies.search.step_search import StepSearch
from outthink.types import Problem


@dataclass(frozen=True, kw_only=True)
class SubpoolSelection(StepSearch):
    """Levels of constant width over a pool of all open paths that have not been continued yet.

    Each round a random share of the pool is drawn, and the best width // children paths of it, by their last scores,
    get the next steps; the others wait. The search ends when as many paths have finished as it is wide.

    Args:
        width: steps sampled in every round (N), and solutions sought; at least 1.
        children: next steps of each path that goes on (M); at least 1.
        share: of the pool, that is looked at in a round; above 0 and at most 1. With 1 the best of all go on, however
            early they are; a small one goes on with paths at random.
        max_depth: most rounds; 1 samples whole answers.
    """

    width: int = 16
    children: int = 4
    share: float = 0.5
    max_depth: int = 40

    def __post_init__(self) -> None:
        check(self, at_least_one=("width", "children", "max_step_tokens", "max_depth"), above_zero=("share",))
        if self.share > 1:
            raise ValueError(f"share must be at most 1, not {self.share}")

    def allot(self, level: Level) -> NDArray[np.int64]:
        """Children (k,) of the k open paths: none outside of the subpool, which has room for all that can go on."""
        k = len(level.nodes)
        size = min(max(math.ceil(self.share * k), self.width // self.children, 1), k)
        drawn = np.sort(level.view.at("subpool", level.round).choice(k, size, replace=False))
        places = drawn[first_of_each_text([level.nodes[place] for place in drawn])]
        scores = selection.numbers([level.nodes[place].score for place in places])
        counts = np.zeros(k, dtype=np.int64)
        counts[places] = children_of_the_best(scores, self.children, level.width)
        return counts

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        """One round at a time; a round waits for its slowest step."""
        await search(
            Rounds(self.allot, self.width, max_rounds=self.max_depth, finishing="refill", waits=True),
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=self.max_step_tokens,
            delimiter=self.delimiter,
            choose=self.choose,
        )
