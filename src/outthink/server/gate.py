"""How many requests are worked on at once, how many wait, and how much each may spend when it is crowded."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Hashable
from typing import Protocol

from outthink.errors import OutthinkError

_HALF = 0.5  # share of the places that may be taken before anybody gets less
_DOUBLED = 16  # how often the price doubles while as many requests come as there are places
_STEPS = 8  # loads that are told apart, so that equal requests mostly get equal answers
_FORGETS = 0.1  # weight of the last request in the mean of how long they take


class Busy(OutthinkError):
    """The queue is full, or the deadline has passed in it.

    Args:
        retry: seconds after which there may be a place.
    """

    def __init__(self, sentence: str, retry: float) -> None:
        super().__init__(sentence)
        self.retry = retry


class Places:
    """Who has a place and who waits for one, in the order in which they come; each has a name of its own.

    Args:
        most: places, at least 1.
        queue: how many may wait, at least 0.
    """

    def __init__(self, most: int, queue: int) -> None:
        self._most = most
        self._queue = queue
        self._taken: set[Hashable] = set()
        self._line: dict[Hashable, None] = {}
        self._seconds = 1.0

    @property
    def running(self) -> int:
        """Places that are taken."""
        return len(self._taken)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    @property
    def soon(self) -> float:
        """About how many seconds it takes until those who wait have had their turn."""
        return min(60.0, self._seconds * (self.waiting + 1) / self._most)

    def enter(self, who: Hashable) -> bool:
        """Whether there is a place at once; else it waits. Raises Busy where too many wait already."""
        if self.running < self._most and not self._line:
            self._taken.add(who)
            return True
        if self.waiting >= self._queue:
            raise full(self.soon)
        self._line[who] = None
        return False

    def leave(self, who: Hashable, seconds: float | None = None) -> list[Hashable]:
        """Give back a place, or wait no longer; who has a place now.

        Args:
            seconds: for which it was needed; None: that says nothing of others.
        """
        self._line.pop(who, None)
        self._taken.discard(who)
        if seconds is not None:
            self._seconds += _FORGETS * (seconds - self._seconds)
        moved = list(self._line)[: self._most - self.running]
        for one in moved:
            del self._line[one]
            self._taken.add(one)
        return moved


class Desk(Protocol):
    """Gives out places: those of this process, or those that several processes share."""

    @property
    def running(self) -> int:
        """Places that are taken."""

    @property
    def waiting(self) -> int:
        """How many wait."""

    @property
    def soon(self) -> float:
        """Seconds after which there may be a place."""

    def ask(self, turn: asyncio.Future[None]) -> None:
        """Have a turn told that it has a place, or that it gets none: Busy."""

    def leave(self, turn: asyncio.Future[None], seconds: float | None) -> None:
        """The turn needs no place any more, whether it has one or not; as for `Places.leave`."""


class Here:
    """The places of this process."""

    def __init__(self, places: Places) -> None:
        self._places = places

    @property
    def running(self) -> int:
        """Places that are taken."""
        return self._places.running

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._places.waiting

    @property
    def soon(self) -> float:
        """Seconds after which there may be a place."""
        return self._places.soon

    def ask(self, turn: asyncio.Future[None]) -> None:
        """Have a turn told that it has a place; raises Busy."""
        if self._places.enter(turn):
            turn.set_result(None)

    def leave(self, turn: asyncio.Future[None], seconds: float | None) -> None:
        """Others have their turn."""
        for moved in self._places.leave(turn, seconds):
            assert isinstance(moved, asyncio.Future)
            if not moved.done():  # else it is about to leave
                moved.set_result(None)


class Gate:
    """Places for requests, taken in the order in which they come.

    Args:
        places: requests at once, at least 1.
        queue: requests that wait, at least 0; further ones are refused.
        sheds: whether requests may spend less when more than half of the places are taken.
        desk: gives out the places; None: this process alone has them.
    """

    def __init__(self, places: int, queue: int, *, sheds: bool = False, desk: Desk | None = None) -> None:
        self._places = places
        self._queue = queue
        self._sheds = sheds
        self._desk = desk or Here(Places(places, queue))

    @property
    def running(self) -> int:
        """Requests at work."""
        return self._desk.running

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._desk.waiting

    def dearness(self) -> float:
        """How many times as dear compute is now as while at most half of the places are taken.

        It doubles with every sixteenth of the places that is taken beyond, those who wait included.
        """
        taken = (self.running + self.waiting) / self._places
        return math.exp2(min(max(0.0, _DOUBLED * (taken - _HALF)), _DOUBLED))

    def load(self) -> float:
        """The share of its budget that a request that comes now should spend: 1, and less the fewer places are left."""
        taken = (self.running + self.waiting) / self._places
        if not self._sheds or taken <= _HALF:
            return 1.0
        left = max(0.0, (1 - taken) / (1 - _HALF))
        return max(1, round(left * _STEPS)) / _STEPS

    @property
    def idle(self) -> bool:
        """Whether at most half of the places are taken and nobody waits, so that there is room for more."""
        return not self.waiting and self.running <= self._places * _HALF

    def check(self) -> None:
        """Raise Busy where the queue is full."""
        if self.running >= self._places and self.waiting >= self._queue:
            raise full(self._desk.soon)

    @contextlib.asynccontextmanager
    async def place(self, seconds: float | None = None) -> AsyncIterator[None]:
        """A place, for as long as the context lasts; waits for one at most `seconds`.

        Raises Busy where the queue is full or nothing has become free in time.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        begun: float | None = None
        self._desk.ask(turn)
        try:
            try:
                async with asyncio.timeout(seconds):
                    await turn
            except TimeoutError:
                late = "The deadline has passed before the request could be begun."
                raise Busy(late, self._desk.soon) from None
            begun = loop.time()
            yield
        finally:
            self._desk.leave(turn, None if begun is None else loop.time() - begun)


def full(seconds: float) -> Busy:
    """The queue is full; there may be a place after so many seconds."""
    return Busy("The server is busy and its queue is full; try again later.", seconds)
