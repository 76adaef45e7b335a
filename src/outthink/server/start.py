"""Puts a server together from what the command line says, and runs it; everything is checked before it listens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from outthink.errors import MissingResource, UsageError
from outthink.models.endpoint import Endpoint, Patience
from outthink.models.engine import Engine, Price
from outthink.models.openai.engine import OpenAIEngine
from outthink.planner.auto import Auto
from outthink.resources.embedding import make_embedder
from outthink.rewards import Scorer
from outthink.rewards.making import Opened, make_scorer
from outthink.sandbox.host import Sandbox
from outthink.server.accounts import Accounts
from outthink.server.app import Service
from outthink.server.book import Book
from outthink.server.broker import Channel
from outthink.server.door import Shares, descriptors
from outthink.server.exploring import actions
from outthink.server.keys import Keys
from outthink.server.listening import serve
from outthink.server.logs import tells_all
from outthink.server.models import Served, listed
from outthink.server.parent import Inherited
from outthink.server.record import Recorder
from outthink.server.routing import ONE, ServerRules, lacking
from outthink.server.settings import Settings
from outthink.server.telemetry import exporting
from outthink.strategies import STRATEGIES, Strategy, traits
from outthink.strategies.making import import_all, make_strategy, strategy_data, strategy_name
from outthink.types import AnswerKind, Budget, Usage
from outthink.view.pages import Owned, Viewer
from outthink.view.recordings import Shelf

_logger = logging.getLogger("outthink.server")


def policy(
    *,
    strategy: Strategy | None,
    budget: Budget,
    answer: AnswerKind,
    otherwise: Strategy | None,
    plans: Mapping[str, str],
    scorers: Mapping[str, str],
) -> ServerRules:
    """What the operator has decided; what each of it is has been checked."""
    if isinstance(strategy, Auto) and not strategy.plan and plans:
        strategy = replace(strategy, plan=next(iter(plans.values())))
    return ServerRules(
        strategy=strategy, budget=budget, answer=answer, otherwise=otherwise, plans=plans, scorers=scorers
    )


def add_plan(plans: dict[str, str], given: str) -> None:
    """A plan by its name, from [NAME=]FILE; raises UsageError where it cannot be read or the name is taken."""
    name, is_, path = given.partition("=")
    name, path = (name, path) if is_ else (Path(given).stem, given)
    make_strategy("auto", {"plan": path})  # raises where it cannot be read
    if not name:
        raise UsageError("A plan needs a name: --plan NAME=FILE.")
    if name in plans:
        raise UsageError(f"Two plans are called {name}, {plans[name]} and {path}: give one of them another name.")
    plans[name] = path


def check_scorers(scorers: Mapping[str, str]) -> None:
    """Raise UsageError where there is no such scorer."""
    for role, given in scorers.items():
        make_scorer(given, process=role == "prm")


def free_form(name: str, scorers: Mapping[str, str]) -> Strategy:
    """What chooses among replies that all differ; raises UsageError where it cannot."""
    strategy = make_strategy(name)
    if traits.votes(strategy):
        raise UsageError(f"{name} goes by equal answers, which free text does not have; take best_of_n or mbr.")
    check_needs(strategy, "--free-form", scorers)
    return strategy


def check_needs(strategy: Strategy, option: str, scorers: Mapping[str, str]) -> None:
    """Raise UsageError where a strategy could answer nothing, because it lacks a scorer."""
    if (lack := lacking(strategy, scorers)) is not None:
        raise UsageError(f"{option} {strategy_name(strategy)} needs {lack}: give --verifier or --prm.")


def check_alternative(name: str, strategy: str, shadow: float, record: Path | None, scorers: Mapping[str, str]) -> None:
    """Raise UsageError where shadows cannot be run, would be lost or would show nothing."""
    if name != ONE and name not in STRATEGIES:
        make_strategy(name)  # raises UnknownName
        raise UsageError(f"--alternative takes a name of `outthink strategies`, not {name!r}.")
    if shadow and name != ONE:
        check_needs(make_strategy(name), "--alternative", scorers)
    if shadow and record is None:
        raise UsageError("--shadow needs --record FOLDER, where both answers are kept.")
    if shadow and name == strategy:
        raise UsageError(f"Both would be {name}: give another --alternative.")


def check_learning(policy: ServerRules, record: Path | None) -> None:
    """Raise UsageError where nothing could be learned, or it would be lost."""
    if record is None:
        raise UsageError("--learn needs --record FOLDER, where it is kept what was drawn.")
    actions(policy)


def models(upstream: str) -> tuple[str, ...]:
    """The models that the upstream lists; raises EngineError where it is not there."""

    async def ask() -> tuple[str, ...]:
        endpoint = Endpoint(upstream, patience=Patience(attempts=3))
        try:
            return await listed(endpoint)
        finally:
            await endpoint.close()

    return asyncio.run(ask())


def fitted(settings: Settings, limit: int) -> Settings:
    """The settings with no more connections and requests than so many descriptors allow."""
    asked = Shares(settings.connections, settings.concurrency, settings.queue)
    shares = asked.within(limit)
    if (shares.concurrency, shares.queue) != (asked.concurrency, asked.queue):
        _logger.warning(
            "This process may have %d files open, enough for %d requests at once and %d that wait; allow more with "
            "`ulimit -n`.",
            limit,
            shares.concurrency,
            shares.queue,
        )
    return replace(settings, connections=shares.connections, concurrency=shares.concurrency, queue=shares.queue)


def run(
    settings: Settings,
    policy: ServerRules,
    engines: Mapping[str, Engine],
    *,
    upstream: str | None,
    priced: Callable[[str], Price | None],
    embedder: str | None,
    resources: Mapping[str, Any],
    keys: Keys | None,
    spending: Path | None,
    record: Path | None,
    view: bool,
    otel: bool,
    started: Callable[[str], None],
    inherited: Inherited | None,
) -> None:
    """Serve until the process is asked to end.

    Args:
        engines: by role; of the models that are served only "model", if there is one.
        upstream: an address with several models, which are opened when they are asked for.
        resources: further ones by name, as for `solve_async`.
        priced: the price of such a model.
        spending: where it is kept what keys with limits have spent.
        view: whether what is recorded can be seen at /view/.
        otel: whether OpenTelemetry is told.
        inherited: of which this process is a worker; None: it is the only one.
    """
    tells_all()
    telemetry = exporting() if otel else None
    for name, resource in resources.items():
        if getattr(resource, "ordered", 0):
            raise UsageError(
                f"The resource {name} learns from problems in order, and callers come in none: bench takes it."
            )
    settings = fitted(settings, descriptors() * settings.workers)
    settings = replace(settings, connections=max(1, settings.connections // settings.workers))
    import_all()
    scorers: dict[str, Scorer] = {role: Opened(given, process=role == "prm") for role, given in policy.scorers.items()}
    embedding = None if embedder is None else make_embedder(embedder)
    sandbox: Sandbox | None = None
    with contextlib.suppress(MissingResource):  # what needs it says so
        sandbox = Sandbox()

    async def go() -> None:
        if inherited is None:
            await serves(None)
        else:
            async with Channel.open(inherited.channel) as channel:
                await serves(channel)

    async def serves(channel: Channel | None) -> None:
        async def opened(name: str) -> Engine:
            engine = await OpenAIEngine.open_async(f"{upstream}#{quote(name, safe='')}", price=priced(name))
            service.metrics.probed(engine.probing)
            return engine

        first = engines.get("model")
        served = Served({} if first is None else {first.spec.name: first}, upstream, opened)
        recorder = None
        if record is not None:
            told = {
                "kind": "traffic",
                "model": upstream or (first.spec.name if first else ""),
                "strategy": ONE if policy.strategy is None else strategy_data(policy.strategy),
                "budget": dict(policy.budget.limits),
                **policy.scorers,
            }
            other = {**told, "strategy": settings.alternative}
            recorder = Recorder(record, told, other if settings.shadow else None, shared=channel is not None)
        service = Service(
            settings,
            policy,
            served,
            roles={role: engine for role, engine in engines.items() if role != "model"},
            scorers=scorers,
            embedder=embedding,
            sandbox=sandbox,
            resources=resources,
            keys=keys,
            accounts=None if spending is None else lambda: Accounts(partial(Book, spending)),
            recorder=recorder,
            telemetry=telemetry,
            viewer=viewer(record, keys) if view and record is not None else None,
            channel=channel,
        )
        for engine in {id(one): one for one in engines.values()}.values():
            service.metrics.probed(getattr(engine, "probing", Usage()))
        if inherited is None or channel is None:
            await serve(service, started=started)
        else:
            await serve(service, started=lambda _: channel.ready(), listeners=inherited.listeners, channel=channel)

    asyncio.run(go())


def viewer(record: Path, keys: Keys | None) -> Viewer:
    """The page over what is recorded; each key sees what was asked with it."""
    if keys is None:
        return Viewer(Shelf([record]))
    return Viewer(
        Shelf([]),
        owned=Owned(
            owner=lambda request: keys.bearer(request.headers.getall("Authorization", [])),
            shelf=lambda owner: Shelf([record], owner=owner),
        ),
    )
