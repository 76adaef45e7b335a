"""Dollars: the price of a model by its name, from published prices or from a file.

Source: the package genai-prices with the data that it ships (nothing is fetched), and the form of LiteLLM's
model_prices_and_context_window.json, both read. Differs: what cannot be said as dollars per token (a fee per request,
reasoning at another rate) is refused and not left out. Where a price rises with the length of the prompt, it is that
of the shortest prompts; where it changes with the time of day, that of now.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from outthink.errors import UsageError
from outthink.models.engine import Engine, Price, priced_as
from outthink.models.roles import MAIN, known_role

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, Provider

_NEAR = 3  # names that are suggested
_BESIDE = {"requests_kcount", "output_reasoning_mtok"}  # what is billed for every request, or at another rate
_LITELLM = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")
_OWN = ("prompt", "completion", "cached")


Prices = str | Price | Iterable[str] | Mapping[str, str | Price] | None
"""What `read_prices` reads."""


def read_prices(given: Prices) -> dict[str, Price | str]:
    """Prices by role; "auto" and paths of .json files stay as they are, since they need the name of the model.

    Args:
        given: texts such as "0.15,0.60" (prompt and completion, US dollars per million tokens), "auto" or a path,
            with ROLE= before it for the model of a role, else the one that writes the answers; or the prices
            themselves, by role.

    Raises UsageError where a text cannot be read.
    """
    if isinstance(given, Mapping):
        return {
            known_role(role): price if isinstance(price, Price) else _read(price, price)
            for role, price in given.items()
        }
    if isinstance(given, Price):
        return {MAIN: given}
    prices: dict[str, Price | str] = {}
    for text in [given] if isinstance(given, str) else given or []:
        role, _, amounts = text.rpartition("=")
        price, role = _read(amounts, text), known_role(role or MAIN)
        if prices.setdefault(role, price) != price:
            raise UsageError(f"The role {role} has two prices; give it one.")
    return prices


def _read(amounts: str, text: str) -> Price | str:
    if amounts == "auto" or amounts.endswith(".json"):
        return amounts
    try:
        prompt, completion = (float(part) for part in amounts.split(","))
        return Price(prompt=prompt, completion=completion)
    except ValueError:
        raise UsageError(
            f"Cannot read the price {text!r}; write PROMPT,COMPLETION in US dollars per million tokens, auto or "
            "FILE.json, with ROLE= before it for the model of a role."
        ) from None


def asking(role: str = "model") -> str:
    """How people say what the model of a role costs, as the end of a sentence that asks for it."""
    given = "" if role == "model" else f"{role}="
    return (
        f"--price {given}PROMPT,COMPLETION in US dollars per million tokens, such as {given}0.15,0.60, or "
        f"--price {given}auto (price= in Python)."
    )


def prices_by_name(names: Mapping[str, str], prices: Mapping[str, Price | str]) -> dict[str, Price | str]:
    """The prices of models by their names, from the names and the prices by role; a model has one in every role.

    Raises UsageError where a model is given two prices.
    """
    wanted = {name: prices[role] for role, name in names.items() if role in prices}
    for role, name in names.items():
        if name in wanted and prices.get(role, wanted[name]) != wanted[name]:
            raise UsageError(f"{name} has two prices; a model has the same one in every role.")
    return wanted


def with_prices(engines: Mapping[str, Engine], prices: Mapping[str, Price | str]) -> dict[str, Engine]:
    """The engines by role, those of the roles in `prices` with that price; the engines themselves stay as they are.

    Raises UsageError where there is a price for a role without an engine, where there is none by that name, and where
    one engine is given two.
    """
    for role in prices:
        if role not in engines:
            raise UsageError(f"There is a price for the role {role!r} but no model.")
    wanted: dict[int, Price] = {}
    for role, given in prices.items():
        name = engines[role].spec.name
        price = price_of(given, name)[0] if isinstance(given, str) else given
        if wanted.setdefault(id(engines[role]), price) != price:
            raise UsageError(f"{name} has two prices; a model has the same one in every role.")
    priced = {id(engine): engine for engine in engines.values()}
    priced |= {key: priced_as(priced[key], price) for key, price in wanted.items()}
    return {role: priced[id(engine)] for role, engine in engines.items()}


def price_of(given: str, model: str) -> tuple[Price, str]:
    """The price of `model` and, in words, where it is from.

    Args:
        given: "auto" for published prices, or the path of a .json file (see `from_file`).
        model: a name, or the address of a server with #MODEL.

    Raises UsageError where there is none, with near names.
    """
    address, _, fragment = model.partition("#")
    served = model.startswith(("http://", "https://"))
    name = unquote(fragment) if served else model
    if given != "auto":
        return from_file(given, name)
    if served and not name:
        raise UsageError(f"The price of a model goes by its name: write the address as {address}#MODEL.")
    return published(name, address if served else None)


def published(model: str, address: str | None = None) -> tuple[Price, str]:
    """The price of `model` in genai-prices, and the provider and name under which it is there.

    Args:
        address: of the server; where it is that of a provider, the price is that provider's.
    """
    try:
        from genai_prices import __version__
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        raise UsageError("Published prices need one more package: pip install 'outthink[prices]'.") from None

    provider, entry = _sold(get_snapshot(), model, address, f"genai-prices {__version__}")
    units = {unit: value for unit, value in vars(entry.get_prices(datetime.now(UTC))).items() if value is not None}
    where = f"{provider.id} {entry.id} in genai-prices {__version__}"
    if not {"input_mtok", "output_mtok"} <= units.keys() or units.keys() & _BESIDE:
        raise UsageError(
            f"{where} is not priced by prompt and completion tokens alone ({', '.join(sorted(units)) or 'no prices'}); "
            "write --price PROMPT,COMPLETION."
        )
    dollars = {unit: float(getattr(value, "base", value)) for unit, value in units.items() if unit.endswith("_mtok")}
    return _price(dollars["input_mtok"], dollars["output_mtok"], dollars.get("cache_read_mtok"), where), where


def _sold(snapshot: DataSnapshot, model: str, address: str | None, where: str) -> tuple[Provider, ModelInfo]:
    """By the provider of the address, else by the pattern of the name, else by the name itself if one has it."""
    for api in dict.fromkeys((address, None)):
        with contextlib.suppress(LookupError):
            return snapshot.find_provider_model(model, None, None, api)
    every = [(provider, entry) for provider in snapshot.providers for entry in provider.models]
    named = [(provider, entry) for provider, entry in every if entry.id == model]
    if not named:
        raise _unknown(model, {entry.id for _, entry in every}, where)
    if len(named) > 1:
        raise UsageError(
            f"{model} has a price of its own at each of {', '.join(provider.id for provider, _ in named)}; write the "
            "address of one as the model (https://HOST/v1#MODEL), or --price PROMPT,COMPLETION."
        )
    return named[0]


def from_file(path: str | Path, model: str) -> tuple[Price, str]:
    """The price of `model` in a JSON file, and its name there.

    The file is {"prompt": 0.15, "completion": 0.6, "cached": 0.075} in US dollars per million tokens ("cached" may be
    left out), the same by names of models, or LiteLLM's, by names with dollars per token.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as cause:
        raise UsageError(f"Cannot read the prices in {path}: {cause.strerror}.") from None
    except ValueError:
        raise UsageError(f"{path} holds no prices: it is no JSON.") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path} holds no prices: it must be an object with names of models.")
    entry, where = raw, str(path)
    if "prompt" not in raw:
        if model not in raw:
            raise _unknown(model, raw, str(path))
        entry, where = raw[model], f"{model} in {path}"
    return _entry(entry, where), where


