"""Judges: labels, written verdicts, and comparisons of pairs."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.answers.reader import Reader
from outthink.driver import solve_async
from outthink.errors import BudgetExhausted, EngineError, MissingResource, NothingCameBack, PromptTooLong
from outthink.maths.tournament import pairs
from outthink.meter import Meter
from outthink.model import Attempt, Models
from outthink.models.engine import Completion, EngineSpec, Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.rewards.judge import Judge, verdict, yes_probability
from outthink.rewards.pairwise import Pairwise
from outthink.rewards.scores import Scores
from outthink.strategies.making import make_strategy
from outthink.types import Budget, Candidate, Problem, Sampling, Trace, Usage
from tests.tools.toys import problem
from tests.tools.virtual import run


class Writer(ScriptedEngine):
    """A model that cannot give the probability of a label."""

    @property
    def spec(self) -> EngineSpec:
        return replace(super().spec, powers=frozenset({"seed"}))


def sample(text: str, number: int = 0, *lane: str | int) -> Candidate:
    return Candidate(address=("model", *lane, 0, number), text=text, tokens=len(text))


async def scored(
    scorer: Any, engine: ScriptedEngine, texts: Sequence[str], budget: str = "", max_tokens: int = 40
) -> tuple[tuple[float | None, ...], Meter]:
    meter = Meter(Budget.parse(budget) if budget else Budget())
    reader = Reader()
    question = problem()
    shared = Attempt(
        problem=question, meter=meter, seed=0, sampling=Sampling(max_tokens=max_tokens), read_answer=reader.read
    )
    scores = Scores(scorer, {"models": Models({"model": engine}, shared)}, meter)
    try:
        values = await scores.score(question, [sample(text, number) for number, text in enumerate(texts)])
    finally:
        await reader.close()
    return values, meter


def score(scorer: Any, reply: Reply, *texts: str, **options: Any) -> tuple[tuple[float | None, ...], Meter]:
    return run(scored(scorer, Writer(reply), texts, **options))


# ------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It adds up.\nVerdict: Yes", "Yes"),
        ("verdict: no", "No"),
        ("**Verdict:** Yes.", "Yes"),
        ("### Verdict: **NO**\n", "No"),
        ("_Verdict: Yes_\r\n\r\n", "Yes"),
        ("> - `Verdict`: `yes`!", "Yes"),
        ("Verdict: No\nOn reflection:\nVerdict: Yes\nThank you.", "Yes"),
        ("<think>\nVerdict: No\n</think>\nVerdict: Yes", "Yes"),
        ("<think>\nVerdict: No\n</think>\nWho knows?", None),
        ("Verdict: Yes or No", None),
        ("Verdict: Yes/No", None),
        ("Verdict: Yesterday", None),
        ("The verdict: Yes", None),
        ("Verdict:\nYes", None),
        ("Yes", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_last_line_that_is_nothing_else(text: str, said: str | None) -> None:
    assert verdict(text, ("Yes", "No")) == said


def test_the_share_of_yes_in_the_mass_of_both_labels() -> None:
    assert yes_probability(-0.2, -2.0) == pytest.approx(0.858149, abs=5e-7)
    assert yes_probability(-3.0, -3.0) == 0.5
    assert yes_probability(-1e4, -0.1) == pytest.approx(0.0, abs=1e-300)


def counting(yes: int, no: int) -> Reply:
    """The first `yes` votes say Yes, the next `no` votes No, and all others nothing."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        assert not request.labels
        return "Verdict: Yes" if child < yes else "Verdict: No" if child < yes + no else "I cannot tell."

    return reply


