"""Engines: a table of them by prefix, and opening one by name, path or address."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote

from outthink.errors import UnknownName, UsageError
from outthink.models.engine import Engine, EngineSpec, Price, priced_as
from outthink.names import call, load, make_own

ENGINES: Mapping[str, str] = {
    "http": "outthink.models.openai.engine:OpenAIEngine.open",
    "https": "outthink.models.openai.engine:OpenAIEngine.open",
    "pool": "outthink.models.recorded:RecordedEngine.open",
    "embedded": "outthink.models.openvino.opening:open_model",
}
"""What opens a model, by what stands before the first colon of its name; it gets the rest, `price`, and the options.

Where nothing stands there, a pool is known by its ending, and all else is embedded. An address is given whole.
"""


_SERVED = ("http", "https")
_PARTS = ("spec", "bound", "generate", "learn", "close")  # of `Engine`
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def open_engine(name: str, *, price: Price | None = None) -> Engine:
    """Open a model by catalogue name, path of a GGUF file, recorded pool (.jsonl, .jsonl.gz) or address of a server.

    An address is such as http://localhost:8000/v1, with #MODEL at its end where the server has several. Other names may
    end in options, such as "qwen2.5-coder-0.5b-instruct?cache_gb=4". "module:Name" opens an engine of your own, with
    such options.

    Raises UsageError where it is not there, with the command that fetches it; UnknownName where nothing has that name.
    """
    prefix, given, options = _taken_apart(name)
    if prefix in _SERVED:
        engine: Engine = load(ENGINES[prefix])(name, price=price)
        return engine
    written = dict(parse_qsl(options, keep_blank_values=True))
    if not prefix:
        own: Engine = make_own(given, written)
        if lacking := [part for part in _PARTS if not hasattr(own, part)]:
            raise UsageError(f"{given} is no engine: it has no {', '.join(lacking)} (see outthink.models.engine).")
        return own if price is None else priced_as(own, price)
    opened: Engine = call(load(ENGINES[prefix]), written, given, name=given, fixed={"price": price})
    return opened


def _taken_apart(name: str) -> tuple[str, str, str]:
    """The key in ENGINES, empty for an engine of somebody's own; what it opens; and the options.

    Raises UnknownName where nothing has that name.
    """
    from outthink.models import catalog  # here, because most of its imports are for fetching

    prefix, _, _ = name.partition(":")
    if prefix.lower() in _SERVED:
        return prefix.lower(), name, ""
    given, _, options = name.partition("?") if not os.path.exists(name) else (name, "", "")
    if prefix in ENGINES:
        return prefix, given.removeprefix(f"{prefix}:"), options
    if given.endswith((".jsonl", ".jsonl.gz")):
        return "pool", given, options
    if (given and os.path.exists(given)) or given in catalog.entries():
        return "embedded", given, options
    if _OWN.fullmatch(given):
        return "", given, options
    raise UnknownName("model", name, [*catalog.entries(), "PATH of a .gguf file", "http://HOST/v1"])


def described(name: str, price: Price | None = None) -> EngineSpec | None:
    """What is known of a model without opening it or asking for it; None where only the opened one says it.

    Raises UsageError, as `open_engine` does, where that shows already that it cannot be opened.
    """
    from outthink.models import catalog

    prefix, given, _ = _taken_apart(name)
    if prefix in _SERVED:
        from outthink.models.endpoint import Endpoint

        Endpoint(given.partition("#")[0])
        return EngineSpec(name=name, price=price)
    if not prefix:
        return None
    file = Path(given)
    if prefix == "embedded" and given in catalog.entries() and not file.exists():
        pulled = catalog.path(given)
        if pulled is None:
            raise UsageError(f"The model {given} is not on this machine yet: run `outthink models pull {given}`.")
        file = pulled
    if not file.exists():
        raise UsageError(f"There is no file {file}.")
    if file.suffix != ".gguf":
        return None  # a pool says what its tokens cost
    from outthink.models.gguf import Header

    return EngineSpec(name=name, price=price, shape=Header.read(file).shape(file))


async def with_model(name: str) -> str:
    """The name of a model; an address without #MODEL gets that of the only model there.

    Raises UsageError with the names where there are several, and EngineError where the server is not there.
    """
    if "#" in name or not name.startswith(("http://", "https://")):
        return name
    from outthink.models.probe import only_model  # here, because most engines need no probe

    return f"{name}#{quote(await only_model(name), safe='')}"
