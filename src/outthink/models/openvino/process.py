"""The process that runs the pipeline, so that a crash in native code is an error and not the end."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

from outthink.errors import EngineError
from outthink.models.openvino.loading import openvino_genai

SEQUENCES = 128
"""Most children in the batch; beyond it decoding gains little."""


BATCHED = 2048
"""Most tokens of one step; a longer prompt is read in several."""


@dataclass(frozen=True, slots=True)
class News:
    """What one step brought to one request."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Literal["eos", "length"] | None = None
    error: str | None = None


class EngineProcess:
    """The process that holds the pipeline, as seen from here."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from outthink.models.openvino.process import serve; serve()"
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
    ) -> Mapping[int, News]:
        """Cancel some requests, add some, take a step, and return what it brought."""
        with self._ask:
            self._send((adds, cancels))
            reply: Mapping[int, News] = self._receive()
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


def serve() -> None:
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
            pickle.dump(brief(failure), sink)
            sink.flush()
    os._exit(0)  # tearing the pipeline down takes time and gains nothing


def _serve_steps(source: BinaryIO, sink: BinaryIO) -> None:
    settings = pickle.load(source)
    import numpy as np

    genai = openvino_genai()
    import openvino as ov

    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = True
    scheduler.num_kv_blocks = settings["blocks"]
    scheduler.max_num_seqs = SEQUENCES
    scheduler.max_num_batched_tokens = BATCHED
    pipeline = genai.ContinuousBatchingPipeline(settings["path"], scheduler, "CPU")
    handles: dict[int, Any] = {}  # a request lives as long as its handle
    reply: dict[int, News] = {}
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
                reply[number] = News(error=brief(failure))
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
                reply[number] = News(ids, logprobs)
                continue
            del handles[number]
            if status == genai.GenerationStatus.FINISHED:
                ended = reason == genai.GenerationFinishReason.STOP
                reply[number] = News(ids, logprobs, "eos" if ended else "length")
            else:
                reply[number] = News(error="the request does not fit into the cache")


def brief(failure: Exception) -> str:
    """The last line of a native error, which says what is wrong; those before say where in the source."""
    lines = str(failure).strip().splitlines()
    return lines[-1].strip() if lines else type(failure).__name__
