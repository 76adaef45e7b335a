"""IneqMath: the released form of its files, the two forms of answers, and what is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outthink.answers.reader import Reader
from outthink.errors import UsageError
from outthink.tasks import grade, load
from outthink.tasks.example import Example
from tests.tools.virtual import run

CHOICES = [r"(A) $\leq$", r"(B) $\geq$", "(C) $=$", "(D) $<$", "(E) $>$", "(F) None of the above"]
BOUND: dict[str, Any] = {
    "data_id": "7",
    "problem": "Find the least $C$ such that $2xy \\leq C(x^2 + y^2)$ for all real $x, y$.",
    "type": "bound",
    "data_split": "dev",
    "answer": "$C = \\frac{\\sqrt{2}}{2}$",
    "solution": "Left out.",
    "theorems": {},
    "choices": None,
}
RELATION: dict[str, Any] = {
    "data_id": 7,
    "problem": "Let $a, b > 0$. Consider:\n$$a^2 + b^2 \\quad () \\quad 2ab$$\nOptions:\n" + "\n".join(CHOICES),
    "type": "relation",
    "data_split": "train",
    "answer": "(B) $\\geq$",
    "choices": CHOICES,
}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    """The file as it is released: one JSON list."""
    path.write_text(json.dumps(list(rows), indent=2))
    return path


def opened(tmp_path: Path, *rows: dict[str, Any]) -> list[Example]:
    return load("ineqmath", path=written(tmp_path / "dev.json", *rows))


def credits_of(example: Example, *texts: str) -> list[float | None]:
    """What each text earns; None where its answer is INVALID."""

    async def go() -> list[float | None]:
        reader = Reader()
        read = [await reader.read(example.problem, text) for text in texts]
        earned = [await grade(example, answer, reader) for answer, _ in read]
        await reader.close()
        return [None if answer is None else credit for (answer, _), credit in zip(read, earned, strict=True)]

    return run(go())


def test_reads_the_released_form(tmp_path: Path) -> None:
    by_id = {example.problem.id: example for example in opened(tmp_path, BOUND, RELATION)}
    bound, relation = by_id["dev-7"], by_id["train-7"]
    assert (bound.problem.answer, relation.problem.answer) == ("math", "choice")
    assert relation.problem.options == tuple("ABCDEF")
    assert relation.gold == ("B",)
    assert bound.problem.messages[0].text.endswith("The answer is $C=X$")
    assert relation.problem.messages[0].text.endswith("The answer is (Letter) Symbol")
    assert bound.meta["type"] == "bound"
    assert "(B) $\\geq$" in relation.problem.question


def test_a_bound_is_right_only_where_it_is_exactly_equal(tmp_path: Path) -> None:
    (bound,) = opened(tmp_path, BOUND)
    line = "So it holds.\nThe answer is ${}$."
    forms = [r"C=\frac{\sqrt{2}}{2}", r"C = \frac{1}{\sqrt{2}}", r"\sqrt{1/2}", "C=0.70710678118", "C=0.7071", "C=1"]
    assert credits_of(bound, *(line.format(form) for form in forms)) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    (half,) = opened(tmp_path, BOUND | {"answer": "$C = \\frac{1}{2}$"})
    assert credits_of(half, line.format("C=0.5"), line.format("C=0.50001")) == [1.0, 0.0]


NAMED = ["C = 2", "C=4/2", "2 = C", r"C = \sqrt{4} = 2", r"\mathbf{C}=2", "2", "C = 2.0"]
OTHERWISE = [
    "a=2",
    "k=2",
    "x = y = 2",
    "c=2",
    "C_1=2",
    r"\lambda=2",
    r"C=2\%",
    r"C = 2\text{ cm}",
    r"C=2^\circ",
    r"\$2",
]


def test_a_bound_is_right_only_under_its_name_and_without_a_unit(tmp_path: Path) -> None:
    (bound,) = opened(tmp_path, BOUND | {"answer": "$C = 2$"})
    line = "So it holds, with equality where $a = b$.\nThe answer is {}."
    assert credits_of(bound, *(line.format(f"${form}$") for form in NAMED)) == [1.0] * len(NAMED)
    assert credits_of(bound, *(line.format(f"${form}$") for form in OTHERWISE)) == [0.0] * len(OTHERWISE)
    prose = ["$C=2$ cents", "$C=2$ dollars", "2 degrees", "2", "$C = 2$ for all reals"]
    assert credits_of(bound, *map(line.format, prose)) == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_an_exact_answer_is_right_by_the_usual_rules_too(tmp_path: Path) -> None:
    """Whatever the usual grading refuses, exact grading refuses, too: it is never the looser one."""
    gold = r"$C = \frac{\sqrt{2}}{2}$"
    answers = [*NAMED, *OTHERWISE, r"C=\frac{1}{\sqrt2}", r"a=\frac{1}{\sqrt{2}}", "C=0.7071", r"\frac{1}{\sqrt2}\%"]

    async def go() -> list[tuple[bool, bool]]:
        reader = Reader()
        pairs = [(right, answer) for right in (gold, "$C = 2$", "2", "2 cm") for answer in answers]
        told = [(await reader.same("math", *pair), await reader.equal("math", *pair)) for pair in pairs]
        await reader.close()
        return told

    told = run(go())
    assert not [pair for pair in told if pair == (True, False)]
    assert {(True, True), (False, True), (False, False)} == {*told}


def test_the_last_mark_counts_and_what_is_not_marked_is_invalid(tmp_path: Path) -> None:
    (relation,) = opened(tmp_path, RELATION)
    assert credits_of(
        relation,
        "The answer is (A) $\\leq$.\nNo: equality can hold the other way.\nThe answer is (B) $\\geq$",
        "As $x = 1$ shows, the answer is (B) $\\geq$.",  # any equals sign in it is no option C
        "The answer is (C) $=$",
        "Hence B, since $a = b$ gives equality",
        "It is at least as large.",
    ) == [1.0, 1.0, 0.0, None, None]
    (bound,) = opened(tmp_path, BOUND | {"answer": "$C = 2$"})
    assert credits_of(
        bound, "With $x=1$, the answer is $C=2$.", "The answer is $C=1$. Wait.\nThe answer is $C=2$", "We get 2", "2"
    ) == [1.0, 1.0, None, None]


def test_unreadable_relations_earn_nothing(tmp_path: Path) -> None:
    (relation,) = opened(tmp_path, RELATION)
    texts = ["The answer is (B) $\\geq$"] * 9 + ["It depends."]
    earned = sum(credit or 0.0 for credit in credits_of(relation, *texts)) / len(texts)
    assert earned == 0.9
    by_chance = 0.1 / len(CHOICES)  # what filling in a random option would add
    assert 100 * by_chance == pytest.approx(1.67, abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "proof"}, "line 2: the type is 'proof', and a problem of IneqMath is a 'bound' or a 'relation'"),
        ({"answer": ""}, "those of the split test are not public"),
        ({"answer": None}, "those of the split test are not public"),
        ({"problem": " "}, "the field 'problem' is missing"),
        ({"type": "relation"}, "is no option with a letter"),
        ({"type": ["bound"]}, r"line 2: the type is \['bound'\], and a problem of IneqMath"),
        (RELATION | {"choices": 5}, "line 2: the field 'choices' is not a list of options"),
        (RELATION | {"choices": "ABC"}, "line 2: the field 'choices' is not a list of options"),
        (RELATION | {"answer": "(G) x"}, "line 2: the answer 'G' is none of the choices A, B, C, D, E, F: correct one"),
        (RELATION | {"choices": None, "answer": "(G) x"}, "line 2: the answer 'G' is none of the choices A, B, C, D"),
        (RELATION | {"choices": ["(A) x", "(A) y"]}, "line 2: two choices have the letter 'A': give each its own"),
        (RELATION | {"choices": ["(A) x", "(C) y"]}, "line 2: the answer 'B' is none of the choices A, C"),
        ({"data_id": [7]}, "line 2: the field 'data_id' is neither a text nor a whole number"),
    ],
)
def test_says_what_is_wrong_with_a_row(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        opened(tmp_path, BOUND | change)


def test_without_a_file_it_says_where_to_get_what_has_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OUTTHINK_DATA", raising=False)
    monkeypatch.setattr("outthink.tasks.hub.cached", lambda *_: None)
    with pytest.raises(UsageError, match=r"the data set AI4Math/IneqMath as dev\.jsonl or dev\.json and give it"):
        load("ineqmath")
    (tmp_path / "ineqmath").mkdir()
    written(tmp_path / "ineqmath" / "dev.json", BOUND)
    monkeypatch.setenv("OUTTHINK_DATA", str(tmp_path))
    assert [example.problem.id for example in load("ineqmath")] == ["dev-7"], "the file as it is said to be put there"
