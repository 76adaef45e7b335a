"""What a file or folder is, for those who were given another one than they wanted.

Source: none of its own.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import IO, Any, Literal, cast

from outthink.records.runs import RESULTS, RUN

Form = Literal["results", "traces", "pool"]
"""What the lines of a file are: results of a run, bare traces, or problems with recorded samples."""

_FORMS = {"results": "holds results of a run", "traces": "holds traces", "pool": "is a pool of samples"}
FOREIGN = frozenset(
    {"is a folder", "is the directory of a run", "is no text", "is no JSON", "is JSON of another kind"}
    | set(_FORMS.values()) - {_FORMS["pool"]}
)
"""What `what_is` says of what no line of a pool is in."""

_MOST = 1 << 26  # bytes of a file that are read to tell what it is


def form_of(line: bytes) -> Form | None:
    """What a file with this line holds; None: nothing that is known here."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return _form(row)


def what_is(path: Path) -> str:
    """What is at a path that is there, as the end of a sentence, such as "is a folder"."""
    if os.path.isdir(path):
        run = (path / RUN).is_file() or (path / RESULTS).is_file()
        return "is the directory of a run" if run else "is a folder"
    try:
        with cast("IO[bytes]", gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            data = file.read(_MOST)
    except (OSError, EOFError, zlib.error) as cause:
        return f"cannot be read ({getattr(cause, 'strerror', None) or cause})"
    if not data.strip():
        return "is empty"
    first, _, more = data.lstrip().partition(b"\n")
    if (form := form_of(first)) is not None:
        return _FORMS[form]
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "is no text"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        if more.strip() and _is_json(first):
            return "holds JSON line by line"
        return "is JSON that is cut off or damaged" if text.lstrip()[:1] in "{[" else "is no JSON"
    return "is JSON of another kind"


def _form(row: Any) -> Form | None:
    if not isinstance(row, dict):
        return None
    if isinstance(row.get("samples"), list):
        return "pool"
    if "candidates" in row and "calls" in row:
        return "traces"
    return "results" if {"problem", "credit", "trace"} <= row.keys() else None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
