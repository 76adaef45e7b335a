"""Engines, and opening one by name or path."""

from __future__ import annotations

from pathlib import Path

from outthink.errors import UnknownName, UsageError
from outthink.models.engine import Engine, Price


def open_engine(name: str, *, price: Price | None = None) -> Engine:
    """Open a model by catalogue name, path of a GGUF file, recorded pool (.jsonl, .jsonl.gz) or address of a server.

    An address is such as http://localhost:8000/v1, with #MODEL at its end where the server has several.

    Raises UsageError where it is not there, with the command that fetches it.
    """
    from outthink.models import catalog  # here, because the catalogue reads a file

    if name.lower().startswith(("http://", "https://")):
        from outthink.models.openai.engine import OpenAIEngine

        return OpenAIEngine.open(name, price=price)
    given = Path(name)
    if given.suffix in (".jsonl", ".gz"):
        from outthink.models.recorded import RecordedEngine

        return RecordedEngine.open(given, price=price)
    if given.exists():
        from outthink.models.openvino.engine import OpenVINOEngine

        return OpenVINOEngine(given, name=given.stem, price=price)
    if name not in catalog.entries():
        raise UnknownName("model", name, [*catalog.entries(), "PATH of a .gguf file", "http://HOST/v1"])
    file = catalog.path(name)
    if file is None:
        raise UsageError(f"The model {name} is not on this machine yet: run `outthink models pull {name}`.")
    from outthink.models.openvino.engine import OpenVINOEngine

    return OpenVINOEngine(file, name=name, price=price)
