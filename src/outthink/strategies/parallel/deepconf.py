"""DeepConf: thoughts that become less confident than the first ones are cut; the rest vote, weighted by confidence.

Source: Fu et al., Deep Think with Confidence (2025), read in the authors' released code; of the paper the abstract.
Differs: at most n thoughts, far fewer than the paper's 256 to 512; a server may tell fewer than k logprobs, and a note
in the trace says so; vLLM's chats tell the token that was written in place of the k-th likeliest where it is none of
them. What is cut is charged and does not vote.

Pays: not measured with a model that thinks. With a small one on vLLM, whose streams tell the likeliest tokens, thoughts
were cut where they fell (docs/results/thinking.md). Published with large models.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import BudgetExhausted, EngineError, UsageError
from outthink.maths.selection import Drawn, Replayed, codes, weighted_vote
from outthink.meter import Meter
from outthink.model import Draw, Draws, Model
from outthink.models.engine import confidences_of
from outthink.strategies import Report
from outthink.strategies.choosing import pick
from outthink.together import away, each
from outthink.types import Candidate, Problem

Floats = NDArray[np.float64]
Measure = Literal["mean", "lowest", "bottom", "tail"]


def windows(confidences: ArrayLike, window: int) -> Floats:
    """Group confidences (m,): the mean over each run of `window` tokens of (t,); of fewer tokens, that of all.

    No token has no confidence: then it is one 0.
    """
    each = np.asarray(confidences, dtype=float)
    if each.size <= window:
        return np.array([each.mean() if each.size else 0.0])
    sums = np.concatenate([[0.0], np.cumsum(each)])
    return np.asarray((sums[window:] - sums[:-window]) / window)


def confidence(confidences: ArrayLike, window: int, measure: Measure) -> float:
    """One number for a thought from its tokens' confidences (t,): high is confident.

    "mean" of all tokens; the "lowest" window; "bottom": mean of the lowest tenth of the windows; "tail": the last one.
    """
    if measure == "mean":
        return float(np.asarray(confidences, dtype=float).mean()) if np.size(confidences) else 0.0
    groups = windows(confidences, window)
    if measure == "tail":
        return float(groups[-1])
    lowest = max(1, len(groups) // 10) if measure == "bottom" else 1
    return float(np.sort(groups)[:lowest].mean())


def bar(lowest: ArrayLike, keep: float) -> Floats:
    """Below which a thought is cut (...,): of the lowest windows (..., n), the share `keep` is at or above it."""
    return np.asarray(np.percentile(np.asarray(lowest, dtype=float), 100 * (1 - keep), axis=-1))


def falls(confidences: ArrayLike, window: int, least: ArrayLike) -> Floats:
    """Tokens (...,) of a thought with these confidences (t,) when its window falls below each bar (...,).

    Infinite where it never does; one that is shorter than a window never does.
    """
    if np.size(confidences) < window:
        return np.full(np.shape(least), np.inf)
    lowest = np.minimum.accumulate(windows(confidences, window))
    place = np.searchsorted(-lowest, -np.asarray(least, dtype=float), side="right")
    return np.where(place < len(lowest), place + float(window), np.inf)


def best(keys: ArrayLike, weights: ArrayLike, keep: float) -> NDArray[np.bool_]:
    """Whether each of (..., n) is in the share with the highest weights, which has one at least; of equals the first.

    Keys below 0, of answers that cannot be read, come last: else there may be nobody who votes.
    """
    high = np.where(np.asarray(keys) >= 0, np.asarray(weights, dtype=float), -np.inf)
    most = max(1, round(keep * high.shape[-1]))
    chosen = np.zeros(high.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-high, axis=-1, kind="stable")[..., :most], True, axis=-1)
    return chosen


class Falling:
    """The sliding window of a thought that is being written; `low` is set where it falls below the bar."""

    def __init__(self, window: int, least: float) -> None:
        self._least, self._window = least, window
        self._recent: deque[float] = deque()
        self._sum = 0.0
        self.low = asyncio.Event()

    def __call__(self, child: int, confidences: Sequence[float]) -> None:
        """Hear of new tokens."""
        for value in confidences:
            self._recent.append(value)
            self._sum += value
            if len(self._recent) > self._window:
                self._sum -= self._recent.popleft()
            if len(self._recent) == self._window and self._sum / self._window < self._least:
                self.low.set()


@dataclass(frozen=True, kw_only=True)
class DeepConf:
    """Up to n thoughts: the first in full, of the others those that stay confident; or all of them, and the best vote.

    Args:
        n: most thoughts; at least 1.
        warm_up: thoughts in full that set the bar; n and more is the offline form, in which nothing is cut.
        keep: share of the first thoughts that lie above the bar (the paper: 0.1 or 0.9); in (0, 1]. Offline it is the
            share that votes.
        threshold: stop where the leader has this share of the weights; above 1 all n are drawn.
        window: tokens of a group; at least 1.
        k: likeliest tokens whose logprobs make a token's confidence; at least 2.
        measure: by which votes are weighted.
        ahead: thoughts in flight after the first ones; at least 1. The decision does not depend on it.
    """

    powers: ClassVar[frozenset[str]] = frozenset({"top_logprobs"})  # what the model must be able to do
    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    votes: ClassVar[bool] = True  # equal answers are what it goes by
    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "tokens", "confidences"})

    n: int = 32
    warm_up: int = 16
    keep: float = 0.1
    threshold: float = 0.95
    window: int = 2048
    k: int = 20
    measure: Measure = "lowest"
    ahead: int = 8

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("warm_up", 1), ("window", 1), ("k", 2), ("ahead", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be above 0 and at most 1, not {self.keep}")
        if not 0 < self.threshold < math.inf:
            raise ValueError(f"threshold must be above 0 and finite, not {self.threshold}")
        if self.measure not in get_args(Measure):
            raise ValueError(f"measure must be one of {', '.join(get_args(Measure))}, not {self.measure}")

    @property
    def at_once(self) -> int:
        """The first ones."""
        return max(min(self.warm_up, self.n), self.ahead)

    @property
    def first(self) -> tuple[Draw, ...]:
        """How its samples are drawn."""
        return (Draw(n=self.n, controls={"top_logprobs": self.k}),)

    async def run(self, problem: Problem, report: Report, *, model: Model, meter: Meter) -> None:
        """A vote over the first ones, then after every further one."""
        draws = model.draws(problem, self.first[0])
        kept = await draws.draw(min(self.warm_up, self.n))
        told = min((confidences_of(one.observed)[1] for one in kept), default=0)
        if told < self.k:
            meter.notes.append(f"confidence is of the {told} likeliest tokens that were told, not of {self.k}")
        weights = await each(self._weight, kept)
        if self.warm_up >= self.n:
            self._vote(report, kept, weights, best(codes([one.key for one in kept]), weights, self.keep))
            return
        share = self._vote(report, kept, weights)
        least = float(bar(await each(self._lowest, kept), self.keep))
        going: deque[asyncio.Task[Candidate | None]] = deque()
        left = self.n - self.warm_up
        try:
            while share < self.threshold:
                while left > 0 and len(going) < self.ahead:
                    left -= 1
                    going.append(asyncio.ensure_future(self._written(draws, least)))
                if not going:
                    return
                sample = await going[0]
                going.popleft()
                if sample is not None:
                    kept.append(sample)
                    weights += await each(self._weight, [sample])
                    share = self._vote(report, kept, weights)
        except BudgetExhausted:
            return
        finally:
            for task in going:
                task.cancel()
            await asyncio.gather(*going, return_exceptions=True)

    async def _written(self, draws: Draws, least: float) -> Candidate | None:
        """The next thought; None where it was cut or failed."""
        falling = Falling(self.window, least)
        writing = asyncio.ensure_future(draws.draw(watch=falling))
        watching = asyncio.ensure_future(falling.low.wait())
        try:
            await asyncio.wait((writing, watching), return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                return None
            sample = (await writing)[0]
            # told late or all at once, it is cut all the same: speed decides nothing
            cut = await away(len(_seen(sample)), falls, _seen(sample), self.window, least)
            return sample if cut == math.inf else None
        except EngineError:
            return None
        finally:
            watching.cancel()
            if not writing.done():
                writing.cancel()
            await asyncio.gather(writing, watching, return_exceptions=True)  # until it has been charged

    def _weight(self, sample: Candidate) -> float:
        return max(confidence(_seen(sample), self.window, self.measure), 0.0)

    def _lowest(self, sample: Candidate) -> float:
        return confidence(_seen(sample), self.window, "lowest")

    def _vote(
        self,
        report: Report,
        seen: Sequence[Candidate],
        weights: Sequence[float],
        voting: NDArray[np.bool_] | Literal[True] = True,
    ) -> float:
        """Report the weighted vote; returns the leader's share."""
        keys = np.where(voting, codes([one.key for one in seen]), -1)
        chosen, share = pick(seen, weighted_vote(keys, weights, lengths=[one.tokens for one in seen]))
        report(seen, chosen=chosen, scores=list(weights), confidence=share)
        return share

    def replay(self, drawn: Drawn) -> Replayed:
        """The same on recorded confidences, where a cut is at once and nothing is in flight at the stop.

        Raises UsageError where they are of more likely tokens than k.
        """
        told = drawn.confidences
        assert told is not None
        if told.k > self.k:
            raise UsageError(f"The pool has confidences from {told.k} likeliest tokens: set k={told.k}")
        batch, n = drawn.keys.shape
        every = [max(confidence(one, self.window, self.measure), 0.0) for one in told.values]
        weights, first = np.array(every)[drawn.order], min(self.warm_up, n)
        if first == n:
            keys = np.where(best(drawn.keys, weights, self.keep), drawn.keys, -1)
            return Replayed.of_all(weighted_vote(keys, weights, lengths=drawn.lengths), drawn)
        lowest = np.array([confidence(one, self.window, "lowest") for one in told.values])[drawn.order]
        least = bar(lowest[:, :first], self.keep)
        ends = np.array([falls(one, self.window, least) for one in told.values])  # (samples, batch)
        cut = np.take_along_axis(ends.T, drawn.order, 1)
        cut[:, :first] = np.inf
        keys = np.where(cut < np.inf, -1, drawn.keys)
        index, used = np.full(batch, -1), np.full(batch, n)
        going = np.arange(batch)
        for size in range(first, n + 1):
            choice = weighted_vote(keys[going, :size], weights[going, :size], lengths=drawn.lengths[going, :size])
            index[going] = choice.index
            over = choice.share >= self.threshold
            used[going[over]] = size
            going = going[~over]
        spent = np.where(np.arange(n) < used[:, None], np.minimum(cut, drawn.tokens), 0.0).sum(-1)
        return Replayed(index=index, used=used, tokens=spent)


def _seen(sample: Candidate) -> Sequence[float]:
    """The confidences of a sample's tokens."""
    return confidences_of(sample.observed)[0]
