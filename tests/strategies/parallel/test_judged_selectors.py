"""Selection with a judge: failed-step fraction, Heimdall, and the hedged pool with CHOPS and X-MBR."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outthink.driver import solve_async
from outthink.errors import EngineError, UsageError
from outthink.maths.selection import answer_totals, best_of, majority
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.collective.x_mbr import agreement, evidence_prompt, judged_pairs
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.chops import best_named, chops_prompt
from outthink.strategies.parallel.failed_step_fraction import failed_step_fraction
from outthink.strategies.parallel.heimdall import pessimistic_choice, pessimistic_scores
from outthink.types import Budget, Problem, Sampling, Trace
from tests.tools.toys import coin, problem
from tests.tools.virtual import run

JUDGED = ("failed_step_fraction", "heimdall", "chops", "x_mbr")
Says = Callable[[str, int], str | EngineError]
"""(prompt of the judge, number of the call's child) -> what it says."""


def judged(texts: list[str], says: Says, seen: list[Request] | None = None, **options: Any) -> ScriptedEngine:
    """The main model writes texts[k] as its k-th sample, and in the role of the judge what `says` says."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        if seen is not None:
            seen.append(request)
        if request.address[0] == "judge":
            return says(request.messages[-1].text, child)
        if request.address[1] == "evidence":
            return f"第{child} #### {10 + child}"
        # in a hedged pool the greedy sample is a request of its own
        return texts[child + int(request.address[-1])]

    return ScriptedEngine(reply, **options)


def solved(name: str, engine: ScriptedEngine, seed: int = 0, budget: str | None = None, **parameters: Any) -> Trace:
    return run(
        solve_async(
            problem(),
            make_strategy(name, parameters),
            model=engine,
            seed=seed,
            budget=None if budget is None else Budget.parse(budget),
            sampling=Sampling(max_tokens=300),
        )
    )


def judgements(trace: Trace) -> int:
    return sum(call.n for call in trace.calls if call.kind == "judge")


# ---------------------------------------------------------------- failed-step fraction


def graph(statuses: str, edges: str = "") -> str:
    """A digraph; o is an ok step, x a failed one, f the final one. Without edges each step continues the one before."""
    words = {"o": "ok", "x": "failed", "f": "final"}
    nodes = [f'  {n} [label="step {n} -> x [y]", status={words[s]}];' for n, s in enumerate(statuses, start=1)]
    lines = edges.split(";") if edges else [f"{n} -> {n + 1}" for n in range(1, len(statuses))]
    return "\n".join(["digraph G {", "  node [shape=box];", *nodes, *(f"  {line};" for line in lines), "}"])


def test_the_fraction_of_a_graph() -> None:
    assert failed_step_fraction(graph("oof")) == 0  # a linear trace
    # ten steps, three of them on a branch that was abandoned
    branch = "1->2;2->3;3->4;4->5;2->6;6->7;7->8;8->9;9->10"
    assert failed_step_fraction(graph("ooxxxoooof", branch)) == pytest.approx(0.3)
    assert failed_step_fraction(graph("oooooof")) == 0  # without them
    assert failed_step_fraction(f"<think>1 -> 2</think>Here:\n```dot\n{graph('of')}\n```") == 0


@given(st.integers(2, 9), st.integers(0, 8), st.integers(1, 6))
def test_a_further_failed_branch_does_not_lower_it(path: int, failed: int, more: int) -> None:
    def with_failed(count: int) -> float:
        chain = [1, *range(2 + count, path + count + 1)]
        edges = [f"1->{number}" for number in range(2, 2 + count)]
        edges += [f"{a}->{b}" for a, b in pairwise(chain)]
        found = failed_step_fraction(graph("o" + "x" * count + "o" * (path - 2) + "f", ";".join(edges)))
        assert found == pytest.approx(count / (path + count))
        return found or 0.0

    assert 0 <= with_failed(failed) <= with_failed(failed + more) < 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I see no steps.",
        graph("f"),  # one step
        graph("off"),  # two ends
        graph("ooo"),  # none
        graph("oxf"),  # the way to the end failed
        graph("xof"),  # the first step failed
        graph("oof", "1->3"),  # a second root
        graph("oof", "1->2;2->3;3->7"),  # there is no step 7
        graph("oof").replace("status=ok", "state=ok"),
        graph("oof").replace("status=ok", "status=bad"),
    ],
)
def test_what_is_no_graph_of_a_trace_is_missing(text: str) -> None:
    assert failed_step_fraction(text) is None


def test_graphs_are_read_as_judges_write_them() -> None:
    assert failed_step_fraction(graph("oof", "1->2->3;3->1;2->2")) == 0  # edges back are dropped
    said = '"S1" [label="say \\"no\\" ]", status="ok"]\ns2 [status=FAILED]\nn3 [status=final]\n'
    said += '"S1" -> s2 [label="try"]\nS1 -> n3'
    assert failed_step_fraction(said) == pytest.approx(1 / 3)


FAILED = {"a #### 1": "oxxf", "b #### 1": "oxf", "long c #### 2": "oof", "d #### 3": "oxxxf"}


def draws(prompt: str, child: int) -> str:
    (statuses,) = (FAILED[text] for text in FAILED if text in prompt)
    ways = [n for n, s in enumerate(statuses, start=1) if s != "x"]
    edges = [f"{n - 1}->{n}" for n, s in enumerate(statuses, start=1) if s == "x"]
    edges += [f"{a}->{b}" for a, b in pairwise(ways)]
    return graph(statuses, ";".join(edges))


def test_the_trace_that_fails_least_is_chosen_in_any_order() -> None:
    for order in permutations(FAILED):
        trace = solved("failed_step_fraction", judged(list(order), draws), n=4)
        assert trace.answer == "2"
        scores = [1 - FAILED[text].count("x") / len(FAILED[text]) for text in order]
        assert trace.rounds[-1].scores == pytest.approx(scores)
        assert judgements(trace) == 4


def test_equal_fractions_go_to_the_shortest() -> None:
    texts = ["a long one #### 1", "this one is longer still #### 1", "short #### 2"]
    for order in permutations(texts):
        trace = solved("failed_step_fraction", judged(list(order), lambda *_: graph("oof")), n=3)
        assert trace.text == "short #### 2"


def test_a_graph_that_cannot_be_read_is_asked_for_twice_more_and_then_ranks_last() -> None:
    asked: list[str] = []

    def says(prompt: str, child: int) -> str:
        asked.append(prompt)
        return "no graph" if "b #### 1" in prompt or "c #### 2" in prompt else draws(prompt, child)

    trace = solved("failed_step_fraction", judged(list(FAILED), says), n=4)
    assert trace.text == "a #### 1"
    assert judgements(trace) == 4 + 2 + 2
    assert trace.rounds[-1].scores == pytest.approx((0.5, None, None, 0.4))
    assert [round.answer for round in trace.rounds] == ["1", "1", "1", "1"]


def test_what_is_read_the_second_time_counts() -> None:
    left = iter(["no"] * 4)
    engine = judged(list(FAILED), lambda prompt, child: next(left, draws(prompt, child)))
    trace = solved("failed_step_fraction", engine, n=4)
    assert (trace.answer, judgements(trace)) == ("2", 8)


def test_the_second_time_is_not_greedy() -> None:
    seen: list[Request] = []
    solved("failed_step_fraction", judged(list(FAILED), lambda *_: "no", seen), n=4, retries=1)
    assert [request.temperature for request in seen if request.address[0] == "judge"] == [0.0] * 4 + [0.8] * 4


def test_without_any_graph_it_is_the_majority() -> None:
    trace = solved("failed_step_fraction", judged(list(FAILED), lambda *_: "no"), n=4)
    assert (trace.answer, trace.confidence) == ("1", 0.5)


def test_random_fractions_are_one_sample() -> None:
    """Within 4 standard errors: a false alarm in 1 of 16,000, and the seed is fixed."""
    rng = np.random.default_rng(7)
    keys = np.where(rng.random((20_000, 6)) < 0.3, 0, rng.integers(1, 4, (20_000, 6)))
    chosen = best_of(keys, 1 - rng.random(keys.shape)).index
    right = (np.take_along_axis(keys, chosen[:, None], -1) == 0).mean()
    assert right == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 20_000))


def test_equal_texts_are_one_graph() -> None:
    trace = solved("failed_step_fraction", judged(["d #### 3"] * 3 + ["long c #### 2"], draws), n=4)
    assert (trace.answer, judgements(trace)) == ("2", 2)
    assert trace.rounds[-1].scores == pytest.approx((0.4, 0.4, 0.4, 1.0))


# ---------------------------------------------------------------- Heimdall

# A five times with 14 of 20 verdicts, B once with all four, C twice with four of eight
HEIMDALL_KEYS = np.array([0] * 5 + [1] + [2] * 2)
VERDICTS = np.array(
    [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 1]]
)


@pytest.mark.parametrize(
    ("alpha", "scores", "winner"),
    [
        (0, [0.700, 1.000, 0.500], 1),
        (0.1, [0.6835, 0.9307, 0.4615], 1),
        (0.5, [0.6175, 0.6534, 0.3075], 1),
        (1, [0.5350, 0.3069, 0.1149], 0),
        (1e6, None, 0),
    ],
)
def test_pessimistic_scores(alpha: float, scores: list[float] | None, winner: int) -> None:
    for order in (np.arange(8), np.arange(8)[::-1], np.array([5, 6, 0, 7, 1, 2, 3, 4])):
        keys, verdicts = HEIMDALL_KEYS[order], VERDICTS[order]
        found = pessimistic_scores(keys, verdicts, alpha)
        if scores is not None:
            assert [found[keys == key][0] for key in range(3)] == pytest.approx(scores, abs=5e-5)
        choice = pessimistic_choice(keys, verdicts, alpha)
        assert keys[choice.index] == winner
        assert choice.share == pytest.approx((keys == winner).mean())
    assert pessimistic_choice(HEIMDALL_KEYS, VERDICTS, 1.0).index == 0  # the best verified of the group
    assert pessimistic_choice(HEIMDALL_KEYS, VERDICTS, 1.0, lengths=[9, 8, 7, 8, 1, 1, 1, 1]).index == 2


shape = st.tuples(st.integers(1, 3), st.integers(1, 6))


@settings(deadline=None)
@given(hnp.arrays(np.int64, shape, elements=st.integers(-1, 3)), st.floats(0.01, 100), st.sampled_from([0.0, 0.5, 1.0]))
def test_equal_verdicts_are_the_majority(keys: np.ndarray, alpha: float, verdict: float) -> None:
    verdicts = np.full((*keys.shape, 3), verdict)
    first = majority(keys).index
    assert np.array_equal(pessimistic_choice(keys, verdicts, alpha).index, first)
    assert np.array_equal(pessimistic_choice(keys, np.full((*keys.shape, 3), np.nan), alpha).index, first)


@settings(deadline=None)
@given(hnp.arrays(np.int64, (4, 6), elements=st.integers(-1, 3)), st.data())
def test_limits_of_alpha_and_bounds_of_scores(keys: np.ndarray, data: st.DataObject) -> None:
    m, alpha = 4, 0.5
    verdicts = data.draw(hnp.arrays(np.int64, (*keys.shape, m), elements=st.integers(0, 1))).astype(float)
    valid = keys >= 0
    n = valid.sum(-1, keepdims=True)
    members = answer_totals(keys, np.ones(keys.shape))
    scores = pessimistic_scores(keys, verdicts, alpha)
    assert (scores[valid] <= 1).all()
    low = np.broadcast_to(-alpha * np.log(np.maximum(n * m, 1)) / (m + 1), keys.shape)
    assert (scores[valid] >= low[valid] - 1e-12).all()
    assert np.isnan(scores[~valid]).all()
    most = pessimistic_choice(keys, verdicts, 1e9).index
    assert np.array_equal(pessimistic_choice(keys, verdicts, 1e300).index >= 0, valid.any(-1))
    for row, index in enumerate(most):
        assert index < 0 or members[row, index] == members[row].max()
    mean = answer_totals(keys, verdicts.mean(-1)) / np.maximum(members, 1)
    for row, index in enumerate(pessimistic_choice(keys, verdicts, 0).index):
        assert index < 0 or mean[row, index] == pytest.approx(mean[row][valid[row]].max())
    for row in range(len(keys)):
        alone = pessimistic_choice(keys[row], verdicts[row], alpha)
        assert alone.index == pessimistic_choice(keys, verdicts, alpha).index[row]


def test_the_penalty_falls_with_samples_and_with_verdicts() -> None:
    def penalty(n: int, members: int, m: int) -> float:
        keys = [0] * members + [1] * (n - members)
        return 1 - float(pessimistic_scores(keys, np.ones((n, m)), 1.0)[0])

    for n, m in [(8, 1), (8, 4), (5, 2)]:  # it falls with m where ln(n * m) is more than 1 + 1 / (members * m)
        by_members = [penalty(n, members, m) for members in range(1, n + 1)]
        assert by_members == sorted(by_members, reverse=True)
        assert min(by_members) > 0
        by_verdicts = [penalty(n, 1, verdicts) for verdicts in range(m, 30)]
        assert by_verdicts == sorted(by_verdicts, reverse=True)
    assert penalty(8, 5, 4) == pytest.approx(math.log(32) / 21)


def test_missing_verdicts_raise_the_penalty_and_none_at_all_is_one_half() -> None:
    full = pessimistic_scores([0, 1], [[1, 1], [1, 1]], 0.5)
    part = pessimistic_scores([0, 1], [[1.0, np.nan], [1.0, 1.0]], 0.5)
    assert part[0] < full[0]
    assert part[0] == pytest.approx(1 - 0.5 * math.log(3) / 2)
    assert pessimistic_scores([0, 1], [[np.nan, np.nan], [1.0, 0.0]], 0.0).tolist() == [0.5, 0.5]
    assert pessimistic_scores([0], [[1.0]], 0.5).tolist() == [1.0]  # one verdict: no penalty
    assert pessimistic_choice([0, -1], [[0.0], [1.0]], 0.0).index == 0
    assert pessimistic_choice([-1, -1], [[1.0], [1.0]], 0.5).index == -1
    assert pessimistic_choice(np.zeros((2, 0), int), np.zeros((2, 0, 3)), 0.5).index.tolist() == [-1, -1]
    assert pessimistic_choice([0, 1], np.zeros((2, 0)), 0.5).index == 0


def test_heimdall_counts_the_verdicts_of_the_judge() -> None:
    texts = ["a #### 1", "b #### 1", "c #### 2"]

    def says(prompt: str, child: int) -> str:
        right = "#### 2" in prompt or (child == 0 and "b ####" in prompt)
        return f"Looks so.\nVerdict: {int(right)}"

    for order in permutations(texts):
        trace = solved("heimdall", judged(list(order), says), n=3, m=4, alpha=0.1)
        assert (trace.answer, judgements(trace)) == ("2", 12)
        assert trace.confidence == pytest.approx(1 / 3)
        assert trace.rounds[0].answer == "1"
    trace = solved("heimdall", judged(texts, says), n=3, m=4, alpha=10)
    assert (trace.answer, trace.text) == ("1", "b #### 1")


def test_with_a_perfect_verifier_heimdall_is_coverage() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address[0] == "judge":
            return f"Verdict: {int('42' in request.messages[-1].text)}"
        return coin(0.2, wrong=3)._reply(request, child, rng)  # type: ignore[return-value]  # always text

    for seed in range(40):
        trace = solved("heimdall", ScriptedEngine(reply), seed=seed, n=6, m=2, alpha=0.05)
        covered = any(candidate.key == "42" for candidate in trace.candidates if candidate.address[0] == "model")
        assert (trace.answer == "42") == covered


def test_unreadable_verdicts_leave_the_majority() -> None:
    trace = solved("heimdall", judged(["a #### 1", "b #### 2", "c #### 2"], lambda *_: "Hard to say."), n=3)
    assert (trace.answer, trace.stopped) == ("2", "finished")


# ---------------------------------------------------------------- hedged pool, CHOPS


@pytest.mark.parametrize("name", ["hedged_sampling", "chops", "x_mbr"])
def test_a_hedged_pool_has_one_greedy_sample(name: str) -> None:
    seen: list[Request] = []
    engine = judged([f"{k} #### {k}" for k in range(5)], lambda *_: "Best: 2", seen)
    solved(name, engine, n=5)
    pool = [request for request in seen if request.address[:-1] == ("model",)]
    assert sorted(request.temperature for request in pool) == [0.0, 0.7, 0.7, 0.7, 0.7]
    seen.clear()
    trace = solved(name, engine, n=1)
    assert (trace.answer, [request.temperature for request in seen]) == ("0", [0.0])


def test_hedged_sampling_votes() -> None:
    for order in set(permutations(["a #### 1", "b #### 2", "c #### 2"])):
        trace = solved("hedged_sampling", judged(list(order), lambda *_: ""), n=3)
        assert trace.answer == "2"
        assert trace.confidence == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["hedged_sampling", "chops", "x_mbr"])
@pytest.mark.parametrize("lost", [0, 1])
def test_a_pool_survives_failed_samples(name: str, lost: int) -> None:
    texts = ["0 #### 0", "1 #### 1", "2 #### 2", "3 #### 2"]

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        if request.address[0] == "model" and child + int(request.address[-1]) == lost:
            return EngineError("the connection was lost")
        return judged(texts, lambda *_: "?")._reply(request, child, rng)  # type: ignore[return-value]

    trace = solved(name, ScriptedEngine(reply), n=4)
    assert trace.answer == ("2" if lost == 0 or name == "hedged_sampling" else "0")
    assert trace.stopped == "finished"


def test_reading_the_best_number() -> None:
    assert best_named("1. correct\n2. short\n\nBest: 3", 3) == 2
    assert best_named("Best: 1\nno, wait\n**Best: Candidate 2.**", 3) == 1
    for text in (
        "",
        "<think>\nBest: 1\n</think>\nall of them",
        "the best is 2, or so",
        "Best: 4",
        "Best: 0",
        "Best: none",
        "Best: 99999999999999999999",
    ):
        assert best_named(text, 3) is None
    shown = chops_prompt(problem(text="Why?"), ["x", "y"])[-1].text
    assert shown.index("Why?") < shown.index("Candidate 1:\nx") < shown.index("Candidate 2:\ny")


def naming(text: str) -> Says:
    """A judge that names the candidate with this text."""

    def says(prompt: str, child: int) -> str:
        listed = [part.split("\n\n")[0] for part in prompt.split("\nCandidate ")[1:]]
        (number,) = (part.split(":")[0] for part in listed if text in part)
        return f"- must be right\n\nBest: {number}"

    return says


def test_chops_takes_the_named_candidate_wherever_it_is_shown() -> None:
    texts = ["a #### 1", "b #### 2", "c #### 2", "d #### 3"]
    for order in permutations(texts):
        trace = solved("chops", judged(list(order), naming("d ####")), n=4)
        assert (trace.answer, trace.confidence, judgements(trace)) == ("3", 0.25, 1)
        assert trace.rounds[0].chosen == "model/0/0"  # the greedy one, until the judge has spoken


def test_candidates_are_shown_once_and_in_an_order_of_the_seed() -> None:
    shown = set()
    for seed in range(8):
        seen: list[Request] = []
        texts = ["a #### 1", "a #### 1", "b #### 2", "no answer", "c #### 3"]
        solved("chops", judged(texts, lambda *_: "Best: 1", seen), seed=seed, n=5)
        prompt = next(request.messages[-1].text for request in seen if request.address[0] == "judge")
        assert prompt.count("\nCandidate ") == 3
        assert "no answer" not in prompt
        shown.add(tuple(sorted("abc", key=lambda letter: prompt.index(f"{letter} ####"))))
    assert len(shown) > 1  # a false alarm in 6 * (1/6)^8, and the seeds are fixed


def test_a_judge_that_names_none_is_asked_once_more_and_then_it_is_the_greedy_sample() -> None:
    texts = ["a #### 1", "b #### 2", "c #### 2"]
    seen: list[Request] = []
    trace = solved("chops", judged(texts, lambda *_: "Best: 9", seen), n=3)
    assert (trace.answer, trace.rounds[-1].chosen, judgements(trace)) == ("1", "model/0/0", 2)
    assert [request.temperature for request in seen if request.address[0] == "judge"] == [0.0, 0.8]

    said = iter(["?", "Best: 1"])
    again = solved("chops", judged(texts, lambda *_: next(said)), n=3)
    assert again.rounds[-1].chosen is not None
    assert len(again.rounds) == 2

    unreadable = solved("chops", judged(["no idea", *texts], lambda *_: "?"), n=4)
    assert unreadable.answer == "2"  # the greedy sample is not valid: the majority


# ---------------------------------------------------------------- X-MBR


def test_reading_an_agreement() -> None:
    assert agreement("They differ.\nScore: 7") == 0.7
    assert agreement("Score: 2\n**Score: 10/10**") == 1.0
    assert agreement("Score: 2.5.") == 0.25
    for text in ("", "Score: 11", "Score: high", "score 4 and more"):
        assert agreement(text) is None
    asked = evidence_prompt(problem(text="Why?"), "Chinese")[-1].text
    assert asked.startswith("Why?")
    assert asked.endswith("in Chinese.")


U = {"ab": 6, "ac": 2, "bc": 5, "a第": 3, "b第": 4, "c第": 9}
THREE = ["a #### 1", "b #### 2", "c #### 3"]


def agrees(prompt: str, child: int) -> str:
    one, two = (part[0] for part in prompt.split("\nResponse ")[1:] for part in [part.split(":\n")[1]])
    return f"Score: {U.get(one + two, U.get(two + one))}"


def test_evidence_in_another_language_flips_the_choice() -> None:
    alone = solved("x_mbr", judged(THREE, agrees), n=3, m=0)
    assert alone.answer == "2"
    assert alone.rounds[-1].scores == pytest.approx((0.40, 0.55, 0.35))
    assert judgements(alone) == 3
    assert not any(candidate.address[1] == "evidence" for candidate in alone.candidates)
    for order in permutations(THREE):
        trace = solved("x_mbr", judged(list(order), agrees), n=3, m=1)
        assert trace.answer == "3"
        assert trace.rounds[-1].scores is not None
        known = dict(zip(order, trace.rounds[-1].scores, strict=False))
        assert [known[text] for text in THREE] == pytest.approx([0.3667, 0.5000, 0.5333], abs=5e-5)
        assert judgements(trace) == 3 + 3 * 1


def test_evidence_is_never_chosen_and_ties_go_to_the_greedy_sample() -> None:
    for order in permutations(THREE):
        trace = solved("x_mbr", judged(list(order), lambda *_: "Score: 5"), n=3, m=3)
        assert trace.rounds[-1].chosen == "model/0/0"
        assert judgements(trace) == 3 + 3 * 3
    longer = ["much longer a #### 1", *THREE[1:]]
    assert solved("x_mbr", judged(longer, lambda *_: "Score: 5"), n=3).answer == "1"


def test_without_any_agreement_x_mbr_is_the_greedy_sample() -> None:
    trace = solved("x_mbr", judged([THREE[0], "b #### 2", "c #### 2"], lambda *_: "?"), n=3)
    assert (trace.answer, trace.rounds[-1].chosen) == ("1", "model/0/0")


def test_equal_texts_agree_without_a_judge() -> None:
    trace = solved("x_mbr", judged([THREE[0], THREE[1], THREE[1]], lambda *_: "Score: 0"), n=3, m=0)
    assert (trace.answer, judgements(trace)) == ("2", 1)  # one pair of different texts


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", JUDGED)
def test_nothing_is_asked_where_there_is_nothing_to_choose(name: str) -> None:
    for texts in (["a #### 1", "b #### 1", "c #### 1"], ["a #### 1", "no", "none"], ["no", "none", "never"]):
        trace = solved(name, judged(texts, lambda *_: "?"), n=3)
        assert trace.answer == (None if texts[0] == "no" else "1")
        assert judgements(trace) == 0
        assert {candidate.address[0] for candidate in trace.candidates} == {"model"}
    assert solved(name, judged(["a #### 7"], lambda *_: "?"), n=1).answer == "7"


@pytest.mark.parametrize("name", JUDGED)
def test_what_was_reported_first_stands_where_the_judge_fails_or_cannot_be_paid(name: str) -> None:
    texts = ["b #### 2", "c #### 2", "a #### 1"]
    trace = solved(name, judged(texts, lambda *_: EngineError("the judge is gone")), n=3)
    assert (trace.answer, trace.stopped) == ("2", "error")
    assert "the judge is gone" in (trace.error or "")
    trace = solved(name, judged(texts, lambda *_: "?"), n=3, budget="340-tokens")
    assert (trace.answer, trace.stopped) == ("2", "budget")
    assert trace.cost["tokens"] <= 340


@pytest.mark.parametrize("name", JUDGED)
def test_a_judge_of_its_own_is_asked_and_its_bill_is_apart(name: str) -> None:
    asked: list[Request] = []
    main = judged(THREE, lambda *_: "never asked")
    judge = judged([], lambda *_: "Score: 3", asked)
    trace = run(
        solve_async(
            Problem(id="p", messages=problem().messages),
            make_strategy(name, {"n": 3}),
            model=main,
            models={"judge": judge},
            sampling=Sampling(max_tokens=100),
        )
    )
    assert asked
    assert sum(line.children for line in trace.ledger() if line.kind == "judge") == len(asked)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        *((name, {"n": 0}, "n must be at least 1") for name in (*JUDGED, "hedged_sampling")),
        ("heimdall", {"m": 0}, "m must be at least 1"),
        ("heimdall", {"alpha": -1}, "alpha must be"),
        ("heimdall", {"alpha": math.nan}, "alpha must be"),
        ("failed_step_fraction", {"retries": -1}, "retries must be a number of at least 0"),
        ("chops", {"temperature": 0}, "temperature must be above 0"),
        ("hedged_sampling", {"temperature": math.nan}, "temperature must be above 0"),
        ("x_mbr", {"m": -1}, "m must be at least 0"),
        ("x_mbr", {"language": " "}, "language must be"),
    ],
)
def test_bad_hyperparameters(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_strategy(name, parameters)


# ---------------------------------------------------------------- graphs as DOT has them


OK = "1[status=ok] 2[status=failed] 3[status=final]"


@pytest.mark.parametrize(
    ("said", "fraction"),
    [
        (f"digraph {{ {OK} 1->{{2 3}} }}", 1 / 3),
        (f"digraph {{ {OK} 1->2, 3 }}", 1 / 3),
        (f"strict digraph G {{ {OK}; subgraph s {{2;3}}; 1 -> subgraph t {{2 3}}; }}", 1 / 3),
        ("digraph { node [status=ok]; a->b->c; c[status=final] }", 0),
        ("digraph { c -> d; node [status=ok, shape=box]; {a b} -> c; a->b; d[status=final] c[status=ok] }", None),
        ('digraph { "the start" [label="a -> b {c} [d]; e" status=ok]; "the end"[status="final"] '
         '"the start":n -> "the end":s [label="{1 2}", weight=2, status=failed]; }', 0),
        ('digraph { # a comment\n 1 [status=ok] /* 2 [status=ok] */ 2 [status="fi" + "nal"] // 2 -> 7\n 1->2 }', 0),
        ("digraph { 1 [status=ok, label=<<b>x</b> -&gt; y>][color=red] 2 [bold; status=final]; 1 -- 2; dpi=9 }", 0),
        ("A graph of it. digraph { 1 [status=ok] }\nBetter:\n```dot\ndigraph { "
         "S1 [status=ok] S2 [status=failed] S3 [status=final] S1 -> S2 S1 -> S3 }\n```\nThat is {all}.", 1 / 3),
        ("digraph { 1 [status=ok] 2 [status=final] 1 -> 2", 0),  # the last brace is missing
        ('digraph { 1 [status=ok label="open] 2 [status=final] 1 -> 2 }', None),
        ("digraph { 1 [status=ok 2 [status=final] 1 -> 2 }", None),
        ("digraph { 1 [status=ok] 2 [status=final] 1 -> }", None),
        ("digraph { a1 [status=ok] b1 [status=final] a1 -> b1 }", 0),  # two steps, although they have one number
        ("digraph { 1 [status=ok] 2 [status=final] 10 [status=failed] 1 -> {2; 10} }", 1 / 3),
    ],
)  # fmt: skip
def test_graphs_are_read_as_dot_has_them(said: str, fraction: float | None) -> None:
    assert failed_step_fraction(said) == (None if fraction is None else pytest.approx(fraction))


@pytest.mark.parametrize(
    "text",
    [
        "digraph {" * 40_000,
        "digraph {" + "{" * 200_000,
        'digraph {"' + '\\"' * 100_000,
        "graph " * 60_000,
        "digraph {{" + " ".join(map(str, range(30_000))) + "}->{" + " ".join(map(str, range(30_000))) + "}}",
        "digraph {" + "/*" * 100_000,
        "digraph {" + "<" * 200_000,
        "1 [a=b " * 40_000,
        "\n" * 300_000 + "best",
        "score" * 60_000,
    ],
)
def test_hostile_texts_are_read_in_one_pass(text: str) -> None:
    assert failed_step_fraction(text) is None  # within the limit of every test
    assert best_named(text, 3) is None
    assert agreement(text) is None


# ---------------------------------------------------------------- pairs of X-MBR


@pytest.mark.parametrize(("candidates", "texts"), [(2, 2), (4, 4), (5, 8), (1, 6), (7, 7)])
def test_every_pair_is_asked_once_and_every_text_comes_first_as_often_as_second(candidates: int, texts: int) -> None:
    pairs = judged_pairs(candidates, texts)
    assert {frozenset(pair) for pair in pairs} == {
        frozenset((a, b)) for a in range(candidates) for b in range(texts) if a != b
    }
    assert len(pairs) == len({frozenset(pair) for pair in pairs})
    for text in range(texts):
        first, second = (sum(pair[place] == text for pair in pairs) for place in (0, 1))
        assert abs(first - second) <= 2


def test_copies_are_not_asked_about_again() -> None:
    seen: list[Request] = []
    texts = [THREE[0], THREE[1], THREE[1], "d #### 4", THREE[0], THREE[2], THREE[2]]
    trace = solved("x_mbr", judged(texts, lambda *_: "Score: 4", seen), n=7, m=0)
    assert judgements(trace) == 6  # of four different texts
    assert trace.rounds[-1].scores == pytest.approx([(1.0 + 5 * 0.4) / 6] * 3 + [0.4] + [(1.0 + 5 * 0.4) / 6] * 3)


def test_more_pairs_than_can_be_judged_are_refused() -> None:
    assert make_strategy("x_mbr", {"n": 64})
    for parameters in ({"n": 1024}, {"n": 90, "m": 3}, {"n": 10, "m": 1000}):
        with pytest.raises(UsageError, match=r"pairs for the judge, more than 4,096: choose a smaller n or m"):
            make_strategy("x_mbr", parameters)


def test_what_was_judged_before_the_budget_ran_out_counts() -> None:
    texts = [f"{number} #### {number}" for number in range(20)]
    trace = solved("x_mbr", judged(texts, lambda *_: "Score: 4"), n=20, m=0, budget="80k-tokens")
    assert judgements(trace) == 190
    less = solved("x_mbr", judged(texts, lambda *_: "Score: 4"), n=20, m=0, budget="50k-tokens")
    assert 128 <= judgements(less) < 190
    assert less.rounds[-1].scores is not None
