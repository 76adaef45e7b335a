"""What a server does with the fields of a request, and how it tells usage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from outthink.models.engine import Power
from outthink.types import Usage

_MOST_TOKENS = 1 << 40  # more than this in one answer is not believed


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a server really does with a model, as probed.

    Args:
        model: its name there.
        context: most tokens of prompt and completion; None where the server does not tell.
        cap: name of the field that limits the completion's tokens, and `capped`, whether it is honoured.
        plain: temperature and top_p must be left out; `nucleus`, whether top_p may be there.
        coldest, hottest: least and highest temperature that is taken; `hottest` is None where 1.5 is.
        n: several answers to one request.
        stream: server-sent events with the usage at the end.
        whole: answers without a stream; some models only stream.
        hidden: tokens are written that a stream does not show, such as thoughts.
        goes_on: closing the connection does not end the work.
        logprobs: of the tokens written; `labels`: how many of the likeliest next tokens it names, 0 for none.
        seed: the same seed gives the same text, another one another text.
        stop: "kept": stop strings end the text, stay in it if asked to, and are told apart from the model's own end;
            "told": the same, but they are cut off; "cut": it is not told what ended the text; None: ignored.
        token_ids: of prompt and answer, if asked for.
        prefix: how an answer is continued: from "ids" of tokens, from "text", or not at all.
        tokenize: prompts are counted on request.
        tokens: a text is turned into tokens, and tokens into their text, on request.
        cached: prompt tokens from the prefix cache are reported.
        salt: prompts with another `cache_salt` have a prefix cache of their own; known only where `cached` is.
        logit_bias: the logits of given tokens are changed as asked.
        thinking: an answer's thoughts end after `thinking_token_budget` tokens, and the answer follows.
        priority: a number is taken as `priority`, and lower ones are served earlier, if the server has been told to.
        overhead: most tokens of a prompt beyond the bytes of its messages.
        abort: seconds until closing a connection had ended the work; None where that cannot be seen.
    """

    model: str
    context: int | None = None
    cap: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    capped: bool = True
    plain: bool = False
    nucleus: bool = True
    coldest: float = 0.0
    hottest: float | None = None
    n: bool = False
    stream: bool = False
    whole: bool = True
    hidden: bool = False
    goes_on: bool = False
    logprobs: bool = False
    labels: int = 0
    seed: bool = False
    stop: Literal["kept", "told", "cut"] | None = None
    token_ids: bool = False
    prefix: Literal["ids", "text"] | None = None
    tokenize: bool = False
    tokens: bool = False
    cached: bool = False
    salt: bool = False
    priority: bool = False
    logit_bias: bool = False
    thinking: bool = False
    overhead: int = 64
    abort: float | None = None

    @property
    def powers(self) -> frozenset[Power]:
        """What an engine on it can do; continuing steps also takes to know what ended them."""
        there: dict[Power, bool] = {
            "logprobs": self.logprobs,
            "labels": self.labels > 1,
            "top_logprobs": self.logprobs and self.labels > 1,
            "seed": self.seed and not self.n,  # one request has one seed, whatever the budget has put into it
            "prefix": self.prefix is not None and self.stop in ("kept", "told"),
            "tokens": self.tokens and self.prefix == "ids",
            "logit_bias": self.logit_bias,
            "thinking_budget": self.thinking,
        }
        return frozenset(power for power, has in there.items() if has)


def token_count(value: Any) -> int | None:
    """A number of tokens that can be true; else None."""
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else None


@dataclass(frozen=True, slots=True)
class Told:
    """What a server says that it has read and written.

    Args:
        prompt, completion: tokens; None where it does not tell, or tells what cannot be.
        cached: those of the prompt that were in the cache; at most `prompt`.
        reasoning: those of the completion that are thoughts, shown or not.
    """

    prompt: int | None = None
    cached: int = 0
    completion: int | None = None
    reasoning: int = 0

    def __or__(self, other: Told) -> Told:
        """The most that either says: a stream may tell its usage as it grows."""
        prompt = self.prompt if other.prompt is None else max(other.prompt, self.prompt or 0)
        return Told(
            prompt,
            min(max(self.cached, other.cached), prompt or 0),
            self.completion if other.completion is None else max(other.completion, self.completion or 0),
            max(self.reasoning, other.reasoning),
        )


def told(reply: Any) -> Told | None:
    """The usage in an answer, or in an event of one, wherever the server puts it; None where there is none."""
    if not isinstance(reply, dict):
        return None
    places: list[Any] = [reply["usage"]] if reply.get("usage") else []
    groq = reply.get("x_groq")
    if isinstance(groq, dict):
        places.append(groq.get("usage"))
    choices = reply.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and "usage" in choice:
                places.append(choice["usage"])
    if not places:  # as in nearly all events of a stream
        return None
    usages = [_told(place) for place in places if isinstance(place, dict)]
    return next((usage for usage in usages if usage != Told()), usages[0] if usages else None)


def usage_told(reply: Any) -> Usage | None:
    """The usage in an answer; None where it tells none, or something impossible."""
    usage = told(reply)
    if usage is None or usage.prompt is None or usage.completion is None:
        return None
    return Usage(prompt=usage.prompt, cached=usage.cached, completion=usage.completion)


def _told(usage: Mapping[str, Any]) -> Told:
    prompt, completion = _count(usage, "prompt_tokens", "input_tokens"), _count(usage, *_WRITTEN)
    if prompt is None or completion is None:
        return Told()
    total, written = _count(usage, "total_tokens") or 0, completion
    if prompt:
        completion = max(completion, total - prompt)  # some leave reasoning out of the completion
    cached = next(filter(None, (_count(part, *names) for part, names in _cached_in(usage))), 0)
    details = usage.get("completion_tokens_details", usage.get("output_tokens_details"))
    reasoning = (_count(details, "reasoning_tokens") or 0) if isinstance(details, Mapping) else 0
    return Told(
        prompt or (total - completion if total > completion else None),  # nobody reads nothing
        cached if cached <= prompt else 0,
        completion,
        max(reasoning, completion - written),
    )


_WRITTEN = ("completion_tokens", "output_tokens")


def _cached_in(usage: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], tuple[str, ...]]]:
    """Where the tokens from the cache may be told: in the details, or beside them under a vendor's name."""
    details = (usage.get(name) for name in ("prompt_tokens_details", "input_tokens_details"))
    inner = [(part, ("cached_tokens",)) for part in details if isinstance(part, Mapping)]
    return [*inner, (usage, ("prompt_cache_hit_tokens", "cached_tokens"))]


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    """The first of these numbers that can be true."""
    return next((count for count in (token_count(usage.get(name)) for name in names) if count is not None), None)
