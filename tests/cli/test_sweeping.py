"""`outthink sweep`: what it would do, what it does, and that neither a failure nor a kill costs more than one run."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import read_results
from tests.cli.test_cli import OUTTHINK, finish, start

SWEEP = """
task = "own.jsonl"
model = "m"
seed = [0, 1]

[[strategy]]
name = "greedy"

[[strategy]]
name = "self_consistency"
n = [2, 4]
"""
PROBLEMS = 6


@pytest.fixture(autouse=True)
def questions() -> None:
    rows = [{"id": f"p{n}", "question": f"What is {n}+1?", "answer": str(n + 1)} for n in range(PROBLEMS)]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("many.toml").write_text(SWEEP, encoding="utf-8")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The (model, problem) of every request, and of every model that was opened ("", name)."""
    asked: list[tuple[str, str]] = []

    def opened(name: str, *, price: object = None) -> ScriptedEngine:
        asked.append(("", name))

        def reply(request: Request, child: int, rng: Any) -> str:
            asked.append((name, request.problem))
            return f"#### {int(request.problem[1:]) + 1 + int(rng.random() < 0.5)}"

        return ScriptedEngine(reply, name=name)

    monkeypatch.setattr("outthink.models.open_engine", opened)
    monkeypatch.setattr("outthink.models.check_model", lambda name: None)
    return asked


def runs(outthink: Any, *words: str, code: int = 0) -> dict[str, Any]:
    result = outthink("sweep", "many.toml", "--json", *words)
    assert result.code == code, result.err
    return {run["run"]: run for run in json.loads(result.out)["runs"]}


def test_a_dry_run_spends_nothing_and_shows_the_commands(outthink: Any, asked: list[Any]) -> None:
    result = outthink("sweep", "many.toml", "--dry-run")
    assert (result.code, result.err, asked) == (0, "", [])
    assert "6 runs, 36 problems left; of 6 runs nothing tells the cost." in result.out
    commands = [line for line in result.out.splitlines() if line.startswith("outthink bench")]
    assert len(commands) == 6
    assert not Path("runs").exists()
    assert outthink(*commands[0].split()[1:]).code == 0
    assert runs(outthink, "--dry-run")["own-greedy-seed0"]["done"] == PROBLEMS


def test_all_runs_are_made_and_the_model_is_opened_once(outthink: Any, asked: list[Any]) -> None:
    made = runs(outthink)
    assert [run["done"] for run in made.values()] == [PROBLEMS] * 6
    assert asked.count(("", "m")) == 1
    assert len(asked) - 1 == 2 * PROBLEMS * (1 + 2 + 4)
    before = len(asked)
    again = outthink("sweep", "many.toml")
    assert "6 of 6 runs are finished; `outthink report runs/many` compares them." in again.out
    assert len(asked) == before, "nothing is asked or opened where all is done"
    told = json.loads(outthink("report", "runs/many", "--json").out)
    assert [summary["attempts"] for summary in told["runs"].values()] == [2 * PROBLEMS] * 3


def test_it_is_what_bench_makes_of_each_alone(outthink: Any, asked: list[Any]) -> None:
    """Run by run the same answers, so that what ran before in the same program changes nothing."""
    made = runs(outthink)
    for run in made.values():
        words = [word for word in run["command"][1:] if not word.startswith("--out")]
        assert outthink(*words, "--out", "alone/" + run["run"]).code == 0
        alone = {
            result.problem: result.trace and result.trace.candidates
            for result in read_results(Path("alone", run["run"]))
        }
        swept = {
            result.problem: result.trace and result.trace.candidates for result in read_results(Path(run["folder"]))
        }
        assert alone == swept


