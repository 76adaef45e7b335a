"""Imperfect verification: what resampling until a check passes reaches, and how many attempts are worth it.

Source: Stroebl et al., Inference Scaling fLaws: The Limits of LLM Resampling with Imperfect Verifiers (2024); its
notebooks, a summary and the abstract read, not the paper itself. Differs: the gain of attempt k weighs the types by
their priors times the chance of getting that far (a notebook weighs by the posterior and survival, which counts the
rejections twice); the curve of stored samples is exact instead of a mean over permutations.

A type of problem has success rate r (a sample is right), the check has completeness c = P(pass | right) and soundness
s = P(reject | wrong). A right answer that is returned earns 1, a wrong one costs C, none at all earns 0, and every
sample drawn costs kappa. Samples must be independent: with feedback between attempts none of this holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.maths.intervals import Interval, bootstrap, means
from outthink.rng import generator

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_DIGITS = 12  # utilities that differ by less are ties
_HALVINGS = 400  # of the problems; each half chooses K for the other one, and so many that it hardly depends on chance
_TESTS = 100  # resamples in which half of the samples are fitted
_RESAMPLED = 20  # of these for each resample


class ResamplingOutcomes(NamedTuple):
    """What becomes of a problem; the three sum to 1.

    Args:
        right: a right answer is returned.
        wrong: a false positive is returned; over all problems this is the gap between what passes and what is right.
        none: nothing passed, so nothing is returned.
    """

    right: Floats
    wrong: Floats
    none: Floats


class VerifierFit(NamedTuple):
    """Types of problems with their shares, and the check's completeness and soundness."""

    rates: tuple[float, ...]
    shares: tuple[float, ...]
    completeness: float
    soundness: float


def acceptance(rates: ArrayLike, completeness: ArrayLike, soundness: ArrayLike) -> tuple[Floats, Floats]:
    """P(a sample is right and passes), P(it is wrong and passes): c r and (1 - s)(1 - r)."""
    rates = _probabilities(rates, "rates")
    completeness = _probabilities(completeness, "completeness")
    soundness = _probabilities(soundness, "soundness")
    right, wrong = np.broadcast_arrays(completeness * rates, (1 - soundness) * (1 - rates))
    return right, wrong


def accepted_accuracy(rates: ArrayLike, completeness: ArrayLike, soundness: ArrayLike) -> Floats:
    """q = P(right | passes) of each type; 0 where nothing ever passes."""
    right, wrong = acceptance(rates, completeness, soundness)
    return _share(right, right + wrong)


def ceiling(
    rates: ArrayLike, completeness: ArrayLike = 1.0, soundness: ArrayLike = 1.0, shares: ArrayLike | None = None
) -> Floats:
    """Accuracy (...) of resampling without a limit: the mean of q over the types (..., T), weighted by `shares`.

    A model whose single samples are better than this cannot be matched by any number of attempts. The accuracy of all
    accepted samples pooled is something else, and larger, because easy problems are accepted more often.
    """
    q = accepted_accuracy(rates, completeness, soundness)
    return np.asarray((_shares(shares, q) * q).sum(-1))


def drawn(accept: ArrayLike, k: ArrayLike) -> Floats:
    """Expected samples (1 - (1 - a)^K) / a of resampling at most K times, where each passes with probability a."""
    accept, k = np.broadcast_arrays(np.minimum(accept, 1.0), np.asarray(k, float))
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = -np.expm1(k * np.log1p(-accept)) / accept
    return np.where(accept > 0, np.where(k > 0, expected, 0.0), k)


def outcomes(rates: ArrayLike, completeness: ArrayLike, soundness: ArrayLike, k: ArrayLike) -> ResamplingOutcomes:
    """What becomes of a problem of each type within K attempts; everything broadcasts."""
    right, wrong = acceptance(rates, completeness, soundness)
    samples = drawn(right + wrong, k)
    return ResamplingOutcomes(right * samples, wrong * samples, 1 - (right + wrong) * samples)


