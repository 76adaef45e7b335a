"""Requests that mean harm or make no sense: each gets its own error, and nobody's words are told to anybody else."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gzip
import hashlib
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import schemathesis.checks
from hypothesis import HealthCheck, seed, settings

from outthink.models.endpoint import Endpoint
from outthink.models.engine import Request
from outthink.models.openai.engine import OpenAIEngine
from outthink.rewards.making import Opened
from outthink.server.body import Sizes
from outthink.server.keys import Keys
from outthink.server.models import Served
from outthink.server.openapi import document
from outthink.server.routing import ServerRules
from outthink.strategies.making import make_strategy
from outthink.types import Usage
from tests.tools.server import ALL, BARE, FINE, Ask, Fault, Said, Server, run, says, threaded
from tests.tools.serving import CHAT, Answer, Header, asked, chat, command, connected, serving, written

FOUR = "The answer is 4."
PRIVATE = "my-private-words"  # part of every prompt here; no error and no log line may hold them
KEY = "ot-0123456789abcdefghij"
WRONG = "ot-9876543210zyxwvutsrq"
UPSTREAM_KEY = "sk-upstream-0123456789"
DEEP = 100_000
Asking = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _tells_nothing(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing of anybody's is logged, and no request is an internal error."""
    caplog.set_level(logging.DEBUG)
    yield
    told = [record.getMessage() for record in caplog.get_records("call")]
    for secret in (PRIVATE, KEY, WRONG, UPSTREAM_KEY):
        assert not [line for line in told if secret in line]
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING or record.exc_info]


def ask(text: str = "What is 2+2?", /, **fields: Any) -> dict[str, Any]:
    return chat(f"{text} {PRIVATE}", **fields)


class Standing:
    """Our server in front of one that says 4; both stand for all tests that only ask."""

    async def __aenter__(self) -> None:
        self._open = contextlib.AsyncExitStack()
        up = await self._open.enter_async_context(Server(says(FOUR)))
        self.url, _ = await self._open.enter_async_context(serving(up))

    async def __aexit__(self, *failure: object) -> None:
        await self._open.aclose()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with threaded(Standing()) as standing:
        yield standing.url


@pytest.fixture
def with_body(address: str) -> Asking:
    """What a body is answered; options as for `written`."""
    return lambda body, **how: asyncio.run(asked(address, body, **how))


def check(answer: Answer, status: int, code: str | None, param: str | None = None) -> str:
    """The sentence of an error that is this one."""
    error = answer.error
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
    assert (answer.status, error["type"], error["code"], error["param"]) == (status, kind, code, param)
    assert PRIVATE.encode() not in answer.body
    return str(error["message"])


# ---------------------------------------------------------------------------------------------------------- fields


def each(field: str, param: str, *wrong: Any) -> list[tuple[str, Any, str]]:
    return [(field, value, param) for value in wrong]


def wish(param: str, *wrong: Any) -> list[tuple[str, Any, str]]:
    return [("outthink", {param: value}, f"outthink.{param}") for value in wrong]


