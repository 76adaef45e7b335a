"""Recorded pools as cases to learn from: for many random orders of the samples, every state that a policy can meet.

A state is (samples of the model, samples of the target): first the cheaper model's, then, once the dearer one has been
asked, only its own. The same orders serve every policy and every fixed strategy, so that differences are paired.

Source: replay of recorded samples, as in `reports.replay`. Differs: costs are counted in any unit that the shapes of
models and prices give, and two models are replayed together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.cost import charge
from outthink.errors import UsageError
from outthink.maths.selection import codes
from outthink.models.engine import EngineSpec
from outthink.planner.evidence import Floats, Seen, Vote, evidence
from outthink.planner.policy import LEVELS, State
from outthink.records.pools import PoolData, PoolProblem
from outthink.rng import generator
from outthink.types import Usage

SAMPLES = "samples"
"""The unit of what has no tokens: each sample costs 1, the prompt nothing."""

_ROWS = 40_000  # problems times orders
_AT_ONCE = 1 << 22  # numbers of one array of samples times samples


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Side:
    """The samples of one model, (problems, samples) each; `signals` NaN where missing.

    Args:
        paths: equal numbers are equal texts; each is its own where texts are unknown.
        complete: False where a sample was cut off.
        first, later: cost of a sample in the unit, scoring included, where it reads the prompt and where it finds it
            read.
    """

    keys: NDArray[np.intp]
    correct: NDArray[np.bool_]
    tokens: Floats
    paths: NDArray[np.intp]
    complete: NDArray[np.bool_]
    signals: Mapping[str, Floats]
    first: Floats
    later: Floats

    @property
    def samples(self) -> int:
        """Of each problem."""
        return int(self.keys.shape[1])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RecordedRun:
    """A strategy that was run live on the same problems: credit and cost of each, NaN where it was not run.

    `scorers` ("verifier", "prm") are what it was run with.
    """

    name: str
    credit: Floats
    cost: Floats
    scorers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Material:
    """What has been recorded of some problems, in one unit of cost.

    Args:
        prompt: (problems,) tokens, NaN where unknown.
        orders: (problems, orders, samples) of the model; `target_orders` of the target.
    """

    ids: tuple[str, ...]
    unit: str
    prompt: Floats
    model: Side
    target: Side | None
    orders: NDArray[np.intp]
    target_orders: NDArray[np.intp] | None
    runs: tuple[RecordedRun, ...] = ()
    signals: tuple[str, ...] = ()

    def select(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> Material:
        """Only some of the problems."""
        place = np.arange(len(self.ids))[which]
        return replace(
            self,
            ids=tuple(self.ids[index] for index in place),
            prompt=self.prompt[place],
            model=_part(self.model, place),
            target=None if self.target is None else _part(self.target, place),
            orders=self.orders[place],
            target_orders=None if self.target_orders is None else self.target_orders[place],
            runs=tuple(replace(run, credit=run.credit[place], cost=run.cost[place]) for run in self.runs),
        )

    def pieces(self) -> list[Material]:
        """The problems in parts that are small enough for arrays of samples times samples."""
        most = self.model.samples + (0 if self.target is None else self.target.samples)
        size = max(1, _AT_ONCE // (self.orders.shape[1] * most**2))
        if size >= len(self.ids):
            return [self]
        return [
            self.select(np.arange(start, min(start + size, len(self.ids)))) for start in range(0, len(self.ids), size)
        ]

    def states(self) -> list[State]:
        """All states, the empty one first; each later than those it can be reached from."""
        small = [level for level in LEVELS if level <= self.model.samples]
        dear = [] if self.target is None else [level for level in LEVELS[1:] if level <= self.target.samples]
        return [(level, 0) for level in small] + [(level, more) for level in small for more in dear]

    def seen(self, state: State) -> Seen:
        """The samples of a state, (problems, orders, samples)."""
        drawn, dear = state
        parts = [_taken(self.model, self.orders[..., :drawn])]
        if dear:
            assert self.target is not None
            assert self.target_orders is not None
            parts.append(_taken(self.target, self.target_orders[..., :dear]))
        keys, tokens, paths = (np.concatenate([part[place] for part in parts], -1) for place in (0, 1, 2))
        return Seen(
            keys=keys,
            tokens=tokens,
            paths=paths,
            target=np.broadcast_to(np.arange(drawn + dear) >= drawn, keys.shape),
            signals={name: np.concatenate([part[3][name] for part in parts], -1) for name in self.signals},
            prompt=np.broadcast_to(self.prompt[:, None], keys.shape[:-1]),
        )

    def credit(self, state: State, leader: NDArray[np.intp]) -> Floats:
        """(problems, orders) whether the sample at position `leader` of the state is right; 0 where it is -1."""
        parts = [along(self.model.correct, self.orders[..., : state[0]])]
        if state[1]:
            assert self.target is not None
            assert self.target_orders is not None
            parts.append(along(self.target.correct, self.target_orders[..., : state[1]]))
        right = np.concatenate(parts, -1)
        if right.shape[-1] == 0:
            return np.zeros(leader.shape)
        picked = np.take_along_axis(right, np.maximum(leader, 0)[..., None], -1)[..., 0]
        return np.where(leader >= 0, picked, False).astype(float)

    def cost(self, state: State) -> Floats:
        """(problems, orders) what the samples of a state cost."""
        total = np.zeros(self.orders.shape[:2])
        for side, orders, count in ((self.model, self.orders, state[0]), (self.target, self.target_orders, state[1])):
            if count:
                assert side is not None
                assert orders is not None
                total = total + along(side.first, orders[..., :1])[..., 0]
                total = total + along(side.later, orders[..., 1:count]).sum(-1)
        return total


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cases:
    """The states of some problems under one vote; arrays (problems, orders), by state.

    Args:
        features: (problems, orders, f).
        credit: of the leading answer.
        cost: of the samples so far.
        tokens: per sample of the model and of the target so far; NaN without any.
    """

    states: tuple[State, ...]
    features: Mapping[State, Floats]
    credit: Mapping[State, Floats]
    cost: Mapping[State, Floats]
    tokens: Mapping[State, tuple[Floats, Floats]]


def cases(material: Material, vote: Vote) -> Cases:
    """Every state of every order."""
    parts = [_cases(piece, vote) for piece in material.pieces()]
    if len(parts) == 1:
        return parts[0]
    states = parts[0].states
    return Cases(
        states=states,
        features={state: np.concatenate([part.features[state] for part in parts]) for state in states},
        credit={state: np.concatenate([part.credit[state] for part in parts]) for state in states},
        cost={state: np.concatenate([part.cost[state] for part in parts]) for state in states},
        tokens={
            state: (
                np.concatenate([part.tokens[state][0] for part in parts]),
                np.concatenate([part.tokens[state][1] for part in parts]),
            )
            for state in states
        },
    )


def _cases(material: Material, vote: Vote) -> Cases:
    features, credit, cost, tokens = {}, {}, {}, {}
    states = material.states()
    for state in states:
        seen = material.seen(state)
        summary = evidence(seen, vote, material.signals, target=material.target is not None)
        features[state] = summary.features
        credit[state] = material.credit(state, summary.leader)
        cost[state] = material.cost(state)
        tokens[state] = (_per_sample(seen.tokens[..., : state[0]]), _per_sample(seen.tokens[..., state[0] :]))
    return Cases(states=tuple(states), features=features, credit=credit, cost=cost, tokens=tokens)


def material(
    pool: PoolData,
    *,
    spec: EngineSpec,
    target: PoolData | None = None,
    target_spec: EngineSpec | None = None,
    runs: Sequence[RecordedRun] = (),
    verifier: str | None = None,
    scores: Mapping[str, Mapping[str, Floats]] | None = None,
    scoring: Mapping[str, float] | None = None,
    unit: str = "tokens",
    cache_block: int = 0,
    orders: int | None = None,
    seed: int = 0,
) -> Material:
    """Pools and runs on the same problems as one material; problems that are not in all of them are left out.

    Args:
        spec, target_spec: what the engines cost.
        runs: of other strategies; their arrays are in the order of the pool's problems.
        verifier: which of the pool's own scores are a signal; None: none.
        scores: a signal in their place: by name, the scores (n,) of the model's samples of each problem by its id.
        scoring: cost in the unit of scoring one sample, by signal; nothing where it is not named.
        unit: "tokens", "flops", "usd", or "samples".
        cache_block: an engine finds the prompt in its cache in blocks of so many tokens, and reads the rest of it anew
            for every sample; 0: it finds all of it.
        orders: random orders of each problem; None: as many as keep the arrays small.

    Raises UsageError where answers, tokens or costs are missing.
    """
    there = {problem.id for problem in pool.problems}
    if target is not None:
        there &= {problem.id for problem in target.problems}
    for run in runs:
        pairs = zip(pool.problems, run.credit, strict=True)
        there &= {problem.id for problem, credit in pairs if not np.isnan(credit)}
    problems = [problem for problem in pool.problems if problem.id in there]
    dear = {problem.id: problem for problem in target.problems} if target is not None else {}
    if len(problems) < 10:
        raise UsageError(f"There are {len(problems)} problems in all of the recordings; at least 10 are needed.")
    scores, scoring = scores or {}, scoring or {}
    kept = {"logprob", *(scores or ([] if verifier is None else [verifier]))}
    signals = sorted((_signals(problems) | {*scores}) & kept)
    both = [_joined(problem, dear.get(problem.id)) for problem in problems]
    if orders is None:
        orders = int(np.clip(_ROWS // len(problems), 1, 24))
    rng = generator(seed, 90)
    model = _side(pool, problems, [keys for keys, _ in both], spec, unit, cache_block, signals, scores, scoring)
    other = None
    if target is not None:
        assert target_spec is not None
        aligned = [dear[problem.id] for problem in problems]
        other = _side(target, aligned, [keys for _, keys in both], target_spec, unit, cache_block, signals, {}, {})
    prompts = [np.nan if unit == SAMPLES or problem.prompt is None else float(problem.prompt) for problem in problems]
    index = {problem.id: place for place, problem in enumerate(pool.problems)}
    places = np.array([index[problem.id] for problem in problems])
    return Material(
        ids=tuple(problem.id for problem in problems),
        unit=unit,
        prompt=np.array(prompts),
        model=model,
        target=other,
        orders=_orders(rng, len(problems), orders, model.samples),
        target_orders=None if other is None else _orders(rng, len(problems), orders, other.samples),
        runs=tuple(replace(run, credit=run.credit[places], cost=run.cost[places]) for run in runs),
        signals=tuple(signals),
    )


def _signals(problems: Sequence[PoolProblem]) -> set[str]:
    shared = set.intersection(*(set(problem.scores) for problem in problems))
    return shared | ({"logprob"} if all(problem.logprobs is not None for problem in problems) else set())


def _joined(one: PoolProblem, other: PoolProblem | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The answers of both with equal numbers for equal answers."""
    if one.keys is None or (other is not None and other.keys is None):
        raise UsageError(f"The samples of {one.id!r} have no answers to vote on.")
    if other is None or other.keys is None:
        return one.keys, np.zeros(0, dtype=np.intp)
    number = {answer: place for place, answer in enumerate(one.answers)}
    renumbered = np.array([number.setdefault(answer, len(number)) for answer in other.answers], dtype=np.intp)
    return one.keys, np.where(other.keys >= 0, renumbered[other.keys] if len(renumbered) else -1, -1)


