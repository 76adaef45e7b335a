"""A model behind a server: what comes back, what is charged, and what each fault of a server does to both.

Everything runs against a real server, which counts what it has read and written itself.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outthink
from outthink.answers.reader import Reader
from outthink.answers.thoughts import spoken
from outthink.driver import solve_async
from outthink.errors import (
    BudgetTooSmall,
    EngineError,
    OutthinkError,
    PromptTooLong,
    Refused,
    UsageError,
    Withheld,
)
from outthink.models.endpoint import Endpoint
from outthink.models.engine import Completion, Price, Progress
from outthink.models.facts import Facts
from outthink.models.openai.answers import Answers
from outthink.models.openai.engine import OpenAIEngine, _shared
from outthink.strategies.making import make_strategy
from outthink.together import together
from outthink.types import Call, Message, Part, Problem, Sampling, Trace, Usage
from tests.tools.server import (
    ALL,
    BARE,
    HANG,
    Ask,
    Fault,
    Said,
    Server,
    ask_for,
    engine_on,
    generated,
    many_files,
    raw,
    run,
    says,
    threaded,
)
from tests.tools.toys import problem

STREAMED = replace(BARE, stream=True)
SEVERAL = replace(BARE, n=True)
BOTH = replace(BARE, n=True, stream=True)
KINDS = {"all": ALL, "bare": BARE, "streamed": STREAMED, "several": SEVERAL, "both": BOTH}
every_kind = pytest.mark.parametrize("facts", KINDS.values(), ids=KINDS.keys())


@pytest.fixture(autouse=True, scope="module")
def _collected() -> Iterator[None]:
    yield
    gc.collect()


class LastWord(Reader):
    """Reads the last word as the answer."""

    async def read(self, problem: Problem, text: str) -> tuple[str | None, str | None]:
        words = text.split()
        return (words[-1], words[-1]) if words else (None, None)


def vote(n: int) -> Any:
    return make_strategy("self_consistency", {"n": n})


async def traced(server: Server | str, facts: Facts = ALL, strategy: Any = None, **options: Any) -> Trace:
    """The trace of a strategy, two samples if nothing else is said, whether or not it comes to an answer."""
    patience = options.pop("patience", {})
    engine = options.pop("engine", None) or engine_on(server, facts, **patience)
    options = {"reader": LastWord(), "sampling": Sampling(max_tokens=64), **options}
    try:
        trace = await solve_async(problem(), strategy or vote(2), model=engine, **options)
    except EngineError as failure:
        trace = paid(failure)
    finally:
        await engine.close()
    assert all(_within(call) for call in trace.calls)
    return trace


def paid(failure: OutthinkError) -> Trace:
    assert failure.trace is not None, failure
    return failure.trace


def _within(call: Call) -> bool:
    seen, charged = call.seen, call.charged
    return seen.prompt <= charged.prompt and seen.completion <= charged.completion and seen.tokens <= charged.tokens


def solved(facts: Facts = ALL, strategy: Any = None, *, server: Server | None = None, **options: Any) -> Trace:
    async def go() -> Trace:
        async with server or Server() as started:
            return await traced(started, facts, strategy, **options)

    return run(go())


def answered(request: Any, facts: Facts = ALL, **server: Any) -> tuple[Progress, Server]:
    """What an engine makes of one request."""

    async def go() -> tuple[Progress, Server]:
        async with Server(**server) as started:
            engine = engine_on(started, facts)
            try:
                return await generated(engine, request), started
            finally:
                await engine.close()

    return run(go())


def only(progress: Progress) -> Completion:
    (result,) = progress.results
    assert isinstance(result, Completion), result
    return result


def total(trace: Trace) -> Usage:
    return Usage.total(call.charged for call in trace.calls)


async def worst(server: Server, facts: Facts) -> Usage:
    """The most that one child of `traced` can use."""
    engine = engine_on(server, facts)
    try:
        return await engine.bound(ask_for())
    finally:
        await engine.close()


# ---------------------------------------------------------------- what the server counts is what is charged


@every_kind
@pytest.mark.parametrize("n", [1, 5])
def test_every_token_is_charged_as_the_server_counts_it(facts: Facts, n: int) -> None:
    async def go() -> None:
        async with Server() as server:
            trace = await traced(server, facts, vote(n))
            assert (trace.stopped, len(trace.candidates)) == ("finished", n)
            assert total(trace) == Usage(prompt=server.prompt, completion=server.made)
            assert all(call.exact and call.attempts == 1 and call.outcome == "ok" for call in trace.calls)
            assert len(server.asked) == (1 if facts.n else n)
            if not facts.n or facts.token_ids:
                assert all(sample.tokens == len(sample.text.split()) * 2 for sample in trace.candidates)

    run(go())


def test_a_bias_and_a_limit_of_thoughts_are_asked_for_in_the_words_of_the_api() -> None:
    """On both ways of asking: for an answer, and to go on from tokens."""

    async def go() -> None:
        async with Server() as server:
            engine = engine_on(server, replace(ALL, thinking=True))
            assert engine.spec.powers >= {"logit_bias", "thinking_budget"}
            controls = {"logit_bias": {7: 2.5}, "thinking_budget": 40}
            begun: dict[str, Any] = {"prefix_ids": await engine.encode("one, two"), "prefix_text": "one, two"}
            for more in ({}, begun):
                await generated(engine, ask_for(max_tokens=8, controls=controls, **more))
                body = server.asked[-1].body
                assert (body["logit_bias"], body["thinking_token_budget"]) == ({"7": 2.5}, 40)
            assert [seen.path for seen in server.asked] == ["chat/completions", "completions"]
            await engine.close()

    run(go())


def test_whole_strategies_are_charged_as_the_server_counts_them() -> None:
    """Steps that are continued by their ids, a judge that reads labels, and a prompt cache."""

    def reply(ask: Ask) -> str:
        steps = [f"step {ask.rng.randrange(9)}\n" for _ in range(3)] + ["#### 42"]
        return "".join(steps[ask.prefix.count("\n") :])

    async def go(name: str, parameters: dict[str, Any], options: dict[str, Any], facts: Facts) -> int:
        async with Server(reply, caches=True) as server:
            trace = await traced(server, facts, make_strategy(name, parameters), **options)
            assert trace.stopped == "finished"
            assert all(call.exact for call in trace.calls)
            read = Usage(prompt=server.prompt, cached=sum(seen.cached for seen in server.asked), completion=server.made)
            assert total(trace) == read
            return read.cached

    for facts in (ALL, replace(ALL, n=False), replace(ALL, stream=False)):
        assert run(go("best_of_n", {"n": 3}, {"verifier": "judge"}, facts)) >= 0
        assert run(go("rebase", {"width": 4, "delimiter": "\n"}, {"prm": "confidence"}, facts)) > 0
        assert run(go("revision", {"n": 4, "ratio": 1}, {}, facts)) > 0


def test_how_each_call_was_drawn_is_recorded_as_it_was_sent() -> None:
    """Temperatures of the strategy's own, stop strings, caps of steps, and a server that takes no such thing."""

    def reply(ask: Ask) -> str:
        return "".join(["step 1\n", "step 2\n", "#### 42"][ask.prefix.count("\n") :])

    async def go(strategy: Any, facts: Facts, **options: Any) -> list[str]:
        async with Server(reply) as server:
            trace = await traced(server, facts, strategy, **options)
            names = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop")
            bodies = [
                json.dumps({name: seen.body[name] for name in names if name in seen.body})
                for seen in completions(server)
            ]
            told = [json.dumps(call.sampling) for call in trace.calls if call.sampling is not None]
            again = Trace.from_json(trace.to_json())
            assert [call.sampling for call in again.calls] == [call.sampling for call in trace.calls]
            assert set(bodies) == set(told)
            return told

    def completions(server: Server) -> list[Any]:
        return [seen for seen in server.asked if "completions" in seen.path]

    assert len(set(run(go(make_strategy("multi_temperature", {"temperatures": (0.0, 0.7, 1.2)}), ALL)))) == 3
    steps = make_strategy("rebase", {"width": 2, "delimiter": "\n", "max_step_tokens": 9})
    assert all('"stop": ["\\n"]' in told for told in run(go(steps, ALL, prm="confidence")))
    assert run(go(vote(2), replace(ALL, plain=True))) == ['{"max_tokens": 64}']
    assert run(go(vote(2), replace(ALL, hottest=0.5))) == ['{"temperature": 0.5, "top_p": 1.0, "max_tokens": 64}']


