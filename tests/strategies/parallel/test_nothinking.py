"""NoThinking: what is put in the model's mouth, what it costs, and how the answers are put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from outthink import Budget, Message, Problem, Sampling, Trace
from outthink.driver import solve_async
from outthink.errors import BudgetTooSmall, EngineError, MissingResource, NothingCameBack, UsageError
from outthink.models.engine import Completion, EngineSpec, Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.rewards import Path
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.nothinking import THOUGHT, NoThinking, without_thinking
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.types import Part
from tests.tools.toys import coin, problem
from tests.tools.virtual import run


def solved(strategy: Any, engine: ScriptedEngine, **options: Any) -> Trace:
    options.setdefault("sampling", Sampling(max_tokens=60))
    return run(solve_async(problem(), strategy, model=engine, **options))


class Plain(ScriptedEngine):
    """A back end that neither continues a text nor gives logprobs."""

    @property
    def spec(self) -> EngineSpec:
        return EngineSpec(name="plain")


def sure(*answers: tuple[str, float]) -> ScriptedEngine:
    """Sample k gives answers[k] with that probability per token."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        answer, p = answers[child]
        return Completion(text=f"#### {answer}", tokens=6, logprobs=(math.log(p),) * 6)

    return ScriptedEngine(reply)


def test_the_prefill_is_one_finished_thought() -> None:
    assert THOUGHT == "<think>\nOkay, I think I have finished thinking.\n</think>\n\n"


def test_the_prefill_is_read_and_not_billed_as_written() -> None:
    seen: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        seen.append(request)
        return f"#### {child // 2}"

    trace = solved(NoThinking(n=3), ScriptedEngine(reply))
    assert {request.prefix_text for request in seen} == {THOUGHT}
    assert {request.messages for request in seen} == {problem().messages}
    assert trace.usage.completion == 3 * len("#### 0")
    assert trace.usage.prompt - trace.usage.cached == 12 + len(THOUGHT)
    assert trace.answer == "0"
    assert trace.text == THOUGHT + "#### 0"
    begun, *samples = trace.candidates[-1:] + trace.candidates[:-1]
    assert (begun.text, begun.tokens, begun.complete, begun.key) == (THOUGHT, 0, False, None)
    assert all(sample.continues and sample.parents == (begun.id,) for sample in samples)
    assert Trace.from_json(trace.to_json()) == trace
    assert len(trace.rounds[-1].candidates) == 3


def test_a_thought_that_is_opened_again_is_billed_and_its_answer_is_read() -> None:
    trace = solved(NoThinking(n=1), ScriptedEngine(lambda *_: "<think>#### 1, no</think>#### 2"))
    assert trace.answer == "2"
    assert trace.usage.completion == len("<think>#### 1, no</think>#### 2")


def test_without_a_prefill_it_is_the_baseline_that_thinks() -> None:
    for seed in range(8):
        trace, plain = (
            solved(strategy, coin(0.5, wrong=3), seed=seed)
            for strategy in (NoThinking(n=9, prefill="", p=0), SelfConsistency(n=9))
        )
        assert trace.candidates == plain.candidates
        ours, theirs = trace.rounds[-1], plain.rounds[-1]
        assert (ours.chosen, ours.confidence, trace.usage) == (theirs.chosen, theirs.confidence, plain.usage)


def test_the_latency_is_that_of_the_longest_answer() -> None:
    lengths = [420, 610, 380, 505]
    engine = ScriptedEngine(
        lambda request, child, rng: "x" * (lengths[child] - 7) + " #### 1",
        latency=lambda request, child: float(lengths[child]),
    )
    trace = solved(NoThinking(n=4), engine, sampling=Sampling(max_tokens=700))
    assert trace.seconds == pytest.approx(610)
    assert trace.usage.completion == 1915
    assert 5490 / trace.seconds == pytest.approx(9.0)
    assert 5490 / trace.usage.completion == pytest.approx(2.9, abs=0.05)


ANSWERS = [("1", 0.9), ("2", 0.5), ("2", 0.8), ("3", 0.4)]


@pytest.mark.parametrize(("p", "answer"), [(0, "2"), (0.5, "2"), (1, "2"), (2, "1"), (100, "1")])
def test_borda_votes_turn_from_the_majority_to_the_most_confident(p: float, answer: str) -> None:
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)):
        assert solved(NoThinking(n=4, p=p), sure(*(ANSWERS[place] for place in order))).answer == answer


def test_without_logprobs_it_is_the_majority() -> None:
    trace = solved(NoThinking(n=4, p=5, prefill=""), Plain(lambda request, child, rng: f"#### {min(child, 2)}"))
    assert trace.answer == "2"


def test_the_first_that_the_verifier_passes() -> None:
    async def above_1(question: str, text: str) -> float | None:
        return None if "#### 5" in text else 0.7 if "#### 2" in text or "#### 3" in text else 0.2

    engine = sure(("1", 0.9), ("5", 0.9), ("3", 0.2), ("2", 0.3), ("1", 0.9))
    trace = solved(NoThinking(n=5), engine, verifier=above_1)
    assert trace.answer == "3"
    assert trace.confidence == pytest.approx(1 / 3)
    assert trace.rounds[-1].scores == (0.2, None, 0.7)
    assert [one.answer for one in trace.rounds] == ["1", "1", "3"]
    none = solved(NoThinking(n=5, threshold=0.8), engine, verifier=above_1)
    assert (none.answer, none.confidence) == ("1", 0.4)  # nothing passed: the vote stands


