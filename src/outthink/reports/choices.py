"""What `auto` did on the problems of a run: for how many, what it said they would gain, and what they gained.

Source: none of its own. What a plan says is the chance of being right after the first samples and at the end, so what
it says is gained is their difference. What was gained is known where the two answers are equal, and where the last one
is right; where it is wrong and the first was another, the first may have been right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from outthink.maths.intervals import mean_and_interval
from outthink.records.runs import Result
from outthink.types import Trace

_HANDED = re.compile(r"after \d+ samples: (.+)", re.DOTALL)  # what the planner notes where it goes over to a strategy
ENDED = "all that the plan ended"
"""Those on which it went over to nothing else."""

_OUTSIDE = "outside of what the plan was fitted on"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanChoice:
    """Problems on which the same was done.

    Args:
        what: in words.
        problems: how many.
        said: mean gain that the plan said, in [-1, 1]; NaN where it says nothing.
        gained: the least and the most that was gained on average, by the credit; NaN where none is graded.
        accuracy: mean credit and its 95% interval.
        tokens: mean of a problem.
    """

    what: str
    problems: int
    said: float
    gained: tuple[float, float]
    accuracy: tuple[float, float, float]
    tokens: float


def choices(results: Iterable[Result]) -> list[PlanChoice]:
    """What was done most often first, then all that the plan ended; of other strategies than `auto` nothing.

    Only the last is a fair test of what was said: in which group a problem is depends on it.
    """
    groups: dict[str, list[tuple[Trace, float | None]]] = {}
    for result in results:
        if result.trace is not None and result.trace.strategy.get("name") == "auto" and result.trace.rounds:
            groups.setdefault(_done(result.trace), []).append((result.trace, result.credit))
    made = [_choice(what, group) for what, group in groups.items()]
    ended = [row for group in groups.values() for row in group if not math.isnan(_said(row[0]))]
    whole = [_choice(ENDED, ended)] if ended and len(made) > 1 else []
    return [*sorted(made, key=lambda one: -one.problems), *whole]


def _choice(what: str, group: list[tuple[Trace, float | None]]) -> PlanChoice:
    graded = [(trace, credit) for trace, credit in group if credit is not None]
    gained = np.array([_gained(trace, credit) for trace, credit in graded]).reshape(-1, 2)
    said = [_said(trace) for trace, _ in group]
    return PlanChoice(
        what=what,
        problems=len(group),
        said=float(np.mean(said)),
        gained=(float(gained[:, 0].mean()), float(gained[:, 1].mean())) if len(gained) else (math.nan, math.nan),
        accuracy=mean_and_interval([credit for _, credit in graded]),
        tokens=float(np.mean([trace.cost["tokens"] for trace, _ in group])),
    )


def _done(trace: Trace) -> str:
    """How many samples of each model, and what it went over to."""
    drawn: dict[str, int] = {}
    for call in trace.calls:
        if call.kind == "sample":
            drawn[call.role] = drawn.get(call.role, 0) + call.n
    handed = next((there[1] for note in trace.notes if (there := _HANDED.fullmatch(note))), None)
    if handed is not None:
        return f"went over to {handed}"
    whose = {role: f" of the {role}" if len(drawn) > 1 or role != "model" else "" for role in drawn}
    parts = [f"{n} {'sample' if n == 1 else 'samples'}{whose[role]}" for role, n in sorted(drawn.items())]
    outside = ", by agreement" if any(_OUTSIDE in note for note in trace.notes) else ""
    return " and ".join(parts) + outside if parts else "nothing was drawn"


def _said(trace: Trace) -> float:
    """What the plan said was gained; of another strategy, and of agreement, the confidence is no chance of a plan."""
    first, last = trace.rounds[0].confidence, trace.rounds[-1].confidence
    other = any(_HANDED.fullmatch(note) or _OUTSIDE in note for note in trace.notes)
    if "plan" not in trace.resources or other or first is None or last is None:
        return math.nan
    return last - first


def _gained(trace: Trace, credit: float) -> tuple[float, float]:
    first = trace.rounds[0].key
    if first == trace.key:
        return 0.0, 0.0
    if first is None or credit >= 1:  # no answer is never right, and the right answer was not the first
        return credit, credit
    return credit - 1.0, credit
