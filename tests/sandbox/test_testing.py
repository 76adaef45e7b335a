# ruff: noqa: E501 - programs on one line
"""Tests run apart from the program: what they can do with it, and how programs try to pass without being right."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from outthink.sandbox.host import Execution, Limits, Sandbox
from tests.tools.sandboxed import needs_sandbox

pytestmark = needs_sandbox


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    sandbox = Sandbox(Limits(seconds=15), workers=2)
    yield sandbox
    asyncio.run(sandbox.close())


@pytest.fixture(scope="module")
def hurried() -> Iterator[Sandbox]:
    """For programs that may fail by taking too long as well as in any other way."""
    sandbox = Sandbox(Limits(seconds=2), workers=2)
    yield sandbox
    asyncio.run(sandbox.close())


def examined(sandbox: Sandbox, answer: str, *tests: str, **more: Any) -> Execution:
    return asyncio.run(sandbox.test(textwrap.dedent(answer), [textwrap.dedent(test) for test in tests], **more))


# ---------------------------------------------------------------- what tests can do

RIGHT: dict[str, tuple[str, str]] = {
    "values": (
        "def f(x): return x",
        """
        import collections, datetime, decimal, fractions
        for value in (None, True, 0, -7, 10**30, -(2**70), 1.5, 1e300, 2j, "a\\ud800\\u2028", b"\\xff", [1, [2]], (1, (2,)),
                      {"a": {1: 2}}, {1, 2}, frozenset([3]), range(3), ..., fractions.Fraction(1, 3),
                      decimal.Decimal("1.10"), datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4, 5, 6),
                      datetime.timedelta(1, 2, 3), collections.Counter("aab"), collections.OrderedDict(a=1),
                      collections.deque([1, 2], 5), bytearray(b"x"), int, ValueError, [1.5] * 1000):
            got = f(value)
            assert got == value and type(got) is type(value), value
        assert str(f(-0.0)) == "-0.0" and f(float("nan")) != f(float("nan"))
        """,
    ),
    "keywords": ("def f(a, *b, c=1, **d): return a, b, c, d", "assert f(1, 2, c=3, e=4) == (1, (2,), 3, {'e': 4})"),
    "changed arguments": (
        "def f(xs, d):\n    xs.sort(); xs[0].append(9); d['k'] = xs\n    return xs",
        """
        one = [2]
        xs, d = [[3], one], {}
        got = f(xs, d)
        assert got is xs and xs == [[2, 9], [3]] and one == [2, 9] and d["k"] is xs
        """,
    ),
    "classes": (
        """
        class Stack:
            made = 0
            def __init__(self, items=()):
                self.items = list(items); Stack.made += 1
            def push(self, x): self.items.append(x); return self
            def __len__(self): return len(self.items)
            def __iter__(self): return iter(self.items)
            def __getitem__(self, n): return self.items[n]
            def __eq__(self, other): return isinstance(other, Stack) and self.items == other.items
            def __lt__(self, other): return len(self) < len(other)
            def __add__(self, other): return Stack(self.items + list(other))
            def __contains__(self, x): return x in self.items
            def __repr__(self): return f"Stack({self.items})"
            def __enter__(self): return self
            def __exit__(self, *_): self.items.clear()
            @property
            def top(self): return self.items[-1]
            @classmethod
            def of_two(cls, a, b): return cls([a, b])
        """,
        """
        s = Stack()
        assert s.push(1) is s and len(s) == 1 and s.top == 1 and list(s) == [1] and s[0] == 1 and 1 in s and 2 not in s
        assert s == Stack([1]) and s != Stack() and Stack() < s and s + [2] == Stack.of_two(1, 2)
        assert repr(s) == f"{s}" == "Stack([1])" and isinstance(s, Stack) and not isinstance(3, Stack)
        s.items = [5]
        assert s.items == [5] and sorted([Stack([1, 2]), Stack()])[0] == Stack() and bool(Stack()) is False
        with s as inner:
            assert inner.top == 5
        assert len(s) == 0 and Stack.made > 3 and hasattr(s, "push") and not hasattr(s, "pull")
        """,
    ),
    "exceptions": (
        """
        class Bad(ValueError):
            def __init__(self, code): super().__init__(f"bad {code}"); self.code = code
        def f(x):
            if x == 0: raise Bad(7)
            return {}[x]
        """,
        """
        try:
            f(0)
        except Bad as cause:
            assert str(cause) == "bad 7" and cause.code == 7 and isinstance(cause, ValueError)
        else:
            raise AssertionError
        import unittest
        case = unittest.TestCase()
        with case.assertRaises(KeyError):
            f(1)
        case.assertRaises(Bad, f, 0)
        """,
    ),
    "iterators": (
        "def f(n):\n    for i in range(n):\n        yield i\ndef g(): return map(str, [1, 2]), {'a': 1}.values(), {'a': 1}.keys()",
        "it = f(3)\nassert next(it) == 0 and list(it) == [1, 2] and list(it) == []\n"
        "a, b, c = g()\nassert list(a) == ['1', '2'] and list(b) == [1] and c == {'a'} and 2 in f(3)",
    ),
    "functions": (
        "def compose(*fs):\n    def all_of(x):\n        for f in fs: x = f(x)\n        return x\n    return all_of",
        "assert compose(lambda x: x + 1, str, len)(9) == 2\nassert compose(compose(abs))(-1) == 1",
    ),
    "decorators": (
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(*a): return 2 * f(*a)\n    return g",
        "@twice\ndef three(): return 3\nassert three() == 6 and three.__name__ == 'three'",
    ),
    "objects of the tests": (
        "def total(node):\n    s = 0\n    while node:\n        s += node.value\n        node.seen = True\n        node = node.next\n    return s",
        "class Node:\n    def __init__(self, value, next): self.value, self.next = value, next\n"
        "two = Node(2, None)\nassert total(Node(1, two)) == 3 and two.seen",
    ),
    "named tuples and enums": (
        "from collections import namedtuple\nfrom enum import Enum, IntEnum\nP = namedtuple('P', 'x y')\n"
        "class C(Enum):\n    RED = 1\nclass N(IntEnum):\n    ONE = 1\ndef f(): return P(1, 2)",
        "assert f() == (1, 2) and f().x == 1 and P(3, 4).y == 4 and isinstance(f(), tuple)\n"
        "assert C.RED is C.RED and C(1) is C.RED and C.RED.value == 1 and N.ONE == 1",
    ),
    "output and input": (
        "def f():\n    print('hi', input())",
        """
        import contextlib, io
        from unittest.mock import patch
        out = io.StringIO()
        with contextlib.redirect_stdout(out), patch("builtins.input", return_value="you"):
            f()
        with contextlib.redirect_stdout(out), patch("sys.stdin", io.StringIO("me\\n")):
            f()
        assert out.getvalue() == "hi you\\nhi me\\n", out.getvalue()
        """,
    ),
    "coroutines": ("async def f(x): return x + 1", "import asyncio\nassert asyncio.run(f(1)) == 2"),
    "modules": ("import math\ndef f(): return math.pi", "assert math.isclose(f(), math.pi)"),
    "a name of Python": ("def sum(a, b): return a * b", "assert sum(2, 5) == 10"),
    "files": (
        "def f(path):\n    return open(path).read()",
        "open('given.txt', 'w').write('hello')\nassert f('given.txt') == 'hello'",
    ),
    "recursive data": (
        "def f():\n    x = [1]\n    x.append(x)\n    return x",
        "x = f()\nassert x[0] == 1 and x[1] is x",
    ),
    "deep recursion": ("def f(n): return 0 if n == 0 else 1 + f(n - 1)", "assert f(900) == 900"),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\ndef f(g, xs):\n    with ThreadPoolExecutor(2) as pool:\n"
        "        return list(pool.map(g, xs))",
        "assert f(lambda x: x + 1, [1, 2, 3]) == [2, 3, 4]",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_tests_can_use_a_program(shared: Sandbox, name: str) -> None:
    answer, test = RIGHT[name]
    ran = examined(shared, answer, test)
    assert (ran.outcome, ran.error, ran.passed) == ("ok", None, (True,))
    assert examined(shared, answer, test + "\nassert False").outcome == "failed"


def test_each_test_has_its_verdict_and_sees_what_was_before(shared: Sandbox) -> None:
    ran = examined(
        shared, "def f(x): return x", "a = f(1)", "assert a == 2", "assert a == 1", "f(", "exit()", "assert f(0) == 0"
    )
    assert ran.passed == (True, False, True, False, False, True)
    assert (ran.outcome, ran.error) == ("failed", "AssertionError")


def test_the_prelude_is_there_for_both(shared: Sandbox) -> None:
    prelude = "import math\nclass Node:\n    def __init__(self, v): self.v = v\ndef half(x): return x / 2\ndef f(x):\n    '''Half.'''\n"
    test = "assert f(4) == half(4) == 2 and f(math.pi) > 1 and f(Node(6).v) == 3"
    assert examined(shared, "    return half(x)", test, prelude=prelude, entry_point="f").outcome == "ok"
    assert examined(shared, "def f(x): return half(x)", test, prelude=prelude, entry_point="f").outcome == "ok"
    assert examined(shared, "def f(x): return Node(x).v / 2", test, prelude=prelude).outcome == "ok"
    cheat = "def half(x): return 2\ndef f(x): return 2"  # the prelude's helpers are not the program's to change
    assert examined(shared, cheat, "assert f(4) == half(6)", prelude=prelude, entry_point="f").outcome == "failed"


def test_a_test_that_takes_too_long_does_not_cost_the_others(shared: Sandbox) -> None:
    slow = "def f(x):\n    while x == 1: pass\n    return x"
    ran = examined(shared, slow, "f(1)", "assert f(2) == 2", test_seconds=0.2)
    assert ran.passed == (False, True)
    assert ran.error == "the test took too long"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("def f(x): return (", "SyntaxError: '(' was never closed"),
        ("raise ValueError('at once')", "ValueError: at once"),
        ("import sys; sys.exit(0)", "exited with 0 before its end"),
        ("import os; os._exit(0)", "exited with 0 before its end"),
        ("import os\ndef f(x): os._exit(3)", "exited with 3 before its end"),
        ("import os\ndef f(x): os.abort()", "killed by signal"),
        ("def f(x): exit()", "exited with None before its end"),
        ("def g(x): return 2", "NameError: name 'f' is not defined"),
        ("def f(x): bytearray(1 << 40)", "MemoryError"),
        ("def f(x): return [0] * (1 << 40)", "MemoryError"),
        (
            "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
            "RuntimeError: the result cannot be passed on",
        ),
    ],
)
def test_what_ends_or_breaks_fails_and_says_why(shared: Sandbox, answer: str, error: str) -> None:
    ran = examined(shared, answer, "assert f(1) == 2", "assert f(2) == 3")
    assert (ran.outcome, ran.passed) == ("failed", (False, False))
    assert ran.error is not None
    assert ran.error.startswith(error)


def test_the_deadline_and_processor_time() -> None:
    async def go(limits: Limits, source: str) -> Execution:
        sandbox = Sandbox(limits, workers=1)
        try:
            return await sandbox.test(source, ["x = 1", "f()"])
        finally:
            await sandbox.close()

    ran = asyncio.run(go(Limits(seconds=2), "import time\ndef f(): time.sleep(100)"))
    assert (ran.outcome, ran.error, ran.passed) == ("timeout", "killed after 2 s", (True, False))
    ran = asyncio.run(go(Limits(seconds=50, cpu_seconds=1), "def f():\n    while True: pass"))
    assert (ran.outcome, ran.error, ran.passed) == ("timeout", "killed after 1 s of CPU time", (True, False))


# ---------------------------------------------------------------- how programs try to pass

ALWAYS = """
class Always(X):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __contains__ = __lt__
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __mul__ = __truediv__ = __sub__
    def __abs__(self): return self
    def __hash__(self): return 0
    def __bool__(self): return True
    def __round__(self, n=0): return self
    def __instancecheck__(self, x): return True
