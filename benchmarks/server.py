"""Compares `outthink serve` with two other proxies for test-time compute: its-hub and optillm.

    python benchmarks/server.py [--servers ours,its-hub,optillm,bare] [--seconds 8] [--repeat 3] [--words] [--json]
    python benchmarks/server.py --servers ours --seconds 0.3 --repeat 1        a quick look that installs nothing

Every request asks for the majority of 8 samples. All servers stand before one made-up model that answers after 50 ms:
six of eight samples are right, and each question has an answer of its own, which is looked for in what comes back.
The model, the load and the server are processes of their own, and so is each measurement of a server: one server at
a time, started afresh, in an order that turns round. `upstream alone` is the load straight at the model: what harness
and model allow at most. A model that is asked for a stream, as Outthink does and the others do not, sends each sample
in one piece; with --words it sends a word at a time, as real ones do.

The others are installed once, each into a folder of its own in the cache, and run as they come, with their own log
at warnings. What to know of them:

- its-hub asks for each sample in a request of its own, with at most 32 such requests at once and no option for more:
  at 50 ms that is 80 answers a second.
- optillm's self_consistency draws five samples one after the other, whatever is asked for; so its majority_voting is
  measured, which asks for all eight at once. It is installed without what its server does without (torch and more),
  so it is smaller in memory than a whole installation.

`ours-2` and `ours-4` are ours with so many workers, for machines with as many cores to spare.

`bare` is no server but what one process of Python cannot do without: aiohttp on both sides, one request upstream, a
count of the answers in boxes. It has no budget, no deadline, no ledger, and believes whatever it gets.

Processor time and memory are those of the server's processes alone. Added latency is what comes on top of the 50 ms;
under load at half of the requests a second that this server managed at most, sent at even distances. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

LATENCY = 0.05  # seconds until the model answers
N = 8  # samples for a request
CLIENTS = (1, 32, 256)
WARM = 50  # requests before the first measurement
MEMORY = (1_000, 10_000)  # requests after which memory is read
LONGEST = 20  # times --seconds that the requests for memory may take
PATIENCE = 60.0  # seconds for one answer, and for a server to start
ASK = "/v1/chat/completions"
FLOOR = "upstream alone"
OTHERS = {
    "its-hub": ["its_hub[iaas]==1.2.0"],
    "optillm": [
        *("optillm==0.4.0", "flask", "openai", "httpx", "numpy", "networkx", "sympy", "z3-solver<=4.15.4.0"),
        *("math-verify", "pyyaml", "aiohttp", "cerebras_cloud_sdk"),
    ],
}

# --------------------------------------------------------------------------------------------------------- the model

QUESTION = "What is 17 * CASE00 + 5? Put the final answer into a box."
SOLUTION = (
    "Let me work through this one step at a time.\n\nThe product comes first, because multiplication goes before "
    "addition. I split 17 into 10 and 7, multiply each of them by the other number, and add the two products up.\n\n"
    "Then I add 5 to what came out, and check the last digit of the sum against the last digits of its parts: they "
    "agree.\n\nThe answer is \\boxed{ANSWER0}.\n"
)
WORDS = SOLUTION.split(" ")  # each counts as a token
PROMPT = 30  # tokens
MODELS = {"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 8192}]}


def right(case: int) -> int:
    """The answer to a case of six digits, which has seven, so that all replies are of one length."""
    return 17 * case + 5


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        *(status.encode(), kind.encode(), len(body)),
        body,
    )


@cache
def reply(first: int, n: int, most: int, stream: bool, usage: bool, words: bool) -> bytes:
    """The reply with samples `first` to `first + n` of a case, of at most `most` tokens; every fourth one is wrong."""
    tokens = min(most, len(WORDS))
    said = " ".join(WORDS[:tokens])
    texts = [said.replace("ANSWER0", "WRONG00" if k % 4 == 3 else "RIGHT00") for k in range(first, first + n)]
    finish = "stop" if tokens == len(WORDS) else "length"
    spent = {"prompt_tokens": PROMPT, "completion_tokens": n * tokens, "total_tokens": PROMPT + n * tokens}
    common = {"id": "chatcmpl-0", "created": 0, "model": "m"}
    if not stream:
        choices = [
            {"index": k, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
            for k, text in enumerate(texts)
        ]
        whole = {**common, "object": "chat.completion", "choices": choices, "usage": spent}
        return http("200 OK", json.dumps(whole).encode())
    deltas: list[dict[str, Any]] = [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
    pieces = [re.findall(r" ?[^ ]+", text) if words else [text] for text in texts]
    for together in zip(*pieces, strict=True):
        deltas += [{"index": k, "delta": {"content": piece}, "finish_reason": None} for k, piece in enumerate(together)]
    for delta in deltas[-n:]:
        delta["finish_reason"] = finish
    events: list[dict[str, Any]] = [{"choices": [delta]} for delta in deltas]
    events += [{"choices": [], "usage": spent}] if usage else []
    chunks = [json.dumps({**common, "object": "chat.completion.chunk", **event}) for event in events]
    body = "".join(f"data: {chunk}\n\n" for chunk in [*chunks, "[DONE]"]).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@dataclass
class Counts:
    """What the model was asked, by requests, and samples sent or given up by who asked; `given`: samples by case."""

    requests: int = 0
    completions: int = 0
    aborted: int = 0
    given: dict[bytes, int] = field(default_factory=dict)


class Model(asyncio.Protocol):
    """One connection to the model."""

    def __init__(self, counts: Counts, words: bool) -> None:
        self.counts = counts
        self.words = words  # what is streamed comes a word at a time
        self.buffer = bytearray()
        self.due: tuple[asyncio.TimerHandle, int] | None = None  # the reply that is waiting, and its samples

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exception: Exception | None) -> None:
        if self.due is not None:
            self.due[0].cancel()
            self.counts.aborted += self.due[1]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (request := taken(self.buffer)) is not None:
            path, body = request
            if path == ASK:
                self.chat(body)
            elif path == "/v1/models":
                self.transport.write(http("200 OK", json.dumps(MODELS).encode()))
            elif path == "/counts":
                told = {name: getattr(self.counts, name) for name in ("requests", "completions", "aborted")}
                self.transport.write(http("200 OK", json.dumps(told).encode()))
            elif path in ("/v1/traces", "/v1/metrics"):  # as a collector of OpenTelemetry it takes all
                self.transport.write(http("200 OK", b"", "application/x-protobuf"))
            else:
                self.transport.write(http("404 Not Found", b'{"error": {"message": "there is no such path"}}'))

    def chat(self, body: bytes) -> None:
        asked = json.loads(body)
        n = asked.get("n") or 1
        most = asked.get("max_tokens") or asked.get("max_completion_tokens") or len(WORDS)
        usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        _, marked, rest = body.partition(b"What is 17 * ")
        case, first = rest[:6], 0
        if marked:  # the samples of one case may come in several requests
            first = self.counts.given.pop(case, 0)
            if first + n < N:
                self.counts.given[case] = first + n
        data = reply(first % 4, n, most, bool(asked.get("stream")), usage, self.words)
        if marked:
            answer = right(int(case))
            data = data.replace(b"RIGHT00", b"%d" % answer).replace(b"WRONG00", b"%d" % (answer + 1))
        self.counts.requests += 1
        self.due = asyncio.get_running_loop().call_later(LATENCY, self.send, data, n), n

    def send(self, data: bytes, n: int) -> None:
        self.due = None
        self.counts.completions += n
        self.transport.write(data)


def taken(buffer: bytearray) -> tuple[str, bytes] | None:
    """The path and the body of the first request, cut off from the buffer; None where it is not whole yet."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, place = bytes(buffer[:end]), end + 4
    lower = head.lower()
    if b"\r\ntransfer-encoding: chunked" in lower:
        body, size = b"", -1
        while size:
            line = buffer.find(b"\r\n", place)
            if line < 0:
                return None
            size = int(buffer[place:line], 16)
            place = line + 4 + size
            if len(buffer) < place:
                return None
            body += buffer[line + 2 : place - 2]
    else:
        place += int(lower.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
        if len(buffer) < place:
            return None
        body = bytes(buffer[end + 4 : place])
    del buffer[:place]
    return head.split(b" ", 2)[1].decode(), body


async def model(words: bool) -> None:
    """Serve the model; its port is printed."""
    counts = Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Model(counts, words), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# ---------------------------------------------------------------------------------------------------------- the load


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is sent to a server.

    Args:
        port: of the server on this machine.
        body: fields of a request beside the question.
        key: of the caller.
        first: number of the first case; six digits.
        clients: how many ask at once, each as soon as it has its answer; 0: asked at a rate.
        rate: requests a second, sent at even distances, where there are no clients.
        seconds: until nothing more is sent.
        most: requests sent at most.
    """

    port: int
    body: dict[str, Any]
    first: int
    seconds: float
    key: str = "none"
    clients: int = 0
    rate: float = 0.0
    most: int = 90_000


class Line:
    """A connection that is opened when it is needed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body."""
        if self.streams is None or self.streams[0].at_eof():
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await reader.readexactly(int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]))
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


class Asking:
    """Sends a load, and keeps what came of it."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.body = json.dumps(
            {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 256, "temperature": 0.8}
            | load.body
        ).encode()
        head = f"POST {ASK} HTTP/1.1\r\nhost: 127.0.0.1:{load.port}\r\ncontent-type: application/json\r\n"
        self.head = f"{head}authorization: Bearer {load.key}\r\ncontent-length: {len(self.body)}\r\n\r\n".encode()
        self.cases = iter(range(load.first, load.first + load.most))
        self.until = time.perf_counter() + load.seconds
        self.latencies: list[float] = []  # seconds, of right answers
        self.last = 0.0  # when the last of them came
        self.errors: Counter[str] = Counter()

    async def one(self, line: Line, case: int) -> None:
        sent = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE):
                status, body = await line.ask(self.head + self.body.replace(b"CASE00", b"%d" % case))
            if status != 200:
                raise ValueError(f"status {status}")
            if f"boxed{{{right(case)}}}" not in json.loads(body)["choices"][0]["message"]["content"]:
                raise ValueError("another answer")
        except (OSError, EOFError, ValueError, LookupError, TypeError) as failure:  # TimeoutError is an OSError
            self.errors[str(failure) or type(failure).__name__] += 1
            line.close()
            await asyncio.sleep(0.1)  # a server that is gone is not asked in a tight loop
            return
        self.last = time.perf_counter()
        self.latencies.append(self.last - sent)

    async def client(self) -> None:
        line = Line(self.load.port)
        for case in self.cases:
            if time.perf_counter() >= self.until:
                break
            await self.one(line, case)
        line.close()

    async def paced(self) -> None:
        idle: list[Line] = []

        async def one(case: int) -> None:
            line = idle.pop() if idle else Line(self.load.port)
            await self.one(line, case)
            idle.append(line)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for place, case in enumerate(self.cases):
                at = started + place / self.load.rate
                if at >= self.until:
                    break
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                tasks.create_task(one(case))
        for line in idle:
            line.close()

    async def all(self) -> dict[str, Any]:
        started = time.perf_counter()
        if self.load.clients:
            await asyncio.gather(*(self.client() for _ in range(self.load.clients)))
        else:
            await self.paced()
        parts = statistics.quantiles(self.latencies, n=100) if len(self.latencies) > 1 else [float("nan")] * 99
        return {
            "answers": len(self.latencies),
            "rate": len(self.latencies) / (self.last - started) if self.latencies else 0.0,
            "median": (parts[49] - LATENCY) * 1e3,
            "p99": (parts[98] - LATENCY) * 1e3,
            "errors": dict(self.errors),
        }


