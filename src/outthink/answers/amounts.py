"""What surrounds the math of an answer: units, amounts of several parts, times, labels, numbers in other bases."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from outthink.answers.grammar import Expression, number, tree
from outthink.answers.notation import MAX_MATH, NotUnderstoodError, Token, folded_math, group, tokens, word_set

Dimension = tuple[tuple[str, int], ...]


class Meaning(NamedTuple):
    """What an answer says.

    Args:
        node: its math, without what is below.
        unit: (dimension, factor) of its unit where that is a known one, else None.
        label: of `(C) 12`, else "".
        text: a key that is known already (a time, an amount of several parts, a number in another base), else "".
        suffix: a letter behind a number that may be a unit, as in `6 m`, else "".
    """

    node: Expression
    unit: tuple[Dimension, Fraction] | None = None
    label: str = ""
    text: str = ""
    suffix: str = ""


def _units() -> dict[str, tuple[str, Fraction]]:
    table: dict[str, tuple[str, Fraction]] = {}

    def add(dimension: str, factor: Fraction | int | str, names: str) -> None:
        for name in names.split():
            table[name] = (dimension, Fraction(factor))

    for short, long, base in (("m", "meter metre", "length"), ("g", "gram gramme", "mass"),
                              ("l", "liter litre", "volume"), ("s", "second", "time"),
                              ("Hz", "hertz", "frequency"), ("J", "joule", "energy"),
                              ("W", "watt", "power"), ("N", "newton", "force"), ("V", "volt", "voltage"),
                              ("A", "ampere amp", "current"), ("Pa", "pascal", "pressure")):  # fmt: skip
        for prefix, word, factor in (("", "", "1"), ("m", "milli", "1/1000"), ("k", "kilo", "1000"),
                                     ("c", "centi", "1/100"), ("d", "deci", "1/10"), ("M", "mega", "1000000"),
                                     ("n", "nano", "1/1000000000")):  # fmt: skip
            if prefix not in ("", "m", "k", "n") and base in ("time", "mass"):
                continue
            scale = Fraction(factor) * (Fraction(1, 1000) if base == "volume" else 1)
            for name in long.split():
                add(base, scale, f"{word}{name} {word}{name}s")
            if (prefix, short) not in (("d", "A"), ("c", "d"), ("m", "in"), ("M", "m"), ("M", "A"), ("d", "s")):
                add(base, scale, prefix + short)
    add("volume", "1/1000", "L")
    add("volume", "1/1000000", "mL cc")
    add("length", "0.0254", "in inch inches")
    add("length", "0.3048", "ft foot feet")
    add("length", "0.9144", "yd yard yards")
    add("length", "1609.344", "mi mile miles")
    add("time", 60, "min mins minute minutes")
    add("time", 3600, "h hr hrs hour hours")
    add("time", 86400, "day days")
    add("time", 604800, "week weeks")
    add("time", 1, "sec secs s")
    add("years", 1, "year years yr yrs")
    add("years", "1/12", "month months")
    add("mass", "453.59237", "lb lbs pound pounds")
    add("mass", "28.349523125", "oz ounce ounces")
    add("money", 1, "dollar dollars usd USD buck bucks $")
    add("money", "1/100", "cent cents penny pennies")
    add("euros", 1, "euro euros eur EUR €")
    add("sterling", 1, "gbp GBP £")
    add("yen", 1, "yen jpy JPY ¥")
    add("rupees", 1, "rupee rupees ₹")
    add("angle", 1, "degree degrees deg")
    add("radians", 1, "radian radians rad")
    add("percent", 1, "percent percentage %")
    add("gallons", 1, "gallon gallons gal")
    add("gallons", "1/4", "quart quarts")
    add("gallons", "1/8", "pint pints pt")
    return table


UNITS = _units()


SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "bn": 10**9, "mln": 10**6,
}  # fmt: skip


NOT_UNITS = word_set(
    """pi plus minus times over divided squared cubed factorial and or to of if when more less half halves quarter
    quarters third thirds fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth
    tenths hundredth hundredths thousandth thousandths mod choose base not no yes is be are was were but because since
    so as for than then remainder repeating recurring reciprocal root roots power powers inverse negative positive
    through until between versus vs infinity an at by"""
)


_NUMBER_WORDS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "binary": 2, "octal": 8, "decimal": 10,
    "hexadecimal": 16,
}  # fmt: skip


_BASED = re.compile(
    r"""(?P<sign>-?)\s*(?:\\(?:text|mathrm|textbf|mathbf|texttt)\s*\{\s*(?P<upright>[0-9A-Fa-f]+)\s*\}
      |\(?(?P<digits>[0-9][0-9A-Fa-f]*(?:\.[0-9A-Fa-f]+)?|[A-F][0-9A-F]+)\)?)\s*
    (?:_\s*(?:\{\s*)?\(?\s*(?:\\(?:text|mathrm|textrm)\s*\{)?\s*(?:base[\s~-]*\}?\s*)?\(?(?P<base>[0-9]{1,2}|[a-z]{3,11})\)?\s*
       \}?\s*\)?\s*(?:\})?
     |(?:\\(?:text|mathrm|textrm)\s*\{)?\s*\(?(?:in\s+)?base[\s~-]+\}?\s*(?P<worded>[0-9]{1,2}|[a-z]{3,11})\)?\s*\}?)""",
    re.VERBOSE,
)


_DATE = re.compile(r"[0-9]{4}([-/])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}/[0-9]{1,2}/(?:[0-9]{4}|[0-9]{2})")


_CLOCK = re.compile(
    r"""(?P<hours>[0-9]{1,2})(?::(?P<minutes>[0-9]{2})(?::(?P<seconds>[0-9]{2}))?)?\s*
    (?P<half>[ap]\.?\s?m\b\.?|[AP]\.?\s?M\b\.?|o'clock|noon|midnight)?""",
    re.VERBOSE,
)


