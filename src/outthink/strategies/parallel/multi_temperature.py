"""Multi-temperature voting: spread the samples over temperatures, and stop early where all temperatures agree.

Source: On the Role of Temperature Sampling in Test-Time Scaling (2025); the abstract, notes by readers of the full
text, reviews and a third-party scaffold read, not the paper. Differs: the paper leaves hard questions to an oracle,
here the verifier decides them, else a vote of the temperatures' leaders, each with its own votes; agreement of so few
samples that it means nothing does not count (`n_min`); unreadable answers have no part in it.

The gains the paper reports are in coverage: how often some sample is right, at a thousand samples per temperature.

Pays: with a verifier and many samples, since it widens coverage. With a vote over few it was 34 points below the vote
at equal tokens on sums (docs/results/selection.md).
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import BudgetExhausted, EngineError
from outthink.maths.selection import Selected, codes, first_by, majority
from outthink.model import Draw, Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_best
from outthink.strategies.flight import Flight, flight
from outthink.together import together
from outthink.types import Candidate, Problem


def agreement(
    keys: ArrayLike,
    least: ArrayLike,
    tau_intra: float = 0.8,
    tau_cross: float = 1.0,
) -> NDArray[np.bool_]:
    """Whether (...) the temperatures agree: each is confident in its leading answer, and so are they together.

    Args:
        keys: (..., m, n) answers by temperature; -1 is INVALID or not drawn.
        least: (m,) readable answers without which a temperature is not confident.
        tau_intra: share of its readable answers that the leader of a confident temperature has.
        tau_cross: share of the leaders that the leading leader has.
    """
    keys = np.asarray(keys, np.intp)
    leading = majority(keys)
    confident = ((keys >= 0).sum(-1) >= np.maximum(least, 1)) & (leading.share >= tau_intra)
    return np.asarray(confident.all(-1) & (majority(_answers(keys, leading)).share >= tau_cross))


def vote_of_temperatures(
    keys: ArrayLike, *, lengths: ArrayLike | None = None, drawn: ArrayLike | None = None
) -> Selected:
    """The majority of the temperatures' leaders, each with its own votes; the index counts along (m * n).

    A leader that has few samples behind it weighs little, however sure its temperature is: a single sample at
    temperature 0 is one vote. Where all temperatures have as many readable samples, leaders weigh as their shares do.

    Ties go to the answer with more samples in all, then to the lower temperature. `share` is the chosen answer's votes
    where it leads, over all samples of the temperatures that have an answer.

    Args:
        keys: (..., m, n) answers by temperature, the lowest first; -1 is INVALID or not drawn.
        lengths: (..., m, n) tokens.
        drawn: (..., m) samples at each temperature, unreadable ones included; None: n.
    """
    keys = np.asarray(keys, np.intp)
    m, n = keys.shape[-2:]
    leading = majority(keys, lengths=lengths)
    answers = _answers(keys, leading)
    votes = np.where(answers >= 0, (keys == answers[..., None]).sum(-1), 0)
    same = (answers[..., :, None] == answers[..., None, :]) & (answers >= 0)[..., None, :]
    total = (same * votes[..., None, :]).sum(-1)
    pooled = np.stack([(answers[..., row, None, None] == keys).sum((-1, -2)) for row in range(m)], axis=-1)
    winner = first_by(answers >= 0, total, pooled)
    place = np.maximum(winner, 0)[..., None]
    index = winner * n + np.take_along_axis(leading.index, place, -1)[..., 0]
    size = np.where(answers >= 0, np.broadcast_to(n if drawn is None else np.asarray(drawn), answers.shape), 0)
    share = np.take_along_axis(total, place, -1)[..., 0] / np.maximum(size.sum(-1), 1)
    return Selected(np.where(winner >= 0, index, -1), np.where(winner >= 0, share, 0.0))


def _answers(keys: NDArray[np.intp], leading: Selected) -> NDArray[np.intp]:
    """The leading answer (..., m) of each temperature; -1 where there is none."""
    leader = np.take_along_axis(keys, np.maximum(leading.index, 0)[..., None], -1)[..., 0]
    return np.where(leading.index >= 0, leader, -1)


@dataclass(frozen=True, kw_only=True)
class MultiTemperature:
    """Rounds of one sample at every temperature, until all temperatures are confident of the same answer.

    Args:
        temperatures: at least 0 and not falling; the same one may be given several times, but 0 only once, since its
            samples are all the same: it takes one, in the first round. The default is the paper's without 0.1 to 0.3,
            which find nothing new.
        n: most samples at each temperature; at least 1.
        tau_intra: share of a temperature's answers that makes it confident.
        tau_cross: share of the temperatures' leading answers that ends it; 1: all the same.
        n_min: readable answers that a temperature must have to be confident; 1 is the rule as written, by which one
            unanimous round ends it.
        ahead: samples in flight at each temperature; the decision does not depend on it. What is in flight at the
            stop is cancelled and charged.
    """

    own_temperature: ClassVar[bool] = True  # it says itself at which temperature it samples
    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    votes: ClassVar[bool] = True  # equal answers are what it goes by

    temperatures: tuple[float, ...] = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
    n: int = 8
    tau_intra: float = 0.8
    tau_cross: float = 1.0
    n_min: int = 4
    ahead: int = 4

    @property
    def at_once(self) -> int:
        """A round: one sample of each temperature."""
        return len(self.temperatures)

    def __post_init__(self) -> None:
        given = self.temperatures
        if not given or not all(0 <= one < math.inf for one in given) or list(given) != sorted(given):
            raise ValueError("temperatures must be numbers of at least 0, from the lowest to the highest")
        if given.count(0) > 1:
            raise ValueError("temperature 0 must be given once only: its samples are all the same")
        check(self, at_least_one=("n", "n_min", "ahead"))
        for name in ("tau_intra", "tau_cross"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {getattr(self, name)}")

    @property
    def first(self) -> tuple[Draw, ...]:
        """How its first samples are drawn."""
        return tuple(Draw(n=self.n if temperature else 1, temperature=temperature) for temperature in self.temperatures)

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores | None = None) -> None:
        """The vote of the temperatures after every round; if they never agree, the verifier may have the last word."""
        pools: list[list[Candidate]] = [[] for _ in self.temperatures]
        least = [1 if temperature == 0 else self.n_min for temperature in self.temperatures]
        failure: Exception | None = None
        async with contextlib.AsyncExitStack() as stack:
            flights = [
                await stack.enter_async_context(
                    flight(
                        model.draws(problem, Draw(temperature=temperature)),
                        1 if temperature == 0 else self.n,
                        self.ahead,
                    )
                )
                for temperature in self.temperatures
            ]
            for _ in range(self.n):
                drawn = await together(*(_next(flying) for flying in flights))
                for pool, sample in zip(pools, drawn, strict=True):
                    if isinstance(sample, Candidate):
                        pool.append(sample)
                    failure = sample if isinstance(sample, Exception) else failure
                if not any(isinstance(sample, Candidate) for sample in drawn):
                    break
                keys, lengths = _table(pools)
                samples = [sample for pool in pools for sample in pool]
                choice = vote_of_temperatures(keys, lengths=lengths, drawn=[len(pool) for pool in pools])
                agree = bool(agreement(keys, least, self.tau_intra, self.tau_cross))
                chosen, share = _at(pools, choice, keys.shape[-1]), float(choice.share)
                report(samples, chosen=chosen, confidence=share, fixed=agree)
                if agree:
                    await together(*(flying.cancel() for flying in flights))
                    return
        if failure is not None and not any(pools):
            raise failure
        if verifier is not None:
            samples = [sample for pool in pools for sample in pool]
            readable = [sample for sample in samples if sample.key is not None]
            by_id = dict(zip((one.id for one in readable), await verifier.score(problem, readable), strict=True))
            scores = [by_id.get(sample.id) for sample in samples]
            if any(score is not None for score in scores):
                chosen, share = by_best(samples, scores)
                report(samples, chosen=chosen, scores=scores, confidence=share)


async def _next(flying: Flight) -> Candidate | Exception | None:
    """The next sample; what made all of this temperature fail is no reason to lose the others."""
    try:
        return await flying.next()
    except (BudgetExhausted, EngineError) as failure:
        return failure


def _table(pools: list[list[Candidate]]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Keys and lengths (m, n) of the pools; -1 fills the shorter ones."""
    seen = codes([sample.key for pool in pools for sample in pool])
    width = max(len(pool) for pool in pools)
    keys = np.full((len(pools), width), -1, dtype=np.intp)
    lengths = np.zeros(keys.shape)
    start = 0
    for row, pool in enumerate(pools):
        keys[row, : len(pool)] = seen[start : start + len(pool)]
        lengths[row, : len(pool)] = [sample.tokens for sample in pool]
        start += len(pool)
    return keys, lengths


def _at(pools: list[list[Candidate]], choice: Selected, width: int) -> Candidate | None:
    index = int(choice.index)
    return pools[index // width][index % width] if index >= 0 else None
