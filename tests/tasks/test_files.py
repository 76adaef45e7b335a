"""Files as people have them: every one is read as it is meant, or refused with the line and what to write."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from outthink.answers.reader import Reader
from outthink.bench.run import bench
from outthink.errors import UsageError
from outthink.models.scripted import ScriptedEngine
from outthink.records.pools import read_pool
from outthink.tasks import load
from outthink.tasks.checks import doubts
from outthink.tasks.example import Example
from outthink.tasks.grading import grade
from tests.tools.shared import shared

DATA = Path(__file__).parent / "data"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def credit(example: Example, reply: str) -> float:
    async def graded() -> float:
        reader = Reader(timeout=20.0)
        try:
            answer, _ = await reader.read(example.problem, reply)
            return await grade(example, answer, reader)
        finally:
            await reader.close()

    return asyncio.run(graded())


def write(path: Path, rows: list[Any]) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def name(case: dict[str, Any]) -> str:
    return f"{case['kind']}-{json.dumps(case.get('rows', case.get('text')))[:60]}"


@pytest.mark.parametrize("case", lines(DATA / "questions.jsonl"), ids=name)
def test_questions(case: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / case.get("file", "own.jsonl"), case.get("rows") or [case["text"]])
    if "refused" in case:
        with pytest.raises(UsageError) as caught:
            load(str(path), answer=case.get("answer"))
        assert case["refused"] in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    examples = load(str(path), answer=case.get("answer"))
    first = examples[0]
    if "ids" in case:
        assert [example.problem.id for example in examples] == case["ids"]
    if "gold" in case:
        assert list(first.gold) == case["gold"]
    if "as_kind" in case:
        assert first.problem.answer == case["as_kind"]
    if "shown" in case:
        assert case["shown"] in first.problem.messages[0].text.splitlines()
    if "right" in case:
        shown = first.problem.messages[0].text.splitlines()
        label = next(line[1] for line in shown if line.endswith(f") {case['right']}"))
        assert credit(first, f"Answer: {label}") == 1.0
        assert credit(first, f"Answer: {'B' if label == 'A' else 'A'}") == 0.0
    if "reply" in case:
        assert credit(first, case["reply"]) == 1.0
        assert credit(first, case["wrong"]) == 0.0


def test_at_least_five_of_each_kind() -> None:
    kinds = Counter(case["kind"] for case in lines(DATA / "questions.jsonl"))
    assert min(kinds.values()) >= 5
    assert {*kinds} >= {"D1", "D2", "D3", "D4", "D5"}


@pytest.mark.parametrize("case", lines(DATA / "pools.jsonl"), ids=lambda case: json.dumps(case["lines"])[:70])
def test_pools(case: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "pool.jsonl", case["lines"])
    if "refused" in case:
        with pytest.raises(UsageError, match=case["refused"]):
            read_pool(path)
        return
    with caplog.at_level(logging.WARNING):
        pool = read_pool(path)
    problem = pool.problems[0]
    assert (None if problem.keys is None else problem.keys.tolist()) == case["keys"]
    if "ids" in case:
        assert [one.id for one in pool.problems] == case["ids"]
    if "tokens" in case:
        assert problem.tokens is not None
        assert problem.tokens.tolist() == case["tokens"]
    if "logprobs" in case:
        assert problem.logprobs is not None
        assert [None if math.isnan(one) else one for one in problem.logprobs] == case["logprobs"]
    for scorer, scores in case.get("scores", {}).items():
        assert [None if math.isnan(one) else one for one in problem.scores[scorer][:, 0]] == scores
    assert bool(caplog.records) == ("said" in case)
    if "said" in case:
        assert problem.id == "q"
        assert "Line 2 of" in caplog.text


def test_what_all_lines_say_of_a_recording_is_kept(tmp_path: Path) -> None:
    sample = {"answer": "4", "correct": True}
    meta = {"model": "m", "sampling": {"temperature": 0.7}, "seed": 1, "prompt": "a"}
    rows = [
        {"id": "p", "question": "2+2?", "samples": [sample], "meta": meta},
        {"id": "q", "samples": [sample], "meta": {**meta, "seed": 2, "prompt": "b"}},
    ]
    pool = read_pool(write(tmp_path / "pool.jsonl", rows))
    assert pool.meta == {"model": "m", "sampling": {"temperature": 0.7}}
    assert pool.varied == {"seed", "prompt"}
    assert [problem.question for problem in pool.problems] == ["2+2?", None]
    assert not read_pool(write(tmp_path / "bare.jsonl", [{"id": "p", "samples": [sample], "meta": None}])).meta


def test_the_order_of_options_is_fixed_by_the_id_and_tells_nothing(tmp_path: Path) -> None:
    rows = [
        {"id": f"q{i}", "question": "Which?", "correct_answer": "right", "incorrect_answers": ["one", "two", "three"]}
        for i in range(400)
    ]
    examples = load(str(write(tmp_path / "a.jsonl", rows)))
    again = load(str(write(tmp_path / "b.jsonl", rows[::-1])))[::-1]
    assert [one.problem.messages for one in examples] == [one.problem.messages for one in again]
    places = Counter(example.gold[0] for example in examples)
    assert min(places.values()) >= 66  # 100 are expected, and 4 standard deviations are 35
    other = [{**row, "incorrect_answers": ["three", "one", "two"]} for row in rows]
    assert [one.problem.messages for one in load(str(write(tmp_path / "c.jsonl", other)))] == [
        one.problem.messages for one in examples
    ]


def test_more_options_than_letters_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    for answer in ("o3", "o29", 2):
        row = {"question": "Which?", "options": [f"o{number}" for number in range(30)], "answer": answer}
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        with pytest.raises(UsageError, match="line 1: more than 26 options"):
            load(str(path))


def test_options_can_be_answered_by_text(tmp_path: Path) -> None:
    row = {"question": "Which?", "options": ["iron", "gold"], "answer": "B"}
    (example,) = load(str(write(tmp_path / "own.jsonl", [row])), answer="text")
    assert "(B) gold" in example.problem.messages[0].text
    assert [credit(example, f"#### {reply}") for reply in ("gold", "B", "iron", "A")] == [1.0, 1.0, 0.0, 0.0]


CHOICE = {"question": "Which?", "options": ["iron", "gold", "zinc"]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"question": "Where?", "answer": "Oslo\nParis"}, {"question": "2+2?", "answer": "4"}],
            "1 of 2 right answers",
        ),
        ([{**CHOICE, "answer": 1}, {**CHOICE, "answer": 2}], "places counted from 0, but none of them is 0"),
        ([{**CHOICE, "answer": 3}, {**CHOICE, "answer": 1}], "places counted from 1"),
        ([{**CHOICE, "question": f"{i}?", "answer": "A"} for i in range(8)], "In all 8 questions"),
        (
            [{"question": "q", "answer": "1"}, {"question": "q", "answer": "2"}],
            "asked before with another right answer",
        ),
        ([{"question": "q", "answer": 1, "alternatives": ["a", "b"]}], "the field 'alternatives' was not read"),
        ([{"question": "q", "answer": "B"}, {"question": "r", "answer": "D"}], "the questions have no options"),
        ([{"question": "Who?", "answer": "12", "passage": "Long ago"}], "a field 'passage' that is not shown"),
        ([{"question": "Who?", "answer": "12", "Context": "Long ago"}], "a field 'Context' that is not shown"),
    ],
)
def test_what_looks_wrong_is_said(rows: list[Any], said: str, tmp_path: Path) -> None:
    told = doubts(load(str(write(tmp_path / "own.jsonl", rows))))
    assert any(said in one for one in told), told
    assert all("\n" not in one and one.endswith(".") for one in told)


@pytest.mark.parametrize(
    "rows",
    [
        [{"question": "2+2?", "answer": "4"}, {"question": "1/2?", "answer": ["0.5", "half"]}],
        [{"question": "f?", "answer": r"\frac{x^2}{3}"}, {"question": "s?", "answer": r"[0, \infty)"}],
        [{**CHOICE, "answer": 0}, {**CHOICE, "question": "What?", "answer": 2}],
        [{"question": "Write f.", "tests": ["assert f(1) == 2"], "answer": "def f(x): return 2"}],
        [{"question": "Is it?", "answer": True}],
        [{"question": "q", "answer": "4", "tags": ["a", "b"]}, {"question": "r", "answer": "17"}],
    ],
)
def test_nothing_is_said_of_what_is_right(rows: list[Any], tmp_path: Path) -> None:
    assert doubts(load(str(write(tmp_path / "own.jsonl", rows)))) == []


def test_doubts_of_examples_that_were_made_elsewhere() -> None:
    (one,) = load("gsm8k", limit=1)
    assert doubts([]) == doubts([one]) == []
    assert "1 of 2 ids come more than once" in doubts([one, one])[0]
    assert "have no right answer" in doubts([Example(one.problem, ())])[0]


def test_a_run_keeps_what_looked_wrong_and_goes_on_without_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "own.jsonl", [{"question": "Where?", "answer": "Oslo\nParis"}, {"question": "2+2?", "answer": "4"}]
    )
    engine = ScriptedEngine(lambda *_: "#### 4")

    def run() -> None:
        asyncio.run(bench(load(str(path)), "greedy", store=tmp_path / "run", model=engine))

    run()
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    assert settings["doubts"] == doubts(load(str(path))) != []
    settings["doubts"] = ["Said otherwise by an older version."]
    (tmp_path / "run" / "run.json").write_text(json.dumps(settings))
    run()


@pytest.mark.parametrize("number", range(22))
def test_field(number: int, tmp_path: Path) -> None:
    case = lines(shared("field", "data.jsonl"))[number]
    kind: str = case["kind"]
    given: Any = case.get("rows", case.get("input"))
    if kind in ("D1", "D3"):
        examples = load(str(write(tmp_path / "own.jsonl", given)), answer="json" if kind == "D3" else None)
        assert credit(examples[0], case["reply"]) == 1.0
        if kind == "D1":
            assert all(f") {option}" in examples[0].problem.messages[0].text for option in given[0]["options"])
            assert credit(examples[0], "Answer: A") == 0.0
    elif kind == "D2":
        assert len({example.problem.id for example in load(str(write(tmp_path / "own.jsonl", given)))}) == len(given)
    elif kind == "D4":
        (example,) = load(str(write(tmp_path / "own.jsonl", given)))
        assert example.problem.answer == "choice"
        assert example.gold == ("B",)
        assert "(A) " in example.problem.messages[0].text
    elif kind == "D5":
        text = given.replace("7777777777777777...(5,000 digits)", "7" * 5000)
        if case["right"] == "refused":
            with pytest.raises(UsageError, match="line 1: the field 'answer'"):
                load(str(write(tmp_path / "own.jsonl", [text])))
        else:
            assert load(str(write(tmp_path / "own.jsonl", [text])))[0].gold == ("7" * 5000,)
    elif kind == "D6":
        (example,) = load("mbpp", path=write(tmp_path / "test.jsonl", [given]))
        assert example.tests.split("\n")[:2] == [*given["test_imports"], *given["test_list"]]
        assert example.problem.question.startswith(given["prompt"])
    elif "refused by line" in case["right"] and "or" not in case["right"].split():
        with pytest.raises(UsageError, match="Line 1 of"):
            read_pool(write(tmp_path / "pool.jsonl", given))
    else:
        (problem,) = read_pool(write(tmp_path / "pool.jsonl", given)).problems
        samples = given[0]["samples"]
        assert problem.id == str(given[0]["id"])
        assert problem.keys is not None
        assert [problem.answers[key] for key in problem.keys] == [str(sample["answer"]) for sample in samples]
