"""ETS against REBASE on the same questions in one run: what stays resident, and how fast it goes.

    python benchmarks/ets.py TASK --prompt-template TEXT [--width 16] [--limit 40] [--prm confidence] [--blocks 4]

The questions are cut into blocks; each block is solved by one method and then by the other, and the order changes
from block to block, so that a machine that slows down does so for both. Resident tokens are those that the paths of a
level hold together, mean over the levels of a question (see `outthink.records.sharing`).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from outthink import Sampling, make_strategy, solve_async, tasks
from outthink.maths.intervals import mean_and_interval
from outthink.models import open_engine
from outthink.records.sharing import sharing
from outthink.types import Trace


async def solved(examples: Sequence[Any], strategy: Any, engine: Any, options: argparse.Namespace) -> list[Trace]:
    """All of them at once, so that the batch is full."""
    async with asyncio.TaskGroup() as group:
        running = [
            group.create_task(
                solve_async(
                    example.problem,
                    strategy,
                    model=engine,
                    prm=options.prm,
                    sampling=Sampling(max_tokens=options.max_tokens),
                    seed=options.seed,
                )
            )
            for example in examples
        ]
    return [task.result() for task in running]


async def compare(options: argparse.Namespace) -> None:
    examples = tasks.load(options.task, limit=options.limit, template=options.prompt_template, seed=options.seed)
    made = {
        name: make_strategy(name, {"width": options.width, "delimiter": options.delimiter, "max_step_tokens": 64})
        for name in ("rebase", "ets")
    }
    traces: dict[str, list[Trace]] = {name: [] for name in made}
    speed: dict[str, list[float]] = {name: [] for name in made}
    engine = open_engine(options.model)
    try:
        await solved(examples[:2], made["rebase"], engine, options)  # the first step reads the template
        for block in range(options.blocks):
            part = examples[block :: options.blocks]
            for name in sorted(made, reverse=block % 2 == 0):
                started = time.perf_counter()
                solutions = await solved(part, made[name], engine, options)
                speed[name].append(len(part) / (time.perf_counter() - started))
                traces[name] += solutions
                print(f"block {block + 1}, {name}: {speed[name][-1]:.3f} questions/s", flush=True)
    finally:
        await engine.close()
    numbers = {name: [sharing(trace) for trace in kept] for name, kept in traces.items()}
    print(
        "\n| method | resident, mean | peak | written | shared | questions/s, median |\n|---|---:|---:|---:|---:|---:|"
    )
    for name, shared in numbers.items():
        resident, peak, unique = (
            float(np.mean([getattr(each, field) for each in shared])) for field in ("resident", "peak", "unique")
        )
        logical = sum(each.logical for each in shared) / sum(each.unique for each in shared)
        rate = statistics.median(speed[name])
        print(f"| {name} | {resident:.0f} | {peak:.0f} | {unique:.0f} | {logical:.2f} | {rate:.3f} |")
    saved = np.array([a.resident - b.resident for a, b in zip(numbers["rebase"], numbers["ets"], strict=True)])
    base = float(np.mean([each.resident for each in numbers["rebase"]]))
    scale = float(np.abs(saved).max()) or 1.0
    mean, low, high = (scale * value / base for value in mean_and_interval((saved / scale).tolist(), least=-1.0))
    ratios = [b / a for a, b in zip(speed["rebase"], speed["ets"], strict=True)]
    print(f"\nETS holds {100 * mean:.1f}% fewer resident tokens ({100 * low:.1f}% to {100 * high:.1f}%, 95%);")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"throughput of ETS over REBASE: median {statistics.median(ratios):.2f}, blocks {spread}")


def main() -> None:
    """Read the options and compare."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("task")
    options.add_argument("--prompt-template", required=True)
    options.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    options.add_argument("--prm", default="confidence")
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--delimiter", default="\n")
    options.add_argument("--max-tokens", type=int, default=128)
    options.add_argument("--limit", type=int, default=40)
    options.add_argument("--blocks", type=int, default=4)
    options.add_argument("--seed", type=int, default=3)
    asyncio.run(compare(options.parse_args()))


if __name__ == "__main__":
    main()
