"""The parent of several workers: it holds their listening sockets and their places, and keeps so many of them alive.

Each worker is this same command once more, told by its environment whose it is. SIGTERM and Ctrl-C end all of them,
asked again they wait for nothing; SIGHUP puts a new one in the place of each, one after the other, so that what is read
at the start is read anew. A worker that ends by itself is replaced; workers that have lost their parent end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from outthink.server.broker import Broker
from outthink.server.door import address, bound
from outthink.server.gate import Places
from outthink.server.metrics import SHARED

_logger = logging.getLogger("outthink.server")
_WHOSE = "OUTTHINK_WORKER"
_AGAIN = 1.0, 60.0  # seconds until another one is begun where workers have ended before they served, ever more
_PATIENCE = 15.0  # seconds beyond their grace after which workers are killed


@dataclass(frozen=True)
class Inherited:
    """What a worker has of its parent.

    Args:
        channel: its end of a pair of sockets.
        listeners: bound sockets that it shares with the other workers.
    """

    channel: socket.socket
    listeners: Sequence[socket.socket]


def inherited() -> Inherited | None:
    """What this process has of its parent; None where it is no worker."""
    given = os.environ.pop(_WHOSE, "")  # it is not for what is started from here
    if not given:
        return None
    channel, *listeners = (socket.socket(fileno=int(number)) for number in given.split(","))
    return Inherited(channel, listeners)


async def supervise(
    workers: int, places: Places, *, host: str, port: int, grace: float, started: Callable[[str], None]
) -> int:
    """Serve by so many workers until the process is asked to end; the exit code.

    Args:
        grace: seconds that a worker gives its requests in the end.
        started: told the address once the first worker serves.

    Raises UsageError where nobody can listen there.
    """
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="outthink-metrics-") as metrics:
        parent = _Parent(Broker(places), await bound(host, port), metrics, grace)
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, parent.end)
        loop.add_signal_handler(signal.SIGHUP, parent.reload)
        first = await parent.begin()
        if not await first.serves():  # what is wrong is told once
            return 0 if parent.ending else max(1, await first.process.wait())
        started(address(parent.listeners[0]))
        keeping = [asyncio.create_task(parent.keep(slot, None if slot else first)) for slot in range(workers)]
        replacing = asyncio.create_task(parent.replace_all())
        await asyncio.gather(*keeping)
        replacing.cancel()
        await asyncio.gather(*(worker.gone() for worker in parent.alive))
    return 0


@dataclass(eq=False)
class _Worker:
    process: asyncio.subprocess.Process
    attending: asyncio.Task[None]
    ready: asyncio.Event
    successor: _Worker | None = None

    async def serves(self) -> bool:
        """Whether it serves; waits until it does or has ended."""
        waits = {asyncio.create_task(self.ready.wait()), asyncio.create_task(self.gone())}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self.process.returncode is None

    async def gone(self) -> None:
        """It has ended, and what it held is free."""
        await self.process.wait()
        await self.attending


class _Parent:
    def __init__(self, broker: Broker, listeners: Sequence[socket.socket], metrics: str, grace: float) -> None:
        self.broker = broker
        self.listeners = listeners
        self.metrics = metrics
        self.grace = grace
        self.ending = False
        self.alive: set[_Worker] = set()
        self.slots: dict[int, _Worker] = {}
        self._reloading = asyncio.Event()
        self._asked = asyncio.Event()  # set for a moment when somebody wants something of the parent
        self._rereading: set[asyncio.Task[None]] = set()

    async def begin(self) -> _Worker:
        """A new worker."""
        ours, its = socket.socketpair()
        ready = asyncio.Event()
        shared = [its.fileno(), *(listener.fileno() for listener in self.listeners)]
        with its:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *sys.orig_argv[1:]),
                env={**os.environ, _WHOSE: ",".join(map(str, shared)), SHARED: self.metrics},
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=shared,
                start_new_session=True,  # Ctrl-C is for the parent, which passes it on
            )
        worker = _Worker(process, asyncio.create_task(self.broker.attend(ours, ready)), ready)
        self.alive.add(worker)
        worker.attending.add_done_callback(lambda _: self.alive.discard(worker))
        if self.ending:
            _signal(worker, signal.SIGTERM)
        return worker

    async def keep(self, slot: int, worker: _Worker | None) -> None:
        """Have a worker in a slot until the end.

        What keeps one from serving may last, and so may what it says of it: others are begun ever more rarely, and at
        once where the operator asks for new ones.
        """
        wait = _AGAIN[0]
        while not self.ending:
            worker = self.slots[slot] = worker or await self.begin()
            await worker.gone()
            del self.slots[slot]
            ended, worker = worker, worker.successor
            code = ended.process.returncode
            if ended.ready.is_set():
                wait = _AGAIN[0]
            if worker is not None or self.ending:
                continue
            if ended.ready.is_set():
                _logger.warning("A worker has ended (%s); another one takes its place.", code)
                continue
            _logger.error("A worker has ended (%s) before it served; it is tried again after %.0f s.", code, wait)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._asked.wait()
            wait = min(2 * wait, _AGAIN[1])

    def reload(self) -> None:
        """Have all workers read the keys again, and then replace them.

        A key that was withdrawn counts no longer, wherever: replacing takes a while, and more where it is at work
        already. A worker that is starting may have read the keys before, so it reads them again once it serves.
        """
        self._reloading.set()
        self._wake()
        for worker in self.alive:
            task = asyncio.create_task(_reread(worker))
            self._rereading.add(task)
            task.add_done_callback(self._rereading.discard)

    async def replace_all(self) -> None:
        """Put a new worker into each slot, whenever it is asked for; the old ones finish what they have."""
        while await self._reloading.wait():
            self._reloading.clear()
            for slot in sorted(self.slots):
                new = await self.begin()
                if not await new.serves():
                    if not self.ending:
                        _logger.error("The new worker does not start, so the old ones stay.")
                    break
                old = self.slots.get(slot)
                if old is None:  # it has just ended by itself
                    _signal(new, signal.SIGTERM)
                    continue
                old.successor = new
                _signal(old, signal.SIGHUP)
            else:
                _logger.warning("All workers have been replaced.")

    def end(self) -> None:
        """Have all workers end."""
        if not self.ending:
            asyncio.get_running_loop().call_later(self.grace + _PATIENCE, self._kill)
        self.ending = True
        self._wake()
        for worker in self.alive:
            _signal(worker, signal.SIGTERM)

    def _wake(self) -> None:
        self._asked.set()
        self._asked.clear()  # who has waited is woken all the same

    def _kill(self) -> None:
        for worker in self.alive:
            _signal(worker, signal.SIGKILL)


async def _reread(worker: _Worker) -> None:
    if await worker.serves():
        _signal(worker, signal.SIGUSR1)


def _signal(worker: _Worker, number: signal.Signals) -> None:
    if worker.process.returncode is None:
        worker.process.send_signal(number)
