"""The server's description of itself, from the same models that check requests."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic.json_schema import models_json_schema

from outthink import __version__
from outthink.server.asked import ChatRequest

_PARAMETERS = ("strategy", "n", "budget", "plan", "answer")
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_STATUSES = {
    "400": "It cannot be carried out as it was asked.",
    "401": "The key is missing or wrong.",
    "404": "There is no such model.",
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


@lru_cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    _, schemas = models_json_schema([(ChatRequest, "validation")], ref_template="#/components/schemas/{model}")
    errors = {status: _content(words, {"$ref": "#/components/schemas/Error"}) for status, words in _STATUSES.items()}
    asking = {
        "parameters": [
            {"name": f"X-Outthink-{name.title()}", "in": "header", "schema": {"type": "string", "minLength": 1}}
            for name in _PARAMETERS
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
        },
    }
    completion = _content("The reply; a stream where one was asked for.", _object("id", "object", "choices", "usage"))
    completion["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Outthink", "version": __version__},
        "paths": {
            "/v1/chat/completions": {"post": {**asking, "responses": {"200": completion, **errors}}},
            "/v1/quote": {
                "post": {**asking, "responses": {"200": _content("What it may cost.", _object("most")), **errors}}
            },
            "/v1/models": {
                "get": {"responses": {"200": _content("What there is.", _object("data")), "401": errors["401"],
                                      "421": errors["421"]}}
            },
            "/health": {
                "get": {"responses": {"200": _content("It is there.", _object("status")),
                                      "503": _content("It is being stopped.", _object("status")),
                                      "421": errors["421"]}}
            },
            "/metrics": {"get": {"responses": {"200": {"description": "For Prometheus."}, "421": errors["421"]}}},
        },
        "components": {
            "schemas": {**schemas["$defs"], "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }  # fmt: skip


def _object(*required: str) -> dict[str, Any]:
    return {"type": "object", "required": list(required)}


def _content(words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}
