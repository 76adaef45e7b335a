"""Traces and metrics for OpenTelemetry: a span for each request, and under it one for each call of a model or resource.

Nothing that anybody has written is in them. Whoever exports them reads where to from the environment
(OTEL_EXPORTER_OTLP_ENDPOINT and the other variables of OpenTelemetry).

Source: OpenTelemetry's semantic conventions for generative AI (spans and metrics of clients and servers, in
development) and for HTTP; W3C Trace Context. Differs: tokens are those that are charged, which the conventions call
billable; what they have no name for is under "outthink.".
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from outthink import __version__
from outthink.errors import UsageError
from outthink.server.histograms import Histograms, Labels
from outthink.types import Call

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from outthink.server.job import Job

_LIBRARY = "outthink"
_EMBEDDED = "outthink"  # the provider of models in this process
_API = "openai"  # the provider behind an API of that kind, as the conventions have it
_LAST = 3.0  # seconds for what has not been sent when the server ends
SAMPLED = 0.1
"""Share of the requests that have spans where OTEL_TRACES_SAMPLER says nothing; a caller's own decision goes before."""

_TOKENS = [4.0**power for power in range(14)]
_SECONDS = [0.01 * 2**power for power in range(14)]


class Exporter(Protocol):
    """Sends things elsewhere."""

    def shutdown(self) -> object:
        """Send nothing more."""


class Telemetry:
    """What is told of the requests of one server.

    Args:
        traces: of the SDK; shut down at the end, like the metrics.
        metrics: where durations and tokens are counted.
        exporters: of the one and of the other.
        share: of the requests of callers who do not trace, those that are told to the sampler of `traces`.
    """

    def __init__(
        self, traces: TracerProvider, metrics: Histograms, exporters: Sequence[Exporter] = (), share: float = 1.0
    ) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._providers = (traces, metrics)
        self._exporters = exporters
        self._share = share
        self._tracer = traces.get_tracer(_LIBRARY, __version__)
        self._callers = TraceContextTextMapPropagator()
        self._models: dict[tuple[str, str], _Model] = {}
        self._tokens = metrics.histogram("gen_ai.client.token.usage", "{token}", "Tokens charged.", _TOKENS)
        self._calls = metrics.histogram("gen_ai.client.operation.duration", "s", "Seconds of a call.", _SECONDS)
        self._requests = metrics.histogram("gen_ai.server.request.duration", "s", "Seconds of a request.", _SECONDS)

    def begin(self, method: str, route: str, headers: Mapping[str, str], ident: str) -> Asking:
        """A request has come.

        Args:
            headers: where a caller who traces, too, says which span of his it belongs to.
            ident: the id of the request.
        """
        from opentelemetry.trace import SpanKind

        # what else is in the headers is nobody's business here
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        if not carrier and self._share < 1 and random.random() >= self._share:
            return Asking(self, None)
        span = self._tracer.start_span(
            f"{method} {route}",
            context=self._callers.extract(carrier) if carrier else None,
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route, "outthink.request.id": ident},
        )
        return Asking(self, span)

    def call(self, above: Span | None, job: Job, call: Call, models: Mapping[str, str]) -> None:
        """A call that has just been settled, as a span that ends now; where its request is sampled."""
        model: _Model | None = None
        seconds = max(0.0, call.ended - call.started)
        if call.prompt is not None:  # a language model was asked
            named = _API if job.engine.spec.fields is None else _EMBEDDED, models.get(call.role, job.name)
            model = self._models.get(named)
            if model is None:
                model = self._models[named] = _Model.made(*named)
            self._calls.record(seconds, model.failed if call.outcome == "failed" else model.called)
            self._tokens.record(call.charged.prompt, model.input)
            self._tokens.record(call.charged.completion, model.output)
        if above is not None and above.is_recording():
            self._span(above, job, call, {} if model is None else dict(model.called), seconds)

    def _span(self, above: Span, job: Job, call: Call, common: Mapping[str, Any], seconds: float) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        told: dict[str, Any] = {
            **common,
            "outthink.kind": call.kind,
            "outthink.role": call.role,
            "outthink.seen.output_tokens": call.seen.completion,
        }
        if common:
            told |= {
                "gen_ai.request.choice.count": call.n,
                "gen_ai.usage.input_tokens": call.charged.prompt,
                "gen_ai.usage.output_tokens": call.charged.completion,
                "gen_ai.usage.cache_read.input_tokens": call.charged.cached,
            }
        if common and call.kind == "sample":
            told["gen_ai.request.max_tokens"] = job.sampling.cap
            if job.asked.temperature is not None:
                told["gen_ai.request.temperature"] = job.asked.temperature
        if "usd" in call.cost:
            told["outthink.cost.usd"] = call.cost["usd"]
        ended = time.time_ns()
        span = self._tracer.start_span(
            f"chat {common['gen_ai.request.model']}" if common else f"{call.kind} {call.role}",
            context=set_span_in_context(above),
            kind=SpanKind.CLIENT if common.get("gen_ai.provider.name") == _API else SpanKind.INTERNAL,
            attributes=told,
            start_time=ended - round(seconds * 1e9),
        )
        if call.outcome == "failed":  # why is not told: it may repeat what was sent
            span.set_attribute("error.type", "_OTHER")
            span.set_status(Status(StatusCode.ERROR))
        elif call.outcome == "cancelled":
            span.set_attribute("outthink.cancelled", True)
        span.end(end_time=ended)

    def request(self, seconds: float, labels: Labels) -> None:
        """A request has been answered."""
        self._requests.record(seconds, labels)

    def close(self) -> None:
        """Send what waits, for at most some seconds; a collector that is not there gets none of it."""
        ending = [threading.Thread(target=provider.shutdown, daemon=True) for provider in self._providers]
        until = time.monotonic() + _LAST
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join(max(0.0, until - time.monotonic()))
        for thread, exporter in zip(ending, self._exporters, strict=False):
            if thread.is_alive():
                exporter.shutdown()  # it waits to try again, and then does no longer


