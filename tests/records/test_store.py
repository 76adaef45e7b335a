"""Run directories and their files: whatever ends a writer, no finished line is lost, and damage is named."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from outthink import jsonl
from outthink.errors import OutthinkError, UsageError
from outthink.records.runs import JOURNAL, RESULTS, RUN, Result, Store, differences, merge, read_results, read_settings
from outthink.types import Budget, Call, Candidate, Round, Sampling, Trace, Usage

SETTINGS: dict[str, Any] = {
    "strategy": {"name": "self_consistency", "n": 4},
    "sampling": {"temperature": 0.8},
    "seed": 0,
    "shard": None,
    "problems": ["a", "b", "c"],
}


def call(tokens: float, usd: float = 0.0) -> Call:
    cost = {"tokens": tokens, "usd": usd} if usd else {"tokens": tokens}
    return Call(kind="sample", role="model", address=("model", 0, 0), charged=Usage(completion=int(tokens)), cost=cost)


def result(name: str, *calls: Call, credit: float = 1.0) -> Result:
    trace = Trace(
        problem=name,
        strategy={"name": "self_consistency", "n": 4},
        seed=0,
        sampling=Sampling(),
        budget=Budget({"tokens": 100.0}),
        resources={"model": "scripted"},
        candidates=(Candidate(address=("model", 0, 0), text="ü\n\x00", logprobs=(-1 / 3,), answer="1", key="1"),),
        rounds=(Round(candidates=("model/0/0",), chosen="model/0/0", answer="1", key="1"),),
        calls=calls,
        stopped="finished",
    )
    return Result(problem=name, credit=credit, trace=trace)


def names(folder: Path) -> list[str]:
    return [result.problem for result in read_results(folder)]


# ---------------------------------------------------------------- lines


def test_a_half_written_last_line_is_cut_off_wherever_it_ends(tmp_path: Path) -> None:
    lines = [b'{"a":1}\n', b'{"b":"\xc3\xbc"}\n', b'{"c":[1,2,{}]}\n']
    path = tmp_path / "file.jsonl"
    for length in range(len(b"".join(lines)) + 1):
        path.write_bytes(b"".join(lines)[:length])
        # a line counts once its object is whole, with or without its line break
        whole = sum(length >= len(b"".join(lines[: i + 1])) - 1 for i in range(3))
        assert [number for number, _ in jsonl.read(path)] == list(range(1, whole + 1))
        with jsonl.Appender(path) as file:
            file.append('{"new":0}')
        assert path.read_bytes() == b"".join(lines[:whole]) + b'{"new":0}\n'


def test_zeros_that_a_power_failure_leaves_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'{"a":1}\n' + b"\0" * 50)
    with jsonl.Appender(path) as file:
        file.append("{}")
    assert path.read_bytes() == b'{"a":1}\n{}\n'


@pytest.mark.parametrize("broken", [b'{"b":\n', b"\n", b"[1]\n", b"\xff\n", b"[" * 100_000 + b"\n"])
def test_a_broken_line_elsewhere_is_named(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'{"a":1}\n' + broken + b'{"c":3}\n')
    with pytest.raises(UsageError, match=r"Line 2 .* damaged"):
        list(jsonl.read(path))


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b"buy milk")
    with pytest.raises(UsageError, match="Line 1"):
        jsonl.Appender(path)
    with pytest.raises(UsageError, match="Line 1"):
        list(jsonl.read(path))
    assert path.read_bytes() == b"buy milk"


def test_a_packed_file_is_read_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl.gz"
    packed = gzip.compress(b'{"a":1}\n{"b":2}\n')
    path.write_bytes(packed)
    assert list(jsonl.read(path)) == [(1, {"a": 1}), (2, {"b": 2})]
    path.write_bytes(packed[:-10])
    with pytest.raises(UsageError, match="Cannot read"):
        list(jsonl.read(path))


def test_what_is_added_while_reading_is_not_mistaken_for_a_line(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'{"a":1}\n{"b":')
    reading = jsonl.read(path)
    assert next(reading) == (1, {"a": 1})
    with path.open("ab") as file:
        file.write(b'2}\n{"c":3}\n')
    assert list(reading) == []


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.jsonl"
    write = os.write
    written = 0

    def full(handle: int, data: bytes) -> int:
        nonlocal written
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(handle, data[:5])
        return written

    with jsonl.Appender(path) as file:
        file.append('{"a":1}')
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OutthinkError, match="No space left on device"):
            file.append('{"b":2222222}')
        assert path.read_bytes() == b'{"a":1}\n'
        monkeypatch.undo()
        file.append('{"c":3}')
    assert path.read_bytes() == b'{"a":1}\n{"c":3}\n'


def test_a_file_that_cannot_be_brought_back_in_order_takes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "file.jsonl"
    with jsonl.Appender(path) as file:
        file.append('{"a":1}')
        monkeypatch.setattr(os, "fsync", fail)
        monkeypatch.setattr(os, "ftruncate", fail)
        with pytest.raises(OutthinkError, match="Input/output error"):
            file.append('{"b":2}')
        monkeypatch.undo()
        with pytest.raises(OutthinkError, match="start again"):
            file.append('{"c":3}')


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file size limit of the system")
def test_the_system_itself_refuses_in_the_middle_of_a_line(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from outthink import jsonl
from outthink.errors import OutthinkError
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
with jsonl.Appender(Path(sys.argv[1])) as file:
    file.append('{"a":1}')
    try:
        file.append('{"b":22222222222222222222}')
    except OutthinkError as failure:
        print(failure)
    file.append('{"c":3}')
"""
    path = tmp_path / "file.jsonl"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert path.read_bytes() == b'{"a":1}\n{"c":3}\n'


