"""The door /v1/responses: its input becomes a chat, and the chat's reply its output items and events.

Source: OpenAI's API of responses. Differs: nothing is kept, so there is no earlier response to go on from; tools are
functions only; `reasoning.effort` says how many samples' worth may be spent, as for chats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from outthink.server.asked import Effort, Wish
from outthink.server.errors import BadRequest
from outthink.server.forms import event
from outthink.server.problems import APIError

_LOGPROBS = "message.output_text.logprobs"
_INCLUDED = (_LOGPROBS, "reasoning.encrypted_content")  # of the latter there is never any
_ROLES = ("user", "assistant", "system", "developer")
_OF_CHATS = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
    "n": "outthink.n",
}
_OWN = frozenset(
    {"input", "instructions", "max_output_tokens", "text", "reasoning", "include", "tools", "tool_choice", "metadata"}
    | {"top_logprobs", "stream_options", "store", "previous_response_id", "conversation", "prompt", "background"}
    | {"truncation", "max_tool_calls"}
)


class ReasoningOptions(BaseModel):
    """How much is thought."""

    model_config = ConfigDict(extra="forbid", strict=True)

    effort: Effort | None = None
    summary: Literal["auto"] | None = None


class TextOptions(BaseModel):
    """What form the text has."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseRequest(BaseModel):
    """A request of OpenAI's responses; fields that are not named here reach the model as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: Annotated[str, Field(min_length=1, max_length=512)]
    input: str | Annotated[list[dict[str, Any]], Field(min_length=1, max_length=4096)]
    instructions: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1 << 30)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    outthink: Wish | None = None


class ResponsesForm:
    """One request of /v1/responses, and its reply."""

    renamed: Mapping[str, str] = {
        "messages": "input",
        "max_tokens": "max_output_tokens",
        "max_completion_tokens": "max_output_tokens",
        "response_format": "text.format",
        "reasoning_effort": "reasoning.effort",
    }

    def __init__(self, raw: dict[str, Any]) -> None:
        self._asked = asked = ResponseRequest.model_validate(raw)
        _check(asked, raw)
        self.chats: Sequence[dict[str, Any]] = [_chat(asked, raw)]
        self._output = _Output()
        self._head: dict[str, Any] = {}
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None
        self._told: dict[str, Any] | None = None
        self._events = 0

    def whole(self, completions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The response."""
        (completion,) = completions
        (choice,) = completion["choices"]
        said = choice["message"]
        calls = [{"index": place, **call} for place, call in enumerate(said.get("tool_calls") or ())]
        self._begin(completion)
        list(self._output.said({**said, "tool_calls": calls}, choice.get("logprobs")))
        self._finish, self._usage, self._told = choice["finish_reason"], completion["usage"], completion["outthink"]
        list(self._output.end(self._status()))
        return self._response(self._status())

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """The events of what is new in it."""
        events: list[bytes] = []
        if not self._head:
            self._begin(chunk)
            for kind in ("response.created", "response.in_progress"):
                events.append(self._event(kind, response=self._response("in_progress")))
        for choice in chunk["choices"]:
            told = self._output.said(choice["delta"], choice.get("logprobs"))
            events += (self._event(kind, **more) for kind, more in told)
            self._finish = choice["finish_reason"] or self._finish
        self._usage = chunk.get("usage") or self._usage
        self._told = chunk.get("outthink") or self._told
        return b"".join(events)

    def end(self) -> bytes:
        """What ends all that is open, and the whole response."""
        status = self._status()
        events = [self._event(kind, **more) for kind, more in self._output.end(status)]
        return b"".join([*events, self._event(f"response.{status}", response=self._response(status))])

    def fail(self, problem: APIError) -> bytes:
        """The response has failed."""
        code = "rate_limit_exceeded" if problem.status == 429 else "server_error"
        failed = {**self._response("failed"), "error": {"code": code, "message": problem.sentence}}
        return self._event("response.failed", response=failed)

    def _event(self, kind: str, **more: Any) -> bytes:
        self._events += 1
        return event({"type": kind, "sequence_number": self._events - 1, **more}, kind)

    def _begin(self, told: Mapping[str, Any]) -> None:
        suffix = str(told["id"]).removeprefix("chatcmpl-")
        self._head = {"id": f"resp_{suffix}", "created_at": told["created"], "model": told["model"]}
        self._output.suffix = suffix

    def _status(self) -> str:
        return "incomplete" if self._finish in ("length", "content_filter") else "completed"

    def _response(self, status: str) -> dict[str, Any]:
        asked = self._asked
        form = (asked.text and asked.text.format) or {"type": "text"}
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(self._finish or "")
        return {
            "object": "response",
            **self._head,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "output": self._output.items,
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": asked.reasoning and asked.reasoning.effort, "summary": None},
            "store": False,
            "temperature": asked.temperature,
            "text": {"format": form},
            "tool_choice": "auto" if asked.tool_choice is None else asked.tool_choice,
            "tools": asked.tools or [],
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": None if self._usage is None else _usage(self._usage),
            **({} if self._told is None else {"outthink": self._told}),
        }


# --------------------------------------------------------------------------------------------------------- the request


