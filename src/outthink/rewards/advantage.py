"""Effective reward of a step: its value, and how much it has raised the chances of a prover.

Source: Setlur et al., Rewarding Progress: Scaling Automated Process Verifiers for LLM Reasoning (PAV), its text read in
a conversion, without the appendix that says how alpha was tuned. Relative progress: the labels of GenPRM (Zhao et al.,
2025), the bound of 0.8 from memory. Differs: the prover is always best-of-K of the value itself, in closed form; the
first step is not charged an advantage, because that needs the value of the bare question; the reward of a step is
mapped to [0, 1]. That of an answer is its value, as the paper chooses answers by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.meter import Meter
from outthink.rewards import Path
from outthink.rewards.inner import Inner, passed_on
from outthink.types import Problem


def prover_value(q: ArrayLike, k: int) -> NDArray[np.float64]:
    """Q^mu = 1 - (1 - Q)^K: the chance that the best of K continuations is right where each is with chance Q."""
    return np.asarray(1.0 - (1.0 - np.asarray(q, float)) ** k)


def effective_reward(q: ArrayLike, before: ArrayLike, *, alpha: float, k: int) -> NDArray[np.float64]:
    """R = Q + alpha * A^mu, where the advantage A^mu is what the step adds to the prover's value.

    Args:
        q, before: (...) values in [0, 1] after the step and before it.
        alpha, k: as in `Advantage`.
    """
    return np.asarray(q, float) + alpha * (prover_value(q, k) - prover_value(before, k))


def relative_progress(q: ArrayLike, before: ArrayLike, bound: float) -> NDArray[np.float64]:
    """1 (...) where the value after a step is at least `bound` times that before it, else 0; 0 where either is 0."""
    q, before = np.asarray(q, float), np.asarray(before, float)
    return np.asarray((q > 0) & (before > 0) & (q >= bound * before), float)


def to_unit(reward: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """A reward in [-alpha, 1 + alpha], where all of them lie, as a score in [0, 1]."""
    return (np.asarray(reward, float) + alpha) / (1.0 + 2.0 * alpha)


@dataclass(frozen=True, kw_only=True)
class Advantage:
    """(R + alpha) / (1 + 2 alpha), in [0, 1], of the last step of each path, with values Q by another PRM.

    A path that is complete has Q itself: an answer is chosen by its value, and not by its progress, and in a weighted
    vote a mapped reward would let three answers of .05 outweigh one of .95. A first step has R = Q. Among first steps
    that changes no order, since there the advantage rises with Q.

    Args:
        prm: the PRM that gives the values, as text or as what `make_scorer` takes; its scores must be in [0, 1].
        alpha: weight of the advantage; at least 0, where 0 is the value alone.
        k: how many continuations the prover has (K); at least 1. With a large one the advantage vanishes.
        relative_bound: score steps by `relative_progress` with this bound instead, 1 or 0; above 0. None: by R.
    """

    prm: Any
    alpha: float = 1.0
    k: int = 4
    relative_bound: float | None = None
    process: bool = True
    thoughts: ClassVar[bool] = True  # the PRM inside it says for itself

    def __post_init__(self) -> None:
        if not self.process:
            raise ValueError("it scores steps and not whole answers: use it as the PRM, and another verifier")
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha must be a number of at least 0, not {self.alpha}")
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")
        if self.relative_bound is not None and not 0 < self.relative_bound < math.inf:
            raise ValueError(f"relative_bound must be a number above 0, not {self.relative_bound}")
        _ = self._inner  # one that there is not is an error now

    @cached_property
    def _inner(self) -> Inner:
        return Inner(self.prm, process=True)

    reads = passed_on("reads_ends")
    relative = passed_on("relative")
    spec = passed_on("spec")

    @property
    def score(self) -> Callable[..., Any]:
        """The coroutine function, with the resources of the PRM; paths without what came before are scored at once."""
        return self._inner.naming(self._rewards)

    async def close(self) -> None:
        """Close the PRM."""
        await self._inner.close()

    async def _rewards(
        self, problem: Problem, paths: Sequence[Path], *, meter: Meter, **others: Any
    ) -> list[float | None]:
        ends = [path[-1].complete or path[-1].finish == "eos" for path in paths]  # an end is an answer
        plain = [len(path) == 1 or end for path, end in zip(paths, ends, strict=True)]
        before = [path[:-1] for path, alone in zip(paths, plain, strict=True) if not alone]
        values = await self._inner.bound(meter=meter, **others).probabilities(problem, [*paths, *before])
        earlier = iter(values[len(paths) :])
        triples = [(q, q if alone else next(earlier), end) for q, alone, end in zip(values, plain, ends, strict=False)]
        return [None if q is None or was is None else q if end else self._mapped(q, was) for q, was, end in triples]

    def _mapped(self, q: float, before: float) -> float:
        if self.relative_bound is not None:
            return float(relative_progress(q, before, self.relative_bound))
        return float(to_unit(effective_reward(q, before, alpha=self.alpha, k=self.k), self.alpha))
