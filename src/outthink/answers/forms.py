"""Canonical keys of trees: exact numbers, polynomials in variables, roots and pi, and what is made of these.

A number that is no fraction has its first 20 digits as key and a hash of 200, so that no two different ones of usual
size meet. What cannot be worked out here (logarithms, quotients of sums, powers with variables) is left to `hard`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache

from outthink.answers.grammar import Expression
from outthink.answers.notation import NotUnderstoodError

MAX_BITS = 200_000


MAX_TERMS = 120


DIGITS = 200
"""Significant digits by which two numbers are told apart."""


Monomial = tuple[tuple[str, int], ...]
Polynomial = dict[Monomial, Fraction]
Hard = Callable[[Expression], str]


class HardError(Exception):
    """An expression that is no polynomial; a worker process can look at its values."""


_ROOT = "\x02"  # followed by a prime: its square root
_PI, _E, _I = "\x01pi", "\x01e", "\x01i"


# ---------------------------------------------------------------- numbers


def exact_key(value: Fraction) -> str:
    """A fraction as text; of a very long one a hash."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 5_000:
        digest = hashlib.sha256(f"{value.numerator:x}/{value.denominator:x}".encode()).hexdigest()
        return f"{'-' if value < 0 else ''}~{digest[:24]}"
    return str(value)


def digits_key(negative: bool, digits: str, exponent: int) -> str:
    """The key of 0.d1d2d3... times 10^exponent, of at least 200 digits."""
    shown, power = digits[:20], exponent - 1
    sign = "-" if negative else ""
    digest = hashlib.sha256(f"{digits[:DIGITS]}e{exponent}".encode()).hexdigest()[:8]
    if -5 <= power < 20:
        text = f"{shown[: power + 1]}.{shown[power + 1 :]}" if power >= 0 else "0." + "0" * (-power - 1) + shown
        return f"{sign}{text.rstrip('.')}~{digest}"
    return f"{sign}{shown[0]}.{shown[1:]}e{power}~{digest}"


def complex_key(real: str, imaginary: str) -> str:
    """The key of a number with the two parts that have these keys."""
    return real if imaginary == "0" else f"{real} + {imaginary}*i"


_CONTEXT = Context(prec=DIGITS * 2 + 60, Emax=10**9, Emin=-(10**9))


