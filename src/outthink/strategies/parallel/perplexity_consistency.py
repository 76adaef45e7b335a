"""Perplexity consistency: sum the model's own probabilities of the distinct paths to each answer, instead of votes.

Source: A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM Reasoning (RPC); abstract, a
summary and the authors' code were read. Differs: a sample without logprobs weighs nothing, and with none it is the
majority; ties have the order of `selection`.

Pays: where right paths are clearly more probable than wrong ones. It costs what the vote costs: 15 points above it on
sums, no difference seen on GSM8K (docs/results/selection.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from outthink.maths.selection import Drawn, Replayed, Selected, codes, first_of_equals, numbers, weighted_vote
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.choosing import Chosen, pick
from outthink.strategies.parallel.likelihood import mean_logprob
from outthink.together import each
from outthink.types import Candidate, Problem


def perplexity_vote(
    keys: ArrayLike, logprobs: ArrayLike, *, paths: ArrayLike | None = None, lengths: ArrayLike | None = None
) -> Selected:
    """The answer whose distinct paths have the largest sum of p = exp(mean logprob).

    Args:
        keys: (..., n) integers; equal means equal answers, -1 is INVALID.
        logprobs: (..., n) mean logprob of each path; NaN (missing) weighs nothing, and where all of them are
            missing every path weighs the same.
        paths: (..., n) integers; equal means the same text, which counts once. None: all are distinct.
        lengths: (..., n) tokens; breaks ties towards the shorter mean.

    Raises ValueError where a logprob is plus infinity.
    """
    keys, logprobs = np.broadcast_arrays(np.asarray(keys, dtype=np.intp), np.asarray(logprobs, float))
    if np.isposinf(logprobs).any():
        raise ValueError("a mean logprob must be at most 0, not infinite")
    known = (keys >= 0) & ~np.isnan(logprobs)
    known |= (keys >= 0) & ~known.any(-1, keepdims=True)
    # Only ratios matter: relative to the largest one, no probability that could win underflows.
    values = np.where(known & ~np.isnan(logprobs), logprobs, -np.inf)
    largest = values.max(-1, keepdims=True, initial=-np.inf)
    weights = np.where(known, np.exp(values - np.where(np.isneginf(largest), 0.0, largest)), 0.0)
    weights = np.where(known & np.isneginf(largest), 1.0, weights)
    if paths is not None:
        weights = np.where(first_of_equals(np.broadcast_to(paths, keys.shape), known), weights, 0.0)
    return weighted_vote(keys, weights, lengths=lengths)


@dataclass(frozen=True, kw_only=True)
class PerplexityConsistency:
    """Self-consistency with path probabilities in place of votes.

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
        """One batch, one vote."""
        samples = await model.sample(problem, self.n, logprobs=True)
        scores = await each(mean_logprob, samples)
        chosen, share = by_paths(perplexity_vote, samples, scores)
        report(samples, chosen=chosen, scores=scores, confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same vote on recorded answers and logprobs."""
        assert drawn.logprobs is not None
        return Replayed.of_all(
            perplexity_vote(drawn.keys, drawn.logprobs, paths=drawn.paths, lengths=drawn.lengths), drawn
        )


def by_paths(rule: Callable[..., Selected], samples: Sequence[Candidate], scores: Sequence[float | None]) -> Chosen:
    """`perplexity_vote`, or a rule with its arguments, applied to candidates."""
    vote = rule(
        codes([sample.key for sample in samples]),
        numbers(scores),
        paths=codes([sample.text for sample in samples]),
        lengths=[sample.tokens for sample in samples],
    )
    return pick(samples, vote)
