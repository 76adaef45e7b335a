"""The reader and its worker processes: limits that do not depend on load, turns, ends and new beginnings."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outthink.answers import reader as answers
from outthink.answers import turns, worker
from outthink.answers.reader import MAX_AT_ONCE, Reader
from outthink.answers.reading import read, read_by
from outthink.answers.turns import FairQueue
from outthink.answers.worker import Limit, Reply, Worker
from outthink.errors import EngineError, UsageError
from outthink.types import AnswerKind, Message, Problem

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and forks")


def with_reader(work: Callable[[Reader], Coroutine[Any, Any, Any]], timeout: float = 5.0) -> Any:
    async def main() -> Any:
        reader = Reader(timeout)
        try:
            return await work(reader)
        finally:
            await reader.close()

    return asyncio.run(main())


def process_of(reader: Reader) -> subprocess.Popen[str]:
    process = reader._turns[0].worker._process
    assert process is not None
    return process


def problem(name: str) -> Problem:
    return Problem(id=name, messages=(Message(content="?"),), answer="code")


def light(i: int) -> str:
    """Code, since what it is as Python would write it is always asked of the worker; some hundred steps."""
    return f"x={i}"


def heavy(i: int) -> str:
    """Code, again; 350,000 steps."""
    return f"y={i}\n" + "x=1\n" * 4989 + "x=1"


@pytest.fixture(params=[pytest.param(True, marks=posix), False], ids=["forks", "alone"])
def serving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds of process: one with a child for each question, and the one of systems that cannot fork."""
    forks = bool(request.param)
    monkeypatch.setattr(worker, "_SERVE", f"from outthink.answers.worker import serve; serve({forks})")
    return forks


# ---------------------------------------------------------------- limits


def test_what_is_too_much_work_has_its_text_as_key() -> None:
    async def work(reader: Reader) -> None:
        assert await reader.key("math", r"\sqrt{9}") == "3"
        assert await reader.key("code", light(9)) == "x = 9"
        process = process_of(reader)
        assert await reader.key("math", "9^{9^{9^{9}}}") == "9^{9^{9^{9}}}"  # not tried
        assert await reader.key("code", heavy(9)) == heavy(9)  # tried
        assert not await reader.equal("math", r"\sqrt{2}", r"\sqrt[3]{9^{9^{9^{9}}}}")
        assert not await reader.equal("code", heavy(9), heavy(9).replace("=", " = "))
        assert await reader.key("math", r"\sqrt{16}") == "4"
        assert process.poll() is None or not hasattr(os, "fork")  # what is late takes nothing along
        reader._turns[1].worker.stop()
        assert await reader.key("code", heavy(9)) == heavy(9)  # remembered
        assert reader._turns[1].worker._process is None

    with_reader(work, timeout=0.07)


def test_with_more_time_the_same_is_done() -> None:
    async def work(reader: Reader) -> None:
        assert await reader.key("code", heavy(9)) == heavy(9).replace("=", " = ")

    with_reader(work, timeout=0.2)