async def asking(load: Load) -> dict[str, Any]:
    return await Asking(load).all()


# ------------------------------------------------------------------------------------------------------- the servers


@dataclass(frozen=True)
class Start:
    """How a server is started and asked for the majority of N samples."""

    command: list[str]
    body: dict[str, Any]
    configure: dict[str, Any] | None = None
    workers: int = 1
    key: str = "none"
    environment: dict[str, str] = field(default_factory=dict)


def ours(upstream: str, port: int) -> Start:
    command = [str(Path(sys.executable).with_name("outthink")), "serve", "--upstream", upstream, "--port", str(port)]
    return Start([*command, "--answer", "math"], {"outthink": {"strategy": "self_consistency", "n": N}})


def its_hub(upstream: str, port: int) -> Start:
    configure = {"endpoint": upstream, "model": "m", "api_key": "none", "alg": "self-consistency"}
    return Start(
        [str(home("its-hub") / "bin" / "its-iaas"), "--port", str(port), "--log-level", "WARNING"],
        {"budget": N},
        configure | {"regex_patterns": [r"\\boxed\{([^}]+)\}"]},
    )


def optillm(upstream: str, port: int) -> Start:
    command = [str(home("optillm") / "bin" / "optillm"), "--base-url", upstream, "--port", str(port)]
    return Start([*command, "--log", "warning"], {"model": "majority_voting-m", "k": N})


