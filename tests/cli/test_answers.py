"""`outthink answers` and `outthink report` say how replies were read, from whatever holds replies."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from outthink.answers.reading import read
from outthink.reports.reading import ReadReply, counted, doubt, kind_of, replies, rules
from tests.cli.test_cli import bench, solve

TEXTS = ("2+2=4\n#### 4", "#### 5", "So\n#### 4", "#### 4")  # of the pool


def as_json(result: Any) -> Any:
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out)


@pytest.fixture
def sources(outthink: Any) -> dict[str, str]:
    """The same four replies in everything that can hold them."""
    assert outthink(*bench("--n", "4", "--out", "run")).code == 0
    assert outthink(*solve("--n", "4", "--trace", "traces.jsonl")).code == 0
    Path("texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    Path("strings.jsonl").write_text("\n".join(json.dumps(text) for text in TEXTS))
    with gzip.open("packed.jsonl.gz", "wb") as file:
        file.write(Path("pool.jsonl").read_bytes())
    names = ("pool.jsonl", "run", "run/results.jsonl", "traces.jsonl", "texts.jsonl", "strings.jsonl")
    return dict.fromkeys((*names, "packed.jsonl.gz"), "")


def test_the_same_replies_are_read_alike_wherever_they_are(outthink: Any, sources: dict[str, str]) -> None:
    for source in sources:
        told = as_json(outthink("answers", source, "--json"))
        assert told["kind"] == "math", source
        assert sorted(row["answer"] for row in told["replies"]) == ["4", "4", "4", "5"], source
        assert {row["key"] for row in told["replies"]} == {"4", "5"}
        assert {type(row["sample"]) for row in told["replies"]} == {int}
        assert sum(told["rules"].values()) == 4
        assert told["cut_off"] == 0


def test_a_plain_text_is_one_reply(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("reply.txt").write_text("I think\n\\boxed{\\frac{1}{2}}\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("I think\n\\boxed{\\frac{1}{2}}\n"))
    for source in ("reply.txt", "-"):
        (row,) = as_json(outthink("answers", source, "--json"))["replies"]
        assert (row["answer"], row["key"]) == ("\\frac{1}{2}", "1/2")


def test_what_was_cut_off_or_has_no_answer_is_told(outthink: Any) -> None:
    lines = [{"text": "#### 4"}, {"text": "#### 5", "finish": "length"}, {"text": "nothing here"}]
    Path("texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = as_json(outthink("answers", "texts.jsonl", "--json"))
    assert [row["answer"] for row in told["replies"]] == ["4", None, None]
    assert [row["rule"] for row in told["replies"]][1:] == ["cut off", "none"]
    assert (told["cut_off"], told["rules"]["none"]) == (1, 1)
    assert "1 cut off and not read" in outthink("answers", "texts.jsonl").out


def test_the_kind_is_that_of_the_recorded_answers(outthink: Any) -> None:
    assert kind_of([ReadReply(problem="p", sample=0, text="so 18 or\nParis", answer="Paris")]) == "text"
    assert kind_of([ReadReply(problem="p", sample=0, text="#### (B) 18", answer="B")]) == "choice"
    assert kind_of([ReadReply(problem="p", sample=0, text="#### 18", answer="18")]) == "math"
    assert kind_of([ReadReply(problem="p", sample=0, text="#### 18")]) == "math"
    told = as_json(outthink("answers", "pool.jsonl", "--answer", "text", "--json"))
    assert told["kind"] == "text"
    assert "did you mean 'text'?" in outthink("answers", "pool.jsonl", "--answer", "txt").err


def test_the_limit_is_of_what_is_shown_not_of_what_is_counted(outthink: Any) -> None:
    told = as_json(outthink("answers", "pool.jsonl", "--limit", "1", "--json"))
    assert len(told["replies"]) == 1
    assert sum(told["rules"].values()) == 4
    text = outthink("answers", "pool.jsonl", "--limit", "1").out
    assert "... and 3 more" in text
    assert "4 replies, read as math" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("", "holds no replies"),
        ('{"other": 1}\n', "Line 1 of f.jsonl has no text"),
        ("[1]\n", "Line 1 of f.jsonl holds no reply"),
        ('{"samples": [{"text": 1}]}\n', "Line 1 of f.jsonl holds no reply (text is no text)"),
        ('{"samples": [1]}\n', "Line 1 of f.jsonl holds no reply"),
        ('{"candidates": []}\n', "Line 1 of f.jsonl holds no reply"),
        ('{bad\n{"text": "#### 4"}\n', "Line 1 of f.jsonl is damaged"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(outthink: Any, content: str | None, said: str) -> None:
    if content is not None:
        Path("f.jsonl").write_text(content)
    result = outthink("answers", "f.jsonl")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert said in result.err


def test_a_pool_without_texts_has_no_replies_and_is_reported(outthink: Any) -> None:
    row = json.loads(Path("pool.jsonl").read_text())
    rows = [{**row, "id": name, "samples": [{**one, "text": None} for one in row["samples"]]} for name in "ab"]
    for one in rows[1]["samples"]:
        del one["text"]
    Path("bare.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    told = outthink("report", "bare.jsonl")
    assert (told.code, "pass@1" in told.out, "how they were read" in told.out) == (0, True, False)
    came = outthink("answers", "bare.jsonl")
    assert (came.code, came.err) == (2, "outthink: bare.jsonl holds no replies.\n")


def test_a_folder_without_a_run_is_refused(outthink: Any) -> None:
    Path("folder").mkdir()
    assert "no run in folder" in outthink("answers", "folder").err


def test_an_unfinished_last_line_is_left_out() -> None:
    Path("f.jsonl").write_text('{"text": "#### 4"}\n{"te')
    assert [reply.text for reply in replies(Path("f.jsonl"))] == ["#### 4"]


def test_counts_are_of_all_texts() -> None:
    texts = ("#### 4", "nothing", "\\boxed{5}", "")
    counts = rules(texts)
    assert sum(counts.values()) == len(texts)
    assert counts["none"] == sum(read("math", text) is None for text in texts)
    assert rules(()) == {}


def test_doubt_begins_above_5_percent() -> None:
    assert doubt({}) is None
    assert doubt({"box": 95, "last": 5}) is None
    assert doubt({"box": 94, "last": 3, "line": 3}) is not None
    assert (doubt({"last": 1}) or "").startswith("1 of 1 replies (100%)")
    assert doubt({"none": 100}) is None
    assert counted({"box": 2, "none": 1}, 3) == "2 box, 1 none, 3 cut off and not read"


def test_report_says_how_answers_were_read(outthink: Any, sources: dict[str, str]) -> None:
    for source in ("pool.jsonl", "run"):
        assert f"{source}: answers by how they were read: 4 " in outthink("report", source).out
    counts = as_json(outthink("answers", "pool.jsonl", "--json"))["rules"]
    assert as_json(outthink("report", "pool.jsonl", "--json"))["pool.jsonl"]["rules"] == counts
    assert as_json(outthink("report", "run", "--json"))["rules"] == {"run": counts}


def test_a_doubt_is_told_by_both(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outthink.reports.reading.read_by", lambda kind, text, options=(): ("4", "last"))
    for command in ("answers", "report"):
        assert "4 of 4 replies (100%) mark no answer" in outthink(command, "pool.jsonl").err
