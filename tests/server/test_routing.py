"""Which strategy answers a request, how much it may spend, and that everything on offer can be had."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from outthink.models.facts import Facts
from outthink.planner.auto import Auto
from outthink.planner.make import make_plan
from outthink.planner.plan import Plan
from outthink.planner.recordings import read
from outthink.rewards.making import Opened
from outthink.sandbox.host import Sandbox
from outthink.server import asked as asking
from outthink.server.asked import EFFORTS, Asked, Effort
from outthink.server.errors import BadRequest
from outthink.server.routing import ONE, Choice, ServerRules, choose, split
from outthink.strategies import STRATEGIES
from outthink.strategies.comparing import Comparing
from outthink.strategies.making import make_strategy
from outthink.types import Budget
from tests.tools import simulated
from tests.tools.sandboxed import missing
from tests.tools.server import ALL, BARE, Ask, Seen, Server, run, says
from tests.tools.serving import Answer, asked, chat, serving

THREE = ServerRules(strategy=make_strategy("self_consistency", {"n": 3}))
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


def wanted(headers: Mapping[str, str] | None = None, **body: Any) -> Asked:
    return asking.read(json.dumps(chat(**body)).encode(), CIMultiDict(headers or {}))


def chosen(policy: ServerRules = THREE, named: str | None = None, load: float = 1.0, **body: Any) -> Choice:
    headers = body.pop("headers", None)
    return choose(wanted(headers, **body), named, policy, load)


def size(choice: Choice) -> tuple[str, int | None]:
    return choice.named["name"], choice.named.get("n", choice.named.get("width"))


def refused(policy: ServerRules = THREE, named: str | None = None, **body: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        chosen(policy, named, **body)
    return caught.value


# ------------------------------------------------------------------------------------------------------------ who says


@pytest.mark.parametrize(
    ("headers", "body", "name", "expected"),
    [
        ({}, {}, "m", ("self_consistency", 3)),
        ({}, {}, "m+mbr", ("mbr", 16)),
        ({}, {}, "m+none", (ONE, None)),
        ({}, {"strategy": "esc"}, "m+mbr", ("esc", 40)),
        ({"strategy": "mbr"}, {"strategy": "esc"}, "m+rpc", ("mbr", 16)),
        ({}, {"n": 7}, "m", ("self_consistency", 7)),
        ({}, {"n": 7}, "m+mbr", ("mbr", 7)),
        ({"n": "5"}, {"n": 7}, "m+mbr", ("mbr", 5)),
        ({"n": "5"}, {"strategy": "esc", "n": 7}, "m+mbr", ("esc", 5)),
        ({"strategy": "mbr"}, {"n": 7}, "m+esc", ("mbr", 7)),
        ({"strategy": ""}, {"strategy": "esc"}, "m+mbr", ("mbr", 16)),  # an empty header names none
        ({}, {"strategy": "self_consistency"}, "m+mbr", ("self_consistency", 3)),  # the operator's
        ({}, {"strategy": ONE}, "m+mbr", (ONE, None)),
    ],
)
def test_a_header_goes_before_the_body_before_the_model_s_name_before_the_server_s_own(
    headers: dict[str, str], body: dict[str, Any], name: str, expected: tuple[str, int | None]
) -> None:
    async def go() -> Answer:
        async with Server(says("The answer is 4.")) as up, serving(up, policy=THREE) as (url, _):
            told = [(f"X-Outthink-{field.title()}", value) for field, value in headers.items()]
            answer = await asked(url, chat(model=name, outthink=body), path="/v1/quote", headers=told)
            assert not up.asked
            return answer

    answer = run(go())
    assert answer.status == 200, answer.error
    strategy = answer.json["strategy"]
    assert (strategy["name"], strategy.get("n")) == expected


def test_budget_and_answer_and_plan_come_from_headers_as_well() -> None:
    body = {"budget": {"tokens": 500, "seconds": 9}, "answer": "text"}
    plain = chosen(outthink=body)
    assert (plain.budget.limits, plain.answer) == ({"tokens": 500, "seconds": 9}, "text")
    told = {"X-Outthink-Budget": "2k-tokens", "X-Outthink-Answer": "math"}
    over = chosen(outthink=body, headers=told)
    assert (over.budget.limits, over.answer) == ({"tokens": 2000}, "math")
    assert "no plan 'x'" in str(refused(headers={"X-Outthink-Plan": "x"}))


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"X-Outthink-N": "many"}, "X-Outthink-N"),
        ({"X-Outthink-N": "0"}, "n"),
        ({"X-Outthink-N": "1025"}, "n"),
        ({"X-Outthink-Budget": "lots"}, "outthink.budget"),
        ({"X-Outthink-Budget": "0-tokens"}, "outthink.budget"),
        ({"X-Outthink-Answer": "poem"}, "answer"),
        ({"X-Outthink-Strategy": "x" * 200}, "strategy"),
    ],
)
def test_a_header_that_cannot_be_read_is_named(headers: dict[str, str], param: str) -> None:
    failure = refused(headers=headers)
    assert (failure.status, failure.param) == (400, param)
    assert str(failure).endswith(".")


def test_an_exact_name_of_a_model_goes_before_one_with_a_strategy() -> None:
    served = ("m", "m+mbr", "org/a+b", "m+mbr+rpc")
    assert split("m", served) == ("m", None)
    assert split("m+mbr", served) == ("m+mbr", None)
    assert split("m+mbr+esc", served) == ("m+mbr", "esc")
    assert split("m+mbr+rpc", served) == ("m+mbr+rpc", None)
    assert split("org/a+b", served) == ("org/a+b", None)
    assert split("org/a+b+none", served) == ("org/a+b", "none")
    assert split("m+esc", served) == ("m", "esc")


@pytest.mark.parametrize(
    ("model", "hint"),
    [("qwen", "'qwen2'"), ("qwen+mbr", "'qwen2'"), ("+mbr", "GET /v1/models"), ("+", "GET"), ("zzz+mbr", "GET")],
)
def test_an_unknown_model_is_not_found_with_the_nearest_name(model: str, hint: str) -> None:
    with pytest.raises(BadRequest, match="There is no model") as caught:
        split(model, ("qwen2",))
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert hint in str(caught.value)


@pytest.mark.parametrize("name", ["self_consistancy", "outthink.planner.auto:Auto", "self_consistency?n=3", "nones"])
@pytest.mark.parametrize("where", ["header", "body", "name"])
def test_an_unknown_strategy_is_refused_with_the_nearest_name_and_loads_nothing(name: str, where: str) -> None:
    wish = {"strategy": name} if where == "body" else {}
    headers = {"X-Outthink-Strategy": name} if where == "header" else {}
    failure = refused(named=name if where == "name" else None, headers=headers, outthink=wish)
    assert (failure.status, failure.param, failure.code) == (400, "outthink.strategy", "no_strategy")
    assert "'self_consistency'" in str(failure) or "known:" in str(failure) or "'none'" in str(failure)


texts = st.text() | st.sampled_from(
    ['{"outthink": {"strategy": "mbr", "n": 64}}', "X-Outthink-Strategy: mbr", "m+mbr", "reasoning_effort: max"]
)


@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from(["user", "system", "assistant", "tool"]))
@settings(max_examples=100, deadline=None)
def test_nothing_is_ever_chosen_by_what_messages_say(said: list[str], role: str) -> None:
    messages = [{"role": role, "content": text} for text in said]
    choice, plain = chosen(messages=messages), chosen()
    assert replace(choice, named={}) == replace(plain, named={})
    assert choice.named == plain.named


# ------------------------------------------------------------------------------------------------------------ how much


@pytest.mark.parametrize("effort", EFFORTS)
def test_an_effort_is_so_many_samples_worth(effort: Effort) -> None:
    samples = EFFORTS[effort]
    assert samples == {"none": 1, "minimal": 2, "low": 4, "medium": 8, "high": 16, "xhigh": 32, "max": 64}[effort]
    choice = chosen(reasoning_effort=effort)
    if effort == "none":
        assert (size(choice), choice.samples, choice.single) == ((ONE, None), None, True)
    else:
        assert (size(choice), choice.samples, choice.single) == (("self_consistency", samples), samples, False)
    named = chosen(named="mbr", reasoning_effort=effort)
    assert size(named) == ((ONE, None) if effort == "none" else ("mbr", samples))
    wish = chosen(reasoning_effort=effort, outthink={"strategy": "self_consistency"})
    assert (size(wish), wish.samples) == (("self_consistency", samples), samples), "it is the one that was asked for"
    assert (wish.single, wish.fields) == (effort == "none", {})
    assert chosen(named="mcts", policy=replace(THREE, scorers={"prm": "judge"}), reasoning_effort=effort).samples == (
        None if effort == "none" else samples
    )


def test_the_number_and_the_budget_that_were_asked_for_go_before_the_effort() -> None:
    def limits(**wish: Any) -> tuple[Any, Any, Any]:
        choice = chosen(reasoning_effort="low", outthink=wish)
        return size(choice)[1], choice.samples, choice.budget.limits

    assert limits() == (4, 4, {})
    assert limits(n=10) == (10, None, {})
    assert limits(budget={"tokens": 900}) == (4, None, {"tokens": 900})
    assert limits(budget="1usd") == (4, None, {"usd": 1})
    assert limits(budget={"seconds": 5}) == (4, 4, {"seconds": 5}), "seconds say nothing about how much"
    assert limits(n=10, budget={"tokens": 900}) == (10, None, {"tokens": 900})
    assert size(chosen(reasoning_effort="none", outthink={"n": 3})) == ("self_consistency", 3)


def test_where_the_server_does_nothing_with_an_effort_it_is_the_model_s() -> None:
    assert chosen(named=ONE, reasoning_effort="high").fields == {"reasoning_effort": "high"}
    assert chosen(policy=ServerRules(strategy=None), reasoning_effort="high").fields == {"reasoning_effort": "high"}
    assert chosen(reasoning_effort="none").fields == chosen(reasoning_effort="high").fields == {}


@pytest.mark.parametrize(("effort", "samples"), [("minimal", 2), ("low", 4)])
def test_a_strategy_without_a_number_of_samples_spends_so_many_times_the_worst_of_one(
    effort: str, samples: int
) -> None:
    async def go() -> None:
        async with Server(says("so " * 30)) as up, serving(up) as (url, _):
            body = chat(model="m+scale", max_tokens=20, reasoning_effort=effort, outthink={"answer": "text"})
            quote = (await asked(url, body, path="/v1/quote")).json
            answer = await asked(url, body)
            told = answer.json["outthink"]
            assert quote["most"] == {"tokens": samples * quote["sample"]["tokens"]}
            assert quote["most"]["tokens"] == told["budget"]["tokens"]
            assert told["stopped"] in ("budget", "finished")
            assert len(up.asked) <= samples
            assert up.prompt + up.made == told["cost"]["tokens"] <= quote["most"]["tokens"]

    run(go())


def test_the_operator_s_budget_is_the_most_unit_by_unit() -> None:
    policy = replace(THREE, budget=Budget({"tokens": 1000, "usd": 0.5}))
    limits = chosen(policy, outthink={"budget": {"tokens": 5000, "usd": 0.1, "seconds": 3}}).budget.limits
    assert limits == {"tokens": 1000, "usd": 0.1, "seconds": 3}
    assert chosen(policy).budget.limits == {"tokens": 1000, "usd": 0.5}
    assert chosen(policy, reasoning_effort="max").budget.limits == {"tokens": 1000, "usd": 0.5}
    assert chosen(policy, named=ONE).budget.limits == {"tokens": 1000, "usd": 0.5}


def test_nobody_spends_more_than_the_operator_allows() -> None:
    async def go() -> None:
        policy = replace(THREE, budget=Budget({"tokens": 150}))
        async with Server(says("so " * 30)) as up, serving(up, policy=policy) as (url, _):
            for more in ({"budget": {"tokens": 10_000}}, {"n": 64}, {}):
                up.seen.clear()
                body = chat(max_tokens=20, reasoning_effort="max", outthink={**more, "answer": "text"})
                answer = await asked(url, body)
                assert answer.status == 200
                assert up.prompt + up.made == answer.json["outthink"]["cost"]["tokens"] <= 150
                assert answer.json["outthink"]["budget"]["tokens"] == 150

    run(go())


def test_a_number_where_there_is_none_is_refused() -> None:
    assert "scale has no number of samples" in str(refused(named="scale", outthink={"n": 4}))
    assert "none is one sample" in str(refused(named=ONE, outthink={"n": 4}))
    assert "none is one sample" in str(refused(ServerRules(strategy=None), outthink={"n": 4}))
    scored = replace(THREE, scorers={"verifier": "judge", "prm": "confidence"})
    few = refused(scored, named="dvts", outthink={"n": 2})
    assert (few.param, "multiple of children" in str(few)) == ("outthink.n", True)
    little = chosen(scored, named="dvts", reasoning_effort="minimal")
    assert (size(little), little.samples) == (("dvts", 16), 2), "the budget limits what cannot do with fewer"


@pytest.mark.parametrize(("load", "n"), [(1.0, 16), (0.5, 8), (0.125, 2), (0.01, 1)])
def test_under_load_there_are_fewer_samples_but_one(load: float, n: int) -> None:
    assert size(chosen(named="mbr", load=load)) == ("mbr", n)
    assert size(chosen(named="rebase", policy=replace(THREE, scorers={"prm": "judge"}), load=load)) == ("rebase", n)
    several = chosen(named=ONE, load=load, n=4)
    assert several.strategy == make_strategy("self_consistency", {"n": 4}), "what was asked for comes whole"
    scored = replace(THREE, scorers={"verifier": "judge"})
    assert chosen(scored, named="optscale", load=load).named["name"] == "optscale", "load makes no request wrong"


# --------------------------------------------------------------------------------------------------------------- plans


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two plans by name."""
    folder = tmp_path_factory.mktemp("plans")
    plans = {}
    pool = simulated.pool(folder / "pool.jsonl", 20, 4, model="m")
    plan, _ = make_plan(read([pool], orders=3), folds=2)
    for name in ("small", "other"):
        (folder / f"{name}.json").write_text(plan.to_json())
        plans[name] = str(folder / f"{name}.json")
    return plans


