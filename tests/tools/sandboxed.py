"""Marks tests that run programs: without a sandbox they are skipped, in CI they fail."""

from __future__ import annotations

import os

import pytest

from outthink.errors import MissingResource
from outthink.sandbox.host import Sandbox


def missing() -> str | None:
    try:
        Sandbox()
    except MissingResource as cause:
        return str(cause)
    return None


needs_sandbox = pytest.mark.skipif(missing() is not None and not os.environ.get("CI"), reason="there is no sandbox")
