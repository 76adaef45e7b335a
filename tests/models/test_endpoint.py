"""Requests over HTTP: what is repeated, what is waited for, what each failure means, and that nothing is left open."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import gc
import itertools
import json
import re
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Literal

import pytest

from outthink.errors import EngineError, OutthinkError, Refused, UsageError
from outthink.models import endpoint as module
from outthink.models.endpoint import Endpoint, Patience, Sending
from outthink.together import together
from tests.tools.server import HANG, Fault, Server, many_files, raw, run, threaded

CHAT = "chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "temperature": 0}
STREAM = {**ASK, "stream": True}


@pytest.fixture(autouse=True, scope="module")
def _collected() -> Iterator[None]:
    """What was left open is found while a test can still fail of it."""
    yield
    gc.collect()


async def posted(server: Server, **patience: Any) -> tuple[Any, Sending, list[float]]:
    """The answer or failure, how it went, and the seconds between the attempts."""
    sending = Sending()
    async with on(server.url, **patience) as client:
        try:
            reply = await client.post(CHAT, ASK, sending)
        except OutthinkError as failure:
            reply = failure
    times = [seen.at for seen in server.asked]
    return reply, sending, [after - before for before, after in itertools.pairwise(times)]


@contextlib.asynccontextmanager
async def on(url: str, *, connections: int = 1024, **patience: Any) -> AsyncIterator[Endpoint]:
    """An endpoint that is closed at the end."""
    client = Endpoint(url, patience=Patience(**patience), connections=connections)
    try:
        yield client
    finally:
        await client.close()


def faulty(*faults: Fault, **options: Any) -> Callable[[Callable[[Server], Awaitable[Any]]], Any]:
    """Runs a coroutine function on a server with these faults."""

    def do(work: Callable[[Server], Awaitable[Any]]) -> Any:
        async def go() -> Any:
            async with Server(faults=faults, **options) as server:
                return await work(server)

        return run(go())

    return do


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://h/v1",
        "http://",
        "http:///v1",
        "http://h:99999/v1",
        "http://[::1/v1",
        "http://h/v1?a=b",
        "http://h/v1#m",
        "http://h:0/v1",
        "http://exa mple/v1",
        "http://a..b/v1",
        "http://.../v1",
        "http://\ud800/v1",
        "http://h/\nv1",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="write it like http://localhost:8000/v1"):
        Endpoint(url)


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    for url in ("http://me:secret@h/v1", "http://me:secret@h:99999/v1", "http://me:secret@h/v1?key=secret"):
        with pytest.raises(UsageError) as failure:
            Endpoint(url)
        assert "secret" not in str(failure.value)


def test_paths_are_beside_and_below_the_address() -> None:
    async def go(server: Server) -> list[str]:
        async with on(server.url + "/") as client:
            await client.get("models")
            await client.post("../tokenize", ASK)
            assert "num_requests" in await client.text("../metrics")
        return [seen.path for seen in server.seen]

    assert faulty()(go) == ["models", "tokenize", "metrics"]


def test_a_colon_in_a_path_makes_no_other_address() -> None:
    async def go(server: Server) -> None:
        async with on(server.url) as client:
            for path in ("http:score", "a:b/c"):
                with contextlib.suppress(EngineError):
                    await client.post(path, ASK)
        assert [seen.path for seen in server.seen] == ["http:score", "a:b/c"]

    faulty(lacks={"http:score", "a:b/c"})(go)


# ---------------------------------------------------------------- what is repeated


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 529])
def test_what_a_server_refuses_for_now_is_repeated_after_growing_waits(status: int) -> None:
    busy = Fault(status=status)
    reply, sending, waits = faulty(busy, busy, busy)(posted)
    assert reply["choices"][0]["message"]["content"] == "one, two, "
    assert (sending.attempts, sending.open) == (4, True)
    for wait, usual in zip(waits, (0.5, 1.0, 2.0), strict=True):
        assert 0.75 * usual <= wait <= 1.25 * usual


@pytest.mark.parametrize("asked", [0, 1, 7, 60])
def test_as_long_is_waited_as_the_server_asks(asked: int) -> None:
    _, sending, waits = faulty(Fault(status=429, headers={"Retry-After": str(asked)}))(posted)
    assert sending.attempts == 2
    assert waits == [pytest.approx(max(asked, 0.5), abs=0.2 if asked < 1 else 1e-6)]


def test_a_wait_until_a_date_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outthink.models.endpoint.time.time", lambda: 1e9)
    headers = {"Retry-After": email.utils.formatdate(1e9 + 25, usegmt=True)}
    assert faulty(Fault(status=503, headers=headers))(posted)[2] == [pytest.approx(25)]


@pytest.mark.parametrize(
    "said", ["soon", "-5", "nan", "", "Wed, 99 Nov 2026 08:00:00 GMT", "Mon, 01 Jan 1990 00:00:00 GMT"]
)
def test_a_wait_that_says_nothing_is_the_usual_one(said: str) -> None:
    (wait,) = faulty(Fault(status=429, headers={"Retry-After": said}))(posted)[2]
    assert 0.375 <= wait <= 0.625


@pytest.mark.parametrize("asked", ["61", "1e9", "inf", "1e400", "1e308", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_longer_wait_than_patience_allows_fails_at_once(asked: str) -> None:
    reply, sending, waits = faulty(Fault(status=429, headers={"Retry-After": asked}))(posted)
    assert isinstance(reply, Refused)
    assert reply.status == 429
    assert reply.retry_after == (61 if asked == "61" else 1e9), "for ever is a number, too"
    assert (sending.attempts, sending.open, waits) == (1, False, [])


def test_when_the_attempts_run_out_nothing_was_produced() -> None:
    async def go(server: Server) -> Any:
        return await posted(server, attempts=3)

    reply, sending, waits = faulty(always=Fault(status=502, body=b'{"error": {"message": "no worker"}}'))(go)
    assert isinstance(reply, Refused)
    assert "answered 502: no worker" in str(reply)
    assert (sending.attempts, sending.open, len(waits)) == (3, False, 2)


def test_no_wait_is_longer_than_patience_allows() -> None:
    async def go(server: Server) -> Any:
        return await posted(server, attempts=12, wait=3.0)

    assert max(faulty(always=Fault(status=503))(go)[2]) <= 3.0 + 1e-6


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 501])
def test_what_a_server_refuses_for_good_is_not_repeated(status: int) -> None:
    reply, sending, _ = faulty(Fault(status=status))(posted)
    assert isinstance(reply, Refused)
    assert (reply.status, sending.attempts, sending.open) == (status, 1, False)


@pytest.mark.parametrize("status", [504, 524])
def test_a_gateway_that_gave_up_waiting_may_have_left_work_behind(status: int) -> None:
    reply, sending, _ = faulty(Fault(status=status))(posted)
    assert type(reply) is EngineError
    assert (sending.attempts, sending.open) == (1, True)


def test_a_connection_that_is_never_made_is_tried_again() -> None:
    async def go() -> Sending:
        async with Server() as server:
            pass  # nobody listens at its address any more
        sending = Sending()
        async with on(server.url, attempts=4) as client:
            with pytest.raises(Refused, match=r"cannot be reached .*; is the server running"):
                await client.post(CHAT, ASK, sending)
        return sending

    sending = run(go())
    assert (sending.attempts, sending.open) == (4, False)


def test_a_server_that_comes_up_late_is_reached() -> None:
    async def go() -> int:
        async with Server() as gone:
            port = int(gone.url.rsplit(":", 1)[1].split("/")[0])
        sending = Sending()
        async with on(gone.url, attempts=6) as client:
            asking = asyncio.ensure_future(client.get("models"))
            await asyncio.sleep(2)

            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
                await writer.drain()
                writer.close()

            server = await asyncio.start_server(handle, "127.0.0.1", port)
            assert await asking == {}
            server.close()
        return sending.attempts

    run(go())


def test_a_server_that_cannot_be_trusted_is_not_asked_again() -> None:
    async def go() -> None:
        async with Server() as server:
            sending = Sending()
            async with on(server.url.replace("http:", "https:")) as client:
                with pytest.raises(Refused, match="cannot be reached safely"):
                    await client.post(CHAT, ASK, sending)
            assert (sending.attempts, sending.open, server.seen) == (1, False, [])

    run(go())


# ---------------------------------------------------------------- answers that do not come


async def ended(client: Endpoint, body: Any = ASK) -> tuple[list[Any], EngineError | None]:
    """The events until the end, and what ended them."""
    events = []
    try:
        async for event in client.events(CHAT, body):
            events.append(event)
    except EngineError as failure:
        return events, failure
    return events, None


def test_silence_before_the_answer_ends_the_request_and_is_not_repeated() -> None:
    async def go(server: Server) -> tuple[Any, ...]:
        reply, sending, _ = await posted(server, silence=30)
        await asyncio.sleep(1)
        return reply, sending, [seen.closed for seen in server.asked]

    reply, sending, closed = faulty(HANG)(go)
    assert type(reply) is EngineError
    assert "sent nothing for 30 s" in str(reply)
    assert (sending.attempts, sending.open, closed) == (1, True, [True])


@pytest.mark.parametrize("body", [ASK, STREAM])
def test_silence_in_the_middle_of_an_answer_ends_it(body: dict[str, Any]) -> None:
    async def go(server: Server) -> None:
        async with on(server.url, silence=30) as client:
            events, failure = await ended(client, body)
        assert "sent nothing for 30 s" in str(failure)
        assert len(events) == (2 if body is STREAM else 0)
        await asyncio.sleep(1)
        assert server.asked[0].closed

    faulty(Fault(after=2, then="hang", piece=None if body is STREAM else 20))(go)


@pytest.mark.parametrize("body", [ASK, STREAM])
def test_an_answer_in_slow_pieces_is_whole(body: dict[str, Any]) -> None:
    async def go(server: Server) -> list[Any]:
        async with on(server.url, silence=30) as client:
            events, failure = await ended(client, body)
        assert failure is None
        assert asyncio.get_running_loop().time() > 200
        return events

    events = faulty(Fault(piece=7, pace=20))(go)
    assert len(events) == (5 if body is STREAM else 1)


@pytest.mark.parametrize("body", [ASK, STREAM])
def test_a_cut_answer_fails_after_what_had_come(body: dict[str, Any]) -> None:
    async def go(server: Server) -> tuple[list[Any], Any]:
        async with on(server.url) as client:
            return await ended(client, body)

    events, failure = faulty(Fault(after=2, piece=None if body is STREAM else 20))(go)
    assert type(failure) is EngineError
    assert "cut its answer off" in str(failure)
    assert len(events) == (2 if body is STREAM else 0)


def test_a_connection_that_breaks_before_the_answer_is_not_repeated() -> None:
    heads = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)

    async def go() -> None:
        sending = Sending()
        async with raw(answer) as url, on(url) as client:
            with pytest.raises(EngineError, match="broke the connection off") as failure:
                await client.post(CHAT, ASK, sending)
        assert not isinstance(failure.value, Refused)
        assert (sending.attempts, sending.open, len(heads)) == (1, True, 1)

    run(go())


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00",
        b"",
    ],
)
def test_what_is_not_http_is_an_error_with_a_sentence(answer: bytes) -> None:
    async def write(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async def go() -> None:
        async with raw(write) as url, on(url) as client:
            with pytest.raises(EngineError, match=r"(broke the connection|cut its answer) off"):
                await client.post(CHAT, ASK)

    run(go())


def test_a_long_request_to_a_server_that_does_not_read_ends() -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(10_000)
        writer.close()

    async def go() -> None:
        server = await asyncio.start_server(ignore, "127.0.0.1", 0, limit=1)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with on(url, silence=30) as client:
            with pytest.raises(EngineError, match="sent nothing for 30 s"):
                await client.post(CHAT, {"text": "x" * (32 << 20)})
        server.close()
        await asyncio.sleep(20_000)

    run(go())


# ---------------------------------------------------------------- answers that are none


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault(body=b"<html>Sign in</html>", kind="text/html"), "text/html in place of JSON: is this the address"),
        (Fault(body=b"fine", kind="text/plain"), "text/plain in place of JSON"),
        (Fault(body=b"", kind="application/octet-stream"), "in place of JSON"),
        (Fault(status=204, body=b""), "broken JSON"),
        (Fault(body=b""), "broken JSON"),
        (Fault(body=b'{"choices": ['), "broken JSON"),
        (Fault(body=b"\xff\xfe{}"), "broken JSON"),
        (Fault(body=b"[" * 200_000), "broken JSON"),
        (Fault(body=b"1" * 100_000), "broken JSON"),
        (Fault(body=b'{"error": {"message": "out of memory", "code": 500}}'), "failed: out of memory"),
        (Fault(body=b'{"error": "out of memory"}'), "failed: out of memory"),
        (Fault(body=b'{"error": {"detail": ["out of memory"]}}'), "failed: .*out of memory"),
    ],
)
def test_a_200_that_is_no_answer_fails_and_is_not_repeated(fault: Fault, sentence: str) -> None:
    async def go(server: Server) -> Any:
        outcome = await posted(server)
        server.faults.append(fault)
        async with on(server.url) as client:
            events, failure = await ended(client)
        assert (events, str(failure)) == ([], str(outcome[0]))
        return outcome

    reply, sending, _ = faulty(fault)(go)
    assert type(reply) is EngineError
    assert re.search(sentence, str(reply))
    assert (sending.attempts, sending.open) == (1, True)


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-ndjson", "binary/octet-stream"])
def test_json_is_read_whatever_it_is_called(kind: str) -> None:
    assert faulty(Fault(body=b' {"a": [1]}', kind=kind))(posted)[0] == {"a": [1]}


@pytest.mark.parametrize("long", [True, False])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_an_answer_that_is_too_long_is_not_read_on(kind: str, long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 5000)
    body = b'data: {"a": "' + b"x" * (100_000 if long else 4000) + b'"}\n\n'
    fault = Fault(body=body if kind == "text/event-stream" else body[6:], kind=kind, piece=3000, pace=1.0)

    async def go(server: Server) -> None:
        async with on(server.url) as client:
            events, failure = await ended(client)
        await asyncio.sleep(2.0)
        assert (len(events), "more than" in str(failure), server.asked[0].closed) == (1 - long, long, long)

    faulty(fault)(go)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "no such model"}}', ": no such model"),
        (b'{"error": "no such model"}', ": no such model"),
        (b'{"detail": [{"msg": "no such model"}]}', ": no such model"),
        (b'{"message": "no such model"}', ": no such model"),
        (b'["no such model"]', ': ["no such model"]'),
        (b'"no such model"', ': "no such model"'),
        (b"null", ": null"),
        (b"no such\n   model", ": no such model"),
        (b"", ""),
        (b"\xff" * 5, ": " + "\ufffd" * 5),
        (b"x" * 1000, ": " + "x" * 300 + "..."),
        (b"x" * 300_000, ": " + "x" * 300 + "..."),
    ],
)
def test_a_refusal_is_told_in_the_server_s_words_shortened(body: bytes, words: str) -> None:
    reply = faulty(Fault(status=400, body=body))(posted)[0]
    assert str(reply).endswith(f"answered 400{words}")


def test_a_refusal_whose_words_do_not_come_is_one_all_the_same() -> None:
    async def go(server: Server) -> Any:
        return await posted(server, silence=5)

    kinds: tuple[Literal["cut", "hang"], ...] = ("cut", "hang")
    for then in kinds:
        reply, *_ = faulty(Fault(status=400, body=b"x" * 100, piece=10, after=3, then=then))(go)
        assert isinstance(reply, Refused)
        assert reply.status == 400


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    async def go() -> Any:
        async with Server() as other, Server() as server:
            server.faults.append(Fault(status=status, headers={"Location": other.url + "/" + CHAT}))
            reply, sending, _ = await posted(server)
            assert (other.seen, len(server.seen), sending.attempts, sending.open) == ([], 1, 1, False)
            return reply

    reply = run(go())
    assert isinstance(reply, Refused)
    assert "give the address that it moved to" in str(reply)


# ---------------------------------------------------------------- streams


async def streamed(*parts: bytes, kind: str = "text/event-stream", then: str = "end") -> tuple[list[Any], Any]:
    """The events in these pieces."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()

    async def write(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for part in parts:
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
            await asyncio.sleep(0.01)
        if then == "end":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        elif then == "hang":
            await asyncio.sleep(1000)

    async with raw(write) as url, on(url, silence=300) as client:
        before = asyncio.get_running_loop().time()
        outcome = await ended(client)
        assert asyncio.get_running_loop().time() - before < len(parts) + 5
        await asyncio.sleep(1001)
    return outcome


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"a": 1}\n\ndata: {"a": 2}\n\ndata: [DONE]\n\n',
        b'data:{"a":1}\n\ndata:{"a":2}\n\ndata:[DONE]\n\n',
        b'data: {"a": 1}\r\n\r\ndata: {"a": 2}\r\n\r\ndata: [DONE]\r\n\r\n',
        b': ping\n\nevent: x\nid: 7\nretry: 5\ndata: {"a": 1}\n\n: ping\n\n\n\ndata: {"a": 2}\n\n',
        b'data: {"a":\ndata: 1}\n\ndata: {"a": 2}\n\n',
        b'data: {"a": 1}\n\ndata: {"a": 2}',
        b'data: {"a": 1}\n\ndata: {"a": 2}\n\ndata: [DONE]\n\ndata: {"a": 3}\n\ndata: nonsense\n\n',
    ],
)
@pytest.mark.parametrize("size", [3, 11, 1000])
def test_events_are_read_however_they_are_written_and_cut_up(body: bytes, size: int) -> None:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    assert run(streamed(*parts)) == ([{"a": 1}, {"a": 2}], None)


