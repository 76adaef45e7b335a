"""Solve or verify: more solutions with a vote, or fewer solutions that are each verified V times, at equal compute.

Source: Singhi et al. 2025, "When To Solve, When To Verify" (the authors' evaluation code, its README and summaries
read, not the paper). Differs: S is whatever a budget buys beside V verifications, not a power of two. V of the recorded
verifications are drawn at random, not the first V. Ties share the credit exactly, and an answer that cannot be read
never wins. The best split is chosen on one half of the problems and measured on the other. Reading a solution before it
is verified can be charged. Exponents come with intervals; there are none where the best split lies at the edge of what
was recorded. The law is also fitted to half of the range; what that misses at the whole of it, it may miss again at
each further doubling.

Compute is in units of one solution: S solutions with V verifications each cost S (1 + lambda V), and with V = 0 they
are a plain vote (self-consistency). Both ways must use the same recorded samples of the same problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.maths.intervals import Interval, bootstrap
from outthink.rng import generator

Floats = NDArray[np.float64]
Rule = Literal["best_of", "vote"]

_DIGITS = 12  # rates that differ by less are ties
_HALVINGS = 10  # of the problems; each half chooses for the other one
_AT_THE_EDGE = 0.2  # share of choices at the edge of the grid, above which a budget says nothing about the best split
_TAIL = 0.025  # on each side of an interval
_COARSE = 0.35  # of a logarithm: numbers of verifications are a factor of the square root of two apart
_LOST = 0.2  # share of resamples whose half has no law, above which none is known

# ---- what it costs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyingCost:
    """What verifying costs, in units of one solution; a positive ratio, and reading of at least 0.

    Args:
        ratio: lambda, of writing one verification.
        reading: of reading the problem and a solution before its first verification, which the others share; 0 as in
            the paper, which does not charge it.
        interval: of the ratio where it was measured.
    """

    ratio: float = 1.0
    reading: float = 0.0
    interval: Interval | None = None

    def __post_init__(self) -> None:
        if not 0 < self.ratio < math.inf:
            raise ValueError(f"the ratio must be a positive number, not {self.ratio}")
        if not 0 <= self.reading < math.inf:
            raise ValueError(f"reading must be a number of at least 0, not {self.reading}")

    def cost(self, solutions: ArrayLike, verifications: ArrayLike) -> Floats:
        """S (1 + reading + lambda V), where reading counts only with V > 0; everything broadcasts."""
        return np.asarray(np.asarray(solutions, float) * self._each(verifications))

    def solutions(self, budget: ArrayLike, verifications: ArrayLike) -> NDArray[np.intp]:
        """The most solutions with so many verifications each that cost no more than the budget."""
        bought = np.asarray(budget, float) / self._each(verifications)
        return np.asarray(np.floor(bought * (1 + 1e-12)), dtype=np.intp)  # what costs exactly the budget is affordable

    def _each(self, verifications: ArrayLike) -> Floats:
        v = np.asarray(verifications, float)
        return np.asarray(1 + np.where(v > 0, self.reading, 0.0) + self.ratio * v)


# ---- what it reaches ------------------------------------------------------------------------------------------------


def best_of_subsets(scores: ArrayLike, credit: ArrayLike, sizes: ArrayLike) -> Floats:
    """Expected credit (..., K) of the best-scored one of a random subset, exactly, for each of K sizes.

    Args:
        scores: (..., n) any numbers; equal scores share the credit of their subset evenly.
        credit: (..., n), which broadcasts with scores.
        sizes: (K,) of the subsets, from 1 to n.
    """
    scores, credit = np.broadcast_arrays(np.round(np.asarray(scores, float), _DIGITS), np.asarray(credit, float))
    k, n = np.asarray(sizes, dtype=np.intp), scores.shape[-1]
    if k.ndim != 1 or k.size == 0 or k.min() < 1 or k.max() > n:
        raise ValueError(f"subsets are of 1 to {n} samples")
    order = np.argsort(scores, axis=-1)
    ranked, earned = np.take_along_axis(scores, order, -1), np.take_along_axis(credit, order, -1)
    # among equals each is the winner equally often, so all of them are worth their mean
    fresh = np.concatenate([np.ones((*ranked.shape[:-1], 1), bool), ranked[..., 1:] != ranked[..., :-1]], axis=-1)
    group = (fresh.cumsum(-1) - 1 + np.arange(fresh[..., 0].size).reshape((*fresh.shape[:-1], 1)) * n).ravel()
    size = np.bincount(group, minlength=group.size)
    total = np.bincount(group, weights=earned.ravel(), minlength=group.size)
    shared = (total[group] / size[group]).reshape(earned.shape)
    return np.asarray(shared @ _highest_ranks(n, k))


def _highest_ranks(n: int, k: NDArray[np.intp]) -> Floats:
    """P(rank i of n, counted from the lowest, is the highest of a random subset of k): C(i, k - 1) / C(n, k)."""
    from scipy.special import gammaln  # here, because importing it is slow

    i = np.arange(n)[:, None]
    logs = gammaln(i + 1) - gammaln(np.maximum(i - k + 2, 1)) - gammaln(n + 1) + gammaln(n - k + 1) + np.log(k)
    return np.where(i >= k - 1, np.exp(logs), 0.0)


def success_rates(
    keys: Sequence[ArrayLike],
    correct: Sequence[ArrayLike],
    verdicts: Sequence[ArrayLike],
    solutions: ArrayLike,
    verifications: ArrayLike,
    *,
    rule: Rule = "best_of",
    draws: int = 100,
    seed: int = 0,
) -> Floats:
    """SR(S, V) of each problem, (problems, S, V): the mean over random S of its solutions and V of their verdicts.

    Args:
        keys: of each problem (n,) answers as numbers; equal ones are equal answers, -1 is no answer, which never wins.
            Where answers cannot be compared, as of code, each is one of its own, and the vote a random choice.
        correct: of each problem (n,), whether a solution is right.
        verdicts: of each problem (n, m) from 0 (No) to 1 (Yes), or P(Yes); NaN where one could not be read. The score
            of a solution is the mean of those that could, and 0 where none could.
        solutions: each from 1 to the smallest n.
        verifications: each from 0 (a plain vote) to the smallest m.
        rule: the solution with the best score, or the answer with the largest sum of scores.
        draws: random choices of verdicts, and for a vote of solutions; over solutions "best_of" is exact.
    """
    most, widest = limits(keys, verdicts)
    chosen_s, chosen_v = np.asarray(solutions, dtype=np.intp), np.asarray(verifications, dtype=np.intp)
    if not chosen_s.size or chosen_s.min() < 1 or chosen_s.max() > most:
        raise ValueError(f"every problem has {most} solutions, so S must be from 1 to {most}")
    if not chosen_v.size or chosen_v.min() < 0 or chosen_v.max() > widest:
        raise ValueError(f"every solution has {widest} verifications, so V must be from 0 to {widest}")
    if rule not in ("best_of", "vote"):
        raise ValueError(f"the rule must be best_of or vote, not {rule!r}")
    rates = np.empty((len(keys), len(chosen_s), len(chosen_v)))
    for row, (key, right, verdict) in enumerate(zip(keys, correct, verdicts, strict=True)):
        rng = generator(seed, row)
        answers, credit = np.asarray(key, dtype=np.intp), np.asarray(right, dtype=float)
        judged = np.asarray(verdict, dtype=float)
        if credit.shape != answers.shape:
            raise ValueError("keys and correct must be of the same solutions")
        if ((judged < 0) | (judged > 1)).any():
            raise ValueError("verdicts must be from 0 to 1")
        order = rng.permuted(np.tile(np.arange(len(answers)), (draws, 1)), axis=1)
        plain = chosen_v == 0
        if plain.any():
            ones = np.ones((draws, len(answers), 1))
            rates[row][:, plain] = _vote(answers, credit, ones, order, chosen_s)
        if not plain.all():
            scores = _scores(judged, chosen_v[~plain], draws, rng)
            if rule == "vote":
                rates[row][:, ~plain] = _vote(answers, credit, scores, order, chosen_s)
            else:
                ranked = np.where(answers >= 0, np.moveaxis(scores, -1, 0), -np.inf)  # (V, draws, n)
                earned = np.where(answers >= 0, credit, 0.0)
                rates[row][:, ~plain] = best_of_subsets(ranked, earned, chosen_s).mean(1).T
    return rates


def limits(keys: Sequence[ArrayLike], verdicts: Sequence[ArrayLike]) -> tuple[int, int]:
    """How many solutions every problem has, and how many verifications each of them.

    Raises ValueError where there is no problem, or solutions and verdicts do not match.
    """
    shapes = [(np.shape(key), np.shape(verdict)) for key, verdict in zip(keys, verdicts, strict=True)]
    if not shapes or any(
        len(key) != 1 or len(verdict) != 2 or key[0] != verdict[0] or not key[0] for key, verdict in shapes
    ):
        raise ValueError("each problem needs answers (n,) and verdicts (n, m) of the same solutions")
    return min(key[0] for key, _ in shapes), min(verdict[1] for _, verdict in shapes)


def _scores(verdicts: Floats, numbers: NDArray[np.intp], draws: int, rng: np.random.Generator) -> Floats:
    """(draws, n, V) means of the first so many of randomly ordered verdicts that could be read."""
    mixed = rng.permuted(np.broadcast_to(verdicts, (draws, *verdicts.shape)), axis=-1)
    known = ~np.isnan(mixed)
    total = np.where(known, mixed, 0.0).cumsum(-1)[..., numbers - 1]
    count = known.cumsum(-1)[..., numbers - 1]
    return np.asarray(np.divide(total, count, out=np.zeros(total.shape), where=count > 0))


def _vote(
    answers: NDArray[np.intp],
    credit: Floats,
    weights: Floats,
    order: NDArray[np.intp],
    solutions: NDArray[np.intp],
) -> Floats:
    """(S, V) mean credit of the answer with the largest weight among the first S of each order; ties share it."""
    valid = answers >= 0
    if not valid.any():
        return np.zeros((len(solutions), weights.shape[-1]))
    drawn, mass = answers[order], np.take_along_axis(weights, order[..., None], 1)
    totals, worth = [], []
    for answer in np.unique(answers[valid]):
        here = drawn == answer
        total = (mass * here[..., None]).cumsum(1)[:, solutions - 1]  # (draws, S, V)
        there = here.cumsum(1)[:, solutions - 1, None] > 0
        totals.append(np.where(there, np.round(total, _DIGITS), -1.0))
        worth.append(float(credit[answers == answer].mean()))
    every = np.stack(totals)
    leads = (every == every.max(0)) & (every >= 0)
    leaders = leads.sum(0)
    right = np.tensordot(np.array(worth), leads, 1)
    return np.asarray(np.divide(right, leaders, out=np.zeros(right.shape), where=leaders > 0).mean(0))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Options:
    """What each budget can buy, and what it reached on each problem.

    Args:
        budgets: (C,) in solutions.
        verifications: (V,) at least 1.
        solutions: (C, V) that the budget buys with so many verifications each, but not more than were recorded; 0
            where it buys none.
        capped: (C, V) whether it could buy more than were recorded.
        verified: (problems, C, V) success rates; NaN where there are no solutions.
        vote: (problems, C) of a plain vote of as many solutions as the budget buys, but not more than were recorded.
        price: of verifying.
        most: solutions that were recorded of every problem.
    """

    budgets: Floats
    verifications: NDArray[np.intp]
    solutions: NDArray[np.intp]
    capped: NDArray[np.bool_]
    verified: Floats
    vote: Floats
    price: VerifyingCost
    most: int


def options(
    keys: Sequence[ArrayLike],
    correct: Sequence[ArrayLike],
    verdicts: Sequence[ArrayLike],
    *,
    price: VerifyingCost,
    budgets: Sequence[float] | None = None,
    rule: Rule = "best_of",
    draws: int = 100,
    seed: int = 0,
) -> Options:
    """What every budget can buy with V = 1, 2, 3, 4, 6, 8, 11 ... verifications of each solution.

    Args:
        price: of verifying.
        budgets: increasing, at least 1, in solutions. None: powers of the square root of two, from two solutions with
            one verification to everything that was recorded.
        keys, correct, verdicts, rule, draws, seed: as in `success_rates`.
    """
    most, widest = limits(keys, verdicts)
    if widest == 0:
        raise ValueError("there are no verifications")
    numbers = np.unique([round(v) for v in _steps(1, widest)])
    if budgets is None:
        least = float(price.cost(2, 1))
        budgets = _steps(least, float(price.cost(most, widest))) or [least]
    spend = np.asarray(budgets, dtype=float)
    if (
        spend.ndim != 1
        or not spend.size
        or not (np.isfinite(spend) & (spend >= 1)).all()
        or np.any(np.diff(spend) <= 0)
    ):
        raise ValueError("budgets are increasing numbers of at least 1, the cost of one solution")
    bought = price.solutions(spend[:, None], numbers)
    plain = np.minimum(price.solutions(spend, 0), most)
    split = np.minimum(bought, most)
    wanted = np.unique(np.concatenate([split[split > 0], plain]))
    rates = success_rates(keys, correct, verdicts, wanted, [0, *numbers], rule=rule, draws=draws, seed=seed)
    verified = rates[:, np.searchsorted(wanted, np.maximum(split, 1)), np.arange(1, len(numbers) + 1)]
    return Options(
        budgets=spend,
        verifications=numbers,
        solutions=split,
        capped=bought > most,
        verified=np.where(split > 0, verified, np.nan),
        vote=rates[:, np.searchsorted(wanted, plain), 0],
        price=price,
        most=most,
    )


def _steps(first: float, last: float) -> list[float]:
    """Powers of the square root of two from the first that is at least `first` to the last that is at most `last`."""
    tolerance = 1e-9
    low, high = math.ceil(2 * math.log2(first) - tolerance), math.floor(2 * math.log2(last) + tolerance)
    return [2.0 ** (power / 2) for power in range(low, high + 1)]


# ---- which is better ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EqualComputeCurves:
    """Voting and verifying at equal compute; arrays (C,), one entry per budget.

    Args:
        vote, verified: success rates; that of verifying on problems that did not choose the split.
        solutions, verifications: of the chosen splits, geometric means over the halves of the problems.
        difference: verified minus vote on the same problems.
        crossover: the smallest budget from which on verifying is at least as good at every larger one; None where it
            is worse at the largest. Interval: None where more than a fifth of resamples have no crossover.
        most: solutions that were recorded; the vote of a larger budget is one of all of them.
    """

    budgets: Floats
    vote: Floats
    vote_interval: Interval
    verified: Floats
    verified_interval: Interval
    difference: Floats
    difference_interval: Interval
    solutions: Floats
    verifications: Floats
    crossover: float | None
    crossover_interval: Interval | None
    most: int

    def at(self, budget: ArrayLike) -> Floats:
        """Verified minus vote (...) at budgets (...) that were compared, or on the line over log budget between two.

        Raises ValueError outside of what was compared.
        """
        return self._between(budget, self.difference)

    def at_interval(self, budget: ArrayLike) -> Interval:
        """Interval (...) of it."""
        interval = self.difference_interval
        return Interval(
            low=self._between(budget, interval.low), high=self._between(budget, interval.high), missing=interval.missing
        )

    def _between(self, budget: ArrayLike, line: Floats) -> Floats:
        wanted = np.asarray(budget, float)
        if not ((wanted >= self.budgets[0]) & (wanted <= self.budgets[-1])).all():
            raise ValueError(f"budgets from {self.budgets[0]:g} to {self.budgets[-1]:g} were compared")
        return np.asarray(np.interp(np.log(wanted), np.log(self.budgets), line))


def compare(options: Options, *, seed: int = 0) -> EqualComputeCurves:
    """Voting against the best split at every budget, where each half of the problems chooses the split of the other.

    Raises Unidentified with fewer than four problems: each half needs two.
    """
    affordable = (options.solutions > 0).any(1)
    if not affordable.any():
        raise Unidentified("No budget buys a solution and its verification; give larger budgets.")
    halves = _halves(len(options.vote), seed)
    budgets, vote, verified = options.budgets[affordable], options.vote[:, affordable], options.verified[:, affordable]

    def curves(problems: NDArray[np.intp]) -> Floats:
        weights = np.bincount(problems, minlength=len(vote)).astype(float)
        mine = weights @ vote / weights.sum()
        _, other = _chosen(verified, weights, halves)
        return np.stack([mine, other, other - mine])

    def crossing(problems: NDArray[np.intp]) -> float | None:
        return _crossover(budgets, curves(problems)[2])

    everything = np.arange(len(vote))
    mine, other, difference = curves(everything)
    least = np.array([0.0, 0.0, -1.0])[:, None]
    interval = bootstrap(curves, len(vote), seed=seed, bounds=(least, 1.0))
    crossover = crossing(everything)
    try:
        around = None if crossover is None else bootstrap(crossing, len(vote), seed=seed)
    except Unidentified:
        around = None
    picks, _ = _chosen(verified, np.ones(len(vote)), halves)
    split = _picked(options.solutions[affordable], picks)
    return EqualComputeCurves(
        budgets=budgets,
        vote=mine,
        vote_interval=_part(interval, 0),
        verified=other,
        verified_interval=_part(interval, 1),
        difference=difference,
        difference_interval=_part(interval, 2),
        solutions=np.exp(np.log(split).mean(0)),
        verifications=np.exp(np.log(options.verifications[picks]).mean(0)),
        crossover=crossover,
        crossover_interval=around,
        most=options.most,
    )


def _crossover(budgets: Floats, difference: Floats) -> float | None:
    """The first budget from which on no difference is negative."""
    behind = np.flatnonzero(np.round(difference, _DIGITS) < 0)
    first = 0 if behind.size == 0 else int(behind[-1]) + 1
    return None if first == len(budgets) else float(budgets[first])


def _halves(problems: int, seed: int) -> NDArray[np.bool_]:
    """(halvings, problems) random halves."""
    if problems < 4:
        raise Unidentified("To choose a split on one half of the problems and measure it on the other takes four.")
    rng = generator(seed, problems)
    return rng.permuted(np.tile(np.arange(problems) < problems // 2, (_HALVINGS, 1)), axis=1)


def _chosen(verified: Floats, weights: Floats, halves: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Floats]:
    """Which split each half and each other half prefers (halves, C), and what it is worth on the rest (C,).

    Of equal splits the one with fewer verifications is preferred. Halvings with an empty half are left out.

    Raises Unidentified where none is left, as where one problem is all there is.
    """
    filled = np.where(np.isnan(verified), -1.0, verified)  # what cannot be bought is not chosen
    of_half = halves * weights
    of_half = of_half[of_half.any(1) & ((of_half != weights).any(1))]
    if not len(of_half):
        raise Unidentified("A half of the problems is empty.")
    sums, count = (of_half @ filled.reshape(len(weights), -1)).reshape(-1, *verified.shape[1:]), of_half.sum(1)
    rest, others = np.tensordot(weights, filled, 1) - sums, weights.sum() - count
    first, second = sums / count[:, None, None], rest / others[:, None, None]
    picks = np.round(np.concatenate([first, second]), _DIGITS).argmax(-1)
    worth = np.take_along_axis(np.concatenate([second, first]), picks[..., None], -1)
    return picks, np.asarray(worth.mean((0, -1)))


# ---- how the best split grows ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """The best split as a power law: S = s C**a solutions with V = v C**b verifications each at budget C.

    Args:
        a, b: exponents; they need not sum to 1, but come near it where most of the cost is verifying.
        s, v: factors.
        parameters: interval of (a, b), bounds of shape (2,). It holds what the choice of problems leaves open, and not
            how coarse the recorded numbers of verifications are.
        budgets: that were fitted.
        left_out: budgets at which the best split is at the edge of what was recorded.
        gain: success rate of the chosen splits above the mean split of the same budget, on problems that did not
            choose them.
        drift: (2,) logarithms of S and V at the largest budget as told by the law of budgets up to half of it, less
            those that were chosen; NaN where there are fewer than three.
        drift_interval: of it.
        draws: (resamples, 6), a, log s, b, log v and the drift of each resample.
    """

    a: float
    b: float
    s: float
    v: float
    parameters: Interval
    budgets: Floats
    left_out: Floats
    gain: float
    gain_interval: Interval
    drift: Floats
    drift_interval: Interval
    draws: Floats

    @property
    def misses(self) -> bool:
        """Whether half of the range would have misled by more than chance and the coarse numbers of verifications."""
        return bool(np.any((self.drift_interval.low > _COARSE) | (self.drift_interval.high < -_COARSE)))

    def at(self, budget: float) -> Floats:
        """S and V (2,), not rounded. Beyond ten times the largest fitted budget nothing supports them."""
        return np.array([self.s * budget**self.a, self.v * budget**self.b])

    def at_interval(self, budget: float) -> Interval:
        """Interval (2,) of them; beyond what was fitted it also holds what half of the range missed, or anything."""
        told = self.draws[:, 1:4:2] + self.draws[:, 0:3:2] * math.log(budget)
        beyond = max(math.log2(budget / self.budgets.max()), 0.0)
        moved = told - self.draws[:, 4:] * beyond if beyond else told
        (low, high), (lower, higher) = (np.exp(np.quantile(logs, [_TAIL, 1 - _TAIL], axis=0)) for logs in (told, moved))
        low, high = np.minimum(low, lower), np.maximum(high, higher)
        unknown = np.isnan(low)
        return Interval(
            low=np.where(unknown, 1.0, low),
            high=np.where(unknown, budget, high),
            missing=self.parameters.missing,
        )

    def allocate(self, budget: float, price: VerifyingCost, *, crossover: float | None = None) -> tuple[int, int]:
        """How to spend a budget of at least 1: whole solutions, and verifications of each, 0 for a plain vote.

        V is rounded to a power of two, and S is what the budget buys beside it, so the cost is never above the budget.

        Args:
            crossover: of a `Comparison`; a smaller budget is voted with. None: verify wherever that is affordable.
        """
        if not 1 <= budget < math.inf:
            raise ValueError(f"a budget is at least 1, the cost of one solution, not {budget}")
        v = 2 ** max(round(math.log2(self.v * budget**self.b)), 0)
        while v > 1 and price.solutions(budget, v) < 2:
            v //= 2
        solutions = int(price.solutions(budget, v))
        if solutions < 2 or (crossover is not None and budget < crossover):
            return int(price.solutions(budget, 0)), 0
        return solutions, v


def fit_split(options: Options, *, resamples: int = 500, seed: int = 0) -> Split:
    """The exponents, by least squares on the logarithms of the splits that the halves of the problems choose.

    Chosen is among splits with at least two solutions. A budget is left out where more than a fifth of the choices have
    the most verifications that were recorded, or would buy more solutions than were: there the best split is not known.

    Raises Unidentified where fewer than three budgets are left, S or V is the same at all of them, or the chosen splits
    are not measurably better than the others, so that there is nothing to choose.
    """
    problems = len(options.vote)
    halves = _halves(problems, seed)
    possible = (options.solutions > 1).sum(1) > 1
    if possible.sum() < 3:
        raise Unidentified(
            f"At {possible.sum()} budgets is there a choice between solutions and verifications, and three are needed."
        )
    budgets, solutions = options.budgets[possible], options.solutions[possible]
    verified = np.where(solutions > 1, options.verified[:, possible], np.nan)
    edge = options.capped[possible] | (np.arange(len(options.verifications)) == len(options.verifications) - 1)
    draws: list[Floats] = []

    def chosen(positions: NDArray[np.intp]) -> tuple[NDArray[np.intp], Floats, NDArray[np.bool_]]:
        """What each half picks (halves, C), how much better that is than the mean split (C,), and where to trust it."""
        weights = np.bincount(positions, minlength=problems).astype(float)
        picks, worth = _chosen(verified, weights, halves)
        at_edge = _picked(edge, picks).mean(0)
        average = np.nanmean(np.tensordot(weights, verified, 1) / weights.sum(), axis=-1)
        return picks, worth - average, at_edge <= _AT_THE_EDGE

    def law(positions: NDArray[np.intp]) -> Floats:
        """a, log s, b, log v, and the drifts of log S and log V."""
        picks, _, inside = chosen(positions)
        if inside.sum() < 3:
            raise Unidentified(
                f"At {inside.sum()} of {len(inside)} budgets is the best split inside of what was recorded, and three "
                "are needed; record more solutions, or more verifications of each."
            )
        log_budgets = np.log(budgets[inside])
        half = budgets[inside] <= budgets[inside].max() / 2
        lines, missed = [], []
        for name, numbers in (
            ("solutions", _picked(solutions, picks)),
            ("verifications", options.verifications[picks]),
        ):
            logs = np.log(numbers[:, inside]).mean(0)
            if np.ptp(logs) < 1e-9:
                raise Unidentified(f"The best number of {name} is the same at every budget, so it has no exponent.")
            lines.append(np.polyfit(log_budgets, logs, 1))
            told = (
                np.polyval(np.polyfit(log_budgets[half], logs[half], 1), log_budgets[-1])
                if half.sum() > 2
                else math.nan
            )
            missed.append(told - logs[-1])
        return np.concatenate([*lines, missed])

    def exponents(positions: NDArray[np.intp]) -> Floats:
        draws.append(law(positions))
        return draws[-1][:4:2]

    everything = np.arange(problems)
    a, s, b, v, *missed = law(everything)
    _, better, inside = chosen(everything)
    gain = float(better[inside].mean())
    of_gain = bootstrap(lambda positions: chosen(positions)[1][inside].mean(), problems, resamples=resamples, seed=seed)
    if of_gain.low <= 0:
        raise Unidentified(
            f"The chosen splits are {100 * gain:+.1f} points better than the mean split of their budgets "
            f"({100 * of_gain.low:+.1f} to {100 * of_gain.high:+.1f}, 95%), so no split is known to be the best."
        )
    parameters = bootstrap(exponents, problems, resamples=resamples, seed=seed)
    drawn = np.array(draws)
    known = drawn[~np.isnan(drawn[:, 4]), 4:]
    if np.isnan(missed[0]) or len(known) < (1 - _LOST) * len(drawn):
        missed, known = [math.nan, math.nan], np.full((1, 2), np.nan)
    drawn[:, 4:] = np.where(np.isnan(drawn[:, 4:]), np.median(known, 0), drawn[:, 4:])
    low, high = np.quantile(known, [_TAIL, 1 - _TAIL], axis=0)
    return Split(
        a=float(a),
        b=float(b),
        s=math.exp(s),
        v=math.exp(v),
        parameters=parameters,
        budgets=budgets[inside],
        left_out=budgets[~inside],
        gain=gain,
        gain_interval=of_gain,
        drift=np.array(missed),
        drift_interval=Interval(low=low, high=high, missing=1 - len(known) / len(drawn)),
        draws=drawn,
    )


def _picked(values: NDArray[Any], picks: NDArray[np.intp]) -> NDArray[Any]:
    """Of values (C, V) those of the picks (halves, C)."""
    return np.take_along_axis(values[None], picks[..., None], -1)[..., 0]


def _part(interval: Interval, index: int) -> Interval:
    return Interval(low=interval.low[index], high=interval.high[index], missing=interval.missing)
