"""One budget of whole units over many problems, when it is known what each gains by how many: the best total there is.

Source: the multiple-choice knapsack by dynamic programming, and its greedy solution where gains fall (Fox 1966), from
memory. Differs: units that lose are never bought, and of equal totals the one with fewer units is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def allocate(gains: Sequence[ArrayLike], budget: int) -> NDArray[np.intp]:
    """How many units each problem gets (problems,), so that their total gain is the largest that the budget buys.

    Where the gains of every problem fall it takes time in proportion to their number, else to that times the budget.

    Args:
        gains: of each problem, what it gains by its first, second ... unit; any numbers.
        budget: units, at least 0.
    """
    if budget < 0:
        raise ValueError(f"the budget must be at least 0, not {budget}")
    lines = [np.asarray(line, dtype=float)[:budget] for line in gains]
    if all((np.diff(line) <= 0).all() for line in lines):
        return _greedy(lines, budget)
    return _table(lines, min(budget, sum(line.size for line in lines)))


def _greedy(lines: Sequence[NDArray[np.float64]], budget: int) -> NDArray[np.intp]:
    """The largest gains there are; those of a problem come in their order, since they fall."""
    owner = np.repeat(np.arange(len(lines)), [line.size for line in lines])
    each = np.concatenate([*lines, np.empty(0)])
    best = np.argsort(-each, kind="stable")[:budget]
    return np.bincount(owner[best][each[best] > 0], minlength=len(lines)).astype(np.intp)


def _table(lines: Sequence[NDArray[np.float64]], budget: int) -> NDArray[np.intp]:
    """For each problem after the other, the best total of every budget, and how many of its units that takes."""
    total = np.zeros(budget + 1)
    taken = np.zeros((len(lines), budget + 1), dtype=np.intp)
    for row, line in enumerate(lines):
        before, sums = total.copy(), np.cumsum(line)
        for units, gained in enumerate(sums, start=1):
            with_them = before[: budget + 1 - units] + gained
            better = with_them > total[units:] + _TIE
            total[units:][better] = with_them[better]
            taken[row, units:][better] = units
    counts, left = np.zeros(len(lines), dtype=np.intp), int(np.flatnonzero(total >= total.max() - _TIE)[0])
    for row in range(len(lines) - 1, -1, -1):
        counts[row] = taken[row, left]
        left -= counts[row]
    return counts


_TIE = 1e-12  # totals that differ by less are equal
