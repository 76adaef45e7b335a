"""Parallel tempering: the joint law of two chains by enumeration, the strategy against it, and its reductions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from outthink.strategies.search.parallel_tempering import ParallelTempering, exchange
from outthink.strategies.search.qalign import QAlign
from outthink.types import Sampling
from tests.strategies.search.test_qalign import (
    CHANCES,
    LM,
    MOST,
    TEXTS,
    Floats,
    Whole,
    binary,
    coin_reply,
    moves,
    number,
    ones,
    solved,
)

BETA, RATIO = 0.3, 4.0
REWARDS = np.array([ones(text) for text in TEXTS])


def law(beta: float) -> Floats:
    tilted = LM * np.exp(REWARDS / beta)
    return np.asarray(tilted / tilted.sum())


def exchanged() -> Floats:
    """Chances (n n, n n) of going from one pair of texts to another by an exchange."""
    n = len(TEXTS)
    chance = exchange(REWARDS[:, None], REWARDS, BETA, BETA * RATIO)  # of (cold, hot)
    kernel = np.zeros((n, n, n, n))
    for cold in range(n):
        for hot in range(n):
            kernel[cold, hot, hot, cold] += chance[cold, hot]
            kernel[cold, hot, cold, hot] += 1 - chance[cold, hot]
    return kernel.reshape(n * n, n * n)


def moved() -> Floats:
    """The same by a move of each chain."""
    cold, hot = (moves(TEXTS, lambda _: CHANCES, ones, beta) for beta in (BETA, BETA * RATIO))
    return np.asarray(np.kron(cold, hot))


def test_worked_exchanges() -> None:
    got = exchange([0.2, 0.7, 0.7, math.nan, 0.5], [0.7, 0.2, math.nan, 0.1, 0.5], 0.5, 1.0)
    assert got == pytest.approx([1.0, math.exp(-0.5), 0.0, 1.0, 1.0])
    assert exchange(1e308, -1e308, 1e-9, 1.0) == 0.0


def test_an_exchange_leaves_the_joint_law_as_it_is() -> None:
    joint = np.kron(law(BETA), law(BETA * RATIO))
    flow = joint[:, None] * exchanged()
    assert flow == pytest.approx(flow.T, abs=1e-16)
    assert joint @ moved() @ exchanged() == pytest.approx(joint, abs=1e-14)


def test_the_coldest_chain_is_where_enumeration_says() -> None:
    """With 240 independent runs, five standard errors of 15 texts are exceeded in about 1e-5 of cases."""
    runs, steps = 240, 2
    at = np.kron(LM, LM)
    for step in range(1, steps + 1):
        at = at @ moved()
        at = at @ exchanged() if step % 2 == 0 else at
    expected = at.reshape(len(TEXTS), len(TEXTS)).sum(1)
    seen = np.zeros(len(TEXTS))
    strategy = ParallelTempering(steps=steps, chains=2, beta=BETA, ratio=RATIO, burn_in=steps)
    for seed in range(runs):
        trace = solved(strategy, binary, ones, sampling=Sampling(max_tokens=MOST), reader=Whole(), seed=seed)
        (last,) = trace.rounds[-1].candidates
        text = trace.whole_text(last)
        seen[TEXTS.index(text if len(text) == MOST else text + "$")] += 1
    errors = np.sqrt(expected * (1 - expected) / runs)
    assert (np.abs(seen / runs - expected) / errors).max() < 5
    # what the cold chain would be without exchanges is further off than that would allow
    alone = LM @ np.linalg.matrix_power(moves(TEXTS, lambda _: CHANCES, ones, BETA), steps)
    assert np.abs(alone - expected).max() > 0.03


def test_with_one_rung_it_is_a_chain_of_qalign_in_law_and_price() -> None:
    one = solved(ParallelTempering(steps=6, chains=1, beta=0.5), coin_reply, number, seed=2)
    chain = solved(QAlign(steps=6, chains=1, beta=0.5), coin_reply, number, seed=2)
    assert len(one.calls) == len(chain.calls)
    assert one.candidates[0] == chain.candidates[0]


def test_only_the_coldest_chain_answers() -> None:
    for seed in range(4):
        trace = solved(ParallelTempering(steps=8, chains=4, beta=0.02, choose="best"), coin_reply, number, seed=seed)
        last = trace.rounds[-1]
        assert last.scores is not None
        known = [score for score in last.scores if score is not None]
        assert number(trace.text or "") == max(known)
        assert len(last.candidates) <= 9


def test_what_is_out_of_range_is_refused() -> None:
    for wrong in ({"ratio": 1.0}, {"chains": 5000}, {"burn_in": 99}, {"beta": 0.0}, {"steps": -1}, {"chains": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ParallelTempering(**wrong)
