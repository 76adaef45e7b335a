"""The places of a text that are marked as its answer: boxes, `####`, "answer is", `<answer>` and bold numbers."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from outthink.answers.canonical import MAX_ANSWER, MAX_MATH, plain_number

MARKS = 50
"""How many marks of each kind are looked at, the last ones."""


_BRACE = re.compile(
    r"\\(?:boxed|fbox)\s*(?:\{|(?P<bare>-?[0-9][0-9.,/]{0,40}|[A-Za-z][A-Za-z0-9]{0,40}|\\[a-z][^$\n]{0,200}))|\\.|[{}]",
    re.DOTALL,
)


_MARK = re.compile(
    r"""(?P<hashes>(?<!\#)\#{4}(?!\#)[ \t]*)
    |(?P<answer>\banswers?[ \t*_"']*(?:is|are|:|=)(?:[*_]+(?=\s))?[ \t:]*
     |^[#*_ \t]*(?:final[ ])?answer[*_ \t]*$|<answer>[ \t]*)""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)


_NEW_QUESTION = re.compile(
    r"""\n[ \t]*(?:\#{1,4}[ \t]*|\*\*)?(?:question|q|problem|exercise|human|user|instruction|new[ ]question|next[ ]question)
    (?:[ ]\#?[0-9]{1,4}|[ ][a-z]\b)?(?:\*\*)?[ \t]?[:.]|<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|start_header_id)\|>""",
    re.VERBOSE | re.IGNORECASE,
)


_BOLD = re.compile(r"(?<![*\\])\*\*(?![\s*])([^*\n]{1,48})(?<!\s)\*\*(?!\*)")


_SEPARATED = re.compile(
    r"(?:[,;]|(?:and|or|und|&)(?![A-Za-z])|[,;](?:and|or|und|&)(?![A-Za-z]))(?:[A-Za-z](?:_\{?[0-9]\}?)?=)?"
)
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
    match = _NEW_QUESTION.search(text)
    if match is None:
        return text
    mark = _MARK.search(text)
    first = min(mark.start() if mark else len(text), text.find(r"\boxed") % (len(text) + 1))
    match = _NEW_QUESTION.search(text, first)
    return text if match is None else text[: match.start()]


def marks(text: str) -> list[Mark]:
    """The last 50 marks, in the order of the text; linear."""
    places = deque(_MARK.finditer(text), maxlen=MARKS + 1)
    result = []
    end = len(text.rstrip())
    following = [match.start() for match in places][1:] + [len(text)] if places else []
    for match, after in zip(places, following, strict=True):
        start = match.end()
        stop = text.find("\n", start)
        stop = min(len(text) if stop < 0 else stop, after)
        rest = text[start : min(stop, start + MAX_ANSWER + 100)]
        if not rest.strip(" \t*_:#\r") and stop < after:
            line = re.compile(r"\s*([^\n]*)").match(text, stop)
            if line is not None and line.start(1) < after:
                stop = min(line.end(), after)
                rest = text[line.start(1) : min(stop, line.start(1) + MAX_ANSWER + 100)]
        rest = rest.split("</answer", 1)[0] if "</answer" in rest else rest
        result.append(Mark(match.lastgroup or "", rest, stop >= end))
    return result[-MARKS:]


def boxes(text: str) -> list[Box]:
    """The balanced boxes that are not empty, at most the 50 that start last, in the order of the text; linear."""
    if "boxed" not in text and "fbox" not in text:
        return []
    opened: list[tuple[int, int]] = []  # where the command and the content begin; -1 for a brace
    places: deque[Box] = deque(maxlen=4 * MARKS)
    for match in _BRACE.finditer(text):
        token = match[0]
        if token == "}":
            before, start = opened.pop() if opened else (-1, 0)
            if before >= 0 and match.start() - start <= MAX_ANSWER and text[start : match.start()].strip():
                places.append(Box(before, start, match.start(), match.end()))
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


def bold_number(text: str) -> str | None:
    """The number in bold that stands for the answer: the only one, or the last one of the last line with numbers."""
    if "**" not in text:
        return None
    numbers: list[tuple[int, str]] = []
    for match in deque(_BOLD.finditer(text), maxlen=MARKS):
        inside = match[1].strip()
        if not re.search(r"[0-9]", inside) or plain_number(inside.rstrip(".:")) is None:
            continue
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
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
    last = _last_digit(text)
    line_start = text.rfind("\n", 0, last) + 1
    return numbers[-1][1] if numbers[-1][0] >= line_start else None


def _last_digit(text: str) -> int:
    for match in _last(re.finditer(r"[0-9]+", text)):
        return match.start()
    return 0


def _last(matches: Iterator[re.Match[str]]) -> Iterator[re.Match[str]]:
    """The last one."""
    return iter(deque(matches, maxlen=1))


def plain(text: str) -> str:
    """A line without pairs of asterisks around words."""
    if "**" not in text:
        return text
    return re.sub(r"(?<![0-9A-Za-z)])\*\*(?=\S)([^*\n]{1,160})(?<=\S)\*\*(?![0-9A-Za-z(])", r"\1", text[: 4 * MAX_MATH])
