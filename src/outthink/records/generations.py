"""The generations of answers that a trace has: what was in each, what making it read and wrote, and what became of it.

Own work. A generation is a round whose candidates are all answers of that time, each made from the generation before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from outthink.types import Candidate, Trace, Usage


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One generation, in numbers; means per problem that has it.

    Args:
        number: from 1.
        problems: that have it; a method may stop earlier on others.
        answers, distinct: answers in it, and how many different ones can be read.
        right: share of right answers; NaN where no answers of it are graded. What cannot be read is wrong.
        read, cached, written: tokens that all models read anew, had in their caches and wrote for it.
        revised: answers that were made from the one in their place of the generation before, where both have as many
            places and both answers are graded; sum over problems. Of these, `to_right` went from wrong to right, and
            `to_wrong` from right to wrong.
    """

    number: int
    problems: int
    answers: float
    distinct: float
    right: float
    read: float
    cached: float
    written: float
    revised: int
    to_right: int
    to_wrong: int

    def told(self) -> str:
        """What is in it, and what it read and wrote, in words."""
        return (
            f"{self.answers:.3g} answers, {self.distinct:.3g} different ones; {self.read:,.0f} tokens read, "
            f"{self.cached:,.0f} more from the cache, {self.written:,.0f} written"
        )


@dataclass(eq=False, slots=True)
class _Sums:
    problems: int = 0
    answers: int = 0
    distinct: int = 0
    right: list[float] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    revised: int = 0
    to_right: int = 0
    to_wrong: int = 0


def answers_of(trace: Trace) -> dict[str, str]:
    """The different answers of all generations of a trace, as displayed, by their keys; none where it has none."""
    return {
        one.key: one.answer
        for _, candidates, _ in _generations(trace)
        for one in candidates
        if one.key is not None and one.answer is not None
    }


def generations_of(trace: Trace) -> tuple[Generation, ...]:
    """Those of one trace, nothing of it graded; none where it has none."""
    counted = GenerationCounts()
    counted.add(trace, {})
    return counted.generations()


class GenerationCounts:
    """Counts the generations of traces that come one after the other."""

    def __init__(self) -> None:
        self._sums: defaultdict[int, _Sums] = defaultdict(_Sums)

    def add(self, trace: Trace, credits: Mapping[str, float]) -> None:
        """Count a trace; `credits` are of its answers by key, as far as they are known."""
        before: list[Candidate] = []
        used = Usage()
        for number, candidates, usage in _generations(trace):
            sums = self._sums[number]
            keys = [one.key for one in candidates]
            sums.problems += 1
            sums.answers += len(keys)
            sums.distinct += len({*keys} - {None})
            if credits:
                sums.right.append(sum(credits.get(key or "", 0.0) for key in keys) / max(len(keys), 1))
            sums.usage += _less(usage, used)
            same = len(before) == len(candidates)  # else a place is not the same one's in both
            for old, new in zip(before, candidates, strict=True) if same else ():
                was, became = credits.get(old.key or ""), credits.get(new.key or "", None if new.key else 0.0)
                if old.id in new.parents and was is not None and became is not None:
                    sums.revised += 1
                    sums.to_right += was < 1 <= became
                    sums.to_wrong += became < 1 <= was
            before, used = candidates, usage

    def generations(self) -> tuple[Generation, ...]:
        """What was counted, by number."""
        return tuple(
            Generation(
                number=number,
                problems=sums.problems,
                answers=sums.answers / sums.problems,
                distinct=sums.distinct / sums.problems,
                right=sum(sums.right) / len(sums.right) if sums.right else math.nan,
                read=(sums.usage.prompt - sums.usage.cached) / sums.problems,
                cached=sums.usage.cached / sums.problems,
                written=sums.usage.completion / sums.problems,
                revised=sums.revised,
                to_right=sums.to_right,
                to_wrong=sums.to_wrong,
            )
            for number, sums in sorted(self._sums.items())
        )


def _generations(trace: Trace) -> Iterable[tuple[int, list[Candidate], Usage]]:
    """Number, answers, and tokens that were charged by then."""
    rounds = [one for one in trace.rounds if one.generation is not None]
    by_id = {one.id: one for one in trace.candidates} if rounds else {}
    for one in rounds:
        if one.generation is not None:
            yield one.generation, [by_id[name] for name in one.candidates if name in by_id], one.usage or Usage()


def _less(usage: Usage, before: Usage) -> Usage:
    return Usage(
        prompt=usage.prompt - before.prompt,
        cached=usage.cached - before.cached,
        completion=usage.completion - before.completion,
    )
