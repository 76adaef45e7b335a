"""Keys of answers that are compared as text, as JSON or as Python literals; pure, and linear in the answer."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import Any

MAX_DEPTH = 100


MAX_FOLDED = 2_000
"""Longest text whose characters are folded by compatibility, since one of them can become eighteen."""


_JSON_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


_SURROGATE = re.compile("[\ud800-\udfff]")


_QUOTES = "\"'`*_“”‘’«» "


def text_key(answer: str) -> str:
    """NFKC, case folded, single spaces, without surrounding quotes and closing punctuation; idempotent."""
    key = answer
    for _ in range(8):  # folding can make new compatible characters, so repeat until nothing changes
        folded = _compatible(_compatible(key).casefold())
        folded = " ".join(folded.split())
        folded = folded.strip(_QUOTES).rstrip(".,;:!? ") or folded
        if folded == key:
            break
        key = folded
    return key


_RAISED = re.compile("[⁰¹²³⁴-⁹]+")


def _compatible(text: str) -> str:
    """NFKC in pieces, since Python sorts the accents on one letter in quadratic time; a space combines with nothing.

    Digits that are raised stay so: 10⁵ is not 105.
    """
    if text.isascii() or len(text) > MAX_FOLDED * 18:
        return text
    text = _RAISED.sub(lambda match: f"^{match[0]}", text)
    return "".join(unicodedata.normalize("NFKC", piece) for piece in re.findall(r"\S{1,200}|\s+", text))


def digest(text: str) -> str:
    """A hash that stands for a very long text."""
    return "sha256:" + hashlib.sha256(text.encode(errors="replace")).hexdigest()


def long_text_key(answer: str) -> str:
    """A hash of a text of any length, its case and white space folded."""
    folded = " ".join(answer.casefold().split()) if len(answer) > MAX_FOLDED else text_key(answer)
    return digest(folded)


# ---------------------------------------------------------------- Python literals

_STRING = r"""(?P<prefix>[bBrRuU]?)(?:'(?P<single>(?:[^'\\\n]|\\.)*)'|"(?P<double>(?:[^"\\\n]|\\.)*)")"""


_LITERAL = re.compile(
    rf"""\s*(?:{_STRING}|(?P<number>[+-]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?j?(?![A-Za-z0-9_]))
    |(?P<word>True|False|None|inf|nan|set(?=\(\))|frozenset(?=\()|Ellipsis)(?![A-Za-z0-9_])|(?P<mark>[][(){{}},:]))""",
    re.VERBOSE,
)


def _string(match: re.Match[str]) -> str:
    """A string literal with single quotes, whichever it was written with."""
    inside = match["single"]
    if inside is None:
        inside = match["double"].replace('\\"', '"')
        inside = re.sub(r"(?<!\\)'", r"\\'", inside)
    else:
        inside = inside.replace('\\"', '"')
    return f"{match['prefix'].lower()}'{inside}'"


_CALL = re.compile(r"([A-Za-z_][A-Za-z0-9_.]{0,60})\((?=[^\n]*['\"])[^\n]*\)$")


_PHRASE = re.compile(r"[A-Za-z]?[a-z]+(?:[ '-][A-Za-z]?[a-z]+)*")


