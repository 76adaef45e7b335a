"""Power sampling: a Markov chain over texts that settles on p(text)^alpha, block by block; no verifier.

Source: Karan & Du, Reasoning with Sampling: Your Base Model is Smarter Than You Think (arXiv 2510.14901); its abstract
and a copy of the authors' code read, not the paper. Differs: proposals are sampled at temperature 1 and not at
1 / alpha, because engines tell logprobs before temperature only; a text that can be cut in more places is cut in each
more rarely, and the ratio of acceptance says so (the code leaves that out); the end mark counts once and not alpha
times, because its logprob is not told; several chains can be run, whose last texts vote; 4 blocks and not 16.

Pays: where right answers are the more probable texts and there is nothing that scores. A chain is slow; compare it by
tokens with perplexity_consistency, which weighs whole samples by the same probabilities. On sums it was 10 points below
the vote at equal tokens, with a 0.5B model (docs/results/selection.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from outthink.errors import UsageError
from outthink.model import Draw, Model
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority
from outthink.strategies.search.chains import Chains, ChainState, report_states
from outthink.together import each
from outthink.types import Candidate, Problem

_PROPOSAL = Draw(temperature=1.0, logprobs=True)


@dataclass(frozen=True, kw_only=True)
class PowerSampling:
    """Chains whose texts become distributed as p(text)^alpha, p being the model at temperature 1.

    The cap of an answer is shared out to blocks. A text is written on by a block, then moved `steps` times among the
    texts of up to that length: it is cut at a random token, the rest is sampled anew, and the result taken with the
    probability of Metropolis and Hastings. One that has ended after that is done. The answer is the text that the chain
    is at in the end. Costs per block about half of the text `steps` times, one call after the other.

    Args:
        alpha: the power, at least 1: 1 is plain sampling, a very large one climbs to the most probable text.
        steps: proposals a block; 0 is plain sampling, too.
        blocks: of how many equal parts the cap is; at least 1. With 1 the law is exact in the limit of many steps.
        chains: independent chains, side by side, whose last texts vote.
    """

    powers: ClassVar[frozenset[str]] = frozenset({"prefix", "tokens", "logprobs"})  # what the model must be able to do
    own_temperature: ClassVar[bool] = True  # it says itself at which temperature it samples

    alpha: float = 4.0
    steps: int = 10
    blocks: int = 4
    chains: int = 1

    def __post_init__(self) -> None:
        check(self, at_least_one=("blocks", "chains", "alpha"), at_least_zero=("steps", "alpha"))

    @property
    def votes(self) -> bool:
        """Several chains vote."""
        return self.chains > 1

    @property
    def first(self) -> tuple[Draw, ...]:
        """Whole samples where there is one block."""
        return () if self.blocks > 1 else (replace(_PROPOSAL, n=self.chains),)

    async def run(self, problem: Problem, report: Report, *, model: Model, rng: Rng) -> None:
        """The chains go in step, each step is one batch, and after each the answer is reported."""
        if model.sampling.top_p < 1:
            raise UsageError("power_sampling needs the probabilities that the model samples by: leave top_p at 1.")

        async def logprobs(texts: Sequence[Candidate]) -> list[float | None]:
            return await each(lambda text: log_probability(model.path(text)), texts)

        cap = model.sampling.cap
        blocks = min(self.blocks, cap)  # of a token at least
        limits = [-(-cap * part // blocks) for part in range(1, blocks + 1)]
        samples = await model.sample(
            problem, self.chains, temperature=_PROPOSAL.temperature, max_tokens=limits[0], logprobs=True
        )
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        chains = Chains("power_sampling", problem, model, rng, logprobs, _PROPOSAL)
        await chains.start(samples, limits[0])
        beta = 1 / (self.alpha - 1) if self.alpha > 1 else math.inf
        visited: dict[ChainState, None] = {}
        for part, limit in enumerate(limits):
            going = [chain for chain, state in chains.states.items() if part == 0 or _open(state)]
            if not going:
                break
            for step in range(self.steps + 1):
                if step:
                    await chains.move(part * self.steps + step, dict.fromkeys(going, beta), limit)
                elif part:
                    await chains.extend(going, limit)
                visited |= dict.fromkeys(chains.states.values())
                self._report(report, chains, visited)

    def _report(self, report: Report, chains: Chains, visited: Iterable[ChainState]) -> None:
        last = Counter(chains.states.values())
        states = [*visited]
        report_states(report, states, [last[state] for state in states])


def log_probability(path: Sequence[Candidate]) -> float | None:
    """The sum of the logprobs of all tokens of a text, given by its segments; None where one is missing."""
    parts = [segment.logprobs for segment in path]
    return None if None in parts else math.fsum(value for part in parts for value in part or ())


def _open(state: ChainState) -> bool:
    """Whether the text has not ended."""
    return state.candidate.finish == "length"
