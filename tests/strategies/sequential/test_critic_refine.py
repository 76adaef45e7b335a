"""Critic-refine: which step it shows, when it stops, and what answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import EngineError
from outthink.models.engine import Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.rewards import Path
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.sequential.critic_refine import CriticRefine, first_bad_step
from outthink.types import Trace
from tests.tools.toys import problem
from tests.tools.virtual import run

FIRST = "one\n\ntwo\n\nthree\n\n#### 1"


@dataclass
class Critic:
    """A score by the text of the last step."""

    value: Callable[[str], float | None]
    asked: list[str] = field(default_factory=list)

    async def score(self, problem: object, paths: Sequence[Path]) -> list[float | None]:
        self.asked += [path[-1].text for path in paths]
        return [self.value(path[-1].text.strip()) for path in paths]


def solved(strategy: CriticRefine, reply: Reply, value: Callable[[str], float | None], **options: Any) -> Trace:
    return run(solve_async(problem(), strategy, model=ScriptedEngine(reply), prm=Critic(value), **options))


def asked_by(reply: Callable[[int], str | EngineError]) -> tuple[Reply, list[str]]:
    """An engine that says what `reply` makes of the number of the request, and the prompts that it saw."""
    prompts: list[str] = []

    def said(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        prompts.append(request.messages[-1].text)
        return reply(len(prompts) - 1)

    return said, prompts


def test_the_first_bad_step() -> None:
    assert first_bad_step([0.9, 0.5, 0.49, 0.1], 0.5) == 2
    assert first_bad_step([0.9, None, 0.5], 0.5) is None
    assert first_bad_step([], 0.5) is None


def test_where_every_step_passes_the_answer_is_the_sample_unchanged() -> None:
    reply, prompts = asked_by(lambda number: FIRST)
    trace = solved(CriticRefine(rounds=3), reply, lambda step: 0.5)
    assert (trace.text, len(prompts), len(trace.candidates)) == (FIRST, 1, 1)


def test_the_first_step_that_is_rejected_is_shown_with_the_whole_solution() -> None:
    reply, prompts = asked_by(lambda number: FIRST if number == 0 else "good\n\n#### 7")
    trace = solved(CriticRefine(rounds=3), reply, lambda step: 0.2 if step in ("two", "three") else 0.9)
    assert trace.answer == "7"
    assert len(prompts) == 2  # the second solution has no bad step
    assert FIRST in prompts[1]
    assert "none before it:\n\ntwo\n\nThink again" in prompts[1]
    assert trace.candidates[1].parents == (trace.candidates[0].id,)


@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_it_goes_on_for_so_many_rounds_while_steps_are_rejected(rounds: int) -> None:
    reply, prompts = asked_by(lambda number: f"step\n\n#### {number}")
    trace = solved(CriticRefine(rounds=rounds), reply, lambda step: 0.0)
    assert (trace.answer, len(prompts), len(trace.rounds)) == (str(rounds), rounds + 1, rounds + 1)


def test_the_present_answers_vote_and_an_unreadable_one_takes_no_place() -> None:
    said = ["bad\n\n#### 1", "bad\n\n#### 2", "good\n\n#### 3", "good\n\n#### 3", "I cannot say"]
    reply, _ = asked_by(lambda number: said[number])
    trace = solved(CriticRefine(n=3, rounds=2), reply, lambda step: 0.0 if step == "bad" else 1.0)
    assert trace.answer == "3"
    assert trace.rounds[-1].confidence == pytest.approx(2 / 3)
    assert len(trace.candidates) == 5


def test_a_refinement_that_failed_leaves_the_answer() -> None:
    reply, _ = asked_by(lambda number: "bad\n\n#### 1" if number == 0 else EngineError("lost"))
    trace = solved(CriticRefine(), reply, lambda step: 0.0)
    assert (trace.stopped, trace.answer) == ("finished", "1")


def test_without_rounds_it_is_self_consistency() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return f"#### {int(rng.integers(3))}"

    trace = solved(CriticRefine(n=5, rounds=0), reply, lambda step: 0.0, seed=4)
    plain = run(solve_async(problem(), SelfConsistency(n=5), model=ScriptedEngine(reply), seed=4))
    assert (trace.candidates, trace.answer, trace.usage) == (plain.candidates, plain.answer, plain.usage)


def test_what_is_out_of_range_is_refused() -> None:
    for wrong in ({"n": 0}, {"rounds": -1}, {"threshold": 1.5}, {"delimiter": ""}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CriticRefine(**wrong)
