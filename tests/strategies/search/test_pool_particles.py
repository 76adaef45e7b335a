"""Pool particles: no bias by enumeration of all that can be drawn, and the particle filter as the case of memory 1."""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import UsageError
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.search.loop import Event, Expand, Grown, Node
from outthink.strategies.search.particle_filter import weights
from outthink.strategies.search.pool_particles import Pool, possible_births, tilted
from outthink.types import Candidate, Sampling, Trace
from tests.tools.loops import held
from tests.tools.toys import problem
from tests.tools.virtual import run

TREE = {"": {"a": 0.4, "b": 0.6}, "b": {"c": 0.3, "d": 0.7}, "bd": {"e": 0.8, "f": 0.2}}
"""Next steps of open paths and their chances; whatever is not a key has finished."""
REWARD = {"a": 0.3, "b": 0.8, "bc": 0.9, "bd": 0.2, "bde": 0.6, "bdf": 0.05}
ANSWERS = {"a": 0.4, "bc": 0.18, "bde": 0.336, "bdf": 0.084}


def ends(path: str) -> dict[str, float]:
    """How a path ends, and how likely."""
    if path not in TREE:
        return {path: 1.0}
    spread: dict[str, float] = {}
    for step, chance in TREE[path].items():
        spread |= {end: chance * part for end, part in ends(path + step).items()}
    return spread


@dataclass(frozen=True, eq=False)
class Told:
    """Stands in for a view: the uniform number that is drawn next."""

    u: float

    def at(self, *path: Any) -> Told:
        return self

    def random(self) -> float:
        return self.u


def text(node: Node | None) -> str:
    return "" if node is None else node.candidate.text


def child(wish: Expand, end: str) -> Node:
    return Node(
        candidate=Candidate(address=("model", 0, 0), text=end, tokens=1),
        parent=wish.parent,
        score=REWARD[end],
        finished=end not in TREE,
    )


def children(wishes: list[Expand]) -> Iterator[tuple[list[Event], float]]:
    """All that can be written in a round, with the chance of each."""
    slots = []
    for wish in wishes:
        path = text(wish.parent)
        nexts = ends(path) if wish.until == "end" else {path + step: p for step, p in TREE[path].items()}
        slots += [[(wish, end, chance) for end, chance in nexts.items()]] * wish.n
    for said in itertools.product(*slots):
        yield [Grown(wish, child(wish, end)) for wish, end, _ in said], math.prod(chance for *_, chance in said)


def copied(pool: Pool) -> Pool:
    other = copy.copy(pool)
    other.pool, other.finished = list(pool.pool), list(pool.finished)
    return other


def uniforms(pool: Pool) -> Iterator[tuple[float, float]]:
    """A number from each interval in which all give the same draws, and the length of the interval."""
    shares = weights([one.node.rank for one in pool.pool], 1 / pool._power)
    edges = np.unique(np.round([0.0, *np.mod(pool._n * np.cumsum(shares), 1.0), 1.0], 12))
    for low, high in itertools.pairwise(edges.tolist()):
        yield (low + high) / 2, high - low


def everything(pool: Pool, wishes: list[Expand]) -> Iterator[tuple[Pool, float]]:
    """Every way in which the search can end, and its chance."""
    for events, chance in children(wishes):
        # what is drawn after these events depends on one uniform number, or on several where nothing is written
        yield from ((last, chance * part) for last, part in grown(pool, events))


def grown(pool: Pool, events: list[Event]) -> Iterator[tuple[Pool, float]]:
    before = copied(pool)
    before._rounds = before.round  # so that it only takes the events in
    before.grow(Told(0.0), events)  # type: ignore[arg-type]  # it is all that is asked of a view
    before._rounds = pool._rounds
    before.pool = [one for one in before.pool if one.born >= before.round + 1 - before._memory or before.over]
    yield from drawn(before)