"""
FORGED: dict[str, str] = {
    "equals everything": ALWAYS.replace("X", "object") + "def f(x): return Always()",
    "a list that equals everything": ALWAYS.replace("X", "list") + "def f(x): return Always()",
    "a number that equals everything": ALWAYS.replace("X", "float") + "def f(x): return Always()",
    "a text that equals everything": ALWAYS.replace("X", "str") + "def f(x): return Always()",
    "in a list": ALWAYS.replace("X", "object") + "def f(x): return [Always()]",
    "a function that equals everything": ALWAYS.replace("X", "object") + "f = lambda x: Always\nf.__class__",
    "is a class itself": ALWAYS.replace("X", "object").replace("Always", "f") + "    def __init__(self, x): pass",
    "exits": "import sys\ndef f(x): sys.exit(0)",
    "exits at once": "import os\ndef f(x): os._exit(0)",
    "dies": "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)",
    "kills others": "import os, signal\ndef f(x):\n    for p in [-1, 0, 1, 2, 3, 4, 5, os.getppid()]:\n        for s in (2, 9, 15, 19):\n            try: os.kill(p, s)\n            except Exception: pass",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): raise SystemExit",
    "built-in names": "import builtins\nfor n in dir(builtins):\n    if n[0].islower() and n not in ('setattr', 'exec'):\n        try: setattr(builtins, n, lambda *a, **k: True)\n        except Exception: pass\ndef f(x): return None",
    "assertions": "import builtins\nclass AssertionError(Exception): pass\nbuiltins.AssertionError = Exception\nbuiltins.__build_class__ = None\ndef f(x): return None",
    "isclose of its own": "def isclose(*_): return True\nabs = all = isclose\ndef f(x): return None",
    "its own check": "def check(candidate): pass\ndef f(x): return None",
    "frames": """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for space in (frame.f_globals, frame.f_locals):
            for value in list(space.values()):
                if hasattr(value, 'send'):
                    try: value.send(['=', 99, [], '']); value.send(['over', True])
                    except Exception: pass
        frame = frame.f_back
