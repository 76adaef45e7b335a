"""Plain frozen data that every other module exchanges: problem, candidate, round, call, trace, budget.

Nothing here does I/O, and nothing here knows the gold answer: an example (problem and grader) lives in `tasks`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar

SCHEMA = 1
"""Version of the trace's JSON form; a reader refuses another one."""

AnswerKind = Literal["math", "choice", "text", "code", "json", "chat"]
Finish = Literal["eos", "stop", "length", "cancelled"]
Stopped = Literal["finished", "budget", "deadline", "cancelled", "overrun", "error"]
Address = tuple[str | int, ...]
Addressed = TypeVar("Addressed", "Candidate", "Call")


def writable(text: str) -> str:
    """The text with surrogates, which no file can hold, joined where they are a pair, else as question marks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return joined.encode("utf-8", "replace").decode()
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a message: text, or a reference to media (never the bytes themselves)."""

    kind: Literal["text", "image", "audio", "file"] = "text"
    text: str = ""
    reference: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of the conversation that poses the problem.

    Args:
        sent: the turn as a caller of OpenAI's API wrote it (media, tool calls, names). Engines that speak this API get
            it as it is, all others what is in `content`. A turn that says or shows something else than the message
            cannot be its `sent`: it is dropped, so a message whose content was replaced is sent with its new content.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"] = "user"
    content: str | tuple[Part, ...] = ""
    sent: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.sent is not None and (self.sent.get("role") != self.role or not _same(self.sent, self.content)):
            object.__setattr__(self, "sent", None)

    @property
    def text(self) -> str:
        """The text of the message; media parts are left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if part.kind == "text")

    @property
    def told(self) -> Message:
        """The same as text that can be written, for records; of media stays its kind, such as [image]."""
        parts = (Part(text=self.content),) if isinstance(self.content, str) else self.content
        text = writable("".join(part.text if part.kind == "text" else f"[{part.kind}]" for part in parts))
        return self if text == self.content and self.sent is None else Message(role=self.role, content=text)


def _same(turn: Mapping[str, Any], content: str | tuple[Part, ...]) -> bool:
    """Whether a turn of OpenAI's API says this: the same text, and of parts also the same media, so far as is known."""
    parts = turn.get("content") or ()
    parts = ({"type": "text", "text": parts},) if isinstance(parts, str) else parts
    if not isinstance(parts, list | tuple) or not all(isinstance(part, Mapping) for part in parts):
        return False
    texts = [part.get(part["type"]) for part in parts if part.get("type") in ("text", "refusal")]
    if not all(isinstance(text, str) for text in texts):
        return False
    said = "".join(writable(text) for text in texts)
    if isinstance(content, str):
        return said == content
    media = [part for part in content if part.kind != "text"]
    shown = [part for part in parts if part.get("type") not in ("text", "refusal")]
    return (
        said == "".join(part.text for part in content if part.kind == "text")
        and len(media) == len(shown)
        and all(part.reference is None or _has(there, part.reference) for part, there in zip(media, shown, strict=True))
    )


