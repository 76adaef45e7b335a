"""Canonical keys of answers: equal keys are equal answers."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import Any

MAX_ANSWER = 20_000


MAX_MATH = 400


MAX_DEPTH = 100


DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"


FRAC = re.compile(
    rf"\\[dtc]?frac\s*(?:\{{\s*([+-]?(?:{DIGITS}))\s*\}}|([0-9]))\s*(?:\{{\s*((?:{DIGITS}))\s*\}}|([0-9]))"
)


_PLAIN = re.compile(
    rf"""(?P<sign>[+-]?)\s*(?:USD?|EUR|GBP)?\s*[$€£¥₹]?\s*(?P<inner>[+-]?)\s*
    (?: (?P<whole>[0-9]+)\s+(?P<top>[0-9]+)\s*/\s*(?P<bottom>[0-9]+)
      | 10\s*\^\s*\{{?\s*(?P<ten>[+-]?[0-9]{{1,3}})\s*\}}?
      | (?P<value>{DIGITS})\.?
        (?: \s*/\s*(?P<over>{DIGITS})
          | [eE](?P<exp>[+-]?[0-9]{{1,3}})
          | \s*(?:\*|x|×|\\times|\\cdot)\s*10\s*\^\s*\{{?\s*(?P<power>[+-]?[0-9]{{1,3}})\s*\}}?
        )?
    )
    (?P<unit>(?:[\s/.-]*(?:\x00[A-Za-z]++|[A-Za-z]{{2,}}+)(?:\^\s*\{{?[0-9]\}}?|[²³])?)*)[\s.]*""",
    re.VERBOSE,
)


_BASED = re.compile(r"\(?([0-9][0-9A-Fa-f]*)\)?_\s*\{?\s*([0-9]{1,2})\s*\}?")


EXACT = re.compile(r"-?[0-9]+(?:/[0-9]+)?|[0-9][0-9A-F]*_[0-9]+")


TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")


_NOT_WORDS = re.compile(rf"{TEXT_COMMAND.pattern}|\\(?:begin|end)\s*\{{[a-z]*\}}")


_SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
}  # fmt: skip


_NOT_UNITS = re.compile(
    r"(?i:pi|tau|phi|theta|alpha|beta|gamma|delta|lambda|infinity|infty|inf|sqrt|cbrt|exp|log|ln|lg|mod|gcd|lcm|choose"
    r"|(?:arc)?(?:sin|cos|tan)|cot|sec|csc|plus|minus|times|over|divided|squared|cubed|factorial|and|or|to|in|of|if|when"
    r"|more|less|hal(?:f|ves)|quarters?|(?:third|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)s?)"
)


_CHARACTERS = str.maketrans({"−": "-", "⁄": "/", "÷": "/", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\x00": ""})


_LATEX = re.compile(r"\\[A-Za-z(\[{]|\$[^$]+\$|\^")


_JSON_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


_SURROGATE = re.compile("[\ud800-\udfff]")


_DRESS = (("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ("*", "*"), ("`", "`"), ("<", ">"))


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


def undress(answer: str, stop: bool = True) -> str:
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


def only_words(text: str) -> int:
    """How many words of prose there are in a math answer."""
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", _NOT_WORDS.sub(" ", text))
    return sum(not _NOT_UNITS.fullmatch(word) for word in words)


def _bare(answer: str) -> str:
    """A math answer without LaTeX spacing, delimiters, degrees, percent and the `x =` in front."""
    text = undress(answer.translate(_CHARACTERS))
    text = re.sub(r",\\!\s*", ",", text.replace("{,}", ","))
    text = re.sub(r"(?<=[0-9])\\[,!;:> ]\s*(?=[0-9]{3}(?![0-9]))", "", text)
    text = re.sub(r"\\(?:left|right|displaystyle|[!,;:> ])(?![A-Za-z])|\\q?quad(?![A-Za-z])|~", " ", text)
    text = text.replace(r"\$", "$").replace(r"\%", "%").replace("%", " ")
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])|°", " ", text)
    text = FRAC.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)
    text = TEXT_COMMAND.sub(lambda m: " " + re.sub(r"(?<![A-Za-z])(?=[A-Za-z])", "\x00", m[1]) + " ", text).strip()
    # "x = 5", "= 5" and "120 - 90 = 30", but not "2k = 4"
    text = re.sub(r"^(?:(?:[A-Za-z]\s*|[^A-Za-z=≈\\]*)(?:=|≈|\\approx)\s*)+", "", text)
    while len(text) > 2 and (text[0], text[-1]) in (("(", ")"), ("{", "}")) and not re.search(r"[,(){}]", text[1:-1]):
        text = text[1:-1].strip()  # with a comma inside it is a point or an interval
    return re.sub(r"\s*(?:percent|percentage)\s*$", "", text)


def chat_key(answer: str) -> str | None:
    """The key of a chat's answer, None where it is to be compared as math."""
    if answer.lstrip().startswith(("{", "[")):
        value = json_value(answer, canonical=True)
        if value is not None:
            return value
    number = plain_number(answer)
    if number is not None:
        return str(number)
    if is_latex(answer):
        return None
    key = text_key(answer)
    if len(answer) > MAX_ANSWER:
        return "sha256:" + hashlib.sha256(key.encode(errors="replace")).hexdigest()
    return key if key == answer else chat_key(key)  # without quotes, "5" is a number


def is_latex(answer: str) -> bool:
    """Whether an answer is written in LaTeX, and short enough to be taken as such."""
    return len(answer) <= MAX_MATH and _LATEX.search(answer) is not None and only_words(answer) < 2


class _Number(str):
    """A number of a JSON text, as it is written there."""


def json_value(text: str, *, canonical: bool = False) -> str | None:
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
def easy_key(answer: str) -> str | None:
    """The key of a math answer that needs no algebra: a number, a number in another base, words, something long."""
    number = plain_number(answer)
    if number is not None:
        return str(number)
    if len(answer) > MAX_MATH:
        return cleaned_math(answer)
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


def cleaned_math(answer: str) -> str:
    """What is compared where no canonical form is known: the answer without its spacing."""
    text = undress(answer.translate(_CHARACTERS))
    text = re.sub(r"\\(?:left|right|displaystyle|[!,;:> ])(?![A-Za-z])|\s+", "", text)
    return re.sub(r"\\[dt]frac", r"\\frac", text) or answer.strip()


def for_latex(answer: str) -> str:
    """The answer as LaTeX that math-verify understands."""
    text = undress(answer.translate(_CHARACTERS)).replace("$", "")
    text = text.replace("**", "^").replace("π", r"\pi ").replace("∞", r"\infty ").replace("·", r"\cdot ")
    return re.sub(r"(?<![\\A-Za-z])(pi|theta|infty)(?![A-Za-z])", r"\\\1 ", text)
