"""What was recorded, as columns: every row is there once, with the same numbers and types in every library and file."""

from __future__ import annotations

import csv
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import outthink
from outthink.errors import UsageError
from outthink.records.frames import Frame, check_parquet
from outthink.records.runs import Store, runs_in
from tests.records.test_store import SETTINGS, call, result

LIBRARIES = ("polars", "pandas")
MIXED = Frame.of_rows(
    [
        {"name": 'a,\n"b"', "n": 1, "share": 0.5, "right": True, "either": 1, "nothing": None},
        {"name": "ü", "n": None, "share": float("nan"), "right": None, "either": "x", "nothing": None, "late": 2},
    ]
)


def write_run(folder: Path, **changes: Any) -> Path:
    settings = {**SETTINGS, "task": "own.jsonl", "models": {"model": "scripted"}, **changes}
    with Store(folder, settings) as store:
        for name in settings["problems"]:
            store.record(result(name, call(12.0, usd=0.5), credit=float(name == "a")))
    return folder


def only(monkeypatch: pytest.MonkeyPatch, *kept: str) -> None:
    for library in {*LIBRARIES, "pyarrow"} - {*kept}:
        monkeypatch.setitem(sys.modules, library, None)


def plain_rows(frame: Any) -> list[dict[str, Any]]:
    """The rows of a data frame of either library as plain values."""
    if hasattr(frame, "to_dicts"):
        rows: list[dict[str, Any]] = frame.to_dicts()
        return rows
    pandas = importlib.import_module("pandas")
    return [
        {name: None if pandas.isna(value) else value for name, value in row.items()} for row in frame.to_dict("records")
    ]


def test_a_frame_has_every_cell_and_one_kind_of_value_a_column() -> None:
    assert MIXED.columns["share"] == [0.5, None]
    assert MIXED.columns["either"] == ["1", "x"]
    assert MIXED.columns["late"] == [None, 2]
    assert Frame.of_rows([{"x": 1}, {"x": 0.5}]).columns["x"] == [1.0, 0.5]
    assert Frame.of_rows([]).columns == {}


@pytest.mark.parametrize("library", LIBRARIES)
def test_data_frames_of_both_libraries_hold_the_same(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(library)
    only(monkeypatch, library)
    frame = MIXED.to_dataframe()
    assert type(frame).__module__.partition(".")[0] == library
    expected = [dict(zip(MIXED.columns, row, strict=True)) for row in zip(*MIXED.columns.values(), strict=True)]
    assert plain_rows(frame) == expected
    assert "int" in str(frame["n"].dtype).lower(), "a missing value must not make whole numbers floats"
    assert "bool" in str(frame["right"].dtype).lower()


def test_without_a_library_it_is_one_sentence_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only(monkeypatch)
    with pytest.raises(UsageError, match=r"^Data frames need more packages: pip install 'outthink\[tables\]'\.$"):
        MIXED.to_dataframe()
    for wanted in (check_parquet, lambda: MIXED.write_parquet(tmp_path / "a.parquet")):
        with pytest.raises(UsageError, match=r"^Parquet files need more packages: pip install 'outthink\[tables\]'\.$"):
            wanted()
    assert not list(tmp_path.iterdir())


def test_csv_can_be_read_back() -> None:
    rows = list(csv.DictReader(io.StringIO(MIXED.csv(), newline="")))
    assert rows[0] == {
        "name": 'a,\n"b"', "n": "1", "share": "0.5", "right": "true", "either": "1", "nothing": "", "late": "",
    }  # fmt: skip
    assert rows[1]["name"] == "ü"


def test_parquet_can_be_read_back(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    MIXED.write_parquet(tmp_path / "a.parquet")
    assert polars.read_parquet(tmp_path / "a.parquet").equals(MIXED.to_dataframe())
    with pytest.raises(UsageError, match="Cannot write"):
        MIXED.write_parquet(tmp_path / "nowhere" / "a.parquet")


def test_a_run_is_a_row_for_each_problem(tmp_path: Path) -> None:
    frame = outthink.load(write_run(tmp_path / "run"))
    columns = {name: list(values) for name, values in frame.columns.items()}
    assert columns["problem"] == ["a", "b", "c"]
    assert columns["credit"] == [1.0, 0.0, 0.0]
    assert columns["strategy"] == ["self_consistency"] * 3
    assert (columns["tokens"], columns["usd"], columns["completion"]) == ([12.0] * 3, [0.5] * 3, [12] * 3)
    assert columns["answer"] == ["1"] * 3
    assert "strategy.n" not in columns, "what does not differ is no column"


def test_a_folder_is_all_its_runs_with_what_differs(tmp_path: Path) -> None:
    write_run(tmp_path / "deep" / "one")
    write_run(tmp_path / "two", strategy={"name": "self_consistency", "n": 8}, seed=1, problems=["a"])
    columns = outthink.load(str(tmp_path)).columns
    assert list(columns["run"]) == [str(tmp_path / "deep" / "one")] * 3 + [str(tmp_path / "two")]
    assert list(columns["strategy.n"]) == [4, 4, 4, 8]
    assert list(columns["seed"]) == [0, 0, 0, 1]
    assert "problems" not in columns


def test_runs_are_by_name_and_numbers_by_size(tmp_path: Path) -> None:
    for name in ("n10", "n2", "n2-a", "m"):
        write_run(tmp_path / name)
    assert [path.name for path in runs_in(tmp_path)] == ["m", "n2", "n2-a", "n10"]
    assert runs_in(tmp_path / "n2") == [tmp_path / "n2"]


def test_a_pool_is_a_row_for_each_sample(tmp_path: Path) -> None:
    samples = [
        {"text": "#### 4", "tokens": 3, "logprobs": [-1.0, -3.0], "finish": "eos", "answer": 4, "correct": True},
        {"text": "#### 5", "tokens": None, "correct": False},
    ]
    row = {"id": "p", "samples": samples, "prompt_tokens": 7, "scores": {"rm": [0.5, None]}, "meta": {"model": "m"}}
    pool = tmp_path / "pool.jsonl"
    pool.write_text(json.dumps(row) + "\n")
    columns = outthink.load(pool).columns
    assert list(columns["sample"]) == [0, 1]
    assert (columns["answer"], columns["logprob"]) == (["4", None], [-2.0, None])
    assert (columns["scores.rm"], columns["completion"], columns["model"]) == ([0.5, None], [3, None], ["m", "m"])
    pool.write_text(json.dumps({**row, "scores": {"rm": [0.5]}}) + "\n")
    with pytest.raises(UsageError, match=r"Line 1 of .*pool.jsonl cannot be read"):
        outthink.load(pool)


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UsageError, match="There is no run in"):
            outthink.load(path)
    with pytest.raises(UsageError, match="Cannot read"):
        outthink.load(tmp_path / "nothing.jsonl")
