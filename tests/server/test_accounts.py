"""Limits of keys: never overspent, whoever asks and dies when, and nobody refused for what is only feared."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
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
    """Does what it is given in the loop, so that nothing depends on threads.

    Args:
        seconds: until it is done, and again until that is heard of; 0: at once.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        heard: Future[Any] = Future()

        def work() -> None:
            try:
                tell = partial(heard.set_result, fn(*args, **kwargs))
            except BaseException as failure:
                tell = partial(heard.set_exception, failure)
            if self._seconds:
                asyncio.get_running_loop().call_later(self._seconds, tell)
            else:
                tell()

        if self._seconds:
            asyncio.get_running_loop().call_later(self._seconds, work)
        else:
            work()
        return heard


class Wall:
    """The time of day, which goes with the loop's."""

    def __init__(self, at: float = EPOCH) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at + asyncio.get_running_loop().time()


def opened(path: Path, clock: Callable[[], float] | None = None, seconds: float = 0.0) -> Accounts:
    return Accounts(partial(Book, path), clock=clock or Wall(), executor=Inline(seconds))


def kill(accounts: Accounts) -> None:
    """As kill -9 does: nothing more is written."""
    accounts._closed = True
    if accounts._later is not None:
        accounts._later.cancel()
    accounts.open()._file.close()


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
    entered: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    running: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    killed: bool = False
    clock: Wall = field(default_factory=Wall)

    def windows(self, owner: str) -> list[tuple[str, Allowance, int]]:
        return [(owner, one, one.began(self.clock())) for one in LIMITS[owner] if one.unit == "tokens"]

    def check(self) -> None:
        for (_, allowance, _), amount in self.made.items():
            assert amount <= allowance.amount * SLACK, allowance
        for owner, running in self.running.items():
            assert running <= next(one.amount for one in LIMITS[owner] if one.span == NOW)

    async def request(self, accounts: Accounts, one: Asked) -> None:
        """One request; it is cancelled where its process is killed, and then settles nothing."""
        try:
            purse = await accounts.enter(one.owner, LIMITS[one.owner])
        except OverLimit:
            return
        self.entered[one.owner] += 1
        self.running[one.owner] += 1
        self.check()
        try:
            async with asyncio.timeout(one.leaves):
                for call in one.calls:
                    await self.call(purse, one.owner, call, accounts)
        except TimeoutError:
            pass
        finally:
            self.running[one.owner] -= 1
        purse.close()

    async def call(self, purse: Purse, owner: str, call: Called, accounts: Accounts) -> None:
        left = call.n
        while left:
            room = await purse.hold({"tokens": call.worst}, left)
            windows = self.windows(owner)
            if room is None:
                if not self.killed:  # then more is charged than was made
                    assert any(self.settled[at] + call.worst > at[1].amount for at in windows), "refused too early"
                return
            # that of the moment in which it was granted, which may have ended when it is heard of
            granted = [window for window, _ in room._parts["tokens"]]
            windows = [
                (owner, window.allowance, place[3]) for place, window in accounts._windows.items() if window in granted
            ]
            left -= room.n
            cost = call.worst * call.share * room.n
            for window in windows:
                self.made[window] += cost
            self.check()
            try:
                await asyncio.sleep(call.seconds)
            except asyncio.CancelledError:
                if not accounts._closed:  # else nothing is left that could
                    self.settle(room, windows, cost)
                raise
            self.settle(room, windows, cost)

    def settle(self, room: Held, windows: list[tuple[str, Allowance, int]], cost: float) -> None:
        room.settle({"tokens": cost})
        for window in windows:
            self.settled[window] += cost


async def world(path: Path, requests: list[Asked], dies: float | None, disk: float) -> None:
    there = World(path)
    processes = [opened(path, there.clock, disk) for _ in range(2)]
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
        processes[0] = opened(path, there.clock, disk)
        for task in tasks[0]:
            task.cancel()
        await asyncio.gather(*tasks[0], return_exceptions=True)

    await asyncio.gather(death(), *map(one, requests))
    await asyncio.sleep(5 * BEAT)
    for accounts in processes:  # they look for who has died
        with contextlib.suppress(OverLimit):
            (await accounts.enter("bob", LIMITS["bob"])).close()
        await accounts.close()
    there.check()
    charged = spent(path)
    assert all(taken == amount for amount, taken in charged.values()), "something is still taken"
    for (owner, allowance, began), made in there.made.items():
        amount = charged.get((owner, "tokens", allowance.span, began), (0.0, 0.0))[0]
        assert made <= amount * SLACK <= allowance.amount * SLACK * SLACK
        if not there.killed:
            assert amount == pytest.approx(made)
    assert all(amount <= 6 for (_, unit, *_), (amount, _) in charged.items() if unit == "requests")
    if not there.killed:
        counted = sum(
            amount for (owner, unit, *_), (amount, _) in charged.items() if (owner, unit) == ("ann", "requests")
        )
        assert counted == there.entered["ann"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(asked(), min_size=1, max_size=14), st.none() | st.floats(36, 46), st.sampled_from([0.0, 0.02]))
