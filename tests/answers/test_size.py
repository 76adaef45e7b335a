"""What is refused before algebra: towers, factorials and deep brackets, and nothing that models really answer."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers.size import MAX_BITS, too_large


@pytest.mark.parametrize(
    "latex",
    [
        "9^{9^{9^{9}}}", "9^9^9^9", "(9^9)^{9^9}", "7^{7^{7}}", "9^{9^{9}}x", "((2^{2^5})^{2^5})^{2^{20}}",
        "1000001!+sqrt(2)", r"1000001!+\sqrt{2}", "1,000,001!", "1{,}000{,}001!", "3!!!!", "(10^6)!",
        r"\left(10^{9}\right)!", r"\frac{1}{1000000!}", r"\dfrac1{999999!}", "9^{99999!}",
        r"\prod_{k=1}^{1000000} k", r"\binom{1000000}{500000}", r"2^{10^{6}}", r"2^{1000 \cdot 1000}", "2^-1000000",
        r"2^{\frac{1000000}{3}}", r"\frac{1}{2^{-9999999}}", "0.5^{1000000}", "10^{-999999}", "x^{10^9}",
        "(x+1)^{10000000}", r"\sqrt[3]{9^{9^{9^{9}}}}", "{1, 2, 9^{9^9}}", "{" * 400, r"\sqrt{" * 60,
        "(" * 31 + "1" + ")" * 31, "9^{9^{9", "9**9**9", "2⁹⁹⁹⁹⁹⁹",
        "9⁹!", "{9^{9^{9}", "2^{99999999999999999999999999}",
    ],
)  # fmt: skip
def test_too_large(latex: str) -> None:
    assert too_large(latex)


@pytest.mark.parametrize(
    "latex",
    [
        "", "5", "0", "-1", r"2^{2023}", "2^{10000}", "10^{100}", "3^{4^{5}}", "2^{2^{10}}", r"10^{1.2345}",
        "3 \\times 10^{8}", r"\frac{1000!}{998!}", r"\frac{2023!}{2022!}", "100!", "n!", "2^{n!}",
        r"\binom{1000000}{2}", r"\binom{2023}{1011}", "e^{2023}", "e^{0.693147}", r"e^{\frac{1000}{1001}}",
        "e^{-x^{20}}", "x^{2023}", "x^{100}+y^{100}", "x^{y^{z^{w}}}", "2^{2023+1}",
        r"\sum_{k=1}^{100000} \frac{1}{k}", r"\int_0^{1000000} x dx", r"\log_{2} 1000000", "x_{1000000}^{2}",
        "i^{2023}", "(-1)^{10^9}", "1^{10^{10}}", "(1+i)^{1000}", r"\frac12^{10}", r"\frac{\sqrt{3}}{3}",
        "1{,}234{,}567", "1, 234", "[-2, 7]", r"\begin{pmatrix} 1/5 \\ 2 \end{pmatrix}", "2^{-10}",
        "(" * 30 + "1" + ")" * 30, "9" * 400, "2**100 × 3", "x² − 7³ ÷ 2⁻", "4π²",
    ],
)  # fmt: skip
def test_not_too_large(latex: str) -> None:
    assert not too_large(latex)


Number = tuple[str, Fraction]
whole = st.integers(0, 40).map(lambda n: (str(n), Fraction(n)))


def combined(inner: st.SearchStrategy[Number]) -> st.SearchStrategy[Number]:
    def combine(one: Number, other: Number, how: str) -> Number:
        (a, x), (b, y) = one, other
        if how == "^" and y.denominator == 1 and abs(y) < 2000 and size(x) * abs(y) < 10**6 and (x or y > 0):
            return f"({a})^{{{b}}}", x ** int(y)
        if how == "!" and x.denominator == 1 and 0 <= x < 3000:
            return f"({a})!", Fraction(math.factorial(int(x)))
        if how == "/" and y:
            return rf"\frac{{{a}}}{{{b}}}", x / y
        if how == "*":
            return rf"({a}) \cdot ({b})", x * y
        return (f"({a}) - ({b})", x - y) if how == "-" else (f"({a}) + ({b})", x + y)

    return st.builds(combine, inner, inner, st.sampled_from("^^!/*-+"))


def size(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


@settings(max_examples=400, deadline=None)
@given(st.recursive(whole, combined, max_leaves=8))
def test_no_number_that_is_let_through_is_longer_than_said(number: Number) -> None:
    latex, value = number
    if not too_large(latex):
        assert size(value) <= MAX_BITS + 64  # binary logarithms are rounded


pieces = st.sampled_from(["9", "^", "{", "}", "(", ")", "!", r"\frac", r"\binom", r"\sum", r"\prod", "_", "-", "/", ".",
                          "x", "0", r"\pi", ",", "=", "12"])  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(pieces | st.text(max_size=3), max_size=40).map("".join))
def test_it_never_raises(latex: str) -> None:
    assert too_large(latex) in (True, False)
