"""Prompts are measured once, but never one in place of another, and not without end."""

from __future__ import annotations

from typing import Any

import pytest

from outthink.errors import UsageError
from outthink.models.openai.prompts import _EACH, _HELD, Prompts
from outthink.types import Message

MESSAGES = (Message(content="hi"),)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tools": [{"strict": True}]}, {"tools": [{"strict": 1}]}),
        ({"tools": [{"n": 1}]}, {"tools": [{"n": 1.0}]}),
        ({"tools": [{"a": 1, "b": 2}]}, {"tools": [{"b": 2, "a": 1}]}),
        ({"chat_template_kwargs": {"x": 0}}, {"chat_template_kwargs": {"x": False}}),
        ({}, {"tools": [{}]}),
        ({"tools": [{}]}, {"functions": [{}]}),
    ],
)
def test_what_is_written_differently_is_measured_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    prompts = Prompts()
    first, second = prompts(MESSAGES, one), prompts(MESSAGES, other)
    assert first.digest != second.digest
    assert (first.described, second.described) == (one, other)
    assert prompts(MESSAGES, dict(one)) is first
    assert prompts(MESSAGES, dict(other)) is second


def test_a_field_that_has_changed_is_measured_anew() -> None:
    prompts, tools = Prompts(), [{"name": "f"}]
    before = prompts(MESSAGES, {"tools": tools}).size
    tools.append({"name": "g" * 1000})
    assert prompts(MESSAGES, {"tools": tools}).size > before + 1000


def test_messages_that_say_the_same_are_not_taken_for_each_other() -> None:
    """Since what was sent of them may differ; each tuple is its own prompt, and is kept so long as it is known."""
    prompts = Prompts()
    one = prompts((Message(content="hi", sent={"role": "user", "content": "hi", "name": "ann"}),), {})
    other = prompts((Message(content="hi"),), {})
    assert one.size > other.size


@pytest.mark.parametrize("letters", [0, 2, 1 << 20])
def test_what_is_remembered_has_an_end_whatever_the_prompts(letters: int) -> None:
    prompts, most = Prompts(), _HELD // _EACH
    for _ in range(100 if letters > 2 else most + 10):
        prompts((Message(content="x" * letters),), {})
    assert len(prompts._known) <= most // 2
    assert sum(prompt.held for prompt in prompts._known.values()) == prompts._held <= _HELD


def test_fields_that_are_no_json_are_refused_and_not_remembered() -> None:
    prompts = Prompts()
    for _ in range(2):
        with pytest.raises(UsageError, match="must be JSON"):
            prompts(MESSAGES, {"tools": [object()]})
        with pytest.raises(UsageError, match="must be JSON"):
            prompts((Message(content="hi", sent={"role": "user", "content": "hi", "x": object()}),), {})
    assert not prompts._known
    assert not prompts._held