def test_a_small_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    jsonl.write_whole(path, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutthinkError, match="No space left"):
        jsonl.write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------- one writer


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path, SETTINGS):
        with pytest.raises(UsageError, match="written by another process"):
            Store(tmp_path, SETTINGS)
        assert names(tmp_path) == []  # reading is allowed
    Store(tmp_path, SETTINGS).close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from outthink import jsonl
file = jsonl.Appender(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""
    path = tmp_path / "file.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(UsageError, match="written by another process"):
            jsonl.Appender(path)
        other.send_signal(signal.SIGKILL)
    jsonl.Appender(path).close()


# ---------------------------------------------------------------- run directories


def test_results_come_back_without_loss(tmp_path: Path) -> None:
    results = [result("a", call(3)), Result(problem="b", credit=0.0, error="no luck"), result("c", credit=0.5)]
    with Store(tmp_path, SETTINGS) as store:
        for one in results:
            store.record(one)
    assert list(read_results(tmp_path)) == results
    assert read_settings(tmp_path) == {"schema": 1, **SETTINGS}
    with Store(tmp_path, SETTINGS) as store:
        assert store.before.done == {"a", "b", "c"}


def test_what_interrupted_problems_cost_is_told(tmp_path: Path) -> None:
    with Store(tmp_path, SETTINGS) as store:
        for name, paid in (("a", call(10, 0.5)), ("b", call(20, 1.0)), ("b", call(7, 0.25))):
            store.journal(name, paid)
        store.record(result("a", call(10, 0.5)))
    with Store(tmp_path, SETTINGS) as store:
        assert store.before.interrupted == 1
        assert store.before.lost == pytest.approx({"tokens": 27.0, "usd": 1.25})
        store.journal("b", call(20, 1.0))
        store.record(result("b", call(20, 1.0)))
    with Store(tmp_path, SETTINGS) as store:
        assert store.before.interrupted == 0
        assert store.before.lost == pytest.approx({"tokens": 27.0, "usd": 1.25}), "what was paid twice stays known"


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    with Store(tmp_path, SETTINGS) as store:
        store.record(result("a"))
    changed = {**SETTINGS, "seed": 1, "sampling": {"temperature": 0.7}}
    with pytest.raises(UsageError, match=r"sampling\.temperature is 0\.8 there, 0\.7 now; seed is 0 there, 1 now"):
        Store(tmp_path, changed)
    with pytest.raises(UsageError, match="problems: 3 there, 2 now"):
        Store(tmp_path, {**SETTINGS, "problems": ["a", "b"]})
    with pytest.raises(UsageError, match="problems: number 2 is 'b' there, 'c' now"):
        Store(tmp_path, {**SETTINGS, "problems": ["a", "c", "b"]})
    assert names(tmp_path) == ["a"]
    Store(tmp_path, SETTINGS).close()


def test_a_run_that_paid_for_nothing_may_be_asked_for_anew(tmp_path: Path) -> None:
    Store(tmp_path, SETTINGS).close()
    Store(tmp_path, {**SETTINGS, "seed": 7}).close()
    assert read_settings(tmp_path)["seed"] == 7


def test_differences_of_nested_values() -> None:
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 2}) == []
    assert differences({"a": {"b": 1}}, {"a": None, "d": 4}) == [
        "a is {'b': 1} there, None now",
        "d is None there, 4 now",
    ]


