"""A real OpenAI-compatible server on this machine that counts exactly; the test sets its abilities and its faults.

A token is a word or the gap between two words; an image is one word, and so is the name of a tool that is called. It
runs in the loop of the test, where `run` makes time jump although the network is real, or in a thread of its own
(`threaded`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import re
import selectors
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from aiohttp import web

from outthink.models.endpoint import Endpoint, Patience
from outthink.models.engine import Progress, Request
from outthink.models.facts import Facts
from outthink.models.openai.engine import OpenAIEngine
from outthink.types import Message
from tests.tools import virtual

T = TypeVar("T")
Started = TypeVar("Started", bound=contextlib.AbstractAsyncContextManager[Any])
GRACE = 0.01  # seconds that threads and processes are waited for before the clock jumps
END = "<|end|>"
_ROLES = ("<user>", "<assistant>", "<system>", "<developer>", "<tool>")
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What one answer is asked for; `body` is the whole request."""

    messages: tuple[tuple[str, str], ...]
    prefix: str
    choice: int
    temperature: float
    rng: random.Random
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer that is more than text: thoughts stand before it, calls of tools (name and arguments) behind it."""

    text: str = ""
    thoughts: str = ""
    calls: tuple[tuple[str, str], ...] = ()


@dataclass(kw_only=True)
class Seen:
    """A request as it came, and what became of it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    at: float
    prompt: int = 0
    cached: int = 0
    made: int = 0
    closed: bool = False


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is done to one answer.

    Args:
        body: sent in place of the answer.
        before: seconds before anything is sent.
        piece: bytes of a piece; None: a whole answer, or an event of a stream.
        pace: seconds before each piece.
        after: pieces after which `then` happens.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    kind: str = "application/json"
    before: float = 0.0
    piece: int | None = None
    pace: float = 0.0
    after: int | None = None
    then: Literal["cut", "hang", "end"] = "cut"


FINE = Fault()
HANG = Fault(before=math.inf)


def counting(ask: Ask) -> str:
    """Counts in words, goes on with what it is given, and loses its way with temperature."""
    words = list(NUMBERS)
    if ask.temperature > 0:
        ask.rng.shuffle(words)
    whole = ", ".join(words)
    return whole.removeprefix(ask.prefix) if whole.startswith(ask.prefix) else whole


def says(*texts: str | Said) -> Callable[[Ask], str | Said]:
    """Choice k says the k-th text, and so on from the first."""
    return lambda ask: texts[ask.choice % len(texts)]


def tokens(text: str) -> list[str]:
    return re.findall(r"\s+|\S+", text)


