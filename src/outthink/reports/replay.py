"""Replays strategies on a pool: accuracy and tokens at every n, from many random subsamples of recorded samples.

Each subsample is a random order of a problem's samples; a strategy sees the first n of it. So ties that a rule breaks
by position get their expected credit, and no order of the file can help. Where the chance is known exactly it is
computed: coverage (unbiased pass@k) and the majority vote's ties. Averages are per problem, then over problems;
intervals are bootstrap intervals over problems, paired for differences.

Source: the common practice of best-of-N curves (Brown et al. 2024; Snell et al. 2024). Differs: every n of one
strategy is computed from the same random orders, so that curves are smooth and differences are paired.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from outthink.errors import UnknownName, UsageError
from outthink.laws.coverage import pass_at_k
from outthink.laws.imperfect import accepted_share
from outthink.maths.intervals import mean_and_interval
from outthink.maths.selection import Drawn, Replayed, codes, finite
from outthink.records.frames import Frame
from outthink.records.pools import PoolData, PoolProblem, copies, need_fixed, read_pool, scored
from outthink.records.runs import Result
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.report import credit_of_each
from outthink.reports.tables import markdown_table, text_table
from outthink.strategies.making import make_strategy, strategy_name
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.types import AnswerKind

if TYPE_CHECKING:
    from rich.table import Table

_NOISE = 0.005  # of the subsamples, from which on it is told
_AT_ONCE = 1 << 21  # numbers of one chunk of subsamples, so that memory does not grow with their number


@runtime_checkable
class Replayable(Protocol):
    """A strategy that can be replayed: what it would choose from samples in the order in which they were drawn."""

    def replay(self, drawn: Drawn) -> Replayed:
        """The choice for each subsample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class At:
    """A strategy at one n.

    Args:
        accuracy: credit of each problem, in [0, 1].
        used: samples it looked at, mean for each problem.
        tokens: read and written, mean for each problem; None where the pool has no tokens.
        abstained: share of subsamples without an answer, for each problem.
    """

    accuracy: NDArray[np.float64]
    used: NDArray[np.float64]
    tokens: NDArray[np.float64] | None
    abstained: NDArray[np.float64]


Curve = Mapping[int, At]


def coverage_curve(pool: PoolData, ns: Sequence[int]) -> Curve:
    """Some sample of n is right: what selection could reach; exact."""
    counts = [len(problem.correct) for problem in pool.problems]
    right = [int(problem.correct.sum()) for problem in pool.problems]
    zeros = np.zeros(len(counts))
    return {
        n: At(
            accuracy=pass_at_k(counts, right, n),
            used=np.full(len(counts), float(n)),
            tokens=_tokens_of_all(pool, n),
            abstained=zeros,
        )
        for n in ns
    }


def majority(pool: PoolData, ns: Sequence[int], *, subsamples: int, seed: int) -> Curve:
    """The majority vote at every n, tied answers sharing the credit.

    One random order gives all n at once: the counts of answers grow along it.
    """
    wanted = np.asarray(sorted(ns)) - 1
    credit = np.empty((len(pool.problems), len(wanted)))
    invalid = np.empty_like(credit)
    for row, problem in enumerate(pool.problems):
        assert problem.keys is not None
        answers = int(problem.keys.max(initial=-1)) + 1
        each = _credit_of_answers(problem, answers).astype(np.float32)
        count = np.min_scalar_type(max(int(wanted[-1]) + 1, answers))  # bytes are what this costs
        small = problem.keys.astype(np.int8 if answers < 128 else np.int32)
        sums, empty = np.zeros(len(wanted)), np.zeros(len(wanted))
        for order in _orders(problem, int(wanted[-1]) + 1, subsamples, seed, width=max(answers, 1)):
            keys = small[order]
            # one array for each answer: its count among the first n, for every n that is wanted
            counts = [np.cumsum(keys == answer, axis=1, dtype=count)[:, wanted] for answer in range(answers)]
            most = np.maximum.reduce(counts) if counts else np.zeros((len(keys), len(wanted)), dtype=count)
            leaders, right = np.zeros(most.shape, dtype=count), np.zeros(most.shape, dtype=np.float32)
            for answer, votes in enumerate(counts):
                leads = votes == most
                leaders += leads
                if each[answer]:
                    right += leads * each[answer]
            empty += (most == 0).sum(0)
            sums += np.divide(right, leaders, out=right, where=most > 0).sum(0, where=most > 0, dtype=float)
        credit[row], invalid[row] = sums / subsamples, empty / subsamples
    return {
        int(n) + 1: At(
            accuracy=credit[:, column],
            used=np.full(len(pool.problems), float(n + 1)),
            tokens=_tokens_of_all(pool, int(n) + 1),
            abstained=invalid[:, column],
        )
        for column, n in enumerate(wanted)
    }


