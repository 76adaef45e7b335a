"""Recordings by columns: found line by line, while they grow, and also where a line is damaged."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from outthink import __version__
from outthink.cost.kinetics import of_trace
from outthink.errors import UsageError
from outthink.models.engine import Shape
from outthink.models.scripted import ScriptedEngine
from outthink.records.ends import TokenEnds
from outthink.records.runs import Result, Store
from outthink.view.compare import compared, sign_test
from outthink.view.entries import in_units
from outthink.view.lines import LineFile
from outthink.view.mailed import joined, mailed
from outthink.view.overview import overview
from outthink.view.pages import STATIC, dumped, static
from outthink.view.recordings import Query, RecordFile, Shelf, hashed
from tests.tools.recorded import trace_of, write_lines, write_results, write_run

VENDOR = STATIC / "vendor"


def read(path: Path, **options: Any) -> RecordFile:
    recording = RecordFile(path.stem, path, **options)
    while recording.advance(1.0):
        pass
    return recording


def test_lines_are_found_as_a_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\r\n{"c"')
    file = LineFile(path)
    assert not file.grow()
    assert [file.line(place) for place in range(len(file))] == [b'{"a": 1}', b'{"b": 2}']
    assert file.unfinished
    with path.open("ab") as more:
        more.write(b": 3}\n")
    file.grow()
    assert (len(file), file.line(2), file.unfinished) == (3, b'{"c": 3}', False)
    with pytest.raises(IndexError):
        file.line(3)
    path.write_bytes(b"{}\n")  # another file of the same name
    assert file.grow()
    assert [file.line(0)] == [b"{}"]
    path.unlink()
    with pytest.raises(UsageError, match="No such file"):
        file.grow()


def test_lines_are_found_across_chunks(tmp_path: Path) -> None:
    lines = [b"x" * (1 << 21), b"", b"y" * (1 << 22), b"z"]
    (tmp_path / "a").write_bytes(b"".join(line + b"\n" for line in lines))
    file = LineFile(tmp_path / "a")
    file.grow()
    assert [file.line(place) for place in range(4)] == lines


def test_packed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl.gz"
    row = {"id": "q", "samples": [{"text": "4", "correct": True, "tokens": 1}]}
    with gzip.open(path, "wt") as file:
        file.write(json.dumps(row) + "\n" + json.dumps({**row, "id": "r"}) + "\n")
    recording = read(path)
    assert [row["problem"] for row in recording.rows([0, 1])] == ["q", "r"]
    recording.close()
    path.write_bytes(path.read_bytes()[:-12])
    broken = read(path)
    assert broken.error
    assert "ended before" in broken.error
    broken.close()


def results(count: int) -> list[Result]:
    """Right, wrong, ungraded and without an answer, in turn."""
    made = []
    for n in range(count):
        trace = replace(trace_of(f"p{n}", ["x" * (n + 1)], answer=None if n % 4 == 3 else str(n % 3)), seconds=float(n))
        credit = (1.0, 0.0, None, 0.0)[n % 4]
        made.append(
            Result(problem=f"p{n}", credit=credit, trace=replace(trace, stopped="budget" if n % 5 == 0 else "finished"))
        )
    return made


@pytest.fixture
def run(tmp_path: Path) -> RecordFile:
    folder = write_results(tmp_path / "run", results(20))
    return read(folder / "results.jsonl", settings={}, total=20)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (Query(), [*range(20)]),
        (Query(verdict="right"), [0, 4, 8, 12, 16]),
        (Query(verdict="wrong"), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]),
        (Query(verdict="ungraded"), [2, 6, 10, 14, 18]),
        (Query(verdict="none"), [3, 7, 11, 15, 19]),
        (Query(stopped="budget"), [0, 5, 10, 15]),
        (Query(stopped="deadline"), []),
        (Query(strategy="self_consistency", least=20, most=22), [16, 17, 18]),  # 3 tokens of the prompt, and n + 1
        (Query(unit="seconds", least=18), [18, 19]),
        (Query(unit="usd", least=0), []),  # not known of any
        (Query(text="p1"), [1, *range(10, 20)]),
        (Query(text="1p"), []),  # the end of one id and the beginning of the next
        (Query(order="seconds", down=True, verdict="right"), [16, 12, 8, 4, 0]),
        (Query(down=True, stopped="budget"), [15, 10, 5, 0]),
    ],
)
def test_queries_choose_lines(run: RecordFile, query: Query, wanted: list[int]) -> None:
    assert run.chosen(query).tolist() == wanted


def test_what_differs_is_told_by_credit_and_where_there_is_none_by_answer(run: RecordFile, tmp_path: Path) -> None:
    changed = results(20)[:12][::-1]  # in another order, and not all
    changed[3] = replace(changed[3], credit=0.0)  # p8 was right
    trace = changed[1].trace
    assert trace is not None
    last = replace(trace.rounds[-1], answer="other", key="other")
    changed[1] = replace(changed[1], trace=replace(trace, rounds=(last,)))  # p10 is ungraded
    other = read(write_results(tmp_path / "other", changed) / "results.jsonl", settings={})
    assert run.chosen(Query(differs=other)).tolist() == [8, 10]
    assert run.places(other).tolist() == [*range(11, -1, -1), *[-1] * 8]
    assert read(write_lines(tmp_path / "none.jsonl", [])).places(run).tolist() == []


def test_what_cannot_be_read_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "run", results(3))
    path = folder / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    other = json.dumps({**json.loads(lines[1]), "schema": 99}).encode() + b"\n"
    path.write_bytes(lines[0] + b"\xff\xfe\n" + other + b"[1]\n" + b"\n" + lines[2] + b'{"problem"')
    recording = read(path, settings={}, total=3)
    told = recording.described()
    assert told["error"] is None
    assert told["notes"] == [
        "Lines that cannot be read: 4, the first one is line 2; all others are shown.",
        "The last line is unfinished: it is still being written, or was cut off.",
    ]
    rows = recording.rows(recording.chosen(Query()).tolist())
    assert [row["problem"] for row in rows] == ["p0", "", "", "", "", "p2"]
    assert rows[1]["error"] == "This line is damaged: it is no JSON."
    assert "another version" in rows[2]["error"]
    assert recording.entry(5)["problem"] == "p2"
    for line in (1, 2, 3, 4):
        with pytest.raises(UsageError, match=r"^This line"):
            recording.entry(line)
    with pytest.raises(UsageError, match="no line 7"):
        recording.entry(6)


@pytest.mark.parametrize("line", ["", "{}", "no json", '{"name": 1}', "[]", '{"problem": 1}', '"text"', "[" * 99999])
def test_foreign_files_are_told(tmp_path: Path, line: str) -> None:
    recording = read(write_lines(tmp_path / "x.jsonl", [line]))
    assert recording.error is not None
    assert "holds neither" in recording.error
    assert recording.described()["form"] is None
    assert overview(recording) == []
    assert recording.rows([0]) == []


def test_a_run_is_being_written_only_while_somebody_writes(tmp_path: Path) -> None:
    """Else it was stopped; and one that is damaged is damaged, whatever it lacks."""

    def state() -> str:
        (recording,) = Shelf([tmp_path]).recordings
        recording.advance(1.0)
        told: str = recording.described()["state"]
        return told

    run = write_results(tmp_path / "run", [Result(problem="a", credit=1.0)], problems=["a", "b"])
    assert state() == "writing"
    for file in run.iterdir():
        os.utime(file, (0, 0))
    assert state() == "unfinished"
    (run / "results.jsonl").write_text("{}\n{}\n", encoding="utf-8")
    assert state() == "damaged"
    write_lines(run / "results.jsonl", ["x"])
    assert state() == "damaged"
    write_results(tmp_path / "run2", [Result(problem="a", credit=1.0)])
    (run / "results.jsonl").unlink()
    (run / "run.json").unlink()
    (run / "journal.jsonl").unlink()
    assert state() == "whole"


def test_an_empty_file_is_waited_for(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [])
    recording = read(path)
    assert (recording.error, recording.form) == (None, None)
    write_lines(path, [trace_of("p", ["1"]).to_json()])
    recording.advance(1.0)
    assert (recording.form, recording.rows([0])[0]["problem"]) == ("traces", "p")


def test_a_shelf_takes_what_is_in_folders_and_what_comes(tmp_path: Path) -> None:
    write_results(tmp_path / "runs" / "a", results(2))
    write_lines(tmp_path / "runs" / "pool.jsonl", [{"id": "q", "samples": [{"text": "4", "correct": True}]}])
    (tmp_path / "runs" / "notes.txt").write_text("no")
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "run.json").write_text("{")
    shelf = Shelf([tmp_path / "runs", tmp_path / "later"])
    assert [one.name for one in shelf.recordings] == ["runs/a", "runs/b", "runs/pool"]
    for recording in shelf.recordings:
        recording.advance(1.0)
    assert "is damaged" in shelf.recordings[1].described()["notes"][0]
    assert shelf.recordings[1].error is not None  # it has no results
    assert not shelf.look()
    write_results(tmp_path / "later", results(1))
    assert shelf.look()
    assert [one.total for one in shelf.recordings] == [2, None, None, 1]


def test_a_run_that_is_just_being_made_is_a_run(tmp_path: Path) -> None:
    """Its files are there a moment before its settings are."""
    (tmp_path / "run").mkdir()
    for name in ("results.jsonl", "journal.jsonl"):
        (tmp_path / "run" / name).touch()
    shelf = Shelf([tmp_path])
    assert shelf.recordings == []
    write_results(tmp_path / "run", results(1))
    assert shelf.look()
    assert [recording.total for recording in shelf.recordings] == [1]


def test_what_is_being_solved_is_read_from_the_journal(tmp_path: Path) -> None:
    settings = {"task": "t", "strategy": {"name": "greedy"}, "shard": None, "problems": ["p0", "p1"]}
    with Store(tmp_path / "run", settings) as store:
        for result in results(2):
            assert result.trace is not None
            store.journal(result.problem, result.trace.calls[0])
        store.record(results(1)[0])
        (recording,) = Shelf([tmp_path / "run"]).recordings
        recording.advance(1.0)
        assert recording.running() == [{"problem": "p1", "cost": {"tokens": 5.0}}]
        store.record(results(2)[1])
    recording.advance(1.0)
    assert recording.running() == []


def test_pairs_are_compared_over_what_both_have_graded(tmp_path: Path) -> None:
    one = read(write_run(tmp_path / "one", "greedy", right=0.9, count=30) / "results.jsonl", settings={})
    two = read(write_run(tmp_path / "two", "greedy", right=0.2, count=25) / "results.jsonl", settings={})
    mine = {row["problem"]: row["credit"] for row in one.rows(range(30))}
    its = {row["problem"]: row["credit"] for row in two.rows(range(25))}
    told = compared([(3, one), (5, two)])
    (pair,) = told["pairs"]
    wins = {name for name in its if mine[name] > its[name]}
    losses = {name for name in its if mine[name] < its[name]}
    assert (pair["a"], pair["b"], pair["problems"]) == (3, 5, 25)
    assert {line["problem"] for line in pair["lines_a"]} == wins
    assert {line["problem"] for line in pair["lines_b"]} == losses
    assert (pair["only_a"], pair["only_b"]) == (len(wins), len(losses))
    assert pair["both"] + pair["neither"] + pair["only_a"] + pair["only_b"] == 25
    assert pair["difference"][0] == pytest.approx((len(wins) - len(losses)) / 25)
    for line in pair["lines_a"]:
        assert one.problem(line["a"]) == two.problem(line["b"]) == line["problem"]
    answers = [
        {row["problem"]: row["key"] for row in each.rows(range(count))} for each, count in ((one, 30), (two, 25))
    ]
    same = sum(answers[0][name] == answers[1][name] for name in its)
    assert (pair["common"], pair["same"], pair["other"]) == (25, same, 25 - same)
    point = told["points"][0]
    tokens = [row["cost"]["tokens"] for row in one.rows(range(30))]
    assert point["cost"]["tokens"][0] == pytest.approx(sum(tokens) / 30)
    assert point["cost"]["tokens"][1] <= point["cost"]["tokens"][0] <= point["cost"]["tokens"][2]


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 5), (9, 1), (1, 9), (60, 30), (700, 900), (3000, 0)])
def test_the_sign_test_is_exact(wins: int, losses: int) -> None:
    exact = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(exact, rel=1e-9, abs=1e-300)


def test_hashes_do_not_collide_where_they_would_matter() -> None:
    assert len({hashed(f"p{n}") for n in range(20_000)}) == 20_000


def test_the_overview_tells_method_command_and_reading(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "best_of_n?n=2", verifier="confidence")
    (recording,) = Shelf([folder]).recordings
    recording.advance(5.0)
    told = {section["title"]: section for section in overview(recording)}
    assert "best_of_n" in told["The method"]["lines"][0]
    command = told["To run it again"]["command"]
    assert "outthink bench own.jsonl --strategy best_of_n --n=2" in command
    assert "--verifier confidence" in command
    assert told["How answers were read"]["lines"] == ["Read as math: 16 mark."]
    assert dict(told["Summary"]["rows"])["problems"] == "8 of 8"


def test_eflops_are_known_where_the_shapes_are_and_else_it_is_said_why(tmp_path: Path) -> None:
    """As the cost model says of each trace, in the list, the mean and the comparison."""
    shape = Shape(parameters=1000, layers=2, hidden=8, kv_heads=1, head=4)
    told = {"model": asdict(shape)}
    for name, shapes in (("with", told), ("flat", {"model": {"parameters": 1000}}), ("without", None)):
        write_results(tmp_path / name, results(3), **({} if shapes is None else {"shapes": shapes}))
    shelf = Shelf([tmp_path / name for name in ("with", "flat", "without")])
    for recording in shelf.recordings:
        recording.advance(1.0)
    known = shelf.recordings[0]
    wanted = [float(of_trace(result.trace, {"model": shape}).eflops()) for result in results(3) if result.trace]
    assert [row["cost"]["eflops"] for row in known.rows([0, 1, 2])] == pytest.approx(wanted)
    assert known.described()["cost"]["eflops"] == pytest.approx(np.mean(wanted))
    one, flat, other = compared(list(enumerate(shelf.recordings)))["points"]
    assert one["cost"]["eflops"][0] == pytest.approx(np.mean(wanted))
    assert one["lacking"] is None
    assert "eflops" not in {**flat["cost"], **other["cost"]}
    assert "lacks its heads" in flat["lacking"]
    assert "does not tell the shape of scripted" in other["lacking"]


def test_the_overview_has_bins_and_what_auto_chose(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "auto?n=4", count=6)
    (recording,) = Shelf([tmp_path / "run"]).recordings
    recording.advance(1.0)
    sections = {section["title"]: section for section in overview(recording)}
    assert sum(int(row[2]) for row in sections["Bins of difficulty"]["rows"]) == 6
    chosen = sections["What auto chose"]
    assert sum(int(row[1]) for row in chosen["rows"]) == 6
    assert {row[2] for row in chosen["rows"]} == {"-"}  # without a plan nothing was said
    again = sections["To run it again"]
    assert f"Made by Outthink {__version__}" in again["lines"][0]
    pool = [
        {
            "id": f"q{n}",
            "answer": "1",
            "samples": [{"text": "1", "answer": "1", "correct": k < n % 5} for k in range(4)],
        }
        for n in range(20)
    ]
    write_lines(tmp_path / "pool.jsonl", pool)
    (recording,) = Shelf([tmp_path / "pool.jsonl"]).recordings
    recording.advance(1.0)
    bins = next(section for section in overview(recording) if section["title"] == "Bins of difficulty")
    assert [row[2] for row in bins["rows"]] == ["4"] * 5


def test_a_strategy_that_a_file_names_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = write_results(tmp_path / "run", results(1), strategy={"name": "evil_module:Evil"})
    (recording,) = Shelf([folder]).recordings
    recording.advance(5.0)
    assert "The method" not in {section["title"] for section in overview(recording)}
    assert "evil_module" not in sys.modules


def test_vendored_files_are_as_they_were_vendored() -> None:
    sums = dict(line.split("  ")[::-1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    there = {str(path.relative_to(VENDOR)): path for path in VENDOR.rglob("*") if path.is_file()}
    assert sums.keys() == there.keys() - {"SHA256SUMS"}
    assert {name: sha256(path.read_bytes()).hexdigest() for name, path in there.items() if name in sums} == sums
    packages = (STATIC.parents[3] / "scripts" / "vendor").read_text()
    for name in ("preact", "htm", "katex", "dompurify", "d3-zoom"):
        assert f'"{name}"' in packages
        assert f"{name} " in (VENDOR / "LICENSES").read_text()


def test_the_page_is_small_and_its_files_are_short() -> None:
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    own = [path for path in files if VENDOR not in path.parents]
    assert all(len(path.read_text().splitlines()) <= 700 for path in own)
    assert not any("innerHTML" in path.read_text() for path in own)


@pytest.mark.parametrize(
    "name", ["../pages.py", "vendor/../../pages.py", "/etc/passwd", "", "vendor", "none.js", "x\0.js"]
)
def test_only_files_of_the_page_are_served(name: str) -> None:
    assert static(name) is None


def test_joined_modules_import_nothing() -> None:
    script = joined("app.js")
    assert 'modules["vendor/preact.js"]' in script
    assert not [line for line in script.splitlines() if line.startswith(("import ", "import{", "export "))]
    assert "export{" not in script


def test_a_mailed_file_leaves_out_what_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_results(tmp_path / "run", results(5))
    monkeypatch.setattr("outthink.view.mailed.MOST", 2000)
    shelf = Shelf([folder])
    kept = mailed(shelf.recordings, made="")
    assert "Copyright (c) 2015-present Jason Miller" in kept  # of preact, whose licence wants to be with it
    assert "</script><script>" not in kept.replace("</script>\n<script>", "")
    from outthink.view.mailed import _data

    data = _data(shelf.recordings, "")
    assert len(data["rows"][0]) == 5
    assert 0 < len(data["entries"][0]) < 5


def test_nothing_of_it_is_imported_with_the_package() -> None:
    code = "import outthink, sys; print([name for name in sys.modules if 'outthink.view' in name or 'aiohttp' in name])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_numbers_that_are_none_stay_none(tmp_path: Path) -> None:
    empty = read(write_results(tmp_path / "run", []) / "results.jsonl", settings={}, total=0)
    told = empty.described()
    assert (told["accuracy"], told["cost"]["tokens"], told["lines"]) == (None, None, 0)
    assert compared([(0, empty)]) == {"points": [], "pairs": [], "intensity": 562.5}
    assert not math.isnan(sign_test(0, 0))


def test_places_are_counted_as_the_page_counts_them() -> None:
    text = "a\U0001f600b\u00e9"
    assert in_units(text, [1, 2, 3, 4]) == [1, 3, 4, 5]
    assert [len(text[:end].encode("utf-16-le")) // 2 for end in range(5)] == in_units(text, range(5))
    assert in_units("", []) == []


def test_ends_of_tokens_are_told_by_the_model_that_wrote_them(tmp_path: Path) -> None:
    trace = trace_of("p", ["It is \U0001f600 4."])
    one = replace(trace.candidates[0], token_ids=tuple(map(ord, "It is \U0001f600 4.")), logprobs=(-0.5,) * 10)
    unknown = replace(one, address=("model", 0, 1), text="other")
    path = write_lines(tmp_path / "t.jsonl", [replace(trace, candidates=(one, unknown)).to_json()])
    engine = ScriptedEngine(lambda request, child, rng: "")  # each of its tokens is a character
    ends = asyncio.run(read(path).ends(0, TokenEnds(engine)))
    assert ends == {"model/0/0": [1, 2, 3, 4, 5, 6, 8, 9, 10, 11]}


def test_runs_that_nobody_graded_are_compared_by_their_answers(tmp_path: Path) -> None:
    """As those of a server and its shadow."""
    mine = [replace(result, credit=None) for result in results(8)]
    its = [replace(result, trace=trace_of(result.problem, ["x"], answer="1")) for result in mine[:6]]
    one = read(write_results(tmp_path / "one", mine) / "results.jsonl", settings={})
    two = read(write_results(tmp_path / "two", its) / "results.jsonl", settings={})
    told = compared([(0, one), (1, two)])
    assert told["points"] == []
    (pair,) = told["pairs"]
    assert (pair["common"], pair["problems"], pair["difference"]) == (6, 0, [None, None, None])
    assert (pair["same"], pair["other"]) == (2, 3)  # 0 1 2 - 1 2 against 1


@pytest.mark.parametrize(
    ("parents", "told"),
    [
        ({0: "model/0/1", 1: "model/0/0"}, "continues itself"),
        ({0: "model/0/0"}, "continues itself"),
        ({1: "model/9/9"}, "continues none that is there"),
    ],
)
def test_candidates_that_continue_each_other_do_not_hang_it(tmp_path: Path, parents: dict[int, str], told: str) -> None:
    trace = json.loads(trace_of("p", ["a", "b", "c"]).to_json())
    for place, parent in parents.items():
        trace["candidates"][place] |= {"continues": True, "parents": [parent]}
    recording = read(write_lines(tmp_path / "t.jsonl", [trace, trace_of("q", ["1"]).to_json()]))
    first, second = recording.rows([0, 1])
    assert first["damaged"]
    assert told in first["error"]
    assert not second["damaged"]
    assert overview(recording)[0]["title"] == "Summary"


def test_numbers_that_json_does_not_know_are_none() -> None:
    assert dumped({"a": [math.nan, math.inf, -math.inf, 1.5], "b": ("x", None)}) == (
        '{"a": [null, null, null, 1.5], "b": ["x", null]}'
    )
