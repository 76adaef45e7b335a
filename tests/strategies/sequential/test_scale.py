"""SCALE: outlines, ratings, which step gets which mode, what each step is sent, and that the answer is paid for."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import EngineError, UsageError
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.sequential.scale import _LONG, _SHORT, SCALE, read_outline, read_rating
from outthink.types import Message, Problem, Sampling, Trace
from tests.tools.virtual import run

TALK = Problem(id="p", messages=(Message(role="system", content="RULE"), Message(content="TASK")), question="QUESTION")
STEPS = ["first STEP", "second STEP", "third STEP", "fourth STEP"]


class Steps:
    """Outlines of the first `count` steps, the second of which is picked, ratings in turn, and results by step."""

    def __init__(self, ratings: list[float | str], *, count: int = 4, outline: Any = None, pick: Any = "2") -> None:
        self.ratings, self.count, self.outline, self.pick = ratings, count, outline, pick
        self.asked: list[Request] = []

    def __call__(self, request: Request, child: int, rng: np.random.Generator) -> Any:
        self.asked.append(request)
        text = request.messages[-1].text
        kind = str(request.address[1])
        if kind == "outline":
            steps = {f"step{k}": f"{step} of {child}" for k, step in enumerate(STEPS[: self.count], 1)}
            return self.outline if self.outline is not None else f"Here:\n{json.dumps(steps)}"
        if kind == "pick":
            return self.pick
        if kind == "rate":
            return f"I would say\n{self.ratings[sum(one.address[1] == 'rate' for one in self.asked) - 1]}"
        if kind == "step":
            number = next(k for k, step in enumerate(STEPS, 1) if text.rpartition("sub-problem: ")[2].startswith(step))
            return f"<think>THOUGHT {number}</think>RESULT {number}"
        return "#### 42"

    def of_kind(self, kind: str) -> list[Request]:
        return [one for one in self.asked if str(one.address[1]) == kind]

    def modes(self) -> list[int]:
        """1 for an easy step, 2 for a hard one; the last is the answer."""
        steps = [2 if one.address[0] == "model" else 1 for one in self.of_kind("step")]
        return [*steps, 2 if self.asked[-1].address[0] == "model" else 1]

    def trace(self, strategy: SCALE, **options: Any) -> Trace:
        return run(
            solve_async(TALK, strategy, model=ScriptedEngine(self), sampling=Sampling(max_tokens=400), **options)
        )


def test_the_modes_and_the_calls_of_the_card() -> None:
    """d 0.1, 0.6, 0.5, 0.9 with tau 0.5: modes 1, 2, 1, 2; 8 outlines, 1 pick, 4 ratings and 4 solutions are 17."""
    script = Steps([0.1, 0.6, 0.5, 0.9])
    trace = script.trace(SCALE(last_hard=False))
    assert script.modes() == [1, 2, 1, 2]
    assert sum(call.n for call in trace.calls) == 8 + 1 + 4 + 4
    default = Steps([0.1, 0.6, 0.5])
    assert sum(call.n for call in default.trace(SCALE()).calls) == 16
    assert default.modes() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("settings", "modes"),
    [
        ({"tau": -1.0}, [2, 2, 2, 2]),
        ({"tau": 1.0, "last_hard": False}, [1, 1, 1, 1]),
        ({"tau": 1.0}, [1, 1, 1, 2]),
    ],
)
def test_the_ends_of_tau(settings: dict[str, Any], modes: list[int]) -> None:
    script = Steps([1.0] * 4)
    script.trace(SCALE(**settings))
    assert script.modes() == modes
    assert bool(script.of_kind("rate")) == (settings["tau"] >= 0)


def test_a_step_is_sent_the_problem_and_the_results_before_it_and_no_thoughts() -> None:
    script = Steps([0.1, 0.9, 0.1])
    trace = script.trace(SCALE(outlines=3, switch="/no_think"))
    first, second, third = (one.messages[-1].text for one in script.of_kind("step"))
    assert "QUESTION" in first
    assert "RESULT" not in first
    assert all(part in second for part in ("QUESTION", "first STEP of 1", "RESULT 1"))
    assert [part in third for part in ("RESULT 1", "RESULT 2", "second STEP of 1", "third STEP of 1")] == [True] * 4
    assert third.count("Sub-problem: ") == 2
    assert "fourth STEP" not in "".join((first, second, third, script.asked[-1].messages[-1].text))  # it is the problem
    assert not any("THOUGHT" in message.text for one in script.asked for message in one.messages)
    # easy ones are told to be short and not to think, hard ones to think
    assert [text.endswith(f"{_SHORT} /no_think") for text in (first, second, third)] == [True, False, True]
    assert second.endswith(_LONG)
    rated = [one.messages[-1].text for one in script.of_kind("rate")]
    assert all("from 0" in text and "QUESTION" in text for text in rated)
    assert "RESULT 1" in rated[1]
    pick = script.of_kind("pick")[0].messages[-1].text
    assert all(f"Outline {k}" in pick and f"first STEP of {k - 1}" in pick for k in (1, 2, 3))
    last = script.asked[-1].messages
    assert last[0].text == "RULE"
    assert all(part in last[-1].text for part in ("TASK", "RESULT 1", "RESULT 2", "RESULT 3"))
    assert trace.answer == "42"
    assert trace.notes[-1].startswith("4 steps, 3 solved before the last;")


@pytest.mark.parametrize("outline", ["I would rather not.", '{"a": 1}', EngineError("down")])
def test_without_an_outline_it_is_plain(outline: Any) -> None:
    script = Steps([], outline=outline)
    trace = script.trace(SCALE())
    assert script.asked[-1].messages == TALK.messages
    assert trace.answer == "42"


def test_one_step_is_the_problem_itself() -> None:
    script = Steps([], count=1)
    script.trace(SCALE(outlines=1))
    assert script.asked[-1].messages == TALK.messages
    assert [one.address[1] for one in script.asked[:-1]] == ["outline"]


@pytest.mark.parametrize(
    ("pick", "calls"), [("nine", 4), ("9", 4), ("2" + " " * 400, 4), (EngineError("down"), 1), ("Outline 1.", 1)]
)
def test_a_number_that_cannot_be_read_is_asked_for_again_and_then_it_is_the_first(pick: Any, calls: int) -> None:
    script = Steps([0.1] * 3, pick=pick)
    script.trace(SCALE(outlines=2))
    assert len(script.of_kind("pick")) == calls
    assert "first STEP of 0" in script.of_kind("step")[0].messages[-1].text


@pytest.mark.parametrize("said", ["easy", "0.1" + " " * 400])
def test_a_step_that_nobody_can_rate_is_hard(said: str) -> None:
    script = Steps([said] * 12)
    script.trace(SCALE(outlines=1, retries=2))
    assert script.modes() == [2, 2, 2, 2]
    assert len(script.of_kind("rate")) == 9


def test_an_answer_behind_the_steps_that_fails_is_asked_for_plainly() -> None:
    class Failing(Steps):
        def __call__(self, request: Request, child: int, rng: np.random.Generator) -> Any:
            said = super().__call__(request, child, rng)
            return EngineError("down") if said == "#### 42" and request.messages != TALK.messages else said

    trace = Failing([0.1] * 3).trace(SCALE(outlines=1))
    assert (trace.answer, trace.stopped) == ("42", "finished")


def test_whatever_the_budget_the_answer_is_paid_for() -> None:
    for limit in range(420, 9000, 411):
        script = Steps([0.9, 0.1, 0.9])
        trace = script.trace(SCALE(outlines=2), budget=f"{limit}-tokens")
        assert trace.cost["tokens"] <= limit
        assert trace.answer == "42", limit


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("0.7", 0.7),
        ("<think>0.1</think>\nDifficulty: .25", 0.25),
        ("1", 1.0),
        ("0", 0.0),
        ("50%", None),
        ("from 0 to 1", None),
        ("hard", None),
        ("", None),
        ("7/10", None),
    ],
)
def test_ratings_are_read_as_models_write_them(text: str, rating: float | None) -> None:
    assert read_rating(text) == rating


def test_outlines_are_read_as_models_write_them() -> None:
    assert read_outline('```json\n{"step1": "a \\"b\\"", "step2": "c\nd",}\n```', 8) == ['a "b"', "c d"]
    assert read_outline('<think>{"step1": "no"}</think>{"Step 1": "yes", "Step 2": ""}', 8) == ["yes"]
    assert read_outline(json.dumps({f"step{k}": str(k) for k in range(20)}), 3) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"outlines": 0}, "outlines must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"retries": -1}, "retries must be a number of at least 0"),
        ({"tau": math.nan}, "tau must be a number"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_strategy("scale", wrong)
