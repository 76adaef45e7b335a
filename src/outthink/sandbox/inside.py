"""What runs inside the sandbox: starts the programs, watches them and ends them.

`outthink.sandbox` gives the texts of this file, `peer.py` and `tester.py` to a Python that bubblewrap has already cut
off from the network and the disk. That Python loads what programs often import and then forks for every program, so
that starting one costs less than starting Python. Four processes stand above one another:

    the server       reads requests from the socket that is its standard input, and forks a watcher for each
    └── the watcher  makes user, mount, process and network namespaces for one program; ends all that is in them at the
        │            deadline or when the other side hangs up; reports what became of the program
        └── init     the first process of these namespaces; all others die with it
            └── the program, without any right, under its limits

The program can neither see nor signal the watcher, which is outside of its namespaces, and it may not trace init,
which has rights that it lacks. Where there are tests, the tester is in the place of init, and the program lives below
it, in a namespace of processes of its own:

        └── the tester   reads the tests once the program is another process, runs them, and says what has passed
            └── the program   imported, not run as the main module; does what the tester asks for

So the program shares neither memory nor descriptors nor process numbers with its tests. Only the standard library is
imported here.
"""

from __future__ import annotations
import __future__

import atexit
import builtins
import collections
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import linecache
import math
import operator
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
import warnings
from typing import Any, NoReturn

from outthink.sandbox.peer import Gone, Late, Peer
from outthink.sandbox.tester import line_of, run_tests

# loaded once for all programs
OFTEN = ("bisect", "collections", "copy", "datetime", "functools", "heapq", "itertools", "json", "math", "operator",
         "random", "re", "string", "typing")  # fmt: skip
SCRATCH = "/tmp"
NOBODY = 65534
SAID = 3  # the descriptor on which the program's process, or that of its tests, reports
CHANNEL = 4  # the descriptor on which the tests talk with the program
GRACE = 1.0  # seconds that a program has for its threads and its cleaning up after its source has ended
FILES = 64  # open files of one process
NODES = 4096  # files and folders in the scratch folder
MEGA = 1024 * 1024

NEW_PROCESSES = 0x20000000  # CLONE_NEWPID
NEW_NAMESPACES = 0x10000000 | 0x20000 | 0x40000000 | NEW_PROCESSES  # CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
READ_ONLY, NO_SUID, NO_DEV, NO_EXEC = 1, 2, 4, 8

# What a process without rights could still call to get around a limit (memory that no limit counts) or a namespace, and
# what opens much of the kernel to no use. Sockets are among them: those between a virtual machine and its host are not
# bound to any network namespace. Pairs of sockets are left; they can be given no names.
REFUSED = {
    "x86_64": {
        "socket": 41, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "memfd_create": 319,
        "memfd_secret": 447, "add_key": 248, "request_key": 249, "keyctl": 250, "ptrace": 101,
        "process_vm_readv": 310, "process_vm_writev": 311, "perf_event_open": 298, "bpf": 321, "userfaultfd": 323,
        "io_uring_setup": 425, "unshare": 272, "setns": 308, "syslog": 103, "inotify_init": 253, "inotify_init1": 294,
        "fanotify_init": 300, "bind": 49, "connect": 42, "listen": 50, "pidfd_open": 434, "pidfd_getfd": 438,
    },
    "aarch64": {
        "socket": 198, "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180, "memfd_create": 279,
        "memfd_secret": 447, "add_key": 217, "request_key": 218, "keyctl": 219, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271, "perf_event_open": 241, "bpf": 280, "userfaultfd": 282,
        "io_uring_setup": 425, "unshare": 97, "setns": 268, "syslog": 116, "inotify_init1": 26,
        "fanotify_init": 262, "bind": 200, "connect": 203, "listen": 201, "pidfd_open": 434, "pidfd_getfd": 438,
    },
}  # fmt: skip
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": 56, "aarch64": 220}
SOCKETPAIR = {"x86_64": 53, "aarch64": 199}
CLONE3 = 435
FIRST, SECOND = 16, 24  # where a filter finds the arguments of a call
X32 = 0x40000000  # a second set of numbers for the same calls, on x86_64

libc = ctypes.CDLL(None, use_errno=True)
FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
leave = os._exit  # bound here: a program may replace the one in os


