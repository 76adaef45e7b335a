"""`outthink law coverage`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from outthink.errors import Unidentified, UsageError
from outthink.laws.coverage import CoverageLaw, coverage_law, pass_at_k, union_coverage
from outthink.laws.verification import sound_coverage
from outthink.maths.allocation import allocate
from outthink.records.pools import PoolData
from outthink.reports.analysis import (
    Analysis,
    Cell,
    bars,
    by_quantity,
    curve,
    estimated,
    estimates,
    grid,
    mean_of,
    misfit,
    misled,
    powers_of_two,
    predicted,
    short_names,
    too_far,
)
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.laws.data import Counts, independent, naming, need_verdicts, remarks, right_counts, same_problems
from outthink.rng import generator

_SOUND = "soundness"  # the scorer whose name it is


def coverage(files: Sequence[Path], *, at: Sequence[float] = (), seed: int = 0) -> Analysis:
    """P(some sample of k is right) grows as exp(a k^b).

    Pools of independent samples, at least three of each problem; they may be those of several models.
    """
    columns: dict[str, dict[str, str | Cell | None]] = {}
    sentences: list[str] = []
    series: list[Series] = []
    pools: list[PoolData] = []
    for name, path in short_names(files):
        pool = independent(path, models=True)
        n, c = right_counts(pool)
        with naming(name):
            law = coverage_law(n, c, seed=seed)
        ks = powers_of_two(pool.samples)
        measured = [mean_of(pass_at_k(n, c, k)) for k in ks]
        a, b = estimates((law.law.a, law.law.b), law.parameters)
        columns[name] = {
            "problems": Cell(len(n)),
            "samples": Cell(pool.samples),
            "pass@1": measured[0],
            "pass@all": measured[-1],
            "a": a,
            "b": b,
            "samples for half of the rest, if it is right": _halved(law, measured[-1].value),
            **{predicted(k, pool.samples): estimated(law.at(k), law.at_interval(k), "share") for k in at},
        }
        sentences += remarks(pool, name)
        if law.misses:
            sentences.append(misled(name, pool.samples, law.drift))
        with contextlib.suppress(Unidentified):  # there may be too few samples to leave half of them out
            half = coverage_law(n, c, most=pool.samples // 2, seed=seed)
            told = estimated(half.at(pool.samples), half.at_interval(pool.samples), "share")
            sentences.append(
                f"{name}: the law of k up to {pool.samples // 2} alone says {told} at {pool.samples}; measured is "
                f"{measured[-1]}."
            )
        sentences += misfit(name, ks, measured, law.at(ks))
        sentences += [too_far(name, k, pool.samples) for k in at if law.law.far(k)]
        sentences += [*_shared_out(name, pool, n, seed), *_sound(name, pool, seed)]
        pools.append(pool)
        dense = grid(1, max(pool.samples, *at, 1))
        series += [curve(name, dense, estimates(law.at(dense), law.at_interval(dense))), bars(name, ks, measured)]
    return Analysis(
        title="Coverage: P(some sample of k is right) = exp(a k^b)",
        **by_quantity(columns),
        sentences=(*sentences, *_together(files, pools)),
        figure=Figure(
            title="Coverage",
            x=Axis(title="samples per problem (k)", log=True),
            y=Axis(title="P(some sample is right), mean over problems", percent=True),
            series=tuple(series),
        ),
    )


def _halved(law: CoverageLaw, solved: float) -> Cell | None:
    """How many samples solve half of what all that were recorded did not; None where nothing is left."""
    if solved >= 1:
        return None
    wanted = (1 + solved) / 2
    return estimated(law.samples(wanted), law.samples_interval(wanted))


def _shared_out(name: str, pool: PoolData, n: Counts, seed: int) -> list[str]:
    """What it is worth to know which problems are hard: a quarter of the samples, shared out by what one half shows.

    The other half says what that solves, so that what was chosen by luck does not count.
    """
    half = pool.samples // 2
    each = half // 2
    if each < 2:
        return []
    mixed = [generator(seed, *problem.id.encode()).permutation(problem.correct) for problem in pool.problems]
    seen = np.array([int(right[:half].sum()) for right in mixed])
    rest = np.array([int(right[half:].sum()) for right in mixed])
    rates = (seen + 0.5) / (half + 1)  # what was never right may be
    gains = rates[:, None] * (1 - rates[:, None]) ** np.arange(half)
    taken = allocate(list(gains), each * len(n))
    left = n - half
    solved = np.zeros(len(n))
    for k in np.unique(taken[taken > 0]).tolist():
        of_k = taken == k
        solved[of_k] = pass_at_k(left[of_k], rest[of_k], k)
    difference = mean_of(solved - pass_at_k(left, rest, each), "points", least=-1.0)
    return [
        f"{name}: {each} samples a problem on average, shared out by the rates that {half} others show, solve "
        f"{difference} points more than shared out evenly."
    ]


def _sound(name: str, pool: PoolData, seed: int) -> list[str]:
    """Coverage by answers whose reasons are sound, where the pool has scores of soundness."""
    if _SOUND not in pool.scorers:
        return []
    need_verdicts(pool, _SOUND)
    scores = [problem.scores[_SOUND] for problem in pool.problems]
    sound = [np.nan_to_num(matrix).mean(-1) >= 0.5 for matrix in scores]
    judged = sound_coverage([problem.correct for problem in pool.problems], sound, [1, pool.samples], seed=seed)
    told = estimates(judged.sound, judged.sound_interval, "share")
    wrong = estimated(judged.false_positives, judged.false_positives_interval, "share")
    return [
        f"{name}: by right answers with sound reasons, as {_SOUND} judges them, pass@1 is {told[0]} and pass@all "
        f"{told[1]}; {wrong} of the right answers are not sound."
    ]


def _together(files: Sequence[Path], pools: Sequence[PoolData]) -> list[str]:
    """Coverage of as many samples in all, some from each pool, where pools have problems in common."""
    if len(pools) < 2:
        return []
    try:
        shared = same_problems(pools)
    except UsageError:
        return []
    total = min(pool.samples for pool in shared)
    draws = np.full(len(shared), total // len(shared))
    if not draws[0]:
        return []
    counts = [right_counts(pool) for pool in shared]
    n, c = (np.stack([pair[place] for pair in counts], axis=-1) for place in (0, 1))
    mixed = mean_of(union_coverage(n, c, draws))
    k = int(draws.sum())
    alone = [
        f"{name} {mean_of(pass_at_k(*pair, k))}" for (name, _), pair in zip(short_names(files), counts, strict=True)
    ]
    return [
        f"{draws[0]} samples from each of the {len(shared)} solve {mixed} of the {len(n)} problems that all have; {k} "
        f"from one of them: {', '.join(alone)}."
    ]
