"""NoThinking: put a finished dummy thought in the model's mouth, and spend the tokens it saves on parallel answers.

Source: Ma et al., Reasoning Models Can Be Effective Without Thinking (2025); the abstract and public repositories that
use it read, not the paper; Borda voting as in the code of Kang et al., Scalable Best-of-N Selection for Large Language
Models via Self-Certainty (2025). Differs: confidence is the mean log-probability of the tokens, since back ends do not
give the whole distributions that self-certainty needs; a sample that is cut off is not made to answer; with a verifier
nothing more is begun once a sample passes.

Pays: for reasoning models under a small budget or deadline; with a large one thinking is better. With a model that
does not reason no difference from the vote was seen (docs/results/selection.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from outthink.errors import BudgetTooSmall
from outthink.maths.selection import codes, numbers
from outthink.meter import Meter
from outthink.model import Draw, Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report, checks
from outthink.strategies.choosing import Chosen, Majority, by_weighted_vote
from outthink.strategies.flight import flight
from outthink.strategies.parallel.borda import borda_votes
from outthink.strategies.parallel.likelihood import mean_logprob
from outthink.strategies.thinking import begin
from outthink.together import each
from outthink.types import Candidate, Message, Part, Problem

THOUGHT = "<think>\nOkay, I think I have finished thinking.\n</think>\n\n"


def without_thinking(messages: tuple[Message, ...], switch: str) -> tuple[Message, ...]:
    """The messages with the switch at the end of the last one."""
    if not switch:
        return messages
    *before, last = messages
    if isinstance(last.content, str):
        return (*before, replace(last, content=f"{last.content} {switch}"))
    return (*before, replace(last, content=(*last.content, Part(text=f" {switch}"))))


@dataclass(frozen=True, kw_only=True)
class NoThinking:
    """n answers without thoughts: the first that the verifier passes, else a vote weighted by confidence.

    Args:
        n: samples drawn; at least 1.
        prefill: what the assistant's turn begins with; it is read as prompt and not billed as written. It belongs to
            the model: where the template of the chat already opens the thought, leave the opening mark out. Empty:
            nothing is put in its mouth, which with an empty switch is the baseline that thinks.
        switch: added to the question, for models that can be told not to think ("/no_think") and back ends that
            cannot continue a text; then leave prefill empty. Models that always think ignore it.
        p: exponent of the Borda votes, at least 0: 0 is the majority, a large one the most confident sample. Where the
            model gives no token logprobs it is the majority.
        threshold: the verifier passes a sample with a score of at least this. A verifier that compares answers with
            each other is asked about all of them together, any other about one after the other until one passes.
        ahead: samples in flight while they are checked one by one.
    """

    n: int = 16
    prefill: str = THOUGHT
    switch: str = ""
    p: float = 0.5
    threshold: float = 0.5
    ahead: int = 4

    @property
    def powers(self) -> frozenset[str]:
        """What the model must be able to do."""
        return frozenset({"prefix"} if self.prefill else ())

    @property
    def at_once(self) -> int:
        """All of them."""
        return self.n

    def __post_init__(self) -> None:
        checks.check(self, at_least_one=("n", "ahead"))
        if not 0 <= self.p < math.inf:
            raise ValueError(f"p must be a number of at least 0, not {self.p}")
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold must be a finite number, not {self.threshold}")

    async def run(
        self, problem: Problem, report: Report, *, model: Model, meter: Meter, verifier: Scores | None = None
    ) -> None:
        """One batch, and the vote; with a verifier one sample after the other, until one passes."""
        draw = Draw(
            n=self.n,
            messages=without_thinking(problem.messages, self.switch),
            after=await begin(model, meter, self.prefill) if self.prefill else None,
            logprobs=self.p > 0 and "logprobs" in model.powers,
        )
        await self._check(problem, draw, model, meter)
        if verifier is not None and not verifier.relative:
            await self._first_passing(problem, report, draw, model, verifier)
            return
        (samples,) = await model.sample_each(problem, [draw])
        chosen, share = await self._vote(samples)
        report(samples, chosen=chosen, confidence=share)
        if verifier is None or chosen is None:
            return
        readable = [sample for sample in samples if sample.key is not None]
        known = dict(zip((one.id for one in readable), await verifier.score(problem, readable), strict=True))
        scores = [known.get(sample.id) for sample in samples]
        passing = (
            one for one, score in zip(samples, scores, strict=True) if score is not None and score >= self.threshold
        )
        chosen = next(passing, chosen)
        report(samples, chosen=chosen, scores=scores, confidence=_share(chosen, samples))

    async def _first_passing(
        self, problem: Problem, report: Report, draw: Draw, model: Model, verifier: Scores
    ) -> None:
        """Check samples in the order in which they were begun, and leave the rest as soon as one passes."""
        samples: list[Candidate] = []
        scores: list[float | None] = []
        majority = Majority()
        async with flight(model.draws(problem, draw), self.n, self.ahead) as flying:
            while (sample := await flying.next()) is not None:
                chosen, _ = majority.add(sample)
                samples.append(sample)
                scores += (None,) if sample.key is None else await verifier.attempt(problem, [sample])
                passed = (score := scores[-1]) is not None and score >= self.threshold
                chosen = sample if passed else chosen
                report(samples, chosen=chosen, scores=scores, confidence=_share(chosen, samples), fixed=passed)
                if passed:
                    return
        if samples:
            chosen, _ = await self._vote(samples)
            report(samples, chosen=chosen, scores=scores, confidence=_share(chosen, samples))

    async def _vote(self, samples: Sequence[Candidate]) -> Chosen:
        keys = codes([sample.key for sample in samples])
        votes = borda_votes(keys, numbers(await each(mean_logprob, samples)), self.p)
        return by_weighted_vote(samples, [None if math.isnan(vote) else float(vote) for vote in votes])

    async def _check(self, problem: Problem, draw: Draw, model: Model, meter: Meter) -> None:
        """Refuse a budget that has room for a sample, but not with what it begins with."""
        worst = await model.bound(problem, draw)
        for unit, room in meter.left().items():
            if worst.get(unit, 0.0) > room * (1 + 1e-9):
                raise BudgetTooSmall(
                    f"One sample with its prefill can cost {worst[unit]:.12g} {unit}, more than the budget of "
                    f"{room:.12g}: allow at least {worst[unit]:.12g} {unit}, or lower max_tokens."
                )


def _share(chosen: Candidate | None, samples: Sequence[Candidate]) -> float:
    """The share of the readable answers that are the chosen one."""
    readable = [sample.key for sample in samples if sample.key is not None]
    return sum(key == chosen.key for key in readable) / len(readable) if chosen is not None else 0.0
