r"""Reads an answer out of a model's text, gives it a canonical key, and grades it against a gold answer.

Source: the shared practice of best-of-N code (search-and-learn, compute-optimal-tts: last balanced box, then a
fallback; canonical form before any grouping; a checker that times out means unequal), and math-verify, whose reach was
the measure.
Differs: one policy for every method; equality by key, so it is an equivalence relation by construction; a grammar of
its own (`grammar.py`) that refuses what is ambiguous; exact numbers and polynomials (`forms.py`), and for all else
values at fixed points instead of simplification (`algebra.py`), so that nothing has to be found equal by search.

**Reading.** Only texts that ended by themselves are read: whether a text was truncated is the caller's to decide,
from the finish reason, and a truncated text is not passed in. Thoughts are left out (`thoughts.py`). Where nothing can
be read the answer is None (INVALID); no option is ever picked at random. The rules and their order are in
`reading.py`, marks in `marks.py`, labels in `choices.py`.

**Keys.** Equal keys mean equal answers; an answer without a key is INVALID and never votes. What is not understood is
compared as text (`literals.py`). Units are dropped from keys (`amounts.py`), since "18" and "18 dollars" are one vote.

**Grading** asks for equal keys, but refuses where both units are known and differ, and accepts some of what keys keep
apart, such as a decimal rounded to six places, or the same amount in another unit (`judged` in `canonical.py`).

**Limits.** Algebra is not tried where a number would have over 100,000 bits, or brackets are nested over 30 deep, and
is given up after so many steps of work (see `Reader`); neither depends on the machine's load. The last 200,000
characters of a text are read; an answer of more than 20,000 is INVALID, except in json and chat; math of more than
400 characters is compared as text; JSON nested deeper than 100 is none. Nothing that a model wrote is ever evaluated
as code.
"""

from __future__ import annotations

import asyncio
import math
import time
import weakref

from outthink.answers.canonical import chat_key, choice_key, cleaned_math, easy_key, exactly, judged, plain_text_key
from outthink.answers.code import asked_names
from outthink.answers.literals import json_value
from outthink.answers.reading import MARKED, longest, read_by
from outthink.answers.size import too_large
from outthink.answers.turns import Turns
from outthink.answers.worker import Limit
from outthink.errors import UsageError
from outthink.types import AnswerKind, Problem

MAX_AT_ONCE = 20_000
"""Longest text, in characters, that is read on the event loop (at most some 10 ms); a thread reads longer ones."""
STEPS = 4_000_000
"""What counts as a second of work: about what a processor core of 2020 does in one, while they are counted."""
_SLICE = 0.01  # seconds of reading in a round of an event loop; then others have their turn


