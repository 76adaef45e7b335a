"""What fails beside the model in the middle of a search costs its own part, and nothing that was paid for before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import EngineError, PromptTooLong
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.types import Sampling, Usage
from tests.tools.toys import problem
from tests.tools.virtual import run


class Narrow(ScriptedEngine):
    """Refuses prompts that do not fit its context."""

    async def bound(self, request: Request) -> Usage:
        most = await super().bound(request)
        assert self.spec.context is not None
        if most.prompt + request.max_tokens > self.spec.context:
            raise PromptTooLong("the prompt is too long")
        return most


def long_solution(request: Request, child: int, rng: np.random.Generator) -> str:
    return (("x" * 60 + "\n\n") * 6 + "#### 42")[len(request.prefix_text) :]


def agrees(request: Request, child: int, rng: np.random.Generator) -> str:
    return "fine. Verdict: Yes"


@pytest.mark.parametrize("prm", ["judge", "judge?votes=1", "analysis", "rollout?verifier=judge", "rollout?m=2"])
def test_a_judge_that_cannot_read_the_later_steps_leaves_their_scores_missing(prm: str) -> None:
    roles: Any = {role: Narrow(agrees, name=role, context=700) for role in ("judge", "rollout")}
    strategy: Any = make_strategy("beam?width=2&children=2")
    options: dict[str, Any] = {"prm": prm, "sampling": Sampling(max_tokens=450)}
    trace = run(solve_async(problem(), strategy, model=ScriptedEngine(long_solution), models=roles, **options))
    assert (trace.stopped, trace.answer) == ("finished", "42")


@pytest.mark.parametrize("name", ["qalign?steps=8", "ab_mcts?n=8&batch=1", "ab_mcts?n=8&batch=4"])
def test_one_failed_verdict_does_not_end_a_search_over_answers(name: str) -> None:
    asked: list[Request] = []

    def verdict(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        asked.append(request)
        return EngineError("502 for a moment") if len(asked) == 3 else agrees(request, child, rng)

    def answer(request: Request, child: int, rng: np.random.Generator) -> str:
        return f"#### {int(rng.integers(30))}"[len(request.prefix_text) :]

    judge = ScriptedEngine(verdict, name="judge")
    models: Any = {"judge": judge}
    strategy: Any = make_strategy(name)
    options: dict[str, Any] = {"verifier": "judge?votes=1", "sampling": Sampling(max_tokens=50)}
    trace = run(solve_async(problem(), strategy, model=ScriptedEngine(answer), models=models, **options))
    assert (trace.stopped, trace.error) == ("finished", None)
    assert sum(call.n for call in trace.calls if call.role == "model") >= 8
    assert any(call.failed for call in trace.calls if call.role == "judge")


def test_triggers_that_fill_the_context_end_an_answer_and_not_the_run() -> None:
    def doubts(request: Request, child: int, rng: np.random.Generator) -> str:
        return "#### 7" if child == 0 else "y" * 200

    strategy: Any = make_strategy("iterative_deepening?n=2&b0=20")
    engine = Narrow(doubts, context=150)
    trace = run(solve_async(problem(), strategy, model=engine, sampling=Sampling(max_tokens=100)))
    assert (trace.stopped, trace.answer, trace.error) == ("finished", "7", None)
    assert len(trace.calls) > 1


def test_a_missing_score_does_not_make_the_best_the_shortest() -> None:
    def answer(request: Request, child: int, rng: np.random.Generator) -> str:
        return ["#### 1", "so #### 2", "so #### 2"][child][len(request.prefix_text) :]

    strategy: Any = make_strategy("qalign?steps=0&chains=3&choose=best")
    trace = run(
        solve_async(problem(), strategy, model=ScriptedEngine(answer), verifier=lambda question, solution: None)
    )
    assert trace.answer == "2"


def test_a_step_that_was_cut_does_not_count_as_one() -> None:
    """A step longer than the cap is two nodes, and the next number is still that of the next step."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        whole = "Step 1: " + "a" * 40 + "\nStep 2: b\nStep 3: c #### 4"
        return whole[len(request.prefix_text) :]

    strategy: Any = make_strategy("rebase", {"width": 1, "delimiter": "\nStep {step}:", "max_step_tokens": 35})
    trace = run(solve_async(problem(), strategy, model=ScriptedEngine(reply), prm=lambda question, solution: 0.5))
    assert [step.text.split("\n")[-1] for step in trace.candidates if step.finish == "stop"] == ["Step 2:", "Step 3:"]


def test_what_has_ended_has_no_advantage_whether_or_not_it_is_a_peek() -> None:
    asked: list[str] = []

    def value(question: str, solution: str) -> float:
        asked.append(solution)
        return 0.8 if "####" in solution else 0.3

    from outthink.rewards.advantage import Advantage

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return "a\n\n#### 42"[len(request.prefix_text) :]

    prm: Any = Advantage(prm=value)
    strategy: Any = make_strategy("lookahead?k=1&width=2&children=2")
    trace = run(solve_async(problem(), strategy, model=ScriptedEngine(reply), prm=prm))
    assert trace.answer == "42"
    assert set(asked) == {"a\n\n#### 42"}
