"""Selection without a verifier: likelihood, perplexity consistency, RPC, Borda, features, MBR."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outthink.driver import solve_async
from outthink.errors import MissingResource, UsageError
from outthink.maths.selection import answer_totals, best_of, codes, first_by, majority, weighted_vote
from outthink.models.engine import Completion, EngineSpec, Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.borda import borda_votes
from outthink.strategies.parallel.feature_vote import feature_weights, marker_rates
from outthink.strategies.parallel.likelihood import mean_logprob
from outthink.strategies.parallel.mbr import chrf, evidence_of, expected_utility, longest_compared
from outthink.strategies.parallel.perplexity_consistency import perplexity_vote
from outthink.strategies.parallel.rpc import pruned, rpc_vote, weibull_mixture
from outthink.types import Candidate, Problem, Sampling, Trace
from tests.tools.toys import problem
from tests.tools.virtual import run

SELECTORS = ("likelihood", "perplexity_consistency", "rpc", "borda", "feature_vote", "mbr")

# seven paths: A twice and B once, all probable; C four times, all improbable
KEYS = np.array([0, 0, 1, 2, 2, 2, 2])
P = np.array([0.62, 0.58, 0.55, 0.12, 0.10, 0.09, 0.11])

keys_of = hnp.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 7)), elements=st.integers(-1, 3))


class Unseeing(ScriptedEngine):
    """A model that gives no logprobs."""

    @property
    def spec(self) -> EngineSpec:
        return replace(super().spec, powers=frozenset({"seed"}))


def says(*texts: str, p: Sequence[float] | None = None) -> ScriptedEngine:
    """Sample k is texts[k], each of its tokens with probability p[k]."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        text = texts[child]
        ended = len(text) <= request.max_tokens
        logprobs = None if p is None or math.isnan(p[child]) else tuple(math.log(p[child]) for _ in text)
        return Completion(text=text, tokens=len(text), logprobs=logprobs, finish="eos" if ended else "length")

    return ScriptedEngine(reply)


def solved(name: str, engine: ScriptedEngine, asked: Problem | None = None, **parameters: Any) -> Trace:
    seed, options = parameters.pop("seed", 0), {"sampling": Sampling(max_tokens=60)}
    options.update({key: parameters.pop(key) for key in ("verifier",) if key in parameters})
    return run(
        solve_async(asked or problem(), make_strategy(name, parameters), model=engine, seed=seed, **options)  # type: ignore[arg-type]  # passed on
    )


def varied(request: Request, child: int, rng: np.random.Generator) -> str:
    """Distinct texts of one length with one of three answers."""
    return f"{rng.integers(10**8):08d} so #### {rng.integers(10, 13)}"


# ---------------------------------------------------------------- two helpers of selection


def test_totals_of_answers_and_lexicographic_choice() -> None:
    keys = np.array([[0, 1, 0, -1], [-1, -1, -1, -1]])
    assert answer_totals(keys, [1.0, 2.0, 3.0, 9.0]).tolist() == [[4, 2, 4, 0], [0, 0, 0, 0]]
    assert first_by(keys >= 0, [1, 2, 2, 5], [0, 1, 2, 0]).tolist() == [2, -1]
    assert first_by([True, True], [np.nan, -5.0]) == 1
    assert first_by([True, True], [0.1 + 0.2, 0.3], [0, 1]) == 1  # a tie but for the last place
    assert first_by(np.zeros((2, 0), bool), np.zeros((2, 0))).tolist() == [-1, -1]
    assert answer_totals(np.zeros((2, 0), int), np.zeros((2, 0))).shape == (2, 0)


# ---------------------------------------------------------------- perplexity consistency and RPC


