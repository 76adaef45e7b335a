"""How good a probe is on a pool, or on solutions whose first error is marked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from outthink import jsonl
from outthink.errors import UsageError
from outthink.learn.examples import Examples, Recording, examples, question_mark, read_recording
from outthink.learn.measures import auroc, brier, calibration_error, first_error, reliability, step_f1
from outthink.learn.prm import AUROCS, TELL, among, estimated, plain_numbers, writable_number
from outthink.maths.intervals import Bootstrap, Estimate, Numbers, mean_and_interval
from outthink.models.engine import Tokenizing
from outthink.reports.curves import coverage_curve, majority, replayed_curve
from outthink.reports.tables import markdown_table, text_table
from outthink.rewards.trained import TrainedPRM
from outthink.strategies.parallel.best_of_n import BestOfN
from outthink.strategies.parallel.weighted_best_of_n import WeightedBestOfN

if TYPE_CHECKING:
    from rich.table import Table


_DEPTHS = 8


_FEW = 10  # fewer right or wrong examples than this at a depth say nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class PRMQuality:
    """Scores of beginnings against the outcomes of their samples.

    Args:
        examples: how many have a score.
        auroc: over all, at whatever step; `finished` over finished samples.
        same_problem: over pairs of finished samples of one problem.
        same_step: over pairs of one problem at one depth, which is what search compares.
        depths: AUROC by depth, from 1; NaN where there are few.
        brier, calibration_error, bins: None where the scores are no probabilities.
    """

    examples: int
    auroc: Estimate
    finished: Estimate
    same_problem: Estimate
    same_step: Estimate
    depths: tuple[float, ...]
    brier: Estimate | None
    calibration_error: float | None
    bins: tuple[tuple[int, float, float], ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A rule that chooses among all samples of a problem.

    Args:
        accuracy: its mean credit.
        minus_vote: its difference from the majority vote, paired.
    """

    accuracy: Estimate
    minus_vote: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class OnPool:
    """A probe on a pool.

    Args:
        problems, samples: that were scored; samples for each problem.
        seen: problems that were left out, because the probe was trained on their questions.
        unclear: samples with logprobs of which it is not known where their tokens end.
        qualities: by what is scored.
        selections: by rule; empty where the pool has no answers.
    """

    problems: int
    samples: int
    seen: int
    unclear: int
    qualities: Mapping[str, PRMQuality]
    selections: Mapping[str, Selection]


def on_pool(probe: TrainedPRM, path: Path, *, tokenizer: Tokenizing | None = None) -> OnPool:
    """Measure a probe on a pool, beside the model's own confidence where the pool has logprobs.

    Raises UsageError where nothing is left to measure it on.
    """
    recording = read_recording(path, tokenizer)
    seen = frozenset(probe.trained.get("questions", ()))
    left = [number for number, question in enumerate(recording.questions) if question_mark(question) not in seen]
    if not left:
        raise UsageError(f"The probe was trained on all questions of {path}: measure it on others.")
    labelled = examples(recording, probe.delimiter, skip=seen)
    bootstrap = Bootstrap(len(recording.questions))
    scores: dict[str, Numbers] = {}
    for head, classifier in probe.heads.items():
        known = labelled.known(head)
        if known.any():
            scores[f"probe: {head}"] = np.full(len(known), np.nan)
            scores[f"probe: {head}"][known] = classifier(labelled.values[head][known])
    for what, values in labelled.confidence.items():
        if not np.isnan(values).all():
            scores[f"confidence: {what}"] = values
    return OnPool(
        problems=len(left),
        samples=min(len(recording.samples[number]) for number in left),
        seen=len(recording.questions) - len(left),
        unclear=recording.unclear,
        qualities={
            name: _on_outcomes(labelled, values, name.startswith("probe"), bootstrap) for name, values in scores.items()
        },
        selections=_selections(recording, left, labelled, scores),
    )


