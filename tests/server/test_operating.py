"""What operators see of a server: whether it is ready, the ids of requests, its log, its traces and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from outthink.models.endpoint import Endpoint, Patience
from outthink.models.engine import Price
from outthink.models.openai.engine import OpenAIEngine
from outthink.models.scripted import ScriptedEngine
from outthink.rewards.making import make_scorer
from outthink.server import telemetry
from outthink.server.histograms import Histogram, Histograms
from outthink.server.keys import Keys, make_key
from outthink.server.logs import AsJSON
from outthink.server.models import Served
from outthink.server.routing import ServerRules
from outthink.server.telemetry import SAMPLED, Telemetry
from outthink.strategies.making import make_strategy
from tests.tools.server import ALL, Fault, Server, engine_on, run, says
from tests.tools.serving import Answer, asked, chat, closed, command, connected, serving, until, written

FOUR = "The answer is 4."
PRIVATE = "My secret is 12345."


async def get(url: str, path: str, **how: Any) -> Answer:
    return await asked(url, None, method="GET", path=path, **how)


def priced(up: Server) -> OpenAIEngine:
    return OpenAIEngine(Endpoint(up.url, patience=Patience(attempts=1)), ALL, price=Price(prompt=1, completion=2))


# --------------------------------------------------------------------------------------------------------- readiness


def test_ready_says_whether_the_upstream_is_there_and_asks_it_rarely() -> None:
    async def go() -> None:
        up = Server(says(FOUR), key="right")
        async with up, serving(up.url) as (url, service):
            up.key = None
            for _ in range(20):
                assert (await get(url, "/ready")).json == {"status": "ready"}
            assert len([seen for seen in up.seen if seen.path == "models"]) == 1
            up.key = "another"  # the upstream takes our key no longer
            await asyncio.sleep(6)
            down = await get(url, "/ready")
            assert (down.status, down.json) == (503, {"status": "the upstream is not there"})
            assert up.url not in str(down.body)
            assert (await get(url, "/health")).status == 200, "the server itself is well"
            up.key = None
            await asyncio.sleep(6)
            assert (await get(url, "/ready")).status == 200
            service.running.draining = True
            assert (await get(url, "/ready")).json == {"status": "stopping"}
            service.running.draining = False

    run(go())


@pytest.mark.parametrize(("lacks", "status"), [(("models",), 200), ((), 200)])
def test_an_upstream_without_a_list_of_models_is_there_all_the_same(lacks: tuple[str, ...], status: int) -> None:
    async def go() -> int:
        async with Server(says(FOUR), lacks=lacks) as up, serving(up) as (url, _):
            return (await get(url, "/ready")).status

    assert run(go()) == status


def test_nobody_is_there_where_nothing_listens_or_nothing_is_said() -> None:
    async def go() -> list[int]:
        async with serving("http://127.0.0.1:9/v1") as (url, _):
            dead = await get(url, "/ready")
        async with Server(says(FOUR)) as up, serving(up) as (url, service):
            up._answer = lambda *_: asyncio.sleep(1e6)  # type: ignore[method-assign,assignment]
            silent = await get(url, "/ready")
            assert service is not None
        return [dead.status, silent.status]

    assert run(go()) == [503, 503]


def test_an_embedded_model_is_always_there() -> None:
    async def go() -> int:
        served = Served({"m": ScriptedEngine(lambda request, child, rng: FOUR)})
        async with serving("http://127.0.0.1:9/v1", served=served) as (url, _):
            return (await get(url, "/ready")).status

    assert run(go()) == 200


def test_whether_it_is_ready_needs_no_key(tmp_path: Path) -> None:
    async def go() -> list[int]:
        make_key(tmp_path / "keys", "ann")
        async with Server(says(FOUR)) as up, serving(up, keys=Keys.open(tmp_path / "keys")) as (url, _):
            return [(await get(url, path)).status for path in ("/ready", "/health", "/metrics")]

    assert run(go()) == [200, 200, 401]


# ----------------------------------------------------------------------------------------------------- ids of requests


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-123", True),
        ("0af7651916cd43dd8448eb211c80319c", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("two words", False),
        ("line\tbreak", False),
        ('{"a":1}', False),
        ("é", False),
        ("", False),
    ],
)
def test_the_id_of_a_request_is_the_callers_where_it_is_one(given: str, kept: bool) -> None:
    async def go() -> list[Answer]:
        async with Server(says(FOUR)) as up, serving(up) as (url, _):
            headers = [("X-Request-Id", given.encode())]
            return [
                await asked(url, chat(model="m+none"), headers=headers),
                await asked(url, chat(model="m+none", stream=True), headers=headers),
                await asked(url, chat(model="nothing"), headers=headers),
                await asked(url, b"{", headers=headers),
                await get(url, "/health", headers=headers),
                await get(url, "/nowhere", headers=headers),
            ]

    answers = run(go())
    assert [answer.status for answer in answers] == [200, 200, 404, 400, 200, 404]
    ids = [answer.headers["x-request-id"] for answer in answers]
    if kept:
        assert set(ids) == {given}
    else:
        assert len(set(ids)) == len(ids)
        assert all(one.startswith("req-") for one in ids)


# ----------------------------------------------------------------------------------------------------------- the log


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """What the log of the server holds, as JSON."""
    caplog.set_level(logging.INFO, "outthink.server")
    form = AsJSON()
    return lambda: [json.loads(form.format(one)) for one in caplog.records if one.name == "outthink.server"]


def test_a_line_tells_what_a_request_has_cost_and_nothing_of_what_was_written(lines: Any, tmp_path: Path) -> None:
    async def go() -> tuple[Answer, Server, str]:
        _, key = make_key(tmp_path / "keys", "ann")
        async with Server(says(FOUR, PRIVATE)) as up:
            served = Served({"m": priced(up)})
            async with serving(up, served=served, keys=Keys.open(tmp_path / "keys")) as (url, _):
                headers = [("Authorization", f"Bearer {key}"), ("X-Request-Id", "mine")]
                body = chat(PRIVATE, outthink={"strategy": "self_consistency", "n": 2})
                return await asked(url, body, headers=headers), up, key

    answer, up, key = run(go())
    (line,) = lines()
    assert {name: line[name] for name in ("request_id", "key", "strategy", "status", "stopped", "path", "model")} == {
        "request_id": "mine", "key": "ann", "strategy": "self_consistency", "status": 200, "stopped": "finished",
        "path": "/v1/chat/completions", "model": "m",
    }  # fmt: skip
    assert line["tokens"]["charged"] == line["tokens"]["seen"]
    assert line["tokens"]["charged"] == {"prompt": up.prompt, "cached": 0, "completion": up.made}
    assert line["cost"]["usd"] == pytest.approx((up.prompt + 2 * up.made) / 1e6)
    assert line["trace"] == answer.headers["x-outthink-trace"]
    assert line["seconds"] >= 0
    assert PRIVATE not in json.dumps(line)
    assert key not in json.dumps(line)


def test_there_are_no_more_lines_than_requests(lines: Any) -> None:
    async def go() -> None:
        async with Server(says(FOUR), always=Fault(status=400, body=b"{}")) as up, serving(up) as (url, _):
            for body in (chat(), chat(stream=True), chat(model="none"), chat(outthink={"strategy": "nothing"}), b"{"):
                await asked(url, body)
            await get(url, "/v1/models")

    run(go())
    assert [line["status"] for line in lines()] == [400, 400, 404, 400, 400]
    assert {line["model"] for line in lines()} == {"m", None}


def test_the_bill_of_who_leaves_is_in_the_line(lines: Any) -> None:
    async def go() -> Server:
        up = Server(says(" ".join(["word"] * 500)), pace=1.0)
        async with up, serving(up, strategy="self_consistency?n=3") as (url, service):
            _, writer = await connected(url)
            writer.write(written(url, chat()))
            await asyncio.sleep(10)
            assert lines() == []
            await closed(writer)
            await until(lambda: not service.running.jobs)
            return up

    up = run(go())
    (line,) = lines()
    assert (line["status"], line["stopped"]) == (499, "cancelled")
    tokens = line["tokens"]
    assert 0 < tokens["seen"]["completion"] <= up.made <= tokens["charged"]["completion"]


def test_the_log_of_the_command_is_json(tmp_path: Path) -> None:
    async def go() -> list[str]:
        async with Server(says(FOUR)) as up:
            (tmp_path / "outthink.toml").write_text('log_format = "json"', encoding="utf-8")
            config = ("--config", str(tmp_path / "outthink.toml"))
            async with command(tmp_path, up.url, *config) as running:
                assert (await asked(running.url, chat(PRIVATE))).status == 200
                assert (await get(running.url, "/ready")).status == 200
                running.process.terminate()
                await running.process.wait()
            return running.told

    told = [json.loads(line) for line in asyncio.run(go())]
    assert any("Serving at" in line.get("message", "") for line in told)
    (line,) = (line for line in told if "request_id" in line)
    assert (line["status"], line["level"], line["logger"]) == (200, "INFO", "outthink.server")
    assert PRIVATE not in str(told)


# ------------------------------------------------------------------------------------------------------- OpenTelemetry


class Sent(MetricExporter):
    """Keeps the metrics that were sent last."""

    def __init__(self, told: Told) -> None:
        super().__init__()
        self._told = told

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points: Any = metric.data.data_points
                    self._told.metrics[metric.name] = [(dict(p.attributes), p.count, p.sum) for p in points]
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        pass


class Told:
    """What OpenTelemetry was told, in memory."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        traces = TracerProvider()
        traces.add_span_processor(SimpleSpanProcessor(self._spans))
        self.telemetry = Telemetry(traces, Histograms(Sent(self), Resource({})))
        self.metrics: dict[str, list[tuple[dict[str, Any], int, float]]] = {}

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def request(self) -> tuple[ReadableSpan, list[ReadableSpan]]:
        """The span of the only request, and those of its calls."""
        (one,) = (span for span in self.spans if span.kind == SpanKind.SERVER)
        return one, [span for span in self.spans if span is not one]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_span_for_each_call_stands_under_the_span_of_its_request(tmp_path: Path) -> None:
    told = Told()
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def go() -> tuple[Answer, Server]:
        _, key = make_key(tmp_path / "keys", "ann")
        async with Server(says(FOUR), pace=0.25) as up, Server(says("5")) as judge:
            served = Served({"m": priced(up)})
            policy = ServerRules(strategy=make_strategy("best_of_n?n=3"), scorers={"verifier": "judge"})
            keys = Keys.open(tmp_path / "keys")
            parts: dict[str, Any] = {
                "roles": {"judge": engine_on(judge, ALL)},
                "scorers": {"verifier": make_scorer("judge")},
            }
            async with serving(up, served=served, policy=policy, keys=keys, telemetry=told.telemetry, **parts) as (
                url,
                _,
            ):
                headers = [("Authorization", f"Bearer {key}"), ("traceparent", caller), ("X-Request-Id", "mine")]
                answer = await asked(url, chat(PRIVATE, temperature=0.5, max_tokens=50), headers=headers)
                assert answer.status == 200, answer.body
            return answer, up

    answer, up = run(go())
    span, calls = told.request()
    assert span.name == "POST /v1/chat/completions"
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}-{span.parent.span_id:016x}" == caller[3:52]
    of_request = attributes(span)
    assert (
        of_request.items()
        >= {
            "http.request.method": "POST",
            "http.route": "/v1/chat/completions",
            "http.response.status_code": 200,
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m",
            "gen_ai.response.id": answer.headers["x-outthink-trace"],
            "outthink.strategy": "best_of_n",
            "outthink.stopped": "finished",
            "outthink.key": "ann",
            "outthink.request.id": "mine",
        }.items()
    )
    assert calls
    assert {one.parent.span_id for one in calls if one.parent} == {span.context.span_id}
    kinds = [attributes(one)["outthink.kind"] for one in calls]
    assert kinds.count("sample") >= 1
    assert "judge" in kinds
    for name, usage in (("input", "prompt"), ("output", "completion")):
        tokens = [attributes(one)[f"gen_ai.usage.{name}_tokens"] for one in calls]
        assert sum(tokens) == of_request[f"gen_ai.usage.{name}_tokens"]
        ledger = answer.json["outthink"]["ledger"]
        assert sum(tokens) == sum(line[f"{usage}_tokens"] for line in ledger)
    samples = [one for one in calls if attributes(one)["outthink.kind"] == "sample"]
    assert sum(attributes(one)["gen_ai.usage.output_tokens"] for one in samples) == up.made
    for one in samples:
        assert one.name == "chat m"
        assert one.kind == SpanKind.CLIENT
        assert one.start_time is not None
        assert one.end_time is not None
        assert attributes(one).items() >= {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m",
            "gen_ai.request.temperature": 0.5, "gen_ai.request.max_tokens": 50,
        }.items()  # fmt: skip
    everything = " ".join(f"{one.name} {attributes(one)} {one.events} {one.status.description}" for one in told.spans)
    assert PRIVATE not in everything
    assert FOUR not in everything
    points = told.metrics["gen_ai.client.token.usage"]
    for kind in ("input", "output"):
        counted = sum(total for labels, _, total in points if labels["gen_ai.token.type"] == kind)
        assert counted == of_request[f"gen_ai.usage.{kind}_tokens"]
    assert sum(count for _, count, _ in told.metrics["gen_ai.client.operation.duration"]) == len(calls)
    assert [count for _, count, _ in told.metrics["gen_ai.server.request.duration"]] == [1]


