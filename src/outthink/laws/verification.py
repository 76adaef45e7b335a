"""How good a verifier is: what it accepts of right and of wrong answers, when it pays, and what right answers hide.

Source: "Variation in Verification: Understanding Verification Dynamics in Large Language Models" (2025; a summary and
the abstract read); "Examining False Positives under Inference Scaling for Mathematical Reasoning" (2025; the README of
its code and the abstract read). Differs: a verdict that cannot be read rejects, and is counted; what verification
gains is measured question by question, and the formula is only for predicting it elsewhere.

TPR is the share of right samples that are accepted, TNR the share of wrong ones that are rejected. Without further
words a rate is a mean over the questions that have both right and wrong samples; pooled rates mix how easy a question
is into how well it is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import Unidentified
from outthink.laws.coverage import pass_at_k
from outthink.maths.intervals import Interval, bootstrap, means

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]

# ---- formulas -------------------------------------------------------------------------------------------------------


def precision(pass_rate: ArrayLike, tpr: ArrayLike, tnr: ArrayLike) -> Floats:
    """P(right | accepted) = pi TPR / (pi TPR + (1 - pi)(1 - TNR)); the pass rate where nothing is accepted."""
    pi, accepted_right, accepted = _accepted(pass_rate, tpr, tnr)
    return np.asarray(np.divide(accepted_right, accepted, out=pi.copy(), where=accepted > 0))


def gain(pass_rate: ArrayLike, tpr: ArrayLike, tnr: ArrayLike) -> Floats:
    """Precision minus pass rate: what keeping only accepted answers adds; 0 where TPR + TNR = 1."""
    return np.asarray(precision(pass_rate, tpr, tnr) - np.asarray(pass_rate, float))


def joint_rate(rates: ArrayLike) -> Floats:
    """The share (...) that passes all of several checks with these pass rates (..., k) if they were independent.

    Verdicts on one solution go together, so the real share is higher as a rule; it is never above the smallest rate.
    """
    return np.asarray(_rates(rates, "a pass rate").prod(-1))


def corrected(observed: ArrayLike, tpr: ArrayLike, tnr: ArrayLike) -> Floats:
    """The share that is really sound, of the share that a judge has passed: (observed + TNR - 1) / (TPR + TNR - 1).

    Cut to [0, 1]. Raises Unidentified where the judge passes sound ones no more often than others, TPR + TNR <= 1.
    """
    share, right, wrong = _rates(observed, "a pass rate"), _rates(tpr, "TPR"), _rates(tnr, "TNR")
    apart = np.asarray(right + wrong - 1)
    if (apart <= 0).any():
        raise Unidentified("A judge that passes sound solutions no more often than others says nothing about them.")
    return np.asarray(np.clip((share + wrong - 1) / apart, 0.0, 1.0))


def _accepted(pass_rate: ArrayLike, tpr: ArrayLike, tnr: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The pass rate, P(right and accepted) and P(accepted), of one shape."""
    pi, right, wrong = np.broadcast_arrays(_rates(pass_rate, "pass rate"), _rates(tpr, "TPR"), _rates(tnr, "TNR"))
    return pi, pi * right, pi * right + (1 - pi) * (1 - wrong)


def _rates(values: ArrayLike, name: str) -> Floats:
    rates = np.asarray(values, float)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError(f"{name} must be from 0 to 1")
    return rates


# ---- one verifier ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Verdicts:
    """Counts (questions,) of verdicts.

    Args:
        right, wrong: on right and on wrong samples; those that could not be read are among them.
        accepted_right, accepted_wrong: that accept.
        unread: that could not be read, and therefore do not accept.
    """

    right: Positions
    wrong: Positions
    accepted_right: Positions
    accepted_wrong: Positions
    unread: Positions

    def select(self, questions: NDArray[Any]) -> Verdicts:
        """Those of some questions, by position or by a mask."""
        return Verdicts(
            right=self.right[questions],
            wrong=self.wrong[questions],
            accepted_right=self.accepted_right[questions],
            accepted_wrong=self.accepted_wrong[questions],
            unread=self.unread[questions],
        )


