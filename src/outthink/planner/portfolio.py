"""One budget over many problems: each gets what it is expected to gain most by, at one price for all.

Source: the classic allocation by equal marginal gain (the greedy solution of concave resource allocation, see
`maths.allocation`). Differs: the price is found while it is spent, from what is left for the problems that are left; a
hard limit stands behind it.
"""

from __future__ import annotations

import asyncio

_WIDE = 5.0  # times the mean of what is left that a single problem may take at most
_STILL = 0.4  # of the limits of what runs is counted as spent: what runs long is what will cost much
_MOST = 1.2  # times the first share: a price that rises late would have been too low before
_ENOUGH = 3.0  # times the mean that a problem has to be allowed, or it waits
_MARGIN = 4  # problems for which the worst first sample is kept, since the last ones cannot wait for luck


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
