"""Which model has which role, as people say it at every door: "generator" is the one that writes the answers.

Inside it is the role "model", as in addresses, ledgers and traces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from outthink.errors import UsageError

T = TypeVar("T")

MAIN = "model"
GENERATOR = "generator"

_NEXT = re.compile(r",(?=\s*[\w-]+=)")  # a name of a model may have commas of its own


def known_role(role: str) -> str:
    """The role as it is called inside."""
    return MAIN if role == GENERATOR else role


def read_roles(given: Sequence[str] | None) -> dict[str, str]:
    """Names of models by role, from texts such as "generator=NAME,judge=NAME".

    Raises UsageError where one cannot be read, or a role is given twice.
    """
    names: dict[str, str] = {}
    for text in given or ():
        for part in _NEXT.split(text):
            role, _, name = part.strip().partition("=")
            if not role or not name or role == MAIN:
                raise UsageError(
                    f"Cannot read --role {part!r}; write ROLE=MODEL, such as judge=smollm2-135m-instruct, and "
                    f"{GENERATOR}=MODEL for the one that writes the answers."
                )
            if known_role(role) in names:
                raise UsageError(f"The role {role!r} is given twice; give it one model.")
            names[known_role(role)] = name
    return names


def by_role(main: T | None, others: Mapping[str, T] | None) -> dict[str, T]:
    """The models by role, the main one first, which may be among the others as "generator" instead.

    Raises UsageError where there is none, or two.
    """
    named = others or {}
    if GENERATOR in named and main is not None and named[GENERATOR] is not main:
        raise UsageError(f"Two models write the answers: give model=... or the role {GENERATOR!r}, not both.")
    first = next((one for one in (main, named.get(GENERATOR), named.get(MAIN)) if one is not None), None)
    if first is None:
        raise UsageError(f"No model writes the answers: give model=..., or models={{{GENERATOR!r}: ...}}.")
    return {MAIN: first, **{role: one for role, one in named.items() if role not in (MAIN, GENERATOR)}}
