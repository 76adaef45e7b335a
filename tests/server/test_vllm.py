"""The server in front of a real vLLM; `scripts/test-vllm` starts one and runs this.

What it prints is seen with `scripts/test-vllm -s`: how long vLLM works on for a caller who has left, and what a request
takes through the server and straight at vLLM.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import statistics
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from outthink.models.openai.engine import OpenAIEngine
from outthink.rewards.making import Opened
from outthink.server.app import Service
from outthink.server.keys import Keys, make_key
from outthink.server.listening import listening
from outthink.server.models import Served
from outthink.server.record import Recorder
from outthink.server.routing import ServerRules
from outthink.server.settings import Settings
from outthink.strategies import Strategy
from outthink.strategies.making import make_strategy
from tests.models.test_vllm import URL, metrics, page, since
from tests.tools.serving import command

pytestmark = [pytest.mark.skipif(not URL, reason="scripts/test-vllm runs this"), pytest.mark.timeout(300)]
MODEL = "smollm2"
PAIRS = 20  # of requests whose time is compared
ASK: list[Any] = [{"role": "user", "content": "What is 2 + 3? Put the answer into \\boxed{}."}]
STORY: list[Any] = [{"role": "user", "content": "Write a very long story about the sea."}]
LIST: list[Any] = [{"role": "user", "content": "Write the numbers one to four, each on a line of its own."}]
ENDLESS = {"ignore_eos": True}  # a field of vLLM: it writes until it is stopped
SCHEMA = {
    "type": "object",
    "properties": {"even": {"type": "boolean"}, "digit": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["even", "digit"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "note", "parameters": SCHEMA, "strict": True}}


@contextlib.contextmanager
def serving(
    scorers: Mapping[str, str] | None = None,
    strategy: Strategy | None = None,
    settings: Settings | None = None,
    **parts: Any,
) -> Iterator[str]:
    """A server in a thread of its own; its address."""
    engine = OpenAIEngine.open(URL)
    scorers = scorers or {}
    opened: dict[str, Any] = {role: Opened(given, process=role == "prm") for role, given in scorers.items()}
    address: Future[str] = Future()
    ended = threading.Event()

    async def serve() -> None:
        policy = ServerRules(strategy=strategy, scorers=scorers)
        service = Service(settings or Settings(port=0), policy, Served({MODEL: engine}), scorers=opened, **parts)
        async with listening(service) as url:
            address.set_result(url)
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield address.result(30)
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(scope="module")
def judged() -> Iterator[str]:
    with serving({"verifier": "judge"}) as url:
        yield url


@pytest.fixture(scope="module")
def confident() -> Iterator[str]:
    by_line = make_strategy("rebase", {"width": "4", "delimiter": "\n"})
    with serving({"verifier": "confidence", "prm": "confidence"}, by_line) as url:
        yield url


def asking(url: str, key: str = "none") -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120)


def ask(url: str, strategy: str = "none", *, outthink: Mapping[str, Any] | None = None, **fields: Any) -> Any:
    """A whole reply of OpenAI's client; the object `outthink` is an attribute of it."""
    with asking(url) as client:
        extra = {"outthink": outthink or {}, **fields.pop("extra_body", {})}
        request = {"messages": ASK, "max_tokens": 48, **fields}
        return client.chat.completions.create(model=f"{MODEL}+{strategy}", extra_body=extra, **request)


def ask_in_pieces(url: str, strategy: str = "none", **fields: Any) -> tuple[list[str], list[Any]]:
    """The pieces of the first answer of a stream that tells its usage, and all chunks."""
    with asking(url) as client:
        request = {"messages": ASK, "max_tokens": 48, **fields}
        stream = client.chat.completions.create(
            model=f"{MODEL}+{strategy}", stream=True, stream_options={"include_usage": True}, **request
        )
        chunks = list(stream)
    said = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.index == 0]
    return [piece for piece in said if piece], chunks


def requests_to(path: str) -> float:
    """How many requests vLLM has answered there."""
    lines = [line for line in page() if line.startswith(f'http_requests_total{{handler="{path}"')]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def running() -> float:
    """Samples that vLLM writes at this moment or is about to."""
    names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
    return sum(float(line.rpartition(" ")[2]) for line in page() if line.startswith(names))


