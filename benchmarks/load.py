"""What bursts do to a server: with a fixed price of compute, with shedding, and with a price that follows the load.

    python benchmarks/load.py [--seeds 5]

A simulation, in virtual time: the gate, the choice of strategies and `auto` (without a plan) are those of the server;
callers, questions and the model are made up. Questions come at random, some a second in quiet times and many in bursts.
Each has a chance of a right sample of its own (a Beta distribution) and six wrong answers. The model takes two
seconds for a sample while at most 64 are written at once, and longer in proportion where there are more.

Shown for each way, with 90% intervals over seeds: right answers among all that were asked and among those answered,
refusals (429), requests that were answered late (half of the deadline or more), seconds, and samples for an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from outthink.answers.reader import Reader
from outthink.driver import solve_async
from outthink.meter import Meter
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.planner.auto import Auto
from outthink.server.asked import read
from outthink.server.body import Sizes
from outthink.server.gate import Busy, Gate
from outthink.server.routing import ServerRules, choose
from outthink.types import Budget, Message, Problem, Sampling

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tools.virtual import run

PLACES, QUEUE, DEADLINE = 64, 64, 30.0
AT_ONCE, SAMPLE = 64, 2.0
QUIET, BURST = 1.5, 14.0  # requests a second
PERIOD, BURSTS = 120.0, 30.0  # seconds, and how many of them are a burst
LENGTH = 360.0
WAYS = ("fixed price", "shedding", "price follows load")
ASKED = read(json.dumps({"model": "m", "messages": [{"role": "user", "content": "?"}]}).encode(), {}, Sizes())
RULES = ServerRules(strategy=Auto(), answer="math")


@dataclass
class Outcome:
    """What became of the requests of one run."""

    offered: int = 0
    right: int = 0
    refused: int = 0
    empty: int = 0
    seconds: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)

    def measures(self) -> dict[str, float]:
        answered = len(self.seconds)
        return {
            "right of all": self.right / self.offered,
            "right of answered": self.right / max(1, answered),
            "refused": self.refused / self.offered,
            "no answer in time": self.empty / self.offered,
            "seconds, median": statistics.median(self.seconds),
            "seconds, p95": float(np.quantile(self.seconds, 0.95)),
            "samples": statistics.fmean(self.samples),
        }


def arrivals(rng: np.random.Generator) -> list[float]:
    """Poisson, at one rate in quiet times and at another in bursts."""
    times, now = [], 0.0
    while now < LENGTH:
        now += rng.exponential(1 / BURST)
        if now % PERIOD > PERIOD - BURSTS or rng.random() < QUIET / BURST:
            times.append(now)
    return times


async def simulated(way: str, seed: int) -> Outcome:
    """One run; the same seed has the same callers, questions and samples in every way."""
    rng = np.random.default_rng(seed)
    came = arrivals(rng)
    chances = rng.beta(0.8, 0.9, size=len(came))
    wrong = rng.dirichlet(np.full(6, 0.7), size=len(came))
    gate = Gate(PLACES, QUEUE, sheds=way == "shedding")
    outcome = Outcome(offered=len(came))
    writing = 0

    def reply(request: Request, child: int, own: np.random.Generator) -> str:
        number = int(request.problem)
        answer = 0 if own.random() < chances[number] else 1 + int(own.choice(6, p=wrong[number]))
        return f"#### {answer}"

    def latency(request: Request, child: int) -> float:
        return SAMPLE * max(1.0, writing / AT_ONCE)

    class Engine(ScriptedEngine):
        async def generate(self, request: Request, progress: object) -> None:
            nonlocal writing
            writing += request.n
            try:
                await super().generate(request, progress)  # type: ignore[arg-type]  # it is a Progress
            finally:
                writing -= request.n

    def watch(meter: Meter) -> None:
        if way == "price follows load":
            meter.dearness = gate.dearness

    engine, loop = Engine(reply, latency=latency), asyncio.get_running_loop()

    async def request(number: int) -> None:
        await asyncio.sleep(came[number] - loop.time())
        began = loop.time()
        try:
            gate.check()
            choice = choose(ASKED, None, RULES, gate.load())
            async with gate.place(DEADLINE):
                trace = await solve_async(
                    Problem(id=str(number), messages=(Message(content="?"),)),
                    choice.strategy,
                    model=engine,
                    budget=Budget({"seconds": max(1e-3, DEADLINE - (loop.time() - began))}),
                    sampling=Sampling(max_tokens=16),
                    seed=seed,
                    reader=reader,
                    watch=watch,
                )
        except Busy:
            outcome.refused += 1
            return
        if trace.key is None:
            outcome.empty += 1
            return
        outcome.seconds.append(loop.time() - began)
        outcome.samples.append(len(trace.candidates))
        outcome.right += trace.key == "0"

    reader = Reader()
    try:
        await asyncio.gather(*map(request, range(len(came))))
    finally:
        await reader.close()
    return outcome


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its 90% interval over seeds by Student's t."""
    from scipy.stats import t

    mean = statistics.fmean(values)
    half = float(t.ppf(0.95, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["way", "measure", "mean", "low", "high"])
    for way in WAYS:
        runs = [run(simulated(way, seed)).measures() for seed in range(options.seeds)]
        for measure in runs[0]:
            rows.writerow([way, measure, *(f"{value:.4g}" for value in interval([one[measure] for one in runs]))])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
