"""Runs programs that a model wrote where they can do no harm: with bubblewrap, on Linux.

A program has no network, sees the standard library and one empty folder that goes away with it, and is ended with all
its processes when it reaches a limit. It shares nothing with other programs but the kernel. What is not promised is
said in docs/sandbox.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from outthink.errors import EngineError, MissingResource

_INSTALL = "Running code needs bubblewrap: apt-get install bubblewrap (Linux only)."
_ALLOW = (
    "Running code needs what is refused here ({reason}): allow user namespaces, with "
    "'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0' on Ubuntu, "
    "'sysctl -w kernel.unprivileged_userns_clone=1' on older Debian, "
    "'--security-opt seccomp=unconfined' for a container; Linux must be 5.14 or newer."
)
_T = TypeVar("_T")
_SCRATCH = "/tmp"
_CHUNK = 1 << 16

# Inside, Python reads these modules as the first message from the socket that is its standard input.
_MODULES = ("peer", "tester", "inside")
_BOOT = """
import json, os, sys, types
for name, text in json.loads(os.read(0, 1 << 20)).items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), vars(module))
module.serve(json.loads(sys.argv[1]))
"""

# Where one of these works, or the kernel does not stop the forks, nothing is run.
_PROBE = """
import os, signal, socket

def forks():
    for _ in range(8):
        if os.fork() == 0:
            signal.pause()

def read():
    open("/etc/passwd").close()

def write():
    open("/written", "w").close()