def _side(
    pool: PoolData,
    problems: Sequence[PoolProblem],
    keys: Sequence[NDArray[np.intp]],
    spec: EngineSpec,
    unit: str,
    cache_block: int,
    signals: Sequence[str],
    scores: Mapping[str, Mapping[str, Floats]],
    scoring: Mapping[str, float],
) -> Side:
    n = min(len(answers) for answers in keys)
    if 2 * n < (usual := int(np.median([len(answers) for answers in keys]))):
        short = next(problem.id for problem, answers in zip(problems, keys, strict=True) if len(answers) == n)
        raise UsageError(
            f"{short!r} has {n} samples in {pool.path}, where others have {usual}: remove it, or record it anew."
        )
    first, later = np.ones((len(problems), n)), np.ones((len(problems), n))
    for row, problem in enumerate(problems) if unit != SAMPLES else ():
        if problem.tokens is None or problem.prompt is None:
            raise UsageError(f"{pool.path} has no token counts; plan in samples with --unit samples.")
        reused = (problem.prompt - 1) // cache_block * cache_block if cache_block else problem.prompt
        for column, tokens in enumerate(problem.tokens[:n].tolist()):
            for place, cached in ((first, 0), (later, reused)):
                cost = charge(spec, [Usage(prompt=problem.prompt, cached=cached, completion=tokens)])
                if unit not in cost:
                    raise UsageError(f"What {spec.name} costs in {unit} is not known; plan in tokens.")
                place[row, column] = cost[unit]
    of_scoring = sum(scoring.get(signal, 0.0) for signal in scores)

    def signal(name: str, problem: PoolProblem) -> Floats:
        if name in scores:
            return np.asarray(scores[name].get(problem.id, np.full(n, np.nan)), dtype=float)[:n]
        if name in problem.scores:
            return _mean_of_known(problem.scores[name][:n])
        return np.full(n, np.nan) if name != "logprob" or problem.logprobs is None else problem.logprobs[:n]

    def lengths(problem: PoolProblem) -> Floats:
        return np.ones(n) if unit == SAMPLES or problem.tokens is None else problem.tokens[:n].astype(float)

    return Side(
        keys=np.stack([answers[:n] for answers in keys]),
        correct=np.stack([problem.correct[:n] for problem in problems]),
        tokens=np.stack([lengths(problem) for problem in problems]),
        paths=np.stack([np.arange(n) if problem.texts is None else codes(problem.texts[:n]) for problem in problems]),
        complete=np.stack([problem.complete[:n] for problem in problems]),
        signals={name: np.stack([signal(name, problem) for problem in problems]) for name in signals},
        first=first + of_scoring,
        later=later + of_scoring,
    )