def test_a_stream_and_a_failure_have_spans_as_well() -> None:
    told = Told()

    async def go() -> list[int]:
        async with Server(says(FOUR)) as up, serving(up, telemetry=told.telemetry) as (url, _):
            stream = await asked(url, chat(stream=True), headers=[("traceparent", "no such thing")])
            up.always = Fault(status=500, body=b"{}")
            failed = await asked(url, chat(PRIVATE))
            wrong = await asked(url, chat(model="nothing"))
            return [stream.status, failed.status, wrong.status]

    statuses = run(go())
    requests = [span for span in told.spans if span.kind == SpanKind.SERVER]
    assert [attributes(one)["http.response.status_code"] for one in requests] == statuses == [200, 503, 404]
    assert all(one.parent is None for one in requests), "what is no traceparent begins no trace of a caller"
    assert [one.status.status_code for one in requests] == [StatusCode.UNSET, StatusCode.ERROR, StatusCode.UNSET]
    under = {one.parent.span_id for one in told.spans if one.parent is not None}
    assert under == {one.context.span_id for one in requests[:2]}
    failed = [one for one in told.spans if one.parent and one.parent.span_id == requests[1].context.span_id]
    assert {one.status.status_code for one in failed} == {StatusCode.ERROR}
    assert {one.status.description for one in told.spans} == {None}


