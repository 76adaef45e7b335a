"""The door /v1/chat/completions, and /v1/quote, which takes the same requests."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from outthink.server import reply
from outthink.server.asked import read
from outthink.server.bodies import Bodies
from outthink.server.body import MAX_AT_ONCE
from outthink.server.counted import counted
from outthink.server.following import chosen, streamed
from outthink.server.guard import OWNER
from outthink.server.job import Job
from outthink.server.metrics import Metrics
from outthink.server.preparing import Preparing
from outthink.server.quoting import quoted
from outthink.server.requests import Requests
from outthink.server.settings import Settings
from outthink.server.stream import Stream, dumped, work
from outthink.together import away


class Chat:
    """Requests of OpenAI's chat API.

    Args:
        judges: whether there are models of further roles.
    """

    def __init__(
        self,
        settings: Settings,
        bodies: Bodies,
        preparing: Preparing,
        requests: Requests,
        metrics: Metrics,
        *,
        judges: bool,
    ) -> None:
        self._settings = settings
        self._bodies = bodies
        self._preparing = preparing
        self._requests = requests
        self._metrics = metrics
        self._judges = judges

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """The reply, whole or as a stream."""
        with counted(self._metrics) as count:
            job = count.job = await self._job(request)
            if job.asked.stream:
                stream = Stream(request, job)
                response = await streamed(self._requests, job, stream, self._settings.keep_alive)
            else:
                response = await self._whole(job)
            count.status = response.status
            return response

    async def quote(self, request: web.Request) -> web.Response:
        """What the reply may cost."""
        with contextlib.closing(await self._job(request)) as job:
            return web.json_response(await quoted(job, judges=self._judges))

    async def _job(self, request: web.Request) -> Job:
        body = await self._bodies.read(request)
        sizes = self._settings.sizes
        if len(body) <= MAX_AT_ONCE:
            asked = read(body, request.headers, sizes)
        else:
            asked = await asyncio.to_thread(read, body, request.headers, sizes)
        return await self._preparing.job(asked, request.get(OWNER))

    async def _whole(self, job: Job) -> web.Response:
        trace = await self._requests.trace(job)

        def told() -> tuple[str, dict[str, str]]:
            answers = chosen(job, trace)
            more = reply.told(trace, answers, job.asked.choices, job.choice.named, job.load)
            body = reply.completion(job.ident, job.created, job.asked.model, trace, answers, more)
            return dumped(body), reply.headers(trace)

        text, headers = await away(work(trace), told)
        return web.Response(text=text, headers=headers, content_type="application/json")
