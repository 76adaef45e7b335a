"""Watches whether traffic is still what plans were fitted on, by the last requests that each of them has decided."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily

from outthink.errors import OutthinkError
from outthink.planner.check import Decided, decided, traffic_strays
from outthink.planner.plan import Plan
from outthink.types import Trace

_LAST = 500  # requests of a plan that are looked at
_LEAST = 100  # below which nothing is said, since intervals would be too rough


class Drifting:
    """A gauge of how far traffic lies from what each plan expects; it is worked out when it is read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[str, tuple[Plan, deque[Decided]]] = {}

    def add(self, plan: str, trace: Trace) -> None:
        """A plan, which is such a file, has decided a request; where the file has changed, all begins anew."""
        digest = trace.resources.get("plan")
        with self._lock:
            known = self._plans.get(plan)
            if known is None or known[0].digest != digest:  # else it need not be looked for on the disk
                known = Plan.open(plan), deque(maxlen=_LAST)
                if known[0].digest != digest:
                    return
            one = decided(known[0].unit, trace)
            if one is not None:
                self._plans[plan] = known
                known[1].append(one)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauge, as Prometheus's library asks for it."""
        gauge = GaugeMetricFamily(
            "outthink_plan_drift",
            "How far the last 500 requests that a plan decided lie from what it expects; above 1 they have drifted.",
            labels=["plan", "measure"],
        )
        with self._lock:
            plans = [(path, plan, list(last)) for path, (plan, last) in self._plans.items() if len(last) >= _LEAST]
        for path, plan, last in plans:
            try:
                current = Plan.open(path)
            except OutthinkError:  # requests say so
                continue
            if current.digest == plan.digest:
                for name, far in traffic_strays(plan, last).items():
                    gauge.add_metric([Path(path).name, name], far)
        yield gauge
