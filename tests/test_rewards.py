from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from outthink.driver import make_strategy, solve_async
from outthink.errors import MissingResource, UnknownName, UsageError
from outthink.models.engine import Completion, EngineSpec, Request
from outthink.models.scripted import ScriptedEngine
from outthink.rewards import Path, make_scorer
from outthink.rewards.confidence import Confidence
from outthink.rewards.judge import yes_probability
from outthink.types import Candidate, Problem, Sampling, Trace
from tests.toys import problem
from tests.virtual import run


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
    assert "1 scores for 3" in (trace.error or "")
