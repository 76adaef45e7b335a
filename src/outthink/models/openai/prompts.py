"""What is sent of a prompt, and the most tokens that it has: worked out once, however often a request asks for it."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from outthink.errors import UsageError
from outthink.types import Message, writable

_HELD = 64 << 20  # bytes of all prompts that are remembered
_DESCRIBED = ("tools", "functions", "response_format", "documents", "chat_template", "chat_template_kwargs")


@dataclass(frozen=True)
class Prompt:
    """Messages as the API wants them, and fields that a chat template writes into the prompt."""

    given: tuple[Message, ...]
    messages: Sequence[Mapping[str, Any]]
    described: Mapping[str, Any]

    @cached_property
    def size(self) -> int:
        """Most tokens of what is written into the prompt, without what the chat template adds around it all."""
        fields = _bytes(self.described) if self.described else 0
        return fields + sum(8 + _size(message) for message in self.messages)

    @cached_property
    def media(self) -> int:
        """How many images, sounds and files it has."""
        parts = (message.get("content") for message in self.messages)
        return sum(part.get("type") != "text" for one in parts if isinstance(one, list) for part in one)

    @cached_property
    def digest(self) -> bytes:
        """Tells it from prompts that say something else."""
        asked = json.dumps([self.messages, self.described])
        return hashlib.blake2b(asked.encode(), digest_size=16).digest()


class Prompts:
    """The last prompts, by the tuple of messages that they were made of."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, bool], Prompt] = OrderedDict()
        self._held = 0

    def __call__(self, given: tuple[Message, ...], fields: Mapping[str, Any]) -> Prompt:
        """Their prompt; raises UsageError where a message is more than text and was not written for this API."""
        described = {name: fields[name] for name in _DESCRIBED if fields.get(name)}
        name = (id(given), bool(described))
        known = self._known.get(name)
        if known is not None and known.given is given and known.described == described:
            return known
        prompt = Prompt(given, _messages(given), described)
        if known is not None:
            self._forget(name)
        self._known[name] = prompt  # it holds the tuple, so no other one can get its id
        self._held += prompt.size
        while self._held > _HELD and len(self._known) > 1:
            self._forget(next(iter(self._known)))
        return prompt

    def _forget(self, name: tuple[int, bool]) -> None:
        self._held -= self._known.pop(name).size


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    for parts in (message.content for message in messages if message.sent is None):
        if not isinstance(parts, str) and any(part.kind != "text" for part in parts):
            raise UsageError("This model reads text only; leave images, audio and files out of the messages.")
    return [
        {"role": message.role, "content": writable(message.text)} if message.sent is None else dict(message.sent)
        for message in messages
    ]


def _size(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2:
        return len(content.encode("utf-8", "surrogatepass"))
    return _bytes(message)


def _bytes(value: Mapping[str, Any]) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
