"""Canonical keys of answers: equal keys are equal answers."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import gcd

from outthink.answers.amounts import SCALES, UNITS, Meaning, understood, undress
from outthink.answers.forms import HardError, assigned, exact, exact_key, key, variables
from outthink.answers.grammar import Expression
from outthink.answers.literals import digest, json_value, literal_key, long_text_key, text_key
from outthink.answers.notation import MAX_MATH, NotUnderstoodError, folded, word_set

MAX_ANSWER = 20_000


_QUICK = re.compile(
    r"(?P<sign>[+-]?)(?P<money>(?:\\?[$])?)(?P<whole>[0-9]{1,400}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,99})"
    r"(?P<part>\.[0-9]{1,400})?(?:/(?P<over>[0-9]{1,99}))?(?:[eE](?P<power>[+-]?[0-9]{1,3}))?(?P<stop>\.?)"
    r"(?: (?P<unit>[a-z]{4,20}))?\.?"
)


_FRACTION = re.compile(r"(-?)\\[dt]?frac\{([0-9]{1,99})\}\{([0-9]{1,99})\}")


_LATEX = re.compile(r"\\[A-Za-z(\[{]|\$[^$]+\$|\^")


TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")


_NOT_WORDS = re.compile(rf"{TEXT_COMMAND.pattern}|\\(?:begin|end)\s*\{{[a-z]*\}}")


_MATH_WORDS = word_set(
    """pi tau phi theta alpha beta gamma delta lambda infinity infty inf sqrt cbrt exp log sin cos tan arcsin arccos
    arctan cot sec csc mod gcd lcm"""
)


_EXACT = re.compile(r"-?[0-9]+(?:/[0-9]+)?|-?[0-9][0-9A-Z.]*_[0-9]+|-?~[0-9a-f]+")


def plain_number(answer: str) -> Fraction | None:
    """The exact value of a plain number in any usual dress, None where it is not one; never raises."""
    quick = _QUICK.fullmatch(answer)
    if quick is not None:
        return _quick_number(quick)
    if len(answer) > MAX_MATH or not re.search(r"\d|[¼-¾⅐-⅞]", answer):
        return None
    quick = _FRACTION.fullmatch(answer)
    if quick is not None:
        return Fraction(int(quick[1] + quick[2]), int(quick[3])) if int(quick[3]) else None
    meaning = understood(answer)
    if meaning is None or meaning.text:
        return None
    node = meaning.node
    pair = assigned(node)
    if pair is not None:
        node = pair[1]
    elif node.op == "rel":
        if variables(node) or set(node.name.split()) - {"=", "~="}:
            return None
        node = node.parts[-1]
    return exact(node)


def is_plain(answer: str) -> bool:
    """Whether an answer is a number of one of the commonest forms; a quick test."""
    return _QUICK.fullmatch(answer) is not None or _FRACTION.fullmatch(answer) is not None


def _quick_number(match: re.Match[str]) -> Fraction | None:
    """A number of one of the commonest forms, without the tree."""
    unit = match["unit"]
    if (unit and (unit not in UNITS and unit not in SCALES and not unit.endswith("s"))) or (match["stop"] and unit):
        return _slow_number(match[0])
    if unit and (unit in SCALES or unit in _AWKWARD):
        return _slow_number(match[0])
    whole, part = match["whole"].replace(",", ""), match["part"]
    value = Fraction(whole + part) if part else Fraction(int(whole))
    over = match["over"]
    if over:
        if not int(over) or match["power"] or match["money"]:
            return _slow_number(match[0]) if int(over) else None
        value /= int(over)
    if match["power"]:
        value *= Fraction(10) ** int(match["power"])
    return -value if match["sign"] == "-" else value


_AWKWARD = word_set(
    "halves quarters thirds fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths times minus"
    " plus less versus"
)


def _slow_number(answer: str) -> Fraction | None:
    meaning = understood(answer)
    return None if meaning is None or meaning.text or meaning.node.op == "rel" else exact(meaning.node)


def only_words(text: str) -> int:
    """How many words of prose there are in a math answer."""
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", _NOT_WORDS.sub(" ", text))
    return sum(word.lower() not in _MATH_WORDS for word in words)


def is_latex(answer: str) -> bool:
    """Whether an answer is written in LaTeX, and short enough to be taken as such."""
    return len(answer) <= MAX_MATH and _LATEX.search(answer) is not None and only_words(answer) < 2


def chat_key(answer: str) -> str | None:
    """The key of a chat's answer, None where it is to be compared as math."""
    if answer.lstrip().startswith(("{", "[")):
        value = json_value(answer, canonical=True)
        if value is not None:
            return value
    if len(answer) > MAX_ANSWER:
        return long_text_key(answer)
    number = plain_number(answer)
    if number is not None:
        return exact_key(number)
    if is_latex(answer) or _says_amount(answer):
        return None
    number = _ending_number(answer)
    if number is not None:
        return exact_key(number)
    key = text_key(answer) if len(answer) <= MAX_ANSWER // 2 else " ".join(answer.casefold().split())
    if len(key) > MAX_ANSWER:
        return digest(key)
    return key if key == answer else chat_key(key)  # without quotes, "5" is a number


