"""Whether a math answer is too large for algebra: how long its numbers would become, by the text alone."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_BITS = 100_000
MAX_NESTING = 30

_TOKEN = re.compile(
    r"(?P<number>[0-9]+(?:(?:,|\{,\}|\\[,!;: ])[0-9]{3}(?![0-9]))*(?:\.[0-9]*)?|\.[0-9]+)"
    r"|(?P<open>[({\[]|\\\{)|(?P<close>[)}\]]|\\\})"
    r"|(?P<raised>[⁰¹²³⁴⁵⁶⁷⁸⁹]+)|(?P<command>\\(?:[A-Za-z]+|.)|\*\*)|(?P<sign>\S)",
    re.DOTALL,
)
_ENDS = frozenset(
    ["+", "-", "−", "±", ",", ";", ":", "=", "<", ">", "&", r"\\", r"\pm", r"\mp", r"\le", r"\leq", r"\ge", r"\geq",
     r"\lt", r"\gt", r"\ne", r"\neq", r"\cup", r"\cap", r"\in", r"\to", r"\approx", r"\equiv", r"\setminus"]
)  # fmt: skip
_SIGNS = frozenset(["+", "-", "−", "±", r"\pm", r"\mp"])
_NOTHING = frozenset(
    ["*", "×", "·", "√", "$", "|", "'", "~", "%", r"\%", r"\cdot", r"\times", r"\left", r"\right", r"\displaystyle",
     r"\sqrt", r"\,", r"\!", r"\;", r"\:", r"\ ", r"\quad", r"\qquad", r"\lfloor", r"\rfloor", r"\lceil", r"\rceil",
     r"\limits", r"\text", r"\mathrm", r"\operatorname"]
)  # fmt: skip
_PAIRS = {rf"\{size}{name}": name for size in ("", "d", "t", "c") for name in ("frac", "binom")}


def too_large(latex: str) -> bool:
    """Whether a number in it would have over 100,000 bits, or its brackets are nested over 30 deep.

    That is what towers of powers, large factorials and binomials, and large exponents come to; 2^{2023} and
    1000!/998! are not. Pure, linear in the text, never raises. It looks at what is written only, so an expression
    that is not too large may still take long.
    """
    try:
        _size(latex)
    except _TooLarge:
        return True
    return False


class _TooLarge(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of a part of an expression; all three are binary logarithms.

    Args:
        high, low: bounds of its absolute value.
        bits: length of its exact form, at least as large as what `high` and `low` are apart from 0.
        open: whether it holds a variable, so that a power or a factorial of it is never worked out.
        bounded: the sign of a sum, an integral or a product, whose "^" is a bound and no power.
    """

    high: float
    low: float
    bits: float
    open: bool = False
    bounded: str = ""

    def __post_init__(self) -> None:
        if self.bits > MAX_BITS:
            raise _TooLarge


_ONE = _Value(0, 0, 0)
_VARIABLE = _Value(1, -math.inf, 1, open=True)
_BOUNDED = {
    sign: _Value(1, -math.inf, 1, open=True, bounded=sign) for sign in (r"\sum", r"\prod", r"\int", r"\iint", r"\oint")
}
_PI = _Value(1.66, 1.65, 2)
_CONSTANTS = {"e": _Value(1.45, 1.44, 2), "i": _ONE, r"\pi": _PI, "π": _PI}


@dataclass(slots=True)
class _Group:
    """What stands in one pair of brackets, as far as it has been read."""

    ended: list[_Value] = field(default_factory=list)
    """Terms of a sum, or entries of a list."""
    term: _Value | None = None
    powers: list[_Value] = field(default_factory=list)
    """The last factor: a base and its exponents."""
    pairs: list[tuple[str, list[_Value]]] = field(default_factory=list)
    """Fractions and binomials that still wait for an argument."""
    caret: bool = False
    subscript: bool = False
    divides: bool = False

    def take(self, value: _Value) -> None:
        """One more atom: a subscript, an argument, an exponent or a factor."""
        if self.subscript:
            self.subscript = False
            return
        while self.pairs:
            name, arguments = self.pairs[-1]
            arguments.append(value)
            if len(arguments) < 2:
                return
            self.pairs.pop()
            value = _over(*arguments) if name == "frac" else _binomial(*arguments)
        if self.caret:
            self.caret = False
        else:
            self.factor()
        self.powers.append(value)

    def raise_(self) -> None:
        """What comes next is an exponent."""
        self.caret, self.subscript = True, False
        if not self.powers:
            self.powers = [_VARIABLE]

    def tower(self) -> _Value | None:
        """The last factor, whose exponents bind to the right."""
        value = self.powers.pop() if self.powers else None
        while value is not None and self.powers:
            value = _power(self.powers.pop(), value)
        return value

    def factor(self) -> None:
        """End of a factor."""
        value = self.tower()
        if value is not None:
            before = self.term or _ONE
            self.term = _over(before, value) if self.divides else _times(before, value)
            self.divides = False

    def end(self) -> None:
        """End of a term."""
        self.factor()
        if self.term is not None:
            self.ended.append(self.term)
        self.term, self.pairs, self.caret, self.subscript, self.divides = None, [], False, False, False

    def value(self) -> _Value:
        """Of the whole group; its terms are taken as those of a sum."""
        self.end()
        if len(self.ended) < 2:
            return self.ended[0] if self.ended else _ONE
        more = math.log2(len(self.ended))
        return _Value(
            max(term.high for term in self.ended) + more,
            -math.inf,
            sum(term.bits for term in self.ended) + more,
            any(term.open for term in self.ended),
        )


