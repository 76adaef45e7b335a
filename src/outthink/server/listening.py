"""A server that listens: its socket, its end, and the signals that ask for it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence

from aiohttp import web

from outthink.server.app import Service
from outthink.server.broker import Channel
from outthink.server.door import Door, address, bound
from outthink.server.running import HURRY

IDLE = 75.0  # seconds for a head, and until an unused connection is closed; proxies keep theirs for a minute
_AT_ONCE = 64  # connections accepted before others have their turn; workers take turns
_GARBAGE = (10_000, 10, 10)  # most of a request is gone with it, so looking for cycles often is a tenth of all work


@contextlib.asynccontextmanager
async def listening(service: Service, listeners: Sequence[socket.socket] | None = None) -> AsyncIterator[str]:
    """Answers requests while the context lasts; its address. At the end requests get `grace` seconds to finish.

    Args:
        listeners: bound sockets, which other workers may have, too; None: new ones.
    """
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
    door = Door(runner.server, service.lines, settings.connections, _AT_ONCE if settings.workers == 1 else 1)
    try:
        listeners = listeners or await bound(settings.host, settings.port)
        for listener in listeners:
            try:
                door.open(listener)
            except NotImplementedError:  # Windows, where a loop does not watch sockets
                await web.SockSite(runner, listener).start()
        yield address(listeners[0])
    finally:
        ending = asyncio.get_running_loop().call_later(settings.grace, service.running.hurry)
        if service.running.leaving:
            await door.close()  # others take who comes now
            service.lines.close(settings.connections)
            await service.running.quiet.wait()
        # those who come now hear that the server is being stopped, in place of nothing; where another worker takes the
        # place, who was let in before the door closed is served
        service.running.draining = not service.running.leaving
        await service.running.quiet.wait()
        await door.close()
        await runner.cleanup()
        ending.cancel()
        await service.close()


async def serve(
    service: Service,
    *,
    started: Callable[[str], None],
    listeners: Sequence[socket.socket] | None = None,
    channel: Channel | None = None,
) -> None:
    """Serve until the process is asked to end (SIGINT, SIGTERM); asked again, it waits for nothing any more.

    Args:
        listeners: as for `listening`.
        channel: to the parent of this worker, with which it ends; SIGHUP leaves its place to another worker, and
            SIGUSR1 reads the keys again. Without one SIGHUP does that.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        if ended.is_set() and not service.running.leaving:
            service.running.hurry()
        service.running.leaving = False
        ended.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, end)
        except NotImplementedError:  # Windows
            signal.signal(name, lambda *_: loop.call_soon_threadsafe(end))
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, service.reload)
    if channel is not None:

        def leave() -> None:
            service.running.leaving = not ended.is_set()
            ended.set()

        loop.add_signal_handler(signal.SIGHUP, leave)
        loop.add_signal_handler(signal.SIGUSR1, service.reload)

        async def orphaned() -> None:
            await channel.lost.wait()
            service.running.hurry()
            ended.set()

        watching = asyncio.create_task(orphaned())
    async with listening(service, listeners) as url:
        gc.collect()
        gc.freeze()  # what is there now stays, and need not be looked through again and again
        gc.set_threshold(*_GARBAGE)
        started(url)
        await ended.wait()
    if channel is not None:
        watching.cancel()