def test_plans_are_those_that_the_operator_has_named(plans: dict[str, str]) -> None:
    policy = replace(THREE, plans=plans)
    for name, path in plans.items():
        choice = chosen(policy, outthink={"plan": name})
        assert isinstance(choice.strategy, Comparing)
        assert choice.strategy.strategy == Auto(plan=path)
        assert choice.named["plan"] == name, "the caller is not told where it is"
        assert path not in json.dumps(choice.named)
    assert chosen(policy, named="auto").named["plan"] == "small", "the first one serves those that name none"
    assert chosen(replace(policy, plans={}), named="auto").named["plan"] == ""
    own = replace(policy, strategy=Auto(plan=plans["small"], value_of_correct="5k-tokens"))
    other = chosen(own, outthink={"plan": "other"})
    assert (other.named["plan"], other.named["value_of_correct"]) == ("other", "5k-tokens"), "with its settings"


def test_no_request_opens_a_file(plans: dict[str, str]) -> None:
    policy = replace(THREE, plans=plans)
    for name in (plans["small"], "smal", "../small", "/etc/passwd"):
        failure = refused(policy, outthink={"plan": name})
        assert (failure.status, failure.param) == (400, "outthink.plan")
        assert "small" in str(failure)
    assert "known: none" in str(refused(outthink={"plan": "x"}))
    assert refused(policy, named=f"auto?plan={plans['small']}").code == "no_strategy"
    assert "for the strategy auto" in str(refused(policy, named="mbr", outthink={"plan": "small"}))
    assert "extra" in str(refused(policy, outthink={"calibration": plans["small"]})).lower()


