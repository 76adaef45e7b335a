"""Collaborative parallel thinking, prompted: thoughts side by side that hear, every so many tokens, what others found.

Source: Collaborative Parallel Thinking (arXiv 2605.27030); its abstract read. Differs: the prompts are ours; findings
are listed by the model itself from what a thought wrote last, and told apart by their words; the answer is a vote.

Pays: not seen here; every round re-reads and lists, which is charged. Meant for models whose thoughts are long.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from outthink.answers.marks import unmarked
from outthink.answers.thoughts import spoken
from outthink.errors import OutthinkError, PromptTooLong
from outthink.model import Draw, Model
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority
from outthink.strategies.sequential.iterative_deepening import Chain
from outthink.types import Candidate, Message, Problem

LISTING = (
    "{question}\n\nBelow is a part of somebody's working on this. List what it has established and others can use: one "
    'short line each that begins with "- ". Where it is nothing, write: none\n\n{piece}'
)
"""Asks for the findings in a piece of a thought."""

SHARED = "\n\nOthers who work on this found:\n{findings}\nI check what of it holds, and go on.\n\n"
"""What is put into a thought."""

_LONG = 300  # characters of a finding; more is no finding


def listed(text: str) -> list[str]:
    """The findings that a listing names, without their marks; what is too long or empty is none.

    They are not marked as answers, since they are put into those of others.
    """
    lines = (line.strip()[2:] for line in spoken(text).splitlines() if line.strip().startswith("- "))
    findings = (unmarked(line).strip() for line in lines if len(line) <= _LONG)
    return [finding for finding in findings if finding and alike(finding) != "none"]


def _found(listing: Candidate) -> list[str]:
    """Its findings; the last line of one that was cut off may say something else than it would have."""
    return listed(listing.text if listing.finish == "eos" else listing.text.rpartition("\n")[0])


def alike(finding: str) -> str:
    """What equal findings have in common: their words in order, however they are spaced, cased or closed."""
    return " ".join(finding.casefold().split()).rstrip(".;, ")


def listing_prompt(problem: Problem, piece: str, form: str = LISTING) -> tuple[Message, ...]:
    """The problem's messages, the last of which asks for the findings of a piece."""
    *before, last = problem.messages
    parts = {"{question}": last.text, "{piece}": piece}
    asked = re.sub(r"\{(?:question|piece)\}", lambda mark: parts[mark[0]], form)  # in one go: a text may hold a mark
    return (*before, replace(last, content=asked))


class Findings:
    """What has been found so far, and who has heard of it; each finding is there once."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._heard: dict[int, set[str]] = {}

    def add(self, number: int, findings: Sequence[str]) -> int:
        """Take the findings of a thought; returns how many of them are new."""
        before = len(self._texts)
        for finding in findings:
            self._texts.setdefault(alike(finding), finding)
            self._heard.setdefault(number, set()).add(alike(finding))
        return len(self._texts) - before

    def news(self, number: int, most: int) -> list[str]:
        """The newest findings, at most so many, that a thought has not heard of; it has, then."""
        heard = self._heard.setdefault(number, set())
        news = [name for name in self._texts if name not in heard][-most:]
        heard.update(self._texts)
        return [self._texts[name] for name in news]


@dataclass(frozen=True, kw_only=True)
class CPT:
    """The majority of n thoughts that share what they find.

    Args:
        n: thoughts side by side; at least 1.
        every: tokens between two rounds of sharing; at least 1.
        alone: pieces that each writes before the first one; at least 1.
        most: findings that are put into a thought at once, the newest; at least 1.
        listing_tokens: most tokens of a list of findings; at least 1.
        listing: asks for findings, with {question} and {piece}.
        shared: what is put into a thought, with {findings}.
    """

    powers: ClassVar[frozenset[str]] = frozenset({"prefix"})  # what the model must be able to do
    votes: ClassVar[bool] = True  # equal answers are what it goes by
    first: ClassVar[tuple[Draw, ...]] = ()  # its first samples are pieces

    n: int = 4
    every: int = 1000
    alone: int = 2
    most: int = 8
    listing_tokens: int = 200
    listing: str = LISTING
    shared: str = SHARED

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "every", "alone", "most", "listing_tokens"))
        for name, part in (("listing", "{question}"), ("listing", "{piece}"), ("shared", "{findings}")):
            if part not in getattr(self, name):
                raise ValueError(f"{name} must contain {part}")

    @property
    def at_once(self) -> int:
        """All thoughts."""
        return self.n

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch of pieces a round; a vote of those that have ended after each."""
        cap = model.sampling.cap
        chains = [Chain(end) for end in await model.sample(problem, self.n, max_tokens=min(self.every, cap))]
        board, sharing, written = Findings(), True, 1
        self._report(report, chains)
        while going := [chain for chain in chains if not chain.over and chain.tokens < cap]:
            try:
                if sharing and written >= self.alone and len(chains) > 1:
                    sharing = await self._share(problem, board, going, model)
                starts = [await self._start(board, chain, model, told=sharing) for chain in going]
                draws = [
                    Draw(after=start, max_tokens=min(self.every, cap - chain.tokens), lane=("chain", chain.number))
                    for start, chain in zip(starts, going, strict=True)
                ]
                pieces = await model.sample_fitting(problem, draws)
            except OutthinkError:  # of the budget, the context or the model: what has ended answers
                return
            for chain, children in zip(going, pieces, strict=True):
                chain.add(children)
            written += 1
            self._report(report, chains)

    async def _share(self, problem: Problem, board: Findings, going: Sequence[Chain], model: Model) -> bool:
        """Ask each thought for its findings; whether any of them is new."""
        draws = [
            Draw(
                messages=listing_prompt(problem, chain.end.text, self.listing),
                parents=(chain.end,),
                temperature=0.0,
                max_tokens=self.listing_tokens,
                aside=True,
                lane=("findings", chain.number),
            )
            for chain in going
        ]
        try:
            lists = await model.sample_fitting(problem, draws)
        except PromptTooLong:
            return False
        fresh = [board.add(chain.number, _found(one)) for chain, got in zip(going, lists, strict=True) for one in got]
        return any(fresh)

    async def _start(self, board: Findings, chain: Chain, model: Model, *, told: bool) -> Candidate:
        """Where a thought goes on: behind what is new to it, if anything is."""
        news = board.news(chain.number, self.most) if told else []
        if not news:
            return chain.end
        await asyncio.sleep(0)  # each reads its text anew
        return await model.inject(
            chain.end, self.shared.replace("{findings}", "\n".join(f"- {one}" for one in news), 1)
        )

    def _report(self, report: Report, chains: Sequence[Chain]) -> None:
        ends = [chain.end for chain in chains]
        chosen, share = by_majority(ends)
        report(ends, chosen=chosen, confidence=share)
