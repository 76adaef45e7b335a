"""The models that a server lists, in whatever form it does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from outthink.errors import EngineError, Refused, UsageError
from outthink.models.endpoint import Endpoint

_ABSENT = frozenset({404, 405, 410, 501})  # there is no such list
_CONTEXTS = (
    "max_model_len", "context_length", "loaded_context_length", "max_context_length", "context_window",
    "max_context_tokens", "context_size",
)  # fmt: skip


async def listed(endpoint: Endpoint) -> dict[str, Mapping[str, Any]]:
    """What is told of each model by name.

    Raises UsageError where the server has no list, and EngineError where it cannot be asked or answers otherwise.
    """
    try:
        reply = await endpoint.get("models")
    except Refused as failure:
        if failure.status not in _ABSENT:
            raise
        raise UsageError(
            f"{endpoint.url} has no list of models: write its address as far as /v1, if that is in it, and add #MODEL."
        ) from None
    given, key = reply, "id"
    if isinstance(reply, Mapping):
        key = "id" if "data" in reply else "name"
        given = reply.get("data", reply.get("models"))
    entries = [_named(entry, key) for entry in given] if isinstance(given, list) else [None]
    if None in entries or (not entries and given is reply):
        raise EngineError(f"{endpoint.url}/models is not a list of models: is this the address of an API?")
    return dict(filter(None, entries))


def _named(entry: Any, key: str) -> tuple[str, Mapping[str, Any]] | None:
    if not isinstance(entry, Mapping):
        return None
    name = entry.get("id", entry.get("model", entry.get("name")) if key == "name" else None)
    return None if name is None else (str(name), entry)


def nearest(wanted: str, entries: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The entry that a name means: the name itself, with the folder or tag that some leave out, or an alias of it.

    A list without entries says nothing, so the name is taken as it is. None where there is no such entry.
    """
    if wanted in entries or not entries:
        return wanted
    for name in (
        f"models/{wanted}",
        wanted.removeprefix("models/"),
        f"{wanted}:latest",
        wanted.removesuffix(":latest"),
    ):
        if name in entries:
            return name
    return next((name for name, entry in entries.items() if wanted in _aliases(entry)), None)


def _aliases(entry: Mapping[str, Any]) -> Collection[Any]:
    aliases = entry.get("aliases")
    return aliases if isinstance(aliases, list) else ()


def context(entry: Mapping[str, Any]) -> int | None:
    """Most tokens of prompt and completion, where the entry tells."""
    return next((entry[name] for name in _CONTEXTS if type(entry.get(name)) is int and entry[name] > 0), None)
