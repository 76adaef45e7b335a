"""QAlign: Markov chains over whole answers that keep a random beginning and write the rest anew; a vote over the chain.

Source: Faria & Smith, Sample, Don't Search (arXiv 2504.03790); the abstract, the authors' experiment scripts and the
proposal in quest-decoding read, not the paper's text. Differs: several chains can be run side by side and pooled. A
text without a score is never moved to, and a proposal that failed is no step. Minimum Bayes risk is by chrF where the
authors take ROUGE-1. By default there are far fewer steps than the 1024 of the experiments.

Pays: where a score has rare flaws that best_of_n would find. One chain is slow; compare it by tokens, not by steps.
On sums with a small probe four chains could not be told from the vote (docs/results/search.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from outthink.answers.thoughts import spoken
from outthink.model import Draw, Model
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_best, by_majority
from outthink.strategies.parallel.mbr import text_utilities
from outthink.strategies.search.chains import Chains, ChainState, report_states
from outthink.together import away
from outthink.types import Problem

Choose = Literal["vote", "best", "last", "mbr"]


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
            the last text of each; "best", the highest reward; "mbr", in the end the text that is most like all texts
            of the chains, repeats included, for answers that are rarely equal.
        block: texts are cut at multiples of so many tokens; at least 1.
    """

    powers: ClassVar[frozenset[str]] = frozenset({"prefix", "tokens"})  # what the model must be able to do

    steps: int = 32
    chains: int = 1
    beta: float = 0.5
    burn_in: int = 0
    choose: Choose = "vote"
    block: int = 1

    def __post_init__(self) -> None:
        check(self, at_least_one=("chains", "block"), above_zero=("beta",))
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, not {self.steps}")
        if not 0 <= self.burn_in <= self.steps:
            raise ValueError(f"burn_in must be from 0 to steps ({self.steps}), not {self.burn_in}")

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores, rng: Rng) -> None:
        """The chains go in step, each step is one batch, and after each the answer is reported."""
        most = model.sampling.cap
        samples = await model.sample(problem, self.chains)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        chains = Chains("qalign", problem, model, rng, partial(verifier.attempt, problem), Draw(), self.block)
        await chains.start(samples, most)
        visits = Counter(chains.states.values())
        self._report(report, chains, visits)
        for step in range(1, self.steps + 1):
            went = await chains.move(step, dict.fromkeys(chains.states, self.beta), most)
            if not went:
                continue
            if step <= self.burn_in:
                visits.clear()
            visits.update(chains.states[chain] for chain in (chains.states if step <= self.burn_in else went))
            self._report(report, chains, visits)
        if self.choose == "mbr":
            await _report_by_likeness(report, model, visits)

    def _report(self, report: Report, chains: Chains, visits: Mapping[ChainState, int]) -> None:
        """Reports each text once, in the order in which they were first visited, with its reward."""
        weights = Counter(chains.states.values()) if self.choose == "last" else visits
        states = [*visits]
        report_states(report, states, [weights[state] for state in states], highest=self.choose == "best")


async def _report_by_likeness(report: Report, model: Model, visits: Mapping[ChainState, int]) -> None:
    """Reports the text with the highest mean chrF against the other visits, those of the same text included."""
    states = [state for state in visits if state.candidate.key is not None]
    texts: list[str] = []
    for state in states:
        texts += [spoken(model.text(state.candidate))] * visits[state]
    utilities = await away(sum(map(len, texts)), text_utilities, texts, len(texts))
    scores: dict[ChainState, float | None] = {}
    first = 0
    for state in states:
        scores[state] = None if math.isnan(utilities[first]) else float(utilities[first])
        first += visits[state]
    candidates, known = [state.candidate for state in visits], [scores.get(state) for state in visits]
    chosen, share = by_best(candidates, known)
    report(candidates, chosen=chosen, scores=known, confidence=share)
