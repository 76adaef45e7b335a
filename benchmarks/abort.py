"""What is written after the decision to cut a sample: tokens and milliseconds, by how many are written side by side.

Usage: python benchmarks/abort.py MODEL [--at-once 1,8,32] [--after 40] [--times 20]

Each sample is a call of its own, as strategies that cut make it. The decision falls where its piece number `--after` is
told, for one sample of those side by side; the others go on. Written after it are the tokens that the call is charged
beyond those pieces: what was written but not yet told, and what the engine may write until it hears of the end.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from outthink.meter import charged_of_each
from outthink.models import open_engine
from outthink.models.engine import Engine, Progress, Request
from outthink.reports.tables import markdown_table
from outthink.types import Message

PROMPT = "Write a long story about a lighthouse."


async def cut(engine: Engine, at_once: int, after: int, number: int) -> tuple[int, float]:
    """Tokens charged beyond the pieces that were told, and seconds from the decision to the end of the call."""
    told, decided = 0, asyncio.Event()

    def hear(child: int, piece: Mapping[str, Any]) -> None:
        nonlocal told
        if not decided.is_set() and (piece.get("delta") or {}).get("content"):
            told += 1
            if told == after:
                decided.set()

    def request(place: int) -> Request:
        seed = number * at_once + place
        return Request(messages=(Message(content=PROMPT),), max_tokens=after * 6, temperature=1.0, seeds=(seed,))

    progress = Progress(n=1, listen=hear)
    others = [asyncio.ensure_future(engine.generate(request(place), Progress(n=1))) for place in range(1, at_once)]
    writing = asyncio.ensure_future(engine.generate(request(0), progress))
    await asyncio.wait((writing, asyncio.ensure_future(decided.wait())), return_when=asyncio.FIRST_COMPLETED)
    started = time.perf_counter()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    seconds = time.perf_counter() - started
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    bound = await engine.bound(request(0))
    return charged_of_each(progress, bound)[0].completion - told, seconds


async def measured(engine: Engine, sizes: list[int], after: int, times: int) -> list[tuple[str, ...]]:
    """A row for each number of samples side by side."""
    rows: list[tuple[str, ...]] = []
    for at_once in sizes:
        each = [await cut(engine, at_once, after, number) for number in range(times)]
        tokens, seconds = np.array(each).T
        rows.append(
            (
                str(at_once),
                f"{tokens.mean():.1f}",
                f"{np.quantile(tokens, 0.9):.0f}",
                f"{tokens.max():.0f}",
                f"{1000 * np.median(seconds):.1f}",
            )
        )
    return rows


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--at-once", default="1,8,32")
    parser.add_argument("--after", type=int, default=40)
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()

    async def go() -> list[tuple[str, ...]]:
        engine = open_engine(given.model)
        try:
            return await measured(engine, [int(one) for one in given.at_once.split(",")], given.after, given.times)
        finally:
            await engine.close()

    rows = asyncio.run(go())
    print(markdown_table(("side by side", "tokens after, mean", "90%", "most", "ms to the end, median"), rows))


if __name__ == "__main__":
    main()