def test_letters_may_be_cut_in_two() -> None:
    text = "žluťoučký 🐴 ﷽"
    body = f"data: {json.dumps(text, ensure_ascii=False)}\n\n".encode()
    assert run(streamed(*(body[place : place + 1] for place in range(len(body))))) == ([text], None)


@pytest.mark.parametrize("then", ["end", "hang", "cut"])
def test_a_stream_ends_with_its_mark_whatever_the_server_does_then(then: str) -> None:
    """Nobody waits for a server that has said all and keeps the connection open."""
    assert run(streamed(b"data: 1\n\ndata: [DONE]\n\n", then=then)) == ([1], None)


def test_an_error_between_events_ends_the_stream() -> None:
    events, failure = run(streamed(b"data: 1\n\n", b'data: {"error": {"message": "worker died"}}\n\n', b"data: 2\n\n"))
    assert (events, type(failure)) == ([1], EngineError)
    assert "failed: worker died" in str(failure)


def test_broken_json_between_events_ends_the_stream() -> None:
    events, failure = run(streamed(b"data: 1\n\n", b"data: {\n\n", b"data: 2\n\n"))
    assert (events, type(failure)) == ([1], EngineError)


def test_an_answer_that_is_no_stream_is_one_event() -> None:
    assert run(streamed(b'{"a": ', b"1}", kind="application/json")) == ([{"a": 1}], None)


