"""The door /v1/completions: a prompt is a chat of one message, and the reply is its text.

Source: OpenAI's API of completions (legacy). Differs: the model gets the prompt as a user's message, with its chat
template; each of several prompts is worked on as a request of its own; without max_tokens there is no cap of 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from outthink.server.asked import Wish
from outthink.server.errors import BadRequest
from outthink.server.forms import DONE, event
from outthink.server.problems import APIError

_MOST = 128  # choices of all prompts together
_OF_CHATS = ("messages", "tools", "tool_choice", "response_format", "top_logprobs", "max_completion_tokens")


class CompletionRequest(BaseModel):
    """A request of OpenAI's completions; fields that are not named here reach the model as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: Annotated[str, Field(min_length=1, max_length=512)]
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=_MOST)]
    max_tokens: Annotated[int, Field(ge=1, le=1 << 30)] | None = None
    n: Annotated[int, Field(ge=1, le=_MOST)] | None = None
    stream: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    outthink: Wish | None = None


class CompletionsForm:
    """One request of /v1/completions, and its reply."""

    renamed: Mapping[str, str] = {"messages": "prompt", "top_logprobs": "logprobs"}

    def __init__(self, raw: dict[str, Any]) -> None:
        asked = CompletionRequest.model_validate(raw)
        for name in ("echo", "suffix", "best_of"):
            if raw.get(name) not in (None, False, ""):
                instead = "; outthink.n says how many samples are drawn" if name == "best_of" else ""
                raise BadRequest(f"{name} is not served here; leave it out{instead}.", param=name)
        for name in _OF_CHATS:
            if raw.get(name) is not None:
                raise BadRequest(f"{name} belongs to /v1/chat/completions; leave it out, or ask there.", param=name)
        prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        self._each = asked.n or 1
        if len(prompts) * self._each > _MOST:
            raise BadRequest(f"Prompts and n make more than {_MOST} choices; ask for fewer.", param="prompt")
        if asked.stream and len(prompts) > 1:
            raise BadRequest("Several prompts cannot be streamed; send one, or leave stream out.", param="stream")
        own = ("prompt", "logprobs", "echo", "suffix", "best_of")
        rest = {name: value for name, value in raw.items() if name not in own}
        if asked.logprobs is not None:
            rest |= {"logprobs": True, "top_logprobs": asked.logprobs}
        self.chats: Sequence[dict[str, Any]] = [
            {**rest, "messages": [{"role": "user", "content": prompt}]} for prompt in prompts
        ]
        self._written: dict[int, int] = {}
        """Characters of each choice of a stream so far."""

    def whole(self, completions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A completion with the choices of all prompts, in order."""
        choices = [
            self._choice(choice, choice["message"], place * self._each)
            for place, one in enumerate(completions)
            for choice in one["choices"]
        ]
        told = [one["outthink"] for one in completions]
        return {
            **self._head(completions[0]),
            "choices": choices,
            "usage": _sum([one["usage"] for one in completions]),
            "outthink": told[0] if len(told) == 1 else told,
        }

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """An event where something was written, or is told."""
        choices = [self._choice(choice, choice["delta"], 0) for choice in chunk["choices"]]
        choices = [choice for choice in choices if choice["text"] or choice["finish_reason"]]
        more: dict[str, Any] = {name: chunk[name] for name in ("usage", "outthink") if name in chunk}
        if not choices and not any(more.values()):
            return b""
        return event({**self._head(chunk), "choices": choices, **more})

    def end(self) -> bytes:
        """The mark of the end."""
        return DONE

    def fail(self, problem: APIError) -> bytes:
        """An event with an error object."""
        return event(problem.body())

    def _head(self, told: Mapping[str, Any]) -> dict[str, Any]:
        ident = str(told["id"]).replace("chatcmpl-", "cmpl-")
        return {"id": ident, "object": "text_completion", "created": told["created"], "model": told["model"]}

    def _choice(self, choice: Mapping[str, Any], said: Mapping[str, Any], first: int) -> dict[str, Any]:
        place, text = first + choice["index"], said.get("content") or ""
        begin = self._written.get(place, 0)
        self._written[place] = begin + len(text)
        return {
            "index": place,
            "text": text,
            "logprobs": _logprobs(choice.get("logprobs"), begin),
            "finish_reason": choice.get("finish_reason"),
        }


def _logprobs(told: Mapping[str, Any] | None, begin: int) -> dict[str, Any] | None:
    """Logprobs of a chat as completions have them; `begin`: characters before the first token."""
    tokens = (told or {}).get("content")
    if not tokens:
        return None
    offsets = [begin]
    for one in tokens[:-1]:
        offsets.append(offsets[-1] + len(one["token"]))
    tops = [{top["token"]: top["logprob"] for top in one.get("top_logprobs") or ()} for one in tokens]
    return {
        "tokens": [one["token"] for one in tokens],
        "token_logprobs": [one["logprob"] for one in tokens],
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }


def _sum(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers of several replies together, those within objects too."""
    first = usages[0]
    return {
        name: _sum([usage[name] for usage in usages])
        if isinstance(first[name], Mapping)
        else sum(usage[name] for usage in usages)
        for name in first
    }
