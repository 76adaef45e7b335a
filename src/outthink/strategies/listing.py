"""Describes the strategies of the table from their own signatures and docstrings."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import Any

from outthink.strategies import STRATEGIES

_GIVEN = ("rng", "meter", "models")  # always there, so nobody has to supply them
_DEFAULT = ("embedder",)  # there is one where nobody supplies another


def describe() -> list[dict[str, Any]]:
    """One entry per strategy: name, summary, source, hyperparameters with defaults, and the resources it needs.

    A resource it can do without has a question mark.
    """
    return [_entry(name, target) for name, target in STRATEGIES.items()]


def _entry(name: str, target: str) -> dict[str, Any]:
    module_name, _, attribute = target.partition(":")
    module = importlib.import_module(module_name)
    strategy = getattr(module, attribute)
    text = inspect.cleandoc(module.__doc__ or "")
    source = re.search(r"Source: (.*?)(?:Differs:|Differs from|\Z)", text, re.DOTALL)
    needs = [
        parameter.name + ("" if parameter.default is parameter.empty and parameter.name not in _DEFAULT else "?")
        for parameter in inspect.signature(strategy.run).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _GIVEN
    ]
    return {
        "name": name,
        "summary": " ".join(text.split("\n\n")[0].split()),
        "source": " ".join(source[1].split()) if source else "",
        "hyperparameters": {field.name: field.default for field in dataclasses.fields(strategy)},
        "needs": needs,
    }
