"""How a door takes requests and writes replies: chat's own form, in which all others are put."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from outthink.server.problems import APIError


class Form(Protocol):
    """One request of a door, which is a chat request in other words, and its reply.

    It is made from the body, as JSON data, and raises BadRequest or ValidationError where that is none of its kind.
    """

    chats: Sequence[dict[str, Any]]
    """What is asked for, as bodies of chat requests; they are worked on side by side."""
    renamed: Mapping[str, str]
    """Fields of a chat request under the names that they have here."""

    def whole(self, completions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The reply, from the chat completions."""

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """The events for a chunk of a chat's stream."""

    def end(self) -> bytes:
        """The events after the last chunk."""

    def fail(self, problem: APIError) -> bytes:
        """The event for an error on the way."""


class ChatForm:
    """Requests and replies of the chat API, as they are."""

    renamed: Mapping[str, str] = {}

    def __init__(self, raw: dict[str, Any]) -> None:
        self.chats: Sequence[dict[str, Any]] = [raw]

    def whole(self, completions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The completion."""
        return completions[0]

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """An event of the chunk."""
        return event(chunk)

    def end(self) -> bytes:
        """The mark of the end."""
        return DONE

    def fail(self, problem: APIError) -> bytes:
        """An event with an error object; there is no mark of the end after it."""
        return event(problem.body())


DONE = b"data: [DONE]\n\n"


def event(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """A server-sent event."""
    return (b"" if name is None else f"event: {name}\n".encode()) + b"data: " + dumped(data).encode() + b"\n\n"


def dumped(data: Any) -> str:
    """As JSON, which knows no infinity: a logprob of minus infinity is -9999, as in OpenAI's API."""
    try:
        return json.dumps(data, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(data), separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return -9999.0 if isinstance(value, float) and not math.isfinite(value) else value
