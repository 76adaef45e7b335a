"""Takes connections in as far as there are descriptors for them, and closes idle ones when they run short.

The loops of asyncio go on accepting when a process has no descriptor left, with a traceback for every place of the
backlog. Here nothing is accepted then; those who come wait in the kernel until the connections that have been quiet
for longest are closed. Some descriptors are held back for callers, so that requests to the upstream cannot take all.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import sys
from dataclasses import dataclass

from aiohttp import web

from outthink.errors import UsageError

_logger = logging.getLogger("outthink.server")
_OWN = 64  # descriptors for files, worker processes and the like
_MOST = 1 << 16  # more are not asked for
_WAITING = 4096  # connections that wait in the kernel
_AGAIN = 0.02  # seconds until it is looked whether there is room again
_YOUNG = 0.5  # seconds that a new connection has to ask for something
_RESERVE = 32  # descriptors that only callers get
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def descriptors() -> int:
    """How many files and connections this process may have open, after its own limit was raised as far as allowed."""
    if sys.platform == "win32":
        return _MOST
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if soft == resource.RLIM_INFINITY else min(soft, _MOST)


@dataclass(frozen=True, slots=True)
class Shares:
    """Connections of callers, and requests at work and waiting."""

    connections: int
    concurrency: int
    queue: int

    def within(self, limit: int) -> Shares:
        """As much of them as so many descriptors allow.

        Half is for callers, and an eighth of that stays free for those who only ask how it is.
        """
        connections = min(self.connections, max(8, (limit - min(_OWN, limit // 4)) // 2))
        requests = connections - connections // 8
        concurrency = min(self.concurrency, max(requests - self.queue, requests // 2))
        return Shares(connections, concurrency, min(self.queue, requests - concurrency))


async def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets at all addresses of a host, which do not listen yet; raises UsageError where there are none to have."""
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    except OSError as cause:
        raise UsageError(f"Cannot listen on {host}:{port}: {cause.strerror}; choose another --port.") from None
    try:
        return [listener.dup() for listener in server.sockets]
    finally:
        server.close()


def address(listener: socket.socket) -> str:
    """Of a bound socket, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Lines:
    """The connections of callers: which are at work, and which have been quiet for longest."""

    def __init__(self) -> None:
        self._working: set[web.RequestHandler] = set()
        self._quiet: dict[web.RequestHandler, float] = {}  # since when, by the loop's clock
        self._many = 64

    def works(self, line: web.RequestHandler) -> None:
        """Its request is all there, and is worked on."""
        self._quiet.pop(line, None)
        self._working.add(line)

    def rests(self, line: web.RequestHandler) -> None:
        """Its request has been answered."""
        self._working.discard(line)
        self.came(line)

    def came(self, line: web.RequestHandler) -> None:
        """It is new, or free again."""
        if line in self._working:
            return
        self._quiet.pop(line, None)
        self._quiet[line] = asyncio.get_running_loop().time()
        if len(self._quiet) > self._many:  # those that have ended are forgotten now and then
            self._quiet = {one: since for one, since in self._quiet.items() if one.transport is not None}
            self._many = max(64, 2 * len(self._quiet))

    def close(self, most: int) -> None:
        """Close up to so many of those that are quiet, the quietest first; what has just come may be about to ask."""
        young = asyncio.get_running_loop().time() - _YOUNG
        for line, since in list(self._quiet.items()):
            if most <= 0 or since > young:
                return
            del self._quiet[line]
            if line.transport is not None:
                line.force_close()
                most -= 1


class Door:
    """Accepts the connections of listening sockets.

    Args:
        server: makes a protocol for each.
        lines: told of each.
        most: connections at once.
        turn: connections that are accepted before others have their turn.
    """

    def __init__(self, server: web.Server, lines: Lines, most: int, turn: int) -> None:
        self._server = server
        self._lines = lines
        self._most = most
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._coming: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._reserve: list[int] = []
        self._hold()

    def open(self, listener: socket.socket) -> None:
        """Accept what comes at a bound socket, which is closed with the door."""
        listener.setblocking(False)
        listener.listen(_WAITING)
        self._loop.add_reader(listener.fileno(), self._take, listener)
        self._sockets.append(listener)

    async def close(self) -> None:
        """Accept nothing any more; the connections that there are stay."""
        if self._later is not None:
            self._later.cancel()
        for listener in self._sockets:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._sockets.clear()
        for held in self._reserve:
            os.close(held)
        self._reserve.clear()
        await asyncio.gather(*self._coming)

    def _take(self, listener: socket.socket) -> None:
        for _ in range(self._turn):
            if len(self._server.connections) + len(self._coming) >= self._most:
                self._wait("as many connections as are allowed")
                return
            try:
                line = listener.accept()[0]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as failure:
                if failure.errno not in _SHORT:
                    raise
                self._wait("no descriptors left for more connections")
                if not self._reserve:
                    return
                os.close(self._reserve.pop())
                continue
            line.setblocking(False)
            task = self._loop.create_task(self._begun(line))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _begun(self, line: socket.socket) -> None:
        try:
            _, protocol = await self._loop.connect_accepted_socket(self._server, line)
        except OSError:  # the caller has left
            line.close()
        else:
            self._lines.came(protocol)

    def _wait(self, why: str) -> None:
        """Make room, and go on when there is some."""
        _logger.warning("There are %s, so idle ones are closed.", why)
        self._lines.close(max(1, self._most // 8))
        for listener in self._sockets:
            self._loop.remove_reader(listener.fileno())
        if self._later is None:
            self._later = self._loop.call_later(_AGAIN, self._go_on)

    def _go_on(self) -> None:
        self._later = None
        self._hold()
        for listener in self._sockets:
            self._loop.add_reader(listener.fileno(), self._take, listener)

    def _hold(self) -> None:
        """Hold back descriptors for callers, as many as there still are."""
        with contextlib.suppress(OSError):
            while len(self._reserve) < min(_RESERVE, self._most):
                self._reserve.append(os.open(os.devnull, os.O_RDONLY))
