"""Regret, progress and anytime accuracy: what each part of a long trace is worth, from its accuracy if it ended there.

Source: Optimizing Test-Time Compute via Meta Reinforcement Fine-Tuning (MRT, 2025) and Optimizing Anytime Reasoning via
Budget Relative Policy Optimization (AnytimeReasoner, 2025), read in the authors' released code; of the papers the
abstracts. Differs: tokens of forced answers are divided by the number of answers that were drawn (a notebook divides by
another number), points are sorted by tokens, and a held curve is offered beside the interpolated one. The online rule
is our own; the papers use regret for training.

A curve is a row of tokens, counted from the start of the trace and with the forced answer's included, and the accuracy
of answering there. It begins at (0, 0): what it costs to get the first answer at all is charged. After its last point
it stays. "line" interpolates between points, as MRT does; "step" keeps an accuracy until the next point, which is what
answers are worth that were really given at these moments, such as the rounds of a trace (`bench.report.curve`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.maths.intervals import Interval, means

Floats = NDArray[np.float64]
Shape = Literal["line", "step"]
Prior = Literal["uniform", "linear", "base"]
Curve = tuple[ArrayLike, ArrayLike]


def prefix_curve(prefix: ArrayLike, forced: ArrayLike, right: ArrayLike) -> tuple[Floats, Floats]:
    """Tokens and accuracy (m,) of forcing an answer after each of m prefixes of a trace.

    Args:
        prefix: (m,) tokens of each prefix.
        forced, right: (m, K) tokens and correctness of K forced answers after each.
    """
    spent = np.asarray(prefix, dtype=float) + np.asarray(forced, dtype=float).mean(-1)
    return np.asarray(spent), np.asarray(right, dtype=float).mean(-1)


def accuracy_at(tokens: ArrayLike, accuracy: ArrayLike, budgets: ArrayLike, *, shape: Shape = "line") -> Floats:
    """Accuracy of one curve (m,) at each budget (...) in tokens; points in any order."""
    x, y, ends, budgets = _drawn(tokens, accuracy, budgets, shape)
    at = np.searchsorted(x, budgets, side="right") - 1
    part = (budgets - x[at]) / np.append(np.diff(x), np.inf)[at]
    return np.asarray(y[at] + (ends[at] - y[at]) * part)


def normalised_regret(tokens: ArrayLike, accuracy: ArrayLike, budgets: ArrayLike, *, shape: Shape = "line") -> Floats:
    """1 - mean accuracy over all moments up to each budget (...), in [0, 1], of one curve (m,).

    0 is right from the first token on, 1 is never right. A question that nobody can solve adds 1 to everybody's.

    Args:
        tokens, accuracy: points in any order; none is never right.
        budgets: C0, above 0, in tokens.
    """
    x, y, ends, budgets = _drawn(tokens, accuracy, budgets, shape)
    if not (budgets > 0).all():
        raise ValueError("budgets must be above 0")
    widths = np.append(np.diff(x), np.inf)
    before = np.concatenate([[0.0], np.cumsum(widths[:-1] * (y + ends)[:-1] / 2)])
    at = np.searchsorted(x, budgets, side="right") - 1
    rest = budgets - x[at]
    height = y[at] + (ends[at] - y[at]) * rest / widths[at] / 2
    return np.asarray(1 - (before[at] + height * rest) / budgets)


def progress(accuracy: ArrayLike) -> Floats:
    """r_j = J_j - J_{j-1}, (..., m) from J_0 ... J_m; sums to what the whole trace gained."""
    return np.diff(np.asarray(accuracy, dtype=float), axis=-1)


def budget_weights(budgets: ArrayLike, prior: Prior = "uniform") -> Floats:
    """P_j (m,) of m budgets: equal; in proportion to the budget; or all on the largest."""
    b = np.asarray(budgets, dtype=float)
    if b.ndim != 1 or b.size == 0 or not (b > 0).all():
        raise ValueError("budgets must be a row of numbers above 0")
    raw = {"uniform": np.ones_like(b), "linear": b, "base": (np.arange(b.size) == b.argmax()).astype(float)}[prior]
    return np.asarray(raw / raw.sum())


def anytime(accuracy: ArrayLike, budgets: ArrayLike, prior: Prior = "uniform") -> Floats:
    """Sum of P_j J(b_j), (...), from the accuracy (..., m) at each of m budgets; with one budget, accuracy."""
    return np.asarray(np.asarray(accuracy, dtype=float) @ budget_weights(budgets, prior))


def agreement(keys: ArrayLike) -> Floats:
    """Share (...) of K forced answers (..., K) that give the most frequent one; -1 is INVALID and agrees with nobody.

    What stands in for accuracy while a trace runs: no gold answer is needed.
    """
    answers = np.asarray(keys)
    same = (answers[..., :, None] == answers[..., None, :]) & (answers[..., :, None] >= 0)
    return np.asarray(same.sum(-1).max(-1) / answers.shape[-1])


def stops(agreements: ArrayLike, *, eps: float = 0.05, tau: float = 0.75) -> NDArray[np.bool_]:
    """After which checkpoints (..., m) to stop: agreement is high and has not grown for two checkpoints.

    Each entry depends on the agreements up to it only. The defaults are a choice, not a finding: set them on other
    questions than those they are judged on.

    Args:
        agreements: (..., m), in [0, 1], in the order of checkpoints.
        eps: growth of agreement that does not count.
        tau: agreement that is needed.
    """
    a = np.asarray(agreements, dtype=float)
    still = progress(a) <= eps
    stopped = np.zeros(a.shape, dtype=bool)
    stopped[..., 2:] = still[..., 1:] & still[..., :-1] & (a[..., 2:] >= tau)
    return stopped


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Regret:
    """Regret and anytime accuracy of a set of questions; (m,) arrays have an entry for each budget.

    Args:
        budgets: in tokens.
        regret, regret_interval: normalised, mean over traces and then over questions.
        solvable: questions that some trace answers rightly somewhere.
        solvable_regret, solvable_interval: on these alone; what no method can lower is then left out. None with fewer
            than two of them.
        accuracy, accuracy_interval: at each budget.
        score, score_interval: anytime accuracy, a number.
        prior: of `score`.
        ended: share of traces whose last point is before the budget, from where on the curve only repeats it.
    """

    budgets: Floats
    regret: Floats
    regret_interval: Interval
    solvable: int
    solvable_regret: Floats | None
    solvable_interval: Interval | None
    accuracy: Floats
    accuracy_interval: Interval
    score: float
    score_interval: Interval
    prior: Prior
    ended: Floats


def measure_regret(
    questions: Sequence[Sequence[Curve]],
    budgets: ArrayLike,
    *,
    shape: Shape = "line",
    prior: Prior = "uniform",
    level: float = 0.95,
    seed: int = 0,
) -> Regret:
    """Regret and anytime accuracy from the curves of traces.

    Args:
        questions: for each question one or more traces, each a pair of tokens (m,) and accuracy (m,); a trace without
            points never answered.
        budgets: (m,) in tokens, above 0; the same for all methods that are compared.

    Raises Unidentified with fewer than two questions.
    """
    weights = budget_weights(budgets, prior)
    b = np.asarray(budgets, dtype=float)
    if not questions or not all(questions):
        raise ValueError("each question needs one trace at least")
    if len(questions) < 2:
        raise Unidentified("An interval needs at least two problems.")
    regrets = np.array(
        [np.mean([normalised_regret(*one, b, shape=shape) for one in traces], axis=0) for traces in questions]
    )
    levels = np.array([np.mean([accuracy_at(*one, b, shape=shape) for one in traces], axis=0) for traces in questions])
    ends = np.array(
        [np.mean([np.max(tokens, initial=0.0) < b for tokens, _ in traces], axis=0) for traces in questions]
    )
    solvable = np.array([any(np.max(accuracy, initial=0.0) > 0 for _, accuracy in traces) for traces in questions])

    def interval(rows: Floats) -> Interval:
        return means(rows, level=level, seed=seed)[1]

    enough = solvable.sum() > 1
    return Regret(
        budgets=b,
        regret=regrets.mean(0),
        regret_interval=interval(regrets),
        solvable=int(solvable.sum()),
        solvable_regret=regrets[solvable].mean(0) if enough else None,
        solvable_interval=interval(regrets[solvable]) if enough else None,
        accuracy=levels.mean(0),
        accuracy_interval=interval(levels),
        score=float(levels.mean(0) @ weights),
        score_interval=interval(levels @ weights),
        prior=prior,
        ended=ends.mean(0),
    )


def _drawn(
    tokens: ArrayLike, accuracy: ArrayLike, budgets: ArrayLike, shape: Shape
) -> tuple[Floats, Floats, Floats, Floats]:
    """The points from (0, 0) on, sorted by tokens, what is reached just before the next of each, and budgets."""
    x, y = np.asarray(tokens, dtype=float), np.asarray(accuracy, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or not ((x >= 0).all() and (y >= 0).all() and (y <= 1).all()):
        raise ValueError("a curve is two rows of the same length: tokens of at least 0, and accuracies from 0 to 1")
    b = np.asarray(budgets, dtype=float)
    if not (b >= 0).all():
        raise ValueError("budgets must be at least 0")
    order = np.argsort(x, kind="stable")
    x, y = np.concatenate([[0.0], x[order]]), np.concatenate([[0.0], y[order]])
    return x, y, np.append(y[1:], y[-1]) if shape == "line" else y, b
