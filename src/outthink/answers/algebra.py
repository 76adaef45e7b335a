"""Equality of expressions that are no polynomials, by their values at fixed points to hundreds of digits.

Source: identity testing by random evaluation (Schwartz, 1980), for real functions instead of polynomials. Differs: the
points are fixed, so that equal expressions have one key; and where a sum has terms of so different sizes that the
digits might not tell two values apart, there is no key, instead of a wrong one. It runs in the worker process, since
mpmath is slow to import and its time is not known beforehand.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from outthink.answers.amounts import understood
from outthink.answers.forms import (
    DIGITS,
    HardError,
    assigned,
    complex_key,
    digits_key,
    exact,
    exact_key,
    key,
    polynomial,
    spread,
    variables,
)
from outthink.answers.grammar import Expression
from outthink.answers.notation import NotUnderstoodError

PRECISIONS = (450, 650)
"""Decimal digits; two, so that digits that an error has reached are seen."""


POINTS = 7


MAX_KEY = 1_600


class UndefinedError(ArithmeticError):
    """No real value at this point."""


def canonical(answer: str) -> str | None:
    """The key of a math answer, None where it has none."""
    meaning = understood(answer)
    if meaning is None:
        return None
    try:
        form = key(meaning.node, _hard_key)
    except (NotUnderstoodError, HardError, RecursionError):
        return None
    return form if len(form) <= MAX_KEY else None


def verify(gold: str, answer: str) -> bool:
    """Whether two answers are the same math, also where their keys do not show it."""
    one, other = understood(gold), understood(answer)
    if one is None or other is None:
        return False
    try:
        return _same(spread(one.node), spread(other.node))
    except (NotUnderstoodError, HardError, RecursionError):
        return False


# ---------------------------------------------------------------- values


def _mp() -> Any:
    return importlib.import_module("mpmath").mp  # it has no types; not at the top, because importing it is slow


def _point(name: str, index: int, whole: bool) -> Fraction:
    """The value of a variable at one of the points: three positive ones, then ones of any sign; or whole numbers."""
    digest = int.from_bytes(hashlib.sha256(f"{index}:{name}".encode()).digest()[:16], "big")
    if whole:
        return Fraction(2 + (digest % 4) * 2 + (index + digest // 4) % 2)
    share = Fraction(digest % 10**30, 10**30)
    if index < 3:
        return (Fraction(1, 5) + share * Fraction(3, 5), Fraction(1) + 2 * share, Fraction(3) + 5 * share)[index]
    return (Fraction(1, 5) + 3 * share) * (-1 if index == 3 or digest & 1 << 100 else 1)


class _Evaluation:
    """Values of trees at one point; complex where the tree has an i, real otherwise."""

    def __init__(self, point: dict[str, Fraction], unreal: bool) -> None:
        self.mp = _mp()
        self.point = point
        self.unreal = unreal

    def fraction(self, value: Fraction) -> Any:
        return self.mp.mpf(value.numerator) / value.denominator

    def check(self, value: Any) -> Any:
        """The value of an argument, which must not be so small or large that a function would lose its digits."""
        size = abs(value)
        if size and not self.mp.mpf("1e-100") < size < self.mp.mpf("1e50"):
            raise NotUnderstoodError("an argument that is very small or large")
        return value

    def total(self, parts: Sequence[Any]) -> Any:
        mp = self.mp
        result = sum(parts, mp.mpf(0))
        sizes = [abs(part) for part in parts if part]
        if not sizes:
            return result
        largest, smallest, size = max(sizes), min(sizes), abs(result)
        if size < largest * mp.mpf(10) ** (100 - mp.dps):
            return mp.mpf(0)
        if min(size, smallest) < largest * mp.mpf("1e-150"):
            raise NotUnderstoodError("numbers of too different sizes")
        return self.clean(result, largest)

    def clean(self, value: Any, largest: Any = None) -> Any:
        """A complex value without a part that only an error of the last digits has made; its parts err one by one."""
        mp = self.mp
        if not isinstance(value, mp.mpc):
            return value
        largest = abs(value) if largest is None else largest
        parts = []
        for part in (value.real, value.imag):
            if abs(part) >= largest * mp.mpf("1e-150"):
                parts.append(part)
            elif abs(part) < largest * mp.mpf(10) ** (100 - mp.dps):
                parts.append(mp.mpf(0))
            else:
                raise NotUnderstoodError("numbers of too different sizes")
        return mp.mpc(*parts)

    def value(self, node: Expression) -> Any:
        mp, op, parts = self.mp, node.op, node.parts
        if op == "num":
            return self.fraction(node.value)
        if op == "var":
            return self.fraction(self.point[node.name])
        if op == "const":
            if node.name == "oo":
                raise NotUnderstoodError("infinity in an expression")
            return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}[node.name]
        if op == "paren":
            return self.value(parts[0])
        if op == "deg":
            return self.value(parts[0])
        if op == "neg":
            return -self.value(parts[0])
        if op == "add":
            return self.total([self.value(part) for part in parts])
        if op == "mul":
            return self.value(parts[0]) * self.value(parts[1])
        if op == "div":
            bottom = self.value(parts[1])
            if bottom == 0:
                raise UndefinedError
            return self.value(parts[0]) / bottom
        if op == "abs":
            return abs(self.value(parts[0]))
        if op == "pow":
            return self.power(parts[0], parts[1])
        if op == "root":
            return self.root(parts[0], parts[1])
        if op == "fact":
            return self.factorial(self.value(parts[0]))
        if op == "binom":
            top, bottom = self.value(parts[0]), self.value(parts[1])
            return self.factorial(top) / (self.factorial(bottom) * self.factorial(self.total([top, -bottom])))
        if op == "fn":
            return self.function(node)
        raise NotUnderstoodError(op)

    def factorial(self, value: Any) -> Any:
        if self.unreal or abs(value) > 10_000:
            raise NotUnderstoodError("a factorial")
        if value < 0:
            raise UndefinedError
        return self.mp.gamma(self.check(value) + 1)

    def root(self, index: Expression, inside: Expression) -> Any:
        mp, order, value = self.mp, exact(index), self.value(inside)
        if value == 0:
            return value
        if order is None or order.denominator != 1 or not 1 <= order <= 100:
            return self.raised(value, 1 / self.check(self.value(index)))
        if not self.unreal and value < 0:
            if order % 2:
                return -mp.root(-value, int(order))
            raise UndefinedError
        return self.clean(mp.root(value, int(order)))

    def power(self, base: Expression, exponent: Expression) -> Any:
        mp, value, fixed = self.mp, self.value(base), exact(exponent)
        if fixed is not None and fixed.denominator == 1:
            if abs(fixed) > 10**6:
                raise NotUnderstoodError("a very large power")
            if value == 0 and fixed <= 0:
                raise UndefinedError
            return self.clean(value ** int(fixed))
        if fixed is not None and fixed.denominator % 2 and not self.unreal and value < 0 and fixed.denominator < 100:
            root = mp.root(-value, fixed.denominator) ** fixed.numerator
            return -root if fixed.numerator % 2 else root
        return self.raised(value, self.value(exponent))

    def raised(self, value: Any, exponent: Any) -> Any:
        mp = self.mp
        self.check(exponent)
        if value == 0:
            if not self.unreal and exponent > 0:
                return mp.mpf(0)
            raise UndefinedError
        if not self.unreal and value < 0:
            if exponent != int(exponent):
                raise UndefinedError
            exponent = int(exponent)
        if abs(exponent * mp.log(abs(value))) > 10**5:
            raise NotUnderstoodError("a very large power")
        return self.clean(mp.power(value, exponent))

    def function(self, node: Expression) -> Any:
        mp, name = self.mp, node.name
        if name in ("sin", "cos", "tan", "cot", "sec", "csc") and _in_degrees(node.parts[0]):
            value = self.value(node.parts[0]) * mp.pi / 180
        elif _in_degrees(node.parts[0]):
            raise NotUnderstoodError("degrees")
        else:
            value = self.value(node.parts[0])
        value = self.check(value)
        if name in ("max", "min"):
            values = [value, *(self.check(self.value(part)) for part in node.parts[1:])]
            if self.unreal:
                raise NotUnderstoodError(name)
            return max(values) if name == "max" else min(values)
        if name in ("floor", "ceil"):
            near = mp.nint(value)
            if self.unreal or (value != near and abs(value - near) < mp.mpf("1e-100")):
                raise NotUnderstoodError(name)
            return mp.floor(value) if name == "floor" else mp.ceil(value)
        if name == "abs":
            return abs(value)
        if name in ("ln", "log", "lg"):
            return self.logarithm(node, value)
        if name == "exp":
            if abs(value) > 10**5:
                raise NotUnderstoodError("a very large power")
            return self.clean(mp.exp(value))
        if name in ("arcsin", "arccos") and not self.unreal and abs(value) > 1:
            raise UndefinedError
        if name in ("tan", "sec") or name in ("cot", "csc"):
            sine, cosine = self.near_zero(mp.sin(value)), self.near_zero(mp.cos(value))
            top, bottom = {"tan": (sine, cosine), "sec": (1, cosine), "cot": (cosine, sine), "csc": (1, sine)}[name]
            if bottom == 0:
                raise UndefinedError
            return top / bottom
        known = {"sin": mp.sin, "cos": mp.cos, "arcsin": mp.asin, "arccos": mp.acos, "arctan": mp.atan,
                 "sinh": mp.sinh, "cosh": mp.cosh, "tanh": mp.tanh}  # fmt: skip
        if name not in known or (name.endswith("h") and abs(value) > 100):
            raise NotUnderstoodError(name)
        return self.clean(self.near_zero(known[name](value)))

    def near_zero(self, value: Any) -> Any:
        """The sine of pi is 0, whatever the last digits of pi are."""
        size = abs(value)
        if size < self.mp.mpf(10) ** (100 - self.mp.dps):
            return self.mp.mpf(0)
        if size < self.mp.mpf("1e-150"):
            raise NotUnderstoodError("a value that is nearly 0")
        return value

    def logarithm(self, node: Expression, value: Any) -> Any:
        mp = self.mp
        if value == 0 or (not self.unreal and value < 0):
            raise UndefinedError
        result = self.near_zero(mp.log(value))
        if len(node.parts) > 1:
            base = self.check(self.value(node.parts[1]))
            if base == 0 or base == 1 or (not self.unreal and base < 0):
                raise UndefinedError
            return result / mp.log(base)
        if node.name == "lg":
            return result / mp.log(10)
        if node.name == "log":  # its base is not said: e to some, 10 to others, so the two are kept apart
            return result * self.fraction(Fraction(2718455813, 3141592621))
        return result


def _in_degrees(node: Expression) -> bool:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.op == "deg":
            return True
        if one.op != "fn":
            waiting.extend(one.parts)
    return False


def _has_i(node: Expression) -> bool:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.op == "const" and one.name == "i":
            return True
        waiting.extend(one.parts)
    return False


def _values(nodes: Sequence[Expression], digits: int, whole: bool) -> list[list[Any]]:
    """The values of each tree at each point, None where it is not defined."""
    mp = _mp()
    names = set().union(*(variables(node) for node in nodes))
    unreal = any(map(_has_i, nodes))
    table = []
    with mp.workdps(digits):
        for node in nodes:
            row: list[Any] = []
            for index in range(POINTS if names else 1):
                try:
                    value = _Evaluation({name: _point(name, index, whole) for name in names}, unreal).value(node)
                    row.append(+value)
                except (UndefinedError, ZeroDivisionError):
                    row.append(None)
            table.append(row)
    return table


def _number_key(values: Sequence[Any]) -> str:
    """The key of a number by its values at both precisions."""
    mp = _mp()
    if any(isinstance(value, mp.mpc) for value in values):
        pairs = [mp.mpc(value) for value in values]
        return complex_key(_real_key([value.real for value in pairs]), _real_key([value.imag for value in pairs]))
    return _real_key(values)


def _real_key(values: Sequence[Any]) -> str:
    mp = _mp()
    if all(value == 0 for value in values):
        return "0"
    if any(value == 0 for value in values):
        raise NotUnderstoodError("a value that is nearly 0")
    digits = []
    for value in values:
        with mp.workdps(PRECISIONS[-1]):
            if abs(mp.log10(abs(value))) > 10**6:
                raise NotUnderstoodError("a very large number")
            text = mp.nstr(abs(value), DIGITS + 60, min_fixed=1, max_fixed=0, strip_zeros=False)
        mantissa, _, power = text.partition("e")
        digits.append((mantissa.replace(".", "")[: DIGITS + 40], int(power or 0) + 1))
    if any(one[0][:DIGITS] != other[0][:DIGITS] or one[1] != other[1] for one, other in pairwise(digits)):
        close = _near_fraction(values)
        if close is not None:
            return exact_key(close)
        raise NotUnderstoodError("digits that are not known")
    close = _near_fraction(values)
    if close is not None:
        return exact_key(close)
    return digits_key(bool(values[0] < 0), *digits[0])


def _near_fraction(values: Sequence[Any]) -> Fraction | None:
    """The fraction of less than 40 digits that a value is."""
    mp = _mp()
    with mp.workdps(PRECISIONS[-1]):
        size = abs(values[-1])
        if not mp.mpf("1e-40") < size < mp.mpf("1e40"):
            return None
        sign, mantissa, exponent, _ = values[-1]._mpf_
        written = Fraction(int(mantissa)) * Fraction(2) ** int(exponent) * (-1 if sign else 1)
        close = written.limit_denominator(10**40)
        near = all(
            abs(value - mp.mpf(close.numerator) / close.denominator) < size * mp.mpf("1e-200") for value in values
        )
    return close if near else None


def _hard_key(node: Expression) -> str:
    if node.op == "rel":  # an equation f = 0, up to a factor
        node = Expression("add", (node.parts[0], Expression("neg", (node.parts[1],))))
        return _function_key(node, scaled=True) + " = 0"
    return _function_key(node, scaled=False)


def _function_key(node: Expression, *, scaled: bool) -> str:
    names = variables(node)
    for whole in (False, True):
        table = [_values([node], digits, whole)[0] for digits in PRECISIONS]
        defined = [place for place, value in enumerate(table[0]) if value is not None]
        if not names:
            if not defined:
                raise NotUnderstoodError("not defined")
            return _number_key([row[0] for row in table])
        if len(defined) < 3:
            continue
        rows = [[row[place] for place in defined] for row in table]
        if scaled:
            rows = [_scaled(row) for row in rows]
        keys = [_number_key([row[place] for row in rows]) for place in range(len(defined))]
        if len(set(keys)) == 1 and not scaled and len(defined) == POINTS:
            return keys[0]
        text = f"{'whole' if whole else 'real'} {defined} {keys}"
        return f"f({', '.join(sorted(names))}) ~{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    raise NotUnderstoodError("not defined")


def _scaled(row: Sequence[Any]) -> list[Any]:
    with _mp().workdps(PRECISIONS[-1]):
        first = next((value for value in row if value != 0), None)
        if first is None:
            raise NotUnderstoodError("an equation that always holds")
        return [value / first for value in row]


# ---------------------------------------------------------------- equality


def _same(one: Expression, other: Expression) -> bool:
    first, second = _stripped(one), _stripped(other)
    pairs = assigned(first), assigned(second)
    for point, named in ((first, second), (second, first)):
        if _of_several_names(named) and point.op == "list" and not any(part.op == "rel" for part in point.parts):
            coordinates = _coordinates(named)
            return coordinates is not None and _all_same(point.parts, coordinates)
        if point.op == "tuple" and point.name == "()" and named.op in ("list", "tuple"):
            coordinates = _coordinates(named)
            if coordinates is not None:
                return _all_same(point.parts, coordinates)
    if pairs[0] is not None and pairs[1] is not None:
        return pairs[0][0] == pairs[1][0] and _same(pairs[0][1], pairs[1][1])
    if pairs[0] is not None and second.op != "rel":
        return _same(pairs[0][1], second)
    if pairs[1] is not None and first.op != "rel":
        return _same(first, pairs[1][1])
    if first.op == "rel" and second.op == "rel":
        if first.name == second.name == "=" and len(first.parts) == len(second.parts) == 2:
            sides = [
                Expression("add", (node.parts[0], Expression("neg", (node.parts[1],)))) for node in (first, second)
            ]
            return _equal_functions(sides[0], sides[1], ratio=True)
        return first.name == second.name and _all_same(first.parts, second.parts)
    if first.op in ("list", "set", "union") and second.op in ("list", "set", "union"):
        if (first.op == "union") != (second.op == "union"):
            return False
        return _matched(first.parts, second.parts)
    if first.op == "list" and second.op == "tuple" and len(first.parts) > 2 and second.name == "()":
        return _all_same(first.parts, second.parts)  # with brackets around a list that are not meant
    several = ("list", "set", "union", "tuple", "matrix", "rel", "ratio", "row", "apply")
    if first.name == "[]" or second.name == "[]":
        return False  # a list of one
    if first.op in several or second.op in several:
        return first.op == second.op and first.name == second.name and _all_same(first.parts, second.parts)
    return _equal_functions(first, second)


def _of_several_names(node: Expression) -> bool:
    """Whether it is a list of values of several variables."""
    if node.op != "list":
        return False
    return len({pair[0].partition("_")[0] for pair in map(assigned, node.parts) if pair is not None}) > 1


def _coordinates(node: Expression) -> list[Expression] | None:
    """The values of x = 5, y = 6 in the order of their names, which are letters that follow each other."""
    if node.name == "or":
        return None
    pairs = [assigned(part) for part in node.parts]
    named = sorted((pair for pair in pairs if pair is not None), key=lambda pair: pair[0])
    names = [name for name, _ in named]
    letters = len(named) == len(pairs) > 1 and all(len(name) == 1 for name in names)
    if not letters or any(ord(after) - ord(before) != 1 for before, after in pairwise(names)):
        return None
    return [value for _, value in named]


def _stripped(node: Expression) -> Expression:
    while (node.op == "paren" and not node.name) or (node.op == "rel" and node.name == "in"):
        node = node.parts[-1]
    return node


def _all_same(some: Sequence[Expression], others: Sequence[Expression]) -> bool:
    return len(some) == len(others) > 0 and all(_same(a, b) for a, b in zip(some, others, strict=True))


def _matched(some: Sequence[Expression], others: Sequence[Expression]) -> bool:
    """Whether the members can be matched one to one; at most 12 of them."""
    if len(some) != len(others) or len(some) > 12:
        return False
    left = list(others)
    for node in some:
        place = next((place for place, other in enumerate(left) if _same(node, other)), None)
        if place is None:
            return False
        del left[place]
    return True


def _equal_functions(one: Expression, other: Expression, *, ratio: bool = False) -> bool:
    """Equal at all points at which both are defined, of which there must be three."""
    try:
        first, second = polynomial(one), polynomial(other)
        if not ratio:
            return first == second
    except HardError:
        pass
    if variables(one) != variables(other) and ratio:
        return False
    mp = _mp()
    for whole in (False, True):
        tables = [_values([one, other], digits, whole) for digits in PRECISIONS]
        both = [
            place
            for place in range(len(tables[0][0]))
            if all(row[place] is not None for table in tables for row in table)
        ]
        if len(both) < (3 if len(tables[0][0]) > 1 else 1):
            if len(tables[0][0]) == 1:
                return False
            continue
        for table in tables:
            left, right = ([row[place] for place in both] for row in table)
            if ratio:
                left, right = _scaled(left), _scaled(right)
            with mp.workdps(PRECISIONS[-1]):
                for a, b in zip(left, right, strict=True):
                    if abs(a - b) > max(abs(a), abs(b)) * mp.mpf("1e-250"):
                        return False
        return True
    return False
