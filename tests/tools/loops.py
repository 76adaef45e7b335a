"""How long the event loop is held in one piece."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass
class Held:
    """The longest round of the loop so far, in seconds of processor time of its own thread."""

    longest: float = 0.0


@contextlib.asynccontextmanager
async def held() -> AsyncIterator[Held]:
    """Watch the loop; a busy machine does not matter, since other processes' time does not count.

    What other tests have left in memory is set aside, as the server does with what it starts with. Else one collection
    of garbage looks through all of it, and takes longer than what is measured.
    """
    watched = Held()

    async def beat() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            watched.longest, last = max(watched.longest, now - last), now

    gc.freeze()
    beating = asyncio.create_task(beat())
    try:
        yield watched
    finally:
        beating.cancel()
        gc.unfreeze()
