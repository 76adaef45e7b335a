"""Several workers behind one port: their limits are one server's, and whatever ends, nothing is lost with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families

from outthink.cli.program import run
from outthink.records.runs import read_results
from outthink.records.traffic import PROBLEMS, SERVED
from outthink.server.broker import Broker, Channel
from outthink.server.gate import Busy, Gate, Places
from outthink.server.metrics import SHARED, Metrics
from outthink.server.parent import _Parent, _Worker
from outthink.server.record import Recorder
from tests.tools.server import Server, says
from tests.tools.serving import Answer, Command, asked, chat, command, until
from tests.tools.virtual import run as virtually

FOUR = "The answer is 4."
NONE = "m+none"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers cannot share a port there")


# --------------------------------------------------------------------------------------------------------- the places


def test_places_go_to_who_came_first_and_none_is_lost_or_doubled() -> None:
    """Whatever comes and leaves in whatever order: as many run as can, the others wait in their order."""
    rng = random.Random(16)
    for _ in range(200):
        most, queue = rng.randint(1, 4), rng.randint(0, 4)
        places = Places(most, queue)
        running: list[int] = []
        waiting: list[int] = []
        for who in range(60):
            if len(running) < most:
                assert places.enter(who)
                running.append(who)
            elif len(waiting) < queue:
                assert not places.enter(who)
                waiting.append(who)
            else:
                with pytest.raises(Busy):
                    places.enter(who)
            there = [*running, *waiting, 1000]  # who has never been there changes nothing
            for one in rng.sample(there, rng.randint(0, len(there))):
                held = one in running
                running, waiting = ([other for other in some if other != one] for some in (running, waiting))
                moved = waiting[:1] if held else []
                running, waiting = running + moved, waiting[len(moved) :]
                assert places.leave(one, 1.0) == moved
            assert (places.running, places.waiting) == (len(running), len(waiting))


@contextlib.asynccontextmanager
async def attended(broker: Broker) -> AsyncIterator[Channel]:
    """A worker of a broker, in this process."""
    ours, its = socket.socketpair()
    attending = asyncio.create_task(broker.attend(ours, asyncio.Event()))
    async with Channel.open(its) as channel:
        yield channel
    await attending


async def taken(gate: Gate, stack: contextlib.AsyncExitStack, seconds: float | None = None) -> None:
    await stack.enter_async_context(gate.place(seconds))


def test_workers_share_places_and_what_an_ended_one_held_is_free() -> None:
    async def go() -> None:
        broker = Broker(Places(2, 2))
        async with contextlib.AsyncExitStack() as survives, attended(broker) as second:
            async with attended(broker) as first, contextlib.AsyncExitStack():
                gates = [Gate(2, 2, desk=desk) for desk in (first, second)]
                held = contextlib.AsyncExitStack()
                await taken(gates[0], held)
                await taken(gates[0], held)
                waiting = [asyncio.create_task(taken(gate, survives)) for gate in gates]  # the first one's goes with it
                await asyncio.sleep(0.1)
                assert not any(task.done() for task in waiting)
                assert {(gate.running, gate.waiting) for gate in gates} == {(2, 2)}
                with pytest.raises(Busy):
                    await taken(gates[1], survives)
                waiting[0].cancel()
                await asyncio.wait(waiting[:1])
                late = asyncio.create_task(taken(gates[1], survives, 0.05))
                with pytest.raises(Busy, match="deadline"):
                    await late
            async with asyncio.timeout(5):
                await waiting[1]
            await asyncio.sleep(0.1)
            assert (gates[1].running, gates[1].waiting) == (1, 0)
        assert (broker._places.running, broker._places.waiting) == (0, 0)

    asyncio.run(go())


def test_all_workers_have_one_salt_and_hear_of_the_end() -> None:
    async def go() -> None:
        broker = Broker(Places(1, 1))
        async with attended(broker) as first, attended(broker) as second:
            assert first.salt == second.salt
            assert len(first.salt) == 32
            for writer in list(broker._writers.values()):
                writer.close()
            async with asyncio.timeout(5):
                await first.lost.wait()
            with pytest.raises(Busy):
                await taken(Gate(1, 1, desk=first), contextlib.AsyncExitStack())

    asyncio.run(go())


# --------------------------------------------------------------------------------------------------------- the record

WRITER = """
import sys
from pathlib import Path
from outthink.server.record import Recorder
from outthink.types import Budget, Sampling, Trace
with Recorder(Path(sys.argv[1]), {"kind": "traffic"}, shared=True) as recorder:
    for number in range(40):
        trace = Trace(
            problem=f"{sys.argv[2]}-{number}", strategy={}, seed=0, sampling=Sampling(), budget=Budget({}),
            resources={}, candidates=(), rounds=(), calls=(), stopped="finished",
        )
        recorder.served(trace, [{"role": "user", "content": "x" * 5000}])
