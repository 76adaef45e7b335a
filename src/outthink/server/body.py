"""Takes in the body of a request within limits, so that no body costs more than its size lets expect.

Text and media have limits of their own. What is media is seen before the body is read as JSON: long runs of the
characters of base64, which a data URL consists of. How many values a body holds, and how deep they stand in each other,
is counted outside its strings before anything is made of it: ten million empty lists are 30 MB on the line and nearly
a gigabyte as objects. All of it is linear in the bytes, and done a slice at a time.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from outthink.server.errors import BadRequest

MAX_AT_ONCE = 64 << 10
"""Longest body, in bytes, that is read on the event loop (some 5 ms); a thread reads longer ones."""

_MOST_VALUES = 50_000  # read and checked in some 30 ms
_DEEP = 200  # lists and objects in each other; what is much deeper can be read and not be written again
_SLICE = 64 << 10
_RUN = 256  # characters of base64 in a row that no text has
# some writers escape the slashes of base64, and break it into lines
_BASE64 = (string.ascii_letters + string.digits + "+/=-_\\").encode()
_MARKS = bytes(0x61 if byte in _BASE64 else 0x20 for byte in range(256))
_BRACKET = re.compile(r"[\[\]{}]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """The most bytes of a body.

    Args:
        text: all that is no media, with the JSON around it.
        media: images, sounds and files, as data URLs or in base64.
    """

    text: int = 1 << 20
    media: int = 20 << 20

    def check(self, text: int, media: int) -> None:
        """Raise BadRequest (413) where it is more."""
        if text > self.text:
            raise _too_large(f"The text of the request is larger than {_shown(self.text)}; shorten it.")
        if media > self.media:
            raise _too_large(
                f"The images, sounds and files of the request are larger than {_shown(self.media)}; send less of them."
            )


class Intake:
    """A body that comes in; `add` raises BadRequest (413) as soon as it is too large."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._parts: list[bytes] = []
        self._unmeasured = bytearray()
        self._media = 0
        self._escapes = 0
        self.size = 0
        """Bytes so far."""

    def add(self, part: bytes) -> None:
        """The next bytes."""
        self._parts.append(part)
        self.size += len(part)
        self._unmeasured += part
        while len(self._unmeasured) >= _SLICE:
            self._measure(bytes(self._unmeasured[:_SLICE]))
            del self._unmeasured[:_SLICE]
        self._sizes.check(max(self.size - self._media - len(self._unmeasured), self._escapes), self._media)

    def whole(self) -> bytes:
        """All of it; raises as `add` does."""
        self._measure(bytes(self._unmeasured))
        self._unmeasured.clear()
        self._sizes.check(self.size - self._media, self._media)
        return b"".join(self._parts)

    def _measure(self, part: bytes) -> None:
        marked = part.translate(_MARKS)
        runs = marked.split()
        self._media += sum(len(run) for run in runs if len(run) >= _RUN)
        ends = runs[:1] + runs[1:][-1:]  # at both ends of a slice there may be part of a longer run
        self._media += sum(len(run) for run in ends if len(run) < _RUN)
        self._escapes += part.count(b"\\")


def decoded(body: bytes) -> str:
    """The text of a body of JSON; raises BadRequest where it is none, holds too many values or is nested too deep."""
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
    except ValueError:
        raise not_json() from None
    _check_structure(text)
    return text


def not_json() -> BadRequest:
    """What a body is told that cannot be read."""
    return BadRequest("The body is not JSON; send a chat request as application/json.", code="invalid_json")


def _check_structure(text: str) -> None:
    # within a string a backslash before a quote keeps it open; elsewhere neither is JSON
    quotes = text.replace("\\\\", "").replace('\\"', "") if "\\" in text else text
    many = quotes.count('"') > 4 * _MOST_VALUES  # a value is a string at most, and has a name at most
    outside = "" if many else "".join(quotes.split('"')[::2])
    opened = outside.count("[") + outside.count("{")
    if opened > _DEEP and _deep(outside):
        raise BadRequest(f"The body is nested more than {_DEEP} deep.", code="invalid_json")
    if many or opened + outside.count(",") > _MOST_VALUES:
        raise _too_large(f"The body holds more than {_MOST_VALUES:,} values; send fewer.")


def _deep(outside: str) -> bool:
    """Whether lists and objects stand too deep in each other, in as much as may hold the values of a body."""
    depth = 0
    for bracket in islice(_BRACKET.finditer(outside), 2 * _MOST_VALUES):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > _DEEP:
            return True
    return False


def media_size(parts: Any) -> int:
    """Characters of the long texts in the parts of a message that are no text: of its data URLs."""
    size = 0
    waiting = [part for part in parts if part.get("type") not in ("text", "refusal")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            size += len(value) if len(value) >= _RUN else 0
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return size


def _too_large(sentence: str) -> BadRequest:
    return BadRequest(sentence, status=413, code="too_large")


def _shown(size: int) -> str:
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} KB"
