"""Engines: a table of them by prefix, and opening one by name, path or address."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote

from outthink.errors import EngineError, UnknownName, UsageError
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


_PARTS = ("spec", "bound", "generate", "learn", "close")  # of `Engine`
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def open_engine(name: str, *, price: Price | None = None) -> Engine:
    """Open a model by catalogue name, path of a GGUF file, recorded pool (.jsonl, .jsonl.gz) or address of a server.

    An address is such as http://localhost:8000/v1, with #MODEL at its end where the server has several. Other names may
    end in options, such as "qwen2.5-coder-0.5b-instruct?cache_gb=4". "module:Name" opens an engine of your own, with
    such options.

    Raises UsageError where it is not there, with the command that fetches it; UnknownName where nothing has that name.
    """
    prefix, given, options = _read(name)
    if prefix in ("http", "https"):
        engine: Engine = load(ENGINES[prefix])(name, price=price)
        return engine
    if prefix == "":
        own: Engine = make_own(given, options)
        if lacking := [part for part in _PARTS if not hasattr(own, part)]:
            raise UsageError(f"{given} is no engine: it has no {', '.join(lacking)} (see outthink.models.engine).")
        return own if price is None else priced_as(own, price)
    opened: Engine = call(load(ENGINES[prefix]), options, given, name=given, fixed={"price": price})
    return opened


def check_model(name: str) -> None:
    """Raise what `open_engine` would raise of a model that is not there, without opening it; no event loop may run.

    A server is asked for the names of its models. Of one that does not answer nothing is said: it may do so later.
    """
    prefix, given, _ = _read(name)
    if prefix in ("http", "https"):
        from outthink.models.probe import model_at

        with contextlib.suppress(EngineError):
            asyncio.run(model_at(name))
    elif prefix == "":
        load(given)
    else:
        _file(prefix, given)


def _file(prefix: str, given: str) -> Path:
    """The file that is opened; raises UsageError where there is none."""
    from outthink.models import catalog

    if os.path.exists(given):
        return Path(given)
    if prefix == "pool":
        raise UsageError(f"There is no {given}; record it with `outthink pool`.")
    file = catalog.path(given)  # which raises where there is no such name
    if file is None:
        raise UsageError(f"The model {given} is not on this machine yet: run `outthink models pull {given}`.")
    return file


def _read(name: str) -> tuple[str, str, dict[str, str]]:
    """What opens a model (a key of ENGINES; empty: it is one of your own), what of, and with which options."""
    from outthink.models import catalog  # here, because most of its imports are for fetching

    prefix, _, _ = name.partition(":")
    if prefix.lower() in ("http", "https"):
        return prefix.lower(), name, {}
    given, _, options = name.partition("?") if not os.path.exists(name) else (name, "", "")
    if prefix in ENGINES:
        given = given.removeprefix(f"{prefix}:")
    elif given.endswith((".jsonl", ".jsonl.gz")):
        prefix = "pool"
    elif (given and os.path.exists(given)) or given in catalog.entries():
        prefix = "embedded"
    elif _OWN.fullmatch(given):
        prefix = ""
    else:
        raise UnknownName("model", name, [*catalog.entries(), "PATH of a .gguf file", "http://HOST/v1"])
    return prefix, given, dict(parse_qsl(options, keep_blank_values=True))


def described(name: str, price: Price | None = None) -> EngineSpec | None:
    """What is known of a model without opening it or asking for it; None where only the opened one says it.

    Raises UsageError, as `open_engine` does, where that shows already that it cannot be opened.
    """
    prefix, given, _ = _read(name)
    if prefix in ("http", "https"):
        from outthink.models.endpoint import Endpoint

        Endpoint(given.partition("#")[0])
        return EngineSpec(name=name, price=price)
    if not prefix:
        return None
    file = _file(prefix, given)
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
    from outthink.models.probe import model_at  # here, because most engines need no probe

    return f"{name}#{quote(await model_at(name), safe='')}"
