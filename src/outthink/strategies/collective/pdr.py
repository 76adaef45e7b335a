"""Parallel-distil-refine: drafts side by side, distilled into a workspace of few tokens, from which new ones are made.

Source: PDR (2510.01123), the card of its abstract and a summary were read. Differs: the prompts are ours; drafts that
fit into the workspace as they are, are the workspace, so with one draft it is sequential refinement; where a draft
does not fit whole, its end is kept.

Pays: where a draft is long and its findings are short. One workspace serves all drafts of a round, so what is read
stays small; how long one waits grows with the rounds. On sums with a 0.5B model it was 24 points below the vote at
equal tokens (docs/results/selection.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from outthink.errors import BudgetExhausted, MissingResource, NothingCameBack, PromptTooLong
from outthink.maths.selection import numbers
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority
from outthink.strategies.prompting import added, between, distinct, need_shown, said_by
from outthink.types import Candidate, Message, Problem

_DISTIL = (
    "Here are drafts of an answer; some may be wrong.\n\n{drafts}\n\n"
    "Do not answer yet. Write short notes for whoever answers next: results on which the drafts agree, where they "
    "contradict each other and which side is better founded, errors, and ideas worth keeping."
)
_REFINE = (
    "Here are notes from earlier attempts at this; they may be wrong.\n\n{workspace}\n\n"
    "Use what is right in them and avoid their errors. Then write one complete answer of your own, which ends in the "
    "form asked for above."
)


def distil_prompt(problem: Problem, drafts: Sequence[str]) -> tuple[Message, ...]:
    """The question, the drafts numbered from 1, and that notes are wanted."""
    return added(problem, _DISTIL.format(drafts=between("draft", dict(enumerate(drafts, 1)))))


def refine_prompt(problem: Problem, workspace: str) -> tuple[Message, ...]:
    """The question, the workspace, and what to make of it."""
    return added(problem, _REFINE.format(workspace=workspace))


def fitted(texts: Sequence[str], tokens: Sequence[int], room: int) -> list[str]:
    """The first texts that fit into `room` tokens together; of the next one the end, as much as is left room for."""
    kept: list[str] = []
    for text, size in zip(texts, tokens, strict=True):
        if size <= room:
            kept.append(text)
            room -= size
            continue
        if letters := len(text) * room // size:
            kept.append(text[-letters:])
        break
    return kept


@dataclass(frozen=True, kw_only=True)
class PDR:
    """The first drafts are the main model's; notes and later ones are of the role "fusor", else the main model's.

    Args:
        n: drafts of a round (M); 1 is sequential refinement.
        rounds: of drafts, each followed by its distillation; a last single answer comes after them. 0 is one round of
            drafts and their majority.
        workspace: most tokens of what a round hands on; of a summary they are all that its writer may use.
        distil: how: a written "summary", a "random" choice of drafts, or the "best" by the verifier, as many as fit.
    """

    follows_verifier: ClassVar[bool] = False  # only where it is set to

    n: int = 4
    rounds: int = 1
    workspace: int = 512
    distil: Literal["summary", "random", "best"] = "summary"

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "workspace"), at_least_zero=("rounds",))
        need_shown(self.n * self.rounds, f"{self.n} drafts and {self.rounds} rounds")

    async def run(
        self,
        problem: Problem,
        report: Report,
        *,
        model: Model,
        models: Models,
        rng: Rng,
        meter: Meter,
        verifier: Scores | None = None,
    ) -> None:
        """The majority of a round stands until a later round has an answer."""
        if self.distil == "best" and verifier is None:
            raise MissingResource("Distilling the best needs a verifier: pass verifier=..., or --verifier NAME.")
        drafts = await model.sample(problem, self.n)
        best, share = by_majority(drafts)
        report(drafts, chosen=best, confidence=share, generation=1)
        fusor = models.role("fusor")
        for number in range(2, self.rounds + 2):
            lane = fusor.lane("round", number)
            known = distinct(drafts)
            if not known:
                meter.notes.append(f"round {number}: no draft can be read, so there is nothing to refine")
                return
            try:
                workspace = await self._workspace(problem, known, lane.lane("distil"), rng, number, verifier)
                width = self.n if number <= self.rounds else 1
                draw = Draw(n=width, messages=refine_prompt(problem, workspace), parents=tuple(known))
                (drafts,) = await lane.sample_each(problem, [draw])
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
                meter.notes.append(f"round {number}: nothing was refined: {failure}")
                return
            chosen, share = by_majority(drafts)
            best = chosen or best
            report(drafts, chosen=best, confidence=share, generation=number)

    async def _workspace(
        self,
        problem: Problem,
        drafts: list[Candidate],
        lane: Model,
        rng: Rng,
        number: int,
        verifier: Scores | None,
    ) -> str:
        said = await said_by(drafts)
        # of the tokens of a thinking model only those of its message count
        sizes = {one.id: math.ceil(one.tokens * len(said[one.id]) / max(len(one.text), 1)) for one in drafts}
        if sum(sizes.values()) > self.workspace:
            if self.distil == "summary":
                # a shorter cap of the run's own stays
                most = min(self.workspace, lane.sampling.cap)
                draw = Draw(messages=distil_prompt(problem, [*said.values()]), parents=tuple(drafts))
                ((notes,),) = await lane.sample_each(problem, [replace(draw, max_tokens=most, aside=True)])
                return (await said_by([notes]))[notes.id]
            rng.at("pdr", number).shuffle(drafts)
            if self.distil == "best" and verifier is not None:
                scores = numbers(await verifier.score(problem, drafts))
                order = sorted(range(len(drafts)), key=lambda place: (scores[place] != scores[place], -scores[place]))
                drafts = [drafts[place] for place in order]
        kept = fitted([said[one.id] for one in drafts], [sizes[one.id] for one in drafts], self.workspace)
        return between("draft", dict(enumerate(kept, 1)))
