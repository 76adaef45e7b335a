"""The commands for models: list, pull, probe, path."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from outthink.cli.options import JsonOption, group
from outthink.cli.running import working
from outthink.cli.shown import note
from outthink.errors import UnknownName, UsageError

models_app = group("List, fetch and locate the models that run on this machine.")


@models_app.command("list")
def models_list(as_json: JsonOption = False) -> None:
    """The models of the catalogue, and which of them are on this machine."""
    from outthink.models import catalog

    rows = [
        {"name": name, "licence": entry.licence, "path": str(found) if (found := catalog.path(name)) else None}
        for name, entry in catalog.entries().items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        where = row["path"] or f"not here; outthink models pull {row['name']}"
        typer.echo(f"{row['name']:30} {row['licence']:12} {where}")


@models_app.command("pull")
def models_pull(name: Annotated[str, typer.Argument(help="A name from `outthink models list`.")]) -> None:
    """Fetch a model, check it and keep it in the cache."""
    from outthink.models import catalog

    typer.echo(catalog.pull(name, announce=lambda text: typer.echo(text, err=True)))


@models_app.command("probe")
def models_probe(
    url: Annotated[str, typer.Argument(help="Address of a server: http://HOST/v1, or http://HOST/v1#MODEL.")],
    as_json: JsonOption = False,
) -> None:
    """Ask a server, with real requests, what it does with each field; kept for a week."""
    import dataclasses

    from outthink.models.probe import probe_and_remember

    with working(f"Asking {url}"):
        found = asyncio.run(probe_and_remember(url))
    facts = dataclasses.asdict(found.facts)
    if as_json:
        cost = {"requests": found.requests, **dataclasses.asdict(found.usage)}
        typer.echo(json.dumps({**facts, "powers": sorted(found.facts.powers), "notes": found.notes, "cost": cost}))
        return
    for name, value in facts.items():
        shown = ("yes" if value else "no") if isinstance(value, bool) else "-" if value is None else value
        typer.echo(f"{name:12} {shown}")
    typer.echo(f"{'powers':12} {', '.join(sorted(found.facts.powers)) or '-'}")
    for remark in found.notes:
        note(remark)
    note(
        f"This took {found.requests} requests, {found.usage.prompt:,} prompt and {found.usage.completion:,} "
        "completion tokens."
    )


@models_app.command("path")
def models_path(name: Annotated[str, typer.Argument(help="A name from `outthink models list`.")]) -> None:
    """Print where a model's file is."""
    from outthink.models import catalog

    if name not in catalog.entries():
        raise UnknownName("model", name, catalog.entries())
    found = catalog.path(name)
    if found is None:
        raise UsageError(f"The model {name} is not on this machine yet: run `outthink models pull {name}`.")
    typer.echo(found)
