"""Where in a text its answer stands, by kind."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection

from outthink.answers.amounts import plainer, understood, undress
from outthink.answers.canonical import MAX_ANSWER, TEXT_COMMAND, is_plain, only_words, plain_number
from outthink.answers.choices import chosen
from outthink.answers.code import blocks, read_code
from outthink.answers.forms import variables
from outthink.answers.literals import json_value
from outthink.answers.marks import before_next_question, bold_number, boxed, last_digit, marks, plain
from outthink.answers.notation import MAX_MATH, folded, narrowed
from outthink.answers.thoughts import spoken
from outthink.types import AnswerKind

MAX_TEXT = 200_000


MARKED = ("box", "mark")
"""Rules of `read_by` by which the text itself says what its answer is."""


MAX_SHORT = 80


MAX_PROSE = 2_000
"""Longest reply of a chat in which a number in bold is its answer."""


_DOUBLED_BOX = re.compile(r"(?<!\\)\\\\(?:boxed|fbox|framebox)\b")


_PARTS = (
    r"(?:hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s|days?|weeks?|months?|years?|feet|foot|ft|inch(?:es)?|in|yards?"
    r"|yd|miles?|pounds?|lbs?|ounces?|oz|dollars?|cents?|meters?|metres?|km|cm|mm|kg|kilograms?|grams?|g)"
)


_POWER = r"\s?\^\s?(?:\{\s?[+-]?[0-9]{1,9}\s?\}|\([+-]?[0-9]{1,9}\)|[+-]?[0-9]{1,9})"


_NUMBER = re.compile(
    rf"""(?<![0-9A-Za-z.^_])(?<![\^_][{{(+-])(?<![\^_][{{(][+-])(?<![0-9][:/])(?<![0-9]\s[+-])(?:(?<![0-9]\s)[+-])?\s?[$€£¥₹]?\s?
    (?: [0-9]{{4}}([-/])[0-9]{{1,2}}\1[0-9]{{1,2}}(?![0-9]) | [0-9]{{1,2}}/[0-9]{{1,2}}/[0-9]{{2,4}}(?![0-9])
      | [0-9]{{1,2}}:[0-5][0-9](?::[0-5][0-9])?(?![0-9:])(?:\s?[apAP]\.?[mM]\b\.?)?
      | [0-9]{{1,2}}\s[apAP]\.?[mM]\b\.?
      | [0-9]{{1,9}}(?::[0-9]{{1,9}}){{1,3}}(?![0-9:])
      | [0-9]{{1,40}}(?:\.[0-9]{{1,40}})?\s?(?:\\(?:times|cdot)|[x*])\s{{0,2}}10{_POWER}
      | [0-9]{{1,40}}(?:\.[0-9]{{1,40}})?{_POWER}
      | (?:[0-9]{{1,40}}\s?)?\\?\bsqrt\s{{0,2}}(?:\{{[0-9]{{1,40}}\}}|\([0-9]{{1,40}}\)|[0-9]{{1,40}})
      | [0-9]{{1,40}}(?:\.[0-9]{{1,40}})?\s?\\pi(?![A-Za-z])
      | [0-9]{{1,9}}\s?{_PARTS}(?:,|,?\ and)?\s[0-9]{{1,9}}\s?{_PARTS}\b(?:(?:,|,?\ and)?\s[0-9]{{1,9}}\s?{_PARTS}\b)?
      | (?:[0-9]{{1,9}}\s?)?\\[dtc]?frac\s?(?:\{{\s?[+-]?[0-9.,]{{1,40}}\s?\}}|[0-9])\s?
        (?:\{{\s?[0-9.,]{{1,40}}\s?\}}|[0-9])
      | [0-9]{{1,9}}(?:\ and)?\s[0-9]{{1,9}}\s?/\s?[0-9]{{1,9}}(?![0-9])
      | (?:[1-9][0-9]{{0,2}}(?:[\u00a0 ][0-9]{{3}})+(?![0-9])|[0-9]{{1,3}}(?:,[0-9]{{3}})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?
        (?:[eE][+-]?[0-9]{{1,3}}(?![A-Za-z0-9]))?(?:\s?/\s?[0-9]+(?![0-9])|[kM](?![A-Za-z0-9]))?
      | \.[0-9]+
    )\s?%?""",
    re.VERBOSE,
)


_FENCED = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```[^\n]*$|\Z)", re.DOTALL | re.MULTILINE)


_LABEL = re.compile(
    r"[*_(\[ ]*+(?:(?:option|choice)[ ])?[*_(\[]*+([A-J])[*_]*+(?:[)\]]|[:.](?=[\s*_]|$)|$)", re.IGNORECASE
)


_OTHER_LABEL = re.compile(r"\b[A-Z](?:[).:,]|$)")


_SENTENCE_END = re.compile(
    r"(?<![\s.])(?<!\b[A-Z])(?<!\b(?:Mr|Ms|Dr|St|vs))(?<!\bMrs)(?<!\b[ap]\.m)(?<!\bi\.e)(?<!\be\.g)[.!?]\s"
)


_REASON = re.compile(
    r"[,;]?\s(?:because|since|which|i\.e\.|namely)(?:\b|(?=\s))"
    r"|[,;]\s(?:as|but|for|so|not)\b|\s(?:not|and not)\s(?=\S+$)",
    re.IGNORECASE,
)


_NO_ANSWER = re.compile(r"(?:as|based|found|given|not|that|to|below|above|the following)\b", re.IGNORECASE)


_EXPLAINED = re.compile(r"([$€£]?-?[$€£]?[0-9][0-9.,]{0,40}(?: [a-z]{2,20}){0,2}) \([^()\\]{1,200}\)[.!]?")


_FEW_WORDS = re.compile(r"[A-Za-z]{2,20}(?: [A-Za-z]{1,20}){0,2}")


_MINUS = re.compile(r"(?:\bnegative|(?:^|\b(?:is|are|to|of|get|equals)|[=:])\s{0,3}minus)\s$", re.IGNORECASE)


_MORE = re.compile(
    r"(?:\s[A-Za-z]{1,20}){0,3}\s?(?:[,;]|,?\s?\b(?:and|or)\b)\s(?:a\s(?:half|quarter)\b|[$€£]?-?(?!0\b)[0-9]"
    r"(?!\S{0,20}\s(?:of|more|less|fewer|times|from|is|are|was|were)\b))"
    r"|\s?(?:remainder|rem\.?|[rR]|plus|minus|to|through|±|\+/-|\\pm)\s?[$€£]?[0-9]"
)
"""What makes of a number in prose one of several: `3 apples and 4 pears`, `17 or 19`, `2 remainder 3`."""


_CHANGES = re.compile(
    r"\s(?:(?:times|over|to|and)\s(?:pi\b|e\b|\\[a-z]|[0-9])|over\s[a-z]\b|squared\b|cubed\b|factorial\b|mod(?:ulo)?\b|choose\b"
    r"|(?:less|more|fewer)\sthan\s\S{0,9}[0-9]|(?:divided|multiplied)\b|raised\b|to\sthe\b|root\b"
    r"|and\s(?:a|an|one|two|three|four|five|six|seven|eight|nine)[\s-](?:hal|third|quarter|fourth|fifth|sixth|seventh|eighth"
    r"|ninth|tenth))",
    re.IGNORECASE,
)
_CHANGING = re.compile(
    r"\b(?:roots?|cube|square|half|thirds?|quarters?|fourths?|fifths?|reciprocal|inverse|factorial|log(?:arithm)?|sine|cosine"
    r"|tangent|power|percent|%)\s(?:of|over)\s(?:the\s)?[$]?$|\b(?:twice|double|triple|half|root)\s[$]?$",
    re.IGNORECASE,
)
"""Words that make another number of the one that they stand behind, or before."""


_CHANGED = re.compile(
    r"(?:[,;]|\.{3}|…|\s[–—-]+)\s?(?:oh,?\s|no[,.]?\s|but\s)*(?:wait|actually|correction|oops|sorry|i mean|scratch that"
    r"|make that)\b[,:]?\s(?:no,?\s|it'?s\s|it is\s)?",
    re.IGNORECASE,
)
"""Where a sentence takes back what it has just said."""


_NOT = re.compile(r"(?:\bnot|n't|n’t|\brather than|\binstead of)\s(?:only\s|just\s)?[$*]*$", re.IGNORECASE)


def read(kind: AnswerKind, text: str, options: tuple[str, ...] = (), *, asked: Collection[str] = ()) -> str | None:
    """The answer as it stands in a complete text, or None (INVALID); pure, linear in the text, never raises.

    Args:
        kind: how to read, see the module's text.
        text: the whole text of a sample that ended by itself; its last 200,000 characters are read.
        options: labels of a choice, such as ("A", "B"); A to J where empty. Returned as written here.
        asked: names that code is to define (see `asked_names`).
    """
    return read_by(kind, text, options, asked=asked)[0]


def read_by(
    kind: AnswerKind, text: str, options: tuple[str, ...] = (), *, asked: Collection[str] = ()
) -> tuple[str | None, str]:
    """The answer of a complete text as `read` gives it, and the rule by which it was read; pure, never raises.

    The rule is "box", "mark" (`####`, "answer is", `<answer>`), "bold" (a number in bold), "label" (of a choice, not
    marked), "last" (the last number), "line" (the last line), "code", "json", or "whole" (the whole text); where the
    answer is None, the rule that was tried last.
    """
    text = text[-MAX_TEXT:]
    if kind == "code":
        answer, rule = read_code(text, asked), "code"
    elif kind == "json":
        answer, rule = _read_json(text), "json"
    else:
        text = _visible(text, kind)
        if kind == "math":
            answer, rule = _read_math(text)
        elif kind == "choice":
            answer, rule = chosen(text, options or tuple("ABCDEFGHIJ"))
        elif kind == "chat":
            answer, rule = _read_chat(text)
        else:
            answer, rule = _read_text(text)
    return (answer, rule) if answer and len(answer) <= longest(kind) else (None, rule)


def _visible(text: str, kind: AnswerKind) -> str:
    """What the model says, its backslashes single."""
    if kind == "chat" and text.lstrip()[:1] in ("{", "[") and json_value(text.strip()) is not None:
        return text
    text = spoken(text)
    if "\\\\" in text and _DOUBLED_BOX.search(text):
        text = text.replace("\\\\", "\\")
    if "\boxed" in text:  # "\\boxed" out of JSON, its backslash taken for the beginning of \\b
        text = text.replace("\boxed", "\\boxed").replace("\frac", "\\frac")
    return text


def longest(kind: AnswerKind) -> int:
    """Most characters of an answer of this kind; a longer one is not read."""
    return MAX_TEXT if kind in ("json", "chat") else MAX_ANSWER


# ---------------------------------------------------------------- math


def _read_math(text: str) -> tuple[str | None, str]:
    text = before_next_question(text)
    box = boxed(text)
    if box is not None:
        return undress(box), "box"
    given = marks(text)
    for mark in reversed(given):
        if mark.kind == "hashes":
            answer = _behind_hashes(mark.rest, mark.last)
            if answer:
                return answer, "mark"
    for mark in reversed(given):
        if mark.kind == "answer":
            answer = _phrase(mark.rest)
            if answer and re.search(r"[0-9\\]|^[A-Za-z]$", folded(answer)):
                return answer, "mark"
            words = undress(mark.rest) if mark.last else ""
            if _FEW_WORDS.fullmatch(words) and not _NO_ANSWER.match(words):
                return words, "mark"  # "The answer is even."
    bold = bold_number(text)
    if bold is not None:
        return undress(bold), "bold"
    return _last_number(text), "last"


def _behind_hashes(rest: str, last: bool) -> str | None:
    """The answer of a line that begins with ####; None where that is a heading."""
    rest = undress(rest.strip("# \t"))
    if not rest:
        return None
    if is_plain(rest):
        return rest
    if not re.match(r"[*_]*[A-Za-z]{2,}", rest) or understood(rest) is not None:
        return _phrase(rest)
    if plainer(rest) != rest or (last and not re.match(r"(?:step|part|case|question|problem)\b", rest, re.IGNORECASE)):
        return _phrase(rest) or (rest if len(rest) <= MAX_SHORT and only_words(rest) <= 4 else None)
    return None


def _phrase(rest: str) -> str | None:
    """A math answer out of the rest of a line: an expression is taken whole, of prose the number that it names."""
    rest = plain(_rest(rest))
    whole = undress(rest)
    if not whole:
        return None
    if is_plain(whole):
        return whole
    explained = _EXPLAINED.fullmatch(whole)
    if explained is not None:
        return explained[1]
    if understood(whole) is not None:
        return whole
    sentence = undress(_SENTENCE_END.split(whole, maxsplit=1)[0])
    changed = _CHANGED.split(sentence)
    if len(changed) > 1 and re.search("[0-9]", changed[-1]):
        return _phrase(changed[-1])
    if sentence != whole and understood(sentence) is not None:
        return sentence
    shorter = undress(_REASON.split(sentence, maxsplit=1)[0])
    if shorter and shorter != sentence and understood(shorter) is not None and not re.match("not ", shorter):
        return shorter
    marked = re.search(r"\$([^$\n]+)\$|\\\((.+?)\\\)", rest)
    if marked and re.search(r"[0-9A-Za-z]", marked[1] or marked[2]):
        return undress(marked[1] or marked[2])
    if not re.search(r"(?<![\\A-Za-z])[A-Za-z]{3,}", sentence) or (only_words(sentence) < 2 and "\\" in sentence):
        return sentence
    sides = folded(sentence).split("=")
    if len(sides) > 1 and only_words(sides[0]) < 3 and not re.search(r"because|since|so\b", sides[0]):
        number = _number_in(sides[-1])
        if number is not None:
            return number
    return _number_in(folded(sentence))


def _number_in(sentence: str) -> str | None:
    """The first number of a sentence that is not ruled out ("not 41 but 42"); all of it where it names several."""
    for match in _NUMBER.finditer(sentence):
        if not _NOT.search(sentence, max(0, match.start() - 20), match.start()):
            end = match.start() + len(match[0].rstrip())
            before = sentence[max(0, match.start() - 40) : match.start()]
            if _MORE.match(sentence, end) or _CHANGES.match(sentence, end) or _CHANGING.search(before):
                return sentence if len(sentence) <= MAX_SHORT else None
            return _with_sign(sentence, match)
    return None


def _with_sign(text: str, match: re.Match[str]) -> str:
    number = match[0].strip()
    if "/" in number:
        number = number.replace(" and ", " ")  # 3 and 1/2
    before = text[max(0, match.start() - 20) : match.start()]
    return f"-{number}" if number[0] not in "+-" and _MINUS.search(before) else number


def _rest(rest: str) -> str:
    """The beginning of what follows a mark on its line, without what a JSON object around it would leave there."""
    rest = rest[: 2 * MAX_MATH].strip(' \t",')
    return rest.rstrip('} "') if rest.count("}") > rest.count("{") else rest


def _last_number(text: str) -> str | None:
    text = narrowed(text)
    last = last_digit(text)
    if last < 0:
        return None
    text = text[: last + 60]
    size = 250
    while True:  # from the end; a number that begins near the start of a window may have begun before it
        start = max(0, last - size)
        window = folded(text[start:])
        for match in reversed(deque(_NUMBER.finditer(window), maxlen=10)):
            if start and match.start() <= 120:
                break
            if not _NOT.search(window, max(0, match.start() - 20), match.start()):
                return _with_sign(window, match)
        if start == 0:
            return None
        size *= 8


# ---------------------------------------------------------------- text


def _read_text(text: str) -> tuple[str | None, str]:
    text = before_next_question(text)
    box = _worded_box(text)
    if box is not None:
        return box, "box"
    for mark in reversed(marks(text)):
        if mark.rest.strip():
            return undress(mark.rest, stop=False), "mark"
    end = len(text.rstrip())
    line = text[text.rfind("\n", 0, end) + 1 : end]
    return (undress(line[: MAX_ANSWER + 100], stop=False), "line") if line.strip() else (None, "line")


def _worded_box(text: str) -> str | None:
    """The last box, words in it as words."""
    box = boxed(text)
    return None if box is None else undress(TEXT_COMMAND.sub(r"\1", box), stop=False)


# ---------------------------------------------------------------- code and JSON


def _read_json(text: str) -> str | None:
    whole = json_value(text.strip())
    if whole is not None:
        return whole
    text = spoken(text)
    whole = json_value(text.strip())
    if whole is not None:
        return whole
    fenced = blocks(text)[::-1]
    for block in sorted(fenced, key=lambda one: one.language != "json"):
        value = json_value(block.content)
        if value is not None:
            return value
    return None


def _read_chat(text: str) -> tuple[str, str]:
    """The answer of a reply, blank where that is, and the rule."""
    whole = text.strip()
    value = whole
    if whole.startswith("```") and whole.endswith("\n```"):
        fenced = blocks(whole)
        value = fenced[0].content.strip() if len(fenced) == 1 else ""
    if value.startswith(("{", "[")):
        compact = json_value(value)
        if compact is not None:
            return compact, "json"
    answer, rule = _marked(whole)
    return (whole, "whole") if answer is None else (answer, rule)


def _marked(text: str) -> tuple[str | None, str]:
    """The answer that a reply marks as such; the first tests of each mark are there for speed only."""
    text = before_next_question(text)
    box = _worded_box(text)
    if box:
        return _label_of(box) or box, "box"
    if "```" in text:
        text = _FENCED.sub("", text)
    given = marks(text)
    for mark in reversed(given):
        if mark.kind == "hashes":
            rest = mark.rest.strip("# \t")
            # else it is a heading
            if (
                mark.last
                or not re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", rest)
                or understood(undress(rest)) is not None
            ):
                answer = _answer_in(rest)
                if answer is not None:
                    return answer, "mark"
    for mark in reversed(given):
        if mark.kind == "answer":
            answer = _answer_in(mark.rest)
            if answer is not None:
                return answer, "mark"
    bold = bold_number(text) if len(text) <= MAX_PROSE else None
    return (undress(bold), "bold") if bold is not None else (None, "whole")


def _answer_in(rest: str) -> str | None:
    """The answer that the rest of a line begins with, words included; None where that is prose."""
    whole = undress(plain(_rest(rest)))
    explained = _EXPLAINED.fullmatch(whole)
    if explained is not None:
        return explained[1]
    if not whole or plain_number(whole) is not None:
        return whole or None
    meaning = understood(whole)
    if meaning is not None and len(whole) <= MAX_SHORT and re.search(r"[0-9]", whole) and not variables(meaning.node):
        return whole
    answer = undress(_REASON.split(_SENTENCE_END.split(whole, maxsplit=1)[0], maxsplit=1)[0])
    if not answer or len(answer) > MAX_SHORT or answer.endswith(":") or _NO_ANSWER.match(answer):
        return None
    return _label_of(answer) or answer


def _label_of(answer: str) -> str | None:
    """B of "(b)", "B) Paris" and "**B.** Paris", None where no label or more than one stands there."""
    label = _LABEL.match(answer) if len(answer) <= MAX_SHORT else None
    return label[1].upper() if label and not _OTHER_LABEL.search(answer, label.end()) else None
