"""Real clients against our server on a real socket: the official Python and npm packages of OpenAI's API, and curl.

Behind the server is the fake one, which counts what it writes and keeps what it is sent. Time is real here, because
the clients bring loops, threads and processes of their own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import platformdirs
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from outthink.models.endpoint import Endpoint, Patience
from outthink.models.engine import Price
from outthink.models.facts import Facts
from outthink.models.openai.engine import OpenAIEngine
from outthink.server.app import Service
from outthink.server.keys import Keys
from outthink.server.listening import listening
from outthink.server.models import Served
from outthink.server.routing import ServerRules
from outthink.server.settings import Settings
from outthink.strategies.making import make_strategy
from tests.tools.server import ALL, HANG, Ask, Fault, Said, Seen, Server, says, threaded, tokens
from tests.tools.serving import counted

ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is 2+2?"}]
FOUR = "The answer is 4."
FIVE = "I have counted again: the answer is 5."
SC = "m+self_consistency"
KEY = "ot-secret"
NPM = "openai@6.49.0"
SCRIPT = Path(__file__).parent / "clients" / "chat.mjs"


def size(*answers: str | Said) -> int:
    """Tokens that the fake server writes for these answers, with a mark of the end for each."""
    said = [Said(text=answer) if isinstance(answer, str) else answer for answer in answers]
    called = sum(1 + len(tokens(arguments)) for one in said for _, arguments in one.calls)
    return sum(len(tokens(one.thoughts)) + len(tokens(one.text)) + 1 for one in said) + called


class Both:
    """Our server before the fake one; `async with` starts both.

    Args:
        attempts: how often the fake one is asked; else a failure is told at once.
        settings: of our server.
        keys: those that ours accepts; None: it needs none.
    """

    def __init__(
        self,
        upstream: Server,
        *,
        facts: Facts = ALL,
        attempts: int = 1,
        price: Price | None = None,
        settings: Settings | None = None,
        keys: Keys | None = None,
        upstream_url: str | None = None,
    ) -> None:
        self.upstream = upstream
        self.address = ""
        self._facts, self._attempts, self._price, self._keys = facts, attempts, price, keys
        self._settings = settings or Settings(port=0)
        self._elsewhere = upstream_url
        self._life = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """Of the API."""
        return f"{self.address}/v1"

    async def __aenter__(self) -> Both:
        await self._life.enter_async_context(self.upstream)
        patience = Patience(attempts=self._attempts, first=0.01)
        endpoint = Endpoint(self._elsewhere or self.upstream.url, patience=patience)
        served = Served({"m": OpenAIEngine(endpoint, self._facts, price=self._price)})
        self.service = Service(self._settings, ServerRules(strategy=make_strategy("auto")), served, keys=self._keys)
        self.address = await self._life.enter_async_context(listening(self.service))
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._life.aclose()

    def client(self, **options: Any) -> OpenAI:
        """The official client, which asks once unless it is told otherwise."""
        return OpenAI(**{"base_url": self.url, "api_key": "none", "max_retries": 0, "timeout": 20.0, **options})

    def asynchronous(self, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(**{"base_url": self.url, "api_key": "none", "max_retries": 0, "timeout": 20.0, **options})


@contextlib.contextmanager
def talking(*replies: str | Said, **options: Any) -> Iterator[tuple[OpenAI, Server]]:
    """The client, and the fake server behind ours, which says these things."""
    with threaded(Both(Server(says(*replies)), **options)) as both, both.client() as client:
        yield client, both.upstream


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for what must come true; fails where it does not."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def drawn(upstream: Server) -> int:
    """Samples that the fake server was asked for."""
    return sum(seen.body.get("n", 1) for seen in upstream.asked)


def added(seen: Seen) -> dict[str, Any]:
    """What was sent to the fake server, without what the engine asks for on its own account."""
    own = {"stream", "stream_options", "return_token_ids", "include_stop_str_in_output"}
    return {name: value for name, value in seen.body.items() if name not in own}


def outthink(response: Any) -> dict[str, Any]:
    """The object `outthink` of a reply, or of the last chunk of a stream."""
    told: dict[str, Any] = response.model_extra["outthink"]
    return told


def check_usage(response: ChatCompletion, upstream: Server, *winners: str | Said) -> None:
    """What is told was used is what the fake server has read and written."""
    usage = response.usage
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens == upstream.prompt > 0
    assert usage.completion_tokens == upstream.made > 0
    assert usage.total_tokens == upstream.prompt + upstream.made
    assert usage.prompt_tokens_details.cached_tokens == sum(seen.cached for seen in upstream.asked)
    assert usage.completion_tokens_details.reasoning_tokens == upstream.made - size(*winners)


# ------------------------------------------------------------------------------------------------ the Python client


def test_the_majority_comes_back_as_an_ordinary_completion() -> None:
    with talking(FOUR, FIVE, FOUR) as (client, upstream):
        response = client.chat.completions.create(
            model=SC, messages=ASKED, extra_body={"outthink": {"n": 6}}, max_tokens=64
        )
    assert response.object == "chat.completion"
    assert response.id.startswith("chatcmpl-")
    assert response.model == SC
    (choice,) = response.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", FOUR, None)
    assert drawn(upstream) == 6
    check_usage(response, upstream, FOUR)
    told = outthink(response)
    assert told["strategy"] == {"name": "self_consistency", "n": 6}
    assert (told["answer"], told["samples"], told["distinct"], told["stopped"]) == ("4", 6, 2, "finished")
    assert told["confidence"] == pytest.approx(4 / 6)
    assert told["trace"] == response.id
    assert sum(line["completion_tokens"] for line in told["ledger"]) == upstream.made


@pytest.mark.parametrize(
    ("model", "more", "strategy", "n"),
    [
        ("m", {}, "auto", None),
        ("m+none", {}, "none", 1),
        ("m+self_consistency", {}, "self_consistency", 16),
        ("m+self_consistency", {"reasoning_effort": "low"}, "self_consistency", 4),
        ("m+self_consistency", {"reasoning_effort": "none"}, "none", 1),
        ("m", {"extra_body": {"outthink": {"strategy": "self_consistency", "n": 3}}}, "self_consistency", 3),
        ("m+none", {"extra_body": {"outthink": {"strategy": "self_consistency", "n": 3}}}, "self_consistency", 3),
        (
            "m+self_consistency",
            {"reasoning_effort": "high", "extra_body": {"outthink": {"n": 3}}},
            "self_consistency",
            3,
        ),
        (
            "m+none",
            {
                "extra_body": {"outthink": {"strategy": "greedy", "n": 3}},
                "extra_headers": {"X-Outthink-Strategy": "self_consistency", "X-Outthink-N": "5"},
            },
            "self_consistency",
            5,
        ),
        ("m", {"extra_headers": {"X-Outthink-Strategy": "none"}}, "none", 1),
    ],
)
def test_a_header_goes_before_the_body_and_that_before_the_name(
    model: str, more: dict[str, Any], strategy: str, n: int | None
) -> None:
    with talking(FOUR) as (client, upstream):
        response = client.chat.completions.create(model=model, messages=ASKED, max_tokens=64, **more)
    assert outthink(response)["strategy"]["name"] == strategy
    if strategy == "self_consistency":
        assert outthink(response)["strategy"]["n"] == n
    assert n is None or drawn(upstream) == n
    assert not any({"outthink", "reasoning_effort"} & seen.body.keys() for seen in upstream.asked)


def test_the_budget_is_kept_and_told() -> None:
    with talking(FOUR) as (client, upstream):
        response = client.chat.completions.create(
            model=SC,
            messages=ASKED,
            max_tokens=20,
            extra_body={"outthink": {"n": 50, "budget": {"tokens": 120}, "answer": "math"}},
        )
    told = outthink(response)
    assert (told["stopped"], told["budget"]["tokens"]) == ("budget", 120)
    assert 1 <= told["samples"] == drawn(upstream) < 50
    assert upstream.prompt + upstream.made <= told["cost"]["tokens"] <= 120
    check_usage(response, upstream, FOUR)


def test_what_was_sent_reaches_the_model_as_sent_and_nothing_else() -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "developer", "content": "Answer briefly."},
        {"role": "user", "content": "What is 2+2?", "name": "ana"},
        {"role": "assistant", "content": "4"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Are you "}, {"type": "text", "text": "sure? \U0001f914"}],
        },
    ]
    fields: dict[str, Any] = {
        "max_tokens": 33,
        "temperature": 0.3,
        "top_p": 0.9,
        "stop": ["\n\n\n"],
        "seed": 17,
        "user": "ana",
        "presence_penalty": 0.5,
        "logit_bias": {"7": -3},
        "metadata": {"from": "here"},
    }
    with talking(FOUR) as (client, upstream):
        client.chat.completions.create(model="m+none", messages=messages, **fields, extra_body={"top_k": 40})
        client.chat.completions.create(model="m+none", messages=ASKED)
        client.chat.completions.create(
            model=SC, messages=messages, **fields, extra_body={"top_k": 40, "outthink": {"n": 3, "answer": "math"}}
        )
    full, bare, several = upstream.asked
    assert added(full) == {"model": "m", "messages": messages, **fields, "top_k": 40}
    # a cap is always sent, as much as the server allows by itself
    assert added(bare) == {"model": "m", "messages": ASKED, "max_tokens": ALL.context - bare.prompt}  # type: ignore[operator]
    assert added(several) == {"model": "m", "messages": messages, **fields, "top_k": 40, "n": 3}


def test_a_whole_stream_says_what_the_plain_reply_says() -> None:
    with talking(FOUR, FIVE, FOUR) as (client, upstream):
        stream = client.chat.completions.create(
            model=SC,
            messages=ASKED,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"outthink": {"n": 6}},
        )
        chunks = list(stream)
    *pieces, last = chunks
    assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {(last.id, "chat.completion.chunk", SC)}
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in pieces)
    deltas = [chunk.choices[0].delta for chunk in pieces]
    assert [delta.role for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert "".join(delta.content or "" for delta in deltas) == FOUR
    assert [chunk.choices[0].finish_reason for chunk in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens_details is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (upstream.prompt, upstream.made)
    assert last.usage.completion_tokens_details.reasoning_tokens == upstream.made - size(FOUR)
    assert outthink(last)["samples"] == drawn(upstream) == 6


def test_without_include_usage_a_stream_has_none() -> None:
    with talking(FOUR) as (client, _):
        chunks = list(client.chat.completions.create(model=SC, messages=ASKED, stream=True))
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
    assert outthink(chunks[-1])["answer"] == "4"


def test_one_sample_is_passed_on_while_it_is_written_and_closing_ends_it() -> None:
    """The fake server stops after a few words for ever; they are there all the same."""
    upstream = Server(says("one two three four five six"), always=Fault(after=4, then="hang"))
    with threaded(Both(upstream)) as both, both.client() as client:
        with client.chat.completions.create(model="m+none", messages=ASKED, stream=True) as stream:
            first, second = next(stream), next(stream)
            assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "one")
            assert (second.choices[0].delta.role, second.choices[0].delta.content) == (None, " ")
            assert not upstream.asked[0].closed
        until(lambda: upstream.asked[0].closed)
        until(lambda: counted(both.service)["outthink_disconnects_total"] == 1)


def test_nobody_gives_up_on_a_stream_that_says_nothing_for_long() -> None:
    """Comments keep the connection busy: the client waits half as long for a byte as the answer takes."""
    upstream = Server(says(FOUR), always=Fault(before=1.0))
    both = Both(upstream, settings=Settings(port=0, keep_alive=0.05))
    with threaded(both), both.client(timeout=0.5) as client:
        chunks = list(
            client.chat.completions.create(model=SC, messages=ASKED, stream=True, extra_body={"outthink": {"n": 2}})
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == FOUR


def test_progress_does_not_disturb_the_client() -> None:
    with talking(FOUR) as (client, upstream):
        chunks = list(
            client.chat.completions.create(
                model=SC, messages=ASKED, stream=True, extra_body={"outthink": {"n": 4, "progress": True}}
            )
        )
    told = [outthink(chunk)["progress"] for chunk in chunks if not chunk.choices]
    assert sum(done["samples"] for done in told) == drawn(upstream) == 4
    assert sum(done["tokens"] for done in told) == upstream.prompt + upstream.made
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == FOUR


@pytest.mark.parametrize("model", ["m+none", SC])
def test_the_stream_helper_puts_it_together(model: str) -> None:
    with (
        talking(FOUR) as (client, upstream),
        client.chat.completions.stream(
            model=model, messages=ASKED, max_tokens=64, stream_options={"include_usage": True}
        ) as stream,
    ):
        said = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert said == final.choices[0].message.content == FOUR
    assert final.choices[0].finish_reason == "stop"
    check_usage(final, upstream, FOUR)


# ---------------------------------------------------------------------------------------------- tools, JSON, pictures


class Weather(BaseModel):
    """The weather of a city."""

    city: str


def weather(city: str, spaces: str = " ") -> Said:
    return Said(calls=(("Weather", f'{{"city":{spaces}"{city}"}}'),))


TOOL: ChatCompletionToolParam = openai.pydantic_function_tool(Weather)


def by_turn(ask: Ask) -> str | Said:
    """Calls for the weather, mostly that of Paris, and then answers."""
    if ask.messages[-1][0] == "tool":
        return "The answer is 21."
    return [weather("Paris"), weather("Rome"), weather("Paris", "")][ask.choice % 3]


def test_tools_are_called_by_majority_and_their_results_are_read() -> None:
    with threaded(Both(Server(by_turn))) as both, both.client() as client:
        first = client.chat.completions.create(
            model=SC,
            messages=ASKED,
            tools=[TOOL],
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=64,
            extra_body={"outthink": {"n": 3}},
        )
        upstream = both.upstream
        check_usage(first, upstream, weather("Paris"))
        (choice,) = first.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        assert (call.id, call.function.name) == ("call_0_0", "Weather")
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        assert outthink(first)["distinct"] == 2
        (seen,) = upstream.asked
        assert seen.body["tools"] == [TOOL]
        assert (seen.body["tool_choice"], seen.body["parallel_tool_calls"]) == ("required", False)
        result: ChatCompletionMessageParam = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
        calling: Any = choice.message.model_dump(exclude_unset=True)
        second = client.chat.completions.create(
            model=SC, messages=[*ASKED, calling, result], tools=[TOOL], extra_body={"outthink": {"n": 3}}
        )
        assert second.choices[0].message.content == "The answer is 21."
        assert second.choices[0].message.tool_calls is None
        assert second.choices[0].finish_reason == "stop"
        for seen in upstream.asked[1:]:
            assert seen.body["messages"] == [*ASKED, calling, result]
            assert seen.body["tools"] == [TOOL]


@pytest.mark.parametrize("model", ["m+none", SC])
def test_calls_of_tools_are_streamed(model: str) -> None:
    two = Said(text="Let me see.", calls=(("Weather", '{"city": "Paris"}'), ("Weather", '{"city": "Rome"}')))
    with (
        talking(two) as (client, upstream),
        client.chat.completions.stream(
            model=model, messages=ASKED, tools=[TOOL], extra_body={"outthink": {"n": 3}} if model == SC else None
        ) as stream,
    ):
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion().choices[0]
    assert [event.parsed_arguments for event in done] == [Weather(city="Paris"), Weather(city="Rome")]
    assert final.finish_reason == "tool_calls"
    assert final.message.content == "Let me see."
    assert [call.id for call in final.message.tool_calls or ()] == ["call_0_0", "call_0_1"]
    assert drawn(upstream) == (3 if model == SC else 1)


def test_clients_are_told_the_end_of_a_call_in_words_that_they_know() -> None:
    def wording(sent: dict[str, Any]) -> dict[str, Any]:
        for choice in sent["choices"]:
            choice["finish_reason"] = choice.get("finish_reason") and "eos"
        return sent

    with threaded(Both(Server(says(weather("Paris")), bend=wording))) as both, both.client() as client:
        for model in ("m+none", SC):
            asked: dict[str, Any] = {"model": model, "messages": ASKED, "tools": [TOOL], "reasoning_effort": "minimal"}
            whole = client.chat.completions.create(**asked).choices[0]
            with client.chat.completions.stream(**asked) as stream:
                streamed = stream.get_final_completion().choices[0]
            assert whole.finish_reason == streamed.finish_reason == "tool_calls"


class Sum(BaseModel):
    value: int


SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "sum", "schema": Sum.model_json_schema(), "strict": True},
}


def test_replies_are_parsed_into_models_of_pydantic() -> None:
    with talking('{"value": 4}', '{"value": 5}', '{ "value" : 4 }') as (client, upstream):
        parsed = client.chat.completions.parse(
            model=SC, messages=ASKED, response_format=Sum, max_tokens=64, extra_body={"outthink": {"n": 3}}
        )
        asked: Any = {"model": SC, "messages": ASKED, "response_format": SCHEMA, "max_tokens": 64}
        whole = client.chat.completions.create(**asked, extra_body={"outthink": {"n": 3}})
        with client.chat.completions.stream(model="m+none", messages=ASKED, response_format=Sum) as stream:
            streamed = stream.get_final_completion()
    assert parsed.choices[0].message.parsed == streamed.choices[0].message.parsed == Sum(value=4)
    assert json.loads(whole.choices[0].message.content or "") == {"value": 4}
    assert outthink(parsed)["distinct"] == 2
    assert outthink(parsed)["confidence"] == pytest.approx(2 / 3)
    first, second, _ = upstream.asked
    assert first.body["response_format"]["type"] == "json_schema"
    assert first.body["response_format"]["json_schema"]["name"] == "Sum"
    assert first.body["response_format"]["json_schema"]["strict"] is True
    assert first.body["response_format"]["json_schema"]["schema"]["properties"]["value"]["type"] == "integer"
    assert second.body["response_format"] == SCHEMA


def test_what_is_not_json_has_no_vote_where_json_is_asked_for() -> None:
    """However often it comes."""
    with talking("none of it", "none of it", '{"value": 4}') as (client, _):
        parsed = client.chat.completions.parse(
            model=SC, messages=ASKED, response_format=Sum, max_tokens=64, extra_body={"outthink": {"n": 3}}
        )
    assert parsed.choices[0].message.parsed == Sum(value=4)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["m+none", SC])
def test_logprobs_are_those_of_the_winner(model: str, stream: bool) -> None:
    asked: dict[str, Any] = {"model": model, "messages": ASKED, "logprobs": True, "top_logprobs": 2, "max_tokens": 64}
    if model == SC:
        asked["extra_body"] = {"outthink": {"n": 3, "answer": "math"}}
    with talking(FOUR, FIVE, FOUR) as (client, upstream):
        if stream:
            chunks = list(client.chat.completions.create(**asked, stream=True))
            told = [one for chunk in chunks for choice in chunk.choices if choice.logprobs
                    for one in choice.logprobs.content or ()]  # fmt: skip
        else:
            logprobs = client.chat.completions.create(**asked).choices[0].logprobs
            assert logprobs is not None
            told = logprobs.content or []
        upstream_says = [(word, upstream.logprob(word)) for word in tokens(FOUR)]
    assert [(one.token, one.logprob) for one in told][: len(upstream_says)] == upstream_says
    assert len(told) <= len(upstream_says) + 1  # the mark of the end may be among them
    assert all([near.token for near in one.top_logprobs] == ["Yes", "No"] for one in told)
    assert (upstream.asked[0].body["logprobs"], upstream.asked[0].body["top_logprobs"]) == (True, 2)


def test_a_picture_arrives_byte_for_byte() -> None:
    picture = hashlib.sha512(b"a picture").digest() * 4096  # 256 KiB
    address = "data:image/png;base64," + base64.b64encode(picture).decode()
    messages: list[ChatCompletionMessageParam] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "How many ducks?"},
                {"type": "image_url", "image_url": {"url": address, "detail": "low"}},
            ],
        }
    ]
    with talking(FOUR, FIVE, FOUR) as (client, upstream):
        response = client.chat.completions.create(
            model=SC, messages=messages, max_tokens=64, extra_body={"outthink": {"n": 3}}
        )
        check_usage(response, upstream, FOUR)
        assert all(seen.body["messages"] == messages for seen in upstream.asked)
        arrived = upstream.asked[-1].body["messages"][0]["content"][1]["image_url"]["url"]
        assert base64.b64decode(arrived.partition(",")[2]) == picture
        with pytest.raises(openai.BadRequestError, match="text only"):
            client.chat.completions.create(model="m+revision", messages=messages, max_tokens=64)
    assert response.choices[0].message.content == FOUR


def test_several_choices_are_the_different_answers_or_the_samples_as_they_came() -> None:
    with talking(FOUR, FIVE, FOUR) as (client, upstream):
        best = client.chat.completions.create(
            model=SC, messages=ASKED, n=3, max_tokens=64, extra_body={"outthink": {"n": 5, "answer": "math"}}
        )
        check_usage(best, upstream, FOUR, FIVE)
        plain = client.chat.completions.create(model="m+none", messages=ASKED, n=3, max_tokens=64)
        chunks = list(client.chat.completions.create(model="m+none", messages=ASKED, n=3, max_tokens=64, stream=True))
    assert [(choice.index, choice.message.content) for choice in best.choices] == [(0, FOUR), (1, FIVE)]
    (note,) = outthink(best)["notes"]
    assert "there are only 2" in note or "there are 2" in note
    assert [(choice.index, choice.message.content) for choice in plain.choices] == [(0, FOUR), (1, FIVE), (2, FOUR)]
    assert plain.usage is not None
    assert plain.usage.completion_tokens == size(FOUR, FIVE, FOUR)
    assert plain.usage.completion_tokens_details is not None
    assert plain.usage.completion_tokens_details.reasoning_tokens == 0
    texts = ["", "", ""]
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] += choice.delta.content or ""
    assert texts == [FOUR, FIVE, FOUR]
    assert upstream.asked[1].body["n"] == upstream.asked[2].body["n"] == 3


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_are_reasoning_tokens_and_stay_beside_the_text(stream: bool) -> None:
    thoughtful = Said(thoughts="two and two, hm", text=FOUR)
    asked: dict[str, Any] = {"model": "m+none", "messages": ASKED, "max_tokens": 64}
    with talking(thoughtful) as (client, upstream):
        if stream:
            chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
            deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
            said = "".join(delta.content or "" for delta in deltas)
            thought = "".join((delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas)
            usage = chunks[-1].usage
        else:
            response = client.chat.completions.create(**asked)
            said = response.choices[0].message.content or ""
            thought = (response.choices[0].message.model_extra or {})["reasoning_content"]
            usage = response.usage
    assert (said, thought) == (FOUR, "two and two, hm")
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens == upstream.made
    assert usage.completion_tokens_details.reasoning_tokens == len(tokens("two and two, hm"))


# ------------------------------------------------------------------------------------------------- costs and listings


def test_gateways_read_the_cost_from_headers() -> None:
    with talking(FOUR, FIVE, FOUR, price=Price(prompt=1.0, completion=10.0)) as (client, upstream):
        raw = client.chat.completions.with_raw_response.create(
            model=SC, messages=ASKED, max_tokens=64, extra_body={"outthink": {"n": 3}}
        )
        response = raw.parse()
    usd = (upstream.prompt * 1.0 + upstream.made * 10.0) / 1e6
    assert float(raw.headers["x-litellm-response-cost"]) == pytest.approx(usd)
    assert raw.headers["x-litellm-total-tokens"] == str(upstream.prompt + upstream.made)
    assert raw.headers["x-outthink-trace"] == response.id
    assert outthink(response)["cost"]["usd"] == pytest.approx(usd)
    assert response.choices[0].message.content == FOUR


def test_prompts_from_the_cache_are_told() -> None:
    upstream = Server(says(FOUR), caches=True)
    with threaded(Both(upstream)) as both, both.client() as client:
        response = client.chat.completions.create(
            model=SC, messages=ASKED, max_tokens=64, extra_body={"outthink": {"n": 6}}
        )
    assert response.usage is not None
    assert response.usage.prompt_tokens_details is not None
    assert response.usage.prompt_tokens_details.cached_tokens == upstream.asked[1].cached > 0
    check_usage(response, upstream, FOUR)


def test_models_and_their_names_with_strategies_are_listed() -> None:
    with talking(FOUR) as (client, _):
        listed = [model.id for model in client.models.list()]
        assert listed[:2] == ["m", "m+none"]
        assert {"m+self_consistency", "m+auto"} <= set(listed)
        assert "m+best_of_n" not in listed  # it needs a verifier
        assert client.models.retrieve(SC).id == SC
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("m+best_of_n")


# --------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("asked", "fault", "kind", "code"),
    [
        ({"temperature": 3.0}, None, openai.BadRequestError, None),
        ({"extra_body": {"outthink": {"sttategy": "greedy"}}}, None, openai.BadRequestError, None),
        ({"extra_body": {"outthink": {"strategy": "gready"}}}, None, openai.BadRequestError, "no_strategy"),
        ({"extra_headers": {"X-Outthink-N": "many"}}, None, openai.BadRequestError, None),
        ({"max_tokens": 5000}, None, openai.BadRequestError, "context_length_exceeded"),
        ({"extra_body": {"outthink": {"budget": "9-tokens"}}}, None, openai.BadRequestError, "budget_too_small"),
        ({}, Fault(status=400, body=b'{"error": {"message": "no such field"}}'), openai.BadRequestError,
         "upstream_refused"),
        ({"model": "x"}, None, openai.NotFoundError, "model_not_found"),
        ({}, Fault(status=422, body=b"{}"), openai.UnprocessableEntityError, "upstream_refused"),
        ({}, Fault(status=429, body=b"{}"), openai.RateLimitError, "upstream_rate_limit"),
        ({}, Fault(status=401, body=b"{}"), openai.InternalServerError, "upstream_refused"),
        ({}, Fault(status=500, body=b"{}"), openai.InternalServerError, "upstream_unavailable"),
        ({}, Fault(body=b"<html>", kind="text/html"), openai.InternalServerError, "upstream_failed"),
        ({}, Fault(after=3), openai.InternalServerError, "upstream_failed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_failures_are_the_client_s_own_errors(
    asked: dict[str, Any], fault: Fault | None, kind: type[openai.APIStatusError], code: str | None, stream: bool
) -> None:
    upstream = Server(says(FOUR), always=fault or Fault())
    fields: dict[str, Any] = {"model": SC, "messages": ASKED, **asked}
    with threaded(Both(upstream)) as both, both.client() as client:
        with pytest.raises(kind) as raised:
            client.chat.completions.create(**fields, stream=stream)
        assert raised.value.code == code
        assert raised.value.type
        assert raised.value.message
        assert isinstance(raised.value.body, dict)
        assert raised.value.body.keys() == {"message", "type", "param", "code"}
        if fault is None:
            assert upstream.asked == []
            assert code == "budget_too_small" or code == "context_length_exceeded" or raised.value.param


def test_a_stream_that_fails_on_the_way_is_an_error_and_no_shorter_answer() -> None:
    upstream = Server(says("one two three four five six"), always=Fault(after=6))
    with threaded(Both(upstream)) as both, both.client() as client:
        stream = client.chat.completions.create(model="m+none", messages=ASKED, stream=True)
        pieces = []
        with pytest.raises(openai.APIError, match="upstream failed") as raised:
            pieces += [chunk.choices[0] for chunk in stream]  # nothing is kept of a stream that fails
        assert raised.value.code == "upstream_failed"
        assert pieces == []


def test_at_the_deadline_there_is_the_best_answer_so_far() -> None:
    """The look at the first samples is there, those after it never come; the second time nothing does."""
    upstream = Server(says(FOUR), faults=[Fault(), HANG, HANG])
    with threaded(Both(upstream)) as both, both.client() as client:
        soon = {"n": 6, "budget": {"seconds": 0.4}}
        response = client.chat.completions.create(model=SC, messages=ASKED, extra_body={"outthink": soon})
        assert response.choices[0].message.content == FOUR
        assert outthink(response)["stopped"] == "deadline"
        with pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(model="m+none", messages=ASKED, extra_headers={"X-Outthink-Budget": "0.4s"})
        assert (raised.value.status_code, raised.value.code) == (504, "deadline")
        until(lambda: all(seen.closed for seen in upstream.asked[1:]))


def test_what_is_too_large_is_refused_in_words_although_the_client_still_sends() -> None:
    large: list[ChatCompletionMessageParam] = [{"role": "user", "content": "x" * (33 << 20)}]
    with talking(FOUR) as (client, upstream):
        with pytest.raises(openai.APIStatusError) as raised:
            client.chat.completions.create(model="m+none", messages=large)
        assert (raised.value.status_code, raised.value.code) == (413, "too_large")
        assert upstream.seen == []
        assert client.chat.completions.create(model="m+none", messages=ASKED).choices[0].message.content == FOUR


def test_only_those_with_a_key_are_served() -> None:
    keys = Keys({"ana": hashlib.sha256(KEY.encode()).digest()})
    upstream = Server(says(FOUR))
    with threaded(Both(upstream, keys=keys)) as both:
        for wrong in ("none", KEY + "x"):
            with both.client(api_key=wrong) as client:
                with pytest.raises(openai.AuthenticationError) as raised:
                    client.chat.completions.create(model=SC, messages=ASKED)
                assert raised.value.code == "invalid_api_key"
                assert wrong not in str(raised.value)
                with pytest.raises(openai.AuthenticationError):
                    client.models.list()
        assert upstream.asked == []
        with both.client(api_key=KEY) as client:
            assert client.chat.completions.create(model="m+none", messages=ASKED).choices[0].message.content == FOUR
    (seen,) = upstream.asked
    assert KEY not in json.dumps([dict(seen.headers), seen.body])


def test_nobody_there_is_a_connection_error() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with (
            OpenAI(base_url=address, api_key="none", max_retries=0) as client,
            pytest.raises(openai.APIConnectionError),
        ):
            client.chat.completions.create(model="m", messages=ASKED)
        both = Both(Server(), upstream_url=address)
        with threaded(both), both.client() as client, pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(model="m+none", messages=ASKED, max_tokens=64)
    assert raised.value.status_code in (502, 503)


def test_the_client_comes_back_when_it_is_told_to() -> None:
    """After the second that the upstream asks for, and not after the half of one that it waits by itself."""
    busy = Fault(status=429, headers={"Retry-After": "1"}, body=b"{}")
    upstream = Server(says(FOUR), faults=[busy, busy])
    with threaded(Both(upstream)) as both, both.client() as client:
        with pytest.raises(openai.RateLimitError) as raised:
            client.chat.completions.create(model="m+none", messages=ASKED)
        assert raised.value.response.headers["Retry-After"] == "1"
        assert len(upstream.asked) == 1
        again = client.with_options(max_retries=2)
        assert again.chat.completions.create(model="m+none", messages=ASKED).choices[0].message.content == FOUR
    _, second, third = upstream.asked
    assert third.at - second.at >= 1.0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["m+none", SC])
def test_a_client_that_waits_no_longer_ends_the_work(model: str, stream: bool) -> None:
    upstream = Server(says(FOUR), always=HANG)
    with threaded(Both(upstream)) as both, both.client(timeout=0.3) as client:
        while not upstream.asked:  # on a busy machine it can leave before the upstream is asked
            with pytest.raises(openai.APITimeoutError):
                client.chat.completions.create(model=model, messages=ASKED, max_tokens=64, stream=stream)
        until(lambda: upstream.asked[0].closed)
        until(lambda: counted(both.service)["outthink_running"] == 0)
        assert upstream.running == 0
        assert len(upstream.asked) == 1  # nothing further was begun
        assert counted(both.service)["outthink_disconnects_total"] >= 1


# --------------------------------------------------------------------------------------------- the asynchronous client


def test_many_at_once_each_get_their_own_answer() -> None:
    def numbered(ask: Ask) -> str:
        number = ask.messages[-1][1]
        return f"The answer is {number}." if ask.choice % 3 != 1 else "The answer is none of them."

    async def go() -> None:
        async with Both(Server(numbered)) as both, both.asynchronous() as client:

            async def one(number: int) -> ChatCompletion:
                return await client.chat.completions.create(
                    model=SC,
                    messages=[{"role": "user", "content": str(number)}],
                    max_tokens=64,
                    extra_body={"outthink": {"n": 4, "answer": "math"}},
                )

            async def streamed(number: int) -> str:
                stream = await client.chat.completions.create(
                    model="m+none", messages=[{"role": "user", "content": str(number)}], max_tokens=64, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            async with asyncio.TaskGroup() as group:
                whole = [group.create_task(one(number)) for number in range(30)]
                pieces = [group.create_task(streamed(number)) for number in range(30)]
            responses = [task.result() for task in whole]
            texts = [response.choices[0].message.content for response in responses]
            assert texts == [task.result() for task in pieces] == [f"The answer is {number}." for number in range(30)]
            assert len({response.id for response in responses}) == 30
            written = sum(size(f"The answer is {number}.") for number in range(30))
            told = sum(response.usage.completion_tokens for response in responses if response.usage)
            assert told == both.upstream.made - written
            assert counted(both.service)["outthink_tokens_total model completion"] == both.upstream.made

    asyncio.run(go())


def test_a_cancelled_call_is_closed_upstream() -> None:
    async def go() -> None:
        upstream = Server(says(FOUR), always=HANG)
        async with Both(upstream) as both, both.asynchronous() as client:
            calls = [
                asyncio.create_task(client.chat.completions.create(model=model, messages=ASKED, max_tokens=64))
                for model in ("m+none", SC)
            ]
            await _until(lambda: len(upstream.asked) == 2)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            await _until(lambda: all(seen.closed for seen in upstream.asked))
            await _until(lambda: counted(both.service)["outthink_disconnects_total"] == 2)
            assert counted(both.service)["outthink_samples_total cancelled"] == 1 + 4

    asyncio.run(go())


def test_the_end_of_a_stream_can_be_left() -> None:
    async def go() -> None:
        upstream = Server(says("one two three four five six"), always=Fault(after=4, then="hang"))
        async with Both(upstream) as both, both.asynchronous() as client:
            stream = await client.chat.completions.create(model="m+none", messages=ASKED, stream=True)
            async with stream:
                assert (await anext(stream)).choices[0].delta.content == "one"
            await _until(lambda: upstream.asked[0].closed)

    asyncio.run(go())


def test_a_full_queue_says_when_to_come_back() -> None:
    async def go() -> None:
        upstream = Server(says(FOUR), faults=[HANG])
        both = Both(upstream, settings=Settings(port=0, concurrency=1, queue=0))
        async with both, both.asynchronous() as client:
            held = asyncio.create_task(client.chat.completions.create(model="m+none", messages=ASKED))
            await _until(lambda: len(upstream.asked) == 1)
            with pytest.raises(openai.RateLimitError) as raised:
                await client.chat.completions.create(model="m+none", messages=ASKED)
            assert raised.value.code == "busy"
            assert int(raised.value.response.headers["Retry-After"]) >= 1
            assert len(upstream.asked) == 1
            held.cancel()
            await asyncio.wait([held])
            await _until(lambda: upstream.asked[0].closed)
            # it comes back by itself
            patient = client.with_options(max_retries=2)
            response = await patient.chat.completions.create(model="m+none", messages=ASKED)
            assert response.choices[0].message.content == FOUR

    asyncio.run(go())


async def _until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - the servers tell nobody
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------------------------- curl

curling = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


def curl(url: str, *options: str, **body: Any) -> subprocess.CompletedProcess[str]:
    """What curl prints for a chat request."""
    asked = json.dumps({"model": SC, "messages": ASKED, "outthink": {"n": 3}, **body})
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", f"{url}/chat/completions"]
    command += ["--json", asked, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@curling
def test_curl_gets_a_completion_or_a_stream() -> None:
    with threaded(Both(Server(says(FOUR, FIVE, FOUR)))) as both:
        plain = curl(both.url, "--write-out", "\n%{http_code} %{content_type}")
        streamed = curl(both.url, "--no-buffer", stream=True)
    body, code = plain.stdout.rsplit("\n", 1)
    assert code == "200 application/json; charset=utf-8"
    assert json.loads(body)["choices"][0]["message"]["content"] == FOUR
    *events, done, rest = streamed.stdout.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == FOUR
    assert chunks[-1]["outthink"]["samples"] == 3


@curling
def test_curl_is_told_what_is_wrong() -> None:
    keys = Keys({"ana": hashlib.sha256(KEY.encode()).digest()})
    with threaded(Both(Server(says(FOUR)), keys=keys)) as both:
        status = ("--write-out", "\n%{http_code}")
        wrong = curl(both.url, "--header", "Authorization: Bearer wrong", *status)
        missing = curl(both.url, *status)
        right = curl(both.url, "--header", f"Authorization: Bearer {KEY}", *status)
        form = curl(
            both.url, "--header", f"Authorization: Bearer {KEY}", "--header", "Content-Type: text/plain", *status
        )
    for refused in (wrong, missing):
        body, code = refused.stdout.rsplit("\n", 1)
        assert code == "401"
        assert json.loads(body)["error"]["code"] == "invalid_api_key"
    assert right.stdout.endswith("\n200")
    assert form.stdout.endswith("\n415")


@curling
@pytest.mark.parametrize("stream", [False, True])
def test_interrupting_curl_ends_the_work(stream: bool) -> None:
    upstream = Server(says(FOUR, FIVE), always=HANG)
    with threaded(Both(upstream)) as both:
        ended = curl(both.url, "--no-buffer", "--max-time", "0.5", stream=stream, outthink={"n": 3, "answer": "math"})
        assert ended.returncode == 28  # its number for a time that is over
        until(lambda: upstream.asked and all(seen.closed for seen in upstream.asked))
        until(lambda: counted(both.service)["outthink_running"] == 0)
        assert counted(both.service)["outthink_disconnects_total"] >= 1


# ------------------------------------------------------------------------------------------------------ the npm client


@pytest.fixture(scope="module")
def packages() -> Path:
    """The folder that holds the npm client, in the cache; it is installed once."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node, or no npm")
    cache = Path(os.environ.get("OUTTHINK_CACHE") or platformdirs.user_cache_dir("outthink"))
    folder = cache / "npm" / NPM
    if not (folder / "installed").exists():
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            quiet = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund")
            command = [npm, "install", "--prefix", str(folder), *quiet, NPM]
            subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=120)
        except (OSError, subprocess.SubprocessError) as failure:
            pytest.skip(f"npm cannot install {NPM}: {failure}")
        (folder / "installed").touch()
    return folder


