"""Values of many kinds, the many ways to write each, and values close to it: for tests of what answers mean."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from outthink.answers import algebra
from outthink.answers.canonical import cleaned_math, easy_key, judged, plain_number
from outthink.answers.reading import read

Monomials = tuple[tuple[tuple[int, int], int], ...]


def key(answer: str) -> str:
    """The key of a math answer, worked out here instead of in a worker process."""
    easy = easy_key(answer)
    return easy if easy is not None else algebra.canonical(answer) or cleaned_math(answer)


def right(gold: str, answer: str) -> bool:
    """Whether an answer is graded as right, without a worker process."""
    verdict = judged("math", gold, answer, key(gold), key(answer))
    return algebra.verify(gold, answer) if verdict is None else verdict


@dataclass(frozen=True)
class Value:
    """Something an answer can say: two are equal where kind and content are."""

    kind: str
    content: object


# ---------------------------------------------------------------- numbers


def grouped(number: int, rng: random.Random) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}".replace(",", rng.choice([",", "{,}", r"\,", r"{,}", " ", "\u00a0", "\u202f", "~", r",\!"]))


def digits(text: str, rng: random.Random) -> str:
    """ASCII digits as those of another script."""
    zero = rng.choice("０٠۰०")
    return "".join(chr(ord(zero) + int(one)) if one.isdigit() else one for one in text)


def written_whole(number: int, rng: random.Random) -> str:
    """A whole number that is not negative."""
    if number >= 1000 and rng.random() < 0.5:
        return grouped(number, rng)
    return rng.choice([str(number)] * 3 + [digits(str(number), rng), f"{number}.0", f"{number}.00"])


def repeating(value: Fraction) -> tuple[str, str, str] | None:
    """The whole part, the digits before and the digits of the period of a fraction that is not negative."""
    whole, rest = divmod(value.numerator, value.denominator)
    seen: dict[int, int] = {}
    out = ""
    while rest and rest not in seen:
        seen[rest] = len(out)
        rest *= 10
        out += str(rest // value.denominator)
        rest %= value.denominator
        if len(out) > 12:
            return None
    start = seen.get(rest, len(out)) if rest else len(out)
    return str(whole), out[:start], out[start:]


def written_number(value: Fraction, rng: random.Random, bare: bool = False) -> str:
    """A fraction in one of many ways; bare: as it can stand within a list."""
    sign, size = "-" if value < 0 else "", abs(value)
    top, bottom = size.numerator, size.denominator
    forms = []
    if bottom == 1:
        text = str(top) if bare else written_whole(top, rng)
        forms += [sign + text] * 3
        factor = rng.randint(2, 9)
        forms += [rf"{sign}\frac{{{top * factor}}}{{{factor}}}", f"{sign}{top * factor}/{factor}"]
        if not bare:
            # each value has one unit, which may be left out
            unit = (" apples", r" \text{ cm}^2", " km/h", "\\%", r"^\circ", " metres", "°", " dollars", "$")[top % 9]
            forms += [f"{sign}{top}e0", rf"{sign}{top} \times 10^0", f"${sign}{top}$"]
            forms += [rf"{sign}\${top}", f"{sign}${top}"] if unit == "$" else [f"{sign}{top}{unit}"]
    else:
        factor = rng.randint(1, 5)
        a, b = top * factor, bottom * factor
        command = rng.choice(["frac", "dfrac", "tfrac"])
        forms += [f"{sign}{a}/{b}", rf"{sign}\{command}{{{a}}}{{{b}}}", rf"\frac{{{sign}{a}}}{{{b}}}"]
        if a < 10 and b < 10:
            forms += [rf"{sign}\frac{a}{b}", rf"{sign}\frac {a}{b}", rf"{sign}\frac{{{a}}}{b}"]
        if top > bottom:
            whole, rest = divmod(top, bottom)
            forms += [rf"{sign}{whole}\frac{{{rest}}}{{{bottom}}}"]
            if not bare:
                forms += [f"{sign}{whole} {rest}/{bottom}"]
        period = repeating(size)
        if period is not None:
            first, before, again = period
            start = f"{sign}{first}.{before}"
            if again:
                forms += [rf"{start}\overline{{{again}}}", rf"{start}\bar{{{again}}}", f"{start}({again})"]
            else:
                forms += [start, start + "0"]
        single = {
            Fraction(1, 2): "½",
            Fraction(1, 4): "¼",
            Fraction(3, 4): "¾",
            Fraction(1, 3): "⅓",
            Fraction(2, 3): "⅔",
        }
        if size in single and not sign:
            forms += [single[size]]
    form = rng.choice(forms)
    return form if bare else dressed(form, rng)


def dressed(form: str, rng: random.Random) -> str:
    """A number or expression as it stands in an answer."""
    if rng.random() < 0.5:
        return form
    if form.startswith("-"):
        inside = form[1:]
        more = [f"−{inside}", f"–{inside}", f"minus {inside}", f"negative {inside}", f"- {inside}"]
        if rng.random() < 0.5 and inside[:1] != "\\":
            return rng.choice(more)
    return rng.choice(
        [f"${form}$", f"\\({form}\\)", f" {form} ", f"{form}.", f"x = {form}", f"x={form}", f"approximately {form}",
         f"about {form}", f"= {form}", f"**{form}**", f"`{form}`", f"${form}$."]
    )  # fmt: skip


def numbers(rng: random.Random) -> Value:
    if rng.random() < 0.6:
        value = Fraction(rng.choice([rng.randint(-30, 30), rng.randint(0, 10**4), rng.randint(-(10**9), 10**9)]))
    else:
        value = Fraction(rng.randint(-99, 99), rng.choice([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 99, 100, 1000]))
    return Value("number", value)


def close_number(value: Fraction, rng: random.Random) -> Fraction:
    text = list(str(abs(value.numerator)))
    place = rng.randrange(len(text))
    text[place] = str((int(text[place]) + rng.randint(1, 9)) % 10)
    changed = Fraction(int("".join(text)), value.denominator)
    choices = [value + 1, value - 1, value * 10, value / 10, -value, value + Fraction(1, 10), value * 1000, value / 100]
    choices += [
        value + rng.randint(2, 99),
        value - rng.randint(2, 99),
        changed,
        -changed,
        value * 60,
        value + Fraction(1, 10**6),
        value / 2,
    ]
    if value:
        choices.append(1 / value)
    return rng.choice(choices)


# ---------------------------------------------------------------- roots and functions


def roots(rng: random.Random) -> Value:
    value = rng.randint(-9, 9), rng.choice([-3, -2, -1, 1, 2, 3, 5]), rng.choice([2, 3, 5, 6, 7, 10, 11, 30])
    return Value("root", value)


def written_root(value: tuple[int, int, int], rng: random.Random) -> str:
    whole, times, inside = value
    size = abs(times)
    part = rng.choice([rf"\sqrt{{{inside}}}", f"sqrt({inside})", f"√{inside}", rf"\sqrt{{{inside}}}"])
    if rng.random() < 0.4:
        part = rf"\sqrt{{{inside * size * size}}}"
    elif size != 1:
        part = str(size) + rng.choice(["", " ", "*", r" \cdot "]) + part
    minus = times < 0
    if not whole:
        return f"-{part}" if minus else part
    if rng.random() < 0.5:
        return f"{whole} {'-' if minus else '+'} {part}"
    return f"{'-' if minus else ''}{part} {'-' if whole < 0 else '+'} {abs(whole)}"


def close_root(value: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    whole, times, inside = value
    return rng.choice(
        [(whole + 1, times, inside), (-whole - 1, times, inside), (whole, -times, inside), (whole, 4 * times, inside),
         (whole, times, 13), (times + 20, whole or 7, inside)]
    )  # fmt: skip


def functions(rng: random.Random) -> Value:
    return Value("function", (rng.choice(["sin", "cos", "tan", "ln", "exp", "arctan", "log_2"]), rng.randint(2, 60)))


def written_function(value: tuple[str, int], rng: random.Random) -> str:
    name, inside = value
    if name == "exp":
        return rng.choice([f"e^{{{inside}}}", f"exp({inside})", rf"\exp({inside})", rf"\mathrm{{e}}^{{{inside}}}"])
    if name == "log_2":
        return rng.choice(
            [f"log_2({inside})", rf"\log_2 {inside}", rf"\log_{{2}}({inside})", rf"\frac{{\ln {inside}}}{{\ln 2}}"]
        )
    forms = [f"{name}({inside})", rf"\{name} {inside}", rf"\{name}({inside})", rf"\mathrm{{{name}}}({inside})"]
    return rng.choice(
        [*forms, f"{name} {inside}", rf"\operatorname{{{name}}}({inside})", rf"\{name}\left({inside}\right)"]
    )


def close_function(value: tuple[str, int], rng: random.Random) -> Value:
    name, inside = value
    others = [one for one in ("sin", "cos", "tan", "ln", "exp", "arctan", "log_2") if one != name]
    return rng.choice(
        [Value("function", (name, inside + 61)), Value("function", (rng.choice(others), inside)),
         Value("number", Fraction(inside)), Value("number", Fraction(2))]
    )  # fmt: skip


# ---------------------------------------------------------------- expressions


def expressions(rng: random.Random) -> Value:
    terms = {(rng.randint(0, 3), rng.randint(0, 2)): rng.choice([-5, -3, -2, -1, 1, 2, 3, 4, 7]) for _ in range(3)}
    terms[rng.choice([(1, 0), (0, 1), (2, 1)])] = rng.randint(1, 9)
    return Value("expression", ("x", "y", tuple(sorted(terms.items()))))


def written_expression(value: tuple[str, str, Monomials], rng: random.Random) -> str:
    first, second, terms = value
    shuffled = list(terms)
    rng.shuffle(shuffled)
    text = ""
    for powers, factor in shuffled:
        names = [
            letter
            if power == 1
            else rng.choice([f"{letter}^{power}", f"{letter}^{{{power}}}", letter + "⁰¹²³⁴⁵⁶⁷"[power]])
            for letter, power in zip((first, second), powers, strict=True)
            if power
        ]
        rng.shuffle(names)
        part = rng.choice(["", " ", "*", r"\cdot "]).join(names)
        size = abs(factor)
        if not names:
            part = str(size)
        elif size != 1:
            part = f"{size}{rng.choice(['', '*'])}{part}"
        sign = "-" if factor < 0 else "+"
        text += f" {sign} {part}" if text else part if sign == "+" else f"-{part}"
    return rng.choice([text, f"${text}$", text, f"({text})"])


def close_expression(value: tuple[str, str, Monomials], rng: random.Random) -> Value:
    first, second, terms = value
    changed = dict(terms)
    powers = rng.choice(list(changed))
    how = rng.randrange(5)
    if how == 0:
        changed[powers] = -changed[powers]
    elif how == 1:
        changed[powers] += 10
    elif how == 2:
        changed[powers[0] + 4, powers[1]] = changed.pop(powers)
    elif how == 3:
        upper = first.upper() if any(one[0] for one in changed) else first
        return Value("expression", (upper, second.upper(), terms))
    else:
        return Value("number", Fraction(sum(changed.values())))
    return Value("expression", (first, second, tuple(sorted(changed.items()))))


# ---------------------------------------------------------------- several numbers


def tuples(rng: random.Random) -> Value:
    content = tuple(numbers(rng).content for _ in range(rng.choice([2, 2, 3])))
    return Value(
        rng.choice(["()", "()", "list"]) if len(content) == 3 else rng.choice(["()", "(]", "[)", "[]", "list"]), content
    )


def written_tuple(kind: str, content: tuple[Fraction, ...], rng: random.Random) -> str:
    parts = [written_number(value, rng, bare=True) for value in content]
    if kind == "list":
        rng.shuffle(parts)
        if rng.random() < 0.3:
            return r"\{" + ", ".join(parts) + r"\}"
        return rng.choice([", ", r", \, ", r" \text{ and } ", " and "]).join(parts)
    left, right = kind[0], kind[1]
    big, small = (r"\left", r"\right") if rng.random() < 0.4 else ("", "")
    return big + left + rng.choice([", ", ",  ", r",\ "]).join(parts) + small + right


def close_tuple(value: Value, rng: random.Random) -> Value:
    content = value.content
    assert isinstance(content, tuple)
    how = rng.randrange(4)
    if how == 0 and len(content) == 2 and value.kind != "list":
        return Value(rng.choice([kind for kind in ("()", "(]", "[)", "[]") if kind != value.kind]), content)
    if how == 1:
        return Value(value.kind, content[::-1])
    if how == 2:
        return Value("number", content[0])
    place = rng.randrange(len(content))
    return Value(value.kind, (*content[:place], close_number(content[place], rng), *content[place + 1 :]))


def assignments(rng: random.Random) -> Value:
    names = rng.choice(["xy", "ab", "xyz", "mn"])
    return Value("assigned", tuple((name, Fraction(rng.randint(-20, 20))) for name in names))


def written_assignment(content: tuple[tuple[str, Fraction], ...], rng: random.Random) -> str:
    parts = [f"{name}{rng.choice(['=', ' = '])}{value}" for name, value in content]
    rng.shuffle(parts)
    return rng.choice([", ", " and ", "; ", r"\text{ and }", ",\\ "]).join(parts)


def close_assignment(content: tuple[tuple[str, Fraction], ...], rng: random.Random) -> Value:
    values = [value for _, value in content]
    if rng.random() < 0.5:
        return Value("assigned", tuple((name, value) for (name, _), value in zip(content, values[::-1], strict=True)))
    place = rng.randrange(len(values))
    values[place] += rng.choice([-1, 1, 10])
    return Value("assigned", tuple((name, value) for (name, _), value in zip(content, values, strict=True)))


# ---------------------------------------------------------------- times, amounts, bases


def times(rng: random.Random) -> Value:
    return Value("time", (rng.randint(1, 12), rng.randrange(60), rng.choice(["am", "pm", ""])))


def written_time(content: tuple[int, int, str], rng: random.Random) -> str:
    hours, minutes, half = content
    clock = f"{hours}:{minutes:02}"
    if not half:
        return rng.choice([clock, f"${clock}$", rf"\text{{{clock}}}"])
    shown = rng.choice([half, half.upper(), f"{half[0]}.m.", f"{half[0].upper()}.M."])
    forms = [f"{clock} {shown}", f"{clock}{shown}", rf"{clock}\text{{ {shown}}}", rf"{clock} \text{{ {shown}}}"]
    if half == "pm" and hours < 12:
        forms.append(f"{hours + 12}:{minutes:02}")
    if not minutes:
        forms.append(f"{hours} {half}")
    return rng.choice(forms)


def close_time(content: tuple[int, int, str], rng: random.Random) -> Value:
    hours, minutes, half = content
    choices = [
        Value("time", (hours % 12 + 1, minutes, half)),
        Value("time", (hours, (minutes + rng.randint(1, 59)) % 60, half)),
        Value("time", (minutes % 12 or 12, hours, half)),
        Value("number", Fraction(100 * hours + minutes)),
    ]
    if half:
        choices.append(Value("time", (hours, minutes, "am" if half == "pm" else "pm")))
        choices.append(Value("number", Fraction(hours, minutes) if minutes else Fraction(minutes)))
    return rng.choice(choices)


_AMOUNTS = {
    "time": (("hours", "hour", "hr", "h"), ("minutes", "minute", "min"), 60),
    "length": (("feet", "ft", "foot"), ("inches", "in", "inch"), 12),
    "mass": (("pounds", "lb", "lbs"), ("ounces", "oz", "ounce"), 16),
    "metric": (("meters", "m", "metres"), ("centimeters", "cm"), 100),
}


def amounts(rng: random.Random) -> Value:
    kind = rng.choice(list(_AMOUNTS))
    return Value("amount", (kind, rng.randint(1, 40), rng.randint(1, _AMOUNTS[kind][2] - 1)))


def written_amount(content: tuple[str, int, int], rng: random.Random) -> str:
    kind, large, small = content
    one, other = rng.choice(_AMOUNTS[kind][0]), rng.choice(_AMOUNTS[kind][1])
    between = rng.choice([" ", " and ", ", "])
    return rng.choice(
        [f"{large} {one}{between}{small} {other}", rf"{large}\text{{ {one} }}{small}\text{{ {other}}}",
         rf"{large} \text{{ {one} and }} {small} \text{{ {other}}}",
         rf"{large} \mathrm{{~{one}}} {small} \mathrm{{~{other}}}"]
    )  # fmt: skip


def close_amount(content: tuple[str, int, int], rng: random.Random) -> Value:
    kind, large, small = content
    unit = _AMOUNTS[kind][2]
    return rng.choice(
        [Value("amount", (kind, large, small % (unit - 1) + 1)) if unit > 2 else Value("number", Fraction(large)),
         Value("amount", (kind, large + 1, small)), Value("number", Fraction(large)), Value("number", Fraction(small)),
         Value("number", Fraction(large * small)), Value("number", Fraction(large + small))]
    )  # fmt: skip


def bases(rng: random.Random) -> Value:
    base = rng.choice([2, 3, 4, 5, 6, 7, 8, 9, 16])
    first = "123456789ABCDEF"[: base - 1]
    return Value("base", (rng.choice(first) + "".join(rng.choice("0" + first) for _ in range(rng.randint(1, 6))), base))


def written_base(content: tuple[str, int], rng: random.Random) -> str:
    number, base = content
    words = {
        2: "two",
        3: "three",
        4: "four",
        5: "five",
        6: "six",
        7: "seven",
        8: "eight",
        9: "nine",
        10: "ten",
        16: "sixteen",
    }
    forms = [
        f"{number}_{base}",
        f"{number}_{{{base}}}",
        f"{number}_{{({base})}}",
        rf"{number}_{{\text{{{words.get(base, base)}}}}}",
    ]
    if number[0].isdigit():
        forms += [f"({number})_{base}", f"({number})_{{{base}}}", f"{number} base {base}", f"{number} in base {base}"]
        return rng.choice(forms)
    return rng.choice([rf"\text{{{number}}}_{{{base}}}", rf"\mathrm{{{number}}}_{{{base}}}"])


def close_base(content: tuple[str, int], rng: random.Random) -> Value:
    number, base = content
    return rng.choice(
        [Value("base", (number, base + 1 if base < 10 else 12)), Value("base", (number + "0", base)),
         Value("number", Fraction(int(number, base))),
         Value("number", Fraction(int(number)) if number.isdigit() else Fraction(base))]
    )  # fmt: skip


# ---------------------------------------------------------------- all of them

MAKERS = (numbers, numbers, roots, functions, expressions, tuples, assignments, times, amounts, bases)


def made(rng: random.Random) -> Value:
    """Any value."""
    return rng.choice(MAKERS)(rng)


def written(value: Value, rng: random.Random) -> str:
    """It, in one of the ways to write it."""
    content: object = value.content
    if isinstance(content, Fraction):
        return written_number(content, rng)
    assert isinstance(content, tuple)
    writers: dict[str, Callable[[Any, random.Random], str]] = {
       "root": written_root, "function": written_function, "expression": written_expression,
               "assigned": written_assignment, "time": written_time, "amount": written_amount,
               "base": written_base}  # fmt: skip
    if value.kind in writers:
        return writers[value.kind](content, rng)
    return written_tuple(value.kind, content, rng)


def close(value: Value, rng: random.Random) -> Value:
    """Another value of the same kind, or of one that it may be taken for."""
    content: object = value.content
    if isinstance(content, Fraction):
        return Value("number", close_number(content, rng))
    assert isinstance(content, tuple)
    if value.kind == "root":
        return Value("root", close_root(content, rng))
    changers: dict[str, Callable[[Any, random.Random], Value]] = {
       "function": close_function, "expression": close_expression, "assigned": close_assignment,
                "time": close_time, "amount": close_amount, "base": close_base}  # fmt: skip
    return changers[value.kind](content, rng) if value.kind in changers else close_tuple(value, rng)


def same(one: Value, other: Value) -> bool:
    """Whether two values are equal."""
    if one.kind == other.kind == "list":
        return sorted(one.content) == sorted(other.content)  # type: ignore[call-overload, no-any-return]
    if "function" in (one.kind, other.kind) and one.kind != other.kind:
        function, number = (one, other) if one.kind == "function" else (other, one)
        assert isinstance(function.content, tuple)
        name, inside = function.content  # all are irrational but logarithms of powers of two
        return name == "log_2" and isinstance(number.content, Fraction) and Fraction(inside) == 2**number.content
    return one == other


# ---------------------------------------------------------------- gold answers


def rewritten(gold: str) -> list[str]:
    """Six or more ways to write a gold answer."""
    number = plain_number(gold)
    forms = [gold, f"${gold}$", f"\\({gold}\\)", f" {gold}  ", f"{gold}.", f"**{gold}**", f"${gold}$."]
    if number is None:
        return [*forms, gold.replace(r"\frac{", r"\dfrac{"), gold.replace("(", r"\left(").replace(")", r"\right)")]
    if not re.search(r"[^0-9.,/\-]", gold):
        forms += [written_number(number, random.Random(f"{gold}{place}")) for place in range(8)]
    return [*forms, f"x = {gold}", f"about {gold}"]


def misses(gold: str, others: dict[str, str], rng: random.Random) -> list[str]:
    """Ten answers that are close to a gold one, or are other ones, and are not it."""
    number = plain_number(gold)
    if number is not None and not re.search(r"[^0-9.,/\-]", gold):
        near = {close_number(number, rng) for _ in range(40)} - {number}
        return [written_number(value, rng) for value in sorted(near)][:10]
    digits = [match.start() for match in re.finditer("[0-9]", gold)]
    changed = [gold[:at] + str((int(gold[at]) + rng.randint(1, 8)) % 9 + 1) + gold[at + 1 :] for at in digits]
    changed = [one for one in changed if re.sub(r"\s", "", one) != re.sub(r"\s", "", gold)]
    form = key(gold)
    return (changed + [other for its, other in rng.sample(sorted(others.items()), 20) if its != form])[:10]


def gold_faults(gold: str, others: dict[str, str]) -> tuple[list[str], int]:
    """What is wrong with a gold answer's rewritings and near misses, and how many of both were tried.

    Args:
        others: gold answers by their keys.
    """
    rng = random.Random(gold)
    forms = rewritten(gold)
    faults = [f"{gold}: {form} is not right" for form in forms if not right(gold, form)]
    boxed = [form.strip() for form in forms]
    faults += [
        f"{gold}: {form} in a box" for form in boxed if not right(gold, read("math", f"So \\boxed{{{form}}}.") or "")
    ]
    near = misses(gold, others, rng)
    faults += [f"{gold}: {form} is right" for form in near if right(gold, form) or key(gold) == key(form)]
    if len(forms) < 6 or len(near) < 10:
        faults.append(f"{gold}: too few forms")
    return faults, len(forms) + len(near)
