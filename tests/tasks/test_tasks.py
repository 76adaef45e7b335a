"""Tasks: what is loaded, that every gold answer passes its own grader, and what is said about bad input."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outthink.answers.reader import Reader
from outthink.errors import UnknownName, UsageError
from outthink.tasks import PUBLISHED, load
from outthink.tasks.example import Example
from outthink.tasks.grading import grade

DATA = Path(os.environ.get("OUTTHINK_DATA", "the folder of benchmark files is not named"))


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    reader = Reader(timeout=20.0)  # a slow machine must not turn a right answer into a wrong one
    yield reader
    asyncio.run(reader.close())


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUTTHINK_DATA", raising=False)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def check_gold(examples: list[Example], reader: Reader, dresses: tuple[str, ...]) -> None:
    """Every gold answer is right, also in the form that the prompt asks for, and no two differ in key by dress."""

    async def work() -> None:
        for example in examples:
            gold = example.gold[0]
            assert await grade(example, gold, reader) == 1.0, gold
            assert await grade(example, None, reader) == 0.0
            assert await grade(example, "no such answer", reader) == 0.0, gold
            key = await reader.key("math", gold)
            for dress in dresses:
                answer, found = await reader.read(example.problem, dress.replace("GOLD", gold))
                assert found == key, (gold, answer, found, key)
                assert await grade(example, answer, reader) == 1.0, (gold, answer)

    asyncio.run(work())


HASHES = ("So 3 and 4.\n#### GOLD", "7 first.\n\\boxed{GOLD}", "That is \\(\\boxed{GOLD}\\).", "#### GOLD.")
NUMBERS = (*HASHES, "#### $GOLD.00", "The answer is $GOLD.00", "The final answer is GOLD dollars.", "It is **GOLD**")


def test_the_sample_ships_and_is_graded(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        examples = load("gsm8k")
    assert "OUTTHINK_DATA" in caplog.text
    assert len(examples) == 24
    assert all("ship with Outthink" in example.meta["source"] for example in examples)
    assert examples[0].problem.messages[0].text.endswith("\nThink step by step briefly. End with a line: #### <number>")
    assert not any(example.gold[0] in example.problem.messages[0].text.split() for example in examples[:1])
    check_gold(examples, reader, NUMBERS)


@pytest.mark.parametrize(
    ("task", "split", "rows"), [("gsm8k", "test", 658), ("gsm8k", "train500", 500), ("math500", "test", 243)]
)
def test_every_gold_answer_of_the_real_files(
    task: str, split: str, rows: int, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (DATA / task / f"{split}.jsonl").exists():
        pytest.skip("the benchmark files are not here; OUTTHINK_DATA names their folder")
    monkeypatch.setenv("OUTTHINK_DATA", str(DATA))
    examples = load(task, split=split)
    assert len({example.problem.id for example in examples}) == len(examples) >= rows
    check_gold(examples, reader, NUMBERS if task == "gsm8k" else HASHES)


def test_the_order_is_fixed_by_hash() -> None:
    ids = [example.problem.id for example in load("gsm8k")]
    assert ids == sorted(ids, key=lambda id_: hashlib.sha256(f"order:{id_}".encode()).hexdigest())
    assert [example.problem.id for example in load("gsm8k", limit=5)] == ids[:5]


def test_published_files_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "test.jsonl", {"question": "1+1?", "answer": "One and one.\n#### 1,002"})
    assert [(e.problem.id, e.gold) for e in load("gsm8k", path=path)] == [("gsm8k-test-0", ("1,002",))]
    row = {"problem": "1+1?", "answer": "\\frac{4}{2}", "subject": "Counting", "level": 2, "unique_id": "c/1.json"}
    (example,) = load("math500", path=write(tmp_path / "m.jsonl", row))
    assert (example.problem.id, example.gold, example.meta["level"]) == ("c/1.json", ("\\frac{4}{2}",), 2)
    assert example.problem.messages[0].text == "1+1?\nThink step by step. Put the final answer in \\boxed{}."


ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"id": "a", "question": "1+1?", "answer": "#### 2"},
    "math500": {"problem": "1+1?", "answer": "2", "subject": "Counting", "level": 2, "unique_id": "c/1.json"},
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": "def f():\n",
        "entry_point": "f",
        "test": "def check(f): pass",
        "canonical_solution": "    return 1\n",
    },
    "mbpp": {
        "task_id": 1,
        "text": "Write f.",
        "code": "def f(): return 1",
        "test_list": ["assert f() == 1"],
        "test_setup_code": "",
        "test_imports": [],
        "challenge_test_list": [],
    },
    "ineqmath": {
        "data_id": 7,
        "problem": "Which?",
        "type": "relation",
        "data_split": "dev",
        "answer": "(B) y",
        "choices": ["(A) x", "(B) y"],
    },
    "own": {"id": "a", "question": "1+1?", "answer": "2", "options": ["1", "2"], "meta": {"hard": True}},
    "own.code": {"question": "Write f.", "tests": "assert f()", "public_tests": ["assert f()"], "prelude": "x = 1"},
}
ODD = [None, 5, 1.5, True, "", " ", "no", [], [1], ["bound"], [["a"]], {}, {"a": 1}, {"text": 1}, [{"a": 1}, {}]]


def opened(task: str, path: Path) -> list[Example]:
    return load(str(path)) if task.startswith("own") else load(task, path=path)


def test_every_published_set_has_a_row_here() -> None:
    assert {name for name in ROWS if not name.startswith("own")} == {*PUBLISHED}


@pytest.mark.parametrize(("task", "field"), [(task, field) for task, row in ROWS.items() for field in row])
def test_a_field_of_any_type_is_read_or_refused_in_a_sentence(tmp_path: Path, task: str, field: str) -> None:
    """What is read has texts and a name; what is not is told with its line."""
    path = tmp_path / "rows.jsonl"
    assert len(opened(task, write(path, ROWS[task]))) == 1
    refusals = []
    for value in ODD:
        try:
            (example,) = opened(task, write(path, ROWS[task] | {field: value}))
        except UsageError as refusal:
            refusals.append(str(refusal))
        else:
            assert example.problem.question.strip()
            assert all(isinstance(gold, str) and gold.strip() for gold in example.gold)
            assert not re.search(r"None|[\[{]", example.problem.id), (value, example.problem.id)
            assert not example.problem.options or {*example.gold} & {*example.problem.options}
    assert not [told for told in refusals if not told.startswith("rows.jsonl, line 1: ") or "\n" in told]
    gone = {name: value for name, value in ROWS[task].items() if name != field}
    with contextlib.suppress(UsageError):
        opened(task, write(path, gone))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
def test_a_split_is_looked_for_in_all_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setenv("OUTTHINK_DATA", str(tmp_path))
    folder = tmp_path / "math500"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"There is no test\.jsonl in .*math500, nor one ending in \.json, \.csv or"):
        load("math500")
    mark = "\t" if suffix == ".tsv" else ","
    row = {"problem": "1+1?", "answer": "2"}
    text = mark.join(row) + "\n" + mark.join(row.values()) if suffix[1:] in ("csv", "tsv") else json.dumps([row])
    (folder / f"test{suffix}").write_text(json.dumps(row) if suffix == ".jsonl" else text)
    assert [example.gold for example in load("math500")] == [("2",)]


def test_entries_of_one_line_are_counted(tmp_path: Path) -> None:
    """Where lines tell rows apart they are named by them, and else by their order."""
    first, second = ({"problem": text, "answer": "2"} for text in ("1+1?", "4-2?"))
    path = tmp_path / "test.json"

    def refused(*rows: Any, indent: int | None = None, task: str = "math500") -> str:
        path.write_text(json.dumps(rows, indent=indent))
        with pytest.raises(UsageError) as caught:
            opened(task, path)
        return str(caught.value)

    twice = [first | {"id": "a"}, second | {"id": "a"}]
    for task in ("math500", "own"):
        assert refused(*twice, task=task) == "test.json, entry 2: the id 'a' was already used in entry 1"
        assert refused(*twice, indent=1, task=task).startswith("test.json, line 7: the id 'a' was already used in line")
    assert refused(first, {"problem": 1, "answer": "2"}).startswith("test.json, entry 2: the field 'problem'")
    assert refused(first, 3) == "test.json, entry 2: expected an object with 'question' and 'answer'"
    assert refused({"answer": "2"}).startswith("test.json, line 1: ")
    path.write_text(json.dumps([first, second]))
    assert sorted(example.problem.id for example in opened("math500", path)) == ["math500-test-0", "math500-test-1"]
    assert [example.problem.id for example in opened("own", path)] == ["test-1", "test-2"]
    assert [example.problem.question for example in opened("own", path)] == ["1+1?", "4-2?"]


def test_own_data(tmp_path: Path, reader: Reader) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        {"question": "2+2?", "answer": 4},
        "",
        {"id": "b", "question": "{question}?", "answer": ["0.5", "half"], "meta": {"hard": True}},
        {"question": "Which?", "answer": "tea", "options": ["milk", "tea"]},
        {"question": "Which?", "answer": "b", "options": ["A", "B"]},
    )
    one, two, three, four = load(str(path))
    assert [example.problem.id for example in (one, two, three, four)] == ["mine-1", "b", "mine-4", "mine-5"]
    assert two.problem.messages[0].text.startswith("{question}?\n")
    assert (two.gold, two.meta["hard"]) == (("0.5", "half"), True)
    assert (three.gold, three.problem.options, three.problem.answer) == (("B",), ("A", "B"), "choice")
    assert "\n(A) milk\n(B) tea\n" in three.problem.messages[0].text
    assert four.gold == ("B",)
    assert asyncio.run(grade(two, "1/2", reader)) == 1.0
    assert asyncio.run(grade(three, "b", reader)) == 1.0
    assert asyncio.run(grade(three, "A", reader)) == 0.0
    (asked,) = load(str(path), limit=1, template="Q: {question} A:", answer="text")
    assert (asked.problem.messages[0].text, asked.problem.question, asked.problem.answer) == (
        "Q: 2+2? A:",
        "2+2?",
        "text",
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['{"question": "a", "answer": "1"}', '{"question": '], "line 2: this is not JSON"),
        ([{"question": "a"}], "line 1: the field 'answer'"),
        ([{"question": "a", "answer": []}], "line 1: the field 'answer'"),
        ([{"question": "a", "answer": {"x": 1}}], "line 1: the field 'answer'"),
        ([{"answer": "1"}], "line 1: the field 'question'"),
        ([{"question": " ", "answer": "1"}], "line 1: the field 'question'"),
        ([[1]], "line 1: expected an object"),
        (
            [{"id": "x", "question": "a", "answer": "1"}, {"id": "x", "question": "b", "answer": "1"}],
            "line 2: the id 'x' was already used in line 1",
        ),
        ([""], "holds no questions"),
        ([{"question": "a", "answer": "C", "options": ["A", "B"]}], "line 1: the answer 'C' is not among the options"),
        ([{"question": "a", "answer": "C", "options": "AB"}], "line 1: the field 'options'"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(str(write(tmp_path / "bad.jsonl", *rows)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="gsm8k"):
        load("gsm9k")
    with pytest.raises(UsageError, match=r"\{question\}"):
        load("gsm8k", template="no placeholder")
    with pytest.raises(UsageError, match="MATH-500"):
        load("math500")
    with pytest.raises(UsageError, match="Cannot read"):
        load(str(tmp_path / "none.jsonl"))
    with pytest.raises(UsageError, match="limit"):
        load("gsm8k", limit=0)
    with pytest.raises(UsageError, match="as the task"):
        load("gym:chain_sum", path=tmp_path)
    bad = write(tmp_path / "choice.jsonl", {"question": "a", "answer": "A"})
    with pytest.raises(UsageError, match="options"):
        load(str(bad), answer="choice")


def test_gym_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UsageError, match=r"pip install 'outthink\[gym\]'"):
        load("gym:chain_sum")


class TestGym:
    """Needs the package reasoning-gym."""

    @pytest.fixture(autouse=True)
    def gym(self) -> None:
        pytest.importorskip("reasoning_gym", exc_type=ImportError)

    def test_questions_are_reproducible_and_splits_unrelated(self) -> None:
        name = "gym:chain_sum?size=20&min_terms=2&max_terms=2"
        examples = load(name)
        assert examples == load(name)
        assert load(name, limit=3) == examples[:3]
        assert len(examples) == 20
        assert examples[3].problem.id == "gym:chain_sum?max_terms=2&min_terms=2:0:3"
        assert load(name, seed=5, split="dev")[0].problem.id == "gym:chain_sum?max_terms=2&min_terms=2:dev:5:0"
        questions = [{example.problem.question for example in load("gym:lcm", seed=seed)} for seed in range(3)]
        questions.append({example.problem.question for example in load("gym:lcm", split="dev")})
        assert all(len(a & b) < 60 for i, a in enumerate(questions) for b in questions[:i])

    @pytest.mark.parametrize(
        "name", ["chain_sum", "gcd", "spell_backward", "fraction_simplification", "coin_flip", "calendar_arithmetic"]
    )
    def test_gold_answers_are_right(self, name: str, reader: Reader) -> None:
        async def work() -> None:
            for example in load(f"gym:{name}?size=30"):
                gold = example.gold[0]
                assert example.problem.messages[0].text.endswith("#### <answer>")
                assert await grade(example, gold, reader) == 1.0
                assert await grade(example, "zzz", reader) == 0.0
                assert await grade(example, None, reader) == 0.0
                answer, key = await reader.read(example.problem, f"I think 1.\n#### {gold}.")
                assert key == await reader.key(example.problem.answer, gold)
                assert await grade(example, answer, reader) == 1.0

        asyncio.run(work())

    def test_the_form_counts_where_it_is_the_task(self, reader: Reader) -> None:
        async def work() -> None:
            (example,) = load("gym:fraction_simplification?size=1")
            entry = example.meta["entry"]["metadata"]
            unsimplified = f"{entry['numerator']}/{entry['denominator']}"
            assert await grade(example, unsimplified, reader) == 0.0

        asyncio.run(work())

    @pytest.mark.parametrize(
        ("task", "message"),
        [
            ("gym:chain_summ", "chain_sum"),
            ("gym:chain_sum?colour=red", "colour"),
            ("gym:chain_sum?min_terms=0", "refuses"),
            ("gym:chain_sum?size=0", "size"),
            ("gym:countdown", "as Python code"),
            ("gym:sudoku?size=1", "one line"),
        ],
    )
    def test_what_cannot_be_generated(self, task: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            load(task)


def test_published_sets_are_fetched_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str | None, str]] = []

    def load_dataset(repository: str, configuration: str | None, *, split: str) -> list[dict[str, Any]]:
        asked.append((repository, configuration, split))
        return [{"question": "What is 1+1?", "answer": "1+1=<<1+1=2>>2\n#### 2"}]

    fake = types.ModuleType("datasets")
    fake.load_dataset = load_dataset  # type: ignore[attr-defined]  # a stand-in for the package
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))
    monkeypatch.delenv("OUTTHINK_DATA", raising=False)
    for _ in range(2):
        (example,) = load("gsm8k")
        assert example.gold == ("2",)
        assert example.problem.id == "gsm8k-test-0"
    assert asked == [("openai/gsm8k", "main", "test")]


def test_offline_without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))
    monkeypatch.delenv("OUTTHINK_DATA", raising=False)
    assert len(load("gsm8k")) == 24
    with pytest.raises(UsageError, match="math500 needs its file"):
        load("math500")
    assert not list(tmp_path.iterdir())
