"""Searches a space of settings for the one that scores best: propose, repair or refuse, evaluate, keep in an archive.

Who proposes is a matter of its own: see `proposing` and `agents`.

Source: the loops that Archon (2409.15254), AgentTTS (2508.00890) and Agent-REINFORCE (2511.00086) have in common, by
notes on them. Differs: a setting that was evaluated is not evaluated again, and costs no evaluation; the best of all is
returned, which of several equal ones is the cheapest, and not the last one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from outthink.errors import UsageError

Point = tuple[int, ...]
"""The place of a value on each axis."""

_FRUITLESS = 500  # proposals in a row, after which a search ends: what is not allowed or known costs no evaluation
_AGAIN = 5  # of the best, that are scored again


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """Axes with so many values each, in an order that means something.

    Args:
        sizes: values of each axis; at least 1.
        allowed: whether a point keeps the rules and the budget.
        cost: of a point; of equal scores the cheaper point is the better one.
        repaired: an allowed point near one that is not, or None; without it what is not allowed is dropped.
        logits: of the values of each axis, from which chance draws; none: all allowed points are equally likely.
        stages: (axis of the model, axis of the amount) of each stage of a pipeline; for `insights` and agents.
        values: what the values of each axis stand for, where a language model is to read them.
        most: the budget, in the unit of `cost`.
    """

    sizes: tuple[int, ...]
    allowed: Callable[[Point], bool]
    cost: Callable[[Point], float]
    repaired: Callable[[Point], Point | None] | None = None
    logits: tuple[tuple[float, ...], ...] = ()
    stages: tuple[tuple[int, int], ...] = ()
    values: tuple[tuple[Any, ...], ...] = ()
    most: float = float("inf")

    def within(self, point: Point) -> Point | None:
        """What is evaluated for a proposal; None: nothing."""
        if self.allowed(point):
            return point
        return None if self.repaired is None else self.repaired(point)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchTrial:
    """A point that was evaluated, and its score; None: it has none."""

    point: Point
    score: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """A space and what is known of it so far, in the order of the evaluations."""

    space: SearchSpace
    known: dict[Point, float | None] = field(default_factory=dict)

    def score(self, proposed: Point) -> float | None:
        """Of what was evaluated for a proposal."""
        point = self.space.within(proposed)
        return None if point is None else self.known.get(point)

    @property
    def trials(self) -> list[SearchTrial]:
        """Everything that was evaluated."""
        return [SearchTrial(point=point, score=score) for point, score in self.known.items()]

    def ranked(self) -> list[SearchTrial]:
        """What has a score, best first; of equal scores the cheaper comes first, then the earlier."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return sorted(scored, key=lambda trial: (-(trial.score or 0.0), self.space.cost(trial.point)))


Propose = Callable[[Archive], AsyncIterator[Point]]
"""What proposes points one after the other; when it goes on, the archive has what came of the last one."""


async def searched(
    space: SearchSpace,
    evaluate: Callable[[Point], Awaitable[float | None]],
    propose: Propose,
    *,
    evaluations: int,
) -> list[SearchTrial]:
    """The trials in their order: at most so many different points, fewer where no more are proposed.

    Raises UsageError where no point is allowed.
    """
    if evaluations < 1:
        raise UsageError(f"evaluations must be at least 1, not {evaluations}.")
    archive, fruitless = Archive(space=space), 0
    async for proposal in propose(archive):
        point = space.within(proposal)
        fruitless += 1
        if point is not None and point not in archive.known:
            archive.known[point] = await evaluate(point)
            fruitless = 0
        if len(archive.known) == evaluations or fruitless == _FRUITLESS:
            break
    if not archive.known:
        raise UsageError("No setting is within the budget: allow more.")
    return archive.trials


def best_trial(space: SearchSpace, trials: Sequence[SearchTrial]) -> SearchTrial:
    """The best score; of equal ones the cheapest, then the earliest. Raises UsageError where none has a score."""
    ranked = Archive(space=space, known={trial.point: trial.score for trial in trials}).ranked()
    if not ranked:
        raise UsageError("No setting could be evaluated.")
    return ranked[0]


async def scored_again(
    space: SearchSpace, trials: Sequence[SearchTrial], evaluate: Callable[[Point], Awaitable[float | None]]
) -> list[SearchTrial]:
    """The best few trials with fresh scores, for scores of few questions say little, and the best of many flatter."""
    ranked = Archive(space=space, known={trial.point: trial.score for trial in trials}).ranked()
    return [SearchTrial(point=trial.point, score=await evaluate(trial.point)) for trial in ranked[:_AGAIN]]
