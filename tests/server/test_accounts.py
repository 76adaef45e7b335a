"""Limits of keys: never overspent, whoever asks and dies when, and nobody refused for what is only feared."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.errors import UsageError
from outthink.meter import Meter
from outthink.server.accounts import Accounts, Held, OverLimit, Purse, Uncountable
from outthink.server.allowances import NOW, Allowance, read_allowances, written
from outthink.server.book import BEAT, Book, spent
from outthink.types import Budget
from tests.tools.virtual import run

EPOCH = 1_796_083_160.0  # 2026-11-30 23:59:20 UTC: a minute, a day and a month end 40 seconds later
SLACK = 1 + 1e-6


class Inline(Executor):
    """Does at once what it is given, so that nothing depends on threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as failure:
            done.set_exception(failure)
        return done


class Wall:
    """The time of day, which goes with the loop's."""

    def __init__(self, at: float = EPOCH) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at + asyncio.get_running_loop().time()


def opened(path: Path, clock: Callable[[], float] | None = None) -> Accounts:
    return Accounts(Book(path), clock=clock or Wall(), executor=Inline())


def kill(accounts: Accounts) -> None:
    """As kill -9 does: nothing more is written."""
    accounts._closed = True
    if accounts._later is not None:
        accounts._later.cancel()
    accounts._book.abandon()


async def held(purse: Purse, tokens: float, upto: int = 1) -> Held:
    room = await purse.hold({"tokens": tokens}, upto)
    assert room is not None
    return room


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spent"


# ---------------------------------------------------------------- the limits


@pytest.mark.parametrize(
    "text",
    ["60-requests/minute", "100000-tokens/day,20usd/month", "8-concurrent", "60-requests/minute,0.5usd/day", ""],
)
def test_limits_are_written_as_they_are_read(text: str) -> None:
    assert written(read_allowances(text)) == text


def test_limits_in_short() -> None:
    assert read_allowances("100k-tokens/day, $ 20/month".replace("$ 20", "20$")) == (
        Allowance("tokens", "day", 100_000),
        Allowance("usd", "month", 20),
    )


@pytest.mark.parametrize(
    "text",
    ["5", "tokens/day", "5-tokens", "5-tokens/year", "5s/day", "2-concurrent/day", "0-tokens/day", "-1usd/day",
     "5usd/day,6usd/day", "0.5-requests/minute", "nan-tokens/day", "5-flops/day", "x" * 501],
)  # fmt: skip
def test_what_is_no_limit_says_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match="limit"):
        read_allowances(text)


@given(st.floats(0, 4e9), st.sampled_from(["minute", "day", "month"]))
def test_windows_follow_each_other(now: float, span: str) -> None:
    """Every moment is in one window, which ends where the next one begins."""
    one = Allowance("tokens", span, 1)
    assert one.began(now) <= now < one.ends(now)
    assert one.began(one.ends(now)) == one.ends(now)
    assert one.ends(one.began(now)) == one.ends(now)


# ---------------------------------------------------------------- what must hold whatever happens


@dataclass(frozen=True)
class Called:
    """A call of a request: n parts of at most `worst`, each of which really costs a share of that."""

    worst: int
    n: int
    share: float
    seconds: float


@dataclass(frozen=True)
class Asked:
    process: int
    owner: str
    at: float
    calls: tuple[Called, ...]
    leaves: float | None


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    call = st.builds(
        Called, st.integers(1, 60), st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        st.sampled_from([0.0, 0.03, 0.4, 2.0]),
    )  # fmt: skip
    return Asked(
        draw(st.integers(0, 1)),
        draw(st.sampled_from(["ann", "bob"])),
        draw(st.floats(36, 44)),  # around the end of a minute, of a day and of a month
        tuple(draw(st.lists(call, min_size=1, max_size=3))),
        draw(st.sampled_from([None, None, None, 0.2])),
    )


LIMITS = {
    "ann": read_allowances("100-tokens/minute,150-tokens/day,6-requests/minute,3-concurrent"),
    "bob": read_allowances("120-tokens/day,5-concurrent"),
}


