"""A model judges the replies of a recorded run, each alone, metered as any other work.

Source: none of its own; the questions and verdicts are those of `rewards.judge`. Differs: a reply is right (1) where
Yes is at least as likely as No, else wrong (0). A judge errs, and may like the style of one model more than another's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from outthink.answers.thoughts import spoken
from outthink.driver import solve_async
from outthink.errors import EngineError, PromptTooLong
from outthink.model import Model
from outthink.models.engine import Engine
from outthink.records.runs import read_results
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.types import Budget, Message, Problem, Trace

_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedReplies:
    """What a judge has said.

    Args:
        credits: of each problem, 1 right and 0 wrong.
        failed: replies of which nothing is known, since the judge failed, could not be paid or could not read them.
        cost: what was charged, by unit, failures included.
    """

    credits: Mapping[str, float]
    failed: int
    cost: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class JudgeReply:
    """Asks a verifier what it thinks of a reply that is there already.

    Args:
        reply: its text.
    """

    reply: str

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores) -> None:
        """One score; where there is none, nothing is reported."""
        candidate = await model.made(problem, self.reply)
        (score,) = await verifier.score(problem, [candidate])
        if score is not None:
            report([candidate], chosen=candidate, scores=[score])


async def judge_run(
    folder: Path, judge: Engine, done: Collection[str], *, budget: str | Budget | None = None
) -> JudgedReplies:
    """Ask a model of every reply in a run.

    Args:
        done: problems that are left out.
        budget: the most that one reply may cost.
    """
    credits: dict[str, float] = {}
    cost: Counter[str] = Counter()
    failed = 0

    async def one(problem: str, trace: Trace) -> None:
        nonlocal failed
        text = trace.text or trace.answer
        if text is None or not trace.prompts:
            credits[problem] = 0.0  # no reply is no good one
            return
        try:
            said = await solve_async(
                _asked(problem, trace.prompts[0]),
                JudgeReply(reply=text),
                model=judge,
                verifier="judge",
                budget=budget,
            )
        except (EngineError, PromptTooLong) as failure:
            left: Trace | None = getattr(failure, "trace", None)
            if left is not None:
                cost.update(left.cost)
            failed += 1
            return
        cost.update(said.cost)
        scores = said.rounds[-1].scores if said.rounds else None
        if scores is None or scores[0] is None:
            failed += 1
        else:
            credits[problem] = float(scores[0] >= 0.5)

    waiting: set[asyncio.Task[None]] = set()
    try:
        for result in read_results(folder):
            if result.problem in done or result.credit is not None or result.trace is None:
                continue
            waiting.add(asyncio.create_task(one(result.problem, result.trace)))
            if len(waiting) >= _AT_ONCE:
                over, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in over:
                    task.result()
        await asyncio.gather(*waiting)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return JudgedReplies(credits=credits, failed=failed, cost=dict(cost))


def _asked(problem: str, messages: tuple[Message, ...]) -> Problem:
    """What was asked, as a judge reads it: the question, or the conversation where there is more than one turn."""
    turns = [message for message in messages if message.role not in ("system", "developer")] or list(messages)
    question = turns[0].text if len(turns) == 1 else "\n\n".join(f"{turn.role}: {spoken(turn.text)}" for turn in turns)
    return Problem(id=problem, messages=messages, question=question, answer="chat")