_UPRIGHT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")


_LABELLED = re.compile(
    r"""\s*(?:\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{\s*
        (?:\(([A-J])\)\s*[.:]?|([A-J])\s*[).:]\s*)(?:\}|(?P<open>(?=\s*[^\s}])))
    |\\(?:text|textbf|textrm|mathrm|mathbf)\s*\{\s*([A-J])\s*\}\s*[:.)]
    |\*{0,2}\(([A-J])\)\*{0,2}(?:\s|\\[ ,;:!~]|\\q?quad|~)|\*{0,2}([A-J])[).:]\*{0,2}\s)""",
    re.VERBOSE,
)


_DRESS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ("*", "*"), ("`", "`"),
          ("<", ">"))  # fmt: skip


def undress(answer: str, stop: bool = True) -> str:
    """Without surrounding white space, math delimiters, Markdown emphasis and, if `stop`, final full stop."""
    answer = answer.strip()
    for _ in range(8):
        before = answer
        if stop and answer.endswith(".") and not answer.endswith(".."):
            answer = answer[:-1].rstrip()
        for left, right in _DRESS:
            if not (answer.startswith(left) and answer.endswith(right) and len(answer) > len(left) + len(right)):
                continue
            inside = answer[len(left) : len(answer) - len(right)]
            if left not in inside and right not in inside:
                answer = inside.strip()
        if answer.startswith("**") and answer.count("**", 0, 4_000) == 1:  # "**The answer is 18"
            answer = answer[2:].strip()
        elif answer.endswith("**") and answer.count("**", -4_000) == 1:
            answer = answer[:-2].strip()
        if answer == before:
            break
    return answer


_FILLER = re.compile(
    r"(?:approximately|approx\.?|about|around|roughly|nearly|exactly|precisely|only|just|simply|equals?(?: to)?"
    r"|equal to|a total of|\\approx(?![A-Za-z])|≈|~|=)\s*",
    re.IGNORECASE,
)