def replayed_curve(
    strategy: Any,
    pool: PoolData,
    ns: Sequence[int],
    *,
    subsamples: int,
    seed: int,
    scorer: str | None = None,
    verdicts: int | None = None,
) -> Curve:
    """A strategy at every n of `ns` (its field `n` is replaced).

    Args:
        scorer: which scores of the pool it sees; None: none.
        verdicts: how many verdicts of each sample, drawn at random, make its score (their mean); None: all.

    An n that the strategy cannot have, or at which its scores fail it, is left out. Raises UsageError where it cannot
    be replayed, the pool lacks what it needs, or no n is left.
    """
    curve, refusals = _replayed(strategy, pool, ns, subsamples=subsamples, seed=seed, scorer=scorer, verdicts=verdicts)
    if not curve and refusals:
        raise UsageError(next(iter(refusals.values())))
    return curve


def _replayed(
    strategy: Any,
    pool: PoolData,
    ns: Sequence[int],
    *,
    subsamples: int,
    seed: int,
    scorer: str | None,
    verdicts: int | None,
) -> tuple[Curve, dict[int, str]]:
    """As `replayed_curve`, and why the other n were left out; errors only where no n can be replayed at all."""
    if isinstance(strategy, SelfConsistency):
        _need(pool, keys=True)
        return majority(pool, ns, subsamples=subsamples, seed=seed), {}
    called = strategy_name(strategy)
    if not isinstance(strategy, Replayable):
        raise UsageError(f"{called} cannot be replayed: it needs more than recorded samples.")
    reads = getattr(strategy, "reads_recorded", frozenset({"keys"}))
    _need(pool, keys="keys" in reads, logprobs="logprobs" in reads, texts="texts" in reads, tokens="tokens" in reads)
    if "scores" in reads and scorer is None:
        raise UsageError(f"{called} needs scores; the pool has: {', '.join(pool.scorers) or 'none'}.")
    has_n = any(field.name == "n" for field in fields(strategy))  # type: ignore[arg-type]  # every strategy is a dataclass
    refusals: dict[int, str] = {}
    sized: dict[int, Replayable] = {}
    for n in ns:
        try:
            sized[n] = replace(strategy, n=n) if has_n else strategy  # type: ignore[type-var]  # the same
        except (ValueError, UsageError) as refusal:
            refusals[n] = str(refusal)
    # problem by problem, so that what a strategy makes of a problem's texts it makes once
    means: dict[int, list[NDArray[np.float64]]] = {n: [] for n in sized}
    for problem in pool.problems:
        for n in [n for n in sized if n not in refusals]:
            try:
                means[n].append(_mean_of(sized[n], problem, n, subsamples, seed, scorer, verdicts))
            except (ValueError, UsageError) as refusal:
                refusals[n] = str(refusal)
            except Exception as failure:  # of a strategy from outside; it must not lose the others
                refusals[n] = f"{type(failure).__name__}: {failure}"
    return {n: _at_one(pool, rows) for n, rows in means.items() if n not in refusals}, refusals


def _at(
    strategy: Replayable, pool: PoolData, n: int, subsamples: int, seed: int, scorer: str | None, verdicts: int | None
) -> At:
    rows = [_mean_of(strategy, problem, n, subsamples, seed, scorer, verdicts) for problem in pool.problems]
    return _at_one(pool, rows)


def _at_one(pool: PoolData, rows: Sequence[NDArray[np.float64]]) -> At:
    accuracy, used, tokens, abstained = np.array(rows).T
    known = all(problem.tokens is not None for problem in pool.problems)
    return At(accuracy=accuracy, used=used, tokens=tokens if known else None, abstained=abstained)


