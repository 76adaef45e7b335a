"""Runs a GGUF model on this machine's processor with OpenVINO's continuous batching.

Every child is a request of its own to one shared pipeline, so that all problems in flight fill the same batch, each
child can be read, stopped and counted by itself, and each has its own seed.

    event loops ──children──> stepping thread ──one message a step──> process with the pipeline
                <─completions─  (admits, counts, stops)  <─new tokens──

The pipeline has a process of its own because a step holds Python's global lock from start to end (a second and more
while it reads long prompts), which would freeze every event loop of this process. The process does what it is told:
it takes a step only when it gets a message, so at any time at most one step of it is unseen here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

from outthink.errors import EngineError, PromptTooLong, UsageError
from outthink.models.engine import Completion, EngineSpec, Price, Progress, Request, Shape
from outthink.types import Message, Usage

_BLOCK = 32
"""Tokens in a block of the pipeline's prefix cache (on processors)."""
_SEQUENCES = 128
"""Most children in the batch; beyond it decoding gains little."""
_BATCHED = 2048
"""Most tokens of one step; a longer prompt is read in several."""
_IN_USE = 0.75
"""Share of the cache that running children may fill; the rest keeps prefixes for later ones."""
_END_MARKS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "<|end_of_text|>", "</s>")
"""Models end with any of these; a GGUF names only one."""
_WINDOW = 32
"""Tokens that are turned into text again with those that follow, for one character can take several of them."""


