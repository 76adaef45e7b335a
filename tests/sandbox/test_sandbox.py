"""What programs may do, and every way out that they try.

Programs try things with `attempt`, which prints whether they worked. Where the host has what is attacked, the test
shows first that it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outthink.errors import EngineError, MissingResource
from outthink.sandbox import host as module
from outthink.sandbox.host import Execution, Limits, Sandbox

ATTEMPT = """
import os, sys

def attempt(name, action):
    try:
        result = action()
    except Exception as cause:
        print(name, "refused:", type(cause).__name__)
    else:
        print(name, "worked:", repr(result)[:200])

"""
LIBC = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)

def called(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result

"""


@pytest.fixture(scope="module")
def available() -> None:
    try:
        Sandbox()
    except MissingResource as cause:
        if os.environ.get("CI"):
            raise  # CI installs it; these tests must not go missing there
        pytest.skip(str(cause))


@pytest.fixture(scope="module")
def shared(available: None) -> Iterator[Sandbox]:
    """One sandbox for most tests, each on an event loop of its own."""
    sandbox = Sandbox(workers=4)
    yield sandbox
    asyncio.run(sandbox.close())


def run(sandbox: Sandbox, source: str, stdin: str = "") -> Execution:
    """Run one program; afterwards nothing of it is left."""
    ran = asyncio.run(sandbox.run(textwrap.dedent(source), stdin=stdin))
    gone(sandbox)
    return ran


def limited(source: str, limits: Limits) -> Execution:
    """Run one program in a sandbox with these limits."""

    async def once() -> Execution:
        sandbox = Sandbox(limits, workers=1)
        try:
            return await sandbox.run(textwrap.dedent(source))
        finally:
            await sandbox.close()

    return asyncio.run(once())


def refused(sandbox: Sandbox, source: str, attempts: int) -> Execution:
    """Run a program whose attempts must all fail."""
    ran = run(sandbox, ATTEMPT + LIBC + textwrap.dedent(source))
    assert ran.outcome == "ok", ran
    assert "worked" not in ran.stdout
    assert ran.stdout.count("refused:") == attempts, ran.stdout
    return ran


def below(process: int) -> set[int]:
    """All processes that descend from this one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def server(sandbox: Sandbox) -> int:
    assert sandbox._server is not None
    return sandbox._server.process.pid


def gone(sandbox: Sandbox) -> None:
    """Wait until only the server is left."""
    while len(below(server(sandbox))) > 1:
        time.sleep(0.01)


def marked(marker: str) -> list[str]:
    """The processes of the host that have this in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


async def until(holds: Callable[[], bool]) -> None:
    """Wait for other processes."""
    while not holds():  # noqa: ASYNC110 - other processes set no events
        await asyncio.sleep(0.02)


def sleeper(marker: str) -> str:
    """Source that starts processes in sessions of their own, marked, and reports when they run."""
    return f"""
import os, subprocess, sys
sleep = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(1000)  # {marker}"]
ups = []
for _ in range(2):
    ups.append(subprocess.Popen(sleep, start_new_session=True, stdout=subprocess.PIPE).stdout)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, sleep)
    os._exit(0)
for up in ups:
    up.readline()
"""


@pytest.fixture
def marker() -> str:
    return f"marker-{uuid.uuid4().hex}"


# What programs can do


def test_a_program_runs(shared: Sandbox) -> None:
    ran = run(shared, "import sys\nprint(input() * 2)\nprint('aside', file=sys.stderr)", stdin="abc\nmore\n")
    assert (ran.outcome, ran.stdout, ran.stderr, ran.error) == ("ok", "abcabc\n", "aside\n", None)
    assert 0 < ran.seconds < shared.limits.seconds


def test_an_exception_is_a_failure_with_its_traceback(shared: Sandbox) -> None:
    ran = run(shared, "def f():\n    return [1][5]\n\nprint('before')\nf()\n")
    assert (ran.outcome, ran.stdout, ran.error) == ("failed", "before\n", "IndexError: list index out of range")
    assert ran.stderr.startswith('Traceback (most recent call last):\n  File "<program>", line 5, in <module>\n')
    assert "return [1][5]" in ran.stderr
    assert ran.stderr.endswith("IndexError: list index out of range\n")


def test_a_syntax_error_is_a_failure_with_its_line(shared: Sandbox) -> None:
    ran = run(shared, "print('never')\nx = = 1\n")
    assert (ran.outcome, ran.stdout, ran.error) == ("failed", "", "SyntaxError: invalid syntax")
    assert "x = = 1" in ran.stderr


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("assert False, 'first\\nsecond'", "AssertionError: first"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "E: <exception str() failed>"),
        ("raise ExceptionGroup('both', [ValueError(1), KeyError(2)])", "ExceptionGroup: both (2 sub-exceptions)"),
    ],
)
def test_errors_are_one_line(shared: Sandbox, source: str, error: str) -> None:
    ran = run(shared, source)
    assert ran.outcome == "failed"
    assert ran.error is not None
    assert ran.error.endswith(error)
    assert "\n" not in ran.error


def test_the_standard_library_is_there(shared: Sandbox) -> None:
    names = "json re math itertools collections typing hashlib decimal heapq datetime random asyncio unittest zoneinfo"
    names += (
        " dataclasses fractions statistics functools string bisect copy subprocess threading multiprocessing ctypes"
    )
    source = "\n".join(f"import {name}" for name in names.split())
    source += """
from dataclasses import dataclass
@dataclass
class Point:
    x: "int"
async def later():
    await asyncio.sleep(0)
    return hashlib.sha256(b"x").hexdigest()
if __name__ == "__main__":
    print(Point(1), asyncio.run(later())[:8], json.dumps(sorted({"b", "a"})), sys.version_info[:2])
"""
    ran = run(shared, f"import sys\n{source}")
    assert ran.error is None
    assert ran.stdout == f"""Point(x=1) 2d711642 ["a", "b"] {sys.version_info[:2]}\n"""


