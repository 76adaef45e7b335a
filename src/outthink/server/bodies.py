"""Reads the bodies of requests off their connections, slow and large ones within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from outthink.server.body import Intake, Sizes
from outthink.server.door import Lines
from outthink.server.errors import BadRequest
from outthink.server.gate import Busy

SLOW = 60.0  # seconds that a caller may take to send a body
_HELD = 256 << 20  # bytes of all bodies that are worked on or wait; read, they take a few times as much memory
_BYTES = web.RequestKey("bytes", int)


class Bodies:
    """What callers send.

    Args:
        lines: told when all of a request is there.
        workers: processes that share the memory.
    """

    def __init__(self, sizes: Sizes, lines: Lines, workers: int = 1) -> None:
        self._sizes = sizes
        self._lines = lines
        self._most = max(_HELD // workers, min(_HELD, sizes.text + sizes.media))  # the largest body has room
        self.held = 0
        """Bytes of all requests that have not been answered yet."""

    async def read(self, request: web.Request) -> bytes:
        """All of a body; its bytes count as held until the request is answered. Raises BadRequest and Busy."""
        if request.content_type != "application/json":  # what browsers send unasked is refused
            raise BadRequest(
                "Send the body with Content-Type: application/json.", status=415, code="unsupported_media_type"
            )
        intake = Intake(self._sizes)
        request[_BYTES] = 0
        try:
            async with asyncio.timeout(SLOW):
                async for part in request.content.iter_any():
                    self.held += len(part)
                    request[_BYTES] += len(part)
                    intake.add(part)
                    if self.held > self._most:
                        raise Busy("The server holds too many large requests; try again later.", 1.0)
        except TimeoutError:
            slow = f"The body has not come within {SLOW:g} seconds."
            raise BadRequest(slow, status=408, code="too_slow") from None
        except web.RequestPayloadError:
            raise BadRequest("The body is not encoded as its head says.", code="invalid_body") from None
        self._lines.works(request.protocol)
        return intake.whole()

    @web.middleware
    async def freed(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer a request, and then hold its body no longer."""
        try:
            return await handler(request)
        finally:
            self.held -= request.get(_BYTES, 0)