FIELDS = [
    *each("model", "model", 5, "", None, [], "\ud800", "m" * 600),
    *each("messages", "messages", "hi", {}, [], None, 1e308),
    *each("messages", "messages.0", [5]),
    *each("messages", "messages.0.role", [{"content": "hi"}], [{"role": "boss", "content": "hi"}]),
    *each("messages", "messages.0.content", [{"role": "user"}], [{"role": "user", "content": None}]),
    *each("messages", "messages.0.content", [{"role": "user", "content": 5}], [{"role": "user", "content": [5]}]),
    *each("messages", "messages.0.content.0", [{"role": "user", "content": [{"type": "text"}]}]),
    *each("messages", "messages.0.content.0", [{"role": "user", "content": [{"text": "hi"}]}]),
    *each("n", "n", "2", 0, -1, 1.5, 129, 10**30, True),
    *each("temperature", "temperature", "hot", -0.1, 2.1, True, 10**400),
    *each("top_p", "top_p", 0, 1.1, "all"),
    *each("max_tokens", "max_tokens", 0, -1, "many", 1.5, 10**20),
    *each("max_completion_tokens", "max_completion_tokens", 0, 10**20),
    *each("stream", "stream", "yes", 1),
    *each("stream_options", "stream_options", 5, {"include_usage": True}),
    *each("stop", "stop", 5, [5], ["x"] * 17),
    *each("seed", "seed", "lucky", 0.5, 2**70),
    *each("logprobs", "logprobs", "yes", 1),
    *each("top_logprobs", "top_logprobs", 21, 2),
    *each("tools", "tools", {}),
    *each("tools", "tools.0", [5]),
    *each("tool_choice", "tool_choice", 5),
    *each("response_format", "response_format", "json"),
    *each("reasoning_effort", "reasoning_effort", "enormous"),
    *each("outthink", "outthink", 5, [], "auto"),
    *wish("startegy", "auto"),
    *wish("strategy", 5, "x" * 200),
    *wish("n", 0, -1, 1025, 10**9, "4", 2.5),
    *each("outthink", "outthink.n", {"strategy": "greedy", "n": 3}),
    *wish("answer", "poem"),
    *wish("progress", "yes"),
    *wish("plan", 5, "/etc/passwd", "../plan.json", "good/../good"),
    *each("outthink", "outthink.plan", {"strategy": "greedy", "plan": "good"}),
    *wish("budget", 0, -1, [], "", "0-tokens", "-5s", "much", "5 cows", "1e999-tokens", "5s,6s", "5s" * 200),
    *each("outthink", "outthink.budget.tokens", *({"budget": {"tokens": wrong}} for wrong in (0, -1, "9", True))),
    *each("outthink", "outthink.budget.cows", {"budget": {"cows": 5}}),
]


@pytest.mark.parametrize(("field", "wrong", "param"), FIELDS, ids=str)
def test_a_wrong_field_is_named(field: str, wrong: Any, param: str, with_body: Asking) -> None:
    assert param.split(".")[-1] in check(with_body(ask(**{field: wrong})), 400, None, param)


def test_a_budget_that_is_too_small_names_the_least_that_would_do(with_body: Asking) -> None:
    said = check(
        with_body(ask(max_tokens=50, outthink={"budget": "10-tokens"})), 400, "budget_too_small", "outthink.budget"
    )
    least = int(re.findall(r"at least (\d+) tokens", said)[0])
    # as many as that are enough, and one less is not
    assert with_body(ask(max_tokens=50, outthink={"budget": {"tokens": least}})).content == FOUR
    assert with_body(ask(max_tokens=50, outthink={"budget": {"tokens": least - 1}})).status == 400


STRANGE = ["self_consistancy", "os:system", "outthink.planner.auto:Auto", "auto?plan=/etc/passwd", "auto?n=1000000"]


@pytest.mark.parametrize("name", [*STRANGE, "AUTO", "../../auto", "__class__", "auto+auto"])
@pytest.mark.parametrize("where", ["body", "model", "header"])
def test_only_names_of_the_table_are_strategies(name: str, where: str, with_body: Asking) -> None:
    if where == "body":
        answer = with_body(ask(outthink={"strategy": name}))
    elif where == "model":
        answer = with_body(ask(model=f"m+{name}"))
    else:
        answer = with_body(ask(), headers=[("X-Outthink-Strategy", name)])
    if where == "model" and "+" in name:
        check(answer, 404, "model_not_found", "model")
        return
    said = check(answer, 400, "no_strategy", "outthink.strategy")
    assert "did you mean 'self_consistency'?" in said if name == STRANGE[0] else re.search("did you mean|known: ", said)


SEARCH: list[tuple[str, Any]] = [
    ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ("response_format", {"type": "json_object"}),
    ("logprobs", True),
    ("stop", "\n"),
    ("presence_penalty", 0.5),
    ("unheard_of", 1),
    (
        "messages",
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}],
    ),
]


@pytest.mark.parametrize(("field", "value"), SEARCH, ids=[field for field, _ in SEARCH])
def test_step_search_names_the_field_that_it_cannot_honour(field: str, value: Any) -> None:
    async def go() -> tuple[Answer, list[Any]]:
        policy = ServerRules(strategy=make_strategy("auto"), scorers={"prm": "judge"})
        prm = Opened("judge", process=True)
        async with Server(says(FOUR)) as up, serving(up, policy=policy, scorers={"prm": prm}) as (url, _):
            return await asked(url, ask(**{"model": "m+rebase", field: value})), up.asked

    answer, sent = run(go())
    check(answer, 400, None, field)
    assert sent == []


