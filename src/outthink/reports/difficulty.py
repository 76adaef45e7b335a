"""Problems of a run or pool in bins of difficulty, from the hardest to the easiest: how many, how right, how dear.

Source: Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally" (five quantile bins), read in the text of the
paper. Differs: a run's problems are cut by how far its samples agree, which needs no right answers; a pool's by the
share of right samples, as in the paper.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outthink.maths.intervals import mean_and_interval
from outthink.maths.quantiles import quantile_edges
from outthink.records.runs import Result
from outthink.types import Trace

BINS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class DifficultyBin:
    """Problems that are about as easy.

    Args:
        low, high: the least and the greatest ease in it, in [0, 1].
        problems: how many.
        accuracy: mean credit and its 95% interval; NaN where none is graded.
        tokens: mean of a problem; NaN where that is not known.
    """

    low: float
    high: float
    problems: int
    accuracy: tuple[float, float, float]
    tokens: float


def agreement_of(trace: Trace) -> float | None:
    """The share of the most frequent answer among those that were read; None where there are not two to compare."""
    counts = Counter(one.key for one in trace.candidates if one.complete and one.key is not None and not one.problem)
    total = sum(counts.values())
    return max(counts.values()) / total if total > 1 else None


def difficulty_row(result: Result) -> tuple[float, float, float] | None:
    """Agreement, credit or NaN, and tokens of a problem of a run; None where its samples cannot be compared."""
    share = None if result.trace is None else agreement_of(result.trace)
    if share is None or result.trace is None:
        return None
    credit = math.nan if result.credit is None else result.credit
    return share, credit, result.trace.cost.get("tokens", math.nan)


def difficulty_bins(rows: Sequence[tuple[float, float, float]]) -> list[DifficultyBin]:
    """Quantile bins of (ease, credit or NaN, tokens or NaN); fewer than five where many problems are as easy."""
    if not rows:
        return []
    ease, credit, tokens = np.array(rows, dtype=float).T
    number = np.searchsorted(quantile_edges(ease, BINS), ease, side="right")
    bins = []
    for here in (number == place for place in np.unique(number)):
        graded = credit[here][~np.isnan(credit[here])]
        bins.append(
            DifficultyBin(
                low=float(ease[here].min()),
                high=float(ease[here].max()),
                problems=int(here.sum()),
                accuracy=mean_and_interval(graded.tolist()),
                tokens=float(tokens[here].mean()),
            )
        )
    return bins