def _on_outcomes(labelled: Examples, scores: Numbers, probability: bool, bootstrap: Bootstrap) -> PRMQuality:
    rows = ~np.isnan(scores)
    kept, right, problems = scores[rows], labelled.right[rows], labelled.problem[rows]
    last, depth = labelled.last[rows], labelled.depth[rows]
    depths = [depth == number for number in range(1, _DEPTHS + 1)]
    return PRMQuality(
        examples=len(kept),
        auroc=bootstrap.estimate(lambda weights: auroc(kept, right, weights), problems, (right, ~right)),
        finished=bootstrap.estimate(
            lambda weights: auroc(kept[last], right[last], weights), problems[last], (right[last], ~right[last])
        ),
        same_problem=among(kept[last], right[last], problems[last], problems[last], bootstrap),
        same_step=among(kept, right, problems * (1 + depth.max(initial=0)) + depth, problems, bootstrap),
        depths=tuple(
            float(auroc(kept[at], right[at])) if min(right[at].sum(), (~right[at]).sum()) >= _FEW else math.nan
            for at in depths
        ),
        brier=bootstrap.estimate(lambda weights: brier(kept, right, weights), problems) if probability else None,
        calibration_error=calibration_error(kept, right) if probability else None,
        bins=tuple(reliability(kept, right)) if probability else None,
    )