def test_a_thousand_samples_at_once_all_come_back() -> None:
    many_files()

    async def go() -> None:
        async with Server(says("so 42"), gate=1000) as server:
            trace = await traced(server, BARE, vote(1000))
            assert server.most == len(trace.candidates) == 1000
            assert total(trace) == Usage(prompt=server.prompt, completion=server.made)
            assert (trace.answer, trace.confidence) == ("42", 1.0)

    run(go())


@pytest.mark.parametrize("facts", [ALL, replace(ALL, n=False)], ids=["together", "alone"])
def test_the_same_seed_gives_the_same_samples(facts: Facts) -> None:
    texts = [[sample.text for sample in solved(facts, vote(4), seed=seed).candidates] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len({*texts[0], *texts[2]}) == 8


def test_one_engine_serves_event_loops_one_after_the_other() -> None:
    with threaded(Server(says("so 42"))) as server:
        engine = engine_on(server)
        for _ in range(3):
            trace = outthink.solve("What is 6 * 7?", vote(3), model=engine, reader=LastWord())
            assert (trace.answer, len(trace.candidates)) == ("42", 3)
        asyncio.run(engine.close())
        asyncio.run(engine.close())
        gc.collect()


# ---------------------------------------------------------------- one fault, one outcome

NOTHING, WORST = "nothing", "the worst case"
FAILURES: dict[str, tuple[Fault, str, int]] = {
    "429 with a longer wait than patience": (Fault(status=429, headers={"Retry-After": "3600"}), NOTHING, 1),
    "429 again and again": (Fault(status=429), NOTHING, 6),
    "500 again and again": (Fault(status=500), NOTHING, 6),
    "502 again and again": (Fault(status=502), NOTHING, 6),
    "503 again and again": (Fault(status=503), NOTHING, 6),
    "504": (Fault(status=504), WORST, 1),
    "400": (Fault(status=400), NOTHING, 1),
    "401": (Fault(status=401), NOTHING, 1),
    "404": (Fault(status=404), NOTHING, 1),
    "301": (Fault(status=301, headers={"Location": "/v1/elsewhere"}), NOTHING, 1),
    "302": (Fault(status=302, headers={"Location": "/v1/elsewhere"}), NOTHING, 1),
    "307": (Fault(status=307, headers={"Location": "/v1/elsewhere"}), NOTHING, 1),
    "308": (Fault(status=308, headers={"Location": "/v1/elsewhere"}), NOTHING, 1),
    "no answer": (HANG, WORST, 1),
    "no end": (Fault(piece=40, after=1, then="hang"), WORST, 1),
    "cut off": (Fault(piece=40, after=1), WORST, 1),
    "broken JSON": (Fault(body=b'{"choices": [{"index"'), WORST, 1),
    "another body": (Fault(body=b"[1, 2]"), WORST, 1),
    "no choices": (Fault(body=b'{"choices": []}'), WORST, 1),
    "a login page": (Fault(body=b"<html>Sign in</html>", kind="text/html"), WORST, 1),
    "an error in a 200": (Fault(body=b'{"error": {"message": "out of memory"}}'), WORST, 1),
}


@every_kind
@pytest.mark.parametrize(("fault", "charged", "attempts"), FAILURES.values(), ids=FAILURES.keys())
def test_a_fault_costs_nothing_where_that_is_certain_else_the_worst_case(
    fault: Fault, charged: str, attempts: int, facts: Facts
) -> None:
    async def go() -> None:
        async with Server(always=fault) as server:
            most = await worst(server, facts)
            trace = await traced(server, facts)
            assert (trace.stopped, trace.candidates, trace.answer) == ("error", (), None)
            (call,) = trace.calls
            assert (call.outcome, call.failed, call.attempts) == ("failed", 2, attempts)
            assert call.error
            assert call.exact == (charged == NOTHING)
            if charged == NOTHING:
                assert call.charged == call.seen == Usage()
            else:
                assert call.charged == Usage(prompt=2 * most.prompt, completion=2 * most.completion)
            assert len(server.asked) == attempts * (1 if facts.n else 2)

    run(go())


@every_kind
def test_nobody_there_costs_nothing(facts: Facts) -> None:
    async def go() -> None:
        async with Server() as server:
            pass
        trace = await traced(server, replace(facts, tokenize=False))
        (call,) = trace.calls
        assert (call.outcome, call.charged, call.attempts, call.exact) == ("failed", Usage(), 6, True)
        assert "is the server running" in (call.error or "")

    run(go())


@every_kind
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 529])
def test_a_refusal_for_now_is_repeated_and_billed_once(status: int, facts: Facts) -> None:
    async def go() -> None:
        busy = Fault(status=status, headers={"Retry-After": "9"})
        async with Server(faults=[busy] * 4) as server:
            trace = await traced(server, facts)
            assert (trace.stopped, len(trace.candidates)) == ("finished", 2)
            (call,) = trace.calls
            assert call.attempts == (5 if facts.n else 3)  # of two requests at once, each is refused twice
            assert call.exact
            assert call.charged == Usage(prompt=server.prompt, completion=server.made)
            assert trace.seconds >= 9 * (call.attempts - 1)

    run(go())


@every_kind
def test_a_slow_answer_is_a_whole_answer(facts: Facts) -> None:
    server = Server(always=Fault(before=250.0, piece=50, pace=50.0))
    trace = solved(facts, server=server)
    assert (trace.stopped, len(trace.candidates)) == ("finished", 2)
    assert total(trace) == Usage(prompt=server.prompt, completion=server.made)


@pytest.mark.parametrize("facts", [ALL, BOTH], ids=["counted", "uncounted"])
@pytest.mark.parametrize("then", ["cut", "hang", "end"])
def test_a_stream_that_ends_early_keeps_what_had_finished(then: Any, facts: Facts) -> None:
    """The first child had ended; the second is charged at its worst case, the first as far as it is known."""

    async def go() -> None:
        async with Server(says("so 42", "a b c d e f g"), faults=[Fault(after=12, then=then)]) as server:
            most = await worst(server, facts)
            trace = await traced(server, facts)
            (sample,) = trace.candidates
            (call,) = trace.calls
            assert (trace.answer, call.outcome, call.failed, call.exact) == ("42", "ok", 1, False)
            first = 4 if facts is ALL else most.completion
            assert call.charged == Usage(prompt=2 * most.prompt, completion=first + most.completion)
            assert sample.tokens == first if facts is ALL else sample.tokens <= first
            assert call.seen.completion >= server.made - (0 if facts is ALL else 1)  # its end mark is no piece
            assert server.made <= call.charged.completion

    run(go())


