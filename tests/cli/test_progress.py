"""Progress: true numbers, lines where there is no terminal, nothing of short work, no cursor that moves in a pipe."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

from outthink.cli.progress import Working, duration
from outthink.models import catalog
from outthink.models.scripted import ScriptedEngine


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("outthink.cli.progress.time.monotonic", made)
    return made


def test_bytes_have_their_rate_and_what_is_left(clock: Clock) -> None:
    work = Working("Fetching m", unit="bytes")
    clock.now += 20
    work.tell(100e6, 300e6)
    assert work.line() == "Fetching m, 100 of 300 MB (5.0 MB/s), 20 s, about 40 s left"


def test_what_is_counted_has_its_unit(clock: Clock) -> None:
    work = Working("own", unit="problems")
    assert work.line() == "own, 0 s"
    clock.now += 3
    work.tell(1, 4)
    assert work.line() == "own, 1 of 4 problems, 3 s, about 9 s left"
    work.tell(4, 4, "grading")
    assert work.line() == "grading, 4 of 4 problems, 3 s"


def test_who_knows_more_of_what_is_left_says_so(clock: Clock) -> None:
    work = Working("sweep", unit="problems", left=lambda: "about 1 h left, 2 cells guessed")
    work.tell(1, 2)
    assert work.line() == "sweep, 1 of 2 problems, about 1 h left, 2 cells guessed"


def test_a_pipe_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is whole and plain, whatever a name holds."""
    printed = threading.Event()
    with Working("on \x1b[2J it", unit="problems", every=0.001) as work:
        work.tell(1, 2)
        for _ in range(2000):
            printed.wait(0.005)
            if capsys.readouterr().err.count("\n") >= 1:
                break
        else:
            pytest.fail("no line within ten seconds")
        work.tell(2, 2)
        printed.wait(0.05)
    lines = capsys.readouterr().err.splitlines()
    assert all(re.fullmatch(r"on \\x1b\[2J it, [12] of 2 problems, .*", line) for line in lines)


def test_short_work_leaves_no_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with Working("short", unit="problems") as work:
        work.tell(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with Working("reading [red]", unit="problems") as work:
        work.tell(3, 4)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "reading [red]" in shown
    assert "3 of 4 problems" in shown


def test_times_for_people() -> None:
    assert [duration(seconds) for seconds in (0.4, 99, 600, 9000)] == ["0 s", "99 s", "10 min", "2.5 h"]


def test_pulling_a_model_tells_its_bytes(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, float]] = []

    def pull(name: str, *, announce: Any, progress: catalog.Advance) -> str:
        announce("The hub is out of reach.")
        progress(5, 10)
        return "/there"

    monkeypatch.setattr(catalog, "pull", pull)
    monkeypatch.setattr(Working, "tell", lambda self, done, total, text=None: told.append((done, total)))
    result = outthink("models", "pull", "m")
    assert (result.out, result.err, told) == ("/there\n", "The hub is out of reach.\n", [(5, 10)])


def test_a_question_that_takes_long_is_followed_in_a_pipe(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few lines on standard error, with --json, too; none of a short one."""
    engine = ScriptedEngine(lambda request, child, rng: "#### 4", latency=lambda request, child: 0.4)
    monkeypatch.setattr("outthink.models.open_engine", lambda name, price=None: engine)
    words = ("solve", "What is 2+2?", "--answer", "math", "-m", "m", "--n", "2", "--json")
    assert outthink(*words).err == ""
    monkeypatch.setattr("outthink.cli.progress.FIRST", 0.05)
    told = outthink(*words)
    assert re.fullmatch(r"[0-9.]+ s \| 0 tokens charged, 0 in 2 running samples\n", told.err)
    assert json.loads(told.out)["answer"] == "4"
