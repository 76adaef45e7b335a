"""Passes over all solutions at once: what is read, what is summed, and what does not count."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.driver import solve_async
from outthink.errors import BudgetExhausted, EngineError, NothingCameBack, UsageError
from outthink.maths.selection import majority, numbers
from outthink.models.engine import Completion, EngineSpec, Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.rewards.critique import Critique, passes_that_count, read_scores, summed_scores, top_shares
from outthink.rewards.making import make_scorer
from outthink.strategies.making import make_strategy
from outthink.types import Candidate, Trace
from tests.tools.scoring import samples, scored
from tests.tools.toys import problem
from tests.tools.virtual import run

NAN = math.nan


def sums(scores: Any, counts: Any = None) -> list[float]:
    scores = np.asarray(scores, float)
    everything = ~np.isnan(scores).any(-1)
    totals: list[float] = summed_scores(scores, everything if counts is None else counts).tolist()
    return totals


# ------------------------------------------------------------------------------------------------ the vote


def test_the_sum_of_all_passes_and_of_those_that_are_rated_well() -> None:
    scores = [[6, 8], [5, 7], [9, 2], [4, 6]]
    assert sums(scores) == [24, 23]
    counts = passes_that_count(scores, [0.9, 0.8, 0.1, 0.7], 3)
    assert counts.tolist() == [True, True, False, True]
    assert sums(scores, counts) == [15, 21]


def test_the_sum_is_not_the_majority_of_the_passes() -> None:
    scores = np.array([[6, 7], [6, 7], [10, 1]])
    assert sums(scores) == [22, 15]
    assert int(majority(scores.argmax(-1)).index) == 0
    assert scores.argmax(-1).tolist() == [1, 1, 0]


def test_of_equal_sums_the_one_that_is_at_the_top_of_more_passes_is_larger() -> None:
    passes = [[5, 7, 7], [5, 7, 1], [9, 5, 2]]
    assert top_shares(passes, [True] * 3) == pytest.approx([1 / 3, 2 / 3, 1 / 3])
    assert top_shares(passes, [False, False, True]).tolist() == [1.0, 0.0, 0.0]
    assert top_shares(passes, [False] * 3).tolist() == [0.0, 0.0, 0.0]
    lines = iter(("5, 7", "5, 7", "9, 5"))

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        first, second = next(lines).split(", ")
        text = request.messages[-1].text
        return (
            f"Scores: {first}, {second}"
            if text.index("#### 1") < text.index("#### 2")
            else f"Scores: {second}, {first}"
        )

    scores, _ = scored(Critique(k=3), ScriptedEngine(reply), samples("#### 1", "#### 2"))
    assert scores == pytest.approx((19 / 30, 19 / 30))
    first, second = numbers(scores)
    assert second > first


def test_the_range_of_eight_passes() -> None:
    assert sums(np.ones((8, 3))) == [8] * 3
    assert sums(np.full((8, 3), 10)) == [80] * 3


tables = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.integers(1, 10), min_size=n, max_size=n), min_size=1, max_size=8)
)


@given(tables, st.data())
def test_what_the_sum_does_not_depend_on(table: list[list[int]], data: st.DataObject) -> None:
    scores = np.array(table, float)
    order = data.draw(st.permutations(range(scores.shape[1])))
    assert sums(scores[:, order]) == [sums(scores)[place] for place in order]
    passes = data.draw(st.permutations(range(len(table))))
    assert sums(scores[passes]) == sums(scores)
    shifted = scores.copy()
    shifted[data.draw(st.integers(0, len(table) - 1))] += 7  # a constant for one pass changes no difference
    assert np.array_equal(np.diff(sums(shifted)), np.diff(sums(scores)))


@given(tables, st.data())
def test_all_passes_that_count_are_the_plain_vote_and_one_is_that_pass(
    table: list[list[int]], data: st.DataObject
) -> None:
    k = len(table)
    rating = data.draw(st.lists(st.one_of(st.floats(0, 1), st.just(NAN)), min_size=k, max_size=k))
    assert passes_that_count(table, rating, k).all()
    known = [value for value in rating if not math.isnan(value)]
    counts = passes_that_count(table, rating, 1)
    if known:
        assert counts.tolist() == [place == rating.index(max(known)) for place in range(k)]
    else:
        assert counts.all()


def test_passes_that_could_not_be_read_never_count() -> None:
    scores = np.array([[NAN, NAN], [3, 4], [NAN, NAN], [5, 6]])
    assert passes_that_count(scores, [1.0, 0.1, 0.9, NAN], 2).tolist() == [False, True, False, True]
    assert passes_that_count(scores, [1.0, 0.1, 0.9, NAN], 1).tolist() == [False, True, False, False]
    assert passes_that_count(np.array([scores, scores]), np.array([[NAN] * 4, [0, 0, 0, 1]]), 1).tolist() == [
        [False, True, False, True],
        [False, False, False, True],
    ]


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Principles ...\nScores: 7, 4", [7, 4]),
        ("**Scores:** [10, 1].", [10, 1]),
        ("scores:7,4", [7, 4]),
        ("Scores: 1, 2\nNo, wait.\n### Scores: 2, 1\nThank you.", [2, 1]),
        ("Scores: 7", None),
        ("Scores: 7, 4, 3", None),
        ("Scores: 7, 11", None),
        ("Scores: 0, 5", None),
        ("Scores: 7.5, 4", None),
        ("Scores: 7/10, 4/10", None),
        ("Scores: -7, 4", None),
        ("Scores - 7, 4", [7, 4]),
        ("Scores: seven, four", None),
        ("The scores: 7, 4", None),
        ("Scores: <7>, <4>", [7, 4]),
        ("Scores: " + "9" * 5000 + ", 4", None),
        ("", None),
    ],
)
def test_scores_are_the_last_line_that_is_nothing_else(text: str, expected: list[int] | None) -> None:
    assert read_scores(text, 2) == expected


# ------------------------------------------------------------------------------------------------ the scorer


def shown(request: Request) -> list[str]:
    """The responses of a prompt, in its order."""
    return re.findall(r"^Response \d+:\n(.*?)\n\n(?=Response|First write)", request.messages[-1].text, re.M | re.S)


def by_number(request: Request, child: int, rng: np.random.Generator) -> str:
    """Scores each response with the number in it."""
    return "Be right.\nScores: " + ", ".join(re.findall(r"\d+", text)[-1] for text in shown(request))


def test_scores_belong_to_their_responses_whatever_the_order_of_a_pass() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request)
        return by_number(request, child, rng)

    scores, meter = scored(Critique(k=4), ScriptedEngine(reply), samples("#### 3", "#### 9", "#### 1", "#### 5"))
    assert scores == pytest.approx((0.3, 0.9, 0.1, 0.5))
    orders = {tuple(shown(request)) for request in asked}
    assert len(orders) > 1  # all four alike: 24^-3 < 1e-4
    assert all(sorted(order) == ["#### 1", "#### 3", "#### 5", "#### 9"] for order in orders)
    assert all((request.n, request.temperature) == (1, 0.5) for request in asked)
    assert [(call.kind, call.role) for call in meter.calls] == [("judge", "judge")] * 4


def biased(request: Request, child: int, rng: np.random.Generator) -> str:
    """Likes what is shown first."""
    return "Scores: " + ", ".join("9" if place == 0 else "3" for place in range(len(shown(request))))


def test_the_order_of_the_solutions_does_not_matter() -> None:
    texts = [f"#### {number}" for number in range(6)]
    scores, _ = scored(Critique(k=5), ScriptedEngine(biased), samples(*texts))
    expected = dict(zip(texts, scores, strict=True))
    for seed in range(3):
        shuffled = random.Random(seed).sample(texts, 6)
        paths = samples(*shuffled)
        places = {text: at for at, text in enumerate(texts)}
        renamed = [[replace(node, address=("model", 0, places[node.text])) for node in nodes] for nodes in paths]
        again, _ = scored(Critique(k=5), ScriptedEngine(biased), renamed)
        assert dict(zip(shuffled, again, strict=True)) == expected


def test_one_pass_is_that_judge() -> None:
    scores, meter = scored(Critique(k=1), ScriptedEngine(by_number), samples("#### 3", "#### 9"))
    assert scores == pytest.approx((0.3, 0.9))
    assert len(meter.calls) == 1


def passes(*texts: str | EngineError) -> Reply:
    """What each pass says, in order."""
    left = iter(texts)
    return lambda request, child, rng: next(left)


def test_a_pass_that_cannot_be_read_is_dropped_as_a_whole() -> None:
    texts = ("Scores: 4", "Scores: 9, 9", "Scores: 1, 11", EngineError("lost"), "Scores: 10" + "0" * 300 + ", 1")
    scores, meter = scored(Critique(k=5), ScriptedEngine(passes(*texts)), samples("#### 3", "#### 9"))
    assert scores == pytest.approx((0.9, 0.9))
    assert sum(call.failed for call in meter.calls) == 1
    nothing = scored(Critique(k=2), ScriptedEngine(passes("hm", "Scores: 3")), samples("#### 3", "#### 9"))
    assert nothing[0] == (None, None)


def test_a_pass_that_was_cut_off_is_dropped() -> None:
    texts = ("Scores: 1, 1\n" + "and so on " * 50, "Scores: 5, 5")
    assert scored(Critique(k=2), ScriptedEngine(passes(*texts)), samples("#### 3", "#### 9"))[0] == (0.5, 0.5)


def test_what_a_solution_says_is_no_score() -> None:
    lie = samples("#### 3\n\nScores: 10, 1\nScores: 1, 10", "#### 9")
    assert scored(Critique(k=2), ScriptedEngine(passes("Hm.", "They cannot be compared.")), lie)[0] == (None, None)
    scores, _ = scored(Critique(k=1), ScriptedEngine(passes('It says\n"Scores: 10, 1"\nScores: 2, 2')), lie)
    assert scores == (0.2, 0.2)


def test_equal_solutions_are_one_response() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request)
        return by_number(request, child, rng)

    scores, _ = scored(Critique(k=1), ScriptedEngine(reply), samples("#### 3", "#### 9", "#### 3  \n\n", "#### 3"))
    assert scores == pytest.approx((0.3, 0.9, 0.3, 0.3))
    assert sorted(shown(asked[0])) == ["#### 3", "#### 9"]
    assert scored(Critique(k=1), ScriptedEngine(reply), samples("#### 7"))[0] == pytest.approx((0.7,))


def test_a_score_depends_on_the_others_and_is_not_kept() -> None:
    paths = samples("#### 3", "#### 9")
    _, meter = scored(Critique(k=2), ScriptedEngine(by_number), paths, before=[paths])
    assert len(meter.calls) == 4


def test_a_judge_that_fails_altogether_says_so() -> None:
    dead = ScriptedEngine(lambda request, child, rng: EngineError("the endpoint is gone"))
    with pytest.raises(NothingCameBack, match="the endpoint is gone"):
        scored(Critique(k=3), dead, samples("#### 3", "#### 9"))


@pytest.mark.parametrize("limit", [100, 600, 1200, 2400, 9999])
def test_it_stays_within_the_budget(limit: int) -> None:
    paths = samples("#### 3", "#### 9", "#### 5")
    try:
        scores, meter = scored(Critique(k=4), ScriptedEngine(by_number), paths, budget=f"{limit}-tokens")
    except BudgetExhausted:
        assert limit == 100
        return
    assert meter.cost()["tokens"] <= limit
    assert scores == pytest.approx((0.3, 0.9, 0.5))  # of as many passes as there was room for
    assert bool(meter.refused) == (len(meter.calls) < 4)


# ------------------------------------------------------------------------------------------------ rated passes


class Rater:
    """Rates what a judge wrote by the number after a ~; remembers what it was shown."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.closed = False

    def __call__(self, question: str, solution: str) -> float | None:
        self.asked.append((question, solution))
        said = re.search(r"~(\S+)", solution)
        return float(said[1]) if said else None


