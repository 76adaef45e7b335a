"""Parallel tempering: chains at several temperatures of the reward, neighbours of which exchange their texts.

Source: replica exchange (Swendsen & Wang 1986; Geyer 1991), from memory; named as an option in Puri et al. (arXiv
2502.01618), whose released code has none. Differs: the chains are those of `qalign`, over whole answers, where that
paper runs particle Gibbs over steps; the temperatures are a geometric ladder; only the coldest chain answers.

Pays: where a score has several peaks, between which one cold chain does not find its way. It costs as many chains as
the ladder has rungs: compare it with `qalign` of as many chains. On sums with a small probe it was 16 points
below a vote of as many tokens (docs/results/search.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.selection import numbers
from outthink.model import Draw, Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority
from outthink.strategies.search.chains import Chains, ChainState, report_states
from outthink.types import Problem

Choose = Literal["vote", "best"]
_HOTTEST = 700.0  # log of a temperature that is still a number


def exchange(reward: ArrayLike, hotter: ArrayLike, beta: ArrayLike, hotter_beta: ArrayLike) -> NDArray[np.float64]:
    """Probability (...,) that a chain and a hotter one exchange their texts.

    It is min(1, exp((1 / beta - 1 / hotter_beta) (hotter - reward))), with which the joint law of both stays.

    Args:
        reward, hotter: (...,) rewards of their texts; one that is missing (NaN) is below all others.
        beta, hotter_beta: (...,) temperatures, above 0.
    """
    old, new = np.asarray(reward, float), np.asarray(hotter, float)
    with np.errstate(over="ignore", invalid="ignore"):
        gain = (1 / np.asarray(beta, float) - 1 / np.asarray(hotter_beta, float)) * (new - old)
        chance = np.exp(np.minimum(gain, 0.0))
    return np.where(np.isnan(new), 0.0, np.where(np.isnan(old), 1.0, chance))


@dataclass(frozen=True, kw_only=True)
class ParallelTempering:
    """The coldest of several chains of `qalign`, whose texts become distributed as p(text) exp(reward / beta).

    After each step every second pair of neighbours may exchange their texts: the even ones after one step, the odd ones
    after the next.

    Args:
        steps: proposals of each chain; 0 is plain sampling.
        chains: rungs of the ladder; 1 is `qalign` with one chain.
        beta: temperature of the reward of the coldest chain, in its units, above 0.
        ratio: each chain is so many times as hot as its colder neighbour; above 1.
        burn_in: first texts of the coldest chain that do not count, at most `steps`.
        choose: "vote", the most frequent answer over all texts of the coldest chain, repeats included, or "best", that
            with the highest reward.
    """

    powers: ClassVar[frozenset[str]] = frozenset({"prefix", "tokens"})  # what the model must be able to do

    steps: int = 16
    chains: int = 4
    beta: float = 0.25
    ratio: float = 2.0
    burn_in: int = 0
    choose: Choose = "vote"

    def __post_init__(self) -> None:
        check(self, at_least_one=("chains",), at_least_zero=("steps", "burn_in"), above_zero=("beta",))
        if not 1 < self.ratio < math.inf:
            raise ValueError(f"ratio must be a number above 1, not {self.ratio}")
        if self.burn_in > self.steps:
            raise ValueError(f"burn_in must be from 0 to steps ({self.steps}), not {self.burn_in}")
        if math.log(self.beta) + (self.chains - 1) * math.log(self.ratio) > _HOTTEST:
            raise ValueError(f"with so many chains {self.ratio} times as hot each, the hottest has no number")

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores, rng: Rng) -> None:
        """The chains go in step, each step is one batch, and after each the answer is reported."""
        most = model.sampling.cap
        samples = await model.sample(problem, self.chains)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        chains = Chains("parallel_tempering", problem, model, rng, partial(verifier.attempt, problem), Draw())
        await chains.start(samples, most)
        rungs = sorted(chains.states)  # a first sample that failed leaves no chain
        betas = {chain: self.beta * self.ratio**place for place, chain in enumerate(rungs)}
        visits = Counter([chains.states[rungs[0]]])
        self._report(report, visits)
        for step in range(1, self.steps + 1):
            await chains.move(step, betas, most)
            for place in range(step % 2, len(rungs) - 1, 2):
                self._exchange(chains, betas, rungs[place], rungs[place + 1], rng.at("exchange", step, place).random())
            if step <= self.burn_in:
                visits.clear()
            visits[chains.states[rungs[0]]] += 1
            self._report(report, visits)

    def _exchange(self, chains: Chains, betas: Mapping[int, float], cold: int, hot: int, u: float) -> None:
        ours, theirs = chains.states[cold], chains.states[hot]
        reward, hotter = numbers([ours.reward, theirs.reward])
        if u < exchange(reward, hotter, betas[cold], betas[hot]):
            chains.states |= {cold: theirs, hot: ours}

    def _report(self, report: Report, visits: Mapping[ChainState, int]) -> None:
        report_states(report, [*visits], [*visits.values()], highest=self.choose == "best")