def count(correct: Sequence[ArrayLike], scores: Sequence[ArrayLike], *, threshold: float = 0.5) -> Verdicts:
    """Counts verdicts, one array per question.

    Args:
        correct: (n,) whether each sample is right.
        scores: (n,) or (n, m) verdicts of each sample; it is accepted with at least the threshold, and NaN is one that
            could not be read.

    Raises ValueError where a question has no sample, or samples and verdicts do not match.
    """
    rows = []
    for truth, verdict in zip(correct, scores, strict=True):
        right, score = np.asarray(truth, bool), np.asarray(verdict, float)
        if right.ndim != 1 or not right.size or score.ndim not in (1, 2) or len(score) != len(right) or not score.size:
            raise ValueError("each question needs samples (n,) and as many verdicts, (n,) or (n, m)")
        score = score.reshape(len(right), -1)
        accepted, each = (score >= threshold).sum(-1), score.shape[1]
        rows.append(
            (
                each * right.sum(),
                each * (~right).sum(),
                accepted[right].sum(),
                accepted[~right].sum(),
                np.isnan(score).sum(),
            )
        )
    if not rows:
        raise ValueError("there are no questions")
    right, wrong, accepted_right, accepted_wrong, unread = np.array(rows, dtype=np.intp).T
    return Verdicts(
        right=right, wrong=wrong, accepted_right=accepted_right, accepted_wrong=accepted_wrong, unread=unread
    )


class VerifierQuality(NamedTuple):
    """A verifier in numbers.

    Args:
        tpr, tnr, balanced: means over the questions with right and wrong samples; balanced is the mean of the two.
        pooled_tpr, pooled_tnr: over all verdicts.
        pass_rate: of the samples, mean over all questions.
        gain: what keeping only accepted samples adds to it, question by question; 0 where none is accepted.
        even: P(right | accepted) at a pass rate of one half, TPR / (TPR + 1 - TNR), from which that of any other pass
            rate follows.
    """

    tpr: float
    tnr: float
    balanced: float
    pooled_tpr: float
    pooled_tnr: float
    pass_rate: float
    gain: float
    even: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Verifier:
    """The quality of a verifier, with the lower and upper bounds of each number.

    Args:
        questions: with right and wrong samples, of `all_questions`.
        unread: share of verdicts that could not be read.
    """

    value: VerifierQuality
    low: VerifierQuality
    high: VerifierQuality
    questions: int
    all_questions: int
    unread: float

    @property
    def pays(self) -> bool:
        """Whether keeping only what is accepted is known to help."""
        return self.low.gain > 0

    def at(self, pass_rate: ArrayLike) -> Floats:
        """P(right | accepted) of questions with such pass rates, if TPR and TNR are the same at every difficulty."""
        return precision(pass_rate, self.value.even, self.value.even)

    def at_interval(self, pass_rate: ArrayLike) -> Interval:
        """Interval of it."""
        bounds = (precision(pass_rate, even, even) for even in (self.low.even, self.high.even))
        low, high = bounds
        return Interval(low=low, high=high, missing=0.0)


def fit(verdicts: Verdicts, *, seed: int = 0) -> Verifier:
    """The quality of a verifier.

    Raises Unidentified where fewer than two questions have both right and wrong samples.
    """
    both = (verdicts.right > 0) & (verdicts.wrong > 0)
    if both.sum() < 2:
        raise Unidentified(
            f"{both.sum()} questions have both right and wrong samples, and two are needed: otherwise how easy a "
            "question is cannot be told from how well it is judged."
        )
    low, high = _bounds(verdicts, seed)
    return Verifier(
        value=_quality(verdicts),
        low=low,
        high=high,
        questions=int(both.sum()),
        all_questions=len(both),
        unread=float(verdicts.unread.sum() / (verdicts.right + verdicts.wrong).sum()),
    )


_TOGETHER = ("pooled_tpr", "pooled_tnr", "even")  # numbers that are no means over questions


def _judged(verdicts: Verdicts) -> tuple[Floats, Floats]:
    """Share of right samples accepted and of wrong ones rejected (questions,); each question has both."""
    return verdicts.accepted_right / verdicts.right, 1 - verdicts.accepted_wrong / verdicts.wrong


def _kept(verdicts: Verdicts) -> tuple[Floats, Floats]:
    """Share of right ones among all samples, and among those that are accepted (questions,)."""
    pass_rate = verdicts.right / (verdicts.right + verdicts.wrong)
    accepted = verdicts.accepted_right + verdicts.accepted_wrong
    return pass_rate, np.divide(verdicts.accepted_right, accepted, out=pass_rate.copy(), where=accepted > 0)