def test_under_load_a_plan_buys_less(plans: dict[str, str]) -> None:
    def auto(load: float, policy: ServerRules, **body: Any) -> Auto:
        strategy = chosen(policy, load=load, **body).strategy
        assert isinstance(strategy, Comparing)
        assert isinstance(strategy.strategy, Auto)
        return strategy.strategy

    value = replace(THREE, strategy=Auto(plan=plans["small"], value_of_correct="5k-tokens"))
    assert auto(0.5, value).value_of_correct == "2500tokens"
    mean = replace(THREE, strategy=Auto(plan=plans["small"], mean_cost=400))
    assert auto(0.25, mean).mean_cost == 100
    free = replace(THREE, strategy=Auto(plan=plans["small"]))
    assert auto(0.5, free, outthink={"budget": {"tokens": 300}}).mean_cost <= 150
    assert 0 < auto(0.25, free).mean_cost < auto(0.5, free).mean_cost < math.inf


# ------------------------------------------------------------------------------------------------------ what is offered


def talking(ask: Ask) -> str:
    """Two steps and one of three answers, from wherever it is to go on."""
    whole = f"step one\n\nstep two\n\nThe answer is {ask.rng.randrange(3)}."
    return whole.removeprefix(ask.prefix)


SCORERS: dict[str, dict[str, str]] = {
    "nothing": {},
    "confidence": {"verifier": "confidence"},
    "judge": {"verifier": "judge"},
    "both": {"verifier": "confidence", "prm": "confidence"},
}


