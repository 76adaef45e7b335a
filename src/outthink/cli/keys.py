"""The commands for the keys of a server's callers: key, and key list, revoke, limit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outthink.cli.options import JsonOption
from outthink.cli.parsing import Command, CommandGroup
from outthink.cli.shown import note, print_json, print_table
from outthink.errors import UsageError

if TYPE_CHECKING:
    from outthink.server.allowances import Allowance
    from outthink.server.book import Place

_RELOAD = "A running server reads it on SIGHUP."

FileArgument = Annotated[
    Path, typer.Argument(help="Keeps the names and hashes of keys: --api-key-file of a server.", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(help="Whose key it is.", show_default=False)]


class _KeyGroup(CommandGroup):
    """`key FILE` makes a key; `key list FILE` and the others are commands of their own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take what names no command for the words of `make`."""
        helps = args and args[0] in ctx.help_option_names
        if args and not helps and args[0] not in self.commands:
            args = ["make", *args]
        return list(super().parse_args(ctx, args))


key_app = typer.Typer(
    cls=_KeyGroup,
    help="Make a key for a caller of the server; list, revoke and limit keys.\n\n"
    "`outthink key FILE` makes one; a file called like a command is written as ./list.",
)


@key_app.callback(invoke_without_command=True)
def _key(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@key_app.command("make", cls=Command)
def key_make(
    file: FileArgument,
    name: Annotated[str | None, typer.Option(help="Whose key it is; otherwise key-1, key-2 ...")] = None,
) -> None:
    """Make a key for a caller of the server.

    It is printed once, and its hash is added to the file.
    """
    from outthink.server.keys import make_key

    name, made = make_key(file, name)
    typer.echo(made)
    note(f"This is the key {name}; {file} keeps its hash only, so it is not shown again.")


@key_app.command("list", cls=Command)
def key_list(
    file: FileArgument,
    spending: Annotated[Path | None, typer.Option(help="As of `serve`; else FILE.spent.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """The names of keys, their limits, and what of these is used up now."""
    from outthink.server.book import spent
    from outthink.server.keys import Keys, spending_file

    keys = Keys.open(file)
    charged = spent(spending or spending_file(file)) if keys.limits else {}
    now = time.time()
    rows = {name: [_row(name, limit, charged, now) for limit in keys.limits.get(name, ())] for name in keys.names}
    if as_json:
        print_json([{"name": name, "limits": limits} for name, limits in rows.items()])
        return
    from rich.table import Table

    table = Table("key", "limit", "spent", "may be spent", box=None, pad_edge=False)
    for name, limits in rows.items():
        for one in limits or [{"limit": "none", "spent": None, "held": None}]:
            table.add_row(
                name, one["limit"], *("" if one[cell] is None else f"{one[cell]:,.6g}" for cell in ("spent", "held"))
            )
    print_table(table)


@key_app.command("revoke", cls=Command)
def key_revoke(file: FileArgument, name: NameArgument) -> None:
    """Take a key out of the file, so that its holder is not served any more."""
    from outthink.server.keys import revoke_key

    revoke_key(file, name)
    note(f"The key {name} is no longer in {file}. {_RELOAD}")


@key_app.command("limit", cls=Command)
def key_limit(
    file: FileArgument,
    name: NameArgument,
    limits: Annotated[
        str,
        typer.Argument(
            help="Such as 60-requests/minute,100k-tokens/day,20usd/month,8-concurrent, in place of those that it has; "
            "none is no limit.",
            show_default=False,
        ),
    ],
) -> None:
    """Limit what a key may spend in a minute, a day or a month (UTC), and how many requests it may have at once."""
    from outthink.server.allowances import read_allowances
    from outthink.server.keys import limit_key

    try:
        read = read_allowances("" if limits == "none" else limits)
    except ValueError as cause:
        raise UsageError(f"{str(cause)[0].upper()}{str(cause)[1:]}.") from None
    limit_key(file, name, read)
    told = ", ".join(one.told for one in read) or "no limits"
    note(f"The key {name} has {told}. {_RELOAD}")


def _row(name: str, limit: Allowance, charged: Mapping[Place, tuple[float, float]], now: float) -> dict[str, Any]:
    """A limit as JSON data: what is spent of it in this window, and what beside that may be by what runs now."""
    spent, taken = charged.get((name, limit.unit, limit.span, limit.began(now)), (0.0, 0.0))
    return {"limit": limit.told, "spent": spent, "held": max(0.0, taken - spent)}
