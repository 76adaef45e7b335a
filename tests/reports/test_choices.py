"""Bins of difficulty, and what auto chose: worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from outthink.records.runs import Result
from outthink.reports.choices import ENDED, choices
from outthink.reports.difficulty import agreement_of, difficulty_bins, difficulty_row
from outthink.types import Candidate, Round, Trace
from tests.tools.recorded import trace_of


def auto(
    first: str | None,
    last: str | None,
    said: tuple[float, float] = (0.5, 0.75),
    *notes: str,
    n: int = 2,
) -> Trace:
    """A trace of auto that answered `first`, then `last`."""
    trace = trace_of("p", ["1"] * n, notes=notes)
    rounds = tuple(
        Round(candidates=(), answer=key, key=key, confidence=chance)
        for key, chance in zip((first, last), said, strict=True)
    )
    return replace(trace, strategy={"name": "auto"}, resources={"model": "m", "plan": "x"}, rounds=rounds)


def test_what_auto_chose_is_counted_with_what_it_said_and_gained() -> None:
    """Where the last answer is wrong and the first was another, the first may have been right."""
    results = [
        Result(problem="a", credit=1.0, trace=auto("1", "1")),  # gained nothing
        Result(problem="b", credit=1.0, trace=auto("1", "2")),  # the first was wrong
        Result(problem="c", credit=0.0, trace=auto("1", "2", (0.5, 0.25))),  # lost one, or nothing
        Result(problem="d", credit=0.0, trace=auto(None, "2")),  # nothing was there to lose
        Result(problem="e", credit=None, trace=auto("1", "2")),
        Result(problem="f", credit=1.0, trace=auto("1", "1", (0.5, 0.5), n=3)),
        Result(problem="g", credit=0.0, trace=auto("1", "1", (0.5, 0.9), "price 1", "after 2 samples: beam?width=4")),
        Result(problem="h", credit=0.0, trace=None),
        Result(problem="i", credit=1.0, trace=trace_of("i", ["1"])),  # of another strategy
    ]
    two, *others = choices(results)
    assert (two.what, two.problems) == ("2 samples", 5)
    assert two.said == pytest.approx((4 * 0.25 - 0.25) / 5)
    assert two.gained == pytest.approx(((0 + 1 - 1 + 0) / 4, (0 + 1 + 0 + 0) / 4))
    assert two.accuracy[0] == 0.5
    three, beam = sorted(others[:-1], key=lambda one: one.what)
    assert (others[-1].what, others[-1].problems) == (ENDED, 6)
    assert others[-1].said == pytest.approx((4 * 0.25 - 0.25 + 0.0) / 6)
    assert (three.what, three.gained, three.said) == ("3 samples", (0.0, 0.0), 0.0)
    assert (beam.what, beam.problems) == ("went over to beam?width=4", 1)
    assert math.isnan(beam.said)  # its confidence is no chance of the plan


def test_difficulty_is_how_far_samples_agree() -> None:
    def keyed(*keys: str | None) -> Trace:
        candidates = tuple(
            Candidate(address=("model", 0, place), text="x", answer=key, key=key) for place, key in enumerate(keys)
        )
        return replace(trace_of("p", ["1"]), candidates=candidates)

    assert agreement_of(keyed("1", "1", "2", None)) == 2 / 3
    assert agreement_of(keyed("1", None)) is None
    assert difficulty_row(Result(problem="p", credit=None, trace=keyed("1", "1"))) == pytest.approx(
        (1.0, math.nan, 4.0), nan_ok=True
    )
    rng = np.random.default_rng(0)
    rows = [(float(ease), float(rng.random() < ease), 10.0) for ease in rng.random(500)]
    bins = difficulty_bins(rows)
    assert [one.problems for one in bins] == [100] * 5
    assert all(low.high < high.low for low, high in pairwise(bins))
    assert [one.accuracy[0] for one in bins] == sorted(one.accuracy[0] for one in bins)
    assert difficulty_bins([(1.0, 1.0, 3.0)] * 7)[0].problems == 7
    assert difficulty_bins([]) == []
