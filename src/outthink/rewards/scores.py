"""The metered scorer, as a strategy sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from outthink.answers.steps import split_answer
from outthink.answers.thoughts import spoken
from outthink.errors import BudgetExhausted, EngineError, NothingCameBack, PromptTooLong
from outthink.meter import Meter
from outthink.rewards import Path, Scorer
from outthink.together import each
from outthink.types import Candidate, Problem, path


class Scores:
    """A scorer as a strategy sees it: bound to its resources, with non-finite scores as None.

    What it has scored it does not score again: equal paths of one call share a score, and so do those of one lane
    over several calls. Lanes share nothing, since which of them comes first is a matter of timing. A missing score
    is tried again.
    """

    def __init__(self, scorer: Scorer, resources: dict[str, Any], meter: Meter, name: str | None = None) -> None:
        self.name = name
        """As `describe` tells it."""
        self._scorer = scorer
        self._resources = resources
        self._meter = meter
        self._reads = sorted(getattr(scorer, "reads", ()))
        self._thoughts = bool(getattr(scorer, "thoughts", False))
        self._known: dict[Any, float] = {}

    @property
    def relative(self) -> bool:
        """Whether it compares answers with each other."""
        return bool(getattr(self._scorer, "relative", False))

    @property
    def asks_models(self) -> bool:
        """Whether a model reads what is scored, at the cost of its tokens."""
        return "models" in self._resources

    async def score(self, problem: Problem, candidates: Sequence[Candidate]) -> tuple[float | None, ...]:
        """One score per candidate (of its whole path); None where there is none."""
        paths = await each(lambda candidate: tuple(path(candidate, self._meter.candidates)), candidates)
        scores = await self._scored(problem, paths)
        kept = self._meter.scores.setdefault(self.name or "scorer", {})
        kept.update((one.id, score) for one, score in zip(candidates, scores, strict=True) if score is not None)
        return tuple(scores)

    async def attempt(self, problem: Problem, candidates: Sequence[Candidate]) -> tuple[float | None, ...]:
        """Like `score`; every score is missing where the scorer failed, could not be paid for or cannot read them."""
        try:
            return await self.score(problem, candidates)
        except (BudgetExhausted, NothingCameBack, PromptTooLong):
            return (None,) * len(candidates)

    async def score_steps(
        self, problem: Problem, samples: Sequence[Candidate], delimiter: str
    ) -> list[tuple[float | None, ...]]:
        """The scores of every step of what whole samples say, cut after each `delimiter`."""
        cut = await each(lambda sample: _steps(sample, delimiter), samples)
        paths = [steps[: end + 1] for steps in cut for end in range(len(steps))]
        scores = iter(await self._scored(problem, paths))
        return [tuple(next(scores) for _ in steps) for steps in cut]

    async def _scored(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        if not paths:
            return []
        if not self._thoughts:
            paths = await each(said_part, paths)
        if self.relative:
            return await self._fresh(problem, paths)
        contents = await each(self._content, paths)
        asked = repr(problem)  # a caller's problem may hold lists, which have no hash
        keys = [(asked, whole[-1].address[:-2], content) for whole, content in zip(paths, contents, strict=True)]
        scores: dict[Any, float | None] = {
            content: self._known[key] for key, content in zip(keys, contents, strict=True) if key in self._known
        }
        new: dict[Any, Path] = {}
        for whole, content in zip(paths, contents, strict=True):
            if content not in scores:
                new.setdefault(content, whole)
        try:
            fresh = await self._fresh(problem, list(new.values())) if new else []
            scores.update(zip(new, fresh, strict=True))
        except (BudgetExhausted, NothingCameBack, PromptTooLong):
            if not scores:
                raise
        in_order = [scores.get(content) for content in contents]
        self._known.update((key, score) for key, score in zip(keys, in_order, strict=True) if score is not None)
        return in_order

    async def _fresh(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        scores = [_finite(score) for score in await self._scorer.score(problem, paths, **self._resources)]
        if len(scores) != len(paths):
            raise EngineError(f"The scorer returned {len(scores)} scores for {len(paths)} paths.")
        return scores

    def _content(self, whole: Path) -> Any:
        return tuple((segment.text, *(getattr(segment, name) for name in self._reads)) for segment in whole)


def said_part(path: Path) -> Path:
    """A path without its thoughts, with the last segment as its end; as it is where nothing else has been said yet.

    This is where it is decided what of a thinking model is judged.
    """
    whole = "".join(segment.text for segment in path)
    said = spoken(whole)
    if said == whole or not said.strip():
        return path
    if not whole.endswith(said):  # something was thought in between, too
        return (replace(path[-1], text=said, logprobs=None),)
    thought = len(whole) - len(said)
    left = []
    for segment in path:
        if thought < len(segment.text):
            cut = segment if thought == 0 else replace(segment, text=segment.text[thought:], logprobs=None)
            left.append(cut)
        thought = max(thought - len(segment.text), 0)
    return tuple(left)


def _steps(sample: Candidate, delimiter: str) -> Path:
    return tuple(replace(sample, text=step, logprobs=None) for step in split_answer(sample.text, delimiter))


def _finite(score: float | None) -> float | None:
    return None if score is None or not math.isfinite(score) else float(score)