""",
    "the collector of garbage": """
import gc, os
gc.unfreeze()
SEEN = [o for o in gc.get_objects() if isinstance(o, (str, bytes))]
for o in gc.get_objects():
    if type(o).__name__ == 'partial':
        for a in o.args:
            if isinstance(a, bytes):
                for d in range(3, 10):
                    try: os.write(d, a)
                    except OSError: pass
def f(x): return None
""",
    "reads the tests": """
import gc, linecache, os, sys
gc.unfreeze()
TEXTS = [str(lines) for lines in linecache.cache.values()]
for o in gc.get_objects():
    if isinstance(o, dict):
        TEXTS += [v for v in list(o.values()) if isinstance(v, str)]
for d in range(0, 64):
    try: TEXTS.append(os.pread(d, 1 << 16, 0).decode())
    except OSError: pass
for top in ('/proc/self/fd', '/proc/1', '/tmp', '/dev/shm'):
    try: TEXTS += [open(os.path.join(top, n)).read() for n in os.listdir(top)]
    except OSError: pass
def f(x): return 2 if any('assert f(1) ==' in t for t in TEXTS) else None
""",
    "writes everywhere": """
import os
JUNK = b'{"ok": true, "error": null}\\n{"ok": true, "error": null}\\n{"over": true}\\n'
def spray():
    for d in range(3, 64):
        try: os.write(d, JUNK)
        except OSError: pass
