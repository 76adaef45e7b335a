"""Recordings made for tests: runs of a scripted engine, and files as others write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink.bench.run import bench
from outthink.models.engine import Price, Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import Result, Store
from outthink.strategies.making import make_strategy
from outthink.tasks.example import Example
from outthink.types import Budget, Call, Candidate, Message, Problem, Round, Sampling, Trace, Usage
from tests.tools.virtual import run

if TYPE_CHECKING:
    import numpy as np


def examples(count: int) -> list[Example]:
    return [
        Example(Problem(id=f"p{i}", messages=(Message(content=f"What is {i} + 1?"),)), (str(i + 1),))
        for i in range(count)
    ]


def adds(right: float) -> Callable[[Request, int, np.random.Generator], str]:
    """Adds 1 with this probability, else 2; in two steps where it may go on."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.stop and not request.prefix_text:
            return f"First, look at the numbers.{request.stop[0]}"
        answer = int(request.problem[1:]) + (1 if rng.random() < right else 2)
        return f"So it is $x = {answer}$.\n#### {answer}"

    return reply


def write_run(folder: Path, strategy: str, *, right: float = 0.7, count: int = 8, **parts: Any) -> Path:
    engine = ScriptedEngine(
        adds(right), latency=lambda request, child: 1 + child / 10, price=Price(prompt=1.0, completion=2.0)
    )
    sampling = Sampling(max_tokens=200)
    run(
        bench(
            examples(count),
            make_strategy(strategy),
            store=folder,
            model=engine,
            sampling=sampling,
            task="own.jsonl",
            **parts,
        )
    )
    return folder


def trace_of(
    problem: str, texts: Sequence[str], *, answer: str | None = "1", notes: Sequence[str] = (), question: str = "?"
) -> Trace:
    """A trace with these whole answers, of which the last one is chosen."""
    candidates = tuple(
        Candidate(address=("model", 0, place), text=text, tokens=len(text), answer=answer, key=answer)
        for place, text in enumerate(texts)
    )
    used = Usage(prompt=3, completion=sum(map(len, texts)))
    call = Call(
        kind="sample", role="model", address=("model", 0, 0), n=len(texts), seen=used, charged=used, prompt=0,
        ended=1.0, cost={"tokens": float(used.tokens)},
    )  # fmt: skip
    last = Round(
        candidates=tuple(one.id for one in candidates), chosen=candidates[-1].id, answer=answer, key=answer, at=1.0
    )
    return Trace(
        problem=problem, strategy={"name": "self_consistency", "n": len(texts)}, seed=0, sampling=Sampling(),
        budget=Budget(), resources={"model": "scripted"}, candidates=candidates, rounds=(last,), calls=(call,),
        stopped="finished", notes=tuple(notes), seconds=1.0, prompts=((Message(content=question),),),
    )  # fmt: skip


def tree_of(nodes: int, children: int = 4) -> Trace:
    """A search of so many steps, each of which has up to so many children."""
    candidates: list[Candidate] = []
    for place in range(nodes):
        above = candidates[(place - 1) // children] if place else None
        candidates.append(
            Candidate(
                address=("model", place, 0), parents=() if above is None else (above.id,), continues=above is not None,
                text=f"Step {place}.\n", tokens=5, complete=place * children + 1 >= nodes, answer=str(place % 7),
                key=str(place % 7),
            )
        )  # fmt: skip
    ends = [one for one in candidates if one.complete][::2]
    used = Usage(prompt=3, completion=5)
    calls = tuple(
        Call(
            kind="sample", role="model", address=one.address, seen=used, charged=used, prompt=0, started=float(place),
            ended=place + 1.0, cost={"tokens": 8.0}, after=one.parents[0] if one.parents else None,
        )
        for place, one in enumerate(candidates)
    )  # fmt: skip
    rounds = tuple(
        Round(
            candidates=tuple(one.id for one in ends[: place + 1]), chosen=ends[place].id, answer=ends[place].answer,
            scores=tuple((7 * i % 10) / 10 for i in range(place + 1)), key=ends[place].key, at=float(nodes),
        )
        for place in range(0, len(ends), max(1, len(ends) // 5))
    )  # fmt: skip
    scores = {"prm": {one.id: (place * 37 % 100) / 100 for place, one in enumerate(candidates)}}
    return Trace(
        problem=f"tree of {nodes}", strategy={"name": "beam"}, seed=0, sampling=Sampling(), budget=Budget(),
        resources={"model": "scripted"}, candidates=tuple(candidates), rounds=rounds, calls=calls, stopped="finished",
        seconds=float(nodes), prompts=((Message(content="Search."),),), scores=scores,
    )  # fmt: skip


def write_results(folder: Path, results: Sequence[Result], **settings: Any) -> Path:
    """A run directory with these results."""
    asked = {"task": "own.jsonl", "strategy": {"name": "self_consistency", "n": 2}, "models": {"model": "scripted"}}
    problems = [result.problem for result in results]
    with Store(folder, {**asked, "seed": 0, "shard": None, "problems": problems, **settings}) as store:
        for result in results:
            store.record(result, sync=False)
    return folder


def write_lines(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    """A file with these objects, or with texts as they are, one a line."""
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path
