"""The commands for models: list, pull, probe, path."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from outthink.cli import completing
from outthink.cli.options import JsonOption
from outthink.cli.parsing import Command, group
from outthink.cli.progress import Working
from outthink.cli.shown import note
from outthink.errors import UnknownName, UsageError

NameArgument = Annotated[
    str, typer.Argument(help="A name from `outthink models list`.", autocompletion=completing.models)
]

models_app = group("List, fetch and locate the models that run on this machine.")


@models_app.command("list", cls=Command)
def models_list(as_json: JsonOption = False) -> None:
    """The models of the catalogue, and which of them are on this machine."""
    from outthink.models import catalog

    rows = [
        {"name": name, "licence": entry.licence, "path": str(path) if (path := catalog.path(name)) else None}
        for name, entry in catalog.entries().items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        where = row["path"] or f"not here; outthink models pull {row['name']}"
        typer.echo(f"{row['name']:30} {row['licence']:12} {where}")


@models_app.command("pull", cls=Command)
def models_pull(name: NameArgument) -> None:
    """Fetch a model, check it and keep it in the cache."""
    from outthink.models import catalog

    with Working(f"Fetching {name}", unit="bytes") as standing:
        path = catalog.pull(name, announce=note, progress=standing.tell)
    typer.echo(path)


@models_app.command("probe", cls=Command)
def models_probe(
    url: Annotated[str, typer.Argument(help="Address of a server: http://HOST/v1, or http://HOST/v1#MODEL.")],
    as_json: JsonOption = False,
) -> None:
    """Find out what a server does with each field of a request.

    It is asked with real requests; what it does is kept for a week.
    """
    import dataclasses

    from outthink.models.probe import probe_and_remember

    with Working(f"Asking {url}"):
        probed = asyncio.run(probe_and_remember(url))
    facts = dataclasses.asdict(probed.facts)
    if as_json:
        cost = {"requests": probed.requests, **dataclasses.asdict(probed.usage)}
        typer.echo(json.dumps({**facts, "powers": sorted(probed.facts.powers), "notes": probed.notes, "cost": cost}))
        return
    for name, value in facts.items():
        shown = ("yes" if value else "no") if isinstance(value, bool) else "-" if value is None else value
        typer.echo(f"{name:12} {shown}")
    typer.echo(f"{'powers':12} {', '.join(sorted(probed.facts.powers)) or '-'}")
    for remark in probed.notes:
        note(remark)
    note(
        f"This took {probed.requests} requests, {probed.usage.prompt:,} prompt and {probed.usage.completion:,} "
        "completion tokens."
    )


@models_app.command("path", cls=Command)
def models_path(name: NameArgument) -> None:
    """Print where a model's file is."""
    from outthink.models import catalog

    if name not in catalog.entries():
        raise UnknownName("model", name, catalog.entries())
    path = catalog.path(name)
    if path is None:
        raise UsageError(f"The model {name} is not on this machine yet: run `outthink models pull {name}`.")
    typer.echo(path)
