"""Sample and cluster: n numeric answers, grouped by a tolerance; the middle answer of the largest group.

Source: Scaling Laws of Motion Forecasting and Planning, a technical report (2025); the abstract and an overview were
read, not the section on inference, so all but the idea is our design. Differs: numbers in place of trajectories.

Pays: for numeric answers that differ a little from sample to sample. With tolerance 0 it is the vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from outthink.answers.canonical import plain_number
from outthink.maths.clusters import gap_clusters, medoids, radius_clusters
from outthink.maths.selection import codes, majority
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.together import away, each
from outthink.types import Candidate, Problem

Rule = Literal["gap", "radius"]


def grouped(
    keys: Sequence[str | None], values: NDArray[np.float64], tolerance: float, rule: Rule = "gap"
) -> NDArray[np.intp]:
    """The group (n,) of each answer, -1 where there is none: numbers by the tolerance, all else by equal keys.

    Args:
        keys: canonical keys; None is INVALID.
        values: (n,) the answers as numbers; NaN where one is no number.
        tolerance: at least 0; at 0 all answers are grouped by equal keys.
    """
    by_key = codes(keys)
    number = ~np.isnan(values) & (by_key >= 0)
    if tolerance == 0 or not number.any():
        return by_key
    values = np.where(number, values, np.nan)
    if rule == "gap":
        near = gap_clusters(values, tolerance)
    else:
        near = radius_clusters(np.abs(values[:, None] - values), tolerance)
    return np.where(number, near, np.where(by_key >= 0, by_key + near.max() + 1, -1))


def largest_first(groups: NDArray[np.intp], lengths: Sequence[float]) -> list[int]:
    """The groups (n,), -1 being none, in the order in which votes among those that are left would choose them."""
    members = np.bincount(groups[groups >= 0], minlength=1)
    length = np.bincount(groups[groups >= 0], weights=np.asarray(lengths, float)[groups >= 0], minlength=1)
    first = np.full(len(members), len(groups))
    np.minimum.at(first, groups[groups >= 0], np.flatnonzero(groups >= 0))
    order = np.lexsort((first, length / np.maximum(members, 1), -members))
    return [int(group) for group in order if members[group]]


def _groups(
    keys: Sequence[str | None], values: NDArray[np.float64], tolerance: float, rule: Rule
) -> tuple[NDArray[np.intp], dict[int, int]]:
    """The group (n,) of each answer, and the place of the middle one of each group."""
    groups = grouped(keys, values, tolerance, rule)
    # inside a group that has no numbers all answers are equal
    middle = medoids(np.nan_to_num(np.abs(values[:, None] - values), nan=0.0), groups)
    return groups, {int(groups[index]): int(index) for index in middle}


@dataclass(frozen=True, kw_only=True)
class SampleAndCluster:
    """The representative of the largest group of n answers, by size and not by how likely it is to be right.

    Answers that are no numbers are grouped by equality. Representatives are answers that were given: the one nearest to
    all others of its group, and never a mean, which can lie between two good answers and be none.

    Args:
        n: samples drawn (S); at least 1.
        tolerance: answers so near to each other belong together (delta), in the units of the answer; at 0 it is
            self-consistency. With `gap` make it smaller for a larger n.
        k: most representatives (K), listed in the last round with the shares of their groups; the first one answers.
        rule: "gap" cuts the sorted answers at gaps wider than the tolerance, so that neighbours chain; "radius" takes
            the answer with most others within the tolerance and these with it, and so on.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    votes: ClassVar[bool] = True  # equal answers are what it goes by

    n: int = 16
    tolerance: float = 0.0
    k: int = 1
    rule: Rule = "gap"

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "k"))
        if not 0 <= self.tolerance < float("inf"):
            raise ValueError(f"tolerance must be at least 0 and finite, not {self.tolerance}")

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch; the groups are ranked as answers are in a vote."""
        samples = await model.sample(problem, self.n)
        numeric = problem.answer in ("math", "text", "chat")  # the labels of a choice are names
        values = np.array(await each(_number, samples)) if numeric else np.full(len(samples), np.nan)
        keys = [sample.key for sample in samples]
        groups, middle = await away(len(samples) ** 2, _groups, keys, values, self.tolerance, self.rule)
        lengths = [sample.tokens for sample in samples]
        leading, share = largest_first(groups, lengths), float(majority(groups).share)
        representatives = [samples[middle[group]] for group in leading[: self.k]]
        shares = [float((groups == group).mean()) for group in leading[: self.k]]
        if representatives:
            report(representatives, chosen=representatives[0], scores=shares, confidence=share)
        else:
            report(samples, chosen=None, confidence=share)


def _number(sample: Candidate) -> float:
    """The answer as a number; NaN where it is none, or too large for one."""
    exact = None if sample.answer is None else plain_number(sample.answer)
    try:
        return float("nan") if exact is None else float(exact)
    except OverflowError:
        return float("nan")
