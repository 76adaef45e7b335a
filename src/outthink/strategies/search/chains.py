"""Markov chains over whole texts: a move keeps a random beginning of the text and samples the rest anew.

Source: the proposal of QUEST and QAlign (Faria & Smith, arXiv 2504.03790), read in the released code of both. Differs:
cuts may be at multiples of a block only; a text without a score is never moved to, and a proposal that failed is no
step.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import NothingCameBack
from outthink.maths.selection import best_of, codes, numbers, weighted_vote
from outthink.model import Draw, Model
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.choosing import pick
from outthink.together import together
from outthink.types import Candidate, Problem

_CLAMP = 20.0  # largest size of the log of a ratio of acceptance

Score = Callable[[Sequence[Candidate]], Awaitable[Sequence[float | None]]]


def log_acceptance(
    reward: ArrayLike, proposed: ArrayLike, cuts: ArrayLike, proposed_cuts: ArrayLike, beta: ArrayLike
) -> NDArray[np.float64]:
    """Log of the ratio of acceptance (...,): the proposal is moved to with probability min(1, exp of it).

    The ratio is exp((proposed - reward) / beta) cuts / proposed_cuts. The cuts are there because a text that can be cut
    in more places is cut in each of them more rarely; the model's own probabilities are in the proposal as in the
    target, and cancel.

    Args:
        reward, proposed: (...,) rewards of the present text and of the proposal. NaN is missing: such a proposal is
            never moved to, and from such a text any other proposal is.
        cuts, proposed_cuts: (...,) places at which each can be cut; where that is every token, its tokens with the end.
        beta: (...,) above 0, infinity included.
    """
    old, new = np.asarray(reward, float), np.asarray(proposed, float)
    with np.errstate(over="ignore"):
        gain = (new - old) / beta + np.log(cuts) - np.log(proposed_cuts)
    known = np.where(np.isnan(old), _CLAMP, np.clip(gain, -_CLAMP, _CLAMP))
    return np.where(np.isnan(new), -np.inf, known)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ChainState:
    """A text that a chain is at.

    Args:
        reward: its score; None where it is missing.
        length: its tokens, the end token included.
    """

    candidate: Candidate
    reward: float | None
    length: int


class Chains:
    """Chains of one problem, numbered by their first samples; each has its own lane and its own random numbers.

    Args:
        name: of the method, for the random numbers.
        score: rewards of texts, one batch.
        draw: how proposals are sampled; what they continue, their cap and lane are set here.
        block: cuts are at multiples of so many tokens; at least 1.
    """

    def __init__(
        self, name: str, problem: Problem, model: Model, rng: Rng, score: Score, draw: Draw, block: int = 1
    ) -> None:
        self.states: dict[int, ChainState] = {}
        self._name = name
        self._problem = problem
        self._model = model
        self._rng = rng
        self._score = score
        self._draw = draw
        self._block = block

    async def start(self, samples: Sequence[Candidate], most: int) -> None:
        """Put each chain at its first sample; `most` is the cap that those were drawn with."""
        for sample, reward in zip(samples, await self._score(samples), strict=True):
            length = _length(0, sample, most)
            self.states[int(sample.address[-1])] = ChainState(candidate=sample, reward=reward, length=length)

    async def move(self, step: int, betas: Mapping[int, float], most: int) -> list[int]:
        """One step of each chain that has a beta, one batch; those whose proposal did not fail, so that it counts.

        Args:
            step: its number, for the random numbers.
            most: tokens of a whole text.
        """
        random = {chain: self._rng.at(self._name, chain, step) for chain in betas}
        keeps = {chain: self._block * int(random[chain].integers(self._cuts(self.states[chain]))) for chain in betas}
        cuts = await together(*(self._model.cut(self.states[chain].candidate, keep) for chain, keep in keeps.items()))
        new = await self._written(dict(zip(keeps, cuts, strict=True)), keeps, most)
        for chain, state in new.items():
            old = self.states[chain]
            reward, proposed = numbers([old.reward, state.reward])
            ratio = log_acceptance(reward, proposed, self._cuts(old), self._cuts(state), betas[chain])
            if random[chain].random() < math.exp(ratio):
                self.states[chain] = state
        return [*new]

    async def extend(self, chains: Sequence[int], most: int) -> None:
        """Write some texts on, each until it ends or has `most` tokens; one that failed stays as it is."""
        texts = {chain: self.states[chain].candidate for chain in chains}
        self.states |= await self._written(texts, {chain: self.states[chain].length for chain in chains}, most)

    async def _written(
        self, texts: Mapping[int, Candidate], keeps: Mapping[int, int], most: int
    ) -> dict[int, ChainState]:
        """What continues each text, which has so many tokens already; nothing where the whole batch failed."""
        draws = [
            Draw(
                after=text,
                max_tokens=most - keeps[chain],
                lane=("chain", chain),
                temperature=self._draw.temperature,
                logprobs=self._draw.logprobs,
            )
            for chain, text in texts.items()
        ]
        try:
            drawn = await self._model.sample_each(self._problem, draws)
        except NothingCameBack:
            return {}  # the chains stay where they are, and try again
        new = {chain: children[0] for chain, children in zip(texts, drawn, strict=True) if children}
        rewards = await self._score([*new.values()])
        return {
            chain: ChainState(candidate=sample, reward=reward, length=_length(keeps[chain], sample, most))
            for (chain, sample), reward in zip(new.items(), rewards, strict=True)
        }

    def _cuts(self, state: ChainState) -> int:
        return -(-state.length // self._block)


def report_states(
    report: Report, states: Sequence[ChainState], weights: Sequence[float], *, highest: bool = False
) -> None:
    """Report texts that chains were at, with their rewards; the answer is that of the heaviest, or the best reward's.

    Args:
        weights: of each text; where all are 0 it is a plain majority.
        highest: choose the highest reward, where there is any.
    """
    keys = codes([state.candidate.key for state in states])
    rewards, lengths = numbers([state.reward for state in states]), [state.length for state in states]
    if highest and not np.isnan(rewards).all():
        choice = best_of(keys, rewards, lengths=lengths)
    else:
        choice = weighted_vote(keys, weights, lengths=lengths)
    candidates = [state.candidate for state in states]
    chosen, share = pick(candidates, choice)
    report(candidates, chosen=chosen, scores=[state.reward for state in states], confidence=share)


def _length(kept: int, sample: Candidate, most: int) -> int:
    """Tokens of a text whose last piece is `sample`: those kept, those written, and the end token."""
    return min(kept + len(sample.token_ids or ()) + (sample.finish == "eos"), most)
