"""Reading, keys and grading: what models write, what must not hang, and what must stay apart."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers.canonical import MAX_ANSWER, chat_key, easy_key, plain_number
from outthink.answers.literals import json_value, text_key
from outthink.answers.reader import Reader
from outthink.answers.reading import MAX_TEXT, read
from outthink.types import AnswerKind, Message, Problem

KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)
LONG: tuple[AnswerKind, ...] = ("json", "chat")


def with_reader(work: Callable[[Reader], Coroutine[Any, Any, Any]], timeout: float = 5.0) -> Any:
    async def main() -> Any:
        reader = Reader(timeout)
        try:
            return await work(reader)
        finally:
            await reader.close()

    return asyncio.run(main())


@pytest.fixture(scope="module")
def shared() -> Iterator[Reader]:
    reader = Reader(timeout=2.0)
    yield reader
    asyncio.run(reader.close())


def keys(reader: Reader, kind: AnswerKind, *given: str) -> list[str | None]:
    async def work() -> list[str | None]:
        return [await reader.key(kind, answer) for answer in given]

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{4} is wrong, it is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{5} and then \boxed{unbalanced", "5"),
        (r"\boxed{5} and an empty \boxed{}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{3} #### 4", "3"),
        ("2 + 2 = 4\n#### 4", "4"),
        ("#### $18.00", "$18.00"),
        ("#### 18 dollars.", "18 dollars"),
        ("#### 18 because 9 + 9 is 18 and nothing else", "18"),
        ("#### <72>", "72"),
        ("#### 7\n\n#### Step 2: check\nIt is right.", "7"),
        ("#### Conclusion\nThere are 12 eggs.", "12"),
        (r"#### \begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        ("The answer is 18. I checked it with 9 x 2.", "18"),
        ("**Answer:** 1,024", "1,024"),
        ("The final answer is $\\frac{3}{4}$.", r"\frac{3}{4}"),
        ('{"reasoning": "so the answer is 5.",\n "answer": "4"}', "4"),
        ("**The answer is 18**", "18"),
        ("The answer is not obvious. We add 3 and 4 and get 7", "7"),
        ("She earns $1,250.50 in all.", "$1,250.50"),
        ("It cools down to -5 degrees.", "-5"),
        ("a ratio of 3/4 then", "3/4"),
        ("It is 5-3", "3"),
        ("<think>maybe \\boxed{1}</think>The answer is 2", "2"),
        ("I do not know.", None),
        ("", None),
        ("#### ", None),
    ],
)
def test_read_math(text: str, answer: str | None) -> None:
    assert read("math", text) == answer


@pytest.mark.parametrize(
    ("text", "options", "answer"),
    [
        (r"\boxed{\text{(C)}}", (), "C"),
        (r"A or B? \boxed{B: five}", (), "B"),
        ("The answer is (D).", (), "D"),
        ("the correct answer is: **b**", (), "B"),
        ("Answer: option C, since A is too small", (), "C"),
        ("#### E", (), "E"),
        ("(A) is wrong, (B) is right", (), "B"),
        ("B fits. I think A dog agrees.", (), "B"),
        ("So it must be A", (), "A"),
        ("The answer is a matter of taste: C", (), "C"),
        ("E", ("A", "B"), None),
        ("The answer is True", ("True", "False"), "True"),
        ("there is no label", (), None),
    ],
)
def test_read_choice(text: str, options: tuple[str, ...], answer: str | None) -> None:
    assert read("choice", text, options) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Let me see.\nAnswer: Monday.", "Monday."),
        ("The answer is **Yes**\nThank you", "Yes"),
        ("The answer is unknown\n#### ainomma", "ainomma"),
        ("#### 1\nAnswer: two", "two"),
        (r"\boxed{\text{Friday}}", "Friday"),
        ("thinking\n\nuncle\n\n", "uncle"),
        (" \n ", None),
    ],
)
def test_read_text(text: str, answer: str | None) -> None:
    assert read("text", text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("```python\ndef f():\n    return 1\n```\nUse it:\n```python\nprint(f())\n```", "def f():\n    return 1"),
        ("```python\ndef f(): return 1\n```\nbetter:\n```py\ndef f(): return 2\n```", "def f(): return 2"),
        ("```\nx = 1\n```\n", "x = 1"),
        ("```bash\nls\n```\n```python\nx = 2\n```", "x = 2"),
        ("```python\ndef f():\n    return 3", "def f():\n    return 3"),
        ("import os\ndef f(): ...", "import os\ndef f(): ..."),
        ("I cannot do that.", None),
    ],
)
def test_read_code(text: str, answer: str | None) -> None:
    assert read("code", text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (' {"b": [1.50, 2e3],\n "a": "x y"} ', '{"b":[1.50,2e3],"a":"x y"}'),
        ("42", "42"),
        ("null", "null"),
        ('""', '""'),
        ('<think>{"a": 1}</think>{"a": 2}', '{"a":2}'),
        ('{"a": 1, "a": 2}', '{"a":2}'),
        ('Here:\n```json\n{"a": 1}\n```\nIn Python:\n```python\n[2]\n```', '{"a":1}'),
        ("```json\n[1]\n```\nor rather\n```json\n[2]\n```\nI hope it helps.", "[2]"),
        ("```json\n[1]\n```\nor rather\n```json\n[2\n```", "[1]"),
        ("```\n[1]\n```\n```sh\nls\n```", "[1]"),
        ("```json\n[1]", "[1]"),
        ('"\\u00e4 \\ud83d\\ude00 \\ud800"', '"ä 😀 \\ud800"'),
        ("9" * 5000, "9" * 5000),
        ("[" * 100 + "]" * 100, "[" * 100 + "]" * 100),
        ("[" * 101 + "]" * 101, None),
        ("NaN", None),
        ('{"a": -Infinity}', None),
        ("[01]", None),
        ("{'a': 1}", None),
        ('The result is {"a": 1}.', None),
        ("", None),
    ],
)
def test_read_json(text: str, answer: str | None) -> None:
    assert read("json", text) == answer


CALL = '[{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}]'
REPLY = "There is much to be said about it, and what is best depends on what you want to do.\nLet us begin."


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (CALL, '[{"name":"weather","arguments":{"city":"Oslo","days":2}}]'),
        ('<think>The answer is 3</think>\n{"a": "The answer is 4"}', '{"a":"The answer is 4"}'),
        ('```json\n{"a": 1}\n```', '{"a":1}'),
        (r"\boxed{\text{Paris}}, so the answer is London", "Paris"),
        (r"So \boxed{\frac{1}{2}}, not \boxed{}", r"\frac{1}{2}"),
        (r"\boxed{(C)}", "C"),
        ("The answer is 3\n#### Paris", "Paris"),
        ("#### 7\nIs that right?", "7"),
        ("so\n#### 18 because 9 + 9 is 18", "18"),
        ("The answer is Paris.", "Paris"),
        ("First. The answer is **Mr. Bean**. He is funny.\nThanks!", "Mr. Bean"),
        ("The answer is B, since A is too small.", "B"),
        ("Answer: b", "B"),
        ("**Answer: B) Paris**", "B"),
        ("The correct answer is option (D).", "D"),
        ("Answer: J. K. Rowling", "J. K. Rowling"),
        ("The answer is A) and C).", "A) and C)"),
        ("The answer is C++.", "C++"),
        ("The answer is 18. I checked it.", "18"),
        ("## Answer:\n\n42\n", "42"),
        ('Well: {"why": "so the answer is 5.",\n "answer": "Oslo"}', "Oslo"),
        ("The answer is yes.\nThe answer is not obvious, though.", "yes"),
    ],
)
def test_read_chat_with_an_answer_that_is_marked(text: str, answer: str) -> None:
    assert read("chat", text) == answer
    assert read("chat", text + "\n<think>\n</think>") == answer  # a thought behind it takes nothing away


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "Hello! How can I help you?",
        "42\n",
        "x" * 80,
        "x" * 81,
        "one\ntwo",
        r"\boxed{\text{}}",
        REPLY,
        "The answer is as follows:\nfirst one, then two",
        "The answer is not the one that you expect.\n" + REPLY,
        "The answer is " + "very " * 20 + "long.",
        "#### 1. Setup\n" + REPLY + "\n#### Conclusion\n" + REPLY,
        "```python\nprint('The answer is', 7)\n#### 7\n```\n" + REPLY,
        '{"a": 1} and\n{"a": 2}',
        "[" * 500 + "]" * 500,
        "x" * (MAX_ANSWER + 1),
        REPLY * 2000,
    ],
)
def test_read_chat_without_one_is_the_whole_text(text: str) -> None:
    whole = text[-MAX_TEXT:].strip()
    assert read("chat", text) == read("chat", f"<think>7</think>\n{text}") == whole
    problem = Problem(id="p", messages=(Message(content="?"),), answer="chat")
    answer, key = with_reader(lambda reader: reader.read(problem, text))
    assert answer == whole
    assert key is not None
    assert len(key) <= MAX_ANSWER


@pytest.mark.parametrize("text", ["", " \n", "<think>The answer is 5</think>\n "])
def test_a_blank_reply_is_no_answer(text: str) -> None:
    assert read("chat", text) is None


@pytest.mark.parametrize(
    "same",
    [
        ["1/2", "0.5", r"\frac{1}{2}", r"\dfrac12", r"\tfrac 1 2", "$.5$", "5e-1", r"5 \times 10^{-1}", "0.50"],
        ["18", "$18.00", "18 dollars.", "x = 18", "18%", r"18^\circ", r"\$18", "(18)", "18 eggs per day", "+18", "018"],
        ["12", r"12\text{ cm}^2", "12 cm^2", "3 * 4 = 12", r"12 \text{ m}"],
        ["10080", "10,080", r"10,\!080", "10{,}080", r"10\,080"],
        ["3000000", "3 million", "3e6", r"3 \times 10^6"],
        ["7/2", "3.5", r"3\frac{1}{2}", "3 1/2"],
        ["-5", "−5", "$-5", "-$5", "- 5"],
        [r"11\sqrt2", r"11\sqrt{2}", "sqrt(242)"],
        ["p - q", "-q + p"],
        ["(a+5)(b+2)", "ab+2a+5b+10"],
        ["y = 2x+3", "2x - y + 3 = 0"],
        ["(2,4)", r"\left( 2, 4 \right)"],
        ["3, 5, 7", "7,5,3", r"\{3,5,7\}"],
        [r"x \in [-2,7]", "[-2, 7]", r"-2 \le x \le 7"],
        [r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"],
        [r"\begin{pmatrix} 1/5 \\ 2 \end{pmatrix}", r"\begin{pmatrix} \frac{1}{5} \\ 2 \end{pmatrix}"],
        [r"\text{east}", "east", "East"],
        [r"\text{(C)}", "C", "(C)"],
        ["40_9", "40_{9}"],
        [r"\pi", "pi", "π"],
        [r"\frac{x^2-1}{x-1}", "x+1"],
        [r"\sqrt{4}", "2"],
    ],
)
def test_same_math(shared: Reader, same: list[str]) -> None:
    assert len(set(keys(shared, "math", *same))) == 1


def test_different_math(shared: Reader) -> None:
    different = [
        "40", "40_9", "40_8", "50%", "0.5", "5", "-5", "(3,4)", "(3,4]", "[3,4]", "{3,4}", "x", "X", "2k", "2", "C",
        "3,5", "35", "1/3", "0.333333", r"\pi", "3.14159265358979", "east", "even", "3 million", "3", "x<5", r"x \le 5",
        "2 thirds", r"\sqrt2", "y = -2x", "y = 2x",
    ]  # fmt: skip
    given = keys(shared, "math", *different)
    assert None not in given
    assert len(set(given)) == len(different), sorted(zip(given, different, strict=True), key=str)


@pytest.mark.parametrize(
    ("kind", "same"),
    [
        ("choice", ["b", "B", "(B)", " B "]),
        ("text", ["Mother-in-Law", "mother-in-law.", ' "mother-in-law" ', "ｍother-in-law", "mother-in-law\n"]),
        ("code", ["x=1 # one", "x = 1", "x   = (1)"]),
        ("code", ["def f(:", "def f(:\n"]),
        ("json", ["100", "1e2", "1.00E+2", "1000e-1", " 100.0 "]),
        ("json", ["0", "-0", "0.0", "0e99999999999999999999", "-0.00e-7"]),
        ("json", ["1e" + "9" * 4000, "1e+0" + "9" * 4000]),
        ("json", ["9" * 5000, "9" * 5000 + ".0"]),
        ("json", ['{"b": [1, 2], "a": null}', '{"a":null,"b":[1.0,2e0]}', '{"a": 1, "b": [1, 2], "a": null}']),
        ("json", ['"ä"', '"\\u00e4"']),
        ("chat", ["18", "$18.00", "18 dollars", r"\frac{36}{2}", "18."]),
        ("chat", ["1000000", "1,000,000", "1 million", '"1000000"', "１００００００"]),
        ("chat", ["1/4", "¼", "0.25"]),
        ("chat", [r"\sqrt{8}", r"$2\sqrt{2}$", r"\(2 \sqrt 2\)"]),
        ("chat", ["x^2 + 1", "$1+x^2$"]),
        ("chat", ["Paris", "paris.", "**Paris**", " PARIS "]),
        ("chat", ['{"b": 1, "a": [2.0]}', '{"a":[2],"b":1e0}']),
        ("chat", ["A word. " * 3000, "a  word.\n" * 3000]),
    ],
)
def test_same_otherwise(shared: Reader, kind: AnswerKind, same: list[str]) -> None:
    assert len(set(keys(shared, kind, *same))) == 1


@pytest.mark.parametrize(
    ("kind", "different"),
    [
        (
            "json",
            ["1", '"1"', "true", '"true"', "null", "[]", "{}", '""', "[1]", "[[1]]", '{"1":1}', "10", "-1", "0.1"],
        ),
        ("json", ['"a"', '"A"', '"a "', '["a","b"]', '["b","a"]', '["ab"]', '{"a":"b"}', '{"b":"a"}']),
        (
            "json",
            ["9" * 5000, "9" * 4999 + "8", "9" * 5000 + ".1", "0.1", "0.1000000000000000055511151231257827", "1e1"],
        ),
        ("json", ['"\\ud800"', '"\\udfff"', '"\\\\ud800"', '"?"']),
        ("chat", ["2", "2.5", "two", "[2]", "{}", "2 or 3", '{"2": 2}', "B", "C", "C++", "C#"]),
        ("chat", ["x" * 20001, "x" * 20002, "x" * 20000 + "y"]),
    ],
)
def test_different_otherwise(shared: Reader, kind: AnswerKind, different: list[str]) -> None:
    given = keys(shared, kind, *different)
    assert None not in given
    assert len(set(given)) == len(different), sorted(zip(given, different, strict=True), key=str)


@pytest.mark.parametrize("answer", ["", "one", "{", "NaN", "{'a': 1}", "[" * 10**5])
def test_what_is_not_json_has_no_key(shared: Reader, answer: str) -> None:
    assert keys(shared, "json", answer) == [None]


def test_code_keeps_what_matters(shared: Reader) -> None:
    assert len(set(keys(shared, "code", "if a:\n  b()\nc()", "if a:\n  b()\n  c()", "x = '1'", "x = 1"))) == 4


def test_no_answer_has_no_key() -> None:
    async def work(reader: Reader) -> None:
        for kind in KINDS:
            assert await reader.key(kind, None) is None
            assert await reader.key(kind, "  ") is None
            assert await reader.key(kind, "9" * ((MAX_TEXT if kind in LONG else MAX_ANSWER) + 1)) is None
            assert not await reader.equal(kind, "1", None)

    with_reader(work)


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("18", "$18.00", True),
        ("18", "19", False),
        ("1/3", "0.3", False),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt3}", True),
        ("x=5", "5", True),
        ("5", "x=5", True),
        (r"1+2\sqrt{3}", "4.464102", True),  # graded, not by key
        ("40_9", "40_8", False),
        (r"\text{even}", "odd", False),
        ("2k+2", "2k+3", False),
    ],
)
def test_equal(shared: Reader, gold: str, answer: str, right: bool) -> None:
    assert asyncio.run(shared.equal("math", gold, answer)) is right


@pytest.mark.parametrize(
    ("kind", "gold", "answer", "right"),
    [
        ("json", '{"a": 1, "b": [2]}', '{"b":[2.0],"a":1e0}', True),
        ("json", '{"a": 1}', '{"a":"1"}', False),
        ("json", "Paris", '"Paris"', False),  # the gold answer is no JSON
        ("chat", "Paris", "paris", True),
        ("chat", "18", "$18.00", True),
        ("chat", "1/3", "0.333333", False),
        ("chat", r"1+2\sqrt{3}", "4.464102", True),  # as for math
        ("chat", r"\sqrt{2}", "Paris", False),
        ("chat", '{"a": 1}', '{"a": 1.0}', True),
        ("chat", "B", "C", False),
    ],
)
def test_equal_otherwise(shared: Reader, kind: AnswerKind, gold: str, answer: str, right: bool) -> None:
    assert asyncio.run(shared.equal(kind, gold, answer)) is right


def test_read_gives_answer_and_key() -> None:
    problem = Problem(id="p", messages=(Message(content="?"),), answer="choice", options=("A", "B"))
    assert with_reader(lambda reader: reader.read(problem, "The answer is (b).")) == ("B", "B")
    assert with_reader(lambda reader: reader.read(problem, "C")) == (None, None)


fractions = st.fractions(max_denominator=10**6)


def dresses(value: Fraction) -> list[str]:
    sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
    forms = [f"{sign}{top}/{bottom}", rf"{sign}\frac{{{top}}}{{{bottom}}}", rf"$\dfrac{{{sign}{top}}}{{{bottom}}}$"]
    forms += [f"x = {sign}{2 * top}/{2 * bottom}", f"{sign}{top:,}/{bottom}"]
    if bottom == 1:
        forms += [f"{sign}{top:,} dollars.", f"{sign}${top}.00", f"{sign}{top}e0", rf"{sign}{top}^\circ"]
    return forms


@settings(deadline=None)
@given(fractions)
def test_every_dress_of_a_fraction_has_its_value(value: Fraction) -> None:
    assert {plain_number(form) for form in dresses(value)} == {value}
    assert plain_number(str(value)) == value  # the key of a key is the key


@settings(deadline=None)
@given(fractions, fractions)
def test_keys_of_fractions_are_equal_only_if_they_are(one: Fraction, other: Fraction) -> None:
    pairs = {plain_number(a) == plain_number(b) for a in dresses(one) for b in dresses(other)}
    assert pairs == {one == other}


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_decimals_are_exact(value: Any) -> None:
    assert plain_number(str(value)) == plain_number(f"{value:,}") == Fraction(value)


@settings(deadline=None)
@given(st.text())
def test_text_key_is_idempotent(text: str) -> None:
    assert text_key(text_key(text)) == text_key(text)


# a number is a whole one times a power of ten; few of them, so that equal ones meet
numbers = st.builds(lambda whole, power: Decimal(whole).scaleb(power), st.integers(-12, 12), st.integers(-3, 3))
words = st.sampled_from(["", "1", "a", "true", "1e0"]) | st.text(max_size=3)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | st.integers().map(Decimal) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def spelled(value: Any, rng: random.Random) -> str:
    """The value as JSON, in one of many ways."""
    gap = rng.choice(["", " ", "\n\t"])
    if isinstance(value, Decimal):
        shift = rng.randrange(4)
        whole = int(Fraction(value) * 10 ** (3 + shift))
        return rng.choice([f"{whole}e-{3 + shift}", f"{whole}.00E-0{3 + shift}", f"{value:f}", f"{value:e}"])
    if isinstance(value, list):
        return f"[{gap}" + f"{gap},".join(spelled(one, rng) for one in value) + "]"
    if isinstance(value, dict):
        members = [f"{spelled(name, rng)}{gap}:{gap}{spelled(item, rng)}" for name, item in value.items()]
        rng.shuffle(members)
        return "{" + f",{gap}".join(members) + f"{gap}}}"
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


def meaning(value: Any) -> Any:
    """What makes two values equal, in Python's terms."""
    if isinstance(value, list):
        return ("list", *map(meaning, value))
    if isinstance(value, dict):
        return frozenset((name, meaning(item)) for name, item in value.items())
    return type(value), Fraction(value) if isinstance(value, Decimal) else value


