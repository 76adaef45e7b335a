"""Counts and logs what came of each request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from outthink.server import problems
from outthink.server.job import Job
from outthink.server.metrics import Metrics

_logger = logging.getLogger("outthink.server")


@dataclass
class Counted:
    """A request that is counted when it has ended: its job, once there is one, and the status of its response."""

    job: Job | None = None
    status: int = 499


@contextlib.contextmanager
def counted(metrics: Metrics) -> Iterator[Counted]:
    """Count a request by what is told meanwhile, and by how it fails; raises what the caller is told in that case."""
    began = asyncio.get_running_loop().time()
    one = Counted()
    try:
        yield one
    except (asyncio.CancelledError, ConnectionError):
        metrics.disconnects.inc()
        raise
    except Exception as failure:
        problem = problems.told(failure)
        one.status = problem.status
        raise problems.RequestFailed(problem) from None
    finally:
        job = one.job
        strategy = "-" if job is None else str(job.choice.named["name"])
        seconds = asyncio.get_running_loop().time() - began
        metrics.requests.labels(strategy, str(one.status)).inc()
        metrics.latency.labels(strategy).observe(seconds)
        ident, model = ("-", "-") if job is None else (job.ident, job.name)
        _logger.info("%s %s %s %s %.3f s", ident, model, strategy, one.status, seconds)
