"""What the hyperparameters of several strategies have in common: ranges, choices, and how an error says so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from outthink.errors import UsageError


def check(
    strategy: Any,
    *,
    at_least_one: Iterable[str] = (),
    above_zero: Iterable[str] = (),
    at_least_zero: Iterable[str] = (),
    shares: Iterable[str] = (),
) -> None:
    """Raise ValueError, in one sentence, where a field is out of range.

    Fields whose type is a Literal must be one of its values, and a delimiter must not be empty.

    Args:
        strategy: a dataclass.
        at_least_one: names of the fields that count something; None is nothing to count.
        above_zero, at_least_zero: names of fields with finite numbers.
        shares: names of fields in [0, 1].
    """

    def wrong(name: str, rule: str) -> ValueError:
        return ValueError(f"{name} must be {rule}, not {getattr(strategy, name)}")

    for name in at_least_one:
        value = getattr(strategy, name)
        if value is not None and value < 1:
            raise wrong(name, "at least 1")
    for name in above_zero:
        if not (math.isfinite(getattr(strategy, name)) and getattr(strategy, name) > 0):
            raise wrong(name, "a number above 0")
    for name in at_least_zero:
        if not (math.isfinite(getattr(strategy, name)) and getattr(strategy, name) >= 0):
            raise wrong(name, "a number of at least 0")
    for name in shares:
        if not 0 <= getattr(strategy, name) <= 1:
            raise wrong(name, "in [0, 1]")
    for name, choices in _choices(strategy.__class__).items():
        if getattr(strategy, name) not in choices:
            raise wrong(name, " or ".join((", ".join(choices[:-1]), choices[-1])))
    if getattr(strategy, "delimiter", None) == "":
        raise ValueError("delimiter must not be empty")


def check_config(strategy: Any, name: str, what: str) -> None:
    """Empty the field that a `config` file takes the place of; UsageError where both are given.

    Args:
        strategy: a dataclass with a field `config`.
        name: of the field, whose default counts as not given: nobody is told of what does not run.
        what: it describes, for people.
    """
    if not strategy.config:
        return
    if getattr(strategy, name) == getattr(type(strategy), name):
        object.__setattr__(strategy, name, "")
    if getattr(strategy, name):
        raise UsageError(f"{what} is given by {name} or by config, not by both: leave one out.")


@lru_cache
def _choices(kind: type) -> dict[str, tuple[str, ...]]:
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: get_args(hints[name]) for name in names if get_origin(hints[name]) is Literal}
