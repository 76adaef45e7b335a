"""Everything around the server breaks: callers leave, the upstream fails, the queue is full, the process is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import signal
import socket
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from outthink.errors import EngineError
from outthink.jsonl import read
from outthink.models.endpoint import Endpoint
from outthink.models.engine import Engine
from outthink.models.facts import Facts
from outthink.models.openai.engine import OpenAIEngine
from outthink.records.runs import RESULTS, read_results
from outthink.records.traffic import PROBLEMS, SERVED, SHADOW
from outthink.rewards.making import Opened
from outthink.server import bodies, listening
from outthink.server.models import Served
from outthink.server.record import Recorder
from outthink.server.routing import ServerRules
from outthink.server.stream import _STALLED
from outthink.strategies.making import make_strategy
from outthink.together import together
from outthink.types import Usage
from tests.tools import server
from tests.tools.server import ALL, BARE, FINE, HANG, Ask, Fault, Server, engine_on, run, says
from tests.tools.serving import (
    Answer,
    Command,
    asked,
    chat,
    closed,
    command,
    connected,
    counted,
    received,
    serving,
    until,
    written,
)

FOUR, FIVE = "The answer is 4.", "The answer is 5."
EACH = replace(BARE, stream=True)  # a request for each sample, streamed
CUT = Fault(after=4)
STUCK = Fault(after=4, then="hang")
SC, NONE = "m+self_consistency", "m+none"


@pytest.fixture(autouse=True)
def _no_internal_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    yield
    assert not [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]


def begun(url: str, body: Any, **how: Any) -> asyncio.Task[Answer]:
    """A request that is under way."""
    return asyncio.create_task(asked(url, body, **how))


async def left(task: asyncio.Task[Answer]) -> None:
    """Its caller leaves."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


# ---------------------------------------------------------------------------------------------------------- callers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "running"), [(NONE, 1), (SC, 4), ("m+adaptive_consistency", 4)])
def test_who_leaves_ends_the_work_and_it_is_charged(model: str, running: int, stream: bool) -> None:
    async def go() -> None:
        async with Server(says(FOUR), always=STUCK) as up, serving(up, facts=EACH) as (url, service):
            wish = {} if model == NONE else {"n": 4, "answer": "math"}
            caller = begun(url, chat(model=model, stream=stream, outthink=wish, max_tokens=50))
            await until(lambda: up.running == running and up.made == 3 * running)
            before = asyncio.get_running_loop().time()
            await left(caller)
            await until(lambda: not up.running and not service.running.tasks)
            assert asyncio.get_running_loop().time() - before < 1
            assert all(seen.closed for seen in up.asked)
            numbers = counted(service)
            assert numbers["outthink_disconnects_total"] == 1
            assert numbers[f"outthink_requests_total 499 {model.removeprefix('m+')}"] == 1
            assert numbers["outthink_samples_total cancelled"] == running
            # each had written three pieces, and may have written all 50 tokens
            assert numbers["outthink_cancelled_tokens_total"] >= running * 50 >= up.made
            assert numbers["outthink_running"] == numbers["outthink_queue"] == 0

    run(go())


def test_who_leaves_while_scores_are_made_ends_them() -> None:
    async def go() -> None:
        policy = ServerRules(strategy=None, scorers={"verifier": "judge"})
        judge = {"verifier": Opened("judge")}
        async with Server(says(FOUR)) as up, serving(up, facts=EACH, policy=policy, scorers=judge) as (url, service):
            up.faults = [FINE] * 3
            up.always = STUCK
            caller = begun(url, chat(model="m+best_of_n", outthink={"n": 3}))
            await until(lambda: len(up.asked) == 4 and up.running == 1)  # equal solutions are judged once
            await left(caller)
            await until(lambda: not up.running and not service.running.tasks)
            numbers = counted(service)
            assert numbers["outthink_samples_total ok"] == 3
            assert numbers["outthink_tokens_total verifier completion"] >= 3

    run(go())


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_the_queue_costs_nothing(stream: bool) -> None:
    async def go() -> None:
        async with Server(says(FOUR), always=HANG) as up, serving(up, settings={"concurrency": 1}) as (url, service):
            first = begun(url, chat("first", model=NONE))
            await until(lambda: up.running == 1)
            second = begun(url, chat("second", model=NONE, stream=stream))
            await until(lambda: service.gate.waiting == 1)
            await left(second)
            await until(lambda: service.gate.waiting == 0)
            assert len(service.running.tasks) == 1
            await left(first)
            await until(lambda: not service.running.tasks)
            up.always = FINE
            third = await asked(url, chat("third", model=NONE))  # the place is free
            assert third.content == FOUR
            assert [seen.body["messages"][0]["content"] for seen in up.asked] == ["first", "third"]
            assert counted(service)["outthink_requests_total 499 none"] == 2

    run(go())


def test_who_leaves_in_the_middle_of_a_stream() -> None:
    async def go() -> None:
        async with Server(says("one two three four"), always=STUCK) as up, serving(up) as (url, service):
            reader, writer = await connected(url)
            writer.write(written(url, chat(model=NONE, stream=True)))
            told = await reader.readuntil(b'"content":"two"')
            assert b'"content":"one"' in told
            writer.close()
            await until(lambda: not up.running and not service.running.tasks)
            assert counted(service)["outthink_samples_total cancelled"] == 1

    run(go())


def test_who_closes_only_his_side_has_left() -> None:
    async def go() -> None:
        async with Server(says(FOUR), always=HANG) as up, serving(up) as (url, service):
            _, writer = await connected(url)
            writer.write(written(url, chat(model=NONE)))
            await until(lambda: up.running == 1)
            writer.write_eof()
            await until(lambda: not up.running and not service.running.tasks)
            await closed(writer)

    run(go())


