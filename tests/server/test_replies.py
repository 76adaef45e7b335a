"""What a caller gets: the winner and why, every choice, a true end, a bill that adds up, and the same as a stream."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outthink.models.engine import Price
from outthink.models.facts import Facts
from outthink.planner.auto import Auto
from outthink.planner.make import make_plan
from outthink.planner.recordings import read
from outthink.records.runs import read_results
from outthink.records.traffic import SERVED, SHADOW
from outthink.rewards.making import Opened
from outthink.server.record import Recorder
from outthink.server.routing import ONE, ServerRules
from outthink.strategies.comparing import FREE
from outthink.strategies.making import make_strategy
from tests.tools import simulated
from tests.tools.server import ALL, BARE, Ask, Fault, Said, Server, run, says, tokens
from tests.tools.serving import Answer, asked, chat, closed, connected, counted, serving, written

NOTHING = "nothing is given that could choose, such as a verifier or a model in the role judge"
UNLIKE = [
    "Old roofs drum softly.",
    "My cat hates the wet window;\nbut thunder, she sings.",
    "Puddles keep the sky for a while, until boots come.",
    "Umbrella upside down: a bowl full of April.",
]
FOUR = ServerRules(strategy=make_strategy("self_consistency", {"n": 4}))
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
JSON = {"type": "json_object"}
KINDS = {"all": ALL, "bare": BARE, "streamed": replace(BARE, stream=True), "several": replace(BARE, n=True)}
BY_TEXT = replace(BARE, labels=20, logprobs=True, prefix="text", stop="kept")
every_kind = pytest.mark.parametrize("facts", KINDS.values(), ids=KINDS.keys())
PROSE = "Of all the things that could be said about it, this one is by far the most beautiful, and here it goes on: "


def in_turn(*texts: str | Said) -> Callable[[Ask], str | Said]:
    """The k-th sample of all says the k-th text, in however many requests they are drawn."""
    given = itertools.count()
    return lambda ask: texts[next(given) % len(texts)]


def replied(
    *texts: str | Said,
    policy: ServerRules = FOUR,
    facts: Facts = ALL,
    server: dict[str, Any] | None = None,
    **body: Any,
) -> Answer:
    """The reply to a request whose samples say these texts."""

    async def go() -> Answer:
        parts = {role: Opened(scorer) for role, scorer in policy.scorers.items()}
        async with (
            Server(in_turn(*texts), **(server or {})) as up,
            serving(up, policy=policy, facts=facts, scorers=parts) as (url, _),
        ):
            return await asked(url, chat(**body))

    return run(go())


def contents(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.error
    return [choice["message"]["content"] for choice in answer.json["choices"]]


def called(*calls: tuple[str, str], text: str = "") -> Said:
    return Said(text=text, calls=calls)


def calls_in(answer: Answer) -> list[tuple[str, str, str]]:
    """(id, name, arguments) of the first choice."""
    assert answer.status == 200, answer.error
    message = answer.json["choices"][0]["message"]
    return [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in message["tool_calls"]]


def outthink(answer: Answer) -> dict[str, Any]:
    told: dict[str, Any] = answer.json["outthink"]
    return told


# ---------------------------------------------------------------------------------------------- votes on calls and JSON


def test_the_most_frequent_call_wins_however_it_is_written() -> None:
    one, two = called(("f", '{"x": 1}')), ('{"x": 2, "y": "a"}', '{"y":"a","x":2.0}', '{ "x": 2e0, "y": "\\u0061" }')
    answer = replied(one, *(called(("f", arguments)) for arguments in two), tools=[TOOL])
    (choice,) = answer.json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    ((name, function, arguments),) = calls_in(answer)
    assert (function, arguments) == ("f", two[0]), "the first of them, as the model wrote it"
    assert name == "call_1_0", "with its own id"
    assert outthink(answer)["confidence"] == 0.75
    assert (outthink(answer)["samples"], outthink(answer)["distinct"]) == (4, 2)


def test_calls_beside_each_other_are_a_set() -> None:
    f, g = ("f", '{"x": 1}'), ("g", '{"y": 2}')
    answer = replied(called(f), called(f, g), called(g, f), called(g, g), tools=[TOOL])
    assert [name for _, name, _ in calls_in(answer)] == ["f", "g"], "in the order of the one that was chosen"
    assert outthink(answer)["distinct"] == 3


@pytest.mark.parametrize("forced", [{"tool_choice": "required"}, {}], ids=["forced", "looked at"])
def test_a_call_that_is_no_json_never_wins(forced: dict[str, Any]) -> None:
    broken, whole = called(("f", '{"x": 1')), called(("f", '{"x": 2}'))
    answer = replied(broken, broken, whole, broken, tools=[TOOL], **forced)
    assert [arguments for _, _, arguments in calls_in(answer)] == ['{"x": 2}']
    assert outthink(answer)["confidence"] == 1.0, "nothing else has votes"


def test_where_no_call_is_json_one_comes_as_it_is() -> None:
    answer = replied(called(("f", '{"x": 1')), tools=[TOOL])
    assert [arguments for _, _, arguments in calls_in(answer)] == ['{"x": 1']
    assert outthink(answer)["answer"] is None


def test_calls_and_text_vote_together() -> None:
    answer = replied("It is 4.", "It is 4.", called(("f", "{}")), called(("f", "{}"), text="So: "), tools=[TOOL])
    assert outthink(answer)["distinct"] == 2
    assert outthink(answer)["confidence"] == 0.5


def test_json_is_compared_by_value_and_what_is_none_never_wins() -> None:
    broken = '{"a": 1,}'
    answer = replied(broken, '{"a": 1, "b": [2]}', '{"b":[2.0],"a":1e0}', broken, response_format=JSON)
    assert contents(answer) == ['{"a": 1, "b": [2]}']
    assert outthink(answer)["confidence"] == 1.0
    with_tools = replied(broken, broken, broken, '{"a": 3}', response_format=JSON, tools=[TOOL])
    assert contents(with_tools) == ['{"a": 3}']
    calls = replied(broken, called(("f", "{}")), called(("f", "{}")), '{"a": 3}', response_format=JSON, tools=[TOOL])
    assert [name for _, name, _ in calls_in(calls)] == ["f"]


def test_what_was_cut_off_never_wins() -> None:
    long = '{"a": "' + "x " * 40 + '"}'
    answer = replied(long, long, long, '{"a": 1}', response_format=JSON, max_tokens=30)
    assert contents(answer) == ['{"a": 1}']
    assert answer.json["choices"][0]["finish_reason"] == "stop"
    several = replied("no", "no JSON at all", "no JSON", response_format=JSON)
    assert contents(several) == ["no JSON at all"], "where there is none, the longest comes"
    nothing = replied(long, response_format=JSON, max_tokens=30)
    (choice,) = nothing.json["choices"]
    assert choice["finish_reason"] == "length"
    assert long.startswith(choice["message"]["content"])
    assert outthink(nothing)["answer"] is None


# --------------------------------------------------------------------------------------------------------- n in the API


def test_several_choices_are_the_best_different_answers() -> None:
    texts = [f"The answer is {number}." for number in (5, 4, 6, 4, 6, 4)]
    policy = replace(FOUR, strategy=make_strategy("self_consistency", {"n": 6}))
    for wanted, numbers in ((1, "4"), (2, "46"), (3, "465"), (5, "465")):
        answer = replied(*texts, policy=policy, n=wanted)
        assert contents(answer) == [f"The answer is {number}." for number in numbers]
        assert [choice["index"] for choice in answer.json["choices"]] == list(range(len(numbers)))
        notes = [note for note in outthink(answer)["notes"] if "choices" in note]
        assert notes == (["5 choices were asked for, and there are 3"] if wanted == 5 else [])


def test_where_there_are_scores_the_next_best_comes_next() -> None:
    """The fake's logprobs fall with every new word, so the confidence in later words is less."""
    policy = ServerRules(strategy=make_strategy("best_of_n", {"n": 4}), scorers={"verifier": "confidence"})
    texts = ["a b c d: The answer is 1.", "The answer is 2.", "a: The answer is 1.", "b c: The answer is 3."]
    answer = replied(*texts, policy=policy, n=3)
    assert len(set(contents(answer))) == 3
    ledger = {line["kind"] for line in outthink(answer)["ledger"]}
    assert ledger == {"sample"}
    again = replied(*texts, policy=policy, n=1)
    assert contents(again) == contents(answer)[:1]