def test_steps_end_a_question(serving: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of a function that is written in C is two steps."""
    serve = f"w._work = lambda: {{'canonical': lambda text: str(sum(map(len, calls(int(text)))))}}; w.serve({serving})"
    calls = "calls = lambda n: (abs(i) and '' or '' for i in range(n))"
    monkeypatch.setattr(worker, "_SERVE", f"from outthink.answers import worker as w; {calls}; {serve}")
    one = Worker(Limit(50.0, 100_000))
    try:
        for calls_made, late in (("1000", False), ("100000", True), ("10000", False), ("1000000000", True)):
            assert one.ask(("canonical", calls_made), 0) == Reply(None if late else "0", late)
    finally:
        one.stop()


@posix
def test_steps_do_not_depend_on_what_was_asked_before() -> None:
    """Counted to three percent in a new process, and then the same in one that has answered much."""

    def late(one: Worker, steps: float) -> bool:
        one.limit = Limit(50, int(steps))
        return one.ask(("canonical", "x^2+3x+2"), 0).late

    new, used = Worker(Limit(50)), Worker(Limit(50))
    try:
        low, high = 5.0, 2_000_000.0
        assert late(new, low)
        assert not late(new, high)
        while high > low * 1.03:
            middle = (low * high) ** 0.5
            low, high = (middle, high) if late(new, middle) else (low, middle)
        for answer in (r"\frac{\sqrt{5}}{7}", "x^2+3x+2", r"\frac{x^2-1}{x-1}"):
            assert not used.ask(("canonical", answer), 0).late
        assert late(used, low)
        assert not late(used, high)
    finally:
        new.stop()
        used.stop()


def test_processor_time_ends_what_takes_few_steps(serving: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One long call of C code, and where no child can be forked, a long loop."""
    numbers = "range(int(text))" if serving else "(i for i in range(int(text)))"
    serve = f"w._work = lambda: {{'canonical': lambda text: str(sum({numbers}))}}; w.serve({serving})"
    monkeypatch.setattr(worker, "_SERVE", f"from outthink.answers import worker as w; {serve}")
    one = Worker(Limit(0.5))
    try:
        assert one.ask(("canonical", "5"), 0) == Reply("10")
        assert one.ask(("canonical", str(10**12)), 0) == Reply(None, late=True)
        assert one.ask(("canonical", "6"), 0) == Reply("15")
    finally:
        one.stop()


@posix
def test_a_machine_that_is_busy_for_long_changes_no_key() -> None:
    """While its process gets no processor at all, a question waits, for longer than all its limits together."""

    async def work(reader: Reader) -> None:
        assert await reader.key("code", light(9)) == "x = 9"
        group = process_of(reader).pid
        os.killpg(group, signal.SIGSTOP)
        waiting = asyncio.create_task(reader.key("code", light(11)))
        await asyncio.sleep(1)
        assert not waiting.done()
        os.killpg(group, signal.SIGCONT)
        assert await waiting == "x = 11"
        assert process_of(reader).pid == group

    with_reader(work, timeout=0.2)


@posix
def test_a_process_that_is_stuck_is_replaced_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It sleeps, so that the processor's clock stands; the second time only where a file is not yet there."""
    serve = "w._work = lambda: {'canonical': wait}; w.serve()"
    script = f"""
import os, time
from outthink.answers import worker as w
def wait(path):
    new = not os.path.exists(path)
    open(path, "w").close()
    if new or path.endswith("always"):
        time.sleep(1000)
    return "awake"
w._EXAMPLES = ()
{serve}
"""
    monkeypatch.setattr(worker, "_SERVE", script)
    monkeypatch.setattr(Limit, "wall", 1.0)
    one = Worker(Limit(5.0))
    try:
        assert one.ask(("canonical", str(tmp_path / "once")), 0) == Reply("awake")
        with pytest.raises(EngineError, match="no reply within 1 seconds, twice"):
            one.ask(("canonical", str(tmp_path / "always")), 0)
        assert one._process is None
    finally:
        one.stop()


@posix
def test_a_crash_is_the_answers_own_and_a_kill_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = "w._work = lambda: {'canonical': lambda text: os.kill(os.getpid(), int(text))}; w.serve()"
    monkeypatch.setattr(worker, "_SERVE", f"import os; from outthink.answers import worker as w; {serve}")
    one = Worker(Limit(5.0))
    try:
        assert one.ask(("canonical", "0"), 0) == Reply(None)
        process = one._process
        assert one.ask(("canonical", str(int(signal.SIGSEGV))), 0) == Reply(None)
        assert one.ask(("canonical", str(int(signal.SIGABRT))), 0) == Reply(None)
        with pytest.raises(EngineError, match="killed from outside"):
            one.ask(("canonical", str(int(signal.SIGKILL))), 0)
        assert one._process is process
    finally:
        one.stop()


def test_a_process_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_SERVE", "raise SystemExit(3)")
    with pytest.raises(EngineError, match="ended while starting"):
        with_reader(lambda reader: reader.key("code", light(9)))


@pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan")])
def test_a_limit_is_above_zero(timeout: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        Reader(timeout)


# ---------------------------------------------------------------- turns


def test_owners_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.put(item[0], item)
    first = [queue.take() for _ in range(4)]
    queue.put("c", "c2")
    assert [*first, *(queue.take() for _ in range(3))] == ["a1", "b1", "c1", "a2", "b2", "a3", "c2"]
    with pytest.raises(KeyError):
        queue.take()


def test_a_light_answer_does_not_wait_for_the_heavy_ones_of_others() -> None:
    """Thirty heavy ones of one problem, then five of a problem each, then one that is light."""

    async def work(reader: Reader) -> None:
        ended: list[str] = []

        async def one(owner: str, text: str) -> None:
            await reader.read(problem(owner), text)
            ended.append(owner)

        tasks = [asyncio.create_task(one("many", f"```python\n{heavy(i)}\n```")) for i in range(30)]
        tasks += [asyncio.create_task(one(f"single {i}", f"```python\n{heavy(100 + i)}\n```")) for i in range(5)]
        await asyncio.sleep(0)
        assert await reader.read(problem("light"), "```python\nx=49\n```") == ("x=49", "x = 49")
        assert len(ended) <= 8  # about one of each other owner
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with_reader(work, timeout=0.07)


def test_what_is_cancelled_before_its_turn_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = Worker.ask

    def watched(self: Worker, request: tuple[str, ...], stops: int) -> Reply:
        asked.append(request[1])
        return original(self, request, stops)

    monkeypatch.setattr(Worker, "ask", watched)

    async def work(reader: Reader) -> None:
        tasks = [asyncio.create_task(reader.key("code", light(i))) for i in range(20)]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        assert await tasks[0] == "x = 0"
        assert await reader.key("code", light(9)) == "x = 9"
        assert len(asked) <= 3

    with_reader(work)


def test_a_question_that_comes_several_times_at_once_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Limit] = []
    original = Worker.ask

    def watched(self: Worker, request: tuple[str, ...], stops: int) -> Reply:
        asked.append(self.limit)
        return original(self, request, stops)

    monkeypatch.setattr(Worker, "ask", watched)

    async def work(reader: Reader) -> None:
        same = await asyncio.gather(*(reader.key("code", heavy(9), owner=str(i)) for i in range(20)))
        assert set(same) == {heavy(9)}
        assert len(asked) == len(set(asked)) == 2  # the try, and the rest

    with_reader(work, timeout=0.07)


# ---------------------------------------------------------------- long texts


def test_long_texts_are_read_in_a_thread_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    main = threading.get_ident()
    threads: set[bool] = set()

    def watched(*given: Any, **asked: Any) -> tuple[str | None, str]:
        threads.add(threading.get_ident() == main)
        return read_by(*given, **asked)

    monkeypatch.setattr(answers, "read_by", watched)
    tail = '\n#### "5" and '
    kinds: tuple[AnswerKind, ...] = ("math", "choice", "text", "json", "chat")

    async def all_of(reader: Reader, text: str) -> list[Any]:
        return [await reader.read(replace(problem("p"), answer=kind), text) for kind in kinds]

    async def work(reader: Reader) -> None:
        for length in (MAX_AT_ONCE, MAX_AT_ONCE + 1, 300_000):
            for text in ("word " * (length // 5) + tail, "[" + "1," * (length // 2) + "2]", "x" * length):
                outcomes = []
                for most in (MAX_AT_ONCE, 10**9, 0):
                    monkeypatch.setattr(answers, "MAX_AT_ONCE", most)
                    threads.clear()
                    outcomes.append(await all_of(reader, text))
                    assert threads == {len(text) <= most}
                assert outcomes[0] == outcomes[1] == outcomes[2]

    with_reader(work)


def test_the_loop_goes_on_while_a_long_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read_on = threading.Event()

    def waits(*given: Any, **asked: Any) -> tuple[str | None, str]:
        assert read_on.wait(30)
        return read_by(*given, **asked)

    monkeypatch.setattr(answers, "read_by", waits)

    async def work(reader: Reader) -> None:
        task = asyncio.create_task(reader.read(replace(problem("p"), answer="math"), "word " * MAX_AT_ONCE + "#### 5"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        read_on.set()
        assert await task == ("5", "5")

    with_reader(work)


# ---------------------------------------------------------------- beginnings and ends


def test_plain_replies_start_no_worker() -> None:
    call = '[{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}]'
    reply = "There is much to be said about it, and what is best depends on what you want to do.\nLet us begin."

    async def work(reader: Reader) -> None:
        for text in (call, reply, "42", "$18.00", "The answer is Paris.", "It costs $5 and then $7.", "5 km", "hello"):
            assert await reader.key("chat", read("chat", text)) is not None
        assert await reader.key("json", read("json", call)) is not None
        assert all(one.worker._process is None for one in reader._turns)

    with_reader(work)


def test_light_answers_need_one_process() -> None:
    async def work(reader: Reader) -> None:
        assert await reader.key("math", r"\sqrt{9}") == "3"
        assert await reader.key("code", light(9)) == "x = 9"
        assert reader._turns[1].worker._process is None

    with_reader(work, timeout=50.0)


def test_a_dead_worker_is_replaced(serving: bool) -> None:
    async def work(reader: Reader) -> None:
        assert await reader.key("code", light(9)) == "x = 9"
        process_of(reader).kill()
        assert await reader.key("code", light(5)) == "x = 5"
        process_of(reader).kill()
        assert await reader.key("math", r"\sqrt{25}") == "5"

    with_reader(work)


def test_many_tasks_share_one_worker() -> None:
    async def work(reader: Reader) -> None:
        same = await asyncio.gather(*(reader.key("math", rf"\sqrt{{{(i % 20) ** 2}}}") for i in range(400)))
        assert same == [str(i % 20) for i in range(400)]

    with_reader(work)


def test_several_event_loops_and_reuse_after_close() -> None:
    reader = Reader()
    assert asyncio.run(reader.key("math", r"\sqrt{9}")) == "3"
    assert asyncio.run(reader.key("math", r"\sqrt{16}")) == "4"
    asyncio.run(reader.close())
    asyncio.run(reader.close())
    assert asyncio.run(reader.key("math", r"\sqrt{25}")) == "5"
    asyncio.run(reader.close())


def test_closing_ends_what_is_asked_and_what_waits(monkeypatch: pytest.MonkeyPatch, serving: bool) -> None:
    numbers = "(i for i in range(10**15))"
    serve = f"w._work = lambda: {{'canonical': abs, 'code': lambda text: str(sum({numbers}))}}; w.serve({serving})"

    async def work(reader: Reader) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(worker, "_SERVE", f"from outthink.answers import worker as w; {serve}")
            tasks = [asyncio.create_task(reader.key("code", light(i))) for i in range(5)]
            for _ in range(3000):
                if reader._turns[1].worker._process is not None:
                    break
                await asyncio.sleep(0.01)
            await reader.close()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, EngineError) for one in ended), ended
            assert all(one.worker._process is None for one in reader._turns)
        assert await reader.key("code", light(4)) == "x = 4"

    with_reader(work, timeout=1000.0)


def test_a_forgotten_reader_ends_its_worker() -> None:
    reader = Reader()
    asyncio.run(reader.key("code", light(9)))
    process = process_of(reader)
    del reader
    process.wait(30)


def test_python_ends_although_nobody_closed_the_reader() -> None:
    script = (
        "import asyncio, outthink.answers as a; r = a.Reader(); print(asyncio.run(r.key('code', 'x=9')));"
        "print(r._turns[0].worker._process.pid)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    key, pid = done.stdout.splitlines()
    assert key == "x = 9"
    assert done.stderr == ""
    if sys.platform != "win32":
        listing = subprocess.run(["ps", "-p", pid, "-o", "args="], capture_output=True, text=True, check=False)
        assert "outthink" not in listing.stdout


@posix
def test_no_process_outlives_a_python_that_is_killed() -> None:
    script = (
        "import asyncio, os, outthink.answers as a; r = a.Reader(); asyncio.run(r.key('code', 'x=9'));"
        "print(r._turns[0].worker._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    for _ in range(500):
        listing = subprocess.run(["ps", "-p", done.stdout.strip(), "-o", "stat="], capture_output=True, text=True)
        if listing.stdout.strip()[:1] in ("", "Z"):
            return
        time.sleep(0.02)
    raise AssertionError("the worker process is still there")


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "CACHE_SIZE", 3)

    async def work(reader: Reader) -> None:
        for i in range(6):
            await reader.key("code", light(i))
        assert len(reader._turns[0]._cache) == 3

    with_reader(work)


def test_importing_answers_is_light() -> None:
    script = "import sys, outthink.answers; print([m for m in ('sympy', 'math_verify', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.strip() == "[]"


def test_no_thread_is_left_waiting() -> None:
    with_reader(lambda reader: reader.key("code", light(9)))
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