@pytest.mark.parametrize("sent", [0, 30, 150, 250])
def test_who_leaves_before_all_is_sent(sent: int) -> None:
    async def go() -> None:
        async with Server(says(FOUR)) as up, serving(up) as (url, service):
            _, writer = await connected(url)
            writer.write(written(url, chat(user="x" * 500))[:sent])
            await asyncio.sleep(0.1)
            await closed(writer)
            assert (await asked(url, chat(model=NONE))).content == FOUR
            assert (len(up.asked), service.bodies.held) == (1, 0)

    run(go())


# a caller who is slow, or never reads


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1/chat/com", b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-"]
)
def test_heads_that_never_end_hold_nobody_up_and_are_closed(sent: bytes) -> None:
    async def go() -> None:
        clock = asyncio.get_running_loop().time
        async with Server(says(FOUR)) as up, serving(up) as (url, _):
            slow = [await connected(url) for _ in range(50)]
            for _, writer in slow:
                writer.write(sent)
            assert (await asked(url, chat(model=NONE))).content == FOUR
            before = clock()
            ends = await asyncio.gather(*(reader.read() for reader, _ in slow))
            assert set(ends) == {b""}
            assert clock() - before <= listening.IDLE
            for _, writer in slow:
                await closed(writer)

    run(go())


def test_bodies_that_never_end_hold_nobody_up_and_get_408() -> None:
    async def go() -> None:
        clock = asyncio.get_running_loop().time
        async with Server(says(FOUR)) as up, serving(up, settings={"concurrency": 1, "queue": 0}) as (url, service):
            slow = [await connected(url) for _ in range(50)]
            for _, writer in slow:
                writer.write(written(url, chat(user="x" * 100))[:-5])
            assert (await asked(url, chat(model=NONE))).content == FOUR
            assert service.bodies.held > 0
            before = clock()
            answers = await asyncio.gather(*(received(reader) for reader, _ in slow))
            assert {(answer.status, answer.error["code"]) for answer in answers} == {(408, "too_slow")}
            assert clock() - before <= bodies.SLOW + 1
            assert service.bodies.held == 0
            for _, writer in slow:
                await closed(writer)
            assert len(up.asked) == 1

    run(go())


@contextlib.asynccontextmanager
async def deaf(url: str, body: Any) -> AsyncIterator[socket.socket]:
    """A caller who has asked and does not read."""
    parts = urlsplit(url)
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(line, (parts.hostname, parts.port))
        await loop.sock_sendall(line, written(url, body))
        yield line


async def rest(line: socket.socket) -> bytes:
    parts = []
    while part := await asyncio.get_running_loop().sock_recv(line, 1 << 20):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(("model", "stream"), [(NONE, True), (SC, True), (NONE, False)])
def test_who_does_not_read_for_a_minute_is_dropped(model: str, stream: bool) -> None:
    async def go() -> None:
        clock = asyncio.get_running_loop().time
        long = "x" * (16 << 20) + " " + FOUR  # more than all buffers between the two hold
        async with Server(says(long)) as up, serving(up, facts=replace(EACH, context=None)) as (url, service):
            wish = {} if model == NONE else {"n": 2, "answer": "math"}
            async with deaf(url, chat(model=model, stream=stream, outthink=wish)) as line:
                await until(lambda: len(up.asked) > 0 and not up.running)
                before = clock()
                assert (await asked(url, None, method="GET", path="/health")).status == 200
                await asyncio.sleep(_STALLED - 5)
                assert clock() - before < _STALLED
                await asyncio.sleep(10)
                assert 0 < len(await rest(line)) < len(long) / 2  # what was on its way, and then the end
            await until(lambda: not service.running.tasks)

    run(go())


def test_who_reads_slowly_gets_all_of_it() -> None:
    async def go() -> None:
        long = "x" * (8 << 20) + " " + FOUR
        async with Server(says(long)) as up, serving(up, facts=replace(EACH, context=None)) as (url, _):
            async with deaf(url, chat(model=NONE)) as line:
                await until(lambda: len(up.asked) > 0 and not up.running)
                received_bytes = b""
                for _ in range(3):
                    await asyncio.sleep(_STALLED / 4)
                    received_bytes += await asyncio.get_running_loop().sock_recv(line, 1 << 20)
                received_bytes += await rest(line)
            assert json.loads(received_bytes.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] == long

    run(go())


def test_large_requests_are_refused_when_too_many_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_HELD", 1 << 20)

    async def go() -> None:
        async with Server(says(FOUR), always=HANG) as up, serving(up, settings={"concurrency": 1}) as (url, service):
            callers = [begun(url, chat("x" * 300_000, model=NONE)) for _ in range(3)]
            await until(lambda: service.gate.waiting == 2)
            refused = await asked(url, chat("x" * 300_000, model=NONE))
            assert (refused.status, refused.error["code"], refused.headers["retry-after"]) == (429, "busy", "1")
            small = begun(url, chat(model=NONE))
            await until(lambda: service.gate.waiting == 3)
            for caller in (*callers, small):
                await left(caller)
            await until(lambda: not service.running.tasks)
            assert service.bodies.held == 0
            up.always = FINE
            assert (await asked(url, chat("x" * 300_000, model=NONE))).content == FOUR

    run(go())


# ---------------------------------------------------------------------------------------------------------- streams


