"""`outthink law soundness`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outthink import jsonl
from outthink.errors import Unidentified, UsageError
from outthink.laws.verification import corrected, joint_rate, sound_coverage
from outthink.maths.intervals import Interval
from outthink.records.pools import PoolData
from outthink.reports.analysis import Analysis, Cell, bars, estimated, estimates, mean_of, powers_of_two, worded
from outthink.reports.figures import Axis, Figure
from outthink.reports.laws.data import independent, only, remarks
from outthink.rewards.soundness import FLAWS, PASSES

_NAMES = {
    "gap": "no logical gap (NLG)",
    "cases": "no general claim from cases (NTC)",
    "approximation": "no approximation as exact (NAE)",
    "calculation": "no error in a calculation (NCE)",
}

Passed = Mapping[str, Sequence[NDArray[np.bool_]]]
"""By flaw, of each problem (n,) whether the judge has passed each sample."""


def soundness(files: Sequence[Path], *, labels: Path | None = None, seed: int = 0) -> Analysis:
    """Right answers with valid steps: the rates of the answer, of four judges of the steps, and of all five together.

    A pool of samples with the scores of all four judges, "soundness?flaw=gap" and so on, as `outthink score` adds them.
    """
    pool = independent(only(files, "soundness"))
    scorers = {flaw: f"soundness?flaw={flaw}" for flaw in FLAWS}
    if missing := [name for name in scorers.values() if name not in pool.scorers]:
        asked = " ".join(f'--verifier "{name}"' for name in missing)
        raise UsageError(f"{pool.path} lacks scores by {', '.join(missing)}: `outthink score {pool.path} {asked}`.")
    right = [problem.correct for problem in pool.problems]
    verdicts = {flaw: [_mean(problem.scores[name]) for problem in pool.problems] for flaw, name in scorers.items()}
    passed = {flaw: [values >= PASSES for values in each] for flaw, each in verdicts.items()}  # NaN is not
    sound = [np.logical_and.reduce(one) for one in zip(*passed.values(), strict=True)]
    overall = [a & b for a, b in zip(right, sound, strict=True)]

    answer, whole = (_rate(one) for one in (right, overall))
    rates = {flaw: _rate(each) for flaw, each in passed.items()}
    judged = {} if labels is None else _compared(labels, pool, passed)
    rows: list[tuple[str | Cell | None, ...]] = [("the answer is right", answer, None, None, None)]
    for flaw, rate in rates.items():
        judge = judged.get(flaw)
        real = None if judge is None else judge.corrected(rate.value)
        ends = (None, None) if judge is None else (Cell(judge.tpr, "share"), Cell(judge.tnr, "share"))
        rows.append((_NAMES[flaw], rate, real, *ends))
    rows.append(("all five", whole, None, None, None))

    smallest = min([answer, *rates.values()], key=lambda cell: cell.value)
    independently = float(joint_rate([answer.value, *(rate.value for rate in rates.values())]))
    sentences = [
        f"If the five were independent, {worded(independently, 'share')} of the samples would pass all of them; "
        f"{worded(whole.value, 'share')} do, and never more than the smallest rate, {worded(smallest.value, 'share')}.",
        *_kept(pool, verdicts),
        *_agreement(labels, judged),
        *remarks(pool, pool.path.name),
    ]
    ks = powers_of_two(pool.samples)
    nothing = Interval(low=np.zeros(len(ks)), high=np.zeros(len(ks)), missing=0.0)
    answers = sounds = estimates(np.zeros(len(ks)), nothing, "share")
    try:
        covered = sound_coverage(right, sound, ks, seed=seed)
    except Unidentified as refusal:
        sentences.append(f"Coverage is not known. {refusal}")
    else:
        answers = estimates(covered.answer, covered.answer_interval, "share")
        sounds = estimates(covered.sound, covered.sound_interval, "share")
        false = estimated(covered.false_positives, covered.false_positives_interval, "share")
        sentences.append(
            f"Some sample of {ks[-1]} is right: {answers[-1]}; is right and sound: {sounds[-1]}. Of the right answers "
            f"{false} have unsound steps."
        )
    columns = ("of the samples", "rate", "corrected", "TPR", "TNR")
    shown = len(columns) if judged else 2
    return Analysis(
        title="Right answers with valid steps: six rates, as judged",
        columns=columns[:shown],
        rows=tuple(row[:shown] for row in rows),
        sentences=tuple(sentences),
        figure=Figure(
            title="Right answers, and right answers with valid steps",
            x=Axis(title="samples per problem (k)", log=True),
            y=Axis(title="P(some sample of k), mean over problems", percent=True),
            series=(bars("right", ks, answers), bars("right and sound", ks, sounds)),
        ),
    )


def _mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) mean verdict of each sample; NaN where one is missing."""
    return np.asarray(scores.mean(-1)) if scores.shape[-1] else np.full(len(scores), np.nan)


