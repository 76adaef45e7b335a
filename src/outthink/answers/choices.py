"""Which label of a multiple choice a text chooses."""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache

from outthink.answers.marks import MARKS, before_next_question, boxes, marks, plain
from outthink.answers.notation import narrowed

MAX_UNMARKED = 20_000
"""How many characters, the last ones, are searched for a label that is not marked."""


_REASONS = re.compile(
    r"\s+(?:because|since|which|as|for|due|and|or|but|not|is|was|with|given|so|by|when|if|that|where|would|seems)\b"
)


_NEGATED_BEFORE = re.compile(
    r"(?:\bnot|n't|n’t|\bneither|\bnor|\brather than|\binstead of|\bthan|\bexcept|\bexclud\w*|\beliminat\w*"
    r"|\brul\w+ out|\bunlike|\bdiscard\w*|\breject\w*|\bwithout|\bwhy|\bnot be|\bover)[\s*_(\"'\[]*"
    r"(?:the\s+)?(?:options?|choices?|answers?)?[\s*_(\"'\[]*$",
    re.IGNORECASE,
)


_RULED_OUT = (
    r"(?:\([^()\n]{0,40}\)\s|(?:(?!\b(?:because|since|as|for|which|but|and|or|that|if|options?|choices?|[A-J])\b)[^.,;\n])"
    r"{0,24}?\s)?(?:(?:is|are|was|were|seems?|looks?|would be|can be|must be)\s+"
    r"(?:clearly |also |just |simply |obviously |both |all )?"
    r"(?:not|wrong|incorrect|false|out|too|tempting|impossible|invalid|excluded|eliminated|ruled|unlikely|irrelevant|close)"
    r"|(?:does|do|did|can|could|would|is|are|has|have)(?:n't|n’t| not)\b|cannot\b|fails?\b"
    r"|(?:no|false|wrong|incorrect|too (?:small|large|big|low|high))\b(?=[.,;\n]|$)|[❌✗✘✖])"
)


_NEGATED_BEHIND = re.compile(rf"[\s*_)\]\"':]*{_RULED_OUT}", re.IGNORECASE)


_NEGATED_LINE = re.compile(rf"[\s*_)\]\"':.]*{_RULED_OUT}", re.IGNORECASE)


_JOINED = r"[\s*_)\]}.]*(?:,|/|&|\band\b|\bor\b|\+)[\s*_(\[]*(?:and\b|or\b)?[\s*_(\[]*"


_AND = re.compile(_JOINED, re.IGNORECASE)


class _Patterns:
    """The regular expressions of a set of labels."""

    def __init__(self, options: tuple[str, ...]) -> None:
        self.by_label = {option.upper(): option for option in options}
        ordered = sorted((re.escape(option) for option in options), key=len, reverse=True)
        label = "|".join(ordered)
        dress = r"[\s*_(\[{$<`\"'“‘]*+"
        word = r"(?:(?:the\s++)?(?:correct\s++)?(?:option|choice|answer|letter)s?\b[\s:]*+)?"
        self.alone = re.compile(rf"(?<![A-Za-z0-9\\'’])({label})(?![A-Za-z0-9]|['’][A-Za-z])")
        self.listed = re.compile(rf"(?:{_JOINED}(?:{label})(?![A-Za-z0-9]|['’][A-Za-z])){{1,8}}", re.IGNORECASE)
        self.head = re.compile(
            rf"{dress}(?:\\\w+\s*\{{)?{dress}{word}{dress}({label})(?![A-Za-z0-9]|['’][A-Za-z])", re.IGNORECASE
        )
        self.chosen = re.compile(
            r"\b(?:answers?|choice|option|selection|pick|letter|correct)"
            rf"[ \t*_\"']*(?:is|:|=|would be|should be|must be)"
            rf"[ \t:]*+{dress}(?:option |choice )?{dress}({label})(?![A-Za-z0-9]|['’][A-Za-z])"
            rf"|\b(?:choose|pick|select|chose|selected|go with|going with|opt for|conclude)\s++(?:the\s++)?"
            rf"(?:answer |option |choice |letter )?{dress}"
            rf"({label})(?![A-Za-z0-9]|['’][A-Za-z])"
            rf"|(?<![A-Za-z0-9\\'’])({label})[*_)\]\"']*+\s++(?:is|must be|would be|seems)\s+"
            r"(?:the\s++|thus\s++|therefore\s++|clearly\s++|indeed\s++)*+"
            r"(?:correct|right|best|only (?:correct|right|one|option)|answer|true|most)",
            re.IGNORECASE,
        )
        self.start = re.compile(
            rf"{dress}(?:option |choice )?{dress}({label})(?![A-Za-z0-9]|['’][A-Za-z])"
            r"(?=[*_)\]}`\"'”$>]*(?:[.):](?=[\s*_]|$)|[*_)\]}`\"'”$>.\s]*$|[)*\]}])"
            r"|\s+(?:because|since|is correct|and not|not)\b)",
            re.IGNORECASE,
        )


@lru_cache(maxsize=64)
def _patterns(options: tuple[str, ...]) -> _Patterns:
    return _Patterns(options)