class OpenVINOEngine:
    """A GGUF model of Llama, SmolLM or Qwen 2.5 shape on this machine's processor.

    The constructor loads the model, which takes seconds. `Completion.logprobs` are aligned with `token_ids`: the end
    mark, counted in `tokens`, is in neither. A child that hits a stop string ends with the token that completed it,
    so its text may go a few characters beyond the string, and text and ids say the same. The logprob of a label is
    that of its first token; who listens is told nothing of labels.

    Of the fields of OpenAI's API it honours `stop`, whose strings end a text and are not in it: finish is then "eos",
    `token_ids` and `logprobs` end with the last token that is wholly before the string, and `tokens` counts all that
    were written. `seed` may be there, but the seeds of the run decide. (Penalties are refused: where a token's logit is
    negative, OpenVINO applies them with the wrong sign, and so repeats what it should avoid.)

    Args:
        path: the GGUF file.
        name: the model's name in traces; the file's name where not given.
        price: what its tokens cost, for instance the machine's hire; None where it is not to be counted.
        cache_gb: most memory of the key-value cache in GB (1e9 bytes), above 0. It bounds how many children run at
            once, and the context where that is smaller than the model's own.
        ignore_eos: never end before `max_tokens`; for throughput measurement only.

    Raises:
        UsageError: the packages for local models are missing, or the file is not a GGUF model.
        EngineError: the model cannot be loaded.
    """

    def __init__(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        price: Price | None = None,
        cache_gb: float = 2.0,
        ignore_eos: bool = False,
    ) -> None:
        try:
            import openvino_genai  # here, because the core works without it
        except ImportError:
            raise UsageError("Local models need more packages: pip install 'outthink[local]'.") from None
        path = Path(path)
        header = Header.read(path)
        token_bytes = 4 * header.layers * header.kv_heads * header.head  # keys and values of at most 16 bits
        blocks = int(cache_gb * 1e9 // (token_bytes * _BLOCK))
        room = int(blocks * _IN_USE)
        if room < 8:
            raise UsageError(f"A cache of {cache_gb:g} GB is too small for this model; give cache_gb more.")
        self._spec = EngineSpec(
            name=name or path.stem,
            context=min(header.context, room * _BLOCK),
            powers=frozenset(("logprobs", "prefix", "labels", "seed", "tokens")),
            shape=header.shape(path),
            price=price,
            fields=frozenset(("stop", "seed")),
        )
        process = _Process({"path": str(path.resolve()), "blocks": blocks})
        try:
            self._text = _Text(openvino_genai, header)  # while the other process loads the weights
            process.ready()
        except BaseException:
            process.kill()
            raise
        self._stepper = _Stepper(process, self._text, room=room, window=blocks - room)
        self._options: dict[str, Any] = {"ignore_eos": True} if ignore_eos else {"stop_token_ids": self._text.end_marks}
        # also runs at the interpreter's exit, before threads and modules fall apart
        self._stop = weakref.finalize(self, self._stepper.stop)

    @property
    def spec(self) -> EngineSpec:
        """Name, context and shape as the file says."""
        return self._spec

    async def bound(self, request: Request) -> Usage:
        """Exact prompt tokens and `max_tokens`; with labels one prompt and one token per label.

        Raises UsageError where that exceeds the context, the messages hold media or `stop` is no text.
        """
        _cuts(request)
        prompt, branches = len(self._prompt(request)), len(request.labels)
        if branches:
            return Usage(prompt=prompt * branches, completion=branches)
        return Usage(prompt=prompt, completion=request.max_tokens)

    async def generate(self, request: Request, progress: Progress) -> None:
        """Run the children; prompt tokens are counted as children enter the batch.

        Who listens is told of whole characters, and of nothing that may yet turn out to be a stop string that is cut
        off. The pieces of a child join to its text, and come on this event loop's thread before this returns.

        Raises UsageError like `bound`, EngineError if all children failed.
        """
        # when a call is cancelled, the step under way may still give each request in the batch one token
        progress.slack = max(1, len(request.labels))
        ids = self._prompt(request)
        loop = asyncio.get_running_loop()
        group = _Group(request, progress, _cuts(request), loop, loop.create_future())
        options = self._options | _sampling(request)
        chain = _chain(ids)
        self._stepper.submit(
            [
                _Branch(group, child, label, ids, chain, options | own)
                for child in range(request.n)
                for label, own in enumerate(_own(request, child))
            ]
        )
        try:
            await group.done
        except asyncio.CancelledError:
            self._stepper.cancel(group)
            raise
        failures = [result for result in progress.results if isinstance(result, EngineError)]
        if len(failures) == request.n:
            raise failures[0]

    def learn(self, request: Request, progress: Progress) -> None:
        """Nothing to learn: `bound` is exact."""

    async def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text."""
        return self._text.encode(text)

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; what they hold of a character in part is left out."""
        return self._text.decode([list(ids)])[0] if ids else ""

    async def close(self) -> None:
        """Stop at once; children in flight fail with EngineError."""
        await asyncio.to_thread(self._stop)

    def _prompt(self, request: Request) -> tuple[int, ...]:
        ids = self._text.prompt(request.messages)
        ids += request.prefix_ids or (self._text.encode(request.prefix_text) if request.prefix_text else ())
        most = 1 if request.labels else request.max_tokens
        assert self._spec.context is not None
        if len(ids) + most > self._spec.context:
            raise PromptTooLong(
                f"The prompt's {len(ids)} tokens and {most} more exceed the context of {self._spec.name}, "
                f"{self._spec.context} tokens; shorten the prompt or lower max_tokens."
            )
        return ids


def _sampling(request: Request) -> dict[str, Any]:
    """What all children of a request have in common, as fields of the pipeline's generation config."""
    if request.labels:
        return {"max_new_tokens": 1, "logprobs": 1, "do_sample": False}
    options: dict[str, Any] = {"max_new_tokens": request.max_tokens, "do_sample": request.temperature > 0}
    if request.temperature > 0:
        options |= {"temperature": request.temperature, "top_p": request.top_p}
    if request.logprobs:
        options["logprobs"] = 1
    return options


def _own(request: Request, child: int) -> list[dict[str, Any]]:
    """What each branch of a child has of its own: a forced label, or a seed."""
    if request.labels:
        # the pipeline gives no logprob of a chosen token, but that of a forced one, and forcing leaves it as it was
        return [{"label": label} for label in request.labels]
    return [{"rng_seed": request.seeds[child] if request.seeds else request.child + child}]


def _cuts(request: Request) -> tuple[str, ...]:
    """The strings of the field `stop`, which end a text and are cut off it."""
    given = request.fields.get("stop") or ()
    cuts = [given] if isinstance(given, str) else given
    if not isinstance(cuts, list | tuple) or not all(isinstance(text, str) for text in cuts):
        raise UsageError("The field 'stop' must be a text or a list of texts.")
    return tuple(text for text in cuts if text)


@dataclass(slots=True, eq=False)
class _Group:
    """The children of one `generate`.

    Args:
        cuts: strings that end a child and are not in its text, unlike those of the request's own `stop`.
    """

    request: Request
    progress: Progress
    cuts: tuple[str, ...]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    open: int = 0
    labels: dict[tuple[int, int], float] = field(default_factory=dict)

    def close_branch(self) -> None:
        """One branch less; the last one wakes up `generate`."""
        self.open -= 1
        if self.open == 0:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self.loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    @property
    def stops(self) -> tuple[str, ...]:
        """All strings that end a child."""
        return () if self.request.labels else (*self.request.stop, *self.cuts)

    @property
    def listened(self) -> bool:
        """Whether anybody wants to be told what the children write."""
        return self.progress.listen is not None and not self.request.labels

    def tell(self, child: int, text: str) -> None:
        """Pass on a piece of a child's text, in order."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._tell, child, text)

    def _tell(self, child: int, text: str) -> None:
        if self.progress.listen is not None and not self.done.done():  # it is done where the call was cancelled
            self.progress.listen(child, {"delta": {"content": text}})


@dataclass(slots=True, eq=False)
class _Branch:
    """One request to the pipeline: a child, or one label of it.

    Args:
        told: characters of its text that a listener was told.
        window: the first of those tokens that are still turned into text together.
        seen: characters of the window's text that were told.
    """

    group: _Group
    child: int
    label: int
    prompt: tuple[int, ...]
    chain: tuple[int, ...]
    options: dict[str, Any]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    unread: int = 0
    reading: tuple[int, ...] = ()
    told: int = 0
    window: int = 0
    seen: int = 0

    @property
    def blocks(self) -> int:
        """Most blocks of the cache that it fills."""
        most: int = self.options["max_new_tokens"]
        return (len(self.prompt) + most) // _BLOCK + 1


class _Stepper:
    """The thread that admits children to the batch, asks for steps and shares out what they bring.

    Args:
        room: blocks of the cache that running branches may fill, at their longest.
        window: blocks beyond those.
    """

    def __init__(self, process: _Process, text: _Text, *, room: int, window: int) -> None:
        self._process, self._text, self._room = process, text, room
        self._cache = _PrefixCache(window)
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._failure: EngineError | None = None
        self._waiting: list[_Branch] = []
        self._running: dict[int, _Branch] = {}
        self._cancels: list[int] = []
        self._reading: set[int] = set()
        self._number = 0

    def submit(self, branches: Sequence[_Branch]) -> None:
        """Queue the branches of one group; raises EngineError where the engine is dead or closed."""
        with self._wake:
            if self._failure is not None:
                raise EngineError(str(self._failure))
            branches[0].group.open = len(branches)
            self._waiting += branches
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="outthink-openvino", daemon=True)
                self._thread.start()
            self._wake.notify()

    def cancel(self, group: _Group) -> None:
        """Nothing of the group is admitted any more, and what runs is stopped before the next step."""
        with self._wake:
            self._waiting = [branch for branch in self._waiting if branch.group is not group]
            for number, branch in list(self._running.items()):
                if branch.group is group:
                    self._leave(number)
                    self._cancels.append(number)
            self._wake.notify()

    def stop(self) -> None:
        """End the process and the thread; what waits fails."""
        with self._wake:
            self._fail(EngineError("The engine is closed."))
            self._wake.notify()
        self._process.kill()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    while not (self._failure or self._waiting or self._running or self._cancels):
                        self._wake.wait()
                    if self._failure:
                        return
                    cancels, self._cancels = self._cancels, []
                    adds = self._admit()
                reply = self._process.step(adds, cancels)
                with self._wake:
                    self._take(reply)
        except Exception as failure:  # whatever it is, nobody may wait for a thread that has ended
            with self._wake:
                self._fail(
                    failure if isinstance(failure, EngineError) else EngineError(f"The engine failed: {failure}")
                )

    def _admit(self) -> list[tuple[int, tuple[int, ...], dict[str, Any]]]:
        """Choose the branches that enter the batch with the next step, first come, first served.

        A branch is held back while another one reads the next block it needs: the pipeline looks into its prefix
        cache only when a request enters, so equal prompts that enter together would each be read.
        """
        adds = []
        left = []
        filled = sum(branch.blocks for branch in self._running.values())
        unread = sum(branch.unread for branch in self._running.values())
        full = False
        for branch in self._waiting:
            held = self._cache.held(branch.chain)
            fresh = len(branch.prompt) - held * _BLOCK
            full = (
                full
                or len(self._running) >= _SEQUENCES
                or (filled > 0 and filled + branch.blocks > self._room)
                # what enters is read within the next step, so that it is counted truly; a long prompt enters alone
                or (unread > 0 and len(self._running) + unread + fresh > _BATCHED)
            )
            if full or (held < len(branch.chain) and branch.chain[held] in self._reading):
                left.append(branch)
                continue
            branch.unread, branch.reading = fresh, branch.chain[held:]
            filled, unread = filled + branch.blocks, unread + fresh
            self._reading.update(branch.reading)
            self._cache.allocate(branch.blocks - held)
            self._number += 1
            self._running[self._number] = branch
            adds.append((self._number, branch.prompt, branch.options))
            progress = branch.group.progress
            progress.prompt += len(branch.prompt)
            progress.cached += held * _BLOCK
        self._waiting = left
        return adds

    def _take(self, reply: Mapping[int, _News]) -> None:
        ended: list[tuple[int, Literal["eos", "stop", "length"]]] = []
        for number, news in reply.items():
            branch = self._running.get(number)
            if branch is None:  # cancelled during the step
                continue
            if news.error is not None:
                self._leave(number)
                branch.group.progress.results[branch.child] = EngineError(f"The engine refused: {news.error}")
                branch.group.close_branch()
                continue
            if news.ids and branch.unread:
                branch.unread = 0
                self._reading.difference_update(branch.reading)
                self._cache.touch(branch.chain)
            branch.ids += news.ids
            branch.logprobs += news.logprobs
            branch.group.progress.tokens[branch.child] += len(news.ids)
            if news.finish is not None:
                ended.append((number, news.finish))
        stopped = set(self._stopped([number for number, news in reply.items() if news.ids and number in self._running]))
        self._cancels += stopped.difference(number for number, _ in ended)
        for number, finish in ended:
            if number not in stopped:
                self._finish(number, finish)
        for number in stopped:
            self._finish(number, "stop")
        listened = [branch for number, branch in self._running.items() if number in reply and branch.group.listened]
        self._tell([branch for branch in listened if branch.ids])

    def _stopped(self, numbers: Sequence[int]) -> list[int]:
        """Which of the branches with new tokens have just written a stop string.

        The pipeline's own stop strings are not used: it misses some that span tokens and drops tokens it counted.
        """
        tails = []
        watched = []
        for number in numbers:
            branch = self._running[number]
            stop = branch.group.stops
            if stop:
                # a token has at least one byte; one token more, since decoders may trim the first one
                tails.append(branch.ids[-max(len(text.encode()) for text in stop) - 1 :])
                watched.append((number, stop))
        if not watched:
            return []
        texts = self._text.decode(tails)
        return [n for (n, stop), text in zip(watched, texts, strict=True) if any(end in text for end in stop)]

    def _tell(self, listened: Sequence[_Branch]) -> None:
        """Tell what is new in the texts of these branches, as far as no later token can change it."""
        if not listened:
            return
        read = []
        for branch, text in zip(listened, self._text.decode([b.ids[b.window :] for b in listened]), strict=True):
            sure = text.rstrip("\N{REPLACEMENT CHARACTER}")
            piece = sure[branch.seen : len(sure) - _begun(sure, branch.group.cuts)]
            if piece:
                branch.group.tell(branch.child, piece)
                branch.told, branch.seen = branch.told + len(piece), branch.seen + len(piece)
            if branch.seen == len(text) and len(branch.ids) - branch.window >= 2 * _WINDOW:
                read.append(branch)
        if read:  # everything before has been told, so the window can begin anew
            for branch, text in zip(read, self._text.decode([b.ids[-_WINDOW:] for b in read]), strict=True):
                branch.window, branch.seen = len(branch.ids) - _WINDOW, len(text)

    def _finish(self, number: int, finish: Literal["eos", "stop", "length"]) -> None:
        branch = self._leave(number)
        group, ids, logprobs = branch.group, branch.ids, branch.logprobs
        request, progress = group.request, group.progress
        # the pipeline has not read the last token it wrote
        self._cache.touch(_chain((*branch.prompt, *ids)))
        if request.labels:
            group.labels[branch.child, branch.label] = logprobs[0]
            found = [group.labels.get((branch.child, label)) for label in range(len(request.labels))]
            values = tuple(value for value in found if value is not None)
            if len(values) == len(found):
                text = request.labels[max(range(len(values)), key=values.__getitem__)]
                completion = Completion(text=text, tokens=progress.tokens[branch.child], labels=values)
                progress.finish(branch.child, completion)
        else:
            tokens = len(ids)
            if finish == "eos" and ids:
                ids, logprobs = ids[:-1], logprobs[:-1]
            text = self._text.decode([ids])[0] if ids else ""
            ends = [text.find(cut) for cut in group.cuts if cut in text]
            if finish == "stop" and ends:
                text = text[: min(ends)]
                while ids and len(self._text.decode([ids])[0]) > len(text):
                    ids = ids[:-1]
                finish, logprobs = "eos", logprobs[: len(ids)]
            if group.listened and len(text) > branch.told:
                group.tell(branch.child, text[branch.told :])
            completion = Completion(
                text=text,
                tokens=tokens,
                token_ids=tuple(ids),
                logprobs=tuple(logprobs) if request.logprobs else None,
                finish=finish,
            )
            progress.finish(branch.child, completion)
        group.close_branch()

    def _leave(self, number: int) -> _Branch:
        branch = self._running.pop(number)
        if branch.unread:
            self._reading.difference_update(branch.reading)
        return branch

    def _fail(self, failure: EngineError) -> None:
        """The engine is dead: everything that waits for it fails."""
        self._failure = self._failure or failure
        for branch in (*self._running.values(), *self._waiting):
            results = branch.group.progress.results
            if results[branch.child] is None:
                results[branch.child] = EngineError(str(self._failure))
            branch.group.close_branch()
        self._running.clear()
        self._waiting.clear()


class _PrefixCache:
    """Knows without asking which blocks the pipeline still holds, and errs only towards fewer.

    The pipeline forgets the least recently used block, and only when it needs its place. Running branches never fill
    more than the cache without the window, so a block outlasts at least as many new blocks as the window has.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._allocated = 0
        self._used: OrderedDict[int, int] = OrderedDict()

    def held(self, chain: Sequence[int]) -> int:
        """How many of the first blocks of a prompt are held."""
        return next((index for index, block in enumerate(chain) if block not in self._used), len(chain))

    def allocate(self, blocks: int) -> None:
        """A branch enters that will fill at most so many new blocks."""
        self._allocated += blocks
        while self._used and self._allocated - next(iter(self._used.values())) >= self._window:
            self._used.popitem(last=False)

    def touch(self, chain: Sequence[int]) -> None:
        """These blocks have just been used."""
        for block in chain:
            self._used[block] = self._allocated
            self._used.move_to_end(block)


def _begun(text: str, cuts: Sequence[str]) -> int:
    """How many of the last characters of a text may be the beginning of a stop string."""
    return max((n for cut in cuts for n in range(1, min(len(cut), len(text) + 1)) if text.endswith(cut[:n])), default=0)


def _chain(ids: Sequence[int]) -> tuple[int, ...]:
    """A hash for each full block of a prompt, of everything up to its end; the last token is always read anew."""
    chain: list[int] = []
    for start in range(0, len(ids) - _BLOCK, _BLOCK):
        chain.append(hash((chain[-1] if chain else 0, *ids[start : start + _BLOCK])))
    return tuple(chain)


class _Text:
    """The model's tokenizer and chat template."""

    def __init__(self, openvino_genai: Any, header: Header) -> None:
        # from a file without the weights, for loading it from the model's own would load those as well
        with tempfile.TemporaryDirectory(prefix="outthink-", ignore_cleanup_errors=True) as folder:
            vocabulary = Path(folder, "vocabulary.gguf")
            vocabulary.write_bytes(header.vocabulary)
            try:
                self._tokenizer = openvino_genai.Tokenizer(str(vocabulary))
            except RuntimeError as failure:
                raise EngineError(f"OpenVINO cannot read the tokenizer: {_brief(failure)}") from None
        self.prompt = lru_cache(maxsize=256)(self._prompt)
        known = {self._tokenizer.get_eos_token_id()}
        for mark in _END_MARKS:
            ids = self.encode(mark)
            if len(ids) == 1:
                known.add(ids[0])
        self.end_marks = known

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text; nothing is added."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0].tolist())

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Texts of several lists of ids, special tokens removed."""
        texts: list[str] = self._tokenizer.decode(ids)
        return texts

    def _prompt(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        for message in messages:
            if not isinstance(message.content, str) and any(part.kind != "text" for part in message.content):
                raise UsageError("This model reads text only; take the images, sounds and files out of the messages.")
        chat = [{"role": message.role, "content": message.text} for message in messages]
        return self.encode(self._tokenizer.apply_chat_template(chat, add_generation_prompt=True))


@dataclass(frozen=True, slots=True)
class _News:
    """What one step brought to one request."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Literal["eos", "length"] | None = None
    error: str | None = None


class _Process:
    """The process that holds the pipeline, as seen from here."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from outthink.models.openvino import _serve; _serve()"
        # the pipeline prints to both outputs; failures come as messages
        self._popen = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._ask = threading.Lock()
        self._send(settings)

    def ready(self) -> None:
        """Wait until the model is loaded; raises EngineError where it cannot be."""
        self._receive()

    def step(
        self, adds: Sequence[tuple[int, tuple[int, ...], dict[str, Any]]], cancels: Sequence[int]
    ) -> Mapping[int, _News]:
        """Cancel some requests, add some, take a step, and return what it brought."""
        with self._ask:
            self._send((adds, cancels))
            reply: Mapping[int, _News] = self._receive()
            return reply

    def kill(self) -> None:
        """End the process, now; it holds nothing that must be kept."""
        self._popen.kill()
        self._popen.wait()
        with self._ask:  # whoever waits for an answer has got the end of the stream
            for stream in (self._popen.stdin, self._popen.stdout):
                assert stream is not None
                with contextlib.suppress(OSError):
                    stream.close()

    def _send(self, message: object) -> None:
        assert self._popen.stdin is not None
        try:
            pickle.dump(message, self._popen.stdin)
            self._popen.stdin.flush()
        except (OSError, ValueError):  # gone, or closed by `kill`
            raise self._gone() from None

    def _receive(self) -> Any:
        assert self._popen.stdout is not None
        try:
            answer = pickle.load(self._popen.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            raise self._gone() from None
        if isinstance(answer, str):
            raise EngineError(f"OpenVINO failed: {answer}")
        return answer

    def _gone(self) -> EngineError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=5)
        return EngineError(
            f"The process that runs the model ended (code {self._popen.returncode}); was there enough memory?"
        )


def _serve() -> None:
    """The other process: load the pipeline, then answer each message with the news of one step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the library prints must not get between the messages
    try:
        _serve_steps(source, sink)
    except EOFError:  # the parent has ended
        pass
    except Exception as failure:
        with contextlib.suppress(OSError):
            pickle.dump(_brief(failure), sink)
            sink.flush()
    os._exit(0)  # tearing the pipeline down takes time and gains nothing


def _serve_steps(source: BinaryIO, sink: BinaryIO) -> None:
    settings = pickle.load(source)
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = True
    scheduler.num_kv_blocks = settings["blocks"]
    scheduler.max_num_seqs = _SEQUENCES
    scheduler.max_num_batched_tokens = _BATCHED
    pipeline = genai.ContinuousBatchingPipeline(settings["path"], scheduler, "CPU")
    handles: dict[int, Any] = {}  # a request lives as long as its handle
    reply: dict[int, _News] = {}
    while True:
        pickle.dump(reply, sink)
        sink.flush()
        reply = {}
        adds, cancels = pickle.load(source)
        cancelled = [handles.pop(number) for number in cancels if number in handles]
        for handle in cancelled:
            handle.cancel()
        for number, prompt, options in adds:
            config = genai.GenerationConfig()
            config.apply_chat_template = False
            for option, value in options.items():
                if option == "label":
                    grammar = f"root ::= {json.dumps(value, ensure_ascii=False)}"
                    config.structured_output_config = genai.StructuredOutputConfig(grammar=grammar)
                else:
                    setattr(config, option, value)
            try:
                handles[number] = pipeline.add_request(number, ov.Tensor(np.array([prompt], dtype=np.int64)), config)
            except RuntimeError as failure:
                reply[number] = _News(error=_brief(failure))
        if pipeline.has_non_finished_requests():
            pipeline.step()
        cancelled.clear()
        for number, handle in list(handles.items()):
            ids: list[int] = []
            logprobs: list[float] = []
            reason = None
            while handle.can_read():
                for output in handle.read().values():
                    ids += output.generated_ids
                    logprobs += output.generated_log_probs
                    reason = output.finish_reason
            status = handle.get_status()
            if status == genai.GenerationStatus.RUNNING:
                reply[number] = _News(ids, logprobs)
                continue
            del handles[number]
            if status == genai.GenerationStatus.FINISHED:
                ended = reason == genai.GenerationFinishReason.STOP
                reply[number] = _News(ids, logprobs, "eos" if ended else "length")
            else:
                reply[number] = _News(error="the request does not fit into the cache")


def _brief(failure: Exception) -> str:
    """The last line of a native error, which says what is wrong; those before say where in the source."""
    lines = str(failure).strip().splitlines()
    return lines[-1].strip() if lines else type(failure).__name__


_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says about its model; the `gguf` package reads the same in 10 seconds instead of 0.2.

    Args:
        layers, heads, kv_heads, head: blocks; heads of queries, and of keys and values; size of a head.
        context: most positions.
        tensors: dimensions, type and offset in the file by name.
        vocabulary: a GGUF file with all metadata and no tensors.
    """

    layers: int
    heads: int
    kv_heads: int
    head: int
    context: int
    tensors: Mapping[str, tuple[tuple[int, ...], int, int]]
    vocabulary: bytes

    @staticmethod
    def read(path: Path) -> Header:
        """Read the header; raises UsageError where there is no GGUF file."""
        try:
            with path.open("rb") as file:
                return Header._parse(file)
        except OSError as failure:
            raise UsageError(f"Cannot open the model {path}: {failure.strerror}.") from None
        except (KeyError, struct.error, UnicodeDecodeError, OverflowError):
            raise UsageError(f"{path} is not a complete GGUF model (version 3).") from None

    @staticmethod
    def _parse(file: BinaryIO) -> Header:
        def take(form: str) -> Any:
            return struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))[0]

        def text() -> str:
            return file.read(take("Q")).decode()

        def value(kind: int) -> Any:
            if kind == _STRING:
                return text()
            if kind != _ARRAY:
                return take(_SCALARS[kind])
            item, count = take("I"), take("Q")
            if item == _STRING:
                for _ in range(count):
                    file.seek(take("Q"), os.SEEK_CUR)
            else:
                file.seek(count * struct.calcsize("<" + _SCALARS[item]), os.SEEK_CUR)
            return None

        if file.read(4) != b"GGUF" or take("I") != 3:
            raise KeyError("magic")
        n_tensors, n_fields = take("Q"), take("Q")
        start = file.tell()
        fields = {text(): value(take("I")) for _ in range(n_fields)}
        end = file.tell()
        tensors = {}
        for _ in range(n_tensors):
            name, rank = text(), take("I")
            tensors[name] = (tuple(take("Q") for _ in range(rank)), take("I"), take("Q"))
        alignment = fields.get("general.alignment", 32)
        data = math.ceil(file.tell() / alignment) * alignment
        tensors = {name: (dims, kind, data + offset) for name, (dims, kind, offset) in tensors.items()}
        file.seek(start)
        metadata = file.read(end - start)
        vocabulary = b"GGUF" + struct.pack("<IQQ", 3, 0, n_fields) + metadata
        family = fields["general.architecture"]
        heads = fields[f"{family}.attention.head_count"]
        return Header(
            layers=fields[f"{family}.block_count"],
            heads=heads,
            kv_heads=fields.get(f"{family}.attention.head_count_kv", heads),
            head=fields.get(f"{family}.attention.key_length", fields[f"{family}.embedding_length"] // heads),
            context=fields[f"{family}.context_length"],
            tensors=tensors,
            vocabulary=vocabulary + bytes(-len(vocabulary) % 32),
        )

    def shape(self, path: Path) -> Shape:
        """Parameters (tied embeddings once), blocks, width of the attention's output, heads of keys and values."""
        parameters = sum(math.prod(dims) for dims, _, _ in self.tensors.values())
        if self._tied(path):
            parameters -= math.prod(self.tensors["output.weight"][0])
        return Shape(
            parameters=parameters,
            layers=self.layers,
            hidden=self.heads * self.head,
            kv_heads=self.kv_heads,
            head=self.head,
        )

    def _tied(self, path: Path) -> bool:
        """Whether the output layer is a second copy of the embeddings (perhaps quantised in another way)."""
        import numpy as np
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

        rows = []
        for name in ("token_embd.weight", "output.weight"):
            if name not in self.tensors:
                return False
            (width, *_), kind, offset = self.tensors[name]
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            raw = np.fromfile(path, dtype=np.uint8, count=16 * width // block * size, offset=offset)
            rows.append(quants.dequantize(raw.reshape(16, -1), GGMLQuantizationType(kind)).ravel())
        similarity = float(np.dot(*rows)) / math.sqrt(float(np.dot(rows[0], rows[0]) * np.dot(rows[1], rows[1])) or 1.0)
        return similarity > 0.9
