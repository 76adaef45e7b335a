"""Beam search: after every step the best N/M open paths go on, and N next steps are sampled from them.

Source: Snell et al., Scaling LLM Test-Time Compute Optimally (arXiv 2408.03314), from memory; read in the released code
of search-and-learn and, for its variants, of its_hub, ETS and OpenR. Differs from search-and-learn: among equal scores
the earlier path goes on, not the later one. Equal texts are always kept once; there it is a setting, on in the
published recipe. The search ends when N paths have finished. All of those vote, and none is copied to make up for
fewer.

Pays: where the process reward is good and samples are few; one over-scored early step can take the whole width. With
a trained probe no difference from the vote at equal tokens was seen (docs/results/search.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths import selection
from outthink.maths.selection import Aggregation
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.search.loop import Level, Node, Rounds, search
from outthink.strategies.search.step_search import StepSearch
from outthink.types import Problem


def path_scores(nodes: Sequence[Node], rule: Aggregation) -> NDArray[np.float64]:
    """One score (k,) for each of k paths of equal depth; NaN where the scores it needs are missing."""
    return selection.aggregate([selection.numbers([step.score for step in node.path]) for node in nodes], rule)


def first_of_each_text(nodes: Sequence[Node]) -> list[int]:
    """The places of the paths whose whole text no earlier one has."""
    places: dict[str, int] = {}
    for place, node in enumerate(nodes):
        places.setdefault("".join(step.candidate.text for step in node.path), place)
    return list(places.values())


def children_of_the_best(scores: ArrayLike, children: int, width: int) -> NDArray[np.int64]:
    """`width` children for the best width // children paths (at least one), as equal as whole numbers allow.

    Args:
        scores: (..., k), k at least 1; a missing one (NaN) ranks last, and ties go to the earlier path.
        children: M, at least 1.
        width: N, at least 1.

    Returns:
        (..., k) counts that sum to `width`. Where it does not divide, the first of those kept, in the order of the
        paths and not of the scores, get one more.
    """
    scores = np.asarray(scores, dtype=np.float64)
    kept = min(max(1, width // children), scores.shape[-1])
    ranks = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1, kind="stable")
    keep = ranks < kept
    earlier = np.cumsum(keep, axis=-1) - 1
    return np.where(keep, width // kept + (earlier < width % kept), 0).astype(np.int64)


def beam(level: Level, children: int, rule: Aggregation) -> NDArray[np.int64]:
    """Children (k,) of the k open paths of a level."""
    places = first_of_each_text(level.nodes)
    counts = np.zeros(len(level.nodes), dtype=np.int64)
    scores = path_scores([level.nodes[place] for place in places], rule)
    counts[places] = children_of_the_best(scores, children, level.width)
    return counts


@dataclass(frozen=True, kw_only=True)
class Beam(StepSearch):
    """Search by levels of constant width; score-weighted vote over the finished paths.

    Args:
        width: steps sampled at every level (N, the slots), and solutions sought; at least 1.
        children: next steps of each path that goes on (M), so that width // children paths go on, at least one; 1 drops
            nothing but equal texts, and `width` or more keeps the best path only. Some call this the beam width, others
            the number of paths kept.
        aggregate: how the step rewards of a path become its score, for going on and for its weight in the vote (last,
            min, prod, mean).
        max_depth: most rounds; 1 samples whole answers.
    """

    width: int = 16
    children: int = 4
    aggregate: Aggregation = "last"
    max_depth: int = 40

    def __post_init__(self) -> None:
        check(self, at_least_one=("width", "children", "max_step_tokens", "max_depth"))

    def allot(self, level: Level) -> NDArray[np.int64]:
        """Children (k,) of the k open paths."""
        return beam(level, self.children, self.aggregate)

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        """One level at a time; a level waits for its slowest step."""
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
            choose=self.choose,
        )
