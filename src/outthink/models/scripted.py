"""An engine that says what a function tells it to: for tests, theory and examples, reproducible bit for bit.

One token is one character, so every count is exact. The first child of a request reads the prompt, its siblings find
it in the cache; so what a child costs does not depend on how children are grouped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from outthink.errors import EngineError
from outthink.models.engine import Completion, EngineSpec, Price, Progress, Request, Shape
from outthink.rng import Rng
from outthink.together import together
from outthink.types import Usage

if TYPE_CHECKING:
    import numpy as np

Reply = Callable[[Request, int, "np.random.Generator"], str | Completion | EngineError]
"""(request, number of the child, its own random stream) -> what that child says."""

_POWERS = frozenset({"logprobs", "prefix", "labels", "seed", "tokens", "top_logprobs"})


class ScriptedEngine:
    """Calls `reply` for every child.

    Args:
        reply: a text is cut at the first stop string and at `max_tokens`; a Completion is passed on as it is.
        latency: seconds a child takes (on the event loop's clock).
    """

    def __init__(
        self,
        reply: Reply,
        *,
        latency: Callable[[Request, int], float] | None = None,
        name: str = "scripted",
        context: int | None = None,
        price: Price | None = None,
        shape: Shape | None = None,
    ) -> None:
        self._reply = reply
        self._latency = latency
        self._spec = EngineSpec(name=name, context=context, powers=_POWERS, price=price, shape=shape)

    @property
    def spec(self) -> EngineSpec:
        """What it is and can do."""
        return self._spec

    async def bound(self, request: Request) -> Usage:
        """Exact for the prompt, `max_tokens` for the rest."""
        return Usage(prompt=_prompt(request), completion=max(request.max_tokens, len(request.labels)))

    async def generate(self, request: Request, progress: Progress) -> None:
        """Children run concurrently; what a cancelled one had said by then is known to the character."""
        progress.slack = 0
        progress.prompt = request.n * _prompt(request)
        progress.cached = (request.n - (request.child == 0)) * _prompt(request)
        await together(*(self._child(request, position, progress) for position in range(request.n)))

    async def _child(self, request: Request, position: int, progress: Progress) -> None:
        child = request.child + position
        said = self._reply(request, child, Rng(request.seed, request.problem, *request.address).at(child))
        seconds = 0.0 if self._latency is None else self._latency(request, child)
        started = asyncio.get_running_loop().time()
        completion = _complete(request, said) if isinstance(said, str) else said
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if isinstance(completion, Completion) and seconds > 0:
                part = (asyncio.get_running_loop().time() - started) / seconds
                progress.tokens[position] = min(completion.tokens, int(part * completion.tokens))
            raise
        if isinstance(completion, EngineError):
            progress.results[position] = completion
        else:
            if "top_logprobs" in request.controls and not completion.observed:
                seen = {"k": request.controls["top_logprobs"], "confidences": [1.0] * completion.tokens}
                completion = replace(completion, observed={"top_logprobs": seen})
            progress.finish(position, completion)

    def learn(self, request: Request, progress: Progress) -> None:
        """Nothing to learn: the bound is exact."""

    async def encode(self, text: str) -> tuple[int, ...]:
        """The code points of a text."""
        return tuple(map(ord, text))

    async def decode(self, ids: Sequence[int]) -> str:
        """The characters of code points."""
        return "".join(map(chr, ids))

    async def close(self) -> None:
        """Nothing to free."""


def _prompt(request: Request) -> int:
    return sum(len(message.text) for message in request.messages) + max(
        len(request.prefix_ids), len(request.prefix_text)
    )


def _complete(request: Request, text: str) -> Completion:
    ends = [text.find(stop) + len(stop) for stop in request.stop if stop in text]
    stopped = bool(ends) and min(ends) <= request.max_tokens
    text = text[: min(ends)] if stopped else text
    finish = "stop" if stopped else "eos" if len(text) <= request.max_tokens else "length"
    text = text[: request.max_tokens]
    return Completion(
        text=text,
        tokens=len(text),
        token_ids=tuple(map(ord, text)),
        logprobs=tuple(-1.0 for _ in text),
        finish=finish,  # type: ignore[arg-type]  # mypy widens the literal
    )