def test_the_scratch_folder_can_be_used(shared: Sandbox) -> None:
    ran = run(
        shared,
        """
        import os, tempfile
        from pathlib import Path
        Path("a").write_text("hello")
        print(Path("a").read_text(), os.getcwd(), os.listdir(), Path.home())
        with tempfile.NamedTemporaryFile() as file:
            print(os.path.dirname(file.name), len(os.listdir()))
        """,
    )
    assert ran.stdout == "hello /tmp ['a'] /tmp\n/tmp 2\n"


def test_threads_and_processes_can_be_used(shared: Sandbox) -> None:
    ran = run(
        shared,
        """
        import multiprocessing, subprocess, sys
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(3) as pool:
            print(list(pool.map(abs, [-1, -2])))
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(abs, [-3, -4]))
        print(subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True, text=True).stdout)
        """,
    )
    assert (ran.error, ran.stdout) == (None, "[1, 2]\n[3, 4]\n5\n\n")


def test_same_program_same_output(shared: Sandbox) -> None:
    source = "print({str(n) for n in range(100)}, hash('a'))"
    first = run(shared, source)
    sandbox = Sandbox()
    second = run(sandbox, source)
    asyncio.run(sandbox.close())
    assert first.stdout == second.stdout


def test_standard_input_can_be_empty_or_huge(shared: Sandbox) -> None:
    assert run(shared, "input()").error == "EOFError: EOF when reading a line"
    ran = run(shared, "import sys\nprint(sum(map(int, sys.stdin)))", stdin="1\n" * 5_000_000)
    assert ran.stdout == "5000000\n"


def test_the_source_can_be_huge(shared: Sandbox) -> None:
    assert run(shared, "# comment\n" * 500_000 + "print('end')").stdout == "end\n"


@pytest.mark.parametrize("source", ["print('\udc80')", "\udfff = 1", "a = 1\0", "\ufeff\ufeff", "(" * 100_000])
def test_source_that_is_no_program_is_a_failure(shared: Sandbox, source: str) -> None:
    assert run(shared, source).outcome == "failed"


def test_input_may_hold_lone_surrogates(shared: Sandbox) -> None:
    assert run(shared, "import sys\nprint(len(sys.stdin.buffer.read()))", stdin="\ud800").stdout == "3\n"


def test_a_future_import_of_ours_is_not_inherited(shared: Sandbox) -> None:
    assert run(shared, "def f(x: int): pass\nprint(f.__annotations__)").stdout == "{'x': <class 'int'>}\n"


def test_output_that_is_no_text_is_replaced(shared: Sandbox) -> None:
    ran = run(shared, r"import os; os.write(1, b'a\xffb'); os.write(2, b'\xc3')")
    assert (ran.outcome, ran.stdout, ran.stderr) == ("ok", "a\ufffdb", "\ufffd")


def test_many_programs_at_once(shared: Sandbox) -> None:
    async def many() -> list[Execution]:
        return await asyncio.gather(*(shared.run(f"print({n}, input())", stdin=str(n)) for n in range(40)))

    assert [ran.stdout for ran in asyncio.run(many())] == [f"{n} {n}\n" for n in range(40)]
    gone(shared)