class Server:
    """The server; `async with` starts it.

    Args:
        reply: what the model says.
        ignores: fields of a request that have no effect.
        refuses: fields that are answered with 400.
        lacks: paths that are not there, such as "tokenize".
        hides: what answers do not tell: usage, stop_reason.
        faults: what is done to the next answers, in turn; `always` to all others.
        bend: changes what is sent, each answer or event.
        pace: seconds for each event of a stream.
        key: demanded; else 401.
        caches: reports a prompt that was read before, with the same salt, as cached.
        gate: so many requests are held until all of them are there.
    """

    def __init__(
        self,
        reply: Callable[[Ask], str | Said] = counting,
        *,
        ignores: Collection[str] = (),
        refuses: Collection[str] = (),
        lacks: Collection[str] = (),
        hides: Collection[str] = (),
        faults: Sequence[Fault] = (),
        always: Fault = FINE,
        bend: Callable[[dict[str, Any]], Any] | None = None,
        models: Sequence[str] = ("m",),
        context: int | None = 4096,
        pace: float = 0.0,
        key: str | None = None,
        caches: bool = False,
        gate: int = 0,
        top: Sequence[tuple[str, float]] = (("Yes", -1.0), ("No", -2.0)),
    ) -> None:
        self.reply = reply
        self.ignores = ignores
        self.refuses = refuses
        self.lacks = lacks
        self.hides = hides
        self.faults = list(faults)
        self.always = always
        self.bend = bend
        self.models = models
        self.context = context
        self.pace = pace
        self.key = key
        self.caches = caches
        self.top = top
        self.seen: list[Seen] = []
        self.running = 0
        self.most = 0
        self.url = ""
        self._gate = gate
        self._here = 0
        self._all = asyncio.Event()
        self._words = {END: 0, "<user>": 1, "<assistant>": 2, "<system>": 3}
        self._texts = {number: word for word, number in self._words.items()}
        self._read: set[tuple[Any, ...]] = set()
        self._unseeded = random.Random(0)

    @property
    def asked(self) -> list[Seen]:
        """The requests for answers."""
        return [seen for seen in self.seen if seen.path.endswith("completions")]

    @property
    def prompt(self) -> int:
        """Prompt tokens read."""
        return sum(seen.prompt for seen in self.asked)

    @property
    def made(self) -> int:
        """Tokens written."""
        return sum(seen.made for seen in self.asked)

    def id(self, token: str) -> int:
        number = self._words.setdefault(token, len(self._words))
        self._texts[number] = token
        return number

    def logprob(self, token: str) -> float:
        """Another one for each token, so that a test can see where it stands."""
        return -self.id(token) / 64

    # ------------------------------------------------------------------------------------------------ HTTP

    async def __aenter__(self) -> Server:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=4096)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._runner.cleanup()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        seen = Seen(
            method=request.method,
            path=request.path.removeprefix("/v1/").removeprefix("/"),
            headers=dict(request.headers),
            body=json.loads(raw) if raw else None,
            at=asyncio.get_running_loop().time(),
        )
        self.seen.append(seen)
        counted = seen.path.endswith("completions")
        self.running += counted
        self.most = max(self.most, self.running)
        try:
            return await self._answer(request, seen)
        except (asyncio.CancelledError, ConnectionError):
            seen.closed = True
            raise
        finally:
            self.running -= counted

    async def _answer(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        given = seen.headers.get("Authorization", "")
        if self.key is not None and given != f"Bearer {self.key}":
            return _refusal(401, f"Incorrect API key provided: {given}")
        if seen.path in self.lacks:
            return _refusal(404, "Not Found")
        if seen.path == "models":
            listed = [{"id": name, "object": "model", "max_model_len": self.context} for name in self.models]
            return web.json_response({"object": "list", "data": listed})
        if seen.path == "metrics":
            return web.Response(text=f'# HELP\nvllm:num_requests_running{{engine="0"}} {float(self.running)}\n')
        if seen.path == "tokenize":
            ids = self._prompt(seen.body)
            return web.json_response({"count": len(ids), "max_model_len": self.context, "tokens": ids})
        if seen.path == "detokenize":
            return web.json_response({"prompt": "".join(self._texts[number] for number in seen.body["tokens"])})
        fault = self.faults.pop(0) if self.faults else self.always
        if fault.body is not None or fault.status >= 300:
            return await self._send(request, seen, fault, [fault.body or b""])
        refused = sorted(set(self.refuses) & set(seen.body))
        if refused:
            return _refusal(400, f"Unsupported parameter: {refused[0]}")
        body = {name: value for name, value in seen.body.items() if name not in self.ignores}
        if not isinstance(body.get("priority", 0), int):
            return _refusal(400, "priority: input should be a valid integer")
        if seen.body["model"] not in self.models:
            return _refusal(404, f"The model {seen.body['model']} does not exist.")
        parts = self._written(body, seen)
        if self._gate:
            await self._wait_for_all()
        return await self._send(request, seen, fault, parts, "stream" in body)

    async def _send(
        self,
        request: web.Request,
        seen: Seen,
        fault: Fault,
        parts: Sequence[bytes | tuple[bytes, int]],
        stream: bool = False,
    ) -> web.StreamResponse:
        await _pause(fault.before)
        response = web.StreamResponse(status=fault.status, headers=fault.headers)
        response.content_type = "text/event-stream" if stream else fault.kind
        if not stream and fault.then != "end":
            response.content_length = sum(len(_bytes(part)) for part in parts)
        await response.prepare(request)
        assert request.transport is not None
        for number, (piece, made) in enumerate(_pieces(parts, fault.piece)):
            if number == fault.after:
                if fault.then == "end":
                    break
                await _pause(math.inf if fault.then == "hang" else 0.0)
                request.transport.close()
                break
            await _pause(self.pace + fault.pace)
            seen.made += made
            await response.write(piece)
        return response

    async def _wait_for_all(self) -> None:
        self._here += 1
        if self._here == self._gate:
            self._all.set()
        await self._all.wait()

    # ------------------------------------------------------------------------------------------------ the model

    def _prompt(self, body: dict[str, Any]) -> list[int]:
        if "prompt" in body:
            given = body["prompt"]
            return [self.id(word) for word in tokens(given)] if isinstance(given, str) else list(given)
        goes_on = bool(body.get("continue_final_message"))
        words = tokens(json.dumps(body["tools"])) if body.get("tools") else []
        words += [word for said in body["messages"] for word in (f"<{said['role']}>", *tokens(_plain(said)))]
        return [self.id(word) for word in (words if goes_on else [*words, "<assistant>"])]

    def _written(self, body: dict[str, Any], seen: Seen) -> list[bytes | tuple[bytes, int]]:
        """The whole answer, or its events, with the tokens that each of them has."""
        ids = self._prompt(body)
        seen.prompt = len(ids)
        read = (body.get("cache_salt"), *ids)
        seen.cached = len(ids) - 1 if self.caches and read in self._read else 0
        self._read.add(read)
        choices = [self._choice(body, ids, index) for index in range(body.get("n", 1))]
        chat = "messages" in body
        usage = {
            "prompt_tokens": len(ids),
            "completion_tokens": sum(len(choice.words) for choice in choices),
            "total_tokens": len(ids) + sum(len(choice.words) for choice in choices),
            "prompt_tokens_details": {"cached_tokens": seen.cached},
        }
        if not body.get("stream"):
            seen.made = sum(len(choice.words) for choice in choices)
            answer: dict[str, Any] = {"choices": [self._form(body, choice, chat) for choice in choices]}
            if body.get("return_token_ids"):
                answer["prompt_token_ids"] = ids
            if "usage" not in self.hides:
                answer["usage"] = usage
            return [self._dumped(answer)]
        parts: list[bytes | tuple[bytes, int]] = []
        for choice in choices:
            parts.append(
                self._event({"choices": [{"index": choice.index, "delta": {"role": "assistant", "content": ""}}]})
            )
        for place in range(max(len(choice.words) for choice in choices)):
            for choice in choices:
                if place < len(choice.words):
                    parts.append((self._event({"choices": [self._form(body, choice, chat, place)]}), 1))
        if body.get("stream_options", {}).get("include_usage") and "usage" not in self.hides:
            parts.append(self._event({"choices": [], "usage": usage}))
        return [*parts, b"data: [DONE]\n\n"]

    def _choice(self, body: dict[str, Any], ids: list[int], index: int) -> _Choice:
        words = [self._texts[number] for number in ids]
        marks = [place for place, word in enumerate(words) if word in _ROLES]
        turns = [
            (words[start].strip("<>"), "".join(words[start + 1 : end]))
            for start, end in zip(marks, [*marks[1:], len(words)], strict=True)
        ]
        seed = body.get("seed")
        ask = Ask(
            messages=tuple(turns[:-1]),
            prefix=turns[-1][1],
            choice=index,
            temperature=body.get("temperature", 1.0),
            rng=random.Random(self._unseeded.random() if seed is None else seed + index),
            body=body,
        )
        most = body.get("max_tokens", body.get("max_completion_tokens", 10**9))
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        choice = _Choice(index)
        reply = self.reply(ask)
        said = Said(text=reply) if isinstance(reply, str) else reply
        if "thinking_token_budget" in body:
            said = replace(said, thoughts="".join(tokens(said.thoughts)[: body["thinking_token_budget"]]))
        banned = {int(number) for number, bias in body.get("logit_bias", {}).items() if bias <= -100}
        for word, delta in _tokens(said, index):
            if self.id(word) in banned:
                continue
            choice.words.append(word)
            choice.deltas.append(delta)
            if word == END:
                choice.finish = "tool_calls" if said.calls else "stop"
                return choice
            choice.text += delta.get("content", "")
            choice.thoughts += delta.get("reasoning_content", "")
            for stop in stops:
                kept = len(stop) if body.get("include_stop_str_in_output") else 0
                if stop in choice.thoughts:  # of these only what is within a token is cut off
                    over = len(choice.thoughts) - choice.thoughts.index(stop) - kept
                    choice.deltas[-1] = {"reasoning_content": word[: max(len(word) - over, 0)]}
                    choice.finish, choice.stopped = "stop", stop
                    return choice
                if stop in choice.text:
                    choice.text = choice.text[: choice.text.index(stop) + kept]
                    choice.finish, choice.stopped = "stop", stop
                    return choice
            if len(choice.words) == most:
                break
        choice.finish = "length"
        return choice

    def _form(self, body: dict[str, Any], choice: _Choice, chat: bool, place: int | None = None) -> dict[str, Any]:
        """A choice as the API has it; the whole, or its token at `place`."""
        words, text = choice.words, choice.text
        last = place is None or place == len(words) - 1
        if place is None:
            said = choice.message()
        else:
            before = len("".join(delta.get("content", "") for delta in choice.deltas[:place]))
            delta = choice.deltas[place]
            text = text[before : before + len(delta.get("content", ""))]
            said = {**delta, "content": text} if "content" in delta else delta
            words = [words[place]]
        told = {"text": text} if not chat else {"message" if place is None else "delta": said}
        form: dict[str, Any] = {"index": choice.index, **told, "finish_reason": choice.finish if last else None}
        if last and "stop_reason" not in self.hides:
            form["stop_reason"] = choice.stopped
        if body.get("return_token_ids"):
            form["token_ids"] = [self.id(word) for word in words]
        if chat and body.get("logprobs"):
            form["logprobs"] = {
                "content": [
                    {"token": word, "logprob": self.logprob(word), "top_logprobs": self._near(body)} for word in words
                ]
            }
        elif not chat and "logprobs" in body:
            form["logprobs"] = {"tokens": words, "token_logprobs": [self.logprob(word) for word in words]}
            # as vLLM does it: one more than was asked for, which is the token that was written
            near = [dict([*self.top[: body["logprobs"]], (word, self.logprob(word))]) for word in words]
            form["logprobs"]["top_logprobs"] = near if body["logprobs"] else None
        return form

    def _near(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"token": token, "logprob": value} for token, value in self.top[: body.get("top_logprobs", 0)]]

    def _event(self, event: dict[str, Any]) -> bytes:
        return b"data: " + self._dumped(event) + b"\n\n"

    def _dumped(self, sent: dict[str, Any]) -> bytes:
        return json.dumps(sent if self.bend is None else self.bend(sent)).encode()


