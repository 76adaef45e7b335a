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
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.types import Sampling, Trace, Usage
from tests.models.test_field import STREAMED, USAGE, always, document, drawn, piece, stream, upstream, whole
from tests.tools.server import BARE, Server, ask_for, engine_on, generated, run
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


LONG = " ".join(["word"] * 150) + " 4"  # 301 tokens, and the mark of the end


def lying(prompt: int, completion: int) -> Callable[[dict[str, Any]], Any]:
    """Changes what is told of the usage."""
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return lambda sent: {**sent, "usage": told} if sent.get("usage") else sent


USAGES: dict[str, dict[str, Any]] = {
    "told": {},
    "missing": {"hides": {"usage"}},
    "of nothing": {"bend": lying(0, 0)},
    "too few": {"bend": lying(9, 8)},
    "far too large": {"bend": lying(9, 10**7)},
}


@pytest.mark.parametrize("usage", USAGES.values(), ids=USAGES)
@pytest.mark.parametrize("facts", [STREAMED, BARE], ids=["stream", "whole"])
@pytest.mark.parametrize("n", [1, 2])
def test_all_that_is_written_beyond_a_cap_is_charged(n: int, facts: Facts, usage: dict[str, Any]) -> None:
    """The cap of 20 is ignored, and what is told of the usage may be anything: at least what was made is charged."""

    async def go() -> None:
        ignoring = {"ignores": {"max_tokens"}, "pace": 0.02, **usage}
        async with Server(lambda ask: LONG, **ignoring) as up:
            engine = engine_on(up, replace(facts, n=n > 1))
            strategy, sampling = SelfConsistency(n=n), Sampling(max_tokens=20)
            asking = ask_for(text=problem().messages[0].text, max_tokens=20)
            bound = await engine.bound(asking)
            for _ in range(2):  # what is learned of the server must not make the next call cheaper than it is
                before = up.made
                trace = await solve_async(problem(), strategy, model=engine, sampling=sampling, budget="9000-tokens")
                made, charged = up.made - before, trace.usage.completion
                assert {seen.body["max_tokens"] for seen in up.asked} == {20}, "what is asked for is what was said"
                assert trace.seen.completion <= made <= charged
                assert trace.stopped == "overrun" or trace.usage.tokens <= n * bound.tokens
                bound = await engine.bound(asking)
                if facts.stream:
                    assert charged <= 3 * made, "it was closed soon after its cap"
                    assert made < n * 60
            await engine.close()

    run(go())


def test_a_deadline_of_several_in_one_request_is_billed_near_to_what_was_written() -> None:
    """Of each answer what was seen, and what may have been under way; so too in what it costs in dollars."""

    async def go() -> tuple[Trace, Usage, int, int]:
        async with Server(lambda ask: LONG, pace=1.0) as up:
            engine = engine_on(up, replace(STREAMED, n=True))
            bound = await engine.bound(ask_for(text=problem().messages[0].text, max_tokens=2000))
            sampling = Sampling(max_tokens=2000)
            trace = await solve_async(
                problem(), SelfConsistency(n=4), model=engine, sampling=sampling, budget="80.5s", price="0,10"
            )
            await engine.close()
            assert (trace.stopped, len(up.asked), up.asked[0].body["n"]) == ("deadline", 1, 4)
            return trace, bound, up.prompt, up.made

    trace, bound, prompt, made = run(go())
    assert prompt <= trace.usage.prompt <= 4 * bound.prompt
    assert made >= 70
    assert trace.seen.completion <= made <= trace.usage.completion <= made + 4 * 33
    assert trace.cost["usd"] == pytest.approx(trace.usage.completion * 10e-6)
    (line,) = trace.ledger()
    assert (line.seen.completion, line.usage.completion, line.exact) == (
        trace.seen.completion,
        trace.usage.completion,
        False,
    )


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
