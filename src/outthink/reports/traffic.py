"""Did it help? Two ways of answering the same requests of a server, by gold, a judge or what callers have said.

Pairs enter where both have a credit. Intervals are 95% over requests, as in `reports.report`; those of keys and days
are each for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from outthink.maths.intervals import Estimate, mean_and_interval
from outthink.records.runs import Result, read_settings, strategy_named
from outthink.reports.report import agreement


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One run beside another on the requests that have a credit in both.

    Args:
        requests: how many these are; pairs: how many both have tried.
        better, worse: share of requests with a higher and with a lower credit than the base, with 95% intervals.
        difference: mean credit less that of the base.
        cost: mean cost over that of the base, by unit, as in `Agreement`.
    """

    requests: int
    pairs: int
    better: Estimate
    worse: Estimate
    difference: Estimate
    cost: Mapping[str, Estimate]


def judged(run: Iterable[Result], base: Iterable[Result]) -> Judged:
    """The run beside the base, request by request."""
    there = {result.problem: result for result in base}
    pairs = [(mine, there[mine.problem]) for mine in run if mine.problem in there]
    known = [(mine, other) for mine, other in pairs if mine.credit is not None and other.credit is not None]
    apart = [float(mine.credit or 0.0) - float(other.credit or 0.0) for mine, other in known]
    return Judged(
        requests=len(known),
        pairs=len(pairs),
        better=mean_and_interval([float(one > 0) for one in apart]),
        worse=mean_and_interval([float(one < 0) for one in apart]),
        difference=mean_and_interval(apart, least=-1.0),
        cost=agreement([mine for mine, _ in known], [other for _, other in known]).cost,
    )


def by_key(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by the name of the key that asked, by name; those without a key are not there."""
    return _grouped((result.owner, result) for result in results)


def by_day(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by the day (UTC) on which they were answered, in order; those that do not tell are not there."""
    return _grouped(
        (None if one.ended is None else datetime.fromtimestamp(one.ended, UTC).date().isoformat(), one)
        for one in results
    )


def _grouped(named: Iterable[tuple[str | None, Result]]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for name, result in named:
        if name is not None:
            groups.setdefault(name, []).append(result)
    return dict(sorted(groups.items()))


def is_traffic(run: Path) -> bool:
    """Whether a run is what a server has recorded, or such a one graded."""
    return read_settings(run).get("kind") == "traffic"


def told_by(run: Path) -> str:
    """Who has said what is right in a run, for people."""
    graded = read_settings(run).get("graded") or []
    names = [
        f"the judge {one['judge']}" if "judge" in one else "callers' feedback" if "feedback" in one else "right answers"
        for one in graded
    ]
    return " and ".join(dict.fromkeys(names)) or "callers' feedback"


def strategy_of(run: Path) -> str:
    """What the run answers with, for people."""
    return strategy_named(read_settings(run))


def judged_sentence(names: tuple[str, str], told: Judged, by: str) -> str:
    """The first thing to be said, for those who pay."""
    cost = [
        f"{ratio:.2g} times the {unit}" + ("" if math.isnan(low) else f" ({low:.2g} to {high:.2g})")
        for unit, (ratio, low, high) in told.cost.items()
    ]
    some = "" if told.requests == told.pairs else f" of {told.pairs:,}"
    return (
        f"On {told.requests:,}{some} requests {names[0]} was judged better than {names[1]} on {_points(told.better)} "
        f"and worse on {_points(told.worse)}" + (f", at {' and '.join(cost)}" if cost else "") + f"; judged by {by}."
    )


GROUPS = ("", "requests", "better (95%)", "worse (95%)", "difference, points", "times the tokens")


def group_rows(groups: Mapping[str, Judged]) -> Sequence[tuple[str, ...]]:
    """A row for each key or day: what GROUPS names."""
    return [
        (
            name,
            f"{told.requests:,}",
            _points(told.better),
            _points(told.worse),
            "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * one for one in told.difference)) if told.requests else "-",
            "{:.2g} ({:.2g} to {:.2g})".format(*told.cost["tokens"]) if "tokens" in told.cost else "-",
        )
        for name, told in groups.items()
    ]


def _points(share: Estimate) -> str:
    value, low, high = share
    return "-" if math.isnan(value) else f"{100 * value:.0f}% ({100 * low:.0f} to {100 * high:.0f})"
