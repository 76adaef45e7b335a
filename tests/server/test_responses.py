"""The doors of responses and completions: what the model is asked, each event in its place, and the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from outthink.models.engine import Price
from outthink.server.problems import APIError
from outthink.server.responses import ResponsesForm
from tests.server.test_clients import FIVE, FOUR, SC, size, talking
from tests.tools.server import Fault, Said, Server, run, says
from tests.tools.serving import Answer, asked, serving, until

RESPONSES = "/v1/responses"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": None,
}
IMAGE = "data:image/png;base64,aaaa"


def respond(*replies: str | Said, **body: Any) -> Answer:
    """The reply to a request, and nothing of a client."""

    async def go() -> Answer:
        async with Server(says(*replies)) as up, serving(up) as (url, _):
            return await asked(url, {"model": "m", "input": "What is 2+2?", **body}, path=RESPONSES)

    return run(go())


def events(answer: Answer) -> list[dict[str, Any]]:
    """Those of a stream, each as the official client's types have it."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = []
    for block in answer.body.decode().split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n")
            told.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {told[-1]['type']}"
            EVENT.validate_python(told[-1])
    assert [one["sequence_number"] for one in told] == list(range(len(told)))
    return told


def kinds(told: Sequence[dict[str, Any]]) -> list[str]:
    """The kinds of events in order, repeats left out."""
    names = [one["type"].removeprefix("response.") for one in told]
    return [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]


TEXT = ["content_part.added", "output_text.delta", "output_text.done", "content_part.done", "output_item.done"]
CALL = ["function_call_arguments.done", "output_item.done"]


# --------------------------------------------------------------------------------------------------------------- asked