def _quality(verdicts: Verdicts) -> VerifierQuality:
    both = (verdicts.right > 0) & (verdicts.wrong > 0)
    if not both.any():
        raise Unidentified("No question has both right and wrong samples.")
    tpr, tnr = (float(shares.mean()) for shares in _judged(verdicts.select(both)))
    pass_rate, kept = _kept(verdicts)
    return VerifierQuality(
        tpr=tpr,
        tnr=tnr,
        balanced=(tpr + tnr) / 2,
        pooled_tpr=float(verdicts.accepted_right.sum() / verdicts.right.sum()),
        pooled_tnr=float(1 - verdicts.accepted_wrong.sum() / verdicts.wrong.sum()),
        pass_rate=float(pass_rate.mean()),
        gain=float((kept - pass_rate).mean()),
        even=float(precision(0.5, tpr, tnr)),
    )


def _bounds(verdicts: Verdicts, seed: int) -> tuple[VerifierQuality, VerifierQuality]:
    """Of means over questions, and of what follows from them; a few questions that are all judged well prove little."""
    both = (verdicts.right > 0) & (verdicts.wrong > 0)
    accepted, rejected = _judged(verdicts.select(both))
    pass_rate, kept = _kept(verdicts)
    shares = {
        "tpr": means(accepted, seed=seed)[1],
        "tnr": means(rejected, seed=seed)[1],
        "balanced": means((accepted + rejected) / 2, seed=seed)[1],
        "pass_rate": means(pass_rate, seed=seed)[1],
        "gain": means(kept - pass_rate, least=-1.0, seed=seed)[1],
    }
    drawn = bootstrap(
        lambda questions: [getattr(_quality(verdicts.select(questions)), name) for name in _TOGETHER],
        len(both),
        seed=seed,
        bounds=(0.0, 1.0),
    )
    ends = []
    for side in ("low", "high"):
        numbers = {name: float(getattr(interval, side)) for name, interval in shares.items()}
        numbers |= dict(zip(_TOGETHER, getattr(drawn, side).tolist(), strict=True))
        # where nothing was judged wrongly, how wrong it may be decides it
        even = float(precision(0.5, numbers["tpr"], numbers["tnr"]))
        if _quality(verdicts).even == 1.0:
            numbers["even"] = even
        ends.append(VerifierQuality(**numbers))
    return ends[0], ends[1]


# ---- by difficulty --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ByDifficulty:
    """A verifier on hard to easy questions.

    Args:
        bins: the verifier in each bin, the hardest first; None where fewer than two of its questions have both right
            and wrong samples, as where all are too hard.
        easiness: (bins,) mean difficulty.
        members: (questions,) the bin of each.
        trend: TPR and TNR (2,) in the easiest bin that has any minus those in the hardest, and its interval.
    """

    bins: tuple[Verifier | None, ...]
    easiness: Floats
    members: Positions
    trend: Floats
    trend_interval: Interval


def difficulty(correct: Sequence[Sequence[ArrayLike]]) -> Floats:
    """Of each question the mean over generators of the pass rate (questions,): 0 is hardest.

    With one generator, how hard a question is and how the verifier does on that generator's samples are not apart.

    Args:
        correct: for each generator, for each question (n,) whether each sample is right.
    """
    if not correct or len({len(questions) for questions in correct}) != 1:
        raise ValueError("every generator needs samples of the same questions")
    rates = [[float(np.mean(np.asarray(one, bool))) for one in questions] for questions in correct]
    return np.asarray(np.mean(rates, axis=0))


