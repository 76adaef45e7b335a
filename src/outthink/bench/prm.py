"""Trains a probe (`rewards.probe`) from a pool, without new tokens, and measures it on pools and marked solutions.

Every beginning of a recorded sample, up to the end of a step, is an example; its label is whether the sample ended
right. Cross-validation keeps all samples of a problem in one fold, so that what is held out is a new problem. The
classifier is logistic regression, or one hidden layer of 8 units where its held-out AUROC is clearly higher.

Source: outcome labels as of Cobbe et al., Training Verifiers to Solve Math Word Problems (2021), from memory. The F1 of
the first error is that of Zheng et al., ProcessBench (arXiv 2412.06559), from memory. Differs: intervals are 95%
bootstrap intervals over problems, from 1,000 resamples with a fixed seed.
"""

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink import jsonl
from outthink.bench.pool import TokenEnds
from outthink.bench.pooldata import PoolData, read_pool
from outthink.bench.replay import coverage, curve, majority
from outthink.bench.report import markdown_table, mean_and_interval, text_table
from outthink.errors import UsageError
from outthink.models.engine import Tokenizing
from outthink.rewards.probe import HEADS, Feature, Head, Piece, Probe, features, prefixes, standardised
from outthink.rng import digest
from outthink.strategies.parallel.best_of_n import BestOfN
from outthink.strategies.parallel.weighted_best_of_n import WeightedBestOfN

if TYPE_CHECKING:
    from rich.table import Table

RESAMPLES = 1000
_TAIL = 0.025
_HIDDEN = 8
_PENALTY = 30.0  # on the squares of weights, beside the sum of log losses; anything from 10 to 100 does as well
_ROUNDS = 100  # more change nothing that can be seen
_BINS = 10
_DEPTHS = 8
_FEW_SHARE = 0.05  # of samples that may lack what the others have
_FEW = 10  # fewer right or wrong examples than this at a depth say nothing

Numbers = NDArray[np.float64]
Estimate = tuple[float, float, float]
"""A value and its 95% interval; NaN where it cannot be told."""

# ---- measures: pure functions of arrays, with weights (..., n) of the examples --------------------------------------


def auroc(scores: ArrayLike, right: ArrayLike, weights: ArrayLike = 1.0) -> Numbers:
    """The chance (...,) that a right example has a higher score than a wrong one, ties half; NaN without either."""
    ties, right, weights = _ascending(scores, right, weights)
    of_right = np.add.reduceat(weights * right, ties, axis=-1)
    of_wrong = np.add.reduceat(weights * ~right, ties, axis=-1)
    below = np.cumsum(of_wrong, axis=-1) - of_wrong / 2
    return _ratio((of_right * below).sum(-1), of_right.sum(-1) * of_wrong.sum(-1))


def average_precision(scores: ArrayLike, right: ArrayLike, weights: ArrayLike = 1.0) -> Numbers:
    """The area (...,) under precision over recall, by steps; NaN without right examples."""
    ties, right, weights = _ascending(scores, right, weights)
    of_right = np.add.reduceat(weights * right, ties, axis=-1)[..., ::-1]
    of_all = np.add.reduceat(weights, ties, axis=-1)[..., ::-1]
    precision = _ratio(np.cumsum(of_right, axis=-1), np.cumsum(of_all, axis=-1))
    return _ratio((np.nan_to_num(precision) * of_right).sum(-1), of_right.sum(-1))


def brier(scores: ArrayLike, right: ArrayLike, weights: ArrayLike = 1.0) -> Numbers:
    """Mean squared difference (...,) of score and outcome."""
    scores, right = np.asarray(scores, float), np.asarray(right, bool)
    weights = np.broadcast_to(np.asarray(weights, float), (*np.shape(weights)[:-1], len(scores)))
    return _ratio((weights * (scores - right) ** 2).sum(-1), weights.sum(-1))


def reliability(scores: ArrayLike, right: ArrayLike) -> list[tuple[int, float, float]]:
    """(examples, mean score, share that is right) of each tenth of [0, 1] that has any."""
    scores, right = np.asarray(scores, float), np.asarray(right, bool)
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    inside = [bins == number for number in range(_BINS)]
    return [(int(of.sum()), float(scores[of].mean()), float(right[of].mean())) for of in inside if of.any()]


def calibration_error(scores: ArrayLike, right: ArrayLike) -> float:
    """Mean distance of score and share that is right over those bins (expected calibration error)."""
    bins = reliability(scores, right)
    return sum(n * abs(score - share) for n, score, share in bins) / sum(n for n, _, _ in bins) if bins else math.nan


