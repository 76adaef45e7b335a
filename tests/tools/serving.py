"""Our server in front of the fake one, on real sockets, and a client that may send anything at all, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import sysconfig
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from outthink.models.facts import Facts
from outthink.server.app import Service
from outthink.server.listening import listening
from outthink.server.models import Served
from outthink.server.routing import ONE, ServerRules
from outthink.server.settings import Settings
from outthink.strategies.making import make_strategy
from tests.tools.server import ALL, Server, engine_on

CHAT = "/v1/chat/completions"
Header = tuple[str, str | bytes]


@contextlib.asynccontextmanager
async def serving(
    upstream: Server | str,
    *,
    strategy: str = "auto",
    policy: ServerRules | None = None,
    facts: Facts = ALL,
    patience: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    served: Served | None = None,
    **parts: Any,
) -> AsyncIterator[tuple[str, Service]]:
    """Its address and itself; at the end it has nothing left of what it was asked."""
    policy = policy or ServerRules(strategy=None if strategy == ONE else make_strategy(strategy))
    served = served or Served({"m": engine_on(upstream, facts, **{"first": 0.01, **(patience or {})})})
    service = Service(Settings(**{"port": 0, **(settings or {})}), policy, served, **parts)
    async with listening(service) as url:
        yield url, service
    assert (service.running.tasks, service.running.jobs) == (set(), set())
    assert (service.gate.running, service.gate.waiting) == (0, 0)


def counted(service: Service) -> dict[str, float]:
    """The metrics by name and labels, such as {"outthink_samples_total ok": 3.0}."""
    families = text_string_to_metric_families(service.metrics.text().decode())
    return {" ".join([one.name, *one.labels.values()]): one.value for family in families for one in family.samples}


def chat(text: str = "What is 2+2?", /, **fields: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


@dataclass(frozen=True)
class Answer:
    """What came back, chunks of a body joined."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, which must have the form that it has in OpenAI's API."""
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        assert self.json.keys() == {"error"}
        error: dict[str, Any] = self.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["message"]
        assert "\n" not in error["message"]
        return error

    @property
    def content(self) -> str:
        """What the first choice says."""
        return str(self.json["choices"][0]["message"]["content"])

    @property
    def events(self) -> list[Any]:
        """The events of a stream, comments left out; "[DONE]" as it is."""
        assert self.headers["content-type"].startswith("text/event-stream")
        blocks = [block for block in self.body.decode().split("\n\n") if block and not block.startswith(":")]
        assert all(block.startswith("data: ") for block in blocks)
        texts = [block.removeprefix("data: ") for block in blocks]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]

    @property
    def streamed(self) -> str:
        """What the first choice of a stream says."""
        choices = [choice for event in self.events if event != "[DONE]" for choice in event.get("choices", ())]
        return "".join(choice["delta"].get("content") or "" for choice in choices if choice["index"] == 0)


async def connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    assert parts.hostname
    return await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 26)


def written(
    url: str,
    body: Any = None,
    *,
    method: str = "POST",
    path: str = CHAT,
    headers: Sequence[Header] = (),
    without: Sequence[str] = (),
) -> bytes:
    """A request as bytes; a body that is not bytes is sent as JSON.

    Args:
        without: headers that are sent else, and are not to be.
    """
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    usual: list[Header] = [("Host", urlsplit(url).netloc), ("Connection", "close")]
    if body is not None:
        usual += [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
    sent = [(name, value) for name, value in usual if name not in without] + list(headers)
    lines = [f"{method} {path} HTTP/1.1".encode()]
    lines += [name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()) for name, value in sent]
    return b"\r\n".join([*lines, b"", data])


async def received(reader: asyncio.StreamReader, *, bodiless: bool = False) -> Answer:
    """The answer on a connection, to its end; `bodiless`: to a HEAD, which has no body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if bodiless:
        return Answer(int(head[0].split()[1]), headers, b"")
    if headers.get("transfer-encoding") != "chunked":
        return Answer(int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"])))
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return Answer(int(head[0].split()[1]), headers, b"".join(parts))


async def asked(url: str, body: Any, **how: Any) -> Answer:
    """What a request on a connection of its own is answered; `how` as for `written`."""
    reader, writer = await connected(url)
    writer.write(written(url, body, **how))
    try:
        return await received(reader, bodiless=how.get("method") == "HEAD")
    finally:
        await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(seconds / 500)


# ------------------------------------------------------------------------------------------------- the real command

OUTTHINK = Path(sysconfig.get_path("scripts")) / ("outthink.exe" if sys.platform == "win32" else "outthink")


@dataclass
class Command:
    """A running `outthink serve`; `told` is what it has written to stderr so far."""

    process: asyncio.subprocess.Process
    url: str = ""
    told: list[str] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """It serves, or has ended."""

    async def read(self) -> None:
        """Keep what it tells, to its end."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.told.append(line.decode())
            if "Serving at " in self.told[-1]:
                self.url = self.told[-1].split("Serving at ")[1].split("/v1")[0]
                self.ready.set()
        self.ready.set()


@contextlib.asynccontextmanager
async def command(folder: Path, upstream: str, *options: str, **environment: str) -> AsyncIterator[Command]:
    """`outthink serve` as a process of its own, with nobody's keys; it is killed at the end where it still runs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OUTTHINK_", "OPENAI_"))}
    process = await asyncio.create_subprocess_exec(
        *(str(OUTTHINK), "serve", "--upstream", upstream, "--port", "0", *options),
        env={**own, "OUTTHINK_CACHE": str(folder / "cache"), "XDG_CONFIG_HOME": str(folder / "config"), **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    running = Command(process)
    reading = asyncio.create_task(running.read())
    try:
        async with asyncio.timeout(120):
            await running.ready.wait()
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading
