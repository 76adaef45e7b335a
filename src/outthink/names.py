"""Turns names into what they stand for, and back: "module:attribute", options in text, names of files."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

from outthink.errors import OutthinkError, UnknownName, UsageError


def load(target: str) -> Any:
    """Import "module:attribute"; raises UsageError with the reason where that fails, whatever the module raises."""
    module, _, attribute = target.partition(":")
    try:
        loaded: Any = importlib.import_module(module)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
    except (ImportError, AttributeError, ValueError) as cause:
        raise UsageError(f"Cannot load {target!r}: {cause}. Write module:name, with the module importable.") from cause
    except (Exception, SystemExit) as cause:  # somebody's own module may raise anything while it is imported
        raise UsageError(f"Cannot load {target!r}: {_told(cause)}. Mend the module {module}.") from cause
    return loaded


def file_name(text: str) -> str:
    """A text with what files may be called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")


def name_of(value: object) -> str:
    """The "module:name" of a class or function, for anything else that of its type: the same in every process."""
    named: Any = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def make(made: Any, options: Mapping[str, Any], *, name: str, what: str, fixed: Mapping[str, Any] | None = None) -> Any:
    """An object of the dataclass `made` with its fields from `options`, which may be text ("16", "0.4,0.8").

    Args:
        name, what: what is made and what its options are called, for errors.
        fixed: fields that are not options.

    Raises UnknownName for an option there is not, and UsageError where one is out of range, cannot be read or is left
    out although it has no default.
    """
    fixed = fixed or {}
    declared = {field.name: field for field in dataclasses.fields(made) if field.init and field.name not in fixed}
    read = {}
    for option, value in options.items():
        if option not in declared:
            raise UnknownName(f"{what} of {name}", option, declared or ["none"])
        several = isinstance(value, str) and str(declared[option].type).startswith("tuple[")
        read[option] = _read(
            value.split(",") if several else value, _kind(_declaring(made, option), option, name), option, name
        )
    missing = dataclasses.MISSING
    needed = [key for key, field in declared.items() if field.default is missing and field.default_factory is missing]
    _check_given(needed, read, name)
    try:
        return made(**read, **fixed)
    except ValueError as cause:
        raise UsageError(f"{name}: {_sentence(cause)}.") from None


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

    Raises UnknownName for an option there is not, and UsageError where one cannot be read or is left out although it
    has no default.
    """
    fixed = fixed or {}
    parameters = list(inspect.signature(function).parameters.values())
    by_name = [one for one in parameters if one.kind is one.KEYWORD_ONLY]
    by_name += [one for one in parameters[len(given) :] if one.kind is one.POSITIONAL_OR_KEYWORD]
    declared = {one.name: one for one in by_name if one.name not in fixed}
    read = {}
    for option, text in options.items():
        if option not in declared:
            raise UnknownName(f"option of {name}", option, declared or ["none"])
        read[option] = _read(text, _kind(_code(function), option, name), option, name)
    _check_given([key for key, one in declared.items() if one.default is one.empty], read, name)
    return function(*given, **read, **fixed)


def make_own(target: str, options: Mapping[str, str], *, functions: bool = True) -> Any:
    """What "module:name" stands for: a class or function is called with its options, an object is there already.

    Args:
        functions: functions are called, too; otherwise they are what is wanted.

    Raises UnknownName for an option there is not, and UsageError where it cannot be loaded or made, whatever it raises.
    """
    own = load(target)
    called = inspect.isclass(own) or (functions and (inspect.isroutine(own) or isinstance(own, functools.partial)))
    if not called:
        if options:
            raise UsageError(f"{target} is there already, so it takes no options; leave {', '.join(options)} out.")
        return own
    try:
        return make(own, options, name=target, what="option") if _is_plain(own) else call(own, options, name=target)
    except OutthinkError:
        raise
    except Exception as cause:
        raise UsageError(f"{target} cannot be made: {_told(cause)}.") from cause


def _is_plain(own: Any) -> bool:
    """Whether it is a dataclass that is made as dataclasses are."""
    return inspect.isclass(own) and "__dataclass_fields__" in vars(own) and vars(own)["__dataclass_params__"].init


def _declaring(made: type, option: str) -> type:
    """The class, of a dataclass and those that it is made from, in whose module the type of a field has its names."""
    field = made.__dataclass_fields__[option]  # type: ignore[attr-defined]  # it is a dataclass
    return next(one for one in reversed(made.__mro__) if vars(one).get("__dataclass_fields__", {}).get(option) is field)


def _code(function: Callable[..., Any]) -> Any:
    """The function that is called in the end, which has the annotations."""
    while isinstance(function, functools.partial):
        function = function.func
    code: Any = inspect.unwrap(function)
    return code.__init__ if inspect.isclass(code) else code


def _kind(code: Any, option: str, name: str) -> Any:
    """The type that an option is declared with, text where it is with none; those of the others need not be there."""

    def declared() -> None: ...

    try:
        declared.__annotations__ = {option: code.__annotations__[option]} if hasattr(code, "__annotations__") else {}
        return get_type_hints(declared, getattr(code, "__globals__", vars(sys.modules[code.__module__])))[option]
    except KeyError:
        return str
    except Exception as cause:
        raise UsageError(f"{name}: the type of {option} cannot be looked up: {_told(cause)}.") from cause


def _read(value: Any, kind: Any, option: str, name: str) -> Any:
    from pydantic import PydanticUserError, TypeAdapter, ValidationError  # here, because importing pydantic is slow

    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as cause:
        raise UsageError(f"{name}: {option}: {cause.errors()[0]['msg'].removeprefix('Value error, ')}.") from None
    except PydanticUserError as cause:
        if isinstance(value, str):
            raise UsageError(f"{name}: {option} cannot be given as text; leave it out.") from cause
        return value


def _check_given(needed: Iterable[str], read: Mapping[str, Any], name: str) -> None:
    absent = [option for option in needed if option not in read]
    if absent:
        raise UsageError(f"{name}: {absent[0]}: Field required; give it, as in {name}?{absent[0]}=VALUE.")


def _sentence(cause: BaseException) -> str:
    return str(cause).rstrip(".") or type(cause).__name__


def _told(cause: BaseException) -> str:
    return f"{type(cause).__name__}: {_sentence(cause)}"
