"""The sandbox as strategies and scorers see it: every program that runs is a call in the ledger."""

from __future__ import annotations

import asyncio

from outthink.meter import Meter
from outthink.sandbox.host import Execution, Sandbox
from outthink.types import Address

UNIT = "execution_seconds"
"""What running programs costs: wall-clock seconds of each, summed."""


class MeteredSandbox:
    """A sandbox with a meter. Source that was run before on this problem is not run again.

    Programs should be deterministic: a result is kept for as long as the problem is being solved.
    """

    units = (UNIT,)

    def __init__(self, sandbox: Sandbox, meter: Meter) -> None:
        self._sandbox = sandbox
        self._meter = meter
        self._ran: dict[tuple[str, str], Execution] = {}
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}

    async def run(self, source: str, *, lane: Address = (), stdin: str = "") -> Execution | None:
        """Run a program; None where the budget does not allow it.

        Args:
            lane: whom it is for, such as the address of a sample; orders the calls of a trace.
        """
        async with self._turns.setdefault((source, stdin), asyncio.Lock()):  # equal source waits for the first of it
            known = self._ran.get((source, stdin))
            if known is not None:
                return known
            seconds = self._sandbox.limits.seconds
            address = (*self._meter.next_request(("sandbox", *lane)), 0)
            async with self._meter.work("execute", "sandbox", address, worst={UNIT: seconds}) as work:
                if work is None:
                    return None
                work.cost = {UNIT: seconds}
                ran = await self._sandbox.run(source, stdin=stdin)
                work.cost = {UNIT: min(ran.seconds, seconds)}
            self._ran[source, stdin] = ran
            return ran
