"""What is written after the decision to cut a sample: tokens and milliseconds, by how many are written side by side.

Usage: python benchmarks/abort.py MODEL [--at-once 1,8,32] [--after 40] [--times 20] [-o abort.csv]

Each sample is a call of its own, as strategies that cut make it. The decision falls where `--after` pieces of one
sample of those side by side have come; the others write on for as long again. Charged after it are the tokens that the
call is charged beyond those seen by then: what was written but not yet told, and what the engine may write until it
hears of the end. Of a vLLM server that nobody else uses its own count is told, too: all that it wrote less what the
others wrote and what was seen; it counts no token that was made when it had already heard of the end.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from outthink.meter import charged_of_each
from outthink.models import open_engine
from outthink.models.engine import Engine, Progress, Request
from outthink.records.frames import Frame
from outthink.reports.tables import markdown_table
from outthink.types import Message

PROMPT = "Write a long story about a lighthouse."
_COUNTED = "vllm:generation_tokens_total"
_SETTLED = 0.5  # seconds after which a server has counted what it wrote


def generated(model: str) -> float:
    """Tokens that the server has written so far, by its own count; NaN where the model is no server that tells."""
    if not model.startswith("http"):
        return float("nan")
    time.sleep(_SETTLED)
    with urllib.request.urlopen(model.partition("#")[0].removesuffix("/v1") + "/metrics") as reply:
        lines = reply.read().decode().splitlines()
    counts = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(_COUNTED)]
    return sum(counts) if counts else float("nan")


async def cut(engine: Engine, model: str, at_once: int, after: int, number: int) -> tuple[float, float, float]:
    """Tokens after the decision as charged and as the server counts them, and seconds until the call has ended."""
    pieces, seen, decided = 0, 0, asyncio.Event()

    def hear(child: int, piece: Mapping[str, Any]) -> None:
        nonlocal pieces, seen
        if not decided.is_set() and (piece.get("delta") or {}).get("content"):
            pieces += 1
            if pieces == after:
                seen = progress.tokens[child]
                decided.set()

    def request(place: int, most: int) -> Request:
        seed = number * at_once + place
        return Request(messages=(Message(content=PROMPT),), max_tokens=most, temperature=1.0, seeds=(seed,))

    before = await asyncio.to_thread(generated, model)
    progress, beside = Progress(n=1, listen=hear), [Progress(n=1) for _ in range(1, at_once)]
    others = [
        asyncio.ensure_future(engine.generate(request(place, after * 2), one)) for place, one in enumerate(beside, 1)
    ]
    writing = asyncio.ensure_future(engine.generate(request(0, after + 100), progress))
    waiting = asyncio.ensure_future(decided.wait())
    await asyncio.wait((writing, waiting), return_when=asyncio.FIRST_COMPLETED)
    started = time.perf_counter()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    seconds = time.perf_counter() - started
    waiting.cancel()
    if not decided.is_set():
        raise SystemExit(f"a sample ended before its piece {after}: decide earlier, with --after")
    await asyncio.gather(*others)
    made = await asyncio.to_thread(generated, model) - before - sum(one.tokens[0] for one in beside)
    bound = await engine.bound(request(0, after + 100))
    return charged_of_each(progress, bound)[0].completion - seen, made - seen, seconds


async def measured(engine: Engine, model: str, sizes: list[int], after: int, times: int) -> list[dict[str, float]]:
    """A row for each number of samples side by side."""
    rows: list[dict[str, float]] = []
    for at_once in sizes:
        each = []
        for number in range(times):
            each.append(await cut(engine, model, at_once, after, number))
            print(f"{at_once} side by side:", *(f"{value:.3g}" for value in each[-1]), file=sys.stderr, flush=True)
        charged, made, seconds = np.array(each).T
        rows.append(
            {
                "side by side": at_once,
                "cuts": times,
                "charged after, mean": round(float(charged.mean()), 1),
                "charged after, most": float(charged.max()),
                "counted after, mean": round(float(made.mean()), 1),
                "counted after, most": float(made.max()),
                "ms to the end, median": round(1000 * float(np.median(seconds)), 1),
            }
        )
    return rows


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--at-once", default="1,8,32")
    parser.add_argument("--after", type=int, default=40)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()

    async def go() -> list[dict[str, float]]:
        engine = open_engine(given.model)
        try:
            sizes = [int(one) for one in given.at_once.split(",")]
            return await measured(engine, given.model, sizes, given.after, given.times)
        finally:
            await engine.close()

    rows = asyncio.run(go())
    print(markdown_table(tuple(rows[0]), [tuple(f"{value:g}" for value in row.values()) for row in rows]))
    if given.out is not None:
        given.out.write_text(Frame.of_rows(rows).csv(), encoding="utf-8")


if __name__ == "__main__":
    main()