def test_damage_in_a_run_is_named(tmp_path: Path) -> None:
    with Store(tmp_path, SETTINGS) as store:
        store.record(result("a"))
        store.record(result("b"))
    content = (tmp_path / RESULTS).read_bytes()
    first, second = content.splitlines(keepends=True)
    for damaged, message in (
        (b"x" + content, "Line 1 .* damaged"),
        (first + second + first, "Line 3 .* repeats the problem 'a'"),
    ):
        (tmp_path / RESULTS).write_bytes(damaged)
        with pytest.raises(UsageError, match=message):
            Store(tmp_path, SETTINGS)
    (tmp_path / RESULTS).write_bytes(content.replace(b'"schema":1', b'"schema":2'))
    with pytest.raises(UsageError, match="another version"):
        list(read_results(tmp_path))
    (tmp_path / RESULTS).write_bytes(content.replace(b'"finished"', b'"fnord"'))
    with pytest.raises(UsageError, match=r"Line 1 .* damaged"):
        list(read_results(tmp_path))
    (tmp_path / RUN).unlink()
    with pytest.raises(UsageError, match="There is no run"):
        Store(tmp_path, SETTINGS)


def test_a_journal_that_cannot_be_written_stops_the_run_at_the_next_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Store(tmp_path, SETTINGS) as store:
        monkeypatch.setattr(os, "write", full)
        store.journal("a", call(1))
        monkeypatch.undo()
        with pytest.raises(OutthinkError, match="No space left on device"):
            store.record(result("a", call(1)))
    assert names(tmp_path) == ["a"], "the result itself is kept"


# ---------------------------------------------------------------- merging


def shard(folder: Path, place: int, shards: int, **changed: Any) -> Path:
    with Store(folder, {**SETTINGS, "shard": [place, shards], **changed}) as store:
        for name in SETTINGS["problems"][place::shards]:
            store.journal(name, call(5))
            store.record(result(name, call(5)))
    return folder


def test_merged_shards_are_one_run(tmp_path: Path) -> None:
    folders = [shard(tmp_path / str(place), place, 2) for place in (1, 0)]
    merge(folders, tmp_path / "out")
    assert names(tmp_path / "out") == ["a", "b", "c"]
    assert list(read_results(tmp_path / "out")) == [result(name, call(5)) for name in "abc"]
    with Store(tmp_path / "out", SETTINGS) as store:  # as if it had been asked for in one piece
        assert store.before.done == {"a", "b", "c"}
        assert store.before.lost == {"tokens": 0.0}


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    first, last = shard(tmp_path / "0", 0, 3), shard(tmp_path / "2", 2, 3)
    out = tmp_path / "out"
    for folders, message in (
        ([first, last], "shards are missing: 1/3"),
        ([first, first], "are both shard 0/3"),
        ([first, shard(tmp_path / "seed", 1, 3, seed=5), last], "seed is 0 there, 5 now"),
        ([first, shard(tmp_path / "half", 1, 2)], "shard is 3 there, 2 now"),
        ([tmp_path / "nothing"], "There is no run"),
        ([], "Name the folders"),
    ):
        with pytest.raises(UsageError, match=message):
            merge(folders, out)
        assert not out.exists()
    with Store(tmp_path / "1", {**SETTINGS, "shard": [1, 3]}):
        pass
    with pytest.raises(UsageError, match=r"1 unfinished problems \(first 'b'\)"):
        merge([first, tmp_path / "1", last], out)
    with Store(tmp_path / "whole", SETTINGS):
        pass
    with pytest.raises(UsageError, match="whole already"):
        merge([tmp_path / "whole"], out)
    with pytest.raises(UsageError, match="there already"):
        merge([first], first)


def test_lines_hold_no_gold_answers(tmp_path: Path) -> None:
    with Store(tmp_path, SETTINGS) as store:
        store.journal("a", call(5))
        store.record(result("a", call(5)))
    assert json.loads((tmp_path / RESULTS).read_text()).keys() == {"problem", "credit", "error", "trace", "schema"}
    assert json.loads((tmp_path / JOURNAL).read_text()) == {
        "problem": "a",
        "address": ["model", 0, 0],
        "cost": {"tokens": 5.0},
        "charged": {"prompt": 0, "cached": 0, "completion": 5},
    }
