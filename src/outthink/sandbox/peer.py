"""How the process of a program and the process of its tests talk: values cross as data, all else as references.

Both ends run this. A value of a plain type (numbers, texts, lists, sets, dates ...) is copied; what the called side
changed in an argument is changed in the original, too. Anything else stays where it is, and the other end holds a
`Remote` that asks for each thing it does. Nothing that arrives is executed or unpickled: messages are JSON.

The end with the tests is `strict`. It compares data itself and never shows the other end what it compares with, unless
the tests name the class of an object, and so are about what this class does. Of what is passed to the program it lets
functions be called and public attributes be used, no more: nothing leads from there to the tests.
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import copy
import datetime
import decimal
import fractions
import importlib
import io
import json
import operator
import os
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakValueDictionary

LARGE = 1 << 63
SCALARS = frozenset([str, float, bool, type(None)])
EXCEPTIONS = {name: kind for name, kind in vars(builtins).items()
              if isinstance(kind, type) and issubclass(kind, BaseException)}  # fmt: skip
_TYPES = (
    int, float, complex, str, bytes, bytearray, bool, list, tuple, dict, set, frozenset, range, slice, object, type,
    type(None), type(...), type(NotImplemented), collections.Counter, collections.OrderedDict, collections.defaultdict,
    collections.deque, fractions.Fraction, decimal.Decimal, datetime.date, datetime.datetime, datetime.time,
    datetime.timedelta, types.GeneratorType, types.FunctionType,
)  # fmt: skip
TYPES: dict[str, type] = {kind.__name__: kind for kind in _TYPES}
NAMES = {kind: name for name, kind in {**TYPES, **EXCEPTIONS}.items()}
# types of which classes of a program are often made, and which then compare by their content
BASES = (str, int, float, complex, tuple, list, dict, set, frozenset, bytes, collections.deque)
CLOSED = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType, types.GeneratorType,
          types.CoroutineType, types.FrameType, types.CodeType, types.TracebackType, BaseException)  # fmt: skip
UNCHANGING = frozenset((str, bytes, int, float, complex))
SHOWN = frozenset(["__name__", "__qualname__", "__doc__", "__module__"])


class Gone(BaseException):
    """The other end has ended."""


class Late(BaseException):
    """A test has used up its time."""


class Unreadable(BaseException):
    """What the other end sent is no message."""


class References:
    """The containers of one exchange, in the order in which they appear; a later mention is a number."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}

    def add(self, value: Any) -> None:
        """Note a container."""
        self.numbers[id(value)] = len(self.objects)
        self.objects.append(value)


def contents(value: Any) -> list[Any]:
    """What is in a container, as a list; keys and values of a dict in turns."""
    return [each for pair in value.items() for each in pair] if isinstance(value, dict) else list(value)


def refill(value: Any, items: list[Any]) -> None:
    """Put other contents into a container."""
    value.clear()
    if isinstance(value, dict):
        for key, item in zip(items[::2], items[1::2], strict=True):
            value[key] = item
    elif isinstance(value, set):
        value.update(items)
    else:
        value.extend(items)


def integer(value: int) -> Any:
    """What stands for an integer in a message."""
    return value if -LARGE < value < LARGE else ["i", hex(value)]


class Peer:
    """One end.

    Args:
        channel: a connected socket.
        strict: whether this end has the tests.
    """

    def __init__(self, channel: socket.socket, *, strict: bool) -> None:
        self.strict = strict
        self.named: set[int] = set()  # classes that the tests name
        self.modules: frozenset[str] = frozenset()  # names that the tests use
        self.operations = dict(OPERATIONS)
        self.running = False  # whether this end is working for the other one
        self._channel = channel
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._mine: list[Any] = []
        self._places: dict[int, int] = {}
        self._theirs: WeakValueDictionary[int, Remote] = WeakValueDictionary()
        self._classes: dict[int, type] = {}
        self._contents: dict[int, Any] = {}  # of objects of the other end, as far as they are known
        self._stdout, self._stdin, self._input = sys.stdout, sys.stdin, builtins.input

    # ------------------------------------------------------------ messages

    def send(self, message: list[Any]) -> None:
        """Send a message."""
        data = json.dumps(message).encode()
        try:
            self._channel.sendall(len(data).to_bytes(8, "big") + data)
        except OSError:
            raise Gone from None

    def receive(self) -> list[Any]:
        """The next message."""
        data = self._exactly(int.from_bytes(self._exactly(8), "big"))
        try:
            message = json.loads(data)
        except (ValueError, RecursionError):
            raise Unreadable("what the program sent cannot be read") from None
        if not isinstance(message, list) or not message:
            raise Unreadable("what the program sent cannot be read")
        return message

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                more = self._channel.recv(min(size - len(data), 1 << 20))
            except OSError:
                more = b""
            if not more:
                raise Gone
            data += more
        return bytes(data)

    def ask(self, operation: str, *arguments: Any, **named: Any) -> Any:
        """Have the other end do something; what it raises is raised here."""
        if os.getpid() != self._process:
            raise RuntimeError("this cannot be used in a process of its own")
        with self._lock:
            if operation != "plain":  # whatever this does, it cannot change what a number or a text is
                kept = {place: value for place, value in self._contents.items() if type(value) in UNCHANGING}
                self._contents = kept
            table = References()
            request = ["?", operation, self._several(arguments, table), self._pairs(named, table), self._streams(table)]
            self.send(request)
            while True:
                running, self.running = self.running, False
                reply = self.receive()
                self.running = running
                if reply[0] != "?":
                    return self._answer(reply, table, operation)
                self._serve(reply)

    def content(self, remote: Remote) -> Any:
        """The content of an object whose class was made of a plain type; it cannot change between two comparisons."""
        place = remote._place
        if place not in self._contents:
            self._contents[place] = self.ask("plain", remote)
        return copy.copy(self._contents[place])

    def serve(self) -> None:
        """Do what the other end asks for until it ends."""
        while True:
            self._serve(self.receive())

    def _streams(self, table: References) -> dict[str, Any]:
        """What of the standard streams the tests have replaced, so that the program uses it, too."""
        streams: dict[str, Any] = {}
        if self.strict:
            if sys.stdout is not self._stdout:
                streams["out"] = 1
            if sys.stdin is not self._stdin and sys.stdin is not None:
                streams["in"] = str(sys.stdin.read())
            if builtins.input is not self._input:
                streams["input"] = self.encode(builtins.input, table)
        return streams

    def _answer(self, reply: list[Any], table: References, operation: str) -> Any:
        try:
            kind, value, changes, out = reply
            value = self.decode(value, table)
            for number, items in changes:
                refill(table.objects[number], [self.decode(item, table) for item in items])
        except Exception:
            raise Unreadable("what the program sent cannot be read") from None
        if out and self.strict:
            sys.stdout.write(str(out))
        if kind == "=":
            return value
        if kind == "late":
            raise Late
        if not isinstance(value, BaseException):
            raise Unreadable("what the program sent cannot be read")
        if isinstance(value, StopIteration | StopAsyncIteration) and operation != "next":
            raise RuntimeError(f"a function raised {type(value).__name__}") from value
        raise value

    def _serve(self, request: list[Any]) -> None:
        table = References()
        before: list[list[Any]] = []
        out: io.StringIO | None = None
        kind, value = "=", None
        try:
            _, operation, raw, pairs, streams = request
            arguments = [self.decode(each, table) for each in raw]
            named = {str(name): self.decode(each, table) for name, each in pairs}
            if self.strict:
                self._guard(operation, raw, arguments)
            before = [contents(each) for each in table.objects]
            action = self.operations[operation]
            with self._replaced(streams, table) as out:
                self.running = True
                value = action(*arguments, **named)
                self.running = False
        except (Gone, Unreadable):
            raise
        except Late:
            self.running = False
            kind = "late"
        except BaseException as cause:
            self.running = False
            kind, value = "!", cause
        text = out.getvalue() if out is not None else ""
        try:
            self.send([kind, self.encode(value, table), self._changes(table, before), text])
        except Exception as cause:  # it is too deep, or has come to be what cannot be sent
            reason = f"the result cannot be passed on: {type(cause).__name__}"
            self.send(["!", ["e", "RuntimeError", [reason]], [], ""])

    @contextlib.contextmanager
    def _replaced(self, streams: dict[str, Any], table: References) -> Iterator[io.StringIO | None]:
        """The program's standard streams as the tests have them; what is written is collected."""
        if self.strict or not streams:
            yield None
            return
        old = sys.stdout, sys.stdin, builtins.input
        out = io.StringIO() if "out" in streams else None
        if out is not None:
            sys.stdout = out
        if "in" in streams:
            sys.stdin = io.StringIO(streams["in"])
        if "input" in streams:
            builtins.input = self.decode(streams["input"], table)
        try:
            yield out
        finally:
            sys.stdout, sys.stdin, builtins.input = old

    def _changes(self, table: References, before: list[list[Any]]) -> list[Any]:
        """Containers whose contents are no longer what they were."""
        changed = []
        for number, items in enumerate(before):
            now = contents(table.objects[number])
            if len(now) != len(items) or not all(map(operator.is_, now, items)):
                changed.append([number, self._several(now, table)])
        return changed

    def _guard(self, operation: str, raw: list[Any], arguments: list[Any]) -> None:
        """Let the program use what it was given, and nothing that leads further."""
        if operation not in ALLOWED or not raw or not (isinstance(raw[0], list) and raw[0][:1] == ["y"]):
            raise PermissionError("this is not for programs")
        if operation in ("getattr", "setattr", "delattr"):
            name = arguments[1]
            shown = operation == "getattr" and name in SHOWN
            if type(name) is not str or not (shown or not (name[:1] == "_" or isinstance(arguments[0], CLOSED))):
                raise AttributeError("this is not for programs")

    # ------------------------------------------------------------ values

    def _several(self, values: Sequence[Any], table: References) -> list[Any]:
        kinds = set(map(type, values))
        if kinds <= SCALARS or (kinds == {int} and min(values) > -LARGE and max(values) < LARGE):
            return list(values)
        return [self.encode(value, table) for value in values]

    def _pairs(self, named: dict[str, Any], table: References) -> list[Any]:
        return [[name, self.encode(value, table)] for name, value in named.items()]

    def encode(self, value: Any, table: References) -> Any:
        """What stands for a value in a message."""
        kind = type(value)
        if kind in SCALARS:
            return value
        if kind is int:
            return integer(value)
        number = table.numbers.get(id(value))
        if number is not None:
            return ["@", number]
        if kind in MUTABLE:
            table.add(value)
            more: list[Any] = []
            if kind is collections.deque:
                more = [value.maxlen]
            elif kind is collections.defaultdict:
                more = [NAMES.get(value.default_factory) if isinstance(value.default_factory, type) else None]
            return [MUTABLE[kind], self._several(contents(value), table), *more]
        if kind in FIXED:
            return [FIXED[kind], self._several(list(value), table)]
        simple = SIMPLE.get(kind)
        if simple is not None:
            return [kind.__name__, self._several(simple(value), table)]
        if kind is types.ModuleType:
            return ["M", str(value.__name__), *self._mine_as(value)]
        if isinstance(value, type):
            if value in NAMES:
                return ["T", NAMES[value]]
            if issubclass(value, BaseException):
                bases = [self.encode(base, table) for base in value.__bases__]
                return ["X", self._place(value), value.__name__, bases]
        elif kind is Remote or kind is RemoteFunction:
            if value._peer is self:
                return ["y", value._place]
        elif isinstance(value, BaseException):
            far = getattr(value, "_far", None)
            if far is not None:
                return ["y", far]
            if NAMES.get(kind) in EXCEPTIONS:
                return ["e", NAMES[kind], self._several(value.args, table)]
            try:
                text = str(value)
            except Exception:
                text = ""
            return ["E", self._place(value), self.encode(kind, table), self._several(value.args, table), text]
        elif kind in VIEWS:
            return [VIEWS[kind], self._several(contents(dict(value) if kind is type({}.items()) else value), table)]
        return ["m", *self._mine_as(value)]

    def _mine_as(self, value: Any) -> list[Any]:
        """A reference to an object here: its place, its name, its class, whether it can be called, what it is like."""
        kind = type(value)
        own = not self.strict and kind.__module__ != "builtins"
        base = next((base.__name__ for base in BASES if isinstance(value, base)), "")
        form = "coroutine" if kind is types.CoroutineType else "function" if callable(value) else ""
        return [self._place(value), kind.__name__, self._place(kind) if own else -1, form, base]

    def _place(self, value: Any) -> int:
        """The number under which the other end can ask for an object."""
        place = self._places.get(id(value))
        if place is None:
            place = self._places[id(value)] = len(self._mine)
            self._mine.append(value)
        return place

    def decode(self, sent: Any, table: References) -> Any:
        """The value that stands in a message; raises some Exception where there is none."""
        if type(sent) is not list:
            return sent
        tag = sent[0]
        if tag == "i":
            return int(sent[1], 16)
        if tag == "@":
            return table.objects[sent[1]]
        if tag in MADE:
            value = MADE[tag]() if len(sent) == 2 else OPTIONS[tag](sent[2])
            table.add(value)
            refill(value, [self.decode(each, table) for each in sent[1]])
            return value
        if tag in FROM:
            return FROM[tag](self.decode(each, table) for each in sent[1])
        if tag in BUILD:
            return BUILD[tag](*(self.decode(each, table) for each in sent[1]))
        if tag == "T":
            return TYPES.get(sent[1]) or EXCEPTIONS[sent[1]]
        if tag == "y":
            return self._mine[sent[1]] if sent[1] >= 0 else None
        if tag == "m":
            return self._remote(sent[1:])
        if tag == "M":
            if sent[1] in self.modules and sent[1].partition(".")[0] in sys.stdlib_module_names:
                return importlib.import_module(sent[1])
            return self._remote(sent[2:])
        if tag == "X":
            return self._exception_class(sent[1], sent[2], [self.decode(base, table) for base in sent[3]])
        if tag == "e":
            return EXCEPTIONS[sent[1]](*(self.decode(each, table) for each in sent[2]))
        if tag == "E":
            kind = self.decode(sent[2], table)
            arguments = [self.decode(each, table) for each in sent[3]]
            raised = kind.__new__(kind, *arguments)
            raised.args, raised._far, raised._text = arguments, sent[1], str(sent[4])
            return raised
        raise ValueError(tag)

    def _remote(self, facts: list[Any]) -> Any:
        place, name, kind, form, base = facts
        known = self._theirs.get(place)
        if known is not None:
            return known
        remote = (RemoteFunction if form == "function" else Remote)()
        for field, value in zip(FIELDS, (self, int(place), str(name), kind, str(base)), strict=True):
            object.__setattr__(remote, field, value)
        self._theirs[place] = remote
        return self._awaited(remote) if form == "coroutine" and self.strict else remote

    async def _awaited(self, remote: Remote) -> Any:
        return self.ask("await", remote)

    def _exception_class(self, place: int, name: str, bases: list[type]) -> type:
        """A class of exceptions that stands for one of the other end."""
        if place not in self._classes:
            peer = self

            def attribute(raised: Any, name: str) -> Any:
                if name.startswith("_") or "_far" not in vars(raised):
                    raise AttributeError(name)
                return peer.ask("getattr", raised, name)

            def text(raised: Any) -> str:
                said = vars(raised).get("_text")
                return said if isinstance(said, str) else BaseException.__str__(raised)

            bases = [base for base in bases if isinstance(base, type) and issubclass(base, BaseException)] or [
                Exception
            ]
            self._classes[place] = type(str(name), tuple(bases), {"__getattr__": attribute, "__str__": text})
        return self._classes[place]


