"""The command serve."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

import typer

from outthink.cli import completing
from outthink.cli.configured import Mistakes
from outthink.cli.given import given_kind, given_prices, given_strategy, given_text, priced_engine
from outthink.cli.options import PriceOption, ResourceOptions, RoleOption
from outthink.cli.parsing import takes_blocks
from outthink.cli.running import check_priced, opened_engines, opened_resources
from outthink.cli.shown import note, one_line
from outthink.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from outthink.models.engine import EngineSpec, Price
    from outthink.server.settings import Settings
    from outthink.types import Budget


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
            max=1 << 30,
            help="Of a sample, where the request does not say; else 4096, or fewer so that several fit the budget.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=1e9, help="Seconds of a request that names no others.")
    ] = 300.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Only callers with a key of this file (`outthink key`) are served.")
    ] = None,
    spending: Annotated[
        Path | None, typer.Option(help="Keeps what keys with limits have spent; else KEYS.spent beside the keys.")
    ] = None,
    metrics_key: Annotated[
        str | None,
        typer.Option(help="The name of the key that reads /metrics, and nothing else, where there are keys: metrics."),
    ] = None,
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
    learn: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="Share of requests that get a random action, for `outthink plan learn`."),
    ] = 0.0,
    shadow: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests also run by --alternative, for `outthink report`.")
    ] = 0.0,
    alternative: Annotated[str, typer.Option(help="What shadows run; none is one sample.")] = "none",
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that serve one --upstream at one port, with shared limits.")
    ] = 1,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="Of the log; json has tokens, cost and the key's name.")
    ] = "text",
    otel: Annotated[
        bool, typer.Option("--otel", help="Traces and metrics by OTLP, to OTEL_EXPORTER_OTLP_ENDPOINT.")
    ] = False,
    config: Annotated[  # read by ConfiguredCommand
        Path | None, typer.Option(help="A TOML file of these options; else outthink.toml where it is here.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Tell everything that is wrong with the options, and start nothing.")
    ] = False,
) -> None:
    """Serve OpenAI's chat API with test-time compute behind it.

    There are /v1/chat/completions, /v1/models and /v1/quote.
    """
    from outthink.driver import as_budget, check_units, counted_by
    from outthink.models.engine import EngineSpec, Price
    from outthink.models.roles import GENERATOR, MAIN, read_roles
    from outthink.resources.metered_sandbox import MeteredSandbox
    from outthink.types import AnswerKind, Budget

    try:
        from outthink.server import start
        from outthink.server.book import check_spending
        from outthink.server.keys import callers, check_reader, spending_file
        from outthink.server.logs import to_stderr
        from outthink.server.parent import inherited
        from outthink.server.settings import Settings
        from outthink.server.telemetry import check_packages
    except ImportError:
        raise UsageError("The server needs more packages: pip install 'outthink[server]'.") from None
    wrong: Mistakes = context.meta["mistakes"]
    nobody: dict[str, str] = {}
    named = wrong.tried(lambda: read_roles(role), nobody)
    generator = named.pop(MAIN, None)
    if generator is not None and (upstream is not None or model is not None):
        wrong.add(f"Two models write the answers: leave --role {GENERATOR}={generator} out, or the other.")
    elif generator is not None and generator.startswith(("http://", "https://")):
        upstream = generator
    elif generator is not None:
        model = generator
    if (upstream is None) == (model is None):
        wrong.add("Name what to serve: --upstream http://HOST/v1, or --model with an embedded one.")
    if model is not None and workers > 1:
        wrong.add("Workers cannot share an embedded model: leave --workers out, or give --upstream.")
    if upstream is not None and not upstream.startswith(("http://", "https://")):
        wrong.add(f"{upstream!r} is not the address of a server; write it like http://localhost:8000/v1")
        upstream = None
    none: dict[str, Price | str] = {}
    prices = wrong.tried(lambda: given_prices(price), none)
    scorers = {
        name: given for name, given in (("verifier", helpers.verifier), ("prm", helpers.prm)) if given is not None
    }
    wrong.tried(lambda: start.check_alternative(alternative, strategy, shadow, record, scorers), None)
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
        learn=learn,
        alternative=alternative,
        metrics_key=metrics_key or Settings.metrics_key,
        workers=workers,
    )
    own = inherited()
    keys = wrong.tried(lambda: callers(host, api_key_file, "spend your compute", goes_on=own is not None), None)
    if metrics_key is not None and own is None and (keys is not None or api_key_file is None):
        wrong.tried(partial(check_reader, metrics_key, keys), None)
    if view and record is None:
        wrong.add("--view shows what is recorded: give --record FOLDER, too.")
    limits = wrong.tried(lambda: as_budget(budget), Budget())
    kind: AnswerKind = wrong.tried(lambda: given_kind(answer), "chat")
    made = None if strategy == "none" else wrong.tried(lambda: given_strategy(strategy, context), None)
    for name, scorer in scorers.items():
        wrong.tried(partial(start.check_scorers, {name: scorer}), None)
    if made is not None:
        wrong.tried(lambda: start.check_needs(made, "--strategy", scorers), None)
    plans: dict[str, str] = {}
    for one in plan or []:
        wrong.tried(partial(start.add_plan, plans, one), None)
    otherwise = None if free_form is None else wrong.tried(lambda: start.free_form(free_form, scorers), None)
    policy = start.policy(strategy=made, budget=limits, answer=kind, otherwise=otherwise, plans=plans, scorers=scorers)
    if learn:
        wrong.tried(lambda: start.check_learning(policy, record), None)
    if otel:
        wrong.tried(check_packages, None)
    if check:
        wrong.tried(lambda: _check_folder(record), None)
        if keys is not None and keys.limits and api_key_file is not None:
            wrong.tried(partial(check_spending, spending or spending_file(api_key_file)), None)
        spent = {limit.unit: 1.0 for kept in (keys.limits if keys else {}).values() for limit in kept}
        limits = Budget({**({"usd": 1.0} if "usd" in spent else {}), **policy.budget.limits})  # amounts do not matter
        served = upstream or model
        names = named if served is None else {MAIN: served, **named}
        _check_unopened(wrong, names, helpers, prices, limits)
        _tell(wrong, context.meta["file"])
    to_stderr(log_format)
    started = partial(_started, shows=view, file=context.meta["file"], log_format=log_format)
    if workers > 1 and own is None:  # what else there is to be told, the first worker tells
        raise typer.Exit(_supervised(settings, started))
    several = [] if upstream is None or "#" in upstream else start.models(upstream)
    if len(several) > 1 and not isinstance(prices.get("model", ""), str):
        raise UsageError("One price cannot be that of several models: name one by #MODEL, or use auto or FILE.json.")
    # of several models each is opened when somebody asks for it
    single = model or (upstream if len(several) <= 1 else None)
    roles = {} if single is not None or "model" not in prices else {"model": prices.pop("model")}
    with (
        opened_resources(helpers.resource) as resources,
        opened_engines(single, [f"{other}={name}" for other, name in named.items()], prices) as engines,
    ):
        specs = {role: engine.spec for role, engine in engines.items()}
        if single is None:  # models that nobody has opened yet: whether they have prices is known all the same
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
            upstream=None if single is not None else upstream,
            priced=lambda name: priced_engine(roles["model"], f"{upstream}#{quote(name, safe='')}") if roles else None,
            embedder=helpers.embedder,
            resources=resources,
            keys=keys,
            spending=spending or (None if api_key_file is None else spending_file(api_key_file)),
            record=record,
            view=view,
            otel=otel,
            started=started,
            inherited=own,
        )


def _supervised(settings: Settings, started: Callable[[str], None]) -> int:
    """Serve by several workers; the exit code."""
    import asyncio
    import sys

    from outthink.server.door import Shares, descriptors
    from outthink.server.gate import Places
    from outthink.server.logs import tells_all
    from outthink.server.parent import supervise

    if sys.platform == "win32":
        raise UsageError("Workers cannot share a port on Windows: leave --workers out.")
    tells_all()
    asked = Shares(settings.connections, settings.concurrency, settings.queue)
    shares = asked.within(descriptors() * settings.workers)  # as each worker has it
    return asyncio.run(
        supervise(
            settings.workers,
            Places(shares.concurrency, shares.queue),
            host=settings.host,
            port=settings.port,
            grace=settings.grace,
            started=started,
        )
    )


def _started(address: str, *, shows: bool, file: Path | None, log_format: Literal["text", "json"]) -> None:
    """Say where it serves, in the log where programs read that."""
    by = "" if file is None else f", by {file}"
    sentence = f"Serving at {address}/v1{f', shown at {address}/view/' if shows else ''}{by}; Ctrl-C ends it."
    if log_format == "json":
        logging.getLogger("outthink.server").info(sentence)
    else:
        note(sentence)


def _check_folder(record: Path | None) -> None:
    """Raise UsageError where a folder can surely not be made."""
    try:
        if record is not None and record.exists() and not record.is_dir():
            raise UsageError(f"Cannot make the folder {record}: it is a file.")
    except OSError as cause:
        raise UsageError(f"Cannot make the folder {record}: {cause.strerror}.") from None


def _check_unopened(
    wrong: Mistakes,
    names: Mapping[str, str],
    helpers: ResourceOptions,
    prices: Mapping[str, Price | str],
    budget: Budget,
) -> None:
    """What opening models, embedders and resources would find wrong, as far as it shows without opening them."""
    from outthink.driver import check_units
    from outthink.models import described
    from outthink.models.roles import MAIN
    from outthink.resources.embedding import make_embedder
    from outthink.resources.metered_sandbox import MeteredSandbox
    from outthink.resources.table import check_resources

    wrong.tried(lambda: check_priced((role for role in prices if role != MAIN or MAIN in names), names), None)
    specs: dict[str, EngineSpec] = {}
    for role, name in names.items():
        price = wrong.tried(partial(_unasked_price, prices.get(role), name), None)
        spec = wrong.tried(partial(described, name, price), None)
        if spec is not None and (price is not None or role not in prices):  # else what is wrong is told already
            specs[role] = spec
    embedder = helpers.embedder
    if embedder is not None and not embedder.startswith("sentence-transformers:"):  # that would be loaded
        wrong.tried(lambda: make_embedder(embedder), None)
    wrong.tried(lambda: check_resources(helpers.resource or []), None)
    own = helpers.resource or any(role not in specs for role in names)  # which may count units of their own
    wrong.tried(lambda: check_units(budget, specs, budget.limits if own else MeteredSandbox.units), None)


def _unasked_price(given: Price | str | None, name: str) -> Price | None:
    """The price of a model without asking its server; where nobody has said which model it is, any."""
    from outthink.cost.price import price_of
    from outthink.models.engine import Price

    if not isinstance(given, str):
        return given
    if name.startswith(("http://", "https://")) and "#" not in name:
        if given != "auto":
            given_text(Path(given))
        return Price(prompt=0, completion=0)
    return price_of(given, name)[0]


def _tell(wrong: Mistakes, file: Path | None) -> None:
    """What is wrong, a line each, and the end of the command: 2 where anything is."""
    for sentence in wrong.told:
        note(one_line(sentence))
    if not wrong.told:
        note(f"Nothing is wrong with {'the options' if file is None else f'{file} and the options'}.")
    raise typer.Exit(2 if wrong.told else 0)
