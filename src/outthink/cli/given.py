"""What a user gave as text, as what it stands for."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from outthink.cli.shown import note
from outthink.errors import UnknownName, UsageError
from outthink.names import file_name
from outthink.types import AnswerKind

if TYPE_CHECKING:
    from outthink.models.engine import Price
    from outthink.strategies import Strategy


def given_writer(name: str) -> Any:
    """What is known of a model of the catalogue without opening it."""
    from outthink.cost.shapes import read_shape
    from outthink.models import catalog
    from outthink.models.engine import EngineSpec

    if name not in catalog.entries():
        raise UnknownName("model", name, catalog.entries())
    file = catalog.path(name)
    if file is None:
        raise UsageError(f"The model {name} is not on this machine yet: run `outthink models pull {name}`.")
    return EngineSpec(name=name, shape=read_shape(file))


def given_amounts(text: str) -> list[float] | None:
    """Amounts separated by commas, with k, M, G or T; None of nothing."""
    scale = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
    amounts = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        number, factor = (part[:-1], scale[part[-1]]) if part[-1] in scale else (part, 1.0)
        try:
            amounts.append(float(number) * factor)
        except ValueError:
            amounts.append(math.nan)
        if not 0 < amounts[-1] < math.inf:
            raise UsageError(f"Cannot read the budget {part!r}; write amounts above 0 such as 200,1k,2T.")
    return amounts or None


def given_strategy(name: str, context: typer.Context) -> Strategy:
    """The strategy with the hyperparameters that were given as further options, which the parser has checked."""
    from outthink.strategies.making import make_strategy

    parameters: dict[str, Any] = {}
    for word in context.args:
        option, _, value = word.removeprefix("--").partition("=")
        parameters[option.replace("-", "_")] = value.replace("\\n", "\n")  # --delimiter '\n' as people write it
    return make_strategy(name, parameters)


def given_question(given: str | None) -> str:
    """The question, from standard input where it is - or left out; raises UsageError where there is none to read."""
    if given is not None and given != "-":
        return given
    stream = sys.stdin
    if stream is None or (given is None and stream.isatty()):
        raise UsageError("There is no question: write it in quotes, or pipe it in.")
    try:
        text = stream.read()
        text.encode()  # where the system's encoding is none, what is no text comes as surrogates
    except UnicodeError:
        raise UsageError(f"The question on standard input is not {stream.encoding} text.") from None
    except OSError as cause:
        raise UsageError(f"Cannot read the question from standard input: {cause.strerror or cause}.") from None
    if not text.strip():
        raise UsageError("The question is empty; write it in quotes, or pipe it in.")
    return text.rstrip("\r\n")  # which `echo` adds


def given_kind(text: str | None) -> Any:
    """A kind of answer; None of None."""
    kinds = get_args(AnswerKind)
    if text is not None and text not in kinds:
        raise UnknownName("kind of answer", text, kinds)
    return text


def given_text(path: Path) -> str:
    """The content of a file; raises UsageError where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as cause:
        raise UsageError(f"Cannot read {path}: {cause.strerror}.") from None
    except UnicodeError:
        raise UsageError(f"Cannot read {path}: it is not UTF-8 text.") from None


def given_schema(path: Path) -> Any:
    """A JSON Schema from its file; raises UsageError where it is none."""
    try:
        schema = json.loads(given_text(path))
    except ValueError:
        schema = None
    if not isinstance(schema, dict | bool):
        raise UsageError(f"{path} holds no JSON Schema: it must be a JSON object.")
    return schema


def given_prices(given: list[str] | None) -> dict[str, Price | str]:
    """Prices by role; "auto" and paths of files stay as they are, since they need the name of the model."""
    from outthink.cost.price import read_prices

    return read_prices(given)


def priced_engine(given: Price | str, name: str) -> Price:
    """The price of the model `name`; says on standard error where it was looked up."""
    if not isinstance(given, str):
        return given
    from outthink.cost.price import price_of
    from outthink.models import with_model

    # a server asks for prices while its loop runs, but by the names of models
    price, where = price_of(given, name if "#" in name else asyncio.run(with_model(name)))
    cached = "" if price.cached is None else f", {price.cached:g} cached"
    note(f"Price: {price.prompt:g} prompt, {price.completion:g} completion{cached}, USD per million ({where}).")
    return price


def given_shard(text: str | None) -> tuple[int, int] | None:
    """I/K as two numbers."""
    if text is None:
        return None
    try:
        place, shards = (int(part) for part in text.split("/"))
    except ValueError:
        raise UsageError(f"Cannot read the shard {text!r}; write I/K, such as 0/4.") from None
    return place, shards


def writable_json(out: Path) -> None:
    """Raise UsageError, before anything is computed, where no .json file can be written there."""
    writable_as(out, ".json")


def writable_as(out: Path, suffix: str) -> None:
    """Raise UsageError, before anything is computed, where no file that ends so can be written there."""
    if out.suffix != suffix or not os.path.isdir(out.parent):
        raise UsageError(f"Cannot write {out}: name a {suffix} file in a folder that exists.")


def task_name(task: str) -> str:
    """A task as part of the name of a file: of a file of problems without what its name ends in."""
    return file_name(re.sub(r"\.jsonl(?:\.gz)?$", "", task))
