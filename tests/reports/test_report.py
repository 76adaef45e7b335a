"""What results say, against closed forms. Seeds are fixed, so nothing here can fail by chance."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.special import bdtr

from outthink.answers.reader import Reader
from outthink.maths.intervals import RESAMPLES, mean_and_interval
from outthink.records.runs import Result, Store
from outthink.reports.report import (
    COLUMNS,
    agreement,
    agreement_sentence,
    answer_points,
    cells,
    markdown,
    paired,
    read_runs,
    sentence,
    summary,
    table,
)
from outthink.reports.tables import plain
from outthink.tasks.example import Example
from outthink.types import Budget, Call, Candidate, Finish, Message, Problem, Round, Sampling, Stopped, Trace, Usage
from tests.tools.virtual import run


def trace(
    name: str = "a",
    *,
    answers: tuple[str | None, ...] = ("1",),
    calls: tuple[Call, ...] = (),
    cut: int = 0,
    samples: int = 4,
    stopped: Stopped = "finished",
) -> Trace:
    rounds = tuple(
        Round(answer=answer, key=answer, cost={"tokens": 10.0 * (i + 1)}, at=float(i))
        for i, answer in enumerate(answers)
    )
    return Trace(
        problem=name,
        strategy={"name": "s"},
        seed=0,
        sampling=Sampling(),
        budget=Budget(),
        resources={},
        candidates=tuple(
            Candidate(address=("model", 0, i), tokens=5, finish="length" if i < cut else "eos", complete=i >= cut)
            for i in range(samples)
        ),
        rounds=rounds,
        calls=calls,
        stopped=stopped,
        seconds=2.0,
    )


def test_only_what_nothing_continues_can_be_cut_off() -> None:
    step = Candidate(address=("model", 0, 0), tokens=5, finish="length", complete=False)
    prefill = Candidate(address=("model", 1, 0), finish="length", complete=False)
    ended: tuple[Finish, ...] = ("length", "eos", "stop", "eos")
    ends = [
        Candidate(address=("model", 2, i), parents=(step.id,), continues=True, tokens=5, finish=finish)
        for i, finish in enumerate(ended)
    ]
    numbers = summary([Result(problem="a", credit=1.0, trace=replace(trace(), candidates=(step, prefill, *ends)))])
    assert numbers.truncated == 1 / 4


def call(kind: str, usage: Usage, **cost: float) -> Call:
    return Call(kind=kind, role="model", address=(kind, 0, 0), charged=usage, cost={"tokens": usage.tokens, **cost})


def graded(*credits: float | None) -> list[Result]:
    return [Result(problem=str(i), credit=credit) for i, credit in enumerate(credits)]


def test_a_run_in_numbers() -> None:
    sample = call("sample", Usage(prompt=40, cached=30, completion=50), flops=8e9, usd=0.5)
    judge = call("judge", Usage(prompt=20, completion=1), flops=2e9)
    results = [
        Result(problem="a", credit=1.0, trace=trace(calls=(sample, judge), cut=1)),
        Result(problem="b", credit=0.0, trace=trace(answers=("1", None), calls=(sample,), cut=2, stopped="budget")),
        Result(problem="c", credit=0.0, error="gone", trace=trace(answers=(), samples=0, stopped="error")),
        Result(problem="d", credit=None),
    ]
    numbers = summary(results, planned=6)
    assert (numbers.problems, numbers.planned, numbers.errors) == (4, 6, 1)
    assert numbers.accuracy == pytest.approx(1 / 3)
    assert numbers.low <= numbers.accuracy <= numbers.high
    assert numbers.invalid == 3 / 4
    assert numbers.truncated == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert numbers.tokens == pytest.approx({"prompt": 5.0, "cached": 15.0, "completion": 25.0, "judge": 21 / 4})
    assert numbers.cost == pytest.approx({"tokens": (60 + 60 + 21) / 4, "flops": 4.5e9, "seconds": 1.5})
    assert numbers.stopped == {"finished": 1, "budget": 1, "error": 1}
    assert numbers == summary(results, planned=6), "the same results give the same interval"


def test_no_results_are_no_numbers() -> None:
    numbers = summary([])
    assert numbers.problems == 0
    assert math.isnan(numbers.accuracy)
    assert math.isnan(numbers.invalid)
    assert cells("none", numbers)[2] == "-"


@pytest.mark.parametrize(("n", "right"), [(20, 10), (100, 30), (300, 290), (1000, 111)])
def test_the_bootstrap_of_right_and_wrong_is_binomial(n: int, right: int) -> None:
    """Its ends are the binomial's quantiles, within 5 standard errors of 10,000 resamples."""
    mean, low, high = mean_and_interval([1.0] * right + [0.0] * (n - right))
    assert mean == right / n
    slack = 5 * math.sqrt(0.025 * 0.975 / RESAMPLES)
    for end, mass in ((low, 0.025), (high, 0.975)):
        count = round(end * n)
        assert bdtr(count - 1, n, mean) - slack <= mass <= bdtr(count, n, mean) + slack


