"""The work of one request, for every door: it waits for a place, is solved and is recorded.

The work belongs to the request: when the caller leaves, it is stopped, charged and recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from outthink.errors import OutthinkError
from outthink.server.gate import Gate
from outthink.server.job import Job
from outthink.server.metrics import Metrics
from outthink.server.preparing import Preparing
from outthink.server.record import Recorder
from outthink.server.running import Running
from outthink.server.shadows import Shadows
from outthink.server.solving import Equipment, Listener, renamed, solved
from outthink.types import Trace


class Requests:
    """Does what requests ask for.

    Args:
        recorder: keeps traces; None: nobody does.
        shadows: of some of them; None: there are none.
    """

    def __init__(
        self,
        preparing: Preparing,
        gate: Gate,
        running: Running,
        equipment: Equipment,
        metrics: Metrics,
        recorder: Recorder | None,
        shadows: Shadows | None,
    ) -> None:
        self._preparing = preparing
        self._gate = gate
        self._running = running
        self._equipment = equipment
        self._metrics = metrics
        self._recorder = recorder
        self._shadows = shadows

    def start(self, job: Job, on_event: Listener | None = None) -> asyncio.Task[Trace]:
        """Begin the work; it ends by itself, also when nobody waits for it any more."""
        self._running.add(job)
        task = job.work = self._running.begin(self._work(job, on_event))
        task.add_done_callback(lambda _: self._running.discard(job))
        task.add_done_callback(lambda _: job.close())
        return task

    async def trace(self, job: Job) -> Trace:
        """What came of a job, once it has ended; it is stopped where nobody waits for it any more."""
        task = self.start(job)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.leave(job, task)
            raise

    async def traces(self, jobs: Sequence[Job]) -> list[Trace]:
        """What came of several jobs, side by side; where one fails the others are stopped."""
        if len(jobs) == 1:
            return [await self.trace(jobs[0])]
        waiting = [asyncio.ensure_future(self.trace(job)) for job in jobs]
        try:
            return await asyncio.gather(*waiting)
        except BaseException:
            for one in waiting:
                one.cancel()
            raise

    def leave(self, job: Job, task: asyncio.Task[Trace]) -> None:
        """The caller has left: stop the work, so that what it has cost is still counted."""
        if job.begun:
            job.stop.set()
        else:
            task.cancel()

    async def _work(self, job: Job, on_event: Listener | None) -> Trace:
        loop = asyncio.get_running_loop()
        came = loop.time()
        try:
            async with self._gate.place(job.deadline - came):
                self._metrics.queued.observe(loop.time() - came)
                job.begun = True
                seconds = max(job.deadline - loop.time(), 1e-3)
                trace = await solved(job, seconds, self._equipment, self._metrics, on_event)
        except OutthinkError as failure:
            if failure.trace is not None:
                self._record(job, renamed(job, failure.trace))  # it holds the bill
            if job.purse is not None and job.purse.failure is not None:
                raise job.purse.failure from failure
            raise
        self._record(job, trace)
        self._metrics.decided(trace, job.trial, job.choice.plan)
        self._preparing.learn(job, trace)
        if self._shadows is not None and trace.stopped != "cancelled":
            self._shadows.follow(job)
        return trace

    def _record(self, job: Job, trace: Trace) -> None:
        job.trace = trace
        if self._recorder is not None:
            messages = [message.sent or {} for message in job.asked.messages]
            self._recorder.served(trace, messages, job.owner, job.trial)
