"""What a caller asks for: the body and the headers of a chat request, checked and taken apart.

Header goes before body, field by field. Nothing is ever read out of the messages: they are what the model gets, and
say nothing about how it is run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outthink.server.body import Sizes, decoded, media_size, not_json
from outthink.server.errors import BadRequest
from outthink.types import AnswerKind, Budget, Message, Part, writable

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: Mapping[Effort, int] = {"none": 1, "minimal": 2, "low": 4, "medium": 8, "high": 16, "xhigh": 32, "max": 64}
"""How many samples' worth an effort may spend."""

MOST = 1024
"""Most samples that a caller may ask a strategy for."""

_MOST_WRONG = 500  # fields that are told apart; each takes a while to describe

# what the server itself does something with; all other fields of the body are given on to the model as they are
_OWN = frozenset(
    {"model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"}
    | {"temperature", "top_p", "reasoning_effort", "outthink"}
)
# what some servers call the cap and the count, which would go past the budget
_INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(("n_predict", "num_predict", "max_new_tokens", "max_length"), "max_tokens"),
    **dict.fromkeys(("best_of", "num_return_sequences", "n_cmpl"), "n"),
}
_HEADERS = ("strategy", "n", "budget", "plan", "answer")


class Spend(BaseModel):
    """What a request may spend; every limit is kept."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tokens: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    flops: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class Wish(BaseModel):
    """How the answer is to be found."""

    model_config = ConfigDict(extra="forbid", strict=True)

    strategy: Annotated[str, Field(max_length=128)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST)] | None = None
    budget: Spend | Annotated[str, Field(max_length=256)] | None = None
    plan: Annotated[str, Field(max_length=128)] | None = None
    answer: AnswerKind | None = None
    progress: bool = False


class AskedMessage(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A request of OpenAI's chat API; fields that are not named here reach the model as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: Annotated[str, Field(min_length=1, max_length=512)]
    messages: Annotated[list[AskedMessage], Field(min_length=1, max_length=4096)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 30)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 30)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Effort | None = None
    outthink: Wish | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request, taken apart.

    Args:
        model: as the caller names it, a strategy after a + included.
        messages: the conversation; each turn holds what was sent.
        fields: what the model is asked for besides, as it was sent.
        choices: answers wanted (n in the API).
        temperature, top_p, max_tokens, seed: None where they were not sent.
        budget: None where none was asked for.
        wish: strategy, n, plan, answer, progress; headers have been put in.
        size: bytes of the body.
    """

    model: str
    messages: tuple[Message, ...]
    fields: Mapping[str, Any]
    choices: int
    stream: bool
    include_usage: bool
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    seed: int | None
    effort: Effort | None
    budget: Budget | None
    wish: Wish
    size: int = 0

    @property
    def media(self) -> bool:
        """Whether a message holds more than text."""
        return any(not isinstance(m.content, str) and any(p.kind != "text" for p in m.content) for m in self.messages)


def read(body: bytes, headers: Mapping[str, str], sizes: Sizes | None = None) -> Asked:
    """The chat request; raises BadRequest with the field that is wrong and what it should be.

    Args:
        sizes: of the body; None: as large as one is by default.
    """
    return read_chat(parsed(body), len(body), headers, sizes)


def parsed(body: bytes) -> dict[str, Any]:
    """The object in a body; raises BadRequest where there is none."""
    text = decoded(body)
    try:
        raw = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except ValueError:
        raise not_json() from None
    if not isinstance(raw, dict):
        raise BadRequest("The body is not a JSON object; send one with model and messages.", code="invalid_json")
    return raw


