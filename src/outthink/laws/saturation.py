"""Saturation: a ceiling that more samples or more rounds approach, and the budget after which one more is not worth it.

Source: Scaling over Scaling: Exploring Test-Time Scaling Pareto (later Plateau) in Large Reasoning Models (2025), its
model TTSPM, from reviews, an explainer and a tutorial with the same symbols. The paper itself was not read, nor its
equation of the saturation point: that is derived here from the gain of one more unit. Differs: each question has a rate
of its own (`fit_many_rates`). The literature's curve has one rate for all questions and is fitted to the mean
(`fit_one_rate`). It stands beside the other because it is all that can be fitted where only accuracies are known. A
mean of many curves climbs early and long, so one rate promises too low a ceiling and stops too soon. Each law is also
fitted to half of the range. What that misses at the whole of it, the law may miss again at each further doubling; where
it is more than chance, of the ceiling is known no more than what was seen.

F(N) = F_max (1 - (1 - p)^N) is the chance that one of N independent samples is right, or that a wrong answer was put
right within N rounds and stayed right, times the ceiling F_max. The expected units of stopping at the first success are
`imperfect.drawn(p, N)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.laws.coverage import pass_at_k
from outthink.maths.intervals import Interval, bootstrap, means
from outthink.rng import generator

Floats = NDArray[np.float64]
Rule = Literal["gain", "gap"]

_DECADE = 10  # a law says nothing beyond so many times the largest budget that was fitted
_SEEN = 0.5  # share of its ceiling that a curve must have reached at the largest budget, or the ceiling is a guess
_CLOSE = 1e-9  # a budget that is whole but for rounding is not rounded up
_SAMPLES = 3  # of a question, so that its rate can be told from that of others
_TESTS = 40  # resamples that are also fitted to half of their samples
_TRIFLE = 0.005  # a drift below half a point proves nothing
_THINNED = 5  # random halves of the samples, whose mean is the drift
_LOST = 0.2  # share of resamples whose half has no law, above which none is known
_LIKELY = 3.84  # twice the difference of log likelihoods that a parameter makes once in twenty
_EDGE = 14.0  # logits beyond which a rate or a share is 0 or 1


def reached(n: ArrayLike, ceiling: ArrayLike, p: ArrayLike) -> Floats:
    """F(N): accuracy after N units; everything broadcasts.

    Args:
        n: units, at least 0.
        ceiling: F_max, in [0, 1].
        p: chance of a success in one unit, in [0, 1].
    """
    n, ceiling, p = np.asarray(n, float), np.asarray(ceiling, float), np.asarray(p, float)
    return np.asarray(np.where(n > 0, ceiling * (1 - (1 - p) ** n), 0.0))


def saturation_point(
    eps: ArrayLike, ceiling: ArrayLike, p: ArrayLike, *, rule: Rule = "gain", least: int = 0
) -> Floats:
    """The smallest number of units N after which stopping costs no more than eps; infinite where there is none.

    It is not monotone in p: what is nearly hopeless and what is solved at once both stop early.

    Args:
        eps: above 0. A price: one unit of t tokens at lambda accuracy per token is worth it while it adds lambda t.
        ceiling, p: as in `reached`.
        rule: "gain": one more unit adds at most eps. "gap": all further units together add at most eps, which asks
            for more units.
        least: units that are spent in any case. With p below eps the rule "gain" stops at 0, as if it were known that
            the question is hopeless.
    """
    eps, ceiling, p = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (eps, ceiling, p)))
    if not (eps > 0).all():
        raise ValueError("eps must be above 0")
    first = ceiling * p if rule == "gain" else ceiling  # what is lost by not beginning
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = np.log(eps / first) / np.log1p(-p)
    wanted = np.where(first <= eps, 0.0, np.where(p > 0, np.maximum(np.ceil(exact - _CLOSE), 1.0), np.inf))
    return np.maximum(wanted, float(least))


# ------------------------------------------------------------------------------------- one rate for all questions


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OneRate:
    """The literature's law: one ceiling and one rate, fitted to the mean curve.

    Args:
        ceiling, p: F_max and p.
        error: largest absolute difference from the mean curve; where it is larger than noise, the questions differ.
        least, most: smallest and largest budget that was fitted.
        parameters: interval of (ceiling, p), bounds of shape (2,).
        drift: accuracy at `most` as told by the law of budgets up to half of it, less what was measured; NaN where
            there are fewer than three.
        drift_interval: of it.
        draws: (resamples, 3), ceiling, p and drift of each resample.
        level: of all intervals.
    """

    ceiling: float
    p: float
    error: float
    least: float
    most: float
    parameters: Interval
    drift: float
    drift_interval: Interval
    draws: Floats = field(repr=False)
    level: float

    def at(self, n: ArrayLike) -> Floats:
        """Accuracy (...) after n (...) units."""
        return reached(n, self.ceiling, self.p)

    def at_interval(self, n: ArrayLike) -> Interval:
        """Interval (...) of it."""
        ceiling, p, drift = _columns(self.draws, np.ndim(n))
        told = reached(n, ceiling, p)
        return _beyond(told, drift, n, self.most, self.level, self.parameters.missing)

    @property
    def misses(self) -> bool:
        """Whether half of the range would have misled by more than chance."""
        return _excludes_0(self.drift_interval)

    def point(self, eps: float, *, rule: Rule = "gain") -> float:
        """The saturation point, see `saturation_point`; eps below the noise of the curve says nothing."""
        return float(saturation_point(eps, self.ceiling, self.p, rule=rule))

    def point_interval(self, eps: float, *, rule: Rule = "gain") -> Interval:
        """Interval of it."""
        points = saturation_point(eps, *_columns(self.draws, 0)[:2], rule=rule)
        return _interval(points, self.level, self.parameters.missing)

    def far(self, n: ArrayLike) -> NDArray[np.bool_]:
        """Whether n is more than ten times the largest budget: say so beside what the law predicts there."""
        return np.asarray(np.asarray(n, dtype=float) > _DECADE * self.most)


def fit_curve(budgets: ArrayLike, accuracy: ArrayLike, weights: ArrayLike | None = None) -> tuple[float, float]:
    """F_max in (0, 1] and p in (0, 1] of one curve, by weighted least squares on accuracy.

    For each p the best ceiling is known in closed form, so that the search has one dimension and one optimum to find.

    Args:
        budgets: (m,) units, above 0.
        accuracy: (m,) in [0, 1].
        weights: (m,) such as numbers of questions; None: equal.

    Raises Unidentified with fewer than three budgets, with accuracy 0 everywhere, and where the curve was flat before
    the smallest budget, unless that is 1. Also where the curve is so straight that it has reached less than half of the
    ceiling that fits it best: then ceiling and p are not separately known. For this test the ceiling may be above 1.
    """
    n, f = np.asarray(budgets, dtype=float), np.asarray(accuracy, dtype=float)
    w = np.ones_like(n) if weights is None else np.asarray(weights, dtype=float)
    if n.ndim != 1 or n.shape != f.shape or n.shape != w.shape:
        raise ValueError("budgets, accuracy and weights must be three rows of the same length")
    if not ((n > 0).all() and (f >= 0).all() and (f <= 1).all() and (w >= 0).all()):
        raise ValueError("budgets must be above 0, accuracies from 0 to 1, and weights at least 0")
    n, f, w = n[w > 0], f[w > 0], w[w > 0]
    if len(np.unique(n)) < 3:
        raise Unidentified("A saturating curve needs accuracy at three budgets at least.")
    if not f.any():
        raise Unidentified("Accuracy is 0 at every budget, so that there is no curve to fit.")
    free = _best_rate(n, f, w, np.inf)
    seen = 1 - (1 - free) ** n.max()
    if seen < _SEEN:
        raise Unidentified(
            f"The curve is still too straight: at the largest budget, {n.max():g}, it has reached {100 * seen:.0f}% of "
            "the ceiling that fits it best, so that neither ceiling nor rate is known; larger budgets are needed."
        )
    if n.min() > 1 and (1 - free) ** n.min() < 0.01:
        raise Unidentified(
            f"The curve is flat from the smallest budget, {n.min():g}, on, so that the rate is not known; smaller "
            "budgets are needed."
        )
    p = _best_rate(n, f, w, 1.0)
    return min(float(_best_ceiling(p, n, f, w)), 1.0), p


def fit_one_rate(
    budgets: ArrayLike, accuracy: ArrayLike, *, level: float = 0.95, resamples: int = 500, seed: int = 0
) -> OneRate:
    """The literature's law, with intervals over questions.

    It describes any curve that saturates, such as that of a vote: the ceiling is then that of the vote. It cannot
    describe one that falls, as a vote's does on questions whose right answer is not the most frequent one.

    Args:
        budgets: (m,) units, above 0.
        accuracy: (questions, m) of each question at each budget, or its unbiased estimate; NaN where not measured.

    Raises Unidentified as `fit_curve`, and where that is so for more than a fifth of the resamples.
    """
    n, table = np.asarray(budgets, dtype=float), np.asarray(accuracy, dtype=float)
    if table.ndim != 2 or n.shape != table.shape[1:]:
        raise ValueError("fit_one_rate needs a table of questions and budgets")
    known = ~np.isnan(table)
    filled = np.where(known, table, 0.0)

    def mean(questions: NDArray[np.intp]) -> tuple[Floats, Floats]:
        count = known[questions].sum(0).astype(float)
        return np.divide(filled[questions].sum(0), count, out=np.zeros_like(count), where=count > 0), count

    curve, count = mean(np.arange(len(table)))
    ceiling, p = fit_curve(n, curve, count)
    fitted = n[count > 0]
    half, last = n <= fitted.max() / 2, int(np.flatnonzero(n == fitted.max())[0])

    def missed(accuracy: Floats, weights: Floats) -> float:
        try:
            return float(reached(n[last], *fit_curve(n[half], accuracy[half], weights[half])) - accuracy[last])
        except Unidentified:
            return np.nan

    draws: list[tuple[float, float]] = []
    drifts: list[float] = []

    def refit(questions: NDArray[np.intp]) -> tuple[float, float]:
        means_of = mean(questions)
        fit = fit_curve(n, *means_of)
        draws.append(fit)
        if half.any() and len(drifts) < _TESTS:
            drifts.append(missed(*means_of))
        return fit

    parameters = bootstrap(refit, len(table), level=level, resamples=resamples, seed=seed)
    drift, drift_interval, drawn = _drift(
        missed(curve, count) if half.any() else np.nan,
        np.column_stack([draws, np.resize(drifts or [np.nan], len(draws))]),
        level,
    )
    if _excludes_0(drift_interval):  # the ceiling may be missed as much as at ten times the budget
        off = np.log2(_DECADE) * max(abs(drift), abs(float(drift_interval.low)), abs(float(drift_interval.high)))
        low, high = parameters.low.copy(), parameters.high.copy()
        low[0], high[0] = max(low[0] - off, 0.0), min(high[0] + off, 1.0)
        parameters = replace(parameters, low=low, high=high)
    return OneRate(
        ceiling=ceiling,
        p=p,
        error=float(np.abs(reached(fitted, ceiling, p) - curve[count > 0]).max()),
        least=float(fitted.min()),
        most=float(fitted.max()),
        parameters=parameters,
        drift=drift,
        drift_interval=drift_interval,
        draws=drawn,
        level=level,
    )


def _best_ceiling(p: ArrayLike, n: Floats, f: Floats, w: Floats) -> Floats:
    """The ceiling (...) that fits best with each p (...)."""
    shape = 1 - (1 - np.asarray(p)[..., None]) ** n
    return np.asarray((w * f * shape).sum(-1) / (w * shape**2).sum(-1))


def _best_rate(n: Floats, f: Floats, w: Floats, highest: float) -> float:
    """The p that fits best with its best ceiling of at most `highest`."""
    from scipy.optimize import minimize_scalar  # here, because importing it is slow

    def loss(u: ArrayLike) -> Floats:
        p = -np.expm1(-np.exp(u))
        ceiling = np.minimum(_best_ceiling(p, n, f, w), highest)
        return np.asarray((w * (ceiling[..., None] * (1 - (1 - p[..., None]) ** n) - f) ** 2).sum(-1))

    # u = log(-log(1 - p)), from a straight line to p = 1 within rounding
    grid = np.linspace(np.log(1e-3 / n.max()), np.log(36.0), 100)
    losses = loss(grid)
    best = int(losses.argmin())
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    fine = minimize_scalar(
        lambda u: float(loss(np.asarray(u))), bounds=around, method="bounded", options={"xatol": 1e-9}
    )
    u = fine.x if fine.fun < losses[best] else grid[best]
    return float(-np.expm1(-np.exp(u)))


# ----------------------------------------------------------------------------------------- a rate for each question


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ManyRates:
    """A share of the questions can be solved, each with a rate of its own; these rates have a beta distribution.

    F(N) = ceiling (1 - E (1 - p)^N). With spread 0 it is the law of one rate.

    Args:
        ceiling: share of questions that are ever solved; F_max of a perfect selection. 1 says that no ceiling was
            seen, not that there is none: small rates and no rate look alike.
        rate: mean success rate of one sample on those.
        spread: correlation of two samples of the same solvable question, 1 / (alpha + beta + 1) of the beta
            distribution: 0 where all rates are equal, 1 where each is 0 or 1.
        error: largest absolute difference from the mean of unbiased pass@k.
        most: samples of a question, their median: beyond it the curve is what the beta distribution says.
        parameters: interval of (ceiling, rate, spread), bounds of shape (3,). That of the ceiling holds 1 where the
            likelihood does not speak against it.
        drift: coverage at the smallest number of samples as told by the law of half of each question's, taken at
            random, less what was measured; NaN where there are fewer than six.
        drift_interval: of it.
        draws: (resamples, 4), all of these of each resample.
        level: of all intervals.
    """

    ceiling: float
    rate: float
    spread: float
    error: float
    most: int
    parameters: Interval
    drift: float
    drift_interval: Interval
    draws: Floats = field(repr=False)
    level: float

    @property
    def misses(self) -> bool:
        """Whether half of the samples would have misled by more than chance."""
        return _excludes_0(self.drift_interval)

    def at(self, n: ArrayLike) -> Floats:
        """P(some of n (...) samples is right), mean over questions."""
        return self.ceiling * (1 - _missed(n, self.rate, self.spread))

    def at_interval(self, n: ArrayLike) -> Interval:
        """Interval (...) of it."""
        ceiling, rate, spread, drift = _columns(self.draws, np.ndim(n))
        told = ceiling * (1 - _missed(n, rate, spread))
        return _beyond(told, drift, n, self.most, self.level, self.parameters.missing)

    def point(self, eps: float, *, rule: Rule = "gain") -> float:
        """The saturation point of the mean curve; rules as in `saturation_point`."""
        return float(_mixed_point(eps, self.ceiling, self.rate, self.spread, rule))

    def point_interval(self, eps: float, *, rule: Rule = "gain") -> Interval:
        """Interval of it."""
        ceiling, rate, spread, _ = _columns(self.draws, 0)
        points = _mixed_point(eps, ceiling, rate, spread, rule)
        return _interval(points, self.level, self.parameters.missing)

    def far(self, n: ArrayLike) -> NDArray[np.bool_]:
        """Whether n is more than ten times `most`: say so beside what the law predicts there."""
        return np.asarray(np.asarray(n, dtype=float) > _DECADE * self.most)


def fit_many_rates(
    samples: ArrayLike, correct: ArrayLike, *, level: float = 0.95, resamples: int = 500, seed: int = 0
) -> ManyRates:
    """The law of many rates, by maximum likelihood, with intervals over questions.

    Args:
        samples, correct: (questions,) independent samples of each question, and how many of them are right.

    Raises Unidentified where half of the questions have fewer than three samples. Also where no question has both right
    and wrong samples, since rates and ceiling are then the same thing; and where the curve, at as many samples as there
    are, has reached less than half of its ceiling. Also where any of this is so for more than a fifth of the resamples.
    """
    n, c = np.broadcast_arrays(np.atleast_1d(samples), np.atleast_1d(correct))
    if n.ndim != 1 or n.size == 0 or np.any(n < 1) or np.any(c < 0) or np.any(c > n):
        raise ValueError("each question has at least one sample, and from 0 to n right ones")
    kinds, which = np.unique(np.stack([n, c], axis=-1), axis=0, return_inverse=True)
    which = which.reshape(-1)
    draws: list[Floats] = []

    def refit(questions: NDArray[np.intp]) -> Floats:
        draws.append(_most_likely(kinds, np.bincount(which[questions], minlength=len(kinds)))[0])
        return draws[-1]

    fitted, likelihood = _most_likely(kinds, np.bincount(which, minlength=len(kinds)))
    ceiling, rate, spread = fitted.tolist()
    parameters = bootstrap(refit, len(n), level=level, resamples=resamples, seed=seed)
    ks = np.arange(1, n.min() + 1)
    seen = np.array([pass_at_k(n, c, int(k)).mean() for k in ks])
    rng = generator(seed, len(n))
    last = pass_at_k(n, c, int(n.min()))

    def missed(questions: NDArray[np.intp]) -> float:
        """By the law of a random half of the samples of each of these questions."""
        half = n[questions] // 2
        kept = rng.hypergeometric(c[questions], n[questions] - c[questions], half)
        try:
            ceiling, rate, spread = _most_likely(*np.unique(np.stack([half, kept], -1), axis=0, return_counts=True))[0]
        except Unidentified:
            return np.nan
        return float(ceiling * (1 - _missed(n.min(), rate, spread)) - last[questions].mean())

    enough = n.min() >= 2 * _SAMPLES
    tests = min(_TESTS, len(draws)) if enough else 0
    drifts = [missed(rng.integers(0, len(n), len(n))) for _ in range(tests)] or [np.nan]
    middle = float(np.mean([missed(np.arange(len(n))) for _ in range(_THINNED)])) if enough else np.nan
    drift, drift_interval, drawn = _drift(
        middle, np.column_stack([draws, np.resize(drifts, len(draws))]), level
    )  # the drifts are those of other resamples
    low, high = parameters.low.copy(), parameters.high.copy()
    without = _most_likely(kinds, np.bincount(which, minlength=len(kinds)), ceiling=True)[1]
    if 2 * (likelihood - without) <= _LIKELY:
        high[0] = 1.0
    if _excludes_0(drift_interval):  # the rates have no beta distribution, and then a ceiling is anybody's guess
        low[0], high[0] = min(low[0], float(means(last, level=level, seed=seed)[1].low)), 1.0
    law = ManyRates(
        ceiling=ceiling,
        rate=rate,
        spread=spread,
        error=float(np.abs(ceiling * (1 - _missed(ks, rate, spread)) - seen).max()),
        most=int(np.median(n)),
        parameters=replace(parameters, low=low, high=high),
        drift=drift,
        drift_interval=drift_interval,
        draws=drawn,
        level=level,
    )
    # what ten times the samples may not have shown may not be there either
    shown = float(law.at_interval(_DECADE * law.most).low)
    return replace(law, parameters=replace(law.parameters, low=np.array([min(low[0], shown), *low[1:]])))


def _most_likely(kinds: NDArray[np.int64], count: NDArray[np.int64], *, ceiling: bool = False) -> tuple[Floats, float]:
    """Ceiling, rate and spread (3,) of `count` questions of each kind: n samples, c of them right, (kinds, 2).

    Also the logarithm of their likelihood, but for a constant. With `ceiling` it is held at 1, and nothing is refused.
    """
    from scipy.optimize import minimize  # here, because importing it is slow

    (n, c), count = kinds[count > 0].T, count[count > 0]
    middle = float(np.median(np.repeat(n, count)))
    if middle < _SAMPLES:
        raise Unidentified("Rates that differ between questions need three samples or more of each question.")
    if not np.any((c > 0) & (c < n)):
        raise Unidentified(
            "No question has both right and wrong samples, so that a low rate cannot be told from an unsolvable "
            "question; more samples of each are needed."
        )
    steps = np.arange(n.max())

    def surprise(logits: Floats) -> tuple[float, Floats]:
        """-log likelihood without the binomial coefficients, and its gradient."""
        ceiling, rate, spread = 1 / (1 + np.exp(-logits))
        # the beta-binomial as products of (1 - spread) m + spread i for i = 0, 1 ..., exact however small the spread
        # is: over right samples with m = rate, over wrong ones with m = 1 - rate, divided by that of all with m = 1
        means = np.array([[rate], [1 - rate], [1.0]])
        terms = (1 - spread) * means + spread * steps
        sums = np.zeros((3, 3, steps.size + 1))  # logs, and their slopes by m and by spread
        np.cumsum([np.log(terms), (1 - spread) / terms, (steps - means) / terms], axis=-1, out=sums[..., 1:])
        ups, downs, both = sums[:, 0, c], sums[:, 1, n - c], sums[:, 2, n]
        solvable = np.log(ceiling) + ups[0] + downs[0] - both[0]
        all_wrong = np.where(c == 0, np.log1p(-ceiling), -np.inf)
        logs = np.logaddexp(solvable, all_wrong)
        share = np.exp(solvable - logs)  # of these questions, those that can be solved
        by_rate, by_spread = share * (ups[1] - downs[1]), share * (ups[2] + downs[2] - both[2])
        slopes = np.stack([share - ceiling, rate * (1 - rate) * by_rate, spread * (1 - spread) * by_spread])
        return float(-(count * logs).sum()), -(slopes * count).sum(-1)

    # two hills are possible, many unsolvable questions or many small rates; from here either is found
    solved = count[c > 0].sum() / count.sum()
    guess = np.clip([solved, (count * c / n).sum() / count[c > 0].sum(), 0.2], 1e-6, 1 - 1e-6)
    optimum = minimize(
        surprise,
        np.log(guess) - np.log1p(-guess),
        jac=True,
        method="TNC",  # as exact as others here, and without the threads of BLAS, which cost more than the fit
        bounds=[(_EDGE, _EDGE) if ceiling else (-_EDGE, _EDGE), (-_EDGE, _EDGE), (-_EDGE, _EDGE)],
    )
    share, rate, spread = 1 / (1 + np.exp(-optimum.x))
    seen = 1.0 if ceiling else float(1 - _missed(middle, rate, spread))
    if seen < _SEEN:
        raise Unidentified(
            f"At {middle:g} samples the curve has reached {100 * seen:.0f}% of the ceiling that fits it best, so that "
            "neither ceiling nor rates are known; more samples of each question are needed."
        )
    return np.array([share, rate, spread]), -float(optimum.fun)


def _missed(n: ArrayLike, rate: ArrayLike, spread: ArrayLike) -> Floats:
    """E (1 - p)^N over the beta distribution of p; everything broadcasts."""
    from scipy.special import betaln  # here, because importing it is slow

    n, rate, spread = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (n, rate, spread)))
    size = (1 - spread) / spread  # alpha + beta
    alpha, beta = size * rate, size * (1 - rate)
    return np.asarray(np.exp(betaln(alpha, beta + n) - betaln(alpha, beta)))


def _mixed_point(eps: float, ceiling: ArrayLike, rate: ArrayLike, spread: ArrayLike, rule: Rule) -> Floats:
    """The saturation point (...) of many rates, by bisection: neither gain nor gap has an inverse in closed form."""
    if eps <= 0:
        raise ValueError("eps must be above 0")
    ceiling, rate, spread = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (ceiling, rate, spread)))

    def left(n: Floats) -> Floats:
        missed = ceiling * _missed(n, rate, spread)
        return missed * rate * (1 - spread) / (1 - spread + n * spread) if rule == "gain" else missed

    low, high = np.full(ceiling.shape, -1.0), np.full(ceiling.shape, 2.0**50)
    never = left(high) > eps
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        enough = left(middle) <= eps
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(never, np.inf, high)


def _drift(value: float, draws: Floats, level: float) -> tuple[float, Interval, Floats]:
    """The drift, its interval, and the draws with it in the last column; NaN where half of the range has no law."""
    known = draws[:, -1][~np.isnan(draws[:, -1])]
    if np.isnan(value) or len(known) < (1 - _LOST) * len(draws):
        value, known = np.nan, np.array([np.nan])
    draws = draws.copy()
    draws[:, -1] = np.resize(known, len(draws))
    reach = NormalDist().inv_cdf((1 + level) / 2) * float(known.std())  # they are too few for quantiles
    around = Interval(low=np.asarray(value - reach), high=np.asarray(value + reach), missing=0.0)
    return float(value), around, draws


def _excludes_0(interval: Interval) -> bool:
    return bool(interval.low > _TRIFLE or interval.high < -_TRIFLE)


def _beyond(told: Floats, drift: Floats, n: ArrayLike, most: float, level: float, missing: float) -> Interval:
    """The interval of what is told (resamples, ...) at n (...), with the drift of each doubling beyond `most`.

    Without one nothing is told there but that it is a share.
    """
    inside = _interval(told, level, missing)
    beyond = np.log2(np.maximum(np.asarray(n, float) / most, 1.0))
    moved = _interval(
        np.clip(told - np.where(beyond > 0, np.nan_to_num(drift) * beyond, 0.0), 0.0, 1.0), level, missing
    )
    low, high = np.minimum(inside.low, moved.low), np.maximum(inside.high, moved.high)
    if np.isnan(drift).all():
        low, high = np.where(beyond > 0, 0.0, low), np.where(beyond > 0, 1.0, high)
    return Interval(low=np.asarray(low), high=np.asarray(high), missing=missing)


def _columns(draws: Floats, axes: int) -> list[Floats]:
    """The columns of `draws`, each of shape (resamples, 1, ...) with `axes` ones."""
    return [column.reshape(-1, *(1,) * axes) for column in draws.T]


def _interval(values: Floats, level: float, missing: float) -> Interval:
    # no interpolation, because points are whole numbers and may be infinite
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf")
    return Interval(low=np.asarray(low), high=np.asarray(high), missing=missing)
