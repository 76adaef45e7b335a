"""Runs coroutines side by side so that none outlives the others, long work so that it keeps nobody waiting; closes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

A = TypeVar("A")
T = TypeVar("T")

_log = logging.getLogger("outthink")
_SLICE = 0.01  # seconds of work between two looks at what else there is to do
_SMALL = 20_000
_BEGUN = 100  # coroutines that begin in one round of the loop
_ROUND = 10_000  # microseconds of work in one round of the loop, as far as it is announced


async def together(*coroutines: Coroutine[Any, Any, T]) -> list[T]:
    """Their results in order; the first failure cancels and awaits the others and is raised as itself."""
    if len(coroutines) == 1:  # as nearly always, and a task costs more than much of what is done in it
        return [await coroutines[0]]
    running: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in coroutines:
                if len(running) % _BEGUN == _BEGUN - 1:
                    await asyncio.sleep(0)
                running.append(tasks.create_task(coroutine))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0]  # noqa: B904 - its own cause matters, not the group's
    finally:
        for coroutine in coroutines[len(running) :]:
            coroutine.close()
    return [task.result() for task in running]


class _Turns:
    """What was announced in this round of one event loop, and who waits for a later one."""

    def __init__(self) -> None:
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting and self._fits(size):
            self._take(size, loop)
            return
        place = loop.create_future()
        self._waiting.append((size, place))
        await place

    def _fits(self, size: int) -> bool:
        return not self._taken or self._taken + size <= _ROUND

    def _take(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        if not self._taken:
            loop.call_soon(self._next, loop)
        self._taken += max(size, 1)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._taken = 0
        while self._waiting and self._fits(self._waiting[0][0]):
            size, place = self._waiting.popleft()
            if not place.done():  # else it was cancelled
                place.set_result(None)
                self._take(size, loop)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


async def turn(size: int) -> None:
    """Wait for a round of the event loop that has room for a piece of work, in the order of the calls.

    So a thousand pieces that are ready at the same moment do not hold the loop in one piece. Nobody waits where little
    is done.

    Args:
        size: about how many microseconds it takes; the same for the same input.
    """
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = _Turns()
    await turns.take(size)


@contextlib.asynccontextmanager
async def beside() -> AsyncIterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """What begins coroutines that run beside the block, which ends after them: if it fails, they are cancelled.

    It may be called from any thread; what comes when the block has ended is not begun.
    """
    running: list[asyncio.Task[None]] = []
    over = False
    loop, home = asyncio.get_running_loop(), threading.get_ident()

    def begin(coroutine: Coroutine[Any, Any, None]) -> None:
        if over:
            coroutine.close()
        elif threading.get_ident() == home:
            running.append(loop.create_task(coroutine))
        else:
            loop.call_soon_threadsafe(begin, coroutine)

    try:
        yield begin
        for task in running:
            await task
    finally:
        over = True
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def away(size: int, work: Callable[..., T], *given: Any) -> T:
    """What `work(*given)` returns, from a thread where it takes long, so that others go on meanwhile.

    Args:
        size: how many things it looks at, at about a microsecond each; the same for the same input, so that where it
            is done is no matter of timing.
    """
    return await asyncio.to_thread(work, *given) if size > _SMALL else work(*given)


async def lazily(most: int, begin: Callable[[A], Coroutine[Any, Any, T]], items: Sequence[A]) -> list[T]:
    """What the coroutine of each item returns, in order; at most so many are under way, begun in order.

    Errors as for `together`.
    """
    done: dict[int, T] = {}
    left = iter(enumerate(items))

    async def go_on() -> None:
        for place, item in left:
            done[place] = await begin(item)

    await together(*(go_on() for _ in range(min(most, len(items)))))
    return [done[place] for place in range(len(items))]


async def each(work: Callable[[A], T], items: Iterable[A]) -> list[T]:
    """What `work` makes of each item, giving way to others about every 10 ms.

    It is for work that is quick for one item and long for all of them. What comes out does not depend on the pauses,
    nor does the order in which those that are `in_line` go on.
    """
    done: list[T] = []
    async with _line.get() or contextlib.nullcontext():
        since = time.perf_counter()
        for item in items:
            done.append(work(item))
            if time.perf_counter() - since > _SLICE:
                await asyncio.sleep(0)
                since = time.perf_counter()
    return done


_line: ContextVar[asyncio.Lock | None] = ContextVar("line", default=None)


@contextlib.contextmanager
def in_line() -> Iterator[None]:
    """Tasks that begin within it do the work of `each` in the order in which they come to it.

    Else one with little work overtakes one that had to pause, and whom a budget refuses depends on load.
    """
    token = _line.set(asyncio.Lock())
    try:
        yield
    finally:
        _line.reset(token)


async def close_all(things: Iterable[object]) -> None:
    """Close each that has a `close`, a coroutine function or not.

    One that cannot be closed is logged: it keeps no other open, and what was paid for before is not lost with it.
    """
    for thing in things:
        try:
            closing = getattr(thing, "close", None)
            ended = closing() if callable(closing) else None
            if inspect.isawaitable(ended):
                await ended
        except Exception as failure:
            _log.warning("%s could not be closed: %s: %s", type(thing).__name__, type(failure).__name__, failure)