def test_a_request_that_is_not_sampled_has_no_spans_and_is_counted_all_the_same() -> None:
    told = Told()

    async def go() -> None:
        async with Server(says(FOUR)) as up, serving(up, telemetry=told.telemetry) as (url, _):
            unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
            await asked(url, chat(), headers=[("traceparent", unsampled)])

    run(go())
    assert told.spans == []
    assert sum(total for _, _, total in told.metrics["gen_ai.client.token.usage"]) > 0
    assert told.metrics["gen_ai.server.request.duration"]


def test_a_caller_who_leaves_has_the_bill_in_the_span() -> None:
    told = Told()

    async def go() -> int:
        up = Server(says(" ".join(["word"] * 500)), pace=1.0)
        async with up, serving(up, strategy="self_consistency?n=3", telemetry=told.telemetry) as (url, service):
            _, writer = await connected(url)
            writer.write(written(url, chat()))
            await asyncio.sleep(10)
            await closed(writer)
            await until(lambda: not service.running.jobs)
            return up.made

    made = run(go())
    span, calls = told.request()
    assert attributes(span)["http.response.status_code"] == 499
    assert attributes(span)["gen_ai.usage.output_tokens"] >= made
    assert all(attributes(one)["outthink.cancelled"] for one in calls)


def test_a_share_of_the_requests_has_spans_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 20,000 requests the share strays by seven standard deviations once in 1e11 times."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(telemetry, "_LAST", 0.0)
    for sampler, lowest, highest in (("", 0.0852, 0.1148), ("parentbased_always_off", 0, 0), ("always_on", 1, 1)):
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        telling = telemetry.exporting()
        times = 20_000 if not sampler else 20
        spans = [telling.begin("POST", "/x", {}, "id")._span for _ in range(times)]
        sampled = sum(span is not None and span.is_recording() for span in spans)
        assert lowest <= sampled / times <= highest
        for flag, recorded in (("01", True), ("00", sampler == "always_on")):
            caller = {"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flag}"}
            span = telling.begin("POST", "/x", caller, "id")._span
            assert span is not None
            assert span.is_recording() == recorded, "a caller who traces decides, unless the sampler asks no parent"
        telling.close()
    assert SAMPLED == 0.1


