"""ETS, efficient tree search: REBASE among those open paths that are worth the cache their tree holds.

Source: ETS: Efficient Tree Search for Inference-Time Scaling (arXiv 2502.13575); its abstract and the authors' released
code were read. Differs from the code: where nodes cost nothing (lambda_b 0) no path is dropped, and the search is
REBASE (there each node then earns a little, which comes to the same); ties have a stated order; any embedder will do.
As in `rebase`, the token cap holds for the whole path, and in the last round open paths are sampled to their end.

Pays: where rebase pays and the cache is short: it held 21% fewer resident tokens (docs/results/search.md). It saves
time only on engines that share prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from outthink.maths.resampling import sequential_ceil
from outthink.maths.selection import Aggregation
from outthink.model import Model
from outthink.resources.embedding import Embedder, cosines
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.search.loop import Level, Node, Rounds, search
from outthink.strategies.search.step_search import StepSearch
from outthink.types import Problem

HeldUnit = Literal["node", "token"]

_TIES = 1e-8  # what the rule for ties may take from a value; differences that mean something are larger
_SCALE = 1e9  # lifts it above the solver's own tolerance, which is absolute


def clusters(vectors: Sequence[NDArray[np.float64] | None], threshold: float) -> NDArray[np.intp]:
    """Numbers (n,) from 0 of the clusters of n texts: average linkage of cosine distances, cut at the threshold.

    A text without a vector is a cluster of its own.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # here, because importing scipy is slow
    from scipy.spatial.distance import squareform

    if len(vectors) == 1:
        return np.zeros(1, dtype=np.intp)
    tree = linkage(squareform(1.0 - cosines(vectors), checks=False), method="average")
    return np.asarray(fcluster(tree, threshold, criterion="distance") - 1, dtype=np.intp)