def told(url: str) -> Counter[str]:
    """What the server itself has counted."""
    with urllib.request.urlopen(f"{url}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    return Counter({line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"})


def ledger(told: Any) -> Counter[str]:
    """Tokens of all calls, `prompt` as vLLM counts it: for each sample again, where its reply counts it once a call."""
    sums: Counter[str] = Counter()
    for line in told["ledger"]:
        assert line["exact"]
        sums["completion"] += line["completion_tokens"]
        sums["prompt"] += line["prompt_tokens"] * line["samples"] // line["calls"]
    return sums


# -------------------------------------------------------------------------------------------- answers and their tokens

WAYS = [
    ("plain", "none", {}, {}),
    ("plain", "none", {}, {"n": 3}),
    ("plain", "greedy", {}, {}),
    ("plain", "self_consistency", {"n": 6, "answer": "math"}, {}),
    ("plain", "self_consistency", {"n": 6}, {"n": 2}),
    ("plain", "adaptive_consistency", {"n": 6, "answer": "math"}, {}),
    ("plain", "auto", {}, {"max_tokens": 16}),
    ("judged", "best_of_n", {"n": 4}, {}),
    ("confident", "best_of_n", {"n": 4}, {}),
    ("confident", "none", {}, {}),
]


@pytest.mark.parametrize(("server", "strategy", "outthink", "fields"), WAYS)
def test_tokens_are_those_of_vllm(
    server: str, strategy: str, outthink: Any, fields: Any, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(server)
    before = metrics()
    reply = ask(url, strategy, outthink=outthink, **fields)
    assert reply.outthink["stopped"] == "finished"
    assert reply.outthink["strategy"]["name"] == strategy
    counted = ledger(reply.outthink)
    checks = reply.outthink["verifier_tokens"]["completion"]
    assert reply.usage.completion_tokens + checks == counted["completion"]
    assert since(before, "vllm:generation_tokens_total") == counted["completion"]
    assert since(before, "vllm:prompt_tokens_total") == counted["prompt"]
    assert all(choice.message.content for choice in reply.choices)


def test_samples_are_one_request(plain: str) -> None:
    """Of n = 6 one request where it is known how to compare them, else two: the first sample is looked at."""
    before = requests_to("/v1/chat/completions")
    ask(plain, "self_consistency", outthink={"n": 6, "answer": "math"})
    assert requests_to("/v1/chat/completions") == before + 1
    reply = ask(plain, "self_consistency", outthink={"n": 6})
    assert requests_to("/v1/chat/completions") == before + 1 + (2 if reply.outthink["samples"] > 1 else 1)


def test_cached_tokens_are_those_of_vllm(plain: str) -> None:
    """A prompt is cached in blocks of 128 tokens, or so; the second reader finds all of its whole blocks."""
    context = " ".join(f"Item {number} costs {number * 7 % 31} coins." for number in range(60))
    messages = [{"role": "user", "content": f"{context} Which item is the dearest?"}]
    for strategy, n in (("none", 1), ("none", 1), ("self_consistency", 4)):
        before = metrics()
        reply = ask(plain, strategy, outthink={"answer": "math", "n": n} if n > 1 else {}, messages=messages)
        cached = reply.usage.prompt_tokens_details.cached_tokens
        hits = since(before, "vllm:prefix_cache_hits_total")
        assert hits == n * cached
        assert since(before, "vllm:prompt_tokens_cached_total") == hits
    assert cached > reply.usage.prompt_tokens / 2


def test_steps_are_continued_by_their_ids(confident: str) -> None:
    before, continued = metrics(), requests_to("/v1/completions")
    reply = ask(confident, "rebase", messages=LIST)
    counted = ledger(reply.outthink)
    assert reply.outthink["stopped"] == "finished"
    assert since(before, "vllm:generation_tokens_total") == counted["completion"] == reply.usage.completion_tokens
    assert requests_to("/v1/completions") > continued


def test_a_judge_reads_its_verdict_from_one_token(judged: str) -> None:
    reply = ask(judged, "best_of_n", outthink={"n": 4})
    lines = {line["kind"]: line for line in reply.outthink["ledger"]}
    assert lines["judge"]["completion_tokens"] == lines["judge"]["samples"] == lines["sample"]["samples"] == 4
    confidence = reply.outthink["confidence"]  # None where no verdict is among the likeliest tokens
    assert confidence is None or 0 <= confidence <= 1


# ------------------------------------------------------------------------------------------------------------- streams


def test_one_sample_is_passed_on_as_it_is_written(plain: str) -> None:
    before = metrics()
    said, chunks = ask_in_pieces(plain, seed=5)
    usage = chunks[-1].usage
    assert since(before, "vllm:generation_tokens_total") == usage.completion_tokens
    assert len(said) > usage.completion_tokens / 2 > 4  # token by token
    assert "".join(said) == ask(plain, seed=5).choices[0].message.content


def test_every_choice_of_a_stream_is_whole(plain: str) -> None:
    _, chunks = ask_in_pieces(plain, n=3)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert {choice.index for choice in choices} == {0, 1, 2}
    assert sorted(choice.index for choice in choices if choice.finish_reason) == [0, 1, 2]


def test_the_winner_is_streamed(plain: str) -> None:
    before = metrics()
    said, chunks = ask_in_pieces(plain, "self_consistency", extra_body={"outthink": {"n": 5, "answer": "math"}})
    assert since(before, "vllm:generation_tokens_total") == chunks[-1].usage.completion_tokens
    assert chunks[-1].outthink["ledger"][0]["samples"] == 5
    assert "".join(said)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]


