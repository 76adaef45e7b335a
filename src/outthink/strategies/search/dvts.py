"""Diverse verifier tree search: N/M independent subtrees, each of which keeps the best of M next steps.

Source: Beeching, Tunstall and Rush, Scaling test-time compute with open models (2024); the post itself was not read,
but its released code was (search-and-learn). Differs: of a subtree's last M candidates those that did not end are no
solutions. A candidate that ended without a readable answer is not chosen. Where some candidates failed, a subtree goes
on with those that came back. Where it never chooses an ended one, what ended in it before is its solution.

Pays: where beam would crowd onto one beginning. With a trained probe it was 7 points above the vote at equal tokens,
but not above a weighted vote of 16 samples by the same probe (docs/results/search.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outthink.maths import selection
from outthink.maths.selection import Aggregation
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.search.beam import path_scores
from outthink.strategies.search.loop import Event, Expand, Grown, Lanes, Node, View, search
from outthink.strategies.search.step_search import StepSearch
from outthink.types import Problem


class Subtree:
    """A greedy search that goes on with the best of M candidates, until the best is one that has ended.

    Args:
        children: candidates for the next step (M).
        aggregate: how the step scores of a path become its score.
        max_rounds: most rounds; in the last one all candidates are sampled to their end.
    """

    def __init__(self, children: int, aggregate: Aggregation, *, max_rounds: int) -> None:
        self.finished: Sequence[Node] = ()
        self._children = children
        self._aggregate = aggregate
        self._rounds_left = max_rounds

    def start(self, view: View) -> list[Expand]:
        """M first steps."""
        return self._candidates(None)

    def grow(self, view: View, events: Sequence[Event]) -> list[Expand]:
        """M next steps of the best candidate; none once that one has ended."""
        nodes = [event.node for event in events if isinstance(event, Grown)]
        ended = [node for node in nodes if node.finished]
        self.finished = [*self.finished, *ended]
        able = [node for node in nodes if not node.finished or node.candidate.key is not None]
        if not able:
            return []
        best = able[int(selection.first_by([True] * len(able), path_scores(able, self._aggregate)))]
        if not best.finished:
            return self._candidates(best)
        self.finished = ended  # what ended earlier and was passed over is no solution any more
        return []

    def _candidates(self, parent: Node | None) -> list[Expand]:
        self._rounds_left -= 1
        return [Expand(parent=parent, n=self._children, until="step" if self._rounds_left else "end")]


@dataclass(frozen=True, kw_only=True)
class DVTS(StepSearch):
    """Independent greedy searches side by side; score-weighted vote over the solutions of all of them.

    Args:
        width: steps sampled at a time (N), a multiple of `children`; there are width / children subtrees.
        children: candidates for the next step of a subtree (M), one of which is kept; with 1 the subtrees are
            independent samples.
        aggregate: how the step rewards of a path become its score, for being kept and for its weight in the vote (last,
            min, prod, mean).
        max_depth: most rounds; 1 samples whole answers.
    """

    width: int = 16
    children: int = 4
    aggregate: Aggregation = "last"
    max_depth: int = 40

    def __post_init__(self) -> None:
        check(self, at_least_one=("width", "children", "max_step_tokens", "max_depth"))
        if self.width % self.children:
            raise ValueError(f"width must be a multiple of children ({self.children}), not {self.width}")

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        """All subtrees at once; only the candidates of one subtree wait for each other."""
        subtrees = range(self.width // self.children)
        await search(
            Lanes([Subtree(self.children, self.aggregate, max_rounds=self.max_depth) for _ in subtrees]),
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
