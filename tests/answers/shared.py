"""Where the shared data lie, for tests that read them where they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def shared_file(name: str) -> Path:
    """A file beside the project; the test is skipped where it is not there."""
    path = Path(os.environ.get("OUTTHINK_SHARED") or ROOT.parent / "shared") / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
