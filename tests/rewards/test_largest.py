"""Every named scorer on 1,024 different hostile answers leaves the event loop free.

What is measured, and the bound, are those of the strategies at their largest.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from outthink.driver import solve_async
from outthink.models.engine import Completion, Progress, Request
from outthink.rewards import SCORERS
from outthink.strategies.making import import_all, make_strategy
from outthink.types import Code, Message, Problem, Sampling, Trace
from tests.strategies.test_largest import BOUND, MOST, Prepared, Quick
from tests.tools.loops import held

STEPS = {"advantage": "advantage?prm=confidence", "rollout": "rollout?verifier=confidence"}
"""Those that score steps only."""

SIZES = {"pairwise": 64}
"""Where fewer than the largest number is much work already."""


class Different(Prepared):
    """Each text with a number of its own, since equal ones are judged once."""

    async def generate(self, request: Request, progress: Progress) -> None:
        inner = Progress(request.n)
        await super().generate(request, inner)
        progress.slack = 0
        for position, result in enumerate(inner.results):
            assert isinstance(result, Completion)
            number = f"{request.child + position} " if not request.labels else ""
            progress.finish(position, replace(result, text=number + result.text))


async def scored(name: str, kind: str) -> tuple[float, Trace]:
    """The longest round of the loop in processor time, and the trace."""
    role = "prm" if name in STEPS else "verifier"
    problem = Problem(id="p", messages=(Message(content="How many?"),), answer="math", code=Code(entry_point="f"))
    given: dict[str, Any] = {role: STEPS.get(name, name)}
    async with held() as loop:
        trace = await solve_async(
            problem,
            make_strategy(f"best_of_n?n={SIZES.get(name, MOST)}"),
            model=Different(kind),
            reader=Quick(),
            sampling=Sampling(max_tokens=20_000),
            resources={"sandbox": None},
            **given,
        )
    return loop.longest, trace


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_no_scorer_keeps_the_event_loop_for_long(name: str) -> None:
    import_all()
    longest, trace = asyncio.run(scored(name, "one character"))
    assert len(trace.candidates) >= SIZES.get(name, MOST)
    if longest >= BOUND:  # what stops a virtual machine counts as work of the thread; what is long is so again
        longest, _ = asyncio.run(scored(name, "one character"))
    assert longest < BOUND