# ---------------------------------------------------------------- connections


def test_a_thousand_requests_run_at_once() -> None:
    """None waits for another: the server answers only when all of them are there."""
    many_files()

    async def go() -> None:
        async with Server(gate=1000) as server:
            async with on(server.url) as client:
                replies = await together(*(client.post(CHAT, ASK) for _ in range(1000)))
            assert server.most == len(replies) == 1000
            assert {reply["usage"]["completion_tokens"] for reply in replies} == {4}
            assert server.made == 4000

    run(go())


@pytest.mark.parametrize("body", [ASK, STREAM])
def test_no_more_requests_run_at_once_than_allowed(body: dict[str, Any]) -> None:
    async def go() -> None:
        async with Server(always=Fault(before=1.0, pace=0.1)) as server, on(server.url, connections=7) as client:
            outcome = await together(*(ended(client, body) for _ in range(60)))
            assert all(failure is None for _, failure in outcome)
            assert (server.most, len(server.asked)) == (7, 60)

    run(go())


def test_a_connection_is_used_again() -> None:
    async def go() -> None:
        async with Server() as server, on(server.url) as client:
            for _ in range(5):
                await client.post(CHAT, ASK)
                await ended(client, STREAM)
                with pytest.raises(Refused):
                    await client.post(CHAT, {**ASK, "model": "other"})
            assert server.connections == 1

    run(go())


