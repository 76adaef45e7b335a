"""When the first words of an answer come: as soon as nothing that is still to come can change which answer it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from outthink.models.facts import Facts
from outthink.rewards.making import make_scorer
from outthink.server.routing import ServerRules
from outthink.strategies import traits
from outthink.strategies.making import make_strategy
from tests.test_doors import SCORERS, WAYS, body, every_way, thinker
from tests.tools.every import given
from tests.tools.server import ALL, BARE, Fault, Server, run, says
from tests.tools.serving import asked, chat, closed, connected, serving, until, written

FOUR = "The answer is 4."
FIVE = "The answer is 5."
LONG = "one two three four five six seven eight nine ten eleven twelve so it is 7."
ONE_BY_ONE = replace(BARE, stream=True)


@dataclass(frozen=True)
class Timed:
    """A stream: each event with the second in which it came and what the upstream had written by then."""

    events: list[tuple[float, int, Any]]

    def content(self, place: int = 0) -> list[tuple[float, str]]:
        """The pieces of a choice."""
        return [
            (at, choice["delta"]["content"])
            for at, _, event in self.events
            for choice in event.get("choices", ())
            if choice["index"] == place and choice["delta"].get("content")
        ]

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.content())

    @property
    def first(self) -> float:
        """When the first words came."""
        return self.content()[0][0]

    @property
    def last(self) -> float:
        """When all was over."""
        return self.events[-1][0]

    @property
    def told(self) -> dict[str, Any]:
        """The object `outthink`."""
        told: dict[str, Any] = next(event["outthink"] for _, _, event in reversed(self.events) if "outthink" in event)
        return told


async def streamed(up: Server, url: str, body: Any) -> Timed:
    loop = asyncio.get_running_loop()
    reader, writer = await connected(url)
    writer.write(written(url, {**body, "stream": True}))
    began, events = loop.time(), []
    try:
        assert b" 200 " in (head := await reader.readuntil(b"\r\n\r\n")), head
        while (line := (await reader.readline()).strip()) != b"data: [DONE]":
            if line.startswith(b"data: "):
                events.append((loop.time() - began, up.made, json.loads(line.removeprefix(b"data: "))))
    finally:
        await closed(writer)
    return Timed(events)


def both(
    texts: Sequence[str],
    strategy: str,
    facts: Facts = ALL,
    *,
    pace: float = 1.0,
    faults: Sequence[Fault] = (),
    **more: Any,
) -> tuple[Timed, Any]:
    """The stream, and the whole reply to the same request."""

    async def go() -> tuple[Timed, Any]:
        wish = {"strategy": strategy.partition("?")[0], "answer": "math", **more.pop("outthink", {})}
        rules = ServerRules(strategy=make_strategy(strategy))
        async with (
            Server(says_in_turn(texts), pace=pace, faults=faults) as up,
            serving(up, policy=rules, facts=facts) as (url, _),
        ):
            stream = await streamed(up, url, chat(outthink=wish, **more))
        async with (
            Server(says_in_turn(texts), faults=faults) as up,
            serving(up, policy=rules, facts=facts) as (url, _),
        ):
            whole = await asked(url, chat(outthink=wish, **more))
            return stream, whole.json

    return run(go())


def says_in_turn(texts: Sequence[str]) -> Any:
    """Each answer is the next text, whether several are asked for at once or one by one."""
    left = iter(list(texts) * 20)
    return lambda ask: next(left)


# ------------------------------------------------------------------------------------------------- majorities


@pytest.mark.parametrize("facts", [ALL, ONE_BY_ONE], ids=["one request", "one request each"])
def test_a_majority_that_cannot_be_overtaken_is_told_before_the_rest_is_written(facts: Facts) -> None:
    stream, whole = both([FOUR, FOUR, FOUR, LONG, LONG], "self_consistency?n=5", facts)
    assert stream.text == whole["choices"][0]["message"]["content"] == FOUR
    assert stream.first < stream.last / 2, "three of five are enough, and they are short"
    assert {at for at, _ in stream.content()} == {stream.first}
    *_, (_, _, end) = stream.events
    assert (end["choices"][0]["finish_reason"], stream.told["stopped"]) == ("stop", "finished")
    keys = ("answer", "confidence", "samples", "distinct", "ledger")
    assert [stream.told[key] for key in keys] == [whole["outthink"][key] for key in keys], "the rest was drawn as well"
    assert stream.told["samples"] == 5


@pytest.mark.parametrize(
    ("texts", "early"),
    [
        ([FOUR, FOUR, FIVE, LONG, LONG], False),  # two of five can still be overtaken
        ([FOUR, FOUR, FOUR, LONG], True),
        ([FOUR, FOUR, LONG, LONG], False),  # a tie would go to the shorter one, which is not looked at
        ([LONG, FOUR, FOUR, FOUR, FOUR], False),  # the first one may say the same, and then it is the one that is shown
        ([FIVE, FOUR, FOUR, FOUR, LONG, LONG], False),
        ([FIVE, FOUR, FOUR, FOUR, FOUR, LONG], True),
        (["No idea.", FOUR, FOUR, FOUR, LONG, LONG], True),
    ],
)
def test_nothing_is_told_while_it_can_change(texts: list[str], early: bool) -> None:
    stream, whole = both(texts, f"self_consistency?n={len(texts)}")
    assert stream.text == whole["choices"][0]["message"]["content"]
    assert (stream.first < stream.last - 5) == early


def test_a_server_that_writes_on_after_an_end_changes_nothing_of_what_was_told() -> None:
    ended: list[int] = []

    def more(sent: dict[str, Any]) -> dict[str, Any]:
        """After the end of all short answers, the first one goes on beside what the others write."""
        choices = sent.get("choices") or []
        ended.extend(choice["index"] for choice in choices if choice.get("finish_reason"))
        if len(ended) < 3 or not choices or choices[0]["index"] != 4:
            return sent
        return {**sent, "choices": [*choices, {"index": 0, "delta": {"content": " No, 9."}, "finish_reason": None}]}

    async def go() -> Timed:
        texts = [FOUR, FOUR, FOUR, LONG, LONG]
        up = Server(says_in_turn(texts), pace=1.0, bend=more)
        async with up, serving(up, strategy="self_consistency?n=5") as (url, _):
            return await streamed(up, url, chat(outthink={"answer": "math"}))

    stream = run(go())
    assert (stream.text, stream.told["answer"], stream.told["stopped"]) == (FOUR, "4", "finished")
    assert stream.first < stream.last - 40


def test_of_several_choices_the_winner_comes_first_and_the_others_at_the_end() -> None:
    stream, whole = both([FOUR, FOUR, FOUR, FOUR, LONG, FIVE], "self_consistency?n=6", n=3)
    choices = [choice["message"]["content"] for choice in whole["choices"]]
    assert ["".join(text for _, text in stream.content(place)) for place in range(3)] == choices
    assert stream.first < stream.last - 20
    assert stream.content(1)[0][0] == stream.content(2)[0][0] == stream.last


def test_samples_without_a_strategy_stay_in_their_places() -> None:
    async def go() -> tuple[Timed, list[str]]:
        texts = [FIVE, FOUR, FOUR, FOUR, LONG]
        async with Server(says_in_turn(texts), pace=1.0) as up, serving(up) as (url, _):
            stream = await streamed(up, url, chat(model="m+none", n=5))
            return stream, texts

    stream, texts = run(go())
    assert ["".join(text for _, text in stream.content(place)) for place in range(5)] == texts


# ------------------------------------------------------------------------------------------- those that stop early


@pytest.mark.parametrize(
    ("strategy", "texts", "before"),
    [
        ("adaptive_consistency?n=8&ahead=8", [FOUR] * 4 + [LONG] * 4, 11.0),
        ("esc?n=10&w=3", [FOUR] * 3 + [LONG] * 7, 27.0),
        ("first_finish?n=3", [LONG, FOUR, LONG], 11.0),
        ("multi_temperature?temperatures=0.5,1.0&n=8&n_min=2&ahead=8", ([FOUR] * 2 + [LONG] * 6) * 2, 11.0),
    ],
)
def test_what_stops_early_is_told_at_once(strategy: str, texts: list[str], before: float) -> None:
    stream, _ = both(texts, strategy, ONE_BY_ONE)
    assert stream.text == FOUR
    assert stream.first <= before, "a long answer takes 35 seconds"


def test_what_can_say_it_long_before_its_end_does() -> None:
    stream, whole = both([FOUR] * 3 + [FIVE, LONG], "adaptive_consistency?n=5&threshold=1.1&ahead=5", ONE_BY_ONE)
    assert stream.text == whole["choices"][0]["message"]["content"] == FOUR
    assert stream.first < stream.last / 2


def test_where_the_greedy_sample_is_confirmed_it_is_told() -> None:
    stream, whole = both([FOUR, FOUR, FOUR, LONG, LONG], "hedged_sampling?n=5", ONE_BY_ONE)
    assert stream.text == whole["choices"][0]["message"]["content"] == FOUR
    assert stream.first < stream.last / 2


def test_a_deadline_after_it_is_fixed_changes_nothing() -> None:
    wish = {"budget": {"seconds": 60}}
    stream, _ = both([FOUR, FOUR, FOUR, LONG, " ".join(["word"] * 900)], "self_consistency?n=5", outthink=wish)
    assert (stream.text, stream.told["stopped"], stream.told["answer"]) == (FOUR, "deadline", "4")
    assert stream.first < stream.last - 10
    *_, (_, _, end) = stream.events
    assert end["choices"][0]["finish_reason"] == "stop"


def test_who_leaves_after_it_was_told_ends_the_rest() -> None:
    async def go() -> None:
        texts = [FOUR, FOUR, FOUR, LONG, LONG]
        async with (
            Server(says_in_turn(texts), pace=1.0) as up,
            serving(up, strategy="self_consistency?n=5") as (url, _),
        ):
            reader, writer = await connected(url)
            writer.write(written(url, chat(stream=True, outthink={"answer": "math"})))
            assert b"answer is 4." in await reader.readuntil(b"4.")
            await closed(writer)
            await until(lambda: up.running == 0)
            assert up.asked[0].closed
            assert up.made < 45

    run(go())


@every_way
def test_what_is_streamed_is_the_answer_and_ends_when_the_work_does(way: str) -> None:
    name, settings = WAYS[way]
    strategy = make_strategy(name, settings)

    async def go() -> None:
        rules = ServerRules(strategy=strategy, scorers=SCORERS)
        opened = {role: make_scorer(one, process=role == "prm") for role, one in SCORERS.items()}
        parts: dict[str, Any] = {"policy": rules, "scorers": opened, "resources": given()}
        async with Server(thinker, pace=0.01) as up, serving(up, **parts) as (url, _):
            stream = await streamed(up, url, body(strategy, name))
        async with Server(thinker) as up, serving(up, **parts) as (url, _):
            whole = await asked(url, body(strategy, name))
        assert stream.text == (whole.content or "")
        assert stream.told["answer"] == whole.json["outthink"]["answer"]
        if traits.one_sample(strategy):
            assert stream.first < stream.last, "it is passed on as it is written"

    run(go())


# ------------------------------------------------------------------------------------------------- one sample


@pytest.mark.parametrize("strategy", ["auto", "self_consistency", "adaptive_consistency", "esc", "first_finish"])
@pytest.mark.parametrize("way", [{"outthink": {"n": 1}}, {"reasoning_effort": "none"}], ids=["n", "effort"])
def test_one_sample_of_a_vote_is_passed_on_as_it_is_written(strategy: str, way: dict[str, Any]) -> None:
    async def go() -> None:
        async with Server(says(LONG), pace=1.0) as up, serving(up, strategy=strategy) as (url, _):
            stream = await streamed(up, url, chat(**way))
            assert stream.text == LONG
            assert len(up.asked) == 1
            assert [made for _, made, event in stream.events if content(event)] == list(range(1, up.made)), strategy

    run(go())


def content(event: Any) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
