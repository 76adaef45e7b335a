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

import ast
import asyncio
import contextlib
import hashlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import lru_cache
from typing import Any

from outthink.errors import EngineError
from outthink.types import AnswerKind, Problem

MAX_TEXT = 200_000
MAX_ANSWER = 20_000
MAX_MATH = 400
MAX_SHORT = 80
MAX_DEPTH = 100
CACHE_SIZE = 1 << 16
START_SECONDS = 120.0

_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]*)")
_ANSWER = re.compile(r"\banswers?[ \t*_\"']*(?:is|are|:|=)(?:[*_]+(?=\s))?[ \t:]*([^\n]*)", re.IGNORECASE)
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_FRAC = re.compile(
    rf"\\[dtc]?frac\s*(?:\{{\s*([+-]?(?:{_DIGITS}))\s*\}}|([0-9]))\s*(?:\{{\s*((?:{_DIGITS}))\s*\}}|([0-9]))"
)
_FIRST_NUMBER = re.compile(
    rf"(?<![0-9A-Za-z.])[+-]?\s?[$€£¥₹]?(?:{_FRAC.pattern}|(?:{_DIGITS})(?:\s?/\s?[0-9]+(?![0-9]))?)\s?%?"
)
_PLAIN = re.compile(
    rf"""(?P<sign>[+-]?)\s*(?:USD?|EUR|GBP)?\s*[$€£¥₹]?\s*(?P<inner>[+-]?)\s*
    (?: (?P<whole>[0-9]+)\s+(?P<top>[0-9]+)\s*/\s*(?P<bottom>[0-9]+)
      | 10\s*\^\s*\{{?\s*(?P<ten>[+-]?[0-9]{{1,3}})\s*\}}?
      | (?P<value>{_DIGITS})\.?
        (?: \s*/\s*(?P<over>{_DIGITS})
          | [eE](?P<exp>[+-]?[0-9]{{1,3}})
          | \s*(?:\*|x|×|\\times|\\cdot)\s*10\s*\^\s*\{{?\s*(?P<power>[+-]?[0-9]{{1,3}})\s*\}}?
        )?
    )
    (?P<unit>(?:[\s/.-]*(?:\x00[A-Za-z]++|[A-Za-z]{{2,}}+)(?:\^\s*\{{?[0-9]\}}?|[²³])?)*)[\s.]*""",
    re.VERBOSE,
)
_BASED = re.compile(r"\(?([0-9][0-9A-Fa-f]*)\)?_\s*\{?\s*([0-9]{1,2})\s*\}?")
_EXACT = re.compile(r"-?[0-9]+(?:/[0-9]+)?|[0-9][0-9A-F]*_[0-9]+")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_NOT_WORDS = re.compile(rf"{_TEXT_COMMAND.pattern}|\\(?:begin|end)\s*\{{[a-z]*\}}")
_SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
}  # fmt: skip
_NOT_UNITS = re.compile(
    r"(?i:pi|tau|phi|theta|alpha|beta|gamma|delta|lambda|infinity|infty|inf|sqrt|cbrt|exp|log|ln|lg|mod|gcd|lcm|choose"
    r"|(?:arc)?(?:sin|cos|tan)|cot|sec|csc|plus|minus|times|over|divided|squared|cubed|factorial|and|or|to|in|of|if|when"
    r"|more|less|hal(?:f|ves)|quarters?|(?:third|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)s?)"
)
_CHARACTERS = str.maketrans({"−": "-", "⁄": "/", "÷": "/", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\x00": ""})
_FENCED = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```[^\n]*$|\Z)", re.DOTALL | re.MULTILINE)
_LABEL = re.compile(
    r"[*_(\[ ]*(?:(?:option|choice)[ ])?[*_(\[]*([A-J])[*_]*(?:[)\]]|[:.](?=[\s*_]|$)|$)", re.IGNORECASE
)
_OTHER_LABEL = re.compile(r"\b[A-Z](?:[).:,]|$)")
_SENTENCE_END = re.compile(r"(?<![\s.])(?<!\b[A-Z])(?<!\b(?:Mr|Ms|Dr|St|vs))(?<!\bMrs)[.!?]\s")
_REASON = re.compile(r"[,;]?\s(?:because|since|which)\b|[,;]\s(?:as|but|for|so)\b", re.IGNORECASE)
_NO_ANSWER = re.compile(r"(?:as|based|found|given|not|that|to)\b", re.IGNORECASE)
_LATEX = re.compile(r"\\[A-Za-z(\[{]|\$[^$]+\$|\^")
_JSON_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DRESS = (("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ("*", "*"), ("`", "`"), ("<", ">"))


def read(kind: AnswerKind, text: str, options: tuple[str, ...] = ()) -> str | None:
    """The answer as it stands in a complete text, or None (INVALID); pure, linear in the text, never raises.

    Args:
        kind: how to read, see the module's text.
        text: the whole text of a sample that ended by itself; its last 200,000 characters are read.
        options: labels of a choice, such as ("A", "B"); A to J where empty. Returned as written here.
    """
    text = text[-MAX_TEXT:]
    if kind == "code":
        answer = _read_code(text)
    else:
        text = text.rpartition("</think>")[2]
        if kind == "math":
            answer = _read_math(text)
        elif kind == "choice":
            answer = _read_choice(text, options or tuple("ABCDEFGHIJ"))
        elif kind == "json":
            answer = _read_json(text)
        elif kind == "chat":
            answer = _read_chat(text)[0]
        else:
            answer = _read_text(text)
    return answer if answer and len(answer) <= _longest(kind) else None


def comparable(text: str) -> bool:
    """Whether a chat's reply has an answer that other replies can be equal to; pure, linear, never raises.

    That is a JSON object or array, an answer that is marked as such, or a text of one line and at most 80 characters.
    A wrong True costs the further samples that are drawn for a vote in which every answer turns out to stand alone; a
    wrong False costs the vote: the reply is taken, or judged, although equal ones could have been counted.

    Args:
        text: the whole text of a sample that ended by itself.
    """
    return _read_chat(text[-MAX_TEXT:].rpartition("</think>")[2])[1]


def plain_number(answer: str) -> Fraction | None:
    """The exact value of a plain number in any usual dress, None where it is not one; never raises."""
    if len(answer) > MAX_MATH:
        return None
    match = _PLAIN.fullmatch(_bare(answer))
    if match is None:
        return None
    scale = 1
    for place, word in enumerate(re.findall(r"[A-Za-z]+", match["unit"])):
        if _NOT_UNITS.fullmatch(word):
            return None
        if place == 0:
            scale = _SCALES.get(word.lower(), 1)
    if match["whole"]:
        if int(match["bottom"]) == 0:
            return None
        value = int(match["whole"]) + Fraction(int(match["top"]), int(match["bottom"]))
    elif match["ten"]:
        value = Fraction(10) ** int(match["ten"])
    else:
        value = Fraction(match["value"].replace(",", ""))
        if match["over"]:
            divisor = Fraction(match["over"].replace(",", ""))
            if divisor == 0:
                return None
            value /= divisor
        value *= Fraction(10) ** int(match["exp"] or match["power"] or 0)
    negative = (match["sign"] == "-") != (match["inner"] == "-")
    return (-value if negative else value) * scale


class Reader:
    """Reads, keys and grades answers; what needs sympy runs in one worker process, started when first needed.

    It may be used from many tasks at once and from several event loops one after the other. The worker is killed
    and replaced when an answer takes longer than `timeout`; it ends with `close`, with the reader, or with Python.

    Args:
        timeout: most seconds of wall-clock for one answer in the worker; above 0.
    """

    def __init__(self, timeout: float = 5.0) -> None:
        self._worker = _Worker(timeout)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outthink-answers")
        self._cache: OrderedDict[tuple[str, ...], str | bool | None] = OrderedDict()
        self._lock = threading.Lock()
        weakref.finalize(self, self._worker.stop)

    async def read(self, problem: Problem, text: str) -> tuple[str | None, str | None]:
        """The answer of a complete text and its key; both None where nothing can be read."""
        answer = read(problem.answer, text, problem.options)
        key = await self.key(problem.answer, answer)
        return (None, None) if key is None else (answer, key)

    async def key(self, kind: AnswerKind, answer: str | None) -> str | None:
        """The canonical key; None for None, for an empty answer, for one that is too long and for JSON that is none.

        Raises EngineError only where the worker process cannot be started at all.
        """
        if answer is None or not answer.strip() or len(answer) > _longest(kind):
            return None
        if kind == "choice":
            return answer.strip().strip("()").upper() or None
        if kind == "text":
            return text_key(answer)
        if kind == "code":
            return str(await self._ask("code", answer) or answer.strip())
        if kind == "json":
            return _json(answer, canonical=True)
        if kind == "chat":
            chat = _chat_key(answer)
            if chat is not None:
                return chat
        easy = _easy_key(answer)
        if easy is not None:
            return easy
        return str(await self._ask("canonical", _for_latex(answer)) or _cleaned(answer))

    async def equal(self, kind: AnswerKind, gold: str, answer: str | None) -> bool:
        """Whether `answer` is right, given the gold answer; a check that takes too long says no."""
        key, gold_key = await self.key(kind, answer), await self.key(kind, gold)
        if key is None or gold_key is None or answer is None:
            return False
        if key == gold_key:
            return True
        algebra = kind == "math" or (kind == "chat" and (_is_latex(gold) or _is_latex(answer)))
        if not algebra or (_EXACT.fullmatch(key) and _EXACT.fullmatch(gold_key)):
            return False
        if max(len(gold), len(answer)) > MAX_MATH:
            return False
        return await self._ask("verify", _for_latex(gold), _for_latex(answer)) is True

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


def text_key(answer: str) -> str:
    """NFKC, case folded, single spaces, without surrounding quotes and closing punctuation; idempotent."""
    key = answer
    for _ in range(8):  # folding can make new compatible characters, so repeat until nothing changes
        folded = _compatible(_compatible(key).casefold())
        folded = " ".join(folded.split())
        folded = folded.strip("\"'`*_“”‘’«» ").rstrip(".,;:!? ") or folded
        if folded == key:
            break
        key = folded
    return key


def _compatible(text: str) -> str:
    """NFKC in pieces, since Python sorts the accents on one letter in quadratic time; a space combines with nothing."""
    if text.isascii():
        return text
    return "".join(unicodedata.normalize("NFKC", piece) for piece in re.findall(r"\S{1,200}|\s+", text))


# ---------------------------------------------------------------- reading


def _longest(kind: AnswerKind) -> int:
    return MAX_TEXT if kind in ("json", "chat") else MAX_ANSWER


def _undress(answer: str, stop: bool = True) -> str:
    """Without surrounding white space, math delimiters, Markdown emphasis and, if `stop`, final full stop."""
    answer = answer.strip()
    for _ in range(8):
        before = answer
        if stop and answer.endswith(".") and not answer.endswith(".."):
            answer = answer[:-1].rstrip()
        for left, right in _DRESS:
            inside = answer[len(left) : len(answer) - len(right)]
            fits = len(answer) > len(left) + len(right) and answer.startswith(left) and answer.endswith(right)
            if fits and left not in inside and right not in inside:
                answer = inside.strip()
        if answer.count("**") == 1:  # "**The answer is 18**"
            answer = answer.removeprefix("**").removesuffix("**").strip()
        if answer == before:
            break
    return answer


def _boxes(text: str) -> Iterator[str]:
    """Contents of the balanced boxes that are not empty, the one that starts last first."""
    opened: list[tuple[int, bool]] = []
    found: list[tuple[int, int]] = []
    for match in _BRACE.finditer(text):
        token = match[0]
        if token == "}":
            start, boxed = opened.pop() if opened else (0, False)
            if boxed and match.start() - start <= MAX_ANSWER:
                found.append((start, match.start()))
        elif token.endswith("{") and token != r"\{":
            opened.append((match.end(), token != "{"))
    for start, end in sorted(found, reverse=True)[:50]:
        if text[start:end].strip():
            yield text[start:end]


def _phrase(rest: str) -> str | None:
    """A math answer out of the rest of a line: an expression is taken whole, of prose the first number."""
    rest = _rest(rest)
    whole = _undress(rest)
    if not whole:
        return None
    if plain_number(whole) is not None:
        return whole
    marked = re.search(r"\$([^$\n]+)\$|\\\((.+?)\\\)", rest)
    if marked:
        return _undress(marked[1] or marked[2])
    sentence = _undress(re.split(r"(?<=[^\s.])\.\s", whole, maxsplit=1)[0])
    if plain_number(sentence) is not None:
        return sentence
    if _words(sentence) < 2:
        return sentence
    number = _FIRST_NUMBER.search(sentence)
    return number[0].strip() if number else None


def _rest(rest: str) -> str:
    """The beginning of what follows a mark on its line, without what a JSON object around it would leave there."""
    rest = rest[: 2 * MAX_MATH].strip(' \t",')
    return rest.rstrip('} "') if rest.count("}") > rest.count("{") else rest


def _words(text: str) -> int:
    """How many words of prose there are in a math answer."""
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", _NOT_WORDS.sub(" ", text))
    return sum(not _NOT_UNITS.fullmatch(word) for word in words)


def _read_math(text: str) -> str | None:
    for box in _boxes(text):
        return _undress(box)
    for match in reversed(list(_HASHES.finditer(text))[-50:]):
        rest = _undress(match[1].strip("# \t"))
        if rest and not re.match(r"[A-Za-z]{2,}", rest):  # "#### Step 3" is a heading
            return _phrase(rest)
    for match in reversed(list(_ANSWER.finditer(text))[-50:]):
        found = _phrase(match[1])
        if found and re.search(r"[0-9\\]|^[A-Za-z]$", found):
            return found
    numbers = deque(_FIRST_NUMBER.finditer(text), maxlen=1)
    return numbers[0][0].strip() if numbers else None


def _read_choice(text: str, options: tuple[str, ...]) -> str | None:
    by_label = {option.upper(): option for option in options}
    labels = "|".join(sorted((re.escape(option) for option in options), key=len, reverse=True))
    alone = re.compile(rf"(?<![A-Za-z0-9\\'’])({labels})(?![A-Za-z0-9'’])")
    head = re.compile(rf"[\s*_(\[{{$]*+(?:\\text\w*\{{)?[\s*_(\[{{]*+(?:option|choice)?[\s*_(\[{{]*+({labels})"
                      r"(?![A-Za-z0-9'’])", re.IGNORECASE)  # fmt: skip
    places = [*_boxes(text)]
    places += [match[1] for match in reversed(list(_HASHES.finditer(text))[-50:])]
    places += [match[1] for match in reversed(list(_ANSWER.finditer(text))[-50:])]
    for place in places:
        found = head.match(place)
        if found and not _article(place, found.start(1), found.end(1)):
            return by_label[found[1].upper()]
    last = None
    for match in alone.finditer(text):
        if not _article(text, match.start(1), match.end(1)):
            last = match[1]
    return None if last is None else by_label[last.upper()]


def _article(text: str, start: int, end: int) -> bool:
    """Whether the label at [start, end) is the word "a" or "I" of a sentence."""
    return text[start:end] in ("A", "a", "I", "i") and re.match(r"\s[a-z]", text[end : end + 2]) is not None


def _read_text(text: str) -> str | None:
    box = _worded_box(text)
    if box is not None:
        return box
    marks = sorted([*_HASHES.finditer(text), *_ANSWER.finditer(text)], key=lambda mark: mark.start(1), reverse=True)
    for line in [*(mark[1] for mark in marks[:50]), *reversed(text.splitlines())]:
        if line.strip():
            return _undress(line, stop=False)
    return None


def _worded_box(text: str) -> str | None:
    """The last box, words in it as words."""
    box = next(_boxes(text), None)
    return None if box is None else _undress(_TEXT_COMMAND.sub(r"\1", box), stop=False)


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of the fenced blocks; the last one need not be closed."""
    blocks: list[tuple[str, str]] = []
    language: str | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif language is None:
            language, lines = line.strip().strip("`").strip().lower(), []
        else:
            blocks.append((language, "\n".join(lines)))
            language = None
    if language is not None and lines:
        blocks.append((language, "\n".join(lines)))
    return blocks


def _read_code(text: str) -> str | None:
    blocks = _blocks(text)
    for wanted in (True, False):
        code = [
            block for language, block in blocks if (language in ("python", "py", "python3")) is wanted and block.strip()
        ]
        defining = [block for block in code if re.search(r"^\s*(?:async def|def|class)\s", block, re.MULTILINE)]
        if code:
            return (defining or code)[-1].strip("\n")
    body = text.rpartition("</think>")[2].strip()
    return body if re.search(r"^(?:async def|def|class|import|from)\s", body, re.MULTILINE) and not blocks else None


def _read_json(text: str) -> str | None:
    whole = _json(text.strip())
    if whole is not None:
        return whole
    blocks = _blocks(text)[::-1]
    for _, block in [*(one for one in blocks if one[0] == "json"), *(one for one in blocks if one[0] != "json")]:
        found = _json(block)
        if found is not None:
            return found
    return None


def _read_chat(text: str) -> tuple[str, bool]:
    """The answer of a reply, blank where that is, and whether other replies can be equal to it."""
    whole = text.strip()
    value = whole
    if whole.startswith("```") and whole.endswith("\n```"):
        blocks = _blocks(whole)
        value = blocks[0][1].strip() if len(blocks) == 1 else ""
    if value.startswith(("{", "[")):
        compact = _json(value)
        if compact is not None:
            return compact, True
    marked = _marked(whole)
    if marked is not None:
        return marked, True
    return whole, 0 < len(whole) <= MAX_SHORT and len(whole.splitlines()) == 1


def _marked(text: str) -> str | None:
    """The answer that a reply marks as such; the first tests of each mark are there for speed only."""
    box = _worded_box(text) if r"\boxed" in text or r"\fbox" in text else None
    if box:
        return _label_of(box) or box
    if "```" in text:
        text = _FENCED.sub("", text)
    end = len(text.rstrip())
    if "####" in text:
        for match in reversed(list(_HASHES.finditer(text))[-50:]):
            rest = match[1].strip("# \t")
            if match.end() >= end or not re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", rest):  # else it is a heading
                answer = _answer_in(rest)
                if answer is not None:
                    return answer
    if "answer" in text.lower():
        for match in reversed(list(_ANSWER.finditer(text))[-50:]):
            rest = match[1]
            if not rest.strip("*_ \t\r") and end - match.end() <= 2 * MAX_SHORT:
                rest = text[match.end() :].strip()  # the answer is what comes last, on a line of its own
            answer = None if "\n" in rest else _answer_in(rest)
            if answer is not None:
                return answer
    return None


def _answer_in(rest: str) -> str | None:
    """The answer that the rest of a line begins with, words included; None where that is prose."""
    whole = _undress(_rest(rest))
    if not whole or plain_number(whole) is not None:
        return whole or None
    answer = _undress(_REASON.split(_SENTENCE_END.split(whole, maxsplit=1)[0], maxsplit=1)[0])
    if not answer or len(answer) > MAX_SHORT or answer.endswith(":") or _NO_ANSWER.match(answer):
        return None
    return _label_of(answer) or answer


def _label_of(answer: str) -> str | None:
    """B of "(b)", "B) Paris" and "**B.** Paris", None where no label or more than one stands there."""
    found = _LABEL.match(answer)
    return found[1].upper() if found and not _OTHER_LABEL.search(answer, found.end()) else None


# ---------------------------------------------------------------- keys that need no worker


def _bare(answer: str) -> str:
    """A math answer without LaTeX spacing, delimiters, degrees, percent and the `x =` in front."""
    text = _undress(answer.translate(_CHARACTERS))
    text = re.sub(r",\\!\s*", ",", text.replace("{,}", ","))
    text = re.sub(r"(?<=[0-9])\\[,!;:> ]\s*(?=[0-9]{3}(?![0-9]))", "", text)
    text = re.sub(r"\\(?:left|right|displaystyle|[!,;:> ])(?![A-Za-z])|\\q?quad(?![A-Za-z])|~", " ", text)
    text = text.replace(r"\$", "$").replace(r"\%", "%").replace("%", " ")
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])|°", " ", text)
    text = _FRAC.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)
    text = _TEXT_COMMAND.sub(lambda m: " " + re.sub(r"(?<![A-Za-z])(?=[A-Za-z])", "\x00", m[1]) + " ", text).strip()
    # "x = 5", "= 5" and "120 - 90 = 30", but not "2k = 4"
    text = re.sub(r"^(?:(?:[A-Za-z]\s*|[^A-Za-z=≈\\]*)(?:=|≈|\\approx)\s*)+", "", text)
    while len(text) > 2 and (text[0], text[-1]) in (("(", ")"), ("{", "}")) and not re.search(r"[,(){}]", text[1:-1]):
        text = text[1:-1].strip()  # with a comma inside it is a point or an interval
    return re.sub(r"\s*(?:percent|percentage)\s*$", "", text)


def _chat_key(answer: str) -> str | None:
    """The key of a chat's answer, None where it is to be compared as math."""
    if answer.lstrip().startswith(("{", "[")):
        value = _json(answer, canonical=True)
        if value is not None:
            return value
    number = plain_number(answer)
    if number is not None:
        return str(number)
    if _is_latex(answer):
        return None
    key = text_key(answer)
    if len(answer) > MAX_ANSWER:
        return "sha256:" + hashlib.sha256(key.encode(errors="replace")).hexdigest()
    return key if key == answer else _chat_key(key)  # without quotes, "5" is a number


def _is_latex(answer: str) -> bool:
    return len(answer) <= MAX_MATH and _LATEX.search(answer) is not None and _words(answer) < 2


class _Number(str):
    """A number of a JSON text, as it is written there."""


def _json(text: str, *, canonical: bool = False) -> str | None:
    """A JSON text without spaces, None where it is none; canonical: names sorted, and numbers by value."""
    try:
        value = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant)
        return _written(value, canonical)
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _written(value: Any, canonical: bool, depth: int = 0) -> str:
    if depth >= MAX_DEPTH and isinstance(
        value, dict | list
    ):  # far below where Python itself gives up, which depends on the caller
        raise RecursionError
    if isinstance(value, dict):
        members = sorted(value.items()) if canonical else value.items()
        return "{" + ",".join(f"{_quoted(name)}:{_written(of, canonical, depth + 1)}" for name, of in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_written(of, canonical, depth + 1) for of in value) + "]"
    if isinstance(value, _Number):
        return _by_value(value) if canonical else str(value)
    return _quoted(value)


def _quoted(value: str | bool | None) -> str:
    """As JSON, with lone surrogates escaped, since no file can hold them."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


def _by_value(number: str) -> str:
    """One spelling for all numbers of a value, by moving digits only, so that no size is too large."""
    match = _JSON_NUMBER.fullmatch(number)
    assert match is not None
    sign, whole, fraction, exponent = match.groups("")
    digits = (whole + fraction).lstrip("0")
    kept = digits.rstrip("0")
    if not kept:
        return "0"
    power = int(exponent or 0) - len(fraction) + len(digits) - len(kept)
    return sign + (kept + "0" * power if 0 <= power <= 20 else f"{kept}e{power}")


@lru_cache(maxsize=1 << 12)  # most samples of a problem give one of few answers
def _easy_key(answer: str) -> str | None:
    """The key of a math answer that needs no algebra: a number, a number in another base, words, something long."""
    number = plain_number(answer)
    if number is not None:
        return str(number)
    if len(answer) > MAX_MATH:
        return _cleaned(answer)
    bare = _bare(answer)
    based = _BASED.fullmatch(bare)
    if based:
        return f"{based[1].upper()}_{based[2]}"
    words = bare.replace("\x00", "").strip(" .")
    if re.fullmatch(r"[A-Za-df-z]", words):  # not "e", the number; sympy's parser would fold the case of the others
        return words
    known = [_NOT_UNITS.fullmatch(word) for word in re.findall(r"[A-Za-z]+", words)]
    if re.fullmatch(r"(?i)(?:[a-z]{3,}|no)(?:[ '-]+[a-z]+)*", words) and not all(known):
        return text_key(words)
    prose = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", words)
    return text_key(words) if len(prose) >= 4 else None


def _cleaned(answer: str) -> str:
    """What is compared where no canonical form is known: the answer without its spacing."""
    text = _undress(answer.translate(_CHARACTERS))
    text = re.sub(r"\\(?:left|right|displaystyle|[!,;:> ])(?![A-Za-z])|\s+", "", text)
    return re.sub(r"\\[dt]frac", r"\\frac", text) or answer.strip()


def _for_latex(answer: str) -> str:
    """The answer as LaTeX that math-verify understands."""
    text = _undress(answer.translate(_CHARACTERS)).replace("$", "")
    text = text.replace("**", "^").replace("π", r"\pi ").replace("∞", r"\infty ").replace("·", r"\cdot ")
    return re.sub(r"(?<![\\A-Za-z])(pi|theta|infty)(?![A-Za-z])", r"\\\1 ", text)


# ---------------------------------------------------------------- the worker process


class _Worker:
    """A Python process that answers one line with one line; killed and replaced when it is late or dies."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._stops = 0

    def ask(self, request: tuple[str, ...]) -> str | bool | None:
        """The reply; None where there is none in time. Called from one thread only."""
        line = json.dumps([self.timeout, *request]) + "\n"
        stops = self._stops
        for _ in range(2):  # a worker found dead says nothing about this request, so try a new one once
            process = self._process or self._start()
            started = time.monotonic()
            reply = _exchange(process, line, self.timeout)
            if reply:
                answer: str | bool | None = json.loads(reply)
                return answer
            self._forget(process)
            if self._stops != stops:
                raise EngineError("the reader was closed while it compared answers")
            if time.monotonic() - started >= self.timeout:
                break
        return None

    def stop(self) -> None:
        """Kill the process, also in the middle of its work."""
        with self._lock:
            process, self._process, self._stops = self._process, None, self._stops + 1
        if process is not None:
            _end(process)

    def _start(self) -> subprocess.Popen[str]:
        # A command instead of multiprocessing: that would import the caller's main script once more, which runs a
        # script that has no __main__ guard twice.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-c", "from outthink.answers import _serve; _serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="ascii",
                env={**os.environ, "PYTHONPATH": path},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise EngineError(f"the process that compares answers cannot be started: {error}") from error
        with self._lock:
            self._process = process
        if not _exchange(process, "", START_SECONDS):
            self._forget(process)
            raise EngineError(
                "the process that compares answers ended while starting (or the reader was closed); "
                "see what `python -c 'import math_verify'` says"
            )
        return process

    def _forget(self, process: subprocess.Popen[str]) -> None:
        _end(process)
        with self._lock:
            if self._process is process:
                self._process = None


def _exchange(process: subprocess.Popen[str], line: str, seconds: float) -> str:
    """Send a line and wait for one; empty where the process died or had to be killed for being late."""
    timer = threading.Timer(seconds, process.kill)  # portable: a pipe cannot be waited for with a timeout on Windows
    timer.daemon = True
    timer.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        return process.stdout.readline()
    except (OSError, ValueError):  # the pipe broke, or was closed by `stop`
        return ""
    finally:
        timer.cancel()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):  # a line that was never flushed
                pipe.close()


