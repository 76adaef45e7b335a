"""Records what a server did as run directories, for `outthink report` and for grading later, without slowing it down.

- served: a run with the trace of every request; shadow: a run with the traces of another strategy on some of the same
  requests, under the same ids. Neither has an end, and nothing in them is graded.
- problems.jsonl: the messages of every request, {"problem": id, "messages": [...]}; of media only the type and length.
- feedback.jsonl: what callers have said of answers, as in `outthink.records.traffic`.

They hold what people asked and were told, so they are for their owner alone. One thread writes all of it, what comes
within a tenth of a second together. What is written outlives the process, and a second later a power failure, too;
feedback does so before its caller hears of it. What cannot be written, or does not fit into the queue of what waits, is
lost; that is counted and told once in the log, and no request fails of it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from outthink import jsonl
from outthink.errors import OutthinkError, UsageError
from outthink.records.runs import Result, Store, Trial
from outthink.records.traffic import FEEDBACK, PROBLEMS, SERVED, SHADOW, Feedback
from outthink.types import Trace, writable

WAITING = 1000
"""Most traces that wait to be written."""

_SECRET = "idents.secret"
_MOMENT = 0.1  # seconds in which traces are gathered that are written together
_SYNC = 1.0  # seconds after which what is written is brought to the disk

_logger = logging.getLogger("outthink.server")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """What waits to be written: a result of a run, and the messages of its problem; or a line of feedback."""

    run: str = ""
    result: Result | None = None
    asked: str | None = None
    said: str = ""
    kept: Future[None] | None = None
    """Told when feedback is on the disk, or why it is not."""


class Recorder:
    """The one writer of a folder of recorded traffic; use it as a context manager: leaving it writes what waits.

    Args:
        folder: made where it does not exist, with mode 700; one of an earlier start of the server is gone on with.
        settings: of the run of what was served, as JSON data: strategy, models and whatever must not change in it.
        shadow: the same of the other strategy's run; None where there is none.
        shared: other workers of the same server write to the folder, too; they take turns.

    Raises UsageError where another process writes there, where the folder was begun with other settings, and where it
    cannot be made; OutthinkError where nothing can be written.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        shadow: Mapping[str, Any] | None = None,
        *,
        shared: bool = False,
    ) -> None:
        self.lost = 0
        """Traces that were not kept."""
        self.on_lost: Callable[[int], None] = lambda traces: None
        """Told of them."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as cause:
            raise UsageError(f"Cannot make the folder {folder}: {cause.strerror}.") from cause
        self._folder = folder
        self._turn: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        if shared:
            self._turn = partial(jsonl.turn, folder)
        with contextlib.ExitStack() as opened, self._turn():
            self._problems = opened.enter_context(jsonl.Appender(folder / PROBLEMS, mode=0o600, shared=shared))
            self._runs = {
                name: opened.enter_context(
                    Store(folder / name, {**asked, "shard": None, "problems": None}, private=True, shared=shared)
                )
                for name, asked in ((SERVED, settings), (SHADOW, shadow))
                if asked is not None
            }
            self._feedback = opened.enter_context(jsonl.Appender(folder / FEEDBACK, mode=0o600, shared=shared))
            self.secret = _secret(folder)
            """By which ids of requests are known again after a restart, and by other workers."""
            self._files = opened.pop_all()
        self._waiting: queue.Queue[_Entry | None] = queue.Queue(WAITING)
        self._lock = threading.Lock()  # of `lost`, and so that nothing comes after the end
        self._closed = False
        self._written = 0  # traces that are not brought to the disk yet
        self._due = math.inf  # when they are to be
        # a daemon, so that a server that dies of something else is not kept alive
        self._thread = threading.Thread(target=self._write_all, name="outthink-recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def served(
        self,
        trace: Trace,
        messages: Sequence[Mapping[str, Any]],
        owner: str | None = None,
        trial: Trial | None = None,
    ) -> None:
        """Keep the trace of a request and its messages (JSON data); never waits, never raises.

        Args:
            trace: its problem is the id of the request, which no other request has, ever.
            owner: the name of the key with which it was asked.
            trial: which action was drawn for it; None: nothing was drawn.
        """
        try:
            asked = {"problem": trace.problem, "messages": [_without_media(message) for message in messages]}
            line = writable(json.dumps(asked, ensure_ascii=False))
        except Exception as cause:  # whatever a caller sent
            self._lose(1, f"{type(cause).__name__}: {cause}")
        else:
            self._put(_Entry(run=SERVED, result=_result(trace, owner, trial), asked=line))

    def shadowed(self, trace: Trace, owner: str | None = None) -> None:
        """Keep the trace of the other strategy on a request, which has its id; never waits, never raises."""
        self._put(_Entry(run=SHADOW, result=_result(trace, owner, None)))

    def said(self, problem: str, feedback: Feedback) -> Future[None]:
        """Keep what was said of an answer; done when it outlives a kill, and failed where it could not be kept."""
        kept: Future[None] = Future()
        line = json.dumps({"problem": problem, **asdict(feedback)}, ensure_ascii=False)
        self._put(_Entry(said=writable(line), kept=kept))
        return kept

    def close(self) -> None:
        """Write what waits, which can take seconds, and let another process have the folder; twice is fine."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._waiting.put(None)
            self._thread.join()
            self._files.close()

    def _put(self, entry: _Entry) -> None:
        with self._lock:
            try:
                if not self._closed:
                    self._waiting.put_nowait(entry)
                    return
                why = "the recorder is closed"
            except queue.Full:
                why = f"{WAITING} traces wait to be written, since the disk is slower than the traffic"
        if entry.kept is None:
            self._lose(1, why)
        else:
            entry.kept.set_exception(OutthinkError("Feedback cannot be kept now; send it again later."))

    def _lose(self, traces: int, why: str) -> None:
        with self._lock:
            told, self.lost = self.lost > 0, self.lost + traces
        self.on_lost(traces)
        if not told:
            _logger.error(
                "Recording in %s has lost a trace: %s Requests are served as ever; further losses are only counted.",
                self._folder,
                why if why.endswith(".") else why + ".",
            )

    def _write_all(self) -> None:
        ended = False
        while not ended:
            batch = self._batch()
            ended = None in batch
            with self._turn():
                self._write_batch([one for one in batch if one is not None])
                if ended or time.monotonic() >= self._due:
                    self._sync()

    def _batch(self) -> list[_Entry | None]:
        """What is to be written next; nothing where it is time to bring to the disk what is written."""
        left = self._due - time.monotonic()
        try:
            first = self._waiting.get(timeout=None if left == math.inf else max(0.0, left))
        except queue.Empty:
            return []
        if first is not None and first.kept is None:
            time.sleep(_MOMENT)
        return [first, *(self._waiting.get_nowait() for _ in range(self._waiting.qsize()))]

    def _write_batch(self, batch: Sequence[_Entry]) -> None:
        traces = [one for one in batch if one.kept is None]
        asked = [one for one in traces if one.asked is not None]
        lost = {id(one) for one in asked} - {id(one) for one in self._kept(self._write_asked, asked)}
        for name in self._runs:
            own = [one for one in traces if one.run == name and id(one) not in lost]
            self._written += len(self._kept(partial(self._write, name), own))
        if self._written:
            self._due = min(self._due, time.monotonic() + _SYNC)
        self._write_feedback([one for one in batch if one.kept is not None])

    def _kept(self, write: Callable[[Sequence[_Entry]], None], entries: Sequence[_Entry]) -> Sequence[_Entry]:
        """What of it could be written: all of it together, or each for itself; the rest is lost."""
        if not entries:
            return ()
        with contextlib.suppress(Exception):  # each says for itself what is wrong with it
            write(entries)
            return entries
        kept = []
        for one in entries:
            try:
                write([one])
            except Exception as cause:  # what one trace holds must not end the thread
                self._lose(1, str(cause))
            else:
                kept.append(one)
        return kept

    def _sync(self) -> None:
        written, self._written, self._due = self._written, 0, math.inf
        try:
            self._problems.sync()
            for run in self._runs.values():
                run.sync()
        except OutthinkError as cause:
            self._lose(written, str(cause))

    def _write_asked(self, entries: Sequence[_Entry]) -> None:
        self._problems.append("\n".join(one.asked for one in entries if one.asked is not None), sync=False)

    def _write(self, run: str, entries: Sequence[_Entry]) -> None:
        self._runs[run].record(*(one.result for one in entries if one.result is not None), sync=False)

    def _write_feedback(self, entries: Sequence[_Entry]) -> None:
        """Each caller hears of his own only once all are on the disk."""
        try:
            for entry in entries:
                self._feedback.append(entry.said, sync=False)
            if entries:
                self._feedback.sync()
            failure = None
        except OutthinkError as cause:
            failure = cause
            _logger.error("Feedback was not kept: %s", cause)
        for entry in entries:
            if entry.kept is not None and entry.kept.set_running_or_notify_cancel():
                if failure is None:
                    entry.kept.set_result(None)
                else:
                    entry.kept.set_exception(OutthinkError("Feedback cannot be kept now; send it again later."))


