"""Few descriptors: idle connections make room, nobody's log floods, and whoever asks how it is gets an answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outthink.server.door import Shares, descriptors
from outthink.server.logs import Sparing
from outthink.server.settings import Settings
from outthink.server.start import fitted
from tests.tools.server import Server, run, says
from tests.tools.serving import OUTTHINK, asked, chat, closed, connected, serving

FOUR = "The answer is 4."
posix = pytest.mark.skipif(sys.platform == "win32", reason="limits of another kind")


@pytest.mark.parametrize("limit", [16, 64, 128, 256, 1024, 4096, 1 << 16])
@pytest.mark.parametrize(("concurrency", "queue"), [(256, 1024), (1, 0), (24, 24), (5000, 0), (1, 5000)])
def test_shares_fit_into_the_descriptors(limit: int, concurrency: int, queue: int) -> None:
    shares = Shares(4096, concurrency, queue).within(limit)
    assert 1 <= shares.concurrency <= concurrency
    assert 0 <= shares.queue <= queue
    assert shares.concurrency + shares.queue < shares.connections
    assert 2 * shares.connections <= limit
    assert shares.concurrency <= max(1, limit // 2), "each of them has a connection to the upstream, too"
    if limit >= 16 * (concurrency + queue):
        assert (shares.concurrency, shares.queue) == (concurrency, queue)


def test_the_operator_is_told_where_less_is_possible_than_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    assert fitted(Settings(), 1 << 16) == Settings()
    assert not caplog.records
    less = fitted(Settings(), 256)
    assert less.concurrency < 256
    assert f"enough for {less.concurrency} requests at once" in caplog.text
    assert "ulimit -n" in caplog.text


@posix
def test_the_limit_is_raised_as_far_as_it_goes() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, before[1]), before[1]))
        assert descriptors() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(before[1], 1 << 16, before[0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.asynccontextmanager
async def idle(url: str, lines: int, sent: bytes = b"") -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections that ask for nothing, or for half of something."""
    opened = [await connected(url) for _ in range(lines)]
    for _, writer in opened:
        writer.write(sent)
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            await closed(writer)


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9"
HALF = HEAD + b"\r\n\r\n{"


@posix
@pytest.mark.parametrize("sent", [b"", HEAD, HALF], ids=["nothing", "half a head", "half a body"])
def test_those_that_have_been_quiet_for_longest_make_room(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        async with Server(says(FOUR), pace=1.0) as up, serving(up, settings={"connections": 16}) as (url, _):
            working = asyncio.create_task(asked(url, chat(model="m+none")))
            await asyncio.sleep(2)
            async with idle(url, 40, sent) as readers:
                await asyncio.sleep(0.5)
                answer = await asked(url, None, method="GET", path="/health")
                assert (answer.status, answer.json) == (200, {"status": "ok"})
                assert (await asked(url, chat(model="m+none"))).content == FOUR
                ended = [reader.at_eof() for reader in readers]
                assert sum(ended) >= 24
                assert ended == sorted(ended, reverse=True), "the first that came are the first that go"
            assert (await working).content == FOUR, "who is served is not closed"

    run(go())
    assert {record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING} == {
        "There are as many connections as are allowed, so idle ones are closed."
    }


@posix
def test_where_every_connection_is_at_work_the_next_one_waits() -> None:
    async def go() -> None:
        small = {"connections": 4, "concurrency": 4}
        async with Server(says(FOUR), pace=0.1) as up, serving(up, settings=small) as (url, service):
            calls = [asyncio.create_task(asked(url, chat(model="m+none"))) for _ in range(9)]
            await asyncio.sleep(0.3)
            assert (len(up.asked), service.gate.running) == (4, 4)
            assert [(await call).content for call in calls] == [FOUR] * 9

    run(go())


def test_of_one_kind_there_is_one_line_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    sparing, told = Sparing(), []

    def tell(level: int, words: str, *values: object) -> None:
        record = logging.LogRecord("outthink.server", level, "", 0, words, values, None)
        if sparing.filter(record):
            told.append(record.getMessage())

    for now in (0.0, 0.5, 0.9, 1.1, 1.2, 5.0):
        tell(logging.WARNING, "no room for %s", now)
        tell(logging.ERROR, "another\nwith lines %s", now)
        tell(logging.INFO, "served %s", now)
    assert [line for line in told if "room" in line] == [
        "no room for 0.0",
        "no room for 1.1 (2 more of these were left out)",
        "no room for 5.0 (1 more of these were left out)",
    ]
    assert len([line for line in told if "another" in line]) == 3
    assert len([line for line in told if "served" in line]) == 6


# ------------------------------------------------------------------------------------------------- the real command


@contextlib.asynccontextmanager
async def limited(folder: Path, upstream: str, files: int) -> AsyncIterator[tuple[str, list[str]]]:
    """`outthink serve` with so many descriptors, and what it tells."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f'ulimit -n {files}; exec "$0" "$@"'),
        *(str(OUTTHINK), "serve", "--upstream", upstream, "--port", "0", "--strategy", "self_consistency"),
        env={**os.environ, "OUTTHINK_CACHE": str(folder), "XDG_CONFIG_HOME": str(folder)},
        stderr=asyncio.subprocess.PIPE,
    )
    told: list[str] = []
    ready = asyncio.get_running_loop().create_future()

    async def listen() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            told.append(line.decode())
            if "Serving at " in told[-1] and not ready.done():
                ready.set_result(told[-1].split("Serving at ")[1].split("/v1")[0])

    listening = asyncio.create_task(listen())
    try:
        async with asyncio.timeout(40):
            yield await ready, told
    finally:
        process.kill()
        await process.wait()
        await listening


@posix
def test_a_server_with_few_descriptors_answers_whatever_comes(tmp_path: Path) -> None:
    """200 idle connections, then 40 requests with 16 samples each, at 128 descriptors."""

    async def go() -> list[str]:
        async with Server(says(FOUR), refuses=["n"], pace=0.01) as up, limited(tmp_path, up.url, 128) as (url, told):
            async with idle(url, 200):
                assert (await asked(url, None, method="GET", path="/health")).status == 200
                body = chat(outthink={"n": 16, "answer": "math"}, temperature=0.5)
                calls = [asyncio.create_task(asked(url, body)) for _ in range(40)]
                await asyncio.sleep(0.05)
                assert (await asked(url, None, method="GET", path="/health")).status == 200
                statuses = [(await call).status for call in calls]
            assert set(statuses) <= {200, 429}
            assert statuses.count(200) > 10
            return told

    told = asyncio.run(go())
    assert not [line for line in told if "Traceback" in line]
    assert len(told) < 100
    assert json.dumps(told).count("requests at once") == 1
