"""OptScale: sample until the best score probably reaches a target, by a model of the scores of this one question.

Source: OptScale: Probabilistic Optimality for Inference-time Scaling (2025); the authors' code, a note on the paper and
the abstract read, not the paper. Differs: the trained predictor of a question's mu and sigma is replaced by one prior
for all questions, fitted to a pool (`outthink optscale fit`); N comes in closed form; mu and sigma are kept in bounds;
re-estimated after every score, as the note says (the code does it once).

Pays: in place of best_of_n, where few samples often do: its accuracy with 22% fewer tokens on sums
(docs/results/selection.md). Choose target and alpha on other questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr

from outthink.maths.selection import Drawn, Replayed, best_of, numbers
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_best
from outthink.strategies.flight import flight
from outthink.types import Candidate, Problem

Floats = NDArray[np.float64]
MU = (-1.0, 2.0)
SIGMA = (0.01, 2.0)
"""Bounds of the estimates: equal scores have no spread, and a few steep ones would move mu away without end."""


_GOLDEN = (math.sqrt(5) - 1) / 2
_ROUNDS = 24  # 3e-5 of the range


class Prior(NamedTuple):
    """Normal priors of mu and sigma, as hyperparameters of `OptScale`."""

    mu: float
    sigma: float
    mu_spread: float = 0.1
    sigma_spread: float = 0.1


def log_cdf(s: ArrayLike, mu: ArrayLike, sigma: ArrayLike) -> Floats:
    """log F(s) of the normal distribution (mu, sigma) cut off to [0, 1]; -inf where s <= 0, and 0 where s >= 1."""
    s = np.clip(np.asarray(s, float), 0.0, 1.0)
    whole = _log_mass(0.0, 1.0, mu, sigma)
    above = _log_mass(s, 1.0, mu, sigma) - whole
    with np.errstate(divide="ignore"):
        # near F = 1 what counts is how much is missing to it
        high = np.log1p(-np.exp(np.minimum(above, 0.0)))
    return np.where(above < -math.log(2), high, np.minimum(_log_mass(0.0, s, mu, sigma) - whole, 0.0))


def samples_needed(mu: ArrayLike, sigma: ArrayLike, target: float, alpha: float) -> Floats:
    """N* (...), the fewest samples whose best score reaches the target with probability alpha; inf where none do.

    P(max >= s) = 1 - F(s)^N >= alpha, so N* = ceil(log(1 - alpha) / log F(s)). It can be billions: cap it.
    """
    log_f = log_cdf(target, mu, sigma)
    if alpha <= 0:
        return np.ones(log_f.shape)
    log_miss = math.log1p(-alpha) if alpha < 1 else -math.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        n = log_miss / log_f
    n = np.where(log_f == 0, np.inf, np.where(np.isneginf(log_f), 1.0, n))
    return np.asarray(np.maximum(np.ceil(n * (1 - 1e-12)), 1.0))


def estimate(scores: ArrayLike, prior: Prior | None = None) -> tuple[Floats, Floats]:
    """mu and sigma (...) of the scores (..., n) in [0, 1], NaN being missing; with a prior the mode of the posterior.

    Without one it is the maximum of the likelihood, which few scores determine badly; mu is where the normal
    distribution has its peak, not the mean of the scores, and may be outside of [0, 1]. NaN where there is no score
    and no prior. Raises ValueError for a score outside of [0, 1].
    """
    x = np.asarray(scores, float)
    known = ~np.isnan(x)
    if not ((x[known] >= 0) & (x[known] <= 1)).all():
        raise ValueError("OptScale needs scores in [0, 1]; map others by a sigmoid or a fixed range first")
    n = known.sum(-1)
    mean, square = (np.where(known, x**power, 0.0).sum(-1) / np.maximum(n, 1) for power in (1, 2))

    def objective(mu: Floats, sigma: Floats) -> Floats:
        distance = square - 2 * mu * mean + mu**2
        likelihood = -n * (distance / (2 * sigma**2) + np.log(sigma) + _log_mass(0.0, 1.0, mu, sigma))
        if prior is None:
            return np.asarray(likelihood)
        off, off_sigma = (mu - prior.mu) / prior.mu_spread, (sigma - prior.sigma) / prior.sigma_spread
        return np.asarray(likelihood - off**2 / 2 - off_sigma**2 / 2)

    def best_mu(sigma: Floats) -> tuple[Floats, Floats]:
        return _highest(lambda mu: objective(mu, sigma), np.full(n.shape, MU[0]), np.full(n.shape, MU[1]))

    # the likelihood is concave in mu / sigma^2 and 1 / sigma^2, so it has one top in mu, and its ridge one in sigma
    low, high = np.log(SIGMA)
    log_sigma, _ = _highest(lambda x: best_mu(np.exp(x))[1], np.full(n.shape, low), np.full(n.shape, high))
    mu, _ = best_mu(np.exp(log_sigma))
    nothing = (n == 0) & (prior is None)
    return np.where(nothing, np.nan, mu), np.where(nothing, np.nan, np.exp(log_sigma))


def stops_at(
    scores: ArrayLike, *, peek: int, target: float, alpha: float, prior: Prior | None = None
) -> NDArray[np.intp]:
    """How many of the samples (..., n) are drawn; a score of NaN is missing, or its sample has no readable answer."""
    x = np.asarray(scores, float)
    rows = x.reshape(-1, x.shape[-1])
    drawn = np.full(len(rows), rows.shape[-1], dtype=np.intp)
    going = np.arange(len(rows))
    for m in range(peek, rows.shape[-1]):
        if not len(going):
            break
        enough = _enough(rows[going, :m], peek, target, alpha, prior)
        drawn[going[enough]] = m
        going = going[~enough]
    return drawn.reshape(x.shape[:-1])


def fit_prior(scores: Sequence[ArrayLike]) -> Prior:
    """The prior of a pool: mean and standard deviation over its problems of each problem's mean and deviation.

    As in the paper's code these are moments of the scores themselves. NaN is missing; problems with fewer than two
    scores say nothing. Spreads are at least 0.01. Fit it on other problems than those it is used on.
    """
    known = [x[~np.isnan(x)] for x in (np.asarray(one, float).ravel() for one in scores)]
    known = [x for x in known if len(x) >= 2]
    if not known:
        raise ValueError("a prior needs at least one problem with two scores")
    if any(x.min() < 0 or x.max() > 1 for x in known):
        raise ValueError("OptScale needs scores in [0, 1]; map others by a sigmoid or a fixed range first")
    means, deviations = np.array([x.mean() for x in known]), np.array([x.std() for x in known])
    return Prior(
        mu=float(means.mean()),
        sigma=max(float(deviations.mean()), SIGMA[0]),
        mu_spread=max(float(means.std()), 0.01),
        sigma_spread=max(float(deviations.std()), 0.01),
    )


def _enough(scores: Floats, peek: int, target: float, alpha: float, prior: Prior | None) -> NDArray[np.bool_]:
    known = (~np.isnan(scores)).sum(-1)
    mu, sigma = estimate(scores, prior)
    return np.asarray((known >= peek) & (known >= samples_needed(mu, sigma, target, alpha)))


def _log_mass(low: ArrayLike, high: ArrayLike, mu: ArrayLike, sigma: ArrayLike) -> Floats:
    """log(Phi((high - mu) / sigma) - Phi((low - mu) / sigma)), far out in the tails too."""
    mu, sigma = _floats(mu), _floats(sigma)
    a, b = (_floats(low) - mu) / sigma, (_floats(high) - mu) / sigma
    above = a > 0  # in the lower tail, where the logarithm is exact
    a, b = _where(above, -b, a), _where(above, -a, b)
    whole = log_ndtr(b)
    with np.errstate(divide="ignore"):
        return np.asarray(whole + np.log1p(-np.exp(np.minimum(log_ndtr(a) - whole, 0.0))))


def _highest(f: Callable[[Floats], Floats], low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Where in [low, high] each of many functions with one top is largest, and how large, by golden sections."""
    low, high = _floats(low), _floats(high)
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = _floats(f(a)), _floats(f(b))
    for _ in range(_ROUNDS):
        left = at_a >= at_b
        low, high = _where(left, low, a), _where(left, b, high)
        step = _GOLDEN * (high - low)
        new = _where(left, high - step, low + step)
        at_new = _floats(f(new))
        a, b = _where(left, new, b), _where(left, a, new)
        at_a, at_b = _where(left, at_new, at_b), _where(left, at_a, at_new)
    return _where(at_a >= at_b, a, b), np.maximum(at_a, at_b)