def drawn(pool: Pool) -> Iterator[tuple[Pool, float]]:
    if pool.over or not pool.pool:
        yield pool, 1.0
        return
    for u, length in list(uniforms(pool)):
        after = copied(pool)
        after.round += 1
        wishes = after._draw(Told(u))  # type: ignore[arg-type]  # it is all that is asked of a view
        if wishes:
            yield from ((last, length * part) for last, part in everything(after, wishes))
        else:
            after.pool += after._copies
            after._copies = []
            oldest = after.round + 1 - after._memory
            after.pool = [one for one in after.pool if one.born >= oldest or after.over]
            yield from ((last, length * part) for last, part in drawn(after))


@pytest.mark.parametrize(
    ("n", "rounds", "memory", "power"),
    [
        (2, 1, 1, 1.0),
        (2, 2, 2, 1.0),
        (2, 3, 1, 1.0),
        (2, 3, 3, 1.0),
        (2, 3, 2, 2.0),
        (1, 4, 4, 0.5),
        (1, 4, 2, 1.0),
        (1, 5, 2, 3.0),
    ],
)
def test_the_estimate_of_every_answer_has_no_bias(n: int, rounds: int, memory: int, power: float) -> None:
    pool = Pool(n, rounds=rounds, memory=memory, power=power)
    total, means = 0.0, defaultdict[str, float](float)
    for last, chance in everything(pool, pool.start(Told(0.0))):  # type: ignore[arg-type]  # as above
        total += chance
        for node, log_weight in last.estimate().items():
            means[text(node)] += chance * math.exp(log_weight)
    assert total == pytest.approx(1.0, abs=1e-9)
    assert dict(means) == pytest.approx(ANSWERS, abs=1e-7)