for escape in (forks, read, write, socket.socket):
    try:
        escape()
    except OSError:
        continue
    raise RuntimeError(f"a program could {escape.__name__}")
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one program may use; it is ended, or what it tries fails, where it wants more.

    Args:
        seconds: from its first line to its last by the clock on the wall; starting Python is not included.
        cpu_seconds: of each of its processes, in whole seconds (rounded up).
        memory_mb: address space of each of its processes, Python included. All of them together can use `processes`
            times as much, and the scratch folder in addition.
        processes: processes and threads at one time, the program itself included.
        disk_mb: all of the scratch folder, which is memory, too; and any one file.
        output_kb: of stdout and of stderr each. A program that writes more is ended, and has failed.
    """

    seconds: float = 10.0
    cpu_seconds: float = 10.0
    memory_mb: int = 512
    processes: int = 8
    disk_mb: int = 16
    output_kb: int = 64

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise ValueError(f"{field.name} must be more than 0 and finite, not {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """What became of one program.

    Args:
        outcome: ok if the whole source ran to its end. What exits before is failed, whatever its status; timeout is
            failed because of `seconds` or `cpu_seconds`. What happens after the end of the source (threads, functions
            of atexit) changes nothing, and has one second at most.
        stdout: what it wrote, at most `output_kb`; what is not UTF-8 is replaced.
        stderr: the same; of a program that raised, its traceback.
        seconds: by the clock on the wall, from its start until it ended or was killed.
        error: one line for people: of the traceback, or how it ended; None if ok.
        passed: of each test whether it passed; of those that were not reached it is False.
    """

    outcome: Literal["ok", "failed", "timeout"]
    stdout: str
    stderr: str
    seconds: float
    error: str | None
    passed: tuple[bool, ...] = ()


class Sandbox:
    """Runs Python source, each program in a sandbox of its own, in the version of Python that runs this.

    One process inside bubblewrap starts when the first program does and then forks for every program, so that most
    programs cost less than starting Python. It ends with `close`, or with this process. A sandbox may be used from
    several event loops, and again after `close`.

    `run` tells whether a program ran to its end, which a program that sets out to can pretend. `test` tells whether it
    passes tests, which is found out in another process.

    Args:
        limits: of every program.
        workers: programs at once; further ones wait. None: as many as there are processors.

    Raises MissingResource where programs cannot be confined; they are never run in any other way.
    """

    def __init__(self, limits: Limits = Limits(), *, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self.limits = limits
        self.workers = workers or os.cpu_count() or 1
        self._server: _Server | None = None
        self._places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
        self._places = weakref.WeakKeyDictionary()
        _probe()

    async def run(self, source: str, *, stdin: str = "") -> Execution:
        """Run a program to its end or to its limits; if this is cancelled, it is ended with all its processes.

        Raises EngineError where the sandbox itself broke down, which says nothing about the program.
        """
        loop = asyncio.get_running_loop()
        async with self._places.setdefault(loop, asyncio.Semaphore(self.workers)):
            return await self._run(loop, source, stdin)

    async def test(
        self,
        answer: str,
        tests: Sequence[str],
        *,
        prelude: str = "",
        entry_point: str = "",
        test_seconds: float | None = None,
    ) -> Execution:
        """Import a program and run tests on it, which it cannot see; ok if all of them pass.

        The tests run in a process of their own, one after the other, after the program was imported. What they call
        runs in the program's process. What either of them writes is lost.

        Args:
            answer: source; its `__name__` is not "__main__". It may also be the body of the prelude's last function.
            tests: pieces of source that raise where the program is wrong; names of one are there in the next.
            prelude: source that runs before the answer in the program, and before the tests.
            entry_point: a name that is always the program's, though the prelude or Python has it, too.
            test_seconds: of CPU time of the program that one test may take; None: no limit of its own.

        Raises EngineError where the sandbox itself broke down, which says nothing about the program.
        """
        program = json.dumps({"prelude": prelude, "answer": answer})
        names = [entry_point] if entry_point else []
        plan = json.dumps({"tests": [*tests], "prelude": prelude, "names": names, "seconds": test_seconds})
        loop = asyncio.get_running_loop()
        async with self._places.setdefault(loop, asyncio.Semaphore(self.workers)):
            report = await self._tested(loop, program, plan)
        passed = [*report["passed"], *[False] * len(tests)][: len(tests)]
        return Execution(
            outcome=report["outcome"],
            stdout="",
            stderr="",
            seconds=report["seconds"],
            error=report["error"],
            passed=tuple(passed),
        )

    async def close(self) -> None:
        """End what is still running."""
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.close)

    async def _run(self, loop: asyncio.AbstractEventLoop, source: str, stdin: str) -> Execution:
        kept = self.limits.output_kb * 1024
        program = self._begin(lambda server: server.begin(source, stdin))
        server = self._server
        try:
            out = _collect(loop, program.out, kept, program.end)
            err = _collect(loop, program.err, kept, program.end)
            told = _collect(loop, program.status.fileno(), _CHUNK, program.end)
            stdout, stderr = await out, await err
            report = json.loads(await told or "{}")
        finally:
            for descriptor in (program.out, program.err, program.status.fileno()):
                loop.remove_reader(descriptor)
            program.close()
        await self._check(report, server)
        for name, data in (("stdout", stdout), ("stderr", stderr)):
            if len(data) > kept:
                report |= {"outcome": "failed", "error": f"wrote more than {self.limits.output_kb} kB to {name}"}
        return Execution(
            outcome=report["outcome"],
            stdout=stdout[:kept].decode("utf-8", "replace"),
            stderr=stderr[:kept].decode("utf-8", "replace"),
            seconds=report["seconds"],
            error=report["error"],
        )

    async def _tested(self, loop: asyncio.AbstractEventLoop, program: str, plan: str) -> dict[str, Any]:
        status = self._begin(lambda server: server.begin_tests(program, plan))
        server = self._server
        try:
            report: dict[str, Any] = json.loads(await _collect(loop, status.fileno(), 1 << 24, status.close) or "{}")
        finally:
            if status.fileno() >= 0:
                loop.remove_reader(status.fileno())
            status.close()
        await self._check(report, server)
        return report

    async def _check(self, report: dict[str, Any], server: _Server | None) -> None:
        """Raise where the sandbox itself broke down."""
        if "outcome" in report:
            return
        if not report and self._server is server:  # bubblewrap died; the next program gets another
            await self.close()
        reason = report.get("broken", "bubblewrap died")
        raise EngineError(f"The sandbox broke down ({reason}); try again, with fewer workers if memory is short.")

    def _begin(self, begin: Callable[[_Server], _T]) -> _T:
        if self._server is not None and self._server.process.poll() is None:
            with contextlib.suppress(ConnectionError):  # it has just died
                return begin(self._server)
        if self._server is not None:
            self._server.close()
        self._server = _Server(self.limits)
        return begin(self._server)


class _Program:
    """A program that is running: what it writes, and the socket on which its watcher tells how it ended."""

    def __init__(self, out: int, err: int, status: socket.socket) -> None:
        self.out = out
        self.err = err
        self.status = status

    def end(self) -> None:
        """Kill it; what it has written and the report can still be read."""
        with contextlib.suppress(OSError):  # it has ended by itself
            self.status.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Kill it if it is still running, and forget it."""
        self.status.close()
        os.close(self.out)
        os.close(self.err)