def read_chat(raw: dict[str, Any], size: int, headers: Mapping[str, str], sizes: Sizes | None = None) -> Asked:
    """A chat request from its body as JSON data, which had so many bytes; raises as `read` does."""
    try:
        told = ChatRequest.model_validate(raw)
        wish = _with_headers(told.outthink or Wish(), headers)
    except ValidationError as failure:
        raise wrong_field(failure) from None
    media = sum(media_size(turn.content) for turn in told.messages if isinstance(turn.content, list))
    (sizes or Sizes()).check(size - media, media)
    if told.stream_options is not None and not told.stream:
        raise BadRequest("stream_options is for streams only; leave it out, or set stream.", param="stream_options")
    if told.top_logprobs is not None and not told.logprobs:
        raise BadRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
    for name in sorted(raw.keys() & _INSTEAD.keys()):
        raise BadRequest(f"{name} is not a field of OpenAI's API; use {_INSTEAD[name]}.", param=name)
    return Asked(
        model=told.model,
        messages=tuple(_message(place, turn, sent) for place, (turn, sent) in enumerate(_turns(told, raw))),
        fields={name: value for name, value in raw.items() if name not in _OWN and value is not None},
        choices=told.n or 1,
        stream=bool(told.stream),
        include_usage=bool(told.stream_options and told.stream_options.include_usage),
        temperature=told.temperature,
        top_p=told.top_p,
        max_tokens=told.max_completion_tokens or told.max_tokens,
        seed=told.seed,
        effort=told.reasoning_effort,
        budget=_budget(wish.budget),
        wish=wish,
        size=size,
    )


def _turns(told: ChatRequest, raw: Mapping[str, Any]) -> list[tuple[AskedMessage, dict[str, Any]]]:
    return list(zip(told.messages, raw["messages"], strict=True))


def _message(place: int, turn: AskedMessage, sent: dict[str, Any]) -> Message:
    content = turn.content
    if content is None:
        if turn.role in ("system", "developer", "user"):
            raise BadRequest(f"messages.{place}.content is missing.", param=f"messages.{place}.content")
        return Message(role=turn.role, content="", sent=sent)
    if isinstance(content, str):
        return Message(role=turn.role, content=writable(content), sent=sent)
    parts = []
    for number, part in enumerate(content):
        kind = part.get("type")
        written = part.get(kind) if kind in ("text", "refusal") else ""
        if not isinstance(kind, str) or not isinstance(written, str):
            where = f"messages.{place}.content.{number}"
            raise BadRequest(f"{where} must have a type, and a text where the type is text.", param=where)
        parts.append(Part(text=writable(written)) if kind in ("text", "refusal") else Part(kind=_kind(kind)))
    return Message(role=turn.role, content=tuple(parts), sent=sent)


def _kind(name: str) -> Literal["image", "audio", "file"]:
    return "image" if "image" in name else "audio" if "audio" in name else "file"


def _with_headers(wish: Wish, headers: Mapping[str, str]) -> Wish:
    """What headers say in place of what the body says."""
    given: dict[str, Any] = {}
    for name in _HEADERS:
        value = headers.get(f"X-Outthink-{name}")
        if value is not None:
            given[name] = value
    if not given:
        return wish
    if "n" in given:
        try:
            given["n"] = int(given["n"])
        except ValueError:
            raise BadRequest("The header X-Outthink-N must be a whole number.", param="X-Outthink-N") from None
    return Wish.model_validate(wish.model_dump(exclude_none=True) | given)


def _budget(given: Spend | str | None) -> Budget | None:
    if given is None:
        return None
    try:
        if isinstance(given, str):
            return Budget.parse(given)
        return Budget(given.model_dump(exclude_none=True)) if given.model_fields_set else None
    except ValueError as cause:
        raise BadRequest(f"{str(cause)[0].upper()}{str(cause)[1:]}.", param="outthink.budget") from None


def _no_number(name: str) -> None:
    raise ValueError(name)


def _finite(number: str) -> float:
    """A number as it is; one that is too large for a float could not be written again."""
    value = float(number)
    if math.isinf(value):
        raise ValueError(number)
    return value


def wrong_field(failure: ValidationError) -> BadRequest:
    """The first thing that is wrong, without repeating what was sent."""
    if failure.error_count() > _MOST_WRONG:
        return BadRequest(f"The body is wrong in {failure.error_count():,} places; send a chat request.")
    first = failure.errors(include_input=False, include_url=False, include_context=False)[0]
    # a field that may be one of several types is named together with the type; people look for the field
    names = [str(part) for part in first["loc"] if not (isinstance(part, str) and ("[" in part or part in _TYPES))]
    where = ".".join(names)[:200]
    message = first["msg"].removeprefix("Value error, ")
    return BadRequest(f"{where}: {message}." if where else f"{message}.", param=where or None)


_TYPES = frozenset({"str", "int", "float", "bool", "Spend", "constrained-str"})
