"""Revision chains: every attempt sees the ones before it, and the answer is chosen among all attempts.

Source: Snell et al., Scaling LLM Test-Time Compute Optimally (2024), notes and excerpts read. Differs: the model is
prompted, not finetuned for revision; the prompt is ours; attempts of all chains advance together, one turn at a time;
chains may end early. Which ratio pays, by difficulty, is left to whoever compares.

Pays: where the model can find its own errors. A 0.5B model could not: the vote's accuracy at 3.3 times its tokens on
sums (docs/results/selection.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from outthink.errors import MissingResource, OutthinkError
from outthink.model import Draw, Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.prompting import added, numbered, said_by
from outthink.strategies.sequential.chains import Selector, check_chains, ended, grow, lengths, select
from outthink.types import Candidate, Message, Problem

_PROMPT = (
    "Earlier attempts, which may be wrong:\n\n{attempts}\n\n"
    "Find the first error in them, if there is one. Then write a complete new solution in the form asked for above."
)


def revision_prompt(problem: Problem, attempts: Sequence[str]) -> tuple[Message, ...]:
    """The problem's messages with the earlier attempts, oldest first, added to the last one."""
    if not attempts:
        return problem.messages
    return added(problem, _PROMPT.format(attempts=numbered("Attempt", attempts)))


@dataclass(frozen=True, kw_only=True)
class Revision:
    """n attempts in chains, each of which sees the attempts before it in its chain.

    Args:
        n: attempts of all chains together; at least 1.
        ratio: length of a chain to number of chains, from 0 (n chains of one attempt: parallel sampling) to infinity
            (one chain). 2 makes 2 chains of 4 from 8 attempts, 1 makes 4 of 4 from 16.
        context: most recent attempts shown to the next one (k); the paper uses 4.
        selector: "majority", "weighted_vote", "best" (both need a verifier), or "last" (of the first chain that
            has a valid one); "" takes weighted_vote where there is a verifier, else majority.
        hierarchical: select inside each chain first, then among the chains' winners.
        patience: a chain ends when so many attempts in a row have the answer of the one before; 0: never.
        threshold: a chain ends with an attempt that the verifier gives at least this score; None: never.
    """

    n: int = 8
    ratio: float = 2.0
    context: int = 4
    selector: Selector | Literal[""] = ""
    hierarchical: bool = False
    patience: int = 0
    threshold: float | None = None

    @property
    def at_once(self) -> int:
        """One attempt of each chain."""
        return len(lengths(self.n, self.ratio))

    def __post_init__(self) -> None:
        check_chains(self)
        if self.context < 1:
            raise ValueError(f"context must be at least 1, not {self.context}")

    @property
    def first(self) -> tuple[Draw, ...]:
        """How its first samples are drawn: one for each chain."""
        return (Draw(n=self.at_once),)

    @property
    def votes(self) -> bool:
        """Whether equal answers are what it goes by; where there is a verifier, its scores may count."""
        return self.selector in ("", "majority")

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores | None = None) -> None:
        """Reports after every turn."""
        selector = self.selector or ("majority" if verifier is None else "weighted_vote")
        if verifier is None and (selector in ("weighted_vote", "best") or self.threshold is not None):
            what = f"selector {selector}" if self.threshold is None else "threshold"
            raise MissingResource(f"The {what} needs a verifier: pass verifier=..., or --verifier NAME.")
        scores: dict[str, float | None] = {}

        async def attempt(number: int, chain: list[Candidate]) -> Candidate | OutthinkError:
            return await self._attempt(problem, model.lane("chain", number), chain)

        async def seen(chains: list[list[Candidate]], new: list[Candidate]) -> set[int]:
            attempts = [one for chain in chains for one in chain]
            if verifier is not None:
                scores.update(zip((one.id for one in new), await verifier.score(problem, new), strict=True))
            chosen, share = select(chains, scores, selector, self.hierarchical)
            known = None if verifier is None else [scores[one.id] for one in attempts]
            report(attempts, chosen=chosen, confidence=share, scores=known)
            return ended(chains, scores, patience=self.patience, threshold=self.threshold)

        await grow(lengths(self.n, self.ratio), attempt, seen)

    async def _attempt(self, problem: Problem, model: Model, chain: Sequence[Candidate]) -> Candidate | OutthinkError:
        shown = chain[-self.context :]
        # the first attempt is a sample like any other
        messages = revision_prompt(problem, [*(await said_by(shown)).values()]) if shown else None
        try:
            return (await model.sample(problem, messages=messages, parents=tuple(shown)))[0]
        except OutthinkError as failure:
            return failure  # this chain ends here (budget, failure, or a prompt too long), the others go on