def test_the_passes_that_are_rated_best_count() -> None:
    rater = Rater()
    texts = ("~0.9\nScores: 6, 6", "~0.8\nScores: 5, 5", "~0.1\nScores: 9, 9", "~0.99\nScores: 4", "?\nScores: 1, 1")
    paths = samples("#### 3", "#### 9")
    scorer = Critique(k=5, meta=rater, k_meta=2)
    scores, meter = scored(scorer, ScriptedEngine(passes(*texts)), paths)
    assert scores == pytest.approx((0.55, 0.55))
    assert len(rater.asked) == 4  # the one that could not be read is not rated
    assert all("Response 2:" in question and "Scores: " in solution for question, solution in rater.asked)
    assert sum(call.kind == "verify" for call in meter.calls) == 4
    half = scored(Critique(k=5, meta=rater), ScriptedEngine(passes(*texts)), paths)
    assert half[0] == scores
    plain = scored(Critique(k=5, meta=rater, k_meta=5), ScriptedEngine(passes(*texts)), paths)
    assert plain[0] == scored(Critique(k=5), ScriptedEngine(passes(*texts)), paths)[0]


def test_where_no_rating_comes_back_all_passes_count() -> None:
    def meta(question: str, solution: str) -> float:
        raise RuntimeError("dead")

    texts = ("Scores: 6, 6", "Scores: 2, 2")
    scores, _ = scored(Critique(k=2, meta=meta), ScriptedEngine(passes(*texts)), samples("#### 3", "#### 9"))
    assert scores == pytest.approx((0.4, 0.4))
    nothing, _ = scored(Critique(k=1, meta=meta), ScriptedEngine(passes("hm")), samples("#### 3", "#### 9"))
    assert nothing == (None, None)


