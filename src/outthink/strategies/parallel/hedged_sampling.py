"""Hedged sampling: one greedy sample among n at a moderate temperature, and the most frequent answer.

Source: When Life Gives You Samples: The Benefits of Scaling up Inference Compute for Multilingual LLMs; abstract and a
summary of each section were read. Differs: the paper chooses from the pool with a judge (see `chops` and `x_mbr`); a
vote is what such a judge has to beat.

Pays: as the control for chops and x_mbr, which choose from such a pool. On sums it was 12 points below the vote at
equal tokens (docs/results/selection.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outthink.model import Draw, Model, OnSample
from outthink.strategies import Report
from outthink.strategies.choosing import Chosen, EarlyVote, by_majority
from outthink.types import Candidate, Problem


async def hedged_pool(
    model: Model, problem: Problem, n: int, temperature: float, seen: OnSample | None = None
) -> tuple[Candidate | None, list[Candidate]]:
    """The sample at temperature 0 (None: it failed), and it with n - 1 others at `temperature` after it, as one batch.

    `seen` is told of each while others are written. Raises as `Model.sample`.
    """
    greedy, *others = await model.sample_each(problem, _draws(n, temperature), seen=seen)
    return (greedy[0] if greedy else None), greedy + [sample for drawn in others for sample in drawn]


def _draws(n: int, temperature: float) -> tuple[Draw, ...]:
    hot = (Draw(n=n - 1, temperature=temperature),) if n > 1 else ()
    return (Draw(temperature=0.0), *hot)


def greedy_first(greedy: Candidate | None, samples: Sequence[Candidate]) -> Chosen:
    """The greedy sample of a pool where it is valid, else the majority; and its answer's share."""
    if greedy is None or greedy.key is None:
        return by_majority(samples)
    return greedy, share_of(greedy, samples)


def share_of(chosen: Candidate, samples: Sequence[Candidate]) -> float:
    """The share of the valid samples that have the answer of a valid one."""
    keys = [sample.key for sample in samples]
    return keys.count(chosen.key) / (len(keys) - keys.count(None))


def need_pool(n: int, temperature: float) -> None:
    """Raise ValueError where a pool cannot have these parameters."""
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be above 0 and finite, not {temperature}")


@dataclass(frozen=True, kw_only=True)
class HedgedSampling:
    """Majority vote over a hedged pool.

    Args:
        n: samples drawn, the greedy one included; at least 1.
        temperature: of the others; the paper finds 0.7 to 0.9 good. Quality falls earlier with it outside English.
    """

    own_temperature: ClassVar[bool] = True  # it says itself at which temperature it samples
    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    votes: ClassVar[bool] = True  # equal answers are what it goes by

    n: int = 5
    temperature: float = 0.7

    def __post_init__(self) -> None:
        need_pool(self.n, self.temperature)

    @property
    def first(self) -> tuple[Draw, ...]:
        """How its samples are drawn."""
        return _draws(self.n, self.temperature)

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch, one vote."""
        _, samples = await hedged_pool(model, problem, self.n, self.temperature, EarlyVote(report, self.n))
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
