"""Errors say what went wrong, and neither a secret nor, to callers of the server, where the upstream is."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

import outthink
from outthink.errors import EngineError, OutthinkError, Refused, UnknownName, UsageError, Withheld
from outthink.models.endpoint import Endpoint, Patience, shown
from outthink.server import problems
from tests.tools.server import BARE, HANG, Fault, NetworkLoop, Server, engine_on, raw, run
from tests.tools.serving import Answer, asked, chat, serving


def answer_of(url: str, **patience: Any) -> Answer:
    """What a caller of the server is told whose upstream is at `url`."""

    async def go() -> Answer:
        async with serving(url, facts=BARE, patience={"attempts": 1, "silence": 5, "connect": 5, **patience}) as (
            ours,
            _,
        ):
            return await asked(ours, {**chat(), "model": "m+none"})

    return run(go())


def behind(server: Server) -> tuple[Answer, str]:
    """The same of a server that is there, and its address."""

    async def go() -> tuple[Answer, str]:
        patience = {"attempts": 1, "silence": 5}
        async with server, serving(server, facts=BARE, patience=patience) as (ours, _):
            return await asked(ours, {**chat(), "model": "m+none"}), server.url

    return run(go())


def discreet(answer: Answer, *places: str) -> str:
    message = str(answer.error["message"])
    assert answer.status >= 400
    for place in (*places, "127.0.0.1", "localhost", "::1", "http:", "https:", "10.0.0.7", "hunter2"):
        assert place not in message, message
    return message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_server_that_is_not_there(host: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    caplog.set_level(logging.INFO)
    message = discreet(answer_of(f"http://{host}:{port}/v1"), str(port))
    assert "cannot be reached" in message
    assert str(port) not in caplog.text


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(self: Any, host: str, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, f"Name or service not known: {host}")

    async def go() -> str:
        endpoint = Endpoint("http://models.internal:8123/v1", patience=Patience(attempts=1))
        with pytest.raises(Refused) as failure:
            await endpoint.get("models")
        await endpoint.close()
        return problems.problem(failure.value).sentence

    monkeypatch.setattr(NetworkLoop, "getaddrinfo", unknown)
    sentence = run(go())
    assert "internal" not in sentence
    assert "8123" not in sentence
    assert "nobody knows the name of its host" in sentence


def test_a_server_that_cannot_be_trusted() -> None:
    """It speaks no TLS."""

    async def go() -> Answer:
        async with Server() as server:
            url = server.url.replace("http:", "https:")
            async with serving(url, facts=BARE, patience={"attempts": 1}) as (ours, _):
                return await asked(ours, {**chat(), "model": "m+none"})

    assert "cannot be reached" in discreet(run(go()))


def in_words(text: Callable[[str], str], status: int = 400) -> Answer:
    """An upstream that says where it is in its own words."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        host = next(line for line in head.decode().splitlines() if line.lower().startswith("host:")).split()[1]
        body = json.dumps({"error": {"message": text(host)}}).encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n" % status)
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    async def go() -> Answer:
        async with raw(answer) as url, serving(url, facts=BARE, patience={"attempts": 1}) as (ours, _):
            return await asked(ours, {**chat(), "model": "m+none"})

    return run(go())


@pytest.mark.parametrize("status", [200, 400, 404, 429, 500, 503])
@pytest.mark.parametrize(
    "words",
    [
        "no worker at {}",
        "no worker at http://{}/v1/chat and http://{}/v1/models",
        "Connect call failed ('127.0.0.1', 18101)",
        "Cannot connect to host localhost:8000 ssl:default [Connection refused]",
        "upstream 10.0.0.7:9000 is down, and so is 10.0.0.7",
        "upstream [::1]:9000 is down",
        "go to https://me:hunter2@10.0.0.7/login?key=hunter2",
        "redis://:hunter2@10.0.0.7:6379 is down",
        "me:hunter2@worker is down",
    ],
)
def test_what_an_upstream_says_of_its_place_is_not_passed_on(words: str, status: int) -> None:
    answer = in_words(lambda host: words.replace("{}", host), status)
    message = discreet(answer)
    assert "18101" not in message
    assert "9000" not in message
    assert "6379" not in message


