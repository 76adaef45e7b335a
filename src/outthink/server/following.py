"""Passes on what happens while a request is worked on, and tells what its caller gets in the end; for every door."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from outthink.server import problems, reply
from outthink.server.job import Job
from outthink.server.requests import Requests
from outthink.server.stream import Stream, work
from outthink.together import away
from outthink.types import Trace


def chosen(job: Job, trace: Trace) -> list[reply.Answer]:
    """What the caller gets; raises where there is nothing at all."""
    answers = reply.each(trace) if job.choice.single and job.asked.choices > 1 else []
    answers = answers or reply.answers(trace, job.asked.choices, job.partial())
    if answers:
        return answers
    if job.purse is not None and job.purse.failure is not None:
        raise job.purse.failure
    if trace.stopped == "deadline":
        raise problems.RequestFailed(problems.LATE)
    if trace.stopped == "cancelled":
        raise problems.RequestFailed(problems.STOPPING)
    empty = {"role": "assistant", "content": ""}
    return [reply.Answer(message=empty, finish="length" if trace.stopped != "finished" else "stop", visible=0)]


async def streamed(requests: Requests, job: Job, stream: Stream, keep_alive: float) -> web.StreamResponse:
    """Do the job, and write to a stream what happens; after so many seconds without anything, that it still lives."""
    events: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
    task = requests.start(job, events.put_nowait)
    task.add_done_callback(lambda _: events.put_nowait(("end",)))
    try:
        while True:
            try:
                async with asyncio.timeout(keep_alive):
                    event = await events.get()
            except TimeoutError:
                await stream.alive()
                continue
            if event[0] == "end":
                break
            if event[0] == "piece":
                await stream.piece(event[1], event[2])
            elif event[0] == "answer":
                await stream.answer(reply.answer(event[1]))
            else:
                await stream.progress(event[1])
        try:
            trace = task.result()
            ended = await away(work(trace), lambda: stream.end(trace, chosen(job, trace)))
        except Exception as failure:
            if not stream.begun:
                raise
            await stream.fail(problems.told(failure))
            return stream.response
        await stream.finish(ended)
    except BaseException:
        requests.leave(job, task)
        raise
    return stream.response
