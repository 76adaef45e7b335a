"""A log that does not flood: of faults of one kind at most one line a second."""

from __future__ import annotations

import logging
import sys
import time

_KINDS = 1000  # that are remembered


class Sparing(logging.Filter):
    """Lets one warning or error of a kind through each second; the next one says how many were left out.

    Lines of one kind have the same logger, level and wording, values left out. Lines below a warning pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, int, str], float] = {}
        self._left_out: dict[tuple[str, int, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.levelno < logging.WARNING:
            return True
        kind = (record.name, record.levelno, str(record.msg).partition("\n")[0][:200])
        now = time.monotonic()
        if now - self._told.get(kind, -1.0) < 1.0:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        if len(self._told) >= _KINDS:
            self._told.clear()
        self._told[kind] = now
        if left_out := self._left_out.pop(kind, 0):
            record.msg = f"{record.msg} ({left_out} more of these were left out)"
        return True


def to_stderr() -> None:
    """Write the log of this process to standard error."""
    told = logging.StreamHandler(sys.stderr)
    told.addFilter(Sparing())
    logging.basicConfig(handlers=[told], level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("outthink").setLevel(logging.INFO)
