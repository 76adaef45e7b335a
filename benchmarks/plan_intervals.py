"""How often the 90% intervals of a plan's predicted accuracy hold the truth, over simulated plans.

    python benchmarks/plan_intervals.py [--plans 1000] [--problems 100] [--processes 2]

Each plan is made from fresh problems of a known population; the truth is what the plan's own policy, at its own prices,
reaches on 2,000 other problems of that population. Counted is every price of every plan, and the plans' mean error of
cost.
"""

from __future__ import annotations

import argparse
import multiprocessing
import warnings
from pathlib import Path

import numpy as np

from outthink.models.engine import EngineSpec
from outthink.planner.cases import Material, cases, material
from outthink.planner.make import default_budgets, make_plan
from outthink.planner.recordings import Recordings
from outthink.planner.simulate import Simulator
from outthink.records.pools import PoolData, PoolProblem

SAMPLES, TEST = 4, 2_000
SPEC = EngineSpec(name="simulated")


def population(problems: int, seed: int) -> PoolData:
    rng = np.random.default_rng([93, seed])
    rows = []
    for number, rate in enumerate(rng.beta(0.7, 0.9, problems)):
        right = rng.random(SAMPLES) < rate
        wrong = rng.choice(6, SAMPLES, p=rng.dirichlet(np.full(6, 0.6)))
        rows.append(
            PoolProblem(
                id=f"{seed}-{number}",
                keys=np.where(right, 0, 1 + wrong).astype(np.intp),
                answers=tuple(map(str, range(7))),
                correct=right,
                tokens=rng.integers(20, 80, SAMPLES),
                prompt=50,
                logprobs=-1 + 0.2 * right + 0.2 * rng.standard_normal(SAMPLES),
                texts=None,
                complete=np.ones(SAMPLES, dtype=bool),
                scores={},
            )
        )
    return PoolData(path=Path("simulated"), kind="iid", problems=tuple(rows), scorers=())


def one(argument: tuple[int, int]) -> list[tuple[bool, bool, float, float]]:
    """For each price: whether truth is inside, whether below; error of accuracy, relative error of cost."""
    seed, problems = argument
    warnings.simplefilter("ignore")
    made = material(population(problems, seed), spec=SPEC, orders=4, seed=seed)
    budgets = default_budgets(made)[1:8:3]
    recordings = Recordings(material=made, model="simulated", target=None, verifier=None, sampling=None)
    plan, _ = make_plan(recordings, budgets=budgets, seed=seed)
    test = truth()
    simulator = Simulator(plan.policy, cases(test, plan.policy.vote), test)
    rows = []
    for expected in plan.expected:
        outcome = simulator.at(expected.price)
        true = float(outcome.credit.mean())
        cost = float(outcome.cost.mean())
        inside = expected.low <= true <= expected.high
        rows.append((inside, true < expected.low, expected.accuracy - true, expected.cost / cost - 1))
    return rows


_TRUTH: list[Material] = []


def truth() -> Material:
    if not _TRUTH:
        _TRUTH.append(material(population(TEST, -1 % 2**32), spec=SPEC, orders=2))
    return _TRUTH[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=1000)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        outcomes = np.array(pool.map(one, [(seed, given.problems) for seed in range(given.plans)], chunksize=5))
    inside, below, error, cost = np.moveaxis(outcomes, -1, 0)
    names = ("cheapest", "middle", "dearest")
    print(f"{given.plans} plans of {given.problems} problems; 90% intervals of predicted accuracy")
    print("| price | hold the truth | truth below | truth above | mean error of accuracy | 90% of errors of cost |")
    print("| --- | --- | --- | --- | --- | --- |")
    for place, name in enumerate(names):
        low, high = np.quantile(cost[:, place], [0.05, 0.95])
        print(
            f"| {name} | {100 * inside[:, place].mean():.1f}% | {100 * below[:, place].mean():.1f}% | "
            f"{100 * (1 - inside - below)[:, place].mean():.1f}% | {100 * error[:, place].mean():+.2f} points | "
            f"{100 * low:+.0f}% to {100 * high:+.0f}% |"
        )
    print(f"All prices: {100 * inside.mean():.1f}% hold the truth.")


if __name__ == "__main__":
    main()
