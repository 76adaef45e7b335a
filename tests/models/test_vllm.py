"""Outthink against a real vLLM server; `scripts/test-vllm` starts one and runs this."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from outthink import Budget, Sampling, Trace, make_strategy, solve, solve_async
from outthink.bench.pool import record_pool
from outthink.models.engine import Progress, Request
from outthink.models.openai.engine import OpenAIEngine
from outthink.models.recorded import RecordedEngine
from outthink.tasks import load
from outthink.types import Message

URL = os.environ.get("OUTTHINK_VLLM", "")
pytestmark = [pytest.mark.skipif(not URL, reason="scripts/test-vllm runs this"), pytest.mark.timeout(300)]
QUESTION = "What is 2 + 3?"
SHORT = Sampling(max_tokens=48)


@pytest.fixture
def engine() -> OpenAIEngine:
    return OpenAIEngine.open(URL)


def page() -> list[str]:
    with urllib.request.urlopen(URL.removesuffix("/v1") + "/metrics") as reply:
        text: str = reply.read().decode()
    return text.splitlines()


def metrics() -> dict[str, float]:
    """The server's own counts, by name and reason."""
    time.sleep(0.5)  # they are written after the last token has left
    lines = page()
    counts: dict[str, float] = {}
    for line in lines:
        name, _, value = line.rpartition(" ")
        if name.startswith("vllm:") and "_created" not in name and "bucket" not in name:
            key = name.partition("{")[0]
            reason = name.partition('finished_reason="')[2].partition('"')[0]
            counts[key + (f":{reason}" if reason else "")] = counts.get(key, 0.0) + float(value)
    return counts


def since(before: dict[str, float], name: str) -> float:
    return metrics()[name] - before[name]


def prompts(trace: Trace) -> int:
    """Prompt tokens as the server counts them: for each child again, where its reply counts a request's prompt once."""
    return sum(call.charged.prompt * (call.n if call.kind == "sample" else 1) for call in trace.calls)


def test_the_probe_finds_what_vllm_does(engine: OpenAIEngine) -> None:
    facts = OpenAIEngine.open(URL, fresh=True).facts
    assert facts.model == "smollm2"
    assert facts.context == 2048
    assert facts.powers == {"logprobs", "labels", "top_logprobs", "prefix", "tokens", "logit_bias"}
    assert (facts.n, facts.stream, facts.token_ids, facts.tokenize) == (True, True, True, True)
    assert (facts.prefix, facts.stop, facts.labels) == ("ids", "kept", 20)
    assert facts.abort is not None
    assert facts.abort < 1.0


@pytest.mark.parametrize("strategy", ["greedy", "self_consistency", "best_of_n", "revision", "fusion"])
def test_tokens_are_those_of_the_server(strategy: str, engine: OpenAIEngine) -> None:
    before = metrics()
    trace = solve(QUESTION, strategy, model=engine, verifier="confidence", sampling=SHORT)
    assert trace.stopped == "finished"
    assert all(call.exact and call.outcome == "ok" for call in trace.calls)
    assert since(before, "vllm:generation_tokens_total") == trace.usage.completion
    assert since(before, "vllm:prompt_tokens_total") == prompts(trace)
    assert sum(candidate.tokens for candidate in trace.candidates) == trace.usage.completion


def test_steps_are_continued_by_their_ids(engine: OpenAIEngine) -> None:
    before = metrics()
    strategy = make_strategy("rebase", {"width": "6", "delimiter": "\n"})
    question = "Write the numbers one to four, each on a line of its own."
    trace = solve(question, strategy, model=engine, prm="confidence", sampling=SHORT)
    assert trace.stopped == "finished"
    steps = [candidate for candidate in trace.candidates if candidate.continues]
    assert steps
    assert since(before, "vllm:generation_tokens_total") == trace.usage.completion
    for candidate in trace.candidates:
        assert candidate.token_ids is not None or not candidate.text
        assert candidate.logprobs is None or len(candidate.logprobs) == len(candidate.token_ids or ())
    assert all(step.text.endswith("\n") for step in trace.candidates if step.finish == "stop")


