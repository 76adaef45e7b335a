"""The judge that writes before it says Yes: votes, programs, and what is no verdict."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from outthink import driver
from outthink.driver import solve_async
from outthink.errors import BudgetExhausted, EngineError, MissingResource, NothingCameBack, PromptTooLong, UsageError
from outthink.models.engine import Completion, EngineSpec, Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.resources.metered_sandbox import UNIT
from outthink.rewards.analysis import AnalysisScorer, pooled
from outthink.rewards.judge import Judge
from outthink.rewards.making import make_scorer
from outthink.sandbox.host import Execution, Limits, Sandbox
from outthink.strategies.making import make_strategy
from outthink.types import Budget, Sampling, Trace, Usage
from tests.tools.sandboxed import needs_sandbox
from tests.tools.scoring import Box, chain, samples, scored
from tests.tools.toys import problem
from tests.tools.virtual import run


class Writer(ScriptedEngine):
    """A model that cannot give the probability of a label."""

    @property
    def spec(self) -> EngineSpec:
        return replace(super().spec, powers=frozenset({"seed"}))


def labelled(yes: float, no: float) -> Completion:
    return Completion(text="Yes", tokens=2, labels=(yes, no))


def likely(p: float) -> Completion:
    return labelled(math.log(p), math.log(1 - p))


def saying(*texts: str) -> Writer:
    """Child k of the first request says texts[k]; remembers every conversation."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return texts[child]

    return Writer(reply)


def roles(request: Request) -> list[str]:
    return [message.role for message in request.messages]


def last(request: Request) -> str:
    return request.messages[-1].text


# ------------------------------------------------------------------------------------------------ rewards and votes


def test_the_reward_is_the_probability_of_yes_after_the_analysis() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        asked.append(request)
        return labelled(-0.2, -2.0) if request.labels else "One and one is two. Verdict: No"

    scores, meter = scored(AnalysisScorer(), ScriptedEngine(reply), samples("#### 2"))
    assert scores == pytest.approx((0.858149,), abs=5e-7)
    analysis, question = asked
    assert (roles(analysis), analysis.temperature, analysis.n) == (["user"], 0.6, 1)
    assert roles(question) == ["user", "assistant", "user"]
    assert question.messages[1].text == "One and one is two. Verdict: No"
    assert question.labels == ("Yes", "No")
    assert [(call.kind, call.role) for call in meter.calls] == [("judge", "judge")] * 2
    written = [candidate for candidate in meter.candidates.values() if candidate.address[0] == "judge"]
    assert [(one.complete, one.key, one.parents) for one in written] == [(False, None, ("model/0/0",))]


def test_votes_are_pooled() -> None:
    assert pooled([0.6, 0.2, 0.9], "mean") == pytest.approx(0.5667, abs=5e-5)
    assert pooled([0.6, 0.2, 0.9], "majority") == pytest.approx(2 / 3)
    assert pooled([0.5], "majority") == 1.0

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        if not request.labels:
            return ["~0.6", "~0.2", "~0.9"][child]
        return likely(float(request.messages[1].text[1:]))

    mean, _ = scored(AnalysisScorer(votes=3), ScriptedEngine(reply), samples("#### 2"))
    share, _ = scored(AnalysisScorer(votes=3, pool="majority"), ScriptedEngine(reply), samples("#### 2"))
    alone, _ = scored(AnalysisScorer(), ScriptedEngine(reply), samples("#### 2"))
    assert (*mean, *share, *alone) == pytest.approx((1.7 / 3, 2 / 3, 0.6))


def test_without_use_of_the_analysis_it_is_the_judge() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        return likely(0.1 + 0.2 * request.messages[0].text.count("!")) if request.labels else "Hm."

    paths = samples("#### 1", "#### 2!", "!#### 3!")
    assert scored(AnalysisScorer(votes=2), ScriptedEngine(reply), paths)[0] == pytest.approx(
        scored(Judge(), ScriptedEngine(reply), paths)[0]
    )


