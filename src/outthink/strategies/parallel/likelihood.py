"""Likelihood: the sample to whose tokens the model itself gave the highest mean logprob, so that of lowest perplexity.

Source: the baseline of RPC (A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM
Reasoning), there called perplexity; abstract, a summary and the authors' code were read. Differs: unfinished and
unreadable samples cannot win, a sample without logprobs ranks last, and ties go to the shorter.

Pays: as the free baseline of confidence. 9 points above the vote of 32 on sums, no difference seen on GSM8K
(docs/results/selection.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outthink.maths.selection import Drawn, Replayed, best_of
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.choosing import by_best
from outthink.together import each
from outthink.types import Candidate, Problem


def mean_logprob(sample: Candidate) -> float | None:
    """The mean over the tokens of a whole sample, at most 0 but for rounding; None where the engine gave none.

    The sum would prefer short samples, and underflows as a probability.
    """
    return math.fsum(sample.logprobs) / len(sample.logprobs) if sample.logprobs else None


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """The sample with the highest mean logprob.

    Args:
        n: samples drawn; at least 1.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "logprobs"})

    n: int = 16
    powers: ClassVar[frozenset[str]] = frozenset({"logprobs"})

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch, one choice."""
        samples = await model.sample(problem, self.n, logprobs=True)
        scores = await each(mean_logprob, samples)
        chosen, share = by_best(samples, scores)
        report(samples, chosen=chosen, scores=scores, confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same choice from recorded logprobs."""
        assert drawn.logprobs is not None
        return Replayed.of_all(best_of(drawn.keys, drawn.logprobs, lengths=drawn.lengths), drawn)