def test_greedy_has_a_temperature_of_its_own(with_body: Asking) -> None:
    check(with_body(ask(model="m+greedy", temperature=0.5)), 400, None, "temperature")
    assert with_body(ask(model="m+greedy", temperature=0)).content == FOUR


@pytest.mark.parametrize("model", ["gpt-4", "m+none+none", "+none", "M", "m ", "../m", "http://evil.example/v1#m"])
def test_a_model_that_is_not_there(model: str, with_body: Asking) -> None:
    check(with_body(ask(model=model)), 404, "model_not_found", "model")


# ---------------------------------------------------------------------------------------------------------- bodies


def raw(inside: str | bytes = b"") -> bytes:
    """A body whose JSON is written by hand; a request that is right without `inside`."""
    inside = inside if isinstance(inside, bytes) else inside.encode()
    return json.dumps(ask()).encode()[:-1] + (b"," if inside else b"") + inside + b"}"


def nested(depth: int) -> bytes:
    return b'"tools":[{"a":' + b"[" * depth + b"]" * depth + b"}]"


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"model=m&messages=hi",
    "a list": b"[]",
    "null": b"null",
    "a string": b'"hi"',
    "cut off": raw()[:-1],
    "more behind it": raw() + raw(),
    "NaN": raw('"temperature":NaN'),
    "Infinity": raw('"presence_penalty":-Infinity'),
    "a number of 5,000 digits": raw(f'"n":{"9" * 5000}'),
    "no UTF-8": raw(b'"user":"\xff\xfe"'),
    "half a character": raw(b'"user":"\xe4\xbd"'),
    "deep": raw(nested(DEEP)),
    "deep and open": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a comment": raw() + b"// hi",
    "single quotes": b"{'model':'m'}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("path", [CHAT, "/v1/quote", "/v1/responses", "/v1/completions"])
def test_a_body_that_is_no_json_object(body: bytes, path: str, with_body: Asking) -> None:
    check(with_body(body, path=path), 400, "invalid_json")


def test_of_a_name_that_comes_twice_the_last_one_counts() -> None:
    async def go() -> tuple[Answer, list[Any]]:
        async with Server(says(FOUR)) as up, serving(up) as (url, _):
            return await asked(url, raw('"user":"one","user":"two","model":"m+none"')), up.asked

    answer, sent = run(go())
    assert answer.json["outthink"]["strategy"] == {"name": "none"}
    assert [seen.body["user"] for seen in sent] == ["two"]


def test_any_depth_is_answered_or_refused() -> None:
    async def go() -> set[int]:
        async with Server(says(FOUR)) as up, serving(up) as (url, _):
            return {(await asked(url, raw(nested(depth)))).status for depth in (1, 50, 500, *range(900, 1010))}

    assert run(go()) == {200, 400}


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_that_is_too_large_for_json_is_not_sent_on(number: str, with_body: Asking) -> None:
    check(with_body(raw(f'"presence_penalty":{number}')), 400, "invalid_json")


def test_a_body_in_another_encoding_of_unicode_is_read(with_body: Asking) -> None:
    assert with_body(json.dumps(ask()).encode("utf-16")).content == FOUR


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a/b;;=", ""]
)
def test_what_browsers_send_unasked_is_refused(kind: str, with_body: Asking) -> None:
    answer = with_body(ask(), headers=[("Content-Type", kind)] if kind else [], without=["Content-Type"])
    check(answer, 415, "unsupported_media_type")


LARGE = 1 << 20
ZIPPED: dict[str, tuple[bytes, str, int, str | None]] = {
    "gzip": (gzip.compress(raw()), "gzip", 200, None),
    "a small one that is large": (gzip.compress(raw(f'"user":"{"x" * 5 * LARGE}"')), "gzip", 413, "too_large"),
    "no gzip": (raw(), "gzip", 400, "invalid_body"),
    "cut gzip": (gzip.compress(raw())[:-12], "gzip", 400, "invalid_json"),
    "no deflate": (zlib.compress(raw())[5:], "deflate", 400, "invalid_body"),
}


