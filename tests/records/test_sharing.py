"""What the paths of a tree share, counted on trees whose numbers are known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.sharing import sharing
from outthink.strategies.making import make_strategy
from outthink.types import Candidate, Trace
from tests.tools.toys import problem
from tests.tools.virtual import run


def step(name: str, tokens: int, parent: str | None = None, role: str = "model") -> Candidate:
    return Candidate(
        address=(role, name),
        parents=() if parent is None else (f"{role}/{parent}",),
        continues=parent is not None,
        tokens=tokens,
    )


def trace(*candidates: Candidate) -> Trace:
    empty = run(solve_async(problem(), make_strategy("greedy"), model=ScriptedEngine(lambda *_: "#### 1")))
    return dataclasses.replace(empty, candidates=candidates)


def test_a_tree_by_hand() -> None:
    # root a (3) with children b (5) and c (7), b with d (2); e (11) alone
    shared = sharing(
        trace(
            step("a", 3),
            step("b", 5, "a"),
            step("c", 7, "a"),
            step("d", 2, "b"),
            step("e", 11),
            step("j", 99, role="judge"),
        )
    )
    assert shared.logical == (3 + 5 + 2) + (3 + 7) + 11
    assert shared.unique == 3 + 5 + 7 + 2 + 11
    assert shared.levels == 3
    assert shared.peak == 3 + 5 + 7  # the levels hold a+e = 14, a+b+c = 15 and a+b+d = 10
    assert shared.resident == pytest.approx((14 + 15 + 10) / 3)


def test_the_order_of_the_candidates_does_not_matter() -> None:
    tree = [step("a", 3), step("b", 5, "a"), step("c", 7, "b"), step("d", 2, "b")]
    assert sharing(trace(*tree)) == sharing(trace(*reversed(tree)))


def test_whole_samples_share_nothing() -> None:
    shared = sharing(trace(step("a", 3), step("b", 5)))
    assert (shared.logical, shared.unique, shared.levels, shared.peak) == (8, 8, 1, 8)
    assert sharing(trace()) == sharing(trace(step("j", 9, role="judge")))


def test_a_sample_made_from_others_starts_anew() -> None:
    fused = dataclasses.replace(step("f", 4), parents=("model/a",))
    assert sharing(trace(step("a", 3), fused)).logical == 7


def test_a_prefill_is_no_level() -> None:
    shared = sharing(trace(step("prefill", 0), step("a", 3, "prefill"), step("b", 5, "prefill")))
    assert (shared.levels, shared.logical, shared.unique, shared.peak) == (1, 8, 8, 8)


def numbered(request: Request, child: int, rng: np.random.Generator) -> str:
    """Four steps of ten characters, each with the number of the child, and an answer of six."""
    done = request.prefix_text.count("\n\n")
    return f"{child}2345678\n\n" * (4 - done) + "#### 1"


def test_a_search_that_keeps_all_paths_shares_nothing() -> None:
    strategy: Any = make_strategy("rebase", {"width": 4, "balance": 1e12})
    engine = ScriptedEngine(numbered)
    shared = sharing(run(solve_async(problem(), strategy, model=engine, prm=lambda question, solution: 0.5)))
    assert (shared.levels, shared.logical, shared.unique, shared.peak) == (5, 4 * 46, 4 * 46, 4 * 46)


def test_a_greedy_search_shares_all_but_the_last_step() -> None:
    calls = iter(range(10**6))

    def earlier_is_better(question: str, solution: str) -> float:
        return 1 / (1 + next(calls) % 4)

    strategy: Any = make_strategy("rebase", {"width": 4, "balance": 1e-9})
    engine = ScriptedEngine(numbered)
    shared = sharing(run(solve_async(problem(), strategy, model=engine, prm=earlier_is_better)))
    assert shared.levels == 5
    assert shared.unique == 4 * 4 * 10 + 4 * 6
    # each of four levels leaves three ends behind, the last one four
    assert shared.logical == 3 * (10 + 20 + 30 + 40) + 4 * 46
    assert shared.peak == 30 + 4 * 10
