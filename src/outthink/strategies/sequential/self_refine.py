"""Self-refine: a critic reads each attempt of a chain, and the next attempt reads what the critic says.

Source: Madaan et al., Self-Refine (2023), from memory; Snell et al., Scaling LLM Test-Time Compute Optimally (2024),
for several chains and the choice among all attempts. Differs: prompts are ours; the answer is not the last attempt, but
a vote in which each weighs by what the critic said of it: 1 accepted, 1/2 not judged, 1/4 rejected (ours).

Pays: where the critic knows more than the model, as another model or one that can check. A model that judges itself
mostly does not, and small ones turn right answers into wrong ones. A 0.5B model was 13 points below the vote at equal
tokens on sums (docs/results/selection.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from outthink.errors import MissingResource, OutthinkError
from outthink.model import Draw, Model, Models
from outthink.rewards.judge import verdict, written
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.prompting import LETTERS, said_by
from outthink.strategies.sequential.chains import Selector, check_chains, ended, grow, lengths, select
from outthink.together import turn
from outthink.types import Candidate, Message, Problem

_CRITIC = (
    "Question:\n{question}\n\nProposed solution:\n{solution}\n\n"
    "Check the solution step by step. Say in a few sentences what is wrong in it and how to mend it; do not write a "
    "new solution. Then end with one line: Verdict: Correct or Verdict: Wrong"
)
_REFINE = (
    "{task}\n\nAn earlier solution:\n\n{solution}\n\n"
    "What a reader says of it, who may be mistaken:\n\n{feedback}\n\n"
    "Write a complete new solution in the form asked for above."
)
_WORDS = ("Correct", "Wrong")
_ACCEPTED, _UNJUDGED, _REJECTED = 1.0, 0.5, 0.25


def critic_prompt(problem: Problem, solution: str) -> str:
    """What the critic is asked."""
    return _CRITIC.format(question=problem.question, solution=solution.strip())


def refine_prompt(problem: Problem, solution: str, feedback: str) -> tuple[Message, ...]:
    """The problem's messages with an attempt and what the critic says of it, added to the last one."""
    *before, last = problem.messages
    asked = _REFINE.format(task=last.text, solution=solution.strip(), feedback=feedback.strip())
    return (*before, replace(last, content=asked))


@dataclass(frozen=True, kw_only=True)
class SelfRefine:
    """n attempts in chains, with feedback between them by the model in the role "critic", else by the main model.

    Args:
        n: attempts of all chains together; at least 1.
        ratio: length of a chain to number of chains, from 0 (n chains of one attempt: parallel sampling) to infinity
            (one chain, as in the source).
        selector: "majority", "weighted_vote", "best", or "last" (of the first chain that has a valid one); "" is
            weighted_vote. Weights are the verifier's scores where there is one, else what the critic said.
        hierarchical: select inside each chain first, then among the chains' winners.
        patience: a chain ends when so many attempts in a row have the answer of the one before; 0: never. It always
            ends with an answer that the critic accepts.
        threshold: a chain ends with an attempt that the verifier gives at least this score; None: never.
    """

    n: int = 4
    ratio: float = inf
    selector: Selector | Literal[""] = ""
    hierarchical: bool = False
    patience: int = 1
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_chains(self)

    @property
    def at_once(self) -> int:
        """One attempt of each chain."""
        return len(lengths(self.n, self.ratio))

    @property
    def first(self) -> tuple[Draw, ...]:
        """How its first samples are drawn: one for each chain."""
        return (Draw(n=self.at_once),)

    @property
    def votes(self) -> bool:
        """Whether equal answers alone are what it goes by."""
        return self.selector == "majority"

    async def run(
        self, problem: Problem, report: Report, *, model: Model, models: Models, verifier: Scores | None = None
    ) -> None:
        """Reports after every turn; scores are the verifier's, else the weights by the critic's verdicts."""
        if verifier is None and self.threshold is not None:
            raise MissingResource("The threshold needs a verifier: pass verifier=..., or --verifier NAME.")
        critic = models.role("critic")
        scores: dict[str, float | None] = {}

        async def attempt(number: int, chain: list[Candidate]) -> Candidate | OutthinkError | None:
            lane = model.lane("chain", number)
            try:
                if not chain:
                    return (await lane.sample(problem))[0]
                said = await self._feedback(problem, chain[-1], critic)
                accepted = None if said is None else await _verdict(said)
                if verifier is None and accepted is not None:
                    scores[chain[-1].id] = _ACCEPTED if accepted == _WORDS[0] else _REJECTED
                if said is None or (accepted == _WORDS[0] and chain[-1].key is not None):
                    return None
                words = await said_by([chain[-1], said])
                messages = refine_prompt(problem, words[chain[-1].id], words[said.id])
                return (await lane.sample(problem, messages=messages, parents=(chain[-1], said)))[0]
            except OutthinkError as failure:
                return failure  # this chain ends here (budget, failure, or a prompt too long), the others go on

        async def seen(chains: list[list[Candidate]], new: list[Candidate]) -> set[int]:
            attempts = [one for chain in chains for one in chain]
            if verifier is None:
                scores.update((one.id, _UNJUDGED) for one in new)
            else:
                scores.update(zip((one.id for one in new), await verifier.score(problem, new), strict=True))
            chosen, share = select(chains, scores, self.selector or "weighted_vote", self.hierarchical)
            report(attempts, chosen=chosen, confidence=share, scores=[scores[one.id] for one in attempts])
            return ended(chains, scores, patience=self.patience, threshold=self.threshold)

        await grow(lengths(self.n, self.ratio), attempt, seen)

    async def _feedback(self, problem: Problem, attempt: Candidate, critic: Model) -> Candidate | None:
        """What the critic wrote, as far as it came; None where it says nothing."""
        shown = await said_by([attempt])
        ((said,),) = await written(critic, problem, [critic_prompt(problem, shown[attempt.id])], [(attempt,)])
        return said if said.text.strip() else None


async def _verdict(said: Candidate) -> str | None:
    if said.finish != "eos":  # one that was cut off may have gone on
        return None
    await turn(len(said.text) // LETTERS)  # many chains may come here in one round of the loop
    return verdict(said.text, _WORDS)
