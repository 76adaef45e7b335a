"""One loop for every step-level search: expand, score, decide, until nothing is left to expand.

A method is a synchronous, deterministic `Policy`; `search` drives it and owns all waiting, batching and failure. Two
adapters turn a formula into a policy: `Rounds` (a population that moves level by level) and `Pull` (an open list, any
state of which may be next). `Lanes` runs independent policies side by side.

What a lane asks for at once is one batch: its steps are sampled together and scored together, and only then does the
policy hear of them. So results depend neither on the order of arrival nor on other lanes, except where a budget runs
out between lanes: then what is left goes to whoever asks first. Every child that was asked for is answered by exactly
one event, also when it failed or the budget refused it; a policy that is told of failures only ends by itself.

A step ends with the delimiter, which stays in its text, or is cut at its token cap and can still be continued. A path
is finished when the model ended it; when it has `sampling.max_tokens` tokens or a step came back empty it is finished
too, but has no answer. A missing score is reported as missing: the methods rank it as 0, votes give it no weight, and
where no answer has a score the vote is a plain majority.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from outthink import selection
from outthink.errors import BudgetExhausted, EngineError, NothingCameBack
from outthink.model import Draw, Model
from outthink.rewards import Scores
from outthink.rng import Rng
from outthink.selection import Aggregation
from outthink.strategies import Report
from outthink.types import Address, Candidate, Problem


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Node:
    """A candidate in its tree, scored.

    Args:
        parent: the node whose text it continues; None for a first step.
        score: of its last step, in [0, 1]; None where it is missing.
        length: completion tokens of the whole path.
        finished: it cannot be continued; it has an answer only where `candidate.key` says so.
    """

    candidate: Candidate
    parent: Node | None = None
    score: float | None = None
    length: int = 0
    finished: bool = False

    @property
    def rank(self) -> float:
        """The score, 0 where it is missing."""
        return 0.0 if self.score is None else self.score

    @property
    def path(self) -> list[Node]:
        """The nodes from the first step to this one."""
        nodes = [self]
        while nodes[-1].parent is not None:
            nodes.append(nodes[-1].parent)
        return nodes[::-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expand:
    """A policy's wish for n children of one node.

    Args:
        parent: the node to continue; None starts at the question.
        n: at least 1.
        until: sample one "step", or all the way to the "end" of the answer.
        temperature: None is the run's own.
        lane: the independent part of the search it belongs to.
    """

    parent: Node | None = None
    n: int = 1
    until: Literal["step", "end"] = "step"
    temperature: float | None = None
    lane: Address = ()


@dataclass(frozen=True, slots=True)
class Grown:
    """One child came back."""

    expand: Expand
    node: Node


@dataclass(frozen=True, slots=True)
class Failed:
    """One child failed or did not fit into the budget; the trace says why."""

    expand: Expand


Event = Grown | Failed


@dataclass(frozen=True, slots=True)
class View:
    """What a policy may use beside its events: randomness that belongs to its lane alone."""

    rng: Rng
    lane: Address = ()

    def at(self, *path: str | int) -> np.random.Generator:
        """A fresh generator for this path within the lane; asking twice gives the same numbers twice."""
        return self.rng.at("search", *self.lane, *path)

    def inside(self, lane: str | int) -> View:
        """The view of a lane within this one."""
        return replace(self, lane=(*self.lane, lane))


class Policy(Protocol):
    """A search method: synchronous, without I/O, and deterministic given its events and its view."""

    @property
    def finished(self) -> Sequence[Node]:
        """The finished nodes it would choose among now, in a deterministic order."""

    def start(self, view: View) -> list[Expand]:
        """The first wishes."""

    def grow(self, view: View, events: Sequence[Event]) -> list[Expand]:
        """The wishes that follow from a batch of one lane, for the same lane; none ends the lane."""


class OpenList(Protocol):
    """What `Pull` needs of a method."""

    @property
    def finished(self) -> Sequence[Node]:
        """As in `Policy`."""

    def ask(self, view: View) -> Expand | None:
        """The next node to expand, taken off the list; None: nothing sensible now."""

    def tell(self, view: View, event: Event) -> None:
        """One child of an earlier `ask`."""


class Rounds:
    """A population: each round every open node gets some children, and the others are dropped for good.

    Finished nodes leave the population and take their place with them, so after every round the number finished plus
    the width is the initial width, and exactly that many answers come out unless children fail.

    Args:
        counts: (scores (k,), width) -> children (k,) of the k open nodes, summing to the width.
        width: size of the population (N); at least 1.
        max_rounds: most rounds; in the last one every open path is sampled to its end.
    """

    def __init__(
        self, counts: Callable[[NDArray[np.float64], int], NDArray[np.int64]], width: int, *, max_rounds: int
    ) -> None:
        self.finished: list[Node] = []
        self.width = width
        self._counts = counts
        self._rounds_left = max_rounds

    def start(self, view: View) -> list[Expand]:
        """N first steps."""
        return self._round([None], [self.width])

    def grow(self, view: View, events: Sequence[Event]) -> list[Expand]:
        """The next round; a batch is a whole round."""
        nodes = [event.node for event in events if isinstance(event, Grown)]
        ended = [node for node in nodes if node.finished]
        self.finished += ended
        self.width -= len(ended)
        pool = [node for node in nodes if not node.finished]
        if not pool:
            return []
        return self._round(pool, self._counts(np.array([node.rank for node in pool]), self.width))

    def _round(self, pool: Sequence[Node | None], counts: Sequence[int] | NDArray[np.int64]) -> list[Expand]:
        self._rounds_left -= 1
        until: Literal["step", "end"] = "step" if self._rounds_left else "end"
        children = zip(pool, counts, strict=True)
        return [Expand(parent=node, n=int(n), until=until) for node, n in children if n]


class Pull:
    """An open list: up to `par` nodes are expanded at a time, and re-ranked when all of their children are back.

    So with par > 1 the list is ranked once a batch, not at every arrival: that buys fewer, larger batches for some
    expansions that a strictly sequential search would not have made, and keeps the result independent of timing.
    """

    def __init__(self, method: OpenList, *, par: int = 1) -> None:
        self._method = method
        self._par = par

    @property
    def finished(self) -> Sequence[Node]:
        """The method's."""
        return self._method.finished

    def start(self, view: View) -> list[Expand]:
        """The first batch."""
        batch: list[Expand] = []
        while len(batch) < self._par and (expand := self._method.ask(view)) is not None:
            batch.append(expand)
        return batch

    def grow(self, view: View, events: Sequence[Event]) -> list[Expand]:
        """The next batch."""
        for event in events:
            self._method.tell(view, event)
        return self.start(view)


