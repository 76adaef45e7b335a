"""Whether plans keep their word: chances where they stop, gains of what they chose, utility at three prices.

    python benchmarks/plan_trust.py [--train 100] [--pool FILE --answer math --prices 3e-5,1e-4,3e-4] ...

Without a pool: plans from simulated problems, six times `--train` others each, measured on 500 that none has seen. With
one: cross-fitted, five folds by problem. Utility is accuracy less price times mean cost; `x1.5` is the same policy that
decides at 1.5 times the price. The largest gap is over tenths of the predicted chance with at least 200 cases.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tools import simulated

from outthink.models.engine import EngineSpec
from outthink.planner.cases import Material, cases, material
from outthink.planner.fit import fit_policy
from outthink.planner.fixed import families
from outthink.planner.simulate import Simulator
from outthink.planner.trust import acted, tenths
from outthink.records.pools import read_pool

PLANS, TEST, SAMPLES, FOLDS = 6, 500, 16, 5
CASES = 200


def parts(given: argparse.Namespace) -> Iterator[tuple[Material, Material]]:
    """(fitted on, measured on)."""
    if given.pool:
        whole = material(read_pool(given.pool, answer=given.answer), spec=EngineSpec(name="any"))
        fold = np.random.default_rng(92).permutation(len(whole.ids)) % FOLDS
        for number in range(FOLDS):
            yield whole.select(fold != number), whole.select(fold == number)
        return
    count = PLANS * given.train
    with tempfile.TemporaryDirectory() as folder:
        path = simulated.pool(Path(folder) / "pool.jsonl", count + TEST, SAMPLES)
        whole = material(read_pool(path), spec=EngineSpec(name="toy"), orders=24)
    for number in range(PLANS):
        place = np.arange(number * given.train, (number + 1) * given.train)
        yield whole.select(place), whole.select(np.arange(count, count + TEST))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=100)
    parser.add_argument("--pool", type=Path)
    parser.add_argument("--answer", default="text")
    parser.add_argument("--prices", default="1e-3,3e-3,6e-3")
    given = parser.parse_args()
    prices = [float(price) for price in given.prices.split(",")]
    measured = []
    for train, test in parts(given):
        policy, _ = fit_policy(train)
        simulator = Simulator(policy, cases(test, policy.vote), test)
        worth = [(f.credit.mean((0, 1)), f.cost.mean((0, 1))) for f in families(test) if not f.adaptive]
        measured.append(([acted(simulator, price) for price in prices], worth))
    print("| price | cost | utility of auto | x1.5 | best fixed | gain said | gain found | largest gap |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row, price in enumerate(prices):
        done = [part[row] for part, _ in measured]
        auto, harsher = (
            np.concatenate([(o.credit - price * o.cost).mean(1) for o in outcomes]).mean()
            for outcomes in ([one.outcome for one in done], [one.harsher for one in done])
        )
        # one setting for all, even though it is chosen on what it is measured on
        settings = zip(*([c - price * cost for c, cost in worth] for _, worth in measured), strict=True)
        fixed = max(float(np.mean(values, 0).max()) for values in settings)
        chance, right = (
            np.concatenate(values) for values in ([one.chance for one in done], [one.outcome.credit for one in done])
        )
        told = [tenth for tenth in tenths(chance, right) if tenth.cases >= CASES]
        gap = max(told, key=lambda tenth: abs(tenth.said - tenth.true))
        said, true = (np.concatenate(values).mean() for values in ([o.said for o in done], [o.true for o in done]))
        cost = np.concatenate([one.outcome.cost for one in done]).mean()
        print(
            f"| {price:g} | {cost:,.0f} | {auto:.3f} | {harsher:.3f} | {fixed:.3f} | {100 * said:.1f} | "
            f"{100 * true:.1f} | {100 * (gap.said - gap.true):+.1f} ({gap.problems} problems) |"
        )


if __name__ == "__main__":
    main()
