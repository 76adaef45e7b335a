"""A process of its own for algebra, so that no expression can hold up or take down the one that asks.

**Limits.** What a question may use does not depend on how busy the machine is. There are three limits, and the first
one that is reached ends the question:

1. steps, which are calls of functions and returns from them: the same number on every machine, so that where this
   limit decides, slow and fast machines agree;
2. seconds of processor time, for what is long without calls, such as one multiplication of two huge numbers: how much
   is done in them depends on the machine's speed, not on what else it does;
3. minutes on the wall, for a process that is stuck. What they end has no outcome; it is tried once more.

The first two have an outcome, `Reply.late`. Steps are those of one version of Python and of mpmath.

**Fresh starts.** Where processes can be forked, every question has a child of its own, made from one state with a
fixed seed of hashes, so that neither its outcome nor its steps depend on what was asked before, and a question that
is ended or crashes takes nothing along. Elsewhere (Windows) one process answers all questions and is replaced where
one is late; there, mpmath's caches make a difference to the steps, a single long operation is ended by the third limit
only, and a question that crashes the process twice is an EngineError.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from outthink.errors import EngineError

START_SECONDS = 120.0
MEMORY = 1 << 30

_SERVE = "from outthink.answers.worker import serve; serve()"
_LATE = 75  # status of a process that ends itself because a limit is reached
_STUCK = "the process that compares answers gave no reply within {:g} seconds, twice; is the machine overloaded?"
_KILLED = "the process that compares answers was killed from outside, twice; is the machine out of memory?"

# One of each form that answers have. Python's and the parser's tables are filled by them once and not in every child.
_EXAMPLES = (
    r"\sqrt{9}", r"\frac{\sqrt{3}}{3}", r"11\sqrt2", "x^2+1", "y=2x+3", "(1,2)", "3,5,7", r"\{1,2\}", r"x \in [-2,7]",
    r"[1,2)\cup(3,\infty)", r"-2 \le x \le 7", r"\begin{pmatrix}1\\2\end{pmatrix}", "((x+1)(x-2))^2", "|x-3|",
    r"\frac{(x+1)(x-2)}{3}", r"\left(\frac{3}{5},-\frac{7}{5}\right)", r"e^{i\pi}", r"\sin(x)^2+\cos(x)^2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limit:
    """What one question may use.

    Args:
        seconds: of processor time; above 0.
        steps: calls of functions and returns from them; None: not counted, which is two to three times as fast.
    """

    seconds: float
    steps: int | None = None

    @property
    def wall(self) -> float:
        """Seconds on the wall after which a process counts as stuck, however busy the machine is."""
        return 60 + 60 * self.seconds


@dataclass(frozen=True, slots=True)
class Reply:
    """Outcome of a question: what it came to, None where it failed; or `late`, where it reached a limit."""

    value: str | bool | None
    late: bool = False


class Worker:
    """A Python process that answers one line with one line, started when first needed."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.stops = 0
        """How often it was stopped; a question from before a stop is not asked after it."""
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def ask(self, request: tuple[str, ...], stops: int) -> Reply:
        """The outcome of a question. Called from one thread only.

        Args:
            request: the name of the work, and its arguments.
            stops: `stops` when the question came up.

        Raises EngineError where there is no outcome: the process could not be started, was stopped, or was twice
        stuck or killed from outside.
        """
        line = json.dumps([self.limit.seconds, self.limit.steps, *request]) + "\n"
        stuck = False
        for _ in range(2):  # a process that was killed from outside says nothing about this question
            process = self._process or self._start(stops)
            answer, stuck = _exchange(process, line, self.limit.wall)
            if answer:
                outcome, value = json.loads(answer)
                if outcome != "lost":
                    return Reply(value, late=outcome == "late")
            else:
                self._forget(process)
                if process.returncode == _LATE:
                    return Reply(None, late=True)
            self._check(stops)
        raise EngineError(_STUCK.format(self.limit.wall) if stuck else _KILLED)

    def stop(self) -> None:
        """Kill the process, also in the middle of its work."""
        with self._lock:
            process, self._process, self.stops = self._process, None, self.stops + 1
        if process is not None:
            _end(process)

    def _start(self, stops: int) -> subprocess.Popen[str]:
        self._check(stops)
        # A command instead of multiprocessing: that would import the caller's main script once more, which runs a
        # script that has no __main__ guard twice.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-c", _SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="ascii",
                env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                start_new_session=True,  # a group of its own, which is killed together
            )
        except OSError as error:
            raise EngineError(f"the process that compares answers cannot be started: {error}") from error
        with self._lock:
            stopped = self.stops != stops
            if not stopped:
                self._process = process
        if stopped or not _exchange(process, "", START_SECONDS)[0]:
            self._forget(process)
            self._check(stops)
            raise EngineError(
                "the process that compares answers ended while starting; see what `python -c 'import mpmath'` says"
            )
        return process

    def _check(self, stops: int) -> None:
        if self.stops != stops:
            raise EngineError("the reader was closed while it compared answers")

    def _forget(self, process: subprocess.Popen[str]) -> None:
        _end(process)
        with self._lock:
            if self._process is process:
                self._process = None