def same(chat: dict[str, Any], response: dict[str, Any], *replies: str | Said) -> tuple[Any, Any]:
    """What the model is asked by a chat, and by a request for a response."""

    async def go() -> list[list[Any]]:
        told = []
        for path, body in (("/v1/chat/completions", chat), (RESPONSES, response)):
            async with Server(says(*replies or (FOUR,))) as up, serving(up) as (url, _):
                answer = await asked(url, {"model": SC, "seed": 7, **body}, path=path)
                assert answer.status == 200, answer.body
                told.append([seen.body for seen in up.asked])
        return told

    first, second = run(go())
    return first, second


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a text": ({"messages": [{"role": "user", "content": "Hi"}]}, {"input": "Hi"}),
    "instructions and settings": (
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 50, "user": "ann", "verbosity": "low",
            "parallel_tool_calls": False, "repetition_penalty": 1.1,
        },
        {
            "input": "Hi", "instructions": "Be brief.", "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 50,
            "user": "ann", "text": {"verbosity": "low", "format": {"type": "text"}}, "parallel_tool_calls": False,
            "repetition_penalty": 1.1, "store": False, "metadata": {"a": "b"}, "truncation": "disabled",
            "include": ["reasoning.encrypted_content"], "previous_response_id": None,
        },
    ),
    "a conversation": (
        {
            "messages": [
                {"role": "developer", "content": "Help."},
                {"role": "user", "content": [
                    {"type": "text", "text": "And this?"},
                    {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
                ]},
                {"role": "assistant", "content": [{"type": "text", "text": "A cat."}], "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}},
                    {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                ]},
                {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
                {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "rain"}]},
            ]
        },
        {
            "input": [
                {"role": "developer", "content": "Help."},
                {"type": "message", "role": "user", "content": [
                    {"type": "input_text", "text": "And this?"},
                    {"type": "input_image", "image_url": IMAGE, "detail": "low"},
                ]},
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [
                    {"type": "output_text", "text": "A cat.", "annotations": []},
                ]},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Ulm"}'},
                {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "rain"}]},
            ]
        },
    ),
    "tools": (
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [{"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
        },
        {"input": "Hi", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}},
    ),
    "a schema": (
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": True}},
        },
        {"input": "Hi", "text": {"format": {"type": "json_schema", "name": "a", "schema": {}, "strict": True}}},
    ),
    "an object": (
        {"messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_object"}},
        {"input": "Hi", "text": {"format": {"type": "json_object"}}},
    ),
    "logprobs": (
        {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 2},
        {"input": "Hi", "top_logprobs": 2, "include": ["message.output_text.logprobs"]},
    ),
    "effort": (
        {"messages": [{"role": "user", "content": "Hi"}], "reasoning_effort": "minimal"},
        {"input": "Hi", "reasoning": {"effort": "minimal", "summary": "auto"}},
    ),
    "what we know": (
        {"messages": [{"role": "user", "content": "Hi"}], "outthink": {"n": 3, "answer": "math"}},
        {"input": "Hi", "outthink": {"n": 3, "answer": "math"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_model_is_asked_as_by_a_chat_in_other_words(case: str) -> None:
    chat, response = same(*CASES[case])
    assert chat == response
    assert chat


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send all earlier turns as input"),
        ({"conversation": "c"}, "conversation", "keeps no responses"),
        ({"prompt": {"id": "p"}}, "prompt", "keeps no responses"),
        ({"store": True}, "store", "send store as false"),
        ({"background": True}, "background", "leave background out"),
        ({"truncation": "auto"}, "truncation", "refused and not cut"),
        ({"tools": [{"type": "web_search"}]}, "tools.0", "only functions"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice", "only functions"),
        ({"include": ["file_search_call.results"]}, "include", "nothing to include"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0", "kind of item"),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input.0.content.0", "kind of content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input.0.content.0", ""),
        ({"input": [{"role": "user", "content": ["x"]}]}, "input.0.content.0", ""),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input", "nothing to answer"),
        ({"input": [{"role": "robot", "content": "x"}], "instructions": "x"}, "input.0.role", "must be one of"),
        ({"input": [{"role": "user"}]}, "input.0.content", "text or a list"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input.0.content.0.text", "must be text"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": {}}]}, "input.0.arguments", "must be text"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.call_id", "must be text"),
        ({"text": {"format": {}}}, "text.format.type", "must be text"),
        ({"input": []}, "input", ""),
        ({"input": 5}, "input", ""),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", ""),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary", ""),
        ({"max_output_tokens": 0}, "max_output_tokens", ""),
        ({"messages": []}, "messages", "here it is input"),
        ({"n": 2}, "n", "here it is outthink.n"),
        ({"max_tokens": 5}, "max_tokens", "here it is max_output_tokens"),
        ({"text": {"format": {"type": "json_object"}}, "model": "m+iterative_deepening"}, "text.format", ""),
        ({"model": "nothing"}, "model", "no model"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_field(body: dict[str, Any], param: str, said: str) -> None:
    answer = respond(FOUR, **body)
    assert answer.status in (400, 404), answer.body
    assert answer.error["param"] == param
    assert said in answer.error["message"]


# ----------------------------------------------------------------------------------------------------- by the client


def test_the_client_gets_a_text_and_the_whole_bill() -> None:
    with talking(FOUR, FIVE, FOUR, price=Price(prompt=1, completion=2)) as (client, up):
        response = client.responses.create(
            model=SC,
            input="What is 2+2?",
            instructions="Be brief.",
            extra_body={"outthink": {"n": 3, "answer": "math"}},
        )
    assert (response.output_text, response.status, response.object) == (FOUR, "completed", "response")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (up.prompt, up.made)
    assert up.made == size(FOUR, FIVE, FOUR)
    assert response.usage.output_tokens_details.reasoning_tokens == size(FIVE, FOUR)
    assert response.usage.total_tokens == up.prompt + up.made
    assert response.id.startswith("resp_")
    told: Any = response.model_extra
    assert told["outthink"]["strategy"]["n"] == 3
    assert told["outthink"]["cost"]["usd"] == pytest.approx((up.prompt + 2 * up.made) / 1e6)
    Response.model_validate(response.model_dump(mode="json"))


def test_effort_draws_as_many_samples_as_for_chats() -> None:
    with talking(FOUR) as (client, up):
        response = client.responses.create(model=SC, input="What is 2+2?", reasoning={"effort": "low"})
        assert sum(seen.body.get("n", 1) for seen in up.asked) == 4
    assert response.reasoning is not None
    assert response.reasoning.effort == "low"


def test_the_client_reads_a_schema() -> None:
    class Sum(BaseModel):
        total: int

    with talking('{"total": 4}') as (client, up):
        parsed = client.responses.parse(model=SC, input="What is 2+2?", text_format=Sum)
        form = up.asked[0].body["response_format"]
    assert parsed.output_parsed == Sum(total=4)
    assert form["json_schema"]["schema"]["properties"]["total"]["type"] == "integer"


def test_the_client_calls_tools_and_goes_on() -> None:
    called = Said(calls=(("weather", '{"city": "Ulm"}'), ("weather", '{"city": "Bonn"}')))
    with talking(called) as (client, up):
        items: list[Any] = [{"role": "user", "content": "Weather?"}]
        response = client.responses.create(model=SC, input=items, tools=[WEATHER])  # type: ignore[list-item]
        calls = [item for item in response.output if item.type == "function_call"]
        assert [json.loads(call.arguments)["city"] for call in calls] == ["Ulm", "Bonn"]
        assert len({call.call_id for call in calls}) == 2
        up.reply = says("Sunny.")
        items += response.output
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"} for call in calls]
        again = client.responses.create(model=SC, input=items, tools=[WEATHER])  # type: ignore[list-item]
        turns = up.asked[-1].body["messages"]
    assert again.output_text == "Sunny."
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in turns[1]["tool_calls"]] == [call.call_id for call in calls]


@pytest.mark.parametrize("model", ["m+none", SC])
def test_the_client_s_own_accumulator_agrees(model: str) -> None:
    with talking(FOUR) as (client, _), client.responses.stream(model=model, input="What is 2+2?") as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert deltas == final.output_text == FOUR
    assert final.usage is not None
    assert final.usage.output_tokens > 0


def test_failures_are_those_of_the_api() -> None:
    with talking(FOUR) as (client, up):
        up.always = Fault(status=429, body=b"{}", headers={"Retry-After": "1"})
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model="m", input="Hi")
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="nothing", input="Hi")
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model="m", input="Hi", previous_response_id="resp_1")
    assert refused.value.param == "previous_response_id"


