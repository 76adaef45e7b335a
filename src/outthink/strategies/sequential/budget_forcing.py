"""Budget forcing: thinking has a least and a most length; its end is put off by "Wait", or comes by force.

Source: Muennighoff et al., s1: Simple test-time scaling (2025), and Huang et al., m1 (2025), from their code and
abstracts; the additive bias from the abstract of Making Small Language Models Efficient Reasoners (TS). Differs: each
chain has its own decreasing budget; an end that comes at once, or repeats what was just written, is no longer put off;
of the answers that a chain has given before each "Wait" the most frequent one counts, and not the last; where the
server can end thoughts itself and none is to be lengthened, it does.

Pays: for models trained to think long, under a cap that cuts many thoughts; more than a few "Wait"s seldom helps. No
model that thinks can be run here, so the effect of the papers is not shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from outthink.errors import BudgetExhausted, EngineError, MissingResource, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report, checks
from outthink.strategies.choosing import by_best, by_majority
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
from outthink.together import turn
from outthink.types import Candidate, Problem

WORDS = ("Wait",)


@dataclass(kw_only=True, eq=False)
class _Chain:
    """One answer on its way.

    Args:
        end: its last segment.
        how: what ended its thought; empty while it thinks.
        over: nothing is written any more.
        states: whole answers that it has given.
        written, put_in, dropped: tokens of the thought that the model wrote and that were put in, and of ends that were
            taken away.
        ignored: ends that were put off.
        mark: tokens of the mark that its last segment ends with.
        spent: at most, by unit.
    """

    end: Candidate
    number: int
    how: Literal["", "natural", "forced"] = ""
    over: bool = False
    states: list[Candidate] = field(default_factory=list)
    written: int = 0
    put_in: int = 0
    dropped: int = 0
    ignored: int = 0
    mark: int = 0
    before: str = ""
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Tokens of its thought."""
        return self.written + self.put_in

    def pay(self, cost: dict[str, float]) -> None:
        """Count what a call of it has cost at most."""
        for unit, amount in cost.items():
            self.spent[unit] = self.spent.get(unit, 0.0) + amount

    def state(self, selector: str) -> Candidate | None:
        """The answer that stands for it."""
        valid = [state for state in self.states if state.key is not None]
        if not valid or selector == "last":
            return valid[-1] if valid else None
        votes = Counter(state.key for state in valid)
        return max(reversed(valid), key=lambda state: votes[state.key])  # of equals the latest


