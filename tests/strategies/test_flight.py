"""Samples in flight: the same samples in whatever portions, in order of address, cancelled and charged at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from outthink import Budget, Candidate, Model, Problem, Report, Sampling, Trace
from outthink.driver import solve_async
from outthink.errors import EngineError, NothingCameBack
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.flight import Flight, flight
from outthink.strategies.parallel.self_consistency import SelfConsistency
from tests.tools import virtual

Look = Callable[[Flight], Any]


@dataclass(frozen=True, kw_only=True)
class Looking:
    """Looks at `n` samples, `ahead` in flight, and stops after `stop` of them."""

    n: int = 8
    ahead: int = 4
    stop: int = 8
    arrival: bool = False

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        seen: list[Candidate] = []
        async with flight(model.draws(problem), self.n, self.ahead) as flying:
            while len(seen) < self.stop:
                sample = await (flying.first() if self.arrival else flying.next())
                if sample is None:
                    break
                seen.append(sample)
                report(seen, chosen=seen[-1])


def says(request: Request, child: int, rng: np.random.Generator) -> str:
    return f"#### {rng.integers(1000)}"


def solved(strategy: Any, reply: Any = says, latency: Any = None, budget: Budget | None = None) -> Trace:
    engine = ScriptedEngine(reply, latency=latency)
    return virtual.run(
        solve_async("What is it?", strategy, model=engine, budget=budget, sampling=Sampling(max_tokens=20), seed=3)
    )


def texts(trace: Trace) -> list[str]:
    return [candidate.text for candidate in trace.candidates]


def backwards(request: Request, child: int) -> float:
    return 10.0 - child


@pytest.mark.parametrize("latency", [None, backwards, lambda request, child: float(child % 3)])
@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_samples_are_those_of_one_request_in_its_order(ahead: int, latency: Any) -> None:
    whole = solved(SelfConsistency(n=8))
    trace = solved(Looking(ahead=ahead), latency=latency)
    assert texts(trace) == texts(whole)
    assert trace.usage == whole.usage
    assert [round.chosen for round in trace.rounds] == [candidate.id for candidate in trace.candidates]


def test_what_is_in_flight_at_the_end_is_cancelled_and_charged() -> None:
    def slow(request: Request, child: int) -> float:
        return 1.0 if child < 2 else 10.0

    trace = solved(Looking(stop=2, ahead=4), latency=slow)
    assert len(trace.candidates) == 2
    cancelled = [call for call in trace.calls if call.outcome == "cancelled"]
    assert len(cancelled) == 2  # a fifth one was not begun yet
    assert all(call.charged.prompt > 0 for call in cancelled)
    assert trace.seconds == pytest.approx(1.0)


def test_by_arrival_the_quickest_comes_first() -> None:
    trace = solved(Looking(n=4, ahead=4, stop=1, arrival=True), latency=backwards)
    assert trace.rounds[-1].chosen == "model/0/3"


def test_a_failed_sample_is_left_out() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("down") if child in (0, 2) else says(request, child, rng)

    trace = solved(Looking(n=4), reply)
    assert [candidate.id for candidate in trace.candidates] == ["model/0/1", "model/0/3"]
    assert trace.stopped == "finished"


def test_where_all_fail_the_cause_is_raised() -> None:
    with pytest.raises(NothingCameBack, match="down"):
        solved(Looking(n=4), lambda *_: EngineError("down"))


@pytest.mark.parametrize("ahead", [1, 2, 8])
def test_the_budget_ends_it_with_what_it_has(ahead: int) -> None:
    probe = solved(Looking(n=1))
    prompt = probe.usage.prompt
    trace = solved(Looking(ahead=ahead), budget=Budget({"tokens": 2 * (prompt + 20)}))
    assert trace.stopped == "budget"
    assert trace.cost["tokens"] <= 2 * (prompt + 20)
    assert len(trace.candidates) == 3


def test_a_cancelled_strategy_leaves_nothing_running() -> None:
    async def go() -> Trace:
        engine = ScriptedEngine(says, latency=lambda request, child: 5.0)
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(2.0, stop.set)
        return await solve_async("What is it?", Looking(), model=engine, stop=stop)

    trace = virtual.run(go())
    assert trace.stopped == "cancelled"
    assert [call.outcome for call in trace.calls] == ["cancelled"] * 4
