"""An OpenAI-compatible server that spends test-time compute behind the API.

A request is read, given a strategy and a budget, waits for a place, and is solved like any other problem; its trace
becomes the reply. The work belongs to the request: when the caller leaves, it is stopped, charged and recorded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from aiohttp import web

from outthink.answers.reader import Reader
from outthink.cost.caps import AnswerLengths, whole_samples
from outthink.driver import check_one_fits, solve_async
from outthink.errors import OutthinkError
from outthink.models.engine import Engine
from outthink.models.facts import Facts
from outthink.planner.auto import GENERAL, Auto
from outthink.planner.plan import Plan
from outthink.planner.quote import price_at, quote
from outthink.resources.embedding import TextEmbedder
from outthink.rewards import Scorer
from outthink.sandbox.host import Sandbox
from outthink.server import reply
from outthink.server.asked import Asked, Wish, read
from outthink.server.body import MAX_AT_ONCE, Intake, Sizes
from outthink.server.door import Lines
from outthink.server.errors import BadRequest
from outthink.server.gate import Busy, Gate
from outthink.server.job import (
    Job,
    prepared,
    worst_sample,
)
from outthink.server.keys import Keys
from outthink.server.metrics import CONTENT_TYPE, Metrics
from outthink.server.models import Served
from outthink.server.offers import Offers, entry
from outthink.server.openapi import document
from outthink.server.record import Recorder
from outthink.server.routing import ONE, Choice, ServerRules, choose, most_samples, split
from outthink.server.stream import Stream, dumped, patient, work
from outthink.strategies.comparing import Comparing
from outthink.together import away, close_all
from outthink.types import Address, Budget, Call, Candidate, Trace
from outthink.view.pages import Viewer

logger = logging.getLogger("outthink.server")

_VIEW = "/view"
_OPEN = ("/health", "/openapi.json", _VIEW, f"{_VIEW}/")  # for whoever reaches the server; the page alone shows nothing
_LOCAL = ("localhost", "127.0.0.1", "::1")
# work on an answer that takes algebra to be compared: a fifth of what a run may take, since callers share two workers;
# who is cut off by it is compared as text
_READING = 1.0
HURRY = 5.0  # seconds for what has been told to come to an end
_SLOW = 60.0  # seconds that a caller may take to send a body
IDLE = 75.0  # seconds for a head, and until an unused connection is closed; proxies keep theirs for a minute
_HELD = 256 << 20  # bytes of all bodies that are worked on or wait; read, they take a few times as much memory
_SHADOWS = 16  # at once
_SHADOW_PRIORITY = 100  # nobody waits for these
_OWNER = web.RequestKey("owner", str)
_BYTES = web.RequestKey("bytes", int)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the server runs.

    Args:
        max_tokens: of a sample where the request does not say, as far as the model's context allows; None: 4,096, or
            fewer where a budget has room for several samples then.
        timeout: seconds for a request that asks for no other deadline.
        concurrency, queue: requests at once, and requests that wait.
        sheds: requests spend less while most places are taken.
        connections: of callers at once, those included that ask for nothing.
        sizes: of a request's body.
        keep_alive: seconds between comments on a stream that has nothing to say.
        grace: seconds that requests get to end when the server is stopped.
        shadow: share of requests that are also answered by `alternative`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_tokens: int | None = None
    timeout: float = 300.0
    concurrency: int = 256
    queue: int = 1024
    sheds: bool = False
    connections: int = 4096
    sizes: Sizes = field(default_factory=Sizes)
    keep_alive: float = 5.0
    grace: float = 30.0
    shadow: float = 0.0
    alternative: str = ONE


class Service:
    """The server's parts, and what it does with each request.

    Args:
        served: the models; `roles` are engines of further roles, such as "judge".
        scorers: opened, by "verifier" and "prm".
        resources: further ones by name, as for `solve_async`; requests share them.
        keys: who may ask; None: everybody who reaches the server.
        recorder: keeps traces; None: nobody does.
        viewer: a page that shows what was recorded to whoever may ask; None: there is none.
    """

    def __init__(
        self,
        settings: Settings,
        policy: ServerRules,
        served: Served,
        *,
        roles: Mapping[str, Engine] | None = None,
        scorers: Mapping[str, Scorer] | None = None,
        embedder: TextEmbedder | None = None,
        sandbox: Sandbox | None = None,
        resources: Mapping[str, Any] | None = None,
        keys: Keys | None = None,
        recorder: Recorder | None = None,
        viewer: Viewer | None = None,
    ) -> None:
        self.settings = settings
        self._policy = policy
        self._served = served
        there = [*(resources or {}), *([] if sandbox is None else ["sandbox"])]
        self._offers = Offers(policy, served, scorers or {}, there)
        self._roles = dict(roles or {})
        self._scorers = dict(scorers or {})
        self._embedder = embedder
        self._sandbox = sandbox
        self._resources = dict(resources or {})
        self._keys = keys
        self._recorder = recorder
        self._viewer = viewer
        self._reader = Reader(_READING)  # one for all
        self._salt = secrets.token_bytes(32)
        self._gate = Gate(settings.concurrency, settings.queue, sheds=settings.sheds)
        self.metrics = Metrics(
            lambda: self._gate.waiting, lambda: self._gate.running, lambda: recorder.lost if recorder else 0
        )
        self._lengths: dict[str, AnswerLengths] = {}
        """Of the answers of each model."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._jobs: set[Job] = set()
        self._held = 0
        self.lines = Lines()
        self._shadows = 0
        self.draining = False
        self.quiet = asyncio.Event()
        """No request runs, or none is waited for any more."""
        self.quiet.set()

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._guarded])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        app.router.add_post("/v1/quote", self._quote)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/openapi.json", self._openapi)
        if self._viewer is not None:
            self._viewer.serve_at(app, _VIEW)
        app.on_response_prepare.append(_unsigned)
        return app

    def hurry(self) -> None:
        """Have the requests that still run answered with the best that there is."""
        self.quiet.set()
        for job in self._jobs:
            job.stop.set()

    async def close(self) -> None:
        """End what still runs, keeping what it was charged, and free everything."""
        self.hurry()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=HURRY)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await close_all([self._reader, *self._scorers.values(), self._sandbox, self._served])
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)

    # ------------------------------------------------------------------------------------------------ every request

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Who may ask, every failure as an error of OpenAI's API, and an end for callers who do not read."""
        try:
            if request.method != "POST":  # else as soon as its body is there
                self.lines.works(request.protocol)
            try:
                response = await self._answered(request, handler)
            finally:
                self._held -= request.get(_BYTES, 0)
            async with patient(request):
                await response.prepare(request)
                await response.write_eof()
            return response
        finally:
            self.lines.rests(request.protocol)

    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            self._admit(request)
            return await handler(request)
        except ConnectionError:
            raise
        except web.HTTPException as failure:
            if failure.status < 400:
                raise
            allowed = {"Allow": failure.headers["Allow"]} if "Allow" in failure.headers else {}
            return _failed(_http_problem(failure, request), allowed)
        except reply.RequestFailed as failure:
            return _failed(failure.problem)
        except Exception as failure:
            return _failed(self._problem(failure))

    def _admit(self, request: web.Request) -> None:
        """Raise where this caller may not ask this."""
        if self._keys is None:
            # a page in a browser may send requests to this machine under a name of its own
            name = _host(request)
            if name not in (*_LOCAL, self.settings.host.lower()) and not _is_address(name):
                raise BadRequest("The Host of the request is not this server's.", status=421, code="wrong_host")
        elif request.path not in _OPEN and not request.path.startswith(f"{_VIEW}/static/"):
            owner = self._keys.bearer(request.headers.getall("Authorization", []))
            if owner is None:
                raise reply.RequestFailed(
                    reply.APIError(
                        status=401,
                        sentence="The key is missing or wrong: send Authorization: Bearer KEY.",
                        kind="authentication_error",
                        code="invalid_api_key",
                    )
                )
            request[_OWNER] = owner
        if request.method == "POST" and self.draining:
            raise reply.RequestFailed(_STOPPING)

    def _problem(self, failure: BaseException) -> reply.APIError:
        """What a failure is to the caller; one of ours is logged, without what anybody has written."""
        if isinstance(failure, Busy):
            return reply.APIError(
                status=429, sentence=str(failure), kind="rate_limit_error", code="busy", retry=failure.retry
            )
        problem = reply.problem(failure)
        if problem.code == "internal":
            frames = traceback.extract_tb(failure.__traceback__)
            where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames[-6:]))
            logger.error("%s at %s", type(failure).__name__, where)
        return problem

    # ------------------------------------------------------------------------------------------------------ the rest

    async def _health(self, request: web.Request) -> web.Response:
        if self.draining:
            return web.json_response({"status": "stopping"}, status=503)
        return web.json_response({"status": "ok"})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(document())

    async def _models(self, request: web.Request) -> web.Response:
        return web.Response(body=await self._offers.listed(), content_type="application/json", charset="utf-8")

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if not await self._offers.has(name):
            raise BadRequest(
                "There is no such model; GET /v1/models lists what there is.", status=404, code="model_not_found"
            )
        return web.json_response(entry(name))

    async def _quote(self, request: web.Request) -> web.Response:
        """What a request may cost, and with a plan what it is expected to cost and gain; nothing is spent."""
        job = await self._job(await self._asked(request), request.get(_OWNER))
        worst = await worst_sample(job.engine, job.problem, job.sampling)
        check_one_fits(job.budget, worst, job.sampling.cap)
        strategy = job.choice.strategy
        strategy = getattr(strategy, "strategy", strategy)
        n = most_samples(job.choice)
        limits = {unit: limit for unit, limit in job.budget.limits.items() if unit != "seconds"}
        most = {unit: amount * n for unit, amount in worst.items()} if n else {}
        notes = []
        if not set(most) | set(limits):
            notes.append(f"how much {job.choice.named['name']} uses is not known before; a budget would limit it")
        if job.cap is not None and (told := job.cap.sentence()) is not None:
            notes.append(told)
        chooses = isinstance(job.choice.strategy, Comparing) and self._roles  # among replies that all differ
        if n and (job.choice.scorers or chooses):
            notes.append("what verifiers use is limited by the budget only")
        expected = None
        if isinstance(strategy, Auto) and not strategy.plan:
            notes.append(GENERAL)
        if isinstance(strategy, Auto) and strategy.plan:
            plan = Plan.open(strategy.plan)
            limit = limits.get(plan.unit)
            budget = Budget({} if limit is None else {plan.unit: limit})
            price = price_at(plan, budget, strategy.value_of_correct)
            price = plan.price(strategy.mean_cost) if strategy.mean_cost else price
            expected = quote(plan, price, limit=limit).plain()
        shown = {
            "object": "outthink.quote",
            "model": job.name,
            "strategy": dict(job.choice.named),
            "sample": worst,
            "most": {unit: min(most.get(unit, math.inf), limits.get(unit, math.inf)) for unit in {**most, **limits}},
            "expected": expected,
            "notes": notes,
        }
        return web.json_response(shown)

    # --------------------------------------------------------------------------------------------------------- chats

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        began = asyncio.get_running_loop().time()
        job: Job | None = None
        status = 499
        try:
            job = await self._job(await self._asked(request), request.get(_OWNER))
            response = await (self._stream(request, job) if job.asked.stream else self._whole(job))
            status = response.status
            return response
        except (asyncio.CancelledError, ConnectionError):
            self.metrics.disconnects.inc()
            raise
        except reply.RequestFailed as failure:
            status = failure.problem.status
            raise
        except Exception as failure:
            problem = self._problem(failure)
            status = problem.status
            raise reply.RequestFailed(problem) from None
        finally:
            strategy = "-" if job is None else str(job.choice.named["name"])
            seconds = asyncio.get_running_loop().time() - began
            self.metrics.requests.labels(strategy, str(status)).inc()
            self.metrics.latency.labels(strategy).observe(seconds)
            ident, model = ("-", "-") if job is None else (job.ident, job.name)
            logger.info("%s %s %s %s %.3f s", ident, model, strategy, status, seconds)

    async def _asked(self, request: web.Request) -> Asked:
        """What is asked, once all of it is there; its bytes count as held until the request is answered."""
        if request.content_type != "application/json":  # what browsers send unasked is refused
            raise BadRequest(
                "Send the body with Content-Type: application/json.", status=415, code="unsupported_media_type"
            )
        intake = Intake(self.settings.sizes)
        request[_BYTES] = 0
        try:
            async with asyncio.timeout(_SLOW):
                async for part in request.content.iter_any():
                    self._held += len(part)
                    request[_BYTES] += len(part)
                    intake.add(part)
                    if self._held > _HELD:
                        raise Busy("The server holds too many large requests; try again later.", 1.0)
        except TimeoutError:
            slow = f"The body has not come within {_SLOW:g} seconds."
            raise BadRequest(slow, status=408, code="too_slow") from None
        except web.RequestPayloadError:
            raise BadRequest("The body is not encoded as its head says.", code="invalid_body") from None
        self.lines.works(request.protocol)
        body = intake.whole()
        if len(body) <= MAX_AT_ONCE:
            return read(body, request.headers, self.settings.sizes)
        return await asyncio.to_thread(read, body, request.headers, self.settings.sizes)

    async def _job(self, asked: Asked, owner: str | None) -> Job:
        """What is to be done; raises BadRequest or UsageError where it cannot be."""
        self._gate.check()  # before the upstream is asked for anything
        deadline = asyncio.get_running_loop().time() + self._seconds(asked)
        try:
            async with asyncio.timeout_at(deadline):
                name, named = split(asked.model, await self._served.names())
                load = self._gate.load()
                choice = choose(asked, named, self._policy, load)
                engine = await self._served.engine(name)
                salt = None if owner is None else self._salted(owner)
                job = await self._prepared(asked, name, engine, choice, load, salt)
        except TimeoutError:
            raise reply.RequestFailed(_LATE) from None
        job.deadline, job.owner = deadline, owner
        return job

    def _seconds(self, asked: Asked) -> float:
        """How long the request may take: the least of what the caller wants and the operator allows."""
        limits = [budget.limits for budget in (asked.budget, self._policy.budget) if budget is not None]
        return min((limit["seconds"] for limit in limits if "seconds" in limit), default=self.settings.timeout)

    def _prepared(
        self, asked: Asked, name: str, engine: Engine, choice: Choice, load: float, salt: str | None
    ) -> Awaitable[Job]:
        return prepared(
            asked,
            name,
            engine,
            choice,
            load,
            max_tokens=self.settings.max_tokens,
            seconds=self._seconds(asked),
            salt=salt,
            usual=self._lengths[name].usual() if name in self._lengths else None,
        )

    def _salted(self, owner: str) -> str:
        return blake2b(owner.encode(), key=self._salt, digest_size=16).hexdigest()

    def _start(self, job: Job, on_event: Callable[[tuple[Any, ...]], None] | None) -> asyncio.Task[Trace]:
        """Begin the work of a request; it ends by itself, also when nobody waits for it any more."""
        task = asyncio.create_task(self._work(job, on_event))
        self._tasks.add(task)
        self._jobs.add(job)
        self.quiet.clear()

        def done(ended: asyncio.Task[Trace]) -> None:
            self._tasks.discard(ended)
            self._jobs.discard(job)
            if not self._jobs:
                self.quiet.set()
            if not ended.cancelled():
                ended.exception()  # looked at, so that nobody complains where the caller has left

        task.add_done_callback(done)
        return task

    async def _work(self, job: Job, on_event: Callable[[tuple[Any, ...]], None] | None) -> Trace:
        loop = asyncio.get_running_loop()
        came = loop.time()
        try:
            async with self._gate.place(job.deadline - came):
                self.metrics.queued.observe(loop.time() - came)
                job.begun = True
                trace = await self._solve(job, max(job.deadline - loop.time(), 1e-3), on_event)
        except OutthinkError as failure:
            if failure.trace is not None:
                self._record(job, _renamed(job, failure.trace))  # it holds the bill
            raise
        self._record(job, trace)
        if job.asked.max_tokens is None:  # what a caller's own cap cuts off says nothing of others' answers
            self._lengths.setdefault(job.name, AnswerLengths()).add(trace.candidates)
        if trace.stopped != "cancelled":
            self._shadow(job)
        return trace

    def _record(self, job: Job, trace: Trace) -> None:
        if self._recorder is not None:
            self._recorder.served(trace, [message.sent or {} for message in job.asked.messages], job.owner)

    async def _solve(
        self, job: Job, seconds: float, on_event: Callable[[tuple[Any, ...]], None] | None = None
    ) -> Trace:
        def listen(address: Address, piece: Mapping[str, Any]) -> None:
            said = (piece.get("delta") or piece.get("message") or {}).get("content")
            if said:
                job.heard.setdefault(address, []).append(said)
            if on_event is not None and job.choice.single:
                on_event(("piece", address, piece))

        def on_call(call: Call) -> None:
            self.metrics.call(call)
            if on_event is not None and job.asked.wish.progress:
                on_event(("call", call))

        def on_fixed(segments: Sequence[Candidate]) -> None:
            if on_event is not None and not job.choice.single:  # then every sample is passed on as it is
                on_event(("answer", segments))

        # an embedded engine has to turn tokens into text for those who listen, so only where it is wanted
        listens = job.engine.spec.fields is None or job.choice.single
        trace = await solve_async(
            job.problem,
            job.choice.strategy,
            model=job.engine,
            models=self._roles,
            verifier=self._scorers["verifier"] if "verifier" in job.choice.scorers else None,
            prm=self._scorers["prm"] if "prm" in job.choice.scorers else None,
            embedder=self._embedder,
            budget=replace(job.budget, limits={**job.budget.limits, "seconds": seconds}),
            sampling=job.sampling,
            seed=secrets.randbits(31) if job.asked.seed is None else job.asked.seed & ((1 << 31) - 1),
            reader=self._reader,
            sandbox=self._sandbox,
            resources=self._resources,
            stop=job.stop,
            on_call=on_call,
            listen=listen if listens else None,
            on_fixed=on_fixed,
        )
        return _renamed(job, trace)

    def _leave(self, job: Job, task: asyncio.Task[Trace]) -> None:
        """The caller has left: stop the work, so that what it has cost is still counted."""
        if job.begun:
            job.stop.set()
        else:
            task.cancel()

    async def _whole(self, job: Job) -> web.Response:
        task = self._start(job, None)
        try:
            trace = await asyncio.shield(task)
        except asyncio.CancelledError:
            self._leave(job, task)
            raise

        def told() -> tuple[str, dict[str, str]]:
            answers = self._answers(job, trace)
            more = reply.told(trace, answers, job.asked.choices, job.choice.named, job.load)
            body = reply.completion(job.ident, job.created, job.asked.model, trace, answers, more)
            return dumped(body), reply.headers(trace)

        text, headers = await away(work(trace), told)
        return web.Response(text=text, headers=headers, content_type="application/json")

    def _answers(self, job: Job, trace: Trace) -> list[reply.Answer]:
        """What the caller gets; raises where there is nothing at all."""
        answers = reply.each(trace) if job.choice.single and job.asked.choices > 1 else []
        answers = answers or reply.answers(trace, job.asked.choices, job.partial())
        if answers:
            return answers
        if trace.stopped == "deadline":
            raise reply.RequestFailed(_LATE)
        if trace.stopped == "cancelled":
            raise reply.RequestFailed(_STOPPING)
        empty = {"role": "assistant", "content": ""}
        return [reply.Answer(message=empty, finish="length" if trace.stopped != "finished" else "stop", visible=0)]

    # -------------------------------------------------------------------------------------------------------- streams

    async def _stream(self, request: web.Request, job: Job) -> web.StreamResponse:
        events: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        task = self._start(job, events.put_nowait)
        task.add_done_callback(lambda _: events.put_nowait(("end",)))
        stream = Stream(request, job)
        try:
            while True:
                try:
                    async with asyncio.timeout(self.settings.keep_alive):
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
                ended = await away(work(trace), lambda: stream.end(trace, self._answers(job, trace)))
            except Exception as failure:
                if not stream.begun:
                    raise
                await stream.fail(
                    failure.problem if isinstance(failure, reply.RequestFailed) else self._problem(failure)
                )
                return stream.response
            await stream.finish(ended)
        except BaseException:
            self._leave(job, task)
            raise
        return stream.response

    # -------------------------------------------------------------------------------------------------------- shadows

    def _shadow(self, job: Job) -> None:
        """For a share of the requests, find out in the background what the other strategy would have answered."""
        if self._recorder is None or int(job.ident[-8:], 16) >= self.settings.shadow * (1 << 32) or self.draining:
            return
        if job.choice.named["name"] == self.settings.alternative:
            return  # it would be compared with itself
        if not self._gate.idle or self._shadows >= _SHADOWS:
            return  # callers go first
        self._shadows += 1
        task = asyncio.create_task(self._shadowed(job, self.settings.alternative))
        self._tasks.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            self._shadows -= 1
            self._tasks.discard(ended)

        task.add_done_callback(done)

    async def _shadowed(self, job: Job, other: str) -> None:
        assert self._recorder is not None
        asked = replace(job.asked, wish=Wish(strategy=other, answer=job.asked.wish.answer), effort=None)
        shadow: Job | None = None
        try:
            choice = choose(asked, None, self._policy)
            shadow = await self._prepared(asked, job.name, job.engine, choice, 1.0, None)
            shadow.ident = job.ident
            facts: Facts | None = getattr(job.engine, "facts", None)
            fields = {**shadow.problem.fields}
            if "cache_salt" in job.problem.fields:
                fields["cache_salt"] = job.problem.fields["cache_salt"]
            if facts is not None and facts.priority:
                fields["priority"] = _SHADOW_PRIORITY
            shadow.problem = replace(shadow.problem, fields=fields)
            self._jobs.add(shadow)
            self.metrics.shadows.inc()
            trace = await self._solve(shadow, shadow.seconds)
        except Exception as failure:
            left: Trace | None = getattr(failure, "trace", None)
            if shadow is None or left is None:
                self._problem(failure)
                return
            trace = _renamed(shadow, left)
        finally:
            if shadow is not None:
                self._jobs.discard(shadow)
                if not self._jobs:
                    self.quiet.set()
        self._recorder.shadowed(trace, job.owner)