def test_perplexity_consistency_sums_probabilities_where_self_consistency_counts() -> None:
    assert KEYS[majority(KEYS).index] == 2
    assert majority(KEYS).share == pytest.approx(4 / 7)
    totals = answer_totals(KEYS, P)
    assert totals[[0, 2, 3]] == pytest.approx([1.20, 0.55, 0.42])
    assert totals[[0, 2, 3]] / P.sum() == pytest.approx([0.5530, 0.2535, 0.1935], abs=5e-5)
    vote = perplexity_vote(KEYS, np.log(P))
    assert vote.index == 0
    assert vote.share == pytest.approx(0.5530, abs=5e-5)


def test_rpc_prunes_the_improbable_paths() -> None:
    fit = weibull_mixture(P)
    assert fit is not None
    assert fit == pytest.approx([0.4286, 22.5, 0.597, 10.7, 0.110], rel=5e-3)
    means = fit[[2, 4]] * [math.gamma(1 + 1 / k) for k in fit[[1, 3]]]
    assert means == pytest.approx([0.583, 0.105], abs=1e-3)
    assert P.mean() == pytest.approx(0.31)
    assert pruned(P).tolist() == [False] * 3 + [True] * 4
    vote = rpc_vote(KEYS, np.log(P))
    assert vote.index == 0
    assert vote.share == pytest.approx(0.686, abs=5e-4)


def test_perplexity_consistency_can_follow_the_crowd_and_pruning_stops_that() -> None:
    keys = np.array([0] * 2 + [2] * 12)
    p = np.log([0.6] * 2 + [0.12] * 12)
    assert keys[perplexity_vote(keys, p).index] == 2  # 1.44 against 1.20
    assert keys[rpc_vote(keys, p).index] == 0


def test_copies_of_a_path_count_once_but_equal_probabilities_do_not_make_copies() -> None:
    p = np.log([0.4, 0.4, 0.5])
    assert perplexity_vote([0, 0, 1], p).index == 0
    assert perplexity_vote([0, 0, 1], p, paths=[0, 0, 1]).index == 2
    assert perplexity_vote([0, 0, 1], p, paths=[0, 1, 2]).index == 0
    # a copy that has no logprob does not take the place of one that has
    assert perplexity_vote([0, 0, 1], [np.nan, np.log(0.6), np.log(0.5)], paths=[0, 0, 1]).index == 1


@settings(deadline=None)
@given(keys_of)
def test_equal_probabilities_are_the_majority_and_nothing_is_pruned(keys: np.ndarray) -> None:
    logprobs = np.full(keys.shape, -0.7)
    for vote in (perplexity_vote, rpc_vote):
        assert np.array_equal(vote(keys, logprobs).index, majority(keys).index)
        assert np.array_equal(vote(keys, np.full(keys.shape, np.nan)).index, majority(keys).index)
    assert not pruned(np.exp(logprobs)).any()


def test_one_path_for_each_answer_is_the_likeliest_one() -> None:
    p = np.log(np.random.default_rng(1).random((50, 6)))
    keys = np.broadcast_to(np.arange(6), p.shape)
    assert np.array_equal(perplexity_vote(keys, p).index, best_of(keys, p).index)


@settings(deadline=None)
@given(hnp.arrays(float, st.integers(1, 12), elements=st.floats(0, 1)))
def test_what_is_above_the_mean_is_never_pruned(p: np.ndarray) -> None:
    dropped = pruned(p)
    assert not dropped[p >= p.mean()].any()
    assert not dropped.all()


def test_a_batch_is_its_rows_and_the_order_does_not_matter() -> None:
    rows = np.stack([P, P[::-1], np.full(7, 0.5)])
    keys = np.stack([KEYS, KEYS[::-1], KEYS])
    for vote in (perplexity_vote, rpc_vote):
        together = vote(keys, np.log(rows))
        alone = [vote(key, np.log(row)) for key, row in zip(keys, rows, strict=True)]
        assert together.index.tolist() == [int(choice.index) for choice in alone]
        assert together.share == pytest.approx([float(choice.share) for choice in alone])
    for order in ([2, 0, 1, 3, 4, 5, 6], [3, 4, 5, 6, 0, 1, 2], np.argsort(P), np.argsort(-P)):
        assert KEYS[order][rpc_vote(KEYS[order], np.log(P[order])).index] == 0
        assert KEYS[order][perplexity_vote(KEYS[order], np.log(P[order])).index] == 0


