"""The program: its commands in groups, and what becomes of their errors, of Ctrl-C and of a closed pipe."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from outthink import __version__
from outthink.cli import (
    answering,
    keys,
    learning,
    measuring,
    models,
    planning,
    reporting,
    searching,
    serving,
    showing,
    solving,
    sweeping,
    viewing,
)
from outthink.cli.configured import ConfiguredCommand
from outthink.cli.parsing import (
    ASK,
    LEARN,
    LOOK,
    MEASURE,
    MODELS,
    SERVE,
    Command,
    CommandGroup,
    HyperparameterCommand,
    Interrupted,
    help_if_alone,
)
from outthink.cli.shown import in_options, one_line
from outthink.errors import OutthinkError, UsageError

_NARROWEST = 10  # columns of text; a terminal that says it has fewer breaks the lines itself

app = typer.Typer(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Spend inference compute where it pays: test-time scaling under an enforced budget, with an honest ledger.",
    epilog="`outthink COMMAND -h` shows the options of a command.",
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    help_if_alone(context)


def _add(panel: str, *commands: Callable[..., Any], settings: bool = False, kind: type[Command] | None = None) -> None:
    for command in commands:
        app.command(
            cls=kind or (HyperparameterCommand if settings else Command),
            rich_help_panel=panel,
            epilog=(
                "Further options are hyperparameters of the strategy, such as --n 16 of self_consistency: "
                "`outthink strategies NAME` lists those of a strategy."
                if settings
                else None
            ),
        )(command)


_add(ASK, solving.solve, settings=True)
_add(ASK, solving.strategies, planning.quote)
_add(MEASURE, measuring.bench, settings=True)
_add(MEASURE, sweeping.sweep, measuring.pool, measuring.score, measuring.grade, measuring.merge, measuring.calibrate)
_add(LOOK, viewing.view, reporting.report, showing.show, answering.answers, reporting.replay, reporting.law)
app.add_typer(planning.plan_app, name="plan", rich_help_panel=LEARN)
app.add_typer(learning.prm_app, name="prm", rich_help_panel=LEARN)
app.add_typer(learning.cascade_app, name="cascade", rich_help_panel=LEARN)
app.add_typer(learning.optscale_app, name="optscale", rich_help_panel=LEARN)
app.add_typer(searching.search_app, name="search", rich_help_panel=LEARN)
_add(SERVE, serving.serve, settings=True, kind=ConfiguredCommand)
app.add_typer(keys.key_app, name="key", rich_help_panel=SERVE)
app.add_typer(models.models_app, name="models", rich_help_panel=MODELS)


@cache
def tree() -> Any:
    """All commands as they are parsed; putting them together takes longer than most of them, so it is done once."""
    return typer.main.get_command(app)


def run() -> int:
    """Run the command of `sys.argv`; the exit code. What goes wrong is told in one sentence."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # what the encoding of a terminal lacks is escaped
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    here = os.getcwd() if os.path.isdir(os.curdir) else ""
    if here and not sys.flags.safe_path and not {"", here} & {*sys.path}:
        sys.path.append(here)  # for module:Name; last, so that no file there takes the place of a module
    try:
        width = max(shutil.get_terminal_size().columns - 2, _NARROWEST)
        code = tree()(prog_name="outthink", standalone_mode=False, terminal_width=width if width < 78 else None)
        if sys.stdout is not None:
            sys.stdout.flush()  # while a closed pipe or a full disk can still be told
        return int(code or 0)
    except SystemExit as ended:  # of the parser, and of what draws tables into a pipe that was closed
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except OutthinkError as error:
        return _failed(str(error), 2 if isinstance(error, UsageError) else 1)
    except TyperException as error:
        return _failed(error.format_message(), 2)
    except (Interrupted, typer.Abort, KeyboardInterrupt) as error:
        return _failed(str(error) or "Interrupted.", 130, who="")
    except BrokenPipeError:
        return 1
    except Exception as error:
        if os.environ.get("OUTTHINK_DEBUG"):
            raise
        if isinstance(error, OSError) and error.strerror:
            name = "" if error.filename is None else f" {error.filename}"
            return _failed(f"Cannot write or read{name}: {error.strerror}.", 1)
        return _failed(f"Internal error: {type(error).__name__}: {error}. Set OUTTHINK_DEBUG=1 to see where.", 1)
    finally:
        _close()


def _failed(sentence: str, code: int, who: str = "outthink: ") -> int:
    with contextlib.suppress(OSError):
        typer.echo(f"{who}{one_line(in_options(sentence))}", err=True)
    return code


def _close() -> None:
    """Write what is still held back; a stream that takes nothing more takes nothing at the end of Python either."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