@pytest.mark.parametrize("ahead", [1, 3])
def test_nothing_more_is_begun_once_a_sample_passes_and_what_is_in_flight_is_charged(ahead: int) -> None:
    begun: list[int] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        begun.append(child)
        return "so " * child + f"#### {child}"

    engine = ScriptedEngine(reply, latency=lambda request, child: float(1 + child))
    strategy = NoThinking(n=50, ahead=ahead)
    trace = solved(strategy, engine, verifier=lambda question, text: float("#### 2" in text))
    assert trace.answer == "2"
    assert sorted(begun) == list(range(2 + ahead))
    cancelled = [call for call in trace.calls if call.outcome == "cancelled"]
    assert len(cancelled) == ahead - 1
    assert trace.usage.completion >= sum(len("so " * child + f"#### {child}") for child in range(3))


def test_a_verifier_that_compares_is_asked_about_all_of_them_together() -> None:
    asked: list[int] = []

    @dataclass(frozen=True)
    class Longest:
        relative: ClassVar[bool] = True

        async def score(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
            asked.append(len(paths))
            return [float(path[-1].text.endswith("3")) for path in paths]

    trace = solved(NoThinking(n=5), ScriptedEngine(lambda request, child, rng: f"#### {child}"), verifier=Longest())
    assert (trace.answer, asked) == ("3", [5])


def test_with_an_oracle_it_is_coverage() -> None:
    """4 standard errors of 600 problems; a false alarm in 1 of 16,000, with a fixed seed."""

    async def exact(question: str, text: str) -> float:
        return float("42" in text)

    async def go() -> float:
        right = 0
        for number in range(600):
            trace = await solve_async(problem(f"p{number}"), NoThinking(n=4), model=coin(0.2), verifier=exact)
            right += trace.answer == "42"
        return right / 600

    expected = 1 - 0.8**4
    assert run(go()) == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 600))


def test_confidence_is_a_verifier_too() -> None:
    trace = solved(NoThinking(n=3, threshold=0.5), coin(0.5), verifier="confidence")
    assert trace.rounds[-1].scores == pytest.approx((math.exp(-1),) * 3)


def test_what_is_cut_off_or_cannot_be_read_has_no_vote() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return ("unreadable", "#### 1" + "x" * 100, "#### 2", "unreadable")[child]

    assert solved(NoThinking(n=4), ScriptedEngine(reply)).answer == "2"
    nothing = solved(NoThinking(n=3), ScriptedEngine(lambda *_: "unreadable"), verifier=lambda question, text: 1.0)
    assert (nothing.answer, nothing.stopped) == (None, "finished")


def test_a_switch_goes_to_the_end_of_the_question() -> None:
    seen: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        seen.append(request)
        return "#### 1"

    trace = solved(NoThinking(n=1, prefill="", switch="/no_think"), Plain(reply))
    assert trace.answer == "1"
    assert seen[0].messages[-1].text == "What is 1+1? /no_think"
    assert seen[0].prefix_text == ""
    shown = Message(content=(Part(text="What is it?"), Part(kind="image", reference="x.png")))
    asked = without_thinking((shown,), "/no_think")
    assert [part.text for part in asked[-1].content if isinstance(part, Part)] == ["What is it?", "", " /no_think"]
    assert without_thinking((shown,), "") == (shown,)


def test_a_back_end_that_cannot_continue_a_text_is_refused_before_anything_is_spent() -> None:
    with pytest.raises(MissingResource, match="can do prefix"):
        solved(NoThinking(n=1), Plain(lambda *_: "#### 1"))


def test_failures_and_the_budget() -> None:
    dead: Reply = lambda *_: EngineError("down")  # noqa: E731 - one line says it
    with pytest.raises(NothingCameBack, match="down"):
        solved(NoThinking(n=2), ScriptedEngine(dead))
    one = 12 + len(THOUGHT) + 60
    trace = solved(NoThinking(n=8), coin(0.5), budget=Budget({"tokens": one}))
    assert trace.cost["tokens"] <= one
    assert trace.answer is not None
    with pytest.raises(BudgetTooSmall, match=f"at least {one} tokens") as refused:
        solved(NoThinking(n=8), coin(0.5), budget=Budget({"tokens": one - 1}))
    assert refused.value.trace is not None
    assert not refused.value.trace.calls


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"p": -1}, "p must be a number of at least 0"),
        ({"p": "inf"}, "p must be a number"),
        ({"threshold": "nan"}, "threshold must be a finite number"),
    ],
)
def test_bad_hyperparameters_are_one_sentence(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_strategy("nothinking", parameters)


def test_the_conversation_is_kept() -> None:
    asked = Problem(id="p", messages=(Message(role="system", content="Be brief."), Message(content="Why?")))
    assert without_thinking(asked.messages, "/no_think")[0] == asked.messages[0]
