"""Thoughts that are begun, ended and reopened by hand, and what of a budget they may use so that an answer fits too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from outthink.errors import BudgetExhausted, EngineError, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model
from outthink.types import Address, Candidate, Problem, Usage

OPEN = "<think>\n"
"""What opens a thought of most models; many open it themselves, or their chat template does."""

CLOSE = "</think>"
FORCE = "\nFinal Answer:"
"""What asks for the answer after a thought that was ended by force (s1)."""
MARK = "\nThe final answer is\n####"
"""The same where no thought is marked: a line of that form in the text before would else be read as the answer."""

EACH = 200
"""Microseconds that it takes to look at what one chain has written, and to prepare what it writes next."""

_BYTES = 8  # of a token, at most, where an engine bounds what it goes on from by its bytes


def forcing(problem: Problem, close: str, force: str | None) -> str:
    """What asks for the answer by force: `force`, or where it is None what fits the problem and the model."""
    lined = not close and problem.answer in ("math", "choice", "text")
    return force if force is not None else MARK if lined else FORCE


def on_one_line(force: str) -> tuple[str, ...]:
    """Stop strings of what is written behind `force`: the end of the line, where the answer stands in a marked one."""
    return ("\n",) if force.endswith("####") else ()


def ending(text: str, close: str = CLOSE, force: str = FORCE) -> str:
    """What is put behind a thought to end it by force."""
    return ("" if text.endswith("\n") else "\n") + (f"{close}\n" if close else "") + force


async def size(model: Model, text: str) -> int:
    """How many tokens a text is; about that where the engine cannot say."""
    return len(await model.tokenizing().encode(text)) if "tokens" in model.powers else -(-len(text.encode()) // 4)


async def begin(
    model: Model, meter: Meter, text: str, lane: Address = ("model", "prefill"), parent: Candidate | None = None
) -> Candidate:
    """A text that answers begin with, as a segment that nobody wrote, so that the trace has the whole text.

    Args:
        parent: what it was made from.
    """
    ids = await model.tokenizing().encode(text) if "tokens" in model.powers else None
    address, parents = (*meter.next_request(lane), 0), () if parent is None else (parent.id,)
    return _kept(meter, Candidate(address=address, parents=parents, text=text, token_ids=ids, **_UNWRITTEN))


async def without(model: Model, meter: Meter, candidate: Candidate, mark: str) -> Candidate:
    """The text of a candidate up to the last `mark` in it, to be continued; it goes on from tokens where it can."""
    text = model.text(candidate)
    before = text[: text.rindex(mark)]
    parts = [segment.token_ids for segment in model.path(candidate)]
    if "tokens" in model.powers and None not in parts:
        ids = [token for part in parts for token in part or ()]
        keep = len(ids) - len(await model.tokenizing().encode(mark))
        if keep > 0 and await model.tokenizing().decode(ids[:keep]) == before:
            return await model.cut(candidate, keep)
    address = meter.next_request((*candidate.address, "reopen"))
    return _kept(meter, Candidate(address=address, parents=(candidate.id,), text=before, **_UNWRITTEN))


def _kept(meter: Meter, made: Candidate) -> Candidate:
    meter.candidates[made.id] = made
    return made


_UNWRITTEN: dict[str, Any] = {"logprobs": (), "finish": "stop", "complete": False}


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many chains a budget has room for, and how much each may write; in tokens.

    Args:
        chains: at least 1.
        think: most of a thought; 0: there is no room for a thought and an answer after it.
        answer: most of the answer.
        put_in: what is put between the two.
        share: what each chain may spend, by unit; empty: there is no limit.
        prompt: of the question.
    """

    chains: int
    think: int
    answer: int
    put_in: int
    share: Mapping[str, float]
    prompt: int

    def cost(self, model: Model, read: int, write: int) -> dict[str, float]:
        """The most that it costs to read so many tokens behind the question and write so many more."""
        each = 1 if "tokens" in model.powers else _BYTES
        return model.cost(Usage(prompt=self.prompt + read * each, completion=write))

    def fits(self, model: Model, spent: Mapping[str, float], *calls: tuple[int, int]) -> bool:
        """Whether a chain that has spent so much can still pay for these calls, each as (read, write)."""
        if not self.share:
            return True
        costs = [self.cost(model, read, write) for read, write in calls]
        return all(
            spent.get(unit, 0.0) + sum(cost.get(unit, 0.0) for cost in costs) <= share * (1 + 1e-9)
            for unit, share in self.share.items()
        )


async def room(
    model: Model, problem: Problem, meter: Meter, draw: Draw, *, think: int, answer: int, put_in: int = 0
) -> Room:
    """What of the budget `draw.n` chains may use, so that each can think and then answer.

    Where not all fit there are fewer, and where not even one does its thought is shorter.

    Args:
        think, answer: most tokens of a thought and of the answer behind it.
        put_in: tokens that are put between them.
    """
    worst = await model.bound(problem, replace(draw, n=1, max_tokens=1))
    prompt = int(worst["tokens"]) - 1
    left = {unit: amount for unit, amount in meter.left().items() if unit != "seconds"}
    whole = Room(chains=1, think=think, answer=answer, put_in=put_in, share=left, prompt=prompt)

    def fits(chains: int, think: int) -> bool:
        one = replace(whole, share={unit: amount / chains for unit, amount in left.items()})
        return one.fits(model, {}, (0, think), (think + put_in, answer))

    chains = largest(draw.n, lambda number: fits(number, think))
    if chains < 1:
        chains, think = 1, largest(think, lambda tokens: fits(1, tokens))
    return replace(whole, chains=chains, think=think, share={unit: amount / chains for unit, amount in left.items()})


def largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 1 to `most` that fits, where all smaller ones do too; 0: none does."""
    if most < 1 or fits(most):
        return max(most, 0)
    low, high = 0, most  # low fits, or is 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


async def thought_through(
    model: Model,
    problem: Problem,
    draws: Sequence[Draw],
    *,
    think: int,
    answer: int,
    close: str = CLOSE,
    force: str = FORCE,
) -> list[list[Candidate]]:
    """Samples that think for at most `think` tokens and then have `answer` tokens for their answer; a list a draw.

    A thought that is too long is ended by force. One whose answer failed or does not fit is left out. Errors as for
    `Model.sample`; none once the thoughts are there.
    """
    stop = (close,) if close else ()
    begun = await model.sample_each(problem, [replace(d, max_tokens=think, stop=stop, step=True) for d in draws])
    ends = [(place, end) for place, children in enumerate(begun) for end in children]
    open_ends = [(place, end) for place, end in ends if end.finish != "eos"]
    starts = [
        end if end.finish == "stop" else await model.inject(end, ending(model.text(end), close, force))
        for _, end in open_ends
    ]
    further = [
        replace(
            draws[place],
            n=1,
            after=start,
            stop=on_one_line(force) if end.finish == "length" else (),
            max_tokens=answer,
            lane=(*draws[place].lane, "answer"),
        )
        for (place, end), start in zip(open_ends, starts, strict=True)
    ]
    answers: list[list[Candidate]] = []
    if further:
        try:
            answers = await model.sample_fitting(problem, further)
        except (BudgetExhausted, EngineError, PromptTooLong):
            answers = [[] for _ in further]
    after = {end.id: children for (_, end), children in zip(open_ends, answers, strict=True)}
    return [[one for end in children for one in after.get(end.id, [end])] for children in begun]
