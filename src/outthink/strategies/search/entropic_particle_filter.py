"""Entropic particle filter: a particle filter that flattens its weights while few particles hold them all, early on.

Source: Giannone et al., Mitigating Premature Exploitation in Particle-based Monte Carlo for Inference-Time Scaling
(arXiv 2510.05825). Annealing was read in its_hub, which has no look-ahead; the paper's body was not read. Differs: the
weights of the look-ahead are ours, those of an auxiliary particle filter, and so is its use together with annealing;
finished particles count in the effective sample size, because they take part in the lottery. Otherwise as in
`particle_filter`.

Pays: where rewards are overconfident in the first steps and right later. Set horizon to the median number of steps of
finished answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.resampling import effective_sample_size, softmax, systematic
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.search.loop import Event, Expand, Grown, Level, Node, Rounds, View, search
from outthink.strategies.search.particle_filter import log_odds
from outthink.strategies.search.step_search import Choose, StepSearch
from outthink.types import Problem

Mode = Literal["ess", "entropy", "base"]


def annealing(
    log_weights: ArrayLike,
    progress: ArrayLike,
    mode: Mode = "ess",
    *,
    ess_threshold: float = 0.5,
    early_phase: float = 0.5,
) -> NDArray[np.float64]:
    """The temperature tau, at least 1, by which the log-weights are divided before the particles are drawn.

    It is above 1 only where the effective sample size is below `ess_threshold` x particles and the progress below
    `early_phase`; there it jumps back to 1.

    Args:
        log_weights: (..., n); -inf where there is no particle.
        progress: (...) share of the run that is over, at least 0.
        mode: "ess" is n / ESS x (1 - progress); "entropy" is 1 / beta, where beta goes with the progress from the
            normalised entropy of the weights to 1; "base" is 2 - progress.
        ess_threshold: share of the particles, in [0, 1].
        early_phase: share of the run, in [0, 1].

    Returns:
        (...) temperatures; 1 for a single particle.
    """
    progress = np.asarray(progress, dtype=np.float64)
    shares = softmax(log_weights)
    n = np.isfinite(log_weights).sum(-1)
    size = effective_sample_size(shares)
    match mode:
        case "ess":
            tau = n / size * (1 - progress)
        case "entropy":
            logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
            entropy = -(shares * logs).sum(-1) / np.log(np.maximum(n, 2))
            with np.errstate(divide="ignore"):
                tau = 1 / (entropy + (1 - entropy) * progress)
        case "base":
            tau = 2 - progress
    collapsed = (n > 1) & (size / n < ess_threshold) & (progress < early_phase)
    return np.where(collapsed, np.maximum(tau, 1.0), 1.0)


def first_stage(log_weights: ArrayLike, peeks: ArrayLike) -> NDArray[np.float64]:
    """Log-weights (..., n) for the lottery, from those of the particles and the rewards of their peeked next steps."""
    return np.asarray(log_weights, dtype=np.float64) + log_odds(peeks)


def second_stage(rewards: ArrayLike, peeks: ArrayLike) -> NDArray[np.float64]:
    """Log-weights (..., n) of particles that won a lottery of the first stage and have really taken a step.

    Args:
        rewards: (..., n) of that step.
        peeks: (..., n) reward of the step that was peeked for their parent and thrown away, in the lottery that they
            won. It is taken out again; else the look-ahead would count twice.
    """
    return log_odds(rewards) - log_odds(peeks)


class LookAhead:
    """A particle filter that samples one next step of every open particle before the lottery, and throws it away.

    The peek of a finished particle is itself; where a peek or its reward is missing, the particle's own reward stands
    for it.

    Args:
        allot: (log-weights, level) -> copies of the particles.
        n: particles.
        max_depth: most rounds.
    """

    def __init__(
        self, allot: Callable[[NDArray[np.float64], Level], NDArray[np.int64]], n: int, *, max_depth: int
    ) -> None:
        self._allot = allot
        self._rounds = Rounds(self._modulated, n, max_rounds=max_depth, finishing="compete")
        self._waiting: Sequence[Event] = ()  # a level whose peeks are awaited
        self._peeks: dict[Node, float] = {}

    @property
    def finished(self) -> Sequence[Node]:
        """All that finished, also those of a level that is not drawn from yet."""
        new = [event.node for event in self._waiting if isinstance(event, Grown) and event.node.finished]
        return [*self._rounds.finished, *new]

    def start(self, view: View) -> list[Expand]:
        """N first steps."""
        return self._rounds.start(view)

    def grow(self, view: View, events: Sequence[Event]) -> list[Expand]:
        """Peeks of the particles that came back, or the next level when the peeks are back."""
        if self._waiting:
            for event in events:
                if isinstance(event, Grown) and event.expand.parent and event.node.score is not None:
                    self._peeks[event.expand.parent] = event.node.score
            events, self._waiting = self._waiting, ()
            return self._rounds.grow(view, events)
        grown = [event.node for event in events if isinstance(event, Grown)]
        peeks = [Expand(parent=node, aside=True) for node in grown if not node.finished]
        if not peeks:
            return self._rounds.grow(view, events)
        self._waiting = events
        return peeks

    def _peek(self, node: Node) -> float:
        return self._peeks.get(node, node.rank)

    def _modulated(self, level: Level) -> NDArray[np.int64]:
        log_weights = log_odds(level.scores)
        if level.round > 1:
            # who won the last lottery: the parent, or the particle itself where it had finished before
            winners = [node.parent if node.parent and node.depth == level.round else node for node in level.nodes]
            log_weights = second_stage(level.scores, [self._peek(node) for node in winners])
        return self._allot(first_stage(log_weights, [self._peek(node) for node in level.nodes]), level)


@dataclass(frozen=True, kw_only=True)
class EntropicParticleFilter(StepSearch):
    """A particle filter with systematic resampling whose weights are flattened early on while they collapse.

    The answer is chosen by rewards that are not flattened, among all paths that ever finished.

    Args:
        n: particles (N); at least 1.
        mode: how much it flattens: "ess", "entropy" or "base" (see `annealing`).
        ess_threshold: it flattens where the effective sample size is below this share of n, in [0, 1]; at 0 it is
            the particle filter.
        early_phase: it flattens in this first share of the run, in [0, 1]; at 0 it is the particle filter.
        horizon: steps T that a run is expected to have: the median number of steps of finished answers to such
            questions. If it is far above, weights are flattened to the end; if far below, never.
        lookahead: also weight each open particle by the reward of one more step, which is thrown away; about twice
            the tokens.
        choose: answer with the "best" last reward, or by the "vote" of the finished paths, weighted by it.
        max_depth: most rounds; 1 samples whole answers.
    """

    n: int = 16
    mode: Mode = "ess"
    ess_threshold: float = 0.5
    early_phase: float = 0.5
    horizon: int = 8
    lookahead: bool = False
    choose: Choose = "best"
    max_depth: int = 40

    def __post_init__(self) -> None:
        check(
            self,
            at_least_one=("n", "horizon", "max_step_tokens", "max_depth"),
            shares=("ess_threshold", "early_phase"),
        )

    def allot(self, level: Level) -> NDArray[np.int64]:
        """Copies (k,) of the k particles, finished ones included, by their odds."""
        return self.annealed(log_odds(level.scores), level)

    def annealed(self, log_weights: NDArray[np.float64], level: Level) -> NDArray[np.int64]:
        """Copies (k,) of the k particles by log-weights (k,); the progress is 0 at the first lottery."""
        progress = (level.round - 1) / self.horizon
        tau = annealing(
            log_weights, progress, self.mode, ess_threshold=self.ess_threshold, early_phase=self.early_phase
        )
        u = level.view.at("resample", level.round).random()
        return systematic(softmax(log_weights, float(tau)), level.width, u)

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        """One step of all open particles at a time, and with look-ahead one more to peek at."""
        peeking = self.lookahead and self.n > 1
        await search(
            LookAhead(self.annealed, self.n, max_depth=self.max_depth)
            if peeking
            else Rounds(self.allot, self.n, max_rounds=self.max_depth, finishing="compete"),
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=self.max_step_tokens,
            delimiter=self.delimiter,
            choose=self.choose,
        )