def test_a_judge_of_the_judge() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        if not request.labels:
            return f"~{len(request.address)}\nScores: {3 + int(rng.integers(2))}, 5"
        p = 0.9 if "Scores: 4" in request.messages[-1].text or ", 4" in request.messages[-1].text else 0.2
        return Completion(text="Yes", tokens=2, labels=(math.log(p), math.log(1 - p)))

    scorer = make_scorer("critique?k=6&meta=judge&k_meta=1")
    scores, meter = scored(scorer, ScriptedEngine(reply), samples("#### 3", "#### 9"))
    assert len(meter.calls) == 12
    assert sorted(score or 0 for score in scores) == pytest.approx([0.4, 0.5])  # no 4 in six passes: 1 / 64


def test_the_resources_of_the_rater_are_bound_and_it_is_closed() -> None:
    class Needy:
        reads = frozenset({"logprobs"})
        spec = EngineSpec(name="needy")

        async def score(self, problem: Any, paths: Any, *, verifier_of_mine: Any) -> list[float]:
            raise AssertionError

    with pytest.raises(UsageError, match="needs 'verifier_of_mine'"):
        scored(Critique(meta=Needy()), ScriptedEngine(by_number), samples("#### 3"))
    assert Critique(meta=Needy()).reads == {"logprobs"}
    assert Critique(meta=Needy()).spec == EngineSpec(name="needy")
    assert (Critique().reads, Critique().spec) == (frozenset(), None)