@pytest.mark.parametrize("n", [1, 10, 300])
def test_where_all_are_equal_the_interval_is_the_exact_one(n: int) -> None:
    """Clopper-Pearson: the true share at which n of n happens in 2.5% of runs."""
    for credit, low, high in ((1.0, 0.025 ** (1 / n), 1.0), (0.0, 0.0, 1 - 0.025 ** (1 / n))):
        assert mean_and_interval([credit] * n) == pytest.approx((credit, low, high))


def test_intervals_cover_what_they_should() -> None:
    """Of 400 runs of 300 problems at p = 0.3 about 95% cover it; 91% would be 3.7 standard errors away (odds 1e-4)."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        _, low, high = mean_and_interval((rng.random(300) < 0.3).astype(float).tolist())
        covered += low <= 0.3 <= high
    assert covered >= 0.91 * 400


def test_a_paired_difference() -> None:
    a, b = graded(1, 1, 0, 0, 1, None), graded(1, 0, 0, 1, 0)
    difference = paired(a, [*b, Result(problem="other", credit=1.0)])
    assert (difference.problems, difference.discordant) == (5, 3)
    assert difference.difference == pytest.approx(1 / 5)
    assert difference.low <= difference.difference <= difference.high
    back = paired(b, a)
    assert (back.difference, back.discordant, back.detectable) == pytest.approx((-1 / 5, 3, difference.detectable))


def test_pairing_sees_what_two_separate_intervals_do_not() -> None:
    hard = np.arange(300) % 10 < 7
    a, b = graded(*(~hard).astype(float)), graded(*(~hard & (np.arange(300) % 30 != 9)).astype(float))
    difference = paired(a, b)
    assert difference.difference == pytest.approx(10 / 300)
    assert difference.low > 0
    assert summary(a).low < summary(b).high


def test_no_difference_is_not_certainty() -> None:
    """Equal credits on 100 problems leave up to 3.6% of problems on which either could be ahead."""
    difference = paired(graded(*[1.0] * 100), graded(*[1.0] * 100))
    most = 1 - 0.025 ** (1 / 100)
    assert (difference.difference, difference.discordant) == (0.0, 0)
    assert (difference.low, difference.high) == pytest.approx((-most, most))
    assert difference.detectable == pytest.approx(2.8016 / 100, rel=1e-4)
    assert math.isnan(paired(graded(1.0), []).difference)


def test_the_smallest_difference_that_could_have_been_seen() -> None:
    """8 points need about 300 problems where a quarter are discordant; checked by simulation too."""
    a = [1.0] * 38 + [0.0] * 37
    difference = paired(graded(*a, *[0.0] * 225), graded(*[1 - credit for credit in a], *[0.0] * 225))
    assert difference.discordant == 75
    assert difference.detectable == pytest.approx((1.959964 + 0.841621) * math.sqrt(0.25 / 300), rel=1e-5)
    assert difference.detectable == pytest.approx(0.08, abs=0.002)
    # at that true difference, 4 of 5 comparisons are significant: 2,000 of them, so one standard error is 0.9%
    rng = np.random.default_rng(0)
    up = (0.25 + difference.detectable) / 2
    drawn = rng.choice([1.0, -1.0, 0.0], p=[up, 0.25 - up, 0.75], size=(2000, 300))
    seen = np.abs(drawn.mean(axis=1)) > 1.959964 * np.sqrt((drawn**2).mean(axis=1) / 300)
    assert float(seen.mean()) == pytest.approx(0.8, abs=0.045)


def told(
    name: str,
    key: str | None,
    tokens: int = 10,
    *,
    usd: float | None = None,
    sure: float | None = None,
    after: float = 2.0,
) -> Result:
    """Recorded traffic: an answer, what it cost and how sure it was, and no credit."""
    cost = {} if usd is None else {"usd": usd}
    answered = Round(answer=key, key=key, confidence=sure)
    calls = (call("sample", Usage(completion=tokens), **cost),)
    return Result(problem=name, credit=None, trace=replace(trace(name, calls=calls), rounds=(answered,), seconds=after))


def test_ungraded_runs_are_compared_by_their_answers() -> None:
    base = [
        told("a", "1", 100, sure=0.9, usd=1.0),
        told("b", "2", 100, sure=0.7, usd=2.0),
        told("c", "3", 300, sure=0.3, usd=3.0),
        told("d", None, 300, sure=0.1, usd=4.0),
        told("e", "5", 200, sure=0.2, usd=5.0, after=4.5),
        told("alone", "6", 9000, sure=0.5, usd=9.0),
        Result(problem="untried", credit=None),
    ]
    other = [
        told("e", None, 10, usd=1.0, after=1.0),
        told("d", None, 10, usd=1.0, after=1.0),
        told("c", "4", 10, usd=1.0, after=1.0),
        told("b", "2", 20, usd=1.0, after=1.0),
        told("a", "1", 50, usd=1.0, after=6.0),
        told("elsewhere", "7", 9000),
        told("untried", "8", 9000),
    ]
    compared = agreement(other, base)
    assert (compared.problems, compared.graded, compared.same, compared.other, compared.none) == (5, 0, 2, 1, 2)
    assert (compared.share, compared.low, compared.high) == mean_and_interval([1, 1, 0, 0, 0])
    assert compared.cost["tokens"][0] == pytest.approx(100 / 1000)
    assert compared.cost["usd"][0] == pytest.approx(5 / 15)
    assert compared.seconds == (2.0, 2.5)
    assert (compared.confidence_same, compared.confidence_other) == pytest.approx((0.8, 0.3))
    assert compared == agreement(other, base), "the same results give the same intervals"
    said = agreement_sentence(("o", "b"), compared)
    assert said.startswith("o beside b: the same answer on 40.0% (")
    assert "95%) of 5 problems, different ones on 1, none from one or both on 2; 0.1 (" in said
    assert said.endswith(
        "2 seconds on average against 2.5; confidence of b 0.80 where both agree, 0.30 where they differ."
    )


def test_a_ratio_of_costs_is_paired() -> None:
    """Problems differ a hundredfold in cost; at exactly half of each, nothing about the half is uncertain."""
    spent = [10 * 2**power for power in range(8)] * 5
    half = agreement(
        [told(str(i), "1", tokens) for i, tokens in enumerate(spent)],
        [told(str(i), "1", 2 * tokens) for i, tokens in enumerate(spent)],
    )
    assert half.cost["tokens"] == pytest.approx((0.5, 0.5, 0.5))


def test_the_interval_of_a_ratio_covers_what_it_should() -> None:
    """Of 60 comparisons of 60 problems about 56 cover the true ratio; fewer than 50 have odds of 2e-3."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(60):
        base = rng.integers(50, 150, 60)
        mine = rng.integers(0, base + 1)  # half of it on average
        compared = agreement(
            [told(str(i), "1", int(tokens)) for i, tokens in enumerate(mine)],
            [told(str(i), "1", int(tokens)) for i, tokens in enumerate(base)],
        )
        _, low, high = compared.cost["tokens"]
        covered += low <= 0.5 <= high
    assert covered >= 50


