"""Particle Gibbs: particle filters one after the other, each with a path of the one before among its particles.

Source: Puri et al. (arXiv 2502.01618), read in the authors' released code and in its_hub; conditional resampling after
Andrieu, Doucet and Holenstein (2010) and Chopin and Singh (2015), from memory. Differs from the code: at every step the
reference has the weight of its prefix of that length. (One repository has it a step late, the other uses its final
weight throughout.) Free particles are drawn given that the reference survives. There is one reference. The answer is
chosen among the paths of all iterations, not of the last one.

Pays: where more particles do not fit at once, or one filter settles too early. Compare it with one filter of as many
particles in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.resampling import multinomial
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.search.loop import Event, Expand, Grown, Level, Node, View, search
from outthink.strategies.search.particle_filter import ParticleFilter, Scheme, weights
from outthink.strategies.search.step_search import Choose, StepSearch
from outthink.types import Problem


def conditional_systematic(shares: ArrayLike, kept: ArrayLike, n: int, u: ArrayLike) -> NDArray[np.int64]:
    """Systematic resampling of n, given that the kept candidate is drawn: the counts without that one draw.

    One of the n evenly spaced points lies uniformly in the kept candidate's interval, and the others follow from it.

    Args:
        shares: (..., k), at least 0, with a positive sum per row; they are normalised.
        kept: (...) positions of candidates with a positive share.
        n: points, at least 1.
        u: (...) uniforms in [0, 1).

    Returns:
        (..., k) counts that sum to n - 1.
    """
    edges = np.cumsum(np.asarray(shares, dtype=np.float64), axis=-1)
    edges = np.insert(edges / edges[..., -1:], 0, 0.0, axis=-1)
    place = np.asarray(kept)[..., None]
    low, high = np.take_along_axis(edges, place, axis=-1), np.take_along_axis(edges, place + 1, axis=-1)
    points = (low + np.asarray(u)[..., None] * (high - low) + np.arange(1, n) / n) % 1.0
    below: NDArray[np.int64] = (points[..., None, :] < edges[..., :, None]).sum(-1, dtype=np.int64)
    return np.diff(below, axis=-1)


class Iterations:
    """A particle filter that begins anew when all of its particles are finished, with one of them as the reference.

    The reference takes part in each lottery with its prefix of as many steps as the others have, and that prefix can
    be copied; besides, it survives. Iterations before there is a finished path are plain particle filters.
    """

    def __init__(self, particles: ParticleFilter, iterations: int) -> None:
        self.finished: list[Node] = []
        self.population: list[Node] = []
        """The finished particles with which the last iteration ended, a multiset with the reference."""
        self.reference: list[Node] = []
        """The path that is kept, from its first step."""
        self._particles = particles
        self._iterations = iterations
        self._iteration = 0
        self._round = 0
        self._step = 0
        self._frozen: list[Node] = []

    def start(self, view: View) -> list[Expand]:
        """First steps of the free particles."""
        self._iteration += 1
        self._step = 0
        self._frozen = []
        return self._grown([None], [self._free])

    def grow(self, view: View, events: Sequence[Event]) -> list[Expand]:
        """The next step, or the next iteration; one in which a whole level is lost ends early."""
        nodes = [event.node for event in events if isinstance(event, Grown)]
        self.finished += [node for node in nodes if node.finished]
        particles = nodes + self._frozen
        while nodes and not all(node.finished for node in particles + self._kept):
            pool = particles + self._kept
            counts = self._allot(Level(pool, self._free, self._round, view))
            self._frozen = [node for node, n in zip(pool, counts, strict=True) if node.finished for _ in range(n)]
            children = [(node, int(n)) for node, n in zip(pool, counts, strict=True) if n and not node.finished]
            wishes = self._grown([node for node, _ in children], [n for _, n in children])
            if wishes:
                return wishes
            particles = self._frozen  # the reference alone is not finished yet
        self.population = [node for node in particles + self.reference[-1:] if node.finished]
        if self._iteration == self._iterations:
            return []
        if self.population:
            shares = weights([node.rank for node in self.population], self._particles.weight_temperature)
            drawn = view.at("reference", self._iteration).choice(len(shares), p=shares)
            self.reference = self.population[int(drawn)].path
        return self.start(view)

    @property
    def _free(self) -> int:
        """Particles that grow."""
        return self._particles.n - 1 if self.reference else self._particles.n

    @property
    def _kept(self) -> list[Node]:
        """The reference, cut to the steps that the others have."""
        return [self.reference[min(self._step, len(self.reference)) - 1]] if self.reference else []

    def _allot(self, level: Level) -> NDArray[np.int64]:
        """Copies (k,) of the particles, the last of which is the reference if there is one, besides its own place."""
        if not self.reference:
            return self._particles.allot(level)
        shares = weights(level.scores, self._particles.weight_temperature)
        rng = level.view.at("resample", level.round)
        if self._particles.scheme == "multinomial":
            return multinomial(shares, level.width, rng.random(level.width))
        # systematic draws depend on the order, which must not tell which of the particles is the reference
        order = rng.permutation(len(shares))
        kept = int(np.flatnonzero(order == len(shares) - 1)[0])
        counts = np.empty(len(shares), dtype=np.int64)
        counts[order] = conditional_systematic(shares[order], kept, level.width + 1, rng.random())
        return counts

    def _grown(self, pool: Sequence[Node | None], counts: Sequence[int]) -> list[Expand]:
        self._round += 1
        self._step += 1
        last = self._step >= self._particles.max_depth
        return [Expand(parent=node, n=n, until="end" if last else "step") for node, n in zip(pool, counts, strict=True)]


@dataclass(frozen=True, kw_only=True)
class ParticleGibbs(StepSearch):
    """Iterations of a particle filter; in each but the first a finished path of the former one is kept as reference.

    The reference is drawn by the final weights, costs nothing again, and at each step takes part in the lottery with
    its own weight at that step. The answer is chosen among the paths that finished in any iteration.

    Args:
        n: particles of an iteration, the reference included; at least 1, and 2 where there are several iterations.
        iterations: K, at least 1, which is the particle filter; in all up to K * n - (K - 1) paths are grown.
        scheme: how particles are drawn, "systematic" or "multinomial".
        weight_temperature: T_w of the softmax over log-odds, above 0.
        choose: answer with the "best" last reward, or by the "vote" of the finished paths, weighted by it.
        max_depth: most rounds of an iteration; 1 samples whole answers.
    """

    n: int = 8
    iterations: int = 2
    scheme: Scheme = "systematic"
    weight_temperature: float = 1.0
    choose: Choose = "best"
    max_depth: int = 40

    def __post_init__(self) -> None:
        self.particles()
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {self.iterations}")
        if self.iterations > 1 and self.n < 2:
            raise ValueError("n must be at least 2 for several iterations, because one particle is the reference")

    def particles(self) -> ParticleFilter:
        """One iteration."""
        return ParticleFilter(
            n=self.n,
            scheme=self.scheme,
            weight_temperature=self.weight_temperature,
            choose=self.choose,
            max_step_tokens=self.max_step_tokens,
            delimiter=self.delimiter,
            max_depth=self.max_depth,
        )

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        """One step of all free particles at a time; iterations follow each other."""
        await search(
            Iterations(self.particles(), self.iterations),
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=self.max_step_tokens,
            delimiter=self.delimiter,
            choose=self.choose,
        )
