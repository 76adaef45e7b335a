"""Speed of `outthink replay`: the majority vote at every n, against the bytes that must be touched at least.

    python benchmarks/replay.py [POOL] [--subsamples 10000] [--most 64]

Without a pool it is run on 28 made-up problems with 128 samples and 4 answers. The floor is one pass over the random
orders and over one count for each answer at each n, at the speed with which this machine copies memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from outthink.records.pools import PoolData, PoolProblem, read_pool
from outthink.reports.curves import majority


def made_up() -> PoolData:
    rng = np.random.default_rng(0)
    keys = [rng.choice(4, size=128, p=rng.dirichlet(np.ones(4))) for _ in range(28)]
    problems = tuple(
        PoolProblem(
            id=str(number),
            keys=drawn.astype(np.intp),
            answers=(),
            correct=drawn == 0,
            tokens=None,
            prompt=None,
            logprobs=None,
            texts=None,
            complete=np.ones(128, dtype=bool),
            scores={},
        )
        for number, drawn in enumerate(keys)
    )
    return PoolData(path=Path("made up"), kind="iid", problems=problems, scorers=())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pool", nargs="?", type=Path)
    parser.add_argument("--subsamples", type=int, default=10_000)
    parser.add_argument("--most", type=int, default=64)
    asked = parser.parse_args()
    pool = made_up() if asked.pool is None else read_pool(asked.pool)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        majority(pool, range(1, asked.most + 1), subsamples=asked.subsamples, seed=0)
        seconds.append(time.perf_counter() - started)
    size = sum(
        asked.subsamples * (len(problem.correct) + asked.most * (int(problem.keys.max()) + 1))
        for problem in pool.problems
        if problem.keys is not None
    )
    block, target = np.ones(1 << 26, dtype=np.uint8), np.zeros(1 << 26, dtype=np.uint8)
    started = time.perf_counter()
    np.copyto(target, block)
    speed = len(block) / (time.perf_counter() - started)
    median = statistics.median(seconds)
    print(f"{len(pool.problems)} problems x {asked.subsamples:,} subsamples, n = 1 to {asked.most}: {median:.2f} s")
    print(
        f"at least {size / 1e6:,.0f} MB, {size / speed:.2f} s at {speed / 1e9:.1f} GB/s: {median * speed / size:.0f} x"
    )


if __name__ == "__main__":
    main()