def test_where_children_are_requests_of_their_own_each_fails_alone() -> None:
    async def go(fault: Fault, kept: int) -> tuple[Call, Server, Usage]:
        async with Server(says("so 42"), faults=[fault]) as server:
            trace = await traced(server, BARE, vote(4), patience={"attempts": 1})
            assert (len(trace.candidates), trace.answer) == (kept, "42")
            (call,) = trace.calls
            assert call.failed == 4 - kept
            return call, server, await worst(server, BARE)

    call, server, _ = run(go(Fault(status=503), 3))
    assert call.charged == call.seen == Usage(prompt=server.prompt, completion=server.made)
    call, server, most = run(go(Fault(after=0), 3))
    assert server.made + server.prompt <= call.charged.tokens <= 3 * (server.made // 4 + most.prompt) + most.tokens
    assert not call.exact


def test_attempts_are_those_of_the_child_that_needed_most() -> None:
    trace = solved(BARE, vote(3), server=Server(faults=[Fault(status=503), Fault(status=503)]))
    assert [call.attempts for call in trace.calls] == [2]
    trace = solved(BARE, vote(1), server=Server(faults=[Fault(status=503)] * 3))
    assert [call.attempts for call in trace.calls] == [4]


# ---------------------------------------------------------------- answers of another shape


def instead(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    """Changes an answer: each choice by name, or the answer itself by answer__NAME."""

    def bend(answer: dict[str, Any]) -> Any:
        of_answer = {name.removeprefix("answer__"): value for name, value in fields.items() if "__" in name}
        of_choice = {name: value for name, value in fields.items() if "__" not in name}
        return {**answer, "choices": [{**choice, **of_choice} for choice in answer["choices"]], **of_answer}

    return bend


SHAPES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "null": lambda answer: None,
    "a list": lambda answer: [answer],
    "a string": lambda answer: "fine",
    "a number": lambda answer: math.nan,
    "choices are strings": instead(answer__choices=["one", "two"]),
    "choices are a string": instead(answer__choices="one"),
    "choices are a number": instead(answer__choices=2),
    "choices are an object": instead(answer__choices={"index": 0}),
    "choices are null": instead(answer__choices=[None]),
    "index is a string": instead(index="0"),
    "index is null": instead(index=None),
    "index is a list": instead(index=[0]),
    "index is a fraction": instead(index=0.5),
    "message is a string": instead(message="one", delta="one"),
    "content is a number": instead(message={"content": 42}, delta={"content": 42}),
    "content is a list of numbers": instead(message={"content": [7]}, delta={"content": [7]}),
    "ids are strings": instead(token_ids=["a", "b"]),
    "ids are fractions": instead(token_ids=[1.5]),
    "ids are a number": instead(token_ids=7),
    "logprobs are a number": instead(logprobs=7),
    "logprobs are numbers": instead(logprobs={"content": [1, 2]}),
    "logprobs are words": instead(logprobs={"content": [{"token": "a", "logprob": "much"}]}),
    "logprobs lack the number": instead(logprobs={"content": [{"token": "a"}]}),
    "tokens are an object": instead(logprobs={"tokens": {"a": 1}}),
}


@pytest.mark.parametrize("facts", [ALL, SEVERAL], ids=["stream", "whole"])
@pytest.mark.parametrize("bend", SHAPES.values(), ids=SHAPES.keys())
def test_an_answer_of_another_shape_is_a_failure_and_no_crash(bend: Any, facts: Facts) -> None:
    async def go() -> None:
        async with Server(bend=bend) as server:
            trace = await traced(server, facts)
            assert (trace.stopped, trace.candidates) == ("error", ())
            (call,) = trace.calls
            most = await worst(server, facts)
            assert (call.outcome, call.failed) == ("failed", 2)
            assert "Error:" not in (call.error or "")  # a sentence, and not the name of an exception
            assert server.prompt <= call.charged.prompt <= 2 * most.prompt
            assert server.made <= call.charged.completion <= 2 * most.completion

    run(go())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("\ud800 and \udfff", "? and ?"),
        ("\U0001f434", "\U0001f434"),
        ("", ""),
        (None, ""),
        ("nul \x00 and bell \x07", "nul \x00 and bell \x07"),
    ],
)
def test_whatever_is_said_can_be_kept(given: str | None, text: str) -> None:
    for facts in (ALL, BARE):
        progress, _ = answered(ask_for(), facts, bend=instead(message={"content": given}, delta={"content": given}))
        assert only(progress).text.replace("??", "?")[: len(text)] == text
        trace = solved(facts, server=Server(bend=instead(message={"content": given}, delta={"content": given})))
        assert Trace.from_json(trace.to_json()) == trace


def test_a_thought_that_was_cut_is_open_and_goes_on_in_the_form_that_shows_its_marks() -> None:
    """As vLLM with a parser of thoughts has it: apart in chats, and with its closing mark in what goes on from ids.

    Were the first piece closed, the rest of the thought would be read as what is said.
    """

    def reply(ask: Ask) -> str | Said:
        return Said(thoughts="it is 1 or 2", text="#### 3") if not ask.prefix else " or 4 </think> #### 5"

    for cap, thought, whole in ((3, "<think>it is", "<think>it is or 4 </think> #### 5"), (64, None, None)):

        async def go(cap: int = cap, thought: str | None = thought, whole: str | None = whole) -> None:
            async with Server(reply) as server:
                engine = engine_on(server)
                first = only(await generated(engine, ask_for(max_tokens=cap)))
                if thought is None:
                    assert (first.text, first.finish) == ("<think>it is 1 or 2</think>\n#### 3", "eos")
                else:
                    assert (first.text.rstrip(), first.finish) == (thought, "length")
                    request = ask_for(prefix_ids=first.token_ids or (), prefix_text=first.text)
                    rest = only(await generated(engine, request))
                    assert (first.text + rest.text).replace("  ", " ") == whole
                    assert spoken(first.text + rest.text).strip() == "#### 5"
                await engine.close()

        run(go())


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("facts", [ALL, BARE], ids=["stream", "whole"])
def test_thoughts_come_before_what_is_said(name: str, facts: Facts) -> None:
    thought, said = {name: "hm", "content": None}, {"content": "42"}

    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            if "message" in choice:
                choice["message"] = thought | said
            elif choice["delta"].get("content"):
                choice["delta"] = thought if choice["delta"]["content"] == "so" else said
        return answer

    progress, server = answered(ask_for(), facts, reply=says("so far"), bend=bend)
    assert only(progress).text == ("<think>hm</think>\n4242" if facts is ALL else "<think>hm</think>\n42")
    assert only(progress).tokens == server.made == 4


@pytest.mark.parametrize("facts", [ALL, BARE], ids=["stream", "whole"])
@pytest.mark.parametrize("reason", ["stop", "eos", "tool_calls", "function_call"])
def test_an_answer_that_ended_by_itself_counts(reason: str, facts: Facts) -> None:
    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            if choice.get("finish_reason"):
                choice["finish_reason"] = reason
        return answer

    progress, server = answered(ask_for(), facts, reply=says("so 42"), bend=bend)
    assert (only(progress).text, only(progress).finish, only(progress).tokens) == ("so 42", "eos", server.made)


@pytest.mark.parametrize("facts", [ALL, BARE], ids=["stream", "whole"])
@pytest.mark.parametrize("reason", ["content_filter", "abort", "error", "\ud800", 7])
def test_an_answer_that_was_not_finished_is_a_failure(reason: Any, facts: Facts) -> None:
    """It is billed as the server says."""

    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            if choice.get("finish_reason"):
                choice["finish_reason"] = reason
        return answer

    async def go() -> None:
        async with Server(bend=bend) as server:
            trace = await traced(server, facts, vote(1))
            (call,) = trace.calls
            assert (trace.candidates, call.failed) == ((), 1)
            assert call.charged == Usage(prompt=server.prompt, completion=server.made)
            assert "\ud800" not in (call.error or "")

    run(go())


@every_kind
@pytest.mark.parametrize("reason", [{}, None, "", "null"])
def test_an_answer_that_is_whole_needs_no_reason(reason: Any, facts: Facts) -> None:
    """The mark of the end, or the end of a document, says as much."""

    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            choice["finish_reason"] = reason
        return answer

    progress, server = answered(ask_for(), facts, reply=says("so 42"), bend=bend)
    assert (only(progress).text, only(progress).finish, only(progress).tokens) == ("so 42", "eos", server.made)
    progress, server = answered(ask_for(max_tokens=2), replace(facts, token_ids=False), reply=says("so 42"), bend=bend)
    assert (only(progress).finish, only(progress).tokens) == ("length", 2), "as many as were allowed"


def test_an_empty_reason_on_the_way_is_no_end() -> None:
    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            choice["finish_reason"] = choice.get("finish_reason") or ""
        return answer

    progress, _ = answered(ask_for(), bend=bend, reply=says("a b c"))
    assert (only(progress).text, only(progress).finish) == ("a b c", "eos")


# ---------------------------------------------------------------- what a server says about usage


