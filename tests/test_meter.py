from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from outthink.meter import Meter
from outthink.types import Budget, Call
from tests.tools.virtual import run


@dataclass(frozen=True)
class Job:
    """One request: n children of at most `worst`, which really cost `actual`, after `delay` seconds."""

    worst: int
    actual: tuple[int, ...]
    delay: float


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    worst = draw(st.integers(1, 50))
    actual = draw(st.lists(st.integers(0, worst), min_size=1, max_size=6))
    return Job(worst, tuple(actual), draw(st.floats(0, 10)))


def call(cost: float, n: int = 1) -> Call:
    return Call(kind="sample", role="model", address=("model", 0, 0), n=n, cost={"tokens": cost})


async def started(limit: int, batch: list[Job], delays: list[float]) -> tuple[list[int], Meter]:
    """How many children of each job the meter starts, checking at every moment that the limit holds."""
    meter = Meter(Budget({"tokens": limit}))
    counts = [0] * len(batch)

    async def settle(reservation: object, cost: int, n: int, delay: float) -> None:
        await asyncio.sleep(delay)
        meter.settle(reservation, call(cost, n))  # type: ignore[arg-type]  # it is a Reservation
        assert meter.cost()["tokens"] <= limit

    async with asyncio.TaskGroup() as tasks:
        for index, (job, delay) in enumerate(zip(batch, delays, strict=True)):
            while counts[index] < len(job.actual):
                reservation = await meter.admit({"tokens": job.worst}, len(job.actual) - counts[index])
                if reservation is None:
                    break
                first, n = counts[index], reservation.n
                counts[index] += n
                tasks.create_task(settle(reservation, sum(job.actual[first : first + n]), n, delay))
    return counts, meter


def reference(limit: int, batch: list[Job]) -> list[int]:
    """The rule itself: a child starts iff what those before it really cost leaves room for its worst case."""
    spent, counts = 0, []
    for job in batch:
        count = 0
        for actual in job.actual:
            if spent + job.worst > limit:
                break
            spent, count = spent + actual, count + 1
        counts.append(count)
    return counts


@given(st.integers(1, 400), st.lists(jobs(), max_size=8), st.randoms(use_true_random=False))
def test_what_starts_follows_the_rule_whatever_finishes_first(limit: int, batch: list[Job], random: object) -> None:
    delays = [job.delay for job in batch]
    counts, meter = run(started(limit, batch, delays))
    assert counts == reference(limit, batch)
    assert meter.refused == sum(len(job.actual) for job in batch) - sum(counts)
    random.shuffle(delays)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert run(started(limit, batch, delays))[0] == counts


@given(st.lists(jobs(), min_size=1, max_size=6), st.integers(1, 300), st.floats(0, 12))
def test_cancelling_leaves_no_reservation(batch: list[Job], limit: int, moment: float) -> None:
    async def go() -> None:
        meter = Meter(Budget({"tokens": limit}))

        async def one(job: Job) -> None:
            reservation = await meter.admit({"tokens": job.worst})
            if reservation is None:
                return
            try:
                await asyncio.sleep(job.delay)
            finally:
                meter.settle(reservation, call(job.actual[0]))

        tasks = [asyncio.create_task(one(job)) for job in batch]
        await asyncio.sleep(moment)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert meter.left()["tokens"] == limit - sum(c.cost["tokens"] for c in meter.calls) >= 0

    run(go())


def test_a_smaller_request_may_start_after_a_larger_one_was_refused() -> None:
    async def go() -> None:
        meter = Meter(Budget({"tokens": 10}))
        assert await meter.admit({"tokens": 11}) is None
        assert await meter.admit({"tokens": 10}) is not None

    run(go())


def test_every_unit_is_enforced_and_unknown_units_cost_nothing() -> None:
    async def go() -> None:
        meter = Meter(Budget({"tokens": 100, "images": 2}))
        first = await meter.admit({"tokens": 10, "images": 1}, upto=5)
        assert first is not None
        assert first.n == 2
        second = asyncio.create_task(meter.admit({"tokens": 10}))
        await asyncio.sleep(0)
        assert second.done()

    run(go())


def test_an_overrun_stops_everything_and_is_charged() -> None:
    async def go() -> None:
        meter = Meter(Budget({"tokens": 100}))
        first = await meter.admit({"tokens": 10})
        waiting = asyncio.create_task(meter.admit({"tokens": 95}))
        await asyncio.sleep(0)
        assert first is not None
        assert meter.settle(first, call(30))
        assert await waiting is None
        assert await meter.admit({"tokens": 1}) is None
        assert meter.overrun
        assert meter.cost()["tokens"] == 30

    run(go())


def test_a_budget_of_exactly_what_is_needed_does() -> None:
    async def go() -> None:
        meter = Meter(Budget({"usd": 0.3}))
        assert (await meter.admit({"usd": 0.1}, upto=3)).n == 3  # type: ignore[union-attr]  # 3 * 0.1 > 0.3 in floats

    run(go())
