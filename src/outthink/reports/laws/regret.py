"""`outthink law regret`."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from outthink import tasks
from outthink.errors import UsageError
from outthink.laws import regret as _regret
from outthink.records.pools import PoolProblem
from outthink.records.runs import read_results, read_settings
from outthink.reports.analysis import Analysis, Cell, Row, curve, estimated, estimates, mean_of, short_names
from outthink.reports.curves import majority
from outthink.reports.figures import Axis, Figure, Series
from outthink.reports.laws.data import SUBSAMPLES, Floats, independent, naming
from outthink.reports.report import answer_points
from outthink.types import AnswerKind


def regret(files: Sequence[Path], *, at: Sequence[float] = (), answer: AnswerKind = "text", seed: int = 0) -> Analysis:
    """What an answer is worth at every moment: accuracy over tokens, regret up to a budget, and anytime accuracy.

    Runs on the same problems, whose rounds are graded again; or pools with token counts: the vote as samples come in,
    or where samples have `probes`, the answer that was forced after every so many tokens of a thought.
    """
    curves = {name: _curves_of(path, answer, seed) for name, path in short_names(files)}
    shared = [
        problem
        for problem in next(iter(curves.values()))
        if all(problem in by_problem for by_problem in curves.values())
    ]
    if not shared:
        raise UsageError("The files have no problem in common.")
    largest = max(
        float(np.mean([np.max(by_problem[one][0], initial=0.0) for one in shared])) for by_problem in curves.values()
    )
    budgets = sorted(at) or (largest * np.arange(1, 5) / 4).tolist()
    dense = np.linspace(0, max(largest, budgets[-1]), 101)
    rows: list[Row] = []
    sentences: list[str] = []
    series: list[Series] = []
    scores: list[Floats] = []
    for name, by_problem in curves.items():
        traces = [by_problem[problem] for problem in shared]
        with naming(name):
            measured = _regret.measure_regret([[trace] for trace in traces], budgets, shape="step", seed=seed)
            drawn = _regret.measure_regret([[trace] for trace in traces], dense[1:], shape="step", seed=seed)
        moments = estimates(drawn.accuracy, drawn.accuracy_interval, "share")
        series.append(dataclasses.replace(curve(name, dense[1:], moments), mark="steps"))
        worth = np.array([_regret.accuracy_at(*trace, budgets, shape="step") for trace in traces])
        scores.append(_regret.anytime(worth, budgets))
        accuracy = estimates(measured.accuracy, measured.accuracy_interval, "share")
        regrets = estimates(measured.regret, measured.regret_interval)
        rows += [
            (name, Cell(budget), *cells, Cell(float(ended), "share"))
            for budget, *cells, ended in zip(budgets, accuracy, regrets, measured.ended, strict=True)
        ]
        solvable = ""
        if measured.solvable_regret is not None:
            solvable = (
                f"; regret {measured.solvable_regret[-1]:.3g} on the {measured.solvable} problems that it ever solves"
            )
        sentences.append(
            f"{name}: anytime accuracy {estimated(measured.score, measured.score_interval, 'share')} over "
            f"{len(shared)} problems{solvable}."
        )
    first, *others = curves
    for name, score in zip(others, scores[1:], strict=True):
        difference = mean_of(score - scores[0], "points", least=-1.0)
        sentences.append(f"{name} minus {first}: {difference} points of anytime accuracy, paired.")
    return Analysis(
        title="Regret: 1 - mean accuracy over all moments up to a budget",
        columns=("file", "budget, tokens", "accuracy", "regret", "ended before"),
        rows=tuple(rows),
        sentences=tuple(sentences),
        figure=Figure(
            title="What the answer is worth, had it stopped there",
            x=Axis(title="tokens per problem"),
            y=Axis(title="accuracy, mean over problems", percent=True),
            series=tuple(series),
        ),
    )


def _curves_of(path: Path, answer: AnswerKind, seed: int) -> dict[str, tuple[Floats, Floats]]:
    """Tokens and accuracy of what would be answered, of each problem."""
    if os.path.isdir(path):
        return asyncio.run(_curves_of_run(path))
    pool = independent(path, answer=answer)
    if all(problem.probes is not None and problem.tokens is not None for problem in pool.problems):
        return {problem.id: _probed(problem) for problem in pool.problems}
    if any(problem.keys is None or problem.tokens is None for problem in pool.problems):
        raise UsageError(f"{path} has no answers or no token counts, which this needs.")
    vote = majority(pool, range(1, pool.samples + 1), subsamples=SUBSAMPLES, seed=seed)
    tokens = np.stack([np.asarray(point.tokens) for _, point in sorted(vote.items())], axis=-1)
    credit = np.stack([point.accuracy for _, point in sorted(vote.items())], axis=-1)
    return {problem.id: pair for problem, pair in zip(pool.problems, zip(tokens, credit, strict=True), strict=True)}


def _probed(problem: PoolProblem) -> tuple[Floats, Floats]:
    """What an answer forced after each prefix of a thought is worth, over all thoughts of a problem together.

    A thought that has ended gives its answer from there on, and nothing has to be forced.
    """
    probes, keys, ends, right = problem.probes, problem.keys, problem.tokens, problem.right
    assert probes is not None
    assert keys is not None
    assert ends is not None
    assert right is not None
    pieces = np.arange(1, -(-int(ends.max()) // probes.every) + 1)[:, None]
    prefixes = np.minimum(pieces[:, 0] * probes.every, ends.max())
    over = prefixes[:, None] >= ends
    answers = np.where(over, keys, probes.after(np.arange(len(keys)), pieces))
    good = (answers >= 0) & right[np.maximum(answers, 0)]
    return _regret.prefix_curve(prefixes, np.where(over, 0.0, probes.tokens), good)


async def _curves_of_run(path: Path) -> dict[str, tuple[Floats, Floats]]:
    settings = read_settings(path)
    examples = {example.problem.id: example for example in tasks.load(settings["task"], seed=settings["seed"])}
    curves: dict[str, tuple[Floats, Floats]] = {}
    async with tasks.opened(examples.values(), None, None) as (reader, sandbox):
        for result in read_results(path):
            if result.problem not in examples:
                raise UsageError(
                    f"The task {settings['task']} has no {result.problem!r} here, so that {path} cannot be graded "
                    "again; set OUTTHINK_DATA as it was when it was run."
                )
            points = []
            if result.trace is not None:
                points = await answer_points(result.trace, examples[result.problem], reader, sandbox)
            tokens = np.array([point.cost.get("tokens", 0.0) for point in points])
            curves[result.problem] = tokens, np.array([point.credit for point in points])
    return curves