@dataclass
class _Choice:
    index: int
    text: str = ""
    thoughts: str = ""
    words: list[str] = field(default_factory=list)
    deltas: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    stopped: str | None = None

    def message(self) -> dict[str, Any]:
        """All of it."""
        thoughts = "".join(delta.get("reasoning_content", "") for delta in self.deltas)
        calls: list[dict[str, Any]] = []
        for piece in (piece for delta in self.deltas for piece in delta.get("tool_calls", ())):
            if "id" in piece:
                calls.append({**piece, "function": {**piece["function"]}})
                del calls[-1]["index"]
            else:
                calls[-1]["function"]["arguments"] += piece["function"]["arguments"]
        thinking = {"reasoning_content": thoughts} if thoughts else {}
        return {"content": self.text, **thinking, **({"tool_calls": calls} if calls else {})}


def _tokens(said: Said, index: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each token of choice `index` with the piece of a message that it is."""
    for word in tokens(said.thoughts):
        yield word, {"reasoning_content": word}
    for word in tokens(said.text):
        yield word, {"content": word}
    for place, (name, arguments) in enumerate(said.calls):
        call = {"id": f"call_{index}_{place}", "type": "function", "function": {"name": name, "arguments": ""}}
        yield name, {"tool_calls": [{"index": place, **call}]}
        for word in tokens(arguments):
            yield word, {"tool_calls": [{"index": place, "function": {"arguments": word}}]}
    yield END, {"content": ""}


def _plain(message: Mapping[str, Any]) -> str:
    """What the model reads of a message."""
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [part.get("text", "<media>") for part in content]
    return " ".join([*parts, *(json.dumps(call["function"]) for call in message.get("tool_calls", ()))])


def _refusal(status: int, words: str) -> web.Response:
    return web.json_response({"error": {"message": words, "code": status}}, status=status)


def _bytes(part: bytes | tuple[bytes, int]) -> bytes:
    return part if isinstance(part, bytes) else part[0]


def _pieces(parts: Sequence[bytes | tuple[bytes, int]], size: int | None) -> Iterator[tuple[bytes, int]]:
    for part in parts:
        whole, made = (part, 0) if isinstance(part, bytes) else part
        yield whole[:size], made
        if size is not None:
            yield from ((whole[start : start + size], 0) for start in range(size, len(whole), size))


async def _pause(seconds: float) -> None:
    if seconds == math.inf:
        await asyncio.Event().wait()
    if seconds:
        await asyncio.sleep(seconds)


# ---------------------------------------------------------------------------------------------------- broken servers


@contextlib.asynccontextmanager
async def raw(answer: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that answers the head of each request with whatever `answer` writes, and then closes; its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            await answer(head, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


def many_files() -> None:
    """Allows this process the sockets of a thousand connections, both ends of each."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


@contextlib.contextmanager
def threaded(server: Started) -> Iterator[Started]:
    """The server in a thread, for what brings an event loop of its own; its time is real."""
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with server:
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        done.set()
        thread.join()


# ---------------------------------------------------------------------------------------------------- jumping time


_ALWAYS = frozenset(threading.enumerate())  # the main one, and those of what runs the tests


def _company() -> bool:
    """Whether a thread or a process is there besides this one, which may bring something at any moment."""
    if not _ALWAYS.issuperset(threading.enumerate()):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except AttributeError:  # Windows cannot tell
        pass
    return True


class _Networked(virtual._Jumping):
    """Lets the network deliver what is under way before the clock jumps.

    Where both ends of all connections are here, a byte is sent around: what was sent before it has arrived when it
    does, however busy the machine is. In company it waits a moment besides.
    """

    def __init__(self) -> None:
        super().__init__()
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._out = socket.create_connection(server.getsockname())
            self._in, _ = server.accept()
        self._out.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout:
            for _ in range(3):  # an opening goes to and fro
                self._out.send(b".")
                self._in.recv(1)
            if _company() and (ready := selectors.DefaultSelector.select(self, GRACE)):
                return ready
        return super().select(timeout)

    def close(self) -> None:
        self._out.close()
        self._in.close()
        super().close()


class NetworkLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer when the network is still."""

    def __init__(self) -> None:
        self._jumping = _Networked()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs it in jumping time; at the end no task is left and nothing went wrong unheard."""
    wrong: list[dict[str, Any]] = []
    results: list[T] = []

    async def alone() -> None:  # no result: a runner makes a repr of it, however large it is
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: wrong.append(context))
        try:
            results.append(await coroutine)
        finally:
            await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left

    with asyncio.Runner(loop_factory=NetworkLoop) as runner:
        runner.run(alone())
    assert not wrong, wrong
    return results[0]


# ---------------------------------------------------------------------------------------------------- its client

ALL = Facts(
    model="m",
    context=4096,
    n=True,
    stream=True,
    logprobs=True,
    labels=20,
    seed=True,
    stop="kept",
    token_ids=True,
    prefix="ids",
    tokenize=True,
    tokens=True,
    cached=True,
    salt=True,
    priority=True,
    logit_bias=True,
)
"""What the server does with nothing switched off."""

BARE = Facts(model="m")
"""The least that a server must do."""


def engine_on(server: Server | str, facts: Facts = ALL, **patience: Any) -> OpenAIEngine:
    url = server if isinstance(server, str) else server.url
    return OpenAIEngine(Endpoint(url, patience=Patience(**patience)), facts)


def ask_for(n: int = 1, text: str = "What is 1+1?", **options: Any) -> Request:
    options = {"max_tokens": 64, "temperature": 1.0, **options}
    return Request(messages=(Message(content=text),), n=n, seeds=tuple(range(100, 100 + n)), **options)


async def generated(engine: OpenAIEngine, request: Request) -> Progress:
    progress = Progress(n=request.n)
    await engine.generate(request, progress)
    return progress
