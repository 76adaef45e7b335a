"""One loop for every step-level search: expand, score, decide, until nothing is left to expand.

A method is a synchronous, deterministic `Policy`; `search` drives it and owns all waiting, batching and failure. Two
adapters turn a formula into a policy: `Rounds` (a population that moves level by level) and `Pull` (an open list, any
state of which may be next). `Lanes` runs independent policies side by side.

What a lane asks for at once is one batch: its steps are sampled together and scored together, and only then does the
policy hear of them. So results depend neither on the order of arrival nor on other lanes, except where a budget runs
out between lanes: then what is left goes to whoever asks first. Every child that was asked for is answered by exactly
one event, also when it failed or the budget refused it; a policy that is told of failures only ends by itself.

A step ends with the delimiter, which stays in its text, or is cut at its token cap and can still be continued. In a
delimiter, "{step}" stands for the number of the step that comes next, for models that number their steps. A path is
finished when the model ended it; when it has `sampling.max_tokens` tokens or a step came back empty it is finished
too, but has no answer. A missing score is reported as missing: the methods rank it as 0 or last, votes give it no
weight, and where no answer has a score the vote is a plain majority.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from outthink.answers.steps import end_of_step
from outthink.errors import BudgetExhausted, EngineError, NothingCameBack, PromptTooLong
from outthink.maths import selection
from outthink.maths.selection import Aggregation
from outthink.model import Draw, Model
from outthink.resources.embedding import Embedder
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.together import away, turn
from outthink.types import Address, Candidate, Problem

_GROW, _NODE = 400, 2  # microseconds that a decision of a policy takes, and each node that it or a report looks at


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Node:
    """A candidate in its tree, scored.

    Args:
        parent: the node whose text it continues; None for a first step.
        score: of its last step, in [0, 1]; None where it is missing.
        length: completion tokens of the whole path.
        finished: it cannot be continued; it has an answer only where `candidate.key` says so.
        depth: steps of the path.
        vector: (d,) embedding of its text, where the search has an embedder and it is not finished; else None.
    """

    candidate: Candidate
    parent: Node | None = None
    score: float | None = None
    length: int = 0
    finished: bool = False
    depth: int = 1
    vector: NDArray[np.float64] | None = None

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
        aside: a peek, which is scored and paid for like others, but is never an answer.
        lane: the independent part of the search it belongs to.
    """

    parent: Node | None = None
    n: int = 1
    until: Literal["step", "end"] = "step"
    temperature: float | None = None
    aside: bool = False
    lane: Address = ()


@dataclass(frozen=True, slots=True)
class Grown:
    """One child came back."""

    expand: Expand
    node: Node


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """One child failed or did not fit into the budget; the trace says why."""

    expand: Expand


Event = Grown | ChildFailed


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


class SearchPolicy(Protocol):
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


@dataclass(frozen=True, slots=True)
class Level:
    """What a population method decides about, once a round.

    Args:
        nodes: the k candidates for children, at least one.
        width: children to share out.
        round: how many rounds have been grown, from 1.
        view: randomness of the lane.
    """

    nodes: Sequence[Node]
    width: int
    round: int
    view: View

    @property
    def scores(self) -> NDArray[np.float64]:
        """(k,) scores, 0 where one is missing."""
        return np.array([node.rank for node in self.nodes])


Allot = Callable[[Level], NDArray[np.int64]]
"""A level -> children (k,) of its nodes; their sum is the width, or less where the method wants fewer."""


class Rounds:
    """A population: each round every node gets some children, and those that get none are dropped, unless they wait.

    Unless failures intervene, as many children are grown each round as the population is wide. What becomes of nodes
    that finish is the method's choice:

    - "shrink": they leave the population and take their place with them, so after every round the number finished
      plus the width is the initial width, and exactly that many paths finish.
    - "refill": they leave it, and their place is given to the open ones; the search ends when as many have finished
      as the population is wide.
    - "compete": they stay in it as they are, and are dropped or copied like the others, without being grown; the
      search ends when all of the population is finished. `finished` keeps those that were dropped.

    Args:
        allot: shares out the children of a level.
        width: size of the population (N); at least 1.
        max_rounds: most rounds; in the last one every open path is sampled to its end.
        waits: open nodes that get no children are nodes of the next level again, before those that have just grown.
    """

    def __init__(
        self,
        allot: Allot,
        width: int,
        *,
        max_rounds: int,
        finishing: Literal["shrink", "refill", "compete"] = "shrink",
        waits: bool = False,
    ) -> None:
        self.finished: list[Node] = []
        self.width = width
        self.population: list[Node] = []
        """The nodes of the last level, a multiset; in the end what was drawn of them, if all of it is finished."""
        self._allot = allot
        self._max_rounds = max_rounds
        self._finishing = finishing
        self._waits = waits
        self._waiting: list[Node] = []
        self._round = 0
        self._frozen: list[Node] = []

    def start(self, view: View) -> list[Expand]:
        """N first steps."""
        return self._grown([None], [self.width])

    def grow(self, view: View, events: Sequence[Event]) -> list[Expand]:
        """The next round; a batch is a whole round."""
        nodes = [event.node for event in events if isinstance(event, Grown)]
        ended = [node for node in nodes if node.finished]
        self.finished += ended
        self.population = nodes + self._frozen
        pool = self._waiting + [node for node in nodes if not node.finished]
        if self._finishing == "shrink":
            self.width -= len(ended)
        elif self._finishing == "refill" and len(self.finished) >= self.width:
            pool = []
        if not pool:
            return []
        if self._finishing == "compete":
            pool = self.population
        counts = self._allot(Level(pool, self.width, self._round, view))
        if self._waits:
            self._waiting = [node for node, n in zip(pool, counts, strict=True) if not n]
        self._frozen = [node for node, n in zip(pool, counts, strict=True) if node.finished for _ in range(n)]
        children = [(node, int(n)) for node, n in zip(pool, counts, strict=True) if n and not node.finished]
        if self._frozen and not children:  # only finished ones were drawn
            self.population = self._frozen
        return self._grown([node for node, _ in children], [n for _, n in children])

    def _grown(self, pool: Sequence[Node | None], counts: Sequence[int]) -> list[Expand]:
        self._round += 1
        until: Literal["step", "end"] = "step" if self._round < self._max_rounds else "end"
        return [Expand(parent=node, n=n, until=until) for node, n in zip(pool, counts, strict=True)]