def _entry(entry: Any, where: str) -> Price:
    if isinstance(entry, Mapping):
        for names, scale in ((_OWN, 1.0), (_LITELLM, 1e6)):
            values = [entry.get(name) for name in names]
            if all(_number(value) for value in values[:2]) and (values[2] is None or _number(values[2])):
                prompt, completion, cached = (None if value is None else value * scale for value in values)
                assert prompt is not None
                assert completion is not None
                return _price(prompt, completion, cached, where)
    raise UsageError(
        f"{where} has no price per token: it needs numbers as {_OWN[0]} and {_OWN[1]}, or {_LITELLM[0]} "
        f"and {_LITELLM[1]}."
    )


def _price(prompt: float, completion: float, cached: float | None, where: str) -> Price:
    try:
        # rounded, since dollars per token are so small that scaling them shows the last digit
        return Price(
            prompt=round(prompt, 9),
            completion=round(completion, 9),
            cached=None if cached is None else round(cached, 9),
        )
    except ValueError as cause:
        raise UsageError(f"{where}: {cause}.") from None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unknown(model: str, known: Iterable[str], where: str) -> UsageError:
    near = difflib.get_close_matches(model, list(known), n=_NEAR, cutoff=0.6)
    hint = f"did you mean {', '.join(map(repr, near))}? If not, write" if near else "write"
    return UsageError(f"There is no price of {model!r} in {where}; {hint} --price PROMPT,COMPLETION.")