@pytest.mark.parametrize("fault", [HANG, Fault(piece=5, pace=10.0)])
@pytest.mark.parametrize("body", [ASK, STREAM])
def test_a_cancelled_request_closes_its_connection(fault: Fault, body: dict[str, Any]) -> None:
    async def go() -> None:
        async with Server(faults=[fault]) as server, on(server.url) as client:
            asking = asyncio.ensure_future(ended(client, body))
            await asyncio.sleep(15)
            assert server.running == 1
            asking.cancel()
            await asyncio.wait({asking})
            await asyncio.sleep(0.1)
            assert (asking.cancelled(), server.asked[0].closed, server.connections) == (True, True, 0)
            assert (await client.post(CHAT, ASK))["choices"]

    run(go())


def test_a_stream_that_is_left_closes_its_connection() -> None:
    async def go() -> None:
        async with Server(pace=1.0) as server, on(server.url) as client:
            events = client.events(CHAT, STREAM)
            await anext(events)
            await events.aclose()
            await asyncio.sleep(0.1)
            assert (server.asked[0].closed, server.connections) == (True, 0)

    run(go())


def test_what_is_cancelled_while_it_waits_for_its_turn_is_never_sent() -> None:
    async def go() -> None:
        async with Server(faults=[HANG]) as server, on(server.url, connections=1) as client:
            first, second = Sending(), Sending()
            tasks = [asyncio.ensure_future(client.post(CHAT, ASK, sending)) for sending in (first, second)]
            await asyncio.sleep(1)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert (first.open, second.open, second.attempts, len(server.asked)) == (True, False, 0, 1)
            assert (await client.post(CHAT, ASK))["choices"]

    run(go())