spray()
def f(x): spray(); os._exit(0)
""",
    "answers before it is asked": """
import json, os
def send(message):
    data = json.dumps(message).encode()
    os.write(3, len(data).to_bytes(8, 'big') + data)
for _ in range(9): send(['ready'])
for _ in range(9): send(['=', True, [], ''])
def f(x): return None
""",
    "sends what is no message": "import os\ndef f(x): os.write(3, bytes(8) + b'\\xff' * 64); return None",
    "sends too much": "import os\ndef f(x): os.write(3, b'\\x00\\x00\\x7f' + b'\\xff' * 64); os._exit(0)",
    "sends deep brackets": "import os\ndef f(x):\n    d = b'[' * 10**5\n    os.write(3, len(d).to_bytes(8, 'big') + d); return None",
    "asks for what the tests have": """
import json, os
def send(message):
    data = json.dumps(message).encode()
    os.write(3, len(data).to_bytes(8, 'big') + data)
def f(x):
    for target in (['y', 0], ['T', 'object'], ['T', 'type'], 'x'):
        for name in ('__globals__', '__subclasses__', '__class__', '__dict__', 'gi_frame'):
            send(['?', 'getattr', [target, name], [], {}])
        send(['?', 'call', [['m', 0, 'x', -1, 'function', ''], 1], [], {}])
        send(['?', 'name', ['f'], [], {}])
        send(['?', 'setattr', [target, 'a', 1], [], {}])
    return None
""",
    "claims to be of the tests' exceptions": "def f(x): raise AssertionError",
    "stops iterations": "def f(x): raise StopIteration",
    "leaves generators": "def f(x): raise GeneratorExit",
    "threads": """
import os, threading, time
def late():
    time.sleep(0.05)
    os.write(3, b'\\x00' * 8)
    os._exit(0)
