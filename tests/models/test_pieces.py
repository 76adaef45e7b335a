"""A piece that is nothing but text is read in a short way, which must come to the same as the careful one."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from outthink.models.engine import Progress
from outthink.models.openai.answers import Answers, watched

SHAPES = (AttributeError, TypeError, ValueError, KeyError, OverflowError)
"""What an event of another shape may raise."""


def event(rng: random.Random) -> Any:
    """Of a stream: mostly text, and now and then each thing that makes a piece more than that."""

    def seldom(name: str, *values: Any) -> dict[str, Any]:
        return {name: copy.deepcopy(rng.choice(values))} if rng.random() < 0.07 else {}

    delta = {"content": rng.choice(["a", "hello ", "so ", "it ", "x" * 5000, "", None, 5, ["p"]])}
    delta |= seldom("role", "assistant") | seldom("reasoning_content", "hm")
    choice = {"index": rng.choice([0, 0, 1, 1, 2, 3, -1, "0", None, True]), "delta": rng.choice([delta, delta, {}])}
    choice |= seldom("finish_reason", "stop", "length", None, "content_filter", "") | seldom("stop_reason", "x")
    choice |= seldom("logprobs", None, {"content": [{"token": "a", "logprob": -1.0}]})
    choice |= seldom("error", {"message": "no"}) | seldom("usage", {"prompt_tokens": 3, "completion_tokens": 4})
    if rng.random() < 0.05:
        del choice["index"]
    usage = {"prompt_tokens": 3, "completion_tokens": rng.randint(1, 30), "total_tokens": 9}
    choices = rng.choice([[choice]] * 20 + [[choice, dict(choice)], []])
    return {"choices": choices} | seldom("usage", None, usage) | seldom("x_groq", {"usage": usage})


def read(events: list[Any], n: int) -> list[Any]:
    """All that is known after each of them, what was passed on included."""
    heard: list[Any] = []
    progress = Progress(n=n, listen=lambda child, piece: heard.append((child, piece)))
    answers, states = watched(progress, range(n)), list[Any]()
    for one in events:
        try:
            answers.read(one)
        except SHAPES as failure:
            return [*states, type(failure)]
        every = answers.every
        states.append(
            repr(
                (
                    [(w.pieces, w.thoughts, w.events, w.size, w.finish, w._said, w.ids, w.logprobs) for w in every],
                    [every.index(written) for written in (*answers._touched, *answers._over)],
                    (answers.usage, answers.settled, answers._own, progress.tokens, heard),
                )
            )
        )
    return states


def test_the_short_way_comes_to_the_same_as_the_careful_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(16)
    streams = [([event(rng) for _ in range(rng.randint(1, 20))], rng.choice([1, 1, 2, 3])) for _ in range(500)]
    short = [read(events, n) for events, n in streams]
    ways: list[bool] = []
    quick = Answers._read_text

    def careful(answers: Answers, choice: Any) -> bool:
        ways.append(quick(watched(Progress(n=3), range(3)), choice))
        return False

    monkeypatch.setattr(Answers, "_read_text", careful)
    assert [read(events, n) for events, n in streams] == short
    assert 0.08 < sum(ways) / len(ways) < 0.9, "both ways are taken"
