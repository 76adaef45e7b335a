"""The selection rules of `selection`, applied to candidates: the chosen one (None: none is valid) and its share."""

from __future__ import annotations

from collections.abc import Sequence

from outthink.errors import MissingResource
from outthink.maths.selection import Aggregation, Selected, aggregate, best_of, codes, majority, numbers, weighted_vote
from outthink.rewards.scores import Scores
from outthink.types import Candidate, Problem

Chosen = tuple[Candidate | None, float]


def pick(samples: Sequence[Candidate], choice: Selected) -> Chosen:
    """The sample that a rule chose."""
    index = int(choice.index)
    return (samples[index] if index >= 0 else None), float(choice.share)


def by_majority(samples: Sequence[Candidate]) -> Chosen:
    """The most frequent answer."""
    return pick(samples, majority(codes([s.key for s in samples]), lengths=[s.tokens for s in samples]))


def by_weighted_vote(samples: Sequence[Candidate], scores: Sequence[float | None]) -> Chosen:
    """The answer with the largest sum of scores; a missing score weighs nothing, and with none it is the majority."""
    if _unscored(samples, scores):
        return by_majority(samples)
    lengths = [sample.tokens for sample in samples]
    return pick(samples, weighted_vote(codes([s.key for s in samples]), numbers(scores), lengths=lengths))


def by_best(samples: Sequence[Candidate], scores: Sequence[float | None]) -> Chosen:
    """The sample with the highest score; a missing score ranks last, and with none it is the majority."""
    if _unscored(samples, scores):
        return by_majority(samples)
    lengths = [sample.tokens for sample in samples]
    return pick(samples, best_of(codes([s.key for s in samples]), numbers(scores), lengths=lengths))


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


def _unscored(samples: Sequence[Candidate], scores: Sequence[float | None]) -> bool:
    return all(score is None for sample, score in zip(samples, scores, strict=True) if sample.key is not None)
