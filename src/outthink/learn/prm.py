"""Trains a probe (`rewards.probe`) from a pool, without new tokens, and measures it on pools and marked solutions.

Every beginning of a recorded sample, up to the end of a step, is an example; its label is whether the sample ended
right, or, where values of steps are given, whether its last step has kept enough of the value before it (the labels of
GenPRM, see `rewards.advantage`). Cross-validation keeps all samples of a problem in one fold, so that what is held out
is a new problem. The classifier is logistic regression, or one hidden layer of 8 units where its held-out AUROC is
clearly higher.

Source: outcome labels as of Cobbe et al., Training Verifiers to Solve Math Word Problems (2021), from memory. The F1 of
the first error is that of Zheng et al., ProcessBench (arXiv 2412.06559), from memory. Differs: intervals are 95%
bootstrap intervals over problems, from 1,000 resamples with a fixed seed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import UsageError
from outthink.learn.examples import Examples, examples, question_mark, read_recording
from outthink.learn.measures import auroc, average_precision, brier, calibration_error, wins
from outthink.maths.intervals import TAIL, Bootstrap, Estimate, Numbers, ratio
from outthink.models.engine import Tokenizing
from outthink.reports.tables import text_table
from outthink.rewards.trained import HEADS, Feature, Head, TrainedPRM, standardised
from outthink.rng import generator, library_seed

if TYPE_CHECKING:
    from rich.table import Table

_HIDDEN = 8
_PENALTY = 30.0  # on the squares of weights, beside the sum of log losses; anything from 10 to 100 does as well
_ROUNDS = 100  # more change nothing that can be seen


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

    probe: TrainedPRM
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
        columns = ["reads", "classifier", *AUROCS[:3], "AUPRC", "Brier", ""]
        rows = [
            [
                head,
                kind,
                *map(estimated, (quality.auroc, quality.finished, quality.same_problem)),
                writable_number(quality.average_precision[0]),
                writable_number(quality.brier[0]),
                "kept" if kind == self.chosen[head] else "",
            ]
            for head, kinds in self.held_out.items()
            for kind, quality in kinds.items()
        ]
        return columns, rows


AUROCS = ("AUROC (95%)", "finished", "same problem", "same problem, depth")


def train(
    path: Path,
    *,
    delimiter: str = "\n\n",
    folds: int = 5,
    seed: int = 0,
    tokenizer: Tokenizing | None = None,
    values: str | None = None,
    bound: float = 0.8,
    tell: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> Training:
    """A probe from the pool at `path`; the same pool and seed give the same probe.

    Args:
        delimiter: ends a step.
        folds: of the cross-validation, at least 2; there are never more than problems.
        tokenizer: tells where tokens end in pools that do not say so.
        values: learn by relative progress instead, from the `step_scores` of this scorer, such as a rollout's.
        bound: share of its value that a good step keeps at least; above 0.
        tell: told what is being trained, and how many of how many classifiers are done.

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
    if not bound > 0:
        raise UsageError(f"The bound must be above 0, not {bound:g}.")
    recording = read_recording(path, tokenizer, values)
    if len(recording.questions) < 2:
        raise UsageError(f"{path} has one problem; a probe is tested on problems that it was not trained on.")
    labelled = examples(recording, delimiter, bound=bound)
    if labelled.right.all() or not labelled.right.any():
        which = "right" if labelled.right.any() else "wrong"
        what = "samples" if values is None else "steps"
        raise UsageError(f"All {what} of {path} are {which}, so there is nothing to tell apart.")
    fold = generator(seed).permutation(len(recording.questions)) % min(folds, len(recording.questions))
    bootstrap = Bootstrap(len(recording.questions))
    heads: dict[str, Head] = {}
    held_out: dict[str, dict[str, HeldOut]] = {}
    chosen: dict[str, str] = {}
    most = len(HEADS) * len(CLASSIFIERS)
    with threadpool_limits(1):  # sums in one order on every machine
        for head in HEADS:
            rows = labelled.known(head)
            right, part = labelled.right[rows], fold[labelled.problem[rows]]
            learnable = all(len(np.unique(right[part != k])) == 2 for k in range(fold.max() + 1))
            if not learnable and head != "text":
                continue
            if not learnable:
                raise UsageError(
                    f"The right or the wrong samples of {path} come from too few problems to train on some and test "
                    "on others: record more problems."
                )
            inputs = labelled.values[head][rows]
            scores: dict[str, Numbers] = {}
            for kind in CLASSIFIERS:
                tell(f"Training a {kind} that reads {head}", len(CLASSIFIERS) * len(heads) + len(scores), most)
                scores[kind] = _held_out_scores(kind, inputs, right, part, head, seed)
            held_out[head] = {kind: _quality(labelled, rows, guesses, bootstrap) for kind, guesses in scores.items()}
            chosen[head] = CLASSIFIERS[_clearly_better(scores, right, labelled.problem[rows], bootstrap)]
            heads[head] = fit(chosen[head], inputs, right, HEADS[head], seed)
    probe = TrainedPRM(
        delimiter=delimiter,
        heads=heads,
        trained={
            "model": recording.meta.get("model"),
            "sampling": recording.meta.get("sampling"),
            "pool": path.name,
            "first_problem": recording.pool.problems[0].id,
            "problems": len(recording.questions),
            "samples": sum(map(len, recording.samples)),
            "examples": len(labelled.right),
            "right": _rounded(float(np.mean([right for question in recording.samples for _, right in question]))),
            "seed": seed,
            "folds": int(fold.max()) + 1,
            **({} if values is None else {"labels": {"values": values, "bound": bound}}),
            "questions": sorted({question_mark(question) for question in recording.questions}),
        },
        held_out={
            head: {"kept": chosen[head], **{kind: plain_numbers(asdict(quality)) for kind, quality in kinds.items()}}
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
            made = MLPClassifier(
                (_HIDDEN,), alpha=_PENALTY, solver="lbfgs", max_iter=_ROUNDS, random_state=library_seed(seed)
            )
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
    scores: Mapping[str, Numbers], right: NDArray[np.bool_], problems: NDArray[np.intp], bootstrap: Bootstrap
) -> bool:
    """Whether the network's AUROC is higher with 97.5% confidence, paired; else the simpler one is kept."""
    simple, network = (
        bootstrap.values(lambda weights, guesses=guesses: auroc(guesses, right, weights), problems)  # type: ignore[misc]  # guesses is bound
        for guesses in (scores[kind] for kind in CLASSIFIERS)
    )
    difference = network - simple
    return bool(np.quantile(difference[~np.isnan(difference)], TAIL) > 0)


def _quality(labelled: Examples, rows: NDArray[np.bool_], scores: Numbers, bootstrap: Bootstrap) -> HeldOut:
    right, problems, last = labelled.right[rows], labelled.problem[rows], labelled.last[rows]
    return HeldOut(
        examples=int(rows.sum()),
        auroc=bootstrap.estimate(lambda weights: auroc(scores, right, weights), problems, (right, ~right)),
        average_precision=bootstrap.estimate(
            lambda weights: average_precision(scores, right, weights), problems, (right, ~right)
        ),
        brier=bootstrap.estimate(lambda weights: brier(scores, right, weights), problems),
        finished=bootstrap.estimate(
            lambda weights: auroc(scores[last], right[last], weights), problems[last], (right[last], ~right[last])
        ),
        same_problem=among(scores[last], right[last], problems[last], problems[last], bootstrap),
        calibration_error=calibration_error(scores, right),
    )


def among(
    scores: Numbers, right: NDArray[np.bool_], groups: ArrayLike, problems: NDArray[np.intp], bootstrap: Bootstrap
) -> Estimate:
    """AUROC over pairs within groups, each of which lies in one problem."""
    won, compared, places = wins(scores, right, groups)
    return bootstrap.estimate(
        lambda weights: ratio((weights * won).sum(-1), (weights * compared).sum(-1)), problems[places]
    )


# ---- what is shown --------------------------------------------------------------------------------------------------


TELL = "give --model with the model that wrote them, whose tokenizer tells"


def estimated(estimate: Estimate) -> str:
    """A measure with its interval, as in a table."""
    return "-" if math.isnan(estimate[0]) else f"{estimate[0]:.3f} ({estimate[1]:.3f} to {estimate[2]:.3f})"


def writable_number(value: float | None) -> str:
    """A measure as in a table; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _rounded(value: float) -> float:
    """6 digits: more are noise, and make the file longer."""
    return float(f"{value:.6g}")


def plain_numbers(value: Any) -> Any:
    """The same with rounded numbers, and None for NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: plain_numbers(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [plain_numbers(entry) for entry in value]
    if isinstance(value, float):
        return None if math.isnan(value) else _rounded(value)
    return value