def test_a_silent_stream_has_comments() -> None:
    async def go() -> Answer:
        async with Server(says(FOUR), always=Fault(before=17)) as up, serving(up) as (url, _):
            return await asked(url, chat(model=NONE, stream=True))

    answer = run(go())
    assert answer.body.startswith(b": working\n\n" * 3 + b"data: ")
    assert answer.body.count(b": working") == 3  # after 5, 10 and 15 seconds
    assert (answer.streamed, answer.events[-1]) == (FOUR, "[DONE]")


@pytest.mark.parametrize("wanted", [False, True])
def test_progress_is_told_when_it_is_asked_for(wanted: bool) -> None:
    async def go() -> Answer:
        async with Server(says(FOUR)) as up, serving(up, facts=EACH) as (url, _):
            wish = {"n": 4, "answer": "math", **({"progress": True} if wanted else {})}
            return await asked(url, chat(model=SC, stream=True, outthink=wish))

    answer = run(go())
    told = [event["outthink"]["progress"] for event in answer.events[:-1] if "progress" in event.get("outthink", {})]
    assert bool(told) == wanted
    assert sum(one["samples"] for one in told) == 4 * wanted
    assert answer.streamed == FOUR


@pytest.mark.parametrize("fault", [CUT, Fault(after=4, then="end"), Fault(piece=30, after=20)])
def test_a_failure_within_a_stream_is_an_event_and_the_end(fault: Fault) -> None:
    async def go() -> Answer:
        async with Server(says("one two three four"), always=fault) as up, serving(up) as (url, _):
            return await asked(url, chat(model=NONE, stream=True))

    answer = run(go())
    assert (answer.status, answer.streamed in ("one", "one ", "one two", "one two ")) == (200, True)
    assert "[DONE]" not in answer.events
    error = answer.events[-1]["error"]
    assert (error["type"], error["code"]) == ("server_error", "upstream_failed")


# ---------------------------------------------------------------------------------------------------------- upstream

TEXT = "text/plain"
FAILURES: dict[str, tuple[Fault, int, str, str]] = {
    "500": (Fault(status=500), 503, "server_error", "upstream_unavailable"),
    "503": (Fault(status=503), 503, "server_error", "upstream_unavailable"),
    "529": (Fault(status=529), 503, "server_error", "upstream_unavailable"),
    "429": (Fault(status=429), 429, "rate_limit_error", "upstream_rate_limit"),
    "400": (Fault(status=400), 400, "invalid_request_error", "upstream_refused"),
    "404": (Fault(status=404), 404, "invalid_request_error", "upstream_refused"),
    "422": (Fault(status=422), 422, "invalid_request_error", "upstream_refused"),
    "401": (Fault(status=401), 502, "server_error", "upstream_refused"),
    "403": (Fault(status=403), 502, "server_error", "upstream_refused"),
    "302": (
        Fault(status=302, headers={"Location": "http://elsewhere.example/"}),
        502,
        "server_error",
        "upstream_refused",
    ),
    "504": (Fault(status=504), 502, "server_error", "upstream_failed"),
    "a web page": (Fault(body=b"<html>hi</html>", kind="text/html"), 502, "server_error", "upstream_failed"),
    "half a line": (Fault(body=b'{"choices": [{"mess'), 502, "server_error", "upstream_failed"),
    "no choices": (Fault(body=b"{}"), 502, "server_error", "upstream_failed"),
    "an error": (Fault(body=b'{"error": {"message": "out of memory"}}'), 502, "server_error", "upstream_failed"),
    "cut off": (Fault(after=0), 502, "server_error", "upstream_failed"),
    "silence": (HANG, 502, "server_error", "upstream_failed"),
}


@pytest.mark.parametrize("model", [NONE, SC])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "status", "kind", "code"), FAILURES.values(), ids=FAILURES.keys())
def test_what_a_failure_of_the_upstream_is(
    fault: Fault, status: int, kind: str, code: str, stream: bool, model: str
) -> None:
    async def go() -> Answer:
        async with Server(says(FOUR), always=fault) as up:
            # no comment is sent before the failure, which would make it an event of the stream
            settings = {"keep_alive": 1000.0}
            async with serving(up, facts=EACH, patience={"silence": 20.0}, settings=settings) as (url, service):
                answer = await asked(url, chat(model=model, stream=stream, outthink={"n": 3} if model == SC else {}))
                assert counted(service)[f"outthink_requests_total {status} {model.removeprefix('m+')}"] == 1
                return answer

    answer = run(go())
    assert (answer.status, answer.error["type"], answer.error["code"]) == (status, kind, code)
    assert ("retry-after" in answer.headers) == (status in (429, 503))


def test_a_retry_after_of_the_upstream_reaches_the_caller() -> None:
    async def go() -> tuple[Answer, float]:
        busy = Fault(status=429, headers={"Retry-After": "120"})
        async with Server(says(FOUR), always=busy) as up, serving(up) as (url, _):
            answer = await asked(url, chat(model=NONE, outthink={"budget": "100s"}))
            return answer, asyncio.get_running_loop().time()

    answer, seconds = run(go())
    assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
    assert answer.headers["retry-after"] == "120"
    assert seconds < 10


def test_a_retry_after_beyond_the_deadline_reaches_the_caller() -> None:
    async def go() -> Answer:
        busy = Fault(status=429, headers={"Retry-After": "30"})
        async with Server(says(FOUR), always=busy) as up, serving(up) as (url, _):
            return await asked(url, chat(model=NONE, outthink={"budget": "5s"}))

    answer = run(go())
    assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
    assert 25 <= int(answer.headers["retry-after"]) <= 30