@pytest.mark.parametrize(("body", "encoding", "status", "code"), ZIPPED.values(), ids=ZIPPED.keys())
def test_a_body_that_is_packed(body: bytes, encoding: str, status: int, code: str | None) -> None:
    async def go() -> Answer:
        async with Server(says(FOUR)) as up, serving(up, settings={"sizes": Sizes(text=LARGE)}) as (url, _):
            return await asked(url, body, headers=[("Content-Encoding", encoding)])

    answer = run(go())
    assert answer.status == status
    if code is not None:
        check(answer, status, code)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(chunked: bool) -> None:
    async def go() -> tuple[Answer, Answer, list[Any]]:
        async with Server(says(FOUR)) as up, serving(up, settings={"sizes": Sizes(text=LARGE)}) as (url, service):
            body = raw(f'"user":"{"x" * LARGE}"')
            fits = raw(f'"user":"{"x" * (LARGE - len(raw()) - 10)}"')
            assert len(fits) == LARGE
            answers = []
            for data in (body, fits):
                if chunked:
                    data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
                    head: list[Header] = [("Transfer-Encoding", "chunked")]
                    answers.append(await asked(url, data, headers=head, without=["Content-Length"]))
                else:
                    answers.append(await asked(url, data))
            assert service.bodies.held == 0
            return answers[0], answers[1], up.asked

    refused, answered, sent = run(go())
    assert check(refused, 413, "too_large") == "The text of the request is larger than 1 MB; shorten it."
    assert answered.content == FOUR
    assert len({seen.body["user"] for seen in sent}) == 1


# ---------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_another_method(method: str, with_body: Asking) -> None:
    if method == "HEAD":
        answer = with_body(None, method=method)
        assert (answer.status, answer.body) == (405, b"")
    else:
        answer = with_body(None, method=method)
        check(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert not {name for name in answer.headers if name.startswith("access-control")}  # so a preflight says no


@pytest.mark.parametrize("path", ["/health", "/metrics", "/openapi.json", "/v1/models", "/v1/models/m"])
def test_what_is_only_read(path: str, with_body: Asking) -> None:
    answer = with_body(b"hi", path=path)
    check(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/embeddings",
        "/v1/files",
        "/../../etc/passwd",
        "/v1/chat/completions/x",
        "/%00",
        "//",
    ],
)
def test_another_path(path: str, with_body: Asking) -> None:
    check(with_body(ask(), path=path), 404, "not_found")


def test_a_model_that_is_not_listed(with_body: Asking) -> None:
    check(with_body(None, method="GET", path="/v1/models/m+nothing"), 404, "model_not_found")
    assert with_body(None, method="GET", path="/v1/models/m+none").json["id"] == "m+none"