@dataclass
class World:
    """What was really made, beside what is in the book."""

    path: Path
    made: dict[tuple[str, Allowance, int], float] = field(default_factory=lambda: defaultdict(float))
    settled: dict[tuple[str, Allowance, int], float] = field(default_factory=lambda: defaultdict(float))
    requests: dict[tuple[str, Allowance, int], int] = field(default_factory=lambda: defaultdict(int))
    running: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    killed: bool = False
    clock: Wall = field(default_factory=Wall)

    def windows(self, owner: str, unit: str) -> list[tuple[str, Allowance, int]]:
        return [(owner, one, one.began(self.clock())) for one in LIMITS[owner] if one.unit == unit]

    def check(self) -> None:
        for made in (self.made, self.requests):
            for (_, allowance, _), amount in made.items():
                assert amount <= allowance.amount * SLACK, allowance
        for owner, running in self.running.items():
            assert running <= next(one.amount for one in LIMITS[owner] if one.span == NOW)

    async def request(self, accounts: Accounts, one: Asked) -> None:
        """One request; it is cancelled where its process is killed, and then settles nothing."""
        try:
            purse = await accounts.enter(one.owner, LIMITS[one.owner])
        except OverLimit:
            return
        for window in self.windows(one.owner, "requests"):
            self.requests[window] += 1
        self.running[one.owner] += 1
        self.check()
        try:
            async with asyncio.timeout(one.leaves):
                for call in one.calls:
                    await self.call(purse, one.owner, call)
        except TimeoutError:
            pass
        finally:
            self.running[one.owner] -= 1
        purse.close()

    async def call(self, purse: Purse, owner: str, call: Called) -> None:
        left = call.n
        while left:
            room = await purse.hold({"tokens": call.worst}, left)
            windows = self.windows(owner, "tokens")
            if room is None:
                if not self.killed:  # then more is charged than was made
                    assert any(self.settled[at] + call.worst > at[1].amount for at in windows), "refused too early"
                return
            left -= room.n
            cost = call.worst * call.share * room.n
            for window in windows:
                self.made[window] += cost
            self.check()
            try:
                await asyncio.sleep(call.seconds)
            except asyncio.CancelledError:
                if not self.killed:
                    self.settle(room, windows, cost)
                raise
            self.settle(room, windows, cost)

    def settle(self, room: Held, windows: list[tuple[str, Allowance, int]], cost: float) -> None:
        room.settle({"tokens": cost})
        for window in windows:
            self.settled[window] += cost


async def world(path: Path, requests: list[Asked], dies: float | None) -> None:
    there = World(path)
    processes = [opened(path, there.clock) for _ in range(2)]
    tasks: list[set[asyncio.Task[None]]] = [set(), set()]

    async def one(asking: Asked) -> None:
        await asyncio.sleep(asking.at)
        task = asyncio.create_task(there.request(processes[asking.process], asking))
        tasks[asking.process].add(task)
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result()

    async def death() -> None:
        if dies is None:
            return
        await asyncio.sleep(dies)
        there.killed = True
        kill(processes[0])
        processes[0] = opened(path, there.clock)
        for task in tasks[0]:
            task.cancel()
        await asyncio.gather(*tasks[0], return_exceptions=True)

    await asyncio.gather(death(), *map(one, requests))
    await asyncio.sleep(5 * BEAT)
    for accounts in processes:  # they look for who has died
        try:
            (await accounts.enter("bob", LIMITS["bob"])).close()
        except OverLimit:
            pass
        await accounts.close()
    there.check()
    charged = spent(path)
    assert all(taken == amount for amount, taken in charged.values()), "something is still taken"
    for (owner, allowance, began), made in there.made.items():
        amount = charged.get((owner, "tokens", allowance.span, began), (0.0, 0.0))[0]
        assert made <= amount * SLACK <= allowance.amount * SLACK * SLACK
        if not there.killed:
            assert amount == pytest.approx(made)


@settings(max_examples=60)
@given(st.lists(asked(), min_size=1, max_size=14), st.none() | st.floats(36, 46))
def test_no_limit_is_overspent_and_nobody_is_refused_for_what_is_only_feared(
    requests: list[Asked], dies: float | None
) -> None:
    """Two processes, two keys, callers that leave, a kill, and the ends of a minute, a day and a month in between.

    In every window what was made is within the limit; at the end just that is charged, or after a kill what it may
    have been; nothing is reserved any more. A call is refused only where what others have been charged leaves no room
    for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        run(world(Path(folder) / "spent", requests, dies))
