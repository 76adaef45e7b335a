"""One budget over many problems: each gets what it is expected to gain most by, at one price for all.

Source: the classic allocation by equal marginal gain (the greedy solution of concave resource allocation). Differs: the
price is found while it is spent, from what is left for the problems that are left; a hard limit stands behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

_WIDE = 5.0  # times the mean of what is left that a single problem may take at most
_STILL = 0.4  # of the limits of what runs is counted as spent: what runs long is what will cost much
_MOST = 1.2  # times the first share: a price that rises late would have been too low before
_ENOUGH = 3.0  # times the mean that a problem has to be allowed, or it waits
_MARGIN = 4  # problems for which the worst first sample is kept, since the last ones cannot wait for luck


def allocate(gains: Sequence[Sequence[float]], budget: int) -> list[int]:
    """How many units each problem gets, where gains[p][k] is what problem p gains by its (k + 1)-th unit.

    Where the gains of each problem fall, it is the largest total gain. Where they do not, units are taken together as
    far as their mean gain rises (the concave hull). That is the best, except for what is left over where a whole piece
    does not fit.

    Args:
        gains: per unit of cost, any numbers; a unit that gains nothing is not bought.
        budget: units, at least 0.
    """
    if budget < 0:
        raise ValueError(f"the budget must be at least 0, not {budget}")
    pieces = []
    for problem, line in enumerate(gains):
        for start, end, slope in _hull(line):
            pieces.append((-slope, problem, start, end))
    taken = [0] * len(gains)
    left = budget
    for slope, problem, start, end in sorted(pieces):
        if slope >= 0 or taken[problem] != start or end - start > left:
            continue
        taken[problem], left = end, left - (end - start)
    return taken


def _hull(line: Sequence[float]) -> list[tuple[int, int, float]]:
    """Pieces (from, to, mean gain) of falling mean gain."""
    pieces: list[tuple[int, int, float]] = []
    for place, gain in enumerate(line):
        piece = (place, place + 1, float(gain))
        while pieces and pieces[-1][2] < piece[2]:
            start, end, slope = pieces.pop()
            length = piece[1] - start
            piece = (start, piece[1], (slope * (end - start) + piece[2] * (piece[1] - end)) / length)
        pieces.append(piece)
    return pieces


class Portfolio:
    """The budget of a whole run; what problems may cost is decided when they are begun.

    The limits of all that run at once never exceed what is left together, so the total is kept whatever happens. A
    problem waits for others to end where its own limit would be too small to choose by.

    Args:
        total: in one unit.
        problems: that are still to be solved.
        spent: before, by earlier attempts at the run.
        first: what a first sample is expected to cost; so much is kept for every problem that has not begun.
        worst: what a first sample can cost.
    """

    def __init__(
        self, total: float, problems: int, *, spent: float = 0.0, first: float = 0.0, worst: float = 0.0
    ) -> None:
        self._left = total - spent
        self._waiting = problems
        self._share = self._left / max(problems, 1)
        self._reserved = 0.0
        self._running = 0
        self._first, self._worst = first, max(first, worst)
        self._changed = asyncio.Event()

    async def begin(self) -> tuple[float, float]:
        """(mean, most): what the next problem may cost on average and at most; then `spend`, and `end`."""
        while True:
            others = self._waiting - 1
            mean = max(self._left - self._worst - _STILL * self._reserved, 0.0) / (others + 1)
            mean = min(mean, _MOST * self._share)
            kept = self._first * others + self._worst * min(others, _MARGIN)
            free = self._left - self._reserved
            most = max(min(free - kept, _WIDE * mean), min(free, self._worst))
            if not self._running or most >= max(_ENOUGH * mean, self._worst):
                break
            self._changed.clear()
            await self._changed.wait()
        self._waiting -= 1
        self._reserved += most
        self._running += 1
        return mean, most

    def spend(self, amount: float) -> None:
        """A problem that is running has been charged so much more; what is left for others is known at once."""
        self._left -= amount
        self._reserved -= amount

    def end(self, unspent: float) -> None:
        """A problem is done, with so much of its limit unspent; below 0 where it was charged more."""
        self._reserved -= unspent
        self._running -= 1
        self._changed.set()