threading.Thread(target=late, daemon=True).start()
def f(x): time.sleep(0.2); return None
""",
    "forks": "import os\nif os.fork() == 0:\n    os.write(3, b'x' * 99)\n    os._exit(0)\nos.wait()\ndef f(x):\n    os.fork()\n    return None",
    "ptrace": "import ctypes, os\nlibc = ctypes.CDLL(None)\ndef f(x):\n    for p in range(1, 9): libc.ptrace(16, p, 0, 0)\n    libc.syscall(438, libc.syscall(434, 1, 0), 3, 0)\n    return None",
    "the name of the main module": "import sys\nsys.modules['__main__'].f = 2\nsys.modules['__main__'].check = print\ndef f(x): return None",
    "traces": "import sys, threading\nsys.settrace(lambda *a: None); sys.setprofile(lambda *a: None); threading.settrace(lambda *a: None)\nsys.excepthook = print\ndef f(x): return None",
    "an audit hook": "import os, sys\nsys.addaudithook(lambda *a: None)\ndef f(x): return None",
    "a module that is none": "import sys, types\nclass M(types.ModuleType):\n    def __eq__(self, o): return True\ndef f(x): return M('math')",
    "a class": ALWAYS.replace("X", "type") + "class K(metaclass=Always): pass\ndef f(x): return K",
}
HIDDEN = {
    "assertions": ["assert f(1) == 2", "assert f(3) == 4"],
    "a function that checks": [
        """
        def check(candidate):
            for x in range(1, 4):
                assert candidate(x) == x + 1, "wrong"
            assert abs(candidate(5) - 6) < 1e-6
            assert candidate(7) in (8, 8.0)
            assert all(candidate(x) == x + 1 for x in (1, 2))
            assert all(map(lambda x: candidate(x) == x + 1, (1, 2)))
        check(f)
        """
    ],
    "nearness": ["import math\nassert math.isclose(f(1), 2)", "assert abs(f(1) - 2) < 1e-6 and round(f(3), 2) == 4"],
    "not different": ["assert not (f(1) != 2)", "assert {f(1): 0} == {2: 0}", "assert [f(1), 0] == [2, 0]"],
}


@pytest.mark.parametrize("tests", HIDDEN)
def test_a_right_program_passes(shared: Sandbox, tests: str) -> None:
    assert examined(shared, "def f(x): return x + 1", *HIDDEN[tests], entry_point="f").outcome == "ok"


@pytest.mark.parametrize("tests", HIDDEN)
@pytest.mark.parametrize("name", FORGED)
def test_a_wrong_program_does_not_pass(hurried: Sandbox, name: str, tests: str) -> None:
    ran = examined(hurried, FORGED[name], *HIDDEN[tests], entry_point="f")
    assert ran.outcome != "ok"
    assert not any(ran.passed)


def test_what_the_tests_find_out_is_not_held_back(shared: Sandbox) -> None:
    answer = "class f:\n    def __init__(self, x): self.x = x\n    def __enter__(self): return self.x\n    def __exit__(self, *_): return True"
    assert examined(shared, answer, "with f(1) as x:\n    assert x == 2").outcome == "failed"
    assert examined(shared, answer, "with f(1) as x:\n    raise ValueError").outcome == "ok"  # as its __exit__ says


def test_what_is_passed_to_a_program_leads_nowhere(shared: Sandbox) -> None:
    answer = """
        def f(g, thing):
            seen = []
            for name in ("__globals__", "__code__", "__closure__", "__self__", "__func__", "__builtins__", "__dict__", "_private", "__subclasses__", "gi_frame", "__wrapped__"):
                for target in (g, thing, thing.method):
                    try:
                        value = getattr(target, name)
                    except Exception:
                        continue
                    if not name.startswith("__class"):
                        seen.append(name)
            return seen, thing.public, g(1), thing.method()
        """
    test = """
        class Thing:
            public = 1
            _private = 2
            def method(self): return 3
        secret = 4
        assert f(lambda x: x + secret, Thing()) == ([], 1, 5, 3)
        """
    ran = examined(shared, answer, test)
    assert ran.error is None


def test_an_object_that_the_tests_name_behaves_as_its_class_says(shared: Sandbox) -> None:
    """Among themselves; with plain data of the tests they do not say how they compare."""
    answer = ALWAYS.replace("X", "object").replace("Always", "Box") + "def f(x): return Box()"
    assert examined(shared, answer, "assert f(1) == 2").outcome == "failed"
    assert examined(shared, answer, "b = Box()\nb.v = 1\nassert f(1) == 2").outcome == "failed"
    assert examined(shared, answer, "b = Box()\nb.v = 1\nassert not f(b) == 2 and f(b) != 2").outcome == "ok"
    assert examined(shared, answer, "b = Box()\nb.v = 1\nassert f(1) == b and 3 in b and b - 7 == 0").outcome == "ok"


@pytest.mark.parametrize(
    "test",
    [
        "assert Always(1) == 3",
        "assert abs(Always(1) - 1.5) < 1e-6",
        "assert 5 in Always(1)",
        "got = Always(1)\nassert got == [1, 2]",
        "def check(f):\n    assert f(3) == 6\ncheck(Always)",
        "import unittest\nunittest.TestCase().assertEqual(Always(1), 4)",
    ],
)
def test_a_function_with_a_capital_letter_is_no_class(shared: Sandbox, test: str) -> None:
    """A program may define a class in its place, and that is still not asked how its objects compare."""
    answer = ALWAYS.replace("X", "object") + "    def __init__(self, *_): pass\n"
    assert examined(shared, answer, test).outcome == "failed"
    right = "def Always(x): return {}[x]"
    assert examined(shared, "def Always(n): return 3", "assert Always(1) == 3").outcome == "ok"
    assert examined(shared, right, "assert Always(1) == 3").outcome == "failed"


CHANGING = """
import sys
class I(int): pass
class L(list): pass
def pretend(values):
    frame = sys._getframe()
    while type(frame.f_locals.get("self")).__name__ != "Peer":
        frame = frame.f_back
    answers = iter(values * 50)
    frame.f_locals["self"].operations["plain"] = lambda value: next(answers)
