"""Sends 2,000 requests through `outthink serve` to an endpoint that fails in many ways, while callers leave.

    python benchmarks/faults.py [--requests 2000] [--seconds 60] [--seed 1]

The endpoint, the server, the callers and whoever looks at /health are processes of their own, and the clock is the
real one. One answer in two of the endpoint is faulty: refused, late, cut off, hung, nonsense, endless, or with usage
that is missing or wrong; else it writes 500 tokens a second. Three callers in ten leave: before all is sent, while it
works, in the middle of a stream. What a caller was charged is read in the recorded traces, and what was written for him
at the endpoint. Time for which a process waited for a processor, since the machine is busy with something else, is
told and does not count. Ends with 1 where a promise is broken. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from outthink.jsonl import read
from outthink.records.runs import read_results
from outthink.types import Usage

SAYS = [
    *("The answer is 4.", "The answer is 4.", "The answer is 5.", "So I would say that the answer is 4."),
    "one two three four five six seven eight nine ten eleven twelve",
]
STRATEGIES = [
    *("none", "none", "greedy", "self_consistency", "self_consistency", "adaptive_consistency", "esc", "first_finish"),
    *("auto", "auto", "mbr", "hedged_sampling", "multi_temperature", "revision"),
]
LEFT = 1.0  # seconds after which nothing is done any more for who has left
PACE = 0.002  # seconds of a token
HEALTHY = 1.0  # seconds in which /health answers
BASE = 200  # requests before the first measurement
GROWN = 1.1  # times its memory after the first half that the server may have after the second
LINES = 24  # descriptors beyond those at the base: connections that wait to be used again
SETTLE = 40.0  # seconds for connections to be closed that nobody uses
NUMBER = re.compile(r"#(\d+)#")

# ------------------------------------------------------------------------------------------------------ the endpoint


@dataclass
class Made:
    """What was read and written for each caller, by number, and how many of his requests are live."""

    prompt: Counter[int] = field(default_factory=Counter)
    completion: Counter[int] = field(default_factory=Counter)
    live: Counter[int] = field(default_factory=Counter)
    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    story: dict[int, list[str]] = field(default_factory=dict)
    """What was done to each caller's requests."""


