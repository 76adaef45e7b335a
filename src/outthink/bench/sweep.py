"""Reads a sweep: a TOML file that stands for many runs, each with options as `outthink bench` takes them.

Top-level keys are options of all runs, and tables `[[task]]`, `[[model]]` and `[[strategy]]` those of some. A list is
an axis: every one of its values is tried with every value of the others. An option that may be given several times is
a list by itself, so that only a list of lists is an axis of it; what is a list within an axis is one value.

With `one_at_a_time = true` the first value of every axis is the base, and each other value is tried with the base's
values of the others only. Gains need not add: measure what was kept together, on other questions.

Source: of one factor at a time, Bag of Tricks for Inference-time Computation of LLM Reasoning (2025); the authors'
code and the abstract were read, not the paper's tables. Differs: seeds, models, tasks and strategies are crossed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outthink.errors import UsageError
from outthink.names import file_name

_PARTS = ("model", "task", "strategy")
"""What a cell is made of; each is a name, a list of names, or tables with a `name`."""

_SLOW = ("model", "seed", "task")
"""What changes last, the slowest first: a model is opened once, and every strategy is tried before a further seed."""

_CROSSED = frozenset({*_PARTS, "seed"})
"""What is no factor where factors are changed one at a time."""

_NO_SETTING = frozenset({"concurrency"})
"""Options that change no result, so that a run goes on with others."""

_OWN = frozenset({"out", "plan", "calibration"})
_MOST_CELLS = 10_000
_LONGEST = 100  # characters of a folder's name before its digest


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepCell:
    """One run of a sweep.

    Args:
        options: of `outthink bench` by their names, task, strategy and model included; a tuple is given several times.
        title: what it is called in short.
    """

    options: Mapping[str, Any]
    title: str

    def words(self) -> list[str]:
        """The words of `outthink bench` that carry it out, without its folder."""
        words = [str(self.options["task"])]
        for name, value in self.options.items():
            if name != "task":
                given = value if isinstance(value, tuple) else (value,)
                words += [f"--{name.replace('_', '-')}={_written(one)}" for one in given]
        return words

    def command(self, out: Path) -> list[str]:
        """The command that does the same alone."""
        return ["outthink", "bench", *self.words(), f"--out={self.folder(out)}"]

    @property
    def digest(self) -> str:
        """Eight digits that tell cells apart, the same in every sweep."""
        settings = {name: value for name, value in self.options.items() if name not in _NO_SETTING}
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=4).hexdigest()

    def method(self) -> str:
        """The same for cells that differ in nothing but their seed."""
        return json.dumps({name: value for name, value in self.options.items() if name != "seed"}, sort_keys=True)

    def folder(self, out: Path) -> Path:
        """Its run directory: the one that is there already, whatever it is called by now, else one with its title."""
        there = sorted(out.glob(f"*-{self.digest}"))
        return there[0] if there else out / f"{file_name(self.title)[:_LONGEST]}-{self.digest}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """All runs of a sweep.

    Args:
        out: the folder that holds their directories.
        plan, calibration: files from which costs are predicted; None: there is none.
    """

    out: Path
    plan: Path | None
    calibration: Path | None
    cells: tuple[SweepCell, ...]


def read_sweep(file: Path, *, repeated: frozenset[str] = frozenset()) -> Sweep:
    """The sweep in a TOML file.

    Args:
        repeated: options that may be given several times.

    Raises UsageError where it cannot be read, names no task or no strategy, or has a cell twice. What options there
    are is for the reader of `SweepCell.words` to say.
    """
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as cause:
        raise UsageError(f"Cannot read {file}: {cause.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise UsageError(f"{file} is no TOML: {cause}.") from None
    own = {name: told.pop(name, None) for name in sorted(_OWN)}
    for name, value in own.items():
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{file}: {name} is a path, not {value!r}.")
    told = {name.replace("-", "_"): value for name, value in told.items()}
    singly = told.pop("one_at_a_time", False)
    if not isinstance(singly, bool):
        raise UsageError(f"{file}: one_at_a_time is true or false, not {singly!r}.")
    parts = [_part(file, told, name) for name in _PARTS]
    for name, choices in zip(_PARTS, parts, strict=True):
        if not choices and name != "model":
            raise UsageError(f'{file} names no {name}: write {name} = "NAME", or a table [[{name}]] with a name.')
    shared = {name: value for name, value in told.items() if name not in _PARTS}
    for name, value in shared.items():
        if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(one, Mapping) for one in value)):
            raise UsageError(f"{file}: {name} is a table; there may be [[task]], [[model]] and [[strategy]].")
    several = {name for name, choices in zip(_PARTS, parts, strict=True) if len(choices) > 1}
    every: list[tuple[dict[str, Any], set[str]]] = []
    for combined in itertools.product(*(choices or [{}] for choices in parts)):
        options = {**shared, **{name: value for choice in combined for name, value in choice.items()}}
        axes = {name: _axis(file, name, value, repeated) for name, value in options.items()}
        if len(every) + _size(axes, singly) > _MOST_CELLS:
            raise UsageError(f"{file} is more than {_MOST_CELLS:,} runs; make its lists shorter.")
        told_of = {name for name, axis in axes.items() if len(axis) > 1} | combined[-1].keys() | several
        every += [(options, told_of) for options in _crossed(axes, singly)]
    places = {name: list(dict.fromkeys(options.get(name) for options, _ in every)) for name in _SLOW}
    every.sort(key=lambda cell: [places[name].index(cell[0].get(name)) for name in _SLOW])
    cells = tuple(SweepCell(options=options, title=_title(options, told_of)) for options, told_of in every)
    if len({cell.digest for cell in cells}) < len(cells):
        twice = next(cell for place, cell in enumerate(cells) if cell.digest in {one.digest for one in cells[:place]})
        raise UsageError(f"{file} has the run {twice.title} twice: leave one out.")
    return Sweep(
        out=Path(own["out"] or Path("runs", file.stem)),
        plan=None if own["plan"] is None else Path(own["plan"]),
        calibration=None if own["calibration"] is None else Path(own["calibration"]),
        cells=cells,
    )


def one_factor(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The first values of all axes, and for every other value of each axis the first ones with that value."""
    base = {name: axis[0] for name, axis in axes.items()}
    return [base, *({**base, name: value} for name, axis in axes.items() for value in axis[1:])]


