"""Opens an embedded model by its path or its name in the catalogue."""

from __future__ import annotations

import os
from pathlib import Path

from outthink.errors import UnknownName, UsageError
from outthink.models import catalog
from outthink.models.engine import Price
from outthink.models.openvino.engine import OpenVINOEngine


def open_model(given: str, *, price: Price | None = None, cache_gb: float = 2.0) -> OpenVINOEngine:
    """The model; raises UsageError where it is not there, with the command that fetches it.

    Args:
        cache_gb: as for `OpenVINOEngine`.
    """
    path: Path | None = Path(given)
    name = Path(given).stem
    if not os.path.exists(given):
        if given not in catalog.entries():
            raise UnknownName("model", given, catalog.entries())
        name, path = given, catalog.path(given)
    if path is None:
        raise UsageError(f"The model {given} is not on this machine yet: run `outthink models pull {given}`.")
    return OpenVINOEngine(path, name=name, price=price, cache_gb=cache_gb)