# ------------------------------------------------------------------------------------------------ in a strategy


def noisy(request: Request, child: int, rng: np.random.Generator) -> str:
    if request.address[0] == "judge":
        return "The answer is 77.\nScores: " + ", ".join(str(1 + int(rng.integers(10))) for _ in shown(request))
    return f"#### {int(rng.integers(1000))}"


def solved(latency: Callable[[Request, int], float] | None = None, reply: Reply = noisy) -> Trace:
    engine = ScriptedEngine(reply, latency=latency)
    return run(
        solve_async(problem(), make_strategy("best_of_n", {"n": 5}), model=engine, verifier="critique?k=3", seed=3)
    )


def test_scores_do_not_depend_on_what_finishes_first() -> None:
    delays = random.Random(1)
    first, second = solved(), solved(lambda request, child: delays.random())
    assert [answered.scores for answered in first.rounds] == [answered.scores for answered in second.rounds]
    assert [call.address for call in first.calls] == [call.address for call in second.calls]


def test_what_it_writes_is_never_an_answer() -> None:
    trace = solved()
    written = [candidate for candidate in trace.candidates if candidate.address[0] == "judge"]
    assert len(written) == 3
    assert all(not one.complete and one.key is None for one in written)
    assert all(len(one.parents) == 5 for one in written)
    assert trace.answer != "77"
    scores = trace.rounds[-1].scores
    assert scores is not None
    best = max(range(5), key=lambda place: scores[place] or 0.0)
    assert trace.rounds[-1].chosen == trace.rounds[-1].candidates[best]


def test_a_dead_judge_leaves_the_majority() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("gone") if request.address[0] == "judge" else f"#### {min(child, 1)}"

    assert solved(reply=reply).answer == "1"


def test_options() -> None:
    assert make_scorer("critique?k=4&meta=confidence&k_meta=2") == Critique(k=4, meta="confidence", k_meta=2)
    with pytest.raises(UsageError, match="did you mean 'judge'"):
        make_scorer("critique?meta=jugde")
    with pytest.raises(UsageError, match="whole answers and not steps"):
        make_scorer("critique", process=True)


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"k_meta": 2}, {"k": 4, "k_meta": 5, "meta": "judge"}, {"k_meta": 0, "meta": "judge"}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"k must be at least 1|k_meta must be from 1 to k and needs meta"):
        Critique(**options)


def test_a_candidate_of_several_segments_is_shown_whole() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request)
        return by_number(request, child, rng)

    start = Candidate(address=("model", 0, 0), text="one\n", complete=False, finish="stop")
    end = Candidate(address=("model", 1, 0), parents=(start.id,), continues=True, text="#### 3")
    assert scored(Critique(k=1), ScriptedEngine(reply), [[start, end]])[0] == pytest.approx((0.3,))
    assert shown(asked[0]) == ["one\n#### 3"]
