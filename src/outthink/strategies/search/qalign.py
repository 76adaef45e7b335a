"""QAlign: Markov chains over whole answers that keep a random beginning and write the rest anew; a vote over the chain.

Source: Faria & Smith, Sample, Don't Search (arXiv 2504.03790); the abstract, the authors' experiment scripts and the
proposal in quest-decoding read, not the paper's text. Differs: several chains can be run side by side and pooled. A
text without a score is never moved to, and a proposal that failed is no step. Open-ended answers are not chosen by
minimum Bayes risk. By default there are far fewer steps than the 1024 of the experiments.

Pays: where a score has rare flaws that best_of_n would find. One chain is slow; compare it by tokens, not by steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import NothingCameBack
from outthink.maths.selection import best_of, codes, numbers, weighted_vote
from outthink.model import Draw, Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.choosing import by_majority, pick
from outthink.together import together
from outthink.types import Candidate, Problem

_CLAMP = 20.0  # largest size of the log of a ratio of acceptance

Choose = Literal["vote", "best", "last"]


def log_acceptance(
    reward: ArrayLike, proposed: ArrayLike, length: ArrayLike, proposed_length: ArrayLike, beta: float
) -> NDArray[np.float64]:
    """Log of the ratio of acceptance (...,): the proposal is moved to with probability min(1, exp of it).

    The ratio is exp((proposed - reward) / beta) length / proposed_length. The lengths are there because a text of more
    tokens is cut at each of them more rarely; the model's own probabilities are in the proposal as in the target, and
    cancel.

    Args:
        reward, proposed: (...,) rewards of the present text and of the proposal. NaN is missing: such a proposal is
            never moved to, and from such a text any other proposal is.
        length, proposed_length: (...,) tokens of both, the end token included.
        beta: above 0.
    """
    old, new = np.asarray(reward, float), np.asarray(proposed, float)
    with np.errstate(over="ignore"):
        gain = (new - old) / beta + np.log(length) - np.log(proposed_length)
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


@dataclass(frozen=True, kw_only=True)
class QAlign:
    """Chains whose texts become distributed as p(text) exp(reward / beta), p being the model as it is sampled.

    Each step of a chain cuts its text at a random token, samples the rest anew, and moves to the result with the
    probability of Metropolis and Hastings; else it stays, and its text counts again. A text that was cut off at
    `max_tokens` is a text like any other, but has no answer. Costs one sample and `steps` times about half of one a
    chain, and a score of the whole text each time.

    Args:
        steps: proposals of each chain (T); 0 is plain sampling.
        chains: independent chains, drawn side by side; each pays for its own way from its first sample.
        beta: temperature of the reward, in its units, above 0: a very large one samples the model itself, a small one
            climbs towards the highest reward.
        burn_in: first texts of each chain that do not count, at most `steps`.
        choose: "vote", the most frequent answer over all texts of the chains, repeats included; "last", the same over
            the last text of each; "best", the highest reward.
    """

    powers: ClassVar[frozenset[str]] = frozenset({"prefix", "tokens"})  # what the model must be able to do

    steps: int = 32
    chains: int = 1
    beta: float = 0.5
    burn_in: int = 0
    choose: Choose = "vote"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, not {self.steps}")
        if self.chains < 1:
            raise ValueError(f"chains must be at least 1, not {self.chains}")
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta must be a number above 0, not {self.beta}")
        if not 0 <= self.burn_in <= self.steps:
            raise ValueError(f"burn_in must be from 0 to steps ({self.steps}), not {self.burn_in}")
        if self.choose not in get_args(Choose):
            raise ValueError(f"choose must be one of {', '.join(get_args(Choose))}, not {self.choose}")

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores, rng: Rng) -> None:
        """The chains go in step, each step is one batch, and after each the answer is reported."""
        most = model.sampling.cap
        samples = await model.sample(problem, self.chains)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        chains = {
            int(sample.address[-1]): ChainState(candidate=sample, reward=reward, length=_length(0, sample, most))
            for sample, reward in zip(samples, await verifier.attempt(problem, samples), strict=True)
        }
        visits = Counter(chains.values())
        self._report(report, chains, visits)
        for step in range(1, self.steps + 1):
            random = {chain: rng.at("qalign", chain, step) for chain in chains}
            keeps = {chain: int(random[chain].integers(state.length)) for chain, state in chains.items()}
            cuts = await together(*(model.cut(chains[chain].candidate, keep) for chain, keep in keeps.items()))
            draws = [
                Draw(after=cut, max_tokens=most - keep, lane=("chain", chain))
                for cut, (chain, keep) in zip(cuts, keeps.items(), strict=True)
            ]
            try:
                drawn = await model.sample_each(problem, draws)
            except NothingCameBack:
                continue  # the chains stay where they are, and try again
            new = {chain: children[0] for chain, children in zip(chains, drawn, strict=True) if children}
            rewards = await verifier.attempt(problem, list(new.values()))
            for (chain, sample), reward in zip(new.items(), rewards, strict=True):
                state = ChainState(candidate=sample, reward=reward, length=_length(keeps[chain], sample, most))
                if random[chain].random() < self._acceptance(chains[chain], state):
                    chains[chain] = state
            if step <= self.burn_in:
                visits.clear()
            visits.update(chains[chain] for chain in (chains if step <= self.burn_in else new))
            self._report(report, chains, visits)

    def _acceptance(self, old: ChainState, new: ChainState) -> float:
        reward, proposed = numbers([old.reward, new.reward])
        return math.exp(log_acceptance(reward, proposed, old.length, new.length, self.beta))

    def _report(self, report: Report, chains: Mapping[int, ChainState], visits: Mapping[ChainState, int]) -> None:
        """Reports each text once, in the order in which they were first visited, with its reward."""
        states = list(visits)
        keys = codes([state.candidate.key for state in states])
        rewards, lengths = numbers([state.reward for state in states]), [state.length for state in states]
        if self.choose == "best" and not np.isnan(rewards).all():
            choice = best_of(keys, rewards, lengths=lengths)
        else:
            weights = Counter(chains.values()) if self.choose == "last" else visits
            choice = weighted_vote(keys, [weights[state] for state in states], lengths=lengths)
        candidates = [state.candidate for state in states]
        chosen, share = pick(candidates, choice)
        report(candidates, chosen=chosen, scores=[state.reward for state in states], confidence=share)


def _length(kept: int, sample: Candidate, most: int) -> int:
    """Tokens of a text whose last piece is `sample`: those kept, those written, and the end token."""
    return min(kept + len(sample.token_ids or ()) + (sample.finish == "eos"), most)