def chosen(text: str, options: tuple[str, ...]) -> tuple[str | None, str]:
    """The label that a text chooses, as it is written in `options`, and by which rule; None where it chooses none.

    Linear in the text. A label that a text rules out ("not A", "(A) is wrong") is not chosen, and neither is one of two
    that it gives as its answer ("A and C").
    """
    text = before_next_question(narrowed(text))
    known = _patterns(options)
    by_rule = [("box", text[box.start : box.end]) for box in reversed(boxes(text))]
    given = marks(text)
    for kind in ("hashes", "answer"):
        by_rule += [("mark", mark.rest) for mark in reversed(given) if mark.kind == kind]
    for rule, place in by_rule:
        label = _in_place(place[:400], known)
        if label == "":
            return None, rule  # several
        if label is not None:
            return known.by_label[label.upper()], rule
    label = _first_line(text, known)
    if label is not None:
        return known.by_label[label.upper()], "label"
    for size in (4_000, MAX_UNMARKED):  # from the end, since the last one counts
        start = max(0, len(text) - size)
        last = None
        for match in deque(known.chosen.finditer(text, start), maxlen=MARKS):
            index = match.lastindex or 1
            span = match.span(index)
            if not _is_word(text, *span, marked=True) and not _negated(text, *span, known):
                last = match[index]
        if last is not None:
            return known.by_label[last.upper()], "mark"
        if start == 0:
            break
    for size in (4_000, MAX_UNMARKED):
        start = max(0, len(text) - size)
        for match in reversed(deque(known.alone.finditer(text, start), maxlen=4 * MARKS)):
            if not _is_word(text, *match.span(1)) and not _negated(text, *match.span(1), known):
                if _one_of_two(text, match, known):
                    return None, "label"
                return known.by_label[match[1].upper()], "label"
    return None, "label"


def _in_place(place: str, known: _Patterns) -> str | None:
    """The label of a place that is marked as the answer; "" where it has several, None where it has none."""
    place = plain(place)
    match = known.head.match(place)
    if match and not _is_word(place, match.start(1), match.end(1), marked=True):
        joined = _AND.match(place, match.end(1))
        if joined:
            other = known.alone.match(place, joined.end())
            if other and other[1].upper() != match[1].upper() and not _is_word(place, other.start(1), other.end(1)):
                return ""
        if not _negated(place, match.start(1), match.end(1), known):
            return match[1]
    labels = [
        one[1]
        for one in known.alone.finditer(place)
        if not _is_word(place, one.start(1), one.end(1)) and not _negated(place, one.start(1), one.end(1), known)
    ]
    return labels[0] if len({label.upper() for label in labels}) == 1 else None


def _first_line(text: str, known: _Patterns) -> str | None:
    """The label that a text begins with, as in `b. 4`, unless it begins a list of the options."""
    stripped = text.lstrip()
    line = stripped.partition("\n")[0][:200]
    match = known.start.match(line)
    if match is None or _negated(line, match.start(1), match.end(1), known):
        return None
    others = [known.start.match(other.lstrip()[:60]) for other in stripped[:4_000].splitlines()[1:40]]
    if any(other and other[1].upper() != match[1].upper() and other.start(1) <= 4 for other in others):
        return None
    rest = [
        one for one in known.alone.finditer(line, match.end(1)) if line[one.end(1) : one.end(1) + 1] in (")", ".", ":")
    ]
    if any(one[1].upper() != match[1].upper() for one in rest):
        return None
    return match[1]


def _is_word(text: str, start: int, end: int, marked: bool = False) -> bool:
    """Whether the label at [start, end) is the word "a" or "I" of a sentence; behind a mark a reason may follow."""
    if text[start:end] not in ("A", "a", "I", "i") or re.match(r"\s[a-z]", text[end : end + 2]) is None:
        return False
    return not ((marked or text[start:end] == "A") and _REASONS.match(text, end, end + 12))


def _one_of_two(text: str, match: re.Match[str], known: _Patterns) -> bool:
    """Whether another label is joined to the one that was matched, as in "A and B"."""
    start = max(0, match.start(1) - 30)
    for other in known.alone.finditer(text, start, match.start(1)):
        joined = _AND.match(text, other.end(1))
        if joined is not None and joined.end() == match.start(1) and other[1].upper() != match[1].upper():
            return not _is_word(text, *other.span(1)) and not _negated(text, *other.span(1), known)
    return False


def _negated(text: str, start: int, end: int, known: _Patterns) -> bool:
    """Whether the label at [start, end) is ruled out right there, alone or with others ("A, C and D are wrong")."""
    if _NEGATED_BEFORE.search(text[max(0, start - 40) : start]):
        return True
    opening = not text[max(text.rfind("\n", 0, start) + 1, start - 8) : start].strip(" \t*_([-")
    pattern = _NEGATED_LINE if opening else _NEGATED_BEHIND
    if pattern.match(text, end, end + 70) is not None:
        return True
    others = known.listed.match(text, end, end + 60)
    return others is not None and _NEGATED_BEHIND.match(text, others.end(), others.end() + 70) is not None
