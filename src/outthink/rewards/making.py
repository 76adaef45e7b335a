"""Scorers from names, files, addresses and functions."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import hashlib
import inspect
import re
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import parse_qsl, unquote

from outthink.errors import UnknownName, UsageError
from outthink.meter import Meter
from outthink.names import load, make, make_own, name_of
from outthink.rewards import RENAMED, SCORERS, Path, Scorer
from outthink.together import close_all, together
from outthink.types import Address, Problem

ScoreFunction = Callable[[str, str], float | Awaitable[float | None] | None]
"""(question, solution) -> score, or None for no opinion; sync or async."""


_FILES = re.compile(r"[^?=&]+\.json(?=&|$)")


def describe(given: Any) -> str | None:
    """A name of a scorer or embedder that is the same in the next process; None of None."""
    if given is None:
        return None
    if isinstance(given, Opened):
        return given.name
    if isinstance(given, str):  # a probe that was trained again is another one, also inside another scorer
        probes = [_contents(file) for file in _FILES.findall(unquote(given))]
        return given if not probes else f"{given} {hashlib.blake2b(b''.join(probes), digest_size=4).hexdigest()}"
    if dataclasses.is_dataclass(given):
        return repr(given)
    return name_of(given)


def _contents(path: str) -> bytes:
    try:
        return FilePath(path).read_bytes()
    except OSError:
        return b""  # whoever opens it says why it cannot


class FunctionScorer:
    """Any Python callable (question, solution) -> score, sync (run in a thread) or async, as a scorer.

    It gets all that the model wrote: what it makes of thoughts is its own matter.
    """

    thoughts = True

    def __init__(self, function: ScoreFunction, role: str = "verifier") -> None:
        self._function = function
        self._role = role

    async def score(self, problem: Problem, paths: Sequence[Path], *, meter: Meter) -> list[float | None]:
        """Calls run concurrently; one that raises has no score and is a failed call in the trace."""
        return await together(
            *(self._one(problem, p, meter, (*meter.next_request((self._role, *p[-1].address)), 0)) for p in paths)
        )

    async def _one(self, problem: Problem, steps: Path, meter: Meter, address: Address) -> float | None:
        async with meter.work("verify", self._role, address) as work:
            if work is None:
                return None
            solution = "".join(step.text for step in steps)
            function: Callable[[str, str], Any] = self._function
            try:
                if inspect.iscoroutinefunction(function):
                    result: Any = function(problem.question, solution)
                else:
                    result = await _in_thread(function, problem.question, solution)
                score = await result if inspect.isawaitable(result) else result
                return None if score is None else float(score)
            except (Exception, SystemExit) as failure:  # the user's code may raise anything; the other scores stand
                work.failed, work.error = 1, f"{type(failure).__name__}: {failure}"
        return None


async def _in_thread(function: Callable[..., Any], *arguments: str) -> Any:
    """Call it in a thread of its own, for which neither a deadline nor the program's end waits if it hangs.

    (A thread of asyncio's pool would hold up everything else that needs the pool, and the end of `asyncio.run`.)
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def tell(result: Any, failure: BaseException | None) -> None:
        if not done.done():
            done.set_result((result, failure))

    def work() -> None:
        try:
            outcome: tuple[Any, BaseException | None] = function(*arguments), None
        except BaseException as failure:
            outcome = None, failure
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, *outcome)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name="outthink-score", daemon=True).start()
    result, failure = await done
    if isinstance(failure, StopIteration):
        raise RuntimeError("StopIteration") from failure
    if failure is not None:
        raise failure
    return result


def make_scorer(given: str | ScoreFunction | Scorer, *, process: bool = False) -> Scorer:
    """A scorer from text, a callable (question, solution) -> score, or a scorer itself.

    Args:
        given: text is a name of SCORERS, which may carry options as in "judge?votes=5"; the address of a server, as
            in "http://HOST:8001/score#MODEL" (see `rewards.remote`); a trained probe, "FILE.json" (see
            `rewards.probe`); or "module:function", or
            "module:Class" with options.
        process: it will score steps rather than whole answers.

    Raises UnknownName, and UsageError where an option is out of range or the scorer cannot score steps.
    """
    if isinstance(given, str):
        if given.startswith(("http://", "https://")):
            from outthink.rewards.remote import RemoteScorer  # here, because its HTTP client is slow to import

            return RemoteScorer(given, process=process)
        name, _, options = given.partition("?")
        if name in SCORERS:
            return _named(name, dict(parse_qsl(options, keep_blank_values=True)), process)
        if given.endswith(".json"):
            from outthink.rewards.trained import TrainedPRM  # here, because importing numpy is slow

            return TrainedPRM.open(given)
        if ":" not in given:
            known = [*SCORERS, "module:function", "FILE.json", "http://HOST/score"]
            raise UnknownName("verifier", name, known, now=RENAMED.get(name))
        given = make_own(name, dict(parse_qsl(options, keep_blank_values=True)), functions=False)
    if hasattr(given, "score"):
        return given
    if callable(given):
        return FunctionScorer(given, "prm" if process else "verifier")
    raise UsageError(f"A verifier is a name, a callable (question, solution) -> score, or a scorer, not {given!r}.")


def _named(name: str, options: dict[str, str], process: bool) -> Scorer:
    made = load(SCORERS[name])
    steps = any(field.name == "process" for field in dataclasses.fields(made))
    if process and not steps:
        raise UsageError(f"{name} scores whole answers and not steps: use it as the verifier, and another PRM.")
    scorer: Scorer = make(made, options, name=name, what="option", fixed={"process": process} if steps else None)
    return scorer


class Opened:
    """A scorer that serves many problems until it is closed.

    Where a plan or a trace wants to know what it is, it is what it was opened by.

    Args:
        given, process: as `make_scorer` takes them.
    """

    def __init__(self, given: Any, *, process: bool = False) -> None:
        self.name = describe(given)
        self._scorer = make_scorer(given, process=process)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)

    async def close(self) -> None:
        """Free what it holds."""
        await close_scorer(self._scorer)


async def close_scorer(scorer: Scorer) -> None:
    """Free what a scorer holds, such as connections; most hold nothing."""
    await close_all([scorer])