def told(**usage: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda answer: {**answer, "usage": usage} if answer.get("usage") else answer


def rightly(**changed: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda answer: {**answer, "usage": {**answer["usage"], **changed}} if answer.get("usage") else answer


@every_kind
@pytest.mark.parametrize(
    "bend",
    [
        lambda answer: {name: value for name, value in answer.items() if name != "usage"},
        told(prompt_tokens=-1, completion_tokens=5),
        told(prompt_tokens=5, completion_tokens=-1),
        told(prompt_tokens=True, completion_tokens=True),
        told(prompt_tokens=5.0, completion_tokens=5.0),
        told(prompt_tokens=math.nan, completion_tokens=math.inf),
        told(prompt_tokens="5", completion_tokens="5"),
        told(prompt_tokens=5),
        told(prompt_tokens=5, completion_tokens=10**300),
        lambda answer: {**answer, "usage": [1, 2]} if answer.get("usage") else answer,
        lambda answer: {**answer, "usage": "much"} if answer.get("usage") else answer,
    ],
    ids=["none", "-1", "-1 written", "bool", "float", "nan", "text", "half", "huge", "a list", "a string"],
)
def test_where_the_usage_is_not_told_the_most_possible_is_charged(bend: Any, facts: Facts) -> None:
    async def go() -> None:
        async with Server(says("so 42"), bend=bend) as server:
            trace = await traced(server, facts)
            most = await worst(server, facts)
            (call,) = trace.calls
            assert (trace.answer, len(trace.candidates), call.outcome, call.exact) == ("42", 2, "ok", False)
            counted = 4 if facts.token_ids else most.completion  # each token was seen on its own
            assert call.charged == Usage(prompt=2 * most.prompt, completion=2 * counted)

    run(go())


@every_kind
def test_a_usage_below_what_was_seen_is_not_believed(facts: Facts) -> None:
    progress, server = answered(ask_for(2), facts, bend=rightly(completion_tokens=0, total_tokens=0))
    if facts.token_ids:
        assert sum(progress.tokens) == server.made
    else:  # a piece is at least a token; without a stream there is one piece
        assert sum(progress.tokens) == (server.made - 2 if facts.stream else 2)
    assert all(isinstance(result, Completion) for result in progress.results)


def test_reasoning_that_is_only_in_the_total_is_counted() -> None:
    progress, server = answered(ask_for(), BARE, bend=rightly(total_tokens=1000))
    assert progress.tokens == [1000 - server.prompt]


@every_kind
def test_more_cached_than_read_is_not_believed(facts: Facts) -> None:
    progress, server = answered(ask_for(2), facts, bend=rightly(prompt_tokens_details={"cached_tokens": 10**6}))
    assert (progress.prompt, progress.cached) == (server.prompt, 0)


@every_kind
@pytest.mark.parametrize("what", ["prompt_tokens", "completion_tokens"])
def test_more_than_was_promised_is_charged_and_nothing_further_starts(what: str, facts: Facts) -> None:
    async def go() -> None:
        async with Server(says("so 42"), bend=rightly(**{what: 5000})) as server:
            strategy = make_strategy("revision", {"n": 4, "ratio": 4})
            trace = await traced(server, facts, strategy, budget="20k-tokens")
            assert (trace.stopped, trace.answer, len(server.asked)) == ("overrun", "42", 1)
            assert trace.cost["tokens"] >= 5000

    run(go())


@pytest.mark.parametrize("facts", [BARE, SEVERAL], ids=["bare", "several"])
def test_a_server_that_ignores_the_cap_overruns_and_is_charged_as_it_says(facts: Facts) -> None:
    async def go() -> None:
        async with Server(says("so " * 200 + "#### 42"), ignores={"max_tokens"}) as server:
            sampling = Sampling(max_tokens=20)
            strategy = make_strategy("revision", {"n": 4, "ratio": 4})
            trace = await traced(server, facts, strategy, budget="20k-tokens", sampling=sampling)
            assert (trace.stopped, trace.answer, len(server.asked)) == ("overrun", "42", 1)
            assert total(trace) == Usage(prompt=server.prompt, completion=server.made)

    run(go())


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("facts", [BARE, BOTH], ids=["alone", "together"])
def test_a_prompt_that_was_longer_than_promised_is_promised_the_next_time(facts: Facts, n: int) -> None:
    async def go() -> None:
        async with Server(says("so 42"), bend=rightly(prompt_tokens=500, total_tokens=0)) as server:
            engine = engine_on(server, facts)
            first = await traced(server, facts, vote(n), engine=engine, budget="20k-tokens")
            second = await traced(server, facts, vote(n), engine=engine, budget="20k-tokens")
            overrun = not facts.n or n == 1  # four promised prompts were more than the one that was read
            assert [first.stopped, second.stopped] == ["overrun" if overrun else "finished", "finished"]

    run(go())


def test_the_prompt_of_a_request_for_several_is_that_of_each() -> None:
    async def go() -> None:
        engine = OpenAIEngine(Endpoint("http://localhost:1/v1"), BOTH)
        progress = Progress(n=4, prompt=900)
        engine.learn(ask_for(4), progress)
        assert (await engine.bound(ask_for())).prompt == 900

    run(go())


@given(st.integers(0, 500), st.lists(st.integers(0, 60), min_size=1, max_size=12))
@settings(deadline=None)
def test_a_total_is_shared_out_exactly_and_never_below_what_was_seen(whole: int, seen: list[int]) -> None:
    shares = _shared(whole, seen)
    assert sum(shares) == max(whole, sum(seen))
    assert all(share >= part for share, part in zip(shares, seen, strict=True))
    assert all(
        first >= second
        for first, part in zip(shares, seen, strict=True)
        for second, other in zip(shares, seen, strict=True)
        if part > other
    )


# ---------------------------------------------------------------- n, stop and what is not honoured


@pytest.mark.parametrize("facts", [ALL, BOTH, SEVERAL], ids=["all", "both", "several"])
def test_a_server_that_returns_fewer_answers_than_asked_fails_for_the_others(facts: Facts) -> None:
    """They cost nothing beyond what the server reports."""
    server = Server(says("so 42"), ignores={"n"})
    trace = solved(facts, vote(3), server=server)
    (call,) = trace.calls
    assert (trace.answer, len(trace.candidates), call.failed, call.exact) == ("42", 1, 2, True)
    assert "fewer whole answers" in (call.error or "")
    assert call.charged == Usage(prompt=server.prompt, completion=server.made)


@pytest.mark.parametrize("facts", [ALL, BOTH, SEVERAL], ids=["all", "both", "several"])
def test_answers_that_were_not_asked_for_are_billed_and_nobody_s(facts: Facts) -> None:
    def more(answer: dict[str, Any]) -> Any:
        third = [{**choice, "index": 2} for choice in answer["choices"] if choice["index"] == 0]
        answer["choices"] += [*third, *({**choice, "index": -1} for choice in third)]
        return rightly(completion_tokens=12, total_tokens=0)(answer)

    trace = solved(facts, vote(2), server=Server(says("so 42"), bend=more))
    assert (len(trace.candidates), total(trace).completion) == (2, 12)
    assert [sample.text for sample in trace.candidates] == ["so 42", "so 42"]


@pytest.mark.parametrize("facts", [ALL, BARE], ids=["all", "bare"])
def test_more_children_than_one_request_may_have_are_asked_for_in_several(facts: Facts) -> None:
    progress, server = answered(ask_for(300), facts, reply=says("so 42"))
    assert len(server.asked) == (3 if facts.n else 300)
    assert sum(seen.body.get("n", 1) for seen in server.asked) == 300
    assert (progress.prompt, sum(progress.tokens), progress.slack) == (server.prompt, server.made, 0)
    assert all(isinstance(result, Completion) for result in progress.results)


def test_without_chance_each_child_is_asked_for_alone() -> None:
    """vLLM refuses several answers that would all be the same."""
    progress, server = answered(ask_for(3, temperature=0.0))
    assert [seen.body.get("n") for seen in server.asked] == [None] * 3
    assert len({result.text for result in progress.results if isinstance(result, Completion)}) == 1


LINES = "one\ntwo three\nfour"


@pytest.mark.parametrize("stop", ["kept", "told", "cut", None])
@pytest.mark.parametrize("stream", [True, False])
def test_a_stop_string_ends_the_text_and_stays_in_it(stop: Any, stream: bool) -> None:
    """However the server treats it; where it goes on after it, all of that is billed."""
    facts = replace(ALL, stop=stop, stream=stream)
    ignored: dict[Any, set[str]] = {"told": {"include_stop_str_in_output"}, None: {"stop"}}
    server: dict[str, Any] = {"ignores": ignored.get(stop, ()), "hides": {"stop_reason"} if stop == "cut" else ()}
    progress, asked = answered(ask_for(stop=("\n", "four")), facts, reply=says(LINES), **server)
    done = only(progress)
    if stop == "cut":  # what ended it is not told, so it looks like the end
        assert (done.text, done.finish) == ("one", "eos")
    else:
        assert (done.text, done.finish) == ("one\n", "stop")
    assert done.tokens == asked.made == (8 if stop is None else 2)
    assert ("stop" in asked.asked[0].body) == (stop is not None)
    if stop in ("kept", "told"):
        assert [asked._texts[number] for number in done.token_ids or ()] == ["one", "\n"]
    if stop is None:
        assert (done.token_ids, done.logprobs) == (None, None)


@pytest.mark.parametrize("stream", [True, False])
def test_a_stop_string_that_is_kept_is_seen_where_it_is_not_told(stream: bool) -> None:
    facts = replace(ALL, stream=stream)
    done = only(answered(ask_for(stop=("\n",)), facts, reply=says(LINES), hides={"stop_reason"})[0])
    assert (done.text, done.finish) == ("one\n", "stop")


def test_a_stop_string_that_does_not_come_ends_nothing() -> None:
    for stop in ("kept", None):
        done = only(answered(ask_for(stop=("xyz",)), replace(ALL, stop=stop), reply=says(LINES))[0])
        assert (done.text, done.finish) == (LINES, "eos")


# ---------------------------------------------------------------- ids, logprobs, labels


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("most", "finish"), [(64, "eos"), (3, "length"), (18, "length")])
def test_ids_and_logprobs_are_those_of_the_text_without_the_end_mark(stream: bool, most: int, finish: str) -> None:
    request = ask_for(2, logprobs=True, max_tokens=most)
    long = says("a b c d e f g h i j", "k l m n o p q r s t")
    progress, server = answered(request, replace(ALL, stream=stream), reply=long)
    for done in progress.results:
        assert isinstance(done, Completion)
        assert done.token_ids is not None
        assert done.logprobs is not None
        words = [server._texts[number] for number in done.token_ids]
        assert "".join(words) == done.text
        assert list(done.logprobs) == [server.logprob(word) for word in words]
        assert (done.tokens, done.finish) == (len(words) + (finish == "eos"), finish)
    assert sum(progress.tokens) == server.made


def without_end(answer: dict[str, Any]) -> dict[str, Any]:
    """A server that tells no token for the end mark, but counts it."""
    for choice in answer["choices"]:
        for told_of in [choice.get("logprobs") or {}]:
            told_of["content"] = [token for token in told_of.get("content") or () if token["token"] != "<|end|>"]
        choice["token_ids"] = [number for number in choice.get("token_ids") or () if number != 0]
    return answer


@pytest.mark.parametrize(("counts", "logprobs"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("stream", [True, False])
def test_an_end_mark_that_is_not_told_is_not_taken_off(stream: bool, counts: bool, logprobs: bool) -> None:
    def bend(answer: dict[str, Any]) -> Any:
        return without_end(answer if counts else rightly(completion_tokens=3, total_tokens=0)(answer))

    request = ask_for(logprobs=logprobs)
    done = only(answered(request, replace(ALL, stream=stream), reply=says("a b"), bend=bend)[0])
    assert (done.text, len(done.token_ids or ()), len(done.logprobs or ())) == ("a b", 3, 3 * logprobs)


def test_logprobs_that_are_no_numbers_leave_the_sample_without() -> None:
    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            for token in (choice.get("logprobs") or {}).get("content", ()):
                token["logprob"] = None
        return answer

    trace = solved(
        replace(ALL, token_ids=False),
        make_strategy("best_of_n", {"n": 2}),
        verifier="confidence",
        server=Server(says("so 42"), bend=bend),
    )
    assert [(sample.text, sample.logprobs) for sample in trace.candidates] == [("so 42", None)] * 2


def test_a_text_is_gone_on_with_by_its_ids_or_by_its_text() -> None:
    whole = "one two three four five"
    by_text = replace(ALL, prefix="text")
    for facts in (ALL, replace(ALL, cap="max_completion_tokens"), by_text, replace(by_text, tokenize=False)):

        async def go(facts: Facts = facts) -> None:
            async with Server(lambda ask: whole.removeprefix(ask.prefix)) as server:
                engine = engine_on(server, facts)
                first = only(await generated(engine, ask_for(max_tokens=4)))
                request = ask_for(prefix_ids=first.token_ids or (), prefix_text=first.text, logprobs=True)
                bound, rest = await engine.bound(request), await generated(engine, request)
                assert first.text + only(rest).text == whole
                assert len(only(rest).token_ids or ()) == len(only(rest).logprobs or ()) == 5
                last = server.asked[-1]
                assert last.path == ("completions" if facts.prefix == "ids" else "chat/completions")
                assert "max_tokens" in last.body  # the only name of the cap there
                assert rest.prompt == last.prompt <= bound.prompt
                assert rest.prompt == bound.prompt or facts.prefix == "text"
                await engine.close()

        run(go())


def test_confidences_are_of_the_likeliest_tokens_in_both_forms_of_the_api() -> None:
    """Of the plain form's one more token, the one that was written, none is heard where k others are likelier."""
    top = (("a", -1.0), ("b", -2.0), ("c", -4.5))

    async def go() -> None:
        async with Server(says("x y z"), top=top) as server:
            engine = engine_on(server)
            first = only(await generated(engine, ask_for(max_tokens=3)))
            begun: dict[str, Any] = {"prefix_ids": first.token_ids, "prefix_text": first.text}
            for more in ({}, begun):
                heard: list[float] = []
                request = ask_for(max_tokens=2, controls={"top_logprobs": 2}, **more)
                progress = Progress(n=1, watch=lambda child, new, heard=heard: heard.extend(new))  # type: ignore[misc]
                await engine.generate(request, progress)
                seen = only(progress).observed["top_logprobs"]
                likelier = [max(-2.0, server.logprob(word)) for word in ("x", " ")] if more else [-2.0, -2.0]
                assert seen == {"k": 2, "confidences": [(1.0 - least) / 2 for least in likelier]}
                assert heard == seen["confidences"]
            chat, plain = (seen.body for seen in server.asked[1:])
            assert (chat["logprobs"], chat["top_logprobs"]) == (True, 2)
            assert plain["logprobs"] == 2
            await engine.close()

    run(go())


def test_likeliest_tokens_that_nobody_is_sent_are_not_kept() -> None:
    """Of a long thought they would be gigabytes."""
    for fields, kept in (({}, False), ({"logprobs": True, "top_logprobs": 2}, True)):
        sent: list[Answers] = []

        class Watching(OpenAIEngine):
            kept = sent

            async def _ask(self, request: Any, answers: Answers, sending: Any) -> None:
                self.kept.append(answers)
                await super()._ask(request, answers, sending)

        async def go(fields: Any = fields, watching: Any = Watching) -> None:
            async with Server() as server:
                engine = watching(Endpoint(server.url), ALL)
                await generated(engine, ask_for(controls={"top_logprobs": 2}, fields=fields))
                await engine.close()

        run(go())
        (written,) = sent[0].writing
        assert len(written.confidences) == written.tokens > 10
        assert bool(written.told) == kept


def test_an_answer_of_the_end_mark_alone_has_no_tokens_and_not_unknown_ones() -> None:
    done = only(answered(ask_for(logprobs=True), reply=says(""))[0])
    assert (done.text, done.tokens, done.token_ids, done.logprobs) == ("", 1, (), ())
    assert only(answered(ask_for(), replace(ALL, token_ids=False), reply=says(""))[0]).token_ids is None


def test_texts_are_turned_into_tokens_and_back() -> None:
    async def go() -> None:
        async with Server() as server:
            engine = engine_on(server)
            assert "tokens" in engine.spec.powers
            ids = await engine.encode("one two  three")
            assert ids == tuple(map(server.id, ["one", " ", "two", "  ", "three"]))
            assert await engine.decode(ids[1:3]) == " two"
            asked = len(server.seen)
            assert (await engine.decode(()), len(server.seen)) == ("", asked)
            await engine.close()

    run(go())


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'{"tokens": 5}', b'{"tokens": ["a"]}', b'{"prompt": 5}'])
def test_a_server_that_stops_doing_so_is_an_error(body: bytes) -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()

    async def go() -> None:
        async with raw(answer) as url:
            first, second = engine_on(url), engine_on(url)
            with pytest.raises(EngineError, match="does not tokenize any more; probe it again"):
                await first.encode("one")
            with pytest.raises(EngineError, match="does not detokenize any more; probe it again"):
                await second.decode([1])
            await first.close()
            await second.close()

    run(go())


def test_a_chain_goes_on_from_the_tokens_that_were_kept() -> None:
    """QAlign needs all of it: ids, texts of ids, and continuations that are charged as the server counts them."""

    def longer(question: str, text: str) -> float:
        return len(text) / 20

    server = Server()
    strategy = make_strategy("qalign", {"steps": 8, "chains": 2})
    trace = solved(ALL, strategy, verifier=longer, server=server, sampling=Sampling(max_tokens=12))
    assert trace.stopped == "finished"
    assert (trace.usage.prompt, trace.usage.completion) == (server.prompt, server.made)
    cuts = {candidate.id: candidate for candidate in trace.candidates if candidate.address[-2] == "cut"}
    written = [candidate for candidate in trace.candidates if candidate.continues]
    assert len(cuts) == len(written) == 16
    kept = [cuts[candidate.parents[0]].token_ids or () for candidate in written]
    by_ids = [seen.body["prompt"] for seen in server.asked if seen.path == "completions"]
    start = server._prompt({"messages": [{"role": "user", "content": "What is 1+1?"}]})
    assert sorted(by_ids) == sorted([*start, *ids] for ids in kept if ids)
    for candidate, ids in zip(written, kept, strict=True):
        whole = [server._texts[number] for number in (*ids, *(candidate.token_ids or ()))]
        assert trace.whole_text(candidate.id) == "".join(whole)


@pytest.mark.parametrize(
    ("top", "chances"),
    [
        ([("Yes", -0.5), ("No", -1.5)], (math.exp(-0.5), math.exp(-1.5))),
        (
            [("Yes", -1.0), (" yes", -2.0), ("YES", -3.0), ("No", -4.0)],
            (math.exp(-1) + math.exp(-2) + math.exp(-3), math.exp(-4)),
        ),
        ([("Yes", -1.0), ("Yes", -1.0), ("No", -4.0)], (2 * math.exp(-1), math.exp(-4))),
        ([("Yes", -0.1), ("Maybe", -3.0), ("So", -6.0)], (math.exp(-0.1), math.exp(-6))),
        ([("Yes", 0.0), ("No", -math.inf)], (1.0, 0.0)),
    ],
)
def test_labels_have_the_chance_of_all_tokens_that_spell_them(top: Any, chances: tuple[float, ...]) -> None:
    for facts in (ALL, BARE):
        progress, server = answered(
            ask_for(labels=("Yes", "No"), max_tokens=1), facts=replace(facts, labels=20), top=top
        )
        got = only(progress).labels
        assert got is not None
        assert [math.exp(value) for value in got] == pytest.approx(chances)
        assert (progress.tokens, server.asked[0].body["max_tokens"]) == ([1], 1)


def test_labels_that_are_nowhere_are_a_failure_that_is_billed() -> None:
    progress, server = answered(ask_for(labels=("Yes", "No"), max_tokens=1), top=[("Hm", -0.1), ("Ah", math.nan)])
    (failure,) = progress.results
    assert isinstance(failure, EngineError)
    assert "None of Yes, No" in str(failure)
    assert (progress.prompt, progress.tokens, progress.slack) == (server.prompt, [1], 0)


# ---------------------------------------------------------------- before anything is sent


def test_the_bound_covers_every_prompt() -> None:
    """Exactly where the server counts; by bytes else, which are never fewer than tokens."""

    async def go() -> None:
        async with Server() as server:
            for text in ("", "a", "two words", "\n \n" * 50, "žluťoučký kůň 🐴", "\ud800"):
                request = ask_for(text=text, max_tokens=4)
                for facts in (ALL, BARE):
                    engine = engine_on(server, facts)
                    bound, progress = await engine.bound(request), await generated(engine, request)
                    assert progress.prompt <= bound.prompt
                    assert progress.prompt == bound.prompt or facts is BARE
                    await engine.close()

    run(go())


def test_a_prompt_that_is_too_long_by_the_server_s_count_is_refused_before_it_is_sent() -> None:
    async def go() -> None:
        async with Server() as server:
            with pytest.raises(PromptTooLong, match=r"The prompt of 7 tokens and up to 64 new ones"):
                await traced(server, replace(ALL, context=70))
            assert server.asked == []
            assert (await traced(server, replace(ALL, context=71))).stopped == "finished"

    run(go())


def test_a_budget_below_one_sample_is_refused_before_it_is_sent() -> None:
    async def go() -> None:
        async with Server() as server:
            with pytest.raises(BudgetTooSmall, match="can cost 71 tokens"):
                await traced(server, budget="70-tokens")
            assert server.asked == []

    run(go())


@every_kind
def test_images_are_refused_before_anything_is_sent(facts: Facts) -> None:
    picture = Message(content=(Part(text="What is this?"), Part(kind="image", reference="a.png")))

    async def go() -> None:
        async with Server() as server:
            engine = engine_on(server, facts)
            with pytest.raises(UsageError, match="reads text only"):
                await solve_async(Problem(id="p", messages=(picture,)), vote(2), model=engine, reader=LastWord())
            assert server.seen == []
            await engine.close()

    run(go())


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'{"count": "many"}', b'{"tokens": ["a"]}', b'{"tokens": 5}'])
def test_a_server_that_stops_counting_prompts_is_an_error_before_anything_is_spent(body: bytes) -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()

    async def go() -> None:
        async with raw(answer) as url:
            engine = engine_on(url)
            with pytest.raises(EngineError, match="probe it again") as failure:
                await solve_async(problem(), vote(2), model=engine, reader=LastWord())
            assert failure.value.trace is None
            await engine.close()

    run(go())


