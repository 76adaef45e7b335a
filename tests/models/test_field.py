"""What servers really send, kind by kind: our own lines, and those of the shared file where it is there.

Each line is sent by a real server on this machine; what Outthink makes of it is compared with what is right.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from outthink.errors import EngineError, Refused, Withheld
from outthink.models.endpoint import Endpoint, Patience
from outthink.models.engine import Completion, Progress
from outthink.models.facts import Facts
from outthink.models.openai.engine import OpenAIEngine
from outthink.models.probe import probe
from outthink.types import Usage
from tests.tools.server import BARE, ask_for, engine_on, generated, run
from tests.tools.serving import asked, chat, serving

STREAMED = replace(BARE, stream=True)
OWN = Path(__file__).parent / "data" / "endpoints.jsonl"
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
Reply = tuple[int, str, bytes]


def own(kind: str) -> list[Any]:
    lines = [json.loads(line) for line in OWN.read_text(encoding="utf-8").splitlines()]
    chosen = [line for line in lines if line["kind"] == kind]
    assert len(chosen) >= 5
    return chosen


def shared(kind: str) -> list[Any]:
    """The lines of the shared file, which not everybody has."""
    folder = Path(os.environ.get("OUTTHINK_SHARED") or Path(__file__).parents[2].parent / "shared")
    file = folder / "field" / "endpoints.jsonl"
    if not file.exists():
        return []
    return [line for line in map(json.loads, file.read_text(encoding="utf-8").splitlines()) if line["kind"] == kind]


def each(lines: Sequence[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("line", lines, ids=[f"{place}" for place in range(len(lines))])


@contextlib.asynccontextmanager
async def upstream(answer: Callable[[str, Any], Reply]) -> AsyncIterator[tuple[str, list[Any]]]:
    """The address of a server that answers each request with a status, a content type and a body; what it was sent."""
    sent: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        body = json.loads(await request.read() or b"null")
        path = request.path.removeprefix("/v1/")
        if path.endswith("completions"):
            sent.append(body)
        status, kind, data = answer(path, body)
        return web.Response(status=status, body=data, headers={"Content-Type": kind})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", sent
    finally:
        await runner.cleanup()


def always(*replies: Reply) -> Callable[[str, Any], Reply]:
    left = list(replies)
    return lambda path, body: left.pop(0) if len(left) > 1 else left[0]


def document(body: Any, status: int = 200) -> Reply:
    return status, "application/json", body if isinstance(body, bytes) else json.dumps(body).encode()


def stream(*events: Any, done: bool = True) -> Reply:
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return 200, "text/event-stream", data + (DONE if done else b"")


def piece(delta: Any = None, finish: Any = None, **more: Any) -> Any:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}


def whole(message: Any, finish: Any = "stop", usage: Any = USAGE) -> Any:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}


def drawn(reply: Reply, facts: Facts = STREAMED, **options: Any) -> tuple[Any, Progress, Usage]:
    """The result of one sample, what is known of it, and its bound."""

    async def go() -> tuple[Any, Progress, Usage]:
        async with upstream(always(reply)) as (url, _):
            engine = engine_on(url, facts, attempts=1)
            request = ask_for(**{"max_tokens": 300, **options})
            progress = await generated(engine, request)
            bound = await engine.bound(request)
            await engine.close()
            return progress.results[0], progress, bound

    return run(go())


def served(reply: Reply, **fields: Any) -> Any:
    """The answer of `outthink serve` in front of that server."""

    async def go() -> Any:
        async with (
            upstream(always(reply)) as (url, _),
            serving(url, facts=STREAMED, patience={"attempts": 1}) as (ours, _service),
        ):
            return await asked(ours, {**chat(**fields), "model": "m+none"})

    return run(go())


def called(result: Any) -> list[Any]:
    """The name and the arguments of each call, the arguments as a value."""
    assert isinstance(result, Completion), result
    assert result.sent is not None
    message = result.sent["message"]
    calls = [call["function"] for call in message.get("tool_calls", ())]
    calls += [message["function_call"]] if "function_call" in message else []
    return [[call["name"], value(call["arguments"])] for call in calls]


def value(arguments: Any) -> Any:
    return json.loads(arguments) if isinstance(arguments, str) and arguments else arguments


def right(calls: Any) -> Any:
    return [[name, value(arguments)] for name, arguments in calls]


# ---------------------------------------------------------------- E1 to E4: what a message holds

MESSAGES = [
    *(
        {"deltas": [{"tool_calls": piece} for piece in line["upstream_stream_pieces"]], "calls": line["right"]}
        for kind in ("E1", "E2", "E3")
        for line in shared(kind)
    ),
    *(
        {"deltas": [{"content": piece} for piece in line["upstream_stream_pieces"]], "text": line["right"]}
        for line in shared("E4")
    ),
    *own("E1"),
    *own("E2"),
    *own("E3"),
    *own("E4"),
]


@each(MESSAGES)
def test_pieces_make_one_message(line: Any) -> None:
    deltas = line["deltas"]
    usage = {**USAGE, "completion_tokens": 40, "total_tokens": 60}
    reply = stream(*map(piece, deltas), piece(None, "stop"), {"choices": [], "usage": usage})
    result, progress, _ = drawn(reply)
    assert isinstance(result, Completion), result
    if "calls" in line:
        assert called(result) == right(line["calls"])
    else:
        assert result.text.rpartition("</think>\n")[2] == line["text"]
        if line.get("thoughts"):
            assert result.text.startswith(f"<think>{line['thoughts']}</think>")
    assert progress.usage() == progress.most[0] == Usage(prompt=20, completion=40)


@each(MESSAGES)
@pytest.mark.parametrize("streamed", [False, True])
def test_callers_of_the_server_get_one_message(line: Any, streamed: bool) -> None:
    """In the form of OpenAI's API, whatever the upstream's is; also piece by piece."""
    deltas = line["deltas"]
    reply = stream(*map(piece, deltas), piece(None, "stop"), {"choices": [], "usage": USAGE})
    answer = served(reply, stream=streamed)
    assert answer.status == 200
    if streamed:
        said = [event["choices"][0]["delta"] for event in answer.events if event != "[DONE]" and event["choices"]]
        assert all(isinstance(delta.get("content"), str | None) for delta in said)
        text = "".join(delta.get("content") or "" for delta in said)
        calls: list[list[str]] = []
        for one in (one for delta in said for one in delta.get("tool_calls", ())):
            if one["index"] == len(calls):
                calls.append(["", ""])
            calls[one["index"]][0] += one["function"].get("name", "")
            calls[one["index"]][1] += one["function"].get("arguments", "")
    else:
        message = answer.json["choices"][0]["message"]
        text = message["content"]
        functions = [call["function"] for call in message.get("tool_calls", ())]
        assert all(isinstance(function["arguments"], str) for function in functions)
        calls = [[function["name"], function["arguments"]] for function in functions]
    if "text" in line:
        assert text == line["text"]
    elif "tool_calls" in deltas[0]:
        assert right(calls) == right(line["calls"])


@each([line for line in MESSAGES if len(line["deltas"]) == 1])
def test_a_whole_message_is_read_as_its_pieces_are(line: Any) -> None:
    (message,) = line["deltas"]
    result, _, _ = drawn(document(whole(message)), BARE)
    assert isinstance(result, Completion), result
    if "calls" in line:
        assert called(result) == right(line["calls"])
    else:
        assert result.text.endswith(line["text"])


def test_calls_of_a_whole_message_are_never_one() -> None:
    one = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": ""}}
    result, _, _ = drawn(document(whole({"content": None, "tool_calls": [one, one, one]})), BARE)
    assert called(result) == [["weather", ""]] * 3


def test_a_stream_that_ends_with_the_whole_message_says_it_once() -> None:
    events = [piece({"content": "so "}), piece({"content": "42"})]
    last = {"choices": [{"index": 0, "message": {"content": "so 42"}, "finish_reason": "stop"}], "usage": USAGE}
    assert drawn(stream(*events, last))[0].text == "so 42"
    both = [
        {"choices": [{"index": 0, "delta": {"content": word}, "message": {"content": "so 42"}}]}
        for word in ("so ", "42")
    ]
    assert drawn(stream(*both, last))[0].text == "so 42"


# ---------------------------------------------------------------- E5 and E10: how an answer ends

ENDS = [*own("E5")]
for given in shared("E5"):
    meaning = "ended" if given["right"].startswith("ended") else "cut"
    ENDS.append({"reason": given["input"]["choices"][0]["finish_reason"], "right": meaning})


@each(ENDS)
@pytest.mark.parametrize("facts", [STREAMED, BARE], ids=["stream", "whole"])
def test_how_an_answer_ended_is_read_in_every_word(line: Any, facts: Facts) -> None:
    said = {"content": "The answer is 42."}
    reply = stream(piece(said), piece(None, line["reason"]), {"choices": [], "usage": USAGE})
    result, progress, _ = drawn(reply if facts.stream else document(whole(said, line["reason"])), facts)
    if line["right"] in ("ended", "cut"):
        assert (result.text, result.finish) == (said["content"], "eos" if line["right"] == "ended" else "length")
    else:
        assert isinstance(result, Withheld if line["right"] == "withheld" else EngineError)
        assert isinstance(result, Withheld) == (line["right"] == "withheld")
    assert progress.most[0] == Usage(prompt=20, completion=10), "as the server says"


def test_an_answer_that_ends_twice_is_told_of_once_and_stays_what_was_told() -> None:
    """Servers have sent a reason with every piece after the first, or once more with the usage."""

    def choice(number: int, said: str, finish: str | None) -> Any:
        return {"choices": [{"index": number, "delta": {"content": said}, "finish_reason": finish}]}

    events = [
        choice(0, "It is 4.", "stop"), choice(1, "It", None), choice(0, "", "stop"),
        choice(0, " Or 5.", "length"), choice(1, " is 6.", "stop"), choice(1, "", "stop"),
    ]  # fmt: skip
    told: list[tuple[int, str]] = []

    async def go() -> Progress:
        async with upstream(always(stream(*events, {"choices": [], "usage": USAGE}))) as (url, _):
            engine = engine_on(url, replace(STREAMED, n=True), attempts=1)
            progress = Progress(n=2, ended=lambda child, result: told.append((child, result.text)))
            await engine.generate(ask_for(2), progress)
            await engine.close()
            return progress

    progress = run(go())
    assert sorted(told) == [(0, "It is 4."), (1, "It is 6.")]
    assert [result.text for result in progress.results if isinstance(result, Completion)] == ["It is 4.", "It is 6."]
    assert sum(progress.tokens) == USAGE["completion_tokens"]


@each([*own("E10"), *({"events": [{"content": "The answer is 42."}, {"usage": True}]} for _ in shared("E10"))])
def test_a_whole_stream_needs_no_reason(line: Any) -> None:
    events, done, told = [], True, False
    for event in line["events"]:
        if "content" in event:
            events.append(piece({"content": event["content"]}))
        elif "finish" in event:
            events.append(piece(None, event["finish"]))
        else:
            events.append({"choices": [], "usage": USAGE})
            done, told = event.get("done", True), True
    result, progress, bound = drawn(stream(*events, done=done))
    assert (result.text[-2:], result.finish) in {("42", "eos"), ("2.", "eos")}
    assert progress.most[0] == (Usage(prompt=20, completion=10) if told else bound)
    result, _, _ = drawn(stream(*events, done=done), max_tokens=17)
    assert result.finish == "eos"
    if told:  # what has reached the cap was cut off by it
        usage = {**USAGE, "completion_tokens": 40, "total_tokens": 60}
        whole_usage = [{"choices": [], "usage": usage} if not event["choices"] else event for event in events]
        assert drawn(stream(*whole_usage, done=done), max_tokens=40)[0].finish == "length"


def test_a_stream_that_breaks_off_is_not_whole() -> None:
    for events in ([piece({"content": "The answer is 4"})], [piece({"content": "4"}, usage=USAGE)]):
        result, progress, bound = drawn(stream(*events, done=False))
        assert isinstance(result, EngineError)
        assert progress.most[0] == bound


# ---------------------------------------------------------------- E6, E7 and E9: finding out


def probe_of(answer: Callable[[str, Any], Reply], model: str = "") -> Any:
    async def go() -> Any:
        async with upstream(answer) as (url, sent):
            endpoint = Endpoint(url, patience=Patience(attempts=1))
            try:
                result = await probe(endpoint, model)
            finally:
                await endpoint.close()
            engine = engine_on(url, result.facts, attempts=1)
            progress = await generated(engine, ask_for(max_tokens=12))
            await engine.close()
            return result, progress, sent

    return run(go())


def counting(path: str, body: Any) -> Reply:
    if path == "models":
        return document({"data": [{"id": "m"}]})
    if path != "chat/completions":
        return document({"error": "no"}, 404)
    words = ["one, ", "two, ", "three, ", "four, "]
    usage = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}
    choices = range(body.get("n", 1))
    if body.get("stream"):
        events = [
            {"choices": [{"index": number, "delta": {"content": word}, "finish_reason": None} for number in choices]}
            for word in words
        ]
        ended = {"choices": [{"index": number, "delta": {}, "finish_reason": "stop"} for number in choices]}
        return stream(*events, ended, {"choices": [], "usage": {**usage, "completion_tokens": 4 * len(choices)}})
    texts = ["".join(words[number % 4 :] + words[: number % 4]) for number in choices]
    return document(
        {
            "choices": [
                {"index": number, "message": {"content": text}, "finish_reason": "stop"}
                for number, text in zip(choices, texts, strict=True)
            ],
            "usage": {**usage, "completion_tokens": 4 * len(choices), "total_tokens": 20 + 4 * len(choices)},
        }
    )


@each([*own("E6"), *({"words": "This model only support stream mode, please enable it."} for _ in shared("E6"))])
def test_a_model_that_only_streams_is_found_out_and_used(line: Any) -> None:
    def answer(path: str, body: Any) -> Reply:
        if path == "chat/completions" and not body.get("stream"):
            return document({"error": {"message": line["words"], "code": "x"}}, 400)
        return counting(path, body)

    result, progress, sent = probe_of(answer)
    assert (result.facts.whole, result.facts.stream, result.facts.model) == (False, True, "m")
    assert any("streams only" in note for note in result.notes)
    assert progress.results[0].text == "one, two, three, four, "
    assert sent[-1]["stream"] is True, "although the answer is short"


def test_a_server_that_streams_unasked_is_read_all_the_same() -> None:
    def answer(path: str, body: Any) -> Reply:
        return counting(path, {**body, "stream": True} if path == "chat/completions" else body)

    result, progress, _ = probe_of(answer)
    assert result.facts.stream
    assert progress.results[0].text == "one, two, three, four, "


LISTS = [*own("E7")]
for given in shared("E7"):
    status = 200 if given["input"].startswith("200") else int(given["input"])
    body = json.loads(given["input"].partition(" ")[2]) if status == 200 else {}
    LISTS.append({"status": status, "body": body, "named": status != 200})


@each(LISTS)
def test_a_model_is_used_whatever_the_list_looks_like(line: Any) -> None:
    def answer(path: str, body: Any) -> Reply:
        if path != "models":
            return counting(path, body)
        page = isinstance(line["body"], str)
        return (
            line["status"],
            "text/html" if page else "application/json",
            (line["body"].encode() if page else json.dumps(line["body"]).encode()),
        )

    result, progress, sent = probe_of(answer, "m" if line["named"] else "")
    assert (result.facts.model, sent[-1]["model"]) == ("m", "m")
    assert isinstance(progress.results[0], Completion)


RULES = {
    "400 unless 0 < temperature <= 1": "0 < temperature <= 1",
    "400 unless temperature >= 0.01": "temperature >= 0.01",
}
HEATS = [*own("E9")]
for given in shared("E9"):
    rule = RULES.get(given["input"], "temperature <= 1")
    HEATS += [{"rule": rule, "temperature": heat, "sent": ...} for heat in (0.0, 0.7, 1.2)]


@each(HEATS)
def test_temperatures_are_sent_where_they_are_taken_and_what_is_not_is_said_once(
    line: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def takes(body: Any) -> bool:
        return "temperature" not in body or bool(eval(line["rule"], {"temperature": body["temperature"]}))

    def answer(path: str, body: Any) -> Reply:
        if path == "chat/completions" and not takes(body):
            return document({"error": {"message": "Invalid temperature"}}, 400)
        return counting(path, body)

    async def go() -> tuple[Any, list[Any]]:
        async with upstream(answer) as (url, sent):
            endpoint = Endpoint(url, patience=Patience(attempts=1))
            result = await probe(endpoint)
            engine = OpenAIEngine(endpoint, result.facts)
            sent.clear()
            for _ in range(3):
                progress = await generated(engine, ask_for(2, temperature=line["temperature"]))
                assert all(isinstance(one, Completion) for one in progress.results)
            await engine.close()
            return result, sent

    with caplog.at_level(logging.WARNING, "outthink"):
        result, sent = run(go())
    assert result.facts.n, "several answers, at a temperature that is taken"
    heats = {body.get("temperature") for body in sent}
    if line["sent"] is not ...:
        assert heats == {line["sent"]}
    changed = heats != {line["temperature"]}
    assert len([record for record in caplog.records if "temperature" in record.getMessage()]) == changed
    assert bool([note for note in result.notes if "temperature" in note]) >= changed


# ---------------------------------------------------------------- E8: usage that cannot be

USAGES = [*own("E8")]
for given in shared("E8"):
    usage = given["input"].get("one piece holds all the text", given["input"])
    USAGES.append({"usage": usage, "prompt": usage["prompt_tokens"] or None, "completion": None})


@each(USAGES)
@pytest.mark.parametrize("pieces", [1, 15])
@pytest.mark.parametrize("facts", [STREAMED, BARE], ids=["stream", "whole"])
def test_usage_that_cannot_be_is_not_believed(line: Any, pieces: int, facts: Facts) -> None:
    words = [f"w{number} " for number in range(15)]
    said = ["".join(words)] if pieces == 1 else words
    events = [piece({"content": word}) for word in said]
    reply = stream(*events, piece(None, "stop"), {"choices": [], "usage": line["usage"]})
    if not facts.stream:
        reply = document(whole({"content": "".join(words)}, usage=line["usage"]))
    result, progress, bound = drawn(reply, facts)
    assert result.text == "".join(words)
    told = line["completion"]
    if told is not None:
        told = max(told, pieces if facts.stream else 1)
    charged = Usage(
        prompt=bound.prompt if line["prompt"] is None else line["prompt"],
        completion=bound.completion if told is None else told,
    )
    assert progress.most[0] == charged
    assert (progress.usage() == charged) == (line["prompt"] is not None and line["completion"] is not None)


# ---------------------------------------------------------------- E11 and E12: errors and events

ERRORS = [*own("E11")]
for given in shared("E11"):
    ERRORS.append({"body": json.loads(given["input"].partition("data: ")[2]), "status": 400})


@each(ERRORS)
@pytest.mark.parametrize("facts", [STREAMED, BARE], ids=["stream", "whole"])
def test_an_error_is_one_in_every_form(line: Any, facts: Facts) -> None:
    result, progress, bound = drawn(stream(line["body"]) if facts.stream else document(line["body"]), facts)
    words = "maximum context length" if "maximum" in json.dumps(line["body"]) else "the words"
    assert isinstance(result, EngineError)
    assert words in str(result)
    status = line["status"] or 0
    refused = 400 <= status < 500
    assert isinstance(result, Refused) == refused
    assert progress.most.get(0, Usage()) == (Usage() if refused else bound)
    late, progress, bound = drawn(stream(piece({"content": "so"}), line["body"]))
    assert isinstance(late, EngineError)
    assert not isinstance(late, Refused)
    assert words in str(late)
    assert progress.most[0] == bound, "it had begun to write"


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"the words", "text/plain"),
        (
            b"<html><head><title>Bad</title><style>p {}</style></head><body><p>the&nbsp;<b>words</b></p></body></html>",
            "text/html",
        ),
        (b"<!DOCTYPE html>\n<html><script>if (a < b) alert('x')</script><h1>the words</h1>", "text/html"),
        (b"<?xml version='1.0'?><Error><Code>X</Code><Message>the words</Message></Error>", "application/xml"),
        (b'\xef\xbb\xbf{"detail": "the words"}', "application/json"),
        (b'[{"error": {"message": "the words"}}]', "application/json"),
        (b'data: {"error": {"message": "the words"}}\n\n', "text/event-stream"),
        (b'{"error": {"details": [{"reason": "the words"}]}}', "application/json"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_its_body(status: int, body: bytes, kind: str) -> None:
    result, _, _ = drawn((status, kind, body))
    assert isinstance(result, Refused)
    assert str(result).replace("\xa0", " ").endswith((f"answered {status}: the words", "the words"))
    assert "<" not in str(result)


def test_what_is_said_beside_a_whole_answer_is_no_error() -> None:
    for more in ({"error": None}, {"error": ""}, {"error": {"code": 0, "message": ""}}, {"message": "ok", "code": 200}):
        result, _, _ = drawn(document({**whole({"content": "42"}), **more}), BARE)
        assert isinstance(result, Completion), more
        result, _, _ = drawn(stream({**piece({"content": "42"}, "stop"), **more}, {"choices": [], "usage": USAGE}))
        assert isinstance(result, Completion), more


@pytest.mark.parametrize("data", ["overloaded, try later", '{"code": "x", "info": "overloaded"}'])
def test_an_event_that_is_called_an_error_is_one(data: str) -> None:
    body = f"event: error\ndata: {data}\n\n".encode()
    result, _, _ = drawn((200, "text/event-stream", body))
    assert isinstance(result, EngineError)
    assert "overloaded" in str(result)


@each([*own("E12"), *({"raw": "\ufeffdata: A\n\ndata: B\n\n"} for _ in shared("E12"))])
@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "application/json"])
def test_events_are_read_however_they_are_written(line: Any, kind: str) -> None:
    first = json.dumps(piece({"content": "The answer"}))
    last = json.dumps(piece({"content": " is 42."}, "stop", usage=USAGE))
    half = first.index(', "delta"')
    text = line["raw"].replace("A1", first[:half]).replace("A2", first[half:]).replace("A", first).replace("B", last)
    result, progress, _ = drawn((200, kind, text.encode()))
    assert (result.text, result.finish) == ("The answer is 42.", "eos")
    assert progress.most[0] == Usage(prompt=20, completion=10)