def _selections(
    recording: Recording, left: Sequence[int], labelled: Examples, scores: Mapping[str, Numbers]
) -> dict[str, Selection]:
    """The vote and what scores of finished samples make of the same samples."""
    problems = []
    for number in left:
        problem = recording.pool.problems[number]
        of_problem = (labelled.problem == number) & labelled.last
        of_samples = {}
        for name, values in scores.items():
            matrix = np.full((len(problem.correct), 1), np.nan)
            matrix[labelled.sample[of_problem], 0] = values[of_problem]
            of_samples[name] = matrix
        problems.append(replace(problem, scores=of_samples))
    pool = replace(recording.pool, problems=tuple(problems), scorers=tuple(scores))
    if any(problem.keys is None for problem in problems):
        return {}
    n, same = pool.samples, {"subsamples": 200, "seed": 0}  # the order matters where scores are equal only
    vote = majority(pool, [n], **same)[n].accuracy
    chosen = {"coverage": coverage_curve(pool, [n])[n].accuracy, "vote": vote}
    for name in scores:
        for rule, strategy in (("best", BestOfN()), ("weighted vote", WeightedBestOfN())):
            chosen[f"{rule} by {name}"] = replayed_curve(strategy, pool, [n], scorer=name, **same)[n].accuracy
    return {
        name: Selection(
            accuracy=mean_and_interval(accuracies.tolist()),
            minus_vote=mean_and_interval((accuracies - vote).tolist(), least=-1.0),
        )
        for name, accuracies in chosen.items()
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked:
    """A solution whose first wrong step somebody has marked.

    Args:
        label: index of that step, -1 where there is none.
    """

    question: str
    steps: tuple[str, ...]
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OnMarked:
    """A probe on solutions whose first wrong step is marked.

    Args:
        solutions, wrong: how many, and how many of them have a wrong step.
        seen: solutions that were left out, because the probe was trained on their questions.
        threshold: a step below it is taken for wrong.
        f1: harmonic mean of `on_wrong` (the first wrong step was found) and `on_right` (none was found).
        auroc, brier, calibration_error: of steps, the first wrong one against those before it and those of solutions
            without one; what follows a wrong step is not marked and does not count.
        bins: examples, mean score and share that is right by score.
    """

    solutions: int
    wrong: int
    seen: int
    threshold: float
    f1: Estimate
    on_wrong: Estimate
    on_right: Estimate
    auroc: Estimate
    brier: Estimate
    calibration_error: float
    bins: tuple[tuple[int, float, float], ...]


def is_marked(path: Path) -> bool:
    """Whether the file holds marked solutions rather than a pool; raises UsageError where it is empty."""
    row = next((row for _, row in jsonl.read(path)), None)
    if row is None:
        raise UsageError(f"{path} is empty.")
    return "label" in row and "steps" in row


def read_marked(path: Path) -> list[Marked]:
    """Solutions in the form of ProcessBench: question, steps and label; raises UsageError that names a wrong line."""
    marked = []
    for number, row in jsonl.read(path):
        question, steps, label = row.get("question", row.get("problem")), row.get("steps"), row.get("label")
        if not (
            isinstance(question, str)
            and isinstance(steps, list)
            and all(isinstance(step, str) for step in steps)
            and type(label) is int
            and -1 <= label < len(steps)
        ):
            raise UsageError(
                f"Line {number} of {path} is no marked solution: it needs question (or problem), steps, and as label "
                "the index of the first wrong step, or -1."
            )
        marked.append(Marked(question=question, steps=tuple(steps), label=label))
    return marked


def step_scores(probe: TrainedPRM, solutions: Sequence[Marked]) -> Numbers:
    """The scores (n, T) of the steps, from their texts alone; NaN where there is none."""
    scores = np.full((len(solutions), max((len(one.steps) for one in solutions), default=1)), np.nan)
    for row, solution in zip(scores, solutions, strict=True):
        pieces = [(step.rstrip() + "\n\n", None) for step in solution.steps]
        for place in range(len(pieces)):
            score = probe.chance(solution.question, pieces[: place + 1])
            row[place] = math.nan if score is None else score
    return scores


def best_threshold(probe: TrainedPRM, path: Path) -> float:
    """The threshold with the highest F1 on these marked solutions; of several the one nearest to 0.5."""
    solutions = read_marked(path)
    scores, label = step_scores(probe, solutions), np.array([one.label for one in solutions])
    known = np.unique(scores[~np.isnan(scores)])
    tried = np.unique(np.quantile(known, np.linspace(0, 1, 201))) if len(known) else np.array([0.5])
    f1 = np.nan_to_num(step_f1(first_error(scores, tried[:, None, None]), label)[0])
    best = tried[f1 == f1.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def on_marked(probe: TrainedPRM, path: Path, *, threshold: float = 0.5) -> OnMarked:
    """Measure a probe on marked solutions; it reads their texts only. Raises UsageError where none is left."""
    everything = read_marked(path)
    seen = frozenset(probe.trained.get("questions", ()))
    solutions = [one for one in everything if question_mark(one.question) not in seen]
    if not solutions:
        raise UsageError(f"The probe was trained on all questions of {path}: measure it on others.")
    numbers: dict[str, int] = {}
    problems = np.array([numbers.setdefault(one.question, len(numbers)) for one in solutions])
    scores, label = step_scores(probe, solutions), np.array([one.label for one in solutions])
    predicted = first_error(scores, threshold)
    bootstrap = Bootstrap(len(numbers))
    f1, on_wrong, on_right = (
        bootstrap.estimate(lambda weights, part=part: step_f1(predicted, label, weights)[part], problems, kinds)  # type: ignore[misc]  # part is bound
        for part, kinds in enumerate(((label >= 0, label < 0), (label >= 0,), (label < 0,)))
    )
    place = np.arange(scores.shape[1])
    rows, steps = np.nonzero(~np.isnan(scores) & ((place <= label[:, None]) | (label[:, None] < 0)))
    kept, right = scores[rows, steps], steps != label[rows]
    return OnMarked(
        solutions=len(solutions),
        wrong=int((label >= 0).sum()),
        seen=len(everything) - len(solutions),
        threshold=threshold,
        f1=f1,
        on_wrong=on_wrong,
        on_right=on_right,
        auroc=bootstrap.estimate(lambda weights: auroc(kept, right, weights), problems[rows], (right, ~right)),
        brier=bootstrap.estimate(lambda weights: brier(kept, right, weights), problems[rows]),
        calibration_error=calibration_error(kept, right),
        bins=tuple(reliability(kept, right)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A probe on several files.

    Args:
        pools, marked: by file.
        fitted: the file on which the threshold was fitted; None: it was given.
    """

    pools: Mapping[str, OnPool]
    marked: Mapping[str, OnMarked]
    fitted: str | None = None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        pools = {name: plain_numbers(asdict(result)) for name, result in self.pools.items()}
        marked = {name: plain_numbers(asdict(result)) for name, result in self.marked.items()}
        return {"pools": pools, "marked": marked, "threshold_fitted_on": self.fitted}

    def tables(self) -> list[tuple[str, Table]]:
        """Headings and tables for a terminal."""
        return [(heading, text_table(columns, rows)) for heading, columns, rows in self._cells()]

    def markdown(self) -> str:
        """The same in Markdown."""
        cells = self._cells()
        return "\n".join(f"{heading}\n\n{markdown_table(columns, rows)}" for heading, columns, rows in cells)

    def sentences(self) -> list[str]:
        """What was left out, and where the threshold comes from."""
        lines = []
        for name, on in self.pools.items():
            if on.seen:
                lines.append(f"{name}: {on.seen} problems were left out, because the probe was trained on them.")
            if on.unclear:
                lines.append(f"{name}: of {on.unclear} samples it is not known where their tokens end; {TELL}.")
        for name, marked in self.marked.items():
            if marked.seen:
                lines.append(f"{name}: {marked.seen} solutions were left out, because the probe was trained on them.")
        if self.marked:
            threshold = next(iter(self.marked.values())).threshold
            whence = "as given" if self.fitted is None else f"fitted on {self.fitted}"
            lines.append(f"A step is taken for wrong below {threshold:.3g}, {whence}.")
        return lines

    def _cells(self) -> list[tuple[str, list[str], list[list[str]]]]:
        tables = []
        for name, on in self.pools.items():
            rows = [
                [what, *map(estimated, (quality.auroc, quality.finished, quality.same_problem, quality.same_step))]
                for what, quality in on.qualities.items()
            ]
            tables.append((f"{name}: {on.problems} problems", ["scores", *AUROCS], rows))
            rows = [
                [
                    what,
                    *map(writable_number, quality.depths),
                    writable_number(None if quality.brier is None else quality.brier[0]),
                    writable_number(quality.calibration_error),
                ]
                for what, quality in on.qualities.items()
            ]
            columns = ["scores", *map(str, range(1, _DEPTHS + 1)), "Brier", "calibration error"]
            tables.append((f"{name}: AUROC by number of steps; calibration", columns, rows))
            if on.selections:
                rows = [
                    [
                        rule,
                        _points(selection.accuracy),
                        "" if rule in ("coverage", "vote") else _points(selection.minus_vote, "+"),
                    ]
                    for rule, selection in on.selections.items()
                ]
                columns = ["rule", "accuracy % (95%)", "minus vote (95%, paired)"]
                tables.append((f"{name}: choosing among {on.samples} samples", columns, rows))
        if self.marked:
            rows = [
                [
                    name,
                    str(marked.solutions),
                    _points(marked.f1),
                    f"{100 * marked.on_wrong[0]:.1f}",
                    f"{100 * marked.on_right[0]:.1f}",
                    estimated(marked.auroc),
                    writable_number(marked.brier[0]),
                    writable_number(marked.calibration_error),
                ]
                for name, marked in self.marked.items()
            ]
            columns = ["file", "solutions", "F1 % (95%)", "with error", "without", "AUROC (95%)", "Brier"]
            tables.append(("first errors", [*columns, "calibration error"], rows))
        return tables


def evaluate(
    probe: TrainedPRM,
    paths: Iterable[Path],
    *,
    threshold: float = 0.5,
    fit_on: Path | None = None,
    tokenizer: Tokenizing | None = None,
) -> Evaluation:
    """Measure a probe on pools and on files of marked solutions.

    Args:
        threshold: below it a step is taken for wrong; with `fit_on` it is fitted on those marked solutions instead.
        tokenizer: as for `train`.
    """
    kinds = {path: is_marked(path) for path in paths}
    if fit_on is not None:
        if fit_on in kinds:
            raise UsageError(f"The threshold cannot be fitted on {fit_on} and measured there: give another file.")
        if not is_marked(fit_on):
            raise UsageError(f"The threshold is fitted on marked solutions, and {fit_on} is a pool.")
        threshold = best_threshold(probe, fit_on)
    return Evaluation(
        pools={str(path): on_pool(probe, path, tokenizer=tokenizer) for path, marked in kinds.items() if not marked},
        marked={str(path): on_marked(probe, path, threshold=threshold) for path, marked in kinds.items() if marked},
        fitted=None if fit_on is None else str(fit_on),
    )


def _points(estimate: Estimate, sign: str = "") -> str:
    return (
        "-"
        if math.isnan(estimate[0])
        else f"{100 * estimate[0]:{sign}.1f} ({100 * estimate[1]:{sign}.1f} to {100 * estimate[2]:{sign}.1f})"
    )