def test_a_search_reads_its_prefixes_from_the_cache(engine: OpenAIEngine) -> None:
    """Each level continues the paths of the one before, whose blocks the server still has."""
    before = metrics()
    context = " ".join(f"Item {number} costs {number * 7 % 31} coins." for number in range(60))
    strategy = make_strategy("rebase", {"width": "4", "delimiter": "\n"})
    trace = solve(f"{context}\nName four items, each on a line of its own.", strategy, model=engine,
                  prm="confidence", sampling=SHORT)  # fmt: skip
    steps = [call for call in trace.calls if call.kind == "sample"]
    assert len(steps) > 1
    # all but the first request find the prompt's full blocks
    assert all(call.charged.cached > call.charged.prompt / 2 for call in steps[1:])
    assert since(before, "vllm:prefix_cache_hits_total") >= trace.usage.cached > 0


def test_the_judge_reads_label_probabilities(engine: OpenAIEngine) -> None:
    before = metrics()
    trace = solve(QUESTION, make_strategy("best_of_n", {"n": "4"}), model=engine, verifier="judge", sampling=SHORT)
    scores = trace.rounds[-1].scores
    assert scores is not None
    assert all(score is not None and 0 <= score <= 1 for score in scores)
    assert since(before, "vllm:generation_tokens_total") == trace.usage.completion


def test_no_budget_is_exceeded(engine: OpenAIEngine) -> None:
    for limit in (150, 333, 800):
        trace = solve(
            QUESTION,
            make_strategy("self_consistency", {"n": "32"}),
            model=engine,
            budget=Budget({"tokens": limit}),
            sampling=SHORT,
        )
        assert trace.cost["tokens"] <= limit
        assert trace.stopped == "budget"
        assert trace.candidates


def test_the_same_seed_gives_the_same_sample(engine: OpenAIEngine) -> None:
    one, two, other = (
        solve(QUESTION, make_strategy("self_consistency", {"n": "1"}), model=engine, sampling=SHORT, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one.candidates[0].text == two.candidates[0].text != other.candidates[0].text


def test_an_aborted_call_ends_on_the_server_within_a_second(engine: OpenAIEngine) -> None:
    async def go() -> tuple[Progress, float]:
        request = Request(messages=(Message(content="Write a very long story about the sea."),), n=4, max_tokens=1500)
        progress = Progress(n=4)
        running = asyncio.ensure_future(engine.generate(request, progress))
        while sum(progress.tokens) < 20:  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.05)
        running.cancel()
        begun = time.monotonic()
        await asyncio.wait({running})
        while time.monotonic() - begun < 5:
            running_now = [line for line in page() if line.startswith("vllm:num_requests_running")]
            if all(line.endswith(" 0.0") for line in running_now):
                return progress, time.monotonic() - begun
            await asyncio.sleep(0.05)
        return progress, 5.0

    before = metrics()
    progress, seconds = asyncio.run(go())
    assert seconds < 1.0
    made = since(before, "vllm:generation_tokens_total")
    assert sum(progress.tokens) <= made <= 4 * 1500


def test_a_deadline_charges_what_it_cancelled(engine: OpenAIEngine) -> None:
    before = metrics()
    trace = asyncio.run(
        solve_async(
            "Write a very long story about the sea.",
            make_strategy("self_consistency", {"n": "4"}),
            model=engine,
            budget="3s",
            sampling=Sampling(max_tokens=1500),
        )
    )
    assert trace.stopped == "deadline"
    made = since(before, "vllm:generation_tokens_total")
    seen = sum(call.seen.completion for call in trace.calls)
    assert seen <= made <= trace.usage.completion


def test_pool_is_recorded_and_replayed(engine: OpenAIEngine, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    before = metrics()
    examples = load("gsm8k", path=Path("src/outthink/data/gsm8k_sample.jsonl"), split="train", limit=4)
    recorded = asyncio.run(record_pool(examples, n=4, model=engine, path=path, sampling=SHORT))
    assert (recorded.done, recorded.failed) == (4, {})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    samples = [sample for row in rows for sample in row["samples"]]
    assert since(before, "vllm:generation_tokens_total") == sum(sample["tokens"] for sample in samples)
    for sample in samples:
        ended = sample["finish"] == "eos"
        assert len(sample["token_ids"]) == len(sample["logprobs"]) == sample["tokens"] - ended
        assert all(value <= 0 for value in sample["logprobs"])
    replay = RecordedEngine.open(path)
    for example in examples:
        solve(example.problem, make_strategy("self_consistency", {"n": "4"}), model=replay, sampling=SHORT)


def test_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "outthink", "solve", QUESTION, "--model", URL, "--n", "4", "--json"]
    ran = subprocess.run([*command, "--max-tokens", "48"], capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 3), ran.stderr
    assert json.loads(ran.stdout)["cost"]["tokens"] > 0