@pytest.mark.parametrize("fault", [Fault(status=400), Fault(status=500), CUT, Fault(body=b'{"choices": [{"mess')])
def test_one_dead_sample_of_eight_does_not_vote(fault: Fault) -> None:
    async def go() -> tuple[Answer, Server]:
        once = {"attempts": 1}
        async with (
            Server(says(FOUR), faults=[FINE, FINE, fault]) as up,
            serving(up, facts=EACH, patience=once) as (url, _),
        ):
            return await asked(url, chat(model=SC, outthink={"n": 8})), up

    answer, up = run(go())
    told = answer.json["outthink"]
    assert (answer.status, answer.content, told["stopped"], told["samples"]) == (200, FOUR, "finished", 8)
    assert [(line["samples"], line["failed"]) for line in told["ledger"]] == [(9, 1)], "one of the first, made up for"
    assert answer.json["usage"]["completion_tokens"] >= up.made


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_in_the_middle_is_answered_with_what_there_is(stream: bool) -> None:
    async def go() -> Answer:
        async with Server(says(FOUR), faults=[FINE, FINE, HANG, STUCK]) as up, serving(up, facts=EACH) as (url, _):
            wish = {"n": 4, "answer": "math", "budget": "20s"}
            answer = await asked(url, chat(model=SC, stream=stream, outthink=wish))
            await until(lambda: not up.running)
            assert 20 <= asyncio.get_running_loop().time() < 22
            return answer

    answer = run(go())
    last = answer.events[-2] if stream else answer.json
    assert last["outthink"]["stopped"] == "deadline"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert (answer.streamed if stream else answer.content) == FOUR


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [NONE, SC])
@pytest.mark.parametrize("choices", [1, 2])
def test_a_deadline_before_any_sample_has_ended_is_answered_with_its_beginning(
    model: str, stream: bool, choices: int
) -> None:
    async def go() -> Answer:
        async with Server(says("one two three four"), always=STUCK) as up, serving(up, facts=EACH) as (url, _):
            wish = {"budget": "3s", **({"n": 2} if model == SC else {})}
            return await asked(url, chat(model=model, stream=stream, outthink=wish, n=choices))

    answer = run(go())
    assert answer.status == 200
    last = answer.events[-2] if stream else answer.json
    assert last["outthink"]["stopped"] == "deadline"
    assert (answer.streamed if stream else answer.content) == "one two"
    ends = [choice for event in answer.events[:-1] for choice in event["choices"]] if stream else last["choices"]
    assert {choice["finish_reason"] for choice in ends} - {None} == {"length"}
    if stream:  # each choice that was begun is ended once
        opened = {choice["index"] for choice in ends}
        assert sorted(choice["index"] for choice in ends if choice["finish_reason"]) == sorted(opened)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seconds", [3, 12])
def test_a_deadline_before_anything_is_written(stream: bool, seconds: int) -> None:
    async def go() -> Answer:
        async with Server(says(FOUR), always=HANG) as up, serving(up) as (url, _):
            return await asked(url, chat(model=NONE, stream=stream, outthink={"budget": f"{seconds}s"}))

    answer = run(go())
    if stream and seconds > 5:  # comments have been sent
        assert (answer.status, len(answer.events)) == (200, 1)
        assert answer.events[0]["error"]["code"] == "deadline"
    else:
        assert (answer.status, answer.error["code"]) == (504, "deadline")