def test_a_run_that_fails_does_not_end_the_others(outthink: Any, asked: list[Any]) -> None:
    """Neither where it cannot begin, nor where what it uses breaks."""
    Path("broken.py").write_text("def check(question, solution):\n    raise SystemError('gone')\n")
    Path("many.toml").write_text(
        SWEEP.replace("[0, 1]", "0")
        + '[[strategy]]\nname = "best_of_n"\nn = 2\nverifier = "broken:check"\n'
        + '[[strategy]]\nname = "beam"\nprm = "random"\nbudget = "1usd"\n',
        encoding="utf-8",
    )
    made = runs(outthink, code=1)
    assert [name for name, run in made.items() if run["error"]] == ["own-beam-prmrandom-budget1usd-seed0"]
    assert made["own-best_of_n-n2-verifierbroken:check-seed0"]["done"] == PROBLEMS
    assert [made[name]["done"] for name in made if "consistency" in name or "greedy" in name] == [PROBLEMS] * 3


def test_what_is_not_there_is_told_before_anything_is_spent(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models, tasks, scorers and what a strategy needs, all at once, by the dry run as by the run itself."""
    from outthink import models

    def opened(name: str, *, price: object = None) -> Any:
        raise AssertionError("nothing is opened")

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        Path("many.toml").write_text(
            SWEEP.replace('"own.jsonl"', '["own.jsonl", "missing.jsonl"]').replace("[0, 1]", "0")
            .replace('"m"', f'["qwen", "gone.jsonl", "no_such:Engine", "{nobody}"]')
            + '[[strategy]]\nname = "best_of_n"\nn = 2\nverifier = ["no:thing", "http://HOST/"]\n'
            + '[[strategy]]\nname = "beam"\n',
            encoding="utf-8",
        )  # fmt: skip
        for words in (("--dry-run",), ()):
            monkeypatch.setattr(models, "open_engine", opened)
            result = outthink("sweep", "many.toml", *words)
            assert result.code == 2
            for said in (
                "There is no model 'qwen'", "There is no gone.jsonl", "Cannot load 'no_such:Engine'", "missing.jsonl",
                "Cannot load 'no:thing'", "The strategy beam needs 'prm'", "cannot be carried out; nothing was spent",
            ):  # fmt: skip
                assert said in result.err, said
            assert nobody not in result.err  # it may be there later
            assert not Path("runs").exists()
            assert ("The same, one by one:" in result.out) == bool(words)


def test_a_model_that_cannot_be_opened_fails_its_runs_only(
    outthink: Any, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from outthink import models

    working = models.open_engine

    def opened(name: str, *, price: object = None) -> Any:
        if name == "gone":
            raise OSError("no such device")
        return working(name, price=None)

    monkeypatch.setattr("outthink.models.open_engine", opened)
    Path("many.toml").write_text(SWEEP.replace('"m"', '["gone", "m"]'), encoding="utf-8")
    made = runs(outthink, code=1)
    assert {run["error"] for name, run in made.items() if "-gone-" in name} == {"OSError: no such device"}
    assert {run["done"] for name, run in made.items() if "-m-" in name} == {PROBLEMS}


def test_what_is_wrong_with_a_folder_is_one_run(outthink: Any, asked: list[Any]) -> None:
    """Damaged, foreign, or of questions that have changed since: told, and left as it is."""
    made = runs(outthink)
    damaged, foreign, *_ = [Path(run["folder"]) for run in made.values()]
    (damaged / "run.json").write_text('{"schema": 99}', encoding="utf-8")
    (foreign / "results.jsonl").write_text('{"x": 1}\n{"x": 2}\n', encoding="utf-8")
    Path("many.toml").write_text(SWEEP.replace("[0, 1]", "[0, 1, 2]"), encoding="utf-8")
    again = runs(outthink, code=1)
    assert [bool(run["error"]) for run in again.values()] == [True, True] + [False] * 7
    assert (foreign / "results.jsonl").read_text(encoding="utf-8") == '{"x": 1}\n{"x": 2}\n'

    rows = Path("own.jsonl").read_text(encoding="utf-8").replace("What is 0+1?", "What is 0 + 1?")
    Path("own.jsonl").write_text(rows, encoding="utf-8")
    changed = runs(outthink, code=1)
    assert all("prompts" in run["error"] for name, run in changed.items() if not again[name]["error"])


def test_a_mistake_in_the_file_is_refused_before_anything_is_spent(outthink: Any, asked: list[Any]) -> None:
    for wrong, said in (
        ("tempreature = 0.5", "did you mean '--temperature'?"),
        ('temperature = "hot"', "Invalid value for '--temperature'"),
        ("nn = 4", "greedy"),
        ('budget = "12foo"', "20k-tokens"),
        ('shard = "0/2"', "--shard"),
    ):
        Path("many.toml").write_text(wrong + SWEEP, encoding="utf-8")
        result = outthink("sweep", "many.toml")
        assert (result.code, result.out, asked) == (2, "", [])
        assert "own-greedy-seed0" in result.err
        assert said in result.err


def test_costs_are_predicted_from_what_was_measured(outthink: Any, asked: list[Any]) -> None:
    Path("many.toml").write_text(SWEEP.replace("[0, 1]", "0"), encoding="utf-8")
    runs(outthink)
    Path("many.toml").write_text(SWEEP, encoding="utf-8")
    known = runs(outthink, "--dry-run")
    assert {run["source"] for run in known.values() if "seed1" in run["run"]} == {"measured"}
    four, two = (known[f"own-self_consistency-n{n}-seed1"]["cost_per_problem"] for n in (4, 2))
    assert four > two > 0
    left = sum(run["cost_per_problem"] * PROBLEMS for name, run in known.items() if "seed1" in name)
    assert f"18 problems left, about {left:,.0f} tokens." in outthink("sweep", "many.toml", "--dry-run").out


def test_after_a_kill_it_goes_on_and_redoes_nothing(outthink: Any) -> None:
    """Killed in the middle of the third run: what was finished before stays as it is, byte for byte."""
    Path("slow.py").write_text(
        "from outthink.models.scripted import ScriptedEngine\n"
        "def reply(request, child, rng):\n"
        "    return f'#### {int(request.problem[1:]) + 1 + int(rng.random() < 0.5)}'\n"
        "def engine():\n"
        "    return ScriptedEngine(reply, name='slow', latency=lambda request, child: 0.05)\n"
    )
    Path("many.toml").write_text("concurrency = 1\n" + SWEEP.replace('"m"', '"slow:engine"'), encoding="utf-8")
    assert OUTTHINK.exists()
    with start("sweep", "many.toml", path=Path.cwd()) as process:
        for _ in range(4000):
            finished = sum(file.read_bytes().count(b"\n") for file in Path("runs").rglob("results.jsonl"))
            if finished > 2 * PROBLEMS + 1:
                break
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = {file: file.read_bytes().splitlines()[:-1] for file in Path("runs").rglob("results.jsonl")}
    assert finished > 2 * PROBLEMS
    result = finish(start("sweep", "many.toml", path=Path.cwd()))
    assert (result.code, result.err) == (0, "")
    assert "6 of 6 runs are finished" in result.out
    for file, lines in kept.items():
        assert file.read_bytes().splitlines()[: len(lines)] == lines
    for file in Path("runs").rglob("results.jsonl"):
        assert sorted(one.problem for one in read_results(file.parent)) == [f"p{n}" for n in range(PROBLEMS)]


def test_ctrl_c_keeps_what_is_finished(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def latency(request: Request, child: int) -> float:
        if request.problem != "p3":
            return 0.0
        signal.raise_signal(signal.SIGINT)
        return 3600.0

    def opened(name: str, *, price: object = None) -> ScriptedEngine:
        return ScriptedEngine(lambda request, child, rng: "#### 1", latency=latency)

    monkeypatch.setattr("outthink.models.open_engine", opened)
    monkeypatch.setattr("outthink.models.check_model", lambda name: None)
    Path("many.toml").write_text("concurrency = 1\n" + SWEEP, encoding="utf-8")
    result = outthink("sweep", "many.toml")
    assert result.code == 130
    assert "0 of 6 runs are finished" in result.out
    assert result.err == "Interrupted; 3 problems were finished now. Run the same command again to go on.\n"
