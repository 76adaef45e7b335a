"""Replays strategies on a pool and compares them; a live run against the vote at equal tokens.

How curves come about stands in `curves`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from outthink.errors import UnknownName, UsageError
from outthink.laws.imperfect import accepted_share
from outthink.maths.intervals import mean_and_interval
from outthink.records.frames import Frame
from outthink.records.pools import PoolData, copies, need_fixed, read_pool, scored
from outthink.records.runs import Result
from outthink.reports.curves import (
    At,
    Curve,
    at_tokens,
    coverage_curve,
    majority,
    mean_verdict,
    need,
    replayed_or_refused,
)
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.report import credit_of_each
from outthink.reports.tables import markdown_table, text_table
from outthink.strategies import traits
from outthink.strategies.making import make_strategy
from outthink.types import AnswerKind, Trace

if TYPE_CHECKING:
    from rich.table import Table

Equal = Literal["tokens", "calls"]

_NOISE = 0.005  # of the subsamples, from which on it is told


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualCost:
    """A run minus the majority vote of as many recorded samples as cost the same.

    Args:
        unit: in which they cost the same: "tokens" as charged, or "calls": texts that any model was asked for.
        problems: how many both have.
        cost: of the run, mean per problem.
        samples: of the vote, a fraction where it lies between two numbers of samples.
        vote_cost: what the vote costs; less than `cost` where the run cost more than all recorded samples.
        difference, low, high: mean difference of credit and its 95% interval.
    """

    unit: Equal
    problems: int
    cost: float
    samples: float
    vote_cost: float
    difference: float
    low: float
    high: float

    def sentence(self, run: str) -> str:
        """In words."""
        digits = 0 if self.unit == "tokens" else 1
        at = f"both at {self.cost:,.{digits}f} {self.unit}"
        if self.vote_cost < self.cost:
            at = f"{self.cost:,.{digits}f} {self.unit} against {self.vote_cost:,.{digits}f}"
        return (
            f"{run} minus the vote of {self.samples:.1f} samples, {at}: "
            f"{100 * self.difference:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f}, 95%, paired) "
            f"over {self.problems} problems."
        )


def at_equal_cost(
    results: Sequence[Result], pool: PoolData, unit: Equal = "tokens", *, subsamples: int = 1000, seed: int = 0
) -> EqualCost | None:
    """A live run against the vote on a pool of the same problems; None where it cost less than one sample.

    A run that cost more than all recorded samples is compared with the vote of all of them.

    Raises UsageError where the pool lacks answers or token counts, or has no problem of the run.
    """
    need(pool, keys=True, tokens=unit == "tokens")
    credits = credit_of_each(results)
    problems = [problem for problem in pool.problems if problem.id in credits]
    if not problems:
        raise UsageError(f"{pool.path} has none of the run's problems; record a pool of the same task and seed.")
    pool = replace(pool, problems=tuple(problems))
    spent: dict[str, list[float]] = {}
    for result in results:
        spent.setdefault(result.problem, []).append(0.0 if result.trace is None else _spent(result.trace, unit))
    cost = float(np.mean([np.mean(spent[problem.id]) for problem in problems]))
    samples = min(len(problem.correct) for problem in problems)
    vote = majority(pool, range(1, samples + 1), subsamples=subsamples, seed=seed)
    if unit == "calls":
        vote = {n: replace(at, tokens=np.full(len(problems), float(n))) for n, at in vote.items()}
    costs = [float(np.mean(of_each)) for n in sorted(vote) if (of_each := vote[n].tokens) is not None]
    same = at_tokens(vote, min(cost, costs[-1])) if samples > 1 or cost < costs[-1] else vote[1].accuracy
    if same is None:
        return None
    mine = np.array([credits[problem.id] for problem in problems], dtype=float)
    difference, low, high = mean_and_interval((mine - same).tolist(), least=-1.0)
    return EqualCost(
        unit=unit,
        problems=len(problems),
        cost=cost,
        samples=float(np.interp(cost, costs, range(1, samples + 1))),
        vote_cost=min(cost, costs[-1]),
        difference=difference,
        low=low,
        high=high,
    )


def _spent(trace: Trace, unit: Equal) -> float:
    if unit == "tokens":
        return trace.cost["tokens"]
    return float(sum(call.n for call in trace.calls if call.prompt is not None))


# ------------------------------------------------------------------------------------------------- for the user


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayDifference:
    """A strategy minus the baseline on the same problems.

    Args:
        n: of the strategy; and of the baseline, unless both are compared at these `tokens` per problem.
        difference, low, high: mean difference of credit and its 95% interval, paired.
    """

    strategy: str
    baseline: str
    n: int
    tokens: float | None
    difference: float
    low: float
    high: float

    @classmethod
    def over(
        cls, strategy: str, baseline: str, credit: NDArray[np.float64], *, n: int, tokens: float | None = None
    ) -> ReplayDifference:
        """From the difference of credit (problems,)."""
        mean, low, high = mean_and_interval(credit.tolist(), least=-1.0)
        return cls(strategy=strategy, baseline=baseline, n=n, tokens=tokens, difference=mean, low=low, high=high)

    def sentence(self) -> str:
        """In words."""
        at = f"n = {self.n}" if self.tokens is None else f"{self.tokens:,.0f} tokens"
        return (
            f"{self.strategy} minus {self.baseline} at {at}: {100 * self.difference:+.1f} points "
            f"({100 * self.low:+.1f} to {100 * self.high:+.1f}, 95%, paired)."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Replays:
    """Curves by name: "coverage" and the strategies, on one pool; the first strategy of them is the baseline."""

    pool: PoolData
    curves: Mapping[str, Curve]
    dense: Curve | None
    """The baseline at every n, to compare at equal tokens; None where the pool has no tokens."""
    ceiling: tuple[str, NDArray[np.float64]] | None = None
    """The verifier, and for each problem the share of right samples among those that it scores at least one half."""
    left_out: tuple[str, ...] = ()
    """Which rows there are not, and why: one sentence for each strategy and reason."""
    subsamples: int = 1000
    """Random subsamples of each problem."""

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "pool": str(self.pool.path),
            "problems": len(self.pool.problems),
            "kind": self.pool.kind,
            "ceiling": None if self.ceiling is None else {"verifier": self.ceiling[0], **_estimate(self.ceiling[1])},
            "differences": [asdict(one) for one in self.differences()],
            "left_out": list(self.left_out),
            "curves": {name: [_plain(n, at) for n, at in sorted(curve.items())] for name, curve in self.curves.items()},
        }

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of a table: one row for each strategy and n."""
        probed = any(at.probing is not None for curve in self.curves.values() for at in curve.values())
        columns = ["strategy", "n", "accuracy (95%)", "samples used", "tokens", "abstained"]
        columns += ["of the tokens, probes"] if probed else []
        rows = []
        for name, curve in self.curves.items():
            for n, at in sorted(curve.items()):
                mean, low, high = mean_and_interval(at.accuracy.tolist())
                tokens = "-" if at.tokens is None else f"{np.mean(at.tokens):,.0f}"
                rows.append(
                    [
                        name,
                        str(n),
                        f"{100 * mean:.1f}% ({100 * low:.1f}% to {100 * high:.1f}%)",
                        f"{np.mean(at.used):.1f}",
                        tokens,
                        f"{100 * np.mean(at.abstained):.1f}%",
                        *([_share_probed(at)] if probed else []),
                    ]
                )
        return columns, rows

    def table(self) -> Table:
        """For a terminal."""
        return text_table(*self.rows())

    def markdown(self) -> str:
        """As a Markdown table."""
        return markdown_table(*self.rows())

    def sentences(self) -> list[str]:
        """What was left out, what the verifier's errors allow at most, `differences`, and what to be careful about."""
        copied = copies(self.pool)
        noise = self.noise()
        ceiling = []
        if self.ceiling is not None:
            verifier, shares = self.ceiling
            mean, low, high = mean_and_interval(shares.tolist())
            ceiling.append(
                f"Sampling until {verifier} gives at least 0.5 reaches at most {100 * mean:.1f}% "
                f"({100 * low:.1f}% to {100 * high:.1f}%, 95%), whatever the number of attempts."
            )
        return [
            *self.left_out,
            *ceiling,
            *(one.sentence() for one in self.differences()),
            *([] if noise is None else [noise]),
            *([] if copied is None else [f"Note that {copied}"]),
        ]

    def noise(self) -> str | None:
        """How far the choice of subsamples alone moves an accuracy, where that is half a point or more; at most."""
        variances = [
            at.accuracy * (1 - at.accuracy)
            for name, curve in self.curves.items()
            if name != "coverage"
            for at in curve.values()
        ]
        means = [float(np.mean(each)) / (self.subsamples * len(self.pool.problems)) for each in variances]
        reach = 1.96 * max(means, default=0.0) ** 0.5
        if reach < _NOISE:
            return None
        return (
            f"With {self.subsamples} subsamples of each problem, chance in them moves an accuracy by up to "
            f"{100 * reach:.1f} points (95%), which the intervals hold; more --subsamples lower that."
        )

    def differences(self) -> list[ReplayDifference]:
        """Each strategy against the baseline: at its largest n, and where tokens are known at equal tokens."""
        baseline, *others = [name for name in self.curves if name != "coverage"]
        differences = []
        for name in others:
            n = max(self.curves[name])
            at, base = self.curves[name][n], self.curves[baseline].get(n)
            if base is not None:
                credit = at.accuracy - base.accuracy
                differences.append(ReplayDifference.over(name, baseline, credit, n=n))
            if at.tokens is None or self.dense is None:
                continue
            tokens = float(np.mean(at.tokens))
            same = at_tokens(self.dense, tokens)
            if same is not None:
                differences.append(ReplayDifference.over(name, baseline, at.accuracy - same, n=n, tokens=tokens))
        return differences

    def frame(self) -> Frame:
        """One row for each strategy and n, shares in [0, 1]."""
        rows = [
            {"strategy": name, **_plain(n, at)}
            for name, curve in self.curves.items()
            for n, at in sorted(curve.items())
        ]
        return Frame.of_rows(rows)

    def figure(self) -> Figure:
        """Accuracy against tokens, or against samples where the pool has no tokens: a curve with its band each."""
        tokens = all(at.tokens is not None for curve in self.curves.values() for at in curve.values())
        series = []
        for name, curve in self.curves.items():
            points = sorted(
                (_plain(n, at) for n, at in curve.items()), key=lambda point: point["tokens" if tokens else "n"]
            )
            series.append(
                Series(
                    name=name,
                    x=[point["tokens" if tokens else "n"] for point in points],
                    y=[point["accuracy"] for point in points],
                    low=[point["low"] for point in points],
                    high=[point["high"] for point in points],
                    mark="line" if len(points) > 1 else "points",
                )
            )
        return Figure(
            title=self.pool.path.name,
            x=Axis(title=f"{'tokens' if tokens else 'samples'} per problem", log=True),
            y=Axis(title="accuracy (95% interval)", percent=True),
            series=tuple(series),
        )