def wins(scores: ArrayLike, right: ArrayLike, groups: ArrayLike) -> tuple[Numbers, Numbers, NDArray[np.intp]]:
    """Of pairs of a right and a wrong example in one group: those won by the right one (ties half), and all.

    Returns both (g,) for each group that has such pairs, and the place (g,) of an example of it.
    """
    scores, right = np.asarray(scores, float), np.asarray(right, bool)
    order = np.argsort(np.asarray(groups), kind="stable")
    _, starts = np.unique(np.asarray(groups)[order], return_index=True)
    won, all_, places = [], [], []
    for members in np.split(order, starts[1:]):
        difference = scores[members[right[members]]][:, None] - scores[members[~right[members]]]
        if difference.size:
            won.append((difference > 0).sum() + (difference == 0).sum() / 2)
            all_.append(difference.size)
            places.append(members[0])
    return np.array(won, float), np.array(all_, float), np.array(places, dtype=np.intp)


def first_error(scores: ArrayLike, threshold: ArrayLike) -> NDArray[np.intp]:
    """The first step (...,) whose score is below the threshold, else -1; scores (..., T), NaN where one is missing."""
    below = np.asarray(scores, float) < np.asarray(threshold, float)
    return np.where(below.any(-1), below.argmax(-1), -1)


def step_f1(found: ArrayLike, label: ArrayLike, weights: ArrayLike = 1.0) -> tuple[Numbers, Numbers, Numbers]:
    """(F1, accuracy on solutions with an error, accuracy on those without): F1 is the harmonic mean of both.

    Args:
        found, label: (..., n) index of the first wrong step, -1 for none.
        weights: (..., n) of the solutions.
    """
    found, label = np.asarray(found), np.asarray(label)
    weights = np.broadcast_to(np.asarray(weights, float), np.broadcast_shapes(np.shape(weights), found.shape))
    hit = (found == label) * weights
    wrong = label >= 0
    on_wrong = _ratio((hit * wrong).sum(-1), (weights * wrong).sum(-1))
    on_right = _ratio((hit * ~wrong).sum(-1), (weights * ~wrong).sum(-1))
    both = on_wrong + on_right
    f1 = np.divide(2 * on_wrong * on_right, both, out=np.where(np.isnan(both), np.nan, 0.0), where=both > 0)
    return f1, on_wrong, on_right


def _ascending(
    scores: ArrayLike, right: ArrayLike, weights: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[np.bool_], Numbers]:
    """Where equal scores begin, and outcomes and weights, in the order of the scores."""
    scores = np.asarray(scores, float)
    order = np.argsort(scores, kind="stable")
    ties = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) != 0)
    weights = np.broadcast_to(np.asarray(weights, float), (*np.shape(weights)[:-1], len(scores)))
    return ties, np.asarray(right, bool)[order], weights[..., order]


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0))


