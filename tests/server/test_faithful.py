"""What a caller sends is what the model gets, for every sample of every strategy that says so; and nothing else."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from outthink.errors import MissingResource
from outthink.model import FOR_ALL
from outthink.models.endpoint import Endpoint
from outthink.models.facts import Facts
from outthink.models.openai import prompts
from outthink.rewards.making import Opened
from outthink.sandbox.host import Sandbox
from outthink.server.routing import ONE, ServerRules
from outthink.strategies import STRATEGIES
from outthink.strategies.making import make_strategy
from tests.tools.every import of_any_server
from tests.tools.sandboxed import needs_sandbox
from tests.tools.server import ALL, BARE, Ask, Said, Seen, Server, run, says
from tests.tools.serving import Answer, asked, serving

KINDS = {
    "all": ALL,
    "bare": BARE,
    "streamed": replace(BARE, stream=True),
    "several": replace(BARE, n=True),
    "newer": replace(ALL, cap="max_completion_tokens"),
}
every_kind = pytest.mark.parametrize("facts", KINDS.values(), ids=KINDS.keys())

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
FIELDS: dict[str, Any] = {
    "top_p": 0.75,
    "stop": ["###", "\n\n\n"],
    "tools": [TOOL],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
    "logprobs": True,
    "top_logprobs": 2,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "logit_bias": {"42": 3},
    "user": "me",
    "metadata": {"for": "tests"},
    "store": False,
    "service_tier": "default",
    "top_k": 5,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "chat_template_kwargs": {"enable_thinking": False},
    "made_up": [1, {"deep": "½"}],
}
"""Everything that may be sent besides model, messages, temperature, seed and a cap."""
TURNS: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Which?"}], "name": "ann", "vendor": 1},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "4"},
]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}
ADDED = {"n", "stream", "stream_options", "return_token_ids"}
"""What is added, where the upstream can do it."""
FOR_JUDGES = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "logprobs", "seed"}

OWN_TEMPERATURE = {"greedy", "hedged_sampling", "multi_temperature", "chops"}
FAITHFUL = [
    ONE,
    *(
        pytest.param(name, marks=needs_sandbox if name == "codet" else ())
        for name in STRATEGIES
        if getattr(make_strategy(name), "as_asked", False) and of_any_server(name)
    ),
]
JUDGED = ("best_of_n", "weighted_best_of_n", "majority_best", "optscale", "resample")
"""Those that need a verifier; it is the confidence here."""
READING = ("likelihood", "perplexity_consistency", "rpc", "borda", "deepconf", *JUDGED)
"""Those that read logprobs."""


def choosing(ask: Ask) -> str:
    """One of three answers; the first sample always says the first, so that there is something to judge."""
    return json.dumps({"answer": ask.rng.randrange(3) if ask.choice else 0})


def policy_for(name: str) -> tuple[ServerRules, dict[str, Any]]:
    """A server that has what the strategy needs, and its parts."""
    scorers = {"verifier": "confidence"} if name in JUDGED else {}
    sandbox = None
    with contextlib.suppress(MissingResource):
        sandbox = Sandbox()
    parts = {"scorers": {role: Opened(scorer) for role, scorer in scorers.items()}, "sandbox": sandbox}
    return ServerRules(strategy=make_strategy("self_consistency", {"n": 4}), scorers=scorers), parts


def served(name: str, body: Mapping[str, Any], facts: Facts = ALL, **how: Any) -> tuple[Answer, list[Seen]]:
    """What a strategy answers, and what the upstream was asked for."""

    async def go() -> tuple[Answer, list[Seen]]:
        policy, parts = policy_for(name)
        reply = how.pop("reply", choosing)
        async with Server(reply, **how) as up, serving(up, policy=policy, facts=facts, **parts) as (url, _):
            return await asked(url, {"model": f"m+{name}", **body}), up.asked

    return run(go())


def samples(seen: list[Seen]) -> list[dict[str, Any]]:
    """The requests for samples; all others, by judges, have none of what the caller has asked of answers."""
    bodies = []
    for one in seen:
        if one.body.get("messages") == TURNS:
            bodies.append(one.body)
        else:
            assert one.body.keys() <= FOR_JUDGES | ADDED | FOR_ALL | {"top_logprobs"}, one.body
    return bodies


@pytest.mark.parametrize("name", FAITHFUL)
@every_kind
def test_every_field_reaches_the_model_for_every_sample(name: str, facts: Facts) -> None:
    if name in READING and not facts.logprobs:
        pytest.skip("it is not offered there")
    fields = FIELDS if name in OWN_TEMPERATURE else {**FIELDS, "temperature": 0.25}
    answer, seen = served(name, {"messages": TURNS, "max_tokens": 40, **fields}, facts)
    assert answer.status == 200, answer.error
    expected = {"model": "m", "messages": TURNS, facts.cap: 40, **fields}
    bodies = samples(seen)
    assert bodies
    for body in bodies:
        own = {"temperature"} if name in OWN_TEMPERATURE else set()
        assert {field: value for field, value in body.items() if field not in ADDED | own} == expected
        assert "n" not in body or facts.n
        assert ("stream" in body) == facts.stream
        assert "return_token_ids" not in body or facts.token_ids


@pytest.mark.parametrize("name", FAITHFUL)
@every_kind
def test_what_was_not_sent_is_not_sent(name: str, facts: Facts) -> None:
    if name in READING and not facts.logprobs:
        pytest.skip("it is not offered there")
    answer, seen = served(name, {"messages": TURNS}, facts)
    assert answer.status == 200, answer.error
    own = {"temperature"} if name in OWN_TEMPERATURE else set()
    read = {"logprobs"} if name in READING else set()
    read |= {"top_logprobs"} if name == "deepconf" else set()
    for body in samples(seen):
        assert body.keys() - ADDED - own == {"model", "messages", facts.cap} | read
        assert body[facts.cap] == (4096 if facts.context is None else 4096 - seen[0].prompt)


@pytest.mark.parametrize("name", ["none", "self_consistency", "auto", "esc", "multi_temperature"])
def test_images_reach_the_model(name: str) -> None:
    turns = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}]
    answer, seen = served(name, {"messages": turns, "tools": [TOOL], "stop": "x"})
    assert answer.status == 200, answer.error
    assert all((one.body["messages"], one.body["stop"]) == (turns, "x") for one in seen)


@pytest.mark.parametrize("given", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens"])
def test_the_cap_is_sent_under_the_name_that_the_upstream_honours(given: str, cap: Any) -> None:
    _, (seen,) = served(ONE, {"messages": TURNS, given: 3}, replace(ALL, cap=cap))
    assert {field: value for field, value in seen.body.items() if field.startswith("max")} == {cap: 3}
    _, (seen,) = served(ONE, {"messages": TURNS, "max_tokens": 9, "max_completion_tokens": 3}, replace(ALL, cap=cap))
    assert {field: value for field, value in seen.body.items() if field.startswith("max")} == {cap: 3}


def test_where_nobody_knows_how_much_is_left_the_upstream_decides() -> None:
    """The prompt has fewer tokens than bytes, but how many fewer is not known."""
    facts = replace(BARE, context=1000)
    long = [{"role": "user", "content": "word " * 100}]
    _, (seen,) = served(ONE, {"messages": long}, facts)
    assert not {"max_tokens", "max_completion_tokens"} & seen.body.keys()
    _, (seen,) = served(ONE, {"messages": long, "max_tokens": 77}, facts)
    assert seen.body["max_tokens"] == 77
    by_text = replace(ALL, context=1000, tokenize=False, prefix="text")
    body = {"messages": long, "outthink": {"answer": "text"}}
    _, (seen, *_) = served("iterative_deepening", body, by_text)
    assert seen.body["max_tokens"] == 1000 // 8, "a strategy's own cap is always sent"


@every_kind
def test_sample_k_has_the_seed_k_above_the_one_that_was_sent(facts: Facts) -> None:
    _, seen = served(ONE, {"messages": TURNS, "seed": 7, "n": 3}, facts)
    assert [one.body["seed"] for one in seen] == ([7] if facts.n else [7, 8, 9])
    _, seen = served("self_consistency", {"messages": TURNS, "seed": 7, "response_format": {"type": "json_object"}})
    assert [one.body["seed"] for one in seen] == [7]
    first, again = (served("auto", {"messages": TURNS, "seed": 7}, facts)[1] for _ in range(2))
    seeds = [one.body["seed"] for one in first]
    assert seeds == [one.body["seed"] for one in again], "the same request is the same again"
    counts = [one.body.get("n", 1) for one in first]
    assert seeds == [7 + sum(counts[:place]) for place in range(len(counts))], "as if all were one request"
    other = served("auto", {"messages": TURNS, "seed": 1000}, facts)[1]
    assert not set(seeds) & {one.body["seed"] for one in other}


def test_the_same_request_with_a_seed_has_the_same_answer_and_without_one_another() -> None:
    def texts(**fields: Any) -> list[str]:
        answer, _ = served(ONE, {"messages": TURNS, "n": 6, **fields}, reply=lambda ask: str(ask.rng.random()))
        return [choice["message"]["content"] for choice in answer.json["choices"]]

    assert texts(seed=3) == texts(seed=3)
    assert texts(seed=3) != texts(seed=4)


# ---------------------------------------------------------------------------------- through the server and without it


def scripted(ask: Ask) -> str | Said:
    """What is asked for, by the last word of the question."""
    word = str(ask.body["messages"][-1]["content"]).split()[-1]
    if word == "call":
        return Said(text="I look it up. ", calls=(("f", '{"x": 1}'), ("g", "")))
    if word == "think":
        return Said(thoughts="well now", text="It is 4.")
    if word == "nothing":
        return ""
    return " ".join(str(ask.rng.randrange(10)) for _ in range(12)) + " ### end"


BODIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "capped": {"max_tokens": 7},
    "capped short": {"max_completion_tokens": 1},
    "stopped": {"stop": "###"},
    "kept stop": {"stop": ["###", "zz"], "include_stop_str_in_output": True},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "several": {"n": 3},
    "several capped": {"n": 4, "max_tokens": 5, "logprobs": True},
    "call": {"messages": [{"role": "user", "content": "Please call"}], "tools": [TOOL]},
    "calls capped": {"messages": [{"role": "user", "content": "Please call"}], "tools": [TOOL], "max_tokens": 12},
    "thoughts": {"messages": [{"role": "user", "content": "Please think"}], "n": 2},
    "nothing": {"messages": [{"role": "user", "content": "Say nothing"}]},
}


@pytest.mark.parametrize("name", BODIES)
@every_kind
def test_without_a_strategy_the_reply_is_the_model_s_own(name: str, facts: Facts) -> None:
    body = {"messages": [{"role": "user", "content": "Some digits"}], "seed": 11, **BODIES[name]}

    async def go() -> tuple[Any, Answer]:
        async with Server(scripted) as up, serving(up, facts=facts) as (url, _):
            endpoint = Endpoint(up.url)
            direct = await endpoint.post("chat/completions", {"model": "m", **body})
            await endpoint.close()
            return direct, await asked(url, {"model": f"m+{ONE}", **body})

    direct, answer = run(go())
    assert answer.status == 200, answer.error
    for own, ours in itertools.zip_longest(direct["choices"], answer.json["choices"]):
        message = {"role": "assistant", "refusal": None, **own["message"]}
        message["content"] = message["content"] or (None if "tool_calls" in message else "")
        assert ours == {
            "index": own["index"],
            "message": message,
            "finish_reason": own["finish_reason"],
            "logprobs": own.get("logprobs"),
        }
    usage = answer.json["usage"]
    prompts = 1 if facts.n else body.get("n", 1)
    assert usage["prompt_tokens"] == direct["usage"]["prompt_tokens"] * prompts
    assert usage["completion_tokens"] == direct["usage"]["completion_tokens"]


def test_an_effort_reaches_the_model_where_nobody_else_acts_on_it() -> None:
    body = {"messages": TURNS, "reasoning_effort": "high"}
    assert served(ONE, body)[1][0].body["reasoning_effort"] == "high"
    assert all("reasoning_effort" not in one.body for one in served("self_consistency", body)[1])
    body["reasoning_effort"] = "none"
    (seen,) = served("self_consistency", body)[1]
    assert "reasoning_effort" not in seen.body


def test_what_the_server_acts_on_never_reaches_the_model() -> None:
    body = {"messages": TURNS, "outthink": {"n": 2, "budget": {"tokens": 9000}, "answer": "text"}, "stream": True}
    body["stream_options"] = {"include_usage": True}
    answer, seen = served("self_consistency", body, replace(ALL, n=False))
    assert answer.events[-1] == "[DONE]"
    assert len(seen) == 2
    for one in seen:
        assert "outthink" not in json.dumps(one.body)
        assert one.body["model"] == "m"
        assert not any(name.lower().startswith("x-outthink") for name in one.headers)


def test_a_call_that_is_forced_is_compared_at_once() -> None:
    body = {"messages": TURNS, "tools": [TOOL], "tool_choice": "required"}
    reply = says(*(Said(calls=(("f", f'{{"x": {number}}}'),)) for number in (1, 2, 2, 2)))
    answer, (seen,) = served("self_consistency", body, reply=reply)
    assert seen.body["n"] == 4
    (choice,) = answer.json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call == {"id": "call_1_0", "type": "function", "function": {"name": "f", "arguments": '{"x": 2}'}}


@pytest.mark.parametrize("facts", [ALL, BARE], ids=["counted", "by bytes"])
@pytest.mark.parametrize("name", ["none", "self_consistency", "best_of_n"])
def test_a_prompt_is_measured_once_a_request(name: str, facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is bounded: by the server, by the driver, by the model and by the engine."""
    measured: list[Any] = []
    size = prompts._size

    def counted(message: Mapping[str, Any]) -> int:
        measured.append(message)
        return size(message)

    monkeypatch.setattr(prompts, "_size", counted)

    async def go() -> tuple[list[Seen], Answer]:
        async with Server(says("#### 4")) as up:
            rules = ServerRules(strategy=make_strategy("self_consistency"), scorers={"verifier": "confidence"})
            scorers = {"verifier": Opened("confidence", process=False)}
            async with serving(up, policy=rules, facts=facts, scorers=scorers) as (url, _):
                body = {"model": f"m+{name}", "messages": TURNS, "max_tokens": 50}
                return up.seen, await asked(url, body)

    seen, answer = run(go())
    assert answer.status in (200, 400)  # what has no logprobs has no confidence
    assert len(measured) == len(TURNS)
    assert [one.path for one in seen].count("tokenize") == int(facts.tokenize)
