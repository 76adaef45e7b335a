"""Measures how many tokens a second a catalogued model reads and writes here, and what the engine adds to OpenVINO.

    python benchmarks/throughput.py [--model NAME]              a Markdown table of decode and prefill speed
    python benchmarks/throughput.py [--model NAME] --overhead   the engine against one raw pipeline run

Run it on a quiet machine; end marks are ignored, so that every run does the same work.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from pathlib import Path
from typing import Any

from outthink.models import catalog
from outthink.models.engine import Progress, Request
from outthink.models.openvino.engine import OpenVINOEngine
from outthink.models.openvino.loading import openvino_genai
from outthink.types import Message

PROBLEMS = 16
WORDS = ("river", "stone", "seven", "apples", "price", "train", "garden", "window", "hours", "paint", "letter", "half")


def prompt(words: int, rng: random.Random) -> tuple[Message, ...]:
    """A prompt that no cache has seen before."""
    return (Message(content=" ".join(rng.choice(WORDS) for _ in range(words))),)


def request(messages: tuple[Message, ...], n: int, max_tokens: int) -> Request:
    return Request(messages=messages, n=n, max_tokens=max_tokens, temperature=0.8, seeds=tuple(range(n)))


async def timed(engine: OpenVINOEngine, requests: list[Request]) -> tuple[float, list[Progress]]:
    """Seconds of all requests in flight together."""
    progresses = [Progress(n=each.n) for each in requests]
    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for each, progress in zip(requests, progresses, strict=True):
            tasks.create_task(engine.generate(each, progress))
    return time.perf_counter() - started, progresses


async def table(engine: OpenVINOEngine, max_tokens: int) -> None:
    rng = random.Random(1)
    print("| children | decode, tokens/s | prefill, tokens/s |")
    print("|---:|---:|---:|")
    for n in (1, 8, 32, 64):
        messages = prompt(40, rng)
        await timed(engine, [request(messages, 1, 1)])  # the prompt is cached
        seconds, _ = await timed(engine, [request(messages, n, max_tokens)])
        reading, progresses = await timed(engine, [request(prompt(350, rng), 1, 1) for _ in range(n)])
        read = sum(progress.prompt - progress.cached for progress in progresses)
        print(f"| {n} | {n * max_tokens / seconds:,.0f} | {read / reading:,.0f} |", flush=True)


def raw_pipeline(path: Path) -> Any:
    genai = openvino_genai()

    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = True
    scheduler.cache_size = 2
    scheduler.max_num_seqs = 256
    scheduler.max_num_batched_tokens = 2048
    return genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU")


def raw(pipeline: Any, prompts: list[tuple[Message, ...]], n: int, max_tokens: int) -> float:
    """Seconds of one call of the pipeline with everything in it."""
    genai = openvino_genai()

    tokenizer = pipeline.get_tokenizer()
    started = time.perf_counter()
    inputs, configs = [], []
    for seed, messages in enumerate(prompts):
        chat = [{"role": message.role, "content": message.text} for message in messages]
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True)
        inputs.append(tokenizer.encode(text, add_special_tokens=False).input_ids)
        config = genai.GenerationConfig()
        config.apply_chat_template = False
        config.ignore_eos = True
        config.do_sample = True
        config.temperature = 0.8
        config.rng_seed = seed
        config.num_return_sequences = n
        config.max_new_tokens = max_tokens
        configs.append(config)
    pipeline.generate(inputs, configs)
    return time.perf_counter() - started


async def overhead(engine: OpenVINOEngine, path: Path, n: int, max_tokens: int, repeats: int) -> None:
    pipeline = raw_pipeline(path)
    rng = random.Random(1)
    tokens = PROBLEMS * n * max_tokens
    ours: list[float] = []
    theirs: list[float] = []
    for repeat in range(repeats + 1):
        # new prompts each time, the same for both, so that both read them
        prompts = [prompt(80, rng) for _ in range(PROBLEMS)]
        seconds, _ = await timed(engine, [request(messages, n, max_tokens) for messages in prompts])
        raw_seconds = raw(pipeline, prompts, n, max_tokens)
        if repeat > 0:  # the first pair warms up
            ours.append(tokens / seconds)
            theirs.append(tokens / raw_seconds)
            print(f"engine {ours[-1]:,.0f} tokens/s, raw pipeline {theirs[-1]:,.0f} tokens/s", flush=True)
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(
        f"{PROBLEMS} problems x {n} samples x {max_tokens} tokens, median of {repeats}: "
        f"engine {statistics.median(ours):,.0f} tokens/s, raw pipeline {statistics.median(theirs):,.0f} tokens/s, "
        f"ratio {ratio:.2f}"
    )


async def measure(arguments: argparse.Namespace) -> None:
    path = catalog.pull(arguments.model, announce=print)
    engine = OpenVINOEngine(path, ignore_eos=True)
    try:
        if arguments.overhead:
            await overhead(engine, path, arguments.n, arguments.max_tokens, arguments.repeats)
        else:
            await table(engine, arguments.max_tokens)
    finally:
        await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct", help="a name from the catalogue")
    parser.add_argument("--overhead", action="store_true", help="compare with a raw pipeline run")
    parser.add_argument("--n", type=int, default=4, help="samples per problem (with --overhead)")
    parser.add_argument("--max-tokens", type=int, default=96, help="tokens per sample")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs (with --overhead)")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