def worth_keeping(
    shares: NDArray[np.float64],
    prices: NDArray[np.float64],
    above: NDArray[np.bool_],
    prices_above: NDArray[np.float64],
    groups: NDArray[np.intp],
    coverage: float,
) -> NDArray[np.bool_]:
    """Which leaves to keep, at least one: the integer program of ETS, of one level.

    A choice is worth the shares of the leaves kept, less the prices of these and of every node above one of them, plus
    `coverage` times the part of the groups of which a leaf is kept. Ties go to fewer leaves, then to the smaller sum of
    their places; for that each leaf costs a hair more, and a later one a little more than that. So the choice is the
    best to within 1e-8, and of more than some 200 leaves the solver may take any of equally many.

    Args:
        shares, prices: (n,) of the leaves.
        above: (n, m) whether node j is above leaf i.
        prices_above: (m,), at least 0.
        groups: (n,) numbers from 0, all of them used.
        coverage: at least 0.

    Returns:
        (n,); everything where the solver fails.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # here, because importing scipy is slow
    from scipy.sparse import coo_array

    above, alike = np.unique(above, axis=1, return_inverse=True)  # nodes above the same leaves stay or go together
    n, m, k = *above.shape, int(groups.max()) + 1
    later = 1.0 + np.arange(n) / n**2  # all of them together add less than one leaf
    gains = np.concatenate(
        [
            shares - prices - _TIES / n * later,
            -np.bincount(alike.ravel(), weights=prices_above),
            np.full(k, coverage / k),
        ]
    )
    # only the leaves need to be whole numbers: a node above one that is kept then counts as 1, and else as 0
    leaf, node = np.nonzero(above)
    pairs, leaves, kinds = np.arange(len(leaf)), np.arange(n), np.arange(k)
    values = np.repeat([1.0, -1.0, 1.0, -1.0], [len(leaf), len(leaf), n, k])
    rows = np.concatenate([pairs, pairs, len(leaf) + groups, len(leaf) + kinds])  # nodes above leaves, then groups
    columns = np.concatenate([n + node, leaf, leaves, n + m + kinds])
    limits = coo_array((values, (rows, columns)), shape=(len(leaf) + k, n + m + k)).tocsr()
    some = (np.arange(n + m + k) < n).astype(np.float64)
    solution = milp(
        -_SCALE * gains,
        integrality=some,
        bounds=Bounds(0.0, 1.0),
        constraints=[LinearConstraint(limits, lb=0.0), LinearConstraint(some, lb=1.0)],
        options={"mip_rel_gap": 0.0},
    )
    return np.ones(n, dtype=bool) if solution.x is None else np.asarray(solution.x[:n] > 0.5)


@dataclass(frozen=True, kw_only=True)
class ETS(StepSearch):
    """Search by levels with a balanced width that shrinks; score-weighted vote over the finished paths.

    Before the width is shared out, paths are dropped that are not worth their part of the tree (see `worth_keeping`). A
    path is worth its share of the children; all shares sum to 1. A node costs its part of lambda_b. A kind of step that
    is still represented earns its part of lambda_d. What is saved is memory, and time where the engine shares prefixes;
    as many steps are sampled as by REBASE. A missing reward counts as 0, and a step without a vector, because the
    embedder failed or could not be paid for, is a kind of its own.

    Args:
        width: solutions sought (N); at least 1.
        balance: temperature T_b of the softmax over rewards in [0, 1], above 0.
        lambda_b: price of the whole tree, at least 0. 0 is REBASE.
        lambda_d: value of all kinds of steps together, at least 0. With 0 no embedder is asked, and with lambda_b at 1
            very few paths are left. The authors have 1.5 for width 16, 1.4 for 64 and 1.45 for 256.
        threshold: steps are of one kind where their mean cosine distance is at most this, and nothing is dropped where
            every step is a kind of its own. The authors' 0.05 belongs to their encoder, a BERT for mathematics. With
            the default embedder, hashing, it joins steps that differ in a few characters, such as a number, and not
            the same thought in other words. Set it anew for another encoder.
        price: whether a "node" or a "token" is the unit of the price. The authors have nodes; what is held is tokens.
        aggregate: how the step rewards of a path become its weight in the vote (last, min, prod, mean); children are
            always allotted by the last one.
        max_depth: most rounds; 1 samples whole answers.
    """

    width: int = 16
    balance: float = 0.2
    lambda_b: float = 1.0
    lambda_d: float = 1.5
    threshold: float = 0.05
    price: HeldUnit = "node"
    aggregate: Aggregation = "last"
    max_depth: int = 25

    def __post_init__(self) -> None:
        check(
            self,
            at_least_one=("width", "max_step_tokens", "max_depth"),
            above_zero=("balance",),
            at_least_zero=("lambda_b", "lambda_d", "threshold"),
        )

    def allot(self, level: Level) -> NDArray[np.int64]:
        """Children (k,) of the k open paths: those of REBASE among the paths kept."""
        counts = sequential_ceil(level.scores, level.width, self.balance)
        if not self.lambda_b:
            return counts
        kept = self.kept(level.nodes, counts / level.width)
        return sequential_ceil(np.where(kept, level.scores, -np.inf), level.width, self.balance)

    def kept(self, nodes: Sequence[Node], shares: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the k open paths stay, given their shares (k,) of the children."""
        paths = [node.path[:-1] for node in nodes]
        inner = {node: place for place, node in enumerate(dict.fromkeys(above for path in paths for above in path))}
        above = np.zeros((len(nodes), len(inner) + 1), dtype=bool)
        above[:, -1] = True  # the question
        for row, path in zip(above, paths, strict=True):
            row[[inner[node] for node in path]] = True
        if self.price == "node":
            sizes = np.ones(len(nodes) + len(inner) + 1)
        else:  # the question always stays, so its length, which is not known here, decides nothing
            sizes = np.array([*(node.candidate.tokens for node in (*nodes, *inner)), 0.0])
        prices = self.lambda_b * sizes / max(sizes.sum(), 1.0)
        kinds = clusters([node.vector for node in nodes], self.threshold)
        return worth_keeping(shares, prices[: len(nodes)], above, prices[len(nodes) :], kinds, self.lambda_d)

    async def run(
        self, problem: Problem, report: Report, *, model: Model, prm: Scores, embedder: Embedder, rng: Rng
    ) -> None:
        """One level at a time; a level waits for its slowest step, and for the solver (milliseconds for 64 paths)."""
        await search(
            Rounds(self.allot, self.width, max_rounds=self.max_depth),
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=self.max_step_tokens,
            delimiter=self.delimiter,
            aggregate=self.aggregate,
            embedder=embedder if self.lambda_b and self.lambda_d else None,
            choose=self.choose,
        )
