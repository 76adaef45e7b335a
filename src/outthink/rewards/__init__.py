"""Scorers: what judges whole answers (a verifier) or the last of several steps (a process reward model, PRM).

One protocol serves both: a scorer gets paths, each a tuple of segments from the first to the last. A verifier reads
the whole path, a PRM scores its last step. A missing score is None, never 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from outthink.errors import EngineError, UnknownName, UsageError
from outthink.meter import Meter
from outthink.names import load
from outthink.together import together
from outthink.types import Call, Candidate, Problem, path

Path = tuple[Candidate, ...]
ScoreFunction = Callable[[str, str], float | Awaitable[float | None] | None]
"""(question, solution) -> score, or None for no opinion; sync or async."""

SCORERS = {"confidence": "outthink.rewards.confidence:Confidence", "judge": "outthink.rewards.judge:Judge"}
"""Scorers that need nothing but a model, by name."""


class Scorer(Protocol):
    """Scores paths: `async def score(problem, paths, *, <resources by name>)` with one score or None per path.

    Like a strategy's `run`, `score` names the further resources it needs (such as `model`), so it is looked up and
    not typed here.
    """

    @property
    def score(self) -> Any:
        """The coroutine function."""


class Scores:
    """A scorer as a strategy sees it: bound to its resources, with non-finite scores as None."""

    def __init__(self, scorer: Scorer, resources: dict[str, Any], meter: Meter) -> None:
        self._scorer = scorer
        self._resources = resources
        self._meter = meter

    async def score(self, problem: Problem, candidates: Sequence[Candidate]) -> tuple[float | None, ...]:
        """One score per candidate (of its whole path); None where there is none."""
        paths = [tuple(path(candidate, self._meter.candidates)) for candidate in candidates]
        return tuple(await self._scored(problem, paths))

    async def score_steps(
        self, problem: Problem, samples: Sequence[Candidate], delimiter: str
    ) -> list[tuple[float | None, ...]]:
        """The scores of every step of whole samples, cut after each `delimiter`."""
        cut = [_steps(sample, delimiter) for sample in samples]
        paths = [steps[: end + 1] for steps in cut for end in range(len(steps))]
        scores = iter(await self._scored(problem, paths))
        return [tuple(next(scores) for _ in steps) for steps in cut]

    async def _scored(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        if not paths:
            return []
        scores = [_finite(score) for score in await self._scorer.score(problem, paths, **self._resources)]
        if len(scores) != len(paths):
            raise EngineError(f"The scorer returned {len(scores)} scores for {len(paths)} paths.")
        return scores


def _steps(sample: Candidate, delimiter: str) -> Path:
    parts = [part for part in sample.text.split(delimiter) if part.strip()] or [sample.text]
    ends = [delimiter] * (len(parts) - 1) + [""]
    return tuple(replace(sample, text=part + end, logprobs=None) for part, end in zip(parts, ends, strict=True))


def _finite(score: float | None) -> float | None:
    return None if score is None or not math.isfinite(score) else float(score)


class FunctionScorer:
    """Any Python callable (question, solution) -> score, sync (run in a thread) or async, as a scorer."""

    def __init__(self, function: ScoreFunction, role: str = "verifier") -> None:
        self._function = function
        self._role = role

    async def score(self, problem: Problem, paths: Sequence[Path], *, meter: Meter) -> list[float | None]:
        """Calls run concurrently; one that raises has no score and is a failed call in the trace."""
        return await together(
            *(self._one(problem, p, meter, (*meter.next_request((self._role, *p[-1].address)), 0)) for p in paths)
        )

    async def _one(self, problem: Problem, steps: Path, meter: Meter, address: tuple[str | int, ...]) -> float | None:
        reservation = await meter.admit({})
        if reservation is None:
            return None
        started, error, score, outcome = meter.now(), None, None, "cancelled"
        try:
            solution = "".join(step.text for step in steps)
            function: Callable[[str, str], Any] = self._function
            if inspect.iscoroutinefunction(function):
                result: Any = function(problem.question, solution)
            else:
                result = await _in_thread(function, problem.question, solution)
            found = await result if inspect.isawaitable(result) else result
            score = None if found is None else float(found)
            outcome = "ok"
        except (Exception, SystemExit) as failure:  # the user's code may raise anything; the other scores stand
            outcome, error = "failed", f"{type(failure).__name__}: {failure}"
        finally:
            meter.settle(
                reservation,
                Call(
                    kind="verify",
                    role=self._role,
                    address=address,
                    failed=int(outcome == "failed"),
                    outcome=outcome,  # type: ignore[arg-type]  # mypy widens the literal to str
                    error=error,
                    started=started,
                    ended=meter.now(),
                ),
            )
        return score


async def _in_thread(function: Callable[..., Any], *arguments: str) -> Any:
    """Call it in a thread of its own, for which neither a deadline nor the program's end waits if it hangs.

    (A thread of asyncio's pool would hold up everything else that needs the pool, and the end of `asyncio.run`.)
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def tell(result: Any, failure: BaseException | None) -> None:
        if not done.done():
            done.set_result((result, failure))

    def work() -> None:
        try:
            outcome: tuple[Any, BaseException | None] = function(*arguments), None
        except BaseException as failure:
            outcome = None, failure
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, *outcome)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name="outthink-score", daemon=True).start()
    result, failure = await done
    if isinstance(failure, StopIteration):
        raise RuntimeError("StopIteration") from failure
    if failure is not None:
        raise failure
    return result


def make_scorer(given: str | ScoreFunction | Scorer, *, process: bool = False) -> Scorer:
    """A scorer from a name ("confidence", "judge"), a "module:function", a callable, or a scorer itself.

    Args:
        process: it will score steps rather than whole answers.
    """
    if isinstance(given, str):
        if given not in SCORERS and ":" not in given:
            raise UnknownName("verifier", given, [*SCORERS, "module:function"])
        made = load(SCORERS.get(given, given))
        if given in SCORERS:
            made = made(process=process)
        elif inspect.isclass(made):
            made = made()
        given = made
    if hasattr(given, "score"):
        return given
    if callable(given):
        return FunctionScorer(given, "prm" if process else "verifier")
    raise UsageError(f"A verifier is a name, a callable (question, solution) -> score, or a scorer, not {given!r}.")
