"""The command serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from outthink.cli import completing
from outthink.cli.given import given_kind, given_prices, given_strategy, priced_engine
from outthink.cli.options import PriceOption, ResourceOptions, RoleOption
from outthink.cli.parsing import takes_blocks
from outthink.cli.running import opened_engines, opened_resources
from outthink.cli.shown import note
from outthink.errors import UsageError

if TYPE_CHECKING:
    from outthink.server.settings import Settings


@takes_blocks
def serve(
    context: typer.Context,
    helpers: ResourceOptions,
    upstream: Annotated[
        str | None, typer.Option(help="The server in front of which it runs: http://HOST/v1[#MODEL].")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="An embedded model instead: catalogue name or path of a GGUF.")
    ] = None,
    role: RoleOption = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            "-s",
            help="For requests that name none; none is one sample as asked for.",
            autocompletion=completing.strategies,
        ),
    ] = "auto",
    budget: Annotated[
        str | None, typer.Option("--budget", "-b", help="The most that any request may spend, as 20k-tokens,0.01usd.")
    ] = None,
    answer: Annotated[
        str, typer.Option(help="How replies are compared; chat looks whether two of the first four agree.")
    ] = "chat",
    free_form: Annotated[
        str | None,
        typer.Option(help="For replies that all differ: best_of_n (with --verifier), mbr ...; else what pays."),
    ] = None,
    plan: Annotated[list[str] | None, typer.Option(help="[NAME=]FILE of `outthink plan fit`; callers name it.")] = None,
    price: PriceOption = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of a sample, where the request does not say; else 4096, or fewer so that several fit the budget.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds of a request that names no others.")] = 300.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Only callers with a key of this file (`outthink key`) are served.")
    ] = None,
    spending: Annotated[
        Path | None, typer.Option(help="Keeps what keys with limits have spent; else KEYS.spent beside the keys.")
    ] = None,
    metrics_key: Annotated[
        str, typer.Option(help="The name of the key that reads /metrics, where there are keys, and does nothing else.")
    ] = "metrics",
    concurrency: Annotated[int, typer.Option(min=1, help="Most requests at once.")] = 256,
    queue: Annotated[int, typer.Option(min=0, help="Most requests that wait; others are told to come later.")] = 1024,
    shed: Annotated[
        bool, typer.Option("--shed", help="Requests spend less while more than half of the places are taken.")
    ] = False,
    price_follows_load: Annotated[
        bool,
        typer.Option(
            "--price-follows-load", help="auto stops earlier while more than half of the places are taken or many wait."
        ),
    ] = False,
    record: Annotated[Path | None, typer.Option(help="Keep the traces of all requests in this folder.")] = None,
    view: Annotated[
        bool, typer.Option("--view", help="Show what is recorded at /view/; each key sees its own requests.")
    ] = False,
    shadow: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests also run by --alternative, for `outthink report`.")
    ] = 0.0,
    alternative: Annotated[str, typer.Option(help="What shadows run; none is one sample.")] = "none",
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that serve one --upstream at one port, with shared limits.")
    ] = 1,
) -> None:
    """Serve OpenAI's chat API with test-time compute behind it.

    There are /v1/chat/completions, /v1/models and /v1/quote.
    """
    from outthink.driver import as_budget, check_units, counted_by
    from outthink.models.engine import EngineSpec, Price
    from outthink.models.roles import GENERATOR, MAIN, read_roles
    from outthink.resources.metered_sandbox import MeteredSandbox
    from outthink.types import Budget

    try:
        from outthink.server import start
        from outthink.server.keys import callers, spending_file
        from outthink.server.parent import inherited
        from outthink.server.settings import Settings
    except ImportError:
        raise UsageError("The server needs more packages: pip install 'outthink[server]'.") from None
    named = read_roles(role)
    generator = named.pop(MAIN, None)
    if generator is not None:
        if upstream is not None or model is not None:
            raise UsageError(f"Two models write the answers: leave --role {GENERATOR}={generator} out, or the other.")
        if generator.startswith(("http://", "https://")):
            upstream = generator
        else:
            model = generator
    if (upstream is None) == (model is None):
        raise UsageError("Name what to serve: --upstream http://HOST/v1, or --model with an embedded one.")
    if model is not None and workers > 1:
        raise UsageError("Workers cannot share an embedded model: leave --workers out, or give --upstream.")
    if upstream is not None and not upstream.startswith(("http://", "https://")):
        raise UsageError(f"{upstream!r} is not the address of a server; write it like http://localhost:8000/v1")
    prices = given_prices(price)
    scorers = {
        name: given for name, given in (("verifier", helpers.verifier), ("prm", helpers.prm)) if given is not None
    }
    start.check_alternative(alternative, strategy, shadow, record, scorers)
    settings = Settings(
        host=host,
        port=port,
        max_tokens=max_tokens,
        timeout=timeout,
        concurrency=concurrency,
        queue=queue,
        sheds=shed,
        price_follows_load=price_follows_load,
        shadow=shadow,
        alternative=alternative,
        metrics_key=metrics_key,
        workers=workers,
    )
    keys = callers(host, api_key_file, "spend your compute")
    if view and record is None:
        raise UsageError("--view shows what is recorded: give --record FOLDER, too.")
    policy = start.policy(
        strategy=None if strategy == "none" else given_strategy(strategy, context),
        budget=as_budget(budget),
        answer=given_kind(answer),
        free_form=free_form,
        plans=plan or [],
        scorers=scorers,
    )
    own = inherited()
    if workers > 1 and own is None:  # what else there is to be told, the first worker tells
        raise typer.Exit(_supervised(settings, shows=view))
    several = [] if upstream is None or "#" in upstream else start.models(upstream)
    if len(several) > 1 and not isinstance(prices.get("model", ""), str):
        raise UsageError("One price cannot be that of several models: name one by #MODEL, or use auto or FILE.json.")
    # of several models each is opened when somebody asks for it
    one = model or (upstream if len(several) <= 1 else None)
    roles = {} if one is not None or "model" not in prices else {"model": prices.pop("model")}
    with (
        opened_resources(helpers.resource) as resources,
        opened_engines(one, [f"{other}={name}" for other, name in named.items()], prices) as engines,
    ):
        specs = {role: engine.spec for role, engine in engines.items()}
        if one is None:  # models that nobody has opened yet: whether they have prices is known all the same
            specs["model"] = EngineSpec(
                name=f"the models of {upstream}", price=Price(prompt=0, completion=0) if roles else None
            )
        check_units(policy.budget, specs, {*counted_by(engines, resources), *MeteredSandbox.units})
        if keys is not None and any(limit.unit == "usd" for limits in keys.limits.values() for limit in limits):
            check_units(Budget({"usd": 1.0}), specs, ())  # its amount does not matter
        start.run(
            settings,
            policy,
            engines,
            upstream=None if one is not None else upstream,
            priced=lambda name: priced_engine(roles["model"], f"{upstream}#{quote(name, safe='')}") if roles else None,
            embedder=helpers.embedder,
            resources=resources,
            keys=keys,
            spending=spending or (None if api_key_file is None else spending_file(api_key_file)),
            record=record,
            view=view,
            started=lambda address: _told(address, shows=view),
            inherited=own,
        )


def _supervised(settings: Settings, *, shows: bool) -> int:
    """Serve by several workers; the exit code."""
    import asyncio
    import sys

    from outthink.server.door import Shares, descriptors
    from outthink.server.gate import Places
    from outthink.server.logs import to_stderr
    from outthink.server.parent import supervise

    if sys.platform == "win32":
        raise UsageError("Workers cannot share a port on Windows: leave --workers out.")
    to_stderr()
    asked = Shares(settings.connections, settings.concurrency, settings.queue)
    shares = asked.within(descriptors() * settings.workers)  # as each worker has it
    return asyncio.run(
        supervise(
            settings.workers,
            Places(shares.concurrency, shares.queue),
            host=settings.host,
            port=settings.port,
            grace=settings.grace,
            started=lambda address: _told(address, shows=shows),
        )
    )


def _told(address: str, *, shows: bool) -> None:
    note(f"Serving at {address}/v1{f', shown at {address}/view/' if shows else ''}; Ctrl-C ends it.")
