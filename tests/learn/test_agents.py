"""The language model that proposes: what it is told, what of its reply is used, and that nothing else of it counts."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest

from outthink.learn.agents import (
    TRIES,
    chosen_mixes,
    graph_agent,
    graph_prompt,
    heard,
    read_candidates,
    read_graph,
    read_object,
    stage_agent,
    stages_prompt,
)
from outthink.learn.graph_search import search_graph
from outthink.learn.graphs import END
from outthink.learn.search import Archive, Point, SearchSpace, searched
from outthink.strategies.collective.answer_nodes import Nodes, written_nodes
from tests.learn.test_graphs import ORDER, space

NAMES, AMOUNTS, PRICE = ("small", "large"), (1, 2, 4, 8), (1, 4)


def cost(point: Point) -> float:
    return float(sum(PRICE[model] * AMOUNTS[n] for model, n in zip(point[::2], point[1::2], strict=True)))


SPACE = SearchSpace(
    sizes=(2, 4) * 2,
    allowed=lambda point: cost(point) <= 16,
    cost=cost,
    stages=((0, 1), (2, 3)),
    values=(NAMES, AMOUNTS) * 2,
    most=16,
)


class Script:
    """Says its replies one after the other, then the last one again; what it was told is kept."""

    def __init__(self, *replies: Any) -> None:
        self.replies = [reply if isinstance(reply, str) else json.dumps(reply) for reply in replies]
        self.told: list[str] = []

    async def __call__(self, prompt: str) -> str:
        self.told.append(prompt)
        return self.replies[min(len(self.told), len(self.replies)) - 1]


# ---------------------------------------------------------------------------------------------- replies


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Here it is:\n```json\n{"a": {"b": [1]}}\n```\nGood luck {x}', {"a": {"b": [1]}}),
        ('<think>{"a": 2}</think>{"a": 1}', {"a": 1}),
        ('{broken {"a": 1}', {"a": 1}),
        ('[1] {"a": 1} {"a": 2}', {"a": 1}),
    ],
)
def test_the_first_object_of_a_reply_is_read(reply: str, value: dict[str, Any]) -> None:
    assert read_object(reply) == value


@pytest.mark.parametrize("guideline", ["\\ud800", "\\udfff and more"])
def test_half_a_letter_is_not_read_for_it_could_not_be_sent_to_the_agent_again(guideline: str) -> None:
    with pytest.raises(ValueError, match="no JSON object"):
        read_object(f'{{"guidelines": ["{guideline}"]}}')
    assert read_object('{"guidelines": ["\\ud83d\\ude00"]}') == {"guidelines": ["\U0001f600"]}


@pytest.mark.parametrize("reply", ["", "none", "[1, 2]", "{" * 50_000, '{"a":' * 5_000, '{"a": 1' + " " * 30_000 + "}"])
def test_what_is_no_object_is_told(reply: str) -> None:
    with pytest.raises(ValueError, match="no JSON object"):
        read_object(reply)


def test_a_reply_is_asked_for_three_times_with_what_was_wrong() -> None:
    script = Script("no", '{"a": 0}', '{"a": 1}')

    def read(reply: Any) -> int:
        if reply["a"] == 0:
            raise ValueError("It is 0.")
        return int(reply["a"])

    assert asyncio.run(heard(script, "Say a.", read)) == 1
    assert [told.startswith("Say a.") for told in script.told] == [True] * 3
    assert "no JSON object" in script.told[1]
    assert "It is 0." in script.told[2]
    assert "It is 0." not in script.told[1]
    never = Script("no")
    assert asyncio.run(heard(never, "Say a.", read)) is None
    assert len(never.told) == TRIES == 3


# ---------------------------------------------------------------------------------------------- pipelines


def archive(*points: tuple[Point, float]) -> Archive:
    return Archive(space=SPACE, known=dict(points))


def test_a_pipeline_over_the_budget_has_fewer_samples_and_others_the_next_lower_amount() -> None:
    made = archive()
    reply = {
        "guidelines": ["a\n b", 3, "c" * 500],
        "candidates": [[["large", 8], ["small", 7]], [["small", 1], ["small", 3]]],
    }
    guidelines, points = read_candidates(made, reply)
    assert guidelines == ["a b", "c" * 200]
    assert points == [(1, 1, 0, 2), (0, 0, 0, 1)], "2 large and 4 small are 12 of 16"
    assert all(SPACE.allowed(point) for point in points)


@pytest.mark.parametrize(
    ("candidates", "sentence"),
    [
        (None, 'no list "candidates"'),
        ([], "It has no candidate"),
        ([[["small", 1]]], "must be a list of 2 stages"),
        ([[["small", 1], "small"]], "must be a list of a model and its samples"),
        ([[["huge", 1], ["small", 1]]], "The models are small, large"),
        ([[[["small"], 1], ["small", 1]]], "The models are small, large"),
        ([[["small", 0], ["small", 1]]], "whole number of at least 1"),
        ([[["small", 1.5], ["small", 1]]], "whole number of at least 1"),
        ([[["small", True], ["small", 1]]], "whole number of at least 1"),
        ([[["small", "2"], ["small", 1]]], "whole number of at least 1"),
        ([[["small", 1], ["small", 1]]], "were tried already"),
    ],
)
def test_candidates_that_cannot_be_used_are_told(candidates: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_candidates(archive(((0, 0, 0, 0), 0.5)), {"candidates": candidates})


def test_what_costs_too_much_with_one_sample_is_refused() -> None:
    dear = SearchSpace(
        sizes=SPACE.sizes, allowed=lambda point: cost(point) <= 7, cost=cost, stages=SPACE.stages, values=SPACE.values
    )
    with pytest.raises(ValueError, match="cost more than 100 even with the fewest samples"):
        read_candidates(Archive(space=dear), {"candidates": [[["large", 1], ["large", 1]]]})


def test_the_agent_is_told_prices_what_was_tried_and_its_own_guidelines() -> None:
    prompt = stages_prompt(archive(((0, 0, 0, 0), 0.25), ((1, 0, 0, 2), 0.5)), ["few large ones"])
    assert "stage 2: small 6.2, large 25.0" in prompt
    assert "1, 2, 4, 8" in prompt
    assert prompt.index('[["large", 1], ["small", 4]] score 50.0, cost 50.0') < prompt.index("score 25.0, cost 12.5")
    assert "- few large ones" in prompt
    assert '"candidates": [[["large", 1], ["small", 4]]]' in prompt


def test_an_agent_first_sees_every_model_in_every_stage_and_what_it_proposes_is_run() -> None:
    good = {"guidelines": ["g"], "candidates": [[["small", 8], ["large", 2]], [["large", 2], ["small", 8]]]}
    script = Script(good, "never again")
    ran: list[Point] = []

    async def evaluate(point: Point) -> float:
        ran.append(point)
        return sum(point) / 10

    trials = asyncio.run(searched(SPACE, evaluate, stage_agent(script, 1), evaluations=9))
    assert ran[:4] == [(0, 3, 1, 0), (1, 1, 1, 0), (1, 0, 0, 3), (1, 0, 1, 1)], "the other stage: the largest once"
    place = ran.index((0, 3, 1, 1))
    assert ran[place + 1] == (1, 1, 0, 3)
    assert len(trials) == 9, "chance goes on where it says nothing that can be used"
    assert "- g" in script.told[1]
    assert all(cost(point) <= 16 for point in ran)
    assert len({*ran}) == len(ran)


def test_a_pipeline_search_ends_when_all_was_tried_whatever_the_agent_says() -> None:
    async def evaluate(point: Point) -> float:
        return 0.0

    every = Script({"candidates": [[["small", 1], ["small", 1]]]})
    trials = asyncio.run(searched(SPACE, evaluate, stage_agent(every), evaluations=1000))
    allowed = [
        (a, b, c, d) for a in (0, 1) for b in range(4) for c in (0, 1) for d in range(4) if cost((a, b, c, d)) <= 16
    ]
    assert {trial.point for trial in trials} == {*allowed}
    assert len(every.told) < 3 * len(allowed)


# ---------------------------------------------------------------------------------------------- graphs

GRAPHS = space((2, 1, 0, 0), nodes=4)
NEXT: dict[str, Any] = {
    "nodes": [
        {"id": 1, "type": "assistant", "model": "generator", "reads": []},
        {"id": 2, "type": "assistant", "model": "3b", "reads": [1]},
        {"id": 3, "type": "assistant", "model": "generator", "reads": [1]},
    ],
    "end": {"type": "fuser", "reads": [2]},
    "table": {"1>2": 0.4, "2>end": 0.6},
}


def test_a_graph_is_read_with_its_table() -> None:
    point, table = read_graph(Archive(space=GRAPHS.space), GRAPHS, NEXT)
    assert written_nodes(GRAPHS.nodes(point)) == "assistant@generator,1>assistant@3b,2>fuser@3b", "3 leads nowhere"
    assert table == {(1, 2): 0.4, (2, END): 0.6}
    circle = {**NEXT, "nodes": [{**NEXT["nodes"][0], "reads": [2]}, *NEXT["nodes"][1:]]}
    kept, _ = read_graph(Archive(space=GRAPHS.space), GRAPHS, circle)
    assert GRAPHS.parts(kept)[0] == [(2, END)], "1 read 2 before 2 read 1, and so it leads nowhere"


def changed(place: int | None = None, **fields: Any) -> dict[str, Any]:
    """The graph with other fields, of one of its nodes or its own."""
    if place is None:
        return {**NEXT, **fields}
    nodes = [{**node, **fields} if number == place else node for number, node in enumerate(NEXT["nodes"])]
    return {**NEXT, "nodes": nodes}


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        ({}, 'no list "nodes" of objects'),
        (changed(nodes=[1]), 'no list "nodes" of objects'),
        (changed(0, id=4), "from 1 to 3"),
        (changed(0, id=True), "from 1 to 3"),
        (changed(0, id="1"), "from 1 to 3"),
        (changed(0, id=2), "there twice"),
        (changed(0, reads=[0]), "from 1 to 3"),
        (changed(0, reads="2"), '"reads" must be a list'),
        (changed(0, type="judge"), "The types of nodes are assistant and fuser"),
        (changed(0, type=["fuser"]), "The types of nodes are assistant and fuser"),
        (changed(0, model="70B"), "The models are generator, 3b, 8b, 70b"),
        (changed(0, model="3b"), "more nodes of the model 3b than 2 x generator, 1 x 3b"),
        (changed(nodes=NEXT["nodes"][1:]), "Node 1 is read and not described"),
        (changed(end=[2]), '"end" must be an object'),
        (changed(end={"type": "judge", "reads": [2]}), '"end" must be an object with a type, fuser or vote'),
        (changed(end={"type": "vote", "reads": []}), "No node leads to the end"),
        (changed(table=[0.4]), '"table" must be an object'),
        (changed(table={"1>4": 0.4}), '"table" has edges such as'),
        (changed(table={"1>2": 1.5}), "must be from 0 to 1"),
        (changed(table={"1>2": float("nan")}), "must be from 0 to 1"),
        (changed(table={"1>2": "0.5"}), "must be from 0 to 1"),
    ],
)
def test_a_graph_that_cannot_be_used_is_told(reply: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_graph(Archive(space=GRAPHS.space), GRAPHS, reply)


def test_an_agent_is_told_the_last_rounds_the_mix_the_cap_and_its_table() -> None:
    made = Archive(space=GRAPHS.space)
    point, table = read_graph(made, GRAPHS, NEXT)
    made.known[point] = 2 / 3
    prompt = graph_prompt(made, GRAPHS, table)
    assert "2 x generator, 1 x 3b" in prompt
    assert f"accuracy 66.7, cost {100 * GRAPHS.cost(point) / GRAPHS.cap:.1f}" in prompt
    assert '{"1>2": 0.4, "2>end": 0.6}' in prompt
    assert "not named are 0.12" in prompt
    with pytest.raises(ValueError, match="This graph was tried already"):
        read_graph(made, GRAPHS, NEXT)


def test_the_graph_of_an_agent_is_the_next_one_and_without_it_chance_goes_by_its_table() -> None:
    sure = changed(table={"1>end": 1.0, "2>end": 0.0, "3>end": 0.0})
    script = Script(sure, "no", "no", "no")

    async def evaluate(point: Point) -> float:
        return 0.5

    trials = asyncio.run(searched(GRAPHS.space, evaluate, graph_agent(script, GRAPHS, 0), evaluations=8))
    wanted, _ = read_graph(Archive(space=GRAPHS.space), GRAPHS, NEXT)
    assert trials[1].point == wanted
    assert len(trials) == 8
    assert len(script.told) == 1 + 6 * TRIES
    later = [GRAPHS.parts(trial.point)[0] for trial in trials[2:]]
    # each has the edge with more than .9, and others lead to the end with .05: of 6, 4 or more with over 99%
    assert sum((1, END) in edges for edges in later) >= 4


def test_an_agent_picks_two_mixes_or_chance_does() -> None:
    mixes = [(6, 0), (3, 1), (0, 2)]
    alone = {"small": 0.25, "large": 0.5}
    script = Script({"mixes": [3, 1]})
    assert asyncio.run(chosen_mixes(script, mixes, alone, (1, 3))) == [2, 0]
    assert "large: 50.0 percent right, costs 3" in script.told[0]
    assert "2. 3 x small, 1 x large" in script.told[0]
    for wrong in ({"mixes": [1, 1]}, {"mixes": [0, 1]}, {"mixes": [1, 2, 3]}, {"mixes": "1, 2"}, {"mixes": [True, 2]}):
        assert asyncio.run(chosen_mixes(Script(wrong), mixes, alone, (1, 3))) is None
    assert asyncio.run(chosen_mixes(Script({"mixes": [1]}), mixes[:1], alone, (1, 3))) == [0]


def test_models_of_one_size_have_the_nodes_that_the_agent_was_told() -> None:
    shape = ORDER.shapes["generator"]
    order = dataclasses.replace(
        ORDER, shapes={"generator": shape, "a": shape}, alone={"generator": 0.2, "a": 0.9}, end="a", nodes=4
    )
    models: set[str] = set()

    async def measure(nodes: Nodes, phase: str, number: int) -> float:
        end = [*nodes[:-1]] if nodes[-1].type == "fuser" else [*nodes]
        models.update(one.model for one in end if phase == "pre-test")
        return 0.5

    script = Script({"mixes": [1, 2]})
    asyncio.run(search_graph(order, measure, by="agent", talk=script, evaluations=1))
    assert "1. 4 x generator\n2. 3 x generator, 1 x a\n" in script.told[0]
    assert "generator: 20.0 percent right" in script.told[0]
    assert "generator" in models


def test_an_agent_reads_no_more_mixes_than_fit_a_prompt() -> None:
    shape = ORDER.shapes["generator"]
    roles = ["generator", "a", "b", "c"]
    order = dataclasses.replace(ORDER, shapes=dict.fromkeys(roles, shape), alone=dict.fromkeys(roles, 0.5), end="a",
                                nodes=12)  # fmt: skip

    async def measure(nodes: Nodes, phase: str, number: int) -> float:
        return 0.5

    script = Script({"mixes": [63, 64]}, "nothing")
    asyncio.run(search_graph(order, measure, by="agent", talk=script, evaluations=1))
    assert "\n64. " in script.told[0]
    assert "\n65. " not in script.told[0]


def test_a_whole_search_by_an_agent_that_is_of_no_use_is_a_search_by_chance() -> None:
    async def measure(nodes: Nodes, phase: str, number: int) -> float:
        return len(nodes) / 10

    script = Script("I would rather not.")
    best, trials, _ = asyncio.run(search_graph(ORDER, measure, by="agent", talk=script, evaluations=5, seed=2))
    assert len(trials) == 5
    assert len(best) == max(len(nodes) for nodes, _ in trials)
    assert len(script.told) == TRIES * (1 + 4), "mixes once, and a graph after each round but the last"
