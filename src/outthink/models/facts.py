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
        plain: temperature and top_p must be left out.
        n: several answers to one request.
        stream: server-sent events with the usage at the end.
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
        priority: a number is taken as `priority`, and lower ones are served earlier, if the server has been told to.
        overhead: most tokens of a prompt beyond the bytes of its messages.
        abort: seconds until closing a connection had ended the work; None where that cannot be seen.
    """

    model: str
    context: int | None = None
    cap: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    capped: bool = True
    plain: bool = False
    n: bool = False
    stream: bool = False
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
    overhead: int = 64
    abort: float | None = None

    @property
    def powers(self) -> frozenset[Power]:
        """What an engine on it can do; continuing steps also takes to know what ended them."""
        found: dict[Power, bool] = {
            "logprobs": self.logprobs,
            "labels": self.labels > 1,
            "seed": self.seed and not self.n,  # one request has one seed, whatever the budget has put into it
            "prefix": self.prefix is not None and self.stop in ("kept", "told"),
            "tokens": self.tokens and self.prefix == "ids",
        }
        return frozenset(power for power, there in found.items() if there)


def token_count(value: Any) -> int | None:
    """A number of tokens that can be true; else None."""
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else None


def usage_told(told: Any) -> Usage | None:
    """The usage that a server tells; None where it tells none, or something impossible."""
    if not isinstance(told, Mapping):
        return None
    prompt, completion, total = (token_count(told.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if prompt is None or completion is None:
        return None
    details = told.get("prompt_tokens_details")
    cached = token_count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
    return Usage(
        prompt=prompt,
        cached=cached if cached is not None and cached <= prompt else 0,
        completion=max(completion, (total or 0) - prompt),  # some leave reasoning out of the completion
    )