def _floats(values: ArrayLike) -> Any:
    """As an array; a single number as a number, with which numpy takes a tenth of the time."""
    array = np.asarray(values, float)
    return array if array.ndim else float(array)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    """`np.where`, for single numbers too."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, yes, no)
    return yes if condition else no


@dataclass(frozen=True, kw_only=True)
class OptScale:
    """The best-scored of as many samples as it probably takes to reach a score of `target`.

    The promise is about the verifier's scores and not about right answers: choose target and alpha on other problems.
    The scores must be in [0, 1]. Without mu and sigma it is the paper's OptScale^0, which estimates from the scores
    seen; with them OptScale^t, with one prior for all problems, which `outthink optscale fit` reads from a pool.

    Args:
        n: most samples; at least 1.
        peek: scored samples before it is first estimated, from 1 to n. None is 5 of 16, and never more than 20; the
            paper's code takes 3, 5, 10 and 20 for n of 8, 16, 32 and 64.
        target: score to reach (s_min), from 0 to 1; at 1 it is best-of-n.
        alpha: probability with which the best score is to reach it, from 0 to 1; at 1 it is best-of-n.
        mu, sigma: prior means of the two parameters; both or neither.
        mu_spread, sigma_spread: their prior standard deviations.
        ahead: samples in flight; 1 draws none that is not needed. The decision does not depend on it: samples are
            scored in the order of their addresses. What is in flight at the stop is cancelled and charged.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"scores"})

    n: int = 16
    peek: int | None = None
    target: float = 0.95
    alpha: float = 0.95
    mu: float | None = None
    sigma: float | None = None
    mu_spread: float = 0.1
    sigma_spread: float = 0.1
    ahead: int = 4

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "ahead"))
        if self.peek is not None and not 1 <= self.peek <= self.n:
            raise ValueError(f"peek must be from 1 to n ({self.n}), not {self.peek}")
        for name in ("target", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        if (self.mu is None) != (self.sigma is None):
            raise ValueError("mu and sigma belong together: give both or neither")
        if self.mu is not None and not MU[0] <= self.mu <= MU[1]:
            raise ValueError(f"mu must be from {MU[0]:g} to {MU[1]:g}, not {self.mu}")
        if self.sigma is not None and not SIGMA[0] <= self.sigma <= SIGMA[1]:
            raise ValueError(f"sigma must be from {SIGMA[0]:g} to {SIGMA[1]:g}, not {self.sigma}")
        for name in ("mu_spread", "sigma_spread"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")

    @property
    def first_look(self) -> int:
        """How many scores there are when it is first estimated."""
        return min(math.ceil(5 * self.n / 16), 20) if self.peek is None else self.peek

    @property
    def prior(self) -> Prior | None:
        """None for OptScale^0."""
        if self.mu is None or self.sigma is None:
            return None
        return Prior(self.mu, self.sigma, self.mu_spread, self.sigma_spread)

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores) -> None:
        """The first samples are scored together, later ones one by one; the best so far is reported."""
        seen: list[Candidate] = []
        scores: dict[str, float | None] = {}

        def best() -> None:
            known = [scores.get(one.id) for one in seen]
            chosen, share = by_best(seen, known)
            report(seen, chosen=chosen, scores=known, confidence=share)

        async def judge() -> None:
            new = [one for one in seen if one.key is not None and one.id not in scores]
            scores.update(zip((one.id for one in new), await verifier.score(problem, new), strict=True))
            best()

        async with flight(model.draws(problem), self.n, self.ahead) as flying:
            while (sample := await flying.next()) is not None:
                seen.append(sample)
                best()
                # what cannot be read cannot win, so it says nothing about the best score either
                readable = sum(one.key is not None for one in seen)
                if sample.key is None or readable < self.first_look:
                    continue
                await judge()
                known = numbers([scores.get(one.id) for one in seen])
                if _enough(known, self.first_look, self.target, self.alpha, self.prior):
                    return
            await judge()

    def replay(self, drawn: Drawn) -> Replayed:
        """The same stop and choice from recorded scores."""
        assert drawn.scores is not None
        scores = np.where(drawn.keys >= 0, drawn.scores, np.nan)
        used = stops_at(scores, peek=self.first_look, target=self.target, alpha=self.alpha, prior=self.prior)
        return Replayed.of_prefix(best_of(drawn.prefix(used), drawn.scores, lengths=drawn.lengths), used)
