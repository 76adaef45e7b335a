"""Compares aiohttp with httpx2 as a client of OpenAI-compatible servers: processor time, memory and wall time.

    pip install aiohttp httpx2
    python benchmarks/http_clients.py [--repeats N]

The server is a process of its own and each measurement is a fresh process; the libraries take turns. Processor time
is the client's own (user and system), so that other work on the machine hardly changes it; wall time does change.
Linux only. httpx2 is no dependency of Outthink.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("aiohttp", "httpx2")
EVENTS = 200
INTERVAL = 0.025  # seconds between two events of a stream
IDLE = 60.0  # the client's limit of seconds for one read
HELD = 2000  # connections for the measurement of memory
# name: (path, connections at once, calls); both JSON loads are at most 2,000 calls a second
LOADS = {
    "JSON, 100 at once": ("/json/0.05", 100, 4000),
    "JSON, 2,000 at once": ("/json/1", 2000, 4000),
    "stream, 200 at once": (f"/stream/{INTERVAL}", 200, 200),
}
QUESTION = json.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 200}]}).encode()
ANSWER = json.dumps({"choices": [{"message": {"role": "assistant", "content": "word " * 780}}]}).encode()
EVENT = b"data: " + json.dumps({"choices": [{"delta": {"content": "word"}}], "id": "x" * 188}).encode() + b"\n\n"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer key"}

Call = Callable[[str], Coroutine[Any, Any, int]]


class Server:
    """Answers /json/DELAY, /stream/INTERVAL, /hold once /release is called, and /held once all calls are held."""

    def __init__(self) -> None:
        self.held = 0
        self.full = asyncio.Event()
        self.released = asyncio.Event()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                _, kind, *rest = head.split(b" ", 2)[1].decode().split("/")
                await self.answer(kind, float(rest[0]) if rest else 0.0, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, kind: str, number: float, writer: asyncio.StreamWriter) -> None:
        if kind == "stream":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(EVENTS):
                await asyncio.sleep(number)
                writer.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
            writer.write(b"0\r\n\r\n")
            return
        if kind == "json":
            await asyncio.sleep(number)
        elif kind == "hold":
            self.held += 1
            if self.held == HELD:
                self.full.set()
            await self.released.wait()
        elif kind == "held":
            await self.full.wait()
        elif kind == "release":
            self.held = 0
            self.full.clear()
            self.released.set()  # wakes all that wait,
            self.released.clear()  # and is ready for the next client
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(ANSWER) + ANSWER)


async def serve() -> None:
    server = await asyncio.start_server(Server().connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def count(chunks: AsyncIterator[bytes]) -> int:
    """Events in a stream of chunks."""
    events, rest = 0, b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                json.loads(line[5:])
                events += 1
    return events


@asynccontextmanager
async def aiohttp_client(base: str) -> AsyncIterator[Call]:
    aiohttp: Any = importlib.import_module("aiohttp")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=IDLE, sock_read=IDLE)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(base, connector=connector, timeout=timeout, headers=HEADERS) as session:

        async def call(path: str) -> int:
            async with session.post(path, data=QUESTION) as response:
                if path.startswith("/stream"):
                    return await count(response.content.iter_any())
                return len(json.loads(await response.read()))

        yield call


@asynccontextmanager
async def httpx2_client(base: str) -> AsyncIterator[Call]:
    httpx2: Any = importlib.import_module("httpx2")
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    timeout = httpx2.Timeout(IDLE, pool=None)
    options = {"limits": limits, "timeout": timeout, "headers": HEADERS, "trust_env": False}
    async with httpx2.AsyncClient(base_url=base, **options) as client:

        async def call(path: str) -> int:
            if path.startswith("/stream"):
                async with client.stream("POST", path, content=QUESTION) as response:
                    return await count(response.aiter_bytes())
            return len(json.loads((await client.post(path, content=QUESTION)).content))

        yield call


CLIENTS: dict[str, Callable[[str], AbstractAsyncContextManager[Call]]] = {
    "aiohttp": aiohttp_client,
    "httpx2": httpx2_client,
}


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident() -> float:
    """Megabytes of memory this process has resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


async def load(library: str, base: str, name: str) -> dict[str, float]:
    path, connections, calls = LOADS[name]
    async with CLIENTS[library](base) as call:
        await call("/json/0")  # what is imported late is imported now
        turns = iter(range(calls))

        async def worker() -> None:
            for _ in turns:
                got = await call(path)
                assert got == (1 if path.startswith("/json") else EVENTS)

        started, used = time.perf_counter(), cpu()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(connections):
                tasks.create_task(worker())
        return {
            f"{name}: processor ms per call": (cpu() - used) / calls * 1e3,
            f"{name}: wall s": time.perf_counter() - started,
        }


async def hold(library: str, base: str) -> dict[str, float]:
    async with CLIENTS[library](base) as call:
        await call("/json/0")
        before = resident()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(HELD):
                tasks.create_task(call("/hold"))
            await call("/held")
            now = resident()
            await call("/release")
        return {
            f"{HELD:,} waiting: resident MB": now,
            f"{HELD:,} waiting: KB per connection": (now - before) / HELD * 1e3,
        }


def compare(repeats: int) -> None:
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    results: dict[str, dict[str, list[float]]] = {}
    try:
        base = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        for repeat in range(repeats):
            for name in ["hold", *LOADS]:
                for library in LIBRARIES if repeat % 2 == 0 else reversed(LIBRARIES):
                    command = [sys.executable, __file__, "--client", library, base, name]
                    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
                    for measure, value in json.loads(output).items():
                        results.setdefault(measure, {}).setdefault(library, []).append(value)
    finally:
        server.terminate()
        server.wait()
    print(f"medians of {repeats}; " + ", ".join(f"{library} {version(library)}" for library in LIBRARIES))
    print("\n| measure | aiohttp | httpx2 | ratio | lowest | highest |\n|---|---:|---:|---:|---:|---:|")
    for measure, values in results.items():
        first, second = (statistics.median(values[library]) for library in LIBRARIES)
        ratios = [b / a for a, b in zip(values["aiohttp"], values["httpx2"], strict=True)]
        numbers = (first, second, second / first, min(ratios), max(ratios))
        print(f"| {measure} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each library")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=3, metavar=("LIBRARY", "BASE", "LOAD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if arguments.serve:
        asyncio.run(serve())
    elif arguments.client:
        library, base, name = arguments.client
        print(json.dumps(asyncio.run(hold(library, base) if name == "hold" else load(library, base, name))))
    else:
        compare(arguments.repeats)


if __name__ == "__main__":
    main()