def _serve() -> None:
    """Main loop of the worker process."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints must not look like a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes our input
    if sys.platform != "win32":
        import resource

        limit = 2 << 30
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import math_verify  # noqa: F401  (slow, so before the first clock starts)

    replies.write('"ready"\n')
    replies.flush()
    work: dict[str, Callable[..., str | bool | None]] = {"canonical": _canonical, "verify": _verify, "code": _code}
    for line in sys.stdin:
        seconds, name, *arguments = json.loads(line)
        if sys.platform != "win32":
            # Should the parent have died, nobody else would end us; the default action works inside C code too.
            signal.setitimer(signal.ITIMER_REAL, seconds + 1)
        try:
            reply = work[name](*arguments)
        except Exception:  # whatever sympy makes of a model's text; the caller has a fallback
            reply = None
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _code(source: str) -> str | None:
    return ast.unparse(ast.parse(source))


def _parse(answer: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    # Only the whole answer counts: the other extraction of math-verify would take the first number of anything.
    found: list[Any] = parse(
        f"${answer}$", extraction_config=[LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
    )
    return found


def _verify(gold: str, answer: str) -> bool:
    from math_verify import verify

    return bool(verify(_parse(gold), _parse(answer), timeout_seconds=None))


def _canonical(answer: str) -> str | None:
    found = _parse(answer)
    key = _form(found[0]) if found else None
    return key if key and len(key) <= 4 * MAX_MATH else None


def _form(value: Any) -> str:
    """One text for equal sympy objects, as far as sympy can tell."""
    sympy: Any = importlib.import_module("sympy")  # it has no types; not at the top, because importing it is slow
    if isinstance(value, sympy.MatrixBase):
        return "[" + "; ".join(", ".join(_form(cell) for cell in row) for row in value.tolist()) + "]"
    if isinstance(value, sympy.Interval):
        left = "(" if value.left_open else "["
        return f"{left}{_form(value.start)}, {_form(value.end)}{')' if value.right_open else ']'}"
    if isinstance(value, sympy.Union):
        return " U ".join(sorted(_form(part) for part in value.args))
    if isinstance(value, sympy.Tuple):
        return "(" + ", ".join(_form(part) for part in value.args) + ")"
    if isinstance(value, sympy.FiniteSet):
        forms = sorted({_form(part) for part in value.args})
        return forms[0] if len(forms) == 1 else "{" + ", ".join(forms) + "}"
    if isinstance(value, sympy.Eq):
        left, right = value.args
        if isinstance(left, sympy.Symbol) and not right.free_symbols:
            return _form(right)  # "x = 5" is 5, "x in S" is S
        if isinstance(left, sympy.core.function.AppliedUndef):
            return f"{left} = {_form(right)}"
        return _multiple(left - right, signed=False) + " = 0"
    if isinstance(value, sympy.And | sympy.core.relational.Relational):
        if len(value.free_symbols) == 1:
            return _form(value.as_set())
        if isinstance(value, sympy.And):
            return " & ".join(sorted(_form(part) for part in value.args))
        less = value.reversed if isinstance(value, sympy.Gt | sympy.Ge) else value
        return _multiple(less.lhs - less.rhs, signed=True) + f" {less.rel_op} 0"
    if not isinstance(value, sympy.Expr):
        return str(value)
    value = sympy.nsimplify(value.doit(), rational=True)  # decimals are meant exactly
    if value.is_number:
        return _constant(value)
    value = sympy.simplify(value)
    return _constant(value) if value.is_number else str(sympy.cancel(value))


def _constant(value: Any) -> str:
    """A fraction exactly, another number to 15 significant digits of each of its two parts."""
    sympy: Any = importlib.import_module("sympy")
    if value.is_Rational:
        return str(Fraction(int(value.p), int(value.q)))
    if value.is_infinite or value is sympy.nan:
        return str(value)
    parts = []
    for part in value.as_real_imag():
        number = sympy.N(part, 40, chop=sympy.Float("1e-30"))
        close = Fraction(str(number)).limit_denominator(10**6)
        near = abs(number - sympy.Rational(close.numerator, close.denominator)) < sympy.Float("1e-25")
        parts.append(str(close) if near else str(sympy.N(number, 15)))
    return parts[0] if parts[1] == "0" else f"{parts[0]} + {parts[1]} i"


def _multiple(difference: Any, *, signed: bool) -> str:
    """The form of an equation's or inequality's difference up to a factor (a positive one if `signed`)."""
    sympy: Any = importlib.import_module("sympy")
    numerator, denominator = sympy.fraction(sympy.cancel(sympy.nsimplify(difference, rational=True)))
    if denominator.free_symbols:
        return str(sympy.cancel(difference))
    if denominator.is_negative:
        numerator = -numerator
    symbols = sorted(numerator.free_symbols, key=str)
    primitive = sympy.Poly(numerator, *symbols).primitive()[1]
    if not signed and primitive.LC().is_negative:
        primitive = -primitive
    return str(primitive.as_expr())