GOOD = ["localhost", "LOCALHOST", "LocalHost:8000", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8000", "192.168.0.7"]
BAD = [
    *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example@x", ""),
    *("localhost@evil.example", "localhost:abc", "localhost:99999", "a b", "127.1", "2130706433", "localhost/", "\xff"),
]


@pytest.mark.parametrize("host", GOOD + BAD)
def test_without_keys_only_this_machine_s_own_names_are_answered(host: str, with_body: Asking) -> None:
    answer = with_body(ask(), headers=[("Host", host)], without=["Host"])
    if host in GOOD:
        assert answer.content == FOUR
    else:
        check(answer, 421, "wrong_host")
    listed = with_body(None, method="GET", path="/v1/models", headers=[("Host", host)], without=["Host"])
    assert listed.status == answer.status


def test_the_name_that_it_listens_on_is_its_own() -> None:
    async def go() -> list[int]:
        statuses = []
        async with Server(says(FOUR)) as up, serving(up, settings={"host": "localhost"}) as (url, service):
            service._guard._host = "Box.example"
            for host in ("box.example:8000", "BOX.example", "other.example"):
                answer = await asked(url, ask(), headers=[("Host", host)], without=["Host"])
                statuses.append(answer.status)
        return statuses

    assert run(go()) == [200, 200, 421]


# ---------------------------------------------------------------------------------------------------------- headers

AUTHORIZATIONS: dict[str, tuple[list[Header], bool]] = {
    "right": ([("Authorization", f"Bearer {KEY}")], True),
    "in lower case": ([("authorization", f"bearer {KEY}")], True),
    "none": ([], False),
    "empty": ([("Authorization", "")], False),
    "wrong": ([("Authorization", f"Bearer {WRONG}")], False),
    "nearly": ([("Authorization", f"Bearer {KEY[:-1]}")], False),
    "longer": ([("Authorization", f"Bearer {KEY}x")], False),
    "two in one": ([("Authorization", f"Bearer {KEY}, Bearer {KEY}")], False),
    "no scheme": ([("Authorization", KEY)], False),
    "Basic": ([("Authorization", f"Basic {KEY}")], False),
    "Token": ([("Authorization", f"Token {KEY}")], False),
    "wrong and right": ([("Authorization", f"Bearer {WRONG}"), ("Authorization", f"Bearer {KEY}")], False),
    "right and wrong": ([("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {WRONG}")], False),
    "no text": ([("Authorization", b"Bearer \xff\xfe")], False),
    "elsewhere": ([("X-Api-Key", KEY), ("Cookie", f"key={KEY}")], False),
    "its hash": ([("Authorization", f"Bearer {hashlib.sha256(KEY.encode()).hexdigest()}")], False),
}


@pytest.mark.parametrize(("headers", "right"), AUTHORIZATIONS.values(), ids=AUTHORIZATIONS.keys())
def test_a_key_is_demanded_once_and_whole(headers: list[Header], right: bool) -> None:
    async def go() -> None:
        keys = Keys({"ann": hashlib.sha256(KEY.encode()).digest()})
        async with Server(says(FOUR)) as up, serving(up, keys=keys) as (url, _):
            for method, path, body in (
                ("POST", CHAT, ask()),
                ("POST", "/v1/quote", ask()),
                ("POST", "/v1/responses", {"model": "m", "input": PRIVATE}),
                ("POST", "/v1/completions", {"model": "m", "prompt": PRIVATE}),
                ("GET", "/v1/models", None),
                ("GET", "/metrics", None),
                ("GET", "//v1/models", None),
                ("GET", "/%761/models", None),
            ):
                answer = await asked(url, body, method=method, path=path, headers=headers)
                if right:
                    assert answer.status in (200, 404, 403 if path == "/metrics" else 200)
                else:
                    said = check(answer, 401, "invalid_api_key")
                    assert "key" in said
                    assert KEY not in said
                    assert answer.headers["www-authenticate"] == "Bearer"
            assert bool(up.asked) == right
            assert (await asked(url, None, method="GET", path="/health")).status == 200

    run(go())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Outthink-N", "three"),
        ("X-Outthink-N", "0x4"),
        ("X-Outthink-N", "9" * 5000),
        ("X-Outthink-N", "-1"),
        ("X-Outthink-N", ""),
        ("X-Outthink-Budget", "much"),
        ("X-Outthink-Budget", "0-tokens"),
        ("X-Outthink-Plan", "/etc/passwd"),
        ("X-Outthink-Plan", b"\xff"),
        ("X-Outthink-Answer", "poem"),
        ("X-Outthink-Strategy", b"\xff\xfe"),
        ("X-Outthink-Strategy", "x" * 200),
    ],
)
def test_a_wrong_header_is_named(name: str, value: str | bytes, with_body: Asking) -> None:
    answer = with_body(ask(), headers=[(name, value)])
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert name.rpartition("-")[2].lower() in answer.error["param"].lower()


@pytest.mark.parametrize(
    "inside",
    [
        b"X-Outthink-Strategy: none\rX-Other: 1",
        b"X-Outthink-Strategy: none\nX-Other: 1",
        b"X-Outthink-Strategy: none\0",
        b"X-Outthink-Strategy : none",
        b"X-Outthink-Strategy: none\r\n folded",
        b"X Outthink: none",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Host: localhost",
        b"X-Long: " + b"9" * 100_000,
        b"\r\n".join(b"X-%d: 1" % number for number in range(1000)),
    ],
    ids=lambda inside: inside[:30].decode(),
)
def test_a_head_that_is_not_http_says_400_and_ends_the_connection(inside: bytes) -> None:
    async def go() -> tuple[bytes, list[Any]]:
        async with Server(says(FOUR)) as up, serving(up) as (url, _):
            reader, writer = await connected(url)
            writer.write(written(url, ask()).replace(b"\r\n\r\n", b"\r\n" + inside + b"\r\n\r\n", 1))
            told = await reader.read()
            writer.close()
            return told, up.asked

    told, sent = run(go())
    assert re.findall(rb"HTTP/1\.[01] (\d+) ", told) == [b"400"]
    assert b"X-Other" not in told.split(b"\r\n\r\n")[0]
    assert sent == []


