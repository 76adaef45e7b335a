"""What a strategy reaches at every n on recorded samples: accuracy, samples, tokens and abstentions of each problem.

Each subsample is a random order of a problem's samples; a strategy sees the first n of it. So ties that a rule breaks
by position get their expected credit, and no order of the file can help. Where the chance is known exactly it is
computed: coverage (unbiased pass@k) and the majority vote's ties. Averages are per problem, then over problems;
intervals are bootstrap intervals over problems, paired for differences.

Source: the common practice of best-of-N curves (Brown et al. 2024; Snell et al. 2024). Differs: every n of one
strategy is computed from the same random orders, so that curves are smooth and differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from outthink.errors import UsageError
from outthink.laws.coverage import pass_at_k
from outthink.maths.selection import Drawn, Replayed, codes, finite
from outthink.records.pools import PoolData, PoolProblem
from outthink.rng import generator
from outthink.strategies import traits
from outthink.strategies.making import strategy_name

_NEEDED = ("keys", "logprobs", "texts", "tokens", "probes", "confidences")
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
        probing: of the tokens, those that forced answers took; None where there are none.
    """

    accuracy: NDArray[np.float64]
    used: NDArray[np.float64]
    tokens: NDArray[np.float64] | None
    abstained: NDArray[np.float64]
    probing: NDArray[np.float64] | None = None


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
    curve, refusals = replayed_or_refused(
        strategy, pool, ns, subsamples=subsamples, seed=seed, scorer=scorer, verdicts=verdicts
    )
    if not curve and refusals:
        raise UsageError(next(iter(refusals.values())))
    return curve


def replayed_or_refused(
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
    if traits.majority(strategy):
        need(pool, keys=True)
        return majority(pool, ns, subsamples=subsamples, seed=seed), {}
    called, reads = strategy_name(strategy), traits.reads_recorded(strategy)
    if not isinstance(strategy, Replayable):
        raise UsageError(f"{called} cannot be replayed: it needs more than recorded samples.")
    need(pool, **{name: name in reads for name in _NEEDED})
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
    accuracy, used, tokens, abstained, probing = np.array(rows).T
    known = all(problem.tokens is not None for problem in pool.problems)
    return At(
        accuracy=accuracy,
        used=used,
        tokens=tokens if known else None,
        abstained=abstained,
        probing=probing if probing.any() else None,
    )


def _mean_of(
    strategy: Replayable,
    problem: PoolProblem,
    n: int,
    subsamples: int,
    seed: int,
    scorer: str | None,
    verdicts: int | None,
) -> NDArray[np.float64]:
    """Credit, samples used, tokens, abstentions and tokens of probes (5,) of one problem, mean over its subsamples."""
    sums = np.zeros(5)
    rng = generator(seed, 1, *problem.id.encode())  # of the verdicts
    for order in _orders(problem, n, subsamples, seed, width=4):
        chosen = strategy.replay(_drawn(problem, order, scorer, verdicts, rng))
        picked = np.take_along_axis(order, np.maximum(chosen.index, 0)[:, None], 1)[:, 0]
        right = problem.correct[picked]
        if chosen.keys is not None and problem.right is not None:
            right = (chosen.keys >= 0) & problem.right[np.maximum(chosen.keys, 0)]
        credit = np.where(chosen.index >= 0, right, False)
        spent = np.zeros(len(order))
        if chosen.tokens is not None:
            spent = chosen.tokens + (problem.prompt or 0)
        elif problem.tokens is not None:
            written = np.cumsum(problem.tokens[order], axis=1)
            last = np.maximum(chosen.used - 1, 0)
            spent = np.where(chosen.used > 0, np.take_along_axis(written, last[:, None], 1)[:, 0], 0)
            spent = spent + (problem.prompt or 0)
        probing = 0.0 if chosen.probing is None else chosen.probing.sum()
        sums += [credit.sum(), chosen.used.sum(), spent.sum(), (chosen.index < 0).sum(), probing]
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
        scores=None if known is None else mean_verdict(known),
        verdicts=known,
        paths=order if problem.texts is None else codes(problem.texts)[order],
        texts=problem.texts,
        order=order,
        probes=problem.probes,
        confidences=problem.confidences,
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


def mean_verdict(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean verdict (n,) of each row (n, m), NaN where there is none."""
    known = ~np.isnan(matrix)
    count = known.sum(-1)
    total = np.where(known, matrix, 0.0).sum(-1)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))


def _orders(problem: PoolProblem, n: int, subsamples: int, seed: int, *, width: int) -> Any:
    """Random orders (chunk, n) of the problem's samples, the same for all strategies and all smaller n."""
    samples = len(problem.correct)
    rng = generator(seed, samples, *problem.id.encode())
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


def need(
    pool: PoolData,
    *,
    keys: bool = False,
    logprobs: bool = False,
    texts: bool = False,
    tokens: bool = False,
    probes: bool = False,
    confidences: bool = False,
) -> None:
    """Raise UsageError where the pool lacks one of these."""
    for wanted, name, there in (
        (keys, "answers", all(problem.keys is not None for problem in pool.problems)),
        (logprobs, "logprobs", all(problem.logprobs is not None for problem in pool.problems)),
        (texts, "texts", all(problem.texts is not None for problem in pool.problems)),
        (tokens, "token counts", all(problem.tokens is not None for problem in pool.problems)),
        (
            probes,
            "answers forced within thoughts (--probe-every)",
            all(one.probes is not None for one in pool.problems),
        ),
        (
            confidences,
            "confidences of tokens (--top-logprobs)",
            all(one.confidences is not None for one in pool.problems),
        ),
    ):
        if wanted and not there:
            raise UsageError(f"{pool.path} has no {name}, which this needs.")