def test_not_more_at_once_than_workers(available: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(workers=2)
    inner = sandbox._run
    running = most = 0

    async def counted(loop: asyncio.AbstractEventLoop, source: str, stdin: str) -> Execution:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await inner(loop, source, stdin)
        finally:
            running -= 1

    async def many() -> None:
        await asyncio.gather(*(sandbox.run("pass") for _ in range(6)))
        await sandbox.close()

    monkeypatch.setattr(sandbox, "_run", counted)
    asyncio.run(many())
    assert most == 2


def test_a_sandbox_outlives_loops_and_closing(available: None) -> None:
    sandbox = Sandbox()
    assert run(sandbox, "print(1)").stdout == "1\n"
    process = server(sandbox)
    assert run(sandbox, "print(2)").stdout == "2\n"
    assert server(sandbox) == process
    asyncio.run(sandbox.close())
    asyncio.run(sandbox.close())
    assert not Path(f"/proc/{process}").exists()
    assert run(sandbox, "print(3)").stdout == "3\n"
    asyncio.run(sandbox.close())


def test_a_sandbox_outlives_the_thread_that_started_it(available: None) -> None:
    sandbox = Sandbox()
    thread = threading.Thread(target=run, args=(sandbox, "pass"))
    thread.start()
    thread.join()
    process = server(sandbox)
    assert run(sandbox, "print(1)").stdout == "1\n"
    assert server(sandbox) == process
    asyncio.run(sandbox.close())


def test_no_descriptor_is_left_open(available: None) -> None:
    async def use() -> None:
        sandbox = Sandbox(Limits(seconds=0.3))
        for source in ("pass", "1/0", "while True: pass", "while True: print('x' * 1000)"):
            await sandbox.run(source)
        running = asyncio.create_task(sandbox.run("while True: pass"))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        await sandbox.close()

    gc.collect()
    before = os.listdir("/proc/self/fd")
    asyncio.run(use())
    assert len(os.listdir("/proc/self/fd")) == len(before)


# Limits


@pytest.mark.parametrize("source", ["while True: pass", "import time; time.sleep(1000)"])
def test_the_deadline(available: None, source: str) -> None:
    ran = limited(f"print('begun', flush=True)\n{source}", Limits(seconds=1.5))
    assert (ran.outcome, ran.stdout, ran.error) == ("timeout", "begun\n", "killed after 1.5 s")
    assert ran.seconds >= 1.5


def test_processor_time(available: None) -> None:
    ran = limited("while True: pass", Limits(seconds=50, cpu_seconds=1))
    assert (ran.outcome, ran.error) == ("timeout", "killed after 1 s of CPU time")


def test_processor_time_of_a_program_that_ignores_the_signal(available: None) -> None:
    source = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    ran = limited(source, Limits(seconds=50, cpu_seconds=1))
    assert (ran.outcome, ran.error) == ("failed", "killed by signal 9 (Killed)")


def test_memory_of_one_process(shared: Sandbox) -> None:
    ran = run(shared, "print(len(bytearray(300 << 20)))\nbytearray(600 << 20)")
    assert (ran.outcome, ran.stdout, ran.error) == ("failed", f"{300 << 20}\n", "MemoryError")


def test_memory_of_many_processes(available: None) -> None:
    source = """
        import os, signal
        reading, writing = os.pipe()
        made = 0
        while True:
            try:
                child = os.fork()
            except OSError:
                break
            if child == 0:
                try:
                    bytearray(200 << 20)
                    os.write(writing, b"y")
                except MemoryError:
                    os.write(writing, b"n")
                signal.pause()
            made += 1
        print(*(os.read(reading, 1) for _ in range(made)))
    """
    ran = limited(source, Limits(memory_mb=128, processes=4))
    assert (ran.outcome, ran.stdout) == ("ok", "b'n' b'n' b'n'\n")


def test_memory_that_no_limit_counts(shared: Sandbox) -> None:
    refused(
        shared,
        """
        import mmap
        attempt("memfd", lambda: os.memfd_create("m"))
        attempt("shm", lambda: called(libc.shmget(0, 1 << 30, 0o1600)))
        attempt("message queue", lambda: called(libc.msgget(0, 0o1600)))
        attempt("mapping", lambda: mmap.mmap(-1, 1 << 30))
        ADD_KEY = 248 if os.uname().machine == "x86_64" else 217
        attempt("key", lambda: called(libc.syscall(ADD_KEY, b"user", b"k", b"v", 1, -3)))
        """,
        5,
    )


def test_fork_bomb(available: None) -> None:
    async def bomb() -> None:
        sandbox = Sandbox(Limits(seconds=2), workers=1)
        bombing = asyncio.create_task(
            sandbox.run("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass")
        )
        most = 0
        while not bombing.done():
            await asyncio.sleep(0.05)
            if sandbox._server is not None:
                most = max(most, len(below(server(sandbox))))
        assert (await bombing).outcome == "timeout"
        gone(sandbox)
        assert 5 < most <= 8 + 3  # with the server, the watcher and init
        assert (await sandbox.run("print('alive')")).stdout == "alive\n"
        await sandbox.close()

    asyncio.run(bomb())


def test_number_of_processes_and_threads(shared: Sandbox) -> None:
    forks = """
        import os, signal
        made = 0
        try:
            while True:
                if os.fork() == 0:
                    signal.pause()
                made += 1
        except OSError:
            print(made)
    """
    assert run(shared, forks).stdout == "7\n"
    threads = """
        import threading
        made = 0
        try:
            while True:
                threading.Thread(target=threading.Event().wait, daemon=True).start()
                made += 1
        except RuntimeError:
            print(made)
    """
    assert run(shared, threads).stdout == "7\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output(shared: Sandbox, stream: str) -> None:
    ran = run(shared, f"import sys\nwhile True:\n    print('x' * 999, file=sys.{stream})")
    assert (ran.outcome, ran.error) == ("failed", f"wrote more than 64 kB to {stream}")
    assert len(getattr(ran, stream)) == 64 * 1024


def test_output_up_to_the_limit(shared: Sandbox) -> None:
    exact = run(shared, "print('x' * (64 * 1024), end='')")
    assert (exact.outcome, len(exact.stdout)) == ("ok", 64 * 1024)
    more = run(shared, "print('x' * (64 * 1024 + 1), end='')")
    assert (more.outcome, len(more.stdout)) == ("failed", 64 * 1024)


def test_filling_the_disk(shared: Sandbox) -> None:
    ran = run(
        shared,
        """
        import os
        written = 0
        for number in range(10):
            try:
                with open(f"/dev/shm/{number}", "wb", buffering=0) as file:
                    while True:
                        written += file.write(bytes(1 << 20))
            except OSError as cause:
                print(type(cause).__name__)
        print(written >> 20, len(os.listdir("/tmp")))
        """,
    )
    assert ran.stdout == "OSError\n" * 10 + "16 10\n"
    folders = """
        import os
        try:
            for number in range(10**6):
                os.mkdir(str(number))
        except OSError as cause:
            print(cause.strerror, number < 5000)
    """
    assert run(shared, folders).stdout == "No space left on device True\n"
    again = run(shared, "import os\nprint(os.listdir(), open('full', 'wb').write(bytes(15 << 20)))")
    assert again.stdout == f"[] {15 << 20}\n"


def test_one_file_is_not_larger_than_the_folder(shared: Sandbox) -> None:
    source = "with open('sparse', 'wb') as file:\n    file.truncate(17 << 20)"
    assert run(shared, source).error == "OSError: [Errno 27] File too large"


def test_limits_cannot_be_raised(shared: Sandbox) -> None:
    refused(
        shared,
        """
        import resource
        for name in ("AS", "CPU", "NPROC", "FSIZE", "CORE", "NOFILE", "MEMLOCK"):
            number = getattr(resource, f"RLIMIT_{name}")
            soft, hard = resource.getrlimit(number)
            assert hard >= 0
            attempt(name, lambda: resource.setrlimit(number, (soft, hard + 1)))
            attempt(name, lambda: resource.setrlimit(number, (-1, -1)))
            attempt(name, lambda: resource.prlimit(0, number, (hard + 1, hard + 1)))
        attempt("nice", lambda: os.nice(-1))
        attempt("many files", lambda: [open("/dev/null") for _ in range(100)])
        attempt("oom", lambda: open("/proc/self/oom_score_adj", "w"))
        """,
        24,
    )


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError('x' * 10_000_000)",
        "import sys; sys.exit('x' * 10_000_000)",
        "raise type('x' * 10_000_000, (Exception,), {})",
        "class E(Exception):\n    def __str__(self): return 'x' * (1 << 40)\nraise E",
        "class E(Exception):\n    def __repr__(self): return 'x' * 10_000_000\n    __str__ = __repr__\nraise E",
    ],
)
def test_huge_values_stay_inside(shared: Sandbox, source: str) -> None:
    ran = run(shared, source)
    assert ran.outcome == "failed"
    assert ran.error is not None
    assert len(ran.error) <= 500
    assert len(ran.stderr) <= 64 * 1024