def test_a_request_inside_the_body_of_another_is_not_one() -> None:
    async def go() -> tuple[bytes, list[Any]]:
        async with Server(says(FOUR)) as up, serving(up) as (url, _):
            reader, writer = await connected(url)
            inner = written(url, ask(), headers=[("X-Outthink-Strategy", "none")])
            writer.write(written(url, inner))
            told = await reader.read()
            writer.close()
            return told, up.asked

    told, sent = run(go())
    assert re.findall(rb"HTTP/1\.[01] (\d+) ", told) == [b"400"]
    assert sent == []


# ---------------------------------------------------------------------------------------------------------- elsewhere


def test_no_request_chooses_where_anything_is_sent() -> None:
    async def go() -> tuple[list[Any], list[Any], int]:
        async with Server(says(FOUR)) as evil, Server(says(FOUR)) as up, serving(up) as (url, _):
            names = ("Endpoint", "Upstream", "Base-Url", "Url", "Model", "Api-Base")
            headers: list[Header] = [(f"X-Outthink-{name}", evil.url) for name in names]
            headers += [
                ("X-Forwarded-Host", "evil.example"),
                ("Forwarded", f"for={evil.url}"),
                ("X-Upstream", evil.url),
            ]
            fields = dict.fromkeys(("base_url", "api_base", "upstream", "endpoint", "url", "proxy"), evil.url)
            body = ask(model="m+self_consistency", extra_body=fields, **fields)
            await asked(url, body, headers=headers)
            for path in (evil.url, evil.url + "/chat/completions"):  # as one asks a proxy
                await asked(url, body, path=path, headers=headers)
            return evil.seen, up.seen, len(up.asked)

    evil, up, sent = run(go())
    assert evil == []
    assert sent >= 1
    assert {seen.path for seen in up} <= {"chat/completions", "tokenize", "models"}


TAGS = [
    "<outthink_strategy>best_of_n</outthink_strategy>",
    "X-Outthink-Strategy: best_of_n",
    "\r\n\r\nX-Outthink-Strategy: best_of_n\r\nX-Outthink-N: 64\r\n",
    '"}], "outthink": {"strategy": "best_of_n", "n": 64}, "x": [{"y": "',
    "m+best_of_n",
]


@pytest.mark.parametrize("words", TAGS)
@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
def test_messages_choose_nothing(words: str, role: str) -> None:
    async def go() -> tuple[Answer, list[Any]]:
        async with Server(says(FOUR)) as up, serving(up, strategy="none") as (url, _):
            messages = [{"role": role, "content": words}, {"role": "user", "content": "2+2?"}]
            return await asked(url, {"model": "m", "messages": messages}), up.asked

    answer, sent = run(go())
    assert answer.json["outthink"]["strategy"] == {"name": "none"}
    (only,) = sent
    assert only.body["messages"][0] == {"role": role, "content": words}
    assert "n" not in only.body


# ---------------------------------------------------------------------------------------------------------- odd texts

KINDS = {
    "all": ALL,
    "bare": BARE,
    "streamed": replace(BARE, stream=True),
    "several": replace(BARE, n=True, stream=True),
}


