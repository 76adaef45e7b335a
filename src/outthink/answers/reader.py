r"""Reads an answer out of a model's text, gives it a canonical key, and grades it against a gold answer.

Source: the shared practice of best-of-N code (search-and-learn, compute-optimal-tts: last balanced box, then a
fallback; canonical form before any grouping; a checker that times out means unequal) and the math-verify package.
How this differs: one policy for every method, equality by key (so it is an equivalence relation by construction),
exact fractions for plain numbers, and a worker process that is killed when an answer takes too long.

**Reading.** Only texts that ended by themselves are read: whether a text was truncated is the caller's to decide,
from the finish reason, and a truncated text is not passed in. What stands before a last `</think>` is ignored.
Where nothing can be read the answer is None (INVALID); no option is ever picked at random.

- math: the last balanced `\boxed{...}` that is not empty; else the last `#### x` (a `####` heading made of words is
  skipped); else what follows "answer is", "answer:" or "answer ="; else the last number of the text. Of a phrase
  such as "18 because ..." the first number is taken.
- choice: the last box, `####` or "answer is" that holds a label, in this order; else the last label standing alone.
  A bare "A" or "I" before a lower-case word is an article or a pronoun, not a label.
- text: the last box; else the line after whichever of `####`, "answer:" and "answer is" comes last; else the last
  line that is not empty.
- code: the last fenced ```python block that defines a function or class (so that a usage example after it does not
  win), else the last such block, else the same among other fenced blocks; else the whole text, if it is Python.
- json: the whole text; else the last fenced ```json block that is JSON, else the last fenced block that is.
- chat: the whole text, where it is a JSON object or array, alone or in one fenced block; else what is marked as the
  answer: the last box, else the last `####` line that is no heading, else what follows "answer is" or "answer:", words
  included; else the whole text. What stands in fenced blocks marks nothing, save a box.

**Keys.** Equal keys mean equal answers; an answer without a key is INVALID and never votes.

- math, plain numbers: the exact fraction, so `1/2`, `0.5` and `\frac{1}{2}` agree. Signs, currency, thousands
  commas, degrees, units in words ("18 dollars", `5.4 \text{ cents}`), a lone `x =`, scientific notation, mixed
  numbers and "3 million" are understood. A percent sign is a unit: `50%` is 50, not 1/2.
- math, all else: a canonical form computed by math-verify and sympy in the worker; where that fails or takes too
  long, the text without its spacing. `x = 5` is 5; `x \in [1,2]` is `[1,2]`; `1,234` is a number, `1, 234` a list.
- choice: the label in upper case. text: Unicode NFKC, case folded, single spaces, no quotes or closing punctuation.
  code: the source as Python itself would write it (comments and layout do not count).
- json: the value with its names sorted, without spaces, and with its numbers by their exact value; a string is no
  number. chat: as json, math or text, whichever the answer looks like; of a very long text a hash.

**Grading** asks for equal keys first and then, for math that is not two plain numbers, math-verify with the gold
answer first. It can accept what the key keeps apart (a decimal rounded to six places), never the reverse.

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
    """Reads, keys and grades answers; what needs sympy runs in one worker process, started when first needed.

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