def bare(upstream: str, port: int) -> Start:
    return Start([sys.executable, __file__, "--bare", f"{upstream} {port}"], {"n": N})


async def proxy(upstream: str, port: int) -> None:
    """Serve the majority of what one request brings, and nothing else."""
    from aiohttp import ClientSession, TCPConnector, web
    from pydantic_core import from_json

    async def chat(request: web.Request) -> web.Response:
        asked = from_json(await request.read()) | {"stream": True}
        async with session.post(upstream + ASK.removeprefix("/v1"), data=json.dumps(asked).encode()) as response:
            body = await response.read()
        texts: dict[int, list[str]] = {}
        for event in body.split(b"\n\n"):
            if event.startswith(b"data: {"):
                for choice in from_json(event[6:])["choices"]:
                    texts.setdefault(choice["index"], []).append(choice["delta"].get("content") or "")
        said = ["".join(pieces) for _, pieces in sorted(texts.items())]
        answers = [text.rpartition("boxed{")[2] for text in said]
        best = said[answers.index(Counter(answers).most_common(1)[0][0])]
        choice = {"index": 0, "message": {"role": "assistant", "content": best}, "finish_reason": "stop"}
        reply = {"id": "0", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return web.Response(body=json.dumps(reply).encode(), content_type="application/json")

    async def models(request: web.Request) -> web.Response:
        return web.json_response(MODELS)

    app = web.Application()
    app.add_routes([web.post(ASK, chat), web.get("/v1/models", models)])
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.Event().wait()


def workers(number: int, upstream: str, port: int) -> Start:
    start = ours(upstream, port)
    return Start([*start.command, "--workers", str(number)], start.body, workers=number)


SERVERS: dict[str, Callable[[str, int], Start]] = {
    "ours": ours,
    "ours-2": partial(workers, 2),
    "ours-4": partial(workers, 4),
    "its-hub": its_hub,
    "optillm": optillm,
    "bare": bare,
}


def home(name: str) -> Path:
    """The environment of one of the others."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outthink"
    return Path(os.environ.get("OUTTHINK_CACHE") or default) / "peers" / name


def install(name: str) -> None:
    """Make the environment of one of the others, unless it is there already."""
    folder, wanted = home(name), OTHERS[name]
    made = folder / "made-from"
    if made.exists() and made.read_text() == "\n".join(wanted):
        return
    print(f"Installing {wanted[0]} into {folder}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if name == "optillm":
        subprocess.run([*pip, *wanted[1:]], check=True)
        subprocess.run([*pip, "--no-deps", wanted[0]], check=True)
    else:
        subprocess.run([*pip, *wanted], check=True)
    made.write_text("\n".join(OTHERS[name]))


@contextlib.contextmanager
def upstream(words: bool) -> Iterator[int]:
    """The model, in a process of its own; yields its port."""
    command = [sys.executable, __file__, "--model", *(["--words"] if words else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def serving(name: str, model: int) -> Iterator[tuple[Measuring, int]]:
    """The server before the model, started afresh; yields what sends loads at it, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+") as log:
        start = SERVERS[name](f"http://127.0.0.1:{model}/v1", port)
        # nothing of this machine's settings: no proxies, no keys, no memory of earlier runs
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "OUTTHINK_CACHE": folder, "OPENAI_API_KEY": "none"}
        environment |= start.environment
        process = subprocess.Popen(start.command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            until = time.monotonic() + PATIENCE
            while not answers(port, start):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    sys.exit(f"{name} did not start:\n{log.read()[-2000:]}")
                time.sleep(0.1)
            if start.configure is not None:
                told = urllib.request.Request(
                    f"http://127.0.0.1:{port}/configure",
                    json.dumps(start.configure).encode(),
                    {"Content-Type": "application/json"},
                )
                urllib.request.urlopen(told, timeout=PATIENCE).close()
            yield Measuring(port, start.body, start.key), process.pid
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(port: int, start: Start) -> bool:
    """Whether a server is there, with all of its workers."""
    path = "/v1/models" if start.workers == 1 else "/health"
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {start.key}"})
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return start.workers == 1 or json.loads(answer.read())["workers"] == start.workers
    except OSError:
        return False


# ------------------------------------------------------------------------------------------------- the measurements


def tree(root: int) -> list[int]:
    """The process and all that it has started."""
    parents: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents.setdefault(int(file.read_text().rpartition(")")[2].split()[1]), []).append(int(file.parent.name))
    processes = [root]
    for process in processes:
        processes += parents.get(process, [])
    return processes


def cpu(root: int) -> float:
    """Seconds of processor time that the processes and their ended children have used."""
    ticks = 0
    for process in tree(root):
        ticks += sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident(root: int) -> float:
    """Megabytes of memory that the processes have resident now."""
    pages = sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in tree(root))
    return pages * resource.getpagesize() / 1e6


