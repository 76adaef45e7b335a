"""The places of a text that are marked as its answer: boxes, `####`, "answer is", `<answer>` and bold numbers."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from outthink.answers.canonical import MAX_ANSWER, plain_number
from outthink.answers.notation import MAX_MATH

MARKS = 50
"""How many marks of each kind are looked at, the last ones."""


_BRACE = re.compile(
    r"\\(?:boxed|f(?:rame)?box)\s*(?:\{|[(\[]\s*(?P<round>[+-]?[0-9][0-9.,/]{0,40})\s*[)\]]|(?P<bare>-?[0-9][0-9.,/]{0,40}|[A-Za-z][A-Za-z0-9]{0,40}|\\[a-z][^$\n]{0,200}))|\\.|[{}]",
    re.DOTALL,
)


_BOX = re.compile(r"\\(?:boxed|f(?:rame)?box)")


_ANSWER = re.compile(r"answers?[ \t*_\"']*(?:(?:is|are)(?!n['’]t)|:|=)(?:[*_]+(?=\s))?[ \t:]*")


_HEADING = re.compile(r"answer[*_ \t]*(?=\n|\Z)")


_NEW_QUESTION = re.compile(
    r"""\n[ \t]*(?:\#{1,4}[ \t]*|\*\*)?(?:(?:new[ ]|next[ ])?question|q|problem|exercise|example|human|user|instruction)
    (?:[ ]\#?[0-9]{1,4}|[ ][a-z]\b)?(?:\*\*)?[ \t]?[:.]
    |\n[ \t]*(?:\#{1,4}[ \t]*|\*\*)?(?:question|problem|exercise|example)[ ]\#?[0-9]{1,4}(?:\*\*)?[ \t]*(?=\n)
    |\n[ \t]*(?:\#{1,4}[ \t]*|\*\*)(?:question|problem|exercise)(?:\*\*)?[ \t]*(?=\n)""",
    re.VERBOSE | re.IGNORECASE,
)


_NEW_TURN = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|start_header_id|user|end_of_turn)\|>"
    r"|<(?:start_of_turn|end_of_turn)>|</s>|\[INST\]|<｜(?:User|end▁of▁sentence)｜>"
)


_BOLD = re.compile(r"(?<![*\\])\*\*(?![\s*])([^*\n]{1,48})(?<!\s)\*\*(?!\*)")


_SEPARATED = re.compile(r"(?:[,;](?:and|or|und|&)?|and|or|und|&)(?:[A-Za-z](?:_\{?[0-9]\}?)?=)?")
_DELIMITERS = re.compile(r"\\(?:text|mathrm)\s?\{|\\[\[\]()]|\\q?quad|[\s$~}*]")


_NAMED = re.compile(r"(?<![A-Za-z0-9\\])([A-Za-z](?:_\{?[0-9]\}?)?)\s*=\s*$")


class Mark(NamedTuple):
    """A place that is marked.

    Args:
        kind: "hashes" or "answer".
        rest: what follows on its line, up to the next mark; where that is nothing, the next line that is not empty.
        last: whether nothing but white space follows.
    """

    kind: str
    rest: str
    last: bool


class Box(NamedTuple):
    """A box: the place of its command, of its content, and of its end."""

    before: int
    start: int
    end: int
    after: int


def before_next_question(text: str) -> str:
    """The text up to a new question that the model asks itself, behind a place that is marked as its answer."""
    if "<" in text or "[" in text:
        turn = _NEW_TURN.search(text)
        struck = turn is not None and turn[0] == "</s>" and "<s>" in text  # <s>41</s> is struck out
        if turn is not None and not struck and text[: turn.start()].strip():
            text = text[: turn.start()]
    if _NEW_QUESTION.search(text) is None:
        return text
    places = [place for place in (text.find("####"), text.find("\\boxed"), _first_answer(text)) if place >= 0]
    match = _NEW_QUESTION.search(text, min(places)) if places else None
    return text if match is None else text[: match.start()]


def _lower(text: str) -> str:
    """In lower case, every character in its place."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(one.lower() if len(one.lower()) == 1 else one for one in text)


def _first_answer(text: str) -> int:
    lower = _lower(text)
    place = lower.find("answer")
    for _ in range(1_000):
        if place < 0 or _answer_at(lower, place) is not None:
            return place
        place = lower.find("answer", place + 6)
    return -1


def _answer_at(lower: str, place: int) -> int | None:
    """Where the answer begins that the word at `place` announces, None where it announces none."""
    before = lower[place - 1 : place]
    if before == "<":
        return place + 7 if lower.startswith("answer>", place) else None
    if before.isalnum() or (before == "_" and not lower.startswith("__", place - 2)):
        return None
    match = _ANSWER.match(lower, place)
    if match is not None:
        return match.end()
    match = _HEADING.match(lower, place)
    if match is None:
        return None
    line = lower[max(lower.rfind("\n", 0, place) + 1, place - 20) : place].strip("#*_ \t")
    return match.end() if line in ("", "final", "the final", "the") else None


def marks(text: str) -> list[Mark]:
    """The last 50 marks, in the order of the text; linear."""
    places: list[tuple[int, int, str]] = []  # where the mark and what it marks begin
    lower = _lower(text) if "nswer" in text or "NSWER" in text else ""
    place = len(lower)
    while len(places) < MARKS and (place := lower.rfind("answer", 0, place)) >= 0:
        start = _answer_at(lower, place)
        if start is not None:
            places.append((place, start, "answer"))
    place, hashes = len(text), 0
    while hashes < MARKS and (place := text.rfind("####", 0, place)) >= 0:
        if text[place - 1 : place] != "#" and text[place + 4 : place + 5] != "#":
            places.append((place, place + 4, "hashes"))
            hashes += 1
    places.sort()
    if not places:
        return []
    result = []
    end = len(text.rstrip())
    for index, (_, start, kind) in enumerate(places):
        after = places[index + 1][0] if index + 1 < len(places) else len(text)
        stop = text.find("\n", start, start + MAX_ANSWER + 100)
        stop = min(start + MAX_ANSWER + 100 if stop < 0 else stop, after)
        rest = text[start:stop]
        if stop < after and not rest.strip(" \t*_:#\r"):
            line = _NEXT_LINE.match(text, stop)
            if line is not None and line.start(1) < after:
                stop = min(line.end(), after)
                rest = text[line.start(1) : min(stop, line.start(1) + MAX_ANSWER + 100)]
        if "</answer" in rest:
            rest = rest.split("</answer", 1)[0]
        result.append(Mark(kind, rest, stop >= end))
    return result


_NEXT_LINE = re.compile(r"\s{0,200}([^\n]*)")


def boxes(text: str) -> list[Box]:
    """The balanced boxes that are not empty, at most the 50 that start last, in the order of the text; linear."""
    command = _BOX.search(text)
    if command is None:
        return []
    opened: list[tuple[int, int]] = []  # where the command and the content begin; -1 for a brace
    places: deque[Box] = deque(maxlen=4 * MARKS)
    for match in _BRACE.finditer(text, command.start()):
        token = match[0]
        if token == "}":
            before, start = opened.pop() if opened else (-1, 0)
            if before >= 0 and match.start() - start <= MAX_ANSWER and text[start : match.start()].strip():
                places.append(Box(before, start, match.start(), match.end()))
        elif match["round"] is not None:
            places.append(Box(match.start(), match.start("round"), match.end("round"), match.end()))
        elif match["bare"] is not None:
            end = match.end("bare")
            closed = re.search(r"\\[)\]]", match["bare"])
            if closed is not None:
                end = match.start("bare") + closed.start()
            places.append(Box(match.start(), match.start("bare"), end, end))
        elif token.endswith("{") and token != r"\{":
            opened.append((match.start() if token != "{" else -1, match.end()))
    return sorted(places)[-MARKS:]


def boxed(text: str, joined: bool = True) -> str | None:
    """The content of the last box; of several that are one answer (`\\boxed{3}, \\boxed{5}`) all of them."""
    places = boxes(text)
    if not places:
        return None
    last = places[-1]
    contents = [text[last.start : last.end].strip()]
    names = [_NAMED.search(text, max(0, last.before - 20), last.before)]
    place = last
    for box in reversed(places[:-1]) if joined else ():
        if box.after > place.before or place.before - box.after > 60:
            break
        if not _SEPARATED.fullmatch(_DELIMITERS.sub("", text[box.after : place.before])):
            break
        contents.append(text[box.start : box.end].strip())
        names.append(_NAMED.search(text, max(0, box.before - 20), box.before))
        place = box
    if len(set(contents)) == 1:
        return contents[0]
    if all(name is not None for name in names):
        contents = [f"{name[1]} = {content}" for name, content in zip(names, contents, strict=True) if name is not None]
    return ", ".join(dict.fromkeys(reversed(contents)))


def unmarked(text: str) -> str:
    """The text without boxes and `####`, for what is put into somebody else's answer: what it says stays."""
    while places := boxes(text):
        last = places[-1]
        text = text[: last.before] + text[last.start : last.end] + text[last.after :]
    return _BOX.sub("", text).replace("####", "")


def bold_number(text: str) -> str | None:
    """The number in bold that stands for the answer: the only one, or the last one of the last line with numbers."""
    if "**" not in text:
        return None
    numbers: list[tuple[int, str]] = []
    for match in deque(_BOLD.finditer(text), maxlen=MARKS):
        inside = match[1].strip()
        if not re.search(r"[0-9]", inside) or plain_number(inside.rstrip(".:")) is None:
            continue
        line = text[max(text.rfind("\n", 0, match.start()) + 1, match.start() - 60) : match.start()]
        behind = text[match.end() : match.end() + 2]
        if not line.strip(" \t-*#>") and (inside.endswith((".", ":")) or re.match(r"[.:)](?!\s*$)\s|[:)]", behind)):
            continue  # the number of a list
        if re.search(r"(?:step|part|chapter|section|question|problem|case|option|line|item)\s*$", line, re.IGNORECASE):
            continue
        numbers.append((match.start(), inside.rstrip(":")))
    if not numbers:
        return None
    if len({plain_number(number.rstrip(".")) for _, number in numbers}) == 1:
        return numbers[-1][1]
    last = last_digit(text)
    return numbers[-1][1] if numbers[-1][0] > text.rfind("\n", 0, last) else None


_DIGIT = re.compile(r"[0-9¼-¾⅐-⅞]")


def last_digit(text: str) -> int:
    """The place of a digit among the last ones of the text, -1 where it has none; reads from the end."""
    end = len(text)
    while end > 0:
        start = max(0, end - 200)
        digits = list(_DIGIT.finditer(text, start, end))
        if digits:
            return digits[-1].start()
        end = start
    return -1


def plain(text: str) -> str:
    """A line without pairs of asterisks around words."""
    if "**" not in text:
        return text
    return re.sub(r"(?<![0-9A-Za-z)])\*\*(?=\S)([^*\n]{1,160})(?<=\S)\*\*(?![0-9A-Za-z(])", r"\1", text[: 4 * MAX_MATH])
