"""How far long work is, on standard error: a bar that moves on a terminal, else a line now and then.

All commands tell their progress here. What takes less than a few seconds leaves no trace, and nothing that is told
slows the work down.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from outthink.cli.shown import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY = 30.0
"""Seconds between two lines where standard error is no terminal."""

FIRST = 10.0
"""Seconds before the first of them, so that what is short leaves none."""

_BYTES = "bytes"


_running: Working | None = None
"""The innermost work that is being done."""


class NowAndThen:
    """Prints a line on standard error now and then, from a thread.

    Args:
        words: the line, asked for whenever one is printed.
        every: seconds between two.
    """

    def __init__(self, words: Callable[[], str], *, every: float = EVERY) -> None:
        self._words, self._every = words, every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._print, daemon=True)

    def start(self) -> None:
        """Begin; the first line is due after the least of `every` and FIRST."""
        self._thread.start()

    def stop(self) -> None:
        """Print nothing more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _print(self) -> None:
        wait = min(FIRST, self._every)
        while not self._ended.wait(wait):
            wait = self._every
            with contextlib.suppress(OSError, ValueError):  # a closed stream is no reason to stop working
                print(one_line(self._words()), file=sys.stderr, flush=True)


class Working:
    """How far one piece of work is; use it as a context manager. Work within other work is told in its line.

    Args:
        text: what is being done.
        unit: of what is counted, such as "problems"; bytes are shown as MB, with their rate.
        every: seconds between two lines where there is no terminal.
        left: tells what is left in words, where more is known than the pace so far.
    """

    def __init__(
        self, text: str, *, unit: str = "", every: float = EVERY, left: Callable[[], str] | None = None
    ) -> None:
        self._text, self._unit, self._every, self._left = text, unit, every, left
        self._done, self._total = 0.0, 0.0
        self._clock = time.monotonic
        self._start = self._clock()
        self._lines: NowAndThen | None = None
        self._bar: Progress | None = None
        self._outer: Working | None = None
        self._inner: Working | None = None

    def __enter__(self) -> Working:
        global _running
        self._start = self._clock()
        self._outer, _running = _running, self
        if self._outer is not None:  # what is being done is told in the line that is there
            self._outer._inner = self
            return self
        if sys.stderr is None:
            return self
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = self._drawn(console)
            self._bar.start()
        else:
            self._lines = NowAndThen(self.line, every=self._every)
            self._lines.start()
        return self

    def __exit__(self, *raised: object) -> None:
        global _running
        _running = self._outer
        if self._outer is not None:
            self._outer._inner = None
        if self._bar is not None:
            self._bar.stop()
        if self._lines is not None:
            self._lines.stop()

    def tell(self, done: float, total: float, text: str | None = None) -> None:
        """So much of so much is done; may be called from any thread."""
        self._done, self._total = done, total
        self.update(text or self._text)

    def update(self, text: str) -> None:
        """Something else is being done now."""
        self._text = text
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, total=self._total or None)

    def line(self) -> str:
        """All of it in words."""
        return ", ".join(part for part in (self._what(), self._count(), self._time()) if part)

    def _what(self) -> str:
        inner = self._inner
        return self._text if inner is None else inner._what()

    def _drawn(self, console: Any) -> Progress:
        from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn
        from rich.table import Column
        from rich.text import Text

        class Words(ProgressColumn):
            """Told anew whenever the line is drawn."""

            def __init__(self, words: Callable[[], str], column: Column) -> None:
                super().__init__(column)
                self._words = words

            def render(self, task: Any) -> Text:
                return Text(one_line(self._words()))

        def words() -> str:
            rest = ", ".join(part for part in (self._count(), self._time()) if part)
            return f"{rest} | {self._what()}" if self._total else f"{self._what()}, {rest}"

        bar_width = max(min(console.width // 5, 24), 4)
        one_row = Column(no_wrap=True, overflow="ellipsis")
        columns = (SpinnerColumn(), BarColumn(bar_width), Words(words, one_row))
        bar = Progress(*columns, console=console, transient=True)
        bar.add_task("", total=None)
        return bar

    def _count(self) -> str:
        if not self._total:
            return ""
        if self._unit == _BYTES:
            rate = self._done / max(self._clock() - self._start, 1e-9)
            return f"{self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB ({rate / 1e6:,.1f} MB/s)"
        return f"{self._done:,.0f} of {self._total:,.0f} {self._unit}".rstrip()

    def _time(self) -> str:
        if self._left is not None and (left := self._left()):
            return left
        spent = self._clock() - self._start
        if not 0 < self._done < self._total:
            return duration(spent)
        return f"{duration(spent)}, about {duration(spent * (self._total - self._done) / self._done)} left"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