def test_probabilities_that_underflow_missing_ones_and_nothing_at_all() -> None:
    assert perplexity_vote([0, 1], [-9000.0, -8999.0]).index == 1
    assert perplexity_vote([0, 1], [-9000.0, -8999.0]).share == pytest.approx(1 / (1 + math.exp(-1)))
    assert perplexity_vote([0, 1], [-np.inf, -9000.0]).index == 1
    assert perplexity_vote([0, 1, 1], [-np.inf] * 3).index == 1
    assert perplexity_vote([0, 1, 1], [-1.0, np.nan, np.nan]).index == 0
    for vote in (perplexity_vote, rpc_vote):
        assert vote([-1, -1], [-1.0, -1.0]).index == -1
        assert vote([-1, 0], [-0.1, -5.0]).index == 1
        assert vote(np.zeros((2, 0), int), np.zeros((2, 0))).index.tolist() == [-1, -1]
        assert vote([0] * 8 + [1], [-np.inf] * 8 + [-1.0]).index == 8
        with pytest.raises(ValueError, match="at most 0"):
            vote([0, 1], [np.inf, 0.0])
    assert weibull_mixture([0.1, 0.2, 0.9, 0.5, 0.6]) is None  # no more paths than parameters
    assert weibull_mixture([0.5] * 20) is None
    assert weibull_mixture([0.0] * 9 + [1.0]) is not None


def test_the_paths_of_a_trace_are_its_texts() -> None:
    texts = ["a #### 1", "a #### 1", "b #### 2", "c #### 3"]
    engine = says(*texts, p=[0.4, 0.4, 0.5, 0.3])
    trace = solved("perplexity_consistency", engine, n=4)
    assert trace.answer == "2"
    assert trace.confidence == pytest.approx(0.5 / 1.2)
    assert trace.rounds[-1].scores == pytest.approx(tuple(math.log(p) for p in (0.4, 0.4, 0.5, 0.3)))
    assert solved("rpc", engine, n=4).answer == "2"  # too few to prune


def test_rpc_as_a_strategy() -> None:
    texts = [f"{number} #### {10 + key}" for number, key in enumerate(KEYS)]
    for order in (list(range(7)), list(range(7))[::-1]):
        engine = says(*(texts[at] for at in order), p=[float(P[at]) for at in order])
        assert solved("rpc", engine, n=7).answer == "10"
        assert solved("self_consistency", engine, n=7).answer == "12"


@pytest.mark.parametrize("name", ["perplexity_consistency", "rpc", "borda"])
@pytest.mark.parametrize("seed", range(5))
def test_with_equal_logprobs_they_are_self_consistency(name: str, seed: int) -> None:
    plain = solved("self_consistency", ScriptedEngine(varied), n=9, seed=seed)
    trace = solved(name, ScriptedEngine(varied), n=9, seed=seed)
    assert [candidate.text for candidate in trace.candidates] == [candidate.text for candidate in plain.candidates]
    assert (trace.answer, trace.rounds[-1].chosen) == (plain.answer, plain.rounds[-1].chosen)


@pytest.mark.parametrize("name", ["perplexity_consistency", "rpc", "likelihood"])
def test_a_model_without_logprobs_is_refused(name: str) -> None:
    with pytest.raises(MissingResource, match="logprobs"):
        solved(name, Unseeing(varied), n=3)


# ---------------------------------------------------------------- likelihood