FIELDS = ("_peer", "_place", "_name", "_kind", "_base")


class Remote:
    """Stands for an object of the other end."""

    __slots__ = (*FIELDS, "__weakref__")

    _peer: Peer
    _place: int
    _name: str
    _kind: int
    _base: str

    def __getattr__(self, name: str) -> Any:
        return self._peer.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._peer.ask("delattr", self, name)

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        if _comparable(self, other):
            return self._peer.ask("eq", self, other)
        return self._peer.content(self) == other if self._base else False

    def __ne__(self, other: object) -> Any:
        if self is not other and _comparable(self, other):
            return self._peer.ask("ne", self, other)
        return not self == other

    def __hash__(self) -> int:
        return int(self._peer.ask("hash", self))

    def __contains__(self, value: object) -> bool:
        if _open(self, value):
            return bool(self._peer.ask("contains", self, value))
        return any(each is value or each == value for each in self)

    def __iter__(self) -> Any:
        made = self._peer.ask("iter", self)
        return made if isinstance(made, Remote) else iter(made)

    def __next__(self) -> Any:
        return self._peer.ask("next", self)

    def __await__(self) -> Any:
        return self._peer._awaited(self).__await__()

    def __exit__(self, kind: Any, value: Any, trace: object) -> Any:
        if self._peer.strict and isinstance(value, AssertionError | Gone | Late | Unreadable):
            self._peer.ask("exit", self, AssertionError, AssertionError(), None)
            return False  # what the tests have found out is not for the program to hold back
        return self._peer.ask("exit", self, kind, value, None)

    def __instancecheck__(self, value: object) -> bool:
        far = isinstance(value, Remote) or getattr(value, "_far", None) is not None
        return far and bool(self._peer.ask("isinstance", value, self))

    def __subclasscheck__(self, value: object) -> bool:
        return isinstance(value, Remote) and bool(self._peer.ask("issubclass", value, self))

    def __mro_entries__(self, bases: object) -> Any:
        raise TypeError("tests cannot make a class out of a class of the answer")

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("an object of the answer cannot be pickled by its tests")

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return TYPES.get(object.__getattribute__(self, "_base")) or type(self)

    @property
    def __doc__(self) -> Any:  # type: ignore[override]
        """That of the other object."""
        return self._peer.ask("getattr", self, "__doc__")


