"""Where steps end: in whole solutions, and in a search whose steps are numbered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.answers.steps import end_of_step, split_answer, split_steps
from outthink.driver import solve_async
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from tests.tools.toys import problem
from tests.tools.virtual import run


@pytest.mark.parametrize(
    ("text", "delimiter", "steps"),
    [
        ("a\n\nb\n\nc", "\n\n", ["a\n\n", "b\n\n", "c"]),
        ("a\n\nb\n\n", "\n\n", ["a\n\n", "b\n\n"]),
        ("\n\na\n\n\n\n  \n\nb", "\n\n", ["a\n\n", "b"]),
        ("no delimiter", "\n\n", ["no delimiter"]),
        ("", "\n\n", [""]),
        (" \n\n ", "\n\n", [" \n\n "]),
        ("Step 1: x\nStep 2: y\nStep 3: z", "\nStep {step}:", ["Step 1: x\nStep 2:", " y\nStep 3:", " z"]),
        # a number that is not the next one ends nothing
        ("Step 1: see\nStep 3: and\nStep 2: y", "\nStep {step}:", ["Step 1: see\nStep 3: and\nStep 2:", " y"]),
    ],
)
def test_whole_solutions_are_cut(text: str, delimiter: str, steps: list[str]) -> None:
    assert split_steps(text, delimiter) == steps


@given(st.text(alphabet="ab\n ", max_size=40), st.sampled_from(["\n", "\n\n", "a", "ab"]))
def test_nothing_but_white_space_is_lost(text: str, delimiter: str) -> None:
    steps = split_steps(text, delimiter)
    assert steps
    assert "".join("".join(steps).split()) == "".join(text.split())
    if text.strip():
        assert all(step.strip() for step in steps)
        assert all(step.endswith(delimiter) for step in steps[:-1])


def test_a_delimiter_may_name_the_next_step() -> None:
    assert [end_of_step("Step {step}:", before) for before in range(3)] == ["Step 2:", "Step 3:", "Step 4:"]
    assert end_of_step("\n\n", 7) == "\n\n"


def test_a_search_stops_at_the_number_of_the_next_step() -> None:
    """Each step mentions the number of another one, which must not end it."""
    whole = "Step 1: as Step 3: says\nStep 2: as Step 1: says\nStep 3: #### 4"
    stops: set[tuple[str, ...]] = set()

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        stops.add(request.stop)
        return whole[len(request.prefix_text) :]

    strategy: Any = make_strategy("rebase", {"width": 2, "delimiter": "\nStep {step}:"})
    trace = run(solve_async(problem(), strategy, model=ScriptedEngine(reply), prm=lambda question, solution: 0.5))
    assert {step.text for step in trace.candidates} == {
        "Step 1: as Step 3: says\nStep 2:",
        " as Step 1: says\nStep 3:",
        " #### 4",
    }
    assert stops == {("\nStep 2:",), ("\nStep 3:",), ("\nStep 4:",)}
    assert trace.answer == "4"


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a\n\nb", ["a\n\n", "b"]),
        ("<think>x\n\ny</think>\n\na\n\nb", ["<think>x\n\ny</think>a\n\n", "b"]),
        ("x\n\ny</think>a\n\nb", ["x\n\ny</think>a\n\n", "b"]),
        ("<think>x</think>a\n\n<think>y</think>b", ["a\n\n", "b"]),
        ("<think>x\n\ny", ["<think>x\n\n", "y"]),
        ("<think>x\n\ny</think>", ["<think>x\n\n", "y</think>"]),
    ],
)
def test_a_thought_is_no_step_of_an_answer(text: str, steps: list[str]) -> None:
    assert split_answer(text, "\n\n") == steps
