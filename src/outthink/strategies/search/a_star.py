"""A*-decoding: best-first search over partial solutions by f = g + h, with h = 1 - process reward.

Source: A*-Decoding: Token-Efficient Inference Scaling (arXiv 2505.13672); only its abstract and secondary summaries
were read, so everything but f = g + h and h = 1 - reward is provisional. Ours: the first step is not charged; ties go
to the smaller h, then the deeper, then the older state; states with equal texts are kept once; a path that ended
without a readable answer is no goal; and the defaults.

Pays: with a process reward that can be trusted. An over-confident one makes it dive; one that sinks as texts grow
makes it spend all its calls on breadth.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.search.loop import ChildFailed, Event, Expand, Node, Pull, View, search
from outthink.strategies.search.step_search import StepSearch
from outthink.types import Problem

Scope = Literal["open", "children"]
Cost = Literal["rise", "fall"]


def path_costs(rewards: ArrayLike, cost: Cost = "rise") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """g and h of every state along a path; f is their sum.

    Args:
        rewards: (..., t) process rewards of the steps of a path, in [0, 1].
        cost: "rise" charges max(0, h' - h) for a step, as the summaries say: a regression penalty, under which f may
            fall and A*'s guarantee does not hold. "fall" charges max(0, h - h'): then h is consistent and f never
            falls along a path.

    Returns:
        g (..., t), at least 0 and never falling along a path, and h (..., t) in [0, 1].
    """
    h = 1.0 - np.asarray(rewards, dtype=np.float64)
    changes = np.diff(h, axis=-1, prepend=h[..., :1])
    return np.cumsum(np.maximum(changes if cost == "rise" else -changes, 0.0), axis=-1), h


class OpenStates:
    """The open list of A*: pops the state with the least f, and pushes its k children."""

    def __init__(self, k: int, *, scope: Scope, cost: Cost, max_calls: int, first_goal: bool) -> None:
        self._k = k
        self._scope = scope
        self._cost = cost
        self._calls_left = max_calls
        self._first_goal = first_goal
        self._open: list[tuple[float, float, int, int, Node | None]] = [(0.0, 0.0, 0, 0, None)]  # the question
        self._pushed = 0
        self._waiting = 0
        self._ended: list[Node] = []
        self._goal: Node | None = None
        self._completed = False
        self._seen: set[tuple[Node | None, str, bool]] = set()

    @property
    def finished(self) -> Sequence[Node]:
        """The goal that was popped; until then, and where all are wanted, every path that ended."""
        return self._ended if self._goal is None else [self._goal]

    def ask(self, view: View) -> Expand | None:
        """Pop the best state; a goal ends the search, if it is still the best when nothing is awaited."""
        if not self._open:
            return None
        best = self._open[0][-1]
        if best is not None and best.finished:
            self._goal = None if self._waiting else best
            return None
        if self._calls_left:
            heapq.heappop(self._open)
            if self._scope == "children":
                self._open.clear()
            n = min(self._k, self._calls_left)
            self._calls_left -= n
            self._waiting += n
            return Expand(parent=best, n=n)
        if self._waiting or self._completed or any(node.candidate.key is not None for node in self._ended):
            return None
        self._completed = True
        self._waiting += 1
        return Expand(parent=best, until="end", temperature=0.0)

    def tell(self, view: View, event: Event) -> None:
        """Push the child, unless it can be neither continued nor a goal."""
        self._waiting -= 1
        if isinstance(event, ChildFailed):
            return
        node = event.node
        if node.finished:
            self._ended.append(node)
            if not self._first_goal or node.candidate.key is None:
                return
        known = (node.parent, node.candidate.text, node.finished)
        if known in self._seen:
            return
        self._seen.add(known)
        path = node.path
        g, h = path_costs([step.rank for step in path], self._cost)
        self._pushed += 1
        heapq.heappush(self._open, (float(g[-1] + h[-1]), float(h[-1]), -len(path), self._pushed, node))


@dataclass(frozen=True, kw_only=True)
class AStar(StepSearch):
    """Best-first search for the first goal; where none is popped, score-weighted vote over the answers there are.

    If the calls run out before there is any answer, the best open state is completed greedily, at its usual cost.

    Args:
        k: steps sampled from a popped state.
        scope: "open" pops the best of all open states, "children" the best child of the last one (greedy descent).
        cost: what a step adds to g: the "rise" of h, or its "fall" (see `path_costs`).
        max_calls: most steps sampled (and so scored) in all; the greedy completion comes on top.
        par: states popped at a time; more than 1 saves waiting and costs extra steps.
        first_goal: end with the first goal popped; False spends all calls and votes over every goal found.
    """

    k: int = 4
    scope: Scope = "open"
    cost: Cost = "rise"
    max_calls: int = 64
    par: int = 1
    first_goal: bool = True

    def __post_init__(self) -> None:
        check(self, at_least_one=("k", "max_calls", "par", "max_step_tokens"))

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        """One batch of up to par x k steps at a time."""
        states = OpenStates(
            self.k, scope=self.scope, cost=self.cost, max_calls=self.max_calls, first_goal=self.first_goal
        )
        await search(
            Pull(states, par=self.par),
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=self.max_step_tokens,
            delimiter=self.delimiter,
            choose=self.choose,
        )
