"""A model asked whether a solution is right: the probability of Yes against No as its next word.

Source: the yes-probability of a generative verifier without reasoning, as in Kadavath et al. (2022), P(True), and
Zhang et al. (2024), GenRM; prompts are ours. Differs: both labels are scored, and Yes is normalised by their sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from outthink.model import Models
from outthink.rewards import Path
from outthink.types import Message, Problem

_ANSWER = (
    "Question:\n{question}\n\nProposed solution:\n{solution}\n\n"
    "Check the solution. Is its final answer correct? Reply with Yes or No only."
)
_STEPS = (
    "Question:\n{question}\n\nBeginning of a solution:\n{solution}\n\n"
    "Check the last step. Is everything correct so far? Reply with Yes or No only."
)


@dataclass(frozen=True)
class Judge:
    """P(Yes) / (P(Yes) + P(No)), in [0, 1], by the model in the role "judge", else the main model.

    Args:
        process: judge an unfinished solution so far, instead of a final answer.
    """

    process: bool = False
    powers: ClassVar[Mapping[str, frozenset[str]]] = {"judge": frozenset({"labels"})}  # by role

    async def score(self, problem: Problem, paths: Sequence[Path], *, models: Models) -> list[float | None]:
        """One score per path, all in one batch; reading a path costs its length as prompt tokens."""
        template = _STEPS if self.process else _ANSWER
        prompts = [
            (Message(content=template.format(question=problem.question, solution="".join(s.text for s in path))),)
            for path in paths
        ]
        found = await models.role("judge").labels(
            problem, prompts, ("Yes", "No"), lanes=[path[-1].address for path in paths]
        )
        return [None if logprobs is None else yes_probability(*logprobs) for logprobs in found]


def yes_probability(yes: float, no: float) -> float:
    """The share of Yes in the mass of both labels, from their logprobs."""
    return 1.0 / (1.0 + math.exp(min(no - yes, 700.0)))
