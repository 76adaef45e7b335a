"""An engine that plays back a pool: child k of a problem's first request gets its recorded sample k, bit for bit.

So a strategy that draws its samples in one request can be run again for nothing, with the same samples, ids and
logprobs, at any concurrency. What the pool does not hold is refused before anything is spent. The first child reads
the prompt, its siblings find it in the cache.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outthink import jsonl
from outthink.errors import UsageError
from outthink.models.engine import Completion, EngineSpec, Power, Price, Progress, Request, Shape
from outthink.models.samples import pool_id, token_confidences, token_count, token_logprobs
from outthink.rng import digest
from outthink.types import Message, Usage

_log = logging.getLogger(__name__)

SCHEMA = 1
"""Version of the rows this program writes; `meta.schema` in a row. Rows without one are read as far as they go."""

_ADDRESSES = (("model", 0), ("target", 0))


@dataclass(frozen=True, slots=True)
class _Problem:
    prompt_tokens: int
    prompt: str | None
    samples: tuple[_Sample, ...]


@dataclass(frozen=True, slots=True)
class _Sample:
    """A completion whose numbers are packed, since a pool has millions of them."""

    text: str
    tokens: int
    finish: str
    token_ids: array[int] | None
    logprobs: array[float] | None
    confidences: array[float] | None
    likeliest: int


class RecordedEngine:
    """Replays samples; use `RecordedEngine.open`.

    Seeds are not looked at: the samples are those that were recorded, whatever the seed of the run.

    Args:
        name: the model they were drawn from.
        sampling: temperature, top_p and max_tokens they were drawn with; None where that is not known, and then any
            request is answered.
    """

    def __init__(
        self,
        problems: Mapping[str, _Problem],
        *,
        name: str,
        sampling: Mapping[str, float] | None,
        shape: Shape | None,
        price: Price | None,
    ) -> None:
        self._problems = problems
        self._sampling = sampling
        complete = all(sample.logprobs is not None for held in problems.values() for sample in held.samples)
        near = all(sample.confidences is not None for held in problems.values() for sample in held.samples)
        powers: frozenset[Power] = frozenset(
            power for power, has in {"logprobs": complete, "top_logprobs": near}.items() if has
        )
        self._spec = EngineSpec(name=f"recorded:{name}", powers=powers, shape=shape, price=price)

    @classmethod
    def open(cls, path: str | Path, *, shape: Shape | None = None, price: Price | None = None) -> RecordedEngine:
        """Read a pool (.jsonl, or .jsonl.gz); raises UsageError with the line where it is not one.

        Args:
            shape, price: what FLOPs and dollars are counted by; None: as it was recorded.
        """
        path = Path(path)
        problems: dict[str, _Problem] = {}
        common: dict[str, Any] = {}

        def unfinished(number: int) -> None:
            _log.warning("Line %d of %s is unfinished and was left out.", number, path)

        for number, row in jsonl.read(path, unfinished):
            try:
                name, held, meta = _problem(row)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as cause:
                raise UsageError(
                    f"Line {number} of {path} cannot be replayed ({type(cause).__name__}: {cause}): it needs id, "
                    "prompt_tokens, and samples with text, tokens and finish."
                ) from cause
            if name in problems:
                raise UsageError(f"Line {number} of {path} repeats the problem {name!r}: remove it.")
            if meta.get("schema", SCHEMA) != SCHEMA:
                raise UsageError(f"Line {number} of {path} has version {meta['schema']}; this program reads {SCHEMA}.")
            settings = {key: meta.get(key) for key in ("model", "sampling", "shape", "price")}
            if problems and settings != common:
                raise UsageError(f"Line {number} of {path} was recorded with other settings than line 1.")
            common = settings
            problems[name] = held
        if not problems:
            raise UsageError(f"{path} holds no samples.")
        return cls(
            problems,
            name=common["model"] or path.name,
            sampling=common["sampling"],
            shape=shape or recorded_shape(common),
            price=price or recorded_price(common),
        )

    @property
    def spec(self) -> EngineSpec:
        """What it is and can do."""
        return self._spec

    @property
    def sampling(self) -> Mapping[str, float] | None:
        """How the samples were drawn; None where the pool does not say."""
        return self._sampling

    async def bound(self, request: Request) -> Usage:
        """As of a live engine: the prompt, and `max_tokens` for the rest; raises UsageError for what is not held."""
        held = self._held(request)
        return Usage(prompt=held.prompt_tokens, completion=request.max_tokens)

    async def generate(self, request: Request, progress: Progress) -> None:
        """Everything is there at once."""
        held = self._held(request)
        progress.slack = 0
        progress.prompt = request.n * held.prompt_tokens
        progress.cached = (request.n - (request.child == 0)) * held.prompt_tokens
        for position in range(request.n):
            sample = held.samples[request.child + position]
            if progress.watch is not None and sample.confidences:
                progress.watch(position, sample.confidences)
            progress.finish(position, _completion(sample, "top_logprobs" in request.controls))

    def learn(self, request: Request, progress: Progress) -> None:
        """Nothing to learn: a recorded sample is never longer than it was."""

    async def close(self) -> None:
        """Nothing to free."""

    def _held(self, request: Request) -> _Problem:
        """The problem's samples; raises UsageError that says what the pool holds."""
        held = self._problems.get(request.problem)
        if held is None:
            raise self._refusal(f"{len(self._problems)} problems, but not {request.problem!r}")
        if request.address and request.address not in _ADDRESSES:
            raise self._refusal(
                "the first request of each problem only, so a strategy must draw all its samples at once, not as "
                + "/".join(map(str, request.address))
            )
        if request.prefix_ids or request.prefix_text or request.labels or request.stop:
            raise self._refusal("whole samples only: nothing can be continued, stopped early or asked for labels")
        if held.prompt is not None and held.prompt != prompt_digest(request.problem, request.messages):
            raise self._refusal(f"{request.problem!r} with another prompt")
        near = int(request.controls.get("top_logprobs") or 0)
        least = min((sample.likeliest for sample in held.samples), default=0)
        if 0 < near < least:
            raise self._refusal(f"confidences from the {least} likeliest tokens, not from {near}")
        for name, recorded in (self._sampling or {}).items():
            asked = getattr(request, name)
            if asked != recorded:
                raise self._refusal(f"samples of {name} {recorded}, not {asked}")
        if request.child + request.n > len(held.samples):
            raise self._refusal(f"{len(held.samples)} samples of {request.problem!r}, not {request.child + request.n}")
        return held

    def _refusal(self, what: str) -> UsageError:
        return UsageError(f"The pool {self._spec.name} holds {what}.")


