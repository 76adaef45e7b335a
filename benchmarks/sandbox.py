"""Measures how many short programs a second the sandbox runs, against starting Python as often.

    OUTTHINK_DATA=DIR python benchmarks/sandbox.py [--programs 1000] [--workers N]

The programs are HumanEval's own solutions with their tests, from humaneval/test.jsonl in OUTTHINK_DATA; without it, a
few programs of that size that are built in. The floor is `python -I -S -c pass`, as many at once as the sandbox has
workers. Blocks of both take turns, so that what else the machine does hits both. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from outthink.sandbox.host import Sandbox

BUILT_IN = (
    """
from typing import List


def has_close_elements(numbers: List[float], threshold: float) -> bool:
    return any(abs(a - b) < threshold for i, a in enumerate(numbers) for b in numbers[i + 1 :])


assert has_close_elements([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3)
assert not has_close_elements([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.05)
""",
    """
import math


def primes(end):
    return [n for n in range(2, end) if all(n % d for d in range(2, math.isqrt(n) + 1))]


assert primes(30) == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
assert len(primes(5000)) == 669
""",
    """
import re
from collections import Counter


def commonest(text):
    return Counter(re.findall(r"[a-z]+", text.lower())).most_common(1)[0]


assert commonest("The cat and the dog and the bird") == ("the", 3)
""",
)


def programs(count: int) -> list[str]:
    """As many as asked for, the file's over and over."""
    folder = os.environ.get("OUTTHINK_DATA")
    if folder is None:
        print("OUTTHINK_DATA is not set: a few built-in programs take the place of HumanEval's.")
        return list(islice(cycle(BUILT_IN), count))
    sources = []
    for line in (Path(folder) / "humaneval" / "test.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        meta = row["meta"]
        sources.append(f"{row['question']}{row['answer']}\n{meta['test']}\ncheck({meta['entry_point']})")
    return list(islice(cycle(sources), count))


async def sandboxed(sandbox: Sandbox, sources: list[str]) -> float:
    """Seconds of all programs, as many at once as there are workers; all must be ok."""
    started = time.perf_counter()
    ran = await asyncio.gather(*(sandbox.run(source) for source in sources))
    seconds = time.perf_counter() - started
    bad = [each.error for each in ran if each.outcome != "ok"]
    if bad:
        raise SystemExit(f"{len(bad)} programs did not end well, the first with: {bad[0]}")
    return seconds


def python_started(workers: int, count: int) -> float:
    """Seconds of starting and ending Python `count` times."""

    def start(_: int) -> None:
        command = [sys.executable, "-I", "-S", "-c", "pass"]
        os.waitpid(os.posix_spawn(command[0], command, os.environ), 0)

    with ThreadPoolExecutor(workers) as threads:
        started = time.perf_counter()
        list(threads.map(start, range(count)))
        return time.perf_counter() - started


async def measure(arguments: argparse.Namespace) -> None:
    sources = programs(arguments.programs)
    sandbox = Sandbox(workers=arguments.workers)
    ours: list[float] = []
    floor: list[float] = []
    try:
        await sandboxed(sandbox, sources[: arguments.block])  # both have been on the disk's way once
        python_started(sandbox.workers, arguments.block)
        for start in range(0, len(sources), arguments.block):
            block = sources[start : start + arguments.block]
            ours.append(len(block) / await sandboxed(sandbox, block))
            floor.append(len(block) / python_started(sandbox.workers, len(block)))
            print(f"sandbox {ours[-1]:.0f} programs/s, starting Python {floor[-1]:.0f}/s", flush=True)
    finally:
        await sandbox.close()
    ratios = [mine / theirs for mine, theirs in zip(ours, floor, strict=True)]
    print(
        f"{len(sources)} programs, {sandbox.workers} at once, medians of {len(ours)} blocks of {arguments.block}: "
        f"sandbox {statistics.median(ours):.0f} programs/s, starting Python {statistics.median(floor):.0f}/s, "
        f"ratio {statistics.median(ratios):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--block", type=int, default=50, help="programs between two measurements of the floor")
    parser.add_argument("--workers", type=int, default=None, help="programs at once (default: processors)")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
