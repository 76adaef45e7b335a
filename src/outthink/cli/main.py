"""The command line: its commands, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

import typer
from typer.exceptions import TyperException

from outthink import __version__
from outthink.cli import learning, measuring, models, planning, reporting, serving, solving
from outthink.cli.options import HYPERPARAMETERS, help_if_alone
from outthink.errors import OutthinkError, UsageError

if TYPE_CHECKING:
    pass


@runtime_checkable
class _Formatted(Protocol):
    """An error of the command-line parser that words itself."""

    def format_message(self) -> str: ...


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Spend inference compute where it pays: test-time scaling under an enforced budget, with an honest ledger.",
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    help_if_alone(context)


_WITH_SETTINGS: tuple[Callable[..., None], ...] = (solving.solve, measuring.bench, serving.serve)
_OTHERS: tuple[Callable[..., None], ...] = (
    measuring.pool,
    reporting.report,
    measuring.grade,
    reporting.replay,
    reporting.law,
    measuring.merge,
    measuring.calibrate,
    solving.strategies,
    planning.quote,
    serving.key,
)
for command in _WITH_SETTINGS:
    app.command(context_settings=HYPERPARAMETERS)(command)
for command in _OTHERS:
    app.command()(command)
app.add_typer(models.models_app, name="models")
app.add_typer(learning.prm_app, name="prm")
app.add_typer(learning.takeover_app, name="takeover")
app.add_typer(planning.plan_app, name="plan")


def main() -> None:
    """Entry point: errors are one sentence and a non-zero exit, never a traceback."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except OutthinkError as error:
        _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except TyperException as error:
        _fail(error.format_message() if isinstance(error, _Formatted) else str(error), 2)
    except (typer.Abort, KeyboardInterrupt):
        _fail("Interrupted.", 130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if os.environ.get("OUTTHINK_DEBUG"):
            raise
        _fail(f"Internal error: {type(error).__name__}: {error}. Set OUTTHINK_DEBUG=1 to see where.", 1)


def _fail(sentence: str, code: int) -> None:
    typer.echo(f"outthink: {sentence}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