class Endpoint:
    """Speaks OpenAI's chat API, a word a token; unruly as soon as it is told to be."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.unruly = False
        self.made = Made()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/begin", self.begin)
        app.router.add_get("/made", self.told)
        app.router.add_get("/live/{number}", self.live)
        return app

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 4096}]})

    async def begin(self, request: web.Request) -> web.Response:
        self.unruly = True
        return web.json_response({})

    async def live(self, request: web.Request) -> web.Response:
        return web.json_response(self.made.live[int(request.match_info["number"])])

    async def told(self, request: web.Request) -> web.Response:
        made = self.made
        return web.json_response(
            {
                "prompt": made.prompt,
                "completion": made.completion,
                "requests": made.requests,
                "live": sum(made.live.values()),
                "faults": made.faults,
                "story": made.story,
            }
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        said = " ".join(str(message["content"]) for message in body["messages"])
        match = NUMBER.search(said)
        number = -1 if match is None else int(match[1])
        self.made.requests += 1
        self.made.live[number] += 1
        try:
            return await self.answered(request, body, number)
        except ConnectionError:  # the server has closed it
            raise asyncio.CancelledError from None
        finally:
            self.made.live[number] -= 1

    async def answered(self, request: web.Request, body: dict[str, Any], number: int) -> web.StreamResponse:
        rng = self.rng
        faulty = self.unruly and number >= 0 and rng.random() < 0.5
        fault = rng.choice(list(FAULTS)) if faulty else "none"
        self.made.faults[fault] += faulty
        told = (
            f"{fault}, n {body.get('n')}, cap {body.get('max_tokens')}, {'streamed' if body.get('stream') else 'whole'}"
        )
        self.made.story.setdefault(number, []).append(told)
        how = FAULTS.get(fault, {})
        await asyncio.sleep(how.get("before", 0.0))
        if "status" in how:
            return web.json_response(
                {"error": {"message": "Something is wrong.", "type": "server_error", "code": None}},
                status=how["status"],
                headers=how.get("headers"),
            )
        if "body" in how:
            return web.Response(body=how["body"], content_type=how.get("kind", "application/json"))
        prompt = sum(len(str(message["content"]).split()) + 1 for message in body["messages"])
        self.made.prompt[number] += prompt
        most = body.get("max_tokens") or body.get("max_completion_tokens") or 10**6
        if not body.get("stream"):  # what nobody asked for cannot be known by who has left before it came
            how = {name: value for name, value in how.items() if name not in ("endless", "surplus")}
        texts = [rng.choice(SAYS).split(" ") for _ in range((body.get("n") or 1) + how.get("surplus", 0))]
        if how.get("endless"):
            texts = [[*words, *["more"] * 3000] for words in texts]
            most = 10**6
        words = [text[:most] for text in texts]
        ends = ["stop" if len(text) <= most else "length" for text in texts]
        total = sum(map(len, words))
        usage: Any = {"prompt_tokens": prompt, "completion_tokens": total, "total_tokens": prompt + total}
        usage = how.get("usage", lambda usage: usage)(usage)
        if not body.get("stream"):
            self.made.completion[number] += total
            choices = [
                {"index": k, "message": {"role": "assistant", "content": " ".join(text)}, "finish_reason": end}
                for k, (text, end) in enumerate(zip(words, ends, strict=True))
            ]
            return web.json_response({"object": "chat.completion", "model": "m", "choices": choices, "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        sent = 0
        for place in range(max(map(len, words))):
            for k, text in enumerate(words):
                if place >= len(text):
                    continue
                if sent == how.get("after", -1):
                    if how.get("then") == "hang":
                        await asyncio.sleep(3600)
                    assert request.transport is not None
                    request.transport.close()
                    return response
                piece = text[place] if place == 0 else f" {text[place]}"
                end = ends[k] if place == len(text) - 1 and not how.get("endings") else None
                choice = {"index": k, "delta": {"content": piece}, "finish_reason": end}
                self.made.completion[number] += 1
                sent += 1
                await response.write(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())
                await asyncio.sleep(how.get("pace", PACE))
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(b"data: %b\n\n" % json.dumps({"choices": [], "usage": usage}).encode())
        if not how.get("open"):
            await response.write(b"data: [DONE]\n\n")
        return response


FAULTS: dict[str, dict[str, Any]] = {
    **{f"status {status}": {"status": status} for status in (400, 408, 429, 500, 502, 503, 504)},
    **{
        f"come back in {seconds}": {"status": 429, "headers": {"Retry-After": seconds}}
        for seconds in ("1", "30", "inf", "1e400", "1e308", "soon", "-1")
    },
    "slow to begin": {"before": 1.0},
    "never begins": {"before": 3600.0},
    "slow": {"pace": 0.1},
    "very slow": {"pace": 1.0},
    "cut off at once": {"after": 0},
    "cut off": {"after": 3},
    "cut off later": {"after": 9},
    "hangs at once": {"after": 0, "then": "hang"},
    "hangs": {"after": 4, "then": "hang"},
    "hangs later": {"after": 11, "then": "hang"},
    "half of JSON": {"body": b'{"choices": [{"message": {"con'},
    "a page": {"body": b"<html>Bad Gateway</html>", "kind": "text/html"},
    "nothing": {"body": b""},
    "an array": {"body": b"[]"},
    "null": {"body": b"null"},
    "another shape": {"body": b'{"choices": 5}'},
    "half of an event": {"body": b'data: {"choices": [{"ind', "kind": "text/event-stream"},
    "an error in the stream": {"body": b'data: {"error": {"message": "broken"}}\n\n', "kind": "text/event-stream"},
    "broken characters": {
        "body": b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n',
        "kind": "text/event-stream",
    },
    "endless": {"endless": True, "pace": 0.02},
    "more answers": {"surplus": 8},
    "no end told": {"endings": True},
    "not closed": {"open": True},
    "no usage": {"usage": lambda usage: None},
    "empty usage": {"usage": lambda usage: {}},
    "usage in words": {"usage": lambda usage: "much"},
    "nothing written": {"usage": lambda usage: {**usage, "completion_tokens": 0, "total_tokens": 0}},
    "nothing read": {"usage": lambda usage: {**usage, "prompt_tokens": 0}},
    "less than nothing": {"usage": lambda usage: {**usage, "completion_tokens": -1}},
    "a hundred million": {"usage": lambda usage: {**usage, "completion_tokens": 110_000_000}},
    "usage as text": {"usage": lambda usage: {**usage, "prompt_tokens": "3"}},
}

# -------------------------------------------------------------------------------------------------------- the callers


@dataclass
class Caller:
    """One who asks; what he got is in `what`, and what is wrong with it in `wrong`."""

    number: int
    rng: random.Random
    faults: bool
    what: str = ""
    wrong: str = ""

    def __post_init__(self) -> None:
        rng = self.rng
        strategy = rng.choice(STRATEGIES)
        self.stream = rng.random() < 0.5
        self.choices = rng.choice((1, 1, 1, 3))
        own = strategy in ("greedy", "hedged_sampling", "multi_temperature")
        wish: dict[str, Any] = {"answer": rng.choice(("chat", "math", "text"))}
        if strategy not in ("none", "greedy", "revision"):
            wish["n"] = rng.randint(1, 8)
        limits: dict[str, float] = {"tokens": rng.randint(200, 2000)} if rng.random() < 0.2 else {}
        limits |= {"seconds": rng.choice((0.5, 1, 2, 4))} if rng.random() < 0.5 else {}
        if limits:
            wish["budget"] = limits
        self.body = {
            "model": f"m+{strategy}",
            "messages": [{"role": "user", "content": f"What is 2+2? #{self.number}#"}],
            "stream": self.stream,
            "n": self.choices,
            "max_tokens": rng.choice((5, 40)),
            "outthink": wish,
            **({} if own else {"temperature": 0.9}),
        }
        does = ["reads"] * 9 + ["leaves", "leaves", "hears", "stops"]
        self.does = rng.choice(does) if self.faults else "reads"
        self.waits = rng.random() * 1.5

    async def go(self, url: str, endpoint: str, pids: Sequence[int], session: aiohttp.ClientSession) -> None:
        """Ask, and do whatever he does; a second after he has left, nothing is done for him."""
        host, port = url.removeprefix("http://").split(":")
        data = json.dumps(self.body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
        try:
            writer.write(head.encode() + (data[:-20] if self.does == "stops" else data))
            await writer.drain()
            if self.does == "reads":
                self.read(await asyncio.wait_for(reader.read(), 60))
                return
            if self.does == "hears":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(400), 10 * self.waits)
            else:
                await asyncio.sleep(self.waits)
            self.what = "left"
        except (TimeoutError, OSError) as failure:
            self.wrong = f"no answer: {type(failure).__name__}"
            return
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        left = time.perf_counter() - waited(*pids)
        while time.perf_counter() - waited(*pids) < left + LEFT:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(LEFT / 4)
        async with session.get(f"{endpoint}/live/{self.number}") as live:
            if count := await live.json():
                self.wrong = f"{count} requests live {LEFT:g} s after he left"

    def read(self, answer: bytes) -> None:
        """See what kind of answer it is; anything else than an answer or an error of OpenAI's API is wrong."""
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        if not answer:
            self.wrong = "closed without an answer"
            return
        status = lines[0].split()[1]
        self.what = status
        longest = max(map(len, lines))
        if b"chunked" in head.lower():
            body = unchunked(body)
        try:
            if status != "200":
                error = json.loads(body)["error"]
                right = error.keys() == {"message", "type", "param", "code"} and error["message"]
            elif not self.stream:
                right = all(
                    isinstance(c["message"]["content"], str) and c["finish_reason"] for c in json.loads(body)["choices"]
                )
            else:
                right = self.ends(body)
        except (ValueError, KeyError, TypeError, IndexError) as failure:
            right = False
            self.wrong = f"{status}, {type(failure).__name__}: {body[:80]!r}"
        if not right or longest > 500:
            self.wrong = self.wrong or f"{status}: {body[:80]!r}"

    def ends(self, body: bytes) -> bool:
        events = [block for block in body.decode().split("\n\n") if block and not block.startswith(":")]
        if not all(event.startswith("data: ") for event in events):
            return False
        last = events[-1].removeprefix("data: ")
        if last == "[DONE]":
            every = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
            ends = [c["index"] for event in every for c in event["choices"] if c["finish_reason"]]
            return 0 < len(ends) == len(set(ends)) <= self.choices
        self.what = "200, then an error"
        error: dict[str, Any] = json.loads(last)["error"]
        return error.keys() == {"message", "type", "param", "code"}


def unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        if (length := int(size, 16)) == 0:
            break
        parts.append(body[:length])
        body = body[length + 2 :]
    return b"".join(parts)


# ------------------------------------------------------------------------------------------------------ the processes


def waited(*pids: int) -> float:
    """Seconds for which the first threads of processes, where their loops run, have waited for a processor."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in pids) / 1e9


def health(url: str, pid: int) -> None:
    """Look every 50 ms, until told to stop; then how long each took, and how many failed.

    Beside each stands for how long the server and whoever looks waited for a processor meanwhile.
    """
    told: list[tuple[float, float]] = []
    failed = 0
    going = True

    def stop(*_: object) -> None:
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    while going:
        began = time.perf_counter()
        before = waited(pid, os.getpid())
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=60) as answer:
                failed += answer.status != 200
        except OSError:
            failed += 1
        told.append((time.perf_counter() - began, waited(pid, os.getpid()) - before))
        time.sleep(0.05)
    print(json.dumps({"times": told, "failed": failed}), flush=True)


async def endpoint(seed: int) -> None:
    runner = web.AppRunner(Endpoint(seed).app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def process(*words: str, told: int | None = None, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    running = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.PIPE, stderr=told, env={**os.environ, **more}, limit=1 << 24
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


def memory(pid: int) -> float:
    """Resident memory in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def crowd(callers: list[Caller], seconds: float, url: str, model: str, pids: Sequence[int]) -> None:
    """Each comes at a moment of his own."""

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:

        async def one(caller: Caller) -> None:
            await asyncio.sleep(caller.rng.random() * seconds)
            await caller.go(url, model, pids, session)

        await asyncio.gather(*(one(caller) for caller in callers))


