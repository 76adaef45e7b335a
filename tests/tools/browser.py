"""A real browser without a window, and the page served to it as people get it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from outthink.view.pages import Viewer, viewing
from outthink.view.recordings import Shelf

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def needs_browser() -> None:
    """Skip on a machine without a browser; in CI, which installs one, that is an error."""
    if CHROMIUM is None or find_spec("playwright") is None:
        what = "there is no chromium (apt-get install chromium), or no playwright"
        pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """One process for many pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # as root, as in containers, Chromium does not start with its sandbox
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


@contextlib.contextmanager
def page_on(opened: Any, *, width: int = 1400, scheme: str = "light", allowed: str = "") -> Iterator[Any]:
    """A page of its own; whatever else than `allowed` it complains of, or asks elsewhere for, fails the test."""
    context = opened.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(15_000)
    told: list[str] = []

    def complain(message: Any) -> None:
        if message.type in ("error", "warning"):
            told.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "file://", "data:font/")):
            told.append(f"asked for {request.url[:200]}")

    def dialog(shown: Any) -> None:
        told.append(f"dialog: {shown.message}")
        shown.dismiss()

    page.on("pageerror", lambda error: told.append(f"error: {error}"))
    page.on("console", complain)
    page.on("request", asked)
    page.on("dialog", dialog)
    try:
        yield page
        assert not [one for one in told if not allowed or allowed not in one]
    finally:
        context.close()


@contextlib.contextmanager
def served(paths: Sequence[Path], **options: Any) -> Iterator[str]:
    """The page over these recordings, from a thread of its own; its address."""
    with in_thread(lambda: viewing(Viewer(Shelf(paths), every=0.05, **options), "127.0.0.1", 0)) as address:
        yield address


@contextlib.contextmanager
def in_thread(context: Any) -> Iterator[Any]:
    """What an asynchronous context gives, which lives on the loop of another thread."""
    ready, ended = threading.Event(), asyncio.Event()
    given: list[Any] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def go() -> None:
        loops.append(asyncio.get_running_loop())
        async with context() as one:
            given.append(one)
            ready.set()
            await ended.wait()

    def work() -> None:
        try:
            asyncio.run(go())
        finally:
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        ready.wait()
        yield given[0]
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join()