# -------------------------------------------------------------------------------------------------- fields of requests


def test_the_same_seed_gives_the_same_text(plain: str) -> None:
    """The odds that two seeds give one text of 48 tokens by chance are next to nothing at this temperature."""
    one, two, other = (
        ask(plain, seed=seed, temperature=1.2, messages=STORY).choices[0].message.content for seed in (7, 7, 8)
    )
    assert one == two != other


def test_with_a_seed_samples_differ_and_are_those_of_vllm(plain: str) -> None:
    """Choice k is what vLLM itself writes as its choice k.

    The last digits of its arithmetic depend on what it works on beside, so after many tokens this might not hold.
    """
    ours = ask(plain, seed=7, n=3, temperature=1.2, messages=STORY, max_tokens=12)
    with OpenAI(base_url=URL, api_key="none") as client:
        straight = client.chat.completions.create(
            model=MODEL, messages=STORY, max_tokens=12, seed=7, n=3, temperature=1.2
        )
    texts = [choice.message.content for choice in ours.choices]
    assert texts == [choice.message.content for choice in straight.choices]
    assert len(set(texts)) == 3


@pytest.mark.parametrize(("strategy", "wish"), [("none", {}), ("self_consistency", {"n": 3, "answer": "text"})])
def test_stop_strings_end_an_answer(strategy: str, wish: Any, plain: str) -> None:
    """The model can write nothing but these words."""
    words = {"structured_outputs": {"regex": "one two three four"}}
    for fields, text in (({}, "one two three four"), ({"stop": ["three", "nine"]}, "one two ")):
        before = metrics()
        reply = ask(plain, strategy, outthink=wish, extra_body=words, **fields)
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (text, "stop")
        assert since(before, "vllm:generation_tokens_total") == reply.usage.completion_tokens
        said, chunks = ask_in_pieces(plain, strategy, extra_body={"outthink": wish, **words}, **fields)
        assert "".join(said) == text
        assert [one.finish_reason for chunk in chunks for one in chunk.choices if one.finish_reason] == ["stop"]


@pytest.mark.parametrize(("strategy", "wish"), [("none", {}), ("self_consistency", {"n": 3, "answer": "math"})])
def test_logprobs_are_those_of_the_answer(strategy: str, wish: Any, plain: str) -> None:
    reply = ask(plain, strategy, outthink=wish, logprobs=True, top_logprobs=2)
    choice = reply.choices[0]
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens).removesuffix("<|im_end|>") == choice.message.content
    assert all(len(token.top_logprobs) >= 2 and token.logprob <= 0 for token in tokens)
    if strategy == "none":
        assert len(tokens) == reply.usage.completion_tokens


def test_nobody_gets_logprobs_that_a_verifier_reads(confident: str) -> None:
    reply = ask(confident)
    assert reply.choices[0].logprobs is None
    _, chunks = ask_in_pieces(confident)
    assert not any(choice.logprobs for chunk in chunks for choice in chunk.choices)


