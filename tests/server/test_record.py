"""Traffic of a server as run directories: nothing that goes wrong with the disk reaches a request or passes unseen."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outthink.errors import UsageError
from outthink.records.runs import RESULTS, Result, Store, read_results, read_settings
from outthink.records.traffic import PROBLEMS, SERVED, SHADOW
from outthink.server.record import WAITING, Recorder
from outthink.types import Trace
from tests.records.test_store import call, result
from tests.tools import serving
from tests.tools.server import Server, run, says

SETTINGS: dict[str, Any] = {"strategy": {"name": "self_consistency", "n": 8}, "models": {"model": "m"}}
OTHER: dict[str, Any] = {"strategy": {"name": "greedy"}, "models": {"model": "m"}}
HELLO = [{"role": "user", "content": "What is ½ + ½?"}]


def trace(name: str) -> Trace:
    trace = result(name, call(5)).trace
    assert trace is not None
    return trace


def names(folder: Path) -> list[str]:
    return [one.problem for one in read_results(folder)]


def asked(folder: Path) -> dict[str, Any]:
    lines = (folder / PROBLEMS).read_text(encoding="utf-8").splitlines()
    return {line["problem"]: line["messages"] for line in map(json.loads, lines)}


def test_what_is_served_and_shadowed_can_be_read_as_runs(tmp_path: Path) -> None:
    failed = replace(trace("c"), rounds=(), stopped="error", error="The server is down.")
    with Recorder(tmp_path / "new" / "traffic", SETTINGS, OTHER) as recorder:
        recorder.served(trace("a"), HELLO)
        recorder.served(trace("b"), [*HELLO, {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}])
        recorder.shadowed(trace("b"))
        recorder.served(failed, [{"role": "user", "content": "lone \ud800 half"}])
    folder = tmp_path / "new" / "traffic"
    assert recorder.lost == 0
    results = list(read_results(folder / SERVED))
    assert all(one.ended is not None and abs(one.ended - time.time()) < 60 for one in results)
    assert [replace(one, ended=None) for one in results] == [
        Result(problem="a", credit=None, trace=trace("a")),
        Result(problem="b", credit=None, trace=trace("b")),
        Result(problem="c", credit=None, error="The server is down.", trace=failed),
    ]
    assert names(folder / SHADOW) == ["b"]
    assert read_settings(folder / SHADOW) == {"schema": 1, **OTHER, "shard": None, "problems": None}
    assert asked(folder) == {
        "a": HELLO,
        "b": [*HELLO, {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}],
        "c": [{"role": "user", "content": "lone ? half"}],
    }
    assert "½" in (folder / PROBLEMS).read_text(encoding="utf-8"), "people read it"


def test_of_media_only_type_and_length_are_kept(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "data:image/png;base64,AAAA is how it begins"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000, "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "image_url", "image_url": {"url": "DATA:" + "A" * 300}},
                {"type": "input_audio", "input_audio": {"data": "UklGR" * 5, "format": "wav"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf,JVBER"}},
            ],
        }
    ]
    with Recorder(tmp_path, SETTINGS) as recorder:
        recorder.served(trace("a"), given)
    ((message,),) = asked(tmp_path).values()
    assert message["content"] == [
        given[0]["content"][0],
        {"type": "image_url", "image_url": {"url": "data:image/png (4,000 characters left out)", "detail": "low"}},
        given[0]["content"][2],
        {"type": "image_url", "image_url": {"url": "data: (305 characters left out)"}},
        {"type": "input_audio", "input_audio": {"data": "(25 characters left out)", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf (5 characters left out)"}},
    ]
    assert len(given[0]["content"][1]["image_url"]["url"]) > 4000, "the request itself is not touched"


@pytest.mark.skipif(sys.platform == "win32", reason="has other permissions")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)  # so that the modes are ours and not those of the process
    try:
        with Recorder(tmp_path / "traffic", SETTINGS, OTHER) as recorder:
            recorder.served(trace("a"), HELLO)
            recorder.shadowed(trace("a"))
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "traffic").rglob("*")}
    assert len(modes) == 11
    assert {oct(mode) for path, mode in modes.items() if path.is_dir()} == {"0o700"}
    assert {oct(mode) for path, mode in modes.items() if path.is_file()} == {"0o600"}
    assert stat.S_IMODE((tmp_path / "traffic").stat().st_mode) == 0o700


def test_a_later_start_goes_on_and_other_settings_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        with Recorder(tmp_path, SETTINGS, OTHER if name == "b" else None) as recorder:
            recorder.served(trace(name), HELLO)
    assert names(tmp_path / SERVED) == ["a", "b"]
    assert list(asked(tmp_path)) == ["a", "b"]
    with pytest.raises(UsageError, match=r"other settings \(strategy\.n is 8 there, 4 now\)"):
        Recorder(tmp_path, {**SETTINGS, "strategy": {"name": "self_consistency", "n": 4}})
    Recorder(tmp_path, SETTINGS).close()  # the one that was refused holds no lock


def test_a_run_without_an_end_does_not_read_what_it_has(tmp_path: Path) -> None:
    with Store(tmp_path, {**SETTINGS, "problems": None}) as store:
        store.record(result("a"))
    line = (tmp_path / RESULTS).read_bytes()
    (tmp_path / RESULTS).write_bytes(b"{not JSON}\n" + line)
    with Store(tmp_path, {**SETTINGS, "problems": None}) as store:
        assert store.before.done == frozenset()


def test_a_second_server_on_the_folder_is_refused(tmp_path: Path) -> None:
    with Recorder(tmp_path / "traffic", SETTINGS) as recorder:
        with pytest.raises(UsageError, match="is being written by another process: wait for it, or stop it"):
            Recorder(tmp_path / "traffic", SETTINGS)
        recorder.served(trace("a"), HELLO)
    assert names(tmp_path / "traffic" / SERVED) == ["a"]
    with Store(tmp_path / "traffic" / SHADOW, {**OTHER, "problems": None}), pytest.raises(UsageError, match="another"):
        Recorder(tmp_path / "traffic", SETTINGS, OTHER)
    Recorder(tmp_path / "traffic", SETTINGS).close()  # what it had opened by then is closed again


def test_a_folder_that_cannot_be_made_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Cannot make the folder"):
        Recorder(tmp_path / "file" / "traffic", SETTINGS)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file size limit of the system")
def test_a_full_disk_is_told_once_and_counted(tmp_path: Path) -> None:
    """The system itself refuses to let the files grow; what had been written stays whole, and requests go on."""
    program = """
