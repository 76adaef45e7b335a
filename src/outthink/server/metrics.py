"""What the server counts, for Prometheus; names of strategies and of keys are the only labels that come from
requests, and they are checked before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from outthink.planner.auto import OUTSIDE
from outthink.records.runs import OWN, Trial
from outthink.server.callers import PROBE
from outthink.server.drifting import Drifting
from outthink.types import Call, Trace, Usage

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_OWNERS = 1000  # keys that are told apart
SHARED = "PROMETHEUS_MULTIPROC_DIR"  # names the folder where processes keep their counters together
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All counters of one server, those of its other workers and of ended ones included.

    Args:
        waiting, running: requests in the queue and at work, asked for when the metrics are read.
    """

    def __init__(self, waiting: Callable[[], float], running: Callable[[], float]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "outthink_requests", "Requests answered.", ["strategy", "status"], registry=registry
        )  # the library adds _total
        self.samples = Counter("outthink_samples", "Samples by what became of them.", ["outcome"], registry=registry)
        self.tokens = Counter(
            "outthink_tokens", "Tokens charged: prompt (read anew), cached, completion.", ["kind", "by"],
            registry=registry,
        )  # fmt: skip
        self.cancelled = Counter(
            "outthink_cancelled_tokens", "Tokens charged for work that was cancelled.", registry=registry
        )
        self.usd = Counter("outthink_usd", "US dollars charged, where prices are known.", registry=registry)
        self.verifier = Counter("outthink_verifier_seconds", "Seconds of calls to verifiers.", registry=registry)
        self.disconnects = Counter("outthink_disconnects", "Callers that left before the answer.", registry=registry)
        self.shadows = Counter("outthink_shadow_requests", "Requests also run another way.", registry=registry)
        self.feedback = Summary("outthink_feedback", "Scores that callers gave to answers.", registry=registry)
        self.planned = Counter(
            "outthink_plan_requests", "Requests that a plan has decided; outside: unlike those that it was fitted on.",
            ["seen"], registry=registry,
        )  # fmt: skip
        for seen in ("inside", "outside"):  # there from the start, so that a graph begins at 0
            self.planned.labels(seen)
        self.confidence = Summary(
            "outthink_plan_confidence", "Chances of being right, as the plan told them.", registry=registry
        )
        self.explored = Counter(
            "outthink_explored_requests", "Requests that got an action drawn at random.", registry=registry
        )
        self.latency = Histogram(
            "outthink_request_seconds", "From the request to the end of its answer.", ["strategy"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.queued = Histogram("outthink_queue_seconds", "Waiting for a place.", buckets=_SECONDS, registry=registry)
        self.key_requests = Counter(
            "outthink_key_requests", "Requests by the name of the key.", ["key", "status"], registry=registry
        )
        self.key_tokens = Counter(
            "outthink_key_tokens", "Tokens charged, by the name of the key.", ["key"], registry=registry
        )
        self.key_usd = Counter("outthink_key_usd", "US dollars charged.", ["key"], registry=registry)
        self._owners: set[str] = set()
        self.lost = Gauge(
            "outthink_lost_traces", "Traces that could not be recorded.", registry=registry, multiprocess_mode="sum"
        )
        self.drifting = Drifting()
        self._now = CollectorRegistry()
        self._now.register(_Read("outthink_queue", "Requests that wait.", waiting))
        self._now.register(_Read("outthink_running", "Requests at work.", running))
        self._now.register(self.drifting)

    def answered(self, owner: str, status: int) -> None:
        """Count a request of a key."""
        self.key_requests.labels(self._owner(owner), str(status)).inc()

    def decided(self, trace: Trace, trial: Trial | None, plan: str | None) -> None:
        """Count what decided how a request was answered.

        Args:
            plan: the file of the plan, if it was one.
        """
        if trial is not None and trial.action != OWN:
            self.explored.inc()
        elif "plan" in trace.resources:
            self.planned.labels("outside" if any(OUTSIDE in note for note in trace.notes) else "inside").inc()
            if trace.confidence is not None:
                self.confidence.observe(trace.confidence)
            if plan is not None:
                self.drifting.add(plan, trace)

    def probed(self, usage: Usage) -> None:
        """Count what it has cost to learn what a model can do."""
        if usage.tokens:
            self.key_tokens.labels(PROBE).inc(usage.tokens)

    def call(self, call: Call, owner: str | None) -> None:
        """Count a settled call, made for the owner of a key; None: nobody is told apart."""
        if owner is not None:
            self.key_tokens.labels(self._owner(owner)).inc(call.charged.tokens)
            self.key_usd.labels(self._owner(owner)).inc(call.cost.get("usd", 0.0))
        sampling = call.kind == "sample" and call.role != "rollout"  # which judges steps
        by = "model" if sampling else "verifier"
        for kind, tokens in (
            ("prompt", call.charged.prompt - call.charged.cached),
            ("cached", call.charged.cached),
            ("completion", call.charged.completion),
        ):
            if tokens:
                self.tokens.labels(kind, by).inc(tokens)
        if "usd" in call.cost:
            self.usd.inc(call.cost["usd"])
        if sampling:
            if call.outcome == "cancelled":
                self.samples.labels("cancelled").inc(call.n)
                self.cancelled.inc(call.charged.tokens)
            else:
                self.samples.labels("ok").inc(call.n - call.failed)
                self.samples.labels("failed").inc(call.failed)
        else:
            self.verifier.inc(call.ended - call.started)

    def _owner(self, name: str) -> str:
        """The label of a key; there are not endlessly many, however often keys are made and revoked."""
        if len(self._owners) < _OWNERS:
            self._owners.add(name)
        return name if name in self._owners else "(others)"

    def text(self) -> bytes:
        """As Prometheus reads it."""
        registry = self._registry
        if SHARED in os.environ:
            registry = CollectorRegistry()
            registry.register(_OfAllWorkers(Path(os.environ[SHARED])))
        return generate_latest(registry) + generate_latest(self._now)


class _OfAllWorkers:
    """What all workers of a folder have counted; one that has just begun, or was killed then, has an empty file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """The sums."""
        files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


class _Read:
    """A gauge that is read when it is asked for."""

    def __init__(self, name: str, words: str, read: Callable[[], float]) -> None:
        self._told = name, words
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(*self._told, value=self._read())