def _mean_of(
    strategy: Replayable,
    problem: PoolProblem,
    n: int,
    subsamples: int,
    seed: int,
    scorer: str | None,
    verdicts: int | None,
) -> NDArray[np.float64]:
    """Credit, samples used, tokens and abstentions (4,) of one problem, mean over its subsamples."""
    sums = np.zeros(4)
    rng = np.random.default_rng([seed, 1, *problem.id.encode()])  # of the verdicts
    for order in _orders(problem, n, subsamples, seed, width=4):
        chosen = strategy.replay(_drawn(problem, order, scorer, verdicts, rng))
        picked = np.take_along_axis(order, np.maximum(chosen.index, 0)[:, None], 1)[:, 0]
        credit = np.where(chosen.index >= 0, problem.correct[picked], False)
        spent = np.zeros(len(order))
        if chosen.tokens is not None:
            spent = chosen.tokens + (problem.prompt or 0)
        elif problem.tokens is not None:
            written = np.cumsum(problem.tokens[order], axis=1)
            last = np.maximum(chosen.used - 1, 0)
            spent = np.where(chosen.used > 0, np.take_along_axis(written, last[:, None], 1)[:, 0], 0)
            spent = spent + (problem.prompt or 0)
        sums += [credit.sum(), chosen.used.sum(), spent.sum(), (chosen.index < 0).sum()]
    return sums / subsamples


def at_tokens(baseline: Curve, tokens: float) -> NDArray[np.float64] | None:
    """The baseline's credit of each problem where it costs `tokens` per problem on average, between two of its n.

    None where it costs more at its smallest n, or less at its largest.
    """
    ns = sorted(baseline)
    costs = [float(np.mean(spent)) if (spent := baseline[n].tokens) is not None else np.nan for n in ns]
    for low, high, n, following in zip(costs, costs[1:], ns, ns[1:], strict=False):
        if low <= tokens <= high and high > low:
            part = (tokens - low) / (high - low)
            return np.asarray((1 - part) * baseline[n].accuracy + part * baseline[following].accuracy)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualTokens:
    """A run minus the majority vote of as many recorded samples as cost the same.

    Args:
        problems: how many both have.
        tokens: what the run charged, mean per problem.
        samples: of the vote, a fraction where it lies between two numbers of samples.
        vote_tokens: what the vote costs; less than `tokens` where the run cost more than all recorded samples.
        difference, low, high: mean difference of credit and its 95% interval.
    """

    problems: int
    tokens: float
    samples: float
    vote_tokens: float
    difference: float
    low: float
    high: float

    def sentence(self, run: str) -> str:
        """In words."""
        at = f"both at {self.tokens:,.0f} tokens"
        if self.vote_tokens < self.tokens:
            at = f"{self.tokens:,.0f} tokens against {self.vote_tokens:,.0f}"
        return (
            f"{run} minus the vote of {self.samples:.1f} samples, {at}: "
            f"{100 * self.difference:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f}, 95%, paired) "
            f"over {self.problems} problems."
        )


def at_equal_tokens(
    results: Sequence[Result], pool: PoolData, *, subsamples: int = 1000, seed: int = 0
) -> EqualTokens | None:
    """A live run against the vote on a pool of the same problems; None where it cost less than one sample.

    A run that cost more than all recorded samples is compared with the vote of all of them.

    Raises UsageError where the pool lacks answers or token counts, or has no problem of the run.
    """
    _need(pool, keys=True, tokens=True)
    credits = credit_of_each(results)
    problems = [problem for problem in pool.problems if problem.id in credits]
    if not problems:
        raise UsageError(f"{pool.path} has none of the run's problems; record a pool of the same task and seed.")
    pool = replace(pool, problems=tuple(problems))
    spent: dict[str, list[float]] = {}
    for result in results:
        spent.setdefault(result.problem, []).append(0.0 if result.trace is None else result.trace.cost["tokens"])
    tokens = float(np.mean([np.mean(spent[problem.id]) for problem in problems]))
    samples = min(len(problem.correct) for problem in problems)
    vote = majority(pool, range(1, samples + 1), subsamples=subsamples, seed=seed)
    costs = [float(np.mean(tokens_of_each)) for n in sorted(vote) if (tokens_of_each := vote[n].tokens) is not None]
    same = at_tokens(vote, min(tokens, costs[-1]))
    if same is None:
        return None
    mine = np.array([credits[problem.id] for problem in problems], dtype=float)
    difference, low, high = mean_and_interval((mine - same).tolist(), least=-1.0)
    return EqualTokens(
        problems=len(problems),
        tokens=tokens,
        samples=float(np.interp(tokens, costs, range(1, samples + 1))),
        vote_tokens=min(tokens, costs[-1]),
        difference=difference,
        low=low,
        high=high,
    )


