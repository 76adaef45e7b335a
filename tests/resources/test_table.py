"""Resources: what a row says, what is opened by name, what a caller's object may have, and order over problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.bench.run import bench
from outthink.driver import solve_async
from outthink.errors import MissingResource, OutthinkError, UnknownName, UsageError
from outthink.meter import Meter
from outthink.model import Model
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import Result, read_results, read_settings
from outthink.resources.table import RESOURCES, close_resources, open_resources
from outthink.strategies import Report
from outthink.strategies.making import make_strategy
from outthink.tasks.example import Example
from outthink.types import Message, Problem, Sampling, Trace
from tests.tools.toys import problem
from tests.tools.virtual import run


@dataclass
class Notes:
    """A memory over problems; what a batch has written is read by the next ones."""

    ordered: int = 2
    version: str = "notes-1"
    closed: int = 0
    kept: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def metered(self, meter: Meter, problem: Problem) -> MeteredNotes:
        self.problems.append(problem.id)
        return MeteredNotes(self, meter)

    def learn(self, traces: Sequence[Trace]) -> None:
        self.kept += [trace.problem for trace in traces]

    async def close(self) -> None:
        self.closed += 1


@dataclass
class MeteredNotes:
    notes: Notes
    meter: Meter
    units: tuple[str, ...] = ("executions",)

    async def read(self) -> list[str]:
        async with self.meter.work("recall", "memory", ("memory", 0), worst={"executions": 1.0}, scope="run") as work:
            if work is not None:
                work.cost = {"executions": 1.0}
        return list(self.notes.kept)


@dataclass(frozen=True, kw_only=True)
class Remembering:
    async def run(self, problem: Problem, report: Report, *, model: Model, memory: MeteredNotes) -> None:
        known = await memory.read()
        message = Message(content=f"{problem.question} Known: {', '.join(known)}")
        samples = await model.sample(problem, messages=(message,))
        report(samples, chosen=samples[0])


@dataclass(frozen=True, kw_only=True)
class Delegating:
    """Runs another method with all that there is."""

    async def run(self, problem: Problem, report: Report, *, resources: Mapping[str, Any]) -> None:
        inner = make_strategy("self_consistency?n=2")
        await inner.run(problem, report, model=resources["model"])
        assert resources["resources"]["memory"] is resources["memory"]


def echo(request: Request, child: int, rng: np.random.Generator) -> str:
    return "#### 42"


def test_a_resource_that_a_caller_gives_is_metered_limited_and_named() -> None:
    notes = Notes(kept=["a"])
    trace = run(solve_async(problem(), Remembering(), model=ScriptedEngine(echo), resources={"memory": notes}))
    assert [(call.kind, call.role, call.scope) for call in trace.calls] == [
        ("recall", "memory", "run"),
        ("sample", "model", "problem"),
    ]
    assert trace.cost["executions"] == 1.0
    assert trace.resources["memory"] == "notes-1"
    assert notes.problems == ["p"]
    with pytest.raises(UsageError, match="Nothing here counts executions"):
        run(solve_async(problem(), make_strategy("greedy"), model=ScriptedEngine(echo), budget="3-executions"))


def test_what_is_missing_is_said_with_how_to_supply_it() -> None:
    with pytest.raises(MissingResource, match=r"memory.*--resource memory="):
        run(solve_async(problem(), Remembering(), model=ScriptedEngine(echo)))


def test_a_strategy_that_runs_others_gets_all_there_is() -> None:
    trace = run(solve_async(problem(), Delegating(), model=ScriptedEngine(echo), resources={"memory": Notes()}))
    assert trace.answer == "42"


def go(folder: Path, notes: Notes, **options: Any) -> list[str | None]:
    """What each problem was asked now, in order of the problems."""
    asked: dict[str, str] = {}

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked[request.problem] = request.messages[-1].text
        return "#### 1"

    # later problems are quicker, so that order is not by chance
    engine = ScriptedEngine(reply, latency=lambda request, child: 9.0 - int(request.problem[1:]))
    examples = [Example(Problem(id=f"q{i}", messages=(Message(content=f"{i}?"),)), ("1",)) for i in range(5)]
    run(
        bench(
            examples,
            Remembering(),
            store=folder,
            model=engine,
            sampling=Sampling(max_tokens=20),
            resources={"memory": notes},
            **options,
        )
    )
    return [asked.get(f"q{i}") for i in range(5)]


@pytest.mark.parametrize("concurrency", [1, 2, 16])
def test_what_learns_from_problems_goes_through_them_in_order_in_batches(concurrency: int, tmp_path: Path) -> None:
    notes = Notes()
    first, known = "Known: ", "q0, q1"
    assert go(tmp_path / "run", notes, concurrency=concurrency) == [
        f"0? {first}",
        f"1? {first}",
        f"2? {first}{known}",
        f"3? {first}{known}",
        f"4? {first}{known}, q2, q3",
    ]
    assert notes.kept == [f"q{i}" for i in range(5)]
    assert read_settings(tmp_path / "run")["versions"] == {"memory": "notes-1"}
    assert [result.credit for result in read_results(tmp_path / "run")] == [1.0] * 5


def test_a_run_that_is_gone_on_with_learns_what_it_had_learned(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", Notes())
    go(tmp_path / "run", Notes())
    results = tmp_path / "run" / "results.jsonl"
    results.write_text("".join(results.read_text().splitlines(keepends=True)[:3]))  # cut off within the second batch
    notes = Notes()
    again = go(tmp_path / "run", notes)
    assert again == [None, None, whole[2], None, whole[4]]  # q3 ended before q2
    assert notes.kept == [f"q{i}" for i in range(5)]


def test_what_needs_order_is_not_cut_into_shards_or_gone_on_with_otherwise(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave the shard out"):
        go(tmp_path / "one", Notes(), shard=(0, 2))
    go(tmp_path / "two", Notes())
    with pytest.raises(OutthinkError, match="versions"):
        go(tmp_path / "two", Notes(version="notes-2"))
    with pytest.raises(OutthinkError, match="ordered is 2 there, 3 now"):
        go(tmp_path / "two", Notes(ordered=3))
    for ordered in (-1, 2.5, "2"):
        with pytest.raises(UsageError, match="must be a number of problems"):
            go(tmp_path / "three", Notes(ordered=ordered))  # type: ignore[arg-type]


def test_learning_reads_what_is_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not anew with each batch, which would take the square of the number of problems."""
    read = 0

    def counted(folder: Path) -> Iterator[Result]:
        nonlocal read
        for result in read_results(folder):
            read += 1
            yield result

    monkeypatch.setattr("outthink.bench.run.read_results", counted)
    go(tmp_path / "run", Notes(ordered=1))
    assert read == 5  # for the summary
    go(tmp_path / "run", Notes(ordered=1))
    assert read == 15