# ------------------------------------------------------------------------------------------------------------- events


@pytest.mark.parametrize("model", ["m+none", SC], ids=["passed on", "chosen"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (FOUR, ["output_item.added", *TEXT]),
        (
            Said(text=FOUR, thoughts="Two and two."),
            [
                "output_item.added",
                *(name.replace("output_text", "reasoning_text") for name in TEXT),
                "output_item.added",
                *TEXT,
            ],
        ),
        (
            Said(calls=(("weather", '{"city": "Ulm"}'), ("time", "{}"))),
            ["output_item.added", "function_call_arguments.delta"] * 2 + CALL * 2,
        ),
        (
            Said(text="Let me look.", calls=(("weather", "{}"),)),
            ["output_item.added", *TEXT, "output_item.added", "function_call_arguments.delta", *CALL],
        ),
    ],
)
def test_events_come_in_order_and_make_up_the_response(model: str, said: str | Said, expected: list[str]) -> None:
    body = {"model": model, "tools": [WEATHER]}
    told = events(respond(said, stream=True, **body))
    assert kinds(told) == ["created", "in_progress", *expected, "completed"]
    whole = respond(said, **body).json
    final = told[-1]["response"]
    Response.model_validate(whole)

    def stripped(response: dict[str, Any]) -> list[dict[str, Any]]:
        return [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in response["output"]]

    assert stripped(final) == stripped(whole)
    assert final["usage"] == whole["usage"]
    assert [one["item"] for one in told if one["type"] == "response.output_item.done"] == final["output"]
    for place, item in enumerate(final["output"]):
        own = [one for one in told if one.get("output_index") == place]
        pieces = "".join(one["delta"] for one in own if one["type"].endswith(".delta"))
        assert pieces == (item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])
        assert {one["item_id"] for one in own if "item_id" in one} == {item["id"]}


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_cut_off_is_incomplete(stream: bool) -> None:
    answer = respond("one two three four", model="m+none", max_output_tokens=3, stream=stream)
    response = events(answer)[-1]["response"] if stream else answer.json
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"
    assert response["output"][0]["content"][0]["text"] == "one two"


