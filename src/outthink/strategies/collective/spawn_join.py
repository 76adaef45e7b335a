"""Spawn and join: the model hands parts of the work to threads that know nothing else, and goes on with their results.

Source: the prompted form of Pan et al., Learning Adaptive Parallel Reasoning with Language Models (APR, 2025), paper
and code read; that one trains a model to spawn, so this has another name. Prompts and marks are ours. Differs: one
level of children; a result is one line; a block that cannot be read is text.

Pays: for problems with independent parts, and models that state a task as a whole; else it is one chain of thought with
a longer prompt. A 0.5B model spawned in 7 of 200 sums (docs/results/selection.md). Numbers of the source are for a
model trained on one game and do not hold for it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from outthink.answers.marks import unmarked
from outthink.answers.thoughts import spoken
from outthink.errors import BudgetExhausted, EngineError, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.strategies import Report, checks
from outthink.strategies.choosing import last_line
from outthink.strategies.collective.threads import Thread
from outthink.strategies.thinking import Room, ending, forcing, largest, on_one_line, room, size
from outthink.together import each
from outthink.types import Candidate, Message, Problem

_ASK = (
    "You may hand parts of the problem below to helpers, who work at the same time and know only what you write to "
    "them. Do so where parts do not depend on each other. For a problem such as 12 * 3 + 40 / 5 write\n<spawn>\n"
    "<task>What is 12 * 3?</task>\n<task>What is 40 / 5?</task>\n</spawn>\nand go on from the results that you get; at "
    "most {rounds} such blocks with at most {children} tasks in each. Where no help is needed just solve it.\n\n{task}"
)
_CHILD = (
    "{task}\n\nWork it out step by step, briefly. End with one line: Result: and what was asked for, or Result: no "
    "solution"
)
_CLOSE = "</spawn>"
_TASK = re.compile(r"<task>(.*?)</task>", re.DOTALL)
_RESULT = re.compile(r"\W*result[\s*_]*:[\s*_]*(.*)", re.IGNORECASE)
_NONE = "no solution"
_LETTERS = 300  # of a result


def ask_prompt(problem: Problem, children: int, rounds: int) -> tuple[Message, ...]:
    """The problem's messages with how to spawn before the last one's text."""
    *before, last = problem.messages
    return (*before, replace(last, content=_ASK.format(task=last.text, children=children, rounds=rounds)))


def child_prompt(task: str) -> tuple[Message, ...]:
    """All that a child knows."""
    return (Message(content=_CHILD.format(task=task.strip())),)


def read_tasks(text: str, most: int) -> list[str]:
    """The tasks of the block that a text ends with, at most so many; none where it has no such block."""
    _, opened, block = text.rpartition("<spawn>")
    tasks = (task.strip() for task in _TASK.findall(block)) if opened and _CLOSE in block else ()
    return [task for task in tasks if task][:most]


def read_result(text: str) -> str:
    """The result of a child: what its last line with that name says, else its last line.

    It is not marked as an answer, since it is put into the parent's.
    """
    named = last_line(_RESULT, text)
    *_, last = ["", *text.strip().splitlines()]
    return unmarked((named[1] if named else last)[-_LETTERS:]).strip() or _NONE


def joined(results: Sequence[str]) -> str:
    """What the parent is told."""
    return "\n<results>\n" + "".join(f"<result>{result}</result>\n" for result in results) + "</results>\n"


@dataclass(frozen=True, kw_only=True)
class SpawnJoin:
    """One thread that may spawn others, which the model in the role "child", else the main model writes.

    Args:
        children: most threads of one block; at least 1.
        rounds: most blocks; at least 0, which is one chain of thought with the same prompt.
        child_max: most tokens of a child.
        answer_max: tokens kept for the answer; None: a quarter of `max_tokens`.
    """

    children: int = 4
    rounds: int = 2
    child_max: int = 256
    answer_max: int | None = None

    powers: ClassVar[frozenset[str]] = frozenset({"prefix"})  # what the model must be able to do
    first: ClassVar[tuple[Draw, ...]] = ()  # what it asks first is not the problem as it stands

    def __post_init__(self) -> None:
        checks.check(self, at_least_one=("children", "child_max"), at_least_zero=("rounds",))
        if self.answer_max is not None and self.answer_max < 1:
            raise ValueError(f"answer_max must be at least 1, not {self.answer_max}")

    @property
    def at_once(self) -> int:
        """The children of a block."""
        return self.children

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models, meter: Meter) -> None:
        """The parent writes until it spawns or ends; children of a block are one batch."""
        cap, force = model.sampling.cap, forcing(problem, "", None)
        put_in = await size(model, ending("", "", force))
        answer = min(self.answer_max or max(cap // 4, 1), max(cap - 1, 1))
        messages = ask_prompt(problem, self.children, self.rounds)
        draw = Draw(messages=messages, stop=(_CLOSE,), step=True)
        most = max(cap - answer - put_in, 1)
        within = None
        with contextlib.suppress(PromptTooLong):
            within = await room(model, problem, meter, draw, think=most, answer=answer, put_in=put_in)
        if within is None or within.think < 1:
            meter.notes.append("there is no room to say how to spawn, so nothing was spawned")
            (sample,) = await model.sample(problem)
            report([sample], chosen=sample if sample.key is not None else None)
            return
        parent = _Parent()
        while await self._goes_on(problem, parent, draw, model, meter, within):
            if parent.end is not None and parent.end.finish == "stop":
                await self._spawn(problem, parent, model, models.role("child"), meter, within)
        answered = parent.end
        if answered is not None and not answered.complete:  # it is out of room, so it has to answer
            start = await model.inject(answered, ending(model.text(answered), "", force))
            most = max(cap - parent.used - put_in, answer)
            left = largest(most, lambda write: within.fits(model, parent.spent, (parent.used + put_in, write)))
            with contextlib.suppress(BudgetExhausted, EngineError, PromptTooLong):
                last = Draw(messages=messages, after=start, stop=on_one_line(force), max_tokens=max(left, 1))
                ((answered,),) = await model.sample_each(problem, [last])
                parent.written += answered.tokens
        if answered is not None:
            report([answered], chosen=answered if answered.key is not None else None)
        thread = Thread(tokens=parent.written, rounds=tuple(parent.rounds))
        meter.notes.append(f"{sum(map(len, parent.rounds))} threads spawned; {thread.note()}")

    async def _goes_on(
        self, problem: Problem, parent: _Parent, draw: Draw, model: Model, meter: Meter, within: Room
    ) -> bool:
        """Write a piece of the parent; False where it has ended or there is no room for more."""
        if parent.end is not None and parent.end.finish != "stop":
            return False
        before = meter.cost()

        def fits(write: int) -> bool:
            reads = parent.used + write + within.put_in
            return within.fits(model, parent.spent, (parent.used, write), (reads, within.answer))

        left = largest(within.think - parent.used, fits)
        further = replace(draw, after=parent.end, max_tokens=left)
        if len(parent.rounds) >= self.rounds:
            further = replace(further, stop=(), step=False)
        if left < 1:
            return False
        try:
            ((parent.end,),) = await model.sample_each(problem, [further])
        except (BudgetExhausted, EngineError, PromptTooLong):
            if parent.end is None:
                raise
            return False
        parent.written += parent.end.tokens
        parent.used += parent.end.tokens
        parent.pay(before, meter.cost())
        return True

    async def _spawn(
        self, problem: Problem, parent: _Parent, model: Model, child: Model, meter: Meter, within: Room
    ) -> None:
        """Run what the parent has asked for, and tell it the results.

        A block stays text where it cannot be read, or where its tasks and their results would cost what the answer
        needs.
        """
        assert parent.end is not None
        before, cap = meter.cost(), min(self.child_max, child.sampling.cap)
        tasks = read_tasks(parent.end.text, self.children)
        draws = [Draw(messages=child_prompt(task), max_tokens=cap, parents=(parent.end,), aside=True) for task in tasks]
        children: list[Thread] = []
        told = len(tasks) * (min(cap, _LETTERS) + len(joined([""])))
        kept = within.cost(model, parent.used + told + within.put_in, within.answer)
        if tasks and await _room_for(problem, draws, child, meter, kept):
            results = [_NONE] * len(tasks)
            with contextlib.suppress(BudgetExhausted, EngineError, PromptTooLong):
                drawn = await child.lane(len(parent.rounds)).sample_fitting(problem, draws)
                results = await each(_result_of, drawn)
                children = [Thread(tokens=text.tokens) for texts in drawn for text in texts]
            parent.end = await model.inject(parent.end, joined(results))
            parent.used += await size(model, parent.end.text)
        parent.rounds.append(tuple(children))
        parent.pay(before, meter.cost())


def _result_of(texts: Sequence[Candidate]) -> str:
    ended = bool(texts) and texts[0].finish == "eos"  # a result that was cut off is another one
    return read_result(spoken(texts[0].text)) if ended else _NONE


async def _room_for(
    problem: Problem, draws: Sequence[Draw], child: Model, meter: Meter, kept: Mapping[str, float]
) -> bool:
    """Whether what is left of the budget pays for all of these and for what is to be kept of it."""
    try:
        worst = [await child.bound(problem, draw) for draw in draws]
    except PromptTooLong:
        return False
    return all(
        sum(cost.get(unit, 0.0) for cost in worst) + kept.get(unit, 0.0) <= left
        for unit, left in meter.left().items()
        if unit != "seconds"
    )


@dataclass(kw_only=True, eq=False)
class _Parent:
    """The first thread so far: its last segment, what it wrote and reads, its children, and what all of it has cost."""

    end: Candidate | None = None
    written: int = 0
    used: int = 0
    rounds: list[tuple[Thread, ...]] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)

    def pay(self, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        """Count what was spent between two looks."""
        for unit, amount in after.items():
            self.spent[unit] = self.spent.get(unit, 0.0) + amount - before.get(unit, 0.0)