def test_likelihood_takes_the_mean_and_not_the_sum() -> None:
    engine = says("#### 1", "a long way round to #### 2", p=[0.5, 0.6])
    trace = solved("likelihood", engine, n=2)
    assert trace.answer == "2"
    assert trace.rounds[-1].scores == pytest.approx((math.log(0.5), math.log(0.6)))
    assert mean_logprob(Candidate(address=("model", 0, 0))) is None
    assert mean_logprob(Candidate(address=("model", 0, 0), logprobs=())) is None


def test_likelihood_leaves_out_what_is_unfinished_unreadable_or_unknown() -> None:
    engine = says("#### 1" + " x" * 60, "I do not know", "#### 2", "#### 3", p=[0.99, 0.98, math.nan, 0.1])
    assert solved("likelihood", engine, n=4).answer == "3"
    nobody = says("a #### 1", "b #### 2", "c #### 2", p=[math.nan] * 3)
    for name in SELECTORS:
        assert solved(name, nobody, n=3).answer == "2"  # without any logprob: the majority


# ---------------------------------------------------------------- Borda


@pytest.mark.parametrize(
    ("p", "votes", "winner"),
    [(0, [1, 2, 1], 1), (0.5, [2.000, 3.146, 1], 1), (1, [4, 5, 1], 1), (2, [16, 13, 1], 0)],
)
def test_borda_votes(p: float, votes: list[float], winner: int) -> None:
    keys, scores = codes(["A", "B", "B", "C"]), np.array([0.9, 0.5, 0.8, 0.4])
    for order in permutations(range(4)):
        places = list(order)
        found = borda_votes(keys[places], scores[places], p) * 4**p
        totals = answer_totals(keys[places], found)
        assert [totals[keys[places] == key][0] for key in range(3)] == pytest.approx(votes, abs=5e-4)
        assert keys[places][weighted_vote(keys[places], found).index] == winner


@settings(deadline=None)
@given(keys_of, st.data())
def test_borda_lies_between_the_majority_and_the_best_score(keys: np.ndarray, data: st.DataObject) -> None:
    scores = data.draw(hnp.arrays(float, keys.shape, elements=st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0])))
    assert np.array_equal(weighted_vote(keys, borda_votes(keys, scores, 0.0)).index, majority(keys).index)
    distinct = scores + np.arange(keys.shape[-1]) * 1e-3
    most = weighted_vote(keys, borda_votes(keys, distinct, 400.0)).index
    assert np.array_equal(most, best_of(keys, distinct).index)
    equal = borda_votes(keys, np.full(keys.shape, 0.3), 2.0)
    assert np.array_equal(weighted_vote(keys, equal).index, majority(keys).index)


def test_borda_ranks_only_what_is_valid_and_scored() -> None:
    votes = borda_votes([0, -1, 1, 1], [1.0, 9.0, np.nan, 2.0], 1.0)
    assert np.array_equal(votes, [0.5, np.nan, np.nan, 1.0], equal_nan=True)
    assert borda_votes([0, 0, 1], [1.0, 1.0, -np.inf], 1.0) == pytest.approx([2.5 / 3, 2.5 / 3, 1 / 3])
    assert np.isnan(borda_votes([-1, -1], [1.0, 2.0], 1.0)).all()
    unscored = borda_votes([0, -1, 1], [np.nan] * 3, 3.0)
    assert unscored[0] == unscored[2] > 0
    assert borda_votes(np.zeros((2, 0), int), np.zeros((2, 0)), 1.0).shape == (2, 0)


def test_borda_ranks_by_a_verifier_where_there_is_one() -> None:
    async def first(question: str, text: str) -> float:
        return -float(text[0])

    texts = ["3 #### 1", "2 #### 1", "1 #### 2"]
    assert solved("borda", Unseeing(lambda request, child, rng: texts[child]), n=3, p=3, verifier=first).answer == "2"
    assert solved("borda", says(*texts, p=[0.9, 0.5, 0.4]), n=3, p=3).answer == "1"
    with pytest.raises(MissingResource, match="ranks by logprobs"):
        solved("borda", Unseeing(varied), n=3)