def test_logprobs_are_streamed(plain: str) -> None:
    _, chunks = ask_in_pieces(plain, logprobs=True)
    logprobs = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
    assert sum(len(told.content) for told in logprobs) == chunks[-1].usage.completion_tokens


def test_answers_have_the_form_of_a_schema(plain: str) -> None:
    """Blanks are part of the form, so that now and then a sample has nothing but them to its end."""
    form = {"type": "json_schema", "json_schema": {"name": "digit", "schema": SCHEMA, "strict": True}}
    reply = ask(plain, "self_consistency", outthink={"n": 5}, response_format=form, max_tokens=400)
    value = json.loads(reply.choices[0].message.content)
    assert type(value["even"]) is bool
    assert value["digit"] in range(10)
    assert reply.outthink["ledger"][0]["samples"] == 5
    assert 1 <= reply.outthink["distinct"] <= reply.outthink["samples"] <= 5
    assert 1 / 5 <= reply.outthink["confidence"] <= 1


def arguments(choice: Any) -> list[Any]:
    """Of its calls of `note`; there are no others."""
    assert choice.finish_reason == "tool_calls"
    assert {call.function.name for call in choice.message.tool_calls} == {"note"}
    return [json.loads(call.function.arguments) for call in choice.message.tool_calls]


def test_calls_of_a_tool_are_voted_on(plain: str) -> None:
    before = metrics()
    fields: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 400}
    reply = ask(plain, "self_consistency", outthink={"n": 4}, **fields)
    assert all(given.keys() == {"even", "digit"} for given in arguments(reply.choices[0]))
    assert reply.outthink["ledger"][0]["samples"] == 4
    assert 1 / 4 <= reply.outthink["confidence"] <= 1
    assert since(before, "vllm:generation_tokens_total") == reply.usage.completion_tokens


@pytest.mark.parametrize("strategy", ["none", "self_consistency"])
def test_calls_of_a_tool_are_streamed(strategy: str, plain: str) -> None:
    """OpenAI's client puts them together."""
    fields: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 1600, "messages": ASK}
    with asking(plain) as client, client.chat.completions.stream(model=f"{MODEL}+{strategy}", **fields) as stream:
        choice = stream.get_final_completion().choices[0]
    assert all(given.keys() == {"even", "digit"} for given in arguments(choice))


# ----------------------------------------------------------------------------------------------- refusals of vLLM's own


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool"),
        ({"extra_body": {"min_tokens": 99}}, "min_tokens"),
        ({"logit_bias": {"999999": 1}}, "logit_bias|vocab"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}}, "."),
    ],
)
def test_what_vllm_refuses_is_refused_in_its_words(fields: Any, words: str, stream: bool, plain: str) -> None:
    before = metrics()
    for strategy in ("none", "self_consistency"):
        with pytest.raises(openai.BadRequestError) as refused:
            (ask_in_pieces if stream else ask)(plain, strategy, **fields)
        assert refused.value.type == "invalid_request_error"
        assert refused.value.code == "upstream_refused"
        assert re.search(words, refused.value.message, re.IGNORECASE)
    assert since(before, "vllm:generation_tokens_total") == 0


def test_a_prompt_beyond_the_context_is_refused(plain: str) -> None:
    before = requests_to("/v1/chat/completions")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(plain, messages=[{"role": "user", "content": "word " * 3000}])
    assert refused.value.code == "context_length_exceeded"
    assert requests_to("/v1/chat/completions") == before


def test_an_answer_may_fill_the_context(plain: str) -> None:
    """Without max_tokens it is as long as there is room."""
    words = {"role": "user", "content": "word " * 1950}
    reply = ask(plain, messages=[words], max_tokens=openai.omit, extra_body=ENDLESS)
    assert reply.usage.total_tokens == 2048
    assert reply.choices[0].finish_reason == "length"


# -------------------------------------------------------------------------------------------------------------- leaving


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> float:
    """Seconds until it holds; fails where it never does."""
    begun = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - begun < seconds
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def post(url: str, **body: Any) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json={"messages": STORY, "max_tokens": 1500, **body}) as reply,
    ):
        return await reply.json()


