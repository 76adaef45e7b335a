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

**Limits.** The last 200,000 characters of a text are read; an answer of more than 20,000 is INVALID, except in json
and chat; math of more than 400 characters is compared as text; JSON nested deeper than 100 is none. Nothing that a
model wrote is ever evaluated as code.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from outthink.answers.canonical import chat_key, choice_key, cleaned_math, easy_key, judged, plain_text_key
from outthink.answers.literals import json_value
from outthink.answers.reading import longest, read
from outthink.answers.worker import Worker
from outthink.types import AnswerKind, Problem

CACHE_SIZE = 1 << 16


LONG_TEXT = 20_000


class Reader:
    """Reads, keys and grades answers; what needs the values of functions runs in one worker process.

    It may be used from many tasks at once and from several event loops one after the other. The worker is killed
    and replaced when an answer takes longer than `timeout`; it ends with `close`, with the reader, or with Python.

    Args:
        timeout: most seconds of wall-clock for one answer in the worker; above 0.
    """

    def __init__(self, timeout: float = 5.0) -> None:
        self._worker = Worker(timeout)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outthink-answers")
        self._cache: OrderedDict[tuple[str, ...], str | bool | None] = OrderedDict()
        self._lock = threading.Lock()
        weakref.finalize(self, self._worker.stop)

    async def read(self, problem: Problem, text: str) -> tuple[str | None, str | None]:
        """The answer of a complete text and its key; both None where nothing can be read."""
        if len(text) > LONG_TEXT:  # on a thread, so that nobody waits for it
            answer = await asyncio.to_thread(read, problem.answer, text, problem.options)
        else:
            answer = read(problem.answer, text, problem.options)
        key = await self.key(problem.answer, answer)
        return (None, None) if key is None else (answer, key)

    async def key(self, kind: AnswerKind, answer: str | None) -> str | None:
        """The canonical key; None for None, for an empty answer, for one that is too long and for JSON that is none.

        Raises EngineError only where the worker process cannot be started at all.
        """
        if answer is None or not answer.strip() or len(answer) > longest(kind):
            return None
        if kind == "choice":
            return choice_key(answer)
        if kind == "text":
            return plain_text_key(answer)
        if kind == "code":
            return str(await self._ask("code", answer) or answer.strip())
        if kind == "json":
            return json_value(answer, canonical=True)
        if kind == "chat":
            chat = chat_key(answer)
            if chat is not None:
                return chat
        easy = easy_key(answer)
        if easy is not None:
            return easy
        return str(await self._ask("canonical", answer) or cleaned_math(answer))

    async def equal(self, kind: AnswerKind, gold: str, answer: str | None) -> bool:
        """Whether `answer` is right, given the gold answer; a check that takes too long says no."""
        key, gold_key = await self.key(kind, answer), await self.key(kind, gold)
        if key is None or gold_key is None or answer is None:
            return False
        verdict = judged(kind, gold, answer, gold_key, key)
        return await self._ask("verify", gold, answer) is True if verdict is None else verdict

    async def close(self) -> None:
        """End the worker process; calling it twice is fine, and a later use starts a new one."""
        await asyncio.to_thread(self._worker.stop)

    async def _ask(self, *request: str) -> str | bool | None:
        with self._lock:
            if request in self._cache:
                self._cache.move_to_end(request)
                return self._cache[request]
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._work, request)

    def _work(self, request: tuple[str, ...]) -> str | bool | None:
        with self._lock:  # the same answer often comes several times at once; the first one has done the work
            if request in self._cache:
                return self._cache[request]
        reply = self._worker.ask(request)
        with self._lock:
            self._cache[request] = reply
            if request[0] == "verify" and reply is None:
                self._cache["verify", request[2], request[1]] = None  # what hangs one way need not be tried the other
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return reply
