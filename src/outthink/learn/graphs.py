"""Spaces of graphs for `answer_graph`: which nodes read which, what each does and which model it asks, within a cap.

Source: "Generalizing Test-time Compute-optimal Scaling as an Optimizable Graph" (2511.00086), by notes on the authors'
code. Differs: prices of nodes are the power of three that is next to the size of their model, which are the source's
for its models; of a circle the edge that comes last is dropped, of several smallest models the last node; a node from
which no path leads to the end is not run; the end may be a vote, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from outthink.cost.flops import flops_of_node
from outthink.errors import UsageError
from outthink.learn.search import Point, SearchSpace
from outthink.models.engine import Shape
from outthink.strategies.collective.answer_nodes import CallNode, Nodes, checked_nodes, flops_of_nodes

MOST_GRAPH_NODES = 16
END = 0
"""Stands for the end of a graph among the numbers of nodes, which are from 1."""
TYPES = ("assistant", "fuser")
ENDS = ("fuser", "vote")
EDGE = -2.0
"""Log-odds of an edge: the sigmoid is .1192."""
_VARIANTS = 5  # of a mix
_MOST_MIXES = 20_000  # and what is not spent to the end


def node_price(size: float, least: float) -> int:
    """What a node of a model counts in a mix: 1, 3, 9, 27 ... by its size in sizes of the smallest model."""
    return int(3 ** max(0, round(math.log(size / least, 3))))


def mixes(prices: Sequence[int], nodes: int) -> list[tuple[int, ...]]:
    """How many nodes of each model, for all mixes that leave as little as possible of the price of so many.

    Args:
        prices: of a node of each model, the smallest first.
        nodes: of the smallest model, whose price is the budget.

    Raises UsageError where these are too many to choose from.
    """
    first, *others = prices
    budget = first * nodes
    made = list(itertools.islice(_counts(others, budget), _MOST_MIXES + 1))
    if len(made) > _MOST_MIXES:
        raise UsageError(
            f"{len(prices)} models and {nodes} nodes make more than {_MOST_MIXES:,} mixes: take fewer models or nodes."
        )
    some = [(left % first, (left // first, *counts)) for left, counts in made if left >= first or any(counts)]
    least = min(unspent for unspent, _ in some)
    return [counts for unspent, counts in some if unspent == least]


def _counts(prices: Sequence[int], budget: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """What is left of the budget, and how many of each are bought, for all ways to buy."""
    if not prices:
        yield budget, ()
        return
    for count in range(budget // prices[0] + 1):
        for left, further in _counts(prices[1:], budget - count * prices[0]):
            yield left, (count, *further)


def thinned(mix: Sequence[int]) -> list[tuple[int, ...]]:
    """The mix, and what is left of it without the weakest model's node, and again, while there is a node."""
    made = [tuple(mix)]
    while sum(made[-1]) > 1 and len(made) < _VARIANTS:
        weakest = next(place for place, count in enumerate(made[-1]) if count)
        made.append(tuple(count - (place == weakest) for place, count in enumerate(made[-1])))
    return made


def cap_of(nodes: int, least: Shape, end: Shape, task: int, answer: int) -> int:
    """The most operations of a graph: those of so many smallest nodes in a row, each of which reads all before it, and
    of an end that reads all."""
    return sum(flops_of_node(least, task, answer, before) for before in range(nodes)) + flops_of_node(
        end, task, answer, nodes
    )


