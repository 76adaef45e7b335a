"""Calls of tools, put together from pieces whatever the server numbers and repeats.

Source: OpenAI's API has an index, an id and a name in the first piece of a call and the index alone in those after it.
Differs: others give every call one index or none, a new id to every piece, the name again and again, or the arguments
as an object. So a piece begins a new call where it has a name and can be no further piece of the one before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_ARGUMENT = {"function": "arguments", "custom": "input"}
_GIVEN = ("arguments", "parameters", "input", "args")  # as servers call what a tool is given
_BLANKS = 64  # characters around a text that are not looked at
_OWN = frozenset({"index", "type", "function", "custom", "name", *_GIVEN})  # of a piece, read by themselves


@dataclass(slots=True, eq=False)
class ToolCall:
    """One call as far as it is written."""

    kind: str
    index: int | None
    more: dict[str, Any] = field(default_factory=dict)
    """Its id, its type and what else there is beside the function."""
    name: str = ""
    written: list[str] = field(default_factory=list)
    """What the tool is given, in pieces."""
    _length: int = 0
    _scanned: int = 0
    _depth: int = 0
    _opened: bool = False
    _quoted: bool = False
    _escaped: bool = False

    @property
    def id(self) -> str:
        """As the server names it; empty where it does not."""
        return str(self.more.get("id") or "")

    @property
    def blank(self) -> bool:
        """Whether nothing is given to the tool yet."""
        return not any(piece.strip() for piece in self.written)

    def closed(self) -> bool:
        """Whether what the tool is given is a whole object, to which nothing can be added; each piece is read once."""
        for piece in self.written[self._scanned :]:
            for char in piece:
                self._read(char)
        self._scanned = len(self.written)
        return self._opened and self._depth == 0

    def _read(self, char: str) -> None:
        if self._quoted:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._quoted = False
        elif char == '"':
            self._quoted = True
        elif char in "{[":
            self._opened, self._depth = True, self._depth + 1
        elif char in "}]":
            self._depth -= 1

    def give(self, text: str) -> None:
        """Add to what the tool is given; an empty object that stands for nothing yet gives way."""
        if self.written == ["{}"] and text.strip():
            self.written.clear()
            self._scanned = self._depth = self._length = 0
            self._opened = False
        self.written.append(text)
        self._length += len(text)

    def says(self, text: str) -> bool:
        """Whether this, but for blanks around it, is what the tool is given so far."""
        return self._length <= len(text) + _BLANKS and "".join(self.written).strip() == text.strip()

    def form(self) -> dict[str, Any]:
        """As the API has it."""
        call: dict[str, Any] = {"id": "", **self.more, "type": self.kind}
        call[self.kind] = {"name": self.name, _ARGUMENT[self.kind]: "".join(self.written)}
        return call


class Calls:
    """The calls of one answer."""

    def __init__(self) -> None:
        self._made: list[ToolCall] = []
        self._at: dict[int, ToolCall] = {}
        self._named: dict[str, ToolCall] = {}
        self._held: list[ToolCall] = []  # whose empty object has not been passed on, since it may give way

    def __bool__(self) -> bool:
        return bool(self._made)

    def forms(self) -> list[dict[str, Any]]:
        """As the API has them, in the order of their numbers where those tell them apart, else as they came."""
        numbers = [call.index for call in self._made if call.index is not None]
        if len(set(numbers)) == len(self._made):
            return [call.form() for call in sorted(self._made, key=lambda call: call.index or 0)]
        return [call.form() for call in self._made]

    def late(self) -> list[dict[str, Any]]:
        """The pieces that were held back, once no more can come."""
        held, self._held = self._held, []
        return [
            {"index": self._made.index(call), call.kind: {_ARGUMENT[call.kind]: "{}"}}
            for call in held
            if call.says("{}")
        ]

    def add(self, pieces: Any, *, whole: bool) -> list[dict[str, Any]]:
        """Take some pieces; returns them as OpenAI's API would have streamed them.

        Args:
            whole: each is a call of its own.
        """
        if isinstance(pieces, Mapping):
            pieces = [pieces]
        known = len(self._made)
        streamed = []
        for place, piece in enumerate(pieces if isinstance(pieces, list | tuple) else ()):
            if isinstance(piece, Mapping):
                streamed += self._add(piece, place, len(pieces) > 1 and place < known, whole)
        return streamed

    def _add(self, piece: Mapping[str, Any], place: int, beside: bool, whole: bool) -> list[dict[str, Any]]:
        kind, given = _given(piece)
        name = given.get("name")
        name = name if isinstance(name, str) else ""
        text = _text(next((given[key] for key in _GIVEN if given.get(key) is not None), ""))
        index = _index(piece.get("index"))
        ident = piece.get("id")
        ident = ident if isinstance(ident, str) else ""
        call = None if whole else self._continued(index, ident, name, text, place if beside else None, piece)
        begins = call is None
        if call is None:
            call = ToolCall(kind, index)
            self._made.append(call)
        before = call.name
        if name != call.name and not (call.name and call.name == name[: len(call.name)]):
            call.name += name
        else:
            call.name = name or call.name
        if text and not (_whole(text) and call.closed() and call.says(text)):
            call.give(text)
        else:  # nothing, or all of it once more
            text = ""
        fresh = {key: value for key, value in piece.items() if key not in _OWN and value and not call.more.get(key)}
        call.more |= fresh
        if index is not None:
            self._at[index] = call
        if ident:
            self._named[ident] = call
        told: dict[str, Any] = {"index": self._made.index(call) if not begins else len(self._made) - 1, **fresh}
        if begins:
            told["type"] = kind
        inner = {"name": call.name.removeprefix(before)} if call.name != before else {}
        if text.strip() == "{}" and call.says("{}"):
            self._held.append(call)
            text = ""
        if text or begins:
            inner[_ARGUMENT[call.kind]] = text
        if inner:
            told[call.kind] = inner
        return [told] if inner or fresh else []

    def _continued(
        self, index: int | None, ident: str, name: str, text: str, place: int | None, piece: Mapping[str, Any]
    ) -> ToolCall | None:
        """The call that a piece goes on with; None where it begins one."""
        if not self._made:
            return None
        same = self._named.get(ident)
        at = self._at.get(index) if index is not None else None
        # the one of its own number, of its own id, at its own place, or the last one
        call = at or same or (self._made[place] if place is not None and index is None else self._made[-1])
        if not name:
            return call
        starts = text.strip()[:1] in ("", "{")
        if same is not None and (at is None or at is same):
            another = text.strip() and starts and same.closed() and not (same.says("{}") or same.says(text))
            return None if another else same
        if at is None and index is not None:
            return None  # a number of its own
        if ident and call.id:
            return None if starts else call
        if call.closed() and not call.says("{}"):
            return None if text.strip() or name != call.name else call
        if name == call.name:
            return call  # which is not whole yet
        if call.blank:  # a name in pieces, unless this looks like the head of a call
            return None if ident or piece.get("type") or text.strip() else call
        return None if starts else call


def _given(piece: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The kind of a piece and what it says of the tool, which some servers write without the object around it."""
    for kind in ("custom", "function"):
        if isinstance(piece.get(kind), Mapping):
            return kind, piece[kind]
    return "custom" if piece.get("type") == "custom" else "function", piece


def _index(value: Any) -> int | None:
    """The number of a call; None where it is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if type(value) is int else None


def _whole(text: str) -> bool:
    """Whether a text may be a whole object."""
    return text.lstrip()[:1] == "{" and text.rstrip()[-1:] == "}"


def _text(given: Any) -> str:
    """What a tool is given, as text: an object is written as JSON."""
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
