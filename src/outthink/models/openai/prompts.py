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

_HELD = 8 << 20  # bytes of all prompts that are remembered; each is of use while its own request runs
_EACH = 1 << 10  # bytes that a prompt takes at least, and each of its messages
_DESCRIBED = ("tools", "functions", "response_format", "documents", "chat_template", "chat_template_kwargs")


@dataclass(frozen=True)
class Prompt:
    """Messages as the API wants them, and fields that a chat template writes into the prompt, also as JSON."""

    given: tuple[Message, ...]
    messages: Sequence[Mapping[str, Any]]
    described: Mapping[str, Any]
    written: str

    @cached_property
    def size(self) -> int:
        """Most tokens of what is written into the prompt, without what the chat template adds around it all."""
        return len(_bytes(self.written)) + sum(8 + _size(message) for message in self.messages)

    @cached_property
    def sent(self) -> bytes:
        """The messages as JSON."""
        return json.dumps(self.messages).encode()

    @property
    def held(self) -> int:
        """About how many bytes it takes, as messages and as JSON."""
        return 2 * self.size + _EACH * (1 + len(self.messages))

    @cached_property
    def media(self) -> int:
        """How many images, sounds and files it has."""
        parts = (message.get("content") for message in self.messages)
        return sum(part.get("type") != "text" for one in parts if isinstance(one, list) for part in one)

    @cached_property
    def digest(self) -> bytes:
        """Tells it from prompts that say something else."""
        described = json.dumps(self.described).encode()  # JSON of one after JSON of the other: no two pairs are alike
        return hashlib.blake2b(self.sent + described, digest_size=16).digest()


class Prompts:
    """The last prompts, by the tuple of messages that they were made of and by what is written of the fields."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, str], Prompt] = OrderedDict()
        self._held = 0

    def __call__(self, given: tuple[Message, ...], fields: Mapping[str, Any]) -> Prompt:
        """Their prompt.

        Raises UsageError where a message is more than text and was not written for this API, or a field is no JSON.
        """
        described = {name: fields[name] for name in _DESCRIBED if fields.get(name)}
        written = _json(described) if described else ""
        name = (id(given), written)
        known = self._known.get(name)
        if known is not None:
            return known
        prompt = Prompt(given, _messages(given), described, written)
        self._held += prompt.held
        self._known[name] = prompt  # it holds the tuple, so no other one can get its id
        while self._held > _HELD and len(self._known) > 1:
            self._forget(next(iter(self._known)))
        return prompt

    def _forget(self, name: tuple[int, str]) -> None:
        self._held -= self._known.pop(name).held


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
        return len(_bytes(content))
    return len(_bytes(_json(message)))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as cause:
        raise UsageError(f"What is sent with a question must be JSON: {cause}.") from None