def utility(
    k: ArrayLike,
    rates: ArrayLike,
    completeness: ArrayLike = 1.0,
    soundness: ArrayLike = 1.0,
    *,
    shares: ArrayLike | None = None,
    cost: float = 1.0,
    kappa: float = 0.0,
) -> Floats:
    """U(K), shape (..., *k.shape): the mean over the types (..., T) of (c r - C (1 - s)(1 - r) - kappa) samples drawn.

    Args:
        k: most attempts K, at least 0; a number or an array.
        shares: of the types, (..., T); None: equal.
        cost: of a false positive (C), where a right answer earns 1.
        kappa: of a sample.
    """
    right, wrong = acceptance(rates, completeness, soundness)
    gain, k = right - cost * wrong - kappa, np.asarray(k)
    axes = tuple(range(-k.ndim, 0))
    each = np.expand_dims(gain, axes) * drawn(np.expand_dims(right + wrong, axes), k)
    return np.asarray((np.expand_dims(_shares(shares, gain), axes) * each).sum(-1 - k.ndim))


def best_attempts(
    most: int,
    rates: ArrayLike,
    completeness: ArrayLike = 1.0,
    soundness: ArrayLike = 1.0,
    *,
    shares: ArrayLike | None = None,
    cost: float = 1.0,
    kappa: float = 0.0,
) -> NDArray[np.intp]:
    """The K from 0 to `most` with the largest U(K), the smaller one of equals; 0: better not to answer at all."""
    options = np.arange(most + 1)
    values = utility(options, rates, completeness, soundness, shares=shares, cost=cost, kappa=kappa)
    return np.asarray(np.round(values, _DIGITS).argmax(-1))


def accepted_now(
    rejected: int,
    rates: ArrayLike,
    completeness: ArrayLike = 1.0,
    soundness: ArrayLike = 1.0,
    *,
    shares: ArrayLike | None = None,
) -> Floats:
    """P(right) (...) of a sample that passes after `rejected` attempts that did not; 0 where nothing ever passes."""
    right, wrong = acceptance(rates, completeness, soundness)
    believed = _belief(rejected, right + wrong, shares)
    return _share((believed * right).sum(-1), (believed * (right + wrong)).sum(-1))


def resampled(right: ArrayLike, wrong: ArrayLike, samples: ArrayLike, k: int) -> ResamplingOutcomes:
    """The same for each problem from stored samples: the exact mean over all orders in which they may be drawn.

    Args:
        right, wrong: how many of a problem's samples pass and are right, pass and are wrong.
        samples: how many there are in all (n); samples without a readable answer do not pass.
        k: most attempts, from 0 to the smallest n.
    """
    right, wrong, n = np.broadcast_arrays(np.asarray(right), np.asarray(wrong), np.asarray(samples))
    if np.any(right < 0) or np.any(wrong < 0) or np.any(right + wrong > n):
        raise ValueError("each problem has from 0 to n samples that pass")
    if not 0 <= k <= n.min(initial=np.iinfo(np.int64).max):
        raise ValueError(f"k must be from 0 to the number of samples, not {k}")
    none = _none(right + wrong, n, k)[..., -1]
    return ResamplingOutcomes(
        _share(right, right + wrong) * (1 - none), _share(wrong, right + wrong) * (1 - none), none
    )


def accepted_share(right: ArrayLike, passed: ArrayLike) -> Floats:
    """q (...) of each problem from its samples (..., n): the share of right ones among those that pass; 0 if none does.

    Its mean over problems estimates what resampling without a limit reaches (see `ceiling`).
    """
    truth, verdict = np.broadcast_arrays(np.asarray(right, bool), np.asarray(passed, bool))
    return _share((truth & verdict).sum(-1), verdict.sum(-1))


def calibrate(right: Iterable[ArrayLike], passed: Iterable[ArrayLike]) -> VerifierFit:
    """Types, completeness and soundness from the problems of a calibration set, not of the test set.

    The types are the success rates that occur, as often as they occur. Completeness and soundness are pooled, each
    problem with the same weight, so that U(1) of the result is exactly what one attempt earned. Where no sample is
    right, completeness is 1, because there is nothing to see; where none is wrong, so is soundness. A few badly checked
    problems can cause most false positives, which a pooled soundness hides; `resampling` uses none.

    Args:
        right: of each problem (n,) whether a sample is right, by the stronger ground truth.
        passed: of each problem (n,) whether it passes the check.
    """
    rows = _table(right, passed)
    rates, counts = np.unique([truth.mean() for truth, _ in rows], return_counts=True)
    pass_right = sum(float((truth & verdict).mean()) for truth, verdict in rows)
    reject_wrong = sum(float((~truth & ~verdict).mean()) for truth, verdict in rows)
    all_right = float((rates * counts).sum())
    all_wrong = len(rows) - all_right
    return VerifierFit(
        rates=tuple(rates.tolist()),
        shares=tuple((counts / counts.sum()).tolist()),
        completeness=min(pass_right / all_right, 1.0) if all_right > 0 else 1.0,
        soundness=min(reject_wrong / all_wrong, 1.0) if rates[0] < 1 else 1.0,
    )


