"""Keeps every key within its limits: each call takes its worst case first and gives back what it did not use.

A call may begin if, in every window that it falls into, what has been charged and the worst cases of all calls that
run, its own included, are within the limit. If only calls that run stand in its way, it waits for them, in order. It is
refused where it would not fit if all of them came to nothing: the window has to end first. What it uses is charged to
the window in which it began. So nobody is refused for what others only might spend, and no window is overspent.

What is charged and taken is in a `Book`, which other processes share. It is written by a thread, seldom: as much as is
taken there can be used here without asking. Where it cannot be written, nothing further begins.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from outthink.errors import OutthinkError, UsageError
from outthink.server.allowances import CONCURRENT, NOW, REQUESTS, Allowance
from outthink.server.book import BEAT, Book, Covering, Place, Portion, Settled, fits
from outthink.server.gate import Busy

_logger = logging.getLogger("outthink.server")
_FLUSH = 0.25  # seconds after which others know what was used
_LOOK = 0.05, 0.8  # seconds after which it is looked whether other processes have given something back, ever more
_AGAIN = 1.0  # seconds after which writing is tried again
_ONE = {REQUESTS: 1.0, CONCURRENT: 1.0}


class OverLimit(OutthinkError):
    """A limit of the key is used up.

    Args:
        allowance: which one.
        retry: seconds until it begins anew.
        never: one sample is more than the whole limit, so that waiting does not help.
    """

    def __init__(self, owner: str, allowance: Allowance, now: float, *, never: bool = False) -> None:
        self.allowance = allowance
        self.retry = allowance.ends(now) - now
        self.never = never
        if never:
            told = "is less than one sample of this request may take; ask for less."
        elif allowance.span == NOW:
            told = "and all of them are running; try again when one has ended."
        else:
            told = f"which is used up until {datetime.fromtimestamp(allowance.ends(now), UTC):%Y-%m-%d %H:%M} UTC."
        super().__init__(f"The key {owner} has a limit of {allowance.told}{'' if never else ','} {told}")


class Uncountable(OutthinkError):
    """What keys spend cannot be written, so nothing is done for keys with limits."""

    def __init__(self) -> None:
        super().__init__("What your key spends cannot be counted just now, so nothing is done for it; try again later.")


@dataclass(eq=False, slots=True)
class _Window:
    """One limit in one window, as this process knows it."""

    allowance: Allowance
    limit: float
    charged: float = 0.0
    held: float = 0.0
    asked: float = 0.0  # since the last round
    covered: float = 0.0
    written: float = 0.0  # of what is charged, what the book knows
    others: Covering | None = None

    @property
    def changed(self) -> bool:
        return self.others is None or self.charged != self.written or self.covered > self.charged + self.held

    def used_up(self, worst: float) -> bool:
        """Whether a part of this worst case would not fit if all that runs came to nothing."""
        if self.others is None or worst <= 0:
            return False
        taken = self.others.taken + self.held if self.allowance.span == NOW else self.others.charged
        return fits(self.limit - taken - self.charged, self.limit, worst) < 1


@dataclass(frozen=True, slots=True)
class _Current:
    """The windows of a key's limits by unit, and from when until when they are those of the moment."""

    limits: Sequence[Allowance]
    since: float
    until: float
    parts: dict[str, list[_Window]]


class Held:
    """Room that was taken for `n` parts of a call."""

    __slots__ = ("_accounts", "_parts", "n")

    def __init__(self, accounts: Accounts, parts: Mapping[str, Sequence[tuple[_Window, float]]], n: int) -> None:
        self._accounts = accounts
        self._parts = dict(parts)
        self.n = n

    def settle(self, cost: Mapping[str, float]) -> None:
        """Give it back and charge what was used, by unit; once for each unit."""
        for unit, parts in self._parts.items():
            for window, worst in parts:
                window.held = max(0.0, window.held - worst * self.n)
                window.charged += cost.get(unit, 0.0)
        self._parts = {}
        self._accounts.freed()

    def charge(self, unit: str) -> None:
        """Charge what is held of one unit now."""
        for window, worst in self._parts.pop(unit, ()):
            window.held = max(0.0, window.held - worst * self.n)
            window.charged += worst * self.n


@dataclass(eq=False, slots=True)
class _Asking:
    """A request for room that waits."""

    owner: str
    limits: Sequence[Allowance]
    worst: Mapping[str, float]
    upto: int
    answer: asyncio.Future[Held | None]
    looked: bool = False  # what others have taken was looked at since it came
    refused: Allowance | None = None