class Reader:
    """Reads, keys and grades answers; values of functions are computed in worker processes, started when needed.

    It may be used from many tasks at once and from several event loops one after the other. The processes end with
    `close`, with the reader, or with Python.

    What an answer comes to depends on the answer alone: not on how busy the machine is, on who else asks, or on what
    was asked before. Work is counted in steps (see `worker`), of which there are 4 million for each second of
    `timeout`; 4 times `timeout` in processor time ends what takes long without steps.

    Everything is first tried for a tenth of `timeout`, at most a quarter of a second; what needs more goes on in a
    second process. In both, owners take turns. So a light answer waits for one try of every other owner at most,
    however many heavy ones there are.

    Args:
        timeout: how much work one answer may take, in seconds of an ordinary processor; above 0.
    """

    def __init__(self, timeout: float = 5.0) -> None:
        if not 0 < timeout < math.inf:
            raise UsageError(f"The timeout of a reader is a number of seconds above 0, not {timeout}.")
        # The first try is not counted, for speed. It ends long before the steps of the second one would be used up,
        # so that what it finishes, the second one would finish too.
        self._turns = (
            Turns(Limit(min(timeout / 10, 0.25))),
            Turns(Limit(4 * timeout, math.ceil(STEPS * timeout))),
        )
        for turns in self._turns:
            weakref.finalize(self, turns.worker.stop)
        self._spent: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, float] = weakref.WeakKeyDictionary()

    async def read(self, problem: Problem, text: str) -> tuple[str | None, str | None]:
        """The answer of a complete text and its key; both None where nothing can be read.

        The problem's id is the owner of the work, see `key`. A thousand answers that come at once keep nobody waiting:
        after some of them, others have their turn.
        """
        loop = asyncio.get_running_loop()
        while self._spent.get(loop, 0.0) > _SLICE:  # noqa: ASYNC110 - until the next round, which no event tells
            await asyncio.sleep(0)
        began = time.perf_counter()
        answer = await self._read(problem, text)
        spent = self._spent.get(loop, 0.0)
        if spent <= _SLICE:
            self._spent[loop] = spent + time.perf_counter() - began
            if self._spent[loop] > _SLICE:
                loop.call_soon(self._spent.pop, loop, None)
        return answer

    async def _read(self, problem: Problem, text: str) -> tuple[str | None, str | None]:
        asked = asked_names(problem) if problem.answer == "code" else ()
        if len(text) <= MAX_AT_ONCE:
            answer, rule = read_by(problem.answer, text, problem.options, asked=asked)
        else:
            answer, rule = await asyncio.to_thread(read_by, problem.answer, text, problem.options, asked=asked)
        if problem.marked and rule not in MARKED:
            return None, None
        key = await self.key(problem.answer, answer, owner=problem.id)
        return (None, None) if key is None else (answer, key)

    async def key(self, kind: AnswerKind, answer: str | None, *, owner: str = "") -> str | None:
        """The canonical key; None for None, for an empty answer, for one that is too long and for JSON that is none.

        Math that is too large for algebra, or is not done within the limits, has its text without spacing as its key.

        Args:
            owner: those who ask take turns by this name.

        Raises EngineError where a worker process cannot be started, or was killed from outside or stuck, twice.
        """
        if answer is None or not answer.strip() or len(answer) > longest(kind):
            return None
        if kind == "code":
            return str(await self._ask(owner, "code", answer) or answer.strip())
        if len(answer) <= MAX_AT_ONCE:
            known, key = _without_algebra(kind, answer)
        else:
            known, key = await asyncio.to_thread(_without_algebra, kind, answer)
        if known:
            return key
        return str(await self._ask(owner, "canonical", answer) or cleaned_math(answer))

    async def same(self, kind: AnswerKind, gold: str, answer: str | None, *, owner: str = "") -> bool:
        """Whether `answer` is the gold answer exactly: a decimal near it is wrong, and so is another name or unit.

        Args and errors as of `key`.
        """
        key, gold_key = await self.key(kind, answer, owner=owner), await self.key(kind, gold, owner=owner)
        if key is None or gold_key is None or answer is None:
            return False
        return exactly(kind, gold, answer, gold_key, key)

    async def equal(self, kind: AnswerKind, gold: str, answer: str | None, *, owner: str = "") -> bool:
        """Whether `answer` is right, given the gold answer; a check that is not done within the limits says no.

        Args and errors as of `key`.
        """
        key, gold_key = await self.key(kind, answer, owner=owner), await self.key(kind, gold, owner=owner)
        if key is None or gold_key is None or answer is None:
            return False
        verdict = judged(kind, gold, answer, gold_key, key)
        return await self._ask(owner, "verify", gold, answer) is True if verdict is None else verdict

    async def close(self) -> None:
        """End the worker processes; calling it twice is fine, and a later use starts new ones."""
        for turns in self._turns:
            await asyncio.to_thread(turns.worker.stop)

    async def _ask(self, owner: str, name: str, *arguments: str) -> str | bool | None:
        """What the worker says; None where it has nothing to say, is not done in time or is better not asked."""
        if name != "code" and any(map(too_large, arguments)):
            return None
        for turns in self._turns:
            reply = await turns.ask(owner, (name, *arguments))
            if not reply.late:
                return reply.value
        return None


def _without_algebra(kind: AnswerKind, answer: str) -> tuple[bool, str | None]:
    """Whether the key is known without algebra, and the key."""
    if kind == "choice":
        return True, choice_key(answer)
    if kind == "text":
        return True, plain_text_key(answer)
    if kind == "json":
        return True, json_value(answer, canonical=True)
    if kind == "chat":
        chat = chat_key(answer)
        if chat is not None:
            return True, chat
    easy = easy_key(answer)
    return easy is not None, easy