def curve_of_types(right: Sequence[ArrayLike], passed: Sequence[ArrayLike], k: ArrayLike) -> Floats:
    """Right and wrong (2, k) within so many attempts (k,), by types, one completeness and one soundness for all."""
    fit = calibrate(right, passed)
    outcome = outcomes(np.array(fit.rates)[:, None], fit.completeness, fit.soundness, np.asarray(k, float))
    return np.stack([np.array(fit.shares) @ outcome.right, np.array(fit.shares) @ outcome.wrong])


def drift_of_types(right: Sequence[ArrayLike], passed: Sequence[ArrayLike], *, seed: int = 0) -> Interval:
    """Interval (2,) of what `curve_of_types` of half of the samples misses at all of them: told less what they say.

    The half of each problem is a random one. Arguments as in `calibrate`; each problem needs two samples.
    """
    rng = generator(seed)
    rows = _table(right, passed)
    most = min(len(truth) for truth, _ in rows)
    kept = [rng.permutation(len(truth))[: len(truth) // 2] for truth, _ in rows]
    halves = [(truth[some], verdict[some]) for (truth, verdict), some in zip(rows, kept, strict=True)]
    n = np.array([len(truth) for truth, _ in rows])
    counts = np.array([[(truth & verdict).sum(), (~truth & verdict).sum()] for truth, verdict in rows])
    seen = resampled(counts[:, 0], counts[:, 1], n, most)

    def missed(problems: NDArray[np.intp]) -> Floats:
        some = [halves[one] for one in problems]
        told = curve_of_types([truth for truth, _ in some], [verdict for _, verdict in some], [most])
        return np.asarray(told[:, 0] - [seen.right[problems].mean(), seen.wrong[problems].mean()])

    return bootstrap(missed, len(rows), resamples=_TESTS, seed=seed)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Resampling:
    """What resampling with a check reaches on problems like these, from their stored samples.

    Args:
        ceiling: accuracy without a limit on attempts; a model whose single samples are better cannot be matched.
        gap: what passes without a limit, minus what is right.
        single: accuracy of single samples, without the check.
        concentration: share of all false positives among samples that the tenth of problems with the most of them
            causes; NaN where there are none.
        utility: U(K) for K = 0, 1 ... `most`, (most + 1,), and its interval.
        best: K with the largest utility, the smaller of equals; 0: better not to answer at all.
        best_interval: of K, which is a whole number. Where all resamples agree, it is told what one more problem would
            do, with a wrong sample that passes, or with a right one that seldom does.
        held_out: utility of the K that one half of the problems chooses, on the other half.
        cost, kappa: of a false positive and of a sample, where a right answer earns 1.
    """

    ceiling: float
    ceiling_interval: Interval
    gap: float
    gap_interval: Interval
    single: float
    concentration: float
    utility: Floats
    utility_interval: Interval
    best: int
    best_interval: Interval
    held_out: float
    held_out_interval: Interval
    cost: float
    kappa: float

    @property
    def most(self) -> int:
        """The largest number of attempts that is known."""
        return len(self.utility) - 1

    def at(self, k: ArrayLike) -> Floats:
        """U(K) at whole numbers of attempts from 0 to `most`."""
        return np.asarray(self.utility[self._known(k)])

    def at_interval(self, k: ArrayLike) -> Interval:
        """Interval of it."""
        known, interval = self._known(k), self.utility_interval
        return Interval(low=interval.low[known], high=interval.high[known], missing=interval.missing)

    def _known(self, k: ArrayLike) -> NDArray[np.intp]:
        wanted = np.asarray(k)
        if not np.issubdtype(wanted.dtype, np.integer) or np.any((wanted < 0) | (wanted > self.most)):
            raise ValueError(f"attempts are whole numbers from 0 to {self.most}, the samples of every problem")
        return wanted


def resampling(
    right: Iterable[ArrayLike],
    passed: Iterable[ArrayLike],
    *,
    cost: float = 1.0,
    kappa: float = 0.0,
    most: int | None = None,
    seed: int = 0,
) -> Resampling:
    """The curve of stored samples, exactly over all their orders; nothing is assumed about types or the check.

    Args:
        right, passed: as in `calibrate`; q of a problem is the share of right ones among its samples that pass, and 0
            where none does.
        cost: of a false positive (C), at least 0.
        kappa: of a sample, at least 0.
        most: attempts, at most the smallest number of samples (the default).

    Raises Unidentified where no sample passes, or with fewer than four problems, of which each half needs two.
    """
    if not (0 <= cost < math.inf and 0 <= kappa < math.inf):
        raise ValueError("cost and kappa must be numbers of at least 0")
    rows = _table(right, passed)
    problems, least = len(rows), min(len(truth) for truth, _ in rows)
    if most is not None and not 1 <= most <= least:
        raise ValueError(f"most must be from 1 to the smallest number of samples, {least}, not {most}")
    if problems < 4:
        raise Unidentified("To choose K on one half of the problems and measure it on the other takes four problems.")
    n = np.array([len(truth) for truth, _ in rows])
    pass_right = np.array([int((truth & verdict).sum()) for truth, verdict in rows])
    pass_wrong = np.array([int((~truth & verdict).sum()) for truth, verdict in rows])
    if not (pass_right + pass_wrong).any():
        raise Unidentified("No sample passes the check, so there is nothing to say about what passes.")
    q = _share(pass_right, pass_right + pass_wrong)
    wrongly = _share(pass_wrong, pass_right + pass_wrong)
    none = _none(pass_right + pass_wrong, n, least if most is None else most)  # (problems, K + 1)
    attempts = np.concatenate([np.zeros((problems, 1)), none[:, :-1].cumsum(1)], axis=1)
    curves = (q - cost * wrongly)[:, None] * (1 - none) - kappa * attempts
    half = np.tile(np.arange(problems) < problems // 2, (_HALVINGS, 1))
    half = generator(seed, problems).permuted(half, axis=1)

    # two problems that were not seen: one of its samples passes, and is wrong; or is right
    never = _none(np.array(1), np.array(least), curves.shape[1] - 1)
    spent = kappa * np.concatenate([[0.0], never[:-1].cumsum()])
    extended = np.concatenate([curves, [-cost * (1 - never) - spent, (1 - never) - spent]])

    def best(positions: NDArray[np.intp]) -> int:
        return int(np.round(extended[positions].mean(0), _DIGITS).argmax())

    def held_out(positions: NDArray[np.intp], halvings: int = _RESAMPLED) -> float | None:
        often = np.bincount(positions, minlength=problems)
        one = half[:halvings]
        here, there = np.concatenate([one, ~one]) * often, np.concatenate([~one, one]) * often
        usable = here.any(1) & there.any(1)
        if not usable.any():
            return None
        here, there = here[usable], there[usable]
        picks = np.round(here @ curves / here.sum(1, keepdims=True), _DIGITS).argmax(-1)
        earned = there @ curves / there.sum(1, keepdims=True)
        return float(np.take_along_axis(earned, picks[:, None], -1).mean())

    everything = np.arange(problems)
    attempted = best(everything)
    estimate = held_out(everything, _HALVINGS)
    assert estimate is not None  # both halves have problems
    largest = curves.shape[1] - 1
    lowest = -cost - kappa * np.arange(largest + 1)  # a wrong answer after so many attempts
    lowest[0] = 0.0
    worst = np.sort(pass_wrong / n)[::-1]
    return Resampling(
        ceiling=float(q.mean()),
        ceiling_interval=means(q, seed=seed)[1],
        gap=float(wrongly.mean()),
        gap_interval=means(wrongly, seed=seed)[1],
        single=float(np.mean([truth.mean() for truth, _ in rows])),
        concentration=float(worst[: math.ceil(problems / 10)].sum() / worst.sum()) if worst.any() else math.nan,
        utility=curves.mean(0),
        utility_interval=means(curves, least=lowest, most=np.arange(largest + 1) > 0, seed=seed)[1],
        best=attempted,
        best_interval=_of_choice(best, attempted, problems, seed),
        held_out=estimate,
        held_out_interval=bootstrap(held_out, problems, seed=seed, bounds=(lowest.min(), 1.0)),
        cost=cost,
        kappa=kappa,
    )


def _of_choice(best: Callable[[NDArray[np.intp]], int], choice: int, problems: int, seed: int) -> Interval:
    """The interval of a choice; on a side where all resamples agree, with the problem that was not seen among them.

    Positions `problems` and `problems + 1` are those that speak for fewer and for more.
    """
    among = bootstrap(best, problems, seed=seed)

    def further(unlike: int) -> Interval:
        def with_it(positions: NDArray[np.intp]) -> int:
            return best(np.asarray(np.where(positions == problems, unlike, positions), dtype=np.intp))

        return bootstrap(with_it, problems + 1, seed=seed)

    low, high = among.low, among.high
    if low == choice:
        low = np.minimum(further(problems).low, choice)
    if high == choice:
        high = np.maximum(further(problems + 1).high, choice)
    return Interval(low=np.asarray(low), high=np.asarray(high), missing=among.missing)


def _belief(rejected: int, accept: Floats, shares: ArrayLike | None) -> Floats:
    """Posterior (..., T) of the types after so many rejections; the prior where no type can explain them."""
    prior = _shares(shares, accept)
    with np.errstate(divide="ignore"):
        logs = np.log(prior) + (rejected * np.log1p(-np.minimum(accept, 1.0)) if rejected else 0.0)
    highest = logs.max(-1, keepdims=True)
    weights = np.exp(logs - np.where(np.isneginf(highest), 0.0, highest))
    total = weights.sum(-1, keepdims=True)
    return np.asarray(np.divide(weights, total, out=prior.copy(), where=total > 0))


def _shares(shares: ArrayLike | None, like: Floats) -> Floats:
    if like.ndim == 0 or like.shape[-1] == 0:
        raise ValueError("there must be at least one type of problem")
    if shares is None:
        return np.full(like.shape, 1 / like.shape[-1])
    given = np.broadcast_to(np.asarray(shares, float), like.shape)
    if not (np.isfinite(given).all() and (given >= 0).all() and (given.sum(-1) > 0).all()):
        raise ValueError("shares must be numbers of at least 0, and not all 0")
    return np.asarray(given / given.sum(-1, keepdims=True))


def _probabilities(values: ArrayLike, name: str) -> Floats:
    probabilities = np.asarray(values, float)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(f"{name} must be from 0 to 1")
    return probabilities


def _share(part: ArrayLike, whole: ArrayLike) -> Floats:
    """part / whole, and 0 where there is nothing."""
    top, bottom = np.asarray(part, float), np.asarray(whole, float)
    return np.asarray(np.divide(top, bottom, out=np.zeros(bottom.shape), where=bottom > 0))


def _none(passes: NDArray[np.intp], samples: NDArray[np.intp], most: int) -> Floats:
    """P(none of the first K samples of a random order passes) (..., most + 1), for K = 0 to `most`."""
    taken = np.arange(most)
    # C(n - passes, K) / C(n, K) as a product over the attempts; a factor of 0 is an attempt that must pass
    failing = np.maximum(samples[..., None] - passes[..., None] - taken, 0) / (samples[..., None] - taken)
    return np.concatenate([np.ones((*failing.shape[:-1], 1)), failing.cumprod(-1)], axis=-1)


def _table(right: Iterable[ArrayLike], passed: Iterable[ArrayLike]) -> list[tuple[Bools, Bools]]:
    rows = [(np.asarray(truth, bool), np.asarray(verdict, bool)) for truth, verdict in zip(right, passed, strict=True)]
    if not rows or any(truth.ndim != 1 or not truth.size or truth.shape != verdict.shape for truth, verdict in rows):
        raise ValueError("each problem needs samples that are right or not, and pass or not; and there must be some")
    return rows
