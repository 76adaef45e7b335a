"""Subpool selection: what goes on, what waits, and what it reduces to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.search.loop import Expand, Grown, Level, Node, Rounds
from outthink.strategies.search.subpool_selection import SubpoolSelection
from outthink.types import Candidate
from tests.strategies.search.test_search import VIEW, chain, solved


def opened(name: int, score: float | None, parent: Node | None = None) -> Node:
    candidate = Candidate(address=("model", name), text=f"{name}\n\n", complete=False)
    return Node(candidate=candidate, parent=parent, score=score, depth=parent.depth + 1 if parent else 1)


def test_the_best_of_a_random_share_go_on() -> None:
    strategy = SubpoolSelection(width=4, children=2, share=0.5)
    scores = np.random.default_rng(0).permutation(10) / 10
    nodes = [opened(name, float(score)) for name, score in enumerate(scores)]
    chosen = set()
    for number in range(300):
        counts = strategy.allot(Level(nodes, 4, number, VIEW))
        assert sorted(counts.tolist()) == [0] * 8 + [2, 2]
        chosen |= set(np.flatnonzero(counts))
        assert scores[counts > 0].min() >= 0.3  # the two best of five of ten are better than three others
    assert len(chosen) == 7
    counts = SubpoolSelection(width=4, children=2, share=1.0).allot(Level(nodes, 4, 1, VIEW))
    assert set(scores[counts > 0]) == {0.8, 0.9}


def test_how_often_a_path_goes_on_is_as_often_as_it_leads_its_subpool() -> None:
    """One path goes on of a share of 3 of 5: the j-th best leads with C(5 - j, 2) / C(5, 3); 5 se, 1e-6 of runs."""
    strategy = SubpoolSelection(width=1, children=1, share=0.6)
    nodes = [opened(name, score) for name, score in enumerate((0.9, 0.7, 0.5, 0.3, None))]
    runs = 3000
    share = np.mean([strategy.allot(Level(nodes, 1, number, VIEW)) for number in range(runs)], axis=0)
    expected = np.array([6, 3, 1, 0, 0]) / 10
    assert np.abs(share - expected) == pytest.approx(0, abs=5 * 0.5 / runs**0.5)
    assert share[3] == share[4] == 0


def test_what_was_not_chosen_waits_and_what_was_continued_is_gone() -> None:
    seen: list[list[str]] = []

    def allot(level: Level) -> np.ndarray:
        seen.append([node.candidate.text for node in level.nodes])
        counts = np.zeros(len(level.nodes), dtype=np.int64)
        counts[0] = level.width
        return counts

    names = itertools.count()
    rounds = Rounds(allot, 2, max_rounds=9, finishing="refill", waits=True)
    wishes: list[Expand] = rounds.start(VIEW)
    for _ in range(3):
        wishes = rounds.grow(
            VIEW, [Grown(wish, opened(next(names), 0.5, wish.parent)) for wish in wishes for _ in range(wish.n)]
        )
    assert [[text.strip() for text in level] for level in seen] == [["0", "1"], ["1", "2", "3"], ["2", "3", "4", "5"]]


@pytest.mark.parametrize("seed", range(3))
def test_it_ends_with_as_many_answers_as_it_is_wide(seed: int) -> None:
    trace = solved(SubpoolSelection(width=6, children=2), chain, seed=seed)
    assert trace.stopped == "finished"
    assert len(trace.rounds[-1].candidates) >= 6


def test_a_single_round_samples_whole_answers() -> None:
    trace = solved(SubpoolSelection(width=3, children=1, max_depth=1), chain, prm=lambda *_: 0.5, seed=1)
    plain = solved(SelfConsistency(n=3), chain, seed=1)
    assert [c.text for c in trace.candidates] == [c.text for c in plain.candidates]


def test_what_is_out_of_range_is_refused() -> None:
    for wrong in ({"share": 0.0}, {"share": 1.5}, {"width": 0}, {"children": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SubpoolSelection(**wrong)
