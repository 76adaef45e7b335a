"""Length against accuracy: are longer answers less often right at equal difficulty, and what does more length buy?

Source: The Relationship Between Reasoning and Performance in Large Language Models - o3 (mini) Thinks Harder, Not
Longer (2502.15631), read in the authors' released notebooks; of the paper the abstract. Its regression was not read:
the marginal effect here is a textbook logistic regression with a cluster-robust covariance. Differs: samples that were
cut off count as wrong at the cap instead of being dropped; several samples of a question share the weight of one.

Length and difficulty go together, so that a falling curve of all questions says nothing of a single one; inside tiers
of difficulty (rated from outside, not by the tested model's own success) less of that is left. Even then a falling
curve is not causal: it does not say that a run would have been right had it been stopped earlier (`laws.regret` does).
Tokens include hidden reasoning. Tokenisers differ between vendors: compare ratios within one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.maths.intervals import Interval, bootstrap, means

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
Samples = Sequence[ArrayLike] | NDArray[Any]  # question, sample; one number where there is one sample

_ROUNDS = 50  # of Newton's method, which needs fewer than ten where the estimate exists
_FLAT = 1e-9  # a share of variance that is rounding


def cut_at(tokens: ArrayLike, right: ArrayLike, complete: ArrayLike, cap: float) -> tuple[Floats, Floats]:
    """Tokens and correctness (n,) with what was cut off counted as wrong at the cap.

    Their true length is not known, only that it is larger: with them a mean length is a lower bound, and without them
    accuracy is too high and length too small.
    """
    t, a, whole = np.asarray(tokens, dtype=float), np.asarray(right, dtype=float), np.asarray(complete, dtype=bool)
    return np.where(whole, t, np.maximum(t, cap)), np.where(whole, a, 0.0)


def tiers(ratings: ArrayLike, parts: int = 4) -> Codes:
    """The tier (questions,) of each question, 0 the lowest, by quantiles of an external rating of difficulty.

    Equal ratings stay together, so that a coarse rating gives tiers of unequal sizes, or fewer of them: show the sizes.
    """
    rated = np.asarray(ratings, dtype=float)
    edges = np.quantile(rated, np.arange(1, parts) / parts, method="inverted_cdf")
    codes = np.searchsorted(edges, rated, side="left")
    return np.asarray(np.unique(codes, return_inverse=True)[1], dtype=np.intp)


def equal_bins(tokens: Samples, bins: int = 25) -> Floats:
    """Lower edges (bins,) of equally wide bins from 0 to the longest sample."""
    return np.asarray(np.linspace(0.0, max(row.max() for row in _rows(tokens)), bins, endpoint=False))


# ------------------------------------------------------------------------------------------------- accuracy by length


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lengths:
    """Accuracy in bins of length; all arrays have an entry per bin.

    Args:
        edges: lower edge of each bin; the last one has no upper edge.
        questions: with a sample in the bin.
        shown: whether these are enough; elsewhere the rest is NaN.
        accuracy, interval: of the samples in the bin.
        beyond: questions with a sample at or beyond the edge.
        tail_error, tail_interval: P(wrong | at least as long as the edge); NaN where too few questions are beyond. At
            the first edge it is 1 - accuracy. Where it is near 1, continuing has rarely paid.
    """

    edges: Floats
    questions: Codes
    shown: NDArray[np.bool_]
    accuracy: Floats
    interval: Interval
    beyond: Codes
    tail_error: Floats
    tail_interval: Interval


def bin_lengths(
    tokens: Samples,
    right: Samples,
    edges: ArrayLike,
    *,
    least: int = 10,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> Lengths:
    """Accuracy and tail error by length, for all questions or for those of one tier.

    Args:
        tokens, right: of each question, its samples; what is below the first edge counts nowhere.
        edges: lower edges of the bins, rising (see `equal_bins`); inside tiers take them twice as wide.
        least: only bins with more questions than this are shown.

    Raises Unidentified where no bin has enough questions.
    """
    lengths, credit = _paired(tokens, right)
    lower = np.asarray(edges, dtype=float)
    if lower.ndim != 1 or lower.size == 0 or not (np.diff(lower) > 0).all():
        raise ValueError("edges must be a row of rising numbers")
    weight, good = np.zeros((2, len(lengths), lower.size))
    for row, (t, a) in enumerate(zip(lengths, credit, strict=True)):
        place = np.searchsorted(lower, t, side="right") - 1
        inside = place >= 0
        weight[row] = np.bincount(place[inside], minlength=lower.size) / t.size
        good[row] = np.bincount(place[inside], weights=a[inside], minlength=lower.size) / t.size
    tail_weight, tail_good = (np.cumsum(table[:, ::-1], axis=1)[:, ::-1] for table in (weight, good))
    questions, beyond = (weight > 0).sum(0), (tail_weight > 0).sum(0)
    shown, far = questions > least, beyond > least
    if not shown.any():
        raise Unidentified(f"No bin has samples of more than {least} questions; take fewer bins, or more questions.")

    def shares(positions: NDArray[np.intp]) -> Floats | None:
        curves = np.full((2, lower.size), np.nan)
        for row, keep, part, whole in ((0, shown, good, weight), (1, far, tail_good, tail_weight)):
            total = whole[positions][:, keep].sum(0)
            if not total.all():
                return None
            curves[row, keep] = part[positions][:, keep].sum(0) / total
        curves[1] = 1 - curves[1]
        return curves

    estimate = shares(np.arange(len(lengths)))
    assert estimate is not None
    both = bootstrap(shares, len(lengths), level=level, resamples=resamples, seed=seed, bounds=(0.0, 1.0))
    accuracy, tail = (Interval(low=both.low[row], high=both.high[row], missing=both.missing) for row in (0, 1))
    return Lengths(
        edges=lower,
        questions=questions,
        shown=shown,
        accuracy=estimate[0],
        interval=accuracy,
        beyond=beyond,
        tail_error=estimate[1],
        tail_interval=tail,
    )


# ------------------------------------------------------------------------------------------- the controlled effect


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthEffect:
    """What 1,000 more tokens go with, at equal tier and domain.

    Args:
        effect: average marginal effect on P(right) per 1,000 tokens. It is a slope: where lengths differ by less, it
            can be beyond -1 and 1.
        low, high: its interval, from the t distribution with as many degrees of freedom as questions, less one.
        standard_error: of `effect`, robust to the dependence of samples of one question.
        coefficient: of 1,000 tokens, in log odds.
        questions, samples: that were used.
        settled: share of weight in tiers and domains where all samples are right or all wrong. There length can make no
            difference, which counts as an effect of 0.
    """

    effect: float
    low: float
    high: float
    standard_error: float
    coefficient: float
    questions: int
    samples: int
    settled: float


def length_effect(
    tokens: Samples,
    right: Samples,
    *,
    tier: Sequence[Hashable] | None = None,
    domain: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> LengthEffect:
    """Logistic regression of correctness on length, with tiers and domains as factors, clustered by question.

    Samples that were cut off are wrong by definition and as long as can be (`cut_at`), which alone makes the effect
    negative: give it with and without them.

    Args:
        tokens, right: of each question, its samples; each question has the same weight.
        tier, domain: of each question; None: all the same.

    Raises Unidentified where all samples are right or all wrong, where length does not vary beside the factors, where
    it separates right from wrong, or where there are not more questions than factors.
    """
    lengths, credit = _paired(tokens, right)
    _binary(credit)
    question = np.repeat(np.arange(len(lengths)), [row.size for row in lengths])
    x, y = np.concatenate(lengths) / 1000, np.concatenate(credit)
    weight = 1 / np.array([row.size for row in lengths], dtype=float)[question]
    factors = [_codes(labels, len(lengths))[question] for labels in (tier, domain) if labels is not None]
    free = _undecided(y, factors)
    settled = 1 - float(weight[free].sum() / weight.sum())
    if not free.any():
        raise Unidentified("In each tier and domain all samples are right, or all wrong: length can explain nothing.")
    design = _design(x[free], [factor[free] for factor in factors])
    clusters = np.unique(question[free], return_inverse=True)[1]
    if clusters.max() + 1 <= design.shape[1]:
        raise Unidentified(
            f"{clusters.max() + 1} questions are too few for {design.shape[1]} parameters; take fewer tiers or domains."
        )
    beta = _logistic(design, y[free], weight[free])
    chance = 1 / (1 + np.exp(-design @ beta))
    spread = weight[free] * chance * (1 - chance)
    bread = np.linalg.pinv((design * spread[:, None]).T @ design, hermitian=True)
    pulls = np.zeros((clusters.max() + 1, design.shape[1]))
    np.add.at(pulls, clusters, design * (weight[free] * (y[free] - chance))[:, None])
    groups = len(pulls)
    covariance = bread @ (pulls.T @ pulls) @ bread * groups / (groups - 1)
    effect = beta[0] * spread.sum() / weight.sum()
    slopes = beta[0] * (design * (spread * (1 - 2 * chance))[:, None]).sum(0) / weight.sum()
    slopes[0] += spread.sum() / weight.sum()
    error = float(np.sqrt(slopes @ covariance @ slopes))
    from scipy.special import stdtrit  # here, because importing it is slow

    reach = float(stdtrit(groups - 1, (1 + level) / 2)) * error
    return LengthEffect(
        effect=float(effect),
        low=float(effect - reach),
        high=float(effect + reach),
        standard_error=error,
        coefficient=float(beta[0]),
        questions=len(lengths),
        samples=int(x.size),
        settled=settled,
    )


class Within(NamedTuple):
    """What 1,000 more tokens go with among samples of the same question.

    Args:
        effect: slope of correctness in length, per 1,000 tokens.
        interval: of it.
        questions: that have right and wrong samples of different lengths; the others say nothing.
    """

    effect: float
    interval: Interval
    questions: int


def length_within(
    tokens: Samples, right: Samples, *, level: float = 0.95, resamples: int = 500, seed: int = 0
) -> Within:
    """Are the longer ones of a question's samples right more, or less, often? No rating of difficulty is needed.

    Its sign decides whether length may serve as a signal for choosing among samples. A straight line with a height of
    its own for each question, by least squares; a logistic one would be biased by so many heights.

    Args:
        tokens, right: of each question, its samples; each question has the same weight.

    Raises Unidentified where no question has both right and wrong samples of different lengths, or none in more than a
    fifth of the resamples.
    """
    lengths, credit = _paired(tokens, right)
    sums = np.array([[np.cov(t, a, bias=True)[0, 1], t.var()] for t, a in zip(lengths, credit, strict=True)])
    telling = np.array([a.var() > 0 and t.var() > 0 for t, a in zip(lengths, credit, strict=True)])
    if not telling.any():
        raise Unidentified("No question has right and wrong samples of different lengths.")

    def slope(positions: NDArray[np.intp]) -> float | None:
        together, alone = sums[positions].sum(0)
        return float(1000 * together / alone) if telling[positions].any() else None

    effect = slope(np.arange(len(sums)))
    assert effect is not None
    interval = bootstrap(slope, len(sums), level=level, resamples=resamples, seed=seed)
    return Within(effect, interval, int(telling.sum()))


def _undecided(y: Floats, factors: Sequence[Codes]) -> NDArray[np.bool_]:
    """Samples in tiers and domains with right and wrong ones; leaving some out may decide others."""
    free = np.ones(y.shape, dtype=bool)
    while True:
        kept = free.copy()
        for factor in factors or [np.zeros(y.shape, dtype=np.intp)]:
            total = np.bincount(factor[free], minlength=factor.max() + 1)
            right = np.bincount(factor[free], weights=y[free], minlength=factor.max() + 1)
            kept &= ((right > 0) & (right < total))[factor]
        if (kept == free).all():
            return free
        free = kept


def _design(x: Floats, factors: Sequence[Codes]) -> Floats:
    """Length, less what the factors explain of it by least squares, and the factors; the same slope, but stable."""
    columns = [np.ones((x.size, 1))]
    for factor in factors:
        codes = np.unique(factor, return_inverse=True)[1]
        columns.append((codes[:, None] == np.arange(1, codes.max() + 1)).astype(float))
    dummies = np.concatenate(columns, axis=1)
    rest = x - dummies @ np.linalg.lstsq(dummies, x)[0]
    if (rest**2).sum() <= _FLAT * (x**2).sum():
        raise Unidentified("Samples of the same tier and domain are all equally long.")
    return np.concatenate([rest[:, None], dummies], axis=1)


def _logistic(design: Floats, y: Floats, weight: Floats) -> Floats:
    """The most likely coefficients, by Newton's method."""
    beta = np.zeros(design.shape[1])
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(design @ beta, -500, 500)))
        curvature = (design * (weight * chance * (1 - chance))[:, None]).T @ design
        # factors may say the same thing twice, which leaves the slope of length as it is
        step = np.linalg.pinv(curvature, hermitian=True) @ (design.T @ (weight * (y - chance)))
        beta = beta + step
        if np.abs(design @ step).max() < 1e-8:
            return beta
    raise Unidentified("Length separates right from wrong samples so well that its effect has no size.")