def test_no_limit_is_overspent_and_nobody_is_refused_for_what_is_only_feared(
    requests: list[Asked], dies: float | None, disk: float
) -> None:
    """Two processes, two keys, callers that leave, a kill, and the ends of a minute, a day and a month in between.

    In every window what was made is within the limit; at the end just that is charged, or after a kill what it may
    have been; nothing is reserved any more. A call is refused only where what others have been charged leaves no room
    for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        run(world(Path(folder) / "spent", requests, dies, disk))


# ---------------------------------------------------------------- one thing at a time


def test_a_burst_is_served_while_nothing_is_spent(path: Path) -> None:
    """The worst cases of a burst are 50 times what is left: each call waits until those before it came to little."""

    async def go() -> None:
        accounts = opened(path)

        async def one() -> None:
            purse = await accounts.enter("ann", read_allowances("1100-tokens/day"))
            for _ in range(5):
                room = await held(purse, 1000)
                await asyncio.sleep(0.01)
                room.settle({"tokens": 1})
            purse.close()

        await asyncio.gather(*(one() for _ in range(10)))
        await accounts.close()

    run(go())
    assert spent(path) == {("ann", "tokens", "day", 1796083160 // 86400 * 86400): (50.0, 50.0)}


def test_what_is_given_back_is_there_for_others_before_the_request_ends(path: Path) -> None:
    async def go() -> float:
        accounts, limits = opened(path), read_allowances("100-tokens/day")
        first, second = await accounts.enter("ann", limits), await accounts.enter("ann", limits)
        room = await held(first, 90)
        waiting = asyncio.create_task(held(second, 80))
        await asyncio.sleep(1)
        assert not waiting.done()
        room.settle({"tokens": 10})
        await waiting
        at = asyncio.get_running_loop().time()
        kill(accounts)
        return at

    assert run(go()) == 1.0


@pytest.mark.parametrize(("limit", "left"), [("100-tokens/day", 100), ("100-tokens/minute,150-tokens/day", 100)])
def test_parts_that_do_not_fit_are_left_out(path: Path, limit: str, left: int) -> None:
    """Eight samples of 30 are asked for and three begin, as with a request's own budget."""

    async def go() -> None:
        accounts = opened(path)
        purse = await accounts.enter("ann", read_allowances(limit))
        assert purse.left() == {"tokens": left}
        room = await held(purse, 30, 8)
        assert room.n == 3
        room.settle({"tokens": 85})
        assert await purse.hold({"tokens": 30}, 1) is None
        assert isinstance(purse.failure, OverLimit)
        with pytest.raises(OverLimit, match=r"^The key ann has a limit of 1[05]0 tokens a (day|minute), which is used"):
            purse.check({"tokens": 30})
        with pytest.raises(OverLimit, match=r"is less than one sample of this request may take") as told:
            purse.check({"tokens": 101})
        assert told.value.never
        purse.check({"tokens": 15})
        purse.close()
        await accounts.close()

    run(go())


def test_a_meter_keeps_the_shared_budget_too(path: Path) -> None:
    """What a meter admits is what both budgets allow, and what its calls did not use is there again."""

    async def go() -> None:
        accounts = opened(path)
        meter = Meter(Budget({"tokens": 1000}))
        meter.shared = purse = await accounts.enter("ann", read_allowances("100-tokens/day"))
        first = await meter.admit({"tokens": 30}, 8)
        assert first is not None
        assert first.n == 3
        meter.release(first)
        async with meter.work("search", "judge", ("judge", 0), worst={"tokens": 95}) as work:
            assert work is not None
            work.cost = {"tokens": 40}
        assert await meter.admit({"tokens": 61}) is None
        assert (meter.refused, meter.left()) == (1, {"tokens": 960})
        assert purse.left() == {"tokens": 60}
        waits = asyncio.create_task(meter.admit({"tokens": 50}))
        other = await held(await accounts.enter("ann", read_allowances("100-tokens/day")), 0)
        other.settle({})
        assert (await waits) is not None
        kill(accounts)

    run(go())


