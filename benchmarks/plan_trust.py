"""Whether plans keep their word: chances where they stop, gains of what they chose, utility at three prices.

    python benchmarks/plan_trust.py [--train 100] [--pool FILE --answer math --prices 3e-5,1e-4,3e-4 --unit samples]

Without a pool: plans from simulated problems, six times `--train` others each, measured on 500 that none has seen. With
one: cross-fitted, five folds by problem. Utility is accuracy less price times mean cost; `x1.5` is the same policy that
decides at 1.5 times the price, with the 90% interval of what it loses. The largest gap is over tenths of the predicted
chance with at least 200 cases. By chance, where every prediction is right, it is below the next number in 19 of 20
cases: what each problem's predictions are off, all its orders together, keeps or changes its sign at random (a wild
bootstrap).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tools import simulated

from outthink.maths.intervals import Bootstrap, mean_and_interval, ratio
from outthink.models.engine import EngineSpec
from outthink.planner.cases import Material, cases, material
from outthink.planner.evidence import Floats
from outthink.planner.fit import fit_policy
from outthink.planner.fixed import families
from outthink.planner.simulate import Simulator
from outthink.planner.trust import acted
from outthink.planner.validate import folds_alike
from outthink.records.pools import read_pool

PLANS, TEST, SAMPLES, FOLDS = 6, 500, 16, 5
CASES = 200
FLIPS = 4_000


def largest_gap(chance: Floats, right: Floats) -> tuple[float, float, float, int]:
    """The largest gap of a tenth, what it is below in 19 of 20 by chance, how likely one as large is, its problems.

    Args:
        chance, right: (problems, orders), predicted and true.
    """
    tenth = np.minimum((chance * 10).astype(int), 9)
    inside = np.stack([tenth == number for number in range(10)])
    inside = inside[inside.sum((1, 2)) >= CASES]
    off = np.where(inside, chance - right, 0.0).sum(2) / inside.sum((1, 2))[:, None]  # (tenths, problems)
    gaps = off.sum(1)
    worst = int(np.abs(gaps).argmax())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, off.shape[1]))
    null = np.abs(signs @ off.T).max(1)
    odds = float((null >= abs(gaps[worst])).mean())
    return float(gaps[worst]), float(np.quantile(null, 0.95)), odds, int(inside[worst].any(1).sum())


def gained(true: Floats, times: Floats) -> str:
    """Mean gain of going on, with its 90% interval over problems; sums (problems,) of gains, and how many."""
    went = np.flatnonzero(times)
    value, low, high = Bootstrap(len(times), level=0.9).estimate(
        lambda weights: ratio(weights @ (true + times)[went], weights @ (2 * times)[went]), went
    )
    return f"{100 * (2 * value - 1):.1f} ({100 * (2 * low - 1):.1f} to {100 * (2 * high - 1):.1f})"


def parts(given: argparse.Namespace) -> Iterator[tuple[Material, Material]]:
    """(fitted on, measured on)."""
    if given.pool:
        whole = material(read_pool(given.pool, answer=given.answer), spec=EngineSpec(name="any"), unit=given.unit)
        fold = folds_alike(whole.model.correct.mean(1), FOLDS)
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
    parser.add_argument("--unit", default="tokens")
    parser.add_argument("--prices", default="1e-3,3e-3,6e-3")
    given = parser.parse_args()
    prices = [float(price) for price in given.prices.split(",")]
    measured = []
    for train, test in parts(given):
        policy, _ = fit_policy(train)
        simulator = Simulator(policy, cases(test, policy.vote), test)
        worth = [(f.credit.mean((0, 1)), f.cost.mean((0, 1))) for f in families(test) if not f.adaptive]
        measured.append(([acted(simulator, price) for price in prices], worth))
    print("| price | cost | utility of auto | x1.5 | best fixed | gain said | gain found | largest gap | by chance |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")

    def joined(arrays: Iterable[Floats]) -> Floats:
        """Of all problems; simulated plans have the same ones, so that there it is the mean of the plans."""
        return np.concatenate(list(arrays)) if given.pool else np.mean(list(arrays), 0)

    for row, price in enumerate(prices):
        done = [part[row] for part, _ in measured]
        auto, harsher = (
            joined((o.credit - price * o.cost).mean(1) for o in outcomes)
            for outcomes in ([one.outcome for one in done], [one.harsher for one in done])
        )
        _, low, high = mean_and_interval(auto - harsher, least=-np.inf, level=0.9)
        # one setting for all, even though it is chosen on what it is measured on
        settings = zip(*([c - price * cost for c, cost in worth] for _, worth in measured), strict=True)
        fixed = max(float(np.mean(values, 0).max()) for values in settings)
        chance, right = (
            np.concatenate(values, 0 if given.pool else 1)
            for values in ([one.chance for one in done], [one.outcome.credit for one in done])
        )
        gap, most, odds, problems = largest_gap(chance, right)
        said, true, times = (joined(getattr(one, name) for one in done) for name in ("said", "true", "times"))
        went_on = f"{100 * said.sum() / times.sum():.1f} | {gained(true, times)}" if times.any() else "never | "
        cost = np.concatenate([one.outcome.cost for one in done]).mean()
        print(
            f"| {price:g} | {cost:,.0f} | {auto.mean():.3f} | {harsher.mean():.3f} ({low:+.3f} to {high:+.3f}) | "
            f"{fixed:.3f} | {went_on} | {100 * gap:+.1f} ({problems} problems) | {100 * most:.1f} (p = {odds:.2f}) |"
        )


if __name__ == "__main__":
    main()