class _Server:
    """bubblewrap with inside.py in it."""

    def __init__(self, limits: Limits) -> None:
        command = [*_command(), json.dumps(dataclasses.asdict(limits))]
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._errors = os.memfd_create("errors")
        with theirs:
            # Its life hangs on the socket and not on --die-with-parent, which would end it with the thread that is
            # running now. A session of its own keeps Ctrl-C away from it.
            self.process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                cwd="/",
                start_new_session=True,
            )
        with contextlib.suppress(ConnectionError):  # it is already dead, which the first program will notice
            here = {f"outthink.sandbox.{name}": Path(__file__).with_name(f"{name}.py") for name in _MODULES}
            texts = {name: path.read_text(encoding="utf-8") for name, path in here.items()}
            self._requests.send(json.dumps(texts).encode())

    def begin(self, source: str, stdin: str) -> _Program:
        """Start a program."""
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:

            def pipe() -> tuple[int, int]:
                reading, writing = os.pipe()
                ours.callback(os.close, reading)
                theirs.callback(os.close, writing)
                return reading, writing

            status, its_status = socket.socketpair()
            ours.push(status)
            theirs.push(its_status)
            out, its_out = pipe()
            err, its_err = pipe()
            files = [_file(stdin, theirs), its_out, its_err, _file(source, theirs), its_status.fileno()]
            socket.send_fds(self._requests, [b"r"], files)
            ours.pop_all()
        return _Program(out, err, status)

    def begin_tests(self, program: str, plan: str) -> socket.socket:
        """Start a program and its tests; the socket on which their watcher tells what has passed."""
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            status, its_status = socket.socketpair()
            ours.push(status)
            theirs.push(its_status)
            socket.send_fds(self._requests, [b"t"], [_file(program, theirs), _file(plan, theirs), its_status.fileno()])
            ours.pop_all()
        return status

    def close(self) -> str:
        """End it and all its programs, and wait until they are dead; the last line of what it wrote about itself."""
        self._requests.close()
        status = self.process.wait()
        lines = os.pread(self._errors, _CHUNK, 0).decode("utf-8", "replace").strip().splitlines()
        os.close(self._errors)
        return lines[-1] if lines else f"bubblewrap ended with {status}"


def _file(text: str, stack: contextlib.ExitStack) -> int:
    """A file in memory that nobody can change."""
    import fcntl  # here, because it does not exist where there is no sandbox

    descriptor = os.memfd_create("text", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogatepass"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _collect(
    loop: asyncio.AbstractEventLoop, descriptor: int, most: int, over: Callable[[], None]
) -> asyncio.Future[bytes]:
    """All that comes from a descriptor until it is closed; of what is beyond `most`, a little, and `over` is called."""
    collected = bytearray()
    ended: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        data = os.read(descriptor, _CHUNK)
        if not data:
            loop.remove_reader(descriptor)
            if not ended.done():
                ended.set_result(bytes(collected))
        elif len(collected) <= most:
            collected.extend(data)
            if len(collected) > most:
                over()

    loop.add_reader(descriptor, read)
    return ended


def _command() -> list[str]:
    """bubblewrap and the Python in it; the limits are to follow as the last word."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise MissingResource(_INSTALL)
    base = Path(sys.base_prefix)
    python = base / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    command = [bwrap, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--hostname", "sandbox", "--cap-drop", "ALL", "--as-pid-1"]  # so all ends when the server ends
    if os.geteuid() == 0:
        # As root, bubblewrap can show Python even where it lies in a folder that is closed to others. inside.py then
        # becomes nobody, since the kernel does not count the processes of root.
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    shown = [Path("/usr/lib"), Path("/usr/lib64"), Path("/etc/ld.so.cache"), Path("/usr/share/zoneinfo")]
    shown += [base / "lib", python, *map(Path, ("/lib", "/lib64"))]
    shown += [Path("/dev", name) for name in ("null", "zero", "full", "random", "urandom")]
    made = {Path("/")}
    for path in dict.fromkeys(shown):
        for folder in reversed(path.parents):
            if folder not in made:  # bubblewrap would make it, but closed to others
                made.add(folder)
                command += ["--dir", str(folder)]
        if path.is_symlink() and path.parent == Path("/"):
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.exists():
            command += ["--dev-bind" if path.parent.name == "dev" else "--ro-bind", str(path), str(path)]
    command += ["--proc", "/proc", "--dir", _SCRATCH, "--symlink", _SCRATCH, "/dev/shm", "--remount-ro", "/"]
    command += [
        "--clearenv",
        "--setenv",
        "HOME",
        _SCRATCH,
        "--setenv",
        "LANG",
        "C.UTF-8",
        "--setenv",
        "PATH",
        "/usr/bin",
    ]
    command += ["--setenv", "PYTHONHASHSEED", "0"]  # sets of texts have the same order in every run
    return [*command, str(python), "-s", "-P", "-S", "-B", "-X", "utf8", "-c", _BOOT]


@functools.cache
def _probe() -> None:
    """Run a program that tries to get out; raise MissingResource where that cannot be done, or where it succeeds."""
    if sys.platform != "linux":
        raise MissingResource(_INSTALL)
    server = _Server(Limits(processes=4))
    report: dict[str, Any] = {}
    complaint = ""
    try:
        with contextlib.suppress(ConnectionError):  # bubblewrap has ended at once
            program = server.begin(_PROBE, "")
            with contextlib.closing(program), program.status.makefile("rb") as told:
                report = json.loads(told.read() or b"{}")
    finally:
        complaint = server.close()
    if report.get("outcome") != "ok":
        raise MissingResource(_ALLOW.format(reason=report.get("error") or report.get("broken") or complaint))
