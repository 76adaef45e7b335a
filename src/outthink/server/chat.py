"""The doors of requests: /v1/chat/completions, /v1/quote, which takes the same, and those of other forms."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from outthink.server import problems, reply
from outthink.server.asked import Asked, parsed, read_chat, wrong_field
from outthink.server.bodies import Bodies
from outthink.server.body import MAX_AT_ONCE
from outthink.server.completions import CompletionsForm
from outthink.server.counted import Counting
from outthink.server.following import chosen, streamed
from outthink.server.forms import ChatForm, Form, dumped
from outthink.server.guard import OWNER
from outthink.server.job import Job
from outthink.server.preparing import Preparing
from outthink.server.quoting import quoted
from outthink.server.requests import Requests
from outthink.server.responses import ResponsesForm
from outthink.server.settings import Settings
from outthink.server.stream import Stream, work
from outthink.together import away


class Chat:
    """Requests of OpenAI's API, each a chat in some form.

    Args:
        judges: whether there are models of further roles.
    """

    def __init__(
        self,
        settings: Settings,
        bodies: Bodies,
        preparing: Preparing,
        requests: Requests,
        counting: Counting,
        *,
        judges: bool,
    ) -> None:
        self._settings = settings
        self._bodies = bodies
        self._preparing = preparing
        self._requests = requests
        self._counting = counting
        self._judges = judges

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """/v1/chat/completions."""
        return await self._answered(request, ChatForm)

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """/v1/responses."""
        return await self._answered(request, ResponsesForm)

    async def continue_prompts(self, request: web.Request) -> web.StreamResponse:
        """/v1/completions."""
        return await self._answered(request, CompletionsForm)

    async def quote(self, request: web.Request) -> web.Response:
        """What the reply may cost."""
        (asked,), _ = await self._read(request, ChatForm)
        with contextlib.closing(await self._preparing.job(asked, request.get(OWNER))) as job:
            return web.json_response(await quoted(job, judges=self._judges))

    async def _answered(self, request: web.Request, made: Callable[[dict[str, Any]], Form]) -> web.StreamResponse:
        """The reply, whole or as a stream."""
        form: Form | None = None
        jobs: list[Job] = []
        try:
            with self._counting.request(request) as count:
                several, form = await self._read(request, made)
                for asked in several:
                    jobs.append(await self._preparing.job(asked, request.get(OWNER)))
                    count.add(jobs[-1])
                if jobs[0].asked.stream:
                    stream = Stream(request, jobs[0], form)
                    response = await streamed(self._requests, jobs[0], stream, self._settings.keep_alive)
                else:
                    response = await self._whole(jobs, form)
                count.status = response.status
                return response
        except problems.RequestFailed as failure:
            param = failure.problem.param
            if form is None or param is None or param not in form.renamed:
                raise
            raise problems.RequestFailed(replace(failure.problem, param=form.renamed[param])) from None
        finally:
            for job in jobs:
                if job.work is None:  # it was not begun, because another one could not be
                    job.close()

    async def _read(self, request: web.Request, made: Callable[[dict[str, Any]], Form]) -> tuple[list[Asked], Form]:
        """What is asked for, and the form in which it is."""
        body = await self._bodies.read(request)

        def read() -> tuple[list[Asked], Form]:
            try:
                form = made(parsed(body))
            except ValidationError as failure:
                raise wrong_field(failure) from None
            asked = [read_chat(chat, len(body), request.headers, self._settings.sizes) for chat in form.chats]
            return asked, form

        return read() if len(body) <= MAX_AT_ONCE else await asyncio.to_thread(read)

    async def _whole(self, jobs: Sequence[Job], form: Form) -> web.Response:
        traces = await self._requests.traces(jobs)

        def told() -> tuple[str, dict[str, str]]:
            completions = []
            for job, trace in zip(jobs, traces, strict=True):
                answers = chosen(job, trace)
                more = reply.told(trace, answers, job.asked.choices, job.choice.named, job.load)
                completions.append(reply.completion(job.ident, job.created, job.asked.model, trace, answers, more))
            return dumped(form.whole(completions)), reply.headers(traces)

        text, headers = await away(sum(map(work, traces)), told)
        return web.Response(text=text, headers=headers, content_type="application/json")