def _size(latex: str) -> _Value:
    groups = [_Group()]
    for kind, token in _tokens(latex, groups):
        group = groups[-1]
        if kind == "number":
            group.take(_number(token))
        elif kind == "open":
            groups.append(_Group())
            if len(groups) > MAX_NESTING + 1:
                raise _TooLarge
        elif kind == "close":
            if len(groups) > 1:
                groups.pop()
                groups[-1].take(group.value())
        elif token in ("^", "**"):
            group.raise_()
        elif kind == "raised":
            group.raise_()
            group.take(_number("".join(str(unicodedata.digit(figure)) for figure in token)))
        elif token == "_":
            group.subscript = True
        elif token == "!":
            value = group.tower()
            group.powers = [] if value is None else [_factorial(value)]
        elif token in ("/", "÷", r"\div"):
            group.factor()
            group.divides = True
        elif token in _PAIRS:
            group.pairs.append((_PAIRS[token], []))
        elif token in _ENDS:
            if token not in _SIGNS or not (group.caret or group.divides):  # 2^-3 is one term
                group.end()
        elif token not in _NOTHING:
            group.take(_BOUNDED.get(token) or _CONSTANTS.get(token, _VARIABLE))
    while len(groups) > 1:
        inner = groups.pop().value()
        groups[-1].take(inner)
    return groups[0].value()


def _tokens(latex: str, groups: list[_Group]) -> Iterator[tuple[str, str]]:
    place = 0
    while match := _TOKEN.search(latex, place):
        kind, token = str(match.lastgroup), match[0]
        if kind == "number" and groups[-1].pairs:
            token = token[0]  # \frac12 is a half
        place = match.start() + len(token)
        yield kind, token


def _number(digits: str) -> _Value:
    whole, _, decimals = re.sub(r"[^0-9.]", "", digits).partition(".")
    figures = (whole + decimals).lstrip("0")
    if not figures:
        return _Value(0, -math.inf, 0)
    leading = math.log2(int(figures[:15])) + math.log2(10) * max(len(figures) - 15, 0)
    places = math.log2(10) * len(decimals)
    high = leading - places
    return _Value(high, high, max(leading, places))


def _times(one: _Value, other: _Value) -> _Value:
    if one is _ONE:
        return other  # a sign of a sum stays one
    is_open = one.open or other.open
    return _Value(one.high + other.high, one.low + other.low, one.bits + other.bits, is_open)


def _over(one: _Value, other: _Value) -> _Value:
    high = one.high + (other.bits if other.low == -math.inf else -other.low)
    return _Value(high, one.low - other.high, one.bits + other.bits, one.open or other.open)


def _power(base: _Value, exponent: _Value) -> _Value:
    if base.bounded:
        if base.bounded == r"\prod" and not exponent.open:
            return _factorial(exponent)  # as many factors, and they may be as large
        return _Value(1, -math.inf, 1 + exponent.bits, open=True)
    if exponent.open:
        return _Value(base.bits + exponent.bits, -math.inf, base.bits + exponent.bits, open=True)
    bits = base.bits * 2.0 ** min(exponent.high, 64)
    return _Value(bits, -bits, bits, base.open)


def _factorial(value: _Value) -> _Value:
    if value.open:
        return _Value(value.bits + 1, -math.inf, value.bits + 1, open=True)
    bits = 2.0 ** min(value.high, 64) * max(value.high, 1)
    return _Value(bits, 0, bits)


def _binomial(above: _Value, below: _Value) -> _Value:
    if above.open or below.open:
        bits = above.bits + below.bits + 1
        return _Value(bits, -math.inf, bits, open=True)
    bits = min(2.0 ** min(above.high, 64), 2.0 ** min(below.high, 64) * max(above.high, 1))
    return _Value(bits, -math.inf, bits)