_NEGATIVE = re.compile(r"(?:negative|minus)\s+(?=[0-9\\$.(a-z])", re.IGNORECASE)


def plainer(text: str) -> str:
    """Without "approximately" in front, and with a minus sign for "negative"."""
    for _ in range(3):
        match = _FILLER.match(text)
        if match is None or not re.search(r"[0-9]", text[match.end() :]):
            break
        text = text[match.end() :].lstrip()
    if text.endswith(" or so"):
        text = text[:-6]
    return _NEGATIVE.sub("-", text, count=1) if _NEGATIVE.match(text) else text


_RATE = re.compile(r"(?<=[0-9}] )((?:m|km|cm|ft|mi)/(?:s|h|hr|min)(?:\^\{?[23]\}?)?)(?=\s*\}?$)")


@lru_cache(maxsize=1 << 12)
def understood(answer: str) -> Meaning | None:
    """What a math answer says, None where that is not understood or longer than 400 characters; never raises."""
    if len(answer) > MAX_MATH:
        return None
    try:
        return _meaning(undress(answer))
    except (NotUnderstoodError, ValueError, RecursionError):
        return None


def _meaning(answer: str) -> Meaning:
    text = plainer(undress(folded_math(answer)))
    labelled = _LABELLED.match(text)
    if labelled and text[labelled.end() :].strip(" .}*~\\"):
        rest = text[labelled.end() :]
        if labelled["open"] is not None:  # \text{(C) 12}
            rest = rest.replace("}", "", 1)
        inner = _meaning(undress(rest.lstrip(" :.~")))
        return inner._replace(label=next(filter(None, (labelled[place] for place in (1, 2, 4, 5, 6)))))
    special = _special(text)
    if special.endswith("_10"):
        return Meaning(number(Fraction(special[:-3])))
    if special:
        return Meaning(number(0), text=special)
    if text[:1] == "{" and text[-1:] == "}" and "," in text and group(text, 0)[1] == len(text):
        text = rf"\{text[:-1]}\}}"  # a set as in plain text
    text = _RATE.sub(r"\\text{ \1}", text).replace("per cent", "percent")
    pieces = tokens(_dollars(text))
    if not pieces:
        raise NotUnderstoodError("nothing")
    amount = _amount(pieces)
    if amount is not None:
        return amount
    pieces, currency = _currency(_times_sign(pieces))
    warm = _temperature(pieces)
    if warm is not None:
        return Meaning(_value(pieces[: -len(warm)]), (((warm[-1].text, 1),), Fraction(1)))
    pieces, words = _trailing(pieces)
    if not words:
        short = _suffix(pieces) if currency else ""
        if short in _MULTIPLES:  # \$1.5M
            return Meaning(Expression("mul", (number(_MULTIPLES[short]), _value(pieces[:-1]))), currency)
        node = _value(pieces)
        return Meaning(node, currency or _angle(node), suffix=_suffix(pieces))
    scale = 1
    if words[0].text.lower() in SCALES:
        scale = SCALES[words[0].text.lower()]
        words = words[1:]
    node = _value(pieces)
    last = node.parts[-1] if node.op == "rel" else node
    if not _is_number(last) and (scale != 1 or any(word.kind == "word" and word.text not in UNITS for word in words)):
        raise NotUnderstoodError("words behind something that is no number")
    if scale != 1:
        node = Expression("mul", (number(scale), last))
    unit = measure(words) if words else None
    return Meaning(node, unit or currency)


def _temperature(pieces: list[Token]) -> list[Token] | None:
    """The tokens of a degree sign with C, F or K behind it at the end."""
    if len(pieces) < 3 or pieces[-1].text not in ("C", "F", "K"):
        return None
    for count in (2, 3, 5):  # with ^ and {} around the sign
        sign = pieces[-count:-1]
        if any(token.text == "deg" for token in sign) and all(token.text in ("deg", "^", "{", "}") for token in sign):
            if count < 5 and len(pieces) > count and pieces[-count - 1].text == "^":
                continue
            return pieces[-count:]
    return None