_ENDS_WITH = re.compile(
    r"(?:\b(?:is|are|equals?|makes|gives)|=|≈)\s*(?:(?:exactly|about|approximately)\s)?([^\s=≈][^=≈]{0,40})$"
)


def _ending_number(line: str) -> Fraction | None:
    """The number that a short sentence ends with, as in `The product is 391.`."""
    match = _ENDS_WITH.search(line.rstrip(" .!")) if len(line) <= 80 and "\n" not in line else None
    return None if match is None else plain_number(match[1])


def _says_amount(answer: str) -> bool:
    """Whether a short answer is a time, an amount or a number with letters of math, compared as in a math problem."""
    if len(answer) > 60 or not re.search(r"\d", answer):
        return False
    meaning = understood(answer)
    return meaning is not None and (bool(meaning.text) or not variables(meaning.node))


def choice_key(answer: str) -> str | None:
    """The label in upper case."""
    return answer.strip().strip("()").upper() or None


def plain_text_key(answer: str) -> str:
    """The key of an answer of kind text: a Python literal as such, all else folded."""
    literal = literal_key(answer)
    if literal is not None:
        return literal
    return text_key(answer) if len(answer) <= MAX_ANSWER // 2 else digest(" ".join(answer.casefold().split()))


@lru_cache(maxsize=1 << 12)  # most samples of a problem give one of few answers
def easy_key(answer: str) -> str | None:
    """The key of a math answer that can be worked out at once, None where the values of functions are needed."""
    quick = _QUICK.fullmatch(answer)
    if quick is not None and (number := _quick_number(quick)) is not None:
        return exact_key(number)
    meaning = understood(answer)
    if meaning is None:
        return cleaned_math(answer)
    try:
        return meaning_key(meaning)
    except HardError:
        return None
    except NotUnderstoodError:
        return cleaned_math(answer)


def meaning_key(meaning: Meaning) -> str:
    """The key of what was understood; raises HardError where that needs the values of functions."""
    return meaning.text or key(meaning.node, _not_here)


def _not_here(node: Expression) -> str:
    raise HardError(node.op)


def cleaned_math(answer: str) -> str:
    """What is compared where no canonical form is known: the text, without spacing that says nothing."""
    text = undress(answer) if len(answer) <= MAX_ANSWER else answer.strip()
    if len(text) <= MAX_MATH * 5:
        text = folded(text)
    for _ in range(3):
        text = TEXT_COMMAND.sub(r" \1 ", text)
    text = re.sub(r"\\(?:left|right|displaystyle|q?quad|[!,;:> ])(?![A-Za-z])", " ", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"(?<![\\A-Za-z])[A-Za-z]{3,}", lambda match: match[0].lower(), text)
    text = " ".join(text.split())
    text = re.sub(
        r"(?<![A-Za-z0-9.]) | (?![A-Za-z0-9.\\])", "", text
    )  # between two words or numbers one says something
    if re.fullmatch(r"[A-Za-z' .,!?;:\"-]+", text) and re.search(r"[A-Za-z]{2}", text):
        text = text_key(text)
    return text or answer.strip()


