"""An OpenAI-compatible server that spends test-time compute behind the API: its parts, and which address is whose.

A request passes the guard, is read by its door, made a job (a strategy, a budget), waits for a place, and is solved
like any other problem; its trace becomes the reply.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from outthink.errors import UsageError
from outthink.models.engine import Engine
from outthink.resources.embedding import TextEmbedder
from outthink.rewards import Scorer
from outthink.sandbox.host import Sandbox
from outthink.server.accounts import Accounts
from outthink.server.bodies import Bodies
from outthink.server.broker import Channel
from outthink.server.callers import Callers
from outthink.server.chat import Chat
from outthink.server.counted import Counting
from outthink.server.door import Lines
from outthink.server.errors import BadRequest
from outthink.server.feedback import FeedbackDoor
from outthink.server.gate import Gate
from outthink.server.guard import VIEW, Guard
from outthink.server.idents import Idents
from outthink.server.keys import Keys
from outthink.server.metrics import CONTENT_TYPE, Metrics
from outthink.server.models import Served
from outthink.server.offers import Offers, entry
from outthink.server.openapi import document
from outthink.server.preparing import Preparing
from outthink.server.record import Recorder
from outthink.server.requests import Requests
from outthink.server.routing import ServerRules
from outthink.server.running import Running
from outthink.server.settings import Settings
from outthink.server.shadows import Shadows
from outthink.server.solving import Equipment
from outthink.server.telemetry import Telemetry
from outthink.together import close_all
from outthink.view.pages import Viewer

_logger = logging.getLogger("outthink.server")


class Service:
    """The server's parts, put together; `running` says what is at work, and `lines` who is connected.

    Args:
        served: the models; `roles` are engines of further roles, such as "judge".
        scorers: opened, by "verifier" and "prm".
        resources: further ones by name, as for `solve_async`; requests share them.
        keys: who may ask; None: everybody who reaches the server.
        accounts: makes what counts the spending of keys with limits; None: none of them may have limits.
        recorder: keeps traces; None: nobody does.
        viewer: a page that shows what was recorded to whoever may ask; None: there is none.
        telemetry: traces and metrics for OpenTelemetry; None: nobody is told.
        channel: to the other workers, which share this one's limits; None: there are none.
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
        accounts: Callable[[], Accounts] | None = None,
        recorder: Recorder | None = None,
        viewer: Viewer | None = None,
        telemetry: Telemetry | None = None,
        channel: Channel | None = None,
    ) -> None:
        self.settings = settings
        self.lines = Lines()
        self.running = Running()
        self.gate = Gate(settings.concurrency, settings.queue, sheds=settings.sheds, desk=channel)
        self.bodies = Bodies(settings.sizes, self.lines, settings.workers)
        self.metrics = Metrics(lambda: self.gate.waiting, lambda: self.gate.running)
        if recorder is not None:
            recorder.on_lost = self.metrics.lost.inc
        self._served = served
        self._recorder = recorder
        self._viewer = viewer
        self._telemetry = telemetry
        self._channel = channel
        self._equipment = Equipment(
            roles=roles or {}, scorers=scorers or {}, embedder=embedder, sandbox=sandbox, resources=resources or {}
        )
        there = [*(resources or {}), *([] if sandbox is None else ["sandbox"])]
        self._offers = Offers(policy, served, scorers or {}, there)
        self._callers = Callers(keys, accounts)
        self._guard = Guard(settings.host, settings.metrics_key, self._callers, self.lines, self.running, self.metrics)
        salt = secrets.token_bytes(32) if channel is None else channel.salt
        idents = Idents(secrets.token_bytes(32) if recorder is None else recorder.secret)
        preparing = Preparing(settings, policy, served, self.gate, salt, self._callers, idents)
        shared = self.gate, self.running, self._equipment, self.metrics
        shadows = None if recorder is None else Shadows(settings, recorder, preparing, *shared)
        requests = Requests(preparing, *shared, recorder, shadows)
        counting = Counting(self.metrics, telemetry, {role: engine.spec.name for role, engine in (roles or {}).items()})
        self._chat = Chat(settings, self.bodies, preparing, requests, counting, judges=bool(roles))
        self._feedback = FeedbackDoor(self.bodies, idents, recorder, self.metrics)

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._guard.guarded, self.bodies.freed])
        app.router.add_post("/v1/chat/completions", self._chat.complete)
        app.router.add_post("/v1/responses", self._chat.respond)
        app.router.add_post("/v1/completions", self._chat.continue_prompts)
        app.router.add_post("/v1/quote", self._chat.quote)
        app.router.add_post("/v1/feedback", self._feedback.take)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/openapi.json", self._openapi)
        if self._viewer is not None:
            self._viewer.serve_at(app, VIEW)
        app.on_response_prepare.append(self._guard.signed)
        return app

    def reload(self) -> None:
        """Read the keys again; those that run go on. A file that cannot be read changes nothing, and is logged."""
        try:
            self._callers.reload()
        except UsageError as failure:
            _logger.error("The keys stay as they are: %s", failure)
        else:
            _logger.info("The keys have been read again.")

    async def close(self) -> None:
        """End what still runs, keeping what it was charged, and free everything."""
        await self.running.close()
        await self._callers.close()
        shared = self._equipment
        await close_all([shared.reader, *shared.scorers.values(), shared.sandbox, self._served])
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.close)

    async def _models(self, request: web.Request) -> web.Response:
        return web.Response(body=await self._offers.listed(), content_type="application/json", charset="utf-8")

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if not await self._offers.has(name):
            raise BadRequest(
                "There is no such model; GET /v1/models lists what there is.", status=404, code="model_not_found"
            )
        return web.json_response(entry(name))

    async def _health(self, request: web.Request) -> web.Response:
        if self.running.draining:
            return web.json_response({"status": "stopping"}, status=503)
        if self._channel is None:
            return web.json_response({"status": "ok"})
        return web.json_response({"status": "ok", "workers": self._channel.workers})

    async def _ready(self, request: web.Request) -> web.Response:
        """Whether requests that come now can be answered."""
        if self.running.draining:
            return web.json_response({"status": "stopping"}, status=503)
        if not await self._served.reached():
            return web.json_response({"status": "the upstream is not there"}, status=503)
        return web.json_response({"status": "ready"})

    async def _metrics(self, request: web.Request) -> web.Response:
        text = await asyncio.to_thread(self.metrics.text)  # workers read each other's files for it
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(document())