class Lanes:
    """Independent searches without a common barrier, each with its own addresses and randomness.

    Adding a lane changes nothing in the others.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies

    @property
    def finished(self) -> Sequence[Node]:
        """Those of all lanes, lane by lane."""
        return [node for policy in self._policies for node in policy.finished]

    def start(self, view: View) -> list[Expand]:
        """The first wishes of every lane."""
        return [
            replace(expand, lane=(lane, *expand.lane))
            for lane, policy in enumerate(self._policies)
            for expand in policy.start(view.inside(lane))
        ]

    def grow(self, view: View, events: Sequence[Event]) -> list[Expand]:
        """The next wishes of the lane that the events belong to."""
        lane = int(events[0].expand.lane[0])
        inner = [replace(event, expand=replace(event.expand, lane=event.expand.lane[1:])) for event in events]
        wishes = self._policies[lane].grow(view.inside(lane), inner)
        return [replace(expand, lane=(lane, *expand.lane)) for expand in wishes]


async def search(
    policy: Policy,
    problem: Problem,
    report: Report,
    *,
    model: Model,
    prm: Scores,
    rng: Rng,
    max_step_tokens: int,
    delimiter: str,
    aggregate: Aggregation = "last",
) -> None:
    """Drive `policy` to its end; whenever its finished nodes change, report their score-weighted vote.

    Args:
        max_step_tokens: most completion tokens of one step.
        delimiter: ends a step.
        aggregate: how the step scores of a path become its weight in the vote.

    Raises NothingCameBack where a batch failed and nothing was ever finished, and EngineError on a score outside
    [0, 1].
    """
    view = View(rng)
    reported: Sequence[Node] = []
    lost: NothingCameBack | None = None

    async def advance(lane: Address, batch: list[Expand]) -> None:
        nonlocal reported, lost
        here = model.lane(*lane)
        while batch:
            draws = [_draw(expand, model.sampling.max_tokens, max_step_tokens, delimiter) for expand in batch]
            children: list[list[Candidate]] = [[] for _ in batch]
            try:
                children = await here.sample_each(problem, draws)
            except NothingCameBack as failure:
                lost = failure
            except BudgetExhausted:
                pass
            scores: tuple[float | None, ...] = ()
            try:
                scores = await _scores(prm, problem, [child for group in children for child in group])
            finally:
                # also when it is cancelled while it scores: what was sampled is paid for and can answer
                batch = policy.grow(view, _events(batch, children, scores, model.sampling.max_tokens))
                if list(policy.finished) != list(reported):
                    reported = list(policy.finished)
                    _report_vote(report, reported, aggregate)

    batches: dict[Address, list[Expand]] = {}
    for expand in policy.start(view):
        batches.setdefault(expand.lane, []).append(expand)
    async with asyncio.TaskGroup() as tasks:
        for lane, batch in batches.items():
            tasks.create_task(advance(lane, batch))
    if lost is not None and not reported:
        raise lost


def _draw(expand: Expand, max_tokens: int, max_step_tokens: int, delimiter: str) -> Draw:
    parent, step = expand.parent, expand.until == "step"
    left = max_tokens - (parent.length if parent else 0)
    return Draw(
        n=expand.n,
        after=parent.candidate if parent else None,
        stop=(delimiter,) if step else (),
        step=step,
        max_tokens=min(left, max_step_tokens) if step else left,
        temperature=expand.temperature,
    )


async def _scores(prm: Scores, problem: Problem, children: Sequence[Candidate]) -> tuple[float | None, ...]:
    """One score per child; none at all where the scorer could not be paid for or failed as a whole."""
    try:
        scores = await prm.score(problem, children)
    except (BudgetExhausted, NothingCameBack):
        return ()
    for score in scores:
        if score is not None and not 0 <= score <= 1:
            raise EngineError(
                f"Search needs process rewards in [0, 1], and one is {score:.6g}: "
                "map them by a sigmoid or a fixed range first."
            )
    return scores


def _events(
    batch: Sequence[Expand], children: Sequence[Sequence[Candidate]], scores: Sequence[float | None], max_tokens: int
) -> list[Event]:
    """One event per child that was asked for: those that came back in the order of their addresses, then failures."""
    events: list[Event] = []
    score = iter(scores)
    for expand, group in zip(batch, children, strict=True):
        before = expand.parent.length if expand.parent else 0
        for child in group:
            length = before + child.tokens
            finished = child.complete or length >= max_tokens or not child.text or expand.until == "end"
            node = Node(
                candidate=child, parent=expand.parent, score=next(score, None), length=length, finished=finished
            )
            events.append(Grown(expand, node))
        events += [Failed(expand)] * (expand.n - len(group))
    return events


def _report_vote(report: Report, finished: Sequence[Node], rule: Aggregation) -> None:
    steps = [selection.numbers([step.score for step in node.path]) for node in finished]
    weights = np.array([float(selection.aggregate(scores, rule)) for scores in steps])
    keys = selection.codes([node.candidate.key for node in finished])
    missing = np.isnan(weights)
    choice = selection.weighted_vote(
        keys,
        np.ones(len(finished)) if missing[keys >= 0].all() else weights,
        lengths=[node.length for node in finished],
    )
    index = int(choice.index)
    report(
        [node.candidate for node in finished],
        chosen=finished[index].candidate if index >= 0 else None,
        scores=[None if gone else float(weight) for gone, weight in zip(missing, weights, strict=True)],
        confidence=float(choice.share),
    )