import resource, sys
from pathlib import Path
from outthink.server.record import Recorder
from tests.server.test_record import HELLO, SETTINGS, trace
with Recorder(Path(sys.argv[1]), SETTINGS) as recorder:
    recorder.served(trace("a"), HELLO)
with Recorder(Path(sys.argv[1]), SETTINGS) as recorder:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    for name in "bcdef":
        recorder.served(trace(name), HELLO)
print(recorder.lost)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    kept = names(tmp_path / SERVED)
    assert kept == ["a"]
    assert done.stdout == "5\n"
    (said,) = done.stderr.splitlines()  # without a handler, Python prints errors
    assert "File too large" in said
    assert "Requests are served as ever" in said
    with Recorder(tmp_path, SETTINGS) as recorder:  # there is room again
        recorder.served(trace("g"), HELLO)
    assert names(tmp_path / SERVED) == ["a", "g"]


def test_a_trace_that_cannot_be_written_loses_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with Recorder(tmp_path, SETTINGS) as recorder:
        recorder.served(trace("a"), HELLO)
        recorder.served(replace(trace("b"), resources={"model": "\ud800"}), HELLO)
        recorder.served(trace("c"), [{"role": "user", "content": "?", "x": deep}])
        recorder.served(trace("d"), [{"role": "user", "content": [{"no": "type"}]}])
        recorder.served(trace("e"), HELLO)
    assert names(tmp_path / SERVED) == ["a", "e"]
    assert recorder.lost == 3
    assert [(record.name, record.levelno) for record in caplog.records] == [("outthink.server", logging.ERROR)]


def test_what_is_half_a_character_in_a_field_is_recorded_all_the_same(tmp_path: Path) -> None:
    """How samples were drawn is in the trace as it was sent, and callers send anything."""

    async def go() -> None:
        with Recorder(tmp_path, SETTINGS) as recorder:
            async with Server(says("4")) as up, serving.serving(up, recorder=recorder) as (url, _):
                for model in ("m+none", "m+self_consistency"):
                    body = serving.chat(model=model, stop=["\ud800"], user="\udfff", presence_penalty=0.5)
                    assert (await serving.asked(url, body)).status == 200
        assert recorder.lost == 0

    run(go())
    kept = [result.trace for result in read_results(tmp_path / SERVED)]
    stops = [call.sampling["stop"] for trace in kept if trace for call in trace.calls if call.sampling]
    assert len(kept) == 2
    assert stops
    assert all(stop == ["?"] for stop in stops)


def test_a_slow_disk_holds_nobody_up_and_what_does_not_fit_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, free = threading.Event(), threading.Event()
    recorder = Recorder(tmp_path, SETTINGS)
    sync = os.fsync

    def slow(handle: int) -> None:
        stuck.set()
        assert free.wait(30)
        sync(handle)

    monkeypatch.setattr(os, "fsync", slow)
    recorder.served(trace("first"), HELLO)
    assert stuck.wait(30)  # from here on the thread takes nothing more out of the queue
    for number in range(WAITING + 7):
        recorder.served(trace(str(number)), HELLO)
    assert recorder.lost == 7
    assert "the disk is slower than the traffic" in caplog.text
    free.set()
    recorder.close()
    assert names(tmp_path / SERVED) == ["first", *map(str, range(WAITING))]
    assert recorder.lost == 7


def test_what_may_not_have_reached_the_disk_counts_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(handle: int) -> None:
        raise OSError(5, "Input/output error")

    recorder = Recorder(tmp_path, SETTINGS)
    monkeypatch.setattr(os, "fsync", failing)
    recorder.served(trace("a"), HELLO)
    recorder.close()
    assert recorder.lost == 1
    assert "Input/output error" in caplog.text


def test_after_the_end_nothing_is_kept(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, SETTINGS, OTHER)
    recorder.close()
    recorder.close()
    recorder.served(trace("a"), HELLO)
    recorder.shadowed(trace("a"))
    assert recorder.lost == 2
    assert names(tmp_path / SERVED) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_server_leaves_what_it_had_written(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from outthink.server.record import Recorder
from tests.server.test_record import HELLO, SETTINGS, trace
folder = Path(sys.argv[1])
recorder = Recorder(folder, SETTINGS)
number, told = 0, False
while True:
    recorder.served(trace(str(number)), HELLO)
    number += 1
    time.sleep(0.001)
    if not told and (folder / "served" / "results.jsonl").stat().st_size > 10_000:
        told = True
        print("going", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "going\n"
        server.send_signal(signal.SIGKILL)
    with Recorder(tmp_path, SETTINGS) as recorder:
        recorder.served(trace("last"), HELLO)
    kept = names(tmp_path / SERVED)
    assert len(kept) > 2
    assert kept == [*map(str, range(len(kept) - 1)), "last"]
    assert set(kept) <= asked(tmp_path).keys(), "messages are written before the trace"