def _mean_of_known(values: Floats) -> Floats:
    known = ~np.isnan(values)
    count = known.sum(-1)
    return np.asarray(
        np.divide(np.where(known, values, 0.0).sum(-1), count, out=np.full(len(values), np.nan), where=count > 0)
    )


def _part(side: Side, place: NDArray[np.intp]) -> Side:
    return Side(
        keys=side.keys[place],
        correct=side.correct[place],
        tokens=side.tokens[place],
        paths=side.paths[place],
        complete=side.complete[place],
        signals={name: values[place] for name, values in side.signals.items()},
        first=side.first[place],
        later=side.later[place],
    )


def _orders(rng: np.random.Generator, problems: int, orders: int, samples: int) -> NDArray[np.intp]:
    return rng.permuted(np.broadcast_to(np.arange(samples), (problems, orders, samples)).copy(), axis=-1)


def along(values: NDArray[Any], orders: NDArray[np.intp]) -> NDArray[Any]:
    """Values (problems, samples) in orders (problems, orders, n)."""
    return np.take_along_axis(values[:, None, :], orders, -1)


def _taken(side: Side, orders: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Floats]]:
    return (
        along(side.keys, orders),
        along(side.tokens, orders),
        along(side.paths, orders),
        {name: along(values, orders) for name, values in side.signals.items()},
    )


def _per_sample(tokens: Floats) -> Floats:
    return tokens.mean(-1) if tokens.shape[-1] else np.full(tokens.shape[:-1], np.nan)
