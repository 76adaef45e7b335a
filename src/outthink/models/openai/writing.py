"""One streamed choice as it is written: text, tokens, tool calls, and its end."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

from outthink.models.complaints import complaint
from outthink.models.engine import Progress
from outthink.models.openai import parts, reasons
from outthink.models.openai.calls import Calls

_LETTERS = 8  # in a row that one token may have
_PIECE = 4096  # characters of a piece that say how many tokens it has
_LEAST = -100.0  # logprob that is told, by some servers as minus infinity, of what cannot be
_BYTES = 16  # of text that a token has at most, on the mean of a whole answer


class Growing:
    """What a stream has told so far of a value: texts, lists and objects grow, all else is replaced.

    A piece costs the same however much came before it.
    """

    __slots__ = ("_held", "_kind")

    def __init__(self) -> None:
        self._kind: type | None = None
        self._held: Any = None

    def add(self, piece: Any) -> None:
        """Take a piece; None says nothing."""
        if piece is None:
            return
        kind = next((kind for kind in (dict, list, str) if isinstance(piece, kind)), object)
        if kind is not self._kind or kind is object:
            self._kind, self._held = kind, {} if kind is dict else piece if kind is object else []
        if kind is dict:
            for name, value in piece.items():
                self._held.setdefault(name, Growing()).add(value)
        elif kind is list:
            self._held.extend(piece)
        elif kind is str:
            self._held.append(piece)

    def value(self) -> Any:
        """All of it."""
        if self._kind is dict:
            return {name: grown.value() for name, grown in self._held.items()}
        return "".join(self._held) if self._kind is str else list(self._held) if self._kind is list else self._held


@dataclass(slots=True)
class Writing:
    """What one child has written so far; `progress` hears of it."""

    progress: Progress
    child: int
    near: int = 0
    """How many of the likeliest tokens were asked for in the place of each, for confidences; 0: none were."""
    keeps: bool = True
    """Whether logprobs are kept as the server tells them, which takes kilobytes a token."""
    pieces: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)
    """Calls of tools, as far as they are written."""
    function: Calls = field(default_factory=Calls)
    """The one call of the older form, `function_call`."""
    refusal: list[str] = field(default_factory=list)
    more: Growing = field(default_factory=Growing)
    """What else the message has, such as annotations."""
    told: dict[str, list[Any]] = field(default_factory=dict)
    """Logprobs as the server tells them, if they are kept."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    last: str = ""
    """The last token as text, where the server gives tokens as text."""
    top: list[tuple[str, float]] = field(default_factory=list)
    """The likeliest first tokens."""
    confidences: list[float] = field(default_factory=list)
    """Of each token, minus the mean logprob of the likeliest at its place, where those are told."""
    nearest: int = 0
    """How many of them were told, at least."""
    events: int = 0
    thinking: float = 0.0
    """How many of `tokens` are thoughts, and `thoughts_in`, the name of their field."""
    thoughts_in: str = "reasoning_content"
    reasoning: int = 0
    """Tokens of thoughts, shown or not, as the server counts them."""
    finish: str | None = None
    """Why it ended, in the server's word."""
    stopped: str | None = None
    complaint: str = ""
    """What the server says is wrong with it."""
    size: int = 0
    """Characters seen of text, thoughts and refusals; of a piece at most _PIECE, for it may be one odd token."""
    _said: int = 0
    _thought: int = 0

    @property
    def tokens(self) -> int:
        """Tokens seen, at least: a piece is one or more."""
        if not self.ids and not self.logprobs:
            return self.events
        return max(len(self.ids), len(self.logprobs), self.events)

    @property
    def counted(self) -> bool:
        """Whether every token was seen on its own."""
        return bool(self.ids or self.logprobs)

    @property
    def end(self) -> reasons.End | None:
        """How it ended; None while it has not."""
        return reasons.end(self.finish)

    def least(self) -> int:
        """The fewest tokens that it can have; a server that says less does not tell the truth."""
        return self.tokens if self.counted else max(min(self.events, 1), self.size // _BYTES)

    def most(self) -> int:
        """The most tokens that what was seen can have.

        A piece is a token or more. One of letters alone is as many as its length suggests; of anything else, digits,
        marks and other scripts, each byte may be a token.
        """
        return self.tokens if self.counted else max(self.tokens, sum(map(_most, self._shown())))

    def bytes(self) -> int:
        """Bytes of all that was seen; no token is less than one."""
        return sum(len(text.encode("utf-8", "replace")) for text in self._shown())

    def _shown(self) -> list[str]:
        calls = [call[kind] for call in self._forms() for kind in ("function", "custom") if kind in call]
        given = [text for call in calls for text in call.values() if isinstance(text, str)]
        return [*self.pieces, *self.thoughts, *self.refusal, *given]

    def text(self) -> str:
        """What was written, thoughts first, in <think> marks; of calls of tools only the calls, as a list in JSON.

        A thought that was cut, or that a stop string ended, is not closed: it may be gone on with.

        Calls beside each other have no order, so they are sorted; one that is no JSON leaves nothing to be compared.
        """
        said = "".join(self.pieces) or "".join(self.refusal)
        wanted = [_call_as_json(call) for call in self._forms()]
        if wanted:
            known = [call for call in wanted if call is not None]
            said = f"[{', '.join(text for _, text in sorted(known))}]" if len(known) == len(wanted) else ""
        if not self.thoughts:
            return said
        within = not (said or wanted) and (self.end != "ended" or self.stopped is not None)
        return f"<think>{''.join(self.thoughts)}" + ("" if within else f"</think>\n{said}")

    def _forms(self) -> list[dict[str, Any]]:
        return [*self.calls.forms(), *self.function.forms()] if self.calls or self.function else []

    def sent(self, tokens: int, logprobs: bool) -> dict[str, Any] | None:
        """The answer as the API has it, where that is more than text; None where it is not.

        `visible` is how many of its tokens are no thoughts: by the server's count, or by the pieces of each.
        """
        thoughts = max(self.reasoning, int(tokens * self.thinking / max(self.tokens, 1)))
        others: dict[str, Any] = self.more.value() or {}
        more = self.calls or self.function or self.refusal or others
        if not (thoughts or self.thoughts or more or (logprobs and self.told)):
            return None
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.pieces) or (None if more else "")}
        if self.thoughts:
            message[self.thoughts_in] = "".join(self.thoughts)
        if self.refusal:
            message["refusal"] = "".join(self.refusal)
        if self.calls:
            message["tool_calls"] = self.calls.forms()
        for form in self.function.forms():
            message["function_call"] = form["function"]
        whole: dict[str, Any] = {"message": message | others, "finish_reason": self.finish}
        if thoughts:
            whole["visible"] = max(tokens - thoughts, 0)
        if logprobs and self.told:
            whole["logprobs"] = self.told
        return whole

    def add_text(self, content: str, choice: Mapping[str, Any]) -> None:
        """As `add`, for a choice that is nothing but text, where no tokens are told and nothing has ended."""
        size = len(content)
        self.pieces.append(content)
        self._said += size
        self.size += size if size < _PIECE else _PIECE
        self.events += 1
        progress = self.progress
        progress.tokens[self.child] = self.events
        if progress.listen is not None:
            progress.listen(self.child, choice)

    def add(self, choice: Mapping[str, Any]) -> None:
        """One choice of an answer, or of an event of it; of the chat form or of the plain one."""
        delta, message = choice.get("delta"), choice.get("message")
        part = delta or message or {}
        whole = not delta and bool(message)
        content = part.get("content") or choice.get("text") or ""
        told = choice.get("logprobs")
        heard: Mapping[str, Any] = choice
        if not isinstance(content, str) or told or whole or choice.get("token_ids") or not part.keys() <= _PLAIN:
            heard = self._add_more(choice, part, content, told or {}, whole)
        elif content:  # as nearly all of them are
            self.pieces.append(content)
            self._said += len(content)
            self.size += min(len(content), _PIECE)
            self.events += 1
        reason = choice.get("finish_reason") or choice.get("finishReason")
        if reason and reasons.end(reason) is not None:
            self.finish = str(reason.get("type") or reason.get("reason") if isinstance(reason, Mapping) else reason)
        stopped = choice.get("stop_reason", choice.get("matched_stop"))
        if isinstance(stopped, str):
            self.stopped = stopped
        wrong = complaint({"error": choice["error"]}) if choice.get("error") else None
        if wrong is not None:
            self.complaint, self.finish = wrong.words, "error"
        self.progress.tokens[self.child] = self.tokens
        if self.progress.listen is not None:
            if self.finish is not None and self.end == "withheld":
                heard = {**heard, "finish_reason": "content_filter"}
            self.progress.listen(self.child, heard)
            late = self.calls.late() if self.finish is not None else []
            if late:
                self.progress.listen(self.child, {"delta": {"tool_calls": late}})

    def _add_more(
        self, choice: Mapping[str, Any], part: Mapping[str, Any], content: Any, told: Mapping[str, Any], whole: bool
    ) -> Mapping[str, Any]:
        """What a choice has besides its text; returns the choice as OpenAI's API would have streamed it."""
        before = self.tokens
        read = parts.read(content)
        thoughts_in, thought = thoughts_of(part)
        thoughts_in, thought = thoughts_in or self.thoughts_in, thought + read.thoughts
        refusal = parts.read(part.get("refusal")).text + read.refusal
        said = read.text
        if whole and self.pieces:  # some streams end with the whole message once more, which is as long as the pieces
            said = said.removeprefix("".join(self.pieces)) if len(said) >= self._said else said
            thought = thought.removeprefix("".join(self.thoughts)) if len(thought) >= self._thought else thought
        calls = part.get("tool_calls") or ()
        again = whole and bool(self.calls)
        streamed = [] if again else self.calls.add(calls, whole=whole)
        streamed += [] if again else self.calls.add(read.calls, whole=True)
        older = part.get("function_call")
        function: list[dict[str, Any]] = []
        if isinstance(older, Mapping) and not (whole and self.function):
            function = self.function.add({"index": 0, "id": "one", "function": older}, whole=False)
        others = {name: value for name, value in part.items() if value and name not in _READ}
        if read.others:
            others["content_parts"] = read.others
        if said:
            self.pieces.append(said)
            self._said += len(said)
        if thought:
            self.thoughts.append(thought)
            self._thought += len(thought)
            self.thoughts_in = thoughts_in
        if refusal:
            self.refusal.append(refusal)
        if others:
            self.more.add(others)
        given = json.dumps([*streamed, *function]) if streamed or function else ""
        self.size += min(len(said) + len(thought) + len(refusal), _PIECE)
        self.events += bool(said or thought or refusal or streamed or function or others)
        self._add_tokens(choice, told)
        if thought:
            shown = len(said) + len(refusal) + len(given)
            self.thinking += (self.tokens - before) * len(thought) / (len(thought) + shown)
        if self.progress.listen is None or not part:
            return choice
        delta: dict[str, Any] = dict(others)
        pieces = {"content": said, thoughts_in: thought, "refusal": refusal, "tool_calls": streamed}
        delta |= {name: value for name, value in pieces.items() if value}
        if function:
            delta["function_call"] = function[0].get("function", {})
        return {"delta": delta, **({"logprobs": choice["logprobs"]} if told else {})}

    def _add_tokens(self, choice: Mapping[str, Any], told: Mapping[str, Any]) -> None:
        """The tokens that are told one by one."""
        self.ids += map(index, choice.get("token_ids") or ())
        for name in ("content", "refusal"):
            if self.keeps and told.get(name):
                self.told.setdefault(name, []).extend(told[name])
        before = len(self.confidences)
        for token in told.get("content") or ():
            self.logprobs.append(_number(token["logprob"]))
            self.last = str(token["token"])
            near = token.get("top_logprobs") or ()
            if len(self.logprobs) == 1:
                self.top = [(str(one["token"]), _number(one["logprob"])) for one in near]
            self._add_confidence([_number(one["logprob"]) for one in near])
        self.logprobs += map(_number, told.get("token_logprobs") or ())
        self.last = str((told.get("tokens") or [self.last])[-1])
        if self.near:
            for likeliest in told.get("top_logprobs") or ():  # of the plain form: by their texts
                self._add_confidence(list(map(_number, (likeliest or {}).values())))
        if self.progress.watch is not None and len(self.confidences) > before:
            self.progress.watch(self.child, self.confidences[before:])

    def _add_confidence(self, told: Sequence[float]) -> None:
        """Of one token, from the likeliest in its place; a server may tell one more, the one that was written."""
        likeliest = sorted((max(_LEAST, value) for value in told), reverse=True)[: self.near]
        if likeliest:
            self.nearest = min(self.nearest or len(likeliest), len(likeliest))
            self.confidences.append(-math.fsum(likeliest) / len(likeliest))


# what `Writing` reads of a message by itself
_PLAIN = frozenset({"role", "content"})  # of a piece that is only text


_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


_READ = frozenset({"role", "content", *_THOUGHTS, "refusal", "tool_calls", "function_call"})


def thoughts_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """The field of a message that has thoughts, and those; of several only one, for they hold the same."""
    named = (name for name in _THOUGHTS if isinstance(message.get(name), str | list | Mapping) and message[name])
    name = next(named, "")
    return name, parts.joined(message.get(name)) if name else ""


def _most(piece: str) -> int:
    """The most tokens that a piece of text can have."""
    words = re.findall(r"[A-Za-z]+", piece)
    other = len(piece.encode("utf-8", "replace")) - sum(map(len, words))
    joined = len(words) == 1 and piece.startswith(" ")  # the blank before a word belongs to it
    return max(1, sum(-(-len(word) // _LETTERS) for word in words) + other - joined)


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


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