def _has(part: Any, reference: str) -> bool:
    """Whether the text is anywhere in a part of a turn."""
    if isinstance(part, Mapping):
        return any(_has(value, reference) for value in part.values())
    return bool(part == reference)


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """What it takes to run an answer that is code; all of it may be seen by a strategy.

    Args:
        prelude: source that runs before the answer, such as the imports and helpers that the prompt shows. It may end
            with the head of a function of which the answer is the body.
        entry_point: name of the function that is asked for; empty where the problem does not say.
        tests: public tests, each a piece of source that raises where the answer is wrong.
    """

    prelude: str = ""
    entry_point: str = ""
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What a strategy is asked to solve: messages, and how its answers are read; never the gold answer.

    Args:
        id: unique within a task; part of every random address.
        messages: the conversation, oldest first; the last one is the user's.
        answer: how answers are read and compared (see `answers`).
        options: labels of a multiple-choice question, such as ("A", "B", "C").
        question: the bare question, without the instructions of a prompt template (for judges and reports).
        context_id: names a context shared by several problems (retrieval, sleep-time compute).
        code: how an answer of kind code is run.
        marked: the task asks for a last line in a fixed form, so only what is marked as the answer is read as one: what
            stands in a box, behind "the answer is" or behind ####. Of anything else the answer is INVALID.
        fields: further fields of OpenAI's chat API that were sent with the question (tools, response_format ...). An
            engine gets them as they are, but only with samples of the problem's own messages. A field of None means
            that nothing is to be sent where the engine would send a value of its own (temperature).
    """

    id: str
    messages: tuple[Message, ...]
    answer: AnswerKind = "math"
    options: tuple[str, ...] = ()
    question: str = ""
    context_id: str | None = None
    code: Code = Code()
    marked: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", writable(self.id))
        if not self.question and self.messages:
            object.__setattr__(self, "question", self.messages[-1].text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How samples are drawn where the strategy does not say otherwise.

    Args:
        temperature: 0 is greedy; at least 0.
        top_p: nucleus mass in (0, 1].
        max_tokens: most completion tokens of one complete sample; at least 1. None: 512, or fewer where a budget has
            room for several samples then; a sample of a run that has begun always has a number.
    """

    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be a number of at least 0, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.cap < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")

    @property
    def cap(self) -> int:
        """`max_tokens`, as a number."""
        return 512 if self.max_tokens is None else self.max_tokens

    def settled(self) -> Sampling:
        """The same with `max_tokens` as a number."""
        return replace(self, max_tokens=self.cap)


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What one or more calls used.

    Args:
        prompt: prompt tokens, cached ones included (the convention of OpenAI's API).
        cached: those of them that were served from a prefix cache.
        completion: tokens the model wrote.
        further: other units that an engine counts, such as images or network evaluations; a budget may limit them.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    further: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Usage) -> Usage:
        further = self.further
        if other.further:
            units = {**self.further, **other.further}
            further = {unit: self.further.get(unit, 0.0) + other.further.get(unit, 0.0) for unit in units}
        return Usage(
            prompt=self.prompt + other.prompt,
            cached=self.cached + other.cached,
            completion=self.completion + other.completion,
            further=further,
        )

    @property
    def tokens(self) -> int:
        """What a budget in tokens counts: tokens read (not from cache) and written."""
        return self.prompt - self.cached + self.completion

    @staticmethod
    def total(usages: Iterable[Usage]) -> Usage:
        """The sum of several usages."""
        total = Usage()
        for usage in usages:
            total = total + usage
        return total


@lru_cache(maxsize=1 << 14)  # the same ones are asked for all the time
def _joined(address: Address) -> str:
    return "/".join(map(str, address))


