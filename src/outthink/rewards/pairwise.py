"""A model asked which of two solutions is right: a solution's score is how often it is preferred to the others.

Source: pairwise comparison with both orders, as in Zheng et al. (2023), Judging LLM-as-a-Judge, and its mean over all
opponents, as in Jiang et al. (2023), LLM-Blender, both from memory. Prompts are ours. Differs: a preference is the
probability of the label where the model can give it, and the mean of both orders, so that a bias for a place cancels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outthink.maths.tournament import pairs
from outthink.model import Model, Models
from outthink.rewards import Path
from outthink.rewards.judge import verdicts, yes_probability
from outthink.together import each
from outthink.types import Message, Problem

_PAIR = (
    "Question:\n{question}\n\nSolution A:\n{a}\n\nSolution B:\n{b}\n\n"
    "Check both solutions. Which one is more likely to be correct? {reply}"
)
_LABEL = "Reply with A or B only."
_WRITE = "First go through them step by step, in a few sentences. Then end with one line: Verdict: A or Verdict: B"


@dataclass(frozen=True)
class Pairwise:
    """Mean preference to the others, in [0, 1], by the model in the role "judge", else the main model.

    Solutions that differ in blank lines and in white space at the end of lines only are one. A single one has 0.5.

    Args:
        opponents: how many others each is compared with, or one more where that does not come out even; None is all.
    """

    opponents: int | None = None
    relative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.opponents is not None and self.opponents < 1:
            raise ValueError(f"opponents must be at least 1, not {self.opponents}")

    async def score(self, problem: Problem, paths: Sequence[Path], *, models: Models) -> list[float | None]:
        """One score per path; every comparison is made in both orders, all in one batch."""
        shown, places = await distinct(paths)
        if len(shown) < 2:
            return [0.5] * len(paths)
        met = pairs(len(shown), self.opponents)
        orders = [order for one, other in met for order in ((one, other), (other, one))]
        first = await _preferred(models.role("judge"), problem, [(shown[a], shown[b]) for a, b in orders])
        wins: list[list[float]] = [[] for _ in shown]
        for place, (one, other) in enumerate(met):
            there, back = first[2 * place], first[2 * place + 1]
            known = [*([] if there is None else [there]), *([] if back is None else [1.0 - back])]
            if known:
                preference = sum(known) / len(known)
                wins[one].append(preference)
                wins[other].append(1.0 - preference)
        scores = [sum(won) / len(won) if won else None for won in wins]
        return [scores[place] for place in places]


async def distinct(paths: Sequence[Path]) -> tuple[list[Path], list[int]]:
    """One path of each solution, and for every path the place of its own; blank lines and line ends tell none apart.

    The order follows from the texts, so that nothing depends on arrival or on who is the favourite; it is that of
    hashes, so that like does not only stand beside like.
    """
    groups: dict[str, list[Path]] = {}
    normal = await each(lambda path: _normal(whole_text(path)), paths)
    for name, path in zip(normal, paths, strict=True):
        groups.setdefault(name, []).append(path)
    hashes = await each(lambda name: hashlib.sha256(name.encode("utf-8", "replace")).digest(), groups)
    names = [name for _, name in sorted(zip(hashes, groups, strict=True))]
    places = {name: place for place, name in enumerate(names)}
    shown = [min(groups[name], key=lambda path: (whole_text(path), path[-1].id)) for name in names]
    return shown, [places[name] for name in normal]


async def _preferred(judge: Model, problem: Problem, orders: Sequence[tuple[Path, Path]]) -> list[float | None]:
    """How far the first of two is preferred to the second; None where it is missing."""
    labels = "labels" in judge.powers
    reply = _LABEL if labels else _WRITE
    prompts = await each(
        lambda order: _PAIR.format(
            question=problem.question, a=whole_text(order[0]), b=whole_text(order[1]), reply=reply
        ),
        orders,
    )
    judged = [(a[-1], b[-1]) for a, b in orders]
    if labels:
        messages = [(Message(content=prompt),) for prompt in prompts]
        lanes = [(*a.address, *b.address) for a, b in judged]
        pairs = await judge.labels(problem, messages, ("A", "B"), lanes)
        return [None if logprobs is None else yes_probability(*logprobs) for logprobs in pairs]
    said = await verdicts(judge, problem, prompts, judged, ("A", "B"), 1)
    return [float(votes[0] == "A") if votes else None for votes in said]


def whole_text(path: Path) -> str:
    """The text of all its segments."""
    return "".join(segment.text for segment in path)


def _normal(text: str) -> str:
    """Without blank lines and ends of lines; indentation counts, for code."""
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())
