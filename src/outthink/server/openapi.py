"""The server's description of itself, from the same models that check requests."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from outthink import __version__
from outthink.server.asked import MOST, ChatRequest
from outthink.types import AnswerKind

_HEADERS: dict[str, dict[str, Any]] = {
    "Strategy": {"type": "string", "maxLength": 128},
    "N": {"type": "integer", "minimum": 1, "maximum": MOST},
    "Budget": {"type": "string", "maxLength": 256, "examples": ["20k-tokens,8s"]},
    "Plan": {"type": "string", "maxLength": 128},
    "Answer": {"enum": list(get_args(AnswerKind))},
}
_STATUSES = {
    "400": "It cannot be carried out as it was asked.",
    "401": "The key is missing or wrong.",
    "404": "There is no such model.",
    "408": "The body has not come in time.",
    "413": "The request is too large.",
    "415": "The body is not sent as JSON.",
    "421": "The Host is another one.",
    "422": "The upstream cannot carry it out.",
    "429": "The server or its upstream is busy.",
    "500": "The server failed.",
    "502": "The upstream failed.",
    "503": "The server is being stopped, or the upstream is not there.",
    "504": "Nothing was written before the deadline.",
}
_TEXT, _COUNT, _MAYBE = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": ["string", "null"]}


@lru_cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    _, schemas = models_json_schema([(ChatRequest, "validation")], ref_template="#/components/schemas/{model}")
    asking = {
        "parameters": [
            {"name": f"X-Outthink-{name}", "in": "header", "schema": schema} for name, schema in _HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
        },
    }
    completed = _content("The reply; a stream where one was asked for.", _completion())
    completed["content"]["text/event-stream"] = {"schema": _TEXT}
    quoted = _content("What it may cost.", _object(sample={"type": "object"}, most={"type": "object"}))
    model = _object(id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT)
    models = _content("What there is.", _object(object={"const": "list"}, data=_list(model)))
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    up, ending = (_content(words, _object(status=_TEXT)) for words in ("It is there.", "It is being stopped."))
    text = {"description": "For Prometheus.", "content": {"text/plain": {"schema": _TEXT}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Outthink", "version": __version__},
        "paths": {
            "/v1/chat/completions": {"post": {**asking, "responses": {"200": completed, **_errors(*_STATUSES)}}},
            "/v1/quote": {"post": {**asking, "responses": {"200": quoted, **_errors(*_STATUSES)}}},
            "/v1/models": {"get": {"responses": {"200": models, **_errors("401", "421", "502", "503")}}},
            "/v1/models/{name}": {
                "get": {
                    "parameters": [name],
                    "responses": {"200": _content("It is there.", model), **_errors("401", "404", "421", "502", "503")},
                }
            },
            "/health": {"get": {"security": [], "responses": {"200": up, "503": ending, **_errors("421")}}},
            "/metrics": {"get": {"responses": {"200": text, **_errors("401", "421")}}},
        },
        "components": {
            "schemas": {
                **schemas["$defs"],
                "Error": _object(error=_object(message=_TEXT, type=_TEXT, param=_MAYBE, code=_MAYBE)),
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _completion() -> dict[str, Any]:
    message = _object(role={"const": "assistant"}, content=_MAYBE)
    reasons = ["stop", "length", "tool_calls", "function_call"]
    usage = {f"{name}_tokens": _COUNT for name in ("prompt", "completion", "total")}
    return _object(
        id=_TEXT,
        object={"const": "chat.completion"},
        created=_COUNT,
        model=_TEXT,
        choices={**_list(_object(index=_COUNT, message=message, finish_reason={"enum": reasons})), "minItems": 1},
        usage=_object(**usage),
        outthink=_object(trace=_TEXT, strategy={"type": "object"}, stopped=_TEXT, cost={"type": "object"}),
    )


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """An object that has all of these, and may have more."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _content(words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: _content(_STATUSES[status], {"$ref": "#/components/schemas/Error"}) for status in statuses}