class _Bootstrap:
    """The same resamples of problems for every measure, so that differences are paired."""

    def __init__(self, problems: int) -> None:
        rng = np.random.default_rng(0)
        self._counts = rng.multinomial(problems, np.full(problems, 1 / problems), size=RESAMPLES).astype(float)

    def values(self, measure: Callable[[Numbers], Numbers], problems: NDArray[np.intp]) -> Numbers:
        """The measure of each resample (of weights (..., n)), for examples of these problems (n,)."""
        chunks = np.array_split(self._counts, max(1, RESAMPLES * len(problems) // 2_000_000))
        return np.concatenate([measure(counts[:, problems]) for counts in chunks])

    def estimate(self, measure: Callable[[Numbers], Numbers], problems: NDArray[np.intp]) -> Estimate:
        """The measure and its interval; resamples in which it cannot be told do not count."""
        if not len(problems):
            return math.nan, math.nan, math.nan
        drawn = self.values(measure, problems)
        drawn = drawn[~np.isnan(drawn)]
        low, high = np.quantile(drawn, [_TAIL, 1 - _TAIL]) if len(drawn) else (math.nan, math.nan)
        return float(measure(np.ones(len(problems)))), float(low), float(high)


# ---- examples -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Examples:
    """Beginnings of recorded samples, one a row.

    Args:
        problem, sample: number of the problem, and of the sample in its problem.
        depth: steps so far, from 1.
        last: the sample is finished.
        right: it ended right.
        values: features (n, d) by classifier, NaN where they are not known.
        confidence: exp(mean logprob) (n,) of the "step" and of "all" so far, NaN where not known.
    """

    problem: NDArray[np.intp]
    sample: NDArray[np.intp]
    depth: NDArray[np.intp]
    last: NDArray[np.bool_]
    right: NDArray[np.bool_]
    values: Mapping[str, Numbers]
    confidence: Mapping[str, Numbers]

    def known(self, head: str) -> NDArray[np.bool_]:
        """The rows that this classifier can score."""
        return np.asarray(~np.isnan(self.values[head]).any(-1))


Solution = tuple[tuple[Piece, ...], bool]
"""A recorded sample in pieces, and whether it is right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A pool as solutions in pieces, about all of which as much is known; one of which less is known is empty.

    Args:
        questions, samples: of each problem.
        meta: how it was recorded, of the first problem.
        clear: the logprobs of their steps are known.
        unclear: samples with logprobs of which it is not known where their tokens end.
    """

    pool: PoolData
    questions: tuple[str, ...]
    samples: tuple[tuple[Solution, ...], ...]
    meta: Mapping[str, Any]
    clear: bool
    unclear: int


def read_recording(path: Path, tokenizer: Tokenizing | None = None) -> Recording:
    """Read a pool; `tokenizer` tells where tokens end in pools that do not say so.

    Raises UsageError that names the line of what cannot be read.
    """
    pool = read_pool(path)
    if pool.kind == "sequence":
        raise UsageError(f"{path} holds attempts that build on each other; a probe learns from independent samples.")
    rows = list(jsonl.read(path))
    for number, row in rows:
        if not isinstance(row.get("question"), str):
            raise UsageError(f"Line {number} of {path} has no question.")

    async def read() -> list[tuple[Solution, ...]]:
        tokens = None if tokenizer is None else TokenEnds(tokenizer)
        found = []
        for number, row in rows:
            try:
                found.append(tuple([(await _pieces(one, tokens), bool(one["correct"])) for one in row["samples"]]))
            except (TypeError, ValueError, KeyError, AttributeError) as cause:
                raise UsageError(f"Line {number} of {path} cannot be read ({cause}).") from None
        return found

    samples = asyncio.run(read())
    with_text = [pieces for of in samples for pieces, _ in of if pieces]
    if not with_text:
        raise UsageError(f"{path} holds no texts.")
    # what is known about some kinds of samples only, such as those that were cut off, would teach that kind: so where
    # more than a few lack something it is taken from all, and else those few are left out
    few = _FEW_SHARE * len(with_text)
    mute, unclear = (sum(lacks(pieces) for pieces in with_text) for lacks in (_mute, _unclear))

    def alike(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        if mute > few:
            return (("".join(text for text, _ in pieces), None),)
        if _mute(pieces):
            return ()
        if unclear > few:
            logprobs = [value for _, values in pieces for value in values or ()]
            return (("".join(text for text, _ in pieces), logprobs),)
        return () if _unclear(pieces) else pieces

    return Recording(
        pool=pool,
        questions=tuple(row["question"] for _, row in rows),
        samples=tuple(tuple((alike(pieces) if pieces else (), right) for pieces, right in of) for of in samples),
        meta=rows[0][1].get("meta") or {},
        clear=mute <= few and unclear <= few,
        unclear=unclear,
    )


def _mute(pieces: tuple[Piece, ...]) -> bool:
    """Without logprobs."""
    return not any(values for _, values in pieces)


def _unclear(pieces: tuple[Piece, ...]) -> bool:
    """With logprobs of which it is not known to which part of the text they belong."""
    return any(values is not None and len(values) > 1 for _, values in pieces)


async def _pieces(sample: Mapping[str, Any], tokens: TokenEnds | None) -> tuple[Piece, ...]:
    """Its tokens where it is known where they end, else all of it as one piece."""
    text = sample["text"] if "text" in sample else "\n\n".join(sample.get("steps") or ())
    if not isinstance(text, str):
        raise TypeError("a text is no text")
    if not text.strip():
        return ()
    if sample.get("logprobs") is None:
        return ((text, None),)
    logprobs = [float(value) for value in sample["logprobs"]]
    if not all(map(math.isfinite, logprobs)):
        raise ValueError("a logprob is not finite")
    ends, ids = sample.get("ends"), sample.get("token_ids")
    if ends is None and ids is not None and tokens is not None:
        ends = await tokens.of(ids, text)
    if not ends or len(ends) != len(logprobs):
        return ((text, logprobs),)
    starts = [0, *ends[:-1]]
    if sorted(starts) != starts or ends[-1] != len(text):
        raise ValueError("the ends of tokens are not those of the text")
    written = ends.index(len(text)) + 1  # end marks may follow
    return tuple((text[a:b], [value]) for a, b, value in zip(starts, ends, logprobs[:written], strict=False))


def examples(recording: Recording, delimiter: str, *, skip: frozenset[str] = frozenset()) -> Examples:
    """Every beginning of every sample, without the problems whose `question_mark` is to be skipped."""
    rows: list[tuple[int, int, int, bool, bool]] = []
    values: dict[str, list[list[float]]] = {head: [] for head in HEADS}
    confidence: dict[str, list[float]] = {"step": [], "all": []}
    for problem, (question, samples) in enumerate(zip(recording.questions, recording.samples, strict=True)):
        if question_mark(question) in skip:
            continue
        for number, (pieces, right) in enumerate(samples):
            beginnings = prefixes(pieces, delimiter)
            if not recording.clear:
                beginnings = [replace(steps, logprobs=None) for steps in beginnings]
            for depth, steps in enumerate(beginnings, start=1):
                rows.append((problem, number, depth, depth == len(beginnings), right))
                known = features(question, steps)
                for head, names in HEADS.items():
                    values[head].append([known.get(name, math.nan) for name in names])
                for what, logprobs in (("step", steps.logprobs and steps.logprobs[-1]), ("all", steps.whole)):
                    confidence[what].append(math.nan if logprobs is None else float(np.exp(np.mean(logprobs))))
    columns = np.array(rows, dtype=np.intp).reshape(-1, 5).T
    return Examples(
        problem=columns[0],
        sample=columns[1],
        depth=columns[2],
        last=columns[3].astype(bool),
        right=columns[4].astype(bool),
        values={head: np.array(of).reshape(len(rows), len(HEADS[head])) for head, of in values.items()},
        confidence={what: np.array(of) for what, of in confidence.items()},
    )


def question_mark(question: str) -> str:
    """8 hexadecimal digits by which a question is known again; two different ones hardly ever share them."""
    return f"{digest(0, ' '.join(question.split())):016x}"[:8]


# ---- training -------------------------------------------------------------------------------------------------------

CLASSIFIERS = ("logistic", "network")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """How good scores were on problems that the classifier had not seen.

    Args:
        examples: how many were scored.
        auroc, average_precision, brier: over all of them, at whatever step.
        finished: AUROC over finished samples.
        same_problem: the same over pairs of samples of one problem, which is what choosing among them needs.
        calibration_error: expected calibration error.
    """

    examples: int
    auroc: Estimate
    average_precision: Estimate
    brier: Estimate
    finished: Estimate
    same_problem: Estimate
    calibration_error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """A trained probe.

    Args:
        held_out: by head and classifier.
        chosen: the classifier that was kept, by head.
    """

    probe: Probe
    held_out: Mapping[str, Mapping[str, HeldOut]]
    chosen: Mapping[str, str]
    unclear: int

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"trained": dict(self.probe.trained), "held_out": dict(self.probe.held_out), "unclear": self.unclear}

    def table(self) -> Table:
        """For a terminal."""
        return text_table(*self._cells())

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        columns = ["reads", "classifier", *_AUROCS[:3], "AUPRC", "Brier", ""]
        rows = [
            [
                head,
                kind,
                *map(_estimate, (of.auroc, of.finished, of.same_problem)),
                _number(of.average_precision[0]),
                _number(of.brier[0]),
                "kept" if kind == self.chosen[head] else "",
            ]
            for head, kinds in self.held_out.items()
            for kind, of in kinds.items()
        ]
        return columns, rows


_AUROCS = ("AUROC (95%)", "finished", "same problem", "same problem, depth")


def train(
    path: Path, *, delimiter: str = "\n\n", folds: int = 5, seed: int = 0, tokenizer: Tokenizing | None = None
) -> Training:
    """A probe from the pool at `path`; the same pool and seed give the same probe.

    Args:
        delimiter: ends a step.
        folds: of the cross-validation, at least 2; there are never more than problems.
        tokenizer: tells where tokens end in pools that do not say so.

    Raises UsageError where the packages are missing or nothing can be learnt from the pool.
    """
    if folds < 2:
        raise UsageError(f"folds must be at least 2, not {folds}.")
    if not delimiter:
        raise UsageError("The delimiter is empty; give what ends a step.")
    try:
        from threadpoolctl import threadpool_limits  # here, because the core works without it
    except ImportError:
        raise UsageError("Training needs more packages: pip install 'outthink[learn]'.") from None
    recording = read_recording(path, tokenizer)
    if len(recording.questions) < 2:
        raise UsageError(f"{path} has one problem; a probe is tested on problems that it was not trained on.")
    found = examples(recording, delimiter)
    if found.right.all() or not found.right.any():
        which = "right" if found.right.any() else "wrong"
        raise UsageError(f"All samples of {path} are {which}, so there is nothing to tell apart.")
    fold = np.random.default_rng(seed).permutation(len(recording.questions)) % min(folds, len(recording.questions))
    bootstrap = _Bootstrap(len(recording.questions))
    heads: dict[str, Head] = {}
    held_out: dict[str, dict[str, HeldOut]] = {}
    chosen: dict[str, str] = {}
    with threadpool_limits(1):  # sums in one order on every machine
        for head in HEADS:
            rows = found.known(head)
            right, part = found.right[rows], fold[found.problem[rows]]
            learnable = all(len(np.unique(right[part != k])) == 2 for k in range(fold.max() + 1))
            if not learnable and head != "text":
                continue
            if not learnable:
                raise UsageError(
                    f"The right or the wrong samples of {path} come from too few problems to train on some and test "
                    "on others: record more problems."
                )
            values = found.values[head][rows]
            scores = {kind: _held_out_scores(kind, values, right, part, head, seed) for kind in CLASSIFIERS}
            held_out[head] = {kind: _quality(found, rows, of, bootstrap) for kind, of in scores.items()}
            chosen[head] = CLASSIFIERS[_clearly_better(scores, right, found.problem[rows], bootstrap)]
            heads[head] = fit(chosen[head], values, right, HEADS[head], seed)
    probe = Probe(
        delimiter=delimiter,
        heads=heads,
        trained={
            "model": recording.meta.get("model"),
            "sampling": recording.meta.get("sampling"),
            "pool": path.name,
            "first_problem": recording.pool.problems[0].id,
            "problems": len(recording.questions),
            "samples": sum(map(len, recording.samples)),
            "examples": len(found.right),
            "right": _rounded(float(np.mean([right for of in recording.samples for _, right in of]))),
            "seed": seed,
            "folds": int(fold.max()) + 1,
            "questions": sorted({question_mark(question) for question in recording.questions}),
        },
        held_out={
            head: {"kept": chosen[head], **{kind: _plain(asdict(of)) for kind, of in kinds.items()}}
            for head, kinds in held_out.items()
        },
    )
    return Training(probe=probe, held_out=held_out, chosen=chosen, unclear=recording.unclear)


def fit(kind: str, values: Numbers, right: NDArray[np.bool_], names: Sequence[str], seed: int) -> Head:
    """One of CLASSIFIERS on features (n, d) with these names."""
    from sklearn.linear_model import LogisticRegression  # here, because the core works without it
    from sklearn.neural_network import MLPClassifier

    mean, scale = values.mean(0), values.std(0)
    scale = np.where(scale > 1e-9 * (1 + np.abs(mean)), scale, 1.0)  # one that never changes gets no weight
    inputs = standardised(values, mean, scale)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could go on; the penalty, not the number of rounds, limits it
        if kind == "network":
            made = MLPClassifier((_HIDDEN,), alpha=_PENALTY, solver="lbfgs", max_iter=_ROUNDS, random_state=seed)
            made.fit(inputs, right)
            (weights, output), (biases, offset) = made.coefs_, made.intercepts_
        else:
            made = LogisticRegression(C=1 / _PENALTY, max_iter=1000).fit(inputs, right)
            weights, output, biases, offset = made.coef_.T, np.empty((0, 1)), made.intercept_, np.zeros(1)
    return Head(
        features={
            name: Feature(mean=_rounded(mean[i]), scale=_rounded(scale[i]), weights=tuple(map(_rounded, weights[i])))
            for i, name in enumerate(names)
        },
        biases=tuple(map(_rounded, biases)),
        output=tuple(map(_rounded, output[:, 0])),
        offset=_rounded(offset[0]),
    )


def _held_out_scores(
    kind: str, values: Numbers, right: NDArray[np.bool_], part: NDArray[np.intp], head: str, seed: int
) -> Numbers:
    scores = np.empty(len(right))
    for number in np.unique(part):
        test = part == number
        scores[test] = fit(kind, values[~test], right[~test], HEADS[head], seed)(values[test])
    return scores


def _clearly_better(
    scores: Mapping[str, Numbers], right: NDArray[np.bool_], problems: NDArray[np.intp], bootstrap: _Bootstrap
) -> bool:
    """Whether the network's AUROC is higher with 97.5% confidence, paired; else the simpler one is kept."""
    simple, network = (
        bootstrap.values(lambda weights, of=of: auroc(of, right, weights), problems)  # type: ignore[misc]  # of is bound
        for of in (scores[kind] for kind in CLASSIFIERS)
    )
    difference = network - simple
    return bool(np.quantile(difference[~np.isnan(difference)], _TAIL) > 0)


def _quality(found: Examples, rows: NDArray[np.bool_], scores: Numbers, bootstrap: _Bootstrap) -> HeldOut:
    right, problems, last = found.right[rows], found.problem[rows], found.last[rows]
    return HeldOut(
        examples=int(rows.sum()),
        auroc=bootstrap.estimate(lambda weights: auroc(scores, right, weights), problems),
        average_precision=bootstrap.estimate(lambda weights: average_precision(scores, right, weights), problems),
        brier=bootstrap.estimate(lambda weights: brier(scores, right, weights), problems),
        finished=bootstrap.estimate(lambda weights: auroc(scores[last], right[last], weights), problems[last]),
        same_problem=_among(scores[last], right[last], problems[last], problems[last], bootstrap),
        calibration_error=calibration_error(scores, right),
    )


def _among(
    scores: Numbers, right: NDArray[np.bool_], groups: ArrayLike, problems: NDArray[np.intp], bootstrap: _Bootstrap
) -> Estimate:
    """AUROC over pairs within groups, each of which lies in one problem."""
    won, of, places = wins(scores, right, groups)
    return bootstrap.estimate(lambda weights: _ratio((weights * won).sum(-1), (weights * of).sum(-1)), problems[places])


# ---- measuring on pools ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Scores of beginnings against the outcomes of their samples.

    Args:
        examples: how many have a score.
        auroc: over all, at whatever step; `finished` over finished samples.
        same_problem: over pairs of finished samples of one problem.
        same_step: over pairs of one problem at one depth, which is what search compares.
        depths: AUROC by depth, from 1; NaN where there are few.
        brier, calibration_error, bins: None where the scores are no probabilities.
    """

    examples: int
    auroc: Estimate
    finished: Estimate
    same_problem: Estimate
    same_step: Estimate
    depths: tuple[float, ...]
    brier: Estimate | None
    calibration_error: float | None
    bins: tuple[tuple[int, float, float], ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A rule that chooses among all samples of a problem.

    Args:
        accuracy: its mean credit.
        minus_vote: its difference from the majority vote, paired.
    """

    accuracy: Estimate
    minus_vote: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class OnPool:
    """A probe on a pool.

    Args:
        problems, samples: that were scored; samples for each problem.
        seen: problems that were left out, because the probe was trained on their questions.
        unclear: samples with logprobs of which it is not known where their tokens end.
        qualities: by what is scored.
        selections: by rule; empty where the pool has no answers.
    """

    problems: int
    samples: int
    seen: int
    unclear: int
    qualities: Mapping[str, Quality]
    selections: Mapping[str, Selection]


def on_pool(probe: Probe, path: Path, *, tokenizer: Tokenizing | None = None) -> OnPool:
    """Measure a probe on a pool, beside the model's own confidence where the pool has logprobs.

    Raises UsageError where nothing is left to measure it on.
    """
    recording = read_recording(path, tokenizer)
    seen = frozenset(probe.trained.get("questions", ()))
    left = [number for number, question in enumerate(recording.questions) if question_mark(question) not in seen]
    if not left:
        raise UsageError(f"The probe was trained on all questions of {path}: measure it on others.")
    found = examples(recording, probe.delimiter, skip=seen)
    bootstrap = _Bootstrap(len(recording.questions))
    scores: dict[str, Numbers] = {}
    for head, classifier in probe.heads.items():
        known = found.known(head)
        if known.any():
            scores[f"probe: {head}"] = np.full(len(known), np.nan)
            scores[f"probe: {head}"][known] = classifier(found.values[head][known])
    for what, values in found.confidence.items():
        if not np.isnan(values).all():
            scores[f"confidence: {what}"] = values
    return OnPool(
        problems=len(left),
        samples=min(len(recording.samples[number]) for number in left),
        seen=len(recording.questions) - len(left),
        unclear=recording.unclear,
        qualities={name: _on_outcomes(found, of, name.startswith("probe"), bootstrap) for name, of in scores.items()},
        selections=_selections(recording, left, found, scores),
    )


def _on_outcomes(found: Examples, scores: Numbers, probability: bool, bootstrap: _Bootstrap) -> Quality:
    rows = ~np.isnan(scores)
    of, right, problems = scores[rows], found.right[rows], found.problem[rows]
    last, depth = found.last[rows], found.depth[rows]
    depths = [depth == number for number in range(1, _DEPTHS + 1)]
    return Quality(
        examples=len(of),
        auroc=bootstrap.estimate(lambda weights: auroc(of, right, weights), problems),
        finished=bootstrap.estimate(lambda weights: auroc(of[last], right[last], weights), problems[last]),
        same_problem=_among(of[last], right[last], problems[last], problems[last], bootstrap),
        same_step=_among(of, right, problems * (1 + depth.max(initial=0)) + depth, problems, bootstrap),
        depths=tuple(
            float(auroc(of[at], right[at])) if min(right[at].sum(), (~right[at]).sum()) >= _FEW else math.nan
            for at in depths
        ),
        brier=bootstrap.estimate(lambda weights: brier(of, right, weights), problems) if probability else None,
        calibration_error=calibration_error(of, right) if probability else None,
        bins=tuple(reliability(of, right)) if probability else None,
    )


def _selections(
    recording: Recording, left: Sequence[int], found: Examples, scores: Mapping[str, Numbers]
) -> dict[str, Selection]:
    """The vote and what scores of finished samples make of the same samples."""
    problems = []
    for number in left:
        problem = recording.pool.problems[number]
        of_problem = (found.problem == number) & found.last
        of_samples = {}
        for name, values in scores.items():
            matrix = np.full((len(problem.correct), 1), np.nan)
            matrix[found.sample[of_problem], 0] = values[of_problem]
            of_samples[name] = matrix
        problems.append(replace(problem, scores=of_samples))
    pool = replace(recording.pool, problems=tuple(problems), scorers=tuple(scores))
    if any(problem.keys is None for problem in problems):
        return {}
    n, same = pool.samples, {"subsamples": 200, "seed": 0}  # the order matters where scores are equal only
    vote = majority(pool, [n], **same)[n].accuracy
    chosen = {"coverage": coverage(pool, [n])[n].accuracy, "vote": vote}
    for name in scores:
        for rule, strategy in (("best", BestOfN()), ("weighted vote", WeightedBestOfN())):
            chosen[f"{rule} by {name}"] = curve(strategy, pool, [n], scorer=name, **same)[n].accuracy
    return {
        name: Selection(
            accuracy=mean_and_interval(of.tolist()),
            minus_vote=mean_and_interval((of - vote).tolist(), least=-1.0),
        )
        for name, of in chosen.items()
    }


# ---- measuring on solutions whose first error is marked -------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked:
    """A solution whose first wrong step somebody has marked.

    Args:
        label: index of that step, -1 where there is none.
    """

    question: str
    steps: tuple[str, ...]
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OnMarked:
    """A probe on solutions whose first wrong step is marked.

    Args:
        solutions, wrong: how many, and how many of them have a wrong step.
        seen: solutions that were left out, because the probe was trained on their questions.
        threshold: a step below it is taken for wrong.
        f1: harmonic mean of `on_wrong` (the first wrong step was found) and `on_right` (none was found).
        auroc, brier, calibration_error: of steps, the first wrong one against those before it and those of solutions
            without one; what follows a wrong step is not marked and does not count.
        bins: examples, mean score and share that is right by score.
    """

    solutions: int
    wrong: int
    seen: int
    threshold: float
    f1: Estimate
    on_wrong: Estimate
    on_right: Estimate
    auroc: Estimate
    brier: Estimate
    calibration_error: float
    bins: tuple[tuple[int, float, float], ...]


def is_marked(path: Path) -> bool:
    """Whether the file holds marked solutions rather than a pool; raises UsageError where it is empty."""
    row = next((row for _, row in jsonl.read(path)), None)
    if row is None:
        raise UsageError(f"{path} is empty.")
    return "label" in row and "steps" in row


def read_marked(path: Path) -> list[Marked]:
    """Solutions in the form of ProcessBench: question, steps and label; raises UsageError that names a wrong line."""
    found = []
    for number, row in jsonl.read(path):
        question, steps, label = row.get("question", row.get("problem")), row.get("steps"), row.get("label")
        if not (
            isinstance(question, str)
            and isinstance(steps, list)
            and all(isinstance(step, str) for step in steps)
            and type(label) is int
            and -1 <= label < len(steps)
        ):
            raise UsageError(
                f"Line {number} of {path} is no marked solution: it needs question (or problem), steps, and as label "
                "the index of the first wrong step, or -1."
            )
        found.append(Marked(question=question, steps=tuple(steps), label=label))
    return found


def step_scores(probe: Probe, solutions: Sequence[Marked]) -> Numbers:
    """The scores (n, T) of the steps, from their texts alone; NaN where there is none."""
    scores = np.full((len(solutions), max((len(one.steps) for one in solutions), default=1)), np.nan)
    for row, solution in zip(scores, solutions, strict=True):
        pieces = [(step.rstrip() + "\n\n", None) for step in solution.steps]
        for place in range(len(pieces)):
            score = probe.chance(solution.question, pieces[: place + 1])
            row[place] = math.nan if score is None else score
    return scores


def best_threshold(probe: Probe, path: Path) -> float:
    """The threshold with the highest F1 on these marked solutions; of several the one nearest to 0.5."""
    solutions = read_marked(path)
    scores, label = step_scores(probe, solutions), np.array([one.label for one in solutions])
    known = np.unique(scores[~np.isnan(scores)])
    tried = np.unique(np.quantile(known, np.linspace(0, 1, 201))) if len(known) else np.array([0.5])
    f1 = np.nan_to_num(step_f1(first_error(scores, tried[:, None, None]), label)[0])
    best = tried[f1 == f1.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def on_marked(probe: Probe, path: Path, *, threshold: float = 0.5) -> OnMarked:
    """Measure a probe on marked solutions; it reads their texts only. Raises UsageError where none is left."""
    everything = read_marked(path)
    seen = frozenset(probe.trained.get("questions", ()))
    solutions = [one for one in everything if question_mark(one.question) not in seen]
    if not solutions:
        raise UsageError(f"The probe was trained on all questions of {path}: measure it on others.")
    numbers: dict[str, int] = {}
    problems = np.array([numbers.setdefault(one.question, len(numbers)) for one in solutions])
    scores, label = step_scores(probe, solutions), np.array([one.label for one in solutions])
    found = first_error(scores, threshold)
    bootstrap = _Bootstrap(len(numbers))
    f1, on_wrong, on_right = (
        bootstrap.estimate(lambda weights, part=part: step_f1(found, label, weights)[part], problems)  # type: ignore[misc]  # part is bound
        for part in range(3)
    )
    place = np.arange(scores.shape[1])
    rows, steps = np.nonzero(~np.isnan(scores) & ((place <= label[:, None]) | (label[:, None] < 0)))
    of, right = scores[rows, steps], steps != label[rows]
    return OnMarked(
        solutions=len(solutions),
        wrong=int((label >= 0).sum()),
        seen=len(everything) - len(solutions),
        threshold=threshold,
        f1=f1,
        on_wrong=on_wrong,
        on_right=on_right,
        auroc=bootstrap.estimate(lambda weights: auroc(of, right, weights), problems[rows]),
        brier=bootstrap.estimate(lambda weights: brier(of, right, weights), problems[rows]),
        calibration_error=calibration_error(of, right),
        bins=tuple(reliability(of, right)),
    )


# ---- what is shown --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A probe on several files.

    Args:
        pools, marked: by file.
        fitted: the file on which the threshold was fitted; None: it was given.
    """

    pools: Mapping[str, OnPool]
    marked: Mapping[str, OnMarked]
    fitted: str | None = None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        pools = {name: _plain(asdict(of)) for name, of in self.pools.items()}
        marked = {name: _plain(asdict(of)) for name, of in self.marked.items()}
        return {"pools": pools, "marked": marked, "threshold_fitted_on": self.fitted}

    def tables(self) -> list[tuple[str, Table]]:
        """Headings and tables for a terminal."""
        return [(heading, text_table(columns, rows)) for heading, columns, rows in self._cells()]

    def markdown(self) -> str:
        """The same in Markdown."""
        cells = self._cells()
        return "\n".join(f"{heading}\n\n{markdown_table(columns, rows)}" for heading, columns, rows in cells)

    def sentences(self) -> list[str]:
        """What was left out, and where the threshold comes from."""
        found = []
        for name, on in self.pools.items():
            if on.seen:
                found.append(f"{name}: {on.seen} problems were left out, because the probe was trained on them.")
            if on.unclear:
                found.append(f"{name}: of {on.unclear} samples it is not known where their tokens end; {TELL}.")
        for name, of in self.marked.items():
            if of.seen:
                found.append(f"{name}: {of.seen} solutions were left out, because the probe was trained on them.")
        if self.marked:
            threshold = next(iter(self.marked.values())).threshold
            whence = "as given" if self.fitted is None else f"fitted on {self.fitted}"
            found.append(f"A step is taken for wrong below {threshold:.3g}, {whence}.")
        return found

    def _cells(self) -> list[tuple[str, list[str], list[list[str]]]]:
        tables = []
        for name, on in self.pools.items():
            rows = [
                [what, *map(_estimate, (of.auroc, of.finished, of.same_problem, of.same_step))]
                for what, of in on.qualities.items()
            ]
            tables.append((f"{name}: {on.problems} problems", ["scores", *_AUROCS], rows))
            rows = [
                [
                    what,
                    *map(_number, of.depths),
                    _number(None if of.brier is None else of.brier[0]),
                    _number(of.calibration_error),
                ]
                for what, of in on.qualities.items()
            ]
            columns = ["scores", *map(str, range(1, _DEPTHS + 1)), "Brier", "calibration error"]
            tables.append((f"{name}: AUROC by number of steps; calibration", columns, rows))
            if on.selections:
                rows = [
                    [rule, _points(of.accuracy), "" if rule in ("coverage", "vote") else _points(of.minus_vote, "+")]
                    for rule, of in on.selections.items()
                ]
                columns = ["rule", "accuracy % (95%)", "minus vote (95%, paired)"]
                tables.append((f"{name}: choosing among {on.samples} samples", columns, rows))
        if self.marked:
            rows = [
                [
                    name,
                    str(of.solutions),
                    _points(of.f1),
                    f"{100 * of.on_wrong[0]:.1f}",
                    f"{100 * of.on_right[0]:.1f}",
                    _estimate(of.auroc),
                    _number(of.brier[0]),
                    _number(of.calibration_error),
                ]
                for name, of in self.marked.items()
            ]
            columns = ["file", "solutions", "F1 % (95%)", "with error", "without", "AUROC (95%)", "Brier"]
            tables.append(("first errors", [*columns, "calibration error"], rows))
        return tables


TELL = "give --model with the model that wrote them, whose tokenizer tells"


def evaluate(
    probe: Probe,
    paths: Iterable[Path],
    *,
    threshold: float = 0.5,
    fit_on: Path | None = None,
    tokenizer: Tokenizing | None = None,
) -> Evaluation:
    """Measure a probe on pools and on files of marked solutions.

    Args:
        threshold: below it a step is taken for wrong; with `fit_on` it is fitted on those marked solutions instead.
        tokenizer: as for `train`.
    """
    kinds = {path: is_marked(path) for path in paths}
    if fit_on is not None:
        if fit_on in kinds:
            raise UsageError(f"The threshold cannot be fitted on {fit_on} and measured there: give another file.")
        if not is_marked(fit_on):
            raise UsageError(f"The threshold is fitted on marked solutions, and {fit_on} is a pool.")
        threshold = best_threshold(probe, fit_on)
    return Evaluation(
        pools={str(path): on_pool(probe, path, tokenizer=tokenizer) for path, marked in kinds.items() if not marked},
        marked={str(path): on_marked(probe, path, threshold=threshold) for path, marked in kinds.items() if marked},
        fitted=None if fit_on is None else str(fit_on),
    )


def _estimate(of: Estimate) -> str:
    return "-" if math.isnan(of[0]) else f"{of[0]:.3f} ({of[1]:.3f} to {of[2]:.3f})"


def _points(of: Estimate, sign: str = "") -> str:
    return "-" if math.isnan(of[0]) else f"{100 * of[0]:{sign}.1f} ({100 * of[1]:{sign}.1f} to {100 * of[2]:{sign}.1f})"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _rounded(value: float) -> float:
    """6 digits: more are noise, and make the file longer."""
    return float(f"{value:.6g}")


def _plain(value: Any) -> Any:
    """The same with rounded numbers, and None for NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return None if math.isnan(value) else _rounded(value)
    return value
