"""Finds out, for a share of the requests, what another strategy would have answered; callers go first."""

from __future__ import annotations

from dataclasses import replace

from outthink.models.facts import Facts
from outthink.records.runs import OWN
from outthink.server import problems
from outthink.server.asked import Wish
from outthink.server.gate import Gate
from outthink.server.job import Job
from outthink.server.metrics import Metrics
from outthink.server.preparing import Preparing
from outthink.server.record import Recorder
from outthink.server.running import Running
from outthink.server.settings import Settings
from outthink.server.solving import Equipment, renamed, solved
from outthink.types import Trace

_AT_ONCE = 16  # of all workers
_PRIORITY = 100  # nobody waits for these


class Shadows:
    """Runs some requests once more, in the background."""

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        preparing: Preparing,
        gate: Gate,
        running: Running,
        equipment: Equipment,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._recorder = recorder
        self._preparing = preparing
        self._gate = gate
        self._running = running
        self._equipment = equipment
        self._metrics = metrics
        self._now = 0

    def follow(self, job: Job) -> None:
        """Begin the shadow of a request that has been answered, if it is to have one and there is room."""
        if int(job.ident[-8:], 16) >= self._settings.shadow * (1 << 32) or self._running.draining:
            return
        if job.choice.named["name"] == self._settings.alternative:
            return  # it would be compared with itself
        if job.trial is not None and job.trial.action != OWN:
            return  # what was served is not what the server does
        if not self._gate.idle or self._now >= max(1, _AT_ONCE // self._settings.workers):
            return
        self._now += 1
        self._running.begin(self._shadowed(job)).add_done_callback(lambda _: self._ended())

    def _ended(self) -> None:
        self._now -= 1

    async def _shadowed(self, job: Job) -> None:
        wish = Wish(strategy=self._settings.alternative, answer=job.asked.wish.answer)
        shadow: Job | None = None
        try:
            shadow = await self._preparing.again(job, replace(job.asked, wish=wish, effort=None))
            shadow.ident = job.ident
            facts: Facts | None = getattr(job.engine, "facts", None)
            fields = {**shadow.problem.fields}
            if "cache_salt" in job.problem.fields:
                fields["cache_salt"] = job.problem.fields["cache_salt"]
            if facts is not None and facts.priority:
                fields["priority"] = _PRIORITY
            shadow.problem = replace(shadow.problem, fields=fields)
            self._running.add(shadow)
            self._metrics.shadows.inc()
            trace = await solved(shadow, shadow.seconds, self._equipment, self._metrics)
        except Exception as failure:
            left: Trace | None = getattr(failure, "trace", None)
            if shadow is None or left is None:
                problems.told(failure)
                return
            trace = renamed(shadow, left)
        finally:
            if shadow is not None:
                self._running.discard(shadow)
        self._recorder.shadowed(trace, job.owner)
