"""Turns on the event loop: so much announced work in a round, in order, with nobody lost."""

from __future__ import annotations

import asyncio
import time

from outthink.together import turn
from tests.tools.loops import held
from tests.tools.virtual import run

ROUND = 10_000


async def rounds(sizes: list[int], stopped: int | None = None) -> list[tuple[int, int]]:
    """The round of the loop in which each piece of work began, in the order in which they began."""
    now, begun = 0, []

    async def work(place: int, size: int) -> None:
        await turn(size)
        begun.append((place, now))

    tasks = [asyncio.create_task(work(place, size)) for place, size in enumerate(sizes)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        now += 1
        if stopped is not None and now == 2:
            tasks[stopped].cancel()
    return begun


def test_little_work_waits_for_nothing() -> None:
    assert run(rounds([100] * 100)) == [(place, 0) for place in range(100)]


def test_much_work_is_spread_over_rounds_in_order() -> None:
    begun = run(rounds([1000] * 35))
    assert [place for place, _ in begun] == list(range(35))
    taken = [sum(at == now for _, at in begun) for now in sorted({at for _, at in begun})]
    assert taken == [10, 10, 10, 5]


def test_what_is_larger_than_a_round_has_one_for_itself() -> None:
    begun = run(rounds([5 * ROUND, 100, 5 * ROUND, 100]))
    assert [place for place, _ in begun] == [0, 1, 2, 3]
    assert len({at for _, at in begun}) == 4


def test_one_that_is_cancelled_takes_nobodys_turn() -> None:
    begun = run(rounds([ROUND] * 6, stopped=4))
    assert [place for place, _ in begun] == [0, 1, 2, 3, 5]


def test_a_thousand_pieces_do_not_hold_the_loop_together() -> None:
    def burn() -> None:
        until = time.thread_time() + 0.001
        while time.thread_time() < until:
            pass

    async def piece() -> None:
        await turn(1000)
        burn()

    async def go() -> float:
        async with held() as loop:
            await asyncio.gather(*(piece() for _ in range(300)))
        return loop.longest

    assert asyncio.run(go()) < 0.1  # all of them take 0.3 s