# ---------------------------------------------------------------- grading


def judged(kind: str, gold: str, answer: str, gold_key: str, answer_key: str) -> bool | None:
    """Whether an answer is right, as far as that can be said at once; None where the values of functions are needed.

    Args:
        kind: "math", "chat" or "text".
        gold, answer: as they were read.
        gold_key, answer_key: their keys.
    """
    if kind == "text":
        same = _same_literal(gold, answer)
        return gold_key == answer_key if same is None else same
    if kind not in ("math", "chat"):
        return gold_key == answer_key
    if kind == "chat" and not (_mathy(gold) and _mathy(answer)):
        return gold_key == answer_key
    one, other = understood(gold), understood(answer)
    if one is None or other is None:
        return gold_key == answer_key
    if one.label or other.label or _bare_label(one) or _bare_label(other):
        labels = one.label or _bare_label(one), other.label or _bare_label(other)
        if labels[0] and labels[1]:
            return labels[0] == labels[1] and (not (one.label and other.label) or gold_key == answer_key)
    verdict = _by_units(one, other, gold_key, answer_key)
    if verdict is not None:
        return verdict
    if gold_key == answer_key:
        names = _about(one.node), _about(other.node)
        return not names[0] or not names[1] or names[0] == names[1]
    if _EXACT.fullmatch(gold_key) and _EXACT.fullmatch(answer_key):
        return False
    if one.text or other.text:
        return False
    rounded = _rounded(gold, gold_key, answer, answer_key)
    if rounded is not None:
        return rounded
    return None


def exactly(kind: str, gold: str, answer: str, gold_key: str, answer_key: str) -> bool:
    """Whether an answer is right where nothing near is: the same key, nothing that grading refuses, and no unit beyond.

    A unit that only the answer has may make another number of it, as in `2%` where 2 is right. Args as of `judged`.
    """
    if gold_key != answer_key or judged(kind, gold, answer, gold_key, answer_key) is False:
        return False
    if kind not in ("math", "chat"):
        return True
    one, other = understood(gold), understood(answer)
    return one is None or other is None or other.unit is None or other.unit == one.unit


def _about(node: Expression) -> str:
    """The name of `x = 5`, and the only variable of `x > 5` and `x \\in [1, 2]`; "" where there is none."""
    pair = assigned(node)
    if pair is not None:
        return pair[0]
    names = variables(node) if node.op == "rel" else set()
    return names.pop() if len(names) == 1 else ""


def _mathy(text: str) -> bool:
    return len(text) <= MAX_MATH and (is_latex(text) or re.search(r"\d", text) is not None)


def _bare_label(meaning: Meaning) -> str:
    """C of an answer that is nothing but a label."""
    node = meaning.node
    while node.op == "paren" and not node.name:
        node = node.parts[0]
    return node.name if node.op == "var" and re.fullmatch(r"[A-J]", node.name) and not meaning.text else ""


def _same_literal(gold: str, answer: str) -> bool | None:
    """Whether two strings in quotes are the same, as "a" and 'a' are; None where they are no such strings."""
    quoted = [text.strip() for text in (gold, answer)]
    if any(len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"" for text in quoted):
        return None
    if any("\\" in text or text[0] in text[1:-1] for text in quoted):
        return None
    return quoted[0][1:-1] == quoted[1][1:-1]


