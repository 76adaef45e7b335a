"""Histograms for OpenTelemetry that cost next to nothing to add to, and are sent every so often.

Source: OpenTelemetry's data model of metrics (histograms with explicit bounds, cumulative or as differences). Differs:
the instruments of its SDK check, copy and hash the attributes of every single value, which takes ten times as long.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outthink import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric, MetricExporter, MetricsData
    from opentelemetry.sdk.resources import Resource

_logger = logging.getLogger("outthink.server")
_MOST = 2000  # sets of labels of a histogram, as in the SDK; values of further ones are counted together
_SECONDS = 60.0  # between two sendings where OTEL_METRIC_EXPORT_INTERVAL says nothing

Labels = tuple[tuple[str, str | bool], ...]
"""Names and values."""

_FURTHER: Labels = (("otel.metric.overflow", True),)


@dataclass(slots=True)
class _Counts:
    """Values under one set of labels."""

    buckets: list[int]
    total: float
    least: float
    most: float


class Histogram:
    """Values of one kind.

    Args:
        bounds: upper ends of all buckets but the last one, included in them; ascending.
    """

    def __init__(self, name: str, unit: str, words: str, bounds: Sequence[float]) -> None:
        self._told = name, words, unit
        self._bounds = bounds
        self._lock = threading.Lock()
        self._counts: dict[Labels, _Counts] = {}

    def record(self, value: float, labels: Labels) -> None:
        """Add a value."""
        with self._lock:
            counts = self._counts.get(labels)
            if counts is None:
                labels = labels if len(self._counts) < _MOST else _FURTHER
                counts = self._counts.setdefault(labels, _Counts([0] * (len(self._bounds) + 1), 0.0, value, value))
            counts.buckets[bisect_left(self._bounds, value)] += 1
            counts.total += value
            if value < counts.least:
                counts.least = value
            elif value > counts.most:
                counts.most = value

    def told(self, since: int, until: int, *, anew: bool) -> Metric:
        """What has been added, in the form of the SDK.

        Args:
            since, until: nanoseconds since 1970.
            anew: count from nothing afterwards, so that the next one tells a difference.
        """
        from opentelemetry.sdk.metrics.export import AggregationTemporality, HistogramDataPoint, Metric
        from opentelemetry.sdk.metrics.export import Histogram as Data

        def point(labels: Labels, counts: _Counts) -> HistogramDataPoint:
            return HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=since,
                time_unix_nano=until,
                count=sum(counts.buckets),
                sum=counts.total,
                bucket_counts=tuple(counts.buckets),
                explicit_bounds=tuple(self._bounds),
                min=counts.least,
                max=counts.most,
            )

        with self._lock:
            points = [point(labels, counts) for labels, counts in self._counts.items()]
            if anew:
                self._counts.clear()
        kind = AggregationTemporality.DELTA if anew else AggregationTemporality.CUMULATIVE
        return Metric(*self._told, Data(points, kind))


class Histograms:
    """All histograms of one process, and the thread that sends them as the environment says.

    Args:
        resource: whose they are.
    """

    def __init__(self, exporter: MetricExporter, resource: Resource) -> None:
        self._exporter = exporter
        self._resource = resource
        self._histograms: list[Histogram] = []
        wanted = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().upper()
        self._anew = wanted in ("DELTA", "LOWMEMORY")
        self._since = time.time_ns()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="outthink-meter", daemon=True)
        self._thread.start()

    def histogram(self, name: str, unit: str, words: str, bounds: Sequence[float]) -> Histogram:
        """A new one."""
        made = Histogram(name, unit, words, bounds)
        self._histograms.append(made)
        return made

    def shutdown(self) -> None:
        """Send the last of it."""
        self._ended.set()
        self._thread.join()

    def _send_all(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(_interval())
            try:
                self._exporter.export(self._taken())
            except Exception as cause:  # what a collector does is no reason to tell it nothing any more
                _logger.error("Metrics were not sent: %s", cause)

    def _taken(self) -> MetricsData:
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        now = time.time_ns()
        metrics = [histogram.told(self._since, now, anew=self._anew) for histogram in self._histograms]
        if self._anew:
            self._since = now
        scope = ScopeMetrics(InstrumentationScope("outthink", __version__), metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


def _interval() -> float:
    """Seconds between two sendings."""
    try:
        given = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or 0.0) / 1e3
    except ValueError:
        given = 0.0
    return given if 0 < given < 1e7 else _SECONDS
