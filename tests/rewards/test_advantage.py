"""Value plus advantage: the numbers, what is charged where, and a scorer inside another one."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.driver import solve_async
from outthink.errors import BudgetExhausted, EngineError, MissingResource, NothingCameBack, UsageError
from outthink.maths.selection import weighted_vote
from outthink.model import Model
from outthink.models.engine import EngineSpec, Request
from outthink.models.scripted import ScriptedEngine
from outthink.rewards import Path
from outthink.rewards.advantage import Advantage, effective_reward, prover_value, relative_progress, to_unit
from outthink.rewards.making import close_scorer, make_scorer
from outthink.rewards.rollout import Rollout
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.making import make_strategy
from outthink.strategies.search.loop import Rounds, search
from outthink.types import Candidate, Problem, Sampling, Trace
from tests.strategies.search.test_search import decided, noise, steps
from tests.tools.scoring import chain, scored
from tests.tools.toys import problem
from tests.tools.virtual import run

SILENT = ScriptedEngine(lambda request, child, rng: "")

# ------------------------------------------------------------------------------------------------ the numbers


def test_values_of_the_best_of_four() -> None:
    assert prover_value([0.55, 0.50, 0.25, 0.45], 4) == pytest.approx([0.95899, 0.93750, 0.68359, 0.90849], abs=5e-6)


def test_progress_turns_the_choice() -> None:
    """From a state of .55 a step to .50, from one of .25 a step to .45: by value the first, by reward the second."""
    q, before = np.array([0.50, 0.45]), np.array([0.55, 0.25])
    assert effective_reward(q, before, alpha=1.0, k=1) == pytest.approx([0.45, 0.65])
    assert effective_reward(q, before, alpha=1.0, k=4) == pytest.approx([0.47851, 0.67490], abs=5e-6)
    assert effective_reward(q, before, alpha=0.0, k=4).tolist() == [0.50, 0.45]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.integers(1, 40))
def test_advantages_along_a_path_sum_to_what_the_prover_gained(values: list[float], k: int) -> None:
    q = np.array(values)
    advantages = effective_reward(q[1:], q[:-1], alpha=1.0, k=k) - q[1:]
    assert advantages.sum() == pytest.approx(float(prover_value(q[-1], k) - prover_value(q[0], k)), abs=1e-9)
    if k == 1:
        assert advantages == pytest.approx(np.diff(q), abs=1e-12)  # of the policy itself


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 10), st.integers(1, 40))
def test_a_reward_has_its_place_in_the_range(q: float, before: float, alpha: float, k: int) -> None:
    reward = float(effective_reward(q, before, alpha=alpha, k=k))
    assert -1e-12 <= float(to_unit(reward, alpha)) <= 1 + 1e-12
    assert float(to_unit(reward + 0.01, alpha)) > float(to_unit(reward, alpha))


def test_a_prover_that_is_too_strong_says_nothing() -> None:
    assert effective_reward(0.5, 0.3, alpha=1.0, k=100) == pytest.approx(0.5, abs=1e-9)


# ------------------------------------------------------------------------------------------------ the scorer


@dataclass
class Values:
    """Values by the last step's text; remembers what it was asked for, and whether it was closed."""

    known: dict[str, float | None]
    asked: list[str]
    closed: int = 0
    reads = frozenset({"tokens"})
    spec = EngineSpec(name="values")

    async def score(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        self.asked += [path[-1].text for path in paths]
        return [self.known[path[-1].text.strip()] for path in paths]

    async def close(self) -> None:
        self.closed += 1


def values(**known: float | None) -> Values:
    return Values(known, [])


def rewards(scorer: Advantage, *paths: list[Candidate], **options: Any) -> tuple[float | None, ...]:
    return scored(scorer, SILENT, paths, **options)[0]


def test_the_reward_of_a_step_is_its_value_and_its_advantage() -> None:
    one, two = chain("s", "a"), chain("t", "b")
    known = values(s=0.55, a=0.50, t=0.25, b=0.45)
    assert rewards(Advantage(prm=known), one, two) == pytest.approx((1.47851 / 3, 1.67490 / 3), abs=5e-6)
    assert rewards(Advantage(prm=known, k=1, alpha=2.0), one, two) == pytest.approx((2.40 / 5, 2.85 / 5))
    assert rewards(Advantage(prm=known, alpha=0.0), one, two) == (0.50, 0.45)
    assert known.asked[:4] == ["a", "b", "s", "t"]  # one batch


def test_relative_progress_is_a_label() -> None:
    assert relative_progress([0.3, 0.45, 0.0, 0.4], [0.5, 0.5, 0.5, 0.0], 0.8).tolist() == [0, 1, 0, 0]
    one, two, three = chain("s", "a"), chain("s", "b"), chain("s", "c", done=True)
    known = values(s=0.5, a=0.3, b=0.45, c=0.1)
    # a path that has ended has its value, a first step the label of one that changes nothing
    assert rewards(Advantage(prm=known, relative_bound=0.8), one, two, three, chain("s")) == (0.0, 1.0, 0.1, 1.0)
    with pytest.raises(ValueError, match="relative_bound must be a number above 0"):
        Advantage(prm=known, relative_bound=0.0)


def test_a_first_step_is_not_charged_and_first_steps_keep_their_order() -> None:
    scores = rewards(Advantage(prm=values(s=0.55, t=0.25)), chain("s"), chain("t"))
    assert scores == pytest.approx((1.55 / 3, 1.25 / 3))
    ordered = np.linspace(0, 1, 11)
    charged = effective_reward(ordered, 0.4, alpha=1.0, k=4)  # whatever the value of the question is
    assert (np.diff(charged) > 0).all()


def test_an_answer_is_scored_by_its_value() -> None:
    known = values(s=0.9, a=0.6, b=0.7)
    scores = rewards(Advantage(prm=known), chain("s", "a", done=True), chain("s", "b", done=True), chain("s", "a"))
    worse = 0.6 + float(prover_value(0.6, 4) - prover_value(0.9, 4))
    assert scores == pytest.approx((0.6, 0.7, (worse + 1) / 3))
    assert known.asked == ["a", "b", "s"]  # of answers, nothing before is asked; equal texts are asked once


def test_one_answer_of_great_value_outvotes_three_of_small_value() -> None:
    known = values(a=0.95, b=0.05)
    answers = [chain("a", done=True), *(chain("b", done=True) for _ in range(3))]
    weights = np.array(rewards(Advantage(prm=known), *answers), dtype=float)
    assert weights.tolist() == [0.95, 0.05, 0.05, 0.05]
    assert int(weighted_vote([0, 1, 1, 1], weights).index) == 0


def test_what_is_missing_leaves_the_reward_missing() -> None:
    known = values(s=None, t=0.5, a=0.6, b=None)
    paths = chain("s", "a"), chain("t", "b"), chain("t", "a"), chain("s")
    scores = rewards(Advantage(prm=known, k=1), *paths)
    assert scores == pytest.approx((None, None, (0.6 + 0.1 + 1) / 3, None))


def test_what_came_before_is_not_scored_again() -> None:
    known = values(s=0.55, a=0.50, b=0.4)
    first, one, other = chain("s"), chain("s", "a"), chain("s", "b")
    rewards(Advantage(prm=known), one, other, before=[[first], [one]])
    assert known.asked == ["s", "a", "b"]


def test_values_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(EngineError, match=r"must give scores in \[0, 1\], and one is -0.5"):
        rewards(Advantage(prm=values(s=0.5, a=-0.5)), chain("s", "a"))


def test_it_says_what_the_prm_says_of_itself() -> None:
    scorer = Advantage(prm=values())
    assert scorer.reads == {"tokens", "complete", "finish"}
    assert scorer.spec == EngineSpec(name="values")
    assert scorer.relative is False
    assert Advantage(prm=Rollout(verifier="pairwise")).relative is True


# ------------------------------------------------------------------------------------------------ nested options


def test_options_of_the_scorer_inside_are_written_with_its_own_marks_or_encoded() -> None:
    for text in ("advantage?prm=judge?votes=3&alpha=2", f"advantage?alpha=2&prm={quote('judge?votes=3')}"):
        assert make_scorer(text, process=True) == Advantage(prm="judge?votes=3", alpha=2.0)
    inner = "rollout?m=8&verifier=judge?votes=3"
    for text in ("advantage?prm=rollout?m=8%26verifier=judge?votes=3&k=2", f"advantage?k=2&prm={quote(inner)}"):
        assert make_scorer(text, process=True) == Advantage(prm=inner, k=2)
    deepest = f"rollout?verifier={quote('critique?k=4&meta=judge?votes=2')}&m=1"
    made: Any = make_scorer(f"advantage?prm={quote(deepest)}", process=True)
    assert make_scorer(made.prm, process=True) == Rollout(verifier="critique?k=4&meta=judge?votes=2", m=1)


@pytest.mark.parametrize(
    ("name", "process", "said"),
    [
        ("advantage", True, "advantage: prm: Field required"),
        ("advantage?prm=judge", False, "advantage: it scores steps and not whole answers"),
        ("advantage?prm=jugde", True, "did you mean 'judge'"),
        ("advantage?prm=judge?vote=1", True, "no option of judge 'vote'"),
        ("advantage?prm=pairwise", True, "pairwise scores whole answers and not steps"),
        ("advantage?prm=judge&alpha=-1", True, "alpha must be a number of at least 0"),
        ("advantage?prm=judge&alpha=nan", True, "alpha must be a number of at least 0"),
        ("advantage?prm=judge&k=0", True, "k must be at least 1"),
    ],
)
def test_options_that_cannot_be(name: str, process: bool, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_scorer(name, process=process)


def test_closing_reaches_the_innermost_and_only_what_was_opened_here(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = values()
    run(close_scorer(Advantage(prm=mine)))
    assert mine.closed == 0
    closed: list[str] = []

    async def close(self: Any) -> None:
        closed.append(self.spec.name)

    monkeypatch.setattr("outthink.rewards.remote.RemoteScorer.close", close)
    inner = f"rollout?m=2&verifier={quote('http://host:1/score#model')}"
    made = make_scorer(f"advantage?prm={quote(inner)}", process=True)
    run(close_scorer(made))
    assert closed == ["model"]


def test_resources_of_the_innermost_are_asked_for() -> None:
    class Needy:
        async def score(self, problem: Problem, paths: Any, *, retriever: Any, rng: Rng, embedder: Any = None) -> Any:
            return [1.0] * len(paths)

    scorer = Advantage(prm=Rollout(verifier=Needy()))
    with pytest.raises(MissingResource, match="The prm needs 'retriever': pass resources="):
        run(solve_async(problem(), "rebase", model=SILENT, prm=scorer))
    strategy = make_strategy("rebase", {"width": 2})
    trace = run(
        solve_async(
            problem(), strategy, model=ScriptedEngine(steps), prm=scorer, resources={"retriever": object()}, seed=1
        )
    )
    assert trace.rounds[-1].scores == pytest.approx((1.0,) * len(trace.rounds[-1].candidates))  # Q = 1 at the end


# ------------------------------------------------------------------------------------------------ in a search


def value(question: str, solution: str) -> float:
    return 0.05 + 0.9 * noise(solution)


def solved(prm: Any, latency: Callable[[Request, int], float] | None = None, **options: Any) -> Trace:
    engine = ScriptedEngine(steps, latency=latency)
    strategy = make_strategy("rebase", {"width": 6})
    return run(solve_async(problem(), strategy, model=engine, prm=prm, **{"seed": 4, **options}))


def test_without_weight_it_is_the_prm() -> None:
    assert decided(solved(Advantage(prm=value, alpha=0.0)))[:2] == decided(solved(value))[:2]
    assert solved(Advantage(prm=value)).candidates != solved(value).candidates


def test_the_value_of_every_step_is_asked_once() -> None:
    """A parent has been scored before its children, so that the advantage costs nothing more."""
    asked: list[str] = []

    def counting(question: str, solution: str) -> float:
        asked.append(solution)
        return value(question, solution)

    trace = solved(Advantage(prm=counting))
    assert len(asked) == len(set(asked))
    assert len(asked) == len({trace.whole_text(candidate.id) for candidate in trace.candidates})


@dataclass(frozen=True, kw_only=True)
class Independent:
    """Paths with one child each, and the best of them."""

    n: int = 5

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        policy = Rounds(lambda level: np.ones(len(level.nodes), dtype=np.int64), self.n, max_rounds=9)
        await search(
            policy,
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=64,
            delimiter="\n\n",
            choose="best",
        )


def test_with_one_proposal_a_step_it_is_best_of_n_by_the_final_value() -> None:
    prms: list[Any] = [value, *(Advantage(prm=value, alpha=alpha) for alpha in (0.0, 0.5, 5.0))]
    traces = [run(solve_async(problem(), Independent(), model=ScriptedEngine(steps), prm=prm, seed=2)) for prm in prms]
    final = traces[0].rounds[-1]
    assert len(final.candidates) == 5
    best = max(final.candidates, key=lambda one: value("", traces[0].whole_text(one)))
    assert [trace.rounds[-1].chosen for trace in traces] == [best] * 4
    assert all(trace.rounds[-1].candidates == final.candidates for trace in traces)


@pytest.mark.parametrize("prm", ["advantage?prm=confidence", "advantage?prm=rollout?m=2&alpha=0.5&k=2"])
def test_it_does_not_depend_on_what_finishes_first(prm: str) -> None:
    delays = random.Random(1)
    first, second = solved(prm), solved(prm, lambda request, child: delays.random())
    assert first.candidates == second.candidates
    assert [answered.scores for answered in first.rounds] == [answered.scores for answered in second.rounds]
    assert [call.address for call in first.calls] == [call.address for call in second.calls]


def test_one_scorer_serves_many_problems_and_keeps_nothing_of_them() -> None:
    scorer = Advantage(prm=value)
    first = solved(scorer)
    assert decided(solved(scorer)) == decided(first)  # nothing is known from before
    gc.collect()
    assert len(scorer._inner._known) == 0


@pytest.mark.parametrize("limit", [150, 400, 1000])
def test_a_search_stays_within_the_budget_and_still_answers(limit: int) -> None:
    trace = solved("advantage?prm=rollout?m=2", budget=f"{limit}-tokens", sampling=Sampling(max_tokens=60))
    assert trace.cost["tokens"] <= limit
    assert trace.stopped == "budget"


def test_a_prm_that_dies_leaves_the_search_without_scores() -> None:
    class Dead:
        async def score(self, problem: Problem, paths: Any) -> Any:
            raise NothingCameBack("the endpoint is gone")

    class Poor:
        async def score(self, problem: Problem, paths: Any) -> Any:
            raise BudgetExhausted("Nothing more fits into the budget.")

    for prm in (Dead(), Poor()):
        trace = solved(Advantage(prm=prm))
        assert trace.answer is not None
        assert set(trace.rounds[-1].scores or ()) == {None}
    with pytest.raises(NothingCameBack, match="the endpoint is gone"):
        rewards(Advantage(prm=Dead()), chain("s"))


def test_finished_samples_are_scored_by_value() -> None:
    """Best-of-N with the scorer is best-of-N with its PRM: an answer has no progress."""
    engine = ScriptedEngine(lambda request, child, rng: f"{child}\n\n{rng.integers(9)}\n\n#### {child}")
    strategy = make_strategy("best_of_n", {"n": 6})
    plain, charged = (
        run(solve_async(problem(), strategy, model=engine, prm=prm, seed=1)) for prm in (value, Advantage(prm=value))
    )
    assert charged.answer == plain.answer
    assert charged.rounds[-1].scores == pytest.approx(plain.rounds[-1].scores)
    assert len(plain.rounds[-1].scores or ()) == 6
