"""Engines, and opening one by name or path."""

from __future__ import annotations

from pathlib import Path

from outthink.errors import UnknownName, UsageError
from outthink.models.engine import Engine, Price


def open_engine(name: str, *, price: Price | None = None) -> Engine:
    """Open a model by catalogue name, the path of a GGUF file, or a recorded pool (.jsonl, .jsonl.gz).

    Raises UsageError where it is not there, with the command that fetches it.
    """
    from outthink.models import catalog  # here, because the catalogue reads a file

    given = Path(name)
    if given.suffix in (".jsonl", ".gz"):
        from outthink.models.recorded import RecordedEngine

        return RecordedEngine.open(given, price=price)
    if given.exists():
        from outthink.models.openvino import OpenVINOEngine

        return OpenVINOEngine(given, name=given.stem, price=price)
    if name not in catalog.entries():
        raise UnknownName("model", name, [*catalog.entries(), "PATH of a .gguf file"])
    found = catalog.path(name)
    if found is None:
        raise UsageError(f"The model {name} is not on this machine yet: run `outthink models pull {name}`.")
    from outthink.models.openvino import OpenVINOEngine

    return OpenVINOEngine(found, name=name, price=price)
