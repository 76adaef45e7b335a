"""The search for a graph from start to end: mixes of models, a pre-test, rounds of few questions, and a fresh look.

Source: "Generalizing Test-time Compute-optimal Scaling as an Optimizable Graph" (2511.00086), by notes on the authors'
code. Differs: the answers of each model alone are measured and not given; whoever proposes graphs begins with the same
pre-test of two mixes, which chance picks where there is no agent; the best few graphs are scored again on questions
that no round saw, with the model that was best alone among them, and the best of them is returned, where the source
returns the last one and knows no model alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from outthink.errors import UsageError
from outthink.learn.agents import Talk, chosen_mixes, graph_agent
from outthink.learn.graphs import AnswerGraphSpace, cap_of, mixes, node_price, thinned
from outthink.learn.proposing import By, by_chance, proposer
from outthink.learn.search import Archive, SearchTrial, scored_again, searched
from outthink.models.engine import Shape
from outthink.rng import generator
from outthink.strategies.collective.answer_nodes import CallNode, Nodes, checked_nodes

_SHOWN = 64  # mixes that an agent reads; where there are more, chance leaves some out
_TRIES = 1000  # graphs that are drawn for a pre-test, at most

Phase = Literal["pre-test", "search", "again"]
Measure = Callable[[Nodes, Phase, int], Awaitable[float | None]]
"""(graph, phase, number of the evaluation in it) -> the share of its questions that were right; None: none was graded.
A pre-test has one question, a round of the search a few, and the fresh look the same ones for all."""


@dataclass(frozen=True, kw_only=True)
class GraphOrder:
    """What is searched.

    Args:
        shapes: of the models by role; without layers attention is not counted.
        alone: the share that each got right alone.
        end: role of the model that merges at the end.
        nodes: the budget: so many nodes of the smallest model, see `cap_of`.
        task, answer: tokens of the task and of one answer, as measured.
    """

    shapes: Mapping[str, Shape]
    alone: Mapping[str, float]
    end: str
    nodes: int
    task: int
    answer: int

    def space(self, mix: tuple[int, ...]) -> AnswerGraphSpace:
        """The graphs of a mix."""
        shapes = smallest_first(self.shapes)
        least = next(iter(shapes.values()))
        cap = cap_of(self.nodes, least, shapes[self.end], self.task, self.answer)
        return AnswerGraphSpace(shapes=shapes, mix=mix, end=self.end, task=self.task, answer=self.answer, cap=cap)


def smallest_first(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes in the order in which a mix counts their nodes."""
    return dict(sorted(shapes.items(), key=lambda entry: entry[1].parameters))


def priced_mixes(shapes: Mapping[str, Shape], nodes: int) -> tuple[list[int], list[tuple[int, ...]]]:
    """What a node of each model counts, the smallest first, and the mixes; UsageError as for `mixes`."""
    sizes = [shape.parameters for shape in smallest_first(shapes).values()]
    prices = [node_price(size, sizes[0]) for size in sizes]
    return prices, mixes(prices, nodes)


async def search_graph(
    order: GraphOrder,
    measure: Measure,
    *,
    by: By | Literal["agent"],
    talk: Talk | None = None,
    evaluations: int,
    seed: int = 0,
) -> tuple[Nodes, list[tuple[Nodes, SearchTrial]], list[tuple[Nodes, float | None]]]:
    """The best graph, those of all rounds with their scores, and those of the fresh look, by which the best was chosen.

    Args:
        by: who proposes; an agent needs `talk`.
        evaluations: rounds.

    Raises UsageError where nothing is within the cap, or an agent is to propose and there is no `talk`.
    """
    if by == "agent" and talk is None:
        raise UsageError("A search by an agent needs a model that proposes.")
    graphs = order.space(await _mix(order, measure, talk if by == "agent" else None, seed))
    numbers = {"search": 0, "again": 0}

    async def evaluate(point: tuple[int, ...], phase: Phase) -> float | None:
        numbers[phase] += 1
        return await measure(graphs.nodes(point), phase, numbers[phase] - 1)

    propose = graph_agent(talk, graphs, seed) if by == "agent" and talk is not None else proposer(by, seed)  # type: ignore[arg-type]  # no agent
    space = graphs.space
    trials = await searched(space, lambda point: evaluate(point, "search"), propose, evaluations=evaluations)
    again = await scored_again(space, trials, lambda point: evaluate(point, "again"))
    scored = [(graphs.nodes(trial.point), trial.score) for trial in again]
    if (single := _single(order, graphs)) is not None and single not in [nodes for nodes, _ in scored]:
        scored.append((single, await measure(single, "again", numbers["again"])))
    known = [(score, -graphs.price(nodes), nodes) for nodes, score in scored if score is not None]
    if not known:
        raise UsageError("No graph could be evaluated.")
    best = max(known, key=lambda entry: entry[:2])[2]
    return best, [(graphs.nodes(trial.point), trial) for trial in trials], scored


def _single(order: GraphOrder, graphs: AnswerGraphSpace) -> Nodes | None:
    """The model that was best alone of those whose call is within the cap, as a graph."""
    alone = [(share, checked_nodes([CallNode(type="assistant", model=role)])) for role, share in order.alone.items()]
    return max(
        (entry for entry in alone if graphs.price(entry[1]) <= graphs.cap),
        key=lambda entry: entry[0],
        default=(0, None),
    )[1]


async def _mix(order: GraphOrder, measure: Measure, talk: Talk | None, seed: int) -> tuple[int, ...]:
    """The mix whose dense random graph answered its one question best; ties go by chance."""
    rng = generator(seed, 4)
    prices, known = priced_mixes(order.shapes, order.nodes)
    picks = None
    if talk is not None:
        alone = {role: order.alone[role] for role in smallest_first(order.shapes)}
        if len(known) > _SHOWN:
            known = [known[place] for place in sorted(rng.permutation(len(known))[:_SHOWN].tolist())]
        picks = await chosen_mixes(talk, known, alone, prices)
    if picks is None:
        picks = rng.permutation(len(known))[:2].tolist()
    scores: dict[tuple[int, ...], float] = {}
    for mix in dict.fromkeys(mix for pick in picks for mix in thinned(known[pick])):
        graphs = order.space(mix)
        edges = len(graphs.pairs)
        dense = replace(graphs.space, logits=((0.0, 0.0),) * edges + graphs.space.logits[edges:])
        points = by_chance(Archive(space=dense), seed)
        tries = (graphs.repaired(point) for point in itertools.islice(points, _TRIES))
        point = next((repaired for repaired in tries if repaired is not None), None)
        if point is not None:  # else not even one of its nodes is within the cap
            scores[mix] = await measure(graphs.nodes(point), "pre-test", len(scores)) or 0.0
    if not scores:
        raise UsageError("No graph is within the cap: allow more nodes.")
    best = [mix for mix, score in scores.items() if score == max(scores.values())]
    return best[int(rng.integers(len(best)))]
