"""Turns a name, or "module:attribute", into the object it stands for."""

from __future__ import annotations

import importlib
from typing import Any

from outthink.errors import UsageError


def load(target: str) -> Any:
    """Import "module:attribute"; raises UsageError with the reason where that fails."""
    module, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as cause:
        raise UsageError(f"Cannot load {target!r}: {cause}. Write module:name, with the module importable.") from cause
    return found
