"""Runs a coroutine on an event loop whose clock jumps to the next timer instead of waiting."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else 10)  # without a timer only a thread can wake the loop
        if not ready and timeout is None:
            raise RuntimeError("the event loop waits for something that does not happen")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the base has it
        await super().shutdown_default_executor()  # a limit would be jumped over


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What it returns; not as the result of a task, of which a runner makes a repr, however large it is."""
    results: list[T] = []

    async def keep() -> None:
        results.append(await coroutine)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(keep())
    return results[0]
