"""The cap that a budget allows: as many samples at once as are wanted, none too short, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.cost.caps import AnswerLengths, cap_within, fitted_cap, fitting, least_caps
from outthink.models.endpoint import Endpoint
from outthink.models.engine import Price, Request
from outthink.models.facts import Facts
from outthink.models.openai.engine import OpenAIEngine
from outthink.models.scripted import ScriptedEngine
from outthink.types import Candidate, Message, Usage
from tests.tools.virtual import run

PRICE = Price(prompt=2.0, completion=10.0)
PROMPT = 100


def worst(cap: int) -> Mapping[str, float]:
    return {"tokens": float(PROMPT + cap), "usd": PRICE.usd(Usage(prompt=PROMPT, completion=cap))}


@pytest.mark.parametrize(
    ("limits", "most", "wanted", "cap", "at_once"),
    [
        ({"usd": 1.0}, 4096, 8, 4096, 8),  # all fit as they are
        ({"usd": 0.05}, 4096, 8, 605, 8),  # .05 / 8 = .00625 are .0002 for the prompt and 605 tokens
        ({"usd": 0.02}, 4096, 8, 646, 3),  # eight would have 230 tokens: three of 646 fit
        ({"usd": 0.0055}, 4096, 8, 530, 1),  # else not even one would
        ({"tokens": 2000}, 512, 4, 400, 4),
        ({"tokens": 1000}, 512, 4, 400, 2),
        ({"tokens": 700}, 512, 4, 512, 1),  # two would have 250 tokens, which is less than half
        ({"tokens": 500}, 512, 4, 512, 0),  # one is never less than 512
        ({"tokens": 500}, 4096, 4, 512, 0),
        ({"tokens": 2000, "usd": 0.01}, 512, 4, 313, 3),  # what has less room decides
        ({"tokens": 1224}, 4096, 1, 1124, 1),
        ({"seconds": 1.0}, 4096, 8, 4096, 8),
        ({}, 4096, 8, 4096, 8),
    ],
)
def test_the_cap_that_fits(limits: Mapping[str, float], most: int, wanted: int, cap: int, at_once: int) -> None:
    found_cap = fitted_cap(worst, limits, most=most, least=least_caps(most), wanted=wanted)
    assert (found_cap.tokens, found_cap.at_once, found_cap.lowered) == (cap, at_once, cap < most)


@settings(deadline=None)  # how loaded the machine is says nothing
@given(
    limit=st.floats(1, 1e5),
    most=st.integers(1, 8192),
    wanted=st.integers(1, 64),
    usual=st.none() | st.integers(1, 4096),
)
def test_no_larger_cap_would_do(limit: float, most: int, wanted: int, usual: int | None) -> None:
    limits, least = {"tokens": limit}, least_caps(most, usual)
    cap = fitted_cap(worst, limits, most=most, least=least, wanted=wanted)
    assert min(least) <= cap.tokens <= most
    there = fitting(worst(most), limits)
    assert cap.at_once >= min(there, wanted)
    if cap.lowered and cap.at_once:
        assert cap.at_once > there, "it is lowered only where that brings something"
        assert fitting(worst(cap.tokens + 1), limits) < cap.at_once
        assert cap.tokens >= (least[0] if there < 1 else least[1])
    if cap.at_once < wanted and there >= 1:
        assert fitting(worst(least[1]), limits) < cap.at_once + 1, "no more of them would be long enough"
    enough = fitted_cap(worst, cap.enough, most=most, least=(least[1], least[1]), wanted=wanted)
    assert enough.at_once == wanted, "what is said to do does"


def test_what_is_said_of_it() -> None:
    def said(limits: Mapping[str, float], wanted: int = 8, most: int = 4096) -> str | None:
        return fitted_cap(worst, limits, most=most, least=least_caps(most), wanted=wanted).sentence()

    assert said({"usd": 1.0}) is said({}) is None
    assert said({"usd": 0.05}) == "Samples have up to 605 tokens, so that 8 fit the budget at once."
    assert said({"usd": 0.02}) == (
        "Samples have up to 646 tokens, so that 3 fit the budget at once; 0.04256 usd would do for 8."
    )
    assert said({"tokens": 700}, 4, 512) == (
        "The budget has room for one sample of up to 512 tokens at a time; 1424 tokens would do for 4 at once."
    )
    assert said({"tokens": 700}, 1, 512) is None, "there is no more to be had"
    assert said({"tokens": 500}) is None, "it is refused, which says enough"


def test_what_was_cut_off_by_it_is_told() -> None:
    def sample(tokens: int, finish: str) -> Candidate:
        return Candidate(address=("model", 0, 0), tokens=tokens, finish=finish, complete=finish == "eos")  # type: ignore[arg-type]

    samples = [sample(605, "length"), sample(605, "eos"), sample(80, "length"), sample(200, "eos")]
    lowered = fitted_cap(worst, {"usd": 0.05}, most=4096, least=least_caps(4096), wanted=8)
    assert (lowered.cut_off(samples) or "").startswith("1 of 4 samples were cut off at 605 tokens: allow a larger")
    assert lowered.cut_off(samples[1:]) is None
    assert fitted_cap(worst, {}, most=605, least=least_caps(605), wanted=8).cut_off(samples) is None


def test_lengths_of_answers_say_how_low_a_cap_may_be() -> None:
    lengths = AnswerLengths()
    lengths.add(Candidate(address=("model", 0, child), tokens=100) for child in range(15))
    assert lengths.usual() is None, "too few"
    step = Candidate(address=("model", 1, 0), tokens=9000, parents=("model/0/0",), continues=True)
    lengths.add([step, *(Candidate(address=("model", 0, child), tokens=1) for child in range(9))])
    assert lengths.usual() is None, "steps are no answers"
    lengths.add([Candidate(address=("model", 0, 15), tokens=900, finish="length", complete=False)])
    assert lengths.usual() == 125, "one in sixteen is longer"
    lengths.add(
        Candidate(address=("model", 0, child), tokens=900, finish="length", complete=False) for child in range(2)
    )
    assert lengths.usual() == 1125, "what is cut off all the time makes the next cap larger"
    assert least_caps(4096, 125) == (125, 125)
    assert least_caps(512, 1125) == (512, 512)


def test_an_engine_is_asked_what_it_can_cost() -> None:
    engine = ScriptedEngine(lambda request, child, rng: "42", price=PRICE)
    request = Request(messages=(Message(content="x" * PROMPT),), max_tokens=4096)
    cap = run(cap_within(engine, request, {"usd": 0.05}, wanted=8))
    assert (cap.tokens, cap.at_once) == (605, 8)
    assert run(cap_within(engine, request, {"usd": 0.02}, wanted=8, usual=100)).tokens == 230


def test_who_thinks_unseen_needs_more() -> None:
    thinking = OpenAIEngine(Endpoint("http://localhost:1/v1"), Facts(model="m", hidden=True), price=PRICE)
    request = Request(messages=(Message(content="x" * PROMPT),), max_tokens=4096)
    cap = run(cap_within(thinking, request, {"usd": 0.05}, wanted=8))
    assert (cap.at_once, cap.tokens >= 2048) == (2, True)