@pytest.mark.parametrize(
    "server",
    [
        Server(always=HANG),
        Server(always=Fault(piece=40, after=1)),
        Server(always=Fault(piece=40, after=1, then="hang")),
        Server(always=Fault(status=302, headers={"Location": "http://10.0.0.7/login"})),
        Server(always=Fault(status=401, body=b'{"error": "http://10.0.0.7 does not know hunter2"}')),
        Server(always=Fault(status=504, body=b"<h1>nginx at 10.0.0.7</h1>", kind="text/html")),
        Server(always=Fault(body=b"<html>", kind="text/html")),
        Server(always=Fault(body=b"{")),
        Server(always=Fault(body=b"null")),
        Server(always=Fault(body=b'{"choices": []}')),
        Server(always=Fault(body=b'{"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]}')),
        Server(always=Fault(body=b'{"choices": [{"message": {"content": "x"}, "finish_reason": "error"}]}')),
    ],
    ids=["silent", "cut", "hung", "moved", "401", "504", "page", "broken", "null", "empty", "filtered", "failed"],
)
def test_no_fault_tells_where_the_upstream_is(server: Server) -> None:
    answer, url = behind(server)
    discreet(answer, url.split("/")[2].split(":")[1])


def test_no_kind_of_error_tells_where_the_upstream_is() -> None:
    place = "http://models.internal:8123/v1"
    for kind in (EngineError, Refused, Withheld, UsageError):
        sentence = problems.problem(kind(f"{place} failed, and {place} is sorry.")).sentence
        assert "internal" not in sentence
    assert "internal" not in problems.problem(UnknownName(f"model at {place}", "x", ["y"])).sentence


@pytest.mark.parametrize(
    "wait", ["inf", "1e400", "1e308", "9" * 500, "nan", "-1", "1e9", "Fri, 31 Dec 9999 23:59:59 GMT"]
)
def test_a_wait_without_end_is_passed_on_as_one_that_has_one(wait: str) -> None:
    answer, _ = behind(Server(always=Fault(status=429, headers={"Retry-After": wait})))
    assert (answer.status, answer.error["code"]) == (429, "upstream_rate_limit")
    assert 1 <= int(answer.headers["retry-after"]) <= 86400


@pytest.mark.parametrize("retry", [float("inf"), float("nan"), 1e308, -5.0, 0.0])
def test_no_wait_breaks_a_reply(retry: float) -> None:
    problem = problems.APIError(status=429, sentence="x", kind="rate_limit_error", retry=retry)
    assert all(1 <= int(wait) <= 86400 for wait in problem.headers().values())


SECRETS = [
    "user:hunter2@host/v1",
    "user:hunter2@host:8000/v1#m",
    "//user:hunter2@host/v1",
    "ftp://user:hunter2@host/v1",
    "HTTP://user:hunter2@host/v1",
    "http://user:hunter2@host/v1",
    "http://user:hunt@er2@host/v1",
    "https:/user:hunter2@host/v1",
    ":hunter2@host",
    "host/v1?key=hunter2",
    "http://host/v1?key=hunter2",
    "http://us er:hunter2@host/v1",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_password_in_an_address_is_never_repeated(name: str) -> None:
    with pytest.raises(OutthinkError) as failure:
        outthink.open_engine(name)
    assert "hunter2" not in str(failure.value)
    assert "er2" not in str(failure.value)
    assert "hunter2" not in shown(name)


def test_words_about_the_server_lose_its_place_and_keep_the_rest() -> None:
    endpoint = Endpoint("http://models.internal:8123/v1")
    for words in (
        "http://models.internal:8123/v1 failed",
        "models.internal:8123 failed",
        "models.internal failed",
        "MODELS.INTERNAL:99 failed",
    ):
        assert endpoint.clean(words) == "the server failed"
    assert endpoint.clean("a model.internal and models.internals") == "a model.internal and models.internals"
    assert endpoint.clean("see http://me:pw@proxy/ now") == "see http://proxy/ now"


def test_a_caller_hears_of_no_engine_s_address() -> None:
    async def go() -> None:
        async with Server() as server:
            engine = engine_on(server, BARE)
            assert server.url not in repr(engine.spec)
            await engine.close()

    run(go())
