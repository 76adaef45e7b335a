"""Every strategy through every door: the library, a run and the server ask the model the same and bill the same.

The upstream is one that records every request. A method is in these tests by being in the table.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from outthink.answers.reader import Reader
from outthink.bench.run import bench
from outthink.driver import solve_async
from outthink.errors import MissingResource
from outthink.planner.auto import Auto
from outthink.records.runs import read_results
from outthink.resources.table import taken
from outthink.rewards.making import make_scorer
from outthink.server.asked import read
from outthink.server.job import request_digest
from outthink.server.routing import ServerRules
from outthink.strategies import STRATEGIES, Strategy, traits
from outthink.strategies.making import make_strategy
from outthink.tasks.example import Example
from outthink.types import Message, Problem, Sampling
from tests.tools.every import OUTLINE, SPAWN, given, of_any_server, small
from tests.tools.server import ALL, Ask, Server, engine_on, run
from tests.tools.serving import asked, chat, serving

RULE = "Answer in three steps."
QUESTION = "What is 12 + 30?"
SEED = 5
SAMPLING = Sampling(temperature=0.75, max_tokens=120)
SCORERS = {"verifier": "confidence", "prm": "confidence"}


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, small(name)) for name in sorted(STRATEGIES) if of_any_server(name)},
    "nothinking by a switch": ("nothinking", {"n": 2, "prefill": "", "switch": "/no_think"}),
    "budget forcing with a bias": ("budget_forcing", {"n": 2, "bias": 2.0, "max_think": 40}),
    "trimr at steps": ("trimr", {"n": 2, "markers": ("\n\n",), "think_close": "", "m": 1}),
}
"""Every method that servers can do, and further settings with which one sends other prompts."""

every_way = pytest.mark.parametrize("way", WAYS)


@dataclass(frozen=True)
class Seen:
    """What went through a door: requests that the model got, the answer, and the bill by unit."""

    requests: Counter[str]
    answer: str | None
    tokens: float
    upstream: int
    """Tokens that the upstream read and wrote."""


def thinker(ask: Ask) -> str:
    """Answers in three steps, one in two rightly; a judge or a rewriter hears the same."""
    if '"step1"' in ask.messages[-1][1]:
        return OUTLINE
    if "<task>" in ask.messages[-1][1] and not ask.prefix:
        return SPAWN
    done = ask.prefix.count("\n\n")
    steps = "".join(f"step {place} {'x ' * ask.rng.randrange(4)}\n\n" for place in range(done, 3))
    return f"{steps}#### {42 if ask.rng.random() < 0.5 else ask.rng.randrange(3)}"


def requests(upstream: Server) -> Counter[str]:
    """The requests for answers, in no order: what runs side by side may arrive in any."""
    return Counter(json.dumps(seen.body, sort_keys=True) for seen in upstream.asked)


def body(strategy: Strategy, name: str, **more: Any) -> dict[str, Any]:
    own = {} if traits.own_temperature(strategy) else {"temperature": SAMPLING.temperature}
    wish = {"answer": "math"}
    fields = {"max_tokens": SAMPLING.max_tokens, "seed": SEED, **own, **more}
    turns = [{"role": "system", "content": RULE}, {"role": "user", "content": QUESTION}]
    return {**chat(QUESTION, **{**fields, "model": f"m+{name}", "outthink": wish}), "messages": turns}


def same_problem(strategy: Strategy, name: str) -> Problem:
    """The problem that the server makes of the request, without anything of the request in it."""
    of_request = read(json.dumps(body(strategy, name)).encode(), {})
    # what the caller did not send, an upstream is not sent either
    temperature = None if traits.own_temperature(strategy) else SAMPLING.temperature
    fields = {"seed": SEED, "temperature": temperature, "top_p": None}
    name = f"seeded-{request_digest(of_request)}"
    messages = (Message(role="system", content=RULE), Message(content=QUESTION))
    return Problem(id=name, messages=messages, question=QUESTION, fields=fields)


def scorers(strategy: Strategy) -> dict[str, Any]:
    """Those that it may ask, as names; the server gives a method no others."""
    if isinstance(strategy, Auto) and not strategy.plan:
        return {}
    runs = [one.run for one in (strategy, *traits.parts(strategy))]
    return {role: given for role, given in SCORERS.items() if any(role in taken(run) for run in runs)}


async def by_library(way: str) -> Seen:
    name, settings = WAYS[way]
    strategy = make_strategy(name, settings)
    async with Server(thinker) as upstream:
        engine = engine_on(upstream, ALL)
        trace = await solve_async(
            same_problem(strategy, name),
            strategy,
            model=engine,
            sampling=sampling(strategy),
            seed=SEED,
            resources=given(),
            **scorers(strategy),
        )
        await engine.close()
    return Seen(requests(upstream), trace.answer, trace.cost["tokens"], upstream.prompt + upstream.made)


async def by_bench(way: str, folder: Path) -> Seen:
    name, settings = WAYS[way]
    strategy = make_strategy(name, settings)
    async with Server(thinker) as upstream:
        engine = engine_on(upstream, ALL)
        example = Example(problem=same_problem(strategy, name), gold=("42",))
        await bench(
            [example],
            strategy,
            store=folder,
            model=engine,
            sampling=sampling(strategy),
            seed=SEED,
            resources=given(),
            **scorers(strategy),
        )
        await engine.close()
    (result,) = read_results(folder)
    assert result.trace is not None
    return Seen(requests(upstream), result.trace.answer, result.trace.cost["tokens"], upstream.prompt + upstream.made)


async def by_server(way: str, stream: bool) -> Seen:
    name, settings = WAYS[way]
    strategy = make_strategy(name, settings)
    rules = ServerRules(strategy=strategy, scorers=SCORERS)
    opened = {role: make_scorer(given, process=role == "prm") for role, given in SCORERS.items()}
    async with (
        Server(thinker) as upstream,
        serving(upstream, policy=rules, scorers=opened, resources=given()) as (url, _),
    ):
        more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        answer = await asked(url, body(strategy, name, **more))
        assert answer.status == 200, answer.body
    told = answer.events[-2] if stream else answer.json
    if stream:
        told = next(event for event in reversed(answer.events) if event != "[DONE]" and "outthink" in event)
    assert told["outthink"]["strategy"]["name"] == name
    text = answer.streamed if stream else answer.content
    return Seen(requests(upstream), text, told["outthink"]["cost"]["tokens"], upstream.prompt + upstream.made)


def sampling(strategy: Strategy) -> Sampling:
    return Sampling(temperature=1.0, max_tokens=120) if traits.own_temperature(strategy) else SAMPLING


async def key(text: str | None) -> tuple[str | None, str | None]:
    """What is read of a text, by the reader that all doors share."""
    reader = Reader()
    try:
        return await reader.read(Problem(id="any", messages=(Message(content=QUESTION),)), text or "")
    finally:
        await reader.close()


@cache
def library(way: str) -> Seen:
    return run(by_library(way))


@every_way
def test_library_and_bench_ask_answer_and_bill_the_same(way: str, tmp_path: Path) -> None:
    one, other = library(way), run(by_bench(way, tmp_path / "run"))
    assert one.requests
    assert other == one
    assert one.tokens == one.upstream, "the bill is what the upstream did"


@every_way
@pytest.mark.parametrize("stream", [False, True])
def test_the_server_asks_answers_and_bills_as_the_library_does(way: str, stream: bool) -> None:
    own, server = library(way), run(by_server(way, stream))
    assert server.requests == own.requests
    answer, _ = run(key(server.answer))
    assert answer == own.answer
    assert server.tokens == own.tokens
    assert server.upstream == own.upstream == own.tokens


@pytest.mark.parametrize("name", sorted(name for name in STRATEGIES if not of_any_server(name)))
def test_what_no_server_can_do_is_refused_before_anything_is_asked(name: str) -> None:
    async def go() -> None:
        strategy = make_strategy(name, small(name))
        async with Server(thinker) as upstream:
            engine = engine_on(upstream, ALL)
            with pytest.raises(MissingResource, match="needs a model that can do"):
                await solve_async(QUESTION, strategy, model=engine, resources=given(), **scorers(strategy))
            await engine.close()
            assert not upstream.asked

    run(go())
