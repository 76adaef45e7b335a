"""Files of JSON objects, one a line, that are only ever appended to and survive a kill at any moment and a full disk.

Only the last line can be unfinished, because a line is written after everything before it and cut off again where
writing it fails. So a reader leaves an unfinished last line out, a writer cuts it off, and a broken line anywhere
else is damage that is reported with its number. The writer holds a lock on the file itself, which the operating
system drops when the process ends in whatever way; there is no lock file that could go stale.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, cast

from outthink.errors import OutthinkError, UsageError

_LONG = re.compile(rb"[0-9]{4001}")  # of more than 4,300 digits Python makes no int
_WINDOWS_LOCK = 0x7FFF0000  # Windows keeps readers out of a locked byte, so it is one far behind the usual data


def read(path: Path, on_unfinished: Callable[[int], None] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line; an unfinished last line is left out. A name ending in .gz is unpacked.

    Args:
        on_unfinished: told the number of an unfinished last line.

    Integers of more than 4,000 digits are Decimal.

    Raises UsageError where the file cannot be read and where another line than the last is broken.
    """
    try:
        with cast("IO[bytes]", gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            for number, line, last in _lines(file):
                row = _object(line)
                if row is not None:
                    yield number, row
                elif not last or not _unfinished(line):
                    raise UsageError(f"Line {number} of {path} is damaged: repair it, or remove that line.")
                elif on_unfinished is not None:
                    on_unfinished(number)
    except (OSError, EOFError, zlib.error) as cause:
        raise UsageError(f"Cannot read {path}: {_reason(cause)}.") from cause


def write_whole(path: Path, text: str | Iterable[str], *, mode: int = 0o666) -> None:
    """Write a file, given in one piece or in several, so that it is there either whole or not at all.

    Raises OutthinkError where that fails.
    """
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as cause:
        part.unlink(missing_ok=True)
        raise OutthinkError(f"Cannot write {path}: {_reason(cause)}.") from cause


def sync_folder(folder: Path) -> None:
    """Make new and renamed files of a folder survive a power failure, where the system has a way to."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Write to the shared files of a folder while no other process of those that share them does; not on Windows."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Appender:
    """The one writer of a file, which is made where it does not exist; use it as a context manager.

    Args:
        mode: permissions of a file that is made, less those that the process's umask takes away.
        shared: there are others who write in turns, as this one does (`turn`), also when it is made.

    Raises UsageError where another writer has the file, or where its last line is not one of ours.
    """

    def __init__(self, path: Path, *, mode: int = 0o666, shared: bool = False) -> None:
        self._path = path
        self._shared = shared
        self._damaged = False
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        try:
            new = not os.path.exists(path)
            self._handle = os.open(path, flags, mode)
        except OSError as cause:
            raise UsageError(f"Cannot write {path}: {_reason(cause)}.") from cause
        try:
            self._lock()
            self._mend()
            if new:
                sync_folder(path.parent)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def append(self, line: str, *, sync: bool = True) -> None:
        """Add one line (JSON, without the line break), or several with breaks between them.

        Once this returns the line outlives the process, and with `sync` a power failure too. Where it raises
        OutthinkError, as on a full disk, the file is as it was before, and a later attempt may succeed.
        """
        if self._damaged:
            raise OutthinkError(f"{self._path} could not be brought back in order after a failed write: start again.")
        data = line.encode() + b"\n"
        size = os.fstat(self._handle).st_size
        if self._shared and size and os.pread(self._handle, 1, size - 1) != b"\n":
            self._mend()  # another one was killed while it wrote
            size = os.fstat(self._handle).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._handle, data[written:])
            if sync:
                os.fsync(self._handle)
        except BaseException as cause:
            self._damaged = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, size)
                self._damaged = False
            if isinstance(cause, OSError):
                raise OutthinkError(f"Cannot write to {self._path}: {_reason(cause)}.") from cause
            raise

    def sync(self) -> None:
        """Let all lines so far outlive a power failure; raises OutthinkError where that fails."""
        try:
            os.fsync(self._handle)
        except OSError as cause:
            raise OutthinkError(f"Cannot write to {self._path}: {_reason(cause)}.") from cause

    def close(self) -> None:
        """Let another writer have the file; calling it twice is fine."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _lock(self) -> None:
        try:
            if sys.platform == "win32":
                import msvcrt

                os.lseek(self._handle, _WINDOWS_LOCK, os.SEEK_SET)
                msvcrt.locking(self._handle, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._handle, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as cause:
            what = f"Cannot lock {self._path}: {_reason(cause)}; use a folder on a local disk."
            if isinstance(cause, BlockingIOError | PermissionError):
                what = f"{self._path} is being written by another process: wait for it, or stop it."
            raise UsageError(what) from cause

    def _mend(self) -> None:
        """Finish or cut off the last line."""
        with io.FileIO(self._handle, "r+", closefd=False) as raw:
            raw.seek(0)
            size, number, line = 0, 0, b""
            for number, line, _ in _lines(io.BufferedReader(raw)):  # noqa: B007 - the last one is used
                size += len(line)
            if line and _object(line) is None:
                if not _unfinished(line):
                    raise UsageError(f"Line {number} of {self._path} is damaged: repair it, or remove that line.")
                os.ftruncate(self._handle, size - len(line))
            elif line and not line.endswith(b"\n"):
                os.write(self._handle, b"\n")  # all but the line break had been written
            os.fsync(self._handle)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """(number, line, whether it is the last one)."""
    held, number = b"", 0
    for number, line in enumerate(file, start=1):
        if number > 1:
            yield number - 1, held, False
        held = line
        if not line.endswith(b"\n"):
            break  # what a writer adds while this is read is not the next line
    if number:
        yield number, held, True


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line, parse_int=_integer) if _LONG.search(line) else json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return None
    return row if isinstance(row, dict) else None


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= 4000 else Decimal(digits)


def _unfinished(line: bytes) -> bool:
    """Whether it can be the beginning of one of our lines; after a power failure, zeros can stand for a part of it."""
    return line[:1] in (b"{", b"\0") and (not line.endswith(b"\n") or b"\0" in line)


def _reason(cause: BaseException) -> str:
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
