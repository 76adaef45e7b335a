"""RPC: perplexity consistency after pruning the paths that a two-component Weibull mixture calls improbable.

Source: A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM Reasoning (RPC); abstract, a
summary and the authors' code were read. Differs: nothing is pruned where there are no more paths than the mixture has
parameters, where all are equally probable, or where the fit fails; the likelihood's gradient is exact, not numeric.

Pays: where many improbable paths outvote a few probable ones. On sums and on GSM8K it added nothing to
perplexity_consistency (docs/results/selection.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.selection import Drawn, Replayed, Selected
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.parallel.likelihood import mean_logprob
from outthink.strategies.parallel.perplexity_consistency import by_paths, perplexity_vote
from outthink.together import each
from outthink.types import Problem

_START = (0.5, 1.0, 1.0, 1.5, 2.0)  # weight of the first component, then shape k and scale l of both
_BOUNDS = ((0.2, 0.8), *4 * ((0.01, None),))
_LEAST = 1e-300  # stands for a probability of 0, whose logarithm is minus infinity
_STEEP = 500.0  # exponents are cut off here, since exp(709) is the largest number there is


def weibull_mixture(values: ArrayLike) -> NDArray[np.float64] | None:
    """Weight, shape and scale of the component with the higher mean, then shape and scale of the lower one.

    The maximum-likelihood fit to `values` (n,), at least 0; None where n is too small for it, all are equal, or the
    fit fails.
    """
    x = np.maximum(np.asarray(values, float), _LEAST)
    if len(x) <= len(_START) or np.ptp(x) <= 1e-12 * x.max():
        return None
    from scipy.optimize import minimize  # here, because importing scipy is slow
    from scipy.special import gamma

    fit: Any = minimize(_loss, _START, args=(np.log(x),), jac=True, bounds=_BOUNDS, method="L-BFGS-B")
    weight, *parameters = fit.x
    if not (np.isfinite(fit.x).all() and np.isfinite(fit.fun)):
        return None
    (shape, scale), (other_shape, other_scale) = parameters[:2], parameters[2:]
    if scale * gamma(1 + 1 / shape) < other_scale * gamma(1 + 1 / other_shape):  # which is which is arbitrary
        weight, shape, scale, other_shape, other_scale = 1 - weight, other_shape, other_scale, shape, scale
    return np.array([weight, shape, scale, other_shape, other_scale])


def pruned(probabilities: ArrayLike) -> NDArray[np.bool_]:
    """Which paths (..., n) are dropped: more likely of the lower component, and less probable than the mean.

    Because of the second condition the most probable path always stays. NaN is not in the fit and is not dropped.
    """
    p = np.asarray(probabilities, float)
    dropped = np.zeros(p.shape, dtype=bool)
    for place in np.ndindex(p.shape[:-1]):
        known = ~np.isnan(p[place])
        values = np.maximum(p[place][known], _LEAST)
        fit = weibull_mixture(values)
        if fit is None:
            continue
        weight, shape, scale, other_shape, other_scale = fit
        high = np.log(weight) + _log_density(np.log(values), shape, scale)[0]
        low = np.log(1 - weight) + _log_density(np.log(values), other_shape, other_scale)[0]
        dropped[(*place, known)] = (high < low) & (values < values.mean())
    return dropped


def rpc_vote(
    keys: ArrayLike, logprobs: ArrayLike, *, paths: ArrayLike | None = None, lengths: ArrayLike | None = None
) -> Selected:
    """`perplexity_vote` among the paths that are not pruned; arguments as there, one fit for each row."""
    keys, logprobs = np.broadcast_arrays(np.asarray(keys, dtype=np.intp), np.asarray(logprobs, float))
    probabilities = np.exp(np.where(keys >= 0, np.minimum(logprobs, 0.0), np.nan))
    kept = np.where(pruned(probabilities), -1, keys)
    return perplexity_vote(kept, logprobs, paths=paths, lengths=lengths)


def _log_density(
    logs: NDArray[np.float64], shape: float, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The log density of W(x; shape, scale) at x = exp(logs), and its derivatives by shape and by scale."""
    z = logs - np.log(scale)
    power = np.exp(np.minimum(shape * z, _STEEP))
    value = np.log(shape / scale) + (shape - 1) * z - power
    return value, 1 / shape + z - z * power, shape / scale * (power - 1)


def _loss(parameters: NDArray[np.float64], logs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Minus the log likelihood of the mixture, and its gradient."""
    weight, *rest = parameters
    one, one_shape, one_scale = _log_density(logs, rest[0], rest[1])
    two, two_shape, two_scale = _log_density(logs, rest[2], rest[3])
    one, two = one + np.log(weight), two + np.log(1 - weight)
    total = np.logaddexp(one, two)
    first, second = np.exp(one - total), np.exp(two - total)
    gradient = [
        (first / weight - second / (1 - weight)).sum(),
        (first * one_shape).sum(),
        (first * one_scale).sum(),
        (second * two_shape).sum(),
        (second * two_scale).sum(),
    ]
    return -float(total.sum()), -np.array(gradient)


@dataclass(frozen=True, kw_only=True)
class RPC:
    """Reasoning pruning, then perplexity consistency.

    Args:
        n: samples drawn; at least 1. The paper uses 64 and 128.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "logprobs"})

    n: int = 16
    powers: ClassVar[frozenset[str]] = frozenset({"logprobs"})

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch, one fit, one vote."""
        samples = await model.sample(problem, self.n, logprobs=True)
        scores = await each(mean_logprob, samples)
        chosen, share = by_paths(rpc_vote, samples, scores)
        report(samples, chosen=chosen, scores=scores, confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same vote on recorded answers and logprobs."""
        assert drawn.logprobs is not None
        return Replayed.of_all(rpc_vote(drawn.keys, drawn.logprobs, paths=drawn.paths, lengths=drawn.lengths), drawn)
