"""Serves the page and what it shows as JSON; nothing can be changed through it.

Model text is untrusted. So every reply forbids, by its Content-Security-Policy, all scripts, styles and connections
but the page's own, and, by Trusted Types, that any text becomes markup unless DOMPurify has cleaned it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from outthink.errors import OutthinkError, UsageError
from outthink.models.engine import Tokenizing
from outthink.records.ends import TokenEnds
from outthink.view.compare import compared
from outthink.view.overview import overview
from outthink.view.recordings import Query, RecordFile, Shelf

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
"""What the page may do."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".woff2": "font/woff2", ".svg": "image/svg+xml"
}  # fmt: skip
_ROWS = 500  # most rows of a page
_SLICE = 0.05  # seconds of reading before others have their turn
_BEAT = 15.0  # seconds after which a silent stream of events says that it is there
_LOOK = 2.0  # seconds between looks for new runs


@dataclass(frozen=True, kw_only=True)
class Owned:
    """Who sees what, where each key sees only what was asked with it.

    Args:
        owner: the name of the key that a caller presents; None: it is none of these, and sees nothing.
        shelf: what the owner of a key of this name may see.
    """

    owner: Callable[[web.Request], str | None]
    shelf: Callable[[str], Shelf]


class Viewer:
    """The page over some recordings.

    Args:
        shelf: what is shown.
        admit: whether a caller may see it; None: everybody who reaches it may.
        owned: what the owner of a key may see, by the key's name, and who asks; None: whoever is admitted sees `shelf`.
        tokenizer: tells where in a text the tokens end that this model wrote; None: that is shown where it is recorded.
        every: seconds between looks at the files.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        admit: Callable[[web.Request], bool] | None = None,
        owned: Owned | None = None,
        tokenizer: Tokenizing | None = None,
        every: float = 0.3,
    ) -> None:
        self._shelf = shelf
        self._admit = admit
        self._owned = owned
        self._own: dict[str, Shelf] = {}
        self._tokens = None if tokenizer is None else TokenEnds(tokenizer)
        self._every = every
        self._changed = asyncio.Condition()
        self._version = 0
        self._ended = False

    def serve_at(self, app: web.Application, prefix: str = "") -> None:
        """Let an application serve the page at `prefix` + "/", and follow the files while it runs."""
        app.router.add_get(f"{prefix}/", self._page)
        if prefix:
            app.router.add_get(prefix, self._slash)
        app.router.add_get(f"{prefix}/static/{{name:.+}}", self._static)
        for name, answer in (
            ("sources", self._sources),
            ("rows", self._rows),
            ("problem", self._problem),
            ("compare", self._compare),
            ("overview", self._overview),
        ):
            app.router.add_get(f"{prefix}/api/{name}", functools.partial(self._told, answer))
        app.router.add_get(f"{prefix}/api/events", self._events)
        app.cleanup_ctx.append(self._following)
        app.on_shutdown.append(self._end)

    async def _following(self, app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._follow())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for shelf in self._shelves():
            shelf.close()

    async def _end(self, app: web.Application) -> None:
        """Let streams of events end, which would go on for ever."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        looked = told = loop.time()
        seen: list[int] = []
        while True:
            more = False
            for recording in [recording for shelf in self._shelves() for recording in shelf.recordings]:
                more |= await asyncio.to_thread(recording.advance, _SLICE)
            if loop.time() - looked > _LOOK:
                looked = loop.time()
                for shelf in self._shelves():
                    with contextlib.suppress(OSError):
                        await asyncio.to_thread(shelf.look)
            versions = [recording.version for shelf in self._shelves() for recording in shelf.recordings]
            if versions != seen and (not more or loop.time() - told > self._every):
                seen, told = versions, loop.time()
                async with self._changed:
                    self._version += 1
                    self._changed.notify_all()
            await asyncio.sleep(0.005 if more else self._every)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(body=(STATIC / "index.html").read_bytes(), headers={**_HEADERS, "Content-Type": _html()})

    async def _slash(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.path + "/"})

    async def _static(self, request: web.Request) -> web.Response:
        body = static(request.match_info["name"])
        if body is None:
            return _json({"error": "There is no such file."}, status=404)
        kind = _TYPES[Path(request.match_info["name"]).suffix]
        return web.Response(body=body, headers={**_HEADERS, "Content-Type": f"{kind}; charset=utf-8"})

    async def _told(
        self, answer: Callable[[Shelf, Mapping[str, str]], Awaitable[Any]], request: web.Request
    ) -> web.StreamResponse:
        shelf = await self._seen_by(request)
        if shelf is None:
            return _refused()
        try:
            return _json(await answer(shelf, request.query))
        except (UsageError, OutthinkError) as cause:
            return _json({"error": str(cause)}, status=404)
        except (ValueError, KeyError):
            return _json({"error": "This cannot be asked."}, status=400)

    def _shelves(self) -> list[Shelf]:
        return [self._shelf, *self._own.values()]

    async def _seen_by(self, request: web.Request) -> Shelf | None:
        """What a caller may see; None where that is nothing."""
        if self._owned is None:
            return self._shelf if self._admit is None or self._admit(request) else None
        owner = self._owned.owner(request)
        if owner is None:
            return None
        if owner not in self._own:
            made = await asyncio.to_thread(self._owned.shelf, owner)
            self._own.setdefault(owner, made)
        return self._own[owner]

    async def _sources(self, shelf: Shelf, query: Mapping[str, str]) -> Any:
        def told() -> list[dict[str, Any]]:
            return [{**one.described(), "running": one.running()} for one in shelf.recordings]

        return {"version": self._version, "sources": await asyncio.to_thread(told)}

    async def _rows(self, shelf: Shelf, query: Mapping[str, str]) -> Any:
        recording = _recording(shelf, query["source"])
        other = query.get("differs", "")
        wish = Query(
            verdict=query.get("verdict", ""),
            stopped=query.get("stopped", ""),
            strategy=query.get("strategy", ""),
            text=query.get("text", ""),
            unit=query.get("unit", "tokens"),
            least=float(query.get("least") or -math.inf),
            most=float(query.get("most") or math.inf),
            differs=_recording(shelf, other) if other else None,
            order=query.get("order", ""),
            down=query.get("down", "") == "1",
        )
        around = query.get("around", "")
        offset, limit = max(0, int(query.get("offset", "0"))), min(_ROWS, max(1, int(query.get("limit", "50"))))

        def told() -> dict[str, Any]:
            lines = recording.chosen(wish)
            if around:
                return _neighbours(lines.tolist(), int(around))
            rows = recording.rows(lines[offset : offset + limit].tolist())
            if wish.differs is not None and rows:
                places = recording.places(wish.differs)
                for row, other in zip(rows, wish.differs.rows([int(places[row["line"]]) for row in rows]), strict=True):
                    row["other"] = other
            return {"total": len(lines), "known": recording.known, "lines": len(recording), "rows": rows}

        listed = await asyncio.to_thread(told)
        if isinstance(recording, RecordFile):  # what whoever opens a problem next would wait for
            asyncio.get_running_loop().run_in_executor(None, recording.kind)
        return listed

    async def _problem(self, shelf: Shelf, query: Mapping[str, str]) -> Any:
        recording = _recording(shelf, query["source"])
        if (problem := query.get("live")) is not None and isinstance(recording, RecordFile):
            return await asyncio.to_thread(recording.live, problem)
        line = int(query["line"])
        entry = await asyncio.to_thread(recording.entry, line)
        if self._tokens is not None and isinstance(recording, RecordFile):
            entry["ends"] = {**entry.get("ends", {}), **await recording.ends(line, self._tokens)}
        return entry

    async def _compare(self, shelf: Shelf, query: Mapping[str, str]) -> Any:
        wanted = [int(part) for part in query.get("sources", "").split(",") if part]
        chosen = [(number, _recording(shelf, str(number))) for number in wanted]
        return await asyncio.to_thread(compared, chosen)

    async def _overview(self, shelf: Shelf, query: Mapping[str, str]) -> Any:
        recording = _recording(shelf, query["source"])
        return await asyncio.to_thread(overview, recording) if isinstance(recording, RecordFile) else []

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the versions of the recordings, at once and whenever one has changed."""
        shelf = await self._seen_by(request)
        if shelf is None:
            return _refused()
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        seen, told = -1, None
        with contextlib.suppress(ConnectionError):
            while not self._ended:
                seen = self._version
                versions = [recording.version for recording in shelf.recordings]
                if versions != told:  # else what has changed is seen by others
                    told = versions
                    await response.write(f"data: {json.dumps({'versions': versions})}\n\n".encode())
                try:
                    async with asyncio.timeout(_BEAT), self._changed:
                        await self._changed.wait_for(lambda: self._version != seen or self._ended)  # noqa: B023 - called here only
                except TimeoutError:
                    await response.write(b": still here\n\n")
        return response


def _recording(shelf: Shelf, number: str) -> Any:
    place = int(number)
    if not 0 <= place < len(shelf.recordings):
        raise UsageError("There is no such recording.")
    return shelf.recordings[place]


def _neighbours(lines: list[int], line: int) -> dict[str, Any]:
    """Which lines come before and after one in a list; None where there is none, or it is not in it."""
    place = lines.index(line) if line in lines else None
    return {
        "total": len(lines),
        "place": place,
        "previous": lines[place - 1] if place else None,
        "next": lines[place + 1] if place is not None and place + 1 < len(lines) else None,
    }


def static(name: str) -> bytes | None:
    """A file of the page; None where there is none of this name."""
    path = STATIC / name
    if ".." in Path(name).parts or path.suffix not in _TYPES or not path.is_file():
        return None
    return path.read_bytes()


def dumped(data: Any) -> str:
    """As JSON, which knows neither NaN nor infinity: None in their place."""
    try:
        return json.dumps(data, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(data))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refused() -> web.Response:
    return _json({"error": "The key is missing or wrong: send Authorization: Bearer KEY."}, status=401)


def _html() -> str:
    return "text/html; charset=utf-8"


def _json(data: Any, *, status: int = 200) -> web.Response:
    text = dumped(data)
    response = web.Response(text=text, status=status, headers={**_HEADERS, "Content-Type": "application/json"})
    if len(text) > 2000:
        response.enable_compression()
    return response


@contextlib.asynccontextmanager
async def viewing(viewer: Viewer, host: str, port: int) -> AsyncIterator[str]:
    """The page at an address of its own while the context lasts; that address.

    Raises UsageError where it cannot listen there.
    """

    @web.middleware
    async def guarded(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        # a page from elsewhere may send a browser here under a name of its own
        if not _own_name(request.host, host):
            return _json({"error": "The Host of the request is not this page's."}, status=421)
        return await handler(request)

    app = web.Application(middlewares=[guarded])
    viewer.serve_at(app)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as cause:
            raise UsageError(f"Cannot listen on {host}:{port}: {cause.strerror}; choose another --port.") from None
        bound = runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        yield f"http://{shown}:{bound[1]}/"
    finally:
        await runner.cleanup()


def _own_name(given: str, host: str) -> bool:
    name = given.rsplit(":", 1)[0] if not given.endswith("]") else given
    name = name.strip("[]").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in ("localhost", host.lower())
    return True
