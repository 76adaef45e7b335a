"""Public tests: the share of a problem's own tests that a solution passes, run in the sandbox.

Source: common practice (filtering by public tests, as in Li et al. (2022), AlphaCode, from memory). Differs: a share
and not a filter; a solution whose code cannot be read has no score rather than 0. Hidden tests are never run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outthink.answers.code import asked_names
from outthink.answers.reading import read
from outthink.errors import EngineError, MissingResource
from outthink.resources.metered_sandbox import MeteredSandbox
from outthink.rewards import Path
from outthink.together import together
from outthink.types import Address, Code, Problem


@dataclass(frozen=True)
class PublicTests:
    """Passed / all public tests, in [0, 1]; None where there are none, or where there is no code to run."""

    reads = frozenset({"answer", "complete"})

    async def score(self, problem: Problem, paths: Sequence[Path], *, sandbox: MeteredSandbox) -> list[float | None]:
        """One score per path; costs one program, and one more for each test where it does not pass them all."""
        if problem.answer != "code":
            raise MissingResource("The scorer tests runs code, and the answers of this problem are none.")
        if not problem.code.tests:
            return [None] * len(paths)
        return await together(*(_share(problem, path, sandbox) for path in paths))


async def _share(problem: Problem, path: Path, sandbox: MeteredSandbox) -> float | None:
    last = path[-1]
    code = last.answer
    if code is None and last.complete:  # not read yet; of what was cut off nothing is read
        code = read("code", "".join(segment.text for segment in path), asked=asked_names(problem))
    if code is None:
        return None
    tests = problem.code.tests
    if len(tests) > 1:
        every = await _passes(sandbox, problem.code, code, tests, last.address)
        if every is not False:
            return None if every is None else 1.0
    passed = await together(*(_passes(sandbox, problem.code, code, [test], last.address) for test in tests))
    return None if None in passed else passed.count(True) / len(passed)  # what was not run is not known to fail


async def _passes(sandbox: MeteredSandbox, code: Code, answer: str, tests: Sequence[str], lane: Address) -> bool | None:
    try:
        ran = await sandbox.test(code, answer, tests, lane=lane)
    except EngineError:  # of the sandbox itself; the others may still run
        return None
    return None if ran is None else ran.outcome == "ok"