async def measured(requests: int, seconds: float, seed: int, folder: Path, here: str) -> dict[str, Any]:
    async with process(here, "--endpoint", "--seed", str(seed)) as model_process:
        assert model_process.stdout is not None
        model = (await model_process.stdout.readline()).decode().strip()
        options = ["--port", "0", "--timeout", "10", "--record", str(folder / "traffic")]
        environment = {"OUTTHINK_CACHE": str(folder / "cache"), "XDG_CONFIG_HOME": str(folder / "config")}
        async with process(
            *("-m", "outthink", "serve", "--upstream", f"{model}/v1#m", *options),
            told=asyncio.subprocess.PIPE,
            **environment,
        ) as server:
            log: list[bytes] = []
            ready = asyncio.get_running_loop().create_future()

            async def read_log() -> None:
                assert server.stderr is not None
                async for line in server.stderr:
                    log.append(line)
                    if b"Serving at " in line and not ready.done():
                        ready.set_result(line.decode().split("Serving at ")[1].split("/v1")[0])
                if not ready.done():
                    ready.set_exception(RuntimeError(b"".join(log).decode()))

            logging = asyncio.create_task(read_log())
            url = await asyncio.wait_for(ready, 60)
            before = [Caller(requests + place, random.Random(f"{seed} base {place}"), False) for place in range(BASE)]
            pids = (server.pid, model_process.pid)
            await crowd(before, 5.0, url, model, pids)
            await asyncio.sleep(2.0)
            base = memory(server.pid), descriptors(server.pid)
            async with process(here, "--health", url, "--pid", str(server.pid)) as looking:
                assert looking.stdout is not None
                await looking.stdout.readline()
                async with aiohttp.ClientSession() as session:
                    await (await session.post(f"{model}/begin")).read()
                callers = [Caller(place, random.Random(f"{seed} {place}"), True) for place in range(requests)]
                began, waiting = time.perf_counter(), waited(server.pid)
                half = len(callers) // 2
                await crowd(callers[:half], seconds / 2, url, model, pids)
                await asyncio.sleep(1.0)
                between = memory(server.pid)
                await crowd(callers[half:], seconds / 2, url, model, pids)
                took, waiting = time.perf_counter() - began, waited(server.pid) - waiting
                looking.send_signal(signal.SIGTERM)
                looked = json.loads(await looking.stdout.readline())
            until = time.perf_counter() + SETTLE
            while descriptors(server.pid) > base[1] and time.perf_counter() < until:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            after = memory(server.pid), descriptors(server.pid)
            async with aiohttp.ClientSession() as session, session.get(f"{model}/made") as told:
                made = await told.json()
            server.terminate()
            ended = await asyncio.wait_for(server.wait(), 60)
            await logging
    whose = {line["problem"]: number_in(line) for _, line in read(folder / "traffic" / "problems.jsonl")}
    charged: dict[int, Usage] = {}
    for result in read_results(folder / "traffic" / "served"):
        if result.trace is not None:
            number = whose[result.problem]
            charged[number] = charged.get(number, Usage()) + result.trace.usage
    short = [
        (
            *(number, made["prompt"].get(str(number), 0), made["completion"].get(str(number), 0)),
            *(charged.get(number), made["story"].get(str(number))),
        )
        for number in range(requests + BASE)
        if charged.get(number, Usage()).prompt < made["prompt"].get(str(number), 0)
        or charged.get(number, Usage()).completion < made["completion"].get(str(number), 0)
    ]
    return {
        "callers": callers,
        "took": took,
        "waited": waiting,
        "base": base,
        "between": between,
        "after": after,
        "looked": looked,
        "made": made,
        "short": short,
        "charged": sum(usage.tokens for usage in charged.values()),
        "written": sum(made["prompt"].values()) + sum(made["completion"].values()),
        "ended": ended,
        "log": log,
    }


