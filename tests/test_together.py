"""Turns on the event loop: so much announced work in a round, in order, with nobody lost."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings

import pytest

from outthink.together import each, in_line, together, turn
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


async def finished(pieces: list[int]) -> list[int]:
    """The places of those that do so many pieces of work, in the order in which they are done; all begin together."""
    done: list[int] = []

    async def work(place: int, count: int) -> None:
        await each(abs, range(count))
        done.append(place)

    await together(*(work(place, count) for place, count in enumerate(pieces)))
    return done


def test_who_has_little_to_do_overtakes_nobody_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outthink.together._SLICE", -1.0)  # a pause after every piece
    assert run(finished([5, 1, 3])) == [1, 2, 0]

    async def lined_up() -> list[int]:
        with in_line():
            task = asyncio.create_task(finished([5, 1, 3]))
        return await task

    assert run(lined_up()) == [0, 1, 2]


def test_coroutines_begin_a_few_at_a_time_and_none_is_left_open() -> None:
    begun: list[int] = []

    async def fail(place: int) -> None:
        begun.append(place)
        if place == 7:
            raise ValueError("seven")
        await asyncio.sleep(60)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a coroutine that nobody awaits warns
        with pytest.raises(ValueError, match="seven"):
            run(together(*(fail(place) for place in range(1000))))
        gc.collect()
    assert begun == list(range(len(begun)))
    assert 8 <= len(begun) < 200
