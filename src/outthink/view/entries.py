"""What one line of a recording says: a row of a list, and all of it for the page of a problem."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from outthink.answers.reading import read_by
from outthink.cost.kinetics import of_trace, recorded
from outthink.errors import UsageError
from outthink.models.engine import Shape
from outthink.models.samples import numbers_of, pool_id, text_of, token_count, token_logprobs, was_cut
from outthink.records.ends import TokenEnds
from outthink.records.kinds import Form
from outthink.records.runs import Result, result_from_json
from outthink.reports.reading import ReadReply, rule_of
from outthink.types import AnswerKind, Candidate, Trace, path

_UNREADABLE = (ValueError, UsageError, KeyError, TypeError, AttributeError, RecursionError)
EFLOPS = "eflops"

_HIDDEN = {"token_ids", "observed", "artifact", "sent"}  # of a candidate, which the page does not show


@dataclass(frozen=True, kw_only=True, slots=True)
class ListRow:
    """One problem in a list.

    Args:
        credit: in [0, 1]; of a pool the share of its samples that are right; None where nobody graded it.
        cost: by unit, as in a trace.
        nodes: candidates, or samples.
        error: why nothing came back, or why the line cannot be read, which `damaged` says.
    """

    problem: str
    credit: float | None = None
    answer: str | None = None
    key: str | None = None
    stopped: str = ""
    strategy: str = ""
    cost: Mapping[str, float] = field(default_factory=dict)
    nodes: int = 0
    error: str | None = None
    damaged: bool = False

    def shown(self, line: int) -> dict[str, Any]:
        """As JSON data, with the number of its line."""
        return {"line": int(line), **dataclasses.asdict(self)}


def row_of(form: Form, line: bytes, shapes: Mapping[str, Shape] | None = None) -> ListRow:
    """The row of a line; one that cannot be read is a row that says so.

    Args:
        shapes: of the models by role, for its eFLOPs; of a pool the line itself may tell it.
    """
    try:
        if form == "pool":
            return _pool_row(_object(line))
        result = _result(form, line)
    except _UNREADABLE as cause:
        return ListRow(problem="", error=_why(cause), damaged=True)
    trace = result.trace
    if trace is None:
        return ListRow(problem=result.problem, credit=result.credit, error=result.error)
    return ListRow(
        problem=result.problem,
        credit=result.credit,
        answer=trace.answer,
        key=trace.key,
        stopped=trace.stopped,
        strategy=str(trace.strategy.get("name", "")),
        cost={**trace.cost, **_eflops(trace, shapes or {})} if trace.calls else {"seconds": trace.seconds},
        nodes=len(trace.candidates),
        error=result.error or trace.error,
    )


def _eflops(trace: Trace, shapes: Mapping[str, Shape]) -> dict[str, float]:
    """Operations, with memory traffic charged; empty where the shape of a model that was asked is not known."""
    try:
        return {EFLOPS: float(of_trace(trace, shapes).eflops())} if shapes else {}
    except ValueError:
        return {}


def _pool_eflops(row: Mapping[str, Any], tokens: Sequence[int | None]) -> dict[str, float]:
    """Of all samples of a line that tells the shape of its model."""
    meta, prompt = row.get("meta"), row.get("prompt_tokens")
    if not isinstance(meta, dict) or not meta.get("shape") or not isinstance(prompt, int) or None in tokens:
        return {}
    try:
        return {EFLOPS: float(recorded(Shape(**meta["shape"]), prompt, np.array(tokens, float)).eflops())}
    except (ValueError, TypeError):
        return {}


def replies_of(form: Form, line: bytes) -> list[ReadReply]:
    """The complete replies of a line with the answers that were read from them; none where it cannot be read."""
    if form == "pool":
        try:
            samples = _object(line)["samples"]
            return [
                ReadReply(problem="", sample=place, text=text_of(sample), answer=sample.get("answer"))
                for place, sample in enumerate(samples)
                if not was_cut(sample.get("finish"))
            ]
        except _UNREADABLE:
            return []
    result = result_or_none(form, line)
    trace = None if result is None else result.trace
    if trace is None:
        return []
    return [
        ReadReply(problem="", sample=0, text=text, answer=one.answer)
        for one, text in _answers(trace)
        if one.address[0] == "model"
    ]


def result_or_none(form: Form, line: bytes) -> Result | None:
    """The result on a line of a run or of traces; None where it cannot be read."""
    try:
        return _result(form, line)
    except _UNREADABLE:
        return None


def entry_of(form: Form, line: bytes, kind: AnswerKind) -> dict[str, Any]:
    """All that a line says, as JSON data for the page; raises UsageError where it cannot be read.

    Args:
        kind: as what its answers were read.
    """
    try:
        if form == "pool":
            return _pool_entry(_object(line), kind)
        result = _result(form, line)
    except _UNREADABLE as cause:
        raise UsageError(_why(cause)) from cause
    entry: dict[str, Any] = {"problem": result.problem, "credit": result.credit, "error": result.error, "kind": kind}
    return entry if result.trace is None else {**entry, **trace_entry(result.trace, kind)}


def trace_entry(trace: Trace, kind: AnswerKind) -> dict[str, Any]:
    """A trace with its cost, its ledger, and the rule by which each answer was read."""
    shown = trace.to_data(exclude={"candidates": {"__all__": _HIDDEN}})
    rules = {}
    for candidate, text in _answers(trace):
        answer, rule = rule_of(kind, text)
        # read otherwise now than then, as where the options of a choice are not in the trace
        rules[candidate.id] = rule if answer == candidate.answer else ""
    return {"trace": shown, "cost": trace.cost, "rules": rules, "answer": trace.answer, "text": trace.text}


def in_units(text: str, ends: Sequence[int]) -> list[int]:
    """Places in a text as JavaScript counts them, in units of UTF-16."""
    if text.isascii() or not text or max(text) < "\U00010000":
        return list(ends)
    before = list(accumulate((1 + (character >= "\U00010000") for character in text), initial=0))
    return [before[min(end, len(text))] for end in ends]


async def token_ends(form: Form, line: bytes, tokens: TokenEnds) -> dict[str, list[int]]:
    """Where the tokens of each candidate of a trace that has logprobs end, as far as that can be told."""
    result = None if form == "pool" else result_or_none(form, line)
    ends = {}
    for one in () if result is None or result.trace is None else result.trace.candidates:
        if one.logprobs and one.token_ids and len(one.logprobs) == len(one.token_ids):
            located = await tokens.locate(one.token_ids, one.text)
            if located is not None:
                ends[one.id] = in_units(one.text, located)
    return ends


def _answers(trace: Trace) -> Iterator[tuple[Candidate, str]]:
    """The whole answers of a trace, each with the text that it is read from."""
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    for candidate in trace.candidates:
        if candidate.complete:
            yield candidate, "".join(segment.text for segment in path(candidate, by_id))


def _result(form: Form, line: bytes) -> Result:
    if form == "results":
        result = result_from_json(line)
    else:
        trace = Trace.from_json(line)
        error = None if trace.rounds else trace.error
        result = Result(problem=trace.problem, credit=None, error=error, trace=trace)
    if result.trace is not None:
        _check(result.trace)
    return result


def _check(trace: Trace) -> None:
    """Raise ValueError where a candidate continues nothing, or itself: a whole text of it would have no end."""
    above = {one.id: one.parents[0] if one.continues and one.parents else None for one in trace.candidates}
    fine: set[str] = set()
    for name in above:
        line: dict[str, None] = {}
        at: str | None = name
        while at is not None and at not in fine:
            if at in line or at not in above:
                raise ValueError(f"the candidate {name} continues {'itself' if at in line else 'none that is there'}")
            line[at] = None
            at = above[at]
        fine |= line.keys()


def _object(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    return row


def _why(cause: BaseException) -> str:
    """A sentence about a line that cannot be read."""
    if isinstance(cause, UsageError):
        return f"This line {cause}"
    if isinstance(cause, json.JSONDecodeError | UnicodeDecodeError):
        return "This line is damaged: it is no JSON."
    first = str(cause).splitlines()[0] if str(cause) else ""
    return f"This line cannot be read: {first or type(cause).__name__}."


def _pool_row(row: dict[str, Any]) -> ListRow:
    samples = row["samples"]
    graded = [sample["correct"] for sample in samples if isinstance(sample.get("correct"), bool)]
    tokens = [token_count(sample.get("tokens"), "tokens") for sample in samples]
    known = [count for count in tokens if count is not None]
    answer = row.get("answer")
    return ListRow(
        problem=pool_id(row.get("id")) or "",
        credit=sum(graded) / len(graded) if graded else None,
        answer=answer if isinstance(answer, str) else None if answer is None else json.dumps(answer),
        cost={"tokens": float(sum(known)), **_pool_eflops(row, tokens)} if len(known) == len(samples) else {},
        nodes=len(samples),
    )


def _pool_entry(row: dict[str, Any], kind: AnswerKind) -> dict[str, Any]:
    """A problem of a pool as a trace without calls: its samples are candidates."""
    shown = _pool_row(row)
    candidates, ends, rules, correct = [], {}, {}, {}
    scores: dict[str, dict[str, float]] = {}
    for place, sample in enumerate(row["samples"]):
        name = f"sample/{place}"
        text, cut = text_of(sample), was_cut(sample.get("finish"))
        answer = sample.get("answer")
        answer = None if answer is None else str(answer)
        key = sample.get("key", answer)
        candidates.append(
            {
                "address": ["sample", place],
                "parents": [],
                "continues": False,
                "text": text,
                "tokens": token_count(sample.get("tokens"), "tokens") or 0,
                "logprobs": token_logprobs(sample.get("logprobs")),
                "finish": str(sample.get("finish") or ("length" if cut else "eos")),
                "complete": not cut,
                "answer": answer,
                "key": None if key is None or cut else str(key),
            }
        )
        if isinstance(sample.get("ends"), list):
            ends[name] = in_units(text, [int(end) for end in sample["ends"]])
        if isinstance(sample.get("correct"), bool):
            correct[name] = sample["correct"] and not cut
        if not cut:
            read, rule = read_by(kind, text)
            rules[name] = rule if read is not None and read == answer else "" if answer is not None else "none"
        if isinstance(sample.get("reward"), int | float):
            scores.setdefault("reward", {})[name] = float(sample["reward"])
    for scorer, values in (row.get("scores") or {}).items():
        for place, score in enumerate(numbers_of(values, scorer)):
            if score is not None and math.isfinite(score):
                scores.setdefault(scorer, {})[f"sample/{place}"] = score
    question = row.get("question")
    return {
        "problem": shown.problem,
        "credit": shown.credit,
        "error": None,
        "kind": kind,
        "gold": shown.answer,
        "question": question if isinstance(question, str) else None,
        "trace": {"candidates": candidates, "rounds": [], "calls": [], "scores": scores, "prompts": [], "notes": []},
        "cost": dict(shown.cost),
        "rules": rules,
        "ends": ends,
        "correct": correct,
        "meta": row.get("meta") if isinstance(row.get("meta"), dict) else {},
    }
