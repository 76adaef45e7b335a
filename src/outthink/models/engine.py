"""What an engine, the thing that runs a language model, must do; the meter stands between it and every strategy.

An engine is asked for n children of one prompt and fills a `Progress` as they grow, so that a cancelled call is
still accounted for. It never retries, prices or limits: the meter does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, cast

from outthink.errors import EngineError
from outthink.types import Address, Message, Usage, writable

Power = str
"""Name of an optional ability. The core knows "logprobs" (of tokens); "prefix" (continuing a given one); "labels"
(logprobs of given labels); "seed" (honouring seeds); "tokens" (being a `Tokenizing` that continues ids, so that an
answer can be cut after any of its tokens); "logit_bias" (its control: logits to add, by token id); "thinking_budget"
(its control: most tokens of thoughts, after which the answer follows); "top_logprobs" (its control: k; seen are, as
`confidences`, for each token written minus the mean logprob of the k likeliest in its place, and how many were told,
`k`). An engine may name others; what a strategy asks of one stands in `Request.controls` under its name, and what the
engine saw stands in `Completion.observed`."""

Watch = Callable[[int, Sequence[float]], None]
"""(child, confidences of its new tokens), as `Progress.watch`."""

_LEAST_LOGPROB = -1e4  # stands for minus infinity, which JSON cannot hold

_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logit_bias", "max_tokens", "max_completion_tokens", "min_tokens", "stop",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """US dollars per million tokens, at least 0.

    Args:
        cached: at most `prompt`; None: cached prompt tokens cost as much as others.
    """

    prompt: float
    completion: float
    cached: float | None = None

    def __post_init__(self) -> None:
        cached = self.prompt if self.cached is None else self.cached
        if not (0 <= cached <= self.prompt < math.inf and 0 <= self.completion < math.inf):
            raise ValueError("a price is at least 0, and cached tokens cost no more than others")

    def usd(self, usage: Usage) -> float:
        """Dollars for `usage`."""
        cached = self.prompt if self.cached is None else self.cached
        fresh = usage.prompt - usage.cached
        return (fresh * self.prompt + usage.cached * cached + usage.completion * self.completion) / 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a transformer's FLOPs and memory traffic depend on; 0 is not known.

    Args:
        parameters: all parameters.
        layers, hidden: number of blocks, and width of the attention output (heads x head size).
        kv_heads, head: heads of keys and values, and size of a head.
        active: parameters that a token passes, where they are not all, as in a mixture of experts.
    """

    parameters: int
    layers: int = 0
    hidden: int = 0
    kv_heads: int = 0
    head: int = 0
    active: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """Describes an engine; travels in traces and to other processes.

    Args:
        name: the model, as in the catalogue or at the endpoint.
        context: most tokens of prompt and completion together; None where unknown.
        powers: optional abilities it really has.
        shape: None where unknown; then FLOPs are not known either.
        price: None where unknown.
        fields: which `Request.fields` it honours; None: it gives all of them on.
        units: what it counts in `Usage.further`.
        usual: tokens that its answers need, at least, to be of use; None: not known.
    """

    name: str
    context: int | None = None
    powers: frozenset[Power] = frozenset()
    shape: Shape | None = None
    price: Price | None = None
    fields: frozenset[str] | None = frozenset()
    units: frozenset[str] = frozenset()
    usual: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """n samples of one prompt.

    Args:
        messages: the chat so far; the last one is the user's.
        prefix_ids: token ids of the assistant's turn to continue (empty: a fresh turn). Needs "prefix".
        prefix_text: the same as text; its ids are used where the engine speaks ids.
        n: children wanted.
        child: index of the first of them (children of one request may be started in several groups).
        max_tokens: most completion tokens per child.
        stop: strings that end a child; the string that did stays in the text.
        logprobs: return the logprob of each sampled token. Needs "logprobs".
        labels: answer with exactly one of these words and return the logprob of each. Needs "labels".
        seeds: one per child, 31 bits.
        address: (role, *lane, request); with the child index, the key of all randomness.
        problem: id of the problem it is for; with seed and address, the key of a recorded sample.
        seed: the run's seed.
        fields: further fields of OpenAI's chat API, as `Problem.fields`.
        controls: what is asked of further powers, by their name, such as {"hidden_states": [12]}.
    """

    messages: tuple[Message, ...]
    prefix_ids: tuple[int, ...] = ()
    prefix_text: str = ""
    n: int = 1
    child: int = 0
    max_tokens: int = 512
    temperature: float = 0.8
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    labels: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    address: Address = ()
    problem: str = ""
    seed: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)
    controls: Mapping[str, Any] = field(default_factory=dict)

    def sampling(self, spec: EngineSpec) -> dict[str, Any]:
        """How its samples are drawn, as `sampling_of`, with those of its fields that the engine honours."""
        stop = {"stop": self.stop} if self.stop else {}
        asked = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens, **stop}
        honoured = {name: value for name, value in self.fields.items() if spec.fields is None or name in spec.fields}
        return sampling_of(asked | honoured)


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One finished child.

    Args:
        text: what was written (prefix not repeated), special tokens removed.
        tokens: completion tokens, those of end marks included.
        token_ids, logprobs: per token (nats, before temperature), where known; both without the end mark, so that
            the ids can be continued.
        finish: "eos", "stop" (a stop string) or "length".
        labels: logprob of each requested label, same order.
        observed: what further powers saw, by their name: plain data, or arrays, which a trace keeps as lists.
        artifact: as `Candidate.artifact`.
        sent: as `Candidate.sent`.
    """

    text: str
    tokens: int
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    finish: Literal["eos", "stop", "length"] = "eos"
    labels: tuple[float, ...] | None = None
    observed: Mapping[str, Any] = field(default_factory=dict)
    artifact: str | None = None
    sent: Mapping[str, Any] | None = None

    def storable(self) -> Completion:
        """The same as a file can hold it; None in place of logprobs that are none."""
        if self.logprobs is None and not self.observed and writable(self.text) == self.text:
            return self  # as most are
        logprobs = None if self.logprobs is None else _writable_logprobs(self.logprobs)
        observed = {power: _plain(seen) for power, seen in self.observed.items()} if self.observed else {}
        return replace(self, text=writable(self.text), logprobs=logprobs, observed=observed)


@dataclass(slots=True)
class Progress:
    """Filled by the engine while it works; the meter may read it at any moment, also after a cancellation.

    Args:
        n: children of the group.
        prompt, cached: prompt tokens of all children that were started, and those of them served from a cache.
        tokens: completion tokens seen, by child.
        further: other units used by all children so far, as `Usage.further`.
        results: by child; None while it runs, an EngineError where it failed (Refused: it produced nothing).
        slack: how many more tokens a running child may have produced unseen; None: up to its cap.
        attempts: how often the group was begun, refused attempts included.
        most: by child, what it is charged where the engine was not told what it has used, or what it was told differs
            from what was seen.
        disputed: why what was told is not believed although it is charged; None where nothing is.
        reads: how often the prompt is counted in `prompt`; a server that answers n children at once reads it once.
        listen: told of each piece of an answer as it is written: the child, and the piece as a choice of a chunk of
            OpenAI's chat API, such as {"delta": {"content": "so far"}}.
        ended: told of each child that has ended, as soon as its text is known for good; its tokens may still change.
        watch: told, while they are written, the child and the confidences of its new tokens, where they are asked for.
        sent: how the engine drew them, as `sampling_of` says it, where that is not just what was asked for.
    """

    n: int
    prompt: int = 0
    cached: int = 0
    tokens: list[int] = field(default_factory=list)
    results: list[Completion | EngineError | None] = field(default_factory=list)
    slack: int | None = None
    attempts: int = 1
    most: dict[int, Usage] = field(default_factory=dict)
    disputed: str | None = None
    reads: int = 0
    listen: Callable[[int, Mapping[str, Any]], None] | None = None
    ended: Callable[[int, Completion], None] | None = None
    further: dict[str, float] = field(default_factory=dict)
    watch: Watch | None = None
    sent: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.tokens = [0] * self.n
        self.reads = self.n
        self.results = [None] * self.n

    def finish(self, child: int, completion: Completion) -> None:
        """Child `child` of the group is done."""
        self.tokens[child] = completion.tokens
        self.results[child] = completion
        if self.ended is not None:
            self.ended(child, completion)

    def usage(self) -> Usage:
        """What has been seen so far."""
        return Usage(prompt=self.prompt, cached=self.cached, completion=sum(self.tokens), further=dict(self.further))


def confidences_of(observed: Mapping[str, Any]) -> tuple[Sequence[float], int]:
    """The confidences of a sample's tokens, and of how many likeliest tokens they are; none, and 0, without any."""
    near = observed.get("top_logprobs") or {}
    return near.get("confidences") or (), near.get("k") or 0


