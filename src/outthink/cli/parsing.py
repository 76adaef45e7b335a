"""How words become options: what is unknown is refused with near names, before anything is opened or spent."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from outthink.errors import UsageError

_LIKE_AN_OPTION = re.compile(r"--?[A-Za-z][\w-]*(?:=|$)|--$")
ASK, MEASURE, LOOK, LEARN, SERVE, MODELS = PANELS = (
    "Ask",
    "Measure",
    "Look at what was recorded",
    "Learn",
    "Serve",
    "Models",
)
"""What people want to do: the groups of the commands, in their order."""

_NEAR = 3  # names that are suggested
_SHOWN = 40  # characters of a word that an error repeats


class Interrupted(Exception):
    """Ctrl-C ended a command; the text says what was paid for. Typer would end the program without a word."""


class Command(TyperCommand):
    """A command that takes no word that looks like an option for anything else."""

    allow_extra_args = True  # so that what is left over is refused below, in a sentence of our own
    hyperparameters = False
    """Whether options that are not the command's own are the strategy's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set the parameters of the context; its `args` become the hyperparameters, each as --name=value."""
        own = self._options(ctx)
        before = args[: args.index("--")] if "--" in args else args
        if any(word in ctx.help_option_names for word in before) and not ctx.resilient_parsing:
            super().parse_args(ctx, ctx.help_option_names[-1:])
        words, further = self._split(args, own, ctx)
        if not ctx.resilient_parsing:
            self._check(words, further, own)
        super().parse_args(ctx, words)
        if ctx.args and not ctx.resilient_parsing:
            raise UsageError(unexpected(ctx.args[0]))
        given = [name if value is None else f"{name}={value}" for name, value in further]
        ctx.args = given
        return given

    def _options(self, ctx: Any) -> dict[str, Any]:
        """The command's own options by each of their names."""
        options = [parameter for parameter in self.get_params(ctx) if parameter.param_type_name == "option"]
        return {name: option for option in options for name in (*option.opts, *option.secondary_opts)}

    def _split(
        self, args: list[str], own: Mapping[str, Any], ctx: Any
    ) -> tuple[list[str], list[tuple[str, str | None]]]:
        """The words for the command's own options and arguments, and the further options with their values."""
        words: list[str] = []
        further: list[tuple[str, str | None]] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            if word == "--":
                words += [word, *rest]
                break
            if not word.startswith("-") or word == "-":
                words.append(word)
            elif name in own:
                words.append(word)
                if own[name].is_flag or equals:
                    continue
                if rest and _LIKE_AN_OPTION.match(rest[0]) and not ctx.resilient_parsing:
                    raise UsageError(f"The option {name} needs a value; if it is {rest[0]!r}, write {name}={rest[0]}.")
                words += rest[:1]
                del rest[:1]
            elif word[1] != "-" and word[:2] in own:
                words.append(word)  # -n4
            elif not _LIKE_AN_OPTION.match(word):
                further.append((word, None))  # a sentence that begins with -
            else:
                taken = self.hyperparameters and not equals and bool(rest) and not _LIKE_AN_OPTION.match(rest[0])
                further.append((name, value if equals else rest.pop(0) if taken else None))
        return words, further

    def _check(self, words: list[str], further: list[tuple[str, str | None]], own: Mapping[str, Any]) -> None:
        if not further:
            return
        strategy = self._strategy(words, own) if self.hyperparameters else None
        fields = () if strategy is None else hyperparameters(strategy)
        known = {f"--{field.replace('_', '-')}" for field in fields}
        for name, _ in further:
            if name.replace("_", "-") not in known:
                raise UsageError(_unknown(name, str(self.name), strategy, known, own))
        for name, value in further:
            if value is None:
                raise UsageError(f"The option {name} needs a value.")

    def _strategy(self, words: list[str], own: Mapping[str, Any]) -> str:
        option = own["--strategy"]
        name = str(option.default)
        for place, word in enumerate(words):
            if word == "--":
                break
            given, equals, value = word.partition("=")
            if given in option.opts:
                name = value if equals else words[place + 1] if place + 1 < len(words) else name
            elif word[1:2] != "-" and word[:2] in option.opts:
                name = word[2:]
        return name

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options; where it is narrow, what they mean stands below their names."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            rows = [one.get_help_record(ctx) for one in self.get_params(ctx) if one.param_type_name == kind]
            rows = [row for row in rows if row is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=_names(formatter))


class HyperparameterCommand(Command):
    """A command whose further options are hyperparameters of the strategy: --n 16 --balance 0.1."""

    hyperparameters = True


