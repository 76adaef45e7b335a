"""Searches a space of settings for the one that scores best, with a limit to how many are evaluated.

`random` is the baseline that the others must beat. `tpe` models what scored well. `insights` goes by what AgentTTS
found of pipelines: each stage has a model that suits it, each has an amount beyond which more hurts, and a stage that
changed moves what is best for its neighbours.

Source: architecture search of Archon (2409.15254), AgentTTS (2508.00890), by notes on both. Differs: `tpe` is Optuna's
tree-structured Parzen estimator where Archon takes a Gaussian process, and is not told that what is over the budget
scores worst, which would be most of what it learns from; `insights` is a rule where AgentTTS asks a language model,
which reads the same insights; a setting that was evaluated is not evaluated again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from outthink.errors import MissingResource, UsageError

Point = tuple[int, ...]
"""The place of a value on each axis."""

By = Literal["random", "tpe", "insights"]
_TRIES = 200  # proposals for one evaluation, at most: what is not allowed or known costs none
_ENUMERATED = 20_000  # points


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """Axes with so many values each, in an order that means something.

    Args:
        sizes: values of each axis; at least 1.
        allowed: whether a point keeps the rules and the budget.
        cost: of a point; of equal scores the cheaper point is the better one.
        stages: (axis of the model, axis of the amount) of each stage of a pipeline; for `insights`.
    """

    sizes: tuple[int, ...]
    allowed: Callable[[Point], bool]
    cost: Callable[[Point], float]
    stages: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchTrial:
    """A point that was evaluated, and its score; None: it has none."""

    point: Point
    score: float | None


Ask = Iterator[Point]


async def searched(
    space: SearchSpace,
    evaluate: Callable[[Point], Awaitable[float | None]],
    *,
    by: By,
    evaluations: int,
    seed: int = 0,
) -> list[SearchTrial]:
    """The trials in their order: at most so many different points, fewer where no more are proposed.

    The same seed and scores give the same trials. Raises UsageError where no point is allowed, and MissingResource
    where Optuna is not installed.
    """
    if evaluations < 1:
        raise UsageError(f"evaluations must be at least 1, not {evaluations}.")
    known: dict[Point, float | None] = {}
    propose = {"random": _random, "tpe": _tpe, "insights": _insights}[by](space, known, seed)
    for point in itertools.islice(propose, _TRIES * evaluations):
        if point not in known and space.allowed(point):
            known[point] = await evaluate(point)
            if len(known) == evaluations:
                break
    if not known:
        raise UsageError("No setting is within the budget: allow more.")
    return [SearchTrial(point=point, score=score) for point, score in known.items()]


def best_trial(space: SearchSpace, trials: Sequence[SearchTrial]) -> SearchTrial:
    """The best score; of equal ones the cheapest, then the earliest. Raises UsageError where none has a score."""
    scored = [(trial.score, trial) for trial in trials if trial.score is not None]
    if not scored:
        raise UsageError("No setting could be evaluated.")
    return max(scored, key=lambda pair: (pair[0], -space.cost(pair[1].point)))[1]


def _random(space: SearchSpace, known: dict[Point, float | None], seed: int) -> Ask:
    """Allowed points, each equally likely, none twice where they can be listed."""
    rng = np.random.default_rng([seed, 1])
    if math.prod(space.sizes) <= _ENUMERATED:
        points = [point for point in itertools.product(*map(range, space.sizes)) if space.allowed(point)]
        yield from (points[place] for place in rng.permutation(len(points)))
        return
    while True:
        yield tuple(int(rng.integers(size)) for size in space.sizes)


def _tpe(space: SearchSpace, known: dict[Point, float | None], seed: int) -> Ask:
    """Optuna's proposals; it is told nothing of what is not allowed."""
    try:
        import optuna
    except ImportError:
        raise MissingResource("The search tpe needs Optuna: pip install 'outthink[search]'.") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    names = [f"{place:02}" for place in range(len(space.sizes))]
    axes = {
        name: optuna.distributions.IntDistribution(0, size - 1) for name, size in zip(names, space.sizes, strict=True)
    }
    while True:
        trial = study.ask(axes)
        point = tuple(int(trial.params[name]) for name in names)
        yield point
        score = known.get(point)
        if score is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, score)


