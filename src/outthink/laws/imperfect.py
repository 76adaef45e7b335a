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

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_DIGITS = 12  # utilities that differ by less are ties


class Outcomes(NamedTuple):
    """What becomes of a problem; the three sum to 1.

    Args:
        right: a right answer is returned.
        wrong: a false positive is returned; over all problems this is the gap between what passes and what is right.
        none: nothing passed, so nothing is returned.
    """

    right: Floats
    wrong: Floats
    none: Floats


class Calibration(NamedTuple):
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
    accept = right + wrong
    return np.asarray(np.divide(right, accept, out=np.zeros_like(accept), where=accept > 0))


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
        found = -np.expm1(k * np.log1p(-accept)) / accept
    return np.where(accept > 0, np.where(k > 0, found, 0.0), k)


def outcomes(rates: ArrayLike, completeness: ArrayLike, soundness: ArrayLike, k: ArrayLike) -> Outcomes:
    """What becomes of a problem of each type within K attempts; everything broadcasts."""
    right, wrong = acceptance(rates, completeness, soundness)
    samples = drawn(right + wrong, k)
    return Outcomes(right * samples, wrong * samples, 1 - (right + wrong) * samples)


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


def next_gain(
    rejected: int,
    rates: ArrayLike,
    completeness: ArrayLike = 1.0,
    soundness: ArrayLike = 1.0,
    *,
    shares: ArrayLike | None = None,
    cost: float = 1.0,
) -> Floats:
    """Expected gain (...) of one more attempt after `rejected` attempts did not pass; worth it where above kappa.

    The online form of `best_attempts`. The two agree where right answers pass at least as often as wrong ones
    (c >= 1 - s): then every rejection makes a hard problem likelier, and the gain can only fall.
    """
    right, wrong = acceptance(rates, completeness, soundness)
    believed = _belief(rejected, right + wrong, shares)
    return np.asarray((believed * (right - cost * wrong)).sum(-1))


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
    pass_right, passes = (believed * right).sum(-1), (believed * (right + wrong)).sum(-1)
    return np.asarray(np.divide(pass_right, passes, out=np.zeros_like(passes), where=passes > 0))


def resampled(right: ArrayLike, wrong: ArrayLike, samples: ArrayLike, k: int) -> Outcomes:
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
    passes = right + wrong
    taken = np.arange(k)
    # C(n - passes, k) / C(n, k) as a product over the attempts; a factor of 0 is an attempt that must pass
    failing = np.maximum(n[..., None] - passes[..., None] - taken, 0) / (n[..., None] - taken)
    none = failing.prod(-1)
    share = np.divide(right, passes, out=np.zeros(passes.shape), where=passes > 0)
    return Outcomes(share * (1 - none), np.where(passes > 0, 1 - share, 0.0) * (1 - none), none)


def calibrate(right: ArrayLike, passed: ArrayLike) -> Calibration:
    """Types, completeness and soundness from the samples (problems, n) of a calibration set, not of the test set.

    The types are the success rates that occur, as often as they occur. Completeness and soundness are pooled over all
    samples, so that U(1) of the result is exactly what one attempt earned; where no sample is right (wrong), there is
    nothing to see and completeness (soundness) is 1. A few badly checked problems can cause most false positives,
    which a pooled soundness hides.

    Args:
        right: whether a sample is right, by the stronger ground truth.
        passed: whether it passes the check.
    """
    truth, verdict = np.broadcast_arrays(np.asarray(right, bool), np.asarray(passed, bool))
    if truth.ndim != 2 or truth.size == 0:
        raise ValueError("calibrate needs a table of problems and samples that is not empty")
    rates, counts = np.unique(truth.mean(-1), return_counts=True)
    return Calibration(
        rates=tuple(rates.tolist()),
        shares=tuple((counts / counts.sum()).tolist()),
        completeness=float(verdict[truth].mean()) if truth.any() else 1.0,
        soundness=float((~verdict[~truth]).mean()) if not truth.all() else 1.0,
    )


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
    found = np.asarray(values, float)
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f"{name} must be from 0 to 1")
    return found


def accepted_share(right: ArrayLike, passed: ArrayLike) -> Floats:
    """q (...) of each problem from its samples (..., n): the share of right ones among those that pass; 0 if none does.

    Its mean over problems estimates what resampling without a limit reaches (see `ceiling`).
    """
    truth, verdict = np.broadcast_arrays(np.asarray(right, bool), np.asarray(passed, bool))
    accepted = verdict.sum(-1)
    return np.asarray(np.divide((truth & verdict).sum(-1), accepted, out=np.zeros(accepted.shape), where=accepted > 0))
