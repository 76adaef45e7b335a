"""How often answers that differ are taken for equal, and equal ones for different.

    PYTHONPATH=src python benchmarks/soundness.py --pairs 100000
    PYTHONPATH=src python benchmarks/soundness.py --golds ../shared/data/*/test.jsonl

Half of the pairs are one value written twice, half are two values that are close to each other. A pair of different
values meets where their keys are equal or where one is graded as right when the other is the gold answer. With
--golds, every gold answer of the files is rewritten and missed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tools.written import close, gold_faults, key, made, right, same, written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=20, help="how many of the faults to show")
    parser.add_argument("--golds", nargs="+", type=Path, help="files of JSON lines with a field answer")
    given = parser.parse_args()
    if given.golds:
        of_golds(given.golds)
        return
    counts: Counter[str] = Counter()
    shown = 0
    start = time.perf_counter()
    for number in range(given.pairs):
        rng = random.Random(f"{given.seed}:{number}")
        value = made(rng)
        other = value if number % 2 else close(value, rng)
        equal = same(value, other)
        gold, answer = written(value, rng), written(other, rng)
        by_key, graded = key(gold) == key(answer), right(gold, answer)
        counts["equal pairs" if equal else "different pairs"] += 1
        fault = None
        if equal and not graded:
            fault = "equal values that are kept apart"
        elif not equal and graded:
            fault = "false meetings (graded)"
        elif not equal and by_key and "unit" not in value.kind:
            fault = "false meetings (keys)"
        if fault:
            counts[fault] += 1
            if shown < given.show:
                shown += 1
                print(f"{fault}: {value} {gold!r} {key(gold)} | {other} {answer!r} {key(answer)}")
    for name, count in sorted(counts.items()):
        print(f"{name}: {count:,}")
    print(f"{time.perf_counter() - start:.0f} s")


def of_golds(paths: list[Path]) -> None:
    rows = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    golds = sorted({str(row["answer"]) for row in rows})
    by_key = {key(gold): gold for gold in golds}
    tried, faults = 0, 0
    for gold in golds:
        bad, count = gold_faults(gold, by_key)
        tried, faults = tried + count, faults + len(bad)
        for fault in bad:
            print(fault)
    print(f"{len(golds):,} different golds of {len(rows):,}, {tried:,} rewritings and near misses, {faults:,} faults")


if __name__ == "__main__":
    main()