# --------------------------------------------------------------------------------------------------------- by name


def test_a_resource_is_opened_by_name_with_options_and_closed() -> None:
    opened = open_resources([f"memory={__name__}:Notes?ordered=3&version=x"])
    (notes,) = opened.values()
    assert isinstance(notes, Notes)
    assert (notes.ordered, notes.version) == (3, "x")
    run(close_resources(opened))
    assert notes.closed == 1


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        (["memory"], UsageError, "write NAME=GIVEN"),
        (["memory="], UsageError, "write NAME=GIVEN"),
        (["memmory=a:b"], UnknownName, "did you mean 'memory'"),
        (["model=a:b"], UsageError, "--model NAME"),
        (["memory=nowhere"], UsageError, "module:Name"),
        (["memory=nowhere:Thing"], UsageError, "Cannot load"),
        ([f"memory={__name__}:Notes?order=3"], UnknownName, "ordered"),
        ([f"memory={__name__}:Notes", f"memory={__name__}:Notes"], UsageError, "twice"),
    ],
)
def test_bad_resources_get_one_sentence(given: list[str], kind: type[UsageError], says: str) -> None:
    with pytest.raises(kind, match=says):
        open_resources(given)


def test_every_row_says_how_it_is_supplied() -> None:
    for name, row in RESOURCES.items():
        assert row.annotation
        assert row.supply
        assert row.given or f"--resource {name}=" in row.supply
