"""Admits, counts and limits every call that is made for one problem.

A call is admitted only if its worst case fits beside everything admitted before it, and is settled afterwards.
Requests are decided strictly in the order in which they were made: the first in the queue starts as soon as it must
fit, and is refused only when everything before it is settled and it still does not fit. So what is started depends
on what the calls cost, not on when they finish. An engine that used more than its own bound has overrun: the excess
is charged and nothing further starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from outthink.errors import Refused
from outthink.models.engine import Completion, Progress
from outthink.together import turn
from outthink.types import Address, Budget, Call, Candidate, Message, Round, Usage, by_address, writable

Cost = Mapping[str, float]

# Sums of many floats drift by a few units in the last place; a budget of exactly what is needed must still do.
_ROUNDING = 1e-9
_CALL = 100  # microseconds that a call takes here, from its beginning to its entry in the ledger


def _as_ever() -> float:
    return 1.0


class Share(Protocol):
    """Room for `n` children of a call in a budget that several problems share."""

    n: int

    def settle(self, cost: Cost) -> None:
        """Give it back, and charge what was used."""
        ...


class SharedBudget(Protocol):
    """A budget that several problems share, beside that of each."""

    async def hold(self, worst: Cost, upto: int) -> Share | None:
        """Room for 1 to `upto` children of cost at most `worst` each; None if not even one can start."""
        ...


@dataclass(eq=False, slots=True)
class Reservation:
    """Room for `n` children of a call, held until it is settled."""

    worst: Cost
    n: int
    share: Share | None = None


@dataclass(eq=False, slots=True)
class Work:
    """What a piece of work that is not sampling has used; filled by whoever does it.

    Args:
        seen, charged: tokens, as in a call; `exact` is that they are equal.
        cost: charged by unit.
        failed: how many of its parts came to nothing, and `error`, why.
    """

    seen: Usage = field(default_factory=Usage)
    charged: Usage = field(default_factory=Usage)
    cost: Cost = field(default_factory=dict)
    failed: int = 0
    error: str | None = None
    attempts: int = 1


@dataclass(frozen=True, eq=False, slots=True)
class LiveGroup:
    """Samples that are being written, to look at.

    Args:
        ended: gives those that have ended as candidates, of which no answer has been read yet.
    """

    progress: Progress
    ended: Callable[[], list[Candidate]]


@dataclass(eq=False, slots=True)
class _Waiting:
    worst: Cost
    upto: int
    decided: asyncio.Future[Reservation | None]


class Meter:
    """The budget, the ledger and the candidates of one problem.

    Args:
        budget: every limit in it is enforced; "seconds" by the driver's deadline, the others here.
        on_call: told of every settled call (bench writes its journal with it).
    """

    def __init__(self, budget: Budget, *, on_call: Callable[[Call], None] | None = None) -> None:
        self.budget = budget
        self.shared: SharedBudget | None = None
        """Every call needs room in this one, too."""
        self.dearness: Callable[[], float] = _as_ever
        """How many times as dear compute is at this moment as it usually is; at least 1."""
        self.calls: list[Call] = []
        self.candidates: dict[str, Candidate] = {}
        self.rounds: list[Round] = []
        self.notes: list[str] = []
        """What the strategy wants to be known about how it decided; they stand in the trace."""
        self.prompts: dict[tuple[Message, ...], int] = {}
        """What models were sent, and the number of each in the order in which it was first sent."""
        self.scores: dict[str, dict[str, float]] = {}
        """What scorers gave, by the name of the scorer and the candidate's id."""
        self.overrun = False
        self.running: dict[int, LiveGroup] = {}
        """Groups that are being generated, to look at, by what `id` says of their progress."""
        self.refused = 0
        """Children that were asked for and never started."""
        self.refusal: Refused | None = None
        """How a server had refused a call that was cancelled while it waited to be repeated."""
        self._limits = {unit: limit for unit, limit in budget.limits.items() if unit != "seconds"}
        self._settled: dict[str, float] = {}
        self._reserved: list[Reservation] = []
        self._queue: deque[_Waiting] = deque()
        self._idle: asyncio.Future[None] | None = None
        self._requests: dict[Address, int] = {}
        self._on_call = on_call
        self._clock = asyncio.get_running_loop().time
        self._start = self._clock()

    def now(self) -> float:
        """Seconds since the start, by the event loop's clock (so tests can run under virtual time)."""
        return self._clock() - self._start

    def cost(self) -> dict[str, float]:
        """Charged so far by unit; `seconds` is wall-clock."""
        return {**self._settled, "seconds": self.now()}

    def left(self) -> dict[str, float]:
        """What of each limit is neither charged nor reserved."""
        left = {unit: limit - self._committed(unit) for unit, limit in self._limits.items()}
        if "seconds" in self.budget.limits:
            left["seconds"] = self.budget.limits["seconds"] - self.now()
        return left

    def next_request(self, lane: Address) -> Address:
        """The address of the next request of a lane."""
        number = self._requests.get(lane, 0)
        self._requests[lane] = number + 1
        return (*lane, number)

    async def admit(self, worst: Cost, upto: int = 1) -> Reservation | None:
        """Reserve room for 1 to `upto` children of cost at most `worst` each; None if not even one can start.

        Waits while earlier calls are unsettled and the decision depends on them.
        """
        await turn(_CALL)
        waiting = _Waiting(worst, upto, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._decide()
        try:
            granted = await waiting.decided
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
            elif not waiting.decided.cancelled() and (granted := waiting.decided.result()) is not None:
                self.release(granted)  # nobody is left to use it
            self._decide()
            raise
        if granted is None or self.shared is None:
            return granted
        try:
            granted.share = await self.shared.hold(worst, granted.n)
        except BaseException:
            self.release(granted)
            raise
        if granted.share is None:
            self.refused += upto
            self.release(granted)
            return None
        granted.n = granted.share.n
        self._decide()
        return granted

    def release(self, reservation: Reservation) -> None:
        """Give back what was reserved for a call that never started."""
        self._reserved.remove(reservation)
        if reservation.share is not None:
            reservation.share.settle({})
        self._decide()

    async def settled(self) -> None:
        """Wait until nothing is reserved any more: whatever was begun is in the ledger then."""
        while self._reserved:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    @contextlib.asynccontextmanager
    async def work(
        self,
        kind: str,
        role: str,
        address: Address,
        *,
        n: int = 1,
        worst: Cost | None = None,
        scope: Literal["problem", "context", "run"] = "problem",
    ) -> AsyncIterator[Work | None]:
        """Admits n parts of work that cost at most `worst` together, and settles them as one call at the end.

        `scope` is as in `Call`.

        Yields None where the budget does not allow it. An exception makes it a failed call and passes on. Work that was
        cancelled or has failed is charged what is in `Work` by then. So fill in the worst case first, if that is what
        it may have cost.
        """
        reservation = await self.admit(worst or {})
        if reservation is None:
            yield None
            return
        work, started, outcome = Work(), self.now(), "ok"
        try:
            yield work
            if work.failed >= n:
                outcome = "failed"
        except (Exception, SystemExit) as failure:  # the code of users may raise anything
            work.failed, work.error, outcome = n, work.error or f"{type(failure).__name__}: {failure}", "failed"
            raise
        except BaseException:
            work.failed, outcome = 0, "cancelled"
            raise
        finally:
            self.settle(
                reservation,
                Call(
                    kind=kind,
                    role=role,
                    address=address,
                    n=n,
                    scope=scope,
                    failed=work.failed,
                    outcome=outcome,  # type: ignore[arg-type]  # mypy widens the literal to str
                    error=work.error,
                    attempts=work.attempts,
                    seen=work.seen,
                    charged=work.charged,
                    exact=work.seen == work.charged,
                    cost=work.cost,
                    started=started,
                    ended=self.now(),
                ),
            )

    def settle(self, reservation: Reservation, call: Call) -> bool:
        """Replace what was reserved by what `call` is charged; returns whether it exceeded the reservation."""
        self._reserved.remove(reservation)
        if reservation.share is not None:
            reservation.share.settle(call.cost)
        call = replace(call, error=None if call.error is None else writable(call.error))
        for unit, amount in call.cost.items():
            self._settled[unit] = self._settled.get(unit, 0.0) + amount
        exceeded = any(
            call.cost.get(unit, 0.0) > reservation.worst.get(unit, 0.0) * reservation.n * (1 + _ROUNDING)
            for unit in self._limits
        )
        self.overrun = self.overrun or exceeded
        self.calls.append(call)
        self._decide()
        if self._on_call is not None:
            self._on_call(call)
        return exceeded

    def prompt(self, messages: tuple[Message, ...]) -> int:
        """The number of these messages among what was sent."""
        told = tuple(message.told for message in messages)
        return self.prompts.setdefault(told, len(self.prompts))

    def sent(self) -> tuple[tuple[Call, ...], tuple[tuple[Message, ...], ...]]:
        """The calls so far, sorted by address, and what models were sent in them, in the order of these calls."""
        calls = by_address(self.calls)
        prompts = list(self.prompts)
        places: dict[int, int] = {}
        for number in (call.prompt for call in calls if call.prompt is not None):
            places.setdefault(number, len(places))
        renumbered = (call if call.prompt is None else replace(call, prompt=places[call.prompt]) for call in calls)
        return tuple(renumbered), tuple(prompts[number] for number in places)

    def add_round(self, answered: Round) -> None:
        """Keep what the strategy has answered, with what was charged by then."""
        usage = None if answered.generation is None else Usage.total(call.charged for call in self.calls)
        self.rounds.append(replace(answered, cost=dict(self._settled), at=self.now(), usage=usage))

    def _committed(self, unit: str) -> float:
        reserved = sum(held.worst.get(unit, 0.0) * held.n for held in self._reserved)
        return self._settled.get(unit, 0.0) + reserved

    def _fitting(self, worst: Cost) -> float:
        """How many children of this worst case must fit, whatever the unsettled calls cost."""
        fitting = float("inf")
        for unit, limit in self._limits.items():
            amount = worst.get(unit, 0.0)
            if amount > 0:
                room = limit * (1 + _ROUNDING) - self._committed(unit)
                fitting = min(fitting, room // amount)
        return fitting

    def _decide(self) -> None:
        if not self._reserved and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        while self._queue:
            head = self._queue[0]
            n = 0 if self.overrun else int(min(self._fitting(head.worst), head.upto))
            if n < 1 and self._reserved and not self.overrun:
                return  # whether it fits depends on calls that are still running
            self._queue.popleft()
            if head.decided.cancelled():
                continue
            if n < 1:
                self.refused += head.upto
                head.decided.set_result(None)
                continue
            reservation = Reservation(head.worst, n)
            self._reserved.append(reservation)
            head.decided.set_result(reservation)


def charged_of_each(progress: Progress, bound: Usage) -> list[Usage]:
    """The charge of each child: exact where it is done, else as little as is certain to cover it."""
    told = [
        child
        for child, result in enumerate(progress.results)
        if child not in progress.most and not isinstance(result, Refused)
    ]
    charged = [Usage()] * progress.n
    for child, most in progress.most.items():
        charged[child] = most
    for place, child in enumerate(told):
        tokens, result = progress.tokens[child], progress.results[child]
        prompt, cached = _share(progress.prompt, len(told), place), _share(progress.cached, len(told), place)
        if isinstance(result, Completion):
            charged[child] = Usage(prompt=prompt, cached=cached, completion=tokens)
        elif progress.slack is None:
            charged[child] = Usage(prompt=max(prompt, bound.prompt), completion=max(tokens, bound.completion))
        else:
            most_written = max(tokens, min(tokens + progress.slack, bound.completion))
            charged[child] = Usage(prompt=prompt, cached=cached, completion=most_written)
    if progress.further or bound.further:
        # what was counted is of all children together; each that has not ended may use as much as it was bound to
        running = [child for child in told if not isinstance(progress.results[child], Completion)]
        for child in running:
            charged[child] = replace(charged[child], further=bound.further)
        if told:
            charged[told[0]] += Usage(further=dict(progress.further))
    return charged


def _share(total: int, n: int, child: int) -> int:
    """Equal whole shares of `total`; the first children take one more each, so shares keep the order of totals."""
    return total // n + (child < total % n)