class RemoteFunction(Remote):
    """Stands for a function or a class, or for what else can be called."""

    __slots__ = ()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the other object."""
        return self._peer.ask("call", self, *arguments, **named)


def _open(one: Remote, other: object) -> bool:
    """Whether the other end may see what its object is compared or combined with."""
    peer = one._peer
    return not peer.strict or one._kind in peer.named or type(other) in (Remote, RemoteFunction)


def _comparable(one: Remote, other: object) -> bool:
    """Whether the other end may say how two values compare: not where one of them is plain data of the tests."""
    return not one._peer.strict or type(other) in (Remote, RemoteFunction)


def _binary(name: str, action: Callable[[Any, Any], Any], *, swapped: bool) -> Callable[[Any, Any], Any]:
    allowed = _comparable if name in ORDER else _open

    def method(self: Remote, other: Any) -> Any:
        pair = (other, self) if swapped else (self, other)
        if allowed(self, other):
            return self._peer.ask(name, *pair)
        if self._base:
            content = self._peer.content(self)
            return action(other, content) if swapped else action(content, other)
        raise TypeError(f"the answer gave an object of its class {self._name} where plain data is expected")

    return method


def _unary(name: str) -> Callable[..., Any]:
    def method(self: Remote, *arguments: Any) -> Any:
        return self._peer.ask(name, self, *arguments)

    return method


def _call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return function(*arguments, **named)


def _await(awaitable: Any) -> Any:
    import asyncio  # here, because few programs need it

    async def wait() -> Any:
        return await awaitable

    return asyncio.run(wait())


def _plain(value: Any) -> Any:
    """The content of an object whose class was made of a plain type."""
    base: Any = next(base for base in BASES if isinstance(value, base))
    if base is dict:
        return dict(dict.items(value))
    if base in (str, bytes, int, float, complex):
        return base.__getnewargs__(value)[0] if base in (str, bytes) else _number(base, value)
    return base(base.__iter__(value))


def _number(base: type, value: Any) -> Any:
    if base is int:
        return int.__int__(value)
    return float.__float__(value) if base is float else complex.__pos__(value)


BINARY = {name: getattr(operator, name) for name in (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift",
    "rshift")}  # fmt: skip
IN_PLACE = {f"i{name.rstrip('_')}": getattr(operator, f"i{name.rstrip('_')}") for name in BINARY}
ORDER = {name: getattr(operator, name) for name in ("lt", "le", "gt", "ge")}
UNARY: dict[str, Callable[..., Any]] = {
    "len": len, "bool": bool, "str": str, "repr": repr, "format": format, "int": int, "float": float,
    "index": operator.index, "complex": complex, "abs": abs, "neg": operator.neg, "pos": operator.pos,
    "invert": operator.invert, "round": round, "reversed": reversed, "getitem": operator.getitem,
    "setitem": operator.setitem, "delitem": operator.delitem, "enter": lambda value: value.__enter__(), "dir": dir,
    "copy": copy.copy, "deepcopy": lambda value, _: copy.deepcopy(value),
}  # fmt: skip
ALLOWED = frozenset(
    [*BINARY, *IN_PLACE, *ORDER, *UNARY, "eq", "ne", "hash", "contains", "iter", "next", "exit", "call", "getattr",
     "setattr", "delattr", "plain"]
)  # fmt: skip
OPERATIONS: dict[str, Callable[..., Any]] = {
    **BINARY, **IN_PLACE, **ORDER, **UNARY, "eq": operator.eq, "ne": operator.ne, "hash": hash,
    "contains": operator.contains, "iter": iter, "next": next, "call": _call, "getattr": getattr, "setattr": setattr,
    "delattr": delattr, "isinstance": isinstance, "issubclass": issubclass, "await": _await, "plain": _plain,
    "exit": lambda value, kind, raised, trace: value.__exit__(kind, raised, trace),
}  # fmt: skip
for _name, _action in BINARY.items():
    setattr(Remote, f"__{_name.rstrip('_')}__", _binary(_name, _action, swapped=False))
    setattr(Remote, f"__r{_name.rstrip('_')}__", _binary(_name, _action, swapped=True))
for _name, _action in (IN_PLACE | ORDER).items():
    setattr(Remote, f"__{_name}__", _binary(_name, _action, swapped=False))
for _name in UNARY:
    setattr(Remote, f"__{_name}__", _unary(_name))

MUTABLE: dict[type, str] = {
    list: "l", dict: "d", set: "s", bytearray: "b", collections.deque: "deque", collections.Counter: "C",
    collections.OrderedDict: "O", collections.defaultdict: "D",
}  # fmt: skip
MADE: dict[str, Callable[[], Any]] = {tag: kind for kind, tag in MUTABLE.items()}
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "deque": lambda most: collections.deque(maxlen=most),
    "D": lambda name: collections.defaultdict(None if name is None else TYPES[name]),
}
FIXED: dict[type, str] = {tuple: "t", frozenset: "f", bytes: "B"}
FROM: dict[str, Callable[[Any], Any]] = {
    "t": tuple,
    "f": frozenset,
    "B": bytes,
    "K": lambda items: dict.fromkeys(items).keys(),
    "I": lambda items: (lambda flat: dict(zip(flat[::2], flat[1::2], strict=True)).items())(list(items)),
}
VIEWS: dict[type, str] = {type({}.keys()): "K", type({}.items()): "I"}
SIMPLE: dict[type, Callable[[Any], list[Any]]] = {
    complex: lambda value: [value.real, value.imag],
    range: lambda value: [value.start, value.stop, value.step],
    slice: lambda value: [value.start, value.stop, value.step],
    type(...): lambda value: [],
    type(NotImplemented): lambda value: [],
    fractions.Fraction: lambda value: [value.numerator, value.denominator],
    decimal.Decimal: lambda value: [str(value)],
    datetime.date: lambda value: [value.year, value.month, value.day],
    datetime.timedelta: lambda value: [value.days, value.seconds, value.microseconds],
    datetime.datetime: lambda value: [value.isoformat()],
    datetime.time: lambda value: [value.isoformat()],
}
BUILD: dict[str, Callable[..., Any]] = {
    **{kind.__name__: kind for kind in SIMPLE},
    type(...).__name__: lambda: ...,
    type(NotImplemented).__name__: lambda: NotImplemented,
    "datetime": datetime.datetime.fromisoformat,
    "time": datetime.time.fromisoformat,
}
