"""A proxy in front of a real server that keeps what the server was asked and what it sent back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

HOP = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass(kw_only=True)
class Heard:
    """One request, and what came back.

    Args:
        events: of a stream; of any other answer its body, alone.
        left: the client was gone before the end.
    """

    path: str
    body: Any
    events: list[Any] = field(default_factory=list)
    left: bool = False

    def choices(self, index: int = 0) -> list[dict[str, Any]]:
        """What was sent of one answer, piece by piece."""
        return [one for event in self.events for one in event.get("choices", ()) if one.get("index", 0) == index]


class Overheard:
    """`async with` starts it; it closes its connection to the server when the client closes its own."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removesuffix("/v1")
        self.heard: list[Heard] = []
        self.url = ""

    @property
    def asked(self) -> list[Heard]:
        """The requests for answers."""
        return [one for one in self.heard if one.path.endswith("completions")]

    async def __aenter__(self) -> Overheard:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        heard = Heard(path=request.path.removeprefix("/v1/"), body=json.loads(raw) if raw else None)
        self.heard.append(heard)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        kept = b""
        try:
            async with self._client.request(
                request.method, self.upstream + request.path_qs, data=raw or None, headers=headers
            ) as answer:
                response = web.StreamResponse(status=answer.status)
                response.content_type = answer.content_type
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                    kept += piece
                return response
        except (asyncio.CancelledError, ConnectionError):
            heard.left = True
            raise
        finally:
            heard.events = _events(kept)


def _events(sent: bytes) -> list[Any]:
    """The events of a stream, or the answer; what was not whole is left out."""
    if not sent.startswith(b"data:"):
        try:
            return [json.loads(sent)]
        except ValueError:
            return []
    whole = sent[: sent.rfind(b"\n\n") + 2].split(b"\n\n")
    texts = [block.removeprefix(b"data: ") for block in whole if block.startswith(b"data: ")]
    return [json.loads(text) for text in texts if text != b"[DONE]"]