# ---------------------------------------------------------------- features


def test_markers_are_whole_words_per_thousand() -> None:
    assert marker_rates("") == (0, 0, 0)
    assert marker_rates("Wait, let me think. WAIT wait") == pytest.approx((0, 1000 * 4 / 6, 0))
    assert marker_rates("maybe mighty; I  think so") == pytest.approx((400, 0, 200))
    assert marker_rates("waiter, firstly, because") == pytest.approx((0, 0, 1000 / 3))


def test_weights_are_standardised_within_the_question() -> None:
    lengths = np.array([[10.0], [20.0]])
    assert feature_weights([0, 1], lengths, [1.0]) == pytest.approx([1, math.exp(-2)])  # z is -1 and 1
    assert feature_weights([0, 1], 7 + 100 * lengths, [1.0]) == pytest.approx([1, math.exp(-2)])
    assert feature_weights([0, 1], lengths, [-1.0]) == pytest.approx([math.exp(-2), 1])
    assert feature_weights([0, 1, -1], [[10.0], [20.0], [1e9]], [1.0]) == pytest.approx([1, math.exp(-2), 0])
    assert feature_weights([0], [[5.0]], [1.0]) == pytest.approx([1])
    assert feature_weights([0, 1], [[0.1], [0.1]], [1.0]).tolist() == [1, 1]
    assert feature_weights([-1, -1], lengths, [1.0]).tolist() == [0, 0]
    assert feature_weights(np.zeros((2, 0), int), np.zeros((2, 0, 1)), [1.0]).shape == (2, 0)
    batch = feature_weights([[0, 1], [0, -1]], [[[10.0], [20.0]], [[3.0], [4.0]]], [1e6])
    assert batch.tolist() == [[1, 0], [1, 0]]
    with pytest.raises(ValueError, match="finite"):
        feature_weights([0, 1], [[np.nan], [1.0]], [1.0])


def test_a_short_answer_beats_two_hesitating_ones() -> None:
    long = "Hmm, wait. Perhaps, maybe. Let me see. Actually #### 2"
    texts = ["So #### 1", long, long + "."]
    for order in permutations(range(3)):
        engine = says(*(texts[place] for place in order), p=[0.5] * 3)
        assert solved("feature_vote", engine, n=3).answer == "1"
        assert solved("self_consistency", engine, n=3).answer == "2"


@pytest.mark.parametrize("seed", range(5))
def test_with_coefficients_of_zero_it_is_self_consistency(seed: int) -> None:
    nothing: dict[str, Any] = {"length": 0, "hedging": 0, "thinking": 0, "discourse": 0}
    plain = solved("self_consistency", ScriptedEngine(varied), n=9, seed=seed)
    assert solved("feature_vote", ScriptedEngine(varied), n=9, seed=seed, **nothing).rounds[-1].chosen == (
        plain.rounds[-1].chosen
    )


# ---------------------------------------------------------------- MBR


def test_chrf_by_hand() -> None:
    # of "ab" against "abc": precision 1 and 1; recall 2/3 and 1/2; there are no 3-grams in "ab"
    recall = 7 / 12
    there, back = 5 * recall / (4 + recall), 5 * recall / (4 * recall + 1)
    assert chrf(["ab", "abc"]) == pytest.approx(np.array([[1, there], [back, 1]]))
    assert chrf(["a b\nc", "abc"]) == pytest.approx(np.ones((2, 2)))
    assert chrf(["aaa", "bbb"]) == pytest.approx(np.eye(2))
    assert chrf(["", "x"])[0].tolist() == [0, 0]
    # "aa" and "aaaa" share two of a, one of aa: precision 1 and 1, recall 1/2 and 1/3
    assert chrf(["aa", "aaaa"])[0, 1] == pytest.approx(5 * (5 / 12) / (4 + 5 / 12))
    assert chrf([]).shape == (0, 0)