def json_key(value: Any, rng: random.Random) -> str:
    answer = read("json", spelled(value, rng))
    assert answer is not None
    key = json_value(answer, canonical=True)
    assert key is not None
    return key


@settings(max_examples=500, deadline=None)
@given(values, values, st.randoms(use_true_random=False))
def test_keys_of_json_are_equal_only_if_the_values_are(one: Any, other: Any, rng: random.Random) -> None:
    assert (json_key(one, rng) == json_key(other, rng)) is (meaning(one) == meaning(other))


@settings(max_examples=300, deadline=None)
@given(values, st.randoms(use_true_random=False))
def test_the_key_of_json_does_not_depend_on_its_spelling(value: Any, rng: random.Random) -> None:
    key = json_key(value, rng)
    assert key == json_key(value, rng)
    assert json_value(key, canonical=True) == key
    if isinstance(value, list | dict):
        text = spelled(value, rng)
        assert chat_key(read("chat", text) or "") == key


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["Paris", " ", "\n", "5", '"', "¼", "[", "]", "B)"]) | st.text(max_size=5), max_size=20)
)
def test_the_key_of_a_reply_is_its_own_key(parts: list[str]) -> None:
    text = "".join(parts)
    answer = read("chat", text)
    assert (answer is None) is (not text.strip())
    if answer is not None:
        key = chat_key(answer)
        assert key is None or chat_key(key) in (key, None)  # None: as math


