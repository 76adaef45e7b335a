"""Options of a command that may stand in a file, and everything that is wrong with them, told together.

The names in the file are those of the command's own options, and of the strategy's hyperparameters: its entries become
words of the command line before those that were typed, and so are read and checked as they are.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from typer.exceptions import TyperException

from outthink.cli.parsing import HyperparameterCommand, hyperparameters, unexpected
from outthink.errors import OutthinkError, UnknownName, UsageError

T = TypeVar("T")
FILE = Path("outthink.toml")
"""Read where it is in the working directory and no other one is named."""

_INSTEAD = {"upstream": "model", "model": "upstream"}
"""Of these one is given: where it is typed, the other one of the file does not count."""
_ONCE = ("upstream", "model", "strategy")
_OWN = ("config", "check", "help")  # say what is read and not what is served


class Mistakes:
    """What is wrong with a command.

    Args:
        gathers: whether all of it is told at the end; else the first one is raised at once.
    """

    def __init__(self, *, gathers: bool) -> None:
        self.gathers = gathers
        self.told: list[str] = []

    def tried(self, made: Callable[[], T], otherwise: T, where: str = "") -> T:
        """What `made` returns; `otherwise` where it raises and mistakes are gathered.

        Args:
            where: the file in which it stands.
        """
        try:
            return made()
        except (OutthinkError, TyperException) as cause:
            if not self.gathers and not where:
                raise
            said = cause.format_message() if isinstance(cause, TyperException) else str(cause)
            self.add(f"{where}: {said}" if where else said)
            return otherwise

    def add(self, sentence: str) -> None:
        """Something that is wrong."""
        if not self.gathers:
            raise UsageError(sentence)
        if sentence not in self.told:
            self.told.append(sentence)


@dataclass(frozen=True, kw_only=True)
class _Word:
    """An option with what it is given.

    Args:
        name: as it was written.
        value: None for a flag.
        file: where it stands; empty on the command line.
    """

    option: Any
    name: str
    value: str | None
    file: str = ""

    @property
    def word(self) -> str:
        return self.name if self.value is None else f"{_long(self.option)}={self.value}"


class ConfiguredCommand(HyperparameterCommand):
    """A command that takes its options from a file, too; what is typed goes before.

    It leaves what is wrong in `meta["mistakes"]` of the context, and the file that was read in `meta["file"]`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set the parameters of the context, from the file and from what was typed."""
        own = self._options(ctx)
        asks_help = any(word in ctx.help_option_names for word in args)
        if ctx.resilient_parsing or asks_help:
            return super().parse_args(ctx, args)
        wrong = ctx.meta["mistakes"] = Mistakes(gathers="--check" in args)
        words, further = self._split(args, own, ctx)
        typed, others = _words(words, own)
        for word in others:
            wrong.add(unexpected(word))
        for one in further:
            wrong.tried(partial(self._check, words, [one], own), None)
        path = ctx.meta["file"] = _file(typed)
        nothing: dict[str, Any] = {}
        entries = nothing if path is None else wrong.tried(partial(_read, path), nothing)
        base = self._strategy(words, own)
        written, settings = _written(entries, own, str(path), base, str(self.name), wrong)
        if any(word.option is own["--strategy"] for word in typed) and entries.get("strategy", base) != base:
            settings = []  # they are meant for the strategy of the file
        told = {name for word in typed for name in (word.option.name, _INSTEAD.get(word.option.name))}
        whole = [word for word in written if word.option.name not in told] + typed
        for twice in _twice(typed):
            wrong.add(twice)
        fine = [word for word in whole if wrong.tried(partial(_fits, word, ctx), False, word.file)]
        typed_names = {name.replace("_", "-") for name, _ in further}
        settings = [word for word in settings if word.partition("=")[0] not in typed_names]
        rest = [name if value is None else f"{name}={value}" for name, value in further]
        try:
            return super().parse_args(ctx, [*(word.word for word in fine), *settings, *rest])
        except (OutthinkError, TyperException):
            if not wrong.told:
                raise
            return super().parse_args(ctx, [word.word for word in fine])  # what was wrong with the rest is told


def _long(option: Any) -> str:
    return next((name for name in option.opts if name.startswith("--")), str(option.opts[0]))


def _words(words: Iterable[str], own: Mapping[str, Any]) -> tuple[list[_Word], list[str]]:
    """The options with their values, and the words that belong to none."""
    typed: list[_Word] = []
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in own:
            if own[name].is_flag:
                typed.append(_Word(option=own[name], name=word, value=None))
            elif equals or rest:
                typed.append(_Word(option=own[name], name=name, value=value if equals else rest.pop(0)))
            else:
                others.append(word)
        elif word[1:2] != "-" and word[:2] in own:  # -n4
            typed.append(_Word(option=own[word[:2]], name=word[:2], value=word[2:]))
        else:
            others.append(word)
    return typed, others


def _file(typed: Iterable[_Word]) -> Path | None:
    """The file that is read; None: none."""
    for word in typed:
        if word.option.name == "config":
            return Path(word.value or "")
    return FILE if FILE.exists() else None


def _read(path: Path) -> dict[str, Any]:
    """What stands in a file of options; raises UsageError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as cause:
        raise UsageError(f"Cannot read {path}: {cause.strerror}.") from None
    except UnicodeError:
        raise UsageError(f"Cannot read {path}: it is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as cause:
        raise UsageError(f"{path} is not TOML: {cause}.") from None
    except RecursionError:
        raise UsageError(f"{path} has lists or tables too deep in each other; write options, one a line.") from None
    except ValueError:  # a number with thousands of digits
        raise UsageError(f"{path} has a number that is too long to be read.") from None


def _written(
    entries: Mapping[str, Any], own: Mapping[str, Any], file: str, base: str, command: str, wrong: Mistakes
) -> tuple[list[_Word], list[str]]:
    """What a file says, as options of the command, and as words for the hyperparameters of the file's strategy.

    Args:
        base: the strategy where the file names none.
    """
    names = {name.removeprefix("--"): option for name, option in own.items() if name.startswith("--")}
    names = {name: option for name, option in names.items() if name not in _OWN}
    strategy = entries.get("strategy", base)
    known: tuple[str, ...] = ()
    if isinstance(strategy, str):
        known = wrong.tried(partial(hyperparameters, strategy), ())
    words: list[_Word] = []
    settings: list[str] = []
    told: set[str] = set()
    for entry, value in entries.items():
        name, field = entry.replace("_", "-"), entry.replace("-", "_")
        if name in told:
            wrong.add(f"{file}: {entry} is there twice, with - and with _; write it once.")
        told.add(name)
        if name in names:
            words += wrong.tried(partial(_as_words, entry, names[name], value, file), [], file)
        elif field in known:
            settings += wrong.tried(partial(_as_setting, entry, name, value), [], file)
        else:
            options = [option.replace("-", "_") for option in names]
            wrong.add(f"{file}: {UnknownName(f'option of {command}', entry, {*options, *known})}")
    return words, settings


def _as_words(entry: str, option: Any, value: Any, file: str) -> list[_Word]:
    """An entry of the file as it would be typed."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{entry} is true or false.")
        names = [_long(option)] if value else option.secondary_opts[:1]
        return [_Word(option=option, name=name, value=None, file=file) for name in names]
    if isinstance(value, dict):
        if not option.multiple:
            raise UsageError(f"{entry} takes one value and no table.")
        values = [f"{name}={text}" for name, given in value.items() for text in _texts(entry, given)]
    else:
        values = _texts(entry, value)
        if not option.multiple and isinstance(value, list):
            raise UsageError(f"{entry} takes one value and no list.")
    return [_Word(option=option, name=_long(option), value=text, file=file) for text in values]


def _as_setting(entry: str, name: str, value: Any) -> list[str]:
    """An entry of the file as a hyperparameter that is typed."""
    return [f"--{name}={','.join(_texts(entry, value))}"]


def _texts(entry: str, value: Any) -> list[str]:
    """A value as it would be typed; each of a list."""
    if isinstance(value, list):
        return [text for one in value for text in _texts(entry, one)]
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, str) and "\0" in value:  # which no word that is typed can hold
        raise UsageError(f"{entry} holds a character NUL; leave it out.")
    if isinstance(value, str | int | float):
        with contextlib.suppress(ValueError):  # an integer with thousands of digits
            return [str(value)]
        raise UsageError(f"{entry} is a number that is too long.")
    raise UsageError(f"{entry} must be text, a number, true or false, or a list of them.")


def _twice(typed: Iterable[_Word]) -> Iterator[str]:
    """What is wrong where it is not clear what is served; of other options the last one counts, as everywhere."""
    first: dict[str, str | None] = {}
    for word in typed:
        if word.option.name not in _ONCE:
            continue
        if first.setdefault(word.option.name, word.value) != word.value:
            name = _long(word.option)
            yield f"{name} is given twice, as {first[word.option.name]!r} and {word.value!r}; give it once."


def _fits(word: _Word, ctx: Any) -> bool:
    """Whether the option takes this value; raises, as the parser does, where it does not."""
    if word.value is None:
        return True
    given = [word.value] if word.option.multiple else word.value
    with _kept(ctx.params):
        word.option.handle_parse_result(ctx, {word.option.name: given}, [])
    return True


@contextlib.contextmanager
def _kept(params: dict[str, Any]) -> Iterator[None]:
    before = dict(params)
    try:
        yield
    finally:
        params.clear()
        params.update(before)