@pytest.mark.parametrize(
    ("votes", "yes", "no", "expected"),
    [(5, 3, 2, 0.6), (5, 3, 0, 1.0), (8, 1, 3, 0.25), (4, 0, 4, 0.0), (4, 0, 0, None)],
)
def test_votes_are_the_share_of_yes_among_the_verdicts_there_are(
    votes: int, yes: int, no: int, expected: float | None
) -> None:
    scores, meter = score(Judge(votes=votes), counting(yes, no), "#### 1")
    assert scores == (expected,)
    (call,) = meter.calls
    assert (call.kind, call.role, call.n, call.failed) == ("judge", "judge", votes, 0)
    length = len("Verdict: Yes") * yes + len("Verdict: No") * no + len("I cannot tell.") * (votes - yes - no)
    assert call.charged.completion == length
    assert call.exact


@pytest.mark.parametrize(("votes", "n", "temperature"), [(0, 1, 0.0), (1, 1, 0.0), (2, 2, 0.6)])
def test_one_vote_is_greedy_and_several_are_sampled_in_one_request(votes: int, n: int, temperature: float) -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request)
        return "Verdict: No"

    assert score(Judge(votes=votes), reply, "#### 1")[0] == (0.0,)
    assert [(request.n, request.temperature) for request in asked] == [(n, temperature)] * n


def test_a_model_that_can_give_labels_is_asked_for_words_only_where_votes_are_wanted() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        if request.labels:
            return Completion(text="Yes", tokens=2, labels=(-0.2, -2.0))
        return "Verdict: No"

    engine = ScriptedEngine(reply)
    assert run(scored(Judge(), engine, ["#### 1"]))[0] == pytest.approx((0.858149,), abs=5e-7)
    assert run(scored(Judge(votes=1), engine, ["#### 1"]))[0] == (0.0,)


def test_verdicts_that_were_cut_off_or_failed_do_not_count() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        said = ["Verdict: Yes\n" + "and so on " * 9, "Verdict: No", "lost", "Verdict: Yes"]
        return EngineError("the connection was lost") if said[child] == "lost" else said[child]

    scores, meter = score(Judge(votes=4), reply, "#### 1")
    assert scores == (0.5,)
    assert sum(call.failed for call in meter.calls) == 1


def test_a_judge_that_fails_altogether_says_so() -> None:
    with pytest.raises(NothingCameBack, match="the endpoint is gone"):
        score(Judge(votes=2), lambda request, child, rng: EngineError("the endpoint is gone"), "#### 1", "#### 2")


@pytest.mark.parametrize("limit", [100, 300, 700, 1500, 4000])
def test_votes_stay_within_the_budget_and_what_was_not_judged_has_no_score(limit: int) -> None:
    solutions = [f"#### {number}" for number in range(6)]
    try:
        scores, meter = score(Judge(votes=3), counting(2, 1), *solutions, budget=f"{limit}-tokens")
    except BudgetExhausted:
        assert limit == 100
        return
    assert meter.cost()["tokens"] <= limit
    judged = sum(one is not None for one in scores)
    assert set(scores[judged:]) <= {None}  # decided in order
    assert judged == sum(call.address[-1] == 0 for call in meter.calls)
    assert judged == 6 or meter.refused


def test_a_solution_too_long_for_the_judge_does_not_cost_the_others() -> None:
    class Narrow(Writer):
        async def bound(self, request: Request) -> Usage:
            usage = await super().bound(request)
            if usage.prompt > 400:
                raise PromptTooLong("too long")
            return usage

    engine = Narrow(counting(1, 0))
    scores, _ = run(scored(Judge(), engine, ["short", "x" * 400, "y" * 500, "brief"]))
    assert scores == (1.0, None, None, 1.0)
    with pytest.raises(PromptTooLong):
        run(scored(Judge(), engine, ["x" * 400]))


def noisy(request: Request, child: int, rng: np.random.Generator) -> str:
    if request.address[0] == "judge":
        return f"Verdict: {'Yes' if rng.random() < 0.5 else 'No'}"
    return f"#### {int(rng.integers(1000))}"


