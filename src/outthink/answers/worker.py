"""A process of its own for algebra, so that no expression can hold up or take down the one that asks."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from outthink.errors import EngineError

START_SECONDS = 120.0


class Worker:
    """A Python process that answers one line with one line; killed and replaced when it is late or dies."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._stops = 0

    def ask(self, request: tuple[str, ...]) -> str | bool | None:
        """The reply; None where there is none in time. Called from one thread only."""
        line = json.dumps([self.timeout, *request]) + "\n"
        stops = self._stops
        for _ in range(2):  # a worker found dead says nothing about this request, so try a new one once
            process = self._process or self._start()
            started = time.monotonic()
            reply = _exchange(process, line, self.timeout)
            if reply:
                answer: str | bool | None = json.loads(reply)
                return answer
            self._forget(process)
            if self._stops != stops:
                raise EngineError("the reader was closed while it compared answers")
            if time.monotonic() - started >= self.timeout:
                break
        return None

    def stop(self) -> None:
        """Kill the process, also in the middle of its work."""
        with self._lock:
            process, self._process, self._stops = self._process, None, self._stops + 1
        if process is not None:
            _end(process)

    def _start(self) -> subprocess.Popen[str]:
        # A command instead of multiprocessing: that would import the caller's main script once more, which runs a
        # script that has no __main__ guard twice.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-c", "from outthink.answers.worker import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="ascii",
                env={**os.environ, "PYTHONPATH": path},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise EngineError(f"the process that compares answers cannot be started: {error}") from error
        with self._lock:
            self._process = process
        if not _exchange(process, "", START_SECONDS):
            self._forget(process)
            raise EngineError(
                "the process that compares answers ended while starting (or the reader was closed); "
                "see what `python -c 'import mpmath'` says"
            )
        return process

    def _forget(self, process: subprocess.Popen[str]) -> None:
        _end(process)
        with self._lock:
            if self._process is process:
                self._process = None


def _exchange(process: subprocess.Popen[str], line: str, seconds: float) -> str:
    """Send a line and wait for one; empty where the process died or had to be killed for being late."""
    timer = threading.Timer(seconds, process.kill)  # portable: a pipe cannot be waited for with a timeout on Windows
    timer.daemon = True
    timer.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        return process.stdout.readline()
    except (OSError, ValueError):  # the pipe broke, or was closed by `stop`
        return ""
    finally:
        timer.cancel()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):  # a line that was never flushed
                pipe.close()


def serve() -> None:
    """Main loop of the worker process."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints must not look like a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes our input
    if sys.platform != "win32":
        import resource

        limit = 2 << 30
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import mpmath  # noqa: F401  (slow, so before the first clock starts)

    from outthink.answers.algebra import canonical, verify

    replies.write('"ready"\n')
    replies.flush()
    work: dict[str, Callable[..., str | bool | None]] = {"canonical": canonical, "verify": verify, "code": _code}
    for line in sys.stdin:
        seconds, name, *arguments = json.loads(line)
        if sys.platform != "win32":
            # Should the parent have died, nobody else would end us; the default action works inside C code too.
            signal.setitimer(signal.ITIMER_REAL, seconds + 1)
        try:
            reply = work[name](*arguments)
        except Exception:  # whatever becomes of a model's text; the caller has a fallback
            reply = None
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _code(source: str) -> str | None:
    return ast.unparse(ast.parse(source))