class Purse:
    """What one request may spend of its key's limits; `Accounts.enter` makes it.

    A meter takes room for each of its calls from it.
    """

    def __init__(self, accounts: Accounts, owner: str, limits: Sequence[Allowance]) -> None:
        self._accounts = accounts
        self._owner = owner
        self._limits = limits
        self._entered: Held | None = None
        self.failure: OutthinkError | None = None
        """Why nothing more could be begun, last."""

    async def enter(self) -> None:
        """Count the request, and it as running; raises OverLimit and Uncountable."""
        self._entered = await self._take({**dict.fromkeys(("tokens", "usd"), 0.0), **_ONE}, 1)
        if self._entered is None:
            assert self.failure is not None
            raise self.failure
        self._entered.charge(REQUESTS)

    async def hold(self, worst: Mapping[str, float], upto: int) -> Held | None:
        """Room for 1 to `upto` parts of a call of at most this cost each; None where not even one can begin.

        Waits while only calls that run stand in the way. `failure` says why there is none.
        """
        return await self._take(worst, upto)

    def left(self) -> dict[str, float]:
        """The most that can be spent now, by unit, if all that runs came to nothing."""
        left: dict[str, float] = {}
        for window in self._windows():
            if window.allowance.unit in ("tokens", "usd") and window.others is not None:
                room = window.limit - window.others.charged - window.charged
                unit = window.allowance.unit
                left[unit] = max(0.0, min(left.get(unit, math.inf), room))
        return left

    def check(self, worst: Mapping[str, float]) -> None:
        """Raise OverLimit where a sample of this worst case cannot begin."""
        now = self._accounts.clock()
        over = [one for one in self._windows() if one.used_up(worst.get(one.allowance.unit, 0.0))]
        if over:
            never = [one for one in over if worst[one.allowance.unit] > one.limit]
            longest = max(never or over, key=lambda window: window.allowance.ends(now))
            raise OverLimit(self._owner, longest.allowance, now, never=bool(never))

    def close(self) -> None:
        """The request has ended; twice is fine."""
        if self._entered is not None:
            self._entered.settle({})
            self._entered = None

    def _windows(self) -> list[_Window]:
        return [window for parts in self._accounts.parts(self._owner, self._limits).values() for window in parts]

    async def _take(self, worst: Mapping[str, float], upto: int) -> Held | None:
        answer: asyncio.Future[Held | None] = asyncio.get_running_loop().create_future()
        asking = _Asking(self._owner, self._limits, worst, upto, answer)
        self._accounts.ask(asking)
        try:
            held = await answer
        except asyncio.CancelledError:
            self._accounts.give_up(asking)
            self.failure = Busy("Other requests of this key may still need what is left of its limits.", 1.0)
            raise
        except Uncountable as failure:
            self.failure = failure
            return None
        if asking.refused is not None:
            self.failure = OverLimit(self._owner, asking.refused, self._accounts.clock())
        return held


