"""What it costs `outthink serve` to limit, log, trace and record: processor time per request, each alone and all of it.

    python benchmarks/overhead.py [--rounds 20] [--requests 400] [--kinds all,keys] [--csv]

The same servers, model and load as in `server.py`, with 32 callers. All servers run side by side, and each round sends
so many requests at one after the other, in an order that turns round. Time is that of the server's process, all of its
threads, user and system, from one turn to the next, so that what is written or sent later counts, too. The ratio is
that of a round to the server with nothing of it in the same round; shown are medians, and of the ratio a 95% interval
of the median by its order statistics.

- keys: a key with limits on requests, tokens, dollars and requests at once, and prices.
- logs: --log-format json.
- otel: --otel as it comes, to a collector that takes all; otel-every: with each request sampled.
- learn: --learn 0.02 and --record.
- all: all of it with --otel as it comes; all-every: with each request sampled.

Counters for Prometheus are always on. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import math
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from outthink.server.allowances import read_allowances
from outthink.server.keys import limit_key, make_key
from server import SERVERS, WARM, N, Start, cpu, ours, serving, upstream

NOTHING = "nothing"
CALLERS = 32
LIMITS = "900000-requests/minute,9000000k-tokens/day,900000usd/month,5000-concurrent"
EVERY = {"OTEL_TRACES_SAMPLER": "parentbased_always_on"}
PARTS = {
    NOTHING: (),
    "keys": ("keys",),
    "logs": ("logs",),
    "learn": ("learn",),
    "otel": ("otel",),
    "otel-every": ("otel", "every"),
    "all": ("keys", "logs", "learn", "otel"),
    "all-every": ("keys", "logs", "learn", "otel", "every"),
}


def started(parts: tuple[str, ...], keys: Path, upstream: str, port: int) -> Start:
    """A server with so much of it, whose strategy is its own, since only such requests take part in learning."""
    command = [*ours(upstream, port).command, "--strategy", "self_consistency", "--n", str(N)]
    key, environment = "none", {}
    if "keys" in parts:
        keys.unlink(missing_ok=True)
        name, key = make_key(keys)
        limit_key(keys, name, read_allowances(LIMITS))
        command += ["--api-key-file", str(keys), "--price", "0.4,1.6"]
    if "logs" in parts:
        command += ["--log-format", "json"]
    if "learn" in parts:
        command += ["--record", "record", "--learn", "0.02"]
    if "otel" in parts:
        command += ["--otel"]
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": upstream.removesuffix("/v1"),
            **(EVERY if "every" in parts else {}),
        }
    return Start(command, {}, key=key, environment=environment)


def measured(kinds: list[str], rounds: int, requests: int) -> dict[str, list[float]]:
    """Processor milliseconds per request of each round."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {}
        for kind in kinds:
            model = stack.enter_context(upstream(words=False))
            SERVERS[kind] = partial(started, PARTS[kind], folder / kind)
            servers[kind] = stack.enter_context(serving(kind, model))
        spent: dict[str, list[float]] = {kind: [] for kind in kinds}
        answers: dict[str, list[int]] = {kind: [] for kind in kinds}
        for turn in range(-1, rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
            for kind in kinds if turn % 2 else reversed(kinds):
                measuring, pid = servers[kind]
                spent[kind].append(cpu(pid))
                load = measuring.load(60.0, clients=CALLERS, most=WARM if turn < 0 else requests)
                answers[kind].append(load["answers"])
        time.sleep(6.0)  # what is sent in batches is sent within five
        for kind, (measuring, pid) in servers.items():
            spent[kind].append(cpu(pid))
            if measuring.errors:
                sys.exit(f"{kind}: {dict(measuring.errors)}")
    return {
        kind: [
            1e3 * (after - before) / n for before, after, n in zip(used[1:-1], used[2:], answers[kind][1:], strict=True)
        ]
        for kind, used in spent.items()
    }


def middle(values: list[float]) -> tuple[float, float, float]:
    """The median, and a 95% interval of it by order statistics, if there are enough."""
    ordered, n = sorted(values), len(values)
    chance, low = 0.0, 0
    while low < n // 2 and (chance := chance + math.comb(n, low) / 2**n) <= 0.025:
        low += 1
    low = max(0, low - 1)
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=400, help="of each turn")
    parser.add_argument("--kinds", default=",".join(kind for kind in PARTS if kind != NOTHING))
    options = parser.parse_args()
    kinds = [NOTHING, *options.kinds.split(",")]
    if unknown := set(kinds) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose some of {', '.join(PARTS)}")
    times = measured(kinds, options.rounds, options.requests)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["what is on", "processor ms per request", "ratio", "low", "high"])
    for kind, own in times.items():
        ratios = [one / base for one, base in zip(own, times[NOTHING], strict=True)]
        rows.writerow([kind, f"{statistics.median(own):.3f}", *(f"{value:.3f}" for value in middle(ratios))])


if __name__ == "__main__":
    main()
