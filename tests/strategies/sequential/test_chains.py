"""Chains of attempts: revision and self-refine, what they are shown, when they end, and which attempt is chosen."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.driver import solve_async
from outthink.errors import EngineError, MissingResource, UsageError
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.sequential.chains import lengths, repeats
from outthink.strategies.sequential.revision import Revision
from outthink.strategies.sequential.self_refine import SelfRefine, critic_prompt, refine_prompt
from outthink.types import Candidate, Message, Problem, Sampling, Trace
from tests.tools.toys import coin, problem
from tests.tools.virtual import run


def solved(strategy: Any, engine: ScriptedEngine, **options: Any) -> Trace:
    return run(solve_async(problem(), strategy, model=engine, sampling=Sampling(max_tokens=300), **options))


# ---------------------------------------------------------------- how many and how long


@pytest.mark.parametrize(
    ("n", "ratio", "expected"),
    [
        (16, 1, [4, 4, 4, 4]),  # the card's: 4 chains of 4
        (8, 2, [4, 4]),
        (6, 1.5, [3, 3]),
        (7, 1, [3, 2, 2]),
        (5, 0, [1] * 5),
        (5, math.inf, [5]),
        (1, 1, [1]),
        (3, 1e-9, [1] * 3),
    ],
)
def test_a_ratio_splits_attempts_into_chains(n: int, ratio: float, expected: list[int]) -> None:
    assert lengths(n, ratio) == expected


@given(st.integers(1, 300), st.floats(0, allow_nan=False), st.floats(0, allow_nan=False))
def test_no_attempt_is_lost_and_a_larger_ratio_makes_no_more_chains(n: int, one: float, other: float) -> None:
    few, many = lengths(n, max(one, other)), lengths(n, min(one, other))
    assert sum(few) == sum(many) == n
    assert len(few) <= len(many)
    assert max(few) - min(few) <= 1


def test_16_attempts_at_ratio_1_show_0_1_2_and_3_attempts() -> None:
    windows: Counter[int] = Counter()

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        windows[request.messages[-1].text.count("#### ")] += 1
        return "#### 1"

    solved(Revision(n=16, ratio=1), ScriptedEngine(reply))
    assert windows == {0: 4, 1: 4, 2: 4, 3: 4}


@pytest.mark.parametrize("name", ["revision", "self_refine"])
def test_at_ratio_0_it_is_self_consistency(name: str) -> None:
    for seed in range(6):
        trace = solved(make_strategy(name, {"n": 5, "ratio": 0}), coin(0.5, wrong=3), seed=seed)
        votes = Counter(candidate.key for candidate in trace.candidates)
        assert len(trace.candidates) == 5
        assert votes[trace.key] == max(votes.values())
        assert {call.role for call in trace.calls} == {"model"}
    assert solved(SelfConsistency(n=5), coin(0.5)).usage.completion == 5 * len("#### 42")


# ---------------------------------------------------------------- which attempt


@pytest.mark.parametrize("selector", ["weighted_vote", "best"])
@pytest.mark.parametrize("hierarchical", [False, True])
def test_a_constant_scorer_leaves_the_rule_for_ties(selector: Any, hierarchical: bool) -> None:
    """More votes for the one, and the earliest of equals for the other, whatever the answers are called."""
    for names in (("7", "3"), ("3", "7")):

        def reply(request: Request, child: int, rng: np.random.Generator, names: tuple[str, str] = names) -> str:
            return f"#### {names[(int(request.address[2]) + int(request.address[-1])) % 2]}"

        strategy = Revision(n=4, ratio=1, selector=selector, hierarchical=hierarchical)
        trace = solved(strategy, ScriptedEngine(reply), verifier=lambda question, text: 0.5)
        assert (trace.answer, trace.rounds[-1].chosen) == (names[0], "model/chain/0/0/0")


def test_inside_the_chains_first_a_chain_that_repeats_itself_has_one_voice() -> None:
    said = {0: ["1", "1", "1"], 1: ["2", "2", "1"], 2: ["2", "2", "1"]}

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return f"#### {said[int(request.address[2])][int(request.address[-1])]}"

    assert solved(Revision(n=9, ratio=1), ScriptedEngine(reply)).answer == "1"
    assert solved(Revision(n=9, ratio=1, hierarchical=True), ScriptedEngine(reply)).answer == "2"


def test_a_right_attempt_that_is_revised_away_is_still_chosen() -> None:
    texts = ["#### 42", "worse #### 1", "worst #### 2"]
    engine = ScriptedEngine(lambda request, child, rng: texts[int(request.address[-1])])
    trace = solved(Revision(n=3, ratio=math.inf, selector="best"), engine, verifier=lambda q, text: float("42" in text))
    assert trace.answer == "42"
    assert [one.answer for one in trace.rounds] == ["42"] * 3


# ---------------------------------------------------------------- when a chain ends


def test_a_chain_ends_when_its_answer_stays_the_same() -> None:
    said = {0: ["1", "2", "2", "2", "9"], 1: ["1", "2", "1", "2", "1"]}

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return f"#### {said[int(request.address[2])][int(request.address[-1])]}"

    trace = solved(Revision(n=10, ratio=2.5, patience=2), ScriptedEngine(reply))
    sizes = Counter(candidate.address[2] for candidate in trace.candidates)
    assert sizes == {0: 4, 1: 5}


def test_answers_that_cannot_be_read_are_not_the_same() -> None:
    chain = [Candidate(address=("m", n), key=key) for n, key in enumerate(["1", None, None, "2", "2", "2"])]
    assert [repeats(chain[:end]) for end in range(7)] == [0, 0, 0, 0, 0, 1, 2]


def test_a_chain_ends_with_an_attempt_that_passes() -> None:
    engine = ScriptedEngine(lambda request, child, rng: f"#### {request.address[-1]}")
    strategy = Revision(n=6, ratio=math.inf, threshold=0.9, selector="best")
    trace = solved(strategy, engine, verifier=lambda question, text: float("#### 2" in text))
    assert (trace.answer, len(trace.candidates)) == ("2", 3)
    for refused in (strategy, SelfRefine(threshold=0.9)):
        with pytest.raises(MissingResource, match="threshold needs a verifier"):
            solved(refused, engine)


# ---------------------------------------------------------------- self-refine

TALK = Problem(id="p", messages=(Message(role="system", content="RULE"), Message(content="TASK")), question="QUESTION")


def test_the_critic_and_the_reviser_are_sent_every_part() -> None:
    asked: list[tuple[str, Request]] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append((str(request.address[0]), request))
        if request.address[0] == "critic":
            return f"FEEDBACK {len(asked)}\nVerdict: Wrong"
        return f"attempt {len(asked)} #### {len(asked)}"

    trace = run(solve_async(TALK, SelfRefine(n=3, patience=0), model=ScriptedEngine(reply)))
    assert [role for role, _ in asked] == ["model", "critic", "model", "critic", "model"]
    draft, critic, refined, _, last = (request for _, request in asked)
    assert draft.messages == TALK.messages
    assert critic.messages == (Message(content=critic_prompt(TALK, "attempt 1 #### 1")),)
    for part in ("QUESTION", "attempt 1 #### 1", "Verdict: Correct or Verdict: Wrong"):
        assert part in critic.messages[0].text
    assert refined.messages == refine_prompt(TALK, "attempt 1 #### 1", "FEEDBACK 2\nVerdict: Wrong")
    assert refined.messages[0].text == "RULE"
    for part in ("TASK", "attempt 1 #### 1", "FEEDBACK 2"):
        assert part in refined.messages[-1].text
    # the last attempt alone, and what was said of it: k is 1
    assert "attempt 3" in last.messages[-1].text
    assert "attempt 1" not in last.messages[-1].text
    assert critic.temperature == 0
    assert {call.role: call.n for call in trace.calls} == {"model": 1, "critic": 1}
    spent = {
        role: sum(call.charged.tokens for call in trace.calls if call.role == role) for role in ("model", "critic")
    }
    assert min(spent.values()) > 0
    assert sum(spent.values()) == trace.cost["tokens"]


def test_an_attempt_that_the_critic_accepts_ends_its_chain_and_weighs_most() -> None:
    texts = ["#### 1", "#### 2", "#### 3"]

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address[0] == "critic":
            return "Verdict: Correct" if "#### 2" in request.messages[0].text else "No.\nVerdict: Wrong"
        return texts[int(request.address[-1])]

    trace = solved(SelfRefine(n=3), ScriptedEngine(reply))
    assert (trace.answer, trace.rounds[-1].scores) == ("2", (0.25, 1.0))
    assert [one.answer for one in trace.rounds] == ["1", "2", "2"]


def test_a_critic_that_is_cut_off_accepts_nothing() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address[0] == "critic":
            return "Verdict: Correct\nBut wait" + "." * 300
        return f"#### {request.address[-1]}"

    trace = solved(SelfRefine(n=3), ScriptedEngine(reply))
    assert trace.rounds[-1].scores == (0.5, 0.5, 0.5)


def test_an_attempt_without_an_answer_ends_no_chain_whatever_the_critic_says() -> None:
    texts = ["I do not know", "#### 2", "#### 3"]

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return "Verdict: Correct" if request.address[0] == "critic" else texts[int(request.address[-1])]

    trace = solved(SelfRefine(n=3), ScriptedEngine(reply))
    assert (trace.answer, trace.rounds[-1].scores) == ("2", (1.0, 1.0))


def test_what_is_rejected_may_still_win_the_vote_and_the_last_is_not_taken_blindly() -> None:
    texts = ["#### 1", "so #### 1", "again #### 1", "#### 5"]

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return "Verdict: Wrong" if request.address[0] == "critic" else texts[int(request.address[-1])]

    trace = solved(SelfRefine(n=4, patience=0), ScriptedEngine(reply))
    assert trace.rounds[-1].scores == (0.25, 0.25, 0.25, 0.5)
    assert trace.answer == "1"


@pytest.mark.parametrize("said", ["", "I do not know", EngineError("down")])
def test_a_critic_that_says_nothing_ends_no_other_chain(said: str | EngineError) -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        if request.address[0] == "critic":
            return said if request.address[3] == 0 else "Verdict: Wrong"
        return f"#### {len(request.messages[-1].text) % 7}"

    trace = solved(SelfRefine(n=4, ratio=1), ScriptedEngine(reply))
    assert trace.answer is not None
    assert trace.stopped == "finished"


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        (name, wrong, sentence)
        for name in ("revision", "self_refine")
        for wrong, sentence in (
            ({"n": 0}, "n must be at least 1"),
            ({"ratio": -1}, "ratio must be at least 0"),
            ({"ratio": "nan"}, "ratio must be at least 0"),
            ({"patience": -1}, "patience must be a number of at least 0"),
            ({"threshold": "inf"}, "threshold must be a finite number"),
        )
    ],
)
def test_what_is_out_of_range_is_refused(name: str, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_strategy(name, wrong)