def test_what_is_cancelled_between_two_attempts_has_produced_nothing() -> None:
    async def go(server: Server) -> None:
        sending = Sending()
        async with on(server.url) as client:
            asking = asyncio.ensure_future(client.post(CHAT, ASK, sending))
            await asyncio.sleep(20)
            asking.cancel()
            await asyncio.wait({asking})
        assert (sending.attempts, sending.open) == (1, False)

    faulty(Fault(status=429, headers={"Retry-After": "40"}))(go)


def test_closing_closes_everything_and_is_no_end() -> None:
    async def go() -> None:
        async with Server() as server:
            client = Endpoint(server.url)
            await client.close()
            for _ in range(2):
                await together(*(client.post(CHAT, ASK) for _ in range(3)))
                await client.close()
                await client.close()
                await asyncio.sleep(0.1)
                assert server.connections == 0

    run(go())


def test_one_endpoint_serves_event_loops_one_after_the_other() -> None:
    """Even where nobody closes it, nothing is left open or remembered of a loop that has ended."""
    with threaded(Server()) as server:
        client = Endpoint(server.url)

        async def go() -> None:
            await together(*(client.post(CHAT, ASK) for _ in range(3)), *(ended(client, STREAM) for _ in range(3)))

        for _ in range(4):
            asyncio.run(go())
            gc.collect()
            assert client._lines == {}
        asyncio.run(client.close())
        assert len(server.asked) == 24


