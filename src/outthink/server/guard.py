"""Stands before every request: who may ask, failures as errors of OpenAI's API, an end for callers who never read."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

from outthink.server import problems
from outthink.server.callers import Callers
from outthink.server.door import Lines
from outthink.server.errors import BadRequest
from outthink.server.metrics import Metrics
from outthink.server.running import Running
from outthink.server.stream import patient

VIEW = "/view"
OWNER = web.RequestKey("owner", str)
"""The name of the caller's key; not there where no keys are asked for."""

IDENT = web.RequestKey("ident", str)
"""The request's id: the caller's own where it is one, else a new one."""

_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)
_OPEN = (
    "/health",
    "/ready",
    "/openapi.json",
    VIEW,
    f"{VIEW}/",
)  # for whoever reaches the server; the page alone shows nothing
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Lets requests through.

    Args:
        host: that the server listens on.
        metrics_key: the name of the key for /metrics.
        lines: told which connections are at work.
    """

    def __init__(
        self, host: str, metrics_key: str, callers: Callers, lines: Lines, running: Running, metrics: Metrics
    ) -> None:
        self._host = host
        self._metrics_key = metrics_key
        self._callers = callers
        self._lines = lines
        self._running = running
        self._metrics = metrics

    @web.middleware
    async def guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer a request, or say what is wrong with it."""
        given = request.headers.get("X-Request-Id", "")
        request[IDENT] = given if _SANE.fullmatch(given) else f"req-{secrets.token_hex(12)}"
        try:
            if request.method != "POST":  # else as soon as its body is there
                self._lines.works(request.protocol)
            response = await self._answered(request, handler)
            if OWNER in request and request.method == "POST":
                self._metrics.answered(request[OWNER], response.status)
            if self._running.leaving:
                response.force_close()
            async with patient(request):
                await response.prepare(request)
                await response.write_eof()
            return response
        finally:
            self._lines.rests(request.protocol)

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
            return problems.response(_http_problem(failure, request), allowed)
        except Exception as failure:
            return problems.response(problems.told(failure))

    def _admit(self, request: web.Request) -> None:
        """Raise where this caller may not ask this."""
        if self._callers.keys is None:
            # a page in a browser may send requests to this machine under a name of its own
            name = _host(request)
            if name not in (*_LOCAL, self._host.lower()) and not _is_address(name):
                raise BadRequest("The Host of the request is not this server's.", status=421, code="wrong_host")
        elif request.path not in _OPEN and not request.path.startswith(f"{VIEW}/static/"):
            owner = self._callers.bearer(request.headers.getall("Authorization", []))
            if owner is None:
                raise problems.RequestFailed(
                    problems.APIError(
                        status=401,
                        sentence="The key is missing or wrong: send Authorization: Bearer KEY.",
                        kind="authentication_error",
                        code="invalid_api_key",
                    )
                )
            if (owner == self._metrics_key) != (request.path == "/metrics"):
                raise BadRequest(
                    f"The key {self._metrics_key} reads /metrics and nothing else, and no other key reads it.",
                    status=403,
                    code="wrong_key",
                )
            request[OWNER] = owner
        if request.method == "POST" and self._running.draining:
            raise problems.RequestFailed(problems.STOPPING)

    async def signed(self, request: web.Request, response: web.StreamResponse) -> None:
        """Which request it was, and how the limits of its key stand; which versions serve is nobody's business."""
        response.headers["Server"] = "outthink"
        if IDENT in request:
            response.headers["x-request-id"] = request[IDENT]
        if OWNER in request and request.method == "POST":
            response.headers.update(self._callers.headers(request[OWNER]))


def _http_problem(failure: web.HTTPException, request: web.Request) -> problems.APIError:
    sentence = {
        404: "There is nothing at this address; chats are at /v1/chat/completions.",
        405: f"This address does not take {request.method}.",
    }.get(failure.status, failure.reason)
    code = {404: "not_found", 405: "method_not_allowed"}.get(failure.status)
    return problems.APIError(status=failure.status, sentence=sentence, kind="invalid_request_error", code=code)


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