@pytest.mark.parametrize("facts", [ALL, BARE], ids=["all", "bare"])
@pytest.mark.parametrize("scorers", SCORERS.values(), ids=SCORERS.keys())
def test_every_name_on_offer_can_be_called_and_all_others_say_what_is_missing(
    scorers: dict[str, str], facts: Facts
) -> None:
    async def go() -> None:
        parts = {role: Opened(scorer, process=role == "prm") for role, scorer in scorers.items()}
        policy = ServerRules(strategy=make_strategy("auto"), scorers=scorers)
        box = None if missing() else Sandbox()
        async with (
            Server(talking) as up,
            serving(up, policy=policy, facts=facts, scorers=parts, sandbox=box) as (url, _),
        ):
            listed = {one["id"] for one in (await asked(url, None, method="GET", path="/v1/models")).json["data"]}
            assert {"m", "m+none", "m+auto", "m+greedy", "m+self_consistency"} <= listed
            for name in STRATEGIES:
                up.seen.clear()
                body = chat("What is 1+1?", model=f"m+{name}", max_tokens=60, reasoning_effort="medium")
                answer = await asked(url, body)
                if f"m+{name}" in listed:
                    assert answer.status == 200, (name, answer.body)
                    assert answer.json["outthink"]["strategy"]["name"] == name
                    assert "The answer is" in answer.content
                    assert up.asked
                else:
                    assert (answer.status, up.asked) == (400, []), name
                    assert answer.error["message"].endswith(".")
            assert (f"m+{ONE}" in listed) == ((await asked(url, chat(model=f"m+{ONE}"))).status == 200)

    run(go())