def _angle(node: Expression) -> tuple[Dimension, Fraction] | None:
    """The unit of an answer in degrees."""
    while node.op in ("rel", "neg") or (node.op == "paren" and not node.name):
        node = node.parts[-1]
    return ((("angle", 1),), Fraction(1)) if node.op == "deg" else None


def _is_number(node: Expression) -> bool:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.op in ("var", "apply", "list", "set", "tuple", "union", "matrix", "ratio", "rel"):
            return False
        waiting.extend(one.parts)
    return True


def _value(pieces: list[Token]) -> Expression:
    if any(token.kind == "word" and len(token.text) > 1 and token.text != "U" for token in pieces):
        raise NotUnderstoodError("words")
    return tree(pieces)


def _dollars(text: str) -> str:
    """With dollar signs that are delimiters of math taken away; those before and behind a number are money."""
    count = len(re.findall(r"(?<!\\)\$", text))
    if count >= 2:
        text = re.sub(r"(?<!\\)\$", " ", text)
    return text.replace("€", r"\text{ EUR }").replace("£", r"\text{ GBP }").replace("¥", r"\text{ JPY }").replace(
        "₹", r"\text{ rupees }"
    )  # fmt: skip


def _special(text: str) -> str:
    """The key of a clock time, of a date or of a number in another base."""
    date = _DATE.fullmatch(text)
    if date:
        return "date " + "-".join(one.lstrip("0") or "0" for one in re.split("[-/]", text))
    prefixed = re.fullmatch(r"(-?)0(?:b([01]+)|o([0-7]+)|x([0-9A-Fa-f]+))", text)
    if prefixed:
        base = 2 if prefixed[2] else 8 if prefixed[3] else 16
        text = f"{prefixed[1]}{prefixed[prefixed.lastindex or 2].upper().lstrip('0') or '0'}_{base}"
    based = _BASED.fullmatch(text) if "_" in text or "base" in text else None
    if based:
        name = based["base"] or based["worded"]
        base = int(name) if name.isdigit() else _NUMBER_WORDS.get(name, 0)
        digits = (based["upright"] or based["digits"]).upper().lstrip("0") or "0"
        if digits[0] == ".":
            digits = "0" + digits
        if 2 <= base <= 36 and all(int(digit, 36) < base for digit in digits if digit != "."):
            return f"{based['sign']}{digits}_{base}"
        raise NotUnderstoodError("digits that the base does not have")
    if ":" in text or re.search(r"m[.}\s]*$|M[.}\s]*$|o'clock|noon|midnight", text):
        plain = " ".join(_UPRIGHT.sub(r" \1 ", text).replace("~", " ").replace("\\", " ").split()).replace(" :", ":")
        plain = re.sub(r":\s+", ":", plain)
        match = _CLOCK.fullmatch(plain)
        if match and (match["minutes"] or match["half"]):
            return _clock(match)
        if re.match(r"[0-9]{1,2}:[0-5][0-9]\b", plain) and not re.fullmatch(r"[0-9:]+", plain):
            raise NotUnderstoodError("a time and something else")
    return ""


def _clock(match: re.Match[str]) -> str:
    """`2:30 pm`; a time of day without "am" or "pm" stays without, and 14:30 is 2:30 pm."""
    hours, minutes, half = int(match["hours"]), match["minutes"] or "00", (match["half"] or "").lower()
    seconds = f":{match['seconds']}" if int(match["seconds"] or 0) else ""
    if int(minutes) > 59 or hours > 24:
        if half:
            raise NotUnderstoodError("no time")
        return f"{hours}:{minutes}{seconds}"
    half = re.sub(r"[^apm]", "", half) if half[:1] in ("a", "p") else {"noon": "pm", "midnight": "am"}.get(half, "")
    if not half and 12 < hours < 24:
        hours, half = hours - 12, "pm"
    elif not half and match["hours"] == "00":
        hours, half = 12, "am"
    return f"{hours}:{minutes}{seconds} {half}".strip()


