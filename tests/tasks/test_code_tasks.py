"""Tasks whose answers are code: what is read, what a strategy may see, and grading in a real sandbox."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outthink.answers.reader import Reader
from outthink.bench.pool import record_pool
from outthink.bench.run import bench
from outthink.errors import MissingResource, UsageError
from outthink.models.scripted import ScriptedEngine
from outthink.sandbox.host import Sandbox
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.tasks import load
from outthink.tasks.example import Example
from outthink.tasks.grading import grade
from outthink.tasks.humaneval import docstring_tests
from outthink.tasks.mbpp import _called
from tests.tools.sandboxed import needs_sandbox

DATA = Path(os.environ.get("OUTTHINK_DATA", "the folder of benchmark files is not named"))

PROMPT = '''import math


def half(x):
    return x / 2


def area(radius: float) -> float:
    """ The area of half a disc.
    >>> area(0)
    0.0
    >>> round(area(2), 3)
    6.283
    """
'''
HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": PROMPT,
    "entry_point": "area",
    "canonical_solution": "    return half(math.pi * radius**2)\n",
    "test": "def check(candidate):\n    assert candidate(0) == 0\n    assert abs(candidate(2) - 2 * math.pi) < 1e-9\n",
}
MBPP = {
    "task_id": 901,
    "text": "Write a function to double the value of a box.",
    "code": "class Box:\r\n    def __init__(self, v):\r\n        self.v = v\r\ndef twice(box):\r\n    return 2 * box.v",
    "test_setup_code": "one = Box(1)",
    "test_list": ["assert twice(one) == 2", "assert twice(Box(3)) == 6"],
    "challenge_test_list": ["assert twice(Box(0)) == 0"],
}


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUTTHINK_DATA", raising=False)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def flat(test: str) -> str:
    return test.replace("\n", "")


def graded(pairs: list[tuple[Example, str | None]]) -> list[float]:
    async def go() -> list[float]:
        reader, sandbox = Reader(), Sandbox(workers=2)
        try:
            return [await grade(example, answer, reader, sandbox) for example, answer in pairs]
        finally:
            await sandbox.close()
            await reader.close()

    return asyncio.run(go())


@pytest.mark.parametrize("shared", [False, True])
def test_humaneval_is_read_in_both_forms(shared: bool, tmp_path: Path) -> None:
    own = {"id": "HumanEval/900", "question": PROMPT, "answer": HUMANEVAL["canonical_solution"], "meta": HUMANEVAL}
    (example,) = load("humaneval", path=write(tmp_path / "test.jsonl", own if shared else HUMANEVAL))
    problem = example.problem
    assert (problem.id, problem.answer, problem.code.entry_point) == ("HumanEval/900", "code", "area")
    assert problem.code.prelude == PROMPT
    assert [flat(test) for test in problem.code.tests] == [
        "assert (area(0)) == (0.0)",
        "assert (round(area(2), 3)) == (6.283)",
    ]
    assert PROMPT.rstrip() in problem.messages[0].text
    assert example.tests.endswith("check(area)")
    seen = repr(problem)
    assert "candidate" not in seen  # the hidden tests
    assert "half(math.pi" not in seen  # the solution


def test_mbpp_shows_its_first_assertion_only(tmp_path: Path) -> None:
    (example,) = load("mbpp", path=write(tmp_path / "test.jsonl", MBPP))
    problem = example.problem
    assert (problem.id, problem.answer, problem.code.entry_point) == ("mbpp-901", "code", "twice")
    assert problem.code.tests == ("one = Box(1)\nassert twice(one) == 2",)
    assert "assert twice(one) == 2" in problem.messages[0].text
    assert "Box(3)" not in repr(problem)
    assert "Box(3)" in example.tests
    assert "Box(0)" in example.tests
    assert "\r" not in example.gold[0]


@pytest.mark.parametrize("setup", [None, "", "one = 1\r\n"])
def test_sanitized_mbpp_is_read(setup: str | None, tmp_path: Path) -> None:
    row = {**MBPP, "prompt": MBPP["text"], "test_imports": ["import math", "import re"], "test_setup_code": setup}
    del row["text"], row["challenge_test_list"]
    (example,) = load("mbpp", path=write(tmp_path / "test.jsonl", row))
    assert example.problem.question.startswith("Write a function to double")
    assert example.tests.startswith("import math\nimport re\n")
    assert example.problem.code.tests[0].startswith("import math\nimport re\n")
    assert "\r" not in example.tests
    with pytest.raises(UsageError, match="line 1: the field 'test_imports'"):
        load("mbpp", path=write(tmp_path / "test.jsonl", {**row, "test_imports": "import math"}))


@needs_sandbox
def test_the_sanitized_form_of_mbpp_is_read_and_its_imports_run(tmp_path: Path) -> None:
    row = {
        "source_file": "x",
        "task_id": 2,
        "prompt": "Write f.",
        "code": "def f():\n    return 1",
        "test_imports": ["import math", "from math import tau"],
        "test_list": ["assert f() == 1", "assert math.floor(tau) == 6 * f()"],
    }
    (example,) = load("mbpp", path=write(tmp_path / "test.jsonl", row))
    assert example.problem.question.startswith("Write f.")
    assert example.problem.code.tests == ("import math\nfrom math import tau\nassert f() == 1",)
    assert graded([(example, example.gold[0]), (example, "def f():\n    return 2")]) == [1.0, 0.0]
    with pytest.raises(UsageError, match="line 1: the field 'test_imports'"):
        load("mbpp", path=write(tmp_path / "test.jsonl", {**row, "test_imports": "import math"}))


@needs_sandbox
def test_solutions_pass_and_what_is_wrong_fails(tmp_path: Path) -> None:
    (humaneval,) = load("humaneval", path=write(tmp_path / "h.jsonl", HUMANEVAL))
    (mbpp,) = load("mbpp", path=write(tmp_path / "m.jsonl", MBPP))
    whole = "import math\ndef area(radius):\n    return math.pi * radius**2 / 2"
    uses_prelude = "def area(radius):\n    return half(math.pi * radius ** 2)"
    right = [(humaneval, humaneval.gold[0]), (humaneval, whole), (humaneval, uses_prelude), (mbpp, mbpp.gold[0])]
    body = str(HUMANEVAL["canonical_solution"])
    right.append((humaneval, body))
    wrong: list[tuple[Example, str | None]] = [
        (humaneval, None),
        (humaneval, "def area(radius):\n    return 0"),
        (humaneval, "def area(radius)"),
        (humaneval, "import sys\nsys.exit(0)"),
        (humaneval, "import os\nos._exit(0)"),
        (humaneval, "def other(radius):\n    return 1"),
        (mbpp, "def twice(box):\n    return 2"),
    ]
    assert graded([*right, *wrong]) == [1.0] * len(right) + [0.0] * len(wrong)


@needs_sandbox
@pytest.mark.parametrize(("task", "rows"), [("humaneval", 87), ("mbpp", 304)])
@pytest.mark.timeout(300)
def test_every_canonical_solution_passes_its_tests(task: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (DATA / task / "test.jsonl").exists():
        pytest.skip("the benchmark files are not here; OUTTHINK_DATA names their folder")
    monkeypatch.setenv("OUTTHINK_DATA", str(DATA))
    examples = load(task)
    assert len(examples) == rows
    assert graded([(example, example.gold[0]) for example in examples]) == [1.0] * rows
    assert all(example.problem.code.entry_point in example.gold[0] for example in examples)


def test_examples_of_a_docstring() -> None:
    def source(docstring: str) -> str:
        return f'def g():\n    """>>> g()\n    0\n    """\ndef f(x):\n    """{docstring}"""\n'

    lines = (">>> f(1)", "2", ">>> g()", ">>> x = 3", ">>> f('a') # so", "'b'", ">>> f(2) == 3", "True", "")
    shown = docstring_tests(source("\n    ".join(lines)), "f")
    assert [flat(test) for test in shown] == [
        "assert (f(1)) == (2)",
        "assert (f('a') # so) == ('b')",
        "assert (f(2) == 3) == (True)",
    ]
    assert all(compile(test, "test", "exec") for test in shown)
    assert docstring_tests(source("f(1) => 2"), "f") == ()
    assert docstring_tests(source(">>>f(1)\n    2\n"), "f") == ()  # doctest refuses it
    assert docstring_tests("def f(", "f") == ()


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("assert f(1) == 2", "f"),
        ("assert set(f(1)) == set([2])", "f"),
        ("assert round(f(1), 2) == round(g(2), 2)", "f"),
        ("assert sum(10, 15) == 6", "sum"),
        ("assert 1 == 1", ""),
        ("assert (", ""),
    ],
)
def test_the_function_that_an_assertion_calls(test: str, name: str) -> None:
    assert _called(test) == name


@pytest.mark.parametrize(
    ("task", "row", "said"),
    [
        ("humaneval", {**HUMANEVAL, "test": " "}, "line 1: the field 'test'"),
        ("humaneval", {"prompt": "x"}, "line 1: the field 'entry_point'"),
        ("mbpp", {**MBPP, "test_list": []}, "line 1: the field 'test_list'"),
        ("mbpp", {**MBPP, "test_list": [1]}, "line 1: the field 'test_list'"),
        ("mbpp", {**MBPP, "text": None}, "line 1: the field 'text'"),
    ],
)
def test_a_damaged_row_is_named(task: str, row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        load(task, path=write(tmp_path / "test.jsonl", row))


def test_code_of_your_own(tmp_path: Path) -> None:
    row = {"question": "Write f.", "tests": ["assert f(1) == 2", "assert f(2) == 3"], "prelude": "import math"}
    (example,) = load(str(write(tmp_path / "own.jsonl", {**row, "public_tests": "assert f(1) == 2"})))
    assert (example.problem.answer, example.gold) == ("code", ())
    assert example.tests == "assert f(1) == 2\nassert f(2) == 3"
    assert example.problem.code.prelude == "import math"
    assert example.problem.code.tests == ("assert f(1) == 2",)
    with pytest.raises(UsageError, match="the field 'tests' is neither"):
        load(str(write(tmp_path / "own.jsonl", {**row, "tests": 3})))
    with pytest.raises(UsageError, match="the field 'answer' is missing"):
        load(str(write(tmp_path / "own.jsonl", {"question": "Write f."})))


def test_grading_code_without_a_sandbox_is_refused(tmp_path: Path) -> None:
    (example,) = load("humaneval", path=write(tmp_path / "h.jsonl", HUMANEVAL))
    with pytest.raises(UsageError, match="give a sandbox"):
        asyncio.run(grade(example, "x = 1", Reader()))


def without_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Sandbox, *_: object, **__: object) -> None:
        raise MissingResource("Running code needs bubblewrap.")

    monkeypatch.setattr(Sandbox, "__init__", refuse)


def test_nothing_is_sampled_where_nothing_can_be_graded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_sandbox(monkeypatch)
    examples = load("humaneval", path=write(tmp_path / "h.jsonl", HUMANEVAL))
    engine = ScriptedEngine(lambda *_: pytest.fail("sampled"))
    recording = record_pool(examples, n=2, model=engine, path=tmp_path / "pool.jsonl")
    running = bench(examples, SelfConsistency(n=2), store=tmp_path / "run", model=engine)
    for work in (recording, running):
        with pytest.raises(MissingResource, match="bubblewrap"):
            asyncio.run(work)


@needs_sandbox
def test_bench_and_pool_grade_in_the_sandbox(tmp_path: Path) -> None:
    examples = load("humaneval", path=write(tmp_path / "h.jsonl", HUMANEVAL))
    good = "Here:\n```python\ndef area(radius):\n    return half(math.pi * radius**2)\n```"
    says: Callable[..., str] = lambda request, child, rng: good if child % 2 else "```python\ndef area(r): pass\n```"  # noqa: E731
    found = asyncio.run(bench(examples, SelfConsistency(n=1), store=tmp_path / "run", model=ScriptedEngine(says)))
    assert found.accuracy == 0.0
    path = tmp_path / "pool.jsonl"
    asyncio.run(record_pool(examples, n=4, model=ScriptedEngine(says), path=path))
    (row,) = (json.loads(line) for line in path.read_text().splitlines())
    assert [sample["correct"] for sample in row["samples"]] == [False, True, False, True]