assert recorder.lost == 0
"""


def test_workers_write_one_record_in_turns(tmp_path: Path) -> None:
    """Also where one of them was killed in the middle of a line; who is none of them is kept out."""
    folder = tmp_path / "traffic"
    Recorder(folder, {"kind": "traffic"}, shared=True).close()
    with open(folder / PROBLEMS, "a") as torn:
        torn.write('{"problem": "tor')
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(folder), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    names = {f"{writer}-{number}" for writer in "ab" for number in range(40)}
    assert Counter(result.problem for result in read_results(folder / SERVED)) == Counter(names)
    lines = (folder / PROBLEMS).read_text().splitlines()
    assert Counter(json.loads(line)["problem"] for line in lines) == Counter(names)
    with Recorder(folder, {"kind": "traffic"}, shared=True), pytest.raises(Exception, match="another process"):
        Recorder(folder, {"kind": "traffic"})


def test_a_withdrawn_key_counts_no_longer_in_workers_that_are_starting() -> None:
    """Also while others are replaced: all that serve read the keys at once, others as soon as they serve."""

    async def go() -> None:
        parent = _Parent(Broker(Places(1, 1)), [], "", 1.0)
        told: list[tuple[str, signal.Signals]] = []

        def worker(name: str) -> _Worker:
            ended = asyncio.Event()

            async def wait() -> None:
                await ended.wait()
                process.returncode = 0

            process = SimpleNamespace(returncode=None, wait=wait, end=ended.set)
            process.send_signal = lambda number: told.append((name, number))
            one = _Worker(cast("asyncio.subprocess.Process", process), asyncio.create_task(wait()), asyncio.Event())
            parent.alive.add(one)
            return one

        serves, starting, failing = worker("serves"), worker("starting"), worker("failing")
        serves.ready.set()
        for times in (1, 2):
            parent.reload()
            await asyncio.sleep(0.01)
            assert told == [("serves", signal.SIGUSR1)] * times, "it would end a worker that does not serve yet"
        starting.ready.set()
        cast("Any", failing.process).end()
        await asyncio.sleep(0.01)
        assert set(told[2:]) == {("starting", signal.SIGUSR1)}
        for one in parent.alive:
            cast("Any", one.process).end()
            await one.gone()

    asyncio.run(go())


def test_workers_that_never_serve_are_begun_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """And at once when the operator asks for new ones; the end waits for nothing."""
    monkeypatch.setattr("outthink.server.parent._AGAIN", (1.0, 8.0))

    async def go() -> None:
        loop = asyncio.get_running_loop()
        parent = _Parent(Broker(Places(1, 1)), [], "", 1.0)
        begun: list[float] = []

        async def begin() -> _Worker:
            begun.append(loop.time())
            process = SimpleNamespace(returncode=2, wait=partial(asyncio.sleep, 0))
            attending = asyncio.create_task(asyncio.sleep(0))
            return _Worker(cast("asyncio.subprocess.Process", process), attending, asyncio.Event())

        parent.begin = begin  # type: ignore[method-assign]
        keeping = asyncio.create_task(parent.keep(0, None))
        await asyncio.sleep(30)
        assert [round(at) for at in begun] == [0, 1, 3, 7, 15, 23]
        parent.reload()
        await asyncio.sleep(0.1)
        assert len(begun) == 7
        ended = loop.time()
        parent.end()
        await keeping
        assert loop.time() == ended

    virtually(go())


def test_a_worker_that_has_just_begun_hides_no_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is empty for a moment, and for good where it is killed then."""
    counted = MmapedDict(str(tmp_path / "counter_7.db"))  # type: ignore[no-untyped-call]
    key = json.dumps(["outthink_some", "outthink_some_total", {}, "Some."])
    counted.write_value(key, 3.0, 0.0)  # type: ignore[no-untyped-call]
    (tmp_path / "counter_8.db").touch()
    monkeypatch.setenv(SHARED, str(tmp_path))
    assert "outthink_some_total 3.0" in Metrics(lambda: 0, lambda: 0).text().decode()
    counted.close()  # type: ignore[no-untyped-call]


# ------------------------------------------------------------------------------------------------------- the command