def node(packages: Path, scene: str, url: str, key: str = "none") -> Any:
    """What a scene of the script prints."""
    command = ["node", str(SCRIPT), str(packages), scene, url]
    environment = {**os.environ, "OPENAI_API_KEY": key}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_npm_client_gets_completions(packages: Path) -> None:
    with threaded(Both(Server(says(FOUR, FIVE, FOUR)))) as both:
        told = node(packages, "plain", both.url)
        made, prompt = both.upstream.made, both.upstream.prompt
    assert told["content"] == FOUR
    assert told["usage"]["completion_tokens"] == made
    assert told["usage"]["prompt_tokens"] == prompt
    assert told["usage"]["completion_tokens_details"]["reasoning_tokens"] == made - size(FOUR)
    assert told["outthink"]["samples"] == 3
    assert told["tokens"] == str(made + prompt)
    assert SC in told["models"]


def test_the_npm_client_streams(packages: Path) -> None:
    with threaded(Both(Server(says(FOUR, FIVE, FOUR)))) as both:
        told = node(packages, "stream", both.url)
    assert told["usage"]["completion_tokens"] == both.upstream.asked[0].made
    assert told["whole"] == told["passed"] == told["helper"] == FOUR
    assert told["samples"] == 3


def test_the_npm_client_calls_tools(packages: Path) -> None:
    with threaded(Both(Server(by_turn))) as both:
        told = node(packages, "tools", both.url)
    assert told["city"] == "Paris"
    assert told["finish"] == "tool_calls"
    assert told["answer"] == "The answer is 21."
    messages = both.upstream.asked[-1].body["messages"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"] == "call_0_0"


def test_the_npm_client_has_its_own_errors(packages: Path) -> None:
    keys = Keys({"ana": hashlib.sha256(KEY.encode()).digest()})
    upstream = Server(says(FOUR), faults=[
        Fault(status=429, headers={"Retry-After": "7"}, body=b"{}"),
        Fault(status=500, body=b"{}"),
        Fault(status=429, headers={"Retry-After": "1"}, body=b"{}"),
    ])  # fmt: skip
    with threaded(Both(upstream, keys=keys)) as both:
        told = node(packages, "errors", both.url, KEY)
    assert told == {
        "bad": ["BadRequestError", 400, None, "temperature"],
        "key": ["AuthenticationError", 401, "invalid_api_key", None],
        "model": ["NotFoundError", 404, "model_not_found", "model"],
        "rate": ["RateLimitError", 429, "upstream_rate_limit", None],
        "after": "7",
        "server": ["InternalServerError", 503, "upstream_unavailable", None],
        "again": FOUR,
    }
    assert upstream.asked[3].at - upstream.asked[2].at >= 1.0


def test_the_npm_client_can_be_aborted(packages: Path) -> None:
    """It is aborted while the server works, and in the middle of a stream."""
    upstream = Server(says("one two three"), faults=[HANG, Fault(after=4, then="hang")])
    with threaded(Both(upstream)) as both:
        told = node(packages, "abort", both.url)
        assert told == {"whole": "APIUserAbortError", "first": "one"}
        assert len(upstream.asked) == 2
        until(lambda: all(seen.closed for seen in upstream.asked))
        until(lambda: counted(both.service)["outthink_disconnects_total"] == 2)
