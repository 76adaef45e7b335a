"""What the search loop itself costs for each node, with a model and a process reward that answer at once.

    python benchmarks/search_loop.py [--width 64] [--levels 20]

The first row is the loop alone: everything between the answers of the model and the scorer, and the next wishes. The
second one puts the metered model, the scorer's cache and the driver between them, and an engine that has its texts
ready. In both every node gets one child, so that no method's formula is timed; the rows below add those.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from outthink.answers.asking import ask
from outthink.driver import solve_async
from outthink.model import Draw, Model
from outthink.models.engine import Completion, EngineSpec, Progress, Request
from outthink.rewards import Path
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.making import make_strategy
from outthink.strategies.search.loop import Level, Rounds, search
from outthink.types import Candidate, Problem, Sampling, Usage

RUNS = 7


class Ready:
    """An engine whose steps are there at once; a path ends after `levels` of them."""

    spec = EngineSpec(name="ready", powers=frozenset({"prefix", "logprobs"}))

    def __init__(self, levels: int) -> None:
        self._levels = levels

    async def bound(self, request: Request) -> Usage:
        return Usage(prompt=10, completion=request.max_tokens)

    async def generate(self, request: Request, progress: Progress) -> None:
        progress.prompt = 10 * request.n
        last = request.prefix_text.count("\n") >= self._levels - 1
        for child in range(request.n):
            text = f"#### {request.child + child}" if last else f"step {request.child + child}\n"
            ids = tuple(map(ord, text))
            finish = "eos" if last else "stop"
            progress.finish(child, Completion(text=text, tokens=len(text), token_ids=ids, finish=finish))  # type: ignore[arg-type]  # mypy widens the literal

    def learn(self, request: Request, progress: Progress) -> None:
        pass

    async def close(self) -> None:
        pass


class Canned:
    """A model and a scorer in one, without any meter."""

    sampling = Sampling(max_tokens=4096)

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._asked = 0

    def lane(self, *path: str | int) -> Canned:
        return self

    async def sample_each(self, problem: Problem, draws: Sequence[Draw]) -> list[list[Candidate]]:
        self._asked += 1
        last = self._asked == self._levels
        return [
            [
                Candidate(
                    address=("model", self._asked, number, child),
                    parents=(draw.after.id,) if draw.after else (),
                    continues=draw.after is not None,
                    text="#### 4" if last else "step\n",
                    tokens=5,
                    finish="eos" if last else "stop",
                    complete=last,
                    key="4" if last else None,
                )
                for child in range(draw.n)
            ]
            for number, draw in enumerate(draws)
        ]

    async def attempt(self, problem: Problem, candidates: Sequence[Candidate]) -> list[float | None]:
        return [0.5] * len(candidates)


def one_each(level: Level) -> Any:
    """Every node gets one child."""
    return np.ones(len(level.nodes), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class OneEach:
    """Independent paths, grown step by step."""

    width: int
    levels: int

    async def run(self, problem: Problem, report: Report, *, model: Model, prm: Scores, rng: Rng) -> None:
        policy = Rounds(one_each, self.width, max_rounds=self.levels + 1)
        await search(policy, problem, report, model=model, prm=prm, rng=rng, max_step_tokens=64, delimiter="\n")


class Half:
    """Scores every path one half."""

    async def score(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        return [0.5] * len(paths)


async def alone(width: int, levels: int) -> tuple[float, int]:
    """Seconds and nodes of the loop without meter and driver."""
    canned: Any = Canned(levels)
    strategy = OneEach(width=width, levels=levels)

    def report(candidates: Sequence[Candidate], **said: Any) -> None:
        pass

    started = time.perf_counter()
    await strategy.run(
        ask("2+2?"), cast(Report, report), model=cast(Model, canned), prm=cast(Scores, canned), rng=Rng(0, "p")
    )
    return time.perf_counter() - started, width * levels


async def whole(strategy: Any, levels: int) -> tuple[float, int]:
    """Seconds and nodes with everything that a real run has."""
    started = time.perf_counter()
    trace = await solve_async(
        ask("2+2?"), strategy, model=Ready(levels), prm=Half(), sampling=Sampling(max_tokens=4096)
    )
    return time.perf_counter() - started, len(trace.candidates)


def main() -> None:
    """Print microseconds per node."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--levels", type=int, default=20)
    width, levels = (given := options.parse_args()).width, given.levels
    rows: dict[str, Any] = {
        "the loop alone": lambda: alone(width, levels),
        "with meter, trace and driver": lambda: whole(OneEach(width=width, levels=levels), levels),
    }
    for name in ("rebase", "beam", "dora", "ets", "particle_filter"):
        size = "n" if name == "particle_filter" else "width"
        strategy = make_strategy(name, {size: width, "delimiter": "\n"})
        rows[name] = lambda strategy=strategy: whole(strategy, levels)
    for name, measured in rows.items():
        each = []
        for _ in range(RUNS):
            seconds, nodes = asyncio.run(measured())
            each.append(1e6 * seconds / nodes)
        print(f"{name:30} {statistics.median(each):8.1f} us per node (width {width}, median of {RUNS})")


if __name__ == "__main__":
    main()
