"""Describes the strategies of the table, and others, from their own signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable
from typing import Any, cast

from outthink.errors import UnknownName, UsageError
from outthink.names import load
from outthink.strategies import STRATEGIES

_GIVEN = ("rng", "meter", "models")  # always there, so nobody has to supply them
_DEFAULT = ("embedder",)  # there is one where nobody supplies another
_ITEM = re.compile(r"    ([a-z_]\w*(?:, [a-z_]\w*)*): (.*)", re.IGNORECASE)


def describe() -> list[dict[str, Any]]:
    """One entry per strategy: name, summary, source, hyperparameters with defaults, and the resources it needs.

    A resource it can do without has a question mark.
    """
    return [_entry(name, load(target)) for name, target in STRATEGIES.items()]


def describe_one(name: str) -> dict[str, Any]:
    """The entry of one strategy, by its name or as "module:Name".

    It has more: how it differs from its source, the descriptions of its hyperparameters by their names, and the powers
    that its model must have (with its defaults, where they depend on hyperparameters).

    Raises UsageError where there is no such strategy.
    """
    if name not in STRATEGIES and ":" not in name:
        raise UnknownName("strategy", name, STRATEGIES)
    made: Any = load(STRATEGIES.get(name, name))
    kinds: tuple[type, ...] = getattr(made, "__mro__", ())
    if not dataclasses.is_dataclass(made) or not inspect.iscoroutinefunction(getattr(made, "run", None)):
        raise UsageError(f"{name} is not a strategy: it must be a dataclass with a coroutine function run.")
    return {
        **_entry(name, made),
        "differs": _joined(re.search(r"Differs:? (.*?)(?:\n\n|\Z)", _text(made), re.DOTALL)),
        "descriptions": {
            field: said for kind in reversed(kinds) for field, said in arguments(kind.__doc__ or "").items()
        },
        "powers": sorted(_powers(made)),
    }


def arguments(docstring: str) -> dict[str, str]:
    """What a docstring says under "Args:", by name; a name that it leaves out is not there."""
    said: dict[str, str] = {}
    names: list[str] = []
    _, _, listed = inspect.cleandoc(docstring).partition("Args:\n")
    for line in listed.splitlines():
        if line.strip() and not line.startswith("    "):
            break  # the next section
        item = _ITEM.fullmatch(line)
        if item is not None:
            names = item[1].split(", ")
            said |= dict.fromkeys(names, item[2].strip())
        else:
            said |= {name: f"{said[name]} {line.strip()}".strip() for name in names}
    return said


def _entry(name: str, strategy: Any) -> dict[str, Any]:
    text = _text(strategy)
    needs = [
        parameter.name + ("" if parameter.default is parameter.empty and parameter.name not in _DEFAULT else "?")
        for parameter in inspect.signature(strategy.run).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _GIVEN
    ]
    return {
        "name": name,
        "summary": " ".join(text.split("\n\n")[0].split()),
        "source": _joined(re.search(r"Source: (.*?)(?:Differs:|Differs from|\Z)", text, re.DOTALL)),
        "hyperparameters": {field.name: _default(field) for field in dataclasses.fields(strategy)},
        "needs": needs,
    }


def _powers(strategy: Any) -> Iterable[str]:
    powers: Any = getattr(strategy, "powers", ())
    if isinstance(powers, property):
        try:
            powers = strategy().powers
        except (TypeError, ValueError):  # it cannot be made without hyperparameters
            powers = ()
    return cast("Iterable[str]", powers)


def _text(strategy: Any) -> str:
    """The docstring of its module, or its own where the module has none."""
    return inspect.cleandoc(sys.modules[strategy.__module__].__doc__ or strategy.__doc__ or "")


def _joined(match: re.Match[str] | None) -> str:
    return " ".join(match[1].split()) if match else ""


def _default(field: dataclasses.Field[Any]) -> Any:
    """None where there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
