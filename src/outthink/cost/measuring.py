"""Measures how long an engine takes to read prompts and to write many samples side by side, with real requests.

Source: our own; the form of what is fitted is that of `cost.latency`. Differs from a load generator: it measures what a
strategy does, n samples of one prompt that nobody has asked before, and not the throughput of many users.

The number of samples doubles until the engine refuses, the time is used up, or `most` is reached; between two doublings
stands a request of another size that only serves as a check. A second round measures again what the first one did.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink.cost.calibration import Calibration, Row, Use
from outthink.cost.latency import TimedRequest
from outthink.errors import EngineError, PromptTooLong, Unidentified, UsageError
from outthink.models.engine import Engine, Progress, Request
from outthink.types import Message, Usage

if TYPE_CHECKING:
    from rich.table import Table

_ROUNDS = 2
_ROWS = 24  # requests of a round, among which the time is shared out
_GRACE = 1.15  # a request may end this much after the time is up
_TOKENS = (8, 256)  # fewest and most tokens of a sample
_WRITTEN = 4096  # most tokens of a request, since they may cost money
_SHORT, _LONG = 16, 448  # words of prompts
_CONTEXT = 128  # tokens before the steps whose time is told
_BUSY = "Other programs were running on this machine, which makes everything slower: calibrate again when it is quiet."
_WORDS = ("river", "stone", "seven", "apples", "price", "train", "garden", "window", "hours", "paint", "letter", "half")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a calibration found.

    Args:
        notes: one sentence each on what was not measured, and why.
        usage: tokens of all requests, those of the warm-up included.
    """

    calibration: Calibration
    notes: tuple[str, ...]
    usage: Usage

    def table(self) -> Table:
        """Measured and fitted seconds of every request."""
        from rich.table import Table

        columns = ("samples", "prompt", "written", "seconds", "fitted", "off", "tokens/s", "used to")
        table = Table(*columns, box=None, pad_edge=False)
        for column in table.columns[:-1]:
            column.justify = "right"
        for row in sorted(self.calibration.rows, key=lambda row: (row.timed.samples, row.timed.prompt)):
            timed, written = row.timed, sum(row.timed.lengths)
            fitted = self.calibration.latency.seconds_of(timed.prompt, timed.lengths)
            table.add_row(
                f"{timed.samples:,}",
                f"{timed.prompt:,}",
                f"{written:,}",
                f"{timed.seconds:.3g}",
                f"{fitted:.3g}",
                f"{100 * (timed.seconds / fitted - 1):+.0f}%" if fitted else "-",
                f"{written / timed.seconds:,.0f}",
                row.use,
            )
        return table

    def sentences(self, share: float) -> list[str]:
        """What follows from it."""
        fit = self.calibration
        checks = sum(row.use == "check" for row in fit.rows)
        one, many = (float(fit.latency.step_seconds(size, _CONTEXT)) for size in (1, fit.most))
        knee = fit.knee(share, _CONTEXT)
        bend = (
            f"up to {fit.most} samples, none makes a step longer by more than {100 * share:g}% of that"
            if knee is None
            else f"from {knee} on, each further sample makes it longer by more than {100 * share:g}% of that"
        )
        return [
            f"{fit.engine}: after {_CONTEXT} tokens, a step of one sample takes {1000 * one:.3g} ms, of {fit.most} "
            f"samples {1000 * many:.3g} ms; {bend}.",
            f"On {checks} checks, which the fit has not seen, requests took from 1/{fit.spread:.3g} to "
            f"{fit.spread:.3g} times what is fitted (level {100 * fit.level:.0f}%).",
            *self.notes,
            f"This took {self.usage.prompt - self.usage.cached:,} tokens read and {self.usage.completion:,} written.",
        ]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A request: samples, words of the prompt, and tokens to write as a share of those of a usual one; 0: one token."""

    samples: int
    words: int
    part: float
    use: Use


async def calibrate(
    engine: Engine,
    *,
    seconds: float = 100.0,
    most: int = 128,
    seed: int | None = None,
    on_row: Callable[[Row], None] | None = None,
    stop: asyncio.Event | None = None,
) -> Found:
    """Measure `engine` for about `seconds`, with up to `most` samples of one prompt.

    Nothing else should run on the machine meanwhile: what does is measured, too.

    Args:
        seed: of the words that prompts are made of; None: others each time, for a server may remember the last ones.
        on_row: told of each measurement.
        stop: set it to give up; then asyncio.CancelledError is raised.

    Raises:
        UsageError: it has no speed of its own, does not tell its tokens, or refuses the shortest request.
        EngineError: it failed or did not answer before there was enough to go by.
        Unidentified: the time was too short for enough measurements.
    """
    if seconds <= 0 or most < 2:
        raise ValueError("seconds must be above 0, and most at least 2")
    if engine.spec.name.startswith("recorded:"):
        raise UsageError(f"{engine.spec.name} plays back what was recorded, so it has no speed; name a model.")
    work = asyncio.ensure_future(_Measuring(engine, seconds, seed, on_row).run(most))
    stopping = asyncio.ensure_future((stop or asyncio.Event()).wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise asyncio.CancelledError
        return work.result()
    finally:
        for task in (work, stopping):
            task.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)


class _Measuring:
    """One calibration while it runs."""

    def __init__(self, engine: Engine, seconds: float, seed: int | None, on_row: Callable[[Row], None] | None) -> None:
        self._engine, self._seconds, self._on_row = engine, seconds, on_row
        self._rng = random.Random(seed)
        self._clock = asyncio.get_running_loop().time
        self._start = self._clock()
        self._rows: list[Row] = []
        self._machine = _machine(engine)  # before there is load of our own
        self._took: dict[_Plan, tuple[int, float]] = {}
        self._notes = [_BUSY] if (self._machine["load"] or 0) > self._machine["cores"] / 2 else []
        self._usage = Usage()
        self._step = 0.0
        self._asked = 0

    async def run(self, most: int) -> Found:
        for _ in range(2):  # the first request also pays for what an engine does once
            timed = await self._timed(_Plan(1, _SHORT, 0.0, "fit"), _TOKENS[0])
            self._step = timed.seconds / max(timed.lengths)
        for _ in range(_ROUNDS):
            if not await self._round(most):
                break
            most = max(row.timed.samples for row in self._rows)
        try:
            made = Calibration.made(
                self._engine.spec.name,
                datetime.now(UTC).isoformat(timespec="seconds"),
                self._machine,
                self._rows,
            )
        except Unidentified as cause:
            raise Unidentified(
                f"{len(self._rows)} requests in {self._seconds:g} s are not enough to calibrate "
                f"{self._engine.spec.name}: {cause} Allow more seconds. {' '.join(self._notes)}".rstrip()
            ) from None
        return Found(calibration=made, notes=tuple(self._notes), usage=self._usage)

    async def _round(self, most: int) -> bool:
        """One request of each kind, with as many samples as the engine takes; whether there is time for more."""
        for plan in _plans(most):
            tokens, guess = self._took.get(plan) or (self._tokens(plan), self._step * self._tokens(plan))
            if self._elapsed() + guess > self._seconds:
                if plan not in self._took:
                    self._notes.append(f"There was no time for {plan.samples} samples at once; allow more seconds.")
                return False
            try:
                timed = await self._timed(plan, tokens)
            except PromptTooLong:
                continue
            except TimeoutError:
                self._notes.append(f"A request for {plan.samples} samples had not ended when the time was up.")
                return False
            except EngineError as failure:
                if plan.samples == 1 and plan not in self._took:
                    raise
                self._notes.append(f"It failed with {plan.samples} samples at once: {failure}")
                return plan not in self._took
            if plan.part and plan not in self._took:
                self._step = timed.seconds / max(timed.lengths)
            self._took[plan] = tokens, timed.seconds
            self._rows.append(Row(timed=timed, use=plan.use))
            if self._on_row is not None:
                self._on_row(self._rows[-1])
        return True

    def _tokens(self, plan: _Plan) -> int:
        """How many each sample may write so that the request takes its share of the time."""
        if not plan.part:
            return 1
        fewest, longest = _TOKENS
        room = (self._engine.spec.context or 8 * longest) // 4
        fitting = min(self._seconds / _ROWS / max(self._step, 1e-9), longest, room)
        return max(fewest, min(int(plan.part * fitting), _WRITTEN // plan.samples))

    async def _timed(self, plan: _Plan, tokens: int) -> TimedRequest:
        """Raises TimeoutError where it does not end in time once there are measurements, else EngineError."""
        request = Request(
            messages=(Message(content=self._prompt(plan.words)),),
            n=plan.samples,
            max_tokens=tokens,
            temperature=1.0,
            seeds=tuple(self._rng.randrange(1 << 31) for _ in range(plan.samples)),
            address=("model", self._asked),
            problem="calibration",
        )
        progress = Progress(n=plan.samples)
        try:
            async with asyncio.timeout(max(self._seconds * _GRACE - self._elapsed(), 0.0)):
                await self._engine.bound(request)
                began = self._clock()
                await self._engine.generate(request, progress)
        except TimeoutError:
            if self._rows:
                raise
            raise EngineError(
                f"{self._engine.spec.name} did not answer within {self._seconds * _GRACE:.3g} s, so nothing was "
                "measured."
            ) from None
        finally:
            self._usage = self._usage + progress.usage()
        took = self._clock() - began
        for result in progress.results:
            if isinstance(result, EngineError):
                raise result
        if progress.most or not progress.prompt:
            raise UsageError(
                f"{self._engine.spec.name} does not tell how many tokens it reads and writes, so its speed cannot be "
                "given for them."
            )
        read = progress.prompt - progress.cached
        prompt = read if plan.samples == 1 else progress.prompt // max(progress.reads, 1)
        return TimedRequest(
            prompt=prompt,
            lengths=tuple(sorted((max(1, count) for count in progress.tokens), reverse=True)),
            seconds=float(f"{took:.6g}"),
            reread=max(0, read - prompt),
        )

    def _prompt(self, words: int) -> str:
        """A prompt that no cache has seen before, to which much can be written."""
        self._asked += 1
        chosen = " ".join(self._rng.choice(_WORDS) for _ in range(words))
        return f"{self._rng.randrange(10**6)} {chosen}. Write a long story in which all of this occurs."

    def _elapsed(self) -> float:
        return self._clock() - self._start


def _plans(most: int) -> Iterator[_Plan]:
    """The requests of a round, small ones first, so that a round that is cut off has both kinds."""
    yield _Plan(1, _SHORT, 1.0, "fit")
    for words, use in ((64, "fit"), (128, "check"), (256, "fit"), (_LONG, "fit")):
        yield _Plan(1, words, 0.0, use)  # type: ignore[arg-type]  # mypy widens the literal to str
    yield _Plan(1, 128, 0.6, "check")
    size = 2
    while size <= most:
        yield _Plan(size, _SHORT, 1.0, "fit")
        if size == 4:
            yield _Plan(size, _LONG, 0.5, "fit")
        if size == 8:
            yield _Plan(size, 256, 0.0, "fit")
        if size * 3 // 2 <= most:
            yield _Plan(size * 3 // 2, 64, 0.7, "check")
        size *= 2


def _machine(engine: Engine) -> dict[str, Any]:
    """Facts of this machine, which for a model behind a server is not the one that the model runs on."""
    kind = type(engine).__name__
    software = {"python": platform.python_version(), "outthink": version("outthink")}
    if kind == "OpenVINOEngine":
        with contextlib.suppress(PackageNotFoundError):
            software["openvino-genai"] = version("openvino-genai")
    return {
        "engine": kind,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        **software,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
