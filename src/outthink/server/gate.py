"""How many requests are worked on at once, how many wait, and how much each may spend when it is crowded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

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


class Gate:
    """Places for requests, taken in the order in which they come.

    Args:
        places: requests at once, at least 1.
        queue: requests that wait, at least 0; further ones are refused.
        sheds: whether requests may spend less when more than half of the places are taken.
    """

    def __init__(self, places: int, queue: int, *, sheds: bool = False) -> None:
        self._places = places
        self._queue = queue
        self._sheds = sheds
        self._free = asyncio.Semaphore(places)
        self._seconds = 1.0
        self.running = 0
        self.waiting = 0

    def dearness(self) -> float:
        """How many times as dear compute is now as while at most half of the places are taken.

        It doubles with every sixteenth of the places that is taken beyond, those who wait included.
        """
        taken = (self.running + self.waiting) / self._places
        return max(1.0, 2.0 ** min(_DOUBLED * (taken - _HALF), _DOUBLED))

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
        if self._free.locked() and self.waiting >= self._queue:
            raise Busy("The server is busy and its queue is full; try again later.", self._wait())

    @contextlib.asynccontextmanager
    async def place(self, seconds: float | None = None) -> AsyncIterator[None]:
        """A place, for as long as the context lasts; waits for one at most `seconds`.

        Raises Busy where the queue is full or nothing has become free in time.
        """
        self.check()
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError:
            raise Busy("The deadline has passed before the request could be begun.", self._wait()) from None
        finally:
            self.waiting -= 1
        self.running += 1
        begun = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self.running -= 1
            self._seconds += _FORGETS * (asyncio.get_running_loop().time() - begun - self._seconds)
            self._free.release()

    def _wait(self) -> float:
        """About how long it takes until those who wait have had their turn."""
        return min(60.0, self._seconds * (self.waiting + 1) / self._places)
