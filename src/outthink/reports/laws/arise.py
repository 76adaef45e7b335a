"""`outthink law arise`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.errors import UsageError
from outthink.laws import arise as _arise
from outthink.records.runs import read_results
from outthink.reports.analysis import Analysis, Cell, bars, estimated, mean_of, short_names
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.laws.data import Counts, independent, only
from outthink.types import AnswerKind


def arise(files: Sequence[Path], *, answer: AnswerKind = "text", seed: int = 0) -> Analysis:
    """How well more tokens become right answers, question by question; losses weigh more than gains.

    Two or more runs on the same problems, from the smallest budget to the largest; or a pool, whose votes are compared.
    """
    if any(os.path.isdir(path) for path in files):
        levels, right, tokens = _levels_of_runs(files)
    else:
        levels, right, tokens = _levels_of_pool(only(files, "arise"), answer)
    result = _arise.measure_arise(right, tokens, seed=seed)
    accuracy = [mean_of([np.mean(question[level]) for question in right]) for level in range(len(levels))]
    steps = [None, *zip(result.medians, result.slope, strict=True)]
    score = estimated(result.score, result.interval)
    return Analysis(
        title="ARISE: gains count times T_old / T_new, losses times T_new / T_old",
        columns=("level", "tokens", "accuracy", "median step", "points per 1,000 tokens"),
        rows=tuple(
            (
                level,
                Cell(float(spent)),
                cell,
                None if step is None else Cell(float(step[0])),
                None if step is None else Cell(1000 * float(step[1]), "points"),
            )
            for level, spent, cell, step in zip(levels, result.tokens, accuracy, steps, strict=True)
        ),
        sentences=(
            f"ARISE {score} over {result.questions} questions, from {result.least:.3g} to {result.most:.3g}; if "
            f"correctness did not depend on the level, it would be {result.chance:.3g}.",
            f"{result.always_right} questions are always right and {result.always_wrong} never; of the others "
            f"{result.improved} are better at the last level than at the first, {result.degraded} worse, and "
            f"{result.mixed} as good.",
            "It depends on which levels there are: compare it only at the same ones.",
        ),
        figure=Figure(
            title="Accuracy and tokens of the levels of ARISE",
            x=Axis(title="tokens per problem", log=True),
            y=Axis(title="accuracy, mean over problems", percent=True),
            series=(
                Series(name="levels", x=result.tokens.tolist(), y=[cell.value for cell in accuracy]),
                bars("levels", result.tokens, accuracy),
            ),
        ),
    )


def _levels_of_runs(files: Sequence[Path]) -> tuple[list[str], list[list[Any]], list[list[Any]]]:
    """Names of levels, and credit and tokens of every problem that all runs have, at each level."""
    runs = []
    for path in files:
        if not os.path.isdir(path):
            raise UsageError(f"Give runs, or one pool; {path} is no run.")
        runs.append(
            {
                result.problem: (result.credit, 0.0 if result.trace is None else result.trace.cost.get("tokens", 0.0))
                for result in read_results(path)
                if result.credit is not None
            }
        )
    shared = [problem for problem in runs[0] if all(problem in run for run in runs)]
    if not shared:
        raise UsageError("The runs have no problem in common.")
    names = [name for name, _ in short_names(files)]
    cells = [[run[problem] for run in runs] for problem in shared]
    return (
        names,
        [[credit for credit, _ in question] for question in cells],
        [[spent for _, spent in question] for question in cells],
    )


def _levels_of_pool(path: Path, answer: AnswerKind) -> tuple[list[str], list[list[Any]], list[list[Any]]]:
    """The votes of 1, 2, 4 ... samples: as many runs of each as there are separate samples for."""
    pool = independent(path, answer=answer)
    if any(problem.keys is None or problem.tokens is None for problem in pool.problems):
        raise UsageError(f"{path} has no answers or no token counts, which this needs.")
    ns = [2**power for power in range(pool.samples.bit_length())]
    right, tokens = [], []
    for problem in pool.problems:
        assert problem.keys is not None
        assert problem.tokens is not None
        runs = [[slice(at, at + n) for at in range(0, len(problem.keys) - n + 1, n)] for n in ns]
        right.append([[_vote(problem.keys[run], problem.correct[run]) for run in slices] for slices in runs])
        tokens.append([[(problem.prompt or 0) + int(problem.tokens[run].sum()) for run in slices] for slices in runs])
    return [f"vote of {n}" for n in ns], right, tokens


def _vote(keys: Counts, correct: NDArray[np.bool_]) -> float:
    """Credit of the majority; tied answers share it."""
    valid = keys >= 0
    if not valid.any():
        return 0.0
    count = np.bincount(keys[valid])
    leaders = np.flatnonzero(count == count.max())
    return float(np.mean([correct[keys == leader].mean() for leader in leaders]))