def test_limits_that_make_no_sense_are_refused(available: None) -> None:
    with pytest.raises(ValueError, match="memory_mb must be more than 0 and finite, not 0"):
        Limits(memory_mb=0)
    with pytest.raises(ValueError, match="seconds must be more than 0 and finite, not nan"):
        Limits(seconds=float("nan"))
    with pytest.raises(ValueError, match="seconds must be more than 0 and finite, not inf"):
        Limits(cpu_seconds=float("inf"))
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        Sandbox(workers=0)


# The end of the source


@pytest.mark.parametrize(
    "source",
    [
        "import atexit, time; atexit.register(time.sleep, 1000)",
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()",
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
        "import os, time\nif os.fork() == 0:\n    time.sleep(1000)",
        "import atexit, os; atexit.register(os._exit, 3)",
        "import sys; sys.stdout.close(); sys.stderr = None",
        "import os; os.closerange(0, 3)",
    ],
)
def test_what_comes_after_the_end_does_not_matter(available: None, source: str) -> None:
    ran = limited(source, Limits(seconds=1000))  # longer than a test may take
    assert (ran.outcome, ran.error) == ("ok", None)


def test_what_is_said_after_the_end_is_kept(shared: Sandbox) -> None:
    source = "import atexit, threading\natexit.register(print, 'bye')\nthreading.Timer(0.05, print, ['late']).start()"
    assert run(shared, source).stdout == "late\nbye\n"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import sys; sys.exit(0)", "exited with 0 before its end"),
        ("import sys; sys.exit()", "exited with 0 before its end"),
        ("raise SystemExit('why')", "exited with 1 before its end"),
        ("import os; os._exit(0)", "exited with 0 before its end"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9 (Killed)"),
        ("import os; os.abort()", "killed by signal 6 (Aborted)"),
        ("import os, sys; os.execv(sys.executable, [sys.executable, '-c', ''])", "exited with 0 before its end"),
        ("import os\nif os.fork():\n    os.wait()\n    os._exit(0)", "exited with 0 before its end"),
        ("import os\nif os.fork():\n    os.wait()\n    raise ValueError", "ValueError"),
        ("import atexit, sys; atexit.register(print, 'x'); sys.exit(0)", "exited with 0 before its end"),
        ("import sys\ntry:\n    assert False\nfinally:\n    sys.exit(0)", "exited with 0 before its end"),
        ("import os; os.closerange(0, 100); os._exit(0)", "exited with 0 before its end"),
        ("import ctypes; ctypes.string_at(0)", "killed by signal 11 (Segmentation fault)"),
    ],
)
def test_what_ends_early_has_failed(shared: Sandbox, source: str, error: str) -> None:
    ran = run(shared, f"{source}\nprint('the end')")
    assert (ran.outcome, ran.error) == ("failed", error)


@pytest.mark.parametrize("junk", [b"ok", b"+", bytes(16), b"+" * 33, b'{"outcome": "ok", "error": null, "seconds": 0}'])
def test_success_is_not_forged_by_guessing(shared: Sandbox, junk: bytes) -> None:
    source = f"""
        import os
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, {junk!r})
            except OSError:
                pass
        os._exit(0)
    """
    assert run(shared, source).outcome == "failed"


def test_what_success_is_told_with_does_not_lie_around(shared: Sandbox) -> None:
    ran = run(
        shared,
        """
        import gc, os, sys
        found = set()

        def collect(value, depth):
            if isinstance(value, bytes) and len(value) == 16:
                found.add(value)
            elif depth and type(value) in (tuple, list):
                for each in value:
                    collect(each, depth - 1)
            elif depth and type(value) is dict:
                for each in list(value.values()):
                    collect(each, depth - 1)

        frame = sys._getframe()
        while frame is not None:
            collect(dict(frame.f_locals), 3)
            collect(dict(frame.f_globals), 3)
            frame = frame.f_back
        for thing in gc.get_objects():
            collect(thing, 1)
            if type(thing).__name__ == "partial":
                collect(thing.args, 2)
        told = os.write

        def write(descriptor, data):  # called when all is over
            print(len(data), data in found, flush=True)
            return told(descriptor, data)

        os.write = write
        """,
    )
    assert (ran.outcome, ran.stdout) == ("ok", "16 False\n")