def _insights(space: SearchSpace, known: dict[Point, float | None], seed: int) -> Ask:
    """First every model in every stage, then around the best point, beginning beside the stage that changed last."""
    if not space.stages:
        raise UsageError("The search insights needs a pipeline whose stages have a model and an amount each.")
    base = _start(space)
    chosen = [*base]
    for model, amount in space.stages:
        tried = []
        for value in range(space.sizes[model]):
            point = _with(base, model, value, amount, _most(space, base, model, value, amount))
            yield point
            if (score := known.get(point)) is not None:
                tried.append((score, point))
        if tried:
            winner = max(tried, key=lambda pair: pair[0])[1]
            chosen[model], chosen[amount] = winner[model], winner[amount]
    yield _within(space, tuple(chosen))
    changed, before = 0, _best(space, known)
    while True:
        best = _best(space, known)
        changed = next((place for place, stage in enumerate(space.stages) if _differs(best, before, stage)), changed)
        before = best
        fresh = next((p for p in _around(space, best, changed) if p not in known and space.allowed(p)), None)
        if fresh is None:
            break
        yield fresh
    yield from _random(space, known, seed)


def _start(space: SearchSpace) -> Point:
    """The last model of each stage with the least amount, or the first allowed one below it."""
    models = [model for model, _ in space.stages]
    for down in range(max(space.sizes[model] for model in models)):
        point = [0] * len(space.sizes)
        for model in models:
            point[model] = max(space.sizes[model] - 1 - down, 0)
        if space.allowed(tuple(point)):
            return tuple(point)
    return (0,) * len(space.sizes)


def _with(point: Point, *changes: int) -> Point:
    """The point with other values: axis, value, axis, value ..."""
    other = [*point]
    for axis, value in zip(changes[::2], changes[1::2], strict=True):
        other[axis] = value
    return tuple(other)


def _most(space: SearchSpace, base: Point, model: int, value: int, amount: int) -> int:
    """The largest amount that is allowed with this model; 0 where none is."""
    fits = [n for n in range(space.sizes[amount]) if space.allowed(_with(base, model, value, amount, n))]
    return max(fits, default=0)


def _within(space: SearchSpace, point: Point) -> Point:
    """The point, its largest amounts lowered until it is allowed."""
    while not space.allowed(point):
        _, amount = max(space.stages, key=lambda stage: point[stage[1]])
        if point[amount] == 0:
            return point
        point = _with(point, amount, point[amount] - 1)
    return point


def _best(space: SearchSpace, known: dict[Point, float | None]) -> Point:
    scored = [(score, -space.cost(point), -place, point) for place, (point, score) in enumerate(known.items())
              if score is not None]  # fmt: skip
    return max(scored)[3] if scored else (0,) * len(space.sizes)


def _differs(one: Point, other: Point, stage: tuple[int, int]) -> bool:
    return any(one[axis] != other[axis] for axis in stage)


def _around(space: SearchSpace, best: Point, changed: int) -> Iterator[Point]:
    """Neighbours of a point, the stages next to the changed one first: amounts, then models, then what is moved."""
    stages = sorted(range(len(space.stages)), key=lambda place: (place == changed, abs(place - changed), place))
    for place in stages:
        model, amount = space.stages[place]
        for step in (-1, 1):
            if 0 <= best[amount] + step < space.sizes[amount]:
                yield _with(best, amount, best[amount] + step)
        for value in sorted(set(range(space.sizes[model])) - {best[model]}, key=lambda value: abs(value - best[model])):
            for n in sorted(range(space.sizes[amount]), key=lambda n: abs(n - best[amount])):
                other = _with(best, model, value, amount, n)
                if space.allowed(other):
                    yield other
                    break
    for place, other_place in itertools.permutations(stages, 2):  # from one stage to another
        less, more = space.stages[place][1], space.stages[other_place][1]
        if best[less] > 0 and best[more] + 1 < space.sizes[more]:
            yield _with(best, less, best[less] - 1, more, best[more] + 1)