def _renamed(job: Job, trace: Trace) -> Trace:
    """Under the id that the caller is told, with the strategy as the caller knows it."""
    notes = trace.notes
    if job.cap is not None:
        told = (job.cap.sentence(), job.cap.cut_off(whole_samples(trace.candidates)))
        notes = (*notes, *(one for one in told if one is not None))
    return replace(trace, problem=job.ident, strategy=job.choice.named, notes=notes)


_LATE = reply.APIError(
    status=504,
    sentence="The deadline has passed before anything was written; allow more seconds.",
    kind="server_error",
    code="deadline",
)
_STOPPING = reply.APIError(
    status=503, sentence="The server is being stopped; ask another one.", kind="server_error", code="busy", retry=1.0
)


def _failed(problem: reply.APIError, headers: Mapping[str, str] | None = None) -> web.Response:
    told = {**problem.headers(), **(headers or {})}
    if problem.status == 401:
        told["WWW-Authenticate"] = "Bearer"
    return web.json_response(problem.body(), status=problem.status, headers=told)


def _http_problem(failure: web.HTTPException, request: web.Request) -> reply.APIError:
    sentence = {
        404: "There is nothing at this address; chats are at /v1/chat/completions.",
        405: f"This address does not take {request.method}.",
    }.get(failure.status, failure.reason)
    code = {404: "not_found", 405: "method_not_allowed"}.get(failure.status)
    return reply.APIError(status=failure.status, sentence=sentence, kind="invalid_request_error", code=code)


async def _unsigned(request: web.Request, response: web.StreamResponse) -> None:
    """Which versions serve is nobody's business."""
    response.headers["Server"] = "outthink"


def _host(request: web.Request) -> str:
    """The name that the request calls this server by, without the port; empty where it is none."""
    try:
        return (request.url.host or "").lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