def replay_pool(
    path: Path,
    strategies: Sequence[str],
    *,
    ns: Sequence[int] | None = None,
    verifier: str | None = None,
    verdicts: int | None = None,
    answer: AnswerKind = "text",
    subsamples: int = 1000,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Replays:
    """Curves of strategies on a pool.

    Args:
        strategies: names with options, such as "borda?p=1"; the first one is the baseline.
        ns: None: 1, 2, 4 ... and all.
        verifier: name of the scores; None where the pool has only one, or none is needed.
        verdicts: as for `curve`.
        answer: how answers without a key are compared.
        on_progress: told the file or the strategy that comes next, and how many of how many are done.

    A strategy that cannot be replayed, or not on this pool, is left out with the reason, and so is an n that it cannot
    have. Raises UsageError with the reason where no strategy is left.
    """
    made = {name: make_strategy(name) for name in strategies}
    on_progress(path.name, 0, len(made))
    pool = read_pool(path, answer=answer)
    if verifier is None and len(pool.scorers) == 1:
        verifier = pool.scorers[0]
    if verifier is not None and verifier not in pool.scorers:
        raise UnknownName(f"verifier in {path}", verifier, pool.scorers or ["none"])
    if verifier is not None and any("scores" in traits.reads_recorded(one) for one in made.values()):
        pool = scored(pool, verifier)
    if ns is None:
        ns = sorted({pool.samples, *(2**power for power in range(pool.samples.bit_length()))})
    if not ns or min(ns) < 1 or max(ns) > pool.samples:
        raise UsageError(f"{path} has {pool.samples} samples of each problem, so n must be from 1 to {pool.samples}.")
    need_fixed(pool)
    curves: dict[str, Curve] = {"coverage": coverage_curve(pool, ns)}
    left_out: list[str] = []
    refusal: UsageError | None = None
    for done, (name, strategy) in enumerate(made.items()):
        on_progress(name, done, len(made))
        try:
            curve, refusals = replayed_or_refused(
                strategy, pool, ns, subsamples=subsamples, seed=seed, scorer=verifier, verdicts=verdicts
            )
            left_out += _left_out(name, refusals)
            if curve:
                curves[name] = curve
            elif refusals:
                refusal = refusal or UsageError(_left_out(name, refusals)[0])
        except UsageError as cause:
            refusal = refusal or cause
            left_out.append(f"{name} is left out: {cause}")
    replayed = [name for name in made if name in curves]
    if refusal is not None and not replayed:
        raise refusal
    dense = None
    if len(replayed) > 1 and all(problem.tokens is not None for problem in pool.problems):
        every = range(1, pool.samples + 1)
        on_progress(f"{replayed[0]} at every n", len(made), len(made))
        dense, _ = replayed_or_refused(
            made[replayed[0]], pool, every, subsamples=subsamples, seed=seed, scorer=verifier, verdicts=verdicts
        )
    return Replays(
        pool=pool,
        curves=curves,
        dense=dense,
        ceiling=_ceiling(pool, verifier),
        left_out=tuple(left_out),
        subsamples=subsamples,
    )


def _left_out(name: str, refusals: Mapping[int, str]) -> list[str]:
    """One sentence for each reason why some n were left out."""
    sentences = []
    for ns, reason in _by_reason(refusals):
        at = f"n = {ns[0]}" if len(ns) == 1 else f"n = {', '.join(map(str, ns[:-1]))} and {ns[-1]}"
        sentences.append(f"{name} is left out at {at}: {reason.rstrip('.')}.")
    return sentences


def _by_reason(refusals: Mapping[int, str]) -> list[tuple[list[int], str]]:
    """The n with each reason; reasons that differ in their numbers only are one."""
    groups: dict[str, tuple[list[int], str]] = {}
    for n, reason in refusals.items():
        groups.setdefault(re.sub(r"\d+", "", reason), ([], reason))[0].append(n)
    return list(groups.values())


def _ceiling(pool: PoolData, verifier: str | None) -> tuple[str, NDArray[np.float64]] | None:
    """What resampling with the verifier cannot exceed; None where its scores are no probabilities."""
    if verifier is None:
        return None
    scores = [mean_verdict(problem.scores[verifier]) for problem in pool.problems]
    known = np.concatenate(scores)
    if not np.all((known[~np.isnan(known)] >= 0) & (known[~np.isnan(known)] <= 1)):
        return None
    pairs = zip(pool.problems, scores, strict=True)
    return verifier, np.array([accepted_share(problem.correct, score >= 0.5) for problem, score in pairs])


def _share_probed(at: At) -> str:
    """How much of the tokens goes into answers that are forced on the way, as the literature often leaves out."""
    if at.probing is None or at.tokens is None:
        return "-"
    return f"{100 * np.mean(at.probing) / np.mean(at.tokens):.1f}%"


def _estimate(credit: NDArray[np.float64]) -> dict[str, float]:
    mean, low, high = mean_and_interval(credit.tolist())
    return {"accuracy": mean, "low": low, "high": high}


def _plain(n: int, at: At) -> dict[str, Any]:
    return {
        "n": n,
        **_estimate(at.accuracy),
        "used": float(np.mean(at.used)),
        "tokens": None if at.tokens is None else float(np.mean(at.tokens)),
        "abstained": float(np.mean(at.abstained)),
        **({} if at.probing is None else {"probing": float(np.mean(at.probing))}),
    }