class Asking:
    """A request that is being answered, and its span; None where it has none."""

    def __init__(self, telemetry: Telemetry, span: Span | None) -> None:
        self._telemetry = telemetry
        self._span = span
        self._began = time.monotonic()

    @property
    def trace(self) -> str:
        """The id of the trace, in hexadecimal digits, as logs name it; empty where there is none."""
        return "" if self._span is None else f"{self._span.get_span_context().trace_id:032x}"

    def call(self, job: Job, call: Call, models: Mapping[str, str]) -> None:
        """A call of this request has been settled.

        Args:
            models: the names of the models of further roles.
        """
        self._telemetry.call(self._span, job, call, models)

    def end(self, status: int, model: str | None, strategy: str, told: Callable[[], Mapping[str, Any]]) -> None:
        """It is over.

        Args:
            status: of HTTP.
            told: makes further attributes, which are needed only where it is sampled.
        """
        failed = (("error.type", str(status)),) if status >= 400 else ()
        labels: Labels = (("gen_ai.operation.name", "chat"), ("outthink.strategy", strategy), *failed)
        if model is not None:
            labels += (("gen_ai.request.model", model),)
        if self._span is not None and self._span.is_recording():
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attributes({**dict(labels), "http.response.status_code": status, **told()})
            if status >= 500:
                self._span.set_status(Status(StatusCode.ERROR))
            self._span.end()
        self._telemetry.request(time.monotonic() - self._began, labels)


@dataclass(frozen=True, slots=True)
class _Model:
    """What calls of a model are counted under, made once."""

    called: Labels
    failed: Labels
    input: Labels
    output: Labels

    @classmethod
    def made(cls, provider: str, model: str) -> _Model:
        """That of a model of a provider."""
        common: Labels = (
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", provider),
            ("gen_ai.request.model", model),
        )
        return cls(
            common,
            (*common, ("error.type", "_OTHER")),
            (*common, ("gen_ai.token.type", "input")),
            (*common, ("gen_ai.token.type", "output")),
        )


def check_packages() -> None:
    """Raise UsageError where packages are missing."""
    try:
        there = find_spec("opentelemetry.exporter.otlp.proto.http") and find_spec("opentelemetry.sdk")
    except ImportError:
        there = None
    if there is None:
        raise UsageError("OpenTelemetry needs more packages: pip install 'outthink[otel]'.")


def exporting() -> Telemetry:
    """Telemetry that is sent by OTLP over HTTP, as the environment says; raises UsageError where packages are missing.

    It is sent in batches, by threads of their own, and never waited for. Where the environment names no sampler, a
    share of the requests has spans: what they cost would else show. All requests are in the metrics.
    """
    check_packages()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "outthink"}
    # each process counts on its own
    resource = Resource.create({**named, "service.version": __version__, "service.instance.id": str(uuid4())})
    # the SDK's own choice is all, as far as callers who trace do not say otherwise
    share = 1.0 if os.environ.get("OTEL_TRACES_SAMPLER") else SAMPLED
    traces = TracerProvider(resource=resource)
    exporters = OTLPSpanExporter(), OTLPMetricExporter()
    traces.add_span_processor(BatchSpanProcessor(exporters[0]))
    return Telemetry(traces, Histograms(exporters[1], resource), exporters, share)
