"""How an answer ended, in the words of all servers.

Source: the API references of OpenAI, Azure, Anthropic, Gemini, Mistral, Cohere, Bedrock, DashScope, DeepSeek, GLM, and
the sources of vLLM, SGLang, TGI, llama.cpp and LM Studio, as remembered. Differs: a word of none of them is taken by
its parts, and one that says nothing of a failure is an end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

End = Literal["ended", "cut", "withheld", "failed"]
"""The model came to an end; a limit cut it off; a filter keeps it back; it broke down on its way."""

_WHOLE: Mapping[str, End] = {
    "error_toxic": "withheld",
    "error_limit": "cut",
    "pause_turn": "cut",
    "1": "ended",  # Gemini's numbers
    "2": "cut",
}
_NONE = frozenset({"", "none", "null", "undefined", "unspecified", "in_progress"})
# parts of words, the first of these that one has decides
_PARTS: tuple[tuple[End, tuple[str, ...]], ...] = (
    (
        "withheld",
        ("filter", "safety", "blocklist", "blocked", "prohibited", "recitation", "spii", "sensitive", "guardrail",
         "toxic", "moderat", "refus", "policy"),
    ),
    (
        "failed",
        ("error", "abort", "cancel", "fail", "malformed", "unexpected", "interrupt", "insufficient", "timeout",
         "timed_out", "disconnect", "preempt", "user_stopped", "other", "load", "too_many"),
    ),
    ("cut", ("length", "max", "limit", "context", "exceed", "truncat", "budget")),
)  # fmt: skip


def end(reason: Any) -> End | None:
    """What a `finish_reason` means; None where it says nothing, so that the answer goes on or has ended unsaid.

    Objects are read by their type or reason, as SGLang's are.
    """
    if reason is None or reason is False:
        return None
    if isinstance(reason, Mapping):
        reason = reason.get("type") or reason.get("reason")
    return None if reason is None or reason is False else _meaning(str(reason)[:100])


@lru_cache(maxsize=256)  # the same few words end all answers
def _meaning(reason: str) -> End | None:
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", reason).lower().rpartition(".")[2]
    word = re.sub(r"[\s_-]+", "_", word).strip("_").removeprefix("finish_reason_")
    if word in _NONE:
        return None
    if word in _WHOLE:
        return _WHOLE[word]
    if not re.fullmatch("[a-z_]{1,40}", word):
        return "failed"  # no word at all
    return next((meaning for meaning, parts in _PARTS if any(part in word for part in parts)), "ended")
