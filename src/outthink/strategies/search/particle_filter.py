"""Particle filter: paths are weighted by the odds of their process reward, and resampled after every step.

Source: Puri et al., A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using Particle-Based Monte
Carlo Methods (arXiv 2502.01618), read in the authors' released code and in its_hub. Differs from the code: resampling
is systematic by default and not multinomial. A finished path can be the answer even after it was resampled away. A path
ends where the model ends it and not at a boxed answer. In the last round open paths are sampled to their end. Every
step, and not only the first one, is sampled at the run's temperature.

Pays: with rewards that mean probabilities. With a trained probe no difference from the vote at equal tokens was seen
(docs/results/search.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.resampling import multinomial, softmax, systematic
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.search.loop import Level, Rounds, search
from outthink.strategies.search.step_search import Choose, StepSearch
from outthink.types import Problem

Scheme = Literal["systematic", "multinomial"]

_LEAST = 1e-7  # rewards closer to 0 or 1 than this have finite odds all the same


def log_odds(rewards: ArrayLike) -> NDArray[np.float64]:
    """ln(r / (1 - r)) of process rewards (...) in [0, 1], clipped to [1e-7, 1 - 1e-7]."""
    clipped = np.clip(np.asarray(rewards, dtype=np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(clipped / (1 - clipped)))


def weights(rewards: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Weights (..., n) of n particles, summing to 1: softmax(log-odds / temperature); at 1 in proportion to the odds.

    Only the present rewards count, since a particle that was resampled has paid for the earlier ones. So over a whole
    path the odds of all its steps multiply.
    """
    return softmax(log_odds(rewards), temperature)


@dataclass(frozen=True, kw_only=True)
class ParticleFilter(StepSearch):
    """n particles grow step by step; after each step n of them are drawn with replacement, by their weights.

    A particle that is finished stays in the lottery as it is, with the weight of its last reward, and costs nothing
    more. The search ends when all particles are finished, and chooses among all paths that ever finished.

    Args:
        n: particles (N); at least 1.
        scheme: "systematic" draws with the least noise, and equal rewards make n independent samples; "multinomial"
            is the authors' n independent draws.
        weight_temperature: T_w of the softmax over log-odds, above 0: towards 0 all particles copy the best one.
        weight_temperature_end: where it goes from there, linearly in the first `anneal` rounds; None: it stays.
        anneal: rounds after which the end is reached; at least 1.
        choose: answer with the "best" last reward, or by the "vote" of the finished paths, weighted by it.
        max_depth: most rounds; 1 samples whole answers.
    """

    n: int = 16
    scheme: Scheme = "systematic"
    weight_temperature: float = 1.0
    weight_temperature_end: float | None = None
    anneal: int = 10
    choose: Choose = "best"
    max_depth: int = 40

    def __post_init__(self) -> None:
        end = () if self.weight_temperature_end is None else ("weight_temperature_end",)
        check(
            self,
            at_least_one=("n", "max_step_tokens", "max_depth", "anneal"),
            above_zero=("weight_temperature", *end),
        )

    def temperature_in(self, round: int) -> float:
        """T_w in a round, from 1: the start in the first one."""
        end = self.weight_temperature if self.weight_temperature_end is None else self.weight_temperature_end
        gone = min((round - 1) / self.anneal, 1.0)
        return self.weight_temperature + gone * (end - self.weight_temperature)

    def allot(self, level: Level) -> NDArray[np.int64]:
        """Copies (k,) of the k particles, finished ones included."""
        shares = weights(level.scores, self.temperature_in(level.round))
        rng = level.view.at("resample", level.round)
        if self.scheme == "systematic":
            return systematic(shares, level.width, rng.random())
        return multinomial(shares, level.width, rng.random(level.width))

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        """One step of all open particles at a time; resampling waits for the slowest of them."""
        await search(
            Rounds(self.allot, self.n, max_rounds=self.max_depth, finishing="compete"),
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=self.max_step_tokens,
            delimiter=self.delimiter,
            choose=self.choose,
        )
