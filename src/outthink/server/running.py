"""What a server has at work: the tasks of requests and shadows, and their end when it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from outthink.server.job import Job

HURRY = 5.0  # seconds for what has been told to come to an end

T = TypeVar("T")


class Running:
    """Tasks, and the jobs among them that can be told to end with what they have."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.jobs: set[Job] = set()
        self.draining = False
        """The server is being stopped: nothing new is begun."""
        self.leaving = False
        """Another worker takes the place of this one: connections end with the request that they have."""
        self.quiet = asyncio.Event()
        """No job runs, or none is waited for any more."""
        self.quiet.set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that ends by itself, also when nobody waits for it any more."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that nobody complains where the caller has left

    def add(self, job: Job) -> None:
        """Count a job until `discard`."""
        self.jobs.add(job)
        self.quiet.clear()

    def discard(self, job: Job) -> None:
        """It has ended."""
        self.jobs.discard(job)
        if not self.jobs:
            self.quiet.set()

    def hurry(self) -> None:
        """Have the jobs that still run end with the best that there is."""
        self.quiet.set()
        for job in self.jobs:
            job.stop.set()

    async def close(self) -> None:
        """End what still runs, so that what it was charged is kept."""
        self.hurry()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=HURRY)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
