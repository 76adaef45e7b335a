"""The sandbox as strategies and scorers see it: every program that runs is a call in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence

from outthink.meter import Meter
from outthink.sandbox.host import Execution, Sandbox
from outthink.types import Address, Code

UNIT = "execution_seconds"
"""What running programs costs: wall-clock seconds of each, summed."""


class MeteredSandbox:
    """A sandbox with a meter. What was run, or tested, before on this problem is not run again.

    Programs should be deterministic: a result is kept for as long as the problem is being solved.
    """

    units = (UNIT,)

    def __init__(self, sandbox: Sandbox, meter: Meter) -> None:
        self._sandbox = sandbox
        self._meter = meter
        self._ran: dict[Hashable, Execution] = {}
        self._turns: dict[Hashable, asyncio.Lock] = {}

    async def run(self, source: str, *, lane: Address = (), stdin: str = "") -> Execution | None:
        """Run a program; None where the budget does not allow it.

        Args:
            lane: whom it is for, such as the address of a sample; orders the calls of a trace.
        """
        return await self._once((source, stdin), lane, lambda: self._sandbox.run(source, stdin=stdin))

    async def test(
        self, code: Code, answer: str, tests: Sequence[str], *, lane: Address = (), test_seconds: float | None = None
    ) -> Execution | None:
        """Run tests on an answer (see `Sandbox.test`); None where the budget does not allow it.

        Args:
            code: how answers of the problem are run; its own tests are not run.
            test_seconds: of CPU time that one test may take.
            lane: whom it is for.
        """
        prelude, entry_point = code.prelude, code.entry_point
        key = (answer, tuple(tests), prelude, entry_point, test_seconds)
        return await self._once(
            key,
            lane,
            lambda: self._sandbox.test(
                answer, tests, prelude=prelude, entry_point=entry_point, test_seconds=test_seconds
            ),
        )

    async def _once(self, key: Hashable, lane: Address, run: Callable[[], Awaitable[Execution]]) -> Execution | None:
        async with self._turns.setdefault(key, asyncio.Lock()):  # what is equal waits for the first of it
            known = self._ran.get(key)
            if known is not None:
                return known
            seconds = self._sandbox.limits.seconds
            address = (*self._meter.next_request(("sandbox", *lane)), 0)
            async with self._meter.work("execute", "sandbox", address, worst={UNIT: seconds}) as work:
                if work is None:
                    return None
                work.cost = {UNIT: seconds}
                ran = await run()
                work.cost = {UNIT: min(ran.seconds, seconds)}
            self._ran[key] = ran
            return ran