@pytest.mark.parametrize("anew", [False, True])
def test_histograms_hold_what_the_sdks_do(anew: bool) -> None:
    rng = random.Random(5)
    values = [(rng.choice([0.0, 1.0, 10.0, 1e4, 30 * rng.random()]), rng.choice("ab")) for _ in range(200)]
    bounds = [1.0, 10.0, 1000.0]
    ours = Histogram("x", "s", "X.", bounds)
    reader = InMemoryMetricReader()
    theirs = MeterProvider([reader]).get_meter("x").create_histogram("x", explicit_bucket_boundaries_advisory=bounds)
    for value, label in values:
        ours.record(value, (("label", label),))
        theirs.record(value, {"label": label})
    told: Any = ours.told(0, 1, anew=anew).data
    data = reader.get_metrics_data()
    assert data is not None
    points: Any = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert sorted(map(plain, told.data_points)) == sorted(map(plain, points))
    assert [plain(point) for point in ours.told(0, 1, anew=anew).data.data_points] == (
        [] if anew else [plain(point) for point in told.data_points]
    )


def plain(point: Any) -> tuple[Any, ...]:
    return tuple(sorted(point.attributes.items())), point.count, point.sum, *point.bucket_counts, point.min, point.max


def test_histograms_do_not_grow_without_end() -> None:
    histogram = Histogram("x", "s", "X.", [1.0])
    for label in range(3000):
        histogram.record(1.0, (("label", str(label)),))
    points: Any = histogram.told(0, 1, anew=False).data.data_points
    assert sum(point.count for point in points) == 3000
    assert [point.count for point in points if dict(point.attributes) == {"otel.metric.overflow": True}] == [1000]