def _exchange(process: subprocess.Popen[str], line: str, seconds: float) -> tuple[str, bool]:
    """Send a line and wait for one; empty where the process died, and whether it was killed for being stuck."""
    stuck = threading.Event()

    def end() -> None:
        stuck.set()
        _kill(process)

    timer = threading.Timer(seconds, end)  # portable: a pipe cannot be waited for with a timeout on Windows
    timer.daemon = True
    timer.start()
    answer = ""
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        answer = process.stdout.readline()
    except (OSError, ValueError):  # the pipe broke, or was closed by `stop`
        pass
    finally:
        timer.cancel()
    return answer if answer.endswith("\n") else "", stuck.is_set()


def _kill(process: subprocess.Popen[str]) -> None:
    if sys.platform != "win32" and process.returncode is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # with the child that is at work
    process.kill()


def _end(process: subprocess.Popen[str]) -> None:
    _kill(process)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):  # a line that was never flushed
                pipe.close()


def serve(forks: bool = hasattr(os, "fork")) -> None:
    """Main loop of the worker process; `forks`: every question in a child of its own."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints must not look like a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes our input
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    work = _work()
    if forks:
        for example in _EXAMPLES:
            _value(work["canonical"], [example])
        gc.collect()
        gc.freeze()  # else the first collection in a child copies everything
    replies.write('"ready"\n')
    replies.flush()
    run = _in_child if forks else _in_here
    for line in sys.stdin:
        seconds, steps, name, *arguments = json.loads(line)
        replies.write(json.dumps(run(work[name], arguments, seconds, steps)) + "\n")
        replies.flush()


def _work() -> dict[str, Callable[..., str | bool | None]]:
    """What can be asked, by name; importing it is slow, so it is done before the first clock starts."""
    import mpmath  # noqa: F401

    from outthink.answers.algebra import canonical, verify

    return {"canonical": canonical, "verify": verify, "code": _code}


def _in_child(
    function: Callable[..., str | bool | None], arguments: list[str], seconds: float, steps: int | None
) -> tuple[str, str | bool | None]:
    """The outcome of a call in a forked child: "done", "late" or "lost" (killed from outside), and its value."""
    if sys.platform == "win32":
        raise NotImplementedError  # never called there: `serve` forks only where that is possible
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(source)
            signal.setitimer(signal.ITIMER_PROF, seconds)  # its default action ends C code, too
            data = json.dumps(_value(function, arguments, steps)).encode()
            with open(sink, "wb") as pipe:
                pipe.write(data)
            status = 0
        finally:
            os._exit(status)
    os.close(sink)
    with open(source, "rb") as pipe:
        data = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return "done", json.loads(data)
    if code in (_LATE, -signal.SIGPROF):
        return "late", None
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        return "lost", None
    return "done", None  # a crash, which is the question's own doing


def _in_here(
    function: Callable[..., str | bool | None], arguments: list[str], seconds: float, steps: int | None
) -> tuple[str, str | bool | None]:
    """As `_in_child`, in this process, which ends where it is late."""
    end = time.process_time() + seconds
    done = threading.Event()

    def watch() -> None:
        while not done.wait(seconds / 20):
            if time.process_time() > end:
                os._exit(_LATE)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    value = _value(function, arguments, steps)
    done.set()
    watcher.join()
    return "done", value


def _value(
    function: Callable[..., str | bool | None], arguments: list[str], steps: int | None = None
) -> str | bool | None:
    """What a call returns, None where it raises; ends the process after so many steps."""
    left = steps or 0

    def step(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os._exit(_LATE)

    if steps is not None:
        sys.setprofile(step)
    try:
        return function(*arguments)
    except Exception:  # whatever becomes of a model's text; the caller has a fallback
        return None
    finally:
        sys.setprofile(None)


def _code(source: str) -> str | None:
    return ast.unparse(ast.parse(source))
