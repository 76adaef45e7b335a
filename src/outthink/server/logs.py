"""A log that does not flood, with of faults of one kind at most one line a second; as text, or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

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


_ENCODER = json.JSONEncoder(default=str)


class AsJSON(logging.Formatter):
    """Each line an object: time, level, logger, message; of a request its id, key, strategy, tokens, cost ..."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        request: Callable[[], dict[str, Any]] | None = getattr(record, "request", None)
        told |= {"message": record.getMessage()} if request is None else request()
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(told)


def to_stderr(form: Literal["text", "json"]) -> None:
    """Write the log of this process to standard error: warnings, and of ours what `tells_all` asks for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Sparing())
    if form == "json":
        handler.setFormatter(AsJSON())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")


def tells_all() -> None:
    """From now on the server tells what it does."""
    logging.getLogger("outthink").setLevel(logging.INFO)
