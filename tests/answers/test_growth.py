"""Reading and keys take time in proportion to the text, whatever it is made of."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from outthink.answers.canonical import MAX_ANSWER, chat_key, choice_key, cleaned_math, easy_key, plain_text_key
from outthink.answers.literals import json_value
from outthink.answers.reading import MAX_TEXT, read
from outthink.types import AnswerKind

UNITS = [
    "*", "_", "(", "[", "{", "}", "$", "\\", "**", "**1** ", "1 ", "1,", "1,000 ", "1 000 ", "1 1/", "1:", "12:30 ",
    "9^", ".", " ", "\n", "\t", "-", "=", "'", '"', "'a', ", "(1, ", "[0, ", '{"a":', "~", "`", "<", "|", "&",
    "\ufdfa", "½", "１", "٣", "\u00a0", "\u0305", "1\u0305", "\u0301\u0323", r"\boxed{", r"\boxed{}", r"\boxed{1}, ",
    r"\boxed 1", r"\\boxed{", r"\frac", r"\frac{1}{2}", r"\text{", r"\text{a}", r"\overline{3}", "####", "#### ",
    "\n#### ", "answer is ", "answer: ", "answer:\n", "answer", "Answer\n", "not ", "not A ", "A ", "A is ", "A, ",
    "I choose ", "option ", "because ", "is 5 ", "minus ", "5 hours ", "5 kg ", "a ", "<think>", "</think>",
    "<think></think>", "<answer>", "\nQuestion: ", "<|im_end|>", "```\n", "<|channel|>analysis<|message|>",
    "<|channel|>final<|message|>", "x^2+", "sin ", "()", "^{", "_1",
]  # fmt: skip


KEYS: dict[AnswerKind, Callable[[str], object]] = {
    "math": easy_key,
    "choice": choice_key,
    "text": plain_text_key,
    "chat": chat_key,
    "json": lambda answer: json_value(answer, canonical=True),
}


def work(unit: str, size: int) -> None:
    """All that is done with a text of this size, and with its answer."""
    text = unit * (size // len(unit))
    for whole in (text, rf"\boxed{{{text}}}", f"The answer is {text}"):
        for kind, key in KEYS.items():
            answer = read(kind, whole)
            if answer is not None:
                key(answer)
    cleaned_math(text)


def seconds(unit: str, size: int, times: int) -> float:
    easy_key.cache_clear()
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        work(unit, size)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("part", range(6))
def test_time_grows_with_the_text_and_no_faster(part: int) -> None:
    """Four times as long takes about four times the time, and never eleven times, where it takes any time at all."""
    for unit in UNITS[part::6]:
        small, large = seconds(unit, 4_500, 2), seconds(unit, 18_000, 2)
        if large > 0.1:
            assert large < 11 * small, unit


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" + "*" * 19_000 + "}",
        r"\boxed{" + "_" * 19_000 + "}",
        r"\boxed{" + "(" * 19_000 + "}",
        r"\boxed{" + "[" * 19_000 + "}",
        "\ufdfa" * 196_000,
        "\ufdfa" * MAX_ANSWER,
        "[" + ",".join(map(str, range(99_000))) + "]",
        "[" + ",".join(["1.5"] * 49_000) + "]",
    ],
    ids=lambda text: f"{text[:8]}{len(text)}",
)
def test_long_answers_are_read_at_once(text: str) -> None:
    """What took up to half a minute. No clock: what is quadratic in any of these would take longer than a test may."""
    for kind, key in KEYS.items():
        answer = read(kind, text)
        assert answer is None or len(answer) <= MAX_TEXT
        if answer is not None:
            key(answer)
