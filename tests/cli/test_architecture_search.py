"""The command `archon search`: what it runs and writes, and that it chooses on one half of the problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
            return "[1] > [2]\n#### 4" if name == "good" else f"#### {rng.integers(5, 9)}"

        return ScriptedEngine(reply, name=name)

    monkeypatch.setattr("outthink.models.open_engine", opened)
    rows = [{"id": f"q{number}", "question": f"Question {number}", "answer": "4"} for number in range(8)]
    Path("eight.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return sent


SEARCH = (
    "archon",
    "search",
    "eight.jsonl",
    "--answer",
    "math",
    "--role",
    "generator=bad,other=good",
    "--evaluations",
    "6",
)


def test_it_writes_the_best_architecture_and_measures_it_on_the_other_half(
    outthink: Any, asked: list[tuple[str, str]]
) -> None:
    result = outthink(*SEARCH, "--calls", "4", "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert told["evaluations"] == 6
    assert told["held_out"] == 1.0
    assert max(told["validation"].values()) == told["validation"][told["architecture"]]
    strategy = make_strategy("archon", {"config": "archon.toml"})
    assert strategy.built[0][0].model == "other", "the better model is the first"  # type: ignore[attr-defined]
    folder = Path("runs/archon-eight")
    chosen = {one.problem for run in (folder / "validation").iterdir() for one in read_results(run)}
    held = {one.problem for run in (folder / "held-out").iterdir() for one in read_results(run)}
    assert len(chosen) == len(held) == 4
    assert not chosen & held
    before = len(asked)
    assert json.loads(outthink(*SEARCH, "--calls", "4", "--json").out) == told
    assert len(asked) == before, "what was run is not run again"


def test_a_pipeline_is_searched_by_its_insights(outthink: Any, asked: list[tuple[str, str]]) -> None:
    words = (*SEARCH, "--stages", "2", "--by", "insights", "--sizes", "generator=1,other=2", "--passes", "2")
    result = outthink(*words)
    assert result.code == 0, result.err
    assert "on 4 other problems" in result.out
    assert "archon.toml: use it as --strategy archon --config archon.toml" in result.out
    assert "fuser" in Path("archon.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ("--stages", "2", "--by", "insights"),
            "--stages needs the size of each model: --sizes generator=SIZE,other=SIZE",
        ),
        (("--stages", "1", "--sizes", "generator=x"), "Cannot read the size 'generator=x'; write --sizes ROLE=NUMBER"),
        (("--by", "insights"), "insights needs a pipeline whose stages have a model and an amount each"),
        (("--limit", "3"), "There are 3 problems; a search needs at least 4"),
        (("--out", "best.json"), "Cannot write best.json: name a .toml file in a folder that exists"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    outthink: Any, asked: list[tuple[str, str]], more: tuple[str, ...], sentence: str
) -> None:
    result = outthink(*SEARCH, *more)
    assert result.code == 2
    assert sentence in result.err
