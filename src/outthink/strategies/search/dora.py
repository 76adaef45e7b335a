"""DORA, direction-oriented resource allocation: directions of reasoning share the children, and not candidates.

Source: Every Rollout Counts (arXiv 2506.15707); the whole paper and the authors' released code were read. Differs:
children are rounded by largest remainder, so that all N are given. (The paper rounds each candidate by itself, and the
code then cuts or repeats the list.) The code first drops the candidates to which REBASE would give no children; that is
left out, because it can drop a direction of many candidates whole. A step that was cut by its cap goes on. All paths
that finished vote.

Pays: where most samples take the same wrong way and the reward cannot tell the ways apart. It raises the chance of at
least one right answer, not the vote as such.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.resampling import largest_remainder, softmax
from outthink.maths.selection import Aggregation
from outthink.model import Model
from outthink.resources.embedding import Embedder, cosines
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.search.loop import Level, Rounds, search
from outthink.strategies.search.step_search import StepSearch
from outthink.types import Problem


def own_shares(similarities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """gamma: the share of each candidate in its own direction, about 1 over the number of candidates in it.

    Args:
        similarities: (..., k, k) cosines; -inf towards a candidate that is absent.
        temperature: T_s, above 0: towards 0 only equal texts are one direction, and with a large one all are.

    Returns:
        (..., k) in [1/k, 1].
    """
    return np.diagonal(softmax(similarities, temperature), axis1=-2, axis2=-1)


def direction_weights(
    rewards: ArrayLike, similarities: ArrayLike, balance: float, similarity_temperature: float
) -> NDArray[np.float64]:
    """Weights (..., k), summing to 1: softmax(rewards / T_b) times the candidate's share in its own direction."""
    weights = softmax(rewards, balance) * own_shares(similarities, similarity_temperature)
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def whole_children(weights: ArrayLike, width: int) -> NDArray[np.int64]:
    """`width` children (..., k) in proportion to the weights, by largest remainder; ties go to the larger weight."""
    weights = np.asarray(weights, dtype=np.float64)
    order = np.argsort(-np.round(weights, 12), axis=-1, kind="stable")
    counts = np.empty(weights.shape, dtype=np.int64)
    np.put_along_axis(counts, order, largest_remainder(np.take_along_axis(weights, order, axis=-1), width), axis=-1)
    return counts


@dataclass(frozen=True, kw_only=True)
class DORA(StepSearch):
    """Search by levels of constant width; score-weighted vote over the finished paths.

    A path without a vector, because the embedder failed or could not be paid for, is a direction of its own; where all
    are, the allocation is that of the rewards alone. A missing reward counts as 0.

    Args:
        width: steps sampled at every level, and solutions sought (N); at least 1.
        balance: temperature T_b of the softmax over rewards in [0, 1], above 0: towards 0 the best path takes all
            children, and with a very large one directions share equally.
        similarity_temperature: T_s of the softmax over cosines, above 0. At 0.01, a cosine lower by 0.05 weighs e^-5.
            The authors' value belongs to their embedder (BGE-M3): one whose cosines lie closer together needs a
            smaller one. A very large one makes all candidates one direction, so that only the rewards count.
        aggregate: how the step rewards of a path become its weight in the vote (last, min, prod, mean); children are
            always allotted by the last one.
        max_depth: most rounds; 1 samples whole answers.
    """

    width: int = 16
    balance: float = 0.1
    similarity_temperature: float = 0.01
    aggregate: Aggregation = "last"
    max_depth: int = 40

    def __post_init__(self) -> None:
        check(
            self,
            at_least_one=("width", "max_step_tokens", "max_depth"),
            above_zero=("balance", "similarity_temperature"),
        )

    def allot(self, level: Level) -> NDArray[np.int64]:
        """Children (k,) of the k open paths."""
        similarities = cosines([node.vector for node in level.nodes])
        weights = direction_weights(level.scores, similarities, self.balance, self.similarity_temperature)
        return whole_children(weights, level.width)

    async def run(
        self, problem: Problem, report: Report, *, model: Model, prm: Scores, embedder: Embedder, rng: Rng
    ) -> None:
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
            embedder=embedder,
            embed="path",
            choose=self.choose,
        )
