"""`outthink law soundness`."""

from __future__ import annotations

import math
import shlex
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
from outthink.reports.laws.data import independent, need_verdicts, only, remarks
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
        raise UsageError(f"{pool.path} lacks scores by {', '.join(missing)}: `{_asked(pool.path, missing)}`.")
    for name in scorers.values():
        need_verdicts(pool, name)
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
        rows.append(
            (_NAMES[flaw], rate, *((None,) * 3 if judge is None else (judge.corrected(rate), judge.tpr, judge.tnr)))
        )
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


def _asked(pool: Path, missing: Sequence[str]) -> str:
    """The command that adds what is missing, into a file beside the pool."""
    out = pool.with_name(f"{pool.name.removesuffix('.gz').removesuffix('.jsonl')}-sound.jsonl")
    judges = [word for name in missing for word in ("--verifier", name)]
    return shlex.join(["outthink", "score", str(pool), "--out", str(out), *judges])


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
    """A judge against people: the share of sound samples that it passes, and of flawed ones that it does not.

    Both are means over the problems that have such samples, as the rates are, with their intervals.
    """

    tpr: Cell
    tnr: Cell
    labels: int

    @property
    def blind(self) -> bool:
        """Whether it passes sound samples no more often than flawed ones."""
        return self.tpr.value + self.tnr.value <= 1

    @property
    def unsure(self) -> bool:
        """Whether it may be blind, by the intervals."""
        reach = math.hypot(_down(self.tpr), _down(self.tnr))
        return self.tpr.value + self.tnr.value - reach <= 1

    def corrected(self, observed: Cell) -> Cell | None:
        """The share that is really sound, with its interval; None where the judge is blind.

        The interval adds by squares what each of the three rates changes when it moves to an end of its own interval
        while the others stay, downwards and upwards apart (Zou and Donner 2008, from memory). It takes the three for
        independent, and is 0 to 1 where the judge may be blind.
        """
        if self.blind:
            return None
        value = float(corrected(observed.value, self.tpr.value, self.tnr.value))
        if self.unsure:
            return Cell(value, "share", 0.0, 1.0)
        rates = [observed, self.tpr, self.tnr]
        middle = _real(*(rate.value for rate in rates))
        down, up = 0.0, 0.0
        for place, rate in enumerate(rates):
            moved = [
                _real(*(end if other == place else one.value for other, one in enumerate(rates)))
                for end in (rate.low, rate.high)
                if end is not None
            ]
            down = math.hypot(down, middle - min(middle, *moved))
            up = math.hypot(up, max(middle, *moved) - middle)
        return Cell(value, "share", max(value - down, 0.0), min(value + up, 1.0))


def _down(rate: Cell) -> float:
    return 0.0 if rate.low is None else rate.value - rate.low


def _real(observed: float, tpr: float, tnr: float) -> float:
    """As `corrected`, but not cut to [0, 1], so that what lies beyond still counts in an interval."""
    return (observed + tnr - 1) / (tpr + tnr - 1)


def _compared(path: Path, pool: PoolData, passed: Passed) -> dict[str, _Judge]:
    """The judges of which people have seen sound and flawed samples."""
    labels = _labels(path, pool)
    judges = {}
    for flaw in FLAWS:
        sound: dict[int, list[bool]] = {}  # by problem, whether the judge is right about each sample
        flawed: dict[int, list[bool]] = {}
        for (place, sample), flaws in labels.items():
            let_through = bool(passed[flaw][place][sample])
            of_kind, right = (flawed, not let_through) if flaw in flaws else (sound, let_through)
            of_kind.setdefault(place, []).append(right)
        if sound and flawed:
            tpr, tnr = (mean_of(np.mean(each) for each in kind.values()) for kind in (sound, flawed))
            judges[flaw] = _Judge(tpr=tpr, tnr=tnr, labels=len(labels))
    return judges


def _labels(path: Path, pool: PoolData) -> dict[tuple[int, int], frozenset[str]]:
    """The flaws that people saw in each sample, by problem and sample; what is said twice counts once."""
    places = {problem.id: place for place, problem in enumerate(pool.problems)}
    labels: dict[tuple[int, int], frozenset[str]] = {}
    lines: dict[tuple[int, int], int] = {}
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
        told = frozenset(map(str, flaws))
        if labels.setdefault((place, sample), told) != told:
            raise UsageError(
                f"{where} and line {lines[place, sample]} name different flaws of sample {sample} of "
                f"{pool.problems[place].id!r}: leave the one that is right."
            )
        lines.setdefault((place, sample), number)
    return labels


def _agreement(labels: Path | None, judged: Mapping[str, _Judge]) -> list[str]:
    if labels is None:
        return ["Nobody has compared these judges with people: with --labels, about 50 samples correct the rates."]
    told = []
    if judged:
        through = worded(float(joint_rate([judge.tpr.value for judge in judged.values()])), "share")
        told.append(
            f"By {max(judge.labels for judge in judged.values())} samples that people judged, {through} of solutions "
            f"without a flaw would pass {'all four' if len(judged) == len(FLAWS) else 'these'} judges if they erred "
            "independently."
        )
    for flaw, judge in judged.items():
        if judge.blind:
            told.append(
                f"The judge of {flaw!r} is at chance or worse against people's labels (TPR + TNR is "
                f"{worded(judge.tpr.value + judge.tnr.value, 'share')}, not above 100%), so its rate is not corrected."
            )
        elif judge.unsure:
            told.append(
                f"By so few labels the judge of {flaw!r} may be at chance, and its corrected rate anything: label more."
            )
    for flaw in FLAWS.keys() - judged.keys():
        told.append(f"People saw no sound or no flawed sample of {flaw!r}, so its rate is not corrected.")
    return sorted(told)
