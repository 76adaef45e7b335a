"""Methods on recordings of thinking models: accuracy and tokens of each, over all questions of a model.

Usage: python benchmarks/thinking.py POOL... --groups 0.6b,1.7b [--answer math] [--subsamples 100] [--judged|--auto]

A group is the pools whose path has the group's name in it; its questions are taken together. Tokens are relative to the
vote of 64 samples, once with the answers that were forced on the way charged, and once, as in the literature, without;
differences are from the vote at equal tokens, charged, paired by question. --judged takes the half of the questions on
which no setting was chosen: the settings of race_vote are from the other half.

With --auto: what the weight by length changes where `auto` without a plan stops, and how long the samples of a question
are in the mean, which is what tells thinking models from others; a length without tokens is characters / 4.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np

from outthink.maths.intervals import mean_and_interval
from outthink.maths.selection import majority as majority_of
from outthink.maths.selection import weighted_vote
from outthink.planner.agreement import next_portion
from outthink.planner.auto import Auto
from outthink.records.pools import PoolData, read_pool
from outthink.reports.curves import At, at_tokens, majority, replayed_curve
from outthink.reports.tables import markdown_table
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.adaptive_consistency import top_counts
from outthink.strategies.parallel.length_vote import length_weights

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


def lengths_of(pool: PoolData) -> dict[str, np.ndarray]:
    """(n,) of each problem, in tokens or about."""
    if all(one.tokens is not None for one in pool.problems):
        return {one.id: np.asarray(one.tokens, float) for one in pool.problems}
    opener = gzip.open if pool.path.suffix == ".gz" else open
    with opener(pool.path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [[one.get("text") or "".join(map(str, one.get("steps", ()))) for one in row["samples"]] for row in rows]
    return {
        one.id: np.array([len(text) / 4 for text in of_one]) for one, of_one in zip(pool.problems, texts, strict=True)
    }


def credit(keys: np.ndarray, lengths: np.ndarray, correct: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the vote of the first n (rows,) of the samples (rows, most) is right, plain and weighted by length."""
    there = np.where(np.arange(keys.shape[1]) < n[:, None], keys, -1)
    plain = majority_of(there, lengths=lengths).index
    weighted = weighted_vote(there, length_weights(there, lengths), lengths=lengths).index
    rows = np.arange(len(there))
    return np.where(plain >= 0, correct[rows, plain], False), np.where(weighted >= 0, correct[rows, weighted], False)


def at_autos_stop(pools: list[PoolData], subsamples: int) -> list[str]:
    """Samples that auto draws, its accuracy, and what the weight by length adds there and at 8 and 16 samples."""
    rng, known = np.random.default_rng(0), {pool.path: lengths_of(pool) for pool in pools}
    off: dict[str, list[float]] = {"stop": [], "8": [], "16": []}
    means, right, used = [], [], []
    for path, one in ((pool.path, one) for pool in pools for one in pool.problems):
        assert one.keys is not None
        most = min(Auto().n, len(one.keys))
        order = rng.permuted(np.tile(np.arange(len(one.keys)), (subsamples, 1)), axis=1)[:, :most]
        keys, lengths, correct = one.keys[order], known[path][one.id][order], one.correct[order]
        votes = top_counts(np.stack([np.where(np.arange(most) < n, keys, -1) for n in range(1, most + 1)], 1), 2)
        done = next_portion(votes, np.arange(1, most + 1)[None], 1 / Auto().value_in_samples) == 0
        stop = np.where(done.any(1), done.argmax(1) + 1, most)

        plain, weighted = credit(keys, lengths, correct, stop)
        right.append(plain.mean())
        used.append(stop.mean())
        means.append(float(known[path][one.id].mean()))
        off["stop"].append(weighted.mean() - plain.mean())
        for n in (8, 16):
            if n <= most:
                plain, weighted = credit(keys, lengths, correct, np.full(len(keys), n))
                off[str(n)].append(weighted.mean() - plain.mean())
    cells = [
        ""
        if not values
        else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * x for x in mean_and_interval(values, least=-1.0)))
        for values in off.values()
    ]
    return [f"{min(means):,.0f} to {max(means):,.0f}", f"{mean(used):.1f}", f"{100 * mean(right):.1f}%", *cells]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pools", nargs="+", type=Path)
    parser.add_argument("--groups", required=True)
    parser.add_argument("--answer", default="math")
    parser.add_argument("--subsamples", type=int, default=100)
    parser.add_argument("--judged", action="store_true")
    parser.add_argument("--auto", action="store_true")
    given = parser.parse_args()
    rows = []
    for group in given.groups.split(","):
        pools = [read_pool(path, answer=given.answer) for path in given.pools if group in str(path)]
        if given.auto:
            rows.append((group, str(sum(len(one.problems) for one in pools)), *at_autos_stop(pools, given.subsamples)))
            continue
        pool = judged(together(pools)) if given.judged else together(pools)
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
    if given.auto:
        weighted = ("weighted less plain, there", "at 8", "at 16")
        columns = ("pools", "questions", "tokens of a question", "samples of auto", "right", *weighted)
        print(markdown_table(columns, rows))
        return
    told = ("model", "rule", "accuracy", "tokens", "probes free", "minus the vote at equal tokens")
    print(markdown_table(told, rows))


if __name__ == "__main__":
    main()