def by_address(things: Iterable[Addressed]) -> list[Addressed]:
    """Candidates or calls, sorted by their addresses part by part, numbers as numbers."""
    return sorted(things, key=lambda one: [(0, p, "") if isinstance(p, int) else (1, 0, p) for p in one.address])


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A node: a complete sample, or one reasoning step with its parents.

    Args:
        address: where its randomness and its identity come from: (role, *lane, request, child).
        parents: ids of the candidates it was made from (several for fusion and debate).
        continues: its text continues that of parents[0], as a reasoning step does.
        text: this segment only; the whole text is the join along the candidates it continues.
        tokens: completion tokens of this segment.
        token_ids, logprobs: of this segment, where the engine gives them (nats, untempered).
        finish: "eos" the model ended; "stop" a stop string; "length" cut by a cap; "cancelled".
        complete: a whole answer that ended by itself; a truncated one is not.
        answer: the answer read from the whole text, as displayed; None where nothing could be read.
        key: canonical key of the answer; equal keys are equal answers; None is INVALID and never votes.
        artifact: reference to a payload that is not text.
        observed: what the engine saw while it wrote (hidden states, top logprobs), by power, as `Completion.observed`.
        problem: id of the sub-question that it answers; None: the problem of the trace.
        sent: the answer in the form of OpenAI's chat API (message, logprobs, finish_reason), where it is more than its
            text: tool calls, thoughts, a refusal, or logprobs that were asked for.
    """

    address: Address
    parents: tuple[str, ...] = ()
    continues: bool = False
    text: str = ""
    tokens: int = 0
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    finish: Finish = "eos"
    complete: bool = True
    answer: str | None = None
    key: str | None = None
    artifact: str | None = None
    observed: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    sent: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        """The address as one string, unique within a trace."""
        return _joined(self.address)


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What a strategy answered at one moment, and what had been charged by then.

    Args:
        candidates: ids of the candidates it chose among.
        scores: one per candidate, None where a score is missing; None where the method has none.
        chosen: id of the candidate it would return; None if none is valid.
        answer: that candidate's answer; None is INVALID.
        confidence: the method's own share or score in [0, 1]; not a calibrated probability.
        cost: charged so far by unit (tokens, usd, flops ...).
        at: seconds since the start.
        generation: where the candidates are one whole generation of answers, each made from the one before it, its
            number from 1; a place in it is the same agent's or slot's in the next one. None: they are none.
        usage: tokens charged by then; told of generations only.
    """

    candidates: tuple[str, ...] = ()
    scores: tuple[float | None, ...] | None = None
    chosen: str | None = None
    answer: str | None = None
    key: str | None = None
    confidence: float | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    at: float = 0.0
    generation: int | None = None
    usage: Usage | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One metered piece of work.

    Args:
        kind: "sample", "judge", "verify", "embed", "execute" ...
        role: which model or resource did it.
        address: the address of its first child.
        n: children (samples, scores) in it; `failed` of them came to nothing.
        phase: "solve", or "offline" for work done before the question arrived.
        scope: whom it serves: "problem", "context" or "run".
        outcome: "ok", "failed" or "cancelled".
        error: why it failed, for people; never part of an answer.
        reads: how often the prompt is counted in `seen.prompt`.
        attempts: how often it was begun; only attempts that were refused, and so produced nothing, are repeated.
        seen: tokens that were seen to be produced (seen <= true).
        charged: tokens that are charged (true <= charged); equal to `seen` where `exact`.
        cost: charged amount by unit.
        started, ended: seconds since the start of the problem.
        prompt: what the model was sent, as its place in the trace's `prompts`; None where no language model was asked.
        after: id of the candidate whose whole text was the beginning of its answer; None: it began a fresh one.
        sampling: how samples were drawn and where they end, as it was sent, by the names of OpenAI's API (temperature,
            stop, max_tokens ...); None where no language model was asked, or where that was not recorded.
    """

    kind: str
    role: str
    address: Address
    n: int = 1
    failed: int = 0
    phase: Literal["solve", "offline"] = "solve"
    scope: Literal["problem", "context", "run"] = "problem"
    outcome: Literal["ok", "failed", "cancelled"] = "ok"
    error: str | None = None
    reads: int = 1
    attempts: int = 1
    seen: Usage = Usage()
    charged: Usage = Usage()
    exact: bool = True
    cost: Mapping[str, float] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    prompt: int | None = None
    after: str | None = None
    sampling: Mapping[str, Any] | None = None


_UNITS = {
    "token": "tokens", "tokens": "tokens", "tok": "tokens",
    "usd": "usd", "$": "usd",
    "s": "seconds", "sec": "seconds", "second": "seconds", "seconds": "seconds",
    "flop": "flops", "flops": "flops",
    "execution_seconds": "execution_seconds",
    "image": "images", "images": "images",
    "evaluation": "evaluations", "evaluations": "evaluations",
    "execution": "executions", "executions": "executions",
}  # fmt: skip
_SCALE = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([kMGTP]?)(\s*-?\s*)(\$|[A-Za-z_]+)")


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits by unit, every one enforced: tokens, usd, seconds, flops, and any unit a resource counts.

    A budget without limits allows everything. Raises ValueError on a limit that is not a positive number.
    """

    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for unit, limit in self.limits.items():
            if not (math.isfinite(limit) and limit > 0):
                raise ValueError(f"the budget of {unit} must be a positive number, not {limit}")

    @classmethod
    def parse(cls, text: str, units: Collection[str] | None = ()) -> Budget:
        """Read "20k-tokens,8s,0.01usd"; raises ValueError with the accepted form.

        Args:
            units: further ones, which an engine or a resource counts; None: any word may be one.
        """
        limits: dict[str, float] = {}
        for part in text.split(","):
            match = _AMOUNT.fullmatch(part.strip())
            example = f"cannot read the budget {part.strip()!r}; write amounts like 20k-tokens,8s,0.01usd,2T-flops"
            if match is None:
                raise ValueError(example)
            amount, scale, between, word = match.groups()
            if word not in _UNITS and not between:
                scale, word = "", scale + word  # of 5kernels the k is part of the word
            unit = _UNITS.get(word, word)
            if word not in _UNITS and units is not None and word not in units:
                raise ValueError(f"{example}, in {', '.join(dict.fromkeys([*_UNITS.values(), *sorted(units)]))}")
            if unit in limits:
                raise ValueError(f"the budget names {unit} twice; give each unit once")
            limits[unit] = float(amount) * _SCALE[scale]
        return cls(limits)

    def __str__(self) -> str:
        return ", ".join(f"{limit:,.10g} {unit}" for unit, limit in self.limits.items()) or "no limit"


