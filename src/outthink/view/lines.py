"""The lines of a file that may still grow, found by their places in it and read one by one."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tempfile
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from outthink.errors import UsageError

_CHUNK = 1 << 22


class LineFile:
    """Knows where each line of a file ends (8 bytes a line); nothing else of it is held, and it is not kept open.

    A name that ends in .gz is unpacked into a temporary file when it is first looked at; `close` frees that. Raises
    UsageError where the file cannot be read, here and in every method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends = array("Q")
        self._size = 0
        self._identity: tuple[int, int] | None = None
        self._unpacked: IO[bytes] | None = None
        self._lock = threading.Lock()  # of the temporary file, whose place several readers would share

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def unfinished(self) -> bool:
        """Whether something stands behind the last line break: a line that is being written, or was cut off."""
        return self._size > (self._ends[-1] if self._ends else 0)

    def grow(self) -> bool:
        """Look for lines that were added; whether the file has become another one, so that all lines are new."""
        try:
            stat = os.stat(self.path)
            identity = (stat.st_dev, stat.st_ino)
            anew = self._identity is not None and (
                identity != self._identity or (self.path.suffix != ".gz" and stat.st_size < self._size)
            )
            if anew:
                self.close()
                self._ends, self._size = array("Q"), 0
            elif self._identity is not None and (self.path.suffix == ".gz" or stat.st_size == self._size):
                return False
            self._identity = identity
            with self._opened() as file:
                file.seek(self._size)
                while chunk := file.read(_CHUNK):
                    breaks = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + (self._size + 1)
                    self._ends.frombytes(breaks.astype(np.uint64).tobytes())
                    self._size += len(chunk)
        except (OSError, EOFError, zlib.error) as cause:
            raise UsageError(f"Cannot read {self.path}: {getattr(cause, 'strerror', None) or cause}.") from cause
        return anew

    def line(self, number: int) -> bytes:
        """The line of this number, from 0, without its line break; IndexError where there is none."""
        end = self._ends[number]
        start = self._ends[number - 1] if number else 0
        try:
            with self._opened() as file:
                file.seek(start)
                return file.read(end - start).rstrip(b"\r\n")
        except OSError as cause:
            raise UsageError(f"Cannot read {self.path}: {cause.strerror}.") from cause

    def since(self, number: int) -> Iterator[bytes]:
        """The lines from this number on, read in one pass."""
        if number == len(self._ends):
            return
        try:
            with self._opened() as file:
                file.seek(self._ends[number - 1] if number else 0)
                for _ in range(number, len(self._ends)):
                    yield file.readline()
        except OSError as cause:
            raise UsageError(f"Cannot read {self.path}: {cause.strerror}.") from cause

    def close(self) -> None:
        """Free what was unpacked; calling it twice is fine."""
        if self._unpacked is not None:
            self._unpacked.close()
            self._unpacked = None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        if self.path.suffix != ".gz":
            with self.path.open("rb") as file:
                yield file
            return
        with self._lock:
            if self._unpacked is None:
                self._unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
                with gzip.open(self.path) as packed:
                    shutil.copyfileobj(packed, self._unpacked, _CHUNK)
            yield self._unpacked


class SomeLines:
    """Those lines of a file that are wanted, under numbers of their own; else as a `LineFile`.

    Args:
        wanted: tells it of a line.
    """

    def __init__(self, path: Path, wanted: Callable[[bytes], bool]) -> None:
        self._file = LineFile(path)
        self._wanted = wanted
        self._places = array("Q")
        self._seen = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def unfinished(self) -> bool:
        """False: what is not finished is nobody's yet."""
        return False

    def grow(self) -> bool:
        """Look for lines that were added; whether the file has become another one."""
        anew = self._file.grow()
        if anew:
            self._places, self._seen = array("Q"), 0
        for place, line in enumerate(self._file.since(self._seen), self._seen):
            if self._wanted(line):
                self._places.append(place)
            self._seen = place + 1
        return anew

    def line(self, number: int) -> bytes:
        """The line of this number, from 0; IndexError where there is none."""
        return self._file.line(self._places[number])

    def close(self) -> None:
        """Free what the file took."""
        self._file.close()