_MULTIPLES = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9}


_MONEY = frozenset(("$", "USD", "EUR", "GBP", "JPY", "rupees"))


def _currency(pieces: list[Token]) -> tuple[list[Token], tuple[Dimension, Fraction] | None]:
    """Without signs of currency in front of numbers, and the unit of the last one."""
    rest: list[Token] = []
    name = ""
    for place, token in enumerate(pieces):
        first = not rest or rest[-1].text in ("=", "~=", "-", "+", "*", "/", "(")
        money = token.text in _MONEY and token.kind in ("op", "word")
        if first and place + 1 < len(pieces) and (money or (token.text == "US" and pieces[place + 1].text == "$")):
            follower = pieces[place + 1]
            if follower.kind == "num" or follower.text in ("-", "$", ".") or follower.kind == "cmd":
                name = token.text if money else name
                continue
        rest.append(token)
    return (rest, (((UNITS[name][0], 1),), UNITS[name][1])) if name else (pieces, None)


def _times_sign(pieces: list[Token]) -> list[Token]:
    """With x as a sign of multiplication where it stands between numbers: `9 x 2` and `3x10^5`."""
    out = list(pieces)
    for place in range(1, len(out) - 1):
        before, token, after = out[place - 1], out[place], out[place + 1]
        if token[:2] != ("var", "x") or before.kind != "num" or after.kind != "num":
            continue
        power = after.text == "10" and place + 2 < len(out) and out[place + 2].text == "^"
        if power or (token.spaced and after.spaced):
            out[place] = Token("op", "*")
    return out


def _is_unit(token: Token) -> bool:
    return token.kind == "word" or (token.kind == "fn" and token.text in ("min", "sec"))


def _trailing(pieces: list[Token]) -> tuple[list[Token], list[Token]]:
    """The math, and the words of the unit behind it."""
    start = len(pieces)
    while start > 1:
        token = pieces[start - 1]
        inside = start < len(pieces)
        if _is_unit(token) or token[:2] in (("op", "%"), ("op", "$")):
            start -= 1
        elif token[:2] == ("num", "2") or token[:2] == ("num", "3"):
            if pieces[start - 2].text == "^" and start >= 4 and _is_unit(pieces[start - 3]):
                start -= 3
            else:
                break
        elif token.text == "}" and start >= 6 and pieces[start - 3].text == "{" and pieces[start - 4].text == "^":
            if not _is_unit(pieces[start - 5]) or pieces[start - 2].kind != "num":
                break
            start -= 5
        elif inside and token.text in ("/", "*", "-") and _is_unit(pieces[start]):
            if not _is_unit(pieces[start - 2]) and pieces[start - 2].kind != "num":
                break
            # "5 /hour" is an amount per hour, "5/ab" is none
            if pieces[start - 2].kind == "num" and (token.text != "/" or pieces[start].text not in UNITS):
                break
            start -= 1
        elif token.kind == "var" and start >= 3 and pieces[start - 2].text == "/" and _is_unit(pieces[start - 3]):
            start -= 2  # km/h
        elif token.kind == "var" and inside and pieces[start].kind == "word" and not pieces[start].upright:
            break
        else:
            break
    words = pieces[start:]
    if not words:
        return pieces, []
    names = [word.text for word in words if word.kind in ("word", "fn")]
    if len(words) == 1 and len(names) == 1 and len(names[0]) == 1 and names[0] not in UNITS:
        return pieces, []  # \text{x} is a variable
    for name in names:
        if name.lower() in NOT_UNITS and not (name == "in" and len(names) == 1):
            raise NotUnderstoodError(name)
        if name == "in" and len(names) > 1:
            raise NotUnderstoodError(name)
    if words[0].kind == "word" and not words[0].upright and not words[0].spaced and len(words[0].text) > 1:
        tight = words[0].text
        if tight not in UNITS and tight.lower() not in SCALES and tight not in SHORT_UNITS:
            raise NotUnderstoodError("letters right behind a number")
    return pieces[:start], words


