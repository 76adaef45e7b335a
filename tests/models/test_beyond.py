"""Servers that write or report more than they were asked for, and what is charged of what was left unfinished."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from outthink.driver import solve_async
from outthink.models.engine import Completion, Progress
from outthink.models.facts import Facts
from outthink.models.openai.writing import Writing
from outthink.types import Sampling, Usage
from tests.models.test_field import STREAMED, USAGE, always, document, drawn, piece, stream, upstream, whole
from tests.tools.server import BARE, ask_for, engine_on, generated, run
from tests.tools.toys import problem


@pytest.mark.parametrize("kind", ["words", "long words", "thoughts", "calls"])
def test_a_stream_far_past_its_cap_is_closed(kind: str) -> None:
    """The connection is closed, what was written counts as cut off, and later bounds know that the cap is ignored."""
    written = 0
    word = {
        "words": {"content": "so "},
        "long words": {"content": "so " * 1000},
        "thoughts": {"reasoning_content": "hm "},
        "calls": {"tool_calls": [{"index": 0, "function": {"name": "", "arguments": "so "}}]},
    }[kind]

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        data = b"data: " + json.dumps(piece(word)).encode() + b"\n\n"
        while True:
            await response.write(data)
            written += 1
            await asyncio.sleep(0.01)

    async def go() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", endless)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        engine = engine_on(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", STREAMED)
        before = await engine.bound(ask_for(max_tokens=50))
        sampling = Sampling(max_tokens=50)
        trace = await solve_async(problem(), "greedy", model=engine, sampling=sampling, budget="1000-tokens")
        (call,) = trace.calls
        assert trace.stopped == "overrun"
        assert [sample.finish for sample in trace.candidates] == ["length"]
        assert not call.exact
        assert call.seen.completion <= written <= call.charged.completion
        if kind != "long words":
            assert written < 80
            assert call.charged.completion < 200
        after = await engine.bound(ask_for(max_tokens=50))
        assert after.completion > before.completion
        stopped = written
        await asyncio.sleep(5)
        assert written <= stopped + 1, "nobody reads on"
        if kind != "long words":
            trace = await solve_async(problem(), "greedy", model=engine, sampling=sampling, budget="1000-tokens")
            assert trace.stopped == "finished", "the bound is known now"
        await engine.close()
        await runner.cleanup()

    run(go())


@pytest.mark.parametrize("facts", [STREAMED, BARE], ids=["stream", "whole"])
@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 20, "completion_tokens": 110_000_000, "total_tokens": 110_000_020},
        {"prompt_tokens": 110_000_000, "completion_tokens": 4, "total_tokens": 110_000_004},
        {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 110_000_000},
    ],
)
def test_what_cannot_have_been_written_is_charged_and_disputed(usage: Any, facts: Facts) -> None:
    said = {"content": "The answer is 42."}
    reply = stream(piece(said), piece(None, "stop"), {"choices": [], "usage": usage})
    reply = reply if facts.stream else document(whole(said, usage=usage))

    async def go() -> None:
        async with upstream(always(reply)) as (url, _):
            engine = engine_on(url, facts)
            sampling = Sampling(max_tokens=200)
            bound = await engine.bound(ask_for(max_tokens=200))
            trace = await solve_async(problem(), "greedy", model=engine, sampling=sampling, budget="1000-tokens")
            (call,) = trace.calls
            assert trace.stopped == "overrun"
            assert call.charged == Usage(prompt=usage["prompt_tokens"], completion=max(
                usage["completion_tokens"], usage["total_tokens"] - usage["prompt_tokens"]))  # fmt: skip
            assert "reports" in (call.error or "")
            assert "charged all the same" in (call.error or "")
            assert url not in (call.error or "")
            if usage["prompt_tokens"] == 20:
                assert call.seen.completion < 10
                assert not call.exact
            assert await engine.bound(ask_for(max_tokens=200)) == bound, "one false report is no measure"
            await engine.close()

    run(go())


@pytest.mark.parametrize("given", [3, 8, 12])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_answers_that_nobody_asked_for_are_paid_for(given: int, streamed: bool, n: int) -> None:
    """Without usage each is charged at its worst case, and later bounds know of them."""
    text = " ".join(f"w{number}" for number in range(30))

    def choice(index: int, form: str) -> Any:
        return {"index": index, form: {"content": text}, "finish_reason": "stop"}

    if streamed:
        reply = stream(*({"choices": [choice(index, "delta")]} for index in range(given)))
    else:
        reply = document({"choices": [choice(index, "message") for index in range(given)]})

    async def go() -> None:
        async with upstream(always(reply)) as (url, _):
            engine = engine_on(url, replace(BARE, n=True, stream=streamed))
            request = ask_for(n, max_tokens=30)
            progress = await generated(engine, request)
            charged = sum(most.completion for most in progress.most.values())
            assert charged >= 30 * max(given, n)
            assert len([one for one in progress.results if isinstance(one, Completion)]) == min(n, given)
            assert (await engine.bound(request)).completion * n >= 30 * given
            await engine.close()

    run(go())


def test_a_server_that_numbers_from_one_is_understood() -> None:
    events = [
        {"choices": [{"index": 1, "delta": {"content": word}, "finish_reason": finish}]}
        for word, finish in (("so ", None), ("42", "stop"))
    ]
    assert drawn(stream(*events, {"choices": [], "usage": USAGE}))[0].text == "so 42"


class Slow:
    """Writes a word each second, and counts them."""

    def __init__(self) -> None:
        self.written = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(400):
            await asyncio.sleep(1)
            self.written += 1
            await response.write(b"data: " + json.dumps(piece({"content": f" word{number}"})).encode() + b"\n\n")
        return response


@pytest.mark.parametrize("facts", [STREAMED, replace(STREAMED, hidden=True), replace(STREAMED, goes_on=True), BARE])
def test_a_deadline_bills_what_was_written_and_a_little_more(facts: Facts) -> None:
    """But for what may be written unseen: by one who hides thoughts, goes on when it is left, or does not stream."""

    async def go() -> None:
        slow = Slow()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", slow.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        engine = engine_on(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", facts)
        trace = await solve_async(
            problem(), "greedy", model=engine, sampling=Sampling(max_tokens=2000), budget="100.5s"
        )
        (call,) = trace.calls
        assert (trace.stopped, call.outcome, call.exact) == ("deadline", "cancelled", False)
        assert slow.written <= call.charged.completion
        if facts == STREAMED:
            assert call.seen.completion == 100
            assert call.charged.completion <= 4 * slow.written + 32
        else:
            assert call.charged.completion == 2000
        await engine.close()
        await runner.cleanup()

    run(go())


def test_one_who_was_seen_to_hide_something_is_charged_at_the_worst_when_it_is_left() -> None:
    hidden = {"prompt_tokens": 20, "completion_tokens": 150, "total_tokens": 170}

    async def go() -> None:
        slow, first = Slow(), [True]

        async def handle(request: web.Request) -> web.StreamResponse:
            if first.pop() if first else False:
                _, kind, data = stream(piece({"content": "42"}, "stop"), {"choices": [], "usage": hidden})
                return web.Response(body=data, headers={"Content-Type": kind})
            return await slow.handle(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        engine = engine_on(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", STREAMED)
        await generated(engine, ask_for(max_tokens=200))
        trace = await solve_async(problem(), "greedy", model=engine, sampling=Sampling(max_tokens=200), budget="9.5s")
        assert trace.calls[0].charged.completion == 200
        await engine.close()
        await runner.cleanup()

    run(go())


# ------------------------------------------------------------------------------------------------- many pieces


NOTE = {"type": "url_citation", "url_citation": {"title": "A page", "start_index": 3, "end_index": 9}}
PIECES: dict[str, Callable[[int], dict[str, Any]]] = {
    "text": lambda number: {"delta": {"content": "word "}},
    "thoughts": lambda number: {"delta": {"reasoning_content": "hm "}},
    "annotations": lambda number: {"delta": {"annotations": [NOTE]}},
    "a text of another kind": lambda number: {"delta": {"audio": {"transcript": "word ", "data": "AAAA"}}},
    "arguments": lambda number: {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "1, "}}]}},
    "calls": lambda number: {"delta": {"tool_calls": [{"index": number, "function": {"name": "f", "arguments": ""}}]}},
    "whole messages": lambda number: {"message": {"content": f"word {number} "}},
    "logprobs": lambda number: {"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": -1.0}]}},
}


@pytest.mark.parametrize("kind", PIECES)
def test_a_stream_takes_time_in_proportion_to_its_pieces(kind: str) -> None:
    """Four times as many take about four times the processor time and never eleven, where they take any at all."""

    def seconds(count: int) -> float:
        pieces = [PIECES[kind](number) for number in range(count)]
        written = Writing(Progress(n=1), 0)
        began = time.process_time()
        for choice in pieces:
            written.add(choice)
        written.sent(written.tokens, True)
        written.text()
        return time.process_time() - began

    small, large = min(seconds(5_000), seconds(5_000)), min(seconds(20_000), seconds(20_000))
    assert large < max(11 * small, 0.2), (small, large)


def test_what_a_stream_tells_beside_its_text_is_put_together() -> None:
    first = {"audio": {"id": "a", "transcript": "so "}, "annotations": [{"n": 1}], "score": 1, "kind": "x"}
    second = {"audio": {"id": None, "transcript": "it is"}, "annotations": [{"n": 2}], "score": 2, "kind": ["y"]}
    heard: list[Any] = []
    written = Writing(Progress(n=1, listen=lambda child, piece: heard.append(piece)), 0)
    for part in (first, second):
        written.add({"delta": part})
    sent = written.sent(2, False)
    assert sent is not None
    assert sent["message"] == {
        "role": "assistant",
        "content": None,
        "audio": {"id": "a", "transcript": "so it is"},
        "annotations": [{"n": 1}, {"n": 2}],
        "score": 2,
        "kind": ["y"],
    }
    assert [one["delta"]["annotations"] for one in heard] == [[{"n": 1}], [{"n": 2}]], "what was passed on stays so"
