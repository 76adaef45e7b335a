"""Graphs that are searched: mixes of models and the cap of the card, and that no proposal breaks a rule."""

from __future__ import annotations

import asyncio
import itertools
import math

import numpy as np
import pytest

from outthink.errors import UsageError
from outthink.learn.graph_search import GraphOrder, search_graph
from outthink.learn.graphs import EDGE, END, ENDS, TYPES, AnswerGraphSpace, cap_of, mixes, node_price, thinned
from outthink.learn.proposing import By, by_chance, softmax
from outthink.learn.search import Archive
from outthink.models.engine import Shape
from outthink.strategies.collective.answer_nodes import Nodes, checked_nodes, ends, flops_of_nodes, read_nodes
from tests.strategies.collective.test_answer_graph import CARD, LARGER, MATH, UNIT

SHAPES = {"generator": CARD, **LARGER}
TASK, ANSWER = MATH


def space(mix: tuple[int, ...] = (5, 1, 0, 0), nodes: int = 8) -> AnswerGraphSpace:
    cap = cap_of(nodes, CARD, LARGER["3b"], *MATH)
    return AnswerGraphSpace(shapes=SHAPES, mix=mix, end="3b", task=TASK, answer=ANSWER, cap=cap)


@pytest.mark.parametrize(("nodes", "units"), [(4, 17.753), (8, 42.866), (12, 78.978)])
def test_the_cap_is_that_of_the_card(nodes: int, units: float) -> None:
    assert cap_of(nodes, CARD, LARGER["3b"], *MATH) / UNIT == pytest.approx(units, abs=5e-4)


def test_mixes_and_their_thinning_are_those_of_the_card() -> None:
    prices = [node_price(size, 1) for size in (1, 3, 8, 70)]
    assert prices == [1, 3, 9, 81]
    assert set(mixes(prices, 8)) == {(8, 0, 0, 0), (5, 1, 0, 0), (2, 2, 0, 0)}
    twelve = mixes(prices, 12)
    assert len(twelve) == 7
    assert {(3, 0, 1, 0), (0, 1, 1, 0)} <= {*twelve}
    assert thinned((2, 2, 0, 0)) == [(2, 2, 0, 0), (1, 2, 0, 0), (0, 2, 0, 0), (0, 1, 0, 0)]
    assert len(thinned((12, 0))) == 5
    assert mixes([1], 3) == [(3,)]


def test_more_mixes_than_anybody_could_choose_from_are_refused_at_once() -> None:
    assert len(mixes([1] * 4, 16)) == math.comb(19, 3), "16 nodes among 4 models"
    with pytest.raises(UsageError, match="12 models and 16 nodes make more than 20,000 mixes: take fewer"):
        mixes([1] * 12, 16)


def test_eight_nodes_have_the_edges_of_the_card_and_often_none_into_the_end() -> None:
    """Of 2000 graphs .3622 have no edge into the end on average: off by .06 with less than 1e-7."""
    graphs = space((8, 0, 0, 0))
    assert len(graphs.pairs) == 64
    assert softmax(np.array([0.0, EDGE]))[1] == pytest.approx(0.1192, abs=5e-5)
    drawn = itertools.islice(by_chance(Archive(space=graphs.space), 0), 2000)
    ends_at = [place for place, pair in enumerate(graphs.pairs) if pair[1] == END]
    assert np.mean([not any(point[place] for place in ends_at) for point in drawn]) == pytest.approx(0.3622, abs=0.06)


@pytest.mark.parametrize("mix", [(8, 0, 0, 0), (5, 1, 0, 0), (2, 2, 0, 0), (3, 0, 1, 0), (0, 1, 1, 0), (1, 0, 0, 0)])
@pytest.mark.parametrize("dense", [False, True])
def test_whatever_is_proposed_keeps_the_rules_the_mix_and_the_cap(mix: tuple[int, ...], dense: bool) -> None:
    graphs = space(mix)
    rng = np.random.default_rng(len(mix) + dense)
    made = 0
    for _ in range(60):
        odds = 0.5 if dense else 0.12
        raw = tuple(
            int(rng.random() < odds) if size == 2 and place < len(graphs.pairs) else int(rng.integers(size))
            for place, size in enumerate(graphs.space.sizes)
        )
        point = graphs.repaired(raw)
        if point is None:
            continue
        made += 1
        assert graphs.repaired(point) == point
        assert graphs.space.allowed(point)
        nodes = graphs.nodes(point)
        assert checked_nodes(nodes) == nodes, "no circle, and each fuser reads an assistant"
        inner = nodes[:-1] if graphs.parts(point)[-1] == "fuser" else nodes
        counts = [sum(one.model == role for one in inner) for role in graphs.roles]
        assert all(count <= most for count, most in zip(counts, mix, strict=True))
        price = flops_of_nodes(nodes, lambda role: SHAPES["generator" if role == "model" else role], *MATH)
        assert price == graphs.cost(point) <= graphs.cap
        if graphs.parts(point)[-1] == "fuser":
            assert ends(nodes) == [len(nodes) - 1], "all nodes lead to the end"
            assert nodes[-1].model == "3b"
            assert nodes[-1].reads
    assert made > 4


