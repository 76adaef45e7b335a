"""Every strategy does the same on a busy machine, where work is paused anywhere, with a budget that refuses a part.

Pauses are drawn at random with fixed seeds, so it raises no false alarm.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from outthink import together
from outthink.driver import solve_async
from outthink.strategies import STRATEGIES, Strategy, traits
from outthink.strategies.making import import_all, make_strategy
from outthink.types import Budget, Code, Message, Problem, Sampling, Trace
from tests.rewards.test_largest import Different
from tests.strategies.test_largest import TOKENS, Quick, score
from tests.tools.every import small


class Sometimes:
    """A slice of time that is over at random."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def __lt__(self, seconds: float) -> bool:
        return self._rng.random() < 0.5


def done(trace: Trace) -> list[Any]:
    """What a trace says but for times."""
    return [
        trace.stopped,
        trace.candidates,
        [(one.candidates, one.scores, one.chosen, one.cost) for one in trace.rounds],
        [(call.address, call.n, call.outcome, call.charged) for call in trace.calls],
        trace.notes,
    ]


def wide(name: str) -> Strategy:
    """The strategy with eight chains or answers, where it takes a number of them."""
    strategy = make_strategy(name, small(name))
    field = traits.size(strategy)
    return strategy if field is None else replace(strategy, **{field: 8})


@pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - {"dvts"}))  # its trees go on as fast as each can
def test_pauses_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import_all()

    def solved(tokens: float | None, pause: Any) -> Trace:
        monkeypatch.setattr(together, "_SLICE", pause)
        return asyncio.run(
            solve_async(
                Problem(id="p", messages=(Message(content="How many?"),), answer="math", code=Code(entry_point="f")),
                wide(name),
                model=Different("all of these"),
                reader=Quick(),
                verifier=score,
                prm=score,
                sampling=Sampling(max_tokens=TOKENS),
                budget=Budget({} if tokens is None else {"tokens": tokens}),
                resources={"sandbox": None},
            )
        )

    whole = sum(call.charged.tokens for call in solved(None, 1e9).calls)
    budgets = [max(whole * part, 1.5 * TOKENS) for part in (0.5, 0.65, 0.8, 0.875, 0.95)]
    for seed, budget in enumerate(budgets):
        assert done(solved(budget, Sometimes(seed))) == done(solved(budget, 1e9))
