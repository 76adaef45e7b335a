"""Methods on recordings of thinking models: accuracy and tokens of each, over all questions of a model.

Usage: python benchmarks/thinking.py POOL... --groups 0.6b,1.7b [--answer math] [--subsamples 100] [--judged]

A group is the pools whose file name has the group's name in it; its questions are taken together. Tokens are relative
to the vote of 64 samples, once with the answers that were forced on the way charged, and once, as in the literature,
without; differences are from the vote at equal tokens, charged, paired by question. --judged takes the half of the
questions on which no setting was chosen: the settings of race_vote are from the other half.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np

from outthink.maths.intervals import mean_and_interval
from outthink.records.pools import PoolData, read_pool
from outthink.reports.curves import At, at_tokens, majority, replayed_curve
from outthink.reports.tables import markdown_table
from outthink.strategies.making import make_strategy

MOST = 64
RULES = (
    ("adaptive_consistency", (64,)),
    ("esc", (64,)),
    ("first_finish?n=8&k=4", (8,)),
    ("first_finish?n=16&k=8", (16,)),
    ("length_vote?threshold=2", (8, 16, 64)),
    ("length_vote", (16, 64)),
    ("length_vote?exponent=0", (16, 64)),
    ("length_vote?portion=1&exponent=0.5&threshold=0.85", (40,)),  # auto, where a model thinks
    ("race_vote", (8, 16)),
    ("race_vote?threshold=0.9", (16, 64)),
    ("race_vote?threshold=2&value_in_tokens=100000", (16,)),
    ("mrt_stop?k=1&tau=2&cap=8000", (16,)),
    ("mrt_stop?k=1&tau=2&cap=16000", (16,)),
    ("mrt_stop?k=1&window=12&tau=1&eps=1", (16,)),
    ("mrt_stop?k=1&window=8&tau=0.75", (16,)),
    ("depth_consistency", (16,)),
    ("parallel_probe", (16, 64)),
    ("cmc", (64,)),
    ("cmc?beta=0.25", (64,)),
)


def together(pools: list[PoolData]) -> PoolData:
    """One pool with the problems of all, their ids made different."""
    problems = [replace(one, id=f"{pool.path.name}/{one.id}") for pool in pools for one in pool.problems]
    return replace(pools[0], problems=tuple(problems))


def judged(pool: PoolData) -> PoolData:
    """The half of the questions, the same for all models, on which nothing was chosen."""
    names = {one.id: one.id.partition("_")[2].replace(".jsonl.gz/", "") for one in pool.problems}
    order = sorted(set(names.values()), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    kept = set(order[len(order) // 2 :])
    return replace(pool, problems=tuple(one for one in pool.problems if names[one.id] in kept))


def cost(at: At) -> float:
    """Mean tokens of a question."""
    assert at.tokens is not None
    return float(np.mean(at.tokens))


def free(at: At) -> float:
    """The same without what forced answers took."""
    return cost(at) - (0.0 if at.probing is None else float(np.mean(at.probing)))


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pools", nargs="+", type=Path)
    parser.add_argument("--groups", required=True)
    parser.add_argument("--answer", default="math")
    parser.add_argument("--subsamples", type=int, default=100)
    parser.add_argument("--judged", action="store_true")
    given = parser.parse_args()
    rows = []
    for group in given.groups.split(","):
        pool = together([read_pool(path, answer=given.answer) for path in given.pools if group in path.name])
        pool = judged(pool) if given.judged else pool
        vote = majority(pool, range(1, MOST + 1), subsamples=given.subsamples, seed=0)
        whole = cost(vote[MOST])
        rows += [
            (
                group,
                f"vote of {n}",
                f"{100 * mean(vote[n].accuracy):.1f}%",
                f"{cost(vote[n]) / whole:.3f}",
                "",
                "",
            )
            for n in (8, 16, MOST)
        ]
        for name, sizes in RULES:
            curve = replayed_curve(make_strategy(name), pool, sizes, subsamples=given.subsamples, seed=0)
            for n, at in curve.items():
                tokens = cost(at)
                same = at_tokens(vote, tokens)
                against = (
                    ""
                    if same is None
                    else "{:+.1f} ({:+.1f} to {:+.1f})".format(
                        *(100 * value for value in mean_and_interval((at.accuracy - same).tolist(), least=-1.0))
                    )
                )
                rows.append(
                    (
                        group,
                        f"{name}, n = {n}",
                        f"{100 * mean(at.accuracy):.1f}%",
                        f"{tokens / whole:.3f}",
                        f"{free(at) / whole:.3f}",
                        against,
                    )
                )
    columns = ("model", "rule", "accuracy", "tokens", "probes free", "minus the vote at equal tokens")
    print(markdown_table(columns, rows))


if __name__ == "__main__":
    main()
