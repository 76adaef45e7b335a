"""The batch: which sequences run, and what the prefix cache holds."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from outthink.errors import EngineError
from outthink.models.engine import Completion, Progress, Request
from outthink.models.openvino.process import BATCHED, SEQUENCES, EngineProcess, News
from outthink.models.openvino.text import WrittenText

BLOCK = 32
"""Tokens in a block of the pipeline's prefix cache (on processors)."""


IN_USE = 0.75
"""Share of the cache that running children may fill; the rest keeps prefixes for later ones."""


_WINDOW = 32
"""Tokens that are turned into text again with those that follow, for one character can take several of them."""


@dataclass(slots=True, eq=False)
class Group:
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
class Branch:
    """One request to the pipeline: a child, or one label of it.

    Args:
        told: characters of its text that a listener was told.
        window: the first of those tokens that are still turned into text together.
        seen: characters of the window's text that were told.
    """

    group: Group
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
        return (len(self.prompt) + most) // BLOCK + 1


class Stepper:
    """The thread that admits children to the batch, asks for steps and shares out what they bring.

    Args:
        room: blocks of the cache that running branches may fill, at their longest.
        window: blocks beyond those.
    """

    def __init__(self, process: EngineProcess, text: WrittenText, *, room: int, window: int) -> None:
        self._process, self._text, self._room = process, text, room
        self._cache = _PrefixCache(window)
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._failure: EngineError | None = None
        self._waiting: list[Branch] = []
        self._running: dict[int, Branch] = {}
        self._cancels: list[int] = []
        self._reading: set[int] = set()
        self._number = 0

    def submit(self, branches: Sequence[Branch]) -> None:
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

    def cancel(self, group: Group) -> None:
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
            fresh = len(branch.prompt) - held * BLOCK
            full = (
                full
                or len(self._running) >= SEQUENCES
                or (filled > 0 and filled + branch.blocks > self._room)
                # what enters is read within the next step, so that it is counted truly; a long prompt enters alone
                or (unread > 0 and len(self._running) + unread + fresh > BATCHED)
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
            progress.cached += held * BLOCK
        self._waiting = left
        return adds

    def _take(self, reply: Mapping[int, News]) -> None:
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

    def _tell(self, listened: Sequence[Branch]) -> None:
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
        self._cache.touch(block_chain((*branch.prompt, *ids)))
        if request.labels:
            group.labels[branch.child, branch.label] = logprobs[0]
            known = [group.labels.get((branch.child, label)) for label in range(len(request.labels))]
            values = tuple(value for value in known if value is not None)
            if len(values) == len(known):
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

    def _leave(self, number: int) -> Branch:
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


def block_chain(ids: Sequence[int]) -> tuple[int, ...]:
    """A hash for each full block of a prompt, of everything up to its end; the last token is always read anew."""
    chain: list[int] = []
    for start in range(0, len(ids) - BLOCK, BLOCK):
        chain.append(hash((chain[-1] if chain else 0, *ids[start : start + BLOCK])))
    return tuple(chain)
