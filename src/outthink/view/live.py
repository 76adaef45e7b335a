"""Problems that are being solved now, shown like those that were recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.errors import UsageError
from outthink.meter import Meter
from outthink.types import AnswerKind, Problem, Sampling, Trace, by_address
from outthink.view.entries import row_of, trace_entry
from outthink.view.recordings import UNITS, Query, hashed

_OVER = 64  # problems that are kept for a moment after their end, until their lines have been read


class LiveProblem:
    """What a meter has counted so far, as a recording of one problem.

    It is asked from the thread that serves the page, while another one solves: all that is read are copies of lists,
    made at once.

    Args:
        strategy: as data, {"name": ..., hyperparameters}.
        resources: engine names by role.
    """

    def __init__(
        self, problem: Problem, strategy: Mapping[str, Any], sampling: Sampling, seed: int, resources: Mapping[str, str]
    ) -> None:
        self.name = "being solved"
        self.path = problem.id
        self.form = "traces"
        self.error: str | None = None
        self.version = 0
        self.total = 1
        self.known = 1
        self._problem = problem
        self._strategy = strategy
        self._sampling = sampling
        self._seed = seed
        self._resources = resources
        self._meter: Meter | None = None
        self._trace: Trace | None = None
        self._seen: Any = None

    def __len__(self) -> int:
        return 1

    def start(self, meter: Meter) -> None:
        """Look at this meter."""
        self._meter = meter

    def finish(self, trace: Trace) -> None:
        """Show this trace from now on."""
        self._trace = trace

    def advance(self, seconds: float) -> bool:
        """Notice what has changed."""
        meter = self._meter
        state = None if meter is None else (len(meter.candidates), len(meter.calls), len(meter.rounds), self._growing())
        if (state, self._trace) != self._seen:
            self._seen = (state, self._trace)
            self.version += 1
        return False

    def close(self) -> None:
        """It takes nothing."""

    def trace(self) -> Trace:
        """What has happened so far."""
        if self._trace is not None:
            return self._trace
        meter = self._meter
        if meter is None:
            raise UsageError("Nothing has begun yet.")
        calls, prompts = meter.sent()
        # no answer has been read of those that have just ended
        ended = {
            one.id: replace(one, complete=False) for group in list(meter.running.values()) for one in group.ended()
        }
        candidates = {**ended, **meter.candidates}
        return Trace(
            problem=self._problem.id,
            strategy=self._strategy,
            seed=self._seed,
            sampling=self._sampling,
            budget=meter.budget,
            resources=self._resources,
            candidates=tuple(by_address(candidates.values())),
            rounds=tuple(meter.rounds),
            calls=calls,
            stopped="finished",
            notes=tuple(meter.notes),
            seconds=meter.now(),
            prompts=prompts,
            scores={name: dict(scores) for name, scores in list(meter.scores.items())},
        )

    def described(self) -> dict[str, Any]:
        """As of a recording."""
        over = self._trace is not None
        row = self.rows([0])[0] if self._meter is not None or over else {"cost": {}, "answer": None}
        return {
            "name": self.name,
            "path": self._problem.id,
            "form": self.form,
            "error": self.error,
            "notes": [],
            "live": not over,
            "state": "whole" if over else "writing",
            "settings": {"strategy": dict(self._strategy), "models": dict(self._resources)},
            "total": 1,
            "lines": 1,
            "known": 1,
            "version": self.version,
            "graded": 0,
            "accuracy": None,
            "unanswered": int(row["answer"] is None),
            "failed": 0,
            "cost": {unit: row["cost"].get(unit) for unit in UNITS},
            "stopped": {},
            "strategies": {str(self._strategy.get("name", "")): 1},
        }

    def charged(self) -> dict[str, Any]:
        """Its id, and what it has cost so far."""
        return {"problem": self.path, "cost": {} if self._meter is None else self._meter.cost(), "live": True}

    def running(self) -> list[dict[str, Any]]:
        """Nothing beside the problem itself."""
        return []

    def chosen(self, query: Query) -> NDArray[np.intp]:
        """The one problem."""
        return np.array([0], dtype=np.intp)

    def rows(self, lines: Sequence[int]) -> list[dict[str, Any]]:
        """As of a recording."""
        row = row_of("traces", self.trace().to_json().encode())
        return [row.shown(line) for line in lines]

    def entry(self, line: int) -> dict[str, Any]:
        """As of a recording, with what is being written now."""
        kind: AnswerKind = self._problem.answer
        samples, tokens = self._growing()
        growing = {"samples": samples, "tokens": tokens} if self._trace is None else None
        question = (
            None if self._trace is not None else self._problem.messages[-1].text if self._problem.messages else ""
        )
        return {
            "line": 0,
            "problem": self._problem.id,
            "credit": None,
            "error": None,
            "kind": kind,
            "growing": growing,
            "question": question,
            **trace_entry(self.trace(), kind),
        }

    def column(self, name: str) -> NDArray[Any]:
        """Nothing that could be compared."""
        return np.full(1, np.nan) if name in ("credit", *UNITS) else np.zeros(1, dtype=np.uint64)

    def places(self, other: Any) -> NDArray[np.intp]:
        """No recording has the same problem."""
        return np.array([-1], dtype=np.intp)

    def results(self) -> Iterator[Any]:
        """None."""
        return iter(())

    def _growing(self) -> tuple[int, int]:
        running = [] if self._meter is None else list(self._meter.running.values())
        return sum(one.progress.n for one in running), sum(sum(one.progress.tokens) for one in running)


class LiveRun:
    """The problems of a run that are being solved now; it may be asked from another thread than that of the run.

    Args:
        strategy, sampling, seed, resources: as of a problem.
    """

    def __init__(
        self, strategy: Mapping[str, Any], sampling: Sampling, seed: int, resources: Mapping[str, str]
    ) -> None:
        self._told = (strategy, sampling, seed, resources)
        self._problems: dict[str, LiveProblem] = {}
        self._over: dict[str, LiveProblem] = {}

    @contextlib.contextmanager
    def watching(self, problem: Problem) -> Iterator[Callable[[Meter], None]]:
        """Show a problem while the context lasts; its meter is given to what this yields."""
        live = self._problems[problem.id] = LiveProblem(problem, *self._told)
        try:
            yield live.start
        finally:
            self._over[problem.id] = self._problems.pop(problem.id)
            while len(self._over) > _OVER:
                del self._over[next(iter(self._over))]

    @property
    def version(self) -> int:
        """Changes whenever anything has happened."""
        there = list(self._problems.values())
        for one in there:
            one.advance(0.0)
        return hash(tuple((id(one), one.version) for one in there))

    def running(self, done: frozenset[int]) -> list[dict[str, Any]]:
        """What is being solved, with what it was charged; `done` are the hashed ids of those whose lines were read."""
        there = list(self._problems.values())
        return [one.charged() for one in there if hashed(one.path) not in done]

    def entry(self, problem: str) -> dict[str, Any] | None:
        """All of a problem that is being solved, or has been a moment ago; None where it is neither."""
        live = self._problems.get(problem) or self._over.get(problem)
        return None if live is None else {**live.entry(0), "live": True}
