"""Where there is something to vote on, what chooses where there is not, and that a chat always has a text."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

import outthink
from outthink.errors import EngineError, UsageError
from outthink.models.engine import Completion, EngineSpec, Price, Request
from outthink.models.scripted import ScriptedEngine
from outthink.planner.auto import Auto
from outthink.strategies import traits
from outthink.strategies.comparing import FIRST, FREE, Comparing, comparing
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.types import Message, Part, Problem, Sampling, Trace
from tests.tools.server import FINE, Server, engine_on, says
from tests.tools.server import run as on_network
from tests.tools.virtual import run

POEM = "Write a poem"
UNLIKE = (
    "Old roofs drum softly.",
    "My cat hates the wet window;\nbut thunder, she sings.",
    "Puddles keep the sky for a while, until boots come.",
    "Umbrella upside down: a bowl full of April.",
)
BEST = UNLIKE[2]
NOTHING = "nothing is given that could choose, such as a verifier or a model in the role judge"
SMALL = Sampling(max_tokens=100)


def writer(*texts: str, heard: list[Request] | None = None, **options: Any) -> ScriptedEngine:
    """Writes one text after the other, also where each is asked for by a request of its own."""
    places: dict[tuple[Any, int], int] = {}

    def reply(request: Request, child: int, rng: object) -> str:
        if heard is not None:
            heard.append(request)
        return texts[places.setdefault((request.address, child), len(places)) % len(texts)]

    return ScriptedEngine(reply, **options)


def judge(heard: list[Request] | None = None, **options: Any) -> ScriptedEngine:
    """Likes the third of them best, alone, beside another and as what a fusor writes."""

    def reply(request: Request, child: int, rng: object) -> str | Completion:
        if heard is not None:
            heard.append(request)
        said = request.messages[-1].text
        if not request.labels:
            return "A fused poem."
        if request.labels == ("A", "B"):
            yes = said.index(BEST) < said.index("Solution B") if BEST in said else said.index("Solution A") < 0
        else:
            yes = BEST in said
        return Completion(text="", tokens=1, labels=(-0.1, -3.0) if yes else (-3.0, -0.1))

    return ScriptedEngine(reply, name="judge", **options)


def solved(model: ScriptedEngine, strategy: str = "auto", **options: Any) -> Trace:
    return outthink.solve(POEM, strategy, model=model, **{"sampling": SMALL, **options})


# ------------------------------------------------------------------------------------------------------- what chooses


@pytest.mark.parametrize("strategy", ["auto", "self_consistency", "esc", "adaptive_consistency", "multi_temperature"])
def test_where_all_differ_and_nothing_could_choose_one_stands_and_it_says_so(strategy: str) -> None:
    heard: list[Request] = []
    trace = solved(writer(*UNLIKE, heard=heard), strategy)
    assert (trace.text, trace.stopped, len(trace.candidates)) == (UNLIKE[0], "finished", FIRST)
    assert trace.notes == (f"{FREE} the first one stands: {NOTHING}",)
    assert trace.strategy["name"] == strategy
    assert {request.messages for request in heard} == {(Message(content=POEM),)}


def test_an_object_runs_as_it_is() -> None:
    trace = outthink.solve(POEM, SelfConsistency(n=6), model=writer(*UNLIKE))
    assert (len(trace.candidates), trace.notes) == (6, ())
    assert trace.text in UNLIKE


GIVEN: dict[str, tuple[Callable[[Any], Mapping[str, Any]], str, str, dict[str, int]]] = {
    "a judge": (lambda other: {"models": {"judge": other}}, "pairwise", BEST, {"judge": 12}),
    "a verifier": (lambda other: {"verifier": lambda question, text: float(text == BEST)}, "best_of_n", BEST, {}),
    "a verifier by name": (
        lambda other: {"verifier": "judge", "models": {"judge": other}},
        "best_of_n",
        BEST,
        {"judge": 4},
    ),
    "a fusor": (lambda other: {"models": {"fusor": other}}, "fusion", "A fused poem.", {"fusor": 1}),
}


@pytest.mark.parametrize("given", GIVEN)
def test_what_is_given_chooses_and_what_it_costs_is_in_the_bill(given: str) -> None:
    options, name, text, calls = GIVEN[given]
    heard: list[Request] = []
    trace = solved(writer(*UNLIKE), **options(judge(heard)))
    assert trace.text == text
    assert trace.notes == (f"{FREE} {name} chose it",)
    assert Counter(one.address[0] for one in trace.candidates)["model"] == FIRST, "they are paid for once"
    asked = {line.role: line.children for line in trace.ledger() if line.role not in ("model", "verifier")}
    assert asked == calls
    assert len(heard) == sum(calls.values())
    assert all(any(poem in request.messages[-1].text for poem in UNLIKE) for request in heard)
    assert trace.cost["tokens"] == sum(line.usage.tokens for line in trace.ledger())


def test_replies_that_say_much_the_same_need_nobody_to_choose() -> None:
    alike = [f"The council met on {day} and put the bridge off." for day in ("Monday", "Mon", "monday,", "a Monday")]
    trace = solved(writer(*alike))
    assert trace.notes == (f"{FREE} mbr chose it",)
    assert trace.text in alike
    assert [line.role for line in trace.ledger()] == ["model"]


def test_equal_ones_are_voted_on_by_what_was_named() -> None:
    texts = ("It is 4.", "It is 5.", "The answer is 4.", "It is 4.")
    trace = solved(writer(*texts), "self_consistency?n=8", models={"judge": judge()})
    assert (trace.answer, trace.confidence, len(trace.candidates), trace.notes) == ("It is 4.", 0.75, 8, ())
    auto = solved(writer("It is 4."))
    assert (auto.answer, len(auto.candidates)) == ("It is 4.", FIRST), "they agree, so no more is needed"


# -------------------------------------------------------------------------------------------------------- what it costs


def test_a_budget_decides_which_of_them_is_asked() -> None:
    first = solved(writer(*UNLIKE)).cost["tokens"]
    worst = len(POEM) + SMALL.cap

    def chosen(more: float) -> str:
        # a token of each model is a character; a judge's single call has to fit, and what all are expected to cost
        options: dict[str, Any] = {"models": {"judge": judge()}, "budget": f"{first + max(more, worst):.0f}-tokens"}
        return solved(writer(*UNLIKE), **options).notes[-1].removeprefix(f"{FREE} ")

    reads = sum(len(POEM) + len(text) for text in UNLIKE)
    assert chosen(20_000) == "pairwise chose it"
    assert chosen(reads + 900) == "judge chose it"
    assert chosen(0) == "the first one stands: the budget leaves no room for judge"


def test_the_price_of_a_judge_counts() -> None:
    dear, cheap = Price(prompt=1_000, completion=1_000), Price(prompt=0.001, completion=0.001)
    for price, told in (
        (cheap, "pairwise chose it"),
        (dear, "the first one stands: the budget leaves no room for judge"),
    ):
        engine, other = writer(*UNLIKE, price=cheap), judge(price=price)
        trace = solved(engine, models={"judge": other}, budget="0.01usd")
        assert trace.notes == (f"{FREE} {told}",)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("1M-tokens", "pairwise chose it"),
        ("2k-tokens", "judge chose it"),
        ("300-tokens", "the first one stands: judge costs more than choosing can gain"),
    ],
)
def test_what_costs_more_than_a_perfect_choice_could_gain_is_not_asked(value: str, told: str) -> None:
    trace = solved(writer(*UNLIKE), f"auto?value_of_correct={value}", models={"judge": judge()})
    assert trace.notes[-1] == f"{FREE} {told}"


@pytest.mark.parametrize(("value", "drawn"), [(30, 1), (120, 2), (180, 3), (1_000, 4)])
def test_no_more_is_looked_at_than_an_answer_is_worth(value: int, drawn: int) -> None:
    """None is begun that would cost more in all, being as long as the longest so far."""
    trace = solved(writer(*UNLIKE), f"auto?value_of_correct={value}-tokens")
    assert len(trace.candidates) == drawn
    assert drawn == 1 or trace.cost["tokens"] <= value
    assert trace.text == UNLIKE[0]


@pytest.mark.parametrize("strategy", ["hedged_sampling?n=5", "multi_temperature"])
def test_what_was_drawn_at_other_temperatures_is_chosen_among_and_paid_for_once(strategy: str) -> None:
    heard: list[Request] = []
    trace = solved(writer(*UNLIKE, heard=heard), strategy, models={"judge": judge()})
    assert (trace.text, len(heard)) == (BEST, FIRST)


@pytest.mark.parametrize(
    ("strategy", "asked"),
    [
        ("multi_temperature?temperatures=0.7,0.7,0.7,0.7&n=4&ahead=1", None),
        ("multi_temperature?n=1", 10),
        ("revision?n=2&ratio=2", 2),
        ("revision?n=2&ratio=0.5", 2),
    ],
)
def test_a_look_at_the_first_ones_costs_nothing_more(strategy: str, asked: int | None) -> None:
    heard: list[Request] = []
    trace = solved(writer("It is 4.", "It is 5.", heard=heard), strategy)
    assert asked in (None, len(heard))
    used = {name for answered in trace.rounds for name in answered.candidates}
    assert len(used) == len(heard), "each that was paid for counts"


def test_a_value_that_nobody_can_count_is_refused_before_anything_is_asked() -> None:
    heard: list[Request] = []
    with pytest.raises(UsageError, match="costs in usd is not known"):
        solved(writer(*UNLIKE, heard=heard), "auto?value_of_correct=0.01usd")
    assert not heard


@pytest.mark.parametrize("strategy", ["auto", "self_consistency?n=4", "adaptive_consistency"])
def test_a_model_that_only_fails_is_not_asked_again_and_again(strategy: str) -> None:
    heard: list[Request] = []

    def reply(request: Request, child: int, rng: object) -> str:
        heard.append(request)
        raise EngineError("gone")

    with pytest.raises(EngineError):
        solved(ScriptedEngine(reply), strategy)
    assert len(heard) <= 4 * FIRST


@pytest.mark.parametrize(
    ("samples", "note"), [(1, "there is one reply only, so there is nothing to vote on"), (2, FREE)]
)
def test_a_budget_of_few_samples(samples: int, note: str) -> None:
    long = [(text * 5)[:100] for text in UNLIKE]
    budget = f"{(len(POEM) + 100) * samples}-tokens"
    trace = solved(writer(*long), budget=budget)
    assert (trace.text, len(trace.candidates), trace.stopped) == (long[0], samples, "budget")
    assert trace.notes[0].startswith(note)


# ------------------------------------------------------------------------------------------------------ always a text


@pytest.mark.parametrize("strategy", ["auto", "self_consistency", "greedy", "mbr", "esc"])
def test_what_was_all_cut_off_is_shown_as_far_as_it_goes(strategy: str) -> None:
    texts = ["word " * 100, "longer words " * 100]
    trace = solved(writer(*texts), strategy)
    assert trace.text is not None
    assert len(trace.text) == SMALL.max_tokens
    assert (trace.answer, trace.key, trace.abstained) == (None, None, False)
    if strategy in ("auto", "self_consistency", "esc"):
        assert len(trace.candidates) == FIRST, "more of them would be no better"


def test_of_few_that_came_to_an_end_more_are_looked_at_but_not_all() -> None:
    cut = "so " * 60
    trace = solved(writer(UNLIKE[0], cut, UNLIKE[1], cut, UNLIKE[2], UNLIKE[3], cut, cut))
    assert (trace.text, len(trace.candidates)) == (UNLIKE[0], 2 * FIRST)


@pytest.mark.parametrize("why", ["deadline", "cancelled"])
def test_what_had_been_written_until_then_is_shown(why: str) -> None:
    async def go() -> Trace:
        async with Server(says("one two three four five six seven"), always=FINE, pace=0.25) as upstream:
            engine, stop = engine_on(upstream), asyncio.Event()
            asyncio.get_running_loop().call_later(4.5, stop.set)
            budget = "4.5s" if why == "deadline" else None
            kept = stop if why == "cancelled" else None
            trace = await outthink.solve_async(POEM, model=engine, budget=budget, stop=kept)
            await engine.close()
            return trace

    trace = on_network(go())
    assert trace.stopped == why
    assert trace.text is not None
    assert trace.text.startswith("one two")
    assert trace.answer is None
    chosen = trace.candidates[0]
    assert (chosen.finish, chosen.complete) == ("cancelled", False)


def test_a_failure_never_becomes_a_text() -> None:
    engine = ScriptedEngine(lambda request, child, rng: EngineError("it is gone"))
    with pytest.raises(EngineError, match="it is gone") as raised:
        outthink.solve(POEM, model=engine)
    assert raised.value.trace is not None
    assert raised.value.trace.text is None


# --------------------------------------------------------------------------------------------------- what is compared


def test_the_kind_is_read_from_what_is_given() -> None:
    assert outthink.ask("q").answer == "chat"
    assert outthink.ask("q").messages == (Message(content="q"),)
    assert outthink.ask("q", options=("A", "B")).answer == "choice"
    assert outthink.ask("q", code=outthink.types.Code(tests=("assert f() == 1",))).answer == "code"
    json = outthink.ask("q", schema={"type": "object"})
    assert (json.answer, '{"type": "object"}' in json.messages[0].text, json.question) == ("json", True, "q")


def test_only_a_chat_is_looked_at() -> None:
    vote = SelfConsistency(n=4)

    def kept(answer: Any = "chat", *, verifier: bool = False, strategy: Any = vote, **fields: Any) -> bool:
        return comparing(strategy, answer, verifier=verifier, fields=fields) is strategy

    assert not kept()
    assert all(kept(answer) for answer in ("math", "choice", "text", "code", "json"))
    assert kept(strategy=SelfConsistency(n=1))
    assert kept(strategy=make_strategy("mbr"))
    assert kept(tools=[{}], tool_choice="required")
    assert not kept(tools=[{}])
    assert not kept(verifier=True)
    assert kept(verifier=True, strategy=make_strategy("multi_temperature"))
    assert not kept(verifier=True, strategy=Auto())


def test_it_needs_what_its_parts_need_and_is_known_as_what_was_asked_for() -> None:
    look = comparing(Auto(n=7), "chat", verifier=False, fields={})
    assert isinstance(look, Comparing)
    assert traits.known_as(look) == Auto(n=7)
    assert traits.most_samples(look) == 7
    assert {type(part).__name__ for part in traits.parts(look)} == {"Auto", "Fusion", "BestOfN", "MBR"}
    told = comparing(Auto(n=7), "chat", verifier=False, fields={}, otherwise=make_strategy("mbr?n=9"))
    assert traits.most_samples(told) == 9


@pytest.mark.parametrize("otherwise", ["likelihood?n=4", "mbr?n=4", None])
def test_the_first_samples_have_what_is_read_of_them_where_all_differ(otherwise: str | None) -> None:
    """They are paid for once, so they come with logprobs where what then chooses reads those, and only there."""

    async def go() -> tuple[set[bool], str | None, int]:
        async with Server(says(*UNLIKE)) as up:
            engine = engine_on(up)
            look = Comparing(strategy=SelfConsistency(n=4), otherwise=make_strategy(otherwise) if otherwise else None)
            trace = await outthink.solve_async(
                Problem(id="p", messages=(Message(content=POEM),), answer="chat"), look, model=engine
            )
            await engine.close()
            samples = sum(seen.body.get("n", 1) for seen in up.asked)
            return {bool(seen.body.get("logprobs")) for seen in up.asked}, trace.text, samples

    logprobs, text, samples = on_network(go())
    assert logprobs == {otherwise == "likelihood?n=4"}
    assert (text in UNLIKE, samples) == (True, 4)


def test_images_are_shown_to_nobody_who_reads_text_only() -> None:
    parts = (Part(text="What is this?"), Part(kind="image", reference="data:"))
    problem = Problem(id="p", messages=(Message(content=parts),), answer="chat")
    trace = outthink.solve(problem, model=writer(*UNLIKE), models={"judge": judge(), "fusor": judge()})
    assert [line.role for line in trace.ledger()] == ["model"]


def test_a_fusor_would_lose_fields_of_the_request() -> None:
    problem = Problem(id="p", messages=(Message(content=POEM),), answer="chat", fields={"stop": ["\n\n"]})

    class Upstream(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return replace(super().spec, fields=None)

    engine = Upstream(lambda request, child, rng: UNLIKE[child])
    trace = outthink.solve(problem, model=engine, models={"fusor": judge()})
    assert trace.notes == (f"{FREE} the first one stands: {NOTHING}",)


def test_a_plan_for_another_model_is_refused_before_anything_is_spent() -> None:
    class Strict(Auto):
        def check(self, *given: Any) -> None:
            raise UsageError("another model")

    heard: list[Request] = []
    look = Comparing(strategy=Strict())
    with pytest.raises(UsageError, match="another model"):
        run(outthink.solve_async(outthink.ask(POEM), look, model=writer(*UNLIKE, heard=heard)))
    assert not heard