pieces = st.sampled_from([r"\boxed{", "}", "{", "####", "answer is", "$", "1/0", "(B)", "```python\n", "\n", "**", "A",
                          "[", "]", ":", '"', ",", "because", "</think>"])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces | st.text(max_size=5), max_size=30).map("".join))
def test_read_never_raises(text: str) -> None:
    for kind in KINDS:
        answer = read(kind, text)
        assert answer is None or (answer and len(answer) <= MAX_ANSWER)
        if answer is not None:
            plain_number(answer)


@pytest.mark.parametrize(
    "unit",
    [
        r"\boxed{", r"\boxed{}", "{", "}", "$", "(", "####", "answer is ", "answer is (", "1,111", "1", " .", "**",
        r"\(", r"\text{", "a ", "5 a", "```\n", "</think>", "\\", "####\t", "answer:  ", "[[((", "1/", "-", "9^", "[",
        '{"a":', '"', "[0,", "```json\n{}\n", "\n#### ", "answer:\n", "answer: B) ", "answer is Mr. ", "because ",
        "\u0301\u0323",
    ],
)  # fmt: skip
def test_a_million_characters_are_read_at_once(unit: str) -> None:
    text = unit * (10**6 // len(unit))
    for kind in KINDS:
        answer = read(kind, text)
        assert answer is None or len(answer) <= (MAX_TEXT if kind in LONG else MAX_ANSWER)
        if answer is not None and kind in LONG:
            chat_key(answer)
    for whole in (f"[{text[:199_000]}]", f'"{text[:199_000]}"'):
        for kind in LONG:
            json_value(read(kind, whole) or "", canonical=True)
        easy_key(text[:400])
        easy_key("5 " + text[:398])


@pytest.mark.parametrize(
    "hostile",
    ["9^9^9^9", "9" * 4000, "{" * 400, r"\sqrt{" * 60, r"\frac{" * 50, "((((((1))))))", "__import__('os').abort()",
     "\ud800", "\x00", "1e999", "1e-999", "1/0", "0/0", "3 1/0", r"\frac{0}{0}", "x" * 10**6, "-" * 300 + "1", "💥"],
)  # fmt: skip
def test_hostile_answers_have_some_key(shared: Reader, hostile: str) -> None:
    for kind in KINDS:
        if kind != "json":
            longest = MAX_TEXT if kind in LONG else MAX_ANSWER
            assert (keys(shared, kind, hostile) == [None]) is (len(hostile) > longest)
    assert not asyncio.run(shared.equal("math", "7", hostile))
    assert keys(shared, "math", rf"\ln {len(hostile) + 2}")  # the worker is there again


def test_what_no_computer_can_work_out_is_compared_as_text(shared: Reader) -> None:
    towers = ["9^{9^{9^{9}}}", r"\sqrt[3]{9^{9^{9^{9}}}}", r"e^{e^{e^{e^{9}}}}", r"\frac{1}{9^{9^{9^{9}}}}", "9999999!"]
    assert keys(shared, "math", *towers) == [*towers]