def _result(trace: Trace, owner: str | None, trial: Trial | None) -> Result:
    error = None if trace.rounds else trace.error
    return Result(
        problem=trace.problem, credit=None, error=error, trace=trace, ended=time.time(), trial=trial, owner=owner
    )


def _secret(folder: Path) -> bytes:
    """That of a folder, made where there is none yet."""
    path = folder / _SECRET
    try:
        return bytes.fromhex(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        made = secrets.token_bytes(32)
        jsonl.write_whole(path, made.hex(), mode=0o600)
        return made
    except (OSError, ValueError):
        raise UsageError(f"{path} cannot be read: remove it, and ids from before are not known any more.") from None


def _without_media(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    if not isinstance(content, Sequence) or isinstance(content, str):
        return message
    parts = [part if part["type"] == "text" else _short(part) for part in content]
    return {**message, "content": parts}


def _short(value: Any, name: str = "") -> Any:
    """A part of a message without bytes: of a `data:` URL stay type and length, of other encoded bytes the length."""
    if isinstance(value, Mapping):
        return {name: _short(entry, name) for name, entry in value.items()}
    if not isinstance(value, str):
        return value
    if value[:5].lower() == "data:":
        comma = value.find(",", 0, 200)
        kind = value[5 : max(comma, 5)].partition(";")[0]
        return f"data:{kind} ({len(value) - comma - 1:,} characters left out)"
    return f"({len(value):,} characters left out)" if name in ("data", "file_data") else value
