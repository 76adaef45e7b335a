"""What a message says, whose content is a text or a list of parts.

Source: the parts of OpenAI's, Anthropic's and Mistral's messages, as their references describe them. Differs: a part of
another kind is read by what it holds, and what cannot be read is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_THOUGHTS = ("thinking", "reasoning", "thought")  # in the names of the kinds of such parts
_CALLS = frozenset({"tool_use", "tool_call", "function_call", "tool_calls"})
_TEXTS = ("text", "content", "value", "summary", "thinking", "reasoning", "reasoning_content")
_DEEP = 4  # levels of parts within parts


@dataclass(slots=True)
class Parts:
    """What a content holds."""

    text: str = ""
    thoughts: str = ""
    refusal: str = ""
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)
    """Parts that are neither, such as images and references."""


def read(content: Any) -> Parts:
    """The content of a message; raises TypeError where it is no text, list or object."""
    if content is None or isinstance(content, str):
        return Parts(content or "")
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        raise TypeError("a text that is none")
    parts = Parts()
    for part in content:
        _add(parts, part)
    return parts


def joined(given: Any) -> str:
    """The text in a field that is a text or a list of parts; empty where it has none."""
    return _text(given, 0)


def _add(parts: Parts, part: Any) -> None:
    if isinstance(part, str):
        parts.text += part
        return
    if not isinstance(part, Mapping):
        raise TypeError("a part that is none")
    kind = str(part.get("type") or "").lower()
    if any(name in kind for name in _THOUGHTS) or part.get("thought") is True:
        parts.thoughts += _text(part, 0)
    elif kind in _CALLS:
        parts.calls.append(part)
    elif "refusal" in kind or (not kind and isinstance(part.get("refusal"), str)):
        refusal = part.get("refusal")
        parts.refusal += refusal if isinstance(refusal, str) else _text(part, 0)
    elif not kind or "text" in kind:
        said = _text(part, 0)
        if said or "text" in part:
            parts.text += said
        else:
            parts.others.append(part)
    else:
        parts.others.append(part)


def _text(given: Any, depth: int) -> str:
    """The text in a part, which may be of parts itself."""
    if isinstance(given, str):
        return given
    if depth > _DEEP:
        return ""
    if isinstance(given, list):
        return "".join(_text(inner, depth + 1) for inner in given)
    if isinstance(given, Mapping):
        inner = next((given[name] for name in _TEXTS if isinstance(given.get(name), str | list | Mapping)), None)
        return _text(inner, depth + 1)
    return ""
