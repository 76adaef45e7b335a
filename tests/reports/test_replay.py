"""Replay: equal to naive references, exact where theory is exact, never fooled by order, and refusals with a reason."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import re
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import UnknownName, UsageError
from outthink.maths.selection import Drawn, Replayed
from outthink.models.scripted import ScriptedEngine
from outthink.records.pools import PoolData, read_pool
from outthink.records.runs import Result
from outthink.reports.curves import at_tokens, coverage_curve, majority, replayed_curve
from outthink.reports.replay import at_equal_cost, replay_pool
from outthink.strategies.making import make_strategy
from tests.tools.toys import problem
from tests.tools.virtual import run

Row = dict[str, Any]


def row(name: str, answers: Sequence[str | None], gold: str, **fields: Any) -> Row:
    samples = [{"answer": answer, "correct": answer == gold, "text": f"so {answer}"} for answer in answers]
    for key, values in fields.items():
        for sample, value in zip(samples, values, strict=True):
            sample[key] = value
    return {"id": name, "question": name, "answer": gold, "samples": samples}


def pool(tmp_path: Path, *rows: Row, name: str = "pool.jsonl") -> PoolData:
    return read_pool(write(tmp_path, *rows, name=name))


def write(tmp_path: Path, *rows: Row, name: str = "pool.jsonl") -> Path:
    path = tmp_path / name
    text = "".join(json.dumps(one) + "\n" for one in rows)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def exact_majority(answers: Sequence[str | None], gold: str, n: int) -> float:
    """Over all subsets, with tied answers sharing the credit."""
    credits = []
    for subset in itertools.combinations(answers, n):
        counts = Counter(answer for answer in subset if answer is not None)
        most = max(counts.values(), default=0)
        leaders = [answer for answer, count in counts.items() if count == most]
        credits.append(sum(answer == gold for answer in leaders) / len(leaders) if leaders else 0.0)
    return float(np.mean(credits))


ANSWERS: list[str | None] = ["a", "b", "b", "c", None, "a", "a", "b"]


@pytest.mark.parametrize("gold", ["a", "b", "c", "d"])
def test_majority_is_that_of_all_subsets(gold: str, tmp_path: Path) -> None:
    """Monte Carlo error of 20,000 subsamples: six standard deviations are 0.021, missed once in 10^8."""
    found = majority(pool(tmp_path, row("p", ANSWERS, gold)), range(1, 9), subsamples=20_000, seed=1)
    for n, at in found.items():
        assert at.accuracy[0] == pytest.approx(exact_majority(ANSWERS, gold, n), abs=0.021)
    assert found[8].accuracy[0] == pytest.approx(exact_majority(ANSWERS, gold, 8), abs=1e-6)


def test_majority_is_that_of_the_strategy_itself(tmp_path: Path) -> None:
    """The rule of the live strategy breaks ties by position, which random orders turn into expected credit."""
    data = pool(tmp_path, row("p", ANSWERS, "b"), row("q", ANSWERS, "a"))
    fast = majority(data, [3, 6], subsamples=20_000, seed=2)
    from outthink.reports.curves import _at

    for n in (3, 6):
        slow = _at(make_strategy("self_consistency"), data, n, 20_000, 2, None, None)  # type: ignore[arg-type]
        assert slow.accuracy == pytest.approx(fast[n].accuracy, abs=0.021)
        assert slow.abstained == pytest.approx(fast[n].abstained, abs=0.021)


@pytest.mark.parametrize("order", ["first", "last", "by length"])
def test_no_order_of_the_file_can_help(order: str, tmp_path: Path) -> None:
    """Best-of-n on constant scores is one random sample; six standard deviations of 20,000 draws are 0.018."""
    answers = ["right", *["wrong"] * 3]
    tokens = [5, 5, 5, 5]
    if order == "last":
        answers.reverse()
    if order == "by length":
        answers, tokens = ["wrong", "wrong", "wrong", "right"], [5, 5, 5, 5]
    one = row("p", answers, "right", tokens=tokens, reward=[1.0] * 4)
    data = pool(tmp_path, one)
    found = replayed_curve(make_strategy("best_of_n"), data, [2, 4], subsamples=20_000, seed=3, scorer="reward")
    assert found[2].accuracy[0] == pytest.approx(0.25, abs=0.019)
    assert found[4].accuracy[0] == pytest.approx(0.25, abs=0.019)


def test_best_of_n_with_a_perfect_scorer_is_coverage(tmp_path: Path) -> None:
    data = pool(tmp_path, row("p", ANSWERS, "c", reward=[answer == "c" for answer in ANSWERS]))
    exact = coverage_curve(data, [1, 2, 8])
    found = replayed_curve(make_strategy("best_of_n"), data, [1, 2, 8], subsamples=20_000, seed=4, scorer="reward")
    for n, at in found.items():
        assert at.accuracy[0] == pytest.approx(exact[n].accuracy[0], abs=0.021)


def test_equal_scores_weigh_as_a_vote(tmp_path: Path) -> None:
    data = pool(tmp_path, row("p", ANSWERS, "b", reward=[0.5] * 8))
    weighted = replayed_curve(
        make_strategy("weighted_best_of_n"), data, [5], subsamples=20_000, seed=5, scorer="reward"
    )
    voted = majority(data, [5], subsamples=20_000, seed=5)
    assert weighted[5].accuracy == pytest.approx(voted[5].accuracy, abs=0.021)


def test_tokens_are_those_of_the_samples_that_were_used(tmp_path: Path) -> None:
    one = row("p", ["a"] * 4, "a", tokens=[10, 20, 30, 40]) | {"prompt_tokens": 7}
    found = majority(pool(tmp_path, one), [1, 4], subsamples=10, seed=0)
    assert [float(at.tokens[0]) for at in found.values() if at.tokens is not None] == [32.0, 107.0]


def test_equal_tokens_lie_between_two_n(tmp_path: Path) -> None:
    one = row("p", ["a", "b", "b", "b"], "b", tokens=[10] * 4)
    base = majority(pool(tmp_path, one), [1, 2, 4], subsamples=4000, seed=0)
    between = at_tokens(base, 15.0)
    assert between is not None
    assert between == pytest.approx((base[1].accuracy + base[2].accuracy) / 2)
    assert at_tokens(base, 5.0) is None
    assert at_tokens(base, 41.0) is None


def finished(name: str, credit: float, tokens: int) -> Result:
    """A problem of a live run that was charged so many tokens."""
    empty = run(solve_async(problem(name), make_strategy("greedy"), model=ScriptedEngine(lambda *_: "#### 1")))
    (call,) = empty.calls
    return Result(problem=name, credit=credit, trace=replace(empty, calls=(replace(call, cost={"tokens": tokens}),)))


def test_a_live_run_is_compared_with_the_vote_that_costs_the_same(tmp_path: Path) -> None:
    # at 15 tokens the vote lies between one sample (credit .25 and .5) and two (ties share: the same)
    data = pool(
        tmp_path,
        row("p", ["a", "b", "b", "b"], "a", tokens=[10] * 4),
        row("q", ["a", "a", "b", "b"], "a", tokens=[10] * 4),
        row("never solved", ["a", "a", "b", "b"], "a", tokens=[1000] * 4),
    )
    found = at_equal_cost([finished("p", 1.0, 10), finished("q", 1.0, 20)], data, subsamples=4000)
    assert found is not None
    assert (found.problems, found.cost, found.samples) == (2, 15.0, 1.5)
    # six standard deviations of 4,000 subsamples are 0.05, missed once in 10^8
    assert found.difference == pytest.approx(1 - (0.25 + 0.5) / 2, abs=0.05)
    assert "1.5 samples, both at 15 tokens: +6" in found.sentence("live")
    assert at_equal_cost([finished("p", 1.0, 9)], data, subsamples=10) is None
    dearer = at_equal_cost([finished("p", 1.0, 50)], data, subsamples=10)
    assert dearer is not None
    assert (dearer.samples, dearer.difference) == (4.0, 1.0)
    assert "4.0 samples, 50 tokens against 40" in dearer.sentence("live")
    calls = at_equal_cost([finished("p", 1.0, 50), finished("q", 1.0, 20)], data, "calls", subsamples=4000)
    assert calls is not None
    assert (calls.cost, calls.samples) == (1.0, 1.0), "one call is one sample, whatever it cost"
    assert calls.difference == pytest.approx(1 - (0.25 + 0.5) / 2, abs=0.05)
    assert "both at 1.0 calls" in calls.sentence("live")
    with pytest.raises(UsageError, match="none of the run's problems"):
        at_equal_cost([finished("elsewhere", 1.0, 10)], data)


def test_fewer_verdicts_are_drawn_at_random(tmp_path: Path) -> None:
    """One of two opposed verdicts decides; six standard deviations of 20,000 draws are 0.021."""
    one = row("p", ["a", "b"], "a") | {"verifications": [[1.0, 0.0], [0.0, 1.0]]}
    data = pool(tmp_path, one)
    found = replayed_curve(
        make_strategy("best_of_n"), data, [2], subsamples=20_000, seed=6, scorer="verifications", verdicts=1
    )
    assert found[2].accuracy[0] == pytest.approx(0.5, abs=0.021)


def test_only_scored_samples_take_part(tmp_path: Path) -> None:
    one = row("p", ["a", "b", "a", "a"], "b") | {"verifications": [[0.1], [0.9], [None], []]}
    report = replay_pool(write(tmp_path, one), ["best_of_n"], subsamples=50)
    assert max(report.curves["best_of_n"]) == 2
    assert report.curves["best_of_n"][2].accuracy[0] == 1.0


def test_all_numbers_of_samples_use_the_same_orders(tmp_path: Path) -> None:
    data = pool(tmp_path, row("p", ANSWERS, "a"))
    together = majority(data, [2, 5], subsamples=500, seed=7)
    alone = majority(data, [5], subsamples=500, seed=7)
    assert together[5].accuracy == pytest.approx(alone[5].accuracy, abs=1e-6)


def test_memory_does_not_grow_with_subsamples(tmp_path: Path) -> None:
    data = pool(tmp_path, row("p", ["a", "b", "c", "d"] * 32, "a"))

    def peak(subsamples: int) -> int:
        tracemalloc.start()
        majority(data, range(1, 65), subsamples=subsamples, seed=0)
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(40_000) < 1.2 * peak(10_000)


@pytest.mark.parametrize("name", ["pool.jsonl", "pool.jsonl.gz"])
def test_what_is_read(name: str, tmp_path: Path) -> None:
    first = row("p", ["A", " a", None], "A", tokens=[1, 2, 3], logprobs=[[-1.0, -3.0], None, [-2.0]])
    first["samples"][1]["finish"] = "length"
    first["scores"] = {"rm": [1, 2, None]}
    first["step_scores"] = {"prm": [[0.1, 0.2], [], [0.5]]}
    data = pool(tmp_path, first, name=name)
    (problem,) = data.problems
    assert (data.kind, data.samples, data.scorers) == ("iid", 3, ("prm", "rm"))
    assert problem.keys is not None
    assert problem.keys.tolist() == [0, -1, -1]  # cut off, and without an answer
    assert problem.logprobs is not None
    assert problem.logprobs.tolist() == pytest.approx([-2.0, np.nan, -2.0], nan_ok=True)
    assert problem.scores["rm"][:, 0].tolist() == pytest.approx([1.0, 2.0, np.nan], nan_ok=True)
    assert problem.scores["prm"][:, 0].tolist() == pytest.approx([0.2, np.nan, 0.5], nan_ok=True)


def test_kinds_of_pools(tmp_path: Path) -> None:
    models = row("p", ["a", "b"], "a", model=["x", "y"])
    attempts = row("p", ["a", "b"], "a", method=["plain", "revised"])
    assert pool(tmp_path, models).kind == "models"
    assert pool(tmp_path, attempts).kind == "sequence"
    with pytest.raises(UsageError, match="build on each other"):
        replay_pool(write(tmp_path, attempts), ["self_consistency"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "[Ll]ine 2"),
        ('{"id": "q"}', "Line 2 of .* has no samples"),
        ('{"id": "q", "samples": [{"answer": "a"}]}', "Line 2 of .* whether it is correct"),
        ('{"samples": [{"correct": true}]}', "Line 2 of .* no id"),
        ('{"id": "p", "samples": [{"correct": true}]}', "Line 2 of .* no id of its own"),
        ('{"id": "q", "samples": [{"correct": true, "tokens": "x"}]}', "Line 2 of .* cannot be read"),
        ('{"id": "q", "samples": [{"correct": true}], "scores": {"rm": ["x"]}}', "Line 2 of .* cannot be read"),
    ],
)
def test_a_broken_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, row("p", ["a"], "a"))
    path.write_text(path.read_text() + line + "\n" + json.dumps(row("r", ["a"], "a")) + "\n")
    with pytest.raises(UsageError, match=said):
        read_pool(path)


def test_what_a_pool_cannot_support_is_refused(tmp_path: Path) -> None:
    bare = write(tmp_path, {"id": "p", "samples": [{"correct": True, "text": "x"}, {"correct": False, "text": "y"}]})
    with pytest.raises(UsageError, match="has no answers"):
        replay_pool(bare, ["self_consistency"])
    with pytest.raises(UsageError, match=r"needs scores; the pool has: none"):
        replay_pool(bare, ["best_of_n"])
    with pytest.raises(UnknownName, match="verifier"):
        replay_pool(bare, ["best_of_n"], verifier="rm")
    with pytest.raises(UsageError, match="n must be from 1 to 2"):
        replay_pool(bare, ["best_of_n"], ns=[3])
    with pytest.raises(UsageError, match="cannot be replayed"):
        replay_pool(bare, ["rebase"])
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(UsageError, match="holds no samples"):
        read_pool(empty)


def test_the_report(tmp_path: Path) -> None:
    rows = [row(f"p{i}", ANSWERS, "ab"[i % 2], tokens=range(10, 18), reward=range(8)) for i in range(6)]
    told: list[tuple[str, int, int]] = []
    report = replay_pool(
        write(tmp_path, *rows),
        ["self_consistency", "best_of_n"],
        subsamples=100,
        on_progress=lambda *words: told.append(words),
    )
    assert told[0][0] == "pool.jsonl"  # it follows the word "Replaying"
    assert told[1:3] == [("self_consistency", 0, 2), ("best_of_n", 1, 2)]
    assert [(done, most) for _, done, most in told] == [(0, 2), (0, 2), (1, 2), (2, 2)]
    plain = report.plain()
    assert list(plain["curves"]) == ["coverage", "self_consistency", "best_of_n"]
    assert [at["n"] for at in plain["curves"]["coverage"]] == [1, 2, 4, 8]
    assert "| best_of_n | 8 |" in report.markdown()
    assert report.table().row_count == 12
    first, second, noise = report.sentences()
    assert first.startswith("best_of_n minus self_consistency at n = 8: ")
    assert "tokens" in second
    assert re.search(r"With 100 subsamples.* up to \d\.\d points", noise)
    many = replay_pool(write(tmp_path, *rows), ["self_consistency", "best_of_n"], subsamples=50)
    assert replace(many, subsamples=100_000).noise() is None
    by_n, by_tokens = plain["differences"]
    assert (by_n["n"], by_n["tokens"]) == (8, None)
    assert f"{100 * by_n['difference']:+.1f} points ({100 * by_n['low']:+.1f} to {100 * by_n['high']:+.1f}" in first
    assert f"at {by_tokens['tokens']:,.0f} tokens: {100 * by_tokens['difference']:+.1f} points" in second


def test_the_figure_and_the_frame_have_every_point(tmp_path: Path) -> None:
    """With its band; against samples where the pool has no tokens."""
    rows = [row(f"p{i}", ANSWERS, "ab"[i % 2], tokens=range(10, 18)) for i in range(6)]
    report = replay_pool(write(tmp_path, *rows), ["self_consistency"], subsamples=50)
    figure, columns = report.figure(), report.frame().columns
    assert [series.name for series in figure.series] == ["coverage", "self_consistency"]
    vote = figure.series[1]
    assert (
        list(vote.x) == columns["tokens"][4:] == [at["tokens"] for at in report.plain()["curves"]["self_consistency"]]
    )
    assert (list(vote.y), list(vote.low or ())) == (columns["accuracy"][4:], columns["low"][4:])
    assert columns["n"] == [1, 2, 4, 8] * 2
    bare = replay_pool(write(tmp_path, row("p", ANSWERS, "a")), ["self_consistency"], subsamples=20).figure()
    assert list(bare.series[0].x) == [1, 2, 4, 8]
    assert bare.x.title == "samples per problem"


# ---- what is left out -----------------------------------------------------------------------------------------------


def test_a_row_that_a_strategy_cannot_have_is_left_out_with_a_word(tmp_path: Path) -> None:
    path = write(tmp_path, row("p", ANSWERS, "a", reward=[0.5] * 8, tokens=[3] * 8))
    names = ["first_finish?k=3", "optscale", "rebase", "self_consistency"]
    report = replay_pool(path, names, subsamples=20)
    assert {name: sorted(curve) for name, curve in report.curves.items()} == {
        "coverage": [1, 2, 4, 8],
        "first_finish?k=3": [4, 8],
        "optscale": [1, 2, 4, 8],
        "self_consistency": [1, 2, 4, 8],
    }
    first, second = report.left_out
    assert first.startswith("first_finish?k=3 is left out at n = 1 and 2: k must be from 1 to n")
    assert second == "rebase is left out: rebase cannot be replayed: it needs more than recorded samples."
    assert report.sentences()[:2] == [first, second]
    assert report.plain()["left_out"] == [first, second]
    assert report.dense is not None
    assert min(report.dense) == 3
    with pytest.raises(UsageError, match=r"first_finish\?k=3 is left out at n = 1 and 2: k must be"):
        replay_pool(path, ["first_finish?k=3"], ns=[1, 2])


@pytest.mark.parametrize("reward", [-1.0, -1e-9])
def test_scores_that_a_rule_cannot_take_cost_that_rule_only(reward: float, tmp_path: Path) -> None:
    path = write(tmp_path, row("p", ANSWERS, "a", reward=[reward, *[0.5] * 7]))
    names = ["weighted_best_of_n", "optscale", "best_of_n", "borda", "self_consistency"]
    report = replay_pool(path, names, ns=[8], subsamples=20)
    assert set(report.curves) == {"coverage", "best_of_n", "borda", "self_consistency"}
    weighted, optscale = report.left_out
    assert weighted.startswith("weighted_best_of_n is left out at n = 8: A weighted vote needs scores of at least 0")
    assert optscale.startswith("optscale is left out at n = 8: OptScale needs scores in [0, 1]")


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", ["best_of_n", "weighted_best_of_n", "borda", "resample", "heimdall"])
def test_a_score_that_is_not_finite_wins_nothing(name: str, odd: float, tmp_path: Path) -> None:
    data = pool(tmp_path, row("p", ["a", "b", "b", "c"], "b", reward=[0.9, 0.9, 0.8, 0.1]))
    (one,) = data.problems
    scores = one.scores["reward"].copy()
    scores[[0, 3]] = odd
    odd_pool = replace(data, problems=(replace(one, scores={"reward": scores}),))
    at = replayed_curve(make_strategy(name), odd_pool, [4], subsamples=50, seed=0, scorer="reward")[4]
    assert at.accuracy[0] == 1.0


def test_a_strategy_from_outside_that_breaks_costs_itself_only(tmp_path: Path) -> None:
    path = write(tmp_path, row("p", ANSWERS, "a"))
    report = replay_pool(path, ["tests.reports.test_replay:Broken", "self_consistency"], ns=[2], subsamples=5)
    assert set(report.curves) == {"coverage", "self_consistency"}
    assert report.left_out == ("tests.reports.test_replay:Broken is left out at n = 2: KeyError: 'gone'.",)


@dataclass(frozen=True, kw_only=True)
class Broken:
    n: int = 2

    async def run(self, problem: Any, report: Any) -> None:
        """Never called."""

    def replay(self, drawn: Drawn) -> Replayed:
        raise KeyError("gone")


# ---- what was cut off -----------------------------------------------------------------------------------------------


def test_what_was_cut_off_is_never_right(tmp_path: Path) -> None:
    cut = row("p", ["a", "a", "b", "b"], "a", finish=["eos", "length", "eos", "length"], tokens=[5] * 4)
    data = pool(tmp_path, cut)
    assert data.problems[0].correct.tolist() == [True, False, False, False]
    assert coverage_curve(data, [1])[1].accuracy[0] == pytest.approx(0.25)
    samples = [
        {"correct": True, "text": "x", "tokens": 1, "finish": "length", "reward": 9.0},
        {"correct": False, "text": "y", "tokens": 9, "finish": "eos", "reward": 1.0},
    ]
    bare = {"id": "p", "samples": samples}
    unread = pool(tmp_path, bare, name="bare.jsonl")  # without answers, each sample is one of its own
    assert replayed_curve(make_strategy("best_of_n"), unread, [2], subsamples=9, seed=0, scorer="reward")[
        2
    ].accuracy.tolist() == [0.0]


def test_laws_count_what_was_cut_off_as_wrong(tmp_path: Path) -> None:
    from outthink.reports.laws.coverage import coverage
    from outthink.reports.laws.passuntil import passuntil

    cut = []
    for number in range(6):
        finish = ["length" if place < 1 + number % 2 else "eos" for place in range(16)]
        cut.append(row(f"p{number}", [*["a"] * 4, *["b"] * 12], "a", finish=finish))
    wrong = json.loads(json.dumps(cut))
    for one in wrong:
        for sample in one["samples"]:
            sample["correct"] = sample.pop("finish") == "eos" and sample["correct"]
    for law in (coverage, passuntil):
        told, expected = (law([write(tmp_path, *rows)]).plain() for rows in (cut, wrong))
        assert told == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": -3}, "tokens is -3"),
        ({"tokens": 1.5}, r"tokens is 1\.5"),
        ({"logprobs": [0.5]}, r"a logprob is 0\.5"),
        ({"reward": math.inf}, "a score in reward is inf"),
    ],
)
def test_what_a_sample_cannot_have_is_refused_by_line(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    rows = [row("p", ANSWERS, "a"), row("q", ANSWERS, "a")]
    rows[1]["samples"][2].update(change)
    with pytest.raises(UsageError, match=rf"Line 2 of .* \({said}"):
        read_pool(write(tmp_path, *rows))


@pytest.mark.parametrize(
    "scores", [{"scores": {"v": [1, 2]}}, {"step_scores": {"v": [[1]]}}, {"verifications": [[1]] * 9}]
)
def test_lists_of_scores_of_another_length_are_refused_by_line(scores: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Line 1 of .* for 8 samples; write null"):
        read_pool(write(tmp_path, {**row("p", ANSWERS, "a"), **scores}))


def test_verdicts_may_be_on_the_first_samples_only(tmp_path: Path) -> None:
    read = read_pool(write(tmp_path, {**row("p", ANSWERS, "a"), "verifications": [[1, 0], [1]]}))
    verdicts = read.problems[0].scores["verifications"]
    assert np.isfinite(verdicts).sum(axis=1).tolist() == [2, 1, *[0] * 6]