def prompt_digest(problem: str, messages: Sequence[Message]) -> str:
    """Tells prompts apart: 16 hexadecimal digits that depend on every role and text."""
    return f"{digest(0, problem, *(part for message in messages for part in (message.role, message.text))):016x}"


def recorded_shape(meta: Mapping[str, Any]) -> Shape | None:
    """The shape that the lines of a pool name; None where they name none. Raises TypeError where it is none."""
    return Shape(**meta["shape"]) if meta.get("shape") else None


def recorded_price(meta: Mapping[str, Any]) -> Price | None:
    """The price that the lines of a pool name, as `recorded_shape`."""
    return Price(**meta["price"]) if meta.get("price") else None


def _problem(row: dict[str, Any]) -> tuple[str, _Problem, dict[str, Any]]:
    meta: dict[str, Any] = row.get("meta") or {}
    samples = tuple(
        _Sample(
            text=sample["text"],
            tokens=_counted(sample["tokens"], "tokens"),
            finish=_finish(sample["finish"]),
            token_ids=None if sample.get("token_ids") is None else array("q", sample["token_ids"]),
            logprobs=None if (logprobs := token_logprobs(sample.get("logprobs"))) is None else array("d", logprobs),
            confidences=None if (near := token_confidences(sample.get("confidences"))) is None else array("d", near),
            likeliest=token_count(row.get("likeliest"), "likeliest") or 0,
        )
        for sample in row["samples"]
    )
    name = pool_id(row["id"])
    if name is None:
        raise ValueError("the id is neither a text nor a number")
    return name, _Problem(_counted(row["prompt_tokens"], "prompt_tokens"), meta.get("prompt"), samples), meta


def _counted(value: Any, name: str) -> int:
    count = token_count(value, name)
    if count is None:
        raise ValueError(f"{name} is missing")
    return count


def _finish(finish: str) -> str:
    if finish not in ("eos", "stop", "length"):
        raise ValueError(f"a finish {finish!r}")
    return finish


def _completion(sample: _Sample, near: bool) -> Completion:
    seen = {"k": sample.likeliest, "confidences": list(sample.confidences or ())}
    return Completion(
        text=sample.text,
        tokens=sample.tokens,
        token_ids=None if sample.token_ids is None else tuple(sample.token_ids),
        logprobs=None if sample.logprobs is None else tuple(sample.logprobs),
        observed={"top_logprobs": seen} if near else {},
        finish=sample.finish,  # type: ignore[arg-type]  # checked when it was read
    )
