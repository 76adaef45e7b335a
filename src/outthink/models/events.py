"""Reads server-sent events, however they are written.

Source: the standard for server-sent events (WHATWG HTML, 9.2): a byte order mark is skipped; lines end with CRLF, LF or
CR; a line of `data` goes on with those before it; a colon begins a comment. Differs: lines of JSON without `data:`,
which some servers send for an error, are data too, and the last event needs no blank line after it.
"""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_ENOUGH = 6  # bytes that tell events from a document: those of the longest name of a field


def is_stream(start: bytes, kind: str) -> bool | None:
    """Whether what begins with `start` is a stream of events; None where that takes more bytes.

    Args:
        kind: the content type that the server gives it; what the bytes show counts more.
    """
    start = start.removeprefix(BOM).lstrip()
    if len(start) < _ENOUGH and not start.startswith((b"{", b"[", b":")):
        return None
    if start.startswith((b"{", b"[")):
        return False
    return kind == "text/event-stream" or start.startswith(_FIELDS)


class Events:
    """Takes bytes as they come, gives the name and the data of each event that has ended."""

    def __init__(self) -> None:
        self._rest = bytearray()  # of a line that has not ended
        self._lines: list[bytes] = []  # of an event that has not ended
        self._length = 0  # of those
        self._name = b""
        self._begun = False
        self._bare = False  # whether the event is JSON without `data:`
        self._after_return = False  # whether a line feed would belong to the return before it

    @property
    def size(self) -> int:
        """Bytes of the event that has not ended yet."""
        return len(self._rest) + self._length

    def fed(self, part: bytes) -> list[tuple[bytes, bytes]]:
        """The name (empty where it has none) and the data of each event that ends in the next bytes."""
        if self._after_return and part:
            part, self._after_return = part.removeprefix(b"\n"), False
        self._rest += part
        if not self._begun:
            if len(self._rest) < len(BOM) and BOM.startswith(self._rest):
                return []  # perhaps the beginning of a mark
            self._begun = True
            if self._rest.startswith(BOM):
                del self._rest[: len(BOM)]
        if b"\r" in part:
            self._after_return = part.endswith(b"\r")
            whole = bytes(self._rest).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif b"\n" in part:
            whole = bytes(self._rest)
        else:
            return []
        *ended, rest = whole.split(b"\n")
        self._rest = bytearray(rest)
        events = []
        for line in ended:
            if line:
                self._line(line)
            else:
                if self._lines:
                    events.append((self._name, b"\n".join(self._lines)))
                self._lines, self._length, self._name, self._bare = [], 0, b"", False
        return events

    def ended(self) -> list[tuple[bytes, bytes]]:
        """The event that the end of the stream ends."""
        self._begun = True
        return self.fed(b"\n\n")

    def _line(self, line: bytes) -> None:
        if self._bare:
            self._keep(line)
        elif line.startswith(b"data:"):
            self._keep(line[5:].removeprefix(b" "))
        elif line == b"data":
            self._keep(b"")
        elif line.startswith(b"event:"):
            self._name = line[6:].strip()
        elif line.startswith(b"{"):
            self._bare = True
            self._keep(line)

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._length += len(line)
