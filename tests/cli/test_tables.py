"""Files for papers and programs: what report and replay write is what they show, and is refused before any work."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.cli.test_cli import bench

FILES = ("--csv", "a.csv", "--latex", "a.tex", "--figure", "a.svg")


def read_csv(path: str = "a.csv") -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def legend(path: str = "a.svg") -> str:
    return " ".join("".join(one.itertext()) for one in ElementTree.parse(path).iter() if one.tag.endswith("text"))


@pytest.fixture
def runs(outthink: Any) -> None:
    for n, seed in ((1, 0), (1, 1), (4, 0)):
        assert outthink(*bench("--n", str(n), "--seed", str(seed), "--out", f"runs/n{n}-seed{seed}")).code == 0


def test_replay_writes_what_it_shows(outthink: Any) -> None:
    words = ("replay", "pool.jsonl", "--strategies", "self_consistency,perplexity_consistency", "--subsamples", "50")
    told = json.loads(outthink(*words, "--json", *FILES).out)
    rows = read_csv()
    assert [row["strategy"] for row in rows] == [name for name, curve in told["curves"].items() for _ in curve]
    every = [at for curve in told["curves"].values() for at in curve]
    assert [float(row["accuracy"]) for row in rows] == [at["accuracy"] for at in every]
    assert [float(row["tokens"]) for row in rows] == [at["tokens"] for at in every]
    assert "perplexity_consistency" in legend()
    assert "tokens per problem" in legend()
    assert r"perplexity\_consistency & 4" in Path("a.tex").read_text(encoding="utf-8")


def test_differences_of_replay_are_numbers(outthink: Any) -> None:
    words = ("replay", "pool.jsonl", "--strategies", "self_consistency,perplexity_consistency", "--subsamples", "50")
    told = json.loads(outthink(*words, "--json").out)
    assert [(one["strategy"], one["baseline"], one["n"]) for one in told["differences"]] == [
        ("perplexity_consistency", "self_consistency", 4)
    ] * len(told["differences"])
    assert {type(one["difference"]) for one in told["differences"]} == {float}
    sentences = outthink(*words).out
    for one in told["differences"]:
        assert "perplexity_consistency minus self_consistency at" in sentences
        assert f"{100 * one['difference']:+.1f} points" in sentences


def test_report_finds_runs_and_pools_seeds(outthink: Any, runs: None) -> None:
    told = json.loads(outthink("report", "runs", "--json", *FILES).out)
    assert list(told["runs"]) == ["runs/n1", "runs/n4-seed0"]
    assert told["folders"]["runs/n1"] == ["runs/n1-seed0", "runs/n1-seed1"]
    assert told["runs"]["runs/n1"]["seeds"] == {"0": 1.0, "1": 1.0}
    first, second = read_csv()
    assert (first["run"], first["seeds"], first["attempts"], first["problems"]) == ("runs/n1", "2", "2", "1")
    assert float(second["tokens"]) == 53
    assert float(second["difference"]) == told["differences"]["runs/n4-seed0"]["difference"]
    assert "1 x 2 seeds" in Path("a.tex").read_text(encoding="utf-8")
    shown = outthink("report", "runs").out
    assert "runs/n1: accuracy by seed: 100.0% (0), 100.0% (1)" in shown
    assert "tokens per problem" in legend()


def test_a_run_of_a_folder_that_cannot_be_read_is_left_out(outthink: Any, runs: None) -> None:
    """With a word for each; one that was named is an error."""
    for name, file, text in (
        ("bad", "run.json", "{"),
        ("old", "run.json", '{"schema": 99}'),
        ("cut", "results.jsonl", '{"schema": 1, "problem": 3}\n{}\n'),
        ("n1-seed7", "results.jsonl", "{}\n{}\n"),
    ):
        Path("runs", name).mkdir()
        like = Path("runs", "n1-seed0" if "seed" in name else "n4-seed0", "run.json").read_text(encoding="utf-8")
        Path("runs", name, "run.json").write_text(like.replace('"seed": 0', '"seed": 7'), encoding="utf-8")
        Path("runs", name, file).write_text(text, encoding="utf-8")
    result = outthink("report", "runs", "--json")
    assert result.code == 0
    told = json.loads(result.out)
    assert set(told["runs"]) == {"runs/n1", "runs/n4-seed0"}
    assert told["folders"]["runs/n1"] == ["runs/n1-seed0", "runs/n1-seed1"], "the other seeds of its method stay"
    left_out = [line.split("runs/")[1].split("/")[0].split()[0] for line in result.err.splitlines()]
    assert sorted(left_out) == ["bad", "cut", "n1-seed7", "old"]
    assert outthink("report", "runs/bad").code == 2
    assert outthink("report", "runs/n1-seed0", "runs/cut").code == 2


def test_without_a_single_graded_run_a_figure_is_refused(outthink: Any, runs: None) -> None:
    text = Path("runs/n4-seed0/results.jsonl").read_text(encoding="utf-8").replace('"credit":1.0', '"credit":null')
    Path("runs/n4-seed0/results.jsonl").write_text(text, encoding="utf-8")
    result = outthink("report", "runs/n4-seed0", "--figure", "a.svg")
    assert (result.code, result.err) == (2, "outthink: There is nothing to draw: no run is graded and counts tokens.\n")
    assert not Path("a.svg").exists()


def test_a_pool_is_written_too(outthink: Any) -> None:
    assert outthink("report", "pool.jsonl", *FILES).code == 0
    assert [(row["k"], round(float(row["coverage"]), 9)) for row in read_csv()] == [("1", 0.75), ("2", 1), ("4", 1)]


def test_parquet(outthink: Any) -> None:
    polars = pytest.importorskip("polars")
    assert outthink("replay", "pool.jsonl", "--subsamples", "20", "--parquet", "a.parquet").code == 0
    assert polars.read_parquet("a.parquet")["n"].to_list() == [1, 2, 4] * 2


@pytest.mark.parametrize("command", ["report", "replay"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--csv", "a.txt"), "Cannot write a.txt: name a .csv file in a folder that exists."),
        (("--latex", "nowhere/a.tex"), "Cannot write nowhere/a.tex"),
        (("--figure", "a.gif"), "ends in .svg, .png, .pdf or .html"),
        (("--parquet", "a.parquet"), "Parquet files need more packages: pip install 'outthink[tables]'."),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(
    outthink: Any, command: str, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("polars", "pandas"):
        monkeypatch.setitem(sys.modules, library, None)
    result = outthink(command, "nothing.jsonl", *words)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