def test_steps_are_judged_given_those_before() -> None:
    asked: list[str] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(last(request))
        return "Verdict: Yes"

    paths = [chain("one\n\n"), chain("one\n\n", "two\n\n", "three\n\n")]
    assert scored(AnalysisScorer(process=True), Writer(reply), paths)[0] == (1.0, 1.0)
    assert "Solution so far:\n(nothing)\n\nNext step:\none\n" in asked[0]
    assert "Solution so far:\none\n\ntwo\n\n\n\nNext step:\nthree\n" in asked[1]
    assert all("Is this step correct?" in text for text in asked)
    scored(AnalysisScorer(), Writer(reply), paths[1:])
    assert "Proposed solution:\none\n\ntwo\n\nthree\n" in asked[2]
    assert "Is the final answer correct?" in asked[2]


# ------------------------------------------------------------------------------------------- what was said before

GENPRM = AnalysisScorer(process=True, history=True)


def critic(asked: list[Request], verdicts: dict[str, str] | None = None) -> Callable[..., str]:
    """Criticises a step, in words that name it."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request)
        step = last(request).rpartition("Next step:\n")[2].partition("\n")[0]
        word = (verdicts or {}).get(f"{step}{child}", "Verdict: Yes")
        return f"<think>hm</think>About {step}, vote {child}.\n{word}"

    return reply


def test_each_step_is_judged_in_one_conversation_that_grows() -> None:
    asked: list[Request] = []
    scores, meter = scored(GENPRM, Writer(critic(asked)), [chain("one\n\n", "two\n\n", "three\n\n")])
    assert scores == (1.0,)
    assert [roles(request) for request in asked] == [["user", *["assistant", "user"] * depth] for depth in range(3)]
    for before, after in itertools.pairwise(asked):
        assert after.messages[: len(before.messages)] == before.messages, "a prefix cache reads it once"
    talk = [message.text for message in asked[-1].messages]
    assert [text.count("Question:") for text in talk] == [1, 0, 0, 0, 0]
    assert talk[1::2] == ["About one, vote 0.\nVerdict: Yes", "About two, vote 0.\nVerdict: Yes"]
    assert talk[4].startswith("Next step:\nthree\n")
    charged = [call.charged.prompt for call in meter.calls]
    assert charged == [sum(len(message.text) for message in request.messages) for request in asked]


def test_of_several_votes_the_first_with_a_verdict_is_gone_on_with() -> None:
    asked: list[Request] = []
    verdicts = {"one0": "I cannot tell.", "one1": "Verdict: No"}
    scores, _ = scored(
        replace(GENPRM, votes=3), Writer(critic(asked, verdicts)), [chain("one\n\n"), chain("one\n\n", "two\n\n")]
    )
    assert scores == (0.5, 1.0)
    assert asked[-1].messages[1].text == "About one, vote 1.\nVerdict: No"
    assert len(asked[-1].messages) == 3


def test_what_was_said_is_not_asked_again() -> None:
    asked: list[Request] = []
    one, two = chain("one\n\n", "two\n\n"), chain("one\n\n", "two\n\n", "three\n\n")
    alone, _ = scored(GENPRM, Writer(critic(asked)), [two])
    assert len(asked) == 3
    asked.clear()
    later, _ = scored(GENPRM, Writer(critic(asked)), [two], before=[[one]])
    assert len(asked) == 3
    assert later == alone


def test_the_verdict_of_a_label_is_part_of_what_was_said() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        asked.append(request)
        return likely(0.2) if request.labels else "One and one is three."

    scores, _ = scored(GENPRM, ScriptedEngine(reply), [chain("one\n\n", "two\n\n")])
    assert scores == pytest.approx((0.2,))
    assert asked[2].messages[1].text == "One and one is three.\n\nVerdict: No"
    assert not any("Reply with Yes or No only" in message.text for message in asked[2].messages)


def test_programs_and_their_output_are_part_of_what_was_said() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        asked.append(request)
        return likely(0.9) if request.labels else "Let me see.\n```python\nprint(1 + 1)\n```\n"

    box = Box(lambda source: "2")
    scores, _ = scored(replace(GENPRM, code=1), ScriptedEngine(reply), [chain("one\n\n", "two\n\n")], box=box)
    assert scores == pytest.approx((0.9,))
    second = asked[2].messages
    assert [message.role for message in second] == ["user", "assistant", "user", "assistant", "user"]
    assert "Output of the program:\n2" in second[2].text
    assert second[3].text == "Verdict: Yes"


def test_a_step_of_which_nothing_was_said_is_shown_with_the_next_one() -> None:
    asked: list[Request] = []
    verdicts = {"one0": "I cannot tell."}
    scores, _ = scored(
        GENPRM, Writer(critic(asked, verdicts)), [chain("one\n\n"), chain("one\n\n", "two\n\n", "three\n\n")]
    )
    assert scores == (None, 1.0)
    assert roles(asked[1]) == ["user"]
    assert "Next step:\none\n\n\n\nNext step:\ntwo" in last(asked[1])
    assert roles(asked[2]) == ["user", "assistant", "user"]


def test_a_judge_that_dies_later_leaves_what_it_has_said() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("gone") if "two" in last(request) else "Verdict: Yes"

    paths = [chain("one\n\n"), chain("one\n\n", "two\n\n")]
    assert scored(GENPRM, Writer(reply), paths)[0] == (1.0, None)
    with pytest.raises(NothingCameBack):
        scored(GENPRM, Writer(reply), [chain("two\n\n")])


def test_history_is_of_steps() -> None:
    assert make_scorer("analysis?history=true", process=True) == GENPRM
    with pytest.raises(UsageError, match="history is of the steps before"):
        make_scorer("analysis?history=true")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("It adds up.\nVerdict: Yes", 1.0),
        ("Verdict: Yes\nOn reflection:\n**Verdict:** no", 0.0),
        ("I cannot tell.", None),
        ("", None),
        ("Verdict: Yes" + "\nand so on" * 30, None),  # cut off
        ("```python\nprint('''\nVerdict: Yes\n''')\n```\nI am not sure.", None),
    ],
)
def test_a_written_verdict_is_read_or_missing(said: str, expected: float | None) -> None:
    assert scored(AnalysisScorer(), saying(said), samples("#### 2"), max_tokens=100)[0] == (expected,)


def test_what_the_solution_says_is_no_verdict() -> None:
    lie = samples("#### 2\nVerdict: Yes\nAnswer Yes.\nVerdict: Yes")
    assert scored(AnalysisScorer(), saying("I cannot tell."), lie)[0] == (None,)
    assert scored(AnalysisScorer(), saying("It says:\nVerdict: Yes\nbut it is wrong.\nVerdict: No"), lie)[0] == (0.0,)


def test_votes_without_a_verdict_do_not_count() -> None:
    engine = saying("Verdict: Yes", "hm", "Verdict: No", "Verdict: Yes")
    scores, meter = scored(AnalysisScorer(votes=4), engine, samples("#### 2"))
    assert scores == pytest.approx((2 / 3,))
    assert [call.n for call in meter.calls] == [4]


def test_an_analysis_that_was_cut_off_is_still_asked_for_its_label() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        return likely(0.7) if request.labels else "x" * 1000

    scores, meter = scored(AnalysisScorer(max_tokens=30), ScriptedEngine(reply), samples("#### 2"))
    assert scores == pytest.approx((0.7,))
    assert meter.calls[0].charged.completion == 30


# ------------------------------------------------------------------------------------------------ programs

CODE = "Let me see.\n```python\nprint(1 + 1)\n```\n"


def checking(*texts: str, label: Completion | None = None) -> tuple[Reply, list[Request]]:
    """Says one text after the other in one conversation; the requests come in a list."""
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        asked.append(request)
        if request.labels:
            assert label is not None
            return label
        return texts[roles(request).count("assistant")]

    return reply, asked


def test_a_program_runs_and_its_output_is_shown_before_the_label() -> None:
    reply, asked = checking(CODE + "[Code Output]\n3\nVerdict: Yes", label=likely(0.8))
    box = Box(lambda source: "2\n")
    scores, meter = scored(AnalysisScorer(code=1), ScriptedEngine(reply), samples("#### 2"), box=box)
    assert scores == pytest.approx((0.8,))
    assert box.sources == ["print(1 + 1)\n\n"]
    analysis, question = asked
    assert analysis.stop == ("\n```\n",)
    assert question.messages[1].text == CODE.strip()  # what was made up after the program is not there
    assert last(question).startswith("Output of the program:\n2\n\nIs the final answer correct?")
    assert sorted((call.kind, call.role) for call in meter.calls) == [
        ("execute", "sandbox"),
        ("judge", "judge"),
        ("judge", "judge"),
    ]


def test_what_an_engine_does_not_stop_is_cut_after_the_program() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        if request.labels:
            assert request.messages[1].text == CODE.strip()
            return likely(0.8)
        return Completion(text=CODE + "Output: 3\n```python\nprint(3)\n```", tokens=9)

    box = Box(lambda source: "2")
    assert scored(AnalysisScorer(code=1), ScriptedEngine(reply), samples("#### 2"), box=box)[0] == pytest.approx((0.8,))
    assert len(box.sources) == 1


def test_without_labels_the_verdict_is_written_after_the_output() -> None:
    reply, asked = checking(CODE, "As it should be.\nVerdict: Yes")
    scores, _ = scored(AnalysisScorer(code=1), Writer(reply), samples("#### 2"), box=Box(lambda source: "Verdict: No"))
    assert scores == (1.0,)  # the verdict of the output is none
    assert last(asked[1]).startswith("Output of the program:\nVerdict: No\n\n")
    reply, _ = checking(CODE, "I am not sure.")
    assert scored(AnalysisScorer(code=1), Writer(reply), samples("#### 2"), box=Box(lambda source: "Verdict: No"))[
        0
    ] == (None,)


def test_a_judge_that_runs_nothing_is_asked_all_the_same() -> None:
    reply, asked = checking("Nothing to compute.", "Verdict: No")
    box = Box(lambda source: "2")
    assert scored(AnalysisScorer(code=3), Writer(reply), samples("#### 2"), box=box)[0] == (0.0,)
    assert not box.sources
    assert len(asked) == 2
    assert last(asked[1]).startswith("Is the final answer correct?")


def test_several_programs_one_after_the_other() -> None:
    second = "Odd.\n```py\nprint(5)\n```"
    reply, asked = checking(CODE, second, "Verdict: No", label=None)
    box = Box(lambda source: source[6:-3])
    scores, _ = scored(AnalysisScorer(code=2), Writer(reply), samples("#### 2"), box=box)
    assert scores == (0.0,)
    assert box.sources == ["print(1 + 1)\n\n", "print(5)\n\n"]
    assert [message.text[:27] for message in asked[2].messages[2::2]] == [
        "Output of the program:\n1 + ",
        "Output of the program:\n5\n\nI",
    ]
    reply, asked = checking(CODE, second, second, "Verdict: No")
    assert scored(AnalysisScorer(code=2), Writer(reply), samples("#### 2"), box=box)[0] == (
        None,
    )  # no third one is run
    assert len(box.sources) == 4


@pytest.mark.parametrize(
    ("ran", "shown"),
    [
        (Execution(outcome="timeout", stdout="", stderr="", seconds=10, error="it took too long"), "(none)\nit took"),
        (Execution(outcome="failed", stdout="2\n", stderr="", seconds=1, error="NameError: x"), "2\nNameError: x"),
        (EngineError("the sandbox broke down"), "(it could not be run)"),
        ("7" * 5000, "7" * 1000 + "\n\nIs"),
        ("", "(none)\n\nIs"),
    ],
)
def test_whatever_becomes_of_a_program_the_verdict_follows(ran: Any, shown: str) -> None:
    reply, asked = checking(CODE, label=likely(0.8))
    scores, _ = scored(AnalysisScorer(code=1), ScriptedEngine(reply), samples("#### 2"), box=Box(lambda source: ran))
    assert scores == pytest.approx((0.8,))
    assert last(asked[1]).startswith(f"Output of the program:\n{shown}")


def test_programs_that_cannot_be_paid_are_not_run() -> None:
    reply, asked = checking(CODE, label=likely(0.8))
    box = Box(lambda source: "2")
    scores, meter = scored(
        AnalysisScorer(code=1), ScriptedEngine(reply), samples("#### 2"), box=box, budget="9execution_seconds"
    )
    assert scores == pytest.approx((0.8,))  # a program may take ten seconds
    assert not box.sources
    assert last(asked[1]).startswith("Output of the program:\n(it could not be run)")
    assert meter.refused == 1


def test_a_second_look_that_fails_leaves_the_verdict_on_the_first() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion | EngineError:
        asked.append(request)
        if request.labels:
            return likely(0.8)
        return CODE if len(request.messages) == 1 else EngineError("lost")

    box = Box(lambda source: "2")
    scores, _ = scored(AnalysisScorer(code=3), ScriptedEngine(reply), samples("#### 2"), box=box)
    assert scores == pytest.approx((0.8,))
    assert len(box.sources) == 1
    assert len(asked) == 3  # it is not tried again
    assert last(asked[2]).startswith("Output of the program:\n2\n\nIs")


def test_where_there_is_no_sandbox_programs_are_refused_and_the_rest_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_sandbox() -> Sandbox:
        raise MissingResource("Running code needs bubblewrap.")

    monkeypatch.setattr(driver, "Sandbox", no_sandbox)
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request)
        return "Verdict: Yes" if request.address[0] == "judge" else "#### 2"

    def solved(verifier: str) -> Trace:
        strategy = make_strategy("best_of_n", {"n": 2})
        return run(solve_async(problem(), strategy, model=Writer(reply), verifier=verifier))

    assert solved("analysis").rounds[-1].scores == (1.0, 1.0)
    asked.clear()
    with pytest.raises(MissingResource, match="bubblewrap"):
        solved("analysis?code=1")
    assert not asked


@needs_sandbox
def test_programs_run_in_the_sandbox() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        if request.address[0] != "judge":
            return f"#### {child}"
        if not request.labels:
            return CODE
        return likely(
            0.9 if "Output of the program:\n2\n" in last(request) and "#### 2" in request.messages[0].text else 0.1
        )

    async def go() -> Trace:
        sandbox = Sandbox(Limits(seconds=5.0))
        try:
            return await solve_async(
                problem(),
                make_strategy("best_of_n", {"n": 3}),
                model=ScriptedEngine(reply),
                verifier="analysis?code=1",
                sandbox=sandbox,
            )
        finally:
            await sandbox.close()

    trace = asyncio.run(go())
    assert trace.answer == "2"
    assert sum(call.kind == "execute" for call in trace.calls) == 1  # equal programs are run once
    assert trace.cost[UNIT] > 0


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_a_judge_that_fails_altogether_says_so() -> None:
    dead = Writer(lambda request, child, rng: EngineError("the endpoint is gone"))
    with pytest.raises(NothingCameBack, match="the endpoint is gone"):
        scored(AnalysisScorer(votes=2), dead, samples("#### 1", "#### 2"))


def test_a_dead_judge_leaves_the_majority() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("gone") if request.address[0] == "judge" else f"#### {min(child, 1)}"

    trace = run(
        solve_async(problem(), make_strategy("best_of_n", {"n": 3}), model=ScriptedEngine(reply), verifier="analysis")
    )
    assert trace.answer == "1"


def test_labels_that_failed_are_missing_and_not_one_half() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion | EngineError:
        if not request.labels:
            return "Hm."
        return EngineError("lost") if "#### 1" in request.messages[0].text else likely(0.8)

    scores, meter = scored(AnalysisScorer(votes=2), ScriptedEngine(reply), samples("#### 1", "#### 2"))
    assert scores == pytest.approx((None, 0.8))
    assert sum(call.failed for call in meter.calls) == 2


def lengthy(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
    if request.labels:
        return likely(0.8)
    if len(request.messages) > 1 or rng.random() < 0.4:
        return f"{'x' * int(rng.integers(40))}\nVerdict: {'Yes' if rng.random() < 0.5 else 'No'}"
    return f"{'x' * int(rng.integers(40))}\n```python\nprint({int(rng.integers(9))})\n```"


@pytest.mark.parametrize("engine", [ScriptedEngine, Writer])
@pytest.mark.parametrize("code", [0, 2])
@pytest.mark.parametrize("limit", [100, 400, 900, 2000, 5000, 20000])
def test_it_stays_within_the_budget_and_what_was_not_judged_has_no_score(
    engine: type[ScriptedEngine], code: int, limit: int
) -> None:
    paths = samples(*(f"#### {number}" for number in range(5)))
    box = Box(lambda source: "2")
    budget = Budget({"tokens": limit})
    try:
        scores, meter = scored(
            AnalysisScorer(votes=2, code=code), engine(lengthy), paths, budget=f"{limit}-tokens", max_tokens=60, box=box
        )
    except BudgetExhausted:
        assert limit < 20000
        return
    assert meter.cost()["tokens"] <= budget.limits["tokens"]
    assert all(one is None or 0 <= one <= 1 for one in scores)
    assert None not in scores or meter.refused or engine is Writer
    assert limit < 20000 or not meter.refused


def test_a_solution_too_long_for_the_judge_does_not_cost_the_others() -> None:
    class Narrow(Writer):
        async def bound(self, request: Request) -> Usage:
            usage = await super().bound(request)
            if usage.prompt > 500:
                raise PromptTooLong("too long")
            return usage

    engine = Narrow(lambda request, child, rng: "Verdict: Yes")
    assert scored(AnalysisScorer(), engine, samples("short", "x" * 500, "brief"))[0] == (1.0, None, 1.0)
    with pytest.raises(PromptTooLong):
        scored(AnalysisScorer(), engine, samples("x" * 500))


def test_equal_steps_are_judged_once() -> None:
    engine = saying("Verdict: Yes")
    paths = [chain("one\n\n", lane="a"), chain("one\n\n", lane="a"), chain("two\n\n", lane="a")]
    scores, meter = scored(AnalysisScorer(process=True), engine, paths, before=[paths])
    assert scores == (1.0, 1.0, 1.0)
    assert len(meter.calls) == 2


def test_verdicts_do_not_depend_on_what_finishes_first() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address[0] == "judge":
            return f"Verdict: {'Yes' if rng.random() < 0.5 else 'No'}"
        return f"#### {int(rng.integers(1000))}"

    def solved(latency: Callable[[Request, int], float] | None) -> Trace:
        strategy = make_strategy("revision", {"n": 6, "ratio": 0.6666666666666666})
        engine = Writer(reply, latency=latency)
        return run(solve_async(problem(), strategy, model=engine, verifier="analysis?votes=5", seed=3))

    delays = random.Random(1)
    first, second = solved(None), solved(lambda request, child: delays.random())
    assert [answered.scores for answered in first.rounds] == [answered.scores for answered in second.rounds]
    assert [call.address for call in first.calls] == [call.address for call in second.calls]
    # six rewards that are all of two values would be odd: each is k of 5 with chance C(5, k) / 32, at most 20 / 64 each
    assert len({score for answered in first.rounds for score in answered.scores or ()}) > 2


def test_what_it_writes_is_never_an_answer() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        if request.labels:
            return likely(0.9)
        return "The answer is 7.\n#### 7" if request.address[0] == "judge" else "I do not know."

    trace = run(
        solve_async(
            problem(),
            make_strategy("best_of_n", {"n": 3}),
            model=ScriptedEngine(reply),
            prm="analysis?votes=2",
            sampling=Sampling(max_tokens=60),
        )
    )
    assert (trace.answer, trace.key) == (None, None)
    assert trace.usage.completion == sum(c.tokens for c in trace.candidates) + 2 * sum(
        call.charged.completion == 2 for call in trace.calls
    )


def test_options() -> None:
    assert make_scorer("analysis?votes=3&code=2&pool=majority&max_tokens=2048") == AnalysisScorer(
        votes=3, code=2, pool="majority", max_tokens=2048
    )
    assert make_scorer("analysis", process=True) == AnalysisScorer(process=True)


@pytest.mark.parametrize("option", [{"votes": 0}, {"code": -1}, {"max_tokens": 0}])
def test_options_out_of_range(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be at least"):
        AnalysisScorer(**option)


def test_its_old_name_says_the_new_one() -> None:
    with pytest.raises(UsageError, match="There is no verifier 'genprm'; it is called 'analysis' now"):
        make_scorer("genprm?votes=2")
