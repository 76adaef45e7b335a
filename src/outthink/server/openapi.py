"""The server's description of itself, from the same models that check requests."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from outthink import __version__
from outthink.server.asked import MOST, ChatRequest
from outthink.server.completions import CompletionRequest
from outthink.server.feedback import FeedbackRequest
from outthink.server.responses import ResponseRequest
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
    bodies: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (model, "validation") for model in (ChatRequest, ResponseRequest, CompletionRequest, FeedbackRequest)
    ]
    _, schemas = models_json_schema(bodies, ref_template="#/components/schemas/{model}")
    quoted = _content("What it may cost.", _object(sample={"type": "object"}, most={"type": "object"}))
    kept = _content("It is kept.", _object(object={"const": "outthink.feedback"}, trace=_TEXT))
    model = _object(id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT)
    models = _content("What there is.", _object(object={"const": "list"}, data=_list(model)))
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    words = "It is there.", "It is being stopped.", "Requests can be answered.", "They cannot be answered now."
    up, ending, ready, unready = (_content(one, _object(status=_TEXT)) for one in words)
    text = {"description": "For Prometheus.", "content": {"text/plain": {"schema": _TEXT}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Outthink", "version": __version__},
        "paths": {
            "/v1/chat/completions": _asking("ChatRequest", _replied(_completion())),
            "/v1/responses": _asking("ResponseRequest", _replied(_response())),
            "/v1/completions": _asking("CompletionRequest", _replied(_text_completion())),
            "/v1/quote": _asking("ChatRequest", quoted),
            "/v1/feedback": {
                "post": {
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FeedbackRequest"}}},
                    },
                    "responses": {
                        "200": kept,
                        **_errors("400", "401", "404", "408", "413", "415", "421", "429", "500", "503"),
                    },
                }
            },
            "/v1/models": {"get": {"responses": {"200": models, **_errors("401", "421", "502", "503")}}},
            "/v1/models/{name}": {
                "get": {
                    "parameters": [name],
                    "responses": {"200": _content("It is there.", model), **_errors("401", "404", "421", "502", "503")},
                }
            },
            "/health": {"get": {"security": [], "responses": {"200": up, "503": ending, **_errors("421")}}},
            "/ready": {"get": {"security": [], "responses": {"200": ready, "503": unready, **_errors("421")}}},
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


def _asking(body: str, replied: dict[str, Any]) -> dict[str, Any]:
    """An address that takes requests."""
    asked = {"$ref": f"#/components/schemas/{body}"}
    return {
        "post": {
            "parameters": [
                {"name": f"X-Outthink-{name}", "in": "header", "schema": schema} for name, schema in _HEADERS.items()
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
            "responses": {"200": replied, **_errors(*_STATUSES)},
        }
    }


def _replied(schema: dict[str, Any]) -> dict[str, Any]:
    reply = _content("The reply; a stream where one was asked for.", schema)
    reply["content"]["text/event-stream"] = {"schema": _TEXT}
    return reply


def _completion() -> dict[str, Any]:
    message = _object(role={"const": "assistant"}, content=_MAYBE)
    reasons = ["stop", "length", "tool_calls", "function_call"]
    choice = _object(index=_COUNT, message=message, finish_reason={"enum": reasons})
    return _object(
        id=_TEXT,
        object={"const": "chat.completion"},
        created=_COUNT,
        model=_TEXT,
        choices={**_list(choice), "minItems": 1},
        usage=_usage("prompt", "completion"),
        outthink=_told(),
    )


def _text_completion() -> dict[str, Any]:
    choice = _object(index=_COUNT, text=_TEXT, finish_reason={"enum": ["stop", "length", "tool_calls"]})
    return _object(
        id=_TEXT,
        object={"const": "text_completion"},
        created=_COUNT,
        model=_TEXT,
        choices={**_list(choice), "minItems": 1},
        usage=_usage("prompt", "completion"),
        outthink={"anyOf": [_told(), _list(_told())]},
    )


def _response() -> dict[str, Any]:
    kinds = ["message", "reasoning", "function_call"]
    return _object(
        id=_TEXT,
        object={"const": "response"},
        created_at=_COUNT,
        model=_TEXT,
        status={"enum": ["completed", "incomplete"]},
        output={**_list(_object(id=_TEXT, type={"enum": kinds}, status=_TEXT)), "minItems": 1},
        usage=_usage("input", "output"),
        outthink=_told(),
    )


def _usage(read: str, written: str) -> dict[str, Any]:
    return _object(**{f"{name}_tokens": _COUNT for name in (read, written, "total")})


def _told() -> dict[str, Any]:
    return _object(trace=_TEXT, strategy={"type": "object"}, stopped=_TEXT, cost={"type": "object"})


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """An object that has all of these, and may have more."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _content(words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: _content(_STATUSES[status], {"$ref": "#/components/schemas/Error"}) for status in statuses}
