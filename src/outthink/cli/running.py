"""Engines opened for a command, its progress, and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from outthink.cli.given import priced_engine
from outthink.cli.options import DEFAULT_MODEL
from outthink.cli.progress import NowAndThen, Working
from outthink.cli.shown import one_line
from outthink.errors import UsageError
from outthink.together import close_all

if TYPE_CHECKING:
    from outthink.meter import Meter
    from outthink.models.engine import Engine, Price, Tokenizing


T = TypeVar("T")


@contextlib.contextmanager
def opened_tokenizer(model: str | None) -> Iterator[Tokenizing | None]:
    """The engine of a model as what turns its tokens into text; None where no model is named."""
    if model is None:
        yield None
        return
    with opened_engines(model, None, {}) as engines:
        engine = engines["model"]
        if "tokens" not in engine.spec.powers:
            raise UsageError(f"{model} does not turn tokens into text; name a model that does.")
        yield cast("Tokenizing", engine)


@contextlib.contextmanager
def opened_engines(
    model: str | None, roles: list[str] | None, prices: dict[str, Price | str]
) -> Iterator[dict[str, Engine]]:
    """The engines by role, closed at the end; the same name is opened once. Opened outside any event loop."""
    from outthink.cost.price import prices_by_name
    from outthink.models import open_engine
    from outthink.models.roles import GENERATOR, MAIN, read_roles

    names = read_roles(roles)
    if model is not None:
        if model not in (DEFAULT_MODEL, names.get(MAIN, model)):
            raise UsageError(f"Two models write the answers: leave --model or --role {GENERATOR}={names[MAIN]} out.")
        names = {MAIN: model, **names}
    check_priced(prices, names)
    priced = {name: priced_engine(price, name) for name, price in prices_by_name(names, prices).items()}
    opened: dict[str, Engine] = {}
    try:
        for name in dict.fromkeys(names.values()):
            with Working(f"Loading {name}"):
                opened[name] = open_engine(name, price=priced.get(name))
        yield {role: opened[name] for role, name in names.items()}
    finally:
        asyncio.run(close_all(opened.values()))


def check_priced(roles: Iterable[str], names: Mapping[str, str]) -> None:
    """Raise UsageError where there is a price for a role that has no model."""
    for role in roles:
        if role not in names:
            raise UsageError(f"There is a price for the role {role!r} but no model; add --role {role}=MODEL.")


@contextlib.contextmanager
def opened_resources(given: list[str] | None) -> Iterator[dict[str, Any]]:
    """What `--resource` names, by name, closed at the end."""
    from outthink.resources.table import close_resources, open_resources

    opened = open_resources(given or [])
    try:
        yield opened
    finally:
        asyncio.run(close_resources(opened))


class Watcher:
    """Shows, while a problem is being solved, what has been spent and what the answer is so far."""

    def __init__(self, *, shown: bool = True) -> None:
        from rich.console import Console
        from rich.live import Live

        self._meter: Meter | None = None
        self._shown = shown
        console = Console(stderr=True)
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=4, transient=True)
        self._lines = None if console.is_terminal or sys.stderr is None else NowAndThen(self._line)

    def start(self, meter: Meter) -> None:
        """Look at what this meter counts, and show it."""
        self._meter = meter
        if self._lines is not None:
            self._lines.start()
        elif self._shown:
            self._live.start()

    def stop(self) -> None:
        """Show nothing more."""
        if self._lines is not None:
            self._lines.stop()
        self._live.stop()

    def cost(self) -> dict[str, float]:
        """What has been charged so far, by unit, with the seconds since the start."""
        return {"seconds": 0.0} if self._meter is None else {**self._meter.cost(), "seconds": self._meter.now()}

    def _drawn(self) -> str:
        from rich.markup import escape

        return f"{escape(self._line())} | Ctrl-C stops and keeps the best answer"

    def _line(self) -> str:
        meter = self._meter
        if meter is None:
            return ""
        growing = sum(sum(one.progress.tokens) for one in meter.running.values())
        samples = sum(one.progress.n for one in meter.running.values())
        answer = meter.rounds[-1].answer if meter.rounds else None
        so_far = "" if answer is None else f" | answer so far: {one_line(answer[:60])}"
        charged = meter.cost().get("tokens", 0.0)
        return f"{meter.now():5.1f} s | {charged:,.0f} tokens charged, {growing:,} in {samples} running samples{so_far}"


def interruptible(start: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine; the first Ctrl-C asks it to stop, the second one ends it."""

    async def go() -> T:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(start(stop))

        def interrupt() -> None:
            if stop.is_set():
                task.cancel()
                if not os.environ.get("OUTTHINK_DEBUG"):  # what fails because it is torn down is no news
                    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            stop.set()

        previous: Any = None
        try:
            loop.add_signal_handler(signal.SIGINT, interrupt)
        except NotImplementedError:  # Windows
            previous = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(interrupt))
        try:
            return await task
        finally:
            if previous is not None:
                signal.signal(signal.SIGINT, previous)

    try:
        return asyncio.run(go())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