# ------------------------------------------------------------------------------------- two models, or two efforts


class PairedOutcomes(NamedTuple):
    """Shares of questions; they sum to 1. Where a question has several samples, of pairs of them.

    Args:
        shorter: both right, and B the shorter one.
        longer: both right, and B as long or longer.
        only_b, only_a: one of them right.
        neither: both wrong.
    """

    shorter: float
    longer: float
    only_b: float
    only_a: float
    neither: float


class Ratios(NamedTuple):
    """Tokens of A over tokens of B on questions that both have right: quartiles over so many questions."""

    questions: int
    low: float
    median: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LengthComparison:
    """Two models, or two efforts, on the same questions.

    Args:
        ratios: over all questions that both have right.
        interval: of its median.
        by_tier: the same in each tier that has any.
        outcomes: what became of the questions.
        outcomes_interval: bounds (5,), in the order of `Outcomes`.
    """

    ratios: Ratios
    interval: Interval
    by_tier: Mapping[Hashable, Ratios]
    outcomes: PairedOutcomes
    outcomes_interval: Interval


def compare_lengths(
    tokens_a: Samples,
    right_a: Samples,
    tokens_b: Samples,
    right_b: Samples,
    *,
    tier: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> LengthComparison:
    """Does A need more tokens than B where both are right?

    Args:
        tokens_a, right_a, tokens_b, right_b: of each question, the samples of A and of B. With one sample each, the
            protocol of the source; with more, a question's ratio is the median over its pairs that are both right.
        tier: of each question.

    Raises Unidentified where both are right on no question, or for more than a fifth of the resamples.
    """
    a, b = _paired(tokens_a, right_a), _paired(tokens_b, right_b)
    _binary([*a[1], *b[1]])
    if len(a[0]) != len(b[0]):
        raise ValueError("both need the same questions")
    labels = None if tier is None else list(tier)
    if labels is not None and len(labels) != len(a[0]):
        raise ValueError("each question needs a tier")
    ratios = np.full(len(a[0]), np.nan)  # logs of them, so that A against B is B against A turned round
    classes = np.zeros((len(a[0]), 5))
    for row, (ta, ra, tb, rb) in enumerate(zip(*a, *b, strict=True)):
        both, less = ra[:, None] * rb, tb < ta[:, None]
        classes[row] = [
            (both * less).mean(),
            (both * ~less).mean(),
            ((1 - ra)[:, None] * rb).mean(),
            (ra[:, None] * (1 - rb)).mean(),
            ((1 - ra)[:, None] * (1 - rb)).mean(),
        ]
        if both.any():
            if not ((ta[ra > 0] > 0).all() and (tb[rb > 0] > 0).all()):
                raise ValueError("a right sample needs a length above 0")
            ratios[row] = np.median((np.log(ta[ra > 0])[:, None] - np.log(tb[rb > 0])).ravel())

    def quartiles(logs: Floats) -> Ratios:
        known = logs[~np.isnan(logs)]
        return Ratios(known.size, *np.exp(np.quantile(known, [0.25, 0.5, 0.75])).tolist())

    def median(positions: NDArray[np.intp]) -> float | None:
        known = ratios[positions][~np.isnan(ratios[positions])]
        return float(np.exp(np.median(known))) if known.size else None

    if np.isnan(ratios).all():
        raise Unidentified("There is no question that both have right, so that lengths cannot be compared.")
    kept = (
        {} if labels is None else {label: np.array([one == label for one in labels]) for label in dict.fromkeys(labels)}
    )
    return LengthComparison(
        ratios=quartiles(ratios),
        interval=bootstrap(median, len(ratios), level=level, resamples=resamples, seed=seed),
        by_tier={
            label: quartiles(ratios[members]) for label, members in kept.items() if not np.isnan(ratios[members]).all()
        },
        outcomes=PairedOutcomes(*classes.mean(0).tolist()),
        outcomes_interval=means(classes, level=level, seed=seed)[1],
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EffortCost:
    """What a higher effort costs.

    Args:
        tokens: more tokens per question.
        accuracy, accuracy_interval: more accuracy.
        per_solved, interval: tokens per further question solved; a hundredth of it, per point of accuracy and question.
        on_solved: of `tokens`, those on questions that were right at the low effort already.
    """

    tokens: float
    accuracy: float
    accuracy_interval: Interval
    per_solved: float
    interval: Interval
    on_solved: float


def price_of_effort(
    tokens_low: Samples,
    right_low: Samples,
    tokens_high: Samples,
    right_high: Samples,
    *,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> EffortCost:
    """(tokens_high - tokens_low) / (accuracy_high - accuracy_low), from the samples of each question at both efforts.

    Raises Unidentified where accuracy does not grow, or not in more than a fifth of the resamples: then what a further
    solved question costs has no upper bound.
    """
    low, high = (
        np.array([[t.mean(), a.mean()] for t, a in zip(*_paired(tokens, right), strict=True)])
        for tokens, right in ((tokens_low, right_low), (tokens_high, right_high))
    )
    if low.shape != high.shape:
        raise ValueError("both efforts need the same questions")
    more = high - low
    tokens, accuracy = more.mean(0).tolist()
    if accuracy <= 0:
        raise Unidentified(
            "The higher effort does not have more right, so that a further solved question has no price."
        )

    def ratio(positions: NDArray[np.intp]) -> float | None:
        t, a = more[positions].mean(0)
        return float(t / a) if a > 0 else None

    return EffortCost(
        tokens=tokens,
        accuracy=accuracy,
        accuracy_interval=means(more[:, 1], level=level, seed=seed)[1],
        per_solved=tokens / accuracy,
        interval=bootstrap(ratio, len(more), level=level, resamples=resamples, seed=seed),
        on_solved=float((low[:, 1] * more[:, 0]).mean()),
    )


def _rows(values: Samples) -> list[Floats]:
    rows = [np.atleast_1d(np.asarray(value, dtype=float)) for value in values]
    if not rows or any(row.ndim != 1 or row.size == 0 for row in rows):
        raise ValueError("each question needs one sample at least")
    return rows


def _paired(tokens: Samples, right: Samples) -> tuple[list[Floats], list[Floats]]:
    lengths, credit = _rows(tokens), _rows(right)
    if len(lengths) != len(credit) or any(t.shape != a.shape for t, a in zip(lengths, credit, strict=True)):
        raise ValueError("each sample needs a length and whether it is right")
    if not all((t >= 0).all() and (a >= 0).all() and (a <= 1).all() for t, a in zip(lengths, credit, strict=True)):
        raise ValueError("lengths must be at least 0, and correctness from 0 to 1")
    return lengths, credit


def _binary(credit: Sequence[Floats]) -> None:
    if any(((row != 0) & (row != 1)).any() for row in credit):
        raise ValueError("each sample must be right or wrong")


def _codes(labels: Sequence[Hashable], questions: int) -> Codes:
    if len(labels) != questions:
        raise ValueError("each question needs one label")
    known = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    return np.array([known[label] for label in labels], dtype=np.intp)
