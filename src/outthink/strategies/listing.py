"""Describes the strategies of the table, and others, from their own signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, cast

from outthink.errors import UsageError
from outthink.names import load
from outthink.strategies import STRATEGIES
from outthink.strategies.making import no_such_strategy

_GIVEN = ("rng", "meter", "models", "resources")  # always there, so nobody has to supply them
_DEFAULT = ("embedder",)  # there is one where nobody supplies another
_ITEM = re.compile(r"    ([a-z_]\w*(?:, [a-z_]\w*)*): (.*)", re.IGNORECASE)
_FAMILIES = {
    "parallel": "Parallel: samples side by side, one is chosen",
    "sequential": "Sequential: one attempt after the other",
    "collective": "Collective: further texts are made of the samples",
    "search": "Search: over steps, or over whole answers",
    "planner": "Planned: it runs the others",
}
"""The package that a strategy is in, and the heading above it."""


def describe() -> list[dict[str, Any]]:
    """One entry per strategy: name, family, summary, source, when it pays, hyperparameters with defaults, and needs.

    Needs are the resources that it names; one it can do without has a question mark. `one_of`: resources and powers of
    which it needs one. `powers`: what the model must be able to do beyond sampling, with default hyperparameters.
    """
    return [_entry(name, load(target)) for name, target in STRATEGIES.items()]


def describe_one(name: str) -> dict[str, Any]:
    """The entry of one strategy, by its name or as "module:Name"; hyperparameters behind it do not matter.

    It has more: how it differs from its source, and the descriptions of its hyperparameters by their names.

    Raises UsageError where there is no such strategy.
    """
    name = name.partition("?")[0]
    if name not in STRATEGIES and ":" not in name:
        raise no_such_strategy(name)
    made: Any = load(STRATEGIES.get(name, name))
    kinds: tuple[type, ...] = getattr(made, "__mro__", ())
    if not dataclasses.is_dataclass(made) or not inspect.iscoroutinefunction(getattr(made, "run", None)):
        raise UsageError(f"{name} is not a strategy: it must be a dataclass with a coroutine function run.")
    return {
        **_entry(name, made),
        "differs": _differs(_text(made)),
        "descriptions": {
            field: said for kind in reversed(kinds) for field, said in arguments(kind.__doc__ or "").items()
        },
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


def markdown() -> str:
    """The same as tables and lists, a heading for each family; this is what docs/strategies.md holds."""
    return "\n".join(_markdown()).rstrip("\n") + "\n"


def _entry(name: str, strategy: Any) -> dict[str, Any]:
    text = _text(strategy)
    needs = [
        parameter.name + ("" if parameter.default is parameter.empty and parameter.name not in _DEFAULT else "?")
        for parameter in inspect.signature(strategy.run).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _GIVEN
    ]
    return {
        "name": name,
        "family": next((family for family in _FAMILIES if family in strategy.__module__.split(".")), ""),
        "summary": " ".join(text.split("\n\n")[0].split()),
        "source": _part(text, "Source", r"Differs\b"),
        "pays": _part(text, "Pays"),
        "hyperparameters": {field.name: _default(field) for field in dataclasses.fields(strategy)},
        "needs": needs,
        "one_of": _by_default(strategy, "needs_one_of"),
        "powers": _by_default(strategy, "powers"),
    }


def _by_default(strategy: Any, trait: str) -> list[str]:
    """What a strategy says of a trait at its default hyperparameters; nothing where it cannot be made without any."""
    told: Any = getattr(strategy, trait, ())
    if isinstance(told, property):
        try:
            told = getattr(strategy(), trait)
        except (TypeError, ValueError):
            told = ()
    return sorted(cast("Iterable[str]", told))


def _text(strategy: Any) -> str:
    """The docstring of its module, or its own where the module has none."""
    return inspect.cleandoc(sys.modules[strategy.__module__].__doc__ or strategy.__doc__ or "")


def _differs(text: str) -> str:
    part = re.search(r"Differs:? (.*?)(?:\nPays:|\n\n|\Z)", text, re.DOTALL)
    return " ".join(part[1].split()) if part else ""


def _default(field: dataclasses.Field[Any]) -> Any:
    """None where there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _part(text: str, label: str, end: str = r"\Z") -> str:
    """What stands behind a label at the beginning of a line, up to `end` or to the end of its paragraph."""
    part = re.search(rf"^{label}: (.*?)(?:{end}|\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return " ".join(part[1].split()) if part else ""


def _markdown() -> Iterator[str]:
    entries = describe()
    for family, heading in _FAMILIES.items():
        members = [entry for entry in entries if entry["family"] == family]
        yield from (f"### {heading}", "", "| strategy | what it does | needs |", "|---|---|---|")
        for entry in members:
            cells = (f"`{entry['name']}`", _lowered(entry["summary"]), _needs(entry))
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield from ("", "When each pays:", "")
        yield from (f"- **`{entry['name']}`** pays {_linked(entry['pays'])}" for entry in members)
        yield ""


def _lowered(summary: str) -> str:
    """The sentence behind the method's name, which the row begins with already."""
    return (summary.partition(": ")[2] or summary).rstrip(".")


def _needs(entry: dict[str, Any]) -> str:
    powers = " and ".join(f"`{power}`" for power in entry["powers"])
    needs = [need for need in entry["needs"] if need.rstrip("?") not in entry["one_of"]]
    needs = [f"model with {powers}" if need == "model" and powers else need for need in needs]
    resources = {need.rstrip("?") for need in entry["needs"]}
    either = [need if need in resources else f"`{need}`" for need in entry["one_of"]]
    return ", ".join([*needs, " or ".join(either)] if either else needs)


def _linked(pays: str) -> str:
    """Pages that numbers come from, as links from docs/strategies.md; names of other strategies as code."""
    names = "|".join(name for name in STRATEGIES if "_" in name)  # the others are words as well
    return re.sub(rf"\b({names})\b", r"`\1`", re.sub(r"\(docs/(results/\w+\.md)\)", r"([measured](\1))", pays))
