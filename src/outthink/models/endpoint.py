"""One HTTP server that speaks JSON: requests, repeats, waiting times, its key, and what each failure means.

What is repeated is only what certainly produced nothing: a connection that was never made, and answers that refuse
(408, 425, 429, 500, 502, 503, 529). A request that was sent and then timed out, here or at a gateway (504, 524), or was
cut off may have been worked on and billed; it fails, and whoever sent it charges the worst case. So repeats cannot
spend more than was allowed.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import io
import json
import math
import os
import random
import re
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from pydantic_core import from_json

from outthink.errors import EngineError, Refused, UsageError
from outthink.models.complaints import Complaint, complaint, without_mark, words
from outthink.models.credentials import Key, find_key
from outthink.models.events import Events, is_stream
from outthink.types import writable

_DOCUMENT = b"\n"  # no event has this name
_SECRET = re.compile(r"//[^/\s@]*@")  # a user or a password in an address
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 529})
_GIVEN_UP = frozenset({504, 524})  # a gateway waited no longer for a server that may still be at work
_LONG = 1 << 16  # bytes of a request
_CONNECTIONS = 1024  # at once
_MOST_BYTES = 64 << 20  # of one answer, or of one event of a stream
_MOST_WORDS = 1 << 16  # characters of them that are looked at
_MOST_ERROR = 300  # characters of a server's own words in a sentence
_CHANCE = random.Random()  # of its own, so that nobody's seed is disturbed
_LAST = 1.0  # seconds for the end of a stream after its last event; else its connection is not used again
_LONGEST = 1e9  # seconds that a server can ask to wait; more, or for ever, is as much as never


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long to wait for a server, and how often to ask again.

    Args:
        connect: seconds until a connection stands.
        silence: seconds without a byte after which a request has failed.
        attempts: how often a request is begun at most; at least 1.
        wait: most seconds between two attempts; a server that asks for more (Retry-After) is not asked again.
        first: seconds before the second attempt, about doubled for every further one.
    """

    connect: float = 10.0
    silence: float = 300.0
    attempts: int = 6
    wait: float = 60.0
    first: float = 0.5


@dataclass(slots=True)
class Sending:
    """How far a request is, for whoever has to charge it when it fails or is cancelled.

    Args:
        attempts: how often it was begun.
        open: the last attempt is not refused, so the server may be at work.
        refusal: the last attempt that was refused, and is to be repeated.
        ended: the answer has come to its end: a whole document, or a stream as far as its mark.
        words: what the server has said beside its answers that may be an error.
    """

    attempts: int = 0
    open: bool = False
    refusal: Refused | None = None
    ended: bool = False
    words: str = ""


class _Again(Refused):
    """Asking again may help."""