# Ways out


def test_network(shared: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(10)
        datagrams.sendto(b"x", datagrams.getsockname())
        assert datagrams.recv(1) == b"x"
        port, other = listener.getsockname()[1], datagrams.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()  # the host can
        listener.accept()[0].close()
        refused(
            shared,
            f"""
            import socket, urllib.request
            attempt("tcp", lambda: socket.create_connection(("127.0.0.1", {port}), timeout=5))
            attempt("tcp6", lambda: socket.create_connection(("::1", {port}), timeout=5))
            attempt("outside", lambda: socket.create_connection(("192.0.2.1", 80), timeout=5))
            attempt("udp", lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {other})))
            attempt("raw", lambda: socket.socket(type=socket.SOCK_RAW))
            attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
            attempt("vsock", lambda: socket.socket(socket.AF_VSOCK))
            attempt("url", lambda: urllib.request.urlopen("http://127.0.0.1:{port}", timeout=5))
            """,
            9,
        )
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        datagrams.setblocking(False)
        with pytest.raises(BlockingIOError):
            datagrams.recv(1)


def test_names_of_the_network(shared: Sandbox) -> None:
    assert socket.getaddrinfo("localhost", 80)
    refused(
        shared,
        """
        import socket
        attempt("dns", lambda: socket.getaddrinfo("example.com", 80))
        attempt("localhost", lambda: socket.gethostbyname("localhost"))
        """,
        2,
    )


def test_the_network_namespace_is_empty_too(shared: Sandbox) -> None:
    """The refusal of sockets is not all that stands between programs and the network."""
    run(shared, "pass")
    (pid, *_) = sorted(below(server(shared)))
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def test_every_program_has_a_network_namespace_of_its_own(available: None) -> None:
    def namespaces(sandbox: Sandbox) -> set[str]:
        names = set()
        for pid in below(server(sandbox)):
            with contextlib.suppress(OSError):
                names.add(os.readlink(f"/proc/{pid}/ns/net"))
        return names

    async def both() -> None:
        sandbox = Sandbox(workers=3)
        sleep = "import time; time.sleep(1000)"
        running = [asyncio.create_task(sandbox.run(sleep)) for _ in range(2)]
        running.append(asyncio.create_task(sandbox.test(sleep, ["pass"])))
        await until(lambda: sandbox._server is not None and len(namespaces(sandbox)) == 4)  # the server's is one
        await sandbox.close()
        await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(both())


def test_sockets_without_a_network(shared: Sandbox, marker: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{marker}")
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"\0{marker}")  # the host can
        refused(
            shared,
            f"""
            import socket
            attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0{marker}"))
            attempt("datagrams", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
            attempt("other pair", lambda: socket.socketpair(30))
            """,
            3,
        )


def test_environment_and_files_of_the_host(
    shared: Sandbox, marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTTHINK_SECRET", marker)
    monkeypatch.chdir(tmp_path)
    (tmp_path / marker).write_text(marker)
    sandbox = Sandbox()  # started with the secret in its environment
    ran = run(
        sandbox,
        f"""
        import os, sys
        print(sorted(os.environ))
        names = []
        for top, folders, files in os.walk("/"):
            names += folders + files
            if top in ("/usr", "/", sys.prefix):  # not into the libraries
                folders[:] = [name for name in folders if not name.startswith("lib")]
        print("ld.so.cache" in names, "{marker}" in names)
        for path in ({str(tmp_path / marker)!r}, "/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc/hosts"):
            print(os.path.exists(path))
        """,
    )
    asyncio.run(sandbox.close())
    assert Path("/etc/passwd").exists()
    assert ran.stdout == "['HOME', 'LANG', 'PATH', 'PWD', 'PYTHONHASHSEED']\nTrue False\n" + "False\n" * 5


def test_home(shared: Sandbox) -> None:
    home = Path("~").expanduser()
    assert list(home.iterdir())
    ran = run(shared, f"import os\nprint(os.listdir({str(home)!r}) if os.path.exists({str(home)!r}) else [])")
    base = Path(sys.base_prefix)
    allowed = [base.relative_to(home).parts[0]] if base.is_relative_to(home) else []  # where Python itself lies
    assert ran.stdout == f"{allowed}\n"


def test_little_is_to_be_seen(shared: Sandbox) -> None:
    ran = run(shared, "import os\nprint(sorted(os.listdir('/')), os.listdir('/etc'), sorted(os.listdir('/dev')))")
    top = {Path(sys.base_prefix).parts[1], "usr", "lib", "lib64", "etc", "dev", "proc", "tmp"}
    seen, etc, devices = re.findall(r"\[.*?\]", ran.stdout)
    assert set(re.findall(r"'(.*?)'", seen)) <= top
    assert etc in ("[]", "['ld.so.cache']")
    assert devices == "['full', 'null', 'random', 'shm', 'urandom', 'zero']"


def test_writing_outside(shared: Sandbox) -> None:
    library = Path(os.__file__).parent
    before = library.stat().st_mtime_ns
    refused(
        shared,
        f"""
        import shutil
        library = os.path.dirname(os.__file__)
        here = {str(Path.cwd())!r}
        for folder in ("/", "/usr", "/usr/lib", "/etc", "/dev", "/proc", "/lib", library, sys.prefix, here):
            attempt("create " + folder, lambda: open(os.path.join(folder, "written"), "w"))
            attempt("folder " + folder, lambda: os.mkdir(os.path.join(folder, "made")))
        attempt("change", lambda: open(os.__file__, "a"))
        attempt("remove", lambda: os.remove(os.__file__))
        attempt("remove", lambda: os.rename("/usr", "/other"))
        attempt("mode", lambda: os.chmod(os.__file__, 0o777))
        attempt("times", lambda: os.utime(os.__file__))
        attempt("link", lambda: os.link(os.__file__, "/tmp/link"))
        attempt("truncate", lambda: os.truncate(os.__file__, 0))
        attempt("attribute", lambda: os.setxattr(os.__file__, "user.x", b"x"))
        """,
        28,
    )
    assert library.stat().st_mtime_ns == before


def test_python_cannot_be_written_even_where_it_is_ours(shared: Sandbox) -> None:
    """The mounts are read-only, not only closed to this user."""
    run(shared, "pass")
    pid = max(below(server(shared)))
    mounts = Path(f"/proc/{pid}/mounts").read_text().splitlines()
    writable = {line.split()[1] for line in mounts if "rw" in line.split()[3].split(",")}
    assert {path for path in writable if not path.startswith("/dev/")} <= {"/proc"}  # covered for programs


def test_signals_to_those_above(shared: Sandbox) -> None:
    run(shared, "pass")
    process = server(shared)
    ran = run(
        shared,
        ATTEMPT
        + f"""
import signal
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
    for target in (os.getppid(), 1, -1, -os.getppid()):
        attempt("kill", lambda: os.kill(target, number))
for target in ({os.getpid()}, {process}):
    try:
        os.kill(target, 0)
        print("found")
    except ProcessLookupError:
        print("no such process")
print("end")
""",
    )
    assert ran.outcome == "ok"
    assert ran.stdout.endswith("no such process\nno such process\nend\n")
    assert run(shared, "print('next')").stdout == "next\n"
    assert server(shared) == process


def test_no_process_survives_the_end(shared: Sandbox, marker: str) -> None:
    ran = run(shared, sleeper(marker))
    assert ran.outcome == "ok", ran
    assert marked(marker) == []


@pytest.mark.parametrize("ending", ["raise ValueError", "import os; os._exit(0)", "while True: print('x' * 1000)"])
def test_no_process_survives_a_failure(shared: Sandbox, marker: str, ending: str) -> None:
    ran = run(shared, f"{sleeper(marker)}\n{ending}")
    assert ran.outcome == "failed"
    assert marked(marker) == []


def test_no_process_survives_the_deadline(available: None, marker: str) -> None:
    async def late() -> None:
        sandbox = Sandbox(Limits(seconds=6))
        running = asyncio.create_task(sandbox.run(f"{sleeper(marker)}\nimport time; time.sleep(1000)"))
        seen = 0
        while not running.done():
            seen = max(seen, len(marked(marker)))
            await asyncio.sleep(0.02)
        assert (await running).outcome == "timeout"
        assert seen >= 2  # they were to be seen from outside
        assert marked(marker) == []
        await sandbox.close()

    asyncio.run(late())


def test_cancelling_kills_everything(available: None, marker: str) -> None:
    async def cancelled() -> None:
        sandbox = Sandbox(Limits(seconds=1000, cpu_seconds=1000))
        running = asyncio.create_task(sandbox.run(f"{sleeper(marker)}\nwhile True: pass"))
        await until(lambda: len(marked(marker)) >= 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: not marked(marker))
        gone(sandbox)
        assert (await sandbox.run("print(1)")).stdout == "1\n"
        await sandbox.close()

    asyncio.run(cancelled())


def test_closing_kills_everything(available: None, marker: str) -> None:
    async def closed() -> None:
        sandbox = Sandbox(Limits(seconds=1000, cpu_seconds=1000))
        running = asyncio.create_task(sandbox.run(f"{sleeper(marker)}\nwhile True: pass"))
        await until(lambda: len(marked(marker)) >= 2)
        await sandbox.close()
        assert marked(marker) == []
        with pytest.raises(EngineError, match="broke down"):
            await running

    asyncio.run(closed())


def test_nothing_outlives_this_process(available: None, marker: str) -> None:
    source = f"""
import asyncio
from outthink.sandbox import Limits, Sandbox
asyncio.run(Sandbox(Limits(seconds=1000, cpu_seconds=1000)).run({sleeper(marker)!r} + "\\nwhile True: pass"))
"""
    host = subprocess.Popen([sys.executable, "-c", source])
    with host:
        own = {str(host.pid)}
        while len(set(marked(marker)) - own) < 2:
            assert host.poll() is None
            time.sleep(0.02)
        host.kill()
    while marked(marker):
        time.sleep(0.02)


def test_when_the_server_dies_the_next_program_gets_another(available: None) -> None:
    async def killed() -> None:
        sandbox = Sandbox()
        running = asyncio.create_task(sandbox.run("while True: pass"))
        await until(lambda: sandbox._server is not None and len(below(server(sandbox))) == 4)
        os.kill(min(below(server(sandbox))), signal.SIGKILL)
        with pytest.raises(EngineError, match=r"The sandbox broke down .*; try again"):
            await running
        assert (await sandbox.run("print(1)")).stdout == "1\n"
        await sandbox.close()

    asyncio.run(killed())


def test_symbolic_links(shared: Sandbox, tmp_path: Path, marker: str) -> None:
    target = tmp_path / "target"
    target.write_text(marker)
    refused(
        shared,
        f"""
        paths = ("/etc/passwd", "/proc/1/root", "/proc/self/cwd/..", {str(target)!r}, "../../../../etc/passwd")
        for number, path in enumerate(paths):
            os.symlink(path, str(number))
            attempt(path, lambda: os.stat(str(number)))
            attempt(path, lambda: open(str(number)).read())
        os.symlink({str(tmp_path)!r}, "folder")
        attempt("write", lambda: open("folder/target", "w"))
        """,
        11,
    )
    assert target.read_text() == marker


def test_proc(shared: Sandbox) -> None:
    assert Path("/proc/self/environ").exists()
    refused(
        shared,
        """
        for path in ("1/environ", "1/root", "self/environ", "self/mem", "1/cmdline", "sys/kernel", "cpuinfo", "mounts"):
            attempt(path, lambda: os.stat("/proc/" + path))
        attempt("write", lambda: open("/proc/sys/kernel/hostname", "w"))
        attempt("sysrq", lambda: open("/proc/sysrq-trigger", "w"))
        attempt("mount", lambda: called(libc.mount(b"proc", b"/tmp", b"proc", 0, None)))
        attempt("uncover", lambda: called(libc.umount2(b"/proc", 2)))
        """,
        12,
    )


def test_ptrace(shared: Sandbox) -> None:
    refused(
        shared,
        """
        attempt("attach", lambda: called(libc.ptrace(16, os.getppid(), None, None)))
        attempt("seize", lambda: called(libc.ptrace(0x4206, 1, None, None)))
        attempt("myself", lambda: called(libc.ptrace(0, 0, None, None)))
        buffer = (ctypes.c_char * 64)()
        vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64)
        attempt("read", lambda: called(libc.process_vm_readv(1, vector, 1, vector, 1, 0)))
        attempt("write", lambda: called(libc.process_vm_writev(1, vector, 1, vector, 1, 0)))
        """,
        5,
    )


def test_namespaces_and_mounts(shared: Sandbox) -> None:
    refused(
        shared,
        """
        USER, MOUNT, PID, NET = 0x10000000, 0x20000, 0x20000000, 0x40000000
        CLONE = 56 if os.uname().machine == "x86_64" else 220
        for flags in (USER, MOUNT, PID, NET, USER | MOUNT):
            attempt("unshare", lambda: called(libc.unshare(flags)))
            attempt("clone", lambda: called(libc.syscall(CLONE, flags | 17, 0, 0, 0, 0)))
        attempt("clone3", lambda: called(libc.syscall(435, bytes(64), 64)))
        attempt("setns", lambda: called(libc.setns(0, 0)))
        attempt("mount", lambda: called(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)))
        attempt("remount", lambda: called(libc.mount(b"none", b"/", None, 32, None)))
        attempt("bind", lambda: called(libc.mount(b"/usr", b"/tmp", None, 4096, None)))
        attempt("unmount", lambda: called(libc.umount2(b"/tmp", 2)))
        attempt("chroot", lambda: os.chroot("/tmp"))
        attempt("pivot", lambda: called(libc.syscall(155 if CLONE == 56 else 41, b"/tmp", b"/tmp")))
        attempt("hostname", lambda: called(libc.sethostname(b"x", 1)))
        attempt("new mounts", lambda: called(libc.syscall(430, b"tmpfs", 0)))
        """,
        20,
    )


def test_the_kernel_at_large(shared: Sandbox) -> None:
    refused(
        shared,
        """
        x86 = os.uname().machine == "x86_64"
        for number in (425, 323 if x86 else 282, 321 if x86 else 280):
            attempt("io_uring, userfaultfd, bpf", lambda: called(libc.syscall(number, 1, bytes(200), 0)))
        attempt("log", lambda: called(libc.klogctl(3, (ctypes.c_char * 100)(), 100)))
        attempt("clock", lambda: __import__("time").clock_settime(0, 1.0))
        attempt("reboot", lambda: called(libc.reboot(0)))
        attempt("module", lambda: called(libc.syscall(175 if x86 else 105, b"", 0, b"")))
        attempt("inotify", lambda: called(libc.inotify_init1(0)))
        """,
        8,
    )


def test_no_rights_are_left(shared: Sandbox) -> None:
    ran = run(
        shared,
        ATTEMPT
        + LIBC
        + """
rights = ctypes.create_string_buffer(24)
called(libc.capget((0x20080522).to_bytes(4, sys.byteorder) + bytes(4), rights))
print(rights.raw == bytes(24), libc.prctl(39, 0, 0, 0, 0), libc.prctl(21, 0, 0, 0, 0))
print(os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups())
""",
    )
    assert ran.stdout == "True 1 2\n65534 65534 65534 65534 []\n"  # no capability, no new privileges, filtered


def test_other_users(shared: Sandbox) -> None:
    refused(
        shared,
        """
        attempt("setuid", lambda: os.setuid(0))
        attempt("seteuid", lambda: os.seteuid(0))
        attempt("setreuid", lambda: os.setreuid(0, 0))
        attempt("setgid", lambda: os.setgid(0))
        attempt("setgroups", lambda: os.setgroups([0]))
        attempt("setgroups", lambda: os.setgroups([]))
        attempt("setuid", lambda: os.setuid(1000))
        attempt("chown", lambda: (open("own", "w").close(), os.chown("own", 0, 0)))
        """,
        8,
    )


def test_devices(shared: Sandbox) -> None:
    refused(
        shared,
        """
        import stat
        for name in ("mem", "kmsg", "sda", "vda", "kvm", "tty", "ptmx", "fuse", "loop-control", "net/tun"):
            attempt(name, lambda: os.open("/dev/" + name, os.O_RDONLY))
        attempt("mknod", lambda: os.mknod("disk", stat.S_IFBLK | 0o600, os.makedev(8, 0)))
        attempt("mknod", lambda: os.mknod("mem", stat.S_IFCHR | 0o600, os.makedev(1, 1)))
        """,
        12,
    )


def test_native_code_from_files(shared: Sandbox) -> None:
    refused(
        shared,
        """
        import shutil, subprocess
        shutil.copy(sys.executable, "python")
        attempt("run", lambda: subprocess.run(["./python", "-c", "pass"]))
        attempt("shell", lambda: subprocess.run(["/bin/sh", "-c", "true"]))
        """,
        2,
    )


def test_nothing_leaks_from_one_program_to_the_next(shared: Sandbox) -> None:
    first = """
        import builtins, json, os, sys
        open("left", "w").close()
        open("/dev/shm/left", "w").close()
        os.environ["LEFT"] = "1"
        builtins.left = json.left = sys.left = 1
        sys.path.append("/tmp")
        os.chdir("/")
        print(os.listdir("/tmp"))
    """
    second = """
        import builtins, json, os, sys
        print(os.listdir("."), os.listdir("/dev/shm"), os.getcwd(), "LEFT" in os.environ, "/tmp" in sys.path)
        print([hasattr(each, "left") for each in (builtins, json, sys)])
    """
    assert run(shared, first).stdout == "['left']\n"
    assert run(shared, second).stdout == "[] [] /tmp False False\n[False, False, False]\n"


def test_programs_at_the_same_time_do_not_see_each_other(available: None) -> None:
    source = """
        import os, signal, sys, time
        from pathlib import Path
        Path("mine").write_text("{name}")
        seen = []
        for _ in range(20):
            time.sleep(0.05)
            seen += os.listdir("/tmp")
            for pid in range(1, 100):
                if pid not in (1, os.getpid()):
                    try:
                        os.kill(pid, signal.SIGKILL)
                        seen.append(pid)
                    except ProcessLookupError:
                        pass
        print(set(seen), os.getpid(), Path("mine").read_text())
    """

    async def both() -> list[Execution]:
        sandbox = Sandbox(workers=2)
        try:
            return await asyncio.gather(
                *(sandbox.run(textwrap.dedent(source).replace("{name}", name)) for name in ("a", "b"))
            )
        finally:
            await sandbox.close()

    assert [ran.stdout for ran in asyncio.run(both())] == ["{'mine'} 2 a\n", "{'mine'} 2 b\n"]


def test_open_files_are_not_inherited(shared: Sandbox, tmp_path: Path, marker: str) -> None:
    path = tmp_path / "open"
    path.write_text(marker)
    with path.open() as file:
        os.set_inheritable(file.fileno(), True)
        sandbox = Sandbox()  # started while it is open
        ran = run(
            sandbox,
            """
            import os, stat
            for descriptor in range(1024):
                try:
                    mode = os.fstat(descriptor).st_mode
                except OSError:
                    continue
                kind = "file" if stat.S_ISREG(mode) else "pipe" if stat.S_ISFIFO(mode) else "other"
                try:
                    print(descriptor, kind, os.read(descriptor, 100) if descriptor != 0 else b"")
                except OSError:
                    print(descriptor, kind, "cannot be read")
            try:
                os.write(0, b"x")
            except OSError:
                print("cannot be written")
            """,
        )
        asyncio.run(sandbox.close())
    closed = "cannot be read\n"
    assert ran.stdout == f"0 file b''\n1 pipe {closed}2 pipe {closed}3 pipe {closed}cannot be written\n"


def test_files_that_are_passed_cannot_be_changed(shared: Sandbox) -> None:
    ran = run(shared, "import os\nos.ftruncate(0, 0)", stdin="x")
    assert ran.error == "PermissionError: [Errno 1] Operation not permitted"


# Where there is no sandbox


@pytest.fixture
def unprobed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module._probe.cache_clear()
    yield
    module._probe.cache_clear()


@pytest.mark.usefixtures("unprobed")
def test_without_bubblewrap_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingResource, match=r"^Running code needs bubblewrap: apt-get install bubblewrap"):
        Sandbox()


@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize(
    "body",
    [
        "echo 'bwrap: No permissions to create new namespace' >&2; exit 1",
        "read -r line; echo 'bwrap: No permissions to create new namespace' >&2; exit 1",
    ],
)
def test_without_namespaces_it_says_how_to_allow_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\n{body}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(MissingResource, match=r"No permissions to create new namespace.*allow user namespaces"):
        Sandbox()


@pytest.mark.usefixtures("unprobed")
def test_a_bubblewrap_that_confines_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text('#!/bin/sh\nwhile [ "${1#*/bin/python}" = "$1" ]; do shift; done\nexec "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(MissingResource, match="Running code needs what is refused here"):
        Sandbox()


@pytest.mark.usefixtures("available")
def test_nothing_runs_when_bubblewrap_goes_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sandbox = Sandbox()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingResource):
        asyncio.run(sandbox.run("print(1)"))


def test_importing_is_light() -> None:
    source = "import sys, outthink.sandbox; print({'numpy', 'pydantic', 'scipy', 'ctypes'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", source], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.usefixtures("available")
def test_the_examples_of_the_page_run() -> None:
    page = Path(__file__).parents[2] / "docs" / "sandbox.md"
    space: dict[str, object] = {"__name__": "example"}
    examples = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "example", "exec"), space)
