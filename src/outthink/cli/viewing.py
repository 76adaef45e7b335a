"""The command view, and the page beside commands that solve."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outthink.cli import completing
from outthink.cli.running import interruptible, opened_tokenizer
from outthink.cli.shown import note
from outthink.errors import UsageError

if TYPE_CHECKING:
    from aiohttp import web

    from outthink.view.recordings import Shelf

_PORT = 8600

ViewOption = Annotated[bool, typer.Option("--view", help="Show it in a browser while it happens, until Ctrl-C.")]


def view(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Run directories, pools, files of traces, or folders with such; runs/ by default."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = _PORT,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Only those with a key of this file (`outthink key`) may look.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="The model that wrote runs: tells which logprob belongs to which word.",
            autocompletion=completing.models,
        ),
    ] = None,
) -> None:
    """Look at runs, pools and searches in a browser.

    The page only reads, and follows what is still being written.
    """
    from outthink.server.keys import callers
    from outthink.view.pages import Viewer, viewing
    from outthink.view.recordings import Shelf

    keys = callers(host, api_key_file, "read what was recorded")
    paths = paths or [Path("runs")]
    for path in paths:
        if not path.exists():
            raise UsageError(f"There is no {path}: name run directories, pools, or a folder with them.")

    def admit(request: web.Request) -> bool:
        return keys is None or keys.bearer(request.headers.getall("Authorization", [])) is not None

    with opened_tokenizer(model) as tokenizer:

        async def go(stop: asyncio.Event) -> None:
            async with viewing(Viewer(Shelf(paths), admit=admit, tokenizer=tokenizer), host, port) as address:
                note(f"The page is at {address} ; Ctrl-C ends it.")
                await stop.wait()

        interruptible(go)


class Beside:
    """A page that is served while something else is done."""

    def stay(self) -> None:
        """Leave it there until Ctrl-C."""
        note("It can still be seen; Ctrl-C ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


@contextlib.contextmanager
def beside(shelf: Shelf, part: str = "") -> Iterator[Beside]:
    """Serve the page on this machine, from a thread, while the context lasts; the address of a part of it is told."""
    from outthink.view.pages import Viewer, viewing

    ready = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    failures: list[Exception] = []

    async def serve(port: int) -> None:
        async with viewing(Viewer(shelf), "127.0.0.1", port) as address:
            note(f"The page is at {address}{part}")
            ready.set()
            await ended.wait()

    def go() -> None:
        asyncio.set_event_loop(loop)
        try:
            try:
                loop.run_until_complete(serve(_PORT))
            except UsageError:  # somebody looks at something else there
                loop.run_until_complete(serve(0))
        except Exception as failure:
            failures.append(failure)
        finally:
            ready.set()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=go, name="outthink-view", daemon=True)
    thread.start()
    try:
        ready.wait()
        if failures:
            raise failures[0]
        yield Beside()
    finally:
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(ended.set)
        thread.join(5)