def test_a_prompt_is_counted_once() -> None:
    server = Server()
    solved(replace(ALL, n=False), vote(8), server=server)
    assert [seen.path for seen in server.seen].count("tokenize") == 1


# ---------------------------------------------------------------- cancellation and deadlines


@pytest.mark.parametrize("n", [1, 3])
@every_kind
def test_a_deadline_closes_the_connections_and_charges_what_may_have_been_written(facts: Facts, n: int) -> None:
    async def go() -> None:
        async with Server(always=Fault(before=5.0, piece=None if facts.stream else 20), pace=1.0) as server:
            most = await worst(server, facts)
            trace = await traced(server, facts, vote(n), budget="12.5s")
            await asyncio.sleep(0.1)
            assert (trace.stopped, trace.candidates) == ("deadline", ())
            assert all(seen.closed for seen in server.asked)
            assert (server.running, server.connections) == (0, 0)
            (call,) = trace.calls
            assert (call.outcome, call.failed, call.exact) == ("cancelled", 0, False)
            assert call.charged.prompt == n * most.prompt
            if facts.stream:
                assert 0 < call.seen.completion <= server.made <= call.charged.completion
                assert call.charged.completion <= 2 * server.made + 32 * n, "and not the cap"
            else:
                assert call.charged.completion == n * most.completion

    run(go())