SHORT_UNITS = frozenset(("mph", "kph", "kmh", "rpm", "pts", "points", "people", "times", "pieces", "units"))


def measure(words: list[Token]) -> tuple[Dimension, Fraction] | None:
    """The dimension and factor of a unit, None where one of its words is not known."""
    powers: dict[str, int] = {}
    factor = Fraction(1)
    sign, place, raising = 1, 0, 0
    while place < len(words):
        token = words[place]
        place += 1
        if token.text in ("/", "per"):
            sign = -1
            continue
        if token.text in ("*", "-"):
            continue
        if token.text in ("square", "sq", "cubic"):
            raising = 3 if token.text == "cubic" else 2
            continue
        if token.text in ("squared", "cubed"):
            return None
        if token.text not in UNITS:
            return None
        power = raising or 1
        raising = 0
        if place + 1 < len(words) and words[place].text == "^":
            if words[place + 1].kind == "num":
                power, place = int(words[place + 1].value), place + 2
            else:
                power, place = int(words[place + 2].value), place + 4
        dimension, scale = UNITS[token.text]
        if dimension == "volume":
            dimension, power = "length", power * 3
            scale = scale if power == 3 else scale ** (power // 3)
        else:
            scale = scale**power
        powers[dimension] = powers.get(dimension, 0) + sign * power
        factor *= scale**sign
    if raising or not powers:
        return None
    return tuple(sorted((name, power) for name, power in powers.items() if power)), factor


_COMPACT = {"h": 3600, "m": 60, "s": 1, "d": 86400}


def _amount(pieces: list[Token]) -> Meaning | None:
    """An amount of several parts, such as 3 hours 20 minutes, by the sum of its parts in their smallest unit."""
    parts: list[tuple[Fraction, str, bool]] = []
    place = 0
    while place < len(pieces):
        if pieces[place].kind != "num" or place + 1 >= len(pieces):
            return None
        unit = pieces[place + 1]
        if not _is_unit(unit) and unit.kind != "var":
            return None
        parts.append((pieces[place].value, unit.text, unit.kind == "var"))
        place += 2
        while place < len(pieces) - 1 and pieces[place].text in ("and", ","):
            place += 1
    if len(parts) < 2:
        return None
    clock = all(name in _COMPACT or UNITS.get(name, ("",))[0] == "time" for _, name, _ in parts)
    total, before, dimension = Fraction(0), None, ""
    for value, name, letter in parts:
        kind, factor = ("time", Fraction(_COMPACT[name])) if clock and name in _COMPACT else UNITS.get(name, ("", 1))
        if not kind or (letter and len(name) > 1) or (dimension and kind != dimension):
            return None
        factor = Fraction(factor)
        if before is not None and factor >= before:
            return None
        dimension, before = kind, factor
        total += value * factor
    if dimension == "money":  # as $3.04 is
        return Meaning(number(total), (((dimension, 1),), Fraction(1)))
    return Meaning(number(total), (((dimension, 1),), Fraction(1)), text=f"{total} {_BASES.get(dimension, dimension)}")


_BASES = {"time": "seconds", "length": "metres", "mass": "grams", "money": "dollars", "volume": "cubic metres"}


def _suffix(pieces: list[Token]) -> str:
    """The letter of `6 m` or `1.8k`, which may be a unit or a factor; with a space in front where it has one there."""
    bare = pieces[1:] if pieces[0].text == "-" else pieces
    if len(bare) != 2 or bare[0].kind != "num" or bare[1].kind != "var" or bare[1].text in ("e", "i"):
        return ""
    return (" " if bare[1].spaced else "") + bare[1].text if len(bare[1].text) == 1 else ""
