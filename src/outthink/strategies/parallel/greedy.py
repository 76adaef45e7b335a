"""Greedy decoding: one sample at temperature 0, the baseline of every comparison.

Source: common practice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outthink.model import Model
from outthink.strategies import Report
from outthink.types import Problem


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """The likeliest next token at every position."""

    own_temperature: ClassVar[bool] = True  # it says itself at which temperature it samples
    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    one_sample: ClassVar[bool] = True

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One sample."""
        samples = await model.sample(problem, temperature=0.0)
        report(samples, chosen=samples[0] if samples[0].key is not None else None)