def by_difficulty(verdicts: Verdicts, easiness: ArrayLike, *, bins: int = 4, seed: int = 0) -> ByDifficulty:
    """The verifier in up to `bins` bins with about equally many questions; equally difficult ones are in the same bin.

    Args:
        easiness: (questions,) as `difficulty` gives it, best from several generators.

    Raises Unidentified where fewer than two bins have questions with both right and wrong samples.
    """
    value = np.asarray(easiness, float)
    if value.shape != verdicts.right.shape or not np.isfinite(value).all():
        raise ValueError(f"there must be one difficulty for each of the {len(verdicts.right)} questions")
    if bins < 2:
        raise ValueError(f"bins must be at least 2, not {bins}")
    edges = np.quantile(value, np.arange(1, bins) / bins)
    names, members = np.unique(np.searchsorted(edges, value), return_inverse=True)  # many ties leave bins empty
    verifiers: list[Verifier | None] = []
    for one in range(len(names)):
        try:
            verifiers.append(fit(verdicts.select(members == one), seed=seed))
        except Unidentified:
            verifiers.append(None)
    known = [one for one, verifier in enumerate(verifiers) if verifier is not None]
    if len(known) < 2:
        raise Unidentified(
            f"{len(known)} of {len(verifiers)} bins have questions with both right and wrong samples; more questions, "
            "or another generator's samples, are needed."
        )

    easy, hard = (verifiers[one] for one in (known[-1], known[0]))
    assert easy is not None  # as known says
    assert hard is not None
    return ByDifficulty(
        bins=tuple(verifiers),
        easiness=np.array([value[members == one].mean() for one in range(len(names))]),
        members=members,
        trend=_difference(easy, hard)[0],
        trend_interval=_difference(easy, hard)[1],
    )


def _difference(easy: Verifier, hard: Verifier) -> tuple[Floats, Interval]:
    """TPR and TNR (2,) of one bin less those of another, whose questions are others, from the interval of each.

    By squares and sums, as Newcombe (1998), from memory.
    """
    (a, low_a, high_a), (b, low_b, high_b) = (
        np.array([[numbers.tpr, numbers.tnr] for numbers in (one.value, one.low, one.high)]) for one in (easy, hard)
    )
    below = np.hypot(a - low_a, high_b - b)
    above = np.hypot(high_a - a, b - low_b)
    return a - b, Interval(low=a - b - below, high=a - b + above, missing=0.0)


# ---- right answers with wrong reasons -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sound:
    """Coverage by answers, and by answers with sound reasons; arrays (K,), one entry per number of samples.

    Args:
        false_positives: share of right answers whose reasons are not sound, so that sound accuracy is
            accuracy * (1 - false_positives).
    """

    samples: Positions
    answer: Floats
    answer_interval: Interval
    sound: Floats
    sound_interval: Interval
    false_positives: float
    false_positives_interval: Interval


def sound_coverage(
    correct: Sequence[ArrayLike], sound: Sequence[ArrayLike], samples: Sequence[int], *, seed: int = 0
) -> Sound:
    """Some sample of k is right, against: some sample of k is right and sound.

    Args:
        correct, sound: of each question (n,) whether each sample has the right answer, and whether its reasons are
            sound: what people say, or a judge that was compared with people.
        samples: numbers k, from 1 to the smallest n.

    Raises Unidentified where no answer is right.
    """
    pairs = [(np.asarray(a, bool), np.asarray(b, bool)) for a, b in zip(correct, sound, strict=True)]
    if not pairs or any(a.ndim != 1 or a.shape != b.shape for a, b in pairs):
        raise ValueError("each question needs to know of each sample whether it is right and whether it is sound")
    n = np.array([len(a) for a, _ in pairs])
    right, both = (np.array(counts) for counts in zip(*((a.sum(), (a & b).sum()) for a, b in pairs), strict=True))
    if not right.any():
        raise Unidentified("No answer is right, so there is nothing to be sound.")
    curves = np.array([[pass_at_k(n, counts, k) for k in samples] for counts in (right, both)])  # (2, K, questions)
    rates = np.array([right / n, both / n])

    def false(questions: Positions) -> float | None:
        all_right, all_sound = rates[:, questions].sum(1)
        return float(1 - all_sound / all_right) if all_right > 0 else None

    everything = np.arange(len(n))
    bounds = [means(rows.T, seed=seed)[1] for rows in curves]
    estimate = false(everything)
    assert estimate is not None  # some answer is right
    return Sound(
        samples=np.asarray(samples, dtype=np.intp),
        answer=curves[0].mean(-1),
        answer_interval=bounds[0],
        sound=curves[1].mean(-1),
        sound_interval=bounds[1],
        false_positives=estimate,
        false_positives_interval=bootstrap(false, len(n), seed=seed, bounds=(0.0, 1.0)),
    )
