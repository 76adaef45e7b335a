"""Random scores: the control that every comparison of selectors needs, because it is a selector that knows nothing.

Source: the control of Bag of Tricks for Inference-time Computation of LLM Reasoning (2025), read in the authors' code.
Differs: each score belongs to the address of its sample, so that it is the same in whatever order samples are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outthink.rewards import Path
from outthink.rng import Rng
from outthink.types import Problem


@dataclass(frozen=True)
class Random:
    """A uniform number in [0, 1) that depends on nothing but the run's seed and the path's address; free.

    The best of n by it is a random readable sample, so in expectation as good as one sample where all are readable, and
    better by what unreadable ones cost where some are not.

    Args:
        process: scores of steps; drawn apart from those of whole answers.
    """

    process: bool = False
    thoughts = True
    reads = frozenset({"address"})  # equal texts have scores of their own, or a frequent one would lose its chances

    async def score(self, problem: Problem, paths: Sequence[Path], *, rng: Rng) -> list[float | None]:
        """One score per path, never missing."""
        role = "prm" if self.process else "verifier"
        return [float(rng.at(role, len(path), *path[-1].address).random()) for path in paths]