@settings(deadline=None)
@given(st.lists(st.text("ab ", max_size=12), min_size=1, max_size=4))
def test_chrf_is_a_similarity(texts: list[str]) -> None:
    found = chrf(texts)
    assert (found >= 0).all()
    assert (found <= 1 + 1e-12).all()
    for row, text in enumerate(texts):
        assert found[row, row] == pytest.approx(float(bool(text.strip())))


def test_expected_utility_without_oneself_and_with_further_evidence() -> None:
    u = np.array([[1, 0.6, 0.2], [0.6, 1, 0.5], [0.2, 0.5, 1]])
    assert expected_utility(u) == pytest.approx([0.40, 0.55, 0.35])
    more = np.column_stack([u, [0.3, 0.4, 0.9]])
    assert expected_utility(more) == pytest.approx([0.3667, 0.5000, 0.5333], abs=5e-5)
    assert expected_utility(np.stack([u, u])).shape == (2, 3)
    holes = u.copy()
    holes[0, 1] = np.nan
    assert expected_utility(holes) == pytest.approx([0.2, 0.55, 0.35])
    assert np.isnan(expected_utility([[1.0]])).all()
    assert expected_utility(np.zeros((0, 0))).shape == (0,)


@settings(deadline=None)
@given(keys_of)
def test_mbr_with_equality_is_the_majority(keys: np.ndarray) -> None:
    valid = keys >= 0
    both = valid[..., :, None] & valid[..., None, :]
    equal = np.where(both, keys[..., :, None] == keys[..., None, :], np.nan)
    assert np.array_equal(best_of(keys, expected_utility(equal)).index, majority(keys).index)


@pytest.mark.parametrize("seed", range(5))
def test_mbr_of_keys_is_self_consistency(seed: int) -> None:
    plain = solved("self_consistency", ScriptedEngine(varied), n=9, seed=seed)
    trace = solved("mbr", ScriptedEngine(varied), n=9, seed=seed, compare="key")
    assert [candidate.text for candidate in trace.candidates] == [candidate.text for candidate in plain.candidates]
    assert trace.rounds[-1].chosen == plain.rounds[-1].chosen


OPEN = Problem(id="open", messages=problem().messages, answer="text")


@pytest.mark.parametrize("compare", ["text", "answer"])
def test_mbr_takes_the_most_usual_of_free_texts(compare: str) -> None:
    texts = ["the cat sat on the mat", "a cat sat on the mat", "the cat sat on a mat!", "dogs bark"]
    for order in permutations(range(4)):
        trace = solved("mbr", says(*(texts[place] for place in order)), OPEN, n=4, compare=compare)
        assert trace.text == texts[0]
        assert trace.rounds[-1].scores is not None
        assert min(s for s in trace.rounds[-1].scores if s is not None) == trace.rounds[-1].scores[order.index(3)]


def test_mbr_of_texts_leaves_thoughts_out() -> None:
    texts = ["xyz</think>red", "blue</think>red", "blue</think>green"]
    assert solved("mbr", says(*texts), OPEN, n=3).text == "xyz</think>red"


def test_unfinished_samples_are_no_evidence() -> None:
    texts = ["cat" * 30, "cat" * 30, "cat" * 30, "cats", "dogs", "dog"]
    trace = solved("mbr", says(*texts), OPEN, n=6)
    assert trace.text == "dogs"  # and not cats, which the unfinished ones are like
    assert trace.rounds[-1].scores is not None
    assert trace.rounds[-1].scores[:3] == (None, None, None)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", SELECTORS)
def test_one_sample_is_that_sample_and_no_valid_one_is_none(name: str) -> None:
    assert solved(name, says("#### 7", p=[0.5]), n=1).answer == "7"
    trace = solved(name, says("no", "idea", "at all", p=[0.5] * 3), n=3)
    assert (trace.answer, trace.stopped) == (None, "finished")


