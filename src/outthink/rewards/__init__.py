"""Scorers: what judges whole answers (a verifier) or the last of several steps (a process reward model, PRM).

One protocol serves both: a scorer gets paths, each a tuple of segments from the first to the last. A verifier reads
the whole path, a PRM scores its last step. A missing score is None, never 0.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from outthink.errors import EngineError, UnknownName, UsageError
from outthink.meter import Meter
from outthink.names import load
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
        scores = await self._scorer.score(problem, paths, **self._resources) if paths else []
        if len(scores) != len(paths):
            raise EngineError(f"The scorer returned {len(scores)} scores for {len(paths)} candidates.")
        return tuple(_finite(score) for score in scores)

    async def score_steps(
        self, problem: Problem, samples: Sequence[Candidate], delimiter: str
    ) -> list[tuple[float | None, ...]]:
        """The scores of every step of whole samples, cut after each `delimiter`."""
        cut = [_steps(sample, delimiter) for sample in samples]
        paths = [steps[: end + 1] for steps in cut for end in range(len(steps))]
        scores = iter(await self._scorer.score(problem, paths, **self._resources) if paths else [])
        return [tuple(_finite(next(scores)) for _ in steps) for steps in cut]


def _steps(sample: Candidate, delimiter: str) -> Path:
    parts = [part for part in sample.text.split(delimiter) if part.strip()]
    ends = [delimiter] * (len(parts) - 1) + [""]
    return tuple(replace(sample, text=part + end, logprobs=None) for part, end in zip(parts, ends, strict=True))


def _finite(score: float | None) -> float | None:
    return None if score is None or not math.isfinite(score) else float(score)


class FunctionScorer:
    """Any Python callable (question, solution) -> score, sync (run in a thread) or async, as a scorer."""

    def __init__(self, function: ScoreFunction) -> None:
        self._function = function

    async def score(self, problem: Problem, paths: Sequence[Path], *, meter: Meter) -> list[float | None]:
        """Calls run concurrently; one that raises has no score and is a failed call in the trace."""
        lane = meter.next_request(("verifier",))
        return list(await asyncio.gather(*(self._one(problem, p, meter, (*lane, i)) for i, p in enumerate(paths))))

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
                result = await asyncio.to_thread(function, problem.question, solution)
            score = await result if inspect.isawaitable(result) else result
            outcome = "ok"
        except Exception as failure:  # the user's code may raise anything; the other scores stand
            outcome, error = "failed", f"{type(failure).__name__}: {failure}"
        finally:
            meter.settle(
                reservation,
                Call(
                    kind="verify",
                    role="verifier",
                    address=address,
                    failed=int(outcome == "failed"),
                    outcome=outcome,  # type: ignore[arg-type]  # mypy widens the literal to str
                    error=error,
                    started=started,
                    ended=meter.now(),
                ),
            )
        return None if score is None else float(score)


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
        return FunctionScorer(given)
    raise UsageError(f"A verifier is a name, a callable (question, solution) -> score, or a scorer, not {given!r}.")