def number_in(line: dict[str, Any]) -> int:
    match = NUMBER.search(json.dumps(line["messages"]))
    assert match is not None
    return int(match[1])


def show(told: dict[str, Any]) -> bool:
    """Print what was measured; whether every promise was kept."""
    callers: list[Caller] = told["callers"]
    wrong = [caller for caller in callers if caller.wrong]
    looks = sorted(took for took, _ in told["looked"]["times"])
    longest = max(took - waiting for took, waiting in told["looked"]["times"])
    kinds = Counter(caller.what for caller in callers)
    live = [caller for caller in wrong if "live" in caller.wrong]
    internal = [line for line in told["log"] if b" ERROR " in line or b"Traceback" in line]
    (memory_before, lines_before), (memory_after, lines_after) = told["base"], told["after"]
    rows = [
        ("requests", f"{len(callers):,} in {told['took']:.0f} s", True),
        ("answered", ", ".join(f"{kind}: {count:,}" for kind, count in sorted(kinds.items()) if kind), True),
        ("neither an answer nor an error of the API", f"{len(wrong) - len(live):,}", len(wrong) == len(live)),
        (f"callers for whom something was live {LEFT:g} s after they left", f"{len(live):,}", not live),
        ("requests to the endpoint", f"{told['made']['requests']:,}", True),
        ("faulty ones", f"{sum(told['made']['faults'].values()):,} of {len(told['made']['faults'])} kinds", True),
        ("live at the end", f"{told['made']['live']:,}", not told["made"]["live"]),
        ("callers charged less than was made for them", f"{len(told['short']):,}", not told["short"]),
        ("tokens charged, and made", f"{told['charged']:,}, {told['written']:,}", True),
        (
            "/health, median and longest",
            f"{looks[len(looks) // 2]:.3f} s, {looks[-1]:.3f} s",
            not told["looked"]["failed"],
        ),
        ("the longest, less the waiting for a processor", f"{longest:.3f} s", longest < HEALTHY),
        ("waiting for a processor in all", f"{told['waited']:.1f} s", True),
        (
            "memory before, after half of them and after all",
            f"{memory_before:.0f} MB, {told['between']:.0f} MB, {memory_after:.0f} MB",
            memory_after < GROWN * told["between"],
        ),
        ("descriptors before and after", f"{lines_before}, {lines_after}", lines_after <= lines_before + LINES),
        ("errors of the server's own in its log", f"{len(internal):,}", not internal),
        ("exit status", str(told["ended"]), told["ended"] == 0),
    ]
    print("| | |\n|---|---|")
    for name, value, kept in rows:
        print(f"| {name} | {value}{'' if kept else ' **broken**'} |")
    for caller in wrong[:20]:
        print(f"{caller.number} {caller.does} {json.dumps(caller.body)}: {caller.wrong}", file=sys.stderr)
    for short in told["short"][:20]:
        print("charged less than made:", short, file=sys.stderr)
    for line in internal[:10]:
        print(line.decode(errors="replace"), end="", file=sys.stderr)
    return all(kept for _, _, kept in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0, help="in which all of them come")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--endpoint", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--health", help=argparse.SUPPRESS)
    parser.add_argument("--pid", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.endpoint:
        asyncio.run(endpoint(given.seed))
    elif given.health:
        health(given.health, given.pid)
    else:
        with tempfile.TemporaryDirectory() as folder:
            here = str(Path(__file__).resolve())
            told = asyncio.run(measured(given.requests, given.seconds, given.seed, Path(folder), here))
        sys.exit(0 if show(told) else 1)


if __name__ == "__main__":
    main()
