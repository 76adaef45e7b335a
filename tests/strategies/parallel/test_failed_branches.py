"""Abandoned branches by their words: where they are, the share they have, the vote weighted by it, their removal."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.driver import solve_async
from outthink.errors import EngineError, MissingResource
from outthink.models.engine import EngineSpec, Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.parallel.failed_step_fraction import (
    FailedStepFraction,
    failed_branches,
    proxy_fraction,
    pruned,
)
from outthink.types import Sampling, Trace
from tests.tools.toys import problem
from tests.tools.virtual import run

START = "<think>We add them.\n\n"
FAILS = "Alternatively, multiply first. This doesn't work.\n\n"
ALSO = "Let me try powers. That's wrong, a contradiction.\n\n"
GOES = "Another approach: count up. It is 42.\n\n"
END = "</think>#### 42"


def solved(strategy: Any, engine: ScriptedEngine, **options: Any) -> Trace:
    return run(solve_async(problem(), strategy, model=engine, sampling=Sampling(max_tokens=400), **options))


def test_a_branch_goes_from_the_words_that_open_it_to_the_next_ones_and_has_failed_where_it_is_rejected() -> None:
    text = START + FAILS + GOES + ALSO + GOES + END
    assert [text[start:end] for start, end in failed_branches(text)] == [FAILS, ALSO]
    assert proxy_fraction(text) == pytest.approx(len(FAILS + ALSO) / len(text))
    assert pruned(text) == START + GOES
    assert failed_branches(START + GOES + END) == []
    assert (proxy_fraction(START + END), proxy_fraction(""), pruned(START + END)) == (0, 0, None)
    # the last branch leads to the answer, so only what is rejected of it has failed
    assert failed_branches(START + GOES + ALSO) == failed_branches(START + GOES + ALSO.strip()) == []
    (last,) = failed_branches(START + ALSO + "So 42." + END)
    assert last == (len(START), len(START + ALSO))


@given(st.lists(st.sampled_from([FAILS, ALSO, GOES, "so on\n\n", "x"]), max_size=12))
def test_a_share_is_below_1_and_what_is_removed_leaves_none(parts: list[str]) -> None:
    text = START + "".join(parts) + GOES
    assert 0 <= proxy_fraction(text) < 1
    kept = pruned(text)
    if kept is not None:
        assert failed_branches(kept + GOES) == []
        # a further failed branch does not lower the share
        assert proxy_fraction(text + FAILS + GOES) > 0
    else:
        assert proxy_fraction(text) == 0


@pytest.mark.parametrize(
    "text", ["but\n\n", "but ", "Let me try ", "this that ", "\n\n \n\n", "wait,,,,", "Alternatively\n\n"]
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    whole = text * (200_000 // len(text))
    since = time.process_time()
    proxy_fraction(whole)
    assert time.process_time() - since < 0.5


TEXTS = [START + FAILS + "So 1.</think>#### 1", "long " * 20 + "#### 2", "#### 3", START + FAILS * 3 + END[:-2] + "1"]


def test_the_proxy_asks_no_judge_and_takes_the_least_failed_of_equals_the_shortest() -> None:
    engine = ScriptedEngine(lambda request, child, rng: TEXTS[child])
    trace = solved(FailedStepFraction(n=4, signal="proxy"), engine)
    assert {call.role for call in trace.calls} == {"model"}
    assert trace.answer == "3"
    assert trace.rounds[-1].scores == pytest.approx([1 - proxy_fraction(text) for text in TEXTS])


def test_the_vote_weighs_each_answer_by_one_less_its_fraction() -> None:
    """Two weights of 1 less a share against one of 1; in the paper's selection the single one wins."""
    texts = [START * 4 + FAILS + "So 1.</think>#### 1", START * 5 + FAILS + "So 1.</think>#### 1", "#### 3"]
    weights = [1 - proxy_fraction(text) for text in texts]
    assert weights[0] + weights[1] > weights[2] > max(weights[:2])
    engine = ScriptedEngine(lambda request, child, rng: texts[child])
    assert solved(FailedStepFraction(n=3, signal="proxy"), engine).answer == "3"
    voted = solved(FailedStepFraction(n=3, signal="proxy", selector="vote"), engine)
    assert voted.answer == "1"
    assert voted.confidence == pytest.approx(sum(weights[:2]) / sum(weights))


def test_abandoned_branches_are_removed_and_the_model_goes_on_behind_what_is_left() -> None:
    seen: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        seen.append(request)
        return (
            "So it is 42.</think>#### 42"
            if request.prefix_text
            else [START + FAILS + "</think>#### 7", "#### 8"][child]
        )

    trace = solved(FailedStepFraction(n=2, signal="proxy", removal=True), ScriptedEngine(reply))
    assert [request.prefix_text for request in seen] == ["", "", START]
    assert seen[2].messages == problem().messages
    assert set(trace.rounds[-1].candidates) == {"model/0/1", "model/regrown/0/0/0"}
    # one that cannot be written anew stays as it was
    dead = solved(
        FailedStepFraction(n=2, signal="proxy", removal=True),
        ScriptedEngine(lambda request, child, rng: EngineError("lost") if request.prefix_text else TEXTS[child]),
    )
    assert (dead.stopped, dead.answer) == ("finished", "2")


def test_a_judge_sees_the_whole_of_what_was_written_on() -> None:
    shown: list[str] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address[0] == "judge":
            shown.append(request.messages[-1].text)
            return "digraph { 1 [status=final] }"
        if request.prefix_text:
            return f"#### {'abc'.index(request.prefix_text[0])}"
        return f"{'abc'[child]} begins.\n\nAlternatively, try it. That is wrong.\n\nLet us try again.\n#### 9"

    trace = solved(FailedStepFraction(n=3, removal=True, retries=0), ScriptedEngine(reply))
    assert {one.answer for one in trace.candidates if one.complete and one.address[0] == "model"} >= {"0", "1", "2"}
    assert sorted(text.split("\n\n")[1] for text in shown) == ["a begins.", "b begins.", "c begins."]


def test_removal_needs_a_model_that_goes_on_with_a_text() -> None:
    class Fresh(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return EngineSpec(name="fresh")

    with pytest.raises(MissingResource, match="can do prefix"):
        solved(FailedStepFraction(removal=True), Fresh(lambda *_: "#### 1"))
