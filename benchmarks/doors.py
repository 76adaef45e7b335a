"""Fifty questions as people ask them through `outthink solve` and `outthink serve`: what is chosen, shown and spent.

    python benchmarks/doors.py [--model smollm2-135m-instruct] [--max-tokens 32] [--n 4]

A row is a model, a door and a group of questions; the columns are how many of them were decided in which way, how many
showed a text, how many had the right answer (the free ones have none), and samples and tokens each. The scripted model
is that of the tests, whose tokens are characters. First it says how alike replies are (mean chrF) to the same free
question and to different ones, which is where `ALIKE` of `outthink.strategies.free_form` comes from.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from outthink.models import open_engine
from outthink.models.engine import Engine
from outthink.server.models import Served
from outthink.strategies.free_form import ALIKE
from outthink.strategies.parallel.mbr import chrf
from outthink.types import Sampling

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tools.questions import QUESTIONS, Kept, Question, Shown, by_question, commanded, through_serve, through_solve
from tests.tools.serving import serving

GROUPS = ("free", "checkable", "structured")
WAYS = ("vote", "mbr", "first", "cut off")
_AT_ONCE = 10  # requests


def solved(engine: Engine, n: int, max_tokens: int) -> list[tuple[Question, Shown]]:
    words = ("--n", str(n), "--max-tokens", str(max_tokens))
    with tempfile.TemporaryDirectory() as folder, commanded(engine):
        return [(question, through_solve(question, Path(folder), *words)) for question in QUESTIONS]


async def served(engine: Engine, n: int, max_tokens: int) -> list[tuple[Question, Shown]]:
    models = Served({"m": cast("Engine", Kept(engine))})
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(question: Question, url: str) -> tuple[Question, Shown]:
        async with places:
            return question, await through_serve(question, url, "m")

    async with serving("", strategy=f"auto?n={n}", served=models, settings={"max_tokens": max_tokens}) as (url, _):
        return await asyncio.gather(*(one(question, url) for question in QUESTIONS))


def row(name: str, door: str, group: str, seen: Sequence[tuple[Question, Shown]]) -> str:
    shown = [(question, got) for question, got in seen if question.group == group]
    ways = [str(sum(got.chosen == way for _, got in shown)) for way in WAYS]
    texts = sum(bool(got.text) for _, got in shown)
    right = sum(_right(question, got) for question, got in shown)
    samples, tokens = (np.mean([getattr(got, what) for _, got in shown]) for what in ("samples", "tokens"))
    told = "" if group == "free" else str(right)
    cells = [name, door, group, str(len(shown)), *ways, str(texts), told, f"{samples:.1f}", f"{tokens:.0f}"]
    return f"| {' | '.join(cells)} |"


def _right(question: Question, got: Shown) -> bool:
    """Whether the right answer is what was read, or stands as a word in what is shown of a reply in one's own words."""
    if question.right is None:
        return False
    words = re.findall(r"[\w.%-]*\w", (got.text or "").lower()) if question.group == "checkable" else []
    return got.answer == question.right or question.right.lower() in words


async def likeness(engine: Engine, max_tokens: int) -> tuple[float, float]:
    """Mean chrF of replies to the same free question, and the 99th percentile of those to different ones."""
    from outthink import ask, solve_async
    from outthink.strategies.parallel.self_consistency import SelfConsistency

    sampling = Sampling(max_tokens=max_tokens)
    free = (one.text for one in QUESTIONS if one.group == "free")
    traces = await asyncio.gather(
        *(solve_async(ask(text), SelfConsistency(n=4), model=engine, sampling=sampling) for text in free)
    )
    texts = [[one.text for one in trace.candidates] for trace in traces]
    alike = chrf([text for group in texts for text in group])
    owner = np.repeat(np.arange(len(texts)), [len(group) for group in texts])
    same = (owner[:, None] == owner) & ~np.eye(len(owner), dtype=bool)
    return float(alike[same].mean()), float(np.quantile(alike[owner[:, None] != owner], 0.99))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--n", type=int, default=4)
    asked = parser.parse_args()
    real = open_engine(asked.model)
    same, others = asyncio.run(likeness(real, asked.max_tokens))
    print(f"chrF to the same question {same:.2f} on average, to others {others:.2f} at the 99th percentile; {ALIKE=}\n")
    print(f"| model | door | questions | asked | {' | '.join(WAYS)} | shown | right | samples | tokens |")
    print("|---|---|---|" + "---:|" * 9, flush=True)
    for name, engine, most in (("scripted", by_question([]), 512), (asked.model, real, asked.max_tokens)):
        for door in ("serve", "solve"):
            solving = door == "solve"
            seen = solved(engine, asked.n, most) if solving else asyncio.run(served(engine, asked.n, most))
            for group in GROUPS:
                print(row(name, door, group, seen), flush=True)


if __name__ == "__main__":
    main()
