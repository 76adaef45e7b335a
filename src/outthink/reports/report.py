"""What results say: accuracy with its interval, cost, paired differences; functions of results and nothing else.

Averages are per problem, then over problems: several results of one problem are those of several seeds, and count as
one, their mean. So seeds are nested in problems. Intervals are 95% percentile bootstrap intervals over problems, from
10,000 resamples with a fixed seed (2,000 for ratios). A bootstrap cannot see beyond what happened: where all values
are equal, the share of problems that could still be otherwise (exact binomial, Clopper-Pearson) stands in for it.

Recorded traffic has no gold answers. What is not graded has no part in accuracy and differences, and two ungraded runs
are compared by their answers alone: on how many problems they agree, what each costs, and how sure the first was.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outthink.errors import Unidentified
from outthink.maths.intervals import TAIL, bootstrap, mean_and_interval
from outthink.records.generations import Generation, GenerationCounts
from outthink.records.runs import Result, read_results, read_settings
from outthink.records.sharing import Sharing, sharing
from outthink.reports.feedback import feedback_credits
from outthink.reports.tables import markdown_table, text_table
from outthink.tasks.example import Example
from outthink.tasks.grading import grade
from outthink.types import Trace

if TYPE_CHECKING:
    from rich.table import Table

    from outthink.answers.reader import Reader
    from outthink.sandbox.host import Sandbox

_OF_RATIOS = 2_000  # they are drawn one by one


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A run in numbers; shares are in [0, 1], and means are per problem.

    Args:
        problems, graded: finished problems, and those of them with a credit.
        attempts, planned: results, one for each problem and seed, and how many were asked for.
        accuracy, low, high: mean credit over graded problems and its 95% interval; NaN where there are none.
        invalid: share of attempts without an answer.
        truncated: share of samples that were cut off by a cap, mean over the problems that have samples; of a search,
            of the steps that nothing continues.
        tokens: mean charged tokens: "prompt" (read anew), "cached" and "completion" of samples, and by kind of call
            ("judge" ...) what else was read anew and written.
        seen: mean tokens that were seen (read anew and written); less than the charge where an end was not seen.
        cost: mean charge by unit ("tokens", "flops", "usd", "seconds"); a unit that is not known for some call is left
            out.
        tree: means of `Sharing` per problem by its fields; empty where no sample continues another one.
        errors: attempts on which nothing came back.
        stopped: attempts by the reason for which they ended.
        seeds: accuracy by seed, where there are several.
        generations: of answers, each made from the one before it; empty where the method has none.
    """

    problems: int
    attempts: int
    planned: int
    graded: int
    accuracy: float
    low: float
    high: float
    invalid: float
    truncated: float
    tokens: Mapping[str, float]
    seen: float
    cost: Mapping[str, float]
    tree: Mapping[str, float]
    errors: int
    stopped: Mapping[str, int]
    seeds: Mapping[int, float] = field(default_factory=dict)
    generations: tuple[Generation, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One run minus another on the problems that are graded in both.

    Args:
        problems: how many these are.
        difference, low, high: mean difference of credit and its 95% interval; NaN without problems.
        discordant: problems on which the credits differ.
        detectable: the smallest true difference that this comparison would show (two-sided 5%) in 80% of repetitions,
            by normal approximation with the variance of as many discordant problems (at least one).
    """

    problems: int
    difference: float
    low: float
    high: float
    discordant: int
    detectable: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """One run beside another, the base, on the problems that both have tried, graded or not.

    Args:
        problems: how many these are; `same` + `other` + `none`.
        graded: how many of them are graded in both runs.
        same, other: problems on which the two give the same answer (equal keys), and on which they give different ones.
        none: problems on which one of them, or both, have no answer.
        share, low, high: of `same` among `problems`, and its 95% interval; NaN without problems.
        cost: mean cost over that of the base and its 95% interval (paired; NaN for fewer than two problems) by unit:
            "tokens", and "usd" where it is known for every problem; a unit in which the base costs nothing is left out.
        seconds: mean seconds of the run and of the base; NaN without problems.
        confidence_same, confidence_other: mean confidence of the base in its answers on the problems of `same` and of
            `other`; NaN where it tells none.
    """

    problems: int
    graded: int
    same: int
    other: int
    none: int
    share: float
    low: float
    high: float
    cost: Mapping[str, tuple[float, float, float]]
    seconds: tuple[float, float]
    confidence_same: float
    confidence_other: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What a strategy's answer was worth at one moment.

    Args:
        cost: charged by then, by unit, "seconds" of wall-clock included.
        credit: of the answer at that moment.
    """

    cost: Mapping[str, float]
    credit: float


def read_runs(folders: Sequence[Path]) -> tuple[Summary, list[Result]]:
    """The numbers of runs that differ in nothing but their seeds, and their results without what was written, since of
    much traffic that is a lot. What is not graded has the credit that callers gave it, where they did.

    Raises UsageError where there is no run or a line is damaged.
    """
    light: list[Result] = []
    planned = 0
    seeds: dict[int, float] = {}
    whole = True  # a run without an end has no problems that were asked for

    def passing() -> Iterator[Result]:
        for folder in folders:
            before = len(light)
            credits_told = feedback_credits(folder)
            for one in read_results(folder):
                result = one if one.credit is not None else replace(one, credit=credits_told.get(one.problem))
                trace = result.trace
                light.append(result if trace is None else replace(result, trace=replace(trace, candidates=())))
                yield result
            credits = [result.credit for result in light[before:] if result.credit is not None]
            if len(folders) > 1:
                seeds[read_settings(folder)["seed"]] = _mean(credits)

    for folder in folders:
        settings = read_settings(folder)
        problems: list[str] | None = settings["problems"]
        place, shards = settings["shard"] or (0, 1)
        whole = whole and problems is not None
        planned += len((problems or [])[place::shards])
    return replace(summary(passing(), planned=planned if whole else None), seeds=seeds), light


def summary(results: Iterable[Result], *, planned: int | None = None) -> Summary:
    """The numbers of a run; `planned` is how many attempts were asked for, None: as many as there are."""
    credits: dict[str, list[float]] = {}
    truncated: list[float] = []
    tokens: Counter[str] = Counter({"prompt": 0, "cached": 0, "completion": 0})
    cost: Counter[str] = Counter()
    stopped: Counter[str] = Counter()
    trees: list[Sharing] = []
    counted = GenerationCounts()
    units: list[set[str]] = []  # those that each attempt with calls was charged in
    problems: set[str] = set()
    attempts = invalid = errors = seen = 0
    for result in results:
        trace = result.trace
        problems.add(result.problem)
        attempts += 1
        errors += result.error is not None
        invalid += trace is None or trace.answer is None
        if result.credit is not None:
            credits.setdefault(result.problem, []).append(result.credit)
        if trace is None:
            continue
        stopped[trace.stopped] += 1
        seen += trace.seen.tokens
        spent = trace.cost if trace.calls else {"seconds": trace.seconds}  # nothing is known of what was never asked
        if trace.calls:
            units.append(set(spent))
        for unit, amount in spent.items():
            cost[unit] += amount  # type: ignore[assignment]  # Counter is typed for whole numbers only
        trees.append(sharing(trace))
        counted.add(trace, result.credits)
        own = [one for one in trace.candidates if one.address[0] == "model" and "peek" not in one.address]
        continued = {candidate.parents[0] for candidate in own if candidate.continues}
        samples = [candidate for candidate in own if candidate.tokens and candidate.id not in continued]
        if samples:
            truncated.append(sum(candidate.finish == "length" for candidate in samples) / len(samples))
        for call in trace.calls:
            if call.kind == "sample":
                tokens["prompt"] += call.charged.prompt - call.charged.cached
                tokens["cached"] += call.charged.cached
                tokens["completion"] += call.charged.completion
            elif call.charged.tokens:
                tokens[call.kind] += call.charged.tokens
    accuracy, low, high = mean_and_interval([_mean(of_seeds) for of_seeds in credits.values()])
    return Summary(
        problems=len(problems),
        attempts=attempts,
        planned=attempts if planned is None else planned,
        graded=len(credits),
        accuracy=accuracy,
        low=low,
        high=high,
        invalid=invalid / attempts if attempts else math.nan,
        truncated=float(np.mean(truncated)) if truncated else math.nan,
        tokens={kind: amount / attempts for kind, amount in tokens.items()} if attempts else {},
        seen=seen / attempts if attempts else 0.0,
        cost={unit: amount / attempts for unit, amount in cost.items() if all(unit in known for known in units)},
        tree=_tree(trees),
        errors=errors,
        stopped=dict(stopped.most_common()),
        generations=counted.generations(),
    )


def _tree(trees: Sequence[Sharing]) -> dict[str, float]:
    if not any(tree.levels > 1 for tree in trees):
        return {}
    return {one.name: float(np.mean([getattr(tree, one.name) for tree in trees])) for one in fields(Sharing)}


def paired(a: Iterable[Result], b: Iterable[Result]) -> Difference:
    """The credit of `a` minus that of `b` over the problems graded in both."""
    mine, there = credit_of_each(a), credit_of_each(b)
    differences = np.array([credit - there[problem] for problem, credit in mine.items() if problem in there])
    n = len(differences)
    discordant = int(np.count_nonzero(differences))
    difference, low, high = mean_and_interval(differences.tolist(), least=-1.0)
    variance = max(float(np.sum(differences**2)), 1.0) / n if n else math.nan
    normal = NormalDist()
    return Difference(
        problems=n,
        difference=difference,
        low=low,
        high=high,
        discordant=discordant,
        detectable=(normal.inv_cdf(1 - TAIL) + normal.inv_cdf(0.8)) * math.sqrt(variance / n) if n else math.nan,
    )


def baselines(results: Mapping[str, Iterable[Result]]) -> dict[str, str]:
    """What each run but the first is compared with: the first run that has some of its problems.

    The first run of a further task is compared with none, unless no run shares problems with another: then all are
    with the first one.
    """
    problems = {name: {result.problem for result in run} for name, run in results.items()}
    names = list(results)
    bases = {}
    for place, name in enumerate(names):
        earlier = (other for other in names[:place] if problems[other] & problems[name])
        if (base := next(earlier, None)) is not None:
            bases[name] = base
    return bases or dict.fromkeys(names[1:], names[0])


def credit_of_each(results: Iterable[Result]) -> dict[str, float]:
    """The credit of each graded problem, mean over its seeds."""
    credits: dict[str, list[float]] = {}
    for result in results:
        if result.credit is not None:
            credits.setdefault(result.problem, []).append(result.credit)
    return {problem: _mean(of_seeds) for problem, of_seeds in credits.items()}


def agreement(a: Iterable[Result], base: Iterable[Result]) -> Agreement:
    """The answers and the cost of `a` beside those of `base`, over the problems that both have tried."""
    there = {result.problem: result for result in base}
    pairs: list[tuple[Trace, Trace]] = []
    graded = 0
    for result in a:
        beside = there.get(result.problem)
        if beside is not None and beside.trace is not None and result.trace is not None:
            pairs.append((result.trace, beside.trace))
            graded += result.credit is not None and beside.credit is not None
    alike = [None if mine.key is None or other.key is None else mine.key == other.key for mine, other in pairs]
    share, low, high = mean_and_interval([float(one is True) for one in alike])
    seconds = np.array([(mine.seconds, other.seconds) for mine, other in pairs]).reshape(-1, 2)
    costs = {unit: [(_spent(mine, unit), _spent(other, unit)) for mine, other in pairs] for unit in ("tokens", "usd")}

    def confidence(kind: bool) -> float:
        told = [other.confidence for (_, other), one in zip(pairs, alike, strict=True) if one is kind]
        return _mean([one for one in told if one is not None])

    return Agreement(
        problems=len(pairs),
        graded=graded,
        same=alike.count(True),
        other=alike.count(False),
        none=alike.count(None),
        share=share,
        low=low,
        high=high,
        cost={
            unit: ratio
            for unit, ratios in costs.items()
            if (ratio := _ratio(np.array(ratios, dtype=float))) is not None
        },
        seconds=(_mean(seconds[:, 0]), _mean(seconds[:, 1])),
        confidence_same=confidence(True),
        confidence_other=confidence(False),
    )


def _spent(trace: Trace, unit: str) -> float:
    """NaN where it is not known; a problem on which nothing was called cost nothing."""
    return trace.cost.get(unit, math.nan if trace.usage.tokens else 0.0)


def _ratio(costs: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Mean of the first column over mean of the second one, of (problems, 2), and its interval; None without one."""

    def ratio(pairs: NDArray[np.float64]) -> float | None:
        mine, base = pairs.mean(0)
        return float(mine / base) if base > 0 else None

    known = len(costs) > 0 and not np.isnan(costs).any()
    value = ratio(costs) if known else None
    if value is None:
        return None
    try:
        interval = bootstrap(lambda drawn: ratio(costs[drawn]), len(costs), resamples=_OF_RATIOS)
    except Unidentified:
        return value, math.nan, math.nan
    return value, float(interval.low), float(interval.high)


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


async def answer_points(trace: Trace, example: Example, reader: Reader, sandbox: Sandbox | None = None) -> list[Point]:
    """Credit against cost over the rounds of one trace; before the first point the credit is 0."""
    credits: dict[str | None, float] = {}
    for answered in trace.rounds:
        if answered.answer not in credits:
            credits[answered.answer] = await grade(example, answered.answer, reader, sandbox)
    return [
        Point(cost={**answered.cost, "seconds": answered.at}, credit=credits[answered.answer])
        for answered in trace.rounds
    ]


def interval_cell(estimate: tuple[float, float, float] | None) -> str:
    """A share with its interval, as in a table."""
    return (
        "-"
        if estimate is None or math.isnan(estimate[0])
        else f"{_share(estimate[0])} ({_share(estimate[1])} to {_share(estimate[2])})"
    )


ALL_FINISHED = "all finished"
COLUMNS = ("run", "problems", "accuracy (95%)", "invalid", "cut off", "tokens", "GFLOPs", "seconds", "usd", "ended")


def cells(name: str, summary: Summary) -> tuple[str, ...]:
    """One row of a table: what COLUMNS names; costs are means per problem."""
    flops = summary.cost.get("flops")
    ended = [f"{count} {reason}" for reason, count in summary.stopped.items() if reason != "finished"]
    if summary.errors:
        ended.append(f"{summary.errors} failed")
    return (
        name,
        _count(summary),
        interval_cell((summary.accuracy, summary.low, summary.high))
        + (f" of {summary.graded}" if 0 < summary.graded < summary.problems else ""),
        _share(summary.invalid),
        _share(summary.truncated),
        _tokens_cell(summary),
        _number(None if flops is None else flops / 1e9),
        _number(summary.cost.get("seconds")),
        _number(summary.cost.get("usd")),
        ", ".join(ended) or (ALL_FINISHED if summary.attempts else "-"),
    )


def _tokens_cell(summary: Summary) -> str:
    """What is charged, and what was seen of it where that is less."""
    charged = summary.cost.get("tokens")
    apart = charged is not None and _number(charged) != _number(summary.seen)
    return _number(charged) + (f" ({_number(summary.seen)} seen)" if apart else "")


def _count(summary: Summary) -> str:
    seeds = f" x {len(summary.seeds)} seeds" if summary.seeds else ""
    if summary.attempts == summary.planned:
        return f"{summary.problems}{seeds}"
    return f"{summary.attempts} of {summary.planned}{seeds}"


def seeds_sentence(name: str, summary: Summary) -> str:
    """The accuracy of each seed, in words."""
    each = ", ".join(f"{_share(accuracy)} ({seed})" for seed, accuracy in summary.seeds.items())
    return f"{name}: accuracy by seed: {each}; the interval is over problems, with their seeds nested in them."


def table(summaries: Mapping[str, Summary]) -> Table:
    """Runs by name, for a terminal."""
    return text_table(COLUMNS, [cells(name, summary) for name, summary in summaries.items()])


def markdown(summaries: Mapping[str, Summary]) -> str:
    """The same as a Markdown table."""
    return markdown_table(COLUMNS, [cells(name, summary) for name, summary in summaries.items()])


def sentence(names: tuple[str, str], difference: Difference) -> str:
    """A paired difference in words."""
    if not difference.problems:
        return f"{names[0]} and {names[1]} have no graded problem in common."
    seen = (
        f"the smallest difference that could have been seen is {100 * difference.detectable:.1f} points"
        if difference.detectable <= 1
        else "these are too few to see any difference"
    )
    return (
        f"{names[0]} minus {names[1]}: {100 * difference.difference:+.1f} points "
        f"({100 * difference.low:+.1f} to {100 * difference.high:+.1f}, 95%) over {difference.problems} problems, "
        f"{difference.discordant} of them discordant; {seen}."
    )


def agreement_sentence(names: tuple[str, str], agreement: Agreement) -> str:
    """How two runs agree, in words."""
    run, base = names
    cost = [
        f"{ratio:.3g} " + ("" if math.isnan(low) else f"({low:.3g} to {high:.3g}) ") + f"times the {unit}"
        for unit, (ratio, low, high) in agreement.cost.items()
    ]
    sure = [
        f"{confidence:.2f} {where}"
        for confidence, where in (
            (agreement.confidence_same, "where both agree"),
            (agreement.confidence_other, "where they differ"),
        )
        if not math.isnan(confidence)
    ]
    same = f"{_share(agreement.share)} ({_share(agreement.low)} to {_share(agreement.high)}, 95%)"
    return (
        f"{run} beside {base}: the same answer on {same} of {agreement.problems} problems, "
        f"different ones on {agreement.other}, none from one or both on {agreement.none}; "
        + "".join(f"{part}, " for part in cost)
        + f"{_number(agreement.seconds[0])} seconds on average against {_number(agreement.seconds[1])}"
        + (f"; confidence of {base} {', '.join(sure)}" if sure else "")
        + "."
    )


def tree_sentence(name: str, tree: Mapping[str, float]) -> str:
    """How much the paths of a search share, in words; means per problem."""
    return (
        f"{name}: {tree['levels']:.1f} levels; paths of {tree['logical']:,.0f} tokens, {tree['unique']:,.0f} of them "
        f"unique (shared {tree['logical'] / tree['unique']:.2f} times), {tree['cached']:,.0f} read from the cache; "
        f"resident {tree['resident']:,.0f} on average and {tree['peak']:,.0f} at the largest level."
    )


def generations_sentences(name: str, generations: Sequence[Generation]) -> list[str]:
    """What is in each generation and what it cost, and what became of revised answers, in words; means per problem."""
    said = [
        f"{name}: generation {one.number} (of {one.problems} problems): {one.told()}"
        + ("" if math.isnan(one.right) else f"; {_share(one.right)} of the answers are right")
        + "."
        for one in generations
    ]
    if revised := sum(one.revised for one in generations):
        to_right, to_wrong = (sum(getattr(one, way) for one in generations) for way in ("to_right", "to_wrong"))
        said.append(
            f"{name}: of {revised:,} revised answers {to_right:,} went from wrong to right, {to_wrong:,} from right to "
            "wrong."
        )
    return said


def _share(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"


def _number(amount: float | None) -> str:
    return "-" if amount is None or math.isnan(amount) else f"{amount:,.4g}" if amount < 1000 else f"{amount:,.0f}"
