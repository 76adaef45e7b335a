"""Imports OpenVINO without the part of it that tells its maker of each import.

With `openvino_telemetry` installed, as it is with OpenVINO, every import sends an event over the network and keeps an
identifier in the home directory. Where that package cannot be imported, OpenVINO goes without it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"


def openvino_genai() -> Any:
    """The module of this name; `openvino` is imported as well.

    Raises ImportError where it is not installed.
    """
    known = _TELEMETRY in sys.modules
    if not known:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        return importlib.import_module("openvino_genai")
    finally:
        if not known:
            del sys.modules[_TELEMETRY]  # whoever asks for it by name gets it