def test_what_is_not_known_is_no_number() -> None:
    one = agreement([told("a", "1")], [told("a", None)])
    assert one.cost["tokens"] == pytest.approx((1.0, math.nan, math.nan), nan_ok=True)
    assert "1 times the tokens" in agreement_sentence(("a", "b"), one)
    assert math.isnan(one.confidence_same)
    half_priced = agreement(
        [told("a", "1", usd=1.0), told("b", "1")], [told("a", "1", usd=1.0), told("b", "1", usd=1.0)]
    )
    assert half_priced.cost.keys() == {"tokens"}
    assert half_priced.cost["tokens"] == (1.0, 1.0, 1.0)
    free = agreement([told("a", "1", usd=1.0)] * 1, [told("a", "1", usd=0.0)])
    assert free.cost.keys() == {"tokens"}, "there is no multiple of nothing"
    nothing = agreement([told("a", "1")], [told("b", "1")])
    assert nothing.problems == 0
    assert math.isnan(nothing.share)
    json.loads(json.dumps(plain(asdict(nothing)), allow_nan=False))
    assert plain(asdict(nothing))["seconds"] == [None, None]


def test_graded_and_ungraded_problems_are_told_apart() -> None:
    base = [told("a", "1"), told("b", "2"), told("c", "3")]
    other = [told("a", "1"), told("b", "9"), told("c", "3")]
    graded = [
        [replace(run[0], credit=1.0), replace(run[1], credit=credit), run[2]]
        for run, credit in ((base, 1.0), (other, 0.0))
    ]
    graded[0][2] = replace(graded[0][2], credit=1.0)  # in one of them only
    difference, compared = paired(graded[1], graded[0]), agreement(graded[1], graded[0])
    assert (difference.problems, difference.difference) == (2, -0.5)
    assert (compared.problems, compared.graded) == (3, 2)
    assert cells("run", summary(graded[1]))[2].endswith(") of 2")
    assert cells("run", summary(base))[2] == "-"
    assert sentence(("a", "b"), paired(base, other)) == "a and b have no graded problem in common."


