"""The models that a server offers: an embedded one, or those of its upstream, each probed when first asked for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from outthink.errors import EngineError, UsageError
from outthink.models import listing
from outthink.models.endpoint import Endpoint, Patience
from outthink.models.engine import Engine
from outthink.together import close_all

_FRESH = 60.0  # seconds for which a list of models is believed, and that one of them cannot be opened
_CHECKED = 5.0  # seconds for which it is believed that the upstream is there, or is not
_AT_ONCE = 2  # models that are opened at the same time
_OPENING = 120.0  # seconds for it


class Served:
    """Engines by name.

    Args:
        engines: those that are open.
        url: an upstream that serves more models than those; None: there are no others.
        opened: opens a further one of it by name.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        url: str | None = None,
        opened: Callable[[str], Awaitable[Engine]] | None = None,
    ) -> None:
        self._engines = dict(engines)
        self._endpoint = None if url is None else Endpoint(url, patience=Patience(silence=10.0, attempts=2))
        self._open = opened
        self._names = dict.fromkeys(self._engines)
        self._at = -_FRESH
        self.version = 0
        """Grows whenever something is listed or opened that was not before."""
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, tuple[float, Exception]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._asking: asyncio.Task[bool] | None = None
        self._asked_at = 0.0

    async def names(self) -> Collection[str]:
        """What there is, those that are open first; where the upstream does not answer, as it was last."""
        now = asyncio.get_running_loop().time()
        if self._endpoint is not None and now - self._at >= _FRESH:
            known = bool(self._names)
            if known:
                self._at = now  # nobody else has to ask meanwhile, nor again at once where it fails
            try:
                self._hear(await listed(self._endpoint))
                self._at = now
            except (EngineError, UsageError) as failure:
                if not known:
                    raise _upstreams(failure) from None
        return self._names

    def _hear(self, names: Sequence[str]) -> None:
        """Keep what there is by now."""
        known = dict.fromkeys((*self._engines, *names))
        if list(known) != list(self._names):
            self._names = known
            self.version += 1

    def opened(self, name: str) -> Engine | None:
        """The engine of that name, if it is open."""
        return self._engines.get(name)

    async def engine(self, name: str) -> Engine:
        """The engine of that name, which is among `names`; raises as opening it does."""
        if name in self._engines:
            return self._engines[name]
        at, failure = self._failed.get(name, (-math.inf, None))
        if failure is not None and asyncio.get_running_loop().time() - at < _FRESH:
            raise failure.with_traceback(None)  # each attempt costs some requests
        task = self._opening.get(name)
        if task is None:  # once, however many ask at the same time, and whoever of them leaves
            task = self._opening[name] = asyncio.create_task(self._open_once(name))
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.shield(task)
        return self._engines[name]

    async def _open_once(self, name: str) -> None:
        assert self._open is not None
        try:
            async with self._places, asyncio.timeout(_OPENING):
                self._engines[name] = await self._open(name)
                self._hear(tuple(self._names))
                self.version += 1
        except (EngineError, UsageError, TimeoutError) as raised:
            late = EngineError(f"What {name} can do could not be found out within {_OPENING:g} s.")
            failure = late if isinstance(raised, TimeoutError) else _upstreams(raised)
            self._failed[name] = (asyncio.get_running_loop().time(), failure)
            raise failure from None
        finally:
            del self._opening[name]

    async def reached(self) -> bool:
        """Whether what answers is there: an embedded model is; an upstream is asked at most every few seconds."""
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and now - self._asked_at >= _CHECKED):
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> bool:
        there = [self._endpoint] if self._endpoint is not None else list(self._engines.values())
        asks = [one.reached() for one in there if hasattr(one, "reached")]
        return all(await asyncio.gather(*asks))

    async def close(self) -> None:
        """Close what was opened here, and its connections."""
        for opening in [*self._opening.values(), *([] if self._asking is None else [self._asking])]:
            opening.cancel()
        await close_all([self._endpoint, *self._engines.values()])


def _upstreams(failure: EngineError | UsageError) -> EngineError:
    """A failure of the upstream or of how it was set up, neither of which is the caller's matter."""
    return failure if isinstance(failure, EngineError) else EngineError(str(failure))


async def listed(endpoint: Endpoint) -> tuple[str, ...]:
    """The models that an endpoint lists; raises UsageError and EngineError where it has no list."""
    return tuple(await listing.listed(endpoint))
