"""Every strategy that can be replayed chooses offline what it chooses live from the same samples.

Not here: heimdall, whose verdicts no scorer gives, first_finish, since a recorded engine ends all samples at once, and
what continues thoughts, which a recording cannot: tests of probing compare those.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink import Problem, Sampling, ask
from outthink.driver import solve_async
from outthink.models.recorded import RecordedEngine
from outthink.names import load
from outthink.records.pools import read_pool
from outthink.reports.curves import Replayable, _drawn
from outthink.strategies import STRATEGIES
from outthink.strategies.making import make_strategy
from tests.tools import virtual

N = 12
NAMES = [
    name
    for name, target in STRATEGIES.items()
    if hasattr(load(target), "replay")
    and name not in ("heimdall", "first_finish")
    and "prefix" not in getattr(make_strategy(name), "powers", ())
]
WITHOUT_N: dict[str, dict[str, Any]] = {"answer_graph": {"nodes": f"assistant:{N}"}}
"""Settings with N samples of methods that have no such number."""

SAMPLING = Sampling(max_tokens=40)
QUESTION = "How many?"


def rows(seed: int) -> dict[str, Any]:
    """A problem with samples of a few answers, some cut off, some unreadable, with scores and logprobs."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(N):
        kind = rng.choice(5, p=[0.35, 0.25, 0.2, 0.1, 0.1])
        words = " ".join(rng.choice(["so", "wait", "maybe", "first", "then"], size=rng.integers(1, 9)))
        text = f"{words} {index if rng.random() < 0.8 else 0}" + ("" if kind == 3 else f"\n#### {kind}")
        tokens = int(rng.integers(3, 30))
        finish = "length" if kind == 4 else "eos"
        key = None if kind >= 3 else str(kind)
        logprobs = [float(-rng.exponential())] * tokens
        samples.append(
            {
                "text": text if kind != 3 else "nothing to read",
                "tokens": tokens,
                "token_ids": None,
                "logprobs": logprobs,
                "confidences": [-one for one in logprobs],
                "finish": finish,
                "answer": key,
                "key": key,
                "correct": kind == 0,
                "reward": round(float(rng.random()), 3),
            }
        )
    told = {"id": QUESTION, "question": QUESTION, "answer": "0", "prompt_tokens": 11, "likeliest": 20}
    return {**told, "samples": samples, "meta": {}}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", NAMES)
def test_replay_chooses_what_the_strategy_chooses(name: str, seed: int, tmp_path: Path) -> None:
    row = rows(seed)
    path = tmp_path / "pool.jsonl"
    path.write_text(json.dumps(row) + "\n")
    strategy = make_strategy(name, WITHOUT_N.get(name, {"n": N}))
    if any(field.name == "ahead" for field in fields(strategy)):
        strategy = replace(strategy, ahead=1)
    scores = {sample["text"]: sample["reward"] for sample in row["samples"]}
    score: Callable[[str, str], float] = lambda question, solution: scores[solution]  # noqa: E731
    problem: Problem = ask(QUESTION, answer="math", template="{question}")
    trace = virtual.run(
        solve_async(problem, strategy, model=RecordedEngine.open(path), verifier=score, sampling=SAMPLING)
    )
    (recorded,) = read_pool(path).problems
    recorded = replace(recorded, scores={"reward": np.array([[scores[one["text"]]] for one in row["samples"]])})
    assert isinstance(strategy, Replayable)
    drawn = _drawn(recorded, np.arange(N)[None], "reward", None, np.random.default_rng(0))
    chosen = strategy.replay(replace(drawn, lengths=drawn.tokens))  # ties as they are broken live
    live = trace.rounds[-1].chosen
    assert live == (None if chosen.index[0] < 0 else f"model/0/{chosen.index[0]}")
    assert len(trace.candidates) == chosen.used[0]


def test_most_parallel_strategies_can_be_replayed() -> None:
    assert set(NAMES) >= {"self_consistency", "best_of_n", "esc", "adaptive_consistency", "rpc", "borda", "optscale"}