def checked(result: int, what: str) -> None:
    """Raise what errno says about a call of libc that failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def write(path: str, text: str) -> None:
    """Write a file of /proc in one go."""
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


def serve(limits: dict[str, Any]) -> NoReturn:
    """Fork a watcher for every request until the other side hangs up."""
    if os.geteuid() == 0:  # bubblewrap ran as root; the kernel does not count the processes of root
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        checked(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")  # /proc/self is ours again
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # watchers leave no zombies
    rules = rules_of(os.uname().machine)
    requests = socket.socket(fileno=0)
    for name in OFTEN:
        importlib.import_module(name)
    quitter: Any = importlib.import_module("_sitebuiltins").Quitter  # Python was started without site
    for name in ("exit", "quit"):
        setattr(builtins, name, quitter(name, "Ctrl-D (i.e. EOF)"))
    gc.collect()
    gc.freeze()  # else the first collection in a fork would copy everything
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1, 5)  # "r": run it, "t": test it
        if not message:
            leave(0)
        try:
            child = os.fork()
        except OSError as cause:
            tell(descriptors[-1], {"broken": f"fork: {cause}"})
            child = -1
        if child == 0:
            try:
                watch(descriptors, limits, rules, tests=message == b"t")
            finally:
                leave(0)
        for descriptor in descriptors:
            os.close(descriptor)


def watch(descriptors: list[int], limits: dict[str, Any], rules: bytes, *, tests: bool) -> None:
    """Run one program and report on it; when this process ends, so has everything that the program started."""
    try:
        report = (tested if tests else watched)(descriptors, limits, rules)
    except Exception as cause:
        report = {"broken": f"{type(cause).__name__}: {cause}"}
    tell(descriptors[-1], report)


def tell(status: int, report: dict[str, Any]) -> None:
    """Report to the other side, if it still listens."""
    with contextlib.suppress(OSError):
        os.write(status, json.dumps(report).encode())


def watched(descriptors: list[int], limits: dict[str, Any], rules: bytes) -> dict[str, Any]:
    """The program's namespaces, its processes, and the wait for its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    hangup = descriptors[-1]
    confine(limits)
    said, say = os.pipe()
    ended, end = os.pipe()
    started = time.monotonic()
    init = os.fork()
    if init == 0:
        try:
            checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
            reap(descriptors, limits, rules, say, end)
        finally:
            leave(1)
    os.close(end)
    deadline = started + limits["seconds"]
    words = b""
    listened = [hangup, ended, said]
    late = False
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            late = True
            break
        ready = select.select(listened, [], [], left)[0]
        if said in ready:
            words += os.read(said, 4096)
            if len(words) > 17:  # more than the first word: the source has ended, in one way or the other
                deadline = min(deadline, time.monotonic() + GRACE)
                listened.remove(said)
        if hangup in ready or ended in ready:
            break
    seconds = time.monotonic() - started
    os.kill(init, signal.SIGKILL)
    os.waitpid(init, 0)  # comes back when the last process of its namespace is dead
    if said in select.select([said], [], [], 0)[0]:
        words += os.read(said, 4096)
    status = os.read(ended, 4) if select.select([ended], [], [], 0)[0] else b""
    code = os.waitstatus_to_exitcode(struct.unpack("i", status)[0]) if status else -signal.SIGKILL
    return {**verdict(words, code, late, limits), "seconds": seconds}


def verdict(words: bytes, code: int, late: bool, limits: dict[str, Any]) -> dict[str, Any]:
    """What became of a program, from what its process said and how it ended."""
    first, nonce, last = words[:1], words[1:17], words[17:]
    if first != b"+":
        return {"broken": words[1:].decode("utf-8", "replace") or f"init ended with {code}"}
    if last.startswith(nonce):
        return {"outcome": "ok", "error": None}
    if last:
        return {"outcome": "failed", "error": last.decode("utf-8", "replace")}
    if late:
        return {"outcome": "timeout", "error": f"killed after {limits['seconds']:g} s"}
    if code == -signal.SIGXCPU:
        return {"outcome": "timeout", "error": f"killed after {limits['cpu_seconds']:g} s of CPU time"}
    if code < 0:
        return {"outcome": "failed", "error": f"killed by signal {-code} ({signal.strsignal(-code)})"}
    return {"outcome": "failed", "error": f"exited with {code} before its end"}


def confine(limits: dict[str, Any]) -> None:
    """Move into new namespaces with an empty scratch folder and without /proc; processes forked from now on are in."""
    write("/proc/self/oom_score_adj", "1000")  # where memory runs out, programs go first
    checked(libc.unshare(NEW_NAMESPACES), "unshare")
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{NOBODY} {NOBODY} 1")
    write("/proc/self/gid_map", f"{NOBODY} {NOBODY} 1")
    size = f"size={limits['disk_mb'] * MEGA},nr_inodes={NODES},mode=700"
    plain = NO_SUID | NO_DEV | NO_EXEC
    checked(libc.mount(b"scratch", SCRATCH.encode(), b"tmpfs", plain, size.encode()), "mount")
    checked(libc.mount(b"nothing", b"/proc", b"tmpfs", plain | READ_ONLY, b"size=4k,nr_inodes=1,mode=555"), "mount")
    os.chdir(SCRATCH)


