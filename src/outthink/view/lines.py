"""The lines of a file that may still grow, found by their places in it and read one by one."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import zlib
from array import array
from pathlib import Path
from typing import IO, Any

import numpy as np

from outthink.errors import UsageError

_CHUNK = 1 << 22


class LineFile:
    """Knows where each line of a file ends (8 bytes a line); nothing else of it is held.

    A name that ends in .gz is unpacked into a temporary file when it is first looked at. Raises UsageError where the
    file cannot be read, here and in every method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends = array("Q")
        self._size = 0
        self._identity: tuple[int, int] | None = None
        self._file: IO[bytes] | None = None

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
            anew = self._identity is not None and (
                (stat.st_dev, stat.st_ino) != self._identity
                or (self.path.suffix != ".gz" and stat.st_size < self._size)
            )
            if anew or self._file is None:
                self.close()
                self._file, self._ends, self._size = self._opened(), array("Q"), 0
            self._identity = (stat.st_dev, stat.st_ino)
            self._file.seek(self._size)
            while chunk := self._file.read(_CHUNK):
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
        if self._file is None:
            raise IndexError(number)
        try:  # by position, since several may read at once
            data = os.pread(self._file.fileno(), end - start, start) if hasattr(os, "pread") else self._read(start, end)
        except OSError as cause:
            raise UsageError(f"Cannot read {self.path}: {cause.strerror}.") from cause
        return data.rstrip(b"\r\n")

    def close(self) -> None:
        """Let the file go; calling it twice is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, start: int, end: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def _opened(self) -> IO[Any]:
        if self.path.suffix != ".gz":
            return self.path.open("rb")
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with the object
        with gzip.open(self.path) as packed:
            shutil.copyfileobj(packed, unpacked, _CHUNK)
        unpacked.flush()
        return unpacked