async def leave_while_waiting(url: str) -> float:
    """Seconds until vLLM has nothing to do after a caller who waits for 8 samples has left."""
    fields = {"model": f"{MODEL}+self_consistency", "outthink": {"n": 8, "answer": "math"}, **ENDLESS}
    asked = asyncio.ensure_future(post(url, **fields))
    await until(lambda: running() == 8)
    await asyncio.sleep(1.0)  # some tokens are written
    asked.cancel()
    return await until(lambda: running() == 0)


async def leave_while_reading(url: str) -> float:
    """The same after a caller who reads a stream of 8 choices has left."""
    body = {"model": MODEL, "n": 8, "messages": STORY, "max_tokens": 1500, "stream": True, **ENDLESS}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=body) as reply:
        for _ in range(100):
            assert await reply.content.readline()
        assert running() == 8
        reply.close()
        return await until(lambda: running() == 0)


@pytest.mark.parametrize("leave", [leave_while_waiting, leave_while_reading])
def test_the_work_ends_when_the_caller_leaves(leave: Callable[[str], Awaitable[float]]) -> None:
    async def left(url: str) -> float:
        seconds = await leave(url)
        await until(lambda: told(url)["outthink_running"] == 0)
        return seconds

    with serving() as url:
        before = metrics()
        seconds = asyncio.run(left(url))
        made, counted = since(before, "vllm:generation_tokens_total"), told(url)
    print(f"\n{leave.__name__}: vLLM was idle after {seconds:.2f} s, {made:.0f} tokens written")
    assert 8 <= made < 8 * 1500
    assert counted['outthink_samples_total{outcome="cancelled"}'] == 8
    assert made <= counted["outthink_cancelled_tokens_total"]
    assert made <= counted['outthink_tokens_total{by="model",kind="completion"}'] <= 8 * 1500
    assert counted["outthink_disconnects_total"] == 1
    status = {name: count for name, count in counted.items() if name.startswith("outthink_requests_total")}
    assert [(re.findall('status="(.*?)"', name), count) for name, count in status.items()] == [(["499"], 1)]


@pytest.mark.parametrize("stream", [False, True])
def test_the_work_ends_at_the_deadline(stream: bool, plain: str) -> None:
    before, told_before = metrics(), told(plain)
    wish = {"n": 8, "answer": "math", "budget": {"seconds": 2}}
    fields: dict[str, Any] = {"messages": STORY, "max_tokens": 1500}
    if stream:
        said, chunks = ask_in_pieces(plain, "self_consistency", extra_body={"outthink": wish, **ENDLESS}, **fields)
        usage, more, text = chunks[-1].usage, chunks[-1].outthink, "".join(said)
    else:
        reply = ask(plain, "self_consistency", outthink=wish, extra_body=ENDLESS, **fields)
        usage, more, text = reply.usage, reply.outthink, reply.choices[0].message.content
        assert reply.choices[0].finish_reason == "length"
    seconds = asyncio.run(until(lambda: running() == 0))
    made = since(before, "vllm:generation_tokens_total")
    print(f"\nvLLM was idle {seconds:.2f} s after the reply, {made:.0f} tokens written")
    assert text  # the longest of what had been written
    assert more["stopped"] == "deadline"
    assert more["ledger"][0]["cancelled"] == 8
    assert 8 <= made <= usage.completion_tokens <= 8 * 1500
    assert (told(plain) - told_before)['outthink_samples_total{outcome="cancelled"}'] == 8


def test_a_crowd_of_which_some_leave_is_charged_for_all_that_was_written() -> None:
    """What callers were told is at most what vLLM wrote, which is at most what the server has counted."""
    leaves = {2, 5, 7}

    async def one(url: str, number: int) -> Any:
        strategy, n = (("none", 1), ("self_consistency", 4))[number % 2]
        wish = {"outthink": {"n": n, "answer": "math"}} if n > 1 else {}
        asked = asyncio.ensure_future(post(url, model=f"{MODEL}+{strategy}", **wish, **{"max_tokens": 32, **ENDLESS}))
        if number in leaves:
            await asyncio.wait({asked}, timeout=0.3 * number)
            asked.cancel()
            return None
        return await asked

    async def crowd(url: str) -> list[Any]:
        replies = await asyncio.gather(*(one(url, number) for number in range(10)))
        await until(lambda: running() == 0 and told(url)["outthink_running"] == 0)
        return replies

    with serving() as url:
        before = metrics()
        replies = asyncio.run(crowd(url))
        made, counted = since(before, "vllm:generation_tokens_total"), told(url)
    told_to_callers = [reply["usage"]["completion_tokens"] for reply in replies if reply is not None]
    assert len(told_to_callers) == 7
    assert sum(told_to_callers) <= made <= counted['outthink_tokens_total{by="model",kind="completion"}']
    assert made <= 32 * (5 * 1 + 5 * 4)


