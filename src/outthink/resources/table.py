"""What a strategy or a scorer may ask for by name, and how somebody supplies it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from outthink.errors import MissingResource

RESOURCES: Mapping[str, tuple[str, str]] = {
    "model": ("Model", "pass model=..., or --model NAME"),
    "models": ("Models", "pass models={role: ...}, or --role ROLE=NAME"),
    "verifier": ("Scores", "pass verifier=..., or --verifier with confidence, judge, tests, an address ..."),
    "prm": ("Scores", "pass prm=..., or --prm with confidence, judge, PROBE.json, an address ..."),
    "meter": ("Meter", "it is always there"),
    "rng": ("Rng", "it is always there"),
    "embedder": ("Embedder", "it is always there; embedder=..., or --embedder, chooses another than hashing"),
    "sandbox": ("MeteredSandbox", "it is there where bubblewrap is installed; sandbox=... passes another one"),
    "retriever": ("Retriever", "pass resources={'retriever': ...}"),
    "memory": ("Memory", "pass resources={'memory': ...}"),
    "environment": ("Environment", "pass resources={'environment': ...}"),
}
"""What a strategy's `run` or a scorer's `score` may name: annotation, and how to supply it."""


def taken(function: Callable[..., Any]) -> Mapping[str, bool]:
    """The resources that a strategy's `run` or a scorer's `score` names, and whether it cannot do without each."""
    return _taken(getattr(function, "__func__", function))


@lru_cache(maxsize=1024)  # looking at a signature takes longer than most of what is done with it
def _taken(function: Callable[..., Any]) -> Mapping[str, bool]:
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default is one.empty for one in parameters if one.kind is one.KEYWORD_ONLY}


def bind(function: Callable[..., Any], available: Mapping[str, Any], who: str) -> dict[str, Any]:
    """The keyword-only arguments of `function`, by name; raises MissingResource with how to supply one."""
    bound = {}
    for name, needed in taken(function).items():
        if name in available:
            bound[name] = available[name]
        elif needed:
            how = RESOURCES[name][1] if name in RESOURCES else "there is no such resource"
            raise MissingResource(f"{who} needs {name!r}: {how}.")
    return bound