@every_kind
def test_without_a_strategy_several_choices_are_all_samples_as_they_came(facts: Facts) -> None:
    texts = ("The answer is 4.", PROSE + "and on " * 30, "", "The answer is 4.")
    answer = replied(*texts, facts=facts, model=f"m+{ONE}", n=4, max_tokens=60)
    assert [choice["index"] for choice in answer.json["choices"]] == [0, 1, 2, 3]
    texts_back = contents(answer)
    assert (texts_back[0], texts_back[2], texts_back[3]) == (texts[0], texts[2], texts[3])
    assert texts[1].startswith(texts_back[1])
    assert [choice["finish_reason"] for choice in answer.json["choices"]] == ["stop", "length", "stop", "stop"]
    assert outthink(answer)["notes"] == []


def test_free_text_comes_as_often_as_it_was_asked_for() -> None:
    answer = replied(PROSE + "one", PROSE + "two", PROSE + "three", PROSE + "four", n=3)
    assert contents(answer) == [PROSE + "one", PROSE + "two", PROSE + "three"]
    assert outthink(answer)["notes"] == [f"{FREE} they are as they came: {NOTHING}"]
    many = [PROSE + word for word in "abcdefgh"]
    answer, counts = drawn(*many, n=6)
    assert (contents(answer), counts) == (many[:6], [4, 2])
    assert outthink(answer)["samples"] == 6


# ----------------------------------------------------------------------------------------------------- how it has ended


def filtered(*places: int) -> Callable[[dict[str, Any]], Any]:
    """A filter keeps these choices back."""

    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            if choice.get("finish_reason") and choice["index"] in places:
                choice["finish_reason"] = "content_filter"
        return answer

    return bend


@every_kind
def test_what_a_filter_keeps_back_is_an_error_where_there_is_nothing_else(facts: Facts) -> None:
    only = replied("It is 4.", facts=facts, model=f"m+{ONE}", server={"bend": filtered(0)})
    assert (only.status, only.error["code"]) == (400, "content_filter")
    if facts.n:
        some = replied("It is 4.", facts=facts, model=f"m+{ONE}", n=3, server={"bend": filtered(1)})
        assert [choice["index"] for choice in some.json["choices"]] == [0, 2]
        assert outthink(some)["notes"] == ["3 choices were asked for, and there are 2"]
        vote = replied("It is 4.", facts=facts, outthink={"answer": "text"}, server={"bend": filtered(0, 1, 2)})
        assert contents(vote) == ["It is 4."]


@pytest.mark.parametrize(("said", "told"), [("eos", "stop"), ("end_turn", "stop"), ("max_tokens", "length")])
def test_other_words_for_an_end_are_those_of_the_api(said: str, told: str) -> None:
    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            if choice.get("finish_reason"):
                choice["finish_reason"] = said
        return answer

    plain = replied("It is 4.", model=f"m+{ONE}", server={"bend": bend})
    assert plain.json["choices"][0]["finish_reason"] == told
    thinking = replied(Said(thoughts="hm", text="It is 4."), model=f"m+{ONE}", server={"bend": bend})
    assert thinking.json["choices"][0]["finish_reason"] == told
    if told == "stop":
        call = replied(called(("f", "{}")), model=f"m+{ONE}", tools=[TOOL], server={"bend": bend})
        assert call.json["choices"][0]["finish_reason"] == "tool_calls"


