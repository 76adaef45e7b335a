"""Counts, logs and traces what came of each request; nothing of it tells what anybody has written."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from aiohttp import web

from outthink.server import problems
from outthink.server.guard import IDENT, OWNER
from outthink.server.job import Job
from outthink.server.metrics import Metrics
from outthink.server.telemetry import Asking, Telemetry
from outthink.types import Trace, Usage

_logger = logging.getLogger("outthink.server")


@dataclass
class Counted:
    """A request that is counted when it has ended: its jobs, once there are some, and the status of its response."""

    models: Mapping[str, str]
    asking: Asking | None
    status: int = 499
    jobs: list[Job] = field(default_factory=list)

    def add(self, job: Job) -> None:
        """A job that it has become."""
        self.jobs.append(job)
        if self.asking is not None:
            job.on_call = partial(self.asking.call, job, models=self.models)


class Counting:
    """Counts requests.

    Args:
        models: names of the models of further roles.
    """

    def __init__(self, metrics: Metrics, telemetry: Telemetry | None, models: Mapping[str, str]) -> None:
        self._metrics = metrics
        self._telemetry = telemetry
        self._models = models

    @contextlib.contextmanager
    def request(self, request: web.Request) -> Iterator[Counted]:
        """Count a request by what is told meanwhile, and by how it fails; raises what the caller is told then.

        Where the caller leaves, its line is written when the work has ended, so that the bill is in it.
        """
        began = asyncio.get_running_loop().time()
        asking = None
        if self._telemetry is not None:
            asking = self._telemetry.begin(request.method, request.path, request.headers, request[IDENT])
        one = Counted(self._models, asking)
        try:
            yield one
        except (asyncio.CancelledError, ConnectionError):
            self._metrics.disconnects.inc()
            raise
        except Exception as failure:
            problem = problems.told(failure)
            one.status = problem.status
            raise problems.RequestFailed(problem) from None
        finally:
            strategy = _strategy(one)
            seconds = asyncio.get_running_loop().time() - began
            self._metrics.requests.labels(strategy, str(one.status)).inc()
            self._metrics.latency.labels(strategy).observe(seconds)
            left = [job.work for job in one.jobs if job.work is not None and not job.work.done()]
            waits = len(left)

            def tell(*_: object) -> None:
                nonlocal waits
                waits -= 1
                if waits <= 0:
                    _tell(request, one, seconds)

            for work in left:
                work.add_done_callback(tell)
            if not left:
                tell()


def _strategy(one: Counted) -> str:
    return str(one.jobs[0].choice.named["name"]) if one.jobs else "-"


def _tell(request: web.Request, one: Counted, seconds: float) -> None:
    """Write the line of a request, and end its span."""
    job = one.jobs[0] if one.jobs else None
    ident, model = ("-", "-") if job is None else (job.ident, job.name)
    # what it costs to tell more is spent only where somebody wants to know, and once
    told = cache(partial(_told, request, one, seconds))
    _logger.info("%s %s %s %s %.3f s", ident, model, _strategy(one), one.status, seconds, extra={"request": told})
    if one.asking is not None:
        one.asking.end(one.status, None if job is None else job.name, _strategy(one), lambda: _attributes(told()))


def _attributes(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a span says of a request."""
    usage = told["tokens"]["charged"]
    attributes = {
        "gen_ai.response.id": told["trace"],
        "gen_ai.usage.input_tokens": usage["prompt"],
        "gen_ai.usage.output_tokens": usage["completion"],
        "gen_ai.usage.cache_read.input_tokens": usage["cached"],
        "outthink.stopped": told["stopped"],
        "outthink.key": told["key"],
        "outthink.cost.usd": told["cost"].get("usd"),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _told(request: web.Request, one: Counted, seconds: float) -> dict[str, Any]:
    """What operators are told of a request, as JSON data."""
    job = one.jobs[0] if one.jobs else None
    traces = [each.trace for each in one.jobs if each.trace is not None]
    told: dict[str, Any] = {
        "request_id": request[IDENT],
        "path": request.path,
        "key": request.get(OWNER),
        "trace": None if job is None else job.ident,
        "model": None if job is None else job.name,
        "strategy": None if job is None else _strategy(one),
        "status": one.status,
        "stopped": _worst(traces),
        "tokens": {
            "charged": _tokens(Usage.total(trace.usage for trace in traces)),
            "seen": _tokens(Usage.total(trace.seen for trace in traces)),
        },
        "cost": _cost(traces),
        "seconds": round(seconds, 6),
    }
    return told if one.asking is None or not one.asking.trace else {**told, "trace_id": one.asking.trace}


def _tokens(usage: Usage) -> dict[str, int]:
    return {"prompt": usage.prompt, "cached": usage.cached, "completion": usage.completion}


def _worst(traces: list[Trace]) -> str | None:
    """Why they stopped: the first reason that is not that all was done."""
    reasons = [trace.stopped for trace in traces]
    return next((reason for reason in reasons if reason != "finished"), reasons[0] if reasons else None)


def _cost(traces: list[Trace]) -> dict[str, float]:
    """What they cost together, by unit; tokens and seconds stand elsewhere."""
    costs = [trace.cost for trace in traces]
    units = {unit for cost in costs for unit in cost} - {"seconds", "tokens"}
    return {unit: sum(cost.get(unit, 0.0) for cost in costs) for unit in sorted(units)}
