"""What a caller gets: traces as replies of OpenAI's chat API, whole or as chunks.

`completion_tokens` are all that the model wrote, also what nobody gets to see; those are its `reasoning_tokens`.
What verifiers used is not in `usage`, which would mix two models, but beside it, with the whole ledger.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outthink.types import Candidate, LedgerLine, Trace, Usage, fullest, path

_FINISH = {"eos": "stop", "stop": "stop", "length": "length", "cancelled": "length"}
_REASONS = ("stop", "length", "tool_calls", "function_call")
_IN_PIECES = ("role", "content", "tool_calls")
_MOST_PIECES = 2000  # of a long text
_PIECE = re.compile(r"\s*\S+(?:\s+\S+){0,3}\s*|\s+")  # of the winner's text in a chunk: some words


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One choice of a reply.

    Args:
        place: among the choices.
        message: as the API has it.
        visible: its tokens that the caller sees.
    """

    place: int = 0
    message: Mapping[str, Any]
    finish: str
    visible: int
    logprobs: Mapping[str, Any] | None = None


def answers(trace: Trace, choices: int, partial: Sequence[str] = ()) -> list[Answer]:
    """The best `choices` different answers, the best one first; fewer where there are no more.

    Args:
        partial: what had been written of an answer that never ended, in pieces, each of a token or more.

    Where nothing was chosen, it is the longest text that there is, cut off as it is.
    """
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    order = _ranked(trace, by_id)
    best = [answer(path(candidate, by_id), place) for place, candidate in enumerate(order[:choices])]
    if not best and partial:
        message = {"role": "assistant", "content": "".join(partial)}
        best = [Answer(message=message, finish="length", visible=len(partial))]
    return best


def each(trace: Trace) -> list[Answer]:
    """Every sample, in its place: what a caller gets who asked for several and for no strategy."""
    by_id = {sample.id: sample for sample in trace.candidates}
    return [answer(path(sample, by_id), int(sample.address[-1])) for sample in trace.candidates]


def _ranked(trace: Trace, by_id: Mapping[str, Candidate]) -> list[Candidate]:
    """The chosen one, then one for each other answer: by score where there are scores, else by votes."""
    last = trace.rounds[-1] if trace.rounds else None
    chosen = None if last is None or last.chosen is None else by_id[last.chosen]
    if chosen is None:
        longest = fullest(trace.candidates, by_id)
        return [] if longest is None else [longest]
    assert last is not None
    scores = dict(zip(last.candidates, last.scores or (), strict=False))
    among = [by_id[name] for name in last.candidates if by_id[name].complete and by_id[name].key is not None]
    weight: dict[str, float] = {}
    first: dict[str, Candidate] = {}
    for one in among:
        assert one.key is not None
        score = scores.get(one.id)
        known = -math.inf if score is None else score
        if one.key not in first or (scores and known > weight[one.key]):
            first[one.key] = one
            weight[one.key] = known if scores else 0.0
        weight[one.key] += 0 if scores else 1
    others = sorted((key for key in first if key != chosen.key), key=lambda key: -weight[key])
    # answers that the method did not count in the end are paid for as well, and better than none
    further: dict[str, list[Candidate]] = {}
    for one in trace.candidates:
        own = one.address[0] == "model" and one.problem is None and not one.continues
        if own and one.complete and one.key is not None and one.key != chosen.key and one.key not in first:
            further.setdefault(one.key, []).append(one)
    rest = sorted(further.values(), key=lambda alike: -len(alike))
    return [chosen, *(first[key] for key in others), *(alike[0] for alike in rest)]


def answer(segments: Sequence[Candidate], place: int = 0) -> Answer:
    """A candidate, with what it continues before it, as a choice."""
    candidate = segments[-1]
    sent = candidate.sent or {}
    said = [(one.sent or {}).get("message") or {"role": "assistant", "content": one.text} for one in segments]
    message = said[0] if len(said) == 1 else _joined(said)
    visible = [min(int((one.sent or {}).get("visible", one.tokens)), one.tokens) for one in segments]
    finish = sent.get("finish_reason")
    if finish not in _REASONS:  # a word that is not of OpenAI's API
        finish = "tool_calls" if message.get("tool_calls") else _FINISH[candidate.finish]
    return Answer(
        place=place,
        message=message,
        finish=finish,
        visible=sum(visible),
        logprobs=sent.get("logprobs"),
    )