def test_votes_do_not_depend_on_what_finishes_first() -> None:
    def solved(latency: Callable[[Request, int], float] | None) -> Trace:
        engine = Writer(noisy, latency=latency)
        strategy = make_strategy("revision", {"n": 6, "ratio": 0.6666666666666666})
        return run(solve_async(problem(), strategy, model=engine, verifier="judge?votes=5", seed=3))

    delays = random.Random(1)
    first, second = solved(None), solved(lambda request, child: delays.random())
    assert [answered.scores for answered in first.rounds] == [answered.scores for answered in second.rounds]
    assert [call.address for call in first.calls] == [call.address for call in second.calls]
    assert len({score for answered in first.rounds for score in answered.scores or ()}) > 2


def test_a_verdict_knows_what_it_is_about() -> None:
    trace = run(
        solve_async(
            problem(), make_strategy("best_of_n", {"n": 3}), model=Writer(noisy), verifier="judge?votes=2", seed=1
        )
    )
    judged = Counter(candidate.parents for candidate in trace.candidates if candidate.address[0] == "judge")
    assert {parent for (parent,) in judged} == set(trace.rounds[-1].candidates)
    assert set(judged.values()) == {2}


def test_a_verdict_is_never_an_answer() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address[0] == "judge":
            return "The answer is 7.\nVerdict: Yes"
        return "I do not know."

    trace = run(
        solve_async(problem(), make_strategy("best_of_n", {"n": 3}), model=Writer(reply), verifier="judge?votes=3")
    )
    assert trace.rounds[-1].scores == (1.0, 1.0, 1.0)
    assert (trace.answer, trace.key) == (None, None)
    assert all(candidate.key is None for candidate in trace.candidates)


def test_steps_are_asked_about_as_steps() -> None:
    asked: list[str] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address[0] != "judge":
            return "one\n\ntwo\n\n#### 3"
        asked.append(request.messages[-1].text)
        return "Verdict: No" if "two" in request.messages[-1].text else "Verdict: Yes"

    trace = run(
        solve_async(
            problem(),
            make_strategy("best_of_n", {"n": 1, "aggregate": "mean"}),
            model=Writer(reply),
            prm="judge?votes=1",
        )
    )
    assert trace.rounds[-1].scores == pytest.approx((1 / 3,))
    assert all("Check the last step." in text for text in asked)
    assert [text.count("two") for text in asked] == [0, 1, 1]


# ------------------------------------------------------------------------------------------------ pairs


def shown(request: Request) -> tuple[str, str]:
    match = re.search(r"Solution A:\n(.*)\n\nSolution B:\n(.*)\n\nCheck both", request.messages[-1].text, re.DOTALL)
    assert match is not None
    return match[1], match[2]


def labels(p: float) -> Completion:
    return Completion(text="A", tokens=2, labels=(math.log(p), math.log(1 - p)))


def by_strength(request: Request, child: int, rng: np.random.Generator) -> Completion:
    """Prefers A with the odds of the numbers in both, and has a weakness for what comes first."""
    a, b = (float(text.split()[-1]) for text in shown(request))
    return labels(min(0.1 + 0.8 * a / (a + b) + 0.1, 0.999))


def compare(reply: Reply, *texts: str, opponents: int | None = None, **options: Any) -> tuple[Any, Meter]:
    return run(scored(Pairwise(opponents=opponents), ScriptedEngine(reply), texts, **options))