def sampling_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """What of a request in the form of OpenAI's API says how samples are drawn and where they end."""
    return {name: _plain(body[name]) for name in _SAMPLING if body.get(name) is not None}


def _writable_logprobs(logprobs: tuple[float, ...]) -> tuple[float, ...] | None:
    """None where one is no number below infinity; those that JSON cannot hold as the least one."""
    usual = math.isfinite(sum(logprobs)) and min(logprobs, default=0.0) >= _LEAST_LOGPROB
    if usual and set(map(type, logprobs)) <= {float}:
        return logprobs  # as nearly all are: looking at each costs five times as much
    if not all(value < math.inf for value in logprobs):
        return None
    return tuple(max(float(value), _LEAST_LOGPROB) for value in logprobs)


def _plain(value: Any) -> Any:
    """Data as a trace can hold it: arrays as lists, what is no data by its type's name."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        return writable(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {writable(str(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return type(value).__name__


class Engine(Protocol):
    """Runs a language model."""

    @property
    def spec(self) -> EngineSpec:
        """What it is and can do."""

    async def bound(self, request: Request) -> Usage:
        """The most that one child of `request` can use, prefix, forced labels and further units included, nothing
        cached.

        Raises UsageError where the prompt with `max_tokens` cannot fit the context.
        """

    async def generate(self, request: Request, progress: Progress) -> None:
        """Produce the children; fill `progress`; return when every child has a result.

        Raises EngineError if the whole group failed. When cancelled it stops the work as soon as it can and
        lets the cancellation through, with `progress` showing what had been seen.
        """

    def learn(self, request: Request, progress: Progress) -> None:
        """Called when a call used more than `bound` promised: promise more from now on."""

    async def close(self) -> None:
        """Free what it holds; calling it twice is fine."""


class _Priced:
    """An engine with another price; all else is the engine's own."""

    def __init__(self, engine: Engine, price: Price) -> None:
        self._engine = engine
        self.spec = replace(engine.spec, price=price)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def priced_as(engine: Engine, price: Price) -> Engine:
    """The engine with another price; the engine itself stays as it is."""
    priced: Any = _Priced(engine, price)
    return cast("Engine", priced)


class Tokenizing(Protocol):
    """What an engine with the power "tokens" does besides: it turns texts into the ids that it reads, and back.

    The ids of what a model wrote are kept and not made anew: encoding its text can give others.
    """

    async def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text; no special tokens are added."""

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens among them may be in it.

        Of a character that the ids hold only in part, nothing or replacement characters are there.
        """
