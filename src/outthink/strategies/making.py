"""Strategies from their names, and their names and settings from strategies."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from outthink.errors import UnknownName, UsageError
from outthink.names import load, make, name_of
from outthink.strategies import RENAMED, STRATEGIES, Strategy


def make_strategy(given: str | Strategy, parameters: Mapping[str, Any] | None = None) -> Strategy:
    """A strategy from its name or "module:Name" and hyperparameters, or the object itself.

    Hyperparameters may be given as text, and with the name: "self_consistency?n=8"; several values of one as
    "0.4,0.8". Raises UnknownName, or UsageError where one is out of range.
    """
    if not isinstance(given, str):
        _check_strategy(given, repr(given))
        return given
    given, _, options = given.partition("?")
    parameters = {**dict(parse_qsl(options, keep_blank_values=True)), **(parameters or {})}
    if given not in STRATEGIES and ":" not in given:
        raise no_such_strategy(given)
    made = load(STRATEGIES.get(given, given))
    _check_strategy(made, given)
    strategy: Strategy = make(made, parameters, name=given, what="hyperparameter")
    return strategy


def no_such_strategy(name: str, known: Iterable[str] = STRATEGIES) -> UnknownName:
    """The error for a name that is not in the table."""
    return UnknownName("strategy", name, known, now=RENAMED.get(name))


def _check_strategy(strategy: Any, called: str) -> None:
    if not dataclasses.is_dataclass(strategy) or not inspect.iscoroutinefunction(getattr(strategy, "run", None)):
        raise UsageError(f"{called} is not a strategy: it must be a dataclass with a coroutine function run.")


def strategy_name(strategy: Strategy) -> str:
    """Its name in the table, or "module:Name"."""
    target = name_of(type(strategy))
    return next((name for name, known in STRATEGIES.items() if known == target), target)


def strategy_data(strategy: Strategy) -> dict[str, Any]:
    """Name and hyperparameters as a trace holds them; what is not plain is there by its name, or that of its type."""
    settings: dict[str, Any] = {"name": strategy_name(strategy)}
    settings |= {field.name: getattr(strategy, field.name) for field in dataclasses.fields(strategy)}
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=name_of))
    return plain


def import_all() -> None:
    """Import every strategy of the table, and what some import when they run, so that no request waits for it."""
    for target in STRATEGIES.values():
        load(target)
    for name in (
        "scipy.special",
        "scipy.optimize",
        "scipy.sparse",
        "scipy.cluster.hierarchy",
        "scipy.spatial.distance",
    ):
        importlib.import_module(name)
