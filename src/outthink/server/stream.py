"""A reply that is written piece by piece, and the patience with callers who do not read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from outthink.server import reply
from outthink.server.forms import Form
from outthink.server.job import Job
from outthink.server.problems import APIError
from outthink.together import away
from outthink.types import Address, Call, Trace

_STALLED = 60.0  # seconds after which a caller who does not read has left


class Stream:
    """Server-sent events of one reply; their head comes with the first, so that errors before that have a status."""

    def __init__(self, request: web.Request, job: Job, form: Form) -> None:
        self._request = request
        self._form = form
        self._job = job
        self._opened: set[int] = set()
        self._filtered: set[int] = set()
        self.begun = False
        self.response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",  # proxies would hold the events back
                "x-outthink-trace": job.ident,
            }
        )

    async def alive(self) -> None:
        """Something for those who would give up on silence; clients skip it."""
        await self._send(b": working\n\n")

    async def piece(self, address: Address, piece: Mapping[str, Any]) -> None:
        """A piece of an answer that is passed on as it is written."""
        place = address[-1]
        if not isinstance(place, int) or place >= self._job.asked.choices:
            return
        if piece.get("finish_reason") == "content_filter":
            self._filtered.add(place)
        choice = reply.passed_on(place, piece)
        if choice is None:
            return
        if place not in self._opened:
            self._opened.add(place)
            choice["delta"].setdefault("role", "assistant")
        await self._send(self._event([choice]))

    async def answer(self, one: reply.Answer) -> None:
        """The whole of an answer that is known for good, while other work goes on; how it ended comes at the end."""
        if one.place in self._opened:
            return
        self._opened.add(one.place)
        size = len(one.message.get("content") or "") // 10

        def events() -> bytes:
            return b"".join(self._event([choice]) for choice in list(reply.pieces(one))[:-1])

        await self._send(await away(size, events))

    async def progress(self, call: Call) -> None:
        """What has just been done, as a chunk without choices."""
        done = {
            "kind": call.kind,
            "samples": call.n - call.failed,
            "tokens": call.charged.tokens,
            "seen": call.seen.tokens,
            "at": call.ended,
        }
        await self._send(self._event([], outthink={"progress": done}))

    def end(self, trace: Trace, answers: Sequence[reply.Answer]) -> bytes:
        """The events that tell what has not been passed on yet, how it ended, and what it cost."""
        job, parts = self._job, []
        for answer in answers:
            choices = list(reply.pieces(answer))
            parts += choices[-1:] if answer.place in self._opened else choices
        # of a sample that has failed on its way what was passed on stays, cut off
        failed = self._opened - {answer.place for answer in answers}
        parts += (
            reply.ended(place, "content_filter" if place in self._filtered else "length") for place in sorted(failed)
        )
        more = reply.told(trace, answers, job.asked.choices, job.choice.named, job.load)
        events = [self._event([choice]) for choice in parts[:-1]]
        if job.asked.include_usage:
            events.append(self._event(parts[-1:]))
            events.append(self._event([], usage=reply.usage(trace, answers), outthink=more))
        else:
            events.append(self._event(parts[-1:], outthink=more))
        return b"".join([*events, self._form.end()])

    async def finish(self, end: bytes) -> None:
        """Send the end."""
        await self._send(end)

    async def fail(self, problem: APIError) -> None:
        """An error after the head was sent."""
        await self._send(self._form.fail(problem))

    def _event(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
        job = self._job
        if job.asked.include_usage:
            more = {"usage": None, **more}
        return self._form.chunk(reply.chunk(job.ident, job.created, job.asked.model, choices, **more))

    async def _send(self, data: bytes) -> None:
        if not data:
            return
        async with patient(self._request):
            if not self.begun:
                self.begun = True
                await self.response.prepare(self._request)
            await self.response.write(data)


@contextlib.asynccontextmanager
async def patient(request: web.Request) -> AsyncIterator[None]:
    """Time for the caller to read what is sent; the connection of one who does not is closed."""
    try:
        async with asyncio.timeout(_STALLED):
            yield
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the caller does not read") from None


def work(trace: Trace) -> int:
    """About how many microseconds it takes to tell what is in a trace: its calls are gone through several times."""
    return (
        20 * (len(trace.calls) + len(trace.candidates))
        + max((len(one.text) for one in trace.candidates), default=0) // 1000
    )
