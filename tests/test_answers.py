"""Reading, keys and grading: what models write, what must not hang, and what must stay apart."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import answers
from outthink.answers import MAX_ANSWER, Reader, plain_number, read, text_key
from outthink.types import AnswerKind, Message, Problem

KINDS: tuple[AnswerKind, ...] = ("math", "choice", "text", "code")


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
    found = keys(shared, "math", *different)
    assert None not in found
    assert len(set(found)) == len(different), sorted(zip(found, different, strict=True), key=str)


@pytest.mark.parametrize(
    ("kind", "same"),
    [
        ("choice", ["b", "B", "(B)", " B "]),
        ("text", ["Mother-in-Law", "mother-in-law.", ' "mother-in-law" ', "ｍother-in-law", "mother-in-law\n"]),
        ("code", ["x=1 # one", "x = 1", "x   = (1)"]),
        ("code", ["def f(:", "def f(:\n"]),
    ],
)
def test_same_otherwise(shared: Reader, kind: AnswerKind, same: list[str]) -> None:
    assert len(set(keys(shared, kind, *same))) == 1


def test_code_keeps_what_matters(shared: Reader) -> None:
    assert len(set(keys(shared, "code", "if a:\n  b()\nc()", "if a:\n  b()\n  c()", "x = '1'", "x = 1"))) == 4


def test_no_answer_has_no_key() -> None:
    async def work(reader: Reader) -> None:
        for kind in KINDS:
            assert await reader.key(kind, None) is None
            assert await reader.key(kind, "  ") is None
            assert await reader.key(kind, "9" * (MAX_ANSWER + 1)) is None
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
        (r"1+2\sqrt{3}", "4.464102", True),  # only math-verify accepts six decimal places, the key does not
        ("40_9", "40_8", False),
        (r"\text{even}", "odd", False),
        ("2k+2", "2k+3", False),
    ],
)
def test_equal(shared: Reader, gold: str, answer: str, right: bool) -> None:
    assert asyncio.run(shared.equal("math", gold, answer)) is right


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


@given(fractions)
def test_every_dress_of_a_fraction_has_its_value(value: Fraction) -> None:
    assert {plain_number(form) for form in dresses(value)} == {value}
    assert plain_number(str(value)) == value  # the key of a key is the key


@given(fractions, fractions)
def test_keys_of_fractions_are_equal_only_if_they_are(one: Fraction, other: Fraction) -> None:
    pairs = {plain_number(a) == plain_number(b) for a in dresses(one) for b in dresses(other)}
    assert pairs == {one == other}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_decimals_are_exact(value: Any) -> None:
    assert plain_number(str(value)) == plain_number(f"{value:,}") == Fraction(value)


@given(st.text())
def test_text_key_is_idempotent(text: str) -> None:
    assert text_key(text_key(text)) == text_key(text)


pieces = st.sampled_from([r"\boxed{", "}", "{", "####", "answer is", "$", "1/0", "(B)", "```python\n", "\n", "**", "A"])


@settings(max_examples=300)
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
        r"\(", r"\text{", "a ", "5 a", "```\n", "</think>", "\\", "####\t", "answer:  ", "[[((", "1/", "-", "9^",
    ],
)  # fmt: skip
def test_a_million_characters_are_read_at_once(unit: str) -> None:
    text = unit * (10**6 // len(unit))
    for kind in KINDS:
        answer = read(kind, text)
        assert answer is None or len(answer) <= MAX_ANSWER
        answers._easy_key(text[:400])
        answers._easy_key("5 " + text[:398])


@pytest.mark.parametrize(
    "hostile",
    ["9^9^9^9", "9" * 4000, "{" * 400, r"\sqrt{" * 60, r"\frac{" * 50, "((((((1))))))", "__import__('os').abort()",
     "\ud800", "\x00", "1e999", "1e-999", "1/0", "0/0", "3 1/0", r"\frac{0}{0}", "x" * 10**6, "-" * 300 + "1", "💥"],
)  # fmt: skip
def test_hostile_answers_have_some_key(shared: Reader, hostile: str) -> None:
    for kind in KINDS:
        assert (keys(shared, kind, hostile) == [None]) is (len(hostile) > MAX_ANSWER)
    assert not asyncio.run(shared.equal("math", "7", hostile))
    assert keys(shared, "math", rf"\sqrt{{{len(hostile)}}}")  # the worker is there again


def test_a_late_worker_is_killed_and_replaced() -> None:
    async def work(reader: Reader) -> None:
        assert await reader.key("math", r"\sqrt{9}") == "3"
        first = reader._worker._process
        assert first is not None
        assert await reader.key("math", "9^{9^{9^{9}}}") == "9^{9^{9^{9}}}"
        assert first.returncode is not None
        assert not await reader.equal("math", r"\sqrt{2}", r"\sqrt[3]{9^{9^{9^{9}}}}")
        assert await reader.key("math", r"\sqrt{16}") == "4"
        before = time.monotonic()
        assert await reader.key("math", "9^{9^{9^{9}}}") == "9^{9^{9^{9}}}"  # remembered
        assert time.monotonic() - before < 0.5

    with_reader(work, timeout=0.5)


def test_a_dead_worker_is_replaced() -> None:
    async def work(reader: Reader) -> None:
        assert await reader.key("math", r"\sqrt{9}") == "3"
        assert reader._worker._process is not None
        reader._worker._process.kill()
        assert await reader.key("math", r"\sqrt{25}") == "5"

    with_reader(work)


def test_many_tasks_share_one_worker() -> None:
    async def work(reader: Reader) -> None:
        found = await asyncio.gather(*(reader.key("math", rf"\sqrt{{{(i % 20) ** 2}}}") for i in range(400)))
        assert found == [str(i % 20) for i in range(400)]

    with_reader(work)


def test_several_event_loops_and_reuse_after_close() -> None:
    reader = Reader()
    assert asyncio.run(reader.key("math", r"\sqrt{9}")) == "3"
    assert asyncio.run(reader.key("math", r"\sqrt{16}")) == "4"
    asyncio.run(reader.close())
    asyncio.run(reader.close())
    assert asyncio.run(reader.key("math", r"\sqrt{25}")) == "5"
    asyncio.run(reader.close())


def test_a_forgotten_reader_ends_its_worker() -> None:
    reader = Reader()
    asyncio.run(reader.key("math", r"\sqrt{9}"))
    process = reader._worker._process
    assert process is not None
    del reader
    process.wait(30)


def test_python_ends_although_nobody_closed_the_reader() -> None:
    script = (
        "import asyncio, outthink.answers as a; r = a.Reader(); print(asyncio.run(r.key('math', r'\\sqrt{9}')));"
        "print(r._worker._process.pid)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    key, pid = done.stdout.split()
    assert key == "3"
    assert done.stderr == ""
    if sys.platform != "win32":
        listing = subprocess.run(["ps", "-p", pid, "-o", "args="], capture_output=True, text=True, check=False)
        assert "outthink" not in listing.stdout


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "CACHE_SIZE", 3)

    async def work(reader: Reader) -> None:
        for i in range(6):
            await reader.key("math", rf"\sqrt{{{i}}}")
        assert len(reader._cache) == 3

    with_reader(work)


def test_importing_answers_is_light() -> None:
    script = "import sys, outthink.answers; print([m for m in ('sympy', 'math_verify', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.strip() == "[]"


def test_no_thread_is_left_waiting() -> None:
    with_reader(lambda reader: reader.key("math", r"\sqrt{9}"))
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