@pytest.mark.parametrize("facts", [ALL, replace(ALL, n=False)], ids=["together", "alone"])
def test_a_deadline_keeps_the_samples_that_had_ended(facts: Facts) -> None:
    async def go() -> None:
        async with Server(
            lambda ask: "so 42" if ask.rng.random() < 0.5 else "a b c d e f g h i j k", pace=1.0
        ) as server:
            trace = await traced(server, facts, vote(6), budget="40s" if facts.n else "10.5s")
            assert trace.stopped == "deadline"
            assert trace.answer == "42"
            kept = len(trace.candidates)
            assert 0 < kept < 6
            most = await worst(server, facts)
            (call,) = trace.calls
            assert server.made <= call.charged.completion <= server.made + (6 - kept) * 32
            assert call.charged.completion < 4 * kept + (6 - kept) * most.completion
            assert server.prompt <= call.charged.prompt <= 6 * most.prompt

    run(go())


def test_what_never_left_the_queue_is_not_charged() -> None:
    async def go() -> None:
        async with Server(says("so 42"), always=Fault(before=10.0)) as server:
            engine = OpenAIEngine(Endpoint(server.url, connections=2), BARE)
            trace = await traced(server, BARE, vote(8), engine=engine, budget="25s")
            assert (trace.stopped, len(trace.candidates), len(server.asked)) == ("deadline", 4, 6)
            most = await worst(server, BARE)
            (call,) = trace.calls
            assert server.prompt + server.made <= call.charged.tokens
            assert call.charged.completion == 4 * 4 + 2 * most.completion

    run(go())


def test_what_waits_for_its_next_attempt_is_not_charged() -> None:
    server = Server(always=Fault(status=429, headers={"Retry-After": "50"}))
    trace = solved(ALL, vote(2), server=server, budget="20s")
    (call,) = trace.calls
    assert (trace.stopped, call.outcome, call.charged, call.attempts) == ("deadline", "cancelled", Usage(), 1)


def test_a_cancelled_sample_stays_cancelled_and_leaves_no_task() -> None:
    async def go() -> None:
        async with Server(pace=1.0) as server:
            engine = engine_on(server)
            progress = Progress(n=3)
            task = asyncio.ensure_future(engine.generate(ask_for(3), progress))
            await asyncio.sleep(8.5)
            before = list(progress.tokens)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            assert sum(before) == sum(progress.tokens) == server.made > 0
            await engine.close()

    run(go())


# ---------------------------------------------------------------- chaos

CHAOS = [
    *(Fault(status=status) for status in (429, 500, 503, 400, 504)),
    Fault(status=429, headers={"Retry-After": "2"}),
    Fault(before=20.0),
    Fault(pace=0.3),
    Fault(piece=9, after=4),
    Fault(after=3),
    Fault(after=9, then="end"),
    Fault(after=2, then="hang"),
    HANG,
    Fault(body=b"<html>", kind="text/html"),
    Fault(body=b'{"error": "worker died"}'),
]


