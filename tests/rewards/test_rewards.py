from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import BudgetExhausted, EngineError, MissingResource, UnknownName, UsageError
from outthink.meter import Meter
from outthink.models.engine import Completion, EngineSpec, Request
from outthink.models.scripted import ScriptedEngine
from outthink.resources.metered_sandbox import UNIT, MeteredSandbox
from outthink.rewards import SCORERS, Path
from outthink.rewards.confidence import Confidence
from outthink.rewards.judge import Judge, yes_probability
from outthink.rewards.making import FunctionScorer, make_scorer
from outthink.rewards.pairwise import Pairwise
from outthink.rewards.scores import Scores, said_part
from outthink.rewards.tests import PublicTests
from outthink.sandbox.host import Execution, Limits, Sandbox
from outthink.strategies.making import make_strategy
from outthink.types import Budget, Candidate, Code, Message, Problem, Sampling, Trace
from tests.tools.scoring import chain
from tests.tools.toys import problem
from tests.tools.virtual import run


def answers(*texts: str) -> ScriptedEngine:
    """Child k says texts[k]; a judge says Yes with the probability written after a ~."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        if not request.labels:
            return texts[child]
        p = float(request.messages[-1].text.split("~")[1].split()[0])
        return Completion(text="Yes", tokens=2, labels=(math.log(p), math.log(1 - p)))

    return ScriptedEngine(reply)


def best(engine: ScriptedEngine, n: int, name: str = "best_of_n", **options: object) -> Trace:
    return run(solve_async(problem(), make_strategy(name, {"n": n}), model=engine, **options))  # type: ignore[arg-type]  # passed on


def test_a_callable_is_a_verifier() -> None:
    trace = best(answers("#### 1", "#### 42", "#### 3"), 3, verifier=lambda question, text: float("42" in text))
    assert trace.answer == "42"
    assert trace.rounds[-1].scores == (0.0, 1.0, 0.0)
    verified = [call for call in trace.calls if call.kind == "verify"]
    assert len(verified) == 3
    assert trace.rounds[0].answer == "1"  # the majority stood before the scores came


def test_an_async_callable_runs_concurrently() -> None:
    async def verifier(question: str, text: str) -> float:
        await asyncio.sleep(5)
        return float("3" in text)

    trace = best(answers("#### 1", "#### 42", "#### 3"), 3, verifier=verifier)
    assert (trace.answer, trace.seconds) == ("3", 5.0)


def test_a_score_that_fails_or_is_no_number_is_missing_not_zero() -> None:
    def verifier(question: str, text: str) -> float | None:
        if "1" in text:
            raise RuntimeError("out of memory")
        return {"2": math.nan, "3": None, "4": -5.0}[text[-1]]

    trace = best(answers("#### 1", "#### 2", "#### 3", "#### 4"), 4, verifier=verifier)
    assert trace.rounds[-1].scores == (None, None, None, -5.0)
    assert trace.answer == "4"
    failed = [call for call in trace.calls if call.outcome == "failed"]
    assert [call.error for call in failed] == ["RuntimeError: out of memory"]


def test_negative_weights_do_not_lose_the_paid_answer() -> None:
    trace = best(answers("#### 1", "#### 2", "#### 2"), 3, "weighted_best_of_n", verifier=lambda q, text: -1.0)
    assert (trace.answer, trace.stopped) == ("2", "error")
    assert "at least 0" in (trace.error or "")


def test_the_judge_is_metered_and_its_scores_are_the_share_of_yes() -> None:
    trace = best(answers("~0.2 #### 1", "~0.9 #### 2", "~0.5 #### 3"), 3, verifier="judge")
    assert trace.answer == "2"
    assert trace.rounds[-1].scores == pytest.approx((0.2, 0.9, 0.5))
    judged = [call for call in trace.calls if call.kind == "judge"]
    assert len(judged) == 3
    assert all(call.role == "judge" and call.charged.completion == 2 for call in judged)
    assert yes_probability(-1000.0, 0.0) == pytest.approx(0.0, abs=1e-300)


def test_a_judge_that_cannot_be_paid_leaves_the_majority() -> None:
    engine = answers("~0.2 #### 1", "~0.9 #### 2", "~0.2 #### 1")
    trace = best(engine, 3, verifier="judge", budget="150-tokens", sampling=Sampling(max_tokens=20))
    assert trace.cost["tokens"] <= 150
    assert (trace.answer, trace.stopped) == ("1", "budget")


def test_a_judge_in_another_role_and_steps_of_a_prm() -> None:
    def prm(question: str, text: str) -> float:
        return 0.1 if "bad" in text else 0.9

    engine = answers("bad\n\nfine #### 1", "good\n\nfine #### 2")
    assert best(engine, 2, prm=prm).answer == "2"
    other = ScriptedEngine(
        lambda request, child, rng: Completion(text="No", tokens=2, labels=(-3.0, -0.1)), name="other"
    )
    trace = best(engine, 2, verifier="judge", models={"judge": other})
    assert trace.resources["judge"] == "other"
    assert trace.rounds[-1].scores == pytest.approx([yes_probability(-3.0, -0.1)] * 2)


def test_confidence_is_the_geometric_mean_of_token_probabilities() -> None:
    def step(*logprobs: float) -> Candidate:
        return Candidate(address=("m", 0, 0), logprobs=logprobs)

    def score(scorer: Confidence, path: Path) -> float | None:
        return asyncio.run(scorer.score(problem(), [path]))[0]

    path = (step(-1.0, -3.0), step(-0.5))
    assert score(Confidence(), path) == pytest.approx(math.exp(-1.5))
    assert score(Confidence(process=True), path) == pytest.approx(math.exp(-0.5))
    assert score(Confidence(), (Candidate(address=("m", 0, 0)),)) is None


def test_confidence_needs_logprobs_and_says_so_before_spending() -> None:
    class Mute(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return EngineSpec(name="mute")

    engine = Mute(lambda request, child, rng: "#### 1")
    with pytest.raises(MissingResource, match="mute gives no token logprobs"):
        best(engine, 2, verifier="confidence")
    with pytest.raises(MissingResource, match="needs a model that can do prefix"):
        run(solve_async(problem(), "rebase", model=engine, prm=lambda question, text: 1.0))


def test_unknown_scorers() -> None:
    with pytest.raises(UnknownName, match="did you mean 'confidence'"):
        make_scorer("confidance")
    with pytest.raises(UsageError, match="Cannot load 'nowhere:thing'"):
        make_scorer("nowhere:thing")
    with pytest.raises(UsageError, match="A verifier is"):
        make_scorer(3)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(MissingResource, match="pass verifier="):
        best(answers("#### 1"), 1)
    with pytest.raises(MissingResource, match="pass prm="):
        run(solve_async(problem(), "rebase", model=answers("#### 1")))


def test_a_scorer_of_the_wrong_length_is_an_error_and_the_majority_stands() -> None:
    class Short:
        async def score(self, problem: Problem, paths: object) -> list[float]:
            return [1.0]

    trace = best(answers("#### 1", "#### 2", "#### 2"), 3, verifier=Short())
    assert (trace.answer, trace.stopped) == ("2", "error")
    assert "1 scores for 2" in (trace.error or "")  # two of the three are equal


# ------------------------------------------------------------------------------------------------ names


def test_names_take_options() -> None:
    assert make_scorer("judge?votes=5") == Judge(votes=5)
    assert make_scorer("judge?votes=3", process=True) == Judge(process=True, votes=3)
    assert make_scorer("judge", process=True) == Judge(process=True)
    assert make_scorer("confidence?") == Confidence()
    assert make_scorer("pairwise?opponents=4") == Pairwise(opponents=4)
    assert make_scorer("tests") == PublicTests()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("judge?vote=5", "no option of judge 'vote'; did you mean 'votes'"),
        ("judge?process=true", "no option of judge 'process'"),
        ("tests?n=1", "no option of tests 'n'; known: none"),
        ("juge?votes=5", "no verifier 'juge'; did you mean 'judge'"),
        ("judge?votes=many", "judge: votes: "),
        ("judge?votes=", "judge: votes: "),
        ("judge?votes", "judge: votes: "),
        ("judge?votes=-1", "judge: votes must be at least 0, not -1"),
        ("pairwise?opponents=0", "pairwise: opponents must be at least 1, not 0"),
    ],
)
def test_options_that_cannot_be(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_scorer(name)


@pytest.mark.parametrize("name", ["pairwise", "tests"])
def test_what_scores_whole_answers_only_is_no_prm(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} scores whole answers and not steps: use it as the verifier"):
        make_scorer(name, process=True)
    assert name in SCORERS


# ------------------------------------------------------------------------------------------------ equal content


class Counted:
    """Scores the length of a text; remembers the texts it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    async def score(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        self.asked += [tuple(segment.text for segment in path) for path in paths]
        return [None if "?" in path[-1].text else float(len(path[-1].text)) for path in paths]


class Reading(Counted):
    reads = frozenset({"answer", "tokens"})


class Relative(Counted):
    relative = True


def texts(*given: str, lane: str = "a", **fields: Any) -> list[Candidate]:
    return [Candidate(address=("model", lane, 0, k), text=text, **fields) for k, text in enumerate(given)]


def with_scores(scorer: Any, use: Any, **resources: Any) -> Any:
    async def go() -> Any:
        meter = Meter(Budget())
        return await use(Scores(scorer, resources, meter), meter)

    return run(go())


def test_equal_content_is_scored_once_and_a_missing_score_is_tried_again() -> None:
    scorer = Counted()

    async def use(scores: Scores, meter: Meter) -> None:
        assert await scores.score(problem(), texts("one", "three", "one", "?")) == (3.0, 5.0, 3.0, None)
        assert scorer.asked == [("one",), ("three",), ("?",)]
        assert await scores.score(problem(), texts("three", "?", "one", "seven")) == (5.0, None, 3.0, 5.0)
        assert scorer.asked[3:] == [("?",), ("seven",)]

    with_scores(scorer, use)


def test_another_question_is_another_content() -> None:
    scorer = Counted()

    async def use(scores: Scores, meter: Meter) -> None:
        await scores.score(problem(), texts("one"))
        await scores.score(problem(text="What is 2+2?"), texts("one"))
        assert len(scorer.asked) == 2

    with_scores(scorer, use)


def test_lanes_share_within_a_call_and_not_between_calls() -> None:
    """Else it would be a matter of timing which of two lanes pays."""
    scorer = Counted()

    async def use(scores: Scores, meter: Meter) -> None:
        await scores.score(problem(), texts("one", lane="a"))
        await scores.score(problem(), texts("one", lane="b"))
        assert len(scorer.asked) == 2
        both = [*texts("one", "two", lane="c"), *texts("one", "two", lane="a")]
        assert await scores.score(problem(), both) == (3.0, 3.0, 3.0, 3.0)
        assert scorer.asked[2:] == [("two",)]

    with_scores(scorer, use)


def test_steps_are_told_apart_by_all_that_came_before() -> None:
    scorer = Counted()

    async def use(scores: Scores, meter: Meter) -> None:
        whole = texts("a\n\nbb\n\nccc", "a\n\nx\n\nccc", "a\n\nbb")
        assert await scores.score_steps(problem(), whole, "\n\n") == [(3.0, 4.0, 3.0), (3.0, 3.0, 3.0), (3.0, 2.0)]
        a, bb, x = "a\n\n", "bb\n\n", "x\n\n"
        assert scorer.asked == [(a,), (a, bb), (a, bb, "ccc"), (a, x), (a, x, "ccc"), (a, "bb")]

    with_scores(scorer, use)


def test_a_scorer_says_what_else_it_reads() -> None:
    scorer = Reading()

    async def use(scores: Scores, meter: Meter) -> None:
        await scores.score(problem(), [*texts("one", answer="1"), *texts("one", answer="2"), *texts("one", answer="1")])
        await scores.score(problem(), texts("one", answer="1", tokens=5))
        assert len(scorer.asked) == 3

    with_scores(scorer, use)


def test_equal_texts_of_different_confidence() -> None:
    async def use(scores: Scores, meter: Meter) -> None:
        sure, unsure = texts("one", logprobs=(-0.1,)), texts("one", logprobs=(-2.0,))
        assert await scores.score(problem(), sure + unsure) == pytest.approx((math.exp(-0.1), math.exp(-2.0)))

    with_scores(Confidence(), use)


def test_a_relative_scorer_sees_all_each_time() -> None:
    scorer = Relative()

    async def use(scores: Scores, meter: Meter) -> None:
        await scores.score(problem(), texts("one", "one"))
        await scores.score(problem(), texts("one"))
        assert scorer.asked == [("one",)] * 3

    with_scores(scorer, use)


def test_a_callable_is_called_once_for_equal_solutions() -> None:
    seen: list[str] = []

    async def use(scores: Scores, meter: Meter) -> None:
        assert await scores.score(problem(), texts("one", "two", "one")) == (1.0, 2.0, 1.0)
        assert sorted(seen) == ["one", "two"]
        assert [call.address for call in meter.calls] == [("verifier", "model", "a", 0, k, 0, 0) for k in (0, 1)]

    async def function(question: str, solution: str) -> float:
        seen.append(solution)
        return float(len(seen))

    async def go() -> None:
        meter = Meter(Budget())
        await use(Scores(FunctionScorer(function), {"meter": meter}, meter), meter)

    run(go())


def test_what_is_known_stands_where_the_rest_cannot_be_paid() -> None:
    class Poor(Counted):
        async def score(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
            if len(self.asked) > 1:
                raise BudgetExhausted("Nothing more fits into the budget.")
            return await super().score(problem, paths)

    async def use(scores: Scores, meter: Meter) -> None:
        await scores.score(problem(), texts("one", "two"))
        assert await scores.score(problem(), texts("one", "three")) == (3.0, None)
        with pytest.raises(BudgetExhausted):
            await scores.score(problem(), texts("three"))

    with_scores(Poor(), use)


# ------------------------------------------------------------------------------------------------ public tests


def coding(*tests: str) -> Problem:
    return Problem(
        id="p",
        messages=(Message(content="Write double(x)."),),
        answer="code",
        code=Code(prelude="import math", entry_point="double", tests=tests),
    )


GOOD, HALF, BAD = (f"def double(x):\n    return {value}" for value in ("2 * x", "4 if x == 2 else 0", "None"))
TESTS = ("assert double(2) == 4", "assert double(3) == 6")


class Box:
    """Stands in for a sandbox: runs code that these tests wrote themselves."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.ran: list[tuple[str, ...]] = []

    async def test(self, answer: str, tests: Sequence[str], *, prelude: str, **_: Any) -> Execution:
        source = "\n".join((prelude, answer, *tests))
        self.ran.append((prelude, answer, *tests))
        if "broken" in source:
            raise EngineError("the sandbox is gone")
        try:
            exec(source, {})
        except Exception as failure:
            return Execution(outcome="failed", stdout="", stderr="", seconds=0.5, error=str(failure))
        return Execution(outcome="ok", stdout="", stderr="", seconds=0.5, error=None)


def passing(question: Problem, candidates: Sequence[Candidate], **budget: float) -> tuple[Any, Meter, Box]:
    async def go() -> tuple[Any, Meter, Box]:
        meter, box = Meter(Budget(budget)), Box()
        executor = MeteredSandbox(box, meter)  # type: ignore[arg-type]  # it has all that is used of a sandbox
        scores = await Scores(PublicTests(), {"sandbox": executor}, meter).score(question, candidates)
        return scores, meter, box

    return run(go())


def answered(*answers: str | None) -> list[Candidate]:
    return [Candidate(address=("model", 0, k), text=f"{answer}", answer=answer) for k, answer in enumerate(answers)]


def test_the_score_is_the_share_of_public_tests_that_pass() -> None:
    scores, meter, box = passing(coding(*TESTS), answered(GOOD, HALF, BAD, GOOD))
    assert scores == (1.0, 0.5, 0.0, 1.0)
    assert len(box.ran) == len(meter.calls) == 1 + 3 + 3  # one program for all tests; where it fails, one for each
    assert box.ran[0] == ("import math", GOOD, *TESTS)
    assert all((call.kind, call.role, call.cost) == ("execute", "sandbox", {UNIT: 0.5}) for call in meter.calls)


def test_a_single_test_is_run_once() -> None:
    scores, meter, _ = passing(coding(TESTS[0]), answered(GOOD, BAD))
    assert scores == (1.0, 0.0)
    assert len(meter.calls) == 2


def test_without_public_tests_or_code_there_is_no_score() -> None:
    assert passing(coding(), answered(GOOD))[0] == (None,)
    with pytest.raises(MissingResource, match="runs code"):
        passing(replace(coding(*TESTS), answer="math"), answered(GOOD))
    scores, _, box = passing(
        coding(*TESTS),
        [
            Candidate(address=("model", 0, 0), text="I do not know."),
            Candidate(address=("model", 0, 1), text=f"```python\n{GOOD}\n```", complete=False, finish="length"),
            Candidate(address=("model", 0, 2), text=f"```python\n{GOOD}\n```"),  # not read yet
        ],
    )
    assert scores == (None, None, 1.0)
    assert len(box.ran) == 1


def test_what_was_not_run_is_not_known_to_fail() -> None:
    scores, meter, _ = passing(coding(*TESTS), answered(GOOD, HALF), **{UNIT: 11.4})
    assert scores == (1.0, None)  # there was room for one after the other, and at the end for none
    assert meter.cost()[UNIT] <= 11.4
    scores, *_ = passing(coding(*TESTS), answered("broken", GOOD))
    assert scores == (None, 1.0)


def test_the_answer_counts_and_not_only_the_text() -> None:
    a, b = answered(GOOD, BAD)
    scores, *_ = passing(coding(*TESTS), [replace(a, text="see above"), replace(b, text="see above")])
    assert scores == (1.0, 0.0)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="programs run in bubblewrap only")
def test_public_tests_choose_the_code_that_runs() -> None:
    replies = [f"```python\n{code}\n```" for code in (BAD, "import os\nos._exit(0)", HALF, GOOD, "while True: pass")]

    async def go() -> Trace:
        sandbox = Sandbox(Limits(seconds=2.0))
        try:
            return await solve_async(
                coding(*TESTS),
                make_strategy("best_of_n", {"n": 5}),
                model=ScriptedEngine(lambda request, child, rng: replies[child]),
                verifier="tests",
                sandbox=sandbox,
            )
        finally:
            await sandbox.close()

    trace = asyncio.run(go())
    assert trace.rounds[-1].scores == (0.0, 0.0, 0.5, 1.0, 0.0)
    assert trace.answer == GOOD
    executed = next(line for line in trace.ledger() if line.kind == "execute")
    assert (executed.kind, executed.role, executed.calls) == ("execute", "sandbox", 1 + 4 * 3)
    assert 0 < executed.cost[UNIT] <= 2.0 * executed.calls


@pytest.mark.parametrize(
    ("segments", "left"),
    [
        (("a\n\n", "b"), ("a\n\n", "b")),
        (("<think>x</think>a\n\n", "b"), ("a\n\n", "b")),
        (("<think>x\n\n", "y</think>a\n\n", "b"), ("a\n\n", "b")),
        (("<think>x\n\n", "y\n\n"), ("<think>x\n\n", "y\n\n")),  # nothing else has been said yet
        (("<think>x\n\n", "y</think>\n\n"), ("<think>x\n\n", "y</think>\n\n")),
        (("a<think>x</think>\n\n", "b"), ("a\n\nb",)),
    ],
)
def test_what_is_judged_of_a_path_is_what_was_said(segments: tuple[str, ...], left: tuple[str, ...]) -> None:
    path = tuple(chain(*segments))
    kept = said_part(path)
    assert tuple(segment.text for segment in kept) == left
    assert kept[-1].id == path[-1].id
    assert all(one.logprobs is None or one in path for one in kept)