def test_an_empty_answer_that_was_cut_off_says_so() -> None:
    """So it is with models that think out of sight."""

    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            if choice.get("finish_reason"):
                choice["finish_reason"] = "length"
        if "usage" in answer:
            answer["usage"]["completion_tokens"] = 50
            answer["usage"]["completion_tokens_details"] = {"reasoning_tokens": 50}
        return answer

    answer = replied("", model=f"m+{ONE}", max_tokens=50, server={"bend": bend})
    (choice,) = answer.json["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
    usage = answer.json["usage"]
    assert (usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (50, 50)


def test_the_winner_s_logprobs_and_thoughts_come_with_it() -> None:
    texts = [Said(thoughts=f"try {number}", text=f"It is {number}.") for number in (5, 4, 4, 4)]
    answer = replied(*texts, logprobs=True, top_logprobs=1)
    (choice,) = answer.json["choices"]
    assert choice["message"]["content"] == "It is 4."
    assert choice["message"]["reasoning_content"] == "try 4"
    tokens = [one["token"] for one in choice["logprobs"]["content"]]
    assert "".join(tokens) == "try 4It is 4.<|end|>"
    assert all(len(one["top_logprobs"]) == 1 for one in choice["logprobs"]["content"])
    assert replied(*texts).json["choices"][0]["logprobs"] is None


def test_a_refusal_is_passed_on() -> None:
    def bend(answer: dict[str, Any]) -> Any:
        for choice in answer["choices"]:
            form = choice.get("message") or choice["delta"]
            if form.get("content"):
                form["refusal"] = form.pop("content")
        return answer

    for name in (ONE, "self_consistency"):
        answer = replied("I cannot.", model=f"m+{name}", server={"bend": bend})
        (choice,) = answer.json["choices"]
        assert choice["message"] == {"role": "assistant", "content": None, "refusal": "I cannot."}


def test_one_that_finds_nothing_good_enough_says_so() -> None:
    policy = ServerRules(
        strategy=make_strategy("resample", {"n": 2, "threshold": 2.0}), scorers={"verifier": "confidence"}
    )
    answer = replied("It is 4.", policy=policy)
    assert contents(answer) == ["It is 4."]
    assert outthink(answer)["answer"] is None
    assert outthink(answer)["notes"] == ["nothing was good enough to be chosen; the reply is what there is"]


# ------------------------------------------------------------------------------------------------------------- the bill


def judged(ask: Ask) -> str | Said:
    """Samples with an answer; whoever judges them writes something else."""
    if ask.body.get("top_logprobs") == 20:
        return "Yes"
    answer = f"The answer is {ask.rng.randrange(3)}."
    return answer if ask.prefix else Said(thoughts="let me see", text=f"It is this:\n\n{answer}")


BILLS: dict[str, tuple[ServerRules, dict[str, Any]]] = {
    "one": (FOUR, {"model": f"m+{ONE}"}),
    "three": (FOUR, {"model": f"m+{ONE}", "n": 3}),
    "greedy": (FOUR, {"model": "m+greedy"}),
    "vote": (FOUR, {}),
    "vote of two": (FOUR, {"n": 2}),
    "auto": (FOUR, {"model": "m+auto"}),
    "judge": (ServerRules(strategy=make_strategy("best_of_n", {"n": 3}), scorers={"verifier": "judge"}), {}),
    "fusion": (FOUR, {"model": "m+fusion"}),
    "search": (ServerRules(strategy=make_strategy("rebase", {"width": 3}), scorers={"prm": "judge"}), {}),
    "rollouts": (
        ServerRules(strategy=make_strategy("rebase", {"width": 2}), scorers={"prm": "rollout?m=1&verifier=judge"}),
        {},
    ),
    "capped": (FOUR, {"max_tokens": 5}),
}


@pytest.mark.parametrize("name", BILLS)
@pytest.mark.parametrize("facts", [ALL, BY_TEXT], ids=["all", "bare"])
def test_the_bill_is_what_the_upstream_counts_whole_and_streamed(name: str, facts: Facts) -> None:
    policy, body = BILLS[name]

    async def go() -> None:
        parts = {role: Opened(scorer, process=role == "prm") for role, scorer in policy.scorers.items()}
        bills = []
        for stream in (False, True):
            async with (
                Server(judged, caches=True) as up,
                serving(up, policy=policy, facts=facts, scorers=parts) as (url, service),
            ):
                streamed = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
                answer = await asked(url, chat(**{"seed": 5, **body, **streamed}))
                assert answer.status == 200, answer.body
                last = answer.events[-2] if stream else answer.json
                usage, told = last["usage"], last["outthink"]
                checks = told["verifier_tokens"]
                details = usage["completion_tokens_details"]["reasoning_tokens"]
                assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
                assert usage["completion_tokens"] + checks["completion"] == up.made
                assert usage["prompt_tokens"] + checks["prompt"] == up.prompt
                cached = usage["prompt_tokens_details"]["cached_tokens"] + checks["cached"]
                assert cached == sum(seen.cached for seen in up.asked)
                assert (sum(checks.values()) > 0) == bool(policy.scorers)
                assert told["cost"]["tokens"] == up.prompt - cached + up.made
                assert sum(line["completion_tokens"] for line in told["ledger"]) == up.made
                if not stream:
                    assert int(answer.headers["x-litellm-total-tokens"]) == up.prompt + up.made
                    choices = answer.json["choices"]
                    hidden = usage["completion_tokens"] - visible(choices)
                    assert abs(details - hidden) <= (0 if facts.stream else len(choices)), "else by length"
                    assert not any("let me see" in choice["message"]["content"] for choice in choices)
                metrics = counted(service).items()
                assert sum(value for name, value in metrics if name.endswith(" completion")) == up.made
                bills.append((usage, checks, [line | {"exact": True} for line in told["ledger"]]))
        assert bills[0] == bills[1]

    run(go())


def visible(choices: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of the fake server that are shown: words, gaps and the mark of the end, but no thoughts."""
    shown = ((choice["message"]["content"] or "", choice["finish_reason"]) for choice in choices)
    return sum(len(tokens(text)) + (reason == "stop") for text, reason in shown if text)


def test_dollars_are_those_of_all_calls() -> None:
    async def go() -> None:
        policy = ServerRules(strategy=make_strategy("best_of_n", {"n": 3}), scorers={"verifier": "judge"})
        parts = {"verifier": Opened("judge")}
        async with Server(judged) as up, serving(up, policy=policy, scorers=parts) as (url, service):
            engine = await service._served.engine("m")
            spec = replace(engine.spec, price=Price(prompt=1.0, completion=2.0))
            engine._spec = spec  # type: ignore[attr-defined]
            answer = await asked(url, chat())
            expected = (up.prompt + 2 * up.made) / 1e6
            assert float(answer.headers["x-litellm-response-cost"]) == pytest.approx(expected)
            assert outthink(answer)["cost"]["usd"] == pytest.approx(expected)
            assert answer.headers["x-outthink-trace"] == outthink(answer)["trace"] == answer.json["id"]

    run(go())


# ------------------------------------------------------------------------------------------------------- free-form text


def drawn(
    *texts: str | Said,
    policy: ServerRules = FOUR,
    facts: Facts = ALL,
    server: dict[str, Any] | None = None,
    **body: Any,
) -> tuple[Answer, list[int]]:
    """The reply, and for how many samples the upstream was asked in each request."""

    async def go() -> tuple[Answer, list[int]]:
        parts = {role: Opened(scorer) for role, scorer in policy.scorers.items()}
        async with (
            Server(in_turn(*texts), **(server or {})) as up,
            serving(up, policy=policy, facts=facts, scorers=parts, patience={"attempts": 1}) as (url, _),
        ):
            answer = await asked(url, chat(**body))
            return answer, [seen.body.get("n", 1) for seen in up.asked if seen.body.get("top_logprobs") != 20]

    return run(go())


@every_kind
def test_where_two_are_equal_the_first_ones_are_gone_on_from_and_paid_for_once(facts: Facts) -> None:
    texts = ["It is 5.", "It is 4.", "It is 3.", "It is 5.", "It is 4.", "It is 4."]
    answer, counts = drawn(*texts, policy=replace(FOUR, strategy=make_strategy("self_consistency?n=6")), facts=facts)
    assert counts == ([4, 2] if facts.n else [1] * 6)
    assert contents(answer) == ["It is 4."]
    assert (outthink(answer)["samples"], outthink(answer)["notes"]) == (6, [])


@every_kind
def test_where_all_differ_nothing_more_is_drawn_and_the_reply_says_so(facts: Facts) -> None:
    for name in ("self_consistency", "auto", "esc", "adaptive_consistency", "sample_and_cluster"):
        answer, counts = drawn(*UNLIKE, facts=facts, model=f"m+{name}")
        assert (contents(answer), counts) == (UNLIKE[:1], [4] if facts.n else [1] * 4)
        assert outthink(answer)["notes"] == [f"{FREE} the first one stands: {NOTHING}"]
        assert outthink(answer)["strategy"]["name"] == name
        assert outthink(answer)["stopped"] == "finished"


@pytest.mark.parametrize(
    ("strategy", "drawn_at"),
    [
        ("auto", [(None, 4)]),  # four that are equal are enough
        ("adaptive_consistency?n=8&ahead=8", [(None, 4)]),
        ("esc?n=8&w=5", [(None, 4), (None, 1)]),
        ("self_consistency?n=6", [(None, 4), (None, 2)]),
        ("first_finish?n=6&k=3", [(None, 4)]),
        ("hedged_sampling?n=6&temperature=0.9", [(0.0, 1), (0.9, 3), (0.9, 2)]),
        ("multi_temperature?temperatures=0.5,1.0&n=4&n_min=2&ahead=1", [(0.5, 2), (1.0, 2)]),
        ("revision?n=8&ratio=0.5", [(None, 4), *[(1.0, 1)] * 4]),
        ("iterative_deepening?n=3", [(None, 3)]),  # its first samples are pieces, which say nothing
    ],
)
def test_whatever_votes_begins_with_the_samples_that_were_looked_at(
    strategy: str, drawn_at: list[tuple[float | None, int]]
) -> None:
    async def go() -> tuple[Answer, list[tuple[float | None, int]]]:
        async with Server(says("It is 4.")) as up, serving(up, strategy=strategy) as (url, _):
            answer = await asked(url, chat(max_tokens=50))
            return answer, [(seen.body.get("temperature"), seen.body.get("n", 1)) for seen in up.asked]

    answer, requests = run(go())
    assert (contents(answer), requests) == (["It is 4."], drawn_at)
    assert outthink(answer)["samples"] == sum(n for _, n in drawn_at)


def test_where_all_differ_several_choices_are_drawn_as_the_first_ones_were() -> None:
    async def go() -> tuple[Answer, list[Any]]:
        texts = in_turn(*(PROSE + word for word in "abcdefgh"))
        async with Server(texts) as up, serving(up, strategy="hedged_sampling?n=4&temperature=0.9") as (url, _):
            answer = await asked(url, chat(n=6))
            return answer, [(seen.body["temperature"], seen.body.get("n", 1)) for seen in up.asked]

    answer, requests = run(go())
    assert requests == [(0.0, 1), (0.9, 3), (0.9, 2)]
    assert contents(answer) == [PROSE + word for word in "abcdef"]


@pytest.mark.parametrize(
    ("replies", "votes"),
    [
        (["Rust.", "Go.", "It depends on what you build.", "Rust, if you have the time."], False),
        (["391", "The answer is 391.", PROSE, "17 * 23 = 391"], True),
        (["Paris", "Paris.", "It is Lyon", "Nice"], True),
        ([PROSE + word for word in ("one", "two", "three", "one")], True),
        ([f"The answer is {number}." for number in range(4)], False),
        ([f'{{"a": {number}}}' for number in range(4)], False),
        (['{"a": 1, "b": 2}', "{}", '{"b": 2.0, "a": 1}', "[]"], True),
    ],
)
def test_what_is_voted_on_is_decided_by_agreement_and_not_by_looks(replies: list[str], votes: bool) -> None:
    policy = replace(FOUR, strategy=make_strategy("self_consistency?n=8"), otherwise=make_strategy("mbr?n=6"))
    answer, counts = drawn(*replies, policy=policy)
    assert counts == [4, 4 if votes else 2]
    assert outthink(answer)["notes"] == ([] if votes else [f"{FREE} mbr chose it"])


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_the_number_that_was_asked_for_is_that_of_what_stands_in(n: int) -> None:
    for otherwise in ("mbr", "feature_vote?n=7"):
        policy = replace(FOUR, otherwise=make_strategy(otherwise))
        answer, counts = drawn(*(PROSE + word * 5 for word in "abcdefghi"), policy=policy, outthink={"n": n})
        assert sum(counts) == n
        assert outthink(answer)["samples"] == n
        assert outthink(answer)["notes"] == [f"{FREE} {otherwise.partition('?')[0]} chose it"]


def test_what_stands_in_goes_on_from_the_first_sample() -> None:
    texts = [PROSE + "of cats and dogs", "Bees!", PROSE + "of cats and birds", PROSE + "of cats and dogs"]
    by_likeness = replace(FOUR, otherwise=make_strategy("mbr", {"n": 6}))
    answer, counts = drawn(texts[1] * 30, texts[0], texts[2], texts[1] * 20, *texts[2:], policy=by_likeness)
    assert counts == [4, 2]
    assert contents(answer)[0].startswith(PROSE)
    assert outthink(answer)["notes"] == [f"{FREE} mbr chose it"]
    assert outthink(answer)["samples"] == 6

    def verdict(ask: Ask) -> str:
        return next(verdicts) if "Yes or No" in json.dumps(ask.body) else next(prose)

    verdicts, prose = itertools.cycle(["Yes"]), iter([PROSE + word for word in "abcdef"])
    judge = replace(FOUR, scorers={"verifier": "judge"}, otherwise=make_strategy("best_of_n", {"n": 5}))

    async def go() -> tuple[Answer, Server]:
        parts = {"verifier": Opened("judge")}
        async with Server(verdict) as up, serving(up, policy=judge, scorers=parts) as (url, _):
            return await asked(url, chat()), up

    answer, up = run(go())
    asked_for = [seen.body for seen in up.asked if "top_logprobs" not in seen.body]
    assert [body.get("n", 1) for body in asked_for] == [4, 1]
    assert outthink(answer)["notes"] == [f"{FREE} best_of_n chose it"]
    assert outthink(answer)["verifier_tokens"]["prompt"] > 0


@pytest.mark.parametrize("chosen", [True, False])
def test_without_a_word_of_the_operator_a_judge_that_is_there_chooses_if_it_can_be_paid(chosen: bool) -> None:
    alone, _ = drawn(*UNLIKE, policy=replace(FOUR, strategy=make_strategy("auto")), max_tokens=120)
    least = int(outthink(alone)["cost"]["tokens"])  # a judge's four readings take more than what is added
    budget = {} if chosen else {"budget": {"tokens": least + 200}}

    def verdict(ask: Ask) -> str:
        return next(verdicts) if "Yes or No" in json.dumps(ask.body) else next(poems)

    verdicts, poems = itertools.cycle(["No", "No", "Yes", "No"]), iter(UNLIKE)
    policy = replace(FOUR, strategy=make_strategy("auto"), scorers={"verifier": "judge"})

    async def go() -> tuple[Answer, Server]:
        async with (
            Server(verdict, top=()) as up,
            serving(up, policy=policy, scorers={"verifier": Opened("judge")}) as (url, _),
        ):
            return await asked(url, chat("Write a poem", max_tokens=120, outthink=budget)), up

    answer, up = run(go())
    (note,) = outthink(answer)["notes"]
    if not chosen:
        assert note == f"{FREE} the first one stands: the budget leaves no room for best_of_n"
        assert contents(answer) == UNLIKE[:1]
        return
    assert note == f"{FREE} best_of_n chose it"
    assert up.asked[0].body["messages"] == chat("Write a poem")["messages"]
    judged = {line["kind"]: line for line in outthink(answer)["ledger"]}["judge"]
    assert judged["prompt_tokens"] == outthink(answer)["verifier_tokens"]["prompt"] > 0
    assert outthink(answer)["samples"] == 4


def test_first_samples_that_have_failed_say_nothing_about_the_others() -> None:
    lost = {"faults": [Fault(status=400)]}
    answer, counts = drawn("It is 5.", "It is 4.", "It is 4.", "It is 4.", server=lost)
    assert (contents(answer), counts) == (["It is 4."], [4, 4])
    assert [line["failed"] for line in outthink(answer)["ledger"]] == [4]
    gone, counts = drawn("", server={"always": Fault(status=400)})
    assert (gone.status, counts) == (400, [4, 4])


@pytest.mark.parametrize("none", ["so " * 40, "", "  "], ids=["cut off", "empty", "blank"])
def test_samples_that_are_no_answers_say_nothing_about_the_others_either(none: str) -> None:
    eight = replace(FOUR, strategy=make_strategy("self_consistency?n=8"))
    texts = [none, none, "It is 3.", "It is 2.", "It is 4.", "It is 4.", "It is 5.", none]
    answer, counts = drawn(*texts, policy=eight, max_tokens=30)
    assert (contents(answer), counts) == (["It is 4."], [4, 4])
    nothing, counts = drawn(none, policy=eight, max_tokens=30)
    assert nothing.status == 200
    assert counts == [4], "more of them would be no better"
    assert nothing.json["choices"][0]["finish_reason"] == ("length" if "so" in none else "stop")


@pytest.mark.parametrize("text", ["It is 4.", PROSE, "so " * 40], ids=["short", "prose", "cut off"])
def test_a_budget_of_one_sample_is_one_sample(text: str) -> None:
    worst = drawn(text, max_tokens=50, outthink={"budget": {"tokens": 10}})[0]
    assert (worst.status, worst.error["code"]) == (400, "budget_too_small")
    least = int(worst.error["message"].split("allow at least ")[1].split()[0])
    answer, counts = drawn(text, max_tokens=50, outthink={"budget": {"tokens": least}})
    assert counts == [1]
    assert text.startswith(contents(answer)[0])
    assert outthink(answer)["stopped"] == "budget"
    assert outthink(answer)["cost"]["tokens"] <= least


# -------------------------------------------------------------------------------------------------------------- streams


def merged(answer: Answer) -> dict[str, Any]:
    """The reply that a stream adds up to; its chunks must have the form that they have in OpenAI's API."""
    *chunks, done = answer.events
    assert done == "[DONE]"
    assert len({(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    choices: dict[int, dict[str, Any]] = {}
    for piece in (piece for chunk in chunks for piece in chunk["choices"]):
        empty: dict[str, Any] = {"message": {"content": None, "refusal": None}, "logprobs": None, "finish_reason": None}
        assert ("role" in piece["delta"]) == (piece["index"] not in choices), "once, at the beginning"
        choice = choices.setdefault(piece["index"], {"index": piece["index"], **empty})
        assert choice["finish_reason"] is None, "nothing comes after the end"
        for name, value in piece["delta"].items():
            if name == "tool_calls":
                _add_calls(choice["message"].setdefault(name, []), value)
            elif value is not None:
                choice["message"][name] = (choice["message"].get(name) or "") + value
        if piece.get("logprobs"):
            choice["logprobs"] = choice["logprobs"] or {"content": []}
            choice["logprobs"]["content"] += piece["logprobs"]["content"]
        choice["finish_reason"] = piece["finish_reason"]
    assert all(choice["finish_reason"] for choice in choices.values())
    return {"choices": [choices[index] for index in sorted(choices)], "outthink": chunks[-1]["outthink"]}


def _add_calls(whole: list[dict[str, Any]], pieces: Sequence[Mapping[str, Any]]) -> None:
    for piece in pieces:
        if piece["index"] == len(whole):
            whole.append({"id": piece["id"], "type": piece["type"], "function": {**piece["function"]}})
        else:
            whole[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]


STREAMS: dict[str, tuple[tuple[str | Said, ...], dict[str, Any]]] = {
    "text": (("So it must be that the answer is 4.", "So I think that the answer is 5."), {}),
    "nothing": (("",), {}),
    "thoughts": ((Said(thoughts="let me see", text="It is 4."),), {}),
    "calls": ((called(("f", '{"x": 1, "y": 2}'), ("g", ""), text="So: "), called(("f", "{}"))), {"tools": [TOOL]}),
    "logprobs": (("It is 4.", "It is 5."), {"logprobs": True, "top_logprobs": 1}),
    "several": (("It is 4.", "It is 5.", "It is 4.", "It is 6."), {"n": 3}),
    "cut off": (("so " * 40,), {"max_tokens": 20}),
    "prose": ((PROSE,), {}),
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "none": {"model": "m+none"},
    "greedy": {"model": "m+greedy"},
    "one": {"outthink": {"n": 1}},
    "vote": {},
    "auto": {"model": "m+auto"},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", STREAMS)
@every_kind
def test_a_stream_adds_up_to_the_whole_reply(name: str, strategy: str, facts: Facts) -> None:
    texts, body = STREAMS[name]
    body = body | STRATEGIES[strategy] | {"seed": 3}
    whole = replied(*texts, facts=facts, **body)
    assert whole.status == 200, whole.error
    bare = replied(*texts, facts=facts, stream=True, **body)
    counted = replied(*texts, facts=facts, stream=True, stream_options={"include_usage": True}, **body)
    for stream in (bare, counted):
        put_together = merged(stream)
        assert put_together["choices"] == whole.json["choices"]
        mine, other = put_together["outthink"], outthink(whole)
        assert {**mine, "trace": 0, "cost": 0, "budget": 0} == {**other, "trace": 0, "cost": 0, "budget": 0}
        assert mine["trace"] == stream.events[0]["id"] == stream.headers["x-outthink-trace"]
        assert stream.events[0]["model"] == body.get("model", "m")
    assert not any("usage" in event for event in bare.events if event != "[DONE]")
    *earlier, last, _ = counted.events
    assert (last["choices"], last["usage"]) == ([], whole.json["usage"])
    assert all(event["usage"] is None for event in earlier)
    if name == "text" and strategy == "vote":
        said = [event["choices"][0]["delta"].get("content") for event in bare.events[:-1]]
        assert len([text for text in said if text]) > 1, "the winner comes in pieces as well"


async def lines(url: str, body: Any) -> Any:
    """The events of a stream, each as it comes."""
    reader, writer = await connected(url)
    writer.write(written(url, body))
    try:
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        while True:
            line = (await reader.readline()).strip()
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                yield json.loads(line.removeprefix(b"data: "))
            elif line == b"data: [DONE]":
                return
    finally:
        await closed(writer)


@pytest.mark.parametrize("body", [{"model": "m+none"}, {"model": "m+greedy"}, {"outthink": {"n": 1}}], ids=str)
@pytest.mark.parametrize(
    "said", ["so it is that the answer is 4.", Said(thoughts="well well"), called(("f", '{"x": 1, "y": 2}'))], ids=str
)
@pytest.mark.parametrize("facts", [ALL, replace(BARE, stream=True)], ids=["all", "streamed"])
def test_one_sample_is_passed_on_while_it_is_written(body: dict[str, Any], said: str | Said, facts: Facts) -> None:
    async def go() -> None:
        async with Server(says(said), pace=1.0) as up, serving(up, policy=FOUR, facts=facts) as (url, _):
            made = []
            async for event in lines(url, chat(stream=True, tools=[TOOL], **body)):
                if event["choices"] and any(event["choices"][0]["delta"].values()):
                    made.append(up.made)
            assert made == list(range(1, up.made)), "each piece came when it was written"

    run(go())


def test_several_samples_are_passed_on_side_by_side() -> None:
    async def go() -> None:
        async with Server(says("one two three", "four five six"), pace=1.0) as up, serving(up) as (url, _):
            seen = []
            async for event in lines(url, chat(stream=True, model="m+none", n=2)):
                seen += [choice["index"] for choice in event["choices"] if choice["delta"].get("content")]
            assert seen == [0, 1] * 5

    run(go())


def test_a_vote_is_told_when_it_is_over_and_says_until_then_that_it_works() -> None:
    async def go() -> None:
        settings = {"keep_alive": 2.0}
        async with (
            Server(says("The answer is 4."), pace=1.0) as up,
            serving(up, policy=FOUR, settings=settings) as (url, _),
        ):
            answer = await asked(url, chat(stream=True, outthink={"progress": True}))
            comments = [line for line in answer.body.decode().splitlines() if line.startswith(":")]
            assert len(comments) >= 8
            progress = [event["outthink"]["progress"] for event in answer.events[:-2] if "outthink" in event]
            assert [(done["kind"], done["samples"]) for done in progress] == [("sample", 4)]
            assert sum(done["tokens"] for done in progress) == merged(answer)["outthink"]["cost"]["tokens"]
            assert up.made == 4 * 8

    run(go())


@pytest.mark.parametrize("then", ["cut", "end"])
def test_a_stream_that_breaks_is_an_error_and_has_no_end(then: Any) -> None:
    broken = {"faults": [Fault(after=4, then=then)]}
    answer = replied("The answer is 4.", server=broken, model="m+none", stream=True)
    assert answer.status == 200
    *pieces, last = answer.events
    assert (last.keys(), last["error"]["type"]) == ({"error"}, "server_error")
    assert "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces) == "The answer"


def test_of_several_samples_one_that_fails_on_its_way_is_cut_off() -> None:
    streamed = replace(BARE, stream=True)
    broken = {"faults": [Fault(), Fault(after=4)]}
    body: dict[str, Any] = {"model": "m+none", "n": 3, "facts": streamed, "server": broken}
    answer = replied("The answer is 4.", **{**body, "server": {"faults": [Fault(), Fault(after=4)]}})
    places = [choice["index"] for choice in answer.json["choices"]]
    assert len(places) == 2
    choices = merged(replied("The answer is 4.", stream=True, **body))["choices"]
    ends = [(choice["message"]["content"], choice["finish_reason"]) for choice in choices]
    assert sorted(ends) == [("The answer", "length"), *[("The answer is 4.", "stop")] * 2]
    filtered_out = replied("It is 4.", model="m+none", n=3, stream=True, server={"bend": filtered(1)})
    assert [choice["finish_reason"] for choice in merged(filtered_out)["choices"]] == ["stop", "content_filter", "stop"]


def test_a_deadline_ends_a_stream_where_it_is() -> None:
    body: dict[str, Any] = {"model": "m+none", "outthink": {"budget": {"seconds": 4.5}}, "server": {"pace": 1.0}}
    whole = replied("one two three four five", **body)
    assert (contents(whole), whole.json["choices"][0]["finish_reason"]) == (["one two"], "length")
    stream = merged(replied("one two three four five", stream=True, **body))
    assert stream["choices"] == whole.json["choices"]
    assert stream["outthink"]["stopped"] == outthink(whole)["stopped"] == "deadline"


# --------------------------------------------------------------------------------------------------- quotes and shadows


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plan for the upstream's model, recorded at temperature 0.8 and with at most 64 tokens."""
    folder = tmp_path_factory.mktemp("plan")
    pool = simulated.pool(folder / "pool.jsonl", 20, 4, model="m")
    made, _ = make_plan(read([pool], orders=3), folds=2)
    (folder / "plan.json").write_text(made.to_json())
    return str(folder / "plan.json")


def quoted(policy: ServerRules = FOUR, scorers: Mapping[str, Any] | None = None, **body: Any) -> dict[str, Any]:
    async def go() -> dict[str, Any]:
        async with Server() as up, serving(up, policy=policy, scorers=scorers) as (url, _):
            answer = await asked(url, chat(**body), path="/v1/quote")
            assert answer.status == 200, answer.error
            assert not up.asked, "nothing is spent"
            shown: dict[str, Any] = answer.json
            return shown

    return run(go())


@pytest.mark.parametrize(
    ("body", "samples"),
    [
        ({}, 4),
        ({"outthink": {"n": 9}}, 9),
        ({"model": "m+none"}, 1),
        ({"model": "m+none", "n": 3}, 3),
        ({"n": 6}, 6),  # free text comes six times
        ({"model": "m+greedy"}, 1),
        ({"model": "m+auto"}, 40),
        ({"model": "m+revision"}, None),
        ({"model": "m+multi_temperature"}, None),
        ({"model": "m+heimdall"}, None),
    ],
)
def test_a_quote_is_the_most_that_a_request_can_cost(body: dict[str, Any], samples: int | None) -> None:
    shown = quoted(max_tokens=50, **body)
    assert shown["sample"] == {"tokens": 50 + 7}, "the prompt has seven tokens and may be read anew each time"
    assert shown["most"] == ({} if samples is None else {"tokens": samples * 57})
    unknown = [note for note in shown["notes"] if not note.startswith("General plan")]
    assert (unknown == []) == (samples is not None)
    assert (unknown != shown["notes"]) == (body.get("model") == "m+auto")
    assert shown["expected"] is None
    limited = quoted(max_tokens=50, **{**body, "outthink": {**body.get("outthink", {}), "budget": {"tokens": 100}}})
    assert limited["most"] == {"tokens": min(100, (samples or 100) * 57)}


def test_what_a_request_costs_is_within_its_quote() -> None:
    for body in ({}, {"n": 6}, {"model": "m+none", "n": 3}, {"model": "m+auto"}):
        most = quoted(max_tokens=50, **body)["most"]["tokens"]
        answer = replied(PROSE + "so on " * 40, max_tokens=50, **body)
        assert 57 <= outthink(answer)["cost"]["tokens"] <= most


def test_a_quote_says_what_limits_a_verifier() -> None:
    policy = replace(FOUR, scorers={"verifier": "judge"})
    parts = {"verifier": Opened("judge")}
    assert quoted(policy, parts, model="m+best_of_n")["notes"] == ["what verifiers use is limited by the budget only"]
    assert quoted(policy, parts)["notes"] == ["what verifiers use is limited by the budget only"], "for free text"
    assert quoted(policy, parts, outthink={"answer": "math"})["notes"] == []


def test_with_a_plan_a_quote_says_what_to_expect(plan: str) -> None:
    policy = ServerRules(strategy=Auto(plan=plan), plans={"small": plan})
    shown = quoted(policy, max_tokens=64, temperature=0.8)
    assert shown["strategy"]["plan"] == "small"
    assert shown["most"] == {}
    expected = shown["expected"]
    assert 0 < expected["low"] <= expected["accuracy"] <= expected["high"] <= 1
    assert expected["unit"] == "tokens"
    thrifty = quoted(policy, max_tokens=64, temperature=0.8, outthink={"budget": {"tokens": 120, "seconds": 5}})
    assert thrifty["most"] == {"tokens": 120}
    assert thrifty["expected"]["cost"] <= expected["cost"]
    assert quoted(replace(policy, strategy=Auto(plan=plan, mean_cost=50)))["expected"]["cost"] <= expected["cost"]
    other = quoted(policy, outthink={"budget": {"flops": 1e9}})
    assert other["expected"] == expected, "the plan counts tokens"
    with pytest.raises(AssertionError, match="A sample may cost 104 tokens"):
        quoted(policy, max_tokens=64, temperature=0.8, outthink={"budget": {"tokens": 90}})


def test_with_a_plan_a_request_is_answered_and_one_that_does_not_fit_it_costs_nothing(plan: str) -> None:
    policy = ServerRules(strategy=Auto(plan=plan), plans={"small": plan})
    answer, counts = drawn("It is 4.", policy=policy, max_tokens=64, temperature=0.8)
    assert contents(answer) == ["It is 4."]
    assert any("price" in note for note in outthink(answer)["notes"])
    assert counts[0] == 4
    for temperature, most in ((0.5, 64), (0.8, 65)):
        refused, counts = drawn("It is 4.", policy=policy, max_tokens=most, temperature=temperature)
        assert (refused.status, counts) == (400, [])
        assert "The plan was recorded with" in refused.error["message"]


def recording(folder: Path) -> Recorder:
    told = {"kind": "traffic", "model": "m"}
    return Recorder(folder, told, {**told, "alternative": ONE})


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_shadows_are_a_fixed_share_under_the_same_ids(tmp_path: Path, share: float) -> None:
    async def go() -> list[str]:
        settings = {"shadow": share, "alternative": ONE}
        async with (
            Server(says("It is 4.")) as up,
            serving(up, policy=FOUR, settings=settings, recorder=recording(tmp_path)) as (url, service),
        ):
            answers = [await asked(url, chat()) for _ in range(12)]
            assert (await asked(url, chat(model="m+none"))).status == 200
            if service.running.tasks:
                await asyncio.wait(service.running.tasks)
            return [answer.json["id"] for answer in answers]

    idents = run(go())
    served = [result.problem for result in read_results(tmp_path / SERVED)]
    assert served[:12] == idents
    assert len(served) == 13
    shadows = {result.problem: result.trace for result in read_results(tmp_path / SHADOW)}
    assert shadows.keys() == {ident for ident in idents if int(ident[-8:], 16) < share * 2**32}
    for trace in shadows.values():
        assert trace is not None
        assert (trace.strategy, len(trace.candidates), trace.answer) == ({"name": ONE}, 1, "It is 4.")


def test_nobody_waits_for_a_shadow(tmp_path: Path) -> None:
    async def go(share: float) -> float:
        settings = {"shadow": share, "alternative": ONE}
        async with (
            Server(says("It is 4."), pace=2.0) as up,
            serving(up, policy=FOUR, settings=settings, recorder=recording(tmp_path / str(share)), strategy="auto") as (
                url,
                service,
            ),
        ):
            loop = asyncio.get_running_loop()
            began = loop.time()
            answer = await asked(url, chat(seed=3))
            took = loop.time() - began
            assert bool(service.running.tasks) == bool(share), "it is not over"
            bodies = [seen.body for seen in up.asked]
            assert bodies[0]["seed"] == 3
            if share:
                await asyncio.wait(service.running.tasks)
                bodies = [seen.body for seen in up.asked]
                assert bodies[1]["priority"] > 0
                assert "priority" not in bodies[0]
                usage = answer.json["usage"]["completion_tokens"]
                assert usage == up.made - 6, "it is not on the caller's bill"
            return took

    alone, shadowed = run(go(0.0)), run(go(1.0))
    assert abs(shadowed - alone) < 2.0, "a shadow takes 18 seconds"
