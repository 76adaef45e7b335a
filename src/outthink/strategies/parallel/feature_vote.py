"""Feature vote: votes weighted by how a text looks, since right reasoning tends to be shorter and to hesitate less.

Source: Think Deep, Think Fast: Investigating Efficiency of Verifier-free Inference-time-scaling Methods; its abstract
and reviews of it were read, not the paper. Differs: the paper reports which features go with right answers; word
lists, the form of the weight and its coefficients are ours.

Pays: for reasoning models only. With others its signs can be the wrong way round: 19 points below the vote on sums
(docs/results/selection.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.selection import Drawn, Replayed, codes, weighted_vote
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.choosing import by_weighted_vote
from outthink.together import each
from outthink.types import Problem

HEDGING = ("perhaps", "maybe", "might", "possibly", "i think")
THINKING = ("wait", "hmm", "let me", "alternatively", "actually")
DISCOURSE = ("therefore", "first", "finally", "so", "because")
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_MARKERS = [
    re.compile(r"\b(?:" + "|".join(markers).replace(" ", r"\s+") + r")\b", re.IGNORECASE)
    for markers in (HEDGING, THINKING, DISCOURSE)
]


def marker_rates(text: str) -> tuple[float, ...]:
    """Hedging, thinking and discourse markers per 1,000 words; whole words, in any case."""
    words = max(sum(1 for _ in _WORD.finditer(text)), 1)
    return tuple(1000 * sum(1 for _ in marker.finditer(text)) / words for marker in _MARKERS)


def feature_weights(keys: ArrayLike, features: ArrayLike, coefficients: Sequence[float]) -> NDArray[np.float64]:
    """The weights (..., n) of samples, in units of the largest one: exp(-sum of coefficient * z); INVALID is 0.

    Args:
        keys: (..., n) integers, -1 is INVALID.
        features: (..., n, f) finite numbers; each is standardised (z) over the valid samples of its row, and one
            that does not vary there says nothing.
        coefficients: (f,) above 0 where less of a feature is better.

    Raises ValueError where a feature of a valid sample is not finite.
    """
    valid = np.asarray(keys) >= 0
    seen = np.where(valid[..., None], np.asarray(features, float), 0.0)
    if not np.isfinite(seen).all():
        raise ValueError("a feature must be a finite number")
    count = np.maximum(valid.sum(-1), 1)[..., None, None]
    centred = np.where(valid[..., None], seen - seen.sum(-2, keepdims=True) / count, 0.0)
    spread = np.sqrt((centred**2).sum(-2, keepdims=True) / count)
    z = np.divide(
        centred,
        spread,
        out=np.zeros_like(centred),
        where=spread > 1e-9 * np.abs(seen).max(-2, keepdims=True, initial=0),
    )
    exponent = np.where(valid, -(z * np.asarray(coefficients, float)).sum(-1), -np.inf)
    largest = exponent.max(-1, keepdims=True, initial=-1e300)
    return np.where(valid, np.exp(exponent - largest), 0.0)


@dataclass(frozen=True, kw_only=True)
class FeatureVote:
    """Majority vote with weights from length and markers.

    The signs suit reasoning models; for others they can be the other way round, which needs other coefficients. With
    all of them 0 it is the majority.

    Args:
        n: samples drawn; at least 1.
        length, hedging, thinking: how much a longer text, and one with more such markers, loses.
        discourse: how much a text with more discourse markers gains.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "texts", "tokens"})

    n: int = 16
    length: float = 1.0
    hedging: float = 0.5
    thinking: float = 0.5
    discourse: float = 0.5

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")
        for name in ("length", "hedging", "thinking", "discourse"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be a number of at least 0, not {getattr(self, name)}")

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch, one vote."""
        samples = await model.sample(problem, self.n)
        rates = await each(lambda sample: marker_rates(sample.text), samples)
        features = [(sample.tokens, *rate) for sample, rate in zip(samples, rates, strict=True)]
        weights = feature_weights(
            codes([sample.key for sample in samples]),
            features,
            (self.length, self.hedging, self.thinking, -self.discourse),
        ).tolist()
        chosen, share = by_weighted_vote(samples, weights)
        report(samples, chosen=chosen, scores=weights, confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same vote on recorded texts."""
        assert drawn.texts is not None
        rates = _rates(drawn.texts)[drawn.order]
        features = np.concatenate([drawn.tokens[..., None], rates], axis=-1)
        weights = feature_weights(drawn.keys, features, (self.length, self.hedging, self.thinking, -self.discourse))
        return Replayed.of_all(weighted_vote(drawn.keys, weights, lengths=drawn.lengths), drawn)


@lru_cache(maxsize=2)  # a problem is replayed many times, one after the other
def _rates(texts: tuple[str, ...]) -> NDArray[np.float64]:
    return np.array([marker_rates(text) for text in texts])
