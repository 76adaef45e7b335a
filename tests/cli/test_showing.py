"""`outthink show`: failures first, every candidate once in its tree, how it was read, and no control sequence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import Result, Store
from outthink.types import Budget, Candidate, Round, Sampling, Trace
from tests.cli.test_cli import bench
from tests.records.test_frames import write_run
from tests.records.test_store import SETTINGS

EVIL = "\x1b[2J\x1b]0;title\x07\u202e[red]bold[/red]\x9b1m"


def candidate(*address: str | int, text: str = "", parents: tuple[str, ...] = (), **more: Any) -> Candidate:
    return Candidate(address=address, text=text, parents=parents, continues=len(parents) == 1, tokens=3, **more)


def write(folder: Path, *candidates: Candidate, rounds: tuple[Round, ...] = (), problem: str = "p") -> Path:
    trace = Trace(
        problem=problem,
        strategy={"name": "beam"},
        seed=0,
        sampling=Sampling(),
        budget=Budget(),
        resources={"model": "m"},
        candidates=candidates,
        rounds=rounds,
        calls=(),
        stopped="finished",
        notes=("one note",),
    )
    with Store(folder, {**SETTINGS, "problems": [problem]}) as store:
        store.record(Result(problem=problem, credit=0.0, trace=trace))
    return folder


def test_a_run_is_shown_with_its_failures_first(outthink: Any) -> None:
    write_run(Path("run"))
    with Store(Path("run"), {**SETTINGS, "task": "own.jsonl", "models": {"model": "scripted"}}):
        pass
    shown = outthink("show", "run")
    lines = shown.out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["b", "wrong"], ["c", "wrong"], ["a", "right"]]
    assert lines[-1] == "3 problems: 2 wrong, 1 right."
    assert "... and 2 more (--limit 3 shows all)." in outthink("show", "run", "--limit", "1").out
    rows = json.loads(outthink("show", "run", "--json").out)
    assert [(row["problem"], row["credit"], row["candidates"]) for row in rows] == [
        ("b", 0, 1),
        ("c", 0, 1),
        ("a", 1, 1),
    ]


def test_a_search_is_shown_as_the_tree_it_was(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate of a real search stands below the one whose text it continues."""

    def steps(request: Request, child: int, rng: Any) -> str:
        return ["Two and two.\n\n", f"That is 4, {child}.\n\n", "#### 4"][request.prefix_text.count("\n\n")]

    monkeypatch.setattr("outthink.models.open_engine", lambda name, price=None: ScriptedEngine(steps))
    words = ("bench", "own.jsonl", "--model", "m", "--strategy", "beam", "--width", "4", "--prm", "random")
    assert outthink(*words, "--delimiter", "\\n\\n", "--out", "run").code == 0
    told = json.loads(outthink("show", "run", "What", "--json").out)
    by_id = {one["id"]: one for one in told["candidates"]}
    out = outthink("show", "run", "What").out
    tree = out[out.index(f"{len(by_id)} candidates") :].splitlines()[1:]
    rows = [(re.search(r"model/\S+", line), line) for line in tree]
    places = {
        match[0].rstrip(","): (line.index(match[0]), number) for number, (match, line) in enumerate(rows) if match
    }
    assert sorted(places) == sorted(by_id), "each candidate once"
    for name, one in by_id.items():
        for parent in one["parents"][:1]:
            assert places[parent][1] < places[name][1], "below what it continues"
            assert places[parent][0] <= places[name][0]
    assert any(one["rule"] == "mark" and one["score"] is not None for one in by_id.values())
    assert "= 4 (mark)" in out
    chosen = [name for name, one in by_id.items() if one["chosen"]]
    assert told["answer"] == "4"
    assert len(chosen) == 3, "a path of three steps is the answer"
    assert all(f"* {name}" in out for name in chosen)


