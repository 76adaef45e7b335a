"""Whether an answer is right."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from outthink.answers.reader import Reader
from outthink.errors import UsageError
from outthink.tasks import gym
from outthink.tasks.example import Example

if TYPE_CHECKING:
    from outthink.sandbox.host import Sandbox


async def grade(example: Example, answer: str | None, reader: Reader, sandbox: Sandbox | None = None) -> float:
    """1.0 where the answer is right, else 0.0; None (INVALID) is wrong.

    Right is: code that passes the example's tests; else equal to any gold answer (see `answers`), exactly so where
    the example is exact. For gym tasks, right is what their own scoring function gives the full score of 1; a number
    of a gym task may also be equal to the gold one.

    Args:
        sandbox: where tests run; needed for examples that have tests (see `opened`).
    """
    if answer is None:
        return 0.0
    if example.tests:
        if sandbox is None:
            raise UsageError(f"Grading {example.problem.id} runs code: give a sandbox.")
        code = example.problem.code
        ran = await sandbox.test(answer, [example.tests], prelude=code.prelude, entry_point=code.entry_point)
        return float(ran.outcome == "ok")
    if "gym" not in example.meta or example.problem.answer == "math":
        equal = reader.same if example.exact else reader.equal
        for gold in example.gold:
            if await equal(example.problem.answer, gold, answer):
                return 1.0
    if "gym" in example.meta:
        return gym.score(example, answer)
    return 0.0


@contextlib.asynccontextmanager
async def opened(
    examples: Iterable[Example], reader: Reader | None, sandbox: Sandbox | None
) -> AsyncIterator[tuple[Reader, Sandbox | None]]:
    """A reader, and a sandbox where grading runs code; those that were not given are closed at the end."""
    async with contextlib.AsyncExitStack() as own:
        if reader is None:
            reader = Reader()
            own.push_async_callback(reader.close)
        if sandbox is None and any(example.tests for example in examples):
            from outthink.sandbox.host import Sandbox  # here, because most tasks run no code

            sandbox = Sandbox()
            own.push_async_callback(sandbox.close)
        yield reader, sandbox
