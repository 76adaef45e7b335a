"""One streamed choice as it is written: text, tokens, tool calls, and its end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import index
from typing import Any

from outthink.models.engine import Progress


@dataclass(slots=True)
class Writing:
    """What one child has written so far; `progress` hears of it."""

    progress: Progress
    child: int
    pieces: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Calls of tools by their place, as far as they are written."""
    refusal: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    """What else the message has, such as annotations."""
    told: dict[str, list[Any]] = field(default_factory=dict)
    """Logprobs as the server tells them."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    last: str = ""
    """The last token as text, where the server gives tokens as text."""
    top: list[tuple[str, float]] = field(default_factory=list)
    """The likeliest first tokens."""
    events: int = 0
    thinking: float = 0.0
    """How many of `tokens` are thoughts, and `thoughts_in`, the name of their field."""
    thoughts_in: str = "reasoning_content"
    reasoning: int = 0
    """Tokens of thoughts, shown or not, as the server counts them."""
    finish: str | None = None
    stopped: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens seen, at least: a piece is one or more."""
        return max(len(self.ids), len(self.logprobs), self.events)

    @property
    def counted(self) -> bool:
        """Whether every token was seen on its own."""
        return bool(self.ids or self.logprobs)

    def text(self) -> str:
        """What was written, thoughts first, in <think> marks; of calls of tools only the calls, as a list in JSON.

        Calls beside each other have no order, so they are sorted; one that is no JSON leaves nothing to be compared.
        """
        said = "".join(self.pieces) or "".join(self.refusal)
        wanted = [_call_as_json(call) for _, call in sorted(self.calls.items())]
        if wanted:
            known = [call for call in wanted if call is not None]
            said = f"[{', '.join(text for _, text in sorted(known))}]" if len(known) == len(wanted) else ""
        return f"<think>{''.join(self.thoughts)}</think>\n{said}" if self.thoughts else said

    def sent(self, tokens: int, logprobs: bool) -> dict[str, Any] | None:
        """The answer as the API has it, where that is more than text; None where it is not.

        `visible` is how many of its tokens are no thoughts: by the server's count, or by the pieces of each.
        """
        thoughts = max(self.reasoning, int(tokens * self.thinking / max(self.tokens, 1)))
        more = self.calls or self.refusal or self.more
        if not (thoughts or self.thoughts or more or (logprobs and self.told)):
            return None
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.pieces) or (None if more else "")}
        if self.thoughts:
            message[self.thoughts_in] = "".join(self.thoughts)
        if self.refusal:
            message["refusal"] = "".join(self.refusal)
        if self.calls:
            message["tool_calls"] = [call for _, call in sorted(self.calls.items())]
        found: dict[str, Any] = {"message": message | self.more, "finish_reason": self.finish}
        if thoughts:
            found["visible"] = max(tokens - thoughts, 0)
        if logprobs and self.told:
            found["logprobs"] = self.told
        return found

    def add(self, choice: Mapping[str, Any]) -> None:
        """One choice of an answer, or of an event of it; of the chat form or of the plain one."""
        part = choice.get("message") or choice.get("delta") or {}
        said = part.get("content") or choice.get("text") or ""
        if not isinstance(said, str):
            raise TypeError("a text that is none")
        if said:
            self.pieces.append(said)
        told = choice.get("logprobs")
        if told or choice.get("token_ids") or part.keys() - _PLAIN:
            self._add_more(choice, part, said, told or {})
        else:  # as nearly all of them are
            self.events += bool(said)
        if choice.get("finish_reason"):
            self.finish = str(choice["finish_reason"])
        reason = choice.get("stop_reason", choice.get("matched_stop"))
        if isinstance(reason, str):
            self.stopped = reason
        self.progress.tokens[self.child] = self.tokens
        if self.progress.listen is not None:
            self.progress.listen(self.child, choice)

    def _add_more(self, choice: Mapping[str, Any], part: Mapping[str, Any], said: str, told: Mapping[str, Any]) -> None:
        """What a choice has besides its text."""
        before = self.tokens
        thoughts_in = "reasoning" if part.get("reasoning") and not part.get("reasoning_content") else self.thoughts_in
        thought = part.get(thoughts_in) or ""
        refusal = part.get("refusal") or ""
        if not (isinstance(thought, str) and isinstance(refusal, str)):
            raise TypeError("a text that is none")
        if thought:
            self.thoughts.append(thought)
            self.thoughts_in = thoughts_in
        if refusal:
            self.refusal.append(refusal)
        calls = part.get("tool_calls") or ()
        for place, call in enumerate(calls):
            self._call(place, call)
        others = {name: value for name, value in part.items() if value and name not in _READ}
        if others:
            self.more = _grown(self.more, others)
        self.events += bool(said or thought or refusal or calls or others)
        self.ids += map(index, choice.get("token_ids") or ())
        for name in ("content", "refusal"):
            if told.get(name):
                self.told.setdefault(name, []).extend(told[name])
        for token in told.get("content") or ():
            self.logprobs.append(_number(token["logprob"]))
            self.last = str(token["token"])
            if len(self.logprobs) == 1:
                self.top = [(str(near["token"]), _number(near["logprob"])) for near in token.get("top_logprobs") or ()]
        self.logprobs += map(_number, told.get("token_logprobs") or ())
        self.last = str((told.get("tokens") or [self.last])[-1])
        if thought:
            shown = len(said) + len(refusal) + len(json.dumps(calls) if calls else "")
            self.thinking += (self.tokens - before) * len(thought) / (len(thought) + shown)

    def _call(self, place: int, piece: Mapping[str, Any]) -> None:
        """A piece of a call of a tool: the first one names it, and what the tool is given is joined."""
        place = index(piece.get("index", place))
        kind = "custom" if piece.get("custom") or "custom" in self.calls.get(place, ()) else "function"
        argument = _ARGUMENT[kind]
        given = piece.get(kind) or {}
        name, written = given.get("name") or "", given.get(argument) or ""
        if not isinstance(name, str) or not isinstance(written, str):
            raise TypeError("a call that is none")
        call = self.calls.setdefault(place, {"id": "", "type": kind, kind: {"name": "", argument: ""}})
        call[kind]["name"] += name
        call[kind][argument] += written
        for field_, value in piece.items():
            if field_ not in ("index", "function", "custom") and not call.get(field_):
                call[field_] = value


# what `Writing` reads of a message by itself
_PLAIN = frozenset({"role", "content"})  # of a piece that is only text


_READ = frozenset({"role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls"})


_ARGUMENT = {"function": "arguments", "custom": "input"}


def _call_as_json(call: Mapping[str, Any]) -> tuple[str, str] | None:
    """What equal calls have in common, and the call as JSON; None where its arguments are no JSON."""
    if "custom" in call:
        text = json.dumps(call["custom"], ensure_ascii=False)
        return text, text
    name, arguments = call["function"]["name"], call["function"]["arguments"] or "{}"
    try:
        value = json.loads(arguments, parse_int=float, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    text = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}'
    return json.dumps([name, value], sort_keys=True), text


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _grown(whole: Any, piece: Any) -> Any:
    """What a stream has told so far: texts and lists grow, all else is replaced."""
    if isinstance(whole, dict) and isinstance(piece, dict):
        return whole | {name: _grown(whole.get(name), value) for name, value in piece.items()}
    if isinstance(whole, str) and isinstance(piece, str):
        return whole + piece
    if isinstance(whole, list) and isinstance(piece, list):
        return whole + piece
    return whole if piece is None else piece


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
