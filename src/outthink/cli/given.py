"""What a user gave as text, as what it stands for."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from outthink.cli.shown import note
from outthink.errors import UnknownName, UsageError
from outthink.types import AnswerKind

if TYPE_CHECKING:
    from outthink.models.engine import Price
    from outthink.strategies import Strategy
    from outthink.tasks.example import Example
    from outthink.types import Sampling


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
    found = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        number, factor = (part[:-1], scale[part[-1]]) if part[-1] in scale else (part, 1.0)
        try:
            found.append(float(number) * factor)
        except ValueError:
            found.append(math.nan)
        if not 0 < found[-1] < math.inf:
            raise UsageError(f"Cannot read the budget {part!r}; write amounts above 0 such as 200,1k,2T.")
    return found or None


def given_strategy(name: str, context: typer.Context) -> Strategy:
    """The strategy with the hyperparameters that were given as further options."""
    from outthink.strategies.making import make_strategy

    parameters: dict[str, Any] = {}
    words = list(context.args)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UsageError(
                f"Unexpected argument {word!r}; put the question in quotes, and write options as --name value."
            )
        option, _, value = word[2:].partition("=")
        if not value:
            if not words or words[0].startswith("--"):
                raise UsageError(f"The option --{option} needs a value.")
            value = words.pop(0)
        parameters[option.replace("-", "_")] = value.replace("\\n", "\n")  # --delimiter '\n' as people write it
    known = [field.replace("_", "-") for field in make_strategy(name).__dataclass_fields__]
    for given in parameters:
        if given.replace("_", "-") not in known:
            own = [option for parameter in context.command.params for option in parameter.opts if option[:2] == "--"]
            options = [*(f"--{field}" for field in known), *own]
            raise UnknownName(f"option of {name}", f"--{given.replace('_', '-')}", options)
    return make_strategy(name, parameters)


def given_sampling(temperature: float, top_p: float, max_tokens: int) -> Sampling:
    """Sampling of three options; raises UsageError where one is out of range."""
    from outthink.types import Sampling

    try:
        return Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    except ValueError as cause:
        raise UsageError(f"{cause}.") from None


def given_kind(text: str | None) -> Any:
    """A kind of answer; math where none is given."""
    kinds = get_args(AnswerKind)
    if text is not None and text not in kinds:
        raise UnknownName("kind of answer", text, kinds)
    return text or "math"


def given_prices(given: list[str] | None) -> dict[str, Price | str]:
    """Prices by role; "auto" and paths of files stay as they are, since they need the name of the model."""
    from outthink.models.engine import Price

    prices: dict[str, Price | str] = {}
    for text in given or []:
        role, _, amounts = text.rpartition("=")
        if amounts == "auto" or amounts.endswith(".json"):
            prices[role or "model"] = amounts
            continue
        try:
            prompt, completion = (float(part) for part in amounts.split(","))
            prices[role or "model"] = Price(prompt=prompt, completion=completion)
        except ValueError:
            raise UsageError(
                f"Cannot read the price {text!r}; write PROMPT,COMPLETION in US dollars per million tokens, auto or "
                "FILE.json, with ROLE= before it for the model of a role."
            ) from None
    return prices


def priced_engine(given: Price | str, name: str) -> Price:
    """The price of the model `name`; says on standard error where it was looked up."""
    if not isinstance(given, str):
        return given
    from outthink.cost.price import price_of

    found, where = price_of(given, name)
    cached = "" if found.cached is None else f", {found.cached:g} cached"
    note(f"Price: {found.prompt:g} prompt, {found.completion:g} completion{cached}, USD per million ({where}).")
    return found


def loaded_task(
    task: str, file: Path | None, split: str, limit: int | None, template: str | None, answer: str | None, seed: int
) -> list[Example]:
    """The examples of a task or of a file."""
    from outthink import tasks

    kind = None if answer is None else given_kind(answer)
    return tasks.load(task, path=file, split=split, limit=limit, template=template, answer=kind, seed=seed)


def given_shard(text: str | None) -> tuple[int, int] | None:
    """I/K as two numbers."""
    if text is None:
        return None
    try:
        place, of = (int(part) for part in text.split("/"))
    except ValueError:
        raise UsageError(f"Cannot read the shard {text!r}; write I/K, such as 0/4.") from None
    return place, of


def writable_json(out: Path) -> None:
    """Raise UsageError, before anything is computed, where no .json file can be written there."""
    if out.suffix != ".json" or not out.parent.is_dir():
        raise UsageError(f"Cannot write {out}: name a .json file in a folder that exists.")


def file_name(text: str) -> str:
    """A text with what files may be called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
