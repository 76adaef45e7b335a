"""Fits the calibration of `cascade` to a pool of the draft model: the score of one subset of n samples a question.

One random subset a question, because the scores of several would not be independent, and the rate not what is asked.
Without new tokens; what is right or wrong is only used to say how well the score tells right drafts from wrong ones.

Source: the marginal mode of ATTS (see `strategies.parallel.cascade`). Differs: recorded samples, not new ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outthink.errors import UsageError
from outthink.learn.measures import auroc
from outthink.learn.scores import scores_of
from outthink.maths.conformal import threshold
from outthink.records.pools import PoolData, PoolProblem, read_pool
from outthink.rng import Rng
from outthink.strategies.parallel.cascade import DraftScores, Signal, drafted
from outthink.types import AnswerKind, Sampling

_RATES = (0.1, 0.3, 0.5)  # for which the sentences say what is taken over


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fitted:
    """A calibration, and what its scores are worth on the pool it comes from.

    Args:
        right: (questions,) whether the draft's answer is right, in the order of the pool.
        auroc: chance that a right draft has a better score than a wrong one; 0.5 says nothing. NaN without either.
    """

    calibration: DraftScores
    right: NDArray[np.bool_]
    auroc: float

    def sentences(self) -> list[str]:
        """In words."""
        scores = self.calibration.scores
        missing = sum(score is None for score in scores)
        lines = [f"{len(scores)} questions; the draft is right on {100 * self.right.mean():.1f}% of them."]
        if math.isnan(self.auroc):
            lines.append("Whether the score tells right drafts from wrong ones cannot be known: one kind is missing.")
        else:
            lines.append(
                f"A right draft has a better score than a wrong one in {100 * self.auroc:.0f}% of pairs "
                "(50%: the score says nothing)."
            )
        if missing:
            lines.append(
                f"{missing} have no score, so about {100 * missing / len(scores):.1f}% are taken over at any alpha."
            )
        limits = [float(threshold([np.nan if score is None else score for score in scores], alpha)) for alpha in _RATES]
        taken = [f"at alpha {alpha:g} {_taken_over(limit)}" for alpha, limit in zip(_RATES, limits, strict=True)]
        lines.append(f"Taken over are: {', '.join(taken)}.")
        return [*lines, "What it controls is how often the other model takes over, not how often an answer is wrong."]


def _taken_over(limit: float) -> str:
    """Which drafts another model takes over from, with this threshold."""
    if math.isinf(limit):
        return "none" if limit > 0 else "all"
    return f"those that score worse than {limit:.3g}"


def fit(
    path: Path,
    *,
    signal: Signal,
    n: int,
    model: str | None = None,
    verifier: str | None = None,
    answer: AnswerKind = "text",
    seed: int = 0,
) -> Fitted:
    """The calibration from a pool of independent samples of the draft model.

    Args:
        signal, n: as for `Cascade`.
        model: who wrote the pool, where it does not say.
        verifier: whose scores in the pool to take; None: the only ones there are.
        answer: how answers without a key are compared.

    Raises UsageError where the pool lacks what it takes.
    """
    if n < 1 or (signal == "agreement" and n < 2):
        raise UsageError(f"n must be at least {2 if signal == 'agreement' else 1} for {signal}, not {n}.")
    pool = read_pool(path, answer=answer)
    if pool.kind != "iid":
        raise UsageError(f"{path} does not hold independent samples of one model, so it says nothing about a draft.")
    if any(problem.keys is None for problem in pool.problems):
        raise UsageError(f"{path} has no answers.")
    if signal == "logprob" and any(problem.logprobs is None for problem in pool.problems):
        raise UsageError(f"{path} has no logprobs; choose another signal.")
    scorer = None
    if signal == "verifier":
        pool, scorer = scores_of(pool, verifier)
    if pool.samples < n:
        raise UsageError(f"{path} has {pool.samples} samples of each question, so n must be at most {pool.samples}.")
    writer, sampling = _recorded_as(pool)
    if model is not None and writer not in (None, model):
        raise UsageError(f"{path} was recorded with {writer}, not with {model}.")
    if model is None and writer is None:
        raise UsageError(f"{path} does not say which model wrote it: name it with --model.")
    judged = [_one(problem, signal, n, scorer, seed) for problem in pool.problems]
    badness, right = np.array([bad for bad, _ in judged]), np.array([correct for _, correct in judged])
    known = ~np.isnan(badness)
    return Fitted(
        calibration=DraftScores(
            model=model or writer or "",
            signal=signal,
            n=n,
            sampling=sampling,
            scores=tuple(None if np.isnan(one) else float(one) for one in badness),
            made={"pool": path.name, "seed": seed, **({} if scorer is None else {"verifier": scorer})},
        ),
        right=right,
        auroc=float(auroc(-badness[known], right[known])) if known.any() else float("nan"),
    )


def _recorded_as(pool: PoolData) -> tuple[str | None, Sampling | None]:
    """The model and the sampling of a pool; None where it does not say."""
    sampling = pool.meta.get("sampling")
    try:
        return pool.meta.get("model"), None if sampling is None else Sampling(**sampling).settled()
    except (TypeError, ValueError):
        raise UsageError(f"{pool.path} says something else than how its samples were drawn.") from None


def _one(problem: PoolProblem, signal: Signal, n: int, scorer: str | None, seed: int) -> tuple[float, bool]:
    """The score of a random subset of n samples, and whether its answer is right."""
    subset = Rng(seed, problem.id).at("takeover").permutation(len(problem.correct))[:n]
    assert problem.keys is not None
    of_samples = None if scorer is None else problem.scores[scorer][subset]
    choice, badness = drafted(
        signal,
        problem.keys[subset],
        lengths=None if problem.tokens is None else problem.tokens[subset],
        logprobs=None if problem.logprobs is None else problem.logprobs[subset],
        scores=None if of_samples is None else _means(of_samples),
    )
    index = int(choice.index)
    return float(badness), index >= 0 and bool(problem.correct[subset[index]])


def _means(verdicts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean (n,) of the verdicts (n, m) that each sample has; NaN without any."""
    known = ~np.isnan(verdicts)
    return np.where(known.any(-1), np.where(known, verdicts, 0.0).sum(-1) / np.maximum(known.sum(-1), 1), np.nan)