def test_a_model_on_offer_can_be_looked_at() -> None:
    async def go() -> None:
        async with Server() as up, serving(up) as (url, _):
            for name, status in (("m", 200), ("m+none", 200), ("m+mcts", 404), ("x", 404)):
                answer = await asked(url, None, method="GET", path=f"/v1/models/{name}")
                assert answer.status == status
                if status == 200:
                    assert answer.json["id"] == name

    run(go())


def test_scorers_are_asked_by_those_who_need_them_only() -> None:
    policy = ServerRules(strategy=make_strategy("auto"), scorers={"verifier": "confidence"})
    assert chosen(policy, named="best_of_n").scorers == {"verifier"}
    for name in (ONE, "self_consistency", "auto", "mbr"):
        assert chosen(policy, named=name).scorers == frozenset()
    freely = replace(policy, otherwise=make_strategy("best_of_n"))
    assert chosen(freely, named="self_consistency").scorers == {"verifier"}
    judged = replace(policy, scorers={"verifier": "judge", "prm": "judge"})
    for name in ("self_consistency", "auto"):
        assert chosen(judged, named=name).scorers == {"verifier"}, "it can choose among replies that all differ"
        assert chosen(judged, named=name, outthink={"answer": "math"}).scorers == frozenset()

    async def go() -> None:
        parts = {"verifier": Opened("confidence")}
        async with Server(talking) as up, serving(up, policy=policy, scorers=parts) as (url, _):
            for name, reads in ((ONE, False), ("self_consistency", False), ("best_of_n", True)):
                up.seen.clear()
                assert (await asked(url, chat(model=f"m+{name}"))).status == 200
                assert all(("logprobs" in seen.body) == reads for seen in up.asked)

    run(go())


