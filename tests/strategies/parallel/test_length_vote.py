"""The length vote: its weights, its stop, and what it reduces to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outthink.driver import solve_async
from outthink.maths.selection import Drawn, majority
from outthink.models.engine import Completion, Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.adaptive_consistency import leader_probability
from outthink.strategies.parallel.length_vote import LengthVote, length_weights, weighted_lead
from outthink.types import Sampling, Trace
from tests.tools.toys import problem
from tests.tools.virtual import run

KEYS = np.array([0, 1, 1, 0])
TOKENS = np.array([100, 300, 300, 100])

rows = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int64, n, elements=st.integers(-1, 2)), hnp.arrays(np.int64, n, elements=st.integers(1, 500))
    )
)


def drawn(keys: np.ndarray, tokens: np.ndarray) -> Drawn:
    keys, tokens = np.atleast_2d(keys), np.atleast_2d(tokens)
    order = np.broadcast_to(np.arange(keys.shape[-1]), keys.shape)
    return Drawn(
        keys=keys,
        tokens=tokens.astype(float),
        lengths=tokens.astype(float),
        complete=np.ones(keys.shape, bool),
        logprobs=None,
        scores=None,
        verdicts=None,
        paths=order,
        texts=None,
        order=order,
    )


def test_the_weight_is_the_exponential_of_the_standardised_length() -> None:
    weights = length_weights(KEYS, TOKENS)
    assert weights / weights[0] == pytest.approx([1, np.exp(-2), np.exp(-2), 1])
    assert length_weights(KEYS, TOKENS, 0.0) == pytest.approx(np.ones(4))
    assert length_weights(KEYS, np.full(4, 7)) == pytest.approx(np.ones(4))  # equal lengths say nothing
    assert length_weights([-1, 0, 0], [9000, 10, 12])[0] == 0


@given(rows, st.floats(0.1, 50), st.integers(0, 1000))
def test_neither_the_unit_nor_the_origin_of_lengths_matters(
    row: tuple[np.ndarray, ...], unit: float, more: int
) -> None:
    keys, tokens = row
    assert length_weights(keys, unit * tokens + more) == pytest.approx(length_weights(keys, tokens), rel=1e-5)


def test_the_lead_of_equal_weights_is_that_of_the_votes() -> None:
    assert weighted_lead([0, 0, 0, 1], np.full(4, 0.2)) == pytest.approx(leader_probability(3, 1))
    assert weighted_lead([0, 0, 0, 0], np.ones(4)) == pytest.approx(1 - 0.5**5)
    assert weighted_lead([-1, -1], np.ones(2)) == 0
    assert weighted_lead([0, 1], [3.0, 1.0]) == pytest.approx(leader_probability(1.5, 0.5))


@given(rows)
def test_without_weights_and_without_a_stop_it_is_the_majority(row: tuple[np.ndarray, ...]) -> None:
    keys, tokens = row
    replayed = LengthVote(exponent=0.0, threshold=1.01, portion=2).replay(drawn(keys, tokens))
    assert replayed.used.tolist() == [len(keys)]
    assert replayed.index[0] == majority(keys, lengths=tokens).index


def test_it_stops_after_the_portion_in_which_the_lead_is_sure() -> None:
    replayed = LengthVote(n=8, portion=4).replay(drawn(np.array([KEYS.repeat(2), [0] * 8]), np.full((2, 8), 50)))
    assert replayed.used.tolist() == [8, 4]


def answers(request: Request, child: int, rng: np.random.Generator) -> Completion:
    answer, tokens = [("5", 40), ("7", 400), ("7", 420), ("5", 44), ("5", 50), ("7", 410)][child % 6]
    return Completion(text=f"The answer is {answer}.", tokens=tokens, finish="eos")


def traced(strategy: str) -> Trace:
    return run(
        solve_async(
            problem(),
            make_strategy(strategy),
            model=ScriptedEngine(answers),
            sampling=Sampling(max_tokens=1000),
        )
    )


def test_short_thoughts_outvote_as_many_long_ones_and_are_asked_for_in_portions() -> None:
    trace = traced("length_vote?n=6&portion=4&threshold=1.01")
    assert trace.answer == "5"
    assert [len(each.candidates) for each in trace.rounds] == [4, 6]
    long = traced("length_vote?n=6&portion=4&threshold=1.01&exponent=-1")
    assert long.answer == "7"


def test_a_live_run_stops_where_its_replay_does() -> None:
    trace = traced("length_vote?n=6&portion=2&threshold=0.8")
    keys = np.array([0, 1, 1, 0, 0, 1])
    replayed = LengthVote(n=6, portion=2, threshold=0.8).replay(drawn(keys, np.array([40, 400, 420, 44, 50, 410])))
    assert len(trace.candidates) == replayed.used[0]


@pytest.mark.parametrize("wrong", ["n=0", "portion=0", "exponent=nan", "threshold=0"])
def test_what_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(Exception, match=wrong.split("=")[0]):
        make_strategy(f"length_vote?{wrong}")