def test_logprobs_come_with_the_text() -> None:
    answer = respond(FOUR, model="m+none", include=["message.output_text.logprobs"])
    (part,) = answer.json["output"][0]["content"]
    assert "".join(one["token"] for one in part["logprobs"]).startswith(FOUR[:-1])
    told = events(respond(FOUR, model="m+none", include=["message.output_text.logprobs"], stream=True))
    deltas = [one for one in told if one["type"] == "response.output_text.delta"]
    assert [one["logprobs"][0]["token"] for one in deltas] == [one["delta"] for one in deltas]


def test_nothing_said_is_an_empty_text() -> None:
    (item,) = respond("", model="m+none").json["output"]
    assert (item["type"], item["content"][0]["text"]) == ("message", "")
    told = events(respond("", model="m+none", stream=True))
    assert kinds(told)[-1] == "completed"
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == ""


def test_a_break_in_the_middle_is_told_in_the_response() -> None:
    async def go() -> list[Answer]:
        up = Server(says(" ".join(["word"] * 50)), always=Fault(after=9))
        async with up, serving(up, patience={"attempts": 1}) as (url, _):
            body = {"model": "m+none", "input": "Hi", "stream": True}
            cut = await asked(url, body, path=RESPONSES)
            up.always = Fault(
                body=b'data: {"choices":[{"index":0,"delta":{"content":"So"}}]}\n\ndata: {"error":{}}\n\n'
            )
            up.always = replace(up.always, kind="text/event-stream")
            return [cut, await asked(url, body, path=RESPONSES)]

    for answer in run(go()):
        last = events(answer)[-1]
        assert last["type"] in ("response.incomplete", "response.failed")
        assert last["type"] == f"response.{last['response']['status']}"


def test_a_failure_after_the_first_words_is_a_failed_response() -> None:
    form = ResponsesForm({"model": "m", "input": "Hi", "stream": True})
    choice = {"index": 0, "delta": {"content": "So"}, "finish_reason": None}
    told = form.chunk({"id": "chatcmpl-1", "created": 1, "model": "m", "choices": [choice]})
    told += form.fail(APIError(status=502, sentence="The upstream failed.", kind="server_error"))
    last = json.loads(told.decode().split("\n\n")[-2].split("data: ")[1])
    EVENT.validate_python(last)
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "The upstream failed."}


def test_progress_is_not_told_in_words_that_clients_do_not_know() -> None:
    told = events(respond(FOUR, model=SC, stream=True, outthink={"progress": True}))
    assert kinds(told)[-1] == "completed"


# ---------------------------------------------------------------------------------------------------------- completions


def complete(*replies: str | Said, **body: Any) -> tuple[Answer, list[Any]]:
    """The reply to a request for completions, and what the model was asked."""

    async def go() -> tuple[Answer, list[Any]]:
        async with Server(says(*replies)) as up, serving(up) as (url, _):
            answer = await asked(url, {"model": "m", "prompt": "One, two,", **body}, path="/v1/completions")
            return answer, [seen.body for seen in up.asked]

    return run(go())