@pytest.mark.parametrize("engine", [ScriptedEngine, Writer])
@pytest.mark.parametrize("opponents", [None, 1, 2])
def test_a_judge_that_prefers_what_comes_first_prefers_nothing(
    engine: type[ScriptedEngine], opponents: int | None
) -> None:
    def first(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        return labels(0.93) if request.labels else "I like the first.\nVerdict: A"

    scores, _ = run(scored(Pairwise(opponents=opponents), engine(first), ["#### 1", "#### 2", "#### 3", "#### 4"]))
    assert scores == pytest.approx((0.5,) * 4)


def test_a_score_is_the_mean_preference_of_both_orders() -> None:
    scores, meter = compare(by_strength, "#### 1", "#### 2", "#### 5")
    # the weakness for the first place cancels: 0.1 + 0.8 a / (a + b) remains
    one, two, five = (
        0.1 + 0.8 * np.mean([a / (a + b) for b in others]) for a, others in ((1, (2, 5)), (2, (1, 5)), (5, (1, 2)))
    )
    assert scores == pytest.approx((one, two, five))
    assert sum(scores) == pytest.approx(1.5)  # every comparison hands out one point
    assert len(meter.calls) == 6
    assert all((call.kind, call.role, call.charged.completion) == ("judge", "judge", 2) for call in meter.calls)


@pytest.mark.parametrize("opponents", [None, 1, 2, 3])
def test_the_order_of_the_solutions_does_not_matter(opponents: int | None) -> None:
    texts = [f"#### {number}" for number in (3, 1, 4, 15, 9, 2, 6)]
    scores, meter = compare(by_strength, *texts, opponents=opponents)
    expected = dict(zip(texts, scores, strict=True))
    for seed in range(5):
        shuffled = random.Random(seed).sample(texts, len(texts))
        again, _ = compare(by_strength, *shuffled, opponents=opponents)
        assert dict(zip(shuffled, again, strict=True)) == expected
    if opponents is not None:
        assert len(meter.calls) == 2 * math.ceil(7 * opponents / 2)


@given(st.integers(2, 40), st.one_of(st.none(), st.integers(1, 45)))
def test_everyone_meets_as_many_others(n: int, opponents: int | None) -> None:
    met = pairs(n, opponents)
    assert len({frozenset(pair) for pair in met}) == len(met)
    assert all(one != other for one, other in met)
    games = Counter(player for pair in met for player in pair)
    wanted = n - 1 if opponents is None else min(opponents, n - 1)
    assert sorted(games) == list(range(n))
    assert sorted(games.values())[:-1] == [wanted] * (n - 1)
    assert max(games.values()) == wanted + (n * wanted) % 2


def test_equal_solutions_are_one_and_a_single_one_is_not_compared() -> None:
    scores, meter = compare(by_strength, "#### 1", "#### 3", "#### 1  \n\n", "#### 1")
    assert scores == pytest.approx((0.1 + 0.8 / 4, 0.1 + 0.8 * 3 / 4, 0.1 + 0.8 / 4, 0.1 + 0.8 / 4))
    assert len(meter.calls) == 2
    scores, meter = compare(by_strength, "#### 1", "\n#### 1\n")
    assert scores == (0.5, 0.5)
    assert not meter.calls


def test_a_lost_order_leaves_the_other_and_a_lost_pair_leaves_none() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion | EngineError:
        a, b = shown(request)
        lost = "#### 9" in (a, b) or (a, b) == ("#### 2", "#### 1")
        return EngineError("lost") if lost else by_strength(request, child, rng)

    scores, _ = compare(reply, "#### 1", "#### 2", "#### 9")
    only = min(0.1 + 0.8 / 3 + 0.1, 0.999)  # 1 before 2
    assert scores == pytest.approx((only, 1 - only, None))


def test_written_comparisons_without_a_verdict_are_missing() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        a, b = shown(request)
        if "#### 9" in (a, b):
            return "Both are fine."
        return f"Verdict: {'A' if a < b else 'B'}"

    scores, _ = score(Pairwise(), reply, "#### 1", "#### 2", "#### 9")
    assert scores == (1.0, 0.0, None)


@pytest.mark.parametrize("limit", [150, 400, 800, 2000])
def test_comparisons_stay_within_the_budget(limit: int) -> None:
    texts = [f"#### {number}" for number in range(1, 6)]
    try:
        scores, meter = compare(by_strength, *texts, budget=f"{limit}-tokens")
    except BudgetExhausted:
        assert limit == 150
        return
    assert meter.cost()["tokens"] <= limit
    assert all(one is None or 0 <= one <= 1 for one in scores)
    assert any(one is not None for one in scores)


def test_a_preference_depends_on_the_others_and_is_not_kept() -> None:
    async def go() -> None:
        meter = Meter(Budget())
        reader = Reader()
        shared = Attempt(problem=problem(), meter=meter, seed=0, sampling=Sampling(), read_answer=reader.read)
        models = Models({"model": ScriptedEngine(by_strength)}, shared)
        scores = Scores(Pairwise(), {"models": models}, meter)
        (_, two) = await scores.score(problem(), [sample("#### 1", 0), sample("#### 2", 1)])
        (_, same) = await scores.score(problem(), [sample("#### 8", 2), sample("#### 2", 1)])
        assert two == pytest.approx(0.1 + 0.8 * 2 / 3)
        assert same == pytest.approx(0.1 + 0.8 * 2 / 10)
        await reader.close()

    asyncio.run(go())


def test_the_best_by_pairs_is_chosen() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        return by_strength(request, child, rng) if request.labels else ["#### 1", "#### 7", "#### 2"][child]

    question = Problem(id="p", messages=problem().messages)
    trace = run(
        solve_async(question, make_strategy("best_of_n", {"n": 3}), model=ScriptedEngine(reply), verifier="pairwise")
    )
    assert trace.answer == "7"


# ---- thinking longer ------------------------------------------------------------------------------------------------

WAIT = "\n\nWait, let me check that again.\n\n"


def waited(waits: int, verdicts: Sequence[str], **options: Any) -> tuple[tuple[float | None, ...], list[Request]]:
    """The scores of one solution by checks that say these verdicts one after the other, and what was asked."""
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        asked.append(request)
        said = verdicts[request.prefix_text.count(WAIT)]
        return EngineError("lost") if said == "lost" else f"Hm.\nVerdict: {said}"

    scores, _ = run(scored(Judge(waits=waits, **options), ScriptedEngine(reply), ["#### 2"], max_tokens=100))
    return scores, asked


def test_a_check_that_is_made_to_go_on_counts_by_its_last_verdict() -> None:
    said = ["Yes", "No", "Yes"]
    for waits, expected in ((0, 1.0), (1, 0.0), (2, 1.0)):
        scores, asked = waited(waits, said, votes=1)
        assert scores == (expected,)
        assert len(asked) == waits + 1
        for number, request in enumerate(asked):
            assert request.messages == asked[0].messages
            assert request.prefix_text == "".join(f"Hm.\nVerdict: {word}{WAIT}" for word in said[:number])
            assert request.temperature == 0.0


def test_without_a_further_verdict_the_earlier_one_stands() -> None:
    assert waited(1, ["Yes", "perhaps"], votes=1)[0] == (1.0,)
    assert waited(2, ["No", "lost", "Yes"], votes=1)[0] == (0.0,)


def test_waiting_is_writing_also_where_the_judge_can_give_labels_and_goes_with_votes() -> None:
    scores, asked = waited(1, ["No", "Yes"])
    assert (scores, len(asked)) == ((1.0,), 2)
    scores, asked = waited(1, ["No", "Yes"], votes=3)
    assert scores == (1.0,)
    assert len(asked) == 6  # each check of both requests
    assert {request.temperature for request in asked} == {0.6}


def test_a_judge_that_cannot_go_on_with_a_text_is_refused() -> None:
    class Plain(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return replace(super().spec, powers=frozenset())

    with pytest.raises(MissingResource, match="cannot be made to wait"):
        run(scored(Judge(waits=1), Plain(lambda request, child, rng: "Verdict: Yes"), ["#### 2"]))
    with pytest.raises(ValueError, match="waits must be at least 0"):
        Judge(waits=-1)