class Endpoint:
    """A server at a base address; connections are opened when needed and belong to the event loop that needs them.

    It may be used from several event loops one after the other. A connection is closed when its request is cancelled,
    and all of them when the loop of `asyncio.run` ends, or by `close`. Redirects are refused, so that the key goes
    nowhere else. Proxies of the environment are used, except to this machine itself.

    Args:
        url: such as http://localhost:8000/v1; without user, password, query and fragment.
        patience: waiting times.
        connections: most requests at once; further ones wait for their turn. None: 1,024, or as many as take a third
            of the files that this process may have open.
        find: looks up the key that belongs to the address.

    Raises UsageError where the address is not one.
    """

    def __init__(
        self,
        url: str,
        *,
        patience: Patience | None = None,
        connections: int | None = None,
        find: Callable[[str], Key | None] = find_key,
    ) -> None:
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").encode("idna")
            usable = (
                parts.scheme in ("http", "https") and host and parts.port != 0 and not (parts.query or parts.fragment)
            )
        except ValueError:
            usable = False
        if not usable or not url.isprintable() or " " in url:
            raise UsageError(f"{shown(url)} is not the address of a server; write it like http://localhost:8000/v1")
        if parts.username or parts.password:
            raise UsageError(
                "The address holds a user or a password; put a key into the environment or the file of keys."
            )
        self.url = url.rstrip("/")
        self._place = _place(self.url)
        self._patience = patience or Patience()
        self._connections = connections
        self._key = find(self.url)
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}

    async def get(self, path: str) -> Any:
        """JSON from `path`, which is relative to the address: "models", or "../tokenize" beside a /v1."""
        async with self._answer("GET", path) as response:
            return await self._json(response)

    async def text(self, path: str) -> str:
        """The text at `path`."""
        async with self._answer("GET", path) as response:
            return (await self._whole(response)).decode("utf-8", "replace")

    async def post(self, path: str, body: Any, sending: Sending | None = None) -> Any:
        """Send JSON, as values or written already, get JSON; `sending` is filled on the way.

        Raises Refused where nothing was produced, and EngineError where that is not known.
        """
        async with self._answer("POST", path, body, sending) as response:
            return await self._json(response, sending)

    async def events(self, path: str, body: Any, sending: Sending | None = None) -> AsyncGenerator[Any]:
        """Send JSON, get the JSON of each server-sent event, or of the one answer if the server does not stream."""
        async with contextlib.aclosing(self.batches(path, body, sending)) as batches:
            async for batch in batches:
                for value in batch:
                    yield value

    async def batches(self, path: str, body: Any, sending: Sending | None = None) -> AsyncGenerator[list[Any]]:
        """As `events`, those together that came together.

        Whether it streams is seen by its answer, and not by what was asked for. Ends at the mark [DONE] or at the end
        of the body; errors as for `post`, also between two events. Some servers refuse by a first event, or an answer,
        with an error of a status of 4xx; that is a refusal like any other.
        """
        sending = sending or Sending()
        first: Sending | None = sending
        async with self._answer("POST", path, body, sending) as response:
            async for events in self._data(response):
                batch: list[Any] = []
                failure: EngineError | None = None
                try:
                    for value, named in self._read(events, sending):
                        told = self._check(value, first, named=named)
                        if told is not None:
                            sending.words = self.clean(told.words)
                        batch.append(value)
                        first = None
                except EngineError as cause:
                    failure = cause  # what came before it counts
                if batch:
                    yield batch
                if failure is not None:
                    raise failure
                if sending.ended:
                    # read to the end, so that the connection can be used again
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        async with asyncio.timeout(_LAST):
                            await response.content.read()
                    return

    async def reached(self, seconds: float = 3.0) -> bool:
        """Whether the server answers within so many seconds and takes the key; asked once, whatever else is asked."""
        line = await self._line()
        try:
            async with asyncio.timeout(seconds):
                (await self._once(line.session, "GET", urljoin(self.url + "/", "./models"), None, Sending())).close()
        except Refused as refusal:  # one that has no list of models is there all the same
            return 0 < refusal.status < 500 and refusal.status not in (401, 403, 407)
        except (EngineError, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        """Close the connections of this event loop; calling it twice is fine, and so is using it again."""
        line = self._lines.pop(asyncio.get_running_loop(), None)
        if line is not None:
            await line.life.aclose()

    # ------------------------------------------------------------------------------------------------ one request

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: Any = None, sending: Sending | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        line = await self._line()
        url = urljoin(self.url + "/", path if path.startswith("../") else f"./{path}")  # a colon makes no scheme
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        async with line.room:
            response = await self._begun(line.session, method, url, data, sending or Sending())
            try:
                yield response
            except TimeoutError:
                raise self._silent() from None
            except aiohttp.ClientError as failure:
                raise EngineError(f"{self.url} cut its answer off ({self.clean(failure)}).") from None
            finally:
                response.close()  # what was read to its end is in the pool already; else this aborts the work

    async def _begun(
        self, session: aiohttp.ClientSession, method: str, url: str, data: bytes | None, sending: Sending
    ) -> aiohttp.ClientResponse:
        """The beginning of the answer, asked for again where that may help."""
        patience = self._patience
        while True:
            try:
                return await self._once(session, method, url, data, sending)
            except _Again as failure:
                asked = failure.retry_after or 0.0
                if sending.attempts >= patience.attempts or asked > patience.wait:
                    raise
                sending.refusal = failure
            grown = patience.first * 2.0 ** min(sending.attempts - 1, 32) * _CHANCE.uniform(0.75, 1.25)
            await asyncio.sleep(max(asked, min(grown, patience.wait)))

    async def _once(
        self, session: aiohttp.ClientSession, method: str, url: str, data: bytes | None, sending: Sending
    ) -> aiohttp.ClientResponse:
        sending.attempts += 1
        sending.open = True
        try:
            response = await self._sent(session, method, url, data)
            if response.status < 300:
                return response
            try:
                raise self._refusal(response, await self._words(response))
            finally:
                response.close()
        except Refused:
            sending.open = False
            raise

    async def _sent(
        self, session: aiohttp.ClientSession, method: str, url: str, data: bytes | None
    ) -> aiohttp.ClientResponse:
        """The beginning of the answer, whatever its status."""
        try:
            # aiohttp has no limit for sending a long body to a server that does not read it
            async with asyncio.timeout(self._patience.connect + self._patience.silence):
                # aiohttp sends long ones in pieces only if they are files
                content = data if data is None or len(data) < _LONG else io.BytesIO(data)
                return await session.request(method, url, data=content, allow_redirects=False)
        except aiohttp.ClientHttpProxyError as failure:
            why = f"its proxy answered {failure.status}"
            raise Refused(f"{self.url} cannot be reached safely ({why}).") from None
        except aiohttp.ClientSSLError as failure:
            raise Refused(f"{self.url} cannot be reached safely ({self.clean(_unsafe(failure))}).") from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as failure:
            raise _Again(f"{self.url} cannot be reached ({_unreached(failure)}); is the server running?") from None
        except TimeoutError:
            raise self._silent() from None
        except aiohttp.ClientError as failure:
            raise EngineError(f"{self.url} broke the connection off ({self.clean(failure)}).") from None

    def _refusal(self, response: aiohttp.ClientResponse, words: str) -> EngineError:
        status = response.status
        said = f"{self.url} answered {status}{': ' if words else ''}{words}"
        if status < 400:
            return Refused(
                f"{self.url} redirects elsewhere ({status}), which is not followed: give the address that it moved to.",
                status,
            )
        if status in _GIVEN_UP:
            return EngineError(said)
        if status in _AGAIN:
            return _Again(said, status, _seconds(response.headers.get("Retry-After")))
        return Refused(said, status)

    def _silent(self) -> EngineError:
        return EngineError(f"{self.url} sent nothing for {self._patience.silence:g} s.")

    async def _words(self, response: aiohttp.ClientResponse) -> str:
        """What the server says about a refusal, shortened and without the key."""
        try:
            text = (await response.content.read(1 << 16)).decode("utf-8", "replace")
        except (aiohttp.ClientError, TimeoutError):
            return ""
        return self.clean(words(text))

    async def _data(self, response: aiohttp.ClientResponse) -> AsyncGenerator[list[tuple[bytes, bytes]]]:
        """The names and the data of events, those together that came together; a document is one of name _DOCUMENT."""
        kind, start, streams = response.content_type, b"", None
        while streams is None:
            part = await response.content.readany()
            start += part
            streams = is_stream(start, kind) if part else kind == "text/event-stream"
            if len(start) > _MOST_BYTES:
                raise EngineError(f"{self.url} answered with more than {_MOST_BYTES >> 20} MB.")
        if not streams:
            yield [(_DOCUMENT, self._document(start + await self._whole(response, len(start)), kind))]
            return
        events = Events()
        while True:
            if came := events.fed(start):
                yield came
            if events.size > _MOST_BYTES:
                raise EngineError(f"{self.url} sent an event of more than {_MOST_BYTES >> 20} MB.")
            start = await response.content.readany()
            if not start:
                break
        if came := events.ended():
            yield came

    def _document(self, body: bytes, kind: str) -> bytes:
        """The body of an answer that is no stream, if it can be JSON."""
        body = without_mark(body)
        if kind != "application/json" and body.lstrip()[:1] not in (b"{", b"["):
            raise EngineError(f"{self.url} answered with {kind} in place of JSON: is this the address of an API?")
        return body

    async def _json(self, response: aiohttp.ClientResponse, sending: Sending | None = None) -> Any:
        value = self._value(self._document(await self._whole(response), response.content_type))
        self._check(value, sending)
        return value

    def _read(self, events: Sequence[tuple[bytes, bytes]], sending: Sending) -> Iterator[tuple[Any, bool]]:
        """The JSON of each event as far as the mark [DONE], and whether it is called an error; notes the end."""
        end: int | None = None
        if b"[DONE]" in b"".join([data for _, data in events]):
            end = next((place for place, (_, data) in enumerate(events) if data.strip() == b"[DONE]"), None)
            events = events[:end]
        together = self._together(events)
        if together is not None:
            for value in together:
                yield value, False
        else:
            for name, data in events:
                for value in self._values(data, named=name == b"error"):
                    yield value, name == b"error"
        sending.ended = sending.ended or end is not None or events[-1][0] == _DOCUMENT

    def _together(self, events: Sequence[tuple[bytes, bytes]]) -> list[Any] | None:
        """The JSON of several events read at once, which is faster; None where each has to be looked at."""
        if len(events) < 2 or any(name for name, _ in events):
            return None
        try:
            values: list[Any] = from_json(b"[%b]" % b",".join([data for _, data in events]))
        except ValueError:
            return None
        return values if len(values) == len(events) else None

    def _values(self, data: bytes, *, named: bool) -> list[Any]:
        """The JSON of an event; of each of its lines, where several were sent as one.

        Args:
            named: the event is called an error, whose words need not be JSON.
        """
        try:
            return [self._value(data)]
        except EngineError:
            lines = [line for line in data.splitlines() if line.strip() and line.strip() != b"[DONE]"]
            if named:
                return [data.decode("utf-8", "replace")]
            if len(lines) < 2:
                raise
            return [self._value(line) for line in lines]

    def _value(self, body: bytes) -> Any:
        try:
            return from_json(body)  # in a third of the time of json.loads, which counts with an event for each token
        except ValueError:
            try:
                return json.loads(body)  # takes lone surrogates, too: halves of characters that servers have cut
            except (ValueError, RecursionError):
                plain = body[:_MOST_WORDS].decode("utf-8", "replace").strip()
                said = f": {self.clean(plain)}" if plain[:1].isalpha() else "."  # words in place of JSON
                raise EngineError(f"{self.url} answered with broken JSON{said}") from None

    def _check(self, body: Any, first: Sending | None = None, *, named: bool = False) -> Complaint | None:
        """Raise the error that a body is, as a refusal where it is the first that is said in answer to `first`.

        Returns what may be one.

        Args:
            named: the event is called an error, so it is one whatever it looks like.
        """
        told = complaint(body)
        if told is None and named:
            told = Complaint(words=str(body))
        if told is None or not (told.certain or named):
            return told
        if first is not None and 400 <= told.status < 500:
            first.open = False
            raise Refused(f"{self.url} answered {told.status}: {self.clean(told.words)}", told.status)
        raise EngineError(f"{self.url} failed: {self.clean(told.words)}")

    async def _whole(self, response: aiohttp.ClientResponse, before: int = 0) -> bytes:
        """What is left of a body of which `before` bytes were read."""
        parts, size = [], before
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > _MOST_BYTES:
                raise EngineError(f"{self.url} answered with more than {_MOST_BYTES >> 20} MB.")
        return b"".join(parts)

    def clean(self, words: object) -> str:
        """A server's own words for an error: shortened, without the key, and without where the server is."""
        text = " ".join(str(words)[:_MOST_WORDS].split())
        text = text if self._key is None else self._key.scrub(text)
        text = _SECRET.sub("//", self._place.sub("the server", text))
        return writable(text if len(text) <= _MOST_ERROR else text[:_MOST_ERROR] + "...")

    # ----------------------------------------------------------------------------------- the connections of a loop

    async def _line(self) -> _Line:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            patience = self._patience
            session = aiohttp.ClientSession(
                # Servers close idle connections after a few seconds; one that is used again just then breaks.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0),
                timeout=aiohttp.ClientTimeout(total=None, connect=patience.connect, sock_read=patience.silence),
                proxy=_proxy(self.url),  # not trust_env, which sends passwords of ~/.netrc too
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "outthink", "Content-Type": "application/json"}
                | (self._key.header() if self._key is not None else {}),
            )
            line = self._lines[loop] = _Line(
                session, asyncio.Semaphore(self._connections or _room()), self._life(loop, session)
            )
            await anext(line.life)
        return line

    async def _life(self, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> AsyncGenerator[None]:
        """Closes the session when it is closed; `asyncio.run` closes the generators of its loop at the end."""
        try:
            yield
        finally:
            self._lines.pop(loop, None)
            await session.close()


@dataclass(slots=True, eq=False)
class _Line:
    session: aiohttp.ClientSession
    room: asyncio.Semaphore
    life: AsyncGenerator[None]


def _room() -> int:
    """How many connections there can be beside all else that takes descriptors, such as those of callers."""
    if sys.platform == "win32":
        return _CONNECTIONS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(_CONNECTIONS, soft // 3))


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _seconds(retry_after: str | None) -> float | None:
    """The wait that a Retry-After header asks for, given in seconds or as a date; None where it says nothing.

    It is from 0 to _LONGEST, whatever a server writes there.
    """
    if retry_after is None:
        return None
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            wait = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError, OSError):
            return None
    return None if math.isnan(wait) else min(max(wait, 0.0), _LONGEST)


def _place(url: str) -> re.Pattern[str]:
    """Finds where a server is, in words that name it: its address, its host with or without a port."""
    parts = urlsplit(url)
    host = re.escape(parts.hostname or "")
    pair = rf"\(\s*['\"]{host}['\"]\s*,\s*\d{{1,5}}[^)]{{0,40}}\)"  # as Python's errors write it
    named = rf"(?<![\w.-])(?:https?://)?\[?{host}\]?(?::\d+)?(?![\w-])"
    return re.compile(f"{re.escape(url)}|{pair}|{named}", re.IGNORECASE)


def _unreached(failure: aiohttp.ClientError) -> str:
    """Why no connection came about, without where it was to lead."""
    if isinstance(failure, aiohttp.ConnectionTimeoutError):
        return "the connection took too long"
    if isinstance(failure, aiohttp.ClientConnectorDNSError):
        return "nobody knows the name of its host"
    error = getattr(failure, "os_error", None)
    number = getattr(error, "errno", None)
    if not isinstance(number, int) or number <= 0:  # one for each address of the host
        known = re.search(r"\[Errno (\d+)\]", str(error))
        number = int(known[1]) if known else 0
    return os.strerror(number) if number else "the connection failed"


def _unsafe(failure: aiohttp.ClientSSLError) -> str:
    """What is wrong with the certificate or the encryption."""
    error = getattr(failure, "certificate_error", None) or getattr(failure, "os_error", None) or failure
    return str(getattr(error, "verify_message", None) or getattr(error, "reason", None) or "the encryption failed")


def shown(address: str) -> str:
    """The address without what may be secret in it."""
    return writable(address.split("?")[0].split("#")[0].rpartition("@")[2])
