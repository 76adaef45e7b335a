"""Samples in flight: several are being written while the first of them are looked at; or in portions, looked at whole.

A strategy that stops early looks at samples in the order of their addresses and not in that of their arrival, so its
decision depends on neither speed nor load; what is still being written when it leaves is cancelled, and charged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from outthink.errors import BudgetExhausted, EngineError
from outthink.model import Draws
from outthink.types import Candidate

_AT_ONCE = 64
_HOPELESS = 4  # failures before anything came at all, after which more of the same is not expected to help


class Flight:
    """Up to `n` samples with `ahead` of them in flight; use `flight`."""

    def __init__(self, draws: Draws, n: int, ahead: int) -> None:
        self._draws = draws
        self._left = n
        self._ready = draws.ready
        self._ahead = ahead
        self._running: deque[asyncio.Task[list[Candidate]]] = deque()
        self._failure: Exception | None = None
        self._failed = 0
        self._came = False

    async def next(self) -> Candidate | None:
        """The next sample by address; None when there are no more, because of n or of the budget.

        Failed samples are left out; where the first few have all failed, no more are begun. Raises what made the last
        one fail where none came at all.
        """
        while await self._launched():
            sample = await self._taken(self._running.popleft())
            if sample is not None:
                return sample
        self._end()
        return None

    async def first(self) -> Candidate | None:
        """The next sample that ends, whichever it is; None and errors as for `next`."""
        while await self._launched():
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            task = next(task for task in self._running if task in done)
            self._running.remove(task)
            sample = await self._taken(task)
            if sample is not None:
                return sample
        self._end()
        return None

    async def cancel(self) -> None:
        """End what is in flight, and wait until it has been charged."""
        self._left = 0
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        for task in self._running:
            if not task.cancelled():
                task.exception()  # it ended at the last moment; its result or failure is in the ledger
        self._running.clear()

    async def _launched(self) -> bool:
        # those that are there already may be enough, so they are looked at before others are begun
        while self._left > 0 and len(self._running) < (self._ready or self._ahead):
            self._left -= 1
            self._running.append(asyncio.ensure_future(self._draws.draw()))
            if len(self._running) % _AT_ONCE == 0:  # many that begin at the same moment would keep others waiting
                await asyncio.sleep(0)
        return bool(self._running)

    async def _taken(self, task: asyncio.Task[list[Candidate]]) -> Candidate | None:
        try:
            (sample,) = await task
        except BudgetExhausted as failure:
            self._left, self._failure = 0, self._failure or failure
            return None
        except EngineError as failure:
            self._failure = failure
            self._failed += 1
            if not self._came and self._failed >= _HOPELESS:
                self._left = 0
            return None
        except asyncio.CancelledError:
            task.cancel()
            self._running.append(task)  # to be awaited by `cancel`
            raise
        self._came = True
        self._ready = max(self._ready - 1, 0)
        return sample

    def _end(self) -> None:
        if not self._came and self._failure is not None:
            raise self._failure


class Portions:
    """Up to `n` samples in portions of `size`; `left` may still come after those that were given."""

    def __init__(self, draws: Draws, n: int, size: int) -> None:
        self._draws = draws
        self._size = size
        self._failure: EngineError | None = None
        self._came = False
        self.left = n

    async def next(self) -> list[Candidate] | None:
        """What came of the next portion that brought anything; None: there are no more, because of n or of the budget.

        Raises what made the last portion fail, or the end of the budget, where none came at all.
        """
        while self.left > 0:
            size = min(self._size, self.left)
            self.left -= size
            try:
                drawn = await self._draws.draw(size)
            except BudgetExhausted:
                if not self._came:
                    raise
                return None
            except EngineError as cause:  # all of this portion; the next one may come back
                self._failure = cause
                continue
            self._came = True
            return drawn
        if self._failure is not None and not self._came:
            raise self._failure
        return None


@contextlib.asynccontextmanager
async def flight(draws: Draws, n: int, ahead: int) -> AsyncIterator[Flight]:
    """Up to n samples, `ahead` of them in flight at any time; those in flight at the end are cancelled."""
    flying = Flight(draws, n, ahead)
    try:
        yield flying
    finally:
        await flying.cancel()
