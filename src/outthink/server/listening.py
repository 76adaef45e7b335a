"""A server that listens: its socket, its end, and the signals that ask for it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from outthink.errors import UsageError
from outthink.server.app import Service
from outthink.server.door import Door
from outthink.server.running import HURRY

IDLE = 75.0  # seconds for a head, and until an unused connection is closed; proxies keep theirs for a minute
_GARBAGE = (10_000, 10, 10)  # most of a request is gone with it, so looking for cycles often is a tenth of all work


@contextlib.asynccontextmanager
async def listening(service: Service) -> AsyncIterator[str]:
    """Answers requests while the context lasts; its address. At the end requests get `grace` seconds to finish."""
    settings = service.settings
    # its errors hold what callers have sent
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    runner = web.AppRunner(
        service.app(),
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=IDLE,
        shutdown_timeout=settings.grace + HURRY,
    )
    await runner.setup()
    assert runner.server is not None
    door = Door(runner.server, service.lines, settings.connections)
    try:
        try:
            host, port = await _opened(runner, door, settings.host, settings.port)
        except OSError as cause:
            raise UsageError(
                f"Cannot listen on {settings.host}:{settings.port}: {cause.strerror}; choose another --port."
            ) from None
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        service.running.draining = True
        ending = asyncio.get_running_loop().call_later(settings.grace, service.running.hurry)
        # those who come now hear that the server is being stopped, in place of nothing
        await service.running.quiet.wait()
        await door.close()
        await runner.cleanup()
        ending.cancel()
        await service.close()


async def _opened(runner: web.AppRunner, door: Door, host: str, port: int) -> tuple[str, int]:
    """Listen at all addresses of the host; the first of them, and its port."""
    binding = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    try:
        listeners = [listener.dup() for listener in binding.sockets]
    finally:
        binding.close()
    for listener in listeners:
        try:
            door.open(listener)
        except NotImplementedError:  # Windows, where a loop does not watch sockets
            await web.SockSite(runner, listener).start()
    address: tuple[str, int] = listeners[0].getsockname()[:2]
    return address


async def serve(service: Service, *, started: Callable[[str], None]) -> None:
    """Serve until the process is asked to end (SIGINT, SIGTERM); asked again, it waits for nothing any more."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        if ended.is_set():
            service.running.hurry()
        ended.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, end)
        except NotImplementedError:  # Windows
            signal.signal(name, lambda *_: loop.call_soon_threadsafe(end))
    async with listening(service) as address:
        gc.collect()
        gc.freeze()  # what is there now stays, and need not be looked through again and again
        gc.set_threshold(*_GARBAGE)
        started(address)
        await ended.wait()