@dataclass(kw_only=True, slots=True)
class LedgerLine:
    """Sum of the calls of one kind and role; `usage` is what is charged, `seen` what was seen of it."""

    kind: str
    role: str
    calls: int = 0
    children: int = 0
    failed: int = 0
    cancelled: int = 0
    usage: Usage = field(default_factory=Usage)
    seen: Usage = field(default_factory=Usage)
    exact: bool = True
    cost: dict[str, float] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        """Count one call."""
        self.calls += 1
        self.children += call.n
        self.failed += call.failed
        self.cancelled += call.n if call.outcome == "cancelled" else 0
        self.usage = self.usage + call.charged
        self.seen = self.seen + (call.charged if call.exact else call.seen)
        self.exact = self.exact and call.exact
        for unit, amount in call.cost.items():
            self.cost[unit] = self.cost.get(unit, 0.0) + amount


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Everything that happened on one problem, as one JSON line.

    `candidates` and `calls` are sorted by address, so a trace does not depend on the order of arrival.
    The answer is that of the last round.

    Args:
        strategy: {"name": ..., hyperparameters}.
        resources: {"model": engine name, ...} by role, versions of stateful resources included.
        stopped: why it ended; `error` says more where that is "error".
        notes: what the strategy wants to be known about how it decided, for people.
        prompts: the messages that models were sent, each list once; of media only that there were some.
        scores: what scorers gave to whole answers and steps, by the name of the scorer and the candidate's id.
        schema: version of this form.

    Its `repr` leaves out what is long. Python makes one of the result of every `asyncio.run`, though nobody sees it.
    """

    problem: str
    strategy: Mapping[str, Any]
    seed: int
    sampling: Sampling
    budget: Budget
    resources: Mapping[str, str]
    candidates: tuple[Candidate, ...] = field(repr=False)
    rounds: tuple[Round, ...] = field(repr=False)
    calls: tuple[Call, ...] = field(repr=False)
    stopped: Stopped
    error: str | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    prompts: tuple[tuple[Message, ...], ...] = field(default=(), repr=False)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict, repr=False)
    schema: int = SCHEMA

    @property
    def answer(self) -> str | None:
        """The final answer as displayed; None is INVALID."""
        return self.rounds[-1].answer if self.rounds else None

    @property
    def key(self) -> str | None:
        """Canonical key of the final answer."""
        return self.rounds[-1].key if self.rounds else None

    @property
    def confidence(self) -> float | None:
        """The method's own confidence in the final answer, in [0, 1]."""
        return self.rounds[-1].confidence if self.rounds else None

    @property
    def abstained(self) -> bool:
        """Whether the strategy chose to give no answer although it had one, or chose not even to begin."""
        readable = any(candidate.key is not None for candidate in self.candidates)
        return bool(self.rounds) and self.key is None and (readable or not self.candidates)

    @property
    def text(self) -> str | None:
        """The whole text of the chosen candidate."""
        chosen = self.rounds[-1].chosen if self.rounds else None
        return None if chosen is None else self.whole_text(chosen)

    def whole_text(self, candidate_id: str) -> str:
        """The text of a candidate, joined with the texts it continues."""
        by_id = {candidate.id: candidate for candidate in self.candidates}
        return "".join(node.text for node in path(by_id[candidate_id], by_id))

    @property
    def cost(self) -> dict[str, float]:
        """Charged amount by unit, summed over all calls; seconds are wall-clock.

        Dollars and FLOPs are left out where they are not known for some call with tokens: the sum of the others would
        look complete.
        """
        units = {unit for call in self.calls for unit in call.cost}
        spent = [call for call in self.calls if call.charged.tokens]
        known = {unit for unit in units if unit not in ("usd", "flops") or all(unit in call.cost for call in spent)}
        known.add("tokens")  # none where nothing was asked
        total = {unit: sum(call.cost.get(unit, 0.0) for call in self.calls) for unit in sorted(known)}
        return {**total, "seconds": self.seconds}

    @property
    def usage(self) -> Usage:
        """Charged tokens of all calls."""
        return Usage.total(call.charged for call in self.calls)

    @property
    def seen(self) -> Usage:
        """Tokens of all calls that were seen; less than `usage` where a call's end was not seen."""
        return Usage.total(call.charged if call.exact else call.seen for call in self.calls)

    def ledger(self) -> list[LedgerLine]:
        """One line per kind and role of calls, in order of first appearance; together they are all that was charged."""
        lines: dict[tuple[str, str], LedgerLine] = {}
        for call in self.calls:
            lines.setdefault((call.kind, call.role), LedgerLine(kind=call.kind, role=call.role)).add(call)
        return list(lines.values())

    def to_json(self) -> str:
        """One line of JSON, without loss."""
        line: bytes = _trace_adapter().dump_json(self)
        return line.decode()

    def to_data(self, *, exclude: Mapping[str, Any]) -> dict[str, Any]:
        """The same as data for JSON, without some fields, which are named as pydantic does."""
        data: dict[str, Any] = _trace_adapter().dump_python(self, mode="json", exclude=exclude)
        return data

    @classmethod
    def from_json(cls, line: str | bytes) -> Trace:
        """Read a line; raises ValueError on another schema version or a damaged line."""
        raw = json.loads(line)
        version = raw.get("schema") if isinstance(raw, dict) else None
        if version != SCHEMA:
            raise ValueError(f"this trace has schema version {version}, this program reads version {SCHEMA}")
        trace: Trace = _trace_adapter().validate_python(raw)
        return trace