def test_a_count_of_rounds_that_really_had_such_particles_would_be_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same enumeration sees the fault: without the correction for the mixture it does not come out."""
    monkeypatch.setattr("outthink.strategies.search.pool_particles.possible_births", lambda *_: 1)
    pool = Pool(1, rounds=4, memory=4, power=1.0)
    means = defaultdict[str, float](float)
    for last, chance in everything(pool, pool.start(Told(0.0))):  # type: ignore[arg-type]  # as above
        for node, log_weight in last.estimate().items():
            means[text(node)] += chance * math.exp(log_weight)
    assert dict(means) != pytest.approx(ANSWERS, rel=0.05)


@pytest.mark.parametrize(
    ("time", "round", "memory", "births"),
    [
        (1, 2, 9, 1),
        (1, 5, 9, 1),
        (1, 5, 3, 0),  # forgotten
        (2, 5, 9, 3),  # in rounds 2, 3 and 4
        (2, 5, 2, 1),  # in round 3; in round 4 those of time 1 were gone
        (4, 5, 9, 1),
        (5, 5, 9, 0),
        (3, 4, 1, 1),
        (2, 4, 1, 0),
    ],
)
def test_possible_births(time: int, round: int, memory: int, births: int) -> None:
    assert possible_births(time, round, memory) == births


def test_with_memory_1_the_vote_is_by_the_odds_of_the_last_reward() -> None:
    pool, half = Pool(2, rounds=2, memory=1, power=2.0), Told(0.5)
    (first,) = pool.start(half)  # type: ignore[arg-type]  # as above
    same = [Grown(first, child(first, "b")) for _ in range(2)]
    wishes = pool.grow(half, same)  # type: ignore[arg-type]  # as above
    last = [Grown(wish, child(wish, end)) for wish, end in zip(wishes, ["bc", "bde"], strict=True)]
    assert pool.grow(half, last) == []  # type: ignore[arg-type]  # as above
    odds = np.array([9.0, 1.5]) ** 2
    np.testing.assert_allclose(tilted(pool.estimate(), 2.0), odds / odds.max())


def steps(request: Request, number: int, rng: np.random.Generator) -> str:
    done = request.prefix_text.count("\n\n")
    said = "".join(f"step {at} {'x' * int(rng.integers(0, 9))}\n\n" for at in range(done, 3))
    return f"{said}#### {int(rng.integers(3))}"


def solved(name: str, parameters: dict[str, Any], seed: int, **options: Any) -> Trace:
    return run(
        solve_async(
            problem(),
            make_strategy(name, parameters),
            model=ScriptedEngine(steps),
            prm=lambda question, solution: (len(solution) % 7 + 1) / 9,
            sampling=Sampling(max_tokens=200),
            seed=seed,
            **options,
        )
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_with_memory_1_it_is_the_particle_filter(seed: int, power: float) -> None:
    ours = solved("pool_particles", {"n": 4, "memory": 1, "power": power, "max_depth": 6, "choose": "best"}, seed)
    plain = solved("particle_filter", {"n": 4, "weight_temperature": 1 / power, "max_depth": 6}, seed)
    assert [(one.address, one.text) for one in ours.candidates] == [(one.address, one.text) for one in plain.candidates]
    assert (ours.answer, ours.text, ours.usage) == (plain.answer, plain.text, plain.usage)


@pytest.mark.parametrize(("memory", "goes_back"), [(1, False), (None, True)])
def test_only_a_pool_goes_on_with_a_prefix_in_several_rounds(memory: int | None, goes_back: bool) -> None:
    trace = solved("pool_particles", {"n": 4, "max_depth": 6, "memory": memory}, 0)
    requests = defaultdict[str, set[Any]](set)
    for one in trace.candidates:
        if one.parents:
            requests[one.parents[0]].add(one.address[:-1])
    assert any(len(several) > 1 for several in requests.values()) == goes_back


def test_a_budget_that_ends_early_leaves_the_vote_of_what_has_finished() -> None:
    whole = solved("pool_particles", {"n": 4}, 0)
    trace = solved("pool_particles", {"n": 4}, 0, budget="1500-tokens")
    assert trace.cost["tokens"] <= 1500 < whole.cost["tokens"]
    assert trace.answer is not None


@pytest.mark.parametrize("choose", ["vote", "best"])
@pytest.mark.parametrize("power", [1e-310, 1e-9, 50.0, 1e9, 1e308])
def test_a_power_of_any_size_leaves_a_share_and_weights_that_are_numbers(power: float, choose: str) -> None:
    trace = solved("pool_particles", {"n": 3, "power": power, "max_depth": 4, "choose": choose}, 0)
    assert trace.answer is not None
    assert trace.confidence is not None
    assert 0 <= trace.confidence <= 1


def test_a_power_beyond_all_numbers_leaves_the_path_with_the_best_odds() -> None:
    (wish,) = Pool(2, rounds=1, memory=1, power=1.0).start(Told(0.5))  # type: ignore[arg-type]  # as above
    worse, better = child(wish, "a"), child(wish, "bc")
    assert tilted({worse: 0.0, better: -3.0}, 1e308).tolist() == [0.0, 1.0]


def test_rounds_in_which_nothing_is_written_leave_the_loop_free() -> None:
    """All paths finish in the first of 256 rounds; the others only copy."""

    async def longest() -> float:
        strategy = make_strategy("pool_particles", {"n": 16, "max_depth": 256})
        async with held() as measured:
            await solve_async(problem(), strategy, model=ScriptedEngine(lambda *_: "#### 4"), prm=lambda *_: 0.5)
        return measured.longest

    assert asyncio.run(longest()) < 0.15


def test_more_prefixes_than_can_be_looked_at_are_refused() -> None:
    make_strategy("pool_particles", {"n": 1024})
    make_strategy("pool_particles", {"n": 16, "max_depth": 1024})
    make_strategy("pool_particles", {"n": 1, "max_depth": 10**7, "memory": 1})
    with pytest.raises(UsageError, match="n x max_depth x memory must be at most 16,777,216"):
        make_strategy("pool_particles", {"n": 16, "max_depth": 1025})