# -------------------------------------------------------------------------------------------------------------- sharing


def test_the_probe_finds_salt_and_priority() -> None:
    """vLLM takes priorities whether it acts on them or not, which cannot be seen."""
    facts = OpenAIEngine.open(URL, fresh=True).facts
    assert (facts.cached, facts.salt, facts.priority) == (True, True, True)


def test_owners_of_keys_share_no_prefix_cache(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    (_, ann), (_, bob) = make_key(file, "ann"), make_key(file, "bob")
    context = " ".join(f"Part {number} weighs {number * 11 % 37} pounds." for number in range(60))
    messages: list[Any] = [{"role": "user", "content": f"{context} Which part is the heaviest?"}]
    cached = []
    with serving(keys=Keys.open(file)) as url:
        for key in (ann, ann, bob, bob, ann):
            with asking(url, key) as client:
                reply = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
            assert reply.usage is not None
            assert reply.usage.prompt_tokens_details is not None
            cached.append(reply.usage.prompt_tokens_details.cached_tokens or 0)
        with asking(url, "wrong") as client, pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
    assert [count > 128 for count in cached] == [False, True, False, True, True]
    assert cached[0] == cached[2] == 0


def test_shadows_are_told_to_let_others_go_first(tmp_path: Path) -> None:
    """vLLM takes their priority, and all that they write is counted."""
    settings = Settings(port=0, shadow=1.0, alternative="self_consistency")
    recorder = Recorder(tmp_path / "kept", {}, {"alternative": "self_consistency"})
    with serving(settings=settings, recorder=recorder) as url:
        before = metrics()
        reply = ask(url, outthink={"answer": "math"}, max_tokens=8)
        asyncio.run(until(lambda: told(url)['outthink_samples_total{outcome="ok"}'] > 1))
        made, counted = since(before, "vllm:generation_tokens_total"), told(url)
    assert counted["outthink_shadow_requests_total"] == 1
    assert counted['outthink_tokens_total{by="model",kind="completion"}'] == made > reply.usage.completion_tokens
    kept = [
        json.loads(line) for file in (tmp_path / "kept").glob("*/*.jsonl") for line in file.read_text().splitlines()
    ]
    assert sorted(one["trace"]["strategy"]["name"] for one in kept) == ["none", "self_consistency"]
    assert not any(one["error"] for one in kept)


# ------------------------------------------------------------------------------------------------------ the whole thing


def test_the_command_serves(tmp_path: Path) -> None:
    """Prints medians of pairs that take turns; how long anything takes is not asserted."""
    fields: dict[str, Any] = {"model": MODEL, "messages": ASK, "max_tokens": 16, "extra_body": {"ignore_eos": True}}
    seconds: dict[bool, list[float]] = {False: [], True: []}

    async def go() -> None:
        async with (
            command(tmp_path, URL, "--strategy", "none") as served,
            AsyncOpenAI(base_url=URL, api_key="none") as straight,
            AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as through,
        ):
            for turn in range(4 + 2 * PAIRS):
                ours = turn % 4 in (1, 2)  # either goes first as often
                begun = time.perf_counter()
                reply = await (through if ours else straight).chat.completions.create(**fields)
                seconds[ours].append(time.perf_counter() - begun)
                assert reply.usage is not None
                assert reply.usage.completion_tokens == 16

    asyncio.run(go())
    alone, through = ([1e3 * one for one in seconds[ours][2:]] for ours in (False, True))  # two to warm up
    more = statistics.quantiles((b - a for a, b in zip(alone, through, strict=True)), n=4)
    print(
        f"\n16 tokens, medians of {PAIRS} pairs: {statistics.median(alone):.1f} ms straight at vLLM, "
        f"{statistics.median(through):.1f} ms through the server; quartiles of a pair's difference "
        f"{more[0]:.1f}, {more[1]:.1f}, {more[2]:.1f} ms"
    )
