"""First finish search: start n samples, return the first one that ends, and cancel the others.

Source: First Finish Search: Efficient Test-Time Scaling in Large Language Models (2025); the abstract, public summaries
and, for the form with k, a study that follows it up read, not the paper. Differs: what ends without a readable answer
is waited past; ends at the same moment go to the earlier sample.

Meant for models that think long, where short finished thoughts are right more often than long ones. Which sample ends
first is a matter of the back end's speed and load: alone among the methods here, this one depends on arrival.

Pays: for models that think long, if their short thoughts are right more often: check that first. On sums it was 22
points below the vote at equal tokens (docs/results/selection.md).
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.selection import Drawn, Replayed, Selected, majority
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.choosing import Majority
from outthink.strategies.flight import flight
from outthink.types import Candidate, Problem

Floats = NDArray[np.float64]


def shortest(tokens: ArrayLike, valid: ArrayLike, k: int = 1, *, longest: bool = False) -> NDArray[np.bool_]:
    """Which samples (..., n) are the k shortest valid ones, the earlier of equals first; all where there are fewer.

    Args:
        valid: (..., n) ended by itself with a readable answer; what was cut off is not finished, so never short.
        longest: the k longest instead, the control of this method.
    """
    tokens, valid = np.broadcast_arrays(np.asarray(tokens, float), np.asarray(valid, bool))
    order = np.argsort(np.where(valid, -tokens if longest else tokens, np.inf), axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1, kind="stable")
    return np.asarray((rank < k) & valid)


def first_finished(keys: ArrayLike, tokens: ArrayLike, k: int = 1, *, longest: bool = False) -> Selected:
    """The majority of the k shortest of keys (..., n), -1 being unfinished or unreadable, with lengths in tokens.

    It is what the method would have chosen among stored samples if all were written equally fast.
    """
    keys = np.asarray(keys, np.intp)
    return majority(np.where(shortest(tokens, keys >= 0, k, longest=longest), keys, -1), lengths=tokens)


def tokens_written(keys: ArrayLike, tokens: ArrayLike, k: int = 1) -> tuple[Floats, Floats]:
    """Tokens one after the other, and in all (...), until the k-th of n samples side by side has ended.

    Every lane writes until then, so n lanes can cost more in all than one sample. Where fewer than k end validly, all
    lanes run to their ends.
    """
    keys, tokens = np.broadcast_arrays(np.asarray(keys, np.intp), np.asarray(tokens, float))
    valid = keys >= 0
    last = np.where(shortest(tokens, valid, k), tokens, 0.0).max(-1)
    sequential = np.where(valid.sum(-1) >= k, last, tokens.max(-1))
    return sequential, np.minimum(tokens, sequential[..., None]).sum(-1)


@dataclass(frozen=True, kw_only=True)
class FirstFinish:
    """The first of n samples side by side that ends with a readable answer; or the majority of the first k.

    Args:
        n: samples started; at least 1. Try 2, 4 and 8: more selects ever shorter, in the end degenerate ones.
        k: ends that are waited for (FFS-k@n), from 1 to n; n is self-consistency.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "tokens"})

    n: int = 4
    k: int = 1

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")
        if not 1 <= self.k <= self.n:
            raise ValueError(f"k must be from 1 to n ({self.n}), not {self.k}")

    @property
    def one_sample(self) -> bool:
        """Whether there is nothing to race with."""
        return self.n == 1

    @property
    def votes(self) -> bool:
        """Whether equal answers are what it goes by, beside the order in which they end."""
        return self.k > 1

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """A vote at every end. What is still being written after the k-th is cancelled, and charged."""
        ended: list[Candidate] = []
        majority = Majority()
        async with flight(model.draws(problem), self.n, self.n) as flying:
            while (sample := await flying.first()) is not None:
                bisect.insort(ended, sample, key=lambda one: one.address)
                chosen, share = majority.add(sample, place=int(sample.address[-1]))
                fixed = majority.fixed(self.k - majority.tally.valid)
                report(ended, chosen=chosen, confidence=share, fixed=fixed)
                if majority.tally.valid == self.k:
                    return

    def replay(self, drawn: Drawn) -> Replayed:
        """The same choice where all samples are written side by side, one token of each at a time."""
        keys = np.where(drawn.complete, drawn.keys, -1)
        choice = first_finished(keys, drawn.tokens, self.k)
        return Replayed.of_all(choice, drawn, tokens=tokens_written(keys, drawn.tokens, self.k)[1])