def _crossed(axes: Mapping[str, Sequence[Any]], singly: bool) -> list[dict[str, Any]]:
    """The settings of a cell: each value with each, or the factors one at a time for each of the rest."""
    rest = {name: axis for name, axis in axes.items() if not singly or name in _CROSSED}
    factors = one_factor({name: axis for name, axis in axes.items() if name not in rest})
    crossed = (dict(zip(rest, values, strict=True)) for values in itertools.product(*rest.values()))
    return [{name: (setting | factor)[name] for name in axes} for setting in crossed for factor in factors]


def _size(axes: Mapping[str, Sequence[Any]], singly: bool) -> int:
    """How many these are."""
    rest = [len(axis) for name, axis in axes.items() if not singly or name in _CROSSED]
    factors = [len(axis) - 1 for name, axis in axes.items() if singly and name not in _CROSSED]
    return math.prod(rest) * (1 + sum(factors))


def _part(file: Path, told: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    """The choices of a task, model or strategy, each with its options and its name among them."""
    given = told.get(part, [])
    choices: list[dict[str, Any]] = []
    for one in given if isinstance(given, list) else [given]:
        table = {"name": one} if isinstance(one, str) else one
        if not isinstance(table, Mapping) or not table.get("name"):
            raise UsageError(f"{file}: each {part} is a name, or a table with a name.")
        options = {name.replace("-", "_"): value for name, value in table.items()}
        choices.append({part: options.pop("name"), **options})
    return choices


def _axis(file: Path, name: str, value: Any, repeated: frozenset[str]) -> list[Any]:
    """The values that an option takes, one after the other."""
    if name in repeated:
        several = value if isinstance(value, list) and any(isinstance(one, list) for one in value) else [value]
        values: list[Any] = [tuple(one) if isinstance(one, list) else (one,) for one in several]
    else:
        values = [",".join(map(_written, one)) if isinstance(one, list) else one for one in _listed(value)]
    if not values:
        raise UsageError(f"{file}: {name} is an empty list; leave it out, or name its values.")
    for one in values:
        for leaf in one if isinstance(one, tuple) else (one,):
            if not isinstance(leaf, str | int | float | bool):
                raise UsageError(f"{file}: {name} cannot be {leaf!r}; write texts, numbers, true or false.")
    return values


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _title(options: Mapping[str, Any], told_of: set[str]) -> str:
    """Task, strategy, what is said of the strategy, what varies, and the seed."""
    head = [re.sub(r"\.jsonl(?:\.gz)?$", "", Path(str(options["task"])).name), str(options["strategy"])]
    if "model" in told_of:
        head.append(Path(str(options["model"]).rpartition("#")[2]).name)
    further = [
        f"{name}{_written(value) if not isinstance(value, tuple) else '+'.join(map(_written, value))}"
        for name, value in options.items()
        if name in told_of - {*_PARTS, "seed"}
    ]
    seed = [f"seed{options['seed']}"] if "seed" in options else []
    return "-".join([*head, *further, *seed])