def reap(descriptors: list[int], limits: dict[str, Any], rules: bytes, say: int, end: int) -> NoReturn:
    """Be init: wait for whatever dies; when the program has, say how and end, and everything ends."""
    program = os.fork()
    if program == 0:
        try:
            begin(descriptors, limits, rules, say)
        finally:
            leave(1)
    while True:
        process, status = os.wait()
        if process == program:
            os.write(end, struct.pack("i", status))
            leave(0)


def begin(descriptors: list[int], limits: dict[str, Any], rules: bytes, say: int) -> None:
    """Give up every right for good, then run the program."""
    os.setsid()
    source = read(descriptors[3])
    for target, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, target)
    os.dup2(say, SAID, inheritable=False)
    os.closerange(SAID + 1, 1 << 16)
    try:
        restrict(limits, rules)
    except Exception as cause:
        os.write(SAID, f"-{type(cause).__name__}: {cause}".encode())
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run(source)


def restrict(limits: dict[str, Any], rules: bytes) -> None:
    """Give up every right of this process for good."""
    cpu = max(1, math.ceil(limits["cpu_seconds"]))
    hard = {
        resource.RLIMIT_AS: limits["memory_mb"] * MEGA,
        resource.RLIMIT_FSIZE: limits["disk_mb"] * MEGA,
        resource.RLIMIT_NPROC: limits["processes"] + 2,  # the watcher and init are in the same user namespace
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_CORE: 1,  # with 0, a crash would still go to the host's collector of crashes
        resource.RLIMIT_MEMLOCK: 0,
    }
    for name, value in hard.items():
        limit(name, value, value)
    limit(resource.RLIMIT_CPU, cpu, cpu + 1)  # first a signal that tells why, then the end
    version, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
    checked(libc.capset(version, nothing), "capset")
    pointer = ctypes.create_string_buffer(rules)
    filtering = struct.pack("HxxxxxxP", len(rules) // 8, ctypes.addressof(pointer))
    checked(libc.prctl(PR_SET_SECCOMP, 2, filtering, 0, 0), "prctl")


def limit(name: int, soft: int, hard: int) -> None:
    """Set a limit that cannot be raised again; one that is lower already stays."""
    most = resource.getrlimit(name)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(name, (soft, hard))


def read(descriptor: int) -> bytes:
    """All of a file."""
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


def run(source: bytes) -> None:
    """Run the program in this process, as the main module, and say how its source ended."""
    call: Any = operator.call
    module = new_module("__main__")
    # What is said at the end of the source is not known before, so that nothing looks like it by chance. A program that
    # looks for it in its own memory finds it: whether a program has run to its end is for the program to say. Whether
    # it passes tests is not; see `tested`.
    nonces = [os.urandom(16)]
    os.write(SAID, b"+" + nonces[0])
    status = 1
    try:
        text = source.decode("utf-8", "surrogatepass")
        linecache.cache["<program>"] = (len(text), None, text.splitlines(keepends=True), "<program>")
        code = compile(text, "<program>", "exec", dont_inherit=True)
        steps = [gc.freeze, functools.partial(exec, code, vars(module)), flush]
        del source, text, code
        collections.deque(map(call, [*steps, functools.partial(over, os.getpid(), nonces.pop())]), maxlen=0)
        status = 0
    except SystemExit as cause:
        status = left(cause)
    except BaseException as cause:
        failed(cause)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    flush()
    leave(status)


def new_module(name: str) -> types.ModuleType:
    """The module of the program, and what of this one it should not find by its name."""
    for other in [other for other in sys.modules if other.startswith("outthink")]:
        del sys.modules[other]
    module = sys.modules["__main__"] = sys.modules[name] = types.ModuleType(name)
    module.__file__ = f"{SCRATCH}/{name.strip('_')}.py"
    sys.argv = [""]
    return module


def tested(descriptors: list[int], limits: dict[str, Any], rules: bytes) -> dict[str, Any]:
    """The namespaces of a program and its tests, their processes, and the wait for the last verdict."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    hangup = descriptors[-1]
    confine(limits)
    said, say = os.pipe()
    started = time.monotonic()
    tester = os.fork()
    if tester == 0:
        try:
            checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
            examine(descriptors, limits, rules, say)
        finally:
            leave(1)
    os.close(say)
    deadline = started + limits["seconds"]
    words = b""
    late = False
    while True:
        left = deadline - time.monotonic()
        ready = select.select([hangup, said], [], [], left)[0] if left > 0 else []
        late = not ready
        if late or hangup in ready:
            break
        more = os.read(said, 65536)
        if not more:
            break
        words += more
    seconds = time.monotonic() - started
    os.kill(tester, signal.SIGKILL)
    os.waitpid(tester, 0)  # comes back when the last process of its namespaces is dead
    while more := os.read(said, 65536):
        words += more
    return {**judged(words, late, limits), "seconds": seconds}


def judged(words: bytes, late: bool, limits: dict[str, Any]) -> dict[str, Any]:
    """What became of the tests, from what their process said."""
    said = [json.loads(line) for line in words.split(b"\n")[:-1]]
    broken = [one["broken"] for one in said if "broken" in one]
    if broken:
        return {"broken": broken[0]}
    passed = [one["ok"] for one in said if "ok" in one]
    outcome, error = "failed", next((one["error"] for one in said if one.get("error")), None)
    ended = next((one for one in said if "ended" in one), None)
    if any("over" in one for one in said):
        outcome = "ok" if all(passed) else "failed"
    elif late:
        outcome, error = "timeout", f"killed after {limits['seconds']:g} s"
    elif ended is not None and ended["cpu"] >= math.ceil(limits["cpu_seconds"]):
        outcome, error = "timeout", f"killed after {limits['cpu_seconds']:g} s of CPU time"
    elif ended is not None and ended["ended"] < 0:
        error = f"killed by signal {-ended['ended']} ({signal.strsignal(-ended['ended'])})"
    elif ended is not None:
        error = f"exited with {ended['ended']} before its end"
    else:
        error = error or "its tests have ended before their end"
    return {"outcome": outcome, "error": error, "passed": passed}


def examine(descriptors: list[int], limits: dict[str, Any], rules: bytes, say: int) -> None:
    """Be the tester: start the program below, then read the tests and run them."""
    ours, theirs = (end.detach() for end in socket.socketpair())
    checked(libc.unshare(NEW_PROCESSES), "unshare")
    program = os.fork()
    if program == 0:
        try:
            checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
            answer(descriptors[0], limits, rules, theirs)
        finally:
            leave(1)
    plan = json.loads(read(descriptors[1]))
    own = [os.dup(descriptor) for descriptor in (os.open(os.devnull, os.O_RDWR), say, ours)]
    for target, descriptor in enumerate((own[0], own[0], own[0], own[1], own[2])):
        os.dup2(os.dup(descriptor), target, inheritable=False)
    os.closerange(CHANNEL + 1, 1 << 16)

    def report(fact: dict[str, Any]) -> None:
        os.write(SAID, json.dumps(fact).encode() + b"\n")

    peer = Peer(socket.socket(fileno=CHANNEL), strict=True)
    try:
        restrict(limits, rules)
        first = peer.receive()
        if first[0] != "confined":
            raise OSError(first[1])
    except BaseException as cause:
        report({"broken": f"{type(cause).__name__}: {cause}"})
        return
    try:
        run_tests(peer, plan, report)
        report({"over": True})
    except Gone:
        _, status, used = os.wait4(program, 0)
        report({"ended": os.waitstatus_to_exitcode(status), "cpu": used.ru_utime + used.ru_stime})
    leave(0)


def answer(source: int, limits: dict[str, Any], rules: bytes, channel: int) -> None:
    """Be the program: give up every right, import the source, and do what the tests ask for."""
    os.setsid()
    program = json.loads(read(source))
    null = os.open(os.devnull, os.O_RDWR)
    channel = os.dup(channel)
    for target, descriptor in enumerate((null, null, null, channel)):
        os.dup2(os.dup(descriptor), target, inheritable=target < SAID)
    os.closerange(SAID + 1, 1 << 16)
    peer = Peer(socket.socket(fileno=SAID), strict=False)
    try:
        restrict(limits, rules)
    except Exception as cause:
        peer.send(["broken", f"{type(cause).__name__}: {cause}"])
        return
    peer.send(["confined"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module = new_module("solution")
    try:
        units = compiled(program["prelude"], program["answer"])
        gc.freeze()
        for unit in units:
            exec(unit, vars(module))
    except BaseException as cause:
        peer.send(["failed", line_of(cause)])
        return

    def named(name: str) -> Any:
        if name not in vars(module):
            raise NameError(name)
        return vars(module)[name]

    def late(*_: object) -> None:
        if peer.running:
            raise Late

    signal.signal(signal.SIGVTALRM, late)
    timer: Any = functools.partial(signal.setitimer, signal.ITIMER_VIRTUAL)
    peer.operations |= {"name": named, "timer": lambda seconds: timer(seconds, seconds)}
    flush()
    peer.send(["ready"])
    with contextlib.suppress(Gone):
        peer.serve()
    leave(0)


def compiled(prelude: str, answer: str) -> list[types.CodeType]:
    """The program in pieces that run one after the other; an answer may be a body that the prelude lacks."""

    def piece(text: str, flags: int = 0) -> types.CodeType:
        made: types.CodeType = compile(text, "<program>", "exec", flags, dont_inherit=True)
        return made

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            before = [piece(prelude)]
        except (SyntaxError, ValueError):
            before = []
        flags = before[0].co_flags & FUTURE if before else 0
        try:
            whole = piece(answer, flags)
        except (SyntaxError, ValueError) as cause:
            lines = answer.strip("\n").split("\n")
            deeper = "\n".join(f"    {line}" for line in lines)
            first = "\n".join([f"    {lines[0]}", *lines[1:]])
            margin = min((len(line) - len(line.lstrip(" \t")) for line in lines if line.strip()), default=0)
            moved = "\n".join(f"    {line[margin:]}" for line in lines)
            for body in (answer, deeper, first, moved):
                with contextlib.suppress(SyntaxError, ValueError):
                    return [piece(f"{prelude}\n{body}\n")]
            raise cause
        if not before:
            with contextlib.suppress(SyntaxError, ValueError):
                return [piece(f"{prelude}\n{answer}\n")]
        return [*before, whole]


def over(process: int, nonce: bytes) -> None:
    """Say that the source has run to its end; its forks may come here, too, and do not count."""
    if os.getpid() == process:
        os.write(SAID, nonce)


def left(cause: SystemExit) -> int:
    """Do as Python does when a program exits, and say that it did so before its end."""
    status = cause.code
    if status is None:
        status = 0
    elif not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    flush()
    os.write(SAID, f"exited with {status} before its end".encode())
    return status & 0xFF


def failed(cause: BaseException) -> None:
    """Print the traceback of what ended the program and say its one line."""
    try:
        lines = "".join(traceback.format_exception_only(cause)).strip().splitlines()
        line = lines[-1] if isinstance(cause, SyntaxError) else lines[0]
    except Exception:
        line = type(cause).__name__
    flush()
    os.write(SAID, line[:500].encode("utf-8", "backslashreplace"))
    trace = cause.__traceback__
    traceback.print_exception(cause.with_traceback(trace and trace.tb_next))


def flush() -> None:
    """Write what print has kept back."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the program may have closed it, or put something else in its place
            stream.flush()


def rules_of(machine: str) -> bytes:
    """The calls that the kernel refuses to a program, as a filter for seccomp."""
    if machine not in REFUSED:
        raise OSError(f"programs are run on x86_64 and aarch64 only, not on {machine}")
    load, equal, at_least, any_of, only, give = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
    kill, allow, refuse, unknown = 0x80000000, 0x7FFF0000, 0x50000 | 1, 0x50000 | 38  # EPERM, ENOSYS
    rules = [(load, 0, 0, 4), (equal, 1, 0, ARCHITECTURE[machine]), (give, 0, 0, kill), (load, 0, 0, 0)]
    if machine == "x86_64":
        rules += [(at_least, 0, 1, X32), (give, 0, 0, refuse)]
    for number in REFUSED[machine].values():
        rules += [(equal, 0, 1, number), (give, 0, 0, refuse)]
    # clone3 is unknown, since a filter cannot see its flags; libc then uses clone, which may make no user namespace
    rules += [(equal, 0, 1, CLONE3), (give, 0, 0, unknown)]
    rules += [(equal, 0, 4, CLONE[machine]), (load, 0, 0, FIRST)]
    rules += [(any_of, 0, 1, 0x10000000), (give, 0, 0, refuse), (give, 0, 0, allow)]
    # pairs must be of family AF_UNIX and type SOCK_STREAM, which have no address at which others could reach them
    rules += [(equal, 0, 6, SOCKETPAIR[machine]), (load, 0, 0, FIRST), (equal, 0, 3, 1)]
    rules += [(load, 0, 0, SECOND), (only, 0, 0, 15), (equal, 1, 0, 1), (give, 0, 0, refuse)]
    rules += [(give, 0, 0, allow)]
    return b"".join(struct.pack("HBBI", *rule) for rule in rules)