def _rate(each: Sequence[NDArray[np.bool_]]) -> Cell:
    return mean_of(one.mean() for one in each)


def _kept(pool: PoolData, verdicts: Mapping[str, Sequence[NDArray[np.float64]]]) -> list[str]:
    """What passes nothing because it was cut off, or because a judge said nothing about it."""
    complete = [problem.complete for problem in pool.problems]
    cut = float(np.mean([1 - one.mean() for one in complete]))
    unread = [
        np.isnan(values[ended]) for each in verdicts.values() for values, ended in zip(each, complete, strict=True)
    ]
    silent = float(np.concatenate(unread).mean()) if any(map(len, unread)) else 0.0
    told = []
    if cut:
        told.append(
            f"{worded(cut, 'share')} of the samples were cut off and pass nothing: compare only with runs of the same "
            "cap."
        )
    if silent:
        told.append(f"{worded(silent, 'share')} of the verdicts are missing, and those samples do not pass.")
    return told


@dataclass(frozen=True, kw_only=True, slots=True)
class _Judge:
    """A judge against people: the share of sound samples that it passes, and of flawed ones that it does not."""

    tpr: float
    tnr: float
    labels: int

    def corrected(self, observed: float) -> Cell | None:
        """The share that is really sound; None where the judge cannot tell."""
        try:
            return Cell(float(corrected(observed, self.tpr, self.tnr)), "share")
        except Unidentified:
            return None


def _compared(path: Path, pool: PoolData, passed: Passed) -> dict[str, _Judge]:
    """The judges of which people have seen sound and flawed samples."""
    places = {problem.id: place for place, problem in enumerate(pool.problems)}
    seen: dict[str, tuple[list[bool], list[bool]]] = {flaw: ([], []) for flaw in FLAWS}
    for number, line in jsonl.read(path):
        where = f"Line {number} of {path}"
        place, sample, flaws = places.get(str(line.get("problem"))), line.get("sample"), line.get("flaws")
        if place is None:
            raise UsageError(f"{where} names the problem {line.get('problem')!r}, which {pool.path} does not have.")
        n = len(pool.problems[place].correct)
        if not isinstance(sample, int) or isinstance(sample, bool) or not 0 <= sample < n:
            raise UsageError(f"{where} needs a 'sample' from 0 to {n - 1}, its place in the pool.")
        if not isinstance(flaws, list) or not {*map(str, flaws)} <= FLAWS.keys():
            raise UsageError(f"{where} needs 'flaws', a list with some of {', '.join(FLAWS)}, or none.")
        for flaw, (sound, flawed) in seen.items():
            (flawed if flaw in flaws else sound).append(bool(passed[flaw][place][sample]))
    return {
        flaw: _Judge(tpr=float(np.mean(sound)), tnr=1 - float(np.mean(flawed)), labels=len(sound) + len(flawed))
        for flaw, (sound, flawed) in seen.items()
        if sound and flawed
    }


def _agreement(labels: Path | None, judged: Mapping[str, _Judge]) -> list[str]:
    if labels is None:
        return ["Nobody has compared these judges with people: with --labels, about 50 samples correct the rates."]
    told = []
    if judged:
        through = worded(float(joint_rate([judge.tpr for judge in judged.values()])), "share")
        told.append(
            f"By {max(judge.labels for judge in judged.values())} samples that people judged, {through} of solutions "
            f"without a flaw would pass {'all four' if len(judged) == len(FLAWS) else 'these'} judges if they erred "
            "independently."
        )
    for flaw in FLAWS.keys() - judged.keys():
        told.append(f"People saw no sound or no flawed sample of {flaw!r}, so its rate is not corrected.")
    return sorted(told)