@pytest.mark.parametrize("name", SELECTORS)
def test_the_order_of_samples_does_not_change_the_answer(name: str) -> None:
    texts = ["aa #### 11", "ab #### 11", "ac #### 11", "some more words about it #### 22", "zz #### 33"]
    p = [0.9, 0.8, 0.7, 0.3, 0.2]
    orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 4, 0, 1, 2], sorted(range(5), key=lambda at: len(texts[at]))]
    for order in orders:
        assert solved(name, says(*(texts[at] for at in order), p=[p[at] for at in order]), n=5).answer == "11"


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        *((name, {"n": 0}, "n must be at least 1") for name in SELECTORS),
        ("borda", {"p": -1}, "p must be a number of at least 0"),
        ("borda", {"p": math.inf}, "p must be a number of at least 0"),
        ("feature_vote", {"length": -1}, "length must be a number of at least 0"),
        ("feature_vote", {"discourse": math.nan}, "discourse must be a number"),
        ("mbr", {"compare": "taste"}, "compare"),
    ],
)
def test_bad_hyperparameters(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_strategy(name, parameters)


# ---------------------------------------------------------------- MBR at any size


def naive_chrf(hypothesis: str, reference: str) -> float:
    hypothesis, reference = ("".join(text.split()) for text in (hypothesis, reference))
    precisions, recalls = [], []
    for order in range(1, 7):
        ours, theirs = (
            Counter(text[start : start + order] for start in range(len(text) - order + 1))
            for text in (hypothesis, reference)
        )
        if ours and theirs:
            shared = (ours & theirs).total()
            precisions.append(shared / ours.total())
            recalls.append(shared / theirs.total())
    p, r = (sum(values) / max(len(values), 1) for values in (precisions, recalls))
    return 5 * p * r / (4 * p + r) if p + r else 0.0


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab c\u0301\U0001f600", max_size=14), max_size=6), st.data())
def test_chrf_is_that_of_counted_n_grams(texts: list[str], data: st.DataObject) -> None:
    evidence = data.draw(st.lists(st.sampled_from(range(len(texts))), max_size=4)) if texts else []
    expected = np.array([[naive_chrf(one, texts[other]) for other in evidence] for one in texts])
    assert chrf(texts, evidence) == pytest.approx(expected.reshape(len(texts), len(evidence)))


def test_the_evidence_is_spread_evenly_over_the_valid_ones() -> None:
    valid = np.random.default_rng(0).random((5, 900)) < [[0.0], [0.05], [0.07], [0.5], [1.0]]
    chosen = evidence_of(valid)
    assert not (chosen & ~valid).any()
    assert chosen.sum(-1).tolist() == np.minimum(valid.sum(-1), 64).tolist()
    for row in range(5):
        places = np.flatnonzero(chosen[row][valid[row]])
        assert np.ptp(np.diff(places, prepend=-1)) <= 1 if len(places) else not valid[row].any()


def test_what_is_compared_is_bounded() -> None:
    for n in range(1, 5000, 7):
        assert longest_compared(n) * n <= 1 << 22
        assert longest_compared(n) * n * min(n, 64) <= 1 << 27
    assert longest_compared(16) > 200_000
    assert longest_compared(1024) >= 2_000


def test_mbr_of_keys_is_the_majority_in_ties_too() -> None:
    # two answers twice each: the second is shorter on average, the first has the shortest sample
    texts = ["a #### 1", "bb #### 2", "a much longer one #### 1", "bb #### 2"]
    for order in permutations(texts):
        ours, plain = (solved(name, says(*order), n=4, **more) for name, more in TIED.items())
        assert (ours.rounds[-1].chosen, ours.confidence) == (plain.rounds[-1].chosen, plain.confidence)
        assert ours.answer == "2"


TIED: dict[str, dict[str, Any]] = {"mbr": {"compare": "key"}, "self_consistency": {}}