def test_an_event_loop_that_fails_leaves_nothing_open() -> None:
    with threaded(Server(faults=[HANG])) as server:
        client = Endpoint(server.url)

        async def go() -> None:
            await asyncio.wait_for(client.post(CHAT, ASK), 0.2)

        with pytest.raises(TimeoutError):
            asyncio.run(go())
        gc.collect()
        assert client._lines == {}


# ---------------------------------------------------------------- proxies and passwords of the environment


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine example.invalid login me password secret\nmachine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_proxy_of_the_environment_is_used_for_other_machines(environment: Any) -> None:
    async def go() -> None:
        async with Server() as server:
            environment.setenv("http_proxy", server.url.removesuffix("/v1").replace("//", "//user:word@"))
            async with on("http://example.invalid/v1") as client:
                assert (await client.post(CHAT, ASK))["choices"]
            (seen,) = server.seen
            assert seen.headers["Host"] == "example.invalid"
            assert seen.headers["Proxy-Authorization"].startswith("Basic ")
            assert "Authorization" not in seen.headers  # passwords of ~/.netrc are not sent

    run(go())


def test_this_machine_is_reached_without_a_proxy(environment: Any) -> None:
    async def go() -> None:
        async with Server() as server:
            environment.setenv("http_proxy", "http://127.0.0.1:9")
            async with on(server.url) as client:
                assert (await client.post(CHAT, ASK))["choices"]
            assert "Authorization" not in server.seen[0].headers

    run(go())


def test_connections_take_a_third_of_the_descriptors_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"soft": 21}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits["soft"], 1 << 20))

    async def go() -> int:
        async with Server(always=Fault(before=1.0)) as server:
            client = Endpoint(server.url)
            try:
                assert all(failure is None for _, failure in await together(*(ended(client, ASK) for _ in range(20))))
            finally:
                await client.close()
            return server.most

    assert run(go()) == 7
    limits["soft"] = 1 << 16
    assert run(go()) == 20
