"""Monte Carlo tree search over steps: expands the leaf with the best mean reward plus a bonus for few visits.

Source: UCT and PUCT over reasoning steps as in OpenR, LLM Reasoners, MedSSS and TreeQuest, read in their released code;
R2-LLMs (arXiv 2507.05557), of which only the abstract was read. Differs: every new step backs its own process reward
up, so no child is ever unvisited; OpenR backs up ended paths only. A path that has ended is not visited again. Siblings
with equal texts are one child with as many visits. The retrieval of R2-LLMs is left out.

Pays: where a search must be able to return to any open state. Set c on the scale of the rewards: where they lie close
together, c = 1 is nearly breadth-first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.resampling import softmax
from outthink.maths.selection import first_by
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.search.loop import ChildFailed, Event, Expand, Node, Pull, View, search
from outthink.strategies.search.step_search import StepSearch
from outthink.types import Problem

Rule = Literal["uct", "puct"]
Priors = Literal["uniform", "logprobs"]
Floats = NDArray[np.float64]


def uct(means: ArrayLike, visits: ArrayLike, parent_visits: ArrayLike, c: float = 1.0) -> Floats:
    """mean + c sqrt(ln N_parent / N), the value of each child.

    Args:
        means: (..., k) mean rewards (Q).
        visits: (..., k) at least 1 (N).
        parent_visits: (...) of the parent; below 1 it counts as 1.
        c: weight of the bonus, on the scale of the rewards.
    """
    q, n, n_parent = _floats(means), _floats(visits), _floats(parent_visits)[..., None]
    values: Floats = q + c * np.sqrt(np.log(np.maximum(n_parent, 1.0)) / n)
    return values


def puct(means: ArrayLike, visits: ArrayLike, parent_visits: ArrayLike, priors: ArrayLike, c: float = 1.0) -> Floats:
    """mean + c prior sqrt(N_parent) / (1 + N) (ln((N_parent + 19653) / 19652) + 1.25), the value of each child.

    Args:
        means, visits, priors: (..., k); the priors of siblings sum to 1.
        parent_visits: (...) of the parent.
        c: weight of the bonus; 1 is the formula of OpenR (and of AlphaZero).
    """
    q, n, n_parent = _floats(means), _floats(visits), _floats(parent_visits)[..., None]
    growth = np.log((n_parent + 19652 + 1) / 19652) + 1.25
    values: Floats = q + c * _floats(priors) * np.sqrt(n_parent) / (1.0 + n) * growth
    return values


def _floats(numbers: ArrayLike) -> Floats:
    return np.asarray(numbers, dtype=np.float64)


@dataclass(eq=False, slots=True)
class StepState:
    """A state of the tree, and what has been learnt about it.

    Args:
        node: the path up to here; None is the question.
        visits, total: how many rewards were backed up to it (N), and their sum (W); its own is one of them.
        virtual: visits without reward, one for each expansion under way here or below (the virtual loss).
        leaves: how many states here and below can be expanded now; where there are none, descents pass it by.
        awaited: children of its own that are under way.
        children: by text, and by whether the path ends there.
        drawn: the child that each step sampled here became, and the mean logprob of its tokens.
    """

    node: Node | None = None
    parent: StepState | None = None
    visits: int = 0
    total: float = 0.0
    virtual: int = 0
    leaves: int = 0
    awaited: int = 0
    children: dict[tuple[str, bool], StepState] = field(default_factory=dict)
    drawn: list[tuple[StepState, float | None]] = field(default_factory=list)

    @property
    def path(self) -> list[StepState]:
        """The states from this one up to the question."""
        states = [self]
        while states[-1].parent is not None:
            states.append(states[-1].parent)
        return states


class StepTree:
    """The open list of MCTS: hands out the leaf that a descent from the question reaches."""

    def __init__(self, b: int, *, rule: Rule, c: float, priors: Priors, max_calls: int) -> None:
        self.root = StepState(leaves=1)
        self.finished: list[Node] = []
        self._b = b
        self._rule = rule
        self._c = c
        self._priors = priors
        self._calls_left = max_calls
        self._completed = False
        self._states: dict[Node | None, StepState] = {None: self.root}

    def ask(self, view: View) -> Expand | None:
        """Expand the leaf of the best descent; out of calls and without an answer, complete the one of best mean."""
        if not self.root.leaves:
            return None
        if self._calls_left:
            n = min(self._b, self._calls_left)
            self._calls_left -= n
            return Expand(parent=self._handed_out(self._c, n), n=n)
        if self.root.virtual or self._completed or any(node.candidate.key is not None for node in self.finished):
            return None
        self._completed = True
        return Expand(parent=self._handed_out(0.0, 1), until="end", temperature=0.0)

    def tell(self, view: View, event: Event) -> None:
        """Back the reward of a child up; with the last child of an expansion its virtual loss goes."""
        leaf = self._states[event.expand.parent]
        leaf.awaited -= 1
        if not leaf.awaited:
            for state in leaf.path:
                state.virtual -= 1
        if isinstance(event, ChildFailed):
            return
        node = event.node
        known = (node.candidate.text, node.finished)
        if known not in leaf.children:
            leaf.children[known] = self._states[node] = StepState(node=node, parent=leaf)
            if node.finished:
                self.finished.append(node)
            else:
                for state in leaf.children[known].path:
                    state.leaves += 1
        child = leaf.children[known]
        leaf.drawn.append((child, _mean(node.candidate.logprobs)))
        for state in child.path:
            state.visits += 1
            state.total += node.rank

    def _handed_out(self, c: float, n: int) -> Node | None:
        """Descend to a leaf, which nobody else gets from now on, and lend its path a visit without reward."""
        leaf = self.root
        while leaf.children:
            leaf = self._best(leaf, c)
        leaf.awaited = n
        for state in leaf.path:
            state.leaves -= 1
            state.virtual += 1
        return leaf.node

    def _best(self, parent: StepState, c: float) -> StepState:
        """The child of the largest value among those with a leaf; ties go to the higher reward, then the older."""
        children = list(parent.children.values())
        visits = np.array([child.visits + child.virtual for child in children])
        means = np.array([child.total for child in children]) / visits
        above = parent.visits + parent.virtual
        if self._rule == "uct":
            values = uct(means, visits, above, c)
        else:
            values = puct(means, visits, above, self._prior(parent), c)
        rewards = [child.node.rank if child.node else 0.0 for child in children]
        return children[int(first_by([child.leaves > 0 for child in children], values, rewards))]

    def _prior(self, parent: StepState) -> Floats:
        """(k,) of its children: softmax of the mean logprobs where all have one, else equal; equal texts add up."""
        logprobs = [logprob for _, logprob in parent.drawn if logprob is not None]
        known = self._priors == "logprobs" and len(logprobs) == len(parent.drawn)
        shares = softmax(logprobs if known else np.zeros(len(parent.drawn)))
        return np.array(
            [
                sum(share for (child, _), share in zip(parent.drawn, shares, strict=True) if child is one)
                for one in parent.children.values()
            ]
        )


def _mean(logprobs: tuple[float, ...] | None) -> float | None:
    return math.fsum(logprobs) / len(logprobs) if logprobs else None


@dataclass(frozen=True, kw_only=True)
class MCTS(StepSearch):
    """Tree search that discards nothing; score-weighted vote over all paths that ended.

    If the calls run out before there is any answer, the open state that a descent by the means alone reaches is
    completed greedily, at its usual cost.

    Args:
        b: steps sampled from a leaf.
        rule: "uct" or "puct".
        c: weight of the bonus for few visits, on the scale of the rewards: 0 follows the means alone. Where rewards lie
            close together, 1 grows the tree almost evenly, which takes very many calls to reach an answer; hence the
            small default.
        priors: of "puct": "uniform", or "logprobs" for the softmax of the mean logprobs of sibling steps (uniform where
            samples carry none).
        max_calls: most steps sampled (and so scored) in all; the greedy completion comes on top.
        par: leaves expanded at a time; more than 1 saves waiting, and virtual losses keep them apart.
    """

    b: int = 4
    rule: Rule = "uct"
    c: float = 0.03
    priors: Priors = "uniform"
    max_calls: int = 128
    par: int = 1

    def __post_init__(self) -> None:
        check(self, at_least_one=("b", "max_calls", "par", "max_step_tokens"), at_least_zero=("c",))

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        """One batch of up to par x b steps at a time."""
        tree = StepTree(self.b, rule=self.rule, c=self.c, priors=self.priors, max_calls=self.max_calls)
        await search(
            Pull(tree, par=self.par),
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=self.max_step_tokens,
            delimiter=self.delimiter,
            logprobs=self.priors == "logprobs" and "logprobs" in model.powers,
            choose=self.choose,
        )
