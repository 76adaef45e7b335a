"""ARISE: how well a model turns more tokens into right answers, question by question, where losses weigh more.

Source: ARISE: An Adaptive Resolution-Aware Metric for Test-Time Scaling Evaluation in Large Reasoning Models (2025),
read in the authors' released code; of the paper the abstract. Differs: the rule for further runs is left
out. The score comes with an interval over questions, and with the score that chance alone would give: random ups and
downs sum to less than 0, since losses weigh more than gains.

A question is answered at levels 0 ... J, in the order of their nominal budgets, in one or more runs each. The score is
a sum over steps from one level to the next, so it depends on which levels there are: compare only with equal levels.
Tokens are all that were generated, hidden ones and those of every sample included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.maths.intervals import Interval, bootstrap
from outthink.rng import generator

Floats = NDArray[np.float64]
Runs = Sequence[Sequence[ArrayLike]] | NDArray[Any]  # question, level, run; the last may be missing or ragged
_TINY = 1e-8  # keeps a variation with mean 0 finite, as in the source


def steps(accuracy: ArrayLike, tokens: ArrayLike) -> Floats:
    """What each step to the next level contributes, (..., J) from (..., J + 1) means per level.

    A gain counts times T_old / T_new, a loss times T_new / T_old; a step counts 0 where a token count is not positive.
    """
    a, t = np.broadcast_arrays(np.asarray(accuracy, dtype=float), np.asarray(tokens, dtype=float))
    change = np.diff(a, axis=-1)
    old, new = t[..., :-1], t[..., 1:]
    counted = (old > 0) & (new > 0) & (change != 0)
    growth = np.divide(new, old, out=np.ones_like(change), where=counted)
    return np.where(counted, change * np.where(change > 0, 1 / growth, growth), 0.0)


def arise(accuracy: ArrayLike, tokens: ArrayLike) -> Floats:
    """The score (...) of each question from its means per level (..., J + 1); 0 with one level.

    At most 1 while tokens grow; it has no lower bound: one loss at ten times the tokens is -10.
    """
    return np.asarray(steps(accuracy, tokens).sum(-1))


def slope(accuracy: ArrayLike, tokens: ArrayLike) -> Floats:
    """The baseline (..., J), accuracy per token from means over questions (..., J + 1); 0 where tokens did not grow."""
    a, t = np.broadcast_arrays(np.asarray(accuracy, dtype=float), np.asarray(tokens, dtype=float))
    spent = np.diff(t, axis=-1)
    return np.asarray(np.divide(np.diff(a, axis=-1), spent, out=np.zeros_like(spent), where=spent > 0))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Arise:
    """The metric on a set of questions.

    Args:
        score, interval: mean over questions.
        std, least, most: of the scores of questions.
        chance: mean score if the level changed the length of runs and nothing else: the runs of each question dealt to
            its levels at random. `score - chance` is what is left when this bias is taken off.
        questions: their number; it is the sum of the next five.
        always_right, always_wrong: accuracy 1, accuracy 0 at every level: score 0, whatever the tokens did.
        improved, degraded: of the others, better or worse at the last level than at the first.
        mixed: of the others, as good at the last level as at the first.
        medians: (J,) median over questions of what each step contributes; the mean can be one question's.
        tokens: (J + 1,) mean tokens of each level, to be shown beside the score.
        slope: (J,) the baseline.
    """

    score: float
    interval: Interval
    std: float
    least: float
    most: float
    chance: float
    questions: int
    always_right: int
    always_wrong: int
    improved: int
    degraded: int
    mixed: int
    medians: Floats
    tokens: Floats
    slope: Floats


def measure_arise(
    right: Runs,
    tokens: Runs,
    *,
    level: float = 0.95,
    resamples: int = 500,
    deals: int = 200,
    seed: int = 0,
) -> Arise:
    """ARISE from runs.

    Args:
        right, tokens: for each question and level, its runs (or one number): share of credit, and tokens.
        deals: how often runs are dealt at random for `chance`.

    Raises Unidentified with one level or with fewer than two questions.
    """
    runs = [[np.atleast_1d(np.asarray(cell, dtype=float)) for cell in question] for question in right]
    spent = [[np.atleast_1d(np.asarray(cell, dtype=float)) for cell in question] for question in tokens]
    if len(runs) != len(spent) or len({len(question) for question in [*runs, *spent]}) != 1:
        raise ValueError("all questions need the same levels, in correctness and in tokens")
    if any(
        a.shape != t.shape or a.size == 0
        for correct, other in zip(runs, spent, strict=True)
        for a, t in zip(correct, other, strict=True)
    ):
        raise ValueError("each question needs a run at least at each level, and the tokens of each run")
    if len(runs[0]) < 2:
        raise Unidentified("ARISE compares levels of compute: two at least are needed.")
    accuracy = np.array([[cell.mean() for cell in question] for question in runs])
    mean_tokens = np.array([[cell.mean() for cell in question] for question in spent])
    contributions = steps(accuracy, mean_tokens)
    scores = contributions.sum(-1)
    interval = bootstrap(
        lambda questions: scores[questions].mean(),
        len(scores),
        level=level,
        resamples=resamples,
        seed=seed,
        # a question may lose at every step, at the largest growth of tokens that was seen
        bounds=(-_growth(mean_tokens), 1.0),
    )
    always_right, always_wrong = (accuracy == 1).all(-1), (accuracy == 0).all(-1)
    change = np.where(always_right | always_wrong, np.nan, accuracy[:, -1] - accuracy[:, 0])
    return Arise(
        score=float(scores.mean()),
        interval=interval,
        std=float(scores.std()),
        least=float(scores.min()),
        most=float(scores.max()),
        chance=_chance(runs, spent, deals, seed),
        questions=len(scores),
        always_right=int(always_right.sum()),
        always_wrong=int(always_wrong.sum()),
        improved=int((change > 0).sum()),
        degraded=int((change < 0).sum()),
        mixed=int((change == 0).sum()),
        medians=np.median(contributions, axis=0),
        tokens=mean_tokens.mean(0),
        slope=slope(accuracy.mean(0), mean_tokens.mean(0)),
    )


def _growth(tokens: Floats) -> float:
    """The largest sum over steps (questions, J) of how much tokens grew, at least one for each step."""
    old, new = tokens[:, :-1], tokens[:, 1:]
    grown = np.divide(new, old, out=np.ones_like(new), where=old > 0)
    return float(np.maximum(grown, 1.0).max(0).sum())


def _chance(runs: Sequence[Sequence[Floats]], spent: Sequence[Sequence[Floats]], deals: int, seed: int) -> float:
    """Mean score over random deals of each question's runs to its levels.

    A run keeps its correctness and its length, relative to the mean length of the level it is from and is dealt to:
    what is long may be right less often at every level.
    """
    rng = generator(seed)
    typical = np.mean([[cell.mean() for cell in question] for question in spent], axis=0)
    typical = np.where(typical > 0, typical, 1.0)
    means = []
    for question, lengths in zip(runs, spent, strict=True):
        level = np.repeat(np.arange(len(question)), [cell.size for cell in question])
        starts = np.flatnonzero(np.diff(level, prepend=-1))
        order = rng.permuted(np.tile(np.arange(level.size), (deals, 1)), axis=1)
        right, relative = np.concatenate(question)[order], (np.concatenate(lengths) / typical[level])[order]
        counts = np.bincount(level)
        accuracy = np.add.reduceat(right, starts, axis=1) / counts
        tokens = np.add.reduceat(relative * typical[level], starts, axis=1) / counts
        means.append(arise(accuracy, tokens).mean())
    return float(np.mean(means))