def test_who_leaves_while_waiting_holds_nothing(path: Path) -> None:
    async def go() -> None:
        accounts, limits = opened(path), read_allowances("100-tokens/day")
        purse = await accounts.enter("ann", limits)
        room = await held(purse, 90)
        leaver = asyncio.create_task(purse.hold({"tokens": 20}, 1))
        await asyncio.sleep(0.3)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        room.settle({})
        second = await held(purse, 90)
        late = asyncio.create_task(purse.hold({"tokens": 20}, 1))
        await asyncio.sleep(0.3)
        second.settle({})  # now it is granted
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        purse.close()
        await accounts.close()

    run(go())
    assert all(taken == 0 for _, taken in spent(path).values())


def test_each_window_begins_empty_and_is_charged_what_began_in_it(path: Path) -> None:
    async def go() -> None:
        accounts, limits = opened(path), read_allowances("100-tokens/minute")
        purse = await accounts.enter("ann", limits)
        await asyncio.sleep(39)
        room = await held(purse, 100)
        assert await accounts.enter("ann", limits) is not None
        await asyncio.sleep(2)  # the minute has ended
        next_one = await held(purse, 100)
        room.settle({"tokens": 70})
        next_one.settle({"tokens": 60})
        assert purse.left() == {"tokens": 40}
        await accounts.close()

    run(go())
    assert {place[3]: amount[0] for place, amount in spent(path).items()} == {1796083140: 70.0, 1796083200: 60.0}


def test_how_limits_stand_is_told_as_clients_know_it(path: Path) -> None:
    async def go() -> None:
        limits = read_allowances("3-requests/minute,9-requests/day,1000-tokens/minute,800-tokens/day")
        accounts = opened(path)
        purse = await accounts.enter("ann", limits)
        (await held(purse, 300)).settle({"tokens": 100})
        assert accounts.headers("ann", limits) == {
            "x-ratelimit-limit-requests": "3",
            "x-ratelimit-remaining-requests": "2",
            "x-ratelimit-reset-requests": "40s",
            "x-ratelimit-limit-tokens": "800",
            "x-ratelimit-remaining-tokens": "700",
            "x-ratelimit-reset-tokens": "40s",
        }
        await accounts.enter("ann", limits)
        await accounts.enter("ann", limits)
        with pytest.raises(OverLimit, match="3 requests a minute, which is used up until 2026-12-01 00:00 UTC") as over:
            await accounts.enter("ann", limits)
        assert over.value.retry == 40
        kill(accounts)

    run(go())


# ---------------------------------------------------------------- other processes, and files that fail


