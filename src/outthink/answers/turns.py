"""Questions for one worker process, asked in turns by owner, so that many of one owner do not hold up the others."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from outthink.answers.worker import Limit, Reply, Worker

CACHE_SIZE = 1 << 16

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Owners take turns; what one owner put in comes out in that order. May be used from several threads."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, owner: str, item: T) -> None:
        """Behind what this owner has waiting; an owner that has nothing waiting comes last."""
        with self._lock:
            self._waiting.setdefault(owner, deque()).append(item)

    def take(self) -> T:
        """The next one; KeyError where nothing waits."""
        with self._lock:
            owner, items = self._waiting.popitem(last=False)
            if len(items) > 1:
                self._waiting[owner] = items
            return items.popleft()


class Turns:
    """One worker process, the questions that wait for it, and the outcomes of the last ones.

    It may be used from several event loops. `limit` is that of one question.
    """

    def __init__(self, limit: Limit) -> None:
        self.worker = Worker(limit)
        self._waiting: FairQueue[tuple[Future[Reply], tuple[str, ...], int]] = FairQueue()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outthink-answers")
        self._cache: OrderedDict[tuple[str, ...], Reply] = OrderedDict()
        self._lock = threading.Lock()

    async def ask(self, owner: str, request: tuple[str, ...]) -> Reply:
        """The outcome of a question; it is not asked at all where it is cancelled before its turn.

        Raises EngineError as `Worker.ask`.
        """
        known = self._known(request)
        if known is not None:
            return known
        future: Future[Reply] = Future()
        self._waiting.put(owner, (future, request, self.worker.stops))
        self._executor.submit(self._next)  # one call for every question, but not always the one that came with it
        return await asyncio.wrap_future(future)

    def _next(self) -> None:
        future, request, stops = self._waiting.take()
        if not future.set_running_or_notify_cancel():
            return
        try:
            # the same question often comes several times at once; the first one has done the work
            future.set_result(self._known(request) or self._remember(request, self.worker.ask(request, stops)))
        except BaseException as error:
            future.set_exception(error)

    def _known(self, request: tuple[str, ...]) -> Reply | None:
        with self._lock:
            if request in self._cache:
                self._cache.move_to_end(request)
            return self._cache.get(request)

    def _remember(self, request: tuple[str, ...], reply: Reply) -> Reply:
        with self._lock:
            self._cache[request] = reply
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return reply
