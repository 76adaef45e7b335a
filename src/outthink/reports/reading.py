"""How the replies of runs and pools were read: by which rule, how often, and whether that is to be doubted.

A reply whose answer is marked (a box, a mark, a label) is read where its model meant it to be. Where nothing is marked
the last number or the text itself is taken, which may be anything; so it is counted, and told where it is often.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from outthink.answers.reading import read, read_by
from outthink.errors import UsageError
from outthink.models.samples import text_of
from outthink.records.runs import read_results
from outthink.types import AnswerKind, Trace

LAST_RULES = ("last", "line")
"""What is taken where nothing is marked: the last number, the last line."""

NONE = "none"
"""The rule of a reply in which no answer was read."""

_IN_WORDS = {"last": "last number", "line": "last line", "whole": "whole text"}
_DOUBT = 0.05  # share of replies that were read by a last rule from which that is told
_KINDS: tuple[AnswerKind, ...] = ("choice", "code", "math", "text", "chat", "json")  # the more particular one first
_TRIED = 50  # replies whose recorded answers say of which kind they are
_TEXTS = ("text", "completion", "response", "reply", "output", "content")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadReply:
    """One reply of a model.

    Args:
        problem: what it is a reply to; of a file of texts the number of its line.
        sample: its number among the replies to the same problem, from 0.
        complete: False where it was cut off, and so is not read.
        answer: what was read when it was recorded; None where nothing was, or where that is not known.
    """

    problem: str
    sample: int
    text: str
    complete: bool = True
    answer: str | None = None


def rule_of(kind: AnswerKind, text: str, options: tuple[str, ...] = ()) -> tuple[str | None, str]:
    """The answer of a complete text and the rule by which it was read, as `read_by`; NONE where there is none."""
    answer, rule = read_by(kind, text, options)
    return answer, NONE if answer is None else rule


def rules(texts: Iterable[str], kind: AnswerKind = "math", options: tuple[str, ...] = ()) -> dict[str, int]:
    """How many of these complete texts were read by which rule, the most frequent one first."""
    return dict(Counter(rule_of(kind, text, options)[1] for text in texts).most_common())


def doubt(counts: Mapping[str, int]) -> str | None:
    """A warning where more than 5% of replies were read by a last rule; None where it is fewer."""
    last, total = sum(counts.get(rule, 0) for rule in LAST_RULES), sum(counts.values())
    if not total or last / total <= _DOUBT:
        return None
    return (
        f"{last} of {total} replies ({100 * last / total:.0f}%) mark no answer, so the last number or the text itself "
        "was taken: look at them with `outthink answers`, and ask for a mark in the prompt."
    )


def counted(counts: Mapping[str, int], cut_off: int = 0) -> str:
    """The counts in words."""
    parts = [f"{count} {_IN_WORDS.get(rule, rule)}" for rule, count in counts.items()]
    if cut_off:
        parts.append(f"{cut_off} cut off and not read")
    return ", ".join(parts) or "no replies"


def kind_of(replies: Sequence[ReadReply]) -> AnswerKind:
    """The kind of answer under which most of the recorded answers are read again; math where none is recorded."""
    known = [reply for reply in replies if reply.complete and reply.answer is not None][:_TRIED]
    if not known:
        return "math"
    return max(_KINDS, key=lambda kind: sum(read(kind, reply.text) == reply.answer for reply in known))


def replies(path: Path) -> Iterator[ReadReply]:
    """The replies of a run directory, a pool, a JSONL file of traces or texts, or a plain text, which is one reply.

    A text of a JSONL file is a string, or an object with `text`, `completion`, `response`, `reply`, `output` or
    `content`. Samples of a pool without a text are left out. A path of - is standard input, as a plain text.

    Raises UsageError where it cannot be read.
    """
    if os.path.isdir(path):
        for result in read_results(path):
            if result.trace is not None:
                yield from _of_trace(result.trace)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        for number, row in _rows(path):
            yield from _of_row(row, f"Line {number} of {path}", str(number))
    else:
        try:
            text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8", errors="replace")
        except (OSError, UnicodeDecodeError) as cause:
            raise UsageError(f"Cannot read {path}: {getattr(cause, 'strerror', None) or cause}.") from cause
        if text.strip():
            yield ReadReply(problem="text", sample=0, text=text)


def _of_trace(trace: Trace) -> Iterator[ReadReply]:
    """The samples of its model that nothing continues, whole."""
    own = [one for one in trace.candidates if one.address[0] == "model" and "peek" not in one.address]
    continued = {candidate.parents[0] for candidate in own if candidate.continues}
    samples = [candidate for candidate in own if candidate.id not in continued]
    for number, candidate in enumerate(samples):
        yield ReadReply(
            problem=trace.problem,
            sample=number,
            text=trace.whole_text(candidate.id),
            complete=candidate.complete,
            answer=candidate.answer,
        )


def _of_row(row: Any, where: str, name: str) -> Iterator[ReadReply]:
    if isinstance(row, str):
        yield ReadReply(problem=name, sample=0, text=row)
        return
    try:
        if isinstance(row.get("trace"), dict) or "candidates" in row:
            yield from _of_trace(Trace.from_json(json.dumps(row.get("trace") or row)))
        elif isinstance(row.get("samples"), list):
            for number, sample in enumerate(row["samples"]):
                text = text_of(sample)
                if not text and sample.get("text") is None:
                    continue  # a pool need not hold what was written
                yield ReadReply(
                    problem=str(row.get("id", name)),
                    sample=number,
                    text=text,
                    complete=sample.get("finish") != "length",
                    answer=sample.get("answer"),
                )
        elif row.get("trace", "") is not None:
            text = next(row[field] for field in _TEXTS if isinstance(row.get(field), str))
            yield ReadReply(
                problem=str(row.get("id", name)), sample=0, text=text, complete=row.get("finish") != "length"
            )
    except StopIteration:
        raise UsageError(f"{where} has no text: write it as {_TEXTS[0]}.") from None
    except (AttributeError, KeyError, TypeError, ValueError) as cause:
        what = "" if type(cause) is ValueError else f"{type(cause).__name__}: "
        raise UsageError(f"{where} holds no reply ({what}{cause}).") from None


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(number, value) of every line; an unfinished last line is left out, and blank ones are."""
    broken = 0
    try:
        with cast("Any", gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            for number, line in enumerate(file, start=1):
                if broken:
                    raise UsageError(f"Line {broken} of {path} is damaged: repair it, or remove that line.")
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    broken = number
                    continue
                yield number, value
    except (OSError, EOFError, zlib.error) as cause:
        raise UsageError(f"Cannot read {path}: {getattr(cause, 'strerror', None) or cause}.") from cause
