"""Files that lie beside the project and not in it; tests that need them are skipped where they are not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared(*parts: str) -> Path:
    """The file; skips the test without it."""
    folder = Path(os.environ.get("OUTTHINK_SHARED", Path(__file__).parents[3] / "shared"))
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not here")
    return path