@every_kind
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_no_budget_is_exceeded_and_nothing_is_undercharged(seed: int, facts: Facts) -> None:
    chance = random.Random(seed)

    async def go() -> None:
        faults = [chance.choice(CHAOS) if chance.random() < 0.4 else Fault() for _ in range(200)]
        async with Server(says("so 42", "a b c d 7"), faults=faults, pace=0.01) as server:
            engine = engine_on(server, facts, silence=60)
            limits = [chance.randint(160, 1500) for _ in range(6)]
            strategies = [
                make_strategy("self_consistency", {"n": chance.randint(1, 9)}),
                make_strategy("revision", {"n": 6, "ratio": 1.5}),
                make_strategy("best_of_n", {"n": 4}),
            ]

            async def one(number: int) -> Trace:
                try:
                    return await solve_async(
                        problem(f"p{number}"),
                        strategies[number % 3],
                        model=engine,
                        verifier="judge" if facts.labels else None,
                        budget=f"{limits[number]}-tokens,{chance.choice([5, 50, 5000])}s",
                        sampling=Sampling(max_tokens=20),
                        reader=LastWord(),
                    )
                except OutthinkError as failure:
                    return paid(failure)

            traces = await together(*(one(number) for number in range(6)))
            await engine.close()
            for trace, limit in zip(traces, limits, strict=True):
                assert trace.stopped != "overrun"
                assert trace.cost.get("tokens", 0) <= limit
                assert all(_within(call) for call in trace.calls)
            charged = Usage.total(total(trace) for trace in traces)
            noticed = Usage.total(call.seen for trace in traces for call in trace.calls)
            assert noticed.prompt <= server.prompt <= charged.prompt
            assert noticed.completion <= server.made <= charged.completion

    run(go())


def test_a_refusal_is_not_an_answer() -> None:
    """The text of an error never becomes a candidate."""
    trace = solved(server=Server(always=Fault(status=400, body=b'{"error": "#### 42"}')))
    assert (trace.candidates, trace.answer) == ((), None)
    with pytest.raises(EngineError, match="#### 42"):
        raise Refused(trace.error or "")


def test_dollars_follow_the_server_s_counts() -> None:
    async def go() -> None:
        async with Server(caches=True) as server:
            price = Price(prompt=2.0, completion=8.0, cached=1.0)
            engine = OpenAIEngine(Endpoint(server.url), ALL, price=price)
            trace = await traced(server, engine=engine, strategy=make_strategy("revision", {"n": 2, "ratio": 0}))
            usage = Usage(prompt=server.prompt, cached=sum(s.cached for s in server.asked), completion=server.made)
            assert trace.cost["usd"] == pytest.approx(price.usd(usage))

    run(go())


# ---------------------------------------------------------------- answers that are more than text


def sent(progress: Progress) -> Any:
    """The answer as the API has it."""
    got = only(progress).sent
    assert got is not None
    return got


def bent(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    """Adds fields to every message, and to the first piece of one."""

    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            if "message" in choice or choice["delta"].get("role"):
                choice["message" if "message" in choice else "delta"] |= fields
        return answer

    return bend


async def key_of(text: str) -> str | None:
    reader = Reader()
    try:
        return (await reader.read(replace(problem(), answer="chat"), text))[1]
    finally:
        await reader.close()


@every_kind
def test_calls_of_tools_are_whole_and_as_the_server_names_them(facts: Facts) -> None:
    calls = (("weather", '{"city": "Bern", "days": 1}'), ("time", ""))
    progress, server = answered(ask_for(), facts, reply=says(Said(calls=calls)))
    message = sent(progress)["message"]
    assert message == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": f"call_0_{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for place, (name, arguments) in enumerate(calls)
        ],
    }
    assert sent(progress)["finish_reason"] == "tool_calls"
    assert "visible" not in sent(progress), "all of it is"
    assert (only(progress).finish, only(progress).tokens) == ("eos", server.made)
    functions = json.loads(only(progress).text)
    assert functions == [
        {"name": "time", "arguments": {}},
        {"name": "weather", "arguments": {"city": "Bern", "days": 1}},
    ]


@every_kind
def test_text_before_a_call_is_kept_but_only_calls_are_compared(facts: Facts) -> None:
    said = Said(text="I look it up.", thoughts="hm", calls=(("f", "{}"),))
    progress, _ = answered(ask_for(), facts, reply=says(said))
    message = sent(progress)["message"]
    assert (message["content"], message["reasoning_content"]) == ("I look it up.", "hm")
    assert only(progress).text == '<think>hm</think>\n[{"name": "f", "arguments": {}}]'


F = ("f", '{"x": 1, "y": [2, "a"]}')
G = ("g", '{"x": 10}')


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ((F,), (("f", '{"y":[2.0,"a"],\n "x":1e0}'),), True),
        ((F, G), (G, F), True),  # calls beside each other are a set
        ((F, F), (F,), False),  # but one that is made twice is made twice
        ((("f", '{"x": 10}'), ("f", '{"x": 2}')), (("f", '{"x": 2.0}'), ("f", '{"x": 1e1}')), True),
        ((("f", '{"x": 10}'), ("f", '{"x": 10.5}')), (("f", '{"x": 10.5}'), ("f", '{"x": 10.0}')), True),
        ((("f", ""),), (("f", "{}"),), True),
        ((F,), (("g", F[1]),), False),
        ((F,), (("f", '{"x": 1, "y": ["a", 2]}'),), False),
        ((F,), (("f", '{"x": "1", "y": [2, "a"]}'),), False),
        ((("f", '{"x": 12345678901234567890}'),), (("f", '{"x": 12345678901234567891}'),), False),
    ],
)
@pytest.mark.parametrize("facts", [ALL, BARE], ids=["stream", "whole"])
def test_equal_calls_are_equal_answers(facts: Facts, one: Any, other: Any, equal: bool) -> None:
    texts = [only(answered(ask_for(), facts, reply=says(Said(calls=calls)))[0]).text for calls in (one, other)]
    first, second = [asyncio.run(key_of(text)) for text in texts]
    assert first is not None
    assert (first == second) == equal


@pytest.mark.parametrize("arguments", ['{"x": 1', "x", '{} , "extra": {}', "NaN", '{"x": Infinity}', "[" * 100_000])
def test_a_call_that_is_no_json_is_passed_on_and_never_an_answer(arguments: str) -> None:
    progress, _ = answered(ask_for(), BARE, reply=says(Said(calls=(G, ("f", arguments)))))
    assert only(progress).text == ""
    assert asyncio.run(key_of(only(progress).text)) is None
    assert sent(progress)["message"]["tool_calls"][1]["function"]["arguments"] == arguments


@pytest.mark.parametrize("facts", [ALL, BARE], ids=["stream", "whole"])
def test_what_else_a_message_and_a_call_have_is_kept(facts: Facts) -> None:
    calls = [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra": {"a": [1]}},
        {"index": 1, "id": "c2", "type": "custom", "custom": {"name": "sql", "input": "select"}},
    ]
    more = {"annotations": [{"type": "url_citation"}], "audio": {"id": "a", "data": "AA"}, "nothing": None}
    progress, _ = answered(ask_for(), facts, reply=says(""), bend=bent(**more, tool_calls=calls, function_call=None))
    assert sent(progress)["message"] == {
        "role": "assistant",
        "content": None,
        "annotations": more["annotations"],
        "audio": more["audio"],
        "tool_calls": [{name: value for name, value in call.items() if name != "index"} for call in calls],
    }
    assert json.loads(only(progress).text)[1] == {"name": "sql", "input": "select"}


def test_what_comes_in_pieces_is_joined() -> None:
    pieces = iter(
        [
            {"audio": {"id": "a", "data": "AA"}, "annotations": [1], "tool_calls": [{"custom": {"name": "sql"}}]},
            {"audio": {"data": "BB"}, "annotations": [2], "tool_calls": [{"custom": {"input": "sel"}}]},
            {"audio": {"expires_at": 7}, "tool_calls": [{"index": 0, "custom": {"input": "ect"}}]},
        ]
    )

    def bend(event: dict[str, Any]) -> Any:
        for choice in event["choices"]:
            if choice["delta"].get("content"):
                choice["delta"] = next(pieces)
        return event

    progress, _ = answered(ask_for(), STREAMED, reply=says("a b"), bend=bend)
    message = sent(progress)["message"]
    assert message["audio"] == {"id": "a", "data": "AABB", "expires_at": 7}
    assert message["annotations"] == [1, 2]
    assert message["tool_calls"] == [{"id": "", "type": "custom", "custom": {"name": "sql", "input": "select"}}]


