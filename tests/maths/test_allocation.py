"""One budget over many problems: the best total, against every way to share it out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.maths.allocation import allocate


def total(gains: list[list[float]], taken: list[int]) -> float:
    return sum(sum(line[:units]) for line, units in zip(gains, taken, strict=True))


def test_by_hand() -> None:
    gains = [(0.5, 0.2, 0.1), (0.3, 0.25, 0.05)]
    assert allocate(gains, 3).tolist() == [1, 2]
    pieces = [[0, 0, 1.5], [0, 0.9], [0, 0.9]]  # a piece of three leaves a unit that buys nothing
    assert total(pieces, allocate(pieces, 4).tolist()) == pytest.approx(1.8)


def test_it_looks_behind_a_step_without_gain() -> None:
    assert allocate([(0.0, 0.6)], 2).tolist() == [2]
    assert allocate([(0.0, 0.6)], 1).tolist() == [0]
    assert allocate([(0.0, 0.6), (0.2, 0.1)], 2).tolist() == [2, 0]
    assert allocate([(0.0, 0.3), (0.2, 0.2)], 2).tolist() == [0, 2]
    assert allocate([(-0.1, 0.0)], 5).tolist() == [0]
    assert allocate([], 5).tolist() == []
    assert allocate([(1.0,), (2.0,)], 0).tolist() == [0, 0]
    with pytest.raises(ValueError, match="at least 0"):
        allocate([(1.0,)], -1)


@given(
    st.lists(st.lists(st.integers(-9, 50), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(0, 8),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_it_is_the_optimum(lines: list[list[float]], budget: int, falling: bool) -> None:
    gains = [sorted(line, reverse=True) if falling else line for line in lines]
    taken = allocate(gains, budget).tolist()
    assert sum(taken) <= budget
    ways = itertools.product(*(range(len(line) + 1) for line in gains))
    assert total(gains, taken) == max(total(gains, list(way)) for way in ways if sum(way) <= budget)