_RENAMED = {"takeover": "cascade"}


class CommandGroup(TyperGroup):
    """A command that only has further commands, listed by what they are for, each with its whole first sentence."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Options and commands."""
        rows = [row for one in self.get_params(ctx) if (row := one.get_help_record(ctx)) is not None]
        with formatter.section("Options"):
            formatter.write_dl(rows, col_max=_names(formatter))
        panels: dict[str, list[tuple[str, str]]] = {panel: [] for panel in PANELS}
        for name, command in self.commands.items():
            panel = getattr(command, "rich_help_panel", None)
            summary = " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())
            panels.setdefault(panel if isinstance(panel, str) else "Commands", []).append((name, summary))
        for panel, listed in ((panel, listed) for panel, listed in panels.items() if listed):
            with formatter.section(panel):
                formatter.write_dl(listed, col_max=_names(formatter))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant."""
        if (now := _RENAMED.get(args[0])) is not None:
            raise UsageError(f"The command {args[0]} is called {now} now.")
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Read the words."""
        with _telling_of_interrupts():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with _telling_of_interrupts():
            return super().invoke(ctx)


@contextlib.contextmanager
def _telling_of_interrupts() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as cause:
        raise Interrupted(str(cause) or "Interrupted.") from None


def hyperparameters(strategy: str) -> tuple[str, ...]:
    """The names of a strategy's hyperparameters; "none" has none. Raises UsageError where there is no such strategy."""
    from outthink.names import load
    from outthink.strategies import STRATEGIES
    from outthink.strategies.making import no_such_strategy

    name = strategy.partition("?")[0]
    if name == "none":
        return ()
    if name not in STRATEGIES and ":" not in name:
        raise no_such_strategy(name)
    made = load(STRATEGIES.get(name, name))
    return tuple(field.name for field in dataclasses.fields(made)) if dataclasses.is_dataclass(made) else ()


def unexpected(word: str) -> str:
    """What is wrong with a word that no option and no argument takes."""
    return f"Unexpected argument {word!r}; put text with spaces in quotes, and write options as --name value."


def _unknown(name: str, command: str, strategy: str | None, known: Iterable[str], own: Iterable[str]) -> str:
    what = f"There is no option {name if len(name) <= _SHOWN else name[:_SHOWN] + '...'!r} of {command}"
    if strategy == "none":
        what += ", and none, which is one sample as it was asked for, has no hyperparameters"
    elif strategy is not None:
        what += f", and no such hyperparameter of {strategy}"
    options = {option.lstrip("-"): option for option in (*known, *own)}  # without dashes, which make all alike
    near = difflib.get_close_matches(name.lstrip("-").replace("_", "-"), options, n=_NEAR, cutoff=0.6)
    if near:
        return f"{what}; did you mean {' or '.join(repr(options[one]) for one in near)}?"
    if not _LIKE_AN_OPTION.match(name):
        return f"{what}; text that begins with - goes last, after --."
    has = ", ".join(sorted(known))
    listed = f"; {strategy} has {has}" if has else ""
    return f"{what}{listed}; `outthink {command} -h` lists the options."


def _names(formatter: Any) -> int:
    """How wide the column of names may be."""
    return 30 if formatter.width >= 60 else 12


def takes_blocks(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a command whose parameters that are blocks of options are those options.

    A block is a dataclass with a class variable `block` that is true; its fields are annotated as parameters are.
    """
    hints = get_type_hints(function, include_extras=True)
    blocks = {name: hint for name, hint in hints.items() if getattr(hint, "block", False)}
    parts: dict[str, tuple[str, ...]] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in blocks:
            flat.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))
            continue
        options = get_type_hints(blocks[name], include_extras=True)
        fields = dataclasses.fields(blocks[name])
        parts[name] = tuple(field.name for field in fields)
        flat += [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=options[field.name]
            )
            for field in fields
        ]

    def command(**given: Any) -> Any:
        made = {name: blocks[name](**{part: given.pop(part) for part in own}) for name, own in parts.items()}
        return function(**given, **made)

    command.__name__, command.__doc__, command.__module__ = function.__name__, function.__doc__, function.__module__
    command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return command


def help_if_alone(context: typer.Context) -> None:
    """A command that only has further commands shows its help where none is named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def group(text: str) -> typer.Typer:
    """A command that only has further commands."""
    made = typer.Typer(cls=CommandGroup, help=text)
    made.callback(invoke_without_command=True)(help_if_alone)
    return made