def workers(running: Command) -> list[int]:
    """Their process ids."""
    listed = subprocess.run(["pgrep", "-P", str(running.process.pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


async def both_serve(running: Command) -> None:
    """Wait until it says that two workers serve."""
    for _ in range(1200):
        if (await asked(running.url, None, method="GET", path="/health")).json == {"status": "ok", "workers": 2}:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("there are not two workers")


async def metrics(running: Command) -> dict[str, float]:
    text = (await asked(running.url, None, method="GET", path="/metrics")).body.decode()
    families = text_string_to_metric_families(text)
    return {
        " ".join([one.name, *sorted(one.labels.values())]): one.value for family in families for one in family.samples
    }


@pytest.mark.slow
def test_two_workers_are_one_server(tmp_path: Path) -> None:
    async def go() -> None:
        options = ("--workers", "2", "--concurrency", "2", "--queue", "4", "--record", str(tmp_path / "traffic"))
        async with Server(says(FOUR)) as up, command(tmp_path, up.url, *options) as running:
            assert running.url, running.told
            await both_serve(running)

            # limits are those of the server, and what is asked reaches the model
            up.most, up.pace = 0, 0.05
            prompts = [f"What is 2 + 2, number {number}?" for number in range(6)]
            answers = await asyncio.gather(*(asked(running.url, chat(text, model=NONE)) for text in prompts))
            assert [answer.content for answer in answers] == [FOUR] * 6
            assert up.most == 2
            assert {seen.body["messages"][0]["content"] for seen in up.asked if "messages" in seen.body} >= set(prompts)
            up.pace = 0.15
            many = await asyncio.gather(*(asked(running.url, chat(model=NONE)) for _ in range(10)))
            assert Counter(answer.status for answer in many) == {200: 6, 429: 4}

            # a worker that is killed leaves its places to others, and another one comes
            before = workers(running)
            assert len(before) == 2
            callers = [asyncio.create_task(asked(running.url, chat(model=NONE))) for _ in range(4)]
            await until(lambda: up.running == 2, 60)
            os.kill(before[0], signal.SIGKILL)
            ended = await asyncio.gather(*callers, return_exceptions=True)
            assert all(isinstance(one, (Answer, ConnectionError, asyncio.IncompleteReadError)) for one in ended)
            up.pace = 0.0
            served = 12 + sum(isinstance(one, Answer) for one in ended)
            await until(lambda: len(set(workers(running)) - {before[0]}) == 2, 60)
            await both_serve(running)
            assert any("-9" in line for line in running.told)

            # SIGHUP puts new ones in place of all, and nobody who asks meanwhile notices
            before = workers(running)
            running.process.send_signal(signal.SIGHUP)
            while set(workers(running)) & set(before):
                assert (await asked(running.url, chat(model=NONE))).content == FOUR
                served += 1
                await asyncio.sleep(0.05)
            told = await metrics(running)
            assert told["outthink_requests_total 200 none"] == served
            refused = sum(value for name, value in told.items() if name.startswith("outthink_requests_total 429"))
            assert (refused, told["outthink_running"], told["outthink_lost_traces"]) == (4, 0, 0)

            # what is under way is finished at the end
            up.pace = 0.1
            caller = asyncio.create_task(asked(running.url, chat(model=NONE)))
            await until(lambda: up.running == 1, 60)
            left = workers(running)
            running.process.terminate()
            assert (await caller).content == FOUR
            async with asyncio.timeout(60):
                assert await running.process.wait() == 0
            assert not [process for process in left if alive(process)]
            assert "Traceback" not in "".join(running.told)
            kept = Counter(result.problem for result in read_results(tmp_path / "traffic" / SERVED))
            assert set(kept.values()) == {1}
            assert len(kept) == served + 1

    asyncio.run(go())


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    async def go() -> None:
        async with Server(says(FOUR)) as up, command(tmp_path, up.url, "--workers", "2") as running:
            up.pace = 0.5
            caller = asyncio.create_task(asked(running.url, chat(model=NONE)))
            await until(lambda: up.running == 1, 60)
            left = workers(running)
            running.process.kill()
            await until(lambda: not [process for process in left if alive(process)], 60)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await caller
            assert not up.running

    asyncio.run(go())


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return (
        "Z"
        not in subprocess.run(
            ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
        ).stdout
    )


def test_what_is_wrong_is_told_once(tmp_path: Path) -> None:
    async def go() -> None:
        nobody = "http://127.0.0.1:9/v1"
        async with command(tmp_path, nobody, "--workers", "2") as running:
            assert await running.process.wait() in (1, 2)
            assert len(running.told) == 1

    asyncio.run(go())


def test_an_embedded_model_is_not_shared(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["outthink", "serve", "--model", "smollm2-135m", "--workers", "2"])
    assert run() == 2
    assert "Workers cannot share an embedded model" in capsys.readouterr().err
