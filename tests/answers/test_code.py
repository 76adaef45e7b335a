"""Code is found in replies of every form: each reply is graded in the sandbox, as a row of one's own would be."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from outthink.answers.code import asked_names, blocks, read_code
from outthink.answers.reader import Reader
from outthink.answers.reading import read
from outthink.sandbox.host import Limits, Sandbox
from outthink.tasks import load
from outthink.tasks.grading import grade
from outthink.types import Code, Message, Problem
from tests.tools.sandboxed import needs_sandbox

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("OUTTHINK_SHARED", HERE.parents[2] / "shared"))
OWN = sorted((HERE / "data_code").glob("*.jsonl"))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def credits(cases: list[dict[str, Any]], folder: Path) -> list[tuple[int, float, str | None]]:
    """Number, credit and what was read of each case whose credit is not what it should be."""

    async def go() -> list[tuple[int, float, str | None]]:
        reader, sandbox = Reader(), Sandbox(Limits(seconds=20), workers=2)
        wrong = []
        try:
            for number, case in enumerate(cases, 1):
                path = folder / f"{number}.jsonl"
                path.write_text(json.dumps(case["row"]) + "\n", encoding="utf-8")
                (example,) = load(str(path))
                answer, _ = await reader.read(example.problem, case["text"])
                credit = await grade(example, answer, reader, sandbox)
                if credit != case["should_be"]:
                    wrong.append((number, credit, answer))
        finally:
            await sandbox.close()
            await reader.close()
        return wrong

    return asyncio.run(go())


@needs_sandbox
@pytest.mark.parametrize("path", OWN, ids=[path.stem for path in OWN])
def test_replies_of_every_form_get_their_credit(path: Path, tmp_path: Path) -> None:
    cases = rows(path)
    assert len(cases) >= 5
    assert credits(cases, tmp_path) == []


@needs_sandbox
def test_replies_from_the_field_get_their_credit(tmp_path: Path) -> None:
    path = SHARED / "field" / "code.jsonl"
    if not path.exists():
        pytest.skip("the field cases are not here")
    cases = rows(path)
    assert len(cases) >= 30
    assert credits(cases, tmp_path) == []


def test_every_kind_has_cases() -> None:
    assert [path.stem for path in OWN] == [f"c{number}" for number in range(1, 9)]


def test_what_is_asked_for() -> None:
    def problem(question: str = "Write it.", **code: Any) -> Problem:
        return Problem(id="p", messages=(Message(content=question),), answer="code", code=Code(**code))

    assert asked_names(problem(entry_point="f", tests=("assert g(1)",))) == ("f",)
    assert asked_names(problem(tests=("assert sorted(g(1)) == h(2)",))) == ("g", "h")
    assert asked_names(problem(prelude="def help(): ...\ndef main_one(x):\n")) == ("main_one",)
    assert asked_names(problem("Write add(a, b) and `sub`.")) == ("add", "sub")
    assert asked_names(problem()) == ()


def test_the_block_that_defines_what_is_asked_for_is_taken() -> None:
    text = "```python\ndef one(): return 1\n```\n```python\ndef two(): return 2\n```\n"
    assert read("code", text, asked=["one"]) == "def one(): return 1"
    assert read("code", text, asked=["two"]) == "def two(): return 2"
    assert read("code", text, asked=["three"]) == "def two(): return 2"
    assert read("code", text, asked=["one", "two"]) == "def one(): return 1\n\ndef two(): return 2"


def test_only_what_is_needed_is_taken_from_other_blocks() -> None:
    text = "```python\nimport math\nimport json\ndef a(): pass\ndef b(): return a()\n```\n"
    text += "```python\ndef c(x):\n    return math.pi * x\n```\n"
    assert read("code", text, asked=["c"]) == "import math\n\ndef c(x):\n    return math.pi * x"


def test_blocks_and_their_languages() -> None:
    text = "```json\n{}\n```\n~~~ Python3 title=x\na = 1\n~~~\n```\nb\n```\n"
    assert [(block.language, block.content) for block in blocks(text)] == [
        ("json", "{}"),
        ("python", "a = 1"),
        ("", "b"),
    ]


UNITS = [
    "```\n",
    "```python\ndef f(): return g()\n```\n", "```python\n", "> ", " ", '```python\n"""\n```\n', "`", "~~~\n",
    "</think>", "```python\n</think>", "def f(): return f()\n", "```python\n((((", "a,", "a = ", "lambda ", "\\", "'\"",
    "for ", "import a,", ">>> x\n", "[PYTHON]", "@a\n", "1. - ", "    return\n", '"""\n', "f(", "> ```\n",
    "````\n```\n", "as ", "a[", ": ", "def f(", "``` a", "\n", "'</think>",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("before", ["", "```python\n"])
def test_hostile_texts_are_read_in_linear_time(unit: str, before: str) -> None:
    def seconds(size: int) -> float:
        text = before + unit * (size // len(unit))
        best = float("inf")
        for _ in range(2):
            started = time.process_time()
            read_code(text, ("f", "a"))
            best = min(best, time.process_time() - started)
        return best

    # a quadratic one takes 64 times as long, a linear one 8 times; processor time, and a margin that hides noise
    assert seconds(64_000) < 40 * max(seconds(8_000), 0.002)