def _drawn(
    problem: PoolProblem,
    order: NDArray[np.intp],
    scorer: str | None,
    verdicts: int | None,
    rng: np.random.Generator,
) -> Drawn:
    known = None if scorer is None else _verdicts(finite(problem.scores[scorer]), order, verdicts, rng)
    complete = problem.complete[order]
    return Drawn(
        keys=np.where(complete, order if problem.keys is None else problem.keys[order], -1),
        tokens=np.zeros(order.shape) if problem.tokens is None else problem.tokens[order].astype(float),
        lengths=np.zeros(order.shape),
        complete=complete,
        logprobs=None if problem.logprobs is None else finite(problem.logprobs)[order],
        scores=None if known is None else _mean(known),
        verdicts=known,
        paths=order if problem.texts is None else codes(problem.texts)[order],
        texts=problem.texts,
        order=order,
    )


def _verdicts(
    matrix: NDArray[np.float64], order: NDArray[np.intp], verdicts: int | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(batch, n, m) verdicts: all of them, or `verdicts` of those that each sample has, drawn at random."""
    if verdicts is None or verdicts >= matrix.shape[1]:
        return matrix[order]
    given = matrix[order]
    chance = np.where(np.isnan(given), np.inf, rng.random(given.shape))
    columns = np.argpartition(chance, verdicts - 1, axis=-1)[..., :verdicts]
    return np.take_along_axis(given, columns, -1)


def _mean(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(matrix)
    count = known.sum(-1)
    total = np.where(known, matrix, 0.0).sum(-1)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))


def _orders(problem: PoolProblem, n: int, subsamples: int, seed: int, *, width: int) -> Any:
    """Random orders (chunk, n) of the problem's samples, the same for all strategies and all smaller n."""
    samples = len(problem.correct)
    rng = np.random.default_rng([seed, samples, *problem.id.encode()])
    chunk = max(1, min(subsamples, _AT_ONCE // (samples * width)))
    done = 0
    while done < subsamples:
        size = min(chunk, subsamples - done)
        yield rng.permuted(np.tile(np.arange(samples), (size, 1)), axis=1)[:, :n]
        done += size


def _credit_of_answers(problem: PoolProblem, answers: int) -> NDArray[np.float64]:
    """Share of right samples of each answer: 0 or 1 where answers that are equal are equally right."""
    assert problem.keys is not None
    valid = problem.keys >= 0
    count = np.bincount(problem.keys[valid], minlength=answers)
    right = np.bincount(problem.keys[valid], weights=problem.correct[valid], minlength=answers)
    return np.asarray(right / np.maximum(count, 1))


def _tokens_of_all(pool: PoolData, n: int) -> NDArray[np.float64] | None:
    """Expected tokens of n random samples and one reading of the prompt."""
    if any(problem.tokens is None for problem in pool.problems):
        return None
    return np.array(
        [(problem.prompt or 0) + n * float(np.mean(problem.tokens)) for problem in pool.problems]  # type: ignore[arg-type]  # there are some
    )


def _need(
    pool: PoolData, *, keys: bool = False, logprobs: bool = False, texts: bool = False, tokens: bool = False
) -> None:
    for wanted, name, there in (
        (keys, "answers", all(problem.keys is not None for problem in pool.problems)),
        (logprobs, "logprobs", all(problem.logprobs is not None for problem in pool.problems)),
        (texts, "texts", all(problem.texts is not None for problem in pool.problems)),
        (tokens, "token counts", all(problem.tokens is not None for problem in pool.problems)),
    ):
        if wanted and not there:
            raise UsageError(f"{pool.path} has no {name}, which this needs.")


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
        columns = ["strategy", "n", "accuracy (95%)", "samples used", "tokens", "abstained"]
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
        on_progress: told the strategy that comes next, and how many of how many are done.

    A strategy that cannot be replayed, or not on this pool, is left out with the reason, and so is an n that it cannot
    have. Raises UsageError with the reason where no strategy is left.
    """
    made = {name: make_strategy(name) for name in strategies}
    on_progress(f"reading {path.name}", 0, len(made))
    pool = read_pool(path, answer=answer)
    if verifier is None and len(pool.scorers) == 1:
        verifier = pool.scorers[0]
    if verifier is not None and verifier not in pool.scorers:
        raise UnknownName(f"verifier in {path}", verifier, pool.scorers or ["none"])
    if verifier is not None and any("scores" in getattr(one, "reads_recorded", ()) for one in made.values()):
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
            curve, refusals = _replayed(
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
        dense, _ = _replayed(
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
    scores = [_mean(problem.scores[verifier]) for problem in pool.problems]
    known = np.concatenate(scores)
    if not np.all((known[~np.isnan(known)] >= 0) & (known[~np.isnan(known)] <= 1)):
        return None
    pairs = zip(pool.problems, scores, strict=True)
    return verifier, np.array([accepted_share(problem.correct, score >= 0.5) for problem, score in pairs])


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
    }
