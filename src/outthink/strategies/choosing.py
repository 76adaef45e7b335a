"""The selection rules of `selection`, applied to candidates: the chosen one (None: none is valid) and its share."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outthink.answers.thoughts import spoken
from outthink.errors import MissingResource, UsageError
from outthink.maths.selection import (
    Aggregation,
    Selected,
    Tally,
    aggregate,
    best_of,
    codes,
    numbers,
    weighted_vote,
)
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.types import Candidate, Problem

Chosen = tuple[Candidate | None, float]


def pick(samples: Sequence[Candidate], choice: Selected) -> Chosen:
    """The sample that a rule chose."""
    index = int(choice.index)
    return (samples[index] if index >= 0 else None), float(choice.share)


def by_majority(samples: Sequence[Candidate]) -> Chosen:
    """The most frequent answer."""
    majority = Majority()
    for sample in samples:
        majority.add(sample)
    return majority.chosen


def by_weighted_vote(samples: Sequence[Candidate], scores: Sequence[float | None]) -> Chosen:
    """The answer with the largest sum of scores; one that is missing or not finite weighs nothing.

    With none, or with nothing but zeros, it is the majority. Raises UsageError for a score below 0 of a valid sample.
    """
    weights = numbers(scores)
    if _unscored(samples, weights):
        return by_majority(samples)
    keys = codes([sample.key for sample in samples])
    need_weights(np.where(keys >= 0, weights, np.nan))
    return pick(samples, weighted_vote(keys, weights, lengths=[sample.tokens for sample in samples]))


def need_weights(scores: NDArray[np.float64]) -> None:
    """Raise UsageError where scores cannot be the weights of a vote; NaN is missing."""
    if (scores < 0).any():
        raise UsageError(
            f"A weighted vote needs scores of at least 0, and there is one of {np.nanmin(scores):.6g}: take a verifier "
            "that gives probabilities, or best_of_n, which takes any scores."
        )


def by_best(samples: Sequence[Candidate], scores: Sequence[float | None]) -> Chosen:
    """The sample with the highest score; one that is missing or not finite ranks last.

    With none it is the majority.
    """
    ranked = numbers(scores)
    if _unscored(samples, ranked):
        return by_majority(samples)
    lengths = [sample.tokens for sample in samples]
    return pick(samples, best_of(codes([sample.key for sample in samples]), ranked, lengths=lengths))


class Majority:
    """The majority of samples that come one after the other; each costs the same however many came before it."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._samples: dict[int, Candidate] = {}

    def add(self, sample: Candidate, place: int | None = None) -> Chosen:
        """Count a sample, and say what leads now.

        Args:
            place: by which a tie goes to the answer that is first; None: the order in which they come.
        """
        place = len(self._samples) if place is None else place
        self._samples[place] = sample
        self.tally.add(sample.key, sample.tokens, place)
        return self.chosen

    @property
    def chosen(self) -> Chosen:
        """What leads, and its share."""
        leader = self.tally.leader
        return (None if leader is None else self._samples[leader]), self.tally.share

    def fixed(self, left: int) -> bool:
        """Whether the same sample is chosen whatever so many further ones say.

        Its answer is ahead by more than they are, and no sample before it is missing, which might have that answer.
        """
        leader = self.tally.leader
        if leader is None or self.tally.votes - self.tally.runner_up <= left:
            return False
        return left == 0 or all(place in self._samples for place in range(leader))


class EarlyVote:
    """A majority of n samples that is reported as fixed as soon as the rest of them cannot change it.

    It is told of samples in the order in which they end, as `Model.sample` tells; what is chosen in the end is the
    strategy's own report.
    """

    def __init__(self, report: Report, n: int) -> None:
        self._report = report
        self._left = n
        self._majority = Majority()
        self._samples: dict[int, Candidate] = {}
        self._over = False

    def __call__(self, sample: Candidate, place: int) -> None:
        """Count a sample."""
        self._left -= 1
        self._samples[place] = sample
        chosen, share = self._majority.add(sample, place)
        # with nothing left, the strategy says it itself
        if not self._over and self._left and self._majority.fixed(self._left):
            self._over = True
            seen = [self._samples[number] for number in sorted(self._samples)]
            self._report(seen, chosen=chosen, confidence=share, early=True)


def last_line(form: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last line of what a text says, thoughts left out, that has this form from its beginning to its end."""
    matches = (form.fullmatch(line) for line in reversed(spoken(text).splitlines()))
    return next((match for match in matches if match), None)


async def sample_scores(
    problem: Problem,
    samples: Sequence[Candidate],
    verifier: Scores | None,
    prm: Scores | None,
    rule: Aggregation,
    delimiter: str,
) -> tuple[float | None, ...]:
    """One score per sample: the verifier's, else the PRM's step scores aggregated by `rule`."""
    if verifier is not None:
        return await verifier.score(problem, samples)
    need_scorer(verifier, prm)
    assert prm is not None
    steps = await prm.score_steps(problem, samples, delimiter)
    return tuple(
        None if not scores or any(score is None for score in scores) else float(aggregate(numbers(scores), rule))
        for scores in steps
    )


def need_scorer(verifier: Scores | None, prm: Scores | None) -> None:
    """Raise MissingResource, before anything is spent, where neither is there."""
    if verifier is None and prm is None:
        raise MissingResource(
            "This strategy needs a scorer: pass verifier=... or prm=..., or --verifier with confidence, judge, "
            "pairwise, tests, the address of a reward model or module:function."
        )


def _unscored(samples: Sequence[Candidate], scores: NDArray[np.float64]) -> bool:
    return all(np.isnan(score) for sample, score in zip(samples, scores, strict=True) if sample.key is not None)