@dataclass(frozen=True, kw_only=True)
class AnswerGraphSpace:
    """Graphs of one mix of models.

    The axes of a point: one for each ordered pair of nodes and for each node and the end (0: no edge), then the type of
    each node, its model, and the end.

    Args:
        shapes: of the models by role, the smallest first.
        mix: most nodes of each, in that order; at least one in all.
        end: role of the model that merges at the end.
        task, answer: tokens of the task and of one answer, as measured.
        cap: most operations of a graph.
    """

    shapes: Mapping[str, Shape]
    mix: tuple[int, ...]
    end: str
    task: int
    answer: int
    cap: float

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_GRAPH_NODES:
            raise UsageError(f"A graph that is searched has from 1 to {MOST_GRAPH_NODES} nodes, not {self.count}.")

    @property
    def count(self) -> int:
        """Nodes, without the end."""
        return sum(self.mix)

    @property
    def roles(self) -> tuple[str, ...]:
        """Those of models, the smallest first."""
        return tuple(self.shapes)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The edges there can be, from and to, in the order of the axes."""
        numbers = range(1, self.count + 1)
        return [*itertools.permutations(numbers, 2), *((number, END) for number in numbers)]

    @property
    def space(self) -> SearchSpace:
        """What proposers see."""
        edges, nodes = len(self.pairs), self.count
        sizes = (2,) * edges + (len(TYPES),) * nodes + (len(self.roles),) * nodes + (len(ENDS),)
        by_mix = tuple(math.log(count) if count else -50.0 for count in self.mix)
        flat = (0.0,) * 2
        return SearchSpace(
            sizes=sizes,
            allowed=lambda point: self.repaired(point) == point,
            repaired=self.repaired,
            cost=self.cost,
            logits=((0.0, EDGE),) * edges + (flat,) * nodes + (by_mix,) * nodes + (flat,),
            most=self.cap,
        )

    def point(self, edges: Sequence[tuple[int, int]], types: Sequence[str], models: Sequence[str], end: str) -> Point:
        """The point of a graph; an edge that would close a circle with those before it is left out."""
        kept: set[tuple[int, int]] = set()
        for edge in edges:
            if not _reaches(kept, edge[1], edge[0]):
                kept.add(edge)
        return (
            *(int(pair in kept) for pair in self.pairs),
            *map(TYPES.index, types),
            *map(self.roles.index, models),
            ENDS.index(end),
        )

    def parts(self, point: Point) -> tuple[list[tuple[int, int]], list[str], list[str], str]:
        """The edges, types, models and end of a point, as `point` takes them."""
        edges = len(self.pairs)
        return (
            [pair for pair, there in zip(self.pairs, point, strict=False) if there],
            [TYPES[value] for value in point[edges : edges + self.count]],
            [self.roles[value] for value in point[edges + self.count : -1]],
            ENDS[point[-1]],
        )

    def repaired(self, point: Point) -> Point | None:
        """A graph that keeps the rules, near this one; None where no edge leads to the end.

        Models beyond the mix are replaced, edges that close a circle dropped, nodes that lead nowhere lose their edges,
        a fuser that reads no assistant is an assistant, and above the cap nodes of the smallest model lose theirs.
        """
        return _repaired(self, point) if _is_point(self.space.sizes, point) else None

    def nodes(self, point: Point) -> Nodes:
        """The nodes that `answer_graph` runs, for a repaired point."""
        edges, types, models, end = self.parts(point)
        order = _order(edges, self.count)
        numbers = {node: number for number, node in enumerate(order, start=1)}

        def reads(node: int) -> tuple[int, ...]:
            return tuple(sorted(numbers[first] for first, then in edges if then == node))

        made = [
            CallNode(type=types[node - 1], model=models[node - 1], reads=reads(node))  # type: ignore[arg-type]  # one
            for node in order
        ]
        if end == "fuser":
            merges = any(types[first - 1] == "assistant" for first, then in edges if then == END)
            made.append(CallNode(type="fuser" if merges else "assistant", model=self.end, reads=reads(END)))
        return checked_nodes(made)

    def cost(self, point: Point) -> float:
        """Operations of one run of a repaired point."""
        return self.price(self.nodes(point))

    def price(self, nodes: Nodes) -> float:
        """Operations of one run of a graph of these models."""
        return float(flops_of_nodes(nodes, self.shape, self.task, self.answer))

    def shape(self, role: str) -> Shape:
        """Of the model of a role; the main model has the name that the mix knows it by."""
        return self.shapes["generator" if role == "model" else role]

    def __hash__(self) -> int:
        return hash((self.roles, self.mix, self.end, self.task, self.answer, self.cap))


def _is_point(sizes: Sequence[int], point: Point) -> bool:
    return len(point) == len(sizes) and all(0 <= value < size for value, size in zip(point, sizes, strict=True))


@lru_cache(maxsize=4096)
def _repaired(space: AnswerGraphSpace, point: Point) -> Point | None:
    given, types, models, end = space.parts(point)
    edges, _, _, _ = space.parts(space.point(given, types, models, end))  # without circles
    models = _within_mix(space, models)
    while True:
        edges = [(first, then) for first, then in edges if then == END or _reaches({*edges}, then, END)]
        used = _order(edges, space.count)
        if not used:
            return None
        for node in used:  # what comes before a node is decided before it
            reads = [first for first, then in edges if then == node]
            if not any(types[first - 1] == "assistant" for first in reads):
                types[node - 1] = "assistant"
        models = _first_come(space, models, used)
        made = space.point(edges, [types[n - 1] if n in used else TYPES[0] for n in range(1, space.count + 1)],
                           models, end)  # fmt: skip
        if space.cost(made) <= space.cap:
            return made
        dropped = min(used, key=lambda node: (space.roles.index(models[node - 1]), -node))
        edges = [edge for edge in edges if dropped not in edge]


def _within_mix(space: AnswerGraphSpace, models: Sequence[str]) -> list[str]:
    """The models, those beyond their number in the mix replaced by the smallest ones that are left."""
    left = dict(zip(space.roles, space.mix, strict=True))
    kept: list[str] = []
    for model in models:
        fits = left[model] > 0
        left[model] -= fits
        kept.append(model if fits else "")
    spare = [role for role, count in left.items() for _ in range(count)]
    return [model or spare.pop(0) for model in kept]


def _first_come(space: AnswerGraphSpace, models: Sequence[str], used: Sequence[int]) -> list[str]:
    """The models with those of nodes that are not run in order, for these are all one graph."""
    rest = sorted(
        (models[number - 1] for number in range(1, space.count + 1) if number not in used), key=space.roles.index
    )
    return [models[number - 1] if number in used else rest.pop(0) for number in range(1, space.count + 1)]


def _reaches(edges: set[tuple[int, int]], start: int, goal: int) -> bool:
    """Whether a path leads from one node to the other; every node reaches itself."""
    seen, left = {start}, [start]
    while left:
        if (node := left.pop()) == goal:
            return True
        new = {then for first, then in edges if first == node} - seen
        seen |= new
        left += sorted(new)
    return False


def _order(edges: Sequence[tuple[int, int]], count: int) -> list[int]:
    """The nodes from which a path leads to the end, each after what it reads."""
    used = [number for number in range(1, count + 1) if _reaches({*edges}, number, END)]
    order: list[int] = []
    while len(order) < len(used):
        order.append(
            next(
                node
                for node in used
                if node not in order and all(first in order for first, then in edges if then == node)
            )
        )
    return order
