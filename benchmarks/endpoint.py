"""Measures what Outthink's client costs in processor time, beside bare aiohttp that does the same.

    python benchmarks/endpoint.py [--repeats N]

The server is that of http_clients.py, in a process of its own; the two clients take turns in this one. A call is a
request whose answer is read, checked and counted; a streamed token is an event of an answer. Only the client's own
processor time (user and system) is counted. Linux and macOS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable

import aiohttp

import http_clients
from outthink.models.endpoint import Endpoint
from outthink.models.engine import Completion, Progress, Request
from outthink.models.facts import Facts
from outthink.models.openai.engine import OpenAIEngine
from outthink.types import Message

TOKENS = 100  # of a streamed answer
AT_ONCE = {1: (300, 4), 64: (1500, 64), 512: (3000, 512)}  # requests at once: calls and streams for a measurement
USAGE = {"prompt_tokens": 220, "completion_tokens": TOKENS}
ASK = "word " * 200

Client = Callable[[bool], Awaitable[int]]
"""Asks once, with a stream or without; returns the events it has read."""


def serve() -> None:
    choice = {"index": 0, "finish_reason": "stop"}
    whole = {**choice, "message": {"role": "assistant", "content": "word " * TOKENS}}
    piece = {"choices": [{**choice, "delta": {"content": "word "}}], "usage": USAGE, "id": "x" * 120}
    http_clients.ANSWER = json.dumps({"choices": [whole], "usage": USAGE}).encode()
    http_clients.EVENT = b"data: " + json.dumps(piece).encode() + b"\n\n"
    http_clients.EVENTS = TOKENS
    asyncio.run(http_clients.serve())


def bare(session: aiohttp.ClientSession, base: str) -> Client:
    body = {"model": "m", "max_tokens": 2 * TOKENS, "messages": [{"role": "user", "content": ASK}]}

    async def ask(stream: bool) -> int:
        path = "/stream/0.01" if stream else "/json/0"
        async with session.post(base + path, data=json.dumps({**body, "stream": stream}).encode()) as response:
            if not stream:
                answer = json.loads(await response.read())
                assert answer["choices"][0]["message"]["content"]
                return 1
            words, rest = [], b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                words += [json.loads(line[5:])["choices"][0]["delta"]["content"] for line in lines if line]
            return len(words)

    return ask


def outthink(engines: dict[bool, OpenAIEngine]) -> Client:
    request = Request(messages=(Message(content=ASK),), max_tokens=2 * TOKENS)

    async def ask(stream: bool) -> int:
        progress = Progress(n=1)
        await engines[stream].generate(request, progress)
        (result,) = progress.results
        assert isinstance(result, Completion)
        return result.tokens if stream else 1

    return ask


async def load(client: Client, stream: bool, at_once: int) -> float:
    """Milliseconds of processor time for a call, or for an event."""
    turns = iter(range(AT_ONCE[at_once][stream]))
    events = 0

    async def worker() -> None:
        nonlocal events
        for _ in turns:
            got = await client(stream)
            events += got

    before = http_clients.cpu()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(worker())
    return (http_clients.cpu() - before) / events * 1e3


async def compare(base: str, repeats: int) -> None:
    paths = {False: "/json/0", True: "/stream/0.01"}
    engines = {
        stream: OpenAIEngine(Endpoint(base + path), Facts(model="m", stream=stream)) for stream, path in paths.items()
    }
    print(f"medians of {repeats}; aiohttp {aiohttp.__version__}\n")
    print("| processor ms per | at once | aiohttp | Outthink | ratio | lowest | highest |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=http_clients.HEADERS) as session:
        clients = [bare(session, base), outthink(engines)]
        for stream in (False, True):
            for at_once in AT_ONCE:
                measured: list[list[float]] = [[], []]
                for repeat in range(repeats + 1):
                    for which in (0, 1) if repeat % 2 else (1, 0):
                        measured[which].append(await load(clients[which], stream, at_once))
                plain, ours = (values[1:] for values in measured)  # the first one warms up
                ratios = [b / a for a, b in zip(plain, ours, strict=True)]
                numbers = (statistics.median(plain), statistics.median(ours), statistics.median(ratios))
                row = " | ".join(f"{number:.3f}" for number in (*numbers, min(ratios), max(ratios)))
                print(f"| {'streamed token' if stream else 'call'} | {at_once} | {row} |", flush=True)
    for engine in engines.values():
        await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each client")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if arguments.serve:
        serve()
        return
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        asyncio.run(compare(f"http://127.0.0.1:{server.stdout.readline().strip()}", arguments.repeats))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
