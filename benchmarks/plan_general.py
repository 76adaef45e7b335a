"""Whether a plan for all models and tasks beats the simple stop rules where it has never been.

    python benchmarks/plan_general.py DATA [--budgets 2,3,5,8] [--own POOL ...]

DATA is the folder of recorded pools; costs are samples. Two plans are measured at equal mean cost. "Agreement" is what
`auto` does without a plan: nothing in it is fitted. "Learned" predicts gains from votes alone (the leader's share, its
Beta posterior, distinct answers, entropy, unreadable ones), from the pools that may be shipped, all but those of the
task or model that is measured. Both are compared with self-consistency, the Beta stop and ESC, in points with 90%
intervals over problems; of those, the setting that is best on the very pool.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from outthink.models.engine import EngineSpec
from outthink.planner.agreement import next_portion
from outthink.planner.auto import Auto
from outthink.planner.cases import SAMPLES, Cases, Material, along, cases, material
from outthink.planner.estimate import Prospect, Scale, fit_prospect
from outthink.planner.evidence import Floats, Vote, leaders
from outthink.planner.fixed import Family, families
from outthink.planner.policy import LEVELS
from outthink.records.pools import read_pool
from outthink.strategies.parallel.adaptive_consistency import top_counts

MOST = 32  # samples of a problem, for what is learned
AUTO = 40  # most samples of `auto` without a plan
PROBLEMS, ORDERS = 200, 12  # of a pool, to learn from
PRICES = np.geomspace(1e-5, 0.3, 60)
SEEN = slice(3, 12)  # the features that are about votes, from the leader's share to the posterior times log n

SHIPPED = {  # file: (answer kind, group that is left out together)
    "pool_cruxeval_codellama7b/output.jsonl": ("text", "cruxeval"),
    "pool_cruxeval_codellama7b/input.jsonl": ("text", "cruxeval"),
    "pool_date_codex40/samples.jsonl.gz": ("text", "date"),
    "pool_gpqa64_genrm/samples.jsonl": ("text", "gpqa"),
    "pool_gsm8k_qwen05b/samples.jsonl.gz": ("math", "gsm8k"),
    "pool_math100_qwen/samples.jsonl": ("math", "math"),
}
READ = {
    "pool_date_gpt35x10/samples.jsonl.gz": ("text", "date"),
    "pool_lastletters_gpt35x40/samples.jsonl.gz": ("text", "letters"),
    "pool_olympiad200_qwen7b/samples.jsonl.gz": ("math", "olympiad"),
    **{
        f"pool_probes_qwen3/qwen3-{size}_{task}.jsonl.gz": ("math", "thinking")
        for size in ("0.6b", "1.7b", "4b", "8b")
        for task in ("aime24", "aime25", "hmmt25")
    },
}


@dataclass(frozen=True)
class Pool:
    name: str
    group: str
    shipped: bool
    recorded: Material
    states: Cases


def opened(path: Path, answer: str, group: str, *, shipped: bool) -> Pool:
    with tempfile.TemporaryDirectory() as folder:
        if "probes" in str(path):  # right is what equals the answer
            rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
            for row in rows:
                row["samples"] = [
                    {"answer": one["answer"], "correct": str(one["answer"]) == str(row["answer"])}
                    for one in row["samples"][:AUTO]
                ]
            path, name = Path(folder) / path.name.removesuffix(".gz"), path.name.removesuffix(".jsonl.gz")
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            name = path.parent.name.removeprefix("pool_") + ("" if "samples" in path.name else f" {path.stem}")
        pool = read_pool(path, answer=answer)  # type: ignore[arg-type]  # one of the kinds
    recorded = material(pool, spec=EngineSpec(name="any"), unit=SAMPLES, orders=ORDERS)
    return Pool(name, group, shipped, recorded, cases(recorded, Vote()))


def seen(pool: Pool, level: int) -> Floats:
    return pool.states.features[level, 0][..., SEEN]


def learned(pools: Sequence[Pool]) -> dict[int, tuple[Scale, Prospect]]:
    """By number of samples: what each larger number gains, from equally many problems of each pool as far as it has."""
    plan = {}
    for level in (n for n in LEVELS[1:] if n < MOST):
        later = [n for n in LEVELS if level < n <= MOST]
        rows, gains, owners, start = [], [], [], 0
        for pool in pools:
            n = pool.recorded.model.samples
            if n <= level:
                continue
            features = seen(pool, level)[:PROBLEMS]
            before = pool.states.credit[level, 0][:PROBLEMS]
            last = before
            columns = []
            for more in later:  # what was not recorded is as the most that was
                last = pool.states.credit[more, 0][:PROBLEMS] if more <= n else last
                columns.append((last - before).ravel())
            rows.append(features.reshape(-1, features.shape[-1]))
            gains.append(np.stack(columns, -1))
            owners.append(start + np.repeat(np.arange(len(features)), features.shape[1]))
            start += len(features)
        if rows:
            scale = Scale.from_features(np.concatenate(rows))
            units = scale.standard(np.concatenate(rows))
            plan[level] = (scale, fit_prospect(units, np.concatenate(gains), np.concatenate(owners), range(len(later))))
    return plan


def run(plan: dict[int, tuple[Scale, Prospect]], pool: Pool, price: float) -> tuple[Floats, Floats]:
    """Credit and samples (problems, orders) at a price."""
    most = pool.recorded.model.samples
    levels = [n for n in LEVELS[1:] if n <= most]
    place = np.zeros(pool.states.credit[1, 0].shape, dtype=int)
    for at, level in enumerate(levels[:-1]):
        if level not in plan:
            break
        scale, prospect = plan[level]
        later = np.array([n for n in LEVELS if level < n <= MOST])
        net = prospect.at(scale.standard(seen(pool, level))) - price * (later - level)
        place[(place == at) & (net[..., later <= most].max(-1) > 0)] = at + 1
    credit, spent = (np.stack([values[n, 0] for n in levels], -1) for values in (pool.states.credit, pool.states.cost))
    return tuple(np.take_along_axis(part, place[..., None], -1)[..., 0] for part in (credit, spent))  # type: ignore[return-value]


def agreed(pool: Pool, prices: Sequence[float]) -> list[tuple[Floats, Floats]]:
    """Credit and samples (problems, orders) of `auto` without a plan, at each price of a sample."""
    recorded = pool.recorded
    keys = along(recorded.model.keys, recorded.orders)
    most = min(keys.shape[-1], AUTO)
    votes = [top_counts(keys[..., :n]) for n in range(1, most)]
    states = [(n, 0) for n in range(1, most + 1)]
    right = np.stack([recorded.credit(state, leaders(recorded.seen(state), Vote())) for state in states], -1)
    done = []
    for price in prices:
        going = np.stack([next_portion(two, n, float(price)) > 0 for n, two in enumerate(votes, 1)], -1)
        used = np.where(going.all(-1), most, (~going).argmax(-1) + 1)
        done.append((np.take_along_axis(right, used[..., None] - 1, -1)[..., 0], used.astype(float)))
    return done


def family(name: str, done: Sequence[tuple[Floats, Floats]]) -> Family:
    """Settings by what they cost."""
    rows = sorted(done, key=lambda pair: float(pair[1].mean()))
    credit, cost = (np.stack(part, -1) for part in zip(*rows, strict=True))
    return Family(name=name, settings=("",) * len(rows), used=(0,) * len(rows), credit=credit, cost=cost)


def default(pool: Pool, every: Sequence[Family]) -> tuple[float, float, int]:
    """By how much `auto` with its defaults is better than the vote of 16 (or of all), its samples, and theirs."""
    plain = next(family for family in every if family.name == "self_consistency")
    place = max(at for at, used in enumerate(plain.used) if used <= 16)
    ((credit, cost),) = agreed(pool, [1 / Auto().value_in_samples])
    return float(credit.mean() - plain.credit[..., place].mean()), float(cost.mean()), plain.used[place]


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--budgets", default="2,3,5,8")
    parser.add_argument(
        "--own", type=Path, action="append", default=[], help="pools of one's own, which may be shipped"
    )
    given = parser.parse_args()
    pools = [opened(given.data / file, *kind, shipped=True) for file, kind in SHIPPED.items()]
    pools += [opened(path, "text", path.stem, shipped=True) for path in given.own]
    pools += [opened(given.data / file, *kind, shipped=False) for file, kind in READ.items()]
    print("| pool (problems x samples) | mean n | plan | right | less the vote | less the Beta stop | less ESC |")
    print("| --- | ---: | --- | ---: | --- | --- | --- |")
    off: dict[tuple[float, str, str], list[tuple[float, float, float]]] = {}
    defaults = []
    for pool in pools:
        plan = learned([other for other in pools if other.shipped and other.group != pool.group])
        plans = (
            family("agreement", agreed(pool, [float(price) for price in PRICES])),
            family("learned", [run(plan, pool, float(price)) for price in PRICES]),
        )
        every = families(pool.recorded)
        defaults.append(default(pool, every))
        size = f"{len(pool.recorded.ids)} x {pool.recorded.model.samples}"
        for budget in (float(text) for text in given.budgets.split(",")):
            for general in plans:
                mine = general.at(budget)
                if mine is None or budget > general.cost.mean((0, 1))[-1] * 1.01:
                    continue
                cells = []
                for name in ("self_consistency", "adaptive_consistency", "esc"):
                    able = [one for f in every if f.name.startswith(name) and (one := f.at(budget)) is not None]
                    best = max(able, key=lambda one: float(one.mean()))
                    drawn = np.random.default_rng(0).integers(0, len(best), (2_000, len(best)))
                    low, high = np.quantile((mine - best)[drawn].mean(1), [0.05, 0.95])
                    mean = float((mine - best).mean())
                    off.setdefault((budget, general.name, name), []).append((mean, float(low), float(high)))
                    cells.append(f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})")
                print(
                    f"| {pool.name} ({size}) | {budget:g} | {general.name} | {100 * mine.mean():.1f}% | "
                    f"{' | '.join(cells)} |",
                    flush=True,
                )
    print("\n| plan | less | mean n | points | better | worse | pools |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (budget, plan_name, name), values in sorted(off.items(), key=lambda item: (item[0][1], item[0][2], item[0][0])):
        mean, low, high = np.array(values).T
        print(
            f"| {plan_name} | {name} | {budget:g} | {100 * mean.mean():+.2f} | {(low > 1e-9).sum()} | "
            f"{(high < -1e-9).sum()} | {len(values)} |"
        )
    points, cost, theirs = np.array(defaults).T
    many = theirs == 16
    print(
        f"\nWith its defaults auto is {100 * points.mean():+.2f} points from the vote of at most 16, at "
        f"{cost.mean():.1f} samples in place of {theirs.mean():.1f}; of {many.sum()} pools with 16 samples it takes at "
        f"most half on {(many & (cost <= 8)).sum()}, {100 * points[many].mean():+.2f} points in the mean."
    )


if __name__ == "__main__":
    main()
