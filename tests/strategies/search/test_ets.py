"""ETS: the worked tree, the integer program against all subsets, and what it saves where it is REBASE otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from outthink.errors import EngineError
from outthink.maths.resampling import sequential_ceil
from outthink.records.sharing import sharing
from outthink.resources.embedding import Vectors, hashed
from outthink.strategies.search.ets import ETS, clusters, worth_keeping
from outthink.strategies.search.loop import Level, Node, Rounds
from outthink.strategies.search.rebase import Rebase
from outthink.types import Candidate
from tests.strategies.search.test_search import VIEW, Counts, Driven, Prm, flaky, solved, steps

Program = tuple[
    NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], NDArray[np.intp], float
]


def value(kept: Sequence[int], program: Program) -> float:
    """What a choice of leaves is worth, by the text of the method."""
    shares, prices, above, prices_above, groups, coverage = program
    leaves = list(kept)
    held = above[leaves].any(axis=0)
    covered = len(set(groups[leaves].tolist())) / len(set(groups.tolist()))
    return float(shares[leaves].sum() - prices[leaves].sum() - prices_above[held].sum() + coverage * covered)


def by_enumeration(program: Program) -> tuple[float, list[int]]:
    """The best value of all subsets, and the choice that has it: fewer leaves, then the smaller sum of places."""
    n = len(program[0])
    choices = [list(kept) for size in range(1, n + 1) for kept in combinations(range(n), size)]
    values = [value(kept, program) for kept in choices]
    best = max(values)
    tied = [kept for kept, worth in zip(choices, values, strict=True) if worth > best - 1e-11]
    return best, min(tied, key=lambda kept: (len(kept), sum(kept)))


def kept(program: Program) -> list[int]:
    return np.flatnonzero(worth_keeping(*program)).tolist()


# ---- the worked tree ------------------------------------------------------------------------------------------------

REWARDS = [0.9, 0.85, 0.8, 0.4]
ABOVE = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1]], dtype=bool)  # root, a, b
TWO, ONE, CROSSED = [0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 2]


def program(lambda_b: float, lambda_d: float, groups: list[int]) -> Program:
    shares = sequential_ceil(REWARDS, 8, 0.2) / 8
    return shares, np.full(4, lambda_b / 7), ABOVE, np.full(3, lambda_b / 7), np.array(groups), lambda_d


@pytest.mark.parametrize(
    ("lambda_b", "lambda_d", "groups", "choice", "worth"),
    [
        (1.0, 0.0, TWO, [0, 1], 0.3036),
        (1.0, 1.5, TWO, [0, 1, 2], 1.6429),
        (1.0, 1.5, ONE, [0, 1], 1.8036),
        (1.0, 1.5, CROSSED, [0, 1, 3], 1.5179),
    ],
)
def test_a_worked_tree(lambda_b: float, lambda_d: float, groups: list[int], choice: list[int], worth: float) -> None:
    asked = program(lambda_b, lambda_d, groups)
    assert kept(asked) == choice
    assert value(choice, asked) == pytest.approx(worth, abs=5e-5)
    assert by_enumeration(asked)[1] == choice


def leaf(parent: Node | None, reward: float | None, name: str, tokens: int = 1, vector: Any = None) -> Node:
    candidate = Candidate(address=("model", name), text=name, tokens=tokens)
    return Node(candidate=candidate, parent=parent, score=reward, depth=2 if parent else 1, vector=vector)


def tree(groups: list[int], lengths: tuple[int, int] = (1, 1), rewards: Sequence[float | None] = REWARDS) -> Level:
    inner = [leaf(None, 0.5, name, tokens) for name, tokens in zip("ab", lengths, strict=True)]
    nodes = [
        leaf(inner[place // 2], reward, f"L{place}", vector=np.eye(4)[group])
        for place, (reward, group) in enumerate(zip(rewards, groups, strict=True))
    ]
    return Level(nodes, 8, 2, VIEW)


def test_the_tree_is_read_off_the_paths() -> None:
    shares = sequential_ceil(REWARDS, 8, 0.2) / 8
    for strategy, groups, choice, counts in (
        (ETS(lambda_d=0.0), TWO, [0, 1], [5, 3, 0, 0]),
        (ETS(), TWO, [0, 1, 2], [4, 3, 1, 0]),
        (ETS(), ONE, [0, 1], [5, 3, 0, 0]),
        (ETS(), CROSSED, [0, 1, 3], [5, 3, 0, 0]),
        (ETS(lambda_b=0.0), TWO, [0, 1, 2, 3], [4, 3, 1, 0]),
    ):
        level = tree(groups)
        if strategy.lambda_b:
            assert np.flatnonzero(strategy.kept(level.nodes, shares)).tolist() == choice
        dropped = np.where(np.isin(range(4), choice), REWARDS, -np.inf)
        assert strategy.allot(level).tolist() == counts == sequential_ceil(dropped, 8, 0.2).tolist()
    assert sequential_ceil(np.array([0.9, -np.inf, 0.8, -np.inf]), 8, 0.2).tolist() == [5, 0, 3, 0]


def test_tokens_can_be_the_unit_of_the_price() -> None:
    """Above L2 and L3 stands a long step: as a node it costs as much as any, by its tokens it is not worth it."""
    assert ETS(lambda_d=1.0).allot(tree(TWO, (1, 40))).tolist() == [4, 3, 1, 0]
    assert ETS(lambda_d=1.0, price="token").allot(tree(TWO, (1, 40))).tolist() == [5, 3, 0, 0]
    assert ETS(lambda_b=2.0, lambda_d=1.0).allot(tree(TWO, (40, 1))).tolist() == [4, 3, 1, 0]
    assert ETS(lambda_b=2.0, lambda_d=1.0, price="token").allot(tree(TWO, (40, 1))).tolist() == [0, 0, 8, 0]
    assert ETS(price="token").allot(tree(TWO, (0, 0))).sum() == 8


def test_missing_rewards_count_as_0() -> None:
    assert ETS(lambda_d=0.0).allot(tree(TWO, rewards=[None, None, 0.9, 0.8])).tolist() == [0, 0, 5, 3]
    assert ETS().allot(tree(TWO, rewards=[None] * 4)).sum() == 8


# ---- the program ----------------------------------------------------------------------------------------------------


def any_program(rng: np.random.Generator) -> Program:
    """A small level: two or three levels of branches over up to nine leaves, coarse rewards so that there are ties."""
    n = int(rng.integers(1, 10))
    branch = np.sort(rng.integers(0, n, size=n))
    columns = [np.ones(n, dtype=bool)]
    for _ in range(int(rng.integers(0, 3))):
        columns += [branch == one for one in np.unique(branch)]
        branch //= 2
    above = np.array(columns).T
    sizes = np.ones(n + above.shape[1]) if rng.random() < 0.7 else rng.integers(1, 30, size=n + above.shape[1])
    prices = rng.choice([0.2, 0.5, 1.0, 2.0]) * sizes / sizes.sum()
    shares = sequential_ceil(np.round(rng.random(n), 1), width := int(rng.integers(1, 20)), 0.2) / width
    groups = np.unique(rng.integers(0, n, size=n), return_inverse=True)[1]
    return shares, prices[:n], above, prices[n:], groups, float(rng.choice([0.0, 0.5, 1.0, 1.5]))


def test_the_solver_finds_what_enumeration_finds() -> None:
    rng = np.random.default_rng(0)
    tied = 0
    for _ in range(400):
        asked = any_program(rng)
        best, choice = by_enumeration(asked)
        chosen = kept(asked)
        assert value(chosen, asked) == pytest.approx(best, abs=1e-9)
        assert (len(chosen), sum(chosen)) == (len(choice), sum(choice))
        others = [value(one, asked) for one in combinations(range(len(asked[0])), len(choice)) if list(one) != choice]
        tied += max(others, default=-9.0) > best - 1e-11
    assert tied > 20  # so that the order of ties is put to the test


def test_ties_go_to_fewer_leaves_and_then_to_earlier_ones() -> None:
    alike = np.zeros(4, dtype=np.intp)
    root = np.ones((4, 1), dtype=bool)
    quarter = np.full(4, 0.25)
    assert kept((quarter, quarter, root, np.array([0.1]), alike, 0.0)) == [0]  # each leaf is worth its price
    groups = np.array([1, 0, 1, 0])
    assert kept((np.zeros(4), np.full(4, 0.1), root, np.array([0.1]), groups, 1.0)) == [0, 1]
    many = np.zeros(64, dtype=np.intp)
    large = (np.full(64, 1 / 64), np.full(64, 2 / 64), np.ones((64, 1), dtype=bool), np.array([0.0]), many, 0.0)
    assert kept(large) == [0]


def test_where_every_step_is_a_kind_of_its_own_nothing_is_dropped() -> None:
    for n in (1, 2, 16, 64):
        shares = sequential_ceil(np.linspace(0, 1, n), n, 0.2) / n
        price = np.full(n, 1 / (n + 1))
        asked = (shares, price, np.ones((n, 1), dtype=bool), np.array([1 / (n + 1)]), np.arange(n), 1.5)
        assert kept(asked) == list(range(n))


def test_a_solver_that_gives_up_drops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scipy.optimize.milp", lambda *given, **options: SimpleNamespace(x=None))
    assert ETS(lambda_d=0.0).allot(tree(TWO)).tolist() == [4, 3, 1, 0]


# ---- kinds of steps -------------------------------------------------------------------------------------------------


def test_clusters_by_average_linkage() -> None:
    angles = np.arccos([1.0, 0.96, 0.5])  # cosine distances 0, 0.04 and 0.5 from the first
    vectors = [np.array([np.cos(angle), np.sin(angle)]) for angle in angles]
    assert len(set(clusters(vectors, 0.05).tolist())) == 2
    assert len(set(clusters(vectors, 0.03).tolist())) == 3
    mean = 1 - (vectors[2] @ vectors[0] + vectors[2] @ vectors[1]) / 2  # of the third from the other two
    assert len(set(clusters(vectors, mean + 1e-9).tolist())) == 1
    assert len(set(clusters(vectors, mean - 1e-9).tolist())) == 2
    assert clusters([None], 0.05).tolist() == [0]
    missing = clusters([vectors[0], None, vectors[0], None], 0.05).tolist()
    assert missing[0] == missing[2]
    assert sorted(set(missing)) == [0, 1, 2]


def test_what_the_threshold_means_for_the_default_embedder() -> None:
    said = "So each of them has 12 + 7 = 19 apples.\n\n"
    number = "So each of them has 12 + 7 = 18 apples.\n\n"
    reworded = "Therefore everybody has nineteen apples, since 12 plus 7 makes 19.\n\n"
    first, second, third = clusters(list(hashed([said, number, reworded], 512, 3)), 0.05).tolist()
    assert first == second != third


# ---- the search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_where_nodes_are_free_it_is_rebase_to_the_bit(seed: int) -> None:
    searched = solved(ETS(width=8, lambda_b=0.0), seed=seed)
    rebase = solved(Rebase(width=8), seed=seed)
    assert searched.candidates == rebase.candidates
    assert searched.calls == rebase.calls  # no embedder was asked
    assert searched.rounds == rebase.rounds


def test_where_nodes_are_free_even_a_path_without_a_share_stays() -> None:
    """Shares 0.49, 0.31 and 0.2 of two children: without the third, which gets none, the first would take both."""
    rewards = (0.5 + 0.2 * np.log(np.array([0.49, 0.31, 0.2]) / 0.2)).tolist()
    level = replace(tree(ONE, rewards=[*rewards, 0.0]), width=2)
    level = replace(level, nodes=level.nodes[:3])
    assert sequential_ceil(rewards[:2], 2, 0.2).tolist() == [2, 0]
    assert ETS(lambda_b=0.0, lambda_d=0.0).allot(level).tolist() == [1, 1, 0]


class Broken:
    async def embed(self, texts: Sequence[str]) -> Vectors:
        raise OSError("out of memory")


@pytest.mark.parametrize("seed", range(3))
def test_without_vectors_every_step_counts_as_another_kind(seed: int) -> None:
    """So nothing is dropped with the defaults."""
    searched = solved(ETS(width=8), embedder=Broken(), seed=seed)
    rebase = solved(Rebase(width=8), seed=seed)
    assert searched.stopped == "finished"
    assert searched.candidates == rebase.candidates
    assert searched.key == rebase.key


@pytest.mark.parametrize("options", [{}, {"lambda_d": 0.0}, {"price": "token"}])
def test_every_level_gives_the_width_that_is_left(options: dict[str, Any]) -> None:
    levels: list[tuple[Level, Counts]] = []
    strategy = ETS(width=8, **options)

    def allot(level: Level) -> Counts:
        counts = strategy.allot(level)
        levels.append((level, counts))
        return counts

    for seed in range(5):
        prm = Prm()
        plain = solved(Driven(policy=lambda: Rounds(allot, 8, max_rounds=25)), prm=prm, seed=seed)
        assert plain.stopped == "finished"
        assert len(plain.rounds[-1].candidates) == 8
        assert prm.batches[0] == 8
        trace = solved(strategy, seed=seed)
        assert len(trace.rounds[-1].candidates) == 8
        assert trace.answer is not None
        if not strategy.lambda_d:
            assert {call.kind for call in trace.calls} == {"sample"}
    assert len(levels) > 10
    for level, counts in levels:
        assert counts.sum() == level.width
        assert counts.min() >= 0


def test_it_holds_fewer_tokens_than_rebase_and_coverage_wins_some_back() -> None:
    """Paths that were continued, and tokens that a level holds, over 24 searches each.

    In each pair of neighbours the means differ by 3.4 paths and 4.2 tokens or more, with standard deviations of at most
    2.6 and 4.3 (of 100 searches): 5 standard errors of 24, so a false alarm has odds of 1e-6. The seeds are fixed.
    """
    methods = {"rebase": Rebase(width=16), "bare": ETS(width=16, lambda_d=0.0), "ets": ETS(width=16)}
    continued: dict[str, float] = {}
    resident: dict[str, float] = {}
    for name, strategy in methods.items():
        traces = [solved(strategy, seed=seed) for seed in range(24)]
        continued[name] = sum(len({c.parents for c in trace.candidates if c.parents}) for trace in traces)
        resident[name] = sum(sharing(trace).resident for trace in traces)
    assert continued["bare"] < continued["ets"] < continued["rebase"], continued
    assert resident["bare"] < resident["ets"] < resident["rebase"], resident


def test_a_fifth_of_the_children_may_fail() -> None:
    """That all 8 first children fail has probability 3e-6; the seeds are fixed."""
    for seed in range(3):
        trace = solved(ETS(width=8), flaky(steps, 0.2), seed=seed)
        assert trace.stopped == "finished"
        assert trace.answer is not None
        assert sum(call.failed for call in trace.calls) > 0
    with pytest.raises(EngineError, match="lost"):
        solved(ETS(width=8), flaky(steps, 1.0))


def test_a_level_of_one_path_keeps_it() -> None:
    level = Level([replace(leaf(None, 0.1, "only"), vector=np.ones(1))], 5, 1, VIEW)
    for strategy in (ETS(), ETS(lambda_b=9.0, lambda_d=0.0), ETS(price="token")):
        assert strategy.allot(level).tolist() == [5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 0}, "width must be at least 1, not 0"),
        ({"max_depth": 0}, "max_depth must be at least 1"),
        ({"balance": 0.0}, "balance must be a number above 0"),
        ({"lambda_b": -1.0}, "lambda_b must be a number of at least 0, not -1.0"),
        ({"lambda_d": float("nan")}, "lambda_d must be a number of at least 0"),
        ({"threshold": -0.1}, "threshold must be a number of at least 0"),
        ({"price": "byte"}, "price must be node or token, not byte"),
        ({"delimiter": ""}, "delimiter must not be empty"),
        ({"aggregate": "median"}, "aggregate must be last, min, prod or mean, not median"),
    ],
)
def test_hyperparameters_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ETS(**given)