def _check(asked: ResponseRequest, raw: Mapping[str, Any]) -> None:
    """Refuse what cannot be done."""
    kept = "This server keeps no responses"
    for name in ("previous_response_id", "conversation", "prompt"):
        if raw.get(name) is not None:
            raise BadRequest(f"{kept}: leave {name} out, and send all earlier turns as input.", param=name)
    if asked.store:
        raise BadRequest(f"{kept}: send store as false, or leave it out.", param="store")
    if asked.background:
        raise BadRequest(f"{kept}, so none can be fetched later: leave background out.", param="background")
    if asked.truncation == "auto":
        raise BadRequest("Input that is too long is refused and not cut: leave truncation out.", param="truncation")
    for name, here in _OF_CHATS.items():
        if raw.get(name) is not None:
            raise BadRequest(f"{name} belongs to /v1/chat/completions; here it is {here}.", param=name)
    for name in asked.include or ():
        if name not in _INCLUDED:
            raise BadRequest(f"There is nothing to include but {' and '.join(_INCLUDED)}.", param="include")


def _chat(asked: ResponseRequest, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The same as the body of a chat request."""
    chat = {name: value for name, value in raw.items() if name not in _OWN}
    items = [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else asked.input
    chat["messages"] = [] if asked.instructions is None else [{"role": "system", "content": asked.instructions}]
    chat["messages"] += _messages(items)
    if not chat["messages"]:
        raise BadRequest("The input holds nothing to answer.", param="input")
    if asked.max_output_tokens is not None:
        chat["max_completion_tokens"] = asked.max_output_tokens
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        chat["reasoning_effort"] = asked.reasoning.effort
    if asked.text is not None and asked.text.verbosity is not None:
        chat["verbosity"] = asked.text.verbosity
    if asked.text is not None and (form := asked.text.format) is not None and form.get("type") != "text":
        _text(form, "type", "text.format")
        rest = {name: value for name, value in form.items() if name != "type"}
        chat["response_format"] = {"type": form.get("type"), **({"json_schema": rest} if rest else {})}
    if asked.top_logprobs is not None or _LOGPROBS in (asked.include or ()):
        chat |= {"logprobs": True} | ({} if asked.top_logprobs is None else {"top_logprobs": asked.top_logprobs})
    if asked.tools:
        chat["tools"] = [_tool(tool, f"tools.{place}") for place, tool in enumerate(asked.tools)]
    if asked.tool_choice is not None:
        chat["tool_choice"] = asked.tool_choice
        if not isinstance(asked.tool_choice, str):
            chat["tool_choice"] = _tool(asked.tool_choice, "tool_choice")
    if asked.stream:
        chat["stream_options"] = {"include_usage": True}
    return chat


def _tool(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise BadRequest(f"{where}: only functions are served as tools; leave others out.", param=where)
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _messages(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items of an input as messages; calls that follow each other are of one message."""
    messages: list[dict[str, Any]] = []
    for place, item in enumerate(items):
        where = f"input.{place}"
        kind = item.get("type") or "message"
        if kind == "message":
            if item.get("role") not in _ROLES:
                raise BadRequest(f"{where}.role must be one of {', '.join(_ROLES)}.", param=f"{where}.role")
            messages.append({"role": item["role"], "content": _content(item.get("content"), f"{where}.content")})
        elif kind == "function_call":
            call = {name: _text(item, name, where) for name in ("name", "arguments")}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(
                {"id": _text(item, "call_id", where), "type": "function", "function": call}
            )
        elif kind == "function_call_output":
            output = _content(item.get("output"), f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": _text(item, "call_id", where), "content": output})
        elif kind != "reasoning":  # thoughts of earlier turns are not sent again
            raise BadRequest(f"{where}: this kind of item is not served here; leave it out.", param=where)
    return messages


def _content(content: Any, where: str) -> Any:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(f"{where} must be text or a list.", param=where)
    return [_part(part, f"{where}.{place}") for place, part in enumerate(content)]


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(value := item.get(name), str):
        raise BadRequest(f"{where}.{name} must be text.", param=f"{where}.{name}")
    return value


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": _text(part, "text", where)}
    if kind == "refusal":
        return {"type": "refusal", "refusal": _text(part, "refusal", where)}
    if kind == "input_image" and part.get("image_url") is not None:
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.get("input_audio")}
    if kind == "input_file" and part.get("file_data") is not None:
        return {"type": "file", "file": {name: part[name] for name in ("file_data", "filename") if name in part}}
    raise BadRequest(f"{where}: this kind of content is not served here; leave it out.", param=where)


# ----------------------------------------------------------------------------------------------------------- the reply


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    read, written = usage["prompt_tokens_details"], usage["completion_tokens_details"]
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cache_write_tokens": 0, **read},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": dict(written),
        "total_tokens": usage["total_tokens"],
    }


_Events = Iterator[tuple[str, dict[str, Any]]]


