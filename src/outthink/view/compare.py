"""Recordings beside each other: what each solved that another did not, and accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.cost.kinetics import INTENSITIES
from outthink.maths.intervals import mean_and_interval
from outthink.records.runs import Result
from outthink.reports.report import agreement, agreement_sentence, paired
from outthink.view.entries import EFLOPS
from outthink.view.recordings import UNITS, RecordFile

MOST = 50_000
"""Lines of a recording beyond which only what its columns tell is shown."""

_SHOWN = 200  # problems of each list
_NORMAL = 1.959964  # of a 95% interval


def compared(recordings: Sequence[tuple[int, RecordFile]]) -> dict[str, Any]:
    """Recordings by their numbers: accuracy and cost of those that are graded with 95% intervals, and every pair.

    Intervals of accuracy are bootstrap intervals over problems, as in reports; those of costs are of a normal mean.
    """
    points: list[dict[str, Any]] = []
    for number, recording in recordings:
        credit = recording.column("credit")
        graded = credit[~np.isnan(credit)]
        if len(graded):
            accuracy, low, high = mean_and_interval(graded.tolist())
            costs = {unit: estimate for unit in UNITS if (estimate := _mean(recording.column(unit))) is not None}
            lacking = None if EFLOPS in costs else _no_eflops(recording)
            points.append(
                {
                    "source": number,
                    "name": recording.name,
                    "problems": len(graded),
                    "accuracy": [accuracy, low, high],
                    "cost": costs,
                    "lacking": lacking,
                }
            )
    pairs = [
        _pair(one, a, other, b) for place, (one, a) in enumerate(recordings) for other, b in recordings[place + 1 :]
    ]
    return {"points": points, "pairs": pairs, "intensity": INTENSITIES[0]}


def _no_eflops(recording: RecordFile) -> str:
    """Why its eFLOPs are not known."""
    models = recording.settings.get("models")
    named = models if isinstance(models, dict) else {}
    unknown = [str(name) for role, name in named.items() if role not in recording.shapes]
    if unknown:
        return f"{recording.name} does not tell the shape of {', '.join(unknown)}, as of a model behind a server"
    if named:
        return f"the shape of a model of {recording.name} lacks its heads, or not all its calls are of these models"
    return f"{recording.name} does not tell the shape of its model"


def sign_test(wins: int, losses: int) -> float:
    """The two-sided p-value of the exact sign test (McNemar's, exact): odds of so uneven a split by even chance."""
    n = wins + losses
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(min(wins, losses) + 1)]
    tail = sum(math.exp(log - n * math.log(2)) for log in logs)
    return min(1.0, 2 * tail)


def _mean(amounts: NDArray[np.float64]) -> list[float] | None:
    """Mean and 95% interval; None where the cost is not known of every problem."""
    if not len(amounts) or np.isnan(amounts).any():
        return None
    mean = float(amounts.mean())
    half = _NORMAL * float(amounts.std(ddof=1)) / math.sqrt(len(amounts)) if len(amounts) > 1 else 0.0
    return [mean, max(mean - half, 0.0), mean + half]


def _pair(one: int, a: RecordFile, other: int, b: RecordFile) -> dict[str, Any]:
    """What differs between two recordings: answers over the problems that both have, credit where both are graded."""
    places = a.places(b)
    there = np.flatnonzero(places >= 0)
    keys, others = a.column("key")[there], b.column("key")[places[there]]
    both_answer = (keys != 0) & (others != 0)
    mine, its = a.column("credit")[there], b.column("credit")[places[there]]
    graded = ~np.isnan(mine) & ~np.isnan(its)
    there, mine, its = there[graded], mine[graded], its[graded]
    test = paired(
        (Result(problem=str(line), credit=float(credit)) for line, credit in zip(there, mine, strict=True)),
        (Result(problem=str(line), credit=float(credit)) for line, credit in zip(there, its, strict=True)),
    )
    wins, losses = there[mine > its], there[mine < its]
    return {
        "a": one,
        "b": other,
        "common": len(places[places >= 0]),
        "same": int((both_answer & (keys == others)).sum()),
        "other": int((both_answer & (keys != others)).sum()),
        "problems": test.problems,
        "difference": [_number(test.difference), _number(test.low), _number(test.high)],
        "detectable": _number(test.detectable),
        "p": sign_test(len(wins), len(losses)),
        "only_a": len(wins),
        "only_b": len(losses),
        "both": int(((mine >= 1) & (its >= 1)).sum()),
        "neither": int(((mine < 1) & (its < 1) & (mine == its)).sum()),
        "beside": _beside(a, b),
        "lines_a": _listed(a, wins, places),
        "lines_b": _listed(a, losses, places),
    }


def _beside(a: RecordFile, b: RecordFile) -> str | None:
    """How two runs agree that nobody has graded whole, such as a server's and its shadow, and what the second costs."""
    if "pool" in (a.form, b.form) or max(len(a), len(b)) > MOST:
        return None
    agreed = agreement(b.results(), a.results())
    return agreement_sentence((b.name, a.name), agreed) if agreed.graded < agreed.problems else None


def _listed(a: RecordFile, lines: NDArray[np.intp], places: NDArray[np.intp]) -> list[dict[str, Any]]:
    """The first of these problems: their ids, and their lines in both recordings."""
    first = lines[:_SHOWN].tolist()
    return [{"problem": a.problem(line), "a": line, "b": int(places[line])} for line in first]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