def path(node: Candidate, by_id: Mapping[str, Candidate]) -> list[Candidate]:
    """The segments from the first to `node` whose texts join to the whole text."""
    segments = [node]
    while segments[-1].continues:
        segments.append(by_id[segments[-1].parents[0]])
    return segments[::-1]


def lengths(candidates: Iterable[Candidate], by_id: Mapping[str, Candidate]) -> dict[str, int]:
    """Characters of the whole text of each, with what it continues; every segment is counted once."""
    counted: dict[str, int] = {}
    for one in candidates:
        segments = [one]
        while segments[-1].id not in counted and segments[-1].continues:
            segments.append(by_id[segments[-1].parents[0]])
        length = 0
        for segment in reversed(segments):
            length = counted[segment.id] = counted.get(segment.id, length + len(segment.text))
    return counted


def fullest(candidates: Iterable[Candidate], by_id: Mapping[str, Candidate]) -> Candidate | None:
    """What to show where nothing was chosen: a whole answer, else the longest text that there is, cut off as it is.

    What nobody wrote, such as the beginning that a strategy gives an answer, has no tokens, and is not shown.
    """
    written = [one for one in candidates if one.address[0] == "model" and (one.complete or one.tokens)]
    length = lengths(written, by_id)
    return min(written, key=lambda one: (not one.complete, -length[one.id]), default=None)


@lru_cache
def _trace_adapter() -> Any:
    from pydantic import TypeAdapter  # here, because importing pydantic is slow

    return TypeAdapter(Trace)
