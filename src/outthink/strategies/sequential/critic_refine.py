"""Critic-refine: a process reward model looks for the first bad step, and the model thinks again from there.

Source: Zhao et al., GenPRM: Scaling Test-Time Compute of Process Reward Models via Generative Reasoning (2025), its use
as a critic; the authors' code was read, of the paper the abstract. Differs: any PRM is the critic, and of what it
thought only the step that it rejects is shown; the prompt is ours; several answers are refined side by side, and vote;
a refined answer that cannot be read does not take the place of the one before.

Pays: where the critic finds errors and the model can mend them. On sums with a small
probe and a 0.5B model it was 22 points below the vote at equal tokens (docs/results/search.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outthink.answers.steps import split_answer
from outthink.answers.thoughts import spoken
from outthink.errors import BudgetExhausted, NothingCameBack, PromptTooLong
from outthink.model import Draw, Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority
from outthink.strategies.prompting import added, said_by
from outthink.together import each, together
from outthink.types import Candidate, Message, Problem


def first_bad_step(scores: Sequence[float | None], threshold: float) -> int | None:
    """The place of the first score below the threshold; None without one. A missing score is not below it."""
    return next((place for place, score in enumerate(scores) if score is not None and score < threshold), None)


def refinement_prompt(problem: Problem, solution: str, step: str) -> tuple[Message, ...]:
    """The problem's messages with a solution and its rejected step added to the last one."""
    return added(
        problem,
        f"An earlier solution:\n\n{solution.strip()}\n\n"
        f"A check has rejected this step of it, and none before it:\n\n{step.strip()}\n\n"
        "Think again about that step. Then write a complete new solution in the form asked for above.",
    )


@dataclass(frozen=True, kw_only=True)
class CriticRefine:
    """n answers, each refined up to `rounds` times, as long as the PRM rejects one of its steps; their vote.

    Args:
        n: answers, refined side by side; at least 1.
        rounds: refinements of each (R); 0 is the vote of n samples.
        threshold: a step with a lower score is rejected; from 0 to 1.
        delimiter: ends a step.
    """

    n: int = 1
    rounds: int = 2
    threshold: float = 0.5
    delimiter: str = "\n\n"

    def __post_init__(self) -> None:
        check(self, at_least_one=("n",), at_least_zero=("rounds",), shares=("threshold",))

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores) -> None:
        """Reports the samples, and the vote of the present answers after each round."""
        attempts = await model.sample(problem, self.n)
        current = {int(sample.address[-1]): sample for sample in attempts}
        chosen, share = by_majority(attempts)
        report(attempts, chosen=chosen, confidence=share)
        going = [*current]
        for _ in range(self.rounds):
            judged = await prm.score_steps(problem, [current[chain] for chain in going], self.delimiter)
            bad = {
                chain: place
                for chain, scores in zip(going, judged, strict=True)
                if (place := first_bad_step(scores, self.threshold)) is not None
            }
            rejected = [current[chain] for chain in bad]
            said = await said_by(rejected)
            steps = await each(
                lambda one: spoken(split_answer(one[0].text, self.delimiter)[one[1]]),
                zip(rejected, bad.values(), strict=True),
            )
            prompts = await each(lambda one: refinement_prompt(problem, *one), zip(said.values(), steps, strict=True))
            draws = [
                Draw(messages=messages, parents=(attempt,)) for messages, attempt in zip(prompts, rejected, strict=True)
            ]
            drawn = await together(
                *(
                    self._refined(problem, model.lane("chain", chain), draw)
                    for chain, draw in zip(bad, draws, strict=True)
                )
            )
            new = {chain: refined for chain, refined in zip(bad, drawn, strict=True) if refined is not None}
            if not new:
                return
            attempts = [*attempts, *new.values()]
            current |= {chain: refined for chain, refined in new.items() if refined.key is not None}
            going = [chain for chain, refined in new.items() if refined.key is not None]
            chosen, share = by_majority([*current.values()])
            report(attempts, chosen=chosen, confidence=share)

    async def _refined(self, problem: Problem, lane: Model, draw: Draw) -> Candidate | None:
        """The refined answer; None where it failed or was refused, so that this chain ends and the others go on."""
        try:
            return (await lane.sample_each(problem, [draw]))[0][0]
        except (BudgetExhausted, NothingCameBack, PromptTooLong):
            return None
