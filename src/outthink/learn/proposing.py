"""Who proposes the next setting of a search: chance, Optuna, policy gradients, or the insights of AgentTTS as a rule.

`random` is the baseline that the others must beat. `tpe` models what scored well. `reinforce` learns the odds of the
values of each axis from the scores of small batches. `insights` goes by what AgentTTS says of pipelines: each stage has
a model that suits it, each has an amount beyond which more hurts, and a stage that changed moves what is best for its
neighbours.

Source: architecture search of Archon (2409.15254), AgentTTS (2508.00890), the baseline of Agent-REINFORCE (2511.00086),
by notes on them. Differs: `tpe` is Optuna's tree-structured Parzen estimator where Archon takes a Gaussian process, and
is not told that what is over the budget scores worst, which would be most of what it learns from; `insights` asks no
language model, `agents` does; `reinforce` takes the mean of a batch off its scores.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from outthink.errors import MissingResource, UsageError
from outthink.learn.search import Archive, Point, Propose, SearchSpace
from outthink.rng import generator, library_seed

By = Literal["random", "tpe", "reinforce", "insights"]

_ENUMERATED = 20_000  # points
_STARTUP = 10  # points by chance before `tpe` goes by its model, as Optuna has it
_BATCH = 3  # of `reinforce`
_RATE = 0.1  # of Adam, as in the source's baseline


def proposer(by: By, seed: int = 0) -> Propose:
    """The proposer of a name; the same seed and scores give the same proposals.

    Raises MissingResource where it needs Optuna and that is not installed.
    """
    if by == "tpe":
        _optuna()  # else a search would have paid for what comes before its first proposal
    propose = {"random": by_chance, "tpe": _tpe, "reinforce": _reinforce, "insights": _insights}[by]

    async def proposing(archive: Archive) -> AsyncIterator[Point]:
        for point in propose(archive, seed):
            yield point

    return proposing


def by_chance(archive: Archive, seed: int) -> Iterator[Point]:
    """Points by the logits of the space; without any allowed ones, each equally likely, none twice where listed."""
    space, rng = archive.space, generator(seed, 1)
    if space.logits:
        odds = [softmax(np.array(axis)) for axis in space.logits]
        while True:
            yield drawn(odds, rng)
    if math.prod(space.sizes) <= _ENUMERATED:
        points = [point for point in itertools.product(*map(range, space.sizes)) if space.allowed(point)]
        yield from (points[place] for place in rng.permutation(len(points)))
        return
    while True:
        yield tuple(int(rng.integers(size)) for size in space.sizes)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (values,)."""
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def drawn(odds: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> Point:
    """A value of each axis by its probabilities."""
    chances = rng.random(len(odds)).tolist()
    return tuple(
        next((value for value, upto in enumerate(itertools.accumulate(one.tolist())) if chance < upto), len(one) - 1)
        for one, chance in zip(odds, chances, strict=True)
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingResource("The search tpe needs Optuna: pip install 'outthink[search]'.") from None
    return optuna


def _tpe(archive: Archive, seed: int) -> Iterator[Point]:
    """Optuna's proposals; it is told nothing of what is not allowed."""
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = archive.space
    sampler = optuna.samplers.TPESampler(seed=library_seed(seed), multivariate=True, n_startup_trials=_STARTUP)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    names = [f"{place:02}" for place in range(len(space.sizes))]
    axes = {
        name: optuna.distributions.IntDistribution(0, size - 1) for name, size in zip(names, space.sizes, strict=True)
    }
    if space.logits:  # else it begins far from where chance does
        for point in itertools.islice(by_chance(archive, seed), _STARTUP):
            study.enqueue_trial(dict(zip(names, point, strict=True)))
    while True:
        trial = study.ask(axes)
        point = tuple(int(trial.params[name]) for name in names)
        yield point
        score = archive.score(point)
        if score is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, score)


def policy_gradient(
    odds: Sequence[NDArray[np.float64]], points: Sequence[Point], scores: Sequence[float]
) -> list[NDArray[np.float64]]:
    """Of the mean score by the logits of each axis: the mean of (score - mean score) x grad log probability.

    Args:
        odds: probabilities (values,) of each axis, by which the points were drawn.

    Its expectation is (n - 1) / n of the true gradient, for n points, since each is part of the mean.
    """
    better = np.array(scores) - np.mean(scores)
    places = np.array(points)
    return [
        np.asarray((better[:, None] * (np.eye(len(one))[places[:, axis]] - one)).mean(0))
        for axis, one in enumerate(odds)
    ]


def _reinforce(archive: Archive, seed: int) -> Iterator[Point]:
    """Batches by the odds so far, each followed by one step of Adam on the logits."""
    space, rng = archive.space, generator(seed, 2)
    logits = [np.array(axis, float) for axis in space.logits or [(0.0,) * size for size in space.sizes]]
    first = [np.zeros_like(axis) for axis in logits]
    second = [np.zeros_like(axis) for axis in logits]
    for step in itertools.count(1):
        odds = [softmax(axis) for axis in logits]
        batch: list[tuple[Point, float]] = []
        while len(batch) < _BATCH:
            yield (point := drawn(odds, rng))
            if (score := archive.score(point)) is not None:
                batch.append((point, score))
        for axis, slope in enumerate(policy_gradient(odds, *zip(*batch, strict=True))):
            first[axis] = 0.9 * first[axis] + 0.1 * slope
            second[axis] = 0.999 * second[axis] + 0.001 * slope**2
            mean, spread = first[axis] / (1 - 0.9**step), second[axis] / (1 - 0.999**step)
            logits[axis] = logits[axis] + _RATE * mean / (np.sqrt(spread) + 1e-8)


def _insights(archive: Archive, seed: int) -> Iterator[Point]:
    """First every model in every stage, then around the best point, beginning beside the stage that changed last."""
    yield from every_model(archive)
    space, known = archive.space, archive.known
    changed, before = 0, _best(space, known)
    while True:
        best = _best(space, known)
        changed = next((place for place, stage in enumerate(space.stages) if _differs(best, before, stage)), changed)
        before = best
        fresh = next((p for p in _around(space, best, changed) if p not in known and space.allowed(p)), None)
        if fresh is None:
            break
        yield fresh
    yield from by_chance(archive, seed)


def every_model(archive: Archive) -> Iterator[Point]:
    """For each stage each model with as much as fits, the others the largest model once; then the winners together.

    Raises UsageError where the space is no pipeline.
    """
    space, known = archive.space, archive.known
    if not space.stages:
        raise UsageError("This search needs a pipeline whose stages have a model and an amount each.")
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
    yield lowered(space, tuple(chosen))


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


def lowered(space: SearchSpace, point: Point) -> Point:
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
