"""First valid answer: sample one answer after the other and return the first that can be read.

Source: common practice (resampling until the output has the right form). Differs: at most n samples are drawn.

Pays: where answers often lack the right form, and any answer of the right form will do.
"""

from __future__ import annotations

from dataclasses import dataclass

from outthink.errors import NothingCameBack
from outthink.model import Model
from outthink.strategies import Report
from outthink.types import Candidate, Problem


@dataclass(frozen=True, kw_only=True)
class FirstValid:
    """The first of up to n samples that ended by itself and has a readable answer.

    Args:
        n: most samples drawn; at least 1.
    """

    n: int = 4

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One sample at a time, so that nothing is spent after the first valid answer."""
        tried: list[Candidate] = []
        failure: NothingCameBack | None = None
        for _ in range(self.n):
            try:
                (sample,) = await model.sample(problem)
            except NothingCameBack as cause:  # this sample failed; the next one may not
                failure = cause
                continue
            tried.append(sample)
            valid = sample.key is not None
            report(tried, chosen=sample if valid else None)
            if valid:
                return
        if failure is not None and not tried:
            raise failure