def test_a_circle_loses_the_edge_that_closes_it_and_a_node_that_leads_nowhere_is_not_run() -> None:
    graphs = space((3, 0, 0, 0))
    types, models = ["assistant"] * 3, ["generator"] * 3
    point = graphs.repaired(graphs.point([(1, 2), (2, 1), (2, END)], types, models, "fuser"))
    assert point is not None
    assert graphs.parts(point)[0] == [(1, 2), (2, END)]
    assert graphs.nodes(point) == read_nodes("assistant@generator,1>assistant@generator,2>fuser@3b")
    assert graphs.repaired(graphs.point([(1, 2)], types, models, "vote")) is None, "no edge leads to the end"


def test_above_the_cap_nodes_of_the_smallest_model_go_first() -> None:
    graphs = space((2, 0, 2, 0), nodes=4)
    models = ["generator", "generator", "8b", "8b"]
    edges = [(number, END) for number in range(1, 5)]
    point = graphs.repaired(graphs.point(edges, ["assistant"] * 4, models, "vote"))
    assert point is not None
    assert [one.model for one in graphs.nodes(point)] == ["generator", "8b", "8b"], "2 x 7.9 and 1.0 of 17.8 units"
    large = AnswerGraphSpace(shapes=SHAPES, mix=(0, 0, 0, 1), end="3b", task=TASK, answer=ANSWER, cap=graphs.cap)
    assert large.repaired(large.point([(1, END)], ["assistant"], ["70b"], "vote")) is None


def test_a_fuser_without_an_assistant_before_it_answers_itself() -> None:
    graphs = space((3, 0, 0, 0))
    edges = [(1, 2), (2, 3), (3, END)]
    point = graphs.repaired(graphs.point(edges, ["fuser"] * 3, ["generator"] * 3, "fuser"))
    assert point is not None
    assert graphs.parts(point)[1] == ["assistant", "fuser", "assistant"]


def test_too_many_nodes_are_refused() -> None:
    with pytest.raises(UsageError, match="from 1 to 16 nodes, not 17"):
        space((17, 0, 0, 0))


ORDER = GraphOrder(
    shapes={"generator": CARD, "large": LARGER["3b"]},
    alone={"generator": 0.3, "large": 0.6},
    end="large",
    nodes=6,
    task=TASK,
    answer=ANSWER,
)


@pytest.mark.parametrize("by", ["random", "tpe", "reinforce"])
def test_a_search_asks_for_its_rounds_and_returns_the_best_of_a_fresh_look(by: By) -> None:
    if by == "tpe":
        pytest.importorskip("optuna")
    asked: list[tuple[str, int, Nodes]] = []

    async def measure(nodes: Nodes, phase: str, number: int) -> float:
        asked.append((phase, number, nodes))
        large = sum(one.model == "large" for one in nodes) / len(nodes)
        return large if phase == "again" else float(len(nodes) % 2)

    best, trials, compared = asyncio.run(search_graph(ORDER, measure, by=by, evaluations=8, seed=3))
    phases = [phase for phase, _, _ in asked]
    assert phases.count("search") == len(trials) == 8
    assert 1 <= phases.count("pre-test") <= 10
    assert phases.count("again") == 6
    assert [number for phase, number, _ in asked if phase == "search"] == [*range(8)]
    again = [nodes for phase, _, nodes in asked if phase == "again"]
    assert again == [nodes for nodes, _ in compared]
    assert again[-1] == read_nodes("assistant@large"), "the best model alone is looked at, too"
    worth = [sum(one.model == "large" for one in nodes) / len(nodes) for nodes in again]
    assert sum(one.model == "large" for one in best) / len(best) == max(worth)
    before = [*asked]
    asked.clear()
    asyncio.run(search_graph(ORDER, measure, by=by, evaluations=8, seed=3))
    assert asked == before, "the same seed and scores give the same search"


def test_where_graphs_are_no_better_than_the_best_model_alone_it_is_returned() -> None:
    async def measure(nodes: Nodes, phase: str, number: int) -> float:
        return 1.0 if nodes == read_nodes("assistant@large") else 0.5

    best, _, _ = asyncio.run(search_graph(ORDER, measure, by="random", evaluations=4))
    assert best == read_nodes("assistant@large")


def test_a_mix_none_of_whose_nodes_is_within_the_cap_is_left_out() -> None:
    """Both mixes are looked at, 3 small nodes and a large one, which alone costs more than the small end allows."""
    order = GraphOrder(
        shapes={"generator": Shape(parameters=10), "large": Shape(parameters=50)},
        alone={"generator": 0.5, "large": 0.9},
        end="generator",
        nodes=3,
        task=99,
        answer=1,
    )

    async def measure(nodes: Nodes, phase: str, number: int) -> float:
        assert {one.model for one in nodes} == {"generator"}
        return 0.5

    _, trials, _ = asyncio.run(search_graph(order, measure, by="random", evaluations=3))
    assert trials


def test_what_cannot_be_searched_is_told() -> None:
    async def measure(nodes: Nodes, phase: str, number: int) -> float:
        raise AssertionError("nothing is run")

    with pytest.raises(UsageError, match="needs a model that proposes"):
        asyncio.run(search_graph(ORDER, measure, by="agent", evaluations=1))


def test_a_shape_without_layers_counts_parameters_only() -> None:
    graphs = GraphOrder(
        shapes={"generator": Shape(parameters=10)}, alone={"generator": 0.5}, end="generator", nodes=2, task=3, answer=2
    ).space((2,))
    assert graphs.cap == 20 * (5 + 7 + 9)
    assert (TYPES, ENDS) == (("assistant", "fuser"), ("fuser", "vote"))
