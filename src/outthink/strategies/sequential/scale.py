"""SCALE: a problem is split into steps, each is rated, and only the hard ones are thought about at length.

Source: Xiao et al., SCALE: Selective Resource Allocation for Overcoming Performance Bottlenecks in Mathematical
Test-time Scaling (2025), paper and code read. Prompts are ours. Differs: a step is rated just before it is solved, as
in the paper, where the code rates all of them first; an outline, a rating or a step that cannot be had falls back to
the plain way; nothing is spent that the answer to the whole question needs.

Pays: on long problems, for a model that can think long and short, or two models; it spends three to four times the
tokens of plain thinking, so it must be compared with a vote. On short questions it is overhead. No model that thinks
can be run here, so the effect of the paper is not shown.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from outthink.answers.thoughts import spoken
from outthink.errors import BudgetExhausted, EngineError, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.strategies import Report, checks
from outthink.strategies.parallel.nothinking import without_thinking
from outthink.strategies.prompting import said_by
from outthink.types import Candidate, Message, Problem, Usage

_OUTLINE = (
    "Problem:\n{question}\n\nSplit it into sub-goals that lead to its answer, at most {most}, in the order in which "
    "they are to be reached. Say what is to be found in each, not how, and solve nothing. Reply with one JSON object "
    'and nothing else: {{"step1": "Find how ...", "step2": "Find what ..."}}'
)
_PICK = (
    "Problem:\n{question}\n\n{outlines}\n\nWhich of these outlines is the best one: in logical order, clear, complete, "
    "to the point and simple? Reply with its number only, from 1 to {count}."
)
_RATE = (
    "{context}Sub-problem: {step}\n\nHow hard is this sub-problem, from 0 (at once) to 1 (very hard)? Reply with one "
    "number only."
)
_SOLVE = "{context}Solve only this sub-problem: {step}\n\n{manner}"
_SHORT = "Reply with the result in one or two sentences, without explaining."
_LONG = "Think step by step, and end with the result in one sentence."
_LAST = (
    "Parts of the problem below are solved already:\n\n{solved}\n\nCheck them before you use them. The whole problem:"
    "\n\n{task}"
)
_NUMBERS = re.compile(r"\d*\.\d+|\d+")
_STEP = re.compile(r'"step\s*\d+"\s*:\s*("(?:[^"\\]|\\.)*")', re.IGNORECASE)
_SMALL = 2048  # tokens of an outline, at most
_WORD = 64  # of a rating or a number


def read_outline(text: str, most: int) -> list[str]:
    """The steps of an outline, in their order, at most so many; none where it is no outline."""
    steps = []
    for quoted in _STEP.findall(spoken(text)):
        try:
            step = " ".join(str(json.loads(quoted, strict=False)).split())
        except ValueError:
            continue
        steps += [step] if step else []
    return steps[:most]


def read_rating(text: str) -> float | None:
    """A difficulty in [0, 1]; None where the text has no such number in its last line."""
    rating = _only_number(text)
    return rating if rating is not None and 0 <= rating <= 1 else None


def _only_number(text: str) -> float | None:
    """The number of the last line, where it is the only one there."""
    *_, last = ["", *spoken(text).strip().splitlines()]
    numbers = _NUMBERS.findall(last[-200:])
    return float(numbers[0]) if len(numbers) == 1 else None


def context(problem: Problem, solved: Sequence[tuple[str, str]]) -> str:
    """The problem and the steps before with their results, as a step is shown them."""
    steps = "".join(f"Sub-problem: {step}\nResult: {result}\n\n" for step, result in solved)
    return f"Problem:\n{problem.question}\n\n{steps}"


@dataclass(frozen=True, kw_only=True)
class SCALE:
    """The problem in steps: easy ones by the role "fast", hard ones by the main model, the last one is the problem.

    The role "fast" is the main model where none is given. It also writes, picks and rates.

    Args:
        outlines: outlines drawn, of which one is picked; at least 1.
        tau: a step rated above it is hard; below 0 all are hard, at 1 none is but the last.
        last_hard: the last step, which is the problem itself, is always hard and not rated.
        steps: most steps of an outline; at least 1.
        retries: how often a number that cannot be read is asked for again; then the first outline is taken, and a step
            is hard.
        switch: is added to what "fast" is asked, for models that can be told not to think ("/no_think").
        fast_max: most tokens of an easy step.
    """

    outlines: int = 8
    tau: float = 0.5
    last_hard: bool = True
    steps: int = 8
    retries: int = 3
    switch: str = ""
    fast_max: int = 256

    at_once: ClassVar[int] = 1

    def __post_init__(self) -> None:
        checks.check(self, at_least_one=("outlines", "steps", "fast_max"), at_least_zero=("retries",))
        if math.isnan(self.tau):
            raise ValueError("tau must be a number")

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models, meter: Meter) -> None:
        """Plain, where there is no outline; else step by step, with as many steps as leave room for the last."""
        fast = models.role("fast")
        outline = await self._outline(problem, model, fast, meter)
        solved: list[tuple[str, str]] = []
        made: list[Candidate] = []
        tokens = {True: 0, False: 0}
        for step in outline[:-1]:
            hard = await self._hard(problem, solved, step, model, fast, meter)
            result = await self._solve(problem, solved, step, hard, model, fast, meter)
            if result is None:
                break  # what is left goes to the last step
            made.append(result)
            tokens[hard] += result.tokens
            solved.append((step, (await said_by([result]))[result.id]))
        hard = not outline or self.last_hard or await self._hard(problem, solved, problem.question, model, fast, meter)
        answer = await self._answer(problem, solved, made, hard, model, fast)
        tokens[hard] += answer.tokens
        report([answer], chosen=answer if answer.key is not None else None)
        meter.notes.append(
            f"{len(outline)} steps, {len(solved)} solved before the last; {tokens[False]} tokens in easy steps and "
            f"{tokens[True]} in hard ones"
        )

    async def _outline(self, problem: Problem, model: Model, fast: Model, meter: Meter) -> list[str]:
        """The steps, the last of which stands for the problem itself; none where there is no outline."""
        prompt = self._quickly(_OUTLINE.format(question=problem.question, most=self.steps))
        draw = Draw(messages=prompt, max_tokens=min(_SMALL, fast.sampling.cap), aside=True)
        drawn = await self._aside(problem, replace(draw, n=self.outlines), model, fast.lane("outline"), meter)
        read = {tuple(steps): one for one in reversed(drawn) if (steps := read_outline(one.text, self.steps))}
        plans = list(reversed(read))
        if len(plans) < 2:
            return list(plans[0]) if plans else []
        listed = "\n\n".join(
            f"Outline {number}:\n" + "\n".join(f"{place}. {step}" for place, step in enumerate(steps, 1))
            for number, steps in enumerate(plans, 1)
        )
        pick = Draw(
            messages=self._quickly(_PICK.format(question=problem.question, outlines=listed, count=len(plans))),
            parents=tuple(read[steps] for steps in plans),
            max_tokens=min(_WORD, fast.sampling.cap),
            aside=True,
        )
        for _ in range(1 + self.retries):
            said = await self._aside(problem, pick, model, fast.lane("pick"), meter)
            if not said:
                break
            number = _only_number(said[0].text) if said[0].finish == "eos" else None
            if number is not None and number in range(1, len(plans) + 1):
                return list(plans[int(number) - 1])
        return list(plans[0])

    async def _hard(
        self, problem: Problem, solved: Sequence[tuple[str, str]], step: str, model: Model, fast: Model, meter: Meter
    ) -> bool:
        """Whether a step is rated above tau; one that is not rated is hard."""
        if self.tau < 0:
            return True
        prompt = self._quickly(_RATE.format(context=context(problem, solved), step=step))
        draw = Draw(messages=prompt, max_tokens=min(_WORD, fast.sampling.cap), aside=True)
        for _ in range(1 + self.retries):
            said = await self._aside(problem, draw, model, fast.lane("rate"), meter)
            rating = read_rating(said[0].text) if said and said[0].finish == "eos" else None
            if rating is not None:
                return rating > self.tau
            if not said:
                break
        return True

    async def _solve(
        self,
        problem: Problem,
        solved: Sequence[tuple[str, str]],
        step: str,
        hard: bool,
        model: Model,
        fast: Model,
        meter: Meter,
    ) -> Candidate | None:
        """The result of a step; None where it could not be had."""
        manner = _LONG if hard else _SHORT
        asked = _SOLVE.format(context=context(problem, solved), step=step, manner=manner)
        messages = (Message(content=asked),) if hard else self._quickly(asked)
        solver = model if hard else fast
        most = None if hard else min(self.fast_max, fast.sampling.cap)
        draw = Draw(messages=messages, max_tokens=most, aside=True)
        drawn = await self._aside(problem, draw, model, solver.lane("step"), meter, solved)
        return drawn[0] if drawn and spoken(drawn[0].text).strip() else None

    async def _answer(
        self,
        problem: Problem,
        solved: Sequence[tuple[str, str]],
        made: Sequence[Candidate],
        hard: bool,
        model: Model,
        fast: Model,
    ) -> Candidate:
        """The answer to the problem, behind what is solved; plain where nothing is or that cannot be had."""
        solver = model if hard else fast
        if solved:
            messages = _with(problem, solved)
            messages = messages if hard else without_thinking(messages, self.switch)
            with contextlib.suppress(PromptTooLong, BudgetExhausted, EngineError):
                return (await solver.sample(problem, messages=messages, parents=tuple(made)))[0]
        return (await solver.sample(problem))[0]

    async def _aside(
        self,
        problem: Problem,
        draw: Draw,
        model: Model,
        writer: Model,
        meter: Meter,
        solved: Sequence[tuple[str, str]] = (),
    ) -> list[Candidate]:
        """What is written aside; nothing where it fails, does not fit, or would cost what the answer needs.

        Args:
            solved: what the answer will have to read besides what is written now.
        """
        try:
            worst = await writer.bound(problem, replace(draw, n=1))
            answer = await model.bound(problem, Draw(messages=_with(problem, solved)) if solved else None)
            most = writer.sampling.cap if draw.max_tokens is None else draw.max_tokens
            read = model.cost(Usage(prompt=most))
            for unit, left in meter.left().items():
                wanted = draw.n * worst.get(unit, 0.0) + answer.get(unit, 0.0) + read.get(unit, 0.0)
                if unit != "seconds" and wanted > left:
                    return []
            return (await writer.sample_each(problem, [draw]))[0]
        except (BudgetExhausted, EngineError, PromptTooLong):
            return []

    def _quickly(self, text: str) -> tuple[Message, ...]:
        return without_thinking((Message(content=text),), self.switch)


def _with(problem: Problem, solved: Sequence[tuple[str, str]]) -> tuple[Message, ...]:
    """The problem's messages with what is solved of it before the last one's text."""
    *before, last = problem.messages
    listed = "\n\n".join(f"Sub-problem: {step}\nResult: {result}" for step, result in solved)
    return (*before, replace(last, content=_LAST.format(task=last.text, solved=listed)))