SHORT = [0.001, 0.02, 0.5, 3.0]
REFUSALS = {
    "gone": (None, 502, "upstream_refused"),
    "503": (Fault(status=503), 503, "upstream_unavailable"),
    "429": (Fault(status=429), 429, "upstream_rate_limit"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [NONE, SC])
@pytest.mark.parametrize("seconds", SHORT)
def test_who_leaves_a_slow_upstream_too_little_time_is_told_of_the_deadline(
    seconds: float, model: str, stream: bool
) -> None:
    """However short it is: the upstream was at work, or was never asked, and so it has not failed."""

    async def go() -> tuple[Answer, float]:
        async with Server(says(FOUR), always=HANG) as up, serving(up, facts=EACH) as (url, _):
            answer = await asked(url, chat(model=model, stream=stream, outthink={"budget": {"seconds": seconds}}))
            return answer, asyncio.get_running_loop().time()

    answer, took = run(go())
    assert (answer.status, answer.error["code"]) == (504, "deadline")
    assert took < seconds + 1


def test_what_waited_for_a_connection_was_not_refused_by_anybody() -> None:
    async def go() -> list[Answer]:
        async with Server(says(FOUR), always=HANG) as up:
            engine = OpenAIEngine(Endpoint(up.url, connections=1), EACH)
            async with serving(up, served=Served({"m": engine})) as (url, _):
                callers = [begun(url, chat(model=NONE, outthink={"budget": budget})) for budget in ("9s", "1s")]
                answers = await asyncio.gather(*callers)
                assert len(up.asked) == 1, "the other one was never sent"
                return answers

    assert [(answer.status, answer.error["code"]) for answer in run(go())] == [(504, "deadline")] * 2


@pytest.mark.parametrize("model", [NONE, SC])
@pytest.mark.parametrize("seconds", SHORT[-2:])
@pytest.mark.parametrize(("fault", "status", "code"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_deadline_while_a_refusal_is_to_be_repeated_tells_of_the_refusal(
    fault: Fault | None, status: int, code: str, seconds: float, model: str
) -> None:
    """All that the upstream had done by then was to refuse, or not to be there."""

    async def go() -> tuple[Answer, float]:
        async with (
            Server(says(FOUR), always=fault or FINE) as up,
            serving(up, facts=EACH, patience={"first": 9.0}) as (url, _),
        ):
            if fault is None:
                await up.__aexit__()
            answer = await asked(url, chat(model=model, outthink={"budget": {"seconds": seconds}}))
            return answer, asyncio.get_running_loop().time()

    answer, took = run(go())
    assert (answer.status, answer.error["code"]) == (status, code)
    assert seconds <= took < seconds + 1
    assert "127.0.0.1" not in answer.error["message"]


@pytest.mark.parametrize("what", ["tokenize", "models"])
def test_the_deadline_holds_while_the_upstream_is_asked_about_itself(what: str) -> None:
    class Stuck(Server):
        async def _answer(self, request: Any, seen: Any) -> Any:
            if seen.path == what:
                await asyncio.Event().wait()
            return await super()._answer(request, seen)

    async def go() -> Answer:
        async with (
            Stuck(says(FOUR)) as up,
            serving(up, served=Served({}, up.url) if what == "models" else None) as (url, _),
        ):
            answer = await asked(url, chat(model=NONE, max_tokens=20, outthink={"budget": "7s"}))
            assert asyncio.get_running_loop().time() < 8
            return answer

    answer = run(go())
    assert (answer.status, answer.error["code"]) == (504, "deadline")


def test_an_upstream_that_has_gone() -> None:
    async def go() -> list[Answer]:
        async with Server(says(FOUR)) as up, contextlib.AsyncExitStack() as stack:
            url, _ = await stack.enter_async_context(serving(up, facts=BARE))
            answers = [await asked(url, chat(model=NONE))]
            await up.__aexit__()
            answers += [await asked(url, chat(model=model)) for model in (NONE, SC)]
            await stack.aclose()
            return answers

    first, *others = run(go())
    assert first.content == FOUR
    assert {(answer.status, answer.error["code"]) for answer in others} == {(502, "upstream_refused")}


# ---------------------------------------------------------------------------------------------------------- models


def test_models_are_opened_once_and_after_a_failure_a_minute_later() -> None:
    async def go() -> None:
        async with Server(says(FOUR), models=("m", "k")) as up:
            opened: list[str] = []

            async def open_one(name: str) -> Engine:
                opened.append(name)
                await asyncio.sleep(1)
                if len(opened) == 1:
                    raise EngineError("The probe failed.")
                return engine_on(up, replace(ALL, model=name))

            async with serving(up, served=Served({}, up.url, open_one)) as (url, service):
                caller = begun(url, chat(model=NONE))
                await until(lambda: bool(opened))
                await left(caller)  # while it is opened, which fails
                await asyncio.sleep(2)
                answers = await asyncio.gather(*(asked(url, chat(model="k+none")) for _ in range(5)))
                assert {answer.content for answer in answers} == {FOUR}
                answers = await asyncio.gather(*(asked(url, chat(model=NONE)) for _ in range(5)))
                assert {(answer.status, answer.error["code"]) for answer in answers} == {(502, "upstream_failed")}
                assert opened == ["m", "k"]
                assert len([seen for seen in up.seen if seen.path == "models"]) == 1
                await asyncio.sleep(60)
                assert (await asked(url, chat(model=NONE))).content == FOUR
                assert opened == ["m", "k", "m"]
                assert not service._served._opening

    run(go())


def test_a_list_of_models_that_fails_is_as_it_was() -> None:
    async def go() -> None:
        async with Server(says(FOUR), models=("m", "k")) as up:

            async def open_one(name: str) -> Engine:
                return engine_on(up, replace(ALL, model=name))

            served = Served({"m": engine_on(up)}, up.url, open_one)
            async with serving(up, served=served) as (url, _):
                assert (await asked(url, chat(model="k+none"))).content == FOUR
                await asyncio.sleep(100)
                up.lacks = ("models",)
                up.seen.clear()
                for _ in range(5):
                    assert (await asked(url, chat(model="k+none"))).content == FOUR
                assert len([seen for seen in up.seen if seen.path == "models"]) == 1

    run(go())


# ---------------------------------------------------------------------------------------------------------- crowded


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_says_so_at_once(stream: bool) -> None:
    async def go() -> None:
        clock = asyncio.get_running_loop().time
        small = {"concurrency": 2, "queue": 1}
        async with Server(says(FOUR), always=HANG) as up, serving(up, settings=small) as (url, service):
            callers = [begun(url, chat(f"{number}", model=NONE)) for number in range(3)]
            await until(lambda: up.running == 2 and service.gate.waiting == 1)
            before, sent = clock(), len(up.seen)
            refused = await asked(url, chat("last", model=NONE, stream=stream))
            assert (refused.status, refused.error["type"], refused.error["code"]) == (
                429,
                "rate_limit_error",
                "busy",
            )
            assert int(refused.headers["retry-after"]) >= 1
            assert (clock() - before < 1, len(up.seen)) == (True, sent)
            assert counted(service)["outthink_queue"] == 1
            for caller in callers:
                await left(caller)
            await until(lambda: not service.running.tasks)
            up.always = FINE
            assert (await asked(url, chat(model=NONE))).content == FOUR

    run(go())


def test_a_queue_is_served_in_order_and_its_deadlines_hold() -> None:
    async def go() -> None:
        async with Server(says(FOUR), pace=1.0) as up, serving(up, settings={"concurrency": 1}) as (url, _):
            callers = []
            for number, budget in enumerate(("100s", "100s", "4s", "100s")):
                callers.append(begun(url, chat(str(number), model=NONE, outthink={"budget": budget})))
                await until(lambda: len(up.seen) > 0)
                await asyncio.sleep(0.1)
            answers = await asyncio.gather(*callers)
            assert [answer.status for answer in answers] == [200, 200, 429, 200]
            assert answers[2].error["code"] == "busy"
            assert [seen.body["messages"][0]["content"] for seen in up.asked] == ["0", "1", "3"]

    run(go())


@pytest.mark.parametrize(("taken", "drawn"), [(0, 8), (4, 8), (5, 6), (6, 4), (7, 2), (8, 1), (12, 1)])
def test_who_comes_when_it_is_crowded_spends_less_and_is_told(taken: int, drawn: int) -> None:
    async def go() -> tuple[Answer, int]:
        sheds = {"concurrency": 8, "sheds": True}
        async with Server(says(FOUR), always=HANG) as up, serving(up, facts=EACH, settings=sheds) as (url, service):
            others = [begun(url, chat("other", model=NONE)) for _ in range(taken)]
            await until(lambda: service.gate.running + service.gate.waiting == taken)
            up.always = FINE
            caller = begun(url, chat("mine", model=SC, outthink={"n": 8, "answer": "math"}))
            if taken >= 8:
                await until(lambda: service.gate.waiting == taken - 7)
                for other in others:
                    await left(other)
            answer = await caller
            for other in others:
                await left(other)
            await until(lambda: not service.running.tasks)
            return answer, sum(seen.body["messages"][0]["content"] == "mine" for seen in up.asked)

    answer, sent = run(go())
    told = answer.json["outthink"]
    assert (sent, told["samples"], told["strategy"]["n"]) == (drawn, drawn, drawn)
    assert told.get("load", 1) == (drawn / 8 if taken < 8 else 0.125)


# ---------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("grace", [30.0, 5.0])
def test_what_runs_at_the_end_is_answered(grace: float) -> None:
    """Within the grace as ever, after it with the best that there is; who waits then is told to go."""

    async def go() -> tuple[list[Answer], bool]:
        faults, settings = [FINE, Fault(before=10)], {"concurrency": 2, "grace": grace}
        async with Server(says(FOUR), faults=faults, always=HANG) as up, contextlib.AsyncExitStack() as stack:
            url, service = await stack.enter_async_context(serving(up, facts=EACH, settings=settings))
            callers = [begun(url, chat("one of two", model=SC, outthink={"n": 2, "answer": "math"}))]
            await until(lambda: len(up.asked) == 2 and up.running == 1)
            callers.append(begun(url, chat("nothing yet", model=NONE)))
            await until(lambda: up.running == 2)
            callers.append(begun(url, chat("waits", model=NONE)))
            await until(lambda: service.gate.waiting == 1)
            ending = asyncio.create_task(stack.aclose())
            await asyncio.sleep(1)
            callers.append(begun(url, chat("comes too late", model=NONE)))
            answers = await asyncio.gather(*callers)
            await ending
            with pytest.raises(OSError):  # noqa: PT011 - what it is called differs
                await connected(url)
            return answers, up.running == 0

    (first, *others), idle = run(go())
    assert idle
    assert (first.status, first.content) == (200, FOUR)
    assert first.json["outthink"]["stopped"] == ("finished" if grace > 10 else "cancelled")
    assert [(answer.status, answer.error["code"]) for answer in others] == [(503, "busy")] * 3


def test_who_still_comes_is_sent_away() -> None:
    async def go() -> list[Answer]:
        async with Server(says(FOUR)) as up, serving(up) as (url, service):
            service.running.draining = True
            answers = [await asked(url, chat()), await asked(url, chat(), path="/v1/quote")]
            return [*answers, await asked(url, None, method="GET", path="/health")]

    *refused, health = run(go())
    assert {(answer.status, answer.error["code"], answer.headers["retry-after"]) for answer in refused} == {
        (503, "busy", "1")
    }
    assert (health.status, health.json) == (503, {"status": "stopping"})


@contextlib.asynccontextmanager
async def under_way(folder: Path, up: Server) -> AsyncIterator[tuple[Command, asyncio.Task[Answer]]]:
    """The real command, which has answered two requests and is at work on a third one; the traces are recorded."""
    async with command(folder, up.url, "--record", str(folder / "traffic")) as running:
        assert running.url, running.told
        for _ in range(2):
            assert (await asked(running.url, chat(model=SC, outthink={"n": 3}))).content == FOUR
        up.pace = 0.1
        caller = begun(running.url, chat(model=NONE))
        await until(lambda: up.running == 1)
        yield running, caller


def recorded(folder: Path) -> list[str | None]:
    """The answers in the traces, all of which must be whole."""
    kept = list(read_results(folder / "traffic" / SERVED))
    messages = (folder / "traffic" / PROBLEMS).read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["problem"] for line in messages} == {result.problem for result in kept}
    return [result.trace.answer for result in kept if result.trace is not None]


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_what_it_has_begun(name: signal.Signals, tmp_path: Path) -> None:
    async def go() -> None:
        async with Server(says(FOUR)) as up, under_way(tmp_path, up) as (running, caller):
            running.process.send_signal(name)
            await asyncio.sleep(0.2)
            assert not caller.done()
            late = await asked(running.url, chat(model=NONE))
            assert (late.status, late.error["code"]) == (503, "busy")
            assert (await caller).content == FOUR
            assert await running.process.wait() == 0
            assert "Traceback" not in "".join(running.told)

    asyncio.run(go())
    assert recorded(tmp_path) == ["4"] * 3


def test_the_command_does_not_wait_when_it_is_told_twice(tmp_path: Path) -> None:
    async def go() -> Answer:
        async with Server(says(FOUR)) as up, under_way(tmp_path, up) as (running, caller):
            up.always = HANG
            stuck = begun(running.url, chat(model=NONE))
            assert (await caller).content == FOUR
            for _ in range(2):
                running.process.send_signal(signal.SIGINT)
                await asyncio.sleep(0.1)
            async with asyncio.timeout(5):
                assert await running.process.wait() == 0
            return await stuck

    answer = asyncio.run(go())
    assert (answer.status, answer.error["code"]) == (503, "busy")
    assert recorded(tmp_path) == ["4"] * 3 + [None]


def test_a_killed_command_leaves_whole_files_that_are_gone_on_with(tmp_path: Path) -> None:
    async def go() -> None:
        async with Server(says(FOUR)) as up:
            async with under_way(tmp_path, up) as (running, caller):
                await until(lambda: (tmp_path / "traffic" / SERVED / RESULTS).read_bytes().count(b"\n") == 2)
                running.process.kill()
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await caller
                await running.process.wait()
                await until(lambda: not up.running)  # its connections are closed with it
            up.pace = 0.0
            assert recorded(tmp_path) == ["4"] * 2
            async with command(tmp_path, up.url, "--record", str(tmp_path / "traffic")) as running:
                assert (await asked(running.url, chat(model=NONE))).content == FOUR
                running.process.terminate()
                assert await running.process.wait() == 0

    asyncio.run(go())
    assert recorded(tmp_path) == ["4"] * 3


def test_the_command_says_in_one_sentence_why_it_does_not_start(tmp_path: Path) -> None:
    async def told(*words: str) -> str:
        async with command(tmp_path, *words) as running:
            assert await running.process.wait() in (1, 2)
            assert not running.url
            (line,) = running.told
            return line

    async def go() -> None:
        async with Server(says(FOUR)) as up:
            port = up.url.split(":")[2].split("/")[0]
            assert "already in use" in await told(up.url, "--port", port)
        assert "is the server running?" in await told(up.url)
        assert "is not the address of a server" in await told("localhost:8000")

    asyncio.run(go())


# ---------------------------------------------------------------------------------------------------------- all at once

SAYS = [FOUR, FOUR, FIVE, "So I would say that the answer is 4.", "one two three four five six seven eight nine ten"]
VERDICT = "I have checked it.\nVerdict: Yes"
STATUSES = {
    *((400, "invalid_request_error"), (429, "rate_limit_error"), (502, "server_error"), (503, "server_error")),
    (504, "server_error"),
}


class Unruly(Server):
    """Does something else each time."""

    def __init__(self, rng: random.Random, *, lies: bool) -> None:
        self._rng = rng
        self._lies = lies
        super().__init__(self._say, bend=self._bent)

    @property
    def always(self) -> Fault:
        rng = self._rng
        if rng.random() < 0.5:
            return Fault(pace=rng.choice((0.0, 0.0, 0.1, 1.0)))
        after = rng.randrange(12)
        return rng.choice(
            [
                *(Fault(status=status) for status in (400, 429, 500, 503, 504)),
                *(Fault(status=429, headers={"Retry-After": seconds}) for seconds in ("1", "20", "100", "soon")),
                HANG,
                Fault(before=rng.choice((0.5, 5.0))),
                Fault(after=after),
                Fault(after=after, then="hang"),
                Fault(after=after, then="end"),
                Fault(piece=25, after=2 * after),  # half a line
                Fault(body=b'{"choices": [{"message": {"con', kind="application/json"),
                Fault(body=b"<html>Bad Gateway</html>", kind="text/html"),
            ]
        )

    @always.setter
    def always(self, fault: Fault) -> None:
        pass

    def _say(self, ask: Ask) -> str:
        return VERDICT if "Verdict" in ask.messages[-1][1] else self._rng.choice(SAYS)

    def _bent(self, sent: dict[str, Any]) -> dict[str, Any]:
        """Now and then the usage is missing or nonsense; where tokens can be counted, it may also be too little."""
        if "usage" not in sent or self._rng.random() < 0.7:
            return sent
        usage = sent["usage"]
        wrong: list[Any] = [None, {}, "much", {**usage, "completion_tokens": -1}, {**usage, "prompt_tokens": "3"}]
        wrong += [{**usage, "completion_tokens": 0, "total_tokens": 0}] if self._lies else []
        return {**sent, "usage": self._rng.choice(wrong)}


class Caller:
    """One of many, who asks for something and may not wait for it."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.answer: Answer | None = None
        strategy = rng.choice(
            ["none", "self_consistency", "self_consistency", "best_of_n", "auto", "adaptive_consistency"]
        )
        self.stream = rng.random() < 0.5
        self.choices = rng.choice((1, 1, 1, 3))
        wish: dict[str, Any] = {"answer": rng.choice(("chat", "math", "text"))}
        if strategy != "none":
            wish["n"] = rng.randint(1, 6)
        if self.stream and rng.random() < 0.3:
            wish["progress"] = True
        budget = [f"{rng.randint(60, 600)}-tokens"] if rng.random() < 0.3 else []
        budget += [f"{rng.choice((1, 3, 8, 30))}s"] if rng.random() < 0.5 else []
        if budget:
            wish["budget"] = ",".join(budget)
        more = {"stream_options": {"include_usage": True}} if self.stream and rng.random() < 0.5 else {}
        self._body = chat(
            f"What is 2+2? #{number}#",
            model=f"m+{strategy}",
            stream=self.stream,
            n=self.choices,
            max_tokens=rng.choice((5, 40)),
            outthink=wish,
            **more,
        )
        self._comes = rng.randrange(200) / 4
        self._does = rng.choice(["reads"] * 10 + ["leaves", "leaves", "hears", "hears", "closes", "sleeps", "stops"])
        self._for = rng.randrange(40) / 4
        self._hears = rng.randrange(100, 2000)

    async def go(self, url: str) -> None:
        """Ask, and do whatever he does."""
        await asyncio.sleep(self._comes)
        reader, writer = await connected(url)
        sent = written(url, self._body)
        writer.write(sent[: -self._hears // 10] if self._does == "stops" else sent)
        try:
            if self._does in ("leaves", "stops"):
                await asyncio.sleep(self._for)
                return
            if self._does == "hears":
                await reader.readexactly(self._hears)
                return
            if self._does == "closes":
                await asyncio.sleep(self._for)
                writer.write_eof()
            if self._does == "sleeps":
                await asyncio.sleep(10 * self._for)
            self.answer = await received(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            assert self._does in ("hears", "closes")
        finally:
            await closed(writer)

    def check(self) -> bool:
        """Whether there is an answer, which must be right."""
        answer = self.answer
        if answer is None:
            assert self._does in ("leaves", "hears", "closes", "stops")
            return False
        if answer.status != 200:
            assert (answer.status, answer.error["type"]) in STATUSES
            assert (answer.status in (429, 503)) == ("retry-after" in answer.headers)
            return True
        ends: dict[int, str] = {}
        texts: dict[int, str] = {}
        if not self.stream:
            for choice in answer.json["choices"]:
                texts[choice["index"]], ends[choice["index"]] = choice["message"]["content"], choice["finish_reason"]
        else:
            *events, last = answer.events
            if last != "[DONE]":
                assert last["error"]["type"] in {kind for _, kind in STATUSES}
                return True
            for choice in (choice for event in events for choice in event["choices"]):
                place = choice["index"]
                assert place not in ends
                texts[place] = texts.get(place, "") + (choice["delta"].get("content") or "")
                if choice["finish_reason"]:
                    ends[place] = choice["finish_reason"]
        assert texts.keys() == ends.keys() != set()
        assert max(ends) < self.choices
        for place, end in ends.items():
            if end == "stop":
                assert texts[place] in SAYS
            else:
                assert end == "length"
                assert any(said.startswith(texts[place]) for said in SAYS)
        return True


@pytest.mark.parametrize(("facts", "verifier"), [(ALL, "confidence"), (EACH, "judge")], ids=["confidence", "judge"])
def test_five_hundred_callers_before_an_unruly_upstream(
    facts: Facts, verifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "GRACE", 0.001)
    callers = [Caller(number, random.Random(f"{verifier} {number}")) for number in range(500)]

    async def go() -> tuple[Server, dict[str, float]]:
        up = Unruly(random.Random(7), lies=facts is ALL)
        policy = ServerRules(strategy=make_strategy("auto"), scorers={"verifier": verifier})
        settings = {"concurrency": 24, "queue": 24, "sheds": True, "shadow": 0.2, "alternative": "none"}
        async with up, contextlib.AsyncExitStack() as stack:
            judge = engine_on(up, EACH, first=0.25)
            stack.push_async_callback(judge.close)
            ours = serving(
                up,
                policy=policy,
                facts=facts,
                patience={"first": 0.25, "attempts": 2},
                settings=settings,
                roles={"judge": judge},
                scorers={"verifier": Opened(verifier)},
                recorder=Recorder(tmp_path, {}, {}),
            )
            url, service = await stack.enter_async_context(ours)
            await together(*(caller.go(url) for caller in callers))
            await until(lambda: not service.running.tasks, 400)
            while not counted(service)[
                "outthink_shadow_requests_total"
            ]:  # which are asked for only where there is room
                callers.append(Caller(len(callers), random.Random(f"{verifier} {len(callers)}")))
                await callers[-1].go(url)
                await until(lambda: not service.running.tasks, 400)
            assert (service.gate.running, service.bodies.held, up.running) == (0, 0, 0)
            lines = [task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())]
            assert len(lines) == up.connections  # those that wait there to be used again
            return up, counted(service)

    up, numbers = run(go())
    answered = sum(caller.check() for caller in callers)
    assert answered > 250
    statuses = Counter(caller.answer.status for caller in callers if caller.answer is not None)
    assert statuses.keys() >= {200, 429, 502}
    assert statuses[200] > 100

    true: defaultdict[str, Usage] = defaultdict(Usage)
    for asking in up.asked:
        true[number_in(asking.body["messages"])] += Usage(prompt=asking.prompt, completion=asking.made)
    whose = {line["problem"]: number_in(line["messages"]) for _, line in read(tmp_path / PROBLEMS)}
    seen: defaultdict[str, Usage] = defaultdict(Usage)
    charged: defaultdict[str, Usage] = defaultdict(Usage)
    for folder in (SERVED, SHADOW):
        for result in read_results(tmp_path / folder):
            assert result.trace is not None
            limit = result.trace.budget.limits.get("tokens")
            assert limit is None or result.trace.usage.tokens <= limit
            seen[whose[result.problem]] += Usage.total(call.seen for call in result.trace.calls)
            charged[whose[result.problem]] += result.trace.usage
    for number in true.keys() | seen.keys():
        assert seen[number].prompt <= true[number].prompt <= charged[number].prompt
        assert seen[number].completion <= true[number].completion <= charged[number].completion
    counted_tokens = sum(count for name, count in numbers.items() if name.startswith("outthink_tokens_total"))
    assert counted_tokens == Usage.total(charged.values()).tokens >= Usage.total(true.values()).tokens
    assert sum(count for name, count in numbers.items() if name.startswith("outthink_requests_total")) >= answered


def number_in(messages: Any) -> str:
    """Whose messages they are."""
    numbers: set[str] = set(re.findall("#([0-9]+)#", json.dumps(messages)))
    (number,) = numbers
    return number
