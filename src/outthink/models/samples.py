"""Fields of a recorded sample, as every reader of pools takes them: what cannot be meant raises ValueError.

Source: none. Differs: nothing is rounded, cut or left out; a message says which value is wrong, its reader says where.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

POSITIVE = 1e-3
"""A logprob may be so far above 0, by the arithmetic of an engine; it is taken as 0."""

CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
"""Names for the end of a sample that did not come to its own end."""


def pool_id(value: Any) -> str | None:
    """The id of a problem, a text or a number, as a text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        return None
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def token_count(value: Any, name: str) -> int | None:
    """A number of tokens, None where it is not recorded."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53 or value != int(value):
        raise ValueError(f"{name} is {_short(value)}, which is no number of tokens")
    return int(value)


def token_logprobs(values: Any) -> list[float] | None:
    """Logprobs of the tokens of a sample, at most 0; None where they are not recorded."""
    read = _of_tokens(values, "logprob", "at most 0", -math.inf, POSITIVE)
    return None if read is None else [min(value, 0.0) for value in read]


def token_confidences(values: Any) -> list[float] | None:
    """Confidences of the tokens of a sample, at least 0; None where they are not recorded."""
    read = _of_tokens(values, "confidence", "at least 0", -POSITIVE, math.inf)
    return None if read is None else [max(value, 0.0) for value in read]


def _of_tokens(values: Any, name: str, rule: str, low: float, high: float) -> list[float] | None:
    """Finite numbers from `low` to `high`."""
    if values is None:
        return None
    if not isinstance(values, list):
        raise ValueError(f"{name}s is no list")
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        if not (number and low <= value <= high):
            raise ValueError(f"a {name} is {_short(value)}, but it must be a number that is {rule}")
    return [float(value) for value in values]


def was_cut(finish: Any) -> bool:
    """Whether a sample did not come to its own end."""
    return isinstance(finish, str) and finish.lower() in CUT


def text_of(sample: Mapping[str, Any]) -> str:
    """The text of a sample, or its steps joined by blank lines; empty where it has neither."""
    text = sample.get("text")
    steps = [] if text is not None or sample.get("steps") is None else sample["steps"]
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise ValueError("steps is no list of texts")
    if text is not None and not isinstance(text, str):
        raise ValueError("text is no text")
    return "\n\n".join(steps) if text is None else text


def numbers_of(values: Any, name: str) -> Sequence[float | None]:
    """Scores, None where one is missing; a truth value is 0 or 1."""
    if not isinstance(values, list):
        raise ValueError(f"{name} is no list")
    for value in values:
        if value is not None and (not isinstance(value, bool | int | float) or math.isinf(value)):
            raise ValueError(f"a score in {name} is {_short(value)}, which is no number")
    return [None if value is None or math.isnan(value) else float(value) for value in values]


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
