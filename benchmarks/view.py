"""How quickly the page opens and answers: a run of 5,000 problems, a search of 2,000 steps, a million lines.

    python benchmarks/view.py [--lines 1000000]

It needs chromium and playwright. Files are made in a temporary folder (about 1 GB with a million lines).
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from outthink.records.runs import Result
from outthink.types import Candidate

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tools.browser import browser
from tests.tools.recorded import trace_of, tree_of, write_results

PROBLEMS, SAMPLES, TOKENS, NODES = 5000, 8, 200, 2000

# in the page, since asking from outside takes its own time: milliseconds until something is there and painted
TIMED = """async ([click, wanted, least]) => {
  const begun = performance.now();
  document.querySelector(click).dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true}));
  while (document.querySelectorAll(wanted).length < least) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  await new Promise(done => setTimeout(done));
  return performance.now() - begun;
}"""


def write_large_run(folder: Path) -> int:
    """A run whose lines are as long as those of a model that gives logprobs; its bytes."""
    rng = np.random.default_rng(0)
    trace = trace_of("p", ["x"] * SAMPLES)
    text = "The number of apples is 3 + 4 = 7, so the answer has to be $7$. " * 12
    candidates = tuple(
        Candidate(
            address=one.address, text=text, tokens=TOKENS, answer=str(place % 3), key=str(place % 3),
            token_ids=tuple(rng.integers(0, 50000, TOKENS).tolist()),
            logprobs=tuple(np.round(-rng.exponential(0.3, TOKENS), 6).tolist()),
        )
        for place, one in enumerate(trace.candidates)
    )  # fmt: skip
    line = json.loads(replace(trace, candidates=candidates).to_json())
    write_results(folder, [], problems=[f"p{place}" for place in range(PROBLEMS)])
    whole = json.dumps({"problem": "@", "credit": 0.5, "error": None, "trace": line, "schema": 1})
    with (folder / "results.jsonl").open("w") as file:
        for place in range(PROBLEMS):
            file.write(whole.replace('"@"', f'"p{place}"').replace('"credit": 0.5', f'"credit": {place % 2}.0') + "\n")
    return (folder / "results.jsonl").stat().st_size


def write_lines(path: Path, lines: int) -> int:
    """So many small traces."""
    line = trace_of("@", ["It is 4."]).to_json()
    before, after = line.split('"@"')
    with path.open("w") as file:
        for start in range(0, lines, 10_000):
            file.write("".join(f'{before}"q{place}"{after}\n' for place in range(start, min(start + 10_000, lines))))
    return path.stat().st_size


@contextmanager
def viewed(path: Path) -> Iterator[tuple[str, int, float]]:
    """`outthink view` in a process of its own: its address, its id, and the seconds until it told the address."""
    begun = time.perf_counter()
    words = [sys.executable, "-m", "outthink", "view", str(path), "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = re.search(r"http://\S+?/", process.stderr.readline())
        assert told is not None
        try:
            yield told[0], process.pid, time.perf_counter() - begun
        finally:
            process.terminate()


def memory(process: int) -> float:
    """MB that a process has in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def known(page: Any, address: str) -> int:
    return int(page.request.get(f"{address}api/sources").json()["sources"][0]["known"])


def measure(folder: Path, lines: int) -> Iterator[tuple[str, float, str]]:
    """(what, value, unit), as it is measured."""
    with browser() as opened:
        size = write_large_run(folder / "run") / 1e6
        yield f"a run of {PROBLEMS:,} problems", size, "MB"
        with viewed(folder / "run") as (address, process, started):
            page = opened.new_page()
            begun = time.perf_counter()
            page.goto(f"{address}#/r/0")
            page.locator("tbody tr").nth(49).wait_for()
            yield "its command until the page is served", started, "s"
            yield "its first 50 problems", time.perf_counter() - begun, "s"
            while known(page, address) < PROBLEMS:
                time.sleep(0.02)
            yield "all of it read", time.perf_counter() - begun, "s"
            yield "its process", memory(process), "MB"
            clicks = []
            for _ in range(20):
                page.goto(f"{address}#/r/0")
                page.locator("tbody tr").nth(49).wait_for()
                clicks.append(page.evaluate(TIMED, ["tbody th a", ".tree .node", 1]))
            yield "a click on a problem, median", statistics.median(clicks), "ms"
            yield "a click on a problem, most of 20", max(clicks), "ms"
            clicks = [page.evaluate(TIMED, [f"[id='n:model/0/{place}']", ".ring", 1]) for place in range(SAMPLES)]
            yield "a click on a candidate, median", statistics.median(clicks), "ms"
            begun = time.perf_counter()
            page.goto(f"{address}#/r/0?verdict=wrong&order=tokens")
            page.get_by_text(f"{PROBLEMS // 2:,} of").wait_for()
            yield "a filter", 1000 * (time.perf_counter() - begun), "ms"
            page.close()

        write_results(folder / "tree", [Result(problem="tree", credit=1.0, trace=tree_of(NODES))])
        with viewed(folder / "tree") as (address, _, _):
            page = opened.new_page()
            page.goto(f"{address}#/r/0")
            page.locator("tbody tr").first.wait_for()
            first = page.evaluate(TIMED, ["tbody th a", ".tree .node", 10])
            yield f"a search of {NODES:,} steps, opened", first, "ms"
            page.locator(".tools").wait_for()
            yield (
                "all its steps unfolded",
                page.evaluate(TIMED, [".tools button:nth-of-type(5)", ".tree .node", 10]),
                "ms",
            )
            # only what is in sight is drawn, so all of it is brought into sight
            yield (
                "all its steps drawn",
                page.evaluate(TIMED, [".tools button:nth-of-type(3)", ".tree .node", NODES]),
                "ms",
            )
            page.close()

        size = write_lines(folder / "many.jsonl", lines) / 1e6
        yield f"a file of {lines:,} lines", size, "MB"
        with viewed(folder / "many.jsonl") as (address, process, _):
            page = opened.new_page()
            begun = time.perf_counter()
            page.goto(f"{address}#/r/0")
            page.locator("tbody tr").nth(49).wait_for()
            yield "its first 50 lines", time.perf_counter() - begun, "s"
            while known(page, address) < lines:
                time.sleep(0.5)
            yield "all of them read", time.perf_counter() - begun, "s"
            begun = time.perf_counter()
            page.goto(f"{address}#/r/0?offset={lines - 50}")
            page.get_by_text(f"q{lines - 1}", exact=True).wait_for()
            yield "its last 50 lines", 1000 * (time.perf_counter() - begun), "ms"
            begun = time.perf_counter()
            page.goto(f"{address}#/r/0?text=q{lines // 2}")
            page.get_by_text(re.compile("^1 of")).wait_for()
            yield "one id found", 1000 * (time.perf_counter() - begun), "ms"
            yield "its process afterwards", memory(process), "MB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["measure", "value", "unit"])
    with tempfile.TemporaryDirectory() as made:
        for what, value, unit in measure(Path(made), parser.parse_args().lines):
            table.writerow([what, f"{value:.3g}" if value < 1000 else f"{value:.0f}", unit])
            sys.stdout.flush()
