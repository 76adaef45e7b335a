"""The value of an unfinished solution by Monte Carlo: it is finished m times, and a verifier scores how it ended.

Source: estimates of process rewards by completions, as in Wang et al., Math-Shepherd (2023), from memory, and in notes
on PAV and GenPRM. Differs: a verifier takes the place of the gold answer, so that the value is no better than it is; a
completion that was cut off counts as 0, and one that failed is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from outthink.errors import BudgetExhausted, MissingResource, NothingCameBack, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Models
from outthink.rewards import Path
from outthink.rewards.inner import Inner, passed_on
from outthink.types import Candidate, Problem
from outthink.types import path as segments


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The mean score, in [0, 1], of m completions by the model in the role "rollout", else the main model.

    A path that has ended is not continued: it has the verifier's score of itself. One without room for a further token
    has 0.

    Args:
        m: completions of each path; at least 1.
        verifier: scores them, as text or as what `make_scorer` takes; its scores must be in [0, 1].
    """

    m: int = 4
    verifier: Any = "confidence"
    process: bool = True
    thoughts: ClassVar[bool] = True  # what it goes on from is the whole text

    def __post_init__(self) -> None:
        if not self.process:
            raise ValueError(
                "it scores steps and not whole answers: use it as the PRM, and its verifier as the verifier"
            )
        if self.m < 1:
            raise ValueError(f"m must be at least 1, not {self.m}")
        _ = self._inner  # one that there is not is an error now

    @cached_property
    def _inner(self) -> Inner:
        return Inner(self.verifier, process=False)

    reads = passed_on("reads_ends")
    relative = passed_on("relative")
    spec = passed_on("spec")

    @property
    def score(self) -> Callable[..., Any]:
        """The coroutine function, with the resources of the verifier; all completions are one batch, and all scores."""
        return self._inner.naming(self._values)

    async def close(self) -> None:
        """Close the verifier."""
        await self._inner.close()

    async def _values(
        self, problem: Problem, paths: Sequence[Path], *, models: Models, meter: Meter, **others: Any
    ) -> list[float | None]:
        """Raises BudgetExhausted, NothingCameBack or PromptTooLong where because of that there is no score at all."""
        model = models.role("rollout")
        most = model.sampling.cap
        wholes = [_whole(path, meter) for path in paths]
        ended = [_ended(path, meter) for path in wholes]
        rooms = [0 if end else _room(path, meter, most) for path, end in zip(wholes, ended, strict=True)]
        going = [place for place, room in enumerate(rooms) if room > 0]
        shared = model.name == models.role("model").name
        draws = [
            Draw(n=self.m, after=_start(wholes[place], meter, shared), max_tokens=rooms[place], aside=True)
            for place in going
        ]
        # what is scored of each path; None is what was cut off
        ends: list[list[Path | None]] = [[end] for end in ended]
        failure: Exception | None = None
        if going:
            if "prefix" not in model.powers:
                raise MissingResource(f"Rollouts continue what is written, and {model.name} cannot do that.")
            drawn: list[list[Candidate]] = [[] for _ in going]
            try:
                drawn = await model.lane(*wholes[going[0]][-1].address).sample_fitting(problem, draws)
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as cause:
                failure = cause
            for place, children in zip(going, drawn, strict=True):
                ends[place] = [_completed(wholes[place], child) for child in children]
        if failure is not None and not any(ends):
            raise failure
        asked = [end for group in ends for end in group if end is not None]
        scores = iter(await self._inner.bound(models=models, meter=meter, **others).probabilities(problem, asked))
        return [_mean([0.0 if end is None else next(scores) for end in group]) for group in ends]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _ended(path: Path, meter: Meter) -> Path | None:
    """The path as an answer where the model has ended it, also where that was written aside."""
    if _cut_from(path, meter) is None and (path[-1].complete or path[-1].finish == "eos"):
        return (*path[:-1], replace(path[-1], complete=True))
    return None


def _completed(path: Path, child: Candidate) -> Path | None:
    """The path with its completion as an answer; None where that was cut off."""
    return None if child.finish == "length" else (*path, replace(child, complete=True))


def _cut_from(path: Path, meter: Meter) -> Candidate | None:
    """The sample that the steps were cut from; None where they were drawn as steps."""
    drawn = meter.candidates.get(path[-1].id, path[-1])
    return None if drawn.text == path[-1].text else drawn


def _whole(path: Path, meter: Meter) -> Path:
    """The path; for all the steps of a sample, the sample. (Steps of white space alone are not among them.)"""
    sample = _cut_from(path, meter)
    if sample is None or "".join(_text(path).split()) != "".join(sample.text.split()):
        return path
    return tuple(segments(sample, meter.candidates))


def _room(path: Path, meter: Meter, most: int) -> int:
    """How many tokens a completion may have; of a part of a sample, the tokens are not known but as its share."""
    sample = _cut_from(path, meter)
    if sample is None:
        return most - sum(step.tokens for step in path)
    return most - math.ceil(sample.tokens * len(_text(path)) / len(sample.text))


def _start(path: Path, meter: Meter, shared: bool) -> Candidate:
    """What is continued: the last step with its tokens, or the text so far where there are none or they are foreign."""
    if shared and _cut_from(path, meter) is None:
        return path[-1]
    text = _text(path)
    beginning = Candidate(
        address=("rollout", *path[-1].address, "after", len(text)),
        parents=(path[-1].id,),
        text=text,
        finish="stop",
        complete=False,
    )
    return meter.candidates.setdefault(beginning.id, beginning)


def _text(path: Path) -> str:
    return "".join(step.text for step in path)
