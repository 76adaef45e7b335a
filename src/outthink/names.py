"""Turns "module:attribute" into the object it stands for, and back; makes and calls things with options in text."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from outthink.errors import UnknownName, UsageError


def load(target: str) -> Any:
    """Import "module:attribute"; raises UsageError with the reason where that fails."""
    module, _, attribute = target.partition(":")
    try:
        loaded: Any = importlib.import_module(module)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
    except (ImportError, AttributeError, ValueError) as cause:
        raise UsageError(f"Cannot load {target!r}: {cause}. Write module:name, with the module importable.") from cause
    return loaded


def name_of(value: object) -> str:
    """The "module:name" of a class or function, for anything else that of its type: the same in every process."""
    named: Any = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def make(made: Any, options: Mapping[str, Any], *, name: str, what: str, fixed: Mapping[str, Any] | None = None) -> Any:
    """An object of the dataclass `made` with its fields from `options`, which may be text ("16", "0.4,0.8").

    Args:
        name, what: what is made and what its options are called, for errors.
        fixed: fields that are not options.

    Raises UnknownName for an option there is not, and UsageError where one is out of range.
    """
    from pydantic import TypeAdapter, ValidationError  # here, because importing pydantic is slow

    fixed = fixed or {}
    kinds = {field.name: str(field.type) for field in dataclasses.fields(made) if field.name not in fixed}
    read: dict[str, Any] = {}
    for option, value in options.items():
        if option not in kinds:
            raise UnknownName(f"{what} of {name}", option, kinds or ["none"])
        several = isinstance(value, str) and kinds[option].startswith("tuple[")
        read[option] = value.split(",") if several else value
    try:
        return TypeAdapter(made).validate_python({**read, **fixed})
    except ValidationError as cause:
        first = cause.errors()[0]
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        raise UsageError(f"{name}: {where}{first['msg'].removeprefix('Value error, ')}.") from None


def call(
    function: Callable[..., Any],
    options: Mapping[str, str],
    *given: Any,
    name: str,
    fixed: Mapping[str, Any] | None = None,
) -> Any:
    """What a function or class returns for `given` and options in text, each read by the type that it is declared with.

    Args:
        name: what it opens, for errors.
        fixed: keywords that are not options.

    Raises UnknownName for an option there is not, and UsageError where one cannot be read.
    """
    from pydantic import TypeAdapter, ValidationError  # here, because importing pydantic is slow

    fixed = fixed or {}
    declared = inspect.signature(function).parameters.values()
    known = [one.name for one in declared if one.kind is one.KEYWORD_ONLY and one.name not in fixed]
    kinds = get_type_hints(function.__init__ if inspect.isclass(function) else function) if options else {}
    read = {}
    for option, text in options.items():
        if option not in known:
            raise UnknownName(f"option of {name}", option, known or ["none"])
        try:
            read[option] = TypeAdapter(kinds.get(option, str)).validate_python(text)
        except ValidationError as cause:
            raise UsageError(f"{name}: {option}: {cause.errors()[0]['msg']}.") from None
    return function(*given, **read, **fixed)
