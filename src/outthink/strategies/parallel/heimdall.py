"""Heimdall: many sampled verdicts on each solution; the best mean verdict wins, less a penalty where they are few.

Source: Heimdall: test-time scaling on the generative verification (Pessimistic Verification); abstract, reviews and a
re-implementation of its choice were read, the form of the penalty is from memory. Differs: any model verifies, by our
prompt; verdicts are counted as they came, so that missing ones raise the penalty; nothing is asked where all answers
are equal.

Pays: where the judge verifies better than the model solves; more verdicts do not remove its bias. With a 0.5B judge
it was 17 points below a vote that cost less (docs/results/selection.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.selection import Drawn, Replayed, Selected, answer_totals, codes, finite, first_by
from outthink.model import Model, Models
from outthink.rewards.judge import verdict, written
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority, pick
from outthink.strategies.prompting import said_by
from outthink.together import each
from outthink.types import Candidate, Problem

_PROMPT = (
    "Question:\n{question}\n\nProposed solution:\n{solution}\n\n"
    "Verify the solution step by step. Then end with one line: Verdict: 1 if its final answer is correct, or "
    "Verdict: 0 if it is not."
)


def pessimistic_scores(keys: ArrayLike, verdicts: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """The score (..., n) of each sample's answer: r - alpha * ln(V) / (v + 1); INVALID is NaN.

    r is the mean of the answer's v verdicts, 0.5 where it has none; V is the number of verdicts on all answers. With
    M verdicts on each of N samples, V = N * M, and v = M times the samples that have the answer.

    Args:
        keys: (..., n) integers, -1 is INVALID.
        verdicts: (..., n, m) in [0, 1]; NaN is missing, and so is what is not finite.
        alpha: weight of the penalty; 0 is the best mean verdict, a very large one the majority.
    """
    keys, verdicts = np.asarray(keys, dtype=np.intp), finite(verdicts)
    known = ~np.isnan(verdicts) & (keys >= 0)[..., None]
    count = answer_totals(keys, known.sum(-1))
    total = answer_totals(keys, np.where(known, verdicts, 0.0).sum(-1))
    mean = np.divide(total, count, out=np.full(count.shape, 0.5), where=count > 0)
    everything = known.sum((-2, -1))[..., None]
    penalty = alpha * np.log(np.maximum(everything, 1)) / (count + 1)
    return np.where(keys >= 0, mean - penalty, np.nan)


def pessimistic_choice(
    keys: ArrayLike, verdicts: ArrayLike, alpha: float, *, lengths: ArrayLike | None = None
) -> Selected:
    """The answer with the highest pessimistic score, shown by its solution with the highest mean verdict.

    Ties go to the answer with more samples, then to the better, the shorter and the earlier solution.

    Args:
        keys, verdicts, alpha: as for `pessimistic_scores`.
        lengths: (..., n) tokens.
    """
    keys, verdicts = np.asarray(keys, dtype=np.intp), finite(verdicts)
    known = ~np.isnan(verdicts)
    own = np.divide(
        np.where(known, verdicts, 0.0).sum(-1), known.sum(-1), out=np.full(keys.shape, -np.inf), where=known.any(-1)
    )
    members = answer_totals(keys, np.ones(keys.shape))
    size = np.zeros(keys.shape) if lengths is None else np.asarray(lengths, float)
    index = first_by(keys >= 0, pessimistic_scores(keys, verdicts, alpha), members, own, -size)
    valid = np.maximum((keys >= 0).sum(-1), 1)
    if keys.shape[-1] == 0:
        return Selected(index, np.zeros(index.shape))
    mine = np.take_along_axis(members, np.maximum(index, 0)[..., None], -1)[..., 0]
    return Selected(index, np.where(index >= 0, mine / valid, 0.0))


@dataclass(frozen=True, kw_only=True)
class Heimdall:
    """n solutions, m verdicts on each by the model in the role "judge", else by the main model.

    Args:
        n: samples drawn (N); at least 1.
        m: verdicts on each (M); at least 1.
        alpha: weight of the penalty; at least 0. Tune it on other questions.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "scores"})

    n: int = 8
    m: int = 4
    alpha: float = 0.5

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "m"))
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha must be a number of at least 0, not {self.alpha}")

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models) -> None:
        """The majority is reported first, so that it stands if the verdicts cannot be paid for."""
        samples = await model.sample(problem, self.n)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        places = [place for place, sample in enumerate(samples) if sample.key is not None]
        if len({samples[place].key for place in places}) < 2:
            return
        shown = await said_by([samples[place] for place in places])
        prompts = [_PROMPT.format(question=problem.question, solution=shown[samples[place].id]) for place in places]
        judged = [(samples[place],) for place in places]
        drawn = await written(models.role("judge"), problem, prompts, judged, self.m)
        said = await each(_verdicts, drawn)
        verdicts = np.full((len(samples), self.m), np.nan)
        for place, known in zip(places, said, strict=True):
            verdicts[place, : len(known)] = known
        keys = codes([sample.key for sample in samples])
        chosen, share = pick(
            samples, pessimistic_choice(keys, verdicts, self.alpha, lengths=[sample.tokens for sample in samples])
        )
        scores = pessimistic_scores(keys, verdicts, self.alpha)
        report(
            samples,
            chosen=chosen,
            scores=[None if math.isnan(score) else float(score) for score in scores],
            confidence=share,
        )

    def replay(self, drawn: Drawn) -> Replayed:
        """The same choice from recorded verdicts; how many there are of each sample takes the place of `m`."""
        assert drawn.verdicts is not None
        choice = pessimistic_choice(drawn.keys, drawn.verdicts, self.alpha, lengths=drawn.lengths)
        return Replayed.of_all(choice, drawn)


def _verdicts(texts: Sequence[Candidate]) -> list[float]:
    """What the texts say that were not cut off and can be read: 1 or 0."""
    words = (verdict(text.text, ("1", "0")) for text in texts if text.finish == "eos")
    return [float(word) for word in words if word is not None]
