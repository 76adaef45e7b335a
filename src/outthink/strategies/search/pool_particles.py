r"""Pool particles: a particle filter that draws from all prefixes so far, and not from the newest ones only.

Source: the second mechanism of Tran et al., Beyond the Frontier: Stochastic Backtracking for Efficient Test-Time
Scaling (arXiv 2605.25143), of which only the abstract was read: particles over the whole pool of prefixes, powered
rewards, weights corrected for the mixture. Differs: the mathematics below is ours, so this has a name of its own; a
prefix may be forgotten after `memory` rounds; draws are systematic; the number of rounds is fixed.

**Draws.** In each round n particles of the pool are drawn, s with the share q(s) in proportion to (r / (1 - r))^power,
r being its last reward. An open one writes one step more, which is a new particle; a finished one makes a copy of
itself. What was drawn stays in the pool.

**Weights.** Let p be the model's own distribution, P its next step (a finished path stays as it is), p_t = P^t the
distribution after t steps. A particle of time t (steps since the question) that is born in round j of parent s has

    v = W_j(s) / (n q_j(s)),    W_j(s) = v(s) / m_j(t - 1),

where m_j(t) is the number of rounds in which particles of time t that are still in the pool in round j could be born.
The first n have v = 1 / n. Then for every round j and time t that are possible, and every function f,

    E sum {v f : born in j, of time t} = p_t(f),

by induction: s is drawn n q_j(s) times in the mean, so the left side is E sum {W_j(s) Pf(s) : s in the pool, of time
t - 1}; and that is the mean over m_j(t - 1) rounds of p_{t-1}(Pf) = p_t(f). m_j depends on j, t and `memory` alone. (A
count of the rounds in which there really were such particles would depend on what was drawn, and bias it.)

In the last round open paths are sampled to their end, so the children of the parents of any time t estimate the whole
distribution of answers p(f). Their mean over the times that are possible is the estimate: it has no bias, whatever the
rewards, power and memory are. The vote weighs each by v times the product of its powered odds over all steps: the
answers of the model, tilted by its rewards. With memory 1 there is one time in the pool, v cancels all odds but the
last ones, and it is `particle_filter` with weight_temperature 1 / power.

Pays: where a step that looked good leads nowhere, and an earlier one can be gone on with instead. On sums with a small
probe it could not be told from a vote of half of its tokens (docs/results/search.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from outthink.maths.resampling import systematic
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_weighted_vote
from outthink.strategies.search.loop import Event, Expand, Grown, Node, View, search
from outthink.strategies.search.particle_filter import log_odds, weights
from outthink.strategies.search.step_search import StepSearch
from outthink.types import Problem

_MOST_LOOKED_AT = 2**24  # prefixes, in all rounds together: some seconds


def possible_births(time: int, round: int, memory: int) -> int:
    """m_j(t): in how many rounds particles of a time that are in the pool in a round could be born.

    Those of time 1 are all born in round 1, those of time t from round t on, as long as any of time t - 1 are there.

    Args:
        time: t, at least 1.
        round: j; its own particles are not in the pool yet.
        memory: rounds for which a particle is in the pool; at least 1.
    """
    first, last = max(time, round - memory), min(round - 1, 1 + (time - 1) * memory)
    return max(last - first + 1, 0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Particle:
    """A path in the pool.

    Args:
        time: steps since the question; a copy of a finished path is one step later.
        born: its round.
        log_v: ln v.
    """

    node: Node
    time: int
    born: int
    log_v: float


class Pool:
    """The policy; see the module's text.

    Args:
        n: draws of each round.
        rounds: how many there are, at least 1.
        memory: rounds for which a particle can be drawn.
        power: of the odds.
    """

    def __init__(self, n: int, *, rounds: int, memory: int, power: float) -> None:
        self.finished: list[Node] = []
        self.pool: list[Particle] = []
        """All that can be drawn in the next round, and after the last round what it made."""
        self.round = 1
        self._n = n
        self._rounds = rounds
        self._memory = memory
        self._power = power
        self._drawn: dict[Node | None, tuple[int, float]] = {None: (1, -math.log(n))}  # time and ln v of children
        self._copies: list[Particle] = []

    def start(self, view: View) -> list[Expand]:
        """n first steps."""
        return [Expand(n=self._n, until=self._until)]

    def grow(self, view: View, events: Sequence[Event]) -> list[Expand]:
        """The next round in which anything is written; a batch is a whole round."""
        born: list[Particle] = []
        for event in events:
            if isinstance(event, Grown):
                time, log_v = self._drawn[event.expand.parent]
                born.append(Particle(node=event.node, time=time, born=self.round, log_v=log_v))
                if event.node.finished:
                    self.finished.append(event.node)
        while True:
            self.pool += [*born, *self._copies]
            oldest = self.round + 1 - self._memory
            if oldest > 1 and not self.over:
                self.pool = [one for one in self.pool if one.born >= oldest]
            if self.over or not self.pool:
                return []
            self.round += 1
            wishes = self._draw(view)
            if wishes:
                return wishes
            born = []

    @property
    def over(self) -> bool:
        """Whether this was the last round."""
        return self.round >= self._rounds

    @property
    def _until(self) -> Literal["step", "end"]:
        return "end" if self.over else "step"

    def _draw(self, view: View) -> list[Expand]:
        """The draws of a round."""
        shares = weights([one.node.rank for one in self.pool], 1 / self._power)
        counts = systematic(shares, self._n, view.at("resample", self.round - 1).random())
        self._drawn, self._copies, wishes = {}, [], list[Expand]()
        for place in np.flatnonzero(counts).tolist():
            one, count = self.pool[place], int(counts[place])
            present = one.log_v - math.log(possible_births(one.time, self.round, self._memory))
            log_v = present - math.log(self._n * float(shares[place]))
            if one.node.finished:
                copy = Particle(node=one.node, time=one.time + 1, born=self.round, log_v=log_v)
                self._copies += [copy] * count
            else:
                self._drawn[one.node] = one.time + 1, log_v
                wishes.append(Expand(parent=one.node, n=count, until=self._until))
        return wishes

    def estimate(self) -> dict[Node, float]:
        """ln of the weight of each path that the last round made or copied; empty before.

        Over all that the search could have drawn, the mean of the sum of weights of an answer is its probability.
        """
        if not self.over:
            return {}
        times = sum(possible_births(time, self.round, self._memory) > 0 for time in range(1, self.round)) or 1
        sums: dict[Node, float] = {}
        for one in self.pool:
            if one.born == self.round and one.node.finished:
                sums[one.node] = float(np.logaddexp(sums.get(one.node, -math.inf), one.log_v - math.log(times)))
        return sums


def tilted(estimate: dict[Node, float], power: float) -> NDArray[np.float64]:
    """The weights of a vote (k,), the largest being 1: v times the powered odds of all steps."""
    odds = np.array([log_odds([step.rank for step in node.path]).sum() for node in estimate])
    with np.errstate(over="ignore"):
        logs = np.array([*estimate.values()]) + power * (odds - odds.max())  # so that no power makes them infinite
    return np.asarray(np.exp(logs - logs.max()))


@dataclass(frozen=True, kw_only=True)
class PoolParticles(StepSearch):
    """n particles are drawn in every round from all prefixes so far, by the powered odds of their last rewards.

    Args:
        n: draws of each round (N); at least 1. A draw of a finished path costs nothing.
        memory: rounds after which a prefix cannot be drawn any more; 1 is the particle filter. None: never.
        power: of the odds of rewards, above 0: a large one goes on with the best prefix only.
        choose: answer by the "vote" with corrected weights, or with the "best" last reward.
        max_depth: rounds; in the last one open paths are sampled to their end.
    """

    n: int = 16
    memory: int | None = None
    power: float = 1.0
    max_depth: int = 16

    def __post_init__(self) -> None:
        memory = () if self.memory is None else ("memory",)
        check(self, at_least_one=("n", "max_step_tokens", "max_depth", *memory), above_zero=("power",))
        if (looked_at := self._looks_at) > _MOST_LOOKED_AT:
            raise ValueError(
                f"n x max_depth x memory must be at most {_MOST_LOOKED_AT:,}, not {looked_at:,}: each round looks at "
                "all of the pool"
            )

    @property
    def _looks_at(self) -> int:
        """Prefixes in all rounds together; all may be between two batches, where nothing is left to write."""
        return self.n * self.max_depth * min(self.memory or self.max_depth, self.max_depth)

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        """One round at a time; the vote of the last one where it was made, else that of what has finished."""
        memory = self.max_depth if self.memory is None else self.memory
        pool = Pool(self.n, rounds=self.max_depth, memory=memory, power=self.power)
        await search(
            pool,
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=self.max_step_tokens,
            delimiter=self.delimiter,
            choose=self.choose,
            looks_at=self._looks_at,
        )
        estimate = pool.estimate()
        if self.choose == "vote" and any(node.candidate.key is not None for node in estimate):
            shares = tilted(estimate, self.power).tolist()
            candidates = [node.candidate for node in estimate]
            chosen, share = by_weighted_vote(candidates, shares)
            report(candidates, chosen=chosen, scores=shares, confidence=share)