def test_nothing_of_it_is_imported_where_it_is_off() -> None:
    code = "import sys, outthink.server.start; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_sends_what_it_is_told_to_where_the_environment_says(tmp_path: Path) -> None:
    """Over the real exporter, to a collector that keeps what it gets."""
    got: list[tuple[str, bytes]] = []

    async def keep(request: web.Request) -> web.Response:
        got.append((request.path, await request.read()))
        return web.Response()

    async def go() -> int:
        app = web.Application()
        app.router.add_post("/{path:.*}", keep)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told_at = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{runner.addresses[0][1]}",
            "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        }
        async with (
            Server(says(FOUR)) as up,
            command(tmp_path, up.url, "--otel", **told_at) as running,
        ):
            assert (await asked(running.url, chat(PRIVATE))).status == 200
            running.process.terminate()
            code = await running.process.wait()
        await runner.cleanup()
        return code

    assert asyncio.run(go()) == 0
    assert {path for path, _ in got} == {"/v1/traces", "/v1/metrics"}
    assert any(b"gen_ai.usage.output_tokens" in body for _, body in got)
    assert not any(PRIVATE.encode() in body for _, body in got)


def test_a_collector_that_is_not_there_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(telemetry, "_LAST", 0.1)
    telling = telemetry.exporting()
    telling.begin("POST", "/x", {}, "id").end(200, None, "-", dict)
    telling.close()
    assert not [one for one in threading.enumerate() if "Otel" in one.name and not one.daemon]
