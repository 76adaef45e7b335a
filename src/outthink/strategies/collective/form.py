"""Files that say of what parts a method is put together: TOML with tables of the fields of a dataclass, and prompts.

Source: ours.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from string import Formatter
from typing import Any, TypeVar

from outthink.errors import UsageError

T = TypeVar("T")


def read_form(path: str | Path, what: str, parts: str, inner: str) -> tuple[list[Any], Any]:
    """The list of parts of a TOML file, and its table of prompts; beside them it may hold a `name` only.

    Args:
        what: it is, such as "architecture".
        parts: name of the list.
        inner: how it is written, such as "[[...], ...]".

    Raises UsageError in one sentence where it cannot be read.
    """
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as cause:
        raise UsageError(f"Cannot read the {what} {path}: {cause.strerror}.") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is no {what}: it is no TOML.") from None
    if not isinstance(raw.get(parts), list):
        raise UsageError(f"{path} is no {what}: it needs {parts} = {inner}.")
    if further := sorted(raw.keys() - {parts, "name", "prompts"}):
        raise UsageError(f"{path} says {further[0]!r}, which {an(what)} does not have: leave it out.")
    return raw[parts], raw.get("prompts", {})


def an(what: str) -> str:
    """The word with its article."""
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


def read_prompts(raw: Any, known: Mapping[str, str]) -> dict[str, str]:
    """Prompts that have the gaps of those they replace; else UsageError."""
    if not isinstance(raw, dict) or not all(isinstance(text, str) for text in raw.values()):
        raise UsageError("prompts must be a table of texts.")
    for name, text in raw.items():
        if name not in known:
            raise UsageError(f"There is no prompt {name!r}; there are {', '.join(known)}.")
        wanted = _gaps(known[name])
        try:
            gaps = _gaps(text)
        except ValueError:
            gaps = set()
        if gaps != wanted:
            raise UsageError(
                f"The prompt {name!r} must have the gaps {', '.join(f'{{{gap}}}' for gap in sorted(wanted))} and no "
                "others; write other braces twice."
            )
    return dict(raw)


def _gaps(text: str) -> set[str]:
    """Names in braces; a conversion, a format or an attribute is no plain name."""
    parts = [part for part in Formatter().parse(text) if part[1] is not None]
    return {name if not (form or conversion) else "" for _, name, form, conversion in parts if name is not None}


def read_table(entry: Any, kind: type[T], what: str, example: str) -> T:
    """A dataclass from a table of its fields; else UsageError in one sentence."""
    from pydantic import TypeAdapter, ValidationError  # here, because importing pydantic is slow

    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]  # it is a dataclass
    if not isinstance(entry, dict):
        raise UsageError(f"{an(what).capitalize()} is a table such as {example}, not {entry!r}.")
    if further := sorted(entry.keys() - {*names}):
        raise UsageError(f"{an(what).capitalize()} has no {further[0]!r}; it has {', '.join(names)}.")
    try:
        # as JSON, for a strict reader takes a table for a dataclass only there
        read: T = TypeAdapter(kind).validate_json(json.dumps(entry, default=str), strict=True)
    except ValidationError as cause:
        first = cause.errors()[0]
        raise UsageError(f"{an(what).capitalize()}'s {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    return read


def written_table(one: Any, plain: Any) -> str:
    """A dataclass as a table of TOML: its type, and those of its fields that are not as those of `plain`."""
    parts = [f'type = "{one.type}"']
    parts += [
        f"{entry.name} = {written_value(value)}"
        for entry in fields(one)
        if entry.name != "type" and (value := getattr(one, entry.name)) != getattr(plain, entry.name)
    ]
    return f"{{ {', '.join(parts)} }}"


def written_value(value: Any) -> str:
    """A text, a number or a list of numbers in TOML: as in JSON, save that no letter is written as two surrogates."""
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return text.encode(errors="replace").decode()  # names of files may have halves of pairs, which no file can hold