class _Output:
    """The items of a response as they grow, and the events that tell of it.

    A thought, a text and a refusal end where something else begins; calls of tools end with the response, since
    their pieces may come in any order.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.suffix = ""
        self._open: tuple[str, int] | None = None
        """The kind of the part that grows, and the place of its item."""
        self._pieces: list[str] = []
        self._calls: dict[int, int] = {}
        self._arguments: dict[int, list[str]] = {}

    def said(self, delta: Mapping[str, Any], logprobs: Mapping[str, Any] | None) -> _Events:
        """What a piece of a message adds."""
        thoughts = delta.get("reasoning_content") or delta.get("reasoning")
        for kind, text in (("reasoning", thoughts), ("text", delta.get("content")), ("refusal", delta.get("refusal"))):
            if text:
                yield from self._grow(kind, text, (logprobs or {}).get("content") or [] if kind == "text" else [])
        for call in delta.get("tool_calls") or ():
            yield from self._call(call)

    def end(self, status: str) -> _Events:
        """All that is open ends; the item that was written last ends as the response does."""
        if not self.items:
            yield from self._begin("text")
        last = self.items[-1]
        yield from self._close(status if self._open and self.items[self._open[1]] is last else "completed")
        for place in self._calls.values():
            item = self.items[place]
            item["arguments"] = "".join(self._arguments[place])
            item["status"] = status if item is last else "completed"
            told = {"item_id": item["id"], "output_index": place}
            yield "response.function_call_arguments.done", {
                **told, "name": item["name"], "arguments": item["arguments"]
            }  # fmt: skip
            yield "response.output_item.done", {"output_index": place, "item": item}

    def _grow(self, kind: str, text: str, logprobs: Sequence[Mapping[str, Any]]) -> _Events:
        if self._open is None or self._open[0] != kind:
            yield from self._close("completed")
            yield from self._begin(kind)
        assert self._open is not None
        self._pieces.append(text)
        more: dict[str, Any] = {"delta": text}
        if kind == "text":
            told = [{"bytes": [], "top_logprobs": [], **one, **_bytes(one)} for one in logprobs]
            self.items[self._open[1]]["content"][-1]["logprobs"] += told
            more["logprobs"] = told
        yield f"response.{_NAMES[kind]}.delta", {**self._where(), **more}

    def _begin(self, kind: str) -> _Events:
        place = len(self.items)
        item: dict[str, Any] = {"type": "message", "id": f"msg_{self.suffix}_{place}", "role": "assistant"}
        if kind == "reasoning":
            item = {"type": "reasoning", "id": f"rs_{self.suffix}_{place}", "summary": []}
        item |= {"content": [], "status": "in_progress"}
        self._open, self._pieces = (kind, place), []
        self.items.append(item)
        yield "response.output_item.added", {"output_index": place, "item": {**item, "content": []}}
        item["content"].append(_PARTS[kind](""))
        yield "response.content_part.added", {**self._where(), "part": _PARTS[kind]("")}

    def _close(self, status: str) -> _Events:
        if self._open is None:
            return
        kind, place = self._open
        item, text = self.items[place], "".join(self._pieces)
        part = item["content"][-1]
        part["refusal" if kind == "refusal" else "text"] = text
        more = {"logprobs": part["logprobs"]} if kind == "text" else {}
        done = {"refusal": text} if kind == "refusal" else {"text": text, **more}
        item["status"] = status
        yield f"response.{_NAMES[kind]}.done", {**self._where(), **done}
        yield "response.content_part.done", {**self._where(), "part": part}
        yield "response.output_item.done", {"output_index": place, "item": item}
        self._open = None

    def _call(self, call: Mapping[str, Any]) -> _Events:
        index, function = call.get("index", 0), call.get("function") or {}
        if index not in self._calls:
            yield from self._close("completed")
            place = self._calls[index] = len(self.items)
            item = {
                "type": "function_call",
                "id": f"fc_{self.suffix}_{place}",
                "call_id": call.get("id") or f"call_{self.suffix}_{place}",
                "name": function.get("name") or "",
                "arguments": "",
                "status": "in_progress",
            }
            self.items.append(item)
            self._arguments[place] = []
            yield "response.output_item.added", {"output_index": place, "item": dict(item)}
        place = self._calls[index]
        if written := function.get("arguments"):
            self._arguments[place].append(written)
            told = {"item_id": self.items[place]["id"], "output_index": place, "delta": written}
            yield "response.function_call_arguments.delta", told

    def _where(self) -> dict[str, Any]:
        assert self._open is not None
        place = self._open[1]
        return {"item_id": self.items[place]["id"], "output_index": place, "content_index": 0}


_NAMES = {"reasoning": "reasoning_text", "text": "output_text", "refusal": "refusal"}
_PARTS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "reasoning": lambda text: {"type": "reasoning_text", "text": text},
    "text": lambda text: {"type": "output_text", "text": text, "annotations": [], "logprobs": []},
    "refusal": lambda text: {"type": "refusal", "refusal": text},
}


def _bytes(told: Mapping[str, Any]) -> dict[str, Any]:
    """Where there are no bytes there is an empty list."""
    tops = [{**top, "bytes": top.get("bytes") or []} for top in told.get("top_logprobs") or ()]
    return {"bytes": told.get("bytes") or [], "top_logprobs": tops}
