"""The commands of `search`: what they run, write and charge, and that none chooses by what it is measured on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.cli.searching import Ledger
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import read_results
from outthink.strategies.making import make_strategy


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Two models, of which `good` is right; what each was asked."""
    sent: list[tuple[str, str]] = []

    def opened(name: str, *, price: object = None) -> ScriptedEngine:
        def reply(request: Request, child: int, rng: np.random.Generator) -> str:
            sent.append((name, request.messages[-1].text))
            if name == "guide":
                return json.dumps({"candidates": [[["other", 1], ["other", 1]], [["generator", 2], ["other", 1]]]})
            return "[1] > [2]\n#### 4" if name == "good" else f"#### {rng.integers(5, 9)}"

        return ScriptedEngine(reply, name=name)

    monkeypatch.setattr("outthink.models.open_engine", opened)
    rows = [{"id": f"q{number}", "question": f"Question {number}", "answer": "4"} for number in range(8)]
    Path("eight.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return sent


MODELS = ("eight.jsonl", "--answer", "math", "--role", "generator=bad,other=good")
SIZES = ("--sizes", "generator=1,other=2")


def problems(folder: Path) -> set[str]:
    """Those of all runs below a folder."""
    return {one.problem for run in folder.rglob("run.json") for one in read_results(run.parent)}


def test_it_writes_the_best_architecture_and_measures_it_on_the_other_half(
    outthink: Any, asked: list[tuple[str, str]]
) -> None:
    words = ("search", "archon", *MODELS, "--evaluations", "6", "--calls", "4", "--json")
    result = outthink(*words)
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert told["evaluations"] == 6
    assert told["held_out"] == 1.0
    assert max(told["tried"].values()) == told["tried"][told["best"]]
    assert {name: line["runs"] for name, line in told["spent"].items()} == {"alone": 8, "validation": 24, "held-out": 4}
    strategy = make_strategy("archon", {"config": "archon.toml"})
    assert strategy.built[0][0].model == "other", "the better model is the first"  # type: ignore[attr-defined]
    folder = Path("runs/archon-eight")
    chosen, held = problems(folder / "validation"), problems(folder / "held-out")
    assert len(chosen) == len(held) == 4
    assert not chosen & held
    before = len(asked)
    assert json.loads(outthink(*words).out) == told
    assert len(asked) == before, "what was run is not run again"


def test_a_pipeline_is_searched_by_its_insights(outthink: Any, asked: list[tuple[str, str]]) -> None:
    result = outthink("search", "stages", *MODELS, *SIZES, "--evaluations", "6", "--passes", "2")
    assert result.code == 0, result.err
    assert "on 4 other problems" in result.out
    assert "validation" in result.out
    assert "stages.toml: use it as --strategy archon --config stages.toml" in result.out
    assert "fuser" in Path("stages.toml").read_text(encoding="utf-8")


def test_an_agent_proposes_and_is_charged_and_answers_no_question(outthink: Any, asked: list[tuple[str, str]]) -> None:
    models = ("eight.jsonl", "--answer", "math", "--role", "generator=bad,other=good,agent=guide")
    words = (*models, *SIZES, "--by", "agent", "--evaluations", "8", "--passes", "2", "--json")
    result = outthink("search", "stages", *words)
    assert result.code == 0, result.err
    told = json.loads(result.out)
    prompts = [text for name, text in asked if name == "guide"]
    assert told["spent"]["agent"]["runs"] == len(prompts) > 0
    assert told["spent"]["agent"]["tokens"] > 0
    assert all(text.startswith("You tune a pipeline of 2 stages.") for text in prompts)
    assert not any("Question" in text for text in prompts), "it sees no question"
    assert "generator:2@generator|fuser:1@other" in told["tried"]
    before = len(asked)
    assert json.loads(outthink("search", "stages", *words).out) == told, "its replies are kept with what they cost"
    assert len(asked) == before


@pytest.mark.parametrize("by", ["random", "reinforce", "agent"])
def test_a_graph_is_searched_chosen_and_measured_on_three_different_thirds(
    outthink: Any, asked: list[tuple[str, str]], by: str
) -> None:
    words = ("search", "graph", *MODELS, *SIZES, "--by", by, "--evaluations", "4", "--batch", "2", "--nodes", "4")
    result = outthink(*words, "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    folder = Path("runs/graph-eight")
    parts = [problems(folder / name) for name in ("search", "again", "held-out")]
    assert [len(part) for part in parts] == [3, 3, 2]
    assert len(set.union(*parts)) == 8, "none is in two of them"
    assert problems(folder / "alone") | problems(folder / "pre-test") <= parts[0]
    spent = told["spent"]
    assert spent["alone"]["runs"] == 2 * 3
    assert spent["search"]["runs"] == 2 * len(told["tried"])
    assert spent["pre-test"]["runs"] <= 10
    assert 1 <= told["evaluations"] == len(told["tried"]) <= 4, "a small mix has few graphs"
    assert ("agent" in spent) == (by == "agent"), "the main model is the agent where no other one is"
    strategy = make_strategy("answer_graph", {"config": "graph.toml"})
    assert told["best"] in {*told["tried"], "assistant@other"}
    assert told["again"][told["best"]] == max(told["again"].values()), "what decided is told"
    assert make_strategy("answer_graph", {"nodes": told["best"]}).built == strategy.built  # type: ignore[attr-defined]
    before = len(asked)
    assert json.loads(outthink(*words, "--json").out) == told
    assert len(asked) == before, "neither runs nor what an agent said are paid for again"


def test_a_file_of_replies_that_is_none_is_named(outthink: Any, asked: list[tuple[str, str]]) -> None:
    Path("runs/stages-eight").mkdir(parents=True)
    Path("runs/stages-eight/agent.jsonl").write_text('{"told": 1}\n', encoding="utf-8")
    result = outthink("search", "stages", *MODELS, *SIZES, "--by", "agent")
    assert result.code == 2
    assert "Line 1 of runs/stages-eight/agent.jsonl is no reply of an agent: remove it." in result.err


def test_what_a_search_has_spent_is_shown(outthink: Any, asked: list[tuple[str, str]]) -> None:
    result = outthink("search", "graph", *MODELS, *SIZES, "--evaluations", "2", "--nodes", "3")
    assert result.code == 0, result.err
    for phase in ("alone", "pre-test", "search", "again", "held-out", "right in the end"):
        assert phase in result.out
    assert "graph.toml: use it as --strategy answer_graph --config graph.toml" in result.out


def test_what_interrupted_work_has_cost_is_among_what_is_spent(outthink: Any, asked: list[tuple[str, str]]) -> None:
    words = ("search", "archon", *MODELS, "--evaluations", "3", "--calls", "4", "--json")
    result = outthink(*words)
    assert result.code == 0, result.err
    before = json.loads(result.out)["spent"]["validation"]["tokens"]
    journal = next(Path("runs").glob("archon-eight/validation/*/journal.jsonl"))
    line = json.loads(journal.read_text(encoding="utf-8").splitlines()[0])
    with journal.open("a", encoding="utf-8") as file:  # as an attempt that was killed leaves it
        file.write(json.dumps({**line, "cost": {**line["cost"], "tokens": 1000}}) + "\n")
    assert json.loads(outthink(*words).out)["spent"]["validation"]["tokens"] == pytest.approx(before + 1000)


def test_a_ledger_leaves_out_a_unit_that_is_not_known_of_all() -> None:
    ledger = Ledger()
    ledger.add("search", 2, {"tokens": 10.0, "usd": 0.5, "seconds": 3.0})
    ledger.add("search", 1, {"tokens": 5.0})
    ledger.add("search", 1, {"tokens": 5.0, "usd": 0.5})
    ledger.add("agent", 1, {"tokens": 7.0, "flops": 9.0})
    assert ledger.lines == {"search": {"runs": 4, "tokens": 20.0}, "agent": {"runs": 1, "tokens": 7.0, "flops": 9.0}}
    assert ledger.header() == ("spent on", "runs", "flops", "tokens")
    assert ledger.rows() == [("search", "4", "", "20"), ("agent", "1", "9", "7")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("stages", *MODELS),
            "The size of the model of generator is not known: give --sizes generator=SIZE,other=SIZE",
        ),
        (("stages", *MODELS, *SIZES, "--stages", "100000"), "settings: take fewer stages."),
        (("stages", *MODELS, *SIZES, "--passes", "nan"), "passes must be a number above 0, not nan"),
        (("graph", *MODELS, *SIZES, "--budget", "5-tokens"), "No graph could be evaluated. One sample can cost"),
        (("archon", *MODELS, "--budget", "5-tokens"), "No setting could be evaluated. One sample can cost"),
        (
            ("stages", *MODELS, "--sizes", "generator=x"),
            "Cannot read the size 'generator=x'; write --sizes ROLE=NUMBER",
        ),
        (("stages", *MODELS, "--sizes", "generator=0,other=1"), "Give the size of each model, above 0"),
        (("archon", *MODELS, "--limit", "3"), "There are 3 problems; a search needs at least 4, half of them"),
        (("graph", *MODELS, "--limit", "5"), "There are 5 problems; a search needs at least 6, a third of them"),
        (("graph", *MODELS), "The size of the model of generator is not known: give --sizes generator=SIZE,other=SIZE"),
        (("graph", *MODELS, *SIZES, "--end", "huge"), "--end huge: there is no model of this role"),
        (
            ("archon", *MODELS, "--out", "best.json"),
            "Cannot write best.json: name a .toml file in a folder that exists",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    outthink: Any, asked: list[tuple[str, str]], words: tuple[str, ...], sentence: str
) -> None:
    result = outthink("search", *words)
    assert result.code == 2
    assert sentence in result.err
    assert not asked, "nothing is paid for before it is told"


@pytest.mark.parametrize("what", ["archon", "graph"])
def test_a_search_without_optuna_says_so_before_anything_is_paid_for(
    outthink: Any, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = outthink("search", what, *MODELS, *(SIZES if what == "graph" else ()), "--by", "tpe")
    assert result.code != 0
    assert "needs Optuna" in result.err
    assert not asked
