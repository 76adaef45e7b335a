"""Places that several workers share: the broker in their parent gives them out, and each worker has a channel to it.

They speak in lines over a socket of a pair, which both ends notice when the other process is gone, however it ended:
a worker's places are free then, and workers end with their parent.

    worker: ready | ask TURN | leave TURN [SECONDS]
    broker: WORD TURN RUNNING WAITING SOON WORKERS, where WORD is salt (TURN is the salt), go, busy, or now (TURN is -)
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from itertools import count

from outthink.server.gate import Busy, Places, full

_OFTEN = 0.05  # seconds after which workers know what the others have taken


class Broker:
    """Gives out places to workers."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._salt = secrets.token_hex(32)
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._ready: set[int] = set()
        self._told = self._counts()
        self._later: asyncio.TimerHandle | None = None
        self._names = count()

    async def attend(self, end: socket.socket, ready: asyncio.Event) -> None:
        """Serve a worker at the broker's end of a pair, until it is gone; what it held is free then."""
        reader, writer = await asyncio.open_connection(sock=end)
        worker = next(self._names)
        self._writers[worker] = writer
        turns: set[tuple[int, str]] = set()
        try:
            self._say(worker, "salt", self._salt)
            async for line in reader:
                word, *rest = line.decode().split()
                if word == "ready":
                    self._ready.add(worker)
                    ready.set()
                elif word == "ask":
                    turns.add((worker, rest[0]))
                    self._ask(worker, rest[0])
                else:
                    turns.discard((worker, rest[0]))
                    self._leave((worker, rest[0]), float(rest[1]) if len(rest) > 1 else None)
                self._tell_later()
        except ConnectionError:
            pass
        finally:
            del self._writers[worker]
            self._ready.discard(worker)
            for turn in turns:
                self._leave(turn, None)
            self._tell_later()
            writer.close()

    def _ask(self, worker: int, turn: str) -> None:
        try:
            if self._places.enter((worker, turn)):
                self._say(worker, "go", turn)
        except Busy:
            self._say(worker, "busy", turn)

    def _leave(self, turn: tuple[int, str], seconds: float | None) -> None:
        for moved in self._places.leave(turn, seconds):
            assert isinstance(moved, tuple)
            if moved[0] in self._writers:  # else all that it has is about to be free
                self._say(moved[0], "go", moved[1])

    def _say(self, worker: int, word: str, turn: str) -> None:
        running, waiting, workers = self._counts()
        line = f"{word} {turn} {running} {waiting} {self._places.soon:.3f} {workers}\n"
        self._writers[worker].write(line.encode())

    def _counts(self) -> tuple[int, int, int]:
        return self._places.running, self._places.waiting, len(self._ready)

    def _tell_later(self) -> None:
        if self._later is None and self._told != self._counts():
            self._later = asyncio.get_running_loop().call_later(_OFTEN, self._tell)

    def _tell(self) -> None:
        self._later = None
        self._told = self._counts()
        for worker in self._writers:
            self._say(worker, "now", "-")


class Channel:
    """A worker's end: a desk for its gate. `lost` is set when the parent is gone.

    `running`, `waiting` and `soon` are those of all workers, a twentieth of a second old at most; `workers` is how
    many of them serve.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.running = 0
        self.waiting = 0
        self.soon = 1.0
        self.workers = 0
        self.salt = b""
        self.lost = asyncio.Event()
        self._turns: dict[str, asyncio.Future[None]] = {}
        self._names: dict[asyncio.Future[None], str] = {}
        self._count = count()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, end: socket.socket) -> AsyncIterator[Channel]:
        """The channel at this end of a pair."""
        reader, writer = await asyncio.open_connection(sock=end)
        channel = cls(writer)
        if line := await reader.readline():  # else the parent is gone already
            channel._hear(line)
        hearing = asyncio.create_task(channel._listen(reader))
        try:
            yield channel
        finally:
            hearing.cancel()
            writer.close()

    def ready(self) -> None:
        """Tell that this worker serves."""
        self._writer.write(b"ready\n")

    def ask(self, turn: asyncio.Future[None]) -> None:
        """Have a turn told that it has a place, or that it gets none: Busy."""
        if self.lost.is_set():
            raise full(self.soon)
        name = str(next(self._count))
        self._turns[name] = turn
        self._names[turn] = name
        self._writer.write(f"ask {name}\n".encode())

    def leave(self, turn: asyncio.Future[None], seconds: float | None) -> None:
        """The turn needs no place any more, whether it has one or not."""
        name = self._names.pop(turn)
        del self._turns[name]
        self._writer.write(f"leave {name}{'' if seconds is None else f' {seconds:.6f}'}\n".encode())

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                self._hear(line)
        self.lost.set()
        for turn in self._turns.values():
            if not turn.done():
                turn.set_exception(full(self.soon))

    def _hear(self, line: bytes) -> None:
        word, name, running, waiting, soon, workers = line.decode().split()
        self.running, self.waiting, self.soon, self.workers = int(running), int(waiting), float(soon), int(workers)
        turn = self._turns.get(name)
        if word == "salt":
            self.salt = bytes.fromhex(name)
        elif turn is not None and not turn.done():  # else it is about to leave
            if word == "go":
                turn.set_result(None)
            else:
                turn.set_exception(full(self.soon))