def _by_units(gold: Meaning, answer: Meaning, gold_key: str, answer_key: str) -> bool | None:
    """What the units of two answers say: that they differ, or are the same amount; None where they say nothing."""
    if gold.unit and answer.unit:
        if gold.unit[0] != answer.unit[0]:
            return False
        values = [exact(_valued(meaning.node)) for meaning in (gold, answer)]
        if values[0] is not None and values[1] is not None:
            return values[0] * gold.unit[1] == values[1] * answer.unit[1]
        return None if gold.unit[1] == answer.unit[1] else False
    clock = re.compile(r"([0-9]+):([0-9]{2})( [ap]m)?")
    times = clock.fullmatch(gold.text), clock.fullmatch(answer.text)
    if times[0] and times[1]:
        if gold.text == answer.text:
            return True
        # a gold answer that does not say which half of the day leaves that open; one that says so does not
        return not times[0][3] and times[0][1] == times[1][1] and times[0][2] == times[1][2]
    for time, other, other_key in ((times[0], answer, answer_key), (times[1], gold, gold_key)):
        if time and not other.text and not time[3]:
            hours, minutes = int(time[1]), time[2]
            return minutes[0] != "0" and gcd(hours, int(minutes)) == 1 and other_key == f"{hours}/{minutes}"
    if times[1] and not gold.text:
        return times[1][2] == "00" and gold_key == times[1][1]  # 2, and 2 p.m.
    if answer.suffix and not variables(gold.node) and not gold.text and gold_key != answer_key:
        return _suffixed(gold, answer, gold_key)
    for one, other, other_key in ((gold, answer, answer_key), (answer, gold, gold_key)):
        if one.suffix and other.unit is not None:
            unit = UNITS.get(one.suffix.strip())
            if unit is not None and other.text and other.unit[0] == ((unit[0], 1),):  # 2.5 m, and 2 m 50 cm
                value, total = _coefficient(one), exact(other.node)
                return value is not None and total is not None and value * unit[1] == total * other.unit[1]
            same = unit is not None and other.unit == (((unit[0], 1),), unit[1])
            return same and _before(one, other_key)
    return None


def _suffixed(gold: Meaning, answer: Meaning, gold_key: str) -> bool:
    """`6 m` where 6 or 6 metres is right, `1.8k` where 1800 is."""
    letter = answer.suffix.strip()
    unit = UNITS.get(letter)
    if unit is not None and letter not in ("K",) and answer.suffix[0] == " ":
        if gold.unit is None or gold.unit == (((unit[0], 1),), unit[1]):
            return _before(answer, gold_key)
        return False
    if letter in ("k", "K", "M"):
        value, wanted = _coefficient(answer), exact(gold.node)
        return value is not None and wanted is not None and value * (10**6 if letter == "M" else 1000) == wanted
    if unit is not None and gold.unit == (((unit[0], 1),), unit[1]):
        return _before(answer, gold_key)
    return False


def _before(meaning: Meaning, wanted: str) -> bool:
    """Whether the number before a letter has this key."""
    value = _coefficient(meaning)
    return value is not None and exact_key(value) == wanted


def _coefficient(meaning: Meaning) -> Fraction | None:
    node, sign = meaning.node, 1
    if node.op == "neg":
        node, sign = node.parts[0], -1
    value = exact(node.parts[0]) if node.op == "mul" else None
    return None if value is None else value * sign


def _valued(node: Expression) -> Expression:
    pair = assigned(node)
    return pair[1] if pair is not None else node.parts[-1] if node.op == "rel" and not variables(node) else node


_DECIMAL = re.compile(r"(?:[A-Za-z]\s*(?:=|≈|\\approx)\s*)?(-?[0-9]{1,15}\.[0-9]{6,15})")


def _rounded(gold: str, gold_key: str, answer: str, answer_key: str) -> bool | None:
    """Whether one is the other rounded to six decimal places and digits or more; None where that is no question."""
    for text, text_key_, full_key in ((answer, answer_key, gold_key), (gold, gold_key, answer_key)):
        decimal = _DECIMAL.fullmatch(undress(text))
        full = re.fullmatch(r"(-?[0-9]+\.[0-9]+)(e-?[0-9]+)?~[0-9a-f]{8}", full_key)
        if decimal is None or full is None or not _EXACT.fullmatch(text_key_):
            continue
        written, exactly = Decimal(decimal[1]), Decimal(full[1] + (full[2] or ""))
        digits = len(decimal[1].lstrip("-0.").replace(".", ""))
        exponent = written.as_tuple().exponent
        assert isinstance(exponent, int)
        # of the exact number twenty digits are known
        return 6 <= digits <= 15 and abs(written - exactly) <= Decimal(1).scaleb(exponent) * Decimal("0.5000001")
    return None
