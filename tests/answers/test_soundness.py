"""Equal values meet however they are written, and no two different ones do."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers.canonical import easy_key, plain_number, plain_text_key
from tests.answers.shared import lines, shared_file
from tests.tools.written import close, gold_faults, key, made, right, same, written, written_number

GOLDS = ("gsm8k/test", "gsm8k/train500", "math500/test", "aime24/test", "aime25/test", "amc23/test")


@pytest.mark.parametrize("batch", range(8))
def test_values_meet_only_where_they_are_equal(batch: int) -> None:
    for number in range(250):
        rng = random.Random(f"{batch}:{number}")
        value = made(rng)
        other = value if number % 2 else close(value, rng)
        gold, answer = written(value, rng), written(other, rng)
        if same(value, other):
            assert right(gold, answer), (value, gold, answer, key(gold), key(answer))
        else:
            assert key(gold) != key(answer), (value, gold, other, answer, key(gold))
            assert not right(gold, answer), (value, gold, other, answer, key(gold), key(answer))


numbers = st.fractions(max_denominator=99)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(numbers, numbers, st.randoms(use_true_random=False))
def test_numbers_meet_only_where_they_are_equal(one: Fraction, other: Fraction, rng: random.Random) -> None:
    first, second = written_number(one, rng), written_number(other, rng)
    assert (easy_key(first) == easy_key(second)) is (one == other)
    assert plain_number(first) == one


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=5), st.integers(-99, 99), st.integers(1, 9))
def test_polynomials_meet_only_where_they_are_equal(factors: list[int], more: int, power: int) -> None:
    """A product of linear factors equals its expansion, and nothing else."""
    expanded = [1]
    for root in factors:
        expanded = [a - root * b for a, b in zip([*expanded, 0], [0, *expanded], strict=True)]
    product = "".join(f"(x{-root:+})" for root in factors)
    written_out = " + ".join(f"({c})x^{{{len(expanded) - 1 - place}}}" for place, c in enumerate(expanded))
    assert key(product) == key(written_out)
    assert (key(f"{product} + {more}x^{power}") == key(written_out)) is (more == 0)
    assert key(product) != key(written_out.replace("x", "X"))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=12), st.text(max_size=12))
def test_literals_meet_only_where_they_are_equal(one: str, other: str) -> None:
    for first, second in ((repr(one), repr(other)), (repr([one, 1]), repr([other, 1])), (repr({one}), repr({other}))):
        if plain_text_key(first) == plain_text_key(second):
            assert one == other or '"' in first + second  # what is in double quotes alone is a quotation


def test_golds_of_the_benchmarks() -> None:
    golds: list[str] = []
    for name in GOLDS:
        golds += [row["answer"] for row in lines(shared_file(f"data/{name}.jsonl"))]
    by_key = {key(gold): gold for gold in golds}
    for place, gold in enumerate(sorted(set(golds))):
        if place % 3 and plain_number(gold) is not None:
            continue  # the script looks at all of them
        faults, _ = gold_faults(gold, by_key)
        assert not faults
