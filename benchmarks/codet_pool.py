"""Selection by generated tests (CodeT) on recorded programs and tests, against one random program and coverage.

    python benchmarks/codet_pool.py POOL [--tests 30] [--subsamples 200] [--n 1,10,100]

The pool has `samples` (text that completes `meta.prompt_used`, and `correct`), `generated_tests` (texts that go on
after "assert ") and `meta` with `entry_point` and `stop_tokens`. Programs and tests run in the sandbox; hidden tests
are not looked at, `correct` only measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outthink import jsonl
from outthink.laws.coverage import pass_at_k
from outthink.maths.intervals import mean_and_interval
from outthink.maths.selection import codes
from outthink.meter import Meter
from outthink.resources.metered_sandbox import MeteredSandbox
from outthink.sandbox.host import Limits, Sandbox
from outthink.strategies.parallel.codet import CodeT, consensus_choice, written_tests
from outthink.types import Budget, Candidate, Code, Problem


@dataclass(frozen=True)
class Ran:
    """One problem: which programs are equal, whether each passes each test, and whether it is right."""

    keys: np.ndarray[Any, Any]
    passes: np.ndarray[Any, Any]
    correct: np.ndarray[Any, Any]


def completed(text: str, stops: list[str]) -> str:
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends, default=len(text))].rstrip()


async def run(row: dict[str, Any], most: int, sandbox: Sandbox) -> Ran:
    meta = row["meta"]
    prompt = meta["prompt_used"]
    tests = written_tests([f"```\nassert {text}\n```" for text in row["generated_tests"]], [meta["entry_point"]])[:most]
    programs = [prompt + completed(sample["text"], meta["stop_tokens"]) for sample in row["samples"]]
    keys = codes(programs)
    problem = Problem(id=row["id"], messages=(), answer="code", code=Code(entry_point=meta["entry_point"]))
    executor = MeteredSandbox(sandbox, Meter(Budget()))
    strategy = CodeT(test_seconds=0.1)
    distinct = [programs[int(np.flatnonzero(keys == key)[0])] for key in range(int(keys.max()) + 1)]
    samples = [Candidate(address=("model", 0, index), answer=text) for index, text in enumerate(distinct)]
    passed = await asyncio.gather(*(strategy._passed(problem, sample, tests, executor) for sample in samples))
    matrix = np.array(passed).reshape(len(distinct), len(tests))
    return Ran(keys, matrix[keys], np.array([sample["correct"] for sample in row["samples"]]))


async def run_all(path: Path, most: int) -> list[Ran]:
    sandbox = Sandbox(Limits(seconds=6.0, cpu_seconds=6.0))
    try:
        return [await run(row, most, sandbox) for _, row in jsonl.read(path)]
    finally:
        await sandbox.close()


def selected(ran: Ran, n: int, subsamples: int, rng: np.random.Generator) -> float:
    size = len(ran.keys)
    orders = rng.permuted(np.tile(np.arange(size), (subsamples, 1)), axis=1)[:, :n]
    credits = []
    for order in orders:
        if ran.passes.shape[1] == 0:
            credits.append(float(ran.correct[order[0]]))
            continue
        choice = consensus_choice(ran.keys[order], ran.passes[order])
        credits.append(float(ran.correct[order[int(choice.index)]]))
    return float(np.mean(credits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pool", type=Path)
    parser.add_argument("--tests", type=int, default=30)
    parser.add_argument("--subsamples", type=int, default=200)
    parser.add_argument("--n", default="1,10,100")
    asked = parser.parse_args()
    every = asyncio.run(run_all(asked.pool, asked.tests))
    rng = np.random.default_rng(0)
    counts = {"problems": len(every), "without tests": sum(ran.passes.shape[1] == 0 for ran in every)}
    print(json.dumps(counts))
    print("| n | CodeT (95%) | coverage (95%) |\n| --- | --- | --- |")
    for n in map(int, asked.n.split(",")):
        chosen = mean_and_interval([selected(ran, n, asked.subsamples, rng) for ran in every])
        covered = mean_and_interval([float(pass_at_k(len(ran.correct), ran.correct.sum(), n)) for ran in every])
        shown = [f"{100 * mean:.1f}% ({100 * low:.1f}% to {100 * high:.1f}%)" for mean, low, high in (chosen, covered)]
        print(f"| {n} | {shown[0]} | {shown[1]} |")


if __name__ == "__main__":
    main()
