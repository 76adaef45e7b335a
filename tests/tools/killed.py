"""Runs a benchmark in child processes that are killed at random moments, and checks after every kill what is kept.

`python -m tests.tools.killed FOLDER SEED KILLS` prints what happened as JSON. Children are forked from one process that
has imported everything, so that fifty of them take seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.bench.run import Standing, bench
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import RESULTS
from outthink.rng import digest
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.tasks.example import Example
from outthink.types import Message, Problem, Sampling

if TYPE_CHECKING:
    import numpy as np

PROBLEMS = 250
CONCURRENCY = 3
SAMPLING = Sampling(max_tokens=30_000)


def examples() -> list[Example]:
    return [
        Example(Problem(id=f"p{i}", messages=(Message(content=f"{i} + 1?"),)), (str(i + 1),)) for i in range(PROBLEMS)
    ]


def engine() -> ScriptedEngine:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        number = int(request.problem[1:]) + 1 + int(rng.random() < 0.4)
        return "x" * int(rng.integers(1_000)) + f"\n#### {number}"

    def latency(request: Request, child: int) -> float:
        return 0.01 + digest(1, request.problem, child) / 2**64 * 0.06

    return ScriptedEngine(reply, latency=latency)


async def run(folder: Path, tell: int | None = None, limit: int | None = None) -> None:
    def acknowledged(standing: Standing) -> None:
        if tell is not None and standing.result is not None:
            os.write(tell, f"{standing.result.problem}\n".encode())

    await bench(
        examples()[:limit],
        SelfConsistency(n=2),
        store=folder,
        model=engine(),
        sampling=SAMPLING,
        concurrency=CONCURRENCY,
        on_progress=acknowledged,
    )


def in_pieces(handle: int, data: bytes, write: Callable[[int, bytes], int] = os.write) -> int:
    """A system may write less than it is asked to; it also takes its time here, so that many kills fall into it."""
    time.sleep(0.0002)
    return write(handle, data[:512])


def start(folder: Path) -> tuple[int, int]:
    """The process id of a child that runs the benchmark, and where it tells what it has recorded."""
    listen, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write = in_pieces  # type: ignore[assignment]  # it takes bytes only, which is what it is given
        try:
            asyncio.run(run(folder, tell))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(tell)
    return child, listen


def main(folder: Path, seed: int, kills: int) -> None:
    with tempfile.TemporaryDirectory() as warm:
        asyncio.run(run(Path(warm), limit=1))  # so that no child spends its short life on imports
    moments = random.Random(seed)
    whole, known, torn, fruitful = b"", set[str](), 0, 0
    killed = 0
    while True:
        child, listen = start(folder)
        if killed < kills:
            time.sleep(moments.uniform(0, 0.2))
            os.kill(child, signal.SIGKILL)
        with os.fdopen(listen, "rb") as pipe:
            told = pipe.read().decode().split()
        _, status = os.waitpid(child, 0)
        content = (folder / RESULTS).read_bytes() if (folder / RESULTS).exists() else b""
        assert content.startswith(whole), "a finished line was lost or changed"
        end = content.rfind(b"\n") + 1
        torn += end < len(content)
        new = [json.loads(line)["problem"] for line in content[len(whole) : end].splitlines()]
        assert len({*known, *new}) == len(known) + len(new), "a finished problem was done again"
        assert set(told) <= set(new), "a problem was said to be finished and is not there"
        fruitful += bool(new)
        whole, known = content[:end], known | set(new)
        if os.WIFSIGNALED(status):
            killed += 1
        else:
            assert os.WEXITSTATUS(status) == 0, "a run failed"
            break
    print(json.dumps({"killed": killed, "torn": torn, "fruitful": fruitful, "finished": len(known)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
