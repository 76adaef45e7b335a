"""A request that is worked on, and what of it the engine gets."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from outthink.models.engine import Engine
from outthink.server.asked import Asked
from outthink.server.routing import HARMLESS, Choice, telling
from outthink.types import Address, Budget, Problem, Sampling


@dataclass(eq=False, kw_only=True)
class Job:
    """A request that is worked on."""

    ident: str
    created: int
    asked: Asked
    name: str
    engine: Engine
    choice: Choice
    load: float
    problem: Problem
    sampling: Sampling
    budget: Budget
    seconds: float
    deadline: float = math.inf
    """By the loop's clock."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    begun: bool = False
    heard: dict[Address, list[str]] = field(default_factory=dict)
    """What was written of each sample so far."""

    def partial(self) -> list[str]:
        """The longest text so far, in pieces."""
        return max(self.heard.values(), key=lambda pieces: sum(map(len, pieces)), default=[])


def engine_fields(asked: Asked, choice: Choice, engine: Engine) -> dict[str, Any]:
    """The further fields for the model; to one behind the API nothing is sent that the caller did not send."""
    if engine.spec.fields is None:
        sent = {"temperature": asked.temperature, "top_p": asked.top_p}
        return {"seed": None, **asked.fields, **choice.fields, **sent}
    known = engine.spec.fields
    return {name: value for name, value in telling(asked.fields).items() if name in known or name not in HARMLESS}


def default_temperature(engine: Engine) -> float:
    """Where none was sent: the API's default, by which an upstream is thought to sample, or our own."""
    return 1.0 if engine.spec.fields is None else Sampling().temperature


def asked_question(asked: Asked) -> str:
    """What judges read: the question, or the conversation where there is more than one turn of it."""
    turns = [message for message in asked.messages if message.role not in ("system", "developer")]
    if len(turns) <= 1:
        return turns[0].text if turns else asked.messages[-1].text
    return "\n\n".join(f"{message.role}: {message.text}" for message in turns)


def request_digest(asked: Asked) -> str:
    """Tells requests with different messages apart."""
    told = json.dumps([message.sent for message in asked.messages], sort_keys=True)
    return blake2b(told.encode(), digest_size=12).hexdigest()