def test_several_parents_are_told_and_the_child_is_there_once(outthink: Any) -> None:
    fused = Candidate(address=("fusor", 0, 0), parents=("model/0/0", "model/0/1"), text="x #### 1", answer="1", key="1")
    drafts = [candidate("model", 0, number, text=f"#### {number}") for number in range(2)]
    rounds = (Round(candidates=("fusor/0/0",), chosen="fusor/0/0", answer="1", key="1", scores=(0.25,)),)
    out = outthink("show", str(write(Path("run"), fused, *drafts, rounds=rounds)), "p").out
    assert out.count("fusor/0/0") == 1
    assert "from model/0/0, model/0/1" in out
    assert "* fusor/0/0 0.25, = 1 (mark), 0 tokens" in out
    assert "Note: one note" in out


def test_the_whole_text_of_a_candidate(outthink: Any) -> None:
    first, second = candidate("model", 0, 0, text="one\n"), candidate("model", 1, 0, text="two", parents=("model/0/0",))
    folder = str(write(Path("run"), first, second))
    assert outthink("show", folder, "p", "model/1/0").out == "one\ntwo\n"
    assert "did you mean 'model/1/0'?" in outthink("show", folder, "p", "model/1/9").err
    assert json.loads(outthink("show", folder, "p", "model/1/0", "--json").out)["text"] == "one\ntwo"


def test_nothing_that_a_model_wrote_moves_the_cursor(outthink: Any) -> None:
    evil = candidate("model", 0, 0, text=EVIL, answer=EVIL, key=EVIL)
    rounds = tuple(Round(candidates=("model/0/0",), chosen="model/0/0", answer=EVIL, key=EVIL) for _ in range(2))
    folder = str(write(Path("run"), evil, rounds=rounds, problem=EVIL))
    for words in ((), (EVIL,), (EVIL, "model/0/0")):
        result = outthink("show", folder, *words)
        assert result.code == 0
        assert not set(result.out + result.err) & {"\x1b", "\x07", "\x9b", "\u202e"}
        assert "[red]bold" in result.out


@pytest.mark.parametrize("columns", ["16", "40", "80"])
def test_a_deep_tree_stays_readable_where_it_is_narrow(
    outthink: Any, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    depth = 40
    nodes = []
    for level in range(depth):
        above = (f"model/{level - 1}/0",) if level else ()
        nodes += [candidate("model", level, number, text=f"step {level}", parents=above) for number in range(2)]
    out = outthink("show", str(write(Path("run"), *nodes)), "p").out
    tree = out[out.index("80 candidates") :]
    assert max(map(len, tree.splitlines()[1:-2])) <= int(columns)
    joined = re.sub(r"[^\w/]", "", tree)  # names are wrapped where there is no room, and none is lost
    assert all(f"model/{level}/{number}" in joined for level in range(depth) for number in range(2))


def test_mistakes_are_one_sentence(outthink: Any) -> None:
    write_run(Path("run"), problems=["own:1", "own:2"])
    for words, said in (
        (("show", "nothing"), "There is no run in nothing"),
        (("show", "pool.jsonl"), "`outthink answers` shows the samples of a pool"),
        (("show", "run", "own"), "part of the ids of 2 problems, such as 'own:1', 'own:2'"),
        (("show", "run", "own:3"), "There is no problem 'own:3'; did you mean 'own:"),
    ):
        result = outthink(*words)
        assert (result.code, result.out) == (2, "")
        assert said in result.err
    assert outthink("show", "run", "2").code == 0


def test_what_was_never_tried_is_shown(outthink: Any) -> None:
    with Store(Path("run"), {**SETTINGS, "problems": ["p"]}) as store:
        store.record(Result(problem="p", credit=0.0, error="it does not fit"))
    assert "1 failed" in outthink("show", "run").out
    assert outthink("show", "run", "p").out == "p: failed: it does not fit\n"
    assert outthink(*bench("--n", "2", "--out", "good")).code == 0
