from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.rng import Rng, child_seed, digest
from outthink.types import Budget, Call, Candidate, Message, Part, Round, Sampling, Trace, Usage

texts = st.text(max_size=30)
floats = st.floats(allow_nan=False, allow_infinity=False)
addresses = st.tuples(texts, st.integers(0, 99), st.integers(0, 99))
candidates = st.builds(
    Candidate,
    address=addresses,
    parents=st.lists(texts, max_size=3).map(tuple),
    text=texts,
    token_ids=st.none() | st.lists(st.integers(0, 10**6), max_size=4).map(tuple),
    logprobs=st.none() | st.lists(floats, max_size=4).map(tuple),
    answer=st.none() | texts,
    key=st.none() | texts,
)
calls = st.builds(Call, kind=texts, role=texts, address=addresses, error=st.none() | texts,
                  seen=st.builds(Usage, prompt=st.integers(0, 9), completion=st.integers(0, 9)),
                  cost=st.dictionaries(texts, floats, max_size=3))  # fmt: skip
rounds = st.builds(Round, candidates=st.lists(texts, max_size=3).map(tuple), confidence=st.none() | floats,
                   scores=st.none() | st.lists(st.none() | floats, max_size=3).map(tuple),
                   cost=st.dictionaries(texts, floats, max_size=2))  # fmt: skip


@given(
    st.builds(
        Trace,
        problem=texts,
        strategy=st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts, max_size=3),
        seed=st.integers(0, 2**31),
        sampling=st.just(Sampling()),
        budget=st.just(Budget({"tokens": 10.0})),
        resources=st.dictionaries(texts, texts, max_size=2),
        candidates=st.lists(candidates, max_size=3).map(tuple),
        rounds=st.lists(rounds, max_size=3).map(tuple),
        calls=st.lists(calls, max_size=3).map(tuple),
        stopped=st.sampled_from(["finished", "budget"]),
        seconds=floats,
    )
)
def test_a_trace_survives_json_as_one_line(trace: Trace) -> None:
    line = trace.to_json()
    assert "\n" not in line
    assert Trace.from_json(line) == trace


def test_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="schema version 99"):
        Trace.from_json(json.dumps({"schema": 99}))


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("20k-tokens,8s,0.01usd", {"tokens": 20000, "seconds": 8, "usd": 0.01}),
        ("2T-flops", {"flops": 2e12}),
        ("1e3 tokens", {"tokens": 1000}),
        ("1.5M-tokens", {"tokens": 1.5e6}),
    ],
)
def test_budgets_are_read(text: str, limits: dict[str, float]) -> None:
    assert Budget.parse(text).limits == limits


@pytest.mark.parametrize("text", ["", "20", "k-tokens", "20k-apples", "-5-tokens", "0-tokens", "1s,2s", "nan-tokens"])
def test_a_bad_budget_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="budget"):
        Budget.parse(text)


def test_randomness_is_addressed() -> None:
    rng = Rng(1, "p")
    assert rng.at("a", 1).random() == rng.at("a", 1).random()
    assert rng.at("a", 1).random() != rng.at("a", 2).random()
    assert digest(1, "p", "ab") != digest(1, "p", "a", "b")
    assert digest(1, "p", "1") != digest(1, "p", 1)
    seeds = {child_seed(0, "p", ("model", 0), child) for child in range(1000)}
    assert len(seeds) == 1000  # odds of a false alarm: 1000^2 / 2^32 = 0.02%, and the seed is fixed
    assert max(seeds) < 2**31


TEXT, IMAGE = Part(text="what"), Part(kind="image")
SENT = {
    "role": "user",
    "name": "ann",
    "content": [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": "https://a/b.png"}}],
}


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({}, True),
        ({"content": (TEXT, Part(kind="image", reference="https://a/b.png"))}, True),
        ({"content": "what"}, True),  # the text of the turn, as engines that read text only get it
        ({"content": "which"}, False),
        ({"role": "system"}, False),
        ({"content": (TEXT,)}, False),
        ({"content": (TEXT, IMAGE, IMAGE)}, False),
        ({"content": (TEXT, Part(kind="image", reference="https://a/c.png"))}, False),
        ({"content": (IMAGE,)}, False),
        ({"sent": None}, False),
    ],
)
def test_a_message_is_sent_as_it_was_written_only_while_it_says_the_same(changed: dict[str, Any], kept: bool) -> None:
    message = Message(content=(TEXT, IMAGE), sent=SENT)
    assert message.sent is SENT
    assert (replace(message, **changed).sent is SENT) == kept


@pytest.mark.parametrize(
    "content", [5, ["x"], [None], {"a": 1}, [{"type": "text"}], [{"type": "text", "text": 5}], [{"type": ["text"]}, 3]]
)
def test_a_turn_that_nobody_can_read_is_no_message_s(content: Any) -> None:
    assert Message(content="what", sent={"role": "user", "content": content}).sent is None


def test_tokens_are_known_where_nothing_was_asked() -> None:
    trace = Trace(
        problem="p",
        strategy={"name": "none"},
        seed=0,
        sampling=Sampling(),
        budget=Budget(),
        resources={},
        candidates=(),
        rounds=(),
        calls=(),
        stopped="cancelled",
    )
    assert trace.cost["tokens"] == 0