class Accounts:
    """What all keys spend in this process, and how it is settled with the others.

    Args:
        opens: opens the book, which is shared with other processes, and closed with this; raises UsageError.
        clock: seconds since 1970.
        executor: where the book is written; None: a thread of its own.
    """

    def __init__(
        self, opens: Callable[[], Book], *, clock: Callable[[], float] = time.time, executor: Executor | None = None
    ) -> None:
        self.clock = clock
        self._opens = opens
        self._book: Book | None = None
        self._executor = executor or ThreadPoolExecutor(1, "outthink-accounts")
        self._windows: dict[Place, _Window] = {}
        self._current: dict[str, _Current] = {}
        self._waiting: list[_Asking] = []
        self._round: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._look = _LOOK[0]
        self._failing = False
        self._closed = False

    def open(self) -> Book:
        """The book, opened now where it is not yet, as the first round would do it; raises UsageError."""
        if self._book is None:
            self._book = self._opens()
        return self._book

    async def enter(self, owner: str, limits: Sequence[Allowance]) -> Purse:
        """Let a request of a key in, which counts as one; raises OverLimit and Uncountable."""
        purse = Purse(self, owner, limits)
        await purse.enter()
        return purse

    async def close(self) -> None:
        """Write all that is known, and close the book; nothing may run any more."""
        self._closed = True
        if self._later is not None:
            self._later.cancel()
        if self._round is not None:
            await self._round
        for window in self._windows.values():
            window.asked = 0.0  # nothing is taken beyond what is charged
        if self._windows:
            await self._settle()
        if self._book is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._book.close)
            except sqlite3.Error as cause:
                self._fail(cause)
        self._executor.shutdown(wait=False)

    def headers(self, owner: str, limits: Sequence[Allowance]) -> dict[str, str]:
        """How the limits on requests and tokens stand, as OpenAI's API tells it: of each the one with least left."""
        told: dict[str, str] = {}
        now, parts = self.clock(), self.parts(owner, limits)
        for unit in (REQUESTS, "tokens"):
            rooms = [
                (max(0.0, one.limit - one.charged - one.held - one.others.taken), place, one)
                for place, one in enumerate(parts.get(unit, ()))
                if one.others is not None
            ]
            if rooms:
                left, _, window = min(rooms)
                told[f"x-ratelimit-limit-{unit}"] = str(math.floor(window.limit))
                told[f"x-ratelimit-remaining-{unit}"] = str(math.floor(left))
                told[f"x-ratelimit-reset-{unit}"] = _duration(window.allowance.ends(now) - now)
        return told

    def parts(self, owner: str, limits: Sequence[Allowance]) -> dict[str, list[_Window]]:
        """The windows of this moment, by unit."""
        now = self.clock()
        current = self._current.get(owner)
        if current is not None and current.limits is limits and current.since <= now < current.until:
            return current.parts
        parts: dict[str, list[_Window]] = {}
        for allowance in limits:
            place = (owner, allowance.unit, allowance.span, allowance.began(now))
            window = self._windows.get(place)
            if window is None:
                window = self._windows[place] = _Window(allowance, allowance.amount)
            window.limit = allowance.amount
            parts.setdefault(allowance.unit, []).append(window)
        timed = [one for one in limits if one.span != NOW]
        since = max((float(one.began(now)) for one in timed), default=-math.inf)
        until = min((one.ends(now) for one in timed), default=math.inf)
        self._current[owner] = _Current(limits, since, until, parts)
        return parts

    def ask(self, asking: _Asking) -> None:
        """Answer now, where enough is taken already, or after a round."""
        if self._closed:
            asking.answer.set_exception(Uncountable())
        elif any(other.owner == asking.owner for other in self._waiting) or not self._granted(asking, asking.upto):
            self._waiting.append(asking)
            self._look = _LOOK[0]
            self._soon(0.0)

    def give_up(self, asking: _Asking) -> None:
        """Nobody waits for the answer any more."""
        if asking in self._waiting:
            self._waiting.remove(asking)
        elif not asking.answer.cancelled() and asking.answer.exception() is None:
            held = asking.answer.result()
            if held is not None:
                held.settle({})

    def freed(self) -> None:
        """Something was given back."""
        if self._waiting:
            self._decide()
        self._soon(_FLUSH)

    # ------------------------------------------------------------------------------------------------------- decisions

    def _granted(self, asking: _Asking, least: int) -> bool:
        """Whether room for at least so many parts is there without asking, and was given."""
        parts = self.parts(asking.owner, asking.limits)
        n: float = asking.upto
        for unit, windows in parts.items():
            worst = asking.worst.get(unit, 0.0)
            for window in windows:
                if window.others is None:
                    return False
                if worst > 0:
                    n = min(n, fits(window.covered - window.charged - window.held, window.limit, worst))
        if n < least:
            return False
        self._give(asking, parts, int(n))
        return True

    def _give(self, asking: _Asking, parts: Mapping[str, Sequence[_Window]], n: int) -> None:
        if asking.answer.done():  # nobody waits for it any more
            return
        held: dict[str, list[tuple[_Window, float]]] = {}
        for unit, windows in parts.items():
            worst = asking.worst.get(unit, 0.0)
            held[unit] = [(window, worst) for window in windows]
            for window in windows:
                window.held += worst * n
                if window.allowance.span != NOW:
                    window.asked += worst * n
        asking.answer.set_result(Held(self, held, n))

    def _decide(self) -> None:
        """Answer those who wait, as far as it is known: in order, and of a key none before the first that waits."""
        behind: set[str] = set()
        for asking in list(self._waiting):
            if asking.owner in behind:
                continue
            if not self._granted(asking, 1):
                over = self._over(asking) if asking.looked else None
                if over is None:
                    behind.add(asking.owner)
                    continue
                asking.refused = over
                if not asking.answer.done():
                    asking.answer.set_result(None)
            self._waiting.remove(asking)

    def _over(self, asking: _Asking) -> Allowance | None:
        """The limit that a request cannot fit whatever becomes of what runs: the one that lasts longest; else None."""
        now = self.clock()
        over = [
            window.allowance
            for unit, windows in self.parts(asking.owner, asking.limits).items()
            for window in windows
            if window.used_up(asking.worst.get(unit, 0.0))
        ]
        return max(over, key=lambda allowance: allowance.ends(now), default=None)

    # ---------------------------------------------------------------------------------------------------------- rounds

    def _soon(self, seconds: float) -> None:
        """Have a round after at most so many seconds."""
        if self._closed or self._round is not None:
            return  # which looks itself whether there is more to do
        loop = asyncio.get_running_loop()
        if self._later is not None:
            if self._later.when() <= loop.time() + seconds:
                return
            self._later.cancel()
        self._later = loop.call_later(seconds, self._start)

    def _start(self) -> None:
        self._later = None
        self._round = asyncio.get_running_loop().create_task(self._rounds())

    async def _rounds(self) -> None:
        before = set(map(id, self._waiting))
        worked = await self._settle()
        self._round = None
        if not worked:
            self._soon(_AGAIN)
        elif any(id(one) not in before for one in self._waiting):
            self._soon(0.0)
        elif self._waiting:
            self._soon(self._look)
            self._look = min(2 * self._look, _LOOK[1])
        elif any(window.changed for window in self._windows.values()):
            self._soon(_FLUSH)
        elif any(window.held for window in self._windows.values()):
            self._soon(BEAT)

    async def _settle(self) -> bool:
        """A round with the book: write what has changed, take what those who wait need; whether it worked."""
        now, waiting = self.clock(), list(self._waiting)
        wanted: list[tuple[dict[Place, float], int]] = []
        for asking in waiting:
            asking.looked = True
            places = {
                (asking.owner, one.unit, one.span, one.began(now)): asking.worst.get(one.unit, 0.0)
                for one in asking.limits
            }
            self.parts(asking.owner, asking.limits)  # so that there are such windows
            wanted.append((places, asking.upto))
        asked = {place for places, _ in wanted for place in places}
        portions = {}
        for place, window in self._windows.items():
            if place in asked or window.changed or window.held:
                # twice what has come since, so that somewhat more until the next round needs none of its own
                portions[place] = Portion(
                    window.limit, window.charged, window.held, 2 * window.asked, begins=window.others is None
                )
                window.covered = window.charged + window.held  # until the book says what it is
                window.written = window.charged
                window.asked = 0.0
        try:
            settled = await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: self.open().settle(portions, wanted, now)
            )
        except (sqlite3.Error, UsageError) as cause:
            for place in portions:
                self._windows[place].written = math.nan
            self._fail(cause)
            return False
        self._failing = False
        if settled.died:  # what it had taken is charged, so whatever still runs is paid for
            self._windows.clear()
            self._current.clear()
            return await self._settle()
        self._apply(settled, waiting, now)
        return True

    def _apply(self, settled: Settled, waiting: Sequence[_Asking], now: float) -> None:
        for place, covering in settled.coverings.items():
            self._windows[place].others = covering
            self._windows[place].covered = covering.covered
        for asking, n in zip(waiting, settled.granted, strict=True):
            if n and asking in self._waiting:
                self._waiting.remove(asking)
                parts: dict[str, list[_Window]] = {}
                for one in asking.limits:
                    window = self._windows[asking.owner, one.unit, one.span, one.began(now)]
                    parts.setdefault(one.unit, []).append(window)
                self._give(asking, parts, n)
        self._decide()
        ended = [
            place
            for place, window in self._windows.items()
            if not window.held and not window.changed and place[3] != window.allowance.began(self.clock())
        ]
        for place in ended:
            del self._windows[place]
            self._current.pop(place[0], None)

    def _fail(self, cause: Exception) -> None:
        """Let nothing begin that nobody could count."""
        if not self._failing:
            told = str(cause).rstrip(".")
            _logger.error("What keys spend cannot be written (%s), so keys with limits are not served.", told)
        self._failing = True
        for asking in self._waiting:
            if not asking.answer.done():
                asking.answer.set_exception(Uncountable())
        self._waiting.clear()


def _duration(seconds: float) -> str:
    """As OpenAI's API tells it: 1h0m5s, 850ms."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms"
    whole = math.ceil(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if hours or minutes else ''}{whole % 60}s"
