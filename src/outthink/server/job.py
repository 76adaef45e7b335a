"""A request that is worked on, and what of it the engine gets."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from outthink.cost import charge
from outthink.cost.caps import Cap, cap_within
from outthink.cost.price import asking
from outthink.errors import Uncounted
from outthink.models.engine import Engine, Request
from outthink.models.facts import Facts
from outthink.planner.plan import Plan
from outthink.records.runs import Trial
from outthink.server.accounts import Purse
from outthink.server.asked import Asked
from outthink.server.routing import HARMLESS, Choice, telling
from outthink.strategies import traits
from outthink.together import away
from outthink.types import Address, Budget, Call, Problem, Sampling, Trace

_LONG = 4096  # tokens of a sample where nobody says how many
_CAPS = ("max_tokens", "max_completion_tokens")


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
    cap: Cap | None = None
    """How the budget has decided the cap of a sample; None: it has not."""
    deadline: float = math.inf
    """By the loop's clock."""
    owner: str | None = None
    """Whose it is: the name of a key, or what stands for one; None: nobody is told apart."""
    purse: Purse | None = None
    """What it may spend of its key's limits; None: there are none."""
    trial: Trial | None = None
    """Which action was drawn for it; None: it takes no part in learning."""
    dearness: Callable[[], float] | None = None
    """How many times as dear compute is at a moment; None: it is never dearer."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    begun: bool = False
    on_call: Callable[[Call], None] | None = None
    """Told of every settled call."""
    work: asyncio.Task[Trace] | None = None
    """What is done for it, once that has begun."""
    trace: Trace | None = None
    """What came of it; also where it failed after something was paid for."""
    heard: dict[Address, list[str]] = field(default_factory=dict)
    """What was written of each sample so far."""

    def partial(self) -> list[str]:
        """The longest text so far, in pieces."""
        return max(self.heard.values(), key=lambda pieces: sum(map(len, pieces)), default=[])

    def close(self) -> None:
        """Nothing is done for it any more; twice is fine."""
        if self.purse is not None:
            self.purse.close()


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


async def prepared(
    asked: Asked,
    name: str,
    engine: Engine,
    choice: Choice,
    load: float,
    *,
    ident: str,
    max_tokens: int | None,
    seconds: float,
    salt: str | None,
    usual: int | None = None,
    purse: Purse | None = None,
) -> Job:
    """What a request asks for, as what is solved.

    Args:
        ident: of the request, which no other one has.
        max_tokens: of a sample where the request does not say, as far as the model's context allows. None: 4,096, or
            fewer where a budget has room for several samples then.
        salt: keeps the caller's prompts apart in a prefix cache; None: nobody else's are there.
        usual: tokens that answers of this model usually take; None: not known.
        purse: what it may spend of its key's limits.

    Raises UsageError where the prompt is too long, and OverLimit where a limit of the key has no room for one sample.
    """
    facts: Facts | None = getattr(engine, "facts", None)
    fields = engine_fields(asked, choice, engine)
    if salt is not None and facts is not None and facts.salt and "cache_salt" not in fields:
        # whose prompts are in the cache is nobody else's business
        fields["cache_salt"] = salt
    problem = Problem(
        # with a seed the same request is the same problem, else every one is another
        id=ident if asked.seed is None else f"seeded-{await away(asked.size // 10, request_digest, asked)}",
        messages=asked.messages,
        answer=choice.answer,
        question=asked_question(asked),
        fields=fields,
    )
    # a plan holds for the sampling that it was recorded with, so that is what it gets where nobody says otherwise
    planned = {} if choice.plan is None else dict(Plan.open(choice.plan).sampling or {})
    sampling = Sampling(
        temperature=planned.get("temperature", default_temperature(engine))
        if asked.temperature is None
        else asked.temperature,
        top_p=planned.get("top_p", 1.0) if asked.top_p is None else asked.top_p,
        max_tokens=asked.max_tokens or int(planned.get("max_tokens", max_tokens or _LONG)),
    )
    unsent = [field for field in ("temperature", "top_p") if field in planned and fields.get(field, ...) is None]
    if unsent:
        problem = replace(problem, fields={field: fields[field] for field in fields if field not in unsent})
    limits = {unit: limit for unit, limit in choice.budget.limits.items() if unit != "seconds"}
    kept = {} if purse is None else purse.left()
    cap = None
    if asked.max_tokens is None and "max_tokens" not in planned:
        problem, sampling, left = await _fitted(engine, facts, problem, sampling)
        if max_tokens is None and (limits or kept):
            allowed = _least({unit: limit * load for unit, limit in limits.items()}, kept)
            request = Request(messages=problem.messages, max_tokens=sampling.cap, fields=problem.fields)
            cap = await cap_within(engine, request, allowed, wanted=traits.at_once(choice.strategy), usual=usual)
            if cap.lowered and cap.tokens > left:
                cap = None  # so many may not be left of the context, and then the upstream would refuse it
            elif cap.lowered:
                # the upstream is told of it, also where the context alone would have limited it
                fields = {name: value for name, value in problem.fields.items() if name not in _CAPS}
                problem, sampling = replace(problem, fields=fields), replace(sampling, max_tokens=cap.tokens)
    worst = await worst_sample(engine, problem, sampling)  # raises, before it waits, where the prompt is too long
    if purse is not None:
        if unknown := kept.keys() - worst.keys():
            raise Uncounted(
                f"A limit of your key is in {min(unknown)}, and what this model costs is not known; {asking()}."
            )
        purse.check(worst)
    if choice.samples is not None:
        limits["tokens"] = min(limits.get("tokens", math.inf), choice.samples * worst["tokens"])
    # however crowded it is, one sample is
    limits = {unit: max(limit * load, min(limit, worst.get(unit, 0.0))) for unit, limit in limits.items()}
    return Job(
        ident=ident,
        created=int(time.time()),
        asked=asked,
        name=name,
        engine=engine,
        choice=choice,
        load=load,
        problem=problem,
        sampling=sampling,
        budget=Budget(_least(limits, kept)),
        seconds=seconds,
        cap=cap,
        purse=purse,
    )


def _least(limits: Mapping[str, float], others: Mapping[str, float]) -> dict[str, float]:
    """The smaller limit in every unit."""
    return {unit: min(limits.get(unit, math.inf), others.get(unit, math.inf)) for unit in {**limits, **others}}


async def _fitted(
    engine: Engine, facts: Facts | None, problem: Problem, sampling: Sampling
) -> tuple[Problem, Sampling, float]:
    """With as many tokens for an answer as the server's default and the context allow; and how many are surely left."""
    context = engine.spec.context
    if context is None:
        return problem, sampling, math.inf
    one = Request(messages=problem.messages, max_tokens=1, fields=problem.fields)
    left = context - (await engine.bound(one)).prompt
    if facts is None or facts.tokenize or left >= sampling.cap:
        return problem, replace(sampling, max_tokens=max(1, min(sampling.cap, left))), math.inf
    # the prompt is shorter than its bytes; how much is left for an answer, only the upstream knows
    fields = {**problem.fields, facts.cap: None}
    return replace(problem, fields=fields), replace(sampling, max_tokens=context), left


async def worst_sample(engine: Engine, problem: Problem, sampling: Sampling) -> dict[str, float]:
    """The most that one sample can cost, by unit."""
    one = Request(messages=problem.messages, max_tokens=sampling.cap, fields=problem.fields)
    return charge(engine.spec, [await engine.bound(one)])
