"""The packages for local models, for tests that need them."""

from __future__ import annotations

from typing import Any

import pytest

from outthink.models.openvino.loading import openvino_genai


def genai_or_skip() -> Any:
    """The module `openvino_genai`; without it the test, or the file where it is asked for at the top, is skipped.

    Imported in any other way it keeps a thread, in whose company the clock of `tests.tools.server` jumps slowly.
    """
    try:
        return openvino_genai()
    except ImportError:
        pytest.skip("the packages for local models are not installed", allow_module_level=True)