@lru_cache(maxsize=1)
def _pi() -> Decimal:
    """Machin's formula."""

    def arctan_of_one_over(n: int) -> Decimal:
        scale = 10 ** (_CONTEXT.prec + 20)
        term = total = scale // n
        k, sign = 1, 1
        while term:
            term //= n * n
            k, sign = k + 2, -sign
            total += sign * (term // k)
        return _CONTEXT.divide(Decimal(total), Decimal(scale))

    sixteen = _CONTEXT.multiply(Decimal(16), arctan_of_one_over(5))
    return _CONTEXT.subtract(sixteen, _CONTEXT.multiply(Decimal(4), arctan_of_one_over(239)))


@lru_cache(maxsize=256)
def _atom(name: str) -> Decimal:
    if name == _PI:
        return _pi()
    if name == _E:
        return _CONTEXT.exp(Decimal(1))
    return _CONTEXT.sqrt(Decimal(int(name[1:])))


def _real_key(terms: Polynomial) -> str:
    """The key of a sum of fractions times powers of pi, e and roots."""
    if not terms:
        return "0"
    if len(terms) == 1 and () in terms:
        return exact_key(terms[()])
    values = []
    for monomial, coefficient in terms.items():
        value = _CONTEXT.divide(Decimal(coefficient.numerator), Decimal(coefficient.denominator))
        for atom, power in monomial:
            value = _CONTEXT.multiply(value, _CONTEXT.power(_atom(atom), Decimal(power)))
        values.append(value)
    total = Decimal(0)
    for value in values:
        total = _CONTEXT.add(total, value)
    largest = max(value.adjusted() for value in values)
    smallest = min(value.adjusted() for value in values)
    if total.is_zero() or largest - min(total.adjusted(), smallest) > 150:
        raise NotUnderstoodError("numbers of too different sizes")
    _, digits, exponent = total.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    return digits_key(total < 0, text.ljust(DIGITS, "0"), exponent + len(text))


# ---------------------------------------------------------------- polynomials


def _times(one: Polynomial, other: Polynomial) -> Polynomial:
    if len(one) * len(other) > 4 * MAX_TERMS:
        raise HardError
    product: Polynomial = {}
    for left, a in one.items():
        for right, b in other.items():
            powers = dict(left)
            factor = a * b
            for atom, power in right:
                powers[atom] = powers.get(atom, 0) + power
            for atom in [name for name in powers if name[0] == _ROOT or name == _I]:
                whole, powers[atom] = divmod(powers[atom], 2)
                factor *= Fraction(-1 if atom == _I else int(atom[1:])) ** whole
            monomial = tuple(sorted((atom, power) for atom, power in powers.items() if power))
            product[monomial] = product.get(monomial, Fraction(0)) + factor
    _check(product)
    return {monomial: factor for monomial, factor in product.items() if factor}


def _check(terms: Polynomial) -> None:
    if len(terms) > MAX_TERMS:
        raise HardError
    for factor in terms.values():
        if max(factor.numerator.bit_length(), factor.denominator.bit_length()) > MAX_BITS:
            raise HardError


def _sum(one: Polynomial, other: Polynomial, sign: int = 1) -> Polynomial:
    total = dict(one)
    for monomial, factor in other.items():
        total[monomial] = total.get(monomial, Fraction(0)) + sign * factor
    _check(total)
    return {monomial: factor for monomial, factor in total.items() if factor}


def _inverse(terms: Polynomial) -> Polynomial:
    """Of one term; a root below is a root above."""
    ((monomial, factor),) = terms.items()
    result: Polynomial = {(): 1 / factor}
    for atom, power in monomial:
        if atom[0] == _ROOT:
            result = _times(result, {((atom, 1),): Fraction(1, int(atom[1:]))})
        elif atom == _I:
            result = _times(result, {((atom, 1),): Fraction(-1)})
        else:
            result = _times(result, {((atom, -power),): Fraction(1)})
    return result


def _quotient(top: Polynomial, bottom: Polynomial) -> Polynomial:
    if not bottom:
        raise NotUnderstoodError("a division by zero")
    if len(bottom) == 1:
        return _times(top, _inverse(bottom))
    # a division of polynomials, which is worth something only where nothing remains
    atoms = sorted({atom for terms in (top, bottom) for monomial in terms for atom, _ in monomial}, reverse=True)

    def rank(monomial: Monomial) -> tuple[int, ...]:
        powers = dict(monomial)
        return tuple(powers.get(atom, 0) for atom in atoms)

    lead = max(bottom, key=rank)
    over = _inverse({lead: bottom[lead]})
    rest, result = dict(top), Polynomial()
    for _ in range(40):
        if not rest:
            return result
        first = max(rest, key=rank)
        step = _times({first: rest[first]}, over)
        result = _sum(result, step)
        rest = _sum(rest, _times(step, bottom), -1)
    raise HardError


def _power(base: Polynomial, power: int) -> Polynomial:
    if power < 0:
        return _quotient({(): Fraction(1)}, _power(base, -power))
    if power == 0:
        if not base:
            raise NotUnderstoodError("0^0")
        return {(): Fraction(1)}
    bits = max((max(one.numerator.bit_length(), one.denominator.bit_length()) for one in base.values()), default=1)
    if power > 10_000_000 or (bits - 1) * power > MAX_BITS or (len(base) > 1 and power > 60):
        raise HardError
    if len(base) == 1:
        ((monomial, factor),) = base.items()
        if not monomial:
            return {(): factor**power}
        if power > 10_000:
            raise HardError
    result: Polynomial = {(): Fraction(1)}
    while power:
        if power & 1:
            result = _times(result, base)
        power >>= 1
        if power:
            base = _times(base, base)
    return result


def _whole_root(value: int, index: int) -> int | None:
    """The index-th root of a whole number, None where it is none."""
    if value < 2 or index == 1:
        return value
    if index > value.bit_length():
        return None
    if index == 2:
        root = math.isqrt(value)
    else:
        low, high = 0, 1 << (value.bit_length() // index + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**index <= value else (low, middle - 1)
        root = low
    return root if root**index == value else None


def _root(value: Fraction, index: int) -> Polynomial:
    """The real root of a fraction; a square root of a negative one is a multiple of i."""
    if value == 0:
        return {}
    if index < 1 or index > 64 or max(value.numerator.bit_length(), value.denominator.bit_length()) > 20_000:
        raise HardError
    if value < 0:
        if index % 2:
            return _times({(): Fraction(-1)}, _root(-value, index))
        if index == 2:
            return _times({((_I, 1),): Fraction(1)}, _root(-value, 2))
        raise NotUnderstoodError("an even root of a negative number")
    top, bottom = _whole_root(value.numerator, index), _whole_root(value.denominator, index)
    if top is not None and bottom is not None:
        return {(): Fraction(top, bottom)}
    if index != 2:
        raise HardError
    inside = value.numerator * value.denominator
    outside, monomial, prime = Fraction(1, value.denominator), [], 2
    while prime * prime <= inside and prime < 2_000:
        count = 0
        while inside % prime == 0:
            inside //= prime
            count += 1
        outside *= prime ** (count // 2)
        if count % 2:
            monomial.append((f"{_ROOT}{prime}", 1))
        prime += 1 if prime == 2 else 2
    root = math.isqrt(inside)
    if root * root == inside and root >= 2_000:
        outside, inside = outside * root, 1
    if inside > 1:
        if inside >= 4_000_000:  # it may have two prime factors
            raise HardError
        monomial.append((f"{_ROOT}{inside}", 1))
    return {tuple(sorted(monomial)): outside}


def rational(terms: Polynomial) -> Fraction | None:
    """The value of a polynomial that is a fraction, else None."""
    if not terms:
        return Fraction(0)
    return terms[()] if len(terms) == 1 and () in terms else None


def polynomial(node: Expression) -> Polynomial:
    """The polynomial that an expression is; raises HardError where it is none, NotUnderstoodError where undefined."""
    op = node.op
    if op == "num":
        return {(): node.value} if node.value else {}
    if op == "var":
        return {((node.name, 1),): Fraction(1)}
    if op == "const":
        if node.name == "oo":
            raise NotUnderstoodError("infinity in an expression")
        return {((f"\x01{node.name}", 1),): Fraction(1)}
    if op in ("paren", "deg"):
        return polynomial(node.parts[0])
    if op == "neg":
        return _times({(): Fraction(-1)}, polynomial(node.parts[0]))
    if op == "add":
        total: Polynomial = {}
        for part in node.parts:
            total = _sum(total, polynomial(part))
        return total
    if op == "mul":
        return _times(polynomial(node.parts[0]), polynomial(node.parts[1]))
    if op == "div":
        return _quotient(polynomial(node.parts[0]), polynomial(node.parts[1]))
    if op == "pow":
        base, power = polynomial(node.parts[0]), rational(polynomial(node.parts[1]))
        if power is None:
            raise HardError
        if power.denominator == 1:
            return _power(base, int(power))
        value = rational(base)
        if value is None or (value < 0 and power.denominator != 2):
            raise HardError
        return _power(_root(value, power.denominator), power.numerator)
    if op == "root":
        index, value = rational(polynomial(node.parts[0])), rational(polynomial(node.parts[1]))
        if index is None or index.denominator != 1 or value is None:
            raise HardError
        return _root(value, int(index))
    if op in ("fact", "binom", "abs", "fn"):
        return _function(node)
    raise NotUnderstoodError(op)


def _function(node: Expression) -> Polynomial:
    """Functions of fractions whose values are fractions."""
    if node.op == "fn" and node.name not in ("floor", "ceil", "max", "min", "gcd", "lcm", "abs"):
        raise HardError
    values = [rational(polynomial(part)) for part in node.parts]
    exact = [value for value in values if value is not None]
    if len(exact) < len(values):
        raise HardError
    whole = [int(value) for value in exact if value.denominator == 1]
    result: Fraction | int
    if node.op == "abs" or node.name == "abs":
        result = abs(exact[0])
    elif node.op == "fn" and node.name in ("floor", "ceil"):
        result = math.floor(exact[0]) if node.name == "floor" else math.ceil(exact[0])
    elif node.op == "fn" and node.name in ("max", "min"):
        result = max(exact) if node.name == "max" else min(exact)
    elif len(whole) < len(exact) or min(whole) < 0:
        raise NotUnderstoodError("a function of whole numbers")
    elif node.op == "fn":
        result = math.gcd(*whole) if node.name == "gcd" else math.lcm(*whole)
    elif max(whole) > 3_000:
        raise HardError
    else:
        result = math.factorial(whole[0]) if node.op == "fact" else math.comb(*whole)
    return {(): Fraction(result)} if result else {}


def _atom_text(atom: str, power: int) -> str:
    name = f"sqrt({atom[1:]})" if atom[0] == _ROOT else atom.lstrip("\x01")
    return name if power == 1 else f"{name}^{power}" if power > 0 else f"{name}^({power})"


def polynomial_key(terms: Polynomial) -> str:
    """One text for equal polynomials; a number by its value."""
    atoms = {atom for monomial in terms for atom, _ in monomial}
    if all(atom[0] in "\x01\x02" for atom in atoms):
        parts: list[Polynomial] = [{}, {}]
        for monomial, factor in terms.items():
            without = tuple(one for one in monomial if one[0] != _I)
            parts[len(monomial) - len(without)][without] = factor
        return complex_key(_real_key(parts[0]), _real_key(parts[1]))

    def order(monomial: Monomial) -> tuple[object, ...]:
        powers = [(atom, power) for atom, power in monomial if atom[0] not in "\x01\x02"]
        return (-sum(power for _, power in powers), [(atom, -power) for atom, power in powers], monomial)

    text = ""
    for monomial in sorted(terms, key=order):
        factor = terms[monomial]
        names = "*".join(_atom_text(atom, power) for atom, power in monomial)
        size = exact_key(abs(factor))
        one = names if size == "1" and names else f"{size}*{names}" if names else size
        sign = "-" if factor < 0 else "+"
        text += f" {sign} {one}" if text else one if factor > 0 else f"-{one}"
    return text


# ---------------------------------------------------------------- trees


def variables(node: Expression) -> set[str]:
    """The names of its variables."""
    names, waiting = set(), [node]
    while waiting:
        one = waiting.pop()
        if one.op in ("var", "apply"):
            names.add(one.name)
        waiting.extend(one.parts)
    return names


def expression_key(node: Expression, hard: Hard) -> str:
    """The key of one expression."""
    infinite = _infinite(node)
    if infinite:
        return infinite
    try:
        terms = polynomial(node)
    except HardError:
        return hard(node)
    return polynomial_key(terms)


def _infinite(node: Expression) -> str | None:
    while node.op == "paren":
        node = node.parts[0]
    if node.op == "const" and node.name == "oo":
        return "oo"
    if node.op == "neg":
        inside = _infinite(node.parts[0])
        return None if inside is None else inside[1:] if inside.startswith("-") else f"-{inside}"
    return None


def _signs(node: Expression) -> Iterator[str]:
    if node.op == "pm":
        yield node.name
    for part in node.parts:
        yield from _signs(part)


def _signed(node: Expression, sign: int) -> Expression:
    """With its plus-minus signs as plus (1) or minus (-1)."""
    parts = tuple(_signed(part, sign) for part in node.parts)
    if node.op == "pm":
        return parts[0] if (node.name == "+-") == (sign > 0) else Expression("neg", parts)
    return node._replace(parts=parts)


def paired(node: Expression) -> Expression:
    """`(x, y) = (2, 3)` as `x = 2, y = 3`; all else as it is."""
    if node.op != "rel" or node.name != "=":
        return node
    left, right = node.parts
    if left.op != "tuple" or right.op != "tuple" or left.name != right.name or len(left.parts) != len(right.parts):
        return node
    names = [part.name for part in left.parts if part.op == "var"]
    if len(set(names)) < len(left.parts) or any(variables(part) for part in right.parts):
        return node
    pairs = zip(left.parts, right.parts, strict=True)
    return Expression("list", tuple(Expression("rel", pair, "=") for pair in pairs))


def spread(node: Expression) -> Expression:
    """Without plus-minus signs, of which two values are a list, and without pairs of names and values."""
    node = paired(node)
    if not any(_signs(node)):
        return node
    if node.op == "list" or (node.op == "rel" and len(node.parts) == 2 and node.name == "="):
        if node.op == "rel":
            node = Expression("list", (node.parts[1],))
        parts: list[Expression] = []
        for part in node.parts:
            inner = spread(part)
            parts.extend(inner.parts if inner.op == "list" else (inner,))
        return Expression("list", tuple(parts))
    if node.op in ("tuple", "set", "union", "rel", "matrix", "ratio"):
        raise NotUnderstoodError("signs within another form")
    return Expression("list", (_signed(node, 1), _signed(node, -1)))


def key(node: Expression, hard: Hard) -> str:
    """The canonical key of a tree; raises NotUnderstoodError where it has none, and what `hard` raises."""
    node = spread(node)
    op, parts = node.op, node.parts
    if op == "list":
        return _list_key(node, hard)
    if op == "set":
        keys = sorted({key(part, hard) for part in parts})
        return keys[0] if len(keys) == 1 else "{" + ", ".join(keys) + "}"
    if op == "tuple":
        if node.name == "()" and all(assigned(part) is not None for part in parts):
            return _list_key(node, hard)  # (x = 1, y = 2)
        return node.name[0] + ", ".join(key(part, hard) for part in parts) + node.name[1]
    if op == "union":
        if any(part.op not in ("tuple", "set", "paren") for part in parts):
            raise NotUnderstoodError("a union of numbers")
        return " U ".join(sorted(_braced(part, hard) for part in parts))
    if op == "matrix":
        return "[" + "; ".join(", ".join(key(cell, hard) for cell in row.parts) for row in parts) + "]"
    if op == "rel":
        return _relation_key(node, hard)
    if op == "ratio":
        return _ratio_key(node, hard)
    if op == "paren" and parts[0].op in ("list", "tuple", "set", "union", "rel", "matrix", "ratio"):
        if parts[0].op == "ratio" or node.name:
            raise NotUnderstoodError("brackets around another form")
        return key(parts[0], hard)
    if op == "paren" and node.name:
        raise NotUnderstoodError("a list of one")
    if op == "apply":
        raise NotUnderstoodError("a function that is not known")
    return expression_key(node, hard)


def _braced(node: Expression, hard: Hard) -> str:
    if node.op == "set":
        return "{" + ", ".join(sorted({key(part, hard) for part in node.parts})) + "}"
    return key(node, hard)


def assigned(node: Expression) -> tuple[str, Expression] | None:
    """The name and the value of `x = 5`, `f(x) = 2x`, `5 = x` and `x = 2 + 3 = 5`, else None."""
    if node.op != "rel" or set(node.name.split()) - {"=", "~="}:
        return None
    first, last = node.parts[0], node.parts[-1]
    if first.op in ("var", "apply") and first.name not in variables(last):
        return first.name, last
    if len(node.parts) == 2 and last.op == "var" and not variables(first):
        return last.name, first
    return None


def _list_key(node: Expression, hard: Hard) -> str:
    parts = node.parts
    pairs = [assigned(part) for part in parts]
    if all(pair is not None for pair in pairs):
        known = [pair for pair in pairs if pair is not None]
        names = [name for name, _ in known]
        if len(set(names)) == len(names) and (node.name != "or" or len(names) == 1):
            return ", ".join(sorted(f"{name} = {key(value, hard)}" for name, value in known))
        if len(set(names)) > 1:
            raise NotUnderstoodError("several values of several variables")
        parts = tuple(value for _, value in known)
    elif any(part.op == "rel" for part in parts):
        first = pairs[0]
        if first is not None and not any(part.op == "rel" for part in parts[1:]):
            parts = (first[1], *parts[1:])  # x = 1, 2
        elif node.name == "or" and all(part.op == "rel" and "=" not in part.name.split() for part in parts):
            if len(set().union(*(variables(part) for part in parts))) > 1:
                raise NotUnderstoodError("conditions on several variables")
            return " U ".join(sorted(key(part, hard) for part in parts))
        else:
            raise NotUnderstoodError("a list of conditions")
    keys = sorted(key(part, hard) for part in parts)
    if len(keys) == 1:
        return keys[0]
    return "{" + ", ".join(keys) + "}"


def _ratio_key(node: Expression, hard: Hard) -> str:
    parts = node.parts
    if len(parts) == 2:
        return key(Expression("div", parts), hard)
    values = [rational(polynomial(part)) for part in parts]
    exact = [value for value in values if value is not None]
    if len(exact) < len(values) or min(exact) <= 0:
        raise NotUnderstoodError("a ratio of more than numbers")
    scale = Fraction(math.lcm(*(value.denominator for value in exact)))
    whole = [int(value * scale) for value in exact]
    shared = math.gcd(*whole)
    return ":".join(str(value // shared) for value in whole)


def _relation_key(node: Expression, hard: Hard) -> str:
    names, parts = node.name.split(), list(node.parts)
    if names[-1] == "in" and len(names) == 1:
        if parts[0].op != "var":
            raise NotUnderstoodError("a member that is no variable")
        return _braced(parts[1], hard) if parts[1].op == "set" else key(parts[1], hard)
    if set(names) <= {"=", "~="}:
        return _equation_key(node, hard)
    if names == ["!="]:
        return f"{key(parts[0], hard)} != {key(parts[1], hard)}"
    if set(names) <= {">", ">="}:
        names = [name.replace(">", "<") for name in reversed(names)]
        parts.reverse()
    if set(names) <= {"<", "<="}:
        return _inequality_key(parts, names, hard)
    raise NotUnderstoodError("relations of several kinds")


def _equation_key(node: Expression, hard: Hard) -> str:
    first, last = node.parts[0], node.parts[-1]
    pair = assigned(node)
    if pair is not None:
        name, value = pair
        if value.op in ("tuple", "set", "union", "matrix", "list"):
            return key(value, hard)
        if first.op == "apply":
            return f"{name} = {key(value, hard)}"
        if not variables(value):
            return key(value, hard)
    if not variables(node):
        return key(last, hard)  # 120 - 90 = 30
    if len(node.parts) > 2 and pair is None:
        raise NotUnderstoodError("a chain of equations")
    if any(part.op in ("tuple", "set", "union", "matrix", "list", "apply") for part in (first, last)):
        raise NotUnderstoodError("an equation of something else")
    try:
        return _scaled(polynomial(Expression("add", (first, Expression("neg", (last,))))), signed=False) + " = 0"
    except HardError:
        if pair is None:
            return hard(Expression("rel", (first, last), "="))
        return f"{pair[0]} = {key(pair[1], hard)}"


def _scaled(terms: Polynomial, *, signed: bool) -> str:
    """The key of a polynomial up to a factor, a positive one if signed."""
    names = sorted({atom for monomial in terms for atom, _ in monomial if atom[0] not in "\x01\x02"})
    if not names:
        raise NotUnderstoodError("an equation without a variable")
    lowest = {name: min(dict(monomial).get(name, 0) for monomial in terms) for name in names}
    if any(power < 0 for power in lowest.values()):
        raise HardError  # a variable below
    ordered = sorted(terms, key=lambda monomial: (-sum(power for _, power in monomial), monomial))
    factors = list(terms.values())
    scale = Fraction(math.lcm(*(one.denominator for one in factors)), math.gcd(*(one.numerator for one in factors)))
    if not signed and terms[ordered[0]] < 0:
        scale = -scale
    return polynomial_key(_times(terms, {(): scale}))


def _inequality_key(parts: list[Expression], names: list[str], hard: Hard) -> str:
    free = [place for place, part in enumerate(parts) if variables(part)]
    if len(free) == 1 and parts[free[0]].op == "var" and len(parts) <= 3 and (len(parts) == 2 or free[0] == 1):
        place = free[0]
        left = key(parts[0], hard) if place else "-oo"
        right = key(parts[-1], hard) if place < len(parts) - 1 else "oo"
        opened = "[" if place and names[0] == "<=" else "("
        closed = "]" if place < len(parts) - 1 and names[-1] == "<=" else ")"
        return f"{opened}{left}, {right}{closed}"
    if len(parts) != 2:
        raise NotUnderstoodError("a chain of inequalities")
    try:
        terms = polynomial(Expression("add", (parts[0], Expression("neg", (parts[1],)))))
        _scaled(terms, signed=True)
    except HardError:
        raise NotUnderstoodError("an inequality that is not of polynomials") from None
    names_in = {atom for monomial in terms for atom, _ in monomial}
    if len(names_in) == 1 and set(terms) <= {(), ((next(iter(names_in)), 1),)}:  # a x + b < 0
        slope = terms[((next(iter(names_in)), 1),)]
        bound = exact_key(-terms.get((), Fraction(0)) / slope)
        with_bound = names[0] == "<="
        return f"(-oo, {bound}{')]'[with_bound]}" if slope > 0 else f"{'(['[with_bound]}{bound}, oo)"
    return f"{_scaled(terms, signed=True)} {names[0]} 0"


def exact(node: Expression) -> Fraction | None:
    """The value of an expression that is a fraction, else None."""
    try:
        return rational(polynomial(node))
    except (HardError, NotUnderstoodError):
        return None