def test_a_prompt_is_a_chat_of_one_message() -> None:
    settings = {"temperature": 0.5, "max_tokens": 9, "stop": [";"], "seed": 7, "user": "ann", "n": 2}
    _, asked_bodies = complete(FOUR, FIVE, model=SC, **settings)

    async def go() -> list[Any]:
        async with Server(says(FOUR, FIVE)) as up, serving(up) as (url, _):
            chat = {"model": SC, "messages": [{"role": "user", "content": "One, two,"}], **settings}
            assert (await asked(url, chat)).status == 200
            return [seen.body for seen in up.asked]

    assert asked_bodies == run(go())


def test_the_client_gets_completions_of_several_prompts_in_order() -> None:
    with talking(FOUR, FIVE) as (client, up):
        up.reply = lambda ask: f"{ask.messages[-1][1]} {ask.choice}"
        done = client.completions.create(model="m+none", prompt=["a", "b", "c"], n=2, max_tokens=20)
        assert [choice.text for choice in done.choices] == ["a 0", "a 1", "b 0", "b 1", "c 0", "c 1"]
        assert [choice.index for choice in done.choices] == list(range(6))
        assert done.usage is not None
        assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (up.prompt, up.made)
        assert (done.object, done.choices[0].finish_reason) == ("text_completion", "stop")
        assert len(done.model_extra["outthink"]) == 3  # type: ignore[index]
        one = client.completions.create(model=SC, prompt="a")
        assert one.model_extra["outthink"]["strategy"]["name"] == "self_consistency"  # type: ignore[index]


def test_the_client_streams_a_completion() -> None:
    def read(stream: Iterator[Any]) -> tuple[str, str, int]:
        chunks = list(stream)
        assert {chunk.object for chunk in chunks} == {"text_completion"}
        text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
        ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        return text, ends[0], chunks[-1].usage.completion_tokens

    with talking(FOUR) as (client, up):
        options: Any = {"prompt": "a", "stream": True, "stream_options": {"include_usage": True}}
        assert read(client.completions.create(model="m+none", **options)) == (FOUR, "stop", up.made)
        up.seen.clear()
        assert read(client.completions.create(model=SC, **options)) == (FOUR, "stop", up.made)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_have_the_form_of_completions(stream: bool) -> None:
    answer, bodies = complete(FOUR, model="m+none", logprobs=2, stream=stream)
    assert (bodies[0]["logprobs"], bodies[0]["top_logprobs"]) == (True, 2)
    chunks = [one for one in answer.events if one != "[DONE]"] if stream else [answer.json]
    told = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]]
    tokens = [token for one in told for token in one["tokens"]]
    offsets = [offset for one in told for offset in one["text_offset"]]
    assert "".join(tokens).startswith(FOUR[:-1])
    assert offsets == [sum(map(len, tokens[:place])) for place in range(len(tokens))]
    assert all(value <= 0 for one in told for value in one["token_logprobs"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"tools": []}, "tools"),
        ({"messages": []}, "messages"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 2}, "prompt"),
        ({"prompt": ["a", "b"], "stream": True}, "stream"),
        ({"logprobs": True}, "logprobs"),
        ({"model": "nothing"}, "model"),
        ({"prompt": "word " * 9000}, "prompt"),
    ],
)
def test_what_completions_cannot_do_is_refused_with_the_field(body: dict[str, Any], param: str) -> None:
    answer, bodies = complete(FOUR, **body)
    assert answer.status in (400, 404), answer.body
    assert answer.error["param"] == param
    assert not bodies


def test_where_one_of_several_prompts_fails_the_others_are_stopped() -> None:
    async def go() -> tuple[Answer, int, int]:
        up = Server(says(" ".join(["word"] * 400)), pace=0.1)
        up.faults = [Fault(), Fault(status=400, body=b'{"error": {"message": "no"}}')]
        async with up, serving(up) as (url, service):
            answer = await asked(url, {"model": "m+none", "prompt": ["a", "b"]}, path="/v1/completions")
            await until(lambda: not service.running.jobs)
            return answer, up.made, up.running

    answer, made, running = run(go())
    assert (answer.status, answer.error["code"]) == (400, "upstream_refused")
    assert made < 400
    assert running == 0