@pytest.mark.parametrize("facts", [ALL, BARE], ids=["stream", "whole"])
def test_a_refusal_is_kept_with_its_logprobs(facts: Facts) -> None:
    told = [{"token": "No", "logprob": -0.5}]

    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            form = choice.get("message") or choice["delta"]
            if form.get("content"):
                form |= {"content": None, "refusal": "No."}
                choice["logprobs"] = {"content": None, "refusal": told}
        return answer

    request = ask_for(fields={"logprobs": True})
    progress, _ = answered(request, replace(facts, token_ids=False), reply=says("x"), bend=bend)
    assert sent(progress)["message"] == {"role": "assistant", "content": None, "refusal": "No."}
    assert sent(progress)["logprobs"]["refusal"] == told
    assert only(progress).text == "No."


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("facts", KINDS.values(), ids=KINDS.keys())
def test_thoughts_keep_their_name_and_are_counted(name: str, facts: Facts) -> None:
    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            form = choice.get("message") or choice.get("delta")
            if "reasoning_content" in form:
                form[name] = form.pop("reasoning_content")
        return answer

    said = Said(thoughts="let me see", text="42")  # 5 tokens, and 1 with the mark of the end
    progress, server = answered(ask_for(), facts, reply=says(said), bend=bend)
    assert sent(progress)["message"] == {"role": "assistant", "content": "42", name: "let me see"}
    assert (only(progress).tokens, server.made) == (7, 7)
    assert sent(progress)["visible"] == 2, "by its tokens, its pieces or its length"


@every_kind
def test_thoughts_that_only_the_usage_tells_are_not_visible(facts: Facts) -> None:
    def bend(answer: dict[str, Any]) -> Any:
        if "usage" in answer:
            answer["usage"]["completion_tokens_details"] = {"reasoning_tokens": 3}
        return answer

    progress, server = answered(ask_for(2), facts, reply=says("one two three four"), bend=bend)
    several = facts.n
    visible = [result.sent["visible"] for result in progress.results if isinstance(result, Completion) and result.sent]
    assert sum(visible) == server.made - (3 if several else 6)
    assert len(visible) == 2


@pytest.mark.parametrize("details", [None, [], {"reasoning_tokens": None}, {"reasoning_tokens": "3"}, {}, 7])
def test_details_of_a_usage_that_say_nothing_change_nothing(details: Any) -> None:
    def bend(answer: dict[str, Any]) -> Any:
        if "usage" in answer:
            answer["usage"]["completion_tokens_details"] = details
        return answer

    progress, server = answered(ask_for(), bend=bend)
    assert (only(progress).tokens, only(progress).sent) == (server.made, None)


@every_kind
def test_more_thoughts_than_tokens_leave_nothing_visible(facts: Facts) -> None:
    def bend(answer: dict[str, Any]) -> Any:
        if "usage" in answer:
            answer["usage"]["completion_tokens_details"] = {"reasoning_tokens": 1000}
        return answer

    progress, _ = answered(ask_for(), facts, reply=says("42"), bend=bend)
    assert sent(progress)["visible"] == 0


# ---------------------------------------------------------------- fields that are given on


def body_of(request: Any, facts: Facts = ALL, **server: Any) -> Any:
    """What the server is sent for one request, without the messages."""
    _, asked = answered(request, facts, **server)
    (seen,) = asked.asked
    return {name: value for name, value in seen.body.items() if name != "messages"}


def test_fields_are_sent_as_they_are_and_those_of_none_are_left_out() -> None:
    fields = {"top_k": 5, "user": "me", "guided_json": {"a": [1]}, "stop": "x", "temperature": 0.25}
    body = body_of(ask_for(fields={**fields, "top_p": None, "max_tokens": None, "seed": None}))
    streamed = {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True}
    assert body == {"model": "m", **fields, **streamed}


@pytest.mark.parametrize("facts", KINDS.values(), ids=KINDS.keys())
def test_child_k_has_the_seed_k_above_the_first(facts: Facts) -> None:
    async def go() -> None:
        async with Server() as server:
            asked = replace(problem(), fields={"seed": 40})
            engine = engine_on(server, facts)
            seeds = {}
            for name in ("self_consistency?n=4", "esc?n=4&w=2", "hedged_sampling?n=3"):
                server.seen.clear()
                await solve_async(asked, name, model=engine, reader=LastWord(), sampling=Sampling(max_tokens=64))
                seeds[name] = [seen.body["seed"] for seen in server.asked]
            await engine.close()
            first, portions, later = seeds.values()
            assert first == ([40] if facts.n else [40, 41, 42, 43])
            assert portions == ([40, 42] if facts.n else [40, 41, 42, 43]), "they are of one request"
            assert later[0] == 40
            assert not {40, 41, 42} & set(later[1:]), "later requests have seeds of their own"

    run(go())


def test_only_the_first_request_of_the_model_itself_has_the_seed_that_was_asked_for() -> None:
    for address, first in {(): True, ("model", 0): True, ("model", 1): False, ("target", 0): False}.items():
        body = body_of(replace(ask_for(fields={"seed": 40}), address=address, child=3))
        assert body["seed"] == (43 if first else 100)


def test_who_asks_for_no_logprobs_gets_none_while_a_scorer_reads_them() -> None:
    request = ask_for(logprobs=True, fields={"logprobs": False})
    progress, server = answered(request)
    assert server.asked[0].body["logprobs"] is True
    assert (only(progress).logprobs is not None, only(progress).sent) == (True, None)
    progress, _ = answered(ask_for(fields={"logprobs": True, "top_logprobs": 1}), reply=says("42"))
    told = sent(progress)["logprobs"]["content"]
    assert [one["token"] for one in told] == ["42", "<|end|>"]
    assert all(len(one["top_logprobs"]) == 1 for one in told)


@every_kind
def test_what_a_filter_keeps_back_is_known_as_such(facts: Facts) -> None:
    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            if choice.get("finish_reason"):
                choice["finish_reason"] = "content_filter"
        return answer

    progress, _ = answered(ask_for(), facts, bend=bend)
    (result,) = progress.results
    assert isinstance(result, Withheld)


def test_turns_are_sent_as_they_were_written() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief.", "name": "ann"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {}}]},
        {"role": "tool", "content": "4", "tool_call_id": "c"},
    ]
    texts = ("Be brief.", "", "", "4")
    messages = tuple(
        Message(role=turn["role"], content=text, sent=turn) for turn, text in zip(turns, texts, strict=True)
    )
    _, server = answered(replace(ask_for(), messages=messages), BARE)
    assert server.asked[0].body["messages"] == turns


@pytest.mark.parametrize("facts", [ALL, BARE], ids=["counted", "by bytes"])
def test_the_bound_covers_tools_and_media(facts: Facts) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "Does " + "much " * 50}}]
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    sent = {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}
    request = replace(ask_for(fields={"tools": tools}), messages=(Message(content="What is this?", sent=sent),))

    async def go() -> None:
        async with Server() as server:
            engine = engine_on(server, facts)
            bound = await engine.bound(request)
            progress = await generated(engine, request)
            assert progress.prompt == server.prompt
            assert bound.prompt >= server.prompt + 2048, "of an image nobody knows how long it is"
            plain = await engine.bound(replace(request, fields={"chat_template_kwargs": {"thinking": False}}))
            assert plain.prompt < bound.prompt
            counted = [seen.body for seen in server.seen if seen.path == "tokenize"]
            assert [body.keys() - {"model", "messages"} for body in counted] == (
                [{"tools"}, {"chat_template_kwargs"}] if facts.tokenize else []
            )
            await engine.close()

    run(go())


@pytest.mark.parametrize(("code", "charged"), [(400, 0), (422, 0), (500, 60), ("x", 60), (None, 60)])
def test_a_refusal_that_comes_as_the_first_event_is_one(code: Any, charged: int) -> None:
    """Some servers answer 200 before they have looked at the request."""
    body = json.dumps({"error": {"message": "no such field", "code": code}}).encode()

    async def go() -> Progress:
        refusal = Fault(body=b"data: " + body + b"\n\ndata: [DONE]\n\n", kind="text/event-stream")
        async with Server(faults=[refusal]) as server:
            return await generated(engine_on(server), ask_for(max_tokens=60))

    progress = run(go())
    (result,) = progress.results
    assert isinstance(result, Refused) == (charged == 0)
    assert "no such field" in str(result)
    assert sum(usage.completion for usage in progress.most.values()) == charged
