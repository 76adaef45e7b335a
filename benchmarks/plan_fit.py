"""Time and memory of fitting a policy on 1,000, 10,000 and 100,000 problems of 16 samples.

    python benchmarks/plan_fit.py [--problems 1000,10000,100000]

Each size runs in a process of its own, whose peak memory is that of the whole process; reading the pool is not counted,
since that is JSON.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np

from outthink.models.engine import EngineSpec
from outthink.planner.cases import material
from outthink.planner.fit import fit_policy
from outthink.records.pools import PoolData, PoolProblem

SAMPLES = 16


def pool(problems: int) -> PoolData:
    """Problems of all difficulties, with mean logprobs that tell a little."""
    rng = np.random.default_rng(0)
    rows = []
    for number, rate in enumerate(rng.beta(0.6, 0.9, problems)):
        right = rng.random(SAMPLES) < rate
        keys = np.where(right, 0, 1 + rng.integers(0, 6, SAMPLES)).astype(np.intp)
        rows.append(
            PoolProblem(
                id=f"q{number}",
                keys=keys,
                answers=tuple(map(str, range(7))),
                correct=right,
                tokens=rng.integers(100, 400, SAMPLES),
                prompt=100,
                logprobs=-1 + 0.2 * right + 0.2 * rng.standard_normal(SAMPLES),
                texts=None,
                complete=np.ones(SAMPLES, dtype=bool),
                scores={},
            )
        )
    return PoolData(path=Path("simulated"), kind="iid", problems=tuple(rows), scorers=())


def measure(problems: int) -> None:
    made = pool(problems)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    recorded = material(made, spec=EngineSpec(name="simulated"))
    fit_policy(recorded)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    print(f"| {problems:,} | {seconds:.1f} | {peak:.2f} | {before * unit / 1e9:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", default="1000,10000,100000")
    print("| problems | seconds | peak GB | of it the pool |\n| --- | --- | --- | --- |", flush=True)
    context = multiprocessing.get_context("spawn")
    for size in parser.parse_args().problems.split(","):
        process = context.Process(target=measure, args=(int(size),))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