# -------------------------------------------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize(
    ("name", "fields", "param"),
    [
        ("revision", {"tools": [TOOL]}, "tools"),
        ("rebase", {"stop": ["x"]}, "stop"),
        ("nothinking", {"response_format": {"type": "json_object"}}, "response_format"),
        ("fusion", {"logprobs": True}, "logprobs"),
        ("beam", {"top_k": 5}, "top_k"),
        ("x_mbr", {"presence_penalty": 1}, "presence_penalty"),
        ("greedy", {"temperature": 0.5}, "temperature"),
        ("hedged_sampling", {"temperature": 0.5}, "temperature"),
        ("multi_temperature", {"temperature": 0}, "temperature"),
        ("chops", {"temperature": 0.5}, "temperature"),
        ("rebase", {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages"),
        ("best_of_n", {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages"),
        ("heimdall", {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages"),
    ],
)
def test_what_a_strategy_cannot_honour_is_refused(name: str, fields: dict[str, Any], param: str) -> None:
    policy = replace(THREE, scorers={"verifier": "judge", "prm": "judge"})
    failure = refused(policy, named=name, **fields)
    assert (failure.status, failure.param) == (400, param)
    assert name in str(failure)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("greedy", {"temperature": 0}),
        ("fusion", {"temperature": 0.5}),
        ("rebase", {"temperature": 0.5, "top_p": 0.5, "seed": 3, "user": "me", "metadata": {"a": "b"}}),
        ("rebase", {"logprobs": False, "stop": [], "tools": [], "presence_penalty": 0, "logit_bias": {}}),
        ("rebase", {"response_format": {"type": "text"}, "tools": None}),
        ("codet", {"tools": [TOOL]}),
        ("hedged_sampling", {"tools": [TOOL], "top_k": 3}),
        ("auto", {"tools": [TOOL], "messages": [{"role": "user", "content": [IMAGE]}]}),
        ("mbr", {"messages": [{"role": "user", "content": [IMAGE]}]}),
        (ONE, {"temperature": 2, "messages": [{"role": "user", "content": [IMAGE]}]}),
    ],
)
def test_what_it_can_honour_or_need_not_is_not_refused(name: str, fields: dict[str, Any]) -> None:
    policy = replace(THREE, scorers={"verifier": "judge", "prm": "judge"})
    assert chosen(policy, named=name, **fields).named["name"] == name


def test_confidence_reads_whatever_the_model_has_written() -> None:
    message = [{"role": "user", "content": [IMAGE]}]
    assert chosen(replace(THREE, scorers={"verifier": "confidence"}), named="best_of_n", messages=message).scorers


# ----------------------------------------------------------------------------------------------------- what is compared

JSON = {"type": "json_schema", "json_schema": {}}


@pytest.mark.parametrize(
    ("fields", "answer", "compares"),
    [
        ({}, "chat", True),
        ({"response_format": JSON}, "json", False),
        ({"response_format": {"type": "json_object"}, "tools": [TOOL]}, "json", False),
        ({"guided_json": {}}, "json", False),
        ({"structured_outputs": {"json": {"type": "object"}}}, "json", False),
        ({"structured_outputs": {"choice": ["a", "b"]}}, "chat", True),
        ({"tools": [TOOL]}, "chat", True),
        ({"tools": [TOOL], "tool_choice": "auto"}, "chat", True),
        ({"tools": [TOOL], "tool_choice": "required"}, "chat", False),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "chat", False),
        ({"outthink": {"answer": "math"}}, "math", False),
        ({"outthink": {"answer": "math"}, "response_format": JSON}, "math", False),
    ],
)
def test_the_first_reply_is_looked_at_where_its_form_is_not_known(
    fields: dict[str, Any], answer: str, compares: bool
) -> None:
    choice = chosen(**fields)
    assert (choice.answer, isinstance(choice.strategy, Comparing)) == (answer, compares)


def test_a_call_is_no_answer_of_the_kind_that_the_server_was_set_to() -> None:
    math_server = replace(THREE, answer="math")
    assert chosen(math_server).answer == "math"
    assert chosen(math_server, tools=[TOOL]).answer == "chat"
    assert chosen(math_server, tools=[TOOL], tool_choice="none").answer == "math"


def test_those_that_do_not_go_by_equal_answers_need_no_look() -> None:
    judged = replace(THREE, scorers={"verifier": "judge"})
    for name in ("mbr", "likelihood", "greedy", ONE):
        assert not isinstance(chosen(named=name).strategy, Comparing)
    assert not isinstance(chosen(judged, named="best_of_n").strategy, Comparing)
    assert not isinstance(chosen(named="iterative_deepening").strategy, Comparing), "it could not go on from them"
    assert not isinstance(chosen(named="revision").strategy, Comparing), "its two chains say too little"
    for name in ("self_consistency", "auto", "multi_temperature"):
        assert isinstance(chosen(named=name).strategy, Comparing)
        blind = name in ("self_consistency", "auto")
        assert isinstance(chosen(judged, named=name).strategy, Comparing) == blind, "else the judge says"
    assert not isinstance(chosen(outthink={"n": 1}).strategy, Comparing)


def test_what_stands_in_has_its_own_number_unless_the_caller_wants_another() -> None:
    policy = replace(THREE, strategy=make_strategy("auto"), otherwise=make_strategy("mbr", {"n": 5}))

    def otherwise(load: float = 1.0, **body: Any) -> Any:
        strategy = chosen(policy, load=load, **body).strategy
        assert isinstance(strategy, Comparing)
        return strategy.otherwise

    assert otherwise() == make_strategy("mbr", {"n": 5})
    assert otherwise(outthink={"n": 9}) == make_strategy("mbr", {"n": 9})
    assert otherwise(reasoning_effort="high") == make_strategy("mbr", {"n": 16})
    assert otherwise(load=0.5) == make_strategy("mbr", {"n": 2})


def test_a_plan_gets_the_sampling_that_it_was_recorded_with(plans: dict[str, str], tmp_path: Path) -> None:
    """Where the request says another one, the plan does not hold, which is said."""
    plan = Plan.open(plans["small"])
    recorded = tmp_path / "recorded.json"
    recorded.write_text(replace(plan, sampling={"temperature": 0.6, "top_p": 0.9, "max_tokens": 300}).to_json())
    policy = replace(THREE, plans={"small": str(recorded)})

    async def go() -> tuple[list[Answer], list[Seen]]:
        async with Server(says("The answer is 4.")) as up, serving(up, policy=policy) as (url, _):
            wish = {"outthink": {"plan": "small"}}
            bodies = [chat(**wish), chat(**wish, temperature=0.6), chat(**wish, temperature=0.7)]
            answers = [await asked(url, body) for body in bodies]
            quoted = await asked(url, chat(**wish), path="/v1/quote")
            assert quoted.json["model"] == "m"
            return answers, up.asked

    (fine, same, other), seen = run(go())
    assert (fine.status, fine.content, same.status) == (200, "The answer is 4.", 200)
    assert {tuple(one.body[name] for name in ("temperature", "top_p", "max_tokens")) for one in seen} == {
        (0.6, 0.9, 300)
    }
    assert (other.status, "recorded with temperature 0.6" in other.error["message"]) == (400, True)