@dataclass(frozen=True, kw_only=True)
class BudgetForcing:
    """n chains, each one thought of a bounded length and an answer; the vote of the chains.

    A chain has `max_tokens` for all that it writes and keeps; of these, room for the answer is always kept free.

    Args:
        n: chains, written side by side; at least 1.
        max_think: most tokens of a thought, what is put in included; None: all that the answer leaves of `max_tokens`.
        min_think: an end of thinking before so many tokens is put off.
        n_ignore: how many further ends are put off; s1 takes 1.
        words: what takes the place of an end that is put off, in turn: "Wait", "Hmm", "Alternatively".
        answer_max: tokens kept for the answer; None: a quarter of `max_tokens`.
        think_open: what the assistant's turn begins with; empty for models that open the thought themselves.
        think_close: what ends a thought. Empty: the model marks no thoughts, so the end of its answer is the end of
            thinking, and each answer that it has given by then counts.
        force: what asks for the answer where a thought was ended by force; None: "Final Answer:" as in s1, or "####"
            where no thoughts are marked and an answer stands in such a line.
        bias: is added to the logit of the first token of `think_close` while the model thinks: above 0 thoughts get
            shorter, below 0 longer. Needs a model with logit_bias.
        selector: of the answers of a chain, "vote" takes the most frequent one, of these the latest; "last" the last
            valid one, as in s1. Where there is a verifier it takes the best of all.
    """

    n: int = 1
    max_think: int | None = None
    min_think: int = 0
    n_ignore: int = 1
    words: tuple[str, ...] = WORDS
    answer_max: int | None = None
    think_open: str = ""
    think_close: str = CLOSE
    force: str | None = None
    bias: float = 0.0
    selector: Literal["vote", "last"] = "vote"

    def __post_init__(self) -> None:
        checks.check(self, at_least_one=("n", "max_think", "answer_max"), at_least_zero=("min_think", "n_ignore"))
        if not self.words or not all(self.words):
            raise ValueError("words must have at least one word, and none may be empty")
        if self.max_think is not None and self.min_think > self.max_think:
            raise ValueError(f"min_think must be at most max_think ({self.max_think}), not {self.min_think}")
        if not -100 <= self.bias <= 100:
            raise ValueError(f"bias must be from -100 to 100, not {self.bias}")
        if self.bias and not self.think_close:
            raise ValueError("bias changes the end of a thought, so it needs think_close")

    @property
    def _only_caps(self) -> bool:
        """Whether a server that ends thoughts itself can do all of it."""
        return not (self.n_ignore or self.min_think or self.bias or self.think_open)

    @property
    def powers(self) -> frozenset[str]:
        """What the model must be able to do."""
        bias = {"logit_bias", "tokens"} if self.bias else set()
        return frozenset(bias if self._only_caps else {"prefix", *bias})

    @property
    def needs_one_of(self) -> frozenset[str]:
        """A thought is ended by hand, or by the server."""
        return frozenset({"prefix", "thinking_budget"} if self._only_caps else ())

    @property
    def at_once(self) -> int:
        """All chains."""
        return self.n

    @property
    def votes(self) -> bool:
        """Whether equal answers are what it goes by."""
        return self.n > 1

    @property
    def first(self) -> tuple[Draw, ...]:
        """Empty: what is drawn first is a thought."""
        return ()

    async def run(
        self, problem: Problem, report: Report, *, model: Model, meter: Meter, verifier: Scores | None = None
    ) -> None:
        """All chains go on together, one batch a turn; what they have answered by then is reported."""
        if self._only_caps and not model.powers & self.needs_one_of:
            raise MissingResource(f"{model.name} can neither go on with a text nor limit thoughts; use another model.")
        force = forcing(problem, self.think_close, self.force)
        cap, put_in = model.sampling.cap, await size(model, ending("", self.think_close, force))
        answer = min(self.answer_max or max(cap // 4, 1), max(cap - 1, 1))
        most = min(self.max_think or cap, max(cap - answer - put_in, 1))
        if self._only_caps and "thinking_budget" in model.powers:
            (ends,) = await model.sample_each(problem, [Draw(n=self.n, controls={"thinking_budget": most})])
            chains = [_Chain(end=end, number=place, states=[end]) for place, end in enumerate(ends)]
            await self._choose(problem, report, chains, verifier)
            return
        start = await begin(model, meter, self.think_open) if self.think_open else None
        draw = Draw(n=self.n, after=start, stop=(self.think_close,) if self.think_close else (), step=True)
        within = await room(model, problem, meter, draw, think=most, answer=answer, put_in=put_in)
        if within.think < 1:
            meter.notes.append("the budget has no room for a thought and an answer behind it, so nothing was forced")
            ends = await model.sample(problem, self.n)
            chains = [_Chain(end=end, number=place, states=[end]) for place, end in enumerate(ends)]
            await self._choose(problem, report, chains, verifier)
            return
        mark = await size(model, self.think_close) if self.think_close else 0
        if self.bias:
            ids = await model.tokenizing().encode(self.think_close)
            draw = replace(draw, controls={"logit_bias": {ids[0]: self.bias}})
        (ends,) = await model.sample_each(problem, [replace(draw, n=within.chains, max_tokens=within.think)])
        chains = [_Chain(end=end, number=place) for place, end in enumerate(ends)]
        for chain in chains:
            await turn(EACH)
            self._take(chain, chain.end, mark, within.cost(model, 0, chain.end.tokens))
        while True:
            planned = [(chain, await self._further(problem, chain, model, meter, draw, within)) for chain in chains]
            going = [(chain, further, chain.used) for chain, further in planned if further is not None]
            if not going:
                break
            self._vote(report, chains)
            try:
                drawn = await model.sample_fitting(problem, [further for _, further, _ in going])
            except (BudgetExhausted, EngineError, PromptTooLong):
                drawn = [[] for _ in going]
            for (chain, further, read), children in zip(going, drawn, strict=True):
                await turn(EACH)
                if children:
                    self._take(chain, children[0], mark, within.cost(model, read, children[0].tokens))
                elif chain.how:  # the answer itself did not come
                    chain.over = True
                else:
                    chain.end, chain.how = further.after or chain.end, "forced"
        meter.notes.append(_note(chains))
        await self._choose(problem, report, chains, verifier)  # only now, since the answers had to be paid for first

    def _take(self, chain: _Chain, end: Candidate, mark: int, cost: dict[str, float]) -> None:
        """Add what was written to a chain; where it is the end of a thought, `_further` decides what comes next."""
        chain.end = end
        chain.pay(cost)
        if not chain.how:
            chain.mark = mark if end.finish == "stop" else 0
            chain.written += _length(end) - chain.mark
            if end.finish == "length":
                chain.how = "forced"
        else:
            chain.over = True
        if end.complete:
            chain.states.append(end)

    async def _further(
        self, problem: Problem, chain: _Chain, model: Model, meter: Meter, draw: Draw, within: Room
    ) -> Draw | None:
        """What a chain writes next: more of its thought, or its answer; None: nothing."""
        if chain.over:
            return None
        await turn(EACH)
        further = replace(draw, n=1, lane=("chain", chain.number))
        if not chain.how:
            on = await self._put_off(chain, model, meter, within)
            if on is not None:
                return replace(further, after=on[0], max_tokens=on[1])
            chain.how = "natural"
            if chain.end.finish == "eos":
                chain.over = True
                return None
        start: Candidate = chain.end
        stop: tuple[str, ...] = ()
        if chain.how == "forced":
            force = forcing(problem, self.think_close, self.force)
            start = await model.inject(start, ending(model.text(start), self.think_close, force))
            stop = on_one_line(force)
        read = chain.used + within.put_in
        most = max(model.sampling.cap - read, within.answer)
        left = largest(most, lambda write: within.fits(model, chain.spent, (read, write)))
        return Draw(after=start, stop=stop, max_tokens=max(left, 1), lane=further.lane)

    async def _put_off(self, chain: _Chain, model: Model, meter: Meter, within: Room) -> tuple[Candidate, int] | None:
        """Where the thought goes on, and for how long at most; None where it may end."""
        wanted = chain.used < self.min_think or chain.ignored < self.n_ignore
        stopped = chain.end.finish == "stop"
        text = chain.end.text
        text = text[: text.rindex(self.think_close)] if stopped and self.think_close in text else text
        # at once, or the same again: the model has nothing to add
        if not wanted or not text.strip() or text == chain.before:
            return None
        word = self.words[chain.ignored % len(self.words)]
        word = word if text[-1].isspace() else (" " if stopped else "\n") + word
        put_in = await size(model, word)
        used = chain.used + put_in

        def fits(write: int) -> bool:
            return within.fits(model, chain.spent, (used, write), (used + write + within.put_in, within.answer))

        left = largest(within.think - used, fits)
        if left < 1:
            return None
        if stopped:
            start = await without(model, meter, chain.end, self.think_close)
            chain.dropped += chain.mark
        else:
            start = chain.end
        chain.put_in, chain.ignored, chain.before = chain.put_in + put_in, chain.ignored + 1, text
        return await model.inject(start, word), left

    def _vote(self, report: Report, chains: Sequence[_Chain]) -> None:
        states = [state for chain in chains for state in chain.states]
        standing = [state for chain in chains if (state := chain.state(self.selector)) is not None]
        chosen, share = by_majority(standing)
        report(states or [chain.end for chain in chains], chosen=chosen, confidence=share)

    async def _choose(
        self, problem: Problem, report: Report, chains: Sequence[_Chain], verifier: Scores | None
    ) -> None:
        """Report the vote of the chains, and with a verifier the best of all answers instead."""
        self._vote(report, chains)
        states = [state for chain in chains for state in chain.states]
        if verifier is not None and any(state.key is not None for state in states):
            scores = await verifier.attempt(problem, states)
            chosen, share = by_best(states, scores)
            report(states, chosen=chosen, confidence=share, scores=scores)


def _length(segment: Candidate) -> int:
    """Tokens of a segment, without the mark that ended it where that is known."""
    return segment.tokens if segment.token_ids is None else len(segment.token_ids)


def _note(chains: Sequence[_Chain]) -> str:
    written, put_in, dropped, ignored = (
        sum(getattr(chain, name) for chain in chains) for name in ("written", "put_in", "dropped", "ignored")
    )
    forced = sum(chain.how == "forced" for chain in chains)
    return (
        f"thinking: {written} tokens written and {put_in} put in, {ignored} ends put off ({dropped} tokens taken "
        f"away); {forced} of {len(chains)} thoughts ended by force"
    )