def literal_key(answer: str) -> str | None:
    """A Python literal (a string in single quotes, a list, a tuple, a set or a dictionary) in one spelling, else None.

    Its strings are kept as they are, case and spaces included. A phrase in double quotes is a quotation as well, so it
    counts only as part of a list and the like. A call, as in f('a'), is a literal, too.
    """
    text = answer.strip()
    call = _CALL.match(text)
    if call is not None:
        inside = text[call.end(1) :]
        arguments = literal_key(f"[{inside[1:-1]}]") if text.endswith(")") else None
        return f"{call[1]}({arguments[1:-1]})" if arguments else text
    if text.endswith(("].", ").", "}.", "'.")):
        text = text[:-1]
    if text[:1] in ("'", '"') and text[-1:] in ".,;:!?" and text.rstrip(".,;:!? ")[-1:] == text[0]:
        text = text.rstrip(".,;:!? ")
    if text[:1] not in "'\"[({b" or text[-1:] not in "'\"])}":
        return None
    parts: list[str] = []
    opened: list[str] = []
    place = 0
    while place < len(text):
        match = _LITERAL.match(text, place)
        if match is None:
            return None
        place = match.end()
        mark = match["mark"]
        if mark is not None:
            if mark in "[({":
                opened.append(mark)
                if len(opened) > MAX_DEPTH:
                    return None
            elif mark in "])}" and (not opened or opened.pop() + mark not in ("[]", "()", "{}")):
                return None
            if mark in "])}" and parts and parts[-1] == "," and mark != ")":
                parts.pop()
            parts.append(mark)
        elif match["number"] or match["word"]:
            parts.append(match["number"] or match["word"])
        else:
            parts.append(_string(match))
        if not opened and place < len(text) and text[place:].strip():
            return None  # more than one value
        if len(parts) > 1 and parts[-1] not in ",:])}" and parts[-2] not in ",:[({" and parts[-1] not in "([":
            return None  # two values side by side
    if opened or not parts:
        return None
    key = "".join(f"{part} " if part in ",:" else part for part in parts)
    if len(parts) == 1 and text[0] == '"' and _PHRASE.fullmatch(text[1:-1]):
        return None
    if len(parts) == 3 and parts[0] == "(" and parts[2] == ")":
        return None  # a word or number in brackets
    if not re.search(r"['\[{(]", key):
        return None
    return key


# ---------------------------------------------------------------- JSON


class _Number(str):
    """A number of a JSON text, as it is written there."""


_HARD_NUMBER = re.compile(r"[0-9][.eE]|-0|0{21}|[0-9]{1000}")


def json_value(text: str, *, canonical: bool = False) -> str | None:
    """A JSON text without spaces, None where it is none; canonical: names sorted, and numbers by value."""
    if not text.lstrip()[:1] or text.lstrip()[0] not in '{["-0123456789tfn':
        return None
    try:
        if text.count("[") + text.count("{") <= MAX_DEPTH and not _HARD_NUMBER.search(text):
            # numbers that Python writes as they were: all in C
            value = json.loads(text, parse_constant=_no_constant)
            compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=canonical)
            return _escaped(compact)
        value = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant)
        pieces: list[str] = []
        _write(value, canonical, 0, pieces)
        return "".join(pieces)
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _write(value: Any, canonical: bool, depth: int, pieces: list[str]) -> None:
    """Append the text of a value."""
    kind = type(value)
    if kind is _Number:
        pieces.append(_by_value(value) if canonical else value)
    elif kind is dict or kind is list:
        if depth >= MAX_DEPTH:  # far below where Python itself gives up, which depends on the caller
            raise RecursionError
        if kind is list:
            pieces.append("[")
            for place, item in enumerate(value):
                if place:
                    pieces.append(",")
                _write(item, canonical, depth + 1, pieces)
            pieces.append("]")
            return
        pieces.append("{")
        for place, (name, item) in enumerate(sorted(value.items()) if canonical else value.items()):
            pieces.append(f"{',' if place else ''}{_quoted(name)}:")
            _write(item, canonical, depth + 1, pieces)
        pieces.append("}")
    else:
        pieces.append(_quoted(value))


def _quoted(value: str | bool | None) -> str:
    return _escaped(json.dumps(value, ensure_ascii=False))


def _escaped(text: str) -> str:
    """With lone surrogates escaped, since no file can hold them."""
    return text if text.isascii() else _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _by_value(number: str) -> str:
    """One spelling for all numbers of a value, by moving digits only, so that no size is too large."""
    if number.isdigit() and len(number) <= 20:
        return str(number)
    match = _JSON_NUMBER.fullmatch(number)
    assert match is not None
    sign, whole, fraction, exponent = match.groups("")
    digits = (whole + fraction).lstrip("0")
    kept = digits.rstrip("0")
    if not kept:
        return "0"
    power = int(exponent or 0) - len(fraction) + len(digits) - len(kept)
    return sign + (kept + "0" * power if 0 <= power <= 20 else f"{kept}e{power}")
