"""The command view, and the page beside other commands."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from outthink.cli.running import interruptible
from outthink.cli.shown import note
from outthink.errors import UsageError


def view(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Run directories, pools, files of traces, or folders with such; runs/ by default."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8600,
) -> None:
    """Look at runs, pools and searches in a browser.

    The page only reads, and follows what is still being written.
    """
    from outthink.view.pages import Viewer, viewing
    from outthink.view.recordings import Shelf

    shelf = Shelf(paths or [_default()])

    async def go(stop: asyncio.Event) -> None:
        async with viewing(Viewer(shelf), host, port) as address:
            note(f"The page is at {address} ; Ctrl-C ends it.")
            await stop.wait()

    interruptible(go)


def _default() -> Path:
    folder = Path("runs")
    if not folder.is_dir():
        raise UsageError("There is no folder runs here: name run directories, pools, or a folder with them.")
    return folder