def test_what_a_killed_process_had_taken_is_charged(path: Path) -> None:
    """It is charged in full once it has been silent for a while, and before that nobody else can spend it."""
    limits = '"1000-tokens/day,2-concurrent"'
    program = f"""
import asyncio, os, signal
from pathlib import Path
from outthink.server.accounts import Accounts
from outthink.server.allowances import read_allowances
from outthink.server.book import Book

async def go():
    accounts = Accounts(lambda: Book(Path({str(path)!r})), clock=lambda: {EPOCH})
    purse = await accounts.enter("ann", read_allowances({limits}))
    (await purse.hold({{"tokens": 100}}, 1)).settle({{"tokens": 10}})
    await purse.hold({{"tokens": 300}}, 2)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(go())
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL

    async def go() -> None:
        accounts, limits = opened(path), read_allowances("1000-tokens/day,2-concurrent")
        purse = await accounts.enter("ann", limits)
        left = purse.left()["tokens"]
        assert 990 <= left <= 1000  # what it had taken may still come to nothing
        waiting = asyncio.create_task(purse.hold({"tokens": 500}, 1))
        await asyncio.sleep(2 * BEAT)
        assert not waiting.done()
        assert await waiting is None
        assert 340 < purse.left()["tokens"] <= 390  # 10, twice 300, and a little that it had taken in advance
        assert await accounts.enter("ann", limits) is not None  # its place is free again
        kill(accounts)

    run(go())


def test_a_process_that_was_taken_for_dead_pays_nothing_twice(path: Path) -> None:
    async def go() -> None:
        limits = read_allowances("100-tokens/day,2-concurrent")
        clock = Wall()
        frozen, other = opened(path, clock), opened(path, clock)
        purse = await frozen.enter("ann", limits)
        room = await held(purse, 40)
        assert frozen._later is not None
        frozen._later.cancel()  # as it is while a machine sleeps
        frozen._later = None
        await asyncio.sleep(5 * BEAT)
        theirs = await other.enter("ann", limits)
        assert theirs.left() == {"tokens": pytest.approx(60, abs=3)}
        room.settle({"tokens": 15})
        purse.close()
        purse = await frozen.enter("ann", limits)
        (await held(purse, 20)).settle({"tokens": 20})  # within the 40 that are charged
        (await held(purse, 50)).settle({"tokens": 5})
        purse.close()
        theirs.close()
        await frozen.close()
        await other.close()

    run(go())
    ((charged, taken),) = {amount for place, amount in spent(path).items() if place[1] == "tokens"}
    assert charged == taken == pytest.approx(45, abs=3)


FAULTS: dict[str, Callable[[Path, Accounts], Any]] = {
    "locked": lambda path, _: _locked(path),
    "full": lambda _, accounts: _full(accounts),
    "damaged": lambda path, _: _damaged(path),
}


def _locked(path: Path) -> sqlite3.Connection:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def _full(accounts: Accounts) -> None:
    file = accounts.open()._file
    (pages,) = file.execute("PRAGMA page_count").fetchone()
    file.execute(f"PRAGMA max_page_count = {pages}")


def _damaged(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE spending")


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_begins_that_nobody_could_count(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """And where it can be written again, all goes on, with what was settled meanwhile."""
    monkeypatch.setattr("outthink.server.book._PATIENCE", 0.0)

    async def go() -> None:
        accounts, limits = opened(path), read_allowances("1000-tokens/day,9-requests/minute")
        purse = await accounts.enter("ann", limits)
        room = await held(purse, 100)
        broken = FAULTS[fault](path, accounts)
        room.settle({"tokens": 60})
        with caplog.at_level(logging.ERROR):
            refused = [
                await asyncio.gather(accounts.enter(f"{'k' * 60}{name:03}", limits), return_exceptions=True)
                for name in range(100)
            ]
            assert isinstance(refused[-1][0], Uncountable)
            assert await purse.hold({"tokens": 700}, 1) is None
            assert isinstance(purse.failure, Uncountable)
        assert sum("cannot be written" in record.message for record in caplog.records) == 1
        if fault == "locked":
            broken.close()
            await asyncio.sleep(5)
            (await held(await accounts.enter("ann", limits), 900)).settle({"tokens": 100})
        await accounts.close()

    run(go())
    if fault == "locked":
        assert {amount for place, amount in spent(path).items() if place[0] == "ann" and place[1] == "tokens"} == {
            (160.0, 160.0)
        }


def test_a_clock_that_is_set_back_opens_no_window_anew(path: Path) -> None:
    """What was charged in a window counts in it also where it comes again, and what a dead process has taken, too."""

    async def go() -> None:
        wall = Wall(EPOCH - 40)
        accounts, other, limits = opened(path, wall), opened(path, wall), read_allowances("100-tokens/minute")
        (await held(await accounts.enter("ann", limits), 60)).settle({"tokens": 60})
        await asyncio.sleep(1)
        wall.at += 60
        (await held(await accounts.enter("ann", limits), 90)).settle({"tokens": 90})
        await asyncio.sleep(5)
        assert {place[3] for place in accounts._windows} == {int(wall() // 60) * 60}, "what has ended is forgotten"
        wall.at -= 60
        late = await accounts.enter("ann", limits)
        assert await late.hold({"tokens": 41}, 1) is None
        (await held(late, 40)).settle({"tokens": 40})
        purse = await other.enter("bob", limits)
        await held(purse, 100)
        kill(other)
        wall.at -= 3600
        (await held(await accounts.enter("bob", limits), 1)).settle({"tokens": 1})
        await accounts.close()

    run(go())
    charged = {place[0::3]: amounts for place, amounts in spent(path).items()}
    minute = int((EPOCH - 40) // 60) * 60
    assert charged["ann", minute] == (100.0, 100.0)
    assert charged["ann", minute + 60] == (90.0, 90.0)
    assert charged["bob", minute] == (100.0, 100.0)


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"x" * 5000], ids=["text", "half"])
def test_a_file_of_something_else_is_not_begun_with(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError, match="does not hold what keys have spent, or is damaged: move it away"):
        Book(path)
    assert path.read_bytes() == content


def test_another_database_is_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
    with pytest.raises(UsageError, match="does not hold what keys have spent"):
        Book(path)


def test_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^Cannot write what keys spend to .*: No such file or directory; name anoth"):
        Book(tmp_path / "no" / "file")
    with pytest.raises(UsageError, match="Is a directory"):
        Book(tmp_path)
