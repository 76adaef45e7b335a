"""TrimR: a small model reads each finished part of a thought, and ends thoughts that repeat, overrun or loop.

Source: Lin et al., TrimR: Verifier-based Training-Free Thinking Compression (2025); abstract, a note with tables and
the public reviews read, not the paper. Prompts and guidance are ours. Differs: the model stops at each marker of
reflection, so nothing is written between a trigger and what it puts in, and each part costs one reading of the text
before it, from the cache where there is one; the overrun rule wants both of its limits, since the sources leave open
whether one will do.

Pays: for models that think long and go on after their answer stands; most of the gain in the source is in the longest
requests of a batch. No model that thinks can be run here, so the effect of the paper is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

from outthink.errors import BudgetExhausted, EngineError, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.rewards.judge import verdicts
from outthink.strategies import Report, checks
from outthink.strategies.choosing import by_majority
from outthink.strategies.thinking import (
    CLOSE,
    EACH,
    Room,
    begin,
    ending,
    forcing,
    largest,
    on_one_line,
    room,
    size,
    without,
)
from outthink.together import each, turn
from outthink.types import Candidate, Message, Problem

MARKERS = ("\n\nWait", "\n\nBut", "\n\nAlternatively", "\n\nHmm")
"""How a new part of a thought begins; it belongs to the model."""

_EXISTS = (
    "Does a piece of reasoning state an answer to the question that it has come to?\n\n"
    "Question: A pen costs 3 dollars. What do 4 pens cost?\n"
    "Reasoning: One pen costs 3 dollars, so 4 pens cost 4 * 3 = 12 dollars.\nYes\n\n"
    "Question: A pen costs 3 dollars. What do 4 pens cost?\n"
    "Reasoning: I need the price of a pen, and how many there are. The price should be in the text.\nNo\n\n"
    "Question: {question}\nReasoning: {thought}\n\n{reply}"
)
_SAME = (
    "Do two pieces of reasoning come to the same answer to the question?\n\n"
    "Question: A pen costs 3 dollars. What do 4 pens cost?\n"
    "First: So 4 pens cost 12 dollars.\nSecond: Adding 3 four times gives 12.\nYes\n\n"
    "Question: A pen costs 3 dollars. What do 4 pens cost?\n"
    "First: So 4 pens cost 12 dollars.\nSecond: 3 and 4 are 7, so it is 7 dollars.\nNo\n\n"
    "Question: {question}\nFirst: {before}\nSecond: {thought}\n\n{reply}"
)
_LABEL = "Reply with Yes or No only."
_WRITE = "End with one line: Verdict: Yes or Verdict: No"
_MILD = "\n\nI have come to the same answer several times, so it is time to write it down.\n\n**Final Answer**\n"
_FORCED = "\n\nThe time is up, so I answer with what I have now."

_SENTENCES, _LETTERS = 5, 1600  # of a part that are shown, whichever is less
_LEAST, _MOST = 32, 256  # tokens of a block that may repeat
_PIECE = 512  # tokens after which a part that has not ended is looked at for loops


def loops(tokens: Sequence[Any], times: int) -> bool:
    """Whether the end of a text is a block of 32 to 256 tokens so many times, one behind the other."""
    tail = tokens[-times * _MOST :]
    return times > 0 and any(
        all(tail[-block:] == tail[-(k + 1) * block : -k * block] for k in range(1, times))
        for block in range(_LEAST, len(tail) // times + 1)
    )


def shown(thought: str) -> str:
    """The end of a part of a thought: its last sentences, and not too much of them."""
    sentences = re.split(r"(?<=[.!?])\s+|\n+", thought[-4 * _LETTERS :].strip())
    return " ".join(sentences[-_SENTENCES:])[-_LETTERS:]


@dataclass(kw_only=True, eq=False)
class _Chain:
    """One thought on its way.

    Args:
        end: its last segment.
        used: tokens of the thought, what was put in included.
        part: what has been written of the part that has not ended.
        parts: how many have ended.
        concluded: the last part that stated an answer; empty: none has.
        alike: how many in a row stated the answer of the one before.
        tail: the last tokens, or words where tokens are not known.
        how: why its thought has ended; empty while it goes on.
        answer: its answer; None while there is none.
    """

    end: Candidate
    number: int
    used: int = 0
    part: str = ""
    parts: int = 0
    concluded: str = ""
    alike: int = 0
    tail: list[Any] = field(default_factory=list)
    how: str = ""
    over: bool = False
    answer: Candidate | None = None
    spent: dict[str, float] = field(default_factory=dict)

    def pay(self, cost: dict[str, float], parts: int = 1) -> None:
        """Count what something has cost, or its share of that."""
        for unit, amount in cost.items():
            self.spent[unit] = self.spent.get(unit, 0.0) + amount / parts


@dataclass(frozen=True, kw_only=True)
class TrimR:
    """n thoughts, each ended early by the model in the role "judge", else by the main model; the vote of their answers.

    Args:
        n: chains, written side by side; at least 1.
        m: a thought ends when so many conclusions in a row are that of the one before (M); 0: never for this reason.
        r_thres, n_thres: it ends without any conclusion when this share of its tokens is used and so many parts have
            ended.
        mode: whether "all" of the two must hold or "any".
        repeats: it ends when its last tokens are the same block so many times; 0: never for this reason.
        markers: what begins a new part, with its line breaks.
        max_think: most tokens of a thought; None: all that the answer leaves of `max_tokens`.
        answer_max: tokens kept for the answer; None: a quarter of `max_tokens`.
        think_open, think_close: as for `budget_forcing`.
        force: what asks for the answer where a thought was ended by force; None: as for `budget_forcing`.
    """

    n: int = 1
    m: int = 2
    r_thres: float = 0.5
    n_thres: int = 20
    mode: Literal["all", "any"] = "all"
    repeats: int = 3
    markers: tuple[str, ...] = MARKERS
    max_think: int | None = None
    answer_max: int | None = None
    think_open: str = ""
    think_close: str = CLOSE
    force: str | None = None

    powers: ClassVar[frozenset[str]] = frozenset({"prefix"})  # what the model must be able to do
    first: ClassVar[tuple[Draw, ...]] = ()  # what is drawn first is a part of a thought

    def __post_init__(self) -> None:
        checks.check(
            self,
            at_least_one=("n", "max_think", "answer_max"),
            at_least_zero=("m", "n_thres", "repeats"),
            shares=("r_thres",),
        )
        if self.repeats == 1:
            raise ValueError("repeats must be at least 2, or 0 for never")
        if not self.markers or not all(self.markers):
            raise ValueError("markers must have at least one text, and none may be empty")

    @property
    def at_once(self) -> int:
        """All chains."""
        return self.n

    @property
    def votes(self) -> bool:
        """Whether equal answers are what it goes by."""
        return self.n > 1

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models, meter: Meter) -> None:
        """All chains go on together: a part each, then what the judge says of them, then the next."""
        cap, judge = model.sampling.cap, models.role("judge")
        force = forcing(problem, self.think_close, self.force)
        put_in = await size(model, _FORCED + ending("", self.think_close, force))
        answer = min(self.answer_max or max(cap // 4, 1), max(cap - 1, 1))
        most = min(self.max_think or cap, max(cap - answer - put_in, 1))
        start = await begin(model, meter, self.think_open) if self.think_open else None
        stop = (*self.markers, *filter(None, (self.think_close,)))
        draw = Draw(n=self.n, after=start, stop=stop, step=True)
        within = await room(model, problem, meter, draw, think=most, answer=answer, put_in=put_in)
        if within.think < 1:
            meter.notes.append("the budget has no room for a thought and an answer behind it, so nothing was trimmed")
            samples = await model.sample(problem, self.n)
            chosen, share = by_majority(samples)
            report(samples, chosen=chosen, confidence=share)
            return
        (ends,) = await model.sample_each(
            problem, [replace(draw, n=within.chains, max_tokens=min(within.think, _PIECE))]
        )
        chains = [_Chain(end=end, number=place) for place, end in enumerate(ends)]
        for chain in chains:
            await turn(EACH)
            self._take(chain, chain.end, within.cost(model, 0, chain.end.tokens))
        while True:
            self._report(report, chains)
            before = meter.cost()
            await self._judge(problem, chains, judge, meter, model, within)
            spent = {unit: amount - before.get(unit, 0.0) for unit, amount in meter.cost().items()}
            for chain in chains:
                chain.pay(spent, len(chains))
            planned = [(chain, await self._further(problem, chain, model, meter, draw, within)) for chain in chains]
            going = [(chain, further, chain.used) for chain, further in planned if further is not None]
            if not going:
                break
            try:
                drawn = await model.sample_fitting(problem, [further for _, further, _ in going])
            except (BudgetExhausted, EngineError, PromptTooLong):
                drawn = [[] for _ in going]
            for (chain, further, read), children in zip(going, drawn, strict=True):
                await turn(EACH)
                if children:
                    self._take(chain, children[0], within.cost(model, read, children[0].tokens))
                elif chain.how:
                    chain.over = True
                else:
                    chain.end, chain.how = further.after or chain.end, "failed"
        ended = [chain.how for chain in chains]
        counts = ", ".join(f"{ended.count(how)} {how}" for how in dict.fromkeys(ended))
        tokens = sum(chain.used for chain in chains)
        meter.notes.append(
            f"thoughts of {tokens} tokens in {sum(chain.parts for chain in chains)} parts; ends: {counts}"
        )

    def _take(self, chain: _Chain, end: Candidate, cost: dict[str, float]) -> None:
        """Add what was written to a chain."""
        chain.end = end
        chain.pay(cost)
        if chain.how:
            chain.over = True
        else:
            chain.used += end.tokens
            chain.part += end.text
            chain.tail = [*chain.tail, *(end.token_ids or end.text.split())][-self.repeats * _MOST :]
            # an engine may write on to the end of the token that a stop string ends in
            if end.finish == "eos" or (self.think_close and self.think_close in end.text):
                chain.how, chain.over = "natural", end.finish == "eos"
        chain.answer = end if end.complete else chain.answer

    async def _judge(
        self, problem: Problem, chains: Sequence[_Chain], judge: Model, meter: Meter, model: Model, within: Room
    ) -> None:
        """Decide which thoughts end, by the parts that have ended just now."""
        looping = await each(lambda chain: not chain.how and loops(chain.tail, self.repeats), chains)
        thinking = [chain for chain in chains if not chain.how]
        finished = [chain for chain in thinking if chain.end.finish == "stop"]
        endings = await each(lambda chain: shown(self._cut(chain.part)), finished)
        parts = {chain.number: end for chain, end in zip(finished, endings, strict=True)}
        for chain in finished:
            chain.part, chain.parts = "", chain.parts + 1
        ask = partial(self._yes, problem, judge, meter, chains, model, within)
        if self.m:
            stated = await ask(_EXISTS, finished, [{"thought": parts[chain.number]} for chain in finished])
            stating = [chain for chain, yes in zip(finished, stated, strict=True) if yes]
            again = [chain for chain in stating if chain.concluded]
            both = [{"before": chain.concluded, "thought": parts[chain.number]} for chain in again]
            same = {chain.number for chain, yes in zip(again, await ask(_SAME, again, both), strict=True) if yes}
            for chain in stating:
                chain.alike = chain.alike + 1 if chain.number in same else 0
                chain.concluded = parts[chain.number]
        for chain, loop in zip(chains, looping, strict=True):
            if chain.how:
                continue
            limits = (chain.used >= self.r_thres * within.think, chain.parts >= self.n_thres)
            under = (all if self.mode == "all" else any)(limits) and chain.end.finish == "stop"
            if 0 < self.m <= chain.alike:
                chain.how = "settled"
            elif under or chain.used >= within.think or loop:
                chain.how = "looping" if loop else "overrun"

    def _marker(self, text: str) -> str | None:
        """The marker that a text ends with, but for the rest of its last token; None: it has none."""
        last = max(self.markers, key=text.rfind)
        return last if last in text else None

    def _cut(self, part: str) -> str:
        """A part without the marker of the next one."""
        marker = self._marker(part)
        return part if marker is None else part[: part.rindex(marker)]

    async def _yes(
        self,
        problem: Problem,
        judge: Model,
        meter: Meter,
        chains: Sequence[_Chain],
        model: Model,
        within: Room,
        prompt: str,
        about: Sequence[_Chain],
        texts: Sequence[dict[str, str]],
    ) -> list[bool]:
        """Whether the judge says Yes to each; No where it says nothing or what it costs is wanted for the answers."""
        if not about:
            return []
        label = "labels" in judge.powers
        reply = _LABEL if label else _WRITE
        asked = [prompt.format(question=problem.question, reply=reply, **text) for text in texts]
        try:
            draws = [Draw(messages=(Message(content=text),), max_tokens=1 if label else None) for text in asked]
            costs = []
            for draw in draws:
                await turn(EACH)
                costs.append(await judge.bound(problem, draw))
            kept = [within.cost(model, chain.used + within.put_in, within.answer) for chain in chains if not chain.over]
            for unit, left in meter.left().items():
                wanted = sum(cost.get(unit, 0.0) for cost in kept)
                if (2 if label else 1) * sum(cost.get(unit, 0.0) for cost in costs) > left - wanted:
                    return [False] * len(about)
            if label:
                lanes = [(*chain.end.address, "same" if "before" in text else "states")
                         for chain, text in zip(about, texts, strict=True)]  # fmt: skip
                pairs = await judge.labels(problem, [draw.messages or () for draw in draws], ("Yes", "No"), lanes)
                return [pair is not None and pair[0] > pair[1] for pair in pairs]
            said = await verdicts(judge, problem, asked, [(chain.end,) for chain in about], ("Yes", "No"), 1)
            return [words == ["Yes"] for words in said]
        except (BudgetExhausted, EngineError, PromptTooLong):
            return [False] * len(about)

    async def _further(
        self, problem: Problem, chain: _Chain, model: Model, meter: Meter, draw: Draw, within: Room
    ) -> Draw | None:
        """What a chain writes next: a part of its thought, its end in its own words, or its answer."""
        if chain.over:
            return None
        await turn(EACH)
        lane = ("chain", chain.number)
        if not chain.how:

            def fits(write: int) -> bool:
                reads = chain.used + write + within.put_in
                return within.fits(model, chain.spent, (chain.used, write), (reads, within.answer))

            left = largest(min(within.think - chain.used, _PIECE), fits)
            if left > 0:
                return replace(draw, n=1, after=chain.end, max_tokens=left, lane=lane)
            chain.how = "overrun"
        start = chain.end
        stop: tuple[str, ...] = ()
        if chain.how != "natural":
            marker = self._marker(start.text) if start.finish == "stop" else None
            start = start if marker is None else await without(model, meter, start, marker)
            force = forcing(problem, self.think_close, self.force)
            # without marks of thoughts, an answer that was only thought of would be read
            mild = _MILD + ("" if self.think_close else force)
            guidance = mild if chain.how == "settled" else _FORCED + ending("", self.think_close, force)
            start = await model.inject(start, guidance)
            stop = () if self.think_close and chain.how == "settled" else on_one_line(force)
        reads = chain.used + within.put_in
        most = max(model.sampling.cap - reads, within.answer)
        left = largest(most, lambda write: within.fits(model, chain.spent, (reads, write)))
        return Draw(after=start, stop=stop, max_tokens=max(left, 1), lane=lane)

    def _report(self, report: Report, chains: Sequence[_Chain]) -> None:
        answers = [chain.answer for chain in chains if chain.answer is not None]
        chosen, share = by_majority(answers)
        report(answers or [chain.end for chain in chains], chosen=chosen, confidence=share)
