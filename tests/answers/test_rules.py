"""By which rule an answer is read, and that a vote and a grade read the same replies alike."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers.canonical import chat_key, easy_key, judged
from outthink.answers.reading import read, read_by
from outthink.answers.thoughts import spoken
from outthink.types import AnswerKind
from tests.answers.test_answers import KINDS


@pytest.mark.parametrize(
    ("kind", "text", "answer", "rule"),
    [
        ("math", r"So \boxed{4}.", "4", "box"),
        ("math", "9 + 9\n#### 18", "18", "mark"),
        ("math", "The answer is 18.", "18", "mark"),
        ("math", "<answer>18</answer>", "18", "mark"),
        ("math", "It comes to **18** in all.", "18", "bold"),
        ("math", "It comes to 18 in all.", "18", "last"),
        ("math", "I do not know.", None, "last"),
        ("choice", r"\boxed{B}", "B", "box"),
        ("choice", "Answer: (b)", "B", "mark"),
        ("choice", "I choose B.", "B", "mark"),
        ("choice", "b. Paris", "B", "label"),
        ("choice", "none of them", None, "label"),
        ("text", r"\boxed{Rome}", "Rome", "box"),
        ("text", "Answer: Rome", "Rome", "mark"),
        ("text", "I think\nRome", "Rome", "line"),
        ("code", "```python\nx = 1\n```", "x = 1", "code"),
        ("json", "[1, 2]", "[1,2]", "json"),
        ("chat", '{"a": 1}', '{"a":1}', "json"),
        ("chat", r"\boxed{7}", "7", "box"),
        ("chat", "The answer is Rome.", "Rome", "mark"),
        ("chat", "17 times 23 makes **391**, I think.", "391", "bold"),
        ("chat", "17 times 23 is 391.", "17 times 23 is 391.", "whole"),
        ("chat", "Hello there!", "Hello there!", "whole"),
    ],
)
def test_the_rule_is_said(kind: AnswerKind, text: str, answer: str | None, rule: str) -> None:
    assert read_by(kind, text) == (answer, rule)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([r"\boxed{", "}", "#### ", "answer is ", "**7**", "B", "8", "\n", "<think>"]), max_size=12)
)
def test_read_is_read_by(parts: list[str]) -> None:
    for kind in KINDS:
        assert read(kind, "".join(parts)) == read_by(kind, "".join(parts))[0]


PROSE = (
    "17 times 23 is {n}.",
    "17 × 23 = {n}",
    "17 × 23 = **{n}**",
    "The product of 17 and 23 is **{n}**.\n\nLet me know if you want to see how it is done.",
    "We have 17 * 20 = 340 and 17 * 3 = 51.\n\nSo the product is **{n}**.",
    "The answer is {n}.",
    "**Answer:** {n}",
    "I add 340 and 51. The final answer is **{n}**, as asked.",
    r"So 17 times 23 is \boxed{{{n}}}.",
    "17 * 20 = 340, 17 * 3 = 51\n#### {n}",
    "{n}",
    "The answer is approximately {n}.",
    "The answer is {n} because 17 * 23 = {n}.",
    "I thought the answer is 400, but the answer is {n}.",
    "<think>is the answer 400?</think>17 times 23 is {n}.",
)


def key(kind: AnswerKind, text: str) -> str | None:
    answer = read(kind, text)
    assert answer is not None
    return chat_key(answer) if kind == "chat" else easy_key(answer)


def test_a_vote_of_a_chat_and_a_grade_read_replies_alike() -> None:
    replies = [form.format(n=n) for n in (391, 392, 1391) for form in PROSE]
    for one in replies:
        assert key("chat", one) == key("math", one), one
    numbers = {form.format(n=n): str(n) for n in (391, 392, 1391) for form in PROSE}
    assert {reply: key("chat", reply) for reply in replies} == numbers


def test_what_a_vote_of_a_chat_chooses_is_right_where_most_replies_are() -> None:
    replies = [form.format(n=391 if place % 3 else 401 + place) for place, form in enumerate(PROSE)]
    votes = Counter(key("chat", reply) for reply in replies)
    ((chosen, count),) = votes.most_common(1)
    graded = [judged("math", "391", read("math", one) or "", "391", key("math", one) or "") for one in replies]
    assert chosen == "391"
    assert count == sum(verdict is True for verdict in graded) == 10
    assert [key("chat", reply) == chosen for reply in replies] == graded


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a</think>b</think>", "b"),
        ("b</think>", "b"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("a <thought>b</thought>c [think]d[/think]e", "a c e"),
        ("<think>a", "<think>a"),
        ("<think>a</think>b<think>c", "b"),
        ("x < y and [a] > b", "x < y and [a] > b"),
        ("<|channel|>final<|message|>a<|return|>", "a"),
        ("<|channel|>analysis<|message|>a<|end|>", ""),
    ],
)
def test_thoughts_are_left_out(text: str, said: str) -> None:
    assert spoken(text) == said