def counted(model: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{model}/counts", timeout=PATIENCE) as answer:
        counts: dict[str, int] = json.loads(answer.read())
    return counts


Values = dict[str, float]


class Measuring:
    """Sends one load after the other at one server, each with cases of its own."""

    def __init__(self, port: int, body: dict[str, Any], key: str = "none") -> None:
        self.port = port
        self.body = body
        self.key = key
        self.sent = 0
        self.errors: Counter[str] = Counter()

    def load(self, seconds: float, **how: Any) -> dict[str, Any]:
        self.sent += 1
        load = {"port": self.port, "body": self.body, "key": self.key, "seconds": seconds, **how}
        load["first"] = 100_000 * (self.sent % 5 + 1)
        command = [sys.executable, __file__, "--load", json.dumps(load)]
        measured: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        self.errors.update(measured["errors"])
        return measured


def speed(name: str, seconds: float, words: bool) -> Values:
    """Everything but memory, of one server or of the model alone."""
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(upstream(words))
        measuring, pid = Measuring(model, {"n": N}), None
        if name != FLOOR:
            measuring, pid = stack.enter_context(serving(name, model))
        measuring.load(seconds, clients=1, most=WARM)
        values: Values = {}
        before, answered = counted(model), 0
        best = 0.0
        for clients in CLIENTS:
            used = cpu(pid) if pid else 0.0
            measured = measuring.load(seconds, clients=clients)
            answered += measured["answers"]
            best = max(best, measured["rate"])
            values[f"requests/s, {clients} at once"] = measured["rate"]
            if pid and measured["answers"]:
                values[f"processor ms per request, {clients} at once"] = (cpu(pid) - used) / measured["answers"] * 1e3
            if clients == 1:
                values["added ms, 1 at once, median"] = measured["median"]
                values["added ms, 1 at once, p99"] = measured["p99"]
        measured = measuring.load(seconds, rate=max(1.0, best / 2))
        answered += measured["answers"]
        values["added ms, half load, median"] = measured["median"]
        values["added ms, half load, p99"] = measured["p99"]
        for what, number in counted(model).items():
            values[f"{what} upstream per request"] = (number - before[what]) / max(1, answered)
        values["errors"] = sum(measuring.errors.values())
    if measuring.errors:
        print(f"{name}: {dict(measuring.errors)}", file=sys.stderr, flush=True)
    return values


def memory(name: str, seconds: float, words: bool) -> Values:
    """Resident memory of a server; the requests that it had answered by then, where time was too short for all."""
    with upstream(words) as model, serving(name, model) as (measuring, pid):
        values = {"resident MB at the start": resident(pid)}
        until = time.monotonic() + LONGEST * seconds
        answered = 0
        for requests in MEMORY:
            while answered < requests and (left := until - time.monotonic()) > 0:
                got = measuring.load(left, clients=32, most=min(requests - answered, 90_000))["answers"]
                answered += got
                if not got:
                    break
            values[f"resident MB after {requests:,} requests"] = resident(pid)
            if answered < requests:
                values[f"resident MB after {requests:,} requests: answered by then"] = answered
        return values


# ----------------------------------------------------------------------------------------------------------- the table


def compare(servers: list[str], seconds: float, repeats: int, words: bool) -> dict[str, dict[str, list[float]]]:
    """Values of all repetitions, by measure and server."""
    measured: dict[str, dict[str, list[float]]] = {}

    def keep(name: str, values: Values) -> None:
        for measure, value in values.items():
            measured.setdefault(measure, {}).setdefault(name, []).append(value)

    for repeat in range(repeats):
        for name in [*servers, FLOOR] if repeat % 2 == 0 else [FLOOR, *reversed(servers)]:
            print(f"{name}, repetition {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
            keep(name, speed(name, seconds, words))
    for name in servers:
        print(f"{name}, memory", file=sys.stderr, flush=True)
        keep(name, memory(name, seconds, words))
    return measured


def show(servers: list[str], measured: dict[str, dict[str, list[float]]]) -> None:
    """The medians as a table; the ratio of ours to its-hub with its range over the repetitions."""
    both = {"ours", "its-hub"} <= set(servers)
    columns = [FLOOR, *servers, *(["ours / its-hub", "lowest", "highest"] if both else [])]
    print("| | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for measure, values in measured.items():
        if measure.endswith(": answered by then"):
            continue
        cells = []
        for name in (FLOOR, *servers):
            cell = number(statistics.median(values[name])) if name in values else ""
            short = measured.get(f"{measure}: answered by then", {}).get(name)
            cells.append(f"{cell} (after {short[0]:,.0f})" if short else cell)
        if both:
            pairs = list(zip(values["ours"], values["its-hub"], strict=True))
            ratios = [a / b for a, b in pairs] if all(b > 0 for _, b in pairs) else []
            numbers = [statistics.median(ratios), min(ratios), max(ratios)] if ratios else []
            cells += [f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}" for ratio in numbers] or [""] * 3
        print(f"| {measure} | " + " | ".join(cells) + " |")


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--servers", default="ours,its-hub,optillm", help="some of ours, ours-2, ours-4, its-hub, optillm, bare"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each server")
    parser.add_argument("--words", action="store_true", help="the model streams a word at a time")
    parser.add_argument("--json", action="store_true", help="print all values as JSON in place of the table")
    parser.add_argument("--model", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if arguments.model:
        asyncio.run(model(arguments.words))
        return
    if arguments.bare:
        address, port = arguments.bare.split()
        asyncio.run(proxy(address, int(port)))
        return
    if arguments.load:
        print(json.dumps(asyncio.run(asking(Load(**json.loads(arguments.load))))))
        return
    servers = arguments.servers.split(",")
    if unknown := set(servers) - set(SERVERS):
        parser.error(f"there is no server {', '.join(sorted(unknown))}; choose some of {', '.join(SERVERS)}")
    for name in servers:
        if name in OTHERS:
            install(name)
    measured = compare(servers, arguments.seconds, arguments.repeat, arguments.words)
    if arguments.json:
        print(json.dumps(measured, indent=1))
    else:
        show(servers, measured)


if __name__ == "__main__":
    main()
