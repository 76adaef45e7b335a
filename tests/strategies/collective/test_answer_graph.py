"""Graphs of calls: rules, price, what each node is sent, and which methods they are where they are simple."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.cost.flops import flops, flops_of_node
from outthink.driver import solve_async
from outthink.errors import MissingResource, UsageError
from outthink.maths.selection import Drawn
from outthink.models.engine import Request, Shape
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.collective.answer_nodes import (
    CallNode,
    checked_nodes,
    ends,
    flops_of_nodes,
    levels,
    open_nodes,
    read_nodes,
    written_nodes,
    written_nodes_file,
)
from outthink.strategies.making import make_strategy
from outthink.types import Trace, Usage
from tests.strategies.collective.test_archon import asked, shown
from tests.tools.toys import problem
from tests.tools.virtual import run

CARD = Shape(parameters=1_000_000_000, layers=16, hidden=2048)
MATH = (202, 275)
LARGER = {
    "3b": Shape(parameters=3_000_000_000, layers=28, hidden=3072),
    "8b": Shape(parameters=8_000_000_000, layers=32, hidden=4096),
    "70b": Shape(parameters=70_000_000_000, layers=80, hidden=8192),
}
UNIT = 9.710e11


class Voices(ScriptedEngine):
    """Answers with the next number; what each request was is kept."""

    def __init__(self, silent: tuple[int, ...] = (), name: str = "voices") -> None:
        super().__init__(self.answer, name=name)
        self.silent, self.sent = silent, list[Request]()

    def answer(self, request: Request, child: int, rng: np.random.Generator) -> str:
        self.sent.append(request)
        number = len(self.sent)
        return "I do not know" if number in self.silent else f"It is #### {number}"

    @property
    def prompts(self) -> list[str]:
        return [one.messages[-1].text for one in self.sent]


def solved(
    nodes: str, engine: ScriptedEngine, models: Mapping[str, ScriptedEngine] | None = None, **more: Any
) -> Trace:
    return run(
        solve_async(problem(), make_strategy("answer_graph", {"nodes": nodes}), model=engine, models=models, **more)
    )


# ---------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        ("", "There is no node ''; there are assistant, fuser"),
        ("judge", "There is no node 'judge'; there are assistant, fuser"),
        ("assistant:0", "Node 1: samples must be at least 1, not 0."),
        ("assistant:x", "'x' is no whole number"),
        ("assistant@", "names no role behind '@'"),
        ("assistant@a/b", "'a/b' is no role"),
        ("1>assistant", "Node 1 cannot read node 1: it reads nodes above it only."),
        ("assistant,3>assistant,2>assistant", "Node 2 cannot read node 3"),
        ("assistant,0>assistant", "Node 2 cannot read node 0"),
        ("assistant,1+1>assistant", "Node 2 reads a node twice"),
        ("assistant,one>assistant", "'one' is no whole number"),
        ("assistant,1-999>assistant", "'1-999' are more than 256 nodes"),
        ("fuser", "Node 1 is a fuser: it must read at least one assistant."),
        ("assistant,1>fuser,2>fuser", "Node 3 is a fuser: it must read at least one assistant."),
        ("assistant:65,1>fuser", "Node 2 reads 65 answers in one prompt, more than 64: read fewer."),
        ("assistant:1025", "The graph makes 1,025 calls, more than 1,024: lower samples."),
        ("assistant:64,1>assistant:129", "The graph shows models 8,256 answers again, more than 8,192"),
        (",".join(["assistant"] * 257), "at most 256 nodes"),
    ],
)
def test_every_rule_that_is_broken_is_told_in_one_sentence(nodes: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)) as told:
        make_strategy("answer_graph", {"nodes": nodes})
    assert str(told.value).count(". ") == 0


def test_a_graph_is_written_as_it_is_read_in_both_forms(tmp_path: Path) -> None:
    nodes = read_nodes("assistant:3@small, assistant, 1-2>assistant:2@large ,1+3>fuser@large")
    assert [one.reads for one in nodes] == [(), (), (1, 2), (1, 3)]
    assert read_nodes(written_nodes(nodes)) == nodes
    file = tmp_path / "g.toml"
    file.write_text(written_nodes_file(nodes, name='a "graph"'), encoding="utf-8")
    assert open_nodes(file).nodes == nodes
    made: Any = make_strategy("answer_graph", {"config": str(file)})
    assert made.built == nodes
    assert "assistant:4" not in repr(made), "what is shown is what runs"
    assert replace(made, config=str(file)) == made
    assert levels(nodes) == [[0, 1], [2], [3]]
    assert ends(nodes) == [3]


@pytest.mark.parametrize("letters", ["\U0001f600", "a\x7fb", "\\u0041", 'a"b\\', "\u2028", "\x00\x1f"])
def test_whatever_letters_names_have_a_file_is_read_again(tmp_path: Path, letters: str) -> None:
    nodes = checked_nodes([CallNode(type="assistant", model=letters)])
    file = tmp_path / "g.toml"
    file.write_text(written_nodes_file(nodes, name=letters), encoding="utf-8")
    assert open_nodes(file).nodes == nodes
    assert tomllib.loads(file.read_text(encoding="utf-8"))["name"] == letters


def test_half_a_letter_of_a_name_does_not_keep_a_file_from_being_written(tmp_path: Path) -> None:
    file = tmp_path / "g.toml"
    file.write_text(written_nodes_file(read_nodes("assistant"), name="a\udcff"), encoding="utf-8")
    assert open_nodes(file).nodes == read_nodes("assistant")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nodes = 3", "it needs nodes = [...], a list of nodes"),
        ("nodes = [3]", 'A node is a table such as {type = "assistant"}'),
        ("nodes = [{type = 'assistant', n = 3}]", "A node has no 'n'; it has type, model, reads, samples, temperature"),
        ("nodes = [{type = 'assistant', reads = ['1']}]", "A node's reads.0: Input should be a valid integer"),
        ("nodes = [{type = 'assistant', temperature = -1.0}]", "temperature must be a number of at least 0"),
        ("nodes = [{type = 'fuser'}]", "Node 1 is a fuser"),
        ("nodes = [{type = 'assistant'}]\nedges = []", "says 'edges', which a graph does not have"),
        ("nodes = [{type = 'assistant'}]\n[prompts]\nfuser = 'merge'", "must have the gaps {answers} and no others"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_name(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "g.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(sentence)) as told:
        make_strategy("answer_graph", {"config": str(file)})
    assert "g.toml" in str(told.value)


def test_a_prompt_of_a_file_is_sent_and_is_part_of_the_version(tmp_path: Path) -> None:
    file = tmp_path / "g.toml"
    text = (
        "nodes = [{type = 'assistant', temperature = 0.5}, {type = 'fuser', reads = [1]}]\n"
        "[prompts]\nfuser = '%s {answers}'"
    )
    file.write_text(text % "Merge", encoding="utf-8")
    first = make_strategy("answer_graph", {"config": str(file)})
    engine = Voices()
    run(solve_async(problem(), first, model=engine))
    assert engine.prompts[1].startswith("What is 1+1?\n\nMerge <answer 1>\nIt is #### 1")
    assert [one.temperature for one in engine.sent] == [0.5, 0.3]
    assert first.own_temperature  # type: ignore[attr-defined]
    file.write_text(text % "Join", encoding="utf-8")
    assert make_strategy("answer_graph", {"config": str(file)}).versions != first.versions  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="by nodes or by config, not by both"):
        make_strategy("answer_graph", {"config": str(file), "nodes": "assistant"})


# ---------------------------------------------------------------------------------------------- price


def test_a_node_has_the_operations_of_the_card() -> None:
    assert flops_of_node(CARD, 200, 100, 0) == 605_917_900_800
    assert flops_of_node(CARD, 200, 100, 1) == 810_511_974_400
    assert flops_of_node(CARD, 200, 100, 3) == 1_223_632_281_600


@pytest.mark.parametrize("degree", range(9))
def test_three_forms_of_the_price_of_a_node_are_the_same_number(degree: int) -> None:
    parameters, width, (task, answer) = CARD.parameters, CARD.layers * CARD.hidden, MATH
    prompt = task + degree * answer
    prefill = 2 * parameters * prompt + 2 * width * prompt * (prompt + 1)
    decode = 2 * parameters * answer + 2 * width * answer * (2 * prompt + answer + 1)
    square = 2 * width * answer**2
    linear = 2 * parameters * answer + 2 * width * answer * (2 * task + 2 * answer + 1)
    alone = 2 * (parameters + width) * (task + answer) + 2 * width * (task + answer) ** 2
    price = flops_of_node(CARD, task, answer, degree)
    assert price == prefill + decode == square * degree**2 + linear * degree + alone
    both = flops(CARD, Usage(prompt=prompt, completion=answer))
    assert price - both == 2 * width * (prompt + answer), "the ledger's estimate, and each token's own pair"


@pytest.mark.parametrize(
    ("model", "degree", "units"),
    [("1b", 1, 1.587), ("1b", 2, 2.187), ("1b", 4, 3.416), ("1b", 8, 5.998), ("3b", 0, 2.988), ("3b", 1, 4.747),
     ("3b", 4, 10.186), ("3b", 8, 17.812), ("8b", 0, 7.922), ("70b", 0, 69.08)],
)  # fmt: skip
def test_larger_models_and_more_answers_cost_the_units_of_the_card(model: str, degree: int, units: float) -> None:
    assert flops_of_node(LARGER.get(model, CARD), *MATH, degree) / UNIT == pytest.approx(units, abs=0.006)


def test_a_number_of_calls_is_no_budget() -> None:
    unit = flops_of_node(CARD, 200, 100, 0)
    star = flops_of_nodes(read_nodes("assistant:3,1>fuser"), lambda role: CARD, 200, 100)
    chain = flops_of_nodes(read_nodes("assistant,1>assistant,2>assistant,3>assistant"), lambda role: CARD, 200, 100)
    assert star / unit == pytest.approx(5.01947, abs=5e-6)
    assert chain / unit == pytest.approx(5.01298, abs=5e-6)


def test_models_of_roles_have_their_own_price() -> None:
    shapes = {"model": CARD, "large": LARGER["3b"]}
    star = flops_of_nodes(read_nodes("assistant:8,1>fuser@large"), shapes.__getitem__, *MATH)
    assert star / UNIT == pytest.approx(25.795, abs=0.001)
    chain = ",".join(["assistant", *(f"{n}>assistant" for n in range(1, 8)), "8>fuser@large"])
    assert flops_of_nodes(read_nodes(chain), shapes.__getitem__, *MATH) / UNIT == pytest.approx(16.855, abs=0.001)


# ---------------------------------------------------------------------------------------------- what it is


def test_isolated_nodes_are_self_consistency() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return f"#### {rng.integers(3)}"

    for seed in range(5):
        one = solved("assistant:7", ScriptedEngine(reply), seed=seed)
        other = run(
            solve_async(problem(), make_strategy("self_consistency", {"n": 7}), model=ScriptedEngine(reply), seed=seed)
        )
        assert (one.answer, one.confidence, one.cost["tokens"]) == (
            other.answer,
            other.confidence,
            other.cost["tokens"],
        )
        assert [a.text for a in one.candidates] == [a.text for a in other.candidates]


def test_one_node_is_one_call_of_the_problem_itself() -> None:
    engine = Voices()
    trace = solved("assistant", engine)
    assert engine.prompts == ["What is 1+1?"]
    assert trace.answer == "1"


def test_a_chain_is_revision_each_attempt_reads_the_one_before_it() -> None:
    engine = Voices()
    trace = solved("assistant,1>assistant,2>assistant", engine)
    assert [shown(prompt) for prompt in engine.prompts] == [{}, {1: "It is #### 1"}, {1: "It is #### 2"}]
    assert trace.answer == "3", "the last one, not the majority"
    assert len(trace.rounds) == 3


def test_a_star_into_a_fuser_is_fusion_which_reads_all_answers_of_all_models() -> None:
    main, other = Voices(), Voices(name="other")
    trace = solved("assistant:2,assistant@large,1-2>fuser@large", main, {"large": other})
    assert asked(trace) == {"model": 2, "large": 2}
    merged = other.prompts[-1]
    assert sorted(shown(merged).values()) == ["It is #### 1", "It is #### 1", "It is #### 2"]
    assert merged.startswith("What is 1+1?\n\nHere are candidate answers")
    assert other.sent[-1].temperature == 0.3
    assert trace.answer == "2", "the fuser's, though the majority of the others is 1"


def test_what_nobody_reads_votes_and_what_is_read_does_not() -> None:
    engine = Voices()
    trace = solved("assistant:2,1>assistant,assistant", engine)
    texts = {one.id: one.text for one in trace.candidates}
    voting = {texts[name] for name in trace.rounds[-1].candidates}
    assert len(voting) == 2
    assert voting == {*texts.values()} - {*shown(engine.prompts[-1]).values()}


def test_an_answer_that_cannot_be_read_goes_no_further() -> None:
    engine = Voices(silent=(1,))
    trace = solved("assistant:2,1>fuser", engine)
    assert shown(engine.prompts[-1]) == {1: "It is #### 2"}
    assert trace.answer == "3"
    silent = solved("assistant,1>fuser", Voices(silent=(1,)))
    assert silent.answer is None
    assert asked(silent) == {"model": 1}, "a fuser with nothing to read is not asked"
    assert any("nodes without an answer that can be read: 2" in note for note in silent.notes)


def test_where_a_reader_fails_what_it_read_still_stands() -> None:
    trace = solved("assistant:2,1>fuser", Voices(silent=(3,)))
    assert trace.answer in ("1", "2")


def test_a_role_that_no_model_has_is_refused_before_anything_is_asked() -> None:
    engine = Voices()
    with pytest.raises(MissingResource, match="answer_graph names the role 'large' and no model has it"):
        solved("assistant,assistant@large,1-2>fuser", engine)
    assert not engine.sent
    assert solved("assistant:2,1>fuser", engine).answer == "3", "a fuser without a role asks the main model at need"


def test_a_graph_without_edges_is_replayed_and_others_say_why_not() -> None:
    nothing = dict.fromkeys(entry.name for entry in fields(Drawn))
    drawn = Drawn(**nothing | {"keys": np.array([[0, 1, 1, 2], [2, 2, 0, 0]])})
    three = make_strategy("answer_graph", {"nodes": "assistant:2,assistant"}).replay(drawn)  # type: ignore[attr-defined]
    assert three.index.tolist() == [1, 0]
    assert three.used.tolist() == [3, 3]
    for nodes, sentence in (("assistant:5", "the graph makes 5 calls"), ("assistant,1>fuser", "no node reads answers")):
        with pytest.raises(UsageError, match=sentence):
            make_strategy("answer_graph", {"nodes": nodes}).replay(drawn)  # type: ignore[attr-defined]


def test_the_nodes_of_a_level_need_not_be_in_order() -> None:
    nodes = checked_nodes(read_nodes("assistant,1>assistant,assistant,2+3>fuser"))
    assert levels(nodes) == [[0, 2], [1], [3]]