def _joined(said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The message of an answer that was written step by step, thoughts apart."""
    texts = {
        name: "".join(one.get(name) or "" for one in said) for name in ("content", "reasoning_content", "reasoning")
    }
    return {"role": "assistant"} | {name: text for name, text in texts.items() if text or name == "content"}


# ----------------------------------------------------------------------------------------------------------- the whole


def completion(
    ident: str, created: int, model: str, trace: Trace, answers: Sequence[Answer], more: Any
) -> dict[str, Any]:
    """A chat completion; `more` is the object `outthink`."""
    return {
        "id": ident,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": one.place,
                "message": {"refusal": None, **one.message},
                "logprobs": one.logprobs,
                "finish_reason": one.finish,
            }
            for one in answers
        ],
        "usage": usage(trace, answers),
        "outthink": more,
    }


def usage(trace: Trace, answers: Sequence[Answer]) -> dict[str, Any]:
    """All tokens that the model read and wrote for this request, as charged; beside them those that were seen."""
    lines = [line for line in trace.ledger() if _writes(line)]
    written, seen = Usage.total(line.usage for line in lines), Usage.total(line.seen for line in lines)
    return {
        "prompt_tokens": written.prompt,
        "completion_tokens": written.completion,
        "total_tokens": written.prompt + written.completion,
        "prompt_tokens_details": {"cached_tokens": written.cached, "seen_tokens": seen.prompt},
        "completion_tokens_details": {
            "reasoning_tokens": max(0, written.completion - sum(one.visible for one in answers)),
            "seen_tokens": seen.completion,
        },
    }


def _writes(line: LedgerLine) -> bool:
    """Whether it is about answers, and not about judging them, which rollouts are for."""
    return line.kind == "sample" and line.role != "rollout"


def told(
    trace: Trace, answers: Sequence[Answer], choices: int, named: Mapping[str, Any], load: float
) -> dict[str, Any]:
    """The object `outthink` of a reply: how the answer came about, and what all of it cost."""
    lines = trace.ledger()
    checks = Usage.total(line.usage for line in lines if not _writes(line))
    samples = [one for one in trace.candidates if one.complete]
    notes = list(trace.notes)
    if trace.abstained:
        notes.append("nothing was good enough to be chosen; the reply is what there is")
    if samples and all(one.key is None for one in samples):
        notes.append("no sample has an answer of the form that is compared")
    if any(not line.exact for line in lines):
        notes.append("what was not seen to its end is charged as the most that it can have been; seen is what was seen")
    if 0 < len(answers) < choices:
        notes.append(f"{choices} choices were asked for, and there are {len(answers)}")
    shown: dict[str, Any] = {
        "trace": trace.problem,
        "strategy": dict(named),
        "stopped": trace.stopped,
        "answer": trace.answer,
        "confidence": trace.confidence,
        "samples": len(samples),
        "distinct": len({one.key for one in samples if one.key is not None}),
        "max_tokens": trace.sampling.cap,
        "verifier_tokens": _tokens(checks),
        "charged": _tokens(Usage.total(line.usage for line in lines)),
        "seen": _tokens(Usage.total(line.seen for line in lines)),
        "budget": {unit: float(f"{limit:.6g}") for unit, limit in trace.budget.limits.items()},
        "cost": trace.cost,
        "ledger": [_line(line) for line in lines],
        "notes": notes,
    }
    if load < 1:
        shown["load"] = load
    return shown


def _line(line: LedgerLine) -> dict[str, Any]:
    return {
        "kind": line.kind,
        "role": line.role,
        "calls": line.calls,
        "samples": line.children,
        "failed": line.failed,
        "cancelled": line.cancelled,
        "prompt_tokens": line.usage.prompt,
        "cached_tokens": line.usage.cached,
        "completion_tokens": line.usage.completion,
        "seen": _tokens(line.seen),
        "exact": line.exact,
    }


def _tokens(usage: Usage) -> dict[str, int]:
    return {"prompt": usage.prompt, "cached": usage.cached, "completion": usage.completion}


def headers(traces: Sequence[Trace]) -> dict[str, str]:
    """What gateways read of the cost of all calls, verifiers included."""
    charged, seen = (
        str(sum(usage.prompt + usage.completion for usage in usages))
        for usages in zip(*((trace.usage, trace.seen) for trace in traces), strict=True)
    )
    told = {
        "x-litellm-total-tokens": charged,
        "x-outthink-charged-tokens": charged,
        "x-outthink-seen-tokens": seen,
        "x-outthink-trace": ", ".join(trace.problem for trace in traces),
    }
    costs = [trace.cost for trace in traces]
    if all("usd" in cost for cost in costs):
        told["x-litellm-response-cost"] = f"{sum(cost['usd'] for cost in costs):.12g}"
    return told


# ---------------------------------------------------------------------------------------------------------- in pieces


def chunk(ident: str, created: int, model: str, choices: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A chunk of a stream."""
    return {
        "id": ident,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": choices,
        **more,
    }


def pieces(one: Answer) -> Iterator[dict[str, Any]]:
    """The choices of the chunks that make up an answer, the last one with how it ended."""
    message = one.message
    content = message.get("content")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if content is None else ""}]
    deltas += ({name: value} for name, value in message.items() if name not in _IN_PIECES)
    logprobs = {}
    if one.logprobs:  # those of all tokens belong to the whole text
        logprobs[len(deltas)] = one.logprobs
        deltas.append({"content": content or ""})
    else:
        deltas += ({"content": piece} for piece in _in_pieces(content or ""))
    calls = enumerate(message.get("tool_calls") or ())
    deltas += ({"tool_calls": [{"index": number, **call}]} for number, call in calls)
    for number, delta in enumerate(deltas):
        told = {"logprobs": logprobs[number]} if number in logprobs else {}
        yield {"index": one.place, "delta": delta, **told, "finish_reason": None}
    yield ended(one.place, one.finish)


def _in_pieces(text: str) -> list[str]:
    """The text in pieces of some words; a long one in as many pieces as it takes, but not more."""
    if len(text) <= _MOST_PIECES * 10:
        return _PIECE.findall(text)
    size = -(-len(text) // _MOST_PIECES)
    return [text[start : start + size] for start in range(0, len(text), size)]


def ended(place: int, finish: str) -> dict[str, Any]:
    """How a choice ended, as the last of its chunks says it."""
    return {"index": place, "delta": {}, "finish_reason": finish}


def passed_on(place: int, piece: Mapping[str, Any]) -> dict[str, Any] | None:
    """A piece of a model's answer as a choice of a chunk; None where it says nothing."""
    said = piece.get("delta") or piece.get("message") or {}
    delta = {name: value for name, value in said.items() if value is not None and name != "role"}
    if delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(delta["tool_calls"])]
    if not piece.get("logprobs") and not any(delta.values()):
        return None
    choice: dict[str, Any] = {"index": place, "delta": delta, "finish_reason": None}
    if piece.get("logprobs"):
        choice["logprobs"] = piece["logprobs"]
    return choice
