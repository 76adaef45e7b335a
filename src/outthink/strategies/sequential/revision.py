"""Revision chains: every attempt sees the ones before it, and the answer is chosen among all attempts.

Source: Snell et al., Scaling LLM Test-Time Compute Optimally (2024), notes and excerpts read. Differs: the model is
prompted, not finetuned for revision; the prompt is ours; attempts of all chains advance together, one turn at a time.

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
from outthink.strategies.choosing import Chosen, by_best, by_majority, by_weighted_vote
from outthink.strategies.prompting import added, numbered
from outthink.together import together
from outthink.types import Candidate, Message, Problem

Selector = Literal["majority", "weighted_vote", "best", "last"]


def revision_prompt(problem: Problem, attempts: Sequence[str]) -> tuple[Message, ...]:
    """The problem's messages with the earlier attempts, oldest first, added to the last one."""
    if not attempts:
        return problem.messages
    return added(
        problem,
        f"Earlier attempts, which may be wrong:\n\n{numbered('Attempt', attempts)}\n\n"
        "Find the first error in them, if there is one. Then write a complete new solution in the form asked for "
        "above.",
    )


@dataclass(frozen=True, kw_only=True)
class Revision:
    """n_chains chains of chain_length attempts each.

    Args:
        n_chains, chain_length: their product is the number of samples; chain_length 1 is parallel sampling.
        context: most recent attempts shown to the next one (k); the paper uses 4.
        selector: "majority", "weighted_vote", "best" (both need a verifier), or "last" (of the first chain that
            has a valid one); "" takes weighted_vote where there is a verifier, else majority.
        hierarchical: select inside each chain first, then among the chains' winners.
    """

    n_chains: int = 2
    chain_length: int = 4
    context: int = 4
    selector: Selector | Literal[""] = ""
    hierarchical: bool = False

    @property
    def at_once(self) -> int:
        """One attempt of each chain."""
        return self.n_chains

    def __post_init__(self) -> None:
        for name in ("n_chains", "chain_length", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def first(self) -> tuple[Draw, ...]:
        """How its first samples are drawn: one for each chain."""
        return (Draw(n=self.n_chains),)

    @property
    def votes(self) -> bool:
        """Whether equal answers are what it goes by; where there is a verifier, its scores may count."""
        return self.selector in ("", "majority")

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores | None = None) -> None:
        """Reports after every turn."""
        selector = self.selector or ("majority" if verifier is None else "weighted_vote")
        if verifier is None and selector in ("weighted_vote", "best"):
            raise MissingResource(f"The selector {selector} needs a verifier: pass verifier=..., or --verifier NAME.")
        chains: list[list[Candidate]] = [[] for _ in range(self.n_chains)]
        scores: dict[str, float | None] = {}
        for turn in range(self.chain_length):
            going = [number for number, chain in enumerate(chains) if len(chain) == turn]
            if not going:
                return
            drawn = await together(
                *(self._attempt(problem, model.lane("chain", number), chains[number]) for number in going)
            )
            new = [attempt for attempt in drawn if isinstance(attempt, Candidate)]
            if not new:
                raise next(failure for failure in drawn if isinstance(failure, Exception))
            for number, attempt in zip(going, drawn, strict=True):
                chains[number] += [attempt] if isinstance(attempt, Candidate) else []
            attempts = [attempt for chain in chains for attempt in chain]
            if verifier is None:
                chosen, share = self._select(chains, scores, selector)
                report(attempts, chosen=chosen, confidence=share)
                continue
            scores.update(zip((attempt.id for attempt in new), await verifier.score(problem, new), strict=True))
            chosen, share = self._select(chains, scores, selector)
            report(attempts, chosen=chosen, confidence=share, scores=[scores[attempt.id] for attempt in attempts])

    async def _attempt(self, problem: Problem, model: Model, chain: Sequence[Candidate]) -> Candidate | OutthinkError:
        shown = chain[-self.context :]
        # the first attempt is a sample like any other
        messages = revision_prompt(problem, [attempt.text for attempt in shown]) if shown else None
        try:
            return (await model.sample(problem, messages=messages, parents=tuple(shown)))[0]
        except OutthinkError as failure:
            return failure  # this chain ends here (budget, failure, or a prompt too long), the others go on

    def _select(self, chains: Sequence[Sequence[Candidate]], scores: dict[str, float | None], selector: str) -> Chosen:
        # turn by turn, so that "first seen" means the earliest turn
        turns = range(max(len(chain) for chain in chains))
        everything = [chain[turn] for turn in turns for chain in chains if turn < len(chain)]
        if selector == "last":
            ends = [chain[-1] for chain in chains if chain and chain[-1].key is not None]
            return (ends[0] if ends else None), 1.0 / len(chains)
        if not self.hierarchical:
            return _choose(everything, scores, selector)
        winners = [_choose(chain, scores, selector)[0] for chain in chains if chain]
        return _choose([winner for winner in winners if winner is not None], scores, selector)


def _choose(attempts: Sequence[Candidate], scores: dict[str, float | None], selector: str) -> Chosen:
    known = [scores.get(attempt.id) for attempt in attempts]
    if selector == "best":
        return by_best(attempts, known)
    return by_weighted_vote(attempts, known) if selector == "weighted_vote" else by_majority(attempts)