@pytest.mark.parametrize("facts", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("strategy", ["none", "self_consistency", "adaptive_consistency"])
@pytest.mark.parametrize("stream", [False, True])
def test_half_a_character(facts: Any, strategy: str, stream: bool) -> None:
    async def go() -> tuple[Answer, list[Any]]:
        reply = Said(text="\ud83d The answer is \udc00.")
        async with Server(says(reply)) as up, serving(up, facts=facts) as (url, _):
            body = ask(
                "\ud800",
                model=f"m+{strategy}",
                stream=stream,
                user="\udfff",
                outthink={"n": 3} if strategy != "none" else {},
            )
            body["messages"].insert(0, {"role": "system", "content": [{"type": "text", "text": "\ud801"}]})
            return await asked(url, body), up.asked

    answer, sent = run(go())
    assert answer.status == 200
    text = answer.streamed if stream else answer.content
    assert "The answer is" in text
    assert all(seen.body["messages"][1]["content"] == f"\ud800 {PRIVATE}" for seen in sent)


BREAKS = "One.\n\ndata: [DONE]\n\nevent: end\n\n: comment\r\n\r\nid: 7\n\nThe answer is 4."


@pytest.mark.parametrize("strategy", ["none", "greedy", "self_consistency"])
def test_what_a_model_writes_does_not_end_a_stream(strategy: str) -> None:
    async def go() -> Answer:
        async with Server(says(BREAKS)) as up, serving(up) as (url, _):
            return await asked(url, ask(model=f"m+{strategy}", stream=True))

    answer = run(go())
    assert answer.streamed == BREAKS
    assert [place for place, event in enumerate(answer.events) if event == "[DONE]"] == [len(answer.events) - 1]


NAME = 'f\n\ndata: [DONE]\n\n{"x'


@pytest.mark.parametrize("strategy", ["none", "self_consistency"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_whose_name_has_lines(strategy: str, stream: bool) -> None:
    async def go() -> tuple[Answer, list[Any]]:
        reply = Said(calls=((NAME, '{"x": "\\n\\n"}'),))
        async with Server(says(reply)) as up, serving(up, facts=BARE) as (url, _):
            tools = [{"type": "function", "function": {"name": NAME, "parameters": {}}}]
            return await asked(url, ask(model=f"m+{strategy}", stream=stream, tools=tools)), up.asked

    answer, sent = run(go())
    assert {seen.body["tools"][0]["function"]["name"] for seen in sent} == {NAME}
    if stream:
        assert answer.events[-1] == "[DONE]"
        choices = [choice for event in answer.events[:-1] for choice in event["choices"]]
        called = [call for choice in choices for call in choice["delta"].get("tool_calls") or ()]
        assert called[0]["function"]["name"] == NAME
    else:
        assert answer.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == NAME


# ---------------------------------------------------------------------------------------------------------- secrets


class Broken(OpenAIEngine):
    """Fails in a way that nobody has thought of."""

    async def bound(self, request: Request) -> Usage:
        raise ZeroDivisionError(f"{request.messages} {KEY}")


def test_an_error_of_the_server_says_where_it_was_and_not_what_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> Answer:
        async with Server(says(FOUR)) as up:
            served = Served({"m": Broken(Endpoint(up.url), ALL)})
            async with serving(up, served=served) as (url, _):
                return await asked(url, ask())

    answer = run(go())
    assert (answer.status, answer.error["type"], answer.error["code"]) == (500, "server_error", "internal")
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert re.match(r"ZeroDivisionError at test_hostile.py:\d+ < job.py:\d+", line)
    assert PRIVATE not in line + answer.body.decode()
    caplog.clear()


def telling(ask: Ask) -> str:
    return f"{ask.messages[-1][1]} The answer is 4."


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(status=400, body=json.dumps({"error": {"message": f"no {UPSTREAM_KEY}"}}).encode()), 400),
        (Fault(status=401, body=f"Incorrect API key provided: {UPSTREAM_KEY}".encode(), kind="text/plain"), 502),
        (Fault(status=500, body=f"key {UPSTREAM_KEY}".encode(), kind="text/plain"), 503),
        (Fault(body=f"<html>{UPSTREAM_KEY}</html>".encode(), kind="text/html"), 502),
        (Fault(body=json.dumps({"error": UPSTREAM_KEY}).encode()), 502),
        (Fault(body=b'{"choices": 5}'), 502),
        (Fault(status=302, headers={"Location": f"http://evil.example/{UPSTREAM_KEY}"}), 502),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_upstream_s_key_is_told_to_nobody(
    fault: Fault, status: int, stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> Answer:
        async with Server(says(FOUR), key=UPSTREAM_KEY, always=fault) as up:
            file = tmp_path / "keys.toml"
            file.touch(mode=0o600)
            file.write_text(f'"{up.url.split("/")[2]}" = "{UPSTREAM_KEY}"\n', encoding="utf-8")
            monkeypatch.setenv("OUTTHINK_KEYS", str(file))
            async with serving(up, patience={"attempts": 2}) as (url, _):
                return await asked(url, ask(model="m+none", stream=stream))

    answer = run(go())
    assert answer.status == status
    assert answer.error
    assert UPSTREAM_KEY.encode() not in answer.body


def test_the_command_s_log_tells_nothing(tmp_path: Path) -> None:
    async def go() -> tuple[str, list[int]]:
        said = Fault(status=400, body=json.dumps({"error": {"message": f"{UPSTREAM_KEY} {PRIVATE}"}}).encode())
        async with Server(telling, key=UPSTREAM_KEY) as up:
            mine, theirs = tmp_path / "mine", tmp_path / "theirs"
            for file, held in (
                (mine, f'"{up.url.split("/")[2]}" = "{UPSTREAM_KEY}"\n'),
                (theirs, f"ann {hashlib.sha256(KEY.encode()).hexdigest()}\n"),
            ):
                file.touch(mode=0o600)
                file.write_text(held, encoding="utf-8")
            options = ("--api-key-file", str(theirs), "--record", str(tmp_path / "record"))
            async with command(tmp_path, up.url, *options, OUTTHINK_KEYS=str(mine)) as running:
                statuses = []
                for key, fault, body in (
                    (KEY, FINE, ask(model="m+self_consistency")),
                    (KEY, FINE, ask(stream=True)),
                    (WRONG, FINE, ask()),
                    (KEY, FINE, ask(model=PRIVATE)),
                    (KEY, FINE, ask(outthink={"strategy": PRIVATE})),
                    (KEY, said, ask()),
                    (KEY, FINE, raw(PRIVATE)),
                ):
                    up.always = fault
                    headers: list[Header] = [("Authorization", f"Bearer {key}")]
                    answer = await asked(running.url, body, headers=headers)
                    statuses.append(answer.status)
                    assert UPSTREAM_KEY.encode() not in answer.body
                running.process.terminate()
                assert await running.process.wait() == 0
            return "".join(running.told), statuses

    told, statuses = asyncio.run(go())
    assert statuses == [200, 200, 401, 404, 400, 400, 400]
    assert told.count("chatcmpl-") == 3
    for secret in (PRIVATE, KEY, WRONG, UPSTREAM_KEY):
        assert secret not in told


# --------------------------------------------------------------------------------------------------------- the document


def narrowed() -> dict[str, Any]:
    """The document with such names and amounts that requests often get as far as the model."""
    narrow = copy.deepcopy(document())
    schemas = narrow["components"]["schemas"]
    strategies = ["none", "auto", "greedy", "mbr", "self_consistency", "adaptive_consistency", None]
    for body in ("ChatRequest", "ResponseRequest", "CompletionRequest"):
        schemas[body]["properties"]["model"] = {"enum": ["m", "m+none", "m+self_consistency"]}
    schemas["Wish"]["properties"] |= {
        "strategy": {"enum": strategies},
        "n": {"enum": [1, 2, 3, None]},
        "plan": {"enum": [None]},
        "budget": {"enum": ["20k-tokens", "5s", "9-tokens", {"tokens": 30_000}, None]},
    }
    headers = {"X-Outthink-Answer": ["math", "text"], "X-Outthink-Budget": ["20k-tokens,5s", "9-tokens"]}
    for path in (CHAT, "/v1/quote", "/v1/responses", "/v1/completions"):
        asking = narrow["paths"][path]["post"]
        asking["parameters"] = [
            {**parameter, "schema": {"enum": headers[parameter["name"]]}}
            for parameter in asking["parameters"]
            if parameter["name"] in headers
        ]
    return narrow


SCHEMA = schemathesis.openapi.from_dict(narrowed())
SCHEMA.config.phases.examples.enabled = SCHEMA.config.phases.coverage.enabled = False  # they take a minute
# a request may be as the document says and still ask for what cannot be; unknown headers and fields are nobody's error
UNCHECKED = [schemathesis.checks.positive_data_acceptance, schemathesis.checks.negative_data_rejection]


@SCHEMA.parametrize()
@seed(1)
@settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_the_document_says(case: schemathesis.Case[Any], address: str) -> None:
    """No answer has a status, a type or a form that the document does not have, and none is an error of the server."""
    answer = case.call(base_url=address)
    assert answer.status_code < 500
    case.validate_response(answer, excluded_checks=UNCHECKED)
