"""What a server says is wrong, in whatever form it says it: objects, lists, texts, web pages, alone or inside a 200."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from outthink.models.events import BOM, Events

_ERRORS = ("error", "errors", "exception", "fault", "Error", "Errors")
_NAMES = frozenset(_ERRORS)
_WORDS = (
    "message", "msg", "detail", "details", "error_message", "errorMessage", "error_msg", "errorMsg",
    "error_description", "description", "faultstring", "reason", "title", "status_msg", "statusMessage", "Message",
    "error", "errors", "raw", "code", "type",
)  # fmt: skip
_NUMBERS = (
    "status_code", "statusCode", "http_status", "httpStatus", "http_code", "code", "status", "error_code", "errorCode",
)  # fmt: skip
_MARKS = ("object", "type", "status", "event", "level")
_MARKED = frozenset({"error", "failed", "failure", "fail", "exception"})
_ANSWERS = ("choices", "data", "scores", "tokens", "output", "results", "embeddings")
_NAMED = (  # beginnings of the names of errors, without what separates words, and the status each stands for
    ("invalidrequest", 400), ("badrequest", 400), ("invalidargument", 400), ("invalidparameter", 400),
    ("contextlength", 400), ("validationerror", 422), ("unprocessable", 422),
    ("authentication", 401), ("unauthorized", 401), ("unauthenticated", 401), ("invalidapikey", 401),
    ("permission", 403), ("forbidden", 403), ("notfound", 404), ("modelnotfound", 404),
    ("ratelimit", 429), ("toomanyrequests", 429), ("resourceexhausted", 429), ("throttl", 429),
    ("insufficientquota", 429),
)  # fmt: skip
_DEEP = 6  # levels that are looked into
_MOST = 8  # entries of a list that are told
_NEVER_SHOWN = ("script", "style", "head")


@dataclass(frozen=True, kw_only=True, slots=True)
class Complaint:
    """What is said to be wrong.

    Args:
        words: for people; not yet cleaned of what is secret.
        status: as one of HTTP, from 400 to 599; 0 where none is told.
        certain: it is an error and cannot be anything else, such as a remark beside an answer.
    """

    words: str
    status: int = 0
    certain: bool = True


def complaint(body: Any) -> Complaint | None:
    """What a parsed body complains of; None where it does not."""
    if isinstance(body, dict) and body.get("choices") and _NAMES.isdisjoint(body):
        return None  # as nearly all of them are
    if not isinstance(body, dict | list | str):
        return None
    if isinstance(body, list):
        return next((one for one in map(complaint, body[:_MOST]) if one is not None), None)
    if isinstance(body, str):
        return Complaint(words=body, certain=False) if body.strip() else None
    for name in _ERRORS:
        inner = body.get(name)
        if inner:
            status = _status(body)
            own = _said(body if inner is True else inner, 0)
            if not own.strip() and not status:  # such as {"code": 0, "message": ""} beside an answer
                continue
            return Complaint(words=own or _dumped(inner), status=status)
    if any(body.get(name) for name in _ANSWERS):
        return None
    status = _status(body)
    state = body.get("base_resp")
    if isinstance(state, Mapping) and state.get("status_code"):
        return Complaint(words=_said(state, 0), status=_status(state))
    words = _said({name: value for name, value in body.items() if name not in ("code", "type")}, 0)
    marked = any(str(body.get(name)).lower() in _MARKED for name in _MARKS)
    if marked or body.get("success") is False or body.get("ok") is False or (status and words):
        return Complaint(words=words or _dumped(body), status=status)
    return Complaint(words=words, certain=False) if words else None


def words(text: str) -> str:
    """What the body of a refusal says, for people: the message in JSON, what can be read of a web page, else all."""
    text = text.removeprefix("\ufeff").strip()
    if text.startswith("data:"):
        events = Events()
        data = [data for _, data in (*events.fed(text.encode("utf-8", "replace")), *events.ended())]
        text = data[0].decode("utf-8", "replace") if data else text
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return _read(text) if text[:1] == "<" else text
    if isinstance(body, list) and not any(isinstance(entry, Mapping) for entry in body):
        return text
    if not isinstance(body, Mapping | list):
        return text
    told = complaint(body)
    return told.words if told is not None and told.words.strip() else text


def _said(value: Any, depth: int) -> str:
    """The words in a value; empty where it has none."""
    if isinstance(value, str):
        text = value.strip()
        if depth < _DEEP and text[:1] in ("{", "[") and len(text) < 1 << 16:  # JSON in JSON, as gateways pass it on
            try:
                return _said(json.loads(text), depth + 1) or text
            except (ValueError, RecursionError):
                return text
        return text
    if depth >= _DEEP:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_said(entry, depth + 1) for entry in value[:_MOST])))
    if isinstance(value, Mapping):
        place = value.get("loc")
        where = ".".join(map(str, place)) + ": " if isinstance(place, list | tuple) and place else ""
        for name in _WORDS:
            inner = value.get(name)
            if name in ("code", "type") and not isinstance(inner, str):
                continue
            said = _said(inner, depth + 1)
            if said:
                return where + said
        return ""
    return ""


def _status(body: Mapping[str, Any]) -> int:
    """The status that a body tells, in itself or in its error, by number or by name; else 0."""
    nested = list(_nested(body))
    for part in nested:
        for name in _NUMBERS:
            value = part.get(name)
            if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
                value = int(value)
            if type(value) is int and 400 <= value < 600:
                return value
    for part in nested:
        for name in ("type", "code", "status", "error_type", "name"):
            value = part.get(name)
            plain = re.sub(r"[^a-z]", "", value.lower()) if isinstance(value, str) and len(value) < 100 else ""
            status = next((status for start, status in _NAMED if plain.startswith(start)), 0)
            if status:
                return status
    return 0


def _nested(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The body, its error, the error of that, and so on."""
    part: Any = body
    for _ in range(_DEEP):
        if isinstance(part, list):
            part = part[0] if part else None
        if not isinstance(part, Mapping):
            return
        yield part
        part = next((part[name] for name in _ERRORS if part.get(name)), None)


def _read(page: str) -> str:
    """What a reader sees of a web page, or of XML."""
    shown: list[str] = []
    hidden = ""
    for piece in page.split("<"):
        tag, closed, text = piece.partition(">")
        name = re.match(r"/?\s*([A-Za-z]*)", tag)
        word = name[1].lower() if name else ""
        if hidden:
            if tag.startswith("/") and word == hidden:
                hidden = ""
            elif not (hidden == "head" and word == "title"):
                continue
        elif word in _NEVER_SHOWN and closed:
            hidden = word
            continue
        if closed:
            shown.append(text)
    return " ".join(html.unescape(" ".join(shown)).split()) or page


def _dumped(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def without_mark(body: bytes) -> bytes:
    """The body without the byte order mark before it."""
    return body.removeprefix(BOM)