class Pull:
    """An open list: up to `par` nodes are expanded at a time, and re-ranked when all of their children are back.

    So with par > 1 the list is ranked once a batch, not at every arrival. Batches are fewer and larger, and the result
    does not depend on timing. The price is some expansions that a strictly sequential search would not have made.
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

    def __init__(self, policies: Sequence[SearchPolicy]) -> None:
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
    policy: SearchPolicy,
    problem: Problem,
    report: Report,
    *,
    model: Model,
    prm: Scores,
    rng: Rng,
    max_step_tokens: int,
    delimiter: str,
    aggregate: Aggregation = "last",
    choose: Literal["vote", "best"] = "vote",
    lookahead: int = 0,
    embedder: Embedder | None = None,
    embed: Literal["step", "path"] = "step",
    logprobs: bool = False,
    looks_at: int = 0,
) -> None:
    """Drive `policy` to its end; whenever its finished nodes change, report what they answer.

    Args:
        max_step_tokens: most completion tokens of one step.
        delimiter: ends a step.
        aggregate: how the step scores of a path become its weight.
        choose: the answer is the score-weighted "vote" of the finished paths, or that of the "best" one.
        lookahead: a node's score is that of the path that greedy decoding makes of it within so many further steps,
            which are thrown away.
        embedder: gives open nodes their vectors; None: they have none.
        embed: what is embedded, the last step or the whole text so far.
        logprobs: the method reads token logprobs.
        looks_at: how many nodes it may look at between two batches, where these are more than all pairs of new ones.

    Raises NothingCameBack where a batch failed and nothing was ever finished, and EngineError on a score outside
    [0, 1].
    """
    view = View(rng)
    reported: list[Node] = []
    lost: NothingCameBack | None = None
    limits = _Limits(model.sampling.cap, max_step_tokens, delimiter, logprobs)

    weights: dict[Node, float] = {}  # of those that are finished

    def tell() -> None:
        nonlocal reported
        finished = list(policy.finished)
        if finished != reported:
            reported = finished
            weights.update((node, _weight(node, aggregate)) for node in finished if node not in weights)
            _report(report, finished, np.array([weights[node] for node in finished]), choose)

    async def advance(lane: Address, batch: list[Expand]) -> None:
        nonlocal lost
        here = model.lane(*lane)
        while batch:
            children: list[list[Candidate]] = [[] for _ in batch]
            # what is thrown away changes no address, and so no randomness, of what is kept
            source = here.lane("peek") if all(expand.aside for expand in batch) else here
            try:
                children = await source.sample_each(problem, [limits.draw(expand) for expand in batch])
            except NothingCameBack as failure:
                lost = failure
            except BudgetExhausted:
                pass
            nodes = [
                limits.node(expand, child) for expand, group in zip(batch, children, strict=True) for child in group
            ]
            try:
                ends = await _peeked(here, problem, nodes, limits, lookahead) if lookahead else nodes
                scores = await _scores(prm, problem, [end.candidate for end in ends])
                nodes = [replace(node, score=score) for node, score in zip(nodes, scores, strict=True)]
                if embedder is not None:
                    nodes = await _embedded(embedder, model, nodes, embed)
                await turn(_GROW + _NODE * (len(nodes) + len(reported)))
            except BaseException:
                # also when it is cancelled while it scores: what was sampled is paid for and can answer
                policy.grow(view, _events(batch, children, nodes, going_on=False))
                raise
            # a formula may look at all pairs of nodes
            batch = await away(max(len(nodes) ** 2, looks_at), policy.grow, view, _events(batch, children, nodes))
            tell()

    batches: dict[Address, list[Expand]] = {}
    for expand in policy.start(view):
        batches.setdefault(expand.lane, []).append(expand)
    try:
        async with asyncio.TaskGroup() as tasks:
            for lane, batch in batches.items():
                tasks.create_task(advance(lane, batch))
    finally:
        tell()
    if lost is not None and not reported:
        raise lost


@dataclass(frozen=True, slots=True)
class _Limits:
    """What ends a step, and a path."""

    max_tokens: int
    max_step_tokens: int
    delimiter: str
    logprobs: bool

    def draw(self, expand: Expand) -> Draw:
        parent, step = expand.parent, expand.until == "step"
        left = self.max_tokens - (parent.length if parent else 0)
        return Draw(
            n=expand.n,
            after=parent.candidate if parent else None,
            stop=(end_of_step(self.delimiter, _whole_steps(parent)),) if step else (),
            step=step,
            max_tokens=min(left, self.max_step_tokens) if step else left,
            temperature=expand.temperature,
            logprobs=self.logprobs,
            aside=expand.aside,
        )

    def node(self, expand: Expand, child: Candidate) -> Node:
        """The child in its tree, not scored yet."""
        length = (expand.parent.length if expand.parent else 0) + child.tokens
        ended = child.complete or length >= self.max_tokens or not child.text or expand.until == "end"
        depth = expand.parent.depth + 1 if expand.parent else 1
        return Node(candidate=child, parent=expand.parent, length=length, finished=ended, depth=depth)


def _whole_steps(node: Node | None) -> int:
    """Steps of the path that ended with the delimiter; one that was cut at its cap goes on in the next node."""
    return sum(step.candidate.finish == "stop" for step in node.path) if node else 0


async def _peeked(model: Model, problem: Problem, nodes: Sequence[Node], limits: _Limits, steps: int) -> list[Node]:
    """Where greedy decoding takes each node within so many steps; what the budget or a failure cuts ends earlier."""
    ends = list(nodes)
    model = model.lane("peek")  # so that what is thrown away changes no address, and so no randomness, of what is kept
    for _ in range(steps):
        going = [place for place, end in enumerate(ends) if not end.finished]
        wishes = [Expand(parent=ends[place], temperature=0.0, aside=True) for place in going]
        if not wishes:
            break
        try:
            drawn = await model.sample_each(problem, [limits.draw(wish) for wish in wishes])
        except (BudgetExhausted, NothingCameBack, PromptTooLong):
            break
        for place, wish, children in zip(going, wishes, drawn, strict=True):
            for child in children:
                end = limits.node(wish, child)
                ends[place] = replace(end, finished=end.finished or child.finish == "eos")
            if not children:
                ends[place] = replace(ends[place], finished=True)
    return ends


async def _scores(prm: Scores, problem: Problem, children: Sequence[Candidate]) -> Sequence[float | None]:
    """One score per child; raises EngineError on one that is no process reward."""
    scores = await prm.attempt(problem, children)
    for score in scores:
        if score is not None and not 0 <= score <= 1:
            raise EngineError(
                f"Search needs process rewards in [0, 1], and one is {score:.6g}: "
                "map them by a sigmoid or a fixed range first."
            )
    return scores


async def _embedded(embedder: Embedder, model: Model, nodes: Sequence[Node], what: str) -> list[Node]:
    """The open nodes with their vectors, or without where the embedder could not be paid for or failed."""
    going = [node for node in nodes if not node.finished]
    texts = [node.candidate.text if what == "step" else model.text(node.candidate) for node in going]
    try:
        vectors = iter(await embedder.embed(texts) if texts else ())
    except (BudgetExhausted, NothingCameBack):
        return list(nodes)
    return [node if node.finished else replace(node, vector=next(vectors)) for node in nodes]


def _events(
    batch: Sequence[Expand],
    children: Sequence[Sequence[Candidate]],
    nodes: Sequence[Node],
    *,
    going_on: bool = True,
) -> list[Event]:
    """One event per child that was asked for: those that came back in the order of their addresses, then failures.

    Where the search does not go on, only those that are finished count as grown.
    """
    events: list[Event] = []
    grown = iter(nodes)
    for expand, group in zip(batch, children, strict=True):
        came = [node for _, node in zip(group, grown, strict=False) if going_on or node.finished]
        events += [Grown(expand, node) for node in came]
        events += [ChildFailed(expand)] * (expand.n - len(came))
    return events


def _weight(node: Node, rule: Aggregation) -> float:
    """The step scores of a path as its weight; NaN where it is missing."""
    return float(selection.aggregate(selection.numbers([step.score for step in node.path]), rule))


def _report(
    report: Report, finished: Sequence[Node], weights: NDArray[np.float64], choose: Literal["vote", "best"]
) -> None:
    keys = selection.codes([node.candidate.key for node in finished])
    missing = np.isnan(weights)
    unscored = missing[keys >= 0].all()
    select = selection.best_of if choose == "best" and not unscored else selection.weighted_vote
    choice = select(keys, np.ones(len(finished)) if unscored else weights, lengths=[node.length for node in finished])
    index = int(choice.index)
    report(
        [node.candidate for node in finished],
        chosen=finished[index].candidate if index >= 0 else None,
        scores=[None if gone else float(weight) for gone, weight in zip(missing, weights, strict=True)],
        confidence=float(choice.share),
    )