def test_a_run_without_an_end_has_as_many_problems_as_it_has(tmp_path: Path) -> None:
    with Store(tmp_path / "live", {"problems": None, "shard": None}) as store:
        for result in (told("a", "1"), told("b", None)):
            store.record(result)
    numbers, results = read_runs([tmp_path / "live"])
    assert (numbers.problems, numbers.planned, numbers.graded, numbers.invalid) == (2, 2, 0, 0.5)
    assert numbers.truncated == 0.0, "texts count although they are not kept"
    assert [result.trace.candidates for result in results if result.trace] == [(), ()]
    assert agreement(results, results) == agreement([told("a", "1"), told("b", None)], results)
    with Store(tmp_path / "half", {"problems": ["a", "x", "b", "y"], "shard": [0, 2]}) as store:
        store.record(told("a", "1"))
    assert read_runs([tmp_path / "half"])[0].planned == 2


def test_one_trace_gives_a_curve() -> None:
    example = Example(Problem(id="a", messages=(Message(content="?"),)), ("7",))

    async def points() -> list[tuple[float, float, float]]:
        reader = Reader()
        curve = await answer_points(trace(answers=(None, "3", "7.0", "7")), example, reader)
        await reader.close()
        return [(point.cost["tokens"], point.cost["seconds"], point.credit) for point in curve]

    assert run(points()) == [(10.0, 0.0, 0.0), (20.0, 1.0, 0.0), (30.0, 2.0, 1.0), (40.0, 3.0, 1.0)]


def test_tables() -> None:
    sample = call("sample", Usage(prompt=40, completion=5000), flops=8e9, usd=0.5)
    runs = {
        "a|b": summary([Result(problem="a", credit=1.0, trace=trace(calls=(sample,)))], planned=3),
        "c": summary([Result(problem="a", credit=0.0, error="gone", trace=trace(stopped="budget"))]),
    }
    rows = markdown(runs).splitlines()
    assert rows[0] == "| " + " | ".join(COLUMNS) + " |"
    assert rows[2] == (
        "| a\\|b | 1 of 3 | 100.0% (2.5% to 100.0%) | 0.0% | 0.0% | 5,040 | 8 | 2 | 0.5 | all finished |"
    )
    assert rows[3].endswith("| - | - | 2 | - | 1 budget, 1 failed |")
    console = Console(width=200)
    with console.capture() as shown:
        console.print(table(runs))
    assert "100.0% (2.5% to 100.0%)" in shown.get()
    assert sentence(("a", "c"), paired(graded(1, 1, 0), graded(0, 1, 0))).startswith("a minus c: +33.3 points (")
