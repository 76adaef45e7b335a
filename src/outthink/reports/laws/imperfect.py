"""`outthink law imperfect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.errors import Unidentified
from outthink.laws import imperfect as _imperfect
from outthink.maths.intervals import Interval, bootstrap, farther
from outthink.reports.analysis import (
    Analysis,
    Cell,
    bars,
    curve,
    estimated,
    estimates,
    grid,
    mean_of,
    misfit,
    misled,
    powers_of_two,
    too_far,
    worded,
)
from outthink.reports.figures import Axis, Figure
from outthink.reports.laws.data import Counts, Floats, independent, judged, only

_TRIFLE = 0.005  # what half of the samples miss by less proves nothing
_COSTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)  # of a wrong answer, where a right one earns 1


def imperfect(
    files: Sequence[Path], *, at: Sequence[float] = (), verifier: str | None = None, seed: int = 0
) -> Analysis:
    """Sampling until a check passes reaches a ceiling, and where errors cost something few attempts are best.

    A pool of independent samples with verdicts of a check; a sample passes with a score of at least one half.
    """
    pool, scorer = judged(independent(only(files, "imperfect")), verifier)
    n, most = np.array([len(problem.correct) for problem in pool.problems]), pool.samples
    truth = [problem.correct for problem in pool.problems]
    passed = [_passes(problem.scores[scorer]) for problem in pool.problems]
    flat = np.concatenate(truth)
    if flat.all() or not flat.any():
        raise Unidentified(
            f"All samples are {'right' if flat.all() else 'wrong'}, so that nothing is known of what {scorer} does to "
            "the others."
        )
    fits = [_imperfect.resampling(truth, passed, cost=cost, seed=seed) for cost in _COSTS]
    right = np.array([int((a & b).sum()) for a, b in zip(truth, passed, strict=True)])
    wrong = np.array([int((~a & b).sum()) for a, b in zip(truth, passed, strict=True)])
    ks = sorted({*powers_of_two(most), *(int(k) for k in at if k <= most)})
    outcomes = [_imperfect.resampled(right, wrong, n, k) for k in ks]
    parts = {
        "right": [mean_of(outcome.right) for outcome in outcomes],
        "wrong": [mean_of(outcome.wrong) for outcome in outcomes],
        "nothing passed": [mean_of(outcome.none) for outcome in outcomes],
    }

    def law(problems: Counts, k: Any) -> Floats:
        return _imperfect.curve_of_types([truth[one] for one in problems], [passed[one] for one in problems], k)

    def law_interval(k: Any) -> Interval:
        """Beyond what was recorded with what half of the samples miss; without two of them nothing is known there."""
        drawn = bootstrap(lambda problems: law(problems, k), len(n), seed=seed, bounds=(0.0, 1.0))
        missed = Interval(low=drift.low[:, None], high=drift.high[:, None], missing=drift.missing)
        return farther(drawn, missed, np.asarray(k, float) / most)

    everything = np.arange(len(n))
    drift = (
        _imperfect.drift_of_types(truth, passed, seed=seed)
        if most > 1
        else Interval(low=-np.ones(2), high=np.ones(2), missing=1.0)
    )
    dense = grid(1, max(most, *at, 1))
    fitted, interval = law(everything, dense), law_interval(dense)
    known = _imperfect.calibrate(truth, passed)
    ceiling = estimated(fits[0].ceiling, fits[0].ceiling_interval, "share")
    sentences = [
        f"Without a limit on attempts {ceiling} of the answers are right; of single samples without the check "
        f"{worded(fits[0].single, 'share')} are.",
        f"With up to {most} attempts {parts['right'][-1]} of the answers are right and {parts['wrong'][-1]} wrong; the "
        f"tenth of the problems that {scorer} checks worst causes {worded(fits[0].concentration, 'share')} of the "
        "wrong samples that pass.",
        f"{scorer} passes {worded(known.completeness, 'share')} of the right samples and rejects "
        f"{worded(known.soundness, 'share')} of the wrong ones.",
        "What the best number of attempts is worth is measured on problems that did not choose it.",
        *misfit("one completeness and soundness for all", ks, parts["right"], law(everything, ks)[0]),
    ]
    if at:
        told, ends = law(everything, at), law_interval(at)
        for place, k in enumerate(at):
            both = [Cell(told[side, place], "share", ends.low[side, place], ends.high[side, place]) for side in (0, 1)]
            sentences.append(
                f"The law at {k:g} attempts{', if it is right' if k > most else ''}: {both[0]} right, {both[1]} wrong."
            )
        sentences += [too_far(scorer, k, most) for k in at if k > 10 * most]
    if drift.low[0] > _TRIFLE or drift.high[0] < -_TRIFLE:
        sentences.append(misled(scorer, most, float(drift.low[0] + drift.high[0]) / 2))
    series = [bars(name, ks, cells) for name, cells in parts.items()]
    for row, name in enumerate(("right", "wrong")):
        ends = Interval(low=interval.low[row], high=interval.high[row], missing=interval.missing)
        series.append(curve(name, dense, estimates(fitted[row], ends)))
    series.append(curve("right, without a limit", [1, float(dense[-1])], [ceiling, ceiling]))
    return Analysis(
        title=f"Resampling until {scorer} passes, where a right answer is worth 1",
        columns=("a wrong one costs", "best attempts", "worth", "one attempt", f"{most} attempts"),
        rows=tuple(
            (
                f"{cost:g}",
                estimated(fit.best, fit.best_interval),
                estimated(fit.held_out, fit.held_out_interval),
                *(estimated(fit.at(k), fit.at_interval(k)) for k in (1, most)),
            )
            for cost, fit in zip(_COSTS, fits, strict=True)
        ),
        sentences=tuple(sentences),
        figure=Figure(
            title=f"Resampling until {scorer} passes",
            x=Axis(title="most attempts (K)", log=True),
            y=Axis(title="share of problems", percent=True),
            series=tuple(series),
        ),
    )


def _passes(matrix: Floats) -> NDArray[np.bool_]:
    """Whether the mean of the verdicts (n, m) of each sample is at least one half; where there is none it is not."""
    known = ~np.isnan(matrix)
    return np.asarray(np.where(known, matrix, 0.0).sum(-1) >= np.maximum(known.sum(-1), 1) / 2)
