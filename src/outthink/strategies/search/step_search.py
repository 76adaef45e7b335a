"""What all searches over steps have in common: where a step ends, and what the model must be able to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Choose = Literal["best", "vote"]


@dataclass(frozen=True, kw_only=True)
class StepSearch:
    """Fields that every search over steps has.

    Args:
        max_step_tokens: most tokens of one step.
        delimiter: ends a step.
        choose: answer by the "vote" of the finished paths, weighted by their scores, or with the "best" of them: for
            scores of which many small ones outweigh a large one.
    """

    powers: ClassVar[frozenset[str]] = frozenset({"prefix"})

    max_step_tokens: int = 256
    delimiter: str = "\n\n"
    choose: Choose = "vote"
