"""Turns "module:attribute" into the object it stands for, and back."""

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


def name_of(value: object) -> str:
    """The "module:name" of a class or function, for anything else that of its type: the same in every process."""
    named: Any = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"
