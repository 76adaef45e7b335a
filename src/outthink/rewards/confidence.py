"""The model's own confidence: the geometric mean of its token probabilities, of an answer or of its last step.

Source: mean token log-likelihood as in Wang et al., Self-Consistency (2022), section on weighted votes; as a process
reward it is ours. Costs nothing; it is not calibrated and compares only within one question, model and temperature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from outthink.rewards import Path
from outthink.together import each
from outthink.types import Problem


@dataclass(frozen=True)
class Confidence:
    """exp(mean logprob), in [0, 1]; None where the engine gave no logprobs.

    Args:
        process: score the last step only, instead of the whole path.
    """

    process: bool = False
    reads = frozenset({"logprobs"})
    thoughts = True

    async def score(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        """One score per path."""
        return await each(lambda path: _confidence(path[-1:] if self.process else path), paths)


def _confidence(path: Path) -> float | None:
    known = [segment.logprobs for segment in path if segment.logprobs is not None]
    logprobs = [value for part in known for value in part]
    if len(known) < len(path) or not logprobs:
        return None
    return math.exp(math.fsum(logprobs) / len(logprobs))
