"""Where in a text its answer stands, by kind."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator

from outthink.answers.canonical import (
    DIGITS,
    FRAC,
    MAX_ANSWER,
    MAX_MATH,
    TEXT_COMMAND,
    json_value,
    only_words,
    plain_number,
    undress,
)
from outthink.answers.code import blocks, read_code
from outthink.types import AnswerKind

MAX_TEXT = 200_000


MAX_SHORT = 80


_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]*)")


_ANSWER = re.compile(r"\banswers?[ \t*_\"']*(?:is|are|:|=)(?:[*_]+(?=\s))?[ \t:]*([^\n]*)", re.IGNORECASE)


_FIRST_NUMBER = re.compile(
    rf"(?<![0-9A-Za-z.])[+-]?\s?[$€£¥₹]?(?:{FRAC.pattern}|(?:{DIGITS})(?:\s?/\s?[0-9]+(?![0-9]))?)\s?%?"
)


_FENCED = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```[^\n]*$|\Z)", re.DOTALL | re.MULTILINE)


_LABEL = re.compile(
    r"[*_(\[ ]*(?:(?:option|choice)[ ])?[*_(\[]*([A-J])[*_]*(?:[)\]]|[:.](?=[\s*_]|$)|$)", re.IGNORECASE
)


_OTHER_LABEL = re.compile(r"\b[A-Z](?:[).:,]|$)")


_SENTENCE_END = re.compile(r"(?<![\s.])(?<!\b[A-Z])(?<!\b(?:Mr|Ms|Dr|St|vs))(?<!\bMrs)[.!?]\s")


_REASON = re.compile(r"[,;]?\s(?:because|since|which)\b|[,;]\s(?:as|but|for|so)\b", re.IGNORECASE)


_NO_ANSWER = re.compile(r"(?:as|based|found|given|not|that|to)\b", re.IGNORECASE)


def read(kind: AnswerKind, text: str, options: tuple[str, ...] = (), *, asked: Collection[str] = ()) -> str | None:
    """The answer as it stands in a complete text, or None (INVALID); pure, linear in the text, never raises.

    Args:
        kind: how to read, see the module's text.
        text: the whole text of a sample that ended by itself; its last 200,000 characters are read.
        options: labels of a choice, such as ("A", "B"); A to J where empty. Returned as written here.
        asked: names that code is to define (see `asked_names`).
    """
    text = text[-MAX_TEXT:]
    if kind == "code":
        answer = read_code(text, asked)
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
    return answer if answer and len(answer) <= longest(kind) else None


def comparable(text: str) -> bool:
    """Whether a chat's reply has an answer that other replies can be equal to; pure, linear, never raises.

    That is a JSON object or array, an answer that is marked as such, or a text of one line and at most 80 characters.
    A wrong True costs the further samples that are drawn for a vote in which every answer turns out to stand alone; a
    wrong False costs the vote: the reply is taken, or judged, although equal ones could have been counted.

    Args:
        text: the whole text of a sample that ended by itself.
    """
    return _read_chat(text[-MAX_TEXT:].rpartition("</think>")[2])[1]


def longest(kind: AnswerKind) -> int:
    """Most characters of an answer of this kind; a longer one is not read."""
    return MAX_TEXT if kind in ("json", "chat") else MAX_ANSWER


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
    whole = undress(rest)
    if not whole:
        return None
    if plain_number(whole) is not None:
        return whole
    marked = re.search(r"\$([^$\n]+)\$|\\\((.+?)\\\)", rest)
    if marked:
        return undress(marked[1] or marked[2])
    sentence = undress(re.split(r"(?<=[^\s.])\.\s", whole, maxsplit=1)[0])
    if plain_number(sentence) is not None:
        return sentence
    if only_words(sentence) < 2:
        return sentence
    number = _FIRST_NUMBER.search(sentence)
    return number[0].strip() if number else None


def _rest(rest: str) -> str:
    """The beginning of what follows a mark on its line, without what a JSON object around it would leave there."""
    rest = rest[: 2 * MAX_MATH].strip(' \t",')
    return rest.rstrip('} "') if rest.count("}") > rest.count("{") else rest


def _read_math(text: str) -> str | None:
    for box in _boxes(text):
        return undress(box)
    for match in reversed(list(_HASHES.finditer(text))[-50:]):
        rest = undress(match[1].strip("# \t"))
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
            return undress(line, stop=False)
    return None


def _worded_box(text: str) -> str | None:
    """The last box, words in it as words."""
    box = next(_boxes(text), None)
    return None if box is None else undress(TEXT_COMMAND.sub(r"\1", box), stop=False)


def _read_json(text: str) -> str | None:
    whole = json_value(text.strip())
    if whole is not None:
        return whole
    fenced = blocks(text)[::-1]
    for block in sorted(fenced, key=lambda one: one.language != "json"):
        found = json_value(block.content)
        if found is not None:
            return found
    return None


def _read_chat(text: str) -> tuple[str, bool]:
    """The answer of a reply, blank where that is, and whether other replies can be equal to it."""
    whole = text.strip()
    value = whole
    if whole.startswith("```") and whole.endswith("\n```"):
        fenced = blocks(whole)
        value = fenced[0].content.strip() if len(fenced) == 1 else ""
    if value.startswith(("{", "[")):
        compact = json_value(value)
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
    whole = undress(_rest(rest))
    if not whole or plain_number(whole) is not None:
        return whole or None
    answer = undress(_REASON.split(_SENTENCE_END.split(whole, maxsplit=1)[0], maxsplit=1)[0])
    if not answer or len(answer) > MAX_SHORT or answer.endswith(":") or _NO_ANSWER.match(answer):
        return None
    return _label_of(answer) or answer


def _label_of(answer: str) -> str | None:
    """B of "(b)", "B) Paris" and "**B.** Paris", None where no label or more than one stands there."""
    found = _LABEL.match(answer)
    return found[1].upper() if found and not _OTHER_LABEL.search(answer, found.end()) else None