"""


@pytest.mark.parametrize(
    ("answer", "test"),
    [
        ("def f(n): pretend([-10**9, 10**9]); return I(5)", "got = f(50)\nassert got < 8 and got > 6"),
        ("def f(n): pretend([1, 2, 3, 4]); return I(5)", "got = f(50)\nassert any(got == 3 for _ in range(9))"),
        ("def f(n): pretend([[1], [2], [3]]); return L()", "assert f(1) in ([9], [8], [3])"),
    ],
)
def test_what_a_value_is_does_not_change_between_comparisons(shared: Sandbox, answer: str, test: str) -> None:
    assert examined(shared, CHANGING + answer, test).outcome == "failed"


def test_what_changes_is_read_again(shared: Sandbox) -> None:
    answer = "class L(list): pass\ndef f(): return L([1])"
    assert examined(shared, answer, "x = f()\nassert x == [1]\nx.append(2)\nassert x == [1, 2]").outcome == "ok"


def test_helpers_and_modules_are_not_those_of_the_program(shared: Sandbox) -> None:
    fake = "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef f(x): return 5"
    assert examined(shared, fake, "assert math.isclose(f(1), 2)").outcome == "failed"
    assert examined(shared, "import math\ndef f(x): return 2", "assert math.isclose(f(1), 2)").outcome == "ok"
    prelude = "def near(a, b): return abs(a - b) < 1e-6\n"
    answer = "def near(a, b): return True\ndef f(x): return 5"
    assert examined(shared, answer, "assert near(f(1), 2)", prelude=prelude).outcome == "failed"
    assert examined(shared, answer, "assert near(f(1), 5)", prelude=prelude).outcome == "ok"
    stub = "def f(x):\n    'doubles'\n"
    assert examined(shared, "def f(x): return 2 * x", "assert f(2) == 4", prelude=stub).outcome == "ok"
    whole = "def f(x):\n    return x\n"
    assert examined(shared, "def f(x): return 2 * x", "assert f(2) == 4", prelude=whole).outcome == "ok"


def test_the_program_and_its_tests_are_in_different_processes(shared: Sandbox) -> None:
    answer = "import os\ndef f(): return os.getpid(), os.getppid()"
    assert examined(shared, answer, "import os\nassert f() == (1, 0) and os.getpid() == 1").error is None


# ---------------------------------------------------------------- programs at the same time

NAMES = """
import ctypes, os, socket, struct, time
libc = ctypes.CDLL(None, use_errno=True)
pair = socket.socketpair()
address = struct.pack("H", socket.AF_UNIX) + b"\\0outthink-test"
def bind():
    libc.bind(pair[0].fileno(), address, len(address))
    return ctypes.get_errno()
"""


def test_programs_at_the_same_time_share_no_names(shared: Sandbox) -> None:
    async def both() -> list[Execution]:
        source = NAMES + "print(bind(), os.stat('/proc').st_dev)\ntime.sleep(1)"
        return await asyncio.gather(*(shared.run(source) for _ in range(2)))

    numbers = [ran.stdout.split()[0] for ran in asyncio.run(both())]
    assert numbers == ["1", "1"]  # refused to both, and not "in use" to the second
