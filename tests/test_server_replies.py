"""What a caller gets: the winner and why, every choice, a true end, a bill that adds up, and streams that say the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from outthink.driver import make_strategy
from outthink.models.engine import Price
from outthink.models.openai import Facts
from outthink.rewards import Opened
from outthink.server.choosing import ONE, Policy
from outthink.server.comparing import FREE
from tests.server import ALL, BARE, Ask, Said, Server, run
from tests.serving import Answer, asked, chat, counted, serving

FOUR = Policy(strategy=make_strategy("self_consistency", {"n": 4}))
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
JSON = {"type": "json_object"}
KINDS = {"all": ALL, "bare": BARE, "streamed": replace(BARE, stream=True), "several": replace(BARE, n=True)}
every_kind = pytest.mark.parametrize("facts", KINDS.values(), ids=KINDS.keys())
PROSE = "Of all the things that could be said about it, this one is by far the most beautiful, and here it goes on: "


def in_turn(*texts: str | Said) -> Callable[[Ask], str | Said]:
    """The k-th sample of all says the k-th text, in however many requests they are drawn; judges are not counted."""
    given = itertools.count()
    return lambda ask: texts[next(given) % len(texts)]


def replied(
    *texts: str | Said, policy: Policy = FOUR, facts: Facts = ALL, server: dict[str, Any] | None = None, **body: Any
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
    assert name == "call_0_0", "with its own id"
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
    nothing = replied(long, response_format=JSON, max_tokens=30)
    (choice,) = nothing.json["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == (
        "length",
        long[: len(choice["message"]["content"])],
    )
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
    policy = Policy(strategy=make_strategy("best_of_n", {"n": 4}), scorers={"verifier": "confidence"})
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
    found = contents(answer)
    assert (found[0], found[2], found[3]) == (texts[0], texts[2], texts[3])
    assert texts[1].startswith(found[1])
    assert [choice["finish_reason"] for choice in answer.json["choices"]] == ["stop", "length", "stop", "stop"]
    assert outthink(answer)["notes"] == []


def test_free_text_comes_as_often_as_it_was_asked_for() -> None:
    answer = replied(PROSE + "one", PROSE + "two", PROSE + "three", PROSE + "four", n=3)
    assert contents(answer) == [PROSE + "one", PROSE + "two", PROSE + "three"]
    assert outthink(answer)["notes"] == [f"{FREE} they are as they came"]
    assert outthink(answer)["samples"] == 3


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
    policy = Policy(
        strategy=make_strategy("resample", {"attempts": 2, "threshold": 2.0}), scorers={"verifier": "confidence"}
    )
    answer = replied("It is 4.", policy=policy)
    assert contents(answer) == ["It is 4."]
    assert outthink(answer)["answer"] is None
    assert outthink(answer)["notes"] == ["nothing was chosen; this is the longest reply"]


# -------------------------------------------------------------------------------------------------------------- the bill


def judged(ask: Ask) -> str | Said:
    """Samples with an answer; whoever judges them writes something else."""
    if ask.body.get("top_logprobs") == 20:
        return "Yes"
    return Said(thoughts="let me see", text=f"The answer is {ask.rng.randrange(3)}.")


BILLS: dict[str, tuple[Policy, dict[str, Any]]] = {
    "one": (FOUR, {"model": f"m+{ONE}"}),
    "three": (FOUR, {"model": f"m+{ONE}", "n": 3}),
    "greedy": (FOUR, {"model": "m+greedy"}),
    "vote": (FOUR, {}),
    "vote of two": (FOUR, {"n": 2}),
    "auto": (FOUR, {"model": "m+auto"}),
    "judge": (Policy(strategy=make_strategy("best_of_n", {"n": 3}), scorers={"verifier": "judge"}), {}),
    "fusion": (FOUR, {"model": "m+fusion"}),
    "search": (Policy(strategy=make_strategy("rebase", {"width": 3}), scorers={"prm": "judge"}), {}),
    "capped": (FOUR, {"max_tokens": 5}),
}


@pytest.mark.parametrize("name", BILLS)
@pytest.mark.parametrize(
    "facts", [ALL, replace(BARE, labels=20, logprobs=True, prefix="text", stop="kept")], ids=["all", "bare"]
)
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
                    assert details == usage["completion_tokens"] - visible(choices, facts)
                metrics = counted(service)
                written = {
                    kind: value for kind, value in metrics.items() if kind.startswith("outthink_tokens_total comp")
                }
                assert sum(written.values()) == up.made
                bills.append((usage, checks, [line | {"exact": True} for line in told["ledger"]]))
        assert bills[0] == bills[1]

    run(go())


def visible(choices: Sequence[Mapping[str, Any]], facts: Facts) -> int:
    """Tokens of the fake server that are shown: words, gaps and the mark of the end, but no thoughts."""
    total = 0
    for choice in choices:
        text = choice["message"]["content"] or ""
        words = len(text.split()) + len(text.split()) - 1 + (choice["finish_reason"] == "stop") if text else 0
        total += words
    return total


def test_dollars_are_those_of_all_calls() -> None:
    async def go() -> None:
        policy = Policy(strategy=make_strategy("best_of_n", {"n": 3}), scorers={"verifier": "judge"})
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
